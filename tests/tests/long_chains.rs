//! Goal: a long chain passes all its functions in order, each once, in both directions; and a function that translates
//! addresses and ports serves a chain both ways. On real Open vSwitch, with real functions: what each sees is captured.

mod chained;
mod network;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use lab::{Capture, Captured, Frame, Layout, Mac, Spec};

use chained::{Chained, chain, single, wire};
use network::{MS, spec};

/// Where the functions of a long chain are: it comes back to hosts, and stays at some.
const HOSTS: [usize; 8] = [2, 1, 3, 3, 1, 2, 1, 3];

/// Eight functions over three hosts. Each in turn hangs for a moment, which shows the order: those before it still see a frame,
/// those behind it and the receiver don't.
fn eight_in_order(spec: &Spec) -> Result<()> {
    let chained = Chained::wires(spec, &HOSTS)?;
    let names: Vec<String> = (1..=HOSTS.len()).map(|n| format!("f{n}")).collect();
    let (one, three) = (chained.green(1)?, chained.green(3)?);
    let mut text = String::new();
    for (name, function) in names.iter().zip(&chained.functions) {
        text += &wire(chained.lab(), name, "", &[(function, 1)])?;
    }
    let through: Vec<&str> = names.iter().map(String::as_str).collect();
    let classifier = format!("source = \"{}\", destination = \"{}\"", one.mac, three.mac);
    text += &chain("all", "symmetric = true", &through, &classifier);
    chained.apply(&text)?;
    let all_work = || (1..=HOSTS.len()).try_for_each(|n| chained.wait_health(&format!("f{n}-in"), "working", true));
    all_work()?;

    // Both ways at once, and as often as not with a tag of the sender's own.
    let there: Vec<Frame> = (0..20)
        .map(|n| {
            if n % 2 == 0 { Frame::new(one.mac, three.mac) } else { Frame::tagged(one.mac, three.mac, &[(0x8100, 7)]) }
        })
        .collect();
    let back: Vec<Frame> = (0..20).map(|_| Frame::new(three.mac, one.mac)).collect();
    let mut seen = None;
    let sights = chained.watch(|| {
        seen = Some(chained.network.watch(|| {
            there.iter().zip(&back).try_for_each(|(there, back)| {
                one.send(there)?;
                three.send(back)
            })
        })?);
        Ok(())
    })?;
    let (once, never) = (vec![1; HOSTS.len()], vec![0; HOSTS.len()]);
    let seen = seen.context("what containers saw")?;
    for frame in &there {
        let passed = (sights.forward(frame), sights.reverse(frame));
        ensure!(passed == (once.clone(), never.clone()), "there: {passed:?}");
        seen.expect(frame, &[&three], "there")?;
    }
    for frame in &back {
        let passed = (sights.forward(frame), sights.reverse(frame));
        ensure!(passed == (never.clone(), once.clone()), "back: {passed:?}");
        seen.expect(frame, &[&one], "back")?;
    }

    for (hanging, function) in chained.functions.iter().enumerate() {
        let (there, back) = (Frame::new(one.mac, three.mac), Frame::new(three.mac, one.mac));
        let (at_three, at_one) = (Capture::start(&three)?, Capture::start(&one)?);
        function.hang()?;
        let sights = chained.watch(|| {
            one.send(&there)?;
            three.send(&back)
        })?;
        function.recover()?;
        let (forward, reverse) = (sights.forward(&there), sights.reverse(&back));
        let what = format!("f{} hangs: {forward:?}, {reverse:?}", hanging + 1);
        // The one that hangs gets it, unless the controller has noticed.
        ensure!(forward[..hanging] == once[..hanging] && forward[hanging + 1..] == never[hanging + 1..], "{what}");
        ensure!(reverse[hanging + 1..] == once[hanging + 1..] && reverse[..hanging] == never[..hanging], "{what}");
        ensure!(forward[hanging] <= 1 && reverse[hanging] <= 1, "{what}");
        ensure!(at_three.stop()?.copies(&there) == 0 && at_one.stop()?.copies(&back) == 0, "around it: {what}");
        all_work()?;
    }
    let (frame, capture) = (Frame::new(one.mac, three.mac), Capture::start(&three)?);
    one.send(&frame)?;
    std::thread::sleep(MS(300));
    ensure!(capture.stop()?.copies(&frame) == 1, "it doesn't recover");
    Ok(())
}

