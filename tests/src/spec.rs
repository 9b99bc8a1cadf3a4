//! What a lab looks like: hosts, tenants, how bridges are laid out and joined.

use std::str::FromStr;

use anyhow::{Result, bail, ensure};

/// Which bridges a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Layout {
    /// A bridge per tenant, and links of its own for each.
    PerTenant,
    /// One bridge `br0` for all tenants; one link per pair of hosts.
    Shared,
    /// The first tenant has bridges of its own, the others share `br0`.
    Mixed,
}

/// What joins bridges on different hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Carrier {
    /// VXLAN tunnels over the underlay.
    Vxlan,
    /// GRE tunnels over the underlay.
    Gre,
    /// Geneve tunnels over the underlay.
    Geneve,
    /// Plain cables: veth pairs straight from bridge to bridge, no tunnel key.
    Veth,
}

impl Carrier {
    /// The interface type in OVS's database, for tunnels.
    pub(crate) fn tunnel_type(self) -> Option<&'static str> {
        match self {
            Self::Vxlan => Some("vxlan"),
            Self::Gre => Some("gre"),
            Self::Geneve => Some("geneve"),
            Self::Veth => None,
        }
    }
}

/// Which pairs of hosts are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Every pair.
    Mesh,
    /// Each host to the next, the last to the first.
    Ring,
    /// Each host to the next.
    Line,
    /// Exactly these pairs of hosts, counted from 1.
    Edges(Vec<(usize, usize)>),
}

impl Shape {
    /// The pairs, lower host first.
    pub fn edges(&self, hosts: usize) -> Vec<(usize, usize)> {
        let mut edges: Vec<_> = match self {
            Self::Mesh => (1..=hosts).flat_map(|a| (a + 1..=hosts).map(move |b| (a, b))).collect(),
            Self::Line => (1..hosts).map(|a| (a, a + 1)).collect(),
            Self::Ring => (1..=hosts).map(|a| (a, a % hosts + 1)).filter(|(a, b)| a != b).collect(),
            Self::Edges(edges) => edges.clone(),
        };
        for (a, b) in &mut edges {
            if a > b {
                std::mem::swap(a, b);
            }
        }
        edges.sort_unstable();
        edges.dedup();
        edges
    }
}

impl FromStr for Shape {
    type Err = anyhow::Error;

    /// `mesh`, `ring`, `line`, or pairs such as `1-2,2-3`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "mesh" => Ok(Self::Mesh),
            "ring" => Ok(Self::Ring),
            "line" => Ok(Self::Line),
            _ => text
                .split(',')
                .map(|pair| match pair.split_once('-').map(|(a, b)| (a.trim().parse(), b.trim().parse())) {
                    Some((Ok(a), Ok(b))) => Ok((a, b)),
                    _ => bail!("a shape is mesh, ring, line, or pairs of hosts such as 1-2,2-3; `{pair}` is neither"),
                })
                .collect::<Result<_>>()
                .map(Self::Edges),
        }
    }
}

/// Who decides where frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Switching {
    /// A controller; a bridge without one forwards nothing (`fail_mode=secure`).
    Controller,
    /// Each bridge by itself, as a learning switch. Loops storm.
    Standalone,
    /// As learning switches with the spanning tree protocol.
    Stp,
    /// The same with the shortest timers it allows.
    StpFast,
    /// As learning switches with the rapid spanning tree protocol.
    Rstp,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSpec {
    /// Its name; ports are named after it (`green-1`).
    pub name: String,
    /// Its tunnel key.
    pub key: u32,
}

impl TenantSpec {
    /// A tenant with a name and a tunnel key.
    pub fn new(name: &str, key: u32) -> Self {
        Self { name: name.to_owned(), key }
    }
}

