//! Goal: a bridge that doesn't keep to the protocol, or can't do what it is asked, costs itself only. Against the program
//! itself, with good bridges beside it that have to get their entries and prompt echoes all the while.

mod support;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use openflow::error::{BadRequest, FlowModFailed, RoleRequestFailed};
use openflow::message::Message;
use openflow::port::{PortReason, PortStatus};
use openflow::switch::Hello;
use openflow::types::Xid;
use support::model::{Manner, Model, port};
use support::program::Program;
use support::{Bridge, Folder, features, until};

const SECOND: Duration = Duration::from_secs(1);

const GREEN: &str = "version = 1\n[[tenant]]\nname = \"green\"\nports = [{ bridge = \"*\", port = \"green-*\" }]\n";

fn green() -> Manner {
    Manner { ports: vec!["green-1", "tun-2"], ..Manner::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_get_on_with_the_handshake_is_closed_at_its_deadline() {
    let program = Program::with_policy("version = 1\n");
    let canary = Model::canary(program.openflow).await;
    let hello = |octets: &[u8]| {
        let mut out = BytesMut::new();
        Message::Hello(Hello::v13()).encode(Xid(1), &mut out).unwrap();
        out.extend_from_slice(octets);
        out.to_vec()
    };
    let mut known = BytesMut::new();
    features(9).encode(Xid(0x8000_0001), &mut known).unwrap();
    // Right, but no answer to what was asked.
    let mut other = BytesMut::new();
    features(9).encode(Xid(77), &mut other).unwrap();
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("silence", vec![]),
        ("one octet", vec![4]),
        ("half a header", vec![4, 0, 0, 16]),
        ("a long HELLO that doesn't come", vec![4, 0, 0xff, 0xff, 0, 0, 0, 0]),
        ("a HELLO, then silence", hello(&[])),
        ("a HELLO, then half a header", hello(&[4, 6, 0])),
        ("a HELLO, then half its features", hello(&known[..20])),
        ("features that nobody asked for", hello(&other)),
        ("features, and nothing more", hello(&known)),
    ];
    let start = Instant::now();
    let mut connections = Vec::new();
    for (what, octets) in rows {
        let mut bridge = Bridge::silent(program.openflow).await;
        bridge.write(&octets).await;
        connections.push((what, tokio::spawn(async move { bridge.closed().await })));
    }
    let count = connections.len() as u64;
    for (what, closed) in connections {
        closed.await.unwrap();
        let took = start.elapsed();
        assert!((4500..7500).contains(&took.as_millis()), "{what}: closed after {took:?}");
    }
    assert_eq!(program.refused("handshake_timeout").await, count);
    assert_eq!(program.metric("espalier_bridges_connected").await, 1);
    canary.is_well("unfinished handshakes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datapath_id_stays_with_the_bridge_that_lives_and_has_one_main_connection() {
    let program = Program::with_policy("version = 1\n");
    let canary = Model::canary(program.openflow).await;
    let incumbent = Model::connect(program.openflow, 5, Manner::default()).await;
    for _ in 0..10 {
        let newcomer = Model::connect(program.openflow, 5, Manner::default()).await;
        assert!(newcomer.closed().await < SECOND);
    }
    assert_eq!(program.refused("datapath_taken").await, 10);
    let bridges = program.get("/v1/bridges").await;
    assert_eq!(bridges[0]["address"], incumbent.address.to_string(), "{bridges}");
    incumbent.is_well("its datapath id was claimed");
    canary.is_well("a datapath id was claimed");
}

/// Malformed descriptions of a flow entry: the body of a multipart reply after its kind and flags.
fn malformed_flows() -> Vec<(&'static str, Bytes)> {
    let entry = |length: u16, rest: &[u8]| {
        let mut octets = [&length.to_be_bytes()[..], &[0; 46], &[0, 1, 0, 4, 0, 0, 0, 0], rest].concat();
        octets.splice(0..0, [0, 1, 0, 0, 0, 0, 0, 0]);
        Bytes::from(octets)
    };
    // Instruction 4 is "apply actions"; 16 octets more are an action.
    let apply = |action: &[u8]| {
        let length = 8 + action.len() as u16;
        entry(56 + length, &[&[0, 4][..], &length.to_be_bytes(), &[0; 4], action].concat())
    };
    vec![
        ("an entry of length 0", entry(0, &[])),
        ("an entry of length 55", entry(55, &[])),
        ("an entry beyond the message", entry(500, &[])),
        ("half an entry", entry(56, &[]).slice(..40)),
        ("an instruction of length 0", entry(64, &[0, 4, 0, 0, 0, 0, 0, 0])),
        ("an instruction beyond its entry", entry(64, &[0, 4, 0, 80, 0, 0, 0, 0])),
        ("an action of length 0", apply(&[0; 16])),
        ("an action of length 4", apply(&[0, 0, 0, 4, 0, 0, 0, 0])),
        ("an action beyond its instruction", apply(&[0, 0, 0, 64, 0, 0, 0, 0])),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_cannot_be_read_cost_a_bridge_its_session_and_nobody_else_anything() {
    let program = Program::with_policy(GREEN);
    let good = Model::connect(program.openflow, 1, green()).await;
    let mut bad = Vec::new();
    for (dpid, (what, flows)) in (10..).zip(malformed_flows()) {
        let manner = Manner { flows: Some(flows), ..green() };
        bad.push((what, Model::connect(program.openflow, dpid, manner).await));
    }
    // A group's answer to the question for flows.
    let manner = Manner { flows: Some(Bytes::from_static(&[0, 7, 0, 0, 0, 0, 0, 0])), ..green() };
    bad.push(("an answer of another kind", Model::connect(program.openflow, 90, manner).await));
    until("the good one gets its entries", || good.changes() > 5).await;
    let start = Instant::now();
    for (what, bridge) in &bad {
        bridge.closed().await;
        assert_eq!(bridge.changes(), 0, "{what}: nothing is written where nothing is known");
    }
    assert!(start.elapsed() < 8 * SECOND, "{:?}", start.elapsed());
    assert_eq!(program.refused("malformed").await, bad.len() as u64 - 1);
    assert_eq!((program.refused("unasked").await, program.refused("given_up").await), (1, bad.len() as u64));
    good.is_well("tables that can't be read");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_without_end_are_cut_off() {
    let program = Program::with_policy("version = 1\n");
    let canary = Model::canary(program.openflow).await;
    canary.settled(1).await;
    let memory = program.memory();
    // As many entries as a message holds, and always more to come.
    let entry = [&[0, 56][..], &[0; 46], &[0, 1, 0, 4, 0, 0, 0, 0]].concat();
    let flows = [&[0, 1, 0, 1, 0, 0, 0, 0][..], &entry.repeat(1100)].concat();
    let manner = Manner { flows: Some(flows.into()), endless: true, ..Manner::default() };
    let endless = Model::connect(program.openflow, 5, manner.clone()).await;
    let took = endless.closed().await;
    assert!(took < 5 * SECOND, "{took:?}");
    assert!(program.refused("tables_too_long").await > 0);
    let more = program.memory().saturating_sub(memory);
    assert!(more < 64 << 10, "{more} KiB more");
    canary.is_well("tables without end");

    // It may come again, but has to rest first.
    let again = Model::connect(program.openflow, 5, manner).await;
    again.settled(2).await;
    assert_eq!(again.seen.lock().unwrap().reads, 0, "it isn't asked at once");

    // Parts of what nobody asked for are dropped unread.
    let unasked = Model::connect(program.openflow, 6, Manner { quiet: true, ..Manner::default() }).await;
    unasked.settled(3).await;
    let part = [&[0, 1, 0, 1, 0, 0, 0, 0][..], &entry.repeat(10)].concat();
    for xid in 0..10_000 {
        unasked.send(0x1000_0000 + xid, &Message::Unknown { kind: 19, data: part.clone().into() });
    }
    unasked.settled(4).await;
    assert_eq!(program.refused("unasked").await, 10_000);
    assert!(!unasked.is_closed());
    canary.is_well("tables that nobody asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_whose_table_is_full_rests_and_others_get_their_entries() {
    let program = Program::with_policy(GREEN);
    let full =
        Model::connect(program.openflow, 1, Manner { refuses: Some(FlowModFailed::TableFull.into()), ..green() });
    let (full, good) = (full.await, Model::connect(program.openflow, 2, green()).await);
    until("the good one gets its entries", || good.changes() > 5).await;
    let told = |status: &serde_json::Value| status["problems"].to_string().contains("refused an entry");
    program.wait("it is told", "/v1/status", told).await;
    let good_converged = |bridge: &serde_json::Value| bridge["converged"] == true;
    program.wait("the good one holds what it should", "/v1/bridges/2", good_converged).await;
    until("it was written to twice at least", || full.seen.lock().unwrap().reads > 6).await;
    let changes = full.seen.lock().unwrap().changes.clone();
    let first = changes.iter().filter(|at| **at < changes[0] + SECOND / 2).count();
    let pauses: Vec<_> = changes.windows(2).map(|two| two[1] - two[0]).filter(|pause| *pause > SECOND / 2).collect();
    // What was on its way when it refused the first one came; no later stage did until it had rested.
    assert!(first <= good.changes(), "{first} changes at first, {} at the good one", good.changes());
    assert!(!pauses.is_empty() && pauses.iter().all(|pause| *pause >= SECOND), "{pauses:?}");
    assert!(program.metric("espalier_openflow_errors_total{type=\"5\",code=\"OFPFMFC_TABLE_FULL\"}").await > 0);
    good.is_well("a full table");
    assert!(!full.is_closed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_is_not_acknowledged_ends_and_others_proceed() {
    let program = Program::with_policy(GREEN);
    let late = Model::connect(program.openflow, 1, Manner { withholds: true, ..green() }).await;
    let good = Model::connect(program.openflow, 2, green()).await;
    until("it is asked for changes", || late.changes() > 0).await;
    tokio::time::sleep(SECOND).await;
    let first = late.changes();
    let took = late.closed().await;
    assert!((2500..6500).contains(&took.as_millis()), "closed after {took:?}");
    assert_eq!(late.changes(), first, "no later stage was sent");
    let converged = |bridge: &serde_json::Value| bridge["converged"] == true;
    program.wait("the good one holds what it should", "/v1/bridges/2", converged).await;
    good.is_well("barriers withheld");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_another_controller_is_master_nothing_more_is_written() {
    let rows = [("the bridge says so", BadRequest::IsSlave.into()), ("ours is stale", RoleRequestFailed::Stale.into())];
    for (what, code) in rows {
        let program = Program::with_policy(GREEN);
        let lost = Model::connect(program.openflow, 1, Manner { refuses: Some(code), ..green() }).await;
        let good = Model::connect(program.openflow, 2, green()).await;
        let told = |status: &serde_json::Value| status["problems"].to_string().contains("lets us only read");
        program.wait(what, "/v1/status", told).await;
        until("the good one gets its entries", || good.changes() > 5).await;
        let (changes, reads) = (lost.changes(), lost.seen.lock().unwrap().reads);
        // Changes of its ports make no difference, nor does time: one that only refused would be tried again after 1 s.
        let port = port(3, "green-3");
        lost.send(50, &Message::PortStatus(PortStatus { reason: PortReason::Add, port }));
        tokio::time::sleep(SECOND * 5 / 2).await;
        assert_eq!((lost.changes(), lost.seen.lock().unwrap().reads), (changes, reads), "{what}");
        assert!(!lost.is_closed(), "{what}");
        assert_eq!(program.get("/v1/bridges/1").await["role"], "slave", "{what}");
        good.is_well(what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_bounded_however_many_a_bridge_tells() {
    let program = Program::with_policy("version = 1\n[fabric]\nlinks = [\"tun-*\"]\n");
    let canary = Model::canary(program.openflow).await;
    let bridge = Model::connect(program.openflow, 5, Manner::default()).await;
    let mut all = BytesMut::new();
    for number in 1..=20_000 {
        let status = PortStatus { reason: PortReason::Add, port: port(number, &format!("p{number}")) };
        Message::PortStatus(status).encode(Xid(0), &mut all).unwrap();
    }
    bridge.write(all);
    bridge.settled(1).await;
    let told = |status: &serde_json::Value| status["problems"].to_string().contains("has 4096 ports");
    program.wait("it is told", "/v1/status", told).await;
    let bridges = program.get("/v1/bridges").await;
    assert_eq!(bridges[0]["ports"].as_array().unwrap().len(), 4096);
    // Its own echoes wait behind what it sent; nobody else's do.
    assert!(!bridge.is_closed());
    canary.is_well("many ports");

    // The same during the handshake.
    let ports = (1..=700).map(|number| port(number, "p")).collect();
    let many = Bridge::connect_with(program.openflow, 6, ports).await;
    drop(many);
    let mut flood = Bridge::silent(program.openflow).await;
    flood.send(1, &Message::Hello(Hello::v13())).await;
    let mut told = BytesMut::new();
    features(7).encode(Xid(0x8000_0001), &mut told).unwrap();
    let none = openflow::multipart::MultipartReply::PortDesc(Vec::new());
    let none = Message::MultipartReply(openflow::multipart::Part::whole(none));
    none.encode(Xid(0x8000_0003), &mut told).unwrap();
    for number in 1..=4097 {
        let status = PortStatus { reason: PortReason::Add, port: port(number, "p") };
        Message::PortStatus(status).encode(Xid(0), &mut told).unwrap();
    }
    let _ = flood.try_write(&told).await;
    flood.closed().await;
    assert_eq!(program.refused("handshake_failed").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn datapath_ids_of_strangers_are_forgotten_and_those_that_matter_are_not() {
    let folder = Folder::new();
    let policy = folder.write("p.toml", &format!("{GREEN}[[bridge]]\nname = \"named\"\ndpid = \"77\"\n"));
    let state = folder.0.join("state");
    let arguments = ["--policy", policy.to_str().unwrap(), "--state", state.to_str().unwrap()];
    let mut program = Program::start(&arguments);
    let named = Model::connect(program.openflow, 0x77, Manner::default()).await;
    let tenants = Model::connect(program.openflow, 0x88, green()).await;
    let converged = |bridge: &serde_json::Value| bridge["converged"] == true;
    program.wait("it holds what it should", "/v1/bridges/88", converged).await;
    for dpid in 1000..1300 {
        let stranger = Model::connect(program.openflow, dpid, Manner::default()).await;
        // Some stay until their tables are read and written, others leave at once.
        if dpid % 3 == 0 {
            until("it gets its entries", || stranger.changes() > 0).await;
        }
    }
    let only = |status: &serde_json::Value| status["bridges"]["known"] == 2;
    program.wait("strangers are forgotten", "/v1/status", only).await;
    named.is_well("strangers");
    drop((named, tenants));
    let gone = |status: &serde_json::Value| status["bridges"]["connected"] == 0;
    let status = program.wait("all are gone", "/v1/status", gone).await;
    assert_eq!(status["bridges"]["known"], 2);
    // Lines about strangers have a budget of their own, all together.
    let lines = program.log().iter().filter(|line| line.contains("connected from")).count();
    assert!(lines < 200, "{lines} lines about 302 bridges");

    // After a restart only the two are waited for, so that both get their entries as soon as they are back.
    program.signal("-TERM");
    assert!(program.child.wait().unwrap().success());
    let program = Program::start(&arguments);
    let back = [Model::connect(program.openflow, 0x77, Manner::default()).await, {
        Model::connect(program.openflow, 0x88, green()).await
    }];
    let start = Instant::now();
    until("both get their entries", || back.iter().all(|bridge| bridge.changes() > 0)).await;
    assert!(start.elapsed() < 3 * SECOND, "nobody else is waited for: {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_the_whole_program_costs_no_session() {
    let mut program = Program::with_policy(GREEN);
    let bridges = [1, 2].map(|dpid| Model::connect(program.openflow, dpid, Manner { quiet: true, ..green() }));
    let mut models = Vec::new();
    for bridge in bridges {
        models.push(bridge.await);
    }
    let converged = |status: &serde_json::Value| status["converged"] == true && status["bridges"]["connected"] == 2;
    program.wait("the bridges hold what they should", "/v1/status", converged).await;
    let changes: Vec<usize> = models.iter().map(Model::changes).collect();
    program.signal("-STOP");
    tokio::time::sleep(10 * SECOND).await;
    program.signal("-CONT");
    for model in &models {
        model.settled(1).await;
    }
    tokio::time::sleep(SECOND).await;
    program.wait("the bridges hold what they should", "/v1/status", converged).await;
    for (model, before) in models.iter().zip(changes) {
        assert!(!model.is_closed());
        assert_eq!(model.changes(), before, "nothing changes because of it");
    }
    assert!(program.child.try_wait().unwrap().is_none());
}
