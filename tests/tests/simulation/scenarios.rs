//! Goal: what is promised for certain cases that seeds meet too seldom. Method: small fabrics, built by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use apps::desired::{Flow, FlowKey};
use apps::interpreter::Frame;
use apps::reconcile::same;
use apps::view::{Carrier, Endpoint};
use openflow::flow::{FlowModFlags, FlowRemovedReason};
use openflow::matching::Match;
use openflow::types::{Cookie, DatapathId, MacAddr, PortNo, TableId};

use crate::bridge::Kind;
use crate::fabric::services::packet;
use crate::world::World;

const GREEN: &str = r#"
version = 1
[fabric]
probe_interval = "200ms"
[[tenant]]
name = "green"
key = 100
ports = [{ bridge = "*", port = "green-*" }]
"#;

pub(crate) fn mac(place: Endpoint) -> MacAddr {
    MacAddr([2, 0, 0, 0, place.bridge.0 as u8, place.port.0 as u8])
}

pub(crate) fn frame(source: MacAddr, destination: MacAddr) -> Frame {
    Frame { destination, source, ethertype: 0x88b5, ..Frame::default() }
}

/// Bridges from 1 with these ports, and tunnels between some of them.
pub(crate) fn world(bridges: &[&str], tunnels: &[(u64, u64)]) -> World {
    let mut world = World::new(1, crate::policy(GREEN));
    for (dpid, port) in (1..).zip(bridges) {
        world.add_bridge(dpid, &[port]);
    }
    for (a, b) in tunnels {
        world.add_wire(*a, *b, Carrier::Tunnel);
    }
    world
}

/// All connect, and all links are found.
pub(crate) fn converge(world: &mut World) {
    for _ in 0..400 {
        let dpids: Vec<DatapathId> = world.bridges.keys().copied().collect();
        dpids.into_iter().for_each(|dpid| world.connect(dpid));
        world.run(Duration::from_millis(100));
        if world.is_quiet() && world.snapshot().status.links.up * 2 == world.wires.len() {
            return;
        }
    }
    panic!("doesn't converge: {:#?}\n{}", world.snapshot().status, world.tail());
}

pub(crate) fn tenants_ports(world: &World) -> Vec<Endpoint> {
    let ports = world.edge_ports().into_iter();
    ports.filter(|(_, name)| name.starts_with("green")).map(|(place, _)| place).collect()
}

/// What links carry is found while octets come late and in pieces, and no link goes down for it. One that carries nothing but
/// probes without a tag is told of, and so is who sends too long packets.
#[test]
fn what_links_carry_is_measured_and_takes_none_of_them_down() {
    let mut world = world(&["green-1", "green-1", "green-1", "green-1"], &[(1, 2)]);
    world.add_wire(2, 3, Carrier::Dedicated(100));
    world.add_wire(3, 4, Carrier::Vlan);
    let green = GREEN.replace("key = 100", "key = 100\nmtu = 1500");
    world.set_policy(crate::policy(&green));
    let ends: Vec<Endpoint> = world.wires.keys().copied().collect();
    // Of the first link one way carries less than the other.
    world.carries = ends.iter().copied().zip([1550, 1450, 1546, 1546]).collect();
    converge(&mut world);
    let mtus = |world: &World| world.snapshot().links.iter().map(|link| link.mtu).collect::<Vec<_>>();
    assert!(mtus(&world).contains(&None), "not all is known when links have just been found");
    world.run(Duration::from_secs(12));
    assert_eq!(mtus(&world), [Some(1450), Some(1546), Some(9000)]);
    let green = &world.snapshot().tenants[0];
    assert_eq!((green.mtu, green.mtu_in_chains), (Some(1450), None));
    let problems = world.snapshot().status.problems;
    assert!(matches!(problems.as_slice(), [one] if one.contains("carries only 1450")), "{problems:?}");
    assert!(!world.log.iter().any(|line| line.ends_with("is down")), "{}", world.tail());

    // Probes without a tag still pass the plain link, and what tenants send doesn't.
    world.carries.extend(ends[4..].iter().map(|end| (*end, 100)));
    world.run(Duration::from_secs(35));
    assert_eq!(mtus(&world), [Some(1450), Some(1546), Some(0)]);
    let problems = world.snapshot().status.problems;
    assert!(problems.iter().any(|it| it.contains("lets through no frames with a VLAN tag")), "{problems:?}");
    assert!(!world.log.iter().any(|line| line.ends_with("is down")), "{}", world.tail());
}

