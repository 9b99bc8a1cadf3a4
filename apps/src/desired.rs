//! What a bridge's tables hold, or should hold: flow entries, groups and meters, in order and grouped by owner.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use openflow::action::Action;
use openflow::flow::FlowModFlags;
use openflow::group::{Bucket, GroupType};
use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::meter::{Band, MeterFlags};
use openflow::oxm::Oxm;
use openflow::types::{Cookie, GroupId, MeterId, PortNo, TableId};
use openflow::wire::Wire;

use crate::marks::{Owner, cookie, metadata};
use crate::pipeline::ADMIT;
use crate::policy::{Origin, RateLimit, RateUnit};
use crate::trees::spread;
use crate::view::PortView;

/// What makes a flow entry that entry; all else is its value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowKey {
    /// Its table.
    pub table: TableId,
    /// Higher wins.
    pub priority: u16,
    /// Which packets.
    pub matching: Match,
}

/// A flow entry's value.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Which object made it.
    pub cookie: Cookie,
    /// Seconds without a packet after which it goes; 0: never.
    pub idle_timeout: u16,
    /// How it behaves.
    pub flags: FlowModFlags,
    /// What is done, in the order of [`Instruction::order`].
    pub instructions: Vec<Instruction>,
    /// For an entry that sends frames for a known destination over a link: how many links it is away. 0 elsewhere, and
    /// where it isn't known. No part of the value: bridges don't know it.
    pub hops: u16,
    /// What in the policy it is there for; `None`: nothing, or not known. No part of the value either.
    pub origin: Option<Origin>,
}

impl PartialEq for Flow {
    fn eq(&self, other: &Self) -> bool {
        let Self { cookie, idle_timeout, flags, instructions, hops: _, origin: _ } = self;
        (*cookie, *idle_timeout, *flags) == (other.cookie, other.idle_timeout, other.flags)
            && *instructions == other.instructions
    }
}

impl Eq for Flow {}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// How it chooses among its buckets.
    pub kind: GroupType,
    /// Its buckets.
    pub buckets: Vec<Bucket>,
}

/// A meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// How it counts.
    pub flags: MeterFlags,
    /// Its bands.
    pub bands: Vec<Band>,
}

/// What one owner has on one bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Flow entries.
    pub flows: BTreeMap<FlowKey, Flow>,
    /// Groups.
    pub groups: BTreeMap<GroupId, Group>,
    /// Meters.
    pub meters: BTreeMap<MeterId, Meter>,
}

impl Section {
    /// Does it hold nothing?
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.groups.is_empty() && self.meters.is_empty()
    }
}

/// All that a bridge has. Owners that have nothing there aren't in it.
pub type BridgeState = BTreeMap<Owner, Arc<Section>>;

/// How many flow entries, groups and meters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counts {
    /// Flow entries.
    pub flows: usize,
    /// Groups.
    pub groups: usize,
    /// Meters.
    pub meters: usize,
}

/// Counts what a bridge has.
pub fn counts(state: &BridgeState) -> Counts {
    state.values().fold(Counts::default(), |sum, section| Counts {
        flows: sum.flows + section.flows.len(),
        groups: sum.groups + section.groups.len(),
        meters: sum.meters + section.meters.len(),
    })
}

/// An entry of a tenant's rules or chains, before it is said in which version of them it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Draft {
    pub(crate) table: TableId,
    pub(crate) priority: u16,
    /// Without metadata.
    pub(crate) matching: Match,
    pub(crate) instructions: Vec<Instruction>,
    pub(crate) origin: Origin,
}

/// A number for what these entries say together: other entries have, but for chance, another one.
pub(crate) fn version(drafts: &[Draft]) -> u64 {
    let mut octets = BytesMut::new();
    for draft in drafts {
        octets.put_u8(draft.table.0);
        octets.put_u16(draft.priority);
        draft.matching.put(&mut octets);
        draft.instructions.iter().for_each(|instruction| instruction.put(&mut octets));
    }
    let octets: Vec<u64> = octets.iter().map(|octet| u64::from(*octet)).collect();
    spread(0, &octets) & metadata::VERSION_MAX
}

