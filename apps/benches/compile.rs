//! What it costs to compute what bridges should hold: `cargo bench -p espalier-apps`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::hint::black_box;

use apps::allocation::Allocations;
use apps::attachment::{Attachments, attach};
use apps::compile::{Desired, compile};
use apps::policy::{Policy, Source, load};
use apps::reconcile::{Style, plan};
use apps::tenants;
use apps::trees::told;
use apps::view::{Bridge, Carrier, Endpoint, Host, Hosts, Link, PortView, View};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use openflow::types::{DatapathId, MacAddr, PortNo};

/// Of each tenant.
const HOSTS: u64 = 20;
const CHAINS: u64 = 5;
/// Bridges that it is at, two hosts at each; each of its functions has an instance at two of them.
const BRIDGES: u64 = 10;

/// Bridges with tunnels between them, and tenants with hosts and chains.
struct Network {
    policy: Policy,
    allocations: Allocations,
    view: View,
    attachments: Attachments,
    hosts: BTreeMap<String, Hosts>,
}

impl Network {
    fn new(bridges: u64, tenants: u64) -> Self {
        let mut view = View::default();
        for dpid in 1..=bridges {
            let bridge = Bridge { name: format!("b{dpid}"), responsive: true, ports: BTreeMap::new() };
            view.bridges.insert(DatapathId(dpid), bridge);
        }
        mesh(&mut view, bridges);
        let (mut text, mut hosts) = ("version = 1\n".to_owned(), BTreeMap::new());
        for tenant in 0..tenants {
            let at = |n: u64| 1 + (tenant * 7 + n % BRIDGES * (bridges / BRIDGES)) % bridges;
            let learnt = (0..HOSTS).map(|n| {
                let place = add_port(&mut view, at(n), format!("t{tenant}-{n}"));
                (MacAddr([2, 0, 0, 0, tenant as u8, n as u8]), Host { place, fresh: true })
            });
            hosts.insert(format!("t{tenant}"), learnt.collect::<Hosts>());
            write_tenant(&mut text, &mut view, tenant, at);
        }
        let policy = load(&[Source { name: "bench.toml".into(), text }]).expect("a sound policy").policy;
        let allocations = Allocations::default().updated(&policy);
        let attachments = attach(&policy, &view);
        Self { policy, allocations, view, attachments, hosts }
    }

    fn compile_tenant(&self, tenant: usize) -> tenants::Network {
        let tenant = &self.policy.tenants[tenant];
        tenants::compile(tenant, &self.allocations, &self.attachments, &self.view, &self.hosts[&tenant.name])
    }

    fn compile(&self) -> Desired {
        compile(&self.policy, &self.allocations, &self.view, &self.hosts)
    }

    /// In words.
    fn size(&self) -> String {
        let (bridges, links) = (self.view.bridges.len(), self.view.links.len());
        let sections = self.compile().bridges.into_values().flat_map(BTreeMap::into_values);
        let flows: usize = sections.map(|section| section.flows.len()).sum();
        format!("{bridges} bridges, {links} links, {} tenants, {flows} flow entries", self.policy.tenants.len())
    }
}

fn add_port(view: &mut View, dpid: u64, name: String) -> Endpoint {
    let bridge = DatapathId(dpid);
    let ports = &mut view.bridges.get_mut(&bridge).expect("it exists").ports;
    let port = PortNo(ports.len() as u32 + 1);
    ports.insert(port, PortView { name, up: true, ..PortView::default() });
    Endpoint { bridge, port }
}

/// Each bridge has a tunnel to every other; where there are many, to those that are 1, 7 and 31 farther.
fn mesh(view: &mut View, bridges: u64) {
    let farther: Vec<u64> = if bridges <= 10 { (1..=bridges / 2).collect() } else { vec![1, 7, 31] };
    let pairs = (0..bridges).flat_map(|a| farther.iter().map(move |farther| (a, (a + farther) % bridges)));
    for (a, b) in pairs.map(|(a, b)| (1 + a.min(b), 1 + a.max(b))).collect::<BTreeSet<_>>() {
        let ends = [(a, b), (b, a)].map(|(here, there)| add_port(view, here, format!("to-{there}")));
        view.links.push(Link { a: ends[0], b: ends[1], carrier: Carrier::Tunnel });
    }
    view.links.sort();
}

/// A tenant with as many functions as chains, each chain through two of them.
fn write_tenant(text: &mut String, view: &mut View, tenant: u64, at: impl Fn(u64) -> u64) {
    let mut write = |line: String| writeln!(text, "{line}").expect("a string takes all");
    write(format!("[[tenant]]\nname = \"t{tenant}\"\nports = [{{ bridge = \"*\", port = \"t{tenant}-*\" }}]"));
    for function in 0..CHAINS {
        write(format!("[[tenant.function]]\nname = \"f{function}\"\nkind = \"wire\"\ninstances = ["));
        for instance in 0..2 {
            let (bridge, name) = (at(2 * function + instance), format!("f{tenant}-{function}-{instance}"));
            let sides = ["ingress", "egress"].map(|side| {
                let port = format!("{name}-{side}");
                let words = format!("{side} = \"{port}\"");
                add_port(view, bridge, port);
                words
            });
            write(format!("{{ name = \"i{instance}\", bridge = \"b{bridge}\", {} }},", sides.join(", ")));
        }
        write("]".to_owned());
    }
    for chain in 0..CHAINS {
        let through = [chain, (chain + 1) % CHAINS].map(|function| format!("f{function}"));
        write(format!(
            "[[tenant.chain]]\nname = \"c{chain}\"\nsymmetric = true\nthrough = {through:?}\n\
             match = {{ protocol = \"tcp\", destination_port = [{}, {}] }}",
            80 + chain,
            8080 + chain
        ));
    }
}

fn compiling(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(20);
    for (bridges, tenants) in [(BRIDGES, 1), (100, 50)] {
        let network = Network::new(bridges, tenants);
        let size = network.size();
        group.bench_function(BenchmarkId::new("one tenant", &size), |bencher| {
            bencher.iter(|| black_box(network.compile_tenant(0)));
        });
        group.bench_function(BenchmarkId::new("everything", &size), |bencher| {
            bencher.iter(|| black_box(network.compile()));
        });
        let (before, mut after) = (network.compile(), Network::new(bridges, tenants));
        after.view.links.remove(0);
        let after = after.compile();
        let owners = after.bridges.values().flat_map(BTreeMap::keys).copied().collect();
        let trees = told(&after.grown(&network.allocations), &owners);
        group.bench_function(BenchmarkId::new("changes when a link dies", &size), |bencher| {
            let plans = || {
                let plans = after.bridges.iter().map(|(dpid, wanted)| {
                    let old = &before.bridges[dpid];
                    plan(old, wanted, &old.keys().chain(wanted.keys()).copied().collect(), Style::Gentle, &trees)
                });
                plans.collect::<Vec<_>>()
            };
            bencher.iter(|| black_box(plans()));
        });
    }
    group.finish();
}

criterion_group!(benches, compiling);
criterion_main!(benches);
