//! Who may send as whom: pinned ports, and addresses that are pinned elsewhere.
//!
//! A frame says who sends it in several places, and each of them can lie: its source address, ARP's sender, the source of a
//! packet, target and options of neighbour discovery. What a port may say of itself is listed for that port; what no other
//! port may say is listed once for the tenant. Priorities see to which of the two is asked first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use openflow::action::Action;
use openflow::instruction::Instruction;
use openflow::oxm::Oxm;
use openflow::types::{MacAddr, PortNo};

use crate::assigned::ethertype::{ARP, IPV4, IPV6, TAGS};
use crate::assigned::icmpv6::{NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, REDIRECT, ROUTER_ADVERTISEMENT};
use crate::assigned::protocol::{ICMPV6, IGMP, UDP};
use crate::desired::{SectionBuilder, apply, drop, go};
use crate::links::tagged;
use crate::marks::{CLAIMS, metadata, port_meter};
use crate::pipeline::{GUARD, LIMIT_PORT};
use crate::policy::{Origin, PortSelector, Tenant};

/// Marks of links, which no station may send.
const MARKS: u16 = 100;
/// What routers and DHCP servers alone may send.
const SERVICE: u16 = 60;
/// What a station reads and a bridge doesn't.
const HIDDEN: u16 = 50;
/// MAC addresses that aren't a port's, where its IP addresses alone are pinned.
const FOREIGN_AT_PORT: u16 = 45;
/// What a port may say in neighbour discovery, and all else of it.
const OWN_DISCOVERY: u16 = 40;
const DISCOVERY: u16 = 30;
/// A port's own IP addresses.
const OWN: u16 = 20;
/// IP addresses that are pinned elsewhere.
const FOREIGN: u16 = 18;
/// A port's own MAC address in ARP and neighbour discovery, and those that are pinned elsewhere.
const OWN_STATION_SAID: u16 = 17;
const FOREIGN_STATION_SAID: u16 = 16;
/// The same as the source of a frame.
const OWN_STATION: u16 = 15;
const FOREIGN_STATION: u16 = 14;
/// A port that isn't pinned.
const OPEN: u16 = 10;
/// What a pinned port may not send.
const REST: u16 = 1;

/// UDP ports of clients and servers (RFC 2131 §4.1, RFC 8415 §7.2).
pub(crate) const DHCP_PORTS: [u16; 2] = [68, 67];
pub(crate) const DHCPV6_PORTS: [u16; 2] = [546, 547];
/// What a station without an address sends, beside probes for duplicates: it reports groups (MLD, RFC 3590 §4; two versions, and that
/// it leaves one), and looks for routers (RFC 4861 §4.1).
const UNADDRESSED: [u8; 4] = [131, 132, 133, 143];

/// Which ICMPv6 message.
fn icmp(kind: u8) -> [Oxm; 3] {
    [Oxm::EthType(IPV6, None), Oxm::IpProto(ICMPV6, None), Oxm::Icmpv6Type(kind, None)]
}

/// The places where a frame says that its sender has an IP address: sender in ARP, or source; target of an advertisement; and what
/// a probe for duplicates asks for, as who asks means to have it (RFC 5227 §1.1, RFC 4862 §5.4).
fn claims_of_ip(ip: IpAddr) -> [Vec<Oxm>; 3] {
    match ip {
        IpAddr::V4(ip) => [
            vec![Oxm::EthType(IPV4, None), Oxm::Ipv4Src(ip, None)],
            vec![Oxm::EthType(ARP, None), Oxm::ArpSpa(ip, None)],
            vec![Oxm::EthType(ARP, None), Oxm::ArpSpa(Ipv4Addr::UNSPECIFIED, None), Oxm::ArpTpa(ip, None)],
        ],
        IpAddr::V6(ip) => {
            let target = || Oxm::Ipv6NdTarget(ip, None);
            let nobody = Oxm::Ipv6Src(Ipv6Addr::UNSPECIFIED, None);
            [
                vec![Oxm::EthType(IPV6, None), Oxm::Ipv6Src(ip, None)],
                icmp(NEIGHBOUR_ADVERTISEMENT).into_iter().chain([target()]).collect(),
                icmp(NEIGHBOUR_SOLICITATION).into_iter().chain([nobody, target()]).collect(),
            ]
        }
    }
}

