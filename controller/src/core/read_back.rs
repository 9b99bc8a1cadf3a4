//! What bridges tell that they have is held against what must never be, before it is put right. That finds what somebody else
//! put there while nobody looked, and faults of this program that got through. It only tells: nothing waits for it.

use std::collections::BTreeSet;
use std::time::Instant;

use apps::checker::{Checker, Tables, contradictions};
use apps::marks::Owner;
use openflow::types::DatapathId;

use super::notices::About;
use super::{Core, Level};

/// Entries of one bridge, or circles, that are told of.
const TOLD: usize = 3;

impl Core {
    /// Looks at what bridges told since the last time, each by itself. No link has to be known for that.
    pub(super) fn judge_told(&mut self, now: Instant) {
        let due =
            self.bridges.iter_mut().filter_map(|(dpid, bridge)| std::mem::take(&mut bridge.unjudged).then_some(*dpid));
        let due: Vec<DatapathId> = due.collect();
        for dpid in due {
            let Some(bridge) = self.bridges.get(&dpid) else { continue };
            let name = |owner: Owner| match self.tenant_of(owner) {
                Some(name) => format!("tenant {name}"),
                None if owner == Owner::FABRIC => "nobody".to_owned(),
                None => format!("a former tenant with key {}", owner.0),
            };
            let found = contradictions(&bridge.installed, name);
            let (bridge_name, owners) = (bridge.name.clone(), bridge.installed.keys().copied());
            self.suspects.extend(owners);
            let more = found.len().saturating_sub(TOLD);
            let mut texts: Vec<String> = found
                .into_iter()
                .take(TOLD)
                .map(|text| {
                    format!("bridge {bridge_name} has what this controller never gave it: {text}; it is put right")
                })
                .collect();
            if more > 0 {
                texts.push(format!("bridge {bridge_name} has {more} more entries that this controller never gave it; they are put right"));
            }
            for text in texts {
                self.problem(now, dpid, &text);
            }
        }
    }

