//! What a classifier of the policy asks of frames, read from its words.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use openflow::types::MacAddr;

use super::regions::{Field, ICMP, ICMPV6, IPV4, IPV6, Test};
use crate::policy::{Address, Classifier, Protocol};

/// The bit that group addresses have (IEEE 802-2014 §8.2.2).
const GROUP: u128 = 1 << 40;

/// What asks for fragments of such packets by what every one of them shows.
pub(super) fn as_fragment(tests: &[(Field, Test)], fragment: Test) -> Vec<Vec<(Field, Test)>> {
    // What is for no packet is for no fragment.
    if tests.iter().any(|(_, test)| test.finds_nothing()) {
        return Vec::new();
    }
    let shown = |version| {
        let hidden = move |field| match field {
            Field::Protocol => version == IPV6,
            Field::SourcePort | Field::DestinationPort | Field::Icmp | Field::Code => true,
            _ => false,
        };
        let shown = tests.iter().filter(|(field, _)| !hidden(*field)).cloned();
        shown.chain([(Field::Type, Test::is(version)), (Field::Fragment, fragment.clone())]).collect()
    };
    [IPV4, IPV6].map(shown).to_vec()
}

/// One end of a frame's way, as far as one field tells it.
enum End {
    Any,
    Station(Test),
    /// With the version of IP.
    Ip(u128, Test),
}

fn ends(addresses: &[Address]) -> Vec<End> {
    if addresses.is_empty() {
        return vec![End::Any];
    }
    let (mut macs, mut of_ip) = (Vec::new(), [(IPV4, Vec::new()), (IPV6, Vec::new())]);
    for address in addresses {
        match address {
            Address::Mac(MacAddr([a, b, c, d, e, f])) => {
                let number = u64::from_be_bytes([0, 0, *a, *b, *c, *d, *e, *f]).into();
                macs.push(number..=number);
            }
            Address::Ip(prefix) => {
                let (at, first, bits) = match prefix.address {
                    IpAddr::V4(address) => (0, u128::from(address.to_bits()), 32),
                    IpAddr::V6(address) => (1, address.to_bits(), 128),
                };
                let open = u128::MAX.checked_shr(128 - bits + u32::from(prefix.length)).unwrap_or(0);
                of_ip[at].1.push(first..=first | open);
            }
        }
    }
    let stations = (!macs.is_empty()).then_some(End::Station(Test::Within(macs)));
    let of_ip = of_ip.into_iter().filter(|(_, ranges)| !ranges.is_empty());
    stations.into_iter().chain(of_ip.map(|(version, ranges)| End::Ip(version, Test::Within(ranges)))).collect()
}

/// What a classifier asks: any of these. Without `groups` none of its frames is for a group address, unless it names that.
pub(super) fn asks(classifier: &Classifier, groups: bool) -> Vec<Vec<(Field, Test)>> {
    let both = vec![IPV4, IPV6];
    let protocols: Vec<(Option<Vec<u128>>, Option<u128>)> = match classifier.protocol {
        Protocol::Any => vec![(None, None)],
        Protocol::Ethertype(number) => vec![(Some(vec![number.into()]), None)],
        Protocol::Ip(number) => vec![(Some(both), Some(number.into()))],
        Protocol::Icmp => vec![(Some(vec![IPV4]), Some(ICMP)), (Some(vec![IPV6]), Some(ICMPV6))],
    };
    let ports = |ranges: &[RangeInclusive<u16>]| {
        let ranges = ranges.iter().map(|range| (*range.start()).into()..=(*range.end()).into());
        Test::Within(ranges.collect())
    };
    let mut all = Vec::new();
    for source in ends(&classifier.source) {
        for destination in ends(&classifier.destination) {
            for (types, number) in &protocols {
                let mut types = types.clone();
                let mut tests = Vec::new();
                for (end, station, address) in
                    [(&source, Field::Source, Field::From), (&destination, Field::Destination, Field::To)]
                {
                    match end {
                        End::Any => {}
                        End::Station(test) => tests.push((station, test.clone())),
                        End::Ip(version, test) => {
                            tests.push((address, test.clone()));
                            types =
                                Some(types.unwrap_or(vec![*version]).into_iter().filter(|it| it == version).collect());
                        }
                    }
                }
                if !groups && !matches!(destination, End::Station(_)) {
                    tests.push((Field::Destination, Test::Masked(0, GROUP)));
                }
                tests.extend(
                    types.map(|types| (Field::Type, Test::Within(types.into_iter().map(|it| it..=it).collect()))),
                );
                tests.extend(number.map(|number| (Field::Protocol, Test::is(number))));
                tests.extend(classifier.vlan.map(|vlan| (Field::Vlan, Test::is(0x1000 | u128::from(vlan)))));
                let v4 = *number == Some(ICMP);
                let of_type = classifier.icmp_type.iter().filter_map(|it| if v4 { it.v4 } else { it.v6 });
                let of_type: Vec<_> = of_type.map(|kind| kind.into()..=kind.into()).collect();
                // None of that version is asked for: this finds nothing.
                tests.extend((!classifier.icmp_type.is_empty()).then_some((Field::Icmp, Test::Within(of_type))));
                tests.extend(classifier.icmp_code.map(|code| (Field::Code, Test::is(code.into()))));
                for (field, ranges) in [
                    (Field::SourcePort, &classifier.source_port),
                    (Field::DestinationPort, &classifier.destination_port),
                ] {
                    tests.extend((!ranges.is_empty()).then(|| (field, ports(ranges))));
                }
                all.push(tests);
            }
        }
    }
    all
}
