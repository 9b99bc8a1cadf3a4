//! The messages that are measured, as bridges and the controller exchange them.

use bytes::{Bytes, BytesMut};
use openflow::action::Action;
use openflow::flow::{FlowMod, FlowModCommand, FlowModFlags, FlowStats};
use openflow::frame::next_frame;
use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::message::Message;
use openflow::multipart::{MultipartReply, Part};
use openflow::oxm::Oxm;
use openflow::port::{Port, PortFeatures};
use openflow::types::{Cookie, GroupId, MacAddr, PortNo, TableId, Xid};

/// What is measured together under a name.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The messages. Answers that don't fit into one are several.
    pub(crate) messages: Vec<Message>,
    /// The octets of each, as its sender writes them and framing cuts them out.
    pub(crate) frames: Vec<Bytes>,
}

impl Case {
    /// Messages that the controller could have written: their fields are in our order.
    fn ours(name: &'static str, messages: Vec<Message>) -> Self {
        let encoded = |message: &Message| {
            let mut out = BytesMut::new();
            message.encode(Xid(7), &mut out).unwrap();
            received(&out)
        };
        Self { name, frames: messages.iter().map(encoded).collect(), messages }
    }

    pub(crate) fn octets(&self) -> usize {
        self.frames.iter().map(Bytes::len).sum()
    }
}

fn received(octets: &[u8]) -> Bytes {
    next_frame(&mut BytesMut::from(octets)).expect("a right length").expect("a whole message")
}

/// Every case.
pub(crate) fn cases() -> Vec<Case> {
    let told = received(PACKET_IN);
    let (_, packet_in) = Message::decode(&told).expect("as Open vSwitch sends it");
    vec![
        Case { name: "packet-in", messages: vec![packet_in], frames: vec![told] },
        Case::ours("flow-mod", vec![flow_mod()]),
        Case::ours("port-desc reply, 48 ports", vec![port_desc()]),
        Case::ours("flow-stats reply, 1,000 entries", flow_stats()),
        Case::ours("echo request", vec![Message::EchoRequest(Bytes::new().into())]),
    ]
}

/// A frame of 100 octets that came over a tunnel, with all that Open vSwitch tells about it, in its order of fields.
const PACKET_IN: &[u8] = b"\x04\x0a\x00\xbe\0\0\0\x07\xff\xff\xff\xff\0\x64\x01\x04\xe5\0\0\0\0\0\0\0\
    \x00\x01\x00\x3c\
    \x80\x00\x00\x04\0\0\0\x03\
    \x80\x00\x4c\x08\0\0\0\0\0\0\0\x64\
    \x00\x01\x3e\x04\xc0\0\x02\x01\
    \x00\x01\x40\x04\xc0\0\x02\x02\
    \x00\x01\x00\x04\0\0\0\x07\
    \x80\x00\x04\x08\0\0\0\0\x01\0\0\x64\
    \0\0\0\0\0\0\
    \x02\0\x32\0\0\x01\x02\0\x32\0\0\x02\x08\x00\
    ......................................................................................";

/// Ten fields that the peers can tell, too.
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
        Action::SetField(Oxm::EthDst(MacAddr([2, 0, 0x32, 0, 0, 9]), None)),
        Action::Group { group: GroupId(9) },
        Action::Output { port: PortNo(4), max_len: 0xffff },
    ]
}

fn flow_mod() -> Message {
    let mut change = FlowMod::new(FlowModCommand::Add, TableId(4), 10, fields());
    change.cookie = Cookie(0xe5 << 56);
    change.idle_timeout = 300;
    change.flags = FlowModFlags::SEND_FLOW_REM;
    change.instructions = vec![Instruction::ApplyActions(actions())];
    Message::FlowMod(change)
}

fn port_desc() -> Message {
    let port = |number: u32| Port {
        current: PortFeatures::GB10_FD,
        current_speed: 10_000_000,
        ..Port::new(PortNo(number), MacAddr([2, 0, 0, 0, 0, number as u8]), &format!("green-{number}"))
    };
    let body = MultipartReply::PortDesc((1..=48).map(port).collect());
    Message::MultipartReply(Part::whole(body))
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
        let entries = MultipartReply::Flow(entries.to_vec());
        Message::MultipartReply(if at < last { Part::begun(entries) } else { Part::whole(entries) })
    };
    parts.enumerate().map(part).collect()
}
