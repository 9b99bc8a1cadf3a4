//! A bridge that obeys the rules of the specification for what the controller sends, and keeps its own tables.

use std::collections::VecDeque;
use std::sync::Arc;

use apps::desired::{BridgeState, Flow, FlowKey, Group, Meter, Section};
use apps::marks::Owner;
use controller::core::SessionId;
use openflow::action::Action;
use openflow::error::{BadAction, BadMatch, BadRequest, ErrorCode, ErrorMsg, GroupModFailed, MeterModFailed};
use openflow::flow::{FlowMod, FlowModCommand, FlowStats};
use openflow::group::{GroupDesc, GroupMod, GroupModCommand};
use openflow::instruction::Instruction;
use openflow::message::Message;
use openflow::meter::{MeterConfig, MeterMod, MeterModCommand};
use openflow::multipart::{MultipartReply, MultipartRequest, Part};
use openflow::packet::PacketOut;
use openflow::peer::Identity;
use openflow::port::Port;
use openflow::switch::{Capabilities, Desc, FeaturesReply, Role};
use openflow::types::{Cookie, DatapathId, MacAddr, PortNo, Xid};
use openflow::wire::{Nothing, Payload, Text};

const ALL: Owner = Owner::FABRIC;

/// See the module's text.
pub(crate) struct SimBridge {
    pub(crate) dpid: DatapathId,
    pub(crate) ports: Vec<Port>,
    /// Its tables; whose an entry is, it doesn't know.
    pub(crate) state: BridgeState,
    pub(crate) session: Option<SessionId>,
    pub(crate) to_bridge: VecDeque<(Xid, Message)>,
    pub(crate) to_core: VecDeque<(Xid, Message)>,
    /// Changes to its tables that it was asked for, over its life.
    pub(crate) changes: usize,
}

impl SimBridge {
    pub(crate) fn new(dpid: u64) -> Self {
        Self {
            dpid: DatapathId(dpid),
            ports: Vec::new(),
            state: BridgeState::new(),
            session: None,
            to_bridge: VecDeque::new(),
            to_core: VecDeque::new(),
            changes: 0,
        }
    }

    pub(crate) fn add_port(&mut self, name: &str) -> PortNo {
        let number = PortNo(self.ports.len() as u32 + 1);
        self.ports.push(Port::new(number, MacAddr([0x0e, 0, 0, 0, self.dpid.0 as u8, number.0 as u8]), name));
        number
    }

    pub(crate) fn identity(&self) -> Box<Identity> {
        Box::new(Identity {
            features: FeaturesReply {
                datapath: self.dpid,
                n_buffers: 0,
                n_tables: 254,
                auxiliary_id: 0,
                capabilities: Capabilities::empty(),
            },
            desc: Some(Box::new(Desc {
                manufacturer: Text::new(""),
                hardware: Text::new(""),
                software: Text::new(""),
                serial: Text::new(""),
                datapath: Text::new(&format!("b{}", self.dpid.0)),
            })),
            ports: self.ports.clone(),
            role: Role::Master,
        })
    }

    fn section(&mut self) -> &mut Section {
        Arc::make_mut(self.state.entry(ALL).or_default())
    }

    fn refuse(&mut self, xid: Xid, code: impl Into<ErrorCode>) {
        let error = ErrorMsg { code: code.into(), data: Payload::default() };
        self.to_core.push_back((xid, Message::Error(error)));
    }

    /// Does what a message asks for. Packets that it has to send out are the answer.
    pub(crate) fn obey(&mut self, xid: Xid, message: Message) -> Option<PacketOut> {
        match message {
            Message::FlowMod(flow_mod) => self.flow_mod(xid, flow_mod),
            Message::GroupMod(group_mod) => self.group_mod(xid, group_mod),
            Message::MeterMod(meter_mod) => self.meter_mod(xid, meter_mod),
            Message::BarrierRequest(_) => self.to_core.push_back((xid, Message::BarrierReply(Nothing))),
            // Not every bridge can tell what others change.
            Message::MultipartRequest(Part { body: MultipartRequest::Experimenter(_), .. }) => {
                self.refuse(xid, BadRequest::BadExperimenter);
            }
            Message::Experimenter(_) => self.refuse(xid, BadRequest::BadExperimenter),
            Message::MultipartRequest(part) => self.tell(xid, &part.body),
            Message::PacketOut(out) => return Some(out),
            other => panic!("a bridge isn't sent {}", other.name()),
        }
        None
    }

