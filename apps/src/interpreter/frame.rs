//! What entries can see of a frame, and what they keep beside it on its way through a bridge.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use openflow::action::{BitRange, HashFields, Multipath};
use openflow::narrow::{U12, U13};
use openflow::oxm::{FieldId, Maskable, Oxm};
use openflow::types::{MacAddr, PortNo};

use crate::assigned::icmpv6::{NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION};
use crate::assigned::{ethertype, protocol};
use crate::links::tagged;
use crate::view::Carrier;

/// What entries can see of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame {
    /// Destination.
    pub destination: MacAddr,
    /// Source.
    pub source: MacAddr,
    /// Ethernet type behind any tags.
    pub ethertype: u16,
    /// VLAN ids of its tags, the outermost first.
    pub tags: Vec<u16>,
    /// Key of the tunnel that it came through, or will go through.
    pub tunnel: Option<u64>,
    /// What it carries. Whoever builds a frame gives it the Ethernet type that goes with this. Of a fragment that isn't the first, that of
    /// its datagram.
    pub network: Network,
    /// Is it a fragment of an IP packet?
    pub fragment: Option<Fragment>,
}

/// Which part of its datagram a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fragment {
    /// The first, which has the headers of what is carried.
    First,
    /// Another one.
    Later,
}

/// What entries can see of what a frame carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    /// Nothing.
    #[default]
    Unknown,
    /// ARP for IPv4 (RFC 826).
    Arp {
        /// 1: request, 2: reply.
        op: u16,
        /// Sender's MAC address.
        sha: MacAddr,
        /// Sender's IPv4 address.
        spa: Ipv4Addr,
        /// Target's IPv4 address.
        tpa: Ipv4Addr,
    },
    /// IPv4.
    Ipv4 {
        /// Source.
        source: Ipv4Addr,
        /// Destination.
        destination: Ipv4Addr,
        /// IP protocol.
        protocol: u8,
        /// What it carries.
        transport: Transport,
    },
    /// IPv6.
    Ipv6 {
        /// Source.
        source: Ipv6Addr,
        /// Destination.
        destination: Ipv6Addr,
        /// The next header behind any extensions.
        protocol: u8,
        /// What it carries.
        transport: Transport,
    },
}

/// What entries can see of what an IP packet carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// Nothing.
    #[default]
    Unknown,
    /// TCP, UDP or SCTP.
    Ports {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// TCP's flags (RFC 9293 §3.1); 0 of others.
        flags: u16,
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
        /// Whom neighbour discovery asks for, or tells of (RFC 4861 §4.3, §4.4), as far as a bridge can read that.
        target: Option<Ipv6Addr>,
        /// The link-layer address in the source or target option that goes with it; `None`: it has no such option.
        link_layer: Option<MacAddr>,
    },
}

/// The flag of TCP segments that begin a connection, the answer to the first one included.
pub const SYN: u16 = 0x002;

impl Network {
    /// The Ethernet type of frames that carry this; `None`: nothing is known.
    pub const fn ethertype(&self) -> Option<u16> {
        match self {
            Self::Unknown => None,
            Self::Arp { .. } => Some(ethertype::ARP),
            Self::Ipv4 { .. } => Some(ethertype::IPV4),
            Self::Ipv6 { .. } => Some(ethertype::IPV6),
        }
    }

    /// Protocol and what it carries, of an IP packet.
    const fn ip(&self) -> Option<(u8, Transport)> {
        match self {
            Self::Ipv4 { protocol, transport, .. } | Self::Ipv6 { protocol, transport, .. } => {
                Some((*protocol, *transport))
            }
            _ => None,
        }
    }

