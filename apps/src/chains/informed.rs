//! Whether bridges that can't be changed do with frames of service functions what they are to do by now.

use std::collections::{BTreeMap, BTreeSet};

use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::types::{DatapathId, PortNo};

use super::{Chains, FIRST, steered};
use crate::desired::{Flow, FlowKey, Section, SectionBuilder};
use crate::failover;
use crate::kept::Kept;
use crate::marks::{Direction, Owner, metadata, step_of};
use crate::pipeline::{BALANCE, CLASSIFY, STEER};
use crate::policy::{Chain, FunctionKind, OnFailure};
use crate::services::Placed;
use crate::view::View;

impl<'a> Chains<'a> {
    /// Leaves out the instances at bridges that can't be changed, as far as these would do something else with their frames by
    /// now: let them out elsewhere, or send on what comes back by former chains, past functions or in a circle.
    pub(super) fn leave_out_uninformed(&mut self, view: &View) {
        for dpid in self.bridges().into_iter().filter(|dpid| !view.is_responsive(*dpid)) {
            let informed = view.kept.get(&dpid).map(|kept| self.informed(dpid, kept)).unwrap_or_default();
            for (name, service) in &mut self.services {
                for (at, placed) in service.instances.iter_mut().enumerate() {
                    if placed.ports.values().any(|place| place.bridge == dpid) {
                        placed.informed = informed.contains(&(name, at));
                    }
                }
            }
        }
    }

    /// The instances at a bridge that it serves as it is to do by now, by their functions and places among these.
    fn informed(&self, dpid: DatapathId, kept: &Kept) -> BTreeSet<(&'a str, usize)> {
        let mut wanted = SectionBuilder::new(Owner(self.key));
        failover::compile(&mut wanted, self.key, self, dpid);
        let (wanted, used) = (wanted.build(), self.used());
        let returns = self.returns(dpid).into_iter();
        let strays =
            returns.filter(|(port, service, _, came)| !self.goes_on(kept, service.function.name.as_str(), came, *port));
        let strays: BTreeSet<PortNo> = strays.map(|(port, ..)| port).collect();
        let mut informed = BTreeSet::new();
        for (name, service) in &self.services {
            let ways = || Direction::ALL.into_iter().filter(|way| used.contains(&(*name, *way)));
            for (at, placed) in service.instances.iter().enumerate() {
                let back = || placed.ports.values().all(|place| !strays.contains(&place.port));
                if ways().all(|way| self.lets_in(kept, &wanted, placed, way)) && back() {
                    informed.insert((*name, at));
                }
            }
        }
        informed
    }

    /// Does it let frames out to an instance as it is to do by now?
    fn lets_in(&self, kept: &Kept, wanted: &Section, placed: &Placed<'_>, way: Direction) -> bool {
        let agrees = |key: &FlowKey| wanted.flows.get(key).is_some_and(|flow| kept.agrees(Owner(self.key), key, flow));
        let out = failover::delivered(self.key, placed, way);
        agrees(&steered(self.key, placed.waypoint(way))) && out.is_some_and(|key| agrees(&key))
    }

    /// Does what comes back from a function by a port go on to what comes later in its chain, and past nothing that mustn't be
    /// left out? It needn't be by the very entries that are wanted: other functions may have failed meanwhile.
    fn goes_on(&self, kept: &Kept, function: &str, came: &[Direction], port: PortNo) -> bool {
        let ways: Vec<(&Chain, Direction)> = self.passing(function, came).collect();
        if ways.is_empty() {
            return true;
        }
        let Some(entries) = kept.back(Owner(self.key), port) else { return false };
        let entries: Vec<_> = entries.into_iter().filter(|(key, _)| key.priority <= FIRST).collect();
        for broadcast in [true, false] {
            let all = self.all_back(port, broadcast);
            let mut known = entries.iter().filter(|(key, _)| {
                all.iter().any(|(priority, _, matching)| (key.priority, &key.matching) == (*priority, matching))
            });
            if !entries.is_empty() && known.clone().count() == entries.len() {
                return known.all(|(_, flow)| {
                    ways.iter().all(|(chain, direction)| self.leads_on(function, chain, *direction, flow))
                });
            }
        }
        let mut wanted = BTreeMap::new();
        for (rank, (chain, direction)) in (0..).zip(&ways) {
            for (priority, _, matching) in self.asked(rank, chain, *direction) {
                let matching = Match::new(matching.fields().iter().cloned().chain(self.back(port)));
                wanted.insert(FlowKey { table: CLASSIFY, priority, matching }, (*chain, *direction));
            }
        }
        let leads_on = |key: &FlowKey, flow: &Flow| {
            wanted.get(key).is_some_and(|(chain, direction)| self.leads_on(function, chain, *direction, flow))
        };
        entries.len() == wanted.len() && entries.into_iter().all(|(key, flow)| leads_on(key, flow))
    }

    /// Does an entry lead from a function to a later one of this chain, past none that mustn't be left out, or nowhere?
    fn leads_on(&self, function: &str, chain: &Chain, direction: Direction, flow: &Flow) -> bool {
        let then = flow.instructions.iter().filter(|it| !matches!(it, Instruction::ApplyActions(_)));
        let then: Vec<Instruction> = then.cloned().collect();
        let mut names: Vec<&str> = chain.through.iter().map(String::as_str).collect();
        if direction == Direction::Reverse {
            names.reverse();
        }
        for name in names.into_iter().skip_while(|name| *name != function).skip(1) {
            let Some(service) = self.services.get(name) else { return then.is_empty() };
            if service.function.kind == FunctionKind::Tap {
                continue;
            }
            let enters = |numbers: u32, table| {
                let metadata = metadata::step(self.key, step_of(numbers), service.side(direction));
                then == [Instruction::WriteMetadata { metadata, mask: u64::MAX }, Instruction::GotoTable(table)]
            };
            let one = service.instances.iter().any(|placed| enters(placed.numbers.key, STEER));
            if one || enters(service.numbers.key, BALANCE) {
                return true;
            }
            if service.function.on_failure == OnFailure::Drop {
                return then.is_empty();
            }
        }
        then.is_empty() || then == self.leave()
    }
}
