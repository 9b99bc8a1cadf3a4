//! The flow tables that every bridge has, as data (docs/pipeline.md is the text to it).

use openflow::types::TableId;

/// A table of the pipeline. What no entry of it matches is dropped.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its number; frames only go on to higher ones.
    pub id: TableId,
    /// Its name.
    pub name: &'static str,
    /// May an entry's value be replaced where it stands? Elsewhere the old entry goes first, on all bridges, because old
    /// and new together could form a loop or a leak.
    pub replace: bool,
}

/// Whose frame is it? Unknown ports, keys and tags end here.
pub const ADMIT: TableId = TableId(0);
/// Pinned addresses.
pub const GUARD: TableId = TableId(1);
/// How much a port may send.
pub const LIMIT_PORT: TableId = TableId(2);
/// How much a tenant's ports here may send together.
pub const LIMIT_TENANT: TableId = TableId(3);
/// Is the source known here?
pub const LEARN: TableId = TableId(4);
/// May the frame enter?
pub const RULES: TableId = TableId(5);
/// Which chain is it in, and what comes next in that?
pub const CLASSIFY: TableId = TableId(6);
/// Which instance of the next function?
pub const BALANCE: TableId = TableId(7);
/// Does the frame begin a connection, or belong to one that was begun since?
pub const BEGIN: TableId = TableId(8);
/// To which of two instances, now that this is known?
pub const DRAIN: TableId = TableId(9);
/// To the instance's bridge, over the next link on the shortest path; there: which of its ports are live?
pub const STEER: TableId = TableId(10);
/// To the instance's port, or, if one is down, to what the policy says then.
pub const DELIVER: TableId = TableId(11);
/// To the destination's port, or the next link on the shortest path.
pub const FORWARD: TableId = TableId(12);
/// To everybody, along the tree.
pub const FLOOD: TableId = TableId(13);

/// Connections that were begun: bridges add entries by themselves, as [`BEGIN`] tells them.
pub const BEGUN: TableId = TableId(14);

/// All tables, in order.
pub const TABLES: [Table; 15] = [
    Table { id: ADMIT, name: "admit", replace: false },
    Table { id: GUARD, name: "guard", replace: false },
    Table { id: LIMIT_PORT, name: "limit_port", replace: true },
    Table { id: LIMIT_TENANT, name: "limit_tenant", replace: true },
    Table { id: LEARN, name: "learn", replace: true },
    Table { id: RULES, name: "rules", replace: false },
    Table { id: CLASSIFY, name: "classify", replace: false },
    Table { id: BALANCE, name: "balance", replace: false },
    Table { id: BEGIN, name: "begin", replace: true },
    Table { id: DRAIN, name: "drain", replace: true },
    Table { id: STEER, name: "steer", replace: false },
    Table { id: DELIVER, name: "deliver", replace: true },
    Table { id: FORWARD, name: "forward", replace: false },
    Table { id: FLOOD, name: "flood", replace: false },
    Table { id: BEGUN, name: "begun", replace: false },
];

/// The row of a table.
pub fn table(id: TableId) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.id == id)
}
