//! Links that aren't used where there is another way: those that flap, and those that the policy drains. Nobody is cut
//! off by that.

use std::collections::{BTreeMap, BTreeSet};

use openflow::types::DatapathId;

use crate::allocation::{Allocations, Numbers};
use crate::attachment::{Attachments, PortUse};
use crate::links::usable;
use crate::policy::{LinkSelector, Policy};
use crate::view::{Carrier, Link, View};

/// Why a link isn't to be used. Where one is needed after all, the first kind is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reluctance {
    /// It goes down again and again.
    Damped,
    /// The policy wants it to carry nothing.
    Drained,
}

/// The entry of the policy's `drain` that selects a link, by either of its ends.
pub fn drained<'a>(policy: &'a Policy, view: &View, link: &Link) -> Option<&'a LinkSelector> {
    policy.fabric.drain.iter().find(|selector| selects(selector, view, link))
}

/// Is it an end of the link that a selector selects?
pub fn selects(selector: &LinkSelector, view: &View, link: &Link) -> bool {
    [link.a, link.b].into_iter().any(|end| {
        let Some(bridge) = view.bridges.get(&end.bridge) else { return false };
        let is_bridge = selector.bridge.matches(&bridge.name) || selector.bridge.matches(&end.bridge.to_string());
        is_bridge && bridge.ports.get(&end.port).is_some_and(|port| selector.port.matches(&port.name))
    })
}

/// Between which bridges each tenant has frames to carry, and over which links it can.
#[derive(Clone, Debug, Default)]
pub struct Needs(Vec<(Numbers, BTreeSet<DatapathId>)>);

impl Needs {
    /// Those of all tenants of the policy.
    pub fn new(policy: &Policy, allocations: &Allocations, attachments: &Attachments, view: &View) -> Self {
        let mut bridges: BTreeMap<&str, BTreeSet<DatapathId>> = BTreeMap::new();
        for (place, used) in &attachments.ports {
            let tenant = match used {
                PortUse::Tenant(attached) => &attached.tenant,
                PortUse::Function(port) => &port.tenant,
                PortUse::Candidate | PortUse::Untried(_) | PortUse::Unused => continue,
            };
            bridges.entry(tenant).or_default().insert(place.bridge);
        }
        let tenants = policy.tenants.iter().filter_map(|tenant| {
            let numbers = allocations.of(&tenant.name)?;
            let mut bridges = bridges.remove(tenant.name.as_str())?;
            // A bridge that doesn't answer is reached from its neighbours.
            let held = view.held.iter().filter(|held| held.up && usable(held.link.carrier, numbers));
            let ends = held.flat_map(|held| [(held.link.a, held.link.b), (held.link.b, held.link.a)]);
            let silent = |dpid| view.bridges.get(&dpid).is_none_or(|bridge| !bridge.responsive);
            let neighbours: Vec<DatapathId> = ends
                .filter(|(here, _)| silent(here.bridge) && bridges.contains(&here.bridge))
                .map(|(_, there)| there.bridge)
                .collect();
            bridges.extend(neighbours);
            Some((numbers, bridges))
        });
        Self::of(tenants)
    }

    /// Those of tenants with these numbers and bridges.
    pub fn of(tenants: impl IntoIterator<Item = (Numbers, BTreeSet<DatapathId>)>) -> Self {
        Self(tenants.into_iter().collect())
    }

    /// Would bridges of a tenant come apart without the link?
    fn need(&self, link: &Link, others: &BTreeSet<Link>) -> bool {
        // Tenants that can use the same links have the same ways.
        let keys: BTreeSet<u32> = others.iter().filter_map(|other| dedicated(other.carrier)).collect();
        let mut ways: BTreeMap<(Option<u32>, bool), Option<Parts>> = BTreeMap::new();
        self.0.iter().filter(|(numbers, _)| usable(link.carrier, *numbers)).any(|(numbers, bridges)| {
            let kind = (Some(numbers.key).filter(|key| keys.contains(key)), numbers.vlan.is_some());
            let parts = ways.entry(kind).or_insert_with(|| parted(link, others, *numbers));
            parts.as_ref().is_some_and(|parts| parts.iter().all(|part| !part.is_disjoint(bridges)))
        })
    }
}

fn dedicated(carrier: Carrier) -> Option<u32> {
    if let Carrier::Dedicated(key) = carrier { Some(key) } else { None }
}

/// Bridges at either side of a link.
type Parts = [BTreeSet<DatapathId>; 2];

/// What can be reached from either end of a link over others; `None`: the other end, too.
fn parted(link: &Link, others: &BTreeSet<Link>, numbers: Numbers) -> Option<Parts> {
    let mut neighbours: BTreeMap<DatapathId, Vec<DatapathId>> = BTreeMap::new();
    for other in others.iter().filter(|other| *other != link && usable(other.carrier, numbers)) {
        neighbours.entry(other.a.bridge).or_default().push(other.b.bridge);
        neighbours.entry(other.b.bridge).or_default().push(other.a.bridge);
    }
    let reached = |start| {
        let (mut seen, mut queue) = (BTreeSet::from([start]), vec![start]);
        while let Some(at) = queue.pop() {
            queue.extend(neighbours.get(&at).into_iter().flatten().filter(|next| seen.insert(**next)));
        }
        seen
    };
    let near = reached(link.a.bridge);
    (!near.contains(&link.b.bridge)).then(|| [near, reached(link.b.bridge)])
}

