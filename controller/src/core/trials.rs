//! What is behind a port that a tenant's pattern matches. Tunnels and cables may be called like a tenant's ports, and a flood into
//! one would come back by the others. So such a port is tried with probes before it is the tenant's, and stays a link's, or
//! nobody's, if they show that it leads to another port. That a frame came through a tunnel no station can feign; that probes
//! pass from one port to another it can, so by these alone it loses its ports, and makes no link of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use apps::attachment::PortUse;
use apps::view::{Behind, Endpoint};
use openflow::oxm::Oxm;
use openflow::packet::PacketIn;

use super::probe::Probe;
use super::{Core, Level};

/// For how long a port is tried at least: a tunnel may lose the first frame, while it asks for its far end's address.
const TRIAL: Duration = Duration::from_millis(200);

/// And for so many probes.
const PROBES: u32 = 4;

impl Core {
    /// Of the ports that probes go out by, those that a pattern matches are tried from now on, unless they are already.
    pub(super) fn try_ports(&mut self, now: Instant, probed: &BTreeSet<Endpoint>) {
        let until = now + TRIAL.max(self.topology.interval() * PROBES);
        let tried = probed.iter().filter(|place| matches!(self.attachments.of(**place), PortUse::Untried(_)));
        let tried: BTreeMap<_, _> =
            tried.map(|place| (*place, self.trials.get(place).copied().unwrap_or(until))).collect();
        self.trials = tried;
    }

    /// Ports at which no probe was heard for long enough are what the policy says.
    pub(super) fn end_trials(&mut self, now: Instant) {
        let ended: Vec<Endpoint> = self.trials.iter().filter(|(_, until)| **until <= now).map(|(it, _)| *it).collect();
        for place in ended {
            self.trials.remove(&place);
            self.set_behind(place, |behind| behind.untried = false);
            self.refresh_due = true;
        }
    }

    /// Is nothing under way, and is it known of every port what it is for?
    pub(super) fn is_at_rest(&self) -> bool {
        self.rounds.is_idle() && self.trials.is_empty() && !self.refresh_due
    }

    /// Another policy: what joined two ports may be gone.
    pub(super) fn forget_probes_heard(&mut self) {
        let ports = self.bridges.values_mut().flat_map(|bridge| bridge.ports.values_mut());
        for record in ports.filter(|record| record.behind.probes) {
            record.behind = Behind { untried: true, probes: false, ..record.behind };
        }
    }

    /// A probe came in.
    pub(super) fn hears(&mut self, now: Instant, at: Endpoint, probe: &Probe, tunnel: bool) {
        // What anybody could have kept and sent again tells nothing.
        if !self.topology.is_outstanding(probe.from, probe.number) {
            return;
        }
        if !tunnel && self.loop_heard(now, at, probe.from) {
            return;
        }
        let both = [(at, tunnel), (probe.from, false)];
        // What comes through a tunnel was sent into one: of the sender its own packets tell.
        for (place, tunnel) in both.into_iter().filter(|(place, _)| *place == at || !tunnel) {
            self.is_no_station(now, place, |behind| {
                behind.probes = true;
                behind.tunnel |= tunnel;
            });
        }
    }

    /// Did a frame that came in by a port that a pattern gave to a tenant come through a tunnel? Then it is no station's.
    pub(super) fn is_link_by_tunnel(&mut self, now: Instant, place: Endpoint, packet: &PacketIn) -> bool {
        if !bears_tunnel(packet) || self.attachments.by_pattern(place).is_none() {
            return false;
        }
        self.is_no_station(now, place, |behind| behind.tunnel = true);
        true
    }

    /// Something is known of what is behind a port. If a pattern gave it to a tenant, it is taken away at once.
    fn is_no_station(&mut self, now: Instant, place: Endpoint, learn: impl Fn(&mut Behind)) {
        if !self.set_behind(place, learn) {
            return;
        }
        let Some(attached) = self.attachments.by_pattern(place) else { return };
        let text = format!(
            "{} leads to another port or through a tunnel: it is no port of tenant {} although a pattern of its matches ({})",
            self.port_name(place),
            attached.tenant,
            attached.selector.origin
        );
        self.notice_of(now, place.bridge, Level::Info, &text);
        if self.attachments.tenant(place).is_some() {
            self.close_ports(now, place.bridge, &BTreeSet::from([place.port]));
        }
        self.refresh_due = true;
    }

    /// `true`: that is new.
    fn set_behind(&mut self, place: Endpoint, learn: impl Fn(&mut Behind)) -> bool {
        let record = self.bridges.get_mut(&place.bridge).and_then(|bridge| bridge.ports.get_mut(&place.port));
        let Some(record) = record else { return false };
        let before = record.behind;
        learn(&mut record.behind);
        let port = self.view.bridges.get_mut(&place.bridge).and_then(|bridge| bridge.ports.get_mut(&place.port));
        if let Some(port) = port {
            port.behind = record.behind;
        }
        record.behind != before
    }
}

/// Did this come through a tunnel, keyed or not (`NXM_NX_TUN_IPV4_SRC` and the like, ovs-fields(7))?
pub(super) fn bears_tunnel(packet: &PacketIn) -> bool {
    packet.matching.fields().iter().any(|field| match field {
        Oxm::TunnelId(key, _) => *key != 0,
        Oxm::TunSrc(address, _) | Oxm::TunDst(address, _) => !address.is_unspecified(),
        Oxm::TunIpv6Src(address, _) | Oxm::TunIpv6Dst(address, _) => !address.is_unspecified(),
        _ => false,
    })
}
