//! What is about to be sent is held against what must never happen. If it would, that is a fault of this program: nothing of
//! it is sent, the bridges keep what they have, and the operator is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use apps::checker::Checker;
use apps::marks::Owner;

use super::{Core, Level};

/// Violations of one owner that are told; one fault can show in thousands of entries.
const TOLD: usize = 3;

impl Core {
    /// Holds what these owners are to have against what must never happen, and takes back what would. Gives those whose
    /// changes may be sent. While ports or numbers go from one to another, that is all or none: who keeps what it has might
    /// keep what is somebody else's by now.
    pub(super) fn verified(&mut self, now: Instant, mut owners: BTreeSet<Owner>, whole: bool) -> BTreeSet<Owner> {
        let (policy, allocations, attachments) = (&self.policy, &self.memory.allocations, &self.attachments);
        let tables = &self.desired.bridges;
        // To whom a bridge refuses something it is one that doesn't answer.
        let apart = self.refused_owners();
        let together = Checker::new(policy, allocations, attachments, &self.view);
        let found = if whole { together.all(tables) } else { together.owners(tables, &(&owners - &apart)) };
        let mut found: Vec<_> = found.into_iter().filter(|violation| !apart.contains(&violation.owner)).collect();
        for owner in apart.intersection(&owners) {
            let view = self.view_of(*owner);
            found.extend(Checker::new(policy, allocations, attachments, &view).owners(tables, [owner]));
        }
        let mut faults: BTreeMap<Owner, Vec<String>> = BTreeMap::new();
        for violation in found {
            let text = format!("{} ({})", violation.text, violation.property);
            faults.entry(violation.owner).or_default().push(text);
        }
        self.faults.retain(|owner, _| !whole && !owners.contains(owner));
        if faults.is_empty() {
            return owners;
        }
        let mut refused: BTreeSet<Owner> = faults.keys().copied().collect();
        if self.rounds.handover {
            refused.extend(&owners);
        }
        for owner in &refused {
            owners.remove(owner);
            self.keep_installed(*owner);
        }
        for (owner, texts) in faults {
            let more = texts.len().saturating_sub(TOLD);
            let more = if more == 0 { String::new() } else { format!("; and {more} more like it") };
            let what = texts.into_iter().take(TOLD).collect::<Vec<_>>().join("; ");
            let text = format!(
                "a fault of this program would have broken the network, so nothing of it was sent, and the bridges keep what \
                 they have: {what}{more}; please report this with your policy"
            );
            self.notice(now, Level::Warning, &text);
            self.faults.insert(owner, text);
        }
        owners
    }

