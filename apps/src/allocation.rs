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

    /// The numbers for a new policy: who has some keeps them as far as the policy's own keys allow, who is gone frees
    /// them, who is new gets the key it names, else the lowest free one, and the VLAN id that equals its key if it can.
    #[must_use]
    pub fn updated(&self, policy: &Policy) -> Self {
        let fixed: BTreeSet<u32> = policy.tenants.iter().filter_map(|tenant| tenant.key).collect();
        let mut keys = fixed.clone();
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
        let mut taken = BTreeSet::new();
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
        Self(
            chosen
                .iter()
                .map(|(name, key)| {
                    let vlan = vlans.get(name).copied().or_else(|| free.next());
                    ((*name).to_owned(), Numbers { key: *key, vlan })
                })
                .collect(),
        )
    }
}
