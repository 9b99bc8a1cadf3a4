//! The policy in force, and those before it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use apps::policy::Source;
use serde::{Deserialize, Serialize};

use crate::policy_files;

/// How many former policies are kept.
pub const FORMER_MAX: usize = 10;
/// How many octets they have together, but for the last of them.
const FORMER_BYTES: usize = 32 << 20;

/// A policy that came into force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Rises by one with each policy.
    pub generation: u64,
    /// SHA-256 of the texts, in hex.
    pub digest: String,
    /// The files.
    pub sources: Vec<Source>,
}

/// Until when a policy has to be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// Milliseconds since 1970, by the clock on the wall: it goes on while nothing runs.
    pub until: u64,
    /// Milliseconds from when it came into force until then.
    pub within: u64,
}

impl Confirmation {
    /// So much time from now on.
    pub fn within(now: SystemTime, time: Duration) -> Self {
        let within = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self { until: millis(now).saturating_add(within), within }
    }

    /// How much time is left. A clock that was set back doesn't make it more than it ever was.
    pub fn left(self, now: SystemTime) -> Duration {
        Duration::from_millis(self.until.saturating_sub(millis(now)).min(self.within))
    }

    /// The moment when it ends.
    pub fn end(self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_millis(self.until)).unwrap_or(UNIX_EPOCH)
    }
}

fn millis(moment: SystemTime) -> u64 {
    u64::try_from(moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// The policies that are and were in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The one in force.
    pub in_force: Kept,
    /// Those before it, the last one last.
    pub former: Vec<Kept>,
    /// The one in force has to be confirmed; else the last one returns.
    pub confirmation: Option<Confirmation>,
}

impl History {
    /// With a new policy in force. Files that only have other names are the same policy.
    #[must_use]
    pub fn applied(&self, sources: Vec<Source>, confirmation: Option<Confirmation>) -> Self {
        let digest = policy_files::digest(&sources);
        let before = &self.in_force;
        // Before the first one there was none, which is no policy of anybody's.
        if digest == before.digest || (before.digest.is_empty() && sources.is_empty()) {
            let in_force = Kept { generation: before.generation, digest, sources };
            return Self { in_force, former: self.former.clone(), confirmation: self.confirmation };
        }
        let mut former = self.former.clone();
        former.push(before.clone());
        let bytes = |kept: &Kept| kept.sources.iter().map(|source| source.text.len()).sum::<usize>();
        while former.len() > FORMER_MAX || (former.len() > 1 && former.iter().map(bytes).sum::<usize>() > FORMER_BYTES)
        {
            former.remove(0);
        }
        Self { in_force: Kept { generation: before.generation + 1, digest, sources }, former, confirmation }
    }

    /// With the last policy in force again, under a generation of its own; `None`: there was none.
    #[must_use]
    pub fn undone(&self) -> Option<Self> {
        let mut former = self.former.clone();
        let last = former.pop()?;
        Some(Self { in_force: Kept { generation: self.in_force.generation + 1, ..last }, former, confirmation: None })
    }

    /// With the one in force to stay.
    #[must_use]
    pub fn confirmed(&self) -> Self {
        Self { confirmation: None, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> Vec<Source> {
        vec![Source { name: "a.toml".into(), text: text.into() }]
    }

    fn generations(history: &History) -> (u64, Vec<u64>) {
        (history.in_force.generation, history.former.iter().map(|kept| kept.generation).collect())
    }

    #[test]
    fn what_was_in_force_returns_step_by_step_and_generations_only_rise() {
        let empty = History::default();
        assert_eq!(empty.undone(), None);
        let three = empty.applied(files("1"), None).applied(files("2"), None).applied(files("3"), None);
        assert_eq!(generations(&three), (3, vec![0, 1, 2]));
        let back = three.undone().unwrap();
        assert_eq!((generations(&back), &back.in_force.sources), ((4, vec![0, 1]), &files("2")));
        let further = back.undone().unwrap();
        assert_eq!((generations(&further), &further.in_force.sources), ((5, vec![0]), &files("1")));
        assert_eq!(further.undone().unwrap().undone(), None);
    }

    #[test]
    fn the_same_text_is_the_same_policy_whatever_its_file_is_called() {
        let wait = Confirmation::within(UNIX_EPOCH, Duration::from_secs(1));
        let one = History::default().applied(files("1"), Some(wait));
        let other = one.applied(vec![Source { name: "b.toml".into(), text: "1".into() }], None);
        assert_eq!((generations(&other), other.confirmation), ((1, vec![0]), Some(wait)));
        assert_eq!(other.in_force.sources[0].name, "b.toml");
        assert_eq!(generations(&History::default().applied(Vec::new(), None)), (0, vec![]));
    }

    #[test]
    fn former_policies_are_bounded_in_number_and_size_but_there_is_always_one() {
        let many = (0..30).fold(History::default(), |history, n| history.applied(files(&n.to_string()), None));
        assert_eq!(generations(&many), (30, (20..30).collect()));
        let long = |n: usize| files(&format!("{n}{}", " ".repeat(20 << 20)));
        let large = (0..3).fold(many, |history, n| history.applied(long(n), None));
        assert_eq!(generations(&large), (33, vec![32]));
    }

    #[test]
    fn time_to_confirm_goes_by_and_a_clock_that_is_set_back_gives_no_more() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let wait = Confirmation::within(at(100), Duration::from_secs(60));
        assert_eq!((wait.left(at(100)), wait.left(at(130))), (Duration::from_secs(60), Duration::from_secs(30)));
        assert_eq!((wait.left(at(161)), wait.left(at(10))), (Duration::ZERO, Duration::from_secs(60)));
        assert_eq!(wait.end(), at(160));
    }
}
