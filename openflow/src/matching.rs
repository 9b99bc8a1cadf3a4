//! Flow matches (OpenFlow 1.3.5 §7.2.3).

use std::collections::BTreeSet;
use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::oxm::{Oxm, Prerequisite};
use crate::types::PortNo;
use crate::wire::{LengthGuard, Parsed, Wire, all, element, pad, pad_to_8, refuse, within};

/// The fields that a packet must have, in a canonical order and form, so that equal matches compare equal however they
/// were written: ordered by number, values cut to their masks, full and empty masks left out. No field: every packet.
///
/// A match that was told has each field once, with a value within its mask, and else whatever was told. [`Match::checked`]
/// builds only what a bridge can take.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Match(Vec<Oxm>);

/// `OFPMT_OXM`.
const OXM: u16 = 1;

impl Match {
    /// The match on these fields, which has to be one that a bridge can take.
    ///
    /// # Errors
    /// [`IllegalMatch`]: a field is given twice, with bits that its mask leaves out, or without what it presupposes.
    pub fn checked(fields: impl IntoIterator<Item = Oxm>) -> Result<Self, IllegalMatch> {
        let fields: Vec<Oxm> = fields.into_iter().collect();
        for (at, oxm) in fields.iter().enumerate() {
            if fields[..at].iter().any(|other| other.order() == oxm.order()) {
                return Err(IllegalMatch::Twice(oxm.name()));
            }
            if oxm.exceeds_mask() {
                return Err(IllegalMatch::OutsideMask(oxm.name()));
            }
        }
        let whole = Self::new(fields);
        whole.check().map(|()| whole)
    }

    /// Does each field have what it presupposes (OpenFlow 1.3.5 §7.2.3.6)? What a bridge is told to match on has to. Open
    /// vSwitch asks for more where it comes to its own fields: those of the connection's first packet want a match on
    /// `ct_state`, too.
    ///
    /// # Errors
    /// [`IllegalMatch::Lacks`].
    pub fn check(&self) -> Result<(), IllegalMatch> {
        for info in self.0.iter().filter_map(Oxm::info) {
            let Some(needs) = info.needs else { continue };
            let told = self.0.iter().find(|oxm| oxm.name() == needs.field).and_then(Oxm::number);
            let met = told.is_some_and(|(value, mask)| {
                needs.values.is_empty()
                    || mask & needs.bits == needs.bits && needs.values.contains(&(value & needs.bits))
            });
            if !met {
                return Err(IllegalMatch::Lacks { field: info.name, needs });
            }
        }
        Ok(())
    }

    /// The match on these fields, whatever they are. A field that is given twice counts the first time only.
    pub fn new(fields: impl IntoIterator<Item = Oxm>) -> Self {
        Self::canonical(fields.into_iter().collect(), true)
    }

    /// `masked`: may there be masks?
    fn canonical(mut fields: Vec<Oxm>, masked: bool) -> Self {
        // Most come with none of this to be done, or with the first alone.
        if !in_order(&fields) {
            fields.sort_by_key(Oxm::order);
            if !in_order(&fields) {
                fields.dedup_by_key(|oxm| oxm.order());
            }
        }
        if masked && !fields.iter().all(Oxm::is_canonical) {
            fields = fields.into_iter().filter_map(Oxm::canonical).collect();
        }
        Self(fields)
    }

    /// The fields, in order of their numbers.
    pub fn fields(&self) -> &[Oxm] {
        &self.0
    }

    /// `in_port`, if matched on.
    pub fn in_port(&self) -> Option<PortNo> {
        self.0.iter().find_map(|oxm| if let Oxm::InPort(port, _) = oxm { Some(*port) } else { None })
    }

    /// `tunnel_id`, if there.
    pub fn tunnel_id(&self) -> Option<u64> {
        self.0.iter().find_map(|oxm| if let Oxm::TunnelId(key, None) = oxm { Some(*key) } else { None })
    }

    /// `metadata` with its mask, if there.
    pub fn metadata(&self) -> Option<(u64, u64)> {
        self.0.iter().find_map(|oxm| {
            if let Oxm::Metadata(value, mask) = oxm { Some((*value, mask.unwrap_or(u64::MAX))) } else { None }
        })
    }
}

/// Why no bridge can take a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IllegalMatch {
    /// A field is given twice (`OFPBMC_DUP_FIELD`).
    #[error("{0} is matched on twice")]
    Twice(&'static str),
    /// A field's value has bits that its mask leaves out (`OFPBMC_BAD_WILDCARDS`).
    #[error("{0} has bits in its value that its mask leaves out")]
    OutsideMask(&'static str),
    /// A field is given without what it presupposes (`OFPBMC_BAD_PREREQ`).
    #[error("{field} needs a match on {}{}", needs.field, Values(needs.values))]
    Lacks {
        /// The field.
        field: &'static str,
        /// What it presupposes.
        needs: Prerequisite,
    },
}

struct Values(&'static [u64]);

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, value) in self.0.iter().enumerate() {
            write!(f, "{}{value:#x}", if at == 0 { "=" } else { " or " })?;
        }
        Ok(())
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Match {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|oxm| oxm.serialize_into(&mut map))?;
        serde::ser::SerializeMap::end(map)
    }
}

/// In order, and none twice?
fn in_order(fields: &[Oxm]) -> bool {
    fields.is_sorted_by(|one, next| one.order() < next.order())
}

/// Refuses the first field that stands there for the second time, whatever it says.
#[cold]
fn once_each<'a>(mut input: &'a [u8], fields: &[Oxm]) -> Parsed<'a, ()> {
    let mut seen = BTreeSet::new();
    for oxm in fields {
        if !seen.insert(oxm.order()) {
            return refuse(input, "is a field that the match has already (OFPBMC_DUP_FIELD)")
                .map_err(|fault| within(fault, oxm.name()));
        }
        input = Oxm::parse(input)?.0;
    }
    Ok((input, ()))
}

