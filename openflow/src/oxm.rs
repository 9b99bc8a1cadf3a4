//! Match fields, in OpenFlow's extensible format (OpenFlow 1.3.5 §7.2.3). The fields themselves are the rows of
//! `oxm/fields.rs`.

mod aliases;
mod field_id;
mod fields;

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::narrow::{U1, U2, U3, U6, U9, U12, U13, U20, U24, U128};
use crate::types::{MacAddr, PortNo};
use crate::wire::Fixed;

pub use field_id::FieldId;
pub use fields::{FIELDS, Oxm};

/// A value of which some bits may be left out of a comparison.
pub trait Maskable: Fixed + Eq {
    /// The bits that `mask` keeps.
    #[must_use]
    fn masked(&self, mask: &Self) -> Self;
    /// Are all bits set?
    fn is_ones(&self) -> bool;
    /// Are all of the low `bits` set?
    fn is_full(&self, bits: u16) -> bool {
        let counted = 1u64.checked_shl(bits.into()).map_or(u64::MAX, |above| above - 1);
        self.is_ones() || bits < 64 && self.number() & counted == counted
    }
    /// Is no bit set?
    fn is_zeros(&self) -> bool;
    /// The value as a number; the low 64 bits of longer ones.
    fn number(&self) -> u64;
}

macro_rules! maskable {
    (int $($int:ty),*) => { $(impl Maskable for $int {
        fn masked(&self, mask: &Self) -> Self { self & mask }
        fn is_ones(&self) -> bool { *self == <$int>::MAX }
        fn is_zeros(&self) -> bool { *self == 0 }
        fn number(&self) -> u64 { (*self).into() }
    })* };
    (narrow $($narrow:ty),*) => { $(impl Maskable for $narrow {
        fn masked(&self, mask: &Self) -> Self { Self::low(self.get() & mask.get()) }
        fn is_ones(&self) -> bool { *self == Self::MAX }
        fn is_zeros(&self) -> bool { self.get() == 0 }
        fn number(&self) -> u64 { self.get().into() }
    })* };
    (via $($ty:ty => $to:expr, $from:expr;)*) => { $(impl Maskable for $ty {
        fn masked(&self, mask: &Self) -> Self {
            let (value, mask) = ($to(self), $to(mask));
            let mut kept = value;
            for (octet, mask) in kept.iter_mut().zip(mask) { *octet &= mask; }
            $from(kept)
        }
        fn is_ones(&self) -> bool { $to(self).iter().all(|&octet| octet == 0xff) }
        fn is_zeros(&self) -> bool { $to(self).iter().all(|&octet| octet == 0) }
        fn number(&self) -> u64 { $to(self).iter().fold(0, |number, &octet| number << 8 | u64::from(octet)) }
    })* };
}
maskable! { int u8, u16, u32, u64 }
maskable! { narrow U1, U2, U3, U6, U9, U12, U13, U20, U24 }
maskable! { via
    MacAddr => |x: &MacAddr| x.0, MacAddr;
    Ipv4Addr => |x: &Ipv4Addr| x.octets(), Ipv4Addr::from;
    Ipv6Addr => |x: &Ipv6Addr| x.octets(), Ipv6Addr::from;
    PortNo => |x: &PortNo| x.0.to_be_bytes(), |x| PortNo(u32::from_be_bytes(x));
    U128 => |x: &U128| x.octets(), |x| U128::new(u128::from_be_bytes(x));
}

/// May a mask go with a field?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masking {
    /// No: only whole values.
    Exact,
    /// Yes, any (§7.2.3.5).
    Any,
    /// The specification says no, Open vSwitch takes any (`ovs-fields(7)`).
    OpenVswitch,
}

/// What else has to be matched on for a field to mean something (§7.2.3.6): a value of another field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prerequisite {
    /// Name of the other field.
    pub field: &'static str,
    /// Which of its bits count; they have to be matched on.
    pub bits: u64,
    /// What they may be. Empty: anything.
    pub values: &'static [u64],
}

