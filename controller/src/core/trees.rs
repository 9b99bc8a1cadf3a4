//! Which version of its tree a tenant's floods follow by now, as far as bridges tell.

use std::collections::{BTreeMap, BTreeSet};

use apps::desired::FlowKey;
use apps::marks::{Owner, TreeVersion};
use apps::pipeline::FLOOD;
use apps::reconcile::enters_tree;
use apps::view::Grown;
use openflow::matching::Match;

use super::Core;
use super::bridge::Bridge;

impl Bridge {
    /// The version that a tenant's frames follow which enter here.
    fn tree_version(&self, owner: Owner) -> Option<TreeVersion> {
        let lowest = FlowKey { table: FLOOD, priority: 0, matching: Match::default() };
        let floods = self.installed.get(&owner)?.flows.range(lowest..).filter(|(key, _)| key.table == FLOOD);
        floods.filter(|(key, _)| key.matching.in_port().is_none()).find_map(|(_, flow)| enters_tree(flow))
    }
}

impl Core {
    /// Looks what has to be known of these tenants' trees before others are computed. After a restart nothing of them is. A bridge
    /// that doesn't answer, or refuses changes, may have stayed with the version before; and while frames enter by two versions,
    /// there is none left for a third tree.
    pub(super) fn recall_trees(&mut self, owners: &BTreeSet<Owner>) {
        let mut versions: BTreeMap<Owner, Versions> = BTreeMap::new();
        for bridge in self.bridges.values() {
            for owner in bridge.installed.keys().filter(|owner| owners.contains(owner)) {
                let refuses = bridge.refusals.contains_key(owner);
                let of = versions.entry(*owner).or_default();
                of.refused |= refuses;
                if let Some(version) = bridge.tree_version(*owner) {
                    of.all.insert(version);
                    if refuses || !bridge.is_responsive() {
                        of.left.insert(version);
                    }
                }
            }
        }
        for (owner, Versions { all, left, refused }) in versions {
            match self.view.trees.get_mut(&owner.0) {
                // Both trees at once may also be more than some bridge has room for.
                Some(grown) if left.is_empty() || left.contains(&grown.version) => {
                    grown.edges.take_if(|_| refused || all.iter().any(|it| *it != grown.version));
                }
                _ => {
                    if let Some(version) = left.into_iter().chain(all).next() {
                        self.view.trees.insert(owner.0, Grown { version, edges: None });
                    }
                }
            }
        }
    }
}

/// The versions of its tree that a tenant's frames follow.
#[derive(Default)]
struct Versions {
    /// At all bridges.
    all: BTreeSet<TreeVersion>,
    /// At those that can't be changed now.
    left: BTreeSet<TreeVersion>,
    /// Does some bridge refuse changes?
    refused: bool,
}
