//! What we encode, Open vSwitch reads, and it reads the same in it.

mod actions;
#[path = "../common/facts.rs"]
mod facts;
mod fields;
mod messages;
mod multiparts;
mod ofctl;
mod osken;
#[path = "../common/printed.rs"]
mod printed;
#[path = "../common/twins.rs"]
mod twins;
mod unprinted;

#[path = "../common/vectors.rs"]
mod vectors;

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use facts::snake;
use openflow::experimenter::Experimenter;
use openflow::message::Message;
use openflow::multipart::{MultipartReply, MultipartRequest};
use openflow::types::Xid;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value;

/// Numbers that nothing else in a message is likely to hold.
const XIDS: std::ops::RangeFrom<u32> = 0xe500_0000..;

/// As many messages, the same in each run.
fn some(count: usize) -> Vec<(Xid, Message)> {
    let mut runner = TestRunner::deterministic();
    let strategy = messages::messages();
    let message = |xid: u32| {
        let mut message = strategy.new_tree(&mut runner).expect("a message").current();
        if let Message::Experimenter(Experimenter::BundleAdd(add)) = &mut message {
            add.xid = Xid(xid);
        }
        (Xid(xid), message)
    };
    XIDS.take(count).map(message).collect()
}

fn encoded(xid: Xid, message: &Message) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(xid, &mut out).unwrap();
    out.freeze()
}

/// The names of those rows that are in no message, in JSON's way of writing.
fn left_out(messages: &[Value]) -> Vec<String> {
    let found = |message: &Value| match (&message["type"], &message["body"]["body"]) {
        (Value::String(kind), Value::Object(body)) if kind.starts_with("multipart") => {
            body.keys().map(|key| format!("{kind} {key}")).collect()
        }
        // A body that is nothing is a name alone.
        (Value::String(kind), Value::String(body)) if kind.starts_with("multipart") => vec![format!("{kind} {body}")],
        (Value::String(kind), _) => vec![kind.clone()],
        _ => Vec::new(),
    };
    let found: BTreeSet<String> = messages.iter().flat_map(found).collect();
    let rows = Message::KINDS.iter().map(|(_, name)| snake(name)).filter(|name| !name.starts_with("multipart"));
    let requests = MultipartRequest::KINDS.iter().map(|(_, name)| format!("multipart_request {}", snake(name)));
    let replies = MultipartReply::KINDS.iter().map(|(_, name)| format!("multipart_reply {}", snake(name)));
    rows.chain(requests).chain(replies).filter(|row| !found.contains(row)).collect()
}

fn refused(text: &[String]) -> bool {
    text.iter().any(|line| line.contains("decode error"))
}

#[test]
fn open_vswitch_reads_the_same_in_what_we_encode() {
    let sent = some(4000);
    let stream = sent.iter().flat_map(|(xid, message)| encoded(*xid, message)).collect();
    let printed = ofctl::printed(stream);
    let (mut compared, mut complaints, mut all) = (0, Vec::new(), Vec::new());
    for (xid, message) in &sent {
        let text = printed.get(&xid.0).unwrap_or_else(|| panic!("nothing is printed of {message:?}"));
        let json = serde_json::to_value(message).expect("every message can be written as JSON");
        let missing = if refused(text) {
            vec!["it is refused".to_owned()]
        } else {
            let (facts, missing) = printed::compare(text, *xid, message, &json);
            compared += facts;
            missing.into_iter().chain(unprinted::unprinted(text, &json)).collect()
        };
        if !missing.is_empty() {
            complaints.push(format!("{}:\n{json}\n{}", missing.join("; "), text.join("\n")));
        }
        all.push(json);
    }
    assert!(complaints.is_empty(), "{} of {}:\n{}", complaints.len(), sent.len(), complaints.join("\n"));
    assert!(compared > 30_000, "only {compared} facts were compared");
    assert_eq!(left_out(&all), ["error", "multipart_reply table_features"], "these are in the corpus alone");
}

/// Where we refuse what Open vSwitch reads: message, reason, and why Open vSwitch reads it.
const STRICTER: &[(&str, &str, &str)] = &[
    ("Hello", "", "it skips elements that it can't read"),
    ("PacketIn", "in matching", "it skips fields that it can't read in what a bridge tells"),
    ("", "bits of its field", "it ignores bits of a value that its field hasn't"),
    ("", "a kind of member other than a port", "it takes any number there for that of ports"),
];

