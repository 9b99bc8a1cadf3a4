//! What entries are held against: whose port is whose, where links lead, which mark stands for what.

use std::collections::BTreeMap;

use openflow::types::{DatapathId, MacAddr, PortNo};

use super::Checker;
use crate::allocation::{self, Allocations, Numbers};
use crate::attachment::{PortUse, ServicePort};
use crate::marks::{Direction, Mode, Waypoint, dedicated_flood_vlan, metadata, step_of, tunnel_key, vlan_id};
use crate::policy::{Function, Instance, Tenant};
use crate::view::{Carrier, Endpoint};

/// What is behind a port.
#[derive(Clone, Copy, Debug)]
pub(super) enum Behind<'a> {
    /// A tenant, by its key.
    Tenant(u32),
    /// A service function of the tenant with this key; the port's name.
    Function(u32, &'a ServicePort, &'a str),
    /// Another bridge.
    Link(Link),
    /// Nobody that frames are for.
    Nobody,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// The other end's bridge, by its place among those looked at; `None`: it isn't among them.
    pub(super) to: Option<u32>,
    pub(super) here: Endpoint,
    pub(super) there: Endpoint,
    pub(super) carrier: Carrier,
}

/// What is behind the ports of bridges, in order, by the bridges' places among those looked at.
pub(super) struct Places<'a>(Vec<Vec<(PortNo, Behind<'a>)>>);

impl<'a> Places<'a> {
    pub(super) fn of(&self, bridge: u32, port: PortNo) -> Behind<'a> {
        let ports = self.0.get(bridge as usize).map_or(&[][..], Vec::as_slice);
        let found = ports.binary_search_by_key(&port, |(port, _)| *port).ok().and_then(|at| ports.get(at));
        found.map_or(Behind::Nobody, |(_, behind)| *behind)
    }

    /// The links of a bridge.
    pub(super) fn links(&self, bridge: u32) -> impl Iterator<Item = Link> {
        let ports = self.0.get(bridge as usize).map_or(&[][..], Vec::as_slice);
        ports.iter().filter_map(|(_, behind)| if let Behind::Link(link) = behind { Some(*link) } else { None })
    }
}

impl<'a> Checker<'a> {
    pub(super) fn places(&self, dpids: &[DatapathId], wanted: impl Fn(&DatapathId) -> bool) -> Places<'a> {
        let of = |dpid: &DatapathId| {
            let first = |port| Endpoint { bridge: *dpid, port };
            let all = first(PortNo(0))..=first(PortNo(u32::MAX));
            let mut ports: Vec<(PortNo, Behind<'a>)> = Vec::new();
            for (place, used) in self.attachments.ports.range(all) {
                let behind = match used {
                    PortUse::Tenant(attached) => {
                        self.keys.get(attached.tenant.as_str()).map(|key| Behind::Tenant(*key))
                    }
                    PortUse::Function(service) => self.keys.get(service.tenant.as_str()).map(|key| {
                        let bridge = self.view.bridges.get(dpid);
                        let name = bridge.and_then(|bridge| bridge.ports.get(&place.port));
                        Behind::Function(*key, service, name.map_or("", |port| port.name.as_str()))
                    }),
                    PortUse::Candidate | PortUse::Untried(_) | PortUse::Unused => None,
                };
                ports.extend(behind.map(|behind| (place.port, behind)));
            }
            let begin = self.links.partition_point(|(here, ..)| here.bridge < *dpid);
            for (here, there, carrier) in self.links[begin..].iter().take_while(|(here, ..)| here.bridge == *dpid) {
                let to = dpids.binary_search(&there.bridge).ok().map(|at| at as u32);
                let link = Link { to, here: *here, there: *there, carrier: *carrier };
                ports.push((here.port, Behind::Link(link)));
            }
            // Where a port is both, the tenant's counts.
            ports.sort_by_key(|(port, _)| *port);
            ports.dedup_by_key(|(port, _)| *port);
            ports
        };
        Places(dpids.iter().map(|dpid| if wanted(dpid) { of(dpid) } else { Vec::new() }).collect())
    }
}

