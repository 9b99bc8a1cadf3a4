//! Service functions: namespaces that frames pass through, by one port in and by another out, or by one port both ways.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::process::Command;

use anyhow::{Context, Result};

use crate::capture::{Capture, Direction, Reflector, Sender};
use crate::frame::{Frame, Mac};
use crate::netns::Netns;
use crate::process;
use crate::topology::{Lab, no_offload, words};

/// A function with two ports on one bridge that passes frames on untouched (a `wire` in policies), or with one port. Inside,
/// the interfaces are `in` and, where there are two, `out`, so that a test can also look at or cut what passes.
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

    /// Attaches a function with one port, which does nothing yet: see [`Function::hairpin`] and [`Function::route`]. It is
    /// given this MAC address.
    pub fn add_function_with_one_port(&self, host: usize, bridge: &str, port: &str, mac: Mac) -> Result<Function> {
        let on = self.host(host)?;
        let netns = Netns::named(format!("{}-h{host}-{port}", self.id));
        process::output(Command::new("ip").args(["netns", "add", netns.name()]))?;
        let ((near, far), there) = (self.indexes(), netns.name());
        on.netns.ip_batch(&format!(
            "link add name {port} index {near} type veth peer name in index {far} netns {there}\nlink set {port} up\n"
        ))?;
        on.netns.run(|| no_offload(port))?;
        netns.run(|| {
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").context("switching IPv6 off failed")?;
            no_offload("in")
        })?;
        netns.ip_batch(&format!("link set in address {mac} addrgenmode none up\n"))?;
        on.vsctl(&words(&format!("add-port {bridge} {port}")))?;
        let (bridge, port) = (bridge.to_owned(), port.to_owned());
        Ok(Function { netns, host, bridge, ingress: port.clone(), egress: port })
    }

    /// Removes a function, its ports and all.
    pub fn remove_function(&self, function: &Function) -> Result<()> {
        let host = self.host(function.host)?;
        let Function { bridge, ingress, egress, netns, .. } = function;
        for port in BTreeSet::from([ingress, egress]) {
            host.vsctl(&words(&format!("del-port {bridge} {port}")))?;
            host.netns.ip_batch(&format!("link del {port}\n"))?;
        }
        process::output(Command::new("ip").args(["netns", "del", netns.name()])).map(drop)
    }
}

impl Function {
    /// Makes the function send every frame back as it came (a `hairpin` in policies), but for its outermost tag, which the
    /// kernel takes off. It does so until the answer is dropped.
    pub fn hairpin(&self) -> Result<Reflector> {
        Reflector::start(&self.netns, "in")
    }

    /// From now on the function (a `wire`) sends UDP to this port on to another port.
    pub fn rewrite_destination_port(&self, from: u16, to: u16) -> Result<()> {
        let rules = format!(
            "add table bridge rewriter
            add chain bridge rewriter forward {{ type filter hook forward priority 0; }}
            add rule bridge rewriter forward udp dport {from} udp dport set {to}"
        );
        self.netns.run(|| process::feed(Command::new("nft").args(["-f", "-"]), &rules))
    }

    /// From now on the function has an address and routes (a `routed` in policies): of TCP only connections that it saw the
    /// beginning of and both directions of, of all else nothing.
    pub fn route(&self, address: Ipv4Addr) -> Result<()> {
        self.netns.ip_batch(&format!("addr add {address}/24 dev in\n"))?;
        self.netns.run(|| {
            for (file, value) in
                [("ip_forward", "1"), ("conf/all/send_redirects", "0"), ("conf/in/send_redirects", "0")]
            {
                std::fs::write(format!("/proc/sys/net/ipv4/{file}"), value)
                    .with_context(|| format!("setting {file} failed"))?;
            }
            Ok(())
        })?;
        let rules = "add table ip firewall
            add chain ip firewall forward { type filter hook forward priority 0; policy drop; }
            add rule ip firewall forward ct state established accept
            add rule ip firewall forward tcp flags & (syn | ack) == syn ct state new accept";
        self.netns.run(|| process::feed(Command::new("nft").args(["-f", "-"]), rules))
    }

    /// From now on a function that routes gives TCP that passes it this source address and ports of these, and undoes it in replies.
    pub fn translate(&self, source: Ipv4Addr, ports: RangeInclusive<u16>) -> Result<()> {
        let rules = format!(
            "add table ip translator
            add chain ip translator postrouting {{ type nat hook postrouting priority 100; }}
            add rule ip translator postrouting meta l4proto tcp snat to {source}:{}-{}",
            ports.start(),
            ports.end()
        );
        self.netns.run(|| process::feed(Command::new("nft").args(["-f", "-"]), &rules))
    }

    /// Records what comes in by the ingress port.
    pub fn capture_ingress(&self) -> Result<Capture> {
        Capture::inside(&self.netns, "in", Direction::Received)
    }

    /// Records what comes in by the egress port, which replies do.
    pub fn capture_egress(&self) -> Result<Capture> {
        Capture::inside(&self.netns, "out", Direction::Received)
    }

    /// Sends a frame of the function's own by its ingress port.
    pub fn send(&self, frame: &Frame) -> Result<()> {
        Sender::inside(&self.netns, "in")?.send(frame)
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
