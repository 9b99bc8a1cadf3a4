//! `espalier decode`: OpenFlow messages, from hex or a raw stream, as text or JSON.

mod text;

use std::io::Read;
use std::process::ExitCode;

use bytes::{Bytes, BytesMut};
use clap::{Args, ValueEnum};
use openflow::frame::{HEADER, VERSION, header, next_frame};
use openflow::message::Message;
use serde_json::{Value, json};

use super::{NO, USAGE, fail, print};

/// What to decode, and how to show it.
#[derive(Debug, Args)]
pub(super) struct Decode {
    /// A message in hex, blanks and colons as you like; `-` or nothing: standard input, hex with one message a line or a
    /// raw stream of messages
    hex: Vec<String>,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// One message, as it was found, or why none could be found.
type Found = Result<Bytes, String>;

pub(super) fn run(decode: &Decode) -> ExitCode {
    let found = match decode.hex.as_slice() {
        [] => standard_input(),
        [dash] if dash == "-" => standard_input(),
        words => hex(&words.concat()).map(|octets| vec![one(octets)]),
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => return fail(USAGE, &error),
    };
    let mut all_right = true;
    let mut shown = String::new();
    for (at, found) in found.iter().enumerate() {
        let value = match found {
            Ok(frame) => describe(frame),
            Err(error) => json!({ "error": { "reason": error } }),
        };
        all_right &= value.get("error").is_none();
        match decode.output {
            Output::Json => shown += &format!("{value}\n"),
            Output::Text => shown += &text::message(at + 1, &value),
        }
    }
    match print(&shown) {
        ExitCode::SUCCESS if !all_right => ExitCode::from(NO),
        code => code,
    }
}

/// Hex, one message a line; or a raw stream, which is told by its octets not being text.
fn standard_input() -> Result<Vec<Found>, String> {
    let mut input = Vec::new();
    std::io::stdin().lock().read_to_end(&mut input).map_err(|error| format!("can't read standard input: {error}"))?;
    let blank = |octet: &u8| octet.is_ascii_whitespace();
    if !input.iter().all(|octet| octet.is_ascii_hexdigit() || blank(octet) || *octet == b':') {
        return Ok(stream(BytesMut::from(&input[..])));
    }
    let text = String::from_utf8_lossy(&input);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(at, line)| hex(line).map(one).map_err(|error| format!("line {}: {error}", at + 1))).collect()
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_ascii_whitespace() && *c != ':').collect();
    let nibble = |c: char| {
        c.to_digit(16)
            .map(|digit| digit as u8)
            .ok_or_else(|| format!("{c:?} is no hex digit; a message in hex looks like 0400000800000001"))
    };
    if !digits.len().is_multiple_of(2) {
        return Err(format!("{} hex digits aren't whole octets", digits.len()));
    }
    digits.chunks(2).map(|pair| Ok(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}

/// The octets as just one message.
fn one(octets: Vec<u8>) -> Found {
    let given = octets.len();
    let mut buffer = BytesMut::from(&octets[..]);
    match next_frame(&mut buffer) {
        Err(error) => Err(error.to_string()),
        Ok(None) if given < HEADER => Err(format!("ends after {given} octets, within its header of {HEADER}")),
        Ok(None) => {
            Err(format!("claims {} octets, but ends after {given}", u16::from_be_bytes([octets[2], octets[3]])))
        }
        Ok(Some(frame)) if buffer.is_empty() => Ok(frame),
        Ok(Some(frame)) => Err(format!("claims {} octets, but {given} were given", frame.len())),
    }
}

fn stream(mut buffer: BytesMut) -> Vec<Found> {
    let mut found = Vec::new();
    loop {
        match next_frame(&mut buffer) {
            Ok(Some(frame)) => found.push(Ok(frame)),
            Ok(None) if buffer.is_empty() => return found,
            Ok(None) => {
                found.push(one(buffer.to_vec()));
                return found;
            }
            Err(error) => {
                found.push(Err(error.to_string()));
                return found;
            }
        }
    }
}

/// A message, or what is wrong with it, with what its header says.
fn describe(frame: &Bytes) -> Value {
    let (version, kind, xid) = header(frame);
    let mut value = json!({ "version": version, "type": kind, "xid": xid, "length": frame.len() });
    // A hello tells other versions, and is read whichever it has.
    if version != VERSION && kind != 0 {
        let reason = format!("is of version {version:#04x}; OpenFlow 1.3 has {VERSION:#04x}");
        value["error"] = json!({ "offset": 0, "field": "version", "reason": reason });
        return value;
    }
    match Message::decode(frame) {
        Ok((_, message)) => match serde_json::to_value(&message) {
            Ok(Value::Object(mut parts)) => {
                value["type"] = parts.remove("type").unwrap_or_default();
                value["body"] = parts.remove("body").unwrap_or_default();
            }
            // Messages are objects with keys that are texts.
            other => value["error"] = json!({ "reason": format!("can't be shown: {other:?}") }),
        },
        Err(error) => {
            value["type"] = snake_case(error.message).into();
            value["error"] = json!({ "offset": error.offset, "field": error.field, "reason": error.reason });
        }
    }
    value
}

/// A name as it is written in JSON.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}
