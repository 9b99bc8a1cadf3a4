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
use crate::snapshot::{Bridge, BridgeCount, Status, TableCount};

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
                let bridges = server.get("bridges").ok().and_then(|all| serde_json::from_value::<Vec<_>>(all).ok());
                return fail(NO, &unready(&status, &bridges.unwrap_or_default(), time));
            }
            sleep(Duration::from_millis(50));
        }
    }
}

/// What isn't as it should be when the time is over.
fn unready(status: &Status, bridges: &[Bridge], time: Duration) -> String {
    let time = time.as_secs_f32();
    let mut lines = Vec::new();
    lines.push(if status.bridges.connected == 0 {
        format!(
            "no bridge is connected after {time} s, so none holds what it says; they get it when they connect: \
             `ovs-vsctl set-controller BRIDGE tcp:CONTROLLER:6653` on each host"
        )
    } else {
        format!("not all bridges hold what it says after {time} s")
    });
    let missing = &status.bridges.missing;
    lines.extend(missing.iter().map(|name| format!("bridge {name}, which the policy names, isn't connected")));
    let mut behind = Vec::new();
    for Bridge { name, desired, installed, .. } in bridges.iter().filter(|it| it.connected && !it.converged) {
        if *desired == TableCount::default() {
            // Of every other one something is desired.
            behind.push(format!("bridge {name} doesn't answer, or its tables are being read"));
        } else if desired != installed {
            behind.push(format!("bridge {name} holds {} of {} flow entries", installed.flows, desired.flows));
        }
    }
    if behind.is_empty() && !status.converged && status.bridges.connected > 0 {
        behind.push("changes of entries are still under way; look again with `espalier get bridges`".to_owned());
    }
    lines.extend(behind);
    lines.extend(status.problems.iter().cloned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_when_the_time_is_over_is_told_bridge_by_bridge() {
        let bridge = |name: &str, flows: [usize; 2]| {
            let [installed, desired] = flows.map(|flows| TableCount { flows, ..TableCount::default() });
            Bridge { name: name.into(), connected: true, installed, desired, ..Bridge::default() }
        };
        let mut status = Status::default();
        (status.bridges.connected, status.bridges.missing) = (3, vec!["h9".into()]);
        let told = |status: &Status, bridges: &[Bridge]| unready(status, bridges, Duration::from_secs(2));
        let text = told(&status, &[bridge("h1", [5, 5]), bridge("h2", [3, 5]), bridge("h3", [7, 0])]);
        let lines = [
            "not all bridges hold what it says after 2 s",
            "bridge h9, which the policy names, isn't connected",
            "bridge h2 holds 3 of 5 flow entries",
            "bridge h3 doesn't answer, or its tables are being read",
        ];
        assert_eq!(text, lines.join("\n"));
        let text = told(&status, &[bridge("h1", [5, 5])]);
        assert!(
            text.ends_with("changes of entries are still under way; look again with `espalier get bridges`"),
            "{text}"
        );
        status.converged = true;
        assert_eq!(told(&status, &[]), lines[..2].join("\n"));
    }
}
