//! Flow entries: changing them, and the notice of their removal (OpenFlow 1.3.5 §7.3.4.2, §7.4.2).

use bytes::{BufMut, BytesMut};

use crate::instruction::Instruction;
use crate::matching::Match;
use crate::types::{Cookie, GroupId, PortNo, TableId};
use crate::wire::{Parsed, Wire, pad};

wire_enum! {
    /// `ofp_flow_mod_command`.
    pub enum FlowModCommand: u8 {
        /// Add an entry, in place of one with the same match and priority.
        Add = 0,
        /// Change the instructions of all entries that the match covers.
        Modify = 1,
        /// Change the instructions of the one entry with this match and priority.
        ModifyStrict = 2,
        /// Remove all entries that the match covers.
        Delete = 3,
        /// Remove the one entry with this match and priority.
        DeleteStrict = 4,
    }
}

wire_flags! {
    /// `ofp_flow_mod_flags`.
    pub struct FlowModFlags: u16 {
        /// Tell when the entry is removed.
        SEND_FLOW_REM = 1;
        /// Refuse an entry that overlaps another of its priority.
        CHECK_OVERLAP = 2;
        /// Begin counting anew.
        RESET_COUNTS = 4;
        /// Don't count packets.
        NO_PKT_COUNTS = 8;
        /// Don't count bytes.
        NO_BYT_COUNTS = 16;
    }
}

/// `ofp_flow_mod`: adds, changes or removes flow entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowMod {
    /// Mark of the entry; in a change or removal the value that the entries' cookies must have under the mask.
    pub cookie: Cookie,
    /// Which bits of the cookie restrict a change or removal; 0: none.
    pub cookie_mask: u64,
    /// The entry's table.
    pub table: TableId,
    /// What to do.
    pub command: FlowModCommand,
    /// Seconds without a packet after which the entry goes; 0: never.
    pub idle_timeout: u16,
    /// Seconds after which the entry goes; 0: never.
    pub hard_timeout: u16,
    /// Higher wins.
    pub priority: u16,
    /// A packet kept by the bridge, to be handled by the entry; [`FlowMod::NO_BUFFER`]: none.
    pub buffer_id: u32,
    /// Restricts a removal to entries that send to this port.
    pub out_port: PortNo,
    /// Restricts a removal to entries that send to this group.
    pub out_group: GroupId,
    /// How the entry behaves.
    pub flags: FlowModFlags,
    /// Which packets.
    pub matching: Match,
    /// What is done with them.
    pub instructions: Vec<Instruction>,
}

impl FlowMod {
    /// `OFP_NO_BUFFER`.
    pub const NO_BUFFER: u32 = 0xffff_ffff;
}

impl Wire for FlowMod {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (i, cookie) = Cookie::parse(input)?;
        let (i, cookie_mask) = u64::parse(i)?;
        let (i, table) = TableId::parse(i)?;
        let (i, command) = FlowModCommand::parse(i)?;
        let (i, idle_timeout) = u16::parse(i)?;
        let (i, hard_timeout) = u16::parse(i)?;
        let (i, priority) = u16::parse(i)?;
        let (i, buffer_id) = u32::parse(i)?;
        let (i, out_port) = PortNo::parse(i)?;
        let (i, out_group) = GroupId::parse(i)?;
        let (i, flags) = FlowModFlags::parse(i)?;
        let (i, ()) = pad(i, 2)?;
        let (i, matching) = Match::parse(i)?;
        let (i, instructions) = Instruction::list(i)?;
        Ok((
            i,
            Self {
                cookie,
                cookie_mask,
                table,
                command,
                idle_timeout,
                hard_timeout,
                priority,
                buffer_id,
                out_port,
                out_group,
                flags,
                matching,
                instructions,
            },
        ))
    }

    fn put(&self, out: &mut BytesMut) {
        self.cookie.put(out);
        out.put_u64(self.cookie_mask);
        self.table.put(out);
        self.command.put(out);
        out.put_u16(self.idle_timeout);
        out.put_u16(self.hard_timeout);
        out.put_u16(self.priority);
        out.put_u32(self.buffer_id);
        self.out_port.put(out);
        self.out_group.put(out);
        self.flags.put(out);
        out.put_u16(0);
        self.matching.put(out);
        for instruction in &self.instructions {
            instruction.put(out);
        }
    }
}

wire_enum! {
    /// `ofp_flow_removed_reason`.
    pub enum FlowRemovedReason: u8 {
        /// No packet for its idle timeout.
        IdleTimeout = 0,
        /// Its hard timeout.
        HardTimeout = 1,
        /// A flow-mod.
        Delete = 2,
        /// Its group went.
        GroupDelete = 3,
    }
}

/// `ofp_flow_removed`: an entry that asked for it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRemoved {
    /// The entry's mark.
    pub cookie: Cookie,
    /// The entry's priority.
    pub priority: u16,
    /// Why it went.
    pub reason: FlowRemovedReason,
    /// The entry's table.
    pub table: TableId,
    /// Seconds it lived.
    pub duration_sec: u32,
    /// Nanoseconds beyond those seconds.
    pub duration_nsec: u32,
    /// Its idle timeout, seconds.
    pub idle_timeout: u16,
    /// Its hard timeout, seconds.
    pub hard_timeout: u16,
    /// Packets it matched.
    pub packet_count: u64,
    /// Octets of those packets.
    pub byte_count: u64,
    /// Which packets it matched.
    pub matching: Match,
}

impl Wire for FlowRemoved {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (i, cookie) = Cookie::parse(input)?;
        let (i, priority) = u16::parse(i)?;
        let (i, reason) = FlowRemovedReason::parse(i)?;
        let (i, table) = TableId::parse(i)?;
        let (i, duration_sec) = u32::parse(i)?;
        let (i, duration_nsec) = u32::parse(i)?;
        let (i, idle_timeout) = u16::parse(i)?;
        let (i, hard_timeout) = u16::parse(i)?;
        let (i, packet_count) = u64::parse(i)?;
        let (i, byte_count) = u64::parse(i)?;
        let (i, matching) = Match::parse(i)?;
        Ok((
            i,
            Self {
                cookie,
                priority,
                reason,
                table,
                duration_sec,
                duration_nsec,
                idle_timeout,
                hard_timeout,
                packet_count,
                byte_count,
                matching,
            },
        ))
    }

    fn put(&self, out: &mut BytesMut) {
        self.cookie.put(out);
        out.put_u16(self.priority);
        self.reason.put(out);
        self.table.put(out);
        out.put_u32(self.duration_sec);
        out.put_u32(self.duration_nsec);
        out.put_u16(self.idle_timeout);
        out.put_u16(self.hard_timeout);
        out.put_u64(self.packet_count);
        out.put_u64(self.byte_count);
        self.matching.put(out);
    }
}
