//! What os-ken makes of messages.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

/// For each message what os-ken decodes, in its own JSON; null if it has no decoder; or why its decoder fails.
pub(crate) fn decoded(messages: &[String]) -> Vec<Result<Value, String>> {
    let python = std::env::var("OSKEN_PYTHON")
        .expect("OSKEN_PYTHON has to name a Python that has os-ken; `make check-osken` sees to it");
    let mut child = Command::new(&python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/differential/osken.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{python}: {error}"));
    let mut input = child.stdin.take().expect("a pipe");
    let text = messages.join("\n");
    let writer = std::thread::spawn(move || writeln!(input, "{text}"));
    let output = child.wait_with_output().expect("os-ken ends");
    writer.join().expect("the writer ends").expect("os-ken reads all");
    let said = String::from_utf8(output.stdout).expect("JSON");
    said.lines().map(|line| serde_json::from_str(line).map_err(|_| line.to_owned())).collect()
}
