//! Bridges that try to connect and can't: a bridge tries again and again, at most 8 s apart by default (`max_backoff` in
//! `ovs-vswitchd.conf.db(5)`), so whoever was turned away twice and lately is told in the status, with the reason.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use openflow::types::DatapathId;

/// Who hasn't tried for so long isn't told any more.
const FADE: Duration = Duration::from_secs(30);

/// Most that are kept: anybody can try. The one that tried longest ago gives way.
const KEPT_MAX: usize = 64;

/// Most that are told one by one.
const TOLD_MAX: usize = 8;

/// From where, and as which bridge if that was said.
type Whose = (IpAddr, Option<DatapathId>);

/// See the module's text.
#[derive(Debug, Default)]
pub struct TurnedAway(Mutex<BTreeMap<Whose, Tries>>);

#[derive(Debug)]
struct Tries {
    /// Since the reason is this one.
    count: u64,
    last: Instant,
    reason: String,
}

impl TurnedAway {
    fn kept(&self) -> MutexGuard<'_, BTreeMap<Whose, Tries>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection was closed for a reason that its bridge or its operator can mend.
    pub fn add(&self, now: Instant, from: IpAddr, dpid: Option<DatapathId>, reason: String) {
        let mut kept = self.kept();
        kept.retain(|_, tries| now.saturating_duration_since(tries.last) < FADE);
        let whose = (from, dpid);
        if kept.len() >= KEPT_MAX
            && !kept.contains_key(&whose)
            && let Some(oldest) = kept.iter().min_by_key(|(_, tries)| tries.last).map(|(whose, _)| *whose)
        {
            kept.remove(&oldest);
        }
        let tries = kept.entry(whose).or_insert_with(|| Tries { count: 0, last: now, reason: String::new() });
        tries.count = if tries.reason == reason { tries.count + 1 } else { 1 };
        (tries.last, tries.reason) = (now, reason);
    }

    /// A bridge is connected: what kept it, or one that hadn't said which it is, from there is over.
    pub fn connected(&self, from: IpAddr, dpid: DatapathId) {
        let mut kept = self.kept();
        kept.remove(&(from, Some(dpid)));
        kept.remove(&(from, None));
    }

    /// One line each.
    pub fn problems(&self, now: Instant) -> Vec<String> {
        let kept = self.kept();
        let mut lately = kept
            .iter()
            .filter(|(_, tries)| tries.count > 1 && now.saturating_duration_since(tries.last) < FADE)
            .map(|((from, dpid), tries)| match dpid {
                Some(dpid) => format!("bridge {dpid} at {from} can't stay connected: {}", tries.reason),
                None => format!("a bridge at {from} can't connect: {}", tries.reason),
            });
        let mut told: Vec<String> = lately.by_ref().take(TOLD_MAX).collect();
        let more = lately.count();
        if more > 0 {
            told.push(format!("{more} more bridges, or whoever tries, can't connect: the log says which and why"));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn from(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    #[test]
    fn who_tries_again_and_again_is_told_until_it_is_connected_or_gives_up() {
        let (turned_away, now) = (TurnedAway::default(), Instant::now());
        let one = DatapathId(1);
        turned_away.add(now, from(1), None, "bad version".into());
        assert!(turned_away.problems(now).is_empty(), "anybody may try once");
        turned_away.add(now + SECOND, from(1), None, "bad version".into());
        turned_away.add(now, from(2), Some(one), "taken".into());
        turned_away.add(now + SECOND, from(2), Some(one), "taken".into());
        let told = turned_away.problems(now + SECOND);
        let lines = [
            "a bridge at 192.0.2.1 can't connect: bad version",
            "bridge 0000000000000001 at 192.0.2.2 can't stay connected: taken",
        ];
        assert_eq!(told, lines);
        turned_away.connected(from(1), DatapathId(7));
        assert_eq!(turned_away.problems(now + SECOND), told[1..]);
        turned_away.connected(from(1), one);
        assert_eq!(turned_away.problems(now + SECOND), told[1..], "the one that has the id is elsewhere");
        assert!(turned_away.problems(now + SECOND + FADE).is_empty());
    }

    #[test]
    fn who_tries_from_everywhere_fills_nothing() {
        let (turned_away, now) = (TurnedAway::default(), Instant::now());
        for number in 0..=255 {
            for _ in 0..2 {
                turned_away.add(now + SECOND * u32::from(number) / 100, from(number), None, "no HELLO".into());
            }
        }
        let told = turned_away.problems(now + 3 * SECOND);
        assert_eq!(told.len(), TOLD_MAX + 1);
        assert!(told[TOLD_MAX].starts_with(&(KEPT_MAX - TOLD_MAX).to_string()), "{}", told[TOLD_MAX]);
        assert!(told[0].contains("192.0.2.192"), "the newest are kept: {}", told[0]);
    }
}
