//! Goal: a trace says, in an operator's terms, what bridges that hold the compiled tables do with a frame: the way, the
//! line of the policy behind each decision, and where and why it ends. Method: a policy and two bridges written by hand;
//! questions are asked, and the answers compared with what the policy says should happen.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use apps::allocation::Allocations;
use apps::attachment::attach;
use apps::compile::compile;
use apps::interpreter::Frame;
use apps::policy::{
    Address, Chain, Classifier, Function, FunctionKind, Instance, OnFailure, Origin, Policy, Protocol as Told, Rule,
    RuleAction as Action, ShareBy, Source, load,
};
use apps::trace::{Ended, Place, Protocol, Refusal, Request, STEPS_MAX, Situation, Station, Trace, What};
use apps::view::{Bridge, Carrier, Endpoint, Held, Host, Link, PortView, View};
use openflow::types::{DatapathId, MacAddr, PortNo};

const POLICY: &str = r#"
version = 1
[[tenant]]
name = "green"
ports = [
  { bridge = "*", port = "green-*" },
  { bridge = "h1", port = "web", name = "web-1", mac = "02:00:00:00:00:01", ip = ["10.0.0.1", "fd00::1"] },
  { bridge = "h2", port = "db", name = "db-1", ip = ["10.0.0.9"] },
]
[[tenant]]
name = "orange"
unknown_unicast = "drop"
ports = [{ bridge = "*", port = "orange-*" }]
"#;

const LEARNT: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const NOBODY: &str = "02:00:00:00:ff:ff";

fn at(bridge: u64, port: u32) -> Endpoint {
    Endpoint { bridge: DatapathId(bridge), port: PortNo(port) }
}

fn place(bridge: &str, port: &str) -> Place {
    Place { bridge: bridge.into(), port: port.into() }
}

fn policy() -> Policy {
    load(&[Source { name: "p.toml".into(), text: POLICY.into() }]).unwrap_or_else(|told| panic!("{told}")).policy
}

/// `change` changes the fabric before it is compiled.
fn situation(policy: Policy, change: impl FnOnce(&mut View)) -> Situation {
    let mut view = View::default();
    for (dpid, names) in [
        (1, ["web", "green-1", "orange-1", "fw-in", "fw-out", "vx2", "tap"]),
        (2, ["green-1", "db", "orange-1", "x", "y", "vx1", "z"]),
    ] {
        let ports = (1..)
            .map(PortNo)
            .zip(names.map(|name| PortView { name: name.into(), up: true, ..PortView::default() }))
            .collect();
        view.bridges.insert(DatapathId(dpid), Bridge { name: format!("h{dpid}"), responsive: true, ports });
    }
    view.links.push(Link { a: at(1, 6), b: at(2, 6), carrier: Carrier::Tunnel });
    change(&mut view);
    let allocations = Allocations::default().updated(&policy);
    let there = Host { place: at(2, 1), fresh: true };
    let orange = Host { place: at(2, 3), fresh: true };
    let hosts = BTreeMap::from([
        ("green".into(), BTreeMap::from([(LEARNT, there)])),
        ("orange".into(), BTreeMap::from([(LEARNT, orange)])),
    ]);
    let ips: Vec<IpAddr> = vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
    let station = |place| BTreeMap::from([(LEARNT, Station { place, ips: ips.clone(), fresh: true })]);
    Situation {
        tables: compile(&policy, &allocations, &view, &hosts).bridges,
        attachments: attach(&policy, &view),
        policy: Arc::new(policy),
        hosts: BTreeMap::from([("green".into(), station(at(2, 1))), ("orange".into(), station(at(2, 3)))]),
        view,
        allocations,
        converged: true,
        ..Situation::default()
    }
}

fn plain() -> Situation {
    situation(policy(), |_| {})
}

fn ask(tenant: &str, from: &str, to: &str, protocol: Protocol, port: Option<u16>) -> Request {
    Request { tenant: tenant.into(), from: from.into(), to: to.into(), protocol, port }
}

fn ping(situation: &Situation, from: &str, to: &str) -> Trace {
    situation.trace(&ask("green", from, to, Protocol::Icmp, None)).unwrap()
}

