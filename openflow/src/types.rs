//! Identifiers that OpenFlow messages carry, each a type of its own.

use std::fmt;
use std::str::FromStr;

/// A number that an OpenFlow message carries, kept apart from all others by its type.
macro_rules! id {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        pub struct $name(pub $inner);
    };
}

id! {
    /// Flow table number (§5.1).
    TableId(u8)
}
id! {
    /// Transaction identifier: a reply bears that of its request (§7.1).
    Xid(u32)
}

// These are written in forms of their own, in JSON too.
macro_rules! text_id {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);
    };
}
text_id! {
    /// Datapath identifier: names a bridge for ever (OpenFlow 1.3.5 §7.3.1). Written as 16 hex digits.
    DatapathId(u64)
}
text_id! {
    /// Port number, 32 bits (§7.2.1). Values above [`PortNo::MAX`] are reserved.
    PortNo(u32)
}
text_id! {
    /// Group identifier, 32 bits (§7.3.4.3).
    GroupId(u32)
}
text_id! {
    /// Meter identifier, 32 bits, 1 and up (§7.3.4.4).
    MeterId(u32)
}
text_id! {
    /// Queue of a port (§7.2.2). [`QueueId::ALL`]: each.
    QueueId(u32)
}
text_id! {
    /// A packet that the bridge keeps for the controller (§7.3.4.2). [`BufferId::NONE`]: it keeps none.
    BufferId(u32)
}
text_id! {
    /// Opaque mark that the controller gives a flow entry (§7.3.4.2).
    Cookie(u64)
}

impl PortNo {
    /// Highest number of a physical or logical port (`OFPP_MAX`).
    pub const MAX: Self = Self(0xffff_ff00);
    /// Back out of the port a packet came in by (`OFPP_IN_PORT`); plain output to it is dropped.
    pub const IN_PORT: Self = Self(0xffff_fff8);
    /// Through the flow tables (`OFPP_TABLE`); in a packet-out only.
    pub const TABLE: Self = Self(0xffff_fff9);
    /// As the bridge would without OpenFlow (`OFPP_NORMAL`).
    pub const NORMAL: Self = Self(0xffff_fffa);
    /// Out of all ports but the one it came in by, as the bridge would without OpenFlow (`OFPP_FLOOD`).
    pub const FLOOD: Self = Self(0xffff_fffb);
    /// Out of all ports but the one it came in by (`OFPP_ALL`).
    pub const ALL: Self = Self(0xffff_fffc);
    /// To the controller as a packet-in (`OFPP_CONTROLLER`).
    pub const CONTROLLER: Self = Self(0xffff_fffd);
    /// The bridge's own network interface (`OFPP_LOCAL`).
    pub const LOCAL: Self = Self(0xffff_fffe);
    /// No port, or every port where a message filters by it (`OFPP_ANY`).
    pub const ANY: Self = Self(0xffff_ffff);

    /// The port that OpenFlow 1.0, and actions of Open vSwitch, know by these 16 bits. Reserved numbers are the low halves of
    /// today's.
    pub const fn of_16_bits(number: u16) -> Self {
        Self(if number >= 0xff00 { 0xffff_0000 | number as u32 } else { number as u32 })
    }

    /// Its number there; `None`: there is none. Open vSwitch gives no port such a number.
    pub const fn in_16_bits(self) -> Option<u16> {
        let number = self.0 as u16;
        if Self::of_16_bits(number).0 == self.0 { Some(number) } else { None }
    }
}

impl GroupId {
    /// Highest number of a group (`OFPG_MAX`).
    pub const MAX: Self = Self(0xffff_ff00);
    /// Every group, in a delete or a statistics request (`OFPG_ALL`).
    pub const ALL: Self = Self(0xffff_fffc);
    /// No group: no filter by group (`OFPG_ANY`).
    pub const ANY: Self = Self(0xffff_ffff);
}

impl QueueId {
    /// Every queue, in a statistics request (`OFPQ_ALL`).
    pub const ALL: Self = Self(0xffff_ffff);
}

impl BufferId {
    /// No packet is kept (`OFP_NO_BUFFER`).
    pub const NONE: Self = Self(0xffff_ffff);
}

