//! Probes: the frames that find links and tell whether they, and service functions, still let anything through. Each has
//! the TLVs of LLDP (IEEE 802.1AB) with one of our own that says which port it left, with a number used once, under an HMAC
//! (RFC 2104).

use apps::fabric::{HEALTH_DESTINATION, PROBE_DESTINATION, PROBES};
use apps::links;
use apps::view::Endpoint;
use bytes::{BufMut, Bytes, BytesMut};
use hmac::{Hmac, KeyInit, Mac};
use openflow::types::{DatapathId, MacAddr, PortNo};
use sha2::Sha256;

/// Our organizationally specific TLV: a locally administered identifier and a subtype (IEEE 802.1AB §9.6).
const OURS: [u8; 4] = [0x02, 0xe5, 0xa1, 1];
const CHASSIS: u16 = 1;
const PORT: u16 = 2;
const TTL: u16 = 3;
const SPECIFIC: u16 = 127;
/// `subtype` of chassis and port ids that mean something to us only.
const LOCALLY_ASSIGNED: u8 = 7;
const TAG: usize = 16;

/// What a probe says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// The port that it left by.
    pub(crate) from: Endpoint,
    /// Which of all probes it is.
    pub(crate) number: u64,
    /// If it is there to measure what a link carries: the octets behind its header, or [`SHORT`]; else 0.
    pub(crate) size: u16,
}

/// `size` of the short packet beside a long one.
pub(crate) const SHORT: u16 = 1;

/// The octets of a frame's header, with one of our marks if there is one.
pub(crate) fn header(frame: &[u8]) -> usize {
    if frame.get(12..14) == Some(TAG_TYPE.as_slice()) { 18 } else { 14 }
}

const TAG_TYPE: [u8; 2] = links::TAG.to_be_bytes();

fn tag(key: &[u8; 32], probe: &Probe) -> Option<Hmac<Sha256>> {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    hmac.update(&probe.from.bridge.0.to_be_bytes());
    hmac.update(&probe.from.port.0.to_be_bytes());
    hmac.update(&probe.number.to_be_bytes());
    hmac.update(&probe.size.to_be_bytes());
    Some(hmac)
}

impl Probe {
    /// The frame that finds links, as sent by a port with this address.
    pub(crate) fn encode(&self, key: &[u8; 32], source: MacAddr) -> Bytes {
        self.frame(key, source, PROBE_DESTINATION, None)
    }

    /// The frame that measures what a link carries, with this VLAN id in a tag, and padded to its size behind that.
    pub(crate) fn encode_long(&self, key: &[u8; 32], source: MacAddr, vlan: Option<u16>) -> Bytes {
        self.frame(key, source, PROBE_DESTINATION, vlan)
    }

    /// The frame that service functions have to let through.
    pub(crate) fn encode_for_function(&self, key: &[u8; 32], source: MacAddr) -> Bytes {
        self.frame(key, source, HEALTH_DESTINATION, None)
    }

    fn frame(&self, key: &[u8; 32], source: MacAddr, destination: MacAddr, vlan: Option<u16>) -> Bytes {
        let mut out = BytesMut::with_capacity(usize::from(self.size).max(96) + 18);
        out.put_slice(&destination.0);
        out.put_slice(&source.0);
        if let Some(vlan) = vlan {
            out.put_slice(&TAG_TYPE);
            out.put_u16(vlan);
        }
        out.put_u16(PROBES);
        let mut tlv = |kind: u16, parts: &[&[u8]]| {
            let length: usize = parts.iter().map(|part| part.len()).sum();
            out.put_u16(kind << 9 | length as u16);
            parts.iter().for_each(|part| out.put_slice(part));
        };
        let (bridge, port) = (self.from.bridge.to_string(), self.from.port.0.to_string());
        tlv(CHASSIS, &[&[LOCALLY_ASSIGNED], bridge.as_bytes()]);
        tlv(PORT, &[&[LOCALLY_ASSIGNED], port.as_bytes()]);
        tlv(TTL, &[&1u16.to_be_bytes()]);
        let code = tag(key, self).map(|hmac| hmac.finalize().into_bytes()).unwrap_or_default();
        let from = (self.from.bridge.0.to_be_bytes(), self.from.port.0.to_be_bytes());
        tlv(SPECIFIC, &[&OURS, &from.0, &from.1, &self.number.to_be_bytes(), &self.size.to_be_bytes(), &code[..TAG]]);
        tlv(0, &[]);
        let whole = header(&out) + usize::from(self.size);
        if out.len() < whole {
            out.resize(whole, 0);
        }
        out.freeze()
    }

