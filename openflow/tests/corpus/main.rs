//! The messages of other implementations here: each is decoded, means what its source says, and comes out as it
//! went in; and there is one for every message, action and field that has a name here.

mod coverage;
mod exceptions;
#[path = "../common/facts.rs"]
mod facts;
#[path = "../common/printed.rs"]
mod printed;
#[path = "../common/twins.rs"]
mod twins;
#[path = "../common/vectors.rs"]
mod vectors;

use bytes::{Bytes, BytesMut};
use openflow::frame::next_frame;
use openflow::message::Message;
use openflow::types::Xid;
use serde_json::Value;
use vectors::{Vector, vectors};

const PRINTED: [&str; 3] = ["ovs-tests/printed.txt", "ovs-ofctl/sent.txt", "ovs-vswitchd/answered.txt"];
const OS_KEN: [&str; 1] = ["os-ken/packets.txt"];
const ALL: [&str; 4] = [OS_KEN[0], PRINTED[0], PRINTED[1], PRINTED[2]];

/// The messages of these files; complains of those that can't be decoded.
fn decoded(files: &[&str], complaints: &mut Vec<String>) -> Vec<(Vector, Xid, Message)> {
    let mut messages = Vec::new();
    for vector in files.iter().flat_map(|file| vectors(file)) {
        let frame = next_frame(&mut BytesMut::from(&vector.octets[..])).expect("a length").expect("one message");
        assert_eq!(frame.len(), vector.octets.len(), "{}", vector.name);
        match (Message::decode(&frame), exceptions::ANOTHER_FORM.iter().any(|(name, _)| *name == vector.name)) {
            (Ok((xid, message)), false) => messages.push((vector, xid, message)),
            (Err(_), true) => {}
            (Ok(_), true) => complaints.push(format!("{} needs no exception", vector.name)),
            (Err(error), false) => complaints.push(format!("{}: {error}", vector.name)),
        }
    }
    messages
}

fn encoded(xid: Xid, message: &Message) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(xid, &mut out).unwrap();
    out.freeze()
}

fn as_json(message: &Message) -> Value {
    serde_json::to_value(message).expect("every message can be written as JSON")
}

/// Fails with all complaints at once.
fn demand_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn every_message_comes_out_as_it_went_in() {
    let mut complaints = Vec::new();
    for (vector, xid, message) in decoded(&ALL, &mut complaints) {
        let again = encoded(xid, &message);
        let exception = exceptions::REWRITTEN.iter().find(|(name, _)| *name == vector.name);
        match (again == vector.octets, exception) {
            (true, None) => {}
            (true, Some(_)) => complaints.push(format!("{} needs no exception", vector.name)),
            (false, None) => complaints.push(format!("{}\n   {:x}\n   {again:x}", vector.name, vector.octets)),
            (false, Some(_)) => {
                assert_eq!(Message::decode(&again), Ok((xid, message)), "{}: the meaning stays", vector.name);
            }
        }
    }
    demand_none(&complaints);
}

#[test]
fn what_open_vswitch_refuses_as_malformed_is_refused() {
    let mut complaints = Vec::new();
    let refused = vectors("ovs-tests/refused.txt");
    assert!(refused.len() >= 5);
    for vector in refused {
        let exception = exceptions::KEPT.iter().find(|(name, _)| *name == vector.name);
        match (Message::decode(&vector.octets), exception) {
            (Err(_), None) => {}
            (Err(error), Some(_)) => complaints.push(format!("{} needs no exception: {error}", vector.name)),
            (Ok(message), None) => complaints.push(format!("{}: {message:?}", vector.name)),
            (Ok((xid, message)), Some(_)) => assert_eq!(encoded(xid, &message), vector.octets, "{}", vector.name),
        }
    }
    demand_none(&complaints);
}

#[test]
fn messages_mean_what_os_ken_says() {
    let mut complaints = Vec::new();
    let mut compared = 0;
    for (vector, _, message) in decoded(&OS_KEN, &mut complaints) {
        let twin: Value = serde_json::from_str(&vector.meaning[0]).expect("JSON");
        let (facts, missing) = twins::compare(&twin, &as_json(&message));
        compared += facts;
        complaints.extend(missing.into_iter().map(|fact| format!("{}: {fact}", vector.name)));
    }
    assert!(compared > 2000, "only {compared} facts were compared");
    demand_none(&complaints);
}

#[test]
fn messages_mean_what_open_vswitch_prints() {
    let mut complaints = Vec::new();
    let mut compared = 0;
    for (vector, xid, message) in decoded(&PRINTED, &mut complaints) {
        let (facts, missing) = printed::compare(&vector.meaning, xid, &message, &as_json(&message));
        compared += facts;
        complaints.extend(missing.into_iter().map(|fact| format!("{}: {fact}", vector.name)));
    }
    assert!(compared > 2000, "only {compared} facts were compared");
    demand_none(&complaints);
}

#[test]
fn there_is_a_message_for_every_row_of_the_tables() {
    let mut complaints = Vec::new();
    let messages: Vec<_> = decoded(&ALL, &mut complaints).iter().map(|(_, _, message)| as_json(message)).collect();
    complaints.extend(coverage::missing(&messages));
    demand_none(&complaints);
}

/// Octets changed one at a time: what then means something else is written otherwise, too.
#[test]
fn json_loses_nothing() {
    let mut complaints = Vec::new();
    let mut compared = 0;
    for (which, (vector, xid, message)) in decoded(&ALL, &mut complaints).into_iter().enumerate() {
        let before = as_json(&message);
        // Each octet of the many short ones; of long ones, which repeat themselves, 200 of them.
        let (length, step) = (vector.octets.len(), 1 + vector.octets.len() / 200);
        for at in (8 + which % step..length).step_by(step) {
            let mut changed = vector.octets.to_vec();
            changed[at] ^= [1, 0x80, 0xff, 0x10, 2][at % 5];
            let Ok(other) = Message::decode(&Bytes::from(changed)) else { continue };
            if other == (xid, message.clone()) {
                continue;
            }
            compared += 1;
            if as_json(&other.1) == before {
                complaints.push(format!("{}: octet {at} isn't told: {before}", vector.name));
            }
        }
    }
    assert!(compared > 20_000, "only {compared} changes were compared");
    demand_none(&complaints);
}
