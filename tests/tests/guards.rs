//! Goal: nobody sends as somebody whose addresses are pinned, in any of the ways in which a frame says who sends it; and a machine
//! that is pinned can do all that machines do to get and keep an address. On real Open vSwitch, in both layouts, each copy counted.

mod network;

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use lab::{BROADCAST, Container, Frame, Layout, Mac, Marker, Spec};

use network::{MS, Network, green_and_orange, spec};

const NOBODY_V4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const NOBODY_V6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const ALL_NODES: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
const VIRTUAL: Mac = Mac([0, 0, 0x5e, 0, 1, 0x33]);

/// A frame with this behind its addresses, padded, and its marker behind that, where no length counts it.
fn frame(source: Mac, destination: Mac, tags: &[u8], kind: [u8; 2], packet: &[u8]) -> Frame {
    let marker = Marker::fresh();
    let mut bytes = [&destination.0[..], &source.0, tags, &kind, packet, &marker.bytes()].concat();
    bytes.resize(bytes.len().max(60), 0);
    Frame { bytes, marker }
}

/// ARP (RFC 826), to everybody.
#[derive(Clone, Copy)]
struct Arp {
    hardware: u8,
    op: u8,
    source: Mac,
    sha: Mac,
    spa: Ipv4Addr,
    tpa: Ipv4Addr,
}

impl Arp {
    /// A station tells everybody where an address is.
    fn announcement(from: Mac, ip: Ipv4Addr) -> Self {
        Self { hardware: 1, op: 2, source: from, sha: from, spa: ip, tpa: ip }
    }

    fn frame(self, tags: &[u8]) -> Frame {
        let head = [0, self.hardware, 8, 0, 6, 4, 0, self.op];
        let packet = [&head[..], &self.sha.0, &self.spa.octets(), &[0; 6], &self.tpa.octets()].concat();
        frame(self.source, BROADCAST, tags, [8, 6], &packet)
    }
}

