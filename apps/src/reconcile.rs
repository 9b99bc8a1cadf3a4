//! From what a bridge holds to what it should hold: the changes, in two phases, and their messages.
//!
//! First everything goes that shouldn't be there or stay as it is, on all bridges; only when each has acknowledged that
//! does what is new come. During the first phase every bridge holds a part of the old state, during the second a part of
//! the new one. A part of a loop-free, isolated network is loop-free and isolated: entries only ever add ways, as long as
//! drop entries outlive what they guard, which the order within a phase sees to (docs/architecture.md).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openflow::flow::{FlowMod, FlowModCommand, FlowModFlags};
use openflow::group::{GroupMod, GroupModCommand};
use openflow::message::Message;
use openflow::meter::{MeterFlags, MeterMod, MeterModCommand};
use openflow::types::{Cookie, GroupId, MeterId, PortNo};

use crate::desired::{BridgeState, Flow, FlowKey, Group, Meter, Section};
use crate::marks::Owner;
use crate::pipeline;

/// One change to what a bridge holds for an owner.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Whose.
    pub owner: Owner,
    /// What.
    pub edit: Edit,
}

/// What a change does.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// The flow entry is to be this, whatever was there.
    SetFlow(FlowKey, Flow),
    /// The flow entry goes.
    RemoveFlow(FlowKey),
    /// A group that wasn't there.
    AddGroup(GroupId, Group),
    /// A group that was there gets these buckets.
    ModifyGroup(GroupId, Group),
    /// The group goes; no entry uses it any more.
    RemoveGroup(GroupId),
    /// A meter that wasn't there.
    AddMeter(MeterId, Meter),
    /// A meter that was there gets these bands.
    ModifyMeter(MeterId, Meter),
    /// The meter goes; no entry uses it any more.
    RemoveMeter(MeterId),
}

/// The changes to one bridge, in order; what a later one needs is made by an earlier one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The first phase.
    pub remove: Vec<Change>,
    /// The second phase.
    pub add: Vec<Change>,
}

/// The changes that turn `installed` into `desired`, for these owners.
pub fn plan(installed: &BridgeState, desired: &BridgeState, owners: &BTreeSet<Owner>) -> Plan {
    let nothing = Arc::new(Section::default());
    let mut plan = Plan::default();
    let (mut removed, mut trimmed, mut retired) = (Vec::new(), Vec::new(), Vec::new());
    let (mut prepared, mut added) = (Vec::new(), Vec::new());
    for &owner in owners {
        let old = installed.get(&owner).unwrap_or(&nothing);
        let new = desired.get(&owner).unwrap_or(&nothing);
        if Arc::ptr_eq(old, new) {
            continue;
        }
        let change = |edit| Change { owner, edit };
        for (key, flow) in &old.flows {
            let stays = new.flows.get(key).is_some_and(|wanted| wanted == flow || replaces(key));
            if !stays {
                removed.push((key.table, key.priority, change(Edit::RemoveFlow(key.clone()))));
            }
        }
        for (key, flow) in new.flows.iter().filter(|(key, flow)| old.flows.get(key) != Some(flow)) {
            added.push((key.table, key.priority, change(Edit::SetFlow(key.clone(), flow.clone()))));
        }
        for (id, group) in &old.groups {
            match new.groups.get(id) {
                None => retired.push(change(Edit::RemoveGroup(*id))),
                Some(wanted) if wanted != group => {
                    let mut common = wanted.clone();
                    common.buckets.retain(|bucket| group.buckets.contains(bucket));
                    if common != *group {
                        trimmed.push(change(Edit::ModifyGroup(*id, common.clone())));
                    }
                    if common != *wanted {
                        prepared.push(change(Edit::ModifyGroup(*id, wanted.clone())));
                    }
                }
                Some(_) => {}
            }
        }
        for (id, group) in new.groups.iter().filter(|(id, _)| !old.groups.contains_key(id)) {
            prepared.push(change(Edit::AddGroup(*id, group.clone())));
        }
        for (id, meter) in &old.meters {
            match new.meters.get(id) {
                None => retired.push(change(Edit::RemoveMeter(*id))),
                Some(wanted) if wanted != meter => prepared.push(change(Edit::ModifyMeter(*id, wanted.clone()))),
                Some(_) => {}
            }
        }
        for (id, meter) in new.meters.iter().filter(|(id, _)| !old.meters.contains_key(id)) {
            prepared.push(change(Edit::AddMeter(*id, meter.clone())));
        }
    }
    // Ways in are closed first and opened last; among entries of a table, those that others rely on go last, come first.
    removed.sort_by_key(|(table, priority, _)| (*table, *priority));
    added.sort_by_key(|(table, priority, _)| std::cmp::Reverse((*table, *priority)));
    plan.remove.extend(removed.into_iter().map(|(.., change)| change));
    plan.remove.extend(trimmed);
    plan.remove.extend(retired);
    plan.add.extend(prepared);
    plan.add.extend(added.into_iter().map(|(.., change)| change));
    plan
}

