//! What an entry looks at, and what it does, without a packet.

use openflow::action::{Action, BundleAlgorithm, Conntrack, ConntrackFlags};
use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::oxm::Oxm;
use openflow::types::{GroupId, MacAddr, MeterId, PortNo, TableId};

/// The fields of a match that say whose frames they are, and where they go. Whatever else it has makes it match less.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) in_port: Option<PortNo>,
    /// Value and mask.
    pub(super) metadata: (u64, u64),
    /// Register 2: value and mask.
    pub(super) reg2: (u32, u32),
    pub(super) tunnel: Option<u64>,
    /// The outer tag's VLAN id.
    pub(super) vlan: Option<u16>,
    pub(super) destination: Option<MacAddr>,
    /// Only packets whose connection wasn't looked up.
    pub(super) untracked: bool,
    /// Some of the tunnel key, or of the VLAN id, is left open.
    pub(super) vague: bool,
    pub(super) fields: usize,
}

/// `OFPVID_PRESENT`: there is a tag.
const TAGGED: u16 = 0x1000;
/// Bit of `ct_state` (ovs-fields(7)): the connection was looked up.
const TRACKED: u32 = 0x20;

impl Seen {
    pub(super) fn of(matching: &Match) -> Self {
        let mut seen = Self { fields: matching.fields().len(), ..Self::default() };
        for field in matching.fields() {
            match field {
                Oxm::InPort(port, _) => seen.in_port = Some(*port),
                Oxm::Metadata(value, mask) => seen.metadata = (*value, mask.unwrap_or(u64::MAX)),
                Oxm::Reg2(value, mask) => seen.reg2 = (*value, mask.unwrap_or(u32::MAX)),
                Oxm::TunnelId(key, None) => seen.tunnel = Some(*key),
                Oxm::VlanVid(vlan, None) if vlan.get() & TAGGED != 0 => seen.vlan = Some(vlan.get() & !TAGGED),
                Oxm::TunnelId(..) | Oxm::VlanVid(..) => seen.vague = true,
                Oxm::EthDst(destination, None) => seen.destination = Some(*destination),
                Oxm::CtState(value, mask) => {
                    seen.untracked = mask.unwrap_or(u32::MAX) & TRACKED != 0 && value & TRACKED == 0;
                }
                _ => {}
            }
        }
        seen
    }

    /// The bits of metadata that every frame has which matches; `None`: some has others.
    pub(super) fn told(&self, mask: u64) -> Option<u64> {
        (self.metadata.1 & mask == mask).then_some(self.metadata.0 & mask)
    }

    /// Is it only for frames to an instance of which a port isn't live?
    pub(super) fn dead(&self) -> bool {
        let (value, mask) = self.reg2;
        [0xffff, 0xffff_0000].into_iter().any(|port| mask & port == port && value & port == port)
    }
}

/// The instructions of an entry.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Does<'t> {
    pub(super) meter: Option<MeterId>,
    pub(super) actions: &'t [Action],
    /// Value and mask.
    pub(super) write: Option<(u64, u64)>,
    pub(super) goto: Option<TableId>,
    /// Something that no entry of ours does.
    pub(super) else_: bool,
}

impl<'t> Does<'t> {
    pub(super) fn of(instructions: &'t [Instruction]) -> Self {
        let mut does = Self::default();
        for instruction in instructions {
            match instruction {
                Instruction::Meter(meter) => does.meter = Some(*meter),
                Instruction::ApplyActions(actions) => does.actions = actions,
                Instruction::WriteMetadata { metadata, mask } => does.write = Some((*metadata, *mask)),
                Instruction::GotoTable(table) => does.goto = Some(*table),
                _ => does.else_ = true,
            }
        }
        does
    }

    /// Do frames end here?
    pub(super) fn ends(&self) -> bool {
        self.actions.is_empty() && self.goto.is_none() && !self.else_
    }
}

/// How a frame differs from what came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) tunnel: Option<u64>,
    /// Tags put on; the last one's VLAN id, once it has one.
    pub(super) tags: u8,
    pub(super) vlan: Option<u16>,
    /// Tags taken off that came with it.
    pub(super) popped: u8,
    pub(super) destination: Option<MacAddr>,
}

/// What actions do, one by one.
pub(super) enum Act<'t> {
    /// It leaves by a port, or may leave by it, so changed.
    Out(PortNo, Changed),
    /// A copy to the controller, within a meter's rate.
    Copy(MeterId),
    /// To a group's buckets, so changed.
    Group(GroupId, Changed),
    /// The packet's connection is looked up or remembered.
    Track(&'t Conntrack),
    /// Something that no entry of ours does.
    Else(&'t Action),
}

/// Goes through actions; gives how a frame is changed in the end.
pub(super) fn act<'t>(actions: &'t [Action], mut changed: Changed, mut tell: impl FnMut(Act<'t>)) -> Changed {
    for action in actions {
        match action {
            Action::Output { port, .. } => tell(Act::Out(*port, changed)),
            Action::Bundle(all) if all.algorithm == BundleAlgorithm::ActiveBackup => {
                all.members.iter().for_each(|port| tell(Act::Out(PortNo::of_16_bits(*port), changed)));
            }
            Action::Group { group } => tell(Act::Group(*group, changed)),
            Action::SetField(Oxm::TunnelId(key, None)) => changed.tunnel = Some(*key),
            Action::SetField(Oxm::VlanVid(vlan, None)) if changed.tags > 0 && vlan.get() & TAGGED != 0 => {
                changed.vlan = Some(vlan.get() & !TAGGED);
            }
            Action::SetField(Oxm::EthDst(destination, None)) => changed.destination = Some(*destination),
            Action::PushVlan { .. } => {
                changed.tags = changed.tags.saturating_add(1);
                changed.vlan = None;
            }
            Action::PopVlan {} if changed.tags > 0 => {
                changed.tags -= 1;
                changed.vlan = None;
            }
            Action::PopVlan {} => changed.popped = changed.popped.saturating_add(1),
            Action::Ct(track) => tell(Act::Track(track)),
            other => tell(other.copy_meter().map_or(Act::Else(other), Act::Copy)),
        }
    }
    changed
}

/// Is a connection only remembered, in this zone?
pub(super) fn remembers(track: &Conntrack, zone: Option<u16>) -> bool {
    track.flags == ConntrackFlags::COMMIT && track.table == Conntrack::NO_RECIRCULATION && own(track, zone)
}

/// Is a connection only looked up, in this zone, and the packet held against the same table again?
pub(super) fn looks_up(track: &Conntrack, zone: Option<u16>, table: TableId) -> bool {
    track.flags.is_empty() && track.table == table && own(track, zone)
}

fn own(track: &Conntrack, zone: Option<u16>) -> bool {
    track.zone_source == 0 && Some(track.zone) == zone && track.actions.0.is_empty()
}
