//! A tenant's network: on every bridge that its frames touch, who is admitted, what is known, and where frames go.

use std::collections::{BTreeMap, BTreeSet};

use openflow::action::{Action, Conntrack, ConntrackFlags};
use openflow::flow::FlowModFlags;
use openflow::group::Bucket;
use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::oxm::Oxm;
use openflow::types::{DatapathId, GroupId, MacAddr, PortNo, TableId};

use crate::allocation::{Allocations, Numbers};
use crate::attachment::Attachments;
use crate::chains::{Chains, steered, unchained};
use crate::desired::{FlowKey, Section, SectionBuilder, apply, drop, go, version};
use crate::fabric::{MAC_CONTROL, RESERVED, report_health, report_probes};
use crate::failover;
use crate::guard;
use crate::limits;
use crate::links;
use crate::marks::{DEDICATED_FLOOD_VLANS, Mode, Owner, flood_group, metadata, port_meter, step_of};
use crate::pipeline::{ADMIT, CLASSIFY, FLOOD, FORWARD, GUARD, LEARN, RULES, STEER};
use crate::policy::{LinkLocal, PortSelector, Tenant, UnknownUnicast};
use crate::routes::Routes;
use crate::rules;
use crate::trees::{Paths, Tree};
use crate::view::{Carrier, Endpoint, Host, Hosts, Link, View};

/// Seconds after which a source that sends nothing is no longer taken as known.
pub const LEARN_IDLE: u16 = 300;

/// What a tenant's network comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Network {
    /// Its tree.
    pub tree: Tree,
    /// Its entries, for every bridge that answers and has some.
    pub sections: BTreeMap<DatapathId, Section>,
}

/// The hosts whose place the policy fixes.
pub fn pinned(tenant: &str, attachments: &Attachments) -> Hosts {
    attachments
        .of_tenant(tenant)
        .filter_map(|(place, selector)| Some((selector.mac?, Host { place, fresh: true })))
        .collect()
}

/// One tenant's entries on all bridges. `hosts` are the learnt ones; pinned ones come from the policy.
pub fn compile(
    tenant: &Tenant,
    allocations: &Allocations,
    attachments: &Attachments,
    view: &View,
    learnt: &Hosts,
) -> Network {
    let Some(numbers) = allocations.of(&tenant.name) else { return Network::default() };
    let chains = Chains::new(tenant, numbers.key, allocations, attachments, view);
    let mut ports: BTreeMap<DatapathId, Vec<(PortNo, &PortSelector)>> = BTreeMap::new();
    for (place, selector) in attachments.of_tenant(&tenant.name) {
        ports.entry(place.bridge).or_default().push((place.port, selector));
    }
    let terminals: BTreeSet<DatapathId> = ports.keys().copied().chain(chains.bridges()).collect();
    let paths = paths(view, numbers);
    let routes = Routes::new(view, numbers, &paths, &terminals);
    let mut fixed = pinned(&tenant.name, attachments);
    fixed.extend(chains.stations().into_iter().map(|(mac, place)| (mac, Host { place, fresh: false })));
    let mut network =
        Compiler { tenant, numbers, view, chains: &chains, ports, routes: &routes, builders: BTreeMap::new() };
    let tree = Tree { ways: routes.links(), ..paths.tree(&terminals) };

    network.admit_ports();
    network.admit_services();
    network.admit_links(&tree);
    network.flood(&tree);
    network.waypoints();
    let unpinned = learnt.iter().filter(|(mac, _)| !fixed.contains_key(mac));
    let hosts: Vec<(MacAddr, Endpoint)> = unpinned
        .chain(&fixed)
        .filter(|(mac, host)| network.host(**mac, **host, fixed.contains_key(mac)))
        .map(|(mac, host)| (*mac, host.place))
        .collect();
    network.ways(&hosts);
    let ports = |dpid: DatapathId| view.bridges.get(&dpid).map(|bridge| &bridge.ports);
    let built = network.builders.into_iter().filter_map(|(dpid, it)| Some((dpid, it.build_for(ports(dpid)?))));
    let sections = built.collect();
    Network { tree, sections }
}

