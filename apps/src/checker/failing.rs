//! What becomes of frames at the bridge of a function: out by its port, or, while one of its ports is down, to another
//! instance or past it, and only where that is allowed.

use openflow::action::{Action, BundleLoad, Members};
use openflow::oxm::{FieldId, Oxm};
use openflow::types::PortNo;

use super::Property;
use super::entries::{Entry, Scan};
use super::look::Changed;
use super::surroundings::{Behind, entrance};
use crate::allocation::Numbers;
use crate::attachment::ServicePort;
use crate::marks::{Direction, Mode, Waypoint, metadata};
use crate::pipeline::{CLASSIFY, STEER};
use crate::policy::{Function, FunctionKind, Instance, OnFailure};

impl<'a> Scan<'_, 'a> {
    /// An entry that asks which of an instance's ports are live.
    pub(super) fn asks(&mut self, entry: &Entry<'_>, function: &Function, instance: &Instance) {
        let wanted = [(&instance.ingress, 0), (&instance.egress, 16)];
        let asked = |(action, (name, shift)): (&Action, (&String, u16))| match action {
            Action::BundleLoad(BundleLoad { members, range, dst }) => {
                let first = members.members.first().copied();
                first.is_some_and(|port| {
                    *members == Members::first_live([port]) && self.is(entry, port, function, instance, name)
                }) && (range.offset(), range.n_bits()) == (shift, 16)
                    && Some(*dst) == FieldId::named("reg2")
            }
            _ => false,
        };
        let actions = entry.does.actions;
        if actions.len() != wanted.len() || !actions.iter().zip(wanted).all(asked) {
            self.tell(entry, Property::Chain, "asks for something else than whether the function's ports are live");
        }
    }

    /// Is it the port of that name of an instance?
    fn is(&self, entry: &Entry<'_>, port: u16, function: &Function, instance: &Instance, wanted: &str) -> bool {
        match self.places.of(entry.here.index, PortNo::of_16_bits(port)) {
            Behind::Function(key, service, name) => {
                let it = (service.function.as_str(), service.instance.as_str(), name);
                self.numbers.is_some_and(|numbers| numbers.key == key)
                    && it == (function.name.as_str(), instance.name.as_str(), wanted)
            }
            _ => false,
        }
    }

    pub(super) fn delivers(&mut self, entry: &Entry<'_>, numbers: Numbers) {
        let Some(told) = self.step(entry, numbers.key) else { return };
        let Some((waypoint, function, instance)) = self.steps.waypoint(told) else {
            return self.tell(entry, Property::Chain, "is for a step that no chain has");
        };
        if entry.does.goto.is_some() || entry.does.write.is_some() {
            self.tell(entry, Property::Chain, "leads frames on past the function that they are on their way to");
        }
        match entry.does.actions {
            [
                Action::SetField(Oxm::Metadata(value, None)),
                Action::Resubmit { in_port: Action::SAME_PORT, table: STEER },
            ] => {
                self.diverts(entry, numbers, waypoint, (function, instance), *value);
            }
            [
                Action::RegLoad { range, dst: FieldId::IN_PORT_16, value: port },
                Action::SetField(Oxm::Metadata(value, None)),
                Action::Resubmit { in_port: Action::SAME_PORT, table: CLASSIFY },
            ] if (range.offset(), range.n_bits()) == (0, 16) => {
                let exit = match waypoint.direction {
                    Direction::Forward => Direction::Reverse,
                    Direction::Reverse => Direction::Forward,
                };
                let may = function.on_failure == OnFailure::Bypass && function.kind != FunctionKind::Tap;
                let out = self.is(entry, *port as u16, function, instance, entrance(instance, exit));
                let on = *value == u64::from(numbers.key) | metadata::DIVERTED;
                if !(may && out && on && entry.seen.dead()) {
                    self.tell(
                        entry,
                        Property::Chain,
                        "leads frames past a function that works, or may not be left out",
                    );
                }
            }
            _ => {
                let fits = |service: &ServicePort, name: &str, changed: &Changed| {
                    let it = (service.function.as_str(), service.instance.as_str(), name);
                    let address = (function.kind == FunctionKind::Routed).then_some(instance.mac).flatten();
                    it == (&function.name, &instance.name, entrance(instance, waypoint.direction))
                        && *changed == Changed { destination: address, ..Changed::default() }
                };
                self.leave(entry, numbers, Mode::Waypoint(waypoint), |_, _| false, fits);
            }
        }
    }

    /// To another instance of the same function, and each only once.
    fn diverts(
        &mut self,
        entry: &Entry<'_>,
        numbers: Numbers,
        waypoint: Waypoint,
        (function, instance): (&Function, &Instance),
        value: u64,
    ) {
        let place = |wanted: &Instance| {
            let at = function.instances.iter().position(|it| it.name == wanted.name);
            at.map(|at| (wanted.drain, at))
        };
        let clean = value & !metadata::STEP == u64::from(numbers.key) | metadata::DIVERTED;
        let fits = match self.steps.waypoint(value) {
            Some((other, theirs, next)) => {
                let again = match entry.seen.told(metadata::DIVERTED) {
                    Some(0) => place(next) == place(instance),
                    Some(_) => place(next) <= place(instance),
                    None => true,
                };
                if again {
                    let what = "sends frames to and fro among instances that are down";
                    self.tell(entry, Property::Loop, what);
                }
                theirs.name == function.name && other.direction == waypoint.direction
            }
            None => false,
        };
        if !fits || !clean || !entry.seen.dead() {
            self.tell(entry, Property::Chain, "sends frames from an instance to something that can't stand in for it");
        }
    }
}
