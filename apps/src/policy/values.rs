//! Single values: names, patterns, addresses, times.

use std::net::IpAddr;
use std::time::Duration;

use openflow::types::{DatapathId, MacAddr};

use super::diagnostic::Code;
use super::model::Probes;
use super::report::{At, Draft, Report};
use super::text::quote;

/// Longest name of a bridge, tenant or port.
const NAME_MAX: usize = 63;

/// Open vSwitch tells at most so many characters of a port's name: OpenFlow has 16 bytes for it, one of them zero.
const PORT_NAME_MAX: usize = 15;

/// A name, in the form in which it is compared with others. `of` says what it names.
pub(super) fn name(text: &At<&str>, of: &str, report: &mut Report) -> At<String> {
    let lower = text.value.to_lowercase();
    let allowed = |char: char| matches!(char, 'a'..='z' | '0'..='9' | '-' | '_' | '.');
    let fine = lower.chars().all(allowed) && lower.starts_with(|char: char| char.is_ascii_alphanumeric());
    let wrong = |why: &str| {
        Draft::error(format!("{} can't be the name of {of}", quote(text.value))).at(text.place.clone(), why)
    };
    if text.value.is_empty() {
        report.push(wrong("empty").help("write a name, like: name = \"web-1\""));
    } else if lower.len() > NAME_MAX {
        let help = format!("a name has at most {NAME_MAX} characters");
        report.push(wrong("too long").help(help));
    } else if !fine {
        let usable: String = lower.chars().map(|char| if allowed(char) { char } else { '-' }).collect();
        let usable = usable.trim_start_matches(['-', '_', '.']);
        let rule = "a name has lower-case letters, digits, `-`, `_` and `.`, and begins with a letter or digit";
        let help = if usable.is_empty() { rule.to_owned() } else { format!("{rule}, like {}", quote(usable)) };
        report.push(wrong("not a name").help(help));
    } else if lower != text.value {
        report.push(wrong("has upper-case letters").help(format!("names are lower-case: write \"{lower}\"")));
    }
    At { value: lower, place: text.place.clone() }
}

/// Refuses a bridge's name that would read as a datapath id.
pub(super) fn not_a_datapath_id(name: &At<String>, report: &mut Report) {
    if name.value.len() == 16 && name.value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        report.push(
            Draft::error(format!("the name {} of a bridge looks like a datapath id", quote(&name.value)))
                .at(name.place.clone(), "16 hex digits")
                .help("choose a name that can't be taken for one, like \"host1\""),
        );
    }
}

/// A datapath id that stands for one bridge.
pub(super) fn datapath_id(text: &At<&str>, of: &str, report: &mut Report) -> Option<At<DatapathId>> {
    let wrong = |why| {
        Draft::error(format!("{} can't be the datapath id of {of}", quote(text.value))).at(text.place.clone(), why)
    };
    match text.value.parse::<DatapathId>() {
        Ok(DatapathId(0)) => report.push(
            wrong("zero is no bridge's id")
                .help("write what `ovs-vsctl get bridge NAME datapath_id` prints, like: dpid = \"0000000000000001\""),
        ),
        Ok(value) => return Some(At { value, place: text.place.clone() }),
        Err(why) => report.push(wrong("not a datapath id").help(format!("{why}, like: dpid = \"0000000000000001\""))),
    }
    None
}

/// A pattern for `of`, without repeated asterisks.
fn pattern(text: &At<&str>, of: &str, report: &mut Report) -> Option<At<String>> {
    let (why, help) = if text.value.is_empty() {
        ("empty", "an empty pattern matches nothing: write \"*\" for all, or a name")
    } else if text.value.contains(['[', ']', '{', '}']) {
        (
            "not a pattern",
            "only `*` (any characters) and `?` (one character) stand for others; write one entry for each name",
        )
    } else {
        return Some(At { value: text.value.to_owned(), place: text.place.clone() });
    };
    report.push(Draft::error(format!("{} can't be {of}", quote(text.value))).at(text.place.clone(), why).help(help));
    None
}

/// A pattern of port names.
pub(super) fn port_pattern(text: &At<&str>, of: &str, report: &mut Report) -> Option<At<String>> {
    let pattern = pattern(text, of, report)?;
    if pattern.value.contains(|char: char| char.is_whitespace() || char.is_control()) {
        report.push(
            Draft::error(format!("{} can't be {of}", quote(text.value)))
                .at(text.place.clone(), "has spaces")
                .help("remove them: no port's name has any, so this would match nothing"),
        );
        return None;
    }
    let least = pattern.value.chars().filter(|char| *char != '*').count();
    if least > PORT_NAME_MAX {
        report.push(
            Draft::warning(format!("{} matches no port: it needs {least} characters", quote(text.value)))
                .code(Code::NoEffect)
                .at(text.place.clone(), "too long")
                .help(format!(
                    "a bridge tells the first {PORT_NAME_MAX} characters of a port's name, and ports that begin alike can't be \
                     told apart: give the port a shorter name on its bridge, and write that here; don't cut the name"
                )),
        );
    }
    Some(pattern)
}

/// The name of one port.
pub(super) fn port_name(text: &At<&str>, of: &str, report: &mut Report) -> Option<At<String>> {
    if is_one(text, of, report) { port_pattern(text, of, report) } else { None }
}

/// The name of one bridge; a datapath id in any form becomes 16 hex digits.
pub(super) fn bridge_name(text: &At<&str>, of: &str, report: &mut Report) -> Option<At<String>> {
    if is_one(text, of, report) { bridge_pattern(text, of, report) } else { None }
}

