//! Errors (OpenFlow 1.3.5 §7.4.4) and those that Open vSwitch adds in 1.3 (`ovs:include/openvswitch/ofp-errors.h`).

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::{Body, Parsed, Payload, Wire};

/// Type of errors of extensions; the code is then the extension's own type, and the extension's number begins the data.
const EXPERIMENTER: u16 = 0xffff;

/// One row a code: its type and number, and its name in the specification without `OFP…_`. Codes of extensions have type
/// 0xffff, the extension's kind as number, and its owner.
macro_rules! errors {
    ($($(#[$tmeta:meta])* $kind:ident($owner:expr, $number:literal, $prefix:literal) {
        $($(#[$meta:meta])* $code:ident = $value:literal, $name:literal;)+
    })+) => {
        $(
            wire_enum! {
                $(#[$tmeta])*
                pub enum $kind: u16 { $($(#[$meta])* $code = $value),+ }
            }
            impl $kind {
                /// Its name in the specification, or in Open vSwitch.
                pub const fn name(self) -> Option<&'static str> {
                    match self { $(Self::$code => Some(concat!($prefix, $name)),)+ Self::Unknown(_) => None }
                }
            }
            impl From<$kind> for ErrorCode {
                fn from(code: $kind) -> Self { Self::$kind(code) }
            }
        )+

        /// What went wrong: a type and a code of it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $($(#[$tmeta])* $kind($kind),)+
            /// An error of an extension that has no name here.
            Experimenter {
                /// Whose extension.
                experimenter: u32,
                /// Its kind of error.
                exp_type: u16,
            },
            /// A type that has no name here.
            Unknown {
                /// The type.
                kind: u16,
                /// The code.
                code: u16,
            },
        }

        impl ErrorCode {
            /// The error with these numbers; `owner` is the experimenter of type 0xffff, else 0.
            pub fn from_numbers(owner: u32, kind: u16, code: u16) -> Self {
                $(if owner == $owner && kind == $number {
                    // Open vSwitch and the Open Networking Foundation number errors of several kinds in one row.
                    if owner == 0 || $kind::KNOWN.iter().any(|(_, value)| *value == code) {
                        return Self::$kind(code.into());
                    }
                })+
                match kind {
                    EXPERIMENTER => Self::Experimenter { experimenter: owner, exp_type: code },
                    _ => Self::Unknown { kind, code },
                }
            }

            /// Owner (0: none), type and code.
            pub(super) const fn owner(self) -> u32 {
                match self { $(Self::$kind(_) => $owner,)+ Self::Experimenter { experimenter, .. } => experimenter, Self::Unknown { .. } => 0 }
            }

            /// `type`.
            pub const fn kind(self) -> u16 {
                match self { $(Self::$kind(_) => $number,)+ Self::Experimenter { .. } => EXPERIMENTER, Self::Unknown { kind, .. } => kind }
            }

            /// `code`; of an extension's error its kind.
            pub fn code(self) -> u16 {
                match self { $(Self::$kind(code) => code.into(),)+ Self::Experimenter { exp_type, .. } => exp_type, Self::Unknown { code, .. } => code }
            }

            /// Its name in the specification or in Open vSwitch, like `OFPBRC_BAD_TYPE`.
            pub const fn name(self) -> Option<&'static str> {
                match self { $(Self::$kind(code) => code.name(),)+ _ => None }
            }

            /// Every code that has a name.
            pub fn known() -> impl Iterator<Item = Self> {
                [$($kind::KNOWN.iter().map(|(code, _)| Self::$kind(*code)).collect::<Vec<_>>()),+].into_iter().flatten()
            }
        }
    };
}

const NONE: u32 = 0;
/// The Open Networking Foundation's number as an experimenter.
const ONF: u32 = 0x4f4e_4600;
/// Nicira's number as an experimenter: Open vSwitch's own errors.
const NX: u32 = 0x0000_2320;

mod codes;
pub use codes::*;

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self) {
            (Some(name), _) => f.write_str(name),
            (None, Self::Experimenter { experimenter, exp_type }) => {
                write!(f, "error {exp_type} of experimenter {experimenter:#010x}")
            }
            (None, _) => write!(f, "error type {} code {}", self.kind(), self.code()),
        }
    }
}

/// Its numbers, and its name where it has one.
#[cfg(feature = "serde")]
impl serde::Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &self.kind())?;
        map.serialize_entry("code", &self.code())?;
        if self.kind() == EXPERIMENTER {
            map.serialize_entry("experimenter", &self.owner())?;
        }
        if let Some(name) = self.name() {
            map.serialize_entry("name", name)?;
        }
        map.end()
    }
}

/// `ofp_error_msg`: a request failed. The transaction id is the request's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ErrorMsg {
    /// What went wrong.
    pub code: ErrorCode,
    /// At least 64 octets of the request, or a text.
    pub data: Payload,
}

impl ErrorMsg {
    /// `OFPHFC_INCOMPATIBLE`: no version in common.
    pub const fn incompatible(text: &'static str) -> Self {
        Self {
            code: ErrorCode::HelloFailed(HelloFailed::Incompatible),
            data: Payload(Bytes::from_static(text.as_bytes())),
        }
    }

    /// What was wrong with `request`, of which the first 64 octets are returned.
    pub fn about(code: impl Into<ErrorCode>, request: &Bytes) -> Self {
        Self { code: code.into(), data: Payload(request.slice(..request.len().min(64))) }
    }
}

impl Body for ErrorMsg {
    fn parse_body<'a>(input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self> {
        let (i, kind) = u16::parse(input)?;
        let (i, code) = u16::parse(i)?;
        let (i, owner) = if kind == EXPERIMENTER { u32::parse(i)? } else { (i, NONE) };
        Ok((&[], Self { code: ErrorCode::from_numbers(owner, kind, code), data: Payload(whole.slice_ref(i)) }))
    }
    fn put_body(&self, out: &mut BytesMut) {
        out.put_u16(self.code.kind());
        out.put_u16(self.code.code());
        if self.code.kind() == EXPERIMENTER {
            out.put_u32(self.code.owner());
        }
        self.data.put_body(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_numbers_and_a_name_of_its_own() {
        let known: Vec<ErrorCode> = ErrorCode::known().collect();
        assert!(known.len() > 100, "{}", known.len());
        for (at, code) in known.iter().enumerate() {
            assert_eq!(ErrorCode::from_numbers(code.owner(), code.kind(), code.code()), *code);
            assert!(known[..at].iter().all(|other| other.name() != code.name()), "{code}");
        }
    }

    #[test]
    fn codes_without_a_name_keep_their_numbers() {
        for (owner, kind, code) in [(0, 1, 999), (0, 77, 1), (0x2320, 0xffff, 999), (5, 0xffff, 2300)] {
            let error = ErrorCode::from_numbers(owner, kind, code);
            assert_eq!((error.owner(), error.kind(), error.code(), error.name()), (owner, kind, code, None));
        }
    }
}
