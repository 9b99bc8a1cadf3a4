//! Messages of extensions (OpenFlow 1.3.5 §7.3.5.17, §7.5.4): bundles (ONF extension 230) and flow monitors (ONF extension
//! 187), as Open vSwitch speaks them in 1.3. Others are kept as they came.

use bytes::{BufMut, Bytes, BytesMut};

use crate::flow::FlowRemovedReason;
use crate::frame::{HEADER, VERSION, header};
use crate::instruction::Instruction;
use crate::matching::Match;
use crate::message::Message;
use crate::types::{Cookie, PortNo, TableId, Xid};
use crate::wire::{Body, LengthGuard, Nothing, Parsed, Payload, Wire, pad, read, refuse};

/// The Open Networking Foundation's number as an experimenter.
pub const ONF: u32 = 0x4f4e_4600;

/// One row per kind of an extension's message: whose, its number, its body.
macro_rules! experimenters {
    ($(#[$outer:meta])* pub enum $name:ident { $($(#[$meta:meta])* $variant:ident = $owner:ident/$kind:literal => $body:ty;)+ }) => {
        $(#[$outer])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
        pub enum $name {
            $($(#[$meta])* $variant($body),)+
            /// A kind that has no name here.
            Unknown {
                /// Whose extension.
                experimenter: u32,
                /// Its kind of message.
                exp_type: u32,
                /// What it says.
                data: Payload,
            },
        }
        impl $name {
            /// The names of all kinds.
            pub const KINDS: &'static [&'static str] = &[$(stringify!($variant)),+];
        }
        impl Body for $name {
            fn parse_body<'a>(input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self> {
                let (i, experimenter) = read(input, "experimenter")?;
                let (i, exp_type) = read(i, "exp_type")?;
                match (experimenter, exp_type) {
                    $(($owner, $kind) => {
                        let (rest, body) = <$body as Body>::parse_body(i, whole)?;
                        Ok((rest, Self::$variant(body)))
                    })+
                    _ => Ok((&[], Self::Unknown { experimenter, exp_type, data: Payload(whole.slice_ref(i)) })),
                }
            }
            fn put_body(&self, out: &mut BytesMut) {
                match self {
                    $(Self::$variant(body) => {
                        out.put_u32($owner);
                        out.put_u32($kind);
                        Body::put_body(body, out);
                    })+
                    Self::Unknown { experimenter, exp_type, data } => {
                        out.put_u32(*experimenter);
                        out.put_u32(*exp_type);
                        data.put_body(out);
                    }
                }
            }
        }
    };
}

experimenters! {
    /// `ofp_experimenter_header`: a message of an extension.
    pub enum Experimenter {
        /// Begins, ends or drops a bundle.
        BundleControl = ONF/2300 => BundleControl;
        /// Puts a message into a bundle.
        BundleAdd = ONF/2301 => BundleAdd;
        /// Ends a flow monitor.
        FlowMonitorCancel = ONF/1870 => MonitorId;
        /// Flow monitors pause, since the controller reads too slowly.
        FlowMonitorPaused = ONF/1871 => Nothing;
        /// Flow monitors go on.
        FlowMonitorResumed = ONF/1872 => Nothing;
    }
}

experimenters! {
    /// `ofp_experimenter_multipart_header`: a question of an extension.
    pub enum ExperimenterRequest {
        /// Tell changes of flow entries from now on.
        FlowMonitor = ONF/1870 => Vec<FlowMonitorRequest>;
    }
}

experimenters! {
    /// `ofp_experimenter_multipart_header`: the answer to a question of an extension.
    pub enum ExperimenterReply {
        /// Flow entries changed.
        FlowMonitor = ONF/1870 => Vec<FlowUpdate>;
    }
}

wire_enum! {
    /// `onf_bundle_ctrl_type`.
    pub enum BundleControlType: u16 {
        /// Begin.
        OpenRequest = 0,
        /// It has begun.
        OpenReply = 1,
        /// No more messages come.
        CloseRequest = 2,
        /// It is closed.
        CloseReply = 3,
        /// Do it.
        CommitRequest = 4,
        /// It is done.
        CommitReply = 5,
        /// Forget it.
        DiscardRequest = 6,
        /// It is forgotten.
        DiscardReply = 7,
    }
}

wire_flags! {
    /// `onf_bundle_flags`; the same in each message of a bundle.
    pub struct BundleFlags: u16 {
        /// All of it or nothing, and nobody sees it half done.
        ATOMIC = 1;
        /// In the order it was added.
        ORDERED = 2;
    }
}

wire_struct! {
    /// `onf_bundle_ctrl_msg`. Properties, of which none is defined, are kept.
    pub open struct BundleControl {
        /// The bundle's number, chosen by the controller.
        bundle: u32,
        /// What to do, or what is done.
        kind: BundleControlType,
        /// What kind of bundle it is.
        flags: BundleFlags,
        /// Properties.
        properties: crate::wire::Octets,
    }
}

/// `onf_bundle_add_msg`: puts a message into a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct BundleAdd {
    /// The bundle's number.
    pub bundle: u32,
    /// What kind of bundle it is.
    pub flags: BundleFlags,
    /// Transaction id of the message, which has to be that of the message that adds it.
    pub xid: Xid,
    /// The message: no experimenter's.
    pub message: Box<Message>,
    /// Properties, of which none is defined.
    pub properties: Payload,
}

impl Body for BundleAdd {
    fn parse_body<'a>(input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self> {
        let (i, bundle) = read(input, "bundle")?;
        let (i, ()) = pad(i, 2)?;
        let (i, flags) = read(i, "flags")?;
        let (_, length) = pad(i, 2).and_then(|(at, ())| u16::parse(at))?;
        let length = usize::from(length);
        if length < HEADER || length > i.len() {
            return refuse(i, "is a message with a length below 8 or beyond its bundle message");
        }
        let (own, rest) = i.split_at(length);
        let frame = whole.slice_ref(own);
        let (version, kind, xid) = header(&frame);
        if version != VERSION {
            return refuse(i, "is a message of another version than its bundle message");
        }
        if kind == Message::EXPERIMENTER {
            // Bundles in bundles would let the input choose how deep we recurse.
            return refuse(i, "is a message that no bundle can hold");
        }
        let (_, message) = Message::parse_whole(kind, &own[HEADER..], &frame)?;
        let message = Box::new(message);
        Ok((&[], Self { bundle, flags, xid: Xid(xid), message, properties: Payload(whole.slice_ref(rest)) }))
    }
    fn put_body(&self, out: &mut BytesMut) {
        out.put_u32(self.bundle);
        out.put_u16(0);
        self.flags.put(out);
        self.message.write(self.xid, out);
        self.properties.put_body(out);
    }
}

