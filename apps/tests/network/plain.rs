//! Goal: on any fabric, in any state and between any two states, no frame reaches another tenant or passes a link twice;
//! and once all is in place, everybody who should get a frame gets it exactly once, over the shortest way if its
//! destination is known. Method: fabrics, tenants and changes are drawn from seeds, the compiled tables are walked frame
//! by frame, and the outcome is compared with what follows from the drawing alone.

use std::collections::{BTreeMap, BTreeSet};

use apps::desired::BridgeState;
use apps::policy::{LinkLocal, UnknownUnicast};
use apps::reconcile::{self, Plan, Style};
use apps::view::{Endpoint, Grown};
use bytes::BytesMut;
use openflow::message::Message;
use openflow::types::{DatapathId, MacAddr, Xid};

use crate::world::{Draw, Fabric, UNKNOWN, frame};
use crate::{advance, plans, seeds};

#[test]
fn everybody_gets_what_they_should_exactly_once_and_nobody_else() {
    for seed in 0..seeds() {
        let mut draw = Draw::new(seed);
        let fabric = Fabric::draw(&mut draw);
        let states = fabric.desired().bridges;
        for (from, tenant) in fabric.tenant_ports() {
            let reachable = fabric.reachable(from, &tenant);
            let everybody: BTreeMap<Endpoint, usize> = reachable.iter().map(|place| (*place, 1)).collect();
            for (kind, destination) in [("broadcast", MacAddr::BROADCAST), ("unknown", UNKNOWN)] {
                let sent = frame(destination, draw.below(3));
                let told = fabric.send(&states, from, &sent);
                let floods = kind == "broadcast" || fabric.unknown(&tenant) == UnknownUnicast::Flood;
                let expected = if floods { everybody.clone() } else { BTreeMap::new() };
                assert_eq!(told.copies, expected, "seed {seed}: {kind} from {from} of {tenant}");
                assert!(!told.altered, "seed {seed}: {kind} from {from} of {tenant} arrived changed");
            }
            for (last, passes) in [(0, true), (1, false), (2, true), (3, true), (0xe, true), (0xf, true)] {
                let sent = frame(MacAddr([0x01, 0x80, 0xc2, 0, 0, last]), draw.below(3));
                let told = fabric.send(&states, from, &sent);
                let passes = passes && fabric.link_local(&tenant) == LinkLocal::Pass;
                let expected = if passes { everybody.clone() } else { BTreeMap::new() };
                assert_eq!(told.copies, expected, "seed {seed}: link-local frame {last} from {from} of {tenant}");
            }
            for (mac, host) in fabric.hosts(&tenant) {
                let told = fabric.send(&states, from, &frame(mac, 0));
                let hops = fabric.distance(from.bridge, host.place.bridge, &tenant);
                let expected = match fabric.unknown(&tenant) {
                    _ if host.place == from => BTreeMap::new(),
                    _ if hops.is_some() => BTreeMap::from([(host.place, 1)]),
                    // In another part of the fabric: as good as unknown here.
                    UnknownUnicast::Flood => everybody.clone(),
                    UnknownUnicast::Drop => BTreeMap::new(),
                };
                assert_eq!(told.copies, expected, "seed {seed}: to {mac} of {tenant} from {from}");
                if hops.is_some() && host.place != from {
                    assert_eq!(Some(told.passes.len()), hops, "seed {seed}: way to {mac} of {tenant} from {from}");
                }
            }
        }
    }
}

type Owners = BTreeMap<Endpoint, String>;

/// The address of the nearest bridge (IEEE 802.1AB §7.1).
const LLDP: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x0e]);

/// Sends frames of every kind from every port, listed or not, and holds the outcome against what may never happen.
fn check_safety(
    fabric: &Fabric,
    states: &BTreeMap<DatapathId, BridgeState>,
    owners: &Owners,
    draw: &mut Draw,
    what: &str,
) {
    let dead = [BTreeSet::new(), fabric.dead_ports(draw)];
    for from in fabric.all_ports() {
        let owner = owners.get(&from);
        let known = fabric.all_macs();
        let mut sent: Vec<_> = known
            .into_iter()
            .chain([MacAddr::BROADCAST, UNKNOWN])
            .map(|to| (to, draw.below(2), draw.below(3)))
            .collect();
        sent.push((LLDP, 0, 0));
        for (destination, dead_ports, tags) in sent {
            let told = fabric.send_without(states, &dead[dead_ports], from, &frame(destination, tags));
            for place in told.copies.keys() {
                assert!(owner.is_some() && owners.get(place) == owner, "{what}: leak from {from} to {place}");
            }
            let twice: BTreeSet<_> = told.passes.iter().filter(|(_, times)| **times > 1).collect();
            assert!(twice.is_empty(), "{what}: loop from {from} to {destination} over {twice:?}");
            let copies = told.copies.iter().find(|(_, copies)| **copies > 1);
            assert_eq!(copies, None, "{what}: from {from} to {destination} arrived more than once");
        }
    }
}

