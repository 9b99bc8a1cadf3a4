//! Entries of chains: each leads frames to a function that may come next in some chain, and leaves out none that works.
//! Which frames are whose chain's is looked at in `meaning.rs`.

use std::collections::{BTreeMap, BTreeSet};

use openflow::action::Action;
use openflow::oxm::Oxm;
use openflow::types::{DatapathId, TableId};
use petgraph::unionfind::UnionFind;

use super::entries::{Entry, Scan};
use super::look::Does;
use super::surroundings::{Behind, Step, Steps};
use super::{Checker, Property};
use crate::allocation::Numbers;
use crate::attachment::PortUse;
use crate::marks::{Direction, metadata};
use crate::pipeline::{BALANCE, FORWARD, STEER};
use crate::policy::{Chain, Function, FunctionKind, OnFailure, Tenant};
use crate::view::Carrier;

/// Where frames are led.
#[derive(Clone, Copy)]
pub(super) enum Then<'a> {
    Destination,
    Function(&'a Function, Direction),
}

/// What an entry does with frames of a chain.
pub(super) struct Next<'a> {
    pub(super) taps: Vec<(&'a Function, Direction)>,
    pub(super) then: Then<'a>,
}

/// Where the functions of a tenant work, and which bridges its frames get to from each other.
#[derive(Default)]
pub(super) struct Working {
    parts: BTreeMap<DatapathId, u32>,
    /// By name: the parts of the fabric that have an instance which works.
    functions: BTreeMap<String, BTreeSet<u32>>,
}

impl Working {
    pub(super) fn new(checker: &Checker<'_>, tenant: &Tenant, numbers: Numbers, steps: &Steps<'_>) -> Self {
        if tenant.functions.is_empty() {
            return Self::default();
        }
        let view = checker.view;
        let answering: Vec<DatapathId> =
            view.bridges.iter().filter(|(_, bridge)| bridge.responsive).map(|(dpid, _)| *dpid).collect();
        let index = |dpid: DatapathId| answering.binary_search(&dpid).ok().map(|at| at as u32);
        let mut union = UnionFind::<u32>::new(answering.len());
        for link in &view.links {
            let usable = match link.carrier {
                Carrier::Tunnel => true,
                Carrier::Dedicated(key) => key == numbers.key,
                Carrier::Vlan => numbers.vlan.is_some(),
            };
            if let (true, Some(a), Some(b)) = (usable, index(link.a.bridge), index(link.b.bridge)) {
                union.union(a, b);
            }
        }
        let parts: BTreeMap<_, _> = (0..).zip(&answering).map(|(at, dpid)| (*dpid, union.find(at))).collect();
        let mut functions: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        for function in &tenant.functions {
            for instance in function.instances.iter().filter(|instance| steps.has(function, instance)) {
                let places = checker.attachments.ports.iter().filter(|(_, used)| {
                    matches!(used, PortUse::Function(it)
                        if it.tenant == tenant.name && it.function == function.name && it.instance == instance.name)
                });
                let places: Vec<_> = places.map(|(place, _)| *place).collect();
                let port = |name: &str| {
                    places.iter().find_map(|place| {
                        let port = view.bridges.get(&place.bridge)?.ports.get(&place.port)?;
                        (port.name == name && port.up).then_some(*place)
                    })
                };
                let hangs = |place| view.failed.contains(&place) && function.kind != FunctionKind::Tap;
                if let (Some(ingress), Some(egress)) = (port(&instance.ingress), port(&instance.egress))
                    && ingress.bridge == egress.bridge
                    && !hangs(ingress)
                {
                    functions.entry(function.name.clone()).or_default().extend(parts.get(&ingress.bridge));
                }
            }
        }
        Self { parts, functions }
    }

    /// Can frames at this bridge pass the function?
    pub(super) fn passable(&self, function: &str, at: DatapathId) -> bool {
        let part = self.parts.get(&at);
        part.is_some_and(|part| self.functions.get(function).is_some_and(|parts| parts.contains(part)))
    }
}