fn checksum(octets: &[u8]) -> [u8; 2] {
    let sum: u32 = octets.chunks(2).map(|it| u32::from(it[0]) << 8 | it.get(1).map_or(0, |low| u32::from(*low))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
}

/// An IPv4 packet to everybody.
fn ipv4(from: Mac, source: Ipv4Addr, protocol: u8, body: &[u8]) -> Frame {
    let length = (20 + body.len() as u16).to_be_bytes();
    let mut head = [0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol, 0, 0].to_vec();
    head.extend([source.octets(), [255; 4]].concat());
    let sum = checksum(&head);
    head[10..12].copy_from_slice(&sum);
    frame(from, BROADCAST, &[], [8, 0], &[&head, body].concat())
}

/// A UDP datagram whose length is too short to be true, so that nobody answers.
fn udp(from: Mac, source: Ipv4Addr, ports: [u16; 2]) -> Frame {
    ipv4(from, source, 17, &[&ports[0].to_be_bytes()[..], &ports[1].to_be_bytes(), &[0, 7, 0, 0]].concat())
}

/// An IPv6 packet to all nodes.
fn ipv6(from: Mac, source: Ipv6Addr, next: u8, body: &[u8]) -> Frame {
    let length = (body.len() as u16).to_be_bytes();
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let head = [&[0x60, 0, 0, 0, length[0], length[1], next, 255][..], &source.octets(), &all_nodes.octets()].concat();
    frame(from, ALL_NODES, &[], [0x86, 0xdd], &[&head, body].concat())
}

/// An ICMPv6 message with the right checksum.
fn icmpv6(from: Mac, source: Ipv6Addr, kind: u8, body: &[u8]) -> Frame {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut message = [&[kind, 0, 0, 0][..], body].concat();
    let head = [&source.octets()[..], &all_nodes.octets(), &[0, 0, 0, message.len() as u8, 0, 0, 0, 58]].concat();
    let sum = checksum(&[&head[..], &message].concat());
    message[2..4].copy_from_slice(&sum);
    ipv6(from, source, 58, &message)
}

/// Neighbour discovery about a target, with options of a link-layer address (1: of the source, 2: of the target).
fn discovery(from: Mac, source: Ipv6Addr, kind: u8, target: Ipv6Addr, options: &[(u8, Mac)]) -> Frame {
    let mut body = [&[0x20, 0, 0, 0][..], &target.octets()].concat();
    options.iter().for_each(|(kind, mac)| body.extend([&[*kind, 1][..], &mac.0].concat()));
    icmpv6(from, source, kind, &body)
}

/// The link-local address made from a MAC address.
fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

const SOLICIT: u8 = 135;
const ADVERTISE: u8 = 136;

/// All ways to say that this station has those addresses; and those that stations read though a bridge doesn't.
fn claims(from: Mac, v4: Ipv4Addr, v6: Ipv6Addr) -> Vec<(&'static str, Frame)> {
    let arp = Arp::announcement(from, v4);
    let zero = [0x81, 0, 0, 0];
    let doubly = [[0x88, 0xa8, 0, 0], [0x88, 0xa8, 0, 0]].concat();
    let twice = [(2, from), (2, from)];
    vec![
        ("an ARP answer", arp.frame(&[])),
        ("an ARP request", Arp { op: 1, ..arp }.frame(&[])),
        ("an ARP probe", Arp { op: 1, spa: NOBODY_V4, ..arp }.frame(&[])),
        ("an ARP answer with a tag of VLAN id 0", arp.frame(&zero)),
        ("ARP of IEEE 802's hardware type", Arp { hardware: 6, ..arp }.frame(&[])),
        ("ARP behind two tags of VLAN id 0", arp.frame(&doubly)),
        ("an IPv4 packet", udp(from, v4, [9, 9])),
        ("an IPv6 packet", ipv6(from, v6, 59, &[])),
        ("an unsolicited advertisement", discovery(from, v6, ADVERTISE, v6, &[(2, from)])),
        ("an advertisement from another address", discovery(from, link_local(from), ADVERTISE, v6, &[(2, from)])),
        ("an advertisement without option", discovery(from, link_local(from), ADVERTISE, v6, &[])),
        ("an advertisement with an option twice", discovery(from, link_local(from), ADVERTISE, v6, &twice)),
        ("a probe for duplicates", discovery(from, NOBODY_V6, SOLICIT, v6, &[])),
        ("a solicitation", discovery(from, v6, SOLICIT, Ipv6Addr::LOCALHOST, &[(1, from)])),
    ]
}

/// All ways to say that a station's own addresses are at this MAC address.
fn misplaced(from: Mac, v4: Ipv4Addr, v6: Ipv6Addr, at: Mac) -> Vec<(&'static str, Frame)> {
    vec![
        ("its MAC address", Arp { source: at, ..Arp::announcement(from, v4) }.frame(&[])),
        ("ARP with its MAC address", Arp { sha: at, ..Arp::announcement(from, v4) }.frame(&[])),
        ("an option of the source", discovery(from, v6, SOLICIT, Ipv6Addr::LOCALHOST, &[(1, at)])),
        ("an option of the target", discovery(from, v6, ADVERTISE, v6, &[(2, at)])),
    ]
}

/// How a bridge is called in the policy.
fn bridge(layout: Layout, host: usize) -> String {
    if layout == Layout::PerTenant { format!("green-h{host}") } else { format!("h{host}") }
}

/// Entries for the ports of these hosts, with what is pinned there.
fn pins(layout: Layout, all: &[(usize, &str)]) -> String {
    all.iter()
        .map(|(host, pins)| format!("  {{ bridge = \"{}\", port = \"green-1\", {pins} }},\n", bridge(layout, *host)))
        .collect()
}

fn start(layout: Layout, all: &[(usize, &str)]) -> Result<(Network, [Container; 3])> {
    let network = Network::with_policy(&Spec { ..spec(layout) }, &green_and_orange(&pins(layout, all), ""))?;
    let [one, two, three] = [1, 2, 3].map(|host| network.lab.container(host, "green-1"));
    let all = [one?, two?, three?];
    network.lab.pin_neighbours()?;
    Ok((network, all))
}

/// Sends what passes and what doesn't, each from its container, and counts.
fn expect(network: &Network, rows: &[(&Container, String, Frame, bool)]) -> Result<()> {
    let seen = network.watch(|| rows.iter().try_for_each(|(from, _, frame, _)| from.send(frame)))?;
    for (from, what, frame, passes) in rows {
        let others = network.lab.tenant("green").into_iter().filter(|to| *passes && to.netns != from.netns);
        let others: Vec<_> = others.collect();
        seen.expect(frame, &others.iter().collect::<Vec<_>>(), &format!("{what} from h{}/{}", from.host, from.port))?;
    }
    Ok(())
}

fn rows<'a>(
    from: &'a Container,
    all: Vec<(&'static str, Frame)>,
    passes: bool,
) -> impl Iterator<Item = (&'a Container, String, Frame, bool)> {
    all.into_iter().map(move |(what, frame)| (from, what.to_owned(), frame, passes))
}

/// Which of the ways to claim something hides it from a bridge: nobody may use them in a tenant that pins addresses.
fn hides(what: &str) -> bool {
    ["IEEE 802", "two tags", "twice"].iter().any(|it| what.contains(it))
}

const ONE: &str = "mac = \"02:00:00:00:00:01\", ip = [\"10.0.0.1\", \"fd00::1\"]";

#[test]
fn what_is_pinned_is_sent_from_its_port_alone() -> Result<()> {
    for layout in [Layout::Shared, Layout::PerTenant] {
        for pin in [ONE, "mac = \"02:00:00:00:00:01\"", "ip = [\"10.0.0.1\", \"fd00::1\"]"] {
            let (network, [one, two, three]) = start(layout, &[(1, pin)])?;
            let near = network.lab.add_container(1, &one.bridge, "green-9", 9)?;
            network.meet("green")?;
            // Stations that lie about themselves are believed, where nothing is pinned that this takes away.
            network.lab.pin_neighbours()?;
            let mut all = Vec::new();
            for thief in [&two, &near] {
                // Its own, and what nobody has.
                let own = claims(thief.mac, thief.ipv4, thief.ipv6);
                all.extend(rows(thief, own.into_iter().filter(|(what, _)| !hides(what)).collect(), true));
                let stolen = claims(thief.mac, one.ipv4, one.ipv6).into_iter();
                let by_ip = pin.contains("ip =");
                all.extend(rows(thief, stolen.filter(|(what, _)| by_ip || hides(what)).collect(), false));
                let stolen = misplaced(thief.mac, thief.ipv4, thief.ipv6, one.mac);
                all.extend(rows(thief, stolen, !pin.contains("mac =")));
            }
            let own = claims(one.mac, one.ipv4, one.ipv6).into_iter();
            // Options of other places than the address has, and probes, are told in the next test.
            let own = own.filter(|(what, _)| !hides(what) && !what.contains("another") && !what.contains("without"));
            all.extend(rows(&one, own.collect(), true));
            all.extend(rows(&one, misplaced(one.mac, one.ipv4, one.ipv6, one.mac), true));
            let foreign = claims(one.mac, three.ipv4, three.ipv6).into_iter();
            let strict = pin.contains("ip =");
            all.extend(rows(&one, foreign.filter(|(what, _)| hides(what) || strict).collect(), false));
            if let Err(error) = expect(&network, &all) {
                return Err(error.context(format!("{layout:?}, {pin}")));
            }
            let what = if pin.contains("ip =") { "10.0.0.1" } else { "02:00:00:00:00:01" };
            network.wait_problem(
                &format!("h2/green-1, a port of tenant green, sends as {what}, which is pinned to")
                    .replace("h2", &bridge(layout, 2)),
            )?;
            network.meet("green")?;
        }
    }
    Ok(())
}

/// Pinned ports are held against each other as well, whatever each of them pins.
#[test]
fn ports_that_are_pinned_send_as_no_other() -> Result<()> {
    for layout in [Layout::Shared, Layout::PerTenant] {
        let two = "mac = \"02:00:00:00:00:02\"";
        let three = "ip = [\"10.0.0.3\", \"fd00::3\"]";
        let (network, all) = start(layout, &[(1, ONE), (2, two), (3, three)])?;
        let mut rows_ = Vec::new();
        for thief in &all {
            for of in all.iter().filter(|of| of.mac != thief.mac) {
                let pinned = |host: usize, key: &str| [ONE, two, three][host - 1].contains(key);
                // One that may send from its own addresses only may send from no other; others, from those that nobody has.
                let passes = !pinned(of.host, "ip =") && !pinned(thief.host, "ip =");
                let stolen = claims(thief.mac, of.ipv4, of.ipv6).into_iter();
                rows_.extend(rows(thief, stolen.filter(|(what, _)| !hides(what)).collect(), passes));
                let passes = |what: &str| {
                    !pinned(of.host, "mac =")
                        && !(pinned(thief.host, "mac =") && (what == "its MAC address" || thief.host == 1))
                };
                let stolen = misplaced(thief.mac, thief.ipv4, thief.ipv6, of.mac);
                rows_.extend(stolen.into_iter().map(|(what, frame)| (thief, what.to_owned(), frame, passes(what))));
            }
        }
        if let Err(error) = expect(&network, &rows_) {
            return Err(error.context(format!("{layout:?}")));
        }
        network.meet("green")?;
    }
    Ok(())
}

/// What a machine sends before it has an address, and to keep it, leaves its pinned port.
#[test]
fn a_pinned_machine_gets_and_keeps_its_addresses() -> Result<()> {
    for layout in [Layout::Shared, Layout::PerTenant] {
        let (network, [one, ..]) = start(layout, &[(1, ONE)])?;
        let (mac, local, other) = (one.mac, link_local(one.mac), Mac([2, 0, 0, 0, 9, 9]));
        let private = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xabcd, 1, 2, 3);
        let probe = |source, tpa| Arp { op: 1, spa: NOBODY_V4, tpa, ..Arp::announcement(source, tpa) }.frame(&[]);
        let group = [&[0, 0, 0, 1, 4, 0, 0, 0][..], &Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1).octets()].concat();
        let rows = [
            ("DHCP, from no address", udp(mac, NOBODY_V4, [68, 67]), true),
            ("DHCP, from its address", udp(mac, one.ipv4, [68, 67]), true),
            (
                "IGMP, from no address",
                ipv4(mac, NOBODY_V4, 2, &[0x22, 0, 0xf9, 2, 0, 0, 0, 1, 4, 0, 0, 0, 224, 0, 0, 251]),
                true,
            ),
            ("IGMP, from its address", ipv4(mac, one.ipv4, 2, &[0x16, 0, 9, 4, 224, 0, 0, 251]), true),
            ("a probe for its address", probe(mac, one.ipv4), true),
            ("a probe for duplicates of its address", discovery(mac, NOBODY_V6, SOLICIT, one.ipv6, &[]), true),
            ("one of its link-local address", discovery(mac, NOBODY_V6, SOLICIT, local, &[]), true),
            ("an advertisement of its link-local address", discovery(mac, local, ADVERTISE, local, &[(2, mac)]), true),
            ("one without option", discovery(mac, one.ipv6, ADVERTISE, one.ipv6, &[]), true),
            ("a solicitation without option", discovery(mac, one.ipv6, SOLICIT, Ipv6Addr::LOCALHOST, &[]), true),
            ("a router solicitation from no address", icmpv6(mac, NOBODY_V6, 133, &[0; 4]), true),
            (
                "one from its link-local address",
                icmpv6(mac, local, 133, &[&[0; 4][..], &[1, 1], &mac.0].concat()),
                true,
            ),
            ("MLD, from no address", icmpv6(mac, NOBODY_V6, 143, &group), true),
            ("MLD version 1, from no address", icmpv6(mac, NOBODY_V6, 131, &[&[0; 4][..], &group[8..]].concat()), true),
            ("MLD, from its link-local address", icmpv6(mac, local, 143, &group), true),
            (
                "DHCPv6",
                ipv6(mac, local, 17, &[546_u16.to_be_bytes(), 547_u16.to_be_bytes(), [0, 7], [0, 0]].concat()),
                true,
            ),
            ("other UDP from no address", udp(mac, NOBODY_V4, [68, 53]), false),
            ("DHCP of another machine", udp(other, NOBODY_V4, [68, 67]), false),
            ("a probe for another address", probe(mac, Ipv4Addr::new(10, 0, 0, 77)), false),
            ("a probe of another machine", probe(other, one.ipv4), false),
            ("a ping from no address", icmpv6(mac, NOBODY_V6, 128, &[0; 4]), false),
            ("a router advertisement", icmpv6(mac, local, 134, &[64, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0]), false),
            ("a link-local address that isn't made from the MAC address", icmpv6(mac, private, 133, &[0; 4]), false),
        ];
        let rows: Vec<_> =
            rows.into_iter().map(|(what, frame, passes)| (&one, what.to_owned(), frame, passes)).collect();
        if let Err(error) = expect(&network, &rows) {
            return Err(error.context(format!("{layout:?}")));
        }
        network.wait_problem(
            "says that it is fe80::abcd:1:2:3, a link-local address that isn't made from its MAC address",
        )?;
        // The machine itself, with duplicate detection and all: what it says comes from where it may.
        one.netns.run(|| {
            let commands = "link set eth0 down\nlink set eth0 addrgenmode eui64\nlink set eth0 up\naddr replace fd00::1/64 dev eth0\n";
            one.netns.ip_batch(commands)
        })?;
        lab::wait_until("the end of duplicate detection", MS(5000), || {
            let told = network.lab.host(1)?.shell(&format!("ip -n {} -6 addr show dev eth0", one.netns.name()))?;
            ensure!(!told.contains("dadfailed"), "{told}");
            Ok(told.contains("fd00::1/64") && told.contains("fe80::") && !told.contains("tentative"))
        })?;
        network.meet("green")?;
    }
    Ok(())
}