    /// Source and destination of an IP packet.
    const fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        match self {
            Self::Ipv4 { source, destination, .. } => Some((IpAddr::V4(*source), IpAddr::V4(*destination))),
            Self::Ipv6 { source, destination, .. } => Some((IpAddr::V6(*source), IpAddr::V6(*destination))),
            _ => None,
        }
    }

    /// Source and destination port of a packet of this protocol.
    const fn ports(&self, wanted: u8) -> Option<(u16, u16)> {
        match self.ip() {
            Some((protocol, Transport::Ports { source, destination, .. })) if protocol == wanted => {
                Some((source, destination))
            }
            _ => None,
        }
    }

    /// Type and code of a packet of this protocol.
    const fn icmp(&self, wanted: u8) -> Option<(u8, u8)> {
        match self.ip() {
            Some((protocol, Transport::Icmp { kind, code, .. })) if protocol == wanted => Some((kind, code)),
            _ => None,
        }
    }

    /// Type, target and link-layer address of a message that looks for a neighbour or tells of one. Open vSwitch has zeros for what
    /// isn't there or can't be read.
    fn neighbour(&self) -> Option<(u8, Ipv6Addr, MacAddr)> {
        match self.ip() {
            Some((
                protocol::ICMPV6,
                Transport::Icmp {
                    kind: kind @ (NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT),
                    target,
                    link_layer,
                    ..
                },
            )) => Some((kind, target.unwrap_or(Ipv6Addr::UNSPECIFIED), link_layer.unwrap_or_default())),
            _ => None,
        }
    }
}

impl Frame {
    /// How it arrives at the other end of a link.
    #[must_use]
    pub fn carried(mut self, carrier: Carrier) -> Self {
        self.tunnel = match carrier {
            Carrier::Tunnel => self.tunnel.or(Some(0)),
            Carrier::Dedicated(key) => Some(key.into()),
            Carrier::Vlan => None,
        };
        self
    }

    /// A hash that is the same in both directions, of its addresses and, with `connection`, the protocol and the ports, as far as `network`
    /// tells them. Of fragments Open vSwitch takes no ports, not even of the first.
    fn symmetric_hash(&self, network: &Network, basis: u16, connection: bool) -> u64 {
        let number = network.ip().filter(|_| connection).map_or(0, |(number, _)| number);
        let ends = match (network.addresses(), network.ip()) {
            (Some((source, destination)), Some((_, transport))) => {
                let (from, to) = match transport {
                    Transport::Ports { source, destination, .. } if connection && self.fragment.is_none() => {
                        (source, destination)
                    }
                    _ => (0, 0),
                };
                let octets = |address, port: u16| {
                    let address = match address {
                        IpAddr::V4(address) => address.to_ipv6_mapped(),
                        IpAddr::V6(address) => address,
                    };
                    (address.octets(), port)
                };
                [octets(source, from), octets(destination, to)]
            }
            _ => [self.source, self.destination].map(|mac| {
                let mut octets = [0; 16];
                octets[..6].copy_from_slice(&mac.0);
                (octets, 0)
            }),
        };
        let (low, high) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
        // FNV-1a.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |octet: u8| hash = (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
        basis.to_be_bytes().into_iter().chain([number]).for_each(&mut add);
        for (address, port) in [low, high] {
            address.into_iter().chain(port.to_be_bytes()).for_each(&mut add);
        }
        // Its low bits alone are made of low bits; links are few.
        hash ^ hash >> 32
    }
}

/// A frame with what entries hand on from table to table.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) frame: Frame,
    /// The port that it came in by, or is said to have come in by.
    pub(super) in_port: PortNo,
    pub(super) metadata: u64,
    /// Had it two tags when it came in? Then nothing is known of what is behind the second one.
    pub(super) unread: bool,
    /// Registers 0 to 2.
    pub(super) registers: [u32; 3],
    /// What connection tracking said; 0: it wasn't asked.
    pub(super) ct_state: u32,
}

