//! Fabrics drawn from a seed, and what becomes of a frame in them.

mod ports;
pub(crate) mod services;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use apps::allocation::Allocations;
use apps::attachment::attach;
use apps::checker::{Checker, Violation};
use apps::compile::{Desired, compile};
use apps::desired::BridgeState;
use apps::interpreter::{Frame, Journey, follow};
use apps::kept::Kept;
use apps::links;
use apps::marks::Owner;
use apps::pipeline::FORWARD;
use apps::policy::{
    Function, Glob, InnerVlans, Instance, LinkLocal, Origin, Policy, PortSelector, RateLimit, RateUnit, Tenant,
    UnknownUnicast, Verdict,
};
use apps::reconcile::followed;
use apps::trees::{Followed, Tree};
use apps::view::{Bridge, Carrier, Endpoint, Grown, Held, Host, Hosts, Link, PortView, View};
use apps::withhold::Reluctance;
use openflow::oxm::Oxm;
use openflow::types::{DatapathId, MacAddr, PortNo};

/// Nobody has it.
pub(crate) const UNKNOWN: MacAddr = MacAddr([2, 0, 0, 0, 0xff, 0xff]);

/// SplitMix64: a stream of numbers that a seed determines.
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % bound as u64) as usize
    }
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

pub(crate) fn frame(destination: MacAddr, tags: usize) -> Frame {
    let source = MacAddr([2, 0, 0, 0, 0xee, 0xee]);
    let tags = [100, 4094 - 1][..tags].to_vec();
    Frame { destination, source, ethertype: 0x88b5, tags, ..Frame::default() }
}

#[derive(Clone)]
pub(crate) struct Fabric {
    pub(crate) policy: Policy,
    allocations: Allocations,
    pub(crate) view: View,
    /// Every wire that ever was; one that the controller takes for dead may still carry frames.
    pub(crate) wires: BTreeMap<Endpoint, (Endpoint, Carrier)>,
    hosts: BTreeMap<String, Hosts>,
    /// Ports of all service functions that ever were, with the tenant: what is cabled stays when the policy changes.
    pub(crate) functions: BTreeMap<Endpoint, (String, Function, Instance)>,
    /// Ports of functions that are down while the controller takes them for up, or the other way round.
    pub(crate) unseen: BTreeSet<Endpoint>,
}

impl Fabric {
    pub(crate) fn draw(draw: &mut Draw) -> Self {
        let (tenants, bridges) = (1 + draw.below(3), 2 + draw.below(5));
        let mut view = View::default();
        let mut hosts: BTreeMap<String, Hosts> = BTreeMap::new();
        for dpid in 1..=bridges as u64 {
            let mut ports = BTreeMap::from([(PortNo(1), port("stray"))]);
            for tenant in 0..tenants {
                for _ in 0..draw.below(3) {
                    let number = next(&ports);
                    ports.insert(number, port(&format!("t{tenant}-{}", number.0)));
                    // The same addresses in every tenant.
                    let mac = MacAddr([2, 0, 0, 0, dpid as u8, draw.below(3) as u8]);
                    if draw.chance(70) {
                        let place = Endpoint { bridge: DatapathId(dpid), port: number };
                        let host = Host { place, fresh: draw.chance(80) };
                        hosts.entry(format!("t{tenant}")).or_default().insert(mac, host);
                    }
                }
            }
            view.bridges.insert(DatapathId(dpid), Bridge { name: format!("b{dpid}"), responsive: true, ports });
        }
        let density = 30 + draw.below(71);
        for a in 1..=bridges as u64 {
            for b in a + 1..=bridges as u64 {
                for _ in 0..1 + draw.below(2) {
                    if draw.chance(density) {
                        let carrier = match draw.below(4) {
                            0 => Carrier::Vlan,
                            1 => Carrier::Dedicated(100 * (1 + draw.below(tenants) as u32)),
                            _ => Carrier::Tunnel,
                        };
                        add_link(&mut view, a, b, carrier);
                    }
                }
            }
        }
        let tenants = (0..tenants).map(|tenant| self::tenant(tenant, draw)).collect();
        Self::of(view, tenants, hosts)
    }

