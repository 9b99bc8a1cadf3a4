//! Goal: a dead link is found in a fraction of a second, and nothing else is taken for one: no stall of the controller, of
//! one bridge's channel or of the machine. A link that flaps doesn't take the tenants' trees with it. On real Open vSwitch.

mod network;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Carrier, ContinuousPing, Layout, Netns, PingReport, Spec};
use serde_json::Value;

use network::{MS, Network, spec};

/// A ping between each two neighbours of green.
fn pings(network: &Network) -> Result<Vec<ContinuousPing>> {
    let [one, two, three] = [1, 2, 3].map(|host| network.lab.container(host, "green-1"));
    let (one, two, three) = (one?, two?, three?);
    [(&one, &two), (&two, &three), (&three, &one)]
        .into_iter()
        .map(|(from, to)| ContinuousPing::start(from, to.ipv4))
        .collect()
}

fn reports(pings: Vec<ContinuousPing>) -> Result<Vec<PingReport>> {
    pings.into_iter().map(ContinuousPing::stop).collect()
}

fn nothing_lost(reports: &[PingReport], what: &str) -> Result<()> {
    reports.iter().try_for_each(|report| network::nothing_lost(report, what))
}

/// Lines of the controller's log that say so of some link.
fn told_of_links(network: &Network, state: &str) -> Vec<String> {
    let log = network.controller.log();
    log.lines().filter(|line| line.contains("link ") && line.ends_with(state)).map(str::to_owned).collect()
}

fn no_link_went_down(network: &Network, what: &str) -> Result<()> {
    let (came, went) = (told_of_links(network, "is up"), told_of_links(network, "is down"));
    ensure!(came.len() == network.lab.links().len(), "{what}: the log should tell once that each link is up: {came:?}");
    ensure!(went.is_empty(), "{what}: {went:?}");
    Ok(())
}

/// One path of the underlay after the other dies without a sign, each while the others work.
#[test]
fn a_silent_cut_is_found_and_gone_round() -> Result<()> {
    let network = Network::ready(&spec(Layout::Shared))?;
    for (a, b) in [(1, 2), (2, 3), (1, 3)] {
        let (from, to) = (network.lab.container(a, "green-1")?, network.lab.container(b, "green-1")?);
        let ping = ContinuousPing::start(&from, to.ipv4)?;
        sleep(MS(300));
        network.lab.cut(a, b)?;
        sleep(MS(1500));
        let report = ping.stop()?;
        println!("h{a} – h{b} cut without a sign: traffic stopped for {:?}", report.longest_outage);
        ensure!(report.longest_outage > MS(50), "the cut wasn't felt: {report:?}");
        ensure!(report.longest_outage < MS(1000) && report.duplicates == 0, "{report:?}");
        let went = told_of_links(&network, "is down");
        ensure!(
            went.len() == 1 + [(1, 2), (2, 3), (1, 3)].iter().position(|it| *it == (a, b)).unwrap_or(9),
            "{went:?}"
        );
        network.lab.restore(a, b)?;
        network.settle()?;
    }
    Ok(())
}

#[test]
fn a_controller_that_stands_still_takes_no_link_for_dead() -> Result<()> {
    let mut network = Network::ready(&spec(Layout::Shared))?;
    let pings = pings(&network)?;
    for stall in [150, 600, 2000] {
        network.controller.pause()?;
        sleep(MS(stall));
        network.controller.resume()?;
        sleep(MS(700));
    }
    nothing_lost(&reports(pings)?, "a controller that stood still")?;
    no_link_went_down(&network, "a controller that stood still")
}

/// Four busy threads for each core.
#[test]
fn a_busy_machine_takes_no_link_for_dead() -> Result<()> {
    let network = Network::ready(&spec(Layout::Shared))?;
    let pings = pings(&network)?;
    let stop = AtomicBool::new(false);
    let cores = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..4 * cores {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        sleep(MS(6000));
        stop.store(true, Ordering::Relaxed);
    });
    let reports = reports(pings)?;
    println!("slowest answers under load: {:?}", reports.iter().map(|report| report.slowest).collect::<Vec<_>>());
    nothing_lost(&reports, "a busy machine")?;
    no_link_went_down(&network, "a busy machine")
}

/// A way to the controller that can be made to stand still: then it takes no octets, and loses none.
struct Detour {
    stands: Arc<AtomicBool>,
}

impl Detour {
    const PORT: u16 = 7653;

    fn start(inside: &Netns, controller: String) -> Result<Self> {
        let stands = Arc::new(AtomicBool::new(false));
        let listener = inside.run(|| TcpListener::bind(("127.0.0.1", Self::PORT)).context("listening failed"))?;
        let flag = Arc::clone(&stands);
        inside.spawn("detour", move || {
            // One connection is all that a bridge makes, unless this fails, and then the test does.
            let (bridge, _) = listener.accept()?;
            let controller = TcpStream::connect(controller)?;
            let (there, back) = (Arc::clone(&flag), flag);
            thread::scope(|scope| {
                scope.spawn(|| Self::carry(&bridge, &controller, &there));
                Self::carry(&controller, &bridge, &back);
            });
            Ok(())
        })?;
        Ok(Self { stands })
    }

