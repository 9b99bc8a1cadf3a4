//! Goal: the interpreter does what a bridge does with the fields, actions and groups that the pipeline is made of.
//! Method: tables of a few entries are made by hand, frames that differ in one thing walk through them, and what is told
//! on the way is compared with what the specification and `ovs-actions(7)` say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use apps::assigned::protocol;
use apps::desired::{BridgeState, Flow, FlowKey, Group, Section};
use apps::interpreter::{Event, Frame, Network, Output, Transport, observe, walk};
use apps::marks::Owner;
use apps::view::Endpoint;
use openflow::action::{
    Action, BitRange, BundleLoad, HashFields, Learn, LearnFlags, LearnResult, LearnSpecs, LimitedLearn, Members,
    Multipath, MultipathAlgorithm, Nested,
};
use openflow::flow::FlowModFlags;
use openflow::group::{Bucket, GroupType};
use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::narrow::{U12, U13};
use openflow::oxm::{FieldId, Oxm};
use openflow::types::{Cookie, DatapathId, GroupId, MacAddr, MeterId, PortNo, TableId};

const AT: Endpoint = Endpoint { bridge: DatapathId(1), port: PortNo(1) };
const MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];

#[derive(Default)]
struct Tables(Section);

impl Tables {
    fn flow(mut self, table: u8, priority: u16, fields: Vec<Oxm>, instructions: Vec<Instruction>) -> Self {
        let key = FlowKey { table: TableId(table), priority, matching: Match::new(fields) };
        let flags = FlowModFlags::empty();
        let flow = Flow { cookie: Cookie(0), idle_timeout: 0, flags, instructions, hops: 0, origin: None };
        self.0.flows.insert(key, flow);
        self
    }

    fn group(mut self, id: u32, kind: GroupType, buckets: Vec<Bucket>) -> Self {
        self.0.groups.insert(GroupId(id), Group { kind, buckets });
        self
    }

    fn state(self) -> BridgeState {
        BTreeMap::from([(Owner::FABRIC, Arc::new(self.0))])
    }
}

fn apply(actions: Vec<Action>) -> Instruction {
    Instruction::ApplyActions(actions)
}

fn out(port: u32) -> Action {
    Action::output(PortNo(port))
}

fn resubmit(table: u8) -> Action {
    Action::Resubmit { in_port: 0xfff8, table: TableId(table) }
}

fn frame(network: Network) -> Frame {
    let [source, destination] = MACS;
    Frame { destination, source, ethertype: network.ethertype().unwrap_or(0x88b5), network, ..Frame::default() }
}

fn v4(protocol: u8, transport: Transport) -> Frame {
    let (source, destination) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    frame(Network::Ipv4 { source, destination, protocol, transport })
}

fn v6(protocol: u8, transport: Transport) -> Frame {
    let (source, destination) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
    frame(Network::Ipv6 { source, destination, protocol, transport })
}

/// The numbers of the ports that it leaves by, in order.
fn ports(state: &BridgeState, frame: &Frame) -> Vec<u32> {
    let leave = |output| if let Output::Port(port, _) = output { port.0 } else { 0 };
    walk(state, AT, &BTreeSet::new(), frame.clone()).into_iter().map(leave).collect()
}

