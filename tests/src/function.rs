//! Service functions: namespaces that frames pass through, by one port in and by another out.

use std::process::Command;

use anyhow::{Context, Result};

use crate::capture::{Capture, Direction};
use crate::netns::Netns;
use crate::process;
use crate::topology::{Lab, no_offload, words};

/// A function with two ports on one bridge that passes frames on untouched (a `wire` in policies). Inside, the two
/// interfaces `in` and `out` are joined, so that a test can also look at or cut what passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its namespace.
    pub netns: Netns,
    /// The host it is on, from 1.
    pub host: usize,
    /// The bridge it is attached to.
    pub bridge: String,
    /// The bridge's port that frames go in by.
    pub ingress: String,
    /// The bridge's port that they come out of.
    pub egress: String,
}

impl Lab {
    /// Attaches a function that passes frames on between its two ports.
    pub fn add_function(&self, host: usize, bridge: &str, ingress: &str, egress: &str) -> Result<Function> {
        let on = self.host(host)?;
        let netns = Netns::named(format!("{}-h{host}-{ingress}", self.id));
        process::output(Command::new("ip").args(["netns", "add", netns.name()]))?;
        let mut cables = String::new();
        let mut commands = Vec::new();
        for (port, inside) in [(ingress, "in"), (egress, "out")] {
            let ((near, far), there) = (self.indexes(), netns.name());
            cables += &format!(
                "link add name {port} index {near} type veth peer name {inside} index {far} netns {there}\n\
                 link set {port} up\n"
            );
            commands.extend(words(&format!("-- add-port {bridge} {port}")));
        }
        on.netns.ip_batch(&cables)?;
        on.netns.run(|| [ingress, egress].iter().try_for_each(|port| no_offload(port)))?;
        netns.run(|| {
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").context("switching IPv6 off failed")?;
            ["in", "out"].iter().try_for_each(|interface| no_offload(interface))
        })?;
        // Ageing 0: a bridge that learns would drop a frame whose addresses it saw on the other side, and a function
        // sees both directions of a conversation on whichever side the controller chose.
        netns.ip_batch(
            "link add name wire type bridge mcast_snooping 0 ageing_time 0\nlink set wire addrgenmode none up\n\
             link set in addrgenmode none master wire up\nlink set out addrgenmode none master wire up\n",
        )?;
        on.vsctl(&commands)?;
        let (bridge, ingress, egress) = (bridge.to_owned(), ingress.to_owned(), egress.to_owned());
        Ok(Function { netns, host, bridge, ingress, egress })
    }

    /// Removes a function, its ports and all.
    pub fn remove_function(&self, function: &Function) -> Result<()> {
        let host = self.host(function.host)?;
        let Function { bridge, ingress, egress, netns, .. } = function;
        host.vsctl(&words(&format!("del-port {bridge} {ingress} -- del-port {bridge} {egress}")))?;
        host.netns.ip_batch(&format!("link del {ingress}\nlink del {egress}\n"))?;
        process::output(Command::new("ip").args(["netns", "del", netns.name()])).map(drop)
    }
}

impl Function {
    /// Records what comes in by the ingress port.
    pub fn capture_ingress(&self) -> Result<Capture> {
        Capture::inside(&self.netns, "in", Direction::Received)
    }

    /// Records what comes in by the egress port, which replies do.
    pub fn capture_egress(&self) -> Result<Capture> {
        Capture::inside(&self.netns, "out", Direction::Received)
    }

    /// Breaks the function silently: its ports stay up, nothing comes through.
    pub fn hang(&self) -> Result<()> {
        self.netns.ip_batch("link set wire down\n")
    }

    /// Undoes [`Function::hang`].
    pub fn recover(&self) -> Result<()> {
        self.netns.ip_batch("link set wire up\n")
    }
}
