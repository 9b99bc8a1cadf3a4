//! Goal: the checker finds every leak and loop, and nothing where all is well. Method: fabrics are drawn from seeds; what
//! is compiled for them, and each state on the way from one to the next, has to pass; then tables are changed at
//! random, and where frames that are walked through them leak or loop, the checker has to have said so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apps::checker::{Property, Violation};
use apps::desired::{BridgeState, Flow, FlowKey, Section};
use apps::marks::{Owner, metadata};
use apps::pipeline::FORWARD;
use apps::reconcile::Style;
use apps::view::Endpoint;
use openflow::action::Action;
use openflow::group::Bucket;
use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::narrow::U13;
use openflow::oxm::Oxm;
use openflow::types::{DatapathId, MacAddr, PortNo, TableId};

use crate::world::{Draw, Fabric, UNKNOWN, frame};
use crate::{advance, plans, seeds};

type States = BTreeMap<DatapathId, BridgeState>;

fn told(violations: &[Violation]) -> String {
    violations.iter().take(5).map(|it| format!("\n  {}: {}", it.property, it.text)).collect()
}

#[test]
fn what_is_compiled_passes() {
    let (mut silent, mut chained) = (0, 0);
    for seed in 0..seeds() {
        let mut draw = Draw::new(seed ^ 0xc4ec);
        let mut fabric = Fabric::draw(&mut draw);
        if draw.below(2) == 0 {
            fabric.draw_services(&mut draw);
            chained += 1;
        }
        let (mut states, trees) = fabric.wanted();
        fabric.view.trees = trees;
        for step in 0..4 {
            let trees = fabric.desired().trees;
            let services = fabric.tenants().iter().all(|tenant| fabric.has_functions(tenant));
            let change = match draw.below(2) {
                0 if services => fabric.change_services(&mut draw),
                _ => fabric.change(&mut draw, &trees, &states),
            };
            let (desired, trees) = fabric.wanted();
            fabric.view.trees = trees;
            let found = fabric.checked(&desired);
            assert!(found.is_empty(), "seed {seed}, step {step} ({change}): {}", told(&found));
            // What silent bridges go on doing makes no circle with it.
            states.extend(desired);
            silent += usize::from(fabric.has_silent());
            let found = fabric.checked(&states);
            assert!(found.is_empty(), "seed {seed}, step {step} ({change}), with silent bridges: {}", told(&found));
        }
    }
    assert!(silent > 20 && chained > 20, "too little was drawn: {silent} {chained}");
}

/// On the way, ports are whose they were or will be, and chains what they were or will be; but nothing ever goes in circles.
#[test]
fn no_state_on_the_way_has_circles() {
    for seed in 0..seeds() {
        let mut draw = Draw::new(seed ^ 0x3a7e);
        let mut fabric = Fabric::draw(&mut draw);
        let (mut states, trees) = fabric.wanted();
        fabric.view.trees = trees;
        for step in 0..4 {
            let before = fabric.clone();
            let change = fabric.change(&mut draw, &fabric.desired().trees, &states);
            let (desired, trees) = fabric.wanted();
            let style =
                if fabric.hands_over(&before) || change.contains("policy") { Style::Strict } else { Style::Gentle };
            let plans = plans(&states, &desired, style, &trees);
            fabric.view.trees = trees;
            let phases: BTreeSet<u16> = plans.values().flat_map(BTreeMap::keys).copied().collect();
            for phase in phases {
                let halfway = advance(&states, &plans, phase, |all| draw.below(all + 1));
                let mut found = before.checked(&halfway);
                found.extend(fabric.checked(&halfway));
                found.retain(|it| it.property == Property::Loop);
                assert!(found.is_empty(), "seed {seed}, step {step} ({change}), phase {phase}: {}", told(&found));
                states = advance(&states, &plans, phase, |all| all);
            }
        }
    }
}

