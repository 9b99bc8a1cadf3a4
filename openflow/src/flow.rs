//! Flow entries: changing them, and the notice of their removal (OpenFlow 1.3.5 §7.3.4.2, §7.4.2).

use crate::instruction::Instruction;
use crate::matching::Match;
use crate::types::{BufferId, Cookie, GroupId, PortNo, TableId};

wire_enum! {
    /// `ofp_flow_mod_command`.
    pub enum FlowModCommand: u8 {
        /// Add an entry, in place of one with the same match and priority.
        Add = 0,
        /// Change the instructions of all entries that the match covers.
        Modify = 1,
        /// Change the instructions of the one entry with this match and priority.
        ModifyStrict = 2,
        /// Remove all entries that the match covers.
        Delete = 3,
        /// Remove the one entry with this match and priority.
        DeleteStrict = 4,
    }
}

wire_flags! {
    /// `ofp_flow_mod_flags`.
    pub struct FlowModFlags: u16 {
        /// Tell when the entry is removed.
        SEND_FLOW_REM = 1;
        /// Refuse an entry that overlaps another of its priority.
        CHECK_OVERLAP = 2;
        /// Begin counting anew.
        RESET_COUNTS = 4;
        /// Don't count packets.
        NO_PKT_COUNTS = 8;
        /// Don't count bytes.
        NO_BYT_COUNTS = 16;
    }
}

wire_struct! {
    /// `ofp_flow_mod`: adds, changes or removes flow entries.
    pub open struct FlowMod {
        /// Mark of the entry; in a change or removal the value that the entries' cookies must have under the mask.
        cookie: Cookie,
        /// Which bits of the cookie restrict a change or removal; 0: none.
        cookie_mask: u64,
        /// The entry's table.
        table: TableId,
        /// What to do.
        command: FlowModCommand,
        /// Seconds without a packet after which the entry goes; 0: never.
        idle_timeout: u16,
        /// Seconds after which the entry goes; 0: never.
        hard_timeout: u16,
        /// Higher wins.
        priority: u16,
        /// A packet kept by the bridge, to be handled by the entry.
        buffer_id: BufferId,
        /// Restricts a removal to entries that send to this port.
        out_port: PortNo,
        /// Restricts a removal to entries that send to this group.
        out_group: GroupId,
        /// How the entry behaves.
        flags: FlowModFlags,
        _ [2],
        /// Which packets.
        matching: Match,
        /// What is done with them.
        instructions: Vec<Instruction>,
    }
}

impl FlowMod {
    /// A change of one entry, or of those that the match covers, that holds for every cookie, port and group: without
    /// timeouts, flags and instructions.
    pub const fn new(command: FlowModCommand, table: TableId, priority: u16, matching: Match) -> Self {
        Self {
            cookie: Cookie(0),
            cookie_mask: 0,
            table,
            command,
            idle_timeout: 0,
            hard_timeout: 0,
            priority,
            buffer_id: BufferId::NONE,
            out_port: PortNo::ANY,
            out_group: GroupId::ANY,
            flags: FlowModFlags::empty(),
            matching,
            instructions: Vec::new(),
        }
    }
}

wire_enum! {
    /// `ofp_flow_removed_reason`.
    pub enum FlowRemovedReason: u8 {
        /// No packet for its idle timeout.
        IdleTimeout = 0,
        /// Its hard timeout.
        HardTimeout = 1,
        /// A flow-mod.
        Delete = 2,
        /// Its group went.
        GroupDelete = 3,
        /// Its meter went (1.4; Open vSwitch says [`FlowRemovedReason::Delete`] in 1.3).
        MeterDelete = 4,
        /// It was evicted for want of room (1.4; Open vSwitch gives it in 1.3 too).
        Eviction = 5,
    }
}

wire_struct! {
    /// `ofp_flow_removed`: an entry that asked for it is gone.
    pub open struct FlowRemoved {
        /// The entry's mark.
        cookie: Cookie,
        /// The entry's priority.
        priority: u16,
        /// Why it went.
        reason: FlowRemovedReason,
        /// The entry's table.
        table: TableId,
        /// Seconds it lived.
        duration_sec: u32,
        /// Nanoseconds beyond those seconds.
        duration_nsec: u32,
        /// Its idle timeout, seconds.
        idle_timeout: u16,
        /// Its hard timeout, seconds.
        hard_timeout: u16,
        /// Packets it matched.
        packet_count: u64,
        /// Octets of those packets.
        byte_count: u64,
        /// Which packets it matched.
        matching: Match,
    }
}

wire_struct! {
    /// `ofp_flow_stats_request` and `ofp_aggregate_stats_request` (§7.3.5.2, §7.3.5.3): which flow entries to tell.
    pub open struct FlowStatsRequest {
        /// Which table; [`TableId::ALL`]: every one.
        table: TableId,
        _ [3],
        /// Only entries that send to this port; [`PortNo::ANY`]: all.
        out_port: PortNo,
        /// Only entries that send to this group; [`GroupId::ANY`]: all.
        out_group: GroupId,
        _ [4],
        /// Only entries with this cookie, under the mask.
        cookie: Cookie,
        /// Which bits of the cookie count; 0: none.
        cookie_mask: u64,
        /// Only entries that this covers.
        matching: Match,
    }
}

impl FlowStatsRequest {
    /// Every flow entry of every table.
    pub fn all() -> Self {
        Self {
            table: TableId::ALL,
            out_port: PortNo::ANY,
            out_group: GroupId::ANY,
            cookie: Cookie(0),
            cookie_mask: 0,
            matching: Match::default(),
        }
    }
}

wire_struct! {
    /// `ofp_flow_stats`: a flow entry as the bridge has it (§7.3.5.2).
    pub sized(0, 56) struct FlowStats {
        _ [2],
        /// Its table.
        table: TableId,
        _ [1],
        /// Seconds since it was added.
        duration_sec: u32,
        /// Nanoseconds beyond those seconds.
        duration_nsec: u32,
        /// Higher wins.
        priority: u16,
        /// Seconds without a packet after which it goes; 0: never.
        idle_timeout: u16,
        /// Seconds after which it goes; 0: never.
        hard_timeout: u16,
        /// How it behaves.
        flags: FlowModFlags,
        _ [4],
        /// Its mark.
        cookie: Cookie,
        /// Packets it matched.
        packet_count: u64,
        /// Octets of those packets.
        byte_count: u64,
        /// Which packets.
        matching: Match,
        /// What is done with them.
        instructions: Vec<Instruction>,
    }
}

wire_struct! {
    /// `ofp_aggregate_stats_reply` (§7.3.5.3): the sum over flow entries.
    pub struct AggregateStats {
        /// Packets they matched.
        packet_count: u64,
        /// Octets of those packets.
        byte_count: u64,
        /// How many entries there are.
        flow_count: u32,
        _ [4],
    }
}
