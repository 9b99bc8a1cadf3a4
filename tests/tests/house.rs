//! House rules that no compiler checks: crates depend one way, files stay small, links in the docs lead somewhere.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All files below a folder of the project, what is built left out.
fn files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != ".git" {
            files(&path, found)?;
        } else if path.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

fn all(extension: &str) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    files(&root(), &mut found)?;
    let wanted = found.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == extension));
    wanted.map(|path| Ok((path.clone(), fs::read_to_string(&path)?))).collect()
}

#[test]
fn crates_depend_one_way() -> Result<()> {
    let order = ["openflow", "apps", "espalier"];
    for (place, folder) in ["openflow", "apps", "controller"].iter().enumerate() {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml"))?;
        let manifest = manifest.split_once("[dependencies]").context("a crate has dependencies")?.1;
        for later in &order[place..] {
            ensure!(!manifest.contains(&format!("\n{later}.workspace")), "{folder} may not depend on {later}");
        }
        if *folder != "controller" {
            for banned in ["tokio", "tracing", "axum"] {
                ensure!(!manifest.contains(&format!("\n{banned}")), "{folder} is pure: no {banned}");
            }
        }
    }
    Ok(())
}

#[test]
fn pure_code_reads_no_clock_and_does_no_io() -> Result<()> {
    let pure = ["openflow/src", "apps/src", "controller/src/core"].map(|folder| root().join(folder));
    let sources = all("rs")?;
    let pure: Vec<_> = sources.iter().filter(|(path, _)| pure.iter().any(|folder| path.starts_with(folder))).collect();
    ensure!(pure.len() > 30, "only {} files found", pure.len());
    for (path, text) in pure {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        // Threads that end where they began only share the work.
        let code = code.replace("use std::thread::scope;", "");
        for banned in ["Instant::now", "SystemTime", "std::fs", "std::thread", "HashMap", "HashSet", "TcpStream"] {
            ensure!(!code.contains(banned), "{} is pure: no {banned}", path.display());
        }
    }
    Ok(())
}

#[test]
fn files_can_be_held_in_the_head() -> Result<()> {
    for (path, text) in all("rs")? {
        let lines = text.lines().count();
        ensure!(lines <= 500, "{} has {lines} lines; 500 are the most", path.display());
    }
    Ok(())
}

#[test]
fn links_in_the_docs_lead_somewhere() -> Result<()> {
    let mut links = 0;
    for (path, text) in all("md")? {
        let folder = path.parent().context("a file has a folder")?;
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            if !target.starts_with("http") && !target.starts_with('#') {
                let file = target.split('#').next().unwrap_or_default();
                ensure!(folder.join(file).exists(), "{} links to {target}", path.display());
                links += 1;
            }
        }
    }
    ensure!(links > 10, "only {links} links found");
    Ok(())
}
