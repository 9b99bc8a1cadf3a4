//! What the actions of Open vSwitch consist of (`ovs-actions(7)`; wire forms in Open vSwitch's `lib/ofp-actions.c`).

use std::fmt;

use bytes::BytesMut;

use super::{Action, NICIRA};
use crate::oxm::FieldId;
use crate::packet::PacketInReason;
use crate::types::{MeterId, TableId};
use crate::wire::{Fixed, Octets, Parsed, Wire, all, refuse};

/// Some bits of a field: their offset from the lowest bit, 0 to 1023, and their number, 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct BitRange {
    offset: u16,
    n_bits: u16,
}

impl BitRange {
    /// `n_bits` bits from `offset` on; `None` beyond what the wire form holds.
    pub const fn new(offset: u16, n_bits: u16) -> Option<Self> {
        if offset < 1024 && n_bits >= 1 && n_bits <= 64 { Some(Self { offset, n_bits }) } else { None }
    }

    /// Offset of the lowest bit.
    pub const fn offset(self) -> u16 {
        self.offset
    }

    /// How many bits.
    pub const fn n_bits(self) -> u16 {
        self.n_bits
    }
}

impl Fixed for BitRange {
    const LEN: usize = 2;
}
impl Wire for BitRange {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (rest, bits) = u16::parse(input)?;
        Ok((rest, Self { offset: bits >> 6, n_bits: (bits & 63) + 1 }))
    }
    fn put(&self, out: &mut BytesMut) {
        (self.offset << 6 | (self.n_bits - 1)).put(out);
    }
}

impl fmt::Display for BitRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.n_bits {
            1 => write!(f, "[{}]", self.offset),
            n => write!(f, "[{}..{}]", self.offset, self.offset + n - 1),
        }
    }
}

wire_enum! {
    /// `nx_hash_fields`: what a hash is made of.
    pub enum HashFields: u16 {
        /// Ethernet source.
        EthSrc = 0,
        /// Ethernet, VLAN, IP and TCP or SCTP; the same in both directions.
        SymmetricL4 = 1,
        /// IP and TCP or SCTP; the same in both directions.
        SymmetricL3l4 = 2,
        /// IP and TCP, SCTP or UDP; the same in both directions.
        SymmetricL3l4Udp = 3,
        /// IP source.
        NwSrc = 4,
        /// IP destination.
        NwDst = 5,
        /// IP; the same in both directions.
        SymmetricL3 = 6,
    }
}

wire_enum! {
    /// `nx_mp_algorithm`: how a hash chooses a link.
    pub enum MultipathAlgorithm: u16 {
        /// Modulo.
        ModuloN = 0,
        /// By equal regions of the hash.
        HashThreshold = 1,
        /// Highest random weight: few choices change with the number of links.
        Hrw = 2,
        /// Hash until it fits.
        IterHash = 3,
    }
}

wire_struct! {
    /// `nx_action_multipath`.
    pub open struct Multipath {
        /// What is hashed.
        fields: HashFields,
        /// Where the hash begins from: other values choose otherwise.
        basis: u16,
        _ [2],
        /// How the hash chooses.
        algorithm: MultipathAlgorithm,
        /// How many links, less one.
        max_link: u16,
        /// For [`MultipathAlgorithm::IterHash`].
        argument: u32,
        _ [2],
        /// Which bits of the field get the link's number.
        range: BitRange,
        /// The field.
        dst: FieldId,
    }
}

wire_struct! {
    /// `nx_action_stack`.
    pub open struct StackField {
        /// From which bit on.
        offset: u16,
        /// The field.
        field: FieldId,
        /// How many bits.
        n_bits: u16,
    }
}

wire_flags! {
    /// `nx_conntrack_flags`.
    pub struct ConntrackFlags: u16 {
        /// Remember the connection.
        COMMIT = 1;
        /// Begin it anew if it goes the other way.
        FORCE = 2;
    }
}

wire_struct! {
    /// `nx_action_conntrack`.
    pub open struct Conntrack {
        /// What to do.
        flags: ConntrackFlags,
        /// Header of the field that holds the zone; 0: `zone` is the zone.
        zone_source: u32,
        /// The zone, or which bits of the field hold it.
        zone: u16,
        /// Where a copy goes on, with the connection's state; [`Conntrack::NO_RECIRCULATION`]: nowhere.
        table: TableId,
        _ [3],
        /// Well-known port of a protocol to look into; 0: none.
        helper: u16,
        /// What to do to the connection.
        actions: Nested,
    }
}

impl Conntrack {
    /// `NX_CT_RECIRC_NONE`.
    pub const NO_RECIRCULATION: TableId = TableId(0xff);
}

/// Actions within an action. They nest once: deeper ones are read as [`Action::Unknown`], whose octets are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Nested(pub Vec<Action>);

impl Nested {
    fn parse_one(input: &[u8]) -> Parsed<'_, Action> {
        // Looked at before it is parsed, or the input could make us recurse as deep as it is long.
        let nests =
            matches!(input, [0xff, 0xff, _, _, a, b, c, d, 0, 35 | 42, ..] if [*a, *b, *c, *d] == NICIRA.to_be_bytes());
        if !nests {
            return Action::parse(input);
        }
        let (rest, (kind, body)) = crate::wire::element(input, 8)?;
        if !(input.len() - rest.len()).is_multiple_of(8) {
            return refuse(input, "is an action whose length isn't a multiple of 8");
        }
        Ok((rest, Action::Unknown { kind, body: Octets(body.to_vec()) }))
    }
}

impl Wire for Nested {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (rest, actions) = all(input, Self::parse_one)?;
        Ok((rest, Self(actions)))
    }
    fn put(&self, out: &mut BytesMut) {
        self.0.put(out);
    }
}

wire_elements! {
    /// A property of `nx_action_controller2`.
    pub enum ControllerProperty: min 4, Eight {
        /// How much of the packet, octets.
        MaxLen = 0 (u16) pad 0, 2;
        /// To which controller.
        ControllerId = 1 (u16) pad 0, 2;
        /// The reason to give.
        Reason = 2 (PacketInReason) pad 0, 0;
        /// What comes back with the packet.
        Userdata = 3 (Octets) pad 0, 0;
        /// Stop here until the controller says to go on.
        Pause = 4 {} pad 0, 0;
        /// Meter of the copies.
        Meter = 5 (MeterId) pad 0, 0;
    }
}