/// Routers that share addresses take them over from each other; nobody else can.
#[test]
fn shared_addresses_are_sent_from_the_ports_that_share_them() -> Result<()> {
    for layout in [Layout::Shared, Layout::PerTenant] {
        let shared = "shared_mac = [\"00:00:5e:00:01:33\"], shared_ip = [\"10.0.0.100\", \"fd00::100\"]";
        let two = "mac = \"02:00:00:00:00:02\", ip = [\"10.0.0.2\", \"fd00::2\"]";
        let (network, [one, two, three]) =
            start(layout, &[(1, &format!("{ONE}, {shared}")), (2, &format!("{two}, {shared}"))])?;
        let (v4, v6) = (Ipv4Addr::new(10, 0, 0, 100), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100));
        let mut rows = Vec::new();
        for (from, passes) in [(&one, true), (&two, true), (&three, false)] {
            for mac in [VIRTUAL, from.mac] {
                let own = if mac == VIRTUAL { "from the virtual address" } else { "from its own" };
                for (what, frame) in [
                    ("the virtual router's announcement", Arp::announcement(mac, v4).frame(&[])),
                    ("its advertisement in IPv6", discovery(mac, v6, ADVERTISE, v6, &[(2, mac)])),
                    ("a packet of it", udp(mac, v4, [9, 9])),
                ] {
                    rows.push((from, format!("{what} {own}"), frame, passes));
                }
            }
            rows.push((from, "VRRP".to_owned(), ipv4(VIRTUAL, from.ipv4, 112, &[0x31, 0x33, 100, 0]), passes));
        }
        if let Err(error) = expect(&network, &rows) {
            return Err(error.context(format!("{layout:?}")));
        }
        network.meet("green")?;
    }
    Ok(())
}

