//! What bridges tell: packets, ports, answers.

use std::time::Instant;

use apps::attachment::PortUse;
use apps::limits;
use apps::marks::{Owner, PROBE_KEY};
use apps::pipeline::{ADMIT, GUARD, LEARN};
use apps::view::{Carrier, Endpoint};
use openflow::experimenter::{Experimenter, ExperimenterReply};
use openflow::flow::{FlowRemoved, FlowRemovedReason};
use openflow::message::Message;
use openflow::multipart::{MultipartFlags, MultipartReply, Part};
use openflow::oxm::Oxm;
use openflow::packet::PacketIn;
use openflow::types::{DatapathId, MacAddr, PortNo, Xid};

use super::probe::Probe;
use super::topology::Refusal;
use super::trials::bears_tunnel;
use super::{Core, Level, SessionId};

impl Core {
    pub(super) fn message(&mut self, now: Instant, session: SessionId, xid: Xid, message: Message) {
        let Some(&dpid) = self.sessions.get(&session) else { return };
        self.heard(now, dpid);
        match message {
            Message::PacketIn(packet) => self.packet_in(now, dpid, &packet),
            Message::PortStatus(status) => self.port_status(now, dpid, status),
            Message::BarrierReply(_) => {
                self.awake(now, dpid, xid);
                self.acknowledged(now, dpid, xid);
            }
            Message::Experimenter(Experimenter::BundleControl(control)) => {
                if let Some(connection) = self.bridges.get_mut(&dpid).and_then(|bridge| bridge.connection.as_mut()) {
                    connection.bundle_told(xid, control.kind);
                }
            }
            Message::MultipartReply(Part { flags, body: MultipartReply::Meter(meters) }) => {
                let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
                let Some(connection) = &mut bridge.connection else { return };
                for port in connection.counting.told(xid, meters, flags.contains(MultipartFlags::MORE)) {
                    self.floods(now, Endpoint { bridge: dpid, port });
                }
            }
            Message::MultipartReply(Part {
                body: MultipartReply::Experimenter(ExperimenterReply::FlowMonitor(mut updates)),
                ..
            }) => {
                let Some(bridge) = self.bridges.get(&dpid) else { return };
                let Some(connection) = &bridge.connection else { return };
                updates.retain(|update| update.table().is_none_or(|table| connection.is_for_controllers(table)));
                self.drifted(now, dpid, updates);
            }
            Message::MultipartReply(Part { flags, body: MultipartReply::Flow(mut flows) }) => {
                let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
                let Some(connection) = &mut bridge.connection else { return };
                flows.retain(|flow| connection.is_for_controllers(flow.table));
                let more = flags.contains(MultipartFlags::MORE);
                let Err(flows) = connection.counting.told_flows(xid, flows, more) else { return };
                let Err(flows) = connection.unreads.told(now, xid, flows, more) else { return };
                let flows = match connection.counting.told_seen(xid, flows, more) {
                    Ok(heard) => return self.heard_of(now, dpid, heard),
                    Err(flows) => flows,
                };
                self.told(now, dpid, xid, Part { flags, body: MultipartReply::Flow(flows) });
            }
            Message::MultipartReply(part) => self.told(now, dpid, xid, part),
            Message::RoleReply(reply) => self.role_told(now, dpid, xid, reply),
            Message::Error(error) if self.role_refused(dpid, xid, error.code) => {}
            Message::Error(error) => self.refused(now, dpid, xid, &error),
            Message::FlowRemoved(gone) => self.flow_removed(dpid, &gone),
            // Nothing else was asked for.
            _ => {}
        }
    }

    /// Hosts of a bridge have sent something.
    fn heard_of(&mut self, now: Instant, dpid: DatapathId, hosts: Vec<(Owner, PortNo, MacAddr)>) {
        for (owner, port, mac) in hosts {
            let tenant = self.tenant_of(owner).map(str::to_owned);
            tenant.into_iter().for_each(|tenant| self.hosts.seen(now, &tenant, mac, Endpoint { bridge: dpid, port }));
        }
    }

    /// A part of what a bridge's tables hold.
    fn told(&mut self, now: Instant, dpid: DatapathId, xid: Xid, part: Part<MultipartReply>) {
        match self.bridges.get_mut(&dpid) {
            Some(bridge) if bridge.reads(xid) => {
                if bridge.read(xid, part) {
                    self.tables_read(now, dpid);
                }
            }
            _ => self.poll_told(now, dpid, xid, part),
        }
    }

