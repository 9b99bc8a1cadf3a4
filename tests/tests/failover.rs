//! Goal: when a port of a function goes down, its bridge does what the policy says at once, with no controller there: another
//! instance at the same bridge gets the frames, or they go on to the next function, or end; and when the port is back, so is
//! the function. On real Open vSwitch, with the controller killed.

mod chained;
mod network;

use std::net::IpAddr;
use std::thread::sleep;

use anyhow::{Context, Result, bail, ensure};
use lab::{ContinuousPing, Frame, Function, Layout, PingReport, Spec};

use chained::{Chained, chain, wire};
use network::{MS, spec};

/// Two frames, there and back: so often at each function, and where they arrive once, or nowhere.
fn check(chained: &Chained, (there_times, back_times): ([u64; 3], [u64; 3]), arrives: bool, what: &str) -> Result<()> {
    let (one, three) = (chained.green(1)?, chained.green(3)?);
    let (there, back) = (Frame::new(one.mac, three.mac), Frame::new(three.mac, one.mac));
    let mut seen = None;
    let sights = chained.watch(|| {
        seen = Some(chained.network.watch(|| {
            one.send(&there)?;
            three.send(&back)
        })?);
        Ok(())
    })?;
    let (forward, reverse) = (sights.forward(&there), sights.reverse(&back));
    let wanted = forward == there_times && reverse == back_times;
    ensure!(wanted, "{what}: {forward:?} there and {reverse:?} back, not {there_times:?} and {back_times:?}");
    let (over, under) = (sights.reverse(&there), sights.forward(&back));
    ensure!(over.iter().chain(&under).all(|copies| *copies == 0), "{what}: in by the wrong port: {over:?} {under:?}");
    let seen = seen.context("what containers saw")?;
    let (to_three, to_one) = ([&three], [&one]);
    seen.expect(&there, &to_three[..arrives.into()], what)?;
    seen.expect(&back, &to_one[..arrives.into()], what)
}

/// The same there and back.
fn both(times: [u64; 3]) -> ([u64; 3], [u64; 3]) {
    (times, times)
}

fn set(chained: &Chained, function: &Function, port: &str, up: bool) -> Result<()> {
    chained.lab().set_interface(function.host, port, up)
}

/// An address to which pings take this instance.
fn pinged_by(chained: &Chained, instance: &Function) -> Result<IpAddr> {
    let (one, two, three) = (chained.green(1)?, chained.green(2)?, chained.green(3)?);
    let all: [IpAddr; 4] = [three.ipv4.into(), three.ipv6.into(), two.ipv4.into(), two.ipv6.into()];
    for to in all {
        let capture = instance.capture_ingress()?;
        ensure!(chained.lab().ping(&one, to)?, "no ping to {to}");
        sleep(MS(100));
        let is_ping = |frame: &[u8]| match frame.get(12..14) {
            Some([0x08, 0x00]) => frame.get(23) == Some(&1),
            Some([0x86, 0xdd]) => frame.get(54) == Some(&128),
            _ => false,
        };
        if capture.stop()?.count(is_ping) > 0 {
            return Ok(to);
        }
    }
    bail!("pings to none of {all:?} take {}", instance.ingress)
}

/// Something happens while pings pass: what becomes of them.
fn pinged(chained: &Chained, to: IpAddr, change: impl FnOnce() -> Result<()>) -> Result<PingReport> {
    let one = chained.green(1)?;
    let ping = ContinuousPing::start(&one, to)?;
    sleep(MS(200));
    change()?;
    sleep(MS(1000));
    let report = ping.stop()?;
    ensure!(report.duplicates == 0, "answered twice: {report:?}");
    Ok(report)
}

fn tell(what: &str, report: &PingReport) {
    println!("{what}: {} of {} pings lost, {:?}", report.sent - report.received, report.sent, report.longest_outage);
}

