//! Who may send as whom: pinned ports, and addresses that are pinned elsewhere.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use openflow::oxm::Oxm;
use openflow::types::{MacAddr, PortNo};

use crate::assigned::ethertype::{ARP, IPV4, IPV6};
use crate::assigned::protocol::ICMPV6;
use crate::desired::{SectionBuilder, drop, go};
use crate::links::tagged;
use crate::marks::metadata;
use crate::pipeline::{GUARD, LIMIT_PORT};
use crate::policy::PortSelector;

const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// What one port of a tenant may send.
pub(crate) fn port(builder: &mut SectionBuilder, port: PortNo, selector: &PortSelector) {
    let mut from = vec![Oxm::InPort(port, None)];
    if !selector.is_pinned() {
        builder.flow(GUARD, 10, from, go(LIMIT_PORT));
        return;
    }
    if let Some(mac) = selector.mac {
        from.push(Oxm::EthSrc(mac, None));
    }
    if selector.ip.is_empty() {
        builder.flow(GUARD, 20, from, go(LIMIT_PORT));
        return;
    }
    let of_type = |ethertype| from.iter().cloned().chain([Oxm::EthType(ethertype, None)]).collect::<Vec<_>>();
    let with = |fields: Vec<Oxm>, more: Vec<Oxm>| fields.into_iter().chain(more).collect::<Vec<_>>();
    let mut v6 = Vec::new();
    for ip in &selector.ip {
        match ip {
            IpAddr::V4(ip) => {
                builder.flow(GUARD, 20, with(of_type(IPV4), vec![Oxm::Ipv4Src(*ip, None)]), go(LIMIT_PORT));
                let mut arp = with(of_type(ARP), vec![Oxm::ArpSpa(*ip, None)]);
                arp.extend(selector.mac.map(|mac| Oxm::ArpSha(mac, None)));
                builder.flow(GUARD, 20, arp, go(LIMIT_PORT));
            }
            IpAddr::V6(ip) => v6.push(*ip),
        }
    }
    if v6.is_empty() {
        return;
    }
    // Neighbour discovery is spoken from the link-local address that belongs to the MAC address (RFC 4862 §5.3), and
    // before an address is in use from none (§5.4.2).
    v6.extend(selector.mac.map(link_local));
    let icmp = |kind| with(of_type(IPV6), vec![Oxm::IpProto(ICMPV6, None), Oxm::Icmpv6Type(kind, None)]);
    builder.flow(GUARD, 30, icmp(ROUTER_ADVERTISEMENT), drop());
    builder.flow(GUARD, 30, icmp(NEIGHBOUR_ADVERTISEMENT), drop());
    for source in &v6 {
        builder.flow(GUARD, 20, with(of_type(IPV6), vec![Oxm::Ipv6Src(*source, None)]), go(LIMIT_PORT));
        for target in &v6 {
            let about = vec![Oxm::Ipv6Src(*source, None), Oxm::Ipv6NdTarget(*target, None)];
            builder.flow(GUARD, 40, with(icmp(NEIGHBOUR_ADVERTISEMENT), about), go(LIMIT_PORT));
        }
    }
    for target in &v6 {
        const NEIGHBOUR_SOLICITATION: u8 = 135;
        let about = vec![Oxm::Ipv6Src(Ipv6Addr::UNSPECIFIED, None), Oxm::Ipv6NdTarget(*target, None)];
        builder.flow(GUARD, 40, with(icmp(NEIGHBOUR_SOLICITATION), about), go(LIMIT_PORT));
    }
}

/// Addresses that are pinned to some port can't be sent from another one of the tenant.
pub(crate) fn foreign(builder: &mut SectionBuilder, key: u32, pinned: impl Iterator<Item = MacAddr>) {
    for mac in pinned {
        let tenant = Oxm::Metadata(metadata::edge(key), Some(metadata::TENANT | metadata::EDGE));
        builder.flow(GUARD, 15, [tenant, Oxm::EthSrc(mac, None)], drop());
    }
}

/// On tunnels of fixed key a tag marks frames for service functions, where a tenant's own tag could be.
pub(crate) fn marks(builder: &mut SectionBuilder, key: u32, vlans: &BTreeSet<u16>) {
    for vlan in vlans {
        let tenant = Oxm::Metadata(metadata::link(key), Some(metadata::TENANT));
        builder.flow(GUARD, 100, [tenant, Oxm::VlanVid(tagged(*vlan), None)], drop());
    }
}

/// The link-local address made from a MAC address (RFC 4291, appendix A).
fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}
