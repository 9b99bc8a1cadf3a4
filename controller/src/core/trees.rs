//! Which versions of its tree a tenant's floods follow by now, as far as bridges tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apps::attachment::PortUse;
use apps::desired::FlowKey;
use apps::marks::{Owner, TreeVersion, group_version};
use apps::pipeline::FLOOD;
use apps::reconcile;
use apps::trees::{self, Followed};
use apps::view::{Endpoint, Grown, Link};
use openflow::action::Action;
use openflow::matching::Match;
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
                let before = self.view.trees.get(&owner.0);
                let forgotten = before.is_none() && !refused && !self.rounds.handover;
                let versions = followed.all.clone();
                let grown = followed.recall(before);
                self.view.trees.extend(grown.map(|grown| (owner.0, grown)));
                if forgotten {
                    self.found_again(*owner, &versions);
                }
            }
        }
    }

    /// After a restart: the tree that a tenant has, if its frames follow one version. It may have been about to move to another.
    fn found_again(&mut self, owner: Owner, versions: &BTreeSet<TreeVersion>) {
        let tree = |version: &TreeVersion| Some((*version, self.held_tree(owner, *version)?));
        match versions.iter().map(tree).collect::<Option<Vec<_>>>().as_deref() {
            Some([(version, edges)]) => {
                let (version, edges) = (*version, Some(Arc::new(edges.clone())));
                self.view.trees.insert(owner.0, Grown { version, edges });
                self.rounds.found_again.insert(owner);
            }
            // All bridges have both, and were about to leave one of them.
            Some([_, _]) => drop(self.rounds.halfway.insert(owner)),
            _ => {}
        }
    }

    /// Where the controller ended while frames went over from one tree to the other, and it is known by now which tree is wanted:
    /// if it is one of the two, they go on to that.
    pub(super) fn go_on_halfway(&mut self) {
        for owner in std::mem::take(&mut self.rounds.halfway) {
            let name = self.tenant_of(owner);
            let Some(wanted) = name.and_then(|name| self.desired.trees.get(name)).map(|tree| tree.edges.clone()) else {
                continue;
            };
            let had = TreeVersion::ALL.into_iter().find(|it| self.held_tree(owner, *it).as_ref() == Some(&wanted));
            if let Some(version) = had {
                self.view.trees.insert(owner.0, Grown { version, edges: Some(Arc::new(wanted)) });
                self.rounds.found_again.insert(owner);
                self.compile_owner(owner);
            }
        }
    }

    /// A version of a tenant's tree by what bridges hold; `None`: a bridge doesn't answer, or it isn't whole.
    fn held_tree(&self, owner: Owner, version: TreeVersion) -> Option<BTreeSet<Link>> {
        let (mut takes, mut sends) = (BTreeSet::new(), BTreeSet::new());
        for (dpid, bridge) in &self.bridges {
            let Some(section) = bridge.installed.get(&owner) else { continue };
            if !bridge.is_responsive() {
                return None;
            }
            let place = |port| Endpoint { bridge: *dpid, port };
            let lowest = FlowKey { table: FLOOD, priority: 0, matching: Match::default() };
            let floods = section.flows.range(lowest..).take_while(|(key, _)| key.table == FLOOD);
            let floods = floods.filter(|(key, flow)| reconcile::floods(key, flow) == Some(version));
            takes.extend(floods.filter_map(|(key, _)| key.matching.in_port()).map(place));
            let groups = section.groups.iter().filter(|(id, _)| group_version(**id) == version);
            let actions = groups.flat_map(|(_, group)| &group.buckets).flat_map(|bucket| &bucket.actions);
            let ports = actions.filter_map(|action| match action {
                Action::Output { port, .. } => Some(place(*port)),
                _ => None,
            });
            sends.extend(ports.filter(|place| *self.attachments.of(*place) == PortUse::Candidate));
        }
        if takes != sends || self.view.held.iter().any(|held| held.trees.contains(&owner.0)) {
            return None;
        }
        let links = self.view.links.iter().chain(self.view.withheld.keys());
        let edges: BTreeSet<Link> =
            links.copied().filter(|link| takes.contains(&link.a) && takes.contains(&link.b)).collect();
        (edges.len() * 2 == takes.len()).then_some(edges)
    }

    /// By what bridges hold.
    fn followed(&self, owner: Owner) -> Followed {
        let mut followed = Followed::default();
        for (dpid, bridge) in &self.bridges {
            let section = bridge.installed.get(&owner);
            let Some(version) = section.and_then(|section| reconcile::followed(section)) else { continue };
            followed.all.insert(version);
            followed.unready |= bridge.is_back && !self.rounds.found_again.contains(&owner);
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
