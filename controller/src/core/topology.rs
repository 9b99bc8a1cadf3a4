//! Which links there are and which carry frames, as probes tell.
//!
//! Every port that may become a link sends a probe each interval. A probe that arrives tells that its way is open; a link
//! is two open ways between the same two ports. A way closes at once when a port goes down, when more than one port is
//! heard behind the same port, and when its probes are lost.
//!
//! A probe that is missing may also be late: a bridge, its channel, the machine or the controller may be slow. So probes
//! are held against others, not against the clock: three are lost if later ones came by the bridges at both ends, twice as
//! many if there were none to compare with. And in any case both bridges have answered since: the sender's answer shows
//! that it has sent them, the receiver's, to a question that was put a little later, that it has told of all that came.

mod judgement;
mod links;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use apps::policy::Probes;
use apps::view::{Carrier, Endpoint, Link};
pub(crate) use links::{Known, Sign, State};
use openflow::types::{DatapathId, PortNo};

/// Probes of one port that may still arrive: at least so many, and those of the last second.
const OUTSTANDING: usize = 8;
const REMEMBERED: Duration = Duration::from_secs(1);

/// However long probes took lately, no longer than this is waited for one.
const DELAY_MAX: Duration = Duration::from_millis(500);

/// Shortest and longest interval where ports share a budget.
const INTERVAL: [Duration; 2] = [Duration::from_millis(40), Duration::from_secs(1)];

/// One way between two ports.
#[derive(Clone, Copy, Debug)]
struct Heard {
    carrier: Carrier,
    first: Instant,
    /// The newest probe that came.
    last: u64,
    /// What probes took lately, from the controller to the controller.
    delay: Duration,
    /// From then on, what was sent before its newest missing probes were has crossed the link if it ever does.
    crossed: Option<Instant>,
}

/// A port that sends probes.
#[derive(Debug)]
struct Sender {
    due: Instant,
    /// Its last probes.
    sent: VecDeque<Sent>,
}

/// A probe on its way.
#[derive(Clone, Copy, Debug)]
struct Sent {
    number: u64,
    at: Instant,
    /// Where it arrived first.
    arrived: Option<Endpoint>,
}

/// Why a probe that arrived doesn't open a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is none of those that may still arrive.
    Stale,
    /// It has arrived at this port already.
    Twice,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Topology {
    probes: Probes,
    interval: Duration,
    next_number: u64,
    senders: BTreeMap<Endpoint, Sender>,
    due: BTreeSet<(Instant, Endpoint)>,
    /// By the port that hears, by the port that it hears.
    heard: BTreeMap<Endpoint, BTreeMap<Endpoint, Heard>>,
    /// The newest of the probes that a bridge sent and that arrived anywhere; and that arrived at a bridge from anywhere.
    departed: BTreeMap<DatapathId, u64>,
    delivered: BTreeMap<DatapathId, u64>,
    known: BTreeMap<(Endpoint, Endpoint), Known>,
    /// How often what is known of links changed.
    changes: u64,
    /// Ports that told by themselves that nothing passes them, since the last look at links.
    signs: BTreeMap<Endpoint, Sign>,
    scanned: Instant,
    /// When there is something to look at before the next scan.
    again: Option<Instant>,
    /// When the first link that is withheld may be used again.
    calm: Option<Instant>,
}

