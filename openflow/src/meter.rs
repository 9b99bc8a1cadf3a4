//! Meters (OpenFlow 1.3.5 §5.7, §7.3.4.4).

use bytes::{BufMut, BytesMut};
use nom::bytes::complete::take;
use nom::number::complete::be_u16;

use crate::types::MeterId;
use crate::wire::{LengthGuard, Parsed, Wire, all, element, pad, refuse};

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

/// What happens to packets beyond a rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Band {
    /// They are dropped.
    Drop {
        /// Kilobits or packets a second.
        rate: u32,
        /// Kilobits or packets.
        burst: u32,
    },
    /// A kind of band that Open vSwitch doesn't offer.
    Unknown {
        /// Its number.
        kind: u16,
        /// What follows its length.
        body: Vec<u8>,
    },
}

impl Wire for Band {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (rest, (kind, body)) = element(input, 12)?;
        if kind != 1 {
            return Ok((rest, Self::Unknown { kind, body: body.to_vec() }));
        }
        let (i, rate) = u32::parse(body)?;
        let (_, burst) = u32::parse(i)?;
        Ok((rest, Self::Drop { rate, burst }))
    }

    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Drop { rate, burst } => {
                out.put_u16(1);
                out.put_u16(16);
                out.put_u32(*rate);
                out.put_u32(*burst);
                out.put_u32(0);
            }
            Self::Unknown { kind, body } => {
                out.put_u16(*kind);
                out.put_u16((4 + body.len()) as u16);
                out.put_slice(body);
            }
        }
    }
}

/// `ofp_meter_mod`: adds, changes or removes a meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterMod {
    /// What to do.
    pub command: MeterModCommand,
    /// How it counts.
    pub flags: MeterFlags,
    /// Which meter.
    pub meter: MeterId,
    /// Its bands.
    pub bands: Vec<Band>,
}

impl Wire for MeterMod {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (i, command) = MeterModCommand::parse(input)?;
        let (i, flags) = MeterFlags::parse(i)?;
        let (i, meter) = MeterId::parse(i)?;
        let (i, bands) = all(i, Band::parse)?;
        Ok((i, Self { command, flags, meter, bands }))
    }

    fn put(&self, out: &mut BytesMut) {
        self.command.put(out);
        self.flags.put(out);
        self.meter.put(out);
        for band in &self.bands {
            band.put(out);
        }
    }
}

/// `ofp_meter_config`: a meter as the bridge has it (§7.3.5.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterConfig {
    /// How it counts.
    pub flags: MeterFlags,
    /// Which meter.
    pub meter: MeterId,
    /// Its bands.
    pub bands: Vec<Band>,
}

impl Wire for MeterConfig {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (_, length) = be_u16(input)?;
        if length < 8 || usize::from(length) > input.len() {
            return refuse(input, "is a meter configuration with a length below 8 or beyond the message");
        }
        let (rest, i) = take(length)(input)?;
        let (i, ()) = pad(i, 2)?;
        let (i, flags) = MeterFlags::parse(i)?;
        let (i, meter) = MeterId::parse(i)?;
        let (_, bands) = all(i, Band::parse)?;
        Ok((rest, Self { flags, meter, bands }))
    }

    fn put(&self, out: &mut BytesMut) {
        let length = LengthGuard::new(out, out.len());
        self.flags.put(out);
        self.meter.put(out);
        for band in &self.bands {
            band.put(out);
        }
        length.finish(out);
    }
}