/// Two instances of a function at one bridge, which may be left out, and behind it one of another that may not.
fn ports_go_down(spec: &Spec) -> Result<()> {
    let mut chained = Chained::wires(spec, &[2, 2, 3])?;
    chained.lab().pin_neighbours()?;
    let [a, b, c] = chained.functions.clone().try_into().ok().context("three were made")?;
    let one = chained.green(1)?;
    let text = wire(chained.lab(), "meter", "on_failure = \"bypass\"", &[(&a, 1), (&b, 1)])?
        + &wire(chained.lab(), "firewall", "on_failure = \"drop\"", &[(&c, 1)])?
        + &chain("all", "symmetric = true", &["meter", "firewall"], &format!("source = \"{}\"", one.mac));
    chained.apply(&text)?;
    for instance in ["f1-in", "f2-in", "f3-in"] {
        chained.wait_health(instance, "working", true)?;
    }
    // What isn't IP takes one and the same instance.
    let frame = Frame::new(one.mac, chained.green(3)?.mac);
    let sights = chained.watch(|| one.send(&frame))?.forward(&frame);
    let (first, second) = if sights[0] == 1 { (&a, &b) } else { (&b, &a) };
    let by = |function: &Function, behind: u64| {
        if function.ingress == a.ingress { [1, 0, behind] } else { [0, 1, behind] }
    };
    check(&chained, both(by(first, 1)), true, "all is well")?;
    let to = pinged_by(&chained, first)?;

    chained.network.controller.kill9();
    sleep(MS(300));
    check(&chained, both(by(first, 1)), true, "the controller is gone")?;
    let down = pinged(&chained, to, || set(&chained, first, &first.ingress, false))?;
    tell("no controller, an instance's port goes down, another one is there", &down);
    check(&chained, both(by(second, 1)), true, "the other instance stands in")?;
    let down = pinged(&chained, to, || set(&chained, second, &second.egress, false))?;
    tell("no controller, the last instance's port goes down, bypass", &down);
    check(&chained, both([0, 0, 1]), true, "both are left out")?;
    set(&chained, &c, &c.ingress, false)?;
    sleep(MS(200));
    check(&chained, both([0, 0, 0]), false, "what mustn't be left out")?;
    set(&chained, &c, &c.ingress, true)?;
    set(&chained, second, &second.egress, true)?;
    sleep(MS(500));
    check(&chained, both(by(second, 1)), true, "the other instance is back")?;
    // A port that is gone altogether is as one that is down.
    let bridge = &a.bridge;
    let host = chained.lab().host(second.host)?;
    host.vsctl(&["del-port", bridge, &second.ingress])?;
    sleep(MS(200));
    check(&chained, both([0, 0, 1]), true, "a port is gone")?;
    let up = pinged(&chained, to, || set(&chained, first, &first.ingress, true))?;
    tell("no controller, an instance's port comes back", &up);
    sleep(MS(300));
    check(&chained, both(by(first, 1)), true, "the first instance is back")?;

    // The controller comes back while one port is gone, and another down: all agree, before and after.
    set(&chained, &c, &c.ingress, false)?;
    sleep(MS(200));
    chained.network.controller.start()?;
    chained.network.settle()?;
    chained.wait_health(&c.ingress, "failed", false)?;
    chained.wait_health(&second.ingress, "failed", false)?;
    check(&chained, (by(first, 0), [0, 0, 0]), false, "the controller is back, and sees what is down")?;
    let host = chained.lab().host(second.host)?;
    host.vsctl(&["add-port", bridge, &second.ingress])?;
    set(&chained, &c, &c.ingress, true)?;
    for instance in ["f1-in", "f2-in", "f3-in"] {
        chained.wait_health(instance, "working", true)?;
    }
    check(&chained, both(by(first, 1)), true, "all is well again")?;

    // The same with the controller there: bridges are sooner than it.
    let down = pinged(&chained, to, || set(&chained, first, &first.ingress, false))?;
    tell("with the controller, an instance's port goes down, another one is there", &down);
    check(&chained, both(by(second, 1)), true, "the controller made the other instance stand in")?;
    let down = pinged(&chained, to, || set(&chained, second, &second.egress, false))?;
    tell("with the controller, the last instance's port goes down, bypass", &down);
    check(&chained, both([0, 0, 1]), true, "the controller left both out")?;
    let up = pinged(&chained, to, || {
        set(&chained, first, &first.ingress, true)?;
        set(&chained, second, &second.egress, true)
    })?;
    tell("with the controller, both come back", &up);
    for instance in ["f1-in", "f2-in"] {
        chained.wait_health(instance, "working", true)?;
    }
    check(&chained, both(by(first, 1)), true, "all is as it was")
}

#[test]
fn on_shared_bridges() -> Result<()> {
    ports_go_down(&spec(Layout::Shared))
}

#[test]
fn with_a_bridge_per_tenant() -> Result<()> {
    ports_go_down(&spec(Layout::PerTenant))
}
