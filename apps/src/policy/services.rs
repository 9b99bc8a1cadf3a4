//! What policy files say of service functions, chains and access rules.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use openflow::types::MacAddr;
use toml::de::{DeTable, DeValue};

use super::chain::{
    Address, Chain, Classifier, Function, FunctionKind, Instance, OnFailure, Prefix, Protocol, Rule, Verdict, ethertype,
};
use super::declared::{PortPart, choice, object};
use super::model::{Origin, RateLimit};
use super::rate;
use super::report::{At, Draft, Place, Report};
use super::schema;
use super::section::Section;
use super::text::quote;
use super::values;

/// Highest priority of chains and rules.
const PRIORITY_MAX: i64 = 10_000;
const WEIGHT_MAX: i64 = 100;
/// Higher VLAN ids mark frames of the fabric's own, or mean something else.
const VLAN_MAX: i64 = 4_093;

/// `[[tenant.function]]`.
pub(super) struct FunctionPart {
    pub(super) place: Place,
    pub(super) object: String,
    pub(super) name: Option<At<String>>,
    pub(super) kind: Option<FunctionKind>,
    on_failure: OnFailure,
    pub(super) instances: Vec<InstancePart>,
}

/// An entry of `instances`.
pub(super) struct InstancePart {
    place: Place,
    pub(super) object: String,
    pub(super) name: Option<At<String>>,
    pub(super) bridge: Option<At<String>>,
    pub(super) ingress: Option<At<String>>,
    pub(super) egress: Option<At<String>>,
    mac: Option<MacAddr>,
    weight: u16,
}

/// `[[tenant.chain]]`.
pub(super) struct ChainPart {
    pub(super) place: Place,
    pub(super) object: String,
    pub(super) name: Option<At<String>>,
    pub(super) priority: u16,
    pub(super) through: Vec<At<String>>,
    pub(super) symmetric: bool,
    broadcast: bool,
    pub(super) classifiers: Vec<ClassifierPart>,
    rate_limit: Option<RateLimit>,
}

/// `[[tenant.rule]]`.
pub(super) struct RulePart {
    pub(super) place: Place,
    pub(super) object: String,
    pub(super) name: Option<At<String>>,
    pub(super) priority: u16,
    pub(super) classifiers: Vec<ClassifierPart>,
    action: Option<Verdict>,
}

/// One table of a `match`.
pub(super) struct ClassifierPart {
    pub(super) place: Place,
    pub(super) object: String,
    protocol: Protocol,
    vlan: Option<u16>,
    pub(super) source: Vec<At<Term>>,
    pub(super) destination: Vec<At<Term>>,
    source_port: Vec<RangeInclusive<u16>>,
    destination_port: Vec<RangeInclusive<u16>>,
}

/// A sender or receiver.
pub(super) enum Term {
    Address(Address),
    /// The name of a port of the tenant.
    Port(String),
}

impl FunctionPart {
    pub(super) fn read(table: At<&DeTable<'_>>, tenant: &str, report: &mut Report) -> Self {
        let object = object("function", "name", table.value, &format!(" of {tenant}"));
        let section = Section::new(table.value, table.place, object, &schema::FUNCTION, report);
        let name = section.required("name", report).map(|name| values::name(&name, "a function", report));
        let kinds = [
            ("wire", FunctionKind::Wire),
            ("hairpin", FunctionKind::Hairpin),
            ("routed", FunctionKind::Routed),
            ("tap", FunctionKind::Tap),
        ];
        if section.is_absent("kind") {
            report.push(section.missing("kind"));
        }
        let kind = choice(&section, "kind", &kinds, report);
        let outcomes = [("drop", OnFailure::Drop), ("bypass", OnFailure::Bypass)];
        let on_failure = choice(&section, "on_failure", &outcomes, report);
        if kind == Some(FunctionKind::Tap) && on_failure.is_some() {
            report.push(
                Draft::error(format!("`on_failure` of {}: a tap is never in the way", section.object))
                    .at(section.place_of_key("on_failure"), "means nothing here")
                    .help("remove it: a tap that fails only misses its copies"),
            );
        }
        let instances = section.tables("instances", report);
        if section.is_empty("instances") {
            report.push(section.missing("instances"));
        }
        let instances =
            instances.into_iter().map(|table| InstancePart::read(table, kind, &section.object, report)).collect();
        let on_failure = on_failure.unwrap_or_default();
        Self { instances, name, kind, on_failure, place: section.place, object: section.object }
    }

