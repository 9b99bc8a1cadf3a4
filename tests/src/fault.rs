//! Faults, and how they are undone.
//!
//! A *cut* is silent: frames vanish, no carrier is lost, no port reports anything. It is made by a queue that throws
//! frames away where they leave towards the victim, so it outlasts restarts of the hosts' switches.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::link::LinkEnd;
use crate::netns::Netns;
use crate::topology::{CONTROL, Lab, UPLINK, underlay_ip};
use crate::wait_until;

const PATIENCE: Duration = Duration::from_secs(20);

fn cut_cable(netns: &Netns, interface: &str) -> Result<()> {
    netns.tc_batch(&format!("qdisc replace dev {interface} root blackhole\n"))
}

fn restore_cable(netns: &Netns, interface: &str) -> Result<()> {
    netns.tc_batch(&format!("qdisc del dev {interface} root\n"))
}

impl Lab {
    fn has_tunnels(&self) -> bool {
        self.spec.carrier.tunnel_type().is_some()
    }

    /// Cuts all links between two hosts, silently, in both directions.
    pub fn cut(&self, a: usize, b: usize) -> Result<()> {
        self.cut_one_way(a, b)?;
        self.cut_one_way(b, a)
    }

    /// Cuts all links from one host to another, silently; the way back stays.
    pub fn cut_one_way(&self, from: usize, to: usize) -> Result<()> {
        self.host(from)?;
        self.host(to)?;
        if self.has_tunnels() {
            // At the hub's port towards the receiver: what comes from the sender goes into the class of no return.
            return self.hub.tc_batch(&format!(
                "filter add dev h{to} parent 1: protocol ip prio {} u32 match ip src {}/32 flowid 1:1\n",
                10 + from,
                underlay_ip(from)
            ));
        }
        self.wires(from, to)?.iter().try_for_each(|port| cut_cable(&self.host(from)?.netns, port))
    }

    /// What the underlay brings to a host from now on has at most so many octets, with the headers of tunnels; what it brings from
    /// there may have as many as before.
    pub fn limit_underlay(&self, to: usize, mtu: u16) -> Result<()> {
        self.hub.ip_batch(&format!("link set h{to} mtu {mtu}\n"))
    }

    /// Undoes [`Lab::cut`].
    pub fn restore(&self, a: usize, b: usize) -> Result<()> {
        self.restore_one_way(a, b)?;
        self.restore_one_way(b, a)
    }

    /// Undoes [`Lab::cut_one_way`].
    pub fn restore_one_way(&self, from: usize, to: usize) -> Result<()> {
        if self.has_tunnels() {
            return self.hub.tc_batch(&format!("filter del dev h{to} parent 1: protocol ip prio {}\n", 10 + from));
        }
        self.wires(from, to)?.iter().try_for_each(|port| restore_cable(&self.host(from)?.netns, port))
    }

    fn wires(&self, from: usize, to: usize) -> Result<Vec<&str>> {
        let pair = (from.min(to), from.max(to));
        let links = self.links().iter().filter(|link| (link.a.host, link.b.host) == pair);
        let ports: Vec<_> = links.map(|link| link.end(from).map(|end| end.port.as_str())).collect::<Result<_>>()?;
        ensure!(!ports.is_empty(), "no link joins h{from} and h{to}");
        Ok(ports)
    }

    /// Cuts one link only (one tenant's, say), silently; only where links are cables of their own.
    pub fn cut_wire(&self, end: &LinkEnd) -> Result<()> {
        ensure!(!self.has_tunnels(), "tunnels share the path between two hosts; cut that, or delete the port");
        cut_cable(&self.host(end.host)?.netns, &end.port)
    }

    /// Undoes [`Lab::cut_wire`].
    pub fn restore_wire(&self, end: &LinkEnd) -> Result<()> {
        restore_cable(&self.host(end.host)?.netns, &end.port)
    }

