//! Ports of functions that go down or come up, before the controller knows, and what may become of packets then.

use std::collections::BTreeSet;

use apps::interpreter::Frame;
use apps::policy::{Function, FunctionKind, Instance, OnFailure};
use apps::view::Endpoint;

use super::{Draw, Fabric};

impl Fabric {
    /// All ports that are down, whether or not the controller knows.
    pub(crate) fn down(&self) -> BTreeSet<Endpoint> {
        let all = self.view.bridges.iter().flat_map(|(dpid, bridge)| {
            bridge.ports.iter().map(|(port, it)| (Endpoint { bridge: *dpid, port: *port }, it.up))
        });
        all.filter(|(place, up)| *up == self.unseen.contains(place)).map(|(place, _)| place).collect()
    }

    /// A port of a function goes down or comes up again, and the controller doesn't get to know.
    pub(crate) fn flap_unseen(&mut self, draw: &mut Draw) {
        let ports: Vec<Endpoint> = self.functions.keys().copied().collect();
        if let Some(port) = ports.get(draw.below(ports.len().max(1)))
            && !self.unseen.remove(port)
        {
            self.unseen.insert(*port);
        }
    }

    /// A function that mustn't be left out may be from now on, or the other way round: what it was is the answer.
    pub(crate) fn turn_on_failure(&mut self, draw: &mut Draw) -> String {
        let tenant = draw.below(self.policy.tenants.len());
        let functions = &mut self.policy.tenants[tenant].functions;
        let at = draw.below(functions.len());
        let function = &mut functions[at];
        function.on_failure = match function.on_failure {
            OnFailure::Drop => OnFailure::Bypass,
            OnFailure::Bypass => OnFailure::Drop,
        };
        format!("t{tenant} {}: {:?}", function.name, function.on_failure)
    }

    /// The controller gets to know how most ports are that it had wrong.
    pub(crate) fn see(&mut self, draw: &mut Draw) {
        let mistaken = std::mem::take(&mut self.unseen);
        for place in mistaken {
            if draw.chance(75) {
                let bridge = self.view.bridges.get_mut(&place.bridge).unwrap();
                let port = bridge.ports.get_mut(&place.port).unwrap();
                port.up = !port.up;
            } else {
                self.unseen.insert(place);
            }
        }
    }

    /// The instances of a function, each with its bridge, and whether it works with these ports down.
    pub(crate) fn living(&self, function: &Function, down: &BTreeSet<Endpoint>) -> Vec<(String, bool)> {
        let lives = |instance: &Instance, port: &str| !down.contains(&self.find(&instance.bridge, port));
        let instances = function.instances.iter();
        let living = instances.map(|it| (it.bridge.clone(), lives(it, &it.ingress) && lives(it, &it.egress)));
        living.collect()
    }

    /// May a packet have passed just these functions, by the policy's words, while these ports are down?
    pub(crate) fn may_pass(&self, tenant: &str, sent: &Frame, passed: &[String], down: &BTreeSet<Endpoint>) -> bool {
        let Some(chain) = self.chain_of(tenant, sent) else { return false };
        let mut left = passed.iter().peekable();
        let all = chain.into_iter().filter(|function| function.kind != FunctionKind::Tap).all(|function| {
            let impaired = || {
                let broken = function.instances.iter().any(|it| !self.is_healthy(it));
                broken || self.living(function, down).iter().any(|(_, lives)| !lives)
            };
            let passes = left.next_if(|name| **name == function.name).is_some();
            passes || (function.on_failure == OnFailure::Bypass && impaired())
        });
        all && left.next().is_none()
    }
}