wire_struct! {
    /// Which flow monitor: a number that the controller chose.
    pub struct MonitorId {
        /// The number.
        monitor: u32,
    }
}

wire_flags! {
    /// `onf_flow_monitor_flags`: what to tell.
    pub struct FlowMonitorFlags: u16 {
        /// Entries that are there already.
        INITIAL = 1;
        /// Entries that are added.
        ADD = 2;
        /// Entries that are removed.
        DELETE = 4;
        /// Entries that are changed.
        MODIFY = 8;
        /// Instructions too.
        ACTIONS = 16;
        /// Changes of this controller's own in full, not by their transaction id alone.
        OWN = 32;
    }
}

/// `onf_flow_monitor_request`: begins a flow monitor. The extension's text has bare fields where Open vSwitch has a whole
/// match; this is Open vSwitch's form.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct FlowMonitorRequest {
    /// Its number.
    pub monitor: u32,
    /// What to tell.
    pub flags: FlowMonitorFlags,
    /// Only entries that send to this port; [`PortNo::ANY`]: all.
    pub out_port: PortNo,
    /// Which table; [`TableId::ALL`]: every one.
    pub table: TableId,
    /// Only entries that this covers.
    pub matching: Match,
}

/// Octets of a match without its padding.
fn match_length(matching: &[u8]) -> u16 {
    matching.get(2..4).map_or(0, |length| u16::from_be_bytes([length[0], length[1]]))
}

