//! Walks a frame through a bridge's tables, as the specification says a bridge does (OpenFlow 1.3.5 §5) and
//! `ovs-actions(7)` says of Open vSwitch's own actions. It knows the fields, actions and instructions that the pipeline uses.

mod frame;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use openflow::action::{Action, BitRange, BundleAlgorithm, Conntrack, LimitedLearn, Members};
use openflow::group::{Bucket, GroupType};
use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::types::{DatapathId, GroupId, MeterId, PortNo, TableId};

use self::frame::Packet;
use crate::desired::{BridgeState, Flow, FlowKey};
use crate::view::{Carrier, Endpoint};

pub use self::frame::{Fragment, Frame, Network, SYN, Transport};

/// What a bridge does with a frame.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// It leaves by a port.
    Port(PortNo, Frame),
    /// A copy goes to the controller, within a meter's rate.
    Controller(MeterId, TableId),
}

/// What happens to a frame in a bridge, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// It is looked up in a table.
    Table {
        /// The table.
        table: TableId,
        /// The entry that it hits; `None`: it hits none, and ends there.
        hit: Option<(&'a FlowKey, &'a Flow)>,
    },
    /// It passes a meter, if that has something left.
    Meter(MeterId),
    /// A bucket of a group gets a copy.
    Bucket {
        /// The group.
        group: GroupId,
        /// The bucket's place in it, from 0.
        bucket: usize,
    },
    /// It, or a copy, leaves.
    Output(Output),
    /// It has been through so much that the rest isn't followed; an Open vSwitch drops it then.
    Bound,
}

/// What became of a frame and its copies in a whole fabric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journey {
    /// How many copies left by which port that leads to no other bridge.
    pub copies: BTreeMap<Endpoint, usize>,
    /// How often which link was passed, by the end that it was passed from.
    pub passes: BTreeMap<Endpoint, usize>,
    /// Did some copy leave by such a port looking other than what was sent?
    pub altered: bool,
}

/// Steps after which a frame that still travels is taken for a storm, which would never end.
pub const STORM: usize = 2000;

/// Lookups and groups in one bridge after which the rest isn't followed, and how deep they may lie in each other: as many
/// as Open vSwitch allows (`MAX_RESUBMITS` and `MAX_DEPTH` in its `ofproto/ofproto-dpif-xlate.c`).
const STEPS: usize = 4096;
const DEPTH: usize = 64;

/// Follows a frame that enters at a port until all its copies have left or ended. `wires` tell for both ends of each link
/// where it leads; `down` are the ports without carrier.
pub fn follow(
    states: &BTreeMap<DatapathId, BridgeState>,
    wires: &BTreeMap<Endpoint, (Endpoint, Carrier)>,
    down: &BTreeSet<Endpoint>,
    from: Endpoint,
    sent: &Frame,
) -> Journey {
    let mut journey = Journey::default();
    let mut queue = VecDeque::from([(from, sent.clone())]);
    for _ in 0..STORM {
        let Some((at, frame)) = queue.pop_front() else { break };
        let Some(state) = states.get(&at.bridge).filter(|_| !down.contains(&at)) else { continue };
        observe(state, at, down, frame, |event| {
            let Event::Output(Output::Port(port, frame)) = event else { return };
            let here = Endpoint { bridge: at.bridge, port };
            // What leaves by a port without carrier is lost.
            if down.contains(&here) {
            } else if let Some((there, carrier)) = wires.get(&here) {
                *journey.passes.entry(here).or_default() += 1;
                queue.push_back((*there, frame.carried(*carrier)));
            } else {
                *journey.copies.entry(here).or_default() += 1;
                journey.altered |= Frame { tunnel: sent.tunnel, ..frame } != *sent;
            }
        });
    }
    journey
}

/// What a bridge that holds `state` does with a frame that comes in at a port, `down` being ports without carrier.
pub fn walk(state: &BridgeState, at: Endpoint, down: &BTreeSet<Endpoint>, frame: Frame) -> Vec<Output> {
    let mut outputs = Vec::new();
    observe(state, at, down, frame, |event| {
        if let Event::Output(output) = event {
            outputs.push(output);
        }
    });
    outputs
}

/// As [`walk`], but tells of all that happens on the way.
pub fn observe<'a>(
    state: &'a BridgeState,
    at: Endpoint,
    down: &BTreeSet<Endpoint>,
    frame: Frame,
    tell: impl FnMut(Event<'a>),
) {
    let mut walk = Walk { state, at, down, steps: 0, depth: 0, tell };
    let unread = frame.tags.len() > 1;
    let mut packet = Packet { frame, in_port: at.port, metadata: 0, unread, registers: [0; 3], ct_state: 0 };
    walk.tables(TableId(0), &mut packet);
}

struct Walk<'a, 'b, F> {
    state: &'a BridgeState,
    at: Endpoint,
    down: &'b BTreeSet<Endpoint>,
    steps: usize,
    depth: usize,
    tell: F,
}

impl<'a, F: FnMut(Event<'a>)> Walk<'a, '_, F> {
    /// May it go on? Only this keeps groups and resubmissions that lead to each other from going on for ever.
    fn step(&mut self) -> bool {
        self.steps += 1;
        if self.steps < STEPS && self.depth < DEPTH {
            return true;
        }
        // Told once, not by all that comes to it.
        if self.steps <= STEPS {
            (self.tell)(Event::Bound);
        }
        self.steps = STEPS;
        false
    }

