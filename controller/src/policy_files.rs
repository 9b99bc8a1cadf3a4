//! Policy files: reading them, the one place that turns their texts into a policy, and several of them as one text.
//!
//! Several files travel, and are shown, as one text in which a line `#: file NAME` stands before each. To TOML that is a
//! comment. Wherever policies are read, such a text is taken for the files that it holds, so that mistakes are told with the
//! name and line that the author knows.

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

/// How the line before a file begins.
const MARK: &str = "#: file ";

/// Several files as one text.
pub fn join(sources: &[Source]) -> String {
    let mut text = String::new();
    for source in sources {
        let name = source.name.replace(char::is_control, "?");
        text += &format!("{MARK}{name}\n{}", source.text);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    text
}

/// The files that a text holds; what comes before the first mark, or all if there is none, is one called `name`.
pub fn split(name: &str, text: &str) -> Vec<Source> {
    let mut sources = vec![Source { name: name.to_owned(), text: String::new() }];
    for line in text.split_inclusive('\n') {
        match (line.strip_prefix(MARK), sources.last_mut()) {
            (Some(name), _) => sources.push(Source { name: name.trim().to_owned(), text: String::new() }),
            (None, Some(source)) => source.text += line,
            (None, None) => {}
        }
    }
    if sources.len() > 1 && sources.first().is_some_and(|first| first.text.trim().is_empty()) {
        sources.remove(0);
    }
    sources
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
                sources.extend(read_file(&file)?);
            }
        } else {
            sources.extend(read_file(path)?);
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

fn read_file(path: &Path) -> Result<Vec<Source>, BadPolicy> {
    let unreadable = |error: String| {
        BadPolicy(format!("can't read the policy file {}: {error}; check its name and its mode", path.display()))
    };
    let text = fs::File::open(path).map_err(|error| error.to_string()).and_then(text_of).map_err(unreadable)?;
    Ok(split(&path.display().to_string(), &text))
}

/// What comes in by standard input, as a file of that name.
///
/// # Errors
/// [`BadPolicy`]: it can't be read.
pub fn standard_input() -> Result<Vec<Source>, BadPolicy> {
    let text = text_of(std::io::stdin().lock());
    let text = text.map_err(|error| BadPolicy(format!("can't read a policy from standard input: {error}")))?;
    Ok(split("stdin", &text))
}

fn text_of(input: impl Read) -> Result<String, String> {
    let mut octets = Vec::new();
    let length = input.take(FILE_MAX + 1).read_to_end(&mut octets).map_err(|error| error.to_string())? as u64;
    if length > FILE_MAX {
        return Err(format!("it has more than the {FILE_MAX} octets that a policy may have"));
    }
    String::from_utf8(octets).map_err(|error| format!("it isn't UTF-8 text: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_files_become_one_text_and_the_same_files_again() {
        let file = |name: &str, text: &str| Source { name: name.into(), text: text.into() };
        let files = [file("a b.toml", "version = 1\n# x\n"), file("../c.toml", "version = 1\r\n")];
        let text = join(&files);
        assert_eq!(text, "#: file a b.toml\nversion = 1\n# x\n#: file ../c.toml\nversion = 1\r\n");
        assert_eq!((split("x", &text), split("x", &join(&files[..1]))), (files.to_vec(), files[..1].to_vec()));
        assert_eq!(split("x", &join(&[file("a\nb", "1"), file("c", "")])), [file("a?b", "1\n"), file("c", "")]);
        // Without marks it is one file; what somebody puts before the first is a file, too.
        assert_eq!(split("x", "version = 1"), [file("x", "version = 1")]);
        assert_eq!(split("x", ""), [file("x", "")]);
        assert_eq!(split("x", "y = 1\n#: file z\n"), [file("x", "y = 1\n"), file("z", "")]);
    }

    #[test]
    fn mistakes_in_one_text_are_told_by_file_and_line() {
        let text = "#: file green.toml\nversion = 1\n\n[[tenant]]\nname = \"green\"\n#: file orange.toml\nversion = 1\noops = 2\n";
        let told = load(&split("x", text), false).unwrap_err().0;
        assert!(told.contains("orange.toml:2:1"), "{told}");
    }
}