    pub(super) fn finish(self, origin: &impl Fn(&Place) -> Origin) -> Option<Function> {
        let instances = self.instances.into_iter().map(|part| {
            let ingress = part.ingress?.value;
            Some(Instance {
                name: part.name?.value,
                bridge: part.bridge?.value,
                egress: part.egress.map_or_else(|| ingress.clone(), |egress| egress.value),
                ingress,
                mac: part.mac,
                weight: part.weight,
                origin: origin(&part.place),
            })
        });
        Some(Function {
            name: self.name?.value,
            kind: self.kind?,
            on_failure: self.on_failure,
            instances: instances.collect::<Option<_>>()?,
            origin: origin(&self.place),
        })
    }
}

impl InstancePart {
    fn read(table: At<&DeTable<'_>>, kind: Option<FunctionKind>, function: &str, report: &mut Report) -> Self {
        let object = object("instance", "name", table.value, &format!(" of {function}"));
        let section = Section::new(table.value, table.place, object, &schema::INSTANCE, report);
        section.refuse(&[("drain", "draining")], report);
        let name = section.required("name", report).map(|name| values::name(&name, "an instance", report));
        let what = |key: &str| format!("the `{key}` of {}", section.object);
        let literal = |key: &str, pattern: Option<At<String>>, report: &mut Report| {
            let pattern = pattern?;
            if values::is_literal(&pattern.value) {
                return Some(pattern);
            }
            report.push(
                Draft::error(format!("{} can't be {}", quote(&pattern.value), what(key)))
                    .at(pattern.place, "may stand for several")
                    .help(format!("an instance is in one place: write the one {key}")),
            );
            None
        };
        let bridge = section.required("bridge", report);
        let bridge = bridge.and_then(|text| values::bridge_pattern(&text, &what("bridge"), report));
        let bridge = literal("bridge", bridge, report);
        let ingress = section.required("ingress", report);
        let ingress = ingress.and_then(|text| values::port_pattern(&text, &what("ingress"), report));
        let ingress = literal("ingress", ingress, report);
        let egress = section.string("egress", report);
        if kind == Some(FunctionKind::Wire) && egress.is_none() && section.is_absent("egress") {
            report.push(section.missing("egress"));
        }
        if let (Some(egress), Some(FunctionKind::Hairpin | FunctionKind::Tap | FunctionKind::Routed)) = (&egress, kind)
        {
            report.push(
                Draft::error(format!("`egress` of {}: such a function has one port", section.object))
                    .at(egress.place.clone(), "a second port")
                    .help("remove it; only a function of kind \"wire\" has two ports"),
            );
        }
        let egress = egress.and_then(|text| values::port_pattern(&text, &what("egress"), report));
        let egress = literal("egress", egress, report);
        if let (Some(one), Some(other)) = (&ingress, &egress)
            && one.value == other.value
        {
            report.push(
                Draft::error(format!("ingress and egress of {} are the same port", section.object))
                    .at(other.place.clone(), "the same")
                    .also(one.place.clone(), "ingress")
                    .help("write the port that frames come out of, or make the function a \"hairpin\""),
            );
        }
        let mac = section.string("mac", report);
        match (kind, &mac) {
            (Some(FunctionKind::Routed), None) if section.is_absent("mac") => report.push(section.missing("mac")),
            (Some(FunctionKind::Wire | FunctionKind::Hairpin | FunctionKind::Tap), Some(mac)) => report.push(
                Draft::error(format!("`mac` of {}: frames reach such a function as they are", section.object))
                    .at(mac.place.clone(), "means nothing here")
                    .help("remove it; only a function of kind \"routed\" has frames sent to its own address"),
            ),
            _ => {}
        }
        let mac = mac.and_then(|mac| values::mac(&mac, &section.object, report)).map(|mac| mac.value);
        let weight = number(&section, "weight", 1..=WEIGHT_MAX, report).unwrap_or(1);
        Self { name, bridge, ingress, egress, mac, weight, place: section.place, object: section.object }
    }
}

