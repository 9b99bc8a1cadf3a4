//! Flow tables: what they can do and hold (OpenFlow 1.3.5 §7.3.3, §7.3.5.4–5).

use bytes::{BufMut, BytesMut};

use crate::oxm::FieldId;
use crate::types::TableId;
use crate::wire::{Octets, Parsed, Text, Wire, element};

wire_flags! {
    /// `ofp_table_config`. 1.3 names only bits that it no longer uses.
    pub struct TableConfig: u32 {
        /// What a miss does: deprecated.
        DEPRECATED_LOW = 1;
        /// What a miss does: deprecated.
        DEPRECATED_HIGH = 2;
    }
}

wire_struct! {
    /// `ofp_table_mod`.
    pub struct TableMod {
        /// The table; [`TableId::ALL`]: every one.
        table: TableId,
        _ [3],
        /// How it behaves.
        config: TableConfig,
    }
}

wire_struct! {
    /// `ofp_table_stats`.
    pub struct TableStats {
        /// The table.
        table: TableId,
        _ [3],
        /// How many entries it has.
        active_count: u32,
        /// Packets looked up in it.
        lookup_count: u64,
        /// Packets that found an entry.
        matched_count: u64,
    }
}

/// The number of a kind of instruction or action; extensions have more to say.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct KindId {
    /// The number.
    pub kind: u16,
    /// Whose extension and what follows, for number 0xffff; else empty. Open vSwitch pads some with zeros.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Octets::is_empty"))]
    pub body: Octets,
}

impl Wire for KindId {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (rest, (kind, body)) = element(input, 4)?;
        Ok((rest, Self { kind, body: Octets(body.to_vec()) }))
    }
    fn put(&self, out: &mut BytesMut) {
        out.put_u16(self.kind);
        out.put_u16((4 + self.body.0.len()) as u16);
        self.body.put(out);
    }
}

wire_struct! {
    /// `ofp_table_feature_prop_experimenter` behind its header.
    pub open struct TableExperimenter {
        /// Whose extension.
        experimenter: u32,
        /// Its kind of property.
        exp_type: u32,
        /// What it says.
        data: Octets,
    }
}

wire_elements! {
    /// `ofp_table_feature_prop_header`: what entries of a table can do. Those of a miss are of its table-miss entry; where
    /// they are left out they are as the others.
    pub enum TableProperty: min 4, Eight {
        /// Instructions.
        Instructions = 0 (Vec<KindId>) pad 0, 0;
        /// Instructions of a miss.
        InstructionsMiss = 1 (Vec<KindId>) pad 0, 0;
        /// Tables that [`crate::instruction::Instruction::GotoTable`] reaches.
        NextTables = 2 (Vec<TableId>) pad 0, 0;
        /// Tables that it reaches from a miss.
        NextTablesMiss = 3 (Vec<TableId>) pad 0, 0;
        /// Actions to be written to the action set.
        WriteActions = 4 (Vec<KindId>) pad 0, 0;
        /// Actions that a miss may write.
        WriteActionsMiss = 5 (Vec<KindId>) pad 0, 0;
        /// Actions to be applied.
        ApplyActions = 6 (Vec<KindId>) pad 0, 0;
        /// Actions that a miss may apply.
        ApplyActionsMiss = 7 (Vec<KindId>) pad 0, 0;
        /// Fields to match on; their mask flag says whether with a mask.
        Match = 8 (Vec<FieldId>) pad 0, 0;
        /// Fields that need not be matched on.
        Wildcards = 10 (Vec<FieldId>) pad 0, 0;
        /// Fields that the action set can set.
        WriteSetField = 12 (Vec<FieldId>) pad 0, 0;
        /// Fields that a miss can set in the action set.
        WriteSetFieldMiss = 13 (Vec<FieldId>) pad 0, 0;
        /// Fields that can be set.
        ApplySetField = 14 (Vec<FieldId>) pad 0, 0;
        /// Fields that a miss can set.
        ApplySetFieldMiss = 15 (Vec<FieldId>) pad 0, 0;
        /// Something of an extension, of a miss.
        ExperimenterMiss = 0xfffe (TableExperimenter) pad 0, 0;
        /// Something of an extension.
        Experimenter = 0xffff (TableExperimenter) pad 0, 0;
    }
}

wire_struct! {
    /// `ofp_table_features`.
    pub sized(0, 64) struct TableFeatures {
        _ [2],
        /// The table.
        table: TableId,
        _ [5],
        /// Its name.
        name: Text<32>,
        /// Bits of the metadata that can be matched on.
        metadata_match: u64,
        /// Bits of the metadata that can be written.
        metadata_write: u64,
        /// How it behaves.
        config: TableConfig,
        /// How many entries it may have.
        max_entries: u32,
        /// What its entries can do.
        properties: Vec<TableProperty>,
    }
}
