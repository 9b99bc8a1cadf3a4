//! Service functions, chains and rules drawn from a seed, what follows from them by reading the policy as it is written, and
//! what becomes of a frame that passes functions.

mod passage;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use apps::allocation;
use apps::assigned::protocol;
use apps::interpreter::{Fragment, Frame, Network, Transport};
use apps::marks::Direction;
use apps::policy::{
    Address, Chain, Classifier, Function, FunctionKind, InnerVlans, Instance, OnFailure, Prefix, Protocol, Rule,
    RuleAction, ShareBy, Tenant, Verdict,
};
use apps::view::Endpoint;
use openflow::types::{DatapathId, MacAddr};

use super::{Draw, Fabric, next, port};

/// What became of a frame that may pass functions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Passage {
    /// Where it was delivered, each time with the functions that it had passed, in order, with the instance.
    pub(crate) delivered: Vec<(Endpoint, Vec<(String, String)>)>,
    /// The taps that got a copy.
    pub(crate) tapped: Vec<String>,
    /// Ports of functions of other tenants, or that nothing should go in by.
    pub(crate) strayed: Vec<Endpoint>,
    /// Ends of links that it was sent over twice from, looking the same and having passed the same.
    pub(crate) looped: Vec<Endpoint>,
}

/// What should become of a frame: the functions that it passes and the taps that see it; `None`: it ends somewhere.
pub(crate) type Expected = Option<(Vec<String>, Vec<String>)>;

pub(crate) fn mac(bridge: u8, host: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, bridge, host])
}

fn ip(mac: MacAddr) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, mac.0[4], mac.0[5])
}

/// A packet between two hosts.
pub(crate) fn packet(from: MacAddr, to: MacAddr, protocol: u8, ports: (u16, u16)) -> Frame {
    let transport = match protocol {
        protocol::ICMP => Transport::Icmp { kind: 8, code: 0, target: None, link_layer: None },
        _ => Transport::Ports { source: ports.0, destination: ports.1, flags: 0 },
    };
    let network = Network::Ipv4 { source: ip(from), destination: ip(to), protocol, transport };
    Frame { source: from, destination: to, ethertype: 0x0800, network, ..Frame::default() }
}

/// The packet that answers another.
pub(crate) fn reply(frame: &Frame) -> Frame {
    let Network::Ipv4 { protocol, transport, .. } = frame.network else { panic!("{frame:?}") };
    let ports = match transport {
        Transport::Ports { source, destination, .. } => (destination, source),
        _ => (0, 0),
    };
    let (tags, fragment) = (frame.tags.clone(), frame.fragment);
    Frame { tags, fragment, ..packet(frame.destination, frame.source, protocol, ports) }
}

/// Might it be a fragment of a packet that the classifier is for? Ports don't count: not all fragments have them.
fn may_be_of(classifier: &Classifier, frame: &Frame) -> bool {
    let without = Classifier { source_port: Vec::new(), destination_port: Vec::new(), ..classifier.clone() };
    frame.fragment.is_some() && matches(&without, frame)
}

/// Is it a first fragment with less than TCP's header?
fn is_split(frame: &Frame) -> bool {
    let Network::Ipv4 {
        protocol: protocol::TCP, transport: Transport::Ports { source: 0, destination: 0, .. }, ..
    } = frame.network
    else {
        return false;
    };
    frame.fragment == Some(Fragment::First) && frame.tags.len() < 2
}

/// Does it say anything of a frame but its tags and the stations that it is between?
fn asks_behind_tags(classifier: &Classifier) -> bool {
    let addresses = classifier.source.iter().chain(&classifier.destination);
    classifier.protocol != Protocol::Any || addresses.into_iter().any(|it| matches!(it, Address::Ip(_)))
}

/// Do frames with two tags end where they enter?
pub(crate) fn ends_two_tags(tenant: &Tenant) -> bool {
    let asked = tenant.rules.iter().flat_map(|it| &it.classifiers);
    let mut asked = asked.chain(tenant.chains.iter().flat_map(|it| &it.classifiers));
    tenant.inner_vlans == InnerVlans::Drop && asked.any(asks_behind_tags)
}

