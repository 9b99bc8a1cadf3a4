//! Which port belongs to whom: the policy's globs held against the bridges' ports.

use std::collections::BTreeMap;

use openflow::types::{DatapathId, PortNo};

use crate::policy::{FunctionKind, Origin, Policy, PortSelector, Tenant};
use crate::problems::Problem;
use crate::view::{Endpoint, View};

/// A port of a tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct Attached {
    /// The tenant's name.
    pub tenant: String,
    /// What the policy says of the port.
    pub selector: PortSelector,
}

/// A port of a tenant's service function.
#[derive(Clone, Debug, PartialEq)]
pub struct ServicePort {
    /// The tenant's name.
    pub tenant: String,
    /// The function's name.
    pub function: String,
    /// The name of the function's instance.
    pub instance: String,
    /// How frames go through the function.
    pub kind: FunctionKind,
    /// What the policy says of the instance.
    pub origin: Origin,
}

/// What a port is for.
#[derive(Clone, Debug, PartialEq)]
pub enum PortUse {
    /// It belongs to a tenant.
    Tenant(Box<Attached>),
    /// It belongs to a tenant's service function.
    Function(Box<ServicePort>),
    /// It may become a link.
    Candidate,
    /// Nothing: frames from it go nowhere.
    Unused,
}

impl PortUse {
    /// Do both give the port to the same tenant, or both to none? Of a function that becomes one of another kind, frames
    /// come back that didn't before: that makes it another one.
    pub fn same_owner(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tenant(one), Self::Tenant(two)) => one.tenant == two.tenant,
            (Self::Function(one), Self::Function(two)) => {
                (&one.tenant, &one.function, &one.instance, one.kind)
                    == (&two.tenant, &two.function, &two.instance, two.kind)
            }
            (Self::Candidate, Self::Candidate) | (Self::Unused, Self::Unused) => true,
            _ => false,
        }
    }
}

/// What every port of the fabric is for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attachments {
    /// By place.
    pub ports: BTreeMap<Endpoint, PortUse>,
    /// Ports that can't be used, and why.
    pub problems: Vec<Problem>,
}

impl Attachments {
    /// The use of one port.
    pub fn of(&self, place: Endpoint) -> &PortUse {
        self.ports.get(&place).unwrap_or(&PortUse::Unused)
    }

    /// The tenant whose port it is.
    pub fn tenant(&self, place: Endpoint) -> Option<&Attached> {
        if let PortUse::Tenant(attached) = self.of(place) { Some(attached) } else { None }
    }

    /// The service function whose port it is.
    pub fn service(&self, place: Endpoint) -> Option<&ServicePort> {
        if let PortUse::Function(port) = self.of(place) { Some(port) } else { None }
    }

    /// The ports of one tenant.
    pub fn of_tenant<'a>(&'a self, tenant: &'a str) -> impl Iterator<Item = (Endpoint, &'a PortSelector)> {
        self.ports.iter().filter_map(move |(place, used)| match used {
            PortUse::Tenant(attached) if attached.tenant == tenant => Some((*place, &attached.selector)),
            _ => None,
        })
    }
}

/// What every port of the fabric is for. A port that two tenants claim is nobody's.
pub fn attach(policy: &Policy, view: &View) -> Attachments {
    let mut attachments = Attachments::default();
    for (dpid, bridge) in &view.bridges {
        let dpid_text = dpid.to_string();
        for (number, port) in &bridge.ports {
            let claims = |tenant: &Tenant| {
                if let Some(service) = service(tenant, &bridge.name, &dpid_text, &port.name) {
                    return Some((service.origin.clone(), PortUse::Function(Box::new(service))));
                }
                let hit = |selector: &&PortSelector| {
                    (selector.bridge.matches(&bridge.name) || selector.bridge.matches(&dpid_text))
                        && selector.port.matches(&port.name)
                        // A bridge's own interface is no port like the others: only its very name selects it.
                        && (*number != PortNo::LOCAL || selector.port.is_literal())
                };
                // The most exact selector speaks for the port: one that names it before a glob.
                let exact = |selector: &&PortSelector| (selector.port.is_literal(), selector.bridge.is_literal());
                let selector = tenant.ports.iter().filter(hit).max_by_key(exact)?.clone();
                let origin = selector.origin.clone();
                Some((origin, PortUse::Tenant(Box::new(Attached { tenant: tenant.name.clone(), selector }))))
            };
            let mut claimed = policy.tenants.iter().filter_map(|tenant| Some((tenant, claims(tenant)?)));
            let used = match (claimed.next(), claimed.next()) {
                (Some((_, (_, used))), None) => used,
                (Some((one, (first, _))), Some((other, (second, _)))) => {
                    let text = format!(
                        "port `{}` of bridge `{}` is claimed by tenant `{}` ({first}) and tenant `{}` ({second}): nobody gets it; narrow one of the two patterns",
                        port.name, bridge.name, one.name, other.name,
                    );
                    let place = Endpoint { bridge: *dpid, port: *number };
                    attachments.problems.push(Problem::new("claimed twice", place, text));
                    PortUse::Unused
                }
                (None, _) if *number != PortNo::LOCAL && may_link(policy, &port.name) => PortUse::Candidate,
                (None, _) => PortUse::Unused,
            };
            attachments.ports.insert(Endpoint { bridge: *dpid, port: *number }, used);
        }
    }
    attachments
}

/// The tenant's service function that a port belongs to.
fn service(tenant: &Tenant, bridge: &str, dpid: &str, port: &str) -> Option<ServicePort> {
    let all = tenant.functions.iter().flat_map(|function| function.instances.iter().map(move |it| (function, it)));
    let mut here = all.filter(|(_, it)| it.bridge == bridge || it.bridge == dpid);
    let (function, instance) = here.find(|(_, it)| it.ingress == port || it.egress == port)?;
    Some(ServicePort {
        tenant: tenant.name.clone(),
        function: function.name.clone(),
        instance: instance.name.clone(),
        kind: function.kind,
        origin: instance.origin.clone(),
    })
}

fn may_link(policy: &Policy, port: &str) -> bool {
    policy.fabric.links.iter().any(|glob| glob.matches(port))
}

/// The names of bridges: from the policy, else what the bridge says of itself if nobody else has that name, else its
/// datapath id.
pub fn bridge_names(policy: &Policy, told: &BTreeMap<DatapathId, String>) -> BTreeMap<DatapathId, String> {
    let named: BTreeMap<DatapathId, &str> = policy.bridges.iter().map(|name| (name.dpid, name.name.as_str())).collect();
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for name in named.values().copied() {
        *uses.entry(name).or_default() += 1;
    }
    for (_, name) in told.iter().filter(|(dpid, _)| !named.contains_key(dpid)) {
        *uses.entry(name).or_default() += 1;
    }
    told.iter()
        .map(|(dpid, told)| {
            let unique = !told.is_empty() && uses.get(told.as_str()) == Some(&1);
            let name = named.get(dpid).copied().or(unique.then_some(told.as_str()));
            (*dpid, name.map_or_else(|| dpid.to_string(), str::to_owned))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_another_kind_is_another_owner() {
        let of = |kind| {
            let (tenant, function, instance) = ("green".into(), "ids".into(), "ids-1".into());
            let origin = Origin { file: "a.toml".into(), line: 1 };
            PortUse::Function(Box::new(ServicePort { tenant, function, instance, kind, origin }))
        };
        assert!(of(FunctionKind::Tap).same_owner(&of(FunctionKind::Tap)));
        assert!(!of(FunctionKind::Tap).same_owner(&of(FunctionKind::Hairpin)));
    }
}
