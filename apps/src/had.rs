//! Whose a bridge's ports were, by what it holds. That tells whether a port passes from one to another where nothing else does:
//! after a restart, or when a bridge or a port comes that has been here before.

use std::collections::BTreeMap;

use openflow::action::Action;
use openflow::instruction::Instruction;
use openflow::oxm::Oxm;
use openflow::types::PortNo;

use crate::desired::{BridgeState, Flow, FlowKey, Section};
use crate::marks::Owner;
use crate::pipeline::{ADMIT, FLOOD};
use crate::reconcile::{Change, Edit, is_way};

/// What entries of one owner do with a port.
#[derive(Clone, Copy, Debug, Default)]
struct Uses {
    /// Frames are taken in there as from a link, or sent out with a mark.
    link: bool,
    /// Or as from a host or a function.
    edge: bool,
}

/// What entries say of each port, by owner; those that only send frames out there say that, too.
#[derive(Clone, Debug, Default)]
pub struct Had(BTreeMap<PortNo, BTreeMap<Owner, Uses>>);

impl Had {
    /// By what a bridge holds, and what it may hold.
    pub fn new(installed: &BridgeState, uncertain: &[Change]) -> Self {
        let mut had = Self::default();
        for (owner, section) in installed.iter().filter(|(owner, _)| **owner != Owner::FABRIC) {
            had.section(*owner, section);
        }
        for change in uncertain.iter().filter(|change| change.owner != Owner::FABRIC) {
            match &change.edit {
                Edit::SetFlow(key, flow) => had.flow(change.owner, key, flow),
                Edit::AddGroup(_, group) | Edit::ModifyGroup(_, group) => {
                    group.buckets.iter().for_each(|bucket| had.sends(change.owner, &bucket.actions));
                }
                _ => {}
            }
        }
        had
    }

    fn section(&mut self, owner: Owner, section: &Section) {
        section.flows.iter().for_each(|(key, flow)| self.flow(owner, key, flow));
        let buckets = section.groups.values().flat_map(|group| &group.buckets);
        buckets.for_each(|bucket| self.sends(owner, &bucket.actions));
    }

    fn flow(&mut self, owner: Owner, key: &FlowKey, flow: &Flow) {
        if let Some(port) = key.matching.in_port() {
            let uses = self.0.entry(port).or_default().entry(owner).or_default();
            let ends = flow.instructions.is_empty();
            match key.table {
                FLOOD => uses.link = true,
                ADMIT if is_way(key, flow) || ends => uses.link = true,
                _ => uses.edge = true,
            }
        }
        for instruction in &flow.instructions {
            if let Instruction::ApplyActions(actions) = instruction {
                self.sends(owner, actions);
            }
        }
    }

    fn sends(&mut self, owner: Owner, actions: &[Action]) {
        let mut marked = false;
        for action in actions {
            let ports = match action {
                Action::PushVlan { .. } | Action::SetField(Oxm::TunnelId(..)) => {
                    marked = true;
                    continue;
                }
                Action::Output { port, .. } => vec![*port],
                Action::Bundle(all) => all.members.iter().map(|port| PortNo::of_16_bits(*port)).collect(),
                _ => continue,
            };
            for port in ports {
                self.0.entry(port).or_default().entry(owner).or_default().link |= marked;
            }
        }
    }

    /// Did somebody else have this port, or the same tenant as a link, than a tenant as its own or a function's?
    pub fn by_others(&self, port: PortNo, owner: Owner) -> bool {
        self.0.get(&port).into_iter().flatten().any(|(had, uses)| *had != owner || uses.link)
    }

    /// Did somebody have this port otherwise than as a link?
    pub fn as_no_link(&self, port: PortNo) -> bool {
        self.0.get(&port).into_iter().flatten().any(|(_, uses)| uses.edge || !uses.link)
    }

