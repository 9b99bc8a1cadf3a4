//! Frames that tests send: small, and each with a marker that tells it from all others wherever it turns up.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// The address of everybody.
pub const BROADCAST: Mac = Mac([0xff; 6]);

impl Mac {
    /// The address of the container with a number; tenants use the same ones on purpose.
    pub fn numbered(number: u8) -> Self {
        Self([2, 0, 0, 0, 0, number])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<_> = text.split(':').map(|part| u8::from_str_radix(part, 16)).collect();
        let mut mac = [0; 6];
        if parts.len() != 6 {
            bail!("`{text}` is no MAC address");
        }
        for (byte, part) in mac.iter_mut().zip(parts) {
            let Ok(part) = part else { bail!("`{text}` is no MAC address") };
            *byte = part;
        }
        Ok(Self(mac))
    }
}

/// What a test frame carries in its payload; no two frames of a process carry the same one unless told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Marker(pub u64);

const MAGIC: [u8; 8] = *b"espalier";
/// How deep a marker is looked for: past any headers a test frame may have got on its way.
const SEARCH_DEPTH: usize = 256;

impl Marker {
    /// A fresh one.
    pub fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(u64::from(std::process::id()) << 32 | NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The bytes that carry it, for payloads of any kind.
    pub fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..].copy_from_slice(&self.0.to_be_bytes());
        bytes
    }

    /// The marker in a frame, wherever it stands.
    pub fn find(frame: &[u8]) -> Option<Self> {
        let depth = &frame[..frame.len().min(SEARCH_DEPTH)];
        let at = depth.windows(MAGIC.len()).position(|window| window == MAGIC)?;
        let number = frame.get(at + 8..at + 16)?;
        Some(Self(u64::from_be_bytes(number.try_into().ok()?)))
    }
}

/// An Ethernet frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The bytes from the destination address on, without checksum.
    pub bytes: Vec<u8>,
    /// What it carries.
    pub marker: Marker,
}

/// Ethertype for local experiments (IEEE 802).
const EXPERIMENTAL: u16 = 0x88b5;

impl Frame {
    /// A frame of the shortest length with a fresh marker.
    pub fn new(source: Mac, destination: Mac) -> Self {
        Self::build(source, destination, &[], EXPERIMENTAL)
    }

    /// A frame to everybody.
    pub fn broadcast(source: Mac) -> Self {
        Self::new(source, BROADCAST)
    }

    /// A frame to a multicast group nobody joined.
    pub fn multicast(source: Mac) -> Self {
        Self::new(source, Mac([0x01, 0x00, 0x5e, 0x01, 0x02, 0x03]))
    }

    /// A frame to an address nobody has.
    pub fn unknown_unicast(source: Mac) -> Self {
        Self::new(source, Mac([2, 0, 0, 0xff, 0xff, 0xff]))
    }

    /// A frame with one or more VLAN tags, outermost first: (0x8100 or 0x88a8, tag control information).
    pub fn tagged(source: Mac, destination: Mac, tags: &[(u16, u16)]) -> Self {
        Self::build(source, destination, tags, EXPERIMENTAL)
    }

    /// A frame to the address and with the ethertype of LLDP, which bridges must not forward. Its content isn't LLDP.
    pub fn lldp(source: Mac) -> Self {
        Self::build(source, Mac([0x01, 0x80, 0xc2, 0, 0, 0x0e]), &[], 0x88cc)
    }

    /// A frame that looks like a probe of links, with no probe in it.
    pub fn probe(source: Mac) -> Self {
        Self::new(source, Mac([0x03, 0xe5, 0xa1, 0, 0, 2]))
    }

    fn build(source: Mac, destination: Mac, tags: &[(u16, u16)], ethertype: u16) -> Self {
        let marker = Marker::fresh();
        let mut bytes = Vec::with_capacity(64);
        bytes.extend(destination.0);
        bytes.extend(source.0);
        for (protocol, control) in tags {
            bytes.extend(protocol.to_be_bytes());
            bytes.extend(control.to_be_bytes());
        }
        bytes.extend(ethertype.to_be_bytes());
        bytes.extend(marker.bytes());
        bytes.resize(bytes.len().max(60), 0);
        Self { bytes, marker }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_found_behind_tags() {
        let frame = Frame::tagged(Mac::numbered(1), BROADCAST, &[(0x88a8, 5), (0x8100, 7)]);
        assert_eq!(Marker::find(&frame.bytes), Some(frame.marker));
        assert_eq!(frame.bytes.len(), 60);
        assert_eq!(Marker::find(b"espalier"), None);
    }

    #[test]
    fn addresses_read_as_written() {
        assert_eq!("02:00:00:00:00:0a".parse::<Mac>().ok(), Some(Mac::numbered(10)));
        assert!("02:00:00:00:00".parse::<Mac>().is_err());
    }
}
