//! Goal: whatever a container, a stranger on the OpenFlow port or a policy file does, it gets a clear answer, changes
//! nothing and costs nobody else. On real Open vSwitch, with real frames.

mod network;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lab::{BROADCAST, Capture, Carrier, ContinuousPing, Direction, Frame, Layout, Mac, Sender, Spec};

use network::{MS, Network, POLICY, spec};

#[test]
fn a_port_that_no_policy_lists_reaches_nobody() -> Result<()> {
    let network = Network::start(&spec(Layout::Shared))?;
    let stray = network.lab.add_container(1, "br0", "stray1", 77)?;
    network.meet("green")?;
    let green = network.lab.container(2, "green-1")?;
    let from_stray = [Frame::broadcast(stray.mac), Frame::new(stray.mac, green.mac), Frame::multicast(stray.mac)];
    let to_stray = [Frame::new(green.mac, stray.mac), Frame::broadcast(green.mac)];
    let seen = network.watch(|| {
        from_stray.iter().try_for_each(|frame| stray.send(frame))?;
        to_stray.iter().try_for_each(|frame| green.send(frame))
    })?;
    for frame in &from_stray {
        seen.expect(frame, &[], "from an unlisted port")?;
    }
    let (one, three) = (network.lab.container(1, "green-1")?, network.lab.container(3, "green-1")?);
    for frame in &to_stray {
        seen.expect(frame, &[&one, &three], "green's flood, beside an unlisted port")?;
    }
    Ok(())
}

/// Green's port on h1 is pinned to its addresses.
fn pinned() -> String {
    POLICY.replacen(
        "ports = [",
        "ports = [\n  { bridge = \"h1\", port = \"green-1\", mac = \"02:00:00:00:00:01\", ip = [\"10.0.0.1\", \"fd00::1\"] },",
        1,
    )
}

#[test]
fn from_a_pinned_port_nothing_else_can_be_sent_and_nobody_else_can_take_its_address() -> Result<()> {
    let network = Network::with_policy(&spec(Layout::Shared), &pinned())?;
    network.meet("green")?;
    let [one, two, three] = [1, 2, 3].map(|host| network.lab.container(host, "green-1"));
    let (one, two, three) = (one?, two?, three?);
    let hosts = network.controller.get("/v1/hosts")?;
    let is_one = |host: &&serde_json::Value| host["tenant"] == "green" && host["mac"] == one.mac.to_string();
    let known = hosts.as_array().into_iter().flatten().find(is_one).context("a pinned host is known")?;
    ensure!(known["pinned"] == true && known["bridge"] == "h1", "{known}");

    // An ARP answer (RFC 826) as `sender` claims it: this address is at that MAC address.
    let arp = |from: Mac, sender: Mac, ip: [u8; 4]| {
        let mut frame = Frame::new(from, BROADCAST);
        let marker = frame.marker.bytes();
        frame.bytes.truncate(12);
        frame.bytes.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2]);
        frame.bytes.extend([&sender.0[..], &ip, &BROADCAST.0, &ip, &marker].concat());
        frame.bytes.resize(60, 0);
        frame
    };
    let honest = arp(one.mac, one.mac, [10, 0, 0, 1]);
    let forged = [
        Frame::new(Mac([2, 0, 0, 0, 9, 9]), two.mac),
        Frame::new(one.mac, two.mac),
        arp(one.mac, one.mac, [10, 0, 0, 2]),
        arp(one.mac, two.mac, [10, 0, 0, 1]),
        arp(two.mac, two.mac, [10, 0, 0, 2]),
    ];
    let stolen = [Frame::broadcast(one.mac), Frame::new(one.mac, three.mac), arp(one.mac, one.mac, [10, 0, 0, 1])];
    let seen = network.watch(|| {
        one.send(&honest)?;
        forged.iter().try_for_each(|frame| one.send(frame))?;
        stolen.iter().try_for_each(|frame| two.send(frame))
    })?;
    seen.expect(&honest, &[&two, &three], "its own address")?;
    for frame in &forged {
        seen.expect(frame, &[], "forged at the pinned port")?;
    }
    for frame in &stolen {
        seen.expect(frame, &[], "the pinned address from another port")?;
    }
    network.meet("green")
}

