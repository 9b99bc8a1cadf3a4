//! The program itself: exit codes, signals, and what it says.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Output, Stdio};

use support::Folder;
use support::program::{Program, espalier};

fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = espalier(arguments).output().unwrap();
    let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn serve_reloads_on_sighup_and_stops_in_order_on_sigterm() {
    let folder = Folder::new();
    let policy = folder.write("p.toml", "version = 1\n");
    let state = folder.0.join("state");
    let (policy, state) = (policy.to_str().unwrap(), state.to_str().unwrap());
    let mut daemon = Program::start(&["--policy", policy, "--state", state]);
    let server = format!("--server=http://{}", daemon.rest);

    let (code, text, _) = run(&["get", "status", &server]);
    assert!(code == 0 && text.contains("converged"), "{text}");
    let (code, text, _) = run(&["get", "bridges", "-o", "json", &server]);
    assert_eq!((code, text.as_str()), (0, "[]\n"));
    let (code, _, text) = run(&["get", "tree", "none", &server]);
    assert!(code == 1 && text.contains("\"none\""), "{text}");
    let (code, _, text) = run(&["get", "hosts", "02:00:00:00:00:01", &server]);
    assert!(code == 1 && text.contains("02:00"), "{text}");

    let (code, _, text) = run(&["serve", "--openflow=127.0.0.1:0", "--rest=127.0.0.1:0", "--state", state]);
    assert!(code == 2 && text.contains("another espalier is running"), "{text}");

    daemon.signal("-HUP");
    daemon.line("as asked");
    daemon.signal("-TERM");
    daemon.line("stopping");
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
    let (code, _, text) = run(&["get", "status", &server]);
    assert!(code == 3 && text.contains("espalier serve") && text.contains(&daemon.rest.to_string()), "{text}");
}

#[test]
fn options_come_from_a_file_too_and_mistakes_in_it_are_told() {
    let folder = Folder::new();
    let state = folder.0.join("state");
    let text = format!("state = {state:?}\nlog_format = \"json\"\nrest = \"0.0.0.0:1\"\n");
    let file = folder.write("espalier.toml", &text);
    let daemon = Program::start(&["--config", file.to_str().unwrap()]);
    daemon.signal("-INT");
    drop(daemon);
    assert!(state.join("policy").exists());

    let file = folder.write("espalier.toml", "liste = 1\n");
    let (code, _, text) = run(&["serve", "--config", file.to_str().unwrap()]);
    assert!(code == 2 && text.contains("espalier.toml") && text.contains("liste"), "{text}");
}

#[test]
fn wrong_use_is_2_and_check_tells_what_is_valid() {
    for arguments in
        [&["get", "nothing"][..], &["serve", "--openflow", "6653"], &["check"], &["get", "status", "x"], &[]]
    {
        assert_eq!(run(arguments).0, 2, "{arguments:?}");
    }
    assert!(run(&["--version"]).1.contains(env!("CARGO_PKG_VERSION")));
    let folder = Folder::new();
    let good = folder.write("good.toml", "version = 1\n");
    let (code, text, _) = run(&["check", good.to_str().unwrap()]);
    assert!(code == 0 && text.starts_with("ok: 0 tenants"), "{text}");
    let bad = folder.write("bad.toml", "version = [\n");
    let (code, _, text) = run(&["check", bad.to_str().unwrap()]);
    assert!(code == 2 && text.contains("bad.toml"), "{text}");
}

/// A policy that is valid, and surely not what was meant.
const ODD: &str = r#"version = 1
[[tenant]]
name = "green"
ports = [{ bridge = "*", port = "green-*" }]
[[tenant]]
name = "orange"
ports = [{ bridge = "host1", port = "green-9" }]
"#;

