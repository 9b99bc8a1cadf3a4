//! Requests to everybody that a tenant's rules let in, and whose answers they don't although replies are meant to pass: what is sent to
//! everybody is remembered as no connection (docs/pipeline.md), so `allow-established` lets in no answer to it.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::chain::{Address, Classifier, Prefix, Protocol, RuleAction, Verdict};
use super::chains::RulePart;
use super::declared::TenantPart;
use super::diagnostic::Code;
use super::model::Origin;
use super::ports::PortPart;
use super::report::{At, Draft, Place, Report};
use super::space::Space;

/// Frames to look for: protocol, senders, receivers, first and last of the source and destination ports.
struct Kind {
    protocol: Protocol,
    source: &'static [IpAddr],
    destination: &'static [(IpAddr, u8)],
    ports: [Option<(u16, u16)>; 2],
}

/// A protocol by which stations ask everybody.
struct Asked {
    name: &'static str,
    request: Kind,
    answer: Kind,
    /// Can't a station without it know its own address? Such answers pass from the ports of servers alone where the default is to
    /// drop, and need no rule there.
    gives_address: bool,
    /// A rule that lets its answers in.
    remedy: &'static str,
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(first: u16, last: [u16; 2]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, last[0], last[1]))
}

/// One station's address, whichever it is.
const STATIONS: &[(IpAddr, u8)] = &[
    (v4(0, 0, 0, 0), 1),
    (v4(128, 0, 0, 0), 2),
    (v4(192, 0, 0, 0), 3),
    (v6(0x2000, [0, 0]), 3),
    (v6(0xfc00, [0, 0]), 7),
    (v6(0xfe80, [0, 0]), 10),
];

/// Ports that stations choose for themselves (RFC 6335 §6).
const OWN: Option<(u16, u16)> = Some((49_152, 65_535));

const fn one(port: u16) -> Option<(u16, u16)> {
    Some((port, port))
}

/// UDP to a group and port, answered from that port by one station to another.
const fn udp(name: &'static str, group: &'static [(IpAddr, u8)], port: u16, remedy: &'static str) -> Asked {
    Asked {
        name,
        gives_address: false,
        request: Kind { protocol: Protocol::UDP, source: &[], destination: group, ports: [OWN, one(port)] },
        answer: Kind { protocol: Protocol::UDP, source: &[], destination: STATIONS, ports: [one(port), OWN] },
        remedy,
    }
}

const ASKED: [Asked; 8] = [
    Asked {
        name: "DHCP",
        gives_address: true,
        request: Kind {
            protocol: Protocol::UDP,
            source: &[v4(0, 0, 0, 0)],
            destination: &[(v4(255, 255, 255, 255), 32)],
            ports: [one(68), one(67)],
        },
        answer: Kind { protocol: Protocol::UDP, source: &[], destination: &[], ports: [one(67), one(68)] },
        remedy: "{ protocol = \"udp\", source_port = 67, destination_port = 68 }",
    },
    Asked {
        name: "DHCPv6",
        gives_address: true,
        request: Kind {
            protocol: Protocol::UDP,
            source: &[],
            destination: &[(v6(0xff02, [1, 2]), 128)],
            ports: [one(546), one(547)],
        },
        answer: Kind { protocol: Protocol::UDP, source: &[], destination: STATIONS, ports: [one(547), one(546)] },
        remedy: "{ protocol = \"udp\", source_port = 547, destination_port = 546 }",
    },
    Asked {
        name: "IGMP",
        gives_address: false,
        request: Kind {
            protocol: Protocol::Ip(2),
            source: &[],
            destination: &[(v4(224, 0, 0, 1), 32)],
            ports: [None; 2],
        },
        answer: Kind {
            protocol: Protocol::Ip(2),
            source: &[],
            destination: &[(v4(224, 0, 0, 22), 32)],
            ports: [None; 2],
        },
        remedy: "{ protocol = 2 }",
    },
    Asked {
        name: "MLD",
        gives_address: false,
        request: Kind {
            protocol: Protocol::Icmp,
            source: &[],
            destination: &[(v6(0xff02, [0, 1]), 128)],
            ports: [None; 2],
        },
        answer: Kind {
            protocol: Protocol::Icmp,
            source: &[],
            destination: &[(v6(0xff02, [0, 0x16]), 128)],
            ports: [None; 2],
        },
        remedy: "{ protocol = \"icmp\", destination = \"ff02::16\" }",
    },
    udp("SSDP", &[(v4(239, 255, 255, 250), 32)], 1900, "{ protocol = \"udp\", source_port = 1900 }"),
    udp("WS-Discovery", &[(v4(239, 255, 255, 250), 32)], 3702, "{ protocol = \"udp\", source_port = 3702 }"),
    udp(
        "LLMNR",
        &[(v4(224, 0, 0, 252), 32), (v6(0xff02, [1, 3]), 128)],
        5355,
        "{ protocol = \"udp\", source_port = 5355 }",
    ),
    Asked {
        name: "NetBIOS",
        gives_address: false,
        request: Kind {
            protocol: Protocol::UDP,
            source: &[],
            destination: &[(v4(255, 255, 255, 255), 32)],
            ports: [one(137), one(137)],
        },
        // Those that ask are asked, too: what lets in one by its ports alone lets in the other.
        answer: Kind { protocol: Protocol::UDP, source: &[], destination: STATIONS, ports: [one(137), one(137)] },
        remedy: "{ protocol = \"udp\", source_port = 137 }",
    },
];