/// A row: a frame, values of a field that it has, whole and masked, one that it hasn't, and a frame that has none of them.
#[test]
fn each_field_of_the_pipeline_tells_frames_apart() {
    let with_ports = |number| v4(number, Transport::Ports { source: 0x1234, destination: 80, flags: 0x12 });
    let [tcp, udp, sctp] = [protocol::TCP, protocol::UDP, protocol::SCTP].map(with_ports);
    let arp = frame(Network::Arp { op: 1, sha: MACS[0], spa: [10, 0, 0, 1].into(), tpa: [10, 0, 0, 2].into() });
    let target: Ipv6Addr = "fd00::9".parse().unwrap();
    let solicit = v6(protocol::ICMPV6, Transport::Icmp { kind: 135, code: 0, target: Some(target), link_layer: None });
    let ping = v4(protocol::ICMP, Transport::Icmp { kind: 8, code: 0, target: None, link_layer: None });
    let plain = frame(Network::Unknown);
    let back = Frame { destination: MACS[0], source: MACS[1], ..plain.clone() };
    let tagged = Frame { tags: vec![7, 8], tunnel: Some(0x64), ..frame(Network::Unknown) };
    let v4_of = |last| Ipv4Addr::new(10, 0, 0, last);
    let v4_net = Some(Ipv4Addr::new(255, 255, 255, 0));
    let v6_of = |last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
    let v6_net = Some(Ipv6Addr::new(0xffff, 0, 0, 0, 0, 0, 0, 0));
    let (vendor, high) = (Some(MacAddr([0xff, 0xff, 0xff, 0, 0, 0])), Some(0xff00));
    let present = U13::low(0x1000);

    let rows: Vec<(&Frame, Vec<Oxm>, Oxm, &Frame)> = vec![
        (&plain, vec![Oxm::EthDst(MACS[1], None), Oxm::EthDst(MACS[0], vendor)], Oxm::EthDst(MACS[0], None), &back),
        (&plain, vec![Oxm::EthSrc(MACS[0], None), Oxm::EthSrc(MACS[1], vendor)], Oxm::EthSrc(MACS[1], None), &back),
        (&ping, vec![Oxm::EthType(0x800, None)], Oxm::EthType(0x86dd, None), &plain),
        (
            &tagged,
            vec![Oxm::VlanVid(U13::low(0x1007), None), Oxm::VlanVid(present, Some(present))],
            Oxm::VlanVid(U13::low(0x1008), None),
            &plain,
        ),
        (&tagged, vec![Oxm::TunnelId(0x64, None), Oxm::TunnelId(0x60, Some(0xf0))], Oxm::TunnelId(0x65, None), &plain),
        (&ping, vec![Oxm::IpProto(1, None)], Oxm::IpProto(6, None), &arp),
        (
            &ping,
            vec![Oxm::Ipv4Src(v4_of(1), None), Oxm::Ipv4Src(v4_of(0), v4_net)],
            Oxm::Ipv4Src(v4_of(2), None),
            &solicit,
        ),
        (
            &ping,
            vec![Oxm::Ipv4Dst(v4_of(2), None), Oxm::Ipv4Dst(v4_of(0), v4_net)],
            Oxm::Ipv4Dst(v4_of(1), None),
            &solicit,
        ),
        (
            &solicit,
            vec![Oxm::Ipv6Src(v6_of(1), None), Oxm::Ipv6Src(v6_of(0), v6_net)],
            Oxm::Ipv6Src(v6_of(2), None),
            &ping,
        ),
        (
            &solicit,
            vec![Oxm::Ipv6Dst(v6_of(2), None), Oxm::Ipv6Dst(v6_of(0), v6_net)],
            Oxm::Ipv6Dst(v6_of(1), None),
            &ping,
        ),
        (
            &tcp,
            vec![Oxm::TcpFlags(U12::low(0x12), None), Oxm::TcpFlags(U12::low(2), Some(U12::low(2)))],
            Oxm::TcpFlags(U12::low(2), None),
            &udp,
        ),
        (&tcp, vec![Oxm::TcpSrc(0x1234, None), Oxm::TcpSrc(0x1200, high)], Oxm::TcpSrc(80, None), &udp),
        (&tcp, vec![Oxm::TcpDst(80, None), Oxm::TcpDst(0, high)], Oxm::TcpDst(0x1234, None), &udp),
        (&udp, vec![Oxm::UdpSrc(0x1234, None), Oxm::UdpSrc(0x1200, high)], Oxm::UdpSrc(80, None), &tcp),
        (&udp, vec![Oxm::UdpDst(80, None), Oxm::UdpDst(0, high)], Oxm::UdpDst(0x1234, None), &tcp),
        (&sctp, vec![Oxm::SctpSrc(0x1234, None)], Oxm::SctpSrc(80, None), &tcp),
        (&sctp, vec![Oxm::SctpDst(80, None)], Oxm::SctpDst(0x1234, None), &tcp),
        (&ping, vec![Oxm::Icmpv4Type(8, None)], Oxm::Icmpv4Type(0, None), &solicit),
        (&solicit, vec![Oxm::Icmpv6Type(135, None)], Oxm::Icmpv6Type(136, None), &ping),
        (
            &solicit,
            vec![Oxm::Ipv6NdTarget(target, None), Oxm::Ipv6NdTarget(v6_of(0), v6_net)],
            Oxm::Ipv6NdTarget(v6_of(8), None),
            &ping,
        ),
        (&arp, vec![Oxm::ArpOp(1, None)], Oxm::ArpOp(2, None), &ping),
        (&arp, vec![Oxm::ArpSpa(v4_of(1), None), Oxm::ArpSpa(v4_of(0), v4_net)], Oxm::ArpSpa(v4_of(2), None), &ping),
        (&arp, vec![Oxm::ArpTpa(v4_of(2), None), Oxm::ArpTpa(v4_of(0), v4_net)], Oxm::ArpTpa(v4_of(1), None), &ping),
        (&arp, vec![Oxm::ArpSha(MACS[0], None), Oxm::ArpSha(MACS[1], vendor)], Oxm::ArpSha(MACS[1], None), &ping),
    ];
    let hits = |frame: &Frame, field: &Oxm| {
        let state = Tables::default().flow(0, 1, vec![field.clone()], vec![apply(vec![out(2)])]).state();
        !ports(&state, frame).is_empty()
    };
    for (frame, had, not_had, other) in rows {
        for field in &had {
            assert!(hits(frame, field), "{field} of {frame:?}");
        }
        assert!(!hits(frame, &not_had), "{not_had} of {frame:?}");
        assert!(!hits(other, &had[0]), "{} of {other:?}", had[0]);
    }
    assert!(hits(&plain, &Oxm::InPort(PortNo(1), None)) && !hits(&plain, &Oxm::InPort(PortNo(2), None)));
    assert!(!hits(&ping, &Oxm::NwTtl(0, None)), "not known, so never hit");
}

