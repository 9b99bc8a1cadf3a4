//! Naming a field without giving it a value, as actions and table features do.

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::{FIELDS, FieldInfo};
use crate::wire::{Parsed, Wire};

const EXPERIMENTER_CLASS: u32 = 0xffff;

/// The header of a match field, with the experimenter's number behind it in class 0xffff (§7.2.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldId {
    header: u32,
    experimenter: u32,
}

impl FieldId {
    /// `NXM_OF_IN_PORT`: the port that a packet came in by, in OpenFlow 1.0's 16 bits. Other than `in_port`, Open vSwitch lets
    /// actions write it.
    pub const IN_PORT_16: Self = Self { header: 0x0000_0002, experimenter: 0 };

    /// The field of that name in [`FIELDS`], whole and without mask.
    pub fn named(name: &str) -> Option<Self> {
        FIELDS.iter().find(|info| info.name == name).map(|info| {
            let owner = if info.experimenter == 0 { 0 } else { 4 };
            let header = u32::from(info.class) << 16 | u32::from(info.id) << 9 | u32::from(info.octets + owner);
            Self { header, experimenter: info.experimenter }
        })
    }

    /// A whole field by the numbers that it has among Open vSwitch's own (`OFPXMC_NXM_0`, `OFPXMC_NXM_1`): of those that the
    /// specification has numbers for, too, Open vSwitch tells these where an action names them.
    pub const fn nxm(class: u16, id: u8, octets: u8) -> Self {
        Self { header: (class as u32) << 16 | (id as u32) << 9 | octets as u32, experimenter: 0 }
    }

    /// What is fixed about the field; `None` if it has no name here.
    pub fn info(&self) -> Option<&'static FieldInfo> {
        let (class, id) = (self.header >> 16, (self.header >> 9 & 0x7f) as u8);
        FIELDS
            .iter()
            .find(|info| u32::from(info.class) == class && info.id == id && info.experimenter == self.experimenter)
    }

    /// `oxm_header`.
    pub const fn header(&self) -> u32 {
        self.header
    }
}

impl Wire for FieldId {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (rest, header) = u32::parse(input)?;
        if header >> 16 == EXPERIMENTER_CLASS {
            let (rest, experimenter) = u32::parse(rest)?;
            return Ok((rest, Self { header, experimenter }));
        }
        Ok((rest, Self { header, experimenter: 0 }))
    }
    fn put(&self, out: &mut BytesMut) {
        out.put_u32(self.header);
        if self.header >> 16 == EXPERIMENTER_CLASS {
            out.put_u32(self.experimenter);
        }
    }
}

impl fmt::Display for FieldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.info() {
            Some(info) => f.write_str(info.name),
            None if *self == Self::IN_PORT_16 => f.write_str("NXM_OF_IN_PORT"),
            None => write!(f, "oxm_{:08x}", self.header),
        }
    }
}