impl Packet {
    /// Has it what a match asks for? Fields that the pipeline doesn't use match nothing.
    pub(super) fn has(&self, field: &Oxm) -> bool {
        fn masked<T: Maskable>(actual: &T, wanted: &T, mask: Option<&T>) -> bool {
            mask.map_or(actual == wanted, |mask| actual.masked(mask) == wanted.masked(mask))
        }
        fn known<T: Maskable>(actual: Option<T>, wanted: &T, mask: Option<&T>) -> bool {
            actual.is_some_and(|actual| masked(&actual, wanted, mask))
        }
        let frame = &self.frame;
        let network = self.seen();
        let from = |protocol| network.ports(protocol).map(|(source, _)| source);
        let to = |protocol| network.ports(protocol).map(|(_, destination)| destination);
        let icmp = |protocol| network.icmp(protocol);
        let link_layer = |wanted| {
            let told = network.neighbour().filter(|(kind, ..)| *kind == wanted);
            told.map(|(.., link_layer)| link_layer)
        };
        match field {
            Oxm::InPort(port, _) => *port == self.in_port,
            Oxm::Metadata(value, mask) => masked(&self.metadata, value, mask.as_ref()),
            Oxm::Reg0(value, mask) => masked(&self.registers[0], value, mask.as_ref()),
            Oxm::Reg1(value, mask) => masked(&self.registers[1], value, mask.as_ref()),
            Oxm::Reg2(value, mask) => masked(&self.registers[2], value, mask.as_ref()),
            // ovs-fields(7). Only IP has fragments.
            Oxm::NwFrag(value, mask) => {
                let fragment = match frame.fragment.filter(|_| network.ip().is_some()) {
                    None => 0,
                    Some(Fragment::First) => 1,
                    Some(Fragment::Later) => 3,
                };
                masked(&fragment, value, mask.as_ref())
            }
            Oxm::CtState(value, mask) => masked(&self.ct_state, value, mask.as_ref()),
            Oxm::EthDst(value, mask) => masked(&frame.destination, value, mask.as_ref()),
            Oxm::EthSrc(value, mask) => masked(&frame.source, value, mask.as_ref()),
            Oxm::EthType(value, _) => *value == if self.unread { ethertype::VLAN } else { frame.ethertype },
            Oxm::VlanVid(value, mask) => {
                masked(&frame.tags.first().map_or(U13::low(0), |&vid| tagged(vid)), value, mask.as_ref())
            }
            Oxm::TunnelId(value, mask) => masked(&frame.tunnel.unwrap_or(0), value, mask.as_ref()),
            Oxm::IpProto(value, _) => network.ip().is_some_and(|(protocol, _)| protocol == *value),
            Oxm::TcpSrc(value, mask) => known(from(protocol::TCP), value, mask.as_ref()),
            Oxm::TcpDst(value, mask) => known(to(protocol::TCP), value, mask.as_ref()),
            Oxm::TcpFlags(value, mask) => {
                let flags = match network.ip() {
                    Some((protocol::TCP, Transport::Ports { flags, .. })) => Some(U12::low(flags)),
                    _ => None,
                };
                known(flags, value, mask.as_ref())
            }
            Oxm::UdpSrc(value, mask) => known(from(protocol::UDP), value, mask.as_ref()),
            Oxm::UdpDst(value, mask) => known(to(protocol::UDP), value, mask.as_ref()),
            Oxm::SctpSrc(value, mask) => known(from(protocol::SCTP), value, mask.as_ref()),
            Oxm::SctpDst(value, mask) => known(to(protocol::SCTP), value, mask.as_ref()),
            Oxm::Icmpv4Type(value, _) => icmp(protocol::ICMP).is_some_and(|(kind, _)| kind == *value),
            Oxm::Icmpv4Code(value, _) => icmp(protocol::ICMP).is_some_and(|(_, code)| code == *value),
            Oxm::Icmpv6Type(value, _) => icmp(protocol::ICMPV6).is_some_and(|(kind, _)| kind == *value),
            Oxm::Icmpv6Code(value, _) => icmp(protocol::ICMPV6).is_some_and(|(_, code)| code == *value),
            Oxm::Ipv6NdTarget(value, mask) => {
                known(network.neighbour().map(|(_, target, _)| target), value, mask.as_ref())
            }
            Oxm::Ipv6NdSll(value, mask) => known(link_layer(NEIGHBOUR_SOLICITATION), value, mask.as_ref()),
            Oxm::Ipv6NdTll(value, mask) => known(link_layer(NEIGHBOUR_ADVERTISEMENT), value, mask.as_ref()),
            _ => match (field, &network) {
                (Oxm::Ipv4Src(value, mask), Network::Ipv4 { source, .. }) => masked(source, value, mask.as_ref()),
                (Oxm::Ipv4Dst(value, mask), Network::Ipv4 { destination, .. }) => {
                    masked(destination, value, mask.as_ref())
                }
                (Oxm::Ipv6Src(value, mask), Network::Ipv6 { source, .. }) => masked(source, value, mask.as_ref()),
                (Oxm::Ipv6Dst(value, mask), Network::Ipv6 { destination, .. }) => {
                    masked(destination, value, mask.as_ref())
                }
                (Oxm::ArpOp(value, _), Network::Arp { op, .. }) => op == value,
                (Oxm::ArpSpa(value, mask), Network::Arp { spa, .. }) => masked(spa, value, mask.as_ref()),
                (Oxm::ArpTpa(value, mask), Network::Arp { tpa, .. }) => masked(tpa, value, mask.as_ref()),
                (Oxm::ArpSha(value, mask), Network::Arp { sha, .. }) => masked(sha, value, mask.as_ref()),
                _ => false,
            },
        }
    }

