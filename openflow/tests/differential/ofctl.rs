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

    by_xid(&String::from_utf8_lossy(&output.stdout))
}

/// Cuts what is printed into messages. One that can't be read at all has no first line of its own, only its octets.
fn by_xid(text: &str) -> BTreeMap<u32, Vec<String>> {
    const BEGINNINGS: [&str; 6] = ["OFPT_", "OFPST_", "NXT_", "NXST_", "ONFT_", "ONFST_"];
    const UNREADABLE: &str = "***decode error";
    let hex = |digits: &str| u32::from_str_radix(digits, 16).expect("a transaction id in hex");
    let mut messages: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut current = None;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with(UNREADABLE) {
            // `00000000  04 17 00 d3 e5 00 00 e8-`: the third group of two octets and the fourth.
            let octets = lines.peek().expect("octets follow").split(' ').skip(6).take(4).collect::<String>();
            current = Some(hex(&octets[..8]));
        } else if BEGINNINGS.iter().any(|beginning| line.starts_with(beginning)) {
            let xid = line.split("(xid=0x").nth(1).and_then(|rest| rest.split(')').next());
            current = Some(hex(xid.expect("a transaction id")));
        }
        messages.entry(current.expect("a message begins")).or_default().push(line.to_owned());
    }
    messages
}
