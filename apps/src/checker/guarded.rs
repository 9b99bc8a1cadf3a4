//! Marks on tunnels of fixed key, where what bears none is the tenant's: none may come in unseen, and no host may send one.

use std::ops::Range;

use openflow::matching::Match;
use openflow::types::TableId;

use super::entries::{Entry, Scan};
use super::look::{Does, Seen};
use super::surroundings::Link;
use super::{Here, Property};
use crate::allocation::Numbers;
use crate::desired::{FlowKey, Section};
use crate::marks::{DEDICATED_FLOOD_VLANS, Direction, Mode, Waypoint, vlan_id};
use crate::pipeline::{ADMIT, GUARD};
use crate::policy::Tenant;
use crate::view::Carrier;

impl Scan<'_, '_> {
    /// On a tunnel of fixed key all is the tenant's that comes without a mark. So no mark may come in unseen there, and no
    /// host may send what looks like one.
    pub(super) fn guarded(&mut self, here: Here<'_>, tenant: &Tenant, numbers: Numbers) {
        if !self.checker.dedicated.contains(&numbers.key) {
            return;
        }
        let flows = || {
            here.section.flows.iter().map(|(key, flow)| (key, Seen::of(&key.matching), Does::of(&flow.instructions)))
        };
        let dedicated = |carrier| carrier == Carrier::Dedicated(numbers.key);
        let links: Vec<Link> = self.places.links(here.index).filter(|link| dedicated(link.carrier)).collect();
        let waypoints = || {
            self.steps.numbers().flat_map(|numbers| {
                let both = move |direction| Mode::Waypoint(Waypoint { numbers, direction });
                numbers.vlan.into_iter().flat_map(move |vlan| Direction::ALL.map(|it| vlan_id(vlan, both(it))))
            })
        };
        let mut open = Vec::new();
        for link in links {
            let at = |seen: &Seen| seen.in_port == Some(link.here.port);
            let admitted: Vec<_> =
                flows().take_while(|(key, ..)| key.table == ADMIT).filter(|(_, seen, _)| at(seen)).collect();
            let normal = admitted.iter().filter(|(_, seen, does)| seen.vlan.is_none() && does.goto.is_some());
            let Some((key, ..)) = normal.max_by_key(|(key, ..)| key.priority) else { continue };
            for vlan in waypoints().chain(DEDICATED_FLOOD_VLANS) {
                let caught = |(other, seen, _): &(&FlowKey, Seen, Does<'_>)| {
                    seen.vlan == Some(vlan) && seen.fields <= 3 && other.priority > key.priority
                };
                if !admitted.iter().any(caught) {
                    open.push((*key, format!("takes what bears the mark {vlan} for the tenant's own frames")));
                }
            }
        }
        for (key, what) in open {
            let entry = Entry { here, key, seen: Seen::default(), does: Does::default() };
            self.tell(&entry, Property::Chain, &what);
        }
        self.unforged(here, tenant, &waypoints().collect::<Vec<_>>());
    }

    fn unforged(&mut self, here: Here<'_>, tenant: &Tenant, waypoints: &[u16]) {
        let guard = |section: &'_ Section, vlan: u16, most: usize| {
            let flows = section
                .flows
                .range(guard_range())
                .map(|(key, flow)| (key.priority, Seen::of(&key.matching), Does::of(&flow.instructions)));
            let drops = flows.filter(|(_, seen, does)| does.ends() && seen.vlan == Some(vlan) && seen.fields <= most);
            drops.map(|(priority, ..)| priority).max()
        };
        let passes = here.section.flows.range(guard_range()).filter(|(_, flow)| !Does::of(&flow.instructions).ends());
        let Some((key, _)) = passes.max_by_key(|(key, _)| key.priority) else { return };
        let guarded = |vlan: &u16| here.nobodys.and_then(|it| guard(it, *vlan, 1)) > Some(key.priority);
        let mut open = DEDICATED_FLOOD_VLANS.into_iter().find(|vlan| !guarded(vlan));
        // What only matters where frames to functions exist.
        let used = !tenant.chains.is_empty();
        open =
            open.or(waypoints.iter().copied().find(|vlan| used && guard(here.section, *vlan, 2) <= Some(key.priority)));
        if let Some(vlan) = open {
            let entry = Entry { here, key, seen: Seen::default(), does: Does::default() };
            self.tell(
                &entry,
                Property::Chain,
                &format!("lets hosts send frames with a tag of VLAN id {vlan}, which is a mark on links"),
            );
        }
    }
}

pub(super) fn guard_range() -> Range<FlowKey> {
    let lowest = |table| FlowKey { table, priority: 0, matching: Match::default() };
    lowest(GUARD)..lowest(TableId(GUARD.0 + 1))
}