/// What is fixed about a field.
#[derive(Clone, Copy, Debug)]
pub struct FieldInfo {
    /// Its name, as the specification and `ovs-fields(7)` write it.
    pub name: &'static str,
    /// `oxm_class`.
    pub class: u16,
    /// `oxm_field`.
    pub id: u8,
    /// Whose field it is, in class 0xffff; else 0.
    pub experimenter: u32,
    /// Octets of its value.
    pub octets: u8,
    /// How many bits of it count.
    pub bits: u16,
    /// May a mask go with it?
    pub masking: Masking,
    /// What it presupposes.
    pub needs: Option<Prerequisite>,
}

/// One row a field. The columns are its class, number and experimenter, its name, the type of its value, how many bits of
/// that count, whether it may be masked, how it is written (`d`: decimal or the type's own way, `x`: hex), and its
/// prerequisite.
macro_rules! oxm_fields {
    ($($(#[$meta:meta])* $variant:ident = $class:ident/$id:literal/$experimenter:expr, $name:literal, $ty:ty, $bits:literal, $mask:ident, $base:ident, $needs:ident;)+) => {
        /// A match field: its value, and the mask of the bits that count, if not all.
        // The representation has the row's number stand there to be read: matches are put in order by it.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Oxm {
            $($(#[$meta])* $variant($ty, Option<$ty>),)+
            /// A field that has no name here, with its 32-bit header. Whoever builds one answers for its form.
            Unknown {
                /// `oxm_header`: class, field, mask flag, length.
                header: u32,
                /// What follows it: in class 0xffff the experimenter; value and mask.
                body: Octets,
            },
        }

        /// Every field that has a name here: those of the specification in order of `oxm_field`, then Open vSwitch's.
        pub const FIELDS: &[FieldInfo] = &[$(FieldInfo {
            name: $name,
            class: $class,
            id: $id,
            experimenter: $experimenter,
            octets: <$ty as Fixed>::LEN as u8,
            bits: $bits,
            masking: Masking::$mask,
            needs: $needs,
        }),+];

        /// Experimenter, class and number of each field in one number: what tells fields apart.
        #[expect(non_upper_case_globals, reason = "named as the rows are, so that a row can match on its own")]
        mod keys {
            use super::*;
            $(pub(super) const $variant: u64 = key($class, $id, $experimenter);)+
        }

        /// The rows, in order.
        enum Row { $($variant),+ }

        impl Oxm {
            /// What orders fields, and tells which are the same: their rows, so that prerequisites come first; those without
            /// a row come last, other names of fields that have one aside.
            #[inline]
            pub(crate) fn order(&self) -> (u16, u64) {
                match self {
                    $(Self::$variant(..) => (Row::$variant as u16, 0),)+
                    Self::Unknown { header, body } => unknown_order(*header, &body.0),
                }
            }

            /// Does a field with a mask begin here?
            #[inline]
            pub(crate) fn begins_masked(input: &[u8]) -> bool {
                input.get(2).is_some_and(|octet| octet & 1 != 0)
            }

            /// Its name, as the specification and `ovs-fields(7)` write it.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(..) => $name,)+ Self::Unknown { .. } => "unknown" }
            }

            /// What is fixed about it; `None` for unknown ones.
            pub fn info(&self) -> Option<&'static FieldInfo> {
                FIELDS.iter().find(|info| info.name == self.name())
            }

            /// Value and mask as numbers, of longer ones the low 64 bits; `None` for unknown ones.
            pub fn number(&self) -> Option<(u64, u64)> {
                match self {
                    $(Self::$variant(value, mask) => Some((value.number(), mask.as_ref().map_or(u64::MAX, Maskable::number))),)+
                    Self::Unknown { .. } => None,
                }
            }

            /// Does a mask go with it?
            pub fn is_masked(&self) -> bool {
                match self { $(Self::$variant(_, mask) => mask.is_some(),)+ Self::Unknown { header, .. } => header & MASKED != 0 }
            }

            /// Has its value bits that its mask leaves out?
            pub(crate) fn exceeds_mask(&self) -> bool {
                match self { $(Self::$variant(value, Some(mask)) => value.masked(mask) != *value,)+ _ => false }
            }

            /// Is it as [`Oxm::canonical`] would leave it?
            #[inline]
            pub(crate) fn is_canonical(&self) -> bool {
                match self {
                    $(Self::$variant(value, Some(mask)) => {
                        !mask.is_zeros() && !mask.is_full($bits) && value.masked(mask) == *value
                    })+
                    _ => true,
                }
            }

            /// The same with bits outside the mask cleared and a mask of all that count left out; `None` if no bit counts.
            pub(crate) fn canonical(self) -> Option<Self> {
                match self {
                    $(Self::$variant(value, Some(mask)) => {
                        if mask.is_zeros() { None }
                        else if mask.is_full($bits) { Some(Self::$variant(value.masked(&mask), None)) }
                        else { Some(Self::$variant(value.masked(&mask), Some(mask))) }
                    })+
                    other => Some(other),
                }
            }

            /// Adds it to a map, under its name.
            #[cfg(feature = "serde")]
            pub(crate) fn serialize_into<M: serde::ser::SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
                match self {
                    $(Self::$variant(value, None) => map.serialize_entry($name, value),)+
                    Self::Unknown { header, body } => {
                        let (name, body) = unknown_text(*header, body);
                        map.serialize_entry(&name, &body)
                    }
                    masked => {
                        let text = masked.to_string();
                        map.serialize_entry(masked.name(), text.split_once('=').map_or("", |(_, value)| value))
                    }
                }
            }
        }

        impl Wire for Oxm {
            fn parse(input: &[u8]) -> Parsed<'_, Self> {
                let (rest, header) = u32::parse(input)?;
                let (rest, body) = take(rest, (header & 0xff) as usize)?;
                let masked = header & MASKED != 0;
                let oxm = match unknown_key(header, body) {
                    $(keys::$variant => {
                        if masked && matches!(Masking::$mask, Masking::Exact) {
                            return refuse(input, "has a mask where its field takes none").map_err(|fault| within(fault, $name));
                        }
                        let body = &body[if $experimenter == 0 { 0 } else { 4 }..];
                        if body.len() != <$ty as Fixed>::LEN * (1 + usize::from(masked)) {
                            return refuse(input, "has a length that isn't its field's").map_err(|fault| within(fault, $name));
                        }
                        let (mask, value) = read::<$ty>(body, $name)?;
                        let mask = if masked { Some(read::<$ty>(mask, $name)?.1) } else { None };
                        if mask.as_ref().is_some_and(|mask| value.masked(mask) != value) {
                            return refuse(input, OUTSIDE).map_err(|fault| within(fault, $name));
                        }
                        Self::$variant(value, mask)
                    })+
                    _ => {
                        if masked {
                            unknown_masked(input, header, body)?;
                        }
                        Self::Unknown { header, body: Octets(body.to_vec()) }
                    }
                };
                Ok((rest, oxm))
            }

            fn put(&self, out: &mut BytesMut) {
                match self {
                    $(Self::$variant(value, mask) => {
                        let length = const { <$ty as Fixed>::LEN as u32 } * (1 + u32::from(mask.is_some()));
                        let owner = if $experimenter == 0 { 0 } else { 4 };
                        out.put_u32((keys::$variant as u32) << 9 | u32::from(mask.is_some()) << 8 | (length + owner));
                        if $experimenter != 0 { out.put_u32($experimenter); }
                        value.put(out);
                        if let Some(mask) = mask { mask.put(out); }
                    })+
                    Self::Unknown { header, body } => {
                        out.put_u32(*header);
                        body.put(out);
                    }
                }
            }
        }

        impl fmt::Display for Oxm {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant(value, None) => write!(f, oxm_fields!(@format $base), $name, value),)+
                    $(Self::$variant(value, Some(mask)) => write!(f, oxm_fields!(@masked $base), $name, value, mask),)+
                    Self::Unknown { header, body } => {
                        let (name, body) = unknown_text(*header, body);
                        write!(f, "{name}={body}")
                    }
                }
            }
        }
    };
    (@format d) => { "{}={}" };
    (@format x) => { "{}={:#x}" };
    (@masked d) => { "{}={}/{}" };
    (@masked x) => { "{}={:#x}/{:#x}" };
}
use oxm_fields;
