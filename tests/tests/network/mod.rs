//! What the end-to-end tests share: a lab with the controller running, and the questions they all ask.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Capture, Captured, Container, Controller, ControllerSpec, Frame, Lab, Layout, PingReport, Spec};
use serde_json::Value;

pub(crate) const MS: fn(u64) -> Duration = Duration::from_millis;

/// The policy that most tests use; it fits every layout.
pub(crate) const POLICY: &str = include_str!("../../../examples/green-orange.toml");

/// A lab with the controller.
pub(crate) struct Network {
    pub(crate) controller: Controller,
    pub(crate) lab: Lab,
}

impl Network {
    /// Starts both, the bridges first, and waits until all is in place.
    pub(crate) fn start(spec: &Spec) -> Result<Self> {
        Self::with_policy(spec, POLICY)
    }

    pub(crate) fn with_policy(spec: &Spec, policy: &str) -> Result<Self> {
        let lab = Lab::start(spec)?;
        let controller = lab.start_controller(&ControllerSpec::policy(policy))?;
        let network = Self { controller, lab };
        network.settle()?;
        Ok(network)
    }

    /// Starts both; everybody has met, and no ping waits for a neighbour to be found.
    pub(crate) fn ready(spec: &Spec) -> Result<Self> {
        let network = Self::start(spec)?;
        network.meet("green")?;
        network.meet("orange")?;
        network.lab.pin_neighbours()?;
        Ok(network)
    }

    /// Brings a policy into force.
    pub(crate) fn apply(&self, policy: &str) -> Result<()> {
        self.controller.apply_policy(policy)?;
        self.settle()
    }

    /// Waits until all bridges and links are there and all bridges hold what they should.
    pub(crate) fn settle(&self) -> Result<()> {
        let (bridges, links) = (self.lab.bridges().len() as u64, self.lab.links().len() as u64);
        self.settled(bridges, links)
    }

    pub(crate) fn settled(&self, bridges: u64, links: u64) -> Result<()> {
        let mut last = Value::Null;
        let waited = lab::wait_until("the network's convergence", MS(20_000), || {
            last = self.controller.get("/v1/status")?;
            Ok(last["bridges"]["connected"] == bridges && last["links"]["up"] == links && last["converged"] == true)
        });
        waited.map(drop).with_context(|| format!("{bridges} bridges and {links} links were awaited; last: {last}"))
    }

    /// Everybody reaches everybody in the tenant, which makes all hosts known, too.
    pub(crate) fn meet(&self, tenant: &str) -> Result<()> {
        let matrix = self.lab.ping_matrix(tenant, MS(5000))?;
        ensure!(matrix.is_full(), "{tenant}: {matrix}");
        // Frames come sooner than the controller has dealt with copies of them.
        let hosts = self.lab.tenant(tenant).len() as u64;
        let known = || Ok(self.controller.get(&format!("/v1/tenants/{tenant}"))?["hosts"].as_u64() >= Some(hosts));
        lab::wait_until("all hosts to be known", MS(5000), known).or_else(|error| {
            Err(error.context(format!("{tenant} has {hosts} hosts; known: {}", self.controller.get("/v1/hosts")?)))
        })?;
        self.controller.wait_converged(self.lab.bridges().len() as u64, MS(5000)).map(drop)
    }

    pub(crate) fn problems(&self) -> Result<Vec<String>> {
        let status = self.controller.get("/v1/status")?;
        let list = status["problems"].as_array().context("status has problems")?;
        Ok(list.iter().filter_map(|problem| problem.as_str().map(str::to_owned)).collect())
    }

    pub(crate) fn wait_problem(&self, part: &str) -> Result<()> {
        lab::wait_until(&format!("a problem that says `{part}`"), MS(5000), || {
            Ok(self.problems()?.iter().any(|problem| problem.contains(part)))
        })
        .map(drop)
    }

    /// How many changes the controller has sent to bridges since it was started.
    pub(crate) fn changes_sent(&self) -> Result<u64> {
        changes_sent(&self.controller)
    }

    /// Lets `sends` happen while every container is watched, and a little longer.
    pub(crate) fn watch(&self, sends: impl FnOnce() -> Result<()>) -> Result<Seen> {
        let containers = self.lab.containers();
        let captures = containers.iter().map(Capture::start).collect::<Result<Vec<_>>>()?;
        sends()?;
        sleep(MS(400));
        let captured = captures.into_iter().map(Capture::stop).collect::<Result<Vec<_>>>()?;
        Ok(Seen { containers, captured })
    }

