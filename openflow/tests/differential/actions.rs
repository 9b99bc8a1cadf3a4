//! Actions that Open vSwitch takes, with random values.
//!
//! It refuses those that don't fit what is matched on: `pop_vlan` without a tag, `dec_ttl` without IP, and so on. Those are
//! made for flow entries that match on TCP over IPv4. `conjunction` may only stand alone, PBB and copying TTLs are unknown to
//! it: these are in the corpus alone.

use openflow::action::{
    Action, BitRange, BundleAlgorithm, BundleLoad, Conntrack, ConntrackFlags, ControllerProperty, HashFields, Learn,
    LearnFlags, LearnResult, LearnSource, LearnSpec, LearnSpecs, LearnTarget, LimitedLearn, Members, Multipath,
    MultipathAlgorithm, Nested, StackField,
};
use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::oxm::{FieldId, Oxm};
use openflow::packet::PacketInReason;
use openflow::types::{Cookie, GroupId, MeterId, PortNo, QueueId, TableId};
use openflow::wire::Octets;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::fields::{matches, port, settable, tcp_matches, tcp_settable};

fn field(name: &str) -> FieldId {
    FieldId::named(name).expect("a field of that name")
}

/// Bits of a register, which has 32.
fn bits() -> BoxedStrategy<(u16, u16)> {
    (0u16..32).prop_flat_map(|offset| (Just(offset), 1..=32 - offset)).boxed()
}

fn group() -> BoxedStrategy<GroupId> {
    (0..0xffff_ff00u32).prop_map(GroupId).boxed()
}

fn learn() -> BoxedStrategy<Learn> {
    let spec = prop_oneof![
        bits().prop_map(|(offset, n_bits)| LearnSpec {
            n_bits,
            source: LearnSource::Field(field("reg1"), offset),
            target: LearnTarget::Match(field("reg2"), offset),
        }),
        any::<u16>().prop_map(|value| LearnSpec {
            n_bits: 16,
            source: LearnSource::Immediate(Octets(value.to_be_bytes().to_vec())),
            target: LearnTarget::Load(field("reg4"), 8),
        }),
        bits().prop_map(|(offset, n_bits)| LearnSpec {
            n_bits,
            source: LearnSource::Field(field("reg5"), offset),
            target: LearnTarget::Output,
        }),
    ];
    (any::<[u16; 5]>(), any::<u64>(), 0u16..4, 0u8..254, vec(spec, 0..4))
        .prop_map(
            |(
                [idle_timeout, hard_timeout, priority, fin_idle_timeout, fin_hard_timeout],
                cookie,
                flags,
                table,
                specs,
            )| {
                Learn {
                    idle_timeout,
                    hard_timeout,
                    priority,
                    cookie: Cookie(cookie),
                    flags: LearnFlags::from_bits_retain(flags),
                    table: TableId(table),
                    fin_idle_timeout,
                    fin_hard_timeout,
                    specs: LearnSpecs(specs),
                }
            },
        )
        .boxed()
}

fn limited_learn() -> BoxedStrategy<Action> {
    (learn(), any::<u32>(), option::of(0u16..32))
        .prop_map(|(mut learn, limit, bit)| {
            learn.flags.set(LearnFlags::WRITE_RESULT, bit.is_some());
            let result = bit.map(|bit| LearnResult { bit, field: field("reg7") });
            Action::LimitedLearn(LimitedLearn { learn, limit, result })
        })
        .boxed()
}

fn controller2() -> BoxedStrategy<Action> {
    // Four octets would look like an address.
    (option::of(any::<u16>()), option::of(1..u16::MAX), any::<bool>(), 1u32..1000, vec(any::<u8>(), 5..12))
        .prop_map(|(max_len, id, pause, meter, userdata)| {
            let properties = [
                max_len.map(ControllerProperty::MaxLen),
                id.map(ControllerProperty::ControllerId),
                Some(ControllerProperty::Userdata(Octets(userdata))),
                pause.then_some(ControllerProperty::Pause {}),
                Some(ControllerProperty::Meter(MeterId(meter))),
            ];
            Action::Controller2(properties.into_iter().flatten().collect())
        })
        .boxed()
}

