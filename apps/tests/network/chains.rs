//! Goal: a packet passes exactly the functions that the policy says, in order, once, and nothing but what the policy lets
//! pass is delivered, also while the policy, functions and links change. Method: fabrics with functions, chains and rules are
//! drawn from seeds; packets are walked through the compiled tables and through functions, and the outcome is compared
//! with a direct reading of the policy.

use std::collections::{BTreeMap, BTreeSet};

use apps::assigned::protocol;
use apps::interpreter::{Fragment, Frame};
use apps::reconcile::{self, Style};
use apps::view::Endpoint;

use crate::world::services::{Expected, Passage, packet, reply};
use crate::world::{Draw, Fabric};
use crate::{advance, plans, seeds};

/// Packets between hosts of a tenant: from which port, to which, and what.
pub(crate) fn packets(fabric: &Fabric, tenant: &str, draw: &mut Draw) -> Vec<(Endpoint, Endpoint, Frame)> {
    let hosts = fabric.hosts(tenant);
    let mut packets = Vec::new();
    for (from, sender) in &hosts {
        for (to, receiver) in &hosts {
            if from == to || sender.place == receiver.place {
                continue;
            }
            let kind = [protocol::TCP, protocol::UDP, protocol::ICMP][draw.below(3)];
            let ports = ([40_000, 40_001, 80][draw.below(3)], [80, 1003, 1007, 22][draw.below(4)]);
            let fragment = [None, None, None, None, Some(Fragment::First), Some(Fragment::Later)][draw.below(6)];
            let ports = if fragment.is_some() && draw.below(5) == 0 { (0, 0) } else { ports };
            let sent = Frame { tags: tags(draw), fragment, ..packet(*from, *to, kind, ports) };
            packets.push((sender.place, receiver.place, sent));
        }
    }
    packets
}

/// Mostly none, sometimes one or two, which no mark on a link bears.
fn tags(draw: &mut Draw) -> Vec<u16> {
    [900, 901][..[0, 0, 0, 0, 0, 0, 1, 2][draw.below(8)]].to_vec()
}

pub(crate) fn names(passed: &[(String, String)]) -> Vec<String> {
    passed.iter().map(|(function, _)| function.clone()).collect()
}

#[test]
fn packets_pass_the_functions_that_the_policy_says() {
    let (mut chained, mut symmetric, mut ended, mut together) = (0, 0, 0, 0);
    for seed in 0..seeds() {
        let mut draw = Draw::new(seed ^ 0xc4a1);
        let mut fabric = Fabric::draw(&mut draw);
        fabric.draw_services(&mut draw);
        for _ in 0..draw.below(3) {
            fabric.change_services(&mut draw);
        }
        let states = fabric.desired().bridges;
        for tenant in fabric.tenants().into_iter().filter(|tenant| fabric.is_whole(tenant)) {
            for (from, to, sent) in packets(&fabric, &tenant, &mut draw) {
                let told = fabric.pass(&states, from, &sent);
                let what = format!("seed {seed}: {sent:?} of {tenant} from {from} to {to}");
                assert!(told.strayed.is_empty() && told.looped.is_empty(), "{what}: {told:?}");
                let Some((passed, tapped)) = fabric.expected(&tenant, &sent) else {
                    assert!(told.delivered.is_empty(), "{what}: {told:?}");
                    ended += 1;
                    continue;
                };
                let [(place, functions)] = told.delivered.as_slice() else {
                    panic!("{what}: {told:?}, not {passed:?}")
                };
                assert_eq!((*place, names(functions), &told.tapped), (to, passed.clone(), &tapped), "{what}");
                chained += usize::from(!passed.is_empty());
                if sent.fragment == Some(Fragment::First) {
                    let rest = fabric.pass(&states, from, &Frame { fragment: Some(Fragment::Later), ..sent.clone() });
                    assert_eq!(told, rest, "{what}: and the rest of it");
                    together += 1;
                }
                // Its reply, if it is chained by the same chain, passes the same instances.
                let back = fabric.pass(&states, to, &reply(&sent));
                let mut reversed: Vec<_> = functions.clone();
                reversed.reverse();
                if let [(_, functions)] = back.delivered.as_slice()
                    && names(functions) == names(&reversed)
                    && !passed.is_empty()
                {
                    assert_eq!(*functions, reversed, "{what}");
                    symmetric += 1;
                }
            }
        }
    }
    let drawn = [chained > 200, symmetric > 50, ended > 100, together > 100];
    assert_eq!(drawn, [true; 4], "too little was drawn: {chained} {symmetric} {ended} {together}");
}