/// The tree that [`compile`] gives one tenant.
pub(crate) fn tree(tenant: &Tenant, allocations: &Allocations, attachments: &Attachments, view: &View) -> Tree {
    let Some(numbers) = allocations.of(&tenant.name) else { return Tree::default() };
    let chains = Chains::new(tenant, numbers.key, allocations, attachments, view);
    let ports = attachments.of_tenant(&tenant.name).map(|(place, _)| place.bridge);
    paths(view, numbers).tree(&ports.chain(chains.bridges()).collect())
}

fn paths(view: &View, numbers: Numbers) -> Paths<'_> {
    let takes_in = |link: &Link| takes_in(view, link, numbers, Mode::Normal);
    Paths::new(view, numbers.key, |link| links::usable(link.carrier, numbers), takes_in)
}

struct Compiler<'a> {
    tenant: &'a Tenant,
    numbers: Numbers,
    view: &'a View,
    chains: &'a Chains<'a>,
    ports: BTreeMap<DatapathId, Vec<(PortNo, &'a PortSelector)>>,
    routes: &'a Routes,
    builders: BTreeMap<DatapathId, SectionBuilder>,
}

impl Compiler<'_> {
    /// The tenant's entries at a bridge; `None`: the bridge doesn't answer and keeps what it has.
    fn at(&mut self, dpid: DatapathId) -> Option<&mut SectionBuilder> {
        let responsive = self.view.is_responsive(dpid);
        let owner = Owner(self.numbers.key);
        let origin = &self.tenant.origin;
        responsive.then(|| self.builders.entry(dpid).or_insert_with(|| SectionBuilder::new(owner)).about(origin))
    }

    /// Frames of the tenant's own ports: checked, their sources learnt, held against rules and chains, and on.
    fn admit_ports(&mut self) {
        let key = self.numbers.key;
        let (tenant, chains, zone) = (self.tenant, self.chains, self.numbers.vlan);
        let (view, routes) = (self.view, self.routes);
        let reach = |from, to| routes.reach(from, to);
        for (dpid, ports) in self.ports.clone() {
            let Some(builder) = self.at(dpid) else { continue };
            limits::compile(builder, tenant, key, &ports);
            let mut drafts = rules::compile(tenant, zone);
            drafts.extend(chains.classify(dpid, &reach));
            drafts.push(unchained(tenant));
            let metadata = metadata::entered(key, version(&drafts));
            builder.versioned(key, drafts);
            for &(port, selector) in &ports {
                builder.about(&selector.origin);
                report_probes(builder, port);
                let entered = Instruction::WriteMetadata { metadata, mask: u64::MAX };
                let here = || [Oxm::InPort(port, None)];
                let entered = vec![entered, Instruction::GotoTable(GUARD)];
                if tenant.link_local == LinkLocal::Pass {
                    let to = |address, mask| here().into_iter().chain([Oxm::EthDst(address, mask)]);
                    builder.flow(ADMIT, 32, to(MAC_CONTROL, None), drop());
                    builder.flow(ADMIT, 31, to(RESERVED.0, Some(RESERVED.1)), entered.clone());
                }
                builder.flow(ADMIT, 10, here(), entered);
                guard::port(builder, port, selector);
                // What comes back by a port that makes a loop tells nothing of where its source is.
                let copy = Instruction::ApplyActions(vec![Action::metered_copy(port_meter(port))]);
                let copy = Some(copy).filter(|_| !view.is_shut(Endpoint { bridge: dpid, port }));
                builder.flow(LEARN, 1, here(), copy.into_iter().chain(go(RULES)).collect());
            }
            guard::foreign(builder, tenant, key, &ports);
        }
    }

    /// What frames meet at every bridge where they enter or come back from service functions.
    fn admit_services(&mut self) {
        let key = self.numbers.key;
        let (tenant, chains) = (self.tenant, self.chains);
        let (view, routes) = (self.view, self.routes);
        let reach = |from, to| routes.reach(from, to);
        let local: BTreeSet<DatapathId> = self.ports.keys().copied().chain(chains.bridges()).collect();
        let marks = chains.marks();
        for dpid in local {
            let ports = self.ports.get(&dpid).cloned();
            let Some(builder) = self.at(dpid) else { continue };
            chains.balance(builder, dpid, &reach);
            for port in chains.ports(dpid) {
                builder.about(&tenant.origin);
                report_health(builder, port);
            }
            for port in chains.go_on(builder, dpid, &reach) {
                let back = Instruction::WriteMetadata { metadata: metadata::link(key), mask: u64::MAX };
                builder.flow(ADMIT, 10, [Oxm::InPort(port, None)], vec![back, Instruction::GotoTable(GUARD)]);
                builder.flow(GUARD, 10, [Oxm::InPort(port, None)], go(CLASSIFY));
            }
            builder.about(&tenant.origin);
            guard::marks(builder, key, &marks);
            let mut flooded = vec![Oxm::Metadata(metadata::edge(key), Some(metadata::TENANT | metadata::EDGE))];
            if tenant.unknown_unicast == UnknownUnicast::Drop {
                flooded.push(Oxm::EthDst(GROUP_BIT, Some(GROUP_BIT)));
            }
            for port in ports.iter().flatten().map(|(port, _)| *port).chain(chains.ports(dpid)) {
                if view.is_shut(Endpoint { bridge: dpid, port }) {
                    let fields = flooded.iter().cloned().chain([Oxm::InPort(port, None)]);
                    builder.flow(FORWARD, 2, fields, drop());
                } else {
                    limits::flood(builder, tenant, port, flooded.clone());
                }
            }
            builder.flow(FORWARD, 1, flooded, go(FLOOD));
        }
    }

    /// The ways to the service functions' ports, and what comes along them.
    fn waypoints(&mut self) {
        let (key, numbers) = (self.numbers.key, self.numbers);
        let (view, routes) = (self.view, self.routes);
        for (waypoint, place, instance) in self.chains.waypoints() {
            let step = metadata::step(key, step_of(waypoint.numbers.key), waypoint.direction);
            let FlowKey { table, priority, matching } = steered(key, waypoint);
            let mode = Mode::Waypoint(waypoint);
            let hops = routes.hops.get(&place.bridge).cloned().unwrap_or_default();
            let links: BTreeSet<Link> = hops.values().map(|(link, _)| *link).chain(routes.held.clone()).collect();
            let carries = |link: &Link| links::carries(link.carrier, mode) && takes_in(view, link, numbers, mode);
            for (at, (link, distance)) in hops.into_iter().filter(|(_, (link, _))| carries(link)) {
                if let (Some(builder), Some((here, _))) = (self.at(at), link.at(at)) {
                    let onward = apply(links::send(here.port, link.carrier, numbers, mode));
                    let fields = matching.fields().iter().cloned();
                    builder.about(&instance.origin).flow(table, priority, fields, onward).hops = distance;
                }
            }
            for link in links.into_iter().filter(|link| links::carries(link.carrier, mode)) {
                for end in [link.a, link.b] {
                    let Some(builder) = self.at(end.bridge) else { continue };
                    let (fields, actions) = links::receive(end.port, link.carrier, numbers, mode);
                    builder.about(&instance.origin).flow(ADMIT, 12, fields, arrive(actions, step, STEER));
                }
            }
        }
        let chains = self.chains;
        for dpid in chains.bridges() {
            if let Some(builder) = self.at(dpid) {
                failover::compile(builder, key, chains, dpid);
            }
        }
    }

    /// Frames that come over links: those that a neighbour sends on its way to one of the tenant's bridges, and those
    /// that follow the tree. Both kinds are admitted at every link in use.
    fn admit_links(&mut self, tree: &Tree) {
        let passed = self.routes.hops.values().flat_map(BTreeMap::values).map(|(link, _)| link);
        let spare = self.routes.backups.values().flat_map(BTreeMap::values);
        let in_use: BTreeSet<Link> = passed.chain(spare).chain(&tree.edges).chain(&self.routes.held).copied().collect();
        let (numbers, link_local) = (self.numbers, self.tenant.link_local);
        let marks = self.chains.marks();
        for link in in_use {
            for end in [link.a, link.b] {
                let Some(builder) = self.at(end.bridge) else { continue };
                // Where all that comes through a tunnel is the tenant's, a mark that isn't in use is still none of its tags.
                let marks = marks.iter().copied().chain(DEDICATED_FLOOD_VLANS);
                for vlan in marks.filter(|_| matches!(link.carrier, Carrier::Dedicated(_))) {
                    let (mut fields, _) = links::receive(end.port, link.carrier, numbers, Mode::Normal);
                    fields.push(Oxm::VlanVid(links::tagged(vlan), None));
                    builder.flow(ADMIT, 11, fields, drop());
                }
                let (fields, actions) = links::receive(end.port, link.carrier, numbers, Mode::Normal);
                builder.flow(ADMIT, 10, fields, arrive(actions, metadata::link(numbers.key), FORWARD));
                let (fields, actions) = links::receive(end.port, link.carrier, numbers, Mode::Flood(tree.version));
                let flooded = arrive(actions, metadata::flooded(numbers.key, tree.version), FLOOD);
                if link_local == LinkLocal::Pass {
                    let reserved = fields.iter().cloned().chain([Oxm::EthDst(RESERVED.0, Some(RESERVED.1))]);
                    builder.flow(ADMIT, 31, reserved, flooded.clone());
                }
                builder.flow(ADMIT, 12, fields, flooded);
            }
        }
    }

    /// Copies for everybody: to the local ports and along the tree, but never back. Only what entered here or came
    /// along the tree is copied.
    fn flood(&mut self, tree: &Tree) {
        let numbers = self.numbers;
        let mask = metadata::TENANT | metadata::EDGE;
        let local: BTreeSet<DatapathId> = self.ports.keys().copied().chain(self.chains.bridges()).collect();
        let (view, stations) = (self.view, self.chains.stations());
        for &dpid in local.union(&tree.bridges) {
            let ports = self.ports.get(&dpid).cloned().unwrap_or_default();
            let Some(builder) = self.at(dpid) else { continue };
            let mut groups: BTreeMap<GroupId, Vec<Bucket>> = BTreeMap::new();
            let mut add = |port, actions| {
                groups.entry(flood_group(numbers.key, port, tree.version)).or_default().push(Bucket::new(actions));
            };
            let stations = stations.values().filter(|place| place.bridge == dpid).map(|place| place.port);
            let open = |port: &PortNo| !view.is_shut(Endpoint { bridge: dpid, port: *port });
            for port in ports.iter().map(|(port, _)| *port).filter(open).chain(stations) {
                add(port, vec![Action::output(port)]);
            }
            for (here, link) in tree.at(dpid) {
                add(here.port, links::send(here.port, link.carrier, numbers, Mode::Flood(tree.version)));
            }
            let copy = || apply(groups.keys().map(|group| Action::Group { group: *group }).collect());
            for (here, _) in tree.at(dpid) {
                let came = metadata::flooded(numbers.key, tree.version);
                let came = Oxm::Metadata(came, Some(mask | metadata::TREE));
                builder.flow(FLOOD, 10, [came, Oxm::InPort(here.port, None)], copy());
            }
            // Says which version frames that enter here follow.
            if local.contains(&dpid) && !groups.is_empty() {
                builder.flow(FLOOD, 10, [Oxm::Metadata(metadata::edge(numbers.key), Some(mask))], copy());
            }
            for (group, buckets) in groups {
                builder.group(group, buckets);
            }
        }
    }

    /// The way to one host at its own bridge, and that it is known there. `false`: it isn't the tenant's, or its bridge can't be
    /// told of it, and others take it for unknown.
    fn host(&mut self, mac: MacAddr, host: Host, pinned: bool) -> bool {
        let Host { place: Endpoint { bridge, port }, fresh } = host;
        let numbers = self.numbers;
        let to = || to(numbers.key, mac);
        let own = self.ports.get(&bridge).and_then(|ports| ports.iter().find(|(mine, _)| *mine == port));
        let own = own.map(|(_, selector)| *selector);
        let out = |actions| limits::deliver(port, own, actions);
        if own.is_none() && !self.chains.stations().contains_key(&mac) {
            return false;
        }
        if !self.view.lets_out(host.place, Owner(numbers.key), || onward(numbers.key, mac)) {
            return false;
        }
        let zone = numbers.vlan.filter(|_| self.tenant.tracks_connections());
        if let Some(builder) = self.at(bridge) {
            builder.flow(FORWARD, 10, to(), out(vec![Action::output(port)]));
            for (zone, version) in zone.into_iter().flat_map(|zone| rules::VERSIONS.map(|version| (zone, version))) {
                let remember = rules::track(zone, ConntrackFlags::COMMIT, Conntrack::NO_RECIRCULATION);
                let fields = to().into_iter().chain([Oxm::EthType(version, None)]);
                // Behind `ct` fragments may join the packet that others sent and never completed (Open vSwitch 3.1, `lib/ipf.c`).
                builder.flow(FORWARD, 11, fields, out(vec![Action::output(port), remember]));
            }
            if fresh {
                let known = builder.flow(LEARN, 10, [Oxm::InPort(port, None), Oxm::EthSrc(mac, None)], go(RULES));
                // A pinned host stays known however long it is silent.
                if !pinned {
                    known.idle_timeout = LEARN_IDLE;
                    known.flags = FlowModFlags::SEND_FLOW_REM;
                }
            }
        }
        true
    }

    /// The ways to hosts, on every bridge from which the tenant's frames can come. Bridge by bridge, and in the order of
    /// their tables, so that what goes through a bridge's entries finds them side by side in memory.
    fn ways(&mut self, hosts: &[(MacAddr, Endpoint)]) {
        let mut ways: BTreeMap<DatapathId, Vec<(MacAddr, DatapathId, Link, u16)>> = BTreeMap::new();
        for &(mac, Endpoint { bridge, .. }) in hosts {
            for (at, (link, hops)) in self.routes.hops.get(&bridge).into_iter().flatten() {
                ways.entry(*at).or_default().push((mac, bridge, *link, *hops));
            }
        }
        let numbers = self.numbers;
        for (at, ways) in ways {
            for &(mac, _, link, hops) in &ways {
                if let (Some(builder), Some((here, _))) = (self.at(at), link.at(at)) {
                    let onward = apply(links::send(here.port, link.carrier, numbers, Mode::Normal));
                    builder.flow(FORWARD, 10, to(numbers.key, mac), onward).hops = hops;
                }
            }
            for (mac, target, link, hops) in ways {
                self.entered(mac, target, at, link, hops);
            }
        }
    }

    /// Where frames for a host enter, they take another link if the first one's port is dead.
    fn entered(&mut self, mac: MacAddr, target: DatapathId, at: DatapathId, first: Link, hops: u16) {
        let Some(second) = self.routes.backups.get(&target).and_then(|backups| backups.get(&at)).copied() else {
            return;
        };
        let numbers = self.numbers;
        let (Some(builder), Some((here, _)), Some((spare, _))) = (self.at(at), first.at(at), second.at(at)) else {
            return;
        };
        if let Some(onward) = links::send_first_live([here.port, spare.port], first.carrier, numbers, Mode::Normal) {
            let mask = Some(metadata::TENANT | metadata::EDGE);
            let fields = [Oxm::Metadata(metadata::edge(numbers.key), mask), Oxm::EthDst(mac, None)];
            // It comes together with the one for frames on their way, whatever the second link leads to by then.
            builder.flow(FORWARD, 12, fields, apply(onward)).hops = hops;
        }
    }
}

