//! Network namespaces: entering one in a thread of its own, and running commands inside.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use crate::process;

/// A network namespace, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Netns(String);

impl Netns {
    /// A handle on a namespace that exists or will.
    pub fn named(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.0
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.0)
    }

    /// Moves the calling thread for good; only for threads made for that.
    pub(crate) fn enter(&self) -> Result<()> {
        let file = File::open(self.path())
            .with_context(|| format!("network namespace {} is gone (taken down already?)", self.0))?;
        setns(file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("entering network namespace {} failed; the lab needs root", self.0))
    }

    /// Does something inside the namespace and waits for it. Processes started meanwhile live there too.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter()?;
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread that lives inside the namespace.
    pub fn spawn<T, W>(&self, name: &str, work: W) -> Result<JoinHandle<Result<T>>>
    where
        T: Send + 'static,
        W: FnOnce() -> Result<T> + Send + 'static,
    {
        let namespace = self.clone();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                namespace.enter()?;
                work()
            })
            .with_context(|| format!("starting the thread {name} failed"))
    }

    /// Runs a command inside and returns what it printed.
    pub fn command(&self, program: &str, args: &[&str]) -> Result<String> {
        self.run(|| process::output(Command::new(program).args(args)))
            .with_context(|| format!("in namespace {}", self.0))
    }

    /// Runs many `ip` commands, one a line, in one process.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        process::feed(Command::new("ip").args(["-n", &self.0, "-batch", "-"]), lines)
            .with_context(|| format!("in namespace {}", self.0))
    }

    /// Runs many `tc` commands, one a line, in one process.
    pub(crate) fn tc_batch(&self, lines: &str) -> Result<()> {
        self.run(|| process::feed(Command::new("tc").args(["-batch", "-"]), lines))
            .with_context(|| format!("in namespace {}", self.0))
    }
}