fn matches(classifier: &Classifier, frame: &Frame) -> bool {
    // What is behind a second tag isn't known.
    if frame.tags.len() > 1 && asks_behind_tags(classifier) {
        return false;
    }
    let Network::Ipv4 { source, destination, protocol, transport } = frame.network else { return false };
    let protocol_fits = match classifier.protocol {
        Protocol::Any => true,
        Protocol::Ethertype(ethertype) => ethertype == 0x0800,
        Protocol::Ip(number) => number == protocol,
        Protocol::Icmp => protocol == protocol::ICMP,
    };
    let address = |wanted: &[Address], mac: MacAddr, ip: Ipv4Addr| {
        wanted.is_empty()
            || wanted.iter().any(|wanted| match wanted {
                Address::Mac(wanted) => *wanted == mac,
                Address::Ip(Prefix { address: IpAddr::V4(first), length }) => {
                    let bits = |ip: Ipv4Addr| u64::from(u32::from(ip)) >> (32 - length);
                    bits(*first) == bits(ip)
                }
                Address::Ip(_) => false,
            })
    };
    let (from, to) = match transport {
        Transport::Ports { source, destination, .. } if frame.fragment != Some(Fragment::Later) => {
            (Some(source), Some(destination))
        }
        _ => (None, None),
    };
    let port = |wanted: &[std::ops::RangeInclusive<u16>], port: Option<u16>| {
        wanted.is_empty() || port.is_some_and(|port| wanted.iter().any(|range| range.contains(&port)))
    };
    protocol_fits
        && address(&classifier.source, frame.source, source)
        && address(&classifier.destination, frame.destination, destination)
        && port(&classifier.source_port, from)
        && port(&classifier.destination_port, to)
}

impl Fabric {
    /// Gives every tenant functions, chains and rules.
    pub(crate) fn draw_services(&mut self, draw: &mut Draw) {
        for tenant in 0..self.policy.tenants.len() {
            for number in 0..1 + draw.below(4) {
                self.draw_function(tenant, number, draw);
            }
            self.draw_chains(tenant, draw);
        }
        self.renumber();
    }

    pub(crate) fn renumber(&mut self) {
        self.allocations = self.allocations.updated(&self.policy);
    }

    /// The same, but no function or instance got a number.
    pub(crate) fn without_numbers(&self) -> Self {
        let mut without = self.clone();
        without.policy.tenants.iter_mut().for_each(|tenant| tenant.functions.clear());
        without.allocations = allocation::Allocations::default().updated(&without.policy);
        Self { policy: self.policy.clone(), ..without }
    }

    fn draw_function(&mut self, tenant: usize, number: usize, draw: &mut Draw) {
        let origin = self.policy.tenants[tenant].origin.clone();
        let kind = match draw.below(6) {
            0 => FunctionKind::Hairpin,
            1 => FunctionKind::Routed,
            2 => FunctionKind::Tap,
            _ => FunctionKind::Wire,
        };
        let count = 1 + draw.below(3);
        let mut instances: Vec<Instance> =
            (0..count).map(|instance| self.draw_instance(tenant, number, kind, instance, draw)).collect();
        instances[draw.below(count)].drain = count > 1 && draw.chance(30);
        let on_failure = if draw.chance(50) { OnFailure::Bypass } else { OnFailure::Drop };
        let share_by = if draw.chance(20) { ShareBy::Addresses } else { ShareBy::Connections };
        let function = Function { name: format!("f{number}"), kind, on_failure, share_by, instances, origin };
        self.cable(tenant, &function);
        self.policy.tenants[tenant].functions.push(function);
    }

    fn draw_instance(
        &mut self,
        tenant: usize,
        number: usize,
        kind: FunctionKind,
        instance: usize,
        draw: &mut Draw,
    ) -> Instance {
        let origin = self.policy.tenants[tenant].origin.clone();
        let dpid = 1 + draw.below(self.view.bridges.len()) as u64;
        let bridge = self.view.bridges.get_mut(&DatapathId(dpid)).unwrap();
        let mut add = |side: &str| {
            let (number_of_port, name) = (next(&bridge.ports), format!("f{tenant}{number}{instance}{side}"));
            bridge.ports.insert(number_of_port, port(&name));
            name
        };
        let ingress = add("i");
        let egress = if kind == FunctionKind::Wire { add("o") } else { ingress.clone() };
        Instance {
            name: format!("i{instance}"),
            bridge: format!("b{dpid}"),
            ingress,
            egress,
            mac: (kind == FunctionKind::Routed).then_some(MacAddr([
                2,
                1,
                tenant as u8,
                (number >> 8) as u8,
                number as u8,
                instance as u8,
            ])),
            weight: 1 + draw.below(3) as u16,
            drain: false,
            origin,
        }
    }

    fn cable(&mut self, tenant: usize, function: &Function) {
        for instance in &function.instances {
            for port in [&instance.ingress, &instance.egress] {
                let owner = self.policy.tenants[tenant].name.clone();
                self.functions.insert(self.find(&instance.bridge, port), (owner, function.clone(), instance.clone()));
            }
        }
    }

