//! Ports and their queues (OpenFlow 1.3.5 §7.2.1, §7.2.2, §7.3.4.5, §7.3.5.5, §7.3.5.12, §7.3.6, §7.4.3).

use crate::types::{MacAddr, PortNo, QueueId};
use crate::wire::{Octets, Text};

wire_flags! {
    /// `ofp_port_config`: what the administrator set.
    pub struct PortConfig: u32 {
        /// The port is down.
        PORT_DOWN = 1;
        /// Packets that come in are dropped.
        NO_RECV = 4;
        /// Packets that go out are dropped.
        NO_FWD = 32;
        /// No packet-in for it.
        NO_PACKET_IN = 64;
    }
}

wire_flags! {
    /// `ofp_port_state`: what the bridge sees.
    pub struct PortState: u32 {
        /// No carrier.
        LINK_DOWN = 1;
        /// Blocked by a protocol of the bridge's own.
        BLOCKED = 2;
        /// Alive, for fast failover.
        LIVE = 4;
    }
}

wire_flags! {
    /// `ofp_port_features`: rates and media.
    pub struct PortFeatures: u32 {
        /// 10 Mbit/s half duplex.
        MB10_HD = 1;
        /// 10 Mbit/s full duplex.
        MB10_FD = 1 << 1;
        /// 100 Mbit/s half duplex.
        MB100_HD = 1 << 2;
        /// 100 Mbit/s full duplex.
        MB100_FD = 1 << 3;
        /// 1 Gbit/s half duplex.
        GB1_HD = 1 << 4;
        /// 1 Gbit/s full duplex.
        GB1_FD = 1 << 5;
        /// 10 Gbit/s full duplex.
        GB10_FD = 1 << 6;
        /// 40 Gbit/s full duplex.
        GB40_FD = 1 << 7;
        /// 100 Gbit/s full duplex.
        GB100_FD = 1 << 8;
        /// 1 Tbit/s full duplex.
        TB1_FD = 1 << 9;
        /// Another rate.
        OTHER = 1 << 10;
        /// Copper.
        COPPER = 1 << 11;
        /// Fibre.
        FIBER = 1 << 12;
        /// It negotiates.
        AUTONEG = 1 << 13;
        /// Pause.
        PAUSE = 1 << 14;
        /// Asymmetric pause.
        PAUSE_ASYM = 1 << 15;
    }
}

wire_struct! {
    /// `ofp_port`.
    pub struct Port {
        /// Its number.
        number: PortNo,
        _ [4],
        /// Its Ethernet address.
        address: MacAddr,
        _ [2],
        /// Its name.
        name: Text<16>,
        /// What the administrator set.
        config: PortConfig,
        /// What the bridge sees.
        state: PortState,
        /// Current features.
        current: PortFeatures,
        /// Advertised features.
        advertised: PortFeatures,
        /// Supported features.
        supported: PortFeatures,
        /// Features of the peer.
        peer: PortFeatures,
        /// Current rate, kbit/s.
        current_speed: u32,
        /// Highest rate, kbit/s.
        max_speed: u32,
    }
}

impl Port {
    /// A port that is up and alive, and tells nothing else.
    pub fn new(number: PortNo, address: MacAddr, name: &str) -> Self {
        Self {
            number,
            address,
            name: Text::new(name),
            config: PortConfig::empty(),
            state: PortState::LIVE,
            current: PortFeatures::empty(),
            advertised: PortFeatures::empty(),
            supported: PortFeatures::empty(),
            peer: PortFeatures::empty(),
            current_speed: 0,
            max_speed: 0,
        }
    }

    /// Can packets pass: neither without carrier nor switched off?
    pub fn is_up(&self) -> bool {
        !self.state.contains(PortState::LINK_DOWN) && !self.config.contains(PortConfig::PORT_DOWN)
    }
}

wire_enum! {
    /// `ofp_port_reason`.
    pub enum PortReason: u8 {
        /// A new port.
        Add = 0,
        /// The port is gone.
        Delete = 1,
        /// Something about it changed.
        Modify = 2,
    }
}

wire_struct! {
    /// `ofp_port_status`: a port came, went or changed.
    pub struct PortStatus {
        /// What happened.
        reason: PortReason,
        _ [7],
        /// The port as it is now.
        port: Port,
    }
}