#[test]
fn what_others_change_is_put_right() {
    for (kind, within) in [(Kind::OpenVswitch, 200), (Kind::Plain, 2000)] {
        let mut world = world(&["green-1", "green-1"], &[(1, 2)]);
        let dpid = DatapathId(1);
        world.bridges.get_mut(&dpid).unwrap().kind = kind;
        let key = FlowKey { table: TableId(0), priority: 9, matching: Match::default() };
        let (cookie, flags) = (Cookie(0x77), FlowModFlags::empty());
        let foreign = Flow { cookie, idle_timeout: 0, flags, instructions: Vec::new(), hops: 0, origin: None };
        world.by_itself(dpid, |tables| tables.set(key.clone(), foreign.clone()));
        converge(&mut world);
        let wanted = world.bridges[&dpid].tables.section.clone();
        assert!(!wanted.flows.contains_key(&key), "what was there before");
        world.by_itself(dpid, |tables| tables.set(key.clone(), foreign.clone()));
        world.run(Duration::from_millis(within));
        assert!(world.bridges[&dpid].tables.section == wanted, "what came, {kind:?}\n{}", world.tail());
        let first = wanted.flows.keys().next().unwrap();
        world.by_itself(dpid, |tables| tables.remove(first, FlowRemovedReason::Delete));
        world.run(Duration::from_millis(within));
        assert!(world.bridges[&dpid].tables.section == wanted, "what went, {kind:?}\n{}", world.tail());
    }
}

/// Somebody undoes a change just when the bridge has made it, before it has acknowledged it.
#[test]
fn what_others_change_beside_us_is_put_right() {
    let mut world = world(&["green-1", "green-1"], &[(1, 2)]);
    let dpid = DatapathId(1);
    world.bridges.get_mut(&dpid).unwrap().kind = Kind::OpenVswitch;
    converge(&mut world);
    let place = tenants_ports(&world)[1];
    world.bridges.get_mut(&dpid).unwrap().undone = true;
    world.host_sends(place, mac(place));
    world.run(Duration::from_secs(2));
    let bridge = &world.bridges[&dpid];
    assert!(!bridge.undone, "somebody undid something");
    let wanted = &world.core.situation().tables[&dpid];
    assert!(same(&bridge.tables.read_back(), wanted), "{}", world.tail());
}

/// A bridge that was silent and is heard again is asked for its tables anew, on the same connection.
#[test]
fn a_monitor_outlives_a_silence() {
    let mut world = world(&["green-1", "green-1"], &[(1, 2)]);
    let dpid = DatapathId(1);
    world.bridges.get_mut(&dpid).unwrap().kind = Kind::OpenVswitch;
    converge(&mut world);
    world.muted.insert(dpid);
    world.run(Duration::from_secs(2));
    world.muted.clear();
    converge(&mut world);
    let wanted = world.bridges[&dpid].tables.section.clone();
    let first = wanted.flows.keys().next().unwrap();
    world.by_itself(dpid, |tables| tables.remove(first, FlowRemovedReason::Delete));
    world.run(Duration::from_millis(200));
    assert!(world.bridges[&dpid].tables.section == wanted, "{}", world.tail());
    let asked = world.bridges[&dpid].told_flows;
    world.run(Duration::from_secs(5));
    assert_eq!(world.bridges[&dpid].told_flows, asked, "what the monitor tells needn't be asked for");
}

