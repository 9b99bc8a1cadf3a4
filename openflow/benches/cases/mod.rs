//! The messages that are measured, as bridges and the controller exchange them.

use bytes::{Bytes, BytesMut};
use openflow::action::Action;
use openflow::flow::{FlowMod, FlowModCommand, FlowModFlags, FlowStats};
use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::message::Message;
use openflow::multipart::{MultipartReply, Part};
use openflow::oxm::Oxm;
use openflow::packet::{PacketIn, PacketInReason};
use openflow::port::{Port, PortConfig, PortFeatures, PortState};
use openflow::types::{BufferId, Cookie, GroupId, MacAddr, PortNo, TableId, Xid};
use openflow::wire::Text;

/// A name and the messages that are measured together under it.
pub(crate) type Case = (&'static str, Vec<Message>);

/// Every case. Answers that don't fit into one message are several.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("packet-in", vec![packet_in()]),
        ("flow-mod", vec![flow_mod()]),
        ("port-desc reply, 48 ports", vec![port_desc()]),
        ("flow-stats reply, 1,000 entries", flow_stats()),
        ("echo request", vec![Message::EchoRequest(Bytes::new().into())]),
    ]
}

/// The messages' octets, each with its header.
pub(crate) fn frames(messages: &[Message]) -> Vec<Bytes> {
    let encoded = |message: &Message| {
        let mut out = BytesMut::new();
        message.encode(Xid(7), &mut out);
        out.freeze()
    };
    messages.iter().map(encoded).collect()
}

/// A frame of 100 octets that came over a tunnel, with all that Open vSwitch tells about it.
fn packet_in() -> Message {
    Message::PacketIn(PacketIn {
        buffer_id: BufferId::NONE,
        total_len: 100,
        reason: PacketInReason::Action,
        table: TableId(4),
        cookie: Cookie(0xe5 << 56),
        matching: Match::new([
            Oxm::InPort(PortNo(3), None),
            Oxm::TunnelId(100, None),
            Oxm::TunSrc([192, 0, 2, 1].into(), None),
            Oxm::TunDst([192, 0, 2, 2].into(), None),
            Oxm::Metadata(0x100_0064, None),
            Oxm::Reg0(7, None),
        ]),
        data: Bytes::from_static(&[0x55; 100]).into(),
    })
}

/// Ten fields, all that the peers can tell, too.
fn fields() -> Match {
    Match::new([
        Oxm::InPort(PortNo(3), None),
        Oxm::Metadata(0x100_0064, Some(0x13f_ffff)),
        Oxm::EthDst(MacAddr([2, 0, 0x32, 0, 0, 1]), None),
        Oxm::EthSrc(MacAddr([2, 0, 0x32, 0, 0, 2]), None),
        Oxm::EthType(0x800, None),
        Oxm::IpProto(6, None),
        Oxm::Ipv4Src([10, 0, 0, 0].into(), Some([255, 0, 0, 0].into())),
        Oxm::Ipv4Dst([10, 1, 2, 0].into(), Some([255, 255, 255, 0].into())),
        Oxm::TcpDst(443, None),
        Oxm::TunnelId(100, None),
    ])
}

fn actions() -> Vec<Action> {
    vec![
        Action::SetField(Oxm::TunnelId(200, None)),
        Action::Group { group: GroupId(9) },
        Action::Output { port: PortNo(4), max_len: 0xffff },
    ]
}

fn flow_mod() -> Message {
    Message::FlowMod(FlowMod {
        cookie: Cookie(0xe5 << 56),
        cookie_mask: 0,
        table: TableId(4),
        command: FlowModCommand::Add,
        idle_timeout: 300,
        hard_timeout: 0,
        priority: 10,
        buffer_id: BufferId::NONE,
        out_port: PortNo::ANY,
        out_group: GroupId::ANY,
        flags: FlowModFlags::SEND_FLOW_REM,
        matching: fields(),
        instructions: vec![Instruction::ApplyActions(actions())],
    })
}

fn port_desc() -> Message {
    let port = |number: u32| Port {
        number: PortNo(number),
        address: MacAddr([2, 0, 0, 0, 0, number as u8]),
        name: Text::new(&format!("green-{number}")),
        config: PortConfig::empty(),
        state: PortState::LIVE,
        current: PortFeatures::GB10_FD,
        advertised: PortFeatures::empty(),
        supported: PortFeatures::empty(),
        peer: PortFeatures::empty(),
        current_speed: 10_000_000,
        max_speed: 0,
    };
    let body = MultipartReply::PortDesc((1..=48).map(port).collect());
    Message::MultipartReply(Part { more: false, body })
}

/// As many parts as messages of at most 65,535 octets need.
fn flow_stats() -> Vec<Message> {
    let entry = |number: u16| FlowStats {
        table: TableId(9),
        duration_sec: 3600,
        duration_nsec: 1,
        priority: number,
        idle_timeout: 300,
        hard_timeout: 0,
        flags: FlowModFlags::SEND_FLOW_REM,
        cookie: Cookie(0xe5 << 56 | u64::from(number)),
        packet_count: 1_000,
        byte_count: 100_000,
        matching: Match::new([
            Oxm::Metadata(u64::from(number), Some(0xffff)),
            Oxm::EthDst(MacAddr([2, 0, 0x32, 0, 0, 1]), None),
        ]),
        instructions: vec![
            Instruction::ApplyActions(actions()),
            Instruction::WriteMetadata { metadata: 100, mask: u64::MAX },
            Instruction::GotoTable(TableId(10)),
        ],
    };
    let entries: Vec<FlowStats> = (0..1_000).map(entry).collect();
    let parts = entries.chunks(250);
    let last = parts.len() - 1;
    let part = |(at, entries): (usize, &[FlowStats])| {
        Message::MultipartReply(Part { more: at < last, body: MultipartReply::Flow(entries.to_vec()) })
    };
    parts.enumerate().map(part).collect()
}
