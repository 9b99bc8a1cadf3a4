//! Numbers given for good: to tenants tunnel keys where the policy names none, and VLAN ids for links without tunnel; to
//! service functions, their instances and chains the numbers that frames in chains are told by.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::marks::{STEP_MAX, VLAN_MAX, WAYPOINT_VLAN_MAX, step_key};
use crate::policy::{Chain, Function, Instance, Policy, Tenant};

/// The numbers of a tenant, or of something that belongs to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Numbers {
    /// A tenant's tunnel key, 1 to [`Tenant::KEY_MAX`]; of all else a number from [`step_key`].
    pub key: u32,
    /// VLAN id on links without tunnel, 1 to [`VLAN_MAX`]; `None`: none is needed, or there are no more, and such links
    /// can't be used.
    pub vlan: Option<u16>,
}

/// All numbers: of tenants by name, of what belongs to them by names from [`function`], [`instance`] and [`chain`], which
/// no tenant can have. Kept over restarts, so that entries stay the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocations(BTreeMap<String, Numbers>);

/// The name that a service function's number is kept under.
pub fn function(tenant: &Tenant, function: &Function) -> String {
    format!("{} function {}", tenant.name, function.name)
}

/// The name that the numbers of an instance of a service function are kept under.
pub fn instance(tenant: &Tenant, function: &Function, instance: &Instance) -> String {
    format!("{} instance {}/{}", tenant.name, function.name, instance.name)
}

/// The name that a chain's number is kept under.
pub fn chain(tenant: &Tenant, chain: &Chain) -> String {
    format!("{} chain {}", tenant.name, chain.name)
}

/// All names that belong to a tenant, and whether frames bear what they stand for from bridge to bridge.
fn steps(tenant: &Tenant) -> Vec<(String, bool)> {
    let mut names = Vec::new();
    for it in &tenant.functions {
        names.push((function(tenant, it), false));
        names.extend(it.instances.iter().map(|one| (instance(tenant, it, one), true)));
    }
    names.extend(tenant.chains.iter().map(|it| (chain(tenant, it), false)));
    names
}

impl Allocations {
    /// The numbers of a tenant of the policy that this was last brought up to date with, or of what belongs to it.
    pub fn of(&self, tenant: &str) -> Option<Numbers> {
        self.0.get(tenant).copied()
    }

    /// All tenants that have a key, or had one as far as nobody else got it, with their keys.
    pub fn tenants(&self) -> impl Iterator<Item = (&str, u32)> {
        let all = self.0.iter().map(|(name, numbers)| (name.as_str(), numbers.key));
        all.filter(|(_, key)| *key <= Tenant::KEY_MAX)
    }

    /// The numbers of all instances that a tenant has, or had as far as nobody else got theirs.
    pub(crate) fn instances(&self, tenant: &str) -> impl Iterator<Item = Numbers> {
        let begin = format!("{tenant} instance ");
        let all = self.0.range(begin.clone()..).take_while(move |(name, _)| name.starts_with(&begin));
        all.map(|(_, numbers)| *numbers)
    }

    /// The numbers for a new policy: who has some keeps them as far as the policy's own keys allow, who is new gets the
    /// key it names, else the lowest free one, and the VLAN id that equals its key if it can. Who is gone keeps its numbers
    /// as long as there are others: a bridge that nobody reaches may still use them.
    #[must_use]
    pub fn updated(&self, policy: &Policy) -> Self {
        let steps: Vec<(String, bool)> = policy.tenants.iter().flat_map(steps).collect();
        let mut named: BTreeSet<&str> = policy.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
        named.extend(steps.iter().map(|(name, _)| name.as_str()));
        let gone: BTreeMap<&String, &Numbers> =
            self.0.iter().filter(|(name, _)| !named.contains(name.as_str())).collect();
        let numbers = self.assign(policy, &steps, &gone);
        let short = |name: &str| numbers.of(name).is_none_or(|numbers| numbers.vlan.is_none());
        let borne = steps.iter().filter(|(_, borne)| *borne).map(|(name, _)| name.as_str());
        let mut all = policy.tenants.iter().map(|tenant| tenant.name.as_str()).chain(borne);
        if !gone.is_empty() && (all.any(short) || steps.iter().any(|(name, _)| numbers.of(name).is_none())) {
            return self.assign(policy, &steps, &BTreeMap::new());
        }
        numbers
    }