/// Something of an entry, or of a group, is changed: what it was is the answer.
fn spoil(states: &mut States, draw: &mut Draw) -> String {
    let dpids: Vec<DatapathId> = states.keys().copied().collect();
    let dpid = dpids[draw.below(dpids.len())];
    let state = states.get_mut(&dpid).unwrap();
    let owners: Vec<Owner> = state.keys().copied().collect();
    let owner = owners[draw.below(owners.len())];
    let other = owners[draw.below(owners.len())];
    let section: &mut Section = Arc::make_mut(state.get_mut(&owner).unwrap());
    let some_port = |draw: &mut Draw| PortNo(draw.below(12) as u32 * 350 + 1);
    // What sends known frames over links here, as they are marked there.
    let onward = section.flows.iter().filter(|(key, flow)| key.table == FORWARD && flow.hops > 0);
    let onward: Vec<Vec<Action>> = onward.filter_map(|(_, flow)| applied(flow)).collect();
    if !section.groups.is_empty() && draw.below(4) == 0 {
        let nth = draw.below(section.groups.len());
        if draw.below(2) == 0 && !onward.is_empty() {
            let mut actions = onward[draw.below(onward.len())].clone();
            mark(&mut actions, |key| key | 0x80_0000, |vlan| vlan | 0x800);
            let (id, group) = section.groups.iter_mut().nth(nth).unwrap();
            group.buckets.push(Bucket::new(actions));
            return format!("{dpid}: group {} floods over one more link", id.0);
        }
        let (id, group) = section.groups.iter_mut().nth(nth).unwrap();
        let nth = draw.below(group.buckets.len());
        let what = match draw.below(4) {
            0 => {
                let bucket = group.buckets[nth].clone();
                group.buckets.push(bucket);
                "twice"
            }
            1 => {
                let bucket = &mut group.buckets[nth];
                bucket.actions.retain(|action| matches!(action, Action::Output { .. }));
                "unmarked"
            }
            2 => {
                let mut bucket = group.buckets[nth].clone();
                bucket.actions = vec![Action::output(some_port(draw))];
                group.buckets.push(bucket);
                "to another port, too"
            }
            _ => {
                redirect(&mut group.buckets[nth].actions, some_port(draw));
                "redirected"
            }
        };
        return format!("{dpid}: bucket {nth} of group {} {what}", id.0);
    }
    let keys: Vec<FlowKey> = section.flows.keys().cloned().collect();
    if keys.is_empty() {
        return "nothing".to_owned();
    }
    let key = keys[draw.below(keys.len())].clone();
    let mut flow = section.flows[&key].clone();
    let what = match draw.below(12) {
        0 => {
            section.flows.remove(&key);
            return format!("{dpid}: removed {}, {}", key.table.0, key.matching);
        }
        1 => {
            let port = some_port(draw);
            instructions(&mut flow, |actions| redirect(actions, port));
            format!("redirected to {port}")
        }
        2 => {
            instructions(&mut flow, |actions| actions.retain(|action| !matches!(action, Action::SetField(_))));
            "without its mark".to_owned()
        }
        3 => {
            let table = TableId(1 + draw.below(10) as u8);
            for instruction in &mut flow.instructions {
                if let Instruction::GotoTable(to) = instruction {
                    *to = table;
                }
            }
            format!("goes to {}", table.0)
        }
        4 => {
            for instruction in &mut flow.instructions {
                if let Instruction::WriteMetadata { metadata, .. } = instruction {
                    *metadata = *metadata & !metadata::TENANT | u64::from(other.0);
                }
            }
            format!("says {}", other.0)
        }
        5 => {
            let bit = 1 << (24 + draw.below(4));
            for instruction in &mut flow.instructions {
                if let Instruction::WriteMetadata { metadata, .. } = instruction {
                    *metadata ^= bit;
                }
            }
            format!("says otherwise {bit:x}")
        }
        6 => {
            // The same for another port.
            let port = some_port(draw);
            let fields = key.matching.fields().iter().map(|field| match field {
                Oxm::InPort(..) => Oxm::InPort(port, None),
                other => other.clone(),
            });
            let matching = Match::new(fields.collect::<Vec<_>>());
            section.flows.insert(FlowKey { matching, ..key.clone() }, flow);
            return format!("{dpid}: {}, {} at {port}, too", key.table.0, key.matching);
        }
        7 | 8 => {
            // A way leads elsewhere, marked as it should be.
            let ways: Vec<FlowKey> = keys.iter().filter(|key| key.table == FORWARD).cloned().collect();
            if ways.is_empty() || onward.is_empty() {
                return "nothing".to_owned();
            }
            let key = ways[draw.below(ways.len())].clone();
            let actions = onward[draw.below(onward.len())].clone();
            section.flows.get_mut(&key).unwrap().instructions = vec![Instruction::ApplyActions(actions)];
            return format!("{dpid}: {} goes another way", key.matching);
        }
        9 => {
            let (key, vlan) = (other.0, (other.0 & 0x7ff) as u16);
            if draw.below(2) == 0 {
                instructions(&mut flow, |actions| mark(actions, |_| key.into(), |_| vlan));
            } else {
                instructions(&mut flow, |actions| mark(actions, |key| key ^ 0x80_0000, |vlan| vlan ^ 0x800));
            }
            "with another mark".to_owned()
        }
        10 => {
            // For frames that came over links, too.
            let fields = key.matching.fields().iter().map(|field| match field {
                Oxm::Metadata(value, Some(mask)) => {
                    Oxm::Metadata(value & !metadata::EDGE, Some(mask & !metadata::EDGE))
                }
                other => other.clone(),
            });
            let matching = Match::new(fields.collect::<Vec<_>>());
            section.flows.insert(FlowKey { matching, ..key.clone() }, flow);
            return format!("{dpid}: {}, {} wherever they entered", key.table.0, key.matching);
        }
        _ => {
            // The same for more frames.
            let all = key.matching.fields();
            let left = draw.below(all.len().max(1));
            let fields = all.iter().enumerate().filter(|(at, _)| *at != left).map(|(_, field)| field.clone());
            let matching = Match::new(fields.collect::<Vec<_>>());
            section.flows.insert(FlowKey { matching, ..key.clone() }, flow);
            return format!("{dpid}: {}, {} for more frames", key.table.0, key.matching);
        }
    };
    section.flows.insert(key.clone(), flow);
    format!("{dpid}: {}, {}, {} {what}", key.table.0, key.priority, key.matching)
}

