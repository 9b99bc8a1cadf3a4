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
use openflow::oxm::{FIELDS, Oxm};
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

/// A field of a match as it stands on the wire.
#[derive(Clone, Debug)]
struct Tlv {
    class: u16,
    id: u8,
    experimenter: u32,
    value: Vec<u8>,
    mask: Option<Vec<u8>>,
}

impl Tlv {
    fn owner(&self) -> Vec<u8> {
        if self.class == 0xffff { self.experimenter.to_be_bytes().to_vec() } else { Vec::new() }
    }

    fn octets(&self) -> Vec<u8> {
        let mask = self.mask.clone().unwrap_or_default();
        let body = [self.owner(), self.value.clone(), mask].concat();
        let number = self.id << 1 | u8::from(self.mask.is_some());
        [&self.class.to_be_bytes()[..], &[number, body.len() as u8], &body].concat()
    }

    fn exceeds_mask(&self) -> bool {
        self.mask.iter().any(|mask| self.value.iter().zip(mask).any(|(value, mask)| value & !mask != 0))
    }

    /// What makes it another field than others.
    fn key(&self) -> (u16, u8, Vec<u8>) {
        (self.class, self.id, self.owner())
    }
}

/// Fields that have a name, and some that have none.
fn tlv() -> impl Strategy<Value = Tlv> {
    let known = (0..FIELDS.len())
        .prop_map(|row| (FIELDS[row].class, FIELDS[row].id, FIELDS[row].experimenter, FIELDS[row].octets.into()));
    let few = prop::sample::select(vec![0usize, 2, 5, 8]);
    let some =
        few.prop_map(|row| (FIELDS[row].class, FIELDS[row].id, FIELDS[row].experimenter, FIELDS[row].octets.into()));
    let classes = prop::sample::select(vec![0x000au16, 0x8000, 0xffff]);
    let unknown = (classes, 120u8..123, 0u32..2, 1usize..4);
    (prop_oneof![known, some, unknown], vec(0u8..4, 32), prop::option::of(vec(0u8..4, 32)), any::<bool>()).prop_map(
        |((class, id, experimenter, octets), mut value, mask, within)| {
            let mask = mask.map(|mask| mask[..octets].to_vec());
            value.truncate(octets);
            if let (true, Some(mask)) = (within, &mask) {
                value.iter_mut().zip(mask).for_each(|(value, mask)| *value &= mask);
            }
            Tlv { class, id, experimenter, value, mask }
        },
    )
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
    fn a_match_has_each_field_once_and_values_within_their_masks(fields in vec(tlv(), 0..6)) {
        let octets: Vec<u8> = fields.iter().flat_map(Tlv::octets).collect();
        let length = 4 + octets.len();
        let mut matching = [&[0, 1][..], &(length as u16).to_be_bytes(), &octets].concat();
        matching.resize(length.next_multiple_of(8), 0);
        // A flow entry's removal, which holds little but a match.
        let frame = [&[4, 11, 0, 0, 0, 0, 0, 1][..], &[0; 40], &matching].concat();
        let twice = (1..fields.len()).any(|at| fields[..at].iter().any(|other| other.key() == fields[at].key()));
        let outside = fields.iter().any(Tlv::exceeds_mask);
        match Message::decode(&Bytes::from(frame)) {
            Ok(message) => prop_assert!(!twice && !outside, "{message:?}"),
            Err(error) => {
                prop_assert!(twice || !error.reason.contains("OFPBMC_DUP_FIELD"), "{error}");
                prop_assert!(outside || !error.reason.contains("OFPBMC_BAD_WILDCARDS"), "{error}");
            }
        }
    }

    #[test]
    fn any_hello_is_read_and_comes_out_as_it_went_in(
        elements in vec((0u16..3, vec(any::<u8>(), 0..12)), 0..4),
        rest in vec(any::<u8>(), 0..20),
    ) {
        let mut body = Vec::new();
        for (kind, octets) in &elements {
            body.extend([kind.to_be_bytes(), (4 + octets.len() as u16).to_be_bytes()].concat());
            body.extend(octets);
            body.resize(body.len().next_multiple_of(8), 0);
        }
        body.extend(rest);
        let frame = Bytes::from([&[4, 0, 0, 8 + body.len() as u8, 0, 0, 0, 7][..], &body].concat());
        let Ok((_, Message::Hello(hello))) = Message::decode(&frame) else { panic!("{frame:02x?} isn't read") };
        prop_assert!(hello.elements.len() >= elements.len());
        let again = encoded(&Message::Hello(hello.clone()));
        prop_assert_eq!(Message::decode(&again), Ok((Xid(7), Message::Hello(hello.clone()))));
        // But for padding, which isn't told.
        if hello.rest.is_empty() { prop_assert!(again.len() >= frame.len()); } else { prop_assert_eq!(again, frame); }
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
