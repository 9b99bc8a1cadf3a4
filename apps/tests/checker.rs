//! Goal: whatever the checker looks at, it tells when that is wrong, as what it is. Method: three bridges in a ring with two
//! tenants and a chain; one thing is changed by hand in what is compiled for them, and has to be told.

use std::collections::BTreeMap;
use std::sync::Arc;

use apps::allocation::Allocations;
use apps::attachment::attach;
use apps::checker::{Checker, Property, Tables};
use apps::compile::compile;
use apps::desired::{Flow, FlowKey, Section};
use apps::marks::{Owner, TreeVersion, metadata};
use apps::pipeline::{
    ADMIT, BALANCE, BEGIN, CLASSIFY, DELIVER, DRAIN, FLOOD, FORWARD, GUARD, LEARN, LIMIT_PORT, RULES, STEER,
};
use apps::policy::{Policy, Source, load};
use apps::view::{Bridge, Carrier, Endpoint, Host, Hosts, Link, PortView, View};
use openflow::action::{Action, BitRange, BundleLoad, LearnSpec, LearnTarget};
use openflow::group::Bucket;
use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::oxm::{FieldId, Oxm};
use openflow::types::{DatapathId, MacAddr, PortNo, TableId};

const GREEN: Owner = Owner(100);
const HOST: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

const POLICY: &str = r#"version = 1
[[tenant]]
name = "green"
key = 100
ports = [{ bridge = "*", port = "green-*" }]
[[tenant.function]]
name = "fw"
kind = "wire"
on_failure = "bypass"
instances = [
  { name = "fw-1", bridge = "b2", ingress = "fw-in", egress = "fw-out" },
  { name = "fw-2", bridge = "b3", ingress = "fx-in", egress = "fx-out", drain = true },
  { name = "fw-3", bridge = "b3", ingress = "fy-in", egress = "fy-out" },
]
[[tenant.function]]
name = "ids"
kind = "wire"
on_failure = "drop"
instances = [{ name = "ids-1", bridge = "b3", ingress = "ids-in", egress = "ids-out" }]
[[tenant.function]]
name = "tap"
kind = "tap"
instances = [{ name = "tap-1", bridge = "b1", ingress = "tap" }]
[[tenant.function]]
name = "gw"
kind = "routed"
on_failure = "bypass"
instances = [{ name = "gw-1", bridge = "b2", ingress = "gw", mac = "02:00:00:00:00:fe" }]
[[tenant.chain]]
name = "web"
through = ["tap", "fw", "ids"]
match = [{ protocol = "tcp", destination_port = 80 }]
[[tenant.chain]]
name = "names"
priority = 1
through = ["gw", "ids"]
match = [{ protocol = "udp", destination_port = 53 }]
[[tenant]]
name = "orange"
key = 200
ports = [{ bridge = "*", port = "orange-*" }]
"#;

struct Fabric {
    policy: Policy,
    allocations: Allocations,
    view: View,
    tables: Tables,
}

/// Ports 1 and 2 of each bridge lead to the next and to the last one; then come green's, orange's, and functions'.
fn fabric(carrier: Carrier) -> Fabric {
    let policy = load(&[Source { name: "a.toml".into(), text: POLICY.into() }]).expect("sound").policy;
    let allocations = Allocations::default().updated(&policy);
    let mut view = View::default();
    for (dpid, more) in [
        (1, &["tap"][..]),
        (2, &["fw-in", "fw-out", "gw"]),
        (3, &["ids-in", "ids-out", "fx-in", "fx-out", "fy-in", "fy-out"]),
    ] {
        let names = ["next", "last", "green-1", "orange-1", "stray"].into_iter().chain(more.iter().copied());
        let ports = (1..)
            .map(PortNo)
            .zip(names.map(|name| PortView { name: name.into(), up: true, ..PortView::default() }))
            .collect();
        view.bridges.insert(DatapathId(dpid), Bridge { name: format!("b{dpid}"), responsive: true, ports });
    }
    let end = |dpid, port| Endpoint { bridge: DatapathId(dpid), port: PortNo(port) };
    view.links = vec![
        Link { a: end(1, 1), b: end(2, 2), carrier },
        Link { a: end(1, 2), b: end(3, 1), carrier },
        Link { a: end(2, 1), b: end(3, 2), carrier },
    ];
    let host = |tenant: &str, port| {
        let place = Endpoint { bridge: DatapathId(1), port: PortNo(port) };
        (tenant.to_owned(), Hosts::from([(HOST, Host { place, fresh: true })]))
    };
    let hosts = BTreeMap::from([host("green", 3), host("orange", 4)]);
    let tables = compile(&policy, &allocations, &view, &hosts).bridges;
    Fabric { policy, allocations, view, tables }
}

