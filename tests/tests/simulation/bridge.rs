//! A bridge that obeys the rules of the specification for what the controller sends, and keeps its own tables.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use openflow::error::{BadRequest, RoleRequestFailed};
use openflow::experimenter::ExperimenterRequest;
use openflow::flow::FlowRemovedReason;
use openflow::frame::next_frame;
use openflow::message::Message;
use openflow::multipart::{MultipartFlags, MultipartReply, MultipartRequest, Part};
use openflow::packet::PacketOut;
use openflow::port::{Port, PortReason, PortState, PortStatus};
use openflow::switch::{Capabilities, ConfigFlags, Desc, FeaturesReply, Hello, Role, RoleRequest};
use openflow::types::{DatapathId, MacAddr, PortNo, Xid};
use openflow::wire::{Nothing, Text};

use crate::bundle::{Bundles, error};
use crate::hands::is_way;
use crate::monitor::Monitors;
use crate::tables::{Changed, Tables};

/// What a bridge knows of extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bundles and flow monitors, as Open vSwitch.
    OpenVswitch,
    /// Nothing beyond the specification.
    Plain,
}

/// See the module's text.
pub(crate) struct SimBridge {
    pub(crate) dpid: DatapathId,
    pub(crate) kind: Kind,
    pub(crate) ports: Vec<Port>,
    pub(crate) tables: Tables,
    /// What has come of the connection and isn't a whole message yet.
    received: BytesMut,
    bundles: Bundles,
    monitors: Monitors,
    /// The role of its connection, and the generation of its last master.
    role: Role,
    generation: u64,
    /// Is it set to show the ports of the first fragment of a packet?
    pub(crate) shows_ports: bool,
    /// What it has to send.
    pub(crate) answers: Vec<(Xid, Message)>,
    /// Changes to its tables that it was asked for, over its life.
    pub(crate) changes: usize,
    /// How often it was asked for its flow entries, over its life.
    pub(crate) told_flows: usize,
    /// Barriers that it will not answer.
    pub(crate) loses_barriers: usize,
    /// Does somebody remove the next way that it is given, before it is asked for anything else?
    pub(crate) undone: bool,
}

impl SimBridge {
    pub(crate) fn new(dpid: DatapathId, kind: Kind) -> Self {
        Self {
            dpid,
            kind,
            ports: Vec::new(),
            tables: Tables::new(),
            received: BytesMut::new(),
            bundles: Bundles::default(),
            monitors: Monitors::default(),
            role: Role::Equal,
            generation: RoleRequest::NONE,
            shows_ports: false,
            answers: Vec::new(),
            changes: 0,
            told_flows: 0,
            loses_barriers: 0,
            undone: false,
        }
    }

    pub(crate) fn add_port(&mut self, number: PortNo, name: &str) {
        let address = MacAddr([0x0e, 0, self.dpid.0 as u8, 0, (number.0 >> 8) as u8, number.0 as u8]);
        self.ports.push(Port { state: PortState::LIVE, ..Port::new(number, address, name) });
    }

    /// A port comes, or is called otherwise, or its carrier comes or goes.
    pub(crate) fn set_port(&mut self, number: PortNo, name: &str, up: bool) {
        let known = self.ports.iter().any(|port| port.number == number);
        if !known {
            self.add_port(number, name);
        }
        let state = if up { PortState::LIVE } else { PortState::LINK_DOWN };
        let Some(port) = self.ports.iter_mut().find(|port| port.number == number) else { return };
        let name = Text::new(name);
        if known && (&port.name, port.state) == (&name, state) {
            return;
        }
        (port.name, port.state) = (name, state);
        let reason = if known { PortReason::Modify } else { PortReason::Add };
        let status = PortStatus { reason, port: port.clone() };
        self.answers.push((Xid(0), Message::PortStatus(status)));
    }

    /// A connection begins.
    pub(crate) fn connected(&mut self) {
        self.received.clear();
        self.role = Role::Equal;
        (self.bundles, self.monitors) = (Bundles::default(), Monitors::default());
        self.answers = vec![(Xid(1), Message::Hello(Hello::v13()))];
    }

    /// Octets have come. Packets that it has to send out are the answer.
    pub(crate) fn receive(&mut self, octets: &Bytes) -> Vec<PacketOut> {
        self.received.extend_from_slice(octets);
        let mut out = Vec::new();
        while let Some(frame) = next_frame(&mut self.received).expect("the controller's messages have lengths") {
            let (xid, message) = Message::decode(&frame).expect("the controller's messages can be decoded");
            out.extend(self.obey(xid, message));
            self.tell_changes(Some(xid));
        }
        out
    }

