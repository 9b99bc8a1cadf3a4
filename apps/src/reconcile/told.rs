//! What bridges tell of their tables, and what they can't.

use std::collections::BTreeMap;
use std::sync::Arc;

use openflow::types::{GroupId, MeterId, PortNo};

use super::kinds::{beneath, exit};
use crate::desired::{BridgeState, Flow, FlowKey, Group, Meter, Section};
use crate::drain::is_begun;
use crate::marks::Owner;
use crate::pipeline::{FORWARD, STEER};

/// A bridge's state from what it told of its tables. Entries that aren't ours count as the fabric's, which makes them go; those
/// that the bridge adds by itself, as it is told to, aren't part of it.
pub fn read_back(
    flows: impl IntoIterator<Item = (FlowKey, Flow)>,
    groups: impl IntoIterator<Item = (GroupId, Group)>,
    meters: impl IntoIterator<Item = (MeterId, Meter)>,
) -> BridgeState {
    let mut sections: BTreeMap<Owner, Section> = BTreeMap::new();
    for (key, flow) in flows.into_iter().filter(|(key, flow)| !is_begun(key, flow)) {
        let owner = crate::marks::cookie::owner(flow.cookie).unwrap_or(Owner::FABRIC);
        sections.entry(owner).or_default().flows.insert(key, flow);
    }
    for (id, group) in groups {
        sections.entry(crate::marks::group_owner(id)).or_default().groups.insert(id, group);
    }
    for (id, meter) in meters {
        sections.entry(Owner::FABRIC).or_default().meters.insert(id, meter);
    }
    sections.into_iter().map(|(owner, section)| (owner, Arc::new(section))).collect()
}

/// Takes over what a bridge can't tell of its entries from the equal ones among those desired: how many hops they stand for.
pub fn adopt(installed: &mut BridgeState, desired: &BridgeState) {
    for (owner, old) in installed {
        let Some(new) = desired.get(owner).filter(|new| !Arc::ptr_eq(old, new)) else { continue };
        if old == new {
            *old = Arc::clone(new);
            continue;
        }
        let unknown = |key: &FlowKey, flow: &Flow| {
            flow.hops == 0 && new.flows.get(key).is_some_and(|wanted| wanted == flow && wanted.hops > 0)
        };
        if old.flows.iter().any(|(key, flow)| unknown(key, flow)) {
            for (key, flow) in &mut Arc::make_mut(old).flows {
                if let Some(wanted) = new.flows.get(key).filter(|wanted| *wanted == flow) {
                    flow.hops = wanted.hops;
                }
            }
        }
    }
}

/// Says of entries that were read back which of them are ways over links: a bridge can't tell, but the port that they send
/// frames out of does. How far these have to go isn't known, nor needed for what is to go.
pub fn recognise_ways(installed: &mut BridgeState, is_link: impl Fn(PortNo) -> bool) {
    let leads_on = |key: &FlowKey, flow: &Flow| {
        let by_link = || matches!(key.table, STEER | FORWARD) && exit(flow).is_some_and(&is_link);
        flow.hops == 0 && (beneath(key).is_some() || by_link())
    };
    for section in installed.values_mut() {
        if section.flows.iter().any(|(key, flow)| leads_on(key, flow)) {
            let flows = &mut Arc::make_mut(section).flows;
            flows.iter_mut().filter(|(key, flow)| leads_on(key, flow)).for_each(|(_, flow)| flow.hops = 1);
        }
    }
}
