//! Goal: whoever changes the tables of a managed bridge by hand is undone within two seconds, and named by what was done; no
//! traffic suffers from putting it right. On real Open vSwitch.

mod network;

use std::thread::sleep;

use anyhow::{Context, Result, ensure};
use lab::{ContinuousPing, Frame, Layout};

use network::{MS, Network, spec};

/// The entries of a bridge without what counts.
fn entries(network: &Network, host: usize) -> Result<Vec<String>> {
    let text = network.lab.host(host)?.ofctl("dump-flows", "br0", &["--no-stats"])?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

#[test]
fn changes_by_hand_are_undone_and_reported() -> Result<()> {
    let network = Network::start(&spec(Layout::Shared))?;
    network.meet("green")?;
    network.meet("orange")?;
    network.settle()?;
    let before = entries(&network, 1)?;
    let (one, two) = (network.lab.container(1, "green-1")?, network.lab.container(2, "green-1")?);
    let ping = ContinuousPing::start(&one, two.ipv4)?;
    let host = network.lab.host(1)?;
    let undone = |what: &str| lab::wait_until(what, MS(2000), || Ok(entries(&network, 1)? == before)).map(drop);

    // Somebody lets green's frames out of orange's port, in a table of ours and in one that we don't use.
    let leak = "table=0,priority=65535,in_port=green-1,dl_dst=02:00:00:00:00:77,actions=output:orange-1";
    host.ofctl("add-flow", "br0", &[leak])?;
    host.ofctl("add-flow", "br0", &["table=77,cookie=0xe500000000000064,priority=5,udp,actions=drop"])?;
    undone("the foreign entries gone")?;
    let stray = Frame::new(one.mac, lab::Mac([2, 0, 0, 0, 0, 0x77]));
    let seen = network.watch(|| one.send(&stray))?;
    seen.expect(
        &stray,
        &network.lab.tenant("green").iter().filter(|it| it.host != 1).collect::<Vec<_>>(),
        "after that",
    )?;
    network.wait_problem("somebody added an entry of bridge h1: table 0 (admit), priority 65535, in_port=")?;

    // Somebody removes an entry that others' traffic doesn't need, and one changes what an entry does.
    host.ofctl("--strict del-flows", "br0", &["table=0,priority=30,dl_dst=01:80:c2:00:00:00/ff:ff:ff:ff:ff:f0"])
        .or_else(|_| {
            host.ofctl(
                "del-flows",
                "br0",
                &["--strict", "table=0,priority=30,dl_dst=01:80:c2:00:00:00/ff:ff:ff:ff:ff:f0"],
            )
        })?;
    network.wait_problem("somebody removed an entry of bridge h1: table 0 (admit), priority 30")?;
    undone("the removed entry back")?;
    host.ofctl("mod-flows", "br0", &["table=3,priority=1,actions=drop", "--strict"])
        .or_else(|_| host.ofctl("mod-flows", "br0", &["--strict", "table=3,priority=1,actions=drop"]))?;
    network.wait_problem("somebody changed an entry of bridge h1: table 3 (limit_tenant), priority 1, any frame")?;
    undone("the changed entry as it was")?;
    sleep(MS(300));
    let report = ping.stop()?;
    ensure!(report.duplicates == 0 && report.longest_outage < MS(1000), "{report:?}");

    // Groups and meters have no monitor: they are asked for.
    let groups = |network: &Network| -> Result<Vec<String>> {
        let host = network.lab.host(1)?;
        let text = host.ofctl("dump-groups", "br0", &[])? + &host.ofctl("dump-meters", "br0", &[])?;
        let mut lines: Vec<String> = text.lines().filter(|line| !line.contains("OFPST")).map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    };
    let before = groups(&network)?;
    let id = before.iter().find_map(|line| line.trim().strip_prefix("group_id=")?.split(',').next());
    let id = id.with_context(|| format!("no group in {before:?}"))?.to_owned();
    host.ofctl("mod-group", "br0", &[&format!("group_id={id},type=all,bucket=output:orange-1")])?;
    network.wait_problem(&format!("somebody changed group {id} of "))?;
    host.ofctl("add-group", "br0", &["group_id=77,type=all,bucket=output:orange-1"])?;
    network.wait_problem("somebody added group 77 of ")?;
    let meter = before.iter().find_map(|line| line.trim().strip_prefix("meter=")?.split(' ').next());
    let meter = meter.with_context(|| format!("no meter in {before:?}"))?.to_owned();
    host.ofctl("mod-meter", "br0", &[&format!("meter={meter},kbps,band=type=drop,rate=1")])?;
    network.wait_problem(&format!("somebody changed meter {meter} of "))?;
    host.ofctl("del-meter", "br0", &[&format!("meter={meter}")])?;
    network.wait_problem(&format!("somebody removed meter {meter} of "))?;
    lab::wait_until("groups and meters as they were", MS(2000), || Ok(groups(&network)? == before))?;
    undone("the entries that used the meter back")?;
    network.settle()?;
    let quiet = network.changes_sent()?;
    sleep(MS(4000));
    ensure!(network.changes_sent()? == quiet, "there is nothing more to put right");

    // Somebody empties the bridge.
    host.ofctl("del-flows", "br0", &[])?;
    undone("all entries back")?;
    network.settle()?;
    ensure!(network.lab.ping(&one, two.ipv4)?, "no ping after the bridge was emptied");
    network.check_delivery()
}

#[test]
fn what_was_put_there_while_the_controller_was_away_is_told_and_undone() -> Result<()> {
    let mut network = Network::ready(&spec(Layout::Shared))?;
    let mine = |problem: &String| problem.contains("never gave it") || problem.contains("by what bridges had");
    let before = entries(&network, 1)?;

    // A restart makes no alarm.
    network.controller.restart()?;
    network.settle()?;
    let told: Vec<String> = network.problems()?.into_iter().filter(mine).collect();
    ensure!(told.is_empty() && network.changes_sent()? == 0, "{told:?}");

    // Somebody lets green's known frames out of orange's port, and makes it look like ours.
    network.controller.stop()?;
    let table = apps::pipeline::FORWARD.0;
    let leak = format!(
        "table={table},cookie=0xe5{table:02x}000000000064,priority=50,metadata=0x64/0x3fffff,dl_dst=02:00:00:00:00:77,\
         actions=output:orange-1"
    );
    network.lab.host(1)?.ofctl("add-flow", "br0", &[&leak])?;
    network.controller.start()?;
    network.wait_problem(&format!(
        "bridge h1 has what this controller never gave it: table {table} (forward), priority 50"
    ))?;
    network.wait_problem("sends frames of tenant green out of port")?;
    network.settle()?;
    lab::wait_until("the forged entry gone", MS(2000), || Ok(entries(&network, 1)? == before)).map(drop)?;
    network.check_delivery()
}
