//! What can be asked of the policy in force, where the store is its source.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use apps::policy::Source;
use apps::problems::Changes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::policy_watch::PolicyError;
use crate::problems::utc;
use crate::store::StoreError;

/// How many may wait.
pub const QUEUE: usize = 16;

/// A command, and the way to whoever has it.
#[derive(Debug)]
pub struct Ask {
    /// What.
    pub command: Command,
    /// Gets the answer.
    pub answer: oneshot::Sender<Result<Answer, Refusal>>,
}

/// What can be asked for.
#[derive(Debug)]
pub enum Command {
    /// A new policy.
    Apply {
        /// Its files.
        sources: Vec<Source>,
        /// Only if this is in force.
        only_if: Option<Digests>,
        /// Without [`Command::Confirm`] within this time the one before returns.
        confirm_within: Option<Duration>,
    },
    /// The policy in force is to stay.
    Confirm,
    /// The policy before the one in force is to return.
    Undo {
        /// Also if it has no tenants.
        empty: bool,
    },
}

/// Digests of policies, as `If-Match` names them (RFC 9110 §13.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Digests {
    /// `*`.
    Any,
    /// These.
    These(Vec<String>),
}

impl Digests {
    /// Reads the header. What is no strong entity tag matches nothing.
    pub fn read(header: &str) -> Self {
        if header.trim() == "*" {
            return Self::Any;
        }
        let tags = header.split(',').filter_map(|tag| tag.trim().strip_prefix('"')?.strip_suffix('"'));
        Self::These(tags.map(str::to_owned).collect())
    }

    /// Is this one of them?
    pub fn allow(&self, digest: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These(digests) => digests.iter().any(|one| one == digest),
        }
    }
}

/// What is in force now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The policy's generation.
    pub generation: u64,
    /// SHA-256 of its text, in hex.
    pub digest: String,
    /// Is it another one than before?
    pub changed: bool,
    /// Until when it has to be confirmed (RFC 3339); absent: it stays.
    pub confirm_until: Option<String>,
    /// Which policy it is again, if that was asked for.
    pub returned: Option<Returned>,
    /// Problems that come and end with it, in the fabric as it is seen.
    pub problems: Changes,
    /// What looks odd about it.
    pub warnings: Vec<String>,
}

/// A policy that returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returned {
    /// The generation that it was.
    pub generation: u64,
    /// Its files.
    pub files: Vec<String>,
    /// Its tenants.
    pub tenants: Vec<String>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Policy files are the source.
    #[error(
        "the policy comes from files ({}), which `espalier serve` was started with; change those: they are watched",
        .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    Files(Vec<PathBuf>),
    /// Another policy is in force than the one that was named.
    #[error(
        "another policy is in force than the one that was named; its digest is {0}; look what it is, and try again"
    )]
    Changed(String),
    /// The policy in force isn't confirmed yet.
    #[error(
        "policy generation {generation} waits to be confirmed until {}; confirm it or undo it first, with \
         `espalier confirm` or `espalier undo`",
        utc(*until)
    )]
    Waiting {
        /// Its generation.
        generation: u64,
        /// Until when.
        until: SystemTime,
    },
    /// Nothing waits for it.
    #[error(
        "policy generation {0} is in force and needn't be confirmed; if you applied one before, it wasn't confirmed in time"
    )]
    NothingToConfirm(u64),
    /// There is no policy before.
    #[error("there is no policy before the one in force that could return")]
    NothingToUndo,
    /// The policy before has no tenants.
    #[error(
        "the policy before the one in force (generation {0}) is empty: no port would belong to any tenant, and nobody would reach \
         anybody; if that is what you want, say so with `espalier undo --empty` (over REST `?empty=true`)"
    )]
    Empty(u64),
    /// It can't come into force.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Policy(error.into())
    }
}

/// Reads a time like `90s`: a whole number, and `ms`, `s`, `m` or `h`.
///
/// # Errors
/// What to write instead.
pub fn time(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = text.strip_suffix(unit).and_then(|digits| digits.parse::<u64>().ok());
    let millis = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let time = number.zip(millis).and_then(|(number, millis)| number.checked_mul(millis));
    let time = time.filter(|time| (1..=TIME_MAX).contains(time));
    time.map(Duration::from_millis)
        .ok_or_else(|| format!("\"{text}\" is no time up to 24 h; write it like \"60s\", \"5m\" or \"500ms\""))
}

/// The longest time, in milliseconds.
const TIME_MAX: u64 = 24 * 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_an_end() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!((time("60s"), time("24h")), (time("1m"), time("1440m")));
        for text in ["", "s", "60", "0s", "-1s", "1.5s", "1 s", "25h", "99999999999999999999s", "1d", "é"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn if_match_names_strong_tags_or_any() {
        assert!(Digests::read(" * ").allow("a") && Digests::read("\"b\", \"a\"").allow("a"));
        for header in ["", "a", "W/\"a\"", "\"A\"", "\"a", "\"*\""] {
            assert!(!Digests::read(header).allow("a"), "{header}");
        }
    }
}
