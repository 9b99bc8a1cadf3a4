//! What a bridge does by itself when a port of a link dies: frames for a known destination that entered there go over another
//! link at once, whether or not a controller is there.
//!
//! Only frames that entered at that bridge do. They bear a bit in the metadata that says so and that no link carries on, so
//! a frame takes such a way at most once; from then on it follows entries that know no other link, which lead around in no
//! circle. If bridges on the way did the same, all neighbours of a bridge that died would pass its frames on to each other.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use openflow::types::DatapathId;

use crate::trees::rank;
use crate::view::{Endpoint, Link, View};

/// The links of each bridge that a tenant can use, with their far ends.
pub(crate) struct Around<'a>(BTreeMap<DatapathId, Vec<(&'a Link, Endpoint)>>);

impl<'a> Around<'a> {
    pub(crate) fn new(view: &'a View, usable: impl Fn(&Link) -> bool) -> Self {
        let mut around: BTreeMap<DatapathId, Vec<_>> = BTreeMap::new();
        for link in view.links.iter().filter(|link| usable(link)) {
            for (here, there) in [(link.a, link.b), (link.b, link.a)] {
                around.entry(here.bridge).or_default().push((link, there));
            }
        }
        Self(around)
    }

    /// The link that frames for `target` leave `at` by when the `first` one is dead. `ways` are the ways that others have: the
    /// next link, and the distance.
    ///
    /// It is marked as the first one is, because what a bridge does to a frame before it chooses is the same for both.
    pub(crate) fn backup(
        &self,
        key: u32,
        at: DatapathId,
        target: DatapathId,
        first: &Link,
        ways: &BTreeMap<DatapathId, (Link, u16)>,
    ) -> Option<Link> {
        let others = self.0.get(&at)?.iter().filter(|(link, _)| *link != first && link.carrier == first.carrier);
        let lead = others.filter_map(|(link, there)| Some((**link, 1 + distance(there.bridge, at, target, ways)?)));
        lead.max_by_key(|(link, hops)| (Reverse(*hops), rank(key, link))).map(|(link, _)| link)
    }
}

/// How many links it is from a bridge to the target, if frames get there without passing `around`.
fn distance(
    from: DatapathId,
    around: DatapathId,
    target: DatapathId,
    ways: &BTreeMap<DatapathId, (Link, u16)>,
) -> Option<u16> {
    let mut at = from;
    // Distances fall along a way, so this ends.
    while at != target {
        let (link, _) = ways.get(&at).filter(|_| at != around)?;
        at = link.at(at)?.1.bridge;
    }
    Some(if from == target { 0 } else { ways.get(&from)?.1 })
}
