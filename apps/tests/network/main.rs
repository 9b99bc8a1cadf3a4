//! Whole networks, drawn from seeds: the compiled tables are walked frame by frame, in each state and on the way from one to
//! the next.

mod chains;
mod checked;
mod draining;
mod failover;
mod pins;
mod plain;
mod world;

use std::collections::BTreeMap;

use apps::desired::BridgeState;
use apps::reconcile::{self, Plan, Style};
use apps::trees::told;
use apps::view::Grown;
use openflow::types::DatapathId;

/// How many seeds; `ESPALIER_SEEDS` asks for more.
fn seeds() -> u64 {
    std::env::var("ESPALIER_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(250)
}

/// The changes from what bridges hold to what is wanted.
fn plans(
    states: &BTreeMap<DatapathId, BridgeState>,
    desired: &BTreeMap<DatapathId, BridgeState>,
    style: Style,
    trees: &BTreeMap<u32, Grown>,
) -> BTreeMap<DatapathId, Plan> {
    let plan = |(dpid, wanted): (&DatapathId, &BridgeState)| {
        let installed = states.get(dpid).cloned().unwrap_or_default();
        let owners = installed.keys().chain(wanted.keys()).copied().collect();
        (*dpid, reconcile::plan(&installed, wanted, &owners, style, &told(trees, &owners)))
    };
    desired.iter().map(plan).collect()
}

/// Applies a part of each bridge's changes of a phase, as if messages arrived at different speeds.
fn advance(
    states: &BTreeMap<DatapathId, BridgeState>,
    plans: &BTreeMap<DatapathId, Plan>,
    phase: u16,
    mut part: impl FnMut(usize) -> usize,
) -> BTreeMap<DatapathId, BridgeState> {
    let mut states = states.clone();
    for (dpid, plan) in plans {
        let Some(changes) = plan.get(&phase) else { continue };
        let state = states.entry(*dpid).or_default();
        changes[..part(changes.len())].iter().for_each(|change| change.apply(state));
    }
    states
}