    /// Every container of every tenant sends to everybody, to a group, to an address that nobody has, and to each other
    /// container; some with tags. Each copy is counted: one where it should be, none anywhere else.
    pub(crate) fn check_delivery(&self) -> Result<()> {
        let containers = self.lab.containers();
        let mut sent: Vec<(Frame, &Container, Vec<&Container>, String)> = Vec::new();
        for from in containers.iter().filter(|from| from.tenant.is_some()) {
            let others: Vec<_> =
                containers.iter().filter(|to| to.tenant == from.tenant && to.netns != from.netns).collect();
            let what = |kind: &str| format!("{kind} from h{}/{}", from.host, from.port);
            sent.push((Frame::broadcast(from.mac), from, others.clone(), what("broadcast")));
            sent.push((Frame::multicast(from.mac), from, others.clone(), what("multicast")));
            sent.push((Frame::unknown_unicast(from.mac), from, others.clone(), what("unknown unicast")));
            let tagged = Frame::tagged(from.mac, lab::BROADCAST, &[(0x8100, 7)]);
            sent.push((tagged, from, others.clone(), what("tagged broadcast")));
            for to in &others {
                sent.push((Frame::new(from.mac, to.mac), from, vec![to], what("unicast")));
                let tags = [(0x88a8, 8), (0x8100, 9)];
                sent.push((Frame::tagged(from.mac, to.mac, &tags), from, vec![to], what("doubly tagged unicast")));
            }
        }
        let seen = self.watch(|| sent.iter().try_for_each(|(frame, from, ..)| from.send(frame)))?;
        for (frame, _, to, what) in &sent {
            seen.expect(frame, to, what)?;
        }
        Ok(())
    }

    /// Frames that a host's link ports sent, by port.
    pub(crate) fn sent_over_links(&self, host: usize, tenant: &str) -> Result<BTreeMap<String, u64>> {
        let bridge = self.lab.spec().bridge_of(tenant)?.to_owned();
        let ends = self.lab.links().iter().flat_map(|link| [&link.a, &link.b]);
        ends.filter(|end| end.host == host && end.bridge == bridge)
            .map(|end| Ok((end.port.clone(), self.lab.host(host)?.counters(&bridge, &end.port)?.sent)))
            .collect()
    }
}

/// How many changes a controller has sent to bridges since they connected.
pub(crate) fn changes_sent(controller: &Controller) -> Result<u64> {
    let metrics = controller.request("GET", "/metrics", None)?.body;
    let is_change = |line: &&str| {
        line.starts_with("espalier_openflow_messages_total{") && line.contains("Mod\",direction=\"sent\"")
    };
    let numbers = metrics.lines().filter(is_change).filter_map(|line| line.rsplit(' ').next());
    ensure!(metrics.contains("espalier_openflow_messages_total{dpid="), "no messages in {metrics}");
    numbers.map(|number| number.parse::<u64>().context("a number")).sum()
}

/// What every container received.
pub(crate) struct Seen {
    containers: Vec<Container>,
    captured: Vec<Captured>,
}

impl Seen {
    /// Exactly one copy at each of `to`, none elsewhere.
    pub(crate) fn expect(&self, frame: &Frame, to: &[&Container], what: &str) -> Result<()> {
        for (container, captured) in self.containers.iter().zip(&self.captured) {
            let wanted = u64::from(to.iter().any(|to| to.netns == container.netns));
            let copies = captured.copies(frame);
            let at = format!("h{}/{}", container.host, container.port);
            ensure!(copies == wanted, "{what}: {copies} copies at {at} instead of {wanted}");
        }
        Ok(())
    }
}

/// Every ping was answered, once.
pub(crate) fn nothing_lost(report: &PingReport, what: &str) -> Result<()> {
    ensure!(report.sent > 10 && report.received == report.sent && report.duplicates == 0, "{what}: {report:?}");
    Ok(())
}

/// So many rules that drop what goes to a port from this one on.
pub(crate) fn rules(count: usize, protocol: &str, first: usize) -> String {
    let rule = |number| {
        format!(
            "[[tenant.rule]]\nname = \"r{number}\"\nmatch = {{ protocol = \"{protocol}\", destination_port = {} }}\n\
             action = \"drop\"\n",
            first + number
        )
    };
    (0..count).map(rule).collect()
}

/// Green with more ports and more of anything, in the policy's words, and orange with its ports alone.
pub(crate) fn green_and_orange(ports: &str, green: &str) -> String {
    format!(
        r#"version = 1

[fabric]
links = ["*"]

[[tenant]]
name = "orange"
key = 200
ports = [{{ bridge = "*", port = "orange-*" }}]

[[tenant]]
name = "green"
key = 100
ports = [
  {{ bridge = "*", port = "green-*" }},
{ports}]
{green}
"#
    )
}

pub(crate) fn spec(layout: Layout) -> Spec {
    Spec { layout, ..Spec::default() }
}