    fn carry(mut from: &TcpStream, mut to: &TcpStream, stands: &AtomicBool) {
        let mut buffer = [0; 65_536];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            while stands.load(Ordering::Relaxed) {
                sleep(MS(1));
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        drop(to.shutdown(Shutdown::Both));
    }
}

/// A bridge's channel stands still, for less and for more time than it takes to count as one that doesn't answer.
#[test]
fn a_channel_that_stands_still_takes_no_link_for_dead() -> Result<()> {
    let network = Network::ready(&spec(Layout::Shared))?;
    let host = network.lab.host(2)?;
    let detour = Detour::start(&host.netns, network.lab.controller_address())?;
    host.vsctl(&["set-controller".into(), "br0".into(), format!("tcp:127.0.0.1:{}", Detour::PORT)])?;
    network.controller.wait_until("the way by the detour", MS(10_000), |controller| {
        let log = controller.log();
        Ok(log.lines().filter(|line| line.contains("bridge h2") && line.contains(") connected from")).count() == 2)
    })?;
    network.settle()?;
    sleep(MS(500));
    let pings = pings(&network)?;
    for stall in [100, 250, 400, 2000] {
        detour.stands.store(true, Ordering::Relaxed);
        sleep(MS(stall));
        detour.stands.store(false, Ordering::Relaxed);
        sleep(MS(800));
    }
    network.settle()?;
    nothing_lost(&reports(pings)?, "a channel that stood still")?;
    ensure!(network.controller.log().contains("bridge h2 has been silent for"), "the longest stall was noticed");
    no_link_went_down(&network, "a channel that stood still")
}

/// Looks at something again and again for a while, and counts how often it became another.
fn changes(network: &Network, path: &str, time: Duration, last: &mut Value) -> Result<usize> {
    let (start, mut changes) = (Instant::now(), 0);
    while start.elapsed() < time {
        let now = network.controller.get(path)?["tree"].clone();
        changes += usize::from(now != *last);
        *last = now;
        sleep(MS(5));
    }
    Ok(changes)
}

/// A cable that green's tree uses is pulled and plugged in ten times in five seconds.
#[test]
fn a_link_that_flaps_does_not_take_the_tree_with_it() -> Result<()> {
    let network = Network::ready(&Spec { carrier: Carrier::Veth, ..spec(Layout::Shared) })?;
    let links = network.controller.get("/v1/links")?;
    let of_green =
        |link: &&Value| link["tenants"].as_array().is_some_and(|tenants| tenants.contains(&Value::from("green")));
    let flapping = links.as_array().into_iter().flatten().find(of_green).context("green's tree has links")?.clone();
    let host = |end: &Value| end["bridge"].as_str().and_then(|name| name.strip_prefix('h')?.parse::<usize>().ok());
    let (a, b) = (host(&flapping["a"]).context("a host")?, host(&flapping["b"]).context("a host")?);
    let port =
        |from: usize, to: usize| -> Result<String> { Ok(network.lab.link(from, to, "green")?.end(from)?.port.clone()) };
    let cable = port(a, b)?;

    let mut tree = network.controller.get("/v1/tenants/green")?["tree"].clone();
    let mut changed = 0;
    for _ in 0..10 {
        for up in [false, true] {
            network.lab.set_interface(a, &cable, up)?;
            changed += changes(&network, "/v1/tenants/green", MS(250), &mut tree)?;
        }
    }
    println!("ten times down and up: the tree changed {changed} times");
    ensure!((1..=5).contains(&changed), "the tree changed {changed} times");
    let note = |part: &str| -> Result<bool> {
        let links = network.controller.get("/v1/links")?;
        let this = links.as_array().into_iter().flatten().find(|link| link["a"] == flapping["a"]);
        let this = this.context("the link is known")?;
        Ok(this["up"] == true && this["note"].as_str().is_some_and(|note| note.contains(part)))
    };
    lab::wait_until("the link, damped", MS(2000), || note("it isn't used meanwhile"))?;
    network.wait_problem("because it went down")?;
    network.settle()?;
    network.check_delivery().context("without the damped link")?;

    // Where there is no other way, it is used.
    let third = 6 - a - b;
    network.lab.set_interface(a, &port(a, third)?, false)?;
    lab::wait_until("the link, used", MS(2000), || note("being the only way"))?;
    network.settled(3, network.lab.links().len() as u64 - 1)?;
    network.check_delivery().context("over the damped link")
}
