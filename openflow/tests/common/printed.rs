//! Does a message mean what Open vSwitch prints? Its transaction id, what an error is called, and every number that is
//! printed have to be those of ours.

use openflow::message::Message;
use openflow::types::Xid;
use serde_json::Value;

use crate::facts::{facts, number};

/// What numbers count that aren't in a message.
const COUNTS: &[&str] = &["ports", "queues", "bytes"];

/// Names that numbers stand behind without a sign between.
const GLUED: &[&str] = &["duration", "idle", "hard", "pkts", "bytes"];

/// Sets of bits, which are a list of names with us.
const BITS: &[&str] = &["flags", "config", "mask", "state", "Types", "Capabilities", "capabilities"];

/// Words in lines that nothing of ours is compared with, and why.
const UNCOMPARED: &[(&str, &str, &str)] = &[
    ("port=ANY", "OFPST_PORT_DESC request", "1.3 can't ask for one port"),
    ("group_id=ALL", "OFPST_GROUP_DESC request", "1.3 can't ask for one group"),
    ("vlan_tci=0x0000/0x1fff", "", "the match of OpenFlow 1.0 that means no tag"),
    ("0..15", "zone=NXM_NX_REG0", "offset and number of the zone's bits are one number"),
    ("total_len", "NXT_", "the packet's length"),
    ("50", "multipath(eth_src,50,", "it stands behind what looks like a field"),
    ("0", "multipath(eth_src,0,", "it stands behind what looks like a field"),
    ("0", "bundle(eth_src,0,", "it stands behind what looks like a field"),
    ("0", "bundle_load(eth_src,0,", "it stands behind what looks like a field"),
    ("50", "bundle_load(eth_src,50,", "it stands behind what looks like a field"),
    ("space=12", "allocated option space=12", "a sum"),
    ("0:", "packet_count:", "a band's place"),
    ("1:", "packet_count:", "a band's place"),
    ("2:", "packet_count:", "a band's place"),
];

