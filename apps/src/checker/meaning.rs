//! What rules and chains say of frames, read from the policy itself, and whether the entries that are asked say the same.

use std::cmp::Reverse;
use std::fmt;
use std::ops::{Range, RangeInclusive};

use openflow::action::Action;
use openflow::matching::Match;
use openflow::oxm::Oxm;
use openflow::types::{PortNo, TableId};

use super::asks::{as_fragment, asks};
use super::chains::{Next, Then};
use super::entries::{Entry, Scan};
use super::look::{Does, Seen};
use super::regions::{
    ARP, ESTABLISHED, FIRST, Field, ICMPV6, INVALID, IPV4, IPV6, Kind, LATER, RELATED, REPLY, Row, TAGS, TRACKED, Test,
    differences,
};
use super::surroundings::Behind;
use super::{Here, Property, Violation, entry_name};
use crate::allocation::Numbers;
use crate::desired::{Flow, FlowKey};
use crate::marks::{Direction, metadata};
use crate::pipeline::{BALANCE, CLASSIFY, RULES};
use crate::policy::{Chain, Function, FunctionKind, Rule, RuleAction, Tenant, Verdict};

/// IP protocols of which Open vSwitch may find no ports in the first fragment.
const TCP: u128 = 6;
const SCTP: u128 = 132;
/// Messages of neighbour discovery (RFC 4861 §4): a tenant whose default is to drop lets them pass, as it does ARP, but for
/// advertisements of routers where no port is one's.
const DISCOVERY: RangeInclusive<u128> = 133..=136;

/// Entries that are asked about the same frames.
type Entries<'t> = Vec<(&'t FlowKey, &'t Flow)>;

/// Where frames are held against rules and chains.
#[derive(Clone, Copy, PartialEq)]
enum Gate<'a> {
    /// Where they enter.
    Entering,
    /// Where they come back from a function, in these directions, or are led past it because it is down.
    Returning(&'a str, [bool; 2], bool),
}

/// What needn't be looked at again where another bridge has the same.
#[derive(PartialEq)]
pub(super) struct Held<'t, 'a> {
    gate: Gate<'a>,
    passable: Vec<bool>,
    entries: Entries<'t>,
}

/// What in the policy says so.
#[derive(Clone, Copy, Debug)]
enum By<'a> {
    Rule(&'a str),
    Default,
    InnerVlans,
    /// What shows no ports, or no protocol.
    Headers,
    /// Fragments that may be anybody's.
    Strays,
}

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(name) => write!(f, "rule {name}"),
            Self::Default => f.write_str("the tenant's default"),
            Self::InnerVlans => f.write_str("inner_vlans"),
            Self::Headers => f.write_str("the guard against split headers"),
            Self::Strays => f.write_str("the guard against others' fragments"),
        }
    }
}

/// What becomes of a frame that is held against rules.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Enters,
    Ends,
    /// Its connection is looked up first.
    Tracked,
}

impl<'s, 'a> Scan<'s, 'a> {
    /// Holds the entries that frames of the tenant are held against where they enter, or come back from functions, against what
    /// the policy says of them.
    pub(super) fn meaning(&mut self, here: Here<'s>, tenant: &'a Tenant, numbers: Numbers) {
        if !here.judged {
            return;
        }
        let (entered, returning) = (std::mem::take(&mut self.entered), std::mem::take(&mut self.returning));
        let of_host =
            |port: &PortNo| matches!(self.places.of(here.index, *port), Behind::Tenant(key) if key == numbers.key);
        let mut ports = vec![None];
        let told = here.section.flows.range(asked()).filter_map(|(key, _)| Seen::of(&key.matching).in_port);
        ports.extend(told.filter(of_host).map(Some));
        for value in &entered {
            for port in &ports {
                self.hold(here, tenant, numbers, Gate::Entering, *value, *port);
            }
        }
        for port in &returning {
            let Behind::Function(_, service, name) = self.places.of(here.index, *port) else { continue };
            let Some(function) = tenant.functions.iter().find(|it| it.name == service.function) else { continue };
            let Some(instance) = function.instances.iter().find(|it| it.name == service.instance) else { continue };
            let came = match instance.ingress == instance.egress {
                true => [true, true],
                false => [name == instance.egress, name == instance.ingress],
            };
            for (past, mark) in [(false, 0), (true, metadata::DIVERTED)] {
                let gate = Gate::Returning(&function.name, came, past);
                self.hold(here, tenant, numbers, gate, metadata::link(numbers.key) | mark, Some(*port));
            }
        }
        (self.entered, self.returning) = (entered, returning);
    }

