//! What the codec takes from the heap: nothing for messages of fixed size, and no copy of a packet.

use allocation_counter::measure;
use bytes::{Bytes, BytesMut};
use openflow::frame::next_frame;
use openflow::matching::Match;
use openflow::message::Message;
use openflow::oxm::Oxm;
use openflow::packet::{PacketIn, PacketInReason};
use openflow::port::{Port, PortConfig, PortFeatures, PortMod, PortReason, PortStatus};
use openflow::switch::{Capabilities, ConfigFlags, FeaturesReply, Role, RoleRequest, SwitchConfig};
use openflow::table::{TableConfig, TableMod};
use openflow::types::{BufferId, Cookie, DatapathId, MacAddr, PortNo, TableId, Xid};
use openflow::wire::Nothing;

fn fixed() -> Vec<Message> {
    let role = RoleRequest { role: Role::Master, generation: 7 };
    let config = SwitchConfig { flags: ConfigFlags::empty(), miss_send_len: 0xffff };
    let port = Port { current: PortFeatures::GB10_FD, ..Port::new(PortNo(3), MacAddr([2, 0, 0, 0, 0, 3]), "green-3") };
    let changed = PortMod {
        port: port.number,
        address: port.address,
        config: PortConfig::empty(),
        mask: PortConfig::PORT_DOWN,
        advertise: PortFeatures::empty(),
    };
    vec![
        Message::EchoRequest(Bytes::new().into()),
        Message::EchoReply(Bytes::new().into()),
        Message::FeaturesRequest(Nothing),
        Message::FeaturesReply(FeaturesReply {
            datapath: DatapathId(1),
            n_buffers: 0,
            n_tables: 254,
            auxiliary_id: 0,
            capabilities: Capabilities::FLOW_STATS,
        }),
        Message::GetConfigRequest(Nothing),
        Message::GetConfigReply(config.clone()),
        Message::SetConfig(config),
        Message::PortStatus(PortStatus { reason: PortReason::Modify, port }),
        Message::PortMod(changed),
        Message::TableMod(TableMod { table: TableId::ALL, config: TableConfig::empty() }),
        Message::BarrierRequest(Nothing),
        Message::BarrierReply(Nothing),
        Message::RoleRequest(role.clone()),
        Message::RoleReply(role),
    ]
}

fn encoded(message: &Message) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(Xid(7), &mut out).unwrap();
    out.freeze()
}

/// Allocations while `work` runs; the counter itself is seen to count first.
fn allocations(work: impl FnOnce()) -> u64 {
    assert_eq!(measure(|| drop(std::hint::black_box(Box::new(1)))).count_total, 1);
    measure(work).count_total
}

#[test]
fn messages_of_fixed_size_are_decoded_without_allocating() {
    for message in fixed() {
        // Octets that own their memory, as those that a connection brings: static ones would never be counted.
        let frame = Bytes::from(encoded(&message).to_vec());
        // The first slice of octets from a vector allocates the count of owners; framing has done that by then.
        let _owner = frame.slice(..1);
        let mut decoded = None;
        assert_eq!(allocations(|| decoded = Some(Message::decode(&frame))), 0, "{}", message.name());
        assert_eq!(decoded, Some(Ok((Xid(7), message))));
    }
}

#[test]
fn messages_of_fixed_size_are_encoded_without_allocating() {
    let mut out = BytesMut::with_capacity(128);
    for message in fixed() {
        out.clear();
        assert_eq!(allocations(|| message.encode(Xid(7), &mut out).unwrap()), 0, "{}", message.name());
        assert_eq!(out, encoded(&message));
    }
}

#[test]
fn a_packet_in_holds_the_packet_where_it_came() {
    let message = Message::PacketIn(PacketIn {
        buffer_id: BufferId::NONE,
        total_len: 1500,
        reason: PacketInReason::Action,
        table: TableId(0),
        cookie: Cookie(1),
        matching: Match::new([Oxm::InPort(PortNo(3), None), Oxm::TunnelId(100, None)]),
        data: Bytes::from_static(&[0x55; 1500]).into(),
    });
    let mut stream = BytesMut::from(&encoded(&message)[..]);
    let frame = next_frame(&mut stream).unwrap().unwrap();
    let mut decoded = None;
    let taken = measure(|| decoded = Some(Message::decode(&frame)));
    let Some(Ok((_, Message::PacketIn(packet)))) = decoded else { panic!("{decoded:?}") };
    assert_eq!(packet.data.len(), 1500);
    assert!(frame.as_ptr_range().contains(&packet.data.as_ptr()), "the packet is a part of the frame");
    assert_eq!(packet.data.as_ptr_range().end, frame.as_ptr_range().end);
    // Fields of the match may need room; the packet doesn't.
    assert!(taken.bytes_total < 1500, "{taken:?}");
}