/// What to build. `Spec::default()` is 3 hosts in a VXLAN mesh, one bridge each, the tenants green and orange, one
/// container per tenant and host, all bridges told to connect to the controller.
#[derive(Clone, Debug)]
pub struct Spec {
    /// How many hosts.
    pub hosts: usize,
    /// Which bridges they have.
    pub layout: Layout,
    /// What joins them.
    pub carrier: Carrier,
    /// Which pairs are joined.
    pub shape: Shape,
    /// The tenants.
    pub tenants: Vec<TenantSpec>,
    /// How many containers a tenant has on each host.
    pub containers: usize,
    /// Who decides where frames go.
    pub switching: Switching,
    /// Whether bridges are given the controller's address as they are made (else see `Lab::connect`).
    pub connect: bool,
    /// Interval of BFD on tunnels in milliseconds; none without.
    pub bfd_ms: Option<u32>,
    /// How many VLAN tags OVS looks at; its default is 1.
    pub vlan_limit: Option<u8>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            hosts: 3,
            layout: Layout::Shared,
            carrier: Carrier::Vxlan,
            shape: Shape::Mesh,
            tenants: vec![TenantSpec::new("green", 100), TenantSpec::new("orange", 200)],
            containers: 1,
            switching: Switching::Controller,
            connect: true,
            bfd_ms: None,
            vlan_limit: None,
        }
    }
}

/// A bridge of the lab (the underlay's own bridges aside).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its host, from 1.
    pub host: usize,
    /// Its name in OVS: `br0`, or the tenant's.
    pub name: String,
    /// Its `dp-desc`: `h1`, or `green-h1`.
    pub description: String,
    /// Its datapath id.
    pub dpid: u64,
    /// Whose it is, if it belongs to one tenant.
    pub tenant: Option<String>,
}

impl Bridge {
    /// The datapath id in 16 hex digits.
    pub fn dpid_hex(&self) -> String {
        format!("{:016x}", self.dpid)
    }
}

impl Spec {
    /// Refuses what can't be built, before anything is.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!((1..=200).contains(&self.hosts), "a lab has 1 to 200 hosts, not {}", self.hosts);
        let most = self.hosts * self.containers;
        ensure!(most <= 250, "{} containers a tenant don't fit into the lab's /24; 250 do", most);
        for tenant in &self.tenants {
            // Ports bear the name, and Linux allows 15 characters: `wire200-` leaves 7.
            ensure!(
                (1..=7).contains(&tenant.name.len()) && tenant.name.bytes().all(|b| b.is_ascii_lowercase()),
                "a tenant's name has 1 to 7 small letters in the lab, unlike `{}`",
                tenant.name
            );
        }
        for (a, b) in self.shape.edges(self.hosts) {
            ensure!(
                a != b && a >= 1 && b <= self.hosts,
                "the link {a}-{b} isn't between two of the hosts 1 to {}",
                self.hosts
            );
        }
        Ok(())
    }

    fn has_own_bridges(&self, tenant: usize) -> bool {
        match self.layout {
            Layout::PerTenant => true,
            Layout::Shared => false,
            Layout::Mixed => tenant == 0,
        }
    }

    /// The bridges of one host.
    pub fn bridges(&self, host: usize) -> Vec<Bridge> {
        let mut bridges = Vec::new();
        for (index, tenant) in self.tenants.iter().enumerate().filter(|(index, _)| self.has_own_bridges(*index)) {
            bridges.push(Bridge {
                host,
                name: tenant.name.clone(),
                description: format!("{}-h{host}", tenant.name),
                dpid: (index as u64 + 1) << 16 | host as u64,
                tenant: Some(tenant.name.clone()),
            });
        }
        if self.layout != Layout::PerTenant {
            let description = format!("h{host}");
            bridges.push(Bridge { host, name: "br0".to_owned(), description, dpid: host as u64, tenant: None });
        }
        bridges
    }

    /// The name of the bridge a tenant's containers are attached to, the same on every host.
    pub fn bridge_of(&self, tenant: &str) -> Result<&str> {
        let Some(index) = self.tenants.iter().position(|t| t.name == tenant) else {
            bail!("the lab has no tenant `{tenant}`");
        };
        Ok(if self.has_own_bridges(index) { &self.tenants[index].name } else { "br0" })
    }

    pub(crate) fn key_of(&self, tenant: &str) -> Option<u32> {
        self.tenants.iter().find(|t| t.name == tenant).map(|t| t.key)
    }
}
