//! Multipart messages: questions and answers that may span several messages (OpenFlow 1.3.5 §7.3.5), and putting the parts
//! together.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use crate::experimenter::{ExperimenterReply, ExperimenterRequest};
use crate::flow::{AggregateStats, FlowStats, FlowStatsRequest};
use crate::group::{GroupDesc, GroupFeatures, GroupStats, GroupStatsRequest};
use crate::meter::{MeterConfig, MeterFeatures, MeterRequest, MeterStats};
use crate::port::{Port, PortStats, PortStatsRequest, QueueStats, QueueStatsRequest};
use crate::switch::Desc;
use crate::table::{TableFeatures, TableStats};
use crate::types::Xid;
use crate::wire::{Body, Nothing, Parsed, Payload, Wire, pad, read};

/// What may be told in parts, or in one piece only.
pub trait Join {
    /// Adds a later part. `false`: there can't be one.
    fn join(&mut self, later: Self) -> bool;
}
impl<T> Join for Vec<T> {
    fn join(&mut self, later: Self) -> bool {
        self.extend(later);
        true
    }
}
macro_rules! whole {
    ($($ty:ty),*) => { $(impl Join for $ty { fn join(&mut self, _: Self) -> bool { false } })* };
}
whole! {
    Nothing, Box<Desc>, FlowStatsRequest, AggregateStats, GroupStatsRequest, GroupFeatures, MeterRequest, MeterFeatures,
    PortStatsRequest, QueueStatsRequest, ExperimenterRequest
}
impl Join for ExperimenterReply {
    fn join(&mut self, later: Self) -> bool {
        match (self, later) {
            (Self::FlowMonitor(updates), Self::FlowMonitor(more)) => updates.join(more),
            _ => false,
        }
    }
}

