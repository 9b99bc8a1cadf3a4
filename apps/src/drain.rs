//! Instances that drain: new connections go to the others, and those that an instance has stay with it.
//!
//! A bridge hashes each connection to a slot. Where a slot goes to one instance by the share of all, and to another by the
//! share without those that drain, it matters whether a frame's connection is new. The bridge finds out by itself, so it goes
//! on when nobody tells it anything: of a TCP segment with the SYN flag it remembers the addresses, the ports and the
//! instance, in an entry that it adds (`learn`, ovs-actions(7)). What it doesn't remember began earlier. Both directions of a
//! connection begin with such a segment, so each is remembered where it enters.

use std::collections::BTreeSet;

use openflow::action::{
    Action, BitRange, Learn, LearnFlags, LearnResult, LearnSource, LearnSpec, LearnSpecs, LearnTarget, LimitedLearn,
};
use openflow::instruction::Instruction;
use openflow::narrow::U12;
use openflow::oxm::{FieldId, Oxm};
use openflow::wire::Octets;

use crate::assigned::ethertype::{IPV4, IPV6};
use crate::assigned::protocol;
use crate::balance::{share, share_new};
use crate::desired::{Flow, FlowKey, SectionBuilder, go};
use crate::interpreter::SYN;
use crate::marks::{Direction, Owner, STEP_MAX, choice, cookie, metadata, step_of};
use crate::pipeline::{BALANCE, BEGIN, BEGUN, DRAIN, STEER};
use crate::services::Service;

/// Seconds without a segment after which a connection is forgotten. TCP asks a silent peer whether it is still there after two
/// hours (RFC 1122 §4.2.3.6).
const IDLE: u16 = 7800;

/// Seconds without a segment after which one is forgotten that was ended.
const ENDED_IDLE: u16 = 10;

/// How many directions of connections a bridge remembers for a function. What it tells of its tables has a bound, and this
/// comes to a fifth of it.
const REMEMBERED_MAX: u32 = 8192;

const PRIORITY: u16 = 10;

/// The entries that choose among a function's instances at a bridge, from which those with these indexes can be reached.
pub(crate) fn choose(
    builder: &mut SectionBuilder,
    owner: Owner,
    service: &Service<'_>,
    side: Direction,
    candidates: &[usize],
) {
    let all: Vec<_> = service.instances.iter().map(|it| (it.instance.name.as_str(), it.instance.weight)).collect();
    let takes_new: Vec<usize> =
        (0..all.len()).filter(|at| service.instances.get(*at).is_some_and(|it| !it.instance.drain)).collect();
    let here = step_of(service.numbers.key);
    let told = Oxm::Metadata(metadata::step(owner.0, here, side), Some(metadata::TENANT | metadata::STEP));
    let step = |at: usize| service.instances.get(at).map(|placed| step_of(placed.numbers.key));
    let to = |step| {
        let metadata = metadata::step(owner.0, step, side);
        vec![Instruction::WriteMetadata { metadata, mask: u64::MAX }, Instruction::GotoTable(STEER)]
    };
    builder.about(&service.function.origin);
    let kept = share(&all, candidates);
    let new = share_new(&all, candidates, &takes_new);
    for (slot, (kept, new)) in (0..).zip(kept.iter().zip(&new)) {
        let (Some(kept), Some(new)) = (step(*kept), step(*new)) else { continue };
        let both = Action::SetField(Oxm::Reg1(choice::of(new, kept), None));
        let then = if kept == new {
            to(new)
        } else {
            vec![Instruction::ApplyActions(vec![both]), Instruction::GotoTable(BEGIN)]
        };
        builder.flow(BALANCE, 10, [told.clone(), Oxm::Reg0(slot, None)], then);
    }
    if kept == new {
        return;
    }
    let draining = candidates.iter().filter_map(|at| service.instances.get(*at)).find(|it| it.instance.drain);
    builder.about(draining.map_or(&service.function.origin, |placed| &placed.instance.origin));
    begin(builder, owner, here, &told);
    let set = |all: &[usize]| all.iter().filter_map(|at| step(*at)).collect::<BTreeSet<u16>>();
    for new in set(&new) {
        // A new connection; else one that is remembered for an instance which is there no more.
        for (priority, begun) in [(20, choice::BEGUN), (1, 0)] {
            let fields = [told.clone(), Oxm::Reg1(choice::of(new, 0) | begun, Some(choice::NEW | begun))];
            builder.flow(DRAIN, priority, fields, to(new));
        }
    }
    for kept in set(candidates) {
        let fields = [told.clone(), Oxm::Reg1(choice::of(0, kept), Some(choice::KEPT))];
        builder.flow(DRAIN, 10, fields, to(kept));
    }
}