impl Kind {
    fn classifier(&self) -> Classifier {
        let range = |ports: Option<(u16, u16)>| -> Vec<RangeInclusive<u16>> {
            ports.map(|(first, last)| first..=last).into_iter().collect()
        };
        let whole = |address: &IpAddr| Address::Ip(Prefix { address: *address, length: Prefix::bits(address) });
        let prefix = |(address, length): &(IpAddr, u8)| Address::Ip(Prefix { address: *address, length: *length });
        Classifier {
            protocol: self.protocol,
            vlan: None,
            source: self.source.iter().map(whole).collect(),
            destination: self.destination.iter().map(prefix).collect(),
            source_port: range(self.ports[0]),
            destination_port: range(self.ports[1]),
            icmp_type: Vec::new(),
            icmp_code: None,
            origin: Origin { file: Arc::from(""), line: 0 },
        }
    }

    fn space(&self) -> Space {
        Space::of(&self.classifier())
    }

    /// Is a rule's classifier for such frames above all, and not for whatever a station sends?
    fn is_meant_by(&self, classifier: &Classifier) -> bool {
        let names_port = self.ports[1].is_none() || !classifier.destination_port.is_empty();
        let names_group = classifier.destination.iter().any(Address::is_group);
        // Nobody asks everybody at one station's address.
        let to_station = |address: &Address| matches!(address, Address::Mac(mac) if !mac.is_group());
        let to_stations = !classifier.destination.is_empty() && classifier.destination.iter().all(to_station);
        !to_stations && (classifier.protocol == self.protocol && names_port || names_group)
    }
}

/// What a rule matches, each with its frames.
type Matches<'a> = Vec<(&'a At<Classifier>, Space)>;

/// Rules in the order in which they are asked, with what they match.
struct Rules<'a> {
    rules: Vec<(&'a RulePart, Matches<'a>)>,
    default: Verdict,
}

