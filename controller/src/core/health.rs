//! Whether service functions let anything through: a probe that is put in at one port has to come out of the other.
//!
//! An instance counts as failed when three probes in a row are lost, but only if some came through before: a function that
//! lets no such frames through is judged by its ports alone. One that had failed before a restart has until a probe comes through.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use apps::chains::Chains;
use apps::marks::{Direction, Owner};
use apps::policy::FunctionKind;
use apps::view::Endpoint;
use openflow::action::Action;
use openflow::message::Message;
use openflow::packet::PacketOut;
use openflow::types::Xid;

use super::probe::Probe;
use super::{Core, Effect, Level, SessionId};

/// Tenant, function and instance.
type Names = (String, String, String);

/// Time between two probes through an instance.
const INTERVAL: Duration = Duration::from_millis(500);

/// Time without a probe that came through after which an instance counts as failed: three intervals, and a bit.
const LOST: Duration = Duration::from_millis(1625);

/// Probes through one instance that may still come.
const OUTSTANDING: usize = 8;

/// What probes tell of one instance.
#[derive(Debug)]
struct Probed {
    /// Where probes come out.
    egress: Endpoint,
    due: Instant,
    /// Numbers of the last ones.
    sent: VecDeque<u64>,
    /// When one last came through; `None`: none ever did.
    passed: Option<Instant>,
    failed: bool,
    /// Can probes be sent? If not, what is known stays as it is.
    open: bool,
}

/// What probes tell of all instances, by their ingress ports.
#[derive(Debug)]
pub(crate) struct Health {
    next_number: u64,
    probed: BTreeMap<Endpoint, Probed>,
    looked: Instant,
}

impl Health {
    pub(crate) fn new(now: Instant) -> Self {
        Self { next_number: 0, probed: BTreeMap::new(), looked: now }
    }

    /// From here on exactly these are probed: from the first port of each to the second, if it can be done. Of new ones `failed` have.
    fn set(&mut self, now: Instant, through: &BTreeMap<Endpoint, (Endpoint, bool)>, failed: impl Fn(Endpoint) -> bool) {
        self.probed.retain(|ingress, probed| through.get(ingress).is_some_and(|(egress, _)| *egress == probed.egress));
        for (&ingress, &(egress, open)) in through {
            let failed = || failed(ingress);
            let new = || Probed { egress, due: now, sent: VecDeque::new(), passed: None, failed: failed(), open };
            let probed = self.probed.entry(ingress).or_insert_with(new);
            if open && !std::mem::replace(&mut probed.open, open) {
                // Nothing could come through meanwhile.
                probed.passed = probed.passed.map(|_| now);
                probed.due = now;
            }
            probed.open = open;
        }
    }

    /// When something has to be done.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.probed.values().filter(|probed| probed.open).map(|probed| probed.due).min()
    }

    /// The probes that are due: where they go in, with their numbers.
    fn due(&mut self, now: Instant) -> Vec<(Endpoint, u64)> {
        let mut probes = Vec::new();
        for (ingress, probed) in self.probed.iter_mut().filter(|(_, probed)| probed.open && probed.due <= now) {
            self.next_number += 1;
            probed.due = now + INTERVAL;
            probed.sent.push_back(self.next_number);
            if probed.sent.len() > OUTSTANDING {
                probed.sent.pop_front();
            }
            probes.push((*ingress, self.next_number));
        }
        probes
    }

    /// A probe came out. `true`: of an instance that had failed.
    fn arrived(&mut self, now: Instant, from: Endpoint, number: u64, at: Endpoint) -> bool {
        let Some(probed) = self.probed.get_mut(&from).filter(|probed| probed.egress == at) else { return false };
        let Some(index) = probed.sent.iter().position(|sent| *sent == number) else { return false };
        probed.sent.remove(index);
        probed.passed = Some(now);
        std::mem::take(&mut probed.failed)
    }

    /// Looks which instances let nothing through any more. `true`: there are new ones. Time in which nobody looked isn't
    /// counted: probes may wait to be read.
    fn expire(&mut self, now: Instant) -> bool {
        let slept = now.duration_since(self.looked).saturating_sub(INTERVAL);
        self.looked = now;
        let mut any = false;
        for probed in self.probed.values_mut().filter(|probed| probed.open) {
            let Some(passed) = &mut probed.passed else { continue };
            *passed = (*passed + slept).min(now);
            if !probed.failed && now.duration_since(*passed) > LOST {
                probed.failed = true;
                any = true;
            }
        }
        any
    }

    /// Those that let nothing through.
    fn failed(&self) -> BTreeSet<Endpoint> {
        self.probed.iter().filter(|(_, probed)| probed.failed).map(|(ingress, _)| *ingress).collect()
    }

    /// Is it probed?
    pub(crate) fn is_probed(&self, ingress: Endpoint) -> bool {
        self.probed.contains_key(&ingress)
    }

    /// Has a probe come through?
    pub(crate) fn passes(&self, ingress: Endpoint) -> bool {
        self.probed.get(&ingress).is_some_and(|probed| probed.open && probed.passed.is_some() && !probed.failed)
    }
}

