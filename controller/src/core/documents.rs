//! What readers see of the core.

use std::collections::BTreeSet;
use std::time::Instant;

use apps::attachment::PortUse;
use apps::desired::{BridgeState, counts};
use apps::mtu;
use apps::problems::{self, Facts};
use apps::tenants;
use apps::trees::Tree;
use apps::view::Endpoint;
use openflow::switch::Role;
use openflow::types::DatapathId;

use super::Core;
use super::bridge::Bridge;
use super::linked::rough;
use crate::snapshot::{self, BridgeCount, LinkCount, PortName, Snapshot, Status, TableCount};

impl Core {
    /// What readers see.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let up = self.topology.known().iter().filter(|(_, known)| known.is_up());
        let linked: BTreeSet<Endpoint> = up.flat_map(|((a, b), _)| [*a, *b]).collect();
        let bridges: Vec<_> = self.bridges.iter().map(|(dpid, bridge)| self.bridge(*dpid, bridge, &linked)).collect();
        let links: Vec<_> = self.links(now);
        let hosts = self.hosts(now);
        let up = links.iter().filter(|link| link.up).count();
        let connected: Vec<&snapshot::Bridge> = bridges.iter().filter(|bridge| bridge.connected).collect();
        let status = Status {
            policy: self.policy_status.clone(),
            bridges: BridgeCount { connected: connected.len(), known: bridges.len(), missing: self.missing() },
            links: LinkCount { up, down: links.len() - up },
            tenants: self.policy.tenants.len(),
            hosts: hosts.len(),
            chains: self.policy.tenants.iter().map(|tenant| tenant.chains.len()).sum(),
            converged: self.is_at_rest() && self.faults.is_empty() && connected.iter().all(|bridge| bridge.converged),
            settling: self.settling.is_some(),
            problems: self.problems(now),
            ..Status::default()
        };
        let limits = self.limits();
        let (tenants, chains) = (self.tenants(&limits, &hosts), self.chains());
        Snapshot { status, bridges, links, tenants, hosts, limits, chains }
    }

    /// Bridges that the policy names and that aren't connected.
    fn missing(&self) -> Vec<String> {
        let connected = self.bridges.iter().filter(|(_, bridge)| bridge.connection.is_some());
        let here: BTreeSet<String> =
            connected.flat_map(|(dpid, bridge)| [dpid.to_string(), bridge.name.clone()]).collect();
        self.named.difference(&here).cloned().collect()
    }

    fn problems(&self, now: Instant) -> Vec<String> {
        let mut problems: Vec<String> = self.faults.values().cloned().collect();
        problems.extend(self.leading_problem());
        problems.extend(self.bridges.values().flat_map(Bridge::problems));
        problems.extend(self.identity_problems());
        if let Some(settling) = &self.settling {
            // What isn't there yet is no problem yet.
            problems.push(self.still_settling(now, settling));
        } else {
            problems.extend(self.policy_problems());
            problems.extend(self.missing_bridges(now));
            problems.extend(self.topology.refused(now, |place| self.port_name(place)));
            problems.extend(self.link_problems(now));
            problems.extend(self.lost_links(now));
            problems.extend(self.loop_problems());
        }
        problems.extend(self.unread_problems(now));
        problems.extend(self.notices.problems(now).map(str::to_owned));
        problems
    }

    /// Bridges that were there before, or that the policy names, and aren't connected.
    fn missing_bridges(&self, now: Instant) -> Vec<String> {
        let gone = self.bridges.values().filter(|bridge| bridge.connection.is_none());
        let mut missing: Vec<String> = gone.map(|bridge| format!("bridge {} isn't connected", bridge.name)).collect();
        let (named, up) = (&self.policy.bridges, rough(now.duration_since(self.started)));
        let never = named.iter().map(|it| it.dpid).chain(self.memory.bridges.iter().copied().map(DatapathId));
        let never: BTreeSet<DatapathId> = never.filter(|dpid| !self.bridges.contains_key(dpid)).collect();
        if now.duration_since(self.started) < super::settling::BRIDGES {
            return missing;
        }
        missing.extend(never.into_iter().map(|dpid| {
            let name = self.name_of(dpid);
            let before = if self.memory.bridges.contains(&dpid.0) { "was here before" } else { "is named by the policy" };
            format!(
                "bridge {name} isn't connected: it {before}, but hasn't come since the controller was started {up} ago;                  on its host, `ovs-vsctl show` tells whether it has a controller and reaches it"
            )
        }));
        missing
    }

    /// What a bridge is called that may never have been here.
    pub(super) fn name_of(&self, dpid: DatapathId) -> String {
        let named = self.policy.bridges.iter().find(|named| named.dpid == dpid);
        named.map_or_else(|| self.bridge_name(dpid), |named| named.name.clone())
    }

    /// What follows from the policy, as plans have it, too.
    fn policy_problems(&self) -> impl Iterator<Item = String> {
        let facts = Facts {
            policy: &self.policy,
            allocations: &self.memory.allocations,
            attachments: &self.attachments,
            view: &self.view,
            trees: &self.desired.trees,
        };
        problems::problems(&facts).into_iter().map(|problem| problem.text)
    }

    fn bridge(&self, dpid: DatapathId, bridge: &Bridge, linked: &BTreeSet<Endpoint>) -> snapshot::Bridge {
        let nothing = BridgeState::new();
        let desired = self.desired.bridges.get(&dpid).unwrap_or(&nothing);
        let table = |state| {
            let count = counts(state);
            TableCount { flows: count.flows, groups: count.groups, meters: count.meters }
        };
        let ports = bridge.ports.iter().map(|(number, record)| {
            let place = Endpoint { bridge: dpid, port: *number };
            let (kind, tenant) = match self.attachments.of(place) {
                PortUse::Tenant(attached) => ("tenant", Some(attached.tenant.clone())),
                PortUse::Function(port) => ("function", Some(port.tenant.clone())),
                PortUse::Candidate if linked.contains(&place) => ("link", None),
                _ => ("unused", None),
            };
            snapshot::Port {
                number: number.0,
                name: record.port.name.text().into_owned(),
                up: record.is_up(),
                kind: kind.to_owned(),
                tenant,
                shut: self.loops.is_shut(place),
            }
        });
        let connection = bridge.connection.as_ref();
        let role = connection.map_or("", |connection| match connection.role {
            Role::Master => "master",
            Role::Slave => "slave",
            _ => "equal",
        });
        snapshot::Bridge {
            dpid: dpid.to_string(),
            name: bridge.name.clone(),
            address: connection.map(|connection| connection.address.to_string()).unwrap_or_default(),
            connected: connection.is_some(),
            role: role.to_owned(),
            ports: ports.collect(),
            desired: table(desired),
            installed: table(&bridge.installed),
            converged: self.is_at_rest() && bridge.holds(self.desired.bridges.get(&dpid)),
            problems: bridge.problems().collect(),
        }
    }

    pub(super) fn name(&self, place: Endpoint) -> PortName {
        let bridge = self.bridges.get(&place.bridge);
        let port = bridge.and_then(|bridge| bridge.ports.get(&place.port));
        PortName {
            bridge: self.bridge_name(place.bridge),
            port: port.map_or_else(|| place.port.to_string(), |port| port.port.name.text().into_owned()),
        }
    }

    pub(super) fn bridge_name(&self, dpid: DatapathId) -> String {
        self.bridges.get(&dpid).map_or_else(|| dpid.to_string(), |bridge| bridge.name.clone())
    }

    fn tenants(&self, limits: &[snapshot::Limit], hosts: &[snapshot::Host]) -> Vec<snapshot::Tenant> {
        let tenants = self.policy.tenants.iter().map(|tenant| {
            let ports = self.attachments.of_tenant(&tenant.name).map(|(place, _)| self.name(place));
            let tree = self.desired.trees.get(&tenant.name);
            let longest = |chained| mtu::longest(tree?, &self.view.mtus, chained);
            snapshot::Tenant {
                name: tenant.name.clone(),
                key: self.memory.allocations.of(&tenant.name).map_or(0, |numbers| numbers.key),
                ports: ports.collect(),
                mtu: longest(false),
                mtu_in_chains: longest(true).filter(|_| !tenant.chains.is_empty()),
                tree: tree.map(|tree| self.tree(tree)).unwrap_or_default(),
                hosts: hosts.iter().filter(|host| host.tenant == tenant.name).count(),
                chains: tenant.chains.len(),
                limits: limits.iter().filter(|limit| limit.tenant == tenant.name).count(),
            }
        });
        tenants.collect()
    }

    fn tree(&self, tree: &Tree) -> snapshot::Tree {
        // From each root outwards, so that an edge's first end is the nearer one.
        let mut edges = Vec::new();
        let mut left = tree.edges.clone();
        let mut queue: Vec<DatapathId> = tree.roots.iter().rev().copied().collect();
        while let Some(at) = queue.pop() {
            let here: Vec<_> = left.iter().filter(|link| link.at(at).is_some()).copied().collect();
            for link in here {
                left.remove(&link);
                if let Some((near, far)) = link.at(at) {
                    edges.push(snapshot::Edge { a: self.name(near), b: self.name(far) });
                    queue.push(far.bridge);
                }
            }
        }
        snapshot::Tree {
            root: tree.roots.first().map(|root| self.bridge_name(*root)),
            edges,
            bridges: tree.bridges.iter().map(|dpid| self.bridge_name(*dpid)).collect(),
        }
    }

    fn hosts(&self, now: Instant) -> Vec<snapshot::Host> {
        let mut hosts = Vec::new();
        for tenant in &self.policy.tenants {
            let pinned = tenants::pinned(&tenant.name, &self.attachments);
            let learnt = self.hosts.of(&tenant.name).filter(|(mac, _)| !pinned.contains_key(mac));
            let mut rows: Vec<_> = learnt
                .map(|(mac, learnt)| {
                    let ips = learnt.ips.iter().map(ToString::to_string).collect();
                    (*mac, learnt.host.place, false, ips, learnt.seen.map(|seen| now.duration_since(seen).as_secs()))
                })
                .collect();
            for (mac, host) in &pinned {
                let ips = self.attachments.tenant(host.place).map(|attached| attached.selector.ip.as_slice());
                let ips = ips.unwrap_or_default().iter().map(ToString::to_string).collect();
                rows.push((*mac, host.place, true, ips, None));
            }
            rows.sort_by_key(|(mac, ..)| *mac);
            hosts.extend(rows.into_iter().map(|(mac, place, pinned, ips, seen_seconds)| {
                let PortName { bridge, port } = self.name(place);
                snapshot::Host {
                    tenant: tenant.name.clone(),
                    mac: mac.to_string(),
                    ips,
                    bridge,
                    port,
                    pinned,
                    seen_seconds,
                }
            }));
        }
        hosts
    }
}
