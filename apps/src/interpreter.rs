//! Walks a frame through a bridge's tables, as the specification says a bridge does (OpenFlow 1.3.5 §5). It knows the
//! fields, actions and instructions that the pipeline uses.

use std::collections::{BTreeMap, VecDeque};

use openflow::action::Action;
use openflow::instruction::Instruction;
use openflow::narrow::U13;
use openflow::oxm::{Maskable, Oxm};
use openflow::types::{DatapathId, GroupId, MacAddr, MeterId, PortNo, TableId};

use crate::desired::{BridgeState, Flow, FlowKey};
use crate::links::tagged;
use crate::view::{Carrier, Endpoint};

/// What entries can see of a frame.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame {
    /// Destination.
    pub destination: MacAddr,
    /// Source.
    pub source: MacAddr,
    /// Ethernet type behind any tags.
    pub ethertype: u16,
    /// VLAN ids of its tags, the outermost first.
    pub tags: Vec<u16>,
    /// Key of the tunnel that it came through, or will go through.
    pub tunnel: Option<u64>,
}

/// What a bridge does with a frame.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// It leaves by a port.
    Port(PortNo, Frame),
    /// A copy goes to the controller, within a meter's rate.
    Controller(MeterId, TableId),
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
const STORM: usize = 2000;

/// Follows a frame that enters at a port until all its copies have left or ended. `wires` tell for both ends of each link
/// where it leads.
pub fn follow(
    states: &BTreeMap<DatapathId, BridgeState>,
    wires: &BTreeMap<Endpoint, (Endpoint, Carrier)>,
    from: Endpoint,
    sent: &Frame,
) -> Journey {
    let mut journey = Journey::default();
    let mut queue = VecDeque::from([(from, sent.clone())]);
    for _ in 0..STORM {
        let Some((at, frame)) = queue.pop_front() else { break };
        let Some(state) = states.get(&at.bridge) else { continue };
        for output in walk(state, at.port, frame) {
            let Output::Port(port, frame) = output else { continue };
            let here = Endpoint { bridge: at.bridge, port };
            if let Some((there, carrier)) = wires.get(&here) {
                *journey.passes.entry(here).or_default() += 1;
                queue.push_back((*there, frame.carried(*carrier)));
            } else {
                *journey.copies.entry(here).or_default() += 1;
                journey.altered |= Frame { tunnel: sent.tunnel, ..frame } != *sent;
            }
        }
    }
    journey
}

impl Frame {
    /// How it arrives at the other end of a link.
    #[must_use]
    pub fn carried(mut self, carrier: Carrier) -> Self {
        self.tunnel = match carrier {
            Carrier::Tunnel => self.tunnel.or(Some(0)),
            Carrier::Dedicated(key) => Some(key.into()),
            Carrier::Vlan => None,
        };
        self
    }
}

struct Walk<'a> {
    state: &'a BridgeState,
    in_port: PortNo,
    metadata: u64,
    outputs: Vec<Output>,
}

/// What a bridge that holds `state` does with a frame that comes in by a port.
pub fn walk(state: &BridgeState, in_port: PortNo, mut frame: Frame) -> Vec<Output> {
    let mut walk = Walk { state, in_port, metadata: 0, outputs: Vec::new() };
    let mut table = Some(TableId(0));
    while let Some(id) = table {
        let hit = walk.entries(id).filter(|(key, _)| walk.matches(key, &frame)).max_by_key(|(key, _)| key.priority);
        table = None;
        let Some((_, flow)) = hit else { break };
        for instruction in &flow.instructions {
            match instruction {
                Instruction::ApplyActions(actions) => walk.apply(actions, &mut frame, id),
                Instruction::WriteMetadata { metadata, mask } => {
                    walk.metadata = walk.metadata & !mask | metadata & mask;
                }
                // Tables only ever lead to later ones, so this ends.
                Instruction::GotoTable(next) if *next > id => table = Some(*next),
                _ => {}
            }
        }
    }
    walk.outputs
}

impl<'a> Walk<'a> {
    fn entries(&self, table: TableId) -> impl Iterator<Item = (&'a FlowKey, &'a Flow)> + use<'a> {
        let state = self.state;
        state.values().flat_map(|section| &section.flows).filter(move |(key, _)| key.table == table)
    }

    fn matches(&self, key: &FlowKey, frame: &Frame) -> bool {
        fn masked<T: Maskable>(actual: &T, wanted: &T, mask: Option<&T>) -> bool {
            mask.map_or(actual == wanted, |mask| actual.masked(mask) == wanted.masked(mask))
        }
        key.matching.fields().iter().all(|field| match field {
            Oxm::InPort(port, _) => *port == self.in_port,
            Oxm::Metadata(value, mask) => masked(&self.metadata, value, mask.as_ref()),
            Oxm::EthDst(value, mask) => masked(&frame.destination, value, mask.as_ref()),
            Oxm::EthSrc(value, mask) => masked(&frame.source, value, mask.as_ref()),
            Oxm::EthType(value, _) => frame.ethertype == *value,
            Oxm::VlanVid(value, mask) => {
                masked(&frame.tags.first().map_or(U13::low(0), |&vid| tagged(vid)), value, mask.as_ref())
            }
            Oxm::TunnelId(value, mask) => masked(&frame.tunnel.unwrap_or(0), value, mask.as_ref()),
            _ => false,
        })
    }

    fn apply(&mut self, actions: &[Action], frame: &mut Frame, table: TableId) {
        for action in actions {
            match action {
                // A bridge never sends a frame back by plain output.
                Action::Output { port, .. } if *port != self.in_port => {
                    self.outputs.push(Output::Port(*port, frame.clone()));
                }
                Action::Controller2(_) => {
                    self.outputs.extend(action.copy_meter().map(|meter| Output::Controller(meter, table)));
                }
                Action::SetField(Oxm::TunnelId(key, _)) => frame.tunnel = Some(*key),
                Action::SetField(Oxm::VlanVid(vid, _)) => {
                    if let Some(outer) = frame.tags.first_mut() {
                        *outer = vid.get() & 0xfff;
                    }
                }
                Action::PushVlan { .. } => frame.tags.insert(0, 0),
                Action::PopVlan {} if !frame.tags.is_empty() => drop(frame.tags.remove(0)),
                Action::Group { group } => self.group(*group, frame, table),
                _ => {}
            }
        }
    }

    fn group(&mut self, id: GroupId, frame: &Frame, table: TableId) {
        let state = self.state;
        let group = state.values().find_map(|section| section.groups.get(&id));
        for bucket in group.iter().flat_map(|group| &group.buckets) {
            self.apply(&bucket.actions, &mut frame.clone(), table);
        }
    }
}
