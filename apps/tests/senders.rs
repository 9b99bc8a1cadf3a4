//! Goal: the checker finds each entry of the guard that is missing or lets more pass than the policy says. Method: a bridge with
//! ports that are pinned in each of the ways there are, and one that isn't; every entry that stops frames is taken away, and
//! every field of those that let frames pass, and each time that has to be told.

use std::collections::BTreeMap;
use std::sync::Arc;

use apps::allocation::Allocations;
use apps::attachment::attach;
use apps::checker::{Checker, Property};
use apps::compile::compile;
use apps::desired::{BridgeState, FlowKey, Section};
use apps::marks::Owner;
use apps::pipeline::{GUARD, LIMIT_PORT};
use apps::policy::{Policy, Source, load};
use apps::view::{Bridge, PortView, View};
use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::oxm::Oxm;
use openflow::types::{DatapathId, PortNo};

const GREEN: Owner = Owner(100);
const ONE: DatapathId = DatapathId(1);
const NAMES: [&str; 6] = ["both", "mac", "ip", "open", "shares", "offers"];

/// A tenant with these keys, and what is said of the port `offers`.
fn policy(keys: &str, pins: bool, offers: &str) -> Policy {
    let pinned = r#"
  { bridge = "b1", port = "both", mac = "02:00:00:00:00:01", ip = ["10.0.0.1", "fd00::1"] },
  { bridge = "b1", port = "mac", mac = "02:00:00:00:00:02" },
  { bridge = "b1", port = "ip", ip = ["10.0.0.3", "fd00::3"] },
  { bridge = "b1", port = "shares", mac = "02:00:00:00:00:05", ip = ["10.0.0.5", "fd00::5"], shared_mac = ["00:00:5e:00:01:33"], shared_ip = ["10.0.0.9"] },"#;
    let pinned = if pins { pinned } else { "" };
    let text = format!(
        "version = 1\n[fabric]\nlinks = []\n[[tenant]]\nname = \"green\"\nkey = 100\n{keys}\nports = [{pinned}\n  \
         {{ bridge = \"*\", port = \"*\" }},\n  {{ bridge = \"*\", port = \"offers\"{offers} }},\n]\n"
    );
    load(&[Source { name: "a.toml".into(), text }]).unwrap_or_else(|told| panic!("{told}")).policy
}

struct Fabric {
    policy: Policy,
    allocations: Allocations,
    view: View,
    tables: BTreeMap<DatapathId, BridgeState>,
}

impl Fabric {
    fn of(policy: Policy) -> Self {
        let allocations = Allocations::default().updated(&policy);
        let port = |name: &str| PortView { name: name.into(), up: true, ..PortView::default() };
        let ports = (1..).map(PortNo).zip(NAMES.map(port)).collect();
        let bridge = Bridge { name: "b1".into(), responsive: true, ports };
        let view = View { bridges: BTreeMap::from([(ONE, bridge)]), ..View::default() };
        let tables = compile(&policy, &allocations, &view, &BTreeMap::new()).bridges;
        Self { policy, allocations, view, tables }
    }

    fn told(&self) -> Vec<(Property, String)> {
        let attachments = attach(&self.policy, &self.view);
        let checker = Checker::new(&self.policy, &self.allocations, &attachments, &self.view);
        checker.all(&self.tables).into_iter().map(|it| (it.property, it.text)).collect()
    }

    fn green(&mut self) -> &mut Section {
        Arc::make_mut(self.tables.get_mut(&ONE).unwrap().get_mut(&GREEN).unwrap())
    }

    /// The entries of the guard that let frames go on, or those that don't.
    fn guard(&mut self, passes: bool) -> Vec<FlowKey> {
        let goes = [Instruction::GotoTable(LIMIT_PORT)];
        let all =
            self.green().flows.iter().filter(|(key, flow)| key.table == GUARD && (flow.instructions == goes) == passes);
        all.map(|(key, _)| key.clone()).collect()
    }

    fn is_told(&self, what: &str, key: &FlowKey) {
        let told = self.told();
        assert!(
            told.iter().any(|(of, _)| *of == Property::Sender),
            "{what} {}, {}: {told:#?}",
            key.priority,
            key.matching
        );
    }
}

/// Policies, and how many entries stop frames there at least.
fn cases() -> [(Policy, usize); 4] {
    [
        (policy("", true, ""), 60),
        (policy("default = \"drop\"", false, ""), 3),
        (policy("", false, ", router = true, dhcp_server = true"), 20),
        (policy("default = \"drop\"", true, ", router = true"), 60),
    ]
}

#[test]
fn whatever_stops_frames_is_missed() {
    for (policy, least) in cases() {
        let mut fabric = Fabric::of(policy);
        assert_eq!(fabric.told(), [], "before");
        // The last one only tells the controller of what nothing lets pass.
        let last = |key: &FlowKey| key.priority == 1;
        let stops: Vec<FlowKey> = fabric.guard(false).into_iter().filter(|key| !last(key)).collect();
        assert!(stops.len() >= least, "{} of {least}", stops.len());
        for key in stops {
            let flow = fabric.green().flows.remove(&key).unwrap();
            fabric.is_told("without", &key);
            // It isn't asked before the others.
            let low = FlowKey { priority: 5, ..key.clone() };
            fabric.green().flows.insert(low.clone(), flow.clone());
            fabric.is_told("last of all", &key);
            fabric.green().flows.remove(&low);
            fabric.green().flows.insert(key, flow);
        }
        assert_eq!(fabric.told(), [], "after");
    }
}

#[test]
fn whatever_lets_more_pass_is_told() {
    let mut widened = 0;
    for (policy, _) in cases() {
        let mut fabric = Fabric::of(policy);
        for key in fabric.guard(true).into_iter().filter(|key| key.matching.fields().len() > 1) {
            let flow = fabric.green().flows.remove(&key).unwrap();
            let fields = key.matching.fields();
            for left in fields.iter().filter(|field| !matches!(field, Oxm::InPort(..))) {
                let matching = Match::new(fields.iter().filter(|field| *field != left).cloned());
                if matching.check().is_ok() {
                    let wide = FlowKey { matching, ..key.clone() };
                    let before = fabric.green().flows.insert(wide.clone(), flow.clone());
                    fabric.is_told(&format!("without {left}"), &key);
                    widened += 1;
                    fabric.green().flows.remove(&wide);
                    before.into_iter().for_each(|flow| drop(fabric.green().flows.insert(wide.clone(), flow)));
                }
            }
            fabric.green().flows.insert(key, flow);
        }
        // An entry for another port's addresses.
        for key in fabric.guard(true) {
            for port in (1..=NAMES.len() as u32).map(PortNo).filter(|port| Some(*port) != key.matching.in_port()) {
                let other =
                    |field: &Oxm| if let Oxm::InPort(..) = field { Oxm::InPort(port, None) } else { field.clone() };
                let moved = FlowKey { matching: Match::new(key.matching.fields().iter().map(other)), ..key.clone() };
                let flow = fabric.green().flows[&key].clone();
                let own = key
                    .matching
                    .fields()
                    .iter()
                    .any(|field| matches!(field, Oxm::Ipv4Src(it, _) | Oxm::ArpSpa(it, _) if !it.is_unspecified()));
                // What may be said by both, or is stopped before.
                if own && !fabric.green().flows.contains_key(&moved) && key.priority >= 20 {
                    fabric.green().flows.insert(moved.clone(), flow);
                    fabric.is_told(&format!("at port {port}"), &key);
                    fabric.green().flows.remove(&moved);
                }
            }
        }
    }
    assert!(widened > 100, "{widened}");
}