impl MeterId {
    /// Highest number of a meter (`OFPM_MAX`).
    pub const MAX: Self = Self(0xffff_0000);
    /// Meters what the bridge handles slowly (`OFPM_SLOWPATH`).
    pub const SLOWPATH: Self = Self(0xffff_fffd);
    /// Meters packet-ins (`OFPM_CONTROLLER`).
    pub const CONTROLLER: Self = Self(0xffff_fffe);
    /// Every meter, in a delete or a statistics request (`OFPM_ALL`).
    pub const ALL: Self = Self(0xffff_ffff);
}

impl TableId {
    /// Every table, in a delete or a statistics request (`OFPTT_ALL`).
    pub const ALL: Self = Self(0xff);
}

impl fmt::Display for DatapathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Reserved numbers are written by name, others as numbers.
macro_rules! reserved {
    ($($id:ident { $($name:ident),+ })+) => { $(
        impl $id {
            /// Its name, if the number is a reserved one.
            pub const fn name(self) -> Option<&'static str> {
                match self { $(Self::$name => Some(stringify!($name)),)+ Self(_) => None }
            }
        }
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => self.0.fmt(f),
                }
            }
        }
        #[cfg(feature = "serde")]
        impl serde::Serialize for $id {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self.name() {
                    Some(name) => serializer.serialize_str(name),
                    None => serializer.serialize_u32(self.0),
                }
            }
        }
    )+ };
}
reserved! {
    PortNo { IN_PORT, TABLE, NORMAL, FLOOD, ALL, CONTROLLER, LOCAL, ANY }
    GroupId { ALL, ANY }
    MeterId { SLOWPATH, CONTROLLER, ALL }
    QueueId { ALL }
    BufferId { NONE }
}

/// Why a text isn't an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a datapath identifier.
    #[error("a datapath id is 1 to 16 hex digits, with or without 0x or colons")]
    DatapathId,
    /// Not a MAC address.
    #[error("a MAC address is six pairs of hex digits, like 02:00:32:00:00:01")]
    MacAddr,
}

/// Accepts `1`, `0x1`, `0000000000000001` and `00:00:00:00:00:00:00:01`.
impl FromStr for DatapathId {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let digits = text.strip_prefix("0x").unwrap_or(text).replace(':', "");
        if digits.is_empty() || digits.len() > 16 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ParseError::DatapathId);
        }
        u64::from_str_radix(&digits, 16).map(Self).map_err(|_| ParseError::DatapathId)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Is this a group address: broadcast or multicast (IEEE 802-2014 §8.2)?
    pub const fn is_group(&self) -> bool {
        self.0[0] & 1 == 1
    }

    /// May this stand as the source of a frame: neither a group address nor all zeros?
    pub fn is_station(&self) -> bool {
        !self.is_group() && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().ok_or(ParseError::MacAddr)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(ParseError::MacAddr);
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| ParseError::MacAddr)?;
        }
        if parts.next().is_some() { Err(ParseError::MacAddr) } else { Ok(Self(octets)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datapath_ids_are_read_in_every_usual_form_and_printed_in_one() {
        for text in ["1f", "0x1f", "000000000000001f", "00:00:00:00:00:00:00:1f", "0x000000000000001F"] {
            assert_eq!(text.parse::<DatapathId>().unwrap().to_string(), "000000000000001f", "{text}");
        }
        for text in ["", "0x", "g", "12345678901234567", "+1", "-1", " 1"] {
            assert_eq!(text.parse::<DatapathId>(), Err(ParseError::DatapathId), "{text}");
        }
    }

    #[test]
    fn mac_addresses_are_six_pairs_of_hex_digits() {
        let mac: MacAddr = "02:00:32:AB:00:01".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:32:ab:00:01");
        for text in
            ["", "02:00:32:00:00", "02:00:32:00:00:01:02", "2:0:32:0:0:1", "02:00:32:00:00:zz", "+2:00:32:00:00:01"]
        {
            assert_eq!(text.parse::<MacAddr>(), Err(ParseError::MacAddr), "{text}");
        }
    }
}
