//! What a bridge does by itself when a port of a service function goes down, whether or not a controller is there to see it:
//! frames for an instance of which a port is down go to another one at the same bridge, and where none is left, they are
//! dropped, or go on as if they came out of the function.
//!
//! `steer` asks which of the instance's two ports are live, `deliver` matches the answer. Open vSwitch asks anew as soon as a
//! port changes. Groups of type fast failover can't do this: a bucket watches one port, or lives if one of two does. And
//! being entries alone, this changes together with all other entries.

use std::collections::BTreeSet;

use openflow::action::{Action, BitRange, BundleLoad, Members};
use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::oxm::{FieldId, Oxm};
use openflow::types::{DatapathId, PortNo};

use crate::chains::{Chains, steered};
use crate::desired::{Flow, FlowKey, SectionBuilder, apply, drop};
use crate::marks::{Direction, metadata, step_of};
use crate::pipeline::{CLASSIFY, DELIVER, STEER};
use crate::policy::{Function, FunctionKind, OnFailure};
use crate::services::Placed;

/// Where in register 2 `steer` writes which port is live: the ingress, and the egress.
const INGRESS: u16 = 0;
const EGRESS: u16 = 16;

/// What `bundle_load` writes where no port is live.
const DEAD: u32 = 0xffff;

/// An instance at a bridge.
#[derive(Clone, Copy)]
struct Local<'a> {
    placed: &'a Placed<'a>,
    ingress: u16,
    egress: u16,
}

impl<'a> Local<'a> {
    /// The instance, if both its ports are at this bridge and it isn't known to let nothing through. Whether they are up the
    /// bridge sees for itself, sooner than anybody else.
    fn of(placed: &'a Placed<'a>, at: DatapathId) -> Option<Self> {
        let port = |direction| placed.ingress(direction).filter(|place| place.bridge == at)?.port.in_16_bits();
        let (ingress, egress) = (port(Direction::Forward)?, port(Direction::Reverse)?);
        (!placed.hangs).then_some(Self { placed, ingress, egress })
    }

    /// What register 2 holds if both ports are live.
    fn live(&self) -> u32 {
        u32::from(self.ingress) << INGRESS | u32::from(self.egress) << EGRESS
    }

    /// What it holds if one isn't, with masks.
    fn dead(&self) -> impl Iterator<Item = (u32, u32)> {
        let halves = [INGRESS, EGRESS].into_iter().take(if self.ingress == self.egress { 1 } else { 2 });
        halves.map(|shift| (DEAD << shift, DEAD << shift))
    }

    /// The port that frames come out of which went in this way.
    fn exit(&self, direction: Direction) -> u16 {
        match direction {
            Direction::Forward => self.egress,
            Direction::Reverse => self.ingress,
        }
    }

    fn step(&self, key: u32, direction: Direction) -> u64 {
        metadata::step(key, step_of(self.placed.numbers.key), direction)
    }
}

/// What tells frames that go in by a port of an instance, in the table that lets them out there; `None`: it can't be reached.
pub fn delivered(key: u32, placed: &Placed<'_>, direction: Direction) -> Option<FlowKey> {
    let local = Local::of(placed, placed.ingress(direction)?.bridge)?;
    let step = Oxm::Metadata(local.step(key, direction), Some(metadata::TENANT | metadata::STEP));
    Some(FlowKey { table: DELIVER, priority: 10, matching: Match::new([step, Oxm::Reg2(local.live(), None)]) })
}

/// The ports of which an entry asks whether they are live, each once.
pub(crate) fn asked(flow: &Flow) -> BTreeSet<PortNo> {
    let applied = flow.instructions.iter().filter_map(|it| match it {
        Instruction::ApplyActions(actions) => Some(actions),
        _ => None,
    });
    let members = applied.flatten().filter_map(|action| match action {
        Action::BundleLoad(load) => Some(&load.members.members),
        _ => None,
    });
    members.flatten().map(|port| PortNo::of_16_bits(*port)).collect()
}

