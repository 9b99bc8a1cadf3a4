//! Which bridges are remembered: those that matter to somebody. Anybody who reaches the port can claim datapath ids, so
//! a bridge that the policy doesn't name, that has no tenant's or function's port and no link is forgotten when it leaves.

use std::collections::BTreeSet;
use std::time::Instant;

use apps::attachment::PortUse;
use apps::view::{Endpoint, Link};
use openflow::types::DatapathId;

use super::notices::About;
use super::{Core, Effect, Level};

impl Core {
    /// May a bridge with this datapath id come in?
    pub(super) fn has_room(&self, dpid: DatapathId) -> bool {
        self.bridges.len() < self.bridges_max || self.bridges.contains_key(&dpid) || self.is_named(dpid)
    }

    pub(super) fn is_named(&self, dpid: DatapathId) -> bool {
        self.policy.bridges.iter().any(|named| named.dpid == dpid)
    }

    fn is_remembered(&self, dpid: DatapathId) -> bool {
        self.memory.bridges.contains(&dpid.0)
    }

    /// Remembers the bridges that matter by now.
    pub(super) fn remember(&mut self, links: &[Link]) {
        let named = self.policy.bridges.iter().map(|named| named.dpid);
        let named = named.filter(|dpid| self.view.bridges.contains_key(dpid));
        let serves = |used: &PortUse| matches!(used, PortUse::Tenant(_) | PortUse::Function(_));
        let ports = self.attachments.ports.iter().filter(|(_, used)| serves(used));
        let linked = links.iter().flat_map(|link| [link.a.bridge, link.b.bridge]);
        let matter: BTreeSet<u64> =
            named.chain(ports.map(|(place, _)| place.bridge)).chain(linked).map(|dpid| dpid.0).collect();
        if !matter.is_subset(&self.memory.bridges) {
            self.memory.bridges.extend(matter);
            self.effects.push(Effect::Save(self.memory.clone()));
        }
    }

    /// A bridge has left, or has rested enough: forgets it unless it matters.
    pub(super) fn forget_stranger(&mut self, dpid: DatapathId) {
        let left = |bridge: &super::Bridge| bridge.connection.is_none() && bridge.rests_until.is_none();
        if self.is_remembered(dpid) || !self.bridges.get(&dpid).is_some_and(left) {
            return;
        }
        let ports = self.bridges.remove(&dpid).map(|bridge| bridge.ports).unwrap_or_default();
        for port in ports.into_keys() {
            self.topology.forget(Endpoint { bridge: dpid, port });
        }
        self.refresh_due = true;
    }

    /// Whose doing something at a bridge is.
    fn about(&self, dpid: DatapathId) -> About {
        if self.is_remembered(dpid) { About::Bridge(dpid) } else { About::Strangers }
    }

    /// Tells the operator of something that a bridge does, unless that was just told.
    pub(super) fn notice_of(&mut self, now: Instant, dpid: DatapathId, level: Level, text: &str) {
        let about = self.about(dpid);
        self.tell(now, about, level, text);
    }

    /// Tells the operator, unless that was just told.
    pub(super) fn notice(&mut self, now: Instant, level: Level, text: &str) {
        self.tell(now, About::Fabric, level, text);
    }

    /// Tells the operator of something at a bridge that shouldn't be, and keeps it in the status for a while.
    pub(super) fn problem(&mut self, now: Instant, dpid: DatapathId, text: &str) {
        let about = self.about(dpid);
        self.notices.remember(now, about, text);
        self.tell(now, about, Level::Warning, text);
    }

    fn tell(&mut self, now: Instant, about: About, level: Level, text: &str) {
        if let Some(line) = self.notices.pass(now, about, text) {
            self.effects.push(Effect::Notice(level, line));
        }
    }
}