/// The ways that known unicast takes: from whom, to which address, and where it arrives.
type Ways = Vec<(Endpoint, MacAddr, Endpoint)>;

/// All ways of known unicast that arrive in a state.
fn ways(fabric: &Fabric, states: &BTreeMap<DatapathId, BridgeState>) -> Ways {
    let mut ways = Ways::new();
    for (from, tenant) in fabric.tenant_ports() {
        for (mac, host) in fabric.hosts(&tenant) {
            // What is flooded for want of an entry may be lost when trees change.
            let known = fabric.is_known(&states[&from.bridge], &tenant, mac);
            if known && arrives(fabric, states, &(from, mac, host.place)) {
                ways.push((from, mac, host.place));
            }
        }
    }
    ways
}

fn arrives(
    fabric: &Fabric,
    states: &BTreeMap<DatapathId, BridgeState>,
    (from, mac, to): &(Endpoint, MacAddr, Endpoint),
) -> bool {
    fabric.send(states, *from, &frame(*mac, 0)).copies.contains_key(to)
}

/// From whom broadcasts arrive where.
type Floods = BTreeSet<(Endpoint, Endpoint)>;

fn floods(fabric: &Fabric, states: &BTreeMap<DatapathId, BridgeState>) -> Floods {
    let arrive = |from| fabric.send(states, from, &frame(MacAddr::BROADCAST, 0)).copies.into_keys();
    let ports = fabric.tenant_ports().into_iter();
    ports.flat_map(|(from, _)| arrive(from).map(move |to| (from, to))).collect()
}

#[test]
fn no_state_on_the_way_leaks_or_loops() {
    let mut moved = 0;
    for seed in 0..seeds() {
        let mut draw = Draw::new(seed ^ 0x7a69_6e67);
        let mut fabric = Fabric::draw(&mut draw);
        let (mut states, trees) = fabric.wanted();
        fabric.view.trees = trees;
        for step in 0..4 {
            let grown = fabric.desired().trees;
            // While the old goes, ports are still whose they were; when the new comes, they are whose they will be.
            let before: Owners = fabric.tenant_ports().into_iter().collect();
            let change = fabric.change(&mut draw, &grown, &states);
            let after: Owners = fabric.tenant_ports().into_iter().collect();
            let what = |stage: &str| format!("seed {seed}, step {step} ({change}), {stage}");
            let (desired, trees) = fabric.wanted();
            let style = if before == after && !change.contains("policy") { Style::Gentle } else { Style::Strict };
            let plans = plans(&states, &desired, style, &trees);
            // What arrives before and after has to arrive all the time, as long as ways only move.
            let mut kept = if style == Style::Gentle { ways(&fabric, &states) } else { Ways::new() };
            kept.retain(|way| arrives(&fabric, &desired, way));
            // Where links that work come out of use or into it, nothing is lost of floods either.
            let planned = (change.contains("drained") || change.contains("used again")) && fabric.tells_trees();
            let mut flooded = if planned { floods(&fabric, &states) } else { Floods::new() };
            let arrive = floods(&fabric, &desired);
            flooded.retain(|way| arrive.contains(way));
            let version = |key, tree: &Grown| fabric.view.trees.get(key).is_some_and(|it| it.version != tree.version);
            moved += usize::from(trees.iter().any(|(key, tree)| version(key, tree))) * flooded.len();
            let phases: BTreeSet<u16> = plans.values().flat_map(BTreeMap::keys).copied().collect();
            for phase in phases {
                let owners = if phase == 0 { &before } else { &after };
                for _ in 0..3 {
                    let halfway = advance(&states, &plans, phase, |all| draw.below(all + 1));
                    check_safety(&fabric, &halfway, owners, &mut draw, &what(&format!("phase {phase}")));
                    let lost = kept.iter().find(|way| !arrives(&fabric, &halfway, way));
                    assert_eq!(lost, None, "{}", what(&format!("phase {phase}: lost on its way")));
                    let arrive = floods(&fabric, &halfway);
                    let lost = flooded.iter().find(|way| !arrive.contains(way));
                    assert_eq!(lost, None, "{}", what(&format!("phase {phase}: a broadcast is lost")));
                }
                states = advance(&states, &plans, phase, |all| all);
            }
            fabric.view.trees = trees;
            for (dpid, wanted) in &desired {
                assert!(reconcile::same(&states[dpid], wanted), "{}", what("done"));
            }
            check_safety(&fabric, &states, &after, &mut draw, &what("done"));
        }
    }
    assert!(moved > 50, "only {moved} floods passed from one tree to another");
}