impl Core {
    /// Bridges, ports or the policy changed.
    pub(super) fn refresh_health(&mut self, now: Instant) {
        let mut through = BTreeMap::new();
        let mut names: BTreeMap<Endpoint, Names> = BTreeMap::new();
        for tenant in self.policy.tenants.iter().filter(|tenant| !tenant.functions.is_empty()) {
            let Some(numbers) = self.memory.allocations.of(&tenant.name) else { continue };
            let allocations = &self.memory.allocations;
            let chains = Chains::new(tenant, numbers.key, allocations, &self.attachments, &self.view);
            for service in chains.services().values() {
                if !matches!(service.function.kind, FunctionKind::Wire | FunctionKind::Hairpin) {
                    continue;
                }
                for placed in &service.instances {
                    let ports = Direction::ALL.map(|direction| placed.ingress(direction));
                    let [Some(ingress), Some(egress)] = ports else { continue };
                    let up = |place: Endpoint| {
                        let bridge = self.view.bridges.get(&place.bridge).filter(|bridge| bridge.responsive);
                        bridge.and_then(|bridge| bridge.ports.get(&place.port)).is_some_and(|port| port.up)
                    };
                    if ingress.bridge == egress.bridge {
                        through.insert(ingress, (egress, up(ingress) && up(egress)));
                        let instance = placed.instance.name.clone();
                        names.insert(ingress, (tenant.name.clone(), service.function.name.clone(), instance));
                    }
                }
            }
        }
        let before = &self.memory.failed;
        self.health.set(now, &through, |ingress| names.get(&ingress).is_some_and(|names| before.contains(names)));
        self.view.failed = self.health.failed();
        let failed = names.into_iter().filter(|(ingress, _)| self.view.failed.contains(ingress));
        self.keep_failed(failed.map(|(_, names)| names).collect());
    }

    /// Sends the probes that are due, and looks which are missing.
    pub(super) fn probe_functions(&mut self, now: Instant) {
        if self.health.deadline().is_none_or(|due| now < due) {
            return;
        }
        if self.health.expire(now) {
            self.health_changed(now);
        }
        let mut batches: BTreeMap<SessionId, Vec<(Xid, Message)>> = BTreeMap::new();
        for (place, number) in self.health.due(now) {
            let Some(bridge) = self.bridges.get_mut(&place.bridge) else { continue };
            let Some(session) = bridge.connection.as_ref().map(|connection| connection.session) else { continue };
            let Some(address) = bridge.ports.get(&place.port).map(|port| port.port.address) else { continue };
            let frame = Probe { from: place, number, size: 0 }.encode_for_function(&self.probe_key, address);
            let out = PacketOut::new(vec![Action::output(place.port)], frame);
            batches.entry(session).or_default().push((bridge.next_xid(), Message::PacketOut(out)));
        }
        for (session, messages) in batches {
            self.effects.push(Effect::Send { session, messages });
        }
    }

    /// A probe came out of a function's port.
    pub(super) fn function_probe_in(&mut self, now: Instant, at: Endpoint, frame: &[u8]) {
        let Some(probe) = Probe::decode(&self.probe_key, frame) else { return };
        if self.health.arrived(now, probe.from, probe.number, at) {
            self.health_changed(now);
        }
    }

