//! Ctrl-C as a flag: work asks at every pause whether it should end, so that what it made is taken down in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::StopSignals;

const PAUSE: Duration = Duration::from_millis(20);

/// Whether somebody wants the program to end.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on Ctrl-C and its like set the flag, and end nothing by themselves.
    pub(crate) fn catch() -> Result<Self> {
        let mut signals = StopSignals::catch()?;
        let interrupt = Self(Arc::default());
        let flag = interrupt.clone();
        let watch = move || {
            let name = signals.wait();
            flag.0.store(true, Ordering::Relaxed);
            eprintln!("\n{name}: taking the lab down");
            // Further signals are swallowed: they would end the taking down.
            loop {
                signals.wait();
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(watch).context("starting a thread failed")?;
        Ok(interrupt)
    }

    /// Whether a signal came.
    pub(crate) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error if a signal came.
    pub(crate) fn check(&self) -> Result<()> {
        if self.came() {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Sleeps, unless a signal comes.
    pub(crate) fn sleep(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(PAUSE));
        }
    }

    /// Waits until a condition holds and says how long that took; none if it didn't in time.
    pub(crate) fn wait(&self, patience: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<Option<Duration>> {
        let start = Instant::now();
        loop {
            self.check()?;
            if holds()? {
                return Ok(Some(start.elapsed()));
            }
            if start.elapsed() > patience {
                return Ok(None);
            }
            thread::sleep(PAUSE / 4);
        }
    }

    /// Waits for a signal.
    pub(crate) fn wait_for(&self) {
        while !self.came() {
            thread::sleep(PAUSE * 5);
        }
    }
}
