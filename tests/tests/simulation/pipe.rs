//! One direction of a connection: octets arrive in pieces that are cut anywhere, later than they were sent, or not at all.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::fabric::Draw;

/// How long octets are usually under way at most.
pub(crate) const NEAR: Duration = Duration::from_millis(2);

/// See the module's text.
pub(crate) struct Pipe {
    pieces: VecDeque<(Instant, Bytes)>,
    /// How long octets are under way at most.
    pub(crate) delay: Duration,
}

impl Pipe {
    pub(crate) fn new() -> Self {
        Self { pieces: VecDeque::new(), delay: NEAR }
    }

    /// Octets go in at one end.
    pub(crate) fn put(&mut self, now: Instant, mut octets: Bytes, draw: &mut Draw) {
        while !octets.is_empty() {
            let length = if draw.below(3) == 0 { 1 + draw.below(octets.len()) } else { octets.len() };
            let due = now + Duration::from_micros(draw.below(self.delay.as_micros() as usize + 1) as u64);
            let due = self.pieces.back().map_or(due, |(last, _)| due.max(*last));
            self.pieces.push_back((due, octets.split_to(length)));
        }
    }

    /// When the next piece comes out at the other end.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.pieces.front().map(|(due, _)| *due)
    }

    /// The next piece.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        self.pieces.pop_front().map(|(_, piece)| piece)
    }

    /// The connection breaks: so much of what was under way still arrives, up to some octet.
    pub(crate) fn cut(&mut self, draw: &mut Draw) -> Bytes {
        let mut octets = BytesMut::new();
        self.pieces.drain(..).for_each(|(_, piece)| octets.extend_from_slice(&piece));
        octets.truncate(draw.below(octets.len() + 1));
        octets.freeze()
    }
}
