//! Goal: of ports whose names are the same as far as OpenFlow tells them, nobody gets one by its name, and what is behind them is
//! never joined. On real Open vSwitch, which allows patch ports and tunnels any length of names.

mod network;

use anyhow::{Result, ensure};
use lab::{Capture, Frame, Layout, Spec};
use serde_json::Value;

use network::{MS, Network, green_and_orange, spec};

/// The ports of a bridge that belong to somebody, by number.
fn owned(network: &Network, name: &str) -> Result<Vec<(u64, String)>> {
    let ports = network.controller.get("/v1/bridges/h1")?["ports"].clone();
    let owned = |port: &Value| Some((port["number"].as_u64()?, port["tenant"].as_str()?.to_owned()));
    Ok(ports.as_array().into_iter().flatten().filter(|port| port["name"] == name).filter_map(owned).collect())
}

#[test]
fn ports_of_one_name_are_nobodys_and_a_problem_names_both() -> Result<()> {
    let exact = "  { bridge = \"*\", port = \"customer-port-1\" },\n";
    let network = Network::with_policy(&Spec { hosts: 2, ..spec(Layout::Shared) }, &green_and_orange(exact, ""))?;
    let host = network.lab.host(1)?;
    // Each of two customers has a bridge of his own behind a patch port.
    let mut machines = Vec::new();
    for (number, customer) in [(31, "x1"), (32, "x2")] {
        let (here, there) = (format!("customer-port-1-of-{customer}"), format!("to-{customer}"));
        let commands = format!(
            "add-br {customer} -- set bridge {customer} datapath_type=netdev -- add-port {customer} {there} -- \
             set interface {there} type=patch options:peer={here} -- add-port br0 {here} -- \
             set interface {here} type=patch options:peer={there} ofport_request={number}"
        );
        host.vsctl(&commands.split_whitespace().collect::<Vec<_>>())?;
        machines.push(network.lab.add_container(1, customer, &format!("m-{customer}"), number)?);
    }
    network.wait_problem("ports 31 and 32 of bridge `h1` have the same name `customer-port-1`")?;
    network.settle()?;
    ensure!(owned(&network, "customer-port-1")?.is_empty(), "nobody's: {:?}", owned(&network, "customer-port-1")?);
    let frame = Frame::broadcast(machines[0].mac);
    let captures = [Capture::start(&machines[1])?, Capture::start(&network.lab.container(2, "green-1")?)?];
    machines[0].send(&frame)?;
    std::thread::sleep(MS(300));
    for capture in captures {
        ensure!(capture.stop()?.copies(&frame) == 0, "one customer's frame is with the other");
    }
    // One that has a name of its own is whose the policy says.
    host.vsctl(&["del-port", "br0", "customer-port-1-of-x2"])?;
    lab::wait_until("the other one is green's", MS(5000), || {
        Ok(owned(&network, "customer-port-1")? == [(31, "green".to_owned())])
    })?;
    ensure!(!network.problems()?.iter().any(|problem| problem.contains("same name")), "{:?}", network.problems()?);
    Ok(())
}