impl<'a> Scan<'_, 'a> {
    /// What an entry sends frames to: copies to taps, and then a function or the destination; `None`: they end.
    pub(super) fn next(&self, does: &Does<'_>, key: u32) -> Result<Option<Next<'a>>, (Property, &'static str)> {
        let own = |value: u64| value & metadata::TENANT == u64::from(key) && value & metadata::VERSION == 0;
        let mut taps = Vec::new();
        for action in does.actions {
            let tapped = match action {
                Action::Multipath(_) => continue,
                Action::Clone(nested) => self.tap(&nested.0).filter(|(value, _)| own(*value)),
                _ => None,
            };
            let tapped = tapped.and_then(|(value, table)| self.leads(value, table));
            let what = "does more than to send frames, or copies, to functions";
            taps.push(tapped.ok_or((Property::Isolation, what))?);
        }
        let Some(goto) = does.goto else {
            if taps.is_empty() && !does.actions.is_empty() {
                return Err((Property::Form, "leads frames nowhere, but does something with them"));
            }
            return Ok(None);
        };
        let then = match does.write {
            _ if goto == FORWARD => match does.write {
                Some((value, _)) if value & !metadata::EDGE != u64::from(key) => None,
                _ => Some(Then::Destination),
            },
            Some((value, _)) if own(value) => {
                self.leads(value, goto).map(|(function, direction)| Then::Function(function, direction))
            }
            _ => None,
        };
        let then = then.ok_or((Property::Chain, "leads frames to something that is no function of the tenant"))?;
        Ok(Some(Next { taps, then }))
    }

    /// An entry that says which function comes next.
    pub(super) fn classifies(&mut self, entry: &Entry<'_>, key: u32) {
        let Some(tenant) = self.tenant else { return };
        let Next { taps, then } = match self.next(&entry.does, key) {
            Ok(Some(next)) => next,
            Ok(None) => return,
            Err((property, what)) => return self.tell(entry, property, what),
        };
        let at = entry.here.dpid;
        let behind = entry.seen.in_port.map(|port| self.places.of(entry.here.index, port));
        let fits = match behind {
            Some(Behind::Function(_, service, name)) => {
                let Some(function) = tenant.functions.iter().find(|it| it.name == service.function) else { return };
                let Some(instance) = function.instances.iter().find(|it| it.name == service.instance) else { return };
                let own = entry.seen.told(metadata::DIVERTED) == Some(0);
                let routes = own && function.kind == FunctionKind::Routed && matches!(then, Then::Destination);
                let came = |direction| match direction {
                    _ if instance.ingress == instance.egress => true,
                    Direction::Forward => name == instance.egress,
                    Direction::Reverse => name == instance.ingress,
                };
                // What a station asks and answers passes it as if it were a host.
                routes || self.some_chain(tenant, at, Some(&function.name), came, &taps, then)
            }
            _ if entry.seen.told(metadata::EDGE) != Some(metadata::EDGE) => false,
            _ if matches!(then, Then::Destination) && taps.is_empty() => true,
            _ => self.some_chain(tenant, at, None, |_| true, &taps, then),
        };
        if !fits {
            self.tell(entry, Property::Chain, "leads frames on as no chain says, or past a function that works");
        }
    }

    /// What a copy for a tap is given: metadata, and the table that goes on.
    fn tap(&self, actions: &[Action]) -> Option<(u64, TableId)> {
        let actions = match actions {
            [Action::Multipath(_), rest @ ..] => rest,
            all => all,
        };
        match actions {
            [Action::SetField(Oxm::Metadata(value, None)), Action::Resubmit { in_port: Action::SAME_PORT, table }] => {
                Some((*value, *table))
            }
            _ => None,
        }
    }

    /// The function that a step leads to, in the table that it goes on in.
    fn leads(&self, value: u64, table: TableId) -> Option<(&'a Function, Direction)> {
        match (self.steps.of(value)?, table) {
            ((Step::Function(function), direction), BALANCE) => Some((function, direction)),
            ((Step::Instance(function, ..), direction), STEER) => Some((function, direction)),
            _ => None,
        }
    }

    fn some_chain(
        &self,
        tenant: &'a Tenant,
        at: DatapathId,
        after: Option<&str>,
        came: impl Fn(Direction) -> bool,
        taps: &[(&Function, Direction)],
        then: Then<'_>,
    ) -> bool {
        let both = tenant.chains.iter().flat_map(|chain| Direction::ALL.map(|direction| (chain, direction)));
        let mut all = both.filter(|(chain, direction)| chain.symmetric || *direction == Direction::Forward);
        all.any(|(chain, direction)| came(direction) && self.says(tenant, chain, direction, at, after, taps, then))
    }

    /// May this come next, by what a chain says?
    #[expect(clippy::too_many_arguments, reason = "what comes after what, in which chain")]
    pub(super) fn says(
        &self,
        tenant: &Tenant,
        chain: &Chain,
        direction: Direction,
        at: DatapathId,
        after: Option<&str>,
        taps: &[(&Function, Direction)],
        then: Then<'_>,
    ) -> bool {
        let mut names: Vec<&String> = chain.through.iter().collect();
        if direction == Direction::Reverse {
            names.reverse();
        }
        let begin = match after.map(|after| names.iter().position(|name| *name == after)) {
            None => 0,
            Some(Some(at)) => at + 1,
            Some(None) => return false,
        };
        let side = |function: &Function| {
            let two = function.instances.iter().any(|instance| instance.ingress != instance.egress);
            if two { direction } else { Direction::Forward }
        };
        let mut taps = taps.iter();
        for name in names.into_iter().skip(begin) {
            let Some(function) = tenant.functions.iter().find(|function| function.name == *name) else { return false };
            let passable = self.working.passable(name, at);
            let tap = function.kind == FunctionKind::Tap;
            if tap && taps.as_slice().first().is_some_and(|(it, way)| it.name == *name && *way == side(function)) {
                taps.next();
            } else if let Then::Function(it, way) = then
                && it.name == *name
                && !tap
            {
                return way == side(function) && taps.next().is_none();
            } else if passable || !tap && function.on_failure == OnFailure::Drop {
                return false;
            }
        }
        matches!(then, Then::Destination) && taps.next().is_none()
    }
}
