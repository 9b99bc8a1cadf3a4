//! Goal: chosen traffic passes the functions of its chain in order, each exactly once, wherever they run; all else passes
//! none; who fails is dealt with as the policy says. On real Open vSwitch, with real functions: what each sees is captured.

mod chained;
mod network;

use std::thread::sleep;

use anyhow::{Context, Result, ensure};
use lab::{Capture, Captured, Carrier, Container, ContinuousPing, Frame, Layout, Mac, Sender, Spec};

use chained::{Chained, chain, connections, single, udp, wire};
use network::{MS, spec};

/// Chains of wires: one copy at each function and at the receiver, in order, and nothing else passes.
fn in_order(spec: &Spec, hosts: &[usize]) -> Result<()> {
    let chained = Chained::wires(spec, hosts)?;
    let names: Vec<String> = (1..=hosts.len()).map(|n| format!("f{n}")).collect();
    let (one, three) = (chained.green(1)?, chained.green(3)?);
    let mut text = String::new();
    for (name, function) in names.iter().zip(&chained.functions) {
        text += &wire(chained.lab(), name, "", &[(function, 1)])?;
    }
    let through: Vec<&str> = names.iter().map(String::as_str).collect();
    text += &chain("all", "", &through, &format!("source = \"{}\"", one.mac));
    chained.apply(&text)?;
    for n in 1..=hosts.len() {
        chained.wait_health(&format!("f{n}-in"), "working", true)?;
    }

    let (there, tagged) = (Frame::new(one.mac, three.mac), Frame::tagged(one.mac, three.mac, &[(0x8100, 7)]));
    let (back, everybody) = (Frame::new(three.mac, one.mac), Frame::broadcast(one.mac));
    let orange = (chained.lab().container(1, "orange-1")?, chained.lab().container(3, "orange-1")?);
    let foreign = Frame::new(orange.0.mac, orange.1.mac);
    let mut seen = None;
    let sights = chained.watch(|| {
        seen = Some(chained.network.watch(|| {
            one.send(&there)?;
            one.send(&tagged)?;
            three.send(&back)?;
            one.send(&everybody)?;
            orange.0.send(&foreign)
        })?);
        Ok(())
    })?;
    let once = vec![1; hosts.len()];
    let never = vec![0; hosts.len()];
    ensure!(sights.forward(&there) == once, "chained: {:?}", sights.forward(&there));
    ensure!(sights.forward(&tagged) == once, "chained, with a tag of its own: {:?}", sights.forward(&tagged));
    for (frame, what) in [(&back, "a reply"), (&everybody, "a broadcast"), (&foreign, "another tenant's")] {
        ensure!(sights.forward(frame) == never && sights.reverse(frame) == never, "{what} got into a function");
    }
    ensure!(sights.reverse(&there) == never);
    let seen = seen.context("what containers saw")?;
    let greens = chained.lab().tenant("green");
    let others: Vec<&Container> = greens.iter().filter(|it| it.netns != one.netns).collect();
    seen.expect(&there, &[&three], "chained")?;
    seen.expect(&tagged, &[&three], "chained, with a tag")?;
    seen.expect(&back, &[&one], "a reply")?;
    seen.expect(&everybody, &others, "a broadcast")?;
    seen.expect(&foreign, &[&orange.1], "another tenant's")?;

    // One after the other hangs: those before it still see frames, those behind it and the receiver don't.
    for hanging in 0..hosts.len() {
        chained.functions[hanging].hang()?;
        let frame = Frame::new(one.mac, three.mac);
        let capture = Capture::start(&three)?;
        let sights = chained.watch(|| one.send(&frame))?;
        let expected: Vec<u64> = (0..hosts.len()).map(|n| u64::from(n <= hanging)).collect();
        ensure!(sights.forward(&frame) == expected, "f{} hangs: {:?}", hanging + 1, sights.forward(&frame));
        ensure!(capture.stop()?.copies(&frame) == 0, "it went around f{}", hanging + 1);
        chained.wait_health(&format!("f{}-in", hanging + 1), "failed", false)?;
        chained.functions[hanging].recover()?;
        chained.wait_health(&format!("f{}-in", hanging + 1), "working", true)?;
    }
    // What went in and came back is counted.
    (0..5).try_for_each(|_| one.send(&Frame::new(one.mac, three.mac)))?;
    lab::wait_until("counted packets", MS(5000), || {
        let chains = chained.network.controller.get("/v1/chains/green/all")?;
        let hops = chains["hops"].as_array().context("hops")?;
        Ok(hops.iter().all(|hop| {
            let instance = &hop["instances"][0];
            instance["received"]["packets"].as_u64() > Some(1) && instance["returned"]["packets"].as_u64() > Some(1)
        }))
    })?;
    let table = chained.network.controller.cli(&["get", "chains", "green"])?;
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    ensure!(table.status.success() && text.contains("green/all") && text.contains("f1-in → f1-out"), "{table:?}");
    // What is flooded behind a function is flooded to the sender, too: nobody there knows by which port it entered.
    let unknown = Frame::unknown_unicast(one.mac);
    let mut seen = None;
    let sights = chained.watch(|| {
        seen = Some(chained.network.watch(|| one.send(&unknown))?);
        Ok(())
    })?;
    ensure!(sights.forward(&unknown) == once, "unknown unicast: {:?}", sights.forward(&unknown));
    seen.context("what containers saw")?.expect(&unknown, &greens.iter().collect::<Vec<_>>(), "unknown unicast")?;
    // Without the chain all is as it was.
    chained.apply("")?;
    chained.network.check_delivery()
}