/// The corpus, each message several times with some octets changed behind its header. Errors are left out: what they are about
/// is printed as a message of its own.
fn changed() -> BTreeMap<u32, (String, Bytes)> {
    let mut runner = TestRunner::deterministic();
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    let files = ["os-ken/packets.txt", "ovs-tests/printed.txt", "ovs-ofctl/sent.txt", "ovs-vswitchd/answered.txt"];
    let vectors: Vec<_> =
        files.iter().flat_map(|file| vectors::vectors(file)).filter(|vector| vector.octets[1] != 1).collect();
    let seeds = vectors.iter().flat_map(|vector| std::iter::repeat_n(vector, 8));
    let change = |(xid, seed): (u32, &vectors::Vector)| {
        let mut octets = seed.octets.to_vec();
        octets[4..8].copy_from_slice(&xid.to_be_bytes());
        for (at, octet) in changes.new_tree(&mut runner).expect("changes").current() {
            if octets.len() > 8 {
                let at = 8 + at.index(octets.len() - 8);
                octets[at] = octet;
            }
        }
        (xid, (seed.name.clone(), Bytes::from(octets)))
    };
    XIDS.zip(seeds).map(change).collect()
}

/// Where we read what Open vSwitch refuses for a length: what it prints, or what we read, and why.
const LOOSER: &[(&str, &str)] = &[
    ("_SET_LEN", "bits that a field hasn't, which concern who uses them"),
    ("Unknown {", "what has no name here is kept as it came"),
    ("QueueExperimenter {", "os-ken writes these in odd lengths"),
    ("ONFST_FLOW_MONITOR", "the length of a match stands there twice, and we look at the match's own"),
];

#[test]
fn what_open_vswitch_refuses_for_its_lengths_is_refused() {
    let sent = changed();
    let (mut complaints, mut refused) = (Vec::new(), 0);
    for (xid, text) in ofctl::printed(sent.values().flat_map(|(_, octets)| octets.to_vec()).collect()) {
        let (name, octets) = &sent[&xid];
        if text.iter().any(|line| line.contains("decode error: ") && line.contains("_LEN***")) {
            refused += 1;
            if let Ok((_, message)) = Message::decode(octets) {
                let both = format!("{}\n{message:?}", text.join("\n"));
                if !LOOSER.iter().any(|(looser, _)| both.contains(looser)) {
                    complaints.push(format!("{name}: {octets:x}\n{both}"));
                }
            }
        }
    }
    assert!(complaints.is_empty(), "{} of {refused}:\n{}", complaints.len(), complaints.join("\n"));
    assert!(refused > 400, "Open vSwitch refused only {refused} of {}", sent.len());
}

#[test]
fn what_open_vswitch_reads_we_read_and_write_so_that_it_reads_the_same() {
    let sent = changed();
    let before = ofctl::printed(sent.values().flat_map(|(_, octets)| octets.to_vec()).collect());
    let (mut again, mut complaints, mut read) = (Vec::new(), Vec::new(), 0);
    for (xid, (name, octets)) in sent.iter().filter(|(xid, _)| before.get(xid).is_some_and(|text| !refused(text))) {
        match Message::decode(octets) {
            Ok((_, message)) => again.extend(encoded(Xid(*xid), &message)),
            Err(error)
                if STRICTER.iter().any(|(message, reason, _)| {
                    error.message.starts_with(message) && error.to_string().contains(reason)
                }) => {}
            Err(error) => complaints.push(format!("{name}: {error}\n{octets:x}\n{}", before[xid].join("\n"))),
        }
        read += 1;
    }
    for (xid, text) in ofctl::printed(again) {
        if before[&xid] != text {
            let (name, octets) = &sent[&xid];
            complaints.push(format!("{name}: {octets:x}\n{}\nbecomes\n{}", before[&xid].join("\n"), text.join("\n")));
        }
    }
    assert!(complaints.is_empty(), "{} of {read}:\n{}", complaints.len(), complaints.join("\n"));
    assert!(read > 2000, "Open vSwitch read only {read} of {}", sent.len());
}

/// os-ken, a third implementation, decodes what it can of what we encode to the same.
#[test]
#[ignore = "needs os-ken for Python: `make check-osken` installs it and runs this"]
fn os_ken_reads_the_same_in_what_we_encode() {
    let sent = some(4000);
    let hex: Vec<String> = sent.iter().map(|(xid, message)| format!("{:x}", encoded(*xid, message))).collect();
    let told = osken::decoded(&hex);
    assert_eq!(told.len(), sent.len(), "os-ken answers for each");
    let (mut complaints, mut compared) = (Vec::new(), 0);
    for ((_, message), told) in sent.iter().zip(told) {
        let ours = serde_json::to_value(message).expect("every message can be written as JSON");
        match told {
            Ok(Value::Null) => {}
            // What os-ken keeps as it came says nothing of what is in it.
            Ok(twin)
                if ["OFPExperimenter", "OFPExperimenterStatsReply"].iter().any(|kept| twin.get(kept).is_some()) => {}
            Ok(twin) => {
                let (facts, missing) = twins::compare(&twin, &ours);
                compared += facts;
                if !missing.is_empty() {
                    complaints.push(format!("{}:\n{ours}\n{twin}", missing.join("; ")));
                }
            }
            Err(error) => complaints.push(format!("{error}:\n{ours}")),
        }
    }
    assert!(complaints.is_empty(), "{} of {}:\n{}", complaints.len(), sent.len(), complaints.join("\n\n"));
    assert!(compared > 20_000, "only {compared} facts were compared");
}