    pub(super) fn tables_too_long(&mut self, now: Instant, session: SessionId) {
        if let Some(&dpid) = self.sessions.get(&session) {
            self.give_up(now, dpid, "it tells of its tables without end".to_owned());
        }
    }

    fn packet_in(&mut self, now: Instant, dpid: DatapathId, packet: &PacketIn) {
        let Some(port) = packet.matching.in_port() else { return };
        let place = Endpoint { bridge: dpid, port };
        match packet.table {
            ADMIT => self.probe_in(now, place, packet),
            GUARD => self.claimed(now, place, &packet.data),
            LEARN if self.is_link_by_tunnel(now, place, packet) => {}
            LEARN => self.learn(now, place, &packet.data),
            _ => {}
        }
    }

    fn probe_in(&mut self, now: Instant, at: Endpoint, packet: &PacketIn) {
        if self.attachments.service(at).is_some() {
            return self.function_probe_in(now, at, &packet.data);
        }
        let probe = Probe::decode(&self.probe_key, &packet.data);
        if let Some(probe) = &probe {
            self.hears(now, at, probe, bears_tunnel(packet));
        }
        let here = self.port_name(at);
        let both = |probe: &Probe| [at, probe.from].iter().all(|it| *self.attachments.of(*it) == PortUse::Candidate);
        let Some(probe) = probe.filter(both) else {
            let tenant = self.attachments.tenant(at).map(|attached| attached.tenant.clone());
            match (probe, tenant) {
                (Some(probe), Some(_))
                    if self.attachments.by_pattern(at).is_some() || self.loops.probed().any(|it| it == probe.from) => {}
                (Some(probe), Some(tenant)) => {
                    let from = self.port_name(probe.from);
                    self.problem(now, at.bridge, &format!("probes of {from} arrive at {here}, a port of tenant {tenant}: no link there; somebody joins the two"));
                }
                (None, Some(tenant)) => {
                    let text =
                        format!("{here}, a port of tenant {tenant}, sends probes of links that aren't ours: ignored");
                    self.problem(now, at.bridge, &text);
                }
                (None, None) => {
                    let text =
                        format!("{here} hears probes of links that aren't ours, perhaps another controller's: ignored");
                    self.notice_of(now, at.bridge, Level::Info, &text);
                }
                (Some(_), None) => {}
            }
            return;
        };
        if probe.size > 0 {
            return self.size_probe_in(now, probe, at, packet);
        }
        let carrier = match packet.matching.tunnel_id() {
            Some(key) if key == u64::from(PROBE_KEY) => Carrier::Tunnel,
            // A tunnel without key tells no tenants apart; it takes tags as a cable does.
            None | Some(0) => Carrier::Vlan,
            Some(key) => Carrier::Dedicated(u32::try_from(key).unwrap_or(u32::MAX)),
        };
        match self.topology.arrived(now, probe.from, probe.number, at, carrier) {
            Ok(true) => self.links_changed(now),
            Ok(false) => {}
            Err(Refusal::Twice) => {
                let from = self.port_name(probe.from);
                self.problem(now, at.bridge, &format!("a probe of {from} arrived once more at {here}: a copy; somebody replays frames, or a loop lies between the two"));
            }
            Err(Refusal::Stale) => {}
        }
    }

    /// A port sent more to everybody than it may.
    fn floods(&mut self, now: Instant, place: Endpoint) {
        let Some(limit) = limits::of_floods(place, &self.policy, &self.attachments) else { return };
        let text = format!(
            "{} floods: of what it sends to everybody, all beyond {limit} is dropped; look for a loop or a scanner behind it, \
             or raise flood_limit if that is right",
            self.port_name(place)
        );
        self.problem(now, place.bridge, &text);
    }

    fn flow_removed(&mut self, dpid: DatapathId, gone: &FlowRemoved) {
        if gone.table != LEARN || gone.reason != FlowRemovedReason::IdleTimeout {
            return;
        }
        let Some(owner) = self.entry_went(dpid, gone) else { return };
        let Some(tenant) = self.tenant_of(owner).map(str::to_owned) else { return };
        let source = gone.matching.fields().iter().find_map(|field| match field {
            Oxm::EthSrc(mac, None) => Some(*mac),
            _ => None,
        });
        if let (Some(mac), Some(port)) = (source, gone.matching.in_port())
            && self.hosts.silent(&tenant, mac, Endpoint { bridge: dpid, port })
        {
            self.rounds.dirty.insert(owner);
        }
    }
}
