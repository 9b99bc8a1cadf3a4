//! Classifiers as sets of frames: do two meet, does one hold the other?
//!
//! Frames of IPv4, of IPv6 and all others are looked at one by one: among them, a classifier asks of each of a frame's properties
//! by itself, so two of them meet where they do in each property, and one holds the other where it does in each.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use openflow::types::MacAddr;

use super::chain::{Address, Classifier, Protocol};
use crate::assigned::ethertype;

/// Frames that a classifier asks for different things of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
    Other,
}

const FAMILIES: [Family; 3] = [Family::V4, Family::V6, Family::Other];

/// A set of frames.
pub(super) struct Space {
    vlan: Option<u16>,
    /// In the order of [`FAMILIES`]; `None`: no frame of the family.
    families: [Option<Part>; 3],
    source_port: Vec<RangeInclusive<u16>>,
    destination_port: Vec<RangeInclusive<u16>>,
}

/// Frames of a family.
struct Part {
    /// Protocol number, or among [`Family::Other`] the Ethernet type; `None`: any.
    protocol: Option<u16>,
    source: Side,
    destination: Side,
    icmp: Icmp,
}

/// ICMP messages: their types and code; `None`: any.
#[derive(PartialEq)]
struct Icmp {
    types: Option<BTreeSet<u8>>,
    code: Option<u8>,
}

impl Icmp {
    /// `None`: there is none of the family.
    fn of(classifier: &Classifier, family: Family) -> Option<Self> {
        let types = classifier.icmp_types(family == Family::V4)?;
        Some(Self { types: Some(types).filter(|types| !types.is_empty()), code: classifier.icmp_code })
    }

    fn overlaps(&self, other: &Self) -> bool {
        let types = self.types.as_ref().zip(other.types.as_ref());
        types.is_none_or(|(one, other)| !one.is_disjoint(other)) && same(self.code, other.code)
    }

    fn covers(&self, other: &Self) -> bool {
        let types = |mine: &BTreeSet<u8>| other.types.as_ref().is_some_and(|other| other.is_subset(mine));
        self.types.as_ref().is_none_or(types) && (self.code.is_none() || self.code == other.code)
    }
}

/// Senders or receivers.
struct Side {
    any: bool,
    macs: Vec<MacAddr>,
    /// IP addresses as numbers.
    ips: Vec<RangeInclusive<u128>>,
}

impl Space {
    pub(super) fn of(classifier: &Classifier) -> Self {
        let part = |family| {
            Some(Part {
                protocol: protocol(classifier.protocol, family)?,
                source: Side::of(&classifier.source, family)?,
                destination: Side::of(&classifier.destination, family)?,
                icmp: Icmp::of(classifier, family)?,
            })
        };
        Self {
            vlan: classifier.vlan,
            families: FAMILIES.map(part),
            source_port: ports(&classifier.source_port),
            destination_port: ports(&classifier.destination_port),
        }
    }

    /// Is there no frame in it?
    fn is_empty(&self) -> bool {
        self.families.iter().all(Option::is_none)
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let parts = |(one, other): (&Option<Part>, &Option<Part>)| match (one, other) {
            (Some(one), Some(other)) => {
                same(one.protocol, other.protocol)
                    && one.source.overlaps(&other.source)
                    && one.destination.overlaps(&other.destination)
                    && one.icmp.overlaps(&other.icmp)
            }
            _ => false,
        };
        same(self.vlan, other.vlan)
            && meet(&self.source_port, &other.source_port)
            && meet(&self.destination_port, &other.destination_port)
            && self.families.iter().zip(&other.families).any(parts)
    }

    pub(super) fn covers(&self, other: &Self) -> bool {
        let parts = |(one, other): (&Option<Part>, &Option<Part>)| match (one, other) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(one), Some(other)) => {
                (one.protocol.is_none() || one.protocol == other.protocol)
                    && one.source.covers(&other.source)
                    && one.destination.covers(&other.destination)
                    && one.icmp.covers(&other.icmp)
            }
        };
        let asks_no_more = (self.vlan.is_none() || self.vlan == other.vlan)
            && hold(&self.source_port, &other.source_port)
            && hold(&self.destination_port, &other.destination_port)
            && self.families.iter().zip(&other.families).all(parts);
        asks_no_more || other.is_empty()
    }
}

