//! How long packets may be that links carry. What is too long vanishes without a sign in any counter, so it is measured:
//! each way of a link is tried with padded probes of several sizes, marked as tenants' frames may be.
//!
//! A packet counts as too long if it is lost while a short one, sent right behind it, comes through, three times in a row;
//! so what is only late shortens nothing. Packets beside these tell nothing about whether the link is up. All tries together
//! have a small share of the budget of probes.

mod search;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use apps::links;
use apps::marks::PROBE_KEY;
use apps::policy::Probes;
use apps::view::{Carrier, Endpoint, Link};
use openflow::action::Action;
use openflow::message::Message;
use openflow::oxm::Oxm;
use openflow::packet::{PacketIn, PacketOut};
use openflow::types::Xid;

use super::probe::{self, Probe, SHORT};
use super::topology::{Known, State};
use super::{Core, Effect, SessionId};
use search::Search;

/// A link that has just come up has other things to carry first.
const BEGIN: Duration = Duration::from_millis(300);

/// The short packet was sent behind the long one: once it is here, so long may the long one still take.
const CROSSING: Duration = Duration::from_millis(10);

/// If neither comes for so long, that says nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// About so many tries find out what a way carries, if it is what one like it does. Others wait for so long.
const TRIES: u32 = 8;

/// Time between two looks whether a link still carries what it did; longer where there are many.
const LOOK: Duration = Duration::from_secs(30);

/// Of the budget of probes, one in so many may be a try, of two packets.
const SHARE: u32 = 40;

/// While links are looked at, and nothing changed, one in so many of these.
const CALM: u32 = 5;

/// Sizes that were tried last, as long as they may come late.
const REMEMBERED: usize = 6;

/// From a port to another one.
type Ends = (Endpoint, Endpoint);

/// One way of a link.
#[derive(Debug)]
struct Way {
    carrier: Carrier,
    search: Search,
    open: Option<Try>,
    /// Numbers and sizes.
    sent: VecDeque<(u64, u16)>,
    due: Instant,
}

/// A long packet and a short one that are on their way.
#[derive(Clone, Copy, Debug)]
struct Try {
    short: u64,
    at: Instant,
    /// When the short one came.
    came: Option<Instant>,
}

/// Packets that are to be sent, the long one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    from: Endpoint,
    carrier: Carrier,
    size: u16,
    long: u64,
    short: u64,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Mtu {
    ways: BTreeMap<Ends, Way>,
    due: BTreeSet<(Instant, Ends)>,
    next_number: u64,
    /// What was found last, by carriers, whatever their key.
    guesses: BTreeMap<Carrier, u16>,
    /// Between two tries, wherever.
    pace: Duration,
    free: Instant,
    /// When the next way begins. One after the other soon says what to guess, all together would only wait for each other.
    begins: Instant,
    /// The longest packets that tenants say to have.
    wanted: u16,
    /// Which changes of links it knows.
    seen: u64,
    /// Of these something else was found than before.
    changed: BTreeSet<Ends>,
}

