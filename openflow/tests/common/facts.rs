//! What a message says, as a bag of facts: the name of a place and the value there, however either was written.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

/// How often each value stands at each place.
pub(crate) type Facts = BTreeMap<(String, String), usize>;

/// Ports that have names, by number.
const PORTS: &[(&str, u32)] = &[
    ("IN_PORT", 0xffff_fff8),
    ("TABLE", 0xffff_fff9),
    ("NORMAL", 0xffff_fffa),
    ("FLOOD", 0xffff_fffb),
    ("ALL", 0xffff_fffc),
    ("CONTROLLER", 0xffff_fffd),
    ("LOCAL", 0xffff_fffe),
    ("ANY", 0xffff_ffff),
];

/// Other numbers that have names, by place.
const NAMES: &[(&str, &str, u32)] = &[
    ("buffer_id", "NONE", 0xffff_ffff),
    ("queue", "ALL", 0xffff_ffff),
    ("meter", "ALL", 0xffff_ffff),
    ("meter", "CONTROLLER", 0xffff_fffe),
    ("meter", "SLOWPATH", 0xffff_fffd),
    ("group", "ANY", 0xffff_ffff),
    ("group", "ALL", 0xffff_fffc),
    ("out_group", "ANY", 0xffff_ffff),
    ("watch_group", "ANY", 0xffff_ffff),
    ("table", "ALL", 0xff),
];

/// The number that a text stands for: decimal, hex with 0x, a MAC or IP address, a port's name.
pub(crate) fn number(text: &str) -> Option<u128> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u128::from_str_radix(hex, 16).ok();
    }
    let octets: Vec<_> = text.split(':').collect();
    if octets.len() == 6 && octets.iter().all(|octet| octet.len() == 2) {
        return u128::from_str_radix(&octets.concat(), 16).ok();
    }
    let plain = || text.parse().ok();
    let four = || text.parse::<Ipv4Addr>().ok().map(|address| address.to_bits().into());
    let six = || text.parse::<Ipv6Addr>().ok().map(Ipv6Addr::to_bits);
    let port = || PORTS.iter().find(|(name, _)| *name == text).map(|(_, number)| u128::from(*number));
    plain().or_else(four).or_else(six).or_else(port)
}

/// A value in one form: numbers in decimal, a mask behind a slash.
pub(crate) fn normal(text: &str) -> String {
    let one = |part: &str| number(part).map_or_else(|| part.to_owned(), |number| number.to_string());
    match text.split_once('/') {
        Some((value, mask)) => format!("{}/{}", one(value), one(mask)),
        None => one(text),
    }
}

/// A scalar as text.
pub(crate) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// Everything that our JSON says. What stands in a list stands at the place of the list.
pub(crate) fn facts(value: &Value) -> Facts {
    fn walk(value: &Value, place: &str, found: &mut Facts) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| walk(value, key, found)),
            Value::Array(list) => list.iter().for_each(|value| walk(value, place, found)),
            other => {
                if let Some(mut text) = scalar(other) {
                    // A datapath's number is 16 hex digits without the mark of a hex number.
                    if place == "datapath" && text.len() == 16 {
                        text.insert_str(0, "0x");
                    }
                    if let Some((.., number)) = NAMES.iter().find(|(at, name, _)| *at == place && *name == text) {
                        text = number.to_string();
                    }
                    *found.entry((place.to_owned(), normal(&text))).or_default() += 1;
                }
            }
        }
    }
    let mut found = Facts::new();
    walk(value, "", &mut found);
    found
}

/// `SetNwTtl` as JSON writes it: `set_nw_ttl`.
pub(crate) fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