impl Side {
    /// No address is any address. `None`: nobody of this family.
    fn of(addresses: &[Address], family: Family) -> Option<Self> {
        let mut macs = Vec::new();
        let mut ips = Vec::new();
        for address in addresses {
            match address {
                Address::Mac(mac) => macs.push(*mac),
                Address::Ip(prefix) => {
                    if family == (if prefix.address.is_ipv4() { Family::V4 } else { Family::V6 }) {
                        ips.push(prefix.range());
                    }
                }
            }
        }
        let ips = merged(ips, |last| last.checked_add(1));
        let all = match family {
            Family::V4 => 0..=u32::MAX.into(),
            Family::V6 | Family::Other => 0..=u128::MAX,
        };
        let any = addresses.is_empty() || ips == [all];
        (any || !macs.is_empty() || !ips.is_empty()).then_some(Self { any, macs, ips })
    }

    fn overlaps(&self, other: &Self) -> bool {
        // A station has one MAC address and any IP address.
        let mixed = |one: &Self, other: &Self| !one.macs.is_empty() && !other.ips.is_empty();
        self.any
            || other.any
            || mixed(self, other)
            || mixed(other, self)
            || self.macs.iter().any(|mac| other.macs.contains(mac))
            || meet(&self.ips, &other.ips)
    }

    fn covers(&self, other: &Self) -> bool {
        self.any || (!other.any && other.macs.iter().all(|mac| self.macs.contains(mac)) && hold(&self.ips, &other.ips))
    }
}

/// What a protocol asks of a family's frames: a number, or nothing; or it has none there.
fn protocol(protocol: Protocol, family: Family) -> Option<Option<u16>> {
    match (protocol, family) {
        (Protocol::Any, _)
        | (Protocol::Ethertype(ethertype::IPV4), Family::V4)
        | (Protocol::Ethertype(ethertype::IPV6), Family::V6) => Some(None),
        (Protocol::Ethertype(ethertype::IPV4 | ethertype::IPV6), _) => None,
        (Protocol::Ethertype(ethertype), Family::Other) => Some(Some(ethertype)),
        (Protocol::Ip(number), Family::V4 | Family::V6) => Some(Some(number.into())),
        (Protocol::Icmp, Family::V4) => Some(Some(1)),
        (Protocol::Icmp, Family::V6) => Some(Some(58)),
        (Protocol::Ethertype(_) | Protocol::Ip(_) | Protocol::Icmp, _) => None,
    }
}

fn ports(ranges: &[RangeInclusive<u16>]) -> Vec<RangeInclusive<u16>> {
    if ranges.is_empty() { vec![0..=u16::MAX] } else { merged(ranges.to_vec(), |last| last.checked_add(1)) }
}

/// In order, those that overlap or touch made one.
pub(super) fn merged<T: Ord + Copy>(
    mut ranges: Vec<RangeInclusive<T>>,
    next: impl Fn(T) -> Option<T>,
) -> Vec<RangeInclusive<T>> {
    ranges.sort_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<T>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if next(*last.end()).is_none_or(|behind| *range.start() <= behind) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// May both be met?
fn same<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
    one.is_none() || other.is_none() || one == other
}

/// Is something in one of each?
fn meet<T: Ord>(some: &[RangeInclusive<T>], others: &[RangeInclusive<T>]) -> bool {
    some.iter().any(|one| others.iter().any(|other| one.start() <= other.end() && other.start() <= one.end()))
}

