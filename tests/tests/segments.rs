//! Goal: hosts that an ordinary Ethernet switch joins are joined: two on a segment by a link like any other, and more are told
//! what to do. On real Open vSwitch, with Linux bridges as switches.

mod network;

use anyhow::{Result, ensure};
use lab::{Carrier, Layout, Shape, Spec};
use serde_json::json;

use network::{MS, Network, spec};

#[test]
fn two_hosts_on_a_switch_have_a_link_and_more_are_told_what_to_do() -> Result<()> {
    let spec = Spec { carrier: Carrier::Veth, shape: Shape::Edges(vec![(1, 3)]), ..spec(Layout::Shared) };
    let network = Network::start(&spec)?;
    // The switch snoops groups and learns addresses.
    network.lab.add_segment("lan", "br0", &[2])?;
    network.wait_problem("tenant green is in 2 parts")?;
    network.wait_problem("no probe arrives at h2/lan: look whether")?;
    // At first it passes no tagged frames: probes do pass, tenants' frames don't.
    network.lab.drop_tagged("lan", 2)?;
    network.lab.plug_in("lan", "br0", 1)?;
    network.settled(3, 2)?;
    network.wait_problem("link h1/lan – h2/lan lets through no frames with a VLAN tag")?;
    network.lab.pass_tagged("lan", 2)?;
    lab::wait_until("no problem", MS(10_000), || Ok(network.problems()?.is_empty()))?;
    let links = network.controller.get("/v1/links")?;
    let (a, b) = (json!({ "bridge": "h1", "port": "lan" }), json!({ "bridge": "h2", "port": "lan" }));
    let found =
        links.as_array().into_iter().flatten().any(|it| it["a"] == a && it["b"] == b && it["carrier"] == "vlan");
    ensure!(found, "no link over the switch: {links}");
    for tenant in ["green", "orange"] {
        network.meet(tenant)?;
    }
    network.check_delivery()?;
    ensure!(network.problems()?.is_empty(), "{:?}", network.problems()?);

    // A third host makes it ambiguous.
    network.lab.plug_in("lan", "br0", 3)?;
    network.wait_problem("no link at h1/lan, h2/lan, h3/lan: they share one segment")?;
    network.wait_problem("options:key=flow")?;
    network.settled(3, 1)?;
    network.lab.unplug("lan", "br0", 3)?;
    network.settled(3, 2)?;
    lab::wait_until("no problem", MS(5000), || Ok(network.problems()?.is_empty()))?;
    network.meet("green")
}