#[test]
fn the_highest_priority_of_a_table_wins_whoever_owns_it() {
    let low = Tables::default().flow(0, 1, vec![], vec![apply(vec![out(2)])]);
    let high = Tables::default().flow(0, 9, vec![], vec![apply(vec![out(3)])]).flow(1, 99, vec![], vec![]);
    let state = BTreeMap::from([(Owner(0), Arc::new(high.0)), (Owner(1), Arc::new(low.0))]);
    assert_eq!(ports(&state, &frame(Network::Unknown)), [3]);
}

#[test]
fn what_actions_set_is_seen_by_the_tables_after_them() {
    let set = |field| Action::SetField(field);
    let fields = [
        (set(Oxm::Metadata(5, None)), Oxm::Metadata(1, Some(1))),
        (set(Oxm::Reg0(0x12, None)), Oxm::Reg0(0x10, Some(0xf0))),
        (set(Oxm::EthDst(MACS[0], None)), Oxm::EthDst(MACS[0], None)),
        (set(Oxm::EthSrc(MACS[1], None)), Oxm::EthSrc(MACS[1], None)),
        (set(Oxm::TunnelId(9, None)), Oxm::TunnelId(9, None)),
    ];
    for (action, field) in fields {
        let tables = |actions: Vec<Action>| {
            let on = Instruction::GotoTable(TableId(1));
            let first = Tables::default().flow(0, 1, vec![], vec![apply(actions), on]);
            first.flow(1, 1, vec![field.clone()], vec![apply(vec![out(2)])]).state()
        };
        let sent = frame(Network::Unknown);
        assert_eq!(ports(&tables(vec![action.clone()]), &sent), [2], "{action}");
        assert_eq!(ports(&tables(vec![]), &sent), [0; 0], "without {action}");
        let cloned = vec![Action::Clone(Nested(vec![action.clone()]))];
        assert_eq!(ports(&tables(cloned), &sent), [0; 0], "{action} in a clone");
    }
}

