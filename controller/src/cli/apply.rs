//! `espalier apply`, `confirm` and `undo`: changing the policy in force.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;
use ureq::http::Method;

use super::plan::problems;
use super::server::{Failure, Server};
use super::{NO, UNREACHABLE, USAGE, fail, print, sound};
use crate::policy_commands::{Answer, Returned, time};
use crate::policy_files;
use crate::snapshot::{Bridge, BridgeCount, Status};

/// Which policy, and under which conditions.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 it is in force; 1 it is in force, but there are new problems, or bridges don't hold it in time; or it can't \
                        be kept; 2 wrong use or bad policy; 3 controller unreachable; 4 conflict: policy files are the source, or \
                        another policy waits to be confirmed, or isn't the one that was named."
)]
pub(super) struct Apply {
    /// Policy files, or folders whose *.toml files are read; `-`: standard input
    #[arg(required = true, value_name = "POLICY")]
    policy: Vec<PathBuf>,
    /// Without `espalier confirm` within this time the policy before returns by itself
    #[arg(long, value_name = "TIME", value_parser = time)]
    confirm_within: Option<Duration>,
    /// Only if the policy in force has this digest (see `espalier get status`)
    #[arg(long, value_name = "DIGEST")]
    if_match: Option<String>,
    /// New problems are no reason to end with 1 (see them first with `espalier plan`)
    #[arg(long)]
    accept_problems: bool,
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
#[command(
    after_help = "Exit codes: 0 it is in force; 1 it can't be kept, or bridges don't hold it in time; 3 controller \
                        unreachable; 4 conflict: policy files are the source, or there is no policy before, or it is empty."
)]
pub(super) struct Undo {
    /// Also if the policy before has no tenants, so that no port belongs to anybody
    #[arg(long)]
    empty: bool,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Args)]
struct Wait {
    /// Wait until every bridge that is connected, or that the policy names, has acknowledged it, so long at most [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = time, num_args = 0..=1, require_equals = true, default_missing_value = "60s")]
    wait: Option<Duration>,
}

pub(super) fn apply(apply: &Apply) -> ExitCode {
    let sources = match sound(&apply.policy) {
        Ok(sources) => sources,
        Err(bad) => return fail(USAGE, &bad.to_string()),
    };
    let time = apply.confirm_within.map(|time| format!("?confirm_within={}ms", time.as_millis()));
    let path = format!("policy{}", time.unwrap_or_default());
    let text = policy_files::join(&sources);
    let answer = match told(apply.server.send(Method::PUT, &path, apply.if_match.as_deref(), &text), &apply.server) {
        Ok(answer) => answer,
        Err(code) => return code,
    };
    let what = if answer.changed { "is in force" } else { "is in force, as before" };
    let done = show(&answer, what);
    let waited = apply.wait.converged(answer.generation, &apply.server);
    let new = answer.problems.new.len();
    if waited != ExitCode::SUCCESS {
        return waited;
    }
    if new == 0 || apply.accept_problems {
        return done;
    }
    let (is, them) = if new == 1 { ("is a new problem", "it") } else { ("are new problems", "them") };
    let advice = format!(
        "there {is}: mend {them}, or take the policy back with `espalier undo`; with --accept-problems this is no error"
    );
    fail(NO, &advice)
}

pub(super) fn confirm(confirm: &Confirm) -> ExitCode {
    match told(confirm.server.send(Method::POST, "policy/confirm", None, ""), &confirm.server) {
        Ok(answer) => show(&answer, "is confirmed"),
        Err(code) => code,
    }
}

pub(super) fn undo(undo: &Undo) -> ExitCode {
    let path = format!("policy/undo?empty={}", undo.empty);
    let answer = match told(undo.server.send(Method::POST, &path, None, ""), &undo.server) {
        Ok(answer) => answer,
        Err(code) => return code,
    };
    let what = answer
        .returned
        .as_ref()
        .map_or_else(|| "is in force".to_owned(), |policy| format!("is in force: {}", again(policy)));
    let done = show(&answer, &what);
    let waited = undo.wait.converged(answer.generation, &undo.server);
    if done == ExitCode::SUCCESS { waited } else { done }
}

/// What a policy that returned is.
fn again(Returned { generation, files, tenants }: &Returned) -> String {
    if tenants.is_empty() {
        return format!("that of generation {generation} again, which is empty: no port belongs to anybody");
    }
    let list = |all: &[String]| match all.get(..LISTED) {
        Some(some) if all.len() > LISTED => format!("{} and {} more", some.join(", "), all.len() - LISTED),
        _ => all.join(", "),
    };
    format!("that of generation {generation} again, from {}; its tenants: {}", list(files), list(tenants))
}

/// Most names in a row.
const LISTED: usize = 8;

/// The answer to a change of the policy, or what to end with.
fn told(answer: Result<Value, Failure>, server: &Server) -> Result<Answer, ExitCode> {
    let answer = answer.map_err(Failure::tell)?;
    serde_json::from_value(answer).map_err(|error| fail(UNREACHABLE, &server.strange(&error)))
}

/// Tells what became of a policy.
fn show(answer: &Answer, what: &str) -> ExitCode {
    for warning in &answer.warnings {
        eprintln!("{warning}");
    }
    let mut text = format!("policy generation {} {what}", answer.generation);
    if let Some(until) = &answer.confirm_until {
        text += &format!("; without `espalier confirm` the one before it returns at {until}");
    }
    print(&(text + "\n" + &problems(&answer.problems)))
}

impl Wait {
    /// Waits until every bridge that is connected, or that the policy names, has acknowledged what follows from it.
    fn converged(&self, generation: u64, server: &Server) -> ExitCode {
        let Some(time) = self.wait else { return ExitCode::SUCCESS };
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
            let BridgeCount { connected, known, missing } = &status.bridges;
            if now == generation && status.converged && *connected > 0 && missing.is_empty() {
                return print(&format!("all connected bridges ({connected} of {known}) hold what it says\n"));
            }
            if start.elapsed() >= time {
                return fail(NO, &waiting(&status, time, server));
            }
            sleep(Duration::from_millis(50));
        }
    }
}

/// What isn't as it should be.
fn waiting(status: &Status, time: Duration, server: &Server) -> String {
    let time = time.as_secs_f32();
    let mut text = if status.bridges.connected == 0 {
        format!(
            "no bridge is connected after {time} s, so none holds what it says; they get it when they connect: \
             `ovs-vsctl set-controller BRIDGE tcp:CONTROLLER:6653` on each host"
        )
    } else {
        format!("not all bridges hold what it says after {time} s")
    };
    for name in &status.bridges.missing {
        text += &format!("\nbridge {name}, which the policy names, isn't connected");
    }
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
