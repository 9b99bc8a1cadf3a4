//! A number is not a port: bridges give the number of a port that is gone to another one, and entries speak of numbers alone.
//! What was made for the former port goes at once, before anything is computed anew.

use std::collections::{BTreeMap, BTreeSet};

use openflow::action::Action;
use openflow::instruction::Instruction;
use openflow::types::PortNo;

use super::{Change, Edit};
use crate::desired::{BridgeState, Flow, FlowKey};
use crate::marks::cookie;
use crate::pipeline::{ADMIT, GUARD};

/// The numbers whose entries were made for a port of another name than the one that has it now, or than any. `names` are the
/// ports that the bridge has. Entries that don't say what they were made for count as made for the present port.
pub fn strangers(state: &BridgeState, names: &BTreeMap<PortNo, &str>) -> BTreeSet<PortNo> {
    let admits = state.values().flat_map(|section| section.flows.iter().take_while(|(key, _)| key.table == ADMIT));
    let stranger = |(key, flow): (&FlowKey, &Flow)| {
        let (port, made_for) = (key.matching.in_port()?, cookie::port(flow.cookie)?);
        (names.get(&port).map(|name| cookie::name(name)) != Some(made_for)).then_some(port)
    };
    admits.filter_map(stranger).collect()
}

/// The ports that a bridge which holds this takes frames in from as a tenant's, or as a function's.
pub fn stations(state: &BridgeState) -> BTreeSet<PortNo> {
    let admits = state.values().flat_map(|section| section.flows.iter().take_while(|(key, _)| key.table == ADMIT));
    let enters = |flow: &Flow| flow.instructions.contains(&Instruction::GotoTable(GUARD));
    admits.filter(|(_, flow)| enters(flow)).filter_map(|(key, _)| key.matching.in_port()).collect()
}

/// The changes after which a bridge that holds this neither takes anything in by these ports nor sends anything out there. What
/// it does is safe in any order, and may be done twice: entries that stop frames stay.
pub fn closing(state: &BridgeState, ports: &BTreeSet<PortNo>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (owner, section) in state {
        let mut change = |edit| changes.push(Change { owner: *owner, edit });
        for (key, flow) in &section.flows {
            let enters = key.table == ADMIT && key.matching.in_port().is_some_and(|port| ports.contains(&port));
            if enters && !flow.instructions.is_empty() {
                change(Edit::RemoveFlow(key.clone()));
            } else if leaves(&flow.instructions, ports) {
                let rest = without(flow, ports);
                change(rest.map_or_else(|| Edit::RemoveFlow(key.clone()), |rest| Edit::SetFlow(key.clone(), rest)));
            }
        }
        for (id, group) in &section.groups {
            let mut rest = group.clone();
            rest.buckets.retain(|bucket| !bucket.actions.iter().any(|action| sends(action, ports)));
            if rest != *group {
                change(Edit::ModifyGroup(*id, rest));
            }
        }
    }
    changes
}

/// What is left of an entry that sends frames out of the first of several ports that lives, if one of the others is left.
fn without(flow: &Flow, ports: &BTreeSet<PortNo>) -> Option<Flow> {
    let mut rest = flow.clone();
    for instruction in &mut rest.instructions {
        let Instruction::ApplyActions(actions) = instruction else { continue };
        for action in actions {
            if let Action::Bundle(all) = action {
                all.members.retain(|member| !ports.contains(&PortNo((*member).into())));
                if all.members.is_empty() {
                    return None;
                }
            }
        }
    }
    (!leaves(&rest.instructions, ports)).then_some(rest)
}

fn leaves(instructions: &[Instruction], ports: &BTreeSet<PortNo>) -> bool {
    instructions.iter().any(|instruction| match instruction {
        Instruction::ApplyActions(actions) | Instruction::WriteActions(actions) => {
            actions.iter().any(|action| sends(action, ports))
        }
        _ => false,
    })
}

