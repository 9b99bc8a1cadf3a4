//! Changes as messages, and what they make of a state.

use std::sync::Arc;

use openflow::flow::{FlowMod, FlowModCommand};
use openflow::group::{GroupMod, GroupModCommand};
use openflow::message::Message;
use openflow::meter::{MeterFlags, MeterMod, MeterModCommand};
use openflow::types::{GroupId, MeterId};

use super::{Change, Edit};
use crate::desired::{BridgeState, Flow, FlowKey, Group, Meter};

impl Edit {
    /// The flow entry that it is about, if it is about one.
    pub(super) fn flow_key(&self) -> Option<&FlowKey> {
        match self {
            Self::SetFlow(key, _) | Self::RemoveFlow(key) => Some(key),
            _ => None,
        }
    }
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
    let mut change = FlowMod::new(command, key.table, key.priority, key.matching.clone());
    if let Some(flow) = flow {
        change.cookie = flow.cookie;
        change.idle_timeout = flow.idle_timeout;
        change.flags = flow.flags;
        change.instructions.clone_from(&flow.instructions);
    }
    Message::FlowMod(change)
}
