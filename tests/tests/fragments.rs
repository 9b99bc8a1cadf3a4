//! Goal: a datagram in fragments is let in, dropped and led through functions as if it were whole, in IPv4 and IPv6. On real Open
//! vSwitch, with real datagrams of 4,000 octets.

mod chained;
mod network;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread::sleep;

use anyhow::{Context, Result, ensure};
use lab::{Captured, Carrier, Container, Frame, Layout, Marker, Sender, Spec};

use chained::{Chained, chain, udp, wire};
use network::{MS, Network, green_and_orange, spec};

const LENGTH: usize = 4_000;
const COUNT: usize = 10;
const TELNET: u16 = 23;
const OTHER: u16 = 24;

/// Who listens to a port, and answers what comes with as much.
struct Listener(UdpSocket);

impl Listener {
    fn new(at: &Container, address: IpAddr, port: u16) -> Result<Self> {
        let socket = at.netns.run(|| UdpSocket::bind(SocketAddr::new(address, port)).context("listening failed"))?;
        socket.set_read_timeout(Some(MS(300))).context("a timeout")?;
        Ok(Self(socket))
    }

    /// How many whole datagrams came, until none came for a while; each is answered if `answers`.
    fn came(&self, answers: bool) -> usize {
        let mut octets = [0; LENGTH + 1];
        let (mut count, mut left) = (0, 3 * COUNT);
        while left > 0 {
            left -= 1;
            let Ok((length, from)) = self.0.recv_from(&mut octets) else { return count };
            count += usize::from(length == LENGTH);
            if answers {
                drop(self.0.send_to(&octets[..length], from));
            }
        }
        count
    }
}

fn addresses(of: &Container) -> [IpAddr; 2] {
    [of.ipv4.into(), of.ipv6.into()]
}

/// How many of so many datagrams to a port arrive, and how many answers to them come back, in IPv4 and in IPv6.
fn exchange(from: &Container, to: &Container, port: u16) -> Result<[[usize; 2]; 2]> {
    let mut all = [[0; 2]; 2];
    for ((mine, theirs), counts) in addresses(from).into_iter().zip(addresses(to)).zip(&mut all) {
        let (sender, receiver) = (Listener::new(from, mine, 40_000)?, Listener::new(to, theirs, port)?);
        for _ in 0..COUNT {
            sender.0.send_to(&[7; LENGTH], SocketAddr::new(theirs, port)).context("sending failed")?;
            sleep(MS(2));
        }
        *counts = [receiver.came(true), sender.came(false)];
    }
    Ok(all)
}

fn expect(from: &Container, to: &Container, port: u16, there: usize, back: usize, what: &str) -> Result<()> {
    let got = exchange(from, to, port)?;
    ensure!(
        got == [[there, back]; 2],
        "{what}, port {port}: of {COUNT} in IPv4 and IPv6 {got:?}, not {there} and {back}"
    );
    Ok(())
}

const ALL: usize = COUNT;

fn rule(name: &str, classifier: &str, action: &str) -> String {
    format!("[[tenant.rule]]\nname = \"{name}\"\nmatch = {{ {classifier} }}\naction = \"{action}\"\n")
}

/// The first fragment of TCP in IPv4, to a port, with so many octets of its header.
fn beginning(from: &Container, to: &Container, port: u16, octets: u16) -> Frame {
    let marker = Marker::fresh();
    let total = (20 + octets).to_be_bytes();
    let mut header =
        [&[0x45, 0][..], &total, &[0, 7, 0x20, 0, 64, 6, 0, 0], &from.ipv4.octets(), &to.ipv4.octets()].concat();
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    header[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    let mut bytes = [&to.mac.0[..], &from.mac.0, &[8, 0], &header].concat();
    let end = bytes.len() + usize::from(octets);
    bytes.extend([40_000, port].map(u16::to_be_bytes).concat());
    // A sequence number; then the rest of the header, and more.
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0]);
    bytes.truncate(end);
    bytes.resize(end, 0);
    // Frames are padded to 60 octets, which the marker goes in where it can't be in the packet.
    let room = end.max(60 - marker.bytes().len());
    bytes.resize(room, 0);
    bytes.extend(marker.bytes());
    Frame { bytes, marker }
}