/// The places, beside a frame's source, where it says that its sender has a MAC address. Those in options of router
/// solicitations and advertisements Open vSwitch doesn't read.
fn claims_of_mac(mac: MacAddr) -> [Vec<Oxm>; 3] {
    [
        vec![Oxm::EthType(ARP, None), Oxm::ArpSha(mac, None)],
        icmp(NEIGHBOUR_SOLICITATION).into_iter().chain([Oxm::Ipv6NdSll(mac, None)]).collect(),
        icmp(NEIGHBOUR_ADVERTISEMENT).into_iter().chain([Oxm::Ipv6NdTll(mac, None)]).collect(),
    ]
}

/// Frames whose claims stations read and Open vSwitch doesn't: ARP of another hardware type than Ethernet (Linux takes that of IEEE
/// 802, 6, for the same), neighbour discovery with an option that is there twice, and what is behind a second tag where the
/// first one has VLAN id 0 (IEEE 802.1Q §6.9: such frames are untagged ones).
fn hidden() -> impl Iterator<Item = Vec<Oxm>> {
    let nobody = Oxm::Ipv6NdTarget(Ipv6Addr::UNSPECIFIED, None);
    let discovery = [NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT].map(icmp);
    let discovery = discovery.into_iter().map(move |fields| fields.into_iter().chain([nobody.clone()]).collect());
    let tags = TAGS.map(|tag| vec![Oxm::VlanVid(tagged(0), None), Oxm::EthType(tag, None)]);
    [vec![Oxm::EthType(ARP, None), Oxm::ArpOp(0, None)]].into_iter().chain(discovery).chain(tags)
}

/// Nothing goes on; the controller gets a copy, to tell who it was.
fn refuse() -> Vec<Instruction> {
    apply(vec![Action::metered_copy(CLAIMS)])
}

/// What one port of a tenant may send.
pub(crate) fn port(builder: &mut SectionBuilder, port: PortNo, selector: &PortSelector) {
    let here = || vec![Oxm::InPort(port, None)];
    let stations: Vec<Option<MacAddr>> =
        if selector.mac.is_some() { selector.macs().map(Some).collect() } else { vec![None] };
    if !selector.is_pinned() {
        builder.flow(GUARD, OPEN, here(), go(LIMIT_PORT));
    }
    for station in stations.iter().copied().filter(|_| selector.is_pinned()) {
        let mut from = here();
        from.extend(station.map(|mac| Oxm::EthSrc(mac, None)));
        let own = Own { from, station };
        if selector.ip.is_empty() {
            own.any_address(builder, selector);
            continue;
        }
        own.ipv4(builder, selector);
        own.ipv6(builder, selector);
    }
    if selector.ips().any(|ip| ip.is_ipv6()) {
        // All other than is listed: neither source nor options tell who it is meant to be.
        let solicits = selector.mac.map(|_| NEIGHBOUR_SOLICITATION);
        for kind in [NEIGHBOUR_ADVERTISEMENT].into_iter().chain(solicits) {
            let copy = apply(vec![Action::metered_copy(port_meter(port))]);
            builder.flow(GUARD, DISCOVERY, here().into_iter().chain(icmp(kind)), copy);
        }
    }
}

/// What a pinned port may send as one station.
struct Own {
    from: Vec<Oxm>,
    /// `None`: as any.
    station: Option<MacAddr>,
}

impl Own {
    fn pass(&self, builder: &mut SectionBuilder, priority: u16, fields: impl IntoIterator<Item = Oxm>) {
        builder.flow(GUARD, priority, self.from.iter().cloned().chain(fields), go(LIMIT_PORT));
    }

    /// From whichever IP address isn't pinned elsewhere.
    fn any_address(&self, builder: &mut SectionBuilder, selector: &PortSelector) {
        self.pass(builder, OWN_STATION, []);
        for claim in selector.macs().flat_map(claims_of_mac) {
            self.pass(builder, OWN_STATION_SAID, claim);
        }
    }

    fn ipv4(&self, builder: &mut SectionBuilder, selector: &PortSelector) {
        for ip in selector.ips() {
            let IpAddr::V4(ip) = ip else { continue };
            self.pass(builder, OWN, [Oxm::EthType(IPV4, None), Oxm::Ipv4Src(ip, None)]);
            let nobody = Oxm::ArpSpa(Ipv4Addr::UNSPECIFIED, None);
            for sender in [vec![Oxm::ArpSpa(ip, None)], vec![nobody, Oxm::ArpTpa(ip, None)]] {
                let sha = self.station.map(|mac| Oxm::ArpSha(mac, None));
                self.pass(builder, OWN, [Oxm::EthType(ARP, None)].into_iter().chain(sender).chain(sha));
            }
        }
        // As long as it has none: it asks for one, and says which groups it is in.
        let nobody = || [Oxm::EthType(IPV4, None), Oxm::Ipv4Src(Ipv4Addr::UNSPECIFIED, None)].into_iter();
        if selector.ips().any(|ip| ip.is_ipv4()) {
            let [from, to] = DHCP_PORTS;
            let dhcp = [Oxm::IpProto(UDP, None), Oxm::UdpSrc(from, None), Oxm::UdpDst(to, None)];
            self.pass(builder, OWN, nobody().chain(dhcp));
            self.pass(builder, OWN, nobody().chain([Oxm::IpProto(IGMP, None)]));
        }
    }

