//! Something behind a tenant's ports that joins two of them: what is flooded out of one comes back by the other, with the sources
//! of all hosts. A host that moves may be the first sign of it, so the ports that it moves between are tried with probes. A
//! probe that comes in by another port of the tenant shows the loop, and one of the two ports is shut for floods until probes no
//! longer pass: it is sent nothing that is for everybody, what it sends to everybody is dropped, and nobody is learnt there.
//! Whoever is behind a port can only shut his own: a probe comes out of the one port that it is meant for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use apps::attachment::PortUse;
use apps::view::Endpoint;
use openflow::types::{DatapathId, PortNo};

use super::{Core, Effect, Level};

/// For how long ports are tried that a host has moved between.
const TRIAL: Duration = Duration::from_secs(1);

/// Where no probe has passed for so long, nothing joins two ports any more.
const OPEN: Duration = Duration::from_secs(10);

/// When several ports could be opened, one is, and the others wait for so long: two of them may be joined.
const NEXT: Duration = Duration::from_secs(2);

/// Most ports that are tried at the same time.
const TRIED_MAX: usize = 256;

/// A port that is shut for floods, kept over restarts: by datapath ids and numbers, it and the port that it is joined with.
pub(crate) type Kept = ((u64, u32), (u64, u32));

/// A port that is shut for floods.
#[derive(Clone, Copy, Debug)]
struct Shut {
    /// What comes in by it went out there, or the other way round.
    joined: Endpoint,
    /// When a probe last passed.
    heard: Instant,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Loops {
    /// Ports that are tried, until when.
    tried: BTreeMap<Endpoint, Instant>,
    shut: BTreeMap<Endpoint, Shut>,
}

impl Loops {
    /// As it was before a restart.
    pub(crate) fn after(now: Instant, kept: &BTreeSet<Kept>) -> Self {
        let place = |(bridge, port): (u64, u32)| Endpoint { bridge: DatapathId(bridge), port: PortNo(port) };
        let shut = kept.iter().map(|(port, other)| (place(*port), Shut { joined: place(*other), heard: now }));
        Self { tried: BTreeMap::new(), shut: shut.collect() }
    }

    fn kept(&self) -> BTreeSet<Kept> {
        let numbers = |place: Endpoint| (place.bridge.0, place.port.0);
        self.shut.iter().map(|(port, shut)| (numbers(*port), numbers(shut.joined))).collect()
    }

    pub(crate) fn is_shut(&self, place: Endpoint) -> bool {
        self.shut.contains_key(&place)
    }

    /// Ports that probes go out by.
    pub(crate) fn probed(&self) -> impl Iterator<Item = Endpoint> {
        self.tried.keys().copied().chain(self.shut.iter().flat_map(|(port, shut)| [*port, shut.joined]))
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let opened = self.shut.values().map(|shut| shut.heard + OPEN);
        self.tried.values().copied().chain(opened).min()
    }

    /// Tries ports from now on. `true`: some weren't.
    fn attempt(&mut self, now: Instant, places: impl Iterator<Item = Endpoint>) -> bool {
        let mut new = false;
        for place in places {
            if self.tried.len() < TRIED_MAX || self.tried.contains_key(&place) {
                new |= self.tried.insert(place, now + TRIAL).is_none();
            }
        }
        new
    }

    /// A probe of one port came in by another one, or by the same. Gives the port that is shut because of that.
    fn passed(&mut self, now: Instant, at: Endpoint, from: Endpoint) -> Option<Endpoint> {
        let pair = [at, from];
        match pair.map(|place| self.shut.contains_key(&place)) {
            [false, false] => {
                let (joined, port) = (at.min(from), at.max(from));
                self.shut.insert(port, Shut { joined, heard: now });
                return Some(port);
            }
            // The loop would be there again with both of them open.
            [true, true] if at != from => {}
            _ => {
                for place in pair {
                    self.shut.entry(place).and_modify(|shut| shut.heard = now);
                }
            }
        }
        None
    }

    /// Where no probe could pass, that none did shows nothing. `sends`: do probes go out by a port, and did they until now?
    pub(crate) fn excuse(&mut self, now: Instant, sends: impl Fn(Endpoint) -> bool) {
        let waits = self.shut.iter_mut().filter(|(port, shut)| !(sends(**port) && sends(shut.joined)));
        waits.for_each(|(_, shut)| shut.heard = now);
    }

    /// No longer tries what has been tried for long enough, and gives the port that may be opened, if there is one.
    fn expire(&mut self, now: Instant) -> Option<(Endpoint, Endpoint)> {
        self.tried.retain(|_, until| *until > now);
        let mut over = self.shut.iter_mut().filter(|(_, shut)| now.duration_since(shut.heard) >= OPEN);
        let (port, joined) = over.next().map(|(port, shut)| (*port, shut.joined))?;
        over.for_each(|(_, shut)| shut.heard = now.checked_sub(OPEN - NEXT).unwrap_or(now));
        self.shut.remove(&port);
        Some((port, joined))
    }
}

impl Core {
    /// A host of a tenant is claimed at one port after another.
    pub(super) fn suspect_loop(&mut self, now: Instant, places: impl Iterator<Item = Endpoint>) {
        if self.loops.attempt(now, places) {
            self.set_probed(now);
        }
    }

