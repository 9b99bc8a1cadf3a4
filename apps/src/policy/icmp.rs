//! `icmp_type` and `icmp_code` of a `match`.

use std::fmt;

use super::chain::Protocol;
use super::diagnostic::Code;
use super::report::{At, Draft, Report};
use super::section::{Scalar, Section};
use super::text::{quote, suggestion};

/// A type of ICMP messages. The versions of IP number them differently, and each has some that the other hasn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IcmpType {
    /// In IPv4 (RFC 792).
    pub v4: Option<u8>,
    /// In IPv6 (RFC 4443).
    pub v6: Option<u8>,
}

impl IcmpType {
    /// Types that have names: in IPv4, and in IPv6 (IANA's registries of both).
    pub const NAMES: [(&str, Self); 14] = [
        ("echo-reply", Self::of(Some(0), Some(129))),
        ("destination-unreachable", Self::of(Some(3), Some(1))),
        ("packet-too-big", Self::of(None, Some(2))),
        ("redirect", Self::of(Some(5), Some(137))),
        ("echo-request", Self::of(Some(8), Some(128))),
        ("router-advertisement", Self::of(Some(9), Some(134))),
        ("router-solicitation", Self::of(Some(10), Some(133))),
        ("time-exceeded", Self::of(Some(11), Some(3))),
        ("parameter-problem", Self::of(Some(12), Some(4))),
        ("neighbour-solicitation", Self::of(None, Some(135))),
        ("neighbour-advertisement", Self::of(None, Some(136))),
        ("mld-query", Self::of(None, Some(130))),
        ("mld-report", Self::of(None, Some(131))),
        ("mld2-report", Self::of(None, Some(143))),
    ];

    const fn of(v4: Option<u8>, v6: Option<u8>) -> Self {
        Self { v4, v6 }
    }

    /// The same number in both versions of IP.
    pub const fn numbered(number: u8) -> Self {
        Self::of(Some(number), Some(number))
    }

    /// The type of answers to such messages, where they have another.
    pub(super) fn reversed(self) -> Self {
        const PAIRS: [(u8, u8); 2] = [(0, 8), (13, 14)];
        const PAIRS_V6: [(u8, u8); 3] = [(128, 129), (133, 134), (135, 136)];
        let other = |pairs: &[(u8, u8)], number: u8| {
            let of = |(one, other): &(u8, u8)| match number {
                it if it == *one => Some(*other),
                it if it == *other => Some(*one),
                _ => None,
            };
            pairs.iter().find_map(of).unwrap_or(number)
        };
        Self::of(self.v4.map(|it| other(&PAIRS, it)), self.v6.map(|it| other(&PAIRS_V6, it)))
    }
}

impl fmt::Display for IcmpType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, it)| it == self).map(|(name, _)| *name);
        match (name, self.v4.or(self.v6)) {
            (Some(name), _) => f.write_str(name),
            (None, Some(number)) => number.fmt(f),
            (None, None) => f.write_str("none"),
        }
    }
}

/// The types of messages, none: any; and the code. Each is `None` if it is wrong.
pub(super) fn read(
    section: &Section<'_>,
    protocol: Option<Protocol>,
    report: &mut Report,
) -> (Option<Vec<IcmpType>>, Option<Option<u8>>) {
    let mut sound = true;
    for key in ["icmp_type", "icmp_code"].into_iter().filter(|key| section.has(key)) {
        if protocol.is_some_and(|protocol| protocol != Protocol::Icmp) {
            report.push(
                Draft::error(format!("`{key}` of {}: its protocol isn't ICMP", section.object))
                    .code(Code::Misplaced)
                    .at(section.place_of_key(key), "only ICMP has types and codes")
                    .help(format!("write protocol = \"icmp\" beside it, or remove `{key}`")),
            );
            sound = false;
        }
    }
    let code = match section.has("icmp_code") {
        false => Some(None),
        true => section.bounded("icmp_code", [0, 255], report).and_then(|code| u8::try_from(code).ok()).map(Some),
    };
    let types = match section.scalars("icmp_type", report) {
        None => (!section.has("icmp_type")).then(Vec::new),
        Some((list, whole)) => {
            sound &= whole;
            let all: Vec<Option<IcmpType>> = list.into_iter().map(|item| kind(section, item, report)).collect();
            all.into_iter().collect::<Option<Vec<_>>>()
        }
    };
    let in_order = |mut types: Vec<IcmpType>| {
        types.sort_unstable();
        types.dedup();
        types
    };
    (types.filter(|_| sound).map(in_order), code.filter(|_| sound))
}

fn kind(section: &Section<'_>, item: At<Scalar<'_>>, report: &mut Report) -> Option<IcmpType> {
    let names = || IcmpType::NAMES.iter().map(|(name, _)| *name);
    let (title, why, help) = match item.value {
        Scalar::Number(number) => match u8::try_from(number) {
            Ok(number) => return Some(IcmpType::numbered(number)),
            Err(_) => ("a number".to_owned(), "out of range", "write a name, or a number from 0 to 255".to_owned()),
        },
        Scalar::Text(text) => match IcmpType::NAMES.iter().find(|(name, _)| *name == text) {
            Some((_, kind)) => return Some(*kind),
            None => {
                let help = match suggestion(text, names(), report) {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => format!(
                        "write a number from 0 to 255 without quotes, or one of {}",
                        names().collect::<Vec<_>>().join(", ")
                    ),
                };
                (quote(text), "not known", help)
            }
        },
    };
    report.push(
        Draft::error(format!("{title} can't be in `icmp_type` of {}", section.object)).at(item.place, why).help(help),
    );
    None
}
