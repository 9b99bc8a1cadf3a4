//! Instructions of flow entries (OpenFlow 1.3.5 §7.2.4).

use bytes::{BufMut, BytesMut};

use crate::action::Action;
use crate::types::{MeterId, TableId};
use crate::wire::{LengthGuard, Parsed, Wire, all, element, pad, refuse};

/// What a flow entry does with the packets that it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Go on in a later table.
    GotoTable(TableId),
    /// Set those bits of the metadata that the mask has.
    WriteMetadata {
        /// The bits.
        metadata: u64,
        /// Which bits are set.
        mask: u64,
    },
    /// Add to the action set, done at the end of the pipeline.
    WriteActions(Vec<Action>),
    /// Do these actions now, in this order.
    ApplyActions(Vec<Action>),
    /// Empty the action set.
    ClearActions,
    /// Pass the packet through a meter, which may drop it.
    Meter(MeterId),
    /// An instruction that has no name here.
    Unknown {
        /// Its number.
        kind: u16,
        /// What follows its length.
        body: Vec<u8>,
    },
}

impl Instruction {
    const fn kind(&self) -> u16 {
        match self {
            Self::GotoTable(_) => 1,
            Self::WriteMetadata { .. } => 2,
            Self::WriteActions(_) => 3,
            Self::ApplyActions(_) => 4,
            Self::ClearActions => 5,
            Self::Meter(_) => 6,
            Self::Unknown { kind, .. } => *kind,
        }
    }

    /// The place in which the specification has it executed (§5.9); readers list instructions in this order.
    pub const fn order(&self) -> u16 {
        match self {
            Self::Meter(_) => 0,
            Self::ApplyActions(_) => 1,
            Self::ClearActions => 2,
            Self::WriteActions(_) => 3,
            Self::WriteMetadata { .. } => 4,
            Self::GotoTable(_) => 5,
            Self::Unknown { kind, .. } => *kind,
        }
    }

    /// Instructions until the end of `input`.
    pub(crate) fn list(input: &[u8]) -> Parsed<'_, Vec<Self>> {
        all(input, Self::parse)
    }
}

impl Wire for Instruction {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (rest, (kind, body)) = element(input, 4)?;
        let fixed = match kind {
            1 => Some(4),
            2 => Some(20),
            6 => Some(4),
            _ => None,
        };
        if fixed.is_some_and(|length| length != body.len()) {
            return refuse(input, "is an instruction of a length that isn't its type's");
        }
        let instruction = match kind {
            1 => Self::GotoTable(TableId::parse(body)?.1),
            2 => {
                let (body, ()) = pad(body, 4)?;
                let (body, metadata) = u64::parse(body)?;
                Self::WriteMetadata { metadata, mask: u64::parse(body)?.1 }
            }
            3..=5 => {
                let (body, ()) = pad(body, 4)?;
                let (_, actions) = Action::list(body)?;
                match kind {
                    3 => Self::WriteActions(actions),
                    4 => Self::ApplyActions(actions),
                    _ => Self::ClearActions,
                }
            }
            6 => Self::Meter(MeterId::parse(body)?.1),
            _ => Self::Unknown { kind, body: body.to_vec() },
        };
        Ok((rest, instruction))
    }

    fn put(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u16(self.kind());
        let length = LengthGuard::new(out, start);
        match self {
            Self::GotoTable(table) => {
                table.put(out);
                out.put_bytes(0, 3);
            }
            Self::WriteMetadata { metadata, mask } => {
                out.put_u32(0);
                out.put_u64(*metadata);
                out.put_u64(*mask);
            }
            Self::WriteActions(actions) | Self::ApplyActions(actions) => {
                out.put_u32(0);
                Action::put_list(actions, out);
            }
            Self::ClearActions => out.put_u32(0),
            Self::Meter(meter) => meter.put(out),
            Self::Unknown { body, .. } => out.put_slice(body),
        }
        length.finish(out);
    }
}
