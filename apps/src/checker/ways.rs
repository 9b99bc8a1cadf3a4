//! The graphs that entries make: no way may lead around in a circle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use openflow::action::Action;
use openflow::types::PortNo;
use petgraph::unionfind::UnionFind;

use super::surroundings::{Behind, Link, Places};
use crate::marks::TreeVersion;
use crate::view::Carrier;

/// Ways of frames for known destinations, or functions: for each, from which bridge to which.
#[derive(Default)]
pub(super) struct Ways(Vec<(u64, u32, u32)>);

impl Ways {
    /// Frames for this destination go from one bridge to the other; `None`: it isn't among those looked at.
    pub(super) fn add(&mut self, destination: u64, from: u32, to: Option<u32>) {
        self.0.extend(to.map(|to| (destination, from, to)));
    }

    /// Destinations whose frames some bridges would send around in a circle.
    pub(super) fn circles(&mut self, name: impl Fn(u32) -> String) -> Vec<String> {
        // What is told comes bridge by bridge: a stable sort leaves each destination's in order of `from`.
        self.0.sort_by_key(|(destination, ..)| *destination);
        let most = self.0.iter().map(|(_, from, to)| from.max(to) + 1).max().unwrap_or(0);
        let mut state = vec![0u32; most as usize];
        let (mut texts, mut turn) = (Vec::new(), 0);
        for ways in self.0.chunk_by(|one, next| one.0 == next.0) {
            turn += 2;
            if let Some(at) = circle(ways, &mut state, turn) {
                texts.push(format!(
                    "frames for {} would go around in a circle through bridge {}",
                    destination(ways[0].0),
                    name(at)
                ));
            }
        }
        texts
    }
}

/// What [`Ways::add`] was told, where people read it.
fn destination(number: u64) -> String {
    if number >> 63 != 0 {
        format!("the function of metadata {:#x}", number & !(1 << 63))
    } else {
        format!("{number:012x}")
    }
}

/// A bridge on a circle. `state` of a bridge is `turn` while it is being looked at, and one more when it was.
fn circle(ways: &[(u64, u32, u32)], state: &mut [u32], turn: u32) -> Option<u32> {
    let mut stack: Vec<(u32, usize)> = Vec::new();
    for &(_, start, _) in ways {
        let mut enter = Some(start);
        loop {
            if let Some(at) = enter.take() {
                match state.get_mut(at as usize) {
                    Some(state) if *state < turn => *state = turn,
                    Some(state) if *state == turn => return Some(at),
                    _ => {}
                }
                if state.get(at as usize) == Some(&turn) {
                    stack.push((at, ways.partition_point(|(_, from, _)| *from < at)));
                }
            }
            let Some((at, next)) = stack.last_mut() else { break };
            match ways.get(*next).filter(|(_, from, _)| from == at) {
                Some((.., to)) => {
                    *next += 1;
                    enter = (state.get(*to as usize) != Some(&(turn + 1))).then_some(*to);
                }
                None => {
                    state[*at as usize] = turn + 1;
                    stack.pop();
                }
            }
        }
    }
    None
}

/// An entry that floods: at which bridge, frames that came by which port (`None`: any), whether they entered there (`None`:
/// both), which version of the tree they follow (`None`: both), and to which set of ports.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    pub(super) at: u32,
    pub(super) came_by: Option<PortNo>,
    pub(super) entered: Option<bool>,
    pub(super) follows: Option<TreeVersion>,
    pub(super) set: usize,
}

impl Rule {
    /// Is it for frames that came over a link so?
    fn takes(&self, by: PortNo, version: TreeVersion) -> bool {
        self.entered != Some(true)
            && self.came_by.is_none_or(|port| port == by)
            && self.follows.is_none_or(|it| it == version)
    }
}

/// Ports that copies are sent out of, at a bridge.
struct Set {
    at: u32,
    ports: Vec<PortNo>,
    /// How copies are marked.
    version: TreeVersion,
}

/// How a tenant's frames are flooded.
#[derive(Default)]
pub(super) struct Floods {
    here: u32,
    /// The last actions at this bridge, to find the same again.
    last: Option<Vec<Action>>,
    sets: Vec<Set>,
    rules: Vec<Rule>,
    /// In order.
    admitted: Vec<Admitted>,
}

/// Where flooded frames are taken in from a link: at which bridge and port, and which version of the tree they follow.
type Admitted = (u32, PortNo, TreeVersion);

impl Floods {
    /// What follows is at this bridge.
    pub(super) fn at(&mut self, here: u32) {
        (self.here, self.last) = (here, None);
    }

    /// Frames that follow this version are taken in there.
    pub(super) fn admit(&mut self, here: u32, port: PortNo, version: TreeVersion) {
        let place = (here, port, version);
        // Entries come in order of bridges and ports, or almost.
        if self.admitted.last().is_none_or(|last| *last < place) {
            self.admitted.push(place);
        } else if let Err(at) = self.admitted.binary_search(&place) {
            self.admitted.insert(at, place);
        }
    }

