//! What a trace or a plan depends on.

use std::sync::Arc;

use apps::trace::{Situation, Station};
use openflow::types::DatapathId;

use super::Core;

impl Core {
    /// All that a trace or a plan depends on, as it is now. With many bridges and tenants this is a lot to copy.
    pub fn situation(&self) -> Situation {
        let hosts = self.policy.tenants.iter().map(|tenant| {
            let learnt = self.hosts.of(&tenant.name).map(|(mac, learnt)| {
                let ips = learnt.ips.iter().copied().collect();
                (*mac, Station { place: learnt.host.place, ips, fresh: learnt.host.fresh })
            });
            (tenant.name.clone(), learnt.collect())
        });
        let connected = self.bridges.iter().filter(|(_, bridge)| bridge.connection.is_some());
        let mut holding = connected.map(|(dpid, bridge)| bridge.holds(self.desired.bridges.get(dpid)));
        Situation {
            policy: Arc::clone(&self.policy),
            allocations: self.memory.allocations.clone(),
            told: self.bridges.iter().map(|(dpid, bridge)| (*dpid, bridge.told.clone())).collect(),
            remembered: self.memory.bridges.iter().copied().map(DatapathId).collect(),
            tables: self.desired.bridges.clone(),
            view: self.view.clone(),
            attachments: self.attachments.clone(),
            hosts: hosts.collect(),
            settling: self.settling.is_some(),
            converged: self.is_at_rest() && holding.all(|it| it),
        }
    }
}
