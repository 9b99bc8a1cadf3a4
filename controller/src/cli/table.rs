//! Documents as tables and trees, for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{Table, presets};
use serde::de::DeserializeOwned;
use serde_json::{Error, Value};

use super::get::What;
use crate::snapshot::{self, Bridge, Chain, Edge, Host, Limit, Link, Status, TableCount, Tenant};

/// Shows a document: a list, or one of its items.
pub(super) fn show(what: What, document: Value) -> Result<String, Error> {
    Ok(match what {
        What::Status => status(&serde_json::from_value(document)?),
        What::Bridges => bridges(document)?,
        What::Links => links(&rows(document)?),
        What::Hosts => hosts(&rows(document)?),
        What::Limits => limits(&rows(document)?),
        What::Chains => chains(&rows(document)?),
        What::Tenants => tenants(&rows(document)?),
        What::Tree => rows(document)?.iter().map(tree).collect(),
    })
}

fn rows<T: DeserializeOwned>(document: Value) -> Result<Vec<T>, Error> {
    match document {
        Value::Array(_) => serde_json::from_value(document),
        one => Ok(vec![serde_json::from_value(one)?]),
    }
}

pub(super) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    for row in rows {
        table.add_row(row);
    }
    // The last column's padding would only get in the way of other tools.
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn yes(it: bool) -> String {
    if it { "yes" } else { "no" }.to_owned()
}

fn state(up: bool) -> String {
    if up { "up" } else { "down" }.to_owned()
}

fn octets(octets: Option<u16>) -> String {
    octets.map_or_else(|| "-".to_owned(), |octets| octets.to_string())
}

fn list(all: &[String]) -> String {
    if all.is_empty() { "-".to_owned() } else { all.join(",") }
}

fn count(desired: TableCount, installed: TableCount) -> String {
    let one = |have, want| if have == want { format!("{want}") } else { format!("{have}/{want}") };
    let (flows, groups) = (one(installed.flows, desired.flows), one(installed.groups, desired.groups));
    format!("{flows} flows, {groups} groups, {} meters", one(installed.meters, desired.meters))
}

fn limits(limits: &[Limit]) -> String {
    let rows = limits.iter().map(|limit| {
        let place = match (&limit.port, &limit.chain) {
            (Some(port), _) if limit.on == "to" => format!("to {}/{port}", limit.bridge),
            (Some(port), _) => format!("{}/{port}", limit.bridge),
            (None, Some(chain)) => format!("{} (chain {chain})", limit.bridge),
            (None, None) => limit.bridge.clone(),
        };
        let packets = |traffic: snapshot::Traffic| format!("{} packets, {} bytes", traffic.packets, traffic.bytes);
        let rate = format!("{} {}", limit.rate, limit.unit);
        [limit.tenant.clone(), place, rate, packets(limit.passed), packets(limit.dropped)]
    });
    table(["TENANT", "AT", "RATE", "PASSED", "DROPPED"], rows)
}

fn chains(chains: &[Chain]) -> String {
    let mut table_rows = Vec::new();
    for chain in chains {
        for (hop, number) in chain.hops.iter().zip(1..) {
            for instance in &hop.instances {
                let ports = if instance.ingress == instance.egress {
                    instance.ingress.clone()
                } else {
                    format!("{} → {}", instance.ingress, instance.egress)
                };
                table_rows.push([
                    format!("{}/{}", chain.tenant, chain.name),
                    format!("{number} {} ({})", hop.function, hop.kind),
                    format!("{} at {}", instance.name, instance.bridge),
                    ports,
                    if instance.draining { format!("{}, drains", instance.health) } else { instance.health.clone() },
                    format!("{} packets", instance.received.packets),
                    format!("{} packets", instance.returned.packets),
                ]);
            }
        }
    }
    table(["CHAIN", "HOP", "INSTANCE", "PORTS", "HEALTH", "IN", "BACK"], table_rows)
}

fn status(status: &Status) -> String {
    let policy = &status.policy;
    let missing = match status.bridges.missing.as_slice() {
        [] => String::new(),
        names => format!("; the policy also names {}", names.join(", ")),
    };
    let mut lines = vec![
        ["version".to_owned(), status.version.clone()],
        ["up for".to_owned(), format!("{} s", status.uptime_seconds)],
        [
            "policy".to_owned(),
            format!("generation {} from the {}, {}", policy.generation, policy.source, policy.digest),
        ],
        ["bridges".to_owned(), format!("{} of {} connected{missing}", status.bridges.connected, status.bridges.known)],
        ["links".to_owned(), format!("{} up, {} down", status.links.up, status.links.down)],
        ["tenants".to_owned(), status.tenants.to_string()],
        ["hosts".to_owned(), status.hosts.to_string()],
        ["chains".to_owned(), status.chains.to_string()],
        [
            "converged".to_owned(),
            if status.settling { "not yet, after a start".to_owned() } else { yes(status.converged) },
        ],
    ];
    lines.extend(status.problems.iter().map(|problem| ["problem".to_owned(), problem.clone()]));
    lines.iter().fold(String::new(), |mut text, [name, value]| {
        let _ = writeln!(text, "{name:<10} {value}");
        text
    })
}