    /// If these actions are those of the entry before, they are counted, and needn't be looked at.
    pub(super) fn again(&mut self, actions: &[Action], rule: Rule) -> bool {
        let same = self.last.as_deref() == Some(actions);
        if same {
            self.rules.push(Rule { set: self.sets.len() - 1, ..rule });
        }
        same
    }

    /// What actions flood to. Is a port among that twice?
    pub(super) fn set(&mut self, actions: &[Action], mut ports: Vec<PortNo>, version: TreeVersion, rule: Rule) -> bool {
        let all = ports.len();
        ports.sort_unstable();
        ports.dedup();
        let twice = ports.len() < all;
        self.last = Some(actions.to_vec());
        self.rules.push(Rule { set: self.sets.len(), ..rule });
        self.sets.push(Set { at: self.here, ports, version });
        twice
    }

    fn links<'s>(&'s self, places: &'s Places<'_>, set: usize) -> impl Iterator<Item = Link> + 's {
        let (at, ports) = self.sets.get(set).map_or((0, &[][..]), |set| (set.at, set.ports.as_slice()));
        ports.iter().filter_map(move |port| match places.of(at, *port) {
            Behind::Link(link) => Some(link),
            _ => None,
        })
    }

    /// Bridges that flooded frames could come to twice.
    pub(super) fn circles(&self, places: &Places<'_>, name: impl Fn(u32) -> String) -> Vec<String> {
        let mut links = Vec::new();
        for set in 0..self.sets.len() {
            let at = self.sets[set].at;
            let ends =
                self.links(places, set).map(|link| (link.here.min(link.there), link.here.max(link.there), at, link.to));
            links.extend(ends.filter_map(|(a, b, at, to)| Some((a, b, at.min(to?), at.max(to?)))));
        }
        links.sort_unstable();
        links.dedup();
        let most = links.iter().map(|(.., to)| to + 1).max().unwrap_or(0);
        let mut parts = UnionFind::<u32>::new(most as usize);
        // Links that make a tree lead around nowhere: no frame goes back by the port that it came by.
        if links.iter().all(|(.., one, other)| parts.union(*one, *other)) {
            return Vec::new();
        }
        self.walk(places, name)
    }

    /// Follows floods from wherever they begin, port by port.
    fn walk(&self, places: &Places<'_>, name: impl Fn(u32) -> String) -> Vec<String> {
        let mut rules: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
        for rule in &self.rules {
            rules.entry(rule.at).or_default().push(*rule);
        }
        let none = Vec::new();
        let entered = self.rules.iter().filter(|rule| rule.entered != Some(false));
        let mut starts: Vec<(Option<(u32, PortNo)>, usize)> = entered.map(|rule| (None, rule.set)).collect();
        // From bridges that aren't looked at.
        let from_outside =
            |(at, port, _): &Admitted| matches!(places.of(*at, *port), Behind::Link(link) if link.to.is_none());
        for &(at, port, version) in self.admitted.iter().filter(|place| from_outside(place)) {
            let onward = rules.get(&at).unwrap_or(&none).iter().filter(|rule| rule.takes(port, version));
            starts.extend(onward.map(|rule| (Some((at, port)), rule.set)));
        }
        let mut texts = BTreeSet::new();
        for (came, set) in starts {
            let mut seen: BTreeSet<(u32, PortNo)> = came.into_iter().collect();
            let mut queue = VecDeque::from([(came.map(|(_, port)| port), set)]);
            while let Some((came_by, set)) = queue.pop_front() {
                let sent = self.sets[set].version;
                for link in self.links(places, set).filter(|link| Some(link.here.port) != came_by) {
                    let Some(to) = link.to else { continue };
                    let arrival = (to, link.there.port);
                    // Where a mark doesn't say which version of the tree a frame follows, the bridge that takes it in does.
                    let follows = |version: &TreeVersion| {
                        let place = (arrival.0, arrival.1, *version);
                        let fits = *version == sent || link.carrier == Carrier::Vlan;
                        fits && self.admitted.binary_search(&place).is_ok()
                    };
                    let follows: Vec<TreeVersion> = TreeVersion::ALL.into_iter().filter(follows).collect();
                    if follows.is_empty() {
                        continue;
                    }
                    if !seen.insert(arrival) {
                        texts.insert(format!(
                            "flooded frames would come to bridge {} by port {} twice",
                            name(to),
                            arrival.1
                        ));
                        continue;
                    }
                    let takes = |rule: &&Rule| follows.iter().any(|version| rule.takes(arrival.1, *version));
                    let onward = rules.get(&to).unwrap_or(&none).iter().filter(takes);
                    queue.extend(onward.map(|rule| (Some(arrival.1), rule.set)));
                }
            }
        }
        texts.into_iter().collect()
    }
}