/// Does an action send frames out of one of these ports, perhaps?
fn sends(action: &Action, ports: &BTreeSet<PortNo>) -> bool {
    match action {
        Action::Output { port, .. } => ports.contains(port),
        Action::Bundle(all) => {
            ports.iter().any(|port| port.in_16_bits().is_some_and(|port| all.members.contains(&port)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use openflow::action::Members;
    use openflow::group::Bucket;
    use openflow::oxm::Oxm;
    use openflow::types::{GroupId, MacAddr, TableId};

    use super::*;
    use crate::desired::{SectionBuilder, apply, drop, go};
    use crate::marks::Owner;
    use crate::pipeline::{FLOOD, FORWARD};
    use crate::view::PortView;

    fn to(last: u8) -> [Oxm; 1] {
        [Oxm::EthDst(MacAddr([2, 0, 0, 0, 0, last]), None)]
    }

    /// Entries of two ports, made while these were their names.
    fn state(names: &[(u32, &str)]) -> BridgeState {
        let port = |name: &str| PortView { name: name.to_owned(), up: true, ..PortView::default() };
        let ports = names.iter().map(|(number, name)| (PortNo(*number), port(name))).collect();
        let mut builder = SectionBuilder::new(Owner(100));
        for number in [1, 2] {
            builder.flow(ADMIT, 10, [Oxm::InPort(PortNo(number), None)], go(GUARD));
            builder.flow(ADMIT, 40, [Oxm::InPort(PortNo(number), None), to(9)[0].clone()], drop());
            builder.flow(GUARD, 10, [Oxm::InPort(PortNo(number), None)], go(FLOOD));
        }
        builder.flow(FORWARD, 10, to(1), apply(vec![Action::output(PortNo(1))]));
        builder.flow(FORWARD, 10, to(2), apply(vec![Action::output(PortNo(2))]));
        builder.flow(FORWARD, 12, to(3), apply(vec![Action::Bundle(Members::first_live([7, 1]))]));
        let bucket = |number| Bucket::new(vec![Action::output(PortNo(number))]);
        builder.group(GroupId(100), vec![bucket(1), bucket(2), bucket(7)]);
        builder.group(GroupId(200), vec![bucket(2)]);
        BridgeState::from([(Owner(100), Arc::new(builder.build_for(&ports)))])
    }

    #[test]
    fn a_number_that_another_port_has_now_is_told_by_the_names_of_both() {
        let made = state(&[(1, "green-1"), (2, "green-2")]);
        let found = |names: &[(u32, &'static str)]| -> Vec<u32> {
            let names = names.iter().map(|(number, name)| (PortNo(*number), *name)).collect();
            strangers(&made, &names).into_iter().map(|port| port.0).collect()
        };
        assert_eq!(found(&[(1, "green-1"), (2, "green-2"), (3, "x")]), [] as [u32; 0]);
        assert_eq!(found(&[(1, "green-2"), (2, "green-1")]), [1, 2], "exchanged");
        assert_eq!(found(&[(1, "green-1")]), [2], "gone");
        assert_eq!(found(&[(1, "orange-9"), (2, "green-2")]), [1], "another's");
        let unnamed = strangers(&state(&[]), &BTreeMap::from([(PortNo(1), "anything")]));
        assert_eq!(unnamed.len(), 0, "entries of a former version don't say");
    }

    #[test]
    fn closing_leaves_no_way_in_nor_out_and_nothing_else_is_touched() {
        let mut held = state(&[(1, "green-1"), (2, "green-2")]);
        let ports = BTreeSet::from([PortNo(1)]);
        let changes = closing(&held, &ports);
        changes.iter().chain(&changes).for_each(|change| change.apply(&mut held));
        let section = &held[&Owner(100)];
        let tables = |table: TableId| section.flows.keys().filter(move |key| key.table == table).count();
        assert_eq!((tables(ADMIT), tables(GUARD), tables(FORWARD)), (3, 2, 2), "{:?}", section.flows.keys());
        let second =
            section.flows.iter().find(|(key, _)| key.priority == 12).map(|(_, flow)| flow.instructions.clone());
        assert_eq!(second, Some(apply(vec![Action::Bundle(Members::first_live([7]))])), "the other port still serves");
        assert_eq!(section.groups[&GroupId(100)].buckets.len(), 2);
        assert_eq!(section.groups[&GroupId(200)].buckets.len(), 1);
        assert_eq!(closing(&held, &ports), []);
    }
}
