//! The text of `/metrics`, in the OpenMetrics format that Prometheus reads.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::Direction;
use crate::hub::Published;
use crate::listen::Shared;
use crate::problems::Problems;
use crate::snapshot::Snapshot;

/// All that is told.
#[derive(Debug)]
pub struct Exposition(Registry);

impl Exposition {
    /// Tells of sessions, and of the newest snapshot.
    pub fn new(shared: &Arc<Shared>, published: watch::Receiver<Published>, problems: Arc<Problems>) -> Self {
        let mut registry = Registry::with_prefix("espalier");
        registry.register("build", "What runs here", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        shared.metrics.register(&mut registry);
        registry.register_collector(Box::new(Sessions(Arc::clone(shared))));
        registry.register_collector(Box::new(Fabric { published, problems }));
        Self(registry)
    }

    /// The text.
    ///
    /// # Errors
    /// A fault of this program.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// Messages of the bridges that are connected.
#[derive(Debug)]
struct Sessions(Arc<Shared>);

impl Collector for Sessions {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Messages of bridges that are connected now";
        let mut family = encoder.encode_descriptor("openflow_messages", help, None, MetricType::Counter)?;
        for (dpid, traffic) in self.0.registry.traffic() {
            let dpid = dpid.to_string();
            for (direction, word) in [(Direction::Received, "received"), (Direction::Sent, "sent")] {
                for (kind, count) in traffic.counts(direction) {
                    let labels = [("dpid", dpid.as_str()), ("type", kind), ("direction", word)];
                    ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}

/// What the newest snapshot tells.
#[derive(Debug)]
struct Fabric {
    published: watch::Receiver<Published>,
    problems: Arc<Problems>,
}

/// One row per gauge: name, what it is, its value.
type Gauge = (&'static str, &'static str, fn(&Snapshot) -> usize);

const GAUGES: &[Gauge] = &[
    ("policy_generation", "Generation of the policy in force", |it| {
        usize::try_from(it.status.policy.generation).unwrap_or(usize::MAX)
    }),
    ("bridges_connected", "Bridges that are connected", |it| it.status.bridges.connected),
    ("bridges_known", "Bridges that are connected, or were and are remembered", |it| it.status.bridges.known),
    ("links_up", "Links that carry probes both ways", |it| it.status.links.up),
    ("links_down", "Links that are known and don't", |it| it.status.links.down),
    ("tenants", "Tenants of the policy", |it| it.status.tenants),
    ("hosts", "Hosts that are known", |it| it.status.hosts),
    ("converged", "1: every connected bridge acknowledged exactly what is desired", |it| {
        usize::from(it.status.converged)
    }),
    ("flows_desired", "Flow entries that bridges should hold", |it| {
        it.bridges.iter().map(|bridge| bridge.desired.flows).sum()
    }),
    ("flows_installed", "Flow entries that bridges acknowledged", |it| {
        it.bridges.iter().map(|bridge| bridge.installed.flows).sum()
    }),
    ("groups_desired", "Groups that bridges should hold", |it| {
        it.bridges.iter().map(|bridge| bridge.desired.groups).sum()
    }),
    ("meters_desired", "Meters that bridges should hold", |it| {
        it.bridges.iter().map(|bridge| bridge.desired.meters).sum()
    }),
];

impl Collector for Fabric {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Until a policy is in force nothing is known, which isn't the same as nothing being there.
        let Some((_, snapshot)) = self.published.borrow().clone() else { return Ok(()) };
        let problems = snapshot.status.problems.len() + self.problems.list().len();
        let told = GAUGES.iter().map(|(name, help, value)| (*name, *help, value(&snapshot)));
        for (name, help, value) in told.chain([("problems", "Lines under problems in the status", problems)]) {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(gauge)?;
        }
        Ok(())
    }
}
