//! What readers see of links.

use std::collections::BTreeSet;
use std::time::Instant;

use apps::fabric::{PROBE_DESTINATION, PROBES};
use apps::policy::LinkSelector;
use apps::problems::not_drained;
use apps::trees::Tree;
use apps::view::Link;
use apps::withhold;
use openflow::types::DatapathId;

use super::Core;
use super::topology::{Known, State};
use crate::snapshot;

impl Core {
    pub(super) fn links(&self, now: Instant) -> Vec<snapshot::Link> {
        let links = self.known_links().map(|(link, known)| {
            let uses = |tree: &Tree| tree.edges.iter().any(|edge| edge.a == link.a && edge.b == link.b);
            let tenants = self.desired.trees.iter().filter(|(_, tree)| uses(tree));
            snapshot::Link {
                a: self.name(link.a),
                b: self.name(link.b),
                up: known.is_up(),
                carrier: known.carrier.to_string(),
                mtu: self.mtu.of(&link),
                tenants: tenants.map(|(name, _)| name.clone()).collect(),
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
