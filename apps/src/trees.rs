//! How a tenant's frames travel: its tree for what goes to everybody, and shortest paths for known unicast.
//!
//! Both depend on the view alone, ties are broken by a hash of tenant and link, and so tenants spread over equal links
//! while equal views give equal trees.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openflow::types::DatapathId;
use petgraph::algo::dijkstra;
use petgraph::graphmap::DiGraphMap;

use crate::marks::{Owner, TreeVersion};
use crate::view::{Carrier, Endpoint, Grown, Link, View};

/// The edges of a tenant's trees: one tree for each part of the fabric that its bridges are in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The bridge that each part grows from, the widest part first.
    pub roots: Vec<DatapathId>,
    /// The edges.
    pub edges: BTreeSet<Link>,
    /// The bridges that it spans, those it only passes included.
    pub bridges: BTreeSet<DatapathId>,
    /// The links that known unicast takes between the tenant's bridges, and frames on their way to functions.
    pub ways: BTreeSet<Link>,
    /// Which frames follow it.
    pub version: TreeVersion,
}

impl Tree {
    /// The ports at which the tree's edges end at `bridge`, with the links.
    pub fn at(&self, bridge: DatapathId) -> impl Iterator<Item = (Endpoint, &Link)> {
        self.edges.iter().filter_map(move |link| link.at(bridge).map(|(here, _)| (here, link)))
    }

    /// What the next computation has to know of it.
    pub fn grown(&self) -> Grown {
        Grown { version: self.version, edges: Some(Arc::new(self.edges.clone())) }
    }
}

/// The versions of its tree that a tenant's frames follow by what bridges hold, as to where they enter.
#[derive(Clone, Debug, Default)]
pub struct Followed {
    /// At all bridges.
    pub all: BTreeSet<TreeVersion>,
    /// At those that can't be changed now.
    pub left: BTreeSet<TreeVersion>,
    /// Does some bridge refuse changes, or has one just come back with what it had?
    pub unready: bool,
}

impl Followed {
    /// What has to be known before another tree is computed. After a restart nothing is. A bridge that doesn't answer, or refuses
    /// changes, may have stayed with the version before. While frames follow both versions there is none left for a third tree.
    /// A bridge that refused something may have no room for both at once, and one that is back may have an older tree.
    pub fn recall(self, known: Option<&Grown>) -> Option<Grown> {
        let Self { all, left, unready } = self;
        match known {
            Some(grown) if left.is_empty() || left.contains(&grown.version) => {
                let alone = !unready && all.iter().all(|version| *version == grown.version);
                Some(Grown { version: grown.version, edges: grown.edges.clone().filter(|_| alone) })
            }
            _ => left.into_iter().chain(all).next().map(|version| Grown { version, edges: None }),
        }
    }
}

/// Those of the owners whose frames may follow two trees at once, as all marks tell which, and by which version they are to go in
/// the end.
pub fn told(trees: &BTreeMap<u32, Grown>, owners: &BTreeSet<Owner>) -> BTreeMap<Owner, TreeVersion> {
    let tree = |owner: &Owner| Some((*owner, trees.get(&owner.0).filter(|tree| tree.is_told())?.version));
    owners.iter().filter_map(tree).collect()
}

/// The links that one tenant can use.
#[derive(Clone, Debug)]
pub struct Paths<'a> {
    view: &'a View,
    key: u32,
    /// Links at bridges that don't answer, as far as these take in what comes over them.
    held: BTreeSet<Link>,
    /// From a bridge to its neighbour, if frames may pass through the neighbour on their way; of parallel links one. The
    /// direction is that in which distances grow: away from the destination.
    graph: DiGraphMap<DatapathId, Link>,
}

impl<'a> Paths<'a> {
    /// The tenant with `key` on those links that `usable` admits, and of the ones at bridges that don't answer those over which these
    /// certainly take its frames in.
    pub fn new(view: &'a View, key: u32, usable: impl Fn(&Link) -> bool, takes_in: impl Fn(&Link) -> bool) -> Self {
        let mut graph = DiGraphMap::new();
        let held = view.held.iter().filter(|held| held.up).map(|held| held.link);
        let held: BTreeSet<Link> = held.filter(|link| takes_in(link)).collect();
        for link in view.links.iter().chain(&held).filter(|link| usable(link)) {
            for (from, to) in [(link.a.bridge, link.b.bridge), (link.b.bridge, link.a.bridge)] {
                let better = graph.edge_weight(from, to).is_none_or(|other| rank(key, link) > rank(key, other));
                if view.is_responsive(to) && from != to && better {
                    graph.add_edge(from, to, *link);
                }
            }
        }
        Self { view, key, held, graph }
    }

    /// For each bridge that has a way to `target`: the link on which a frame for it leaves, and how many links it has to
    /// pass.
    pub fn towards(&self, target: DatapathId) -> BTreeMap<DatapathId, (Link, u16)> {
        if !self.graph.contains_node(target) {
            return BTreeMap::new();
        }
        let distance = dijkstra(&self.graph, target, None, |_| 1u16);
        distance
            .iter()
            .filter(|(bridge, _)| **bridge != target)
            .filter_map(|(&bridge, &hops)| {
                let next = self
                    .graph
                    .edges_directed(bridge, petgraph::Direction::Incoming)
                    .filter(|(from, ..)| distance.get(from).is_some_and(|&theirs| theirs + 1 == hops))
                    .max_by_key(|(_, _, link)| rank(self.key, link));
                next.map(|(_, _, link)| (bridge, (*link, hops)))
            })
            .collect()
    }

