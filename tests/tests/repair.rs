//! Goal: what breaks is noticed and gone round within a second, and what doesn't break isn't disturbed: not by a lost
//! controller, a lost channel, or a repair. On real Open vSwitch, under a ping every 5 ms.

mod network;

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{ContinuousPing, ControllerSpec, Frame, Lab, Layout, PingReport, Shape, Spec};
use serde_json::Value;

use network::{MS, Network, POLICY, nothing_lost, spec};

fn outage_below(report: &PingReport, limit: Duration, what: &str) -> Result<()> {
    ensure!(report.longest_outage < limit && report.duplicates == 0, "{what}: {report:?}");
    Ok(())
}

/// A path of the underlay dies without a sign: traffic is round it within a second. When it is back, traffic goes back
/// without a loss.
fn silent_cut(layout: Layout) -> Result<()> {
    let network = Network::ready(&spec(layout))?;
    let (one, two) = (network.lab.container(1, "green-1")?, network.lab.container(2, "green-1")?);
    let links = network.lab.links().len() as u64;
    let ping = ContinuousPing::start(&one, two.ipv4)?;
    sleep(MS(300));
    network.lab.cut(1, 2)?;
    sleep(MS(2000));
    let report = ping.stop()?;
    ensure!(report.longest_outage > MS(50), "the cut wasn't felt: {report:?}");
    outage_below(&report, MS(1000), "cut")?;
    network.check_delivery().context("while cut")?;

    let ping = ContinuousPing::start(&one, two.ipv4)?;
    sleep(MS(200));
    network.lab.restore(1, 2)?;
    network.controller.wait_links(links, MS(5000))?;
    network.settle()?;
    sleep(MS(300));
    nothing_lost(&ping.stop()?, "restored")?;
    network.check_delivery().context("when restored")
}

#[test]
fn a_silent_cut_between_shared_bridges() -> Result<()> {
    silent_cut(Layout::Shared)
}

#[test]
fn a_silent_cut_between_bridges_of_a_tenant() -> Result<()> {
    silent_cut(Layout::PerTenant)
}

#[test]
fn a_host_dies_on_the_way_in_a_ring() -> Result<()> {
    let network = Network::ready(&Spec { hosts: 5, shape: Shape::Ring, ..spec(Layout::Shared) })?;
    let (one, three) = (network.lab.container(1, "green-1")?, network.lab.container(3, "green-1")?);
    let (four, five) = (network.lab.container(4, "green-1")?, network.lab.container(5, "green-1")?);
    let through = ContinuousPing::start(&one, three.ipv4)?;
    let beside = ContinuousPing::start(&four, five.ipv4)?;
    sleep(MS(300));
    network.lab.cut_host(2)?;
    network.lab.cut_control(2)?;
    sleep(MS(2500));
    outage_below(&through.stop()?, MS(1000), "through the dead host")?;
    nothing_lost(&beside.stop()?, "beside the dead host")?;
    let frame = Frame::broadcast(one.mac);
    let seen = network.watch(|| one.send(&frame))?;
    seen.expect(&frame, &[&three, &four, &five], "broadcast without the dead host")
}

#[test]
fn a_trees_root_dies() -> Result<()> {
    let network = Network::ready(&spec(Layout::Shared))?;
    let root = network.controller.get("/v1/tenants/green")?["tree"]["root"].clone();
    let root: usize = root.as_str().and_then(|name| name.strip_prefix('h')).context("a root")?.parse()?;
    let others: Vec<usize> = (1..=3).filter(|host| *host != root).collect();
    let (one, two) = (network.lab.container(others[0], "green-1")?, network.lab.container(others[1], "green-1")?);
    let ping = ContinuousPing::start(&one, two.ipv4)?;
    network.lab.kill_host(root)?;
    lab::wait_until("a tree without the dead root", MS(1000), || {
        let frame = Frame::broadcast(one.mac);
        let seen = network.watch(|| one.send(&frame))?;
        Ok(seen.expect(&frame, &[&two], "broadcast").is_ok())
    })?;
    nothing_lost(&ping.stop()?, "between the others")?;

    network.lab.start_host(root)?;
    network.settle()?;
    network.meet("green")?;
    network.check_delivery()
}