impl ChainPart {
    pub(super) fn read(table: At<&DeTable<'_>>, tenant: &str, report: &mut Report) -> Self {
        let object = object("chain", "name", table.value, &format!(" of {tenant}"));
        let section = Section::new(table.value, table.place, object, &schema::CHAIN, report);
        let name = section.required("name", report).map(|name| values::name(&name, "a chain", report));
        let priority = number(&section, "priority", 0..=PRIORITY_MAX, report).unwrap_or(0);
        if section.is_absent("through") {
            report.push(section.missing("through"));
        }
        let through = section.strings("through", report);
        if let Some(list) = through.as_ref().filter(|list| !(1..=Chain::FUNCTIONS_MAX).contains(&list.value.len())) {
            report.push(
                Draft::error(format!("{} goes through {} functions", section.object, list.value.len()))
                    .at(list.place.clone(), "out of range")
                    .help(format!("write the names of 1 to {} functions", Chain::FUNCTIONS_MAX)),
            );
        }
        let through = through.map_or_else(Vec::new, |list| {
            list.value.into_iter().map(|it| At { value: it.value.to_lowercase(), place: it.place }).collect()
        });
        let symmetric = section.boolean("symmetric", report).unwrap_or(false);
        let broadcast = section.boolean("broadcast", report).unwrap_or(false);
        let classifiers = classifiers(&section, report);
        let rate_limit = rate::limit(&section, "rate_limit", report);
        let (place, object) = (section.place, section.object);
        Self { place, object, name, priority, through, symmetric, broadcast, classifiers, rate_limit }
    }

    pub(super) fn finish(self, ports: &[PortPart], origin: &impl Fn(&Place) -> Origin) -> Option<Chain> {
        Some(Chain {
            name: self.name?.value,
            priority: self.priority,
            through: self.through.into_iter().map(|name| name.value).collect(),
            symmetric: self.symmetric,
            broadcast: self.broadcast,
            classifiers: self.classifiers.iter().map(|it| it.resolve(ports, origin(&it.place))).collect(),
            rate_limit: self.rate_limit,
            origin: origin(&self.place),
        })
    }
}

impl RulePart {
    pub(super) fn read(table: At<&DeTable<'_>>, tenant: &str, report: &mut Report) -> Self {
        let object = object("rule", "name", table.value, &format!(" of {tenant}"));
        let section = Section::new(table.value, table.place, object, &schema::RULE, report);
        let name = section.required("name", report).map(|name| values::name(&name, "a rule", report));
        let priority = number(&section, "priority", 0..=PRIORITY_MAX, report).unwrap_or(0);
        if section.is_absent("action") {
            report.push(section.missing("action"));
        }
        let established = |action: At<&str>| action.value == "allow-established";
        let action = if section.string("action", &mut Report::default()).is_some_and(established) {
            section.refuse(&[("action", "`action = \"allow-established\"`")], report);
            None
        } else {
            choice(&section, "action", &[("allow", Verdict::Allow), ("drop", Verdict::Drop)], report)
        };
        let classifiers = classifiers(&section, report);
        Self { name, priority, classifiers, action, place: section.place, object: section.object }
    }

    pub(super) fn finish(self, ports: &[PortPart], origin: &impl Fn(&Place) -> Origin) -> Option<Rule> {
        Some(Rule {
            name: self.name?.value,
            priority: self.priority,
            classifiers: self.classifiers.iter().map(|it| it.resolve(ports, origin(&it.place))).collect(),
            action: self.action?,
            origin: origin(&self.place),
        })
    }
}

fn classifiers(section: &Section<'_>, report: &mut Report) -> Vec<ClassifierPart> {
    let tables = section.one_or_more_tables("match", report);
    if tables.is_empty() && (section.is_absent("match") || section.is_empty("match")) {
        report.push(section.missing("match"));
    }
    tables.into_iter().map(|table| ClassifierPart::read(table, &section.object, report)).collect()
}

