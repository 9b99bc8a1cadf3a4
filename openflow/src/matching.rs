//! Flow matches (OpenFlow 1.3.5 §7.2.3).

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::oxm::Oxm;
use crate::types::PortNo;
use crate::wire::{LengthGuard, Parsed, Wire, all, element, pad, pad_to_8, refuse};

/// The fields that a packet must have, in a canonical order and form, so that equal matches compare equal however they
/// were written. No field: every packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Match(Vec<Oxm>);

/// `OFPMT_OXM`.
const OXM: u16 = 1;

impl Match {
    /// The match on these fields. A field that is given twice counts the first time only.
    pub fn new(fields: impl IntoIterator<Item = Oxm>) -> Self {
        let mut fields: Vec<Oxm> = fields.into_iter().filter_map(Oxm::canonical).collect();
        fields.sort_by_key(Oxm::field);
        fields.dedup_by_key(|oxm| oxm.field());
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

impl Wire for Match {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (rest, (kind, fields)) = element(input, 4)?;
        if kind != OXM {
            return refuse(input, "is a match of a kind that 1.3 doesn't use");
        }
        let (_, fields) = all(fields, Oxm::parse)?;
        let length = input.len() - rest.len();
        let (rest, ()) = pad(rest, length.next_multiple_of(8) - length)?;
        Ok((rest, Self::new(fields)))
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
