//! Goal: an instance that drains gets no new connections, keeps those that it has, and when it goes, new ones go on as they
//! did. Method: fabrics with functions some of whose instances drain are drawn from seeds; each packet is compared with the
//! same one where nobody drains, and where those that drain are gone.

use std::collections::{BTreeMap, BTreeSet};

use apps::assigned::protocol;
use apps::interpreter::{Frame, Network, SYN, Transport};
use apps::pipeline::{BALANCE, BEGIN};
use apps::policy::{Function, Instance};
use apps::reconcile::{Change, Edit, Style};
use openflow::oxm::Oxm;

use crate::chains::packets;
use crate::world::services::reply;
use crate::world::{Draw, Fabric};
use crate::{advance, plans, seeds};

const ACK: u16 = 0x010;

/// The same segment with these flags.
fn flagged(frame: &Frame, flags: u16) -> Frame {
    let mut frame = frame.clone();
    if let Network::Ipv4 { transport: Transport::Ports { flags: its, .. }, .. } = &mut frame.network {
        *its = flags;
    }
    frame
}

impl Fabric {
    /// Of each function that has several instances, one drains.
    fn drain_some(&mut self, draw: &mut Draw) {
        let functions = self.policy.tenants.iter_mut().flat_map(|tenant| &mut tenant.functions);
        for function in functions.filter(|function| function.instances.len() > 1) {
            let one = draw.below(function.instances.len());
            (0..).zip(&mut function.instances).for_each(|(at, instance)| instance.drain = at == one);
        }
    }

    /// The same with no instance draining.
    fn where_nobody_drains(&self) -> Self {
        let mut all = self.clone();
        let functions = all.policy.tenants.iter_mut().flat_map(|tenant| &mut tenant.functions);
        functions.flat_map(|function| &mut function.instances).for_each(|instance| instance.drain = false);
        all
    }

    /// The same when those that drain are removed.
    fn without_draining(&self) -> Self {
        let mut left = self.clone();
        let functions = left.policy.tenants.iter_mut().flat_map(|tenant| &mut tenant.functions);
        functions.for_each(|function| function.instances.retain(|instance| !instance.drain));
        left.renumber();
        left
    }

    fn draining<'a>(&'a self, tenant: &'a str) -> impl Iterator<Item = (&'a Function, &'a Instance)> {
        let functions = self.policy.tenants.iter().filter(move |it| it.name == tenant).flat_map(|it| &it.functions);
        functions.flat_map(|it| it.instances.iter().filter(|one| one.drain).map(move |one| (it, one)))
    }

    /// Is an instance among these that drains, although another one works?
    fn drains(&self, tenant: &str, passed: &[(String, String)]) -> bool {
        let among = |function: &Function, instance: &Instance| {
            passed.iter().any(|(name, one)| *name == function.name && *one == instance.name)
        };
        self.draining(tenant).any(|(function, instance)| among(function, instance) && self.has_others(function))
    }

    fn has_others(&self, function: &Function) -> bool {
        function.instances.iter().any(|it| !it.drain && self.is_healthy(it))
    }

    /// Does each function have an instance that works and doesn't drain?
    fn loses_nobody(&self, tenant: &str) -> bool {
        self.draining(tenant).all(|(function, _)| self.has_others(function))
    }
}

/// Is it TCP, of which bridges tell connections apart? In fragments they don't.
fn is_tcp(frame: &Frame) -> bool {
    matches!(frame.network, Network::Ipv4 { protocol: protocol::TCP, .. }) && frame.fragment.is_none()
}

