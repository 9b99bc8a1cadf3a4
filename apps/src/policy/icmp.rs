//! `icmp_type` and `icmp_code` of a `match`.

use super::chain::{IcmpType, Protocol};
use super::diagnostic::Code;
use super::report::{At, Draft, Report};
use super::section::{Scalar, Section};
use super::text::{quote, suggestion};

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
