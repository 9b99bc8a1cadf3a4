//! Goal: what moves is followed, also there and back within a second, and what is wrong is told apart from what is usual: a bond
//! that fails over, a virtual router's address, two hosts with one address, a loop. On real Open vSwitch.

mod network;

use std::thread::{self, sleep};

use anyhow::{Result, ensure};
use lab::{Container, ContinuousPing, Frame, Layout, Mac};

use network::{MS, Network, spec};

/// The same address at two ports: the legs of a bond, whose carrier stays whichever is active.
struct Bond {
    legs: [Container; 2],
}

impl Bond {
    fn new(network: &Network) -> Result<Self> {
        let one = network.lab.add_container(1, "br0", "green-b1", 99)?;
        let two = network.lab.add_container(2, "br0", "green-b2", 98)?;
        for leg in [&one, &two] {
            // A leg that isn't active says nothing.
            leg.netns.command("sysctl", &["-q", "-w", "net.ipv6.conf.all.disable_ipv6=1"])?;
            leg.netns.ip_batch(&format!("addr flush dev eth0\nlink set eth0 address {}\n", one.mac))?;
        }
        let two = Container { mac: one.mac, ipv4: one.ipv4, ipv6: one.ipv6, ..two };
        Ok(Self { legs: [one, two] })
    }

    /// Makes one leg the active one, which tells so once, as bonds do.
    fn activate(&self, active: usize) -> Result<()> {
        let [on, off] = [&self.legs[active], &self.legs[1 - active]];
        off.netns.ip_batch("addr flush dev eth0\n")?;
        on.netns.ip_batch(&format!("addr add {}/24 dev eth0\n", on.ipv4))?;
        on.send(&Frame::broadcast(on.mac))
    }
}

impl Bond {
    /// Both legs claim to be active, and talk to a host.
    fn break_apart(&self, to: &Container) -> Result<()> {
        self.legs.iter().try_for_each(|leg| {
            leg.netns.ip_batch(&format!(
                "addr replace {}/24 dev eth0\nneigh replace {} lladdr {} dev eth0 nud permanent\n",
                leg.ipv4, to.ipv4, to.mac
            ))
        })
    }
}

/// Nothing of it is a problem; the log has it.
fn told_as_usual(network: &Network, address: Mac, text: &str) -> Result<()> {
    let logged = || Ok(network.controller.log().lines().any(|line| line.contains(text)));
    lab::wait_until(&format!("a line of the log that says `{text}`"), MS(2000), logged)?;
    let problems = network.problems()?;
    ensure!(!problems.iter().any(|problem| problem.contains(&address.to_string())), "no problem: {problems:?}");
    Ok(())
}

/// A container's two ports are joined by a bridge inside it.
fn tie_a_loop(network: &Network) -> Result<()> {
    let [one, two] =
        [(1, "green-l1"), (2, "green-l2")].map(|(host, port)| network.lab.add_container(host, "br0", port, 97));
    let (one, two) = (one?, two?);
    two.netns.ip_batch(&format!("link set eth0 netns {} name eth1\n", one.netns.name()))?;
    one.netns.ip_batch(
        "link add loop type bridge\nlink set eth0 master loop\nlink set eth1 master loop\nlink set eth1 up\nlink set loop up\n",
    )
}

#[test]
fn moves_are_followed_there_and_back_and_what_is_wrong_is_told_apart() -> Result<()> {
    let network = Network::start(&spec(Layout::Shared))?;
    let bond = Bond::new(&network)?;
    let from = network.lab.container(3, "green-1")?;
    let (mac, ip) = (bond.legs[0].mac, bond.legs[0].ipv4);
    bond.activate(0)?;
    ensure!(network.lab.ping_within(&from, ip, MS(3000))?, "the bond answers");
    from.netns.ip_batch(&format!("neigh replace {ip} lladdr {mac} dev eth0 nud permanent\n"))?;
    sleep(MS(1500));
    for pause in [400, 150] {
        let ping = ContinuousPing::start(&from, ip)?;
        sleep(MS(300));
        bond.activate(1)?;
        sleep(MS(pause));
        bond.activate(0)?;
        sleep(MS(1700));
        let report = ping.stop()?;
        println!("there and back in {pause} ms: {:?} without answer", report.outages);
        ensure!(report.longest_outage < MS(1500), "there and back in {pause} ms: {report:?}");
    }
    told_as_usual(&network, mac, "moved back from h2/green-b2 to h1/green-b1: a fail-over")?;

    let router = Mac([0, 0, 0x5e, 0, 1, 51]);
    for leg in &bond.legs {
        leg.send(&Frame::broadcast(router))?;
        sleep(MS(1200));
    }
    told_as_usual(&network, router, "virtual router 51 (00:00:5e:00:01:33, VRRP) of tenant green moved")?;

    bond.break_apart(&from)?;
    let to = &from.ipv4.to_string();
    thread::scope(|scope| {
        for leg in &bond.legs {
            scope.spawn(move || leg.netns.command("ping", &["-q", "-c", "25", "-i", "0.1", to]));
        }
        network.wait_problem(&format!("two hosts have the same address: {mac} of tenant green"))
    })?;
    let problems = network.problems()?;
    ensure!(!problems.iter().any(|problem| problem.contains("a loop")), "two hosts are no loop: {problems:?}");

    tie_a_loop(&network)?;
    for _ in 0..10 {
        from.send(&Frame::broadcast(from.mac))?;
        sleep(MS(100));
    }
    // What joins ports from the beginning is found before they are the tenant's.
    network.wait_problem("but probes show that it leads to another port of this fabric: nobody gets it")
}