/// Is that what a policy allows, with these ports down? Nothing delivered always is: frames may be lost, never led astray.
fn allowed(
    told: &Passage,
    to: Endpoint,
    word: &Fabric,
    down: &BTreeSet<Endpoint>,
    (tenant, sent): (&str, &Frame),
) -> bool {
    let delivered = |(place, functions): &(Endpoint, Vec<(String, String)>)| {
        *place == to && word.may_pass(tenant, sent, &names(functions), down)
    };
    told.strayed.is_empty()
        && told.looped.is_empty()
        && told.delivered.len() <= 1
        && told.delivered.iter().all(delivered)
}

#[test]
fn while_things_change_packets_pass_what_the_old_or_the_new_policy_says() {
    let (mut delivered, mut lost, mut halves) = (0, 0, 0);
    for seed in 0..seeds() / 3 {
        let mut draw = Draw::new(seed ^ 0x5e41);
        let mut fabric = Fabric::draw(&mut draw);
        fabric.draw_services(&mut draw);
        let (mut states, trees) = fabric.wanted();
        fabric.view.trees = trees;
        for step in 0..4 {
            let before = fabric.clone();
            let tenants: Vec<String> = fabric.tenants();
            let packets: Vec<_> = tenants
                .iter()
                .flat_map(|tenant| {
                    packets(&fabric, tenant, &mut draw).into_iter().map(|it| (tenant.clone(), it)).collect::<Vec<_>>()
                })
                .collect();
            let whole: Vec<String> = tenants.iter().filter(|tenant| fabric.is_whole(tenant)).cloned().collect();
            let old: Vec<Expected> = packets.iter().map(|(tenant, (.., sent))| fabric.expected(tenant, sent)).collect();
            let change =
                if draw.below(4) == 0 { fabric.change_link(&mut draw) } else { fabric.change_services(&mut draw) };
            let new: Vec<Expected> = packets.iter().map(|(tenant, (.., sent))| fabric.expected(tenant, sent)).collect();
            let style = if fabric.hands_over(&before) { Style::Strict } else { Style::Gentle };
            let (desired, trees) = fabric.wanted();
            let plans = plans(&states, &desired, style, &trees);
            let phases: BTreeSet<u16> = plans.values().flat_map(BTreeMap::keys).copied().collect();
            for phase in phases {
                for _ in 0..2 {
                    let halfway = advance(&states, &plans, phase, |all| draw.below(all + 1));
                    for (((tenant, (from, to, sent)), old), new) in packets.iter().zip(&old).zip(&new) {
                        let told = fabric.pass(&halfway, *from, sent);
                        halves += 1;
                        let fits = told.strayed.is_empty() && told.looped.is_empty();
                        assert!(fits, "seed {seed}, step {step} ({change}): {told:?}");
                        // Where a function can't be reached is no matter of the policy's words.
                        if !whole.contains(tenant) || !fabric.is_whole(tenant) {
                            continue;
                        }
                        if old.is_some() && new.is_some() && !told.delivered.is_empty() {
                            delivered += 1;
                        } else {
                            lost += 1;
                        }
                        let down = fabric.down();
                        let fits = |word| allowed(&told, *to, word, &down, (tenant, sent));
                        assert!(
                            fits(&before) || fits(&fabric),
                            "seed {seed}, step {step} ({change}, {style:?}), phase {phase}: {sent:?} of {tenant} from {from}: \
                             {told:?}, neither {old:?} nor {new:?}"
                        );
                    }
                }
                states = advance(&states, &plans, phase, |all| all);
            }
            fabric.view.trees = trees;
            for (dpid, wanted) in &desired {
                assert!(reconcile::same(&states[dpid], wanted), "seed {seed}, step {step} ({change})");
            }
        }
    }
    assert!(halves > 10_000 && delivered > lost / 4, "{halves} {delivered} {lost}");
}

