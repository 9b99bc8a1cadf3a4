//! Packets on their way to and from the controller (OpenFlow 1.3.5 §7.3.7, §7.4.1).

use bytes::{BufMut, Bytes, BytesMut};

use crate::action::Action;
use crate::matching::Match;
use crate::types::{BufferId, Cookie, PortNo, TableId};
use crate::wire::{Body, LengthGuard, Parsed, Payload, Wire, pad, read, refuse, take};

wire_enum! {
    /// `ofp_packet_in_reason`.
    pub enum PacketInReason: u8 {
        /// A table-miss entry sent it.
        NoMatch = 0,
        /// An action of another entry sent it.
        Action = 1,
        /// Its TTL is used up.
        InvalidTtl = 2,
        /// Its action set sent it (1.4; Open vSwitch gives it in 1.3 if asked to).
        ActionSet = 3,
        /// A bucket sent it (1.4).
        Group = 4,
        /// A packet-out sent it (1.4).
        PacketOut = 5,
    }
}

/// `ofp_packet_in`: a packet that a flow entry sent to the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PacketIn {
    /// The bridge's copy of it; [`BufferId::NONE`]: none.
    pub buffer_id: BufferId,
    /// Octets of the packet.
    pub total_len: u16,
    /// Why it was sent.
    pub reason: PacketInReason,
    /// Table of the flow entry.
    pub table: TableId,
    /// Cookie of the flow entry.
    pub cookie: Cookie,
    /// Where it came in: port, tunnel key, metadata.
    pub matching: Match,
    /// The packet, a slice of the message.
    pub data: Payload,
}

impl Body for PacketIn {
    fn parse_body<'a>(input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self> {
        let (i, buffer_id) = read(input, "buffer_id")?;
        let (i, total_len) = read(i, "total_len")?;
        let (i, reason) = read(i, "reason")?;
        let (i, table) = read(i, "table")?;
        let (i, cookie) = read(i, "cookie")?;
        let (i, matching) = read(i, "matching")?;
        let (i, ()) = pad(i, 2)?;
        Ok((&[], Self { buffer_id, total_len, reason, table, cookie, matching, data: Payload(whole.slice_ref(i)) }))
    }

    fn put_body(&self, out: &mut BytesMut) {
        self.buffer_id.put(out);
        out.put_u16(self.total_len);
        self.reason.put(out);
        self.table.put(out);
        self.cookie.put(out);
        self.matching.put(out);
        out.put_u16(0);
        self.data.put_body(out);
    }
}

/// `ofp_packet_out`: a packet for the bridge to handle.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PacketOut {
    /// The bridge's copy of the packet; [`BufferId::NONE`]: it is in `data`.
    pub buffer_id: BufferId,
    /// The port it counts as having come in by.
    pub in_port: PortNo,
    /// What is done with it.
    pub actions: Vec<Action>,
    /// The packet.
    pub data: Payload,
}

impl PacketOut {
    /// A packet of the controller's own, handled by `actions`.
    pub const fn new(actions: Vec<Action>, data: Bytes) -> Self {
        Self { buffer_id: BufferId::NONE, in_port: PortNo::CONTROLLER, actions, data: Payload(data) }
    }
}

impl Body for PacketOut {
    fn parse_body<'a>(input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self> {
        let (i, buffer_id) = read(input, "buffer_id")?;
        let (i, in_port) = read(i, "in_port")?;
        let (i, length) = read::<u16>(i, "length")?;
        let (i, ()) = pad(i, 6)?;
        if usize::from(length) > i.len() {
            return refuse(i, "has actions beyond the message");
        }
        let (i, actions) = take(i, length.into())?;
        let (_, actions) = read(actions, "actions")?;
        Ok((&[], Self { buffer_id, in_port, actions, data: Payload(whole.slice_ref(i)) }))
    }

    fn put_body(&self, out: &mut BytesMut) {
        self.buffer_id.put(out);
        self.in_port.put(out);
        // The length counts the actions alone: from behind the field and its padding.
        let length = LengthGuard::new(out, out.len() + 8);
        out.put_bytes(0, 6);
        self.actions.put(out);
        length.finish(out);
        self.data.put_body(out);
    }
}
