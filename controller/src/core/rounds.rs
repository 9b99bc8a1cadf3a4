//! Bringing bridges to what they should hold, in rounds. A round is for some owners, and goes through the phases of
//! [`apps::reconcile`], each on all bridges at once. Rounds of different owners go on beside each other, except one that
//! is for all: it waits for the others, and they for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use apps::allocation::Allocations;
use apps::desired::BridgeState;
use apps::marks::{Owner, TreeVersion, cookie};
use apps::reconcile::{self, Change, Edit, Style};
use openflow::types::{DatapathId, Xid};

use super::bridge::Bridge;
use super::refusals::pause;
use super::{Core, Effect};

/// A bridge that doesn't acknowledge changes for this long is given up until it connects again.
pub(super) const ACKNOWLEDGE: Duration = Duration::from_secs(5);

/// What a bridge has acknowledged, its tables hold; its datapath's caches follow a little later (ovs-vswitchd(8), on
/// revalidation). The next phase waits so long, lest it meet frames that still go the old way.
const CACHES: Duration = Duration::from_millis(10);

/// The number of changes that are sent beside all rounds.
pub(super) const NO_ROUND: u64 = 0;

/// Changes of one phase, by bridge.
type Changes = BTreeMap<DatapathId, Vec<Change>>;

#[derive(Debug)]
struct Round {
    owners: BTreeSet<Owner>,
    /// Is it for all owners?
    whole: bool,
    /// Does one bridge make it in one step?
    at_once: bool,
    /// The phases still to come.
    left: VecDeque<Changes>,
    /// Bridges that haven't acknowledged the present phase.
    waiting: BTreeSet<DatapathId>,
    /// When the next phase may begin, since all have acknowledged this one.
    next_at: Option<Instant>,
    /// Has some bridge refused some of it? Then it isn't done, even if nothing more is to come.
    refused: bool,
}

/// What is under way and what is to be done.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    active: BTreeMap<u64, Round>,
    next: u64,
    /// Bridges, ports or the policy changed: everything has to be computed anew.
    pub(crate) all_dirty: bool,
    /// Owners whose tables have to be computed anew.
    pub(crate) dirty: BTreeSet<Owner>,
    /// Owners whose frames may follow two trees: their tree moved, or a bridge left or came back, and no round of theirs has been
    /// finished since.
    pub(crate) two_trees: BTreeSet<Owner>,
    /// Owners whose tree is known again after a restart: what bridges had of it is whole, and no bridge left or came since.
    pub(crate) found_again: BTreeSet<Owner>,
    /// Owners whose frames followed two trees when the controller ended.
    pub(crate) halfway: BTreeSet<Owner>,
    /// Some port went from one to another, and no whole round has been finished since.
    pub(crate) handover: bool,
    /// Which tenant has which key, by the last computation of everything.
    pub(crate) keys: BTreeMap<u32, String>,
    /// The same when a whole round was last finished.
    settled_keys: BTreeMap<u32, String>,
}

impl Rounds {
    /// None yet, where bridges were last brought to what goes with these numbers.
    pub(crate) fn after(settled: &Allocations) -> Self {
        let keys = settled.tenants().map(|(name, key)| (key, name.to_owned()));
        Self { settled_keys: keys.collect(), ..Self::default() }
    }

    /// Is nothing under way and nothing to be done?
    pub(crate) fn is_idle(&self) -> bool {
        self.active.is_empty() && self.dirty.is_empty() && !self.all_dirty
    }

    /// Owners whose key another tenant had.
    pub(crate) fn renewed(&self) -> Vec<Owner> {
        let other = |(key, name): &(&u32, &String)| self.settled_keys.get(key).is_some_and(|had| had != *name);
        self.keys.iter().filter(other).map(|(key, _)| Owner(*key)).collect()
    }

    /// A whole round has come to its end.
    fn whole_round_done(&mut self) {
        self.handover = false;
        self.all_dirty |= !self.renewed().is_empty();
        self.settled_keys = self.keys.clone();
    }

