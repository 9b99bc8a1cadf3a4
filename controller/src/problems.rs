//! What an operator should look at in the daemon itself, one line a matter, shown in the status.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::turned_away::TurnedAway;

/// Open problems.
#[derive(Debug, Default)]
pub struct Problems {
    /// By what they are about.
    open: Mutex<BTreeMap<&'static str, String>>,
    /// Bridges that can't connect.
    pub turned_away: TurnedAway,
}

impl Problems {
    /// There is a problem about something, or none any more.
    pub fn set(&self, about: &'static str, problem: Option<String>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => _ = open.insert(about, problem),
            None => _ = open.remove(about),
        }
    }

    /// All open problems.
    pub fn list(&self) -> Vec<String> {
        let mut problems: Vec<String> =
            self.open.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        problems.extend(self.turned_away.problems(Instant::now()));
        problems
    }
}

/// A moment as RFC 3339 writes it, in UTC.
pub fn utc(moment: SystemTime) -> String {
    let seconds = moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Counted from 1 March of the year 0, so that a leap day is the last of its year.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (era * 400 + year, month + 3) } else { (era * 400 + year + 1, month - 9) };
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_written_as_rfc_3339_has_it() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
