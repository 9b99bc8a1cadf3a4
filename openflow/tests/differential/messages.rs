//! Messages of every type, with random values that Open vSwitch takes.
//!
//! It refuses: commands, types, reasons and flags without a name; a meter in both units; durations with 10⁹ nanoseconds or more
//! it prints otherwise. A port's `peer` features and the speeds of a port it prints rounded or not at all.

use openflow::experimenter::{BundleAdd, BundleControl, BundleControlType, BundleFlags, Experimenter, MonitorId};
use openflow::flow::{FlowMod, FlowModCommand, FlowModFlags, FlowRemoved, FlowRemovedReason};
use openflow::group::{Bucket, GroupMod, GroupModCommand, GroupType};
use openflow::message::Message;
use openflow::meter::{Band, MeterFlags, MeterMod, MeterModCommand};
use openflow::multipart::Part;
use openflow::packet::{PacketIn, PacketInReason, PacketOut};
use openflow::port::{
    Port, PortConfig, PortFeatures, PortMod, PortReason, PortState, PortStatus, Queue, QueueGetConfigReply,
    QueueGetConfigRequest, QueueProperty,
};
use openflow::switch::{
    AsyncConfig, Capabilities, ConfigFlags, FeaturesReply, FlowRemovedReasons, Hello, PacketInReasons, PortReasons,
    Role, RoleRequest, SwitchConfig,
};
use openflow::table::{TableConfig, TableMod};
use openflow::types::{BufferId, Cookie, DatapathId, GroupId, MacAddr, MeterId, PortNo, QueueId, TableId, Xid};
use openflow::wire::{Nothing, Payload, Text};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::actions::{actions, entries};
use crate::fields::{matches, port};
use crate::multiparts::{replies, requests};

/// One of these.
pub(crate) fn one<T: Clone + std::fmt::Debug + 'static>(values: &[T]) -> BoxedStrategy<T> {
    prop::sample::select(values.to_vec()).boxed()
}

pub(crate) fn nanoseconds() -> BoxedStrategy<u32> {
    (0u32..1_000_000_000).boxed()
}

pub(crate) fn flow_flags() -> BoxedStrategy<FlowModFlags> {
    (0u16..32).prop_map(FlowModFlags::from_bits_retain).boxed()
}

fn flow_mod() -> BoxedStrategy<FlowMod> {
    let commands = one(&[
        FlowModCommand::Add,
        FlowModCommand::Modify,
        FlowModCommand::ModifyStrict,
        FlowModCommand::Delete,
        FlowModCommand::DeleteStrict,
    ]);
    (entries(), any::<[u16; 3]>(), commands, any::<u64>(), any::<u64>(), flow_flags(), port(), any::<bool>())
        .prop_map(|((matching, instructions), numbers, command, cookie, cookie_mask, flags, port, narrow)| {
            let deletes = matches!(command, FlowModCommand::Delete | FlowModCommand::DeleteStrict);
            let adds = command == FlowModCommand::Add;
            let [idle_timeout, hard_timeout, priority] = numbers;
            FlowMod {
                cookie: Cookie(cookie),
                cookie_mask: if adds { 0 } else { cookie_mask },
                table: TableId(5),
                command,
                idle_timeout,
                hard_timeout,
                priority,
                buffer_id: BufferId::NONE,
                out_port: if deletes && narrow { port } else { PortNo::ANY },
                out_group: if deletes && narrow { GroupId(cookie as u32 >> 1) } else { GroupId::ANY },
                flags,
                matching,
                instructions: if deletes { Vec::new() } else { instructions },
            }
        })
        .boxed()
}

fn flow_removed() -> BoxedStrategy<FlowRemoved> {
    let reasons = one(&[
        FlowRemovedReason::IdleTimeout,
        FlowRemovedReason::HardTimeout,
        FlowRemovedReason::Delete,
        FlowRemovedReason::GroupDelete,
        FlowRemovedReason::MeterDelete,
    ]);
    (matches(), reasons, any::<[u16; 3]>(), any::<[u64; 3]>(), any::<u32>(), nanoseconds())
        .prop_map(|(matching, reason, numbers, counts, duration_sec, duration_nsec)| FlowRemoved {
            cookie: Cookie(counts[0]),
            priority: numbers[0],
            reason,
            table: TableId(numbers[1] as u8),
            duration_sec,
            duration_nsec,
            idle_timeout: numbers[1],
            hard_timeout: numbers[2],
            packet_count: counts[1],
            byte_count: counts[2],
            matching,
        })
        .boxed()
}