/// The tables that were looked up, with their bridges and the line of the policy.
fn tables(trace: &Trace) -> Vec<(String, String, Option<String>)> {
    let table = |step: &apps::trace::Step| match &step.what {
        What::Table { name, entry, .. } => {
            Some((step.bridge.clone(), name.clone(), entry.as_ref().and_then(|entry| entry.origin.clone())))
        }
        _ => None,
    };
    trace.steps.iter().filter_map(table).collect()
}

#[test]
fn known_unicast_goes_straight_with_the_line_behind_each_table() {
    let trace = ping(&plain(), "web-1", "10.0.0.2");
    let row = |bridge: &str, table: &str, line: u32| {
        let origin = (line > 0).then(|| format!("p.toml:{line}"));
        (bridge.to_owned(), table.to_owned(), origin)
    };
    let told = tables(&trace);
    assert_eq!(told[0], row("h1", "admit", 7), "the pinned port's own line");
    assert_eq!(told.last(), Some(&row("h2", "forward", 3)), "the tenant's line");
    let names: Vec<_> = told.iter().map(|(bridge, table, _)| format!("{bridge} {table}")).collect();
    let h1 = ["admit", "guard", "limit_port", "limit_tenant", "learn", "rules", "classify", "forward"];
    let expected = h1.map(|table| format!("h1 {table}")).into_iter().chain(["h2 admit".into(), "h2 forward".into()]);
    assert_eq!(names, expected.collect::<Vec<String>>());
    let link = What::Link { port: "vx2".into(), to: place("h2", "vx1"), carrier: "tunnel".into() };
    assert_eq!(trace.steps.iter().filter(|step| step.what == link).count(), 1);
    assert_eq!(trace.steps.last().unwrap().what, What::Leaves { port: "green-1".into() });
    let verdict = &trace.verdict;
    assert_eq!((verdict.delivered, &verdict.to, verdict.controller), (true, &vec![place("h2", "green-1")], 0));
    assert!(verdict.ended.is_empty() && trace.notes.is_empty(), "{trace:?}");
    assert_eq!(trace.frame.carries, "icmp echo request from 10.0.0.1 to 10.0.0.2");
    assert_eq!((trace.frame.source.as_str(), &trace.frame.from), ("02:00:00:00:00:01", &place("h1", "web")));
    let entry = trace.steps.iter().find_map(|step| match &step.what {
        What::Table { table: 0, entry, .. } => entry.clone(),
        _ => None,
    });
    let entry = entry.unwrap();
    assert_eq!((entry.priority, entry.matching.as_str()), (10, "in_port=1"));
    assert!(entry.instructions.ends_with("goto_table:1"), "{}", entry.instructions);
}

#[test]
fn links_of_every_carrier_are_passed() {
    for (carrier, name) in [(Carrier::Tunnel, "tunnel"), (Carrier::Dedicated(1), "dedicated"), (Carrier::Vlan, "vlan")]
    {
        let situation = situation(policy(), |view| view.links[0].carrier = carrier);
        for to in ["10.0.0.2", "broadcast"] {
            let trace = ping(&situation, "web-1", to);
            let passed = |what: &What| matches!(what, What::Link { carrier, .. } if carrier == name);
            assert!(trace.steps.iter().any(|step| passed(&step.what)), "{name}: {trace:?}");
            assert!(trace.verdict.to.contains(&place("h2", "green-1")), "{name}: {trace:?}");
        }
    }
}

