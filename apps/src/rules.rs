//! Access rules: what may enter. A rule holds where a frame enters, for all its ways.

use std::fmt;

use openflow::action::{Action, Conntrack, ConntrackFlags, Nested};
use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::oxm::Oxm;
use openflow::types::TableId;

use crate::assigned::ethertype::{ARP, IPV4, IPV6, TAGS};
use crate::assigned::icmpv6::ROUTER_ADVERTISEMENT;
use crate::assigned::protocol::{ICMPV6, SCTP, TCP, UDP};
use crate::chains::FIRST;
use crate::classifiers::{LATER, expand, of_fragments};
use crate::desired::{Draft, apply, drop, go};
use crate::guard::{DHCP_PORTS, DHCPV6_PORTS};
use crate::pipeline::{CLASSIFY, RULES};
use crate::policy::{RuleAction, Tenant, Verdict};

const DISCOVERY: [u8; 4] = [133, 134, 135, 136];

/// Requests and answers without which no station finds another: ARP, and neighbour discovery of IPv6 (RFC 4861 §4), router
/// solicitations and advertisements included. They pass unless a rule says otherwise.
pub(crate) fn discovery() -> Vec<Vec<Oxm>> {
    let of_ipv6 =
        DISCOVERY.map(|kind| vec![Oxm::EthType(IPV6, None), Oxm::IpProto(ICMPV6, None), Oxm::Icmpv6Type(kind, None)]);
    [vec![Oxm::EthType(ARP, None)]].into_iter().chain(of_ipv6).collect()
}

/// What DHCP clients and servers send to each other. It passes unless a rule says otherwise where some port is a server's; answers
/// come from such ports alone (`guard.rs`).
fn dhcp() -> impl Iterator<Item = Vec<Oxm>> {
    let of = |version, ports: [u16; 2]| {
        ports.map(|to| vec![Oxm::EthType(version, None), Oxm::IpProto(UDP, None), Oxm::UdpDst(to, None)])
    };
    of(IPV4, DHCP_PORTS).into_iter().chain(of(IPV6, DHCPV6_PORTS))
}

/// Bits of `ct_state` (ovs-fields(7)): a connection of which both directions were seen; one that an error message is about;
/// in the direction of replies; that there can't be; looked up at all.
const ESTABLISHED: u32 = 0x02;
const RELATED: u32 = 0x04;
const REPLY: u32 = 0x08;
const INVALID: u32 = 0x10;
const TRACKED: u32 = 0x20;

/// Priority of what ends frames of which rules and chains can't tell what they are.
const UNREAD: u16 = FIRST + 9;

/// Priority of what ends fragments that belong to no connection, before what looks up connections.
const STRAY: u16 = FIRST + 2;

/// Why rules and chains can't tell what a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unread {
    /// It has two tags: Open vSwitch sees nothing behind the second one (with `vlan-limit=2`, behind the third).
    InnerVlans,
    /// Its headers are spread over fragments, or Open vSwitch can't read those of IPv6 up to the protocol.
    Headers,
}

impl Unread {
    /// What an operator can do.
    pub const fn help(self) -> &'static str {
        match self {
            Self::InnerVlans => {
                "if they may pass unseen by rules and chains, write inner_vlans = \"pass\" in its [[tenant]]"
            }
            Self::Headers => "no ordinary system sends them: look at who does",
        }
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InnerVlans => "frames with two VLAN tags",
            Self::Headers => "packets with headers spread over fragments",
        })
    }
}

/// What finds all entries of [`unread`], and a few others.
pub fn unread_filters() -> Vec<(Unread, TableId, Match)> {
    let tagged = TAGS.map(|tag| (Unread::InnerVlans, vec![Oxm::EthType(tag, None)]));
    let first = VERSIONS.map(|version| (Unread::Headers, vec![Oxm::EthType(version, None), Oxm::NwFrag(1, None)]));
    let unknown = (Unread::Headers, vec![Oxm::EthType(IPV6, None), Oxm::IpProto(0, None)]);
    let all = tagged.into_iter().chain(first).chain([unknown]);
    all.map(|(why, fields)| (why, RULES, Match::new(fields))).collect()
}

/// What ends such frames where they enter, but for whose they are.
pub fn unread() -> Vec<(Unread, TableId, Match)> {
    let behind = TAGS.map(|tag| (Unread::InnerVlans, Match::new([Oxm::EthType(tag, None)])));
    let split = |version: u16| {
        // Open vSwitch takes ports for 0 where the header isn't whole (`miniflow_extract` in lib/flow.c). UDP's always is.
        let of_ports =
            [(TCP, Oxm::TcpSrc(0, None), Oxm::TcpDst(0, None)), (SCTP, Oxm::SctpSrc(0, None), Oxm::SctpDst(0, None))];
        of_ports.map(|(number, from, to)| {
            let fields = [Oxm::EthType(version, None), Oxm::NwFrag(1, None), Oxm::IpProto(number, None), from, to];
            (Unread::Headers, Match::new(fields))
        })
    };
    let unknown = (Unread::Headers, Match::new([Oxm::EthType(IPV6, None), Oxm::IpProto(0, None)]));
    let all = behind.into_iter().chain(VERSIONS.into_iter().flat_map(split)).chain([unknown]);
    all.map(|(why, matching)| (why, RULES, matching)).collect()
}

