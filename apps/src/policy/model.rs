//! A validated policy. Only [`super::load`] makes one, so holding one means that it is sound.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use openflow::types::{DatapathId, MacAddr};
use wildmatch::WildMatch;

use super::chain::{Chain, Classifier, Function, Rule, RuleAction, Verdict};

/// Everything that the operator's policy files say, over all files together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Names for bridges, in file order.
    pub bridges: Vec<BridgeName>,
    /// What holds for the whole fabric.
    pub fabric: Fabric,
    /// Tenants, in order of their names.
    pub tenants: Vec<Tenant>,
}

impl Policy {
    /// A tenant by its name.
    pub fn tenant(&self, name: &str) -> Option<&Tenant> {
        // In order of their names.
        let index = self.tenants.binary_search_by(|tenant| tenant.name.as_str().cmp(name)).ok()?;
        self.tenants.get(index)
    }

    /// Bridges that it names one by one, where it says what they are called, whose ports are whose and where functions run. Not those
    /// that are drained: they may well be away.
    pub fn named_bridges(&self) -> BTreeSet<String> {
        let names: BTreeMap<String, &str> =
            self.bridges.iter().map(|it| (it.dpid.to_string(), it.name.as_str())).collect();
        let ports = self.tenants.iter().flat_map(|tenant| &tenant.ports).map(|port| &port.bridge);
        let ports = ports.filter(|bridge| bridge.is_literal()).map(ToString::to_string);
        let functions = self.tenants.iter().flat_map(|tenant| &tenant.functions).flat_map(|it| &it.instances);
        let used = ports.chain(functions.map(|instance| instance.bridge.clone()));
        let all = used.map(|name| names.get(&name).map_or(name, |named| (*named).to_owned()));
        all.chain(self.bridges.iter().map(|bridge| bridge.name.clone())).collect()
    }

    /// Is anything limited in its rate?
    pub fn has_rate_limits(&self) -> bool {
        let of_port =
            |tenant: &Tenant| tenant.ports.iter().any(|port| port.rate_limit.or(port.rate_limit_to).is_some());
        let of_chain = |tenant: &Tenant| tenant.chains.iter().any(|chain| chain.rate_limit.is_some());
        self.tenants.iter().any(|tenant| tenant.rate_limit.is_some() || of_port(tenant) || of_chain(tenant))
    }
}

/// `[[bridge]]`: a name for a datapath id.
#[derive(Clone, Debug, PartialEq)]
pub struct BridgeName {
    /// The name.
    pub name: String,
    /// The datapath id it stands for.
    pub dpid: DatapathId,
}

/// `[fabric]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Fabric {
    /// Ports whose names match one of these may become links.
    pub links: Vec<Glob>,
    /// How often ports that may become links send probes.
    pub probes: Probes,
    /// Links that are to carry nothing: each has a port at one of its ends that one of these selects.
    pub drain: Vec<LinkSelector>,
}

/// An entry of `drain` in `[fabric]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkSelector {
    /// Bridges, by name or by datapath id in 16 hex digits.
    pub bridge: Glob,
    /// Ports, by name.
    pub port: Glob,
    /// Where it was declared.
    pub origin: Origin,
}

/// How often each port sends probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probes {
    /// As often as so many probes a second, of all ports together, allow.
    Budget(u16),
    /// Once in each such time.
    Every(Duration),
}

impl Probes {
    /// The budget, unless the policy says otherwise.
    pub const BUDGET: u16 = 5_000;
}

impl Default for Probes {
    fn default() -> Self {
        Self::Budget(Self::BUDGET)
    }
}

impl Default for Fabric {
    fn default() -> Self {
        Self { links: vec![Glob::new("*")], probes: Probes::default(), drain: Vec::new() }
    }
}

/// `[[tenant]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Its name: lower case, unique.
    pub name: String,
    /// The tunnel key it asks for, 1 to [`Tenant::KEY_MAX`]; `None`: one is allocated and kept.
    pub key: Option<u32>,
    /// What becomes of a unicast frame whose destination isn't known.
    pub unknown_unicast: UnknownUnicast,
    /// What becomes of frames that bridges keep to one link.
    pub link_local: LinkLocal,
    /// How many sources are learnt at one port at most.
    pub max_hosts: u32,
    /// The octets of the longest packet that its containers send, if it says so.
    pub mtu: Option<u16>,
    /// How much its ports at one bridge may send, together.
    pub rate_limit: Option<RateLimit>,
    /// How much each of its ports may send that goes to everybody; `None`: as much as it likes.
    pub flood_limit: Option<RateLimit>,
    /// Which ports are the tenant's.
    pub ports: Vec<PortSelector>,
    /// What becomes of frames that no rule matches.
    pub default: Verdict,
    /// What becomes of frames with two tags, where rules or chains ask what is behind them.
    pub inner_vlans: InnerVlans,
    /// Its service functions, in file order.
    pub functions: Vec<Function>,
    /// Its service chains: higher priority first, then in file order.
    pub chains: Vec<Chain>,
    /// Its access rules: higher priority first, then in file order. The first that matches a frame decides.
    pub rules: Vec<Rule>,
    /// Where it was declared.
    pub origin: Origin,
}

impl Tenant {
    /// Do frames with two tags end where they enter? Bridges look behind one tag only.
    pub fn ends_inner_vlans(&self) -> bool {
        let asked = self.classifiers().any(Classifier::asks_behind_tags);
        self.inner_vlans == InnerVlans::Drop && asked
    }