impl Mtu {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            ways: BTreeMap::new(),
            due: BTreeSet::new(),
            next_number: 0,
            guesses: BTreeMap::new(),
            pace: pace(Probes::default()),
            free: now,
            begins: now,
            wanted: 0,
            seen: 0,
            changed: BTreeSet::new(),
        }
    }

    /// From now on tries go out as often as these probes allow. `wanted` are the longest packets that tenants say to have.
    pub(crate) fn set(&mut self, probes: Probes, wanted: u16) {
        (self.pace, self.wanted) = (pace(probes), wanted);
    }

    /// The octets of the longest packet that a link carries both ways, with a mark of ours if it is of a kind that needs one;
    /// 9000: that, and perhaps more; 0: none with a mark. `None`: that isn't known yet.
    pub(crate) fn of(&self, link: &Link) -> Option<u16> {
        let way = |from, at| self.ways.get(&(from, at))?.search.found;
        Some(way(link.a, link.b)?.min(way(link.b, link.a)?))
    }

    /// Links came up or went down.
    fn follow<'a>(&mut self, now: Instant, known: impl Iterator<Item = (&'a Ends, &'a Known)>) {
        let links: BTreeMap<Ends, &Known> =
            known.filter(|(_, known)| known.state != State::Down).map(|(ends, known)| (*ends, known)).collect();
        let both = |(a, b)| links.get(&(a, b)).or_else(|| links.get(&(b, a))).copied();
        let (due, begins) = (&mut self.due, &mut self.begins);
        *begins = now.max(*begins);
        self.ways.retain(|ends, way| {
            let stays = both(*ends).is_some_and(|known| known.carrier == way.carrier);
            if !stays {
                due.remove(&(way.due, *ends));
            }
            stays
        });
        for (&(a, b), known) in links.iter().filter(|(_, known)| known.is_up()) {
            for ends in [(a, b), (b, a)] {
                self.ways.entry(ends).or_insert_with(|| {
                    let at = *begins + BEGIN;
                    *begins += self.pace * TRIES;
                    due.insert((at, ends));
                    Way { carrier: known.carrier, search: Search::new(), open: None, sent: VecDeque::new(), due: at }
                });
            }
        }
    }

    /// When something has to be done.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| (*due).max(self.free))
    }

    /// What is to be sent now.
    fn due(&mut self, now: Instant) -> Vec<Pair> {
        let mut pairs = Vec::new();
        // A few may go together after a pause.
        self.free = self.free.max(now.checked_sub(self.pace * 4).unwrap_or(now));
        let rest = self.rest();
        while let Some(&(due, ends)) = self.due.first().filter(|(due, _)| *due <= now && self.free <= now) {
            self.due.remove(&(due, ends));
            let Some(way) = self.ways.get_mut(&ends) else { continue };
            way.due = match way.open {
                Some(open) if open.came.is_some_and(|came| now >= came + CROSSING) => {
                    way.open = None;
                    let before = way.search.found;
                    way.search.lost();
                    if way.search.found != before {
                        self.changed.insert(ends);
                        self.guesses.extend(way.learnt());
                    }
                    now + way.search.pause(rest)
                }
                Some(open) if now < open.at + PATIENCE => open.came.map_or(open.at + PATIENCE, |came| came + CROSSING),
                _ => {
                    let size = way.search.aim(self.guesses.get(&kind(way.carrier)).copied(), self.wanted);
                    let (long, short) = (self.next_number + 1, self.next_number + 2);
                    self.next_number = short;
                    if way.sent.len() == REMEMBERED {
                        way.sent.pop_front();
                    }
                    way.sent.push_back((long, size));
                    way.open = Some(Try { short, at: now, came: None });
                    self.free += self.pace;
                    pairs.push(Pair { from: ends.0, carrier: way.carrier, size, long, short });
                    now + PATIENCE
                }
            };
            self.due.insert((way.due, ends));
        }
        pairs
    }

    /// One of the packets came.
    fn arrived(&mut self, now: Instant, ends: Ends, number: u64) {
        let rest = self.rest();
        let Some(way) = self.ways.get_mut(&ends) else { return };
        let before = way.search.found;
        let due = if let Some((long, size)) = way.sent.iter().find(|(long, _)| *long == number).copied() {
            way.sent.retain(|(other, _)| *other != long);
            way.search.passed(size);
            if way.search.found != before {
                self.changed.insert(ends);
                self.guesses.extend(way.learnt());
            }
            // A late one needn't wait for what is open.
            way.open = None;
            now + way.search.pause(rest)
        } else if let Some(open) = way.open.as_mut().filter(|open| open.short == number && open.came.is_none()) {
            open.came = Some(now);
            now + CROSSING
        } else {
            return;
        };
        self.due.remove(&(way.due, ends));
        way.due = due;
        self.due.insert((due, ends));
    }

    /// Time between two looks at a way.
    fn rest(&self) -> Duration {
        LOOK.max(self.pace * CALM * u32::try_from(self.ways.len()).unwrap_or(u32::MAX))
    }
}

impl Way {
    /// What others like it may carry, too.
    fn learnt(&self) -> Option<(Carrier, u16)> {
        Some((kind(self.carrier), self.search.found.filter(|found| *found > 0)?))
    }
}

fn pace(probes: Probes) -> Duration {
    let budget = if let Probes::Budget(budget) = probes { budget } else { Probes::BUDGET };
    Duration::from_secs(SHARE.into()) / u32::from(budget).max(1)
}

fn kind(carrier: Carrier) -> Carrier {
    if let Carrier::Dedicated(_) = carrier { Carrier::Dedicated(0) } else { carrier }
}