#[test]
fn a_chain_of_one_on_shared_bridges() -> Result<()> {
    in_order(&spec(Layout::Shared), &[2])
}

#[test]
fn a_chain_of_two_at_the_senders_and_receivers_own_bridges() -> Result<()> {
    in_order(&spec(Layout::Shared), &[3, 1])
}

#[test]
fn a_chain_of_four_on_shared_bridges() -> Result<()> {
    in_order(&spec(Layout::Shared), &[1, 3, 3, 2])
}

#[test]
fn a_chain_of_four_with_a_bridge_per_tenant() -> Result<()> {
    in_order(&spec(Layout::PerTenant), &[2, 1, 3, 2])
}

#[test]
fn a_chain_of_two_over_plain_links() -> Result<()> {
    in_order(&Spec { carrier: Carrier::Veth, ..spec(Layout::Shared) }, &[2, 1])
}

#[test]
fn a_chain_of_two_with_a_bridge_per_tenant_over_plain_links() -> Result<()> {
    in_order(&Spec { carrier: Carrier::Veth, ..spec(Layout::PerTenant) }, &[2, 3])
}

/// While no instance works, frames go on to the next function if the policy says so, else they end.
#[test]
fn bypass_and_drop() -> Result<()> {
    let mut chained = Chained::wires(&spec(Layout::Shared), &[2, 3])?;
    let (one, three) = (chained.green(1)?, chained.green(3)?);
    let functions = chained.functions.clone();
    let [a, b] = functions.as_slice() else { unreachable!("two were made") };
    let text = wire(chained.lab(), "meter", "on_failure = \"bypass\"", &[(a, 1)])?
        + &wire(chained.lab(), "firewall", "on_failure = \"drop\"", &[(b, 1)])?
        + &chain(
            "ping",
            "symmetric = true",
            &["meter", "firewall"],
            &format!("protocol = \"icmp\", destination = \"{}\"", three.ipv4),
        );
    // One that hangs from the beginning was never seen to let anything through: nothing tells that it should.
    a.hang()?;
    chained.apply(&text)?;
    chained.wait_health("f1-in", "unproven", false)?;
    a.recover()?;
    for instance in ["f1-in", "f2-in"] {
        chained.wait_health(instance, "working", true)?;
    }
    ensure!(chained.lab().ping(&one, three.ipv4)?, "through both");

    // Nothing but probes tells that it hangs: three of them, half a second apart.
    let ping = ContinuousPing::start(&one, three.ipv4)?;
    a.hang()?;
    chained.wait_health("f1-in", "failed", false)?;
    sleep(MS(300));
    let outage = ping.stop()?;
    ensure!(chained.lab().ping(&one, three.ipv4)?, "it isn't bypassed: {outage:?}");
    chained.network.wait_problem("f1-in of function meter of tenant green lets nothing through")?;
    let asked = ["trace", "--tenant", "green", "--from", "h1/green-1", "--to", "h3/green-1", "icmp"];
    let traced = chained.network.controller.cli(&asked)?;
    let text = String::from_utf8_lossy(&traced.stdout).into_owned();
    ensure!(
        text.contains("f1-in of function meter") && text.contains("without it (on_failure = \"bypass\")"),
        "{traced:?}"
    );
    // Whoever starts anew takes it for failed, too, until a probe comes through.
    let ping = ContinuousPing::start(&one, three.ipv4)?;
    chained.network.controller.kill9();
    chained.network.controller.start()?;
    chained.network.settle()?;
    chained.wait_health("f1-in", "failed", false)?;
    ensure!(chained.network.changes_sent()? == 0, "a restart of the controller changed something");
    let report = ping.stop()?;
    ensure!(report.received == report.sent, "the restart gave traffic to one that had failed: {report:?}");
    a.recover()?;
    chained.wait_health("f1-in", "working", true)?;

    b.hang()?;
    chained.wait_health("f2-in", "failed", false)?;
    ensure!(!chained.lab().ping_within(&one, three.ipv4, MS(500))?, "it went around the firewall");
    b.recover()?;
    chained.wait_health("f2-in", "working", true)?;
    ensure!(chained.lab().ping(&one, three.ipv4)?, "it doesn't recover");

    // The controller is killed: functions go on as before; it comes back and changes nothing.
    let ping = ContinuousPing::start(&one, three.ipv4)?;
    chained.network.controller.restart()?;
    chained.network.settle()?;
    sleep(MS(300));
    ensure!(chained.network.changes_sent()? == 0, "a restart of the controller changed something");
    let report = ping.stop()?;
    ensure!(report.received == report.sent, "a restart of the controller lost {report:?}");
    Ok(())
}