    /// Is there something to be done that needn't wait for what is under way?
    pub(crate) fn can_start(&self) -> bool {
        if self.all_dirty { self.active.is_empty() } else { self.dirty.iter().any(|owner| !self.busy(*owner)) }
    }

    /// Is this round made in one step?
    pub(crate) fn is_at_once(&self, id: u64) -> bool {
        self.active.get(&id).is_some_and(|round| round.at_once)
    }

    fn busy(&self, owner: Owner) -> bool {
        self.active.values().any(|round| round.whole || round.owners.contains(&owner))
    }
}

impl Core {
    /// Starts the rounds that can start.
    pub(super) fn start_rounds(&mut self, now: Instant) {
        if self.rounds.all_dirty {
            if self.rounds.active.is_empty() && !self.is_settling(now) {
                self.rounds.all_dirty = false;
                self.rounds.dirty.clear();
                self.compile_all();
                let installed = self.bridges.values().flat_map(|bridge| bridge.installed.keys());
                let desired = self.desired.bridges.values().flat_map(BTreeMap::keys);
                let owners = installed.chain(desired).copied().collect();
                self.start_round(now, owners, true);
            }
            return;
        }
        if self.rounds.dirty.is_empty() || self.is_settling(now) {
            return;
        }
        if !self.faults.is_empty() {
            // What wasn't sent may be what others' entries need.
            self.rounds.all_dirty = true;
            return self.start_rounds(now);
        }
        let ready: BTreeSet<Owner> = self.rounds.dirty.iter().copied().filter(|it| !self.rounds.busy(*it)).collect();
        self.recall_trees(&ready);
        for owner in ready {
            self.rounds.dirty.remove(&owner);
            self.compile_owner(owner);
            self.start_round(now, BTreeSet::from([owner]), false);
        }
    }

    pub(super) fn start_round(&mut self, now: Instant, owners: BTreeSet<Owner>, whole: bool) {
        self.judge_ways(now, &owners);
        let owners = self.verified(now, owners, whole);
        // If nobody's changes may be sent, what changes hands hasn't.
        if owners.is_empty() && !self.faults.is_empty() {
            return;
        }
        let nothing = BridgeState::new();
        let two_trees = self.two_trees(&owners);
        let found_again = |(owner, _): &(&Owner, &TreeVersion)| self.rounds.found_again.contains(owner);
        let known: BTreeMap<Owner, TreeVersion> = two_trees.iter().filter(found_again).map(|(a, b)| (*a, *b)).collect();
        let style = if self.rounds.handover { Style::Strict } else { Style::Gentle };
        let mut plans = BTreeMap::new();
        for (dpid, bridge) in self.bridges.iter_mut().filter(|(_, bridge)| bridge.is_responsive()) {
            // One that is back may have an older tree, and took no part in what happened since.
            let two_trees = if bridge.is_back { &known } else { &two_trees };
            let plan = bridge.plan(self.desired.bridges.get(dpid).unwrap_or(&nothing), &owners, style, two_trees);
            if !plan.is_empty() {
                plans.insert(*dpid, plan);
            }
        }
        let mut at_once = false;
        if let (1, Some(mut alone)) = (plans.len(), plans.first_entry())
            && self.bridges.get(alone.key()).is_some_and(|bridge| bridge.takes_bundles() && !bridge.cautious)
        {
            let plan = std::mem::take(alone.get_mut());
            alone.insert(reconcile::at_once(plan));
            at_once = true;
        }
        let mut phases: BTreeMap<u16, Changes> = BTreeMap::new();
        for (dpid, plan) in plans {
            for (phase, changes) in plan {
                phases.entry(phase).or_default().insert(dpid, changes);
            }
        }
        self.rounds.next += 1;
        let id = self.rounds.next;
        let left = phases.into_values().collect();
        let waiting = BTreeSet::new();
        self.rounds.active.insert(id, Round { owners, whole, at_once, left, waiting, next_at: None, refused: false });
        self.advance(now, id);
    }

