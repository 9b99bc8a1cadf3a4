//! What the checker of invariants costs, with 100 bridges and 50 tenants of 20 hosts each: `cargo bench -p espalier-apps`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use apps::allocation::Allocations;
use apps::attachment::{Attachments, attach};
use apps::checker::Checker;
use apps::compile::{Desired, compile};
use apps::marks::Owner;
use apps::policy::{Policy, Source, load};
use apps::tenants;
use apps::view::{Bridge, Carrier, Endpoint, Host, Hosts, Link, PortView, View};
use criterion::{Criterion, criterion_group, criterion_main};
use openflow::types::{DatapathId, MacAddr, PortNo};

const BRIDGES: u64 = 100;
const TENANTS: u64 = 50;
const HOSTS: u64 = 20;
/// The tenant whose host moves, and that has rules.
const RULED: u64 = 7;

struct Fabric {
    policy: Policy,
    allocations: Allocations,
    attachments: Attachments,
    view: View,
    hosts: BTreeMap<String, Hosts>,
    desired: Desired,
}

/// So many rules of a tenant that lie over each other.
fn rules(count: u32) -> String {
    let rule = |n: u32| {
        let (from, to, port, action) = (n % 61, n % 37, 20 + n % 50, ["drop", "allow"][n as usize / 3 % 2]);
        format!(
            "[[tenant.rule]]\nname = \"r{n}\"\nmatch = {{ source = \"10.{from}.0.0/16\", destination = \"10.0.{to}.0/24\", \
             protocol = \"tcp\", destination_port = {port} }}\naction = \"{action}\"\n"
        )
    };
    (0..count).map(rule).collect()
}

/// Two bridges of the hundred join the others. Each tenant's hosts are at twenty bridges, which lie as its number says; one
/// has rules.
fn fabric(rules: &str) -> Fabric {
    let mut view = View::default();
    for dpid in 1..=BRIDGES {
        let bridge = Bridge { name: format!("b{dpid}"), responsive: true, ports: BTreeMap::new() };
        view.bridges.insert(DatapathId(dpid), bridge);
    }
    let mut add = |dpid: u64, name: String| {
        let ports = &mut view.bridges.get_mut(&DatapathId(dpid)).unwrap().ports;
        let port = PortNo(ports.len() as u32 + 1);
        ports.insert(port, PortView { name, up: true, ..PortView::default() });
        Endpoint { bridge: DatapathId(dpid), port }
    };
    let mut links = Vec::new();
    for leaf in 3..=BRIDGES {
        for spine in [1, 2] {
            let (a, b) = (add(spine, format!("to-{leaf}")), add(leaf, format!("to-{spine}")));
            links.push(Link { a, b, carrier: Carrier::Tunnel });
        }
    }
    let (mut hosts, mut text) = (BTreeMap::<String, Hosts>::new(), "version = 1\n".to_owned());
    for tenant in 0..TENANTS {
        let name = format!("t{tenant}");
        text += &format!("[[tenant]]\nname = \"{name}\"\nports = [{{ bridge = \"*\", port = \"{name}-*\" }}]\n");
        text += if tenant == RULED { rules } else { "" };
        for host in 0..HOSTS {
            let place = add(3 + (tenant * 7 + host * (1 + tenant % 3)) % (BRIDGES - 2), format!("{name}-{host}"));
            let mac = MacAddr([2, 0, 0, 0, tenant as u8, host as u8]);
            hosts.entry(name.clone()).or_default().insert(mac, Host { place, fresh: true });
        }
    }
    links.sort();
    view.links = links;
    let policy = load(&[Source { name: "bench.toml".into(), text }]).expect("sound").policy;
    let allocations = Allocations::default().updated(&policy);
    let attachments = attach(&policy, &view);
    let desired = compile(&policy, &allocations, &view, &hosts);
    Fabric { policy, allocations, attachments, view, hosts, desired }
}

fn checker(criterion: &mut Criterion) {
    let it = fabric("");
    let entries: usize =
        it.desired.bridges.values().flat_map(BTreeMap::values).map(|section| section.flows.len()).sum();
    println!("{entries} flow entries");
    let found = Checker::new(&it.policy, &it.allocations, &it.attachments, &it.view).all(&it.desired.bridges);
    assert!(found.is_empty(), "{found:?}");
    criterion.bench_function("all of 100 bridges, 50 tenants, 20 hosts each", |bencher| {
        bencher.iter(|| {
            let checker = Checker::new(&it.policy, &it.allocations, &it.attachments, &it.view);
            black_box(checker.all(black_box(&it.desired.bridges)))
        });
    });
    one_host(criterion, "one host changes", it);
    one_host(criterion, "one host changes, 20 rules", fabric(&rules(20)));
    one_host(criterion, "one host changes, 200 rules", fabric(&rules(200)));
}

/// A host moves.
fn one_host(criterion: &mut Criterion, name: &str, mut it: Fabric) {
    let tenant = it.policy.tenant(&format!("t{RULED}")).unwrap();
    let key = it.allocations.of(&tenant.name).unwrap().key;
    let hosts = it.hosts.get_mut(&tenant.name).unwrap();
    let place = hosts.values().next().unwrap().place;
    hosts.values_mut().last().unwrap().place = place;
    let network = tenants::compile(tenant, &it.allocations, &it.attachments, &it.view, hosts);
    for (dpid, section) in network.sections {
        it.desired.bridges.get_mut(&dpid).unwrap().insert(Owner(key), Arc::new(section));
    }
    criterion.bench_function(name, |bencher| {
        bencher.iter(|| {
            let checker = Checker::new(&it.policy, &it.allocations, &it.attachments, &it.view);
            let found = checker.owners(black_box(&it.desired.bridges), &[Owner(key)]);
            assert!(found.is_empty(), "{found:?}");
        });
    });
}

criterion_group!(benches, checker);
criterion_main!(benches);
