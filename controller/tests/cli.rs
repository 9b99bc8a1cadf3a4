//! The program itself: exit codes, signals, and what it says.

mod support;

use std::process::Output;

use support::Folder;
use support::program::{Program, espalier};

fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = espalier(arguments).output().unwrap();
    let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn serve_reloads_on_sighup_and_stops_in_order_on_sigterm() {
    let folder = Folder::new();
    let policy = folder.write("p.toml", "version = 1\n");
    let state = folder.0.join("state");
    let (policy, state) = (policy.to_str().unwrap(), state.to_str().unwrap());
    let mut daemon = Program::start(&["--policy", policy, "--state", state]);
    let server = format!("--server=http://{}", daemon.rest);

    let (code, text, _) = run(&["get", "status", &server]);
    assert!(code == 0 && text.contains("converged"), "{text}");
    let (code, text, _) = run(&["get", "bridges", "-o", "json", &server]);
    assert_eq!((code, text.as_str()), (0, "[]\n"));
    let (code, _, text) = run(&["get", "tree", "none", &server]);
    assert!(code == 1 && text.contains("\"none\""), "{text}");
    let (code, _, text) = run(&["get", "hosts", "02:00:00:00:00:01", &server]);
    assert!(code == 1 && text.contains("02:00"), "{text}");

    let (code, _, text) = run(&["serve", "--openflow=127.0.0.1:0", "--rest=127.0.0.1:0", "--state", state]);
    assert!(code == 2 && text.contains("another espalier is running"), "{text}");

    daemon.signal("-HUP");
    daemon.line("as asked");
    daemon.signal("-TERM");
    daemon.line("stopping");
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
    let (code, _, text) = run(&["get", "status", &server]);
    assert!(code == 3 && text.contains("espalier serve") && text.contains(&daemon.rest.to_string()), "{text}");
}

#[test]
fn options_come_from_a_file_too_and_mistakes_in_it_are_told() {
    let folder = Folder::new();
    let state = folder.0.join("state");
    let text = format!("state = {state:?}\nlog_format = \"json\"\nrest = \"0.0.0.0:1\"\n");
    let file = folder.write("espalier.toml", &text);
    let daemon = Program::start(&["--config", file.to_str().unwrap()]);
    daemon.signal("-INT");
    drop(daemon);
    assert!(state.join("espalier.redb").exists());

    let file = folder.write("espalier.toml", "liste = 1\n");
    let (code, _, text) = run(&["serve", "--config", file.to_str().unwrap()]);
    assert!(code == 2 && text.contains("espalier.toml") && text.contains("liste"), "{text}");
}

#[test]
fn wrong_use_is_2_and_check_tells_what_is_valid() {
    for arguments in
        [&["get", "nothing"][..], &["serve", "--openflow", "6653"], &["check"], &["get", "status", "x"], &[]]
    {
        assert_eq!(run(arguments).0, 2, "{arguments:?}");
    }
    assert!(run(&["--version"]).1.contains(env!("CARGO_PKG_VERSION")));
    let folder = Folder::new();
    let good = folder.write("good.toml", "version = 1\n");
    let (code, text, _) = run(&["check", good.to_str().unwrap()]);
    assert!(code == 0 && text.starts_with("ok: 0 tenants"), "{text}");
    let bad = folder.write("bad.toml", "version = [\n");
    let (code, _, text) = run(&["check", bad.to_str().unwrap()]);
    assert!(code == 2 && text.contains("bad.toml"), "{text}");
}