#[test]
fn a_resubmission_is_walked_and_then_the_list_goes_on() {
    let later = |actions| Tables::default().flow(5, 1, vec![Oxm::InPort(AT.port, None)], vec![apply(actions)]);
    let first = |tables: Tables, actions| {
        let seen = vec![Oxm::Reg0(7, None)];
        let on = vec![apply(actions), Instruction::GotoTable(TableId(6))];
        tables.flow(0, 1, vec![], on).flow(6, 1, seen, vec![apply(vec![out(9)])]).state()
    };
    let sent = frame(Network::Unknown);
    let set = || vec![Action::SetField(Oxm::Reg0(7, None)), out(3)];
    assert_eq!(
        ports(&first(later(set()), vec![out(2), resubmit(5), out(4)]), &sent),
        [2, 3, 4, 9],
        "what it set stays"
    );
    let cloned = Action::Clone(Nested(vec![resubmit(5)]));
    assert_eq!(ports(&first(later(set()), vec![cloned, out(4)]), &sent), [3, 4], "what it set in a clone doesn't");
    let other_port = Action::Resubmit { in_port: 2, table: TableId(5) };
    assert_eq!(ports(&first(later(set()), vec![other_port]), &sent), [0; 0], "as another port: not known");
}

#[test]
fn groups_copy_to_all_buckets_or_to_the_first_that_lives() {
    let bucket = |port: u32| Bucket {
        watch_port: PortNo(port),
        ..Bucket::new(vec![Action::PushVlan { ethertype: 0x8100 }, out(port)])
    };
    let after = Action::Group { group: GroupId(1) };
    let state = |kind| {
        let last = Bucket::new(vec![out(4)]);
        let tables = Tables::default().flow(0, 1, vec![], vec![apply(vec![after.clone(), out(8)])]);
        tables.group(1, kind, vec![bucket(2), bucket(3), last]).state()
    };
    let sent = frame(Network::Unknown);
    let walked = |kind, down: &[u32]| {
        let down = down.iter().map(|port| Endpoint { port: PortNo(*port), ..AT }).collect();
        let leave = |output| if let Output::Port(port, frame) = output { (port.0, frame.tags.len()) } else { (0, 0) };
        walk(&state(kind), AT, &down, sent.clone()).into_iter().map(leave).collect::<Vec<_>>()
    };
    assert_eq!(walked(GroupType::All, &[2]), [(2, 1), (3, 1), (4, 0), (8, 0)], "each changes a copy of its own");
    assert_eq!(walked(GroupType::FastFailover, &[]), [(2, 1), (8, 0)]);
    assert_eq!(walked(GroupType::FastFailover, &[2]), [(3, 1), (8, 0)]);
    assert_eq!(walked(GroupType::FastFailover, &[2, 3]), [(4, 0), (8, 0)], "one that watches nothing lives");
}

#[test]
fn a_bundle_takes_the_first_port_that_lives_and_tells_when_none_does() {
    let reg2 = FieldId::named("reg2").unwrap();
    let load = |port, offset| {
        let (members, range) = (Members::first_live([port]), BitRange::new(offset, 16).unwrap());
        Action::BundleLoad(BundleLoad { members, range, dst: reg2 })
    };
    let goto = Instruction::GotoTable(TableId(1));
    let state = Tables::default()
        .flow(
            0,
            1,
            vec![],
            vec![apply(vec![Action::Bundle(Members::first_live([2, 3])), load(2, 0), load(3, 16)]), goto],
        )
        .flow(1, 1, vec![Oxm::Reg2(0x0003_0002, None)], vec![apply(vec![out(9)])])
        .flow(1, 1, vec![Oxm::Reg2(0x0003_ffff, None)], vec![apply(vec![out(8)])])
        .state();
    let leaves = |down: &[u32]| {
        let down: BTreeSet<Endpoint> = down.iter().map(|port| Endpoint { port: PortNo(*port), ..AT }).collect();
        let outputs = walk(&state, AT, &down, frame(Network::Unknown));
        let port = |output| if let Output::Port(port, _) = output { port.0 } else { 0 };
        outputs.into_iter().map(port).collect::<Vec<_>>()
    };
    assert_eq!(leaves(&[]), [2, 9]);
    assert_eq!(leaves(&[2]), [3, 8]);
    assert_eq!(leaves(&[2, 3]), [] as [u32; 0]);
}

