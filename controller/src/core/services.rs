//! What readers see of service chains.

use std::collections::BTreeSet;

use apps::chains::Chains;
use apps::failover::delivered;
use apps::marks::Direction;
use apps::policy::{FunctionKind, OnFailure, Tenant};
use apps::services::{Health, Placed, Service};
use apps::view::Endpoint;

use super::Core;
use crate::snapshot::{self, Traffic};

impl Core {
    /// The tenants that have chains, with their keys.
    fn chained(&self) -> impl Iterator<Item = (&Tenant, u32, Chains<'_>)> {
        let tenants = self.policy.tenants.iter().filter(|tenant| !tenant.chains.is_empty());
        tenants.filter_map(|tenant| {
            let allocations = &self.memory.allocations;
            let key = allocations.of(&tenant.name)?.key;
            Some((tenant, key, Chains::new(tenant, key, allocations, &self.attachments, &self.view)))
        })
    }

    /// All chains, with their functions and what passed them.
    pub(super) fn chains(&self) -> Vec<snapshot::Chain> {
        let mut all = Vec::new();
        for (tenant, key, chains) in self.chained() {
            for chain in &tenant.chains {
                let services = chain.through.iter().filter_map(|name| chains.services().get(name.as_str()));
                all.push(snapshot::Chain {
                    tenant: tenant.name.clone(),
                    name: chain.name.clone(),
                    symmetric: chain.symmetric,
                    hops: services.map(|service| self.hop(key, service)).collect(),
                });
            }
        }
        all
    }

    fn hop(&self, key: u32, service: &Service<'_>) -> snapshot::Hop {
        let function = service.function;
        let kind = match function.kind {
            FunctionKind::Wire => "wire",
            FunctionKind::Hairpin => "hairpin",
            FunctionKind::Routed => "routed",
            FunctionKind::Tap => "tap",
        };
        let on_failure = match function.on_failure {
            OnFailure::Drop => "drop",
            OnFailure::Bypass => "bypass",
        };
        snapshot::Hop {
            function: function.name.clone(),
            kind: kind.to_owned(),
            on_failure: on_failure.to_owned(),
            instances: service.instances.iter().map(|placed| self.instance(key, placed)).collect(),
        }
    }

    fn instance(&self, key: u32, placed: &Placed<'_>) -> snapshot::Instance {
        let ports: BTreeSet<Endpoint> =
            Direction::ALL.into_iter().filter_map(|direction| placed.ingress(direction)).collect();
        let (mut received, mut returned) = (Traffic::default(), Traffic::default());
        for place in &ports {
            let connection = self.bridges.get(&place.bridge).and_then(|bridge| bridge.connection.as_ref());
            let Some(counting) = connection.map(|connection| &connection.counting) else { continue };
            returned = returned + counting.returned(place.port);
            for direction in Direction::ALL.into_iter().filter(|it| placed.ingress(*it) == Some(*place)) {
                let entry = delivered(key, placed, direction);
                received = entry.map_or(received, |entry| received + counting.of(&entry));
            }
        }
        let health = match placed.health {
            Health::Working if self.is_unproven(placed) => "unproven",
            Health::Working => "working",
            Health::Silent => "silent",
            Health::Failed => "failed",
        };
        snapshot::Instance {
            name: placed.instance.name.clone(),
            bridge: placed.instance.bridge.clone(),
            ingress: placed.instance.ingress.clone(),
            egress: placed.instance.egress.clone(),
            weight: placed.instance.weight,
            draining: placed.instance.drain,
            health: health.to_owned(),
            probes_pass: placed.ingress(Direction::Forward).is_some_and(|ingress| self.health.passes(ingress)),
            received,
            returned,
        }
    }

    /// Is it probed, and has nothing come through yet?
    fn is_unproven(&self, placed: &Placed<'_>) -> bool {
        let ingress = placed.ingress(Direction::Forward);
        ingress.is_some_and(|ingress| self.health.is_probed(ingress) && !self.health.passes(ingress))
    }
}
