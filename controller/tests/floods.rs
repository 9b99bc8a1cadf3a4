//! Goal: much of anything costs its sender. Real floods at the program itself; good bridges' echoes stay prompt, their
//! sessions live, and newcomers get in.

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use apps::pipeline::LEARN;
use bytes::{Bytes, BytesMut};
use openflow::error::{BadRequest, ErrorMsg};
use openflow::matching::Match;
use openflow::message::Message;
use openflow::oxm::Oxm;
use openflow::packet::{PacketIn, PacketInReason};
use openflow::port::{PortReason, PortState, PortStatus};
use openflow::types::{BufferId, Cookie, PortNo, Xid};
use support::model::{Manner, Model, port};
use support::program::Program;
use support::{Bridge, until};

const SECOND: Duration = Duration::from_secs(1);

const TENANTS: &str = "version = 1
[[tenant]]
name = \"green\"
max_hosts = 20
ports = [{ bridge = \"*\", port = \"green-*\" }]
[[tenant]]
name = \"orange\"
ports = [{ bridge = \"*\", port = \"orange-*\" }]
";

/// A frame of this source that came in by a port and isn't known.
fn packet_in(number: u32, source: [u8; 6]) -> Message {
    let data: Vec<u8> = [&[0xff; 6][..], &source, &[0x08, 0x00], &[0; 46]].concat();
    Message::PacketIn(PacketIn {
        buffer_id: BufferId::NONE,
        total_len: 60,
        reason: PacketInReason::Action,
        table: LEARN,
        cookie: Cookie(0),
        matching: Match::new([Oxm::InPort(PortNo(number), None)]),
        data: data.into(),
    })
}

fn encoded(messages: impl IntoIterator<Item = Message>) -> Bytes {
    let mut out = BytesMut::new();
    for message in messages {
        message.encode(Xid(0), &mut out).unwrap();
    }
    out.freeze()
}

fn source(number: u32) -> [u8; 6] {
    let [_, a, b, c] = number.to_be_bytes();
    [2, 1, 0, a, b, c]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_packets_of_one_bridge_hinder_nobody_and_fill_nothing() {
    let program = Program::with_policy(TENANTS);
    let manner = Manner { ports: vec!["green-1", "orange-2"], ..Manner::default() };
    let good = Model::connect(program.openflow, 1, manner.clone()).await;
    let flood = Model::connect(program.openflow, 2, manner).await;
    let converged = |status: &serde_json::Value| status["converged"] == true && status["bridges"]["connected"] == 2;
    program.wait("the bridges hold what they should", "/v1/status", converged).await;
    for part in 0..100 {
        flood.write(encoded((0..1000).map(|number| packet_in(1, source(part * 1000 + number)))));
    }
    // In the midst of it another tenant's host turns up elsewhere.
    good.send(5, &packet_in(2, [2, 0, 0, 0, 0, 9]));
    let learnt = |hosts: &serde_json::Value| hosts.to_string().contains("02:00:00:00:00:09");
    program.wait("the good bridge's host is learnt", "/v1/hosts", learnt).await;
    program.wait_metric("espalier_openflow_messages_total{dpid=\"0000000000000002\",type=\"PacketIn\"", 100_000).await;
    let hosts = program.get("/v1/hosts").await;
    let green = hosts.as_array().unwrap().iter().filter(|host| host["tenant"] == "green").count();
    assert_eq!(green, 20, "as many as the tenant may have at a port");
    good.is_well("packet-ins of another bridge");
    // Its own answers come in order, behind its flood; but it isn't cut off.
    assert!(!flood.is_closed());
    let lines = program.log().len();
    assert!(lines < 100, "{lines} lines");
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_that_flap_at_twenty_bridges_hinder_nobody() {
    let program = Program::with_policy(TENANTS);
    let canary = Model::canary(program.openflow).await;
    let mut bridges = Vec::new();
    for dpid in 1..=20 {
        let manner = Manner { ports: vec!["green-1", "orange-2", "tun-3"], quiet: true, ..Manner::default() };
        bridges.push(Model::connect(program.openflow, dpid, manner).await);
    }
    let start = Instant::now();
    while start.elapsed() < 3 * SECOND {
        for bridge in &bridges {
            for state in [PortState::LINK_DOWN, PortState::LIVE] {
                let flap = |(number, name)| openflow::port::Port { state, ..port(number, name) };
                let ports = [(1, "green-1"), (3, "tun-3")].map(flap);
                let status = |port| Message::PortStatus(PortStatus { reason: PortReason::Modify, port });
                bridge.write(encoded(ports.map(status)));
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    canary.is_well("flapping ports");
    let converged = |status: &serde_json::Value| status["converged"] == true && status["bridges"]["connected"] == 21;
    program.wait("all hold what they should", "/v1/status", converged).await;
    canary.is_well("flapping ports");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_by_the_thousand_are_counted_and_leave_few_lines() {
    let program = Program::with_policy("version = 1\n");
    let canary = Model::canary(program.openflow).await;
    let bridge = Model::connect(program.openflow, 5, Manner::default()).await;
    bridge.settled(1).await;
    let (before, start) = (program.log().len(), Instant::now());
    let error =
        || Message::Error(ErrorMsg::about(BadRequest::BadTableId, &Bytes::from_static(&[4, 14, 0, 8, 0, 0, 0, 9])));
    bridge.write(encoded((0..3000).map(|_| error())));
    // And as many that can't be decoded.
    bridge.write(encoded((0..3000).map(|_| Message::Unknown { kind: 1, data: Bytes::from_static(&[0]).into() })));
    bridge.settled(2).await;
    program.wait_metric("espalier_openflow_errors_total{type=\"1\",code=\"OFPBRC_BAD_TABLE_ID\"}", 3000).await;
    assert_eq!(program.refused("malformed").await, 3000);
    let (lines, seconds) = (program.log().len() - before, start.elapsed().as_secs() + 1);
    assert!((1..=10 * seconds as usize).contains(&lines), "{lines} lines in {seconds} s");
    bridge.is_well("its own errors");
    canary.is_well("errors");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_never_reads_is_closed_and_little_waits_for_it() {
    let program = Program::with_policy("version = 1\n");
    let canary = Model::canary(program.openflow).await;
    let mut lazy = Bridge::connect(program.openflow, 5).await;
    canary.settled(1).await;
    let (memory, start) = (program.memory(), Instant::now());
    let question = encoded([Message::EchoRequest(vec![0; 60_000].into())]);
    let asks = tokio::spawn(async move {
        // It asks and asks, and never looks at the answers.
        while tokio::time::timeout(20 * SECOND, lazy.try_write(&question)).await.unwrap_or(Ok(())).is_ok() {
            if start.elapsed() > 20 * SECOND {
                break;
            }
        }
        start.elapsed()
    });
    tokio::time::sleep(2 * SECOND).await;
    let more = program.memory().saturating_sub(memory);
    assert!(more < 4 << 10, "{more} KiB more wait for it");
    let took = asks.await.unwrap();
    assert!(took < 12 * SECOND, "closed after {took:?}");
    canary.is_well("a bridge that never reads");
}

/// How long it takes from connecting until a bridge is known.
async fn handshake(address: SocketAddr, dpid: u64) -> Duration {
    let start = Instant::now();
    let mut bridge = Bridge::connect(address, dpid).await;
    bridge.echo().await;
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_keep_nobody_out() {
    let program = Program::with_policy("version = 1\n");
    let canary = Model::canary(program.openflow).await;
    // Some leave at once, others stay and say nothing.
    for _ in 0..300 {
        drop(Bridge::silent(program.openflow).await);
    }
    let mut silent = Vec::new();
    for _ in 0..2000 {
        silent.push(Bridge::silent(program.openflow).await);
    }
    let mut slowest = Duration::ZERO;
    for dpid in 100..150 {
        slowest = slowest.max(handshake(program.openflow, dpid).await);
    }
    assert!(slowest < SECOND, "a handshake took {slowest:?}");
    assert!(program.refused("too_many_sessions").await > 0);
    canary.is_well("silent connections");
    until("they are all closed", || program.files() < 100).await;
    canary.is_well("silent connections");
}
