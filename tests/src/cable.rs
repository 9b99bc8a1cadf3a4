//! Further cables: between hosts, and a second one from a host to the underlay, bonded with the first.

use anyhow::Result;

use crate::netns::Netns;
use crate::topology::{Lab, UNDERLAY_MTU, UPLINK, no_offload, words};

/// The host's end of its second cable to the underlay.
pub const SECOND_UPLINK: &str = "uplink2";

impl Lab {
    /// Lays a cable between two hosts; its ends are given by host and interface, and aren't ports of any bridge yet.
    pub fn lay_cable(&self, near: (usize, &str), far: (usize, &str)) -> Result<()> {
        self.lay((&self.host(near.0)?.netns, near.1), (&self.host(far.0)?.netns, far.1))
    }

    /// Gives a host a second cable to the underlay, and makes a bond of both; `mode` is in Open vSwitch's words.
    pub fn bond_uplinks(&self, host: usize, mode: &str) -> Result<()> {
        let (host, far) = (self.host(host)?, format!("h{host}b"));
        self.lay((&host.netns, SECOND_UPLINK), (&self.hub, &far))?;
        self.hub.ip_batch(&format!("link set {far} master hub\n"))?;
        host.vsctl(&words(&format!(
            "del-port br-phy {UPLINK} -- add-bond br-phy bond0 {UPLINK} {SECOND_UPLINK} bond_mode={mode} \
             -- set interface {UPLINK} mtu_request={UNDERLAY_MTU} -- set interface {SECOND_UPLINK} mtu_request={UNDERLAY_MTU}"
        )))
        .map(drop)
    }

    fn lay(&self, near: (&Netns, &str), far: (&Netns, &str)) -> Result<()> {
        let (near_index, far_index) = self.indexes();
        near.0.ip_batch(&format!(
            "link add name {} index {near_index} mtu {UNDERLAY_MTU} type veth peer name {} index {far_index} \
             mtu {UNDERLAY_MTU} netns {}\n",
            near.1,
            far.1,
            far.0.name()
        ))?;
        for (netns, interface) in [near, far] {
            netns.ip_batch(&format!("link set {interface} addrgenmode none up\n"))?;
            netns.run(|| no_offload(interface))?;
        }
        Ok(())
    }
}
