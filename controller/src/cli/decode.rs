//! `espalier decode`: OpenFlow messages, from hex or a raw stream, as text or JSON.

mod text;

use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use bytes::{Bytes, BytesMut};
use clap::{Args, ValueEnum};
use openflow::frame::{HEADER, VERSION, header, next_frame};
use openflow::message::Message;
use serde_json::{Value, json};

use super::{NO, USAGE, fail};

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

/// Shows messages as they are found.
struct Show {
    output: Output,
    number: usize,
    all_right: bool,
}

/// Why no more is shown.
enum Stop {
    /// The input is no message in hex.
    Input(String),
    /// Whoever reads has seen enough.
    Enough,
    /// What was to be shown can't be written.
    Write(io::Error),
}

pub(super) fn run(decode: &Decode) -> ExitCode {
    let mut show = Show { output: decode.output, number: 0, all_right: true };
    let done = match decode.hex.as_slice() {
        [] => show.standard_input(),
        [dash] if dash == "-" => show.standard_input(),
        words => hex(&words.concat()).map_err(Stop::Input).and_then(|octets| show.one(&cut(octets))),
    };
    match done {
        Err(Stop::Input(error)) => fail(USAGE, &error),
        Err(Stop::Write(error)) => fail(NO, &format!("can't write: {error}")),
        Ok(()) | Err(Stop::Enough) if show.all_right => ExitCode::SUCCESS,
        Ok(()) | Err(Stop::Enough) => ExitCode::from(NO),
    }
}

impl Show {
    fn one(&mut self, found: &Found) -> Result<(), Stop> {
        let value = match found {
            Ok(frame) => describe(frame),
            Err(error) => json!({ "error": { "reason": error } }),
        };
        self.number += 1;
        self.all_right &= value.get("error").is_none();
        let text = match self.output {
            Output::Json => format!("{value}\n"),
            Output::Text => text::message(self.number, &value),
        };
        io::stdout().lock().write_all(text.as_bytes()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::Enough,
            _ => Stop::Write(error),
        })
    }

    /// A raw stream begins with the number of a version, which is no character of a text.
    fn standard_input(&mut self) -> Result<(), Stop> {
        let mut input = io::stdin().lock();
        let unread = |error: io::Error| Stop::Input(format!("can't read standard input: {error}"));
        match input.fill_buf().map_err(unread)?.first() {
            Some(..0x09) => self.stream(&mut input),
            _ => {
                for (at, line) in input.lines().enumerate() {
                    let line = line.map_err(unread)?;
                    if line.trim().is_empty() {
                        continue;
                    }
                    let octets = hex(&line).map_err(|error| Stop::Input(format!("line {}: {error}", at + 1)))?;
                    self.one(&cut(octets))?;
                }
                Ok(())
            }
        }
    }

    fn stream(&mut self, input: &mut impl BufRead) -> Result<(), Stop> {
        let mut buffer = BytesMut::new();
        loop {
            let more = input.fill_buf().map_err(|error| Stop::Input(format!("can't read standard input: {error}")))?;
            let (octets, ended) = (more.len(), more.is_empty());
            buffer.extend_from_slice(more);
            input.consume(octets);
            loop {
                match next_frame(&mut buffer) {
                    Ok(Some(frame)) => self.one(&Ok(frame))?,
                    Ok(None) => break,
                    // Where the next message begins isn't known.
                    Err(error) => return self.one(&Err(error.to_string())),
                }
            }
            if ended {
                return if buffer.is_empty() { Ok(()) } else { self.one(&cut(buffer.to_vec())) };
            }
        }
    }
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
fn cut(octets: Vec<u8>) -> Found {
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