#[test]
fn hosts_are_meant_by_name_place_mac_and_ip() {
    let situation = plain();
    let by_name = ping(&situation, "web-1", "10.0.0.2");
    for from in ["WEB-1", "h1/web", "H1/1", "0000000000000001/web", "02:00:00:00:00:01", "10.0.0.1"] {
        for to in ["h2/green-1", "02:00:00:00:00:02", "10.0.0.2"] {
            assert_eq!(ping(&situation, from, to), by_name, "{from} to {to}");
        }
    }
    let v6 = ping(&situation, "web-1", "fd00::2");
    assert_eq!(v6.frame.carries, "icmp echo request from fd00::1 to fd00::2");
    assert!(v6.verdict.delivered);
    let not_found = |from: &str, to: &str, protocol, part: &str| {
        let told = situation.trace(&ask("green", from, to, protocol, None)).unwrap_err();
        assert!(matches!(&told, Refusal::NotFound(text) if text.contains(part)), "{from} to {to}: {told:?}");
    };
    for other in ["nobody", "h1/orange-1", "h1/vx2", "h3/green-1", "h1/none", "h1/99", "", "/", "broadcast"] {
        not_found(other, "web-1", Protocol::Icmp, &format!("\"{other}\""));
    }
    not_found(NOBODY, "web-1", Protocol::Icmp, "name the port, too");
    not_found("10.9.9.9", "web-1", Protocol::Icmp, "10.9.9.9");
    not_found("web-1", "10.9.9.9", Protocol::Icmp, "ask for arp");
    // Its address is known, its MAC address isn't.
    not_found("web-1", "db-1", Protocol::Icmp, "ask for arp");
    let arp = situation.trace(&ask("green", "web-1", "db-1", Protocol::Arp, None)).unwrap();
    assert_eq!(arp.frame.carries, "arp: 10.0.0.1 asks who has 10.0.0.9");
    assert!(arp.verdict.delivered && arp.verdict.to.contains(&place("h2", "db")), "{:?}", arp.verdict);
    // Until a frame has shown it.
    let mut met = plain();
    let shown = MacAddr([2, 0, 0, 0, 0, 9]);
    let station = Station { place: at(2, 2), ips: Vec::new(), fresh: true };
    met.hosts.get_mut("green").unwrap().insert(shown, station);
    for to in ["db-1", "10.0.0.9"] {
        let trace = ping(&met, "web-1", to);
        assert_eq!((trace.frame.destination, trace.verdict.delivered), (shown.to_string(), true), "{to}");
    }
    let told = situation.trace(&ask("blue", "web-1", "web-1", Protocol::Icmp, None)).unwrap_err();
    assert_eq!(told, Refusal::NotFound("there is no tenant with the name \"blue\"".into()));
}

#[test]
fn ports_go_with_tcp_and_udp_and_nothing_else() {
    let situation = plain();
    for (protocol, port) in
        [(Protocol::Tcp, None), (Protocol::Udp, None), (Protocol::Icmp, Some(1)), (Protocol::Arp, Some(1))]
    {
        let told = situation.trace(&ask("green", "web-1", "10.0.0.2", protocol, port)).unwrap_err();
        assert!(matches!(told, Refusal::Invalid(_)), "{protocol:?}: {told:?}");
    }
    let trace = situation.trace(&ask("green", "web-1", "10.0.0.2", Protocol::Tcp, Some(443))).unwrap();
    assert_eq!(trace.frame.carries, "tcp from 10.0.0.1 port 49152 to 10.0.0.2 port 443");
    assert!(trace.verdict.delivered);
}

#[test]
fn what_was_assumed_is_told() {
    let mut situation = plain();
    let stranger = ping(&situation, "h1/green-1", "web-1");
    let told = stranger.notes.join("\n");
    assert!(
        told.contains("no host is known at h1/green-1") && told.contains("no IPv4 address of h1/green-1"),
        "{told}"
    );
    assert!(stranger.verdict.delivered && stranger.verdict.controller == 1, "it is new, and a copy shows it");
    let v6 = ping(&situation, "h1/green-1", "fd00::2");
    assert_eq!(v6.frame.carries, "icmp echo request from :: to fd00::2");
    situation.converged = false;
    assert!(ping(&situation, "web-1", "10.0.0.2").notes[0].contains("not every bridge holds"));
}

