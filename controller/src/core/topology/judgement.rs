//! Which ways are closed because their probes are lost, and not just late.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use openflow::types::DatapathId;

use super::Topology;

/// Probes that have to be missing before a way closes, if later ones passed both its bridges.
const LOST: usize = 3;

/// The same if none did.
const LOST_ALONE: usize = 6;

/// What a frame may take to cross a link and the bridge behind it, beside what probes took there lately.
const CROSSING: Duration = Duration::from_millis(10);

/// What follows from probes that are missing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// Bridges that have to show that they are awake.
    pub(crate) ask: BTreeSet<DatapathId>,
    /// Ways were closed.
    pub(crate) closed: bool,
}

impl Topology {
    /// Closes the ways whose probes are lost, and tells which bridges have to be asked before others can be closed.
    /// `answered` tells when the last question that a bridge has answered was put to it.
    pub(crate) fn judge(&mut self, now: Instant, answered: impl Fn(DatapathId) -> Option<Instant>) -> Judgement {
        let mut judgement = Judgement::default();
        self.again = None;
        let newest = |bridges: &BTreeMap<DatapathId, u64>, bridge| bridges.get(&bridge).copied().unwrap_or_default();
        for (at, ways) in &mut self.heard {
            ways.retain(|from, heard| {
                let Some(sender) = self.senders.get(from) else { return true };
                let first = sender.sent.partition_point(|sent| sent.number <= heard.last);
                let compared = newest(&self.departed, from.bridge).min(newest(&self.delivered, at.bridge));
                let outdone = sender.sent.partition_point(|sent| sent.number < compared).saturating_sub(first);
                let needed = if outdone >= LOST { LOST } else { LOST_ALONE };
                let Some(last) = sender.sent.get(first + needed - 1) else { return true };
                let late = last.at + heard.delay.mul_f64(1.5) + CROSSING;
                let (Some(sender), Some(receiver)) = (answered(from.bridge), answered(at.bridge)) else { return true };
                if now < late {
                    self.again = Some(self.again.map_or(late, |again| again.min(late)));
                } else if heard.crossed.is_none() && sender <= last.at {
                    judgement.ask.insert(from.bridge);
                } else {
                    let crossed = *heard.crossed.get_or_insert(now + CROSSING);
                    if now < crossed {
                        self.again = Some(self.again.map_or(crossed, |again| again.min(crossed)));
                    } else if receiver < crossed {
                        judgement.ask.insert(at.bridge);
                    } else {
                        judgement.closed = true;
                        return false;
                    }
                }
                true
            });
        }
        self.heard.retain(|_, ways| !ways.is_empty());
        judgement
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use apps::policy::Probes;
    use apps::view::{Carrier, Endpoint, Link};
    use openflow::types::PortNo;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    enum Said {
        Probe(Endpoint, u64),
        Question(Instant),
    }

    fn end(bridge: u64, port: u32) -> Endpoint {
        Endpoint { bridge: DatapathId(bridge), port: PortNo(port) }
    }

    /// Bridges whose channels keep their order, and wires between them. Port 2 of bridge 1 leads to port 1 of bridge 2.
    struct Fabric {
        topology: Topology,
        start: Instant,
        now: Instant,
        latency: Duration,
        cut: BTreeSet<Endpoint>,
        /// Bridges whose channel stands still.
        stalled: BTreeSet<DatapathId>,
        to_bridge: BTreeMap<DatapathId, VecDeque<Said>>,
        to_core: BTreeMap<DatapathId, VecDeque<(Endpoint, Said)>>,
        crossing: VecDeque<(Instant, Endpoint, Said)>,
        answered: BTreeMap<DatapathId, Instant>,
        asked: BTreeSet<DatapathId>,
        went: Vec<(u64, Link)>,
        sent: usize,
    }

    impl Fabric {
        fn new(bridges: u64, latency: u64) -> Self {
            let start = Instant::now();
            let mut topology = Topology::new(start);
            let all = (1..=bridges).flat_map(|a| (1..=bridges).filter(move |b| *b != a).map(move |b| end(a, b as u32)));
            topology.set_senders(start, &all.collect());
            let mut fabric = Self {
                topology,
                start,
                now: start,
                latency: MS(latency),
                cut: BTreeSet::new(),
                stalled: BTreeSet::new(),
                to_bridge: BTreeMap::new(),
                to_core: BTreeMap::new(),
                crossing: VecDeque::new(),
                answered: (1..=bridges).map(|bridge| (DatapathId(bridge), start)).collect(),
                asked: BTreeSet::new(),
                went: Vec::new(),
                sent: 0,
            };
            fabric.run(1000);
            assert_eq!(fabric.up(), (bridges * (bridges - 1) / 2) as usize);
            fabric.start = fabric.now;
            fabric
        }

        fn up(&mut self) -> usize {
            self.topology.links(self.now, &BTreeSet::new()).up.len()
        }

        /// Lets so many milliseconds pass.
        fn run(&mut self, milliseconds: u64) {
            for _ in 0..milliseconds {
                self.now += MS(1);
                self.tick();
            }
        }

        fn tick(&mut self) {
            let now = self.now;
            while self.crossing.front().is_some_and(|(at, ..)| *at <= now) {
                let (_, at, said) = self.crossing.pop_front().unwrap();
                self.to_core.entry(at.bridge).or_default().push_back((at, said));
            }
            for (bridge, queue) in self.to_core.iter_mut().filter(|(bridge, _)| !self.stalled.contains(bridge)) {
                for (at, said) in queue.drain(..) {
                    match said {
                        Said::Probe(from, number) => {
                            _ = self.topology.arrived(now, from, number, at, Carrier::Tunnel);
                        }
                        Said::Question(put) => {
                            self.asked.remove(bridge);
                            self.answered.insert(*bridge, put);
                        }
                    }
                }
            }
            if self.topology.woke(now).is_some() {
                for bridge in self.topology.judge(now, |bridge| self.answered.get(&bridge).copied()).ask {
                    if self.asked.insert(bridge) {
                        self.to_bridge.entry(bridge).or_default().push_back(Said::Question(now));
                    }
                }
            }
            for (from, number) in self.topology.due(now) {
                self.sent += 1;
                self.to_bridge.entry(from.bridge).or_default().push_back(Said::Probe(from, number));
            }
            for (bridge, queue) in self.to_bridge.iter_mut().filter(|(bridge, _)| !self.stalled.contains(bridge)) {
                for said in queue.drain(..) {
                    match said {
                        Said::Question(_) => {
                            self.to_core.entry(*bridge).or_default().push_back((end(bridge.0, 0), said));
                        }
                        Said::Probe(from, _) if self.cut.contains(&from) => {}
                        Said::Probe(from, _) => {
                            let to = end(from.port.0.into(), from.bridge.0 as u32);
                            self.crossing.push_back((now + self.latency, to, said));
                        }
                    }
                }
            }
            let since = (now - self.start).as_millis() as u64;
            self.went.extend(self.topology.links(now, &BTreeSet::new()).went.into_iter().map(|link| (since, link)));
        }

        fn cut(&mut self, a: u64, b: u64) {
            self.cut = [end(a, b as u32), end(b, a as u32)].into();
            self.start = self.now;
        }
    }

    #[test]
    fn a_cut_is_found_in_150_ms_and_nothing_else_goes_down() {
        for wait in 0..40 {
            let mut fabric = Fabric::new(4, 0);
            fabric.run(wait);
            fabric.cut(2, 3);
            fabric.run(2000);
            let [(after, link)] = fabric.went[..] else { panic!("{:?}", fabric.went) };
            assert_eq!((link.a, link.b), (end(2, 3), end(3, 2)));
            assert!((80..=170).contains(&after), "after {after} ms");
        }
    }

    #[test]
    fn where_there_is_nothing_to_compare_with_twice_as_many_have_to_be_lost() {
        let mut fabric = Fabric::new(2, 0);
        fabric.cut(1, 2);
        fabric.run(2000);
        let [(after, _)] = fabric.went[..] else { panic!("{:?}", fabric.went) };
        assert!((200..=300).contains(&after), "after {after} ms");
    }

    #[test]
    fn no_stall_of_a_channel_of_all_or_of_the_controller_is_taken_for_dead_links() {
        for bridges in 2..=4 {
            for stall in [50, 130, 300, 900, 2000, 4000] {
                for stalled in (1..=bridges).map(|one| vec![one]).chain([(1..=bridges).collect()]) {
                    let mut fabric = Fabric::new(bridges, 1);
                    fabric.stalled = stalled.iter().copied().map(DatapathId).collect();
                    fabric.run(stall);
                    fabric.stalled.clear();
                    fabric.run(500);
                    assert_eq!(fabric.went, [], "{stalled:?} stalled for {stall} ms");
                }
                let mut fabric = Fabric::new(bridges, 1);
                fabric.now += MS(stall);
                fabric.run(500);
                assert_eq!(fabric.went, [], "asleep for {stall} ms");
            }
        }
    }

    #[test]
    fn a_bridge_that_answers_but_is_slow_keeps_its_links_and_a_slow_link_its_time() {
        // Its answers overtake what the machine has still to carry.
        let mut fabric = Fabric::new(3, 1);
        fabric.latency = MS(90);
        fabric.run(3000);
        assert_eq!(fabric.went, []);
        let mut fabric = Fabric::new(3, 200);
        fabric.run(3000);
        assert_eq!(fabric.went, []);
        fabric.cut(1, 2);
        fabric.run(2000);
        assert_eq!(fabric.went.len(), 1, "{:?}", fabric.went);
    }

    #[test]
    fn ports_share_the_budget_and_a_few_more_or_fewer_change_nothing() {
        let now = Instant::now();
        let mut topology = Topology::new(now);
        let mut with = |ports: u32| {
            topology.set_senders(now, &(1..=ports).map(|port| end(port.into(), 1)).collect());
            topology.interval().as_millis()
        };
        let steps = [2, 200, 210, 190, 1000, 1050, 950, 1000, 5000, 20_000, 3000, 100];
        assert_eq!(steps.map(&mut with), [40, 40, 46, 46, 220, 220, 220, 220, 1000, 1000, 660, 40]);
        topology.set_probes(now, Probes::Budget(100));
        assert_eq!(topology.interval(), MS(1000));
        topology.set_probes(now, Probes::Every(MS(200)));
        assert_eq!(topology.interval(), MS(200));
    }

    #[test]
    fn another_interval_closes_nothing_and_each_holds_its_budget() {
        let mut fabric = Fabric::new(4, 1);
        for (probes, per_second) in [
            (Probes::Every(MS(1000)), 12),
            (Probes::Budget(100), 100 * 10 / 11),
            (Probes::Every(MS(20)), 600),
            (Probes::Budget(5000), 300),
            (Probes::Every(MS(2000)), 6),
            (Probes::Budget(200), 200 * 10 / 11),
        ] {
            fabric.topology.set_probes(fabric.now, probes);
            fabric.run(2000);
            fabric.sent = 0;
            fabric.run(10_000);
            let sent = fabric.sent / 10;
            assert!(sent.abs_diff(per_second) <= per_second / 10 + 1, "{probes:?}: {sent} per second");
        }
        assert_eq!(fabric.went, []);
    }
}
