//! What rate limits let through and what they dropped, and what went into service functions and came back: asked of the
//! bridges' meters and flow entries once a second, where there are limits or functions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use apps::attachment::PortUse;
use apps::desired::FlowKey;
use apps::limits::{self, Limited};
use apps::marks::{self, Owner};
use apps::pipeline::{CLASSIFY, DELIVER};
use apps::policy::RateUnit;
use apps::view::Endpoint;
use openflow::flow::{FlowStats, FlowStatsRequest};
use openflow::message::Message;
use openflow::meter::{MeterRequest, MeterStats};
use openflow::multipart::{MultipartRequest, Part};
use openflow::types::{DatapathId, MeterId, PortNo, TableId, Xid};

use super::bridge::Bridge;
use super::{Core, Effect};
use crate::snapshot::{self, Traffic};

/// Time between two questions.
const INTERVAL: Duration = Duration::from_secs(1);

/// The same where nobody wants to see counts: only who floods is looked for.
const SELDOM: Duration = Duration::from_secs(5);

/// After this an answer isn't waited for any more.
const ANSWER: Duration = Duration::from_secs(5);

/// What a bridge's meters have counted since they were made.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    /// The question that isn't answered yet, and when it was asked.
    asked: Option<(Xid, Instant)>,
    counts: BTreeMap<MeterId, (Traffic, Traffic)>,
    /// The questions about tables that aren't answered yet.
    asked_flows: BTreeMap<Xid, (TableId, Instant)>,
    /// What hit the entries of tables that were asked for.
    flows: BTreeMap<FlowKey, Traffic>,
    /// Parts of answers that aren't whole.
    coming: BTreeMap<Xid, Vec<FlowStats>>,
}

impl Counting {
    /// Takes in a part of an answer: what came to each meter, and what of it was dropped. Gives the ports that sent more to
    /// everybody than they may since the last answer.
    pub(crate) fn told(&mut self, xid: Xid, meters: Vec<MeterStats>, more: bool) -> Vec<PortNo> {
        let mut storms = Vec::new();
        if self.asked.is_none_or(|(asked, _)| asked != xid) {
            return storms;
        }
        for meter in meters {
            let came = Traffic { packets: meter.packet_in_count, bytes: meter.byte_in_count };
            let dropped = meter.bands.iter().fold(Traffic::default(), |sum, band| Traffic {
                packets: sum.packets.saturating_add(band.packet_count),
                bytes: sum.bytes.saturating_add(band.byte_count),
            });
            let before = self.counts.insert(meter.meter, (came, dropped));
            if before.is_some_and(|(_, before)| dropped.packets > before.packets) {
                storms.extend(marks::flood_limited(meter.meter));
            }
        }
        if !more {
            self.asked = None;
        }
        storms
    }

    /// Takes in a part of an answer about a table, if that is what it is.
    pub(crate) fn told_flows(&mut self, xid: Xid, flows: Vec<FlowStats>, more: bool) -> Result<(), Vec<FlowStats>> {
        let Some((table, _)) = self.asked_flows.get(&xid).copied() else { return Err(flows) };
        self.coming.entry(xid).or_default().extend(flows);
        if !more {
            self.asked_flows.remove(&xid);
            self.flows.retain(|key, _| key.table != table);
            let told = self.coming.remove(&xid).into_iter().flatten().filter(|entry| entry.table == table);
            self.flows.extend(told.map(|entry| {
                let FlowStats { table, priority, matching, packet_count, byte_count, .. } = entry;
                let traffic = Traffic { packets: packet_count, bytes: byte_count };
                (FlowKey { table, priority, matching }, traffic)
            }));
        }
        Ok(())
    }

    /// What hit an entry.
    pub(crate) fn of(&self, key: &FlowKey) -> Traffic {
        self.flows.get(key).copied().unwrap_or_default()
    }

    /// What came back from a function by a port.
    pub(crate) fn returned(&self, port: PortNo) -> Traffic {
        let here = self.flows.iter().filter(|(key, _)| key.table == CLASSIFY && key.matching.in_port() == Some(port));
        here.fold(Traffic::default(), |sum, (_, traffic)| sum + *traffic)
    }
}

