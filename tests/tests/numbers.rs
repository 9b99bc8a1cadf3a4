//! Goal: a number is not a port. Open vSwitch gives a number that is free to the next port, and goes on forwarding by what was
//! made for the former one; whoever has a tenant's number mustn't thereby get into that tenant's network. On real Open vSwitch.

mod network;

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{Capture, Container, Frame, Layout, Sender};

use network::{MS, Network, spec};

/// One transaction that gives each of two ports the other's number.
fn exchange(network: &Network, host: usize, ports: [(&str, u32); 2]) -> Result<()> {
    let [(one, to_one), (two, to_two)] = ports.map(|(port, number)| (port, format!("ofport_request={number}")));
    network.lab.host(host)?.vsctl(&["set", "interface", one, &to_one, "--", "set", "interface", two, &to_two]).map(drop)
}

/// Sends the same frame every millisecond while something happens, and for as long after it.
fn send_while(from: &Container, frame: &Frame, rest: Duration, happens: impl FnOnce() -> Result<()>) -> Result<u64> {
    let sender = Sender::new(from)?;
    std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let sending = scope.spawn(move || -> Result<u64> {
            let mut sent = 0;
            while stopped.try_recv().is_err() {
                sender.send(frame)?;
                sent += 1;
                sleep(MS(1));
            }
            Ok(sent)
        });
        let happened = happens();
        sleep(rest);
        let _ = stop.send(());
        let sent = sending.join().map_err(|_| anyhow::anyhow!("sending failed"))??;
        happened.map(|()| sent)
    })
}

#[test]
fn whoever_gets_a_number_does_not_get_what_it_stood_for() -> Result<()> {
    let mut network = Network::ready(&spec(Layout::Shared))?;
    let lab = &network.lab;
    let (green, orange) = (lab.container(1, "green-1")?, lab.container(1, "orange-1")?);
    let far = lab.container(2, "green-1")?;

    // While the controller is there: what crosses does so before it can know.
    let seen = Capture::start(&far)?;
    let frame = Frame::broadcast(orange.mac);
    let sent = send_while(&orange, &frame, MS(500), || {
        sleep(MS(200));
        exchange(&network, 1, [("green-1", 2), ("orange-1", 1)])
    })?;
    let crossed = seen.stop()?.copies(&frame);
    println!("{crossed} of {sent} frames, one a millisecond, crossed while two ports exchanged their numbers");
    ensure!(sent > 300 && crossed < 40, "{crossed} of {sent} frames of orange crossed to green");
    network.settle()?;
    network.meet("green")?;
    network.meet("orange")?;
    network.check_delivery()?;

    // While it is away, nobody can keep it from happening. When it is back, that ends before anything else is awaited: one
    // of the hosts' channels stays cut, so the controller waits for its bridge for 10 s.
    network.controller.kill9();
    exchange(&network, 1, [("green-1", 1), ("orange-1", 2)])?;
    let seen = Capture::start(&far)?;
    let frame = Frame::broadcast(orange.mac);
    send_while(&orange, &frame, MS(100), || Ok(()))?;
    let alone = seen.stop()?.copies(&frame);
    println!("{alone} frames crossed while the controller was away");
    ensure!(alone > 0, "the test shows nothing: no frame crossed without the controller");
    network.lab.cut_control(3)?;
    network.controller.spawn()?;
    network.controller.wait_until("two bridges to be connected", MS(15_000), |controller| {
        Ok(controller.get("/v1/status")?["bridges"]["connected"] == 2)
    })?;
    let connected = Instant::now();
    // The bridge has to read the message that closes the ports, and this machine may be busy.
    sleep(MS(100));
    let (to_green, to_orange) = (Capture::start(&far)?, Capture::start(&network.lab.container(2, "orange-1")?)?);
    let frames = [Frame::broadcast(orange.mac), Frame::broadcast(green.mac)];
    for _ in 0..50 {
        orange.send(&frames[0])?;
        green.send(&frames[1])?;
        sleep(MS(2));
    }
    ensure!(connected.elapsed() < MS(5000), "too slow to show anything: the controller may wait no longer");
    let crossed = (to_green.stop()?.copies(&frames[0]), to_orange.stop()?.copies(&frames[1]));
    ensure!(crossed == (0, 0), "with the controller back, frames cross: {crossed:?}");
    network.wait_problem("the numbers of ports 1 (green-1), 2 (orange-1) were other ports' until now")?;
    network.lab.restore_control(3)?;
    network.settle()?;
    network.check_delivery()
}
