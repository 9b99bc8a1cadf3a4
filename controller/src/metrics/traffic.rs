//! Messages of one session, by type and direction.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use openflow::message::Message;

/// Types that are counted by number; OpenFlow 1.3 has none beyond. All others are counted together.
const KINDS: usize = 31;

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the bridge.
    Received,
    /// To the bridge.
    Sent,
}

/// Messages of one session. They live as long as it does, so nobody can make more of them than there are sessions.
#[derive(Debug, Default)]
pub struct Traffic {
    received: [AtomicU64; KINDS],
    sent: [AtomicU64; KINDS],
}

impl Traffic {
    const fn side(&self, direction: Direction) -> &[AtomicU64; KINDS] {
        match direction {
            Direction::Received => &self.received,
            Direction::Sent => &self.sent,
        }
    }

    /// A message of this type went that way.
    pub fn count(&self, direction: Direction, kind: u8) {
        self.side(direction)[usize::from(kind).min(KINDS - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// How many of each type went that way, but for those of which none did.
    pub fn counts(&self, direction: Direction) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for (kind, count) in self.side(direction).iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                // Types without a name share one.
                *counts.entry(Message::name_of(u8::try_from(kind).unwrap_or(u8::MAX))).or_default() += count;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_by_name_and_those_without_one_together() {
        let traffic = Traffic::default();
        for kind in 0..=255 {
            traffic.count(Direction::Received, kind);
        }
        traffic.count(Direction::Sent, 14);
        let received = traffic.counts(Direction::Received);
        assert_eq!((received["Hello"], received["PacketIn"]), (1, 1));
        assert_eq!(received.values().sum::<u64>(), 256);
        assert_eq!(traffic.counts(Direction::Sent), BTreeMap::from([("FlowMod", 1)]));
    }
}
