//! Goal: what a bridge leads past a function that is down goes round no other one, though over a plain link nothing is known of what is
//! behind a tag of the sender's own. Method: a frame with such a tag is walked from where it enters to where it ends.

use std::collections::{BTreeMap, BTreeSet};

use apps::allocation::Allocations;
use apps::compile::compile;
use apps::interpreter::{Frame, Network, Transport, follow};
use apps::policy::{Source, load};
use apps::view::{Bridge, Carrier, Endpoint, Link, PortView, View};
use openflow::types::{DatapathId, MacAddr, PortNo};

const POLICY: &str = r#"version = 1
[[tenant]]
name = "green"
key = 100
ports = [{ bridge = "*", port = "green" }]
[[tenant.function]]
name = "cache"
kind = "wire"
on_failure = "bypass"
instances = [{ name = "cache-1", bridge = "b2", ingress = "cache-in", egress = "cache-out" }]
[[tenant.function]]
name = "ids"
kind = "hairpin"
instances = [{ name = "ids-1", bridge = "b2", ingress = "ids" }]
[[tenant.chain]]
name = "web"
priority = 10
through = ["cache", "ids"]
match = { protocol = "tcp", destination = "10.0.0.2", destination_port = 80 }
[[tenant.chain]]
name = "rest"
through = ["cache"]
match = { protocol = "any" }
"#;

const fn at(dpid: u64, port: u32) -> Endpoint {
    Endpoint { bridge: DatapathId(dpid), port: PortNo(port) }
}

const LINK: [Endpoint; 2] = [at(1, 1), at(2, 1)];
const SENDER: Endpoint = at(1, 2);
const CACHE_IN: Endpoint = at(2, 3);
const IDS: Endpoint = at(2, 5);

/// Where copies of a frame with these tags leave, if the cache's port is down.
fn leaves(tags: &[u16]) -> Vec<Endpoint> {
    let policy = load(&[Source { name: "a.toml".into(), text: POLICY.into() }]).expect("sound").policy;
    let mut view = View::default();
    for (dpid, more) in [(1, &[][..]), (2, &["cache-in", "cache-out", "ids"])] {
        let names = ["link", "green"].into_iter().chain(more.iter().copied());
        let port = |name: &str| PortView { name: name.into(), up: true, ..PortView::default() };
        let ports = (1..).map(PortNo).zip(names.map(port)).collect();
        view.bridges.insert(DatapathId(dpid), Bridge { name: format!("b{dpid}"), responsive: true, ports });
    }
    view.links = vec![Link { a: LINK[0], b: LINK[1], carrier: Carrier::Vlan }];
    let allocations = Allocations::default().updated(&policy);
    let states = compile(&policy, &allocations, &view, &BTreeMap::new()).bridges;
    let wires = BTreeMap::from([(LINK[0], (LINK[1], Carrier::Vlan)), (LINK[1], (LINK[0], Carrier::Vlan))]);
    let web = Frame {
        destination: MacAddr([2, 0, 0, 0, 0, 2]),
        source: MacAddr([2, 0, 0, 0, 0, 1]),
        ethertype: 0x0800,
        tags: tags.to_vec(),
        network: Network::Ipv4 {
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
            protocol: 6,
            transport: Transport::Ports { source: 40_000, destination: 80, flags: 0 },
        },
        ..Frame::default()
    };
    follow(&states, &wires, &BTreeSet::from([CACHE_IN]), SENDER, &web).copies.into_keys().collect()
}

#[test]
fn what_is_led_past_a_function_goes_on_in_its_own_chain_or_ends() {
    assert_eq!(leaves(&[]), [IDS]);
    assert_eq!(leaves(&[7]), []);
}