/// Places and the names under which Open vSwitch prints them. Those that aren't here stand under any name.
pub(crate) const NAMES: &[(&str, &[&str])] = &[
    ("active_count", &["active"]),
    ("actset_output", &["actset_output"]),
    ("address", &["addr"]),
    ("arp_sha", &["arp_sha"]),
    ("arp_spa", &["arp_spa"]),
    ("arp_tha", &["arp_tha"]),
    ("arp_tpa", &["arp_tpa"]),
    ("buffer_id", &["buffer"]),
    ("bundle", &["bundle_id"]),
    ("burst", &["burst_size"]),
    ("byte_count", &["byte_count", "bytes", "n_bytes"]),
    ("byte_in_count", &["byte_in_count"]),
    ("collisions", &["coll"]),
    ("conj_id", &["conj_id"]),
    ("controller", &["id"]),
    ("controller_id", &["id"]),
    ("cookie", &["cookie"]),
    ("cookie_mask", &["cookie"]),
    ("ct_label", &["ct_label"]),
    ("ct_mark", &["ct_mark"]),
    ("ct_zone", &["ct_zone"]),
    ("current_speed", &["speed"]),
    ("datapath", &["dpid"]),
    ("duration_nsec", &["duration"]),
    ("duration_sec", &["duration"]),
    ("eth_dst", &["dl_dst", "eth_dst"]),
    ("eth_src", &["dl_src", "eth_src"]),
    ("ethertype", &["push_vlan"]),
    ("fin_hard_timeout", &["fin_hard_timeout"]),
    ("fin_idle_timeout", &["fin_idle_timeout"]),
    ("flow_count", &["flow_count"]),
    ("generation", &["generation_id"]),
    ("group", &["group_id", "group"]),
    ("hard_timeout", &["hard", "hard_timeout"]),
    ("idle_timeout", &["idle", "idle_timeout"]),
    ("in_port", &["in_port", "resubmit"]),
    ("ipv4_dst", &["nw_dst", "ip_dst"]),
    ("ipv4_src", &["nw_src", "ip_src"]),
    ("ipv6_dst", &["ipv6_dst"]),
    ("ipv6_flabel", &["ipv6_label"]),
    ("ipv6_nd_sll", &["nd_sll"]),
    ("ipv6_nd_target", &["nd_target"]),
    ("ipv6_nd_tll", &["nd_tll"]),
    ("ipv6_src", &["ipv6_src"]),
    ("key", &["set_tunnel", "set_tunnel64"]),
    ("lookup_count", &["lookup"]),
    ("mask", &["write_metadata"]),
    ("matched_count", &["matched"]),
    ("max_groups", &["max_groups"]),
    ("max_link", &["hrw"]),
    ("max_meter", &["max_meter"]),
    ("max_rate", &["max_rate"]),
    ("max_speed", &["now"]),
    ("metadata", &["write_metadata", "metadata"]),
    ("meter", &["meter", "meter_id"]),
    ("min_rate", &["min_rate"]),
    ("miss_send_len", &["miss_send_len"]),
    ("monitor", &["id"]),
    ("mpls_label", &["mpls_label"]),
    ("n_buffers", &["n_buffers"]),
    ("out_port", &["out_port"]),
    ("own", &["xid"]),
    ("packet_count", &["packet_count", "pkts", "n_packets"]),
    ("packet_in_count", &["packet_in_count"]),
    ("pkt_mark", &["pkt_mark"]),
    ("priority", &["priority"]),
    ("queue", &["queue", "set_queue"]),
    ("rate", &["rate"]),
    ("ref_count", &["ref_count"]),
    ("reg0", &["reg0"]),
    ("reg15", &["reg15"]),
    ("reg3", &["reg3"]),
    ("reg7", &["reg7"]),
    ("rx_bytes", &["bytes"]),
    ("rx_crc_err", &["crc"]),
    ("rx_dropped", &["drop"]),
    ("rx_errors", &["errs"]),
    ("rx_frame_err", &["frame"]),
    ("rx_over_err", &["over"]),
    ("rx_packets", &["pkts"]),
    ("sctp_dst", &["tp_dst"]),
    ("sctp_src", &["tp_src"]),
    ("tcp_dst", &["tp_dst", "tcp_dst"]),
    ("tcp_src", &["tp_src", "tcp_src"]),
    ("total_len", &["total_len"]),
    ("tun_dst", &["tun_dst"]),
    ("tun_ipv6_dst", &["tun_ipv6_dst"]),
    ("tun_ipv6_src", &["tun_ipv6_src"]),
    ("tun_src", &["tun_src"]),
    ("tunnel_id", &["tun_id"]),
    ("tx_bytes", &["bytes"]),
    ("tx_dropped", &["drop"]),
    ("tx_errors", &["errs", "errors"]),
    ("tx_packets", &["pkts"]),
    ("udp_dst", &["tp_dst"]),
    ("udp_src", &["tp_src"]),
    ("value", &["load"]),
    ("vlan_vid", &["vlan_tci", "dl_vlan", "vlan_vid"]),
    ("watch_group", &["watch_group"]),
    ("watch_port", &["watch_port"]),
    ("weight", &["weight"]),
    ("xreg2", &["xreg2"]),
    ("xxreg1", &["xxreg1"]),
    ("zone", &["zone"]),
    ("ip_dscp", &["nw_tos", "ip_dscp"]),
    ("ip_ecn", &["nw_ecn"]),
    ("table", &["table", "table_id", "resubmit", "goto_table"]),
    ("goto_table", &["goto_table"]),
];

/// Numbers that begin at 1 in print and at 0 on the wire.
pub(crate) const FROM_ONE: &[&str] = &["max_link", "clause"];

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
        || line.contains(",dl_src=") && line.contains("vlan_tci=") && !line.contains("0x1fff")
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
        // Whole seconds of `1.125s`; a part of a thousand of `12.5%`.
        _ => number()
            .or_else(|| value.strip_suffix('s')?.split('.').next()?.parse().ok())
            .or_else(|| value.strip_suffix('%')?.replace('.', "").parse().ok()),
    }
}

