//! The table of match fields: those of the specification (§7.2.3.7) and those of Open vSwitch (`ovs-fields(7)`).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};

use super::{FieldInfo, Maskable, Masking, Prerequisite, aliases, oxm_fields};
use crate::narrow::{U1, U2, U3, U6, U9, U12, U13, U20, U24, U128};
use crate::types::{MacAddr, PortNo};
use crate::wire::{Fixed, Octets, Parsed, Wire, read, refuse, take, within};

/// `OFPXMC_OPENFLOW_BASIC`.
const BASIC: u16 = 0x8000;
/// `OFPXMC_NXM_1`, which Open vSwitch numbers its own fields in.
const NICIRA: u16 = 0x0001;
/// `OFPXMC_PACKET_REGS` of OpenFlow 1.5, which Open vSwitch takes in 1.3 too.
const PACKET_REGS: u16 = 0x8001;
/// `OFPXMC_EXPERIMENTER`.
const EXPERIMENTER: u16 = 0xffff;
/// The Open Networking Foundation's number as an experimenter: fields of later versions.
const ONF: u32 = 0x4f4e_4600;

/// The bit of a header that says that a mask follows the value.
const MASKED: u32 = 0x100;

/// Needs `bits` of `field` to be one of `values`.
const fn needs(field: &'static str, bits: u64, values: &'static [u64]) -> Option<Prerequisite> {
    Some(Prerequisite { field, bits, values })
}
const NONE: Option<Prerequisite> = None;
const IN_PORT: Option<Prerequisite> = needs("in_port", 0, &[]);
const TAGGED: Option<Prerequisite> = needs("vlan_vid", 0x1000, &[0x1000]);
const IPV4: Option<Prerequisite> = needs("eth_type", 0xffff, &[0x0800]);
const IPV6: Option<Prerequisite> = needs("eth_type", 0xffff, &[0x86dd]);
const IP: Option<Prerequisite> = needs("eth_type", 0xffff, &[0x0800, 0x86dd]);
const ARP: Option<Prerequisite> = needs("eth_type", 0xffff, &[0x0806, 0x8035]);
const MPLS: Option<Prerequisite> = needs("eth_type", 0xffff, &[0x8847, 0x8848]);
const PBB: Option<Prerequisite> = needs("eth_type", 0xffff, &[0x88e7]);
const TCP: Option<Prerequisite> = needs("ip_proto", 0xff, &[6]);
const UDP: Option<Prerequisite> = needs("ip_proto", 0xff, &[17]);
const SCTP: Option<Prerequisite> = needs("ip_proto", 0xff, &[132]);
const ICMPV4: Option<Prerequisite> = needs("ip_proto", 0xff, &[1]);
const ICMPV6: Option<Prerequisite> = needs("ip_proto", 0xff, &[58]);
const ND: Option<Prerequisite> = needs("icmpv6_type", 0xff, &[135, 136]);
const ND_SOLICIT: Option<Prerequisite> = needs("icmpv6_type", 0xff, &[135]);
const ND_ADVERT: Option<Prerequisite> = needs("icmpv6_type", 0xff, &[136]);
const CT_PROTO: Option<Prerequisite> = needs("ct_nw_proto", 0xff, &[1, 6, 17, 58, 132]);

/// Experimenter in the upper half; class and number, as in a header, in the lower.
const fn key(class: u16, id: u8, experimenter: u32) -> u64 {
    (experimenter as u64) << 32 | (class as u64) << 7 | id as u64
}

/// The key of the field with this header and what follows it.
fn unknown_key(header: u32, body: &[u8]) -> u64 {
    let experimenter = match body {
        [a, b, c, d, ..] if header >> 16 == EXPERIMENTER as u32 => u32::from_be_bytes([*a, *b, *c, *d]),
        _ => 0,
    };
    u64::from(experimenter) << 32 | u64::from(header >> 9)
}

/// Where a field without a row comes among the others, and which it is.
#[cold]
fn unknown_order(header: u32, body: &[u8]) -> (u16, u64) {
    let alias = aliases::find(header).and_then(|alias| FIELDS.iter().position(|info| info.name == alias.field));
    alias.map_or_else(|| (u16::MAX, unknown_key(header, body)), |row| (row as u16, 0))
}

/// How a field without a row is written: what stands for its name, and value and mask behind it. Fields of two
/// experimenters have two names.
#[cold]
fn unknown_text(header: u32, body: &Octets) -> (String, Octets) {
    match body.0.split_first_chunk() {
        Some((owner, rest)) if header >> 16 == EXPERIMENTER.into() => {
            (format!("oxm_{header:08x}_{:08x}", u32::from_be_bytes(*owner)), Octets(rest.to_vec()))
        }
        _ => (format!("oxm_{header:08x}"), body.clone()),
    }
}

