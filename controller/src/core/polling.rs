//! Polling: what nobody tells of is asked for again and again. Groups and meters have no monitor in OpenFlow 1.3, and
//! not every bridge has one for flow entries. What differs from what is known was changed by somebody else: it is reported,
//! and put right by the next round.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apps::desired::{BridgeState, Section};
use apps::marks::Owner;
use apps::pipeline::LEARN;
use openflow::message::Message;
use openflow::multipart::{MultipartReply, Part};
use openflow::switch::{ConfigFlags, SwitchConfig};
use openflow::types::{DatapathId, Xid};

use super::reading::Reading;
use super::{Core, Effect, drift};

/// Time between two questions to a bridge: what is changed by hand is noticed within 2 s.
const PAUSE: Duration = Duration::from_millis(1500);

/// Where there are many bridges, so many are asked per second in all.
const PER_SECOND: u32 = 500;

/// A bridge that takes long to tell its tables isn't kept busy with that: it gets so many times that long in peace.
const PEACE: u32 = 20;

/// How often it is looked whose turn it is.
const TURN: Duration = Duration::from_millis(250);

/// An answer isn't waited for any longer.
const ANSWER: Duration = Duration::from_secs(5);

/// What is known by asking one bridge.
#[derive(Debug, Default)]
pub(crate) struct Polling {
    /// Was the bridge asked to tell changes of flow entries?
    asked_for_monitor: bool,
    /// That question, unless it was refused.
    monitor: Option<Xid>,
    /// Somebody else changed entries while changes of ours were under way: only the bridge knows which came last.
    doubtful: bool,
    due: Option<Instant>,
    reading: Option<Poll>,
}

/// What is on its way.
#[derive(Debug)]
struct Poll {
    reading: Reading,
    /// Are flow entries among it?
    flows: bool,
    /// How many batches of changes had been sent when it was asked for.
    batches: u64,
}

impl Polling {
    /// Asks for a flow monitor, once: it stays as long as the connection, and there can't be two with one number.
    pub(crate) fn ask_for_monitor(&mut self, xid: Xid) -> Option<(Xid, Message)> {
        if std::mem::replace(&mut self.asked_for_monitor, true) {
            return None;
        }
        self.monitor = Some(xid);
        Some((xid, Message::MultipartRequest(Part::whole(drift::monitor()))))
    }

    /// The bridge tells that entries changed, but not by us; is something of ours `under_way` there? If so, or if what it
    /// holds is being told just now, it is asked for all again, lest the older counts as the newer.
    pub(crate) fn drifted(&mut self, under_way: bool) {
        if under_way || self.reading.take_if(|poll| poll.flows).is_some() {
            self.doubtful = true;
        }
    }

    /// All that it holds is asked for anyway.
    pub(crate) fn all_is_read(&mut self) {
        (self.doubtful, self.reading) = (false, None);
    }

    /// The bridge refused something that it was asked with this transaction id.
    pub(crate) fn refused(&mut self, xid: Xid) {
        if self.monitor == Some(xid) {
            self.monitor = None;
        }
        if self.reading.as_ref().is_some_and(|poll| poll.reading.waits_for(xid)) {
            self.reading = None;
        }
    }
}

/// How a bridge has to be set: the first fragment of a packet shows its ports, which entries ask for (`nx-match`, ovs-ofctl(8)).
pub(super) fn config() -> Message {
    // What a packet-in shows where nobody says how much (OpenFlow 1.3.5, A.3.2); all entries of ours say it.
    let miss_send_len = 128;
    Message::SetConfig(SwitchConfig { flags: ConfigFlags::FRAG_DROP | ConfigFlags::FRAG_REASM, miss_send_len })
}

/// What somebody did to groups, meters and, if those were read, flow entries; and to whose. Without words: nothing that
/// matters to anybody.
fn differences(known: &BridgeState, read: &BridgeState, flows: bool) -> Vec<(Owner, Option<String>)> {
    fn compare<K: Ord + Debug, V: PartialEq>(
        told: &mut Vec<Option<String>>,
        old: &BTreeMap<K, V>,
        new: &BTreeMap<K, V>,
        name: impl Fn(&K) -> Option<String>,
    ) {
        for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(key))) {
            let deed = match (old.get(key), new.get(key)) {
                (Some(_), None) => "removed",
                (None, Some(_)) => "added",
                (old, new) if old != new => "changed",
                _ => continue,
            };
            told.push(name(key).map(|name| format!("{deed} {name}")));
        }
    }
    let nothing = Arc::new(Section::default());
    let owners: BTreeSet<Owner> = known.keys().chain(read.keys()).copied().collect();
    let mut all = Vec::new();
    for owner in owners {
        let (old, new) = (known.get(&owner).unwrap_or(&nothing), read.get(&owner).unwrap_or(&nothing));
        let mut told = Vec::new();
        compare(&mut told, &old.groups, &new.groups, |id| Some(format!("group {}", id.0)));
        compare(&mut told, &old.meters, &new.meters, |id| Some(format!("meter {}", id.0)));
        if flows {
            compare(&mut told, &old.flows, &new.flows, |key| {
                // Those come and go by themselves.
                let text = format!("an entry, table {}, priority {}, {}", key.table.0, key.priority, key.matching);
                (key.table != LEARN).then_some(text)
            });
        }
        all.extend(told.into_iter().map(|text| (owner, text)));
    }
    all
}