impl Wire for FlowMonitorRequest {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (i, monitor) = read(input, "monitor")?;
        let (i, flags) = read(i, "flags")?;
        // The match says its own length.
        let (i, ()) = pad(i, 2)?;
        let (i, out_port) = read(i, "out_port")?;
        let (i, table) = read(i, "table")?;
        let (i, ()) = pad(i, 3)?;
        let (i, matching) = read(i, "matching")?;
        Ok((i, Self { monitor, flags, out_port, table, matching }))
    }
    fn put(&self, out: &mut BytesMut) {
        out.put_u32(self.monitor);
        self.flags.put(out);
        let at = out.len();
        out.put_u16(0);
        self.out_port.put(out);
        self.table.put(out);
        out.put_bytes(0, 3);
        let start = out.len();
        self.matching.put(out);
        let length = match_length(&out[start..]);
        out[at..at + 2].copy_from_slice(&length.to_be_bytes());
    }
}

wire_enum! {
    /// `onf_flow_update_event`, of those that tell an entry.
    pub enum FlowEvent: u16 {
        /// It was added, or is there already.
        Added = 0,
        /// It was removed.
        Deleted = 1,
        /// It was changed.
        Modified = 2,
    }
}

/// `onf_flow_update_header`: what changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum FlowUpdate {
    /// `onf_flow_update_full`: an entry.
    Full {
        /// What happened to it.
        event: FlowEvent,
        /// Why it was removed; else without meaning.
        reason: u16,
        /// Its priority.
        priority: u16,
        /// Its idle timeout, seconds.
        idle_timeout: u16,
        /// Its hard timeout, seconds.
        hard_timeout: u16,
        /// Its table.
        table: TableId,
        /// Its mark.
        cookie: Cookie,
        /// Which packets.
        matching: Match,
        /// What is done with them, if asked for.
        instructions: Vec<Instruction>,
    },
    /// `onf_flow_update_abbrev`: what this controller's own request with this transaction id did.
    Own(Xid),
}

const ABBREVIATED: u16 = 3;

impl FlowUpdate {
    /// The table that it is about, if it says so.
    pub const fn table(&self) -> Option<TableId> {
        match self {
            Self::Full { table, .. } => Some(*table),
            _ => None,
        }
    }

    /// Why the entry was removed, if it was.
    pub fn removed(&self) -> Option<FlowRemovedReason> {
        match self {
            Self::Full { event: FlowEvent::Deleted, reason, .. } => u8::try_from(*reason).ok().map(Into::into),
            _ => None,
        }
    }
}

impl Wire for FlowUpdate {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (i, length) = read::<u16>(input, "length")?;
        let (_, event) = u16::parse(i)?;
        let length = usize::from(length);
        if length < 8 || length > input.len() {
            return refuse(input, "is a flow update with a length below 8 or beyond the message");
        }
        let (own, rest) = input.split_at(length);
        let i = &own[4..];
        if event == ABBREVIATED {
            let (left, xid) = read(i, "xid")?;
            return if left.is_empty() {
                Ok((rest, Self::Own(xid)))
            } else {
                refuse(left, "is more than its flow update may have")
            };
        }
        let (i, reason) = read(i, "reason")?;
        let (i, priority) = read(i, "priority")?;
        let (i, idle_timeout) = read(i, "idle_timeout")?;
        let (i, hard_timeout) = read(i, "hard_timeout")?;
        let (i, ()) = pad(i, 2)?;
        let (i, table) = read(i, "table")?;
        let (i, ()) = pad(i, 1)?;
        let (i, cookie) = read(i, "cookie")?;
        let (i, matching) = read(i, "matching")?;
        let (_, instructions) = read(i, "instructions")?;
        let event = event.into();
        Ok((
            rest,
            Self::Full { event, reason, priority, idle_timeout, hard_timeout, table, cookie, matching, instructions },
        ))
    }

    fn put(&self, out: &mut BytesMut) {
        let length = LengthGuard::new(out, out.len());
        match self {
            Self::Own(xid) => {
                out.put_u16(ABBREVIATED);
                xid.put(out);
            }
            Self::Full {
                event,
                reason,
                priority,
                idle_timeout,
                hard_timeout,
                table,
                cookie,
                matching,
                instructions,
            } => {
                event.put(out);
                for number in [reason, priority, idle_timeout, hard_timeout] {
                    out.put_u16(*number);
                }
                let at = out.len();
                out.put_u16(0);
                table.put(out);
                out.put_u8(0);
                cookie.put(out);
                let start = out.len();
                matching.put(out);
                let own = match_length(&out[start..]);
                out[at..at + 2].copy_from_slice(&own.to_be_bytes());
                instructions.put(out);
            }
        }
        length.finish(out);
    }
}
