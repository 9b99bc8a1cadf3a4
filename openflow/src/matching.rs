//! Flow matches (OpenFlow 1.3.5 §7.2.3).

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::oxm::{Oxm, Prerequisite};
use crate::types::PortNo;
use crate::wire::{LengthGuard, Parsed, Wire, all, element, pad, pad_to_8, refuse};

/// The fields that a packet must have, in a canonical order and form, so that equal matches compare equal however they
/// were written: ordered by number, values cut to their masks, full and empty masks left out. No field: every packet.
///
/// A match that was told holds whatever was told. [`Match::checked`] builds only what a bridge can take.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Match(Vec<Oxm>);

/// `OFPMT_OXM`.
const OXM: u16 = 1;

impl Match {
    /// The match on these fields, which has to be one that a bridge can take.
    ///
    /// # Errors
    /// [`IllegalMatch`]: a field is given twice, or without what it presupposes.
    pub fn checked(fields: impl IntoIterator<Item = Oxm>) -> Result<Self, IllegalMatch> {
        let fields: Vec<Oxm> = fields.into_iter().collect();
        for (at, oxm) in fields.iter().enumerate() {
            if fields[..at].iter().any(|other| other.order() == oxm.order()) {
                return Err(IllegalMatch::Twice(oxm.name()));
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
        let in_order = |fields: &[Oxm]| fields.is_sorted_by(|one, next| one.order() < next.order());
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

impl Wire for Match {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (rest, (kind, fields)) = element(input, 4)?;
        if kind != OXM {
            return refuse(input, "is a match of a kind that 1.3 doesn't use");
        }
        let mut masked = false;
        let (_, fields) = all(fields, |field| {
            masked |= Oxm::begins_masked(field);
            Oxm::parse(field)
        })?;
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
