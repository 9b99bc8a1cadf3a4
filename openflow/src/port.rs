//! Ports (OpenFlow 1.3.5 §7.2.1, §7.4.3).

use crate::types::{MacAddr, PortNo};
use crate::wire::Text;

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
        /// Current features, bits of `ofp_port_features`.
        current: u32,
        /// Advertised features.
        advertised: u32,
        /// Supported features.
        supported: u32,
        /// Features of the peer.
        peer: u32,
        /// Current rate, kbit/s.
        current_speed: u32,
        /// Highest rate, kbit/s.
        max_speed: u32,
    }
}

impl Port {
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
