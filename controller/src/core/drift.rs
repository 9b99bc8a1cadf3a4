//! Changes of a bridge's tables that somebody else makes: told by the bridge (a flow monitor of Open vSwitch, ONF extension
//! 187), reported, and undone.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apps::desired::{BridgeState, Flow, FlowKey};
use apps::drain::is_begun;
use apps::marks::{self, Owner};
use apps::pipeline;
use openflow::experimenter::{ExperimenterRequest, FlowEvent, FlowMonitorFlags, FlowMonitorRequest, FlowUpdate};
use openflow::flow::{FlowModFlags, FlowRemovedReason};
use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::multipart::MultipartRequest;
use openflow::types::{Cookie, DatapathId, PortNo, TableId};

use super::Core;

/// Most entries that a bridge may come to have by what others put there: beyond that it isn't believed any more.
const ENTRIES_MAX: usize = 200_000;

/// Most messages about changes in [`WINDOW`]. Each tells of hundreds; each costs the computation of a tenant's tables.
const MESSAGES_MAX: u32 = 2_000;
const WINDOW: Duration = Duration::from_secs(10);

/// How many messages about changes came since when.
#[derive(Debug, Default)]
pub(crate) struct Drift {
    since: Option<Instant>,
    messages: u32,
}

impl Drift {
    /// One more came. `false`: that is too many.
    fn pass(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            *self = Self { since: Some(now), messages: 0 };
        }
        self.messages += 1;
        self.messages <= MESSAGES_MAX
    }
}

/// Asks a bridge to tell what others change from now on. Of our own changes it tells the transaction ids. Each connection has
/// monitors of its own.
pub(super) fn monitor() -> MultipartRequest {
    let flags = FlowMonitorFlags::ADD | FlowMonitorFlags::DELETE | FlowMonitorFlags::MODIFY | FlowMonitorFlags::ACTIONS;
    let (out_port, table) = (PortNo::ANY, TableId::ALL);
    let request = FlowMonitorRequest { monitor: 1, flags, out_port, table, matching: Match::default() };
    MultipartRequest::Experimenter(ExperimenterRequest::FlowMonitor(vec![request]))
}

/// What somebody did to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Added,
    Changed,
    Removed,
    /// The bridge did so by itself: it needed the room.
    Evicted,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Evicted => "evicted",
        })
    }
}

/// Does a bridge tell of what it does by itself, as it is told to? Many connections may begin in a second.
fn is_own_doing(state: &BridgeState, update: &FlowUpdate) -> bool {
    let Some((key, flow)) = entry(update) else { return false };
    is_begun(&key, &flow) && !state.values().any(|section| section.flows.contains_key(&key))
}

/// The entry that a change is about, as it is now, or was.
fn entry(update: &FlowUpdate) -> Option<(FlowKey, Flow)> {
    let FlowUpdate::Full { priority, idle_timeout, hard_timeout, table, cookie, matching, instructions, .. } = update
    else {
        return None;
    };
    // An entry with a lifetime isn't ours, whatever its cookie says.
    let cookie = if *hard_timeout == 0 { *cookie } else { Cookie(0) };
    let mut instructions = instructions.clone();
    instructions.sort_by_key(Instruction::order);
    let key = FlowKey { table: *table, priority: *priority, matching: matching.clone() };
    // How it behaves isn't told.
    let (idle_timeout, flags) = (*idle_timeout, FlowModFlags::empty());
    Some((key, Flow { cookie, idle_timeout, flags, instructions, hops: 0, origin: None }))
}

/// Takes a change into what is known of the tables. Gives what was done to which entry, and whose the entry was or is, if
/// that is other than what was known.
fn change(state: &mut BridgeState, update: FlowUpdate) -> Option<(Deed, FlowKey, Owner)> {
    let gone = update.removed();
    let (key, mut flow) = entry(&update)?;
    let FlowUpdate::Full { event, .. } = update else { return None };
    let had = state.iter().find(|(_, section)| section.flows.contains_key(&key)).map(|(owner, _)| *owner);
    let remove = |state: &mut BridgeState, owner: Owner| {
        let Some(section) = state.get_mut(&owner) else { return };
        Arc::make_mut(section).flows.remove(&key);
        if section.is_empty() {
            state.remove(&owner);
        }
    };
    if event == FlowEvent::Deleted {
        // Sources that were silent go by themselves, which is told in another way, too.
        let owner = had.filter(|_| gone != Some(FlowRemovedReason::IdleTimeout))?;
        remove(state, owner);
        let evicted = gone == Some(FlowRemovedReason::Eviction);
        return Some((if evicted { Deed::Evicted } else { Deed::Removed }, key, owner));
    }
    let before = had.and_then(|owner| state.get(&owner)?.flows.get(&key).cloned());
    flow.flags = before.as_ref().map_or(flow.flags, |flow| flow.flags);
    if before.as_ref() == Some(&flow) {
        return None;
    }
    if let Some(owner) = had {
        remove(state, owner);
    }
    if is_begun(&key, &flow) {
        // The bridge does so by itself, as it is told to.
        return had.map(|owner| (Deed::Changed, key, owner));
    }
    let owner = marks::cookie::owner(flow.cookie).unwrap_or(Owner::FABRIC);
    Arc::make_mut(state.entry(owner).or_default()).flows.insert(key.clone(), flow);
    let deed = if before.is_some() { Deed::Changed } else { Deed::Added };
    Some((deed, key, had.unwrap_or(owner)))
}

