//! The lab itself, without a controller: its pings, captures and faults must be true before anything is proven with
//! them. Bridges here are learning switches on shapes without loops.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{
    Capture, Carrier, ContinuousPing, Direction, Frame, Lab, Layout, Mac, Shape, Spec, Switching, TenantSpec,
    wait_until,
};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// One tenant on learning switches: two tenants with the same addresses need a controller to keep them apart.
fn standalone(hosts: usize, carrier: Carrier) -> Spec {
    Spec {
        hosts,
        carrier,
        shape: Shape::Line,
        tenants: vec![TenantSpec::new("green", 100)],
        layout: Layout::PerTenant,
        switching: Switching::Standalone,
        ..Spec::default()
    }
}

/// Two hosts are joined by each carrier: all pairs answer over IPv4 and IPv6, packets of the full MTU get through,
/// and with bridges of their own two tenants with the same addresses don't meet.
fn carries(carrier: Carrier) -> Result<()> {
    let tenants = Spec::default().tenants;
    let lab = Lab::start(&Spec { tenants, ..standalone(2, carrier) })?;
    for tenant in ["green", "orange"] {
        let matrix = lab.ping_matrix(tenant, MS(3000))?;
        ensure!(matrix.is_full(), "{carrier:?}: {matrix}");
    }
    let green = lab.container(1, "green-1")?;
    // 28 bytes of headers; -M do forbids fragments.
    green.netns.command("ping", &["-c", "1", "-W", "2", "-M", "do", "-s", "1422", "10.0.0.2"])?;

    let own = Capture::start(&lab.container(2, "green-1")?)?;
    let foreign = Capture::start(&lab.container(2, "orange-1")?)?;
    let frame = Frame::broadcast(green.mac);
    green.send(&frame)?;
    own.wait_for(&frame, MS(2000)).with_context(|| format!("{carrier:?}"))?;
    let (own, foreign) = (own.stop()?, foreign.stop()?);
    ensure!(own.copies(&frame) == 1, "{carrier:?}: {} copies", own.copies(&frame));
    ensure!(foreign.copies(&frame) == 0, "{carrier:?}: the frame reached another tenant");
    Ok(())
}

#[test]
fn vxlan_carries() -> Result<()> {
    carries(Carrier::Vxlan)
}

#[test]
fn gre_carries() -> Result<()> {
    carries(Carrier::Gre)
}

#[test]
fn geneve_carries() -> Result<()> {
    carries(Carrier::Geneve)
}

#[test]
fn veth_carries() -> Result<()> {
    carries(Carrier::Veth)
}

/// A shared bridge with one tunnel per pair of hosts: flows written by hand set and match the tunnel key, and two
/// tenants with the same addresses don't meet.
fn shares(carrier: Carrier) -> Result<()> {
    let lab = Lab::start(&Spec { hosts: 2, carrier, connect: false, ..Spec::default() })?;
    for host in lab.hosts() {
        let tunnel = lab.link(1, 2, "green")?.end(host.number)?;
        ensure!(host.flows("br0")?.is_empty(), "a secure bridge has no flows at first");
        for (port, key) in [("green-1", 100), ("orange-1", 200)] {
            let out = format!("in_port={port},actions=set_field:{key}->tun_id,output:{}", tunnel.port);
            let back = format!("in_port={},tun_id={key},actions=output:{port}", tunnel.port);
            host.ofctl("add-flow", "br0", &[&out])?;
            host.ofctl("add-flow", "br0", &[&back])?;
        }
        ensure!(host.flows("br0")?.len() == 4);
    }
    for tenant in ["green", "orange"] {
        let matrix = lab.ping_matrix(tenant, MS(3000))?;
        ensure!(matrix.is_full(), "{carrier:?}: {matrix}");
    }
    let green = lab.container(1, "green-1")?;
    let (own, foreign) =
        (Capture::start(&lab.container(2, "green-1")?)?, Capture::start(&lab.container(2, "orange-1")?)?);
    let frame = Frame::broadcast(green.mac);
    green.send(&frame)?;
    own.wait_for(&frame, MS(2000))?;
    ensure!(own.stop()?.copies(&frame) == 1 && foreign.stop()?.copies(&frame) == 0, "{carrier:?}");
    Ok(())
}

#[test]
fn a_tunnel_is_shared_by_key() -> Result<()> {
    [Carrier::Vxlan, Carrier::Gre, Carrier::Geneve].into_iter().try_for_each(shares)
}

