//! What belongs to no tenant: probes of links, frames that no tenant may send, and all meters.

use std::collections::{BTreeMap, BTreeSet};

use openflow::action::Action;
use openflow::oxm::Oxm;
use openflow::types::{DatapathId, MacAddr, PortNo};

use crate::allocation::Allocations;
use crate::attachment::{Attachments, PortUse};
use crate::desired::{Section, SectionBuilder, apply, drop};
use crate::guard;
use crate::limits;
use crate::links::{TAG, tagged};
use crate::marks::{CLAIMS, DEDICATED_FLOOD_VLANS, Owner, flood_limit, port_meter};
use crate::pipeline::{ADMIT, GUARD};
use crate::policy::{Policy, RateLimit, RateUnit};
use crate::tenants::GROUP_BIT;
use crate::view::{Endpoint, View};

/// Ethernet type of all probes: one for experiments (IEEE 802 §9.2.4).
pub const PROBES: u16 = 0x88b5;

/// Where probes of service functions are addressed to. Nobody has this address.
pub const HEALTH_DESTINATION: MacAddr = MacAddr([0x02, 0xe5, 0xa1, 0, 0, 1]);

/// Where probes of links are addressed to: a locally administered group (IEEE 802 §8.4), which switches pass on to all
/// ports as they do with any group that they know nothing of. LLDP's own address ends at the first one.
pub const PROBE_DESTINATION: MacAddr = MacAddr([0x03, 0xe5, 0xa1, 0, 0, 2]);

/// Copies of frames that one port may send to the controller, and that claim to be of somebody else at a bridge.
const COPIES: RateLimit = RateLimit { unit: RateUnit::Packets, rate: 100, burst: 100 };

/// Addresses that bridges don't pass on (IEEE 802.1Q §8.6.3): spanning tree, LACP, LLDP and the like.
pub(crate) const RESERVED: (MacAddr, MacAddr) =
    (MacAddr([0x01, 0x80, 0xc2, 0, 0, 0]), MacAddr([0xff, 0xff, 0xff, 0xff, 0xff, 0xf0]));

/// MAC control: pause frames are between the two ends of one link (IEEE 802.3 annex 31B).
pub(crate) const MAC_CONTROL: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 1]);

/// Has a frame the type of a probe, with a mark of ours around it or none?
pub fn has_probes_type(frame: &[u8]) -> bool {
    let at =
        |place: usize| frame.get(place..place + 2).and_then(|octets| octets.try_into().ok()).map(u16::from_be_bytes);
    at(12) == Some(PROBES) || at(12) == Some(TAG) && at(16) == Some(PROBES)
}

/// What makes a frame a probe.
pub(crate) fn probe_fields() -> [Oxm; 2] {
    [Oxm::EthDst(PROBE_DESTINATION, None), Oxm::EthType(PROBES, None)]
}

/// Hands the probes that come in at a port to the controller, and nothing else of them.
pub(crate) fn report_probes(builder: &mut SectionBuilder, port: PortNo) {
    let fields = probe_fields().into_iter().chain([Oxm::InPort(port, None)]);
    builder.flow(ADMIT, 40, fields, apply(vec![Action::metered_copy(port_meter(port))]));
}

/// Hands the probes that come out of a service function to the controller, and nothing else of them.
pub(crate) fn report_health(builder: &mut SectionBuilder, port: PortNo) {
    let fields = [Oxm::InPort(port, None), Oxm::EthDst(HEALTH_DESTINATION, None), Oxm::EthType(PROBES, None)];
    builder.flow(ADMIT, 40, fields, apply(vec![Action::metered_copy(port_meter(port))]));
}

/// The fabric's own entries on a bridge that answers.
pub fn compile(
    dpid: DatapathId,
    policy: &Policy,
    allocations: &Allocations,
    attachments: &Attachments,
    view: &View,
) -> Section {
    let mut builder = SectionBuilder::new(Owner::FABRIC);
    builder.flow(ADMIT, 30, [Oxm::EthDst(RESERVED.0, Some(RESERVED.1))], drop());
    builder.flow(GUARD, 100, [Oxm::EthSrc(GROUP_BIT, Some(GROUP_BIT))], drop());
    builder.flow(GUARD, 100, [Oxm::EthSrc(MacAddr::default(), None)], drop());
    for vlan in DEDICATED_FLOOD_VLANS {
        builder.flow(GUARD, 100, [Oxm::VlanVid(tagged(vlan), None)], drop());
    }
    let no_ports = BTreeMap::new();
    let ports = view.bridges.get(&dpid).map_or(&no_ports, |bridge| &bridge.ports);
    for &port in ports.keys() {
        let place = Endpoint { bridge: dpid, port };
        if *attachments.of(place) != PortUse::Unused {
            builder.meter(port_meter(port), COPIES);
        }
        if let (Some(meter), Some(limit)) = (flood_limit(port), limits::of_floods(place, policy, attachments)) {
            builder.meter(meter, limit);
        }
        if attachments.is_probed(place) {
            report_probes(&mut builder, port);
        }
    }
    let tenants: BTreeSet<&str> = ports
        .keys()
        .filter_map(|port| attachments.tenant(Endpoint { bridge: dpid, port: *port }))
        .map(|it| it.tenant.as_str())
        .collect();
    if tenants.into_iter().filter_map(|name| policy.tenant(name)).any(guard::is_guarded) {
        builder.meter(CLAIMS, COPIES);
    }
    limits::pass(&mut builder);
    for (meter, limit) in limits::at(dpid, policy, allocations, attachments, view) {
        builder.meter(meter, limit.limit);
    }
    builder.build_for(ports)
}