    /// Draws a tenant's chains and rules anew.
    fn draw_chains(&mut self, tenant: usize, draw: &mut Draw) {
        let Tenant { functions, origin, .. } = self.policy.tenants[tenant].clone();
        let chains = (0..draw.below(4)).map(|number| {
            let mut names: Vec<String> = functions.iter().map(|function| function.name.clone()).collect();
            let wanted = 1 + draw.below(names.len());
            let through = (0..wanted).map(|_| names.remove(draw.below(names.len()))).collect();
            Chain {
                name: format!("c{number}"),
                priority: 10 - number as u16,
                through,
                symmetric: draw.chance(50),
                broadcast: false,
                classifiers: (0..1 + draw.below(2)).map(|_| self.draw_classifier(tenant, draw)).collect(),
                rate_limit: None,
                origin: origin.clone(),
            }
        });
        let chains = chains.collect();
        let rules = (0..draw.below(3)).map(|number| Rule {
            name: format!("r{number}"),
            priority: 0,
            classifiers: vec![self.draw_classifier(tenant, draw)],
            action: [RuleAction::Allow, RuleAction::Drop, RuleAction::AllowEstablished][draw.below(3)],
            origin: origin.clone(),
        });
        let rules = rules.collect();
        let it = &mut self.policy.tenants[tenant];
        (it.chains, it.rules) = (chains, rules);
        it.inner_vlans = if draw.chance(30) { InnerVlans::Pass } else { InnerVlans::Drop };
        it.default = if draw.chance(25) { Verdict::Drop } else { Verdict::Allow };
    }

    fn draw_classifier(&self, tenant: usize, draw: &mut Draw) -> Classifier {
        let bridge = 1 + draw.below(self.view.bridges.len()) as u8;
        let routed = self.policy.tenants[tenant].functions.iter().any(|it| it.kind == FunctionKind::Routed);
        let prefix = |length| Address::Ip(Prefix { address: Ipv4Addr::new(10, 0, bridge, 0).into(), length });
        let some = match draw.below(4) {
            0 => vec![],
            // A function that routes changes Ethernet addresses.
            1 if !routed => vec![Address::Mac(mac(bridge, 0))],
            2 => vec![prefix(32), prefix(31)],
            _ => vec![prefix(24)],
        };
        let (source, destination) = if draw.chance(30) { (some, vec![]) } else { (vec![], some) };
        let protocol = [Protocol::Any, Protocol::TCP, Protocol::UDP, Protocol::Icmp][draw.below(4)];
        let ports = match protocol {
            Protocol::TCP | Protocol::UDP if draw.chance(60) => vec![80..=80, 1000..=1006],
            _ => vec![],
        };
        let (source_port, destination_port) = (vec![], ports);
        let origin = self.policy.tenants[tenant].origin.clone();
        Classifier {
            protocol,
            vlan: None,
            source,
            destination,
            source_port,
            destination_port,
            icmp_type: Vec::new(),
            icmp_code: None,
            origin,
        }
    }

