//! How long packets of a tenant may be, by what was measured of the links that they take. A packet is counted from the IP header
//! on, as interfaces' MTU is; that of an untagged frame.

use std::collections::BTreeMap;

use crate::trees::Tree;
use crate::view::{Carrier, Link};

/// Octets of a VLAN tag.
const TAG: u16 = 4;

/// What a link carries of packets that need no mark, beyond those that do. Marks of tunnels with `key=flow` take no room anyway, and
/// plain links need one for all.
const fn without_mark(carrier: Carrier) -> u16 {
    if let Carrier::Dedicated(_) = carrier { TAG } else { 0 }
}

/// The links that a tenant's packets take, and what each carries of them, as far as that is known. What is sent to everybody, or through
/// chains, bears a mark on every link.
fn carry<'a>(
    tree: &'a Tree,
    mtus: &'a BTreeMap<Link, u16>,
    chained: bool,
) -> impl Iterator<Item = (&'a Link, Option<u16>)> {
    let marked = tree.edges.iter().map(|link| (link, 0));
    let others = tree.ways.difference(&tree.edges);
    let others = others.map(move |link| (link, if chained { 0 } else { without_mark(link.carrier) }));
    marked.chain(others).map(|(link, more)| (link, mtus.get(link).map(|octets| octets + more)))
}

/// The octets of the longest packet that all links of a tenant carry: of those in chains, or of all others. `None`: that isn't known of
/// all of them yet, or there are none.
pub fn longest(tree: &Tree, mtus: &BTreeMap<Link, u16>, chained: bool) -> Option<u16> {
    let all = carry(tree, mtus, chained).map(|(_, octets)| octets).collect::<Option<Vec<u16>>>()?;
    all.into_iter().min()
}

/// The links of a tenant that are known to carry less than it wants, with what they carry; the worst first.
pub fn too_short(tree: &Tree, mtus: &BTreeMap<Link, u16>, chained: bool, wanted: u16) -> Vec<(u16, Link)> {
    let known = carry(tree, mtus, chained).filter_map(|(link, octets)| Some((octets?, *link)));
    let mut short: Vec<_> = known.filter(|(octets, _)| *octets < wanted).collect();
    short.sort_unstable();
    short
}

#[cfg(test)]
mod tests {
    use openflow::types::{DatapathId, PortNo};

    use super::*;
    use crate::view::Endpoint;

    #[test]
    fn marks_cost_where_they_are_tags_and_unknown_links_are_not_guessed() {
        let link = |a: u64, b: u64, carrier| {
            let end = |bridge: u64, port: u64| Endpoint { bridge: DatapathId(bridge), port: PortNo(port as u32) };
            Link { a: end(a, b), b: end(b, a), carrier }
        };
        for (carrier, more) in [(Carrier::Tunnel, 0), (Carrier::Vlan, 0), (Carrier::Dedicated(100), 4)] {
            let [one, two] = [link(1, 2, carrier), link(2, 3, carrier)];
            let tree = Tree { edges: [one].into(), ways: [one, two].into(), ..Tree::default() };
            let mut mtus = BTreeMap::from([(one, 1500)]);
            assert_eq!([false, true].map(|chained| longest(&tree, &mtus, chained)), [None, None]);
            assert_eq!(too_short(&tree, &mtus, false, 1501), [(1500, one)]);
            mtus.insert(two, 1450);
            assert_eq!([false, true].map(|chained| longest(&tree, &mtus, chained)), [Some(1450 + more), Some(1450)]);
            assert_eq!(too_short(&tree, &mtus, true, 1501), [(1450, two), (1500, one)]);
            assert_eq!(too_short(&tree, &mtus, false, 1450 + more), []);
            assert_eq!(longest(&Tree::default(), &mtus, false), None);
        }
    }
}
