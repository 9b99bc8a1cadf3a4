//! Goal: REST and `espalier get` tell what is, under the names that operators' scripts rely on.

mod network;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use lab::Layout;
use serde_json::Value;

use network::{MS, Network, spec};

/// The document, or the first of a list, has exactly these keys; keys of inner objects are written with a dot.
fn has_keys(document: &Value, keys: &[&str]) -> Result<()> {
    fn collect(value: &Value, path: &str, keys: &mut BTreeSet<String>) {
        for (key, value) in value.as_object().into_iter().flatten() {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match value {
                Value::Object(_) => collect(value, &path, keys),
                _ => drop(keys.insert(path)),
            }
        }
    }
    let object = document.as_array().map_or(Some(document), |list| list.first()).context("an empty list")?;
    let mut found = BTreeSet::new();
    collect(object, "", &mut found);
    let wanted: BTreeSet<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    ensure!(found == wanted, "keys are {found:#?}, not {wanted:#?}");
    Ok(())
}

#[test]
fn documents_have_the_keys_of_the_contract_and_agree_with_the_switch() -> Result<()> {
    let network = Network::start(&spec(Layout::Shared))?;
    network.meet("green")?;
    network.meet("orange")?;
    let get = |path: &str| network.controller.get(path);
    let status = [
        "version",
        "uptime_seconds",
        "policy.generation",
        "policy.digest",
        "policy.source",
        "bridges.connected",
        "bridges.known",
        "bridges.missing",
        "links.up",
        "links.down",
        "tenants",
        "hosts",
        "chains",
        "converged",
        "settling",
        "problems",
    ];
    has_keys(&get("/v1/status")?, &status)?;
    let bridge = [
        "dpid",
        "name",
        "address",
        "connected",
        "role",
        "ports",
        "desired.flows",
        "desired.groups",
        "desired.meters",
        "installed.flows",
        "installed.groups",
        "installed.meters",
        "converged",
        "problems",
    ];
    let bridges = get("/v1/bridges")?;
    has_keys(&bridges, &bridge)?;
    has_keys(&bridges[0]["ports"], &["number", "name", "up", "kind", "tenant", "shut"])?;
    let keys = [
        "a.bridge",
        "a.port",
        "b.bridge",
        "b.port",
        "up",
        "carrier",
        "mtu",
        "tenants",
        "unicast",
        "since_seconds",
        "lost_by",
        "drained",
        "note",
    ];
    has_keys(&get("/v1/links")?, &keys)?;
    let tenants = get("/v1/tenants")?;
    let tenant = [
        "name",
        "key",
        "ports",
        "mtu",
        "mtu_in_chains",
        "tree.root",
        "tree.edges",
        "tree.bridges",
        "hosts",
        "chains",
        "limits",
    ];
    has_keys(&tenants, &tenant)?;
    has_keys(&tenants[0]["tree"]["edges"], &["a.bridge", "a.port", "b.bridge", "b.port"])?;
    let host = ["tenant", "mac", "ips", "bridge", "port", "pinned", "seen_seconds"];
    has_keys(&get("/v1/hosts")?, &host)?;

    // One of a list is the same as alone, by either name.
    let same = || Ok(get("/v1/tenants")?[0] == get("/v1/tenants/green")?);
    lab::wait_until("both to be the same, once it is measured what links carry", MS(5000), same)?;
    lab::wait_until("what is told to be what the switches hold", MS(5000), || {
        let bridges = network.controller.get("/v1/bridges")?;
        let flows = (1..=3).map(|host| Ok(network.lab.host(host)?.flows("br0")?.len())).collect::<Result<Vec<_>>>()?;
        let told = bridges.as_array().into_iter().flatten().map(|bridge| bridge["installed"]["flows"].clone());
        Ok(told.eq(flows.into_iter().map(Value::from)))
    })?;
    for (host, bridge) in (1..=3).zip(bridges.as_array().into_iter().flatten()) {
        ensure!(get(&format!("/v1/bridges/h{host}"))?["dpid"] == bridge["dpid"]);
        ensure!(get(&format!("/v1/bridges/{host:016x}"))?["name"] == bridge["name"]);
        let kinds: Vec<_> = bridge["ports"].as_array().into_iter().flatten().map(|port| &port["kind"]).collect();
        let count = |kind: &str| kinds.iter().filter(|found| ***found == kind).count();
        ensure!((count("tenant"), count("link"), count("unused")) == (2, 2, 1), "{kinds:?}");
    }
    let problem = network.controller.request("GET", "/v1/tenants/blue", None)?;
    ensure!(problem.status == 404 && problem.json()?["detail"].as_str().is_some_and(|text| text.contains("blue")));
    Ok(())
}