/// Parts links into those that may be used and those that are withheld, because there is a reason and nobody needs them.
pub fn withhold(
    links: impl IntoIterator<Item = Link>,
    why: impl Fn(&Link) -> Option<Reluctance>,
    needs: &Needs,
) -> (BTreeSet<Link>, BTreeMap<Link, Reluctance>) {
    let mut used: BTreeSet<Link> = links.into_iter().collect();
    let mut reluctant: Vec<(Reluctance, Link)> = used.iter().filter_map(|link| Some((why(link)?, *link))).collect();
    reluctant.sort();
    let mut withheld = BTreeMap::new();
    for (why, link) in reluctant.into_iter().rev() {
        if !needs.need(&link, &used) {
            used.remove(&link);
            withheld.insert(link, why);
        }
    }
    (used, withheld)
}

#[cfg(test)]
mod tests {
    use openflow::types::PortNo;

    use super::*;
    use crate::view::Endpoint;

    fn link(a: u64, b: u64, carrier: Carrier) -> Link {
        let end = |bridge, port| Endpoint { bridge: DatapathId(bridge), port: PortNo(port) };
        Link { a: end(a, b as u32), b: end(b, a as u32), carrier }
    }

    fn tenant(key: u32, vlan: Option<u16>, bridges: &[u64]) -> (Numbers, BTreeSet<DatapathId>) {
        (Numbers { key, vlan }, bridges.iter().copied().map(DatapathId).collect())
    }

    /// The links that are used when none of these is wanted.
    fn used(needs: &[(Numbers, BTreeSet<DatapathId>)], links: &[Link], unwanted: &[Link]) -> Vec<Link> {
        let why = |it: &Link| unwanted.contains(it).then_some(Reluctance::Drained);
        let (used, withheld) = withhold(links.iter().copied(), why, &Needs::of(needs.to_vec()));
        assert_eq!(used.len() + withheld.len(), links.len());
        used.into_iter().collect()
    }

    #[test]
    fn what_nothing_else_joins_is_used_although_nobody_wants_it() {
        let (tunnel, vlan, one) = (Carrier::Tunnel, Carrier::Vlan, Carrier::Dedicated(1));
        let [ab, ac, bc] = [link(1, 2, tunnel), link(1, 3, tunnel), link(2, 3, tunnel)];
        let all = [tenant(1, Some(1), &[1, 2, 3])];
        assert_eq!(used(&all, &[ab, ac, bc], &[ab]), [ac, bc]);
        assert_eq!(used(&all, &[ab, bc], &[ab]), [ab, bc]);
        // None is wanted: as many as it takes.
        assert_eq!(used(&all, &[ab, ac, bc], &[ab, ac, bc]), [ab, ac]);
        // A tenant that can use a tunnel of its own can use any tunnel, and cables if it has a VLAN id.
        let (dedicated, cables) = (link(1, 2, one), [link(1, 3, vlan), link(2, 3, vlan)]);
        assert_eq!(used(&all, &[dedicated, ac, bc], &[dedicated]), [ac, bc]);
        assert_eq!(used(&all, &[dedicated, cables[0], cables[1]], &[dedicated]), cables);
        let without = [tenant(1, None, &[1, 2, 3])];
        assert_eq!(used(&without, &[dedicated, cables[0], cables[1]], &[dedicated]).len(), 3);
        // What is one tenant's own is no way for another.
        let own = [ab, link(1, 3, one), link(2, 3, one)];
        assert_eq!(used(&all, &own, &[ab]), own[1..]);
        assert_eq!(used(&[all[0].clone(), tenant(2, None, &[1, 2])], &own, &[ab]), own);
    }

    #[test]
    fn only_where_tenants_have_ports_there_has_to_be_a_way() {
        let [ab, ac, bc, cd] = [(1, 2), (1, 3), (2, 3), (3, 4)].map(|(a, b)| link(a, b, Carrier::Tunnel));
        let all = [ab, ac, bc, cd];
        // A bridge without ports can be left without any link; one on the way can't.
        assert_eq!(used(&[tenant(1, None, &[1, 2])], &all, &[ac, bc, cd]), [ab]);
        assert_eq!(used(&[tenant(1, None, &[1, 4])], &all, &all), [ac, cd]);
        // Two tenants with a bridge each have nothing to say to each other.
        assert_eq!(used(&[tenant(1, None, &[1]), tenant(2, None, &[2])], &all, &all), []);
        // Of a bridge with all its links drained, one stays, and nobody else's frames pass it.
        assert_eq!(used(&[tenant(1, None, &[1, 2, 3])], &all, &[ac, bc, cd]), [ab, ac]);
    }

    #[test]
    fn rather_a_link_that_flaps_is_used_than_one_that_is_drained() {
        let [ab, ac, bc] = [(1, 2), (1, 3), (2, 3)].map(|(a, b)| link(a, b, Carrier::Tunnel));
        for (drained, damped) in [(ab, bc), (bc, ab)] {
            let why = |it: &Link| match it {
                it if *it == drained => Some(Reluctance::Drained),
                it => (*it == damped).then_some(Reluctance::Damped),
            };
            let (used, withheld) = withhold([ab, ac, bc], why, &Needs::of([tenant(1, None, &[1, 2, 3])]));
            assert_eq!(
                (used, withheld),
                (BTreeSet::from([ac, damped]), BTreeMap::from([(drained, Reluctance::Drained)]))
            );
        }
    }
}
