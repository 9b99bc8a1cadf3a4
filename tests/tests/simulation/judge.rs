//! What is promised, held against where frames go: the words of the policy, read by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use apps::assigned::protocol;
use apps::interpreter::{Fragment, Frame};
use apps::policy::{Function, FunctionKind, OnFailure, Tenant, Verdict};
use apps::view::Endpoint;
use openflow::types::MacAddr;

use crate::fabric::services::{Passage, ends_two_tags, packet};
use crate::fabric::{Draw, Fabric, UNKNOWN, frame};
use crate::world::World;

/// What may be true at the moment: everything that was wanted since the network was last quiet.
pub(crate) struct Judge {
    /// What was wanted, the newest last.
    words: Vec<Fabric>,
    /// Did something break that functions may depend on?
    pub(crate) impaired: bool,
    /// When somebody last meddled with tables. Probes that ended there are missed a little later.
    pub(crate) meddled: Option<Instant>,
    /// Did a bridge not answer, or refuse something?
    pub(crate) silent: bool,
    /// Tenants whose chains were drawn anew.
    pub(crate) redrawn: BTreeSet<String>,
    /// The hosts that were known when the network was last quiet, by tenant; `None`: since then something happened by which
    /// frames to them may be lost.
    pub(crate) known: Option<BTreeMap<String, Vec<(MacAddr, Endpoint)>>>,
    /// When a host last sent that may have been elsewhere before.
    claimed: Option<Instant>,
}

/// How long it takes until a probe that is lost counts as lost.
const MISSED: Duration = Duration::from_secs(2);

/// How long a host that has just moved rests, and a bit, before what claims it meanwhile counts.
const CLAIMED: Duration = Duration::from_millis(1200);

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Frames from some ports.
    Some,
    /// Frames from everywhere.
    All,
}

/// Whose a port is: a tenant's own, or one of its functions'.
fn owner(fabric: &Fabric, place: Endpoint) -> Option<&str> {
    if let Some((tenant, ..)) = fabric.functions.get(&place) {
        return Some(tenant);
    }
    let name = &fabric.view.bridges.get(&place.bridge)?.ports.get(&place.port)?.name;
    name.split_once('-').filter(|(tenant, _)| tenant.starts_with('t')).map(|(tenant, _)| tenant)
}

impl Judge {
    pub(crate) fn new(fabric: &Fabric) -> Self {
        let words = vec![fabric.clone()];
        Self {
            words,
            impaired: true,
            meddled: None,
            silent: false,
            redrawn: BTreeSet::new(),
            known: None,
            claimed: None,
        }
    }

    /// Something else is wanted.
    pub(crate) fn wanted(&mut self, fabric: &Fabric) {
        self.words.push(fabric.clone());
    }

    /// A host sends that may have been elsewhere before.
    pub(crate) fn claimed(&mut self, now: Instant) {
        (self.known, self.claimed) = (None, Some(now));
    }

    /// The network is quiet: what was wanted before counts no more.
    pub(crate) fn settled(&mut self, world: &World) {
        self.words.drain(..self.words.len() - 1);
        (self.silent, self.redrawn) = (false, BTreeSet::new());
        // As long as bridges and links are still to be found, functions may seem to be out of reach.
        let all_found = world.snapshot().status.links.up * 2 == world.wires.len();
        // A function that hung isn't at once seen to work again.
        let (situation, down) = (world.core.situation(), world.down());
        let hang = !(world.hung.is_empty() && situation.view.failed.is_empty());
        let missed = self.meddled.is_some_and(|at| world.now.duration_since(at) < MISSED);
        self.impaired = !all_found || hang || missed || !world.cut.is_empty() || !down.is_empty();
        let hosts = situation.hosts.into_iter().map(|(tenant, stations)| {
            (tenant, stations.into_iter().map(|(mac, station)| (mac, station.place)).collect())
        });
        // A full bridge can't take what a change of ways needs.
        let roomy = world.bridges.values().all(|bridge| bridge.tables.room == usize::MAX);
        // Where a host is that was claimed twice is decided a second later.
        let decided = self.claimed.is_none_or(|at| world.now.duration_since(at) > CLAIMED);
        self.known = (!self.impaired && roomy && decided && world.muted.is_empty()).then(|| hosts.collect());
    }

    fn share(&self, one: Endpoint, other: Endpoint) -> bool {
        self.words.iter().any(|it| owner(it, one).is_some() && owner(it, one) == owner(it, other))
    }

