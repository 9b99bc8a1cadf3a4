//! How a frame says whose it is: in metadata inside a bridge, in a tunnel key or VLAN tag between bridges, and how an
//! entry says which object made it. The layouts of all such numbers are here and nowhere else.
//!
//! Between bridges a frame travels in one of two modes. *Normal*: a unicast frame whose destination was known where it
//! entered; each bridge looks it up and passes it along the shortest path. *Flood*: broadcast, multicast, and unicast of
//! unknown destination; it only ever follows the tenant's tree. The mode is decided once, where the frame enters, so
//! bridges whose tables differ for a moment can't throw a frame back and forth between lookup and flood.

use openflow::types::{Cookie, GroupId, MeterId, PortNo};

use crate::allocation::Numbers;

/// What owns flow entries and groups: a tenant by its key, or 0 for the fabric itself. Updates of one owner are ordered
/// over all bridges; owners don't wait for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub u32);

impl Owner {
    /// What belongs to no tenant.
    pub const FABRIC: Self = Self(0);
}

/// The mode bit in keys and VLAN ids is each one's highest, so that both modes of a tenant look alike. The bit below it tells
/// in keys which version of the tree a flooded frame follows.
const KEY_FLOOD: u32 = 0x80_0000;
const KEY_ODD: u32 = 0x40_0000;
const VLAN_FLOOD: u16 = 0x800;

/// Tunnel key of probes; no tenant has it, nor any mark.
pub const PROBE_KEY: u32 = 0xff_ffff;

/// Highest VLAN id that a tenant gets on links without tunnel; with the flood bit it stays below 4,095.
pub const VLAN_MAX: u16 = VLAN_FLOOD - 2;

/// VLAN ids that mark the flood mode on a tunnel of fixed key, one for each version of the tree. Tenants' own frames that bear
/// them are refused; the second isn't one that stations may use (IEEE 802.1Q-2018, table 9-2).
pub const DEDICATED_FLOOD_VLANS: [u16; 2] = [VLAN_FLOOD | VLAN_MAX, VLAN_FLOOD | VLAN_MAX | 1];

/// The one of a version.
pub const fn dedicated_flood_vlan(version: TreeVersion) -> u16 {
    DEDICATED_FLOOD_VLANS[version as usize]
}

/// Lowest key that stands for a way to a service function's port; tenants' keys are below, those with the flood bit above.
const KEY_WAYPOINT: u32 = KEY_ODD;

/// Numbers of waypoints and other steps of chains, from 1.
pub const STEP_MAX: u16 = 0x7fff;

/// Highest VLAN id of waypoints. [`DEDICATED_FLOOD_VLANS`] are made of the one above it.
pub const WAYPOINT_VLAN_MAX: u16 = VLAN_MAX - 1;

/// The key that numbers of chains are kept under, beside those of tenants: only those of waypoints are ever seen in frames.
pub const fn step_key(step: u16) -> u32 {
    KEY_WAYPOINT | (step as u32) << 1
}

/// The step that a key from [`step_key`] stands for.
pub const fn step_of(key: u32) -> u16 {
    ((key & !KEY_WAYPOINT) >> 1) as u16
}

/// Which way frames go through a service function: as the chain says, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// In by its ingress port.
    Forward,
    /// In by its egress port.
    Reverse,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Forward, Self::Reverse];
}

/// A port of a service function that frames are sent to: a destination like a host, but told by a mark instead of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waypoint {
    /// The instance's numbers, as given by [`crate::allocation`].
    pub numbers: Numbers,
    /// By which of its ports frames go in.
    pub direction: Direction,
}

/// How a frame travels between bridges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Each bridge looks the destination up.
    Normal,
    /// Along this version of the tree, whatever the destination.
    Flood(TreeVersion),
    /// To a service function, whatever the destination.
    Waypoint(Waypoint),
}

/// Which of two trees a flooded frame follows to its end, while a tenant's floods pass from one to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TreeVersion {
    /// The first one, and every other after it.
    #[default]
    Even,
    /// Those between.
    Odd,
}

impl TreeVersion {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Even, Self::Odd];

    /// That of the tree which replaces one of this version.
    pub const fn next(self) -> Self {
        match self {
            Self::Even => Self::Odd,
            Self::Odd => Self::Even,
        }
    }
}

