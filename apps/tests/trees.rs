//! Goal: a tree changes only as much as it has to when a link goes or comes back, over random fabrics.

use std::collections::{BTreeMap, BTreeSet};

use apps::trees::{Paths, Tree};
use apps::view::{Bridge, Carrier, Endpoint, Link, View};
use openflow::types::{DatapathId, PortNo};

const KEY: u32 = 7;

/// SplitMix64.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }
}

/// A ring of bridges and as many links across it.
fn fabric(bridges: u64, across: u64, draw: &mut Draw) -> View {
    let bridge = |dpid: u64| Bridge { name: dpid.to_string(), responsive: true, ports: BTreeMap::new() };
    let ring = (1..=bridges).map(|a| (a, a % bridges + 1)).collect::<Vec<_>>();
    let mut pairs: BTreeSet<(u64, u64)> = ring.into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
    while (pairs.len() as u64) < bridges + across {
        let (a, b) = (1 + draw.below(bridges), 1 + draw.below(bridges));
        if a != b {
            pairs.insert((a.min(b), a.max(b)));
        }
    }
    let end = |bridge: u64, to: u64| Endpoint { bridge: DatapathId(bridge), port: PortNo(to as u32) };
    let links = pairs.into_iter().map(|(a, b)| Link { a: end(a, b), b: end(b, a), carrier: Carrier::Tunnel });
    let bridges = (1..=bridges).map(|dpid| (DatapathId(dpid), bridge(dpid))).collect();
    View { bridges, links: links.collect(), ..View::default() }
}

fn tree(view: &View, terminals: &BTreeSet<DatapathId>) -> Tree {
    Paths::new(view, KEY, |_| true, |_| true).tree(terminals)
}

/// The edges of all ways from terminals to the root that lead over one edge.
fn ways_over(tree: &Tree, terminals: &BTreeSet<DatapathId>, edge: &Link) -> BTreeSet<Link> {
    let mut ways = BTreeMap::from([(tree.roots[0], BTreeSet::new())]);
    let mut queue = vec![tree.roots[0]];
    while let Some(at) = queue.pop() {
        for (link, there) in tree.edges.iter().filter_map(|link| link.at(at).map(|(_, there)| (link, there.bridge))) {
            if !ways.contains_key(&there) {
                ways.insert(there, ways[&at].iter().copied().chain([*link]).collect());
                queue.push(there);
            }
        }
    }
    terminals.iter().map(|terminal| &ways[terminal]).filter(|way| way.contains(edge)).flatten().copied().collect()
}

#[test]
fn a_link_that_goes_moves_only_the_ways_that_led_over_it() {
    let mut draw = Draw(1);
    let (mut failures, mut moved, mut most, mut least) = (0, 0, 0, 0);
    for _ in 0..40 {
        let bridges = 4 + draw.below(60);
        let across = bridges.min(bridges * (bridges - 3) / 2);
        let view = fabric(bridges, draw.below(across + 1), &mut draw);
        let terminals: BTreeSet<DatapathId> =
            (1..=bridges).filter(|_| draw.below(3) > 0).chain([1, 2]).map(DatapathId).collect();
        let before = tree(&view, &terminals);
        for gone in &view.links {
            let mut without = view.clone();
            without.links.retain(|link| link != gone);
            let after = tree(&without, &terminals);
            assert_eq!(after.roots, before.roots);
            let lost: BTreeSet<Link> = before.edges.difference(&after.edges).copied().collect();
            let new = after.edges.difference(&before.edges).count();
            if before.edges.contains(gone) {
                let allowed = ways_over(&before, &terminals, gone);
                assert!(lost.is_subset(&allowed), "{lost:?} for {gone:?}, where ways over it have {allowed:?}");
                failures += 1;
                moved += new;
                most = most.max(new);
                least += usize::from(new == 1);
            } else {
                assert_eq!((lost.len(), new), (0, 0), "{gone:?} isn't in the tree");
            }
        }
        assert_eq!(tree(&view, &terminals), before, "back again");
    }
    println!(
        "{failures} failures of a tree's link: {:.2} new edges on average, {most} at most, one in {} %",
        moved as f64 / f64::from(failures),
        100 * least / usize::try_from(failures).unwrap()
    );
}
