//! Which versions of its tree a tenant's floods follow by now, as far as bridges tell.

use std::collections::{BTreeMap, BTreeSet};

use apps::marks::{Owner, TreeVersion};
use apps::reconcile;
use apps::trees::{self, Followed};
use openflow::types::DatapathId;

use super::Core;

impl Core {
    /// Looks what has to be known of these tenants' trees before others are computed.
    pub(super) fn recall_trees(&mut self, owners: &BTreeSet<Owner>) {
        if self.rounds.handover {
            // What goes and comes strictly has no two trees at once.
            self.view.trees.values_mut().for_each(|grown| grown.edges = None);
        }
        let refused = self.ever_refused();
        for owner in owners {
            let refused = refused.contains(owner);
            if refused || self.rounds.two_trees.contains(owner) || !self.view.trees.contains_key(&owner.0) {
                let mut followed = self.followed(*owner);
                followed.unready |= refused;
                let grown = followed.recall(self.view.trees.get(&owner.0));
                self.view.trees.extend(grown.map(|grown| (owner.0, grown)));
            }
        }
    }

    /// By what bridges hold.
    fn followed(&self, owner: Owner) -> Followed {
        let mut followed = Followed::default();
        for (dpid, bridge) in &self.bridges {
            let section = bridge.installed.get(&owner);
            let Some(version) = section.and_then(|section| reconcile::followed(section)) else { continue };
            followed.all.insert(version);
            followed.unready |= bridge.is_back;
            let silent = || !bridge.is_responsive() && self.is_held(*dpid, owner);
            if bridge.refusals.contains_key(&owner) || silent() {
                followed.left.insert(version);
            }
        }
        followed
    }

    /// May a bridge that doesn't answer still flood a tenant's frames?
    fn is_held(&self, dpid: DatapathId, owner: Owner) -> bool {
        self.view.held.iter().any(|held| held.link.at(dpid).is_some() && held.trees.contains(&owner.0))
    }

    /// Owners some of whose entries a bridge refused when they were last tried.
    fn ever_refused(&self) -> BTreeSet<Owner> {
        self.bridges.values().flat_map(|bridge| bridge.refusals.keys().copied()).collect()
    }

    /// The owners whose frames may follow two trees while their tables change, as all bridges have room for that, and by which
    /// version they are to go in the end.
    pub(super) fn two_trees(&self, owners: &BTreeSet<Owner>) -> BTreeMap<Owner, TreeVersion> {
        let mut told = trees::told(&self.view.trees, owners);
        let refused = self.ever_refused();
        told.retain(|owner, _| !refused.contains(owner));
        told
    }
}
