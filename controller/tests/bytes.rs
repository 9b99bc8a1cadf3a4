//! Goal: whatever octets come, their sender alone bears the cost. Tables of what is sent and what becomes of it, against
//! the program itself; a good bridge's echoes stay prompt all the while.

mod support;

use std::time::{Duration, Instant};

use apps::pipeline::LEARN;
use bytes::{Bytes, BytesMut};
use openflow::error::{ErrorCode, ErrorMsg};
use openflow::flow::{FlowRemoved, FlowRemovedReason};
use openflow::matching::Match;
use openflow::message::Message;
use openflow::multipart::MultipartReply;
use openflow::multipart::Part;
use openflow::oxm::Oxm;
use openflow::port::{PortReason, PortStatus};
use openflow::switch::{Hello, Role, RoleRequest};
use openflow::types::{Cookie, MacAddr, PortNo, Xid};
use openflow::wire::Nothing;
use openflow::wire::Payload;
use support::model::{Manner, Model, port};
use support::program::Program;
use support::{Bridge, features, until};

const SECOND: Duration = Duration::from_secs(1);

fn encoded(xid: u32, message: &Message) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(Xid(xid), &mut out).unwrap();
    out.freeze()
}

/// A message of any type and body.
fn raw(kind: u8, body: &[u8]) -> Bytes {
    encoded(7, &Message::Unknown { kind, data: Bytes::copy_from_slice(body).into() })
}

fn hello() -> Bytes {
    encoded(1, &Message::Hello(Hello::v13()))
}

/// A HELLO with this version in its header, and this body.
fn hello_of(version: u8, body: &[u8]) -> Bytes {
    let mut octets = raw(0, body).to_vec();
    octets[0] = version;
    octets.into()
}

/// An element with the version bitmap.
fn bitmap(words: &[u32]) -> Vec<u8> {
    let length = (4 + 4 * words.len()) as u16;
    let words = words.iter().flat_map(|word| word.to_be_bytes());
    let mut element: Vec<u8> = [&[0, 1][..], &length.to_be_bytes()].concat().into_iter().chain(words).collect();
    element.resize(element.len().next_multiple_of(8), 0);
    element
}