/// Frames for a host.
fn to(key: u32, mac: MacAddr) -> [Oxm; 2] {
    [Oxm::Metadata(metadata::link(key), Some(metadata::TENANT)), Oxm::EthDst(mac, None)]
}

/// What tells frames for a host of the tenant with this key, wherever they come from, in the table that sends them on.
pub(crate) fn onward(key: u32, mac: MacAddr) -> FlowKey {
    FlowKey { table: FORWARD, priority: 10, matching: Match::new(to(key, mac)) }
}

/// Are a tenant's frames taken in at both ends of a link? At bridges that answer they will be.
fn takes_in(view: &View, link: &Link, numbers: Numbers, mode: Mode) -> bool {
    view.takes_in(link, Owner(numbers.key), |end| {
        let (fields, _) = links::receive(end.port, link.carrier, numbers, mode);
        let priority = if mode == Mode::Normal { 10 } else { 12 };
        FlowKey { table: ADMIT, priority, matching: Match::new(fields) }
    })
}

/// What becomes of a frame that comes over a link: its mark goes, and the metadata says what the mark said.
fn arrive(actions: Vec<Action>, metadata: u64, table: TableId) -> Vec<Instruction> {
    let mut instructions = Vec::with_capacity(3);
    if !actions.is_empty() {
        instructions.push(Instruction::ApplyActions(actions));
    }
    instructions.push(Instruction::WriteMetadata { metadata, mask: u64::MAX });
    instructions.push(Instruction::GotoTable(table));
    instructions
}

/// Set in the first octet of group addresses (IEEE 802-2014 §8.2).
pub(crate) const GROUP_BIT: MacAddr = MacAddr([1, 0, 0, 0, 0, 0]);
