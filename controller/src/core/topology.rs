//! Which links there are and which carry frames, as probes tell.
//!
//! Every port that may become a link sends a probe each interval. A probe that arrives tells that its way is open; a link
//! is two open ways between the same two ports. A way closes when three probes in a row don't arrive, at once when a
//! port goes down, and when more than one port is heard behind the same port.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use apps::view::{Carrier, Endpoint, Link};
use openflow::types::DatapathId;

/// Probes that may be lost before a way counts as closed, in intervals: three, and a bit for the way itself.
const LOST: f64 = 3.25;

/// Probes of one port that may still arrive.
const OUTSTANDING: usize = 8;

/// One way between two ports.
#[derive(Clone, Copy, Debug)]
struct Heard {
    carrier: Carrier,
    first: Instant,
    last: Instant,
}

/// A link that was up once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// How it marks frames.
    pub(crate) carrier: Carrier,
    /// Is it up?
    pub(crate) up: bool,
}

/// A port that sends probes.
#[derive(Debug)]
struct Sender {
    due: Instant,
    /// Numbers of its last probes, when each was sent, and whether it has arrived.
    sent: VecDeque<(u64, Instant, bool)>,
}

/// Why a probe that arrived doesn't open a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is none of those that may still arrive.
    Stale,
    /// It has arrived somewhere already.
    Twice,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Topology {
    interval: Duration,
    next_number: u64,
    senders: BTreeMap<Endpoint, Sender>,
    due: BTreeSet<(Instant, Endpoint)>,
    /// By the port that hears, by the port that it hears.
    heard: BTreeMap<Endpoint, BTreeMap<Endpoint, Heard>>,
    known: BTreeMap<(Endpoint, Endpoint), Known>,
    scanned: Instant,
}

impl Topology {
    pub(crate) fn new(now: Instant, interval: Duration) -> Self {
        Self {
            interval,
            next_number: 0,
            senders: BTreeMap::new(),
            due: BTreeSet::new(),
            heard: BTreeMap::new(),
            known: BTreeMap::new(),
            scanned: now,
        }
    }

    /// From now on probes go out at another interval. What was open stays so until the new one tells otherwise.
    pub(crate) fn set_interval(&mut self, now: Instant, interval: Duration) {
        if self.interval == interval {
            return;
        }
        self.interval = interval;
        self.due = self.senders.keys().map(|port| (now, *port)).collect();
        self.senders.values_mut().for_each(|sender| sender.due = now);
        self.heard.values_mut().flat_map(BTreeMap::values_mut).for_each(|heard| heard.last = now);
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
    }

    /// Nothing passes a port any more, as far as anybody knows.
    pub(crate) fn silence(&mut self, port: Endpoint) {
        self.heard.remove(&port);
        for others in self.heard.values_mut() {
            others.remove(&port);
        }
    }

    /// Forgets what was known of the links at a port that is gone.
    pub(crate) fn forget(&mut self, port: Endpoint) {
        self.silence(port);
        self.known.retain(|(a, b), _| *a != port && *b != port);
    }

