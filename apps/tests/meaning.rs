//! Goal: where entries say other of some frame than rules and chains do, the checker tells. Method: two bridges and a tenant whose
//! rules and chains lie over each other; one thing is changed by hand in what is compiled for it, and has to be told, as what
//! it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use apps::allocation::Allocations;
use apps::attachment::attach;
use apps::checker::{Checker, Property, Tables};
use apps::compile::compile;
use apps::desired::{FlowKey, Section};
use apps::marks::{Owner, metadata};
use apps::pipeline::{CLASSIFY, RULES};
use apps::policy::{Policy, Source, load};
use apps::view::{Bridge, Carrier, Endpoint, Link, PortView, View};
use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::oxm::Oxm;
use openflow::types::{DatapathId, PortNo, TableId};

const GREEN: Owner = Owner(100);

const POLICY: &str = r#"version = 1
[[tenant]]
name = "green"
key = 100
default = "drop"
ports = [{ bridge = "*", port = "green-*" }]
[[tenant.function]]
name = "fw"
kind = "wire"
on_failure = "drop"
instances = [{ name = "fw-1", bridge = "b2", ingress = "fw-in", egress = "fw-out" }]
[[tenant.function]]
name = "ids"
kind = "hairpin"
on_failure = "drop"
instances = [{ name = "ids-1", bridge = "b2", ingress = "ids" }]
[[tenant.chain]]
name = "web"
priority = 10
through = ["fw", "ids"]
symmetric = true
match = [{ protocol = "tcp", destination = "10.0.0.0/24", destination_port = [80, "8000-8010"] }]
[[tenant.chain]]
name = "rest"
through = ["ids", "fw"]
match = [{ protocol = "tcp", destination = ["10.0.0.0/16", "2001:db8::/32"] }, { vlan = 7 }]
[[tenant.rule]]
name = "one-may"
priority = 90
match = { source = "10.0.1.7", protocol = "tcp", destination_port = 23 }
action = "allow"
[[tenant.rule]]
name = "no-telnet"
priority = 80
match = { protocol = "tcp", destination_port = 23 }
action = "drop"
[[tenant.rule]]
name = "replies"
priority = 70
match = { protocol = "any" }
action = "allow-established"
[[tenant.rule]]
name = "no-guests"
priority = 60
match = { source = ["10.9.0.0/16", "02:00:00:00:00:09"] }
action = "drop"
[[tenant.rule]]
name = "ten"
priority = 50
match = [{ source = "10.0.0.0/8" }, { protocol = "icmp" }]
action = "allow"
"#;

struct Fabric {
    policy: Policy,
    allocations: Allocations,
    view: View,
    tables: Tables,
}

fn fabric(text: &str) -> Fabric {
    let policy = load(&[Source { name: "a.toml".into(), text: text.into() }]).expect("sound").policy;
    let allocations = Allocations::default().updated(&policy);
    let mut view = View::default();
    for (dpid, more) in [(1, &[][..]), (2, &["fw-in", "fw-out", "ids"])] {
        let names = ["link", "green-1", "green-2"].into_iter().chain(more.iter().copied());
        let ports = (1..)
            .map(PortNo)
            .zip(names.map(|name| PortView { name: name.into(), up: true, ..PortView::default() }))
            .collect();
        view.bridges.insert(DatapathId(dpid), Bridge { name: format!("b{dpid}"), responsive: true, ports });
    }
    let end = |dpid| Endpoint { bridge: DatapathId(dpid), port: PortNo(1) };
    view.links = vec![Link { a: end(1), b: end(2), carrier: Carrier::Tunnel }];
    let tables = compile(&policy, &allocations, &view, &BTreeMap::new()).bridges;
    Fabric { policy, allocations, view, tables }
}

impl Fabric {
    fn told(&self) -> Vec<(Property, String)> {
        let attachments = attach(&self.policy, &self.view);
        let checker = Checker::new(&self.policy, &self.allocations, &attachments, &self.view);
        checker.all(&self.tables).into_iter().map(|it| (it.property, it.text)).collect()
    }

