//! `match`: which frames a chain or a rule is for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use openflow::types::MacAddr;
use toml::de::DeTable;

use super::chain::{Address, Classifier, Prefix, Protocol};
use super::chains::Classifiers;
use super::diagnostic::Code;
use super::icmp;
use super::model::Origin;
use super::ports::PortPart;
use super::report::{At, Draft, Report};
use super::schema;
use super::section::{Scalar, Section};
use super::space::merged;
use super::text::{quote, suggestion};
use crate::assigned::ethertype;

/// The tenant's ports that have names.
pub(super) type Ports<'a> = BTreeMap<&'a str, &'a PortPart>;

/// Highest VLAN id that a sender may put on; those above mark frames on links.
const VLAN_MAX: u16 = 4_093;

/// Numbers below this are lengths, not types (IEEE 802.3-2022 §3.2.6).
const ETHERTYPE_MIN: u16 = 0x0600;

const PROTOCOLS: [(&str, Protocol); 6] = [
    ("tcp", Protocol::TCP),
    ("udp", Protocol::UDP),
    ("icmp", Protocol::Icmp),
    ("sctp", Protocol::SCTP),
    ("arp", Protocol::ARP),
    ("any", Protocol::Any),
];

/// Reads the `match` of a chain or a rule.
pub(super) fn read(section: &Section<'_>, ports: &Ports<'_>, report: &mut Report) -> Classifiers {
    let tables = section.tables_or_one("match", report);
    if tables.is_empty() {
        return None;
    }
    let all: Vec<_> = tables.into_iter().map(|table| classifier(table, &section.object, ports, report)).collect();
    all.into_iter().collect()
}

fn classifier(table: At<&DeTable<'_>>, of: &str, ports: &Ports<'_>, report: &mut Report) -> Option<At<Classifier>> {
    let section = Section::new(table.value, table.place, format!("a match of {of}"), &schema::MATCH, report);
    let protocol = protocol(&section, report);
    let vlan = section.bounded("vlan", [1, VLAN_MAX], report);
    let source = addresses(&section, "source", protocol, ports, report);
    let destination = addresses(&section, "destination", protocol, ports, report);
    let source_port = port_ranges(&section, "source_port", protocol, report);
    let destination_port = port_ranges(&section, "destination_port", protocol, report);
    let (icmp_type, icmp_code) = icmp::read(&section, protocol, report);
    if section.has("vlan") && vlan.is_none() {
        return None;
    }
    let value = Classifier {
        protocol: protocol?,
        vlan,
        source: source?,
        destination: destination?,
        source_port: source_port?,
        destination_port: destination_port?,
        icmp_type: icmp_type?,
        icmp_code: icmp_code?,
        origin: Origin { file: Arc::from(""), line: 0 },
    };
    match value.entries() {
        0 if section.has("icmp_type") => report.push(
            Draft::error(format!("{}: no frame is of its `icmp_type`", section.object))
                .at(section.place_of_key("icmp_type"), "not of the version of IP that its addresses are of")
                .help("write a type that this version of ICMP has, or addresses of the other one"),
        ),
        0 => report.push(
            Draft::error(format!("{}: no frame goes from its `source` to its `destination`", section.object))
                .at(section.place_of_key("destination"), "of another version of IP")
                .also(section.place_of_key("source"), "of one version of IP")
                .help("write addresses of the same version on both sides"),
        ),
        1..=Classifier::ENTRIES_MAX => return Some(At { value, place: section.place }),
        entries => report.push(
            Draft::error(format!("{} becomes {entries} flow entries", section.object))
                .code(Code::TooLarge)
                .at(section.place, format!("more than {}", Classifier::ENTRIES_MAX))
                .help(
                    "each pair of addresses is an entry, for each mask of the ports: write prefixes, or fewer of them",
                ),
        ),
    }
    None
}

fn protocol(section: &Section<'_>, report: &mut Report) -> Option<Protocol> {
    let by_name = match section.scalar("protocol", report) {
        None if section.has("protocol") => None,
        None => Some(Protocol::Any),
        Some(At { value: Scalar::Number(number), place }) => {
            let number = u8::try_from(number).ok();
            if number.is_none() {
                report.push(
                    Draft::error(format!("`protocol` of {} is out of range", section.object))
                        .at(place, "no protocol number")
                        .help("write a name such as \"tcp\", or a protocol number of IP from 0 to 255"),
                );
            }
            number.map(Protocol::Ip)
        }
        Some(At { value: Scalar::Text(text), place }) => {
            let known = PROTOCOLS.iter().find(|(name, _)| *name == text).map(|(_, protocol)| *protocol);
            if known.is_none() {
                let help = match suggestion(text, PROTOCOLS.iter().map(|(name, _)| *name), report) {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => {
                        let names: Vec<String> = PROTOCOLS.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                        format!("write {}, or a protocol number of IP without quotes", names.join(", "))
                    }
                };
                report.push(
                    Draft::error(format!("{} can't be the `protocol` of {}", quote(text), section.object))
                        .at(place, "not known")
                        .help(help),
                );
            }
            known
        }
    };
    let Some(written) = section.scalar("ethertype", report) else {
        return by_name.filter(|_| !section.has("ethertype"));
    };
    let ethertype = ethertype(section, &written, report);
    if by_name.is_some_and(|protocol| protocol != Protocol::Any) {
        report.push(
            Draft::error(format!("{} has both `protocol` and `ethertype`", section.object))
                .code(Code::Misplaced)
                .at(written.place, "one says what the other does")
                .also(section.place_of_key("protocol"), "`protocol`")
                .help("remove one of the two"),
        );
        return None;
    }
    by_name.and(ethertype).map(Protocol::Ethertype)
}

