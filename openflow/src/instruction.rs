//! Instructions of flow entries (OpenFlow 1.3.5 §7.2.4).

use std::fmt;

use crate::action::Action;
use crate::types::{MeterId, TableId};

wire_elements! {
    /// What a flow entry does with the packets that it matches.
    pub enum Instruction: min 4, None {
        /// Go on in a later table.
        GotoTable = 1 (TableId) pad 0, 3;
        /// Set those bits of the metadata that the mask has.
        WriteMetadata = 2 {
            /// The bits.
            metadata: u64,
            /// Which bits are set.
            mask: u64,
        } pad 4, 0;
        /// Add to the action set, done at the end of the pipeline.
        WriteActions = 3 (Vec<Action>) pad 4, 0;
        /// Do these actions now, in this order.
        ApplyActions = 4 (Vec<Action>) pad 4, 0;
        /// Empty the action set.
        ClearActions = 5 {} pad 0, 4;
        /// Pass the packet through a meter, which may drop it.
        Meter = 6 (MeterId) pad 0, 0;
    }
}

impl Instruction {
    /// The place in which the specification has it executed (§5.9); readers list instructions in this order.
    pub const fn order(&self) -> u16 {
        match self {
            Self::Meter(_) => 0,
            Self::ApplyActions(_) => 1,
            Self::ClearActions {} => 2,
            Self::WriteActions(_) => 3,
            Self::WriteMetadata { .. } => 4,
            Self::GotoTable(_) => 5,
            Self::Unknown { kind, .. } => *kind,
        }
    }
}

/// As `ovs-ofctl` writes it.
impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, actions: &[Action]| {
            for (at, action) in actions.iter().enumerate() {
                write!(f, "{}{action}", if at == 0 { "" } else { "," })?;
            }
            Ok(())
        };
        match self {
            Self::GotoTable(table) => write!(f, "goto_table:{}", table.0),
            Self::WriteMetadata { metadata, mask: u64::MAX } => write!(f, "write_metadata:{metadata:#x}"),
            Self::WriteMetadata { metadata, mask } => write!(f, "write_metadata:{metadata:#x}/{mask:#x}"),
            Self::WriteActions(actions) => {
                f.write_str("write_actions(")?;
                list(f, actions)?;
                f.write_str(")")
            }
            Self::ApplyActions(actions) if actions.is_empty() => f.write_str("drop"),
            Self::ApplyActions(actions) => list(f, actions),
            Self::ClearActions {} => f.write_str("clear_actions"),
            Self::Meter(meter) => write!(f, "meter:{}", meter.0),
            Self::Unknown { kind, .. } => write!(f, "instruction {kind}"),
        }
    }
}