    /// Frames of some kinds from every port, listed or not: to nobody else, and over no link twice.
    pub(crate) fn check_plain(&self, world: &World, draw: &mut Draw, extent: Extent, what: &str) {
        let fabric = &self.words[self.words.len() - 1];
        let known: Vec<MacAddr> = fabric.all_macs().into_iter().collect();
        let (mut ports, states) = (world.edge_ports(), world.states());
        if extent == Extent::Some {
            ports = (0..3).map(|_| ports[draw.below(ports.len())].clone()).collect();
        }
        for (from, _) in ports {
            let mut destinations = vec![MacAddr::BROADCAST, UNKNOWN];
            destinations.extend((0..2).filter_map(|_| known.get(draw.below(known.len().max(1)))));
            for destination in destinations {
                let sent = frame(destination, draw.below(3));
                let told = world.follow_in(&states, from, &sent);
                let about = || format!("{what}: from {from} to {destination}\n{}", world.tail());
                for (place, copies) in &told.copies {
                    assert!(self.share(from, *place), "leak to {place}, {}", about());
                    assert!(*copies == 1 || fabric.functions.contains_key(place), "twice at {place}, {}", about());
                }
                // Copies for taps, which look otherwise, may go over the same links.
                let twice = told.passes.values().any(|times| *times > 1).then(|| world.loops(from, &sent)).flatten();
                assert!(twice.is_none(), "loop over {twice:?}, {}", about());
            }
        }
    }

    /// May a packet have passed these functions and then be delivered?
    fn allows(&self, fabric: &Fabric, tenant: &str, sent: &Frame, passed: &[(String, String)]) -> bool {
        let Some(chain) = fabric.chain_of(tenant, sent) else { return false };
        // Where no link joins the tenant's parts, functions are out of reach.
        let impaired = self.impaired || !fabric.is_whole(tenant);
        let mut left = passed.iter().map(|(function, _)| function).peekable();
        let all = chain.into_iter().filter(|function| function.kind != FunctionKind::Tap).all(|function: &Function| {
            let passes = left.next_if(|name| **name == function.name).is_some();
            passes || (impaired && function.on_failure == OnFailure::Bypass)
        });
        all && left.next().is_none()
    }

    /// Packets between hosts: through the functions that the old or the new policy says, in order, or lost.
    pub(crate) fn check_chains(&self, world: &World, draw: &mut Draw, extent: Extent, what: &str) {
        let fabric = &self.words[self.words.len() - 1];
        let mut cabled = fabric.clone();
        cabled.wires = world.open_wires();
        let states = world.states();
        for tenant in fabric.tenants() {
            // A bridge that doesn't answer goes on by the chains that it knows (docs/architecture.md, known limits).
            let excused = self.silent && self.redrawn.contains(&tenant);
            let most = if extent == Extent::Some { 1 } else { 4 };
            for (from, _, sent) in (0..most).filter_map(|_| pair(fabric, &tenant, draw)) {
                if self.words.iter().any(|it| owner(it, from) != Some(&tenant)) {
                    continue;
                }
                let told: Passage = cabled.pass(&states, from, &sent);
                let about = || format!("{what}: {sent:?} of {tenant} from {from}: {told:?}\n{}", world.tail());
                assert!(told.looped.is_empty() && told.strayed.is_empty(), "{}", about());
                let places: BTreeSet<Endpoint> = told.delivered.iter().map(|(place, _)| *place).collect();
                assert_eq!(places.len(), told.delivered.len(), "twice, {}", about());
                for (place, passed) in &told.delivered {
                    assert!(self.share(from, *place), "leak to {place}, {}", about());
                    let fits = excused || self.words.iter().any(|it| self.allows(it, &tenant, &sent, passed));
                    assert!(fits, "not as any policy says, {}", about());
                }
            }
        }
    }

    /// Whatever bridge falls silent, is heard again, or is slow to take changes: hosts that were known are reached, if the
    /// network holds together, with that bridge and without. Nothing is sent through it any more, but it goes on sending as it did.
    pub(crate) fn check_known(&self, world: &World, draw: &mut Draw, extent: Extent, what: &str) {
        let (Some(known), true) = (&self.known, world.unheard.len() <= 1) else { return };
        let (fabric, states) = (&self.words[self.words.len() - 1], world.states());
        let plain = fabric.policy.tenants.iter().filter(|tenant| tenant.functions.is_empty());
        let mut left = fabric.clone();
        left.view.links.retain(|link| !world.unheard.iter().any(|dpid| link.at(*dpid).is_some()));
        left.view.bridges.retain(|dpid, _| !world.unheard.contains(dpid));
        let whole = |tenant: &&Tenant| fabric.is_whole(&tenant.name) && left.is_whole(&tenant.name);
        for tenant in plain.filter(whole) {
            let Some(hosts) = known.get(&tenant.name).filter(|hosts| hosts.len() > 1) else { continue };
            for _ in 0..if extent == Extent::Some { 2 } else { 10 } {
                let [(_, from), (to, there)] = [0, 1].map(|_| hosts[draw.below(hosts.len())]);
                if from != there {
                    let tags = draw.below(3).min(if ends_two_tags(tenant) { 1 } else { 2 });
                    let told = world.follow_in(&states, from, &frame(to, tags));
                    let all = BTreeMap::from([(there, 1)]);
                    assert_eq!(told.copies, all, "lost, {what}: from {from} to {to} at {there}\n{}", world.tail());
                }
            }
        }
    }