    /// From a table on, until no table follows.
    fn tables(&mut self, first: TableId, packet: &mut Packet) {
        let mut next = Some(first);
        while let Some(table) = next.take() {
            if !self.step() {
                return;
            }
            let hit = self.lookup(table, packet);
            (self.tell)(Event::Table { table, hit });
            for instruction in hit.iter().flat_map(|(_, flow)| &flow.instructions) {
                match instruction {
                    Instruction::Meter(meter) => (self.tell)(Event::Meter(*meter)),
                    Instruction::ApplyActions(actions) => self.apply(actions, packet, table),
                    Instruction::WriteMetadata { metadata, mask } => {
                        packet.metadata = packet.metadata & !mask | metadata & mask;
                    }
                    // Tables only ever lead to later ones.
                    Instruction::GotoTable(later) if *later > table => next = Some(*later),
                    _ => {}
                }
            }
        }
    }

    fn lookup(&self, table: TableId, packet: &Packet) -> Option<(&'a FlowKey, &'a Flow)> {
        let lowest = |table| FlowKey { table, priority: 0, matching: Match::default() };
        let entries = lowest(table)..lowest(TableId(table.0.saturating_add(1)));
        let has = |field| packet.has(field);
        let state = self.state;
        let hits = state.values().filter_map(|section| {
            section
                .flows
                .range(&entries.start..&entries.end)
                .rev()
                .find(|(key, _)| key.matching.fields().iter().all(has))
        });
        hits.max_by_key(|(key, _)| key.priority)
    }

    fn apply(&mut self, actions: &[Action], packet: &mut Packet, table: TableId) {
        for action in actions {
            match action {
                Action::Output { port: PortNo::IN_PORT, .. } => {
                    (self.tell)(Event::Output(Output::Port(packet.in_port, packet.frame.clone())));
                }
                // A bridge never sends a frame back by plain output.
                Action::Output { port, .. } if *port != packet.in_port => {
                    (self.tell)(Event::Output(Output::Port(*port, packet.frame.clone())));
                }
                Action::Controller2(_) => {
                    if let Some(meter) = action.copy_meter() {
                        (self.tell)(Event::Output(Output::Controller(meter, table)));
                    }
                }
                Action::SetField(field) => packet.set(field),
                Action::RegLoad { range, dst, value } => packet.load(*dst, *range, *value),
                Action::Multipath(multipath) => packet.choose(multipath),
                Action::Bundle(members) => {
                    if let Some(port) = self.live(members).filter(|port| *port != packet.in_port) {
                        (self.tell)(Event::Output(Output::Port(port, packet.frame.clone())));
                    }
                }
                Action::BundleLoad(load) => {
                    // `OFPP_NONE` of OpenFlow 1.0.
                    const NONE: u32 = 0xffff;
                    let port = self.live(&load.members).map_or(NONE, |port| port.0);
                    packet.load(load.dst, load.range, port.into());
                }
                // It is as if there were room, but nothing is remembered: each frame is walked by itself.
                Action::LimitedLearn(LimitedLearn { result: Some(result), .. }) => {
                    if let Some(bit) = BitRange::new(result.bit, 1) {
                        packet.load(result.field, bit, 1);
                    }
                }
                Action::PushVlan { .. } => packet.frame.tags.insert(0, 0),
                Action::PopVlan {} if !packet.frame.tags.is_empty() => drop(packet.frame.tags.remove(0)),
                Action::Group { group } => self.group(*group, packet, table),
                Action::Clone(nested) => self.deeper(|walk| walk.apply(&nested.0, &mut packet.clone(), table)),
                // A copy goes on there, as a packet of a connection that nobody has seen yet.
                Action::Ct(track) if track.table != Conntrack::NO_RECIRCULATION => self.deeper(|walk| {
                    const NEW: u32 = 0x21;
                    walk.tables(track.table, &mut Packet { ct_state: NEW, ..packet.clone() });
                }),
                // What happens there stays with the packet.
                Action::Resubmit { in_port: Action::SAME_PORT, table: other } => {
                    self.deeper(|walk| walk.tables(*other, packet));
                }
                _ => {}
            }
        }
    }

    /// The first port of a bundle that has carrier; `None`: none has, or they are chosen by hash, which the pipeline never does.
    fn live(&self, bundle: &Members) -> Option<PortNo> {
        let mut ports = bundle.members.iter().map(|port| PortNo::of_16_bits(*port));
        let up = |port: &PortNo| !self.down.contains(&Endpoint { bridge: self.at.bridge, port: *port });
        ports.find(up).filter(|_| bundle.algorithm == BundleAlgorithm::ActiveBackup)
    }

    fn deeper(&mut self, go: impl FnOnce(&mut Self)) {
        self.depth += 1;
        go(self);
        self.depth -= 1;
    }

    /// Buckets change copies, never the packet itself.
    fn group(&mut self, id: GroupId, packet: &Packet, table: TableId) {
        let state = self.state;
        let group = state.values().find_map(|section| section.groups.get(&id));
        let Some(group) = group.filter(|_| self.step()) else { return };
        let (down, bridge) = (self.down, self.at.bridge);
        // The pipeline has no groups that watch groups.
        let lives = |bucket: &Bucket| !down.contains(&Endpoint { bridge, port: bucket.watch_port });
        let most = match group.kind {
            GroupType::All => usize::MAX,
            GroupType::FastFailover => 1,
            _ => 0,
        };
        let numbered = group.buckets.iter().enumerate();
        for (at, bucket) in numbered.filter(|(_, bucket)| group.kind == GroupType::All || lives(bucket)).take(most) {
            (self.tell)(Event::Bucket { group: id, bucket: at });
            self.deeper(|walk| walk.apply(&bucket.actions, &mut packet.clone(), table));
        }
    }
}