    /// Cuts a host off from all others, silently. Its control channel stays.
    pub fn cut_host(&self, host: usize) -> Result<()> {
        let netns = &self.host(host)?.netns;
        if self.has_tunnels() {
            cut_cable(netns, UPLINK)?;
            return self.hub.tc_batch(&format!(
                "filter add dev h{host} parent 1: protocol all prio 1 u32 match u32 0 0 flowid 1:1\n"
            ));
        }
        self.peers(host).try_for_each(|peer| self.cut(host, peer))
    }

    /// Undoes [`Lab::cut_host`].
    pub fn restore_host(&self, host: usize) -> Result<()> {
        if self.has_tunnels() {
            restore_cable(&self.host(host)?.netns, UPLINK)?;
            return self.hub.tc_batch(&format!("filter del dev h{host} parent 1: protocol all prio 1\n"));
        }
        self.peers(host).try_for_each(|peer| self.restore(host, peer))
    }

    fn peers(&self, host: usize) -> impl Iterator<Item = usize> {
        self.spec.shape.edges(self.spec.hosts).into_iter().filter_map(move |pair| match pair {
            (a, b) if a == host => Some(b),
            (a, b) if b == host => Some(a),
            _ => None,
        })
    }

    /// Takes a port out of its bridge, as an operator would; the bridge reports it.
    pub fn delete_port(&self, end: &LinkEnd) -> Result<()> {
        self.host(end.host)?.vsctl(&["del-port", &end.bridge, &end.port]).map(drop)
    }

    /// Puts a link's port back with the settings it had.
    pub fn recreate_port(&self, end: &LinkEnd) -> Result<()> {
        self.host(end.host)?.vsctl(&self.link_port(end)).map(drop)
    }

    /// Sets a host's interface down or up; both ends of a cable lose or get their carrier, and say so.
    pub fn set_interface(&self, host: usize, interface: &str, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        self.host(host)?.netns.ip_batch(&format!("link set {interface} {state}\n"))
    }

    /// Cuts a host's way to the controller, silently, in both directions: both sides find out by their own probes.
    pub fn cut_control(&self, host: usize) -> Result<()> {
        cut_cable(&self.host(host)?.netns, CONTROL)?;
        cut_cable(&self.control, &format!("h{host}"))
    }

    /// Undoes [`Lab::cut_control`].
    pub fn restore_control(&self, host: usize) -> Result<()> {
        restore_cable(&self.host(host)?.netns, CONTROL)?;
        restore_cable(&self.control, &format!("h{host}"))
    }

    /// Ends a host's ovs-vswitchd as a crash would. The kernel closes its channels, so the controller notices at once;
    /// the userspace datapath forwards nothing until it is back.
    pub fn kill_switch(&self, host: usize) -> Result<()> {
        self.host(host)?.kill_switch();
        Ok(())
    }

    /// Starts a host's ovs-vswitchd again with the same database: bridges and ports as before, no flows.
    pub fn start_switch(&self, host: usize) -> Result<()> {
        let host = self.host(host)?;
        host.start_switch()?;
        self.settle(host.number)
    }

    /// Ends all that runs on a host, as a power cut would. Its containers' processes aren't the lab's.
    pub fn kill_host(&self, host: usize) -> Result<()> {
        self.host(host)?.kill();
        Ok(())
    }

    /// Starts a killed host again.
    pub fn start_host(&self, host: usize) -> Result<()> {
        let host = self.host(host)?;
        host.start()?;
        self.settle(host.number)
    }

    /// Waits until a host's restarted switch has made its ports, and gives the underlay its address back.
    fn settle(&self, number: usize) -> Result<()> {
        let host = self.host(number)?;
        let mut wanted = String::new();
        for bridge in self.spec.bridges(number) {
            let _ = write!(wanted, "{} ", bridge.name);
        }
        wait_until(&format!("the bridges {wanted}on h{number}"), PATIENCE, || {
            self.spec.bridges(number).iter().try_for_each(|bridge| host.ofctl("show", &bridge.name, &[]).map(drop))?;
            Ok(true)
        })?;
        self.address_underlay(host).with_context(|| format!("h{number} after a restart"))
    }
}
