//! Ordinary Ethernet switches between hosts: a Linux bridge each, as it comes, which learns addresses and snoops groups.

use std::fmt::Write as _;

use anyhow::Result;

use crate::topology::{Lab, no_offload};

impl Lab {
    /// Makes a switch, and plugs these hosts in, each by a port of its bridge that is called as the switch.
    pub fn add_segment(&self, name: &str, bridge: &str, hosts: &[usize]) -> Result<()> {
        self.hub.ip_batch(&format!("link add name {name} type bridge\nlink set {name} up\n"))?;
        hosts.iter().try_for_each(|host| self.plug_in(name, bridge, *host))
    }

    /// Plugs one more host in.
    pub fn plug_in(&self, segment: &str, bridge: &str, host: usize) -> Result<()> {
        let host = self.host(host)?;
        let (near, far) = self.indexes();
        let mut lines = String::new();
        let _ = writeln!(
            lines,
            "link add name {segment}-h{} index {near} type veth peer name {segment} index {far} netns {}\n\
             link set {segment}-h{} master {segment} up",
            host.number,
            host.netns.name(),
            host.number
        );
        self.hub.ip_batch(&lines)?;
        host.netns.ip_batch(&format!("link set {segment} up\n"))?;
        host.netns.run(|| no_offload(segment))?;
        host.vsctl(&["add-port", bridge, segment]).map(drop)
    }

    /// The switch throws away what has a VLAN tag where it goes to a host, as one that knows no VLANs there.
    pub fn drop_tagged(&self, segment: &str, host: usize) -> Result<()> {
        let dev = format!("dev {segment}-h{host}");
        self.hub.tc_batch(&format!(
            "qdisc add {dev} root handle 1: htb\nclass add {dev} parent 1: classid 1:1 htb rate 10gbit\n\
             qdisc add {dev} parent 1:1 handle 2: blackhole\n\
             filter add {dev} parent 1: protocol 802.1Q prio 1 u32 match u32 0 0 flowid 1:1\n"
        ))
    }

    /// Undoes [`Lab::drop_tagged`].
    pub fn pass_tagged(&self, segment: &str, host: usize) -> Result<()> {
        self.hub.tc_batch(&format!("qdisc del dev {segment}-h{host} root\n"))
    }

    /// Unplugs a host.
    pub fn unplug(&self, segment: &str, bridge: &str, host: usize) -> Result<()> {
        let host = self.host(host)?;
        host.vsctl(&["del-port", bridge, segment])?;
        host.netns.ip_batch(&format!("link del {segment}\n"))
    }
}
