//! What belongs to no tenant: probes of links, frames that no tenant may send, and all meters.

use std::collections::BTreeMap;

use openflow::action::Action;
use openflow::oxm::Oxm;
use openflow::types::{DatapathId, MacAddr, PortNo};

use crate::allocation::Allocations;
use crate::attachment::{Attachments, PortUse};
use crate::desired::{Section, SectionBuilder, apply, drop};
use crate::limits;
use crate::links::tagged;
use crate::marks::{DEDICATED_FLOOD_VLANS, Owner, flood_limit, port_meter};
use crate::pipeline::{ADMIT, GUARD};
use crate::policy::{Policy, RateLimit, RateUnit};
use crate::tenants::GROUP_BIT;
use crate::view::{Endpoint, View};

/// Ethernet type of LLDP (IEEE 802.1AB §8.3).
pub const LLDP: u16 = 0x88cc;

/// Ethernet type of the probes that service functions have to let through: one for experiments (IEEE 802 §9.2.4).
pub const HEALTH: u16 = 0x88b5;

/// Where those are addressed to. Nobody has this address.
pub const HEALTH_DESTINATION: MacAddr = MacAddr([0x02, 0xe5, 0xa1, 0, 0, 1]);

/// Copies of frames that one port may send to the controller.
const COPIES: RateLimit = RateLimit { unit: RateUnit::Packets, rate: 100, burst: 100 };

/// Where probes are addressed to: the nearest bridge (IEEE 802.1AB §7.1).
pub const PROBE_DESTINATION: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x0e]);

/// Addresses that bridges don't pass on (IEEE 802.1Q §8.6.3): spanning tree, LACP, LLDP and the like.
const RESERVED: (MacAddr, MacAddr) =
    (MacAddr([0x01, 0x80, 0xc2, 0, 0, 0]), MacAddr([0xff, 0xff, 0xff, 0xff, 0xff, 0xf0]));

/// What makes a frame a probe.
pub(crate) fn probe_fields() -> [Oxm; 2] {
    [Oxm::EthDst(PROBE_DESTINATION, None), Oxm::EthType(LLDP, None)]
}

/// Hands the probes that come in at a port to the controller, and nothing else of them.
pub(crate) fn report_probes(builder: &mut SectionBuilder, port: PortNo) {
    let fields = probe_fields().into_iter().chain([Oxm::InPort(port, None)]);
    builder.flow(ADMIT, 40, fields, apply(vec![Action::metered_copy(port_meter(port))]));
}

/// Hands the probes that come out of a service function to the controller, and nothing else of them.
pub(crate) fn report_health(builder: &mut SectionBuilder, port: PortNo) {
    let fields = [Oxm::InPort(port, None), Oxm::EthDst(HEALTH_DESTINATION, None), Oxm::EthType(HEALTH, None)];
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
        let used = attachments.of(Endpoint { bridge: dpid, port });
        if *used != PortUse::Unused {
            builder.meter(port_meter(port), COPIES);
        }
        let place = Endpoint { bridge: dpid, port };
        if let (Some(meter), Some(limit)) = (flood_limit(port), limits::of_floods(place, policy, attachments)) {
            builder.meter(meter, limit);
        }
        if *used == PortUse::Candidate {
            report_probes(&mut builder, port);
        }
    }
    limits::pass(&mut builder);
    for (meter, limit) in limits::at(dpid, policy, allocations, attachments, view) {
        builder.meter(meter, limit.limit);
    }
    builder.build_for(ports)
}
