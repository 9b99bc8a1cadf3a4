//! Goal: nothing that a tenant's rules and chains can't look into passes them by. A frame with two tags ends where it enters, and is
//! told of, unless the tenant says otherwise; one with a tag is judged by what is behind it. On real Open vSwitch.

mod chained;
mod network;

use anyhow::{Context, Result, ensure};
use lab::{Carrier, Container, Frame, Layout, Marker, Spec};

use chained::{Chained, chain, wire};
use network::{MS, spec};

const TELNET: u16 = 23;
const WEB: u16 = 80;
const OTHER: u16 = 24;

/// The first segment of a connection to a port, behind these tags.
fn syn(from: &Container, to: &Container, port: u16, tags: &[u16]) -> Frame {
    let marker = Marker::fresh();
    let mut bytes = [to.mac.0, from.mac.0].concat();
    for (number, tag) in (5_u16..).zip(tags) {
        bytes.extend([tag.to_be_bytes(), number.to_be_bytes()].concat());
    }
    let mut header = [0x45, 0, 0, 56, 0, 0, 0, 0, 64, 6, 0, 0].to_vec();
    header.extend([from.ipv4.octets(), to.ipv4.octets()].concat());
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    header[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    bytes.extend([8, 0]);
    bytes.extend(header);
    bytes.extend([40_000_u16.to_be_bytes(), port.to_be_bytes()].concat());
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0, 0, 0, 0, 0, 0]);
    bytes.extend(marker.bytes());
    bytes.resize(bytes.len().max(64), 0);
    Frame { bytes, marker }
}

const ONE_TAG: [&[u16]; 3] = [&[], &[0x8100], &[0x88a8]];
const TWO_TAGS: [&[u16]; 4] = [&[0x8100, 0x8100], &[0x88a8, 0x8100], &[0x8100, 0x88a8], &[0x88a8, 0x8100, 0x8100]];

fn judged(spec: &Spec) -> Result<()> {
    let chained = Chained::wires(spec, &[2])?;
    let telnet = "[[tenant.rule]]\nname = \"no-telnet\"\nmatch = { protocol = \"tcp\", destination_port = 23 }\naction = \"drop\"\n";
    let services = wire(chained.lab(), "firewall", "", &[(&chained.functions[0], 1)])?
        + &chain("web", "symmetric = true", &["firewall"], "protocol = \"tcp\", destination_port = 80")
        + telnet;
    chained.apply(&services)?;
    chained.wait_health("f1-in", "working", true)?;
    let at = |tenant: &str, host| chained.lab().container(host, &format!("{tenant}-1"));
    let [from, to] = [at("green", 1)?, at("green", 3)?];
    let [other_from, other_to] = [at("orange", 1)?, at("orange", 3)?];

    // Which of a tenant's frames arrive, and which of these pass the function.
    let expect = |from: &Container, to: &Container, tags: &[u16], arrive: [bool; 3], chain: bool| -> Result<()> {
        let frames = [TELNET, WEB, OTHER].map(|port| syn(from, to, port, tags));
        let mut sights = None;
        let seen = chained.network.watch(|| {
            sights = Some(chained.watch(|| frames.iter().try_for_each(|frame| from.send(frame)))?);
            Ok(())
        })?;
        for (frame, arrives) in frames.iter().zip(arrive) {
            seen.expect(frame, &[to][..usize::from(arrives)], &format!("{tags:x?}, {frame:?}"))?;
        }
        let passed = sights.iter().map(|it| frames.each_ref().map(|frame| it.forward(frame)[0])).next();
        let web = u64::from(chain);
        ensure!(passed == Some([0, web, 0]), "{tags:x?}: the function saw {passed:?}");
        Ok(())
    };
    for tags in ONE_TAG {
        expect(&from, &to, tags, [false, true, true], true)?;
    }
    ensure!(chained.network.problems()?.is_empty(), "{:?}", chained.network.problems()?);
    for tags in TWO_TAGS {
        expect(&from, &to, tags, [false; 3], false)?;
        // Who has no rules is held against none.
        expect(&other_from, &other_to, tags, [true; 3], false)?;
    }
    let text = format!("tenant green: {} frames with two VLAN tags were dropped", 3 * TWO_TAGS.len());
    let mut last = Vec::new();
    lab::wait_until("the count in the status", MS(12_000), || {
        last = chained.network.problems()?;
        Ok(last.iter().any(|it| it.contains(&text) && it.contains("inner_vlans = \"pass\"")))
    })
    .with_context(|| format!("not {text}, but {last:?}"))?;

    // The tenant lets them pass, rules and chains or not.
    chained.apply(&format!("inner_vlans = \"pass\"\n{services}"))?;
    for tags in TWO_TAGS {
        expect(&from, &to, tags, [true; 3], false)?;
    }
    expect(&from, &to, &[0x8100], [false, true, true], true)?;

    // What is in front of the second tag can be asked of any frame.
    let by_tag = "[[tenant.rule]]\nname = \"no-six\"\nmatch = { vlan = 6 }\naction = \"drop\"\n";
    chained
        .apply(&format!("{by_tag}[[tenant.rule]]\nname = \"no-five\"\nmatch = {{ vlan = 5 }}\naction = \"drop\"\n"))?;
    expect(&from, &to, &[0x8100, 0x8100], [false; 3], false)?;
    chained.apply(by_tag)?;
    expect(&from, &to, &[0x8100, 0x8100], [true; 3], false)
}

#[test]
fn two_tags_pass_by_no_rule_and_no_chain_on_shared_bridges() -> Result<()> {
    judged(&spec(Layout::Shared))
}

#[test]
fn two_tags_pass_by_no_rule_and_no_chain_with_a_bridge_per_tenant() -> Result<()> {
    judged(&Spec { carrier: Carrier::Gre, ..spec(Layout::PerTenant) })
}