#[test]
fn floods_reach_all_and_unknown_unicast_what_the_policy_says() {
    let situation = plain();
    for to in ["broadcast", NOBODY] {
        let mut reached = ping(&situation, "web-1", to).verdict.to;
        reached.sort_by(|a, b| (&a.bridge, &a.port).cmp(&(&b.bridge, &b.port)));
        assert_eq!(reached, [place("h1", "green-1"), place("h2", "db"), place("h2", "green-1")], "{to}");
    }
    let groups = |what: &What| matches!(what, What::Group { .. });
    assert!(ping(&situation, "web-1", "broadcast").steps.iter().any(|step| groups(&step.what)));
    let orange = situation.trace(&ask("orange", "h1/orange-1", NOBODY, Protocol::Icmp, None)).unwrap();
    let why = "no entry of table 12 (forward) matches".to_owned();
    assert_eq!(orange.verdict.ended, [Ended { bridge: "h1".into(), table: Some(12), why }]);
    assert!(!orange.verdict.delivered && orange.verdict.to.is_empty());
}

#[test]
fn what_ends_a_frame_is_told_with_its_line() {
    let ended = |situation: &Situation, from: &str, to: &str| {
        let verdict = ping(situation, from, to).verdict;
        assert!(!verdict.delivered, "{verdict:?}");
        verdict.ended.into_iter().map(|ended| (ended.table, ended.why)).collect::<Vec<_>>()
    };
    let mut ruled = policy();
    let origin = Origin { file: "p.toml".into(), line: 99 };
    let rule = Rule {
        name: "no-ping".into(),
        priority: 1,
        classifiers: vec![pings(Vec::new(), 99)],
        action: Action::Drop,
        origin,
    };
    ruled.tenants[0].rules.push(rule);
    let ruled = situation(ruled, |_| {});
    let why = "an entry of table 5 (rules) drops it, because of p.toml:99".to_owned();
    assert_eq!(ended(&ruled, "web-1", "10.0.0.2"), [(Some(5), why)]);
    assert!(ruled.trace(&ask("green", "web-1", "10.0.0.2", Protocol::Tcp, Some(1))).unwrap().verdict.delivered);

    let back = ended(&plain(), "web-1", "02:00:00:00:00:01");
    assert!(back[0].1.contains("nowhere but back where it came from, because of p.toml:"), "{back:?}");

    let cut = situation(policy(), |view| view.links.clear());
    let verdict = ping(&cut, "web-1", "10.0.0.2").verdict;
    assert!(
        !verdict.delivered && verdict.to == [place("h1", "green-1")],
        "flooded, but not to where it is: {verdict:?}"
    );
    let down = situation(policy(), |view| {
        for (bridge, port) in [(1, 1), (2, 1)] {
            view.bridges.get_mut(&DatapathId(bridge)).unwrap().ports.get_mut(&PortNo(port)).unwrap().up = false;
        }
    });
    assert_eq!(ended(&down, "web-1", "10.0.0.2"), [(None, "port web is down, so nothing comes in there".into())]);
    let out = ended(&down, "h1/green-1", "10.0.0.2");
    assert_eq!(out, [(None, "it is sent out of port green-1, which is down".into())]);
    let silent = situation(policy(), |view| {
        view.bridges.get_mut(&DatapathId(2)).unwrap().responsive = false;
        let held = view.links.drain(..).map(|link| Held { link, trees: [1].into(), up: true }).collect();
        view.held = held;
    });
    let told = ended(&silent, "web-1", "10.0.0.2");
    assert!(told[0].1.contains("the bridge doesn't answer"), "{told:?}");
}

/// Tells pings, to some or to all.
fn pings(destination: Vec<Address>, line: u32) -> Classifier {
    let (source, source_port, destination_port) = (Vec::new(), Vec::new(), Vec::new());
    let origin = Origin { file: "p.toml".into(), line };
    Classifier {
        protocol: Told::Icmp,
        vlan: None,
        source,
        destination,
        source_port,
        destination_port,
        icmp_type: Vec::new(),
        icmp_code: None,
        origin,
    }
}