    /// Looks whether what bridges have of these owners leads in circles, now that their links are known.
    pub(super) fn judge_ways(&mut self, now: Instant, owners: &BTreeSet<Owner>) {
        let suspects = &self.suspects & owners;
        if suspects.is_empty() {
            return;
        }
        self.suspects = &self.suspects - owners;
        let answering = self.bridges.iter().filter(|(_, bridge)| bridge.is_responsive());
        let tables: Tables = answering.map(|(dpid, bridge)| (*dpid, bridge.installed.clone())).collect();
        let checker = Checker::new(&self.policy, &self.memory.allocations, &self.attachments, &self.view);
        for violation in checker.circles(&tables, &suspects).into_iter().take(TOLD) {
            let text = format!("by what bridges had before this round, {}; it is put right", violation.text);
            self.notices.remember(now, About::Fabric, &text);
            self.notice(now, Level::Warning, &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apps::desired::{Flow, FlowKey};
    use apps::marks::{cookie, metadata};
    use apps::pipeline::{ADMIT, FORWARD};
    use apps::view::{Carrier, Endpoint, Link};
    use openflow::action::Action;
    use openflow::flow::FlowModFlags;
    use openflow::instruction::Instruction;
    use openflow::matching::Match;
    use openflow::oxm::Oxm;
    use openflow::switch::Role;
    use openflow::types::{Cookie, MacAddr, PortNo};

    use super::super::SessionId;
    use super::super::bridge::{Bridge, Connection};
    use super::super::verify::tests::{GREEN, two_tenants};
    use super::*;

    const BRIDGE: DatapathId = DatapathId(1);

    fn sends(cookie: Cookie, actions: Vec<Action>) -> Flow {
        let instructions = vec![Instruction::ApplyActions(actions)];
        Flow { cookie, idle_timeout: 0, flags: FlowModFlags::empty(), instructions, hops: 0, origin: None }
    }

    /// What is told of a bridge that has all it should and this.
    fn told(key: FlowKey, flow: Flow) -> Vec<String> {
        let now = Instant::now();
        let mut core = two_tenants(now);
        let owner = cookie::owner(flow.cookie).unwrap_or(Owner::FABRIC);
        let desired = core.desired.bridges[&BRIDGE].clone();
        let bridge = core.bridges.get_mut(&BRIDGE).expect("it answers");
        (bridge.installed, bridge.unjudged) = (desired, true);
        core.judge_told(now);
        assert_eq!(core.notices.problems(now).collect::<Vec<_>>(), Vec::<&str>::new(), "what it should have");
        let bridge = core.bridges.get_mut(&BRIDGE).expect("it answers");
        let section = Arc::make_mut(bridge.installed.entry(owner).or_default());
        section.flows.insert(key, flow);
        bridge.unjudged = true;
        core.judge_told(now);
        assert!(core.suspects.contains(&GREEN));
        core.notices.problems(now).map(str::to_owned).collect()
    }

    #[test]
    fn what_a_bridge_can_never_have_got_is_told_with_the_entry() {
        let to = |last| {
            Match::new([Oxm::Metadata(100, Some(metadata::TENANT)), Oxm::EthDst(MacAddr([2, 0, 0, 0, 9, last]), None)])
        };
        let by = |port| Match::new([Oxm::InPort(PortNo(port), None)]);
        let forward = |last| FlowKey { table: FORWARD, priority: 50, matching: to(last) };
        let green = |table| cookie::of(GREEN, table);
        let says = |key: u32| {
            let metadata = metadata::entered(key, 1);
            vec![Instruction::WriteMetadata { metadata, mask: u64::MAX }, Instruction::GotoTable(apps::pipeline::GUARD)]
        };
        let admits = |key| Flow { instructions: says(key), ..sends(green(ADMIT), Vec::new()) };
        let admit = |port| FlowKey { table: ADMIT, priority: 50, matching: by(port) };
        for (key, flow, text) in [
            (
                forward(1),
                sends(green(FORWARD), vec![Action::output(PortNo(3))]),
                "of tenant green out of port 3, which is tenant orange's",
            ),
            (forward(2), sends(green(FORWARD), vec![Action::output(PortNo::NORMAL)]), "to the bridge's own switching"),
            (
                forward(3),
                sends(green(FORWARD), vec![Action::SetField(Oxm::TunnelId(200, None)), Action::output(PortNo(9))]),
                "of tenant green on as those of tenant orange",
            ),
            (admit(3), admits(100), "lets in by port 3 as tenant green's what is tenant orange's"),
            (admit(9), admits(200), "of tenant green as those of tenant orange"),
            (admit(8), sends(Cookie(7), vec![Action::output(PortNo(1))]), "isn't this controller's"),
        ] {
            let name = format!("table {}", key.table.0);
            let told = told(key, flow);
            let fits = |told: &&String| {
                told.starts_with("bridge 0000000000000001 has what") && told.contains(text) && told.contains(&name)
            };
            assert!(told.iter().any(|told| fits(&told)), "{text}: {told:#?}");
        }
    }

    /// Two bridges that send green's frames for one host to each other.
    #[test]
    fn what_led_in_a_circle_is_told_once_when_the_round_begins() {
        let now = Instant::now();
        let mut core = two_tenants(now);
        let mut other = Bridge::default();
        other.connection = Some(Connection::new(now, SessionId(2), ([127, 0, 0, 1], 2).into(), Role::Equal));
        core.bridges.insert(DatapathId(2), other);
        let end = |dpid| Endpoint { bridge: DatapathId(dpid), port: PortNo(9) };
        core.view.links = vec![Link { a: end(1), b: end(2), carrier: Carrier::Tunnel }];
        let to = [Oxm::Metadata(100, Some(metadata::TENANT)), Oxm::EthDst(MacAddr([2, 0, 0, 0, 9, 9]), None)];
        let key = FlowKey { table: FORWARD, priority: 10, matching: Match::new(to) };
        let over = vec![Action::SetField(Oxm::TunnelId(100, None)), Action::output(PortNo(9))];
        for bridge in core.bridges.values_mut() {
            let section = Arc::make_mut(bridge.installed.entry(GREEN).or_default());
            section.flows.insert(key.clone(), sends(cookie::of(GREEN, FORWARD), over.clone()));
            bridge.unjudged = true;
        }
        core.judge_told(now);
        assert_eq!(core.notices.problems(now).count(), 0, "each by itself is sound");
        core.judge_ways(now, &BTreeSet::from([Owner(200)]));
        assert_eq!(core.notices.problems(now).count(), 0, "green's turn hasn't come");
        core.judge_ways(now, &BTreeSet::from([GREEN]));
        let told: Vec<&str> = core.notices.problems(now).collect();
        let circle = "tenant green: frames for 020000000909 would go around in a circle";
        assert!(matches!(&told[..], [told] if told.contains(circle) && told.contains("put right")), "{told:?}");
        assert!(!core.suspects.contains(&GREEN));
    }

    #[test]
    fn a_bridge_that_was_never_ours_may_have_what_it_likes() {
        let now = Instant::now();
        let mut core = two_tenants(now);
        let bridge = core.bridges.get_mut(&BRIDGE).expect("it answers");
        let key = FlowKey { table: ADMIT, priority: 0, matching: Match::default() };
        let flow = sends(Cookie(0), vec![Action::output(PortNo::NORMAL)]);
        Arc::make_mut(bridge.installed.entry(Owner::FABRIC).or_default()).flows.insert(key, flow);
        bridge.unjudged = true;
        core.judge_told(now);
        assert_eq!(core.notices.problems(now).count(), 0);
        assert_eq!(core.suspects, BTreeSet::from([Owner::FABRIC]));
    }
}
