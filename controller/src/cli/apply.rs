//! `espalier apply`, `confirm` and `undo`: changing the policy in force.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;
use ureq::http::Method;

use super::server::{Failure, Server};
use super::{NO, UNREACHABLE, USAGE, fail, print, sound};
use crate::policy_commands::{Answer, time};
use crate::policy_files;
use crate::snapshot::{Bridge, Status};

/// Which policy, and under which conditions.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 it is in force; 1 it can't be kept, or isn't converged in time; 2 wrong use or bad \
                        policy; 3 controller unreachable; 4 conflict: policy files are the source, or another policy waits \
                        to be confirmed, or isn't the one that was named."
)]
pub(super) struct Apply {
    /// Policy files, or folders whose *.toml files are read
    #[arg(required = true, value_name = "POLICY")]
    policy: Vec<PathBuf>,
    /// Without `espalier confirm` within this time the policy before returns by itself
    #[arg(long, value_name = "TIME", value_parser = time)]
    confirm_within: Option<Duration>,
    /// Only if the policy in force has this digest (see `espalier get status`)
    #[arg(long, value_name = "DIGEST")]
    if_match: Option<String>,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    server: Server,
}

/// Keeps the policy in force.
#[derive(Debug, Args)]
pub(super) struct Confirm {
    #[command(flatten)]
    server: Server,
}

/// Whether to wait.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 it is in force; 1 it can't be kept, or isn't converged in time; 3 controller \
                        unreachable; 4 conflict: policy files are the source, or there is no policy before.")]
pub(super) struct Undo {
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Args)]
struct Wait {
    /// Wait until every bridge has acknowledged it, so long at most [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = time, num_args = 0..=1, require_equals = true, default_missing_value = "60s")]
    wait: Option<Duration>,
}

pub(super) fn apply(apply: &Apply) -> ExitCode {
    let sources = match sound(&apply.policy) {
        Ok((sources, ..)) => sources,
        Err(bad) => return fail(USAGE, &bad.to_string()),
    };
    let time = apply.confirm_within.map(|time| format!("?confirm_within={}ms", time.as_millis()));
    let path = format!("policy{}", time.unwrap_or_default());
    let text = policy_files::join(&sources);
    let answer = apply.server.send(Method::PUT, &path, apply.if_match.as_deref(), &text);
    done(answer, "is in force", &apply.wait, &apply.server)
}

pub(super) fn confirm(confirm: &Confirm) -> ExitCode {
    let answer = confirm.server.send(Method::POST, "policy/confirm", None, "");
    done(answer, "is confirmed", &Wait { wait: None }, &confirm.server)
}

pub(super) fn undo(undo: &Undo) -> ExitCode {
    let answer = undo.server.send(Method::POST, "policy/undo", None, "");
    done(answer, "is in force", &undo.wait, &undo.server)
}

fn done(answer: Result<Value, Failure>, what: &str, wait: &Wait, server: &Server) -> ExitCode {
    let answer: Answer = match answer.map(serde_json::from_value) {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return fail(UNREACHABLE, &server.strange(&error)),
        Err(failure) => return failure.tell(),
    };
    for warning in &answer.warnings {
        eprintln!("{warning}");
    }
    let mut text = format!("policy generation {} {what}", answer.generation);
    if !answer.changed && what == "is in force" {
        text += ", as before";
    }
    if let Some(until) = &answer.confirm_until {
        text += &format!("; without `espalier confirm` the one before it returns at {until}");
    }
    let printed = print(&(text + "\n"));
    match wait.wait {
        None => printed,
        Some(time) => converged(answer.generation, time, server),
    }
}

/// Waits until every connected bridge has acknowledged what follows from a policy.
fn converged(generation: u64, time: Duration, server: &Server) -> ExitCode {
    let start = Instant::now();
    loop {
        let status: Status = match server.get("status").map(serde_json::from_value) {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => return fail(UNREACHABLE, &server.strange(&error)),
            Err(failure) => return failure.tell(),
        };
        let now = status.policy.generation;
        if now > generation {
            return fail(NO, &format!("policy generation {now} has replaced it meanwhile"));
        }
        if now == generation && status.converged {
            let (connected, known) = (status.bridges.connected, status.bridges.known);
            return print(&format!("all connected bridges ({connected} of {known}) hold what it says\n"));
        }
        if start.elapsed() >= time {
            return fail(NO, &waiting(&status, time, server));
        }
        sleep(Duration::from_millis(50));
    }
}

/// What isn't as it should be.
fn waiting(status: &Status, time: Duration, server: &Server) -> String {
    let mut text = format!("not all bridges hold what it says after {} s", time.as_secs_f32());
    let bridges: Vec<Bridge> =
        server.get("bridges").ok().and_then(|bridges| serde_json::from_value(bridges).ok()).unwrap_or_default();
    for bridge in bridges.iter().filter(|bridge| bridge.connected && !bridge.converged) {
        text += &format!(
            "\nbridge {} holds {} of {} flow entries",
            bridge.name, bridge.installed.flows, bridge.desired.flows
        );
    }
    for problem in &status.problems {
        text += &format!("\n{problem}");
    }
    text
}
