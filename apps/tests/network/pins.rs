//! Goal: a frame leaves a port if each address that it gives its sender may be sent from there, and not else. Method: ports of drawn
//! fabrics are pinned at random; frames of ARP, IP and neighbour discovery with drawn addresses are walked from each port through
//! the compiled tables, and the outcome is held against what the policy says, read by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use apps::interpreter::{Frame, Network, Transport};
use apps::policy::{Glob, PortSelector, Tenant, Verdict};
use apps::view::Endpoint;
use openflow::types::MacAddr;

use crate::seeds;
use crate::world::{Draw, Fabric};

const ADDRESSES: usize = 4;
const ICMPV6: u8 = 58;

fn mac(number: usize) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, number as u8 + 1])
}

fn v4(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number as u8 + 1)
}

fn v6(number: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number as u16 + 1)
}

/// What the policy says of a frame that is sent from a port.
struct Word<'a> {
    tenant: &'a Tenant,
    port: &'a PortSelector,
}

fn lists(port: &PortSelector, mac: MacAddr) -> bool {
    port.mac == Some(mac) || port.shared_mac.contains(&mac)
}

impl Word<'_> {
    fn others(&self) -> impl Iterator<Item = &PortSelector> {
        self.tenant.ports.iter().filter(|it| (&it.bridge, &it.port) != (&self.port.bridge, &self.port.port))
    }

    /// May it say that its sender is that station, as the source of a frame?
    fn station(&self, mac: MacAddr) -> bool {
        lists(self.port, mac) || self.port.mac.is_none() && !self.others().any(|it| lists(it, mac))
    }

    /// The same in ARP or an option. Where IP addresses are free, so is what isn't pinned elsewhere.
    fn said(&self, frame: &Frame, mac: MacAddr) -> bool {
        if self.port.mac.is_some() && !self.port.ip.is_empty() {
            return mac == frame.source;
        }
        self.station(mac) || self.port.ip.is_empty() && !self.others().any(|it| lists(it, mac))
    }

    fn address(&self, ip: IpAddr) -> bool {
        let listed = |port: &PortSelector| port.ip.contains(&ip) || port.shared_ip.contains(&ip);
        listed(self.port) || self.port.ip.is_empty() && !self.others().any(listed)
    }

    /// Is it said of itself by a station that has no address yet?
    fn begins(&self, frame: &Frame) -> bool {
        let (pinned, has) = (!self.port.ip.is_empty(), |six: bool| self.port.ips().any(|ip| ip.is_ipv6() == six));
        !pinned
            || match frame.network {
                Network::Ipv4 {
                    protocol: 17, transport: Transport::Ports { source: 68, destination: 67, .. }, ..
                } => has(false),
                Network::Ipv4 { protocol: 2, .. } => has(false),
                Network::Ipv6 { transport: Transport::Icmp { kind: 131 | 132 | 133 | 135 | 143, .. }, .. } => has(true),
                _ => false,
            }
    }

    fn passes(&self, frame: &Frame) -> bool {
        let offers = |offered: fn(&PortSelector) -> bool| {
            offered(self.port) || self.tenant.default == Verdict::Allow && !self.tenant.ports.iter().any(offered)
        };
        let mut passes = self.station(frame.source);
        match frame.network {
            Network::Unknown => passes &= self.port.ip.is_empty(),
            Network::Arp { sha, spa, tpa, .. } => {
                passes &= self.said(frame, sha);
                passes &= self.address(if spa.is_unspecified() { tpa } else { spa }.into());
            }
            Network::Ipv4 { source, transport, .. } => {
                passes &= if source.is_unspecified() { self.begins(frame) } else { self.address(source.into()) };
                if let Transport::Ports { destination: 68, .. } = transport {
                    passes &= offers(|port| port.dhcp_server);
                }
            }
            Network::Ipv6 { source, transport, .. } => {
                passes &= if source.is_unspecified() { self.begins(frame) } else { self.address(source.into()) };
                if let Transport::Icmp { kind, target, link_layer, .. } = transport {
                    let probes = kind == 135 && source.is_unspecified();
                    passes &= target.is_none_or(|target| kind != 136 && !probes || self.address(target.into()));
                    // Who has no address yet gives no other either (RFC 4861 §4.3).
                    let bare = probes && self.port.mac.is_some() && !self.port.ip.is_empty();
                    passes &= link_layer.is_none_or(|mac| self.said(frame, mac) && !bare);
                    let strict = self.port.ips().any(|ip| ip.is_ipv6()) && !self.port.router;
                    passes &= kind != 134 || offers(|port| port.router) && !strict;
                }
                if let Transport::Ports { destination: 546, .. } = transport {
                    passes &= offers(|port| port.dhcp_server);
                }
            }
        }
        passes
    }
}