/// It lives, as the channel's own questions show, but says nothing more. It is closed, so that it connects again.
#[test]
fn a_bridge_that_never_answers_a_barrier_is_given_up() {
    let mut world = world(&["green-1", "green-1"], &[(1, 2)]);
    let dpid = DatapathId(1);
    converge(&mut world);
    world.by_itself(dpid, |tables| tables.section = Arc::default());
    world.bridges.get_mut(&dpid).unwrap().loses_barriers = 1;
    world.muted.insert(dpid);
    world.run(Duration::from_millis(1500));
    world.muted.clear();
    let connected = |world: &World| world.snapshot().status.bridges.connected;
    assert_eq!(connected(&world), 2, "{}", world.tail());
    world.run(Duration::from_secs(6));
    assert_eq!(connected(&world), 1, "{}", world.tail());
    converge(&mut world);
}

/// While a link is drained, and when it is back, each broadcast arrives once, at whatever moment it is sent.
#[test]
fn a_drained_link_costs_no_broadcast() {
    for carrier in [Carrier::Tunnel, Carrier::Dedicated(100)] {
        let mut world = World::new(1, crate::policy(GREEN));
        (1..=4).for_each(|dpid| world.add_bridge(dpid, &["green-1"]));
        for (a, b) in [(1, 2), (2, 3), (3, 4), (1, 4), (1, 3)] {
            world.add_wire(a, b, carrier);
        }
        converge(&mut world);
        let ports = tenants_ports(&world);
        let drain = |bridge, port| {
            let drain = format!("probe_interval = \"200ms\"\ndrain = [{{ bridge = \"{bridge}\", port = \"{port}\" }}]");
            crate::policy(&GREEN.replace("probe_interval = \"200ms\"", &drain))
        };
        let (mut seen, mut versions) = (0, BTreeSet::new());
        for policy in [drain("b1", "link*"), crate::policy(GREEN), drain("b3", "link2"), drain("*", "link3")] {
            world.set_policy(policy);
            for _ in 0..400 {
                world.step();
                for from in &ports {
                    let told = world.follow(*from, &frame(mac(*from), MacAddr::BROADCAST));
                    let all = ports.iter().filter(|to| *to != from).map(|to| (*to, 1)).collect();
                    assert_eq!(told.copies, all, "{carrier}, from {from}\n{}", world.tail());
                    seen += 1;
                }
            }
            world.run(Duration::from_secs(1));
            versions.insert(world.core.situation().view.trees[&100].version);
        }
        assert!(seen > 6000 && versions.len() == 2, "{seen} {versions:?}");
    }
}

#[test]
fn a_silent_cut_is_found_within_a_second_and_traffic_takes_another_way() {
    let mut world = world(&["green-1"; 3], &[(1, 2), (2, 3), (1, 3)]);
    converge(&mut world);
    let ports = tenants_ports(&world);
    ports.iter().for_each(|place| world.host_sends(*place, mac(*place)));
    world.run(Duration::from_millis(500));
    let (from, to) = (ports[0], ports[1]);
    let direct = Endpoint { bridge: DatapathId(1), port: PortNo(2) };
    let way = |world: &World| world.follow(from, &frame(mac(from), mac(to)));
    assert_eq!(way(&world).passes, BTreeMap::from([(direct, 1)]), "the direct way");
    world.cut.insert(direct);
    world.run(Duration::from_millis(900));
    assert_eq!(way(&world).copies, BTreeMap::from([(to, 1)]));
    assert_eq!(way(&world).passes.len(), 2, "the way round");
    world.cut.clear();
    world.run(Duration::from_secs(1));
    assert_eq!(way(&world).passes, BTreeMap::from([(direct, 1)]), "the direct way again");
}

/// A channel that carries nothing looks like a dead host. Nobody sends through that bridge any more, but its own hosts stay
/// reachable for all, floods included; and when the channel is back, nothing has to be changed.
#[test]
fn a_silent_channel_leaves_the_bridges_hosts_reachable() {
    let mut world = world(&["green-1"; 4], &[(1, 2), (2, 3), (3, 4), (1, 4)]);
    converge(&mut world);
    let ports = tenants_ports(&world);
    ports.iter().for_each(|place| world.host_sends(*place, mac(*place)));
    world.run(Duration::from_secs(1));
    for silent in 1..=4 {
        world.muted.insert(DatapathId(silent));
        world.run(Duration::from_secs(1));
        for (from, to) in ports.iter().flat_map(|from| ports.iter().map(move |to| (*from, *to))).filter(|(a, b)| a != b)
        {
            let what = || format!("{silent} is silent: {from} to {to}\n{}", world.tail());
            let unicast = world.follow(from, &frame(mac(from), mac(to)));
            assert_eq!(unicast.copies, BTreeMap::from([(to, 1)]), "{}", what());
            let flood = world.follow(from, &frame(mac(from), MacAddr::BROADCAST));
            assert_eq!(flood.copies.get(&to), Some(&1), "{}", what());
        }
        world.muted.clear();
        converge(&mut world);
    }
}