fn bridges(document: Value) -> Result<String, Error> {
    let single = document.is_object();
    let bridges: Vec<Bridge> = rows(document)?;
    let mut text = table(
        ["NAME", "DPID", "ADDRESS", "CONNECTED", "ROLE", "PORTS", "CONVERGED", "INSTALLED"],
        bridges.iter().map(|bridge| {
            let address = if bridge.address.is_empty() { "-" } else { &bridge.address };
            let [name, dpid, address, role] = [&bridge.name, &bridge.dpid, address, &bridge.role].map(str::to_owned);
            let installed = count(bridge.desired, bridge.installed);
            let ports = bridge.ports.len().to_string();
            [name, dpid, address, yes(bridge.connected), role, ports, yes(bridge.converged), installed]
        }),
    );
    if let (true, [bridge]) = (single, bridges.as_slice()) {
        let ports = bridge.ports.iter().map(|port| {
            let tenant = port.tenant.clone().unwrap_or_else(|| "-".into());
            [port.number.to_string(), port.name.clone(), state(port.up), port.kind.clone(), tenant]
        });
        text = text + "\n" + &table(["PORT", "NAME", "STATE", "KIND", "TENANT"], ports);
    }
    Ok(text)
}

fn links(links: &[Link]) -> String {
    table(
        ["BRIDGE", "PORT", "BRIDGE", "PORT", "STATE", "SINCE", "CARRIER", "MTU", "TENANTS", "UNICAST", "NOTE"],
        links.iter().map(|link| {
            let since = link.since_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s"));
            let state = link.lost_by.as_ref().map_or_else(|| state(link.up), |by| format!("down ({by})"));
            let [a, a_port, b, b_port] = [&link.a.bridge, &link.a.port, &link.b.bridge, &link.b.port].map(Clone::clone);
            let (carrier, mtu, tenants) = (link.carrier.clone(), octets(link.mtu), list(&link.tenants));
            [a, a_port, b, b_port, state, since, carrier, mtu, tenants, list(&link.unicast), link.note.clone()]
        }),
    )
}

fn hosts(hosts: &[Host]) -> String {
    table(
        ["TENANT", "MAC", "IP", "BRIDGE", "PORT", "PINNED", "SEEN"],
        hosts.iter().map(|host| {
            let [tenant, mac, bridge, port] = [&host.tenant, &host.mac, &host.bridge, &host.port].map(Clone::clone);
            let seen = host.seen_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s ago"));
            [tenant, mac, list(&host.ips), bridge, port, yes(host.pinned), seen]
        }),
    )
}

fn tenants(tenants: &[Tenant]) -> String {
    table(
        ["NAME", "KEY", "PORTS", "HOSTS", "ROOT", "BRIDGES", "MTU", "IN CHAINS", "CHAINS", "LIMITS"],
        tenants.iter().map(|tenant| {
            let root = tenant.tree.root.clone().unwrap_or_else(|| "-".into());
            let [ports, hosts, bridges, chains, limits] =
                [tenant.ports.len(), tenant.hosts, tenant.tree.bridges.len(), tenant.chains, tenant.limits]
                    .map(|number| number.to_string());
            let [mtu, chained] = [tenant.mtu, tenant.mtu_in_chains].map(octets);
            [tenant.name.clone(), tenant.key.to_string(), ports, hosts, root, bridges, mtu, chained, chains, limits]
        }),
    )
}

fn tree(tenant: &Tenant) -> String {
    let mut text = format!("{} (key {})\n", tenant.name, tenant.key);
    let Some(root) = &tenant.tree.root else { return text + "  has no port on any bridge\n" };
    let mut below: BTreeMap<&str, Vec<&Edge>> = BTreeMap::new();
    for edge in &tenant.tree.edges {
        below.entry(&edge.a.bridge).or_default().push(edge);
    }
    let _ = writeln!(text, "  {root}");
    // Each edge with the indent of its line, and whether a sibling follows. Taking a bridge's edges out of the map ends
    // the walk even if an answer isn't a tree.
    let mut stack: Vec<(&Edge, String, bool)> = Vec::new();
    let mut push = |stack: &mut Vec<_>, bridge: &str, indent: &str| {
        for (place, edge) in below.remove(bridge).unwrap_or_default().into_iter().rev().enumerate() {
            stack.push((edge, indent.to_owned(), place > 0));
        }
    };
    push(&mut stack, root, "  ");
    while let Some((edge, indent, more)) = stack.pop() {
        let (branch, below) = if more { ("├─ ", "│  ") } else { ("└─ ", "   ") };
        let _ = writeln!(text, "{indent}{branch}{}  ({} → {})", edge.b.bridge, edge.a.port, edge.b.port);
        push(&mut stack, &edge.b.bridge, &(indent + below));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{PortName, Tree};

    #[test]
    fn a_tree_is_indented_from_its_root() {
        let end = |bridge: &str, port: &str| PortName { bridge: bridge.into(), port: port.into() };
        let edge = |a, b, n| Edge { a: end(a, &format!("vx{n}")), b: end(b, &format!("vy{n}")) };
        let edges = vec![edge("h1", "h2", 1), edge("h1", "h3", 2), edge("h2", "h4", 3)];
        let tree = Tree { root: Some("h1".into()), edges, bridges: Vec::new() };
        let tenant = Tenant { name: "green".into(), key: 100, tree, ..Tenant::default() };
        let text = "green (key 100)\n  h1\n  ├─ h2  (vx1 → vy1)\n  │  └─ h4  (vx3 → vy3)\n  └─ h3  (vx2 → vy2)\n";
        assert_eq!(super::tree(&tenant), text);
    }

    #[test]
    fn a_table_has_a_head_and_no_blanks_at_the_end() {
        let text = show(What::Hosts, serde_json::json!([])).unwrap();
        assert!(text.contains("TENANT") && text.lines().all(|line| line == line.trim_end()), "{text}");
        assert!(show(What::Hosts, serde_json::json!([{ "mac": 1 }])).is_err());
    }
}
