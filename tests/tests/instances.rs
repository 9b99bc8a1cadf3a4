//! Goal: instances of a function share its traffic as their weights say, connections stay where they are, and an instance that
//! fails costs nobody but those it served, and those for less than a second. On real Open vSwitch.

mod chained;
mod network;

use std::collections::BTreeMap;
use std::thread::sleep;

use anyhow::{Result, anyhow, ensure};
use lab::{Captured, ContinuousPing, Layout, Sender};

use chained::{Chained, chain, connections, udp, wire};
use network::{MS, spec};

/// Instances share connections as their weights say, each stays where it is in both directions, and one that fails moves
/// nobody's connections but its own.
#[test]
fn instances_share_and_connections_stay() -> Result<()> {
    const CONNECTIONS: u16 = 10_000;
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
    // Which instance each of these connections passed, both ways, and how many packets did.
    let pass = |numbers: &[u16]| -> Result<(BTreeMap<u16, usize>, usize)> {
        let (there, back) = (Sender::new(&one)?, Sender::new(&three)?);
        let sights = chained.watch(|| {
            for burst in numbers.chunks(20) {
                for n in burst {
                    there.send_bytes(&udp(&one, &three, (10_000 + n, 53)))?;
                    back.send_bytes(&udp(&three, &one, (53, 10_000 + n)))?;
                }
                sleep(MS(10));
            }
            Ok(())
        })?;
        let (mut passed, mut packets) = (BTreeMap::new(), 0);
        for (instance, (ingress, egress)) in sights.0.iter().enumerate() {
            for (port, count) in connections(ingress, 53, true).into_iter().chain(connections(egress, 53, false)) {
                ensure!(count == 1, "a packet passed twice");
                let other = passed.insert(port - 10_000, instance);
                ensure!(other.is_none_or(|other| other == instance), "there by another instance than back");
                packets += 1;
            }
        }
        Ok((passed, packets))
    };
    // A burst may lose a few packets at the lab's own ports, and both of one connection: those are sent once more.
    let exchange = || -> Result<BTreeMap<u16, usize>> {
        let (mut passed, packets) = pass(&(0..CONNECTIONS).collect::<Vec<_>>())?;
        ensure!(packets > 2 * usize::from(CONNECTIONS) - 20, "{packets} packets passed");
        let unseen: Vec<u16> = (0..CONNECTIONS).filter(|n| !passed.contains_key(n)).collect();
        if !unseen.is_empty() {
            passed.append(&mut pass(&unseen)?.0);
        }
        let unseen: Vec<u16> = (0..CONNECTIONS).filter(|n| !passed.contains_key(n)).collect();
        ensure!(unseen.is_empty(), "connections {unseen:?} passed by no instance, twice");
        Ok(passed)
    };
    let before = exchange()?;
    for (instance, wanted) in [0.5, 0.25, 0.25].into_iter().enumerate() {
        let share = before.values().filter(|it| **it == instance).count() as f64 / f64::from(CONNECTIONS);
        ensure!((share / wanted - 1.0).abs() < 0.05, "a share of {share:.4} instead of {wanted}");
    }
    // The second one's port goes down. Open vSwitch looks through the flows that its datapath caches, 20,000 of this test's
    // connections, after it took the changed groups: until then, for some tenths of a second, they go where they went.
    let settled = || sleep(MS(1000));
    chained.lab().set_interface(2, "f2-in", false)?;
    chained.wait_health("f2-in", "failed", false)?;
    settled();
    let after = exchange()?;
    for (connection, instance) in &before {
        let (was_its, now) = (*instance == 1, after[connection]);
        ensure!(now != 1, "a connection went to one that is down");
        ensure!(was_its || now == *instance, "a connection of another one moved");
    }
    chained.lab().set_interface(2, "f2-in", true)?;
    chained.wait_health("f2-in", "working", true)?;
    settled();
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
