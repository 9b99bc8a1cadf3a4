//! A bridge's tables, and what messages do to them: as the specification says (OpenFlow 1.3.5 §6.4–6.5, §7.3.4).

use std::collections::BTreeMap;
use std::sync::Arc;

use apps::desired::{BridgeState, Flow, FlowKey, Group, Meter, Section};
use apps::marks::Owner;
use openflow::action::Action;
use openflow::error::{BadAction, BadMatch, ErrorCode, FlowModFailed, GroupModFailed, MeterModFailed};
use openflow::flow::{FlowMod, FlowModCommand, FlowModFlags, FlowRemoved, FlowRemovedReason, FlowStats};
use openflow::group::{GroupDesc, GroupMod, GroupModCommand};
use openflow::instruction::Instruction;
use openflow::message::Message;
use openflow::meter::{MeterConfig, MeterMod, MeterModCommand};
use openflow::multipart::{MultipartReply, MultipartRequest};
use openflow::types::{GroupId, MeterId};

use crate::fabric::Draw;

/// See the module's text. Whose an entry is, a bridge doesn't know.
#[derive(Clone)]
pub(crate) struct Tables {
    pub(crate) section: Arc<Section>,
    /// How many flow entries fit.
    pub(crate) room: usize,
    /// How often they have changed.
    pub(crate) version: u64,
    /// What has happened to entries since it was last told.
    pub(crate) changed: Vec<Changed>,
}

/// An entry came, or was replaced, or went.
#[derive(Clone)]
pub(crate) struct Changed {
    pub(crate) key: FlowKey,
    pub(crate) flow: Flow,
    /// Why it went, if it did.
    pub(crate) gone: Option<FlowRemovedReason>,
}

impl Changed {
    /// What the controller is told when an entry goes of which it wants to know.
    pub(crate) fn removed(&self) -> Option<Message> {
        let Self { key, flow, gone } = self;
        let reason = gone.filter(|_| flow.flags.contains(FlowModFlags::SEND_FLOW_REM))?;
        Some(Message::FlowRemoved(FlowRemoved {
            cookie: flow.cookie,
            priority: key.priority,
            // In 1.3 there is no other for meters.
            reason: if reason == FlowRemovedReason::MeterDelete { FlowRemovedReason::Delete } else { reason },
            table: key.table,
            duration_sec: 0,
            duration_nsec: 0,
            idle_timeout: flow.idle_timeout,
            hard_timeout: 0,
            packet_count: 0,
            byte_count: 0,
            matching: key.matching.clone(),
        }))
    }
}

/// What actions need: groups and meters.
fn needs(actions: &[Action], need: &mut impl FnMut(Option<GroupId>, Option<MeterId>)) {
    for action in actions {
        match action {
            Action::Group { group } => need(Some(*group), None),
            Action::Clone(nested) => needs(&nested.0, need),
            action => need(None, action.copy_meter()),
        }
    }
}

fn flow_needs(flow: &[Instruction], mut need: impl FnMut(Option<GroupId>, Option<MeterId>)) {
    for instruction in flow {
        match instruction {
            Instruction::ApplyActions(actions) | Instruction::WriteActions(actions) => needs(actions, &mut need),
            Instruction::Meter(meter) => need(None, Some(*meter)),
            _ => {}
        }
    }
}

impl Tables {
    pub(crate) fn new() -> Self {
        Self { section: Arc::default(), room: usize::MAX, version: 0, changed: Vec::new() }
    }

    /// As the interpreter takes it.
    pub(crate) fn state(&self) -> BridgeState {
        BridgeState::from([(Owner::FABRIC, Arc::clone(&self.section))])
    }

    /// As the controller reads it.
    pub(crate) fn read_back(&self) -> BridgeState {
        let Section { flows, groups, meters } = (*self.section).clone();
        apps::reconcile::read_back(flows, groups, meters)
    }

    /// Does what a message asks for, or changes nothing.
    pub(crate) fn change(&mut self, message: &Message) -> Result<(), ErrorCode> {
        self.version += 1;
        match message {
            Message::FlowMod(wanted) => self.flow_mod(wanted),
            Message::GroupMod(wanted) => self.group_mod(wanted),
            Message::MeterMod(wanted) => self.meter_mod(wanted),
            other => panic!("{} changes no tables", other.name()),
        }
    }

    fn flow_mod(&mut self, wanted: &FlowMod) -> Result<(), ErrorCode> {
        if wanted.matching.check().is_err() {
            return Err(BadMatch::BadPrereq.into());
        }
        let room = self.room;
        let section = &self.section;
        let key = FlowKey { table: wanted.table, priority: wanted.priority, matching: wanted.matching.clone() };
        match wanted.command {
            FlowModCommand::Add => {
                let mut missing = None;
                flow_needs(&wanted.instructions, |group, meter| {
                    if group.is_some_and(|group| !section.groups.contains_key(&group)) {
                        missing = Some(ErrorCode::from(BadAction::BadOutGroup));
                    } else if meter.is_some_and(|meter| !section.meters.contains_key(&meter)) {
                        missing = Some(MeterModFailed::InvalidMeter.into());
                    }
                });
                if let Some(missing) = missing {
                    return Err(missing);
                }
                if section.flows.len() >= room && !section.flows.contains_key(&key) {
                    return Err(FlowModFailed::TableFull.into());
                }
                let flow = Flow {
                    cookie: wanted.cookie,
                    idle_timeout: wanted.idle_timeout,
                    flags: wanted.flags,
                    instructions: wanted.instructions.clone(),
                    hops: 0,
                    origin: None,
                };
                self.set(key, flow);
            }
            FlowModCommand::DeleteStrict => self.remove(&key, FlowRemovedReason::Delete),
            other => panic!("{other:?} isn't used"),
        }
        Ok(())
    }