/// The nanoseconds of `1.125s`.
fn nanoseconds(value: &str) -> Option<u128> {
    let (_, fraction) = value.strip_suffix('s')?.split_once('.')?;
    format!("{fraction:0<9}").parse().ok()
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

/// A number in print.
pub(crate) struct Printed {
    /// What it is called; empty: nothing.
    pub(crate) name: String,
    /// The number, in our form.
    pub(crate) number: u128,
    /// The word that it stands in.
    word: String,
}

/// What a word calls its value, and the value: `name=value`, `name:value`, `group=1,bucket=actions=name:value`, `idle7`.
fn named(word: &str) -> (&str, &str) {
    let bare = word.trim_end_matches(':');
    if number(bare).is_some() {
        return ("", bare);
    }
    if let Some(name) = GLUED.iter().find(|name| {
        word.strip_prefix(**name).is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()))
    }) {
        return word.split_at(name.len());
    }
    let (name, value) = word.rsplit_once('=').unwrap_or(("", word));
    let is_number = number(value.split(['/', '-']).next().unwrap_or_default()).is_some();
    value.split_once(':').filter(|_| !is_number).unwrap_or((name, value))
}

/// The numbers that a value of that name has: with its mask, or the other end of its range. Of bits `from..to` we have offset
/// and number.
fn values(name: &str, value: &str) -> Vec<Option<u128>> {
    if let Some((from, to)) = value.split_once("..") {
        let (from, to) = (number(from), number(to));
        return vec![from, from.zip(to).map(|(from, to)| to - from + 1)];
    }
    if let Some((value, bits)) = value.split_once('/') {
        return vec![meant(name, value), mask(value, bits)];
    }
    if let Some((from, to)) = value.split_once('-').filter(|(from, _)| number(from).is_some()) {
        return vec![number(from), number(to)];
    }
    vec![meant(name, value), nanoseconds(value)]
}

/// Numbers of a line.
pub(crate) fn numbers(line: &str) -> Vec<Printed> {
    let separators = [' ', ',', '(', ')', '[', ']', '{', '}', '>', '<', ';', '"', '\''];
    let words: Vec<_> = line.split(separators).map(|word| word.trim_end_matches('-')).collect();
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let next = words.get(at + 1).copied().unwrap_or_default();
        let before = words[..at].iter().rfind(|word| !word.is_empty()).map_or("", |word| word.trim_end_matches(':'));
        let (name, value) = named(word);
        let is_bits = [before, name].iter().any(|name| BITS.contains(name));
        if is_bits || COUNTS.contains(&next) || name == "data_len" {
            continue;
        }
        // `CONTROLLER:128`
        let named_port = number(name);
        let name = match name.rsplit(['=', ':']).next().unwrap_or_default() {
            "set_field" => next,
            // A port that is an action of its own.
            "" if value.starts_with(char::is_uppercase) => "",
            "" => before.rsplit(['=', ':']).next().unwrap_or_default(),
            name => name,
        };
        let mut values = values(name, value);
        if next == "Mbps" {
            values[0] = values[0].map(|speed| speed * 1000);
        }
        values.push(named_port);
        let printed = |number| Printed { name: name.to_owned(), number, word: (*word).to_owned() };
        found.extend(values.into_iter().flatten().map(printed));
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
    let at = |place: &str, value: &str| {
        let first = u128::from(FROM_ONE.contains(&place));
        value.split('/').filter_map(number).map(|number| number + first).collect::<Vec<_>>()
    };
    let known: Vec<_> = facts.keys().map(|(place, value)| (place.as_str(), at(place, value))).collect();
    let is_known = |name: &str, number: u128| {
        let places: Vec<_> =
            NAMES.iter().filter(|(_, theirs)| theirs.contains(&name)).map(|(place, _)| *place).collect();
        known.iter().any(|(place, numbers)| (places.is_empty() || places.contains(place)) && numbers.contains(&number))
    };
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
        for Printed { name, number, word } in numbers(line) {
            if UNCOMPARED.iter().any(|(in_word, in_line, _)| word.starts_with(in_word) && line.contains(in_line)) {
                continue;
            }
            compared += 1;
            if !is_known(&name, number) && number != xid.0.into() && !is_within(&octets, number) {
                missing.push(format!("{word} in {line}"));
            }
        }
    }
    (compared, missing)
}
