//! Groups (OpenFlow 1.3.5 §5.6, §7.3.4.3, §7.3.5.6–8).

use crate::action::Action;
use crate::types::{GroupId, PortNo};

wire_enum! {
    /// `ofp_group_mod_command`.
    pub enum GroupModCommand: u16 {
        /// A new group.
        Add = 0,
        /// Other buckets for a group that exists.
        Modify = 1,
        /// Remove the group.
        Delete = 2,
    }
}

wire_enum! {
    /// `ofp_group_type`.
    pub enum GroupType: u8 {
        /// A copy for each bucket.
        All = 0,
        /// One bucket, chosen by the bridge.
        Select = 1,
        /// The one bucket there is.
        Indirect = 2,
        /// The first bucket that is alive.
        FastFailover = 3,
    }
}

wire_struct! {
    /// `ofp_bucket`: one branch of a group.
    pub sized(0, 16) struct Bucket {
        _ [2],
        /// Its share, in a select group; 0 elsewhere.
        weight: u16,
        /// The port that tells whether it is alive; [`PortNo::ANY`]: none.
        watch_port: PortNo,
        /// The group that tells whether it is alive; [`GroupId::ANY`]: none.
        watch_group: GroupId,
        _ [4],
        /// What it does.
        actions: Vec<Action>,
    }
}

impl Bucket {
    /// A bucket that does `actions`, whatever port is up.
    pub const fn new(actions: Vec<Action>) -> Self {
        Self { weight: 0, watch_port: PortNo::ANY, watch_group: GroupId::ANY, actions }
    }
}

wire_struct! {
    /// `ofp_group_mod`: adds, changes or removes a group.
    pub open struct GroupMod {
        /// What to do.
        command: GroupModCommand,
        /// How the group chooses among its buckets.
        kind: GroupType,
        _ [1],
        /// Which group.
        group: GroupId,
        /// Its buckets, in order.
        buckets: Vec<Bucket>,
    }
}

wire_struct! {
    /// `ofp_group_desc`: a group as the bridge has it.
    pub sized(0, 8) struct GroupDesc {
        _ [2],
        /// How the group chooses among its buckets.
        kind: GroupType,
        _ [1],
        /// Which group.
        group: GroupId,
        /// Its buckets, in order.
        buckets: Vec<Bucket>,
    }
}

wire_struct! {
    /// `ofp_group_stats_request`: which group; [`GroupId::ALL`]: every one.
    pub struct GroupStatsRequest {
        /// The group.
        group: GroupId,
        _ [4],
    }
}

wire_struct! {
    /// `ofp_bucket_counter`.
    pub struct BucketCounter {
        /// Packets the bucket got.
        packet_count: u64,
        /// Octets of those packets.
        byte_count: u64,
    }
}

wire_struct! {
    /// `ofp_group_stats`.
    pub sized(0, 40) struct GroupStats {
        _ [4],
        /// The group.
        group: GroupId,
        /// How many flow entries and groups send to it.
        ref_count: u32,
        _ [4],
        /// Packets it got.
        packet_count: u64,
        /// Octets of those packets.
        byte_count: u64,
        /// Seconds it lives.
        duration_sec: u32,
        /// Nanoseconds beyond those seconds.
        duration_nsec: u32,
        /// Per bucket, in order.
        buckets: Vec<BucketCounter>,
    }
}

wire_flags! {
    /// Kinds of groups that a bridge has: bit n is group type n.
    pub struct GroupTypes: u32 {
        /// A copy for each bucket.
        ALL = 1;
        /// One bucket, chosen by the bridge.
        SELECT = 2;
        /// The one bucket there is.
        INDIRECT = 4;
        /// The first bucket that is alive.
        FAST_FAILOVER = 8;
    }
}

wire_flags! {
    /// `ofp_group_capabilities`.
    pub struct GroupCapabilities: u32 {
        /// Buckets of select groups have weights.
        SELECT_WEIGHT = 1;
        /// Buckets of select groups may be dead.
        SELECT_LIVENESS = 2;
        /// Groups may send to groups.
        CHAINING = 4;
        /// Chains are checked for loops.
        CHAINING_CHECKS = 8;
    }
}

wire_struct! {
    /// `ofp_group_features`. Arrays are by group type: all, select, indirect, fast failover.
    pub struct GroupFeatures {
        /// The types there are.
        types: GroupTypes,
        /// What they can do.
        capabilities: GroupCapabilities,
        /// How many groups of each type there may be.
        max_groups: [u32; 4],
        /// Which actions each type takes: bit n is action n.
        actions: [u32; 4],
    }
}
