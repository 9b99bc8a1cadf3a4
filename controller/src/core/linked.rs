//! What readers see of links.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use apps::fabric::{PROBE_DESTINATION, PROBES};
use apps::policy::LinkSelector;
use apps::problems::not_drained;
use apps::trees::Tree;
use apps::view::{Endpoint, Link};
use apps::withhold;
use openflow::types::DatapathId;

use super::Core;
use super::topology::{Known, Sign, State};
use crate::snapshot;

/// A link of which a port was removed is told of for so long, and so many at most.
const REMOVED: Duration = Duration::from_secs(60);
const REMOVED_MAX: usize = 100;

/// A link of which a port was removed.
#[derive(Debug)]
pub(crate) struct Removed {
    at: Instant,
    ends: [String; 2],
    port: String,
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probes => "probes",
            Self::Carrier => "carrier",
            Self::Liveness => "liveness",
        })
    }
}

/// A time as people say it.
pub(super) fn rough(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

impl Core {
    pub(super) fn links(&self, now: Instant) -> Vec<snapshot::Link> {
        let carried = self.carried();
        let at = |place: Endpoint| carried.get(&place).into_iter().flatten();
        let links = self.known_links().map(|(link, known)| {
            let unicast: BTreeSet<&str> = at(link.a).chain(at(link.b)).copied().collect();
            let uses = |tree: &Tree| tree.edges.iter().any(|edge| edge.a == link.a && edge.b == link.b);
            let tenants = self.desired.trees.iter().filter(|(_, tree)| uses(tree));
            snapshot::Link {
                a: self.name(link.a),
                b: self.name(link.b),
                up: known.is_up(),
                carrier: known.carrier.to_string(),
                mtu: self.mtu.of(&link),
                tenants: tenants.map(|(name, _)| name.clone()).collect(),
                unicast: unicast.into_iter().map(str::to_owned).collect(),
                since_seconds: (known.state != State::Held).then(|| now.duration_since(known.since).as_secs()),
                lost_by: (known.state == State::Down).then(|| known.lost_by.to_string()),
                drained: self.is_drained(&link, known),
                note: self.note(now, &link, known),
            }
        });
        links.collect()
    }

    /// Links that an operator should look at, whatever the policy says.
    pub(super) fn link_problems(&self, now: Instant) -> Vec<String> {
        // Of those that are to be drained the policy's problems tell.
        let others = self.known_links().filter(|(link, known)| known.is_up() && self.drain_of(link).is_none());
        let noted =
            others.map(|(link, known)| (link, self.note(now, &link, known))).filter(|(_, note)| !note.is_empty());
        let name = |place| self.port_name(place);
        let noted = noted.map(|(link, note)| format!("link {} – {} is {note}", name(link.a), name(link.b)));
        noted.chain(self.deaf()).collect()
    }

    /// Where tenants are in parts: which ports of their bridges hear no probes, and what may be the reason.
    fn deaf(&self) -> Option<String> {
        const NAMED: usize = 6;
        let parted = self.desired.trees.values().filter(|tree| tree.roots.len() > 1);
        let bridges: BTreeSet<DatapathId> = parted.flat_map(|tree| tree.bridges.iter().copied()).collect();
        let mut deaf = self.topology.deaf(&bridges).map(|port| self.port_name(port));
        let named: Vec<String> = deaf.by_ref().take(NAMED).collect();
        let more = match (named.len(), deaf.count()) {
            (0, _) => return None,
            (_, 0) => String::new(),
            (_, more) => format!(" and {more} more"),
        };
        let named = named.join(", ");
        Some(format!(
            "no probe arrives at {named}{more}: look whether they lead to other bridges of this controller, and whether what is \
             between lets through Ethernet type 0x{PROBES:04x} to {PROBE_DESTINATION}"
        ))
    }

    /// Links that are down, but for those that are to be drained.
    pub(super) fn lost_links(&self, now: Instant) -> Vec<String> {
        let lost =
            self.known_links().filter(|(link, known)| known.state == State::Down && self.drain_of(link).is_none());
        let problem = |(link, known): (Link, &Known)| {
            let (a, b) = (self.port_name(link.a), self.port_name(link.b));
            let why = match known.lost_by {
                Sign::Probes => "probes no longer pass: look at the path between the two, or at the tunnel's settings",
                Sign::Carrier => {
                    "a port at its end has no carrier, or is switched off: look at the cable, or `ip link`"
                }
                Sign::Liveness => "BFD, CFM or LACP found a port at its end dead: look at the path between the two",
            };
            format!("link {a} – {b} has been down for {}: {why}", rough(now.duration_since(known.since)))
        };
        let removed =
            self.removed_links.iter().filter(|gone| now.duration_since(gone.at) < REMOVED && !self.is_back(gone));
        let gone = removed.map(|gone| {
            let ago = rough(now.duration_since(gone.at));
            format!("link {} – {} is gone: {} was removed {ago} ago", gone.ends[0], gone.ends[1], gone.port)
        });
        lost.map(problem).chain(gone).collect()
    }

    /// A port that is gone may have been the end of a link: keeps that in mind for a while.
    pub(super) fn link_removed(&mut self, now: Instant, place: Endpoint, port: &str) {
        let other = |(link, known): (Link, &Known)| {
            let other = if link.a == place { link.b } else { link.a };
            (known.state != State::Down && (link.a == place || link.b == place)).then_some(other)
        };
        let Some(other) = self.known_links().find_map(other) else { return };
        let ends = [port.to_owned(), self.port_name(other)];
        self.removed_links.retain(|gone| now.duration_since(gone.at) < REMOVED);
        if self.removed_links.len() < REMOVED_MAX {
            self.removed_links.push(Removed { at: now, ends, port: port.to_owned() });
        }
    }

    fn is_back(&self, gone: &Removed) -> bool {
        let up = self.topology.known().iter().filter(|(_, known)| known.is_up());
        let mut ends = up.map(|((a, b), _)| [self.port_name(*a), self.port_name(*b)]);
        ends.any(|[a, b]| [&a, &b] == [&gone.ends[0], &gone.ends[1]] || [&b, &a] == [&gone.ends[0], &gone.ends[1]])
    }

    /// Tenants whose frames are sent on by each port that ends a link, but for floods.
    fn carried(&self) -> BTreeMap<Endpoint, BTreeSet<&str>> {
        let names: BTreeMap<u32, &str> = self.rounds.keys.iter().map(|(key, name)| (*key, name.as_str())).collect();
        let mut carried: BTreeMap<Endpoint, BTreeSet<&str>> = BTreeMap::new();
        for (dpid, ways) in &self.desired.ways {
            for (owner, ports) in ways {
                let Some(name) = names.get(&owner.0) else { continue };
                for port in ports {
                    carried.entry(Endpoint { bridge: *dpid, port: *port }).or_default().insert(name);
                }
            }
        }
        carried
    }

    fn known_links(&self) -> impl Iterator<Item = (Link, &Known)> {
        self.topology.known().iter().map(|(&(a, b), known)| (Link { a, b, carrier: known.carrier }, known))
    }

    fn drain_of(&self, link: &Link) -> Option<&LinkSelector> {
        withhold::drained(&self.policy, &self.view, link)
    }

    /// Does the policy want it to carry nothing, and do both bridges say that it is so?
    fn is_drained(&self, link: &Link, known: &Known) -> bool {
        let holds = |dpid: DatapathId| {
            self.bridges.get(&dpid).is_some_and(|bridge| bridge.holds(self.desired.bridges.get(&dpid)))
        };
        let unused = known.withheld || known.state == State::Down;
        let done = || self.rounds.is_idle() && holds(link.a.bridge) && holds(link.b.bridge);
        self.drain_of(link).is_some() && known.state != State::Held && unused && done()
    }

    /// What an operator should know of a link beside whether it is up.
    fn note(&self, now: Instant, link: &Link, known: &Known) -> String {
        let damped = known.damping.left(now);
        match (known.state, self.drain_of(link)) {
            (State::Held, Some(selector)) => not_drained(selector, true),
            (State::Held, None) => "held: a bridge at its end doesn't answer, so nobody knows".to_owned(),
            (State::Up, Some(selector)) if !known.withheld => not_drained(selector, false),
            (_, Some(selector)) if self.is_drained(link, known) => format!("drained ({})", selector.origin),
            (_, Some(selector)) => format!("being drained ({})", selector.origin),
            (State::Up, None) => damped.map_or_else(String::new, |left| {
                format!(
                    "damped for {:.0} s more, because it went down {} times lately: {}",
                    left.as_secs_f64().ceil(),
                    known.damping.downs(now),
                    if known.withheld {
                        "it isn't used meanwhile"
                    } else {
                        "it is used all the same, being the only way"
                    }
                )
            }),
            (State::Down, None) => String::new(),
        }
    }
}
