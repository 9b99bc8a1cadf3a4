//! Who made which lab, and removing it: at the end of a lab, or later if its maker was killed.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::{self, RECORD, start_time};
use crate::wait_until;

const PREFIX: &str = "esp-";
/// The file in a lab's folder that tells when its maker started.
const OWNER: &str = "owner";

/// Takes a fresh id and makes its folder. The id holds the maker's process id, the folder its start time.
pub(crate) fn claim() -> Result<(String, PathBuf)> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let pid = std::process::id();
    let started = start_time(pid.cast_signed()).context("our own start time isn't in /proc")?;
    loop {
        let id = format!("{PREFIX}{pid}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        // Not the TMPDIR of a user: sockets lie in it, whose paths may be 107 bytes long at most.
        let dir = Path::new("/tmp").join(&id);
        match fs::create_dir(&dir) {
            Ok(()) => {}
            // The rest of a dead lab whose maker had our process id.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error).with_context(|| format!("making the folder {} failed", dir.display())),
        }
        fs::write(dir.join(OWNER), started.to_string()).context("recording the lab's owner failed")?;
        return Ok((id, dir));
    }
}

/// Removes a lab: processes, namespaces, folder. What is gone already is no error.
pub(crate) fn remove(id: &str, dir: &Path) -> Result<()> {
    end_processes(dir)?;
    let namespaces = namespaces_of(id);
    let lines = namespaces.iter().fold(String::new(), |lines, name| lines + "netns del " + name + "\n");
    let removed = process::feed(Command::new("ip").args(["-force", "-batch", "-"]), &lines);
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing the folder {} failed", dir.display()))
        }
        _ => removed,
    }
}

/// Ends the recorded processes that are still the ones recorded.
fn end_processes(dir: &Path) -> Result<()> {
    let Ok(record) = fs::read_to_string(dir.join(RECORD)) else { return Ok(()) };
    for line in record.lines() {
        let mut fields = line.split(' ');
        let (Some(Ok(pid)), Some(Ok(started))) =
            (fields.next().map(str::parse::<i32>), fields.next().map(str::parse::<u64>))
        else {
            continue;
        };
        let same = || start_time(pid) == Some(started);
        if same() && kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok() {
            // A zombie is as good as gone; it is its parent's to wait for.
            let dead =
                || Ok(!same() || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z ")));
            wait_until(&format!("the end of process {pid}"), Duration::from_secs(5), dead)?;
        }
    }
    Ok(())
}

fn namespaces_of(id: &str) -> Vec<String> {
    let prefix = format!("{id}-");
    names_in(Path::new("/run/netns")).into_iter().filter(|name| name.starts_with(&prefix)).collect()
}

fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// The id at the beginning of a name, `esp-<pid>-<n>`, and the process id in it.
fn id_in(name: &str) -> Option<(String, i32)> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    let (pid, number) = (parts.next()?.parse().ok()?, parts.next()?.parse::<u32>().ok()?);
    Some((format!("{PREFIX}{pid}-{number}"), pid))
}

/// Removes what dead labs left behind and returns their ids; labs whose maker lives are left alone.
pub fn clean() -> Result<Vec<String>> {
    let mut names = names_in(Path::new("/run/netns"));
    names.extend(names_in(Path::new("/tmp")));
    let labs: BTreeSet<_> = names.iter().filter_map(|name| id_in(name)).collect();
    let mut removed = Vec::new();
    for (id, pid) in labs {
        let dir = Path::new("/tmp").join(&id);
        let recorded = fs::read_to_string(dir.join(OWNER)).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let alive = match (start_time(pid), recorded) {
            (None, _) => false,
            (Some(now), Some(then)) => now == then,
            // Without a record it can't be told whose the process is: leave it.
            (Some(_), None) => true,
        };
        if !alive {
            remove(&id, &dir).with_context(|| format!("removing lab {id} failed"))?;
            removed.push(id);
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_names() {
        assert_eq!(id_in("esp-12-3-h1-green-1"), Some(("esp-12-3".to_owned(), 12)));
        assert_eq!(id_in("esp-12-3"), Some(("esp-12-3".to_owned(), 12)));
        assert_eq!(id_in("esp-12"), None);
        assert_eq!(id_in("other-12-3"), None);
    }
}
