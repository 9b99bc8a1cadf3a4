//! What entries are to a plan: which of them are replaced where they stand, which go last, and which say by one change where all
//! that comes afterwards goes.

use std::collections::{BTreeMap, BTreeSet};

use openflow::action::Action;
use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::oxm::Oxm;
use openflow::types::PortNo;

use crate::desired::{Flow, FlowKey, Section};
use crate::interpreter::SYN;
use crate::marks::{TreeVersion, group_version, metadata};
use crate::pipeline::{
    self, ADMIT, BALANCE, BEGIN, CLASSIFY, DELIVER, DRAIN, FLOOD, FORWARD, GUARD, LIMIT_PORT, RULES, STEER,
};
use crate::tenants;

/// Is it a way over links: an entry that sends frames for a destination on, or one that takes them in from a link?
pub(crate) fn is_way(key: &FlowKey, flow: &Flow) -> bool {
    let goes_on = |instruction: &Instruction| matches!(instruction, Instruction::GotoTable(STEER | FORWARD | FLOOD));
    match key.table {
        ADMIT => flow.instructions.iter().any(goes_on),
        STEER | FORWARD => flow.hops > 0,
        _ => false,
    }
}

/// The ports where what comes over a link is taken in.
pub fn takes_in(section: &Section) -> impl Iterator<Item = PortNo> {
    let lowest = FlowKey { table: ADMIT, priority: 0, matching: Match::default() };
    let admits = section.flows.range(lowest..).take_while(|(key, _)| key.table == ADMIT);
    admits.filter(|(key, flow)| is_way(key, flow)).filter_map(|(key, _)| key.matching.in_port())
}

/// The ports by which frames of known destination, or on their way to functions, are sent on over links first of all.
pub(crate) fn ways(section: &Section) -> BTreeSet<PortNo> {
    let sends = section.flows.iter().filter(|(key, flow)| key.table != ADMIT && is_way(key, flow));
    sends.filter_map(|(_, flow)| exit(flow)).collect()
}

/// What frames take when a way for those alone that entered here goes: that of all others for the same destination; `None`: it is
/// no such way.
pub(super) fn beneath(key: &FlowKey) -> Option<FlowKey> {
    let (mut tenant, mut destination) = (None, None);
    for field in key.matching.fields() {
        match field {
            Oxm::Metadata(value, Some(mask)) if mask & metadata::EDGE != 0 => tenant = Some(metadata::tenant(*value)),
            Oxm::EthDst(mac, None) => destination = Some(*mac),
            _ => {}
        }
    }
    tenant.zip(destination).filter(|_| key.table == FORWARD).map(|(tenant, mac)| tenants::onward(tenant, mac))
}

/// The version of the tree, if it is for frames that come over links and follow it.
pub fn floods(key: &FlowKey, flow: &Flow) -> Option<TreeVersion> {
    let matched = |field: &Oxm| match field {
        Oxm::Metadata(value, Some(mask)) if mask & metadata::TREE != 0 => Some(metadata::tree(*value)),
        _ => None,
    };
    let written = |instruction: &Instruction| match instruction {
        Instruction::WriteMetadata { metadata: value, .. } => Some(metadata::tree(*value)),
        _ => None,
    };
    match key.table {
        FLOOD => key.matching.fields().iter().find_map(matched),
        ADMIT if flow.instructions.contains(&Instruction::GotoTable(FLOOD)) => {
            flow.instructions.iter().find_map(written)
        }
        _ => None,
    }
}

/// The version of the tree that frames follow which enter here.
pub fn followed(section: &Section) -> Option<TreeVersion> {
    let lowest = FlowKey { table: FLOOD, priority: 0, matching: Match::default() };
    let floods = section.flows.range(lowest..).take_while(|(key, _)| key.table == FLOOD);
    floods.filter(|(key, _)| key.matching.in_port().is_none()).find_map(|(_, flow)| sent_along(flow))
}

/// The version of the tree that an entry sends frames along.
fn sent_along(flow: &Flow) -> Option<TreeVersion> {
    let [Instruction::ApplyActions(actions)] = flow.instructions.as_slice() else { return None };
    match actions.first() {
        Some(Action::Group { group }) => Some(group_version(*group)),
        _ => None,
    }
}

/// An entry that copies to the groups which both copy to, if there are some: like a group, it loses what goes first, and
/// then gets what comes.
pub(super) fn common_groups(old: &Flow, new: &Flow) -> Option<Flow> {
    let [Instruction::ApplyActions(now)] = old.instructions.as_slice() else { return None };
    let [Instruction::ApplyActions(then)] = new.instructions.as_slice() else { return None };
    let common = now.iter().filter(|action| matches!(action, Action::Group { .. }) && then.contains(action));
    let common: Vec<Action> = common.cloned().collect();
    let instructions = vec![Instruction::ApplyActions(common.clone())];
    (!common.is_empty()).then(|| Flow { instructions, ..new.clone() })
}

