//! The bridge itself: version agreement, features, configuration, role, errors (OpenFlow 1.3.5 §7.3, §7.4.4, §7.5).

use bytes::{BufMut, Bytes, BytesMut};
use nom::number::complete::be_u16;

use crate::types::DatapathId;
use crate::wire::{Parsed, Wire, all, refuse};

/// `ofp_hello`: which versions of OpenFlow the sender speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// Words of the version bitmap: version `n` is bit `n % 32` of word `n / 32`. `None`: no such element was sent.
    pub versions: Option<Vec<u32>>,
}

impl Hello {
    /// The hello of someone who speaks 1.3 only.
    pub fn v13() -> Self {
        Self { versions: Some(vec![1 << crate::frame::VERSION]) }
    }

    /// Does the sender speak 1.3, given the version in the header of its hello (§6.3.1)?
    pub fn speaks_v13(&self, header_version: u8) -> bool {
        match &self.versions {
            Some(words) => words.first().is_some_and(|word| word & (1 << crate::frame::VERSION) != 0),
            None => header_version >= crate::frame::VERSION,
        }
    }
}

const VERSION_BITMAP: u16 = 1;

impl Wire for Hello {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let mut versions = None;
        let mut left = input;
        while !left.is_empty() {
            let (rest, kind) = be_u16(left)?;
            let (rest, length) = be_u16(rest)?;
            let length = usize::from(length);
            if length < 4 || length > left.len() {
                return refuse(left, "is a hello element with a length below 4 or beyond the message");
            }
            if kind == VERSION_BITMAP {
                let (_, words) = all(&rest[..length - 4], u32::parse)?;
                versions.get_or_insert(words);
            }
            // Elements are padded to 8 octets; the last one's padding may be missing.
            left = left.get(length.next_multiple_of(8)..).unwrap_or_default();
        }
        Ok((left, Self { versions }))
    }

    fn put(&self, out: &mut BytesMut) {
        if let Some(words) = &self.versions {
            let start = out.len();
            out.put_u16(VERSION_BITMAP);
            out.put_u16((4 + 4 * words.len()) as u16);
            for word in words {
                out.put_u32(*word);
            }
            crate::wire::pad_to_8(out, start);
        }
    }
}

wire_enum! {
    /// `ofp_error_type`.
    pub enum ErrorType: u16 {
        /// Versions don't agree.
        HelloFailed = 0,
        /// The request wasn't understood.
        BadRequest = 1,
        /// An action isn't right.
        BadAction = 2,
        /// An instruction isn't right.
        BadInstruction = 3,
        /// A match isn't right.
        BadMatch = 4,
        /// A flow-mod failed.
        FlowModFailed = 5,
        /// A group-mod failed.
        GroupModFailed = 6,
        /// A port-mod failed.
        PortModFailed = 7,
        /// A table-mod failed.
        TableModFailed = 8,
        /// A queue operation failed.
        QueueOpFailed = 9,
        /// The configuration can't be set.
        SwitchConfigFailed = 10,
        /// A role request failed.
        RoleRequestFailed = 11,
        /// A meter-mod failed.
        MeterModFailed = 12,
        /// Setting table features failed.
        TableFeaturesFailed = 13,
        /// An error of an extension.
        Experimenter = 0xffff,
    }
}

/// `ofp_error_msg`: a request failed. The transaction id is the request's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorMsg {
    /// What kind of error.
    pub kind: ErrorType,
    /// Which one of that kind; its meaning depends on `kind`.
    pub code: u16,
    /// At least 64 octets of the request, or a text.
    pub data: Bytes,
}

impl ErrorMsg {
    /// `OFPHFC_INCOMPATIBLE`: no version in common.
    pub fn incompatible(text: &'static str) -> Self {
        Self { kind: ErrorType::HelloFailed, code: 0, data: Bytes::from_static(text.as_bytes()) }
    }

    /// `OFPBRC_*` about `request`, of which the first 64 octets are returned.
    pub fn bad_request(code: u16, request: &Bytes) -> Self {
        Self { kind: ErrorType::BadRequest, code, data: request.slice(..request.len().min(64)) }
    }
}

wire_flags! {
    /// `ofp_capabilities`.
    pub struct Capabilities: u32 {
        /// Counts per flow entry.
        FLOW_STATS = 1;
        /// Counts per table.
        TABLE_STATS = 2;
        /// Counts per port.
        PORT_STATS = 4;
        /// Counts per group.
        GROUP_STATS = 8;
        /// Can reassemble IP fragments.
        IP_REASM = 32;
        /// Counts per queue.
        QUEUE_STATS = 64;
        /// Blocks ports on loops by itself.
        PORT_BLOCKED = 256;
    }
}

wire_struct! {
    /// `ofp_switch_features`: which bridge this is.
    pub struct FeaturesReply {
        /// Its datapath id.
        datapath: DatapathId,
        /// Packets it can keep for the controller.
        n_buffers: u32,
        /// Number of its flow tables.
        n_tables: u8,
        /// 0 on the main connection.
        auxiliary_id: u8,
        _ [2],
        /// What it can do.
        capabilities: Capabilities,
        _ [4],
    }
}

wire_struct! {
    /// `ofp_switch_config`.
    pub struct SwitchConfig {
        /// How IP fragments are handled.
        flags: u16,
        /// Octets of a packet-in, where the flow entry doesn't say.
        miss_send_len: u16,
    }
}

wire_enum! {
    /// `ofp_controller_role`.
    pub enum Role: u32 {
        /// A question: the role stays.
        NoChange = 0,
        /// Full access, beside others.
        Equal = 1,
        /// Full access, alone.
        Master = 2,
        /// Read only.
        Slave = 3,
    }
}

wire_struct! {
    /// `ofp_role_request`, request and reply.
    pub struct RoleRequest {
        /// The role.
        role: Role,
        _ [4],
        /// Rises with each change of master; [`RoleRequest::NONE`]: there was none yet.
        generation: u64,
    }
}

impl RoleRequest {
    /// The generation that Open vSwitch tells before any master was.
    pub const NONE: u64 = u64::MAX;
}
