//! Limits: how many lines a log may get.

use std::fmt;
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
    pub fn pass(&mut self, now: Instant) -> Option<HeldBack> {
        if self.window.is_none_or(|start| now.duration_since(start) >= Duration::from_secs(1)) {
            self.window = Some(now);
            self.passed = 0;
        }
        if self.passed >= self.per_second {
            self.held_back += 1;
            return None;
        }
        self.passed += 1;
        Some(HeldBack(std::mem::take(&mut self.held_back)))
    }

    /// How many were held back since the last one that passed.
    pub const fn held_back(&self) -> u64 {
        self.held_back
    }
}

/// How many were held back: the end of a line that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBack(pub u64);

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " (and {count} like it since the last such line)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_starts_again_each_second_and_tells_what_it_held_back() {
        let (mut limit, start) = (Limit::new(2), Instant::now());
        assert_eq!([0, 0, 0, 0].map(|_: u8| limit.pass(start)), [Some(HeldBack(0)), Some(HeldBack(0)), None, None]);
        assert_eq!(limit.held_back(), 2);
        assert_eq!(limit.pass(start + Duration::from_secs(1)), Some(HeldBack(2)));
        assert_eq!(limit.held_back(), 0);
        assert_eq!(format!("{}.{}", HeldBack(0), HeldBack(2)), ". (and 2 like it since the last such line)");
    }
}
