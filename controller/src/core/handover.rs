//! Whether a port or a number passes from one to another with what is about to be sent: who gets it must not get frames of
//! whoever had it, so what goes then goes first. Where nothing was computed before, bridges' tables tell who had what, and
//! the numbers that they were last given are kept over restarts.

use std::collections::BTreeMap;

use apps::attachment::PortUse;
use apps::had::Had;
use apps::marks::Owner;
use apps::view::Endpoint;
use openflow::types::DatapathId;

use super::{Core, Effect};

impl Core {
    /// Does something pass from one to another since everything was last computed?
    pub(super) fn changes_hands(&self) -> bool {
        let mut had: BTreeMap<DatapathId, Had> = BTreeMap::new();
        let mut got = |place: Endpoint, used: &PortUse| match self.compiled.ports.get(&place) {
            Some(before) => !before.same_owner(used),
            None => {
                let had = had.entry(place.bridge).or_insert_with(|| match self.bridges.get(&place.bridge) {
                    Some(bridge) => Had::new(&bridge.installed, &bridge.uncertain),
                    None => Had::default(),
                });
                self.was_had(had, place, used)
            }
        };
        let used =
            self.attachments.ports.iter().filter(|(_, used)| !matches!(used, PortUse::Unused | PortUse::Untried(_)));
        used.into_iter().any(|(place, used)| got(*place, used))
            || self.memory.allocations.moved_since(&self.compiled_for.allocations)
    }

    fn was_had(&self, had: &Had, Endpoint { port, .. }: Endpoint, used: &PortUse) -> bool {
        let by_others = |tenant: &str| match self.memory.allocations.of(tenant) {
            Some(numbers) => had.by_others(port, Owner(numbers.key)),
            None => had.any(port),
        };
        match used {
            PortUse::Tenant(attached) => by_others(&attached.tenant),
            // Tables don't tell functions of a tenant apart. By the same policy it is the same one.
            PortUse::Function(service) => {
                let same = self.compiled_for.policy == self.policy_status.digest;
                by_others(&service.tenant) || (!same && had.any(port))
            }
            PortUse::Candidate => had.as_no_link(port),
            PortUse::Untried(_) | PortUse::Unused => false,
        }
    }

    /// A whole round has come to its end: from here on bridges have these numbers, by this policy.
    pub(super) fn keep_settled(&mut self) {
        if self.memory.settled != self.compiled_for {
            self.memory.settled = self.compiled_for.clone();
            self.effects.push(Effect::Save(self.memory.clone()));
        }
    }
}