    /// A bridge with so many ports, of which the first are a tenant's and the last ones links to two bridges with a port each.
    pub(crate) fn large(ports: u32) -> Self {
        let mut view = View::default();
        for (dpid, ports) in [(1, ports - 2), (2, 1), (3, 1)] {
            let ports = (1..=ports).map(|number| (PortNo(number), port(&format!("t0-{number}")))).collect();
            view.bridges.insert(DatapathId(dpid), Bridge { name: format!("b{dpid}"), responsive: true, ports });
        }
        for (other, carrier) in [(2, Carrier::Tunnel), (3, Carrier::Vlan)] {
            let end = |dpid, number| {
                let place = Endpoint { bridge: DatapathId(dpid), port: PortNo(number) };
                (place, port(&format!("link{number}")))
            };
            let ((a, near), (b, far)) = (end(1, ports - 2 + other as u32 - 1), end(other, 2));
            for (place, port) in [(a, near), (b, far)] {
                view.bridges.get_mut(&place.bridge).unwrap().ports.insert(place.port, port);
            }
            view.links.push(Link { a, b, carrier });
        }
        let mut tenant = tenant(0, &mut Draw::new(0));
        tenant.unknown_unicast = UnknownUnicast::Flood;
        Self::of(view, vec![tenant], BTreeMap::new())
    }

    fn of(view: View, tenants: Vec<Tenant>, hosts: BTreeMap<String, Hosts>) -> Self {
        let wires = view.links.iter().flat_map(|l| [(l.a, (l.b, l.carrier)), (l.b, (l.a, l.carrier))]).collect();
        let policy = Policy {
            tenants,
            fabric: apps::policy::Fabric { links: vec![Glob::new("*")], ..Default::default() },
            ..Policy::default()
        };
        let allocations = Allocations::default().updated(&policy);
        let (functions, unseen) = (BTreeMap::new(), BTreeSet::new());
        Self { policy, allocations, view, wires, hosts, functions, unseen }
    }

    pub(crate) fn desired(&self) -> Desired {
        compile(&self.policy, &self.allocations, &self.view, &self.hosts)
    }

    /// What bridges should hold, and the trees that floods are to follow by that.
    pub(crate) fn wanted(&self) -> (BTreeMap<DatapathId, BridgeState>, BTreeMap<u32, Grown>) {
        let desired = self.desired();
        let trees = desired.grown(&self.allocations);
        (desired.bridges, trees)
    }

    /// Looks which versions of trees bridges follow, before others are computed.
    pub(crate) fn recall(&mut self, states: &BTreeMap<DatapathId, BridgeState>) {
        for (key, grown) in &mut self.view.trees {
            let of = |state: &BridgeState| state.get(&Owner(*key)).and_then(|section| followed(section));
            let followed = Followed { all: states.values().filter_map(of).collect(), ..Followed::default() };
            *grown = followed.recall(Some(grown)).unwrap();
        }
    }

    /// What the checker says of these tables.
    pub(crate) fn checked(&self, states: &BTreeMap<DatapathId, BridgeState>) -> Vec<Violation> {
        let attachments = attach(&self.policy, &self.view);
        Checker::new(&self.policy, &self.allocations, &attachments, &self.view).all(states)
    }

    /// Do all bridges answer, and all links say which version of the tree a frame follows?
    pub(crate) fn tells_trees(&self) -> bool {
        let tells = |link: &Link| link.carrier != Carrier::Vlan;
        !self.has_silent() && self.view.links.iter().chain(self.view.withheld.keys()).all(tells)
    }

    /// Does some bridge not answer?
    pub(crate) fn has_silent(&self) -> bool {
        self.view.bridges.values().any(|bridge| !bridge.responsive)
    }

    pub(crate) fn unknown(&self, tenant: &str) -> UnknownUnicast {
        self.policy.tenants.iter().find(|t| t.name == tenant).unwrap().unknown_unicast
    }

    pub(crate) fn link_local(&self, tenant: &str) -> LinkLocal {
        self.policy.tenants.iter().find(|t| t.name == tenant).unwrap().link_local
    }

