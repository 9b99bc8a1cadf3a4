//! Match fields, in OpenFlow's extensible format (OpenFlow 1.3.5 §7.2.3).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};
use nom::bytes::complete::take;
use nom::number::complete::be_u32;

use crate::types::{MacAddr, PortNo};
use crate::wire::{Fixed, Parsed, Wire, refuse};

/// A value of which some bits may be left out of a comparison.
pub trait Maskable: Fixed + Eq {
    /// The bits that `mask` keeps.
    #[must_use]
    fn masked(&self, mask: &Self) -> Self;
    /// Are all bits set?
    fn is_ones(&self) -> bool;
    /// Is no bit set?
    fn is_zeros(&self) -> bool;
}

macro_rules! maskable {
    (int $($int:ty),*) => { $(impl Maskable for $int {
        fn masked(&self, mask: &Self) -> Self { self & mask }
        fn is_ones(&self) -> bool { *self == <$int>::MAX }
        fn is_zeros(&self) -> bool { *self == 0 }
    })* };
    (via $($ty:ty => $to:expr, $from:expr;)*) => { $(impl Maskable for $ty {
        fn masked(&self, mask: &Self) -> Self {
            let (value, mask) = ($to(self), $to(mask));
            let mut kept = value;
            for (octet, mask) in kept.iter_mut().zip(mask) { *octet &= mask; }
            $from(kept)
        }
        fn is_ones(&self) -> bool { $to(self).iter().all(|&octet| octet == 0xff) }
        fn is_zeros(&self) -> bool { $to(self).iter().all(|&octet| octet == 0) }
    })* };
}
maskable! { int u8, u16, u32, u64 }
maskable! { via
    MacAddr => |x: &MacAddr| x.0, MacAddr;
    Ipv4Addr => |x: &Ipv4Addr| x.octets(), Ipv4Addr::from;
    Ipv6Addr => |x: &Ipv6Addr| x.octets(), Ipv6Addr::from;
    PortNo => |x: &PortNo| x.0.to_be_bytes(), |x| PortNo(u32::from_be_bytes(x));
    [u8; 3] => |x: &[u8; 3]| *x, |x| x;
}

/// What is fixed about a field.
#[derive(Clone, Copy, Debug)]
pub struct FieldInfo {
    /// Its name, as `ovs-ofctl` and the specification write it.
    pub name: &'static str,
    /// `oxm_field`.
    pub id: u8,
    /// How many bits of it count.
    pub bits: u16,
    /// May a mask go with it?
    pub maskable: bool,
}

const OPENFLOW_BASIC: u32 = 0x8000;

macro_rules! oxm_fields {
    ($($(#[$meta:meta])* $variant:ident = $id:literal, $name:literal, $ty:ty, $bits:literal, $mask:ident;)+) => {
        /// A match field: its value, and the mask of the bits that count, if not all.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Oxm {
            $($(#[$meta])* $variant($ty, Option<$ty>),)+
            /// A field that has no name here, with its 32-bit header.
            Unknown {
                /// `oxm_header`: class, field, mask flag, length.
                header: u32,
                /// Value and mask.
                body: Vec<u8>,
            },
        }

        /// Every field of the basic class, in order of `oxm_field`.
        pub const FIELDS: &[FieldInfo] =
            &[$(FieldInfo { name: $name, id: $id, bits: $bits, maskable: oxm_fields!(@bool $mask) }),+];

        impl Oxm {
            /// The header without mask flag and length: orders fields as the specification numbers them.
            pub fn field(&self) -> u32 {
                match self {
                    $(Self::$variant(..) => OPENFLOW_BASIC << 7 | $id,)+
                    Self::Unknown { header, .. } => header >> 9,
                }
            }

            /// Its name, as `ovs-ofctl` writes it.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(..) => $name,)+ Self::Unknown { .. } => "unknown" }
            }

            /// The same with bits outside the mask cleared and a full mask left out; `None` if no bit counts.
            pub(crate) fn canonical(self) -> Option<Self> {
                match self {
                    $(Self::$variant(value, Some(mask)) => {
                        if mask.is_zeros() { None }
                        else if mask.is_ones() { Some(Self::$variant(value, None)) }
                        else { Some(Self::$variant(value.masked(&mask), Some(mask))) }
                    })+
                    other => Some(other),
                }
            }
        }

        impl Wire for Oxm {
            fn parse(input: &[u8]) -> Parsed<'_, Self> {
                let (rest, header) = be_u32(input)?;
                let (rest, body) = take((header & 0xff) as usize)(rest)?;
                let masked = header & 0x100 != 0;
                let oxm = match header >> 9 {
                    $(field if field == (OPENFLOW_BASIC << 7 | $id) => {
                        if masked && !oxm_fields!(@bool $mask) {
                            return refuse(input, "has a mask where its field takes none");
                        }
                        if body.len() != <$ty as Fixed>::LEN * (1 + usize::from(masked)) {
                            return refuse(input, "has a length that isn't its field's");
                        }
                        let (mask, value) = <$ty as Wire>::parse(body)?;
                        Self::$variant(value, if masked { Some(<$ty as Wire>::parse(mask)?.1) } else { None })
                    })+
                    _ => Self::Unknown { header, body: body.to_vec() },
                };
                Ok((rest, oxm))
            }

            fn put(&self, out: &mut BytesMut) {
                match self {
                    $(Self::$variant(value, mask) => {
                        let length = <$ty as Fixed>::LEN * (1 + usize::from(mask.is_some()));
                        out.put_u32(self.field() << 9 | u32::from(mask.is_some()) << 8 | length as u32);
                        value.put(out);
                        if let Some(mask) = mask { mask.put(out); }
                    })+
                    Self::Unknown { header, body } => {
                        out.put_u32(*header);
                        out.put_slice(body);
                    }
                }
            }
        }

        impl fmt::Display for Oxm {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant(value, None) => write!(f, "{}={}", $name, Shown(value)),)+
                    $(Self::$variant(value, Some(mask)) => write!(f, "{}={}/{}", $name, Shown(value), Shown(mask)),)+
                    Self::Unknown { header, body } => write!(f, "oxm{header:08x}={body:02x?}"),
                }
            }
        }
    };
    (@bool yes) => { true };
    (@bool no) => { false };
}