/// One row per kind of multipart message: its number, the body of the request, the body of the reply.
macro_rules! multiparts {
    ($($(#[$meta:meta])* $variant:ident = $kind:literal: $request:ty => $reply:ty;)+) => {
        multiparts! { @enum
            /// `ofp_multipart_request`, a whole one or a part.
            MultipartRequest, $($(#[$meta])* $variant = $kind: $request;)+ }
        multiparts! { @enum
            /// `ofp_multipart_reply`, a whole one or a part.
            MultipartReply, $($(#[$meta])* $variant = $kind: $reply;)+ }
    };
    (@enum $(#[$outer:meta])* $name:ident, $($(#[$meta:meta])* $variant:ident = $kind:literal: $body:ty;)+) => {
        $(#[$outer])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
        pub enum $name {
            $($(#[$meta])* $variant($body),)+
            /// A kind that has no name here: its number and body.
            Unknown {
                /// Its number.
                kind: u16,
                /// What it says.
                data: Payload,
            },
        }
        impl $name {
            /// Every kind's number and name.
            pub const KINDS: &'static [(u16, &'static str)] = &[$(($kind, stringify!($variant))),+];

            /// Its number.
            pub const fn kind(&self) -> u16 {
                match self { $(Self::$variant(_) => $kind,)+ Self::Unknown { kind, .. } => *kind }
            }

            fn parse<'a>(kind: u16, input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self> {
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
        impl Join for $name {
            fn join(&mut self, later: Self) -> bool {
                match (self, later) {
                    $((Self::$variant(body), Self::$variant(more)) => body.join(more),)+
                    _ => false,
                }
            }
        }
    };
}

multiparts! {
    /// Who made the bridge.
    Desc = 0: Nothing => Box<Desc>;
    /// Flow entries.
    Flow = 1: FlowStatsRequest => Vec<FlowStats>;
    /// Sums over flow entries.
    Aggregate = 2: FlowStatsRequest => AggregateStats;
    /// Counters of flow tables.
    Table = 3: Nothing => Vec<TableStats>;
    /// Counters of ports.
    PortStats = 4: PortStatsRequest => Vec<PortStats>;
    /// Counters of queues.
    Queue = 5: QueueStatsRequest => Vec<QueueStats>;
    /// Counters of groups.
    Group = 6: GroupStatsRequest => Vec<GroupStats>;
    /// Groups.
    GroupDesc = 7: Nothing => Vec<GroupDesc>;
    /// What groups can do.
    GroupFeatures = 8: Nothing => GroupFeatures;
    /// Counters of meters.
    Meter = 9: MeterRequest => Vec<MeterStats>;
    /// Meters.
    MeterConfig = 10: MeterRequest => Vec<MeterConfig>;
    /// What meters can do.
    MeterFeatures = 11: Nothing => MeterFeatures;
    /// What flow tables can do; a request with a body sets it.
    TableFeatures = 12: Vec<TableFeatures> => Vec<TableFeatures>;
    /// Ports.
    PortDesc = 13: Nothing => Vec<Port>;
    /// Something of an extension.
    Experimenter = 0xffff: ExperimenterRequest => ExperimenterReply;
}

wire_flags! {
    /// `ofp_multipart_request_flags` and `ofp_multipart_reply_flags`.
    pub struct MultipartFlags: u16 {
        /// Another message with the same transaction id continues this one.
        MORE = 1;
    }
}

/// A multipart message: all there is, or a part.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Part<T> {
    /// Does more follow?
    pub flags: MultipartFlags,
    /// What is in this one.
    pub body: T,
}

impl<T> Part<T> {
    /// All of it in one message, or the last part.
    pub const fn whole(body: T) -> Self {
        Self { flags: MultipartFlags::empty(), body }
    }

    /// A part that others follow.
    pub const fn begun(body: T) -> Self {
        Self { flags: MultipartFlags::MORE, body }
    }

    /// Does another message continue it?
    pub const fn more(&self) -> bool {
        self.flags.contains(MultipartFlags::MORE)
    }
}

macro_rules! part {
    ($($ty:ty),*) => { $(impl Body for Part<$ty> {
        fn parse_body<'a>(input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self> {
            let (i, kind) = u16::parse(input)?;
            let (i, flags) = read(i, "flags")?;
            let (i, ()) = pad(i, 4)?;
            let (i, body) = <$ty>::parse(kind, i, whole)?;
            Ok((i, Self { flags, body }))
        }
        fn put_body(&self, out: &mut BytesMut) {
            out.put_u16(self.body.kind());
            self.flags.put(out);
            out.put_u32(0);
            self.body.put(out);
        }
    })* };
}
part! { MultipartRequest, MultipartReply }

/// Puts the parts of replies together, or of requests, by their transaction ids, and bounds what it keeps.
#[derive(Debug)]
pub struct Reassembly<T> {
    max_octets: usize,
    octets: usize,
    begun: BTreeMap<Xid, (T, usize)>,
}

/// Why a part was dropped, and with it what had come of its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReassemblyError {
    /// More than may be kept.
    #[error("the replies that aren't complete take more than {0} octets")]
    TooLong(usize),
    /// It doesn't go with the parts before.
    #[error("a part isn't of the same kind as those before, or of a kind that has no parts")]
    Mixed,
}

impl<T: Join> Reassembly<T> {
    /// Keeps at most so many octets of messages that aren't complete.
    pub const fn new(max_octets: usize) -> Self {
        Self { max_octets, octets: 0, begun: BTreeMap::new() }
    }

    /// A part has come, in a message of so many octets. Gives the whole with its last part.
    ///
    /// # Errors
    /// [`ReassemblyError`]; what had come of it is forgotten.
    pub fn part(&mut self, xid: Xid, part: Part<T>, octets: usize) -> Result<Option<T>, ReassemblyError> {
        let more = part.more();
        let (whole, before) = match self.begun.remove(&xid) {
            None => (part.body, 0),
            Some((mut begun, before)) => {
                self.octets -= before;
                if !begun.join(part.body) {
                    return Err(ReassemblyError::Mixed);
                }
                (begun, before)
            }
        };
        if !more {
            return Ok(Some(whole));
        }
        if self.octets + before + octets > self.max_octets {
            return Err(ReassemblyError::TooLong(self.max_octets));
        }
        self.octets += before + octets;
        self.begun.insert(xid, (whole, before + octets));
        Ok(None)
    }

    /// Octets of messages that are kept.
    pub const fn octets(&self) -> usize {
        self.octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::TableStats;
    use crate::types::TableId;

    fn table(n: u8, more: bool) -> Part<MultipartReply> {
        let stats = TableStats { table: TableId(n), active_count: 0, lookup_count: 0, matched_count: 0 };
        let body = MultipartReply::Table(vec![stats]);
        if more { Part::begun(body) } else { Part::whole(body) }
    }

    #[test]
    fn parts_of_several_replies_come_together_by_their_transaction_ids() {
        let mut reassembly = Reassembly::new(1000);
        assert_eq!(reassembly.part(Xid(1), table(1, true), 40), Ok(None));
        assert_eq!(reassembly.part(Xid(2), table(9, true), 40), Ok(None));
        assert_eq!(reassembly.part(Xid(1), table(2, true), 40), Ok(None));
        assert_eq!(reassembly.octets(), 120);
        let Ok(Some(MultipartReply::Table(tables))) = reassembly.part(Xid(1), table(3, false), 40) else { panic!() };
        assert_eq!(tables.iter().map(|stats| stats.table.0).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(reassembly.octets(), 40);
    }

    #[test]
    fn what_is_kept_is_bounded_and_nonsense_is_forgotten() {
        let mut reassembly = Reassembly::new(100);
        assert_eq!(reassembly.part(Xid(1), table(1, true), 60), Ok(None));
        assert_eq!(reassembly.part(Xid(2), table(1, true), 60), Err(ReassemblyError::TooLong(100)));
        assert_eq!(reassembly.part(Xid(1), table(1, true), 60), Err(ReassemblyError::TooLong(100)));
        assert_eq!(reassembly.octets(), 0, "the reply that grew too long is gone");
        assert_eq!(reassembly.part(Xid(1), table(1, true), 60), Ok(None));
        let mixed = Part::whole(MultipartReply::PortDesc(Vec::new()));
        assert_eq!(reassembly.part(Xid(1), mixed, 16), Err(ReassemblyError::Mixed));
        assert_eq!(reassembly.octets(), 0);
    }
}