/// The entries that find out whether a frame's connection is new.
fn begin(builder: &mut SectionBuilder, owner: Owner, step: u16, told: &Oxm) {
    let syn = U12::low(SYN);
    for family in [IPV4, IPV6] {
        let segment = |flags| {
            // Of fragments only the first would show flags and ports: they go together, as what has no beginning.
            let tcp = [Oxm::EthType(family, None), Oxm::IpProto(protocol::TCP, None), Oxm::NwFrag(0, Some(1))];
            tcp.into_iter().chain([told.clone(), Oxm::TcpFlags(flags, Some(syn))])
        };
        let then = |action| vec![Instruction::ApplyActions(vec![action]), Instruction::GotoTable(DRAIN)];
        builder.flow(BEGIN, PRIORITY, segment(syn), remember(owner, step, family).map_or_else(|| go(DRAIN), then));
        let look_up = Action::resubmit(BEGUN);
        builder.flow(BEGIN, PRIORITY, segment(U12::low(0)), then(look_up));
    }
    // What has no beginning is new at once.
    if let (Some(dst), Some(range)) = (register(), BitRange::new(choice::BEGUN_BIT, 1)) {
        let new = Action::RegLoad { range, dst, value: 1 };
        builder.flow(
            BEGIN,
            1,
            [told.clone()],
            vec![Instruction::ApplyActions(vec![new]), Instruction::GotoTable(DRAIN)],
        );
    }
}

fn register() -> Option<FieldId> {
    FieldId::named("reg1")
}

/// Remembers a segment's connection, and to which instance it goes. Fields are named as Open vSwitch tells them.
fn remember(owner: Owner, step: u16, family: u16) -> Option<Action> {
    let (metadata, register) = (FieldId::named("metadata")?, register()?);
    let nxm = FieldId::nxm;
    let addresses = match family {
        IPV4 => [nxm(0, 7, 4), nxm(0, 8, 4)],
        _ => [nxm(1, 19, 16), nxm(1, 20, 16)],
    };
    let same = |field, n_bits| LearnSpec {
        n_bits,
        source: LearnSource::Field(field, 0),
        target: LearnTarget::Match(field, 0),
    };
    let fixed = |field, n_bits, value: u16| LearnSpec {
        n_bits,
        source: LearnSource::Immediate(Octets(value.to_be_bytes().to_vec())),
        target: LearnTarget::Match(field, 0),
    };
    let bits = if family == IPV4 { 32 } else { 128 };
    let mut specs =
        vec![same(metadata, 64), fixed(nxm(0, 3, 2), 16, family), fixed(nxm(0, 6, 1), 8, protocol::TCP.into())];
    specs.extend(addresses.map(|field| same(field, bits)));
    specs.extend([nxm(0, 9, 2), nxm(0, 10, 2)].map(|port| same(port, 16)));
    specs.push(LearnSpec {
        n_bits: STEP_BITS,
        source: LearnSource::Field(register, 0),
        target: LearnTarget::Load(register, choice::KEPT_BIT),
    });
    let learn = Learn {
        idle_timeout: IDLE,
        hard_timeout: 0,
        priority: PRIORITY,
        cookie: cookie::begun(owner, BEGUN, step),
        flags: LearnFlags::DELETE_LEARNED | LearnFlags::WRITE_RESULT,
        table: BEGUN,
        fin_idle_timeout: ENDED_IDLE,
        fin_hard_timeout: 0,
        specs: LearnSpecs(specs),
    };
    let result = Some(LearnResult { bit: choice::BEGUN_BIT, field: register });
    Some(Action::LimitedLearn(LimitedLearn { learn, limit: REMEMBERED_MAX, result }))
}

/// How many bits the step of an instance has.
const STEP_BITS: u16 = STEP_MAX.count_ones() as u16;