wire_struct! {
    /// `ofp_port_mod`: changes what the administrator set.
    pub struct PortMod {
        /// The port.
        port: PortNo,
        _ [4],
        /// Its Ethernet address, or the request is refused.
        address: MacAddr,
        _ [2],
        /// The new bits.
        config: PortConfig,
        /// Which bits change.
        mask: PortConfig,
        /// Features to advertise; empty: no change.
        advertise: PortFeatures,
        _ [4],
    }
}

wire_struct! {
    /// `ofp_port_stats_request`: which port; [`PortNo::ANY`]: every one.
    pub struct PortStatsRequest {
        /// The port.
        port: PortNo,
        _ [4],
    }
}

wire_struct! {
    /// `ofp_port_stats`. A counter that the bridge hasn't got is `u64::MAX`.
    pub struct PortStats {
        /// The port.
        port: PortNo,
        _ [4],
        /// Packets received.
        rx_packets: u64,
        /// Packets sent.
        tx_packets: u64,
        /// Octets received.
        rx_bytes: u64,
        /// Octets sent.
        tx_bytes: u64,
        /// Packets dropped on reception.
        rx_dropped: u64,
        /// Packets dropped on sending.
        tx_dropped: u64,
        /// Errors on reception.
        rx_errors: u64,
        /// Errors on sending.
        tx_errors: u64,
        /// Frames out of alignment.
        rx_frame_err: u64,
        /// Packets overrun.
        rx_over_err: u64,
        /// Checksums wrong.
        rx_crc_err: u64,
        /// Collisions.
        collisions: u64,
        /// Seconds it lives.
        duration_sec: u32,
        /// Nanoseconds beyond those seconds.
        duration_nsec: u32,
    }
}

wire_elements! {
    /// `ofp_queue_prop_header`: what a queue guarantees.
    pub enum QueueProperty: min 8, None {
        /// At least this rate, in tenths of a percent of the port's; above 1000: none.
        MinRate = 1 (u16) pad 4, 6;
        /// At most this rate, in tenths of a percent of the port's; above 1000: none.
        MaxRate = 2 (u16) pad 4, 6;
        /// Something of an extension: whose, and what.
        Experimenter = 0xffff (QueueExperimenter) pad 4, 0;
    }
}

wire_struct! {
    /// `ofp_queue_prop_experimenter` behind its header.
    pub open struct QueueExperimenter {
        /// Whose extension.
        experimenter: u32,
        _ [4],
        /// What it says.
        data: Octets,
    }
}

wire_struct! {
    /// `ofp_packet_queue`: a queue of a port.
    pub sized(8, 16) struct Queue {
        /// The queue.
        queue: QueueId,
        /// Its port.
        port: PortNo,
        _ [8],
        /// What it guarantees.
        properties: Vec<QueueProperty>,
    }
}

wire_struct! {
    /// `ofp_queue_get_config_request`: the queues of which port; [`PortNo::ANY`]: of every one.
    pub struct QueueGetConfigRequest {
        /// The port.
        port: PortNo,
        _ [4],
    }
}

wire_struct! {
    /// `ofp_queue_get_config_reply`.
    pub open struct QueueGetConfigReply {
        /// The port asked for.
        port: PortNo,
        _ [4],
        /// Its queues.
        queues: Vec<Queue>,
    }
}

wire_struct! {
    /// `ofp_queue_stats_request`.
    pub struct QueueStatsRequest {
        /// The port; [`PortNo::ANY`]: every one.
        port: PortNo,
        /// The queue; [`QueueId::ALL`]: every one.
        queue: QueueId,
    }
}

wire_struct! {
    /// `ofp_queue_stats`.
    pub struct QueueStats {
        /// The port.
        port: PortNo,
        /// The queue.
        queue: QueueId,
        /// Octets sent.
        tx_bytes: u64,
        /// Packets sent.
        tx_packets: u64,
        /// Packets dropped because it was full.
        tx_errors: u64,
        /// Seconds it lives.
        duration_sec: u32,
        /// Nanoseconds beyond those seconds.
        duration_nsec: u32,
    }
}