    fn health_changed(&mut self, now: Instant) {
        let failed = self.health.failed();
        let changed: Vec<Endpoint> = failed.symmetric_difference(&self.view.failed).copied().collect();
        for ingress in changed {
            let Some(port) = self.attachments.service(ingress).cloned() else { continue };
            let (tenant, instance, place) = (&port.tenant, &port.instance, self.port_name(ingress));
            if failed.contains(&ingress) {
                let text = format!(
                    "{instance} of function {} of tenant {tenant} lets nothing through: probes put in at {place} don't come \
                     out any more; look at what runs there",
                    port.function
                );
                self.notice_of(now, ingress.bridge, Level::Warning, &text);
            } else {
                let text =
                    format!("{instance} of function {} of tenant {tenant} lets probes through again", port.function);
                self.notice_of(now, ingress.bridge, Level::Info, &text);
            }
            self.rounds.dirty.extend(self.memory.allocations.of(tenant).map(|numbers| Owner(numbers.key)));
        }
        self.view.failed = failed;
        let names = self.view.failed.iter().filter_map(|ingress| self.attachments.service(*ingress));
        let names = names.map(|port| (port.tenant.clone(), port.function.clone(), port.instance.clone()));
        self.keep_failed(names.collect());
    }

    /// Keeps them over restarts. While bridges are still awaited not all are known.
    fn keep_failed(&mut self, failed: BTreeSet<Names>) {
        if self.settling.is_none() && self.memory.failed != failed {
            self.memory.failed = failed;
            self.effects.push(Effect::Save(self.memory.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openflow::types::{DatapathId, PortNo};

    fn place(port: u32) -> Endpoint {
        Endpoint { bridge: DatapathId(1), port: PortNo(port) }
    }

    fn after(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn an_instance_fails_when_probes_that_came_through_no_longer_do_and_recovers_with_the_first() {
        let start = Instant::now();
        let mut health = Health::new(start);
        let both = BTreeMap::from([(place(1), (place(2), true)), (place(3), (place(4), true))]);
        health.set(start, &both, |_| false);
        for step in 0..20 {
            let now = after(start, step * 500);
            let failed = health.expire(now);
            assert_eq!(failed, step == 8, "step {step}");
            for (from, number) in health.due(now) {
                // The second instance never lets any through, the first stops after two seconds.
                if from == place(1) && step < 5 {
                    assert!(!health.arrived(after(now, 1), from, number, place(2)));
                    assert!(!health.arrived(after(now, 1), from, number, place(2)), "a copy of it");
                }
            }
        }
        assert_eq!(health.failed(), BTreeSet::from([place(1)]));
        // A port that goes down and up again, or a bridge that connects again, changes nothing about that.
        let shut = both.iter().map(|(ingress, (egress, _))| (*ingress, (*egress, false))).collect();
        for through in [&shut, &both] {
            health.set(after(start, 9_900), through, |_| false);
            assert_eq!(health.failed(), BTreeSet::from([place(1)]));
        }
        let now = after(start, 10_000);
        let number = health.due(now).into_iter().find(|(from, _)| *from == place(1)).unwrap().1;
        assert!(!health.arrived(now, place(1), number, place(4)), "out of another port");
        assert!(health.arrived(now, place(1), number, place(2)));
        assert!(health.failed().is_empty() && health.passes(place(1)) && !health.passes(place(3)));
    }

    #[test]
    fn time_in_which_the_controller_slept_does_not_count() {
        let start = Instant::now();
        let mut health = Health::new(start);
        health.set(start, &BTreeMap::from([(place(1), (place(2), true))]), |_| false);
        let (from, number) = health.due(start)[0];
        health.arrived(start, from, number, place(2));
        assert!(!health.expire(after(start, 5000)));
        assert!(!health.expire(after(start, 5500)));
    }

    #[test]
    fn what_had_failed_before_a_restart_has_until_a_probe_comes_through() {
        let start = Instant::now();
        let mut health = Health::new(start);
        let both = BTreeMap::from([(place(1), (place(2), true)), (place(3), (place(4), true))]);
        health.set(start, &both, |ingress| ingress == place(1));
        assert_eq!(health.failed(), BTreeSet::from([place(1)]));
        let (from, number) = health.due(start)[0];
        assert!(health.arrived(start, from, number, place(2)) && health.failed().is_empty());
    }
}
