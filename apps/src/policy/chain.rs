//! Service functions, chains and access rules of a validated policy, and the classifiers that both are told by (terms of
//! RFC 7665).

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use openflow::types::MacAddr;

use super::icmp::IcmpType;
use super::model::{Origin, RateLimit};
use super::space::Space;
use crate::assigned::ethertype;

/// What becomes of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// They go on.
    #[default]
    Allow,
    /// They end.
    Drop,
}

/// What a rule does with frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleAction {
    /// They go on.
    Allow,
    /// They go on if they belong to a connection whose first packet was let through to their sender; if not, the next rule
    /// is asked.
    AllowEstablished,
    /// They end.
    Drop,
}

/// `[[tenant.function]]`: a service function, with what it runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name, unique in the tenant.
    pub name: String,
    /// How frames go through it.
    pub kind: FunctionKind,
    /// What becomes of frames while no instance of it works.
    pub on_failure: OnFailure,
    /// What goes to the same one of several instances.
    pub share_by: ShareBy,
    /// Where it runs; one at least.
    pub instances: Vec<Instance>,
    /// Where it was declared.
    pub origin: Origin,
}

/// How frames go through a service function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FunctionKind {
    /// In by one port, out of another, as they are.
    Wire,
    /// In and out by the same port, as they are.
    Hairpin,
    /// Sent to the function's own MAC address, which routes them on.
    Routed,
    /// It gets copies; nothing comes back.
    Tap,
}

/// What becomes of frames while no instance of a function works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnFailure {
    /// They end.
    #[default]
    Drop,
    /// They go on to the next function.
    Bypass,
}

/// What goes to the same one of a function's instances, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ShareBy {
    /// Each connection by itself; fragments, which don't show their ports, by addresses.
    #[default]
    Connections,
    /// All between two addresses.
    Addresses,
}

/// One instance of a service function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name, unique in the function.
    pub name: String,
    /// Its bridge: a name, or a datapath id in 16 hex digits.
    pub bridge: String,
    /// The bridge's port that frames go in by.
    pub ingress: String,
    /// The bridge's port that they come out of; the same as `ingress` where there is one port only.
    pub egress: String,
    /// The MAC address that frames are sent to; there for [`FunctionKind::Routed`] only.
    pub mac: Option<MacAddr>,
    /// Its share of the traffic beside the others, from 1.
    pub weight: u16,
    /// New connections go to the others; those that it has stay.
    pub drain: bool,
    /// Where it was declared.
    pub origin: Origin,
}

/// `[[tenant.chain]]`: which traffic passes which functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name, unique in the tenant.
    pub name: String,
    /// Higher comes first.
    pub priority: u16,
    /// Names of its functions, in order; 1 to [`Chain::FUNCTIONS_MAX`], none twice.
    pub through: Vec<String>,
    /// Do replies pass the same functions in reverse?
    pub symmetric: bool,
    /// Are frames to group addresses chained, too?
    pub broadcast: bool,
    /// Any of these makes a frame the chain's.
    pub classifiers: Vec<Classifier>,
    /// How much may enter the chain at each bridge.
    pub rate_limit: Option<RateLimit>,
    /// Where it was declared.
    pub origin: Origin,
}

impl Chain {
    /// Most functions of one chain.
    pub const FUNCTIONS_MAX: usize = 8;
}

/// `[[tenant.rule]]`: what may enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, unique in the tenant.
    pub name: String,
    /// Higher comes first.
    pub priority: u16,
    /// Any of these makes a frame the rule's.
    pub classifiers: Vec<Classifier>,
    /// What becomes of it then.
    pub action: RuleAction,
    /// Where it was declared.
    pub origin: Origin,
}

/// Which frames. What isn't said is any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classifier {
    /// The protocol.
    pub protocol: Protocol,
    /// VLAN id of the outermost tag that the sender put on.
    pub vlan: Option<u16>,
    /// The sender is any of these; empty: whoever it is.
    pub source: Vec<Address>,
    /// The receiver is any of these; empty: whoever it is.
    pub destination: Vec<Address>,
    /// The transport protocol's source port is in any of these; empty: whichever it is.
    pub source_port: Vec<RangeInclusive<u16>>,
    /// The transport protocol's destination port is in any of these; empty: whichever it is.
    pub destination_port: Vec<RangeInclusive<u16>>,
    /// The ICMP message is of any of these types; empty: of whichever.
    pub icmp_type: Vec<IcmpType>,
    /// The ICMP message's code, if any is asked for.
    pub icmp_code: Option<u8>,
    /// Where it was declared.
    pub origin: Origin,
}

