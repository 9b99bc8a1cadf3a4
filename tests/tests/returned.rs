//! Goal: one bridge stays one bridge. Without a datapath id of its own it becomes another one when a port with a lower address comes
//! or goes; its hosts stay reachable, and nothing is left of the one that it was. On real Open vSwitch.

mod network;

use anyhow::{Result, ensure};
use lab::{ContinuousPing, Layout};

use network::{MS, Network, spec};

/// What there is to say of the bridges: ids, and whether all is as it should be.
fn ids(network: &Network) -> Result<Vec<String>> {
    let bridges = network.controller.get("/v1/bridges")?;
    let ids = bridges.as_array().into_iter().flatten().filter_map(|bridge| Some(bridge["dpid"].as_str()?.to_owned()));
    Ok(ids.collect())
}

fn becomes_another(network: &Network, what: &str, change: impl FnOnce() -> Result<()>) -> Result<()> {
    let (from, to) = (network.lab.container(2, "green-1")?, network.lab.container(1, "green-1")?);
    let before = ids(network)?;
    let ping = ContinuousPing::start(&from, to.ipv4)?;
    change()?;
    lab::wait_until(&format!("{what}: one bridge with another id"), MS(15_000), || {
        let now = ids(network)?;
        Ok(now.len() == before.len() && now.iter().filter(|id| !before.contains(id)).count() == 1)
    })?;
    network.settle()?;
    let report = ping.stop()?;
    println!(
        "{what}: {} of {} pings lost, {:?} at once",
        report.sent - report.received,
        report.sent,
        report.longest_outage
    );
    ensure!(report.longest_outage < MS(1000) && report.duplicates == 0, "{what}: {report:?}");
    let status = network.controller.get("/v1/status")?;
    ensure!(status["links"]["down"] == 0 && status["bridges"]["known"] == 3, "{what}: {status}");
    let problems = network.problems()?;
    let told = |part: &str| problems.iter().any(|problem| problem.contains(part));
    ensure!(told("has no datapath id of its own") && told("came back with datapath id"), "{what}: {problems:?}");
    ensure!(!told("fault of this program") && !told("isn't connected"), "{what}: {problems:?}");
    network.check_delivery()
}

#[test]
fn a_bridge_whose_id_follows_its_ports_stays_the_same_bridge() -> Result<()> {
    let network = Network::ready(&spec(Layout::Shared))?;
    let host = network.lab.host(1)?;
    becomes_another(&network, "ids removed", || {
        host.vsctl(&[
            "remove",
            "bridge",
            "br0",
            "other_config",
            "hwaddr",
            "--",
            "remove",
            "bridge",
            "br0",
            "other_config",
            "datapath-id",
        ])
        .map(drop)
    })?;
    becomes_another(&network, "a lower address, and no name", || {
        let veth = "link add name low index 900 address 00:00:00:00:00:07 type veth peer name low-end index 901";
        host.netns.command("ip", &veth.split(' ').collect::<Vec<_>>())?;
        host.vsctl(&["remove", "bridge", "br0", "other_config", "dp-desc", "--", "add-port", "br0", "low"]).map(drop)
    })
}
