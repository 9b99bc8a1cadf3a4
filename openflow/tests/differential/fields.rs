//! Matches that Open vSwitch takes, with random values and masks.
//!
//! It knows no `in_phy_port`, `pbb_isid` and `ipv6_exthdr`; ports lie below 0xff00 or are reserved ones; of `arp_op` it keeps 8
//! bits, of `ct_state` it knows 8, of `tcp_flags` 9 and of `tun_flags` 1; of later fragments (`ip_frag` 3) it knows no ports; a tag is matched on by 0x1000 of `vlan_vid`. Its `xreg`s and `xxreg`s it
//! writes as the registers they consist of, so they are only set here, not matched on.

use std::net::{Ipv4Addr, Ipv6Addr};

use openflow::matching::Match;
use openflow::narrow::{U1, U2, U3, U6, U12, U13, U20, U128};
use openflow::oxm::Oxm;
use openflow::types::{MacAddr, PortNo};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

macro_rules! exact {
    ($variant:ident, $values:expr) => {
        $values.prop_map(|value| Oxm::$variant(value, None)).boxed()
    };
}

macro_rules! masked {
    ($variant:ident, $values:expr) => {
        ($values, option::of($values)).prop_map(|(value, mask)| Oxm::$variant(value, mask)).boxed()
    };
}

/// The bit of `ct_state` without which no other one is set.
const TRACKED: u32 = 0x20;
/// The bit of `ct_state` with which nothing can be committed.
const INVALID: u32 = 0x10;

pub(crate) fn port() -> BoxedStrategy<PortNo> {
    prop_oneof![8 => (1u32..0xff00).prop_map(PortNo), 1 => Just(PortNo::LOCAL)].boxed()
}

fn mac() -> BoxedStrategy<MacAddr> {
    any::<[u8; 6]>().prop_map(MacAddr).boxed()
}

fn ipv4() -> BoxedStrategy<Ipv4Addr> {
    any::<u32>().prop_map(Ipv4Addr::from).boxed()
}

fn ipv6() -> BoxedStrategy<Ipv6Addr> {
    any::<u128>().prop_map(Ipv6Addr::from).boxed()
}

fn label() -> BoxedStrategy<U20> {
    any::<u32>().prop_map(U20::low).boxed()
}

/// Fields that presuppose nothing.
fn free() -> BoxedStrategy<Oxm> {
    prop_oneof![
        exact!(InPort, port()),
        masked!(Metadata, any::<u64>()),
        masked!(EthDst, mac()),
        masked!(EthSrc, mac()),
        masked!(TunnelId, any::<u64>()),
        masked!(Reg0, any::<u32>()),
        masked!(Reg7, any::<u32>()),
        masked!(Reg15, any::<u32>()),
        masked!(TunSrc, ipv4()),
        masked!(TunDst, ipv4()),
        masked!(TunIpv6Src, ipv6()),
        masked!(TunIpv6Dst, ipv6()),
        masked!(PktMark, any::<u32>()),
        exact!(ConjId, any::<u32>()),
        exact!(CtState, (0u32..256).prop_map(|state| state & !INVALID | TRACKED)),
        exact!(CtZone, any::<u16>()),
        masked!(CtMark, any::<u32>()),
        masked!(CtLabel, any::<u128>().prop_map(U128::new)),
        exact!(ActsetOutput, port()),
        exact!(TunFlags, Just(1u16)),
    ]
    .boxed()
}

/// No tag, any tag, or one of a number and perhaps a priority.
fn tag() -> BoxedStrategy<Vec<Oxm>> {
    let tagged = U13::low(0x1000);
    let number = any::<u16>().prop_map(|id| Oxm::VlanVid(U13::low(0x1000 | id), None));
    let priority = option::of(any::<u8>().prop_map(|pcp| Oxm::VlanPcp(U3::low(pcp), None)));
    prop_oneof![
        3 => Just(Vec::new()),
        1 => Just(vec![Oxm::VlanVid(U13::low(0), None)]),
        1 => Just(vec![Oxm::VlanVid(tagged, Some(tagged))]),
        2 => (number, priority).prop_map(|(number, priority)| [number].into_iter().chain(priority).collect()),
    ]
    .boxed()
}

/// All of `always`, and some of `perhaps`.
fn layer(always: Vec<Oxm>, perhaps: Vec<BoxedStrategy<Oxm>>) -> BoxedStrategy<Vec<Oxm>> {
    let perhaps: Vec<_> = perhaps.into_iter().map(option::of).collect();
    perhaps.prop_map(move |fields| always.iter().cloned().chain(fields.into_iter().flatten()).collect()).boxed()
}

fn eth(kind: u16) -> Oxm {
    Oxm::EthType(kind, None)
}

fn protocol(version: u16, number: u8) -> Vec<Oxm> {
    vec![eth(version), Oxm::IpProto(number, None)]
}

