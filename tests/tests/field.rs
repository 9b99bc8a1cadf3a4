//! Goal: what networks in the field are made of is a fabric like any other: patch ports in a row, bonds below the tunnels and
//! as links, whatever an operator switches on in Open vSwitch beside. It does its own work in tables of its own, and nobody is
//! alarmed.

mod network;

use std::thread::sleep;

use anyhow::{Context, Result, ensure};
use lab::{ContinuousPing, Spec};

use network::{MS, Network};

const README: &str = include_str!("../../README.md");

/// What the README says an operator types for each bridge.
fn setup(bridge: &str, controller: &str) -> Result<String> {
    let (_, section) = README.split_once("\n## Use it\n").context("README says how it is used")?;
    let block = section.split("```\n").nth(1).context("README has a command for each bridge")?;
    let controller = controller.split(':').next().unwrap_or_default();
    ensure!(block.contains("BR") && block.contains("CTRL"), "{block}");
    Ok(block.replace("BR", bridge).replace("CTRL", controller))
}

fn two() -> Spec {
    Spec { hosts: 2, ..Spec::default() }
}

/// `br0` – `mid` – `end` on one host, joined by patch ports, and from `br0` on a tunnel to another host. Bridges are set up
/// as README says.
#[test]
fn patch_ports_in_a_row_and_a_tunnel() -> Result<()> {
    let network = Network::start(&two())?;
    let host = network.lab.host(1)?;
    for bridge in ["mid", "end"] {
        let made = format!("set bridge {bridge} datapath_type=netdev other_config:dp-desc={bridge}");
        host.shell(&format!("ovs-vsctl add-br {bridge} -- {made}"))?;
        host.shell(&setup(bridge, &network.lab.controller_address())?)?;
    }
    for (near, far) in [("br0", "mid"), ("mid", "end")] {
        let port = |at: &str, to: &str| {
            format!("-- add-port {at} {at}-{to} -- set interface {at}-{to} type=patch options:peer={to}-{at} ")
        };
        host.shell(&format!("ovs-vsctl {} {}", port(near, far), port(far, near)))?;
    }
    for (bridge, address) in [("mid", 11), ("end", 12)] {
        network.lab.add_container(1, bridge, &format!("green-{bridge}"), address)?;
        network.lab.add_container(1, bridge, &format!("orange-{bridge}"), address)?;
    }
    network.settled(4, 3)?;
    for tenant in ["green", "orange"] {
        let matrix = network.lab.ping_matrix(tenant, MS(5000))?;
        ensure!(matrix.is_full(), "{tenant}: {matrix}");
    }
    network.check_delivery()?;

    // README's command says the same when it is given again: nothing happens.
    network.settled(4, 3)?;
    let (before, told) = (network.changes_sent()?, network.controller.get("/v1/bridges")?);
    let ids = |told: &serde_json::Value| -> Vec<String> {
        told.as_array().into_iter().flatten().map(|bridge| bridge["dpid"].to_string()).collect()
    };
    host.shell(&setup("mid", &network.lab.controller_address())?)?;
    sleep(MS(300));
    ensure!(network.changes_sent()? == before && ids(&network.controller.get("/v1/bridges")?) == ids(&told));
    ensure!(network.problems()?.is_empty(), "{:?}", network.problems()?);
    Ok(())
}

/// The cables to the underlay are bonds. One cable goes: tunnels and links stay, traffic hardly stops.
#[test]
fn a_bond_below_the_tunnels_loses_a_cable() -> Result<()> {
    let network = Network::start(&two())?;
    for host in [1, 2] {
        network.lab.bond_uplinks(host, "active-backup")?;
    }
    network.settle()?;
    network.meet("green")?;
    network.lab.pin_neighbours()?;
    let (one, two) = (network.lab.container(1, "green-1")?, network.lab.container(2, "green-1")?);
    for mode in ["active-backup", "balance-slb"] {
        for host in network.lab.hosts() {
            host.vsctl(&["set", "port", "bond0", &format!("bond_mode={mode}")])?;
        }
        sleep(MS(300));
        for cable in ["uplink", lab::SECOND_UPLINK] {
            let ping = ContinuousPing::start(&one, two.ipv4)?;
            network.lab.set_interface(1, cable, false)?;
            sleep(MS(500));
            network.lab.set_interface(1, cable, true)?;
            sleep(MS(300));
            let report = ping.stop()?;
            ensure!(report.longest_outage < MS(300) && report.duplicates == 0, "{mode}, {cable}: {report:?}");
        }
        network.check_delivery()?;
    }
    let log = network.controller.log();
    ensure!(!log.contains("is down") && network.problems()?.is_empty(), "{log}\n{:?}", network.problems()?);
    Ok(())
}

