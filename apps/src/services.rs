//! Service functions and where they are: which instances exist, which of them work, and which frames can be sent to.

use std::collections::BTreeMap;

use openflow::types::DatapathId;

use crate::allocation::{self, Allocations, Numbers};
use crate::attachment::{Attachments, PortUse};
use crate::marks::{Direction, Waypoint};
use crate::policy::{Function, FunctionKind, Instance, OnFailure, Tenant};
use crate::view::{Endpoint, View};

/// Whether frames can pass an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// They can.
    Working,
    /// Nobody knows: its bridge doesn't answer.
    Silent,
    /// They can't: a port is missing or down, or nothing comes through.
    Failed,
}

/// An instance of a service function, with where it is.
#[derive(Clone, Debug)]
pub struct Placed<'a> {
    /// What the policy says of it.
    pub instance: &'a Instance,
    /// Can frames pass it?
    pub health: Health,
    /// Its ports may be up, but it is known to let nothing through.
    pub(crate) hangs: bool,
    /// Does its bridge do with frames for it, and from it, what it is to do by now? One that doesn't answer may not.
    pub informed: bool,
    /// Its number as a waypoint.
    pub(crate) numbers: Numbers,
    /// The ports that exist, by the direction in which frames go in there.
    pub(crate) ports: BTreeMap<Direction, Endpoint>,
}

impl Placed<'_> {
    /// The port that frames go in by.
    pub fn ingress(&self, direction: Direction) -> Option<Endpoint> {
        self.ports.get(&direction).copied()
    }

    /// What a frame is marked with on its way there.
    pub fn waypoint(&self, direction: Direction) -> Waypoint {
        Waypoint { numbers: self.numbers, direction }
    }
}

/// A service function with its instances, in the policy's order.
#[derive(Clone, Debug)]
pub struct Service<'a> {
    /// What the policy says of it.
    pub function: &'a Function,
    /// Its instances.
    pub instances: Vec<Placed<'a>>,
    /// Its number as a step of chains.
    pub(crate) numbers: Numbers,
}

impl Service<'_> {
    pub(crate) fn has_two_ports(&self) -> bool {
        self.function.instances.iter().any(|instance| instance.ingress != instance.egress)
    }

    /// As which direction counts a frame that goes through this way? Where there is one port there is one.
    pub(crate) fn side(&self, direction: Direction) -> Direction {
        if self.has_two_ports() { direction } else { Direction::Forward }
    }

    /// The instances that frames can be sent to from a bridge.
    pub(crate) fn candidates(&self, from: DatapathId, reach: &Reach<'_>) -> Vec<usize> {
        let of = |health: Health| {
            let fits = |(_, placed): &(usize, &Placed<'_>)| {
                let there = placed.ingress(Direction::Forward);
                placed.health == health
                    && placed.informed
                    && there.is_some_and(|it| it.bridge == from || reach(from, it.bridge))
            };
            self.instances.iter().enumerate().filter(fits).map(|(index, _)| index).collect::<Vec<_>>()
        };
        let working = of(Health::Working);
        if !working.is_empty() || self.function.on_failure == OnFailure::Bypass {
            return working;
        }
        of(Health::Silent)
    }
}

/// The bridges from which a tenant's frames get to a bridge.
pub(crate) type Reach<'a> = dyn Fn(DatapathId, DatapathId) -> bool + 'a;

/// Finds a tenant's functions in the fabric, by name.
pub(crate) fn place<'a>(
    tenant: &'a Tenant,
    allocations: &Allocations,
    attachments: &Attachments,
    view: &View,
) -> BTreeMap<&'a str, Service<'a>> {
    let mut places: BTreeMap<(&str, &str), Vec<Endpoint>> = BTreeMap::new();
    for (place, used) in &attachments.ports {
        if let PortUse::Function(port) = used
            && port.tenant == tenant.name
        {
            places.entry((&port.function, &port.instance)).or_default().push(*place);
        }
    }
    let services = tenant.functions.iter().filter_map(|function| {
        let numbers = allocations.of(&allocation::function(tenant, function))?;
        let instances = function.instances.iter().filter_map(|instance| {
            let numbers = allocations.of(&allocation::instance(tenant, function, instance))?;
            let places = places.get(&(function.name.as_str(), instance.name.as_str()));
            let ports = ports(instance, places.map_or(&[], Vec::as_slice), view);
            let ingress = ports.get(&Direction::Forward);
            let hangs =
                function.kind != FunctionKind::Tap && ingress.is_some_and(|ingress| view.failed.contains(ingress));
            let health = if hangs { Health::Failed } else { health(&ports, view) };
            Some(Placed { instance, health, hangs, informed: true, numbers, ports })
        });
        Some((function.name.as_str(), Service { function, instances: instances.collect(), numbers }))
    });
    services.collect()
}

