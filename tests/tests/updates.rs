//! Goal: no change of the policy is felt by traffic that both the old and the new policy allow, however much changes; and a
//! bridge that refuses a tenant's entries costs nobody else anything. On real Open vSwitch.

mod network;

use std::thread::{self, sleep};

use anyhow::{Context, Result, anyhow, ensure};
use lab::{ContinuousPing, Layout, Stream, Throughput};

use network::{MS, Network, green_and_orange, nothing_lost, rules, spec};

/// Pings and streams of UDP in both tenants between all hosts while `change` happens.
fn traffic(network: &Network, what: &str, change: impl FnOnce() -> Result<()>) -> Result<()> {
    let (mut pings, mut streams) = (Vec::new(), Vec::new());
    for (tenant, from, to) in [("green", 1, 2), ("green", 3, 1), ("orange", 2, 3), ("orange", 1, 3)] {
        let at = |host: usize| network.lab.container(host, &format!("{tenant}-1"));
        pings.push((format!("{what}: {tenant} {from} to {to}"), ContinuousPing::start(&at(from)?, at(to)?.ipv4)?));
        streams.push(Stream::unicast(&at(from)?, &at(to)?, MS(5))?);
    }
    sleep(MS(300));
    change()?;
    sleep(MS(500));
    pings.into_iter().try_for_each(|(what, ping)| nothing_lost(&ping.stop()?, &what))?;
    for report in Stream::stop_all(streams)? {
        ensure!(report.sent > 50 && report.lost() == 0 && report.duplicates == 0, "{what}: {report:?}");
    }
    Ok(())
}

#[test]
fn a_reload_loses_nothing_however_much_it_changes() -> Result<()> {
    for layout in [Layout::Shared, Layout::PerTenant] {
        let network = Network::with_policy(&spec(layout), &green_and_orange("", &rules(1, "tcp", 1000)))?;
        network.meet("green")?;
        network.meet("orange")?;
        for (round, count) in [1, 10, 100, 10, 0].into_iter().enumerate() {
            traffic(&network, &format!("{layout:?}, {count} rules"), || {
                network.apply(&green_and_orange("", &rules(count, "tcp", 1000 * (round + 2))))
            })?;
        }
        // What a limit or a pinned address adds takes nothing away either.
        let mac = network.lab.container(1, "green-1")?.mac.to_string();
        let hosts = network.controller.get("/v1/hosts")?;
        let host = hosts.as_array().into_iter().flatten().find(|host| host["mac"] == mac);
        let bridge = host.and_then(|host| host["bridge"].as_str()).with_context(|| format!("{mac} in {hosts}"))?;
        let pinned = format!(
            "  {{ bridge = \"{bridge}\", port = \"green-1\", mac = \"{mac}\", rate_limit = \"500 Mbit/s\" }},\n"
        );
        traffic(&network, &format!("{layout:?}, a pinned address"), || network.apply(&green_and_orange(&pinned, "")))?;
        let metrics = network.controller.request("GET", "/metrics", None)?.body;
        let bundled = metrics.lines().any(|line| line.contains("type=\"Experimenter\",direction=\"sent\""));
        ensure!(bundled, "nothing was sent in bundles: {metrics}");
        traffic(&network, &format!("{layout:?}, not pinned any more"), || network.apply(&green_and_orange("", "")))?;
    }
    Ok(())
}

/// What iperf3 sends arrives, whatever is reloaded meanwhile, in the tenant that changes and in the one that doesn't. How often TCP
/// sent something again is for whoever reads the output (`--nocapture`): a busy machine makes it do so, too.
#[test]
fn a_reload_loses_nothing_of_what_iperf3_sends() -> Result<()> {
    const SECONDS: u32 = 8;
    for layout in [Layout::Shared, Layout::PerTenant] {
        let network = Network::with_policy(&spec(layout), &green_and_orange("", ""))?;
        network.meet("green")?;
        network.meet("orange")?;
        network.lab.pin_neighbours()?;
        let lab = &network.lab;
        let results = thread::scope(|scope| {
            let mut running = Vec::new();
            for tenant in ["green", "orange"] {
                let at = |host: usize| lab.container(host, &format!("{tenant}-1"));
                let (one, two, three) = (at(1)?, at(2)?, at(3)?);
                let (from, to) = (one.clone(), two);
                running.push((tenant, "UDP", scope.spawn(move || lab.udp(&from, &to, 4, SECONDS))));
                running.push((tenant, "TCP", scope.spawn(move || lab.tcp_at(&one, &three, 4, SECONDS))));
            }
            sleep(MS(1000));
            let mut reloads = 0;
            while running.iter().all(|(.., thread)| !thread.is_finished()) {
                let count = [1, 10, 100, 10, 0][reloads % 5];
                network.apply(&green_and_orange("", &rules(count, "tcp", 10_000 + 1000 * reloads)))?;
                reloads += 1;
            }
            println!("{layout:?}: {reloads} reloads");
            let done = |(tenant, kind, thread): (_, _, thread::ScopedJoinHandle<'_, Result<Throughput>>)| {
                Ok((tenant, kind, thread.join().map_err(|_| anyhow!("a sending thread panicked"))??))
            };
            ensure!(reloads >= 3, "only {reloads} reloads meanwhile");
            running.into_iter().map(done).collect::<Result<Vec<_>>>()
        })?;
        for (tenant, kind, got) in results {
            println!("{layout:?}: {tenant}, {kind}: {got:?}");
            ensure!(got.mbit > 3.6 && got.lost_percent == 0.0, "{layout:?}: {tenant}, {kind}: {got:?}");
        }
    }
    Ok(())
}

