//! The time after a restart in which bridges come back and links are found, and nothing is changed yet: what bridges hold goes
//! on working, and a fabric that comes back bit by bit isn't to be taken for a smaller one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use apps::attachment::PortUse;
use apps::reconcile::takes_in;
use apps::view::Endpoint;
use openflow::types::DatapathId;

use super::Core;
use super::bridge::Bridge;

/// The bridges from before are awaited for at most this long: Open vSwitch tries again every 8 s (`max_backoff` in
/// ovs-vswitchd.conf.db(5)).
pub(crate) const BRIDGES: Duration = Duration::from_secs(10);

/// When they are all back, their links get at least this long to be found: whoever has just started is slow.
const LINKS: Duration = Duration::from_millis(400);

/// Links that bridges use get at least this long: without one, all that it carries would move, and back when it is found.
const USED: Duration = Duration::from_millis(1500);

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// So many of the bridges that are awaited are named.
const AWAITED_TOLD: usize = 5;

/// What is waited for.
#[derive(Debug)]
pub(crate) struct Settling {
    bridges: BTreeSet<DatapathId>,
    until: Instant,
    /// When all bridges are back: since when, and ports at which links are used by what they hold and aren't found yet.
    back: Option<(Instant, BTreeSet<Endpoint>)>,
    look: Instant,
}

impl Settling {
    /// These bridges were there before.
    pub(crate) fn after(now: Instant, bridges: BTreeSet<DatapathId>) -> Option<Self> {
        (!bridges.is_empty()).then_some(Self { bridges, until: now + BRIDGES, back: None, look: now })
    }

    /// When it has to be looked whether it is over.
    pub(crate) fn deadline(&self) -> Instant {
        self.until.min(self.look)
    }
}

impl Core {
    /// Is something from before a restart still waited for?
    pub(super) fn is_settling(&mut self, now: Instant) -> bool {
        let Some(mut settling) = self.settling.take() else { return false };
        settling.bridges.retain(|dpid| !self.bridges.get(dpid).is_some_and(Bridge::is_responsive));
        if settling.bridges.is_empty() {
            let (since, used) = settling.back.get_or_insert_with(|| (now, self.used_links()));
            for (a, b) in self.topology.known().iter().filter(|(_, known)| known.is_up()).map(|(ends, _)| ends) {
                used.remove(a);
                used.remove(b);
            }
            let interval = self.topology.interval();
            let pause = if used.is_empty() { LINKS.max(interval * 2) } else { USED.max(interval * 4) };
            settling.until = *since + pause;
        }
        if now >= settling.until {
            return false;
        }
        settling.look = now + LOOK;
        self.settling = Some(settling);
        true
    }

    /// Ports where bridges take in what comes over a link, by what they hold, and could.
    fn used_links(&self) -> BTreeSet<Endpoint> {
        let mut used = BTreeSet::new();
        for (dpid, bridge) in &self.bridges {
            let ports = bridge.installed.values().flat_map(|section| takes_in(section));
            let places = ports.map(|port| Endpoint { bridge: *dpid, port });
            used.extend(places.filter(|place| {
                *self.attachments.of(*place) == PortUse::Candidate
                    && bridge.ports.get(&place.port).is_some_and(|port| port.is_up())
            }));
        }
        used
    }

    /// The one thing to say meanwhile.
    pub(super) fn still_settling(&self, now: Instant, settling: &Settling) -> String {
        let left = settling.until.saturating_duration_since(now).as_secs_f64().ceil();
        let awaited: Vec<String> = settling.bridges.iter().take(AWAITED_TOLD).map(|dpid| self.name_of(*dpid)).collect();
        let more = match settling.bridges.len().saturating_sub(AWAITED_TOLD) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let what = match awaited.as_slice() {
            [] => "links are being found".to_owned(),
            names => format!("bridges that were here before are awaited ({}{more})", names.join(", ")),
        };
        format!("still finding the fabric after a start: {what}; nothing is changed for at most {left:.0} s more")
    }
}
