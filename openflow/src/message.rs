//! Whole messages: the table of all types, decoding and encoding (OpenFlow 1.3.5 §7.1).

use bytes::{BufMut, Bytes, BytesMut};

use crate::flow::{FlowMod, FlowRemoved};
use crate::frame::{HEADER, VERSION, header};
use crate::group::GroupMod;
use crate::meter::MeterMod;
use crate::multipart::{MultipartReply, MultipartRequest, Nothing};
use crate::packet::{PacketIn, PacketOut};
use crate::port::PortStatus;
use crate::switch::{ErrorMsg, ErrorType, FeaturesReply, Hello, RoleRequest, SwitchConfig};
use crate::types::Xid;
use crate::wire::{LengthGuard, Parsed, Wire, pad};

/// A message that can't be decoded. Nothing of it was used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} is malformed: octet {offset} {reason}")]
pub struct DecodeError {
    /// Name of the message type.
    pub message: &'static str,
    /// First offending octet, counted from the start of the message's header.
    pub offset: usize,
    /// What is wrong there.
    pub reason: &'static str,
}

/// A body that keeps slices of the message it came in instead of copying them.
trait Body: Sized {
    fn parse_body<'a>(input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self>;
    fn put_body(&self, out: &mut BytesMut);
}

impl<T: Wire> Body for T {
    fn parse_body<'a>(input: &'a [u8], _: &Bytes) -> Parsed<'a, Self> {
        <T as Wire>::parse(input)
    }
    fn put_body(&self, out: &mut BytesMut) {
        Wire::put(self, out);
    }
}

macro_rules! body {
    ($($ty:ty),*) => { $(impl Body for $ty {
        fn parse_body<'a>(input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self> { <$ty>::parse(input, whole) }
        fn put_body(&self, out: &mut BytesMut) { <$ty>::put(self, out); }
    })* };
}
body! { PacketIn, PacketOut }

impl Body for Bytes {
    fn parse_body<'a>(input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self> {
        Ok((&[], whole.slice_ref(input)))
    }
    fn put_body(&self, out: &mut BytesMut) {
        out.put_slice(self);
    }
}

impl Body for ErrorMsg {
    fn parse_body<'a>(input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self> {
        let (i, kind) = ErrorType::parse(input)?;
        let (i, code) = u16::parse(i)?;
        Ok((&[], Self { kind, code, data: whole.slice_ref(i) }))
    }
    fn put_body(&self, out: &mut BytesMut) {
        self.kind.put(out);
        out.put_u16(self.code);
        out.put_slice(&self.data);
    }
}

/// A multipart message with the flag that says whether more of it follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<T> {
    /// Does another message with the same transaction id continue it?
    pub more: bool,
    /// What is in this one.
    pub body: T,
}

macro_rules! part {
    ($($ty:ty),*) => { $(impl Body for Part<$ty> {
        fn parse_body<'a>(input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self> {
            let (i, kind) = u16::parse(input)?;
            let (i, flags) = u16::parse(i)?;
            let (i, ()) = pad(i, 4)?;
            let (i, body) = <$ty>::parse(kind, i, whole)?;
            Ok((i, Self { more: flags & 1 != 0, body }))
        }
        fn put_body(&self, out: &mut BytesMut) {
            out.put_u16(self.body.kind());
            out.put_u16(u16::from(self.more));
            out.put_u32(0);
            self.body.put(out);
        }
    })* };
}
part! { MultipartRequest, MultipartReply }