    /// Had anybody this port?
    pub fn any(&self, port: PortNo) -> bool {
        self.0.contains_key(&port)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use openflow::matching::Match;
    use openflow::types::MacAddr;

    use super::*;
    use crate::allocation::Numbers;
    use crate::desired::{SectionBuilder, apply};
    use crate::links;
    use crate::marks::Mode;
    use crate::pipeline::{FORWARD, GUARD};
    use crate::tenants::onward;
    use crate::view::Carrier;

    const GREEN: Owner = Owner(100);
    const NUMBERS: Numbers = Numbers { key: 100, vlan: Some(100) };

    fn had(build: impl FnOnce(&mut SectionBuilder)) -> Had {
        let mut builder = SectionBuilder::new(GREEN);
        build(&mut builder);
        Had::new(&BridgeState::from([(GREEN, Arc::new(builder.build()))]), &[])
    }

    #[test]
    fn entries_tell_whose_a_port_was_and_whether_it_was_a_link() {
        let told = |metadata, table| vec![Instruction::WriteMetadata { metadata, mask: u64::MAX }, table];
        let own = had(|it| {
            it.flow(ADMIT, 10, [Oxm::InPort(PortNo(1), None)], told(100, Instruction::GotoTable(GUARD)));
        });
        assert!(own.any(PortNo(1)) && !own.any(PortNo(2)));
        assert!(!own.by_others(PortNo(1), GREEN) && own.by_others(PortNo(1), Owner(200)));
        assert!(own.as_no_link(PortNo(1)) && !own.as_no_link(PortNo(2)));
        for carrier in [Carrier::Tunnel, Carrier::Vlan, Carrier::Dedicated(100)] {
            let link = had(|it| {
                let (fields, _) = links::receive(PortNo(1), carrier, NUMBERS, Mode::Normal);
                it.flow(ADMIT, 10, fields, told(100, Instruction::GotoTable(FORWARD)));
            });
            assert!(link.by_others(PortNo(1), GREEN) && !link.as_no_link(PortNo(1)), "{carrier}");
        }
        // What only sends: with a mark over a link, without one to a host.
        let sends = |carrier: Option<Carrier>| {
            let actions = carrier.map_or_else(
                || vec![Action::output(PortNo(1))],
                |carrier| links::send(PortNo(1), carrier, NUMBERS, Mode::Normal),
            );
            had(|it| {
                let FlowKey { table, priority, matching } = onward(100, MacAddr([2; 6]));
                it.flow(table, priority, matching.fields().iter().cloned(), apply(actions));
            })
        };
        for carrier in [Carrier::Tunnel, Carrier::Vlan] {
            assert!(!sends(Some(carrier)).as_no_link(PortNo(1)) && sends(Some(carrier)).by_others(PortNo(1), GREEN));
        }
        assert!(sends(None).as_no_link(PortNo(1)) && !sends(None).by_others(PortNo(1), GREEN));
    }

    #[test]
    fn what_a_bridge_may_hold_counts_as_well() {
        let key = FlowKey { table: ADMIT, priority: 10, matching: Match::new([Oxm::InPort(PortNo(1), None)]) };
        let flow = |owner: Owner| {
            let mut builder = SectionBuilder::new(owner);
            builder.flow(ADMIT, 10, [Oxm::InPort(PortNo(1), None)], vec![Instruction::GotoTable(GUARD)]);
            builder.build().flows.remove(&key).expect("it was made")
        };
        let maybe = Change { owner: GREEN, edit: Edit::SetFlow(key.clone(), flow(GREEN)) };
        assert!(Had::new(&BridgeState::new(), &[maybe]).by_others(PortNo(1), Owner(200)));
        let of_fabric = Change { owner: Owner::FABRIC, edit: Edit::SetFlow(key.clone(), flow(Owner::FABRIC)) };
        assert!(!Had::new(&BridgeState::new(), &[of_fabric]).any(PortNo(1)));
    }
}