    /// Holds what is asked about frames with this metadata that came by this port.
    fn hold(
        &mut self,
        here: Here<'s>,
        tenant: &'a Tenant,
        numbers: Numbers,
        gate: Gate<'a>,
        value: u64,
        port: Option<PortNo>,
    ) {
        let fits = |(key, _): &(&FlowKey, &Flow)| {
            let seen = Seen::of(&key.matching);
            (seen.metadata.0 ^ value) & seen.metadata.1 == 0 && seen.in_port.is_none_or(|it| Some(it) == port)
        };
        let entries: Entries<'s> = here.section.flows.range(asked()).filter(fits).collect();
        let passable = tenant.functions.iter().map(|it| self.working.passable(&it.name, here.dpid)).collect();
        let held = Held { gate, passable, entries };
        if self.held.iter().any(|other| other.is_like(&held)) {
            return;
        }
        let (rules, chains): (Entries<'_>, Entries<'_>) = held.entries.iter().partition(|(key, _)| key.table == RULES);
        if gate == Gate::Entering {
            self.rules_say(here, tenant, numbers, &rules);
        }
        self.chains_say(here, tenant, numbers, gate, &chains);
        self.held.push(held);
    }

    fn rules_say(&mut self, here: Here<'s>, tenant: &'a Tenant, numbers: Numbers, entries: &Entries<'s>) {
        let tracked = tenant.tracks_connections() && numbers.vlan.is_some();
        let (said, words) = said_by_rules(tenant, tracked);
        let Some(rows) = self.rows(here, entries) else { return };
        let does =
            |at: usize| entries.get(at).map_or(Outcome::Ends, |(_, flow)| outcome(&Does::of(&flow.instructions)));
        for found in differences(&rows, &said, tracked, |entry, word| does(entry) == words[word].0) {
            let (wanted, by) = words[found.said];
            let what = match (does(found.entry), wanted) {
                (Outcome::Enters, Outcome::Ends) => format!("lets in what {by} drops"),
                (Outcome::Ends, Outcome::Enters) => format!("drops what {by} lets in"),
                (_, Outcome::Tracked) => "decides about packets whose connection has to be looked up first".to_owned(),
                _ => format!("decides otherwise than {by}"),
            };
            self.differs(here, entries.get(found.entry), Property::Rule, &what, &found.kind);
        }
    }

