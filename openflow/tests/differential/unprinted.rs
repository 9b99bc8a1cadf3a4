//! The other way round: does Open vSwitch print every number that we encoded?

use std::collections::BTreeSet;

use serde_json::Value;

use crate::facts::{facts, number};
use crate::printed::{FROM_ONE, NAMES, numbers};

/// Places whose numbers Open vSwitch doesn't print in a text that begins like this.
const UNPRINTED: &[(&str, &str)] = &[
    ("max_len", ""),
    ("eth_type", ""),
    ("tcp_flags", ""),
    ("data", ""),
    ("userdata", ""),
    ("immediate", ""),
    ("body", "OFPT_ECHO"),
    ("out_group", "OFPT_FLOW_MOD"),
    ("out_group", "ONFT_BUNDLE_ADD"),
    ("out_group", "OFPST_FLOW request"),
    ("cookie", "OFPST_FLOW request"),
    ("cookie_mask", "OFPST_FLOW request"),
    ("out_group", "OFPST_AGGREGATE request"),
    ("cookie", "OFPST_AGGREGATE request"),
    ("cookie_mask", "OFPST_AGGREGATE request"),
    ("priority", "ONFST_FLOW_MONITOR reply"),
];

/// Values that are names, and what Open vSwitch prints for them.
const WORDS: &[(&str, &str, &str)] = &[
    ("command", "add", "ADD"),
    ("command", "modify", "MOD"),
    ("command", "modify_strict", "MOD_STRICT"),
    ("command", "delete", "DEL"),
    ("command", "delete_strict", "DEL_STRICT"),
    ("flags", "send_flow_rem", "send_flow_rem"),
    ("flags", "check_overlap", "check_overlap"),
    ("flags", "reset_counts", "reset_counts"),
    ("flags", "no_pkt_counts", "no_packet_counts"),
    ("flags", "no_byt_counts", "no_byte_counts"),
    ("flags", "kbps", "kbps"),
    ("flags", "pktps", "pktps"),
    ("flags", "burst", "burst"),
    ("flags", "stats", "stats"),
    ("flags", "atomic", "atomic"),
    ("flags", "ordered", "ordered"),
    ("flags", "initial", "initial"),
    ("flags", "delete", "delete"),
    ("flags", "modify", "modify"),
    ("flags", "actions", "actions"),
    ("flags", "own", "own"),
    ("flags", "frag_drop", "frags=drop"),
    ("flags", "frag_reasm", "frags=reassemble"),
    ("flags", "more", "more"),
    ("kind", "all", "type=all"),
    ("kind", "select", "type=select"),
    ("kind", "indirect", "type=indirect"),
    ("kind", "fast_failover", "type=ff"),
    ("kind", "open_request", "type=OPEN_REQUEST"),
    ("kind", "open_reply", "type=OPEN_REPLY"),
    ("kind", "close_request", "type=CLOSE_REQUEST"),
    ("kind", "close_reply", "type=CLOSE_REPLY"),
    ("kind", "commit_request", "type=COMMIT_REQUEST"),
    ("kind", "commit_reply", "type=COMMIT_REPLY"),
    ("kind", "discard_request", "type=DISCARD_REQUEST"),
    ("kind", "discard_reply", "type=DISCARD_REPLY"),
    ("event", "added", "event=ADDED"),
    ("event", "deleted", "event=DELETED"),
    ("event", "modified", "event=MODIFIED"),
    ("role", "equal", "role=equal"),
    ("role", "master", "role=primary"),
    ("role", "slave", "role=secondary"),
    ("reason", "idle_timeout", "reason=idle"),
    ("reason", "hard_timeout", "reason=hard"),
    ("reason", "group_delete", "reason=group_delete"),
    ("reason", "meter_delete", "reason=meter_delete"),
    ("config", "port_down", "PORT_DOWN"),
    ("state", "link_down", "LINK_DOWN"),
    ("state", "blocked", "BLOCKED"),
    ("state", "live", "LIVE"),
    ("capabilities", "flow_stats", "FLOW_STATS"),
    ("capabilities", "table_stats", "TABLE_STATS"),
    ("capabilities", "port_stats", "PORT_STATS"),
    ("capabilities", "group_stats", "GROUP_STATS"),
    ("capabilities", "ip_reasm", "IP_REASM"),
    ("capabilities", "queue_stats", "QUEUE_STATS"),
    ("capabilities", "port_blocked", "PORT_BLOCKED"),
    ("packet_in", "no_match", "no_match"),
    ("packet_in", "action", "action"),
    ("packet_in", "invalid_ttl", "invalid_ttl"),
    ("flow_removed", "idle_timeout", "idle"),
    ("flow_removed", "hard_timeout", "hard"),
    ("current", "gb1_fd", "1GB-FD"),
    ("advertised", "gb40_fd", "40GB-FD"),
    ("supported", "fiber", "FIBER"),
    ("supported", "autoneg", "AUTO_NEG"),
];

/// What of ours isn't printed: numbers above 255, under their names, and names.
pub(crate) fn unprinted(text: &[String], ours: &Value) -> Vec<String> {
    let printed: Vec<_> = text.iter().flat_map(|line| numbers(line)).collect();
    let whole = text.iter().flat_map(|line| line.split([' ', ',', '[', ']']));
    let words: BTreeSet<_> = whole.flat_map(|word| [word, word.trim_start_matches("flags=")]).collect();
    let mut missing = Vec::new();
    for (place, value) in facts(ours).keys() {
        if UNPRINTED.iter().any(|(unprinted, begin)| unprinted == place && text[0].starts_with(begin)) {
            continue;
        }
        let word = WORDS.iter().find(|(named, ours, _)| named == place && ours == value);
        missing.extend(word.filter(|(.., theirs)| !words.contains(theirs)).map(|_| format!("{place} {value}")));
        let names = NAMES.iter().find(|(named, _)| named == place).map(|(_, names)| *names);
        for number in value.split('/').filter_map(number).filter(|number| *number > 255 && *number != u32::MAX.into()) {
            let shown = number + u128::from(FROM_ONE.contains(&place.as_str()));
            let is_there = printed.iter().any(|printed| {
                printed.number == shown && names.is_none_or(|names| names.contains(&printed.name.as_str()))
            });
            if !is_there {
                missing.push(format!("{place} {number}"));
            }
        }
    }
    missing
}
