//! The links that follow from ways, which of them are used, and what there is to say about the others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use apps::view::{Carrier, Endpoint, Link};
use apps::withhold::Reluctance;
use openflow::types::DatapathId;

use super::Topology;
use crate::core::damping::Damping;

/// A way that is open in one direction only is reported after so long.
const ONE_WAY: Duration = Duration::from_secs(1);

/// Ports of a segment that are called by name.
const NAMED: usize = 8;

/// A link that was up once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// How it marks frames.
    pub(crate) carrier: Carrier,
    /// What is known of it.
    pub(crate) state: State,
    /// How often it went down lately.
    pub(crate) damping: Damping,
    /// It is up, but not used; or it wasn't when a bridge at its end stopped answering.
    pub(crate) withheld: bool,
    /// When it came up, or went down.
    pub(crate) since: Instant,
    /// By what it went, if it is down.
    pub(crate) lost_by: Sign,
}

/// How it is known that a way is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// Its probes are lost.
    Probes,
    /// A port at its end lost its carrier, or was switched off.
    Carrier,
    /// A port at its end has carrier, but BFD, CFM or LACP found it dead.
    Liveness,
}

impl Known {
    /// Do probes pass it both ways?
    pub(crate) fn is_up(&self) -> bool {
        self.state == State::Up
    }
}

/// What is known of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Probes pass both ways.
    Up,
    /// A bridge at its end doesn't answer; it was up before.
    Held,
    /// It is down.
    Down,
}

/// What becomes of the links.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// Those that are up.
    pub(crate) up: Vec<Link>,
    /// Those that came up since the last look, and for how long each is damped.
    pub(crate) came: Vec<(Link, Option<Duration>)>,
    /// Those that went down.
    pub(crate) went: Vec<Link>,
}

impl Topology {
    /// Looks which links are up. Those that are `held` aren't known to be down.
    pub(crate) fn links(&mut self, now: Instant, held: &BTreeSet<(Endpoint, Endpoint)>) -> Links {
        let mut up = BTreeMap::new();
        for (at, ways) in &self.heard {
            if let (1, Some((from, heard))) = (ways.len(), ways.first_key_value())
                && at < from
                && at.bridge != from.bridge
                && let Some(back) = self.heard.get(from)
                && back.len() == 1
                && back.get(at).is_some_and(|back| back.carrier == heard.carrier)
            {
                up.insert((*at, *from), heard.carrier);
            }
        }
        let mut links = Links::default();
        for ((a, b), known) in &mut self.known {
            match (known.state, up.get(&(*a, *b)) == Some(&known.carrier)) {
                (State::Up | State::Held, false) if held.contains(&(*a, *b)) => known.state = State::Held,
                (State::Up | State::Held, false) => {
                    (known.state, known.withheld, known.since) = (State::Down, false, now);
                    known.lost_by = [a, b].iter().find_map(|end| self.signs.get(end).copied()).unwrap_or(Sign::Probes);
                    known.damping.went_down(now);
                    links.went.push(Link { a: *a, b: *b, carrier: known.carrier });
                }
                (State::Held, true) => known.state = State::Up,
                (State::Up, true) | (State::Down, _) => {}
            }
        }
        for (&(a, b), &carrier) in &up {
            let known = self.known.entry((a, b)).or_insert(Known {
                carrier,
                state: State::Down,
                damping: Damping::default(),
                withheld: false,
                since: now,
                lost_by: Sign::Probes,
            });
            if !known.is_up() {
                (known.carrier, known.state, known.since) = (carrier, State::Up, now);
                links.came.push((Link { a, b, carrier }, known.damping.came_up(now)));
            }
        }
        self.changes += u64::from(!links.came.is_empty() || !links.went.is_empty());
        self.signs.clear();
        // A port leads to one other: what it led to before is no link any more.
        let now: BTreeMap<Endpoint, Endpoint> = up.keys().flat_map(|(a, b)| [(*a, *b), (*b, *a)]).collect();
        let stays = |end: &Endpoint, far: &Endpoint| now.get(end).is_none_or(|other| other == far);
        self.known.retain(|(a, b), known| known.is_up() || (stays(a, b) && stays(b, a)));
        links.up = up.into_iter().map(|((a, b), carrier)| Link { a, b, carrier }).collect();
        links
    }