    /// Something about functions, chains or rules changes: what it was is the answer.
    pub(crate) fn change_services(&mut self, draw: &mut Draw) -> String {
        let tenant = draw.below(self.policy.tenants.len());
        let all = self.policy.tenants[tenant].functions.clone();
        let function = &all[draw.below(all.len())];
        let instance = function.instances[draw.below(function.instances.len())].clone();
        let what = match draw.below(9) {
            0 | 1 => {
                self.draw_chains(tenant, draw);
                "gets other chains and rules".to_owned()
            }
            2 => {
                let place = self.find(&instance.bridge, &instance.ingress);
                let port = self.view.bridges.get_mut(&place.bridge).unwrap().ports.get_mut(&place.port).unwrap();
                port.up = !port.up;
                format!("{}: port of {}/{}", if port.up { "up" } else { "down" }, function.name, instance.name)
            }
            3 => {
                let place = self.find(&instance.bridge, &instance.egress);
                let ingress = self.find(&instance.bridge, &instance.ingress);
                if place != ingress && !self.view.failed.remove(&ingress) {
                    self.view.failed.insert(ingress);
                }
                format!("{}/{} hangs or comes back", function.name, instance.name)
            }
            4 if function.instances.len() > 1 => {
                let functions = &mut self.policy.tenants[tenant].functions;
                let it = functions.iter_mut().find(|it| it.name == function.name).unwrap();
                it.instances.retain(|it| it.name != instance.name);
                // Somebody has to take new connections.
                it.instances[0].drain = false;
                format!("{}/{} is removed", function.name, instance.name)
            }
            6 if function.instances.iter().any(|it| it.name != instance.name && !it.drain) => {
                let functions = &mut self.policy.tenants[tenant].functions;
                let it = functions.iter_mut().find(|it| it.name == function.name).unwrap();
                let it = it.instances.iter_mut().find(|it| it.name == instance.name).unwrap();
                it.drain = !it.drain;
                format!("{}/{} {}", function.name, instance.name, if it.drain { "drains" } else { "drains no more" })
            }
            7 => {
                let (mut it, number) = (function.clone(), function.name[1..].parse().unwrap());
                let moving = it.instances.iter_mut().find(|it| it.name == instance.name).unwrap();
                let another = self.draw_instance(tenant, number, it.kind, 10 + draw.below(1000), draw);
                *moving = Instance { name: instance.name.clone(), mac: instance.mac, drain: instance.drain, ..another };
                self.cable(tenant, &it);
                let functions = &mut self.policy.tenants[tenant].functions;
                *functions.iter_mut().find(|it| it.name == function.name).unwrap() = it;
                format!("{}/{} moves", function.name, instance.name)
            }
            5 => {
                let (mut it, number) = (function.clone(), function.name[1..].parse().unwrap());
                let another = 10 + draw.below(1000);
                it.instances.push(self.draw_instance(tenant, number, it.kind, another, draw));
                self.cable(tenant, &it);
                let functions = &mut self.policy.tenants[tenant].functions;
                *functions.iter_mut().find(|it| it.name == function.name).unwrap() = it;
                format!("{} gets i{another}", function.name)
            }
            _ => {
                let used = |number: usize| all.iter().any(|function| function.name == format!("f{number}"));
                let number = (10 + draw.below(1000)..).find(|number| !used(*number)).unwrap();
                self.draw_function(tenant, number, draw);
                self.draw_chains(tenant, draw);
                format!("gets f{number} and other chains and rules")
            }
        };
        self.renumber();
        format!("t{tenant} {what}")
    }

    /// A tenant loses its functions, and the port that one of them gave frames back by goes to another tenant: which one is
    /// the answer.
    pub(crate) fn give_away(&mut self, draw: &mut Draw) -> Option<Endpoint> {
        let [from, to] = [0, 1].map(|_| draw.below(self.policy.tenants.len()));
        let Tenant { functions, chains, .. } = &mut self.policy.tenants[from];
        chains.clear();
        let functions = std::mem::take(functions);
        let instance = &functions.iter().find(|it| it.kind != FunctionKind::Tap)?.instances[0];
        let place = self.find(&instance.bridge, &instance.egress);
        self.functions.remove(&place);
        let port = self.view.bridges.get_mut(&place.bridge)?.ports.get_mut(&place.port)?;
        port.name = format!("t{to}-{}", place.port.0);
        self.renumber();
        Some(place)
    }

    pub(crate) fn find(&self, bridge: &str, port: &str) -> Endpoint {
        let (dpid, view) = self.view.bridges.iter().find(|(_, view)| view.name == bridge).unwrap();
        let (number, _) = view.ports.iter().find(|(_, view)| view.name == port).unwrap();
        Endpoint { bridge: *dpid, port: *number }
    }

    pub(crate) fn is_healthy(&self, instance: &Instance) -> bool {
        let up = |port: &str| {
            let place = self.find(&instance.bridge, port);
            self.view.bridges[&place.bridge].ports[&place.port].up && !self.view.failed.contains(&place)
        };
        up(&instance.ingress) && up(&instance.egress)
    }

    /// The same with all functions at work.
    pub(crate) fn working(&self) -> Self {
        let mut all = self.clone();
        all.view.failed.clear();
        all.view.bridges.values_mut().flat_map(|it| it.ports.values_mut()).for_each(|port| port.up = true);
        all
    }

    /// Can all bridges of a tenant reach each other?
    pub(crate) fn is_whole(&self, tenant: &str) -> bool {
        let bridges: Vec<DatapathId> = self.view.bridges.keys().copied().collect();
        bridges.iter().all(|to| self.distance(bridges[0], *to, tenant).is_some())
    }