impl Classifier {
    /// Most flow entries that one of them may become.
    pub const ENTRIES_MAX: usize = 1_000;

    /// How many flow entries it becomes: one for each pair of a sender and a receiver that can meet, each mask of either
    /// side's ports, and each version of IP if the protocol is one over IP and no address says which.
    pub fn entries(&self) -> usize {
        let (from, to) = (kinds(&self.source), kinds(&self.destination));
        // Pairs in IPv4, in IPv6, and those of no address or MAC addresses only, which are in any.
        let [of_any, of_v4, of_v6] = {
            let any = from[0].saturating_mul(to[0]);
            let of = |kind: usize| {
                let with = |one: [usize; 3], other: [usize; 3]| one[kind].saturating_mul(other[0]);
                from[kind].saturating_mul(to[kind]).saturating_add(with(from, to)).saturating_add(with(to, from))
            };
            [any, of(1), of(2)]
        };
        let pairs = match self.protocol {
            Protocol::Any => of_any.saturating_add(of_v4).saturating_add(of_v6),
            Protocol::Ip(_) => of_any.saturating_mul(2).saturating_add(of_v4).saturating_add(of_v6),
            Protocol::Icmp => {
                let [v4, v6] = [true, false].map(|v4| self.icmp_types(v4).map_or(0, |types| types.len().max(1)));
                let of = |pairs: usize, types: usize| of_any.saturating_add(pairs).saturating_mul(types);
                of(of_v4, v4).saturating_add(of(of_v6, v6))
            }
            Protocol::Ethertype(ethertype::IPV4) => of_any.saturating_add(of_v4),
            Protocol::Ethertype(ethertype::IPV6) => of_any.saturating_add(of_v6),
            Protocol::Ethertype(_) => of_any,
        };
        let masks = |ranges: &[RangeInclusive<u16>]| match ranges {
            [] => 1,
            ranges => ranges.iter().map(|range| port_masks(range).len()).sum(),
        };
        pairs.saturating_mul(masks(&self.source_port)).saturating_mul(masks(&self.destination_port))
    }

    /// The types of ICMP messages in IPv4, or in IPv6, that it asks for, by their numbers; empty: all. `None`: there is none.
    pub fn icmp_types(&self, v4: bool) -> Option<BTreeSet<u8>> {
        let number = |it: &IcmpType| if v4 { it.v4 } else { it.v6 };
        let numbers: BTreeSet<u8> = self.icmp_type.iter().filter_map(number).collect();
        (self.icmp_type.is_empty() || !numbers.is_empty()).then_some(numbers)
    }

    /// What answers to its frames look like: sender and receiver have changed places.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            protocol: self.protocol,
            vlan: self.vlan,
            source: self.destination.clone(),
            destination: self.source.clone(),
            source_port: self.destination_port.clone(),
            destination_port: self.source_port.clone(),
            icmp_type: self.icmp_type.iter().map(|it| it.reversed()).collect(),
            icmp_code: self.icmp_code,
            origin: self.origin.clone(),
        }
    }

    /// Is there a frame that is in both? A MAC address and an IP address may be those of one station.
    pub fn overlaps(&self, other: &Self) -> bool {
        Space::of(self).overlaps(&Space::of(other))
    }

    /// Is every frame of the other one in this?
    pub fn covers(&self, other: &Self) -> bool {
        Space::of(self).covers(&Space::of(other))
    }

    /// Does it look at what is behind VLAN tags?
    pub fn asks_behind_tags(&self) -> bool {
        let of_ip = |address: &Address| matches!(address, Address::Ip(_));
        self.protocol != Protocol::Any || self.source.iter().chain(&self.destination).any(of_ip)
    }

    /// Does it look at the IP protocol?
    pub fn asks_protocol(&self) -> bool {
        matches!(self.protocol, Protocol::Ip(_) | Protocol::Icmp)
    }

    /// Does it look at a MAC address?
    pub fn has_mac(&self) -> bool {
        self.source.iter().chain(&self.destination).any(|address| matches!(address, Address::Mac(_)))
    }
}

/// How many of the addresses go with any version of IP, how many are IPv4, how many IPv6. No address is any address.
fn kinds(addresses: &[Address]) -> [usize; 3] {
    let mut counts = [usize::from(addresses.is_empty()), 0, 0];
    for address in addresses {
        counts[match address {
            Address::Mac(_) => 0,
            Address::Ip(prefix) if prefix.address.is_ipv4() => 1,
            Address::Ip(_) => 2,
        }] += 1;
    }
    counts
}