#[test]
fn a_switch_that_restarts_empty_is_filled_again() -> Result<()> {
    let network = Network::ready(&spec(Layout::Shared))?;
    let before = network.lab.host(2)?.flows("br0")?;
    network.lab.kill_switch(2)?;
    network.controller.wait_until("the loss of h2", MS(3000), |controller| {
        Ok(controller.get("/v1/status")?["bridges"]["connected"] == 2)
    })?;
    network.lab.start_switch(2)?;
    network.settle()?;
    network.meet("green")?;
    network.meet("orange")?;
    network.check_delivery()?;
    let after = network.lab.host(2)?.flows("br0")?;
    // Floods may follow the other version of the tree by now.
    let flooded = |entry: &&String| entry.contains("table=13") || entry.contains("goto_table:13");
    let others = |flows: &[String]| -> BTreeSet<String> { flows.iter().filter(|it| !flooded(it)).cloned().collect() };
    ensure!(others(&before) == others(&after) && before.len() == after.len(), "{before:#?} became {after:#?}");
    Ok(())
}

/// The channel to one bridge is cut for longer than echoes may take: its own traffic and everybody's goes on, and goes on
/// when the channel is back.
#[test]
fn a_lost_channel_disturbs_nobody() -> Result<()> {
    let network = Network::ready(&spec(Layout::Shared))?;
    let [one, two, three] = [1, 2, 3].map(|host| network.lab.container(host, "green-1"));
    let (one, two, three) = (one?, two?, three?);
    let pings = [
        ContinuousPing::start(&one, two.ipv4)?,
        ContinuousPing::start(&two, three.ipv4)?,
        ContinuousPing::start(&three, one.ipv4)?,
    ];
    network.lab.cut_control(2)?;
    network.controller.wait_until("the loss of h2's channel", MS(15_000), |controller| {
        Ok(controller.get("/v1/status")?["bridges"]["connected"] == 2)
    })?;
    sleep(MS(500));
    network.check_delivery().context("without the channel")?;
    network.lab.restore_control(2)?;
    network.settle()?;
    sleep(MS(500));
    for ping in pings {
        nothing_lost(&ping.stop()?, "a lost channel")?;
    }
    network.check_delivery().context("with the channel back")
}

/// Seconds since the youngest flow entry of a bridge was made.
fn youngest_entry(network: &Network, host: usize) -> Result<f64> {
    let dump = network.lab.host(host)?.ofctl("dump-flows", "br0", &[])?;
    let ages = dump.split("duration=").skip(1).filter_map(|rest| rest.split_once('s')?.0.parse::<f64>().ok());
    ages.min_by(f64::total_cmp).context("the bridge has entries")
}

/// The controller is killed and started again under traffic: no packet is lost, and no entry is made anew.
#[test]
fn the_controllers_death_and_restart_change_nothing() -> Result<()> {
    let mut network = Network::ready(&spec(Layout::Shared))?;
    let (one, two) = (network.lab.container(1, "green-1")?, network.lab.container(2, "green-1")?);
    let before: Vec<_> = (1..=3).map(|host| network.lab.host(host)?.flows("br0")).collect::<Result<_>>()?;
    let hosts = |network: &Network| -> Result<Vec<(Value, Value)>> {
        let hosts = network.controller.get("/v1/hosts")?;
        Ok(hosts.as_array().into_iter().flatten().map(|host| (host["mac"].clone(), host["port"].clone())).collect())
    };
    let known = hosts(&network)?;
    let ping = ContinuousPing::start(&one, two.ipv4)?;
    let started = std::time::Instant::now();
    network.controller.kill9();
    sleep(MS(1000));
    network.check_delivery().context("without a controller")?;
    network.controller.start()?;
    network.settle()?;
    sleep(MS(1500));
    nothing_lost(&ping.stop()?, "a restart")?;
    let lived = started.elapsed().as_secs_f64();
    for (host, before) in (1..=3).zip(before) {
        ensure!(network.lab.host(host)?.flows("br0")? == before, "h{host} has other entries");
        let youngest = youngest_entry(&network, host)?;
        ensure!(youngest > lived, "h{host} has an entry of {youngest} s, the restart was {lived} s ago");
    }
    ensure!(hosts(&network)? == known, "hosts are known again: {known:?}");
    Ok(())
}

