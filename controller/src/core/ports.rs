//! Ports of bridges: they come, go, and change their numbers. Entries speak of numbers alone, and a number that is free is given
//! to the next port; so what was made for a port goes as soon as it is known that its number is no longer its own.

use std::collections::BTreeSet;
use std::time::Instant;

use apps::reconcile::closing;
use apps::view::Endpoint;
use openflow::peer::PORTS_MAX;
use openflow::port::{PortReason, PortStatus};
use openflow::switch::Role;
use openflow::types::{DatapathId, PortNo};

use super::bridge::is_port;
use super::rounds::NO_ROUND;
use super::{Core, Effect, Level};

impl Core {
    pub(super) fn port_status(&mut self, now: Instant, dpid: DatapathId, status: PortStatus) {
        let place = Endpoint { bridge: dpid, port: status.port.number };
        let name = status.port.name.text().into_owned();
        let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
        let told_liveness = bridge.tells_liveness;
        let before = bridge.ports.get(&place.port).map(|record| record.port.name.clone());
        let changed = match status.reason {
            _ if !is_port(place.port) => false,
            PortReason::Delete => bridge.ports.remove(&place.port).is_some(),
            PortReason::Add | PortReason::Modify if bridge.has_room(place.port) => bridge.set_port(status.port),
            PortReason::Add | PortReason::Modify => {
                let text =
                    format!("bridge {} has {PORTS_MAX} ports: further ones aren't taken into account", bridge.name);
                return self.problem(now, dpid, &text);
            }
            PortReason::Unknown(_) => false,
        };
        let turned = bridge.tells_liveness && !told_liveness;
        if turned {
            // The others counted by their carrier until now.
            for (port, record) in bridge.ports.iter().filter(|(_, record)| !record.is_up()) {
                self.topology.port_down(Endpoint { bridge: dpid, port: *port }, record.sign());
            }
        }
        if !changed {
            if turned {
                self.links_changed(now);
                self.refresh_due = true;
            }
            return;
        }
        let after = bridge.ports.get(&place.port).map(|record| record.port.name.clone());
        let mut others = BTreeSet::new();
        if before != after {
            others.extend(before.is_some().then_some(place.port));
            // A port that comes may have had another number a moment ago, which somebody else gets.
            let namesakes = bridge.ports.iter().filter(|(_, record)| Some(&record.port.name) == after.as_ref());
            others.extend(namesakes.map(|(number, _)| *number).filter(|number| *number != place.port));
        }
        let bridge_name = bridge.name.clone();
        if before.is_some() && after.is_none() {
            self.link_removed(now, place, &format!("{bridge_name}/{name}"));
        }
        let Some(bridge) = self.bridges.get(&dpid) else { return };
        let state = match bridge.ports.get(&place.port) {
            None => "is gone",
            Some(port) if port.is_up() => "is up",
            Some(record) => {
                self.topology.port_down(place, record.sign());
                "is down"
            }
        };
        self.close_ports(now, dpid, &others);
        self.notice_of(now, dpid, Level::Info, &format!("port {bridge_name}/{name} {state}"));
        self.links_changed(now);
        self.refresh_due = true;
    }

    /// These numbers are no longer the ports' that they were: nothing of what was made for those lets frames in or out any
    /// more, whatever else is under way. What the ports that have them now are to get comes with the next round.
    pub(super) fn close_ports(&mut self, now: Instant, dpid: DatapathId, ports: &BTreeSet<PortNo>) {
        if ports.is_empty() {
            return;
        }
        for port in ports {
            self.topology.forget(Endpoint { bridge: dpid, port: *port });
        }
        self.hosts.retain(|_, place| place.bridge != dpid || !ports.contains(&place.port));
        self.rounds.all_dirty = true;
        let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
        let Some(connection) = bridge.connection.as_ref().filter(|it| it.role != Role::Slave) else { return };
        let reads = connection.reading.is_some();
        // What is under way may add to what is there. It can't be called back, so all of it is undone behind it.
        let mut expected = bridge.installed.clone();
        let flying = connection.in_flight.values().flat_map(|flight| flight.changes.values());
        let any_flies = flying.map(|change| change.apply(&mut expected)).count() > 0;
        let first = closing(&bridge.installed, ports);
        first.iter().for_each(|change| change.apply(&mut bridge.installed));
        let then = if any_flies { closing(&expected, ports) } else { Vec::new() };
        if !first.is_empty()
            && let Some((session, messages)) = bridge.send(now, NO_ROUND, first)
        {
            self.effects.push(Effect::SendFirst { session, messages });
        }
        if !then.is_empty()
            && let Some((session, messages)) = bridge.send(now, NO_ROUND, then)
        {
            self.effects.push(Effect::Send { session, messages });
        }
        if reads {
            // What it has told so far may be from before.
            self.read_tables(now, dpid);
        }
    }

    /// Numbers passed from one port to another while nobody looked. That one is nobody's any more is nothing to tell.
    pub(super) fn numbers_passed(&mut self, now: Instant, dpid: DatapathId, ports: &BTreeSet<PortNo>) {
        self.close_ports(now, dpid, ports);
        let Some(bridge) = self.bridges.get(&dpid) else { return };
        let name = |port: &PortNo| Some(format!("{port} ({})", bridge.ports.get(port)?.port.name.text()));
        let taken: Vec<String> = ports.iter().filter_map(name).collect();
        if !taken.is_empty() {
            let text = format!(
                "bridge {}: the numbers of ports {} were other ports' until now; what was made for those was taken away at \
                 once. Give every port a number of its own (ovs-vsctl set interface PORT ofport_request=N): while the \
                 controller is away, nobody can keep a number from passing to another tenant",
                bridge.name,
                taken.join(", ")
            );
            self.problem(now, dpid, &text);
        }
    }
}
