//! How a frame says whose it is: in metadata inside a bridge, in a tunnel key or VLAN tag between bridges, and how an
//! entry says which object made it. The layouts of all such numbers are here and nowhere else.
//!
//! Between bridges a frame travels in one of two modes. *Normal*: a unicast frame whose destination was known where it
//! entered; each bridge looks it up and passes it along the shortest path. *Flood*: broadcast, multicast, and unicast of
//! unknown destination; it only ever follows the tenant's tree. The mode is decided once, where the frame enters, so
//! bridges whose tables differ for a moment can't throw a frame back and forth between lookup and flood.

use openflow::types::{Cookie, GroupId, MeterId, PortNo};

/// What owns flow entries and groups: a tenant by its key, or 0 for the fabric itself. Updates of one owner are ordered
/// over all bridges; owners don't wait for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub u32);

impl Owner {
    /// What belongs to no tenant.
    pub const FABRIC: Self = Self(0);
}

/// The mode bit in keys and VLAN ids is each one's highest, so that both modes of a tenant look alike.
const KEY_FLOOD: u32 = 0x80_0000;
const VLAN_FLOOD: u16 = 0x800;

/// Tunnel key of probes; no tenant has it, nor any mark.
pub const PROBE_KEY: u32 = 0xff_ffff;

/// Highest VLAN id that a tenant gets on links without tunnel; with the flood bit it stays below 4,095.
pub const VLAN_MAX: u16 = VLAN_FLOOD - 2;

/// VLAN id that marks the flood mode on a tunnel of fixed key. Tenants' own frames that bear it are refused.
pub const DEDICATED_FLOOD_VLAN: u16 = VLAN_FLOOD | VLAN_MAX;

/// How a frame travels between bridges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Each bridge looks the destination up.
    Normal,
    /// Along the tree, whatever the destination.
    Flood,
}

impl Mode {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Normal, Self::Flood];
}

/// The tunnel key of a tenant's frames in this mode.
pub const fn tunnel_key(key: u32, mode: Mode) -> u32 {
    match mode {
        Mode::Normal => key,
        Mode::Flood => key | KEY_FLOOD,
    }
}

/// The VLAN id of a tenant's frames in this mode on a link without tunnel.
pub const fn vlan_id(vlan: u16, mode: Mode) -> u16 {
    match mode {
        Mode::Normal => vlan,
        Mode::Flood => vlan | VLAN_FLOOD,
    }
}

/// Metadata: bits 0–21 tenant key, 24 entered here at a tenant's port. Bits 22, 23 and 32–63 are kept for chain positions
/// and policy versions.
pub mod metadata {
    /// The tenant's key.
    pub const TENANT: u64 = 0x3f_ffff;
    /// The frame entered the fabric at this bridge.
    pub const EDGE: u64 = 0x100_0000;

    /// Of a frame that came over a link.
    pub const fn link(key: u32) -> u64 {
        key as u64
    }

    /// Of a frame that entered here.
    pub const fn edge(key: u32) -> u64 {
        key as u64 | EDGE
    }
}

/// Ports that one group copies to. Its message, of 56 octets for a port at most, has to stay below 65,536 octets.
const PORTS_OF_A_GROUP: u32 = 1000;

/// The group that copies a tenant's frames to a port, and to others of its thousand. Which one that is follows from the
/// port alone, so no port is ever in two groups, not even while groups change.
pub const fn flood_group(key: u32, port: PortNo) -> GroupId {
    GroupId(key | (port_meter(port).0 / PORTS_OF_A_GROUP) << 22)
}

/// Which owner a group id stands for.
pub const fn group_owner(group: GroupId) -> Owner {
    Owner(group.0 & metadata::TENANT as u32)
}

/// The meter of what a port sends to the controller. `LOCAL` gets a number that no other port has in Open vSwitch.
pub const fn port_meter(port: PortNo) -> MeterId {
    MeterId(if port.0 == PortNo::LOCAL.0 { 0xffff } else { port.0 & 0xffff })
}

/// The meter of what a port may send.
pub const fn port_limit(port: PortNo) -> MeterId {
    MeterId(0x1_0000 | port_meter(port).0)
}

/// The meter of what a tenant's ports at a bridge may send together, of which `port` is the one with the lowest number: that
/// tells tenants apart. Open vSwitch has meters up to 0x40000 in its userspace datapath.
pub const fn tenant_limit(port: PortNo) -> MeterId {
    MeterId(0x2_0000 | port_meter(port).0)
}

/// Cookies: bits 56–63 say Espalier, 48–55 the table, 0–31 the owner.
pub mod cookie {
    use super::{Cookie, Owner};
    use openflow::types::TableId;

    const ESPALIER: u64 = 0xe5;

    /// The cookie of an owner's entry in a table.
    pub const fn of(owner: Owner, table: TableId) -> Cookie {
        Cookie(ESPALIER << 56 | (table.0 as u64) << 48 | owner.0 as u64)
    }

    /// Which owner a cookie stands for; `None`: not our entry.
    pub const fn owner(cookie: Cookie) -> Option<Owner> {
        if cookie.0 >> 56 == ESPALIER { Some(Owner(cookie.0 as u32)) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Tenant;

    #[test]
    fn marks_of_tenants_modes_and_probes_never_collide() {
        let keys = [1, Tenant::KEY_MAX];
        let mut marks: Vec<u32> = keys.iter().flat_map(|&key| Mode::ALL.map(|mode| tunnel_key(key, mode))).collect();
        marks.push(PROBE_KEY);
        marks.sort_unstable();
        marks.dedup();
        assert_eq!(marks.len(), 5);
        assert!(marks.iter().all(|&mark| mark < 1 << 24), "VXLAN has 24 bits");
        assert!(vlan_id(VLAN_MAX, Mode::Flood) < 4095);
        assert_eq!(vlan_id(VLAN_MAX, Mode::Flood), DEDICATED_FLOOD_VLAN);
        assert_eq!(u64::from(Tenant::KEY_MAX) & metadata::TENANT, u64::from(Tenant::KEY_MAX));
        let highest = flood_group(Tenant::KEY_MAX, PortNo::LOCAL);
        assert_eq!(group_owner(highest), Owner(Tenant::KEY_MAX));
        assert!(highest <= GroupId::MAX);
    }
}
