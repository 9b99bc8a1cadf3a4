//! Whole messages: the table of all types, decoding and encoding (OpenFlow 1.3.5 §7.1).

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::ErrorMsg;
use crate::experimenter::Experimenter;
use crate::flow::{FlowMod, FlowRemoved};
use crate::frame::{HEADER, VERSION, header};
use crate::group::GroupMod;
use crate::meter::MeterMod;
use crate::multipart::{MultipartReply, MultipartRequest, Part};
use crate::packet::{PacketIn, PacketOut};
use crate::port::{PortMod, PortStatus, QueueGetConfigReply, QueueGetConfigRequest};
use crate::switch::{AsyncConfig, FeaturesReply, Hello, RoleRequest, SwitchConfig};
use crate::table::TableMod;
use crate::types::Xid;
use crate::wire::{Body, LengthGuard, Nothing, Parsed, Payload, refuse};

/// A message that can't be decoded. Nothing of it was used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[error("{message} is malformed: octet {offset}{} {reason}", In(field))]
pub struct DecodeError {
    /// Name of the message type.
    pub message: &'static str,
    /// First offending octet, counted from the start of the message's header.
    pub offset: usize,
    /// The field that holds it, like `instructions.ApplyActions.SetField.vlan_vid`; empty if none does.
    pub field: String,
    /// What is wrong there.
    pub reason: &'static str,
}

/// Most octets of a message: its length has 16 bits.
const OCTETS_MAX: usize = 0xffff;

/// A message that doesn't fit into one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} would take {octets} octets, and no message has more than {OCTETS_MAX}")]
pub struct TooLong {
    /// Name of the message type.
    pub message: &'static str,
    /// How long it would be.
    pub octets: usize,
}

struct In<'a>(&'a str);

impl fmt::Display for In<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ", in {},", self.0) }
    }
}

