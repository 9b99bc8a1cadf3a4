//! Does a message mean what os-ken's JSON twin of it says?

use serde_json::Value;

use crate::facts::{Facts, facts, normal, scalar};

/// Where what os-ken says stands in our JSON.
enum Said {
    /// Under this key.
    As(&'static str),
    /// Under this key, a name for each number.
    Names(&'static str, &'static [&'static str]),
    /// Under this key, a name for each bit.
    Flags(&'static str, &'static [&'static str]),
    /// A list of two sets of bits, each under a key of its own.
    TwoFlags([&'static str; 2], &'static [&'static str]),
    /// Somewhere, under another key each time.
    Somewhere,
    /// Base64, under this key in hex.
    Octets(&'static str),
    /// Nowhere as it is.
    Otherwise,
}
use Said::{As, Flags, Names, Octets, Otherwise, Somewhere, TwoFlags};

const PACKET_IN_REASONS: &[&str] = &["no_match", "action", "invalid_ttl", "action_set", "group", "packet_out"];
const PORT_REASONS: &[&str] = &["add", "delete", "modify"];
const REMOVED_REASONS: &[&str] =
    &["idle_timeout", "hard_timeout", "delete", "group_delete", "meter_delete", "eviction"];
const FEATURES: &[&str] = &[
    "mb10_hd",
    "mb10_fd",
    "mb100_hd",
    "mb100_fd",
    "gb1_hd",
    "gb1_fd",
    "gb10_fd",
    "gb40_fd",
    "gb100_fd",
    "tb1_fd",
    "other",
    "copper",
    "fiber",
    "autoneg",
    "pause",
    "pause_asym",
];
const PORT_CONFIG: &[&str] = &["port_down", "", "no_recv", "", "", "no_fwd", "no_packet_in"];

/// By class and key, or by key alone. What isn't here stands under its own key.
const SAID: &[(&str, Said)] = &[
    ("len", Otherwise),         // a length
    ("length", Otherwise),      // a length
    ("match_len", Otherwise),   // a length
    ("actions_len", Otherwise), // a length
    ("OFPActionId.type", As("kind")),
    ("OFPInstructionId.type", As("kind")),
    ("OFPOxmId.type", Somewhere),
    ("OFPOxmId.hasmask", Otherwise), // always 0 there
    ("OFPGroupMod.type", Names("kind", &["all", "select", "indirect", "fast_failover"])),
    ("OFPGroupDescStats.type", Names("kind", &["all", "select", "indirect", "fast_failover"])),
    ("OFPErrorMsg.type", As("type")),
    ("OFPErrorMsg.code", As("code")),
    ("OFPErrorMsg.exp_type", As("code")),
    ("type", Otherwise),                                      // the key that all of it stands under
    ("subtype", Otherwise),                                   // the key that all of it stands under
    ("property", Otherwise),                                  // the key that all of it stands under
    ("NXAction.experimenter", Otherwise),                     // the key that all of it stands under
    ("NXActionUnknown.data", Otherwise), // part of the body, behind the experimenter's number and the subtype
    ("OFPActionExperimenterUnknown.data", Otherwise), // part of the body, behind the experimenter's number
    ("OFPActionExperimenterUnknown.experimenter", Otherwise), // part of the body
    ("NXActionUnknown.experimenter", Otherwise), // part of the body
    ("versions", Otherwise),             // a bitmap
    ("data", Octets("data")),
    ("OFPEchoRequest.data", Octets("body")),
    ("OFPEchoReply.data", Octets("body")),
    ("OFPQueuePropMinRate.rate", As("min_rate")),
    ("OFPQueuePropMaxRate.rate", As("max_rate")),
    ("OFPQueuePropExperimenter.data", Otherwise),        // a list of octets
    ("OFPTableFeaturePropExperimenter.data", Otherwise), // a list of octets
    ("OFPPort.hw_addr", As("address")),
    ("OFPPortMod.hw_addr", As("address")),
    ("OFPPort.port_no", As("number")),
    ("port_no", As("port")),
    ("OFPPort.curr", Flags("current", FEATURES)),
    ("OFPPort.advertised", Flags("advertised", FEATURES)),
    ("OFPPort.supported", Flags("supported", FEATURES)),
    ("OFPPort.peer", Flags("peer", FEATURES)),
    ("OFPPort.curr_speed", As("current_speed")),
    ("OFPPort.config", Flags("config", PORT_CONFIG)),
    ("OFPPort.state", Flags("state", &["link_down", "blocked", "live"])),
    ("OFPPortMod.config", Flags("config", PORT_CONFIG)),
    ("OFPPortMod.mask", Flags("mask", PORT_CONFIG)),
    ("OFPPortMod.advertise", Flags("advertise", FEATURES)),
    ("OFPPortStatus.reason", Names("reason", PORT_REASONS)),
    ("OFPPacketIn.reason", Names("reason", PACKET_IN_REASONS)),
    ("OFPFlowRemoved.reason", Names("reason", REMOVED_REASONS)),
    ("OFPFlowMod.command", Names("command", &["add", "modify", "modify_strict", "delete", "delete_strict"])),
    ("OFPGroupMod.command", Names("command", &["add", "modify", "delete"])),
    ("OFPMeterMod.command", Names("command", &["add", "modify", "delete"])),
    (
        "OFPFlowMod.flags",
        Flags("flags", &["send_flow_rem", "check_overlap", "reset_counts", "no_pkt_counts", "no_byt_counts"]),
    ),
    (
        "OFPFlowStats.flags",
        Flags("flags", &["send_flow_rem", "check_overlap", "reset_counts", "no_pkt_counts", "no_byt_counts"]),
    ),
    ("OFPMeterMod.flags", Flags("flags", &["kbps", "pktps", "burst", "stats"])),
    ("OFPMeterConfigStats.flags", Flags("flags", &["kbps", "pktps", "burst", "stats"])),
    ("OFPGetConfigReply.flags", Flags("flags", &["frag_drop", "frag_reasm"])),
    ("OFPSetConfig.flags", Flags("flags", &["frag_drop", "frag_reasm"])),
    ("OFPMultipart.flags", Flags("flags", &["more"])),
    ("NXActionCT.flags", Flags("flags", &["commit", "force"])),
    ("NXActionCT.recirc_table", As("table")),
    ("NXActionCT.alg", As("helper")),
    ("NXActionCT.zone_ofs_nbits", Otherwise), // offset and number of bits in one number
    ("NXActionCT.zone_src", Otherwise),       // a header
    ("NXActionController2.max_len", As("max_len")),
    ("NXActionController2.controller_id", As("controller_id")),
    ("NXActionController2.pause", Otherwise),    // the key alone
    ("NXActionController2.userdata", Otherwise), // a list of octets
    ("NXActionController.controller_id", As("controller")),
    (
        "NXActionController.reason",
        Names("reason", &["no_match", "action", "invalid_ttl", "action_set", "group", "packet_out"]),
    ),
    (
        "NXActionController2.reason",
        Names("reason", &["no_match", "action", "invalid_ttl", "action_set", "group", "packet_out"]),
    ),
    ("NXActionDecTtlCntIds.cnt_ids", Otherwise), // part of the body of an action without a name
    ("NXActionFinTimeout.fin_idle_timeout", As("idle_timeout")),
    ("NXActionFinTimeout.fin_hard_timeout", As("hard_timeout")),
    ("NXActionLearn.flags", Otherwise), // no flag is set
    ("NXActionNAT.flags", As("flags")),
    ("NXActionNAT.range_ipv4_max", Otherwise),  // part of the bounds
    ("NXActionNAT.range_ipv4_min", Otherwise),  // part of the bounds
    ("NXActionNAT.range_ipv6_max", Otherwise),  // part of the bounds
    ("NXActionNAT.range_ipv6_min", Otherwise),  // part of the bounds
    ("NXActionNAT.range_proto_max", Otherwise), // part of the bounds
    ("NXActionNAT.range_proto_min", Otherwise), // part of the bounds
    ("NXActionNote.note", Otherwise),           // a list of octets
    ("NXActionRegLoad.ofs_nbits", Otherwise),   // offset and number of bits in one number
    ("NXActionRegMove.src_field", As("src")),
    ("NXActionRegMove.dst_field", As("dst")),
    ("NXActionRegMove.src_ofs", As("src_offset")),
    ("NXActionRegMove.dst_ofs", As("dst_offset")),
    ("NXActionStackPop.start", As("offset")),
    ("NXActionStackPush.start", As("offset")),
    ("NXActionStackPop.end", Otherwise),             // the number of bits instead
    ("NXActionStackPush.end", Otherwise),            // the number of bits instead
    ("NXActionSample.collector_set_id", Otherwise),  // part of the body of an action without a name
    ("NXActionSample.obs_domain_id", Otherwise),     // part of the body of an action without a name
    ("NXActionSample.obs_point_id", Otherwise),      // part of the body of an action without a name
    ("NXActionSample.probability", Otherwise),       // part of the body of an action without a name
    ("NXActionSample2.collector_set_id", Otherwise), // part of the body of an action without a name
    ("NXActionSample2.obs_domain_id", Otherwise),    // part of the body of an action without a name
    ("NXActionSample2.obs_point_id", Otherwise),     // part of the body of an action without a name
    ("NXActionSample2.probability", Otherwise),      // part of the body of an action without a name
    ("NXActionSample2.sampling_port", Otherwise),    // part of the body of an action without a name
    ("NXFlowSpecLoad.src", Otherwise),               // a field and an offset
    ("NXFlowSpecLoad.dst", Otherwise),               // a field and an offset
    ("NXFlowSpecMatch.src", Otherwise),              // a field and an offset
    ("NXFlowSpecMatch.dst", Otherwise),              // a field and an offset
    ("NXFlowSpecOutput.src", Otherwise),             // a field and an offset
    ("NXFlowSpecOutput.dst", Otherwise),             // nothing
    ("OFPActionSetMplsTtl.mpls_ttl", As("ttl")),
    ("OFPActionSetNwTtl.nw_ttl", As("ttl")),
    ("NXAction.tun_id", As("key")),
    ("NXAction.ofs_nbits", Otherwise), // offset and number of bits in one number
    ("NXActionMultipath.arg", As("argument")),
    ("NXActionMultipath.algorithm", Names("algorithm", &["modulo_n", "hash_threshold", "hrw", "iter_hash"])),
    (
        "NXActionMultipath.fields",
        Names(
            "fields",
            &["eth_src", "symmetric_l4", "symmetric_l3l4", "symmetric_l3l4_udp", "nw_src", "nw_dst", "symmetric_l3"],
        ),
    ),
    ("ONFBundleCtrlMsg.experimenter", Otherwise), // the key that all of it stands under
    ("ONFBundleCtrlMsg.exp_type", Otherwise),     // the key that all of it stands under
    ("ONFBundleCtrlMsg.bundle_id", As("bundle")),
    ("ONFBundleCtrlMsg.flags", Flags("flags", &["atomic", "ordered"])),
    (
        "ONFBundleCtrlMsg.type",
        Names(
            "kind",
            &[
                "open_request",
                "open_reply",
                "close_request",
                "close_reply",
                "commit_request",
                "commit_reply",
                "discard_request",
                "discard_reply",
            ],
        ),
    ),
    ("OFPInstructionWriteMetadata.metadata_mask", As("mask")),
    ("OFPInstructionGotoTable.table_id", As("goto_table")),
    ("OFPInstructionMeter.meter_id", As("meter")),
    ("OFPAggregateStatsRequest.type", Otherwise), // the key that all of it stands under
    ("OFPDescStats.mfr_desc", As("manufacturer")),
    ("OFPDescStats.hw_desc", As("hardware")),
    ("OFPDescStats.sw_desc", As("software")),
    ("OFPDescStats.serial_num", As("serial")),
    ("OFPDescStats.dp_desc", As("datapath")),
    ("OFPGetAsyncReply.packet_in_mask", TwoFlags(["packet_in", "packet_in_slave"], PACKET_IN_REASONS)),
    ("OFPGetAsyncReply.port_status_mask", TwoFlags(["port_status", "port_status_slave"], PORT_REASONS)),
    ("OFPGetAsyncReply.flow_removed_mask", TwoFlags(["flow_removed", "flow_removed_slave"], REMOVED_REASONS)),
    ("OFPSetAsync.packet_in_mask", TwoFlags(["packet_in", "packet_in_slave"], PACKET_IN_REASONS)),
    ("OFPSetAsync.port_status_mask", TwoFlags(["port_status", "port_status_slave"], PORT_REASONS)),
    ("OFPSetAsync.flow_removed_mask", TwoFlags(["flow_removed", "flow_removed_slave"], REMOVED_REASONS)),
    ("OFPGroupFeaturesStats.types", Flags("types", &["all", "select", "indirect", "fast_failover"])),
    (
        "OFPGroupFeaturesStats.capabilities",
        Flags("capabilities", &["select_weight", "select_liveness", "chaining", "chaining_checks"]),
    ),
    ("OFPMeterFeaturesStats.capabilities", As("capabilities")),
    ("OFPMeterBandStats.byte_band_count", As("byte_count")),
    ("OFPMeterBandStats.packet_band_count", As("packet_count")),
    ("burst_size", As("burst")),
    ("meter_id", As("meter")),
    ("group_id", As("group")),
    ("table_id", As("table")),
    ("queue_id", As("queue")),
    ("generation_id", As("generation")),
    ("datapath_id", As("datapath")),
    ("role", Names("role", &["no_change", "equal", "master", "slave"])),
    (
        "OFPSwitchFeatures.capabilities",
        Flags(
            "capabilities",
            &[
                "flow_stats",
                "table_stats",
                "port_stats",
                "group_stats",
                "",
                "ip_reasm",
                "queue_stats",
                "",
                "port_blocked",
            ],
        ),
    ),
    ("OFPTableFeaturePropNextTables.table_ids", As("next_tables")),
    ("OFPTableMod.config", Otherwise),           // no flag is set
    ("OFPTableFeaturesStats.config", Otherwise), // no flag is set
];

/// Fields of match that os-ken has a name for and we haven't.
const NAMELESS: &[&str] = &["pbb_uca"];

/// Fields that os-ken names otherwise.
const RENAMED: &[(&str, &str)] = &[("tun_ipv4_src", "tun_src"), ("tun_ipv4_dst", "tun_dst")];

fn said(class: &str, key: &str) -> &'static Said {
    let find = |name: &str| SAID.iter().find(|(entry, _)| *entry == name).map(|(_, said)| said);
    let general = if class.starts_with("NXAction") { "NXAction" } else { class };
    find(&format!("{class}.{key}"))
        .or_else(|| find(&format!("{general}.{key}")))
        .or_else(|| find(key))
        .unwrap_or(&As(""))
}

/// Octets in Base64, as hex.
fn base64(text: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|letter| DIGITS.iter().position(|digit| *digit == letter));
    let (mut hex, mut bits, mut waiting) = (String::new(), 0, 0);
    for digit in digits {
        (bits, waiting) = (bits << 6 | digit, waiting + 6);
        if waiting >= 8 {
            waiting -= 8;
            hex += &format!("{:02x}", bits >> waiting & 0xff);
        }
    }
    hex
}

fn bits(number: u64, names: &[&'static str]) -> Vec<String> {
    let name = |bit: usize| names.get(bit).filter(|name| !name.is_empty());
    (0..64)
        .filter(|bit| number >> bit & 1 != 0)
        .map(|bit| name(bit).map_or_else(|| format!("bit {bit}"), |name| (*name).to_owned()))
        .collect()
}

/// What a value of os-ken's means: at which place which value; no place: at any.
fn expected(class: &str, key: &str, value: &Value, found: &mut Vec<(Option<String>, String)>) {
    let many = match value {
        Value::Array(list) => list.clone(),
        one => vec![one.clone()],
    };
    let mut say = |place: &str, text: String| found.push((Some(place.to_owned()), text));
    match said(class, key) {
        Otherwise => {}
        As(place) => {
            let place = if place.is_empty() { key } else { place };
            many.iter().filter_map(scalar).for_each(|text| say(place, normal(&text)));
        }
        Octets(place) => many.iter().filter_map(Value::as_str).for_each(|text| say(place, normal(&base64(text)))),
        Names(place, names) => {
            let name = value.as_u64().and_then(|number| names.get(number as usize));
            say(place, name.map_or_else(|| format!("the name of {value}"), |name| (*name).to_owned()));
        }
        Flags(place, names) => {
            bits(value.as_u64().unwrap_or_default(), names).into_iter().for_each(|name| say(place, name));
        }
        TwoFlags(places, names) => {
            for (place, value) in places.iter().zip(&many) {
                bits(value.as_u64().unwrap_or_default(), names).into_iter().for_each(|name| say(place, name));
            }
        }
        Somewhere => found.extend(many.iter().filter_map(scalar).map(|text| (None, normal(&text)))),
    }
}

fn walk(twin: &Value, class: &str, found: &mut Vec<(Option<String>, String)>) {
    match twin {
        Value::Array(list) => list.iter().for_each(|value| walk(value, class, found)),
        Value::Object(map) if class == "OXMTlv" => {
            let text = |key: &str| scalar(&map[key]);
            let field = text("field").unwrap_or_default();
            if !NAMELESS.contains(&field.as_str()) {
                let value = text("value").unwrap_or_default();
                let value = text("mask").map_or_else(|| value.clone(), |mask| format!("{value}/{mask}"));
                let ours =
                    RENAMED.iter().find(|(theirs, _)| *theirs == field).map_or(field.as_str(), |(_, ours)| *ours);
                found.push((Some(ours.to_owned()), normal(&value)));
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                let scalars = value
                    .as_array()
                    .is_some_and(|list| list.iter().all(|value| !value.is_object() && !value.is_array()));
                let multipart = class.ends_with("StatsReply") || class.ends_with("StatsRequest");
                match value {
                    // A packet taken apart.
                    Value::Object(_) if key == "data" && class == "OFPPacketOut" => {}
                    Value::Object(_) | Value::Array(_) if !scalars => {
                        walk(value, if key.starts_with(char::is_uppercase) { key } else { class }, found);
                    }
                    _ if key == "flags" && multipart => expected("OFPMultipart", key, value, found),
                    Value::Null => {}
                    _ => expected(class, key, value, found),
                }
            }
        }
        _ => {}
    }
}

/// How many facts os-ken's twin has, and those that aren't in ours.
pub(crate) fn compare(twin: &Value, ours: &Value) -> (usize, Vec<String>) {
    let mut wanted = Vec::new();
    walk(twin, "", &mut wanted);
    let mut there: Facts = facts(ours);
    let mut missing = Vec::new();
    for (place, value) in &wanted {
        let found = there
            .iter_mut()
            .find(|((at, what), count)| place.as_ref().is_none_or(|place| at == place) && what == value && **count > 0);
        match found {
            Some((_, count)) => *count -= 1,
            None => missing.push(format!("{} is {value}", place.as_deref().unwrap_or("something"))),
        }
    }
    (wanted.len(), missing)
}