#[test]
fn new_connections_pass_no_instance_that_drains_and_old_ones_go_on() {
    let (mut moved, mut stayed, mut symmetric) = (0, 0, 0);
    for seed in 0..seeds() / 3 {
        let mut draw = Draw::new(seed ^ 0xd4a1);
        let mut fabric = Fabric::draw(&mut draw);
        fabric.draw_services(&mut draw);
        for _ in 0..draw.below(3) {
            fabric.change_services(&mut draw);
        }
        fabric.drain_some(&mut draw);
        let (kept, left) = (fabric.where_nobody_drains(), fabric.without_draining());
        let [now, before, after] = [&fabric, &kept, &left].map(|it| it.desired().bridges);
        for tenant in fabric.tenants().into_iter().filter(|tenant| fabric.is_whole(tenant)) {
            for (from, to, sent) in packets(&fabric, &tenant, &mut draw) {
                let what = format!("seed {seed}: {sent:?} of {tenant} from {from} to {to}");
                // Segments of a connection that nobody remembers, because it is older.
                if is_tcp(&sent) {
                    let old = flagged(&sent, ACK);
                    let told = fabric.pass(&now, from, &old);
                    assert_eq!(told, kept.pass(&before, from, &old), "{what}");
                    stayed += usize::from(told.delivered.iter().any(|(_, passed)| fabric.drains(&tenant, passed)));
                }
                let new = if is_tcp(&sent) { flagged(&sent, SYN) } else { sent };
                let told = fabric.pass(&now, from, &new);
                moved += usize::from(told != kept.pass(&before, from, &new));
                for (_, passed) in &told.delivered {
                    assert!(!fabric.drains(&tenant, passed), "{what}: {told:?}");
                }
                if fabric.loses_nobody(&tenant) {
                    assert_eq!(told, left.pass(&after, from, &new), "{what}: other than when they are gone");
                }
                let answer = if is_tcp(&new) { flagged(&reply(&new), SYN | ACK) } else { reply(&new) };
                let back = fabric.pass(&now, to, &answer);
                if let ([(_, there)], [(_, back)]) = (told.delivered.as_slice(), back.delivered.as_slice()) {
                    let reversed: Vec<_> = there.iter().rev().cloned().collect();
                    let names = |it: &[(String, String)]| it.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
                    if !back.is_empty() && names(back) == names(&reversed) {
                        assert_eq!(*back, reversed, "{what}");
                        symmetric += 1;
                    }
                }
            }
        }
    }
    assert!(moved > 20 && stayed > 5 && symmetric > 30, "too little was drawn: {moved} {stayed} {symmetric}");
}

/// Is it a change to the entries that tell new connections?
fn tells_new(change: &Change) -> bool {
    let syn = |field: &Oxm| matches!(field, Oxm::TcpFlags(flags, _) if flags.get() & SYN != 0);
    matches!(&change.edit, Edit::SetFlow(key, _) if key.table == BEGIN && key.matching.fields().iter().any(syn))
}

#[test]
fn old_connections_lose_nothing_when_a_drain_begins_or_is_taken_back() {
    let (mut walked, mut begun) = (0, 0);
    for seed in 0..seeds() / 3 {
        let mut draw = Draw::new(seed ^ 0x10e5);
        let mut fabric = Fabric::draw(&mut draw);
        fabric.draw_services(&mut draw);
        fabric.drain_some(&mut draw);
        let without = fabric.where_nobody_drains();
        let [(drains, trees), (nobody, _)] = [&fabric, &without].map(Fabric::wanted);
        for (old, new) in [(&nobody, &drains), (&drains, &nobody)] {
            let plans = plans(old, new, Style::Gentle, &trees);
            let phases: BTreeSet<u16> = plans.values().flat_map(BTreeMap::keys).copied().collect();
            let changes = |phase| plans.values().filter_map(move |plan| plan.get(&phase)).flatten();
            let told: Vec<u16> = phases.iter().copied().filter(|it| changes(*it).any(tells_new)).collect();
            let flips = |change: &Change| matches!(&change.edit, Edit::SetFlow(key, _) if key.table == BALANCE);
            let flipped: Vec<u16> = phases.iter().copied().filter(|it| changes(*it).any(flips)).collect();
            if let (Some(told), Some(flipped)) = (told.first(), flipped.last()) {
                assert!(told > flipped, "seed {seed}: new connections are told while some bridge knows of none");
                begun += 1;
            }
            let mut states = old.clone();
            for phase in phases {
                let halfway = advance(&states, &plans, phase, |all| draw.below(all + 1));
                for tenant in fabric.tenants() {
                    for (from, _, sent) in packets(&fabric, &tenant, &mut draw) {
                        let segment = flagged(&sent, ACK);
                        if is_tcp(&segment) {
                            let told = fabric.pass(&halfway, from, &segment);
                            assert_eq!(told, without.pass(&nobody, from, &segment), "seed {seed}, phase {phase}");
                            walked += 1;
                        }
                    }
                }
                states = advance(&states, &plans, phase, |all| all);
            }
        }
    }
    assert!(walked > 200 && begun > 20, "too little was drawn: {walked} {begun}");
}