/// The tunnel key of a tenant's frames in this mode.
pub const fn tunnel_key(key: u32, mode: Mode) -> u32 {
    match mode {
        Mode::Normal => key,
        Mode::Flood(TreeVersion::Even) => key | KEY_FLOOD,
        Mode::Flood(TreeVersion::Odd) => key | KEY_FLOOD | KEY_ODD,
        Mode::Waypoint(Waypoint { numbers, direction }) => numbers.key | direction as u32,
    }
}

/// The VLAN id of a tenant's frames in this mode on a link without tunnel. `vlan` is the tenant's, or the waypoint's. There is no
/// room for versions of the tree.
pub const fn vlan_id(vlan: u16, mode: Mode) -> u16 {
    match mode {
        Mode::Normal | Mode::Waypoint(Waypoint { direction: Direction::Forward, .. }) => vlan,
        Mode::Flood(_) | Mode::Waypoint(Waypoint { direction: Direction::Reverse, .. }) => vlan | VLAN_FLOOD,
    }
}

/// Metadata: bits 0–21 tenant key, 22 the version of the tree that a flooded frame follows, 23 sent on from an instance that is down, 24 entered here, 25–40 the step of a chain that comes next, 41–63 the version of the
/// tenant's rules and chains that a frame which entered here is held against.
pub mod metadata {
    use super::{Direction, TreeVersion};

    /// The tenant's key.
    pub const TENANT: u64 = 0x3f_ffff;
    /// Which version of the tree.
    pub const TREE: u64 = 1 << 22;
    /// The instance that the frame was for is down at this bridge.
    pub const DIVERTED: u64 = 1 << 23;
    /// The frame entered the fabric at this bridge.
    pub const EDGE: u64 = 1 << 24;
    /// Where the frame goes next on its way through a chain.
    pub const STEP: u64 = 0xffff << STEP_SHIFT;
    /// Of the tenant's rules and chains.
    pub const VERSION: u64 = !0 << VERSION_SHIFT;

    /// Highest version.
    pub const VERSION_MAX: u64 = VERSION >> VERSION_SHIFT;

    const STEP_SHIFT: u32 = 25;
    const VERSION_SHIFT: u32 = 41;

    /// Of a frame that came over a link, or from a service function.
    pub const fn link(key: u32) -> u64 {
        key as u64
    }

    /// The key of the tenant that it is of.
    pub const fn tenant(value: u64) -> u32 {
        (value & TENANT) as u32
    }

    /// Of a frame that came over a link and follows this version of the tree.
    pub const fn flooded(key: u32, version: TreeVersion) -> u64 {
        key as u64 | if matches!(version, TreeVersion::Odd) { TREE } else { 0 }
    }

    /// The version that a flooded frame follows.
    pub const fn tree(value: u64) -> TreeVersion {
        if value & TREE == 0 { TreeVersion::Even } else { TreeVersion::Odd }
    }

    /// Of a frame that entered here, or left its chain here.
    pub const fn edge(key: u32) -> u64 {
        key as u64 | EDGE
    }

    /// Of a frame that entered here and hasn't been held against rules and chains yet.
    pub const fn entered(key: u32, version: u64) -> u64 {
        edge(key) | version << VERSION_SHIFT
    }

    /// Of a frame on its way to a function, or to one instance of it.
    pub const fn step(key: u32, step: u16, direction: Direction) -> u64 {
        key as u64 | ((step as u64) << 1 | direction as u64) << STEP_SHIFT
    }
}

/// Register 1, while an instance drains: bits 0–14 the step of the instance that new connections go to, bit 15 that this is
/// one, bits 16–30 the step of the instance that all else goes to.
pub mod choice {
    use super::STEP_MAX;

    /// Where new connections go.
    pub const NEW: u32 = STEP_MAX as u32;
    /// The bit that tells a new connection.
    pub const BEGUN_BIT: u16 = 15;
    /// The same as a mask.
    pub const BEGUN: u32 = 1 << BEGUN_BIT;
    /// The lowest bit of where all else goes.
    pub const KEPT_BIT: u16 = 16;
    /// Where all else goes.
    pub const KEPT: u32 = NEW << KEPT_BIT;

    /// Of a frame that goes to one instance if it belongs to a new connection, else to the other.
    pub const fn of(new: u16, kept: u16) -> u32 {
        new as u32 | (kept as u32) << KEPT_BIT
    }
}