/// Frames pass a function in both directions untouched, and are seen there; rates are measured as sent.
#[test]
fn functions_and_rates() -> Result<()> {
    let lab = Lab::start(&Spec { hosts: 1, containers: 2, connect: false, ..Spec::default() })?;
    let (host, function) = (lab.host(1)?, lab.add_function(1, "br0", "fw1-in", "fw1-out")?);
    for (from, to) in [("green-1", "fw1-in"), ("fw1-out", "green-2"), ("green-2", "fw1-out"), ("fw1-in", "green-1")] {
        host.ofctl("add-flow", "br0", &[&format!("in_port={from},actions=output:{to}")])?;
    }
    let (one, two) = (lab.container(1, "green-1")?, lab.container(1, "green-2")?);
    ensure!(lab.ping(&one, two.ipv4)?, "nothing passes the function");

    let captures =
        (function.capture_ingress()?, function.capture_egress()?, Capture::start(&two)?, Capture::start(&one)?);
    let (there, back) = (Frame::tagged(one.mac, two.mac, &[(0x8100, 9)]), Frame::broadcast(two.mac));
    one.send(&there)?;
    two.send(&back)?;
    captures.2.wait_for(&there, MS(2000))?;
    captures.3.wait_for(&back, MS(2000))?;
    let (ingress, egress) = (captures.0.stop()?, captures.1.stop()?);
    ensure!(ingress.copies(&there) == 1 && ingress.copies(&back) == 0, "{:?}", ingress.markers);
    ensure!(egress.copies(&back) == 1 && egress.copies(&there) == 0, "{:?}", egress.markers);

    function.hang()?;
    ensure!(!lab.ping_within(&one, two.ipv4, MS(200))?, "a hanging function lets packets through");
    function.recover()?;
    ensure!(lab.ping(&one, two.ipv4)?, "the function doesn't recover");

    let got = lab.udp(&one, &two, 10, 1)?;
    ensure!((9.0..11.0).contains(&got.mbit) && got.lost_percent < 1.0, "{got:?}");
    ensure!(lab.tcp(&one, &two, 1)?.mbit > 10.0);
    lab.remove_function(&function)?;
    ensure!(!lab.ping_within(&one, two.ipv4, MS(200))?, "a removed function lets packets through");
    Ok(())
}

/// Whether a port of h1's bridge reports that its link is down.
fn link_down(lab: &Lab, port: &str) -> Result<bool> {
    let ports = lab.host(1)?.ofctl("dump-ports-desc", "green", &[])?;
    let (_, described) = ports.split_once(port).context("the link's port is gone")?;
    // The name's line, then the line of its configuration, then that of its state.
    Ok(described.lines().nth(2).context("the port's state is missing")?.contains("LINK_DOWN"))
}

/// A cut stops traffic between one pair of hosts and no other; the ports stay up; restoring brings it back. The
/// outage that a continuous ping reports is the one that was made.
fn cuts(carrier: Carrier) -> Result<()> {
    let lab = Lab::start(&standalone(3, carrier))?;
    lab.pin_neighbours()?;
    let [one, two, three] = &lab.tenant("green")[..] else { unreachable!("three hosts, one container each") };
    ensure!(lab.ping_matrix("green", MS(3000))?.is_full());

    let ping = ContinuousPing::start(one, two.ipv4)?;
    std::thread::sleep(MS(100));
    lab.cut(1, 2)?;
    ensure!(!lab.ping_within(one, two.ipv4, MS(300))?, "{carrier:?}: the cut lets packets through");
    ensure!(lab.ping(two, three.ipv4)?, "{carrier:?}: the cut hit another pair too");
    let port = &lab.link(1, 2, "green")?.a.port;
    ensure!(!link_down(&lab, port)?, "{carrier:?}: the cut isn't silent, {port} is down");
    lab.restore(1, 2)?;
    ensure!(lab.ping(one, two.ipv4)?, "{carrier:?}: nothing passes after restoring");
    std::thread::sleep(MS(100));

    let report = ping.stop()?;
    ensure!(report.outages.len() == 1, "{carrier:?}: one outage was made: {report:?}");
    ensure!((MS(250)..MS(2000)).contains(&report.longest_outage), "{carrier:?}: {report:?}");
    ensure!(report.duplicates == 0 && report.sent > 40 && report.received > 20, "{carrier:?}: {report:?}");

    if carrier == Carrier::Veth {
        lab.set_interface(2, &lab.link(1, 2, "green")?.b.port, false)?;
        wait_until("the loss of carrier at the other end", MS(2000), || link_down(&lab, port))?;
        lab.set_interface(2, &lab.link(1, 2, "green")?.b.port, true)?;
        wait_until("the carrier at the other end", MS(2000), || Ok(!link_down(&lab, port)?))?;
    }
    lab.cut_host(2)?;
    ensure!(!lab.ping_within(two, three.ipv4, MS(200))?, "{carrier:?}: a host that is cut off still reaches others");
    lab.restore_host(2)?;
    ensure!(lab.ping(two, three.ipv4)?, "{carrier:?}: nothing passes after a host was restored");
    Ok(())
}