#[test]
fn the_command_line_shows_the_same_as_tables() -> Result<()> {
    let network = Network::start(&spec(Layout::Shared))?;
    network.meet("green")?;
    let shows = |args: &[&str], words: &[&str]| -> Result<()> {
        let output = network.controller.cli(args)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        for word in words {
            ensure!(text.contains(word), "{args:?} doesn't show {word}:\n{text}");
        }
        Ok(())
    };
    shows(&["get", "status"], &["converged", "3"])?;
    shows(&["get", "bridges"], &["h1", "h2", "h3", "0000000000000001"])?;
    shows(&["get", "links"], &["tun2", "tunnel", "green", "orange"])?;
    shows(&["get", "tenants"], &["green", "100", "orange", "200"])?;
    shows(&["get", "hosts"], &["02:00:00:00:00:01", "10.0.0.1", "green-1"])?;
    shows(&["get", "tree", "green"], &["h1", "h2", "h3"])?;
    shows(&["get", "tenants", "green", "-o", "json"], &["\"name\"", "\"tree\""])?;
    let missing = network.controller.cli(&["get", "tenants", "blue"])?;
    ensure!(missing.status.code() == Some(1), "{missing:?}");
    let nobody = network.controller.cli(&["get", "status", "--server", "http://127.0.0.1:9"])?;
    ensure!(nobody.status.code() == Some(3), "{nobody:?}");
    Ok(())
}

#[test]
fn metrics_agree_with_the_documents_and_with_the_switch() -> Result<()> {
    let network = Network::start(&spec(Layout::Shared))?;
    network.meet("green")?;
    // Hosts may show up a little later, too, and metrics and documents are read one after the other.
    let mut text = String::new();
    lab::wait_until("metrics that agree with the documents", MS(5000), || {
        text = network.controller.request("GET", "/metrics", None)?.body;
        let bridges = network.controller.get("/v1/bridges")?;
        let flows = bridges.as_array().into_iter().flatten().filter_map(|bridge| bridge["desired"]["flows"].as_u64());
        let desired = format!("\nespalier_flows_desired {}\n", flows.sum::<u64>());
        Ok(text.contains("\nespalier_converged 1\n") && text.contains(&desired))
    })
    .with_context(|| format!("last: {text}"))?;
    let value = |row: &str| -> Result<u64> {
        let line = text.lines().find(|line| line.strip_prefix(row).is_some_and(|rest| rest.starts_with(' ')));
        Ok(line.and_then(|line| line.rsplit(' ').next()).with_context(|| format!("no {row} in:\n{text}"))?.parse()?)
    };
    ensure!(value("espalier_bridges_connected")? == 3 && value("espalier_links_up")? == 3, "{text}");
    ensure!(value("espalier_tenants")? == 2 && value("espalier_converged")? == 1, "{text}");
    ensure!(value("espalier_policy_generation")? == 1 && value("espalier_problems")? == 0, "{text}");
    for host in 1..=3 {
        for (kind, direction) in [("FlowMod", "sent"), ("PacketOut", "sent"), ("PacketIn", "received")] {
            let labels = format!("{{dpid=\"{host:016x}\",type=\"{kind}\",direction=\"{direction}\"}}");
            ensure!(value(&format!("espalier_openflow_messages_total{labels}"))? > 0, "{labels}");
        }
    }
    // A real switch sends nothing that is refused.
    for line in text.lines().filter(|line| line.starts_with("espalier_input_refused_total")) {
        ensure!(line.ends_with(" 0"), "{line}");
    }
    for probe in ["/healthz", "/readyz"] {
        ensure!(network.controller.request("GET", probe, None)?.status == 200, "{probe}");
    }
    Ok(())
}
