//! Goal: chosen traffic passes the functions of its chain in order, each exactly once, wherever they run; all else passes
//! none; who fails is dealt with as the policy says. On real Open vSwitch, with real functions: what each sees is captured.

mod network;

use std::thread::sleep;

use anyhow::{Context, Result, ensure};
use lab::{Capture, Captured, Carrier, Container, ContinuousPing, Frame, Function, Lab, Layout, Mac, Sender, Spec};
use serde_json::Value;

use network::{MS, Network, spec};

/// A lab with functions, and what they are.
struct Chained {
    network: Network,
    functions: Vec<Function>,
}

/// What functions saw.
struct Sights(Vec<(Captured, Captured)>);

/// The policy's words for a wire function of instances that are named after their ports.
fn wire(lab: &Lab, name: &str, more: &str, instances: &[(&Function, u16)]) -> Result<String> {
    let rows = instances.iter().map(|(function, weight)| {
        let Function { ingress, egress, .. } = function;
        let bridge = bridge_name(lab, function)?;
        Ok(format!(
            "  {{ name = \"{ingress}\", bridge = \"{bridge}\", ingress = \"{ingress}\", egress = \"{egress}\", weight = {weight} }},\n"
        ))
    });
    let rows = rows.collect::<Result<String>>()?;
    Ok(format!("[[tenant.function]]\nname = \"{name}\"\nkind = \"wire\"\n{more}\ninstances = [\n{rows}]\n"))
}

/// One with one port.
fn single(lab: &Lab, name: &str, kind: &str, more: &str, function: &Function) -> Result<String> {
    let (bridge, port) = (bridge_name(lab, function)?, &function.ingress);
    Ok(format!(
        "[[tenant.function]]\nname = \"{name}\"\nkind = \"{kind}\"\n\
         instances = [{{ name = \"{port}\", bridge = \"{bridge}\", ingress = \"{port}\"{more} }}]\n"
    ))
}

fn bridge_name(lab: &Lab, function: &Function) -> Result<String> {
    let bridges = lab.bridges();
    let found = bridges.iter().find(|bridge| bridge.host == function.host && bridge.name == function.bridge);
    Ok(found.context("the function's bridge")?.description.clone())
}

/// Green with functions and chains, and orange without.
fn policy(more: &str) -> String {
    format!(
        r#"version = 1

[fabric]
links = ["*"]

[[tenant]]
name = "orange"
key = 200
ports = [{{ bridge = "*", port = "orange-*" }}]

[[tenant]]
name = "green"
key = 100
ports = [{{ bridge = "*", port = "green-*" }}]
{more}"#
    )
}

fn chain(name: &str, more: &str, through: &[&str], classifier: &str) -> String {
    format!("[[tenant.chain]]\nname = \"{name}\"\n{more}\nthrough = {through:?}\nmatch = [{{ {classifier} }}]\n")
}

impl Chained {
    /// A lab of three hosts with a wire function on each of these.
    fn wires(spec: &Spec, hosts: &[usize]) -> Result<Self> {
        let network = Network::with_policy(spec, &policy(""))?;
        let bridge = spec.bridge_of("green")?.to_owned();
        let functions = hosts
            .iter()
            .zip(1..)
            .map(|(host, n)| network.lab.add_function(*host, &bridge, &format!("f{n}-in"), &format!("f{n}-out")));
        let functions = functions.collect::<Result<Vec<_>>>()?;
        network.meet("green")?;
        network.meet("orange")?;
        Ok(Self { network, functions })
    }

    fn lab(&self) -> &Lab {
        &self.network.lab
    }

    /// Brings a policy into force.
    fn apply(&self, more: &str) -> Result<()> {
        self.network.apply(&policy(more))
    }

    /// Waits until an instance is in this state, with probes passing or not.
    fn wait_health(&self, instance: &str, health: &str, probes_pass: bool) -> Result<()> {
        let mut last = Value::Null;
        lab::wait_until(&format!("{instance} to be {health}"), MS(8000), || {
            last = self.network.controller.get("/v1/chains")?;
            let chains = last.as_array().context("chains")?.iter();
            let hops = chains.flat_map(|chain| chain["hops"].as_array().cloned().unwrap_or_default());
            let mut all = hops.flat_map(|hop| hop["instances"].as_array().cloned().unwrap_or_default());
            Ok(all.any(|it| it["name"] == instance && it["health"] == health && it["probes_pass"] == probes_pass))
        })
        .with_context(|| format!("last: {last}"))?;
        self.network.controller.wait_converged(self.lab().bridges().len() as u64, MS(5000)).map(drop)
    }

    /// What functions see while something happens, and a little longer: what goes in by the ingress, and by the egress.
    fn watch(&self, sends: impl FnOnce() -> Result<()>) -> Result<Sights> {
        let captures = self
            .functions
            .iter()
            .map(|it| {
                Ok((
                    it.capture_ingress()?,
                    if it.ingress == it.egress { it.capture_ingress()? } else { it.capture_egress()? },
                ))
            })
            .collect::<Result<Vec<_>>>()?;
        sends()?;
        sleep(MS(300));
        let captured = captures.into_iter().map(|(one, other)| Ok((one.stop()?, other.stop()?)));
        Ok(Sights(captured.collect::<Result<_>>()?))
    }

    fn green(&self, host: usize) -> Result<Container> {
        self.lab().container(host, "green-1")
    }
}

impl Sights {
    /// Copies of a frame that went into each function by its ingress.
    fn forward(&self, frame: &Frame) -> Vec<u64> {
        self.0.iter().map(|(ingress, _)| ingress.copies(frame)).collect()
    }

    /// Copies that went in by the egress, as replies do.
    fn reverse(&self, frame: &Frame) -> Vec<u64> {
        self.0.iter().map(|(_, egress)| egress.copies(frame)).collect()
    }
}

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
fn connections(captured: &Captured, port: u16, forward: bool) -> std::collections::BTreeMap<u16, usize> {
    let mut connections = std::collections::BTreeMap::new();
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

/// While no instance works, frames go on to the next function if the policy says so, else they end.
#[test]
fn bypass_and_drop() -> Result<()> {
    let chained = Chained::wires(&spec(Layout::Shared), &[2, 3])?;
    let (one, three) = (chained.green(1)?, chained.green(3)?);
    let [a, b] = chained.functions.as_slice() else { unreachable!("two were made") };
    let text = wire(chained.lab(), "meter", "on_failure = \"bypass\"", &[(a, 1)])?
        + &wire(chained.lab(), "firewall", "on_failure = \"drop\"", &[(b, 1)])?
        + &chain(
            "ping",
            "symmetric = true",
            &["meter", "firewall"],
            &format!("protocol = \"icmp\", destination = \"{}\"", three.ipv4),
        );
    chained.apply(&text)?;
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
    a.recover()?;
    chained.wait_health("f1-in", "working", true)?;

    b.hang()?;
    chained.wait_health("f2-in", "failed", false)?;
    ensure!(!chained.lab().ping_within(&one, three.ipv4, MS(500))?, "it went around the firewall");
    b.recover()?;
    chained.wait_health("f2-in", "working", true)?;
    ensure!(chained.lab().ping(&one, three.ipv4)?, "it doesn't recover");

    // The controller is killed: functions go on as before; it comes back and changes nothing.
    let mut chained = chained;
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
        let got = transfer.join().map_err(|_| anyhow::anyhow!("the transfer panicked"))?;
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