impl Fabric {
    fn told(&self) -> Vec<(Property, String)> {
        let attachments = attach(&self.policy, &self.view);
        let checker = Checker::new(&self.policy, &self.allocations, &attachments, &self.view);
        let all = checker.all(&self.tables);
        let green: Vec<_> = all.iter().filter(|it| it.owner == GREEN).cloned().collect();
        assert_eq!(checker.owners(&self.tables, &[GREEN]), green, "one owner by itself");
        all.into_iter().map(|it| (it.property, it.text)).collect()
    }

    fn green(&mut self, dpid: u64) -> &mut Section {
        Arc::make_mut(self.tables.get_mut(&DatapathId(dpid)).unwrap().get_mut(&GREEN).unwrap())
    }

    /// The first entry of green's in a table at a bridge that fits.
    fn entry(&mut self, dpid: u64, table: TableId, fits: impl Fn(&FlowKey, &Flow) -> bool) -> (FlowKey, &mut Flow) {
        let mut all = self.green(dpid).flows.iter_mut().filter(|(key, _)| key.table == table);
        let (key, flow) = all.find(|(key, flow)| fits(key, flow)).expect("there is one");
        (key.clone(), flow)
    }
}

fn any(_: &FlowKey, _: &Flow) -> bool {
    true
}

fn at(port: u32) -> impl Fn(&FlowKey, &Flow) -> bool {
    move |key, flow| key.matching.in_port() == Some(PortNo(port)) && !flow.instructions.is_empty() && key.priority < 40
}

/// Does it send known frames, or those of a chain, over a link?
fn onward(_: &FlowKey, flow: &Flow) -> bool {
    flow.hops > 0
}

fn goes_to(flow: &mut Flow, table: TableId) {
    flow.instructions.retain(|it| !matches!(it, Instruction::GotoTable(_)));
    flow.instructions.push(Instruction::GotoTable(table));
}

fn says(flow: &mut Flow, change: impl Fn(u64) -> u64) {
    for instruction in &mut flow.instructions {
        if let Instruction::WriteMetadata { metadata, .. } = instruction {
            *metadata = change(*metadata);
        }
    }
}

fn sends(flow: &mut Flow, actions: Vec<Action>) {
    flow.instructions = vec![Instruction::ApplyActions(actions)];
}

/// Changes what bridge 1 remembers of connections.
fn learns(it: &mut Fabric, change: impl Fn(&mut Vec<LearnSpec>)) {
    let mut learnt = false;
    for (_, flow) in it.green(1).flows.iter_mut().filter(|(key, _)| key.table == BEGIN) {
        if let Some(Instruction::ApplyActions(actions)) = flow.instructions.first_mut()
            && let Some(Action::LimitedLearn(limited)) = actions.first_mut()
        {
            change(&mut limited.learn.specs.0);
            learnt = true;
        }
    }
    assert!(learnt);
}

/// Sends green's frames over a tunnel.
fn over(port: u32, key: u64) -> Vec<Action> {
    vec![Action::SetField(Oxm::TunnelId(key, None)), Action::output(PortNo(port))]
}

/// Does it let frames out to a function?
fn lets_out(_: &FlowKey, flow: &Flow) -> bool {
    actions(flow).is_some_and(|all| matches!(all.last(), Some(Action::Output { .. })))
}

/// Does it resubmit frames to a table?
fn goes(table: TableId) -> impl Fn(&FlowKey, &Flow) -> bool {
    move |_, flow| actions(flow).is_some_and(|all| all.last() == Some(&resubmit(table)))
}

fn actions(flow: &Flow) -> Option<&Vec<Action>> {
    match flow.instructions.first() {
        Some(Instruction::ApplyActions(actions)) => Some(actions),
        _ => None,
    }
}

fn resubmit(table: TableId) -> Action {
    Action::Resubmit { in_port: 0xfff8, table }
}

/// Changes the first of what an entry asks for.
fn asks(flow: &mut Flow, change: impl Fn(&mut BundleLoad)) {
    if let Some(Instruction::ApplyActions(actions)) = flow.instructions.first_mut()
        && let Some(Action::BundleLoad(load)) = actions.first_mut()
    {
        change(load);
    }
}