    pub(crate) fn hosts(&self, tenant: &str) -> Hosts {
        self.hosts.get(tenant).cloned().unwrap_or_default()
    }

    pub(crate) fn all_macs(&self) -> BTreeSet<MacAddr> {
        self.hosts.values().flat_map(|hosts| hosts.keys().copied()).collect()
    }

    pub(crate) fn all_ports(&self) -> Vec<Endpoint> {
        let ends = self
            .view
            .bridges
            .iter()
            .flat_map(|(dpid, bridge)| bridge.ports.keys().map(|port| Endpoint { bridge: *dpid, port: *port }));
        ends.filter(|end| !self.wires.contains_key(end)).collect()
    }

    /// Does a bridge know where a host of a tenant is?
    pub(crate) fn is_known(&self, state: &BridgeState, tenant: &str, mac: MacAddr) -> bool {
        let section = self.allocations.of(tenant).and_then(|numbers| state.get(&Owner(numbers.key)));
        let mut keys = section.into_iter().flat_map(|section| section.flows.keys());
        keys.any(|key| key.table == FORWARD && key.matching.fields().contains(&Oxm::EthDst(mac, None)))
    }

    /// Names of all tenants.
    pub(crate) fn tenants(&self) -> Vec<String> {
        self.policy.tenants.iter().map(|tenant| tenant.name.clone()).collect()
    }

    /// The tenant of a port, read off its name.
    pub(crate) fn owner(&self, place: Endpoint) -> Option<String> {
        let name = &self.view.bridges[&place.bridge].ports[&place.port].name;
        name.split_once('-').filter(|(tenant, _)| tenant.starts_with('t')).map(|(tenant, _)| tenant.to_owned())
    }

    pub(crate) fn tenant_ports(&self) -> Vec<(Endpoint, String)> {
        self.all_ports().into_iter().filter_map(|place| Some((place, self.owner(place)?))).collect()
    }

    /// Hops between two bridges over links that the tenant can use.
    pub(crate) fn distance(&self, from: DatapathId, to: DatapathId, tenant: &str) -> Option<usize> {
        let numbers = self.allocations.of(tenant).unwrap();
        let mut hops = BTreeMap::from([(from, 0)]);
        let mut queue = VecDeque::from([from]);
        while let Some(at) = queue.pop_front() {
            let next = hops[&at] + 1;
            for link in self.view.links.iter().filter(|link| links::usable(link.carrier, numbers)) {
                if let Some((_, there)) = link.at(at)
                    && let Entry::Vacant(new) = hops.entry(there.bridge)
                {
                    new.insert(next);
                    queue.push_back(there.bridge);
                }
            }
        }
        hops.get(&to).copied()
    }

    /// The tenant's other ports that a frame from this one can reach.
    pub(crate) fn reachable(&self, from: Endpoint, tenant: &str) -> BTreeSet<Endpoint> {
        let mine = self.tenant_ports().into_iter().filter(|(place, owner)| *place != from && owner == tenant);
        mine.map(|(place, _)| place)
            .filter(|place| self.distance(from.bridge, place.bridge, tenant).is_some())
            .collect()
    }

    /// What becomes of a frame that enters at a port.
    pub(crate) fn send(&self, states: &BTreeMap<DatapathId, BridgeState>, from: Endpoint, sent: &Frame) -> Journey {
        self.send_without(states, &BTreeSet::new(), from, sent)
    }

    /// The same where some ports have no carrier, which nobody but the bridges themselves knows yet.
    pub(crate) fn send_without(
        &self,
        states: &BTreeMap<DatapathId, BridgeState>,
        down: &BTreeSet<Endpoint>,
        from: Endpoint,
        sent: &Frame,
    ) -> Journey {
        follow(states, &self.wires, down, from, sent)
    }

    /// Ends of some links, or of all links of a bridge.
    pub(crate) fn dead_ports(&self, draw: &mut Draw) -> BTreeSet<Endpoint> {
        let dead = DatapathId(1 + draw.below(self.view.bridges.len()) as u64);
        let (whole, percent) = (draw.chance(30), 10 + draw.below(60));
        let dies = |end: &&Endpoint| if whole { self.wires[end].0.bridge == dead } else { draw.chance(percent) };
        self.wires.keys().filter(dies).copied().collect()
    }