    /// What an owner is to have is what it has.
    fn keep_installed(&mut self, owner: Owner) {
        for (dpid, bridge) in self.bridges.iter().filter(|(_, bridge)| bridge.is_responsive()) {
            let state = self.desired.bridges.entry(*dpid).or_default();
            match bridge.installed.get(&owner) {
                Some(section) => drop(state.insert(owner, section.clone())),
                None => drop(state.remove(&owner)),
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use apps::desired::Flow;
    use apps::marks::cookie;
    use apps::pipeline::FORWARD;
    use apps::policy::{Source, load};
    use openflow::action::Action;
    use openflow::instruction::Instruction;
    use openflow::message::Message;
    use openflow::port::Port;
    use openflow::switch::Role;
    use openflow::types::{DatapathId, MacAddr, PortNo};

    use super::super::bridge::{Bridge, Connection};
    use super::super::{Effect, Event, Memory, SessionId, Settings};
    use super::*;
    use crate::snapshot::PolicyStatus;

    pub(in crate::core) const GREEN: Owner = Owner(100);
    const ORANGE: Owner = Owner(200);

    /// A core with a bridge that answers and holds nothing, and what it should hold: two tenants with two ports each.
    pub(in crate::core) fn two_tenants(now: Instant) -> Core {
        let tenant = |name: &str, key: u32, last: u8| {
            format!(
                "[[tenant]]\nname = \"{name}\"\nkey = {key}\nports = [{{ bridge = \"*\", port = \"{name}-*\" }}, \
                 {{ bridge = \"0000000000000001\", port = \"{name}-x\", mac = \"02:00:00:00:00:0{last}\" }}]\n"
            )
        };
        let text = format!("version = 1\n{}{}", tenant("green", 100, 1), tenant("orange", 200, 2));
        let policy = load(&[Source { name: "a.toml".into(), text }]).expect("sound").policy;
        let mut core = Core::new(now, Settings { probe_key: [0; 32], memory: Memory::default(), bridges_max: 10 });
        let mut bridge = Bridge::default();
        bridge.was_read = true;
        let names = ["green-x", "green-y", "orange-x", "orange-y"];
        bridge.set_ports((1..).zip(names).map(|(n, name)| Port::new(PortNo(n), MacAddr::default(), name)).collect());
        let address = ([127, 0, 0, 1], 1).into();
        bridge.connection = Some(Connection::new(now, SessionId(1), address, Role::Equal));
        core.bridges.insert(DatapathId(1), bridge);
        core.handle(now, Event::Policy(Arc::new(policy), PolicyStatus::default()));
        core.compile_all();
        core.rounds.all_dirty = false;
        core
    }

    /// The same, but green's known host is reached by a port of orange's.
    fn faulty(now: Instant) -> Core {
        let mut core = two_tenants(now);
        let state = core.desired.bridges.get_mut(&DatapathId(1)).expect("it answers");
        let section = Arc::make_mut(state.get_mut(&GREEN).expect("it has ports"));
        let known =
            |flow: &&mut Flow| flow.instructions == [Instruction::ApplyActions(vec![Action::output(PortNo(1))])];
        let forward = section.flows.iter_mut().filter(|(key, _)| key.table == FORWARD).map(|(_, flow)| flow);
        let flow = forward.into_iter().find(known).expect("green's host is known");
        flow.instructions = vec![Instruction::ApplyActions(vec![Action::output(PortNo(3))])];
        core
    }

    /// Owners of the entries that were sent.
    fn sent(core: &mut Core) -> BTreeSet<Owner> {
        let messages = std::mem::take(&mut core.effects).into_iter().filter_map(|effect| match effect {
            Effect::Send { messages, .. } => Some(messages),
            _ => None,
        });
        let owner = |message: &Message| match message {
            Message::FlowMod(change) => cookie::owner(change.cookie),
            _ => None,
        };
        messages.flatten().filter_map(|(_, message)| owner(&message)).collect()
    }

    #[test]
    fn what_would_break_the_network_is_not_sent_but_told_and_others_go_on() {
        let now = Instant::now();
        let mut core = faulty(now);
        core.start_round(now, BTreeSet::from([Owner::FABRIC, GREEN, ORANGE]), true);
        assert_eq!(sent(&mut core), BTreeSet::from([Owner::FABRIC, ORANGE]));
        let status = core.snapshot(now).status;
        assert!(!status.converged);
        let problem = status.problems.iter().find(|problem| problem.contains("fault of this program"));
        let problem = problem.expect("it is told");
        assert!(problem.contains("port 3, which is tenant orange's"), "{problem}");
        assert!(!core.rounds.can_start(), "it isn't tried again until something changes");
        // When it is computed anew, without the fault, it goes out.
        core.compile_owner(GREEN);
        core.start_round(now, BTreeSet::from([GREEN]), false);
        assert_eq!(sent(&mut core), BTreeSet::from([GREEN]));
        assert!(core.faults.is_empty());
    }

    #[test]
    fn while_ports_change_hands_nothing_is_sent_beside_a_fault() {
        let now = Instant::now();
        let mut core = faulty(now);
        core.rounds.handover = true;
        core.start_round(now, BTreeSet::from([Owner::FABRIC, GREEN, ORANGE]), true);
        assert_eq!(sent(&mut core), BTreeSet::new());
        assert!(core.rounds.handover && !core.rounds.can_start());
        assert_eq!(core.faults.len(), 1);
    }
}
