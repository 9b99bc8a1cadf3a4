//! Goal: whatever happens to the process or the disk, the store gives what was kept, old or new, or refuses clearly; it never
//! gives an empty policy instead. Method: the program is killed while it writes, disks are filled and made read-only (small
//! file systems in memory, which takes root), and files are cut and changed at every place.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use apps::policy::Source;
use controller::core::Memory;
use controller::history::History;
use controller::store::{FileStore, Store, StoreError};
use support::Folder;
use support::model::{Manner, Model};
use support::program::{Program, espalier};

fn files(text: &str) -> Vec<Source> {
    vec![Source { name: "a.toml".into(), text: text.into() }]
}

/// A policy that is as long as wanted.
fn policy(number: usize, octets: usize) -> String {
    format!("version = 1\n# {number} {}\n", "x".repeat(octets))
}

/// Opens a store that was let go. Another test that starts a program right then has a copy of the lock for a moment, between
/// fork and exec.
fn open(folder: &Path) -> Result<FileStore, StoreError> {
    let start = Instant::now();
    loop {
        match FileStore::open(folder) {
            Err(StoreError::InUse(_)) if start.elapsed() < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

/// A folder with a store that holds something.
fn kept(folder: &Path) -> (History, Memory) {
    let store = open(folder).unwrap();
    let history = History::default().applied(files("version = 1\n"), None).applied(files("version = 1\n# 2\n"), None);
    let memory = Memory { bridges: [7].into(), ..Memory::default() };
    store.keep_policies(&history).unwrap();
    store.keep_memory(&memory).unwrap();
    (history, memory)
}

#[test]
fn what_is_kept_is_there_after_a_restart_and_only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let top = Folder::new();
    let folder = top.0.join("new/state");
    {
        let store = open(&folder).unwrap();
        assert_eq!((store.policies().unwrap(), store.memory().unwrap()), (History::default(), Memory::default()));
        assert!(matches!(FileStore::open(&folder), Err(StoreError::InUse(_))));
    }
    let (history, memory) = kept(&folder);
    let store = open(&folder).unwrap();
    assert_eq!((store.policies().unwrap(), store.memory().unwrap()), (history, memory));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let files = ["policy", "memory", "lock"].map(|name| mode(&folder.join(name)));
    assert_eq!((mode(&folder), files), (0o700, [0o600; 3]));
    let error = open(&folder.join("policy")).unwrap_err().to_string();
    assert!(error.contains("--state"), "{error}");
}

#[test]
fn a_file_that_is_gone_is_no_first_start() {
    let top = Folder::new();
    for name in ["policy", "memory"] {
        let folder = top.0.join(name);
        kept(&folder);
        fs::remove_file(folder.join(name)).unwrap();
        let store = open(&folder).unwrap();
        let error = if name == "policy" { store.policies().map(drop) } else { store.memory().map(drop) }.unwrap_err();
        assert!(matches!(&error, StoreError::Lost { path, .. } if *path == folder.join(name)), "{error}");
        drop(store);
        // It isn't made up for by the next start either, not even if the lock's content is lost as well.
        fs::write(folder.join("lock"), "").unwrap();
        let again = open(&folder).and_then(|store| store.policies());
        match name {
            "policy" => assert!(matches!(again, Err(StoreError::Lost { .. }))),
            _ => assert_eq!(again.unwrap().in_force.generation, 2),
        }
    }
    // A first start that was killed in between goes on.
    let folder = top.0.join("begun");
    drop(open(&folder).unwrap());
    fs::write(folder.join("lock"), "").unwrap();
    fs::remove_file(folder.join("memory")).unwrap();
    let store = open(&folder).unwrap();
    assert_eq!((store.policies().unwrap(), store.memory().unwrap()), (History::default(), Memory::default()));
}

#[test]
fn every_cut_and_every_changed_bit_is_noticed() {
    let top = Folder::new();
    let folder = top.0.join("state");
    let (history, memory) = kept(&folder);
    let store = open(&folder).unwrap();
    for name in ["policy", "memory"] {
        let path = folder.join(name);
        let sound = fs::read(&path).unwrap();
        assert!(sound.len() > 80, "{name} has {} octets", sound.len());
        let cut = (0..sound.len()).map(|length| sound[..length].to_vec());
        let flipped = (0..sound.len() * 8).map(|bit| {
            let mut octets = sound.clone();
            octets[bit / 8] ^= 1 << (bit % 8);
            octets
        });
        let longer = [[&sound[..], b"\n"].concat(), [&sound[..], &sound].concat(), [b"\n", &sound[..]].concat()];
        let mut tried = 0;
        for octets in cut.chain(flipped).chain(longer) {
            fs::write(&path, &octets).unwrap();
            let read = if name == "policy" { store.policies().map(drop) } else { store.memory().map(drop) };
            let error = read.expect_err(&format!("{name} as {:?}", String::from_utf8_lossy(&octets)));
            assert!(matches!(&error, StoreError::Damaged { path: told, .. } if *told == path), "{error}");
            tried += 1;
        }
        assert_eq!(tried, sound.len() * 9 + 3);
        fs::write(&path, &sound).unwrap();
    }
    assert_eq!((store.policies().unwrap(), store.memory().unwrap()), (history, memory));
}

#[test]
fn a_controller_does_not_start_with_a_damaged_store_and_says_what_to_do() {
    let top = Folder::new();
    let folder = top.0.join("state");
    kept(&folder);
    let policy = top.write("p.toml", "version = 1\n# from a file\n");
    let serve = |more: &[&str]| {
        let state = folder.to_str().unwrap();
        let arguments = [&["serve", "--openflow=127.0.0.1:0", "--rest=127.0.0.1:0", "--state", state], more].concat();
        let output = espalier(&arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let path = folder.join("policy");
    let mut octets = fs::read(&path).unwrap();
    *octets.last_mut().unwrap() ^= 1;
    fs::write(&path, octets).unwrap();
    // Also with files: what was kept may be wanted yet.
    for more in [&[][..], &["--policy", policy.to_str().unwrap()]] {
        let (code, text) = serve(more);
        let told = ["state/policy", "checksum", "Restore it from a copy", "move it away", "--policy"];
        assert!(code == Some(2) && told.iter().all(|part| text.contains(part)), "{text}");
    }
    fs::rename(&path, top.0.join("away")).unwrap();
    let (code, text) = serve(&[]);
    assert!(code == Some(2) && text.contains("state/policy is gone") && text.contains("--policy"), "{text}");

    // As it says: once with files, then without.
    for arguments in [&["--policy", policy.to_str().unwrap()][..], &[]] {
        let program = Program::start(&[&["--state", folder.to_str().unwrap()], arguments].concat());
        program.signal("-TERM");
        drop(program);
    }
    let kept = open(&folder).unwrap().policies().unwrap();
    assert_eq!(kept.in_force.sources[0].text, "version = 1\n# from a file\n");
    fs::remove_file(folder.join("memory")).unwrap();
    let (code, text) = serve(&[]);
    assert!(code == Some(2) && text.contains("state/memory is gone") && text.contains("whole folder"), "{text}");
}

/// Numbers that only look random, so that a failure comes again.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_the_old_or_the_new_policy_is_in_force() {
    let top = Folder::new();
    let folder = top.0.join("state");
    let (mut seed, mut number, mut applied, mut during) = (1, 0, 0, 0);
    for round in 0..40 {
        let mut program = Program::start(&["--state", folder.to_str().unwrap()]);
        let delay = Duration::from_micros(random(&mut seed) % 200_000);
        let pid = program.child.id().to_string();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(delay);
            assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        });
        // Until it is killed, one policy after the other.
        loop {
            let text = policy(number + 1, 5_000);
            match program.try_send("PUT", "/v1/policy", "", &text).await {
                Some((200, ..)) => {
                    number += 1;
                    applied = number;
                }
                Some((status, _, body)) => panic!("{status}: {body}"),
                None => break,
            }
        }
        killer.join().unwrap();
        program.child.wait().unwrap();
        // The one that it was killed over may be in force or not; the one before it is a former one then.
        let history = open(&folder).unwrap().policies().unwrap();
        let text = |kept: &controller::history::Kept| kept.sources.first().map(|source| source.text.clone());
        let now = text(&history.in_force);
        if now == Some(policy(number + 1, 5_000)) {
            during += 1;
            number += 1;
            applied = number;
        }
        let wanted = (applied > 0).then(|| policy(applied, 5_000));
        assert!(now == wanted, "round {round}: generation {} instead of {applied}", history.in_force.generation);
        assert_eq!(history.in_force.generation, applied as u64);
    }
    assert!(applied > 40, "only {applied} policies were applied, {during} of them while it was killed");
}

/// A file system in memory, with so many octets; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(folder: &Folder, size: &str) -> Self {
        let path = folder.0.join("disk");
        fs::create_dir(&path).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "espalier-test"]).arg(&path).status();
        assert!(mounted.unwrap().success(), "this test mounts a file system, for which it needs root");
        Self(path)
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_or_read_only_disk_refuses_a_policy_and_changes_nothing() {
    let top = Folder::new();
    let disk = Disk::mount(&top, "512k");
    let state = disk.0.join("state");
    let program = Program::start(&["--state", state.to_str().unwrap()]);
    let (status, _, body) = program.send("PUT", "/v1/policy", "", &policy(1, 10)).await;
    assert_eq!(status, 200, "{body}");
    let before = fs::read(state.join("policy")).unwrap();
    let unchanged = async |why: &str| {
        let (status, _, body) = program.send("PUT", "/v1/policy", "", &policy(2, 300_000)).await;
        let told = ["state/policy", why, "unchanged"].iter().all(|part| body.contains(part));
        assert!(status == 507 && told, "{status} {body}");
        let (_, head, text) = program.call("/v1/policy").await;
        assert!(text.contains(&policy(1, 10)) && head.contains("etag"), "{head}{text}");
        program.wait("generation 1", "/v1/status", |status| status["policy"]["generation"] == 1).await;
        assert_eq!(fs::read(state.join("policy")).unwrap(), before);
        assert!(!state.join("policy.new").exists());
    };
    fs::write(disk.0.join("filler"), vec![0; 400_000]).unwrap();
    unchanged("No space left").await;
    let (status, _, body) = program.send("POST", "/v1/policy/undo?empty=true", "", "").await;
    // The store has room for a short history.
    assert_eq!((status, body.contains("\"generation\":2")), (200, true), "{body}");
    let (status, _, body) = program.send("PUT", "/v1/policy", "", &policy(1, 10)).await;
    assert_eq!(status, 200, "{body}");
    drop(program);

    disk.remount("ro");
    let output =
        espalier(&["serve", "--openflow=127.0.0.1:0", "--rest=127.0.0.1:0", "--state", state.to_str().unwrap()])
            .output()
            .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && text.contains("Read-only") && text.contains("--state"), "{text}");

    // With room again all goes on where it was.
    disk.remount("rw");
    fs::remove_file(disk.0.join("filler")).unwrap();
    let program = Program::start(&["--state", state.to_str().unwrap()]);
    program.wait("generation 3", "/v1/status", |status| status["policy"]["generation"] == 3).await;
    let (status, _, body) = program.send("PUT", "/v1/policy", "", &policy(2, 100_000)).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_not_confirmed_goes_although_the_disk_is_full_and_that_is_kept_later() {
    let top = Folder::new();
    let disk = Disk::mount(&top, "512k");
    let state = disk.0.join("state");
    let program = Program::start(&["--state", state.to_str().unwrap()]);
    for (path, number) in [("/v1/policy", 1), ("/v1/policy?confirm_within=1500ms", 2)] {
        let (status, _, body) = program.send("PUT", path, "", &policy(number, 10)).await;
        assert_eq!(status, 200, "{body}");
    }
    // Not one octet is left.
    let filler = fs::File::create(disk.0.join("filler")).unwrap();
    while std::io::Write::write(&mut &filler, &[0; 4096]).is_ok() {}
    let back = |status: &serde_json::Value| status["policy"]["generation"] == 3;
    let status = program.wait("the policy before returns", "/v1/status", back).await;
    let problem = |status: &serde_json::Value| {
        status["problems"].as_array().unwrap().iter().any(|text| text.as_str().unwrap().contains("isn't kept"))
    };
    assert!(problem(&status), "{status}");
    assert!(program.call("/v1/policy").await.2.contains(&policy(1, 10)));
    fs::remove_file(disk.0.join("filler")).unwrap();
    drop(filler);
    program.wait("it is kept", "/v1/status", |status| !problem(status)).await;
    drop(program);
    let history = open(&state).unwrap().policies().unwrap();
    assert_eq!((history.in_force.generation, history.in_force.sources[0].text.clone()), (3, policy(1, 10)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_core_remembers_is_kept_as_soon_as_there_is_room() {
    let top = Folder::new();
    let disk = Disk::mount(&top, "512k");
    let state = disk.0.join("state");
    let program = Program::start(&["--state", state.to_str().unwrap()]);
    let text = "version = 1\n[[tenant]]\nname = \"green\"\nports = [{ bridge = \"*\", port = \"green-*\" }]\n";
    let (status, _, body) = program.send("PUT", "/v1/policy", "", text).await;
    assert_eq!(status, 200, "{body}");
    let filler = fs::File::create(disk.0.join("filler")).unwrap();
    while std::io::Write::write(&mut &filler, &[0; 4096]).is_ok() {}
    let manner = Manner { ports: vec!["green-1"], ..Manner::default() };
    let _model = Model::connect(program.openflow, 0xa, manner).await;
    let problem = |status: &serde_json::Value| {
        status["problems"].as_array().unwrap().iter().any(|text| text.as_str().unwrap().contains("state/memory"))
    };
    program.wait("a problem", "/v1/status", problem).await;
    fs::remove_file(disk.0.join("filler")).unwrap();
    drop(filler);
    program.wait("it is kept", "/v1/status", |status| !problem(status)).await;
    drop(program);
    let memory = open(&state).unwrap().memory().unwrap();
    assert!(memory.bridges.contains(&0xa) && memory.allocations.of("green").is_some(), "{memory:?}");
}