    fn green(&mut self, dpid: u64) -> &mut Section {
        Arc::make_mut(self.tables.get_mut(&DatapathId(dpid)).unwrap().get_mut(&GREEN).unwrap())
    }

    /// Takes out the first entry of a table, where frames enter, whose text has this.
    fn take(&mut self, table: TableId, text: &str) -> (FlowKey, apps::desired::Flow) {
        let fits = |key: &FlowKey| key.table == table && format!("{},", key.matching).contains(text);
        let key = self.green(1).flows.keys().find(|key| fits(key)).expect("there is one").clone();
        let flow = self.green(1).flows.remove(&key).unwrap();
        (key, flow)
    }

    fn put(&mut self, key: FlowKey, flow: apps::desired::Flow) {
        self.green(1).flows.insert(key, flow);
    }
}

type Spoil = fn(&mut Fabric);

const CASES: &[(&str, Property, &str, Spoil)] = &[
    ("two priorities are swapped", Property::Rule, "drops what rule one-may lets in", |it| {
        let (one, flow) = it.take(RULES, "ipv4_src=10.0.1.7");
        let of_telnet = |key: &FlowKey| key.table == RULES && key.priority == one.priority - 1;
        let all: Vec<FlowKey> = it.green(1).flows.keys().filter(|key| of_telnet(key)).cloned().collect();
        assert_eq!(all.len(), 2, "IPv4 and IPv6");
        for key in all {
            let flow = it.green(1).flows.remove(&key).unwrap();
            it.put(FlowKey { priority: one.priority, ..key }, flow);
        }
        it.put(FlowKey { priority: one.priority - 1, ..one }, flow);
    }),
    ("an entry of a drop rule isn't there", Property::Rule, "lets in what rule no-guests drops", |it| {
        it.take(RULES, "ipv4_src=10.9.0.0");
    }),
    ("a drop rule's entry for IPv6 isn't there", Property::Rule, "lets in what rule no-telnet drops", |it| {
        // What follows lets nothing of IPv6 in but replies: those must not pass either.
        let (key, _) = it.take(RULES, "eth_type=0x86dd,ip_proto=6,tcp_dst=23");
        assert!(key.priority > 3);
    }),
    ("a mask is wider", Property::Rule, "lets in what rule no-telnet drops", |it| {
        let (key, flow) = it.take(RULES, "ipv4_src=10.0.1.7");
        let wide = |field: &Oxm| match field {
            Oxm::Ipv4Src(address, None) => Oxm::Ipv4Src(*address, Some([255, 255, 255, 254].into())),
            other => other.clone(),
        };
        let matching = Match::new(key.matching.fields().iter().map(wide));
        it.put(FlowKey { matching, ..key }, flow);
    }),
    ("a range of ports is wider", Property::Chain, "leads frames of chain rest otherwise", |it| {
        let (key, flow) = it.take(CLASSIFY, "tcp_dst=8010");
        let wide = |field: &Oxm| match field {
            Oxm::TcpDst(port, None) => Oxm::TcpDst(*port, Some(0xfffe)),
            other => other.clone(),
        };
        let matching = Match::new(key.matching.fields().iter().map(wide));
        it.put(FlowKey { matching, ..key }, flow);
    }),
    ("an entry of a former version is left", Property::Rule, "lets in what rule no-telnet drops", |it| {
        let (key, _) = it.take(RULES, "ipv4_src=10.0.1.7");
        let fields = key.matching.fields().iter().filter(|field| !matches!(field, Oxm::Ipv4Src(..)));
        let matching = Match::new(fields.cloned());
        let (_, flow) = it.take(RULES, "eth_type=0x806");
        it.put(FlowKey { matching, ..key }, flow);
    }),
    ("replies are let in that aren't", Property::Rule, "lets in what the tenant's default drops", |it| {
        let (key, flow) = it.take(RULES, "eth_type=0x86dd,ct_state=0x2a");
        let any = |field: &Oxm| match field {
            Oxm::CtState(..) => Oxm::CtState(0x22, Some(0x22)),
            other => other.clone(),
        };
        let matching = Match::new(key.matching.fields().iter().map(any));
        it.put(FlowKey { matching, ..key }, flow);
    }),
    ("connections aren't looked up", Property::Rule, "looked up first", |it| {
        it.take(RULES, "eth_type=0x800,ct_state=0x0/0x20");
    }),
    ("what finds hosts isn't let in", Property::Rule, "drops what the tenant's default lets in", |it| {
        it.take(RULES, "eth_type=0x806");
    }),
    ("chains are in another order", Property::Chain, "leads frames of chain web otherwise", |it| {
        let (key, flow) = it.take(CLASSIFY, "ipv4_dst=10.0.0.0/255.255.0.0");
        it.put(FlowKey { priority: u16::MAX, ..key }, flow);
    }),
    ("a chain has too few frames", Property::Chain, "leads frames of chain rest otherwise", |it| {
        it.take(CLASSIFY, "vlan_vid=0x1007");
    }),
    ("a chain's replies go the wrong way", Property::Chain, "chain web on its way back", |it| {
        let (_, other) = it.take(CLASSIFY, "tcp_dst=80,");
        let (key, mut flow) = it.take(CLASSIFY, "tcp_src=80,");
        flow.instructions = other.instructions;
        it.put(key, flow);
    }),
    ("group addresses are chained", Property::Chain, "leads frames of no chain otherwise", |it| {
        let (key, flow) = it.take(CLASSIFY, "vlan_vid=0x1007");
        let fields = key.matching.fields().iter().filter(|field| !matches!(field, Oxm::EthDst(..)));
        let matching = Match::new(fields.cloned());
        it.put(FlowKey { matching, ..key }, flow);
    }),
    ("what comes back goes on in another chain", Property::Chain, "leads frames of chain", |it| {
        // Behind ids, web goes to the destination and rest goes to fw.
        let rest = |key: &FlowKey| {
            let text = key.matching.to_string();
            key.table == CLASSIFY && text.contains("in_port=6") && text.contains("ipv4_dst=10.0.0.0/255.255.0.0")
        };
        let section = it.green(2);
        let key = section.flows.keys().find(|key| rest(key)).expect("ids serves both").clone();
        let flow = section.flows.remove(&key).unwrap();
        section.flows.insert(FlowKey { priority: u16::MAX, ..key }, flow);
    }),
    ("later fragments aren't let in", Property::Rule, "drops what rule ten lets in", |it| {
        it.take(RULES, "eth_type=0x86dd,ip_frag=0x3");
    }),
    ("fragments go round a chain", Property::Chain, "leads frames of chain web otherwise", |it| {
        it.take(CLASSIFY, "ipv4_dst=10.0.0.0/255.255.255.0,ip_frag=0x1/0x1");
    }),
    ("something else is looked at", Property::Form, "no rule and no chain looks at", |it| {
        let (key, flow) = it.take(RULES, "eth_type=0x806");
        let fields = key.matching.fields().iter().cloned().chain([Oxm::ArpOp(1, None)]);
        let matching = Match::new(fields);
        it.put(FlowKey { matching, ..key }, flow);
    }),
];

