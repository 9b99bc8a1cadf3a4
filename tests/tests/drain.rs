//! Goal: links are taken out of use, and into use again, by the policy, and nobody notices: nothing is lost or doubled,
//! broadcasts included. Where a link is needed it goes on being used, and the status says so. On real Open
//! vSwitch, with pings, streams and broadcasts across the links while they are drained.

mod network;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;

use anyhow::{Context, Result, bail, ensure};
use lab::{Container, ContinuousPing, ControllerSpec, Lab, Layout, Link, LinkEnd, Stream, StreamReport};
use serde_json::Value;

use network::{MS, Network, POLICY, nothing_lost, spec};

/// The policy, with these links drained: by bridge and port. Probes are slow, so that a busy machine takes no link down beside.
fn drained(links: &[(String, String)]) -> String {
    let entries: Vec<_> =
        links.iter().map(|(bridge, port)| format!("{{ bridge = \"{bridge}\", port = \"{port}\" }}")).collect();
    POLICY.replacen("[fabric]", &format!("[fabric]\ndrain = [{}]", entries.join(", ")), 1).replacen(
        "probe_interval = \"auto\"",
        "probe_interval = \"200ms\"",
        1,
    )
}

/// A lab in which everybody knows everybody and nothing is drained.
fn ready(layout: Layout) -> Result<Network> {
    let network = Network::with_policy(&spec(layout), &drained(&[]))?;
    network.meet("green")?;
    network.meet("orange")?;
    network.lab.pin_neighbours()?;
    Ok(network)
}

/// What the controller calls the bridge at an end of a link.
fn bridge_name(network: &Network, end: &LinkEnd) -> Result<String> {
    let bridges = network.lab.bridges();
    let bridge = bridges.iter().find(|bridge| (bridge.host, &bridge.name) == (end.host, &end.bridge));
    Ok(bridge.context("the bridge is the lab's")?.description.clone())
}

fn link(network: &Network, link: &Link) -> Result<Value> {
    let links = network.controller.get("/v1/links")?;
    let (bridge, port) = (bridge_name(network, &link.a)?, &link.a.port);
    let is_end = |end: &Value| end["bridge"] == *bridge && end["port"] == **port;
    let found = links.as_array().into_iter().flatten().find(|it| is_end(&it["a"]) || is_end(&it["b"]));
    found.cloned().with_context(|| format!("{link:?} in {links}"))
}

/// Streams and broadcasts of a tenant between all its containers, and pings between two: no more than Open vSwitch's userspace
/// datapath carries without loss beside a change of its tables.
struct Traffic {
    pings: Vec<ContinuousPing>,
    streams: Vec<Stream>,
    broadcasts: Vec<Stream>,
}

impl Traffic {
    fn start(containers: &[Container]) -> Result<Self> {
        let mut traffic = Self { pings: Vec::new(), streams: Vec::new(), broadcasts: Vec::new() };
        for from in containers {
            let others: Vec<_> = containers.iter().filter(|to| to.netns != from.netns).cloned().collect();
            for to in &others {
                traffic.streams.push(Stream::unicast(from, to, MS(5))?);
            }
            traffic.broadcasts.push(Stream::broadcast(from, &others, MS(5))?);
        }
        let [one, two, ..] = containers else { bail!("a tenant with two containers is needed") };
        traffic.pings = vec![ContinuousPing::start(one, two.ipv4)?, ContinuousPing::start(two, one.ipv4)?];
        sleep(MS(300));
        Ok(traffic)
    }

    /// Nothing may be missing, and nothing come twice.
    fn check(self, what: &str) -> Result<()> {
        let lost = self.check_known(what)?;
        ensure!(lost == 0, "{what}: {lost} broadcasts were lost");
        println!("{what}: nothing lost or doubled");
        Ok(())
    }