/// Fields of IPv4 and TCP.
pub(crate) fn tcp() -> BoxedStrategy<Vec<Oxm>> {
    layer(
        protocol(0x800, 6),
        vec![
            masked!(Ipv4Src, ipv4()),
            masked!(Ipv4Dst, ipv4()),
            exact!(IpDscp, any::<u8>().prop_map(U6::low)),
            exact!(IpEcn, any::<u8>().prop_map(U2::low)),
            masked!(TcpSrc, any::<u16>()),
            masked!(TcpDst, any::<u16>()),
            exact!(NwTtl, any::<u8>()),
            masked!(TcpFlags, (0u16..512).prop_map(U12::low)),
            exact!(NwFrag, 0u8..2),
        ],
    )
}

/// Fields of what is in the frame.
fn inner() -> BoxedStrategy<Vec<Oxm>> {
    let ports = |protocol: Vec<Oxm>, ports: [BoxedStrategy<Oxm>; 2]| layer(protocol, ports.into());
    prop_oneof![
        layer(Vec::new(), vec![exact!(EthType, prop_oneof![Just(0x88ccu16), Just(0x8906), 0x600u16..0x700])]),
        tcp(),
        ports(protocol(0x86dd, 6), [masked!(TcpSrc, any::<u16>()), masked!(TcpDst, any::<u16>())]),
        ports(protocol(0x800, 17), [masked!(UdpSrc, any::<u16>()), masked!(UdpDst, any::<u16>())]),
        ports(protocol(0x800, 132), [masked!(SctpSrc, any::<u16>()), masked!(SctpDst, any::<u16>())]),
        ports(protocol(0x800, 1), [exact!(Icmpv4Type, any::<u8>()), exact!(Icmpv4Code, any::<u8>())]),
        ports(protocol(0x86dd, 58), [exact!(Icmpv6Type, 0u8..100), exact!(Icmpv6Code, any::<u8>())]),
        layer(vec![eth(0x800)], vec![exact!(IpProto, 20u8..100), exact!(NwFrag, Just(3u8))]),
        layer(
            vec![eth(0x86dd)],
            vec![masked!(Ipv6Src, ipv6()), masked!(Ipv6Dst, ipv6()), masked!(Ipv6Flabel, label())],
        ),
        layer(
            vec![eth(0x806)],
            vec![
                exact!(ArpOp, 0u16..256),
                masked!(ArpSpa, ipv4()),
                masked!(ArpTpa, ipv4()),
                masked!(ArpSha, mac()),
                masked!(ArpTha, mac()),
            ],
        ),
        layer(
            vec![eth(0x8847)],
            vec![
                exact!(MplsLabel, label()),
                exact!(MplsTc, any::<u8>().prop_map(U3::low)),
                exact!(MplsBos, any::<u8>().prop_map(U1::low)),
            ],
        ),
        layer(
            [protocol(0x86dd, 58), vec![Oxm::Icmpv6Type(135, None), Oxm::Icmpv6Code(0, None)]].concat(),
            vec![masked!(Ipv6NdTarget, ipv6()), masked!(Ipv6NdSll, mac())],
        ),
        layer(
            [protocol(0x86dd, 58), vec![Oxm::Icmpv6Type(136, None), Oxm::Icmpv6Code(0, None)]].concat(),
            vec![masked!(Ipv6NdTarget, ipv6()), masked!(Ipv6NdTll, mac())],
        ),
    ]
    .boxed()
}

fn around(inner: BoxedStrategy<Vec<Oxm>>) -> BoxedStrategy<Match> {
    (vec(free(), 0..4), tag(), inner)
        .prop_map(|(free, tag, inner)| Match::new(free.into_iter().chain(tag).chain(inner)))
        .boxed()
}

/// Any match.
pub(crate) fn matches() -> BoxedStrategy<Match> {
    around(inner())
}

/// A match on TCP over IPv4.
pub(crate) fn tcp_matches() -> BoxedStrategy<Match> {
    around(tcp())
}

/// Fields that can be set whatever the packet is.
pub(crate) fn settable() -> BoxedStrategy<Oxm> {
    prop_oneof![
        exact!(Metadata, any::<u64>()),
        exact!(EthDst, mac()),
        exact!(EthSrc, mac()),
        exact!(TunnelId, any::<u64>()),
        exact!(Reg3, any::<u32>()),
        exact!(Xreg2, any::<u64>()),
        exact!(Xxreg1, any::<u128>().prop_map(U128::new)),
        exact!(TunDst, ipv4()),
        exact!(PktMark, any::<u32>()),
    ]
    .boxed()
}

/// Fields of TCP over IPv4 that can be set.
pub(crate) fn tcp_settable() -> BoxedStrategy<Oxm> {
    prop_oneof![
        exact!(Ipv4Src, ipv4()),
        exact!(Ipv4Dst, ipv4()),
        exact!(IpDscp, any::<u8>().prop_map(U6::low)),
        exact!(IpEcn, any::<u8>().prop_map(U2::low)),
        exact!(TcpSrc, any::<u16>()),
        exact!(TcpDst, any::<u16>()),
    ]
    .boxed()
}
