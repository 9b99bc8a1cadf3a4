//! Child processes: one-off commands whose failures explain themselves, and daemons that are ended by recorded id.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Runs a command to its end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    command.stdin(Stdio::null());
    let shown = describe(command);
    let output = command.output().with_context(|| format!("`{shown}` could not be started; is it installed?"))?;
    if !output.status.success() {
        bail!("`{shown}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command with the given lines as its input.
pub(crate) fn feed(command: &mut Command, lines: &str) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let shown = describe(command);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("`{shown}` could not be started; is it installed?"))?;
    let written = child.stdin.take().map(|mut input| input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().with_context(|| format!("waiting for `{shown}` failed"))?;
    if !output.status.success() {
        bail!("`{shown}` failed: {}\nits input was:\n{lines}", String::from_utf8_lossy(&output.stderr).trim());
    }
    written.transpose().with_context(|| format!("writing to `{shown}` failed"))?;
    Ok(())
}

fn describe(command: &Command) -> String {
    let mut shown = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        shown.push(' ');
        shown.push_str(&argument.to_string_lossy());
    }
    if let Some((at, _)) = shown.char_indices().nth(600) {
        shown.truncate(at);
        shown.push('…');
    }
    shown
}

/// When a process started, in clock ticks since boot: with the id it names one process for good.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may itself hold spaces and brackets.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// The file in a lab's folder that lists the processes it started: `pid start-time name`, one a line.
pub(crate) const RECORD: &str = "processes";

/// A long-running child, ended when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts a daemon in the calling thread's namespace and records it, so that it can be ended even if we are killed.
    pub(crate) fn spawn(folder: &Path, log: &Path, command: &mut Command) -> Result<Self> {
        let shown = describe(command);
        let open = |path: &Path| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("opening {} for writing failed", path.display()))
        };
        let log: File = open(log)?;
        let errors = log.try_clone().context("duplicating a log file's handle failed")?;
        // A group of its own: Ctrl-C at the terminal must reach only us, who then take the lab down in order.
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        let child = command.spawn().with_context(|| format!("`{shown}` could not be started; is it installed?"))?;
        let daemon = Self { child };
        let started = start_time(daemon.pid()).unwrap_or(0);
        let program = command.get_program().to_string_lossy().into_owned();
        let line = format!("{} {started} {program}\n", daemon.pid());
        open(&folder.join(RECORD))?.write_all(line.as_bytes()).context("recording a process failed")?;
        Ok(daemon)
    }

    /// The process id.
    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Whether it still runs.
    pub(crate) fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal; a process that has ended is no error.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        // Until we have waited for a child its id can't be given to another process.
        if self.alive() {
            kill(Pid::from_raw(self.pid()), signal)
                .with_context(|| format!("sending {signal} to {} failed", self.pid()))?;
        }
        Ok(())
    }

    /// Ends it at once, as a crash would, and waits until it is gone.
    pub(crate) fn kill9(&mut self) {
        // Both fail only if it has ended already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Asks it to end and waits; true if it did in time, else it was killed.
    pub(crate) fn terminate(&mut self, patience: Duration) -> Result<bool> {
        self.signal(Signal::SIGTERM)?;
        let start = Instant::now();
        while start.elapsed() < patience {
            if !self.alive() {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.kill9();
        Ok(false)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill9();
    }
}
