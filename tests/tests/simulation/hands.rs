//! What somebody does to a bridge's tables by hand, beside the controller: all of it makes frames end, or lets them take ways
//! that they may take anyway, so that it is no harm as long as it isn't noticed.

use apps::desired::{Flow, FlowKey};
use apps::pipeline::{FLOOD, FORWARD, LEARN};
use openflow::flow::{FlowModFlags, FlowRemovedReason};
use openflow::group::{GroupMod, GroupModCommand, GroupType};
use openflow::matching::Match;
use openflow::message::Message;
use openflow::meter::{MeterFlags, MeterMod, MeterModCommand};
use openflow::oxm::Oxm;
use openflow::types::{Cookie, GroupId, MeterId, PortNo, TableId};

use crate::fabric::Draw;
use crate::tables::Tables;

fn some<T: Clone>(all: impl Iterator<Item = T>, draw: &mut Draw) -> Option<T> {
    let all: Vec<T> = all.collect();
    all.get(draw.below(all.len().max(1))).cloned()
}

/// Is it an entry without which frames end, or are flooded?
pub(crate) fn is_way(key: &FlowKey) -> bool {
    [LEARN, FORWARD, FLOOD].contains(&key.table)
}

impl Tables {
    /// Somebody meddles with the tables: what was done is the answer.
    pub(crate) fn meddle(&mut self, draw: &mut Draw) -> String {
        match draw.below(8) {
            0 => self.strange(draw),
            1 | 2 => {
                let Some((key, flow)) = some(self.flows().clone().into_iter(), draw) else { return "nothing".into() };
                self.set(key, Flow { instructions: Vec::new(), ..flow });
                "an entry drops".into()
            }
            3 | 4 => {
                let ways = self.flows().keys().filter(|key| is_way(key)).cloned();
                let Some(key) = some(ways, draw) else { return "nothing".into() };
                self.remove(&key, FlowRemovedReason::Delete);
                "an entry goes".into()
            }
            5 => self.group(draw),
            6 => self.meter(draw),
            _ => {
                for key in self.flows().keys().cloned().collect::<Vec<_>>() {
                    self.remove(&key, FlowRemovedReason::Delete);
                }
                "all entries go".into()
            }
        }
    }

    /// An entry that drops, in one of our tables or in none, with a mark of ours or another.
    fn strange(&mut self, draw: &mut Draw) -> String {
        let table = TableId([0, FORWARD.0, 77][draw.below(3)]);
        let port = Oxm::InPort(PortNo(1 + draw.below(3) as u32), None);
        let key = FlowKey { table, priority: [1, 65535][draw.below(2)], matching: Match::new([port]) };
        let cookies = self.flows().values().map(|flow| flow.cookie).chain([Cookie(0x77)]);
        let cookie = some(cookies, draw).unwrap_or(Cookie(0));
        let flags = FlowModFlags::empty();
        self.set(key, Flow { cookie, idle_timeout: 0, flags, instructions: Vec::new(), hops: 0, origin: None });
        "an entry comes".into()
    }

    fn group(&mut self, draw: &mut Draw) -> String {
        let (known, kind) = (some(self.section.groups.keys().copied(), draw), GroupType::All);
        let (command, group) = match (draw.below(3), known) {
            (0, Some(group)) => (GroupModCommand::Modify, group),
            (1, Some(group)) => (GroupModCommand::Delete, group),
            _ => (GroupModCommand::Add, GroupId(77)),
        };
        let done = self.change(&Message::GroupMod(GroupMod { command, kind, group, buckets: Vec::new() }));
        format!("{command:?} group {}: {done:?}", group.0)
    }

    fn meter(&mut self, draw: &mut Draw) -> String {
        let known = some(self.section.meters.keys().copied(), draw);
        let (command, meter) = match (draw.below(3), known) {
            (0, Some(meter)) => (MeterModCommand::Modify, meter),
            (1, Some(meter)) => (MeterModCommand::Delete, meter),
            _ => (MeterModCommand::Add, MeterId(0xffff)),
        };
        let flags = MeterFlags::KBPS;
        let done = self.change(&Message::MeterMod(MeterMod { command, flags, meter, bands: Vec::new() }));
        format!("{command:?} meter {}: {done:?}", meter.0)
    }
}
