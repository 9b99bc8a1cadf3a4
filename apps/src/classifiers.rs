//! From a classifier of the policy to the matches that stand for it: one for each family, address and block of ports.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use openflow::matching::Match;
use openflow::oxm::Oxm;
use openflow::types::MacAddr;

use crate::assigned::ethertype::{IPV4, IPV6};
use crate::assigned::protocol::{ICMP, ICMPV6};
use crate::links::tagged;
use crate::policy::{Address, Classifier, Prefix, Protocol, port_masks};
use crate::tenants::GROUP_BIT;

/// One end of a frame's way: the fields that tell it.
#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

/// `ip_frag` (ovs-fields(7)) of any fragment, and of one that isn't its datagram's first.
pub(crate) const FRAGMENT: Oxm = Oxm::NwFrag(1, Some(1));
pub(crate) const LATER: Oxm = Oxm::NwFrag(3, None);

/// What of these matches fragments may be of which `fragment` tells, though they don't show it: only the first of a datagram has ports, or
/// a type of ICMP, and of IPv6 a protocol. Left out are those that ask for nothing of this, unless `all` are wanted.
pub(crate) fn of_fragments(matches: &BTreeSet<Match>, fragment: &Oxm, all: bool) -> BTreeSet<Match> {
    let mut fragments = BTreeSet::new();
    for matching in matches {
        let told = matching.fields().iter().find_map(|field| match field {
            Oxm::EthType(version, _) => Some(*version),
            _ => None,
        });
        for version in [IPV4, IPV6].into_iter().filter(|version| told.is_none_or(|told| told == *version)) {
            let fields = matching.fields().iter().filter(|field| all_have(field, version)).cloned();
            let fields: Vec<Oxm> = fields.chain(told.is_none().then_some(Oxm::EthType(version, None))).collect();
            if all || fields.len() < matching.fields().len() {
                fragments.insert(Match::new(fields.into_iter().chain([fragment.clone()])));
            }
        }
    }
    fragments
}

/// Do all fragments of a datagram of this version of IP have such a field?
fn all_have(field: &Oxm, version: u16) -> bool {
    match field {
        Oxm::IpProto(..) => version == IPV4,
        Oxm::TcpSrc(..) | Oxm::TcpDst(..) | Oxm::UdpSrc(..) | Oxm::UdpDst(..) | Oxm::SctpSrc(..) | Oxm::SctpDst(..) => {
            false
        }
        Oxm::Icmpv4Type(..) | Oxm::Icmpv4Code(..) | Oxm::Icmpv6Type(..) | Oxm::Icmpv6Code(..) => false,
        _ => true,
    }
}

/// The matches of all these classifiers together, each once. Without `groups` none of them is for a group address.
pub(crate) fn expand(classifiers: &[Classifier], groups: bool) -> BTreeSet<Match> {
    let mut all = BTreeSet::new();
    for classifier in classifiers {
        for source in options(&classifier.source) {
            for destination in options(&classifier.destination) {
                for family in families(classifier.protocol, source, destination) {
                    let mut fields = Vec::new();
                    fields.extend(classifier.vlan.map(|vlan| Oxm::VlanVid(tagged(vlan), None)));
                    fields.extend(family.map(|ethertype| Oxm::EthType(ethertype, None)));
                    fields.extend(number(classifier.protocol, family).map(|number| Oxm::IpProto(number, None)));
                    fields.extend(source.map(|address| end(End::Source, address)));
                    let to = destination.map(|address| end(End::Destination, address));
                    if !groups && !matches!(to, Some(Oxm::EthDst(..))) {
                        fields.push(Oxm::EthDst(MacAddr::default(), Some(GROUP_BIT)));
                    }
                    fields.extend(to);
                    for message in messages(classifier, family) {
                        for from in ports(classifier.protocol, End::Source, &classifier.source_port) {
                            for to in ports(classifier.protocol, End::Destination, &classifier.destination_port) {
                                let told = message.iter().cloned().chain(from.clone()).chain(to);
                                all.insert(Match::new(fields.iter().cloned().chain(told)));
                            }
                        }
                    }
                }
            }
        }
    }
    all
}

fn options(addresses: &[Address]) -> Vec<Option<Address>> {
    if addresses.is_empty() { vec![None] } else { addresses.iter().copied().map(Some).collect() }
}