/// Actions that nest nothing and suit any packet.
fn flat() -> BoxedStrategy<Action> {
    let reasons =
        prop_oneof![Just(PacketInReason::NoMatch), Just(PacketInReason::Action), Just(PacketInReason::InvalidTtl)];
    prop_oneof![
        port().prop_map(Action::output),
        any::<u16>().prop_map(|max_len| Action::Output { port: PortNo::CONTROLLER, max_len }),
        group().prop_map(|group| Action::Group { group }),
        (0u32..0xffff_0000).prop_map(|queue| Action::SetQueue { queue: QueueId(queue) }),
        Just(Action::PopQueue {}),
        settable().prop_map(Action::SetField),
        (1u16..0xff00).prop_map(|in_port| Action::ResubmitPort { in_port }),
        (1u16..0xff00, 0u8..254).prop_map(|(in_port, table)| Action::Resubmit { in_port, table: TableId(table) }),
        any::<u32>().prop_map(|key| Action::SetTunnel { key }),
        any::<u64>().prop_map(|key| Action::SetTunnel64 { key }),
        (bits(), 0u16..32).prop_map(|((offset, n_bits), other)| Action::RegMove {
            n_bits,
            src_offset: offset,
            dst_offset: other.min(32 - n_bits),
            src: field("reg6"),
            dst: field("reg9"),
        }),
        (bits(), any::<u32>()).prop_map(|((offset, n_bits), value)| Action::RegLoad {
            range: BitRange::new(offset, n_bits).expect("bits of a register"),
            dst: field("reg8"),
            value: u64::from(value) & ((1 << n_bits) - 1),
        }),
        (any::<u32>(), any::<u32>()).prop_filter_map("a mask with a bit", |(value, mask)| {
            (mask != 0).then_some(Action::RegLoad2(Oxm::Reg3(value & mask, Some(mask))))
        }),
        vec(any::<u8>(), 6..=6).prop_map(|octets| Action::Note(Octets(octets))),
        (any::<u16>(), 0u16..1024).prop_map(|(basis, max_link)| Action::Multipath(Multipath {
            fields: HashFields::SymmetricL3l4Udp,
            basis,
            algorithm: MultipathAlgorithm::Hrw,
            max_link,
            argument: 0,
            range: BitRange::new(16, 16).expect("bits of a register"),
            dst: field("reg10"),
        })),
        vec(1u16..0xff00, 1..4).prop_map(|members| Action::Bundle(Members::first_live(members))),
        // Fewer bits than a port's number has are refused.
        (vec(1u16..0xff00, 1..4), 0u16..16, any::<u16>()).prop_map(|(members, offset, basis)| {
            let (algorithm, fields) = (BundleAlgorithm::Hrw, HashFields::SymmetricL4);
            Action::BundleLoad(BundleLoad {
                members: Members { algorithm, fields, basis, members },
                range: BitRange::new(offset, 16).expect("bits of a register"),
                dst: field("reg4"),
            })
        }),
        (bits(), any::<u16>()).prop_map(|((offset, n_bits), max_len)| Action::OutputReg {
            range: BitRange::new(offset, n_bits).expect("bits of a register"),
            src: field("reg11"),
            max_len,
        }),
        learn().prop_map(Action::Learn),
        limited_learn(),
        Just(Action::Exit {}),
        (any::<u16>(), 1..u16::MAX, reasons).prop_map(|(max_len, controller, reason)| Action::Controller {
            max_len,
            controller,
            reason
        }),
        bits().prop_map(|(offset, n_bits)| Action::StackPush(StackField { offset, field: field("reg12"), n_bits })),
        bits().prop_map(|(offset, n_bits)| Action::StackPop(StackField { offset, field: field("reg13"), n_bits })),
        controller2(),
        (1u16..0xff00, 14u32..).prop_map(|(port, max_len)| Action::OutputTrunc { port, max_len }),
        Just(Action::CtClear {}),
    ]
    .boxed()
}

