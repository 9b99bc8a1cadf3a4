//! The command line.

mod apply;
mod check;
mod decode;
mod get;
mod plan;
mod server;
mod table;
mod trace;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use apps::policy::Source;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Settings};
use crate::policy_files::BadPolicy;
use crate::{daemon, policy_files};

/// No: what was asked for isn't so, or isn't there.
const NO: u8 = 1;
/// Wrong use, or a bad policy.
const USAGE: u8 = 2;
/// The controller can't be reached.
const UNREACHABLE: u8 = 3;
/// It can't be done as things are.
const CONFLICT: u8 = 4;

/// Trains each tenant's network into a loop-free tree over Open vSwitch bridges.
#[derive(Debug, Parser)]
#[command(name = "espalier", version, propagate_version = true)]
#[command(after_help = "Exit codes: 0 yes; 1 no; 2 wrong use or bad policy; 3 controller unreachable; 4 conflict.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controller
    ///
    /// The variable ESPALIER_LOG filters what is logged, e.g. "warn" or "info,controller::session=debug".
    Serve {
        /// File with the same names as these flags; flags win [default: /etc/espalier/espalier.toml, if it is there]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Is a policy valid?
    Check(check::Check),
    /// What would a policy change?
    Plan(plan::Plan),
    /// Bring a policy into force
    Apply(apply::Apply),
    /// Keep a policy that was applied with --confirm-within
    Confirm(apply::Confirm),
    /// Bring the policy before the one in force back
    Undo(apply::Undo),
    /// Show what the controller sees
    Get(get::Get),
    /// Follow a frame through the tables of all bridges
    Trace(trace::Trace),
    /// Show OpenFlow messages, from hex or a raw stream
    Decode(decode::Decode),
}

/// Runs the command that the process was called with.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve { config, settings } => serve(config, settings),
        Command::Check(check) => check::run(&check),
        Command::Plan(plan) => plan::run(&plan),
        Command::Apply(apply) => apply::apply(&apply),
        Command::Confirm(confirm) => apply::confirm(&confirm),
        Command::Undo(undo) => apply::undo(&undo),
        Command::Get(get) => get::run(&get),
        Command::Trace(trace) => trace::run(&trace),
        Command::Decode(decode) => decode::run(&decode),
    }
}

fn serve(config: Option<PathBuf>, flags: Settings) -> ExitCode {
    let settings = match Settings::read(config.as_deref()) {
        Ok(file) => flags.or(file),
        Err(error) => return fail(USAGE, &error.to_string()),
    };
    if let Err(error) = log(settings.log_format.unwrap_or_default()) {
        return fail(USAGE, &error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(USAGE, &format!("can't start threads: {error}")),
    };
    match runtime.block_on(daemon::serve(settings.options())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NO),
        Err(error) => fail(USAGE, &error.to_string()),
    }
}

fn log(format: LogFormat) -> Result<(), String> {
    let text = std::env::var("ESPALIER_LOG").unwrap_or_else(|_| "info".into());
    let filter = EnvFilter::try_new(&text).map_err(|error| {
        format!("ESPALIER_LOG is \"{text}\", which is no filter: {error}; try \"info\" or \"debug\"")
    })?;
    let colour = std::io::stderr().is_terminal();
    let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    match format {
        LogFormat::Text => logger.with_target(false).init(),
        LogFormat::Json => logger.json().flatten_event(true).init(),
    }
    Ok(())
}

/// The files of a policy that is valid. Of what looks odd about it the controller tells.
fn sound(paths: &[PathBuf]) -> Result<Vec<Source>, BadPolicy> {
    let sources = sources(paths)?;
    policy_files::load(&sources, std::io::stderr().is_terminal()).map(|_| sources)
}

/// The files of a policy; `-` is standard input.
fn sources(paths: &[PathBuf]) -> Result<Vec<Source>, BadPolicy> {
    let mut sources = Vec::new();
    for path in paths {
        sources.extend(match path.as_os_str() == "-" {
            true => policy_files::standard_input()?,
            false => policy_files::read(std::slice::from_ref(path))?,
        });
    }
    Ok(sources)
}

fn fail(code: u8, text: &str) -> ExitCode {
    eprintln!("{}", text.trim_end());
    ExitCode::from(code)
}

fn print(text: &str) -> ExitCode {
    // Whoever stops reading, like `head`, has seen enough.
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => fail(NO, &format!("can't write: {error}")),
        _ => ExitCode::SUCCESS,
    }
}