    /// A bridge that no longer answers floods as it did. It stays in the tree as a leaf, at one of the links that it
    /// floods over, and so do several together that flood to each other. Gives for each such group the link, with its end
    /// at a bridge that answers.
    fn anchors(&self, terminals: &BTreeSet<DatapathId>) -> Vec<(Link, Endpoint)> {
        let held = || self.view.held.iter().filter(|held| held.trees.contains(&self.key));
        let flooded = || held().map(|held| held.link);
        let mut left: BTreeSet<DatapathId> = flooded()
            .flat_map(|link| [link.a.bridge, link.b.bridge])
            .filter(|&dpid| !self.view.is_responsive(dpid))
            .collect();
        let mut anchors = Vec::new();
        while let Some(first) = left.pop_first() {
            let (mut group, mut queue) = (BTreeSet::from([first]), vec![first]);
            while let Some(at) = queue.pop() {
                for (_, there) in flooded().filter_map(|link| link.at(at)) {
                    if left.remove(&there.bridge) {
                        group.insert(there.bridge);
                        queue.push(there.bridge);
                    }
                }
            }
            let up = held().filter(|held| held.up).map(|held| held.link);
            let outward = up.flat_map(|link| [(link, link.a, link.b), (link, link.b, link.a)]);
            let best = outward
                .filter(|(_, here, there)| group.contains(&here.bridge) && self.view.is_responsive(there.bridge))
                // An end where the tenant has ports anyway spares a detour.
                .max_by_key(|(link, _, there)| {
                    (self.held.contains(link), terminals.contains(&there.bridge), rank(self.key, link))
                });
            if let Some((link, _, there)) = best.filter(|_| !group.is_disjoint(terminals)) {
                anchors.push((link, there));
            }
        }
        anchors
    }

    /// The tree over `terminals`, the bridges where the tenant has ports.
    pub fn tree(&self, terminals: &BTreeSet<DatapathId>) -> Tree {
        let mut tree = Tree::default();
        let mut parts = Vec::new();
        let anchors = self.anchors(terminals);
        let mut wanted: BTreeSet<DatapathId> =
            terminals.iter().copied().filter(|&t| self.view.is_responsive(t)).collect();
        wanted.extend(anchors.iter().map(|(_, there)| there.bridge));
        while let Some(root) =
            wanted.iter().copied().max_by_key(|&dpid| (terminals.contains(&dpid), spread(self.key, &[dpid.0])))
        {
            let next = self.towards(root);
            let mut spanned = BTreeSet::from([root]);
            for start in
                wanted.iter().copied().filter(|start| *start == root || next.contains_key(start)).collect::<Vec<_>>()
            {
                wanted.remove(&start);
                let mut at = start;
                while let Some((link, _)) = next.get(&at) {
                    spanned.insert(at);
                    // Where another path has been, the rest is in the tree already.
                    if !tree.edges.insert(*link) {
                        break;
                    }
                    at = link.at(at).map_or(root, |(_, there)| there.bridge);
                }
            }
            parts.push((spanned.len(), root));
            tree.bridges.extend(spanned);
        }
        for (link, there) in anchors {
            tree.edges.insert(link);
            tree.bridges.extend(link.at(there.bridge).map(|(_, silent)| silent.bridge));
        }
        parts.sort_by(|one, other| other.cmp(one));
        tree.roots = parts.into_iter().map(|(_, root)| root).collect();
        tree.version = self.version(&tree.edges);
        tree
    }

    /// Floods pass from one tree to another one without loss if frames say which of the two they follow. So another tree has
    /// the other version, if the old one still works: where an edge is dead, as few bridges as possible change, at once. There
    /// is but one version over links that can't say which, and for bridges that don't answer.
    fn version(&self, edges: &BTreeSet<Link>) -> TreeVersion {
        let Some(now) = self.view.trees.get(&self.key) else { return TreeVersion::default() };
        let Some(before) = &now.edges else { return now.version };
        let tells = |link: &Link| link.carrier != Carrier::Vlan;
        let works = |link: &Link| self.view.links.binary_search(link).is_ok() || self.view.withheld.contains_key(link);
        let silent = || self.view.held.iter().any(|held| held.trees.contains(&self.key));
        // Where edges only come, or only go, one tree is a part of the other.
        let moves = !before.is_subset(edges) && !edges.is_subset(before);
        if moves && before.union(edges).all(tells) && before.difference(edges).all(works) && !silent() {
            now.version.next()
        } else {
            now.version
        }
    }
}

/// Which of several equal links a tenant prefers.
pub(crate) fn rank(key: u32, link: &Link) -> (u64, Link) {
    let Link { a, b, .. } = link;
    (spread(key, &[a.bridge.0, a.port.0.into(), b.bridge.0, b.port.0.into()]), *link)
}

/// A number that looks random but is the same everywhere and for ever: FNV-1a, then the finish of SplitMix64, which
/// spreads small differences over all bits.
pub(crate) fn spread(key: u32, parts: &[u64]) -> u64 {
    let octets = key.to_be_bytes().into_iter().chain(parts.iter().flat_map(|part| part.to_be_bytes()));
    let mut x =
        octets.fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x100_0000_01b3));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
