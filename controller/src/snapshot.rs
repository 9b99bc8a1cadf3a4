//! What readers see of the core at one moment: the documents that REST serves, immutable once made.

use serde::{Deserialize, Serialize};

/// All documents, made together, so that they never contradict each other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// `/v1/status`, but for what the daemon itself adds.
    pub status: Status,
    /// `/v1/bridges`, in order of datapath ids.
    pub bridges: Vec<Bridge>,
    /// `/v1/links`, in order of their ends.
    pub links: Vec<Link>,
    /// `/v1/tenants`, in order of names.
    pub tenants: Vec<Tenant>,
    /// `/v1/hosts`, in order of tenant and address.
    pub hosts: Vec<Host>,
    /// `/v1/limits`, in order of bridges, ports first.
    pub limits: Vec<Limit>,
    /// `/v1/chains`, in order of tenants, then as they are held against frames.
    pub chains: Vec<Chain>,
}

/// `/v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program; filled in by the daemon.
    pub version: String,
    /// Seconds since it was started; filled in by the daemon.
    pub uptime_seconds: u64,
    /// The policy in force.
    pub policy: PolicyStatus,
    /// How many bridges.
    pub bridges: BridgeCount,
    /// How many links.
    pub links: LinkCount,
    /// How many tenants.
    pub tenants: usize,
    /// How many hosts.
    pub hosts: usize,
    /// How many chains.
    pub chains: usize,
    /// Has every connected bridge acknowledged exactly what is desired?
    pub converged: bool,
    /// After a start: are bridges from before still awaited, or links still to be found? Nothing is changed until then.
    #[serde(default)]
    pub settling: bool,
    /// What an operator should look at, in plain words; empty: nothing.
    pub problems: Vec<String>,
}

/// The policy in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Rises by one with each policy that came into force.
    pub generation: u64,
    /// SHA-256 of the policy's text, in hex.
    pub digest: String,
    /// Where it came from: `files` or `store`.
    pub source: String,
}

/// How many bridges.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BridgeCount {
    /// Connected now.
    pub connected: usize,
    /// Connected now or before.
    pub known: usize,
    /// Names of bridges that the policy names and that aren't connected.
    pub missing: Vec<String>,
}

/// How many links.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkCount {
    /// Up.
    pub up: usize,
    /// Known, but down.
    pub down: usize,
}

/// One bridge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bridge {
    /// Datapath id, 16 hex digits.
    pub dpid: String,
    /// Its name.
    pub name: String,
    /// Where it connects from; empty: it isn't connected.
    pub address: String,
    /// Is it connected?
    pub connected: bool,
    /// The role we have there: `master`, `equal`, `slave`.
    pub role: String,
    /// Its ports, in order of numbers.
    pub ports: Vec<Port>,
    /// What it should hold.
    pub desired: TableCount,
    /// What it has acknowledged.
    pub installed: TableCount,
    /// Are the two the same, entry by entry?
    pub converged: bool,
    /// What it refused, in plain words; empty: nothing.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// One port of a bridge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Its number; `LOCAL` is 4294967294.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Is it up?
    pub up: bool,
    /// `tenant`, `function`, `link` or `unused`.
    pub kind: String,
    /// Whose it is, if a tenant's.
    pub tenant: Option<String>,
    /// Does it take no part in floods, because what is behind it makes a loop?
    #[serde(default)]
    pub shut: bool,
}

/// How much a bridge's tables hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TableCount {
    /// Flow entries.
    pub flows: usize,
    /// Groups.
    pub groups: usize,
    /// Meters.
    pub meters: usize,
}

/// A port named by its bridge's and its own name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortName {
    /// Name of the bridge.
    pub bridge: String,
    /// Name of the port.
    pub port: String,
}

/// One link, undirected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// One end.
    pub a: PortName,
    /// The other.
    pub b: PortName,
    /// Do probes pass both ways?
    pub up: bool,
    /// `tunnel`, `vlan` or `dedicated`.
    pub carrier: String,
    /// The octets of the longest IP packet of an untagged frame that it carries both ways, with a mark of ours where links of its
    /// kind need one; 9000: that, and perhaps more; 0: none with a mark; `None`: not known (yet).
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Tenants whose tree uses it.
    pub tenants: Vec<String>,
    /// Tenants whose known unicast, or frames on their way to functions, it carries.
    #[serde(default)]
    pub unicast: Vec<String>,
    /// Seconds since it came up, or went down; absent: a bridge at its end doesn't answer, so nobody knows.
    #[serde(default)]
    pub since_seconds: Option<u64>,
    /// How it is known that it is down: `probes`, `carrier` or `liveness` (of a port: BFD, for one); absent: it isn't down.
    #[serde(default)]
    pub lost_by: Option<String>,
    /// Does it carry nothing because the policy wants it so, as both its bridges have acknowledged?
    pub drained: bool,
    /// What an operator should know beside that: that it is damped, why and for how long, that it is drained or why it
    /// isn't, or that a bridge at its end doesn't answer; mostly empty.
    pub note: String,
}