impl<'a> Rules<'a> {
    fn of(tenant: &'a TenantPart) -> Option<Self> {
        let one = |rule: &'a RulePart| {
            let classifiers = rule.classifiers.as_ref()?.iter();
            Some((rule, classifiers.map(|at| (at, Space::of(&at.value))).collect()))
        };
        // Where one of them is wrong, what they do together isn't known.
        let mut rules = tenant.rules.iter().map(one).collect::<Option<Vec<_>>>()?;
        rules.sort_by_key(|(rule, _)| Reverse(rule.priority));
        Some(Self { rules, default: tenant.default })
    }

    /// The first rule that lets some of these frames in before all of them are dropped, with what of its `match` does, other
    /// than this; `Err`: the default decides.
    fn lets_in(
        &self,
        space: &Space,
        but: Option<&Place>,
    ) -> Result<Option<(&'a RulePart, &'a At<Classifier>)>, Verdict> {
        for (rule, classifiers) in &self.rules {
            match rule.action {
                Some(RuleAction::Allow) => {
                    let mut others = classifiers.iter().filter(|(at, _)| Some(&at.place) != but);
                    if let Some((at, _)) = others.find(|(_, of)| of.overlaps(space)) {
                        return Ok(Some((rule, at)));
                    }
                }
                Some(RuleAction::Drop) if classifiers.iter().any(|(_, of)| of.covers(space)) => return Ok(None),
                _ => {}
            }
        }
        Err(self.default)
    }

    /// A rule that is to let in replies like these.
    fn replies(&self, space: &Space) -> Option<&'a RulePart> {
        let of_replies = |(rule, _): &&(&RulePart, _)| rule.action == Some(RuleAction::AllowEstablished);
        let mut rules = self.rules.iter().filter(of_replies);
        rules.find(|(_, of)| of.iter().any(|(_, of)| of.overlaps(space))).map(|(rule, _)| *rule)
    }
}

/// Lets it in whatever one station sends that may have to ask for its IP address?
fn sends_all(tenant: &TenantPart, classifier: &Classifier) -> bool {
    let [Address::Mac(mac)] = classifier.source.as_slice() else { return false };
    let has_address = |port: &PortPart| port.mac.as_ref().is_some_and(|pin| pin.value == *mac) && port.ip_is_written;
    classifier.protocol == Protocol::Any && classifier.destination.is_empty() && !tenant.ports.iter().any(has_address)
}

/// Reports rules that let in such requests, and no answers. One message for each rule is enough.
pub(super) fn check(tenant: &TenantPart, report: &mut Report) {
    let Some(rules) = Rules::of(tenant) else { return };
    let served = tenant.ports.iter().any(|port| port.dhcp_server);
    let left_to_servers = |asked: &Asked| asked.gives_address && tenant.default == Verdict::Drop;
    let mut found: Vec<(&RulePart, &At<Classifier>, &RulePart, Vec<&Asked>)> = Vec::new();
    for asked in &ASKED {
        let answer = asked.answer.space();
        let Ok(Some((rule, at))) = rules.lets_in(&asked.request.space(), None) else { continue };
        let sends_all = asked.gives_address && sends_all(tenant, &at.value);
        if !sends_all && !asked.request.is_meant_by(&at.value) {
            continue;
        }
        // Who asks isn't who answers.
        let ends = rules.lets_in(&answer, Some(&at.place).filter(|_| sends_all));
        let Some(replies) = rules.replies(&answer) else { continue };
        let dropped = match ends {
            _ if left_to_servers(asked) && !served => true,
            Err(Verdict::Drop) => !left_to_servers(asked),
            ends => matches!(ends, Ok(None)),
        };
        if !dropped {
            continue;
        }
        match found.iter_mut().find(|(_, before, ..)| before.place == at.place) {
            Some((.., names)) => names.push(asked),
            None => found.push((rule, at, replies, vec![asked])),
        }
    }
    for (rule, at, replies, asked) in found {
        let names: Vec<&str> = asked.iter().map(|asked| asked.name).collect();
        let (servers, others): (Vec<&Asked>, Vec<&Asked>) =
            asked.into_iter().partition(|asked| left_to_servers(asked) && !served);
        let server = "write dhcp_server = true at the ports of servers";
        let by_rules = |others: &[&Asked]| {
            let remedies: Vec<&str> = others.iter().map(|asked| asked.remedy).collect();
            format!("add a rule with match = [{}] and action = \"allow\"", remedies.join(", "))
        };
        let remedy = match (servers.as_slice(), others.as_slice()) {
            ([], others) => by_rules(others),
            (_, []) => server.to_owned(),
            (_, others) => format!("{server}, and {}", by_rules(others)),
        };
        report.push(
            Draft::warning(format!(
                "{} lets in requests of {} to everybody, and nothing lets in the answers",
                rule.object,
                names.join(" and ")
            ))
            .code(Code::AnswersDropped)
            .at(at.place.clone(), "asked here")
            .also(replies.place.clone(), "knows no answer to what went to everybody")
            .help(format!("if they are to be answered, {remedy}")),
        );
    }
}