#[test]
fn check_warns_of_what_is_odd_and_says_yes() {
    let folder = Folder::new();
    let odd = folder.write("odd.toml", ODD);
    let (code, text, told) = run(&["check", odd.to_str().unwrap()]);
    assert_eq!((code, text.as_str()), (0, "ok: 2 tenants, 2 port entries, 0 named bridges, 1 warning\n"));
    for part in ["warning: tenant `orange` and tenant `green` both claim port `green-9`", "odd.toml:7:", "help: "] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let (code, text, told) = piped(&["check", "-"], ODD.as_bytes());
    assert!(code == 0 && text.starts_with("ok") && told.contains("--> stdin:7:"), "{code} {text} {told}");
    let (code, text, told) = run(&["check", "-o", "json", odd.to_str().unwrap()]);
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, told.as_str(), list.as_array().unwrap().len()), (0, "", 1), "{text}");
    let wanted = serde_json::json!({
        "file": odd.to_str().unwrap(), "line": 7, "column": 37, "severity": "warning", "code": "overlapping-claims",
        "text": "tenant `orange` and tenant `green` both claim port `green-9`: nobody gets it",
    });
    for (key, value) in wanted.as_object().unwrap() {
        assert_eq!(&list[0][key], value, "{text}");
    }
    assert!(list[0]["help"].as_str().unwrap().contains("narrow") && list[0]["related"][0]["line"] == 4, "{text}");
}

#[test]
fn check_tells_programs_every_mistake() {
    let json = |arguments: &[&str], input: &str| -> (i32, Vec<String>) {
        let (code, text, told) = piped(&[&["check", "-o", "json"], arguments].concat(), input.as_bytes());
        let list: Vec<serde_json::Value> =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(told, "");
        let one = |it: &serde_json::Value| {
            assert!(!it["text"].as_str().unwrap().is_empty());
            format!(
                "{}:{}:{} {}",
                it["line"],
                it["column"],
                it["severity"].as_str().unwrap(),
                it["code"].as_str().unwrap()
            )
        };
        (code, list.iter().map(one).collect())
    };
    let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    assert_eq!(json(&["-"], "version = 1\n"), (0, vec![]));
    let bad = format!("{ODD}oops = 1\n[[tenant]]\nname = \"green\"\nkey = 0\ndefault = 1\n");
    let wanted = [
        "7:37:warning overlapping-claims",
        "8:1:error unknown-key",
        "9:1:warning no-effect",
        "10:8:error duplicate",
        "11:7:error bad-value",
        "12:11:error wrong-type",
    ];
    assert_eq!(json(&["-"], &bad), (2, lines(&wanted)));
    assert_eq!(json(&["-"], "version = [\n"), (2, lines(&["1:12:error syntax"])));
    assert_eq!(json(&["/none/such.toml"], ""), (2, lines(&["null:null:error unreadable"])));
}

