//! Goal: while no controller is there, frames for known hosts go round a link whose port is seen to be dead. On real Open
//! vSwitch: a cable that loses its carrier, and a tunnel that BFD watches.

mod network;

use std::thread::sleep;

use anyhow::{Context, Result, ensure};
use lab::{Carrier, ContinuousPing, Layout, Spec};

use network::{MS, Network, nothing_lost, spec};

/// The controller is gone, the link between two hosts dies, and the third one's links carry what goes between them.
fn goes_round(spec: &Spec, die: impl Fn(&Network) -> Result<()>, live: impl Fn(&Network) -> Result<()>) -> Result<()> {
    let mut network = Network::ready(spec)?;
    if spec.bfd_ms.is_some() {
        bfd_is_up(&network)?;
    }
    let (one, two) = (network.lab.container(1, "green-1")?, network.lab.container(2, "green-1")?);
    let orange = (network.lab.container(1, "orange-1")?, network.lab.container(3, "orange-1")?);
    network.controller.kill9();
    let ping = ContinuousPing::start(&one, two.ipv4)?;
    let beside = ContinuousPing::start(&orange.0, orange.1.ipv4)?;
    sleep(MS(300));
    let before = network.sent_over_links(3, "green")?;
    die(&network)?;
    sleep(MS(2000));
    let report = ping.stop()?;
    println!("no controller, a dead link: traffic stopped for {:?}", report.longest_outage);
    ensure!(report.duplicates == 0, "{report:?}");
    let after = network.sent_over_links(3, "green")?;
    ensure!(before.iter().all(|(port, sent)| after[port] > sent + 100), "not by the third host: {before:?}, {after:?}");
    let ping = ContinuousPing::start(&one, two.ipv4)?;
    sleep(MS(500));
    nothing_lost(&ping.stop()?, "while the link is dead")?;
    nothing_lost(&beside.stop()?, "beside it")?;

    live(&network)?;
    network.controller.start()?;
    network.settle()?;
    network.check_delivery().context("when the controller is back")
}

/// Until both ends of a session are up, it notices nothing for seconds (RFC 5880 §6.8.3).
fn bfd_is_up(network: &Network) -> Result<()> {
    lab::wait_until("BFD on all tunnels", MS(10_000), || {
        let shown = network.lab.hosts().iter().map(|host| host.appctl("bfd/show", &[])).collect::<Result<String>>()?;
        let sessions = shown.matches("Remote Session State:").count();
        Ok(sessions > 0 && shown.matches("Remote Session State: up").count() == sessions)
    })
    .map(drop)
}

#[test]
fn a_cable_without_carrier() -> Result<()> {
    let spec = Spec { carrier: Carrier::Veth, ..spec(Layout::Shared) };
    let wire = |network: &Network, up| {
        let end = network.lab.link(1, 2, "green")?.end(1)?.clone();
        network.lab.set_interface(end.host, &end.port, up)
    };
    goes_round(&spec, |network| wire(network, false), |network| wire(network, true))
}

#[test]
fn a_path_that_bfd_finds_dead() -> Result<()> {
    let spec = Spec { bfd_ms: Some(100), ..spec(Layout::PerTenant) };
    goes_round(&spec, |network| network.lab.cut(1, 2), |network| network.lab.restore(1, 2))
}

#[test]
fn a_tunnel_that_somebody_deletes() -> Result<()> {
    let end = |network: &Network| network.lab.link(1, 2, "green").and_then(|link| link.end(1).cloned());
    // The other end sends into a tunnel that nobody takes anything out of; so only one direction can go round.
    let spec = spec(Layout::Shared);
    let mut network = Network::ready(&spec)?;
    let (one, two) = (network.lab.container(1, "green-1")?, network.lab.container(2, "green-1")?);
    network.controller.kill9();
    network.lab.delete_port(&end(&network)?)?;
    sleep(MS(300));
    let frame = lab::Frame::new(one.mac, two.mac);
    let seen = network.watch(|| one.send(&frame))?;
    seen.expect(&frame, &[&two], "without a tunnel, nor a controller")?;

    network.lab.recreate_port(&end(&network)?)?;
    network.controller.start()?;
    network.settle()?;
    network.check_delivery()
}