/// What a frame bears on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The tunnel key that it is given.
    pub(super) tunnel: Option<u64>,
    /// The VLAN id of the tag that it is given.
    pub(super) tag: Option<u16>,
}

/// What a tenant's frames bear in a mode; `None`: such links can't carry them.
pub(super) fn mark(carrier: Carrier, numbers: Numbers, mode: Mode) -> Option<Mark> {
    let vlan = match mode {
        Mode::Waypoint(waypoint) => waypoint.numbers.vlan,
        _ => numbers.vlan,
    };
    match carrier {
        Carrier::Tunnel => Some(Mark { tunnel: Some(tunnel_key(numbers.key, mode).into()), tag: None }),
        Carrier::Vlan => Some(Mark { tunnel: None, tag: Some(vlan_id(vlan?, mode)) }),
        Carrier::Dedicated(key) if key == numbers.key => {
            let tag = match mode {
                Mode::Normal => None,
                Mode::Flood(version) => Some(dedicated_flood_vlan(version)),
                Mode::Waypoint(_) => Some(vlan_id(vlan?, mode)),
            };
            Some(Mark { tunnel: None, tag })
        }
        Carrier::Dedicated(_) => None,
    }
}

/// What a number of a step stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Function(&'a Function),
    Instance(&'a Function, &'a Instance, Numbers),
}

impl<'a> Step<'a> {
    pub(super) fn function(&self) -> &'a Function {
        match self {
            Self::Function(function) | Self::Instance(function, ..) => function,
        }
    }
}

/// The steps of a tenant's chains, by number.
#[derive(Default)]
pub(super) struct Steps<'a>(BTreeMap<u16, Step<'a>>);

impl<'a> Steps<'a> {
    pub(super) fn new(tenant: &'a Tenant, allocations: &Allocations) -> Self {
        let mut steps = BTreeMap::new();
        for function in &tenant.functions {
            if let Some(numbers) = allocations.of(&allocation::function(tenant, function)) {
                steps.insert(step_of(numbers.key), Step::Function(function));
            }
            for instance in &function.instances {
                if let Some(numbers) = allocations.of(&allocation::instance(tenant, function, instance)) {
                    steps.insert(step_of(numbers.key), Step::Instance(function, instance, numbers));
                }
            }
        }
        Self(steps)
    }

    /// The step that metadata names, with the direction.
    pub(super) fn of(&self, value: u64) -> Option<(Step<'a>, Direction)> {
        let bits = (value & metadata::STEP) >> metadata::STEP.trailing_zeros();
        let direction = if bits & 1 == 0 { Direction::Forward } else { Direction::Reverse };
        Some((*self.0.get(&((bits >> 1) as u16))?, direction))
    }

    /// The waypoint that metadata names, with its instance.
    pub(super) fn waypoint(&self, value: u64) -> Option<(Waypoint, &'a Function, &'a Instance)> {
        match self.of(value)? {
            (Step::Instance(function, instance, numbers), direction) => {
                Some((Waypoint { numbers, direction }, function, instance))
            }
            (Step::Function(_), _) => None,
        }
    }

    /// Numbers of instances: those that are seen in frames.
    pub(super) fn numbers(&self) -> impl Iterator<Item = Numbers> {
        self.0.values().filter_map(|step| if let Step::Instance(.., numbers) = step { Some(*numbers) } else { None })
    }
}

impl Steps<'_> {
    /// Has an instance numbers?
    pub(super) fn has(&self, function: &Function, instance: &Instance) -> bool {
        let it = |step: &Step<'_>| matches!(step, Step::Instance(one, other, _) if one.name == function.name && other.name == instance.name);
        self.0.values().any(it)
    }
}

/// The port of an instance that frames go in by.
pub(super) fn entrance(instance: &Instance, direction: Direction) -> &str {
    match direction {
        Direction::Forward => &instance.ingress,
        Direction::Reverse => &instance.egress,
    }
}

/// The address that frames are given there.
pub(super) fn station(function: &Function, name: &str) -> Option<MacAddr> {
    function.instances.iter().find(|instance| instance.name == name)?.mac
}
