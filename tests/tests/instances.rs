//! Goal: instances of a function share its traffic as their weights say, connections stay where they are, and an instance that
//! fails costs nobody but those it served, and those for less than a second. On real Open vSwitch.

mod chained;
mod network;

use std::collections::BTreeMap;
use std::thread::sleep;

use anyhow::{Result, anyhow, ensure};
use lab::{Captured, Container, ContinuousPing, Layout, Sender};

use chained::{Chained, chain, wire};
use network::{MS, spec};

/// UDP in IPv4 with these ports and nothing in it.
fn udp(from: &Container, to: &Container, ports: (u16, u16)) -> Vec<u8> {
    let mut frame = [&to.mac.0[..], &from.mac.0, &[8, 0]].concat();
    let mut header = [&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0][..], &from.ipv4.octets(), &to.ipv4.octets()].concat();
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(header);
    frame.extend([ports.0.to_be_bytes(), ports.1.to_be_bytes(), 8u16.to_be_bytes(), [0, 0]].concat());
    frame.resize(60, 0);
    frame
}

/// The source ports of the UDP packets to this port, or from it, that were captured.
fn connections(captured: &Captured, port: u16, forward: bool) -> BTreeMap<u16, usize> {
    let mut connections = BTreeMap::new();
    for (_, frame) in &captured.frames {
        if frame.get(12..14) != Some(&[8, 0]) || frame.get(23) != Some(&17) {
            continue;
        }
        let at = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let (own, other) = if forward { (at(34), at(36)) } else { (at(36), at(34)) };
        if other == port {
            *connections.entry(own).or_default() += 1;
        }
    }
    connections
}

/// Instances share connections as their weights say, each stays where it is in both directions, and one that fails moves
/// nobody's connections but its own.
#[test]
fn instances_share_and_connections_stay() -> Result<()> {
    const CONNECTIONS: u16 = 1500;
    let chained = Chained::wires(&spec(Layout::Shared), &[1, 2, 3])?;
    let (one, three) = (chained.green(1)?, chained.green(3)?);
    let [a, b, c] = chained.functions.as_slice() else { unreachable!("three were made") };
    let text = wire(chained.lab(), "firewall", "", &[(a, 2), (b, 1), (c, 1)])?
        + &chain(
            "dns",
            "symmetric = true",
            &["firewall"],
            &format!("protocol = \"udp\", destination = \"{}\", destination_port = 53", three.ipv4),
        );
    chained.apply(&text)?;
    for instance in ["f1-in", "f2-in", "f3-in"] {
        chained.wait_health(instance, "working", true)?;
    }
    let exchange = || -> Result<Vec<Vec<u16>>> {
        let (there, back) = (Sender::new(&one)?, Sender::new(&three)?);
        let sights = chained.watch(|| {
            for n in 0..CONNECTIONS {
                there.send_bytes(&udp(&one, &three, (10_000 + n, 53)))?;
                back.send_bytes(&udp(&three, &one, (53, 10_000 + n)))?;
                if n % 50 == 49 {
                    sleep(MS(10));
                }
            }
            Ok(())
        })?;
        let mut all = Vec::new();
        for (ingress, egress) in &sights.0 {
            let (there, back) = (connections(ingress, 53, true), connections(egress, 53, false));
            ensure!(there.values().chain(back.values()).all(|count| *count == 1), "a packet passed twice");
            ensure!(there.keys().eq(back.keys()), "{} connections there, {} back", there.len(), back.len());
            all.push(there.into_keys().collect());
        }
        Ok(all)
    };
    let before = exchange()?;
    let total: usize = before.iter().map(Vec::len).sum();
    ensure!(total == usize::from(CONNECTIONS), "{total} of {CONNECTIONS} connections passed a function");
    for (share, wanted) in before.iter().zip([0.5, 0.25, 0.25]) {
        let share = share.len() as f64 / total as f64;
        ensure!((share - wanted).abs() < 0.05, "a share of {share:.3} instead of {wanted}: {before:?}");
    }
    // The second one's port goes down.
    chained.lab().set_interface(2, "f2-in", false)?;
    chained.wait_health("f2-in", "failed", false)?;
    let after = exchange()?;
    ensure!(after[1].is_empty(), "{} connections went to one that is down", after[1].len());
    for index in [0, 2] {
        ensure!(before[index].iter().all(|port| after[index].contains(port)), "connections of others moved");
    }
    ensure!(after.iter().map(Vec::len).sum::<usize>() == total, "connections were lost");
    chained.lab().set_interface(2, "f2-in", true)?;
    chained.wait_health("f2-in", "working", true)?;
    ensure!(exchange()? == before, "not all came back to where they were");
    Ok(())
}

/// The instance that carries traffic dies under it: the other takes over within a second, and a connection goes on.
#[test]
fn an_instance_dies_under_traffic() -> Result<()> {
    let chained = Chained::wires(&spec(Layout::Shared), &[1, 2])?;
    let (one, three) = (chained.green(1)?, chained.green(3)?);
    let [a, b] = chained.functions.as_slice() else { unreachable!("two were made") };
    let text = wire(chained.lab(), "firewall", "", &[(a, 1), (b, 1)])?
        + &chain("to-three", "symmetric = true", &["firewall"], &format!("destination = \"{}\"", three.ipv4));
    chained.apply(&text)?;
    for instance in ["f1-in", "f2-in"] {
        chained.wait_health(instance, "working", true)?;
    }
    let icmp =
        |captured: &Captured| captured.count(|frame| frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&1));
    let ping = ContinuousPing::start(&one, three.ipv4)?;
    let sights = chained.watch(|| Ok(()))?;
    let counts: Vec<usize> = sights.0.iter().map(|(ingress, _)| icmp(ingress)).collect();
    ensure!(counts.iter().filter(|count| **count > 0).count() == 1, "one instance carries a conversation: {counts:?}");
    let used = usize::from(counts[1] > 0);
    let got = std::thread::scope(|scope| {
        let transfer = scope.spawn(|| chained.lab().tcp(&one, &three, 4));
        sleep(MS(1500));
        let function = &chained.functions[used];
        let taken_down = chained.lab().set_interface(function.host, &function.ingress, false);
        let got = transfer.join().map_err(|_| anyhow!("the transfer panicked"))?;
        taken_down.and(got)
    })?;
    let report = ping.stop()?;
    ensure!(report.longest_outage < MS(1000) && report.duplicates == 0, "{report:?}");
    ensure!(got.mbit > 1.0, "TCP went on: {got:?}");
    let sights = chained.watch(|| {
        ensure!(chained.lab().ping(&one, three.ipv4)?, "through the other");
        Ok(())
    })?;
    ensure!(icmp(&sights.0[1 - used].0) > 0 && icmp(&sights.0[used].0) == 0, "the other carries it now");
    Ok(())
}