#[test]
fn a_full_table_costs_the_tenant_that_fills_it_what_is_new_and_nobody_else_anything() -> Result<()> {
    let network = Network::with_policy(&spec(Layout::Shared), &green_and_orange("", &rules(2, "tcp", 1000)))?;
    network.meet("green")?;
    network.meet("orange")?;
    // The table of access rules at one bridge takes no more than it holds; only green has rules.
    let host = network.lab.host(1)?;
    let held = host.flows("br0")?.iter().filter(|flow| flow.contains("table=5,")).count();
    ensure!(held > 0, "no entries in table 5");
    let limit = format!("flow_limit={held}");
    host.vsctl(&[
        "--",
        "--id=@rules",
        "create",
        "Flow_Table",
        &limit,
        "overflow_policy=refuse",
        "--",
        "set",
        "bridge",
        "br0",
        "flow_tables:5=@rules",
    ])?;
    // One more container for orange comes with the same policy.
    let many = green_and_orange("", &rules(20, "tcp", 1000));
    let extra = network.lab.add_container(1, "br0", "orange-9", 99)?;
    let mut refused = String::new();
    network.settle()?;
    sleep(MS(500));
    traffic(&network, "a full table", || {
        network.controller.apply_policy(&many)?;
        network.wait_problem("bridge h1 refused an entry of tenant green (table 5, ")?;
        let peer = network.lab.container(3, "orange-1")?;
        lab::wait_until("orange's new container to be served", MS(5000), || network.lab.ping(&extra, peer.ipv4))?;
        let problems = network.problems()?;
        refused = problems.into_iter().find(|text| text.contains("refused")).context("it is still told")?;
        Ok(())
    })?;
    for part in ["policy.toml:", "OFPFMFC_TABLE_FULL", "tenant green gets along without this bridge", "flow_limit"] {
        ensure!(refused.contains(part), "no `{part}` in {refused}");
    }
    let bridges = network.controller.get("/v1/bridges")?;
    let of = |name: &str| bridges.as_array().into_iter().flatten().find(|bridge| bridge["name"] == name).cloned();
    let (full, other) = (of("h1").context("h1")?, of("h2").context("h2")?);
    let told = full["problems"][0].as_str().is_some_and(|text| text.contains("refused an entry of tenant green"));
    ensure!(full["converged"] == false && told, "{full}");
    ensure!(other["converged"] == true && other["problems"] == serde_json::json!([]), "{other}");

    // There is room again: nobody has to do anything more.
    traffic(&network, "room again", || {
        host.vsctl(&["clear", "bridge", "br0", "flow_tables"])?;
        network.settle()
    })?;
    ensure!(!network.problems()?.iter().any(|problem| problem.contains("refused")), "{:?}", network.problems()?);
    let held = host.flows("br0")?.iter().filter(|flow| flow.contains("table=5,")).count();
    ensure!(held >= 20, "{held} entries of rules");
    Ok(())
}

/// How fast is for whoever reads the output (`--nocapture`); that all is there is what is tested.
#[test]
fn a_bridge_that_restarts_empty_gets_a_thousand_entries_back() -> Result<()> {
    let network = Network::with_policy(&spec(Layout::Shared), &green_and_orange("", &rules(500, "tcp", 1000)))?;
    network.meet("green")?;
    network.settle()?;
    let host = network.lab.host(2)?;
    let entries = || Ok::<_, anyhow::Error>(host.flows("br0")?.len());
    let before = entries()?;
    ensure!(before > 1000, "{before} entries");
    network.lab.kill_switch(2)?;
    network.controller.wait_until("the loss of h2", MS(10_000), |controller| {
        Ok(controller.get("/v1/status")?["bridges"]["connected"] == 2)
    })?;
    network.lab.start_switch(2)?;
    let connected = network.controller.wait_until("h2 to be back", MS(20_000), |controller| {
        Ok(controller.get("/v1/status")?["bridges"]["connected"] == 3)
    })?;
    let filled = lab::wait_until("all entries", MS(20_000), || Ok(entries()? >= before))?;
    println!("{before} entries: connected after {connected:?}, filled {filled:?} later");
    network.settle()?;
    ensure!(entries()? == before, "{} entries instead of {before}", entries()?);
    network.meet("green")
}