/// The entries that let frames out to the instances at a bridge, and say what becomes of those for one that is down.
pub(crate) fn compile(builder: &mut SectionBuilder, key: u32, chains: &Chains<'_>, at: DatapathId) {
    for (name, direction) in chains.used() {
        let Some(service) = chains.services().get(name) else { continue };
        let mut locals: Vec<Local<'_>> = service.instances.iter().filter_map(|it| Local::of(it, at)).collect();
        // One that drains only stands in if nobody else can.
        locals.sort_by_key(|local| local.placed.instance.drain);
        for (index, local) in locals.iter().enumerate() {
            let (Some(ask), Some(out)) = (ask(local), delivered(key, local.placed, direction)) else { continue };
            let FlowKey { table, priority, matching } = steered(key, local.placed.waypoint(direction));
            builder.about(&local.placed.instance.origin).flow(table, priority, matching.fields().iter().cloned(), ask);
            let FlowKey { table, priority, matching } = out;
            builder.flow(table, priority, matching.fields().iter().cloned(), let_out(local, direction));
            let other = locals.iter().enumerate().find(|(other, _)| *other != index).map(|(_, other)| other);
            let later = locals.get(index + 1);
            builder.about(&service.function.origin);
            let last = || fail(service.function, key, local, direction);
            let mut otherwise = |step: u64, mask: u64, instructions: Vec<Instruction>| {
                for (value, dead) in local.dead() {
                    let fields = [Oxm::Metadata(step, Some(mask)), Oxm::Reg2(value, Some(dead))];
                    builder.flow(DELIVER, priority, fields, instructions.clone());
                }
            };
            let (step, mask) = (local.step(key, direction), metadata::TENANT | metadata::STEP);
            let Some(other) = other else {
                otherwise(step, mask, last());
                continue;
            };
            // From the first one on, all that are there are tried, each once.
            otherwise(step, mask | metadata::DIVERTED, divert(other.step(key, direction)));
            let then = later.map_or_else(last, |later| divert(later.step(key, direction)));
            otherwise(step | metadata::DIVERTED, mask | metadata::DIVERTED, then);
        }
    }
}

/// Which of its ports are live?
fn ask(local: &Local<'_>) -> Option<Vec<Instruction>> {
    let dst = FieldId::named("reg2")?;
    let load = |port: u16, shift: u16| {
        let range = BitRange::new(shift, 16)?;
        Some(Action::BundleLoad(BundleLoad { members: Members::first_live([port]), range, dst }))
    };
    let loads = vec![load(local.ingress, INGRESS)?, load(local.egress, EGRESS)?];
    Some(vec![Instruction::ApplyActions(loads), Instruction::GotoTable(DELIVER)])
}

/// To the function's port, and to its own address, if it routes.
fn let_out(local: &Local<'_>, direction: Direction) -> Vec<Instruction> {
    let mac = local.placed.instance.mac.map(|mac| Action::SetField(Oxm::EthDst(mac, None)));
    let port = local.placed.ingress(direction).map(|place| Action::output(place.port));
    apply(mac.into_iter().chain(port).collect())
}

/// To another instance.
fn divert(step: u64) -> Vec<Instruction> {
    apply(vec![Action::SetField(Oxm::Metadata(step | metadata::DIVERTED, None)), Action::resubmit(STEER)])
}

/// No instance is left here: what the policy says then. What goes on does so by the entries of the port that it would have come
/// out of.
fn fail(function: &Function, key: u32, local: &Local<'_>, direction: Direction) -> Vec<Instruction> {
    let range = BitRange::new(0, 16).filter(|_| {
        // Who gets copies has none to give back.
        function.on_failure == OnFailure::Bypass && function.kind != FunctionKind::Tap
    });
    let Some(range) = range else { return drop() };
    apply(vec![
        Action::RegLoad { range, dst: FieldId::IN_PORT_16, value: local.exit(direction).into() },
        Action::SetField(Oxm::Metadata(metadata::link(key) | metadata::DIVERTED, None)),
        Action::resubmit(CLASSIFY),
    ])
}