type Spoil = fn(&mut Fabric);

/// What is changed, and what has to be told of it.
const CASES: &[(&str, Property, &str, Spoil)] = &[
    ("a stray port is let in", Property::Isolation, "a port that isn't the tenant's", |it| {
        let (key, flow) = it.entry(1, ADMIT, at(3));
        let flow = flow.clone();
        let matching = Match::new([Oxm::InPort(PortNo(5), None)]);
        it.green(1).flows.insert(FlowKey { matching, ..key }, flow);
    }),
    ("orange's port is let in", Property::Isolation, "tenant orange's", |it| {
        let (key, flow) = it.entry(1, ADMIT, at(3));
        let flow = flow.clone();
        let matching = Match::new([Oxm::InPort(PortNo(4), None)]);
        it.green(1).flows.insert(FlowKey { matching, ..key }, flow);
    }),
    ("frames are called orange's", Property::Isolation, "key 200", |it| {
        says(it.entry(1, ADMIT, at(3)).1, |value| value & !metadata::TENANT | 200);
    }),
    ("a link's mark stands for something else", Property::Isolation, "stands for something else", |it| {
        goes_to(it.entry(1, ADMIT, |key, _| key.matching.tunnel_id() == Some(100)).1, FLOOD);
    }),
    ("a host's frames pass by the rules", Property::Form, "otherwise than through rules", |it| {
        goes_to(it.entry(1, ADMIT, at(3)).1, FORWARD);
    }),
    ("frames of a function enter", Property::Chain, "as if they hadn't passed", |it| {
        says(it.entry(2, ADMIT, at(7)).1, |value| value | metadata::EDGE);
    }),
    ("what a tap sends is let in", Property::Chain, "what a tap sends", |it| {
        let (key, _) = it.entry(1, ADMIT, at(3));
        let (_, flow) = it.entry(2, ADMIT, at(7));
        let flow = flow.clone();
        let matching = Match::new([Oxm::InPort(PortNo(6), None)]);
        it.green(1).flows.insert(FlowKey { matching, ..key }, flow);
    }),
    ("the guard is left", Property::Form, "passes by a stage", |it| goes_to(it.entry(1, GUARD, at(3)).1, RULES)),
    ("rules are passed by", Property::Form, "passes by a stage", |it| goes_to(it.entry(1, LEARN, at(3)).1, CLASSIFY)),
    ("rules lead past chains", Property::Form, "something else than", |it| {
        goes_to(it.entry(1, RULES, any).1, FORWARD);
    }),
    ("frames go back", Property::Form, "an earlier table", |it| goes_to(it.entry(1, RULES, any).1, GUARD)),
    ("a meter isn't there", Property::Form, "which isn't there", |it| {
        it.entry(1, RULES, any).1.instructions.insert(0, Instruction::Meter(openflow::types::MeterId(0x1234)));
    }),
    ("a group isn't there", Property::Form, "doesn't have", |it| it.green(1).groups.clear()),
    ("known frames leave by orange's port", Property::Isolation, "tenant orange's", |it| {
        sends(
            it.entry(1, FORWARD, |key, flow| key.priority == 10 && flow.hops == 0).1,
            vec![Action::output(PortNo(4))],
        );
    }),
    ("known frames leave unmarked", Property::Isolation, "without the mark", |it| {
        sends(it.entry(2, FORWARD, onward).1, vec![Action::output(PortNo(2))]);
    }),
    ("known frames leave with orange's mark", Property::Isolation, "without the mark", |it| {
        sends(it.entry(2, FORWARD, onward).1, over(2, 200));
    }),
    ("known frames leave as flooded ones", Property::Isolation, "without the mark", |it| {
        sends(it.entry(2, FORWARD, onward).1, over(2, 100 | 0x80_0000));
    }),
    ("an entry is for any tenant's frames", Property::Isolation, "may be another tenant's", |it| {
        let (key, flow) = it.entry(2, FORWARD, onward);
        let flow = flow.clone();
        let matching = Match::new([Oxm::EthDst(HOST, None)]);
        it.green(2).flows.insert(FlowKey { matching, ..key }, flow);
    }),
    ("a bridge floods as it would without OpenFlow", Property::Isolation, "neither the tenant's nor a link", |it| {
        sends(
            it.entry(1, FORWARD, |key, flow| key.priority == 10 && flow.hops == 0).1,
            vec![Action::output(PortNo::NORMAL)],
        );
    }),
    ("known frames go around", Property::Loop, "around in a circle", |it| {
        for dpid in 1..=3 {
            sends(it.entry(dpid, FORWARD, |key, _| key.priority == 10).1, over(1, 100));
        }
    }),
    ("known frames are flooded on their way", Property::Loop, "throw them back and forth", |it| {
        let (key, flow) = it.entry(1, FORWARD, |key, _| key.priority == 1);
        let flow = flow.clone();
        let matching = Match::new([Oxm::Metadata(100, Some(metadata::TENANT))]);
        it.green(1).flows.insert(FlowKey { matching, ..key }, flow);
    }),
    ("floods go around", Property::Loop, "twice", |it| {
        for dpid in 1..=3 {
            let (key, flow) = it.entry(dpid, FLOOD, |key, _| key.matching.in_port().is_none());
            let flow = flow.clone();
            let section = it.green(dpid);
            for port in [1, 2] {
                let came = Oxm::Metadata(100, Some(metadata::TENANT | metadata::EDGE | metadata::TREE));
                let matching = Match::new([came, Oxm::InPort(PortNo(port), None)]);
                section.flows.insert(FlowKey { matching, ..key.clone() }, flow.clone());
                let group = section.groups.values_mut().next().unwrap();
                group.buckets.retain(|bucket| !bucket.actions.contains(&Action::output(PortNo(port))));
                group.buckets.push(Bucket::new(over(port, 100 | 0x80_0000)));
            }
        }
    }),
    ("floods change trees on their way", Property::Loop, "another version of the tree", |it| {
        let (key, flow) = it.entry(1, FLOOD, |key, _| key.matching.in_port().is_some());
        let (port, flow) = (key.matching.in_port().unwrap(), flow.clone());
        let came = metadata::flooded(100, TreeVersion::Odd);
        let came = Oxm::Metadata(came, Some(metadata::TENANT | metadata::EDGE | metadata::TREE));
        let matching = Match::new([came, Oxm::InPort(port, None)]);
        it.green(1).flows.insert(FlowKey { matching, ..key }, flow);
    }),
    ("floods are taken in as those of another tree", Property::Isolation, "stands for something else", |it| {
        says(it.entry(1, ADMIT, |_, flow| flow.instructions.contains(&Instruction::GotoTable(FLOOD))).1, |value| {
            value | metadata::TREE
        });
    }),
    ("a flood leaves twice by one port", Property::Loop, "two copies", |it| {
        let group = it.green(1).groups.values_mut().next().unwrap();
        let bucket = group.buckets[0].clone();
        group.buckets.push(bucket);
    }),
    ("a function is left out where frames enter", Property::Chain, "past a function that works", |it| {
        // What b3's fw gives back goes to ids: so should not what enters.
        let (_, next) = it.entry(3, CLASSIFY, |key, _| key.matching.in_port() == Some(PortNo(9)));
        let next = next.instructions.clone();
        it.entry(1, CLASSIFY, |key, _| key.priority > 1 && key.matching.in_port().is_none()).1.instructions = next;
    }),
    ("a function is left out behind another", Property::Chain, "past a function that works", |it| {
        let next = vec![
            Instruction::WriteMetadata { metadata: metadata::edge(100), mask: u64::MAX },
            Instruction::GotoTable(FORWARD),
        ];
        it.entry(2, CLASSIFY, |key, _| key.matching.in_port() == Some(PortNo(7))).1.instructions = next;
    }),
    ("a tap gets no copy", Property::Chain, "past a function that works", |it| {
        let (_, flow) = it.entry(1, CLASSIFY, |key, _| key.priority > 1 && key.matching.in_port().is_none());
        for instruction in &mut flow.instructions {
            if let Instruction::ApplyActions(actions) = instruction {
                actions.retain(|action| !matches!(action, Action::Clone(_)));
            }
        }
    }),
    ("another function's instance is chosen", Property::Chain, "no instance of their function", |it| {
        let ids = it.entry(3, CLASSIFY, |key, _| key.matching.in_port() == Some(PortNo(9))).1.instructions.clone();
        let next = ids
            .iter()
            .find_map(|it| if let Instruction::WriteMetadata { metadata, .. } = it { Some(*metadata) } else { None });
        let next = next.expect("it leads to ids");
        says(it.entry(1, BALANCE, |_, flow| flow.instructions.contains(&Instruction::GotoTable(STEER))).1, |_| next);
        says(it.entry(1, DRAIN, any).1, |_| next);
    }),
    ("another function's instance is chosen for what is new", Property::Chain, "no instance of their function", |it| {
        says(it.entry(1, DRAIN, |key, _| key.priority == 20).1, |metadata| metadata ^ 1 << 25);
    }),
    ("what finds out about connections sends frames out", Property::Chain, "does more with frames", |it| {
        let (_, flow) = it.entry(1, BEGIN, any);
        flow.instructions[0] = Instruction::ApplyActions(vec![Action::output(PortNo(3))]);
    }),
    ("what finds out about connections leads past its function", Property::Chain, "does more with frames", |it| {
        goes_to(it.entry(1, BEGIN, any).1, FORWARD);
    }),
    ("what is remembered sends frames out", Property::Chain, "does more with frames", |it| {
        learns(it, |specs| specs.push(LearnSpec { target: LearnTarget::Output, ..specs[specs.len() - 1].clone() }));
    }),
    ("what is remembered counts for all functions", Property::Chain, "does more with frames", |it| {
        learns(it, |specs| drop(specs.remove(0)));
    }),
    ("what is remembered is in another table", Property::Chain, "does more with frames", |it| {
        let resubmits = |_: &FlowKey, flow: &Flow| {
            matches!(&flow.instructions[0],
            Instruction::ApplyActions(actions) if matches!(actions[0], Action::Resubmit { .. }))
        };
        let (_, flow) = it.entry(1, BEGIN, resubmits);
        flow.instructions[0] = Instruction::ApplyActions(vec![Action::Resubmit { in_port: 0xfff8, table: FORWARD }]);
    }),
    ("frames for a function get to a host", Property::Chain, "past their function", |it| {
        sends(it.entry(2, STEER, |_, flow| flow.hops == 0).1, vec![Action::output(PortNo(3))]);
    }),
    ("frames go in by a function's other port", Property::Chain, "aren't for it", |it| {
        sends(it.entry(2, STEER, |_, flow| flow.hops == 0).1, vec![Action::output(PortNo(7))]);
    }),
    ("another port is asked for", Property::Chain, "asks for something else", |it| {
        asks(it.entry(2, STEER, |_, flow| flow.hops == 0).1, |load| load.members.members = vec![7]);
    }),
    ("a port is asked for that is written elsewhere", Property::Chain, "asks for something else", |it| {
        asks(it.entry(2, STEER, |_, flow| flow.hops == 0).1, |load| load.range = BitRange::new(16, 16).unwrap());
    }),
    ("frames are led on instead of out", Property::Chain, "past the function", |it| {
        goes_to(it.entry(2, STEER, |_, flow| flow.hops == 0).1, FORWARD);
    }),
    ("frames go out to a host instead of a function", Property::Chain, "past their function", |it| {
        sends(it.entry(2, DELIVER, lets_out).1, vec![Action::output(PortNo(3))]);
    }),
    ("frames go out to a function by its other port", Property::Chain, "aren't for it", |it| {
        sends(it.entry(2, DELIVER, lets_out).1, vec![Action::output(PortNo(7))]);
    }),
    ("who mustn't be left out is", Property::Chain, "may not be left out", |it| {
        let (_, flow) = it.entry(3, DELIVER, goes(CLASSIFY));
        let past = flow.instructions.clone();
        it.entry(3, DELIVER, |_, flow| flow.instructions.is_empty()).1.instructions = past;
    }),
    ("who works is left out", Property::Chain, "a function that works", |it| {
        let past = it.entry(2, DELIVER, goes(CLASSIFY)).1.instructions.clone();
        it.entry(2, DELIVER, lets_out).1.instructions = past;
    }),
    ("who is left out gives frames back by its other port", Property::Chain, "may not be left out", |it| {
        for instruction in &mut it.entry(2, DELIVER, goes(CLASSIFY)).1.instructions {
            if let Instruction::ApplyActions(actions) = instruction {
                actions.retain(|action| !matches!(action, Action::RegLoad { .. }));
                let range = BitRange::new(0, 16).unwrap();
                actions.insert(0, Action::RegLoad { range, dst: FieldId::IN_PORT_16, value: 6 });
            }
        }
    }),
    ("another function stands in", Property::Chain, "can't stand in", |it| {
        let ids = it.entry(3, DELIVER, |_, flow| flow.instructions.is_empty()).0;
        let step = |field: &Oxm| if let Oxm::Metadata(value, _) = field { Some(*value) } else { None };
        let ids = ids.matching.fields().iter().find_map(step).unwrap() | metadata::DIVERTED;
        let flow = it.entry(3, DELIVER, goes(STEER)).1;
        sends(flow, vec![Action::SetField(Oxm::Metadata(ids, None)), resubmit(STEER)]);
    }),
    ("who works isn't used", Property::Chain, "can't stand in", |it| {
        let other = it.entry(3, DELIVER, goes(STEER)).1.instructions.clone();
        it.entry(3, DELIVER, lets_out).1.instructions = other;
    }),
    ("instances that are down stand in for each other", Property::Loop, "to and fro", |it| {
        let (key, flow) = it.entry(3, DELIVER, goes(STEER));
        let flow = flow.clone();
        let fields = key.matching.fields().iter().map(|field| match field {
            Oxm::Metadata(value, Some(mask)) => Oxm::Metadata(*value, Some(mask & !metadata::DIVERTED)),
            other => other.clone(),
        });
        let matching = Match::new(fields.collect::<Vec<_>>());
        it.green(3).flows.insert(FlowKey { matching, ..key }, flow);
    }),
    ("what was for a router goes around what is behind it", Property::Chain, "past a function that works", |it| {
        let (key, flow) = it.entry(2, CLASSIFY, |key, _| key.priority == 60_001);
        let flow = flow.clone();
        let fields = key.matching.fields().iter().map(|field| match field {
            Oxm::Metadata(value, Some(mask)) => Oxm::Metadata(*value, Some(mask & !metadata::DIVERTED)),
            other => other.clone(),
        });
        let matching = Match::new(fields.collect::<Vec<_>>());
        it.green(2).flows.insert(FlowKey { matching, ..key }, flow);
    }),
    ("known frames get into a function", Property::Chain, "aren't for it", |it| {
        sends(it.entry(2, FORWARD, onward).1, vec![Action::output(PortNo(6))]);
    }),
    ("what belongs to nobody leads past limits", Property::Isolation, "for no tenant", |it| {
        let state = it.tables.get_mut(&DatapathId(1)).unwrap();
        let section = Arc::make_mut(state.get_mut(&Owner::FABRIC).unwrap());
        let (_, flow) = section.flows.iter_mut().find(|(key, _)| key.table == LIMIT_PORT).unwrap();
        goes_to(flow, FORWARD);
    }),
];