/// Ports that one group copies to. Its message, of 56 octets for a port at most, has to stay below 65,536 octets.
const PORTS_OF_A_GROUP: u32 = 1000;
const GROUP_ODD: u32 = 1 << 29;

/// The group that copies a tenant's frames to a port, and to others of its thousand, by a version of the tree. Which one that is
/// follows from port and version alone, so no frame meets a port in two groups, not even while groups change.
pub const fn flood_group(key: u32, port: PortNo, version: TreeVersion) -> GroupId {
    let odd = if matches!(version, TreeVersion::Odd) { GROUP_ODD } else { 0 };
    GroupId(key | (port_meter(port).0 / PORTS_OF_A_GROUP) << 22 | odd)
}

/// The version of the tree that a group's copies follow.
pub const fn group_version(group: GroupId) -> TreeVersion {
    if group.0 & GROUP_ODD == 0 { TreeVersion::Even } else { TreeVersion::Odd }
}

/// The group that copies to the same ports by the other version of the tree.
pub const fn other_version(group: GroupId) -> GroupId {
    GroupId(group.0 ^ GROUP_ODD)
}

/// Which owner a group id stands for.
pub const fn group_owner(group: GroupId) -> Owner {
    Owner(group.0 & metadata::TENANT as u32)
}

/// The meter of what a port sends to the controller. `LOCAL` gets a number that no other port has in Open vSwitch.
pub const fn port_meter(port: PortNo) -> MeterId {
    MeterId(if port.0 == PortNo::LOCAL.0 { 0xffff } else { port.0 & 0xffff })
}

/// The meter of what a bridge shows the controller of frames that claim to be of somebody else. It is below those of chains, which
/// begin with the first step.
pub const CLAIMS: MeterId = chain_limit(0);

/// The meter of what a port may send.
pub const fn port_limit(port: PortNo) -> MeterId {
    MeterId(0x1_0000 | port_meter(port).0)
}

/// A port's number in 15 bits, where meters have no room for more; `None`: it is too high. Open vSwitch gives low ones.
fn low(port: PortNo) -> Option<u32> {
    const LOCAL: u32 = 0x7fff;
    match port {
        PortNo::LOCAL => Some(LOCAL),
        PortNo(number) => (number < LOCAL).then_some(number),
    }
}

/// The meter of what a tenant's ports at a bridge may send together, of which `port` is the one with the lowest number: that
/// tells tenants apart. Open vSwitch has meters up to 0x40000 in its userspace datapath.
pub fn tenant_limit(port: PortNo) -> Option<MeterId> {
    low(port).map(|number| MeterId(0x2_0000 | number))
}

/// The meter of what a port may be sent.
pub fn receive_limit(port: PortNo) -> Option<MeterId> {
    low(port).map(|number| MeterId(0x2_8000 | number))
}

/// The meter of what a port may send to everybody.
pub fn flood_limit(port: PortNo) -> Option<MeterId> {
    low(port).map(|number| MeterId(0x3_0000 | number))
}

/// The port whose flood limit a meter is.
pub fn flood_limited(meter: MeterId) -> Option<PortNo> {
    let number = meter.0 & 0x7fff;
    let port = if number == 0x7fff { PortNo::LOCAL } else { PortNo(number) };
    (flood_limit(port) == Some(meter)).then_some(port)
}

/// The meter of what may enter a chain at a bridge.
pub const fn chain_limit(step: u16) -> MeterId {
    MeterId(0x3_8000 | step as u32)
}

/// Cookies: bits 56–63 say Espalier, 48–55 the table, 0–31 the owner. Bits 32–47 say of an entry that takes frames in by a port
/// what the port is called ([`cookie::name`]); bits 32–46 of what a bridge learns by itself the function.
pub mod cookie {
    use super::{Cookie, Owner};
    use crate::trees::spread;
    use openflow::types::TableId;

    const ESPALIER: u64 = 0xe5;

    /// The cookie of an owner's entry in a table.
    pub const fn of(owner: Owner, table: TableId) -> Cookie {
        Cookie(ESPALIER << 56 | (table.0 as u64) << 48 | owner.0 as u64)
    }

    /// The cookie of the connections that a bridge remembers for a function, by the function's step.
    pub const fn begun(owner: Owner, table: TableId, step: u16) -> Cookie {
        Cookie(of(owner, table).0 | (step as u64) << 32)
    }

