//! How long packets may be that one way carries: a search by trying sizes, which is told what passed and what was lost.

use std::time::Duration;

/// Packets as short as this pass, or none does.
pub(super) const LEAST: u16 = 128;

/// Longer ones aren't tried: what carries this is taken to carry all that tenants send.
pub(super) const MOST: u16 = 9000;

/// What links of common networks carry; tried first.
const COMMON: [u16; 9] = [1280, 1400, 1450, 1500, 1550, 2000, 4000, 8950, MOST];

/// A size is too long if so many packets of it are lost one after the other, while short ones beside them pass.
const LOST: u8 = 3;

/// Time between two tries: a port may show the controller 100 frames a second, and each try takes two.
const SPACING: Duration = Duration::from_millis(60);

/// The same before what was found is said aloud: if a busy network loses long packets, it doesn't do so all the time.
const DOUBT: Duration = Duration::from_millis(300);

/// Of the looks whether what was found still holds, each of so many tries whether more passes. It mostly doesn't, and a
/// switch may log that.
const GROWS: u8 = 10;

/// Where less passes than somebody wants to send, it is looked so much more often.
const TROUBLE: u32 = 6;

/// What a try is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Finds the longest size that passes.
    Narrow,
    /// It is found; is the next one really too long?
    Doubt,
    /// Does it still pass?
    Look,
    /// Does more pass by now?
    Grow,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub(super) struct Search {
    phase: Phase,
    /// The longest size that passed in this search, and the shortest that was too long.
    low: Option<u16>,
    high: u16,
    /// What is being tried, and how often in a row it was lost.
    aim: u16,
    lost: u8,
    looks: u8,
    /// What somebody wants to send.
    wanted: u16,
    /// What was found last; 0: nothing passes.
    pub(super) found: Option<u16>,
}

impl Search {
    /// Nothing is known yet.
    pub(super) fn new() -> Self {
        Self { phase: Phase::Narrow, low: None, high: MOST + 1, aim: LEAST, lost: 0, looks: 0, wanted: 0, found: None }
    }

    /// The size to try now. `guess` is what was found on a way like this, `wanted` what somebody wants to send.
    pub(super) fn aim(&mut self, guess: Option<u16>, wanted: u16) -> u16 {
        self.wanted = wanted;
        if self.lost == 0 {
            self.aim = self.choose(guess);
        }
        self.aim
    }

    fn choose(&self, guess: Option<u16>) -> u16 {
        let found = self.found.unwrap_or_default();
        match self.phase {
            Phase::Doubt => self.high,
            Phase::Look => found.max(LEAST),
            Phase::Grow => found + 1,
            Phase::Narrow => {
                let Some(low) = self.low else { return LEAST };
                let inside = |size: &u16| low < *size && *size < self.high;
                let guessed = guess.into_iter().flat_map(|guess| [guess, guess + 1]).find(inside);
                let guessed = guessed.filter(|size| guess == Some(*size) || guess == Some(low));
                let common: Vec<u16> = COMMON.into_iter().filter(inside).collect();
                let next = Some(low + 1).filter(|next| COMMON.contains(&low) && inside(next));
                guessed.or(common.get(common.len() / 2).copied()).or(next).unwrap_or(low.midpoint(self.high))
            }
        }
    }

    /// A packet of this size came through, perhaps later than anybody waited for it.
    pub(super) fn passed(&mut self, size: u16) {
        if size < self.aim && self.low >= Some(size) {
            return;
        }
        self.lost = 0;
        self.low = self.low.max(Some(size));
        match self.phase {
            Phase::Look if self.found == Some(size) => {
                self.looks = (self.looks + 1) % GROWS;
                // Where more is wanted, it matters.
                if size < MOST && (self.looks == 0 || size < self.wanted) {
                    self.phase = Phase::Grow;
                }
            }
            // More passes than was found.
            Phase::Look | Phase::Grow => (self.phase, self.high) = (Phase::Narrow, MOST + 1),
            Phase::Narrow | Phase::Doubt => self.phase = Phase::Narrow,
        }
        if self.high <= size {
            self.high = MOST + 1;
        }
        self.narrowed();
    }

    /// A packet of the size that is being tried was lost, and a short one beside it wasn't.
    pub(super) fn lost(&mut self) {
        self.lost += 1;
        if self.lost < LOST && self.phase != Phase::Grow {
            return;
        }
        self.lost = 0;
        match self.phase {
            Phase::Narrow => {
                self.high = self.aim;
                self.narrowed();
            }
            Phase::Doubt => self.end(self.low.unwrap_or_default()),
            Phase::Look if self.found.is_some_and(|found| found >= LEAST) => {
                (self.phase, self.low, self.high) = (Phase::Narrow, None, self.aim);
                self.narrowed();
            }
            Phase::Look | Phase::Grow => self.phase = Phase::Look,
        }
    }