    fn chains_say(
        &mut self,
        here: Here<'s>,
        tenant: &'a Tenant,
        numbers: Numbers,
        gate: Gate<'a>,
        entries: &Entries<'s>,
    ) {
        let (after, ways, routes) = match gate {
            Gate::Entering => (None, ways(tenant), false),
            Gate::Returning(name, came, past) => {
                let mut ways = ways(tenant);
                ways.retain(|(chain, direction)| {
                    came[*direction as usize] && chain.through.iter().any(|it| it == name)
                });
                let routes = |it: &Function| it.name == name && it.kind == FunctionKind::Routed;
                (Some(name), ways, !past && tenant.functions.iter().any(routes))
            }
        };
        let Some(rows) = self.rows(here, entries) else { return };
        let said = said_by_chains(&ways, routes);
        // What is no frame of theirs is told where entries are looked at one by one.
        let next: Vec<Option<Next<'_>>> = entries
            .iter()
            .map(|(_, flow)| self.next(&Does::of(&flow.instructions), numbers.key).unwrap_or(None))
            .collect();
        let fits = |entry: usize, word: usize| match (next.get(entry).and_then(Option::as_ref), ways.get(word)) {
            // Frames that end violate nothing.
            (None, _) => true,
            (Some(next), Some((chain, direction))) => {
                self.says(tenant, chain, *direction, here.dpid, after, &next.taps, next.then)
            }
            (Some(next), None) => after.is_some() || matches!(next.then, Then::Destination) && next.taps.is_empty(),
        };
        for found in differences(&rows, &said, false, fits) {
            let by = ways.get(found.said);
            let by = by.map_or_else(
                || "no chain".to_owned(),
                |(chain, direction)| match direction {
                    Direction::Forward => format!("chain {}", chain.name),
                    Direction::Reverse => format!("chain {} on its way back", chain.name),
                },
            );
            let what = format!("leads frames of {by} otherwise than it says");
            self.differs(here, entries.get(found.entry), Property::Chain, &what, &found.kind);
        }
    }

    /// Entries as rows, with one more for what none of them matches. `None`: some can't be judged, which is told.
    fn rows(&mut self, here: Here<'s>, entries: &Entries<'s>) -> Option<Vec<Row>> {
        let mut rows = Vec::with_capacity(entries.len() + 1);
        let mut sound = true;
        for (at, (key, flow)) in entries.iter().enumerate() {
            match tests(&key.matching) {
                Some(tests) => rows.push(Row::new((u16::MAX - key.priority).into(), at, tests)),
                None => {
                    let entry = Entry { here, key, seen: Seen::default(), does: Does::of(&flow.instructions) };
                    self.tell(&entry, Property::Form, "looks at what no rule and no chain looks at");
                    sound = false;
                }
            }
        }
        rows.push(Row::new(u32::MAX, entries.len(), Vec::new()));
        rows.sort_by_key(Row::rank);
        sound.then_some(rows)
    }

    fn differs(
        &mut self,
        here: Here<'s>,
        entry: Option<&(&FlowKey, &Flow)>,
        property: Property,
        what: &str,
        kind: &Kind,
    ) {
        let bridge = self.checker.bridge_name(here.dpid);
        let entry = entry.map_or_else(|| "what no entry matches".to_owned(), |(key, _)| entry_name(key));
        let text = format!("{} at bridge {bridge}, {entry}: {what}; for one, frames of {kind}", self.name());
        self.found.push(Violation { owner: self.owner, property, text });
    }
}

impl Held<'_, '_> {
    /// Does it say the same, but for the metadata by which entries are found?
    fn is_like(&self, other: &Self) -> bool {
        let said = |field: &&Oxm| !matches!(field, Oxm::Metadata(..) | Oxm::InPort(..));
        let same = |((key, flow), (other, as_well)): (&(&FlowKey, &Flow), &(&FlowKey, &Flow))| {
            (key.table, key.priority, &flow.instructions) == (other.table, other.priority, &as_well.instructions)
                && key.matching.fields().iter().filter(said).eq(other.matching.fields().iter().filter(said))
        };
        (self.gate, &self.passable, self.entries.len()) == (other.gate, &other.passable, other.entries.len())
            && self.entries.iter().zip(&other.entries).all(same)
    }
}

/// The tables that are asked.
fn asked() -> Range<FlowKey> {
    let lowest = |table: TableId| FlowKey { table, priority: 0, matching: Match::default() };
    lowest(RULES)..lowest(BALANCE)
}

fn outcome(does: &Does<'_>) -> Outcome {
    match does.goto {
        Some(CLASSIFY) => Outcome::Enters,
        _ if does.actions.iter().any(|it| matches!(it, Action::Ct(_))) => Outcome::Tracked,
        _ => Outcome::Ends,
    }
}

