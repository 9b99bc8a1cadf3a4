//! Goal: where something behind a tenant's ports joins two of them, or sends back what it gets, the loop is found within a
//! second, told, and ended, and nobody else notices; when it is gone, the port takes part in everything again. On real Open vSwitch.

mod network;

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Capture, Container, ContinuousPing, Frame, Layout, Mac, Sender};
use serde_json::Value;

use network::{MS, Network, spec};

/// The names of ports of which something is so.
fn ports(network: &Network, so: impl Fn(&Value) -> bool) -> Result<Vec<String>> {
    let bridges = network.controller.get("/v1/bridges")?;
    let ports =
        bridges.as_array().into_iter().flatten().flat_map(|it| it["ports"].as_array().cloned().unwrap_or_default());
    Ok(ports.filter(|port| so(port)).map(|port| port["name"].as_str().unwrap_or_default().to_owned()).collect())
}

/// Ports that take no part in floods.
fn shut(network: &Network) -> Result<Vec<String>> {
    ports(network, |port| port["shut"] == true)
}

fn wait_tenants(network: &Network, names: &[&str]) -> Result<()> {
    lab::wait_until("the ports to be the tenant's", MS(5000), || {
        let greens = ports(network, |port| port["tenant"] == "green")?;
        Ok(names.iter().all(|name| greens.iter().any(|green| green == name)))
    })
    .map(drop)
}

/// Everybody's broadcasts come exactly once to everybody else.
fn floods_once(network: &Network, containers: &[Container]) -> Result<()> {
    for from in containers {
        let frame = Frame::broadcast(from.mac);
        let seen = network.watch(|| from.send(&frame))?;
        let others: Vec<_> = containers.iter().filter(|to| to.netns != from.netns).collect();
        seen.expect(&frame, &others, "a broadcast beside a loop")?;
    }
    Ok(())
}

/// Broadcasts go on, 200 a second, while something begins to make a loop: gives how many copies the farthest got before it was ended.
fn ended(network: &Network, begin: impl FnOnce() -> Result<()>, port: &str) -> Result<()> {
    let (from, far) = (network.lab.container(2, "green-1")?, network.lab.container(3, "green-1")?);
    let sender = Sender::new(&from)?;
    let capture = Capture::start(&far)?;
    let frame = Frame::broadcast(from.mac);
    begin()?;
    let began = Instant::now();
    let (mut sent, mut found) = (0, None);
    while began.elapsed() < Duration::from_secs(3) {
        sender.send(&frame)?;
        sent += 1;
        if found.is_none() && sent % 20 == 0 && shut(network)?.iter().any(|it| it == port) {
            found = Some(began.elapsed());
        }
        sleep(MS(5));
    }
    let found = found.with_context(|| format!("{port} isn't shut after 3 s: {:?}", network.problems()))?;
    let copies = capture.stop()?.copies(&frame);
    println!("found after {found:?}; {sent} broadcasts became {copies} at the far end");
    ensure!(copies >= sent, "of {sent} broadcasts {copies} came to the far end");
    network.wait_problem("a loop in tenant green")?;
    ensure!(
        network.problems()?.iter().any(|it| it.contains(port) && it.contains("is shut for floods")),
        "{:?}",
        network.problems()?
    );
    Ok(())
}

fn joined(layout: Layout) -> Result<()> {
    let network = Network::ready(&spec(layout))?;
    let bridge = network.lab.spec().bridge_of("green")?.to_owned();
    let greens = network.lab.tenant("green");
    // It joins its ports only when they have long been the tenant's.
    let machine = network.lab.add_function(1, &bridge, "green-l1", "green-l2")?;
    machine.hang()?;
    for port in ["green-l1", "green-l2"] {
        network.lab.host(1)?.vsctl(&["del-port", &bridge, port])?;
        network.lab.host(1)?.vsctl(&["add-port", &bridge, port])?;
    }
    wait_tenants(&network, &["green-l1", "green-l2"])?;
    network.settle()?;
    let ping = ContinuousPing::start(&greens[0], greens[1].ipv4)?;
    ended(&network, || machine.recover(), "green-l2")?;
    ensure!(shut(&network)? == ["green-l2"], "{:?}", shut(&network)?);
    network.settle()?;
    sleep(MS(1500));
    let report = ping.stop()?;
    ensure!(report.longest_outage < MS(1500), "others notice: {report:?}");
    network.meet("green")?;
    floods_once(&network, &greens)?;
    network.check_delivery()?;

    // A restart of the controller opens nothing.
    let mut network = network;
    network.controller.restart()?;
    network.settle()?;
    ensure!(shut(&network)? == ["green-l2"], "after a restart: {:?}", shut(&network)?);
    ensure!(network.changes_sent()? == 0, "{} changes were sent", network.changes_sent()?);
    floods_once(&network, &greens)?;

    // It is taken out, and all is as it was.
    machine.hang()?;
    lab::wait_until("the port to be opened", MS(20_000), || Ok(shut(&network)?.is_empty()))?;
    network.settle()?;
    ensure!(!network.problems()?.iter().any(|it| it.contains("a loop in tenant")), "{:?}", network.problems()?);
    let frame = Frame::broadcast(greens[1].mac);
    let capture = machine.capture_egress()?;
    greens[1].send(&frame)?;
    sleep(MS(300));
    ensure!(capture.stop()?.copies(&frame) == 1, "the port that was shut gets floods again");
    Ok(())
}

#[test]
fn a_station_that_joins_two_ports_loses_one_on_shared_bridges() -> Result<()> {
    joined(Layout::Shared)
}

#[test]
fn a_station_that_joins_two_ports_loses_one_with_a_bridge_per_tenant() -> Result<()> {
    joined(Layout::PerTenant)
}

#[test]
fn a_station_that_sends_back_what_it_gets_is_sent_no_floods() -> Result<()> {
    let network = Network::ready(&spec(Layout::Shared))?;
    let bridge = network.lab.spec().bridge_of("green")?.to_owned();
    let greens = network.lab.tenant("green");
    let machine = network.lab.add_function_with_one_port(1, &bridge, "green-l1", Mac([2, 0, 0, 0, 0xfe, 7]))?;
    wait_tenants(&network, &["green-l1"])?;
    network.settle()?;
    let mut reflector = None;
    ended(
        &network,
        || {
            reflector = Some(machine.hairpin()?);
            Ok(())
        },
        "green-l1",
    )?;
    network.meet("green")?;
    floods_once(&network, &greens)?;
    network.check_delivery()?;
    drop(reflector);
    lab::wait_until("the port to be opened", MS(20_000), || Ok(shut(&network)?.is_empty()))?;
    Ok(())
}

/// What only looks like it: a host that moves there and back shuts nothing.
#[test]
fn a_host_that_moves_shuts_nothing() -> Result<()> {
    let network = Network::ready(&spec(Layout::Shared))?;
    let (one, two) = (network.lab.container(1, "green-1")?, network.lab.container(2, "green-1")?);
    for _ in 0..5 {
        two.send(&Frame::broadcast(one.mac))?;
        sleep(MS(400));
        one.send(&Frame::broadcast(one.mac))?;
        sleep(MS(400));
    }
    ensure!(shut(&network)?.is_empty(), "{:?}", shut(&network)?);
    Ok(())
}