impl Core {
    /// Tries what is to be tried now.
    pub(super) fn measure(&mut self, now: Instant) {
        if std::mem::replace(&mut self.mtu.seen, self.topology.changes()) != self.topology.changes() {
            self.mtu.follow(now, self.topology.known().iter());
            let mtu = &self.mtu;
            self.view.mtus.retain(|link, _| mtu.of(link).is_some());
        }
        let mut batches: BTreeMap<SessionId, Vec<(Xid, Message)>> = BTreeMap::new();
        for pair in self.mtu.due(now) {
            let from = pair.from;
            // No tenant, no marks: there is nothing to be measured.
            let Some(tag) = self.mark(pair.carrier) else { continue };
            let Some(bridge) = self.bridges.get_mut(&from.bridge) else { continue };
            let Some(session) = bridge.connection.as_ref().map(|connection| connection.session) else { continue };
            let Some(address) = bridge.ports.get(&from.port).map(|port| port.port.address) else { continue };
            let long = Probe { from, number: pair.long, size: pair.size };
            let short = Probe { from, number: pair.short, size: SHORT };
            for frame in [long.encode_long(&self.probe_key, address, tag), short.encode(&self.probe_key, address)] {
                let key = Action::SetField(Oxm::TunnelId(PROBE_KEY.into(), None));
                let out = PacketOut::new(vec![key, Action::output(from.port)], frame);
                batches.entry(session).or_default().push((bridge.next_xid(), Message::PacketOut(out)));
            }
        }
        for (session, messages) in batches {
            self.effects.push(Effect::Send { session, messages });
        }
        self.measured();
    }

    /// A tag as the longest mark on links of this kind has it, if marks are tags; `None`: nobody uses them.
    fn mark(&self, carrier: Carrier) -> Option<Option<u16>> {
        let allocations = &self.memory.allocations;
        let mut tenants = self.policy.tenants.iter().filter_map(|tenant| allocations.of(&tenant.name));
        tenants.find(|numbers| links::usable(carrier, *numbers)).map(|numbers| links::flood_tag(carrier, numbers))
    }

    /// A packet of a try came in at a port. The long one counts if it has its length still.
    pub(super) fn size_probe_in(&mut self, now: Instant, probe: Probe, at: Endpoint, packet: &PacketIn) {
        if probe.size == SHORT || usize::from(packet.total_len) >= probe::header(&packet.data) + usize::from(probe.size)
        {
            self.mtu.arrived(now, (probe.from, at), probe.number);
            self.measured();
        }
    }