/// What an entry asks, but for whose frames they are; `None`: something else than rules and chains ask.
fn tests(matching: &Match) -> Option<Vec<(Field, Test)>> {
    let mut tests = Vec::with_capacity(matching.fields().len());
    for field in matching.fields() {
        let of = match field {
            Oxm::Metadata(..) | Oxm::InPort(..) => continue,
            Oxm::Ipv6Src(value, mask) | Oxm::Ipv6Dst(value, mask) => {
                let of = if matches!(field, Oxm::Ipv6Src(..)) { Field::From } else { Field::To };
                tests.push((of, Test::Masked(value.to_bits(), mask.map_or(u128::MAX, |mask| mask.to_bits()))));
                continue;
            }
            Oxm::EthType(..) => Field::Type,
            Oxm::NwFrag(..) => Field::Fragment,
            Oxm::VlanVid(..) => Field::Vlan,
            Oxm::IpProto(..) => Field::Protocol,
            Oxm::CtState(..) => Field::State,
            Oxm::EthSrc(..) => Field::Source,
            Oxm::EthDst(..) => Field::Destination,
            Oxm::Ipv4Src(..) => Field::From,
            Oxm::Ipv4Dst(..) => Field::To,
            Oxm::TcpSrc(..) | Oxm::UdpSrc(..) | Oxm::SctpSrc(..) => Field::SourcePort,
            Oxm::TcpDst(..) | Oxm::UdpDst(..) | Oxm::SctpDst(..) => Field::DestinationPort,
            Oxm::Icmpv4Type(..) | Oxm::Icmpv6Type(..) => Field::Icmp,
            Oxm::Icmpv4Code(..) | Oxm::Icmpv6Code(..) => Field::Code,
            _ => return None,
        };
        let (value, mask) = field.number()?;
        tests.push((of, Test::Masked(value.into(), mask.into())));
    }
    Some(tests)
}

