//! Policy files: reading them, and the one place that turns their texts into a policy.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use apps::policy::{self, Policy, Source};
use sha2::{Digest, Sha256};

/// What is longer may be a mistake in the path.
const FILE_MAX: u64 = Source::BYTES_MAX as u64;

/// Policy files of no use: text for the operator, ready to print.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPolicy(pub String);

/// Turns texts into a policy and warnings about it.
///
/// # Errors
/// [`BadPolicy`] with all diagnostics, in colour if wanted.
pub fn load(sources: &[Source], colour: bool) -> Result<(Policy, Vec<String>), BadPolicy> {
    match policy::load(sources) {
        Ok(loaded) => Ok((loaded.policy, loaded.warnings.iter().map(ToString::to_string).collect())),
        Err(diagnostics) => Err(BadPolicy(diagnostics.render(colour))),
    }
}

/// SHA-256 over the texts, in order and in hex: what `cat FILES | sha256sum` prints.
pub fn digest(sources: &[Source]) -> String {
    let hash = sources.iter().fold(Sha256::new(), |hash, source| hash.chain_update(&source.text)).finalize();
    hash.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Reads files, and of folders every `*.toml`, in order of names.
///
/// # Errors
/// [`BadPolicy`] for the first one that can't be read.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Source>, BadPolicy> {
    let mut sources = Vec::new();
    for path in paths {
        if path.is_dir() {
            let files = folder(path)?;
            if files.is_empty() {
                // More likely a mistake, or a moment of somebody's deployment, than the wish to have no tenants.
                let say = "has no *.toml file; for an empty policy put one there that says `version = 1`";
                return Err(BadPolicy(format!("the policy folder {} {say}", path.display())));
            }
            for file in files {
                sources.push(read_file(&file)?);
            }
        } else {
            sources.push(read_file(path)?);
        }
    }
    Ok(sources)
}

/// The policy files of a folder, in order of names.
///
/// # Errors
/// [`BadPolicy`]: it can't be read.
pub fn folder(path: &Path) -> Result<Vec<PathBuf>, BadPolicy> {
    let unreadable = |error| BadPolicy(format!("can't read the policy folder {}: {error}", path.display()));
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        // Editors and deployments keep their own things under names that begin with a dot.
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && file.extension().is_some_and(|extension| extension == "toml") && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> Result<Source, BadPolicy> {
    let unreadable = |error: &dyn std::fmt::Display| {
        BadPolicy(format!("can't read the policy file {}: {error}; check its name and its mode", path.display()))
    };
    let mut octets = Vec::new();
    let opened = fs::File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut octets));
    let length = opened.map_err(|error| unreadable(&error))? as u64;
    if length > FILE_MAX {
        return Err(unreadable(&format!("it has more than the {FILE_MAX} octets that a policy may have")));
    }
    let text = String::from_utf8(octets).map_err(|error| unreadable(&format!("it isn't UTF-8 text: {error}")))?;
    Ok(Source { name: path.display().to_string(), text })
}
