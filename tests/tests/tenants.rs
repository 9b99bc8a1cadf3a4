//! Goal: each tenant has a network of its own in which everybody gets what is meant for them, exactly once, over the
//! shortest way; and nothing crosses, although all tenants use the same addresses. On real Open vSwitch, with real
//! frames, for every layout and carrier.

mod network;

use std::collections::BTreeMap;
use std::thread::sleep;

use anyhow::{Result, ensure};
use lab::{BROADCAST, Capture, Carrier, Direction, Frame, Layout, Mac, Shape, Spec};

use network::{MS, Network, POLICY, spec};

fn whole_and_apart(spec: &Spec) -> Result<()> {
    let network = Network::start(spec)?;
    for tenant in ["green", "orange"] {
        network.meet(tenant)?;
    }
    network.check_delivery()?;
    known_unicast_is_direct(&network)
}

/// Pings take the link between the two hosts alone; the other links see no more than the probes.
fn known_unicast_is_direct(network: &Network) -> Result<()> {
    const PINGS: u64 = 200;
    let from = network.lab.container(1, "green-1")?;
    for peer in [2, 3] {
        let to = network.lab.container(peer, "green-1")?;
        let direct = &network.lab.link(1, peer, "green")?.end(1)?.port;
        // A switch brings its counters up to date once in a while; those of earlier frames have to be in.
        sleep(MS(1500));
        let before = network.sent_over_links(1, "green")?;
        from.netns.command("ping", &["-q", "-c", &PINGS.to_string(), "-i", "0.002", &to.ipv4.to_string()])?;
        let mut more = BTreeMap::new();
        lab::wait_until("the pings in the direct link's counter", MS(5000), || {
            let now = network.sent_over_links(1, "green")?;
            more = now.into_iter().map(|(port, sent)| (port.clone(), sent - before[&port])).collect();
            Ok(more[direct] >= PINGS)
        })?;
        more.remove(direct);
        ensure!(more.values().all(|more| *more < PINGS / 2), "frames on other ways to h{peer}: {more:?}");
    }
    Ok(())
}

#[test]
fn shared_bridges_over_vxlan() -> Result<()> {
    whole_and_apart(&spec(Layout::Shared))
}

#[test]
fn shared_bridges_over_gre() -> Result<()> {
    whole_and_apart(&Spec { carrier: Carrier::Gre, ..spec(Layout::Shared) })
}

#[test]
fn shared_bridges_over_geneve() -> Result<()> {
    whole_and_apart(&Spec { carrier: Carrier::Geneve, ..spec(Layout::Shared) })
}

#[test]
fn shared_bridges_over_plain_links() -> Result<()> {
    whole_and_apart(&Spec { carrier: Carrier::Veth, ..spec(Layout::Shared) })
}

#[test]
fn a_bridge_per_tenant_over_vxlan() -> Result<()> {
    whole_and_apart(&spec(Layout::PerTenant))
}

#[test]
fn a_bridge_per_tenant_over_gre() -> Result<()> {
    whole_and_apart(&Spec { carrier: Carrier::Gre, ..spec(Layout::PerTenant) })
}

#[test]
fn a_bridge_per_tenant_over_plain_links() -> Result<()> {
    whole_and_apart(&Spec { carrier: Carrier::Veth, ..spec(Layout::PerTenant) })
}

#[test]
fn both_layouts_beside_each_other_with_several_containers() -> Result<()> {
    whole_and_apart(&Spec { containers: 2, ..spec(Layout::Mixed) })
}

#[test]
fn a_ring_of_five_needs_transit() -> Result<()> {
    let network = Network::start(&Spec { hosts: 5, shape: Shape::Ring, ..spec(Layout::Shared) })?;
    for tenant in ["green", "orange"] {
        network.meet(tenant)?;
    }
    network.check_delivery()
}

#[test]
fn a_partial_mesh_with_transit_where_the_tenant_has_no_port() -> Result<()> {
    let shape = Shape::Edges(vec![(1, 2), (2, 3), (3, 4)]);
    for carrier in [Carrier::Vxlan, Carrier::Veth] {
        let network = Network::start(&Spec { hosts: 4, shape: shape.clone(), carrier, ..spec(Layout::Shared) })?;
        for host in [2, 3] {
            network.lab.remove_container(&network.lab.container(host, "orange-1")?)?;
        }
        network.settle()?;
        for tenant in ["green", "orange"] {
            network.meet(tenant)?;
        }
        network.check_delivery()?;
        let tree = network.controller.get("/v1/tenants/orange")?["tree"].clone();
        ensure!(tree["bridges"].as_array().map(Vec::len) == Some(4), "orange passes h2 and h3: {tree}");
    }
    Ok(())
}

