//! Service functions, chains and access rules of a validated policy, and the classifiers that both are told by (terms of
//! RFC 7665).

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use openflow::types::MacAddr;

use super::model::{Origin, RateLimit};

/// What becomes of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// They go on.
    #[default]
    Allow,
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
    pub action: Verdict,
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
    /// Where it was declared.
    pub origin: Origin,
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
    pub const ARP: Self = Self::Ethertype(0x0806);
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

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Classifier {
    /// What tells the replies.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination.clone(),
            destination: self.source.clone(),
            source_port: self.destination_port.clone(),
            destination_port: self.source_port.clone(),
            ..self.clone()
        }
    }
}

/// Values and masks that together match exactly the ports of a range, as few as can be.
pub fn port_masks(range: &RangeInclusive<u16>) -> Vec<(u16, u16)> {
    let (mut from, to) = (u32::from(*range.start()), u32::from(*range.end()));
    let mut masks = Vec::new();
    while from <= to {
        // The largest block that begins here and doesn't go beyond the end.
        let aligned = if from == 0 { 16 } else { from.trailing_zeros() };
        let fits = (to - from + 1).ilog2();
        let size = 1u32 << aligned.min(fits);
        masks.push((from as u16, !(size - 1) as u16));
        from += size;
    }
    masks
}
