//! From policy and view to what every bridge should hold. This full computation is the truth; whoever computes less must
//! come to the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openflow::types::{DatapathId, PortNo};

use crate::allocation::Allocations;
use crate::attachment::attach;
use crate::desired::{BridgeState, Section};
use crate::fabric;
use crate::marks::Owner;
use crate::policy::Policy;
use crate::reconcile;
use crate::tenants;
use crate::trees::Tree;
use crate::view::{Grown, Hosts, View};

/// What every bridge that answers should hold, and each tenant's tree by the tenant's name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// By datapath id.
    pub bridges: BTreeMap<DatapathId, BridgeState>,
    /// By tenant.
    pub trees: BTreeMap<String, Tree>,
    /// The ports by which frames of known destination, or on their way to functions, are sent over links.
    pub ways: BTreeMap<DatapathId, BTreeMap<Owner, BTreeSet<PortNo>>>,
}

impl Desired {
    /// Puts in place what one owner has, instead of what it had.
    pub fn set(&mut self, owner: Owner, sections: BTreeMap<DatapathId, Section>) {
        for state in self.bridges.values_mut() {
            state.remove(&owner);
        }
        for ways in self.ways.values_mut() {
            ways.remove(&owner);
        }
        for (dpid, section) in sections {
            let ways = reconcile::ways(&section);
            if !ways.is_empty() {
                self.ways.entry(dpid).or_default().insert(owner, ways);
            }
            if !section.is_empty() {
                self.bridges.entry(dpid).or_default().insert(owner, Arc::new(section));
            }
        }
    }

    /// The trees, as the view of the fabric has them once bridges hold this.
    pub fn grown(&self, allocations: &Allocations) -> BTreeMap<u32, Grown> {
        self.trees.iter().filter_map(|(name, tree)| Some((allocations.of(name)?.key, tree.grown()))).collect()
    }
}

/// Computes everything. `hosts` are the learnt hosts by tenant.
pub fn compile(policy: &Policy, allocations: &Allocations, view: &View, hosts: &BTreeMap<String, Hosts>) -> Desired {
    let attachments = attach(policy, view);
    let mut desired = Desired::default();
    let answering = || view.bridges.iter().filter(|(_, bridge)| bridge.responsive).map(|(dpid, _)| *dpid);
    desired.bridges = answering().map(|dpid| (dpid, BridgeState::new())).collect();
    let sections =
        answering().map(|dpid| (dpid, fabric::compile(dpid, policy, allocations, &attachments, view))).collect();
    desired.set(Owner::FABRIC, sections);
    let none = Hosts::new();
    for tenant in &policy.tenants {
        let Some(numbers) = allocations.of(&tenant.name) else { continue };
        let learnt = hosts.get(&tenant.name).unwrap_or(&none);
        let network = tenants::compile(tenant, allocations, &attachments, view, learnt);
        desired.set(Owner(numbers.key), network.sections);
        desired.trees.insert(tenant.name.clone(), network.tree);
    }
    desired
}