/// What a command makes of standard input.
fn piped(arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut command = espalier(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// What `espalier decode` makes of standard input.
fn decode(arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    piped(&[&["decode"], arguments].concat(), input)
}

/// What `ovs-ofctl -O OpenFlow13 add-flow` 3.1.0 sends for `table=5,tcp,actions=set_field:81->tcp_src,set_field:82->tcp_dst`.
const ADD_FLOW: &str = "\
    040e006800000006000000000000000000000000000000000500000000008000ffffffffffffffffffffffff000000000001000f\
    80000a02080080001401060000040028000000000019001080001a0200510000000000000019001080001c020052000000000000";

#[test]
fn messages_are_shown_as_text() {
    let (code, text, _) = run(&["decode", ADD_FLOW]);
    let wanted = "FLOW_MOD xid=0x6 length=104
  cookie=0x0 cookie_mask=0x0 table=5 command=add idle_timeout=0 hard_timeout=0 priority=32768 buffer_id=NONE \
                  out_port=ANY out_group=ANY flags=none matching={eth_type=0x800,ip_proto=6}
  instructions:
    - apply_actions(set_field(tcp_src=81),set_field(tcp_dst=82))
";
    assert_eq!((code, text.as_str()), (0, wanted));
    // A line for each message, blanks and colons as they come.
    let (code, text, _) = decode(&["-"], b"04:05:00:08:00:00:00:01\n\n0414 0008 0000 0002\n");
    assert_eq!((code, text.as_str()), (0, "FEATURES_REQUEST xid=0x1 length=8\nBARRIER_REQUEST xid=0x2 length=8\n"));
}

#[test]
fn messages_are_shown_as_json() {
    let (code, text, _) = run(&["decode", "-o", "json", ADD_FLOW]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 0);
    assert_eq!(value["type"], "flow_mod");
    assert_eq!(value["body"]["matching"], serde_json::json!({ "eth_type": 2048, "ip_proto": 6 }));
    assert_eq!(value["body"]["instructions"][0]["apply_actions"][1]["set_field"]["tcp_dst"], 82);
}

#[test]
fn a_raw_stream_is_cut_into_its_messages() {
    let stream = [4u8, 5, 0, 8, 0, 0, 0, 1, 4, 2, 0, 10, 0, 0, 0, 9, 0xff, 0xfe, 4, 20, 0, 12, 0, 0];
    let (code, text, _) = decode(&[], &stream);
    assert_eq!(code, 1, "the last one is cut");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["FEATURES_REQUEST xid=0x1 length=8", "ECHO_REQUEST xid=0x9 length=10", "  fffe"]);
    assert!(lines[3].starts_with("message 3: malformed: ends after 6 octets"), "{text}");
}

#[test]
fn a_malformed_message_is_told_by_octet_field_and_reason() {
    // The Ethernet type claims one octet.
    let bad = ADD_FLOW.replace("80000a020800", "80000a010800");
    let (code, text, _) = run(&["decode", &bad]);
    let reason = "has a length that isn't its field's";
    assert_eq!(
        (code, text.as_str()),
        (1, &*format!("FLOW_MOD xid=0x6 length=104: malformed: octet 52, in matching.eth_type, {reason}\n"))
    );
    let (code, text, _) = run(&["decode", "-o", "json", &bad]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 1);
    assert_eq!(value["error"], serde_json::json!({ "offset": 52, "field": "matching.eth_type", "reason": reason }));
    for (hex, part) in [
        ("04050009000000", "within its header"),
        ("0405000800000001ff", "claims 8 octets, but 9 were given"),
        ("0405000700000001", "less than its header"),
        ("0105000800000001", "is of version 0x01"),
    ] {
        let (code, text, _) = run(&["decode", hex]);
        assert!(code == 1 && text.contains(part), "{hex}: {code} {text}");
    }
    let (code, _, error) = run(&["decode", "04xy"]);
    assert!(code == 2 && error.contains("'x' is no hex digit"), "{error}");
    let (code, _, error) = decode(&[], b"0405000800000001\n040\n");
    assert!(code == 2 && error.contains("line 2: 3 hex digits"), "{error}");
    let (code, _, error) = decode(&[], b"0x0405000800000001\n");
    assert!(code == 2 && error.contains("line 1: 'x' is no hex digit"), "{error}");
}

#[test]
fn what_a_bridge_calls_itself_stays_text() {
    // A port's name that clears the screen and begins a line.
    let port = "00000001 00000000 020000000001 0000 1b5b324a0a0a67726565 6e2d31000000";
    let rest = "0000".repeat(16);
    let hex = format!("040c0050 00000000 00 00000000000000 {port} {rest}");
    let (code, text, _) = run(&["decode", &hex]);
    assert!(code == 0 && text.contains(r"name=\u{1b}[2J\n\ngreen-1"), "{code} {text:?}");
}

/// A message of that kind, and this body.
fn message(kind: u8, body: &str) -> String {
    let body = body.replace(' ', "");
    format!("04{kind:02x}{:04x}00000001{body}", 8 + body.len() / 2)
}

/// A removed flow entry's match, with these fields.
fn removed(fields: &str) -> String {
    let fields = fields.replace(' ', "");
    let length = 4 + fields.len() / 2;
    message(
        11,
        &format!("{}0001{length:04x}{fields}{}", "00".repeat(40), "00".repeat(length.next_multiple_of(8) - length)),
    )
}

#[test]
fn a_match_that_no_switch_takes_is_told_with_the_error_that_it_answers() {
    for (fields, field, code) in [
        ("80000a020800 80000a020806", "matching.eth_type", "OFPBMC_DUP_FIELD"),
        ("80000a020800 80000a020800", "matching.eth_type", "OFPBMC_DUP_FIELD"),
        ("80000606020000000001 00000206020000000002", "matching.unknown", "OFPBMC_DUP_FIELD"),
        ("80000510000000000000000f00000000000000f0", "matching.metadata", "OFPBMC_BAD_WILDCARDS"),
        ("ffff 0308 00000007 0201 0200", "matching", "OFPBMC_BAD_WILDCARDS"),
    ] {
        let (code_of_exit, text, _) = run(&["decode", "-o", "json", &removed(fields)]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((code_of_exit, &value["error"]["field"]), (1, &field.into()), "{text}");
        assert!(value["error"]["reason"].as_str().unwrap().contains(code), "{text}");
        let (_, text, _) = run(&["decode", &removed(fields)]);
        assert!(
            text.starts_with("FLOW_REMOVED") && text.contains(": malformed: octet ") && text.contains(code),
            "{text}"
        );
    }
}

#[test]
fn experimenters_masks_and_every_word_of_a_bitmap_are_shown() {
    // The same field of two experimenters.
    let fields = removed("ffff0205 00000007 01 ffff0205 00000008 01");
    let (code, text, _) = run(&["decode", &fields]);
    assert!(code == 0 && text.contains("matching={oxm_ffff0205_00000007=01,oxm_ffff0205_00000008=01}"), "{text}");
    // Table features: what can be matched on, once with a mask; fields of experimenters; tables; actions of experimenters.
    let properties = [
        "0008 0014 80000606 8000070c ffff0204 00000007 00000000",
        "000a 000c ffff0204 00000008 00000000",
        "0002 0007 010203 00",
        "0006 0018 0000 0004 ffff 000c 00002320 000e0000 0016 0004",
        "ffff 0010 00000009 00000001 0a0b0c0d",
    ];
    let table = format!(
        "0000 05 0000000000 {} {} 00000000 00000064",
        "61203d2062".to_owned() + &"00".repeat(27),
        "ff".repeat(16)
    );
    let table = format!("{table}{}", properties.concat()).replace(' ', "");
    let table = format!("{:04x}{}", table.len() / 2, &table[4..]);
    let (code, text, _) = run(&["decode", &message(19, &format!("000c 0000 00000000 {table}"))]);
    for part in [
        "name=\"a = b\"",
        "match(eth_dst,eth_dst/mask,oxm_ffff0204_00000007)",
        "wildcards(oxm_ffff0204_00000008)",
        "next_tables(1,2,3)",
        "apply_actions(kind=0,{kind=65535,body=00002320000e0000},kind=22)",
        "experimenter(experimenter=0x9,exp_type=0x1,data=0a0b0c0d)",
    ] {
        assert!(code == 0 && text.contains(part), "{part}: {text}");
    }
    let hello = message(0, "0001 0010 00000012 00000000 80000001 0009 0005 ff 000000 6869");
    let (code, text, _) = run(&["decode", &hello]);
    let wanted = "HELLO xid=0x1 length=34\n  rest=6869\n  elements:\n    - version_bitmap(0x12,0x0,0x80000001)\n";
    assert!(code == 0 && text.starts_with(wanted) && text.contains("- unknown(kind=9,body=ff)"), "{text}");
}

#[test]
fn messages_are_shown_while_others_are_still_to_come() {
    let mut command = espalier(&["decode"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, mut from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    for xid in 1..=3 {
        to.write_all(&[4, 5, 0, 8, 0, 0, 0, xid]).unwrap();
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        assert_eq!(line, format!("FEATURES_REQUEST xid={xid:#x} length=8\n"));
    }
    drop(to);
    assert!(child.wait().unwrap().success());
}