    fn group_mod(&mut self, wanted: &GroupMod) -> Result<(), ErrorCode> {
        let exists = self.section.groups.contains_key(&wanted.group);
        let group = Group { kind: wanted.kind, buckets: wanted.buckets.clone() };
        match wanted.command {
            GroupModCommand::Add if exists => return Err(GroupModFailed::GroupExists.into()),
            GroupModCommand::Modify if !exists => return Err(GroupModFailed::UnknownGroup.into()),
            GroupModCommand::Delete => {
                Arc::make_mut(&mut self.section).groups.remove(&wanted.group);
                self.remove_users(|group, _| group == Some(wanted.group), FlowRemovedReason::GroupDelete);
            }
            _ => drop(Arc::make_mut(&mut self.section).groups.insert(wanted.group, group)),
        }
        Ok(())
    }

    fn meter_mod(&mut self, wanted: &MeterMod) -> Result<(), ErrorCode> {
        let exists = self.section.meters.contains_key(&wanted.meter);
        let meter = Meter { flags: wanted.flags, bands: wanted.bands.clone() };
        match wanted.command {
            MeterModCommand::Add if exists => return Err(MeterModFailed::MeterExists.into()),
            MeterModCommand::Modify if !exists => return Err(MeterModFailed::UnknownMeter.into()),
            MeterModCommand::Delete => {
                Arc::make_mut(&mut self.section).meters.remove(&wanted.meter);
                self.remove_users(|_, meter| meter == Some(wanted.meter), FlowRemovedReason::MeterDelete);
            }
            _ => drop(Arc::make_mut(&mut self.section).meters.insert(wanted.meter, meter)),
        }
        Ok(())
    }

    /// Entries that use what has gone go with it.
    fn remove_users(&mut self, gone: impl Fn(Option<GroupId>, Option<MeterId>) -> bool, reason: FlowRemovedReason) {
        let uses = |flow: &Flow| {
            let mut uses = false;
            flow_needs(&flow.instructions, |group, meter| uses |= gone(group, meter));
            uses
        };
        let users: Vec<FlowKey> =
            self.section.flows.iter().filter(|(_, flow)| uses(flow)).map(|(key, _)| key.clone()).collect();
        users.iter().for_each(|key| self.remove(key, reason));
    }

    /// An entry comes, or is replaced.
    pub(crate) fn set(&mut self, key: FlowKey, flow: Flow) {
        Arc::make_mut(&mut self.section).flows.insert(key.clone(), flow.clone());
        self.changed.push(Changed { key, flow, gone: None });
    }

    /// An entry goes, if it is there.
    pub(crate) fn remove(&mut self, key: &FlowKey, reason: FlowRemovedReason) {
        if let Some(flow) = Arc::make_mut(&mut self.section).flows.remove(key) {
            self.changed.push(Changed { key: key.clone(), flow, gone: Some(reason) });
        }
    }

    /// A source that is learnt was silent for so long that its entry goes.
    pub(crate) fn idle(&mut self, draw: &mut Draw) {
        let idle: Vec<FlowKey> =
            self.flows().iter().filter(|(_, flow)| flow.idle_timeout > 0).map(|(key, _)| key.clone()).collect();
        if let Some(key) = idle.get(draw.below(idle.len().max(1))) {
            self.remove(key, FlowRemovedReason::IdleTimeout);
        }
    }

    /// Answers what it is asked.
    pub(crate) fn tell(&self, asked: &MultipartRequest) -> MultipartReply {
        let Section { flows, groups, meters } = (*self.section).clone();
        let stats = |(key, flow): (FlowKey, Flow)| FlowStats {
            table: key.table,
            duration_sec: 0,
            duration_nsec: 0,
            priority: key.priority,
            idle_timeout: flow.idle_timeout,
            hard_timeout: 0,
            flags: flow.flags,
            cookie: flow.cookie,
            packet_count: 0,
            byte_count: 0,
            matching: key.matching,
            instructions: flow.instructions,
        };
        match asked {
            MultipartRequest::Flow(_) => MultipartReply::Flow(flows.into_iter().map(stats).collect()),
            MultipartRequest::GroupDesc(_) => {
                let desc = |(group, Group { kind, buckets })| GroupDesc { kind, group, buckets };
                MultipartReply::GroupDesc(groups.into_iter().map(desc).collect())
            }
            MultipartRequest::MeterConfig(_) => {
                let config = |(meter, Meter { flags, bands })| MeterConfig { flags, meter, bands };
                MultipartReply::MeterConfig(meters.into_iter().map(config).collect())
            }
            MultipartRequest::Meter(_) => MultipartReply::Meter(Vec::new()),
            other => panic!("{other:?} isn't asked"),
        }
    }

    /// The entries that there are.
    pub(crate) fn flows(&self) -> &BTreeMap<FlowKey, Flow> {
        &self.section.flows
    }
}
