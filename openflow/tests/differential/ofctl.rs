//! What `ovs-ofctl` makes of messages.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

/// What it prints for each message of a stream, by transaction id, which has to be another one each time.
pub(crate) fn printed(stream: Vec<u8>) -> BTreeMap<u32, Vec<String>> {
    let started = Command::new("ovs-ofctl")
        .args(["-vconsole:off", "ofp-parse", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match started {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("ovs-ofctl isn't there: install Debian's openvswitch-switch (tests/install-tools does)")
        }
        started => started.expect("ovs-ofctl starts"),
    };
    let mut input = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || input.write_all(&stream));
    let output = child.wait_with_output().expect("ovs-ofctl ends");
    writer.join().expect("the writer ends").expect("ovs-ofctl reads all");
    assert!(output.status.success(), "ovs-ofctl: {}", String::from_utf8_lossy(&output.stderr));

    let mut messages: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut current = None;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let begins =
            ["OFPT_", "OFPST_", "NXT_", "NXST_", "ONFT_", "ONFST_"].iter().any(|prefix| line.starts_with(prefix));
        if let Some(xid) = line.split("(xid=0x").nth(1).and_then(|rest| rest.split(')').next()).filter(|_| begins) {
            current = Some(u32::from_str_radix(xid, 16).expect("a transaction id"));
        }
        let xid = current.unwrap_or_else(|| panic!("no message before {line}"));
        messages.entry(xid).or_default().push(line.to_owned());
    }
    messages
}
