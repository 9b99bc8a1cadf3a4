//! Multipart messages: questions whose answers may span several messages (OpenFlow 1.3.5 §7.3.5).

use bytes::{BufMut, Bytes, BytesMut};
use nom::bytes::complete::take;
use nom::number::complete::be_u16;

use crate::flow::FlowModFlags;
use crate::group::GroupDesc;
use crate::instruction::Instruction;
use crate::matching::Match;
use crate::meter::MeterConfig;
use crate::port::Port;
use crate::types::{Cookie, GroupId, MeterId, PortNo, TableId};
use crate::wire::{LengthGuard, Parsed, Text, Wire, all, pad, refuse};

wire_struct! {
    /// `ofp_desc`: who made the bridge.
    pub struct Desc {
        /// Maker.
        manufacturer: Text<256>,
        /// Hardware.
        hardware: Text<256>,
        /// Software.
        software: Text<256>,
        /// Serial number.
        serial: Text<32>,
        /// Name that the operator gave the datapath (`other_config:dp-desc`).
        datapath: Text<256>,
    }
}

wire_struct! {
    /// `ofp_flow_stats_request` up to its match.
    pub struct FlowStatsHead {
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
    }
}

/// `ofp_flow_stats_request`: which flow entries to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowStatsRequest {
    /// Everything but the match.
    pub head: FlowStatsHead,
    /// Only entries that this covers.
    pub matching: Match,
}

impl FlowStatsRequest {
    /// Every flow entry of every table.
    pub fn all() -> Self {
        Self {
            head: FlowStatsHead {
                table: TableId::ALL,
                out_port: PortNo::ANY,
                out_group: GroupId::ANY,
                cookie: Cookie(0),
                cookie_mask: 0,
            },
            matching: Match::default(),
        }
    }
}

impl Wire for FlowStatsRequest {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (i, head) = FlowStatsHead::parse(input)?;
        let (i, matching) = Match::parse(i)?;
        Ok((i, Self { head, matching }))
    }
    fn put(&self, out: &mut BytesMut) {
        self.head.put(out);
        self.matching.put(out);
    }
}

/// `ofp_flow_stats`: a flow entry as the bridge has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowStats {
    /// Its table.
    pub table: TableId,
    /// Seconds since it was added.
    pub duration_sec: u32,
    /// Nanoseconds beyond those seconds.
    pub duration_nsec: u32,
    /// Higher wins.
    pub priority: u16,
    /// Seconds without a packet after which it goes; 0: never.
    pub idle_timeout: u16,
    /// Seconds after which it goes; 0: never.
    pub hard_timeout: u16,
    /// How it behaves.
    pub flags: FlowModFlags,
    /// Its mark.
    pub cookie: Cookie,
    /// Packets it matched.
    pub packet_count: u64,
    /// Octets of those packets.
    pub byte_count: u64,
    /// Which packets.
    pub matching: Match,
    /// What is done with them.
    pub instructions: Vec<Instruction>,
}

impl Wire for FlowStats {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (_, length) = be_u16(input)?;
        if length < 56 || usize::from(length) > input.len() {
            return refuse(input, "is a flow entry with a length below 56 or beyond the message");
        }
        let (rest, i) = take(length)(input)?;
        let (i, ()) = pad(i, 2)?;
        let (i, table) = TableId::parse(i)?;
        let (i, ()) = pad(i, 1)?;
        let (i, duration_sec) = u32::parse(i)?;
        let (i, duration_nsec) = u32::parse(i)?;
        let (i, priority) = u16::parse(i)?;
        let (i, idle_timeout) = u16::parse(i)?;
        let (i, hard_timeout) = u16::parse(i)?;
        let (i, flags) = FlowModFlags::parse(i)?;
        let (i, ()) = pad(i, 4)?;
        let (i, cookie) = Cookie::parse(i)?;
        let (i, packet_count) = u64::parse(i)?;
        let (i, byte_count) = u64::parse(i)?;
        let (i, matching) = Match::parse(i)?;
        let (_, instructions) = Instruction::list(i)?;
        Ok((
            rest,
            Self {
                table,
                duration_sec,
                duration_nsec,
                priority,
                idle_timeout,
                hard_timeout,
                flags,
                cookie,
                packet_count,
                byte_count,
                matching,
                instructions,
            },
        ))
    }

    fn put(&self, out: &mut BytesMut) {
        let length = LengthGuard::new(out, out.len());
        self.table.put(out);
        out.put_u8(0);
        out.put_u32(self.duration_sec);
        out.put_u32(self.duration_nsec);
        out.put_u16(self.priority);
        out.put_u16(self.idle_timeout);
        out.put_u16(self.hard_timeout);
        self.flags.put(out);
        out.put_u32(0);
        self.cookie.put(out);
        out.put_u64(self.packet_count);
        out.put_u64(self.byte_count);
        self.matching.put(out);
        for instruction in &self.instructions {
            instruction.put(out);
        }
        length.finish(out);
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

/// A body that is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nothing;

impl Wire for Nothing {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        Ok((input, Self))
    }
    fn put(&self, _: &mut BytesMut) {}
}

/// A body that is a list.
impl<T: Wire> Wire for Vec<T> {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        all(input, T::parse)
    }
    fn put(&self, out: &mut BytesMut) {
        for item in self {
            item.put(out);
        }
    }
}

/// One row per kind of multipart message: its number, the body of the request, the body of the reply.
macro_rules! multiparts {
    ($($(#[$meta:meta])* $variant:ident = $kind:literal: $request:ty => $reply:ty;)+) => {
        multiparts! { @enum
            /// `ofp_multipart_request`.
            MultipartRequest, $($(#[$meta])* $variant = $kind: $request;)+ }
        multiparts! { @enum
            /// `ofp_multipart_reply`, a whole one or a part.
            MultipartReply, $($(#[$meta])* $variant = $kind: $reply;)+ }
    };
    (@enum $(#[$outer:meta])* $name:ident, $($(#[$meta:meta])* $variant:ident = $kind:literal: $body:ty;)+) => {
        $(#[$outer])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$meta])* $variant($body),)+
            /// A kind that has no name here: its number and body.
            Unknown(u16, Bytes),
        }
        impl $name {
            /// Its number.
            pub const fn kind(&self) -> u16 {
                match self { $(Self::$variant(_) => $kind,)+ Self::Unknown(kind, _) => *kind }
            }
            pub(crate) fn parse<'a>(kind: u16, input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self> {
                match kind {
                    $($kind => nom::Parser::parse(&mut nom::combinator::map(<$body as Wire>::parse, Self::$variant), input),)+
                    _ => Ok((&[], Self::Unknown(kind, whole.slice_ref(input)))),
                }
            }
            pub(crate) fn put(&self, out: &mut BytesMut) {
                match self { $(Self::$variant(body) => body.put(out),)+ Self::Unknown(_, body) => out.put_slice(body) }
            }
        }
    };
}

multiparts! {
    /// Who made the bridge.
    Desc = 0: Nothing => Desc;
    /// Flow entries.
    Flow = 1: FlowStatsRequest => Vec<FlowStats>;
    /// Groups.
    GroupDesc = 7: Nothing => Vec<GroupDesc>;
    /// Meters.
    MeterConfig = 10: MeterRequest => Vec<MeterConfig>;
    /// Ports.
    PortDesc = 13: Nothing => Vec<Port>;
}
