//! Frames that ended because a tenant's rules and chains can't tell what they are: how many, asked of the bridges' entries.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use apps::desired::FlowKey;
use apps::marks::{Owner, cookie};
use apps::rules::{Unread, unread_filters};
use openflow::flow::{FlowStats, FlowStatsRequest};
use openflow::message::Message;
use openflow::multipart::{MultipartRequest, Part};
use openflow::types::{DatapathId, Xid};

use super::Core;
use super::bridge::Bridge;

/// How long it stays in the status that some ended.
const REMEMBER: Duration = Duration::from_secs(60);

/// After this an answer isn't waited for any more.
const ANSWER: Duration = Duration::from_secs(5);

/// What hit an entry that is older than this, in seconds, when its bridge is first asked was long ago.
const OLD: u32 = 10;

/// What is known of one bridge's entries.
#[derive(Debug, Default)]
pub(crate) struct Unreads {
    /// The questions that aren't answered yet: which one it is, why frames ended, and when it was asked.
    asked: BTreeMap<Xid, (usize, Unread, Instant)>,
    /// What hit each entry, by the last two answers to each question.
    hits: BTreeMap<usize, [BTreeMap<FlowKey, u64>; 2]>,
    /// Whose frames ended, and why: how many since the bridge connected, and when it was last told of one.
    ended: BTreeMap<(Owner, Unread), (u64, Option<Instant>)>,
}

impl Unreads {
    /// Asks for what hit the entries that are for such frames.
    pub(crate) fn ask(&mut self, now: Instant, mut xid: impl FnMut() -> Xid) -> Vec<(Xid, Message)> {
        self.asked.retain(|_, (.., asked)| now < *asked + ANSWER);
        if !self.asked.is_empty() {
            return Vec::new();
        }
        let ask = |(why, table, matching)| {
            let xid = xid();
            let request = FlowStatsRequest { table, matching, ..FlowStatsRequest::all() };
            (why, xid, Message::MultipartRequest(Part::whole(MultipartRequest::Flow(request))))
        };
        let all: Vec<_> = unread_filters().into_iter().map(ask).collect();
        self.asked.extend((0..).zip(&all).map(|(which, (why, xid, _))| (*xid, (which, *why, now))));
        all.into_iter().map(|(_, xid, message)| (xid, message)).collect()
    }

    /// Takes in a part of an answer, if that is what it is.
    pub(crate) fn told(
        &mut self,
        now: Instant,
        xid: Xid,
        flows: Vec<FlowStats>,
        more: bool,
    ) -> Result<(), Vec<FlowStats>> {
        let Some((which, why, _)) = self.asked.get(&xid).copied() else { return Err(flows) };
        let first = !self.hits.contains_key(&which);
        let [before, coming] = self.hits.entry(which).or_default();
        for entry in flows.into_iter().filter(|entry| entry.instructions.is_empty()) {
            let Some(owner) = cookie::owner(entry.cookie) else { continue };
            let FlowStats { table, priority, matching, packet_count, duration_sec, .. } = entry;
            let key = FlowKey { table, priority, matching };
            let long_ago = if first && duration_sec > OLD { packet_count } else { 0 };
            let before = before.get(&key).copied().unwrap_or(long_ago);
            coming.insert(key, packet_count);
            // One that was made anew counts from 0.
            let ended = packet_count.checked_sub(before).unwrap_or(packet_count);
            if ended > 0 {
                let (count, last) = self.ended.entry((owner, why)).or_default();
                (*count, *last) = (count.saturating_add(ended), Some(now));
            }
        }
        if !more {
            *before = std::mem::take(coming);
            self.asked.remove(&xid);
        }
        Ok(())
    }
}

impl Core {
    /// Tenants of which such frames ended lately.
    pub(super) fn unread_problems(&self, now: Instant) -> Vec<String> {
        let at = |(dpid, bridge): (&DatapathId, &Bridge)| {
            let ended = bridge.connection.iter().flat_map(|connection| &connection.unreads.ended);
            let lately = ended.filter(|(_, (_, last))| last.is_some_and(|last| now < last + REMEMBER));
            let told = lately.filter_map(|((owner, why), (count, _))| {
                Some(format!(
                    "tenant {}: {count} {why} were dropped where they came in at bridge {}, because its rules or chains ask for what \
                     can't be seen of them; {}",
                    self.tenant_of(*owner)?,
                    self.bridge_name(*dpid),
                    why.help()
                ))
            });
            told.collect::<Vec<_>>()
        };
        self.bridges.iter().flat_map(at).collect()
    }
}

#[cfg(test)]
mod tests {
    use openflow::flow::FlowModFlags;
    use openflow::matching::Match;
    use openflow::types::TableId;

    use super::*;

    const OWNER: Owner = Owner(100);

    fn entry(table: TableId, matching: Match, packet_count: u64) -> FlowStats {
        FlowStats {
            table,
            duration_sec: 1,
            duration_nsec: 0,
            priority: 60_009,
            idle_timeout: 0,
            hard_timeout: 0,
            flags: FlowModFlags::empty(),
            cookie: cookie::of(OWNER, table),
            packet_count,
            byte_count: 0,
            matching,
            instructions: Vec::new(),
        }
    }

    #[test]
    fn what_ended_is_counted_over_entries_that_come_and_go() {
        let (now, mut number) = (Instant::now(), 0);
        let mut unreads = Unreads::default();
        let mut count = |hits: u64, age: u32| {
            let asked = unreads.ask(now, || {
                number += 1;
                Xid(number)
            });
            assert_eq!(asked.len(), unread_filters().len());
            let (why, table, matching) = unread_filters().remove(0);
            assert_eq!(
                unreads.told(
                    now,
                    asked[0].0,
                    vec![FlowStats { duration_sec: age, ..entry(table, matching, hits) }],
                    false
                ),
                Ok(())
            );
            asked[1..].iter().for_each(|(xid, _)| assert_eq!(unreads.told(now, *xid, Vec::new(), false), Ok(())));
            assert!(unreads.told(now, asked[0].0, Vec::new(), false).is_err(), "answered already");
            unreads.ended.get(&(OWNER, why)).map(|(count, _)| *count)
        };
        assert_eq!(count(4, 90), None, "before anybody asked");
        assert_eq!([count(9, 95), count(9, 100), count(11, 105)], [Some(5), Some(5), Some(7)]);
        assert_eq!(count(2, 1), Some(9), "the entry was made anew");
    }
}
