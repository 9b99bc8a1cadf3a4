//! `espalier trace`: follows a frame through the tables of all bridges.

use std::fmt::Write;
use std::process::ExitCode;

use apps::trace::{Place, Trace as Found, What};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::get::Output;
use super::server::{Failure, Server};
use super::table::table;
use super::{NO, UNREACHABLE, USAGE, fail, print};

/// Which frame to follow, and how to show its way.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 it arrives; 1 it doesn't; 2 wrong use, or there is no such host; 3 controller \
                        unreachable.")]
pub(super) struct Trace {
    /// Whose frame
    #[arg(long)]
    tenant: String,
    /// Who sends it: a port by its name in the policy or as bridge/port, or a host by its MAC or IP address
    #[arg(long, value_name = "PORT|MAC|IP")]
    from: String,
    /// To whom: the same, or `broadcast`
    #[arg(long, value_name = "PORT|MAC|IP")]
    to: String,
    /// What it carries
    #[arg(value_enum, default_value = "icmp")]
    protocol: Protocol,
    /// Destination port of tcp and udp
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    server: Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
    Icmp,
    Arp,
}

pub(super) fn run(trace: &Trace) -> ExitCode {
    let protocol = trace.protocol.to_possible_value().map(|value| value.get_name().to_owned());
    let question = json!({
        "tenant": trace.tenant, "from": trace.from, "to": trace.to, "protocol": protocol, "port": trace.port
    });
    let document = match trace.server.post("trace", &question) {
        Ok(document) => document,
        Err(Failure::NotFound(text)) => return fail(USAGE, &text),
        Err(failure) => return failure.tell(),
    };
    let shown = match trace.output {
        Output::Json => serde_json::to_string_pretty(&document).map(|text| text + "\n"),
        Output::Table => serde_json::from_value(document.clone()).map(|found| show(&found)),
    };
    match shown {
        Err(error) => fail(UNREACHABLE, &trace.server.strange(&error)),
        Ok(text) if document["verdict"]["delivered"] == Value::Bool(true) => print(&text),
        Ok(text) => {
            print(&text);
            ExitCode::from(NO)
        }
    }
}

fn show(found: &Found) -> String {
    let frame = &found.frame;
    let mut text = format!("{} → {} at {}: {}\n", frame.source, frame.destination, name(&frame.from), frame.carries);
    for note in &found.notes {
        let _ = writeln!(text, "note: {note}");
    }
    let steps = found.steps.iter().map(|step| {
        let (at, what, policy) = row(&step.what);
        [step.bridge.clone(), at, what, policy]
    });
    text.push('\n');
    text += &table(["BRIDGE", "AT", "WHAT", "POLICY"], steps);
    text.push('\n');
    let verdict = &found.verdict;
    for ended in &verdict.ended {
        let _ = writeln!(text, "ends at {}: {}", ended.bridge, ended.why);
    }
    if verdict.controller > 0 {
        let _ = writeln!(text, "copies to the controller: {}", verdict.controller);
    }
    let to: Vec<String> = verdict.to.iter().map(name).collect();
    let _ = match (verdict.delivered, to.is_empty()) {
        (true, _) => writeln!(text, "delivered to {}", to.join(", ")),
        (false, true) => writeln!(text, "NOT delivered"),
        (false, false) => writeln!(text, "NOT delivered where it should be, but to {}", to.join(", ")),
    };
    text
}

/// Where in the bridge, what happens there, and because of what in the policy.
fn row(what: &What) -> (String, String, String) {
    let plain = |at: String, what: String| (at, what, String::new());
    match what {
        What::Arrives { port } => plain(format!("port {port}"), "in".into()),
        What::Table { table, name, entry: None } => plain(format!("{table} {name}"), "no entry matches".into()),
        What::Table { table, name, entry: Some(entry) } => {
            let what = format!("{} {} → {}", entry.priority, entry.matching, entry.instructions);
            (format!("{table} {name}"), what, entry.origin.clone().unwrap_or_default())
        }
        What::Meter { meter } => plain(format!("meter {meter}"), "on, within its rate".into()),
        What::Group { group, bucket } => plain(format!("group {group}"), format!("bucket {bucket}")),
        What::Controller { meter } => plain("controller".into(), format!("a copy, within the rate of meter {meter}")),
        What::Link { port, to, carrier } => plain(format!("port {port}"), format!("{carrier} to {}", name(to))),
        What::Function { port, function, instance, back } => {
            let back = back.as_ref().map(|back| format!(", which gives it back at {}", name(back))).unwrap_or_default();
            plain(format!("port {port}"), format!("to function {function}, instance {instance}{back}"))
        }
        What::Down { port, function, instance } => {
            plain(format!("port {port}"), format!("is down, of function {function}, instance {instance}"))
        }
        What::Leaves { port } => plain(format!("port {port}"), "out".into()),
    }
}

fn name(place: &Place) -> String {
    format!("{}/{}", place.bridge, place.port)
}