    /// Tells what has happened to entries, and whether a message of the controller's with this transaction id led to it.
    pub(crate) fn tell_changes(&mut self, asked: Option<Xid>) {
        let changed = std::mem::take(&mut self.tables.changed);
        let told = changed.iter().filter_map(Changed::removed).chain(self.monitors.tell(&changed, asked));
        self.answers.extend(told.map(|message| (Xid(0), message)));
        let came = changed.iter().find(|change| change.gone.is_none() && is_way(&change.key));
        if let Some(change) = came.filter(|_| asked.is_some() && self.undone) {
            self.undone = false;
            self.tables.remove(&change.key, FlowRemovedReason::Delete);
            self.tell_changes(None);
        }
    }

    fn obey(&mut self, xid: Xid, message: Message) -> Option<PacketOut> {
        let answer = match message {
            Message::FlowMod(_) | Message::GroupMod(_) | Message::MeterMod(_) => {
                self.changes += 1;
                match self.tables.change(&message) {
                    Ok(()) => return None,
                    Err(code) => error(code),
                }
            }
            Message::Experimenter(message) if self.kind == Kind::OpenVswitch => {
                let (answers, changes) = self.bundles.handle(xid, message, &mut self.tables);
                self.changes += changes;
                self.answers.extend(answers);
                return None;
            }
            Message::MultipartRequest(Part {
                body: MultipartRequest::Experimenter(ExperimenterRequest::FlowMonitor(requests)),
                ..
            }) if self.kind == Kind::OpenVswitch => self.monitors.begin(&requests).unwrap_or_else(error),
            Message::Experimenter(_)
            | Message::MultipartRequest(Part { body: MultipartRequest::Experimenter(_), .. }) => {
                error(BadRequest::BadExperimenter)
            }
            Message::BarrierRequest(_) if self.loses_barriers > 0 => {
                self.loses_barriers -= 1;
                return None;
            }
            Message::BarrierRequest(_) => Message::BarrierReply(Nothing),
            Message::Hello(_) | Message::EchoReply(_) => return None,
            Message::EchoRequest(body) => Message::EchoReply(body),
            Message::FeaturesRequest(_) => Message::FeaturesReply(FeaturesReply {
                datapath: self.dpid,
                n_buffers: 0,
                n_tables: 254,
                auxiliary_id: 0,
                capabilities: Capabilities::empty(),
            }),
            Message::RoleRequest(RoleRequest { role: Role::NoChange, .. }) => {
                Message::RoleReply(RoleRequest { role: self.role, generation: self.generation })
            }
            Message::RoleRequest(RoleRequest { generation, .. })
                if self.generation != RoleRequest::NONE && generation < self.generation =>
            {
                error(RoleRequestFailed::Stale)
            }
            Message::RoleRequest(RoleRequest { role, generation }) => {
                (self.role, self.generation) = (role, generation);
                Message::RoleReply(RoleRequest { role, generation })
            }
            Message::MultipartRequest(part) => {
                self.told_flows += usize::from(matches!(part.body, MultipartRequest::Flow(_)));
                let parts = self.tell(&part.body);
                self.answers.extend(parts.into_iter().map(|part| (xid, Message::MultipartReply(part))));
                return None;
            }
            Message::PacketOut(out) => return Some(out),
            Message::SetConfig(config) => {
                self.shows_ports = config.flags == ConfigFlags::FRAG_DROP | ConfigFlags::FRAG_REASM;
                return None;
            }
            other => panic!("a bridge isn't sent {}", other.name()),
        };
        self.answers.push((xid, answer));
        None
    }

    /// Answers in parts that fit into messages.
    fn tell(&self, asked: &MultipartRequest) -> Vec<Part<MultipartReply>> {
        fn parts<T>(all: Vec<T>, of: impl Fn(Vec<T>) -> MultipartReply) -> Vec<Part<MultipartReply>> {
            let (mut parts, mut left) = (Vec::new(), all.into_iter().peekable());
            loop {
                let body = of(left.by_ref().take(50).collect());
                let more = left.peek().is_some();
                parts.push(Part { flags: if more { MultipartFlags::MORE } else { MultipartFlags::empty() }, body });
                if !more {
                    return parts;
                }
            }
        }
        match asked {
            MultipartRequest::Desc(_) => vec![Part::whole(MultipartReply::Desc(Box::new(Desc {
                manufacturer: Text::new(""),
                hardware: Text::new(""),
                software: Text::new(""),
                serial: Text::new(""),
                datapath: Text::new(&format!("b{}", self.dpid.0)),
            })))],
            MultipartRequest::PortDesc(_) => parts(self.ports.clone(), MultipartReply::PortDesc),
            asked => match self.tables.tell(asked) {
                MultipartReply::Flow(flows) => parts(flows, MultipartReply::Flow),
                MultipartReply::GroupDesc(groups) => parts(groups, MultipartReply::GroupDesc),
                other => vec![Part::whole(other)],
            },
        }
    }

    /// Ports without carrier.
    pub(crate) fn down(&self) -> BTreeSet<PortNo> {
        self.ports.iter().filter(|port| !port.is_up()).map(|port| port.number).collect()
    }
}
