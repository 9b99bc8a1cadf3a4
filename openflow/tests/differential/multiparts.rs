//! Multipart messages of every kind, with random values that Open vSwitch takes and prints.

use openflow::experimenter::{
    ExperimenterReply, ExperimenterRequest, FlowEvent, FlowMonitorFlags, FlowMonitorRequest, FlowUpdate,
};
use openflow::flow::{AggregateStats, FlowStats, FlowStatsRequest};
use openflow::group::{
    BucketCounter, GroupCapabilities, GroupDesc, GroupFeatures, GroupStats, GroupStatsRequest, GroupTypes,
};
use openflow::meter::{BandStats, MeterConfig, MeterFeatures, MeterRequest, MeterStats};
use openflow::multipart::{MultipartReply, MultipartRequest};
use openflow::port::{PortStats, PortStatsRequest, QueueStats, QueueStatsRequest};
use openflow::switch::Desc;
use openflow::table::TableStats;
use openflow::types::{Cookie, GroupId, MeterId, PortNo, QueueId, TableId, Xid};
use openflow::wire::{Nothing, Text};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::actions::entries;
use crate::fields::{matches, port};
use crate::messages::{bands, flow_flags, groups, nanoseconds, one, ports};

fn flow_stats() -> BoxedStrategy<FlowStats> {
    (entries(), any::<[u16; 3]>(), any::<[u64; 3]>(), any::<u32>(), nanoseconds(), flow_flags())
        .prop_map(|((matching, instructions), numbers, counts, duration_sec, duration_nsec, flags)| FlowStats {
            table: TableId(5),
            duration_sec,
            duration_nsec,
            priority: numbers[0],
            idle_timeout: numbers[1],
            hard_timeout: numbers[2],
            flags,
            cookie: Cookie(counts[0]),
            packet_count: counts[1],
            byte_count: counts[2],
            matching,
            instructions,
        })
        .boxed()
}

fn flow_stats_request() -> BoxedStrategy<FlowStatsRequest> {
    (matches(), port(), any::<u32>(), any::<[u64; 2]>(), 0u8..254)
        .prop_map(|(matching, out_port, group, [cookie, cookie_mask], table)| FlowStatsRequest {
            table: TableId(table),
            out_port,
            out_group: GroupId(group >> 1),
            cookie: Cookie(cookie & cookie_mask),
            cookie_mask,
            matching,
        })
        .boxed()
}

fn port_stats() -> BoxedStrategy<PortStats> {
    // The largest value means that it isn't counted.
    (port(), prop::array::uniform12(0..u64::MAX), any::<u32>(), nanoseconds())
        .prop_map(|(port, counts, duration_sec, duration_nsec)| {
            let [rx_packets, tx_packets, rx_bytes, tx_bytes, rx_dropped, tx_dropped, rx_errors, tx_errors, ..] = counts;
            let [.., rx_frame_err, rx_over_err, rx_crc_err, collisions] = counts;
            PortStats {
                port,
                rx_packets,
                tx_packets,
                rx_bytes,
                tx_bytes,
                rx_dropped,
                tx_dropped,
                rx_errors,
                tx_errors,
                rx_frame_err,
                rx_over_err,
                rx_crc_err,
                collisions,
                duration_sec,
                duration_nsec,
            }
        })
        .boxed()
}

fn group_stats() -> BoxedStrategy<GroupStats> {
    let counter =
        (0..u64::MAX, 0..u64::MAX).prop_map(|(packet_count, byte_count)| BucketCounter { packet_count, byte_count });
    (any::<[u32; 3]>(), 0..u64::MAX, 0..u64::MAX, nanoseconds(), vec(counter, 0..4))
        .prop_map(|(numbers, packet_count, byte_count, duration_nsec, buckets)| GroupStats {
            group: GroupId(numbers[0] >> 1),
            ref_count: numbers[1],
            packet_count,
            byte_count,
            duration_sec: numbers[2],
            duration_nsec,
            buckets,
        })
        .boxed()
}

fn meter_stats() -> BoxedStrategy<MeterStats> {
    let band = any::<[u64; 2]>().prop_map(|[packet_count, byte_count]| BandStats { packet_count, byte_count });
    (any::<[u32; 3]>(), any::<[u64; 2]>(), nanoseconds(), vec(band, 0..4))
        .prop_map(|(numbers, [packet_in_count, byte_in_count], duration_nsec, bands)| MeterStats {
            meter: MeterId(numbers[0] >> 1),
            flow_count: numbers[1],
            packet_in_count,
            byte_in_count,
            duration_sec: numbers[2],
            duration_nsec,
            bands,
        })
        .boxed()
}