/// How a field's value is written: numbers of 32 bits and more in hex, the rest as usual.
struct Shown<'a, T>(&'a T);

macro_rules! shown {
    ($($ty:ty, $format:literal;)*) => { $(impl fmt::Display for Shown<'_, $ty> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, $format, self.0) }
    })* };
}
shown! { u8, "{}"; u16, "{:#06x}"; u32, "{:#x}"; u64, "{:#x}"; MacAddr, "{}"; Ipv4Addr, "{}"; Ipv6Addr, "{}"; PortNo, "{}"; [u8; 3], "{:02x?}"; }

oxm_fields! {
    /// Port that the packet came in by.
    InPort = 0, "in_port", PortNo, 32, no;
    /// Physical port under a logical one.
    InPhyPort = 1, "in_phy_port", PortNo, 32, no;
    /// Metadata handed from table to table.
    Metadata = 2, "metadata", u64, 64, yes;
    /// Ethernet destination.
    EthDst = 3, "eth_dst", MacAddr, 48, yes;
    /// Ethernet source.
    EthSrc = 4, "eth_src", MacAddr, 48, yes;
    /// Ethernet type after VLAN tags.
    EthType = 5, "eth_type", u16, 16, no;
    /// VLAN id with 0x1000 set if there is a tag; 0: none.
    VlanVid = 6, "vlan_vid", u16, 13, yes;
    /// VLAN priority.
    VlanPcp = 7, "vlan_pcp", u8, 3, no;
    /// IP DSCP.
    IpDscp = 8, "ip_dscp", u8, 6, no;
    /// IP ECN.
    IpEcn = 9, "ip_ecn", u8, 2, no;
    /// IP protocol.
    IpProto = 10, "ip_proto", u8, 8, no;
    /// IPv4 source.
    Ipv4Src = 11, "ipv4_src", Ipv4Addr, 32, yes;
    /// IPv4 destination.
    Ipv4Dst = 12, "ipv4_dst", Ipv4Addr, 32, yes;
    /// TCP source port.
    TcpSrc = 13, "tcp_src", u16, 16, no;
    /// TCP destination port.
    TcpDst = 14, "tcp_dst", u16, 16, no;
    /// UDP source port.
    UdpSrc = 15, "udp_src", u16, 16, no;
    /// UDP destination port.
    UdpDst = 16, "udp_dst", u16, 16, no;
    /// SCTP source port.
    SctpSrc = 17, "sctp_src", u16, 16, no;
    /// SCTP destination port.
    SctpDst = 18, "sctp_dst", u16, 16, no;
    /// ICMPv4 type.
    Icmpv4Type = 19, "icmpv4_type", u8, 8, no;
    /// ICMPv4 code.
    Icmpv4Code = 20, "icmpv4_code", u8, 8, no;
    /// ARP opcode.
    ArpOp = 21, "arp_op", u16, 16, no;
    /// ARP sender's IPv4 address.
    ArpSpa = 22, "arp_spa", Ipv4Addr, 32, yes;
    /// ARP target's IPv4 address.
    ArpTpa = 23, "arp_tpa", Ipv4Addr, 32, yes;
    /// ARP sender's MAC address.
    ArpSha = 24, "arp_sha", MacAddr, 48, yes;
    /// ARP target's MAC address.
    ArpTha = 25, "arp_tha", MacAddr, 48, yes;
    /// IPv6 source.
    Ipv6Src = 26, "ipv6_src", Ipv6Addr, 128, yes;
    /// IPv6 destination.
    Ipv6Dst = 27, "ipv6_dst", Ipv6Addr, 128, yes;
    /// IPv6 flow label.
    Ipv6Flabel = 28, "ipv6_flabel", u32, 20, yes;
    /// ICMPv6 type.
    Icmpv6Type = 29, "icmpv6_type", u8, 8, no;
    /// ICMPv6 code.
    Icmpv6Code = 30, "icmpv6_code", u8, 8, no;
    /// Target of a neighbour discovery message.
    Ipv6NdTarget = 31, "ipv6_nd_target", Ipv6Addr, 128, no;
    /// Source link-layer address in a neighbour solicitation.
    Ipv6NdSll = 32, "ipv6_nd_sll", MacAddr, 48, no;
    /// Target link-layer address in a neighbour advertisement.
    Ipv6NdTll = 33, "ipv6_nd_tll", MacAddr, 48, no;
    /// MPLS label.
    MplsLabel = 34, "mpls_label", u32, 20, no;
    /// MPLS traffic class.
    MplsTc = 35, "mpls_tc", u8, 3, no;
    /// MPLS bottom of stack.
    MplsBos = 36, "mpls_bos", u8, 1, no;
    /// PBB service instance.
    PbbIsid = 37, "pbb_isid", [u8; 3], 24, yes;
    /// Tunnel key: VNI or GRE key.
    TunnelId = 38, "tunnel_id", u64, 64, yes;
    /// IPv6 extension headers present.
    Ipv6Exthdr = 39, "ipv6_exthdr", u16, 9, yes;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(oxm: &Oxm) -> Vec<u8> {
        let mut out = BytesMut::new();
        oxm.put(&mut out);
        out.to_vec()
    }

    #[test]
    fn all_forty_fields_are_declared_in_order() {
        assert_eq!(FIELDS.len(), 40);
        assert!(FIELDS.iter().enumerate().all(|(at, field)| usize::from(field.id) == at));
    }

    /// Bytes from an independent encoder: eth_type=0x800, ipv4_src=10.0.0.0/8.
    #[test]
    fn fields_have_the_wire_form_of_the_specification() {
        let raw = [0x80, 0, 0x0a, 2, 8, 0, 0x80, 0, 0x17, 8, 10, 0, 0, 0, 255, 0, 0, 0];
        let (rest, kind) = Oxm::parse(&raw).unwrap();
        let (_, source) = Oxm::parse(rest).unwrap();
        assert_eq!(kind, Oxm::EthType(0x800, None));
        assert_eq!(source, Oxm::Ipv4Src([10, 0, 0, 0].into(), Some([255, 0, 0, 0].into())));
        assert_eq!([bytes(&kind), bytes(&source)].concat(), raw);
    }

    #[test]
    fn a_mask_or_length_that_the_field_cant_have_is_refused() {
        assert!(Oxm::parse(&[0x80, 0, 1, 8, 0, 0, 0, 4, 0, 0, 0, 5]).is_err(), "in_port takes no mask");
        assert!(Oxm::parse(&[0x80, 0, 0x0a, 3, 8, 0, 0]).is_err(), "eth_type has two octets");
        assert!(Oxm::parse(&[0x80, 0, 0x0a, 2, 8]).is_err(), "cut");
    }

    #[test]
    fn an_unknown_field_survives() {
        let raw = [0x80u8, 0x00, 0x7e, 0x02, 1, 2];
        assert_eq!(bytes(&Oxm::parse(&raw).unwrap().1), raw);
    }

    #[test]
    fn canonical_form_drops_what_says_nothing() {
        assert_eq!(Oxm::Metadata(7, Some(0)).canonical(), None);
        assert_eq!(Oxm::Metadata(7, Some(u64::MAX)).canonical(), Some(Oxm::Metadata(7, None)));
        assert_eq!(Oxm::Metadata(7, Some(1)).canonical(), Some(Oxm::Metadata(1, Some(1))));
    }
}
