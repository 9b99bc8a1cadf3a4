//! Goal: what Open vSwitch's connection tracking keeps of a tenant's, and lets go beside somebody else's packet, reaches nobody. A fragment
//! that lacks others is kept for 15 s. On real Open vSwitch.

mod network;

use std::thread::sleep;

use anyhow::{Result, ensure};
use lab::{Capture, Carrier, Container, Frame, Layout, Marker, Spec};

use network::{MS, Network, green_and_orange, spec};

/// The first 1,400 octets of a UDP datagram in IPv4, of which the rest never comes.
fn first_part(from: &Container, to: &Container, id: u16) -> Frame {
    let marker = Marker::fresh();
    let [total, id] = [1_420, id].map(u16::to_be_bytes);
    let mut header = [&[0x45, 0][..], &total, &id, &[0x20, 0, 64, 17, 0, 0]].concat();
    header.extend([from.ipv4.octets(), to.ipv4.octets()].concat());
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    header[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    let mut bytes = [&to.mac.0[..], &from.mac.0, &[8, 0], &header].concat();
    bytes.extend([40_000, 24, 3_000, 0].map(u16::to_be_bytes).concat());
    bytes.extend(marker.bytes());
    bytes.resize(14 + 1_420, 0);
    Frame { bytes, marker }
}

fn nobody_gets_them(spec: &Spec) -> Result<()> {
    let answers =
        "[[tenant.rule]]\nname = \"answers\"\nmatch = { protocol = \"tcp\" }\naction = \"allow-established\"\n";
    let green = "[[tenant]]\nname = \"green\"";
    let policy = green_and_orange("", answers).replacen(green, &format!("{answers}{green}"), 1);
    let network = Network::with_policy(spec, &policy)?;
    network.meet("green")?;
    network.meet("orange")?;
    let at = |tenant: &str, host| network.lab.container(host, &format!("{tenant}-1"));
    let [one, three] = [at("green", 1)?, at("green", 3)?];
    // To a host of both tenants, and to an address that neither knows.
    let mut nobody = three.clone();
    nobody.mac = lab::Mac([2, 0, 0, 0, 0xff, 0xff]);
    let frames = [first_part(&one, &three, 1), first_part(&one, &nobody, 2), first_part(&one, &three, 3)];
    let containers = network.lab.containers();
    let captures = containers.iter().map(Capture::start).collect::<Result<Vec<_>>>()?;
    frames.iter().try_for_each(|frame| one.send(frame))?;
    sleep(MS(16_000));
    // What is delivered is remembered: that is what asks for a connection first, there.
    for host in [2, 3, 2, 3, 2, 3] {
        ensure!(network.lab.ping(&at("orange", host)?, at("orange", 1)?.ipv4)?, "an echo request of orange's");
    }
    for (container, capture) in containers.iter().zip(captures) {
        let captured = capture.stop()?;
        let copies: u64 = frames.iter().map(|frame| captured.copies(frame)).sum();
        ensure!(copies == 0, "{copies} of green's fragments came to h{}/{}", container.host, container.port);
    }
    Ok(())
}

#[test]
fn nobody_gets_anothers_fragments_on_shared_bridges() -> Result<()> {
    nobody_gets_them(&spec(Layout::Shared))
}

#[test]
fn nobody_gets_anothers_fragments_with_a_bridge_per_tenant() -> Result<()> {
    nobody_gets_them(&Spec { carrier: Carrier::Gre, ..spec(Layout::PerTenant) })
}