    /// Of known unicast nothing may be missing, and nothing come twice. Gives how many broadcasts were lost.
    fn check_known(self, what: &str) -> Result<u64> {
        sleep(MS(300));
        for ping in self.pings {
            nothing_lost(&ping.stop()?, what)?;
        }
        let streams = Stream::stop_all(self.streams)?;
        let is_whole = |report: &StreamReport| report.sent > 50 && report.lost() == 0 && report.duplicates == 0;
        ensure!(streams.iter().all(is_whole), "{what}: {streams:?}");
        let broadcasts = Stream::stop_all(self.broadcasts)?;
        ensure!(broadcasts.iter().all(|report| report.duplicates == 0), "{what}: broadcasts: {broadcasts:?}");
        Ok(broadcasts.iter().map(StreamReport::lost).sum())
    }
}

/// Frames that came in by both ends of a link meanwhile.
fn carried(network: &Network, link: &Link) -> Result<u64> {
    // Counters follow up to 1.6 s later.
    let count = || -> Result<u64> {
        let ends = [&link.a, &link.b].into_iter();
        ends.map(|end| Ok(network.lab.host(end.host)?.counters(&end.bridge, &end.port)?.received)).sum()
    };
    sleep(MS(1600));
    let before = count()?;
    sleep(MS(2000));
    Ok(count()? - before)
}

/// One lab at a time: where two of them keep a small machine busy, it loses packets by itself.
fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_drained_link_carries_nothing_and_nobody_notices() -> Result<()> {
    let _alone = alone();
    // Either end is enough to name it, by its name or by a pattern.
    for (layout, pattern) in [(Layout::Shared, None), (Layout::PerTenant, Some("tun1*"))] {
        let network = ready(layout)?;
        let of_green = network.lab.link(1, 2, "green")?.clone();
        let green = network.lab.tenant("green");
        let orange = network.lab.tenant("orange");
        let busy = carried(&network, &of_green)?;
        let end = if pattern.is_some() { &of_green.b } else { &of_green.a };
        let port = pattern.unwrap_or(&end.port).to_owned();

        let policy = drained(&[(bridge_name(&network, end)?, port)]);
        let traffic = [Traffic::start(&green)?, Traffic::start(&orange)?];
        network.apply(&policy)?;
        let seen = link(&network, &of_green)?;
        let noted = seen["note"]
            .as_str()
            .is_some_and(|note| note.starts_with("drained (") && note.ends_with("policy.toml:20)"));
        ensure!(seen["up"] == true && seen["drained"] == true && noted, "{seen}");
        ensure!(seen["tenants"] == serde_json::json!([]), "{seen}");
        ensure!(network.problems()?.is_empty(), "{:?}", network.problems()?);
        let idle = carried(&network, &of_green)?;
        // Both ends send 5 probes a second; each stream alone is 200 frames a second.
        ensure!(idle < 100, "{idle} frames in 2 s over a drained link ({busy} before there was traffic)");
        for traffic in traffic {
            traffic.check(&format!("{layout:?}, drained by {}", end.port))?;
        }
        network.check_delivery().context("while drained")?;

        // Somebody pulls the cable: nobody notices that, either.
        let traffic = Traffic::start(&green)?;
        network.lab.cut(1, 2)?;
        // Where orange has links of its own, one of them is cut as well.
        let is_so = || Ok(link(&network, &of_green)?).map(|it| it["up"] == false && it["drained"] == true);
        lab::wait_until("the loss of the drained link", MS(5000), is_so)?;
        traffic.check(&format!("{layout:?}, drained and cut"))?;
        network.lab.restore(1, 2)?;
        network.settle()?;

        let traffic = [Traffic::start(&green)?, Traffic::start(&orange)?];
        network.apply(&drained(&[]))?;
        for traffic in traffic {
            traffic.check(&format!("{layout:?}, no longer drained"))?;
        }
        let seen = link(&network, &of_green)?;
        ensure!(seen["drained"] == false && seen["note"] == "", "{seen}");
        network.check_delivery().context("no longer drained")?;
    }
    Ok(())
}