/// A tenant's own tags arrive as they were sent, over every carrier, flooded or not; only the id 4094, which marks floods
/// on tunnels of fixed key, is refused.
#[test]
fn own_tags_pass_unchanged() -> Result<()> {
    let specs = [
        spec(Layout::Shared),
        spec(Layout::PerTenant),
        Spec { carrier: Carrier::Veth, ..spec(Layout::Shared) },
        Spec { carrier: Carrier::Veth, ..spec(Layout::PerTenant) },
    ];
    for spec in specs {
        let network = Network::start(&Spec { hosts: 2, ..spec.clone() })?;
        network.meet("green")?;
        let (from, to) = (network.lab.container(1, "green-1")?, network.lab.container(2, "green-1")?);
        let unknown = Mac([2, 0, 0, 0xff, 0xff, 0xfe]);
        let tags: [&[(u16, u16)]; 4] =
            [&[(0x8100, 7)], &[(0x8100, 0x6000 | 4093)], &[(0x8100, 0)], &[(0x88a8, 8), (0x8100, 9)]];
        let frames: Vec<Frame> = [BROADCAST, to.mac, unknown]
            .iter()
            .flat_map(|destination| tags.iter().map(|tags| Frame::tagged(from.mac, *destination, tags)))
            .collect();
        let refused = Frame::tagged(from.mac, to.mac, &[(0x8100, 4094)]);
        let capture = Capture::at_port(network.lab.host(2)?, &to.port, Direction::Sent)?;
        frames.iter().chain([&refused]).try_for_each(|frame| from.send(frame))?;
        sleep(MS(400));
        let captured = capture.stop()?;
        for frame in &frames {
            let arrived = captured.count(|bytes| bytes == frame.bytes);
            ensure!(
                arrived == 1,
                "{spec:?}: {arrived} unchanged of {} copies of {:02x?}",
                captured.copies(frame),
                frame.bytes
            );
        }
        ensure!(captured.copies(&refused) == 0, "{spec:?}: the id 4094 passed");
    }
    Ok(())
}

#[test]
fn unknown_unicast_can_be_dropped() -> Result<()> {
    let policy = POLICY.replace("unknown_unicast = \"flood\"", "unknown_unicast = \"drop\"");
    let network = Network::with_policy(&spec(Layout::Shared), &policy)?;
    network.meet("green")?;
    let from = network.lab.container(1, "green-1")?;
    let (unknown, broadcast) = (Frame::unknown_unicast(from.mac), Frame::broadcast(from.mac));
    let seen = network.watch(|| from.send(&unknown).and_then(|()| from.send(&broadcast)))?;
    let (two, three) = (network.lab.container(2, "green-1")?, network.lab.container(3, "green-1")?);
    seen.expect(&unknown, &[], "unknown unicast")?;
    seen.expect(&broadcast, &[&two, &three], "broadcast")
}

/// Bonds, 802.1X, LLDP and spanning tree of a tenant's own machines, where it says so, and of its own alone.
#[test]
fn link_local_frames_pass_where_the_tenant_says_so() -> Result<()> {
    let policy = POLICY.replacen("unknown_unicast = \"flood\"", "link_local = \"pass\"", 1);
    for spec in [spec(Layout::Shared), spec(Layout::PerTenant), Spec { carrier: Carrier::Veth, ..spec(Layout::Shared) }]
    {
        let network = Network::with_policy(&spec, &policy)?;
        network.meet("green")?;
        network.meet("orange")?;
        let [green, orange] = ["green", "orange"].map(|tenant| network.lab.tenant(tenant));
        let to = |mac, last| Frame::new(mac, Mac([0x01, 0x80, 0xc2, 0, 0, last]));
        let passing = [0x00, 0x02, 0x03, 0x0e].map(|last| to(green[0].mac, last));
        let (pause, foreign) = (to(green[0].mac, 0x01), to(orange[0].mac, 0x0e));
        let seen = network.watch(|| {
            passing.iter().chain([&pause]).try_for_each(|frame| green[0].send(frame))?;
            orange[0].send(&foreign)
        })?;
        let others: Vec<_> = green.iter().filter(|to| to.netns != green[0].netns).collect();
        for frame in &passing {
            seen.expect(frame, &others, &format!("{spec:?}: link-local"))?;
        }
        seen.expect(&pause, &[], "a pause frame")?;
        seen.expect(&foreign, &[], "of a tenant that doesn't say so")?;
    }
    Ok(())
}