/// The fewest values with masks that match exactly the ports of the range; a mask's zero bits come last. At most 30.
pub fn port_masks(range: &RangeInclusive<u16>) -> Vec<(u16, u16)> {
    let (mut start, end) = (u32::from(*range.start()), u32::from(*range.end()));
    let mut masks = Vec::new();
    while start <= end {
        // The largest aligned block that begins here and doesn't end behind the range.
        let aligned = if start == 0 { 1 << 16 } else { start & start.wrapping_neg() };
        let size = aligned.min(1 << (end - start + 1).ilog2());
        masks.push((start as u16, !(size - 1) as u16));
        start += size;
    }
    masks
}

/// A protocol by which frames are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Whatever it is; IPv4 or IPv6 where an address is an IP address.
    Any,
    /// By Ethernet type.
    Ethertype(u16),
    /// By protocol number, in IPv4 and IPv6.
    Ip(u8),
    /// ICMP in IPv4, ICMPv6 in IPv6.
    Icmp,
}

impl Protocol {
    /// Transmission Control Protocol.
    pub const TCP: Self = Self::Ip(6);
    /// User Datagram Protocol.
    pub const UDP: Self = Self::Ip(17);
    /// Stream Control Transmission Protocol.
    pub const SCTP: Self = Self::Ip(132);
    /// Address Resolution Protocol.
    pub const ARP: Self = Self::Ethertype(ethertype::ARP);
}

/// An address in a classifier. Names of ports have been replaced by what the policy pins to the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An Ethernet address.
    Mac(MacAddr),
    /// IP addresses that begin alike.
    Ip(Prefix),
}

/// IP addresses whose first bits are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The first address; bits behind `length` are 0.
    pub address: IpAddr,
    /// How many bits are the same: up to 32, or 128.
    pub length: u8,
}

impl Address {
    /// Does it stand for several stations at once: only group addresses, or the broadcast address?
    pub(super) fn is_group(&self) -> bool {
        match self {
            Self::Mac(mac) => mac.is_group(),
            Self::Ip(Prefix { address: IpAddr::V4(address), length }) => {
                (address.is_multicast() && *length >= 4) || (address.is_broadcast() && *length == 32)
            }
            Self::Ip(Prefix { address: IpAddr::V6(address), length }) => address.is_multicast() && *length >= 8,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => mac.fmt(f),
            Self::Ip(prefix) => prefix.fmt(f),
        }
    }
}

impl Prefix {
    /// How many bits an address of this version of IP has.
    pub(super) fn bits(address: &IpAddr) -> u8 {
        if address.is_ipv4() { 32 } else { 128 }
    }

    /// The prefix of this length that the address lies in; `length` is at most what the address has.
    pub(super) fn around(address: IpAddr, length: u8) -> Self {
        let masked = |number: u128, bits: u8| {
            let behind = u32::from(bits - length.min(bits));
            number.checked_shr(behind).and_then(|number| number.checked_shl(behind)).unwrap_or(0)
        };
        let address = match address {
            IpAddr::V4(address) => IpAddr::V4((masked(address.to_bits().into(), 32) as u32).into()),
            IpAddr::V6(address) => IpAddr::V6(masked(address.to_bits(), 128).into()),
        };
        Self { address, length }
    }

