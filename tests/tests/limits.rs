//! Goal: rate limits hold, of ports and of tenants at each bridge, alone and together, and cost nobody else. On real Open
//! vSwitch, with traffic measured by iperf3.

mod network;

use std::thread::sleep;

use anyhow::{Context, Result, ensure};
use lab::{Capture, Frame, Layout, Sender};
use serde_json::Value;

use network::{MS, Network, green_and_orange, spec};

/// Green with a limit, or more, and orange without.
fn policy(green: &str) -> String {
    green_and_orange("", green)
}

fn limit(network: &Network, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let limits = network.controller.get("/v1/limits")?;
    let rows = limits.as_array().context("a list of limits")?;
    rows.iter().find(|row| wanted(row)).cloned().with_context(|| format!("no such limit in {limits}"))
}

/// What gets through of more than the limit, in Mbit/s of frames, headers included as the meter counts them.
fn got(network: &Network, tenant: &str, sent: u32) -> Result<f64> {
    let name = format!("{tenant}-1");
    let (from, to) = (network.lab.container(1, &name)?, network.lab.container(2, &name)?);
    Ok(network.lab.udp(&from, &to, sent, 4)?.of_frames())
}

fn near(got: f64, rate: f64) -> bool {
    (got / rate - 1.0).abs() < 0.1
}

fn ports_of_a_tenant(layout: Layout) -> Result<()> {
    let small = |rate: u32| format!("rate_limit = {{ rate = \"{rate} Mbit/s\", burst = \"50 kbit\" }}");
    let network = Network::with_policy(&spec(layout), &policy(&small(2)))?;
    network.meet("green")?;
    network.meet("orange")?;
    for rate in [2, 5, 10] {
        network.controller.write_policy(&policy(&small(rate)))?;
        let adopted = |row: &Value| row["rate"] == rate * 1000 && row["tenant"] == "green";
        lab::wait_until("the new rate", MS(5000), || Ok(limit(&network, adopted).is_ok()))?;
        network.settle()?;
        let green = got(&network, "green", rate * 2)?;
        ensure!(near(green, rate.into()), "{rate} Mbit/s let {green:.2} through");
    }
    let orange =
        network.lab.udp(&network.lab.container(1, "orange-1")?, &network.lab.container(2, "orange-1")?, 20, 3)?;
    ensure!(orange.lost_percent < 1.0 && near(orange.mbit, 20.0), "who has no limit isn't limited: {orange:?}");
    // What was dropped shows.
    let many = |count: &Value| count["packets"].as_u64() > Some(100);
    let shown = |row: &Value| row["on"] == "bridge" && many(&row["dropped"]) && many(&row["passed"]);
    lab::wait_until("dropped packets", MS(5000), || Ok(limit(&network, shown).is_ok()))
        .with_context(|| format!("last: {:?}", network.controller.get("/v1/limits")))?;
    let table = network.controller.cli(&["get", "limits", "green"])?;
    ensure!(table.status.success() && String::from_utf8_lossy(&table.stdout).contains("kbit/s"), "{table:?}");
    Ok(())
}

#[test]
fn limits_hold_at_three_rates_on_shared_bridges() -> Result<()> {
    ports_of_a_tenant(Layout::Shared)
}

#[test]
fn limits_hold_at_three_rates_with_a_bridge_per_tenant() -> Result<()> {
    ports_of_a_tenant(Layout::PerTenant)
}

