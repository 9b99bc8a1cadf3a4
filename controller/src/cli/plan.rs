//! `espalier plan`: what a policy would change, without changing it.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use apps::plan::{Change, Counts, Plan as Planned};
use apps::problems::Changes;
use clap::Args;
use serde_json::Value;
use ureq::http::Method;

use super::get::Output;
use super::server::Server;
use super::table::table;
use super::{NO, UNREACHABLE, USAGE, fail, print, sound};
use crate::policy_files;

/// Which policy, and how to show what it would change.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 nothing would change; 1 something would; 2 wrong use or bad policy; 3 controller \
                        unreachable."
)]
pub(super) struct Plan {
    /// Policy files, or folders whose *.toml files are read; `-`: standard input
    #[arg(required = true, value_name = "POLICY")]
    policy: Vec<PathBuf>,
    /// Show each flow entry, group and meter that would change, too
    #[arg(long)]
    flows: bool,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    server: Server,
}

pub(super) fn run(plan: &Plan) -> ExitCode {
    let sources = match sound(&plan.policy) {
        Ok(sources) => sources,
        Err(bad) => return fail(USAGE, &bad.to_string()),
    };
    let path = format!("policy/plan?flows={}", plan.flows);
    let document = match plan.server.send(Method::POST, &path, None, &policy_files::join(&sources)) {
        Ok(document) => document,
        Err(failure) => return failure.tell(),
    };
    let shown = match plan.output {
        Output::Json => serde_json::to_string_pretty(&document).map(|text| text + "\n"),
        Output::Table => serde_json::from_value(document.clone()).map(|planned| show(&planned)),
    };
    match shown {
        Err(error) => fail(UNREACHABLE, &plan.server.strange(&error)),
        Ok(text) => {
            let printed = print(&text);
            if document["same"] == Value::Bool(true) { printed } else { ExitCode::from(NO) }
        }
    }
}

fn show(planned: &Planned) -> String {
    let mut text = String::new();
    for line in planned.warnings.iter() {
        let _ = writeln!(text, "{line}");
    }
    for note in &planned.notes {
        let _ = writeln!(text, "note: {note}");
    }
    if planned.same {
        return text + "nothing would change\n";
    }
    let problems = problems(&planned.problems);
    for object in &planned.objects {
        let of = object.tenant.as_ref().filter(|tenant| object.kind != "tenant" || **tenant != object.name);
        let of = of.map(|tenant| format!(" of {tenant}")).unwrap_or_default();
        let _ = writeln!(text, "{} {} {}{of}", sign(object.change), object.kind, object.name);
        for field in &object.fields {
            let _ = writeln!(text, "    {}: {} ⇒ {}", field.name, field.from, field.to);
        }
    }
    if planned.objects.is_empty() {
        text += "the policy says the same\n";
    }
    let rows = planned
        .bridges
        .iter()
        .map(|bridge| [bridge.name.clone(), count(bridge.flows), count(bridge.groups), count(bridge.meters)]);
    text.push('\n');
    if planned.bridges.is_empty() {
        text += "no bridge's tables would change\n";
    } else {
        text += &table(["BRIDGE", "FLOWS", "GROUPS", "METERS"], rows);
    }
    for bridge in &planned.bridges {
        let Some(entries) = &bridge.entries else { continue };
        let _ = writeln!(text, "\n{}", bridge.name);
        for entry in entries {
            let _ = writeln!(text, "  {} {}", sign(entry.change), entry.text);
        }
    }
    // Last, where it is seen.
    if problems.is_empty() { text } else { text + "\n" + &problems }
}

/// Problems that come and end with a policy, one a line.
pub(super) fn problems(Changes { new, ended }: &Changes) -> String {
    let lines = new.iter().map(|text| ("new problem:", text)).chain(ended.iter().map(|text| ("problem ends:", text)));
    lines.map(|(what, text)| format!("{what} {text}\n")).collect()
}

fn sign(change: Change) -> char {
    match change {
        Change::Added => '+',
        Change::Changed => '~',
        Change::Removed => '-',
    }
}

fn count(counts: Counts) -> String {
    let Counts { added, changed, removed } = counts;
    format!("+{added} ~{changed} -{removed}")
}
