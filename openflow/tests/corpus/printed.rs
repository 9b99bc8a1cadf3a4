//! Does a message mean what Open vSwitch prints? Its transaction id, what an error is called, and every number that is
//! printed have to be those of ours.

use std::collections::BTreeSet;

use openflow::message::Message;
use openflow::types::Xid;
use serde_json::Value;

use crate::exceptions::UNCOMPARED;
use crate::facts::{facts, number};

/// Numbers that count something, or that tell of the packet within a message.
const COUNTS: &[&str] = &["ports", "queues", "bytes", "data_len"];

/// Sets of bits, which are a list of names with us.
const BITS: &[&str] = &["flags", "config", "mask", "Types", "Capabilities"];

/// Errors that have another name than in the text of 1.3.
const ERRORS: &[(&str, &str)] = &[
    ("OFPBRC_IS_SECONDARY", "OFPBRC_IS_SLAVE"),
    ("OFPBRC_BAD_STAT", "OFPBRC_BAD_MULTIPART"),
    ("OFPBRC_BAD_VENDOR", "OFPBRC_BAD_EXPERIMENTER"),
];

/// Lines that say nothing of the message itself: octets, and the packet in it taken apart.
fn is_about_octets(line: &str) -> bool {
    let first = line.split(' ').next().unwrap_or_default();
    first.len() == 8 && u32::from_str_radix(first, 16).is_ok()
        || line.contains(",dl_src=") && line.contains(",vlan_tci=")
        || line.contains("version bitmap")
}

/// The number that a value stands for, given what it is called.
fn meant(key: &str, value: &str) -> Option<u128> {
    let number = || number(value);
    match key {
        "nw_tos" => number().map(|tos| tos >> 2),
        "dl_vlan" => number().map(|id| id | 0x1000),
        "dpid" => u128::from_str_radix(value, 16).ok(),
        "queue" if value == "ALL" => Some(u32::MAX.into()),
        // Whole seconds of `1.125s`.
        _ => number().or_else(|| value.strip_suffix('s')?.split('.').next()?.parse().ok()),
    }
}

/// A mask that is written as the length of a prefix of an address.
fn mask(value: &str, mask: &str) -> Option<u128> {
    let bits = if value.contains("::") { 128 } else { 32 };
    match mask.parse::<u32>() {
        Ok(length) if value.contains(['.', ':']) && length <= bits => {
            Some(u128::MAX >> (128 - bits) & !(u128::MAX.checked_shr(128 - bits + length).unwrap_or_default()))
        }
        _ => number(mask),
    }
}

/// Numbers of a line, with the words that they stand in: alone, or behind a name and `=` or `:`, with masks and other ends
/// of ranges. Of bits `[from..to]` we have offset and number.
fn numbers(line: &str) -> Vec<(String, u128)> {
    let words: Vec<_> = line
        .split([' ', ',', '(', ')', '[', ']', '{', '}', '>', '<', ';', '"', '\''])
        .map(|word| word.trim_end_matches('-'))
        .collect();
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let next = words.get(at + 1).copied().unwrap_or_default();
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => {
                let whole = number(value.split('/').next().unwrap_or_default()).is_some();
                (key, value.split_once(':').filter(|_| !whole).map_or(value, |(_, value)| value))
            }
            None if number(word).is_some() => ("", *word),
            None => word.split_once(':').unwrap_or(("", word)),
        };
        let before = words[..at].iter().rfind(|word| !word.is_empty()).map_or("", |word| word.trim_end_matches(':'));
        let elsewhere = [next, key].iter().any(|name| COUNTS.contains(name))
            || [before, key].iter().any(|name| BITS.contains(name));
        if elsewhere || word.ends_with(':') {
            continue;
        }
        let mut say = |number: Option<u128>| found.extend(number.map(|number| ((*word).to_owned(), number)));
        if next == "Mbps" {
            say(number(value).map(|speed| speed * 1000));
        } else if let Some((from, to)) = value.split_once("..") {
            if let (Some(from), Some(to)) = (number(from), number(to)) {
                say(Some(from));
                say(Some(to - from + 1));
            }
        } else if let Some((value, bits)) = value.split_once('/') {
            say(meant(key, value));
            say(mask(value, bits));
        } else {
            say(meant(key, value));
        }
    }
    found
}

/// Texts that may be octets in hex.
fn collect_octets<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => map.values().for_each(|value| collect_octets(value, found)),
        Value::Array(list) => list.iter().for_each(|value| collect_octets(value, found)),
        Value::String(text) if text.len().is_multiple_of(2) && text.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            found.push(text);
        }
        _ => {}
    }
}

/// Is this number among octets that we keep as they are?
fn is_within(octets: &[&str], number: u128) -> bool {
    let hex = format!("{number:x}");
    let hex = if hex.len().is_multiple_of(2) { hex } else { format!("0{hex}") };
    octets.iter().any(|octets| octets.contains(&hex))
}

/// How many facts were printed, and those that aren't in ours.
pub(crate) fn compare(text: &[String], xid: Xid, message: &Message, ours: &Value) -> (usize, Vec<String>) {
    let facts = facts(ours);
    let mut known: BTreeSet<u128> = facts.keys().flat_map(|(_, value)| value.split('/').filter_map(number)).collect();
    known.insert(xid.0.into());
    let mut octets = Vec::new();
    collect_octets(ours, &mut octets);
    let mut text = text;
    let mut missing = Vec::new();
    if let Message::Error(error) = message {
        // What the error is about is printed behind it, as a message of its own.
        let printed = text[0].rsplit(' ').next().unwrap_or_default();
        let printed = ERRORS.iter().find(|(theirs, _)| *theirs == printed).map_or(printed, |(_, ours)| *ours);
        if error.code.name().is_some_and(|name| name != printed) {
            missing.push(format!("{} in {}", error.code, text[0]));
        }
        text = &text[..1];
    }
    let mut compared = 0;
    for line in text.iter().filter(|line| !is_about_octets(line)) {
        for (word, value) in numbers(line) {
            if UNCOMPARED.iter().any(|(in_word, in_line, _)| word.contains(in_word) && line.contains(in_line)) {
                continue;
            }
            compared += 1;
            if !known.contains(&value) && !is_within(&octets, value) {
                missing.push(format!("{word} in {line}"));
            }
        }
    }
    (compared, missing)
}