/// The lower one of two limits on the way counts; a port's own limit holds for each port by itself.
#[test]
fn limits_of_port_and_tenant_stack() -> Result<()> {
    let text = |port: &str, tenant: &str| {
        policy(&format!("rate_limit = {tenant}")).replace(
            r#"port = "green-*" }"#,
            &format!(r#"port = "green-*", rate_limit = {{ rate = "{port} Mbit/s", burst = "50 kbit" }} }}"#),
        )
    };
    let tenant = |rate: &str| format!("{{ rate = \"{rate} Mbit/s\", burst = \"50 kbit\" }}");
    let mut network = Network::with_policy(&spec(Layout::Shared), &text("3", &tenant("8")))?;
    network.meet("green")?;
    let port = got(&network, "green", 12)?;
    ensure!(near(port, 3.0), "the port's 3 Mbit/s let {port:.2} through");
    network.controller.write_policy(&text("8", &tenant("3")))?;
    lab::wait_until("the new rate", MS(5000), || {
        Ok(limit(&network, |row| row["on"] == "port" && row["rate"] == 8000).is_ok())
    })?;
    network.settle()?;
    let both = got(&network, "green", 12)?;
    ensure!(near(both, 3.0), "the tenant's 3 Mbit/s let {both:.2} through");
    // A restart makes no meter anew: their counters go on.
    let counted = |network: &Network| -> Result<u64> {
        lab::wait_until("the counters", MS(5000), || {
            Ok(limit(network, |row| row["on"] == "port" && row["dropped"]["packets"].as_u64() > Some(100)).is_ok())
        })?;
        let row = limit(network, |row| row["on"] == "port" && row["dropped"]["packets"].as_u64() > Some(100))?;
        row["dropped"]["packets"].as_u64().context("a number")
    };
    let before = counted(&network)?;
    network.controller.restart()?;
    network.settle()?;
    let after = counted(&network)?;
    ensure!(after >= before, "dropped packets were {before}, after a restart {after}");
    // Frames are counted one by one where the limit says so.
    network.controller.write_policy(&text("8", "{ rate = \"200 packet/s\", burst = \"20 packet\" }"))?;
    lab::wait_until("the new rate", MS(5000), || Ok(limit(&network, |row| row["unit"] == "packet/s").is_ok()))?;
    network.settle()?;
    let packets = got(&network, "green", 6)? * 1e6 / 8.0 / 1242.0;
    ensure!(near(packets, 200.0), "200 packets a second let {packets:.0} through");
    Ok(())
}

/// What enters a chain is limited at each bridge by itself; what doesn't enter it isn't, of the same tenant neither.
fn of_a_chain(layout: Layout) -> Result<()> {
    let spec = spec(layout);
    let network = Network::with_policy(&spec, &policy(""))?;
    let bridge = spec.bridge_of("green")?;
    let function = network.lab.add_function(3, bridge, "f1-in", "f1-out")?;
    network.meet("green")?;
    network.meet("orange")?;
    let bridges = spec.bridges(3);
    let at = &bridges.iter().find(|it| it.name == bridge).context("green has a bridge")?.description;
    let (one, two, three) = (
        network.lab.container(1, "green-1")?,
        network.lab.container(2, "green-1")?,
        network.lab.container(3, "green-1")?,
    );
    for rate in [3, 6] {
        network.apply(&policy(&format!(
            r#"
[[tenant.function]]
name = "wire"
kind = "wire"
instances = [{{ name = "w-1", bridge = "{at}", ingress = "f1-in", egress = "f1-out" }}]

[[tenant.chain]]
name = "bulk"
through = ["wire"]
match = {{ protocol = "udp", destination = "{}" }}
rate_limit = {{ rate = "{rate} Mbit/s", burst = "50 kbit" }}
"#,
            two.ipv4
        )))?;
        lab::wait_until("the chain's function", MS(8000), || {
            let chain = network.controller.get("/v1/chains/green/bulk")?;
            let instance = &chain["hops"][0]["instances"][0];
            Ok(instance["health"] == "working" && instance["probes_pass"] == true)
        })?;
        network.settle()?;
        let capture = function.capture_ingress()?;
        let chained = network.lab.udp(&one, &two, rate * 2, 4)?.of_frames();
        ensure!(near(chained, rate.into()), "{rate} Mbit/s of the chain let {chained:.2} through");
        // What came is what passed the function.
        let passed = capture.stop()?.count(|frame| frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&17));
        let mbit = passed as f64 * 1242.0 * 8.0 / 4e6;
        ensure!(near(mbit, chained), "{mbit:.2} Mbit/s passed the function, {chained:.2} came");
        // Neither what goes elsewhere, nor what comes back, nor what has another protocol.
        for (from, to) in [(&one, &three), (&two, &one)] {
            let free = network.lab.udp(from, to, rate * 3, 2)?;
            ensure!(
                free.lost_percent < 1.0 && near(free.mbit, (rate * 3).into()),
                "h{} to h{} isn't chained, and is limited: {free:?}",
                from.host,
                to.host
            );
        }
        let tcp = network.lab.tcp(&one, &two, 2)?;
        ensure!(tcp.mbit > f64::from(rate * 2), "TCP isn't chained, and is limited: {tcp:?}");
        let other = (network.lab.container(1, "orange-1")?, network.lab.container(2, "orange-1")?);
        let orange = network.lab.udp(&other.0, &other.1, rate * 3, 2)?;
        ensure!(orange.lost_percent < 1.0, "the other tenant is limited: {orange:?}");
        // The limit shows, at each bridge, with what it dropped where the frames entered.
        let shown = |row: &Value| {
            let many = |count: &Value| count["packets"].as_u64() > Some(100);
            let chain = row["on"] == "chain" && row["chain"] == "bulk" && row["tenant"] == "green";
            chain && row["rate"] == rate * 1000 && many(&row["dropped"]) && many(&row["passed"])
        };
        lab::wait_until("the chain's limit, with what it dropped", MS(5000), || Ok(limit(&network, shown).is_ok()))
            .with_context(|| format!("last: {:?}", network.controller.get("/v1/limits")))?;
    }
    Ok(())
}