    /// All is well again: everybody gets what they should.
    pub(crate) fn check_delivery(&self, world: &World, draw: &mut Draw, what: &str) {
        let fabric = &self.words[self.words.len() - 1];
        for tenant in &fabric.policy.tenants {
            if !tenant.rules.is_empty() || tenant.default == Verdict::Drop {
                continue;
            }
            for (from, _) in fabric.tenant_ports().into_iter().filter(|(_, owner)| *owner == tenant.name) {
                let tags = draw.below(3).min(if ends_two_tags(tenant) { 1 } else { 2 });
                let mut told = world.follow(from, &frame(MacAddr::BROADCAST, tags));
                told.copies.retain(|place, _| !fabric.functions.contains_key(place));
                let all: BTreeMap<Endpoint, usize> =
                    fabric.reachable(from, &tenant.name).into_iter().map(|place| (place, 1)).collect();
                assert_eq!(told.copies, all, "{what}: broadcast of {from}\n{}", world.tail());
                assert!(!told.altered || !tenant.functions.is_empty(), "{what}: broadcast of {from} is altered");
            }
        }
        assert!(world.bridges.values().all(|bridge| bridge.shows_ports), "{what}: fragments show no ports");
        let states = world.states();
        for tenant in fabric.tenants().into_iter().filter(|tenant| fabric.is_whole(tenant)) {
            for (from, to, sent) in pairs(fabric, &tenant, draw) {
                let told = fabric.pass(&states, from, &sent);
                let delivered: Vec<(Endpoint, Vec<&str>)> = told
                    .delivered
                    .iter()
                    .map(|(place, passed)| (*place, passed.iter().map(|(function, _)| function.as_str()).collect()))
                    .collect();
                let expected = fabric.expected(&tenant, &sent);
                let wanted = expected.iter().map(|(passed, _)| (to, passed.iter().map(String::as_str).collect()));
                assert_eq!(
                    delivered,
                    wanted.collect::<Vec<(Endpoint, Vec<&str>)>>(),
                    "{what}: {sent:?} of {tenant} from {from}\n{}",
                    world.tail()
                );
                let tapped = expected.map(|(_, tapped)| tapped).unwrap_or_default();
                assert!(told.delivered.is_empty() || told.tapped == tapped, "{what}: {sent:?}: {told:?}");
            }
        }
    }
}

/// A packet between two hosts of a tenant.
fn pair(fabric: &Fabric, tenant: &str, draw: &mut Draw) -> Option<(Endpoint, Endpoint, Frame)> {
    let hosts: Vec<_> = fabric.hosts(tenant).into_iter().collect();
    let [from, to] = [0, 1].map(|_| hosts.get(draw.below(hosts.len().max(1))));
    let ((from, sender), (to, receiver)) = (from?, to?);
    (from != to && sender.place != receiver.place)
        .then(|| (sender.place, receiver.place, some_packet(*from, *to, draw)))
}

fn some_packet(from: MacAddr, to: MacAddr, draw: &mut Draw) -> Frame {
    let kind = [protocol::TCP, protocol::UDP, protocol::ICMP][draw.below(3)];
    let fragment = [None, None, None, None, Some(Fragment::First), Some(Fragment::Later)][draw.below(6)];
    let ports = ([40_000, 40_001, 80][draw.below(3)], [80, 1003, 1007, 22][draw.below(4)]);
    Frame { fragment, ..packet(from, to, kind, ports) }
}

/// Packets between all hosts of a tenant, in any order: from which port, to which, and what.
fn pairs(fabric: &Fabric, tenant: &str, draw: &mut Draw) -> Vec<(Endpoint, Endpoint, Frame)> {
    let hosts = fabric.hosts(tenant);
    let mut pairs = Vec::new();
    for (from, sender) in &hosts {
        for (to, receiver) in hosts.iter().filter(|(to, receiver)| *to != from && receiver.place != sender.place) {
            let at = draw.below(pairs.len() + 1);
            pairs.insert(at, (sender.place, receiver.place, some_packet(*from, *to, draw)));
        }
    }
    pairs
}