/// Which of an instance's ports are there, by the direction in which frames go in by them.
fn ports(instance: &Instance, places: &[Endpoint], view: &View) -> BTreeMap<Direction, Endpoint> {
    let mut ports = BTreeMap::new();
    for place in places {
        let Some(port) = view.bridges.get(&place.bridge).and_then(|bridge| bridge.ports.get(&place.port)) else {
            continue;
        };
        for (direction, name) in [(Direction::Forward, &instance.ingress), (Direction::Reverse, &instance.egress)] {
            if port.name == *name {
                ports.entry(direction).or_insert(*place);
            }
        }
    }
    ports
}

fn health(ports: &BTreeMap<Direction, Endpoint>, view: &View) -> Health {
    let (Some(ingress), Some(egress)) = (ports.get(&Direction::Forward), ports.get(&Direction::Reverse)) else {
        return Health::Failed;
    };
    // Two bridges of one name, of which each has one of the two ports.
    if ingress.bridge != egress.bridge {
        return Health::Failed;
    }
    let Some(bridge) = view.bridges.get(&ingress.bridge) else { return Health::Failed };
    let up = [ingress, egress].iter().all(|place| bridge.ports.get(&place.port).is_some_and(|port| port.up));
    if !up {
        Health::Failed
    } else if bridge.responsive {
        Health::Working
    } else {
        Health::Silent
    }
}

#[cfg(test)]
mod tests {
    use openflow::types::PortNo;

    use super::*;
    use crate::attachment::attach;
    use crate::policy::{Source, load};
    use crate::view::{Bridge, PortView};

    /// Which instances frames are sent to from bridge 1, where `silent` bridges don't answer and `down` ports are down.
    fn chosen(on_failure: &str, silent: &[u64], down: &[&str]) -> Vec<usize> {
        let text = format!(
            r#"version = 1
[[tenant]]
name = "green"
ports = [{{ bridge = "*", port = "green-*" }}]
[[tenant.function]]
name = "firewall"
kind = "wire"
on_failure = "{on_failure}"
instances = [
  {{ name = "one", bridge = "b1", ingress = "in1", egress = "out1" }},
  {{ name = "two", bridge = "b2", ingress = "in2", egress = "out2" }},
]
[[tenant.chain]]
name = "all"
through = ["firewall"]
match = {{ protocol = "tcp" }}
"#
        );
        let policy = load(&[Source { name: "a.toml".into(), text }]).expect("sound").policy;
        let allocations = Allocations::default().updated(&policy);
        let mut view = View::default();
        for dpid in [1, 2] {
            let names = ["in", "out"].map(|name| format!("{name}{dpid}"));
            let port = |name: String| PortView { up: !down.contains(&name.as_str()), name, ..PortView::default() };
            let ports = (1..).map(PortNo).zip(names.map(port)).collect();
            let bridge = Bridge { name: format!("b{dpid}"), responsive: !silent.contains(&dpid), ports };
            view.bridges.insert(DatapathId(dpid), bridge);
        }
        let attachments = attach(&policy, &view);
        let services = place(&policy.tenants[0], &allocations, &attachments, &view);
        services["firewall"].candidates(DatapathId(1), &|_, _| true)
    }

    #[test]
    fn frames_go_to_instances_that_work_and_else_only_where_nothing_may_be_left_out() {
        for on_failure in ["drop", "bypass"] {
            assert_eq!(chosen(on_failure, &[], &[]), [0, 1]);
            assert_eq!(chosen(on_failure, &[], &["out1"]), [1], "a port is down");
            assert_eq!(chosen(on_failure, &[1], &[]), [1], "who answers is there");
            assert_eq!(chosen(on_failure, &[1, 2], &["in1", "out2"]), [] as [usize; 0]);
        }
        assert_eq!(chosen("drop", &[1, 2], &["in1"]), [1], "it may still work");
        assert_eq!(chosen("bypass", &[1, 2], &["in1"]), [] as [usize; 0]);
    }
}