    fn ipv6(&self, builder: &mut SectionBuilder, selector: &PortSelector) {
        let addresses = ipv6_of(selector);
        // An option that isn't there reads as zero.
        let said = |of: fn(MacAddr) -> Oxm| match self.station {
            Some(mac) => vec![Some(of(mac)), Some(of(MacAddr::default()))],
            None => vec![None],
        };
        for source in &addresses {
            let source = || Oxm::Ipv6Src(*source, None);
            self.pass(builder, OWN, [Oxm::EthType(IPV6, None), source()]);
            for sll in said(|mac| Oxm::Ipv6NdSll(mac, None)).into_iter().flatten() {
                self.pass(builder, OWN_DISCOVERY, icmp(NEIGHBOUR_SOLICITATION).into_iter().chain([source(), sll]));
            }
            for target in &addresses {
                let about =
                    || icmp(NEIGHBOUR_ADVERTISEMENT).into_iter().chain([source(), Oxm::Ipv6NdTarget(*target, None)]);
                for tll in said(|mac| Oxm::Ipv6NdTll(mac, None)) {
                    self.pass(builder, OWN_DISCOVERY, about().chain(tll));
                }
            }
        }
        let nobody = || Oxm::Ipv6Src(Ipv6Addr::UNSPECIFIED, None);
        for kind in UNADDRESSED.into_iter().filter(|_| !addresses.is_empty()) {
            self.pass(builder, OWN, icmp(kind).into_iter().chain([nobody()]));
        }
        for target in addresses {
            // Before an address is in use it is asked for from none (RFC 4862 §5.4.2).
            let bare = self.station.map(|_| Oxm::Ipv6NdSll(MacAddr::default(), None));
            let about = [nobody(), Oxm::Ipv6NdTarget(target, None)].into_iter().chain(bare);
            self.pass(builder, OWN_DISCOVERY, icmp(NEIGHBOUR_SOLICITATION).into_iter().chain(about));
        }
    }
}

/// The IPv6 addresses that a port may send from: its own, and those of links that are made from its MAC addresses (RFC 4862 §5.3).
fn ipv6_of(selector: &PortSelector) -> BTreeSet<Ipv6Addr> {
    let own: BTreeSet<Ipv6Addr> =
        selector.ips().filter_map(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None }).collect();
    let made = selector.macs().map(link_local).filter(|_| !own.is_empty());
    made.chain(own.iter().copied()).collect()
}

/// What a tenant's policy gives to single ports, whether they are there or not, and where it says so.
#[derive(Debug, Default)]
struct Pins<'a> {
    macs: BTreeMap<MacAddr, &'a Origin>,
    ips: BTreeMap<IpAddr, &'a Origin>,
}

impl<'a> Pins<'a> {
    fn of(tenant: &'a Tenant) -> Self {
        let mut pins = Self::default();
        for port in &tenant.ports {
            pins.macs.extend(port.macs().map(|mac| (mac, &port.origin)));
            pins.ips.extend(port.ips().map(|ip| (ip, &port.origin)));
        }
        // Functions that routes lead to.
        let instances = tenant.functions.iter().flat_map(|function| &function.instances);
        pins.macs.extend(instances.filter_map(|it| Some((it.mac?, &it.origin))));
        pins
    }
}

/// Is something kept from a port?
type KeptFrom = fn(&PortSelector) -> bool;