/// All links of the host at the root of a tenant's tree are drained: one stays in use, as its containers need it, and the
/// status says so. When they are the tenant's no more, none does.
#[test]
fn a_trees_root_is_drained_and_nobody_notices() -> Result<()> {
    let _alone = alone();
    for layout in [Layout::Shared, Layout::PerTenant] {
        let network = ready(layout)?;
        let root = network.controller.get("/v1/tenants/green")?["tree"]["root"].clone();
        let bridges = network.lab.bridges();
        let root = bridges.iter().find(|bridge| root == *bridge.description).context("a root")?;
        let links: Vec<_> = network
            .lab
            .links()
            .iter()
            .filter(|it| it.end(root.host).is_ok_and(|end| end.bridge == root.name))
            .cloned()
            .collect();
        ensure!(links.len() == 2, "{links:?}");
        let policy = drained(&[(root.description.clone(), "tun*".to_owned())]);

        let traffic = Traffic::start(&network.lab.tenant("green"))?;
        network.apply(&policy)?;
        traffic.check(&format!("{layout:?}, all links of the root drained but one"))?;
        let seen = links.iter().map(|it| link(&network, it)).collect::<Result<Vec<_>>>()?;
        let is_needed = |it: &&Value| it["note"].as_str().is_some_and(|note| note.contains("being the only way"));
        ensure!(seen.iter().filter(|it| it["drained"] == true).count() == 1, "{seen:?}");
        ensure!(seen.iter().filter(is_needed).count() == 1, "{seen:?}");
        network.wait_problem("but it is used all the same, being the only way")?;
        network.check_delivery().context("while all but one are drained")?;

        // Nothing of the root's is anybody's any more, so nothing has to reach it.
        let others: Vec<String> = (1..=3).filter(|host| *host != root.host).map(|host| format!("h{host}")).collect();
        let at_others = |tenant: &str| {
            let name = |host: &String| {
                bridges
                    .iter()
                    .find(|it| {
                        it.description.ends_with(host.as_str()) && it.tenant.as_deref().is_none_or(|of| of == tenant)
                    })
                    .map(|it| it.description.clone())
            };
            let entry = |bridge: String| format!("{{ bridge = \"{bridge}\", port = \"{tenant}-*\" }}");
            others.iter().filter_map(name).map(entry).collect::<Vec<_>>().join(", ")
        };
        let mut alone = policy.clone();
        for tenant in ["green", "orange"] {
            let everywhere = format!("{{ bridge = \"*\", port = \"{tenant}-*\" }}");
            ensure!(alone.contains(&everywhere), "{alone}");
            alone = alone.replacen(&everywhere, &at_others(tenant), 1);
        }
        let left: Vec<_> = network.lab.tenant("green").into_iter().filter(|it| it.host != root.host).collect();
        let traffic = Traffic::start(&left)?;
        network.apply(&alone)?;
        let seen = links.iter().map(|it| link(&network, it)).collect::<Result<Vec<_>>>()?;
        ensure!(seen.iter().all(|it| it["drained"] == true && it["tenants"] == serde_json::json!([])), "{seen:?}");
        ensure!(network.problems()?.is_empty(), "{:?}", network.problems()?);
        traffic.check(&format!("{layout:?}, the root left"))?;

        let traffic = Traffic::start(&left)?;
        network.apply(&drained(&[]))?;
        network.meet("green")?;
        network.meet("orange")?;
        // Ports that come to somebody are given in two steps, as if somebody else had had them.
        let lost = traffic.check_known(&format!("{layout:?}, the root is back"))?;
        println!("{layout:?}, the root is back: {lost} broadcasts lost");
        network.check_delivery().context("the root is back")?;
    }
    Ok(())
}