/// Groups of each type, with the buckets that it may have.
pub(crate) fn groups() -> BoxedStrategy<(GroupType, GroupId, Vec<Bucket>)> {
    let kinds = one(&[GroupType::All, GroupType::Select, GroupType::Indirect, GroupType::FastFailover]);
    (kinds, 0..0xffff_ff00u32, vec((actions(), any::<u16>(), port(), any::<u32>()), 1..4))
        .prop_map(|(kind, group, buckets)| {
            let bucket = |(actions, weight, port, group)| Bucket {
                weight: if kind == GroupType::Select { weight } else { 0 },
                watch_port: if kind == GroupType::FastFailover { port } else { PortNo::ANY },
                watch_group: if kind == GroupType::FastFailover { GroupId(group >> 1) } else { GroupId::ANY },
                actions,
            };
            let buckets: Vec<_> = buckets.into_iter().map(bucket).collect();
            let most = if kind == GroupType::Indirect { 1 } else { buckets.len() };
            (kind, GroupId(group), buckets[..most].to_vec())
        })
        .boxed()
}

pub(crate) fn bands() -> BoxedStrategy<(MeterFlags, Vec<Band>)> {
    let band = (any::<bool>(), 1u32.., any::<u32>(), any::<u8>()).prop_map(|(remark, rate, burst, prec_level)| {
        if remark { Band::DscpRemark { rate, burst, prec_level } } else { Band::Drop { rate, burst } }
    });
    let units = one(&[MeterFlags::KBPS, MeterFlags::PKTPS]);
    (units, any::<bool>(), vec(band, 1..4))
        .prop_map(|(unit, stats, bands)| {
            // Without the flag for bursts their size isn't printed.
            (unit | MeterFlags::BURST | if stats { MeterFlags::STATS } else { MeterFlags::empty() }, bands)
        })
        .boxed()
}

pub(crate) fn ports() -> BoxedStrategy<Port> {
    let features = || (0u32..1 << 16).prop_map(PortFeatures::from_bits_retain);
    (port(), any::<[u8; 6]>(), "[a-z]{1,15}", 0u32..8, features(), features(), features(), 1u32..4_000_000)
        .prop_map(|(number, address, name, state, current, advertised, supported, speed)| Port {
            number,
            address: MacAddr(address),
            name: Text::new(&name),
            config: PortConfig::PORT_DOWN,
            state: PortState::from_bits_retain(state),
            current,
            advertised,
            supported,
            peer: PortFeatures::empty(),
            current_speed: speed * 1000,
            max_speed: (speed / 2) * 1000,
        })
        .boxed()
}

fn queues() -> BoxedStrategy<Message> {
    let queue = (0u32..0xffff_0000, 0u16..=1000, 0u16..=1000);
    (1u32..0xff00, vec(queue, 1..4))
        .prop_map(|(port, queues)| {
            let queue = |(queue, least, most)| Queue {
                queue: QueueId(queue),
                port: PortNo(port),
                properties: vec![QueueProperty::MinRate(least), QueueProperty::MaxRate(most)],
            };
            let queues = queues.into_iter().map(queue).collect();
            Message::QueueGetConfigReply(QueueGetConfigReply { port: PortNo(port), queues })
        })
        .boxed()
}

fn modifications() -> BoxedStrategy<Message> {
    let group_commands = one(&[GroupModCommand::Add, GroupModCommand::Modify]);
    let meter_commands = one(&[MeterModCommand::Add, MeterModCommand::Modify]);
    prop_oneof![
        6 => flow_mod().prop_map(Message::FlowMod),
        2 => (group_commands, groups()).prop_map(|(command, (kind, group, buckets))| {
            Message::GroupMod(GroupMod { command, kind, group, buckets })
        }),
        1 => (meter_commands, 1u32..1000, bands()).prop_map(|(command, meter, (flags, bands))| {
            Message::MeterMod(MeterMod { command, flags, meter: MeterId(meter), bands })
        }),
        1 => (port(), any::<[u8; 6]>(), 0u32..1 << 16).prop_map(|(port, address, features)| Message::PortMod(PortMod {
            port,
            address: MacAddr(address),
            config: PortConfig::PORT_DOWN,
            mask: PortConfig::PORT_DOWN | PortConfig::NO_FWD,
            advertise: PortFeatures::from_bits_retain(features),
        })),
    ]
    .boxed()
}

fn experimenters() -> BoxedStrategy<Message> {
    let kinds = one(&[
        BundleControlType::OpenRequest,
        BundleControlType::OpenReply,
        BundleControlType::CloseRequest,
        BundleControlType::CloseReply,
        BundleControlType::CommitRequest,
        BundleControlType::CommitReply,
        BundleControlType::DiscardRequest,
        BundleControlType::DiscardReply,
    ]);
    let flags = || (0u16..4).prop_map(BundleFlags::from_bits_retain);
    let control = (any::<u32>(), kinds, flags()).prop_map(|(bundle, kind, flags)| {
        Experimenter::BundleControl(BundleControl { bundle, kind, flags, properties: Default::default() })
    });
    // The message within gets the transaction id of the one that adds it as that is encoded.
    let add = (any::<u32>(), flags(), flow_mod()).prop_map(|(bundle, flags, flow)| {
        let message = Box::new(Message::FlowMod(flow));
        Experimenter::BundleAdd(BundleAdd { bundle, flags, xid: Xid(0), message, properties: Payload::default() })
    });
    prop_oneof![
        control,
        add,
        any::<u32>().prop_map(|monitor| Experimenter::FlowMonitorCancel(MonitorId { monitor })),
        Just(Experimenter::FlowMonitorPaused(Nothing)),
        Just(Experimenter::FlowMonitorResumed(Nothing)),
    ]
    .prop_map(Message::Experimenter)
    .boxed()
}