    /// Goes on with a round whose present phase everybody has acknowledged.
    fn advance(&mut self, now: Instant, id: u64) {
        while let Some(round) = self.rounds.active.get_mut(&id) {
            if !round.waiting.is_empty() {
                return;
            }
            // What is still to come may no longer be what is wanted; then the next round goes on from what there is now.
            let outdated = self.rounds.all_dirty || !round.owners.is_disjoint(&self.rounds.dirty);
            if !outdated && !round.left.is_empty() && round.next_at.is_some_and(|at| at > now) {
                return;
            }
            match round.left.pop_front() {
                Some(phase) if !outdated => self.send_phase(now, id, phase),
                left => {
                    let (whole, done) = (round.whole, left.is_none() && !round.refused);
                    let owners = std::mem::take(&mut round.owners);
                    self.rounds.active.remove(&id);
                    if done {
                        self.forgive(&owners, whole);
                        self.rounds.two_trees.retain(|owner| !owners.contains(owner));
                    }
                    if whole && !done {
                        self.rounds.all_dirty = true;
                    } else if whole {
                        self.rounds.whole_round_done();
                        self.keep_settled();
                        for bridge in self.bridges.values_mut().filter(|bridge| bridge.is_responsive()) {
                            bridge.failures = 0;
                            bridge.trouble = None;
                            bridge.cautious = !bridge.refusals.is_empty();
                            bridge.is_back = false;
                        }
                    }
                }
            }
        }
    }

    /// Sends each bridge its changes of a phase.
    fn send_phase(&mut self, now: Instant, id: u64, phase: Changes) {
        for (dpid, changes) in phase {
            let Some(bridge) = self.bridges.get_mut(&dpid).filter(|bridge| bridge.is_responsive()) else { continue };
            let Some((session, messages)) = bridge.send(now, id, changes) else { continue };
            self.effects.push(Effect::Send { session, messages });
            if let Some(round) = self.rounds.active.get_mut(&id) {
                round.waiting.insert(dpid);
            }
        }
    }

    /// A bridge has done all that came before a barrier, or refused it.
    pub(super) fn acknowledged(&mut self, now: Instant, dpid: DatapathId, barrier: Xid) {
        let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
        let Some(connection) = &mut bridge.connection else { return };
        let Some(done) = connection.in_flight.remove(&barrier) else { return };
        let id = done.round;
        for change in done.made() {
            change.apply(&mut bridge.installed);
        }
        if !done.is_whole() {
            // First, lest what follows takes it for done.
            self.rounds.active.get_mut(&id).into_iter().for_each(|round| round.refused = true);
            self.refused_changes(now, dpid, &done);
        }
        if let Some(round) = self.rounds.active.get_mut(&id) {
            round.waiting.remove(&dpid);
            round.next_at = Some(now + CACHES);
            if !done.is_whole() {
                // What is missing may be what the next phase relies on.
                self.rounds.dirty.extend(round.owners.iter().copied());
                self.rounds.all_dirty |= round.whole;
            }
        }
        self.advance(now, id);
    }

    /// Leaves a bridge alone for a while, then reads its tables anew.
    pub(super) fn rest(&mut self, now: Instant, dpid: DatapathId) {
        let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
        if bridge.rests_until.is_none() {
            bridge.rests_until = Some(now + pause(bridge.failures));
            bridge.failures += 1;
        }
        if let Some(connection) = &mut bridge.connection {
            connection.reading = None;
        }
        self.lost(now, dpid);
        self.refresh_due = true;
    }

    /// A bridge no longer answers: what was under way there may have been done or not.
    pub(super) fn lost(&mut self, now: Instant, dpid: DatapathId) {
        self.hold_links(dpid);
        self.rounds.found_again.clear();
        if let Some(bridge) = self.bridges.get_mut(&dpid) {
            self.rounds.two_trees.extend(bridge.installed.keys());
            if let Some(connection) = &mut bridge.connection {
                let flying = std::mem::take(&mut connection.in_flight);
                bridge.uncertain.extend(flying.into_values().flat_map(|flight| flight.changes.into_values()));
            }
        }
        self.rounds.all_dirty = true;
        let rounds: Vec<u64> = self.rounds.active.keys().copied().collect();
        for id in rounds {
            if let Some(round) = self.rounds.active.get_mut(&id) {
                round.waiting.remove(&dpid);
            }
            self.advance(now, id);
        }
    }