fn judged(spec: &Spec) -> Result<()> {
    let network = Network::with_policy(spec, &green_and_orange("", ""))?;
    network.meet("green")?;
    network.meet("orange")?;
    let apply = |green: &str| network.apply(&green_and_orange("", green));
    let at = |tenant: &str, host| network.lab.container(host, &format!("{tenant}-1"));
    let [one, three] = [at("green", 1)?, at("green", 3)?];
    let big_ping = |from: &Container, to: IpAddr| -> Result<bool> {
        let line = format!("ping -c 1 -W 1 -s {LENGTH} {to}");
        from.netns.run(|| Ok(std::process::Command::new("sh").args(["-c", &line]).output()?.status.success()))
    };
    expect(&one, &three, TELNET, ALL, ALL, "without rules")?;

    // A port that is refused, and the rest.
    apply(&rule("no-telnet", "protocol = \"udp\", destination_port = 23", "drop"))?;
    expect(&one, &three, TELNET, 0, 0, "a rule that drops")?;
    expect(&one, &three, OTHER, ALL, ALL, "what no rule drops")?;
    for address in addresses(&three) {
        ensure!(big_ping(&one, address)?, "an echo of {LENGTH} octets, {address}");
    }
    ensure!(network.problems()?.is_empty(), "{:?}", network.problems()?);

    // Somebody sets a bridge otherwise.
    let bridge = network.lab.spec().bridge_of("green")?.to_owned();
    let ofctl = |verb, args: &[&str]| network.lab.host(1)?.ofctl(verb, &bridge, args);
    ofctl("set-frags", &["normal"])?;
    lab::wait_until("the bridge to be set as it was", MS(8000), || Ok(ofctl("get-frags", &[])?.trim() == "nx-match"))?;

    // So is the first fragment by its ports, if it shows them; if not, nobody knows whose it is.
    apply(&rule("no-telnet", "protocol = \"tcp\", destination_port = 23", "drop"))?;
    let [other, telnet, split] =
        [(OTHER, 40), (TELNET, 40), (OTHER, 8)].map(|(port, octets)| beginning(&one, &three, port, octets));
    let seen = network.watch(|| [&other, &telnet, &split].into_iter().try_for_each(|frame| one.send(frame)))?;
    seen.expect(&other, &[&three], "the beginning of what no rule drops")?;
    seen.expect(&telnet, &[], "the beginning of what one drops")?;
    seen.expect(&split, &[], "the beginning of nobody knows what")?;
    lab::wait_until("the count in the status", MS(12_000), || {
        Ok(network.problems()?.iter().any(|it| it.contains("tenant green: ") && it.contains("spread over fragments")))
    })?;

    // One that is let in, and no other.
    apply(&format!(
        "default = \"drop\"\n{}{}",
        rule("other", "protocol = \"udp\", destination_port = [24, 40000]", "allow"),
        rule("low", "protocol = \"udp\", destination_port = \"0-22\"", "allow")
    ))?;
    expect(&one, &three, OTHER, ALL, ALL, "a rule that allows")?;
    expect(&one, &three, TELNET, 0, 0, "the default")?;

    // Answers, as their connections are.
    apply(&format!(
        "default = \"drop\"\n{}{}",
        rule("to-three", &format!("destination = [\"{}\", \"{}\"]", three.ipv4, three.ipv6), "allow"),
        rule("answers", "", "allow-established")
    ))?;
    expect(&one, &three, OTHER, ALL, ALL, "answers to datagrams")?;
    expect(&three, &one, OTHER, 0, 0, "what isn't one")?;
    for address in addresses(&three) {
        ensure!(big_ping(&one, address)?, "an echo of {LENGTH} octets and its answer, {address}");
    }
    expect(&at("orange", 1)?, &at("orange", 3)?, TELNET, ALL, ALL, "another tenant")
}

