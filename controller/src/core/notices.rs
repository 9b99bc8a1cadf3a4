//! What the operator is told: not the same again and again, and nobody takes the room of others.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use openflow::types::DatapathId;

use crate::limit::Limit;

/// The same notice isn't repeated sooner.
const REPEAT: Duration = Duration::from_secs(10);

/// Most notices in that time.
const NOTICES_MAX: usize = 1000;

/// Most notices about one bridge per second; its session has a budget of its own for what it can't decode.
const BRIDGE_MAX: u32 = 5;

/// Most notices per second about bridges that nobody knows: anybody can claim many datapath ids.
const STRANGERS_MAX: u32 = 20;

/// How long a problem that was seen once stays in the status.
const REMEMBER: Duration = Duration::from_secs(60);

/// Most problems at once, of one bridge and in all: a hostile host can't fill memory with made-up addresses.
const BRIDGE_PROBLEMS_MAX: usize = 20;
const PROBLEMS_MAX: usize = 500;

/// Whose doing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    /// The fabric as a whole.
    Fabric,
    /// A bridge that is remembered.
    Bridge(DatapathId),
    /// Any other bridge.
    Strangers,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    told: BTreeMap<String, Instant>,
    budgets: BTreeMap<About, Limit>,
    problems: BTreeMap<(About, String), Instant>,
}

impl Notices {
    /// The line to write about something, if it may be told now.
    pub(crate) fn pass(&mut self, now: Instant, about: About, text: &str) -> Option<String> {
        let recent = |told: &Instant| now.duration_since(*told) < REPEAT;
        if self.told.get(text).is_some_and(recent) {
            return None;
        }
        let mut line = text.to_owned();
        if let Some(per_second) = about.per_second() {
            let budget = self.budgets.entry(about).or_insert(Limit::new(per_second));
            line += &budget.pass(now)?.to_string();
        }
        self.told.retain(|_, told| recent(told));
        match self.told.len() {
            NOTICES_MAX.. => return None,
            last if last + 1 == NOTICES_MAX => {
                line += &format!("; too much to tell: what else happens in the next {} s isn't told", REPEAT.as_secs());
            }
            _ => {}
        }
        self.told.insert(text.to_owned(), now);
        Some(line)
    }

    /// Keeps a problem in mind for a while.
    pub(crate) fn remember(&mut self, now: Instant, about: About, text: &str) {
        self.problems.retain(|_, seen| now.duration_since(*seen) < REMEMBER);
        let key = (about, text.to_owned());
        let of_it = self.problems.keys().filter(|(whose, _)| *whose == about).count();
        let room = of_it < BRIDGE_PROBLEMS_MAX && self.problems.len() < PROBLEMS_MAX;
        if room || self.problems.contains_key(&key) {
            self.problems.insert(key, now);
        }
    }

    /// What was seen lately is no longer anything to us.
    pub(crate) fn forget_problems(&mut self) {
        self.problems.clear();
    }

    /// Problems that were seen lately.
    pub(crate) fn problems(&self, now: Instant) -> impl Iterator<Item = &str> {
        let lately = self.problems.iter().filter(move |(_, seen)| now.duration_since(**seen) < REMEMBER);
        lately.map(|((_, text), _)| text.as_str())
    }
}

impl About {
    /// Most lines about it per second.
    const fn per_second(self) -> Option<u32> {
        match self {
            Self::Fabric => None,
            Self::Bridge(_) => Some(BRIDGE_MAX),
            Self::Strangers => Some(STRANGERS_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: About = About::Bridge(DatapathId(1));
    const TWO: About = About::Bridge(DatapathId(2));

    #[test]
    fn one_bridge_can_neither_fill_the_log_nor_hide_what_others_do() {
        let (mut notices, start) = (Notices::default(), Instant::now());
        for second in 0..30 {
            let now = start + Duration::from_secs(second);
            let lines = (0..500).filter_map(|n| notices.pass(now, ONE, &format!("{second} {n}"))).count();
            assert_eq!(lines, BRIDGE_MAX as usize, "in second {second}");
            assert!(notices.pass(now, TWO, &format!("two {second}")).is_some());
            assert!(notices.pass(now, About::Fabric, &format!("fabric {second}")).is_some());
        }
        let line = notices.pass(start + Duration::from_secs(30), ONE, "last").unwrap();
        assert!(line.contains("495 like it"), "{line}");
    }

    #[test]
    fn all_together_are_bounded_and_the_last_line_says_so() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        let lines: Vec<_> = (0..5000).filter_map(|n| notices.pass(now, About::Fabric, &n.to_string())).collect();
        assert_eq!(lines.len(), NOTICES_MAX);
        assert!(lines.last().unwrap().contains("too much to tell"), "{:?}", lines.last());
        assert!(notices.pass(now + REPEAT, About::Fabric, "later").is_some());
        assert!(notices.pass(now + REPEAT, About::Fabric, "later").is_none(), "the same again");
    }

    #[test]
    fn problems_are_bounded_for_each_bridge_and_for_all_and_fade() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        for n in 0..1000 {
            notices.remember(now, ONE, &n.to_string());
        }
        notices.remember(now, TWO, "two");
        assert_eq!(notices.problems(now).count(), BRIDGE_PROBLEMS_MAX + 1);
        for n in 0..1000 {
            notices.remember(now, About::Bridge(DatapathId(n)), "x");
        }
        assert_eq!(notices.problems(now).count(), PROBLEMS_MAX);
        assert_eq!(notices.problems(now + REMEMBER).count(), 0);
    }
}