/// A silent bridge goes on sending as it did, also through bridges where the tenant has no port.
#[test]
fn a_silent_bridge_keeps_its_ways_through_transit() {
    let mut world = world(&["green-1", "stray", "green-1"], &[(1, 2), (2, 3)]);
    converge(&mut world);
    let ends = [1, 3].map(|dpid| Endpoint { bridge: DatapathId(dpid), port: PortNo(1) });
    ends.iter().for_each(|place| world.host_sends(*place, mac(*place)));
    world.run(Duration::from_secs(1));
    world.muted.insert(DatapathId(3));
    world.run(Duration::from_secs(2));
    for (from, to) in [(ends[0], ends[1]), (ends[1], ends[0])] {
        let journey = world.follow(from, &frame(mac(from), mac(to)));
        assert_eq!(journey.copies, BTreeMap::from([(to, 1)]), "{from} to {to}\n{}", world.tail());
    }
}

/// Where there are several links between two bridges, each may send by another one.
const PARALLEL: [(u64, u64); 6] = [(1, 2), (1, 2), (1, 2), (2, 3), (2, 3), (1, 3)];

/// Frames for an address, sent from all ports of the tenant; where they arrive.
fn sent_for(world: &World, address: MacAddr) -> BTreeMap<Endpoint, BTreeSet<Endpoint>> {
    let send = |from: &Endpoint| {
        let sent = frame(MacAddr([2, 0, 0, 0, 0xee, 0xee]), address);
        assert_eq!(world.loops(*from, &sent), None, "from {from}\n{}", world.tail());
        (*from, world.follow(*from, &sent).copies.into_keys().collect())
    };
    tenants_ports(world).iter().map(send).collect()
}

/// A host moves to a bridge that says nothing more at some moment from then on. It may have been told of the host or not:
/// frames for it go in no circle, and reach it as soon as the controller knows where it is.
#[test]
fn a_host_that_moves_to_a_silent_bridge_is_reached_and_makes_no_circle() {
    let (mut directly, mut flooded) = (0, 0);
    for moment in 0..60 {
        let mut world = world(&["green-1"; 3], &PARALLEL);
        converge(&mut world);
        let [from, to, _] = tenants_ports(&world)[..] else { panic!("three ports") };
        world.host_sends(from, mac(from));
        world.run(Duration::from_secs(2));
        world.host_sends(to, mac(from));
        (0..moment).for_each(|_| world.step());
        world.muted.insert(to.bridge);
        let known = |world: &World| world.core.situation().hosts["green"][&mac(from)].place == to;
        for _ in 0..400 {
            world.step();
            sent_for(&world, mac(from));
        }
        world.run(Duration::from_secs(2));
        if known(&world) {
            let others = sent_for(&world, mac(from)).into_iter().filter(|(place, _)| place.bridge != to.bridge);
            for (place, reached) in others {
                assert!(reached.contains(&to), "{place}, {moment}\n{}", world.tail());
                *(if reached.len() == 1 { &mut directly } else { &mut flooded }) += 1;
            }
        }
        world.muted.clear();
        converge(&mut world);
        if known(&world) {
            let reached = BTreeSet::from([to]);
            let all = sent_for(&world, mac(from));
            assert!(all.iter().all(|(place, there)| *place == to || *there == reached), "{all:?}\n{}", world.tail());
        }
    }
    assert!(directly > 5 && flooded > 5, "{directly} {flooded}");
}