/// A tap gets its copy and is never in the way; a hairpin and a router serve both directions by one port; two chains share a
/// function; a stateful firewall sees both directions of each connection.
#[test]
fn hairpins_routers_and_taps() -> Result<()> {
    let spec = spec(Layout::Shared);
    let mut chained = Chained::wires(&spec, &[2])?;
    let bridge = spec.bridge_of("green")?.to_owned();
    let (one, two, three) = (chained.green(1)?, chained.green(2)?, chained.green(3)?);
    let router_mac = Mac([2, 0, 0, 0, 0xfe, 1]);
    let lab = chained.lab();
    let hairpin = lab.add_function_with_one_port(3, &bridge, "h1", Mac([2, 0, 0, 0, 0xfe, 2]))?;
    let _reflector = hairpin.hairpin()?;
    let router = lab.add_function_with_one_port(1, &bridge, "r1", router_mac)?;
    let octets = one.ipv4.octets();
    router.route(std::net::Ipv4Addr::new(octets[0], octets[1], octets[2], 253))?;
    let tap = lab.add_function_with_one_port(2, &bridge, "t1", Mac([2, 0, 0, 0, 0xfe, 3]))?;
    let text = wire(lab, "shared", "", &[(&chained.functions[0], 1)])?
        + &single(lab, "mirror", "hairpin", "", &hairpin)?
        + &single(lab, "firewall", "routed", &format!(", mac = \"{router_mac}\""), &router)?
        + &single(lab, "ids", "tap", "", &tap)?
        + &chain(
            "tcp",
            "symmetric = true",
            &["ids", "shared", "firewall"],
            &format!("protocol = \"tcp\", destination = \"{}\"", three.ipv4),
        )
        + &chain(
            "icmp",
            "symmetric = true",
            &["shared", "mirror"],
            &format!("protocol = \"icmp\", destination = \"{}\"", two.ipv4),
        );
    chained.functions.extend([hairpin, router, tap]);
    chained.apply(&text)?;
    chained.wait_health("f1-in", "working", true)?;
    chained.wait_health("h1", "working", true)?;
    chained.wait_health("r1", "working", false)?;

    let lab = chained.lab();
    let mut got = None;
    let sights = chained.watch(|| {
        got = Some(lab.tcp(&one, &three, 1)?);
        Ok(())
    })?;
    let got = got.context("a measurement")?;
    ensure!(got.mbit > 1.0, "TCP through a tap, a wire and a router: {got:?}");
    let tcp =
        |captured: &Captured| captured.count(|frame| frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&6));
    let counts: Vec<usize> = sights.0.iter().map(|(ingress, _)| tcp(ingress)).collect();
    ensure!(counts[0] > 10 && counts[2] > 10 && counts[3] > 10, "wire, router and tap see it: {counts:?}");
    ensure!(counts[1] == 0, "the hairpin is of another chain: {counts:?}");
    ensure!(tcp(&sights.0[0].1) > 10, "replies pass the wire the other way");

    let sights = chained.watch(|| {
        ensure!(lab.ping(&one, two.ipv4)?, "no ping through the wire and the hairpin");
        Ok(())
    })?;
    let icmp =
        |captured: &Captured| captured.count(|frame| frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&1));
    let counts: Vec<(usize, usize)> = sights.0.iter().map(|(one, other)| (icmp(one), icmp(other))).collect();
    ensure!(counts[0].0 > 0 && counts[0].0 == counts[0].1, "requests and replies at the wire: {counts:?}");
    ensure!(counts[1].0 == 2 * counts[0].0, "both at the hairpin: {counts:?}");
    ensure!(counts[2] == (0, 0) && counts[3] == (0, 0), "neither at router and tap: {counts:?}");

    // What a tap sends goes nowhere.
    let injected = Frame::new(Mac([2, 0, 0, 0, 0xfe, 3]), three.mac);
    let seen = chained.network.watch(|| chained.functions[3].send(&injected))?;
    seen.expect(&injected, &[], "sent by a tap")
}

