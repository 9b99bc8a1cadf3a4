//! Links that go down again and again: each time they have to stay up for longer before they are used again, so that
//! the tenants' trees don't go to and fro with them. Nobody is cut off by that.

use std::time::{Duration, Instant};

/// So many times a link is used again at once.
const FREE: u32 = 2;

/// How long it has to stay up after that: twice as long each time, up to the most.
pub(crate) const HOLD: Duration = Duration::from_secs(1);
const HOLD_MAX: Duration = Duration::from_secs(30);

/// Times that count; with more there would be more to forget.
const DOWNS_MAX: u32 = 8;

/// For each such time without trouble one is forgotten.
const FORGET: Duration = Duration::from_secs(10);

/// How often one link went down lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damping {
    downs: u32,
    last: Option<Instant>,
    until: Option<Instant>,
}

impl Damping {
    /// It went down.
    pub(crate) fn went_down(&mut self, now: Instant) {
        self.downs = (self.downs(now) + 1).min(DOWNS_MAX);
        self.last = Some(now);
        self.until = None;
    }

    /// It came up. Gives for how long it isn't used if it needn't be.
    pub(crate) fn came_up(&mut self, now: Instant) -> Option<Duration> {
        let doublings = self.downs(now).checked_sub(FREE + 1)?;
        let hold = (HOLD * (1 << doublings)).min(HOLD_MAX);
        self.until = Some(now + hold);
        Some(hold)
    }

    /// How often it went down lately; eight times is often enough to count.
    pub(crate) fn downs(&self, now: Instant) -> u32 {
        let quiet = self.last.map_or(Duration::ZERO, |last| now.duration_since(last));
        self.downs.saturating_sub(u32::try_from(quiet.as_secs() / FORGET.as_secs()).unwrap_or(u32::MAX))
    }

    /// Until when it is damped; may be over.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// For how long it is still damped.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_down_often_waits_longer_each_time_and_is_forgiven_in_the_end() {
        let (mut damping, mut now) = (Damping::default(), Instant::now());
        let mut holds = Vec::new();
        for _ in 0..10 {
            damping.went_down(now);
            now += Duration::from_millis(100);
            holds.push(damping.came_up(now).map_or(0, |hold| hold.as_secs()));
            now += Duration::from_millis(100);
        }
        assert_eq!(holds, [0, 0, 1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(damping.left(now), Some(Duration::from_millis(29_900)));
        assert_eq!(damping.left(now + Duration::from_secs(30)), None);
        assert_eq!((damping.downs(now), damping.downs(now + Duration::from_secs(40))), (8, 4));
        now += Duration::from_secs(60);
        damping.went_down(now);
        assert_eq!(damping.came_up(now), Some(Duration::from_secs(1)), "three are left");
        now += Duration::from_secs(30);
        damping.went_down(now);
        assert_eq!(damping.came_up(now), None);
    }
}