const OUTSIDE: &str = "has bits in its value that its mask leaves out (OFPBMC_BAD_WILDCARDS)";

/// Of a field without a row, too, the mask is as long as the value, and covers it (§7.2.3.5).
#[cold]
fn unknown_masked<'a>(input: &'a [u8], header: u32, body: &[u8]) -> Parsed<'a, ()> {
    let owner = if header >> 16 == EXPERIMENTER.into() { 4 } else { 0 };
    let both = body.get(owner..).unwrap_or_default();
    let (value, mask) = both.split_at(both.len() / 2);
    if value.len() != mask.len() {
        return refuse(input, "has a mask that isn't as long as its value");
    }
    if value.iter().zip(mask).any(|(value, mask)| value & !mask != 0) { refuse(input, OUTSIDE) } else { Ok((&[], ())) }
}

oxm_fields! {
    /// Port that the packet came in by.
    InPort = BASIC/0/0, "in_port", PortNo, 32, Exact, d, NONE;
    /// Physical port under a logical one.
    InPhyPort = BASIC/1/0, "in_phy_port", PortNo, 32, Exact, d, IN_PORT;
    /// Metadata handed from table to table.
    Metadata = BASIC/2/0, "metadata", u64, 64, Any, x, NONE;
    /// Ethernet destination.
    EthDst = BASIC/3/0, "eth_dst", MacAddr, 48, Any, d, NONE;
    /// Ethernet source.
    EthSrc = BASIC/4/0, "eth_src", MacAddr, 48, Any, d, NONE;
    /// Ethernet type after VLAN tags.
    EthType = BASIC/5/0, "eth_type", u16, 16, Exact, x, NONE;
    /// VLAN id with 0x1000 set if there is a tag; 0: none.
    VlanVid = BASIC/6/0, "vlan_vid", U13, 13, Any, x, NONE;
    /// VLAN priority.
    VlanPcp = BASIC/7/0, "vlan_pcp", U3, 3, Exact, d, TAGGED;
    /// IP DSCP.
    IpDscp = BASIC/8/0, "ip_dscp", U6, 6, Exact, d, IP;
    /// IP ECN.
    IpEcn = BASIC/9/0, "ip_ecn", U2, 2, Exact, d, IP;
    /// IP protocol.
    IpProto = BASIC/10/0, "ip_proto", u8, 8, Exact, d, IP;
    /// IPv4 source.
    Ipv4Src = BASIC/11/0, "ipv4_src", Ipv4Addr, 32, Any, d, IPV4;
    /// IPv4 destination.
    Ipv4Dst = BASIC/12/0, "ipv4_dst", Ipv4Addr, 32, Any, d, IPV4;
    /// TCP source port.
    TcpSrc = BASIC/13/0, "tcp_src", u16, 16, OpenVswitch, d, TCP;
    /// TCP destination port.
    TcpDst = BASIC/14/0, "tcp_dst", u16, 16, OpenVswitch, d, TCP;
    /// UDP source port.
    UdpSrc = BASIC/15/0, "udp_src", u16, 16, OpenVswitch, d, UDP;
    /// UDP destination port.
    UdpDst = BASIC/16/0, "udp_dst", u16, 16, OpenVswitch, d, UDP;
    /// SCTP source port.
    SctpSrc = BASIC/17/0, "sctp_src", u16, 16, OpenVswitch, d, SCTP;
    /// SCTP destination port.
    SctpDst = BASIC/18/0, "sctp_dst", u16, 16, OpenVswitch, d, SCTP;
    /// ICMPv4 type.
    Icmpv4Type = BASIC/19/0, "icmpv4_type", u8, 8, Exact, d, ICMPV4;
    /// ICMPv4 code.
    Icmpv4Code = BASIC/20/0, "icmpv4_code", u8, 8, Exact, d, ICMPV4;
    /// ARP opcode.
    ArpOp = BASIC/21/0, "arp_op", u16, 16, Exact, d, ARP;
    /// ARP sender's IPv4 address.
    ArpSpa = BASIC/22/0, "arp_spa", Ipv4Addr, 32, Any, d, ARP;
    /// ARP target's IPv4 address.
    ArpTpa = BASIC/23/0, "arp_tpa", Ipv4Addr, 32, Any, d, ARP;
    /// ARP sender's MAC address.
    ArpSha = BASIC/24/0, "arp_sha", MacAddr, 48, Any, d, ARP;
    /// ARP target's MAC address.
    ArpTha = BASIC/25/0, "arp_tha", MacAddr, 48, Any, d, ARP;
    /// IPv6 source.
    Ipv6Src = BASIC/26/0, "ipv6_src", Ipv6Addr, 128, Any, d, IPV6;
    /// IPv6 destination.
    Ipv6Dst = BASIC/27/0, "ipv6_dst", Ipv6Addr, 128, Any, d, IPV6;
    /// IPv6 flow label.
    Ipv6Flabel = BASIC/28/0, "ipv6_flabel", U20, 20, Any, x, IPV6;
    /// ICMPv6 type.
    Icmpv6Type = BASIC/29/0, "icmpv6_type", u8, 8, Exact, d, ICMPV6;
    /// ICMPv6 code.
    Icmpv6Code = BASIC/30/0, "icmpv6_code", u8, 8, Exact, d, ICMPV6;
    /// Target of a neighbour discovery message.
    Ipv6NdTarget = BASIC/31/0, "ipv6_nd_target", Ipv6Addr, 128, OpenVswitch, d, ND;
    /// Source link-layer address in a neighbour solicitation.
    Ipv6NdSll = BASIC/32/0, "ipv6_nd_sll", MacAddr, 48, OpenVswitch, d, ND_SOLICIT;
    /// Target link-layer address in a neighbour advertisement.
    Ipv6NdTll = BASIC/33/0, "ipv6_nd_tll", MacAddr, 48, OpenVswitch, d, ND_ADVERT;
    /// MPLS label.
    MplsLabel = BASIC/34/0, "mpls_label", U20, 20, Exact, d, MPLS;
    /// MPLS traffic class.
    MplsTc = BASIC/35/0, "mpls_tc", U3, 3, Exact, d, MPLS;
    /// MPLS bottom of stack.
    MplsBos = BASIC/36/0, "mpls_bos", U1, 1, Exact, d, MPLS;
    /// PBB service instance.
    PbbIsid = BASIC/37/0, "pbb_isid", U24, 24, Any, x, PBB;
    /// Tunnel key: VNI or GRE key.
    TunnelId = BASIC/38/0, "tunnel_id", u64, 64, Any, x, NONE;
    /// IPv6 extension headers present.
    Ipv6Exthdr = BASIC/39/0, "ipv6_exthdr", U9, 9, Any, x, IPV6;
    /// Register 0 of Open vSwitch.
    Reg0 = NICIRA/0/0, "reg0", u32, 32, Any, x, NONE;
    /// Register 1 of Open vSwitch.
    Reg1 = NICIRA/1/0, "reg1", u32, 32, Any, x, NONE;
    /// Register 2 of Open vSwitch.
    Reg2 = NICIRA/2/0, "reg2", u32, 32, Any, x, NONE;
    /// Register 3 of Open vSwitch.
    Reg3 = NICIRA/3/0, "reg3", u32, 32, Any, x, NONE;
    /// Register 4 of Open vSwitch.
    Reg4 = NICIRA/4/0, "reg4", u32, 32, Any, x, NONE;
    /// Register 5 of Open vSwitch.
    Reg5 = NICIRA/5/0, "reg5", u32, 32, Any, x, NONE;
    /// Register 6 of Open vSwitch.
    Reg6 = NICIRA/6/0, "reg6", u32, 32, Any, x, NONE;
    /// Register 7 of Open vSwitch.
    Reg7 = NICIRA/7/0, "reg7", u32, 32, Any, x, NONE;
    /// Register 8 of Open vSwitch.
    Reg8 = NICIRA/8/0, "reg8", u32, 32, Any, x, NONE;
    /// Register 9 of Open vSwitch.
    Reg9 = NICIRA/9/0, "reg9", u32, 32, Any, x, NONE;
    /// Register 10 of Open vSwitch.
    Reg10 = NICIRA/10/0, "reg10", u32, 32, Any, x, NONE;
    /// Register 11 of Open vSwitch.
    Reg11 = NICIRA/11/0, "reg11", u32, 32, Any, x, NONE;
    /// Register 12 of Open vSwitch.
    Reg12 = NICIRA/12/0, "reg12", u32, 32, Any, x, NONE;
    /// Register 13 of Open vSwitch.
    Reg13 = NICIRA/13/0, "reg13", u32, 32, Any, x, NONE;
    /// Register 14 of Open vSwitch.
    Reg14 = NICIRA/14/0, "reg14", u32, 32, Any, x, NONE;
    /// Register 15 of Open vSwitch.
    Reg15 = NICIRA/15/0, "reg15", u32, 32, Any, x, NONE;
    /// Fragments: bit 0 any, bit 1 later ones.
    NwFrag = NICIRA/26/0, "ip_frag", u8, 2, Any, x, IP;
    /// IP TTL or IPv6 hop limit.
    NwTtl = NICIRA/29/0, "nw_ttl", u8, 8, Exact, d, IP;
    /// Outer IPv4 source of a tunnelled packet.
    TunSrc = NICIRA/31/0, "tun_src", Ipv4Addr, 32, Any, d, NONE;
    /// Outer IPv4 destination of a tunnelled packet.
    TunDst = NICIRA/32/0, "tun_dst", Ipv4Addr, 32, Any, d, NONE;
    /// Mark that the host's network stack sees.
    PktMark = NICIRA/33/0, "pkt_mark", u32, 32, Any, x, NONE;
    /// Which conjunction the packet satisfied.
    ConjId = NICIRA/37/0, "conj_id", u32, 32, Exact, d, NONE;
    /// Flags of a tunnelled packet: bit 0 OAM.
    TunFlags = NICIRA/104/0, "tun_flags", u16, 1, Any, x, NONE;
    /// What connection tracking says of the packet.
    CtState = NICIRA/105/0, "ct_state", u32, 32, Any, x, NONE;
    /// Zone of connection tracking.
    CtZone = NICIRA/106/0, "ct_zone", u16, 16, Exact, d, NONE;
    /// Mark of the connection.
    CtMark = NICIRA/107/0, "ct_mark", u32, 32, Any, x, NONE;
    /// Label of the connection.
    CtLabel = NICIRA/108/0, "ct_label", U128, 128, Any, x, NONE;
    /// Outer IPv6 source of a tunnelled packet.
    TunIpv6Src = NICIRA/109/0, "tun_ipv6_src", Ipv6Addr, 128, Any, d, NONE;
    /// Outer IPv6 destination of a tunnelled packet.
    TunIpv6Dst = NICIRA/110/0, "tun_ipv6_dst", Ipv6Addr, 128, Any, d, NONE;
    /// Registers 0 to 3 as one.
    Xxreg0 = NICIRA/111/0, "xxreg0", U128, 128, Any, x, NONE;
    /// Registers 4 to 7 as one.
    Xxreg1 = NICIRA/112/0, "xxreg1", U128, 128, Any, x, NONE;
    /// Registers 8 to 11 as one.
    Xxreg2 = NICIRA/113/0, "xxreg2", U128, 128, Any, x, NONE;
    /// Registers 12 to 15 as one.
    Xxreg3 = NICIRA/114/0, "xxreg3", U128, 128, Any, x, NONE;
    /// IP protocol of the connection's first packet.
    CtNwProto = NICIRA/119/0, "ct_nw_proto", u8, 8, Exact, d, IP;
    /// IPv4 source of the connection's first packet.
    CtNwSrc = NICIRA/120/0, "ct_nw_src", Ipv4Addr, 32, Any, d, IPV4;
    /// IPv4 destination of the connection's first packet.
    CtNwDst = NICIRA/121/0, "ct_nw_dst", Ipv4Addr, 32, Any, d, IPV4;
    /// IPv6 source of the connection's first packet.
    CtIpv6Src = NICIRA/122/0, "ct_ipv6_src", Ipv6Addr, 128, Any, d, IPV6;
    /// IPv6 destination of the connection's first packet.
    CtIpv6Dst = NICIRA/123/0, "ct_ipv6_dst", Ipv6Addr, 128, Any, d, IPV6;
    /// Source port of the connection's first packet.
    CtTpSrc = NICIRA/124/0, "ct_tp_src", u16, 16, Any, d, CT_PROTO;
    /// Destination port of the connection's first packet.
    CtTpDst = NICIRA/125/0, "ct_tp_dst", u16, 16, Any, d, CT_PROTO;
    /// Registers 0 and 1 as one.
    Xreg0 = PACKET_REGS/0/0, "xreg0", u64, 64, Any, x, NONE;
    /// Registers 2 and 3 as one.
    Xreg1 = PACKET_REGS/1/0, "xreg1", u64, 64, Any, x, NONE;
    /// Registers 4 and 5 as one.
    Xreg2 = PACKET_REGS/2/0, "xreg2", u64, 64, Any, x, NONE;
    /// Registers 6 and 7 as one.
    Xreg3 = PACKET_REGS/3/0, "xreg3", u64, 64, Any, x, NONE;
    /// Registers 8 and 9 as one.
    Xreg4 = PACKET_REGS/4/0, "xreg4", u64, 64, Any, x, NONE;
    /// Registers 10 and 11 as one.
    Xreg5 = PACKET_REGS/5/0, "xreg5", u64, 64, Any, x, NONE;
    /// Registers 12 and 13 as one.
    Xreg6 = PACKET_REGS/6/0, "xreg6", u64, 64, Any, x, NONE;
    /// Registers 14 and 15 as one.
    Xreg7 = PACKET_REGS/7/0, "xreg7", u64, 64, Any, x, NONE;
    /// TCP flags.
    TcpFlags = EXPERIMENTER/42/ONF, "tcp_flags", U12, 12, Any, x, TCP;
    /// Port that the action set would output to.
    ActsetOutput = EXPERIMENTER/43/ONF, "actset_output", PortNo, 32, Exact, d, NONE;
}