#[test]
fn a_cut_tunnel_is_silent() -> Result<()> {
    cuts(Carrier::Vxlan)
}

#[test]
fn a_cut_wire_is_silent() -> Result<()> {
    cuts(Carrier::Veth)
}

/// A capture counts exactly the copies that were sent, keeps tags where it says so, and agrees with the kernel's and
/// the switch's own counters.
#[test]
fn captures_count_exactly() -> Result<()> {
    let lab = Lab::start(&standalone(2, Carrier::Vxlan))?;
    let [one, two] = &lab.tenant("green")[..] else { unreachable!("two hosts, one container each") };
    let (there, at_port) = (Capture::start(two)?, Capture::at_port(lab.host(2)?, "green-1", Direction::Sent)?);
    let before = lab.host(2)?.counters("green", "green-1")?;

    let sender = lab::Sender::new(one)?;
    let many = Frame::broadcast(one.mac);
    for _ in 0..100 {
        sender.send(&many)?;
    }
    let others = [
        Frame::multicast(one.mac),
        Frame::unknown_unicast(one.mac),
        Frame::tagged(one.mac, two.mac, &[(0x8100, 7)]),
        Frame::new(one.mac, two.mac),
    ];
    others.iter().try_for_each(|frame| sender.send(frame))?;
    let lldp = Frame::lldp(one.mac);
    sender.send(&lldp)?;
    let last = Frame::broadcast(one.mac);
    sender.send(&last)?;
    there.wait_for(&last, MS(2000))?;

    let (there, at_port) = (there.stop()?, at_port.stop()?);
    for captured in [&there, &at_port] {
        ensure!(captured.copies(&many) == 100, "{} of 100 copies", captured.copies(&many));
        ensure!(others.iter().all(|frame| captured.copies(frame) == 1), "{:?}", captured.markers);
        ensure!(captured.copies(&lldp) == 0, "a learning switch forwards LLDP?");
    }
    ensure!(there.kernel_total == there.total, "{} of {} frames seen", there.total, there.kernel_total);
    ensure!(at_port.count(|bytes| bytes[12..16] == [0x81, 0x00, 0x00, 0x07]) == 1, "the tag is lost");
    let after = lab.host(2)?.counters("green", "green-1")?;
    // A container's kernel may report its multicast groups meanwhile.
    ensure!((105..110).contains(&(after.sent - before.sent)), "{before:?} {after:?}");
    Ok(())
}

/// Containers come, move and go; a capture goes along.
#[test]
fn containers_move() -> Result<()> {
    let lab = Lab::start(&standalone(2, Carrier::Geneve))?;
    let [one, two] = &lab.tenant("green")[..] else { unreachable!("two hosts, one container each") };
    let stray = lab.add_container(1, "green", "stray1", 77)?;
    ensure!(stray.tenant.is_none() && stray.mac == Mac::numbered(77));
    ensure!(lab.ping(&stray, two.ipv4)?);

    let capture = Capture::start(&stray)?;
    let moved = lab.move_container(&stray, 2)?;
    ensure!(moved.host == 2 && moved.ipv4 == stray.ipv4 && moved.mac == stray.mac);
    // If the first question for the neighbour is lost while the port comes up, the next one follows a second later.
    ensure!(lab.ping_within(&moved, one.ipv4, MS(5000))?);
    let frame = Frame::broadcast(one.mac);
    one.send(&frame)?;
    capture.wait_for(&frame, MS(2000))?;
    ensure!(capture.stop()?.copies(&frame) == 1);

    lab.remove_container(&moved)?;
    ensure!(!lab.ping_within(one, stray.ipv4, MS(200))?);
    Ok(())
}

/// A tunnel that is deleted and made again, a switch that is killed and started again, a host likewise: traffic stops
/// and comes back.
#[test]
fn what_is_killed_comes_back() -> Result<()> {
    let lab = Lab::start(&standalone(2, Carrier::Vxlan))?;
    let [one, two] = &lab.tenant("green")[..] else { unreachable!("two hosts, one container each") };
    let link = lab.link(1, 2, "green")?;
    ensure!(lab.ping(one, two.ipv4)?);

    lab.delete_port(&link.a)?;
    ensure!(!lab.ping_within(one, two.ipv4, MS(200))?, "no tunnel, no traffic");
    lab.recreate_port(&link.a)?;
    ensure!(lab.ping(one, two.ipv4)?, "the tunnel is back");

    lab.kill_switch(2)?;
    ensure!(!lab.ping_within(one, two.ipv4, MS(200))?, "no switch, no traffic");
    lab.start_switch(2)?;
    ensure!(lab.ping_within(one, two.ipv4, MS(5000))?, "the switch is back");

    lab.kill_host(2)?;
    ensure!(!lab.host(2)?.alive() && !lab.ping_within(one, two.ipv4, MS(200))?, "no host, no traffic");
    lab.start_host(2)?;
    ensure!(lab.ping_within(one, two.ipv4, MS(5000))?, "the host is back");

    lab.set_interface(2, "green-1", false)?;
    ensure!(!lab.ping_within(one, two.ipv4, MS(200))?, "the container's cable is down");
    lab.set_interface(2, "green-1", true)?;
    ensure!(lab.ping_within(one, two.ipv4, MS(5000))?, "the container's cable is up");
    Ok(())
}