/// Is it an entry as bridges add them? These aren't the controller's to change; they go with the entry that made them.
pub fn is_begun(key: &FlowKey, flow: &Flow) -> bool {
    use Oxm::{EthType, IpProto, Ipv4Dst, Ipv4Src, Ipv6Dst, Ipv6Src, Metadata, TcpDst, TcpSrc};
    let (metadata, family) = match key.matching.fields() {
        [Metadata(metadata, None), EthType(family, _), IpProto(protocol::TCP, _), ..] => (*metadata, *family),
        _ => return false,
    };
    let ends = match &key.matching.fields()[3..] {
        [Ipv4Src(_, None), Ipv4Dst(_, None), TcpSrc(_, None), TcpDst(_, None)] => family == IPV4,
        [TcpSrc(_, None), TcpDst(_, None), Ipv6Src(_, None), Ipv6Dst(_, None)] => family == IPV6,
        _ => false,
    };
    let owner = Owner(metadata::tenant(metadata));
    let known = Direction::ALL.into_iter().any(|side| {
        let step = (flow.cookie.0 >> 32) as u16 & STEP_MAX;
        metadata == metadata::step(owner.0, step, side) && flow.cookie == cookie::begun(owner, BEGUN, step)
    });
    let goes_to_an_instance = match flow.instructions.as_slice() {
        [Instruction::ApplyActions(actions)] => match actions.as_slice() {
            [ended, Action::RegLoad { range, dst, value }] => {
                *ended == Action::FinTimeout { idle_timeout: ENDED_IDLE, hard_timeout: 0 }
                    && Some(*range) == BitRange::new(choice::KEPT_BIT, STEP_BITS)
                    && Some(*dst) == register()
                    && (1..=u64::from(STEP_MAX)).contains(value)
            }
            _ => false,
        },
        _ => false,
    };
    let lasts = flow.flags.is_empty() && [IDLE, ENDED_IDLE].contains(&flow.idle_timeout);
    key.table == BEGUN && key.priority == PRIORITY && ends && known && goes_to_an_instance && lasts
}

#[cfg(test)]
mod tests {
    use openflow::flow::FlowStats;
    use openflow::matching::Match;
    use openflow::types::PortNo;
    use openflow::wire::Wire;

    use super::*;

    /// What Open vSwitch 3.1.0 tells of what it learnt from a segment over IPv4, and over IPv6, of function 1 of tenant 100.
    const TOLD: [&str; 2] = [
        "00980e00000000013825c780000a1e780000000000000000e50e000100000064000000000000000000000000000000000001003780000a02\
         0800800016040a000001800018040a000002800014010680001a0203e880001c020050800004080000000004000064000004003000000000\
         ffff0010000023200013000a00000000ffff0018000023200007040e000102040000000000000006",
        "00b00e000000000136d61600000a1e780000000000000000e50e000100000064000000000000000000000000000000000001004f80000a02\
         86dd80003410fd00000000000000000000000000000180003610fd000000000000000000000000000002800014010680001a0203e880001c\
         020050800004080000000004000064000004003000000000ffff0010000023200013000a00000000ffff0018000023200007040e00010204\
         0000000000000006",
    ];

    fn told(hex: &str) -> (FlowKey, Flow) {
        let octets: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let (_, it) = FlowStats::parse(&octets).unwrap();
        let FlowStats { table, priority, matching, cookie, idle_timeout, flags, instructions, .. } = it;
        let flow = Flow { cookie, idle_timeout, flags, instructions, hops: 0, origin: None };
        (FlowKey { table, priority, matching }, flow)
    }

    #[test]
    fn what_a_bridge_remembers_is_known_by_its_form_and_nothing_else_is() {
        for (key, flow) in TOLD.map(told) {
            assert!(is_begun(&key, &flow), "{key:?}: {flow:?}");
            let ended = Flow { idle_timeout: ENDED_IDLE, ..flow.clone() };
            assert!(is_begun(&key, &ended));
            let fields = |skip: usize| {
                key.matching
                    .fields()
                    .iter()
                    .enumerate()
                    .filter(move |(at, _)| *at != skip)
                    .map(|(_, field)| field.clone())
            };
            for skip in 0..key.matching.fields().len() {
                let less = FlowKey { matching: Match::new(fields(skip)), ..key.clone() };
                assert!(!is_begun(&less, &flow), "{less:?}");
            }
            let more = Match::new(fields(usize::MAX).chain([Oxm::InPort(PortNo(1), None)]));
            for other in [
                FlowKey { matching: more, ..key.clone() },
                FlowKey { table: DRAIN, ..key.clone() },
                FlowKey { priority: 11, ..key.clone() },
            ] {
                assert!(!is_begun(&other, &flow), "{other:?}");
            }
            let mut instructions = flow.instructions.clone();
            if let Some(Instruction::ApplyActions(actions)) = instructions.first_mut() {
                actions.push(Action::output(PortNo(1)));
            }
            for other in [
                Flow { instructions, ..flow.clone() },
                Flow { instructions: vec![], ..flow.clone() },
                Flow { cookie: cookie::of(Owner(100), BEGUN), ..flow.clone() },
                Flow { cookie: cookie::begun(Owner(200), BEGUN, 1), ..flow.clone() },
                Flow { idle_timeout: 0, ..flow.clone() },
            ] {
                assert!(!is_begun(&key, &other), "{other:?}");
            }
        }
    }
}
