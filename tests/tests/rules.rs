//! Goal: access rules decide what enters, in IPv4 and IPv6, and nothing else: not the tenant's other traffic, not the other
//! tenant's, not while they change. On real Open vSwitch, each copy of each packet counted.

mod network;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};

use anyhow::{Context, Result, ensure};
use lab::{Capture, Carrier, Container, ContinuousPing, Frame, Layout, Mac, Marker, Sender, Spec};

use network::{MS, Network, green_and_orange, spec};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Green with rules, which let frames with two tags pass, and orange without.
fn policy(green: &str) -> String {
    green_and_orange("", &format!("inner_vlans = \"pass\"\n{green}"))
}

fn rule(name: &str, priority: u16, classifier: &str, action: &str) -> String {
    format!(
        "[[tenant.rule]]\nname = \"{name}\"\npriority = {priority}\nmatch = {{ {classifier} }}\naction = \"{action}\"\n"
    )
}

/// A packet that can be told from all others, and that nobody answers: of TCP one that resets a connection, of UDP one whose
/// length is too short to be true.
fn packet(from: &Container, to: &Container, version: u8, protocol: u8, ports: (u16, u16)) -> Frame {
    let marker = Marker::fresh();
    let mut segment = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    match protocol {
        TCP => segment.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x04, 0, 0, 0, 0, 0, 0]),
        _ => segment.extend([0, 7, 0, 0]),
    }
    segment.extend(marker.bytes());
    let length = segment.len() as u16;
    let mut bytes = [to.mac.0, from.mac.0].concat();
    if version == 4 {
        let [high, low] = (20 + length).to_be_bytes();
        let mut header = [0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0].to_vec();
        header.extend([from.ipv4.octets(), to.ipv4.octets()].concat());
        let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        header[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
        bytes.extend([8, 0]);
        bytes.extend(header);
    } else {
        let [high, low] = length.to_be_bytes();
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, high, low, protocol, 64]);
        bytes.extend([from.ipv6.octets(), to.ipv6.octets()].concat());
    }
    bytes.extend(segment);
    bytes.resize(bytes.len().max(60), 0);
    Frame { bytes, marker }
}

/// A packet of green's, and whether it passes: sender's and receiver's host, version of IP, protocol, source and destination port.
type Row = (usize, usize, u8, u8, (u16, u16), bool);

/// Sends all of them, in green and in orange, where everything passes.
fn check(network: &Network, rows: &[Row]) -> Result<()> {
    let mut sent = Vec::new();
    for row @ (from, to, version, protocol, ports, passes) in rows {
        for tenant in ["green", "orange"] {
            let at = |host: usize| network.lab.container(host, &format!("{tenant}-1"));
            let (from, to) = (at(*from)?, at(*to)?);
            let frame = packet(&from, &to, *version, *protocol, *ports);
            sent.push((from, to, frame, *passes || tenant == "orange", format!("{tenant}, {row:?}")));
        }
    }
    let seen = network.watch(|| sent.iter().try_for_each(|(from, _, frame, ..)| from.send(frame)))?;
    for (_, to, frame, passes, what) in &sent {
        seen.expect(frame, &[to][..usize::from(*passes)], what)?;
    }
    Ok(())
}

/// Can a connection be made to this port?
fn connects(from: &Container, to: &Container, address: IpAddr, port: u16) -> Result<bool> {
    let _listener = to.netns.run(|| TcpListener::bind(SocketAddr::new(address, port)).context("listening failed"))?;
    from.netns.run(|| Ok(TcpStream::connect_timeout(&SocketAddr::new(address, port), MS(1000)).is_ok()))
}

/// Can connections be made to this port of h3 from h1, over both versions of IP?
fn expect_connections(network: &Network, tenant: &str, port: u16, wanted: bool) -> Result<()> {
    let at = |host: usize| network.lab.container(host, &format!("{tenant}-1"));
    let (from, to) = (at(1)?, at(3)?);
    for address in [IpAddr::from(to.ipv4), IpAddr::from(to.ipv6)] {
        let got = connects(&from, &to, address, port)?;
        ensure!(got == wanted, "{tenant}'s connection to port {port} of {address}: {got} instead of {wanted}");
    }
    Ok(())
}

fn met(spec: &Spec, policy: &str) -> Result<Network> {
    let network = Network::with_policy(spec, policy)?;
    network.meet("green")?;
    network.meet("orange")?;
    Ok(network)
}