    /// Has a number gone from one to another since?
    pub fn moved_since(&self, before: &Self) -> bool {
        let owners = |of: fn(&Numbers) -> Option<u32>, all: &Self| -> BTreeMap<u32, String> {
            all.0.iter().filter_map(|(name, numbers)| Some((of(numbers)?, name.clone()))).collect()
        };
        [|numbers: &Numbers| Some(numbers.key), |numbers: &Numbers| numbers.vlan.map(u32::from)].into_iter().any(|of| {
            let now = owners(of, self);
            owners(of, before).into_iter().any(|(number, name)| now.get(&number).is_some_and(|other| *other != name))
        })
    }

    fn assign(&self, policy: &Policy, steps: &[(String, bool)], gone: &BTreeMap<&String, &Numbers>) -> Self {
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
        let kept_steps = steps.iter().filter_map(|(name, _)| Some((name, self.of(name)?)));
        let kept_steps: BTreeMap<&String, Numbers> = kept_steps.collect();
        let mut taken: BTreeSet<u16> =
            gone.values().copied().chain(kept_steps.values()).filter_map(|numbers| numbers.vlan).collect();
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
        let mut numbers = BTreeMap::new();
        for (name, key) in &chosen {
            let vlan = vlans.get(name).copied().or_else(|| (1..=VLAN_MAX).find(|vlan| !taken.contains(vlan)));
            taken.extend(vlan);
            numbers.insert((*name).to_owned(), Numbers { key: *key, vlan });
        }
        // What tenants are given counts from below, what service functions are given from above.
        let used: BTreeSet<u32> = gone.values().copied().chain(kept_steps.values()).map(|it| it.key).collect();
        let mut free = (1..=STEP_MAX).map(step_key).filter(|key| !used.contains(key)).collect::<Vec<_>>().into_iter();
        for (name, borne) in steps {
            let Some(key) = kept_steps.get(name).map(|it| it.key).or_else(|| free.next()) else { continue };
            let kept = kept_steps.get(name).and_then(|it| it.vlan);
            let fresh = || (1..=WAYPOINT_VLAN_MAX).rev().find(|vlan| !taken.contains(vlan));
            let vlan = if *borne { kept.or_else(fresh) } else { None };
            taken.extend(vlan);
            numbers.insert(name.clone(), Numbers { key, vlan });
        }
        let rest = gone.iter().filter(|(_, numbers)| !fixed.contains(&numbers.key));
        numbers.extend(rest.map(|(name, numbers)| ((*name).clone(), **numbers)));
        Self(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Source, load};

    #[test]
    fn only_a_number_that_goes_from_one_to_another_counts_as_moved() {
        let one = Allocations::default().updated(&policy(&["green", "orange"]));
        assert!(!one.updated(&policy(&["blue", "green"])).moved_since(&one), "one came, one went");
        assert!(!Allocations::default().moved_since(&one));
        let other = Allocations::default().updated(&policy(&["orange"]));
        assert!(other.moved_since(&one));
    }

    #[test]
    fn functions_their_instances_and_chains_get_numbers_of_their_own() {
        let mut policy = policy(&["green", "orange"]);
        let before = Allocations::default().updated(&policy);
        let origin = policy.tenants[0].origin.clone();
        let instance = |name: &str| Instance {
            name: name.into(),
            bridge: "host1".into(),
            ingress: "in".into(),
            egress: "out".into(),
            mac: None,
            weight: 1,
            drain: false,
            origin: origin.clone(),
        };
        policy.tenants[0].functions.push(Function {
            name: "firewall".into(),
            kind: crate::policy::FunctionKind::Wire,
            on_failure: crate::policy::OnFailure::Drop,
            share_by: crate::policy::ShareBy::default(),
            instances: vec![instance("fw-1"), instance("fw-2")],
            origin: origin.clone(),
        });
        let with = before.updated(&policy);
        let of = |name| with.of(name).unwrap();
        let [one, two] = ["green instance firewall/fw-1", "green instance firewall/fw-2"].map(of);
        assert!(one.key > Tenant::KEY_MAX && two.key > Tenant::KEY_MAX && one.key != two.key);
        assert_eq!((one.vlan, two.vlan), (Some(WAYPOINT_VLAN_MAX), Some(WAYPOINT_VLAN_MAX - 1)));
        assert_eq!(of("green function firewall").vlan, None);
        assert_eq!([with.of("green"), with.of("orange")], [before.of("green"), before.of("orange")]);
        assert_eq!(with.updated(&policy), with);
        policy.tenants[0].functions[0].instances.remove(0);
        assert_eq!(with.updated(&policy).of("green instance firewall/fw-2"), Some(two), "it keeps them");
    }

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
