//! Meters (OpenFlow 1.3.5 §5.7, §7.3.4.4, §7.3.5.9–11).

use crate::types::MeterId;
use crate::wire::Octets;

wire_enum! {
    /// `ofp_meter_mod_command`.
    pub enum MeterModCommand: u16 {
        /// A new meter.
        Add = 0,
        /// Other bands for a meter that exists.
        Modify = 1,
        /// Remove the meter.
        Delete = 2,
    }
}

wire_flags! {
    /// `ofp_meter_flags`.
    pub struct MeterFlags: u16 {
        /// Rates are in kilobits a second.
        KBPS = 1;
        /// Rates are in packets a second.
        PKTPS = 2;
        /// Bands have a burst size.
        BURST = 4;
        /// Keep statistics.
        STATS = 8;
    }
}

wire_elements! {
    /// What happens to packets beyond a rate. Rates are in kilobits or packets a second, bursts in kilobits or packets, as
    /// the meter's flags say. Open vSwitch takes only [`Band::Drop`].
    pub enum Band: min 12, None {
        /// They are dropped.
        Drop = 1 {
            /// The rate.
            rate: u32,
            /// The burst.
            burst: u32,
        } pad 0, 4;
        /// Their DSCP's drop precedence rises.
        DscpRemark = 2 {
            /// The rate.
            rate: u32,
            /// The burst.
            burst: u32,
            /// By how much the precedence rises.
            prec_level: u8,
        } pad 0, 3;
        /// Something of an extension.
        Experimenter = 0xffff {
            /// The rate.
            rate: u32,
            /// The burst.
            burst: u32,
            /// Whose extension.
            experimenter: u32,
            /// What it says.
            data: Octets,
        } pad 0, 0;
    }
}

wire_struct! {
    /// `ofp_meter_mod`: adds, changes or removes a meter.
    pub open struct MeterMod {
        /// What to do.
        command: MeterModCommand,
        /// How it counts.
        flags: MeterFlags,
        /// Which meter.
        meter: MeterId,
        /// Its bands.
        bands: Vec<Band>,
    }
}

wire_struct! {
    /// `ofp_meter_config`: a meter as the bridge has it.
    pub sized(0, 8) struct MeterConfig {
        _ [2],
        /// How it counts.
        flags: MeterFlags,
        /// Which meter.
        meter: MeterId,
        /// Its bands.
        bands: Vec<Band>,
    }
}

wire_struct! {
    /// `ofp_meter_multipart_request`: which meter; [`MeterId::ALL`]: every one.
    pub struct MeterRequest {
        /// The meter.
        meter: MeterId,
        _ [4],
    }
}

impl MeterRequest {
    /// Every meter.
    pub const fn all() -> Self {
        Self { meter: MeterId::ALL }
    }
}

wire_struct! {
    /// `ofp_meter_band_stats`.
    pub struct BandStats {
        /// Packets beyond the band's rate.
        packet_count: u64,
        /// Octets of those packets.
        byte_count: u64,
    }
}

wire_struct! {
    /// `ofp_meter_stats`.
    pub sized(4, 40) struct MeterStats {
        /// The meter.
        meter: MeterId,
        _ [8],
        /// How many flow entries use it.
        flow_count: u32,
        /// Packets that came to it.
        packet_in_count: u64,
        /// Octets of those packets.
        byte_in_count: u64,
        /// Seconds it lives.
        duration_sec: u32,
        /// Nanoseconds beyond those seconds.
        duration_nsec: u32,
        /// Per band, in order.
        bands: Vec<BandStats>,
    }
}

wire_struct! {
    /// `ofp_meter_features`.
    pub struct MeterFeatures {
        /// How many meters there may be.
        max_meter: u32,
        /// Kinds of bands there are: bit n is kind n.
        band_types: u32,
        /// How meters may count.
        capabilities: u32,
        /// Bands that a meter may have.
        max_bands: u8,
        /// Highest colour.
        max_color: u8,
        _ [2],
    }
}
