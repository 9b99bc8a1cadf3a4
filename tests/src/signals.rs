//! Ctrl-C and its like, for programs that must take a lab down in order.

use std::future::poll_fn;
use std::task::Poll;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Catches SIGINT, SIGTERM and SIGHUP from its making on. They are handled, not blocked: child processes would inherit
/// a block and turn deaf to being stopped.
#[derive(Debug)]
pub struct StopSignals {
    runtime: Runtime,
    signals: Vec<(&'static str, Signal)>,
}

impl StopSignals {
    /// From now on these signals end nothing by themselves.
    pub fn catch() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().context("starting a runtime failed")?;
        let guard = runtime.enter();
        let kinds = [
            ("SIGINT", SignalKind::interrupt()),
            ("SIGTERM", SignalKind::terminate()),
            ("SIGHUP", SignalKind::hangup()),
        ];
        let caught: Result<_> = kinds
            .into_iter()
            .map(|(name, kind)| Ok((name, signal(kind).context("catching signals failed")?)))
            .collect();
        drop(guard);
        Ok(Self { runtime, signals: caught? })
    }

    /// Waits for one, at once if one came already, and names it.
    pub fn wait(&mut self) -> &'static str {
        let Self { runtime, signals } = self;
        runtime.block_on(poll_fn(|context| {
            for (name, signal) in signals.iter_mut() {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*name);
                }
            }
            Poll::Pending
        }))
    }
}