#[test]
fn rules_hold_for_fragments_on_shared_bridges() -> Result<()> {
    judged(&spec(Layout::Shared))
}

#[test]
fn rules_hold_for_fragments_with_a_bridge_per_tenant() -> Result<()> {
    judged(&Spec { carrier: Carrier::Gre, ..spec(Layout::PerTenant) })
}

/// Fragments of UDP that went in, by version of IP.
fn pieces(captured: &Captured) -> [usize; 2] {
    let of = |frame: &[u8], ethertype: [u8; 2], at: usize, number: u8| {
        frame.get(12..14) == Some(&ethertype) && frame.get(at) == Some(&number)
    };
    [captured.count(|it| of(it, [8, 0], 23, 17)), captured.count(|it| of(it, [0x86, 0xdd], 20, 44))]
}

fn chained(spec: &Spec) -> Result<()> {
    let chained = Chained::wires(spec, &[2, 3])?;
    let [one, three] = [chained.green(1)?, chained.green(3)?];
    let [f1, f2] = chained.functions.as_slice() else { unreachable!("two were made") };
    let through = |more: &str, instances: &[(&lab::Function, u16)], classifier: &str| -> Result<String> {
        let classifier = format!("protocol = \"udp\", destination_port = {OTHER}{classifier}");
        Ok(wire(chained.lab(), "firewall", more, instances)?
            + &chain("names", "symmetric = true", &["firewall"], &classifier))
    };
    let to_three = format!(", destination = [\"{}\", \"{}\"]", three.ipv4, three.ipv6);
    let (single, both) = ([(f1, 1)], [(f1, 1), (f2, 1)]);
    for (instances, classifier) in [(&single[..], to_three.as_str()), (&both[..], &to_three), (&both[..], "")] {
        chained.apply(&through("", instances, classifier)?)?;
        chained.wait_health("f1-in", "working", true)?;
        if instances.len() > 1 {
            chained.wait_health("f2-in", "working", true)?;
        }
        // What the chain isn't for goes through, too, if it comes in fragments.
        for port in [OTHER, TELNET] {
            let sights = chained.watch(|| expect(&one, &three, port, ALL, ALL, "in a chain"))?;
            // All of it, there and back, by one instance. Where no address tells which way it goes, it goes in by the ingress.
            let whole = 3 * COUNT;
            let wanted = if classifier.is_empty() { [2 * whole, 0] } else { [whole; 2] };
            for version in [0, 1] {
                let passed: Vec<[usize; 2]> =
                    sights.0.iter().map(|(one, other)| [pieces(one)[version], pieces(other)[version]]).collect();
                let by_one = passed.contains(&wanted) && passed.iter().all(|it| [[0; 2], wanted].contains(it));
                ensure!(by_one, "{passed:?} fragments passed the instances, not {wanted:?} one of them");
            }
        }
    }

    // By addresses, packets and fragments of one connection pass one instance.
    chained.apply(&through("share_by = \"addresses\"", &both, &to_three)?)?;
    let sights = chained.watch(|| {
        for source in 40_000..40_020 {
            Sender::new(&one)?.send_bytes(&udp(&one, &three, (source, OTHER)))?;
        }
        expect(&one, &three, OTHER, ALL, ALL, "by addresses")
    })?;
    let all = |captured: &Captured| captured.count(|it| it.get(12..14) == Some(&[8, 0]) && it.get(23) == Some(&17));
    let passed: Vec<usize> = sights.0.iter().map(|(ingress, _)| all(ingress)).collect();
    ensure!(passed.contains(&(3 * COUNT + 20)) && passed.contains(&0), "{passed:?} passed the instances");
    Ok(())
}

#[test]
fn chains_hold_for_fragments_on_shared_bridges() -> Result<()> {
    chained(&spec(Layout::Shared))
}

#[test]
fn chains_hold_for_fragments_with_a_bridge_per_tenant() -> Result<()> {
    chained(&Spec { carrier: Carrier::Geneve, ..spec(Layout::PerTenant) })
}
