//! Changes on their way to a bridge: in a bundle (ONF extension 230), of which the bridge makes all or none and nobody sees
//! a half, where it knows bundles; else one by one. A barrier behind them tells that they are done.
//!
//! Meters can't be put into Open vSwitch's bundles (error 2310, `OFPBFC_MSG_UNSUP`): new ones go before, and old ones go
//! in a phase of their own, when nothing uses them any more.

use std::collections::BTreeMap;
use std::time::Instant;

use apps::reconcile::{Change, Edit};
use openflow::error::ErrorCode;
use openflow::experimenter::{BundleAdd, BundleControl, BundleControlType, BundleFlags, Experimenter};
use openflow::message::Message;
use openflow::types::Xid;
use openflow::wire::{Nothing, Octets, Payload};

use super::SessionId;
use super::bridge::{Bridge, Connection};

/// Fewer changes don't need a bundle.
const WORTH: usize = 2;

/// What a connection has told about bundles.
#[derive(Debug, Default)]
pub(crate) struct Bundles {
    /// The question whether it knows them.
    asked: Option<Xid>,
    /// Does it?
    known: bool,
    /// The number of the last one.
    last: u32,
}

impl Bundles {
    /// Asks, once: begins a bundle and forgets it.
    pub(crate) fn ask(&mut self, open: Xid, discard: Xid) -> Vec<(Xid, Message)> {
        if self.asked.replace(open).is_some() {
            return Vec::new();
        }
        self.last += 1;
        let word = |xid, kind| (xid, control(self.last, kind));
        vec![word(open, BundleControlType::OpenRequest), word(discard, BundleControlType::DiscardRequest)]
    }
}

fn control(bundle: u32, kind: BundleControlType) -> Message {
    let properties = Octets::default();
    Message::Experimenter(Experimenter::BundleControl(BundleControl { bundle, kind, flags: flags(), properties }))
}

const fn flags() -> BundleFlags {
    BundleFlags::ATOMIC.union(BundleFlags::ORDERED)
}

/// What becomes of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Commit {
    /// Transaction id of the order to do it.
    xid: Xid,
    /// Has the bridge said that it is done?
    done: bool,
}

/// Changes that a bridge hasn't acknowledged yet.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// The round that they belong to.
    pub(crate) round: u64,
    /// Transaction id of each change.
    pub(crate) changes: BTreeMap<Xid, Change>,
    pub(crate) sent: Instant,
    /// If flow entries and groups are in a bundle: that.
    bundle: Option<Commit>,
    /// What it said against changes, or against the bundle as a whole.
    pub(crate) refused: BTreeMap<Xid, ErrorCode>,
}

impl InFlight {
    /// Is an error with this transaction id about these?
    pub(crate) fn concerns(&self, xid: Xid) -> bool {
        self.changes.contains_key(&xid) || self.bundle.is_some_and(|bundle| bundle.xid == xid)
    }

    /// Has it made all of them? To be asked when the barrier is acknowledged.
    pub(crate) fn is_whole(&self) -> bool {
        self.refused.is_empty() && self.bundle.is_none_or(|bundle| bundle.done)
    }

    /// What it has made, in order.
    pub(crate) fn made(&self) -> impl Iterator<Item = &Change> {
        let undone = self.bundle.is_some_and(|bundle| !bundle.done);
        let made = move |(xid, change): &(&Xid, &Change)| {
            let is_undone = undone && goes_in_bundle(&change.edit);
            !is_undone && !self.refused.contains_key(xid)
        };
        self.changes.iter().filter(made).map(|(_, change)| change)
    }
}

const fn goes_in_bundle(edit: &Edit) -> bool {
    !matches!(edit, Edit::AddMeter(..) | Edit::ModifyMeter(..) | Edit::RemoveMeter(_))
}

impl Connection {
    /// A word about a bundle came.
    pub(crate) fn bundle_told(&mut self, xid: Xid, kind: BundleControlType) {
        match kind {
            BundleControlType::OpenReply if self.bundles.asked == Some(xid) => self.bundles.known = true,
            BundleControlType::CommitReply => {
                let commits = self.in_flight.values_mut().filter_map(|flight| flight.bundle.as_mut());
                commits.filter(|commit| commit.xid == xid).for_each(|commit| commit.done = true);
            }
            _ => {}
        }
    }
}

impl Bridge {
    /// Does it take changes in bundles?
    pub(crate) fn takes_bundles(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.bundles.known)
    }

    /// Puts down that changes are on their way, and gives the messages that carry them.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        round: u64,
        changes: Vec<Change>,
    ) -> Option<(SessionId, Vec<(Xid, Message)>)> {
        let (inside, outside): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| goes_in_bundle(&change.edit));
        self.batches += 1;
        let bundled = self.takes_bundles() && inside.len() >= WORTH;
        let mut messages = Vec::with_capacity(inside.len() + outside.len() + 5);
        let mut numbered = BTreeMap::new();
        // Bridges may reorder, but not over a barrier. Entries must find the meters and groups that they use; what goes for
        // good is in a phase of its own.
        let barrier = |bridge: &mut Self| (bridge.next_xid(), Message::BarrierRequest(Nothing));
        for change in outside {
            let xid = self.next_xid();
            messages.push((xid, change.message()));
            numbered.insert(xid, change);
        }
        let mut bundle = None;
        if bundled {
            if !messages.is_empty() {
                messages.push(barrier(self));
            }
            let number = self.connection.as_mut().map(|connection| {
                connection.bundles.last += 1;
                connection.bundles.last
            })?;
            messages.push((self.next_xid(), control(number, BundleControlType::OpenRequest)));
            for change in inside {
                let xid = self.next_xid();
                let (message, properties) = (Box::new(change.message()), Payload::default());
                let add = BundleAdd { bundle: number, flags: flags(), xid, message, properties };
                messages.push((xid, Message::Experimenter(Experimenter::BundleAdd(add))));
                numbered.insert(xid, change);
            }
            let xid = self.next_xid();
            messages.push((xid, control(number, BundleControlType::CommitRequest)));
            bundle = Some(Commit { xid, done: false });
        } else {
            let mut prepared = !messages.is_empty();
            for change in inside {
                let is_flow = matches!(change.edit, Edit::SetFlow(..) | Edit::RemoveFlow(_));
                if std::mem::replace(&mut prepared, !is_flow) && is_flow {
                    messages.push(barrier(self));
                }
                let xid = self.next_xid();
                messages.push((xid, change.message()));
                numbered.insert(xid, change);
            }
        }
        let end = self.next_xid();
        messages.push((end, Message::BarrierRequest(Nothing)));
        let connection = self.connection.as_mut()?;
        let flight = InFlight { round, changes: numbered, sent: now, bundle, refused: BTreeMap::new() };
        connection.in_flight.insert(end, flight);
        Some((connection.session, messages))
    }
}

