//! Addresses that belong to whichever of several routers is in charge, where the policy gives them to one port.

use std::collections::BTreeSet;

use openflow::types::MacAddr;

use super::chain::Address;
use super::declared::TenantPart;
use super::diagnostic::Code;
use super::report::{At, Draft, Report};

/// Protocols by which routers share an address, the first octets of such addresses, and how many bits of these count.
const SHARED: [(&str, [u8; 6], u32); 7] = [
    ("VRRP or CARP", [0x00, 0x00, 0x5e, 0x00, 0x01, 0], 40),
    ("VRRP for IPv6", [0x00, 0x00, 0x5e, 0x00, 0x02, 0], 40),
    ("HSRP", [0x00, 0x00, 0x0c, 0x07, 0xac, 0], 40),
    ("HSRP version 2", [0x00, 0x00, 0x0c, 0x9f, 0xf0, 0], 36),
    ("HSRP for IPv6", [0x00, 0x05, 0x73, 0xa0, 0x00, 0], 36),
    ("GLBP", [0x00, 0x07, 0xb4, 0x00, 0, 0], 30),
    ("network load balancing", [0x02, 0xbf, 0, 0, 0, 0], 16),
];

/// The protocol that moves this address from port to port.
fn shared_by(mac: MacAddr) -> Option<&'static str> {
    let number = |octets: [u8; 6]| octets.iter().fold(0_u64, |number, octet| number << 8 | u64::from(*octet));
    let alike = |(_, octets, bits): &&(_, [u8; 6], u32)| (number(mac.0) ^ number(*octets)) >> (48 - bits) == 0;
    SHARED.iter().find(alike).map(|(protocol, ..)| *protocol)
}

/// Reports pins to such addresses, and rules and chains for them that the pins leave nothing of.
pub(super) fn check(tenant: &TenantPart, report: &mut Report) {
    let pins = tenant.ports.iter().map(|port| {
        let help = "write the address that the router has of its own as `mac`, and this one as `shared_mac` at the ports of all such \
                    routers: nobody else can take it over from here, and what the router sends from its own address is dropped";
        (&port.object, port.mac.as_ref(), help)
    });
    let instances = tenant.functions.iter().flat_map(|function| &function.instances).map(|instance| {
        let help = "write the address that the instance has of its own, and an instance for each of the routers";
        (&instance.object, instance.mac.as_ref(), help)
    });
    for (object, mac, help) in pins.chain(instances) {
        let Some((mac, protocol)) = mac.and_then(|mac| Some((mac, shared_by(mac.value)?))) else { continue };
        report.push(
            Draft::warning(format!("`mac` of {object} is {}, which {protocol} moves between routers", mac.value))
                .code(Code::VirtualMac)
                .at(mac.place.clone(), "of whichever router is in charge")
                .help(help),
        );
    }
    pinned_away(tenant, report);
}

/// Rules and chains for frames from such an address, while every port is pinned to another.
fn pinned_away(tenant: &TenantPart, report: &mut Report) {
    let pins: Option<Vec<&At<MacAddr>>> = tenant.ports.iter().map(|port| port.mac.as_ref()).collect();
    let shared: BTreeSet<MacAddr> =
        tenant.ports.iter().flat_map(|port| &port.shared_mac).map(|mac| mac.value).collect();
    let Some(pins) = pins.filter(|pins| !pins.is_empty()) else { return };
    let chains = tenant.chains.iter().map(|chain| (&chain.object, &chain.classifiers));
    for (object, classifiers) in chains.chain(tenant.rules.iter().map(|rule| (&rule.object, &rule.classifiers))) {
        for classifier in classifiers.iter().flatten() {
            let macs = classifier.value.source.iter().chain(&classifier.value.destination);
            let macs = macs.filter_map(|address| if let Address::Mac(mac) = address { Some(*mac) } else { None });
            let mut missing = macs.filter(|mac| pins.iter().all(|pin| pin.value != *mac) && !shared.contains(mac));
            let Some((mac, protocol)) = missing.find_map(|mac| Some((mac, shared_by(mac)?))) else { continue };
            report.push(
                Draft::warning(format!("{object} is for {mac}, which no port of {} may send from", tenant.object))
                    .code(Code::VirtualMac)
                    .at(classifier.place.clone(), format!("{protocol} moves it between routers"))
                    .also(pins[0].place.clone(), "every port is pinned to another, like this")
                    .help("write it as `shared_mac` at the ports of such routers"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_addresses_are_told_from_others() {
        for (mac, protocol) in [
            ("00:00:5e:00:01:0a", Some("VRRP or CARP")),
            ("00:00:5e:00:02:ff", Some("VRRP for IPv6")),
            ("00:00:0c:07:ac:01", Some("HSRP")),
            ("00:00:0c:9f:fa:bc", Some("HSRP version 2")),
            ("00:05:73:a0:0f:ff", Some("HSRP for IPv6")),
            ("00:07:b4:03:00:01", Some("GLBP")),
            ("02:bf:0a:00:00:01", Some("network load balancing")),
            ("00:00:5e:00:03:01", None),
            ("00:00:5e:10:00:00", None),
            ("00:00:0c:9f:e0:01", None),
            ("00:07:b4:04:00:01", None),
            ("02:00:00:00:00:01", None),
        ] {
            assert_eq!(shared_by(mac.parse().unwrap()), protocol, "{mac}");
        }
    }
}
