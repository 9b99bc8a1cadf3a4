//! The codec beside those of os-ken (Python) and rovs-openflow (Rust), on the same messages in one run, in turn.
//! `make bench-codec` runs it; the argument is a Python that has os-ken.

#[path = "../../cases/mod.rs"]
mod cases;
mod rovs;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::BytesMut;
use cases::Case;
use comfy_table::{Cell, CellAlignment, Table, presets};
use openflow::message::Message;
use openflow::types::Xid;
use rovs::Work;
use serde_json::{Value, json};

/// Each codec has its turn this often; the median counts.
const ROUNDS: usize = 9;
/// How long a turn lasts at least.
const TURN: Duration = Duration::from_millis(40);

/// Runs `work` for at least a turn; nanoseconds for one time.
fn nanoseconds(work: &mut Work) -> f64 {
    let mut times = 1_u32;
    loop {
        let begin = Instant::now();
        for _ in 0..times {
            work();
        }
        let spent = begin.elapsed();
        if spent >= TURN {
            return spent.as_nanos() as f64 / f64::from(times);
        }
        times *= 2;
    }
}

/// The process that measures os-ken.
struct OsKen {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl OsKen {
    fn start(python: &str) -> Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/osken.py");
        let mut child = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {python}"))?;
        let requests = child.stdin.take().context("a pipe was asked for")?;
        let answers = BufReader::new(child.stdout.take().context("a pipe was asked for")?);
        Ok(Self { child, requests, answers })
    }

    fn ask(&mut self, request: &Value) -> Result<Value> {
        writeln!(self.requests, "{request}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        serde_json::from_str(&answer).context("os-ken's process ended; what it said is above")
    }

    fn end(mut self) -> Result<()> {
        drop(self.requests);
        ensure!(self.child.wait()?.success(), "os-ken's process failed");
        Ok(())
    }
}

fn ours(case: &Case, direction: &str) -> Work {
    let (frames, messages, octets) = (case.frames.clone(), case.messages.clone(), case.octets());
    if direction == "decode" {
        return Box::new(move || {
            for frame in &frames {
                black_box(Message::decode(black_box(frame))).ok();
            }
        });
    }
    let mut out = BytesMut::with_capacity(octets);
    Box::new(move || {
        out.clear();
        for message in &messages {
            black_box(message).encode(Xid(7), &mut out).unwrap();
        }
        black_box(&out);
    })
}

fn median(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

/// A time in nanoseconds, and how many times ours it is.
fn shown(time: Option<f64>, ours: f64) -> [String; 2] {
    time.map_or(["–".into(), "–".into()], |time| [format!("{time:.0}"), format!("{:.1}", time / ours)])
}

fn machine() -> String {
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = told.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("an unknown processor");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {threads} hardware threads", model.trim_start_matches([' ', '\t', ':']))
}

fn main() -> Result<()> {
    let python = std::env::args().nth(1).context("usage: espalier-openflow-peers PYTHON")?;
    let cases = cases::cases();
    let hex = |case: &Case| -> Vec<String> { case.frames.iter().map(|frame| format!("{frame:x}")).collect() };
    let sent: BTreeMap<&str, Vec<String>> = cases.iter().map(|case| (case.name, hex(case))).collect();
    let mut osken = OsKen::start(&python)?;
    let met = osken.ask(&json!(sent))?;

    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "",
        "octets",
        "Espalier, ns",
        "rovs-openflow, ns",
        "× ours",
        "os-ken, ns",
        "× ours",
    ]);
    for case in &cases {
        for direction in ["decode", "encode"] {
            let mut own = ours(case, direction);
            let mut rovs = if direction == "decode" {
                rovs::decoder(case.name, &case.frames)?
            } else {
                rovs::encoder(case.name, &case.frames)?
            };
            let encoded = met["encoded"].get(case.name);
            if let Some(encoded) = encoded {
                ensure!(encoded == &json!(sent[case.name]), "os-ken encodes another {}", case.name);
            }
            let mut times: [Vec<f64>; 3] = Default::default();
            for _ in 0..ROUNDS {
                times[0].push(nanoseconds(&mut own));
                times[1].extend(rovs.as_mut().map(nanoseconds));
                if direction == "decode" || encoded.is_some() {
                    let request = json!({ "case": case.name, "direction": direction, "seconds": TURN.as_secs_f64() });
                    times[2].extend(osken.ask(&request)?["ns"].as_f64());
                }
            }
            let [own, rovs, osken] = times.map(median);
            let own = own.context("ours was measured")?;
            let cells = [case.octets().to_string(), format!("{own:.0}")].into_iter();
            let cells = cells.chain(shown(rovs, own)).chain(shown(osken, own));
            let right = cells.map(|cell| Cell::new(cell).set_alignment(CellAlignment::Right));
            table.add_row(std::iter::once(Cell::new(format!("{}: {direction}", case.name))).chain(right));
        }
    }
    osken.end()?;
    println!("{table}");
    println!(
        "Medians of {ROUNDS} turns. rovs-openflow 0.2.0, {}; {}",
        met["version"].as_str().unwrap_or("?"),
        machine()
    );
    Ok(())
}