    /// What was found is seen by everybody.
    fn measured(&mut self) {
        for (from, at) in std::mem::take(&mut self.mtu.changed) {
            let ends = (from.min(at), from.max(at));
            let Some(known) = self.topology.known().get(&ends) else { continue };
            let link = Link { a: ends.0, b: ends.1, carrier: known.carrier };
            match self.mtu.of(&link) {
                Some(octets) => _ = self.view.mtus.insert(link, octets),
                None => _ = self.view.mtus.remove(&link),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use openflow::types::{DatapathId, PortNo};

    use super::search::MOST;
    use super::*;
    use crate::core::damping::Damping;
    use crate::core::topology::Sign;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// Links in a row, of which each way carries packets of so many octets.
    struct Row {
        mtu: Mtu,
        now: Instant,
        known: BTreeMap<Ends, Known>,
        carries: BTreeMap<Ends, u16>,
        /// How long the next packets take, in turn.
        delays: Vec<u64>,
        crossing: Vec<(Instant, Ends, u64)>,
        sent: usize,
    }

    fn link(number: u64) -> Link {
        let end = |bridge, port| Endpoint { bridge: DatapathId(bridge), port: PortNo(port) };
        Link { a: end(number, 1), b: end(number + 1, 2), carrier: Carrier::Tunnel }
    }

    impl Row {
        fn new(links: &[u16]) -> Self {
            let now = Instant::now();
            let (mut known, mut carries) = (BTreeMap::new(), BTreeMap::new());
            for (Link { a, b, carrier }, octets) in (1..).map(link).zip(links) {
                let (state, damping, lost_by) = (State::Up, Damping::default(), Sign::Probes);
                known.insert((a, b), Known { carrier, state, damping, withheld: false, since: now, lost_by });
                carries.extend([((a, b), *octets), ((b, a), *octets)]);
            }
            let mut mtu = Mtu::new(now);
            mtu.follow(now, known.iter());
            Self { mtu, now, known, carries, delays: vec![0], crossing: Vec::new(), sent: 0 }
        }

        fn run(&mut self, milliseconds: u64) {
            for _ in 0..milliseconds {
                self.now += MS(1);
                let now = self.now;
                let came = |(at, ..): &(Instant, Ends, u64)| *at <= now;
                for (_, ends, number) in self.crossing.extract_if(.., |it| came(it)) {
                    self.mtu.arrived(now, ends, number);
                }
                if self.mtu.deadline().is_none_or(|deadline| deadline > now) {
                    continue;
                }
                for pair in self.mtu.due(now) {
                    let ends = *self.carries.keys().find(|(from, _)| *from == pair.from).unwrap();
                    self.delays.rotate_left(1);
                    for (number, size) in [(pair.long, pair.size), (pair.short, SHORT)] {
                        self.sent += 1;
                        if size <= self.carries[&ends] {
                            self.crossing.push((now + MS(self.delays[0]), ends, number));
                        }
                    }
                }
            }
        }

        fn found(&self) -> Vec<Option<u16>> {
            (1..=self.known.len() as u64).map(|number| self.mtu.of(&link(number))).collect()
        }
    }

    #[test]
    fn a_few_links_are_measured_within_seconds_and_little_is_sent_then() {
        let links = [1550, 1550, 1450, 9500, 1499, 200];
        let mut row = Row::new(&links);
        row.run(250);
        assert_eq!((row.found(), row.sent), (vec![None; 6], 0));
        row.run(7750);
        assert_eq!(row.found(), links.map(|octets| Some(octets.min(MOST))));
        row.run(500);
        row.sent = 0;
        row.run(60_000);
        assert!((24..=60).contains(&row.sent), "{} packets in a minute for 12 ways", row.sent);
    }

    #[test]
    fn late_packets_and_slow_ways_shorten_nothing() {
        for delays in [vec![200], vec![0, 90, 5], vec![900, 1, 1, 300], vec![1900]] {
            let mut row = Row::new(&[1550, 1450]);
            row.delays = delays;
            for _ in 0..60 {
                row.run(1000);
                let found = row.found();
                assert!(found[0].is_none_or(|it| it == 1550) && found[1].is_none_or(|it| it == 1450), "{found:?}");
            }
            assert_eq!(row.found(), [Some(1550), Some(1450)], "{:?}", row.delays);
        }
    }

    #[test]
    fn the_smaller_of_both_ways_counts_and_what_changes_is_seen() {
        let mut row = Row::new(&[1550]);
        let Link { a, b, .. } = link(1);
        row.carries.insert((b, a), 1400);
        row.run(3000);
        assert_eq!(row.found(), [Some(1400)]);
        for octets in [1350, 1549] {
            row.carries.extend([((a, b), octets), ((b, a), octets)]);
            row.mtu.set(Probes::default(), 1500);
            row.run(35_000);
            assert_eq!(row.found(), [Some(octets)]);
        }
        // Nothing comes through, not even short packets: then nobody knows.
        row.carries.extend([((a, b), 0), ((b, a), 0)]);
        row.run(65_000);
        assert_eq!(row.found(), [Some(1549)]);
        // Packets with a mark alone don't.
        row.carries.extend([((a, b), SHORT), ((b, a), SHORT)]);
        row.run(35_000);
        assert_eq!(row.found(), [Some(0)]);
        // Where it was mended, that is seen soon.
        row.carries.extend([((a, b), 1500), ((b, a), 1500)]);
        row.run(8_000);
        assert_eq!(row.found(), [Some(1500)]);
        row.known.values_mut().for_each(|known| known.state = State::Down);
        row.mtu.follow(row.now, row.known.iter());
        assert_eq!((row.found(), row.mtu.deadline()), (vec![None], None));
    }

    #[test]
    fn many_links_share_a_twentieth_of_the_budget() {
        let mut row = Row::new(&vec![1550; 1000]);
        for _ in 0..20 {
            let before = row.sent;
            row.run(1000);
            assert!(row.sent - before <= 260, "{} packets in a second", row.sent - before);
        }
        row.run(125_000);
        assert!(row.found().iter().all(|found| *found == Some(1550)));
        row.sent = 0;
        row.run(60_000);
        assert!(row.sent <= 60 * 70, "{} packets in a minute", row.sent);
    }
}
