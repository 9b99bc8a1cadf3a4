//! Links that go down again and again: each time they have to stay up for longer before they are used again, so that
//! the tenants' trees don't go to and fro with them. Nobody is cut off by that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use apps::view::{Carrier, Link};
use openflow::types::DatapathId;

/// So many times a link is used again at once.
const FREE: u32 = 2;

/// How long it has to stay up after that: twice as long each time, up to the most.
pub(crate) const HOLD: Duration = Duration::from_secs(1);
const HOLD_MAX: Duration = Duration::from_secs(30);

/// Times that count; with more there would be more to forget.
const DOWNS_MAX: u32 = 8;

/// For each such time without trouble one is forgotten.
const FORGET: Duration = Duration::from_secs(10);

/// How often one link went down lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damping {
    downs: u32,
    last: Option<Instant>,
    until: Option<Instant>,
}

impl Damping {
    /// It went down.
    pub(crate) fn went_down(&mut self, now: Instant) {
        self.downs = (self.downs(now) + 1).min(DOWNS_MAX);
        self.last = Some(now);
        self.until = None;
    }

    /// It came up. Gives for how long it isn't used if it needn't be.
    pub(crate) fn came_up(&mut self, now: Instant) -> Option<Duration> {
        let doublings = self.downs(now).checked_sub(FREE + 1)?;
        let hold = (HOLD * (1 << doublings)).min(HOLD_MAX);
        self.until = Some(now + hold);
        Some(hold)
    }

    /// How often it went down lately; eight times is often enough to count.
    pub(crate) fn downs(&self, now: Instant) -> u32 {
        let quiet = self.last.map_or(Duration::ZERO, |last| now.duration_since(last));
        self.downs.saturating_sub(u32::try_from(quiet.as_secs() / FORGET.as_secs()).unwrap_or(u32::MAX))
    }

    /// Until when it is damped; may be over.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// For how long it is still damped.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }
}

/// Parts links into those that may be used and those that are withheld, because they are damped and whatever they join
/// is joined by others.
pub(crate) fn withhold(links: Vec<Link>, is_damped: impl Fn(&Link) -> bool) -> (Vec<Link>, Vec<Link>) {
    let (damped, mut used): (Vec<Link>, Vec<Link>) = links.into_iter().partition(is_damped);
    let mut withheld = Vec::new();
    for link in damped {
        if are_joined(&link, &used) { withheld.push(link) } else { used.push(link) }
    }
    used.sort();
    (used, withheld)
}

/// Is there another way between a link's ends, for every tenant that can use the link?
fn are_joined(link: &Link, others: &[Link]) -> bool {
    let mut neighbours: BTreeMap<DatapathId, Vec<DatapathId>> = BTreeMap::new();
    for other in others.iter().filter(|other| other.carrier == link.carrier || other.carrier == Carrier::Tunnel) {
        neighbours.entry(other.a.bridge).or_default().push(other.b.bridge);
        neighbours.entry(other.b.bridge).or_default().push(other.a.bridge);
    }
    let (mut seen, mut queue) = (BTreeSet::from([link.a.bridge]), vec![link.a.bridge]);
    while let Some(at) = queue.pop() {
        if at == link.b.bridge {
            return true;
        }
        queue.extend(neighbours.get(&at).into_iter().flatten().filter(|next| seen.insert(**next)));
    }
    false
}

#[cfg(test)]
mod tests {
    use apps::view::Endpoint;
    use openflow::types::PortNo;

    use super::*;

    fn link(a: u64, b: u64, carrier: Carrier) -> Link {
        let end = |bridge, port| Endpoint { bridge: DatapathId(bridge), port: PortNo(port) };
        Link { a: end(a, b as u32), b: end(b, a as u32), carrier }
    }

    #[test]
    fn who_goes_down_often_waits_longer_each_time_and_is_forgiven_in_the_end() {
        let (mut damping, mut now) = (Damping::default(), Instant::now());
        let mut holds = Vec::new();
        for _ in 0..10 {
            damping.went_down(now);
            now += Duration::from_millis(100);
            holds.push(damping.came_up(now).map_or(0, |hold| hold.as_secs()));
            now += Duration::from_millis(100);
        }
        assert_eq!(holds, [0, 0, 1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(damping.left(now), Some(Duration::from_millis(29_900)));
        assert_eq!(damping.left(now + Duration::from_secs(30)), None);
        assert_eq!((damping.downs(now), damping.downs(now + Duration::from_secs(40))), (8, 4));
        now += Duration::from_secs(60);
        damping.went_down(now);
        assert_eq!(damping.came_up(now), Some(Duration::from_secs(1)), "three are left");
        now += Duration::from_secs(30);
        damping.went_down(now);
        assert_eq!(damping.came_up(now), None);
    }

    #[test]
    fn what_nothing_else_joins_is_used_although_it_is_damped() {
        let (tunnel, vlan, one) = (Carrier::Tunnel, Carrier::Vlan, Carrier::Dedicated(1));
        let [ab, bc, ac] = [link(1, 2, tunnel), link(2, 3, tunnel), link(1, 3, tunnel)];
        assert_eq!(withhold(vec![ab, ac, bc], |it| *it == ab), (vec![ac, bc], vec![ab]));
        assert_eq!(withhold(vec![ab, bc], |it| *it == ab), (vec![ab, bc], vec![]));
        // All damped: as many as it takes.
        assert_eq!(withhold(vec![ab, ac, bc], |_| true), (vec![ab, ac], vec![bc]));
        // Who can use a tunnel with a fixed key can use any tunnel, but not every cable; and not the other way round.
        let dedicated = link(1, 2, one);
        assert_eq!(withhold(vec![dedicated, ac, bc], |it| *it == dedicated).1, [dedicated]);
        let cables = [link(2, 3, vlan), link(1, 3, vlan)];
        assert_eq!(withhold(vec![dedicated, cables[0], cables[1]], |it| *it == dedicated).1, []);
        assert_eq!(withhold(vec![ab, link(2, 3, one), link(1, 3, one)], |it| *it == ab).1, []);
    }
}
