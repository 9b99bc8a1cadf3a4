//! What a bridge that can't be changed certainly does with frames that others send it: it doesn't answer, or refuses changes,
//! and goes on by what it was told before.
//!
//! If a host or a service function is there by now and it doesn't know, it sends their frames the old way, and others would send
//! them back. Frames that come over a link that it doesn't know end there. So others send it frames only as far as this says
//! that it takes them in, and for its own hosts and functions only as far as it lets them out there.

use std::collections::{BTreeMap, BTreeSet};

use openflow::types::PortNo;

use crate::desired::{BridgeState, Flow, FlowKey};
use crate::failover;
use crate::limits;
use crate::pipeline::{ADMIT, FORWARD, STEER};
use crate::reconcile::{Change, Edit, is_way};

/// Its entries for links, hosts and functions, with the ports by which they let frames out; those for links: by none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept(BTreeMap<FlowKey, BTreeSet<PortNo>>);

impl Kept {
    /// By what it holds, and what it may or may not have changed.
    pub fn new(installed: &BridgeState, uncertain: &[Change]) -> Self {
        let flows = installed.values().flat_map(|section| &section.flows);
        let mut kept: BTreeMap<FlowKey, BTreeSet<PortNo>> =
            flows.filter_map(|(key, flow)| Some((key.clone(), exits(key, flow)?))).collect();
        for change in uncertain {
            let (key, then) = match &change.edit {
                Edit::SetFlow(key, flow) => (key, exits(key, flow)),
                Edit::RemoveFlow(key) => (key, None),
                _ => continue,
            };
            if kept.get(key) != then.as_ref() {
                kept.remove(key);
            }
        }
        Self(kept)
    }

    /// Does it certainly take in what this entry is for, which comes over a link?
    pub(crate) fn takes_in(&self, key: &FlowKey) -> bool {
        self.0.contains_key(key)
    }

    /// Does it certainly let out by this port what this entry is for?
    pub(crate) fn lets_out(&self, key: &FlowKey, port: PortNo) -> bool {
        self.0.get(key).is_some_and(|ports| ports.contains(&port))
    }
}

/// The ports by which an entry lets frames out: for a host one, for a function both of its ports, for a link none. `None`: it is for
/// something else, or lets frames out nowhere.
fn exits(key: &FlowKey, flow: &Flow) -> Option<BTreeSet<PortNo>> {
    let ports: BTreeSet<PortNo> = match key.table {
        ADMIT => return is_way(key, flow).then(BTreeSet::new),
        FORWARD => limits::delivered(&flow.instructions).into_iter().collect(),
        STEER => failover::asked(flow),
        _ => return None,
    };
    (!ports.is_empty()).then_some(ports)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use openflow::action::Action;
    use openflow::types::MacAddr;

    use super::*;
    use crate::desired::{Section, SectionBuilder, apply};
    use crate::marks::Owner;
    use crate::tenants::onward;

    const GREEN: Owner = Owner(100);

    fn host(last: u8) -> FlowKey {
        onward(GREEN.0, MacAddr([2, 0, 0, 0, 0, last]))
    }

    /// Entries that send frames for these hosts out of these ports.
    fn section(hosts: &[(u8, u32)]) -> Section {
        let mut builder = SectionBuilder::new(GREEN);
        for (last, port) in hosts {
            let FlowKey { table, priority, matching } = host(*last);
            builder.flow(
                table,
                priority,
                matching.fields().iter().cloned(),
                apply(vec![Action::output(PortNo(*port))]),
            );
        }
        builder.build()
    }

    #[test]
    fn what_may_have_changed_is_no_longer_certain() {
        let installed = BridgeState::from([(GREEN, Arc::new(section(&[(1, 7), (2, 7), (3, 7), (4, 7)])))]);
        let then = section(&[(2, 7), (3, 8), (5, 7)]);
        let set = |(key, flow): (&FlowKey, &Flow)| Edit::SetFlow(key.clone(), flow.clone());
        let edits = then.flows.iter().map(set).chain([Edit::RemoveFlow(host(4))]);
        let uncertain: Vec<Change> = edits.map(|edit| Change { owner: GREEN, edit }).collect();
        let certain = |kept: &Kept| (1..=5).filter(|last| kept.lets_out(&host(*last), PortNo(7))).collect::<Vec<u8>>();
        assert_eq!(certain(&Kept::new(&installed, &[])), [1, 2, 3, 4]);
        assert_eq!(certain(&Kept::new(&installed, &uncertain)), [1, 2], "untouched, or the same afterwards");
        assert!(!Kept::new(&installed, &[]).lets_out(&host(1), PortNo(8)), "elsewhere");
    }
}