fn verdicts(spec: &Spec) -> Result<()> {
    // A port of one protocol; all else flows.
    let network = met(spec, &policy(&rule("no-telnet", 0, r#"protocol = "tcp", destination_port = 23"#, "drop")))?;
    network.meet("green")?;
    network.check_delivery()?;
    let mut rows = Vec::new();
    for version in [4, 6] {
        rows.extend([
            (1, 3, version, TCP, (40_000, 23), false),
            (3, 1, version, TCP, (23, 23), false),
            (1, 3, version, TCP, (23, 40_000), true),
            (1, 3, version, TCP, (40_000, 22), true),
            (1, 3, version, TCP, (40_000, 24), true),
            (1, 3, version, UDP, (40_000, 23), true),
        ]);
    }
    check(&network, &rows)?;
    expect_connections(&network, "green", 23, false)?;
    expect_connections(&network, "green", 24, true)?;
    expect_connections(&network, "orange", 23, true)?;

    // The higher priority decides; among equals, who comes first.
    network.apply(&policy(
        &[
            rule("no-tcp", 10, r#"protocol = "tcp""#, "drop"),
            rule("web", 20, r#"protocol = "tcp", destination_port = [80, 443]"#, "allow"),
            rule("names", 0, r#"protocol = "udp", destination_port = 53"#, "allow"),
            rule("no-udp", 0, r#"protocol = "udp""#, "drop"),
        ]
        .concat(),
    ))?;
    let mut rows = Vec::new();
    for version in [4, 6] {
        rows.extend([
            (1, 3, version, TCP, (40_000, 80), true),
            (1, 3, version, TCP, (40_000, 443), true),
            (1, 3, version, TCP, (80, 40_000), false),
            (1, 3, version, UDP, (40_000, 53), true),
            (1, 3, version, UDP, (40_000, 80), false),
        ]);
    }
    check(&network, &rows)?;
    network.check_delivery()?;

    // Prefixes and ranges of ports.
    network.apply(&policy(
        &[
            rule("v4", 0, r#"source = "10.0.0.2/31", destination = ["10.0.0.1", "10.0.0.2"]"#, "drop"),
            rule("v6", 0, r#"protocol = "udp", destination = "fd00::2/127""#, "drop"),
            rule(
                "ranges",
                0,
                r#"protocol = "tcp", source_port = [7, "2000-2001"], destination_port = "1000-1005""#,
                "drop",
            ),
        ]
        .concat(),
    ))?;
    let mut rows = vec![
        (2, 1, 4, TCP, (1, 1), false),
        (3, 1, 4, UDP, (1, 1), false),
        (3, 2, 4, TCP, (1, 1), false),
        (2, 3, 4, TCP, (1, 1), true),
        (1, 2, 4, TCP, (1, 1), true),
        (2, 1, 6, TCP, (1, 1), true),
        (1, 2, 6, UDP, (1, 1), false),
        (1, 3, 6, UDP, (1, 1), false),
        (2, 1, 6, UDP, (1, 1), true),
        (1, 2, 6, TCP, (1, 1), true),
        (1, 2, 4, UDP, (1, 1), true),
    ];
    for version in [4, 6] {
        let inside = |ports| (1, 3, version, TCP, ports, false);
        let outside = |ports| (1, 3, version, TCP, ports, true);
        rows.extend((1000..=1005).map(|port| inside((2000, port))));
        rows.extend([(7, 1000), (2001, 1005)].map(inside));
        rows.extend([(2000, 999), (2000, 1006), (1999, 1000), (2002, 1000), (6, 1000), (8, 1000)].map(outside));
        rows.push((1, 3, version, UDP, (2000, 1000), version == 4));
    }
    check(&network, &rows)?;

    // Without rules all passes again.
    network.apply(&policy(""))?;
    rows.iter_mut().for_each(|row| row.5 = true);
    check(&network, &rows)?;
    network.check_delivery()
}

#[test]
fn rules_decide_on_shared_bridges() -> Result<()> {
    verdicts(&spec(Layout::Shared))
}

#[test]
fn rules_decide_with_a_bridge_per_tenant() -> Result<()> {
    verdicts(&spec(Layout::PerTenant))
}

#[test]
fn rules_decide_on_shared_bridges_over_plain_links() -> Result<()> {
    verdicts(&Spec { carrier: Carrier::Veth, ..spec(Layout::Shared) })
}

/// A port's name stands for the addresses that are pinned to it.
fn names(layout: Layout) -> Result<()> {
    let spec = spec(layout);
    let mut ports = String::new();
    for (host, name) in [(1, "web"), (2, "admin"), (3, "database")] {
        let bridges = spec.bridges(host);
        let bridge = bridges.iter().find(|it| spec.bridge_of("green").is_ok_and(|name| it.name == name));
        let bridge = &bridge.context("green has a bridge")?.description;
        let mac = Mac::numbered(u8::try_from(host)?);
        // A port with IP addresses may send nothing but IP; this one may.
        let ip = if name == "admin" { String::new() } else { format!(", ip = [\"10.0.0.{host}\", \"fd00::{host}\"]") };
        ports +=
            &format!("  {{ bridge = \"{bridge}\", port = \"green-1\", name = \"{name}\", mac = \"{mac}\"{ip} }},\n");
    }
    let network = met(&spec, &green_and_orange(&ports, ""))?;
    let rules = [
        rule("queries", 10, r#"protocol = "tcp", source = "web", destination = "database""#, "allow"),
        rule("closed", 0, r#"protocol = "tcp", destination = "database""#, "drop"),
        rule("apart", 0, r#"source = "admin", destination = "web""#, "drop"),
    ];
    network.apply(&green_and_orange(&ports, &rules.concat()))?;
    let mut rows = Vec::new();
    for version in [4, 6] {
        rows.extend([
            (1, 3, version, TCP, (1, 1), true),
            (2, 3, version, TCP, (1, 1), false),
            (2, 3, version, UDP, (1, 1), true),
            (3, 2, version, TCP, (1, 1), true),
            (2, 1, version, UDP, (1, 1), false),
            (1, 2, version, UDP, (1, 1), true),
        ]);
    }
    check(&network, &rows)?;
    // Without a protocol a name stands for the MAC address, whatever the frame carries.
    let at = |host: usize| network.lab.container(host, "green-1");
    let (web, admin, database) = (at(1)?, at(2)?, at(3)?);
    let pairs = [(&admin, &web, false), (&admin, &database, true)];
    let frames = pairs.map(|(from, to, _)| Frame::new(from.mac, to.mac));
    let seen = network.watch(|| pairs.iter().zip(&frames).try_for_each(|((from, ..), frame)| from.send(frame)))?;
    for ((from, to, passes), frame) in pairs.iter().zip(&frames) {
        let what = format!("h{} to h{}", from.host, to.host);
        seen.expect(frame, &[*to][..usize::from(*passes)], &what)?;
    }
    Ok(())
}

#[test]
fn rules_name_ports_on_shared_bridges() -> Result<()> {
    names(Layout::Shared)
}

#[test]
fn rules_name_ports_with_a_bridge_per_tenant() -> Result<()> {
    names(Layout::PerTenant)
}

/// Where nothing passes unless a rule says so, stations still find each other: nobody has met anybody before.
#[test]
fn what_no_rule_allows_is_dropped_if_the_policy_says_so() -> Result<()> {
    let rules = rule("ping", 0, r#"protocol = "icmp""#, "allow");
    let network = met(&spec(Layout::Shared), &policy(&format!("default = \"drop\"\n{rules}")))?;
    let all = [4, 6].map(|version| [TCP, UDP].map(|protocol| (1, 3, version, protocol, (40_000, 80), false)));
    check(&network, &all.concat())?;
    expect_connections(&network, "green", 80, false)?;
    expect_connections(&network, "orange", 80, true)?;
    let (one, three) = (network.lab.container(1, "green-1")?, network.lab.container(3, "green-1")?);
    for frame in [Frame::new(one.mac, three.mac), Frame::broadcast(one.mac), Frame::unknown_unicast(one.mac)] {
        network.watch(|| one.send(&frame))?.expect(&frame, &[], "neither ARP nor IP")?;
    }
    // No rule speaks of ARP, nor now of neighbour discovery; neighbours are asked for anew.
    let ssh = rule("ssh", 0, r#"protocol = "tcp", destination_port = 22"#, "allow")
        + &rule("answers", 0, r#"protocol = "tcp", source_port = 22"#, "allow");
    network.apply(&policy(&format!("default = \"drop\"\n{ssh}")))?;
    for container in network.lab.tenant("green") {
        container.netns.command("ip", &["neigh", "flush", "dev", "eth0"])?;
    }
    expect_connections(&network, "green", 22, true)?;
    expect_connections(&network, "green", 80, false)?;
    for address in [IpAddr::from(three.ipv4), IpAddr::from(three.ipv6)] {
        ensure!(!network.lab.ping_within(&one, address, MS(500))?, "no rule allows a ping of {address} any more");
    }
    Ok(())
}

/// Traffic that a rule has nothing to do with notices neither its coming nor its going.
#[test]
fn rules_come_and_go_without_loss() -> Result<()> {
    let network = met(&spec(Layout::Shared), &policy(""))?;
    network.lab.pin_neighbours()?;
    let mut pings = Vec::new();
    for tenant in ["green", "orange"] {
        let at = |host: usize| network.lab.container(host, &format!("{tenant}-1"));
        let (one, three) = (at(1)?, at(3)?);
        for address in [IpAddr::from(three.ipv4), IpAddr::from(three.ipv6)] {
            pings.push((format!("{tenant} {address}"), ContinuousPing::start(&one, address)?));
        }
    }
    let telnet = rule("no-telnet", 0, r#"protocol = "tcp", destination_port = 23"#, "drop");
    for _ in 0..5 {
        for (rules, passes) in [(telnet.as_str(), false), ("", true)] {
            network.apply(&policy(rules))?;
            check(&network, &[4, 6].map(|version| (1, 3, version, TCP, (40_000, 23), passes)))?;
        }
    }
    for (what, ping) in pings {
        let report = ping.stop()?;
        ensure!(report.sent > 500 && report.received == report.sent && report.duplicates == 0, "{what}: {report:?}");
    }
    Ok(())
}

/// What the rules before and those after a change drop never passes, and what both let pass always does.
#[test]
fn no_change_of_rules_opens_a_gap() -> Result<()> {
    let sets = [
        rule("no-telnet", 0, r#"protocol = "tcp", destination_port = 23"#, "drop"),
        rule("no-tcp", 0, r#"protocol = "tcp""#, "drop")
            + &rule("web", 10, r#"protocol = "tcp", destination_port = 80"#, "allow"),
        "default = \"drop\"\n".to_owned()
            + &rule("ping", 0, r#"protocol = "icmp""#, "allow")
            + &rule("names", 0, r#"protocol = "udp", destination_port = 53"#, "allow"),
        rule("v4", 0, r#"protocol = "tcp", destination = "10.0.0.0/24""#, "drop")
            + &rule("v6", 0, r#"protocol = "tcp", destination = "fd00::/64", destination_port = "20-30""#, "drop"),
    ];
    let network = met(&spec(Layout::Shared), &policy(&sets[3]))?;
    network.lab.pin_neighbours()?;
    let (one, three) = (network.lab.container(1, "green-1")?, network.lab.container(3, "green-1")?);
    let captures = network.lab.containers().iter().map(Capture::start).collect::<Result<Vec<_>>>()?;
    let ping = ContinuousPing::start(&one, three.ipv4)?;
    let stop = AtomicBool::new(false);
    let (dropped, passed) = scope(|scope| {
        let sending = scope.spawn(|| -> Result<_> {
            let sender = Sender::new(&one)?;
            let (mut dropped, mut passed) = (Vec::new(), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                for version in [4, 6] {
                    for (protocol, port, frames) in [(TCP, 23, &mut dropped), (UDP, 53, &mut passed)] {
                        let frame = packet(&one, &three, version, protocol, (40_000, port));
                        sender.send(&frame)?;
                        frames.push(frame);
                    }
                }
                sleep(MS(1));
            }
            Ok((dropped, passed))
        });
        let changed = (0..5).flat_map(|_| &sets).try_for_each(|rules| network.apply(&policy(rules)));
        stop.store(true, Ordering::Relaxed);
        let sent = sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        changed.and(sent)
    })?;
    let report = ping.stop()?;
    sleep(MS(300));
    let captured = captures.into_iter().map(Capture::stop).collect::<Result<Vec<_>>>()?;
    let copies = |frame: &Frame| captured.iter().map(|captured| captured.copies(frame)).sum::<u64>();
    let leaked = dropped.iter().filter(|frame| copies(frame) > 0).count();
    ensure!(leaked == 0, "{leaked} of {} packets got through that all rules drop", dropped.len());
    let wrong = passed.iter().filter(|frame| copies(frame) != 1).count();
    ensure!(wrong == 0 && passed.len() > 1000, "{wrong} of {} that all rules allow came never or twice", passed.len());
    ensure!(report.received == report.sent && report.duplicates == 0, "pings: {report:?}");
    Ok(())
}