    /// Something changes: what it was is the answer. `trees` are those in force before, `states` what bridges hold.
    pub(crate) fn change(
        &mut self,
        draw: &mut Draw,
        trees: &BTreeMap<String, Tree>,
        states: &BTreeMap<DatapathId, BridgeState>,
    ) -> String {
        match draw.below(6) {
            0 | 1 => self.change_link(draw),
            2 => self.move_host(draw),
            3 => {
                let dpid = DatapathId(1 + draw.below(self.view.bridges.len()) as u64);
                if self.view.bridges[&dpid].responsive {
                    self.silence(dpid, trees, &states[&dpid])
                } else {
                    self.revive(dpid)
                }
            }
            4 => {
                // A port goes to another tenant. Where its bridge doesn't answer, nobody could enforce that.
                let ports = self.tenant_ports();
                let answering: Vec<_> =
                    ports.into_iter().filter(|(place, _)| self.view.bridges[&place.bridge].responsive).collect();
                if answering.is_empty() {
                    return "nothing".into();
                }
                let (place, _) = answering[draw.below(answering.len())].clone();
                self.hand_over(place, draw)
            }
            _ => {
                let tenant = draw.below(self.policy.tenants.len());
                self.policy.tenants[tenant] = self::tenant(tenant, draw);
                format!("t{tenant} gets another policy")
            }
        }
    }

    /// A port goes to a tenant, and the hosts there are gone.
    pub(crate) fn hand_over(&mut self, place: Endpoint, draw: &mut Draw) -> String {
        let tenant = draw.below(self.policy.tenants.len());
        let bridge = self.view.bridges.get_mut(&place.bridge).unwrap();
        bridge.ports.get_mut(&place.port).unwrap().name = format!("t{tenant}-{}", place.port.0);
        for hosts in self.hosts.values_mut() {
            hosts.retain(|_, host| host.place != place);
        }
        format!("{place} goes to t{tenant}")
    }

    /// A link dies, isn't used any more or is again, or one more comes.
    pub(crate) fn change_link(&mut self, draw: &mut Draw) -> String {
        if draw.chance(30) {
            if let Some((link, _)) = self.view.withheld.pop_first() {
                self.view.links.push(link);
                self.view.links.sort();
                return format!("{} – {} is used again", link.a, link.b);
            }
            if !self.view.links.is_empty() {
                let link = self.view.links.remove(draw.below(self.view.links.len()));
                self.view.withheld.insert(link, Reluctance::Drained);
                return format!("{} – {} is drained", link.a, link.b);
            }
        }
        if draw.chance(50) && !self.view.links.is_empty() {
            let link = self.view.links.remove(draw.below(self.view.links.len()));
            return format!("{} – {} dies", link.a, link.b);
        }
        let bridges = self.view.bridges.len() as u64;
        let (a, b) = (1 + draw.below(bridges as usize) as u64, 1 + draw.below(bridges as usize) as u64);
        let answers = |dpid| self.view.bridges[&DatapathId(dpid)].responsive;
        if a == b || !answers(a) || !answers(b) {
            return "nothing".into();
        }
        let link = add_link(&mut self.view, a.min(b), a.max(b), Carrier::Tunnel);
        self.wires.extend([(link.a, (link.b, link.carrier)), (link.b, (link.a, link.carrier))]);
        format!("{} – {} comes", link.a, link.b)
    }

    fn move_host(&mut self, draw: &mut Draw) -> String {
        let ports = self.tenant_ports();
        let Some((place, tenant)) = ports.get(draw.below(ports.len().max(1))).cloned() else { return "nothing".into() };
        let hosts = self.hosts.entry(tenant.clone()).or_default();
        let Some(mac) = hosts.keys().nth(draw.below(hosts.len().max(1))).copied() else { return "nothing".into() };
        hosts.insert(mac, Host { place, fresh: true });
        format!("{mac} of {tenant} moves to {place}")
    }

