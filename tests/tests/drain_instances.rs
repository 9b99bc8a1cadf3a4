//! Goal: an instance that drains gets no new connections, both directions of those that it has go on passing it, nothing of
//! them is lost, and a restart of the controller changes none of it. On real Open vSwitch, with real TCP.

mod chained;
mod network;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread::{sleep, spawn};

use anyhow::{Context, Result, ensure};
use lab::{Captured, Container, Layout};

use chained::{Chained, Sights, chain, wire};
use network::{MS, spec};

const PORT: u16 = 8080;
const STREAMS: usize = 24;

/// Sends back all that comes, until the test ends.
fn echo(at: &Container, address: IpAddr) -> Result<()> {
    let listener = at.netns.run(|| Ok(TcpListener::bind((address, PORT))?))?;
    spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            spawn(move || {
                let mut octets = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut octets) {
                    if stream.write_all(&octets[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(())
}

/// Connections to there.
fn connect(from: &Container, to: SocketAddr) -> Result<Vec<TcpStream>> {
    from.netns.run(|| {
        let streams = (0..STREAMS).map(|_| {
            let stream = TcpStream::connect_timeout(&to, MS(8000))?;
            stream.set_read_timeout(Some(MS(5000)))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        });
        streams.collect()
    })
}

/// All that is sent comes back, as it was sent.
fn exchange(streams: &mut [TcpStream]) -> Result<()> {
    for (stream, number) in streams.iter_mut().zip(0u8..) {
        let sent = [number; 3000];
        stream.write_all(&sent)?;
        let mut came = [0; 3000];
        stream.read_exact(&mut came).with_context(|| format!("stream {number}"))?;
        ensure!(came == sent, "stream {number} brought something else");
    }
    Ok(())
}

fn ports(streams: &[TcpStream]) -> Result<Vec<u16>> {
    streams.iter().map(|stream| Ok(stream.local_addr()?.port())).collect()
}

/// The clients' ports of the TCP segments that were captured. A reset is an error.
fn clients(captured: &Captured, forward: bool) -> Result<BTreeMap<u16, usize>> {
    const RST: u8 = 4;
    let mut clients = BTreeMap::new();
    for (_, frame) in &captured.frames {
        let ports = match (frame.get(12..14), frame.get(23), frame.get(20)) {
            (Some([8, 0]), Some(6), _) => 34,
            (Some([0x86, 0xdd]), _, Some(6)) => 54,
            _ => continue,
        };
        let at = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let (source, destination) = (at(ports), at(ports + 2));
        let (client, server) = if forward { (source, destination) } else { (destination, source) };
        ensure!(frame[ports + 13] & RST == 0, "a connection of port {client} was reset");
        if server == PORT {
            *clients.entry(client).or_default() += 1;
        }
    }
    Ok(clients)
}

/// Which instance each connection passed, there and back.
fn passed(sights: &Sights) -> Result<BTreeMap<u16, usize>> {
    let (mut there, mut back) = (BTreeMap::new(), BTreeMap::new());
    for (instance, (ingress, egress)) in sights.0.iter().enumerate() {
        for (way, captured, forward) in [(&mut there, ingress, true), (&mut back, egress, false)] {
            for client in clients(captured, forward)?.into_keys() {
                ensure!(way.insert(client, instance).is_none(), "port {client} passed two instances one way");
            }
        }
    }
    ensure!(there == back, "some went there by another instance than back: {there:?}, {back:?}");
    Ok(there)
}

/// What bridges remember of connections.
fn begun(chained: &Chained) -> Result<usize> {
    let lab = chained.lab();
    let bridges = lab.bridges();
    let counts = bridges.iter().map(|bridge| {
        let text = lab.host(bridge.host)?.ofctl("dump-flows", &bridge.name, &["table=14"])?;
        Ok(text.lines().filter(|line| line.contains("table=14")).count())
    });
    counts.sum()
}

#[test]
fn an_instance_drains() -> Result<()> {
    drains(false)
}

#[test]
fn an_instance_drains_over_ipv6() -> Result<()> {
    drains(true)
}

fn drains(ipv6: bool) -> Result<()> {
    let mut chained = Chained::wires(&spec(Layout::Shared), &[1, 2])?;
    let (one, three) = (chained.green(1)?, chained.green(3)?);
    let address: IpAddr = if ipv6 { three.ipv6.into() } else { three.ipv4.into() };
    echo(&three, address)?;
    let connect = || connect(&one, (address, PORT).into());
    let policy = |chained: &Chained, first: Option<&str>| -> Result<String> {
        let all: Vec<_> = chained.functions.iter().map(|function| (function, 1)).collect();
        let left = if first.is_some() { &all[..] } else { &all[1..] };
        let text = wire(chained.lab(), "firewall", "", left)?;
        let text = text.replacen("weight = 1 }", &format!("weight = 1{} }}", first.unwrap_or_default()), 1);
        let matching = format!("protocol = \"tcp\", destination = \"{address}\", destination_port = {PORT}");
        Ok(text + &chain("to-three", "symmetric = true", &["firewall"], &matching))
    };
    chained.apply(&policy(&chained, Some(""))?)?;
    for instance in ["f1-in", "f2-in"] {
        chained.wait_health(instance, "working", true)?;
    }
    let mut old = connect()?;
    let before = passed(&chained.watch(|| exchange(&mut old))?)?;
    ensure!(before.len() == STREAMS && before.values().any(|it| *it == 0), "the first one has some: {before:?}");

    // The first one drains. Streams go on meanwhile.
    let during = std::thread::scope(|scope| {
        let going = scope.spawn(|| (0..40).try_for_each(|_| exchange(&mut old).map(|()| sleep(MS(25)))));
        let drained = chained.apply(&policy(&chained, Some(", drain = true"))?);
        going.join().map_err(|_| anyhow::anyhow!("the streams panicked"))?.and(drained)
    });
    during.context("while a drain begins")?;
    let chains = chained.network.controller.get("/v1/chains")?;
    let instances = &chains[0]["hops"][0]["instances"];
    ensure!(instances[0]["draining"] == true && instances[1]["draining"] == false, "{chains}");
    let told = String::from_utf8(chained.network.controller.cli(&["get", "chains"])?.stdout)?;
    ensure!(told.contains("working, drains"), "{told}");

    let mut new = Vec::new();
    let sights = chained.watch(|| {
        new = connect()?;
        exchange(&mut new)?;
        exchange(&mut old)
    })?;
    let after = passed(&sights)?;
    ensure!(after.len() == 2 * STREAMS, "{after:?}");
    for port in ports(&old)? {
        ensure!(after[&port] == before[&port], "an old connection moved");
    }
    for port in ports(&new)? {
        ensure!(after[&port] == 1, "a new connection passed the one that drains");
    }
    let remembered = begun(&chained)?;
    ensure!(remembered > 0, "nothing is remembered");

    // A restart of the controller changes nothing, and what bridges add by themselves is nobody's drift.
    chained.network.controller.restart()?;
    chained.network.settle()?;
    sleep(MS(2000));
    ensure!(chained.network.changes_sent()? == 0, "a restart of the controller changed something");
    let problems = chained.network.problems()?;
    ensure!(!problems.iter().any(|problem| problem.contains("somebody")), "{problems:?}");
    ensure!(begun(&chained)? == remembered, "what was remembered is forgotten");
    let mut newest = Vec::new();
    let sights = chained.watch(|| {
        newest = connect()?;
        [&mut old, &mut new, &mut newest].into_iter().try_for_each(|streams| exchange(streams))
    })?;
    let again = passed(&sights)?;
    ensure!(after.iter().all(|(port, instance)| again[port] == *instance), "a connection moved");
    ensure!(ports(&newest)?.iter().all(|port| again[port] == 1), "a new connection passed the one that drains");

    // What somebody else puts there is drift all the same.
    let host = chained.lab().host(1)?;
    host.ofctl("add-flow", "br0", &["table=14,priority=10,tcp,actions=load:1->NXM_NX_REG1[16..30]"])?;
    chained.network.wait_problem("somebody added an entry of bridge h1: table 14 (begun)")?;
    chained.network.settle()?;

    // Its connections end, and it goes: nobody else's break.
    let its = |stream: &TcpStream| stream.local_addr().is_ok_and(|address| before[&address.port()] == 0);
    old.retain(|stream| !its(stream));
    sleep(MS(500));
    chained.apply(&policy(&chained, None)?)?;
    let mut left: Vec<TcpStream> = old.into_iter().chain(new).chain(newest).collect();
    let sights = chained.watch(|| exchange(&mut left))?;
    ensure!(passed(&sights)?.values().all(|it| *it == 1), "they pass the other one");
    ensure!(begun(&chained)? == 0, "what was remembered goes with the drain");
    Ok(())
}