/// One row per message type: its number and its body.
macro_rules! messages {
    ($($(#[$meta:meta])* $variant:ident = $kind:literal => $body:ty;)+) => {
        /// A message, without its header.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Message {
            $($(#[$meta])* $variant($body),)+
            /// A type that has no name here: its number and body.
            Unknown(u8, Bytes),
        }

        impl Message {
            /// Its type's number.
            pub const fn kind(&self) -> u8 {
                match self { $(Self::$variant(_) => $kind,)+ Self::Unknown(kind, _) => *kind }
            }

            /// Its type's name.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($variant),)+ Self::Unknown(..) => "Unknown" }
            }

            /// The name of a type by its number.
            pub const fn name_of(kind: u8) -> &'static str {
                match kind { $($kind => stringify!($variant),)+ _ => "Unknown" }
            }

            fn parse<'a>(kind: u8, input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self> {
                match kind {
                    $($kind => {
                        let (rest, body) = <$body as Body>::parse_body(input, whole)?;
                        Ok((rest, Self::$variant(body)))
                    })+
                    _ => Ok((&[], Self::Unknown(kind, whole.slice_ref(input)))),
                }
            }

            fn put(&self, out: &mut BytesMut) {
                match self { $(Self::$variant(body) => Body::put_body(body, out),)+ Self::Unknown(_, body) => out.put_slice(body) }
            }
        }
    };
}

messages! {
    /// Version agreement.
    Hello = 0 => Hello;
    /// A request failed.
    Error = 1 => ErrorMsg;
    /// Are you there?
    EchoRequest = 2 => Bytes;
    /// I am: the request's body.
    EchoReply = 3 => Bytes;
    /// An extension: experimenter, type and body.
    Experimenter = 4 => Bytes;
    /// Who are you?
    FeaturesRequest = 5 => Nothing;
    /// Datapath id and capabilities.
    FeaturesReply = 6 => FeaturesReply;
    /// How are you configured?
    GetConfigRequest = 7 => Nothing;
    /// The configuration.
    GetConfigReply = 8 => SwitchConfig;
    /// Sets the configuration.
    SetConfig = 9 => SwitchConfig;
    /// A packet for the controller.
    PacketIn = 10 => PacketIn;
    /// A flow entry is gone.
    FlowRemoved = 11 => FlowRemoved;
    /// A port came, went or changed.
    PortStatus = 12 => PortStatus;
    /// A packet for the bridge.
    PacketOut = 13 => PacketOut;
    /// Changes flow entries.
    FlowMod = 14 => FlowMod;
    /// Changes a group.
    GroupMod = 15 => GroupMod;
    /// A question of several parts.
    MultipartRequest = 18 => Part<MultipartRequest>;
    /// Its answer.
    MultipartReply = 19 => Part<MultipartReply>;
    /// Finish all before this, then tell.
    BarrierRequest = 20 => Nothing;
    /// It is finished.
    BarrierReply = 21 => Nothing;
    /// Which role should I have?
    RoleRequest = 24 => RoleRequest;
    /// The role you have.
    RoleReply = 25 => RoleRequest;
    /// Changes a meter.
    MeterMod = 29 => MeterMod;
}

impl Message {
    /// Decodes a message that [`crate::frame::next_frame`] gave. Its version isn't looked at. Payloads are slices of it.
    ///
    /// # Errors
    /// [`DecodeError`] with the place and the reason.
    pub fn decode(frame: &Bytes) -> Result<(Xid, Self), DecodeError> {
        let (_, kind, xid) = header(frame);
        let fail = |offset, reason| DecodeError { message: Self::name_of(kind), offset, reason };
        match Self::parse(kind, &frame[HEADER..], frame) {
            Ok(([], message)) => Ok((Xid(xid), message)),
            Ok((rest, _)) => Err(fail(frame.len() - rest.len(), "and what follows it don't belong to the message")),
            Err(nom::Err::Error(fault) | nom::Err::Failure(fault)) => {
                Err(fail((fault.at.as_ptr() as usize).saturating_sub(frame.as_ptr() as usize), fault.reason))
            }
            Err(nom::Err::Incomplete(_)) => Err(fail(frame.len(), "ends too early")),
        }
    }

    /// Appends the message with its header to `out`. A message is at most 65,535 octets long.
    pub fn encode(&self, xid: Xid, out: &mut BytesMut) {
        let start = out.len();
        out.put_u8(VERSION);
        out.put_u8(self.kind());
        let length = LengthGuard::new(out, start);
        out.put_u32(xid.0);
        self.put(out);
        length.finish(out);
    }
}
