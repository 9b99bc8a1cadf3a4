//! What a frame looks like on a link: how each kind of carrier marks tenant and mode (docs/pipeline.md).

use openflow::action::{Action, Members};
use openflow::narrow::U13;
use openflow::oxm::Oxm;
use openflow::types::PortNo;

use crate::allocation::Numbers;
use crate::marks::{Mode, TreeVersion, dedicated_flood_vlan, tunnel_key, vlan_id};
use crate::view::Carrier;

/// `vlan_vid` of a frame whose outer tag has this VLAN id: a bit says that there is a tag (`OFPVID_PRESENT`).
pub(crate) const fn tagged(vlan: u16) -> U13 {
    const OFPVID_PRESENT: u16 = 0x1000;
    U13::low(OFPVID_PRESENT | vlan)
}

/// Ethernet type of the tags that we put on (IEEE 802.1Q). What tags a tenant's own frame has stays below them.
pub const TAG: u16 = 0x8100;

/// Can a tenant with these numbers use links of this kind?
pub fn usable(carrier: Carrier, numbers: Numbers) -> bool {
    match carrier {
        Carrier::Tunnel => true,
        Carrier::Dedicated(key) => key == numbers.key,
        Carrier::Vlan => numbers.vlan.is_some(),
    }
}

/// Can such links carry frames in this mode, if they can carry the tenant's others?
pub(crate) fn carries(carrier: Carrier, mode: Mode) -> bool {
    match mode {
        Mode::Waypoint(waypoint) => carrier == Carrier::Tunnel || waypoint.numbers.vlan.is_some(),
        _ => true,
    }
}

/// The mark as a VLAN id, where a tag carries it; `None`: the tunnel key does, or nothing is needed.
fn tag(carrier: Carrier, numbers: Numbers, mode: Mode) -> Option<u16> {
    match (carrier, mode) {
        (Carrier::Vlan | Carrier::Dedicated(_), Mode::Waypoint(waypoint)) => {
            waypoint.numbers.vlan.map(|vlan| vlan_id(vlan, mode))
        }
        (Carrier::Vlan, mode) => numbers.vlan.map(|vlan| vlan_id(vlan, mode)),
        (Carrier::Dedicated(_), Mode::Flood(version)) => Some(dedicated_flood_vlan(version)),
        _ => None,
    }
}

/// The VLAN id of the tag that marks a tenant's floods; `None`: no tag does.
pub fn flood_tag(carrier: Carrier, numbers: Numbers) -> Option<u16> {
    tag(carrier, numbers, Mode::Flood(TreeVersion::default()))
}

/// Marks a frame and sends it over the link at `port`.
pub(crate) fn send(port: PortNo, carrier: Carrier, numbers: Numbers, mode: Mode) -> Vec<Action> {
    let mut actions = mark(carrier, numbers, mode);
    actions.push(Action::output(port));
    actions
}

/// Marks a frame and sends it over the first link whose port lives; `None`: a port has no number that bridges could watch.
pub(crate) fn send_first_live(
    ports: [PortNo; 2],
    carrier: Carrier,
    numbers: Numbers,
    mode: Mode,
) -> Option<Vec<Action>> {
    let mut actions = mark(carrier, numbers, mode);
    actions.push(Action::Bundle(Members::first_live([ports[0].in_16_bits()?, ports[1].in_16_bits()?])));
    Some(actions)
}

fn mark(carrier: Carrier, numbers: Numbers, mode: Mode) -> Vec<Action> {
    let (tunnel, tag) = (carrier == Carrier::Tunnel, tag(carrier, numbers, mode));
    // These and the output, and no more: tables hold them by the ten thousands.
    let mut actions = Vec::with_capacity(1 + usize::from(tunnel) + 2 * usize::from(tag.is_some()));
    if tunnel {
        actions.push(Action::SetField(Oxm::TunnelId(tunnel_key(numbers.key, mode).into(), None)));
    }
    if let Some(vlan) = tag {
        actions.push(Action::PushVlan { ethertype: TAG });
        actions.push(Action::SetField(Oxm::VlanVid(tagged(vlan), None)));
    }
    actions
}

/// Which frames at `port` bear this mark, and what takes it off.
pub(crate) fn receive(port: PortNo, carrier: Carrier, numbers: Numbers, mode: Mode) -> (Vec<Oxm>, Vec<Action>) {
    let mut fields = vec![Oxm::InPort(port, None)];
    match carrier {
        Carrier::Tunnel => fields.push(Oxm::TunnelId(tunnel_key(numbers.key, mode).into(), None)),
        Carrier::Dedicated(key) => fields.push(Oxm::TunnelId(key.into(), None)),
        Carrier::Vlan => {}
    }
    match tag(carrier, numbers, mode) {
        Some(vlan) => {
            fields.push(Oxm::VlanVid(tagged(vlan), None));
            (fields, vec![Action::PopVlan {}])
        }
        None => (fields, Vec::new()),
    }
}