/// Looks up, or remembers, which connection a packet belongs to, among those of a tenant; `zone` tells tenants apart.
pub(crate) fn track(zone: u16, flags: ConntrackFlags, table: TableId) -> Action {
    Action::Ct(Conntrack { flags, zone_source: 0, zone, table, helper: 0, actions: Nested::default() })
}

/// The two versions of IP.
pub(crate) const VERSIONS: [u16; 2] = [IPV4, IPV6];

/// The entries of a tenant's rules, the same at each bridge where it has ports. Connections are remembered where their
/// first packets are delivered (`tenants.rs`), so it is there that their replies are known.
pub(crate) fn compile(tenant: &Tenant, zone: Option<u16>) -> Vec<Draft> {
    let then = |verdict: Verdict| -> Vec<Instruction> {
        match verdict {
            Verdict::Allow => go(CLASSIFY),
            Verdict::Drop => drop(),
        }
    };
    let mut drafts = Vec::new();
    for (why, table, matching) in unread() {
        let ends = match why {
            Unread::InnerVlans => tenant.ends_inner_vlans(),
            Unread::Headers => tenant.ends_split_headers(),
        };
        let origin = tenant.origin.clone();
        drafts.extend(ends.then(|| Draft { table, priority: UNREAD, matching, instructions: drop(), origin }));
    }
    if let Some(zone) = zone.filter(|_| tenant.tracks_connections()) {
        for version in VERSIONS {
            // What nobody completed comes out of `ct` beside somebody else's packet (Open vSwitch 3.1, `lib/ipf.c`): it is of any tenant.
            let stray = Oxm::CtState(INVALID, Some(INVALID));
            let matching = Match::new([Oxm::EthType(version, None), Oxm::NwFrag(1, Some(1)), stray]);
            let origin = tenant.origin.clone();
            drafts.push(Draft { table: RULES, priority: STRAY, matching, instructions: drop(), origin });
            // It comes back to this table, and is looked up no second time.
            let matching = Match::new([Oxm::EthType(version, None), Oxm::CtState(0, Some(TRACKED))]);
            let instructions = apply(vec![track(zone, ConntrackFlags::empty(), RULES)]);
            drafts.push(Draft {
                table: RULES,
                priority: FIRST + 1,
                matching,
                instructions,
                origin: tenant.origin.clone(),
            });
        }
    }
    for (rank, rule) in (0..).zip(&tenant.rules) {
        let (priority, origin) = (FIRST - rank, rule.origin.clone());
        let mut matches = expand(&rule.classifiers, true);
        if rule.action != RuleAction::Drop {
            // What a rule lets in it lets in whole. Without the first, which is held against all that rules say, the others are nothing.
            matches.append(&mut of_fragments(&matches, &LATER, false));
        }
        for matching in matches {
            let (matches, verdict) = match rule.action {
                RuleAction::Allow => (vec![matching], Verdict::Allow),
                RuleAction::Drop => (vec![matching], Verdict::Drop),
                RuleAction::AllowEstablished => (established(&matching), Verdict::Allow),
            };
            for matching in matches {
                let origin = origin.clone();
                drafts.push(Draft { table: RULES, priority, matching, instructions: then(verdict), origin });
            }
        }
    }
    let mut otherwise = |priority, fields: Vec<Oxm>, verdict| {
        let (matching, origin) = (Match::new(fields), tenant.origin.clone());
        drafts.push(Draft { table: RULES, priority, matching, instructions: then(verdict), origin });
    };
    if tenant.default == Verdict::Drop {
        // Where no port is a router's, nobody advertises one.
        let advertises = Oxm::Icmpv6Type(ROUTER_ADVERTISEMENT, None);
        let routers = tenant.ports.iter().any(|port| port.router);
        let found = discovery().into_iter().filter(|fields| routers || !fields.contains(&advertises));
        found.for_each(|fields| otherwise(2, fields, Verdict::Allow));
        let servers = tenant.ports.iter().any(|port| port.dhcp_server);
        dhcp().filter(|_| servers).for_each(|fields| otherwise(2, fields, Verdict::Allow));
    }
    otherwise(1, Vec::new(), tenant.default);
    drafts
}

/// What of a match belongs to connections that were let through, and errors about them.
fn established(matching: &Match) -> Vec<Match> {
    let mut matches = Vec::new();
    for version in VERSIONS {
        let told = matching.fields().iter().find(|field| matches!(field, Oxm::EthType(..)));
        if told.is_some_and(|told| *told != Oxm::EthType(version, None)) {
            continue;
        }
        for state in [ESTABLISHED | REPLY, RELATED] {
            let of_version = [Oxm::EthType(version, None), Oxm::CtState(state | TRACKED, Some(state | TRACKED))];
            matches.push(Match::new(matching.fields().iter().cloned().chain(of_version)));
        }
    }
    matches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_ends_unread_frames_is_asked_for() {
        for (why, table, matching) in unread() {
            let has = |fields: &Match| fields.fields().iter().all(|field| matching.fields().contains(field));
            let mut asked = unread_filters().into_iter();
            assert!(asked.any(|(of, at, fields)| (of, at) == (why, table) && has(&fields)), "{matching}");
            assert_eq!(matching.check(), Ok(()));
        }
    }
}