/// What a bridge has besides, and what an operator may switch on there.
const BESIDES: [&str; 9] = [
    "set bridge br0 other_config:disable-in-band=false -- set controller br0 connection_mode=in-band",
    "set bridge br0 mcast_snooping_enable=true other_config:mac-aging-time=15 other_config:forward-bpdu=true",
    "-- --id=@s create sflow agent=lo target='\"127.0.0.1:6343\"' sampling=2 polling=1 -- set bridge br0 sflow=@s",
    "-- --id=@i create ipfix targets='\"127.0.0.1:4739\"' sampling=2 -- set bridge br0 ipfix=@i",
    "-- --id=@n create netflow targets='\"127.0.0.1:2055\"' active_timeout=1 -- set bridge br0 netflow=@n",
    "-- --id=@p get port br0 -- --id=@m create mirror name=m select-all=true output-port=@p -- set bridge br0 mirrors=@m",
    "-- --id=@a create autoattach system_name=x system_description=y -- set bridge br0 auto_attach=@a",
    "-- --id=@f create flow_table name=t flow_limit=100000 overflow_policy=refuse -- set bridge br0 flow_tables:0=@f",
    "set-fail-mode br0 standalone",
];

/// Two cables between two bridges, as a bond at both: for OpenFlow these are two links. Open vSwitch keeps 256 entries about it
/// in a table of its own, and goes on changing them; and whatever else it does by itself is no change of somebody's.
#[test]
fn a_bond_as_links_and_what_open_vswitch_does_by_itself() -> Result<()> {
    let network = Network::start(&Spec { bfd_ms: Some(100), ..two() })?;
    network.meet("green")?;
    let bond =
        "bond_mode=balance-tcp lacp=active other_config:lacp-time=fast other_config:bond-rebalance-interval=1000";
    for cable in ["a", "b"] {
        network.lab.lay_cable((1, &format!("left-{cable}")), (2, &format!("right-{cable}")))?;
    }
    let far = network.lab.host(2)?;
    // With LACP at one end only, that end's ports aren't live, and carry nothing.
    network.lab.host(1)?.shell(&format!("ovs-vsctl add-bond br0 bond0 left-a left-b {bond}"))?;
    far.shell("ovs-vsctl add-port br0 right-a -- add-port br0 right-b")?;
    sleep(MS(300));
    network.settled(2, 1)?;
    network.check_delivery()?;
    far.shell("ovs-vsctl del-port right-a -- del-port right-b")?;
    far.shell(&format!("ovs-vsctl add-bond br0 bond0 right-a right-b {bond}"))?;
    network.settled(2, 3)?;
    let own = |host: usize| -> Result<usize> {
        let entries = network.lab.host(host)?.appctl("bridge/dump-flows", &["br0"])?;
        Ok(entries.lines().filter(|line| line.contains("table_id=254") && line.contains("recirc_id=0x")).count())
    };
    lab::wait_until("the bonds' own entries", MS(10_000), || Ok(own(1)? >= 256 && own(2)? >= 256))?;
    network.check_delivery()?;

    let one = network.lab.container(1, "green-1")?;
    let ping = ContinuousPing::start(&one, network.lab.container(2, "green-1")?.ipv4)?;
    network.settled(2, 3)?;
    let before = network.changes_sent()?;
    let host = network.lab.host(1)?;
    for line in BESIDES {
        host.shell(&format!("ovs-vsctl {line}")).with_context(|| line.to_owned())?;
    }
    for [command, argument] in [["fdb/flush", "br0"], ["revalidator/purge", ""], ["dpctl/flush-conntrack", ""]] {
        let arguments: Vec<&str> = [argument].into_iter().filter(|argument| !argument.is_empty()).collect();
        host.appctl(command, &arguments)?;
    }
    // Groups and meters are asked for each 1.5 s; what is told comes at once.
    sleep(MS(2500));
    let report = ping.stop()?;
    ensure!(network.changes_sent()? == before, "{} changes were sent", network.changes_sent()? - before);
    ensure!(report.duplicates == 0 && report.longest_outage < MS(300), "{report:?}");
    ensure!(!network.controller.log().contains("somebody"), "an alarm");
    ensure!(network.problems()?.is_empty(), "{:?}", network.problems()?);

    // It also throws out entries that may go by themselves where an operator leaves no room for them.
    host.shell(
        "ovs-vsctl -- --id=@f create flow_table name=full flow_limit=2 overflow_policy=evict \
         -- set bridge br0 flow_tables:4=@f",
    )?;
    network.wait_problem("want of room evicted an entry of bridge h1: table 4 (learn)")?;
    host.shell("ovs-vsctl clear bridge br0 flow_tables")?;
    ensure!(!network.controller.log().contains("somebody"), "an alarm");

    // A cable goes: the other link stays, and the bond moves its entries.
    network.lab.set_interface(1, "left-a", false)?;
    network.settled(2, 2)?;
    network.check_delivery()
}