/// One row per message type: its number and its body.
macro_rules! messages {
    ($($(#[$meta:meta])* $variant:ident = $kind:literal => $body:ty;)+) => {
        /// A message, without its header.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case", tag = "type", content = "body"))]
        pub enum Message {
            $($(#[$meta])* $variant($body),)+
            /// A type that has no name here.
            Unknown {
                /// Its number.
                kind: u8,
                /// What it says.
                data: Payload,
            },
        }

        impl Message {
            /// Every type's number and name.
            pub const KINDS: &'static [(u8, &'static str)] = &[$(($kind, stringify!($variant))),+];

            /// Its type's number.
            pub const fn kind(&self) -> u8 {
                match self { $(Self::$variant(_) => $kind,)+ Self::Unknown { kind, .. } => *kind }
            }

            /// Its type's name.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($variant),)+ Self::Unknown { .. } => "Unknown" }
            }

            /// The name of a type by its number.
            pub const fn name_of(kind: u8) -> &'static str {
                match kind { $($kind => stringify!($variant),)+ _ => "Unknown" }
            }

            pub(crate) fn parse<'a>(kind: u8, input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self> {
                match kind {
                    $($kind => {
                        let (rest, body) = <$body as Body>::parse_body(input, whole)?;
                        Ok((rest, Self::$variant(body)))
                    })+
                    _ => Ok((&[], Self::Unknown { kind, data: Payload(whole.slice_ref(input)) })),
                }
            }

            fn put(&self, out: &mut BytesMut) {
                match self { $(Self::$variant(body) => Body::put_body(body, out),)+ Self::Unknown { data, .. } => data.put_body(out) }
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
    EchoRequest = 2 => Payload;
    /// I am: the request's body.
    EchoReply = 3 => Payload;
    /// Something of an extension.
    Experimenter = 4 => Experimenter;
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
    /// Changes a port.
    PortMod = 16 => PortMod;
    /// Changes a flow table.
    TableMod = 17 => TableMod;
    /// A question that may have several parts.
    MultipartRequest = 18 => Part<MultipartRequest>;
    /// Its answer, which may have several parts.
    MultipartReply = 19 => Part<MultipartReply>;
    /// Finish all before this, then tell.
    BarrierRequest = 20 => Nothing;
    /// It is finished.
    BarrierReply = 21 => Nothing;
    /// Which queues has a port?
    QueueGetConfigRequest = 22 => QueueGetConfigRequest;
    /// These.
    QueueGetConfigReply = 23 => QueueGetConfigReply;
    /// The role I want.
    RoleRequest = 24 => RoleRequest;
    /// The role you have.
    RoleReply = 25 => RoleRequest;
    /// What do you tell me unasked?
    GetAsyncRequest = 26 => Nothing;
    /// This.
    GetAsyncReply = 27 => AsyncConfig;
    /// Tell me this unasked.
    SetAsync = 28 => AsyncConfig;
    /// Changes a meter.
    MeterMod = 29 => MeterMod;
}

impl Message {
    /// The type of [`Message::Experimenter`].
    pub(crate) const EXPERIMENTER: u8 = 4;

    /// Decodes a message that [`crate::frame::next_frame`] gave: all of `frame`, whatever its header says of version and
    /// length. Payloads are slices of it.
    ///
    /// # Errors
    /// [`DecodeError`] with the place and the reason.
    pub fn decode(frame: &Bytes) -> Result<(Xid, Self), DecodeError> {
        if frame.len() < HEADER {
            let reason = "ends within the header";
            return Err(DecodeError { message: "Message", offset: frame.len(), field: String::new(), reason });
        }
        let (_, kind, xid) = header(frame);
        let fail = |offset, field, reason| DecodeError { message: Self::name_of(kind), offset, field, reason };
        match Self::parse_whole(kind, &frame[HEADER..], frame) {
            Ok((_, message)) => Ok((Xid(xid), message)),
            Err(nom::Err::Error(fault) | nom::Err::Failure(fault)) => {
                let offset = (fault.at.as_ptr() as usize).saturating_sub(frame.as_ptr() as usize);
                Err(fail(offset, fault.field(), fault.reason))
            }
            Err(nom::Err::Incomplete(_)) => Err(fail(frame.len(), String::new(), "ends too early")),
        }
    }

    /// Reads a body that has to be used up.
    pub(crate) fn parse_whole<'a>(kind: u8, input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self> {
        let (rest, message) = Self::parse(kind, input, whole)?;
        if rest.is_empty() {
            Ok((rest, message))
        } else {
            refuse(rest, "and what follows it don't belong to the message")
        }
    }

    /// Appends the message with its header to `out`.
    ///
    /// # Errors
    /// [`TooLong`]; `out` is as it was.
    pub fn encode(&self, xid: Xid, out: &mut BytesMut) -> Result<(), TooLong> {
        let start = out.len();
        self.write(xid, out);
        let octets = out.len() - start;
        if octets > OCTETS_MAX {
            out.truncate(start);
            return Err(TooLong { message: self.name(), octets });
        }
        Ok(())
    }

    /// The same, within a message that is checked as a whole: no length in it is right if that one is too great.
    pub(crate) fn write(&self, xid: Xid, out: &mut BytesMut) {
        let start = out.len();
        out.put_u8(VERSION);
        out.put_u8(self.kind());
        let length = LengthGuard::new(out, start);
        out.put_u32(xid.0);
        self.put(out);
        length.finish(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experimenter::{BundleAdd, BundleFlags};

    #[test]
    fn a_message_that_does_not_fit_leaves_nothing_behind() {
        let echo = |octets: usize| Message::EchoRequest(vec![0; octets].into());
        let mut out = BytesMut::from(&b"before"[..]);
        assert_eq!(echo(65_527).encode(Xid(1), &mut out), Ok(()));
        out.truncate(6);
        let told = echo(70_000).encode(Xid(1), &mut out).unwrap_err();
        assert_eq!((told.octets, &out[..]), (70_008, &b"before"[..]));
        // Nor within another, whose own length would come round.
        let flags = BundleFlags::empty();
        let add = |octets| {
            Experimenter::BundleAdd(BundleAdd {
                bundle: 1,
                flags,
                xid: Xid(1),
                message: Box::new(echo(octets)),
                properties: Payload::default(),
            })
        };
        assert!(Message::Experimenter(add(131_072)).encode(Xid(1), &mut out).is_err());
        assert_eq!(&out[..], b"before");
        assert!(Message::Experimenter(add(100)).encode(Xid(1), &mut out).is_ok());
    }
}
