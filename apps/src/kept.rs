//! What a bridge that can't be changed certainly does with frames that others send it: it doesn't answer, or refuses changes,
//! and goes on by what it was told before.
//!
//! If a host or a service function is there by now and it doesn't know, it sends their frames the old way, and others would send
//! them back. If the chains of a function there have changed, it sends what comes out of it the old way, too. Frames that come
//! over a link that it doesn't know end there. So others send it frames only as far as this says that it takes them in and
//! does with them what it is to do by now.

use std::collections::BTreeMap;

use openflow::matching::Match;
use openflow::types::PortNo;

use crate::desired::{BridgeState, Flow, FlowKey};
use crate::limits;
use crate::marks::Owner;
use crate::pipeline::CLASSIFY;
use crate::reconcile::{Change, Edit, is_way};

/// What it holds, and what it may hold instead.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    installed: BridgeState,
    /// What entries may have become; `None`: they may have gone.
    uncertain: BTreeMap<FlowKey, Vec<Option<Flow>>>,
}

impl Kept {
    /// By what it has acknowledged, and changes that it may or may not have made.
    pub fn new(installed: &BridgeState, uncertain: &[Change]) -> Self {
        let mut kept = Self { installed: installed.clone(), uncertain: BTreeMap::new() };
        for change in uncertain {
            let (key, then) = match &change.edit {
                Edit::SetFlow(key, flow) => (key, Some(flow.clone())),
                Edit::RemoveFlow(key) => (key, None),
                _ => continue,
            };
            kept.uncertain.entry(key.clone()).or_default().push(then);
        }
        kept
    }

    /// Has it certainly this entry of this owner, and one for which `holds` holds?
    fn has(&self, owner: Owner, key: &FlowKey, holds: impl Fn(&Flow) -> bool) -> bool {
        let now = self.installed.get(&owner).and_then(|section| section.flows.get(key));
        let then = self.uncertain.get(key).into_iter().flatten();
        now.is_some_and(&holds) && then.into_iter().all(|flow| flow.as_ref().is_some_and(&holds))
    }

    /// Does it take in what this entry is for, which comes over a link?
    pub(crate) fn takes_in(&self, owner: Owner, key: &FlowKey) -> bool {
        self.has(owner, key, |flow| is_way(key, flow))
    }

    /// Does it let out by this port what this entry is for?
    pub(crate) fn lets_out(&self, owner: Owner, key: &FlowKey, port: PortNo) -> bool {
        self.has(owner, key, |flow| limits::delivered(&flow.instructions) == Some(port))
    }

    /// Has it this entry as it is wanted?
    pub(crate) fn agrees(&self, owner: Owner, key: &FlowKey, wanted: &Flow) -> bool {
        self.has(owner, key, |flow| flow == wanted)
    }

