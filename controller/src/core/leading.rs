//! Which of several controllers leads. Each bridge keeps the generation that its last master gave (OpenFlow 1.3.5 §6.3.5), takes no lower
//! one, and tells it to whoever asks. That is all that controllers know of each other here, so it says who gave it and shows
//! that he lives: the lowest bits are the controller's own, those above are a term, which whoever leads raises again and again.
//!
//! Generations are in one order, and a controller only steps back before a higher one than its own highest. So of two that
//! lead at the same time exactly one steps back, at all bridges; the other one takes these, too.

use std::time::{Duration, Instant};

use openflow::error::{ErrorCode, RoleRequestFailed};
use openflow::message::Message;
use openflow::switch::{Role, RoleRequest};
use openflow::types::{DatapathId, Xid};

use super::bridge::Connection;
use super::hosts::HostTable;
use super::settling::Settling;
use super::{Core, Effect, Level};

/// Whoever leads raises its generation so often.
const BEAT: Duration = Duration::from_secs(2);

/// Whoever doesn't looks so often whether somebody does.
const LOOK: Duration = Duration::from_secs(1);

/// A generation that stood still for so long is nobody's any more.
const GONE: Duration = Duration::from_secs(10);

/// Most bridges that are asked in a second, on average.
const PER_SECOND: u32 = 500;

/// What is told while another one leads.
const OTHER: &str = "another controller leads bridges that connect here: this one writes nothing to them, and takes over when that one \
                     has shown no sign of life for 10 s; if there should be only one, stop the other (ovs-vsctl \
                     get-controller BRIDGE tells where both are)";

