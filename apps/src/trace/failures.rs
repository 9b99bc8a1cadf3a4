//! Functions of the chains that a frame is held to belong to, and of which some instance doesn't work.

use std::collections::{BTreeMap, BTreeSet};

use super::{Situation, Step, What};
use crate::policy::OnFailure;
use crate::problems::Facts;

/// For each such instance: what is wrong with it, and what becomes of frames where none works.
pub(super) fn failures(situation: &Situation, steps: &[Step]) -> Vec<String> {
    let entry = |step: &Step| match &step.what {
        What::Table { entry: Some(entry), .. } => entry.origin.clone(),
        _ => None,
    };
    let met: BTreeSet<String> = steps.iter().filter_map(entry).collect();
    let Situation { policy, allocations, attachments, view, .. } = situation;
    let facts = Facts { policy, allocations, attachments, view, trees: &BTreeMap::new() };
    let failed = facts.functions();
    let mut notes = BTreeSet::new();
    for tenant in &policy.tenants {
        let functions = |name: &String| tenant.functions.iter().find(|function| function.name == *name);
        let chains = tenant.chains.iter().filter(|chain| met.contains(&chain.origin.to_string()));
        for function in chains.flat_map(|chain| &chain.through).filter_map(functions) {
            let what = match function.on_failure {
                OnFailure::Drop => "dropped (on_failure = \"drop\")",
                OnFailure::Bypass => "passed on without it (on_failure = \"bypass\")",
            };
            let about = format!("{}/{}/", tenant.name, function.name);
            let of_it = failed.iter().filter(|problem| problem.key.1.starts_with(&about));
            let origin = &function.origin;
            notes.extend(of_it.map(|it| format!("{}; where no instance works, frames are {what}, {origin}", it.text)));
        }
    }
    notes.into_iter().collect()
}