/// May an entry be replaced where it stands?
fn replaces(key: &FlowKey) -> bool {
    pipeline::table(key.table).is_some_and(|table| table.replace)
}

impl Change {
    /// Makes the change in a state that stands for the bridge's own.
    pub fn apply(&self, state: &mut BridgeState) {
        let section = Arc::make_mut(state.entry(self.owner).or_default());
        match self.edit.clone() {
            Edit::SetFlow(key, flow) => drop(section.flows.insert(key, flow)),
            Edit::RemoveFlow(key) => drop(section.flows.remove(&key)),
            Edit::AddGroup(id, group) | Edit::ModifyGroup(id, group) => drop(section.groups.insert(id, group)),
            Edit::RemoveGroup(id) => drop(section.groups.remove(&id)),
            Edit::AddMeter(id, meter) | Edit::ModifyMeter(id, meter) => drop(section.meters.insert(id, meter)),
            Edit::RemoveMeter(id) => drop(section.meters.remove(&id)),
        }
        if section.is_empty() {
            state.remove(&self.owner);
        }
    }

    /// The message that makes the bridge do it.
    pub fn message(&self) -> Message {
        let group = |command, id: GroupId, group: Option<&Group>| {
            let kind = group.map_or(openflow::group::GroupType::All, |group| group.kind);
            let buckets = group.map(|group| group.buckets.clone()).unwrap_or_default();
            Message::GroupMod(GroupMod { command, kind, group: id, buckets })
        };
        let meter = |command, id: MeterId, meter: Option<&Meter>| {
            let flags = meter.map_or(MeterFlags::empty(), |meter| meter.flags);
            let bands = meter.map(|meter| meter.bands.clone()).unwrap_or_default();
            Message::MeterMod(MeterMod { command, flags, meter: id, bands })
        };
        match &self.edit {
            Edit::SetFlow(key, flow) => flow_mod(FlowModCommand::Add, key, Some(flow)),
            Edit::RemoveFlow(key) => flow_mod(FlowModCommand::DeleteStrict, key, None),
            Edit::AddGroup(id, wanted) => group(GroupModCommand::Add, *id, Some(wanted)),
            Edit::ModifyGroup(id, wanted) => group(GroupModCommand::Modify, *id, Some(wanted)),
            Edit::RemoveGroup(id) => group(GroupModCommand::Delete, *id, None),
            Edit::AddMeter(id, wanted) => meter(MeterModCommand::Add, *id, Some(wanted)),
            Edit::ModifyMeter(id, wanted) => meter(MeterModCommand::Modify, *id, Some(wanted)),
            Edit::RemoveMeter(id) => meter(MeterModCommand::Delete, *id, None),
        }
    }
}

fn flow_mod(command: FlowModCommand, key: &FlowKey, flow: Option<&Flow>) -> Message {
    Message::FlowMod(FlowMod {
        cookie: flow.map_or(Cookie(0), |flow| flow.cookie),
        cookie_mask: 0,
        table: key.table,
        command,
        idle_timeout: flow.map_or(0, |flow| flow.idle_timeout),
        hard_timeout: 0,
        priority: key.priority,
        buffer_id: FlowMod::NO_BUFFER,
        out_port: PortNo::ANY,
        out_group: GroupId::ANY,
        flags: flow.map_or(FlowModFlags::empty(), |flow| flow.flags),
        matching: key.matching.clone(),
        instructions: flow.map(|flow| flow.instructions.clone()).unwrap_or_default(),
    })
}

/// Does the bridge hold exactly this for the owners that the two know? Meters and groups included.
pub fn same(installed: &BridgeState, desired: &BridgeState) -> bool {
    installed.len() == desired.len()
        && installed.iter().zip(desired).all(|((a, old), (b, new))| a == b && (Arc::ptr_eq(old, new) || old == new))
}

/// A bridge's state from what it told of its tables. Entries that aren't ours count as the fabric's, which makes them go.
pub fn read_back(
    flows: impl IntoIterator<Item = (FlowKey, Flow)>,
    groups: impl IntoIterator<Item = (GroupId, Group)>,
    meters: impl IntoIterator<Item = (MeterId, Meter)>,
) -> BridgeState {
    let mut sections: BTreeMap<Owner, Section> = BTreeMap::new();
    for (key, flow) in flows {
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