    /// A probe came in. `true`: something behind two ports of a tenant, or behind one, passed it on.
    pub(super) fn loop_heard(&mut self, now: Instant, at: Endpoint, from: Endpoint) -> bool {
        let (PortUse::Tenant(one), PortUse::Tenant(other)) = (self.attachments.of(at), self.attachments.of(from))
        else {
            return false;
        };
        if one.tenant != other.tenant {
            return false;
        }
        let tenant = one.tenant.clone();
        if let Some(port) = self.loops.passed(now, at, from) {
            let joined = if port == at { from } else { at };
            let text = self.loop_problem(port, joined);
            self.notice_of(now, port.bridge, Level::Warning, &text);
            self.hosts.forget_strays(&tenant, port);
            self.keep_loops();
            self.refresh_due = true;
        }
        true
    }

    /// Ports that are no tenant's any more, or gone, are shut no more, and those that nothing joins.
    pub(super) fn expire_loops(&mut self, now: Instant) {
        if self.loops.deadline().is_none_or(|due| now < due) {
            return;
        }
        // Ports that can't be probed right now are excused.
        self.set_probed(now);
        if let Some((port, joined)) = self.loops.expire(now) {
            let (here, there) = (self.port_name(port), self.port_name(joined));
            let text = format!("{here} takes part in floods again: probes no longer pass between it and {there}");
            self.notice_of(now, port.bridge, Level::Info, &text);
            // If the loop is still there, the first flood shows it.
            self.loops.attempt(now, [port, joined].into_iter());
            self.keep_loops();
            self.refresh_due = true;
        }
        self.set_probed(now);
    }

    /// The fabric has changed: only tenants' ports are shut.
    pub(super) fn refresh_loops(&mut self) {
        let (attachments, bridges) = (&self.attachments, &self.view.bridges);
        let before = self.loops.shut.len();
        self.loops.shut.retain(|port, _| !bridges.contains_key(&port.bridge) || attachments.tenant(*port).is_some());
        if self.loops.shut.len() != before {
            self.keep_loops();
        }
    }

    fn keep_loops(&mut self) {
        self.memory.loops = self.loops.kept();
        self.effects.push(Effect::Save(self.memory.clone()));
    }

    /// What an operator should know of loops behind tenants' ports.
    pub(super) fn loop_problems(&self) -> impl Iterator<Item = String> {
        self.loops.shut.iter().map(|(port, shut)| self.loop_problem(*port, shut.joined))
    }

    fn loop_problem(&self, port: Endpoint, joined: Endpoint) -> String {
        let (here, there) = (self.port_name(port), self.port_name(joined));
        let tenant = self.attachments.tenant(port).map_or("", |attached| attached.tenant.as_str());
        let what = if port == joined {
            format!("what is behind {here} sends back what it gets")
        } else {
            format!("what is behind {there} and {here} passes frames from one to the other")
        };
        format!(
            "a loop in tenant {tenant}: {what}; {here} is shut for floods, both ways, until probes no longer come back; look for a \
             bridge or a cable behind these ports (bridge link), and take one port out of it"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(port: u32) -> Endpoint {
        Endpoint { bridge: DatapathId(1), port: PortNo(port) }
    }

    fn shut(loops: &Loops) -> Vec<u32> {
        loops.shut.keys().map(|place| place.port.0).collect()
    }

    #[test]
    fn of_ports_that_are_joined_all_but_one_are_shut_and_opened_one_by_one() {
        let (mut loops, start) = (Loops::default(), Instant::now());
        let pairs = [(1, 2), (2, 1), (1, 3), (3, 2), (2, 3)];
        for (at, from) in pairs {
            loops.passed(start, place(at), place(from));
        }
        assert_eq!(shut(&loops), [2, 3]);
        // The first port is taken out of it: one of the others is opened, and that shows that they are still joined.
        let later = start + OPEN;
        for second in 1..10 {
            loops.passed(start + Duration::from_secs(second), place(2), place(3));
        }
        assert_eq!(loops.expire(later - Duration::from_millis(1)), None);
        assert_eq!(loops.expire(later), Some((place(2), place(1))));
        loops.passed(later, place(2), place(3));
        assert_eq!(loops.expire(later + NEXT), None);
        assert_eq!(shut(&loops), [3]);
        assert_eq!(loops.expire(later + OPEN), Some((place(3), place(1))));
    }

    #[test]
    fn a_port_that_sends_back_what_it_gets_is_shut_itself_and_what_is_shut_outlasts_a_restart() {
        let (mut loops, start) = (Loops::default(), Instant::now());
        assert_eq!(loops.passed(start, place(5), place(5)), Some(place(5)));
        loops.passed(start + Duration::from_secs(5), place(5), place(5));
        assert_eq!(loops.expire(start + OPEN), None, "it still does");
        let mut loops = Loops::after(start, &loops.kept());
        assert!(loops.is_shut(place(5)) && loops.probed().any(|it| it == place(5)));
        assert_eq!(loops.expire(start + OPEN), Some((place(5), place(5))));
    }

    #[test]
    fn a_port_is_not_opened_because_nobody_could_send_probes() {
        let (mut loops, start) = (Loops::default(), Instant::now());
        loops.passed(start, place(1), place(2));
        loops.excuse(start + OPEN, |it| it == place(1));
        assert_eq!(loops.expire(start + OPEN), None);
        loops.excuse(start + OPEN * 2, |_| true);
        assert_eq!(loops.expire(start + OPEN * 2), Some((place(2), place(1))));
    }

    #[test]
    fn ports_are_tried_for_a_while_and_not_too_many() {
        let (mut loops, start) = (Loops::default(), Instant::now());
        assert!(loops.attempt(start, (1..1000).map(place)));
        assert!(!loops.attempt(start, [place(1)].into_iter()), "it is already");
        assert_eq!(loops.probed().count(), TRIED_MAX);
        loops.expire(start + TRIAL);
        assert_eq!((loops.probed().count(), loops.deadline()), (0, None));
    }
}