    /// The entries for frames that come back from a function by this port; `None`: they may be others by now.
    pub(crate) fn back(&self, owner: Owner, port: PortNo) -> Option<Vec<(&FlowKey, &Flow)>> {
        let back = |key: &FlowKey| key.table == CLASSIFY && key.matching.in_port() == Some(port);
        let section = self.installed.get(&owner);
        let now = |key: &FlowKey| section.and_then(|section| section.flows.get(key));
        let mut maybe = self.uncertain.iter().filter(|(key, _)| back(key));
        let same = maybe.all(|(key, then)| then.iter().all(|flow| flow.as_ref() == now(key)));
        let first = FlowKey { table: CLASSIFY, priority: 0, matching: Match::default() };
        let flows = section.into_iter().flat_map(|section| section.flows.range(first.clone()..));
        let flows = flows.take_while(|(key, _)| key.table == CLASSIFY);
        same.then(|| flows.filter(|(key, _)| back(key)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use openflow::action::Action;
    use openflow::instruction::Instruction;
    use openflow::oxm::Oxm;
    use openflow::types::{MacAddr, TableId};

    use super::*;
    use crate::desired::{Section, SectionBuilder, apply, go};
    use crate::pipeline::{ADMIT, FORWARD, GUARD};
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
            let out = apply(vec![Action::output(PortNo(*port))]);
            builder.flow(table, priority, matching.fields().iter().cloned(), out);
        }
        builder.build()
    }

    fn set(section: &Section) -> impl Iterator<Item = Change> {
        let edits = section.flows.iter().map(|(key, flow)| Edit::SetFlow(key.clone(), flow.clone()));
        edits.map(|edit| Change { owner: GREEN, edit })
    }

    #[test]
    fn what_may_have_changed_is_no_longer_certain() {
        let installed = BridgeState::from([(GREEN, Arc::new(section(&[(1, 7), (2, 7), (3, 7), (4, 7)])))]);
        let gone = Change { owner: GREEN, edit: Edit::RemoveFlow(host(4)) };
        let uncertain: Vec<Change> = set(&section(&[(2, 7), (3, 8), (5, 7)])).chain([gone]).collect();
        let certain =
            |kept: &Kept| (1..=5).filter(|last| kept.lets_out(GREEN, &host(*last), PortNo(7))).collect::<Vec<u8>>();
        assert_eq!(certain(&Kept::new(&installed, &[])), [1, 2, 3, 4]);
        assert_eq!(certain(&Kept::new(&installed, &uncertain)), [1, 2], "untouched, or the same afterwards");
        assert!(!Kept::new(&installed, &[]).lets_out(GREEN, &host(1), PortNo(8)), "elsewhere");
        assert!(!Kept::new(&installed, &[]).lets_out(Owner(200), &host(1), PortNo(7)), "another tenant's");
    }

    #[test]
    fn only_what_comes_over_a_link_is_taken_in() {
        let from =
            |port: u32| FlowKey { table: ADMIT, priority: 10, matching: Match::new([Oxm::InPort(PortNo(port), None)]) };
        let mut builder = SectionBuilder::new(GREEN);
        let mut admit = |port, table: TableId| {
            let key = from(port);
            let told = Instruction::WriteMetadata { metadata: 100, mask: u64::MAX };
            builder.flow(
                ADMIT,
                key.priority,
                key.matching.fields().iter().cloned(),
                vec![told, Instruction::GotoTable(table)],
            );
        };
        admit(1, FORWARD);
        admit(2, GUARD);
        let installed = BridgeState::from([(GREEN, Arc::new(builder.build()))]);
        let taken = |kept: &Kept| (1..=3).filter(|port| kept.takes_in(GREEN, &from(*port))).collect::<Vec<u32>>();
        assert_eq!(taken(&Kept::new(&installed, &[])), [1]);
        let gone = Change { owner: GREEN, edit: Edit::RemoveFlow(from(1)) };
        assert_eq!(taken(&Kept::new(&installed, &[gone])), [0; 0]);
    }

    #[test]
    fn what_comes_back_from_a_function_goes_on_by_entries_that_are_certain() {
        let back = |ports: &[(u32, u16)]| {
            let mut builder = SectionBuilder::new(GREEN);
            for (port, priority) in ports {
                builder.flow(CLASSIFY, *priority, [Oxm::InPort(PortNo(*port), None)], go(FORWARD));
            }
            builder.build()
        };
        let installed = BridgeState::from([(GREEN, Arc::new(back(&[(1, 5), (1, 6), (2, 9)])))]);
        let entries = |uncertain: &[(u32, u16)]| {
            let kept = Kept::new(&installed, &set(&back(uncertain)).collect::<Vec<_>>());
            kept.back(GREEN, PortNo(1)).map(|entries| entries.len())
        };
        assert_eq!(entries(&[]), Some(2));
        assert_eq!(entries(&[(1, 5), (2, 8)]), Some(2), "the same, and another port's");
        assert_eq!(entries(&[(1, 7)]), None);
    }
}
