//! Goal: while ports of functions are down and no controller is there to see it, packets go on to another instance at the
//! same bridge, or as `on_failure` says, and nowhere else; and when the ports are back, all is as it was. Method: fabrics
//! with functions and chains are drawn from seeds and compiled with all ports up; then some go down, packets are walked
//! through the same tables, and the outcome is compared with a direct reading of the policy.

use std::collections::{BTreeMap, BTreeSet};

use apps::policy::{Function, FunctionKind, OnFailure};
use apps::reconcile::Style;
use apps::view::Endpoint;

use crate::chains::{names, packets};
use crate::world::services::Passage;
use crate::world::{Draw, Fabric};
use crate::{advance, plans, seeds};

/// What becomes of packets for a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    LeftOut,
    Ends,
    /// One of the above, by which instance is chosen.
    Either,
}

fn fate(fabric: &Fabric, function: &Function, down: &BTreeSet<Endpoint>) -> Fate {
    let living = fabric.living(function, down);
    let stands_in = |bridge: &String| living.iter().any(|(other, lives)| other == bridge && *lives);
    match function.on_failure {
        _ if living.iter().all(|(bridge, _)| stands_in(bridge)) => Fate::Passes,
        _ if living.iter().any(|(_, lives)| *lives) => Fate::Either,
        OnFailure::Bypass => Fate::LeftOut,
        OnFailure::Drop => Fate::Ends,
    }
}

/// Did the packet pass what it had to, none of what it must not, and arrive if nothing stopped it?
fn fits(told: &Passage, to: Endpoint, fates: &[(String, Fate)]) -> bool {
    let [(place, passed)] = told.delivered.as_slice() else {
        return told.delivered.is_empty() && fates.iter().any(|(_, fate)| matches!(fate, Fate::Ends | Fate::Either));
    };
    let passed = names(passed);
    let mut left = passed.iter().peekable();
    let all = fates.iter().all(|(name, fate)| match (left.next_if(|it| *it == name).is_some(), fate) {
        (true, Fate::Passes | Fate::Either) | (false, Fate::LeftOut | Fate::Either) => true,
        (true, Fate::LeftOut | Fate::Ends) | (false, Fate::Passes | Fate::Ends) => false,
    });
    *place == to && all && left.next().is_none()
}

#[test]
fn bridges_deal_with_ports_that_go_down_by_themselves() {
    let (mut passed, mut diverted, mut left_out, mut ended, mut back) = (0, 0, 0, 0, 0);
    for seed in 0..seeds() {
        let mut draw = Draw::new(seed ^ 0xfa11);
        let mut fabric = Fabric::draw(&mut draw);
        fabric.draw_services(&mut draw);
        let states = fabric.desired().bridges;
        let whole = fabric.clone();
        for _ in 0..1 + draw.below(5) {
            fabric.flap_unseen(&mut draw);
        }
        let down = fabric.down();
        let mut sights = Vec::new();
        for tenant in fabric.tenants().into_iter().filter(|tenant| fabric.is_whole(tenant)) {
            for (from, to, mut sent) in packets(&fabric, &tenant, &mut draw) {
                // Over links whose marks are tags, one of its own is a second one, behind which bridges see nothing.
                sent.tags.clear();
                let told = fabric.pass(&states, from, &sent);
                let what =
                    format!("seed {seed}: {sent:?} of {tenant} from {from} to {to} with {down:?} down: {told:?}");
                assert!(told.strayed.is_empty() && told.looped.is_empty(), "{what}");
                let Some(chain) = fabric.chain_of(&tenant, &sent) else {
                    assert!(told.delivered.is_empty(), "{what}");
                    continue;
                };
                let chain = chain.into_iter().filter(|function| function.kind != FunctionKind::Tap);
                let fates: Vec<(String, Fate)> =
                    chain.map(|function| (function.name.clone(), fate(&fabric, function, &down))).collect();
                assert!(fits(&told, to, &fates), "{what}, not {fates:?}");
                let before = whole.pass(&states, from, &sent);
                match (told.delivered.as_slice(), before.delivered.as_slice()) {
                    ([(_, now)], [(_, before)]) => {
                        passed += usize::from(now == before && !now.is_empty());
                        diverted += usize::from(now != before && names(now) == names(before));
                        left_out += usize::from(now.len() < before.len());
                    }
                    _ => ended += 1,
                }
                sights.push((from, sent, before));
            }
        }
        // The ports come back.
        fabric.unseen.clear();
        for (from, sent, before) in sights {
            assert_eq!(fabric.pass(&states, from, &sent), before, "seed {seed}: {sent:?} from {from}");
            back += 1;
        }
    }
    let told = format!("passed {passed}, diverted {diverted}, left out {left_out}, ended {ended}, back {back}");
    assert!(passed > 200 && diverted > 15 && left_out > 50 && ended > 50, "{told}");
}

/// The controller sees that ports are down, or up, later than bridges do: by the old tables, the new ones and all between
/// packets go as both allow.
#[test]
fn what_bridges_do_by_themselves_and_what_the_controller_makes_of_it_agree() {
    let mut delivered = 0;
    for seed in 0..seeds() / 2 {
        let mut draw = Draw::new(seed ^ 0xa62e);
        let mut fabric = Fabric::draw(&mut draw);
        fabric.draw_services(&mut draw);
        let (mut states, trees) = fabric.wanted();
        fabric.view.trees = trees;
        // What the controller took for true since it was last done.
        let mut words = vec![fabric.clone()];
        for step in 0..4 {
            fabric.flap_unseen(&mut draw);
            let turned = if draw.below(3) == 0 { fabric.turn_on_failure(&mut draw) } else { String::new() };
            let down = fabric.down();
            let sent: Vec<_> = fabric
                .tenants()
                .into_iter()
                .filter(|tenant| fabric.is_whole(tenant))
                .flat_map(|tenant| {
                    packets(&fabric, &tenant, &mut draw).into_iter().map(|it| (tenant.clone(), it)).collect::<Vec<_>>()
                })
                .collect();
            // It gets to know some of it, and is done with a part when something else happens.
            fabric.see(&mut draw);
            words.push(fabric.clone());
            let (desired, trees) = fabric.wanted();
            assert!(fabric.checked(&desired).is_empty(), "seed {seed}, step {step}: {:?}", fabric.checked(&desired));
            let plans = plans(&states, &desired, Style::Gentle, &trees);
            fabric.view.trees = trees;
            let phases: BTreeSet<u16> = plans.values().flat_map(BTreeMap::keys).copied().collect();
            let stop = if draw.below(2) == 0 { draw.below(phases.len() + 1) } else { usize::MAX };
            for phase in phases.iter().take(stop) {
                let halfway = advance(&states, &plans, *phase, |all| draw.below(all + 1));
                for (tenant, (from, to, frame)) in &sent {
                    let told = fabric.pass(&halfway, *from, frame);
                    let what =
                        format!("seed {seed}, step {step} {turned}, phase {phase}: {frame:?} of {tenant}: {told:?}");
                    assert!(told.strayed.is_empty() && told.looped.is_empty() && told.delivered.len() <= 1, "{what}");
                    for (place, functions) in &told.delivered {
                        let passed = names(functions);
                        let fits = words.iter().any(|it| it.may_pass(tenant, frame, &passed, &down));
                        assert!(*place == *to && fits, "{what} with {down:?} down");
                        delivered += 1;
                    }
                }
                states = advance(&states, &plans, *phase, |all| all);
            }
            if stop >= phases.len() {
                words = vec![fabric.clone()];
            }
        }
    }
    assert!(delivered > 1000, "{delivered}");
}