impl Topology {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            probes: Probes::default(),
            interval: INTERVAL[0],
            next_number: 0,
            senders: BTreeMap::new(),
            due: BTreeSet::new(),
            heard: BTreeMap::new(),
            departed: BTreeMap::new(),
            delivered: BTreeMap::new(),
            known: BTreeMap::new(),
            changes: 0,
            signs: BTreeMap::new(),
            scanned: now,
            again: None,
            calm: None,
        }
    }

    /// Time between two probes of a port.
    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    /// From now on probes go out so often. What was open stays so until the new ones tell otherwise.
    pub(crate) fn set_probes(&mut self, now: Instant, probes: Probes) {
        self.probes = probes;
        self.set_pace(now);
    }

    fn set_pace(&mut self, now: Instant) {
        let interval = match self.probes {
            Probes::Every(interval) => interval,
            Probes::Budget(per_second) => {
                let [shortest, longest] = INTERVAL;
                let wanted = Duration::from_secs(1).mul_f64(self.senders.len() as f64 / f64::from(per_second));
                let wanted = wanted.clamp(shortest, longest);
                // With some room, so that a few ports more or fewer change nothing.
                let fits = wanted <= self.interval && self.interval <= wanted.mul_f64(1.25);
                match () {
                    () if fits => self.interval,
                    () if wanted == shortest => shortest,
                    () => wanted.mul_f64(1.1).min(longest),
                }
            }
        };
        if self.interval == interval {
            return;
        }
        self.interval = interval;
        // Whoever would come too late now gets a turn within the new interval, one after the other.
        let count = self.senders.len().max(1) as f64;
        for (index, (port, sender)) in self.senders.iter_mut().enumerate() {
            if sender.due > now + interval {
                self.due.remove(&(sender.due, *port));
                sender.due = now + interval.mul_f64(index as f64 / count);
                self.due.insert((sender.due, *port));
            }
        }
    }

    /// From here on exactly these ports send probes.
    pub(crate) fn set_senders(&mut self, now: Instant, ports: &BTreeSet<Endpoint>) {
        let gone: Vec<Endpoint> = self.senders.keys().filter(|port| !ports.contains(port)).copied().collect();
        for port in gone {
            if let Some(sender) = self.senders.remove(&port) {
                self.due.remove(&(sender.due, port));
            }
            self.silence(port);
        }
        for port in ports {
            self.senders.entry(*port).or_insert_with(|| {
                self.due.insert((now, *port));
                Sender { due: now, sent: VecDeque::new() }
            });
        }
        let sends = |bridge: &DatapathId| {
            let first = Endpoint { bridge: *bridge, port: PortNo(0) };
            ports.range(first..).next().is_some_and(|port| port.bridge == *bridge)
        };
        self.departed.retain(|bridge, _| sends(bridge));
        self.delivered.retain(|bridge, _| sends(bridge));
        self.set_pace(now);
    }

    /// Do probes go out by a port?
    pub(crate) fn sends(&self, port: Endpoint) -> bool {
        self.senders.contains_key(&port)
    }

    /// Nothing passes a port any more, as far as anybody knows.
    pub(crate) fn silence(&mut self, port: Endpoint) {
        self.heard.remove(&port);
        for others in self.heard.values_mut() {
            others.remove(&port);
        }
    }

    /// A port tells that nothing passes it.
    pub(crate) fn port_down(&mut self, port: Endpoint, sign: Sign) {
        self.signs.insert(port, sign);
        self.silence(port);
    }

    /// Forgets what was known of the links at a port that is gone.
    pub(crate) fn forget(&mut self, port: Endpoint) {
        self.silence(port);
        self.known.retain(|(a, b), _| *a != port && *b != port);
        self.changes += 1;
    }

    /// When something has to be done.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let scan = (!self.senders.is_empty()).then(|| self.scanned + self.interval / 4);
        let due = self.due.first().map(|(due, _)| *due);
        due.into_iter().chain(scan).chain(self.again).chain(self.calm).min()
    }

    /// The probes that are due, by port, with their numbers.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(Endpoint, u64)> {
        let mut probes = Vec::new();
        while let Some(&(due, port)) = self.due.first().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, port));
            let Some(sender) = self.senders.get_mut(&port) else { continue };
            self.next_number += 1;
            while sender.sent.len() >= OUTSTANDING
                && sender.sent.front().is_some_and(|first| now.duration_since(first.at) > REMEMBERED)
            {
                sender.sent.pop_front();
            }
            sender.sent.push_back(Sent { number: self.next_number, at: now, arrived: None });
            // Between 0.9 and 1.1 intervals, so that ports which began together don't stay together.
            let jitter = self.next_number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
            // Who hears several ports is heard by several, too: together they get as much as one would.
            let sharing = self.heard.get(&port).map_or(1, |ways| ways.len().max(1)) as f64;
            sender.due = now + self.interval.mul_f64((0.9 + 0.2 * jitter as f64 / 255.0) * sharing);
            self.due.insert((sender.due, port));
            probes.push((port, self.next_number));
        }
        probes
    }

    /// Is this one of the probes that were sent lately?
    pub(crate) fn is_outstanding(&self, from: Endpoint, number: u64) -> bool {
        self.senders.get(&from).is_some_and(|sender| sender.sent.iter().any(|sent| sent.number == number))
    }

    /// A genuine probe has arrived. `Ok(true)`: it opened a way that was closed. One that has arrived at another port, too,
    /// opens a way to each of them: then these ports share a segment, and there is no link.
    pub(crate) fn arrived(
        &mut self,
        now: Instant,
        from: Endpoint,
        number: u64,
        at: Endpoint,
        carrier: Carrier,
    ) -> Result<bool, Refusal> {
        let sender = self.senders.get_mut(&from).ok_or(Refusal::Stale)?;
        let sent = sender.sent.iter_mut().find(|sent| sent.number == number).ok_or(Refusal::Stale)?;
        if sent.arrived == Some(at) {
            return Err(Refusal::Twice);
        }
        sent.arrived.get_or_insert(at);
        let delay = now.duration_since(sent.at).min(DELAY_MAX);
        for (newest, bridge) in [(&mut self.departed, from.bridge), (&mut self.delivered, at.bridge)] {
            let newest = newest.entry(bridge).or_default();
            *newest = number.max(*newest);
        }
        let ways = self.heard.entry(at).or_default();
        let new = ways.get(&from).is_none_or(|heard| heard.carrier != carrier);
        let way = ways.entry(from).or_insert(Heard { carrier, first: now, last: 0, delay, crossed: None });
        way.carrier = carrier;
        way.delay = delay.max(way.delay.mul_f64(0.875));
        if number > way.last {
            (way.last, way.crossed) = (number, None);
        }
        // The other way is asked for at once, so that a link needn't wait for its turn.
        if new
            && let Some(sender) = self.senders.get_mut(&at)
            && self.due.remove(&(sender.due, at))
        {
            sender.due = now;
            self.due.insert((now, at));
        }
        Ok(new)
    }

    /// Takes a link as up until probes tell otherwise.
    pub(crate) fn presume(&mut self, now: Instant, link: Link) {
        for (at, from) in [(link.a, link.b), (link.b, link.a)] {
            if self.senders.contains_key(&at) && self.senders.contains_key(&from) {
                let (last, delay) = (self.next_number, Duration::ZERO);
                let heard = Heard { carrier: link.carrier, first: now, last, delay, crossed: None };
                self.heard.entry(at).or_default().entry(from).or_insert(heard);
            }
        }
    }

    /// Is it time to look for what is lost? Tells for how long nobody looked although it was time: who was asleep can't
    /// tell how long bridges were silent meanwhile, so that time isn't counted.
    pub(crate) fn woke(&mut self, now: Instant) -> Option<Duration> {
        let gap = now.duration_since(self.scanned);
        if gap < self.interval / 4 && self.again.is_none_or(|again| now < again) {
            return None;
        }
        self.scanned = now;
        Some(gap.saturating_sub(self.interval))
    }
}