fn channel() -> BoxedStrategy<Message> {
    let payload = || vec(any::<u8>(), 0..40).prop_map(Payload::from);
    let config = || {
        (0u16..3, any::<u16>()).prop_map(|(flags, miss_send_len)| SwitchConfig {
            flags: ConfigFlags::from_bits_retain(flags),
            miss_send_len,
        })
    };
    let roles = || {
        (one(&[Role::Equal, Role::Master, Role::Slave]), 0..u64::MAX)
            .prop_map(|(role, generation)| RoleRequest { role, generation })
    };
    let reasons = || {
        (prop::array::uniform6(0u32..8)).prop_map(|bits| AsyncConfig {
            packet_in: PacketInReasons::from_bits_retain(bits[0]),
            packet_in_slave: PacketInReasons::from_bits_retain(bits[1]),
            port_status: PortReasons::from_bits_retain(bits[2]),
            port_status_slave: PortReasons::from_bits_retain(bits[3]),
            flow_removed: FlowRemovedReasons::from_bits_retain(bits[4]),
            flow_removed_slave: FlowRemovedReasons::from_bits_retain(bits[5]),
        })
    };
    prop_oneof![
        Just(Message::Hello(Hello::v13())),
        payload().prop_map(Message::EchoRequest),
        payload().prop_map(Message::EchoReply),
        Just(Message::FeaturesRequest(Nothing)),
        (any::<u64>(), any::<u32>(), any::<[u8; 2]>(), 0u32..512).prop_map(
            |(datapath, n_buffers, [n_tables, auxiliary_id], bits)| {
                Message::FeaturesReply(FeaturesReply {
                    datapath: DatapathId(datapath),
                    n_buffers,
                    n_tables,
                    auxiliary_id,
                    capabilities: Capabilities::from_bits_retain(bits & 0x16f),
                })
            }
        ),
        Just(Message::GetConfigRequest(Nothing)),
        config().prop_map(Message::GetConfigReply),
        config().prop_map(Message::SetConfig),
        Just(Message::BarrierRequest(Nothing)),
        Just(Message::BarrierReply(Nothing)),
        (1u32..0xff00).prop_map(|port| Message::QueueGetConfigRequest(QueueGetConfigRequest { port: PortNo(port) })),
        queues(),
        roles().prop_map(Message::RoleRequest),
        roles().prop_map(Message::RoleReply),
        Just(Message::GetAsyncRequest(Nothing)),
        reasons().prop_map(Message::GetAsyncReply),
        reasons().prop_map(Message::SetAsync),
        (0u8..255)
            .prop_map(|table| Message::TableMod(TableMod { table: TableId(table), config: TableConfig::empty() })),
    ]
    .boxed()
}

fn events() -> BoxedStrategy<Message> {
    let reasons = one(&[PacketInReason::NoMatch, PacketInReason::Action, PacketInReason::InvalidTtl]);
    let frame = || vec(any::<u8>(), 20..60).prop_map(Payload::from);
    prop_oneof![
        (matches(), reasons, frame(), any::<u64>(), any::<u8>(), any::<u16>()).prop_map(
            |(matching, reason, data, cookie, table, more)| Message::PacketIn(PacketIn {
                buffer_id: BufferId(cookie as u32 >> 1),
                total_len: data.len() as u16 + more % 1000,
                reason,
                table: TableId(table),
                cookie: Cookie(cookie >> 1),
                matching,
                data,
            })
        ),
        (actions(), frame(), port()).prop_map(|(actions, data, in_port)| Message::PacketOut(PacketOut {
            buffer_id: BufferId::NONE,
            in_port,
            actions,
            data
        })),
        flow_removed().prop_map(Message::FlowRemoved),
        (one(&[PortReason::Add, PortReason::Delete, PortReason::Modify]), ports())
            .prop_map(|(reason, port)| Message::PortStatus(PortStatus { reason, port })),
    ]
    .boxed()
}

/// Messages of every type but errors, whose codes the corpus has.
pub(crate) fn messages() -> BoxedStrategy<Message> {
    prop_oneof![
        4 => modifications(),
        2 => events(),
        2 => channel(),
        2 => requests().prop_map(|body| Message::MultipartRequest(Part::whole(body))),
        4 => (any::<bool>(), replies()).prop_map(|(more, body)| Message::MultipartReply(if more { Part::begun(body) } else { Part::whole(body) })),
        1 => experimenters(),
    ]
    .boxed()
}