/// Do frames that enter here follow another version of the tree, which all bridges have by then? One frame after the other does.
pub(super) fn moves_on(old: &Flow, new: &Flow) -> bool {
    sent_along(old).zip(sent_along(new)).is_some_and(|(old, new)| old != new)
}

/// Do both send frames out of the same port here, whatever they do before: a meter comes or goes, or connections are remembered?
pub(super) fn same_exit(one: &Flow, other: &Flow) -> bool {
    let here = |flow: &Flow| exit(flow).filter(|_| flow.hops == 0);
    here(one).is_some() && here(one) == here(other)
}

/// The port that an entry sends frames out of in the end.
pub(super) fn exit(flow: &Flow) -> Option<PortNo> {
    let Some(Instruction::ApplyActions(actions)) = flow.instructions.last() else { return None };
    if let Some(Action::Output { port, .. }) = actions.last() { Some(*port) } else { None }
}

/// Is it one of the entries that rules and chains consist of? Frames that were admitted before the flip still need them.
pub(super) fn is_step(key: &FlowKey) -> bool {
    matches!(key.table, RULES | CLASSIFY | BALANCE | BEGIN | DRAIN | STEER | DELIVER)
}

/// Does it say which version of rules and chains frames are held against, or which instance they are sent to? These say so
/// for one frame after the other, each with all that it leads to in place.
pub(super) fn flips(key: &FlowKey, flow: &Flow) -> bool {
    let enters = |instruction: &Instruction| matches!(instruction, Instruction::WriteMetadata { metadata, .. } if metadata & metadata::EDGE != 0);
    match key.table {
        ADMIT => flow.instructions.iter().any(enters),
        table => table == BALANCE,
    }
}

/// Is it for segments that begin a connection? No bridge takes one for new before all others do, and until then it ends: its
/// answer could go back another way than it came. TCP sends it again.
pub(super) fn begins(key: &FlowKey) -> bool {
    let syn = |field: &Oxm| matches!(field, Oxm::TcpFlags(flags, _) if flags.get() & SYN != 0);
    key.table == BEGIN && key.matching.fields().iter().any(syn)
}

/// Does it take in frames that come back from a function? Until the flip some still do.
pub(super) fn is_return(key: &FlowKey, flow: &Flow) -> bool {
    let goes = |table| flow.instructions.contains(&Instruction::GotoTable(table));
    match key.table {
        ADMIT => goes(GUARD) && !flips(key, flow),
        GUARD => goes(CLASSIFY),
        _ => false,
    }
}

/// Do frames end there, but for a copy that the controller gets of what a port may not send?
pub(super) fn stops(key: &FlowKey, flow: &Flow) -> bool {
    let goes = |instruction: &Instruction| matches!(instruction, Instruction::GotoTable(_));
    flow.instructions.is_empty() || key.table == GUARD && !flow.instructions.iter().any(goes)
}

/// The tenant's port, if it is an entry that says who may send from one.
pub(super) fn sender(key: &FlowKey, flow: &Flow) -> Option<PortNo> {
    let passes = key.table == GUARD && flow.instructions == [Instruction::GotoTable(LIMIT_PORT)];
    key.matching.in_port().filter(|_| passes)
}

/// All ports with such entries.
pub(super) fn senders(section: &Section) -> BTreeSet<PortNo> {
    section.flows.iter().filter_map(|(key, flow)| sender(key, flow)).collect()
}

/// The port, if it is an entry for frames that come back from a function.
pub(super) fn returns(key: &FlowKey) -> Option<PortNo> {
    key.matching.in_port().filter(|_| key.table == CLASSIFY)
}

/// Functions' ports at which frames go on, before and after, but not all in the same way. There all entries go first, and
/// come when no frame is sent the old way any more: one that went in by the old policy must not go on by the new one.
/// A round that was overtaken may have taken the entries away: that frames of the port still get as far as to them tells.
pub(super) fn changed_returns(old: &Section, new: &Section) -> BTreeSet<PortNo> {
    let by_port = |section: &Section| {
        let mut ports: BTreeMap<PortNo, Vec<(FlowKey, Flow)>> = BTreeMap::new();
        for (key, flow) in &section.flows {
            if let Some(port) = returns(key) {
                ports.entry(port).or_default().push((key.clone(), flow.clone()));
            } else if let (GUARD, Some(port), [Instruction::GotoTable(CLASSIFY)]) =
                (key.table, key.matching.in_port(), flow.instructions.as_slice())
            {
                ports.entry(port).or_default();
            }
        }
        ports
    };
    let new = by_port(new);
    let old = by_port(old).into_iter();
    old.filter(|(port, entries)| new.get(port).is_some_and(|other| other != entries)).map(|(port, _)| port).collect()
}

/// May an entry be replaced where it stands?
pub(super) fn replaces(key: &FlowKey) -> bool {
    pipeline::table(key.table).is_some_and(|table| table.replace)
}
