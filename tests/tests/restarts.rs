//! Goal: a restart of the controller loses nothing, whenever it comes. On real Open vSwitch, under pings, streams and broadcasts.

mod network;

use std::collections::BTreeSet;
use std::thread::sleep;

use anyhow::{Context, Result, ensure};
use lab::{ContinuousPing, Layout, Stream, StreamReport};

use network::{MS, Network, nothing_lost, spec};

/// What bridges hold, but for which version of its tree floods follow.
fn held(network: &Network) -> Result<Vec<(BTreeSet<String>, usize)>> {
    let flooded = |entry: &String| entry.contains("table=13") || entry.contains("goto_table:13");
    let of = |bridge: lab::Bridge| {
        let flows = network.lab.host(bridge.host)?.flows(&bridge.name)?;
        Ok((flows.iter().filter(|it| !flooded(it)).cloned().collect(), flows.len()))
    };
    network.lab.bridges().into_iter().map(of).collect()
}

/// A tunnel is deleted and put back, and the controller is killed while everything moves to it again, or has just done so. What
/// the next one finds half done it brings to its end, and nobody notices.
#[test]
fn a_kill_right_after_a_deleted_tunnel_came_back_loses_nothing() -> Result<()> {
    let mut network = Network::ready(&spec(Layout::Shared))?;
    let before = held(&network)?;
    let green = network.lab.tenant("green");
    for (round, pause) in [0, 6, 12, 25].into_iter().enumerate() {
        let (one, two) = [(1, 2), (2, 3), (3, 1)][round % 3];
        let end = network.lab.link(one, two, "green")?.end(one)?.clone();
        network.lab.delete_port(&end)?;
        network.wait_problem(&format!("/{} was removed", end.port))?;
        network.controller.wait_links(2, MS(2000))?;
        network.controller.wait_converged(3, MS(2000))?;
        let from = network.lab.container(one, "green-1")?;
        let to = network.lab.container(two, "green-1")?;
        let ping = ContinuousPing::start(&from, to.ipv4)?;
        let others: Vec<_> = green.iter().filter(|to| to.netns != from.netns).cloned().collect();
        let floods = Stream::broadcast(&from, &others, MS(5))?;
        sleep(MS(200));
        network.lab.recreate_port(&end)?;
        sleep(MS(pause));
        network.controller.kill9();
        network.controller.start()?;
        network.settle()?;
        sleep(MS(200));
        let what = format!("killed {pause} ms after {} was back", end.port);
        nothing_lost(&ping.stop()?, &what)?;
        let floods = floods.stop()?;
        let whole = |report: &StreamReport| report.sent > 50 && report.lost() == 0 && report.duplicates == 0;
        ensure!(floods.iter().all(whole), "{what}: broadcasts: {floods:?}");
        for (before, now) in before.iter().zip(held(&network)?) {
            ensure!(*before == now, "{what}: {before:#?} became {now:#?}");
        }
    }
    network.check_delivery().context("in the end")
}
