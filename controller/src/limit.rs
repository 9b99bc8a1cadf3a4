//! Limits: how many lines a log may get, and what was dropped without one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lets so many through per second and counts the rest.
#[derive(Debug)]
pub struct Limit {
    per_second: u32,
    window: Option<Instant>,
    passed: u32,
    held_back: u64,
}

impl Limit {
    /// At most `per_second`.
    pub const fn new(per_second: u32) -> Self {
        Self { per_second, window: None, passed: 0, held_back: 0 }
    }

    /// May one more pass? If so, how many were held back since the last one that did.
    pub fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.window.is_none_or(|start| now.duration_since(start) >= Duration::from_secs(1)) {
            self.window = Some(now);
            self.passed = 0;
        }
        if self.passed >= self.per_second {
            self.held_back += 1;
            return None;
        }
        self.passed += 1;
        Some(std::mem::take(&mut self.held_back))
    }

    /// How many were held back since the last one that passed.
    pub const fn held_back(&self) -> u64 {
        self.held_back
    }
}

/// What sessions dropped, over all of them. Each number stands for itself, so they need no lock.
#[derive(Debug, Default)]
pub struct Dropped {
    /// Packet-ins of probes beyond a session's budget.
    pub probes: AtomicU64,
    /// Other packet-ins beyond a session's budget.
    pub packets: AtomicU64,
    /// Messages that couldn't be decoded.
    pub malformed: AtomicU64,
}

impl Dropped {
    /// Counts one.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_starts_again_each_second_and_tells_what_it_held_back() {
        let (mut limit, start) = (Limit::new(2), Instant::now());
        assert_eq!([0, 0, 0, 0].map(|_: u8| limit.pass(start)), [Some(0), Some(0), None, None]);
        assert_eq!(limit.held_back(), 2);
        assert_eq!(limit.pass(start + Duration::from_secs(1)), Some(2));
        assert_eq!(limit.held_back(), 0);
    }
}