/// Of a tenant that lets in what no rule drops.
const OPEN: &[(&str, Property, &str, Spoil)] = &[
    ("others' fragments are let in", Property::Rule, "the guard against others' fragments", |it| {
        it.take(RULES, "eth_type=0x86dd,ip_frag=0x1/0x1,ct_state=0x10/0x10,");
    }),
    ("a first fragment without ports is let in", Property::Rule, "the guard against split headers drops", |it| {
        it.take(RULES, "tcp_src=0,tcp_dst=0");
    }),
    ("IPv6 without a protocol is let in", Property::Rule, "the guard against split headers drops", |it| {
        it.take(RULES, "eth_type=0x86dd,ip_proto=0");
    }),
    ("what has two tags is let in", Property::Rule, "lets in what inner_vlans drops", |it| {
        it.take(RULES, "eth_type=0x8100,");
    }),
    ("what has two tags of a service is let in", Property::Rule, "lets in what inner_vlans drops", |it| {
        it.take(RULES, "eth_type=0x88a8,");
    }),
];

#[test]
fn whatever_says_other_than_rules_and_chains_is_told() {
    let open = POLICY.replace("default = \"drop\"\n", "");
    let all = CASES.iter().map(|case| (POLICY, case)).chain(OPEN.iter().map(|case| (open.as_str(), case)));
    for (policy, (what, property, text, spoil)) in all {
        let mut fabric = fabric(policy);
        assert_eq!(fabric.told(), [], "before");
        spoil(&mut fabric);
        let told = fabric.told();
        let it = told.iter().find(|(of, told)| of == property && told.contains(text));
        assert!(it.is_some(), "{what}: not told as {property}, {text:?}, but {told:#?}");
        assert!(it.unwrap().1.contains("bridge b"), "it doesn't say where: {it:?}");
    }
}

