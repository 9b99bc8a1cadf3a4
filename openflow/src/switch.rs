//! The bridge itself: version agreement, features, configuration, role, what it tells unasked (OpenFlow 1.3.5 §7.3.1,
//! §7.3.2, §7.3.9, §7.3.10, §7.5.1).

use bytes::BytesMut;

use crate::types::DatapathId;
use crate::wire::{Octets, Parsed, Text, Wire, element};

wire_elements! {
    /// `ofp_hello_elem_header`. Each is padded to 8 octets; the last one's padding may be missing.
    pub enum HelloElement: min 4, EightIfAny {
        /// Which versions the sender speaks: version `n` is bit `n % 32` of word `n / 32`.
        VersionBitmap = 1 (Vec<u32>) pad 0, 0;
    }
}

/// `ofp_hello`: which versions of OpenFlow the sender speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Hello {
    /// What it says beside the version in its header. A bitmap that isn't whole words is [`HelloElement::Unknown`].
    pub elements: Vec<HelloElement>,
    /// What follows the elements and is none: a text, say. It is kept, and means nothing.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Octets::is_empty"))]
    pub rest: Octets,
}

impl Hello {
    /// The hello of someone with this version bitmap; `None`: without one.
    pub fn with_versions(bitmap: Option<Vec<u32>>) -> Self {
        Self { elements: bitmap.into_iter().map(HelloElement::VersionBitmap).collect(), rest: Octets::default() }
    }

    /// The hello of someone who speaks 1.3 only.
    pub fn v13() -> Self {
        Self::with_versions(Some(vec![1 << crate::frame::VERSION]))
    }

    /// Does the sender speak 1.3, given the version in the header of its hello (§6.3.1)? Its first bitmap says so; where there
    /// is none that can be read, its header does.
    pub fn speaks_v13(&self, header_version: u8) -> bool {
        let bitmap = self.elements.iter().find_map(|element| match element {
            HelloElement::VersionBitmap(words) => Some(words),
            HelloElement::Unknown { .. } => None,
        });
        match bitmap {
            Some(words) => words.first().is_some_and(|word| word & (1 << crate::frame::VERSION) != 0),
            None => header_version >= crate::frame::VERSION,
        }
    }
}

/// Never fails: a receiver has to be ready for hellos that say more than it knows, of other versions too (§7.5.1).
impl Wire for Hello {
    fn parse(mut input: &[u8]) -> Parsed<'_, Self> {
        let mut elements = Vec::new();
        while !input.is_empty() {
            input = match (HelloElement::parse(input), element(input, 4)) {
                (Ok((rest, element)), _) => {
                    elements.push(element);
                    rest
                }
                (Err(_), Ok((_, (kind, body)))) => {
                    elements.push(HelloElement::Unknown { kind, body: Octets(body.to_vec()) });
                    &input[(4 + body.len()).next_multiple_of(8).min(input.len())..]
                }
                (Err(_), Err(_)) => break,
            };
        }
        Ok((&[], Self { elements, rest: Octets(input.to_vec()) }))
    }
    fn put(&self, out: &mut BytesMut) {
        self.elements.put(out);
        self.rest.put(out);
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

wire_flags! {
    /// `ofp_config_flags`: how IP fragments are handled. Both flags: as Open vSwitch's `nx-match`.
    pub struct ConfigFlags: u16 {
        /// Dropped.
        FRAG_DROP = 1;
        /// Reassembled.
        FRAG_REASM = 2;
    }
}

wire_struct! {
    /// `ofp_switch_config`.
    pub struct SwitchConfig {
        /// How IP fragments are handled.
        flags: ConfigFlags,
        /// Octets of a packet-in, where the flow entry doesn't say.
        miss_send_len: u16,
    }
}

wire_struct! {
    /// `ofp_desc` (§7.3.5.1): who made the bridge.
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

wire_flags! {
    /// Reasons of packet-ins: bit n is reason n.
    pub struct PacketInReasons: u32 {
        /// A table-miss entry sent it.
        NO_MATCH = 1;
        /// An action of another entry sent it.
        ACTION = 2;
        /// Its TTL is used up.
        INVALID_TTL = 4;
    }
}

wire_flags! {
    /// Reasons of port notices: bit n is reason n.
    pub struct PortReasons: u32 {
        /// A new port.
        ADD = 1;
        /// The port is gone.
        DELETE = 2;
        /// Something about it changed.
        MODIFY = 4;
    }
}

wire_flags! {
    /// Reasons of the removal of flow entries: bit n is reason n.
    pub struct FlowRemovedReasons: u32 {
        /// No packet for its idle timeout.
        IDLE_TIMEOUT = 1;
        /// Its hard timeout.
        HARD_TIMEOUT = 2;
        /// A flow-mod.
        DELETE = 4;
        /// Its group went.
        GROUP_DELETE = 8;
        /// Its meter went (1.4; Open vSwitch says [`Self::DELETE`] in 1.3).
        METER_DELETE = 16;
        /// It was evicted (1.4; Open vSwitch has it in 1.3 too).
        EVICTION = 32;
    }
}

wire_struct! {
    /// `ofp_async_config`: what the bridge tells a controller unasked, by its role.
    pub struct AsyncConfig {
        /// Packet-ins to a master or equal.
        packet_in: PacketInReasons,
        /// Packet-ins to a slave.
        packet_in_slave: PacketInReasons,
        /// Port notices to a master or equal.
        port_status: PortReasons,
        /// Port notices to a slave.
        port_status_slave: PortReasons,
        /// Removals to a master or equal.
        flow_removed: FlowRemovedReasons,
        /// Removals to a slave.
        flow_removed_slave: FlowRemovedReasons,
    }
}