    /// Reads a frame; `None`: it isn't a probe that was made with this key.
    pub(crate) fn decode(key: &[u8; 32], frame: &[u8]) -> Option<Self> {
        let mut left = frame.get(header(frame)..)?;
        loop {
            let head = u16::from_be_bytes(left.get(..2)?.try_into().ok()?);
            let (kind, length) = (head >> 9, usize::from(head & 0x1ff));
            let value = left.get(2..2 + length)?;
            left = &left[2 + length..];
            match kind {
                0 => return None,
                SPECIFIC if value.starts_with(&OURS) => {
                    let value = &value[OURS.len()..];
                    let (bridge, value) = value.split_first_chunk::<8>()?;
                    let (port, value) = value.split_first_chunk::<4>()?;
                    let (number, value) = value.split_first_chunk::<8>()?;
                    let (size, code) = value.split_first_chunk::<2>()?;
                    let from = Endpoint {
                        bridge: DatapathId(u64::from_be_bytes(*bridge)),
                        port: PortNo(u32::from_be_bytes(*port)),
                    };
                    let (number, size) = (u64::from_be_bytes(*number), u16::from_be_bytes(*size));
                    let probe = Self { from, number, size };
                    // Compares in constant time.
                    let genuine = code.len() == TAG && tag(key, &probe)?.verify_truncated_left(code).is_ok();
                    return genuine.then_some(probe);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn probe() -> Probe {
        Probe { from: Endpoint { bridge: DatapathId(0xab), port: PortNo(3) }, number: 99, size: 0 }
    }

    #[test]
    fn a_probe_comes_back_as_it_was_made_and_not_with_another_key() {
        let frame = probe().encode(&KEY, MacAddr([2, 0, 0, 0, 0, 1]));
        assert_eq!(Probe::decode(&KEY, &frame), Some(probe()));
        assert_eq!(Probe::decode(&[8; 32], &frame), None);
    }

    #[test]
    fn a_long_one_has_its_size_behind_its_header() {
        for (vlan, header) in [(None, 14), (Some(4094), 18)] {
            for size in [128, 1500, 9000] {
                let long = Probe { size, ..probe() };
                let frame = long.encode_long(&KEY, MacAddr([2, 0, 0, 0, 0, 1]), vlan);
                assert_eq!((frame.len(), super::header(&frame)), (header + usize::from(size), header));
                assert_eq!(Probe::decode(&KEY, &frame), Some(long));
            }
        }
    }

    #[test]
    fn no_change_of_a_bit_and_no_cut_passes_for_another_probe() {
        let frame = probe().encode(&KEY, MacAddr([2, 0, 0, 0, 0, 1]));
        for bit in 14 * 8..frame.len() * 8 {
            let mut changed = frame.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            let read = Probe::decode(&KEY, &changed);
            assert!(read.is_none() || read == Some(probe()), "bit {bit}");
        }
        for end in 0..frame.len() - 2 {
            assert_eq!(Probe::decode(&KEY, &frame[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn lldp_that_lies_about_its_lengths_is_no_probe() {
        let genuine = probe().encode(&KEY, MacAddr([2, 0, 0, 0, 0, 1]));
        let (head, rest) = genuine.split_at(14);
        for (what, tlvs) in [
            ("nothing", vec![]),
            ("an end at once", vec![0, 0]),
            ("one beyond the frame", vec![0xff, 0xff, 1]),
            ("half a head", vec![2]),
            ("empty ones without end", [2, 0].repeat(30_000)),
            ("one that is ours, empty", vec![0xfe, 4, OURS[0], OURS[1], OURS[2], OURS[3]]),
        ] {
            assert_eq!(Probe::decode(&KEY, &[head, &tlvs].concat()), None, "{what}");
        }
        assert_eq!(Probe::decode(&KEY, &[head, &[2, 0].repeat(9), rest].concat()), Some(probe()), "others before it");
    }
}
