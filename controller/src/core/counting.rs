//! What rate limits let through and what they dropped: asked of the bridges' meters once a second, where there are limits.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use apps::limits::{self, Limited};
use apps::marks::{self, Owner};
use apps::policy::RateUnit;
use apps::view::Endpoint;
use openflow::message::Message;
use openflow::meter::{MeterRequest, MeterStats};
use openflow::multipart::{MultipartRequest, Part};
use openflow::types::{DatapathId, MeterId, PortNo, Xid};

use super::bridge::Bridge;
use super::{Core, Effect};
use crate::snapshot::{self, Traffic};

/// Time between two questions.
const INTERVAL: Duration = Duration::from_secs(1);

/// After this an answer isn't waited for any more.
const ANSWER: Duration = Duration::from_secs(5);

/// What a bridge's meters have counted since they were made.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    /// The question that isn't answered yet, and when it was asked.
    asked: Option<(Xid, Instant)>,
    counts: BTreeMap<MeterId, (Traffic, Traffic)>,
}

impl Counting {
    /// Takes in a part of an answer: what came to each meter, and what of it was dropped.
    pub(crate) fn told(&mut self, xid: Xid, meters: Vec<MeterStats>, more: bool) {
        if self.asked.is_none_or(|(asked, _)| asked != xid) {
            return;
        }
        for meter in meters {
            let came = Traffic { packets: meter.packet_in_count, bytes: meter.byte_in_count };
            let dropped = meter.bands.iter().fold(Traffic::default(), |sum, band| Traffic {
                packets: sum.packets.saturating_add(band.packet_count),
                bytes: sum.bytes.saturating_add(band.byte_count),
            });
            self.counts.insert(meter.meter, (came, dropped));
        }
        if !more {
            self.asked = None;
        }
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
        self.limited.then_some(self.counted + INTERVAL)
    }

    /// Asks for what the limits did, if it is time.
    pub(super) fn count(&mut self, now: Instant) {
        if self.count_at().is_none_or(|due| now < due) {
            return;
        }
        self.counted = now;
        for bridge in self.bridges.values_mut().filter(|bridge| bridge.counts()) {
            let xid = bridge.next_xid();
            let Some(connection) = &mut bridge.connection else { continue };
            let counting = &mut connection.counting;
            if counting.asked.is_some_and(|(_, asked)| now < asked + ANSWER) {
                continue;
            }
            counting.asked = Some((xid, now));
            let question = Message::MultipartRequest(Part::whole(MultipartRequest::Meter(MeterRequest::all())));
            self.effects.push(Effect::Send { session: connection.session, messages: vec![(xid, question)] });
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