/// Probes from a container, made up or a real one played back, go nowhere, make no link, and are reported. So goes LLDP.
#[test]
fn probes_from_a_container_confuse_nobody() -> Result<()> {
    let network = Network::start(&Spec { carrier: Carrier::Veth, ..spec(Layout::Shared) })?;
    network.meet("green")?;
    let evil = network.lab.container(1, "green-1")?;
    let end = network.lab.link(1, 2, "green")?.end(1)?.clone();
    let capture = Capture::at_port(network.lab.host(1)?, &end.port, Direction::Received)?;
    let links = |network: &Network| -> Result<Vec<String>> {
        let links = network.controller.get("/v1/links")?;
        Ok(links.as_array().into_iter().flatten().map(|it| format!("{} {} {}", it["a"], it["b"], it["up"])).collect())
    };
    let before = links(&network)?;
    let sender = Sender::new(&evil)?;
    let mine = [Frame::lldp(evil.mac), Frame::probe(evil.mac)];
    let seen = network.watch(|| mine.iter().try_for_each(|frame| sender.send(frame)))?;
    mine.iter().try_for_each(|frame| seen.expect(frame, &[], "a probe from a container"))?;
    network.wait_problem("sends probes of links that aren't ours")?;
    let is_probe = |bytes: &[u8]| bytes.get(..2) == Some(&[0x03, 0xe5]) && bytes.get(12..14) == Some(&[0x88, 0xb5]);
    lab::wait_until("a probe on the link", MS(3000), || Ok(capture.so_far().count(is_probe) > 0))?;
    let others = [network.lab.container(2, "green-1")?, network.lab.container(3, "green-1")?];
    let ping = ContinuousPing::start(&others[0], others[1].ipv4)?;
    for _ in 0..30 {
        let captured = capture.so_far();
        let probe = captured.frames.iter().rev().find(|(_, bytes)| is_probe(bytes)).context("there was one")?;
        sender.send_bytes(&probe.1)?;
        sleep(MS(20));
    }
    // Whoever passes probes on loses its own port, and nobody else anything.
    network.wait_problem("probes show that it leads to another port of this fabric: nobody gets it")?;
    ensure!(links(&network)? == before && before.len() == 3, "links are as before: {before:?}");
    let report = ping.stop()?;
    ensure!(report.received == report.sent, "{report:?}");
    Ok(())
}

/// Thousands of made-up sources at one port: its hosts are bounded, others are learnt as ever, links stay up.
#[test]
fn a_flood_of_sources_at_one_port_hinders_nobody() -> Result<()> {
    let policy = POLICY.replacen("max_hosts = 1024", "max_hosts = 20", 1);
    let network = Network::with_policy(&spec(Layout::Shared), &policy)?;
    network.meet("green")?;
    network.meet("orange")?;
    let sender = Sender::new(&network.lab.container(1, "green-1")?)?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| -> Result<u32> {
            let mut sent = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) && sent < 30_000 {
                let [_, _, a, b] = sent_octets(sent);
                sender.send(&Frame::new(Mac([2, 0, 1, 0, a, b]), Mac([2, 0, 0, 0, 0, 2])))?;
                sent += 1;
                if sent % 20 == 0 {
                    sleep(MS(4));
                }
            }
            Ok(sent)
        });
        let checked = (|| {
            sleep(MS(500));
            let late = network.lab.add_container(3, "br0", "green-9", 99)?;
            ensure!(network.lab.ping_within(&late, network.lab.container(2, "green-1")?.ipv4, MS(1500))?);
            network.controller.wait_until("the late host", MS(1500), |controller| {
                let hosts = controller.get("/v1/hosts")?;
                Ok(hosts.as_array().into_iter().flatten().any(|host| host["port"] == "green-9"))
            })?;
            network.wait_problem("max_hosts")?;
            sleep(MS(1000));
            let status = network.controller.get("/v1/status")?;
            ensure!(status["links"]["up"] == 3, "links stay up: {status}");
            let hosts = network.controller.get("/v1/hosts")?;
            let there = |host: &&serde_json::Value| host["bridge"] == "h1" && host["port"] == "green-1";
            let count = hosts.as_array().into_iter().flatten().filter(there).count();
            ensure!(count == 20, "{count} hosts at the flooding port");
            Ok(())
        })();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let sent = flood.join().map_err(|_| anyhow::anyhow!("the flooding thread panicked"))??;
        checked?;
        ensure!(sent > 1000, "only {sent} sources were sent");
        Ok(())
    })?;
    network.meet("orange")
}