/// It is as if there were room for what is learnt; the frame itself doesn't find it.
#[test]
fn what_is_learnt_is_told_in_a_register_and_registers_are_loaded_bit_by_bit() {
    let register = FieldId::named("reg1").expect("a register");
    let learn = Learn {
        idle_timeout: 0,
        hard_timeout: 0,
        priority: 1,
        cookie: Cookie(0),
        flags: LearnFlags::WRITE_RESULT,
        table: TableId(2),
        fin_idle_timeout: 0,
        fin_hard_timeout: 0,
        specs: LearnSpecs(Vec::new()),
    };
    let result = Some(LearnResult { bit: 15, field: register });
    let learn = Action::LimitedLearn(LimitedLearn { learn, limit: 1, result });
    let range = BitRange::new(4, 4).expect("bits");
    let load = Action::RegLoad { range, dst: register, value: 0x5 };
    for (actions, wanted) in [(vec![learn.clone(), load.clone()], 0x8050), (vec![load], 0x50), (vec![learn], 0x8000)] {
        let tables = Tables::default()
            .flow(0, 1, vec![], vec![apply(actions), Instruction::GotoTable(TableId(1))])
            .flow(1, 1, vec![Oxm::Reg1(wanted, None)], vec![apply(vec![out(2)])]);
        assert_eq!(ports(&tables.state(), &frame(Network::Unknown)), [2]);
    }
}

#[test]
fn output_to_the_port_that_it_came_by_needs_saying_so() {
    let state = |port| Tables::default().flow(0, 1, vec![], vec![apply(vec![Action::output(port)])]).state();
    assert_eq!(ports(&state(AT.port), &frame(Network::Unknown)), [0; 0]);
    assert_eq!(ports(&state(PortNo::IN_PORT), &frame(Network::Unknown)), [AT.port.0]);
}

/// Which of so many links a frame takes.
fn link(frame: &Frame, links: u16) -> u32 {
    let multipath = Multipath {
        fields: HashFields::SymmetricL3l4Udp,
        basis: 0,
        algorithm: MultipathAlgorithm::Hrw,
        max_link: links - 1,
        argument: 0,
        range: BitRange::new(8, 8).unwrap(),
        dst: FieldId::named("reg0").unwrap(),
    };
    let before = Action::SetField(Oxm::Reg0(0xffff_ffff, None));
    let on = Instruction::GotoTable(TableId(1));
    let mut tables = Tables::default().flow(0, 1, vec![], vec![apply(vec![before, Action::Multipath(multipath)]), on]);
    for link in 0..links {
        // The bits around the range stay as they are.
        let value = 0xffff_00ff | u32::from(link) << 8;
        tables = tables.flow(1, 1, vec![Oxm::Reg0(value, None)], vec![apply(vec![out(100 + u32::from(link))])]);
    }
    let told = ports(&tables.state(), frame);
    assert_eq!(told.len(), 1, "{frame:?} took {told:?} of {links}");
    told[0] - 100
}

#[test]
fn both_directions_take_the_same_link_and_connections_are_spread() {
    let both = |network: Network, back: Network| {
        (frame(network), Frame { destination: MACS[0], source: MACS[1], ..frame(back) })
    };
    let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let (a6, b6) = (a.to_ipv6_mapped(), b.to_ipv6_mapped());
    let mut taken: BTreeMap<u32, u32> = BTreeMap::new();
    for port in 0..300 {
        let there = Transport::Ports { source: 40_000 + port, destination: 80, flags: 0 };
        let back = Transport::Ports { source: 80, destination: 40_000 + port, flags: 0 };
        let v4 = |source, destination, transport| Network::Ipv4 { source, destination, protocol: 6, transport };
        let v6 = |source, destination, transport| Network::Ipv6 { source, destination, protocol: 17, transport };
        let pairs = [both(v4(a, b, there), v4(b, a, back)), both(v6(a6, b6, there), v6(b6, a6, back))];
        for (there, back) in pairs {
            assert_eq!(link(&there, 3), link(&back, 3), "{there:?}");
        }
        *taken.entry(link(&both(v4(a, b, there), v4(b, a, back)).0, 3)).or_default() += 1;
    }
    assert!(taken.len() == 3 && taken.values().all(|times| *times > 50), "{taken:?}");
    let (there, back) = both(Network::Unknown, Network::Unknown);
    assert_eq!(link(&there, 200), link(&back, 200));
    let hosts: BTreeSet<u32> =
        (0..50).map(|host| link(&Frame { source: MacAddr([2, 0, 0, 0, 1, host]), ..there.clone() }, 3)).collect();
    assert_eq!(hosts.len(), 3, "without IP, addresses of hosts spread");
}