    /// The functions that a packet of a tenant should pass if they work, by the policy's words alone; `None`: it is dropped.
    pub(crate) fn chain_of(&self, tenant: &str, frame: &Frame) -> Option<Vec<&Function>> {
        let tenant = self.policy.tenants.iter().find(|it| it.name == tenant).unwrap();
        if frame.tags.len() > 1 && ends_two_tags(tenant) {
            return None;
        }
        let mut asked = tenant.rules.iter().flat_map(|it| &it.classifiers);
        let mut asked = asked.by_ref().chain(tenant.chains.iter().flat_map(|it| &it.classifiers));
        if is_split(frame) && asked.any(|it| matches!(it.protocol, Protocol::Ip(_) | Protocol::Icmp)) {
            return None;
        }
        // Every packet here is the first of its connection.
        let mut rules = tenant.rules.iter().filter(|rule| rule.action != RuleAction::AllowEstablished);
        let lets_in = |rule: &Rule, it: &Classifier| {
            rule.action == RuleAction::Allow && frame.fragment == Some(Fragment::Later) && may_be_of(it, frame)
        };
        let decides = |rule: &&Rule| rule.classifiers.iter().any(|it| matches(it, frame) || lets_in(rule, it));
        let dropped = match rules.find(decides) {
            Some(rule) => rule.action == RuleAction::Drop,
            None => tenant.default == Verdict::Drop,
        };
        if dropped {
            return None;
        }
        let mut ranked: Vec<(&Chain, Direction)> =
            tenant.chains.iter().flat_map(|chain| Direction::ALL.map(|direction| (chain, direction))).collect();
        ranked.retain(|(chain, direction)| chain.symmetric || *direction == Direction::Forward);
        ranked.sort_by_key(|(chain, direction)| (Reverse(chain.priority), *direction));
        let hit = |(chain, direction): &&(&Chain, Direction)| {
            chain.classifiers.iter().any(|it| match direction {
                Direction::Forward => matches(it, frame) || may_be_of(it, frame),
                Direction::Reverse => matches(it, &reply(frame)) || may_be_of(it, &reply(frame)),
            })
        };
        let Some((chain, direction)) = ranked.iter().find(hit) else { return Some(vec![]) };
        let named = |name: &String| tenant.functions.iter().find(|function| function.name == *name).unwrap();
        let mut functions: Vec<&Function> = chain.through.iter().map(named).collect();
        if *direction == Direction::Reverse {
            functions.reverse();
        }
        Some(functions)
    }

    /// What should become of a packet that enters at a port of a tenant, by the policy's words alone.
    pub(crate) fn expected(&self, tenant: &str, frame: &Frame) -> Expected {
        let (mut passed, mut tapped) = (vec![], vec![]);
        for function in self.chain_of(tenant, frame)? {
            let name = function.name.clone();
            let works = function.instances.iter().any(|it| self.is_healthy(it));
            match (function.kind, works, function.on_failure) {
                (FunctionKind::Tap, true, _) => tapped.push(name),
                (FunctionKind::Tap, false, _) | (_, false, OnFailure::Bypass) => {}
                (_, true, _) => passed.push(name),
                (_, false, OnFailure::Drop) => return None,
            }
        }
        tapped.sort();
        Some((passed, tapped))
    }

    fn name(&self, place: Endpoint) -> String {
        self.view.bridges[&place.bridge].ports[&place.port].name.clone()
    }

    /// All ports, with whose they are: tenants' and those of their functions.
    pub(crate) fn all_owners(&self) -> BTreeMap<Endpoint, String> {
        let functions = self.functions.iter();
        let mut owners: BTreeMap<Endpoint, String> = functions
            .map(|(place, (tenant, function, it))| (*place, format!("{tenant} {} {}", function.name, it.name)))
            .collect();
        owners.extend(self.tenant_ports());
        owners
    }

    /// Has a port or a number gone from one to another since?
    pub(crate) fn hands_over(&self, before: &Self) -> bool {
        let had = before.all_owners();
        let got = |(place, owner): (&Endpoint, &String)| had.get(place) != Some(owner);
        self.all_owners().iter().any(got) || self.allocations.moved_since(&before.allocations)
    }

    pub(crate) fn has_functions(&self, tenant: &str) -> bool {
        self.policy.tenants.iter().any(|it| it.name == tenant && !it.functions.is_empty())
    }

    /// VLAN ids that mark frames on their way to a tenant's functions.
    pub(crate) fn marks(&self, tenant: &str) -> Vec<u16> {
        let tenant = self.policy.tenants.iter().find(|it| it.name == tenant).unwrap();
        let instances = tenant.functions.iter().flat_map(|it| it.instances.iter().map(move |one| (it, one)));
        let names = instances.map(|(function, one)| allocation::instance(tenant, function, one));
        let vlans = names.filter_map(|name| self.allocations.of(&name)?.vlan);
        vlans.flat_map(|vlan| [vlan, vlan | 0x800]).collect()
    }
}