    /// When something has to be done.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let scan = (!self.senders.is_empty()).then(|| self.scanned + self.interval / 4);
        self.due.first().map(|(due, _)| *due).into_iter().chain(scan).min()
    }

    /// The probes that are due, by port, with their numbers.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(Endpoint, u64)> {
        let mut probes = Vec::new();
        while let Some(&(due, port)) = self.due.first().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, port));
            let Some(sender) = self.senders.get_mut(&port) else { continue };
            self.next_number += 1;
            sender.sent.push_back((self.next_number, now, false));
            if sender.sent.len() > OUTSTANDING {
                sender.sent.pop_front();
            }
            // Between 0.9 and 1.1 intervals, so that ports which began together don't stay together.
            let jitter = self.next_number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
            sender.due = now + self.interval.mul_f64(0.9 + 0.2 * jitter as f64 / 255.0);
            self.due.insert((sender.due, port));
            probes.push((port, self.next_number));
        }
        probes
    }

    /// A genuine probe has arrived. `Ok(true)`: it opened a way that was closed.
    pub(crate) fn arrived(
        &mut self,
        now: Instant,
        from: Endpoint,
        number: u64,
        at: Endpoint,
        carrier: Carrier,
    ) -> Result<bool, Refusal> {
        let sender = self.senders.get_mut(&from).ok_or(Refusal::Stale)?;
        let (_, sent, arrived) = sender.sent.iter_mut().find(|(sent, ..)| *sent == number).ok_or(Refusal::Stale)?;
        if now.duration_since(*sent) > self.interval.mul_f64(LOST) {
            return Err(Refusal::Stale);
        }
        if std::mem::replace(arrived, true) {
            return Err(Refusal::Twice);
        }
        let ways = self.heard.entry(at).or_default();
        let new = ways.get(&from).is_none_or(|heard| heard.carrier != carrier);
        let way = ways.entry(from).or_insert(Heard { carrier, first: now, last: now });
        (way.carrier, way.last) = (carrier, now);
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
                let heard = Heard { carrier: link.carrier, first: now, last: now };
                self.heard.entry(at).or_default().entry(from).or_insert(heard);
            }
        }
    }

    /// Is it time to look for what is lost? Tells for how long nobody looked although it was time: who was asleep can't
    /// tell what was lost meanwhile, so that time isn't counted.
    pub(crate) fn woke(&mut self, now: Instant) -> Option<Duration> {
        let gap = now.duration_since(self.scanned);
        if gap < self.interval / 4 {
            return None;
        }
        self.scanned = now;
        let slept = gap.saturating_sub(self.interval);
        for heard in self.heard.values_mut().flat_map(BTreeMap::values_mut) {
            heard.last = (heard.last + slept).min(now);
        }
        Some(slept)
    }

    /// The bridges at both ends of ways that no probe has passed for too long.
    pub(crate) fn closing(&self, now: Instant) -> BTreeSet<DatapathId> {
        let ways = self.heard.iter().flat_map(|(at, ways)| ways.iter().map(move |(from, heard)| (at, from, heard)));
        let closing = ways.filter(|(.., heard)| now.duration_since(heard.last) > self.interval.mul_f64(LOST));
        closing.flat_map(|(at, from, _)| [at.bridge, from.bridge]).collect()
    }

    /// Closes those ways. `true`: there were some.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let limit = self.interval.mul_f64(LOST);
        let mut closed = false;
        for ways in self.heard.values_mut() {
            ways.retain(|_, heard| {
                let open = now.duration_since(heard.last) <= limit;
                closed |= !open;
                open
            });
        }
        self.heard.retain(|_, ways| !ways.is_empty());
        closed
    }

    /// The links that are up. Gives those that came up and those that went down since the last call, too.
    pub(crate) fn links(&mut self) -> (Vec<Link>, Vec<Link>, Vec<Link>) {
        let mut up = BTreeMap::new();
        for (at, ways) in &self.heard {
            if let (1, Some((from, heard))) = (ways.len(), ways.first_key_value())
                && at < from
                && at.bridge != from.bridge
                && let Some(back) = self.heard.get(from)
                && back.len() == 1
                && back.get(at).is_some_and(|back| back.carrier == heard.carrier)
            {
                up.insert((*at, *from), heard.carrier);
            }
        }
        let (mut came, mut went) = (Vec::new(), Vec::new());
        for ((a, b), known) in &mut self.known {
            if known.up && up.get(&(*a, *b)) != Some(&known.carrier) {
                known.up = false;
                went.push(Link { a: *a, b: *b, carrier: known.carrier });
            }
        }
        for (&(a, b), &carrier) in &up {
            let known = self.known.entry((a, b)).or_insert(Known { carrier, up: false });
            if !known.up {
                *known = Known { carrier, up: true };
                came.push(Link { a, b, carrier });
            }
        }
        (up.into_iter().map(|((a, b), carrier)| Link { a, b, carrier }).collect(), came, went)
    }

    /// Every link that was ever up, between ports that still exist.
    pub(crate) fn known(&self) -> &BTreeMap<(Endpoint, Endpoint), Known> {
        &self.known
    }

    /// Ways that don't make a link, and why.
    pub(crate) fn refused(&self, now: Instant, name: impl Fn(Endpoint) -> String) -> Vec<String> {
        let mut refused = Vec::new();
        for (at, ways) in &self.heard {
            if ways.len() > 1 {
                let list: Vec<String> = ways.keys().map(|from| name(*from)).collect();
                refused.push(format!(
                    "no link at {}: probes of {} arrive there; a link joins exactly two ports",
                    name(*at),
                    list.join(" and ")
                ));
                continue;
            }
            for (from, heard) in ways {
                let back = self.heard.get(from).and_then(|ways| ways.get(at));
                if at.bridge == from.bridge {
                    if at < from {
                        refused.push(format!("no link: {} and {} are on the same bridge", name(*from), name(*at)));
                    }
                } else if back.is_none() && now.duration_since(heard.first) > self.interval.mul_f64(LOST) {
                    refused.push(format!(
                        "no link: probes pass from {} to {}, but not back; check the tunnel or cable at both ends",
                        name(*from),
                        name(*at)
                    ));
                } else if back.is_some_and(|back| back.carrier != heard.carrier) && at < from {
                    refused.push(format!(
                        "no link: {} and {} don't agree on the tunnel key; set the same options:key at both ends",
                        name(*from),
                        name(*at)
                    ));
                }
            }
        }
        refused
    }
}
