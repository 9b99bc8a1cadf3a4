//! The first steps: bridges connect, links are found, trees grow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::Lab;
use serde_json::Value;

use super::Stage;
use super::screen::{Screen, count};
use crate::bench::table::time;

const PATIENCE: Duration = Duration::from_secs(20);
/// More lines than that hide what matters.
const LINES: usize = 12;

/// The bridges connect, and get what they should hold.
pub(super) fn bridges(stage: &mut Stage<'_>) -> Result<()> {
    let wanted = stage.lab.bridges().len();
    let mut came: BTreeMap<String, Duration> = BTreeMap::new();
    let all = stage.interrupt.wait(PATIENCE, || {
        for bridge in list(&stage.controller.get("/v1/bridges")?)? {
            if bridge["connected"] == true {
                came.entry(text(&bridge["name"])).or_insert_with(|| stage.started.elapsed());
            }
        }
        Ok(came.len() >= wanted)
    })?;
    let links = stage.lab.links().len();
    let mut status = Value::Null;
    let settled = stage.interrupt.wait(PATIENCE, || {
        status = stage.controller.get("/v1/status")?;
        Ok(status["links"]["up"] == links && status["converged"] == true)
    })?;
    let settled = settled.map(|_| stage.started.elapsed());

    let bridges = list(&stage.controller.get("/v1/bridges")?)?;
    stage.screen.aside(format!("{:<12}{:<20}{:<22}{:<14}{}", "bridge", "datapath", "from", "connected", "holds"));
    for bridge in bridges.iter().take(LINES) {
        let name = text(&bridge["name"]);
        let after = came.get(&name).map_or("never".to_owned(), |after| format!("after {}", time(*after)));
        let held = &bridge["installed"];
        let (dpid, address) = (text(&bridge["dpid"]), text(&bridge["address"]));
        let number = |what: &str| usize::try_from(held[what].as_u64().unwrap_or(0)).unwrap_or(0);
        let holds = ["flow", "group", "meter"].map(|noun| count(number(&format!("{noun}s")), noun)).join(", ");
        stage.screen.say(format!("{name:<12}{dpid:<20}{address:<22}{after:<14}{holds}"));
    }
    if bridges.len() > LINES {
        stage.screen.say(format!("… and {} more", bridges.len() - LINES));
    }
    let last = came.values().max().copied().unwrap_or_default();
    stage.screen.check(
        all.is_some(),
        format!("{} of {wanted} bridges connected, the last {} after espalier was started", came.len(), time(last)),
    );
    let after = settled.map_or(format!("not within {}", time(PATIENCE)), |after| format!("after {}", time(after)));
    stage.screen.check(
        settled.is_some(),
        format!(
            "{} of {links} links found by probes, all bridges hold what they should: {after}",
            status["links"]["up"]
        ),
    );
    for problem in list(&status["problems"]).unwrap_or_default() {
        stage.screen.check(false, format!("espalier reports: {}", text(&problem)));
    }
    let kinds = list(&stage.controller.get("/v1/links")?)?.iter().fold(BTreeMap::new(), |mut kinds, link| {
        *kinds.entry(text(&link["carrier"])).or_insert(0) += 1;
        kinds
    });
    let kinds: Vec<_> = kinds.iter().map(|(kind, number)| format!("{number} {kind}")).collect();
    stage.screen.aside(format!("their kind was found out, not configured: {}", kinds.join(", ")));
    Ok(())
}

/// Each tenant's tree: it spans all bridges with a port of the tenant and has no loop.
pub(super) fn trees(stage: &mut Stage<'_>) -> Result<()> {
    let mut blocks = Vec::new();
    let mut results = Vec::new();
    for tenant in stage.tenants() {
        let shown = stage.controller.cli(&["get", "tree", &tenant])?;
        ensure!(
            shown.status.success(),
            "`espalier get tree {tenant}` failed: {}",
            String::from_utf8_lossy(&shown.stderr).trim()
        );
        blocks.push(String::from_utf8_lossy(&shown.stdout).lines().map(str::to_owned).collect());

        let document = stage.controller.get(&format!("/v1/tenants/{tenant}"))?;
        let edges = list(&document["tree"]["edges"])?;
        let reached = reached(&document["tree"]);
        let bridge = stage.lab.spec().bridge_of(&tenant)?;
        let all = stage.lab.bridges();
        let wanted: BTreeSet<&str> = all.iter().filter(|b| b.name == bridge).map(|b| b.description.as_str()).collect();
        let spans = wanted.iter().filter(|name| reached.contains(**name)).count();
        let is_tree = edges.len() + 1 == reached.len();
        let links = stage.lab.links().iter().filter(|link| link.a.bridge == bridge).count();
        results.push((
            spans == wanted.len() && is_tree,
            format!(
                "{tenant}: reaches {spans} of its {} bridges by {} of {links} links, {}",
                wanted.len(),
                edges.len(),
                if is_tree { "no loop" } else { "but it isn't a tree" }
            ),
        ));
    }
    stage.screen.columns(&blocks);
    for (holds, text) in results {
        stage.screen.check(holds, text);
    }
    stage.screen.aside("floods follow the tree; a frame to a known station takes the shortest path");
    Ok(())
}

/// The bridges that are reached from the root over the edges.
fn reached(tree: &Value) -> BTreeSet<String> {
    let edges = list(&tree["edges"]).unwrap_or_default();
    let mut reached: BTreeSet<String> = tree["root"].as_str().map(str::to_owned).into_iter().collect();
    // Each pass adds at least one bridge, or it is the last.
    loop {
        let before = reached.len();
        for edge in &edges {
            let (a, b) = (text(&edge["a"]["bridge"]), text(&edge["b"]["bridge"]));
            if reached.contains(&a) {
                reached.insert(b);
            } else if reached.contains(&b) {
                reached.insert(a);
            }
        }
        if reached.len() == before {
            return reached;
        }
    }
}

pub(super) fn list(value: &Value) -> Result<Vec<Value>> {
    value.as_array().cloned().with_context(|| format!("the controller answered no list, but {value}"))
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What was built.
pub(super) fn built(screen: &mut Screen, lab: &Lab, took: Duration) {
    let parts = [
        count(lab.hosts().len(), "host"),
        count(lab.bridges().len(), "bridge"),
        count(lab.links().len(), "link"),
        count(lab.containers().len(), "container"),
    ];
    screen.check(true, format!("lab {}: {}: up in {}", lab.id, parts.join(", "), time(took)));
    screen.aside("each host is a network namespace with an ovsdb-server and an ovs-vswitchd of its own");
}