    /// What entries can see of what it carries. But for the first, fragments show addresses, and those of IPv4 the protocol.
    fn seen(&self) -> Network {
        let mut network = if self.unread { Network::Unknown } else { self.frame.network };
        if self.frame.fragment == Some(Fragment::Later) {
            match &mut network {
                Network::Ipv4 { transport, .. } => *transport = Transport::Unknown,
                Network::Ipv6 { protocol, transport, .. } => {
                    (*protocol, *transport) = (protocol::IPV6_FRAGMENT, Transport::Unknown);
                }
                _ => {}
            }
        }
        network
    }

    /// Gives a field a value. Those that the pipeline doesn't set stay as they are.
    pub(super) fn set(&mut self, field: &Oxm) {
        match field {
            Oxm::Metadata(value, _) => self.metadata = *value,
            Oxm::Reg0(value, _) => self.registers[0] = *value,
            Oxm::Reg1(value, _) => self.registers[1] = *value,
            Oxm::Reg2(value, _) => self.registers[2] = *value,
            Oxm::EthDst(value, _) => self.frame.destination = *value,
            Oxm::EthSrc(value, _) => self.frame.source = *value,
            Oxm::TunnelId(value, _) => self.frame.tunnel = Some(*value),
            Oxm::VlanVid(value, _) => {
                if let Some(outer) = self.frame.tags.first_mut() {
                    *outer = value.get() & 0xfff;
                }
            }
            _ => {}
        }
    }

    /// Chooses a link and writes its number into a register.
    ///
    /// The hash is ours: of the IP addresses and ports, else of the Ethernet addresses, equal in both directions. Open
    /// vSwitch's own hash chooses otherwise, so where links stand for instances of a function, the one that is chosen here
    /// may not be the one in the network.
    pub(super) fn choose(&mut self, multipath: &Multipath) {
        let links = u64::from(multipath.max_link) + 1;
        let connection = multipath.fields != HashFields::SymmetricL3;
        let link = self.frame.symmetric_hash(&self.seen(), multipath.basis, connection) % links;
        self.load(multipath.dst, multipath.range, link);
    }

    /// Writes a value into the port that it came in by, or into bits of a register; other fields stay as they are.
    pub(super) fn load(&mut self, dst: FieldId, range: BitRange, value: u64) {
        if dst == FieldId::IN_PORT_16 {
            self.in_port = PortNo::of_16_bits(value as u16);
            return;
        }
        let (offset, bits) = (range.offset(), range.n_bits());
        let register = ["reg0", "reg1", "reg2"].iter().position(|name| dst.info().is_some_and(|it| it.name == *name));
        if let Some(register) = register.and_then(|at| self.registers.get_mut(at)).filter(|_| offset + bits <= 32) {
            let mask = ((1 << bits) - 1) << offset;
            *register = (u64::from(*register) & !mask | value << offset & mask) as u32;
        }
    }
}