/// As what is read of the tables later, or was read before.
pub(crate) fn apply(state: &mut BridgeState, update: FlowUpdate) {
    change(state, update);
}

impl Core {
    /// Somebody changed a bridge's tables.
    pub(super) fn drifted(&mut self, now: Instant, dpid: DatapathId, updates: Vec<FlowUpdate>) {
        let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
        let Some(connection) = &mut bridge.connection else { return };
        if connection.is_watched() {
            // By whoever leads. What it holds is read when we do.
            return;
        }
        let installed = &bridge.installed;
        let updates: Vec<FlowUpdate> = updates.into_iter().filter(|update| !is_own_doing(installed, update)).collect();
        if updates.is_empty() {
            return;
        }
        if !connection.drift.pass(now) {
            return self.give_up(now, dpid, "it tells of changes by others without end".to_owned());
        }
        if let Some(reading) = &mut connection.reading {
            let full = updates.into_iter().filter(|update| matches!(update, FlowUpdate::Full { .. }));
            reading.changed.extend(full.take(ENTRIES_MAX.saturating_sub(reading.changed.len())));
            return;
        }
        if !bridge.was_read {
            return;
        }
        if updates.iter().any(|update| matches!(update, FlowUpdate::Full { .. })) {
            connection.polling.drifted(!connection.in_flight.is_empty());
        }
        let mut texts = Vec::new();
        for update in updates {
            let Some((deed, key, owner)) = change(&mut bridge.installed, update) else { continue };
            let table = pipeline::table(key.table).map_or("no table of ours", |table| table.name);
            let FlowKey { table: id, priority, matching } = &key;
            let matching = if matching.fields().is_empty() { "any frame".to_owned() } else { matching.to_string() };
            let entry = format!(
                "an entry of bridge {}: table {} ({table}), priority {priority}, {matching}",
                bridge.name, id.0
            );
            texts.push(match deed {
                Deed::Evicted => format!(
                    "want of room {deed} {entry}; it is put back: raise the flow_limit of that table (ovs-vsctl list \
                     flow_table), or remove it"
                ),
                _ => format!("somebody {deed} {entry}; it is put right: its tables are for this controller alone"),
            });
            bridge.unjudged = true;
            // Others rely on what one keeps that can't be changed.
            self.refresh_due |= !bridge.is_responsive();
            // What is desired of both stands; the round finds what differs.
            self.rounds.dirty.extend([owner, Owner::FABRIC]);
        }
        let entries: usize = bridge.installed.values().map(|section| section.flows.len()).sum();
        for text in texts {
            self.problem(now, dpid, &text);
        }
        if entries > ENTRIES_MAX {
            self.give_up(now, dpid, format!("others gave it more than {ENTRIES_MAX} flow entries"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::verify::tests::two_tenants;
    use super::super::{Event, SessionId};
    use super::*;
    use openflow::action::Action;
    use openflow::experimenter::ExperimenterReply;
    use openflow::message::Message;
    use openflow::multipart::{MultipartReply, Part};
    use openflow::oxm::Oxm;
    use openflow::types::Xid;

    fn update(event: FlowEvent, cookie: u64, reason: u16, instructions: Vec<Instruction>) -> FlowUpdate {
        let matching = Match::new([Oxm::InPort(PortNo(1), None)]);
        FlowUpdate::Full {
            event,
            reason,
            priority: 10,
            idle_timeout: 0,
            hard_timeout: 0,
            table: TableId(9),
            cookie: Cookie(cookie),
            matching,
            instructions,
        }
    }

    #[test]
    fn nobody_keeps_the_controller_busy_with_changes() {
        let (mut drift, now) = (Drift::default(), Instant::now());
        assert_eq!((0..5000).filter(|_| drift.pass(now)).count(), MESSAGES_MAX as usize);
        assert!(drift.pass(now + WINDOW));
    }

    /// What a bridge told of a connection that it remembers.
    fn begun(event: FlowEvent, instructions: Vec<Instruction>) -> FlowUpdate {
        let (cookie, metadata) = (marks::cookie::begun(Owner(100), TableId(14), 3), 100 | 6 << 25);
        let fields = [
            Oxm::Metadata(metadata, None),
            Oxm::EthType(0x0800, None),
            Oxm::IpProto(6, None),
            Oxm::Ipv4Src([10, 0, 0, 1].into(), None),
            Oxm::Ipv4Dst([10, 0, 0, 2].into(), None),
            Oxm::TcpSrc(40_000, None),
            Oxm::TcpDst(80, None),
        ];
        let (table, matching) = (TableId(14), Match::new(fields));
        let (reason, priority, idle_timeout, hard_timeout) = (0, 10, 7800, 0);
        FlowUpdate::Full { event, reason, priority, idle_timeout, hard_timeout, table, cookie, matching, instructions }
    }

    #[test]
    fn what_a_bridge_remembers_by_itself_is_no_drift_and_anything_else_there_is() {
        let register = openflow::oxm::FieldId::named("reg1").expect("a register");
        let range = openflow::action::BitRange::new(16, 15).expect("bits");
        let remembers = vec![Instruction::ApplyActions(vec![
            Action::FinTimeout { idle_timeout: 10, hard_timeout: 0 },
            Action::RegLoad { range, dst: register, value: 4 },
        ])];
        let mut state = BridgeState::new();
        for event in [FlowEvent::Added, FlowEvent::Modified, FlowEvent::Deleted] {
            let update = begun(event, remembers.clone());
            assert!(is_own_doing(&state, &update));
            assert_eq!(change(&mut state, update), None);
        }
        let told = change(&mut state, begun(FlowEvent::Modified, vec![])).map(|(deed, _, owner)| (deed, owner.0));
        assert_eq!(told, Some((Deed::Added, 100)), "somebody changed what it remembers");
        let back = begun(FlowEvent::Modified, remembers);
        assert!(!is_own_doing(&state, &back), "what is known has to be forgotten");
        let told = change(&mut state, back).map(|(deed, _, owner)| (deed, owner.0));
        assert_eq!(told, Some((Deed::Changed, 100)));
        assert!(state.is_empty());
    }

    /// As bonds of Open vSwitch do, which tells of 254 tables and of what happens in the one behind them.
    #[test]
    fn what_a_bridge_does_in_tables_of_its_own_is_no_drift() {
        let now = Instant::now();
        let mut core = two_tenants(now);
        let (dpid, session) = (DatapathId(1), SessionId(1));
        core.sessions.insert(session, dpid);
        let told = |core: &mut Core, number: u8| {
            let mut added = update(FlowEvent::Added, 0, 0, vec![]);
            let FlowUpdate::Full { table, .. } = &mut added else { unreachable!("a whole one") };
            *table = TableId(number);
            let body = MultipartReply::Experimenter(ExperimenterReply::FlowMonitor(vec![added]));
            let message = Message::MultipartReply(Part::whole(body));
            core.handle(now, Event::Message { session, xid: Xid(0), message });
            (core.notices.problems(now).count(), core.rounds.dirty.len())
        };
        if let Some(connection) = core.bridges.get_mut(&dpid).and_then(|bridge| bridge.connection.as_mut()) {
            connection.tables = 254;
        }
        core.rounds.dirty.clear();
        assert_eq!(told(&mut core, 254), (0, 0));
        assert_eq!(told(&mut core, 253).0, 1, "that one is there for controllers");
    }

    #[test]
    fn what_others_do_is_known_and_what_was_known_is_no_news() {
        let (ours, theirs) = (marks::cookie::of(Owner(100), TableId(9)).0, 7);
        let go = |table| vec![Instruction::GotoTable(TableId(table))];
        let mut state = BridgeState::new();
        let mut told = |update: FlowUpdate| change(&mut state, update).map(|(deed, _, owner)| (deed, owner.0));
        let add = |cookie, table| update(FlowEvent::Added, cookie, 0, go(table));
        assert_eq!(told(add(ours, 10)), Some((Deed::Added, 100)));
        assert_eq!(told(add(ours, 10)), None, "the same again");
        assert_eq!(told(update(FlowEvent::Modified, ours, 0, go(11))), Some((Deed::Changed, 100)));
        assert_eq!(told(add(theirs, 11)), Some((Deed::Changed, 100)), "it was the tenant's, and is nobody's");
        assert_eq!(told(update(FlowEvent::Deleted, theirs, 0, vec![])), None, "idle entries go by themselves");
        assert_eq!(told(update(FlowEvent::Deleted, theirs, 2, vec![])), Some((Deed::Removed, 0)));
        assert_eq!(told(add(ours, 10)), Some((Deed::Added, 100)));
        assert_eq!(told(update(FlowEvent::Deleted, ours, 5, vec![])), Some((Deed::Evicted, 100)), "for want of room");
        assert_eq!(told(update(FlowEvent::Deleted, theirs, 2, vec![])), None);
        assert_eq!(told(FlowUpdate::Own(Xid(3))), None);
        assert!(state.is_empty());
    }
}