/// Collects an owner's entries for one bridge.
#[derive(Debug)]
pub(crate) struct SectionBuilder {
    owner: Owner,
    /// What in the policy the next entries are for.
    origin: Option<Origin>,
    section: Section,
}

impl SectionBuilder {
    pub(crate) fn new(owner: Owner) -> Self {
        Self { owner, origin: None, section: Section::default() }
    }

    /// The entries that follow are there for this.
    pub(crate) fn about(&mut self, origin: &Origin) -> &mut Self {
        self.origin = Some(origin.clone());
        self
    }

    /// Adds a flow entry that lives for ever.
    pub(crate) fn flow(
        &mut self,
        table: TableId,
        priority: u16,
        fields: impl IntoIterator<Item = Oxm>,
        instructions: Vec<Instruction>,
    ) -> &mut Flow {
        let key = FlowKey { table, priority, matching: Match::new(fields) };
        debug_assert_eq!(key.matching.check(), Ok(()), "no bridge takes {}", key.matching);
        let (cookie, origin) = (cookie::of(self.owner, table), self.origin.clone());
        let flow = Flow { cookie, idle_timeout: 0, flags: FlowModFlags::empty(), instructions, hops: 0, origin };
        let entry = self.section.flows.entry(key);
        debug_assert!(matches!(entry, std::collections::btree_map::Entry::Vacant(_)), "made twice: {entry:?}");
        entry.or_insert(flow)
    }

    /// Adds the entries of a version of a tenant's rules and chains: for frames that entered here under that version.
    pub(crate) fn versioned(&mut self, key: u32, drafts: Vec<Draft>) {
        let version = version(&drafts);
        let mask = metadata::TENANT | metadata::EDGE | metadata::VERSION;
        for draft in drafts {
            let entered = Oxm::Metadata(metadata::entered(key, version), Some(mask));
            let fields = draft.matching.fields().iter().cloned().chain([entered]);
            self.about(&draft.origin).flow(draft.table, draft.priority, fields, draft.instructions);
        }
    }

    pub(crate) fn group(&mut self, id: GroupId, buckets: Vec<Bucket>) {
        self.section.groups.insert(id, Group { kind: GroupType::All, buckets });
    }

    /// What a meter lets through. The drop band is the only one that Open vSwitch has.
    pub(crate) fn meter(&mut self, id: MeterId, limit: RateLimit) {
        let unit = match limit.unit {
            RateUnit::Kilobits => MeterFlags::KBPS,
            RateUnit::Packets => MeterFlags::PKTPS,
        };
        let RateLimit { rate, burst, .. } = limit;
        let meter = Meter { flags: unit | MeterFlags::BURST, bands: vec![Band::Drop { rate, burst }] };
        self.section.meters.insert(id, meter);
    }

    pub(crate) fn build(self) -> Section {
        self.section
    }

    /// The same for a bridge with these ports: entries that take frames in bear the name of the port that they were made for.
    pub(crate) fn build_for(mut self, ports: &BTreeMap<PortNo, PortView>) -> Section {
        let admits = |key: &FlowKey| key.table == ADMIT;
        for (key, flow) in self.section.flows.iter_mut().take_while(|(key, _)| admits(key)) {
            if let Some(port) = key.matching.in_port().and_then(|port| ports.get(&port)) {
                flow.cookie = cookie::of_port(self.owner, ADMIT, &port.name);
            }
        }
        self.section
    }
}

/// `goto_table`, alone.
pub(crate) fn go(table: TableId) -> Vec<Instruction> {
    vec![Instruction::GotoTable(table)]
}

/// Actions at once, and nothing after them.
pub(crate) fn apply(actions: Vec<Action>) -> Vec<Instruction> {
    vec![Instruction::ApplyActions(actions)]
}

/// Nothing: the frame is dropped.
pub(crate) fn drop() -> Vec<Instruction> {
    Vec::new()
}