    /// Its first and last address as numbers.
    pub(super) fn range(&self) -> RangeInclusive<u128> {
        let first = match self.address {
            IpAddr::V4(address) => address.to_bits().into(),
            IpAddr::V6(address) => address.to_bits(),
        };
        let behind = u32::from(Self::bits(&self.address) - self.length);
        first..=first | 1_u128.checked_shl(behind).map_or(u128::MAX, |size| size - 1)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn classifier() -> Classifier {
        Classifier {
            protocol: Protocol::Any,
            vlan: None,
            source: Vec::new(),
            destination: Vec::new(),
            source_port: Vec::new(),
            destination_port: Vec::new(),
            icmp_type: Vec::new(),
            icmp_code: None,
            origin: Origin { file: "".into(), line: 1 },
        }
    }

    fn ip(text: &str) -> Address {
        let address: IpAddr = text.parse().unwrap();
        Address::Ip(Prefix { address, length: Prefix::bits(&address) })
    }

    #[test]
    fn ranges_of_ports_become_few_masks() {
        assert_eq!(port_masks(&(80..=80)), [(80, 0xffff)]);
        assert_eq!(port_masks(&(0..=65_535)), [(0, 0)]);
        assert_eq!(port_masks(&(8_000..=8_010)), [(8_000, 0xfff8), (8_008, 0xfffe), (8_010, 0xffff)]);
        assert_eq!(port_masks(&(1..=65_534)).len(), 30);
        assert_eq!(port_masks(&(65_535..=65_535)), [(65_535, 0xffff)]);
        let nothing = RangeInclusive::new(2, 1);
        assert_eq!(port_masks(&nothing), []);
    }

    proptest! {
        #[test]
        fn masks_match_the_range_once_and_nothing_else(one: u16, other: u16) {
            let range = one.min(other)..=one.max(other);
            let masks = port_masks(&range);
            prop_assert!(masks.len() <= 30);
            for (value, mask) in &masks {
                prop_assert_eq!(mask.leading_ones() + mask.trailing_zeros(), 16);
                prop_assert_eq!(value & mask, *value);
            }
            for port in 0..=u16::MAX {
                let matching = masks.iter().filter(|(value, mask)| port & mask == *value).count();
                prop_assert_eq!(matching, usize::from(range.contains(&port)), "{}", port);
            }
        }
    }

    #[test]
    fn entries_are_counted_as_they_are_made() {
        let mac = Address::Mac(MacAddr([2, 0, 0, 0, 0, 1]));
        let (v4, v6) = (ip("10.0.0.1"), ip("2001:db8::1"));
        let all = classifier();
        assert_eq!(all.entries(), 1);
        assert_eq!(Classifier { protocol: Protocol::TCP, ..all.clone() }.entries(), 2, "IPv4 and IPv6");
        let tcp = Classifier { protocol: Protocol::TCP, source: vec![mac, v4], ..all.clone() };
        assert_eq!(tcp.entries(), 3);
        // Meet: the MAC address all three (with itself in both versions of IP), the others their like and the MAC address.
        let both = Classifier { destination: vec![mac, v4, v6], ..tcp.clone() };
        assert_eq!(both.entries(), 2 + 1 + 1 + 1 + 1);
        assert_eq!(Classifier { protocol: Protocol::Any, ..both.clone() }.entries(), 5);
        assert_eq!(Classifier { protocol: Protocol::Ethertype(0x0800), ..both.clone() }.entries(), 1 + 1 + 1 + 1);
        assert_eq!(Classifier { protocol: Protocol::Ethertype(0x86dd), ..both.clone() }.entries(), 2);
        assert_eq!(Classifier { protocol: Protocol::ARP, ..both }.entries(), 1);
        let ports = Classifier { source_port: vec![1..=2, 80..=80], destination_port: vec![0..=2], ..tcp };
        assert_eq!(ports.entries(), 3 * 3 * 2);
        let (echo, too_big) = (IcmpType::NAMES[4].1, IcmpType::NAMES[2].1);
        let ping = Classifier { protocol: Protocol::Icmp, icmp_type: vec![echo], ..all.clone() };
        assert_eq!(ping.entries(), 2);
        assert_eq!(Classifier { icmp_type: vec![echo, too_big], ..ping.clone() }.entries(), 1 + 2);
        assert_eq!(Classifier { icmp_type: vec![too_big], source: vec![v4], ..ping.clone() }.entries(), 0);
        assert_eq!(Classifier { icmp_type: vec![too_big], source: vec![v4, mac], ..ping }.entries(), 1);
        assert_eq!(Classifier { source: vec![v4], destination: vec![v6], ..all }.entries(), 0);
    }

    #[test]
    fn prefixes_are_ranges() {
        let around = |text: &str, length| Prefix::around(text.parse().unwrap(), length);
        assert_eq!(around("10.1.2.3", 8).to_string(), "10.0.0.0/8");
        assert_eq!(around("10.1.2.3", 32).to_string(), "10.1.2.3/32");
        assert_eq!(around("255.1.2.3", 0).to_string(), "0.0.0.0/0");
        assert_eq!(around("2001:db8::1", 0).to_string(), "::/0");
        assert_eq!(around("2001:db8::1", 64).to_string(), "2001:db8::/64");
        assert_eq!(around("10.1.2.3", 30).range(), 0x0a01_0200..=0x0a01_0203);
        assert_eq!(around("1.2.3.4", 0).range(), 0..=0xffff_ffff);
        assert_eq!(around("::1", 0).range(), 0..=u128::MAX);
        assert_eq!(around("::1", 128).range(), 1..=1);
    }
}