/// A bridge that stops answering takes nothing in from a link that was drained before, and may send over one that is to be
/// drained afterwards. Nobody notices either.
#[test]
fn a_bridge_that_does_not_answer_keeps_its_links_as_they_are() -> Result<()> {
    let _alone = alone();
    let network = ready(Layout::Shared)?;
    let [with_one, with_three] = [1, 3].map(|host| network.lab.link(2, host, "green").cloned());
    let [with_one, with_three] = [with_one?, with_three?];
    let first = drained(&[("h1".to_owned(), "tun2".to_owned())]);
    let second = drained(&[("h2".to_owned(), "tun3".to_owned())]);
    network.apply(&first)?;
    let traffic = Traffic::start(&network.lab.tenant("green"))?;
    network.lab.cut_control(2)?;
    network.wait_problem(": a bridge at its end doesn't answer, and may still send over it; to be drained (")?;
    sleep(MS(500));
    network.controller.apply_policy(&second)?;
    network.controller.wait_until("the bridges that answer", MS(15_000), |controller| {
        let status = controller.get("/v1/status")?;
        Ok(status["bridges"]["connected"] == 2 && status["converged"] == true)
    })?;
    ensure!(link(&network, &with_three)?["drained"] == false, "{}", link(&network, &with_three)?);
    sleep(MS(500));
    network.lab.restore_control(2)?;
    network.settle()?;
    // When the bridge is back, the tree changes where it stands.
    let lost = traffic.check_known("a bridge that doesn't answer")?;
    println!("a bridge that doesn't answer, and comes back: {lost} broadcasts lost");
    let links = [&with_one, &with_three].map(|it| link(&network, it));
    let [with_one, with_three] = links;
    let (with_one, with_three) = (with_one?, with_three?);
    ensure!(with_one["drained"] == false && with_three["drained"] == true, "{with_one}, {with_three}");
    network.check_delivery()
}

#[test]
fn what_drains_nothing_is_told() -> Result<()> {
    let _alone = alone();
    let network = ready(Layout::Shared)?;
    network.apply(&drained(&[("h1".to_owned(), "tun9".to_owned())]))?;
    network.wait_problem("no link is drained by `h1`, `tun9` (")?;
    ensure!(network.lab.links().iter().all(|it| link(&network, it).is_ok_and(|it| it["drained"] == false)), "none is");
    network.apply(&drained(&[]))?;
    ensure!(network.problems()?.is_empty(), "{:?}", network.problems()?);
    Ok(())
}

/// One policy after the other, sooner than bridges can follow.
#[test]
fn policies_that_overtake_each_other_lose_nothing() -> Result<()> {
    let _alone = alone();
    for layout in [Layout::Shared, Layout::PerTenant] {
        let lab = Lab::start(&spec(layout))?;
        let network = Network { controller: lab.start_controller(&ControllerSpec::default())?, lab };
        let put = |policy: &str| {
            let answer = network.controller.request("PUT", "/v1/policy", Some(("application/toml", policy)))?;
            ensure!(answer.status < 300, "{answer:?}");
            Ok(())
        };
        put(&drained(&[]))?;
        network.settle()?;
        network.meet("green")?;
        network.lab.pin_neighbours()?;
        let links = network.lab.links().iter().filter(|link| link.tenant.as_deref() != Some("orange"));
        let by_port = |link: &Link| Ok((bridge_name(&network, &link.a)?, link.a.port.clone()));
        let links: Vec<_> = links.map(by_port).collect::<Result<_>>()?;
        let sets = links.iter().map(std::slice::from_ref).chain([&links[..], &[]]);
        let policies: Vec<String> = sets.map(drained).collect();
        let traffic = Traffic::start(&network.lab.tenant("green"))?;
        for (round, policy) in policies.iter().cycle().take(50).enumerate() {
            put(policy)?;
            sleep(MS(round as u64 * 7 % 60));
        }
        network.settle()?;
        // There are two versions of a tree, so a third one may come at a bad moment for floods.
        let lost = traffic.check_known(&format!("{layout:?}, one policy after the other"))?;
        println!("{layout:?}, fifty policies, one after the other: {lost} broadcasts lost");
        network.meet("orange")?;
        network.check_delivery().context("in the end")?;
    }
    Ok(())
}