    /// Is a link that is up damped?
    pub(crate) fn is_damped(&self, now: Instant, link: &Link) -> bool {
        self.known.get(&(link.a, link.b)).is_some_and(|known| known.damping.left(now).is_some())
    }

    /// Of the links that are up, exactly these aren't used.
    pub(crate) fn withhold(&mut self, withheld: &BTreeMap<Link, Reluctance>) {
        self.calm = None;
        for (&(a, b), known) in self.known.iter_mut().filter(|(_, known)| known.is_up()) {
            let why = withheld.get(&Link { a, b, carrier: known.carrier });
            known.withheld = why.is_some();
            let until = known.damping.until().filter(|_| why == Some(&Reluctance::Damped));
            self.calm = self.calm.into_iter().chain(until).min();
        }
    }

    /// Is it time to use a link again that was damped?
    pub(crate) fn is_calm_again(&self, now: Instant) -> bool {
        self.calm.is_some_and(|calm| calm <= now)
    }

    /// How often links came or went.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Every link that was ever up, between ports that still exist.
    pub(crate) fn known(&self) -> &BTreeMap<(Endpoint, Endpoint), Known> {
        &self.known
    }

    /// Ways that don't make a link, and why.
    pub(crate) fn refused(&self, now: Instant, name: impl Fn(Endpoint) -> String) -> Vec<String> {
        let segments = self.segments();
        let shared: BTreeSet<Endpoint> = segments.iter().flatten().copied().collect();
        let mut refused: Vec<String> = segments.iter().map(|ports| self.told_segment(ports, &name)).collect();
        for (at, ways) in self.heard.iter().filter(|(at, _)| !shared.contains(at)) {
            for (from, heard) in ways {
                let back = self.heard.get(from).and_then(|ways| ways.get(at));
                if at.bridge == from.bridge {
                    if at < from {
                        refused.push(format!("no link: {} and {} are on the same bridge", name(*from), name(*at)));
                    }
                } else if back.is_none() && now.duration_since(heard.first) > ONE_WAY.max(self.interval * 3) {
                    refused.push(format!(
                        "no link: probes pass from {} to {}, but not back; check the tunnel or cable at both ends",
                        name(*from),
                        name(*at)
                    ));
                } else if back.is_some_and(|back| back.carrier != heard.carrier) && at < from {
                    refused.push(format!(
                        "no link: {} and {} don't agree on the tunnel key; set the same options:key at both ends",
                        name(*from),
                        name(*at)
                    ));
                }
            }
        }
        refused
    }

    /// Ports of these bridges that send probes and hear none.
    pub(crate) fn deaf<'a>(&'a self, bridges: &'a BTreeSet<DatapathId>) -> impl Iterator<Item = Endpoint> + 'a {
        let hears_none = |port: &&Endpoint| bridges.contains(&port.bridge) && !self.heard.contains_key(port);
        self.senders.keys().filter(hears_none).copied()
    }

    /// Groups of ports that hear each other, where some port hears more than one.
    fn segments(&self) -> Vec<BTreeSet<Endpoint>> {
        let mut beside: BTreeMap<Endpoint, BTreeSet<Endpoint>> = BTreeMap::new();
        for (at, ways) in &self.heard {
            for from in ways.keys() {
                beside.entry(*at).or_default().insert(*from);
                beside.entry(*from).or_default().insert(*at);
            }
        }
        let mut segments: Vec<BTreeSet<Endpoint>> = Vec::new();
        for at in self.heard.iter().filter(|(_, ways)| ways.len() > 1).map(|(at, _)| *at) {
            if segments.iter().any(|segment| segment.contains(&at)) {
                continue;
            }
            let (mut segment, mut queue) = (BTreeSet::from([at]), vec![at]);
            while let Some(at) = queue.pop() {
                queue.extend(beside.get(&at).into_iter().flatten().filter(|port| segment.insert(**port)).copied());
            }
            segments.push(segment);
        }
        segments
    }