#[test]
fn whatever_is_wrong_is_told_as_what_it_is() {
    for (what, property, text, spoil) in CASES {
        let mut fabric = fabric(Carrier::Tunnel);
        assert_eq!(fabric.told(), [], "before");
        spoil(&mut fabric);
        let told = fabric.told();
        let it = told.iter().find(|(of, told)| of == property && told.contains(text));
        assert!(it.is_some(), "{what}: not told as {property}, {text:?}, but {told:?}");
        assert!(it.unwrap().1.contains("bridge b"), "it doesn't say where: {it:?}");
    }
}

/// On tunnels of fixed key a host's tag could be taken for a mark.
#[test]
fn a_mark_that_hosts_could_send_is_told() {
    for (table, text) in [(GUARD, "lets hosts send"), (ADMIT, "for the tenant's own frames")] {
        let mut fabric = fabric(Carrier::Dedicated(100));
        assert_eq!(fabric.told(), [], "before");
        let vlan = |key: &FlowKey| key.matching.fields().iter().any(|field| matches!(field, Oxm::VlanVid(..)));
        fabric.green(2).flows.retain(|key, _| key.table != table || !vlan(key));
        let told = fabric.told();
        assert!(told.iter().any(|(of, told)| *of == Property::Chain && told.contains(text)), "{text}: {told:?}");
    }
}

#[test]
fn a_number_that_two_have_is_told() {
    let mut one = fabric(Carrier::Vlan);
    assert_eq!(one.told(), []);
    let text = serde_json::to_string(&one.allocations).unwrap();
    let orange = one.allocations.of("orange").unwrap().vlan.unwrap();
    let green = one.allocations.of("green").unwrap().vlan.unwrap();
    one.allocations =
        serde_json::from_str(&text.replace(&format!("\"vlan\":{orange}"), &format!("\"vlan\":{green}"))).unwrap();
    assert!(one.told().iter().any(|(of, told)| *of == Property::Isolation && told.contains("the same mark")));
}
