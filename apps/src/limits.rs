//! Rate limits: what tenants' ports may send, each by itself and all at a bridge together. Copies for the controller have
//! meters of their own (`fabric.rs`), so a limit never keeps a probe or a new host from the controller.

use std::collections::BTreeMap;

use openflow::action::Action;
use openflow::instruction::Instruction;
use openflow::oxm::Oxm;
use openflow::types::{DatapathId, MeterId, PortNo};

use crate::allocation::{self, Allocations};
use crate::attachment::{Attachments, PortUse};
use crate::desired::{SectionBuilder, go};
use crate::marks::{
    chain_limit, flood_limit, flood_limited, metadata, port_limit, port_meter, receive_limit, step_of, tenant_limit,
};
use crate::pipeline::{FLOOD, FORWARD, LEARN, LIMIT_PORT, LIMIT_TENANT};
use crate::policy::{Origin, Policy, PortSelector, RateLimit, Tenant};
use crate::view::{Endpoint, View};

/// What a limit is set on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limited<'a> {
    /// What one port sends.
    Port(PortNo),
    /// What one port is sent.
    To(PortNo),
    /// What all of the tenant's ports at the bridge send.
    Bridge,
    /// What enters one of its chains at the bridge.
    Chain(&'a str),
}

/// A limit as it stands at one bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// What it is set on.
    pub on: Limited<'a>,
    /// How much is let through.
    pub limit: RateLimit,
}

/// All limits at a bridge, by their meters.
pub fn at<'a>(
    dpid: DatapathId,
    policy: &'a Policy,
    allocations: &Allocations,
    attachments: &'a Attachments,
    view: &View,
) -> BTreeMap<MeterId, Limit<'a>> {
    let mut limits = BTreeMap::new();
    let mut lowest: BTreeMap<&str, PortNo> = BTreeMap::new();
    let ports = view.bridges.get(&dpid).map(|bridge| bridge.ports.keys().copied()).into_iter().flatten();
    for port in ports {
        let PortUse::Tenant(attached) = attachments.of(Endpoint { bridge: dpid, port }) else { continue };
        lowest.entry(&attached.tenant).or_insert(port);
        if let Some(limit) = attached.selector.rate_limit {
            limits.insert(port_limit(port), Limit { tenant: &attached.tenant, on: Limited::Port(port), limit });
        }
        if let (Some(limit), Some(meter)) = (attached.selector.rate_limit_to, receive_limit(port)) {
            limits.insert(meter, Limit { tenant: &attached.tenant, on: Limited::To(port), limit });
        }
    }
    for tenant in &policy.tenants {
        let Some(port) = lowest.get(tenant.name.as_str()) else { continue };
        if let (Some(limit), Some(meter)) = (tenant.rate_limit, tenant_limit(*port)) {
            limits.insert(meter, Limit { tenant: &tenant.name, on: Limited::Bridge, limit });
        }
        for chain in &tenant.chains {
            let numbers = allocations.of(&allocation::chain(tenant, chain));
            if let (Some(limit), Some(numbers)) = (chain.rate_limit, numbers) {
                let limit = Limit { tenant: &tenant.name, on: Limited::Chain(&chain.name), limit };
                limits.insert(chain_limit(step_of(numbers.key)), limit);
            }
        }
    }
    limits
}

/// What a tenant has a meter for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metered<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// What it bounds.
    pub what: String,
    /// What the policy says of that.
    pub origin: &'a Origin,
}