/// Octets without a meaning, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_u32;
    std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x as u8 | 0x80
    })
    .take(length)
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_begin_as_a_bridge_does_is_closed_at_once_and_counted() {
    let program = Program::with_policy("version = 1\n");
    let canary = Model::canary(program.openflow).await;
    let after = |octets: &[u8]| Bytes::from([&hello()[..], octets].concat());
    let short = |length: u8| Bytes::from(vec![4, 0, 0, length, 0, 0, 0, 1]);
    let auxiliary = {
        let mut octets = encoded(0x8000_0001, &features(0xca_0a47)).to_vec();
        octets[21] = 1;
        octets
    };
    let features_of = |length: usize| {
        let mut octets = encoded(0x8000_0001, &features(5)).to_vec();
        octets.resize(length, 0);
        octets[3] = length as u8;
        after(&octets)
    };
    let rows: Vec<(&str, Bytes, &str)> = vec![
        ("zeros", vec![0; 64].into(), "not_hello"),
        ("ones", vec![0xff; 64].into(), "not_hello"),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec().into(), "not_hello"),
        ("TLS", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3].into(), "not_hello"),
        ("SSH", b"SSH-2.0-x\r\n".to_vec().into(), "not_hello"),
        ("noise", noise(300).into(), "not_hello"),
        ("much noise", noise(200_000).into(), "not_hello"),
        ("a length of 0", short(0), "bad_length"),
        ("a length of 3", short(3), "bad_length"),
        ("a length of 4", short(4), "bad_length"),
        ("a length of 7", short(7), "bad_length"),
        ("a length of 0, later", after(&short(0)), "bad_length"),
        ("a length of 7, later", after(&short(7)), "bad_length"),
        ("an echo before the HELLO", raw(2, &[]), "not_hello"),
        ("features before the HELLO", encoded(0x8000_0001, &features(5)), "not_hello"),
        ("a FLOW_MOD before the HELLO", raw(14, &[0; 48]), "not_hello"),
        ("version 0", hello_of(0, &[]), "not_hello"),
        ("version 1", hello_of(1, &[]), "bad_version"),
        ("version 3", hello_of(3, &[]), "bad_version"),
        ("version 5 without ours in its bitmap", hello_of(5, &bitmap(&[1 << 5])), "bad_version"),
        ("version 6 that has only 6", hello_of(6, &bitmap(&[1 << 6])), "bad_version"),
        ("version 4 that has only 1", hello_of(4, &bitmap(&[1 << 1])), "bad_version"),
        ("a bitmap of no words", hello_of(255, &bitmap(&[])), "bad_version"),
        ("version 1, and octets that are no element", hello_of(1, &[0xff; 40]), "bad_version"),
        ("version 3, and half an element's header", hello_of(3, &[0, 1]), "bad_version"),
        ("version 1, and a bitmap of half a word", hello_of(1, &[0, 1, 0, 6, 0, 0x10, 0, 0]), "bad_version"),
        ("features of 8 octets", features_of(8), "handshake_failed"),
        ("features of 24 octets", features_of(24), "handshake_failed"),
        ("features of 40 octets", features_of(40), "handshake_failed"),
        ("an auxiliary connection", after(&auxiliary), "auxiliary_connection"),
        ("an error of version agreement", after(&raw(1, &[0, 0, 0, 0])), "handshake_failed"),
    ];
    for (what, octets, reason) in &rows {
        let before = program.refused(reason).await;
        let mut bad = Bridge::silent(program.openflow).await;
        let local = format!("{}:", bad.stream.local_addr().unwrap());
        // Much of it may meet a closed door.
        let _ = bad.try_write(octets).await;
        let took = bad.closed().await;
        assert!(took < SECOND, "{what}: closed after {took:?}");
        assert_eq!(program.refused(reason).await, before + 1, "{what}: {}", program.call("/metrics").await.2);
        let lines = program.log().iter().filter(|line| line.contains(&local)).count();
        assert!(lines <= 1, "{what}: {lines} lines");
        canary.is_well(what);
        // Slow enough that each may have its line.
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let told = program.log().iter().filter(|line| line.contains("closed the connection")).count();
    assert_eq!(told, rows.len(), "one line each: {:#?}", program.log());
    assert_eq!(program.metric("espalier_bridges_connected").await, 1);
    assert_eq!(program.metric("espalier_connections_total").await, rows.len() as u64 + 1);
    // Nothing of it goes on working.
    let (cpu, pause) = (program.cpu(), Duration::from_millis(500));
    tokio::time::sleep(pause).await;
    let used = program.cpu() - cpu;
    assert!(used < 15, "{used} hundredths of a second of CPU time in {pause:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_speaks_1_3_among_others_is_taken() {
    let program = Program::with_policy("version = 1\n");
    let element = |kind: u8, length: u8, body: &[u8]| hello_of(4, &[&[0, kind, 0, length][..], body].concat());
    let unknown = |count: usize| [0, 9, 0, 8, 1, 2, 3, 4].repeat(count);
    let mut words = vec![0; 64];
    words[0] = 1 << 4 | 1 << 1;
    let rows: Vec<(&str, Bytes)> = vec![
        ("no element", hello_of(4, &[])),
        ("a higher version, no element", hello_of(6, &[])),
        ("the highest version, no element", hello_of(255, &[])),
        ("1.0 in the header, 1.3 in the bitmap", hello_of(1, &bitmap(&[1 << 4 | 1 << 1]))),
        ("many words", hello_of(6, &bitmap(&words))),
        ("unknown elements", hello_of(4, &unknown(3))),
        ("8,000 unknown elements, then the bitmap", hello_of(1, &[unknown(8000), bitmap(&[1 << 4])].concat())),
        ("two bitmaps, of which the first counts", hello_of(1, &[bitmap(&[1 << 4]), bitmap(&[2])].concat())),
        ("padding left out", hello_of(4, &bitmap(&[1 << 4])[..8])),
        ("an element of length 0", element(1, 0, &[0; 4])),
        ("an element of length 3", element(2, 3, &[0; 4])),
        ("an element beyond the message", element(1, 60, &[0; 4])),
        ("half an element's header", hello_of(4, &[0, 1])),
        ("half a word", element(1, 6, &[0; 4])),
        ("a text", hello_of(6, b"hello, this is no element")),
        ("a bitmap before octets that are no element", hello_of(1, &[bitmap(&[1 << 4]), vec![0; 7]].concat())),
    ];
    for (what, octets) in rows {
        let mut good = Bridge::silent(program.openflow).await;
        // Drop by drop at first, as slow networks bring it.
        for drop in octets.chunks(1).take(12) {
            good.write(drop).await;
            tokio::task::yield_now().await;
        }
        good.write(&octets[octets.len().min(12)..]).await;
        loop {
            match good.receive().await {
                Some((_, Message::FeaturesRequest(_))) => break,
                Some((_, Message::Hello(_))) => {}
                other => panic!("{what}: {other:?}"),
            }
        }
    }
}

/// What becomes of a message of a bridge that is known.
enum Fate {
    /// An error with this code of `BAD_REQUEST` comes back, with the offending octets.
    Error(u16),
    /// It is counted as refused for this reason, and nothing comes back.
    Counted(&'static str),
    /// Nothing at all.
    Nothing,
    /// The connection is closed for this reason.
    Closed(&'static str),
}

/// A PACKET_IN with this match.
fn packet_in(matching: &[u8]) -> Bytes {
    let head = [&[0xff; 4][..], &[0, 60, 0, 8], &[0; 8]].concat();
    raw(10, &[&head[..], matching, &[0; 2], &[2; 60]].concat())
}

/// A match with these fields; its length and padding are right.
fn fields(fields: &[u8]) -> Vec<u8> {
    let length = 4 + fields.len();
    let mut octets = [&[0, 1][..], &(length as u16).to_be_bytes(), fields].concat();
    octets.resize(length.next_multiple_of(8), 0);
    octets
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bridge_may_not_send_changes_nothing_and_is_answered_or_counted() {
    let policy =
        "version = 1\n[[tenant]]\nname = \"green\"\nkey = 100\nports = [{ bridge = \"*\", port = \"green-*\" }]\n";
    let program = Program::with_policy(policy);
    let canary = Model::canary(program.openflow).await;
    let manner = Manner { ports: vec!["green-1", "tun-2"], quiet: true, ..Manner::default() };
    let mut bridge = Model::connect(program.openflow, 5, manner.clone()).await;
    let converged = |status: &serde_json::Value| status["converged"] == true && status["bridges"]["connected"] == 2;
    program.wait("the bridges hold what they should", "/v1/status", converged).await;
    // A host is known, and stays so.
    let known = Match::new([Oxm::InPort(PortNo(1), None), Oxm::EthSrc(MacAddr([2; 6]), None)]);
    let mut shown = packet_in(&fields(&[0x80, 0, 0, 4, 0, 0, 0, 1])).to_vec();
    shown[15] = LEARN.0;
    bridge.write(shown);
    let learnt = |status: &serde_json::Value| status["hosts"] == 1 && converged(status);
    program.wait("the host is learnt", "/v1/status", learnt).await;
    let other_version = {
        let mut octets = raw(2, &[]).to_vec();
        octets[0] = 1;
        Bytes::from(octets)
    };
    let of = |class: u16, field: u8, mask: bool, length: u8, value: &[u8]| {
        fields(&[&class.to_be_bytes()[..], &[field << 1 | u8::from(mask), length], value].concat())
    };
    let role = |role| Message::RoleReply(RoleRequest { role, generation: 9 });
    let unasked = |body| encoded(7, &Message::MultipartReply(Part::whole(body)));
    let gone = FlowRemoved {
        cookie: Cookie(0xe5 << 56 | 100),
        priority: 9,
        reason: FlowRemovedReason::IdleTimeout,
        table: LEARN,
        duration_sec: 1,
        duration_nsec: 0,
        idle_timeout: 1,
        hard_timeout: 0,
        packet_count: 0,
        byte_count: 0,
        matching: known,
    };
    let status = |reason, number| {
        let port = port(number, "odd");
        encoded(7, &Message::PortStatus(PortStatus { reason, port }))
    };
    let malformed = || Fate::Counted("malformed");
    let rows: Vec<(&str, Bytes, Fate)> = vec![
        ("type 30", raw(30, &[0xff; 5]), Fate::Error(1)),
        ("type 99", raw(99, &[0xff; 90]), Fate::Error(1)),
        ("type 255", raw(255, &[]), Fate::Error(1)),
        ("FLOW_MOD", raw(14, &[0xff; 7]), Fate::Error(1)),
        ("GROUP_MOD", raw(15, &[0xff; 7]), Fate::Error(1)),
        ("PACKET_OUT", raw(13, &[0xff; 7]), Fate::Error(1)),
        ("METER_MOD", raw(29, &[0xff; 7]), Fate::Error(1)),
        ("MULTIPART_REQUEST", raw(18, &[0xff; 7]), Fate::Error(1)),
        ("ROLE_REQUEST", raw(24, &[0xff; 7]), Fate::Error(1)),
        ("another version", other_version, Fate::Error(0)),
        ("a second HELLO", hello(), Fate::Nothing),
        ("a second HELLO of 1.0", hello_of(4, &bitmap(&[2])), Fate::Nothing),
        ("its own features again", encoded(7, &features(5)), Fate::Counted("unasked")),
        ("an answer to an echo that nobody asked for", raw(3, &[1]), Fate::Counted("unasked")),
        ("an error that is cut", raw(1, &[0]), malformed()),
        ("an error of a type nobody knows", raw(1, &[0x7f, 0, 0, 9]), Fate::Nothing),
        ("an error about an error", raw(1, &[0, 1, 0, 1, 4, 1, 0, 8]), Fate::Nothing),
        ("a FLOW_REMOVED that is cut", raw(11, &[0; 20]), malformed()),
        ("a FLOW_REMOVED of an entry that isn't there", encoded(7, &Message::FlowRemoved(gone)), Fate::Nothing),
        ("a BARRIER_REPLY", encoded(7, &Message::BarrierReply(Nothing)), Fate::Counted("unasked")),
        ("a ROLE_REPLY", encoded(7, &role(Role::Slave)), Fate::Counted("unasked")),
        ("a ROLE_REPLY that is cut", raw(25, &[0, 0, 0]), Fate::Counted("unasked")),
        ("a ROLE_REPLY of a role nobody knows", encoded(7, &role(Role::Unknown(255))), Fate::Counted("unasked")),
        ("a configuration", raw(8, &[0; 4]), Fate::Counted("unasked")),
        ("queues", raw(23, &[0; 8]), Fate::Counted("unasked")),
        ("an extension's message that is cut", raw(4, &[0x4f, 0x4e, 0x46]), Fate::Counted("unasked")),
        ("flows", unasked(MultipartReply::Flow(Vec::new())), Fate::Counted("unasked")),
        ("groups", unasked(MultipartReply::GroupDesc(Vec::new())), Fate::Counted("unasked")),
        ("ports", unasked(MultipartReply::PortDesc(vec![port(9, "green-9")])), Fate::Counted("unasked")),
        ("a multipart reply that is cut", raw(19, &[0]), malformed()),
        ("a match of length 0", packet_in(&[0, 1, 0, 0, 0, 0, 0, 0]), malformed()),
        ("a match of length 3", packet_in(&[0, 1, 0, 3, 0, 0, 0, 0]), malformed()),
        ("a match of length 65,535", packet_in(&[0, 1, 0xff, 0xff, 0, 0, 0, 0]), malformed()),
        ("a match without padding", raw(10, &[&[0; 16][..], &[0, 1, 0, 4]].concat()), malformed()),
        ("a match of another kind", packet_in(&[0, 0, 0, 4, 0, 0, 0, 0]), malformed()),
        ("half a field's header", packet_in(&fields(&[0x80, 0])), malformed()),
        ("a field of length 0", packet_in(&of(0x8000, 0, false, 0, &[])), malformed()),
        ("a field of length 255", packet_in(&of(0x8000, 0, false, 255, &[0; 4])), malformed()),
        ("a field of the wrong width", packet_in(&of(0x8000, 0, false, 5, &[0; 5])), malformed()),
        ("an odd mask", packet_in(&of(0x8000, 2, true, 9, &[0; 9])), malformed()),
        ("no match", raw(10, &[0; 16]), malformed()),
        ("a PORT_STATUS that is cut", raw(12, &[0; 50]), malformed()),
        ("a PORT_STATUS of a reason nobody knows", status(PortReason::Unknown(255), 9), Fate::Nothing),
        ("port 0", status(PortReason::Add, 0), Fate::Nothing),
        ("port ANY", status(PortReason::Add, PortNo::ANY.0), Fate::Nothing),
        ("port CONTROLLER", status(PortReason::Modify, PortNo::CONTROLLER.0), Fate::Nothing),
        ("a length of 0", vec![4, 2, 0, 0, 0, 0, 0, 0].into(), Fate::Closed("bad_length")),
        ("a length of 7", vec![4, 10, 0, 7, 0, 0, 0, 0].into(), Fate::Closed("bad_length")),
        ("another bridge's features", encoded(7, &features(6)), Fate::Closed("datapath_changed")),
    ];
    // Whoever connects again begins anew, so what the others left behind shows before that.
    assert!(rows.is_sorted_by_key(|(.., fate)| matches!(fate, Fate::Closed(_))));
    let before = program.documents().await;
    let reasons = ["malformed", "unasked", "bad_length", "datapath_changed"];
    for (row, (what, octets, fate)) in (100..).zip(rows) {
        let mut counts = Vec::new();
        for reason in reasons {
            counts.push((reason, program.refused(reason).await));
        }
        bridge.write(octets.clone());
        let told = bridge.settled(row).await;
        let mut rises = |reason: &str| counts.iter_mut().find(|(name, _)| *name == reason).unwrap().1 += 1;
        match &fate {
            Fate::Error(code) => {
                let data = octets.slice(..octets.len().min(64));
                let xid = Xid(u32::from_be_bytes(octets[4..8].try_into().unwrap()));
                let error = Message::Error(ErrorMsg { code: ErrorCode::from_numbers(0, 1, *code), data: data.into() });
                assert_eq!(told, [(xid, error)], "{what}");
            }
            Fate::Counted(reason) => {
                assert_eq!(told, [], "{what}");
                rises(reason);
            }
            Fate::Nothing => assert_eq!(told, [], "{what}"),
            Fate::Closed(reason) => {
                let took = bridge.closed().await;
                assert!(took < SECOND, "{what}: {took:?}");
                rises(reason);
                bridge = Model::connect(program.openflow, 5, manner.clone()).await;
            }
        }
        if !matches!(fate, Fate::Closed(_)) {
            assert_eq!(program.documents().await, before, "{what}: nothing was learnt, nothing was lost");
        }
        assert!(!bridge.is_closed(), "{what}");
        for (reason, count) in counts {
            assert_eq!(program.refused(reason).await, count, "{what}: {reason}");
        }
        canary.is_well(what);
    }
    assert_eq!(program.refused("bad_type").await, 9);
    program.wait("the bridges hold what they should", "/v1/status", converged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_control_characters_or_no_characters_at_all_are_shown_and_do_no_harm() {
    let program = Program::with_policy("version = 1\n");
    let bridge = Model::connect(program.openflow, 5, Manner::default()).await;
    let names: [&[u8]; 4] = [b"\x1b[2J\x1b[H", b"a\"b\\c\n\r", &[0xff, 0xfe, 0x80], b"sixteen-octets-x"];
    for (number, name) in (1..).zip(names) {
        let status = PortStatus { reason: PortReason::Add, port: port(number, "") };
        let mut octets = encoded(7, &Message::PortStatus(status)).to_vec();
        octets[32..32 + name.len()].copy_from_slice(name);
        bridge.write(octets);
    }
    let four = |list: &serde_json::Value| list[0]["ports"].as_array().is_some_and(|ports| ports.len() == 4);
    let bridges = program.wait("four ports", "/v1/bridges", four).await;
    let name = |port: usize| bridges[0]["ports"][port]["name"].as_str().unwrap();
    assert_eq!((name(3), name(2).is_empty()), ("sixteen-octets-x", false), "{bridges}");
    for line in program.log() {
        assert!(!line.contains('\x1b'), "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_leave_nothing_behind() {
    let program = Program::with_policy("version = 1\n");
    let canary = Model::canary(program.openflow).await;
    canary.settled(1).await;
    let files = program.files();
    let greeting = [&hello()[..], &encoded(0x8000_0001, &features(5))].concat();
    for (count, length) in
        [0, 1, 3, 4, 7, 8, 12, 16, 17, 20, 30, greeting.len()].into_iter().cycle().take(60).enumerate()
    {
        let mut bad = Bridge::silent(program.openflow).await;
        bad.write(&greeting[..length]).await;
        if count % 2 == 0 {
            // Its end is then a reset.
            bad.stream.set_zero_linger().unwrap();
        }
    }
    let start = Instant::now();
    until("all are gone", || program.files() == files).await;
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    canary.is_well("cut connections");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_begun_and_not_finished_hold_little_and_not_for_long() {
    let program = Program::with_policy("version = 1\n");
    let canary = Model::canary(program.openflow).await;
    let mut stalled = Vec::new();
    for dpid in 1..=50 {
        let bridge = Model::connect(program.openflow, dpid, Manner { quiet: true, ..Manner::default() }).await;
        bridge.settled(1).await;
        stalled.push(bridge);
    }
    let (memory, start) = (program.memory(), Instant::now());
    for bridge in &stalled {
        bridge.write([&[4, 2, 0xff, 0xff, 0, 0, 0, 9][..], &[0x55; 65_000]].concat());
    }
    tokio::time::sleep(SECOND).await;
    let more = program.memory().saturating_sub(memory);
    assert!(more < 50 * 64 + 2048, "{more} KiB more for 50 stalled messages");
    for bridge in &stalled {
        bridge.closed().await;
    }
    assert!(start.elapsed() < 11 * SECOND, "{:?}", start.elapsed());
    canary.is_well("stalled messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn echoes_are_all_answered_however_many_and_however_long() {
    let program = Program::with_policy("version = 1\n");
    let canary = Model::canary(program.openflow).await;
    let bridge = Model::connect(program.openflow, 5, Manner { quiet: true, ..Manner::default() }).await;
    let mut all = BytesMut::new();
    for xid in 1..=20_000 {
        Message::EchoRequest(Payload::default()).encode(Xid(xid), &mut all).unwrap();
    }
    bridge.write(all);
    let long = Bytes::from(vec![0x5a; 65_527]);
    bridge.send(20_001, &Message::EchoRequest(long.clone().into()));
    let told = bridge.settled(30_000).await;
    assert_eq!(told.len(), 20_001);
    assert!(told[..20_000].iter().map(|(xid, _)| xid.0).eq(1..=20_000));
    assert_eq!(told[20_000], (Xid(20_001), Message::EchoReply(long.into())));
    canary.is_well("many echoes");
}