impl Bridge {
    fn has_limits(&self) -> bool {
        let first = marks::port_limit(PortNo(0));
        self.installed.get(&Owner::FABRIC).is_some_and(|section| section.meters.range(first..).next().is_some())
    }

    /// May its meters be asked?
    fn counts(&self) -> bool {
        self.is_responsive() && self.has_limits()
    }
}

impl Core {
    /// When [`Core::count`] has something to do.
    pub(super) fn count_at(&self) -> Option<Instant> {
        let pause = if self.limited || self.chained { INTERVAL } else { SELDOM };
        (!self.policy.tenants.is_empty()).then_some(self.counted + pause)
    }

    /// Asks for what limits did and functions got, if it is time.
    pub(super) fn count(&mut self, now: Instant) {
        if self.count_at().is_none_or(|due| now < due) {
            return;
        }
        self.counted = now;
        let served = self.attachments.ports.iter().filter(|(_, used)| matches!(used, PortUse::Function(_)));
        let served: BTreeSet<DatapathId> = served.map(|(place, _)| place.bridge).collect();
        for (dpid, bridge) in &mut self.bridges {
            let (has_limits, serves) = (bridge.counts(), bridge.is_responsive() && served.contains(dpid));
            let xids = [bridge.next_xid(), bridge.next_xid(), bridge.next_xid()];
            let Some(connection) = &mut bridge.connection else { continue };
            let counting = &mut connection.counting;
            let mut messages = Vec::new();
            let mut ask = |xid, request| messages.push((xid, Message::MultipartRequest(Part::whole(request))));
            if has_limits && counting.asked.is_none_or(|(_, asked)| now >= asked + ANSWER) {
                counting.asked = Some((xids[0], now));
                ask(xids[0], MultipartRequest::Meter(MeterRequest::all()));
            }
            let late = counting.asked_flows.values().any(|(_, asked)| now >= *asked + ANSWER);
            if serves && (late || counting.asked_flows.is_empty()) {
                counting.coming.clear();
                counting.asked_flows = [(xids[1], (DELIVER, now)), (xids[2], (CLASSIFY, now))].into();
                for (xid, (table, _)) in &counting.asked_flows {
                    ask(*xid, MultipartRequest::Flow(FlowStatsRequest { table: *table, ..FlowStatsRequest::all() }));
                }
            }
            if !messages.is_empty() {
                self.effects.push(Effect::Send { session: connection.session, messages });
            }
        }
    }

    /// All limits, with what they did.
    pub(super) fn limits(&self) -> Vec<snapshot::Limit> {
        if !self.limited {
            return Vec::new();
        }
        self.bridges.iter().flat_map(|(dpid, bridge)| self.limits_at(*dpid, bridge)).collect()
    }

    fn limits_at(&self, dpid: DatapathId, bridge: &Bridge) -> Vec<snapshot::Limit> {
        let limits = limits::at(dpid, &self.policy, &self.memory.allocations, &self.attachments, &self.view);
        let row = |(meter, limit): (MeterId, limits::Limit<'_>)| {
            let counting = bridge.connection.as_ref().map(|connection| &connection.counting);
            let (came, dropped) = counting.and_then(|it| it.counts.get(&meter)).copied().unwrap_or_default();
            let (on, port, chain) = match limit.on {
                Limited::Bridge => ("bridge", None, None),
                Limited::Port(port) => ("port", Some(self.name(Endpoint { bridge: dpid, port }).port), None),
                Limited::To(port) => ("to", Some(self.name(Endpoint { bridge: dpid, port }).port), None),
                Limited::Chain(name) => ("chain", None, Some(name.to_owned())),
            };
            let unit = match limit.limit.unit {
                RateUnit::Kilobits => "kbit/s",
                RateUnit::Packets => "packet/s",
            };
            snapshot::Limit {
                tenant: limit.tenant.to_owned(),
                on: on.to_owned(),
                bridge: bridge.name.clone(),
                port,
                chain,
                rate: limit.limit.rate,
                burst: limit.limit.burst,
                unit: unit.to_owned(),
                passed: Traffic {
                    packets: came.packets.saturating_sub(dropped.packets),
                    bytes: came.bytes.saturating_sub(dropped.bytes),
                },
                dropped,
            }
        };
        limits.into_iter().map(row).collect()
    }
}
