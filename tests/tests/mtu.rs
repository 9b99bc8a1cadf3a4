//! Goal: what links carry is known to the octet, and whoever sends more is told. On real Open vSwitch, with tunnels of both kinds and
//! a plain link, and with packets of just that length.

mod network;

use std::thread::sleep;

use anyhow::{Context, Result, ensure};
use lab::{BROADCAST, Container, ControllerSpec, Frame, Lab, Layout, Mac, Sender, Shape, Spec};
use serde_json::Value;

use network::{MS, Network, POLICY, spec};

/// An untagged frame with a packet of so many octets.
fn packet(from: &Container, to: Mac, octets: usize) -> Frame {
    let mut frame = Frame::new(from.mac, to);
    frame.bytes.resize(14 + octets, 0);
    frame
}

/// Of which octets the longest packet is that a link carries, by its kind and the bridges that it joins.
fn mtu(links: &Value, carrier: &str, a: &str, b: &str) -> Option<u64> {
    let is_it = |it: &&Value| it["carrier"] == carrier && it["a"]["bridge"] == a && it["b"]["bridge"] == b;
    links.as_array().into_iter().flatten().find(is_it)?["mtu"].as_u64()
}

#[test]
fn what_links_carry_is_measured_and_who_sends_more_is_told() -> Result<()> {
    let shape = Shape::Edges(vec![(1, 2), (2, 3)]);
    let lab = Lab::start(&Spec { shape, ..spec(Layout::Mixed) })?;
    // Towards h1 the underlay takes less.
    lab.limit_underlay(1, 1500)?;
    lab.add_segment("lan", "br0", &[1, 3])?;
    let policy = |mtu: u16| POLICY.replacen("key = 100", &format!("key = 100\nmtu = {mtu}"), 1);
    let controller = lab.start_controller(&ControllerSpec::policy(policy(1500)))?;
    let network = Network { controller, lab };
    network.settled(6, 5)?;
    for tenant in ["green", "orange"] {
        network.meet(tenant)?;
    }

    // VXLAN over IPv4 adds 50 octets; on tunnels of a fixed key, and plain links, tenants' frames bear a tag.
    let expected = [
        ("tunnel", "h1", "h2", 1450),
        ("tunnel", "h2", "h3", 1550),
        ("dedicated", "green-h1", "green-h2", 1446),
        ("dedicated", "green-h2", "green-h3", 1546),
        ("vlan", "h1", "h3", 1500),
    ];
    let mut links = Value::Null;
    let measured = lab::wait_until("all links to be measured", MS(15_000), || {
        links = network.controller.get("/v1/links")?;
        Ok(expected.iter().all(|(carrier, a, b, octets)| mtu(&links, carrier, a, b) == Some(*octets)))
    });
    println!("all measured after {:?}", measured.with_context(|| format!("{links:#}"))?);
    for (tenant, octets) in [("green", 1446), ("orange", 1450)] {
        let document = network.controller.get(&format!("/v1/tenants/{tenant}"))?;
        ensure!(document["mtu"] == octets && document["mtu_in_chains"].is_null(), "{document:#}");
    }
    let shown = String::from_utf8(network.controller.cli(&["get", "links"])?.stdout)?;
    ensure!(shown.contains("MTU") && shown.contains("1446"), "{shown}");

    network.wait_problem("tenant green sends packets of up to 1500 octets")?;
    network.wait_problem("carries only 1446")?;
    network.wait_problem("options:key=flow")?;
    network.controller.apply_policy(&policy(1446))?;
    lab::wait_until("no problem", MS(5000), || Ok(network.problems()?.is_empty()))
        .with_context(|| format!("{:?}", network.problems()))?;

    // Whoever plans for more is told before.
    let longer = network.lab.dir().join("longer.toml");
    std::fs::write(&longer, policy(1500))?;
    let planned = network.controller.cli(&["plan", &longer.display().to_string()])?;
    let planned = String::from_utf8_lossy(&planned.stdout).into_owned();
    ensure!(planned.contains("carries only 1446"), "{planned}");

    // What is said is so: to the octet, to everybody (with a mark) and to one (without).
    let [one, two, three] = [1, 2, 3].map(|host| network.lab.container(host, "green-1"));
    let (one, two, three) = (one?, two?, three?);
    for container in [&one, &two, &three] {
        container.netns.command("ip", &["link", "set", "eth0", "mtu", "1500"])?;
    }
    sleep(MS(200));
    let all = [1446, 1447, 1450, 1451].map(|octets| packet(&two, BROADCAST, octets));
    let single = [1450, 1451].map(|octets| packet(&two, one.mac, octets));
    let sender = Sender::new(&two)?;
    let seen = network.watch(|| all.iter().chain(&single).try_for_each(|frame| sender.send(frame)))?;
    seen.expect(&all[0], &[&one, &three], "1446 octets to all")?;
    for frame in &all[1..] {
        seen.expect(frame, &[&three], "more than 1446 octets to all")?;
    }
    seen.expect(&single[0], &[&one], "1450 octets to one")?;
    seen.expect(&single[1], &[], "1451 octets to one")
}