#[test]
fn the_controller_may_be_there_first_and_bridges_may_join_late() -> Result<()> {
    let lab = Lab::start(&Spec { connect: false, ..spec(Layout::Shared) })?;
    let controller = lab.start_controller(&ControllerSpec::policy(POLICY))?;
    let network = Network { controller, lab };
    let bridges = network.lab.bridges();
    network.lab.connect(&bridges[0])?;
    network.lab.connect(&bridges[1])?;
    network.settled(2, 1)?;
    let (one, two) = (network.lab.container(1, "green-1")?, network.lab.container(2, "green-1")?);
    ensure!(network.lab.ping_within(&one, two.ipv4, MS(3000))?);
    network.lab.pin_neighbours()?;
    let ping = ContinuousPing::start(&one, two.ipv4)?;
    network.lab.connect(&bridges[2])?;
    network.settle()?;
    nothing_lost(&ping.stop()?, "a third bridge")?;
    network.meet("green")?;
    network.meet("orange")?;
    network.check_delivery()
}

#[test]
fn a_container_that_moves_is_reachable_within_a_second() -> Result<()> {
    let network = Network::ready(&spec(Layout::Shared))?;
    let (one, mover) = (network.lab.container(1, "green-1")?, network.lab.container(2, "green-1")?);
    let moved = network.lab.move_container(&mover, 3)?;
    ensure!(network.lab.ping_within(&one, moved.ipv4, MS(1000))?, "from h1 to where it is now");
    network.controller.wait_until("the host's new place", MS(2000), |controller| {
        let hosts = controller.get("/v1/hosts")?;
        let host = hosts.as_array().into_iter().flatten();
        let mut green = host.filter(|host| host["tenant"] == "green" && host["mac"] == moved.mac.to_string());
        Ok(green.next().is_some_and(|host| host["bridge"] == "h3"))
    })?;
    network.check_delivery()
}

/// A link that carries frames one way only is no link, and is reported.
#[test]
fn a_one_way_path_is_refused_and_reported() -> Result<()> {
    let network = Network::ready(&spec(Layout::Shared))?;
    let (one, two) = (network.lab.container(1, "green-1")?, network.lab.container(2, "green-1")?);
    let ping = ContinuousPing::start(&one, two.ipv4)?;
    network.lab.cut_one_way(1, 2)?;
    network.wait_problem("but not back")?;
    network.controller.wait_links(2, MS(1000))?;
    outage_below(&ping.stop()?, MS(1000), "one way cut")?;
    network.check_delivery()?;
    network.lab.restore_one_way(1, 2)?;
    network.settle()
}

#[test]
fn a_deleted_tunnel_is_gone_round_at_once() -> Result<()> {
    let network = Network::ready(&spec(Layout::Shared))?;
    let (one, two) = (network.lab.container(1, "green-1")?, network.lab.container(2, "green-1")?);
    let end = network.lab.link(1, 2, "green")?.end(1)?.clone();
    let ping = ContinuousPing::start(&one, two.ipv4)?;
    sleep(MS(200));
    network.lab.delete_port(&end)?;
    sleep(MS(1000));
    outage_below(&ping.stop()?, MS(500), "deleted tunnel")?;
    network.check_delivery()?;
    network.lab.recreate_port(&end)?;
    network.settle()?;
    network.check_delivery()
}
