//! Packets on their way to and from the controller (OpenFlow 1.3.5 §7.3.7, §7.4.1).

use bytes::{BufMut, Bytes, BytesMut};
use nom::bytes::complete::take;

use crate::action::Action;
use crate::flow::FlowMod;
use crate::matching::Match;
use crate::types::{Cookie, PortNo, TableId};
use crate::wire::{LengthGuard, Parsed, Wire, pad, refuse};

wire_enum! {
    /// `ofp_packet_in_reason`.
    pub enum PacketInReason: u8 {
        /// A table-miss entry sent it.
        NoMatch = 0,
        /// An action of another entry sent it.
        Action = 1,
        /// Its TTL is used up.
        InvalidTtl = 2,
    }
}

/// `ofp_packet_in`: a packet that a flow entry sent to the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketIn {
    /// The bridge's copy of it; [`FlowMod::NO_BUFFER`]: none.
    pub buffer_id: u32,
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
    pub data: Bytes,
}

impl PacketIn {
    /// Reads the body of a message; `whole` gives the part of it at an input that is left.
    pub(crate) fn parse<'a>(input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self> {
        let (i, buffer_id) = u32::parse(input)?;
        let (i, total_len) = u16::parse(i)?;
        let (i, reason) = PacketInReason::parse(i)?;
        let (i, table) = TableId::parse(i)?;
        let (i, cookie) = Cookie::parse(i)?;
        let (i, matching) = Match::parse(i)?;
        let (i, ()) = pad(i, 2)?;
        Ok((&[], Self { buffer_id, total_len, reason, table, cookie, matching, data: whole.slice_ref(i) }))
    }

    pub(crate) fn put(&self, out: &mut BytesMut) {
        out.put_u32(self.buffer_id);
        out.put_u16(self.total_len);
        self.reason.put(out);
        self.table.put(out);
        self.cookie.put(out);
        self.matching.put(out);
        out.put_u16(0);
        out.put_slice(&self.data);
    }
}

/// `ofp_packet_out`: a packet for the bridge to handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketOut {
    /// The bridge's copy of the packet; [`FlowMod::NO_BUFFER`]: it is in `data`.
    pub buffer_id: u32,
    /// The port it counts as having come in by.
    pub in_port: PortNo,
    /// What is done with it.
    pub actions: Vec<Action>,
    /// The packet.
    pub data: Bytes,
}

impl PacketOut {
    /// A packet of the controller's own, handled by `actions`.
    pub const fn new(actions: Vec<Action>, data: Bytes) -> Self {
        Self { buffer_id: FlowMod::NO_BUFFER, in_port: PortNo::CONTROLLER, actions, data }
    }

    pub(crate) fn parse<'a>(input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self> {
        let (i, buffer_id) = u32::parse(input)?;
        let (i, in_port) = PortNo::parse(i)?;
        let (i, length) = u16::parse(i)?;
        let (i, ()) = pad(i, 6)?;
        if usize::from(length) > i.len() {
            return refuse(i, "has actions beyond the message");
        }
        let (i, actions) = take(length)(i)?;
        let (_, actions) = Action::list(actions)?;
        Ok((&[], Self { buffer_id, in_port, actions, data: whole.slice_ref(i) }))
    }

    pub(crate) fn put(&self, out: &mut BytesMut) {
        out.put_u32(self.buffer_id);
        self.in_port.put(out);
        // The length counts the actions alone: from behind the field and its padding.
        let length = LengthGuard::new(out, out.len() + 8);
        out.put_bytes(0, 6);
        Action::put_list(&self.actions, out);
        length.finish(out);
        out.put_slice(&self.data);
    }
}