    fn narrowed(&mut self) {
        if self.phase != Phase::Narrow {
            return;
        }
        match self.low {
            Some(MOST) => self.end(MOST),
            low if self.high <= low.map_or(LEAST, |low| low + 1) => self.phase = Phase::Doubt,
            _ => {}
        }
    }

    fn end(&mut self, found: u16) {
        (self.found, self.phase, self.looks) = (Some(found), Phase::Look, 0);
        (self.low, self.high) = (Some(found), found + 1);
    }

    /// How long to wait for the next try; looks are as far apart as `rest`, and closer where too little passes, as somebody may be
    /// mending that.
    pub(super) fn pause(&self, rest: Duration) -> Duration {
        match self.phase {
            Phase::Narrow | Phase::Grow => SPACING,
            Phase::Doubt => DOUBT,
            Phase::Look if self.lost > 0 => DOUBT,
            Phase::Look if self.found == Some(0) || self.found < Some(self.wanted) => rest / TROUBLE,
            Phase::Look => rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries until the search rests, and how many tries that took.
    fn run(search: &mut Search, carries: u16, guess: Option<u16>) -> usize {
        for tries in 1.. {
            let size = search.aim(guess, 0);
            if size <= carries {
                search.passed(size);
            } else {
                search.lost();
            }
            if search.phase == Phase::Look && search.lost == 0 {
                return tries;
            }
            assert!(tries < 60, "{search:?}");
        }
        0
    }

    #[test]
    fn every_size_is_found_to_the_octet() {
        for carries in LEAST..=MOST {
            let mut search = Search::new();
            let tries = run(&mut search, carries, None);
            assert_eq!(search.found, Some(carries));
            assert!(tries <= 50, "{carries}: {tries} tries");
        }
        for (carries, found) in [(0, 0), (LEAST - 1, 0), (u16::MAX, MOST)] {
            let mut search = Search::new();
            run(&mut search, carries, None);
            assert_eq!(search.found, Some(found));
        }
    }

    #[test]
    fn what_a_way_like_it_carries_is_tried_first() {
        for (guess, most) in [(1550, 9), (1500, 9), (1546, 9), (MOST, 2)] {
            let mut search = Search::new();
            let tries = run(&mut search, guess, Some(guess));
            assert!(search.found == Some(guess) && tries <= most, "{guess}: {tries} tries");
        }
        for (guess, carries) in [(1550, 1450), (1450, 1550), (1550, 1551), (1550, 1552), (MOST, 1500), (1500, MOST)] {
            let mut search = Search::new();
            run(&mut search, carries, Some(guess));
            assert_eq!(search.found, Some(carries), "guessed {guess}");
        }
    }

    #[test]
    fn what_is_lost_or_late_now_and_then_shortens_nothing() {
        // Of long packets each third is lost, and then two in a row.
        for pattern in [[false, true, true, false, true, true], [true, false, false, true, false, false]] {
            let mut search = Search::new();
            for count in 0..200 {
                let size = search.aim(None, 0);
                if size <= 1550 && (size < 1000 || pattern[count % 6]) {
                    search.passed(size);
                } else {
                    search.lost();
                }
                assert!(search.found.is_none_or(|found| found == 1550), "{search:?}");
            }
            assert_eq!(search.found, Some(1550));
        }
        // Three are lost, but one of them only late.
        let mut search = Search::new();
        search.passed(search.aim);
        let size = search.aim(None, 0);
        (0..3).for_each(|_| search.lost());
        assert!(search.high == size && search.aim(None, 0) < size);
        search.passed(size);
        run(&mut search, 1550, None);
        assert_eq!(search.found, Some(1550));
    }

    #[test]
    fn what_changes_is_found_anew_and_known_as_it_was_meanwhile() {
        let mut search = Search::new();
        run(&mut search, 1550, None);
        for carries in [1450, 1446, 0, 1500, 1450] {
            let before = search.found;
            for _ in 0..GROWS {
                run(&mut search, carries, None);
                assert!(search.found == before || search.found == Some(carries), "{search:?}");
            }
            assert_eq!(search.found, Some(carries));
        }
        // Who wants more hears of it at the next look, which is soon.
        run(&mut search, 1450, None);
        assert_eq!(search.pause(Duration::from_secs(60)), Duration::from_secs(60));
        assert_eq!(search.aim(None, 1500), 1450);
        assert_eq!(search.pause(Duration::from_secs(60)), Duration::from_secs(10));
        search.passed(1450);
        assert_eq!(search.aim(None, 1500), 1451);
        search.passed(1451);
        run(&mut search, 1550, None);
        assert_eq!(search.found, Some(1550));
    }
}