/// The bits of a generation that say whose it is.
const INSTANCE: u64 = 0x00ff_ffff;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stance {
    /// It has met no bridge yet that is nobody's, or its own.
    Undecided,
    /// It is master wherever it may be.
    Leading,
    /// Another one is.
    Following,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Leading {
    instance: u64,
    stance: Stance,
    term: u64,
    /// When bridges are asked again.
    next: Option<Instant>,
}

impl Leading {
    pub(crate) fn new(instance: u32) -> Self {
        Self { instance: u64::from(instance) & INSTANCE, stance: Stance::Undecided, term: 0, next: None }
    }

    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// The generation that this controller gives now.
    const fn own(&self) -> u64 {
        self.term << 24 | self.instance
    }

    const fn is_own(&self, generation: u64) -> bool {
        generation & INSTANCE == self.instance && generation != RoleRequest::NONE
    }

    /// From now on its generation is above this one.
    fn rise_above(&mut self, generation: u64) {
        self.term = self.term.max(if is_nobodys(generation) { 0 } else { generation >> 24 }) + 1;
    }
}

/// Was there no master yet, or none that told a generation?
const fn is_nobodys(generation: u64) -> bool {
    generation == RoleRequest::NONE || generation == 0
}

/// What a bridge tells of its master.
#[derive(Debug)]
pub(crate) struct Rank {
    /// The generation; `None`: it knows no roles.
    generation: Option<u64>,
    /// Since when it has been so, and when that was last told.
    since: Instant,
    told: Instant,
    /// Somebody else raised it since the bridge connected.
    moved: bool,
    /// We gave it.
    held: bool,
    /// We asked it to tell us no packets.
    quiet: bool,
    /// What isn't answered yet: a question, or with a generation a claim.
    asked: Option<(Xid, Option<u64>)>,
}

impl Rank {
    pub(crate) const fn new(now: Instant, generation: Option<u64>) -> Self {
        Self { generation, since: now, told: now, moved: false, held: false, quiet: false, asked: None }
    }

    /// Does it tell of a master, who isn't us?
    pub(crate) fn is_watched(&self) -> bool {
        !self.held && self.generation.is_some_and(|generation| !is_nobodys(generation))
    }
}

impl Core {
    /// A bridge has connected: may we lead it?
    pub(super) fn greet(&mut self, now: Instant, dpid: DatapathId) {
        let Some(Some(generation)) = self.rank(dpid).map(|rank| rank.generation) else { return };
        self.leading.next.get_or_insert(now + LOOK);
        let foreign = |rank: &Rank| rank.generation.is_some_and(|it| !is_nobodys(it) && !self.leading.is_own(it));
        let others = self.bridges.values().filter_map(|bridge| bridge.connection.as_ref()).any(|it| foreign(&it.rank));
        if self.leading.stance == Stance::Undecided
            && (self.leading.is_own(generation) || is_nobodys(generation) && !others)
        {
            self.lead_from(generation);
        }
        match self.leading.stance {
            Stance::Leading => self.lead(now, dpid),
            Stance::Undecided | Stance::Following => {
                self.only_watch(dpid);
                self.notice(now, Level::Warning, OTHER);
            }
        }
    }

    fn rank(&self, dpid: DatapathId) -> Option<&Rank> {
        self.bridges.get(&dpid)?.connection.as_ref().map(|connection| &connection.rank)
    }

    fn rank_mut(&mut self, dpid: DatapathId) -> Option<&mut Rank> {
        self.bridges.get_mut(&dpid)?.connection.as_mut().map(|connection| &mut connection.rank)
    }

    fn lead_from(&mut self, generation: u64) {
        self.leading.stance = Stance::Leading;
        self.leading.rise_above(generation);
    }

    /// We lead: this bridge, too, unless its generation is another's and higher.
    fn lead(&mut self, now: Instant, dpid: DatapathId) {
        let Some(connection) = self.bridges.get(&dpid).and_then(|bridge| bridge.connection.as_ref()) else { return };
        let Rank { generation: Some(generation), held, moved, since, .. } = connection.rank else { return };
        let own = self.leading.own();
        if held && connection.role == Role::Slave && self.leading.is_own(generation) {
            // Somebody else became its master who gives no generations of his own.
        } else if is_nobodys(generation) || generation < own {
            self.claim(now, dpid);
        } else if generation > own && (held || moved) {
            self.step_back(now);
        } else if generation > own && (self.leading.is_own(generation) || now.duration_since(since) >= GONE) {
            // It was our own in another life, or nobody's who lives.
            self.leading.rise_above(generation);
            self.claim(now, dpid);
        } else if generation > own {
            self.only_watch(dpid);
        }
    }

    /// Makes us a bridge's master. What it is sent from now on comes behind that.
    fn claim(&mut self, now: Instant, dpid: DatapathId) {
        let generation = self.leading.own();
        let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
        let xid = bridge.next_xid();
        let Some(connection) = &mut bridge.connection else { return };
        let comes_back = std::mem::replace(&mut connection.role, Role::Master) == Role::Slave;
        connection.rank.asked = Some((xid, Some(generation)));
        (connection.rank.held, connection.rank.quiet) = (true, false);
        let messages = vec![(xid, Message::RoleRequest(RoleRequest { role: Role::Master, generation }))];
        self.effects.push(Effect::Send { session: connection.session, messages });
        if comes_back {
            bridge.trouble = None;
            self.read_tables(now, dpid);
        }
    }

    /// Another one may lead: a bridge is written nothing, and tells no packets.
    fn only_watch(&mut self, dpid: DatapathId) {
        let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
        let xid = bridge.next_xid();
        let Some(connection) = &mut bridge.connection else { return };
        let Some(generation) = connection.rank.generation else { return };
        connection.role = Role::Slave;
        connection.rank.held = false;
        if !is_nobodys(generation) && !std::mem::replace(&mut connection.rank.quiet, true) {
            let messages = vec![(xid, Message::RoleRequest(RoleRequest { role: Role::Slave, generation }))];
            self.effects.push(Effect::Send { session: connection.session, messages });
        }
    }

    /// Another controller leads: all bridges are its own.
    fn step_back(&mut self, now: Instant) {
        self.leading.stance = Stance::Following;
        self.leading.next = Some(now + LOOK);
        let ranked = self.bridges.iter().filter(|(_, bridge)| {
            bridge.connection.as_ref().is_some_and(|connection| connection.rank.generation.is_some())
        });
        for dpid in ranked.map(|(dpid, _)| *dpid).collect::<Vec<_>>() {
            self.only_watch(dpid);
            if let Some(rank) = self.rank_mut(dpid) {
                (rank.since, rank.moved) = (now, true);
            }
            if let Some(bridge) = self.bridges.get_mut(&dpid) {
                bridge.trouble = None;
                bridge.connection.iter_mut().for_each(|connection| connection.reading = None);
            }
            self.lost(now, dpid);
        }
        self.refresh_due = true;
        // What it did at these bridges isn't amiss.
        self.notices.forget_problems();
        let text = "another controller leads: this one only reads from now on, at all bridges";
        self.notice(now, Level::Warning, text);
    }

    /// An answer about a role has come.
    pub(super) fn role_told(&mut self, now: Instant, dpid: DatapathId, xid: Xid, reply: RoleRequest) {
        let connection = self.bridges.get_mut(&dpid).and_then(|bridge| bridge.connection.as_mut());
        let Some(Connection { role, rank, .. }) = connection else { return };
        let Some((_, claim)) = rank.asked.take_if(|(asked, _)| *asked == xid) else { return };
        let generation = claim.unwrap_or(reply.generation);
        let same = rank.generation == Some(generation);
        if !same {
            (rank.since, rank.moved) = (now, claim.is_none());
        }
        (rank.generation, rank.told) = (Some(generation), now);
        let taken = rank.held && *role != Role::Slave && reply.role != Role::Master && (same || claim.is_some());
        match self.leading.stance {
            // By one who gives no generations of his own.
            Stance::Leading if taken => {
                self.only_reads(now, dpid);
                self.lost(now, dpid);
                self.refresh_due = true;
            }
            Stance::Leading if claim.is_none() => self.lead(now, dpid),
            Stance::Undecided if self.rank(dpid).is_some_and(|rank| rank.moved) => self.step_back(now),
            _ => {}
        }
    }

    /// Is an error about a role? What follows from it is dealt with.
    pub(super) fn role_refused(&mut self, dpid: DatapathId, xid: Xid, error: ErrorCode) -> bool {
        let connection = self.bridges.get_mut(&dpid).and_then(|bridge| bridge.connection.as_mut());
        let Some(Connection { role, reading, rank, .. }) = connection else { return false };
        let Some((_, claim)) = rank.asked.take_if(|(asked, _)| *asked == xid) else { return false };
        if error != ErrorCode::RoleRequestFailed(RoleRequestFailed::Stale) {
            // It told a generation, and takes none: it knows no roles after all.
            rank.generation = None;
        } else if claim.is_some() {
            // Somebody was there first. What he gave is told next; until then nothing is written.
            (*role, *reading) = (Role::Slave, None);
            (rank.moved, rank.held) = (true, true);
            self.ask_role(dpid);
        }
        true
    }

    pub(super) fn ask_role(&mut self, dpid: DatapathId) {
        let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
        let xid = bridge.next_xid();
        let Some(connection) = &mut bridge.connection else { return };
        if connection.rank.generation.is_none() || connection.rank.asked.is_some() {
            return;
        }
        connection.rank.asked = Some((xid, None));
        let messages = vec![(xid, Message::RoleRequest(RoleRequest { role: Role::NoChange, generation: 0 }))];
        self.effects.push(Effect::Send { session: connection.session, messages });
    }

    /// Shows that we lead, or looks whether somebody does.
    pub(super) fn beat(&mut self, now: Instant) {
        if self.leading.next.is_none_or(|next| next > now) {
            return;
        }
        let ranked = |rank: &Rank| rank.generation.is_some();
        let ranked: Vec<DatapathId> =
            self.bridges.keys().copied().filter(|dpid| self.rank(*dpid).is_some_and(ranked)).collect();
        let least = Duration::from_secs(1) * u32::try_from(ranked.len()).unwrap_or(u32::MAX) / PER_SECOND;
        let pause = if self.leading.stance == Stance::Leading { BEAT } else { LOOK }.max(least);
        self.leading.next = (!ranked.is_empty()).then_some(now + pause);
        if self.leading.stance == Stance::Leading {
            self.leading.term += 1;
        } else if self.is_silent(now, &ranked, pause) {
            return self.take_over(now, &ranked);
        }
        ranked.into_iter().for_each(|dpid| self.ask_role(dpid));
    }

    /// Has whoever led shown no sign of life for so long that he doesn't any more?
    fn is_silent(&self, now: Instant, ranked: &[DatapathId], pause: Duration) -> bool {
        let silence = GONE.max(pause * 5);
        let ranks = ranked.iter().filter_map(|dpid| self.rank(*dpid));
        let asked: Vec<&Rank> = ranks.filter(|rank| now.duration_since(rank.told) <= pause * 3).collect();
        let stands = |rank: &&&Rank| now.duration_since(rank.since) >= silence;
        asked.iter().any(|rank| stands(&rank)) && asked.iter().all(|rank| !rank.moved || stands(&rank))
    }

    /// Takes all bridges, as after a restart: nothing changes before what they hold and how they are linked is known.
    fn take_over(&mut self, now: Instant, ranked: &[DatapathId]) {
        let told = ranked.iter().filter_map(|dpid| self.rank(*dpid)?.generation).filter(|it| !is_nobodys(*it));
        self.lead_from(told.max().unwrap_or(0));
        // What was known in another life, or was computed while nothing was known, is no longer so.
        self.hosts = HostTable::default();
        self.view.trees.clear();
        self.settling = Settling::after(now, ranked.iter().copied().collect());
        ranked.iter().for_each(|dpid| self.claim(now, *dpid));
        let text = format!(
            "the controller that led has shown no sign of life for {} s: this one leads now, {} bridges",
            GONE.as_secs(),
            ranked.len()
        );
        self.notice(now, Level::Warning, &text);
    }

    /// What an operator has to know of other controllers.
    pub(super) fn leading_problem(&self) -> Option<String> {
        let mut connections = self.bridges.values().filter_map(|bridge| bridge.connection.as_ref());
        connections.any(|connection| connection.rank.is_watched()).then(|| OTHER.to_owned())
    }
}
