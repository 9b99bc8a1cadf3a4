//! Goal: a network of Mininet's, as its users make it (`OVSSwitch(datapath="user", protocols="OpenFlow13")`, a remote
//! controller), is a fabric like any other: a policy that lists its hosts' ports is all it takes.

mod network;

use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use lab::{Carrier, Container, ContinuousPing, ControllerSpec, Lab, Layout, Mininet, Spec};

use network::{MS, Network};

/// A lab of one host with nothing on it but a bridge that calls nobody.
fn bare() -> Spec {
    Spec { hosts: 1, tenants: Vec::new(), carrier: Carrier::Veth, connect: false, ..network::spec(Layout::Shared) }
}

/// All ports of Mininet's are called alike, so those of hosts are listed; the others may become links.
fn policy(containers: &[Container]) -> String {
    let tenant = |name: &str, key: u32| {
        let own = containers.iter().filter(|container| container.tenant.as_deref() == Some(name));
        let ports = own.map(|it| format!("  {{ bridge = \"{}\", port = \"{}\" }},\n", it.bridge, it.port));
        format!("[[tenant]]\nname = \"{name}\"\nkey = {key}\nports = [\n{}]\n", ports.collect::<String>())
    };
    format!("version = 1\n[fabric]\nlinks = [\"*\"]\n{}{}", tenant("green", 100), tenant("orange", 200))
}

fn start(shape: &[&str], whose: impl Fn(&str) -> Option<&str>) -> Result<(Mininet, Network)> {
    let lab = Lab::start(&bare())?;
    let mininet = lab.start_mininet(1, shape, whose)?;
    let controller = lab.start_controller(&ControllerSpec::policy(policy(&lab.containers())))?;
    Ok((mininet, Network { controller, lab }))
}

fn connects(from: &Container, to: &Container) -> Result<bool> {
    let _listener = to.netns.run(|| std::net::TcpListener::bind((to.ipv4, 7)).context("listening"))?;
    from.netns.run(|| Ok(TcpStream::connect_timeout(&(to.ipv4, 7).into(), MS(700)).is_ok()))
}

/// Everybody reaches everybody of the same tenant.
fn meet(network: &Network) -> Result<()> {
    for tenant in ["green", "orange"] {
        let matrix = network.lab.ping_matrix(tenant, MS(5000))?;
        ensure!(matrix.silent.is_empty(), "{tenant}: {matrix}");
    }
    network.controller.wait_converged(4, MS(5000)).map(drop)
}

/// Two tenants in a tree, whose hosts are neighbours at the same switches. And what README says of checksums: with Mininet's
/// hosts as they are, a ping is answered and TCP never connects.
#[test]
fn a_tree_carries_two_tenants_and_tcp_once_checksums_are_filled_in() -> Result<()> {
    let odd = |name: &str| ["h1", "h3", "h5", "h7", "h9"].contains(&name);
    let (mut mininet, network) = start(&["tree", "2", "3"], |name| Some(if odd(name) { "green" } else { "orange" }))?;
    network.settled(4, 3)?;
    meet(&network)?;
    network.check_delivery()?;
    let loss: f64 = mininet.call("net.ping([net[name] for name in ('h1', 'h3', 'h5', 'h7', 'h9')])")?.parse()?;
    ensure!(loss == 0.0, "Mininet's own pings: {loss} % lost");
    let across: f64 = mininet.call("net.ping([net['h1'], net['h2']])")?.parse()?;
    ensure!(across == 100.0, "Mininet's hosts of two tenants reach each other");

    let (one, nine) = (container(&network, "h1")?, container(&network, "h9")?);
    ensure!(!connects(&one, &nine)?, "TCP connects without checksums: README says that it doesn't");
    for host in ["h1", "h9"] {
        mininet.call(&format!("net['{host}'].cmd('ethtool -K {host}-eth0 tx off')"))?;
    }
    ensure!(connects(&one, &nine)?, "TCP doesn't connect with `ethtool -K h1-eth0 tx off`");
    let throughput = network.lab.tcp(&one, &nine, 1)?;
    ensure!(throughput.mbit > 10.0, "{throughput:?}");
    ensure!(network.problems()?.is_empty(), "{:?}", network.problems()?);
    Ok(())
}

fn container(network: &Network, host: &str) -> Result<Container> {
    let found = network.lab.containers().into_iter().find(|it| it.netns.name().ends_with(&format!("-{host}")));
    found.with_context(|| format!("Mininet has no host {host}"))
}

/// A ring is a loop: no storm, each link of it can be lost, and Mininet's `link s1 s2 down` is seen at once.
#[test]
fn a_ring_is_no_storm_and_heals() -> Result<()> {
    let (mut mininet, network) = start(&["ring", "4"], |_| Some("green"))?;
    network.settled(4, 4)?;
    meet(&network)?;
    network.check_delivery()?;
    ensure!(mininet.call("net.pingAll()")?.parse::<f64>()? == 0.0, "Mininet's own pingAll has losses");

    network.lab.pin_neighbours()?;
    let (one, two) = (container(&network, "h1")?, container(&network, "h2")?);
    let ping = ContinuousPing::start(&one, two.ipv4)?;
    mininet.call("net.configLinkStatus('s1', 's2', 'down')")?;
    network.settled(4, 3)?;
    network.check_delivery()?;
    mininet.call("net.configLinkStatus('s1', 's2', 'up')")?;
    network.settled(4, 4)?;
    network.check_delivery()?;
    let report = ping.stop()?;
    ensure!(report.duplicates == 0 && report.longest_outage < MS(500), "{report:?}");
    Ok(())
}