/// A function that rewrites what chains are told by doesn't derail its chain, and a chain of broadcasts takes them, too.
#[test]
fn rewritten_headers_and_broadcasts() -> Result<()> {
    let chained = Chained::wires(&spec(Layout::Shared), &[2, 1])?;
    let (one, three) = (chained.green(1)?, chained.green(3)?);
    let [a, b] = chained.functions.as_slice() else { unreachable!("two were made") };
    a.rewrite_destination_port(53, 9953)?;
    let text = wire(chained.lab(), "rewriter", "", &[(a, 1)])?
        + &wire(chained.lab(), "behind", "", &[(b, 1)])?
        + &chain("dns", "priority = 1", &["rewriter", "behind"], "protocol = \"udp\", destination_port = 53")
        + &chain("all", "broadcast = true", &["behind"], &format!("source = \"{}\"", one.mac));
    chained.apply(&text)?;
    for instance in ["f1-in", "f2-in"] {
        chained.wait_health(instance, "working", true)?;
    }
    let (sender, receiver) = (Sender::new(&one)?, Capture::start(&three)?);
    let everybody = Frame::broadcast(one.mac);
    let mut seen = None;
    let sights = chained.watch(|| {
        sender.send_bytes(&udp(&one, &three, (40_000, 53)))?;
        seen = Some(chained.network.watch(|| one.send(&everybody))?);
        Ok(())
    })?;
    let to = |captured: &Captured, port: u16| connections(captured, port, true).len();
    let [(first, _), (second, _)] = sights.0.as_slice() else { unreachable!("two were watched") };
    let received = receiver.stop()?;
    ensure!(to(first, 53) == 1 && to(first, 9953) == 0, "as it was sent, at the first function");
    ensure!(to(second, 9953) == 1 && to(second, 53) == 0, "as it was rewritten, at the second");
    ensure!(to(&received, 9953) == 1 && to(&received, 53) == 0, "and where it arrives");
    ensure!(sights.forward(&everybody) == [0, 1], "a broadcast: {:?}", sights.forward(&everybody));
    let greens = chained.lab().tenant("green");
    // To the sender, too: nobody there knows by which port it entered.
    seen.context("what containers saw")?.expect(&everybody, &greens.iter().collect::<Vec<_>>(), "a broadcast")
}