/// The same where the bridge answers, but has no room for the host's entries.
#[test]
fn a_host_that_moves_to_a_full_bridge_is_reached_and_makes_no_circle() {
    let mut world = world(&["green-1"; 3], &PARALLEL);
    converge(&mut world);
    let [from, to, _] = tenants_ports(&world)[..] else { panic!("three ports") };
    world.host_sends(from, mac(from));
    world.run(Duration::from_secs(2));
    let tables = &mut world.bridges.get_mut(&to.bridge).unwrap().tables;
    // The way to the host is replaced where it stands; that it is known takes room.
    tables.room = tables.flows().len();
    world.host_sends(to, mac(from));
    for _ in 0..1000 {
        world.step();
        sent_for(&world, mac(from));
    }
    assert!(
        world.log.iter().any(|line| line.contains("tenant green gets along without this bridge")),
        "{}",
        world.tail()
    );
    let reached = |world: &World| sent_for(world, mac(from)).into_iter().filter(|(place, _)| place.bridge != to.bridge);
    assert!(reached(&world).all(|(_, places)| places.contains(&to)), "{}", world.tail());
    world.bridges.get_mut(&to.bridge).unwrap().tables.room = usize::MAX;
    world.run(Duration::from_secs(65));
    assert!(reached(&world).all(|(_, places)| places == BTreeSet::from([to])), "{}", world.tail());
}

/// A policy pins an address to a port of a bridge that says nothing, and moves a function there.
#[test]
fn what_a_policy_moves_to_a_silent_bridge_makes_no_circle() {
    const PINNED: MacAddr = MacAddr([2, 0, 0, 0, 0xaa, 0xaa]);
    let policy = |bridge: &str| {
        let pinned = format!("{{ bridge = \"{bridge}\", port = \"pinned\", mac = \"{PINNED}\" }}");
        let text = GREEN.replace("ports = [", &format!("ports = [{pinned}, "));
        let function = format!(
            "[[tenant.function]]\nname = \"f\"\nkind = \"wire\"\non_failure = \"drop\"\ninstances = \
             [{{ name = \"i\", bridge = \"{bridge}\", ingress = \"in\", egress = \"out\" }}]\n\
             [[tenant.chain]]\nname = \"c\"\nthrough = [\"f\"]\nmatch = {{ protocol = \"tcp\" }}\n"
        );
        crate::policy(&(text + &function))
    };
    let mut world = world(&["green-1"; 3], &PARALLEL);
    for (_, bridge) in world.bridges.iter_mut().filter(|(dpid, _)| dpid.0 < 3) {
        (10..).zip(["pinned", "in", "out"]).for_each(|(port, name)| bridge.add_port(PortNo(port), name));
    }
    world.set_policy(policy("b1"));
    converge(&mut world);
    let ports = tenants_ports(&world);
    ports.iter().for_each(|place| world.host_sends(*place, mac(*place)));
    world.run(Duration::from_secs(1));
    // Where frames for the address, and packets that have to pass the function, end.
    let ends = |world: &World, bridge| {
        let tcp = packet(mac(ports[0]), mac(ports[2]), 6, (1, 2));
        assert_eq!(world.loops(ports[0], &tcp), None, "{}", world.tail());
        let passes: BTreeSet<Endpoint> = world.follow(ports[0], &tcp).copies.into_keys().collect();
        let pinned = Endpoint { bridge, port: PortNo(10) };
        let reached = sent_for(world, PINNED).into_iter().all(|(_, places)| places.contains(&pinned));
        (reached, passes == BTreeSet::from([Endpoint { bridge, port: PortNo(11) }]))
    };
    let (first, silent) = (DatapathId(1), DatapathId(2));
    assert_eq!(ends(&world, first), (true, true), "{}", world.tail());
    world.muted.insert(silent);
    world.run(Duration::from_secs(2));
    world.set_policy(policy("b2"));
    for _ in 0..400 {
        world.step();
        ends(&world, silent);
    }
    let tcp = packet(mac(ports[0]), mac(ports[2]), 6, (1, 2));
    assert_eq!(
        world.follow(ports[0], &tcp).passes,
        BTreeMap::new(),
        "nobody sends to a function that isn't known there"
    );
    world.muted.clear();
    converge(&mut world);
    assert_eq!(ends(&world, silent), (true, true), "{}", world.tail());
}