/// What a meter at a bridge is for; `None`: it is no tenant's.
pub fn metered<'a>(
    meter: MeterId,
    dpid: DatapathId,
    policy: &'a Policy,
    allocations: &Allocations,
    attachments: &'a Attachments,
    view: &View,
) -> Option<Metered<'a>> {
    let bridge = view.bridges.get(&dpid)?;
    let of_port = |port: PortNo, what: &str| {
        let (tenant, origin) = match attachments.of(Endpoint { bridge: dpid, port }) {
            PortUse::Tenant(attached) => (&attached.tenant, &attached.selector.origin),
            PortUse::Function(service) => (&service.tenant, &service.origin),
            PortUse::Candidate | PortUse::Untried(_) | PortUse::Unused => return None,
        };
        let name = bridge.ports.get(&port).map_or("", |port| port.name.as_str());
        Some(Metered { tenant, what: format!("{what} of port {name}"), origin })
    };
    if let Some(Limit { tenant, on, .. }) = at(dpid, policy, allocations, attachments, view).remove(&meter) {
        let declared = policy.tenant(tenant)?;
        return match on {
            Limited::Port(port) => of_port(port, "rate_limit"),
            Limited::To(port) => of_port(port, "rate_limit_to"),
            Limited::Bridge => Some(Metered { tenant, what: "rate_limit".to_owned(), origin: &declared.origin }),
            Limited::Chain(name) => {
                let chain = declared.chains.iter().find(|chain| chain.name == name)?;
                Some(Metered { tenant, what: format!("rate_limit of chain {name}"), origin: &chain.origin })
            }
        };
    }
    let copies = || bridge.ports.keys().copied().find(|port| port_meter(*port) == meter);
    match flood_limited(meter) {
        Some(port) => of_port(port, "flood_limit"),
        None => of_port(copies()?, "copies for the controller"),
    }
}

/// How much a port may send to everybody at a bridge; `None`: it isn't limited.
pub fn of_floods(place: Endpoint, policy: &Policy, attachments: &Attachments) -> Option<RateLimit> {
    let name = match attachments.of(place) {
        PortUse::Tenant(attached) => &attached.tenant,
        PortUse::Function(port) => &port.tenant,
        _ => return None,
    };
    policy.tenant(name)?.flood_limit
}

/// What goes to everybody, from one port: metered, if there is a limit, and on.
pub(crate) fn flood(builder: &mut SectionBuilder, tenant: &Tenant, port: PortNo, flooded: Vec<Oxm>) {
    if let (Some(meter), Some(_)) = (flood_limit(port), tenant.flood_limit) {
        let fields = flooded.into_iter().chain([Oxm::InPort(port, None)]);
        builder.flow(FORWARD, 2, fields, vec![Instruction::Meter(meter), Instruction::GotoTable(FLOOD)]);
    }
}

/// What sends frames for a known destination out of its port, within the port's limit. Copies for everybody don't count: in
/// Open vSwitch, a meter in one bucket of a group holds back what the buckets behind it would send.
pub(crate) fn deliver(port: PortNo, selector: Option<&PortSelector>, actions: Vec<Action>) -> Vec<Instruction> {
    let limited = selector.is_some_and(|selector| selector.rate_limit_to.is_some());
    let meter = receive_limit(port).filter(|_| limited).map(Instruction::Meter);
    meter.into_iter().chain([Instruction::ApplyActions(actions)]).collect()
}

/// The port, if that is what these instructions are.
pub fn delivered(instructions: &[Instruction]) -> Option<PortNo> {
    let ([Instruction::ApplyActions(actions)] | [Instruction::Meter(_), Instruction::ApplyActions(actions)]) =
        instructions
    else {
        return None;
    };
    if let [Action::Output { port, .. }] = actions.as_slice() { Some(*port) } else { None }
}

/// Where there is no limit, frames go on.
pub(crate) fn pass(builder: &mut SectionBuilder) {
    builder.flow(LIMIT_PORT, 1, [], go(LIMIT_TENANT));
    builder.flow(LIMIT_TENANT, 1, [], go(LEARN));
}

/// The limits of a tenant at a bridge where it has these ports, in order of their numbers. Their meters are the fabric's.
pub(crate) fn compile(builder: &mut SectionBuilder, tenant: &Tenant, key: u32, ports: &[(PortNo, &PortSelector)]) {
    for (port, selector) in ports.iter().filter(|(_, selector)| selector.rate_limit.is_some()) {
        builder.about(&selector.origin);
        let limited = vec![Instruction::Meter(port_limit(*port)), Instruction::GotoTable(LIMIT_TENANT)];
        builder.flow(LIMIT_PORT, 10, [Oxm::InPort(*port, None)], limited);
    }
    let lowest = ports.iter().map(|(port, _)| *port).min().and_then(tenant_limit);
    if let (Some(_), Some(meter)) = (tenant.rate_limit, lowest) {
        let limited = vec![Instruction::Meter(meter), Instruction::GotoTable(LEARN)];
        let entered = Oxm::Metadata(metadata::edge(key), Some(metadata::TENANT | metadata::EDGE));
        builder.about(&tenant.origin).flow(LIMIT_TENANT, 10, [entered], limited);
    }
}