    /// Are there frames that end where they enter because its rules and chains can't tell what they are?
    pub fn ends_unread(&self) -> bool {
        self.ends_inner_vlans() || self.ends_split_headers()
    }

    /// Do packets end where they enter of which the first fragment shows no ports, or no protocol?
    pub fn ends_split_headers(&self) -> bool {
        self.classifiers().any(Classifier::asks_protocol)
    }

    /// What its rules and chains say of frames.
    fn classifiers(&self) -> impl Iterator<Item = &Classifier> {
        let of_rules = self.rules.iter().flat_map(|rule| &rule.classifiers);
        of_rules.chain(self.chains.iter().flat_map(|chain| &chain.classifiers))
    }

    /// Have bridges to remember its connections?
    pub fn tracks_connections(&self) -> bool {
        self.rules.iter().any(|rule| rule.action == RuleAction::AllowEstablished)
    }

    /// Is something left to the ports that offer it: where frames are dropped unless a rule allows them, or as soon as some port does?
    pub fn guards(&self, offers: impl Fn(&PortSelector) -> bool) -> bool {
        self.default == Verdict::Drop || self.ports.iter().any(offers)
    }

    /// Highest tunnel key that a tenant may have; the keys above carry marks of the fabric itself.
    pub const KEY_MAX: u32 = 0x3f_fffe;
}

/// What becomes of a unicast frame whose destination isn't known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownUnicast {
    /// It goes to every port of the tenant.
    #[default]
    Flood,
    /// It is dropped.
    Drop,
}

/// What becomes of frames with two tags, of which rules and chains can't tell what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InnerVlans {
    /// They end where they enter.
    #[default]
    Drop,
    /// They go on, unless a rule or a chain is for them by what is in front of the second tag.
    Pass,
}

/// What becomes of a tenant's frames to the addresses that bridges don't pass on (IEEE 802.1Q §8.6.3): spanning tree, LACP, 802.1X,
/// LLDP and the like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkLocal {
    /// They end where they enter, as at any bridge.
    #[default]
    Drop,
    /// They go to all of the tenant's ports, as what is for everybody, but for MAC control (pause) frames.
    Pass,
}

/// One entry of a tenant's `ports`.
#[derive(Clone, Debug, PartialEq)]
pub struct PortSelector {
    /// Bridges, by name or by datapath id in 16 hex digits.
    pub bridge: Glob,
    /// Ports, by name.
    pub port: Glob,
    /// A name for the one port that this selects.
    pub name: Option<String>,
    /// The only source address of frames that this port may send, if set, beside those that it shares.
    pub mac: Option<MacAddr>,
    /// The only IP addresses that this port may send from, if any are set, beside those that it shares.
    pub ip: Vec<IpAddr>,
    /// Source addresses that it may send from as well, as other ports may: those of virtual routers, of which one is in charge.
    pub shared_mac: Vec<MacAddr>,
    /// The same with IP addresses.
    pub shared_ip: Vec<IpAddr>,
    /// Is a router behind it, which may advertise itself?
    pub router: bool,
    /// Is a DHCP server behind it, which may answer?
    pub dhcp_server: bool,
    /// How much each port that this selects may send.
    pub rate_limit: Option<RateLimit>,
    /// How much each of them may be sent.
    pub rate_limit_to: Option<RateLimit>,
    /// Where it was declared.
    pub origin: Origin,
}

impl PortSelector {
    /// May only given addresses be sent from this port?
    pub fn is_pinned(&self) -> bool {
        self.mac.is_some() || !self.ip.is_empty()
    }

    /// The source addresses of frames that it may send, if its `mac` is pinned.
    pub fn macs(&self) -> impl Iterator<Item = MacAddr> + '_ {
        self.mac.into_iter().chain(self.shared_mac.iter().copied())
    }

    /// The IP addresses that it may send from, if its `ip` are pinned.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.ip.iter().chain(&self.shared_ip).copied()
    }
}

/// A bound on how much is let through. What is beyond it is dropped (OpenFlow 1.3.5 §5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// What is counted.
    pub unit: RateUnit,
    /// How much of it a second.
    pub rate: u32,
    /// How much of it at once, after a pause.
    pub burst: u32,
}

/// What a [`RateLimit`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateUnit {
    /// Kilobits of frames, without what the wire adds to them.
    Kilobits,
    /// Frames.
    Packets,
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            RateUnit::Kilobits => write!(f, "{} kbit/s", self.rate),
            RateUnit::Packets => write!(f, "{} packet/s", self.rate),
        }
    }
}

/// A pattern of names: `*` stands for any run of characters, `?` for one.
#[derive(Clone, Debug, PartialEq)]
pub struct Glob(WildMatch);

impl Glob {
    /// A pattern.
    pub fn new(pattern: &str) -> Self {
        Self(WildMatch::new(pattern))
    }

    /// Does the whole name match?
    pub fn matches(&self, name: &str) -> bool {
        self.0.matches(name)
    }

    /// Does it stand for exactly one name?
    pub fn is_literal(&self) -> bool {
        !self.to_string().contains(['*', '?'])
    }

    /// How much of a name it says: its characters that stand for themselves. Of two patterns that match the same name, the one
    /// that says more is the more exact one.
    pub fn exactness(&self) -> usize {
        self.to_string().chars().filter(|it| !matches!(it, '*' | '?')).count()
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Where in the policy files something was declared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file's name, as given.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}
