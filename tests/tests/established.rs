//! Goal: a rule that allows what belongs to connections lets replies pass and nothing else, in IPv4 and IPv6, within and
//! between bridges, also behind a chain. On real Open vSwitch, whose connection tracking decides.

mod network;

use anyhow::{Result, ensure};
use lab::{Capture, Carrier, Container, Frame, Layout, Spec};

use network::{MS, Network, spec};

/// What enters green is dropped, but for what goes to one container, and replies.
fn policy(server: &Container) -> String {
    format!(
        r#"version = 1

[[tenant]]
name = "green"
key = 100
default = "drop"
ports = [{{ bridge = "*", port = "green-*" }}]

[[tenant.rule]]
name = "to-the-server"
match = [{{ destination = ["{}", "{}"] }}]
action = "allow"

[[tenant.rule]]
name = "replies"
match = {{}}
action = "allow-established"

[[tenant]]
name = "orange"
key = 200
ports = [{{ bridge = "*", port = "orange-*" }}]
"#,
        server.ipv4, server.ipv6
    )
}

fn replies_pass(spec: &Spec) -> Result<()> {
    let mut network = Network::start(spec)?;
    network.meet("green")?;
    let (one, three) = (network.lab.container(1, "green-1")?, network.lab.container(3, "green-1")?);
    // On the server's own bridge.
    let near = network.lab.container(3, "green-2")?;
    network.controller.write_policy(&policy(&three))?;
    lab::wait_until("the policy", MS(5000), || Ok(!network.lab.ping_within(&three, one.ipv4, MS(100))?))?;
    network.settle()?;

    for client in [&one, &near] {
        ensure!(network.lab.ping(client, three.ipv4)?, "an echo request to the server, and its reply");
        ensure!(network.lab.ping(client, three.ipv6)?, "the same in IPv6");
        ensure!(network.lab.tcp(client, &three, 1)?.mbit > 1.0, "TCP to the server");
        ensure!(!network.lab.ping_within(&three, client.ipv4, MS(300))?, "the server begins nothing");
        ensure!(!network.lab.ping_within(&three, client.ipv6, MS(300))?, "nor in IPv6");
    }
    // What isn't IP has no connections.
    let frame = Frame::new(three.mac, one.mac);
    let capture = Capture::start(&one)?;
    three.send(&frame)?;
    // A restart of the controller keeps connections and changes nothing.
    network.controller.restart()?;
    network.settle()?;
    ensure!(capture.stop()?.copies(&frame) == 0, "an Ethernet type that no rule allows");
    ensure!(network.changes_sent()? == 0, "the restart changed something");
    ensure!(network.lab.ping(&one, three.ipv4)? && network.lab.tcp(&near, &three, 1)?.mbit > 1.0);
    network.meet("orange")
}

#[test]
fn replies_pass_on_shared_bridges() -> Result<()> {
    replies_pass(&Spec { containers: 2, ..spec(Layout::Shared) })
}

#[test]
fn replies_pass_with_a_bridge_per_tenant_over_plain_links() -> Result<()> {
    replies_pass(&Spec { containers: 2, carrier: Carrier::Veth, ..spec(Layout::PerTenant) })
}
