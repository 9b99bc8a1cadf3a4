//! Goal: a pattern of a tenant's ports never takes a link. Tunnels that are called like the tenant's ports stay links, cables
//! become nobody's and that is told; either way nothing that is flooded comes twice, or runs in a circle. On real Open vSwitch.

mod network;

use std::thread::sleep;

use anyhow::{Result, ensure};
use lab::{Carrier, ControllerSpec, Frame, Lab, Layout, Spec};

use network::{MS, Network, spec};

/// A policy whose patterns match these port names, and the names of links.
fn policy(links: &str, green: &str, orange: &str) -> String {
    format!(
        "version = 1\n[fabric]\nlinks = {links}\n[[tenant]]\nname = \"green\"\nkey = 100\nports = [{green}]\n\
         [[tenant]]\nname = \"orange\"\nkey = 200\nports = [{orange}]\n"
    )
}

fn any(pattern: &str) -> String {
    format!("{{ bridge = \"*\", port = \"{pattern}\" }},")
}

#[test]
fn tunnels_called_like_a_tenants_ports_stay_links() -> Result<()> {
    let tunnels = policy("[\"*\"]", &any("*green*"), &any("*orange*"));
    let mut network = Network::with_policy(&spec(Layout::PerTenant), &tunnels)?;
    ensure!(network.problems()?.is_empty(), "{:?}", network.problems()?);
    network.meet("green")?;
    network.meet("orange")?;
    network.check_delivery()?;
    let changes = network.changes_sent()?;
    ensure!(changes > 0);
    network.controller.kill9();
    network.controller.start()?;
    network.settle()?;
    ensure!(network.changes_sent()? == 0, "a restart changed something");
    network.check_delivery()?;

    // A plan tells which pattern matches which link, and which link an entry of its very name would take.
    let plan = |policy: &str| -> Result<String> {
        let path = network.lab.dir().join("other.toml");
        std::fs::write(&path, policy)?;
        let output = network.controller.cli(&["plan", &path.display().to_string()])?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let told = plan(&tunnels)?;
    ensure!(told.contains("`*green*` of tenant green (") && told.contains("a pattern never takes a link"), "{told}");
    let by_name = policy("[\"*\"]", &format!("{}{}", any("green-*"), any("tun2-green")), &any("orange-*"));
    let told = plan(&by_name)?;
    ensure!(
        told.contains("h1/tun2-green leads to another port of this fabric, but it is a port of tenant green"),
        "{told}"
    );
    network.controller.apply_policy(&by_name)?;
    network.wait_problem("it is a port of tenant green (")
}

#[test]
fn cables_called_like_a_tenants_ports_are_nobodys_unless_links_are_named_more_exactly() -> Result<()> {
    let spec = Spec { carrier: Carrier::Veth, ..spec(Layout::Shared) };
    let lab = Lab::start(&spec)?;
    let both = format!("{}{}", any("green-*"), any("wire*"));
    let controller = lab.start_controller(&ControllerSpec::policy(policy("[\"*\"]", &both, &any("orange-*"))))?;
    let network = Network { controller, lab };
    network.settled(3, 0)?;
    network.wait_problem("matches `wire*` of tenant `green`")?;
    sleep(MS(500));
    let one = network.lab.container(1, "green-1")?;
    let frame = Frame::broadcast(one.mac);
    let seen = network.watch(|| one.send(&frame))?;
    seen.expect(&frame, &[], "a broadcast where the only ways are cables that a pattern matches")?;

    let named = policy("[\"wire?\", \"wire1\", \"wire2\", \"wire3\"]", &both, &any("orange-*"));
    network.apply(&named)?;
    ensure!(network.problems()?.is_empty(), "{:?}", network.problems()?);
    network.meet("green")?;
    network.meet("orange")?;
    network.check_delivery()
}