    fn told_segment(&self, ports: &BTreeSet<Endpoint>, name: impl Fn(Endpoint) -> String) -> String {
        let named: Vec<String> = ports.iter().take(NAMED).map(|port| name(*port)).collect();
        let more = match ports.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let bridges: BTreeSet<DatapathId> = ports.iter().map(|port| port.bridge).collect();
        let mut ways = ports.iter().filter_map(|port| self.heard.get(port)).flatten();
        let remedy = if ways.any(|(_, heard)| heard.carrier != Carrier::Vlan) {
            "give each tunnel its two ends: a port of its own at both, with the other's address as options:remote_ip"
        } else if bridges.len() <= 2 {
            "make one bond of each bridge's ports there (ovs-vsctl add-bond BRIDGE bond0 PORT PORT), or unplug all but one"
        } else {
            "join the hosts by tunnels instead, one port for each other host (ovs-vsctl add-port BRIDGE vx2 -- set interface \
             vx2 type=vxlan options:remote_ip=ADDRESS options:key=flow), or give each two of them a VLAN or a cable of their own"
        };
        format!(
            "no link at {}{more}: they share one segment, as behind a switch, and a link joins exactly two ports; {remedy}",
            named.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use apps::allocation::Numbers;
    use apps::withhold::{Needs, withhold};
    use openflow::types::PortNo;

    use super::*;

    fn end(bridge: u64, port: u32) -> Endpoint {
        Endpoint { bridge: DatapathId(bridge), port: PortNo(port) }
    }

    /// Three bridges, each linked to the two others.
    fn triangle(now: Instant) -> (Topology, Vec<Link>) {
        let link = |a: u64, b: u64| Link { a: end(a, b as u32), b: end(b, a as u32), carrier: Carrier::Tunnel };
        let links = vec![link(1, 2), link(1, 3), link(2, 3)];
        let mut topology = Topology::new(now);
        topology.set_senders(now, &links.iter().flat_map(|link| [link.a, link.b]).collect());
        links.iter().for_each(|link| topology.presume(now, *link));
        (topology, links)
    }

    /// The links that are used if these needs are damped ones' only reason to be.
    fn used(topology: &mut Topology, now: Instant, needs: &Needs) -> Vec<Link> {
        let links = topology.links(now, &BTreeSet::new());
        let why = |link: &Link| topology.is_damped(now, link).then_some(Reluctance::Damped);
        let (used, withheld) = withhold(links.up, why, needs);
        topology.withhold(&withheld);
        used.into_iter().collect()
    }

    #[test]
    fn a_link_that_flaps_is_withheld_until_it_is_calm_or_needed() {
        let mut now = Instant::now();
        let (mut topology, all) = triangle(now);
        let everywhere = Needs::of([(Numbers { key: 1, vlan: None }, [1, 2, 3].map(DatapathId).into())]);
        assert_eq!(used(&mut topology, now, &everywhere), all);
        let mut changes = 0;
        let mut before = all.clone();
        for _ in 0..10 {
            topology.silence(all[0].a);
            let down = used(&mut topology, now, &everywhere);
            now += Duration::from_millis(250);
            topology.presume(now, all[0]);
            let up = used(&mut topology, now, &everywhere);
            now += Duration::from_millis(250);
            for links in [down, up] {
                changes += usize::from(links != before);
                before = links;
            }
        }
        assert_eq!(changes, 5, "down, up, down, up, down");
        assert_eq!(before, all[1..]);
        assert!(topology.known()[&(all[0].a, all[0].b)].withheld);

        // Without it bridge 3 alone would join the other two, but its link goes.
        topology.silence(all[1].a);
        assert_eq!(used(&mut topology, now, &everywhere), [all[0], all[2]]);
        topology.presume(now, all[1]);
        assert_eq!(used(&mut topology, now, &everywhere), all[1..]);

        // The deadline is when it is calm, and then it is used.
        let calm = topology.known()[&(all[0].a, all[0].b)].damping.until().unwrap();
        assert_eq!(topology.calm, Some(calm));
        assert!(!topology.is_calm_again(calm - Duration::from_millis(1)) && topology.is_calm_again(calm));
        assert_eq!(used(&mut topology, calm, &everywhere), all);
        assert!(!topology.is_calm_again(calm));
    }

    #[test]
    fn a_drained_link_is_never_waited_for() {
        let now = Instant::now();
        let (mut topology, all) = triangle(now);
        for _ in 0..5 {
            topology.links(now, &BTreeSet::new());
            topology.silence(all[0].a);
            topology.links(now, &BTreeSet::new());
            topology.presume(now, all[0]);
        }
        topology.links(now, &BTreeSet::new());
        assert!(topology.is_damped(now, &all[0]));
        topology.withhold(&BTreeMap::from([(all[0], Reluctance::Drained), (all[1], Reluctance::Drained)]));
        assert_eq!(topology.calm, None, "what ends isn't the reason");
        assert!(topology.known()[&(all[1].a, all[1].b)].withheld);
        topology.withhold(&BTreeMap::from([(all[0], Reluctance::Damped)]));
        assert!(topology.calm.is_some() && !topology.known()[&(all[1].a, all[1].b)].withheld);
    }

    #[test]
    fn a_held_link_neither_goes_down_nor_comes_up() {
        let now = Instant::now();
        let (mut topology, all) = triangle(now);
        topology.links(now, &BTreeSet::new());
        topology.withhold(&BTreeMap::from([(all[0], Reluctance::Drained)]));
        topology.silence(all[0].a);
        topology.silence(all[1].a);
        let held = BTreeSet::from([(all[0].a, all[0].b)]);
        let links = topology.links(now, &held);
        assert_eq!((links.up, links.came, links.went), (vec![all[2]], vec![], vec![all[1]]));
        assert_eq!(topology.known()[&(all[0].a, all[0].b)].state, State::Held);
        topology.withhold(&BTreeMap::new());
        assert!(topology.known()[&(all[0].a, all[0].b)].withheld, "as it was when its bridge stopped answering");
        topology.presume(now, all[0]);
        let links = topology.links(now, &BTreeSet::new());
        assert_eq!((links.up, links.came, links.went), (vec![all[0], all[2]], vec![], vec![]));
        topology.withhold(&BTreeMap::new());
        assert!(!topology.known()[&(all[0].a, all[0].b)].withheld);
        // If it is found to be down when its bridge is back, then it went.
        topology.silence(all[0].a);
        topology.links(now, &held);
        assert_eq!(topology.links(now, &BTreeSet::new()).went, [all[0]]);
    }
    /// A switch that carries each probe to all other ports, of which another one is the first each time.
    struct Segment {
        topology: Topology,
        now: Instant,
        ports: Vec<Endpoint>,
        arrived: usize,
    }

    impl Segment {
        fn new(ports: &[Endpoint]) -> Self {
            let now = Instant::now();
            let mut topology = Topology::new(now);
            topology.set_senders(now, &ports.iter().copied().collect());
            Self { topology, now, ports: ports.to_vec(), arrived: 0 }
        }

        /// Gives the links that are up then.
        fn run(&mut self, milliseconds: u64) -> Vec<Link> {
            for _ in 0..milliseconds {
                self.now += Duration::from_millis(1);
                for (from, number) in self.topology.due(self.now) {
                    let count = self.ports.len();
                    for at in (0..count).map(|index| self.ports[(index + number as usize) % count]) {
                        if at != from && self.ports.contains(&from) {
                            assert!(self.topology.arrived(self.now, from, number, at, Carrier::Vlan).is_ok());
                            self.arrived += 1;
                        }
                    }
                }
                if self.topology.woke(self.now).is_some() {
                    _ = self.topology.judge(self.now, |_| Some(self.now));
                }
            }
            self.topology.links(self.now, &BTreeSet::new()).up
        }

        fn refused(&self) -> Vec<String> {
            self.topology.refused(self.now, |place| format!("h{}/{}", place.bridge.0, place.port.0))
        }
    }

    #[test]
    fn a_segment_of_two_is_a_link_and_one_of_more_is_none_and_says_so() {
        let all: Vec<Endpoint> = (1..=12).map(|bridge| end(bridge, 7)).collect();
        let mut segment = Segment::new(&all[..2]);
        let link = Link { a: all[0], b: all[1], carrier: Carrier::Vlan };
        assert_eq!(segment.run(500), [link]);
        assert_eq!(segment.refused(), Vec::<String>::new());
        let (normal, bridges) = (std::mem::take(&mut segment.arrived) / 2, [DatapathId(1), DatapathId(3)].into());
        assert_eq!(segment.topology.deaf(&bridges).collect::<Vec<_>>(), []);
        segment.topology.set_senders(segment.now, &all[..3].iter().copied().collect());
        assert_eq!(segment.topology.deaf(&bridges).collect::<Vec<_>>(), all[2..3]);

        for count in [3, 4, 12] {
            segment.ports = all[..count].to_vec();
            segment.topology.set_senders(segment.now, &segment.ports.iter().copied().collect());
            assert_eq!(segment.run(500), [], "{count} ports");
            let [text] = segment.refused().try_into().unwrap();
            assert!(text.starts_with("no link at h1/7, h2/7, h3/7"), "{text}");
            assert!(text.contains("vxlan") && text.contains(" and 4 more: ") == (count == 12), "{text}");
            // All together they hear no more than as many ends of links would.
            segment.arrived = 0;
            segment.run(500);
            assert!(segment.arrived <= normal * count * 5 / 4, "{} of {count} ports", segment.arrived);
        }

        // Those that are unplugged are forgotten by what isn't heard of them.
        segment.ports.truncate(2);
        assert_eq!(segment.run(12_000), [link]);
        assert_eq!(segment.refused(), Vec::<String>::new());
    }

    #[test]
    fn pairs_that_answer_each_other_first_are_no_links_either() {
        let now = Instant::now();
        let mut topology = Topology::new(now);
        let all: Vec<Endpoint> = (1..=4).map(|bridge| end(bridge, 1)).collect();
        topology.set_senders(now, &all.iter().copied().collect());
        // The copy for whoever makes a pair comes first, each time.
        for (from, number) in topology.due(now) {
            let index = all.iter().position(|port| *port == from).unwrap();
            for at in [index ^ 1, index ^ 2, index ^ 3] {
                assert!(topology.arrived(now, from, number, all[at], Carrier::Vlan).is_ok());
                assert_eq!(
                    topology.arrived(now, from, number, all[index ^ 1], Carrier::Vlan),
                    Err(crate::core::topology::Refusal::Twice)
                );
            }
        }
        assert_eq!(topology.links(now, &BTreeSet::new()).up, []);
    }

    #[test]
    fn ports_of_one_bridge_behind_one_switch_are_to_be_bonded() {
        let mut segment = Segment::new(&[end(1, 1), end(1, 2), end(2, 1)]);
        assert_eq!(segment.run(500), []);
        let [text] = segment.refused().try_into().unwrap();
        assert!(text.contains("add-bond"), "{text}");
    }
}