impl ClassifierPart {
    fn read(table: At<&DeTable<'_>>, of: &str, report: &mut Report) -> Self {
        let section = Section::new(table.value, table.place, format!("the match of {of}"), &schema::MATCH, report);
        let protocol = protocol(&section, report);
        let vlan = number(&section, "vlan", 1..=VLAN_MAX, report);
        let mut ends = ["source", "destination"].map(|key| terms(&section, key, report)).into_iter();
        let (source, destination) = (ends.next().unwrap_or_default(), ends.next().unwrap_or_default());
        let mut ranges = ["source_port", "destination_port"].map(|key| ports(&section, key, report)).into_iter();
        let (source_port, destination_port) = (ranges.next().unwrap_or_default(), ranges.next().unwrap_or_default());
        for (key, ranges) in [("source_port", &source_port), ("destination_port", &destination_port)] {
            if !ranges.is_empty() && ![Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&protocol) {
                report.push(
                    Draft::error(format!("`{key}` of {}: only some protocols have ports", section.object))
                        .at(section.place_of_key(key), "ports of which protocol?")
                        .help("write protocol = \"tcp\", \"udp\" or \"sctp\" beside it"),
                );
            }
        }
        let (place, object) = (section.place, section.object);
        Self { place, object, protocol, vlan, source, destination, source_port, destination_port }
    }

    /// With names of ports replaced by what tells their frames. Names that aren't any port's were reported.
    pub(super) fn resolve(&self, ports: &[PortPart], origin: Origin) -> Classifier {
        let by_address = matches!(self.protocol, Protocol::Ip(_) | Protocol::Icmp);
        let resolve = |term: &At<Term>| match &term.value {
            Term::Address(address) => vec![*address],
            Term::Port(name) => {
                let Some(port) = ports.iter().find(|port| port.name.as_ref().is_some_and(|it| it.value == *name))
                else {
                    return Vec::new();
                };
                let mac = port.mac.as_ref().map(|mac| Address::Mac(mac.value));
                let host = |ip: &At<IpAddr>| Address::Ip(Prefix::around(ip.value, Prefix::bits(&ip.value)));
                match mac {
                    Some(mac) if !by_address || port.ip.is_empty() => vec![mac],
                    _ => port.ip.iter().map(host).collect(),
                }
            }
        };
        Classifier {
            protocol: self.protocol,
            vlan: self.vlan,
            source: self.source.iter().flat_map(resolve).collect(),
            destination: self.destination.iter().flat_map(resolve).collect(),
            source_port: self.source_port.clone(),
            destination_port: self.destination_port.clone(),
            origin,
        }
    }
}

fn protocol(section: &Section<'_>, report: &mut Report) -> Protocol {
    const NAMES: [(&str, Protocol); 6] = [
        ("tcp", Protocol::TCP),
        ("udp", Protocol::UDP),
        ("icmp", Protocol::Icmp),
        ("sctp", Protocol::SCTP),
        ("arp", Protocol::ARP),
        ("any", Protocol::Any),
    ];
    let named = match section.value("protocol") {
        None => Protocol::Any,
        Some((DeValue::Integer(_), _)) => match number(section, "protocol", 0..=255, report) {
            // A number stands for what its name stands for.
            Some(1 | 58) | None => Protocol::Icmp,
            Some(number) => Protocol::Ip(number as u8),
        },
        Some(_) => choice(section, "protocol", &NAMES, report).unwrap_or_default(),
    };
    let kind = match section.value("ethertype") {
        None => return named,
        Some((DeValue::String(text), place)) => {
            let digits = text.strip_prefix("0x").and_then(|digits| u16::from_str_radix(digits, 16).ok());
            if digits.is_none() {
                let title = format!("{} can't be the `ethertype` of {}", quote(text), section.object);
                report.push(
                    Draft::error(title).at(place, "not an Ethernet type").help("write it like: ethertype = 0x88b5"),
                );
            }
            digits
        }
        Some(_) => number(section, "ethertype", 0x600..=0xffff, report),
    };
    if named != Protocol::Any {
        report.push(
            Draft::error(format!("{} has both a protocol and an Ethernet type", section.object))
                .at(section.place_of_key("ethertype"), "beside a protocol")
                .help("remove one of the two: a protocol implies its Ethernet types"),
        );
    }
    kind.map_or(Protocol::Any, Protocol::Ethertype)
}