/// Actions that suit any packet.
fn plain() -> BoxedStrategy<Action> {
    prop_oneof![30 => flat(), 1 => vec(flat(), 1..4).prop_map(|inner| Action::Clone(Nested(inner)))].boxed()
}

/// Actions that suit TCP over IPv4.
fn on_tcp() -> BoxedStrategy<Action> {
    let tracked = (any::<bool>(), any::<u16>(), 0u8..254, any::<u32>()).prop_map(|(commit, zone, table, mark)| {
        let marked = commit.then_some(Action::SetField(Oxm::CtMark(mark, None)));
        Action::Ct(Conntrack {
            flags: if commit { ConntrackFlags::COMMIT } else { ConntrackFlags::empty() },
            zone_source: 0,
            zone,
            table: TableId(table),
            helper: 0,
            actions: Nested(marked.into_iter().collect()),
        })
    });
    prop_oneof![
        plain(),
        tcp_settable().prop_map(Action::SetField),
        any::<u8>().prop_map(|ttl| Action::SetNwTtl { ttl }),
        Just(Action::DecNwTtl {}),
        (any::<u16>(), any::<u16>())
            .prop_map(|(idle_timeout, hard_timeout)| Action::FinTimeout { idle_timeout, hard_timeout }),
        tracked,
    ]
    .boxed()
}

/// A tag put on, and its number set, behind other actions.
fn tagged(actions: BoxedStrategy<Vec<Action>>) -> BoxedStrategy<Vec<Action>> {
    let tag = (prop_oneof![Just(0x8100u16), Just(0x88a8)], any::<u16>()).prop_map(|(ethertype, id)| {
        let number = Oxm::VlanVid(openflow::narrow::U13::low(0x1000 | id), None);
        vec![Action::PushVlan { ethertype }, Action::SetField(number), Action::output(PortNo(9))]
    });
    (actions, option::weighted(0.2, tag))
        .prop_map(|(actions, tag)| actions.into_iter().chain(tag.into_iter().flatten()).collect())
        .boxed()
}

/// Lists of actions for any packet.
pub(crate) fn actions() -> BoxedStrategy<Vec<Action>> {
    tagged(vec(plain(), 0..6).boxed())
}

/// Instructions of an entry in table 5: each kind at most once, which is what Open vSwitch and the specification want. Open
/// vSwitch puts only some actions into the action set.
fn instructions(actions: BoxedStrategy<Vec<Action>>) -> BoxedStrategy<Vec<Instruction>> {
    let set = prop_oneof![
        settable().prop_map(Action::SetField),
        port().prop_map(Action::output),
        group().prop_map(|group| Action::Group { group }),
    ];
    (
        option::of(1u32..1000),
        option::weighted(0.8, actions),
        any::<bool>(),
        option::of(vec(set, 1..4)),
        option::of((any::<u64>(), any::<u64>())),
        option::of(6u8..254),
    )
        .prop_map(|(meter, apply, clear, write, metadata, table)| {
            let all = [
                meter.map(|meter| Instruction::Meter(MeterId(meter))),
                apply.filter(|actions| !actions.is_empty()).map(Instruction::ApplyActions),
                clear.then_some(Instruction::ClearActions {}),
                write.map(Instruction::WriteActions),
                metadata.map(|(metadata, mask)| Instruction::WriteMetadata { metadata: metadata & mask, mask }),
                table.map(|table| Instruction::GotoTable(TableId(table))),
            ];
            all.into_iter().flatten().collect()
        })
        .boxed()
}

/// What a flow entry matches and does.
pub(crate) fn entries() -> BoxedStrategy<(Match, Vec<Instruction>)> {
    prop_oneof![
        (matches(), instructions(actions())),
        (tcp_matches(), instructions(tagged(vec(on_tcp(), 0..6).boxed()))),
    ]
    .boxed()
}