fn is_one(text: &At<&str>, of: &str, report: &mut Report) -> bool {
    let why = match text.value {
        "" => "empty",
        pattern if !is_literal(pattern) => "may stand for several",
        _ => return true,
    };
    report.push(
        Draft::error(format!("{} can't be {of}", quote(text.value)))
            .at(text.place.clone(), why)
            .help("write the one name that is meant; several instances are several entries"),
    );
    false
}

/// A pattern of bridge names; a datapath id in any form becomes 16 hex digits.
pub(super) fn bridge_pattern(text: &At<&str>, of: &str, report: &mut Report) -> Option<At<String>> {
    let pattern = pattern(text, of, report)?;
    // A plain "1" or "cafe" may as well be a name.
    let is_id = pattern.value.starts_with("0x") || pattern.value.contains(':') || pattern.value.len() == 16;
    match pattern.value.parse::<DatapathId>() {
        Ok(dpid) if is_id => Some(At { value: dpid.to_string(), place: pattern.place }),
        _ => Some(pattern),
    }
}

/// Does a pattern stand for one name?
pub(super) fn is_literal(pattern: &str) -> bool {
    !pattern.contains(['*', '?'])
}

/// The one form of all patterns that match the same: within a run of wildcards, `?` first, then at most one `*`.
pub(super) fn canonical(pattern: &str) -> String {
    let mut text = String::new();
    let mut any = false;
    for char in pattern.chars() {
        match char {
            '*' => any = true,
            '?' => text.push('?'),
            _ => {
                text.extend(any.then_some('*'));
                any = false;
                text.push(char);
            }
        }
    }
    text.extend(any.then_some('*'));
    text
}

/// A MAC address that a station may have.
pub(super) fn mac(text: &At<&str>, of: &str, report: &mut Report) -> Option<At<MacAddr>> {
    let wrong = |why| {
        Draft::error(format!("{} can't be the MAC address of {of}", quote(text.value))).at(text.place.clone(), why)
    };
    match text.value.parse::<MacAddr>() {
        Ok(value) if value.is_station() => return Some(At { value, place: text.place.clone() }),
        Ok(value) if value.is_group() => report.push(
            wrong("a group address")
                .help("no frame is sent from one: write the address of the interface behind the port"),
        ),
        Ok(_) => report.push(
            wrong("all zeros").help("no frame is sent from it: write the address of the interface behind the port"),
        ),
        Err(why) => report.push(wrong("not a MAC address").help(why.to_string())),
    }
    None
}

/// An IP address that a station may have.
pub(super) fn ip(text: &At<&str>, of: &str, report: &mut Report) -> Option<At<IpAddr>> {
    let wrong = |why, help: &str| {
        Draft::error(format!("{} can't be an IP address of {of}", quote(text.value)))
            .at(text.place.clone(), why)
            .help(help)
    };
    let station = "write the address of the interface behind the port, like \"50.0.0.1\"";
    let draft = match text.value.parse::<IpAddr>() {
        Ok(value) if value.is_unspecified() => wrong("the unspecified address", station),
        Ok(value) if value.is_loopback() => wrong("a loopback address", station),
        Ok(value) if value.is_multicast() => wrong("a multicast address", station),
        Ok(IpAddr::V4(value)) if value.is_broadcast() => wrong("the broadcast address", station),
        Ok(IpAddr::V6(value)) if value.to_ipv4_mapped().is_some() => {
            wrong("an IPv4 address inside an IPv6 address", "write the IPv4 address alone, like \"50.0.0.1\"")
        }
        Ok(value) => return Some(At { value, place: text.place.clone() }),
        Err(_) => match text.value.split_once('/').map(|(address, _)| address.trim()) {
            Some(address) if address.parse::<IpAddr>().is_ok() => {
                wrong("a prefix", &format!("a port sends from single addresses: write \"{address}\""))
            }
            _ => wrong("not an IP address", "write an IPv4 or IPv6 address, like \"50.0.0.1\" or \"2001:db8::1\""),
        },
    };
    report.push(draft);
    None
}

/// Shortest and longest time between two probes.
const PROBE_INTERVAL: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(60)];

/// Time between two probes; `auto` is the budget unless it says otherwise.
pub(super) fn probe_interval(text: &At<&str>, report: &mut Report) -> Option<Probes> {
    let wrong =
        |why| Draft::error(format!("{} can't be the `probe_interval`", quote(text.value))).at(text.place.clone(), why);
    if text.value == "auto" {
        return Some(Probes::default());
    }
    let Some(time) = duration(text.value) else {
        report
            .push(wrong("not a time").help("write \"auto\", or milliseconds or seconds, such as \"200ms\" or \"2s\""));
        return None;
    };
    if time < PROBE_INTERVAL[0] || time > PROBE_INTERVAL[1] {
        report.push(wrong("out of range").help("write \"auto\", or a time from \"20ms\" to \"60s\""));
        return None;
    }
    Some(Probes::Every(time))
}

fn duration(text: &str) -> Option<Duration> {
    let (digits, per_unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('s')?, 1_000),
    };
    let digits = digits.trim_end_matches(' ');
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // What doesn't fit is too long in any case, and is reported as such.
    let number = digits.parse::<u64>().unwrap_or(u64::MAX);
    Some(Duration::from_millis(number.saturating_mul(per_unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("200ms"), Some(Duration::from_millis(200)));
        assert_eq!(duration("2 s"), Some(Duration::from_secs(2)));
        assert_eq!(duration("99999999999999999999s"), Some(Duration::from_millis(u64::MAX)));
        for text in ["", "s", "ms", "2", "2m", "-2s", "+2s", "1.5s", " 2s", "2µs"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn equal_patterns_have_one_form() {
        for (pattern, form) in [("a", "a"), ("**", "*"), ("*?", "?*"), ("a*?*b?", "a?*b?"), ("", "")] {
            assert_eq!(canonical(pattern), form);
        }
    }
}