/// Ethernet types that a protocol between two addresses can come in; `None`: whichever.
fn families(protocol: Protocol, source: Option<Address>, destination: Option<Address>) -> Vec<Option<u16>> {
    let of = |address: Option<Address>| match address {
        Some(Address::Ip(prefix)) => Some(if prefix.address.is_ipv4() { IPV4 } else { IPV6 }),
        _ => None,
    };
    let wanted = match (of(source), of(destination)) {
        (Some(one), Some(other)) if one != other => return Vec::new(),
        (one, other) => one.or(other),
    };
    match protocol {
        Protocol::Any => vec![wanted],
        Protocol::Ethertype(ethertype) if wanted.is_none_or(|wanted| wanted == ethertype) => vec![Some(ethertype)],
        Protocol::Ethertype(_) => Vec::new(),
        Protocol::Ip(_) | Protocol::Icmp => {
            [IPV4, IPV6].into_iter().filter(|it| wanted.is_none_or(|wanted| wanted == *it)).map(Some).collect()
        }
    }
}

fn number(protocol: Protocol, family: Option<u16>) -> Option<u8> {
    match protocol {
        Protocol::Ip(number) => Some(number),
        Protocol::Icmp => Some(if family == Some(IPV6) { ICMPV6 } else { ICMP }),
        Protocol::Any | Protocol::Ethertype(_) => None,
    }
}

fn end(end: End, address: Address) -> Oxm {
    match (address, end) {
        (Address::Mac(mac), End::Source) => Oxm::EthSrc(mac, None),
        (Address::Mac(mac), End::Destination) => Oxm::EthDst(mac, None),
        (Address::Ip(Prefix { address: IpAddr::V4(ip), length }), end) => {
            let mask = (length < 32).then(|| Ipv4Addr::from(!u32::MAX.checked_shr(length.into()).unwrap_or(0)));
            match end {
                End::Source => Oxm::Ipv4Src(ip, mask),
                End::Destination => Oxm::Ipv4Dst(ip, mask),
            }
        }
        (Address::Ip(Prefix { address: IpAddr::V6(ip), length }), end) => {
            let mask = (length < 128).then(|| Ipv6Addr::from(!u128::MAX.checked_shr(length.into()).unwrap_or(0)));
            match end {
                End::Source => Oxm::Ipv6Src(ip, mask),
                End::Destination => Oxm::Ipv6Dst(ip, mask),
            }
        }
    }
}

/// What tells the ICMP messages of a classifier in a version of IP; nothing: all do.
fn messages(classifier: &Classifier, family: Option<u16>) -> Vec<Vec<Oxm>> {
    if classifier.protocol != Protocol::Icmp {
        return vec![Vec::new()];
    }
    let v4 = family == Some(IPV4);
    let code =
        classifier.icmp_code.map(|code| if v4 { Oxm::Icmpv4Code(code, None) } else { Oxm::Icmpv6Code(code, None) });
    let of = |kind: Option<u8>| {
        let kind = kind.map(|kind| if v4 { Oxm::Icmpv4Type(kind, None) } else { Oxm::Icmpv6Type(kind, None) });
        kind.into_iter().chain(code.clone()).collect()
    };
    match classifier.icmp_types(v4) {
        None => Vec::new(),
        Some(types) if types.is_empty() => vec![of(None)],
        Some(types) => types.into_iter().map(|kind| of(Some(kind))).collect(),
    }
}

