//! Links between bridges on different hosts, and how their ports are named.

use anyhow::{Result, ensure};

use crate::spec::{Bridge, Spec};

/// One end of a link between bridges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkEnd {
    /// The host, from 1.
    pub host: usize,
    /// The bridge on it.
    pub bridge: String,
    /// The bridge's port.
    pub port: String,
}

/// A link between bridges on two hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The end on the lower host.
    pub a: LinkEnd,
    /// The end on the higher host.
    pub b: LinkEnd,
    /// Whose it is, if it carries one tenant only.
    pub tenant: Option<String>,
}

impl Link {
    /// The far end, seen from one.
    pub fn other(&self, end: &LinkEnd) -> Option<&LinkEnd> {
        match end {
            end if *end == self.a => Some(&self.b),
            end if *end == self.b => Some(&self.a),
            _ => None,
        }
    }

    /// The end on a host.
    pub fn end(&self, host: usize) -> Result<&LinkEnd> {
        ensure!(host == self.a.host || host == self.b.host, "the link has no end on h{host}");
        Ok(if host == self.a.host { &self.a } else { &self.b })
    }
}

/// Links for all pairs: one per pair for shared bridges, one per pair and tenant for bridges of their own. A policy's
/// glob `green-*` must not match their ports, so the tenant's name stands at the end.
pub(crate) fn links(spec: &Spec) -> Vec<Link> {
    let kind = if spec.carrier.tunnel_type().is_some() { "tun" } else { "wire" };
    let end = |bridge: &Bridge, peer: usize| {
        let suffix = bridge.tenant.as_ref().map(|tenant| format!("-{tenant}")).unwrap_or_default();
        LinkEnd { host: bridge.host, bridge: bridge.name.clone(), port: format!("{kind}{peer}{suffix}") }
    };
    let mut links = Vec::new();
    for (a, b) in spec.shape.edges(spec.hosts) {
        for (near, far) in spec.bridges(a).iter().zip(spec.bridges(b)) {
            links.push(Link { a: end(near, b), b: end(&far, a), tenant: near.tenant.clone() });
        }
    }
    links
}