#[cfg(test)]
mod tests {
    use apps::desired::{Flow, FlowKey, Group, Meter};
    use apps::marks::Owner;
    use openflow::error::FlowModFailed;
    use openflow::flow::FlowModFlags;
    use openflow::group::GroupType;
    use openflow::matching::Match;
    use openflow::meter::MeterFlags;
    use openflow::switch::Role;
    use openflow::types::{Cookie, GroupId, MeterId, TableId};

    use super::*;

    fn bridge(now: Instant, knows_bundles: bool) -> Bridge {
        let address = ([127, 0, 0, 1], 1).into();
        let mut connection = Connection::new(now, SessionId(1), address, Role::Master);
        connection.bundles.ask(Xid(1), Xid(2));
        if knows_bundles {
            connection.bundle_told(Xid(1), BundleControlType::OpenReply);
        }
        let mut bridge = Bridge::default();
        bridge.connection = Some(connection);
        bridge
    }

    /// A meter, a group, an entry.
    fn changes() -> Vec<Change> {
        let key = FlowKey { table: TableId(9), priority: 1, matching: Match::default() };
        let (cookie, flags, instructions) = (Cookie(0), FlowModFlags::empty(), Vec::new());
        let flow = Flow { cookie, idle_timeout: 0, flags, instructions, hops: 0, origin: None };
        let group = Group { kind: GroupType::All, buckets: Vec::new() };
        let meter = Meter { flags: MeterFlags::KBPS, bands: Vec::new() };
        let edits = [Edit::AddGroup(GroupId(1), group), Edit::SetFlow(key, flow), Edit::AddMeter(MeterId(1), meter)];
        edits.map(|edit| Change { owner: Owner(100), edit }).to_vec()
    }

    fn kinds(messages: &[(Xid, Message)]) -> Vec<&'static str> {
        let kind = |message: &Message| match message {
            Message::Experimenter(Experimenter::BundleControl(control)) => match control.kind {
                BundleControlType::OpenRequest => "open",
                BundleControlType::CommitRequest => "commit",
                _ => "?",
            },
            Message::Experimenter(Experimenter::BundleAdd(add)) => add.message.name(),
            other => other.name(),
        };
        messages.iter().map(|(_, message)| kind(message)).collect()
    }

    #[test]
    fn entries_find_what_they_use_with_bundles_and_without() {
        let now = Instant::now();
        let (_, messages) = bridge(now, false).send(now, 1, changes()).unwrap();
        assert_eq!(kinds(&messages), ["MeterMod", "GroupMod", "BarrierRequest", "FlowMod", "BarrierRequest"]);
        let (_, messages) = bridge(now, true).send(now, 1, changes()).unwrap();
        let wanted = ["MeterMod", "BarrierRequest", "open", "GroupMod", "FlowMod", "commit", "BarrierRequest"];
        assert_eq!(kinds(&messages), wanted);
        // OFPBFC_MSG_BAD_XID: what is added has the transaction id of what adds it.
        for (xid, message) in &messages {
            if let Message::Experimenter(Experimenter::BundleAdd(add)) = message {
                assert_eq!(add.xid, *xid);
            }
        }
    }

    #[test]
    fn a_bundle_is_made_as_a_whole_or_not_and_meters_beside_it() {
        let now = Instant::now();
        let mut bridge = bridge(now, true);
        let (_, messages) = bridge.send(now, 1, changes()).unwrap();
        let commit = messages[5].0;
        let connection = bridge.connection.as_mut().unwrap();
        let made = |connection: &Connection| {
            let flight = connection.in_flight.values().next().unwrap();
            (flight.is_whole(), flight.made().count())
        };
        assert!(connection.in_flight.values().all(|flight| flight.concerns(commit)));
        assert_eq!(made(connection), (false, 1), "only the meter, as long as nothing is said about the bundle");
        connection.bundle_told(Xid(commit.0 + 7), BundleControlType::CommitReply);
        connection.bundle_told(commit, BundleControlType::OpenReply);
        assert_eq!(made(connection), (false, 1), "that was about another");
        connection.bundle_told(commit, BundleControlType::CommitReply);
        assert_eq!(made(connection), (true, 3));
        let flight = connection.in_flight.values_mut().next().unwrap();
        flight.refused.insert(messages[4].0, FlowModFailed::TableFull.into());
        assert_eq!(made(connection), (false, 2), "what was refused by itself isn't there");
    }
}