    /// Goes on with rounds whose time has come, gives up bridges that don't acknowledge, and wakes those that have rested.
    pub(super) fn overdue(&mut self, now: Instant) {
        for id in self.rounds.active.keys().copied().collect::<Vec<_>>() {
            self.advance(now, id);
        }
        let mut close = Vec::new();
        let mut wake = Vec::new();
        for (dpid, bridge) in &mut self.bridges {
            let retries = bridge.retries(now);
            // The meters that a tenant's entries use are the fabric's: both have to come in one round.
            self.rounds.all_dirty |= retries.contains(&Owner::FABRIC);
            self.rounds.dirty.extend(retries);
            if bridge.rests_until.is_some_and(|until| until <= now) {
                bridge.rests_until = None;
                wake.push(*dpid);
            }
            let Some(connection) = &bridge.connection else { continue };
            let reading = connection.reading.as_ref().map(|reading| reading.asked);
            let oldest = connection.in_flight.values().map(|flight| flight.sent).chain(reading).min();
            if oldest.is_some_and(|sent| now.duration_since(sent) >= ACKNOWLEDGE) {
                close.push(*dpid);
            }
        }
        for dpid in wake {
            self.read_tables(now, dpid);
            self.forget_stranger(dpid);
        }
        for dpid in close {
            self.give_up(now, dpid, format!("it hasn't answered about its tables for {} s", ACKNOWLEDGE.as_secs()));
        }
    }

    /// Closes the connection of a bridge that can't be worked with; if it connects again, it has to rest first.
    pub(super) fn give_up(&mut self, now: Instant, dpid: DatapathId, reason: String) {
        let connection = self.bridges.get(&dpid).and_then(|bridge| bridge.connection.as_ref());
        let Some(session) = connection.map(|connection| connection.session) else { return };
        self.effects.push(Effect::Close { session, reason });
        self.rest(now, dpid);
        self.disconnected(now, session);
    }

    /// When [`Core::overdue`] has something to do.
    pub(super) fn overdue_at(&self) -> Option<Instant> {
        let retries = self.bridges.values().filter_map(Bridge::retry_at);
        let per_bridge = self.bridges.values().filter_map(|bridge| {
            let connection = bridge.connection.as_ref()?;
            let reading = connection.reading.as_ref().map(|reading| reading.asked);
            let sent = connection.in_flight.values().map(|flight| flight.sent).chain(reading).min();
            sent.map(|sent| sent + ACKNOWLEDGE).into_iter().chain(bridge.rests_until).min()
        });
        let resting = self.rounds.active.values().filter(|round| round.waiting.is_empty());
        per_bridge.chain(retries).chain(resting.filter_map(|round| round.next_at)).min()
    }

    /// A learnt entry went because its source was silent: that is as wanted, so the bridge needn't be told.
    pub(super) fn entry_went(&mut self, dpid: DatapathId, gone: &openflow::flow::FlowRemoved) -> Option<Owner> {
        let owner = cookie::owner(gone.cookie)?;
        let key =
            apps::desired::FlowKey { table: gone.table, priority: gone.priority, matching: gone.matching.clone() };
        let bridge = self.bridges.get_mut(&dpid)?;
        // What isn't there can't go: nobody has to believe that.
        bridge.installed.get(&owner).filter(|section| section.flows.contains_key(&key))?;
        Change { owner, edit: Edit::RemoveFlow(key) }.apply(&mut bridge.installed);
        if let Some(connection) = &mut bridge.connection {
            connection.polling.drifted(false);
        }
        Some(owner)
    }
}
