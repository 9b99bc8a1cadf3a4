//! What the controller sees of the fabric: the other input, beside the policy, of everything computed here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use openflow::types::{DatapathId, MacAddr, PortNo};

use crate::desired::FlowKey;
use crate::kept::Kept;
use crate::marks::{Owner, TreeVersion};
use crate::withhold::Reluctance;

/// The fabric at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Bridges that are connected, or were and may still forward.
    pub bridges: BTreeMap<DatapathId, Bridge>,
    /// Links between them that carry frames both ways and may be used, each once, in order.
    pub links: Vec<Link>,
    /// The octets of the longest packet that a link carries both ways with a mark of ours, as far as that is known; 0: none with a
    /// mark.
    pub mtus: BTreeMap<Link, u16>,
    /// Those that do, too, but aren't used, and why.
    pub withheld: BTreeMap<Link, Reluctance>,
    /// Those that did, and don't any more.
    pub down: Vec<Link>,
    /// Links at bridges that no longer answer.
    pub held: Vec<Held>,
    /// What those bridges certainly do.
    pub kept: BTreeMap<DatapathId, Arc<Kept>>,
    /// The trees that were last computed, by the tenants' keys.
    pub trees: BTreeMap<u32, Grown>,
    /// Service functions that let nothing through, by their ingress ports.
    pub failed: BTreeSet<Endpoint>,
}

impl View {
    /// Does a port take no part in floods?
    pub(crate) fn is_shut(&self, place: Endpoint) -> bool {
        let port = self.bridges.get(&place.bridge).and_then(|bridge| bridge.ports.get(&place.port));
        port.is_some_and(|port| port.shut)
    }

    /// Does a bridge answer?
    pub(crate) fn is_responsive(&self, dpid: DatapathId) -> bool {
        self.bridges.get(&dpid).is_some_and(|bridge| bridge.responsive)
    }

    /// Do both ends of a link answer, and say that their ports are up?
    pub(crate) fn has_carrier(&self, link: &Link) -> bool {
        [link.a, link.b].iter().all(|end| {
            let bridge = self.bridges.get(&end.bridge).filter(|bridge| bridge.responsive);
            bridge.and_then(|bridge| bridge.ports.get(&end.port)).is_some_and(|port| port.up)
        })
    }

    /// Will frames that this entry is for leave by this port, if others send them to its bridge? One that answers gets the
    /// entry first.
    pub(crate) fn lets_out(&self, place: Endpoint, owner: Owner, entry: impl FnOnce() -> FlowKey) -> bool {
        let kept = || self.kept.get(&place.bridge);
        self.is_responsive(place.bridge) || kept().is_some_and(|kept| kept.lets_out(owner, &entry(), place.port))
    }

    /// Are frames taken in that come over a link, at those of its ends whose bridges don't answer? `entry` is the one for them.
    pub(crate) fn takes_in(&self, link: &Link, owner: Owner, entry: impl Fn(Endpoint) -> FlowKey) -> bool {
        let takes_in = |end: Endpoint| self.kept.get(&end.bridge).is_some_and(|kept| kept.takes_in(owner, &entry(end)));
        [link.a, link.b].into_iter().all(|end| self.is_responsive(end.bridge) || takes_in(end))
    }
}

/// The tree that bridges have, or are about to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grown {
    /// Its version.
    pub version: TreeVersion,
    /// Its edges; `None`: they aren't known, or there can be no other tree beside it. It changes where it stands then.
    pub edges: Option<Arc<BTreeSet<Link>>>,
}

impl Grown {
    /// Do marks on all its edges say which version of the tree a frame follows? Those in VLAN tags don't.
    pub fn is_told(&self) -> bool {
        self.edges.as_ref().is_some_and(|edges| edges.iter().all(|link| link.carrier != Carrier::Vlan))
    }
}

/// A link of a bridge that no longer answers. It may serve as that bridge's last hop, never for transit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// The link.
    pub link: Link,
    /// Keys of the tenants whose frames that bridge may still flood over it.
    pub trees: BTreeSet<u32>,
    /// Was it up when the bridge stopped answering? Nobody knows whether it still is.
    pub up: bool,
}

/// A bridge.
#[derive(Clone, Debug, PartialEq)]
pub struct Bridge {
    /// Its name: from the policy, else what it says of itself, else its datapath id.
    pub name: String,
    /// Does it answer? One that doesn't may still forward by what it has. It is no longer sent anything, and nothing
    /// passes through it on the way to others.
    pub responsive: bool,
    /// Its ports.
    pub ports: BTreeMap<PortNo, PortView>,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PortView {
    /// Its name.
    pub name: String,
    /// Has it carrier, and is it switched on?
    pub up: bool,
    /// What is known of what is behind it.
    pub behind: Behind,
    /// What is behind it makes a loop: it takes no part in floods, and nobody is learnt there.
    pub shut: bool,
}

/// What is known of what is behind a port. Only what comes through a tunnel can be told for certain from what a station sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// No probes went out there long enough to tell.
    pub untried: bool,
    /// Probes of this fabric came in there, or what went out there came in elsewhere: a link, or a station that joins two ports.
    pub probes: bool,
    /// Frames came out of a tunnel.
    pub tunnel: bool,
}

/// One end of a link, or the place of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The bridge.
    pub bridge: DatapathId,
    /// Its port.
    pub port: PortNo,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {}", self.bridge, self.port)
    }
}

/// A link between two bridges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// One end, the lesser one.
    pub a: Endpoint,
    /// The other.
    pub b: Endpoint,
    /// How frames say over it whose they are.
    pub carrier: Carrier,
}

impl Link {
    /// Its end at `bridge`, with the other end.
    pub fn at(&self, bridge: DatapathId) -> Option<(Endpoint, Endpoint)> {
        if self.a.bridge == bridge {
            Some((self.a, self.b))
        } else if self.b.bridge == bridge {
            Some((self.b, self.a))
        } else {
            None
        }
    }
}

/// How frames say over a link whose they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// A tunnel with `key=flow`: by the key.
    Tunnel,
    /// A tunnel with this fixed key: all are of the tenant that has it.
    Dedicated(u32),
    /// No tunnel: by a VLAN tag that bridges put on and take off.
    Vlan,
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tunnel => "tunnel",
            Self::Dedicated(_) => "dedicated",
            Self::Vlan => "vlan",
        })
    }
}

/// A learnt host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where it is.
    pub place: Endpoint,
    /// Did it send lately? A silent one is still reached; its next frame is shown to the controller again.
    pub fresh: bool,
}

/// The learnt hosts of one tenant.
pub type Hosts = BTreeMap<MacAddr, Host>;