fn instructions(flow: &mut Flow, mut change: impl FnMut(&mut Vec<Action>)) {
    for instruction in &mut flow.instructions {
        if let Instruction::ApplyActions(actions) = instruction {
            change(actions);
        }
    }
}

fn applied(flow: &Flow) -> Option<Vec<Action>> {
    flow.instructions
        .iter()
        .find_map(|it| if let Instruction::ApplyActions(all) = it { Some(all.clone()) } else { None })
}

/// Gives frames other marks.
fn mark(actions: &mut [Action], key: impl Fn(u64) -> u64, vlan: impl Fn(u16) -> u16) {
    for action in actions {
        match action {
            Action::SetField(Oxm::TunnelId(value, _)) => *value = key(*value),
            Action::SetField(Oxm::VlanVid(value, _)) => *value = U13::low(vlan(value.get() & 0xfff) | 0x1000),
            _ => {}
        }
    }
}

fn redirect(actions: &mut [Action], to: PortNo) {
    for action in actions {
        if let Action::Output { port, .. } = action {
            *port = to;
        }
    }
}

/// What frames that are walked through the tables come to that mustn't be.
fn walked(fabric: &Fabric, states: &States) -> Option<String> {
    let ports: BTreeSet<Endpoint> = fabric.all_ports().into_iter().collect();
    for from in ports.iter().copied() {
        let owner = fabric.owner(from);
        for destination in fabric.all_macs().into_iter().chain([MacAddr::BROADCAST, UNKNOWN]) {
            let told = fabric.send(states, from, &frame(destination, 0));
            for (place, copies) in told.copies.iter().filter(|(place, _)| ports.contains(place)) {
                if owner.is_none() || fabric.owner(*place) != owner {
                    return Some(format!("leak from {from} to {place}"));
                }
                if *copies > 1 {
                    return Some(format!("{copies} copies from {from} to {place}"));
                }
            }
            if told.passes.values().any(|times| *times > 1) {
                return Some(format!("loop from {from} to {destination}"));
            }
        }
    }
    None
}

#[test]
fn whatever_leaks_or_loops_is_found() {
    let (mut bad, mut found, mut tried) = (0, 0, 0);
    for seed in 0..seeds() {
        let mut draw = Draw::new(seed ^ 0x5b01);
        let fabric = Fabric::draw(&mut draw);
        let states = fabric.desired().bridges;
        for _ in 0..80 {
            let mut spoilt = states.clone();
            let what: Vec<String> = (0..1 + draw.below(3) / 2).map(|_| spoil(&mut spoilt, &mut draw)).collect();
            tried += 1;
            let violations = fabric.checked(&spoilt);
            found += usize::from(!violations.is_empty());
            if let Some(worst) = walked(&fabric, &spoilt) {
                bad += 1;
                assert!(!violations.is_empty(), "seed {seed}: {what:?}: {worst}, and nothing was said");
            }
        }
    }
    assert!(bad * 20 > tried && found >= bad, "too little was spoilt: {bad} of {tried}, {found} found");
}