    /// A port's name in 16 bits, never 0. A bridge gives a port's number to another one when it is free, and goes on
    /// forwarding by it: whoever reads its entries can tell so which port they were made for.
    pub fn name(port: &str) -> u16 {
        let octets: Vec<u64> = port.bytes().map(u64::from).collect();
        (spread(0, &octets) as u16).max(1)
    }

    /// The cookie of an owner's entry in a table that takes frames in by the port of this name.
    pub fn of_port(owner: Owner, table: TableId, port: &str) -> Cookie {
        Cookie(of(owner, table).0 | (name(port) as u64) << 32)
    }

    /// The name of the port that an entry takes frames in by, as [`name`] has it; `None`: it doesn't say.
    pub const fn port(cookie: Cookie) -> Option<u16> {
        match (cookie.0 >> 32) as u16 {
            0 => None,
            name => Some(name),
        }
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
    fn marks_of_tenants_modes_waypoints_and_probes_never_collide() {
        let keys = [1, Tenant::KEY_MAX];
        let modes = [Mode::Normal, Mode::Flood(TreeVersion::Even), Mode::Flood(TreeVersion::Odd)];
        let mut marks: Vec<u32> = keys.iter().flat_map(|&key| modes.map(|mode| tunnel_key(key, mode))).collect();
        let waypoint = |step, vlan, direction| {
            Mode::Waypoint(Waypoint { numbers: Numbers { key: step_key(step), vlan }, direction })
        };
        for step in [1, STEP_MAX] {
            assert_eq!(step_of(step_key(step)), step);
            marks.extend(Direction::ALL.map(|direction| tunnel_key(1, waypoint(step, None, direction))));
        }
        marks.push(PROBE_KEY);
        marks.sort_unstable();
        marks.dedup();
        assert_eq!(marks.len(), 11);
        assert!(marks.iter().all(|&mark| mark < 1 << 24), "VXLAN has 24 bits");
        let flood = Mode::Flood(TreeVersion::Even);
        assert_eq!(vlan_id(VLAN_MAX, flood), DEDICATED_FLOOD_VLANS[0]);
        assert!(DEDICATED_FLOOD_VLANS[0] < 4095 && DEDICATED_FLOOD_VLANS[1] == 4095);
        let back = waypoint(1, Some(WAYPOINT_VLAN_MAX), Direction::Reverse);
        assert!(vlan_id(WAYPOINT_VLAN_MAX, back) < DEDICATED_FLOOD_VLANS[0]);
        let highest = metadata::entered(Tenant::KEY_MAX, metadata::VERSION_MAX);
        assert_eq!(highest, metadata::VERSION | metadata::EDGE | u64::from(Tenant::KEY_MAX));
        assert_eq!(metadata::flooded(0, TreeVersion::Odd), metadata::TREE);
        TreeVersion::ALL.iter().for_each(|it| assert_eq!(metadata::tree(metadata::flooded(7, *it)), *it));
        assert_eq!(metadata::step(0, STEP_MAX, Direction::Reverse), metadata::STEP);
        for port in [PortNo(1), PortNo(0x7ffe), PortNo::LOCAL] {
            let mut meters =
                vec![port_meter(port), port_limit(port), chain_limit(port_meter(port).0 as u16 & STEP_MAX)];
            meters.extend([tenant_limit(port), receive_limit(port), flood_limit(port)].into_iter().flatten());
            meters.sort_unstable();
            meters.dedup();
            assert_eq!(meters.len(), 6, "{port}");
            assert_eq!(flood_limit(port).and_then(flood_limited), Some(port));
        }
        assert_eq!((tenant_limit(PortNo(0x7fff)), flood_limited(MeterId(0x3_8001))), (None, None));
        assert!(chain_limit(STEP_MAX).0 < 0x4_0000, "Open vSwitch's userspace datapath has no higher meters");
        assert_eq!(u64::from(Tenant::KEY_MAX) & metadata::TENANT, u64::from(Tenant::KEY_MAX));
        for version in TreeVersion::ALL {
            let highest = flood_group(Tenant::KEY_MAX, PortNo::LOCAL, version);
            assert_eq!((group_owner(highest), group_version(highest)), (Owner(Tenant::KEY_MAX), version));
            assert!(highest <= GroupId::MAX);
        }
    }
}