impl Wire for Match {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (rest, (kind, octets)) = element(input, 4)?;
        if kind != OXM {
            return refuse(input, "is a match of a kind that 1.3 doesn't use");
        }
        let mut masked = false;
        let (_, fields) = all(octets, |field| {
            masked |= Oxm::begins_masked(field);
            Oxm::parse(field)
        })?;
        if !in_order(&fields) {
            once_each(octets, &fields)?;
        }
        let length = input.len() - rest.len();
        let (rest, ()) = pad(rest, length.next_multiple_of(8) - length)?;
        Ok((rest, Self::canonical(fields, masked)))
    }

    fn put(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u16(OXM);
        let length = LengthGuard::new(out, start);
        for oxm in &self.0 {
            oxm.put(out);
        }
        length.finish(out);
        pad_to_8(out, start);
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("any");
        }
        for (at, oxm) in self.0.iter().enumerate() {
            write!(f, "{}{oxm}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::narrow::U13;
    use crate::types::MacAddr;
    use crate::wire::Octets;

    #[test]
    fn a_match_is_built_only_with_what_its_fields_presuppose() {
        let eth = |kind| Oxm::EthType(kind, None);
        let tcp = || Oxm::TcpDst(80, Some(0xfff0));
        assert!(Match::checked([tcp(), Oxm::IpProto(6, None), eth(0x86dd)]).is_ok(), "in any order");
        for (fields, reason) in [
            (vec![tcp()], "tcp_dst needs a match on ip_proto=0x6"),
            (vec![tcp(), Oxm::IpProto(17, None), eth(0x800)], "tcp_dst needs a match on ip_proto=0x6"),
            (vec![tcp(), Oxm::IpProto(6, None)], "ip_proto needs a match on eth_type=0x800 or 0x86dd"),
            (
                vec![Oxm::VlanPcp(crate::narrow::U3::MAX, None), Oxm::VlanVid(U13::low(0), None)],
                "vlan_pcp needs a match on vlan_vid=0x1000",
            ),
            (vec![eth(0x800), eth(0x806)], "eth_type is matched on twice"),
        ] {
            assert_eq!(Match::checked(fields).unwrap_err().to_string(), reason);
        }
    }

    #[test]
    fn a_field_stands_in_a_match_once_and_within_its_mask() {
        let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
        let nxm = |header, octets: &[u8]| Oxm::Unknown { header, body: Octets(octets.to_vec()) };
        let twice = "OFPBMC_DUP_FIELD";
        let outside = "OFPBMC_BAD_WILDCARDS";
        for (fields, offset, code) in [
            (vec![Oxm::EthType(0x800, None), Oxm::EthType(0x806, None)], 10, twice),
            (vec![Oxm::EthType(0x800, None), Oxm::EthType(0x800, None)], 10, twice),
            (vec![Oxm::Metadata(1, None), Oxm::InPort(PortNo(1), None), Oxm::Metadata(0, Some(2))], 24, twice),
            // Nor under a name of Open vSwitch's own.
            (vec![Oxm::EthDst(mac(1), None), nxm(0x0000_0206, &mac(2).0)], 14, twice),
            (vec![nxm(0x0001_2008, &[0; 8]), Oxm::TunnelId(7, None)], 16, twice),
            // Nor where nobody here knows what it is: the experimenter's number tells the first two apart.
            (
                vec![
                    nxm(0xffff_0205, &[0, 0, 0, 7, 1]),
                    nxm(0xffff_0205, &[0, 0, 0, 8, 1]),
                    nxm(0xffff_0306, &[0, 0, 0, 7, 0, 0]),
                ],
                22,
                twice,
            ),
            (vec![Oxm::Metadata(0xff, Some(0x0f))], 4, outside),
            (vec![Oxm::InPort(PortNo(1), None), Oxm::VlanVid(U13::low(5), Some(U13::low(0x1000)))], 12, outside),
            (vec![Oxm::Reg0(1, Some(0))], 4, outside),
            (vec![nxm(0x0000_0f08, &[10, 0, 0, 1, 255, 0, 0, 0])], 4, outside),
            (vec![nxm(0xffff_0306, &[0, 0, 0, 7, 2, 1])], 4, outside),
            (vec![nxm(0x0000_0f07, &[10, 0, 0, 1, 255, 0, 0])], 4, "as long as its value"),
        ] {
            let mut raw = BytesMut::new();
            Match(fields.clone()).put(&mut raw);
            let Err(nom::Err::Failure(fault)) = Match::parse(&raw) else { panic!("{fields:?} is taken") };
            assert_eq!(fault.at.as_ptr() as usize - raw.as_ptr() as usize, offset, "{fields:?}");
            assert!(fault.reason.contains(code), "{fields:?}: {}", fault.reason);
        }
        assert_eq!(
            Match::checked([Oxm::Metadata(3, Some(2))]).unwrap_err().to_string(),
            "metadata has bits in its value that its mask leaves out"
        );
    }

    #[test]
    fn matches_are_equal_however_they_were_written() {
        let one = Match::new([Oxm::Metadata(0xff, Some(0x0f)), Oxm::InPort(PortNo(1), None)]);
        let two = Match::new([
            Oxm::InPort(PortNo(1), None),
            Oxm::Metadata(0x0f, Some(0x0f)),
            Oxm::EthDst(Default::default(), Some(Default::default())),
        ]);
        assert_eq!(one, two);
        assert_eq!(one.to_string(), "in_port=1,metadata=0xf/0xf");
    }
}