fn ethertype(section: &Section<'_>, written: &At<Scalar<'_>>, report: &mut Report) -> Option<u16> {
    let number = match written.value {
        Scalar::Number(number) => u16::try_from(number).ok(),
        Scalar::Text(text) => {
            let digits = text.strip_prefix("0x").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
            digits.and_then(|digits| u16::from_str_radix(digits, 16).ok())
        }
    };
    let (why, help) = match number {
        Some(0x8100 | 0x88a8) => ("that of a VLAN tag", "write `vlan` for tagged frames, or the type behind the tag"),
        Some(number) if number >= ETHERTYPE_MIN => return Some(number),
        _ => ("no Ethernet type", "write a number from 0x0600 to 0xffff, like: ethertype = 0x88b5"),
    };
    report.push(
        Draft::error(format!("`ethertype` of {} can't be this", section.object))
            .at(written.place.clone(), why)
            .help(help),
    );
    None
}

/// The addresses of one side, in order; none: any. Names of ports are replaced by what is pinned to them.
fn addresses(
    section: &Section<'_>,
    key: &str,
    protocol: Option<Protocol>,
    ports: &Ports<'_>,
    report: &mut Report,
) -> Option<Vec<Address>> {
    let Some((list, mut sound)) = section.scalars(key, report) else { return (!section.has(key)).then(Vec::new) };
    let mut all = Vec::new();
    for item in list {
        let Scalar::Text(value) = item.value else {
            report.push(section.wrong(key, item.place, "texts in quotes", "a whole number"));
            sound = false;
            continue;
        };
        let text = At { value, place: item.place };
        let found = match address(&text, section, key, report) {
            Parsed::Address(address) => fitting(address, protocol, &text, section, key, report).map(|it| vec![it]),
            Parsed::Name => named(&text, section, key, protocol, ports, report),
            Parsed::Wrong => None,
        };
        match found {
            Some(addresses) => all.extend(addresses),
            None => sound = false,
        }
    }
    all.sort_unstable();
    all.dedup();
    sound.then_some(all)
}

/// What a text is as an address.
enum Parsed {
    Address(Address),
    Name,
    /// Neither; it has been reported.
    Wrong,
}

fn address(text: &At<&str>, section: &Section<'_>, key: &str, report: &mut Report) -> Parsed {
    let wrong = |why: &str, help: String| {
        Draft::error(format!("{} can't be in `{key}` of {}", quote(text.value), section.object))
            .at(text.place.clone(), why)
            .help(help)
    };
    if let Ok(mac) = text.value.parse::<MacAddr>() {
        return Parsed::Address(Address::Mac(mac));
    }
    let (address, length) = match text.value.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text.value, None),
    };
    let draft = match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            wrong("an IPv4 address inside an IPv6 address", "write the IPv4 address or prefix alone".into())
        }
        Ok(address) => {
            let bits = Prefix::bits(&address);
            let digits = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let written = match length {
                None => Some(bits),
                Some(text) => Some(text).filter(digits).and_then(|text| text.parse().ok()),
            };
            match written.filter(|length| *length <= bits) {
                None => wrong("not a prefix", format!("write how many bits are the same, 0 to {bits}, behind the `/`")),
                Some(length) => {
                    let prefix = Prefix::around(address, length);
                    if prefix.address == address {
                        return Parsed::Address(Address::Ip(prefix));
                    }
                    wrong("has bits behind its length", format!("write \"{prefix}\", or \"{address}\" for the one"))
                }
            }
        }
        Err(_) => {
            let allowed = |char: char| matches!(char, 'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.');
            if !text.value.is_empty() && text.value.chars().all(allowed) {
                return Parsed::Name;
            }
            let help =
                "write the name of a port, or an address like \"02:00:32:00:00:01\", \"10.0.0.1\" or \"10.0.0.0/24\"";
            wrong("neither an address nor a name", help.into())
        }
    };
    report.push(draft);
    Parsed::Wrong
}

