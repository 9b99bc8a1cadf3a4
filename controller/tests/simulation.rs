//! Goal: whatever order things happen in, and whatever breaks, no frame reaches another tenant or loops; and when all is
//! well again, the fabric converges and everybody is reached exactly once. Method: the real core against simulated
//! bridges; a seed draws the fabric, the order of events, and the faults.

mod sim;

use std::collections::BTreeMap;
use std::time::Duration;

use apps::desired::FlowKey;
use apps::policy::{Policy, Source, load};
use apps::view::{Carrier, Endpoint};
use openflow::matching::Match;
use openflow::types::{DatapathId, MacAddr, PortNo, TableId};

use sim::{Draw, UNKNOWN, World, frame};

fn seeds() -> u64 {
    std::env::var("ESPALIER_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(150)
}

fn policy(text: &str) -> Policy {
    load(&[Source { name: "drawn.toml".into(), text: text.to_owned() }]).expect("a sound policy").policy
}

const GREEN_ORANGE: &str = r#"
version = 1
[[tenant]]
name = "green"
key = 100
ports = [{ bridge = "*", port = "green-*" }]
[[tenant]]
name = "orange"
key = 200
ports = [{ bridge = "*", port = "orange-*" }]
"#;

fn mac(place: Endpoint) -> MacAddr {
    MacAddr([2, 0, 0, 0, place.bridge.0 as u8, place.port.0 as u8 % 4])
}

fn draw_world(seed: u64) -> World {
    let mut draw = Draw(seed);
    let mut world = World::new(seed ^ 0x5eed, policy(GREEN_ORANGE));
    let bridges = 2 + draw.below(4) as u64;
    for dpid in 1..=bridges {
        let all = ["stray", "green-1", "orange-1", "green-2"];
        let ports: Vec<&str> = all.into_iter().filter(|name| *name == "stray" || draw.below(4) > 0).collect();
        world.add_bridge(dpid, &ports);
    }
    for a in 1..=bridges {
        for b in a + 1..=bridges {
            if b == a + 1 || draw.below(2) == 0 {
                let carrier = [Carrier::Tunnel, Carrier::Vlan, Carrier::Dedicated(100), Carrier::Dedicated(200)];
                world.add_wire(a, b, carrier[draw.below(4)]);
                if draw.below(3) > 0 {
                    world.add_wire(a, b, Carrier::Tunnel);
                }
            }
        }
    }
    world
}

fn check_safety(world: &World, what: &str) {
    let ports = world.edge_ports();
    let owners: BTreeMap<Endpoint, Option<String>> = ports.iter().cloned().collect();
    for (from, owner) in &ports {
        let known = ports.iter().map(|(place, _)| mac(*place));
        for destination in known.chain([MacAddr::BROADCAST, UNKNOWN]) {
            let journey = world.follow(*from, &frame(mac(*from), destination));
            for place in journey.copies.keys() {
                assert!(
                    owner.is_some() && owners[place] == *owner,
                    "{what}: leak from {from} to {place}\n{}",
                    tail(world)
                );
            }
            let twice = journey.passes.iter().find(|(_, times)| **times > 1);
            assert_eq!(twice, None, "{what}: loop from {from} to {destination}\n{}", tail(world));
            let copies = journey.copies.iter().find(|(_, copies)| **copies > 1);
            assert_eq!(copies, None, "{what}: {destination} from {from} came more than once\n{}", tail(world));
        }
    }
}

fn tail(world: &World) -> String {
    world.log[world.log.len().saturating_sub(60)..].join("\n")
}

fn disturb(world: &mut World) -> String {
    let dpids: Vec<DatapathId> = world.bridges.keys().copied().collect();
    let dpid = dpids[world.draw.below(dpids.len())];
    match world.draw.below(11) {
        0 => {
            world.disconnect(dpid);
            format!("{dpid} loses its channel")
        }
        1 | 2 => {
            world.connect(dpid);
            format!("{dpid} connects")
        }
        3 => {
            let ends: Vec<Endpoint> = world.wires.keys().copied().collect();
            let end = ends[world.draw.below(ends.len())];
            if !world.cut.remove(&end) {
                world.cut.insert(end);
            }
            format!("the wire at {end} is cut or mended")
        }
        4 => {
            let ends: Vec<Endpoint> = world.wires.keys().copied().collect();
            let end = ends[world.draw.below(ends.len())];
            let up = world.cut.contains(&end);
            world.set_port_up(end, up);
            format!("{end} goes {}", if up { "up" } else { "down" })
        }
        5 => {
            // The same ports in other networks, or in none.
            let text = match world.draw.below(3) {
                0 => GREEN_ORANGE.replace("key = 100", "key = 300\nunknown_unicast = \"drop\""),
                1 => GREEN_ORANGE.replace("orange-*", "orange-9"),
                _ => GREEN_ORANGE.to_owned(),
            };
            world.set_policy(policy(&text));
            "another policy comes into force".to_owned()
        }
        6 | 7 => {
            if !world.muted.remove(&dpid) {
                world.muted.insert(dpid);
            }
            let pause = Duration::from_millis(world.draw.below(1500) as u64);
            world.run(pause);
            format!("the channel of {dpid} carries nothing, or again something")
        }
        8 => {
            world.empty(dpid);
            format!("{dpid} loses its tables")
        }
        _ => {
            let ports = world.edge_ports();
            let (place, _) = ports[world.draw.below(ports.len())].clone();
            let other = ports[world.draw.below(ports.len())].0;
            // Sometimes with another host's address: it moves.
            let source = if world.draw.below(4) == 0 { mac(other) } else { mac(place) };
            world.host_sends(place, source);
            format!("{place} sends from {source}")
        }
    }
}

fn heal(world: &mut World) {
    world.set_policy(policy(GREEN_ORANGE));
    world.muted.clear();
    for end in world.wires.keys().copied().collect::<Vec<_>>() {
        world.set_port_up(end, true);
    }
    for dpid in world.bridges.keys().copied().collect::<Vec<_>>() {
        world.connect(dpid);
    }
    for _ in 0..400 {
        world.run(Duration::from_millis(100));
        if world.bridges.values().any(|bridge| bridge.session.is_none()) {
            for dpid in world.bridges.keys().copied().collect::<Vec<_>>() {
                world.connect(dpid);
            }
        }
        let status = world.snapshot().status;
        if status.converged && status.links.up * 2 == world.wires.len() {
            for told in world.snapshot().bridges {
                let bridge = &world.bridges[&told.dpid.parse().unwrap()];
                let flows: usize = bridge.state.values().map(|section| section.flows.len()).sum();
                assert_eq!(
                    flows,
                    told.installed.flows,
                    "{}: what it holds isn't what it is said to\n{}",
                    told.name,
                    tail(world)
                );
            }
            return;
        }
    }
    panic!("doesn't converge: {:#?}\n{}", world.snapshot().status, tail(world));
}

/// Every port of a tenant gets a broadcast of every other one exactly once, as far as links lead there.
fn check_delivery(world: &World, what: &str) {
    let ports = world.edge_ports();
    let parts = |tenant: &str| world.snapshot().tenants.into_iter().find(|t| t.name == tenant).unwrap().tree;
    for (from, owner) in ports.iter().filter(|(_, owner)| owner.is_some()) {
        let owner = owner.clone().unwrap();
        let journey = world.follow(*from, &frame(mac(*from), MacAddr::BROADCAST));
        let others: Vec<Endpoint> = ports
            .iter()
            .filter(|(place, tenant)| place != from && *tenant == Some(owner.clone()))
            .map(|(p, _)| *p)
            .collect();
        // All of a tenant's links lead everywhere unless they are the other tenant's.
        let usable = |carrier: &Carrier| match carrier {
            Carrier::Dedicated(key) => *key == if owner == "green" { 100 } else { 200 },
            _ => true,
        };
        let mut reached = vec![from.bridge];
        let mut at = 0;
        while let Some(bridge) = reached.get(at).copied() {
            at += 1;
            for (end, (there, carrier)) in world.open_wires() {
                if end.bridge == bridge && usable(&carrier) && !reached.contains(&there.bridge) {
                    reached.push(there.bridge);
                }
            }
        }
        let expected: BTreeMap<Endpoint, usize> =
            others.into_iter().filter(|place| reached.contains(&place.bridge)).map(|place| (place, 1)).collect();
        assert_eq!(journey.copies, expected, "{what}: broadcast of {from}; tree {:?}", parts(&owner));
        assert!(!journey.altered, "{what}: broadcast of {from} is altered");
    }
}

#[test]
fn nothing_leaks_or_loops_whatever_breaks_and_all_heals() {
    for seed in 0..seeds() {
        let mut world = draw_world(seed);
        for dpid in world.bridges.keys().copied().collect::<Vec<_>>() {
            world.connect(dpid);
        }
        for fault in 0..12 {
            for _ in 0..world.draw.below(120) {
                world.step();
                if world.draw.below(40) == 0 {
                    check_safety(&world, &format!("seed {seed}, after {fault} faults"));
                }
            }
            let what = disturb(&mut world);
            world.log.push(format!("FAULT {what}"));
        }
        heal(&mut world);
        check_safety(&world, &format!("seed {seed}, healed"));
        check_delivery(&world, &format!("seed {seed}, healed"));
    }
}

#[test]
fn a_restarted_controller_changes_nothing_when_nothing_changed() {
    for seed in 0..seeds() {
        let mut world = draw_world(seed);
        heal(&mut world);
        for (place, owner) in world.edge_ports() {
            if owner.is_some() {
                world.host_sends(place, mac(place));
            }
        }
        world.run(Duration::from_secs(1));
        let (states, changes): (Vec<_>, Vec<_>) =
            world.bridges.values().map(|bridge| (bridge.state.clone(), bridge.changes)).unzip();
        world.restart_core();
        for dpid in world.bridges.keys().copied().collect::<Vec<_>>() {
            // They come back one after the other.
            let pause = Duration::from_millis(world.draw.below(1500) as u64);
            world.run(pause);
            world.connect(dpid);
        }
        heal(&mut world);
        world.run(Duration::from_secs(12));
        for (bridge, (state, changes)) in world.bridges.values().zip(states.iter().zip(changes)) {
            assert_eq!(bridge.changes, changes, "seed {seed}: {}\n{}", bridge.dpid, tail(&world));
            assert_eq!(&bridge.state, state, "seed {seed}: {}", bridge.dpid);
        }
        assert!(world.snapshot().status.hosts > 0 || world.edge_ports().iter().all(|(_, owner)| owner.is_none()));
    }
}

#[test]
fn foreign_entries_are_removed() {
    let mut world = draw_world(3);
    let dpid = DatapathId(1);
    let foreign = FlowKey { table: TableId(0), priority: 9, matching: Match::default() };
    let is_left =
        |world: &World| world.bridges[&dpid].state.values().any(|section| section.flows.contains_key(&foreign));
    world.bridges.get_mut(&dpid).unwrap().add_foreign(foreign.clone());
    heal(&mut world);
    assert!(!is_left(&world));
    // The bridge can't tell what others change: it is asked.
    world.bridges.get_mut(&dpid).unwrap().add_foreign(foreign.clone());
    world.run(Duration::from_millis(2000));
    assert!(!is_left(&world));
    heal(&mut world);
}

#[test]
fn a_silent_cut_is_found_within_a_second_and_traffic_takes_another_way() {
    let mut world = World::new(1, policy(GREEN_ORANGE));
    for dpid in 1..=3 {
        world.add_bridge(dpid, &["green-1"]);
    }
    for (a, b) in [(1, 2), (2, 3), (1, 3)] {
        world.add_wire(a, b, Carrier::Tunnel);
    }
    heal(&mut world);
    let ports = world.edge_ports();
    for (place, _) in &ports {
        world.host_sends(*place, mac(*place));
    }
    world.run(Duration::from_millis(500));
    let (from, to) = (ports[0].0, ports[1].0);
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
    let mut world = World::new(1, policy(GREEN_ORANGE));
    for dpid in 1..=4 {
        world.add_bridge(dpid, &["green-1"]);
    }
    for (a, b) in [(1, 2), (2, 3), (3, 4), (1, 4)] {
        world.add_wire(a, b, Carrier::Tunnel);
    }
    heal(&mut world);
    let ports: Vec<Endpoint> = world.edge_ports().into_iter().map(|(place, _)| place).collect();
    for place in &ports {
        world.host_sends(*place, mac(*place));
    }
    world.run(Duration::from_secs(1));
    for silent in 1..=4 {
        world.muted.insert(DatapathId(silent));
        world.run(Duration::from_secs(1));
        for (from, to) in ports.iter().flat_map(|from| ports.iter().map(move |to| (*from, *to))).filter(|(a, b)| a != b)
        {
            let unicast = world.follow(from, &frame(mac(from), mac(to)));
            assert_eq!(
                unicast.copies,
                BTreeMap::from([(to, 1)]),
                "{silent} is silent: {from} to {to}\n{}",
                tail(&world)
            );
            let flood = world.follow(from, &frame(mac(from), MacAddr::BROADCAST));
            assert_eq!(flood.copies.get(&to), Some(&1), "{silent} is silent: {from} to all\n{}", tail(&world));
        }
        world.muted.clear();
        heal(&mut world);
    }
}

/// A silent bridge goes on sending as it did, also through bridges where the tenant has no port.
#[test]
fn a_silent_bridge_keeps_its_ways_through_transit() {
    let mut world = World::new(1, policy(GREEN_ORANGE));
    for (dpid, ports) in [(1, &["green-1"][..]), (2, &["stray"]), (4, &["green-1"])] {
        world.add_bridge(dpid, ports);
    }
    world.add_wire(1, 2, Carrier::Tunnel);
    world.add_wire(2, 4, Carrier::Tunnel);
    heal(&mut world);
    let ends = [1, 4].map(|dpid| Endpoint { bridge: DatapathId(dpid), port: PortNo(1) });
    for place in ends {
        world.host_sends(place, mac(place));
    }
    world.run(Duration::from_secs(1));
    world.muted.insert(DatapathId(4));
    world.run(Duration::from_secs(2));
    for (from, to) in [(ends[0], ends[1]), (ends[1], ends[0])] {
        let journey = world.follow(from, &frame(mac(from), mac(to)));
        assert_eq!(journey.copies, BTreeMap::from([(to, 1)]), "{from} to {to}\n{}", tail(&world));
    }
}