#[cfg(feature = "serde")]
impl serde::Serialize for Oxm {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serde::Serializer::serialize_map(serializer, Some(1))?;
        self.serialize_into(&mut map)?;
        serde::ser::SerializeMap::end(map)
    }
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
    fn all_forty_fields_of_the_specification_come_first_and_in_order() {
        assert!((0..40).all(|at| FIELDS[at].class == BASIC && usize::from(FIELDS[at].id) == at));
        assert!(FIELDS[40..].iter().all(|field| field.class != BASIC));
    }

    #[test]
    fn prerequisites_name_fields_and_come_before_what_needs_them() {
        for (at, field) in FIELDS.iter().enumerate() {
            if let Some(needs) = field.needs {
                let place = FIELDS.iter().position(|other| other.name == needs.field);
                assert!(place.is_some_and(|place| place < at), "{} needs {}", field.name, needs.field);
            }
        }
    }

    #[test]
    fn no_field_is_declared_twice() {
        for (at, field) in FIELDS.iter().enumerate() {
            for other in &FIELDS[..at] {
                let numbers = |info: &FieldInfo| (info.class, info.id, info.experimenter);
                assert_ne!(numbers(field), numbers(other), "{} and {}", field.name, other.name);
                assert_ne!(field.name, other.name);
            }
        }
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
        assert!(Oxm::parse(&[0x80, 0, 0x0c, 2, 0x20, 0]).is_err(), "vlan_vid has 13 bits");
        assert!(Oxm::parse(&[0xff, 0xff, 0x54, 4, 0x4f, 0x4e, 0x46, 0]).is_err(), "tcp_flags without a value");
    }

    #[test]
    fn an_unknown_field_survives() {
        for raw in
            [&[0x80u8, 0x00, 0x7e, 0x02, 1, 2][..], &[0xff, 0xff, 0, 2, 1, 2], &[0xff, 0xff, 2, 5, 0, 0, 0, 7, 9]]
        {
            assert_eq!(bytes(&Oxm::parse(raw).unwrap().1), raw);
        }
    }

    #[test]
    fn canonical_form_drops_what_says_nothing() {
        assert_eq!(Oxm::Metadata(7, Some(0)).canonical(), None);
        assert_eq!(Oxm::Metadata(7, Some(u64::MAX)).canonical(), Some(Oxm::Metadata(7, None)));
        assert_eq!(Oxm::Metadata(7, Some(1)).canonical(), Some(Oxm::Metadata(1, Some(1))));
    }

    #[test]
    fn a_mask_of_all_the_bits_that_count_is_a_full_one() {
        // Open vSwitch tells tun_flags with mask 1, though it was told none.
        for (masked, whole) in [
            (Oxm::TunFlags(1, Some(1)), Oxm::TunFlags(1, None)),
            (Oxm::TunFlags(0, Some(1)), Oxm::TunFlags(0, None)),
            // Bits that don't count are none of the value's.
            (Oxm::TunFlags(3, Some(1)), Oxm::TunFlags(1, None)),
            (Oxm::NwFrag(1, Some(3)), Oxm::NwFrag(1, None)),
            (Oxm::CtLabel(U128::new(5), Some(U128::new(u128::MAX))), Oxm::CtLabel(U128::new(5), None)),
        ] {
            assert!(!masked.is_canonical(), "{masked}");
            assert_eq!(masked.canonical(), Some(whole));
        }
        let half = Oxm::CtLabel(U128::new(5), Some(U128::new(u64::MAX.into())));
        assert_eq!(half.clone().canonical(), Some(half));
        assert!(Oxm::NwFrag(1, Some(1)).is_canonical());
    }
}
