//! The links that a tenant's frames take between its bridges, once their destination is known.

use std::collections::{BTreeMap, BTreeSet};

use openflow::types::DatapathId;

use crate::allocation::Numbers;
use crate::backups::Around;
use crate::links;
use crate::trees::Paths;
use crate::view::{Link, View};

/// The ways between all bridges of a tenant.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// Towards each bridge of the tenant: the link that frames for it leave on and how many they have to pass, by the
    /// bridge that they leave.
    pub(crate) hops: BTreeMap<DatapathId, BTreeMap<DatapathId, (Link, u16)>>,
    /// The link that frames which enter at a bridge take instead if the port of that one is dead, in the same order.
    pub(crate) backups: BTreeMap<DatapathId, BTreeMap<DatapathId, Link>>,
    /// Links over which a bridge that doesn't answer may go on sending.
    pub(crate) held: BTreeSet<Link>,
}

impl Routes {
    /// Those between `terminals`, and only those.
    pub(crate) fn new(view: &View, numbers: Numbers, paths: &Paths<'_>, terminals: &BTreeSet<DatapathId>) -> Self {
        let mut routes = Self::default();
        let mut starts = terminals.clone();
        // A bridge that doesn't answer sends as it did: from its neighbours on there has to be a way.
        for held in view.held.iter().filter(|held| held.up && links::usable(held.link.carrier, numbers)) {
            for (here, there) in [(held.link.a, held.link.b), (held.link.b, held.link.a)] {
                if terminals.contains(&here.bridge) && !view.is_responsive(here.bridge) {
                    routes.held.insert(held.link);
                    starts.insert(there.bridge);
                }
            }
        }
        let around = Around::new(view, |link| links::usable(link.carrier, numbers));
        for &target in terminals {
            let towards = paths.towards(target);
            let mut used = BTreeMap::new();
            for start in starts.iter().filter(|start| **start != target).copied() {
                let mut at = start;
                while let Some(next) = towards.get(&at) {
                    if used.insert(at, *next).is_some() {
                        break;
                    }
                    at = next.0.at(at).map_or(target, |(_, there)| there.bridge);
                }
            }
            let backup = |at: &DatapathId| {
                let (first, _) = used.get(at)?;
                Some((*at, around.backup(numbers.key, *at, target, first, &used)?))
            };
            routes.backups.insert(target, terminals.iter().filter_map(backup).collect());
            routes.hops.insert(target, used);
        }
        routes
    }

    /// All links that frames take, as long as these live.
    pub(crate) fn links(&self) -> BTreeSet<Link> {
        self.hops.values().flat_map(BTreeMap::values).map(|(link, _)| *link).collect()
    }

    /// Do frames get from one bridge to another?
    pub(crate) fn reach(&self, from: DatapathId, to: DatapathId) -> bool {
        self.hops.get(&to).is_some_and(|hops| hops.contains_key(&from))
    }
}