/// Packets that bear a tag like those which mark frames on their way to the tenant's functions.
fn forged(fabric: &Fabric, tenant: &str, draw: &mut Draw) -> Vec<(Endpoint, Endpoint, Frame)> {
    let marks = fabric.marks(tenant);
    let mut packets = packets(fabric, tenant, draw);
    packets.retain(|_| !marks.is_empty() && draw.below(3) == 0);
    packets.iter_mut().for_each(|(.., sent)| sent.tags = vec![marks[draw.below(marks.len())]]);
    packets
}

/// Rounds are overtaken: something else changes when some of their phases have been done. And hosts send what looks like
/// frames of chains.
#[test]
fn while_changes_overtake_each_other_packets_pass_what_one_of_the_policies_says() {
    let (mut overtaken, mut delivered) = (0, 0);
    for seed in 0..seeds() / 3 {
        let mut draw = Draw::new(seed ^ 0x0e7a);
        let mut fabric = Fabric::draw(&mut draw);
        fabric.draw_services(&mut draw);
        let (mut states, trees) = fabric.wanted();
        fabric.view.trees = trees;
        // What was wanted since a round was last finished, and what changed.
        let (mut since, mut strict, mut log) = (vec![fabric.clone()], false, Vec::new());
        for _ in 0..6 {
            log.push(fabric.change_services(&mut draw));
            if draw.below(3) == 0 {
                fabric.flap_unseen(&mut draw);
            }
            let before = since.last().unwrap();
            strict |= fabric.hands_over(before);
            let mut sent = Vec::new();
            for tenant in fabric.tenants() {
                sent.extend(packets(&fabric, &tenant, &mut draw).into_iter().map(|it| (tenant.clone(), it)));
                for fabric in [before, &fabric] {
                    sent.extend(forged(fabric, &tenant, &mut draw).into_iter().map(|it| (tenant.clone(), it)));
                }
            }
            since.push(fabric.clone());
            // Functions that don't work any more may still be passed.
            let words: Vec<Fabric> = since.iter().map(Fabric::working).chain(since.iter().cloned()).collect();
            let style = if strict { Style::Strict } else { Style::Gentle };
            let (desired, trees) = fabric.wanted();
            let plans = plans(&states, &desired, style, &trees);
            let phases: BTreeSet<u16> = plans.values().flat_map(BTreeMap::keys).copied().collect();
            let stop = if draw.below(2) == 0 { draw.below(phases.len() + 1) } else { usize::MAX };
            for (_, phase) in phases.iter().enumerate().take_while(|(index, _)| *index < stop) {
                // Some bridges are through with a phase before others begin.
                let halfway = advance(&states, &plans, *phase, |all| [0, all, draw.below(all + 1)][draw.below(3)]);
                for (tenant, (from, to, frame)) in sent.iter().filter(|(tenant, _)| fabric.is_whole(tenant)) {
                    let told = fabric.pass(&halfway, *from, frame);
                    delivered += told.delivered.len();
                    let down = fabric.down();
                    assert!(
                        words.iter().any(|it| allowed(&told, *to, it, &down, (tenant, frame))),
                        "seed {seed}, {log:?}, {style:?}, phase {phase}: {frame:?} of {tenant} from {from}: {told:?}"
                    );
                }
                states = advance(&states, &plans, *phase, |all| all);
            }
            fabric.view.trees = trees;
            fabric.recall(&states);
            if stop < phases.len() {
                overtaken += 1;
                log.push(format!("overtaken after {stop} of {phases:?}"));
            } else {
                (since, strict, log) = (vec![fabric.clone()], false, Vec::new());
            }
        }
    }
    assert!(overtaken > 100 && delivered > 1000, "{overtaken} {delivered}");
}