fn sent_octets(sent: u32) -> [u8; 4] {
    sent.to_be_bytes()
}

/// Another tenant's tag, or a second one, takes a frame nowhere but through its own tenant.
#[test]
fn a_forged_tag_stays_in_its_tenant() -> Result<()> {
    for layout in [Layout::Shared, Layout::PerTenant] {
        let network = Network::start(&Spec { carrier: Carrier::Veth, ..spec(layout) })?;
        network.meet("green")?;
        let evil = network.lab.container(1, "green-1")?;
        let own: Vec<_> = network.lab.tenant("green").into_iter().filter(|to| to.netns != evil.netns).collect();
        // The ids that tenants have on plain links are 1 to 2046, and from 2049 on for floods.
        let tagged = |ids: &[u16]| -> Vec<Frame> {
            ids.iter()
                .flat_map(|id| [vec![(0x8100, *id)], vec![(0x88a8, *id), (0x8100, 200)]])
                .map(|tags| Frame::tagged(evil.mac, BROADCAST, &tags))
                .collect()
        };
        let frames = tagged(&[1, 2, 100, 200, 2048 + 100, 2048 + 200, 4093]);
        // These are marks of floods on tunnels of fixed key.
        let refused = tagged(&[4094, 4095]);
        let seen = network.watch(|| frames.iter().chain(&refused).try_for_each(|frame| evil.send(frame)))?;
        for frame in &frames {
            seen.expect(frame, &own.iter().collect::<Vec<_>>(), "a tagged broadcast")?;
        }
        for frame in &refused {
            seen.expect(frame, &[], "a broadcast with a tag that is a mark")?;
        }
    }
    Ok(())
}

#[test]
fn rubbish_on_the_openflow_port_is_closed_and_disturbs_nobody() -> Result<()> {
    let network = Network::start(&spec(Layout::Shared))?;
    network.meet("green")?;
    let ping = ContinuousPing::start(&network.lab.container(1, "green-1")?, network.lab.container(2, "green-1")?.ipv4)?;
    let address = network.lab.controller_address();
    let rubbish: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0; 64],
        &[0xff; 64],
        &[4, 0, 0, 4, 0, 0, 0, 0],
        &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03],
        &[4, 14, 0, 8, 0, 0, 0, 1],
    ];
    let lines_before = network.controller.log().lines().count();
    for bytes in rubbish {
        network.lab.controller_netns().run(|| {
            let mut stream = TcpStream::connect(&address).context("connecting to the OpenFlow port")?;
            stream.set_read_timeout(Some(MS(2000)))?;
            stream.write_all(bytes)?;
            let mut answer = Vec::new();
            // A reset ends the connection as well as its orderly end does; only silence doesn't.
            match stream.read_to_end(&mut answer) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    anyhow::bail!("{bytes:02x?} leaves the connection open")
                }
                _ => Ok(()),
            }
        })?;
    }
    sleep(MS(200));
    let log = network.controller.log();
    let lines: Vec<_> = log.lines().skip(lines_before).collect();
    ensure!(lines.len() == rubbish.len(), "one line each: {lines:#?}");
    let report = ping.stop()?;
    ensure!(report.received == report.sent, "{report:?}");
    network.settle()
}