/// What a tenant's routers and DHCP servers alone may send, and from which ports it is kept. Whoever is told of a better router believes
/// who tells it as well (RFC 4861 §8), and nobody reads which addresses that names. What goes to a DHCP client's port comes from a
/// server, whatever port of its own that says.
fn services(tenant: &Tenant) -> Vec<(Vec<Oxm>, KeptFrom)> {
    let others: KeptFrom = |port| !port.router;
    let clients: KeptFrom = |port| !port.dhcp_server;
    // Whose addresses are listed has no network to tell of.
    let listed: KeptFrom = |port| !port.router && port.ips().any(|ip| ip.is_ipv6());
    let mut services: Vec<(Vec<Oxm>, KeptFrom)> = Vec::new();
    let some = |kept: KeptFrom| tenant.ports.iter().any(kept);
    match tenant.guards(|port| port.router) {
        true => services.push((icmp(ROUTER_ADVERTISEMENT).to_vec(), others)),
        false if some(listed) => services.push((icmp(ROUTER_ADVERTISEMENT).to_vec(), listed)),
        false => {}
    }
    if some(|port| port.router || port.is_pinned()) {
        services.push((icmp(REDIRECT).to_vec(), others));
    }
    if tenant.guards(|port| port.dhcp_server) {
        for (version, client) in [(IPV4, DHCP_PORTS[0]), (IPV6, DHCPV6_PORTS[0])] {
            let fields = [Oxm::EthType(version, None), Oxm::IpProto(UDP, None), Oxm::UdpDst(client, None)];
            services.push((fields.to_vec(), clients));
        }
    }
    services
}

/// Is something stopped of which the controller is told?
pub(crate) fn is_guarded(tenant: &Tenant) -> bool {
    let stations = tenant.functions.iter().flat_map(|function| &function.instances).filter_map(|it| it.mac);
    stations.count() > 0 || tenant.ports.iter().any(PortSelector::is_pinned) || !services(tenant).is_empty()
}

/// What ports of the tenant may not send: addresses that are pinned to another one, and what only routers and servers send. Where all ports are pinned themselves, what
/// they may send is listed, and needs no list of what they may not.
pub(crate) fn foreign(builder: &mut SectionBuilder, tenant: &Tenant, key: u32, ports: &[(PortNo, &PortSelector)]) {
    let entered = || Oxm::Metadata(metadata::edge(key), Some(metadata::TENANT | metadata::EDGE));
    let (pins, pinned) = (Pins::of(tenant), tenant.ports.iter().any(PortSelector::is_pinned));
    let kind = |port: &PortSelector| (port.mac.is_some(), !port.ip.is_empty());
    let has = |kinds: &[(bool, bool)]| ports.iter().any(|(_, port)| kinds.contains(&kind(port)));
    let mut stop = |origin: &Origin, priority, at: Oxm, claim: Vec<Oxm>| {
        builder.about(origin).flow(GUARD, priority, claim.into_iter().chain([at]), refuse());
    };
    for (fields, kept_from) in services(tenant) {
        // Where it is kept from all, one entry stops it.
        match ports.iter().all(|(_, port)| kept_from(port)) {
            true => stop(&tenant.origin, SERVICE, entered(), fields),
            false => {
                let kept = ports.iter().filter(|(_, port)| kept_from(port));
                kept.for_each(|(port, _)| stop(&tenant.origin, SERVICE, Oxm::InPort(*port, None), fields.clone()));
            }
        }
    }
    for claim in hidden().filter(|_| pinned) {
        stop(&tenant.origin, HIDDEN, entered(), claim);
    }
    for (ip, origin) in pins.ips.iter().filter(|_| has(&[(false, false), (true, false)])) {
        claims_of_ip(*ip).into_iter().for_each(|claim| stop(origin, FOREIGN, entered(), claim));
    }
    for (mac, origin) in &pins.macs {
        let source = || vec![Oxm::EthSrc(*mac, None)];
        if has(&[(false, false)]) {
            stop(origin, FOREIGN_STATION, entered(), source());
        }
        if pinned && has(&[(false, false), (true, false)]) {
            claims_of_mac(*mac).into_iter().for_each(|claim| stop(origin, FOREIGN_STATION_SAID, entered(), claim));
        }
        for (port, _) in ports.iter().filter(|(_, port)| kind(port) == (false, true)) {
            for claim in claims_of_mac(*mac).into_iter().chain([source()]) {
                stop(origin, FOREIGN_AT_PORT, Oxm::InPort(*port, None), claim);
            }
        }
    }
    if has(&[(true, false), (false, true), (true, true)]) {
        stop(&tenant.origin, REST, entered(), Vec::new());
    }
}

/// On tunnels of fixed key a tag marks frames for service functions, where a tenant's own tag could be.
pub(crate) fn marks(builder: &mut SectionBuilder, key: u32, vlans: &BTreeSet<u16>) {
    for vlan in vlans {
        let tenant = Oxm::Metadata(metadata::link(key), Some(metadata::TENANT));
        builder.flow(GUARD, MARKS, [tenant, Oxm::VlanVid(tagged(*vlan), None)], drop());
    }
}

/// The link-local address made from a MAC address (RFC 4291, appendix A).
pub(crate) fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}