/// A function at h1, for pings to some; `egress`: its other port, or the same one.
fn chained(kind: FunctionKind, ingress: &str, egress: &str, to: Vec<Address>) -> Policy {
    let origin = |line| Origin { file: "p.toml".into(), line };
    let mut policy = policy();
    let instance = Instance {
        name: "fw-1".into(),
        bridge: "h1".into(),
        ingress: ingress.into(),
        egress: egress.into(),
        mac: (kind == FunctionKind::Routed).then_some(MacAddr([2, 0, 0, 0, 0, 0xf])),
        weight: 1,
        drain: false,
        origin: origin(50),
    };
    let on_failure = OnFailure::Drop;
    let function = Function {
        name: "firewall".into(),
        kind,
        on_failure,
        share_by: ShareBy::default(),
        instances: vec![instance],
        origin: origin(49),
    };
    let chain = Chain {
        name: "pings".into(),
        priority: 1,
        through: vec!["firewall".into()],
        symmetric: true,
        broadcast: false,
        classifiers: vec![pings(to, 61)],
        rate_limit: None,
        origin: origin(60),
    };
    policy.tenants[0].functions.push(function);
    policy.tenants[0].chains.push(chain);
    policy
}

#[test]
fn functions_are_passed_and_frames_followed_from_where_they_come_back() {
    let to_function = |trace: &Trace| {
        let found = trace.steps.iter().find_map(|step| match &step.what {
            What::Function { port, function, instance, back } => {
                Some((port.clone(), format!("{function}/{instance}"), back.clone()))
            }
            _ => None,
        });
        found.unwrap_or_else(|| panic!("{trace:?}"))
    };
    let name = || "firewall/fw-1".to_owned();
    let wire = situation(chained(FunctionKind::Wire, "fw-in", "fw-out", vec![Address::Mac(LEARNT)]), |_| {});
    let there = ping(&wire, "web-1", "10.0.0.2");
    assert_eq!(to_function(&there), ("fw-in".into(), name(), Some(place("h1", "fw-out"))));
    assert!(there.verdict.delivered && there.verdict.to == [place("h2", "green-1")], "{:?}", there.verdict);
    let lines: Vec<_> =
        tables(&there).into_iter().filter(|(_, table, _)| table == "classify").map(|row| row.2).collect();
    assert_eq!(lines, [Some("p.toml:60".into()), Some("p.toml:50".into())], "the chain, then the instance");
    let back = ping(&wire, "h2/green-1", "web-1");
    let other_way = ("fw-out".into(), name(), Some(place("h1", "fw-in")));
    assert_eq!(to_function(&back), other_way, "replies go the other way through");
    assert!(back.verdict.delivered);

    let hairpin =
        ping(&situation(chained(FunctionKind::Hairpin, "fw-in", "fw-in", Vec::new()), |_| {}), "web-1", "10.0.0.2");
    assert_eq!(to_function(&hairpin).2, Some(place("h1", "fw-in")));
    assert!(hairpin.verdict.delivered);

    let tap = ping(&situation(chained(FunctionKind::Tap, "tap", "tap", Vec::new()), |_| {}), "web-1", "10.0.0.2");
    assert_eq!(to_function(&tap).2, None);
    assert!(tap.verdict.delivered && tap.verdict.to == [place("h2", "green-1")], "{:?}", tap.verdict);
    assert_eq!(tap.verdict.ended, []);
    let own =
        ping(&situation(chained(FunctionKind::Tap, "tap", "tap", Vec::new()), |_| {}), "web-1", "02:00:00:00:00:01");
    assert_eq!(own.verdict.ended.len(), 1, "the tap's copy doesn't hide that the frame itself ends: {own:?}");

    let routed =
        ping(&situation(chained(FunctionKind::Routed, "fw-in", "fw-in", Vec::new()), |_| {}), "web-1", "10.0.0.2");
    assert_eq!(to_function(&routed).2, None);
    assert_eq!(routed.verdict.ended[0].why, "function firewall routes it on as it thinks fit");
    assert!(!routed.verdict.delivered);

    let failed = situation(chained(FunctionKind::Wire, "fw-in", "fw-out", Vec::new()), |view| {
        view.bridges.get_mut(&DatapathId(1)).unwrap().ports.get_mut(&PortNo(5)).unwrap().up = false;
    });
    let failed = ping(&failed, "web-1", "10.0.0.2");
    let down = What::Down { port: "fw-out".into(), function: "firewall".into(), instance: "fw-1".into() };
    assert!(failed.steps.iter().any(|step| step.what == down), "{failed:?}");
    let why = "an entry of table 11 (deliver) drops it, because of p.toml:49";
    assert!(!failed.verdict.delivered && failed.verdict.ended.len() == 1, "{failed:?}");
    assert_eq!(failed.verdict.ended[0].why, why);
}