/// Is all of the others in some? These are merged, so that each must be in a single one.
fn hold<T: Ord>(some: &[RangeInclusive<T>], others: &[RangeInclusive<T>]) -> bool {
    others.iter().all(|other| some.iter().any(|one| one.start() <= other.start() && other.end() <= one.end()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::IpAddr;

    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::super::chain::Prefix;
    use super::super::icmp::IcmpType;
    use super::super::model::Origin;
    use super::*;

    const MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
    const OTHER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 3]);

    /// Types and codes of ICMP.
    const KINDS: [[u8; 2]; 10] = [[8, 0], [8, 1], [8, 9], [128, 0], [128, 9], [5, 0], [5, 9], [2, 0], [2, 1], [2, 9]];

    /// A frame; ports are those of TCP and UDP.
    struct Frame {
        ethertype: u16,
        number: u8,
        vlan: Option<u16>,
        macs: [MacAddr; 2],
        ips: [u128; 2],
        ports: [u16; 2],
        /// Type and code of ICMP.
        icmp: [u8; 2],
    }

    fn is_in(frame: &Frame, classifier: &Classifier) -> bool {
        let over_ip = [0x0800, 0x86dd].contains(&frame.ethertype);
        let protocol = match classifier.protocol {
            Protocol::Any => true,
            Protocol::Ethertype(ethertype) => frame.ethertype == ethertype,
            Protocol::Ip(number) => over_ip && frame.number == number,
            Protocol::Icmp => [(0x0800, 1), (0x86dd, 58)].contains(&(frame.ethertype, frame.number)),
        };
        let side = |addresses: &[Address], side: usize| {
            addresses.is_empty()
                || addresses.iter().any(|address| match address {
                    Address::Mac(mac) => frame.macs[side] == *mac,
                    Address::Ip(Prefix { address: IpAddr::V4(address), length }) => {
                        let shift = 32 - u32::from(*length);
                        frame.ethertype == 0x0800
                            && frame.ips[side].checked_shr(shift) == u128::from(address.to_bits()).checked_shr(shift)
                    }
                    Address::Ip(Prefix { address: IpAddr::V6(address), length }) => {
                        let shift = 128 - u32::from(*length);
                        frame.ethertype == 0x86dd
                            && frame.ips[side].checked_shr(shift) == address.to_bits().checked_shr(shift)
                    }
                })
        };
        let port = |ranges: &[RangeInclusive<u16>], side: usize| {
            ranges.is_empty() || ranges.iter().any(|range| range.contains(&frame.ports[side]))
        };
        let icmp = || {
            let number = |it: &IcmpType| if frame.ethertype == 0x0800 { it.v4 } else { it.v6 };
            let of_type = |it: &IcmpType| number(it) == Some(frame.icmp[0]);
            (classifier.icmp_type.is_empty() || classifier.icmp_type.iter().any(of_type))
                && classifier.icmp_code.is_none_or(|code| code == frame.icmp[1])
        };
        protocol
            && (classifier.vlan.is_none() || classifier.vlan == frame.vlan)
            && side(&classifier.source, 0)
            && side(&classifier.destination, 1)
            && port(&classifier.source_port, 0)
            && port(&classifier.destination_port, 1)
            && icmp()
    }

    /// One frame at least of each kind that the classifiers below can tell apart.
    fn frames() -> Vec<Frame> {
        let mut frames = Vec::new();
        let macs = [MACS[0], MACS[1], OTHER_MAC];
        for (ethertype, numbers, bits) in [
            (0x0800, &[1, 6, 17, 58, 99][..], 32),
            (0x86dd, &[1, 6, 17, 58, 99][..], 128),
            (0x0806, &[0][..], 0),
            (0x88b5, &[0][..], 0),
        ] {
            let ips: Vec<u128> = if bits == 0 { vec![0] } else { (0..4).map(|top| top << (bits - 2)).collect() };
            for &number in numbers {
                let ports: &[u16] = if [6, 17].contains(&number) { &[0, 1, 2, 65_535] } else { &[0] };
                for vlan in [None, Some(1), Some(2)] {
                    for (from, to) in macs.iter().flat_map(|from| macs.iter().map(move |to| (*from, *to))) {
                        for (source, destination) in ips.iter().flat_map(|one| ips.iter().map(move |two| (*one, *two)))
                        {
                            for (one, two) in ports.iter().flat_map(|one| ports.iter().map(move |two| (*one, *two))) {
                                let icmp = [(0x0800, 1), (0x86dd, 58)].contains(&(ethertype, number));
                                let kinds: &[[u8; 2]] = if icmp { &KINDS } else { &[[0, 0]] };
                                frames.extend(kinds.iter().map(|icmp| Frame {
                                    ethertype,
                                    number,
                                    vlan,
                                    macs: [from, to],
                                    ips: [source, destination],
                                    ports: [one, two],
                                    icmp: *icmp,
                                }));
                            }
                        }
                    }
                }
            }
        }
        frames
    }

    fn addresses() -> impl Strategy<Value = Vec<Address>> {
        let mut all = MACS.map(Address::Mac).to_vec();
        for (length, top) in [(0_u8, 0_u8), (1, 0), (1, 128), (2, 0), (2, 64), (2, 128), (2, 192)] {
            all.push(Address::Ip(Prefix { address: [top, 0, 0, 0].into(), length }));
            all.push(Address::Ip(Prefix { address: [u16::from(top) << 8, 0, 0, 0, 0, 0, 0, 0].into(), length }));
        }
        prop_oneof![Just(Vec::new()), subsequence(all, 1..4)]
    }

    fn classifiers() -> impl Strategy<Value = Classifier> {
        let ranges =
            || prop_oneof![Just(Vec::new()), subsequence(vec![0..=0, 1..=1, 0..=1, 2..=65_534, 1..=65_535], 1..4)];
        let protocols = [
            Protocol::Any,
            Protocol::Any,
            Protocol::Icmp,
            Protocol::Ip(1),
            Protocol::TCP,
            Protocol::TCP,
            Protocol::UDP,
            Protocol::ARP,
            Protocol::Ethertype(0x0800),
            Protocol::Ethertype(0x86dd),
        ];
        let vlan = prop_oneof![3 => Just(None), 1 => Just(Some(1)), 1 => Just(Some(2))];
        let types =
            vec![IcmpType { v4: Some(8), v6: Some(128) }, IcmpType::numbered(5), IcmpType { v4: None, v6: Some(2) }];
        let types = prop_oneof![Just(Vec::new()), subsequence(types, 1..3)];
        let code = select(vec![None, None, Some(0), Some(9)]);
        (select(protocols.to_vec()), vlan, addresses(), addresses(), ranges(), ranges(), types, code).prop_map(
            |(protocol, vlan, source, destination, source_port, destination_port, types, code)| {
                let of_icmp = protocol == Protocol::Icmp;
                // Others have no ports, so nothing is asked of them.
                let with_ports =
                    |ports| if matches!(protocol, Protocol::TCP | Protocol::UDP) { ports } else { Vec::new() };
                Classifier {
                    protocol,
                    vlan,
                    source,
                    destination,
                    source_port: with_ports(source_port),
                    destination_port: with_ports(destination_port),
                    icmp_type: if of_icmp { types } else { Vec::new() },
                    icmp_code: code.filter(|_| of_icmp),
                    origin: Origin { file: "".into(), line: 1 },
                }
            },
        )
    }

    /// A classifier, and one that differs from it in few places: two that were made apart seldom hold one another.
    fn pairs() -> impl Strategy<Value = (Classifier, Classifier)> {
        (classifiers(), classifiers(), 0_u8..64).prop_map(|(one, mut other, like)| {
            let same = |bit: u8| like & 1 << bit != 0;
            let parts = [same(0), same(1), same(2), same(3), same(4), same(5)];
            if parts[0] && parts[4] && parts[5] {
                other.protocol = one.protocol;
                other.source_port.clone_from(&one.source_port);
                (other.icmp_type, other.icmp_code) = (one.icmp_type.clone(), one.icmp_code);
                other.destination_port.clone_from(&one.destination_port);
            }
            if parts[1] {
                other.vlan = one.vlan;
            }
            if parts[2] {
                other.source.clone_from(&one.source);
            }
            if parts[3] {
                other.destination.clone_from(&one.destination);
            }
            (one, other)
        })
    }

    #[test]
    fn sets_are_compared_as_counting_their_frames_does() {
        let frames = frames();
        let seen = [const { Cell::new(0) }; 4];
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        runner
            .run(&pairs(), |(one, other)| {
                let in_both = frames.iter().any(|frame| is_in(frame, &one) && is_in(frame, &other));
                let all_in = frames.iter().all(|frame| is_in(frame, &one) || !is_in(frame, &other));
                prop_assert_eq!(one.overlaps(&other), in_both);
                prop_assert_eq!(other.overlaps(&one), in_both);
                prop_assert_eq!(one.covers(&other), all_in);
                prop_assert!(one.covers(&one));
                let reversed = one.reversed().reversed();
                prop_assert_eq!(&reversed, &one);
                prop_assert_eq!(one.reversed().overlaps(&other.reversed()), in_both);
                let empty = !frames.iter().any(|frame| is_in(frame, &one));
                prop_assert_eq!(Space::of(&one).is_empty(), empty);
                prop_assert_eq!(one.entries() == 0, empty);
                for (count, what) in seen.iter().zip([in_both, !in_both, all_in && !empty, !all_in]) {
                    count.set(count.get() + usize::from(what));
                }
                Ok(())
            })
            .unwrap();
        assert!(seen.iter().all(|count| count.get() > 10), "each answer was given: {seen:?}");
    }
}