#[test]
fn limits_of_a_chain_hold_on_shared_bridges() -> Result<()> {
    of_a_chain(Layout::Shared)
}

#[test]
fn limits_of_a_chain_hold_with_a_bridge_per_tenant() -> Result<()> {
    of_a_chain(Layout::PerTenant)
}

/// What a port is sent by those who know it is limited too; copies for everybody don't count.
#[test]
fn limits_of_what_a_port_receives() -> Result<()> {
    let port = r#"  { bridge = "h2", port = "green-1", rate_limit_to = { rate = "3 Mbit/s", burst = "50 kbit" } },"#;
    let text = green_and_orange(port, "");
    let network = Network::with_policy(&spec(Layout::Shared), &text)?;
    network.meet("green")?;
    let limited = got(&network, "green", 9)?;
    ensure!(near(limited, 3.0), "3 Mbit/s let {limited:.2} through");
    let (one, two, three) = (
        network.lab.container(1, "green-1")?,
        network.lab.container(2, "green-1")?,
        network.lab.container(3, "green-1")?,
    );
    let back = network.lab.udp(&two, &one, 8, 2)?;
    ensure!(back.lost_percent < 1.0 && near(back.mbit, 8.0), "what it sends isn't limited: {back:?}");
    // Broadcasts of 1,400 octets at 9 Mbit/s.
    let sender = Sender::new(&one)?;
    let mut broadcast = Frame::broadcast(one.mac);
    broadcast.bytes.resize(1400, 0);
    let captures = (Capture::start(&two)?, Capture::start(&three)?);
    for _ in 0..160 {
        (0..10).try_for_each(|_| sender.send(&broadcast))?;
        sleep(MS(12));
    }
    sleep(MS(300));
    let (limited, free) = (captures.0.stop()?.copies(&broadcast), captures.1.stop()?.copies(&broadcast));
    ensure!((limited, free) == (1600, 1600), "of 1600 broadcasts {limited} and {free} arrived");
    let row = limit(&network, |row| row["on"] == "to" && row["port"] == "green-1" && row["bridge"] == "h2")?;
    ensure!(row["rate"] == 3000, "{row}");
    Ok(())
}