/// Ports of functions that a packet goes in by, and where it arrives, if it does.
fn passed(world: &World, from: Endpoint, sent: &Frame) -> Vec<Endpoint> {
    let (mut at, mut passed) = (from, Vec::new());
    while let Some((place, _)) = world.follow(at, sent).copies.pop_first() {
        assert!(!passed.contains(&place), "a circle through {place}: {passed:?}\n{}", world.tail());
        passed.push(place);
        let Some(out) = world.cables.get(&place) else { break };
        at = *out;
    }
    passed
}

/// A function at a bridge that can't be told anything is used as long as what comes out of it goes on as it should.
#[test]
fn a_function_at_a_silent_bridge_is_used_as_long_as_it_leads_on() {
    let policy = |chains: &[(&str, &str)]| {
        let functions = (1..=2).map(|number| {
            format!(
                "[[tenant.function]]\nname = \"f{number}\"\nkind = \"wire\"\non_failure = \"drop\"\ninstances = \
                 [{{ name = \"i\", bridge = \"b{number}\", ingress = \"in\", egress = \"out\" }}]\n"
            )
        });
        let chains = chains.iter().map(|(protocol, through)| {
            format!(
                "[[tenant.chain]]\nname = \"{protocol}\"\nthrough = [{through}]\nmatch = {{ protocol = \"{protocol}\" }}\n"
            )
        });
        crate::policy(&(GREEN.to_owned() + &functions.chain(chains).collect::<String>()))
    };
    let mut world = world(&["green-1"; 3], &[(1, 2), (2, 3), (1, 3)]);
    let at = |bridge, port| Endpoint { bridge: DatapathId(bridge), port: PortNo(port) };
    for number in 1..=2 {
        let bridge = world.bridges.get_mut(&DatapathId(number)).unwrap();
        (10..).zip(["in", "out"]).for_each(|(port, name)| bridge.add_port(PortNo(port), name));
        world.cables.extend([(at(number, 10), at(number, 11)), (at(number, 11), at(number, 10))]);
    }
    let (then, back) = ("\"f2\", \"f1\"", "\"f1\", \"f2\"");
    world.set_policy(policy(&[("tcp", then)]));
    converge(&mut world);
    let ports = tenants_ports(&world);
    ports.iter().for_each(|place| world.host_sends(*place, mac(*place)));
    world.run(Duration::from_secs(2));
    let tcp = packet(mac(ports[0]), mac(ports[2]), 6, (1, 2));
    let way = |world: &World| passed(world, ports[0], &tcp);
    assert_eq!(way(&world), [at(2, 10), at(1, 10), ports[2]]);
    world.muted.insert(DatapathId(2));
    world.run(Duration::from_secs(2));
    assert_eq!(way(&world), [at(2, 10), at(1, 10), ports[2]], "as before\n{}", world.tail());
    for (chains, expected) in [
        (&[("tcp", then), ("udp", then)][..], &[at(2, 10), at(1, 10), ports[2]][..]),
        (&[("tcp", back)], &[at(1, 10)]),
        (&[("tcp", then)], &[at(2, 10), at(1, 10), ports[2]]),
        (&[("tcp", "\"f2\"")], &[]),
    ] {
        world.set_policy(policy(chains));
        for _ in 0..400 {
            world.step();
            way(&world);
        }
        assert_eq!(way(&world), expected, "{chains:?}\n{}", world.tail());
        let problems = world.snapshot().status.problems;
        let unused = problems.iter().any(|text| text.contains("i of function f2") && text.contains("isn't used"));
        assert_eq!(unused, !expected.contains(&at(2, 10)), "{problems:?}");
    }
    world.set_policy(policy(&[("tcp", back)]));
    world.muted.clear();
    converge(&mut world);
    assert_eq!(way(&world), [at(1, 10), at(2, 10), ports[2]], "{}", world.tail());
}