/// Versions that nothing is admitted under are on their way, or on their way out.
#[test]
fn what_nobody_is_held_against_yet_is_no_matter() {
    let mut fabric = fabric(POLICY);
    let (key, flow) = fabric.take(RULES, "eth_type=0x806");
    fabric.put(key.clone(), flow.clone());
    let other = |field: &Oxm| match field {
        Oxm::Metadata(value, mask) => Oxm::Metadata(value ^ (metadata::VERSION & !metadata::VERSION << 1), *mask),
        other => other.clone(),
    };
    let matching = Match::new(key.matching.fields().iter().filter(|it| !matches!(it, Oxm::EthType(..))).map(other));
    fabric.put(FlowKey { matching, priority: u16::MAX, ..key }, flow);
    assert_eq!(fabric.told(), []);
}

/// More than can be told apart in the time that there is: frames are drawn, and a fault that many of them meet is found.
#[test]
fn rules_beyond_number_are_held_against_frames_that_are_drawn() {
    let mut text = POLICY.to_owned();
    for rule in 0..300_u32 {
        let (a, b) = (rule % 199, rule * 7 % 211);
        text += &format!(
            "[[tenant.rule]]\nname = \"r{rule}\"\nmatch = {{ source = \"10.{a}.0.0/16\", destination = \"10.0.{b}.0/24\", \
             protocol = \"{}\", destination_port = [\"{rule}-9000\"] }}\naction = \"{}\"\n",
            ["tcp", "udp"][rule as usize % 2],
            ["drop", "allow"][rule as usize / 3 % 2]
        );
    }
    let mut fabric = fabric(&text);
    assert_eq!(fabric.told(), []);
    let drops = |flow: &apps::desired::Flow| flow.instructions.is_empty();
    for flow in fabric.green(1).flows.iter_mut().filter(|(key, flow)| key.table == RULES && drops(flow)) {
        flow.1.instructions = vec![Instruction::GotoTable(CLASSIFY)];
    }
    assert!(fabric.told().iter().any(|(property, _)| *property == Property::Rule));
}

/// A rule for messages that only one version of IP has: of the other none is let in, in fragments neither.
#[test]
fn what_one_version_of_ip_alone_has_is_no_matter_of_the_other() {
    for action in ["allow", "allow-established"] {
        let text = format!(
            "version = 1\n[[tenant]]\nname = \"green\"\nkey = 100\ndefault = \"drop\"\n\
             ports = [{{ bridge = \"*\", port = \"green-*\" }}]\n[[tenant.rule]]\nname = \"big\"\naction = \"{action}\"\n\
             match = {{ protocol = \"icmp\", icmp_type = \"packet-too-big\" }}\n"
        );
        assert_eq!(fabric(&text).told(), []);
    }
}