fn network(draw: &mut Draw) -> Network {
    let (one, other) = (draw.below(ADDRESSES), draw.below(ADDRESSES));
    let link_layer = (draw.below(3) > 0).then(|| mac(draw.below(ADDRESSES)));
    let source = |draw: &mut Draw| if draw.below(4) == 0 { Ipv6Addr::UNSPECIFIED } else { v6(one) };
    let ports = |source, destination| Transport::Ports { source, destination, flags: 0 };
    let icmp = |kind, target, link_layer| Transport::Icmp { kind, code: 0, target, link_layer };
    let ipv6 = |source, protocol, transport| Network::Ipv6 { source, destination: v6(other), protocol, transport };
    match draw.below(12) {
        0 => Network::Unknown,
        1 | 2 => {
            let spa = if draw.below(3) == 0 { Ipv4Addr::UNSPECIFIED } else { v4(one) };
            Network::Arp { op: 1 + draw.below(2) as u16, sha: mac(draw.below(ADDRESSES)), spa, tpa: v4(other) }
        }
        3 | 4 => {
            let source = if draw.below(3) == 0 { Ipv4Addr::UNSPECIFIED } else { v4(one) };
            let (protocol, transport) =
                [(17, ports(68, 67)), (17, ports(67, 68)), (2, Transport::Unknown), (6, ports(9, 9))][draw.below(4)];
            Network::Ipv4 { source, destination: v4(other), protocol, transport }
        }
        5 => ipv6(source(draw), 17, [ports(547, 546), ports(546, 547)][draw.below(2)]),
        6 | 7 => ipv6(source(draw), ICMPV6, icmp(135, Some(v6(other)), link_layer)),
        8 | 9 => ipv6(v6(one), ICMPV6, icmp(136, Some(v6(other)), link_layer)),
        10 => ipv6(source(draw), ICMPV6, icmp([133, 143, 128][draw.below(3)], None, None)),
        _ => ipv6(v6(one), ICMPV6, icmp(134, None, None)),
    }
}

/// Some ports of a tenant are pinned, each in its way, some share an address, some offer something.
fn pin(tenant: &mut Tenant, ports: &[(Endpoint, String)], draw: &mut Draw) {
    let (mut macs, mut ips): (BTreeSet<usize>, BTreeSet<usize>) = Default::default();
    let open = tenant.ports[0].clone();
    for (place, name) in ports.iter().filter(|_| draw.below(3) > 0).collect::<Vec<_>>() {
        let mut port =
            PortSelector { bridge: Glob::new(&place.bridge.to_string()), port: Glob::new(name), ..open.clone() };
        let (number, kind) = (draw.below(ADDRESSES - 1), draw.below(4));
        if kind != 1 && macs.insert(number) {
            port.mac = Some(mac(number));
        }
        if kind != 2 && ips.insert(number) {
            port.ip = match draw.below(3) {
                0 => vec![v4(number).into()],
                1 => vec![v6(number).into()],
                _ => vec![v4(number).into(), v6(number).into()],
            };
        }
        if draw.below(3) == 0 && port.mac.is_some() && !port.ip.is_empty() {
            port.shared_mac = vec![mac(ADDRESSES - 1)];
            port.shared_ip = vec![v4(ADDRESSES - 1).into()];
        }
        (port.router, port.dhcp_server) = (draw.below(6) == 0, draw.below(6) == 0);
        tenant.ports.push(port);
    }
}

#[test]
fn frames_leave_ports_that_may_say_what_they_say_and_no_others() {
    let (mut passed, mut stopped) = (0, 0);
    for seed in 0..seeds() {
        let mut draw = Draw::new(seed ^ 0x9115);
        let mut fabric = Fabric::draw(&mut draw);
        let ports: Vec<(Endpoint, String, String)> = fabric
            .tenant_ports()
            .into_iter()
            .map(|(place, tenant)| (place, fabric.view.bridges[&place.bridge].ports[&place.port].name.clone(), tenant))
            .collect();
        for tenant in &mut fabric.policy.tenants {
            let own = ports.iter().filter(|(_, _, owner)| *owner == tenant.name);
            let own: Vec<_> = own.map(|(place, name, _)| (*place, name.clone())).collect();
            pin(tenant, &own, &mut draw);
        }
        let states = fabric.desired().bridges;
        let found = fabric.checked(&states);
        assert!(found.is_empty(), "seed {seed}: {found:?}");
        for (from, name, owner) in &ports {
            let tenant = fabric.policy.tenants.iter().find(|it| it.name == *owner).unwrap();
            let exact =
                |it: &&PortSelector| it.port.to_string() == *name && it.bridge.to_string() == from.bridge.to_string();
            let port = tenant.ports.iter().find(exact).unwrap_or(&tenant.ports[0]);
            let everybody: BTreeMap<Endpoint, usize> =
                fabric.reachable(*from, owner).into_iter().map(|place| (place, 1)).collect();
            for _ in 0..40 {
                let network = network(&mut draw);
                let ethertype = network.ethertype().unwrap_or(0x88b5);
                let source = mac(draw.below(ADDRESSES));
                let sent = Frame { destination: MacAddr::BROADCAST, source, ethertype, network, ..Frame::default() };
                let passes = Word { tenant, port }.passes(&sent);
                let told = fabric.send(&states, *from, &sent);
                let expected = if passes { everybody.clone() } else { BTreeMap::new() };
                assert_eq!(told.copies, expected, "seed {seed}: {sent:?} from {from} ({port:?})");
                passed += usize::from(passes && !everybody.is_empty());
                stopped += usize::from(!passes);
            }
        }
    }
    assert!(passed > 1000 && stopped > 1000, "{passed} passed, {stopped} didn't");
}
