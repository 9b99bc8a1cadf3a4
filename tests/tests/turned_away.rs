//! Goal: the status says of a bridge that can't connect why, and how to mend it, for as long as it tries. On real Open vSwitch.

mod network;

use anyhow::{Result, ensure};
use lab::{Layout, Spec};

use network::{MS, Network, spec};

#[test]
fn the_status_says_why_a_bridge_cannot_connect() -> Result<()> {
    let network = Network::start(&Spec { hosts: 2, ..spec(Layout::Shared) })?;
    let host = network.lab.host(1)?;
    let taken = network.lab.bridges()[1].dpid_hex();
    let target = format!("tcp:{}", network.lab.controller_address());
    let vsctl = |line: &str| host.vsctl(&line.split_whitespace().collect::<Vec<_>>());

    vsctl(&format!(
        "add-br other -- set bridge other datapath_type=netdev protocols=OpenFlow10 -- set-fail-mode other secure -- \
         set-controller other {target} -- set controller other max_backoff=1000"
    ))?;
    network.wait_problem("can't connect: it doesn't speak OpenFlow 1.3")?;
    let told = network.problems()?;
    ensure!(told.iter().any(|problem| problem.contains("protocols=OpenFlow13")), "the remedy: {told:?}");

    // It is mended, and tells the datapath id of another bridge.
    vsctl(&format!("set bridge other protocols=OpenFlow13 other_config:datapath-id={taken}"))?;
    lab::wait_until("the other reason", MS(20_000), || {
        Ok(network.problems()?.iter().any(|problem| {
            problem.contains(&format!("bridge {taken} at")) && problem.contains("other_config:datapath-id=")
        }))
    })?;
    network.settle()?;

    // What is mended is told no more.
    vsctl("set bridge other other_config:datapath-id=00000000000000ff")?;
    lab::wait_until("the bridge to connect", MS(20_000), || {
        Ok(network.controller.get("/v1/status")?["bridges"]["connected"] == 3)
    })?;
    lab::wait_until("the problems to end", MS(40_000), || {
        Ok(!network
            .problems()?
            .iter()
            .any(|problem| problem.contains("can't connect") || problem.contains("stay connected")))
    })?;
    Ok(())
}