#[test]
fn where_the_bridge_chooses_an_instance_that_is_told() {
    let told = |instances: usize| {
        let mut policy = chained(FunctionKind::Wire, "fw-in", "fw-out", Vec::new());
        let function = &mut policy.tenants[0].functions[0];
        let first = function.instances[0].clone();
        let [name, bridge, ingress, egress] = ["fw-2", "h2", "x", "y"].map(str::to_owned);
        function.instances.push(Instance { name, bridge, ingress, egress, ..first });
        function.instances.truncate(instances);
        let trace = ping(&situation(policy, |_| {}), "web-1", "10.0.0.2");
        assert!(trace.verdict.delivered, "{trace:?}");
        trace.notes.iter().any(|note| note.contains("several instances"))
    };
    assert!(told(2) && !told(1));
}

#[test]
fn the_way_of_a_new_connection_is_shown_while_an_instance_drains() {
    let mut policy = chained(FunctionKind::Wire, "fw-in", "fw-out", Vec::new());
    let function = &mut policy.tenants[0].functions[0];
    let first = function.instances[0].clone();
    let [name, bridge, ingress, egress] = ["fw-2", "h2", "x", "y"].map(str::to_owned);
    function.instances.push(Instance { name, bridge, ingress, egress, drain: true, ..first });
    policy.tenants[0].chains[0].classifiers[0].protocol = Told::TCP;
    let situation = situation(policy, |_| {});
    let mut begun = 0;
    for port in 1..40 {
        let trace = situation.trace(&ask("green", "web-1", "10.0.0.2", Protocol::Tcp, Some(port))).unwrap();
        let note = trace.notes.iter().any(|note| note.contains("an instance drains"));
        assert_eq!(note, tables(&trace).iter().any(|(_, table, _)| table == "begin"));
        let instance = trace.steps.iter().find_map(|step| match &step.what {
            What::Function { instance, .. } => Some(instance.clone()),
            _ => None,
        });
        assert_eq!(instance.as_deref(), Some("fw-1"), "{trace:?}");
        begun += usize::from(note);
    }
    assert!(begun > 5, "{begun}");
}

#[test]
fn a_storm_comes_to_an_end_and_that_is_told() {
    let mut storm = plain();
    // Wires that lead back into the same bridge's tables, whatever was compiled for.
    let flood = storm.tables[&DatapathId(2)].clone();
    storm.tables.insert(DatapathId(1), flood);
    storm.view.links = vec![Link { a: at(1, 1), b: at(1, 2), carrier: Carrier::Vlan }];
    let ports = |places: [u32; 2]| places.map(|port| at(1, port));
    for place in ports([1, 2]) {
        let used = storm.attachments.of(at(2, 1)).clone();
        storm.attachments.ports.insert(place, used);
    }
    let frame = Frame { destination: MacAddr::BROADCAST, source: LEARNT, ethertype: 0x88b5, ..Frame::default() };
    let (steps, verdict) = storm.follow(at(1, 1), frame, None);
    assert!(steps.len() <= STEPS_MAX);
    let cut = verdict.ended.iter().filter(|ended| ended.why.contains("the rest isn't followed")).count();
    assert_eq!(cut, 1, "{:?}", verdict.ended);
}

#[test]
fn a_trace_survives_json() {
    let situation = situation(chained(FunctionKind::Wire, "fw-in", "fw-out", Vec::new()), |_| {});
    for to in ["10.0.0.2", "broadcast"] {
        let trace = ping(&situation, "h1/green-1", to);
        let text = serde_json::to_string(&trace).unwrap();
        assert_eq!(serde_json::from_str::<Trace>(&text).unwrap(), trace, "{text}");
    }
}
