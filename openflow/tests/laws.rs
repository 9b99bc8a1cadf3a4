//! Laws of the codec, on any bytes: it never panics, what it decodes it encodes to the same meaning again, and it doesn't
//! matter how a stream is cut.

use bytes::{Bytes, BytesMut};
use openflow::action::Action;
use openflow::flow::{FlowMod, FlowModCommand, FlowModFlags, FlowStats, FlowStatsRequest};
use openflow::frame::next_frame;
use openflow::group::{Bucket, GroupMod, GroupModCommand, GroupType};
use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::message::Message;
use openflow::meter::{Band, MeterFlags, MeterMod, MeterModCommand};
use openflow::multipart::{MultipartReply, MultipartRequest, Part};
use openflow::narrow::U13;
use openflow::oxm::Oxm;
use openflow::packet::{PacketIn, PacketInReason, PacketOut};
use openflow::switch::Hello;
use openflow::types::{BufferId, Cookie, GroupId, MacAddr, MeterId, PortNo, TableId, Xid};
use openflow::wire::Nothing;
use proptest::collection::vec;
use proptest::prelude::*;

fn fields() -> Match {
    let mask = Some(0x13f_ffff);
    Match::new([
        Oxm::InPort(PortNo(3), None),
        Oxm::Metadata(0x100_0064, mask),
        Oxm::EthDst(MacAddr([1, 0, 0, 0, 0, 0]), Some(MacAddr([1, 0, 0, 0, 0, 0]))),
        Oxm::VlanVid(U13::low(0x1ffe), None),
        Oxm::EthType(0x800, None),
        Oxm::Ipv4Src([10, 0, 0, 0].into(), Some([255, 0, 0, 0].into())),
        Oxm::TunnelId(100, None),
    ])
}

fn actions() -> Vec<Action> {
    vec![
        Action::PushVlan { ethertype: 0x8100 },
        Action::SetField(Oxm::VlanVid(U13::low(0x1005), None)),
        Action::PopVlan {},
        Action::metered_copy(MeterId(7)),
        Action::Group { group: GroupId(100) },
        Action::output(PortNo(9)),
    ]
}

fn instructions() -> Vec<Instruction> {
    vec![
        Instruction::Meter(MeterId(3)),
        Instruction::ApplyActions(actions()),
        Instruction::WriteMetadata { metadata: 100, mask: u64::MAX },
        Instruction::GotoTable(TableId(9)),
    ]
}

/// A message of each kind that bridges and controllers exchange.
fn messages() -> Vec<Message> {
    let mut flow = FlowMod::new(FlowModCommand::Add, TableId(4), 10, fields());
    flow.cookie = Cookie(0xe5 << 56);
    flow.idle_timeout = 300;
    flow.flags = FlowModFlags::SEND_FLOW_REM;
    flow.instructions = instructions();
    let told = FlowStats {
        table: TableId(4),
        duration_sec: 1,
        duration_nsec: 2,
        priority: 3,
        idle_timeout: 4,
        hard_timeout: 5,
        flags: FlowModFlags::empty(),
        cookie: Cookie(6),
        packet_count: 7,
        byte_count: 8,
        matching: fields(),
        instructions: instructions(),
    };
    let buckets = vec![Bucket::new(actions()), Bucket::new(Vec::new())];
    vec![
        Message::Hello(Hello::v13()),
        Message::EchoRequest(Bytes::from_static(b"still there?").into()),
        Message::BarrierRequest(Nothing),
        Message::FlowMod(flow),
        Message::GroupMod(GroupMod { command: GroupModCommand::Add, kind: GroupType::All, group: GroupId(1), buckets }),
        Message::MeterMod(MeterMod {
            command: MeterModCommand::Add,
            flags: MeterFlags::PKTPS | MeterFlags::BURST,
            meter: MeterId(1),
            bands: vec![Band::Drop { rate: 100, burst: 100 }],
        }),
        Message::PacketOut(PacketOut::new(actions(), Bytes::from_static(&[0x55; 60]))),
        Message::PacketIn(PacketIn {
            buffer_id: BufferId::NONE,
            total_len: 60,
            reason: PacketInReason::Action,
            table: TableId(0),
            cookie: Cookie(1),
            matching: fields(),
            data: Bytes::from_static(&[0xaa; 60]).into(),
        }),
        Message::MultipartRequest(Part::whole(MultipartRequest::Flow(FlowStatsRequest::all()))),
        Message::MultipartReply(Part::begun(MultipartReply::Flow(vec![told.clone(), told]))),
    ]
}

fn encoded(message: &Message) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(Xid(7), &mut out).unwrap();
    out.freeze()
}

/// Decoding and encoding again comes to the same message, if it can be decoded at all.
fn check(frame: &Bytes) -> Result<(), TestCaseError> {
    if let Ok((xid, message)) = Message::decode(frame) {
        let mut again = BytesMut::new();
        message.encode(xid, &mut again).unwrap();
        prop_assert_eq!(Message::decode(&again.freeze()).ok(), Some((xid, message)));
    }
    Ok(())
}

#[test]
fn what_is_encoded_is_decoded() {
    for message in messages() {
        assert_eq!(Message::decode(&encoded(&message)), Ok((Xid(7), message)));
    }
}

#[test]
fn no_message_can_be_cut_short() {
    // Bodies of free length aside.
    let fixed =
        messages().into_iter().filter(|message| !matches!(message, Message::EchoRequest(_) | Message::Hello(_)));
    for message in fixed {
        let whole = encoded(&message);
        for length in 8..whole.len() {
            if let Ok((_, cut)) = Message::decode(&whole.slice(..length)) {
                assert_ne!(cut, message, "cut at {length}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_to_what_they_encode(kind in 0u8..32, body in vec(any::<u8>(), 0..200)) {
        let length = 8 + body.len();
        let head = [4, kind, (length >> 8) as u8, length as u8, 0, 0, 0, 1];
        check(&Bytes::from([&head[..], &body].concat()))?;
    }

    #[test]
    fn a_changed_message_decodes_to_what_it_encodes(
        which in 0usize..10,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut frame = encoded(&messages()[which]).to_vec();
        for (at, octet) in changes {
            let at = at.index(frame.len());
            if at >= 8 {
                frame[at] = octet;
            }
        }
        check(&Bytes::from(frame))?;
    }

    #[test]
    fn it_does_not_matter_how_a_stream_is_cut(cuts in vec(1usize..40, 1..200)) {
        let sent: Vec<Bytes> = messages().iter().map(encoded).collect();
        let stream = sent.concat();
        let (mut buffer, mut got, mut at) = (BytesMut::new(), Vec::new(), 0);
        for cut in cuts.into_iter().cycle() {
            let end = (at + cut).min(stream.len());
            buffer.extend_from_slice(&stream[at..end]);
            at = end;
            while let Some(frame) = next_frame(&mut buffer).expect("lengths are right") {
                got.push(frame);
            }
            if at == stream.len() {
                break;
            }
        }
        prop_assert_eq!(got, sent);
    }
}
