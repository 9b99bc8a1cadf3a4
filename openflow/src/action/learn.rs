//! The `learn` action of Open vSwitch: a flow entry made from the packet (`ovs-actions(7)`).

use bytes::BytesMut;

use crate::oxm::FieldId;
use crate::types::{Cookie, TableId};
use crate::wire::{Octets, Parsed, Wire, pad, refuse, take};

wire_flags! {
    /// `nx_learn_flags`.
    pub struct LearnFlags: u16 {
        /// Tell when the entry is removed.
        SEND_FLOW_REM = 1;
        /// Remove what was learnt when the entry with this action goes.
        DELETE_LEARNED = 2;
        /// Say whether the entry could be added ([`LimitedLearn`] alone can).
        WRITE_RESULT = 4;
    }
}

wire_struct! {
    /// `nx_action_learn`.
    pub open struct Learn {
        /// Idle timeout of the new entry, seconds; 0: none.
        idle_timeout: u16,
        /// Hard timeout of the new entry, seconds; 0: none.
        hard_timeout: u16,
        /// Its priority.
        priority: u16,
        /// Its cookie.
        cookie: Cookie,
        /// How it behaves.
        flags: LearnFlags,
        /// Its table.
        table: TableId,
        _ [1],
        /// Idle timeout once a TCP connection ends, seconds; 0: as it was.
        fin_idle_timeout: u16,
        /// Hard timeout once a TCP connection ends, seconds; 0: as it was.
        fin_hard_timeout: u16,
        /// What it matches on and does.
        specs: LearnSpecs,
    }
}

/// `nx_action_learn2`: a [`Learn`] that may have a bound, and may say whether it did anything.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct LimitedLearn {
    /// What is learnt.
    pub learn: Learn,
    /// How many entries its table may have with its cookie; 0: any number.
    pub limit: u32,
    /// Where it is written whether the entry could be added: 1, or 0. Its flag goes with it.
    pub result: Option<LearnResult>,
}

wire_struct! {
    /// A bit of a field.
    pub open struct LearnResult {
        /// Which bit, from 0.
        bit: u16,
        _ [2],
        /// The field.
        field: FieldId,
    }
}

/// Octets of a [`Learn`] before its elements, and of those before its flags.
const HEAD: usize = 22;
const TO_FLAGS: usize = 14;

impl Wire for LimitedLearn {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (rest, head) = take(input, HEAD)?;
        let (_, mut learn) = Learn::parse(head)?;
        let (rest, limit) = u32::parse(rest)?;
        let (rest, result) = if learn.flags.contains(LearnFlags::WRITE_RESULT) {
            let (rest, result) = LearnResult::parse(rest)?;
            (rest, Some(result))
        } else {
            let (after, bit) = u16::parse(rest)?;
            if bit != 0 {
                return refuse(rest, "is a bit of no field");
            }
            (pad(after, 2)?.0, None)
        };
        let (rest, specs) = LearnSpecs::parse(rest)?;
        learn.specs = specs;
        Ok((rest, Self { learn, limit, result }))
    }

    fn put(&self, out: &mut BytesMut) {
        let start = out.len();
        self.learn.put(out);
        let specs = out.split_off(start + HEAD);
        let mut flags = self.learn.flags;
        flags.set(LearnFlags::WRITE_RESULT, self.result.is_some());
        out[start + TO_FLAGS..][..2].copy_from_slice(&flags.bits().to_be_bytes());
        self.limit.put(out);
        match &self.result {
            Some(result) => result.put(out),
            None => 0u32.put(out),
        }
        out.extend_from_slice(&specs);
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum LearnSource {
    /// From bits of the packet's field, from this offset on.
    Field(FieldId, u16),
    /// From here: as many octets as the bits need, in pairs.
    Immediate(Octets),
}

/// Where the new entry uses a value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum LearnTarget {
    /// It matches on bits of this field, from this offset on.
    Match(FieldId, u16),
    /// It loads them into this field, from this offset on.
    Load(FieldId, u16),
    /// It outputs to that port.
    Output,
}

/// One element of the new entry: a value of some bits, from one place to another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct LearnSpec {
    /// How many bits, 1 to 1023, of a source that has as many.
    pub n_bits: u16,
    /// From where.
    pub source: LearnSource,
    /// To where.
    pub target: LearnTarget,
}

/// The elements of the new entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct LearnSpecs(pub Vec<LearnSpec>);

impl Wire for LearnSpecs {
    /// Stops at the zeros that fill up the action.
    fn parse(mut input: &[u8]) -> Parsed<'_, Self> {
        let mut specs = Vec::new();
        while !matches!(input, [] | [_] | [0, 0, ..]) {
            let (rest, spec) = LearnSpec::parse(input)?;
            specs.push(spec);
            input = rest;
        }
        Ok((input, Self(specs)))
    }
    fn put(&self, out: &mut BytesMut) {
        self.0.put(out);
    }
}

const N_BITS: u16 = 0x3ff;
const IMMEDIATE: u16 = 1 << 13;
const TO_LOAD: u16 = 1 << 11;
const TO_OUTPUT: u16 = 2 << 11;
const TARGET: u16 = 3 << 11;

fn place(input: &[u8]) -> Parsed<'_, (FieldId, u16)> {
    let (rest, field) = FieldId::parse(input)?;
    let (rest, offset) = u16::parse(rest)?;
    Ok((rest, (field, offset)))
}

impl Wire for LearnSpec {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (rest, header) = u16::parse(input)?;
        let n_bits = header & N_BITS;
        if n_bits == 0 || header & !(N_BITS | IMMEDIATE | TARGET) != 0 || header & TARGET == TARGET {
            return refuse(input, "is no element of a learn action");
        }
        let (rest, source) = if header & IMMEDIATE == 0 {
            let (rest, (field, offset)) = place(rest)?;
            (rest, LearnSource::Field(field, offset))
        } else {
            let (rest, octets) = take(rest, 2 * usize::from(n_bits).div_ceil(16))?;
            (rest, LearnSource::Immediate(Octets(octets.to_vec())))
        };
        let (rest, target) = match header & TARGET {
            TO_OUTPUT => (rest, LearnTarget::Output),
            target => {
                let (rest, (field, offset)) = place(rest)?;
                let target = if target == TO_LOAD { LearnTarget::Load } else { LearnTarget::Match };
                (rest, target(field, offset))
            }
        };
        Ok((rest, Self { n_bits, source, target }))
    }

    fn put(&self, out: &mut BytesMut) {
        let Self { n_bits, source, target } = self;
        let from = if matches!(source, LearnSource::Immediate(_)) { IMMEDIATE } else { 0 };
        let to = match target {
            LearnTarget::Match(..) => 0,
            LearnTarget::Load(..) => TO_LOAD,
            LearnTarget::Output => TO_OUTPUT,
        };
        (n_bits & N_BITS | from | to).put(out);
        match source {
            LearnSource::Field(field, offset) => {
                field.put(out);
                offset.put(out);
            }
            LearnSource::Immediate(octets) => octets.put(out),
        }
        if let LearnTarget::Match(field, offset) | LearnTarget::Load(field, offset) = target {
            field.put(out);
            offset.put(out);
        }
    }
}