/// Each block of ports as a field; one `None` if any port will do.
fn ports(protocol: Protocol, end: End, ranges: &[RangeInclusive<u16>]) -> Vec<Option<Oxm>> {
    let field = |(value, mask): (u16, u16)| {
        let mask = (mask != u16::MAX).then_some(mask);
        match (protocol, end) {
            (Protocol::TCP, End::Source) => Some(Oxm::TcpSrc(value, mask)),
            (Protocol::TCP, End::Destination) => Some(Oxm::TcpDst(value, mask)),
            (Protocol::UDP, End::Source) => Some(Oxm::UdpSrc(value, mask)),
            (Protocol::UDP, End::Destination) => Some(Oxm::UdpDst(value, mask)),
            (Protocol::SCTP, End::Source) => Some(Oxm::SctpSrc(value, mask)),
            (Protocol::SCTP, End::Destination) => Some(Oxm::SctpDst(value, mask)),
            _ => None,
        }
    };
    if ranges.is_empty() {
        return vec![None];
    }
    // A policy has ports only with a protocol that has them.
    ranges.iter().flat_map(port_masks).map(field).filter(Option::is_some).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{IcmpType, Origin};

    fn classifier(protocol: Protocol) -> Classifier {
        Classifier {
            protocol,
            vlan: None,
            source: Vec::new(),
            destination: Vec::new(),
            source_port: Vec::new(),
            destination_port: Vec::new(),
            icmp_type: Vec::new(),
            icmp_code: None,
            origin: Origin { file: "a.toml".into(), line: 1 },
        }
    }

    fn prefix(text: &str, length: u8) -> Address {
        Address::Ip(Prefix { address: text.parse().unwrap(), length })
    }

    fn texts(classifier: &Classifier) -> Vec<String> {
        let matches = expand(std::slice::from_ref(classifier), true);
        assert!(matches.iter().all(|it| it.check().is_ok()), "a bridge would refuse one of {matches:?}");
        matches.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_classifier_becomes_an_entry_for_each_family_address_and_block_of_ports() {
        let mut web = classifier(Protocol::TCP);
        web.destination_port = vec![80..=80, 8000..=8011];
        assert_eq!(texts(&web).len(), 2 * 3, "{:?}", texts(&web));
        web.destination = vec![prefix("10.0.0.0", 24), prefix("2001:db8::", 64)];
        assert_eq!(texts(&web).len(), 2 * 3);
        web.source = vec![prefix("10.0.1.1", 32)];
        assert_eq!(texts(&web).len(), 3, "IPv6 doesn't come from IPv4");
        assert!(texts(&web)[0].contains("ipv4_dst=10.0.0.0/255.255.255.0"), "{:?}", texts(&web));
        assert_eq!(texts(&classifier(Protocol::Icmp)).len(), 2);
        assert_eq!(texts(&classifier(Protocol::ARP)).len(), 1);
        assert_eq!(texts(&classifier(Protocol::Any)).len(), 1);
    }

    #[test]
    fn every_kind_of_classifier_says_what_it_means() {
        let ports = |protocol| Classifier { source_port: vec![5060..=5060], ..classifier(protocol) };
        let tag = Classifier { vlan: Some(7), ..classifier(Protocol::Any) };
        let station = Address::Mac(MacAddr([2, 0, 0, 0, 0, 1]));
        let from = Classifier { source: vec![station], ..classifier(Protocol::Ethertype(0x88b5)) };
        let too_big = IcmpType { v4: None, v6: Some(2) };
        let ping = IcmpType { v4: Some(8), v6: Some(128) };
        let messages = Classifier { icmp_type: vec![ping, too_big], icmp_code: Some(0), ..classifier(Protocol::Icmp) };
        assert_eq!(texts(&messages).len(), 3);
        for (classifier, wanted) in [
            (messages.clone(), "eth_type=0x800,ip_proto=1,icmpv4_type=8,icmpv4_code=0"),
            (messages, "eth_type=0x86dd,ip_proto=58,icmpv6_type=2,icmpv6_code=0"),
            (ports(Protocol::SCTP), "eth_type=0x800,ip_proto=132,sctp_src=5060"),
            (ports(Protocol::UDP), "eth_type=0x800,ip_proto=17,udp_src=5060"),
            (classifier(Protocol::Ip(47)), "eth_type=0x800,ip_proto=47"),
            (classifier(Protocol::Icmp), "eth_type=0x800,ip_proto=1"),
            (classifier(Protocol::ARP), "eth_type=0x806"),
            (from, "eth_src=02:00:00:00:00:01,eth_type=0x88b5"),
            (tag, "vlan_vid=0x1007"),
        ] {
            let told = texts(&classifier);
            assert!(told.iter().any(|text| text == wanted), "{told:?}, not {wanted}");
        }
    }

    #[test]
    fn fragments_are_told_by_what_all_of_them_have() {
        let mut names = classifier(Protocol::UDP);
        names.destination_port = vec![53..=54];
        names.destination = vec![prefix("10.0.0.1", 32), prefix("2001:db8::", 64)];
        let whole = expand(std::slice::from_ref(&names), true);
        let told = |matches: BTreeSet<Match>| matches.iter().map(ToString::to_string).collect::<Vec<_>>();
        let later = of_fragments(&whole, &LATER, false);
        assert!(later.iter().all(|it| it.check().is_ok()));
        let later = told(later);
        assert_eq!(later.len(), 2, "{later:?}");
        assert!(later.iter().any(|it| it.contains("ip_proto=17") && it.contains("ip_frag=") && !it.contains("udp")));
        assert!(later.iter().any(|it| it.contains("eth_type=0x86dd") && !it.contains("ip_proto")), "{later:?}");
        let any = expand(&[classifier(Protocol::Any)], true);
        assert_eq!(of_fragments(&any, &FRAGMENT, false).len(), 0);
        assert_eq!(of_fragments(&any, &FRAGMENT, true).len(), 2, "one for each version");
        assert_eq!(of_fragments(&expand(&[classifier(Protocol::ARP)], true), &FRAGMENT, true).len(), 0);
    }

    #[test]
    fn without_groups_only_frames_to_stations_match() {
        let matches = expand(&[classifier(Protocol::Any)], false);
        assert_eq!(matches.first().unwrap().to_string(), "eth_dst=00:00:00:00:00:00/01:00:00:00:00:00");
    }
}