/// Questions of every kind.
pub(crate) fn requests() -> BoxedStrategy<MultipartRequest> {
    let monitor = (any::<u32>(), 0u16..64, port(), 0u8..254, matches()).prop_map(
        |(monitor, flags, out_port, table, matching)| FlowMonitorRequest {
            monitor,
            flags: FlowMonitorFlags::from_bits_retain(flags) | FlowMonitorFlags::ADD,
            out_port,
            table: TableId(table),
            matching,
        },
    );
    let meter = || any::<u32>().prop_map(|meter| MeterRequest { meter: MeterId(meter >> 1) });
    prop_oneof![
        Just(MultipartRequest::Desc(Nothing)),
        flow_stats_request().prop_map(MultipartRequest::Flow),
        flow_stats_request().prop_map(MultipartRequest::Aggregate),
        Just(MultipartRequest::Table(Nothing)),
        port().prop_map(|port| MultipartRequest::PortStats(PortStatsRequest { port })),
        (port(), any::<u32>())
            .prop_map(|(port, queue)| MultipartRequest::Queue(QueueStatsRequest { port, queue: QueueId(queue >> 1) })),
        any::<u32>().prop_map(|group| MultipartRequest::Group(GroupStatsRequest { group: GroupId(group >> 1) })),
        Just(MultipartRequest::GroupDesc(Nothing)),
        Just(MultipartRequest::GroupFeatures(Nothing)),
        meter().prop_map(MultipartRequest::Meter),
        meter().prop_map(MultipartRequest::MeterConfig),
        Just(MultipartRequest::MeterFeatures(Nothing)),
        Just(MultipartRequest::TableFeatures(Vec::new())),
        Just(MultipartRequest::PortDesc(Nothing)),
        vec(monitor, 1..3)
            .prop_map(|monitors| MultipartRequest::Experimenter(ExperimenterRequest::FlowMonitor(monitors))),
    ]
    .boxed()
}

fn updates() -> BoxedStrategy<FlowUpdate> {
    let full =
        (entries(), any::<[u16; 3]>(), any::<u64>(), one(&[FlowEvent::Added, FlowEvent::Deleted, FlowEvent::Modified]))
            .prop_map(|((matching, instructions), [priority, idle_timeout, hard_timeout], cookie, event)| {
                FlowUpdate::Full {
                    event,
                    reason: 0,
                    priority,
                    idle_timeout,
                    hard_timeout,
                    table: TableId(5),
                    cookie: Cookie(cookie),
                    matching,
                    instructions,
                }
            });
    prop_oneof![4 => full, 1 => any::<u32>().prop_map(|xid| FlowUpdate::Own(Xid(xid)))].boxed()
}

/// Answers of every kind but table features, which are in the corpus alone.
pub(crate) fn replies() -> BoxedStrategy<MultipartReply> {
    let table =
        (0u8..254, any::<u32>(), any::<[u64; 2]>()).prop_map(|(table, active_count, [lookup_count, matched_count])| {
            TableStats { table: TableId(table), active_count, lookup_count, matched_count }
        });
    let queue = (1u32..0xff00, any::<[u32; 2]>(), prop::array::uniform3(0..u64::MAX), nanoseconds()).prop_map(
        |(port, [queue, duration_sec], [tx_bytes, tx_packets, tx_errors], duration_nsec)| QueueStats {
            port: PortNo(port),
            queue: QueueId(queue >> 1),
            tx_bytes,
            tx_packets,
            tx_errors,
            duration_sec,
            duration_nsec,
        },
    );
    let described = || groups().prop_map(|(kind, group, buckets)| GroupDesc { kind, group, buckets });
    let metered =
        (bands(), 1u32..1000).prop_map(|((flags, bands), meter)| MeterConfig { flags, meter: MeterId(meter), bands });
    prop_oneof![
        "[a-z]{1,31}".prop_map(|text| MultipartReply::Desc(Box::new(Desc {
            manufacturer: Text::new(&text),
            hardware: Text::new(&text.to_uppercase()),
            software: Text::new("soft"),
            serial: Text::new(&text),
            datapath: Text::new("path"),
        }))),
        vec(flow_stats(), 0..4).prop_map(MultipartReply::Flow),
        (any::<[u64; 2]>(), any::<u32>()).prop_map(|([packet_count, byte_count], flow_count)| {
            MultipartReply::Aggregate(AggregateStats { packet_count, byte_count, flow_count })
        }),
        vec(table, 1..2).prop_map(MultipartReply::Table),
        vec(port_stats(), 0..4).prop_map(MultipartReply::PortStats),
        vec(queue, 0..4).prop_map(MultipartReply::Queue),
        vec(group_stats(), 0..4).prop_map(MultipartReply::Group),
        vec(described(), 0..4).prop_map(MultipartReply::GroupDesc),
        (any::<[u32; 4]>(), 0u32..16).prop_map(|(max_groups, capabilities)| MultipartReply::GroupFeatures(
            GroupFeatures {
                // Of other types it prints nothing.
                types: GroupTypes::all() & GroupTypes::from_bits_retain(15),
                capabilities: GroupCapabilities::from_bits_retain(capabilities),
                max_groups,
                actions: [1; 4],
            }
        )),
        vec(meter_stats(), 0..4).prop_map(MultipartReply::Meter),
        vec(metered, 0..4).prop_map(MultipartReply::MeterConfig),
        (any::<u32>(), any::<[u8; 2]>()).prop_map(|(max_meter, [max_bands, max_color])| MultipartReply::MeterFeatures(
            MeterFeatures { max_meter, band_types: 6, capabilities: 15, max_bands, max_color }
        )),
        vec(ports(), 0..4).prop_map(MultipartReply::PortDesc),
        vec(updates(), 0..4).prop_map(|updates| MultipartReply::Experimenter(ExperimenterReply::FlowMonitor(updates))),
    ]
    .boxed()
}