    fn flow_mod(&mut self, xid: Xid, wanted: FlowMod) {
        self.changes += 1;
        if wanted.matching.check().is_err() {
            return self.refuse(xid, BadMatch::BadPrereq);
        }
        let key = FlowKey { table: wanted.table, priority: wanted.priority, matching: wanted.matching };
        match wanted.command {
            FlowModCommand::Add => {
                let section = self.section();
                let actions = wanted.instructions.iter().flat_map(|instruction| match instruction {
                    Instruction::ApplyActions(actions) => actions.as_slice(),
                    _ => &[],
                });
                for action in actions {
                    let missing = match action {
                        Action::Group { group } if !section.groups.contains_key(group) => {
                            ErrorCode::from(BadAction::BadOutGroup)
                        }
                        action if action.copy_meter().is_some_and(|meter| !section.meters.contains_key(&meter)) => {
                            MeterModFailed::InvalidMeter.into()
                        }
                        _ => continue,
                    };
                    return self.refuse(xid, missing);
                }
                let flow = Flow {
                    cookie: wanted.cookie,
                    idle_timeout: wanted.idle_timeout,
                    flags: wanted.flags,
                    instructions: wanted.instructions,
                    hops: 0,
                    origin: None,
                };
                section.flows.insert(key, flow);
            }
            FlowModCommand::DeleteStrict => drop(self.section().flows.remove(&key)),
            other => panic!("{other:?} isn't used"),
        }
    }

    fn group_mod(&mut self, xid: Xid, wanted: GroupMod) {
        self.changes += 1;
        let section = self.section();
        let exists = section.groups.contains_key(&wanted.group);
        let group = Group { kind: wanted.kind, buckets: wanted.buckets };
        match wanted.command {
            GroupModCommand::Add if exists => self.refuse(xid, GroupModFailed::GroupExists),
            GroupModCommand::Modify if !exists => self.refuse(xid, GroupModFailed::UnknownGroup),
            GroupModCommand::Delete => {
                let uses = |flow: &Flow| {
                    flow.instructions.iter().any(|instruction| {
                        matches!(instruction, Instruction::ApplyActions(actions)
                            if actions.contains(&Action::Group { group: wanted.group }))
                    })
                };
                section.groups.remove(&wanted.group);
                section.flows.retain(|_, flow| !uses(flow));
            }
            _ => drop(section.groups.insert(wanted.group, group)),
        }
    }

    fn meter_mod(&mut self, xid: Xid, wanted: MeterMod) {
        self.changes += 1;
        let section = self.section();
        let exists = section.meters.contains_key(&wanted.meter);
        match wanted.command {
            MeterModCommand::Add if exists => self.refuse(xid, MeterModFailed::MeterExists),
            MeterModCommand::Modify if !exists => self.refuse(xid, MeterModFailed::UnknownMeter),
            MeterModCommand::Delete => {
                let uses = |flow: &Flow| {
                    flow.instructions.iter().any(|instruction| {
                        matches!(instruction, Instruction::ApplyActions(actions)
                            if actions.iter().any(|action| action.copy_meter() == Some(wanted.meter)))
                    })
                };
                section.meters.remove(&wanted.meter);
                section.flows.retain(|_, flow| !uses(flow));
            }
            _ => drop(section.meters.insert(wanted.meter, Meter { flags: wanted.flags, bands: wanted.bands })),
        }
    }

    fn tell(&mut self, xid: Xid, asked: &MultipartRequest) {
        let section = self.section().clone();
        let body = match asked {
            MultipartRequest::Flow(_) => MultipartReply::Flow(
                section
                    .flows
                    .into_iter()
                    .map(|(key, flow)| FlowStats {
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
                    })
                    .collect(),
            ),
            MultipartRequest::GroupDesc(_) => MultipartReply::GroupDesc(
                section
                    .groups
                    .into_iter()
                    .map(|(id, group)| GroupDesc { kind: group.kind, group: id, buckets: group.buckets })
                    .collect(),
            ),
            MultipartRequest::MeterConfig(_) => MultipartReply::MeterConfig(
                section
                    .meters
                    .into_iter()
                    .map(|(id, meter)| MeterConfig { flags: meter.flags, meter: id, bands: meter.bands })
                    .collect(),
            ),
            MultipartRequest::Meter(_) => MultipartReply::Meter(Vec::new()),
            other => panic!("{other:?} isn't asked"),
        };
        self.to_core.push_back((xid, Message::MultipartReply(Part::whole(body))));
    }

    /// Adds an entry that the controller knows nothing of.
    pub(crate) fn add_foreign(&mut self, key: FlowKey) {
        let flow = Flow {
            cookie: Cookie(0x77),
            idle_timeout: 0,
            flags: Default::default(),
            instructions: Vec::new(),
            hops: 0,
            origin: None,
        };
        self.section().flows.insert(key, flow);
    }
}
