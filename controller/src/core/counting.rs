//! What rate limits let through and what they dropped, and what went into service functions and came back: asked of the
//! bridges' meters and flow entries once a second, where there are limits or functions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use apps::attachment::PortUse;
use apps::desired::FlowKey;
use apps::limits::{self, Limited};
use apps::marks::{self, Owner, cookie};
use apps::pipeline::{CLASSIFY, DELIVER, LEARN};
use apps::policy::{RateUnit, Tenant};
use apps::view::Endpoint;
use openflow::flow::{FlowStats, FlowStatsRequest};
use openflow::message::Message;
use openflow::meter::{MeterRequest, MeterStats};
use openflow::multipart::{MultipartRequest, Part};
use openflow::oxm::Oxm;
use openflow::types::{DatapathId, MacAddr, MeterId, PortNo, TableId, Xid};

use super::bridge::Bridge;
use super::{Core, Effect};
use crate::snapshot::{self, Traffic};

/// Time between two questions.
const INTERVAL: Duration = Duration::from_secs(1);

/// The same where nobody wants to see counts: only who floods is looked for.
const SELDOM: Duration = Duration::from_secs(5);

/// Time between two questions about when hosts were last heard of; longer where there are more hosts than [`HOSTS`].
const SEEN: Duration = Duration::from_secs(10);
const HOSTS: usize = 10_000;

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
    /// The question about sources that isn't answered yet, and when it was asked.
    asked_seen: Option<(Xid, Instant)>,
    /// How many frames each source had sent, by the last two answers.
    sent: [BTreeMap<(PortNo, MacAddr), u64>; 2],
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

    /// Takes in a part of an answer about sources, if that is what it is. Gives those that sent something since the answer before.
    pub(crate) fn told_seen(
        &mut self,
        xid: Xid,
        flows: Vec<FlowStats>,
        more: bool,
    ) -> Result<Vec<(Owner, PortNo, MacAddr)>, Vec<FlowStats>> {
        if self.asked_seen.is_none_or(|(asked, _)| asked != xid) {
            return Err(flows);
        }
        let mut heard = Vec::new();
        for entry in flows.into_iter().filter(|entry| entry.table == LEARN) {
            let source = entry.matching.fields().iter().find_map(|field| match field {
                Oxm::EthSrc(mac, None) => Some(*mac),
                _ => None,
            });
            let (Some(owner), Some(port), Some(mac)) = (cookie::owner(entry.cookie), entry.matching.in_port(), source)
            else {
                continue;
            };
            let [before, now] = &mut self.sent;
            if before.get(&(port, mac)).is_some_and(|before| entry.packet_count > *before) {
                heard.push((owner, port, mac));
            }
            now.insert((port, mac), entry.packet_count);
        }
        if !more {
            self.asked_seen = None;
            let [before, now] = &mut self.sent;
            *before = std::mem::take(now);
        }
        Ok(heard)
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
        let unread = self.policy.tenants.iter().any(Tenant::ends_unread);
        for (dpid, bridge) in &mut self.bridges {
            let (has_limits, serves) = (bridge.counts(), bridge.is_responsive() && served.contains(dpid));
            let xids = [bridge.next_xid(), bridge.next_xid(), bridge.next_xid()];
            let mut messages = if unread { bridge.ask_unread(now) } else { Vec::new() };
            let Some(connection) = &mut bridge.connection else { continue };
            let counting = &mut connection.counting;
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

    /// When [`Core::ask_seen`] has something to do.
    pub(super) fn seen_at(&self) -> Option<Instant> {
        let hosts = self.hosts.len();
        let more = u32::try_from(hosts / HOSTS).unwrap_or(u32::MAX);
        (hosts > 0).then(|| self.asked_seen + SEEN * more.saturating_add(1))
    }

    /// Asks bridges which hosts sent something, if it is time: of those that are known no frame is shown.
    pub(super) fn ask_seen(&mut self, now: Instant) {
        if self.seen_at().is_none_or(|due| now < due) {
            return;
        }
        self.asked_seen = now;
        for bridge in self.bridges.values_mut().filter(|bridge| bridge.is_responsive()) {
            let xid = bridge.next_xid();
            let Some(connection) = &mut bridge.connection else { continue };
            let counting = &mut connection.counting;
            if counting.asked_seen.is_some_and(|(_, asked)| now < asked + ANSWER) {
                continue;
            }
            counting.asked_seen = Some((xid, now));
            counting.sent[1].clear();
            let request = MultipartRequest::Flow(FlowStatsRequest { table: LEARN, ..FlowStatsRequest::all() });
            let messages = vec![(xid, Message::MultipartRequest(Part::whole(request)))];
            self.effects.push(Effect::Send { session: connection.session, messages });
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

#[cfg(test)]
mod tests {
    use openflow::flow::FlowModFlags;
    use openflow::matching::Match;
    use openflow::types::Cookie;

    use super::*;

    const OWNER: Owner = Owner(100);

    fn source(port: u32, last: u8, packet_count: u64) -> FlowStats {
        let mac = MacAddr([2, 0, 0, 0, 0, last]);
        FlowStats {
            table: LEARN,
            duration_sec: 1,
            duration_nsec: 0,
            priority: 10,
            idle_timeout: 300,
            hard_timeout: 0,
            flags: FlowModFlags::empty(),
            cookie: cookie::of(OWNER, LEARN),
            packet_count,
            byte_count: 0,
            matching: Match::new([Oxm::InPort(PortNo(port), None), Oxm::EthSrc(mac, None)]),
            instructions: Vec::new(),
        }
    }

    #[test]
    fn who_sent_something_between_two_answers_was_heard_of() {
        let now = Instant::now();
        let mut counting = Counting::default();
        let mut ask = |xid: u32, counts: [u64; 2]| {
            counting.asked_seen = Some((Xid(xid), now));
            let first = counting.told_seen(Xid(xid), vec![source(1, 1, counts[0])], true).unwrap();
            let second = counting.told_seen(Xid(xid), vec![source(2, 2, counts[1])], false).unwrap();
            assert!(counting.asked_seen.is_none());
            first.into_iter().chain(second).map(|(owner, port, _)| (owner, port.0)).collect::<Vec<_>>()
        };
        assert_eq!(ask(1, [5, 5]), [], "nobody knows when");
        assert_eq!(ask(2, [5, 6]), [(OWNER, 2)]);
        assert_eq!(ask(3, [7, 6]), [(OWNER, 1)]);
        assert_eq!(ask(4, [1, 6]), [], "an entry that was made anew");
        let unasked = counting.told_seen(Xid(4), vec![source(1, 1, 9)], false);
        assert!(unasked.is_err_and(|flows| flows.len() == 1), "somebody else's answer");
        let foreign = FlowStats { cookie: Cookie(0), ..source(1, 1, 99) };
        counting.asked_seen = Some((Xid(5), now));
        assert_eq!(counting.told_seen(Xid(5), vec![foreign], false), Ok(Vec::new()));
    }
}