/// A router tells everybody of itself, and of a network.
fn advertisement(from: &Container) -> Frame {
    let network = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0);
    let prefix = [&[3, 4, 64, 0xc0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0][..], &network.octets()].concat();
    icmpv6(from.mac, link_local(from.mac), 134, &[&[64, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0][..], &prefix].concat())
}

fn offers(from: &Container) -> [(&'static str, Frame); 4] {
    let [client, server] = [546_u16, 547].map(u16::to_be_bytes);
    [
        ("a router advertisement", advertisement(from)),
        ("an answer of a DHCP server", udp(from.mac, from.ipv4, [67, 68])),
        ("one from another port", udp(from.mac, from.ipv4, [9, 68])),
        (
            "an answer of a DHCPv6 server",
            ipv6(from.mac, link_local(from.mac), 17, &[server, client, [0, 7], [0, 0]].concat()),
        ),
    ]
}

/// Has the machine taken a route from an advertisement?
fn is_led(network: &Network, container: &Container) -> Result<bool> {
    let routes = network.lab.host(1)?.shell(&format!("ip -n {} -6 route show proto ra", container.netns.name()))?;
    Ok(routes.contains("default"))
}

/// Router advertisements, and what DHCP servers answer, come from the ports that the policy names, and lead nobody else.
#[test]
fn routers_and_servers_are_those_that_the_policy_names() -> Result<()> {
    let anything = "[[tenant.rule]]\nname = \"all\"\nmatch = [{ protocol = \"udp\" }, { protocol = \"icmp\" }]\naction = \"allow\"\n";
    for layout in [Layout::Shared, Layout::PerTenant] {
        let named = pins(layout, &[(1, "router = true, dhcp_server = true")]);
        for (default, ports, rules, one_may, two_may) in [
            ("allow", "", "", true, true),
            ("allow", &*named, "", true, false),
            ("drop", "", anything, false, false),
            ("drop", &*named, "", true, false),
        ] {
            let green = format!("default = \"{default}\"\n{rules}");
            let network = Network::with_policy(&spec(layout), &green_and_orange(ports, &green))?;
            let [one, two, three] = [1, 2, 3].map(|host| network.lab.container(host, "green-1"));
            let (one, two, three) = (one?, two?, three?);
            let what = |error: anyhow::Error| error.context(format!("{layout:?}, {default}, {ports:?}"));
            let all: Vec<_> = rows(&two, offers(&two).into(), two_may).collect();
            expect(&network, &all).map_err(what)?;
            ensure!(is_led(&network, &three)? == two_may, "{layout:?}, {default}, {ports:?}: led by h2");
            if !two_may {
                network.wait_problem("sends router advertisements: dropped")?;
                network.wait_problem("sends answers of a DHCP server: dropped")?;
            }
            let all: Vec<_> = rows(&one, offers(&one).into(), one_may).collect();
            expect(&network, &all).map_err(what)?;
            ensure!(is_led(&network, &three)? == one_may, "{layout:?}, {default}, {ports:?}: led by h1");
            // What asks them passes without a rule where somebody is there to answer.
            if default == "drop" {
                let ask = rows(&two, vec![("a request to a DHCP server", udp(two.mac, NOBODY_V4, [68, 67]))], true);
                expect(&network, &ask.collect::<Vec<_>>()).map_err(what)?;
            }
        }
    }
    Ok(())
}

/// Rules tell messages of ICMP apart by type and code, in both versions of IP.
#[test]
fn rules_tell_messages_of_icmp_apart() -> Result<()> {
    let rule = "[[tenant.rule]]\nname = \"no-pings\"\naction = \"drop\"\nmatch = [\n  { protocol = \"icmp\", icmp_type = \"echo-request\" },\n  \
                { protocol = \"icmp\", icmp_type = 3, icmp_code = 4 },\n]\n";
    for layout in [Layout::Shared, Layout::PerTenant] {
        let network = Network::with_policy(&spec(layout), &green_and_orange("", rule))?;
        let one = network.lab.container(1, "green-1")?;
        let v4 = |kind, code| ipv4(one.mac, one.ipv4, 1, &[kind, code, 0, 0, 0, 0, 0, 0]);
        let v6 = |kind, code| ipv6(one.mac, one.ipv6, 58, &[kind, code, 0, 0, 0, 0, 0, 0]);
        let all = [
            ("an echo request", v4(8, 0), false),
            ("an echo reply", v4(0, 0), true),
            ("too long", v4(3, 4), false),
            ("unreachable", v4(3, 1), true),
            ("an echo request in IPv6", v6(128, 0), false),
            ("an echo reply in IPv6", v6(129, 0), true),
            ("what has the number in IPv6", v6(3, 4), false),
            ("another code of it", v6(3, 0), true),
        ];
        let all: Vec<_> = all.into_iter().map(|(what, frame, passes)| (&one, what.to_owned(), frame, passes)).collect();
        expect(&network, &all)?;
    }
    Ok(())
}