#[test]
fn all_that_happens_is_told_in_order() {
    let bucket = Bucket::new(vec![out(2)]);
    let group = Action::Group { group: GroupId(1) };
    let copy = Action::metered_copy(MeterId(3));
    let on = Instruction::GotoTable(TableId(4));
    let state = Tables::default()
        .flow(0, 7, vec![], vec![Instruction::Meter(MeterId(5)), apply(vec![copy, group]), on])
        .group(1, GroupType::All, vec![bucket])
        .state();
    let mut told = Vec::new();
    let sent = frame(Network::Unknown);
    observe(&state, AT, &BTreeSet::new(), sent.clone(), |event| told.push(event));
    let hit = state[&Owner::FABRIC].flows.iter().next();
    let expected = [
        Event::Table { table: TableId(0), hit },
        Event::Meter(MeterId(5)),
        Event::Output(Output::Controller(MeterId(3), TableId(0))),
        Event::Bucket { group: GroupId(1), bucket: 0 },
        Event::Output(Output::Port(PortNo(2), sent)),
        Event::Table { table: TableId(4), hit: None },
    ];
    assert_eq!(told, expected);
}

#[test]
fn tables_and_groups_that_lead_to_each_other_come_to_an_end() {
    let told = |tables: Tables| {
        let (state, mut bounds, mut steps) = (tables.state(), 0, 0);
        observe(&state, AT, &BTreeSet::new(), frame(Network::Unknown), |event| match event {
            Event::Bound => bounds += 1,
            _ => steps += 1,
        });
        (bounds, steps)
    };
    let itself = vec![Action::Clone(Nested(vec![Action::Group { group: GroupId(1) }]))];
    let buckets = vec![Bucket::new(itself.clone()), Bucket::new(itself.clone())];
    let (bounds, steps) =
        told(Tables::default().flow(0, 1, vec![], vec![apply(itself)]).group(1, GroupType::All, buckets));
    assert!(bounds == 1 && steps < 200, "deep: {bounds} after {steps}");
    let doubling = (0..40).fold(Tables::default(), |tables, table| {
        tables.flow(table, 1, vec![], vec![apply(vec![resubmit(table + 1), resubmit(table + 1)])])
    });
    let (bounds, steps) = told(doubling);
    assert!(bounds == 1 && steps == 4095, "wide: {bounds} after {steps}");
}

/// A packet that is said to have come in by another port is sent out of the one that it came in by, and resubmission may lead
/// back, but not for ever.
#[test]
fn a_packet_goes_back_as_if_it_came_in_by_another_port() {
    let sixteen = BitRange::new(0, 16).expect("bits of a port");
    let by = |port| Action::RegLoad { range: sixteen, dst: FieldId::IN_PORT_16, value: port };
    let state = Tables::default()
        .flow(0, 1, vec![], vec![apply(vec![by(7), resubmit(3)])])
        .flow(3, 1, vec![Oxm::InPort(PortNo(7), None)], vec![apply(vec![out(7), out(1), by(8), resubmit(2)])])
        .flow(2, 1, vec![Oxm::InPort(PortNo(8), None)], vec![apply(vec![out(2)])])
        .state();
    let sent = frame(Network::Unknown);
    let ports = [1, 2].map(|port| Output::Port(PortNo(port), sent.clone()));
    assert_eq!(walk(&state, AT, &BTreeSet::new(), sent), ports);
    let circle = Tables::default()
        .flow(0, 1, vec![], vec![Instruction::GotoTable(TableId(5))])
        .flow(5, 1, vec![], vec![apply(vec![resubmit(4)])])
        .flow(4, 1, vec![], vec![Instruction::GotoTable(TableId(5))])
        .state();
    let mut told = Vec::new();
    observe(&circle, AT, &BTreeSet::new(), frame(Network::Unknown), |event| told.push(event));
    assert!(told.last() == Some(&Event::Bound) && told.len() < 200, "{}", told.len());
}
