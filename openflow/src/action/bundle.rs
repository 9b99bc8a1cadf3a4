//! The `bundle` and `bundle_load` actions of Open vSwitch, which choose one of several ports: the first that is live, say
//! (`ovs-actions(7)`). They have nothing to do with the bundles that changes come in.

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::{BitRange, HashFields};
use crate::oxm::FieldId;
use crate::wire::{Parsed, Wire, refuse};

wire_enum! {
    /// `nx_bd_algorithm`: how a member is chosen.
    pub enum BundleAlgorithm: u16 {
        /// The first that is live.
        ActiveBackup = 0,
        /// By highest random weight, among those that are live.
        Hrw = 1,
    }
}

/// Ports to choose from: the front of `nx_action_bundle`, and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Members {
    /// How one is chosen.
    pub algorithm: BundleAlgorithm,
    /// What is hashed, where that matters.
    pub fields: HashFields,
    /// Where the hash begins from.
    pub basis: u16,
    /// The ports, in OpenFlow 1.0's 16 bits.
    pub members: Vec<u16>,
}

/// `nx_action_bundle` that writes the port's number into a field; 0xffff: none is live.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct BundleLoad {
    /// The ports.
    pub members: Members,
    /// Which bits of the field.
    pub range: BitRange,
    /// The field.
    pub dst: FieldId,
}

/// `NXM_OF_IN_PORT`, which says that members are ports. There is no other kind.
const PORTS: u32 = 0x0000_0002;

impl Members {
    /// The first of these ports that is live.
    pub fn first_live(members: impl IntoIterator<Item = u16>) -> Self {
        let members = members.into_iter().collect();
        Self { algorithm: BundleAlgorithm::ActiveBackup, fields: HashFields::EthSrc, basis: 0, members }
    }

    /// With the octets between front and end, which say where the number goes.
    fn parse(input: &[u8]) -> Parsed<'_, (Self, [u8; 6])> {
        let (rest, algorithm) = BundleAlgorithm::parse(input)?;
        let (rest, fields) = HashFields::parse(rest)?;
        let (rest, basis) = u16::parse(rest)?;
        let (after, kind) = u32::parse(rest)?;
        if kind != PORTS {
            return refuse(rest, "is a kind of member other than a port");
        }
        let (rest, count) = u16::parse(after)?;
        let Some((load, rest)) = rest.split_first_chunk::<6>() else {
            return refuse(rest, "is too short for a bundle of ports");
        };
        let (mut rest, ()) = crate::wire::pad(rest, 4)?;
        let mut members = Vec::new();
        for _ in 0..count {
            let (left, member) = u16::parse(rest)?;
            members.push(member);
            rest = left;
        }
        Ok((rest, (Self { algorithm, fields, basis, members }, *load)))
    }

    fn put(&self, load: [u8; 6], out: &mut BytesMut) {
        self.algorithm.put(out);
        self.fields.put(out);
        self.basis.put(out);
        out.put_u32(PORTS);
        out.put_u16(self.members.len() as u16);
        out.put_slice(&load);
        out.put_bytes(0, 4);
        self.members.put(out);
    }
}

impl Wire for Members {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (rest, (members, _)) = Self::parse(input)?;
        Ok((rest, members))
    }
    fn put(&self, out: &mut BytesMut) {
        Self::put(self, [0; 6], out);
    }
}

impl Wire for BundleLoad {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (rest, (members, load)) = Members::parse(input)?;
        let Ok((load, range)) = BitRange::parse(&load) else { return refuse(input, "names no bits of a field") };
        let Ok((_, dst)) = FieldId::parse(load) else {
            return refuse(input, "names no field that has 32 bits of name");
        };
        Ok((rest, Self { members, range, dst }))
    }
    fn put(&self, out: &mut BytesMut) {
        let mut load = [0; 6];
        let mut place = BytesMut::new();
        self.range.put(&mut place);
        place.put_u32(self.dst.header());
        load.copy_from_slice(&place);
        self.members.put(load, out);
    }
}

impl Members {
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>, name: &str, load: Option<&BundleLoad>) -> fmt::Result {
        let Self { algorithm, fields, basis, members } = self;
        write!(f, "{name}({fields:?},{basis},{algorithm:?},ofport,")?;
        if let Some(BundleLoad { range, dst, .. }) = load {
            write!(f, "{dst}{range},")?;
        }
        let members: Vec<String> = members.iter().map(u16::to_string).collect();
        write!(f, "members:{})", members.join(","))
    }
}
