//! Goal: the core takes whatever a session hands it, from any bridge, in any order, and what it holds stays bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apps::pipeline::{ADMIT, LEARN};
use apps::policy::{Source, load};
use bytes::{Bytes, BytesMut};
use controller::core::{Core, Effect, Event, Memory, SessionId, Settings};
use controller::snapshot::PolicyStatus;
use openflow::flow::{FlowRemoved, FlowRemovedReason};
use openflow::matching::Match;
use openflow::message::Message;
use openflow::multipart::MultipartReply;
use openflow::multipart::Part;
use openflow::oxm::Oxm;
use openflow::packet::{PacketIn, PacketInReason};
use openflow::peer::Identity;
use openflow::port::{Port, PortReason, PortStatus};
use openflow::switch::{Capabilities, FeaturesReply, Role};
use openflow::types::{BufferId, Cookie, DatapathId, MacAddr, PortNo, Xid};
use openflow::wire::Nothing;
use proptest::collection::vec;
use proptest::prelude::*;

const POLICY: &str = "version = 1
[[bridge]]
name = \"named\"
dpid = \"ff\"
[[tenant]]
name = \"green\"
ports = [{ bridge = \"*\", port = \"green-*\" }]
";

fn core(now: Instant, bridges_max: usize) -> Core {
    let mut core = Core::new(now, Settings { probe_key: [7; 32], memory: Memory::default(), bridges_max });
    let policy = load(&[Source { name: "p.toml".into(), text: POLICY.to_owned() }]).unwrap().policy;
    core.handle(now, Event::Policy(Arc::new(policy), PolicyStatus::default()));
    core
}

fn port(number: u32, name: &str) -> Port {
    Port::new(PortNo(number), MacAddr([2, 0, 0, 0, 0, 1]), name)
}

fn connected(session: u64, dpid: u64) -> Event {
    let features = FeaturesReply {
        datapath: DatapathId(dpid),
        n_buffers: 0,
        n_tables: 254,
        auxiliary_id: 0,
        capabilities: Capabilities::empty(),
    };
    let ports = vec![port(1, "green-1"), port(2, "tun-2")];
    let identity = Box::new(Identity { features, desc: None, ports, role: Role::Master, generation: None });
    Event::Connected { session: SessionId(session), address: SocketAddr::from(([127, 0, 0, 1], 9)), identity }
}

fn closes(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Close { .. }))
}

#[test]
fn bridges_are_bounded_but_those_that_the_policy_names_always_come_in() {
    let now = Instant::now();
    let mut core = core(now, 100);
    // Each has a tenant's port, and so would be remembered.
    for dpid in 1000..1300 {
        let refused = closes(&core.handle(now, connected(dpid, dpid)));
        assert_eq!(refused, dpid >= 1100, "{dpid}");
        if refused {
            core.handle(now, Event::Disconnected { session: SessionId(dpid) });
        }
    }
    assert_eq!(core.snapshot(now).bridges.len(), 100);
    assert!(!closes(&core.handle(now, connected(1, 0xff))), "the policy names it");
    assert!(!closes(&core.handle(now, connected(2, 1050))), "it is known");
}

/// A message of each kind that bridges send.
fn messages() -> Vec<Message> {
    let matching = Match::new([Oxm::InPort(PortNo(1), None), Oxm::EthSrc(MacAddr([2, 0, 0, 0, 0, 5]), None)]);
    let packet = |table, kind: [u8; 2]| {
        let data: Vec<u8> = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 5], &kind, &[0x45; 60]].concat();
        Message::PacketIn(PacketIn {
            buffer_id: BufferId::NONE,
            total_len: 74,
            reason: PacketInReason::Action,
            table,
            cookie: Cookie(0),
            matching: matching.clone(),
            data: data.into(),
        })
    };
    let gone = FlowRemoved {
        cookie: Cookie(0xe5 << 56 | 1),
        priority: 10,
        reason: FlowRemovedReason::IdleTimeout,
        table: LEARN,
        duration_sec: 0,
        duration_nsec: 0,
        idle_timeout: 0,
        hard_timeout: 0,
        packet_count: 0,
        byte_count: 0,
        matching: matching.clone(),
    };
    let told = |body| Message::MultipartReply(Part::whole(body));
    vec![
        packet(LEARN, [8, 0]),
        packet(LEARN, [8, 6]),
        packet(ADMIT, [0x88, 0xcc]),
        Message::PortStatus(PortStatus { reason: PortReason::Modify, port: port(1, "green-1") }),
        Message::FlowRemoved(gone),
        Message::Error(openflow::error::ErrorMsg::about(
            openflow::error::BadRequest::IsSlave,
            &Bytes::from_static(&[0; 20]),
        )),
        Message::BarrierReply(Nothing),
        told(MultipartReply::Flow(Vec::new())),
        told(MultipartReply::GroupDesc(Vec::new())),
        told(MultipartReply::MeterConfig(Vec::new())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Octets of real messages are changed; what can still be decoded goes to the core.
    #[test]
    fn whatever_bridges_send_the_core_takes_it(
        steps in vec((0..10usize, 0..12u32, vec((8..200usize, any::<u8>()), 0..3), 0..300u64), 1..60),
    ) {
        let mut now = Instant::now();
        let mut core = core(now, 100);
        core.handle(now, connected(1, 1));
        core.handle(now, connected(2, 2));
        for (kind, xid, changes, milliseconds) in steps {
            let mut octets = BytesMut::new();
            messages()[kind].encode(Xid(xid), &mut octets).unwrap();
            for (place, octet) in changes {
                if let Some(there) = octets.get_mut(place) {
                    *there = octet;
                }
            }
            if let Ok((xid, message)) = Message::decode(&octets.freeze()) {
                core.handle(now, Event::Message { session: SessionId(1 + milliseconds % 2), xid, message });
            }
            now += Duration::from_millis(milliseconds);
            core.handle(now, Event::Timer);
        }
        let snapshot = core.snapshot(now);
        prop_assert!(snapshot.bridges.iter().all(|bridge| bridge.ports.len() < 70));
        prop_assert!(serde_json::to_string(&snapshot).is_ok());
    }
}
