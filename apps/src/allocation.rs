//! Numbers given to tenants for good: tunnel keys where the policy names none, VLAN ids for links without tunnel.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::marks::VLAN_MAX;
use crate::policy::{Policy, Tenant};

/// A tenant's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// Tunnel key, 1 to [`Tenant::KEY_MAX`].
    pub key: u32,
    /// VLAN id on links without tunnel, 1 to [`VLAN_MAX`]; `None`: there are more tenants than ids, and this one can't
    /// use such links.
    pub vlan: Option<u16>,
}

/// The numbers of all tenants, by name. Kept over restarts, so that a tenant's entries stay the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocations(BTreeMap<String, Numbers>);

impl Allocations {
    /// The numbers of a tenant of the policy that this was last brought up to date with.
    pub fn of(&self, tenant: &str) -> Option<Numbers> {
        self.0.get(tenant).copied()
    }

    /// The numbers for a new policy: who has some keeps them as far as the policy's own keys allow, who is new gets the
    /// key it names, else the lowest free one, and the VLAN id that equals its key if it can. Who is gone keeps its numbers
    /// as long as there are others: a bridge that nobody reaches may still use them.
    #[must_use]
    pub fn updated(&self, policy: &Policy) -> Self {
        let named = |name: &str| policy.tenants.iter().any(|tenant| tenant.name == name);
        let gone: BTreeMap<&String, &Numbers> = self.0.iter().filter(|(name, _)| !named(name)).collect();
        let numbers = self.assign(policy, &gone);
        let short = |name: &str| numbers.of(name).is_none_or(|numbers| numbers.vlan.is_none());
        if !gone.is_empty() && policy.tenants.iter().any(|tenant| short(&tenant.name)) {
            return self.assign(policy, &BTreeMap::new());
        }
        numbers
    }

    fn assign(&self, policy: &Policy, gone: &BTreeMap<&String, &Numbers>) -> Self {
        let fixed: BTreeSet<u32> = policy.tenants.iter().filter_map(|tenant| tenant.key).collect();
        let mut keys = fixed.clone();
        keys.extend(gone.values().map(|numbers| numbers.key));
        let mut chosen: BTreeMap<&str, u32> = BTreeMap::new();
        for tenant in &policy.tenants {
            let kept = self.of(&tenant.name).map(|numbers| numbers.key).filter(|key| !fixed.contains(key));
            if let Some(key) = tenant.key.or(kept) {
                keys.insert(key);
                chosen.insert(&tenant.name, key);
            }
        }
        for tenant in &policy.tenants {
            // There are more keys than a policy of any size that can be loaded has tenants.
            let free = (1..=Tenant::KEY_MAX).find(|key| !keys.contains(key));
            if let (false, Some(key)) = (chosen.contains_key(tenant.name.as_str()), free) {
                keys.insert(key);
                chosen.insert(&tenant.name, key);
            }
        }
        let mut vlans = BTreeMap::new();
        let mut taken: BTreeSet<u16> = gone.values().filter_map(|numbers| numbers.vlan).collect();
        // Kept ids first, then ids that equal the key, then what is left.
        for wish in [
            |kept: Option<Numbers>, _: u32| kept.and_then(|numbers| numbers.vlan),
            |_, key| u16::try_from(key).ok().filter(|vlan| (1..=VLAN_MAX).contains(vlan)),
        ] {
            for (name, key) in &chosen {
                if let (false, Some(vlan)) = (vlans.contains_key(name), wish(self.of(name), *key))
                    && taken.insert(vlan)
                {
                    vlans.insert(*name, vlan);
                }
            }
        }
        let mut free = (1..=VLAN_MAX).filter(|vlan| !taken.contains(vlan));
        let rest = gone.iter().filter(|(_, numbers)| !fixed.contains(&numbers.key));
        Self(
            chosen
                .iter()
                .map(|(name, key)| {
                    let vlan = vlans.get(name).copied().or_else(|| free.next());
                    ((*name).to_owned(), Numbers { key: *key, vlan })
                })
                .chain(rest.map(|(name, numbers)| ((*name).clone(), **numbers)))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Source, load};

    fn policy(names: &[&str]) -> Policy {
        let tenants = names.iter().map(|name| {
            format!("[[tenant]]\nname = \"{name}\"\nports = [{{ bridge = \"*\", port = \"{name}-*\" }}]\n")
        });
        let text = format!("version = 1\n{}", tenants.collect::<String>());
        load(&[Source { name: "a.toml".into(), text }]).expect("sound").policy
    }

    #[test]
    fn numbers_stay_and_those_of_a_tenant_that_is_gone_are_not_given_to_another() {
        let one = Allocations::default().updated(&policy(&["green", "orange"]));
        let two = one.updated(&policy(&["blue", "orange"]));
        assert_eq!(two.of("orange"), one.of("orange"));
        let (green, blue) = (one.of("green").unwrap(), two.of("blue").unwrap());
        assert!(green.key != blue.key && green.vlan != blue.vlan);
        assert_eq!(two.updated(&policy(&["green"])).of("green"), Some(green), "it gets its own again");
    }

    #[test]
    fn numbers_of_the_gone_are_given_again_when_there_are_no_others() {
        let names: Vec<String> = (0..usize::from(VLAN_MAX)).map(|n| format!("t{n}")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let full = Allocations::default().updated(&policy(&all));
        let next = full.updated(&policy(&["new"]));
        assert!(next.of("new").unwrap().vlan.is_some());
    }
}