fn terms(section: &Section<'_>, key: &str, report: &mut Report) -> Vec<At<Term>> {
    let mut terms = Vec::new();
    for (value, place) in section.one_or_more(key, report) {
        let DeValue::String(text) = value else {
            report.push(section.wrong(key, place, "a text in quotes or a list of them", super::section::kind(value)));
            continue;
        };
        let text = At { value: text.as_ref(), place };
        terms.extend(term(section, key, &text, report).map(|value| At { value, place: text.place }));
    }
    terms
}

fn term(section: &Section<'_>, key: &str, text: &At<&str>, report: &mut Report) -> Option<Term> {
    let wrong = |why: &str, help: String| {
        let title = format!("{} can't be the `{key}` of {}", quote(text.value), section.object);
        Draft::error(title).at(text.place.clone(), why).help(help)
    };
    if let Ok(mac) = text.value.parse::<MacAddr>() {
        return Some(Term::Address(Address::Mac(mac)));
    }
    if let Ok(ip) = text.value.parse::<IpAddr>() {
        return Some(Term::Address(Address::Ip(Prefix::around(ip, Prefix::bits(&ip)))));
    }
    if let Some((ip, length)) = text.value.split_once('/') {
        let (Ok(ip), Ok(length)) = (ip.parse::<IpAddr>(), length.parse::<u8>()) else {
            report.push(wrong("not a prefix", "write a prefix like \"10.0.0.0/24\" or \"2001:db8::/64\"".into()));
            return None;
        };
        if length > Prefix::bits(&ip) {
            report.push(wrong("too long", format!("such a prefix has at most {} bits", Prefix::bits(&ip))));
            return None;
        }
        let prefix = Prefix::around(ip, length);
        if prefix.address != ip {
            report.push(wrong(
                "has bits behind the prefix",
                format!("write \"{prefix}\" for the network, or \"{ip}\" for the one address"),
            ));
            return None;
        }
        return Some(Term::Address(Address::Ip(prefix)));
    }
    Some(Term::Port(text.value.to_lowercase()))
}

fn ports(section: &Section<'_>, key: &str, report: &mut Report) -> Vec<RangeInclusive<u16>> {
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
    for (value, place) in section.one_or_more(key, report) {
        let range = match value {
            DeValue::Integer(number) => {
                let port = u16::from_str_radix(number.as_str(), number.radix()).ok();
                port.map(|port| port..=port)
            }
            DeValue::String(text) => text.split_once('-').and_then(|(from, to)| {
                let (from, to) = (from.trim().parse::<u16>().ok()?, to.trim().parse::<u16>().ok()?);
                (from <= to).then_some(from..=to)
            }),
            _ => None,
        };
        match range {
            Some(range) => ranges.push(range),
            None => report.push(
                Draft::error(format!("`{key}` of {} has a value that is no port", section.object))
                    .at(place, "neither a port nor a range")
                    .help("write ports as numbers from 0 to 65535, ranges like \"8000-8010\", or a list of both"),
            ),
        }
    }
    ranges.sort_by_key(|range| (*range.start(), *range.end()));
    let mut merged: Vec<RangeInclusive<u16>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + 1 => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// A whole number within bounds.
fn number(section: &Section<'_>, key: &str, range: RangeInclusive<i64>, report: &mut Report) -> Option<u16> {
    let number = section.integer(key, report)?;
    if range.contains(&number.value) {
        return u16::try_from(number.value).ok();
    }
    report.push(
        Draft::error(format!("`{key}` of {} is out of range", section.object))
            .at(number.place, "out of range")
            .help(format!("write a number from {} to {}", range.start(), range.end())),
    );
    None
}

/// May frames of the protocol bear addresses of this kind?
pub(super) fn bears(protocol: Protocol, address: &Address) -> bool {
    match (protocol, address) {
        (Protocol::Ethertype(kind), Address::Ip(prefix)) => {
            kind == if prefix.address.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 }
        }
        _ => true,
    }
}