/// Bridges connect when told to, cutting the control network breaks that silently, and a relay leads into the lab.
/// A listener stands in for the controller.
#[test]
fn bridges_call_the_controller() -> Result<()> {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    let lab = Lab::start(&Spec { hosts: 2, layout: Layout::Mixed, connect: false, ..Spec::default() })?;
    let (address, netns) = (lab.controller_address(), lab.controller_netns());
    let listener = netns.run(|| TcpListener::bind(&address).context("listening"))?;
    let bridges = lab.bridges();
    let names: Vec<_> = bridges.iter().map(|bridge| bridge.description.as_str()).collect();
    ensure!(names == ["green-h1", "h1", "green-h2", "h2"], "{names:?}");
    for bridge in &bridges {
        lab.connect(bridge)?;
        let (mut channel, _) = listener.accept()?;
        channel.set_read_timeout(Some(MS(5000)))?;
        let mut hello = [0; 2];
        channel.read_exact(&mut hello)?;
        ensure!(hello == [4, 0], "an OpenFlow 1.3 hello, not {hello:?}");
    }
    // Each was hung up on and calls again, unless its way is cut.
    lab.cut_control(2)?;
    listener.set_nonblocking(true)?;
    while listener.accept().is_ok() {}
    let mut callers = Vec::new();
    let start = std::time::Instant::now();
    while start.elapsed() < MS(1500) {
        if let Ok((_, from)) = listener.accept() {
            callers.push(from.ip().to_string());
        }
        std::thread::sleep(MS(5));
    }
    ensure!(callers.contains(&"172.16.0.1".to_owned()) && !callers.contains(&"172.16.0.2".to_owned()), "{callers:?}");
    lab.restore_control(2)?;
    wait_until("a call from h2", MS(10_000), || {
        Ok(listener.accept().is_ok_and(|(_, from)| from.ip().to_string() == "172.16.0.2"))
    })?;

    let echo = netns.run(|| TcpListener::bind("127.0.0.1:7").context("listening"))?;
    let relay = lab::Relay::start(0, netns, 7)?;
    let mut outside = TcpStream::connect(relay.address())?;
    let (mut inside, _) = echo.accept()?;
    outside.write_all(b"hello")?;
    let mut heard = [0; 5];
    inside.read_exact(&mut heard)?;
    ensure!(&heard == b"hello");
    Ok(())
}

/// A shape with a loop and RSTP: the lab comes up without a storm, and all reach each other once the tree stands.
#[test]
fn a_rival_tree_comes_up() -> Result<()> {
    let lab = Lab::start(&Spec {
        switching: Switching::Rstp,
        shape: Shape::Ring,
        bfd_ms: Some(100),
        ..standalone(3, Carrier::Vxlan)
    })?;
    wait_until("RSTP's tree", MS(15_000), || Ok(lab.ping_matrix("green", MS(500))?.is_full()))?;
    let [one, two, _] = &lab.tenant("green")[..] else { unreachable!("three hosts, one container each") };
    let (capture, frame) = (Capture::start(two)?, Frame::broadcast(one.mac));
    one.send(&frame)?;
    capture.wait_for(&frame, MS(2000))?;
    std::thread::sleep(MS(50));
    ensure!(capture.stop()?.copies(&frame) == 1);
    Ok(())
}

/// A lab that goes leaves nothing: no namespace, no process, no folder; nor does one whose test panics.
#[test]
fn nothing_stays() -> Result<()> {
    let left = |id: &str| -> Result<bool> {
        let named = |dir: &str| -> Result<bool> {
            Ok(std::fs::read_dir(dir)?.flatten().any(|e| e.file_name().to_string_lossy().starts_with(id)))
        };
        Ok(named("/run/netns")? || named("/tmp")?)
    };
    let lab = Lab::start(&standalone(1, Carrier::Vxlan))?;
    let (id, pid) = (format!("{}-", lab.id), lab.host(1)?.switch_pid().context("no switch runs")?);
    ensure!(left(&id)? && std::path::Path::new(&format!("/proc/{pid}")).exists());
    let panic = std::panic::catch_unwind(move || {
        let _lab = lab;
        std::panic::resume_unwind(Box::new("a failing test"));
    });
    ensure!(panic.is_err());
    ensure!(!left(id.trim_end_matches('-'))?, "something of {id} stayed");
    ensure!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "the switch still runs");
    Ok(())
}