/// What rules say, in order, and what each row of that stands for.
fn said_by_rules(tenant: &Tenant, tracked: bool) -> (Vec<Row>, Vec<(Outcome, By<'_>)>) {
    let (mut rows, mut words) = (Vec::new(), Vec::new());
    let mut say = |outcome, by, all: Vec<Vec<(Field, Test)>>| {
        let rank = words.len();
        words.push((outcome, by));
        rows.extend(all.into_iter().map(|tests| Row::new(rank as u32, rank, tests)));
    };
    let over_ip = || (Field::Type, Test::Within(vec![IPV4..=IPV4, IPV6..=IPV6]));
    let state = |bits: u128| (Field::State, Test::Masked(bits, bits | TRACKED));
    if tenant.ends_inner_vlans() {
        say(Outcome::Ends, By::InnerVlans, TAGS.map(|tag| vec![(Field::Type, Test::is(tag))]).to_vec());
    }
    if tenant.ends_split_headers() {
        let none = |field| (field, Test::is(0));
        let split = vec![(Field::Fragment, Test::is(FIRST)), none(Field::SourcePort), none(Field::DestinationPort)];
        let of = |number| [vec![over_ip(), (Field::Protocol, Test::is(number))], split.clone()].concat();
        let unknown = vec![(Field::Type, Test::is(IPV6)), (Field::Protocol, Test::is(0))];
        say(Outcome::Ends, By::Headers, vec![of(TCP), of(SCTP), unknown]);
    }
    if tracked {
        let stray = vec![(Field::Fragment, Test::Masked(1, 1)), (Field::State, Test::Masked(INVALID, INVALID))];
        say(Outcome::Ends, By::Strays, vec![[vec![over_ip()], stray].concat()]);
        let unknown = (Field::State, Test::Masked(0, TRACKED));
        say(Outcome::Tracked, By::Default, vec![vec![over_ip(), unknown]]);
    }
    let mut rules: Vec<&Rule> = tenant.rules.iter().collect();
    rules.sort_by_key(|rule| Reverse(rule.priority));
    for rule in rules {
        let mut all: Vec<_> = rule.classifiers.iter().flat_map(|it| asks(it, true)).collect();
        if rule.action != RuleAction::Drop {
            all.extend(all.iter().flat_map(|tests| as_fragment(tests, Test::is(LATER))).collect::<Vec<_>>());
        }
        let outcome = match rule.action {
            RuleAction::Allow | RuleAction::AllowEstablished => Outcome::Enters,
            RuleAction::Drop => Outcome::Ends,
        };
        if rule.action == RuleAction::AllowEstablished {
            let known = [ESTABLISHED | REPLY | TRACKED, RELATED | TRACKED].map(state);
            let of = |tests: Vec<(Field, Test)>| {
                known.clone().map(|state| tests.iter().cloned().chain([over_ip(), state]).collect::<Vec<_>>())
            };
            all = all.into_iter().flat_map(of).collect();
        }
        say(outcome, By::Rule(&rule.name), all);
    }
    if tenant.default == Verdict::Drop {
        let routers = tenant.ports.iter().any(|port| port.router);
        let mut passes = discovery(if routers { vec![DISCOVERY] } else { vec![133..=133, 135..=136] });
        if tenant.ports.iter().any(|port| port.dhcp_server) {
            for (version, ports) in [(IPV4, 67..=68), (IPV6, 546..=547)] {
                let (of_udp, to) =
                    ((Field::Protocol, Test::is(17)), (Field::DestinationPort, Test::Within(vec![ports])));
                passes.push(vec![(Field::Type, Test::is(version)), of_udp, to]);
            }
        }
        say(Outcome::Enters, By::Default, passes);
    }
    let default = if tenant.default == Verdict::Drop { Outcome::Ends } else { Outcome::Enters };
    say(default, By::Default, vec![Vec::new()]);
    (rows, words)
}

/// ARP, and these messages of neighbour discovery.
fn discovery(messages: Vec<RangeInclusive<u128>>) -> Vec<Vec<(Field, Test)>> {
    let neighbours =
        vec![(Field::Type, Test::is(IPV6)), (Field::Protocol, Test::is(ICMPV6)), (Field::Icmp, Test::Within(messages))];
    vec![vec![(Field::Type, Test::is(ARP))], neighbours]
}

/// Chains in the order in which they are asked.
fn ways(tenant: &Tenant) -> Vec<(&Chain, Direction)> {
    let both = tenant.chains.iter().flat_map(|chain| Direction::ALL.map(|direction| (chain, direction)));
    let mut ways: Vec<_> = both.filter(|(chain, way)| chain.symmetric || *way == Direction::Forward).collect();
    ways.sort_by_key(|(chain, direction)| (Reverse(chain.priority), *direction));
    ways
}

/// What chains say, in order; rows stand for their places among `ways`, or for none. What a function that routes asks and
/// answers as a station is no chain's.
fn said_by_chains(ways: &[(&Chain, Direction)], routes: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    if routes {
        rows.extend(discovery(vec![DISCOVERY]).into_iter().map(|tests| Row::new(0, ways.len(), tests)));
    }
    for (at, (chain, direction)) in ways.iter().enumerate() {
        for classifier in &chain.classifiers {
            let all = match direction {
                Direction::Forward => asks(classifier, chain.broadcast),
                Direction::Reverse => asks(&classifier.reversed(), chain.broadcast),
            };
            let any = all.iter().flat_map(|tests| as_fragment(tests, Test::Masked(1, 1))).collect::<Vec<_>>();
            rows.extend(all.into_iter().chain(any).map(|tests| Row::new(at as u32 + 1, at, tests)));
        }
    }
    rows.push(Row::new(u32::MAX, ways.len(), Vec::new()));
    rows
}