impl Core {
    /// When [`Core::poll`] has something to do.
    pub(super) fn poll_at(&self) -> Option<Instant> {
        (!self.sessions.is_empty()).then_some(self.polled + TURN)
    }

    /// Asks the bridges whose turn it is, if they are at rest.
    pub(super) fn poll(&mut self, now: Instant) {
        if self.poll_at().is_none_or(|due| now < due) {
            return;
        }
        self.polled = now;
        let crowd = Duration::from_secs(1) * u32::try_from(self.sessions.len()).unwrap_or(u32::MAX) / PER_SECOND;
        let pause = PAUSE.max(crowd);
        for bridge in self.bridges.values_mut() {
            let (responsive, batches) = (bridge.is_responsive(), bridge.batches);
            let xids = [bridge.next_xid(), bridge.next_xid(), bridge.next_xid()];
            let config = (bridge.next_xid(), config());
            let Some(connection) = &mut bridge.connection else { continue };
            let polling = &mut connection.polling;
            if polling.reading.as_ref().is_some_and(|poll| now.duration_since(poll.reading.asked) >= ANSWER) {
                polling.reading = None;
                polling.due = Some(now + ANSWER * PEACE);
            }
            let due = *polling.due.get_or_insert(now + pause);
            if !responsive || !connection.in_flight.is_empty() || polling.reading.is_some() || now < due {
                continue;
            }
            polling.due = Some(now + pause);
            let flows = polling.monitor.is_none() || polling.doubtful;
            let (reading, mut messages) = Reading::start(now, flows, xids);
            // One that is set so already does nothing.
            messages.push(config);
            polling.reading = Some(Poll { reading, flows, batches });
            self.effects.push(Effect::Send { session: connection.session, messages });
        }
    }

    /// Takes in a part of what a bridge was polled for, if that is what it is.
    pub(super) fn poll_told(&mut self, now: Instant, dpid: DatapathId, xid: Xid, part: Part<MultipartReply>) {
        let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
        let (name, batches) = (bridge.name.clone(), bridge.batches);
        let Some(connection) = &mut bridge.connection else { return };
        let Some(poll) = connection.polling.reading.as_mut().filter(|poll| poll.reading.waits_for(xid)) else { return };
        if !poll.reading.took(xid, part) {
            return;
        }
        let Some(Poll { reading, flows, batches: before }) = connection.polling.reading.take() else { return };
        let took = now.duration_since(reading.asked);
        connection.polling.due = connection.polling.due.max(Some(now + took * PEACE));
        if batches != before || !connection.in_flight.is_empty() || connection.reading.is_some() {
            // It is as we changed it meanwhile, or not yet.
            return;
        }
        connection.polling.doubtful &= !flows;
        let read = reading.state();
        let told = differences(&bridge.installed, &read, flows);
        if told.is_empty() {
            return;
        }
        for (owner, section) in &mut bridge.installed {
            let new = read.get(owner).cloned().unwrap_or_default();
            let section = Arc::make_mut(section);
            section.groups.clone_from(&new.groups);
            section.meters.clone_from(&new.meters);
            if flows {
                section.flows.clone_from(&new.flows);
            }
        }
        for (owner, section) in read {
            bridge.installed.entry(owner).or_insert(section);
        }
        bridge.installed.retain(|_, section| !section.is_empty());
        bridge.unjudged = true;
        self.refresh_due |= !bridge.is_responsive();
        for (owner, text) in told {
            self.rounds.dirty.insert(owner);
            let Some(text) = text else { continue };
            let whose = self.whose(owner);
            let text = format!(
                "somebody {text} of {whose} at bridge {name}; it is put right: its tables are for this controller alone"
            );
            self.problem(now, dpid, &text);
        }
    }
}
