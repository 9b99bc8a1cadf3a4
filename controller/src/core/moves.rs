//! Hosts that are learnt, and that move: what of it is usual, and what an operator should look at.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use apps::attachment::Attachments;
use apps::marks::Owner;
use apps::view::{Endpoint, View};
use openflow::types::MacAddr;

use super::hosts::{Claim, Decided, Move, Outcome};
use super::sender::sender;
use super::trail::{Trail, Trouble};
use super::{Core, Level};

/// Is a port the tenant's, and not known to be down?
pub(super) fn is_usable(attachments: &Attachments, view: &View, tenant: &str, place: Endpoint) -> bool {
    let port = view.bridges.get(&place.bridge).and_then(|bridge| bridge.ports.get(&place.port));
    attachments.tenant(place).is_some_and(|attached| attached.tenant == tenant) && port.is_some_and(|port| port.up)
}

/// The number of a virtual router, if an address is one's (RFC 9568 §7.3).
const fn virtual_router(mac: MacAddr) -> Option<u8> {
    match mac.0 {
        [0, 0, 0x5e, 0, 1 | 2, id] => Some(id),
        _ => None,
    }
}

impl Core {
    /// A frame whose source isn't known at its port has entered.
    pub(super) fn learn(&mut self, now: Instant, place: Endpoint, frame: &[u8]) {
        let Some(attached) = self.attachments.tenant(place) else { return };
        let name = attached.tenant.clone();
        let Some(source) = frame.get(6..12).and_then(|octets| octets.try_into().ok()).map(MacAddr) else { return };
        let Some(tenant) = self.policy.tenants.iter().find(|tenant| tenant.name == name) else { return };
        let Some(numbers) = self.memory.allocations.of(&name) else { return };
        let pinned = tenant.ports.iter().any(|selector| selector.mac == Some(source));
        if pinned || !source.is_station() {
            return;
        }
        let mut hasher = DefaultHasher::new();
        frame.hash(&mut hasher);
        let claim = Claim { mac: source, place, ip: sender(frame), digest: hasher.finish() };
        let elsewhere = self.hosts.place(&name, source).filter(|before| *before != place);
        let outcome = self.hosts.learn(now, &name, claim, tenant.max_hosts);
        if matches!(outcome, Outcome::New | Outcome::Moved(_) | Outcome::Contested) {
            self.rounds.dirty.insert(Owner(numbers.key));
        }
        if let Some(before) = elsewhere {
            self.suspect_loop(now, [before, place].into_iter());
        }
        match outcome {
            Outcome::New | Outcome::Known | Outcome::Contested => {}
            Outcome::Moved(to) => match self.hosts.trouble(&name, source) {
                Some((trouble, trail)) => self.troubled(now, &name, source, trouble, &trail),
                None => self.moved(now, &name, source, to),
            },
            Outcome::Full => self.full(now, &name, place),
        }
    }

    /// Hosts that were claimed elsewhere as soon as they had moved, and have rested now.
    pub(super) fn decide_hosts(&mut self, now: Instant) {
        let (policy, attachments, view) = (&self.policy, &self.attachments, &self.view);
        let max = |name: &str| policy.tenants.iter().find(|it| it.name == name).map_or(0, |tenant| tenant.max_hosts);
        let usable = |tenant: &str, place| is_usable(attachments, view, tenant, place);
        for Decided { tenant, mac, outcome, place, trouble } in self.hosts.decide(now, max, usable) {
            if let Some(numbers) = self.memory.allocations.of(&tenant) {
                self.rounds.dirty.insert(Owner(numbers.key));
            }
            match (outcome, trouble) {
                (_, Some((trouble, trail))) => self.troubled(now, &tenant, mac, trouble, &trail),
                (Outcome::Moved(to), None) => self.moved(now, &tenant, mac, to),
                (Outcome::Full, None) => self.full(now, &tenant, place),
                _ => {}
            }
        }
    }

    fn full(&mut self, now: Instant, name: &str, place: Endpoint) {
        let max = self.policy.tenants.iter().find(|tenant| tenant.name == name).map_or(0, |tenant| tenant.max_hosts);
        let text = format!(
            "{} of tenant {name} has its {max} hosts: further sources aren't learnt there; raise max_hosts if that is right",
            self.port_name(place)
        );
        self.problem(now, place.bridge, &text);
    }

    /// A host moved once, as it may.
    fn moved(&mut self, now: Instant, tenant: &str, mac: MacAddr, Move { from, to, back }: Move) {
        let exists = self.bridges.get(&from.bridge).is_some_and(|bridge| bridge.ports.contains_key(&from.port));
        let (before, place) = (self.port_name(from), self.port_name(to));
        let text = match virtual_router(mac) {
            _ if !exists => format!("host {mac} of tenant {tenant} is at {place} now: the port that it was at is gone"),
            Some(id) => format!(
                "virtual router {id} ({mac}, VRRP) of tenant {tenant} moved from {before} to {place}: a fail-over"
            ),
            None if back => format!("host {mac} of tenant {tenant} moved back from {before} to {place}: a fail-over"),
            None => format!("host {mac} of tenant {tenant} moved from {before} to {place}"),
        };
        self.notice_of(now, to.bridge, Level::Info, &text);
    }

    /// A host is claimed at several ports in a manner that isn't right.
    fn troubled(&mut self, now: Instant, tenant: &str, mac: MacAddr, trouble: Trouble, trail: &Trail) {
        let places: Vec<Endpoint> = trail.places().collect();
        let [first, others @ ..] = &*places else { return };
        if trouble == Trouble::Loop && places.iter().any(|place| self.loops.is_shut(*place)) {
            // That is told, with the ports that probes showed.
            return;
        }
        let (home, dpid) = (self.port_name(*first), first.bridge);
        let others = others.iter().map(|place| self.port_name(*place)).collect::<Vec<_>>().join(" and ");
        let text = match (trouble, virtual_router(mac)) {
            (Trouble::Loop, _) => format!(
                "a loop in tenant {tenant}: frames that its hosts send, such as {mac} at {home}, come back by {others}; \
                 something behind these ports joins two of them, or sends back what it gets: look for a bridge or a cable \
                 between them (bridge link), and take one port out of it"
            ),
            (Trouble::Twice, Some(id)) => format!(
                "virtual router {id} ({mac}, VRRP) of tenant {tenant} is claimed at {home} and {others} at the same time: two \
                 routers both take themselves for its master; let their advertisements pass (IP protocol 112, to 224.0.0.18 or \
                 ff02::12), or give one of them another number"
            ),
            (Trouble::Twice, None) => format!(
                "two hosts have the same address: {mac} of tenant {tenant} sends at {home} and {others} at the same time, and \
                 what is meant for it reaches only one of them; give one another address (ip link set DEV address …), or \
                 pin it to its port (mac = \"{mac}\")"
            ),
            (Trouble::Restless, _) => format!(
                "{mac} of tenant {tenant} moves again and again between {home} and {others}: if it is a bond, a virtual router \
                 or a machine that moves, look at its links and at what makes it fail over; if two hosts have the same \
                 address, give one another"
            ),
        };
        self.problem(now, dpid, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_routers_are_known_by_their_addresses() {
        assert_eq!(virtual_router(MacAddr([0, 0, 0x5e, 0, 1, 51])), Some(51));
        assert_eq!(virtual_router(MacAddr([0, 0, 0x5e, 0, 2, 7])), Some(7));
        assert_eq!(virtual_router(MacAddr([0, 0, 0x5e, 0, 3, 7])), None);
    }
}
