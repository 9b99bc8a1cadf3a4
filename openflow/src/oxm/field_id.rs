//! Naming a field without giving it a value, as actions and table features do.

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::{FIELDS, FieldInfo, aliases};
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

impl FieldId {
    /// How the field is called, with `/mask` behind it where a mask goes with it; one without a name by header and
    /// experimenter. And the length in the header if it isn't the field's, which the name doesn't tell.
    pub(crate) fn parts(&self) -> (String, Option<u32>) {
        let owner = if self.experimenter == 0 { 0 } else { 4 };
        let of_row = self.info().map(|info| (info.name, u32::from(info.octets)));
        let named = of_row.or_else(|| aliases::find(self.header).map(|alias| (alias.name, alias.octets.into())));
        let masked = self.header & 0x100 != 0;
        match named {
            Some((name, octets)) => {
                let length = self.header & 0xff;
                let usual = length == octets * (1 + u32::from(masked)) + owner;
                (format!("{name}{}", if masked { "/mask" } else { "" }), (!usual).then_some(length))
            }
            None if self.header >> 16 == EXPERIMENTER_CLASS => {
                (format!("oxm_{:08x}_{:08x}", self.header, self.experimenter), None)
            }
            None => (format!("oxm_{:08x}", self.header), None),
        }
    }
}

impl fmt::Display for FieldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            (name, None) => f.write_str(&name),
            (name, Some(length)) => write!(f, "{name}(length={length})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_fields_are_never_written_alike() {
        let shown = |octets: &[u8]| FieldId::parse(octets).unwrap().1.to_string();
        for (octets, text) in [
            (&[0x80, 0, 6, 6][..], "eth_dst"),
            (&[0x80, 0, 7, 12], "eth_dst/mask"),
            (&[0x80, 0, 7, 6], "eth_dst/mask(length=6)"),
            (&[0x80, 0, 6, 5], "eth_dst(length=5)"),
            (&[0xff, 0xff, 0x54, 6, 0x4f, 0x4e, 0x46, 0], "tcp_flags"),
            (&[0xff, 0xff, 0x55, 8, 0x4f, 0x4e, 0x46, 0], "tcp_flags/mask"),
            (&[0xff, 0xff, 0x54, 6, 0, 0, 0, 7], "oxm_ffff5406_00000007"),
            (&[0xff, 0xff, 0x54, 6, 0, 0, 0, 0], "oxm_ffff5406_00000000"),
            (&[0, 0, 4, 6], "NXM_OF_ETH_SRC"),
            (&[0, 0, 0, 2], "NXM_OF_IN_PORT"),
            (&[0, 1, 0x26, 16], "NXM_NX_IPV6_SRC"),
            (&[0, 0x0a, 4, 6], "oxm_000a0406"),
        ] {
            assert_eq!(shown(octets), text);
        }
    }
}