/// One tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Its tunnel key.
    pub key: u32,
    /// Its ports.
    pub ports: Vec<PortName>,
    /// The octets of the longest packet that all its links carry, to one destination or to all, outside of chains; `None`: not
    /// known of all of them (yet), or it has none.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// The same for packets in chains; `None` also where it has no chains.
    #[serde(default)]
    pub mtu_in_chains: Option<u16>,
    /// Its tree.
    pub tree: Tree,
    /// How many hosts.
    pub hosts: usize,
    /// How many chains.
    pub chains: usize,
    /// How many limits.
    pub limits: usize,
}

/// A tenant's tree.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tree {
    /// Name of the bridge that it is grown from; absent: the tenant has no port.
    pub root: Option<String>,
    /// Its edges.
    pub edges: Vec<Edge>,
    /// Names of the bridges that it spans, those it only passes included.
    pub bridges: Vec<String>,
}

/// An edge of a tree.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// The end nearer to the root.
    pub a: PortName,
    /// The other.
    pub b: PortName,
}

/// One host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Its tenant.
    pub tenant: String,
    /// Its Ethernet address.
    pub mac: String,
    /// IP addresses that it was seen with.
    pub ips: Vec<String>,
    /// Name of its bridge.
    pub bridge: String,
    /// Name of its port.
    pub port: String,
    /// Does the policy pin it there?
    pub pinned: bool,
    /// Seconds since it last sent something, as far as is known: of hosts that are known, bridges are asked every 10 s, or
    /// less often where there are more than 10,000. Absent: nothing was heard of it since the controller was started, or it is pinned.
    pub seen_seconds: Option<u64>,
}

/// A rate limit as it stands at one bridge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Whose.
    pub tenant: String,
    /// What it is set on: `port`, what one port sends; `to`, what one port is sent; `bridge`, what all of the tenant's ports there send together;
    /// `chain`, what enters a chain there.
    pub on: String,
    /// Name of the bridge.
    pub bridge: String,
    /// Name of the port, if it is set on one.
    pub port: Option<String>,
    /// Name of the chain, if it is set on one.
    pub chain: Option<String>,
    /// How much is let through a second.
    pub rate: u32,
    /// How much at once, after a pause.
    pub burst: u32,
    /// What is counted: `kbit/s` or `packet/s`.
    pub unit: String,
    /// What was let through since the meter was made, as of a second ago at most.
    pub passed: Traffic,
    /// What was dropped.
    pub dropped: Traffic,
}

/// One service chain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Chain {
    /// Whose.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// Do replies pass it in reverse?
    pub symmetric: bool,
    /// Its functions, in order.
    pub hops: Vec<Hop>,
}

/// A service function in a chain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hop {
    /// The function's name.
    pub function: String,
    /// `wire`, `hairpin`, `routed` or `tap`.
    pub kind: String,
    /// What becomes of frames while no instance works: `drop` or `bypass`.
    pub on_failure: String,
    /// Its instances.
    pub instances: Vec<Instance>,
}

/// An instance of a service function. Its counts are those of all chains that pass it; they begin anew when the bridge
/// connects or the entries that count change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Its bridge, as the policy names it.
    pub bridge: String,
    /// The port that frames go in by.
    pub ingress: String,
    /// The port that they come out of.
    pub egress: String,
    /// Its share.
    pub weight: u16,
    /// Do only the connections that it has go on passing it?
    pub draining: bool,
    /// `working`; `unproven`: it is used, as its ports are up, but no probe has come through yet; `silent`: its bridge doesn't
    /// answer; `failed`: a port is missing or down, or nothing comes through any more.
    pub health: String,
    /// Do probes come through? Only those of kind `wire` and `hairpin` are probed.
    pub probes_pass: bool,
    /// What was sent into it.
    pub received: Traffic,
    /// What came back. The two differ where a function drops frames, or sends its own.
    pub returned: Traffic,
}

/// Frames and their octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Frames.
    pub packets: u64,
    /// Octets.
    pub bytes: u64,
}

impl std::ops::Add for Traffic {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { packets: self.packets.saturating_add(other.packets), bytes: self.bytes.saturating_add(other.bytes) }
    }
}