/// Ports die, and no controller does anything about it: who has another way at hand takes it.
#[test]
fn what_enters_beside_a_dead_port_goes_another_way_at_once() {
    let (mut tried, mut came) = (0, 0);
    for seed in 0..seeds() {
        let mut draw = Draw::new(seed ^ 0x6261_636b);
        let fabric = Fabric::draw(&mut draw);
        let states = fabric.desired().bridges;
        let owners: Owners = fabric.tenant_ports().into_iter().collect();
        check_safety(&fabric, &states, &owners, &mut draw, &format!("seed {seed}"));
        for (from, mac, to) in ways(&fabric, &states) {
            let sent = frame(mac, 0);
            let passes = fabric.send(&states, from, &sent).passes;
            let Some((first, (far, carrier))) =
                passes.keys().find_map(|end| (end.bridge == from.bridge).then(|| (*end, fabric.wires[end])))
            else {
                continue;
            };
            let dead = BTreeSet::from([first, far]);
            let told = fabric.send_without(&states, &dead, from, &sent);
            let arrives = told.copies == BTreeMap::from([(to, 1)]) && !told.altered;
            assert!(arrives || told.copies.is_empty(), "seed {seed}: {from} to {mac} without {first}: {told:?}");
            // A neighbour at the other end of such a link has a way: it is the destination's bridge, or what the tenant sends
            // from there arrives without coming here.
            let tenant = &owners[&from];
            let has_way = |neighbour: DatapathId| {
                let ports = owners.iter().filter(|(place, owner)| place.bridge == neighbour && *owner == tenant);
                let mut ways =
                    ports.filter(|(place, _)| **place != to).map(|(place, _)| fabric.send(&states, *place, &sent));
                neighbour == to.bridge
                    || ways.any(|way| {
                        way.copies.contains_key(&to) && way.passes.keys().all(|end| end.bridge != from.bridge)
                    })
            };
            let up = |end: Endpoint| fabric.view.links.iter().any(|link| link.a == end || link.b == end);
            let another = fabric.wires.iter().any(|(end, (there, kind))| {
                end.bridge == from.bridge && *end != first && *kind == carrier && up(*end) && has_way(there.bridge)
            });
            tried += 1;
            came += usize::from(arrives);
            assert!(arrives || !another, "seed {seed}: {from} to {mac} without {first}: there is another way");
        }
    }
    assert!(came * 5 > tried && came < tried, "{came} of {tried}");
}

/// The most ports that a bridge may have, all of one tenant, and beside them links to others.
#[test]
fn a_tenant_of_thousands_of_ports_is_served_in_messages_that_fit() {
    let fabric = Fabric::large(4096);
    let states = fabric.desired().bridges;
    let (mut groups, mut out) = (0, BytesMut::new());
    for (dpid, wanted) in &states {
        let owners = wanted.keys().copied().collect();
        for change in
            reconcile::plan(&BridgeState::new(), wanted, &owners, Style::Gentle, &BTreeMap::new()).values().flatten()
        {
            let message = change.message();
            groups += usize::from(matches!(message, Message::GroupMod(_)));
            assert_eq!(message.encode(Xid(1), &mut out), Ok(()), "at {dpid}");
            out.clear();
        }
    }
    assert!(groups >= 5, "{groups}");
    let (from, tenant) = fabric.tenant_ports()[0].clone();
    let everybody: BTreeMap<Endpoint, usize> =
        fabric.reachable(from, &tenant).into_iter().map(|place| (place, 1)).collect();
    assert!(everybody.len() > 4000);
    assert_eq!(fabric.send(&states, from, &frame(MacAddr::BROADCAST, 0)).copies, everybody);
}

#[test]
fn equal_views_give_equal_tables_and_nothing_to_change() {
    for seed in 0..200 {
        let (one, two) = (Fabric::draw(&mut Draw::new(seed)), Fabric::draw(&mut Draw::new(seed)));
        let (one, two) = (one.desired(), two.desired());
        assert_eq!(one, two);
        for state in one.bridges.values() {
            let owners = state.keys().copied().collect();
            assert_eq!(reconcile::plan(state, state, &owners, Style::Gentle, &BTreeMap::new()), Plan::default());
        }
    }
}