#[test]
fn a_bad_policy_changes_nothing_and_a_good_one_comes_into_force() -> Result<()> {
    let mut network = Network::start(&spec(Layout::Shared))?;
    network.meet("green")?;
    let (one, two) = (network.lab.container(1, "green-1")?, network.lab.container(2, "green-1")?);
    network.lab.pin_neighbours()?;
    // Open vSwitch itself may lose a packet while it makes a port.
    let stray = network.lab.add_container(1, "br0", "stray1", 77)?;
    sleep(MS(300));
    network.settle()?;
    let ping = ContinuousPing::start(&one, two.ipv4)?;
    let flows = network.lab.host(1)?.flows("br0")?;
    network.controller.write_policy(&POLICY.replace("key = 200", "key = 100"))?;
    network.wait_problem("last good policy")?;
    let log = network.controller.log();
    ensure!(log.contains("green") && log.contains("orange") && log.contains("policy.toml:"), "{log}");
    ensure!(network.lab.host(1)?.flows("br0")? == flows, "a bad policy changes nothing");

    // Orange gets the ports that nobody had; green isn't disturbed.
    network.controller.write_policy(
        &POLICY.replace("port = \"orange-*\" },", "port = \"orange-*\" },\n  { bridge = \"*\", port = \"stray*\" },"),
    )?;
    network.controller.wait_until("generation 2", MS(5000), |controller| {
        Ok(controller.get("/v1/status")?["policy"]["generation"] == 2)
    })?;
    network.settle()?;
    ensure!(network.lab.ping_within(&stray, network.lab.container(2, "orange-1")?.ipv4, MS(3000))?);

    // A signal does the same as a changed file.
    network.controller.write_policy(POLICY)?;
    network.controller.sighup()?;
    network.controller.wait_until("generation 3", MS(5000), |controller| {
        Ok(controller.get("/v1/status")?["policy"]["generation"] == 3)
    })?;
    network.settle()?;
    let frame = Frame::broadcast(stray.mac);
    let seen = network.watch(|| stray.send(&frame))?;
    seen.expect(&frame, &[], "from a port that is nobody's again")?;
    let report = ping.stop()?;
    ensure!(report.received == report.sent && report.duplicates == 0, "green: {report:?}");
    Ok(())
}

/// A container that floods doesn't fill the network with it, is named, and costs nobody anything.
#[test]
fn storms_end_at_the_port_that_sends_them() -> Result<()> {
    let limit = "key = 100\nflood_limit = { rate = \"500 packet/s\", burst = \"100 packet\" }";
    let network = Network::with_policy(&spec(Layout::Shared), &POLICY.replacen("key = 100", limit, 1))?;
    network.meet("green")?;
    let (one, two, three) = (
        network.lab.container(1, "green-1")?,
        network.lab.container(2, "green-1")?,
        network.lab.container(3, "green-1")?,
    );
    let ping = ContinuousPing::start(&two, three.ipv4)?;
    let capture = Capture::start(&two)?;
    let (storm, sender) = (Frame::broadcast(one.mac), Sender::new(&one)?);
    let start = Instant::now();
    // The meter is asked every few seconds.
    while start.elapsed() < MS(6000) {
        (0..20).try_for_each(|_| sender.send(&storm))?;
        sleep(MS(10));
    }
    let seconds = start.elapsed().as_secs_f64();
    network.wait_problem("h1/green-1 floods")?;
    let copies = capture.stop()?.copies(&storm) as f64;
    ensure!((copies / seconds) > 350.0 && (copies / seconds) < 600.0, "{copies} copies in {seconds:.1} s");
    let report = ping.stop()?;
    ensure!(report.received == report.sent, "others lost packets: {report:?}");
    ensure!(network.lab.ping(&one, two.ipv4)?, "it may still send to those it knows");
    Ok(())
}