#[test]
fn a_chain_of_eight_on_shared_bridges() -> Result<()> {
    eight_in_order(&spec(Layout::Shared))
}

#[test]
fn a_chain_of_eight_with_a_bridge_per_tenant() -> Result<()> {
    eight_in_order(&spec(Layout::PerTenant))
}

/// Addresses and ports of the TCP segments that were captured: source, then destination.
fn segments(captured: &Captured) -> BTreeSet<((Ipv4Addr, u16), (Ipv4Addr, u16))> {
    let tcp = |frame: &&[u8]| frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&6) && frame.len() >= 54;
    let frames = captured.frames.iter().map(|(_, frame)| frame.as_slice()).filter(tcp);
    frames
        .map(|frame| {
            let address = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
            let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
            ((address(26), port(34)), (address(30), port(36)))
        })
        .collect()
}

/// A function that routes gives connections another source address and other ports, between two wires: the one before it
/// sees connections as the client has them, the one behind it as the server has them, in both directions.
#[test]
fn full_address_translation_in_the_middle_of_a_chain() -> Result<()> {
    const PORTS: std::ops::RangeInclusive<u16> = 61_000..=61_999;
    let spec = spec(Layout::Shared);
    let mut chained = Chained::wires(&spec, &[2, 3])?;
    let bridge = spec.bridge_of("green")?.to_owned();
    let (one, three) = (chained.green(1)?, chained.green(3)?);
    let lab = chained.lab();
    let mac = Mac([2, 0, 0, 0, 0xfe, 1]);
    let translator = lab.add_function_with_one_port(1, &bridge, "nat", mac)?;
    let [a, b, c, _] = one.ipv4.octets();
    let outside = Ipv4Addr::new(a, b, c, 253);
    translator.route(outside)?;
    translator.translate(outside, PORTS)?;
    let text = wire(lab, "before", "", &[(&chained.functions[0], 1)])?
        + &single(lab, "nat", "routed", &format!(", mac = \"{mac}\""), &translator)?
        + &wire(lab, "behind", "", &[(&chained.functions[1], 1)])?
        + &chain(
            "tcp",
            "symmetric = true",
            &["before", "nat", "behind"],
            &format!("protocol = \"tcp\", destination = \"{}\"", three.ipv4),
        );
    chained.functions.push(translator);
    chained.apply(&text)?;
    for instance in ["f1-in", "f2-in"] {
        chained.wait_health(instance, "working", true)?;
    }
    chained.wait_health("nat", "working", false)?;

    let (at_one, at_three) = (Capture::start(&one)?, Capture::start(&three)?);
    let mut got = None;
    let sights = chained.watch(|| {
        got = Some(chained.lab().tcp(&one, &three, 1)?);
        Ok(())
    })?;
    let (at_one, at_three) = (segments(&at_one.stop()?), segments(&at_three.stop()?));
    let got = got.context("a measurement")?;
    ensure!(got.mbit > 1.0, "TCP through the translator: {got:?}");

    const SERVER: u16 = 5201;
    let [before, behind, nat] = sights.0.as_slice() else { unreachable!("three were watched") };
    let client = |from: &(Ipv4Addr, u16)| from.0 == one.ipv4 && !PORTS.contains(&from.1);
    let translated = |from: &(Ipv4Addr, u16)| from.0 == outside && PORTS.contains(&from.1);
    let server = |to: &(Ipv4Addr, u16)| *to == (three.ipv4, SERVER);
    for (captured, source, reply, what) in [
        (segments(&before.0), true, false, "before it, there"),
        (segments(&before.1), true, true, "before it, back"),
        (segments(&behind.0), false, false, "behind it, there"),
        (segments(&behind.1), false, true, "behind it, back"),
        (at_three, false, false, "at the server"),
        (at_one, true, true, "at the client"),
    ] {
        let fits = |(from, to): &((Ipv4Addr, u16), (Ipv4Addr, u16))| {
            let (mine, other) = if reply { (to, from) } else { (from, to) };
            (if source { client(mine) } else { translated(mine) }) && server(other)
        };
        // iperf3 has a connection for control and one for data.
        ensure!(captured.len() == 2 && captured.iter().all(fits), "{what}: {captured:?}");
    }
    let both = segments(&nat.0);
    ensure!(both.len() == 4, "there and back, it sees the client's way in and the server's answers: {both:?}");
    Ok(())
}