/// A bridge that didn't answer is told only when it comes back what has changed: others don't wait for it, so nothing says
/// then that a port has gone to somebody else.
#[test]
fn a_port_that_was_a_functions_gives_nothing_to_its_former_tenant() {
    let mut sent = 0;
    for seed in 0..seeds() {
        let mut draw = Draw::new(seed ^ 0x917e);
        let mut fabric = Fabric::draw(&mut draw);
        fabric.draw_services(&mut draw);
        let before = fabric.desired().bridges;
        let Some(place) = fabric.give_away(&mut draw) else { continue };
        let owner = fabric.owner(place).unwrap();
        let (mut desired, trees) = fabric.wanted();
        let mut states = desired.clone();
        states.insert(place.bridge, before[&place.bridge].clone());
        desired.retain(|dpid, _| *dpid == place.bridge);
        let plans = plans(&states, &desired, Style::Gentle, &trees);
        let phases: BTreeSet<u16> = plans.values().flat_map(BTreeMap::keys).copied().collect();
        for phase in phases {
            states = advance(&states, &plans, phase, |all| all);
            for tenant in fabric.tenants() {
                for (to, frame) in packets(&fabric, &tenant, &mut draw).into_iter().map(|(_, to, frame)| (to, frame)) {
                    let told = fabric.pass(&states, place, &frame);
                    let own = |(place, passed): &(Endpoint, Vec<_>)| {
                        fabric.owner(*place).as_ref() == Some(&owner) && passed.is_empty()
                    };
                    let fits =
                        told.strayed.is_empty() && (fabric.has_functions(&owner) || told.delivered.iter().all(own));
                    assert!(fits, "seed {seed}, phase {phase}: {frame:?} to {to} from {place} of {owner}: {told:?}");
                    sent += 1;
                }
            }
        }
    }
    assert!(sent > 1000, "{sent}");
}

#[test]
fn nothing_gets_around_a_function_that_there_are_no_numbers_for() {
    let mut ended = 0;
    for seed in 0..seeds() {
        let mut draw = Draw::new(seed ^ 0x6e0b);
        let mut fabric = Fabric::draw(&mut draw);
        fabric.draw_services(&mut draw);
        let short = fabric.without_numbers();
        let states = short.desired().bridges;
        for tenant in fabric.tenants() {
            for (from, _, sent) in packets(&fabric, &tenant, &mut draw) {
                let told = fabric.pass(&states, from, &sent);
                match fabric.expected(&tenant, &sent) {
                    Some((passed, tapped)) if passed.is_empty() && tapped.is_empty() => {}
                    _ => {
                        assert!(told.delivered.is_empty(), "seed {seed}: {sent:?} of {tenant} from {from}: {told:?}");
                        ended += 1;
                    }
                }
            }
        }
    }
    assert!(ended > 1000, "{ended}");
}

/// Bridges that don't answer keep what they have, whatever becomes of functions, chains and links meanwhile. Neither they nor
/// those that change send packets round in circles, through functions or not.
#[test]
fn what_silent_bridges_keep_leads_around_in_no_circle() {
    let (mut silent, mut passed) = (0, 0);
    for seed in 0..seeds() / 4 {
        let mut draw = Draw::new(seed ^ 0x51e7);
        let mut fabric = Fabric::draw(&mut draw);
        fabric.draw_services(&mut draw);
        let (mut states, trees) = fabric.wanted();
        fabric.view.trees = trees;
        for step in 0..5 {
            let before = fabric.clone();
            let serviced = fabric.tenants().iter().all(|tenant| fabric.has_functions(tenant));
            let trees = fabric.desired().trees;
            let change = match draw.below(3) {
                1.. if serviced => fabric.change_services(&mut draw),
                _ => fabric.change(&mut draw, &trees, &states),
            };
            let (desired, trees) = fabric.wanted();
            let strict = fabric.hands_over(&before) || change.contains("policy");
            let style = if strict { Style::Strict } else { Style::Gentle };
            let plans = plans(&states, &desired, style, &trees);
            fabric.view.trees = trees;
            let phases: BTreeSet<u16> = plans.values().flat_map(BTreeMap::keys).copied().collect();
            for phase in phases.into_iter().chain([u16::MAX]) {
                let halfway = advance(&states, &plans, phase, |all| draw.below(all + 1));
                for tenant in fabric.tenants() {
                    for (from, _, sent) in packets(&fabric, &tenant, &mut draw) {
                        let told = fabric.pass(&halfway, from, &sent);
                        let what =
                            || format!("seed {seed}, step {step} ({change}), phase {phase}: {sent:?} from {from}");
                        assert!(told.looped.is_empty(), "{}: {told:?}", what());
                        passed += usize::from(told.delivered.iter().any(|(_, functions)| !functions.is_empty()));
                    }
                }
                states = advance(&states, &plans, phase, |all| all);
            }
            silent += usize::from(fabric.has_silent());
        }
    }
    assert!(silent > 20 && passed > 200, "too little was drawn: {silent} {passed}");
}
