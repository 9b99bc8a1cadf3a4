//! What kind of a move it is when a host is seen elsewhere: a fail-over, two hosts with one address, a loop.

use std::time::{Duration, Instant};

use apps::view::Endpoint;

/// So long after its last move a host is where it belongs, and what was before counts no more.
const CALM: Duration = Duration::from_secs(10);

/// The same frame at another port within this time is a copy: nobody says the same so soon.
const ECHO: Duration = Duration::from_millis(100);

/// From so many changes of the claimant on within a [rest](super::hosts) both are there at once; a bond that goes there and
/// back makes two.
const AT_ONCE: u32 = 4;

/// From so many moves on, one soon after another, it is no fail-over there and back.
const OFTEN: u32 = 6;

/// What is wrong with a host's moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Its frames come back by other ports.
    Loop,
    /// Two ports claim it at the same time.
    Twice,
    /// It moves again and again.
    Restless,
}

/// Where a host was claimed lately.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trail {
    /// Where it was before it began to move, and the first ports where it was claimed since.
    places: [Option<Endpoint>; 3],
    /// The last claim.
    last: Endpoint,
    at: Instant,
    digest: u64,
    /// When the claimant last changed, how often it did, and how often by a copy of the frame before.
    turned: Instant,
    turns: u32,
    copies: u32,
    /// How often it moved.
    moves: u32,
    /// Had it been claimed there before, when it last did?
    back: bool,
}

impl Trail {
    pub(crate) const fn new(now: Instant, place: Endpoint, digest: u64) -> Self {
        let places = [Some(place), None, None];
        Self { places, last: place, at: now, digest, turned: now, turns: 0, copies: 0, moves: 0, back: false }
    }

    /// It is claimed at a port. `true`: the claim before was another port's.
    pub(crate) fn step(&mut self, now: Instant, place: Endpoint, digest: u64) -> bool {
        let turns = place != self.last;
        if turns {
            if now.duration_since(self.turned) >= CALM {
                *self = Self { at: self.at, ..Self::new(now, self.last, self.digest) };
            }
            self.turns = self.turns.saturating_add(1);
            self.copies += u32::from(digest == self.digest && now.duration_since(self.at) < ECHO);
            self.back = self.places.contains(&Some(place));
            if let Some(free) = self.places.iter_mut().find(|it| it.is_none()).filter(|_| !self.back) {
                *free = Some(place);
            }
            (self.last, self.turned) = (place, now);
        }
        (self.at, self.digest) = (now, digest);
        turns
    }

    /// It is where it was claimed last.
    pub(crate) const fn moved(self) -> Self {
        Self { moves: self.moves.saturating_add(1), ..self }
    }

    /// Had it been claimed where it is now a short time before?
    pub(crate) const fn is_back(&self) -> bool {
        self.back
    }

    /// The ports that the moves are between, that where it belongs first.
    pub(crate) fn places(&self) -> impl Iterator<Item = Endpoint> {
        self.places.into_iter().flatten()
    }

    /// All ports that it knows of.
    pub(crate) fn places_mut(&mut self) -> impl Iterator<Item = &mut Endpoint> {
        self.places.iter_mut().flatten().chain([&mut self.last])
    }

    /// Are there, with so many changes of the claimant within a rest, several at once?
    pub(crate) const fn at_once(turns: u32) -> bool {
        turns >= AT_ONCE
    }

    /// Is something wrong? `turns`: changes of the claimant within this rest; `crowd`: other hosts fare alike.
    pub(crate) fn trouble(&self, turns: u32, crowd: bool) -> Option<Trouble> {
        // Where one of two hosts says little, each time that it does the other one soon says that it is still there.
        let at_once = Self::at_once(turns) || Self::at_once(self.turns.saturating_sub(self.moves));
        let third = self.places.iter().all(Option::is_some);
        // Where a port sends back what it gets, each second change is a copy.
        let copies = self.turns >= AT_ONCE && self.copies.saturating_mul(3) >= self.turns;
        if copies || at_once && (third || crowd) {
            Some(Trouble::Loop)
        } else if at_once {
            Some(Trouble::Twice)
        } else {
            (self.moves >= OFTEN).then_some(Trouble::Restless)
        }
    }
}