    fn silence(&mut self, dpid: DatapathId, trees: &BTreeMap<String, Tree>, state: &BridgeState) -> String {
        self.view.bridges.get_mut(&dpid).unwrap().responsive = false;
        self.view.kept.insert(dpid, Arc::new(Kept::new(state, &[])));
        let keys = |link: &Link| -> BTreeSet<u32> {
            let using = trees.iter().filter(|(_, tree)| tree.edges.contains(link));
            using.filter_map(|(name, _)| Some(self.allocations.of(name)?.key)).collect()
        };
        for held in self.view.held.iter_mut().filter(|held| held.link.at(dpid).is_some()) {
            let now = keys(&held.link);
            held.trees.retain(|key| now.contains(key));
        }
        let (held, links) = std::mem::take(&mut self.view.links).into_iter().partition(|link| link.at(dpid).is_some());
        self.view.links = links;
        let held: Vec<Link> = held;
        self.view.held.extend(held.into_iter().map(|link| Held { link, trees: keys(&link), up: true }));
        format!("{dpid} stops answering")
    }

    fn revive(&mut self, dpid: DatapathId) -> String {
        self.view.bridges.get_mut(&dpid).unwrap().responsive = true;
        self.view.kept.remove(&dpid);
        let answers = |dpid: DatapathId| self.view.bridges[&dpid].responsive;
        let (back, held) = std::mem::take(&mut self.view.held)
            .into_iter()
            .partition(|held| answers(held.link.a.bridge) && answers(held.link.b.bridge));
        let back: Vec<Held> = back;
        self.view.held = held;
        self.view.links.extend(back.into_iter().map(|held| held.link));
        self.view.links.sort();
        format!("{dpid} answers again")
    }
}

fn port(name: &str) -> PortView {
    PortView { name: name.to_owned(), up: true, ..PortView::default() }
}

fn add_link(view: &mut View, a: u64, b: u64, carrier: Carrier) -> Link {
    let mut end = |dpid| {
        let bridge = view.bridges.get_mut(&DatapathId(dpid)).unwrap();
        let number = next(&bridge.ports);
        bridge.ports.insert(number, port(&format!("link{}", number.0)));
        Endpoint { bridge: DatapathId(dpid), port: number }
    };
    let link = Link { a: end(a), b: end(b), carrier };
    view.links.push(link);
    view.links.sort();
    link
}

/// A number for another port. They lie so far apart that a tenant's ports come to be in one group or in several.
fn next(ports: &BTreeMap<PortNo, PortView>) -> PortNo {
    PortNo(ports.len() as u32 * 350 + 1)
}

fn tenant(number: usize, draw: &mut Draw) -> Tenant {
    let origin = Origin { file: Arc::from("drawn"), line: 1 };
    let unknown_unicast = if draw.chance(50) { UnknownUnicast::Flood } else { UnknownUnicast::Drop };
    let limit = |chosen: bool| chosen.then_some(RateLimit { unit: RateUnit::Kilobits, rate: 1000, burst: 500 });
    let selector = PortSelector {
        bridge: Glob::new("*"),
        port: Glob::new(&format!("t{number}-*")),
        name: None,
        mac: None,
        ip: Vec::new(),
        shared_mac: Vec::new(),
        shared_ip: Vec::new(),
        router: false,
        dhcp_server: false,
        rate_limit: limit(draw.chance(30)),
        rate_limit_to: limit(draw.chance(30)),
        origin: origin.clone(),
    };
    Tenant {
        name: format!("t{number}"),
        key: Some(100 * (number as u32 + 1)),
        unknown_unicast,
        link_local: if number.is_multiple_of(2) { LinkLocal::Pass } else { LinkLocal::Drop },
        max_hosts: 1024,
        mtu: None,
        rate_limit: limit(draw.chance(30)),
        flood_limit: limit(draw.chance(70)),
        ports: vec![selector],
        default: Verdict::Allow,
        inner_vlans: InnerVlans::Drop,
        functions: Vec::new(),
        chains: Vec::new(),
        rules: Vec::new(),
        origin,
    }
}