/// Refuses an address that no frame of the protocol has, or none on this side.
fn fitting(
    address: Address,
    protocol: Option<Protocol>,
    text: &At<&str>,
    section: &Section<'_>,
    key: &str,
    report: &mut Report,
) -> Option<Address> {
    let (why, help) = match (address, protocol) {
        _ if key == "source" && address.is_group() => {
            ("a group address", "no frame is sent from one: write it as `destination`, or correct it".to_owned())
        }
        (Address::Ip(prefix), Some(Protocol::Ethertype(number))) => {
            let version = if prefix.address.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
            if number == version {
                return Some(address);
            }
            let help = format!("write MAC addresses, or match Ethernet type {version:#06x} instead of {number:#06x}");
            ("an IP address of other frames", help)
        }
        _ => return Some(address),
    };
    report.push(
        Draft::error(format!("{} can't be in `{key}` of {}", quote(text.value), section.object))
            .at(text.place.clone(), why)
            .help(help),
    );
    None
}

/// What tells the frames of a named port apart.
fn named(
    name: &At<&str>,
    section: &Section<'_>,
    key: &str,
    protocol: Option<Protocol>,
    ports: &Ports<'_>,
    report: &mut Report,
) -> Option<Vec<Address>> {
    let Some(port) = ports.get(name.value) else {
        let help = match suggestion(name.value, ports.keys().copied(), report) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => "give a port of the tenant this name with `name`, or write an address".into(),
        };
        report.push(
            Draft::error(format!("`{key}` of {}: no port is named {}", section.object, quote(name.value)))
                .code(Code::UnknownName)
                .at(name.place.clone(), "not known")
                .help(help),
        );
        return None;
    };
    let mac = port.mac.as_ref().map(|mac| Address::Mac(mac.value));
    let ip = |ip: &At<IpAddr>| Address::Ip(Prefix { address: ip.value, length: Prefix::bits(&ip.value) });
    let ips: Vec<Address> = port.ip.iter().map(ip).collect();
    let found: Vec<Address> = match protocol.unwrap_or(Protocol::Any) {
        Protocol::Ethertype(_) => mac.into_iter().collect(),
        Protocol::Any if mac.is_some() => mac.into_iter().collect(),
        Protocol::Any => ips,
        Protocol::Ip(_) | Protocol::Icmp if ips.is_empty() => mac.into_iter().collect(),
        Protocol::Ip(_) | Protocol::Icmp => ips,
    };
    if !found.is_empty() {
        return Some(found);
    }
    // A wrong address of the port has been reported there.
    let (needed, help) = match protocol {
        Some(Protocol::Ethertype(_)) => (!port.mac_is_written, "write `mac` at the port"),
        _ => (!port.mac_is_written && !port.ip_is_written, "write `mac` or `ip` at the port"),
    };
    if needed {
        report.push(
            Draft::error(format!("`{key}` of {}: nothing tells frames of {} apart", section.object, port.object))
                .code(Code::MissingKey)
                .at(name.place.clone(), "which frames are its?")
                .also(port.place.clone(), "the port")
                .help(help),
        );
    }
    None
}

/// Ports of one side, in order and apart from each other; none: any.
fn port_ranges(
    section: &Section<'_>,
    key: &str,
    protocol: Option<Protocol>,
    report: &mut Report,
) -> Option<Vec<RangeInclusive<u16>>> {
    let Some((list, mut sound)) = section.scalars(key, report) else { return (!section.has(key)).then(Vec::new) };
    let has_ports = |protocol| matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP);
    if protocol.is_some_and(|protocol| !has_ports(protocol)) {
        report.push(
            Draft::error(format!("`{key}` of {}: its protocol has no ports", section.object))
                .code(Code::Misplaced)
                .at(section.place_of_key(key), "only tcp, udp and sctp have ports")
                .help(format!("write protocol = \"tcp\" beside it, or remove `{key}`")),
        );
        sound = false;
    }
    let mut ranges = Vec::new();
    for item in list {
        let (title, why, help) = match item.value {
            Scalar::Number(number) => match u16::try_from(number) {
                Ok(port) => {
                    ranges.push(port..=port);
                    continue;
                }
                Err(_) => ("a number".to_owned(), "out of range", "write a number from 0 to 65535".to_owned()),
            },
            Scalar::Text(text) => match range(text) {
                Some((from, to)) if from <= to => {
                    ranges.push(from..=to);
                    continue;
                }
                Some((from, to)) => (quote(text), "ends before it begins", format!("write \"{to}-{from}\"")),
                None => {
                    let help = "write a number from 0 to 65535 without quotes, or a range like \"8000-8010\"";
                    (quote(text), "neither a port nor a range", help.to_owned())
                }
            },
        };
        sound = false;
        report.push(
            Draft::error(format!("{title} can't be in `{key}` of {}", section.object)).at(item.place, why).help(help),
        );
    }
    sound.then(|| merged(ranges, |last| last.checked_add(1)))
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-')?;
    let number = |text: &str| {
        let digits = text.trim_matches(' ');
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    Some((number(from)?, number(to)?))
}
