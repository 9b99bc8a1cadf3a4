//! From what a bridge holds to what it should hold: the changes, in phases, and their messages. A phase begins when every
//! bridge has acknowledged the one before.
//!
//! *Remove first.* What grants something that is no longer wanted goes first; then what is new comes. While things go,
//! every bridge holds a part of the old state, while they come a part of the new one. A part of a loop-free, isolated
//! network is loop-free and isolated: entries only ever add ways, as long as drop entries outlive what they guard, which
//! the order within a phase sees to.
//!
//! *Farther last.* Entries that send frames for one destination over links are replaced where they stand, and nothing is
//! lost: first at the bridges next to the destination, then at those behind them, and so on. A bridge that has changed
//! leads only to bridges that have changed, each nearer to the destination; one that hasn't leads along the old way until
//! it meets one that has. What no longer leads anywhere goes at the end.
//!
//! docs/architecture.md has the whole argument.

mod closing;
mod edits;
mod kinds;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openflow::group::Bucket;
use openflow::types::{GroupId, MeterId};

pub use self::closing::{closing, stations, strangers};
use self::kinds::{
    begins, beneath, changed_returns, common_groups, flips, is_return, is_step, moves_on, replaces, returns, same_exit,
    sender, senders, stops,
};
pub use self::kinds::{floods, followed, takes_in};
pub(crate) use self::kinds::{is_way, ways};
pub use self::told::{adopt, read_back, recognise_ways};
use crate::desired::{BridgeState, Flow, FlowKey, Group, Meter, Section};
use crate::marks::{Owner, TreeVersion, group_version, other_version};
use crate::pipeline::{FLOOD, FORWARD};

/// One change to what a bridge holds for an owner.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Whose.
    pub owner: Owner,
    /// What.
    pub edit: Edit,
}

/// What a change does.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// The flow entry is to be this, whatever was there.
    SetFlow(FlowKey, Flow),
    /// The flow entry goes.
    RemoveFlow(FlowKey),
    /// A group that wasn't there.
    AddGroup(GroupId, Group),
    /// A group that was there gets these buckets.
    ModifyGroup(GroupId, Group),
    /// The group goes; no entry uses it any more.
    RemoveGroup(GroupId),
    /// A meter that wasn't there.
    AddMeter(MeterId, Meter),
    /// A meter that was there gets these bands.
    ModifyMeter(MeterId, Meter),
    /// The meter goes; no entry uses it any more.
    RemoveMeter(MeterId),
}

/// How much may be replaced where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Ways over links, so that no frame is lost.
    Gentle,
    /// Nothing: a port, or a key, goes from one to another, who must not get frames of the former.
    Strict,
}

/// The changes to one bridge by phase, each in order; what a later one needs is made by an earlier one.
pub type Plan = BTreeMap<u16, Vec<Change>>;

const REMOVE: u16 = 0;
/// What stops frames comes when what is no longer wanted has gone, for a bridge may have no room for it.
const STOP: u16 = 1;
const ADD: u16 = 2;
/// When all that is new is there on all bridges, frames are sent its way.
const FLIP: u16 = u16::MAX - 3;
/// When no frame is sent the old way any more, those that come back from functions may go on otherwise than before.
const GO_ON: u16 = u16::MAX - 2;
const CLEAN_UP: u16 = u16::MAX - 1;
/// Groups and meters that nothing uses any more: with a meter, a bridge would remove the entries that use it.
const RETIRE: u16 = u16::MAX;

/// The changes that turn `installed` into `desired`, for these owners. `trees`: owners whose floods may follow two trees at once,
/// and by which version they are to go in the end. All others' trees change where they stand.
pub fn plan(
    installed: &BridgeState,
    desired: &BridgeState,
    owners: &BTreeSet<Owner>,
    style: Style,
    trees: &BTreeMap<Owner, TreeVersion>,
) -> Plan {
    let nothing = Arc::new(Section::default());
    let mut planner = Planner { style, ..Planner::default() };
    for &owner in owners {
        let old = installed.get(&owner).unwrap_or(&nothing);
        let new = desired.get(&owner).unwrap_or(&nothing);
        if !Arc::ptr_eq(old, new) {
            let tree = trees.get(&owner).copied().filter(|_| style == Style::Gentle);
            planner.flows(owner, old, new, tree);
            planner.groups(owner, old, new, tree);
            planner.meters(owner, old, new);
        }
    }
    planner.finish()
}

/// The plan of a bridge that does all of a phase at once and is the only one that changes: what leads from the old to the
/// new ways is one phase. What waits until no frame is on its way by the old ones still waits.
pub fn at_once(mut plan: Plan) -> Plan {
    let later = plan.split_off(&(FLIP + 1));
    let together: Vec<Change> = plan.into_values().flatten().collect();
    std::iter::once((FLIP, together)).filter(|(_, changes)| !changes.is_empty()).chain(later).collect()
}

struct Planner {
    style: Style,
    /// Flow entries by phase; what goes in one has to go before what comes.
    removed: BTreeMap<u16, Vec<Change>>,
    added: BTreeMap<u16, Vec<Change>>,
    /// What goes when that which takes its place has come.
    uncovered: BTreeMap<u16, Vec<Change>>,
    trimmed: Vec<Change>,
    retired: Vec<Change>,
    /// Meters that weren't there.
    metered: Vec<Change>,
    prepared: Vec<Change>,
}

impl Default for Planner {
    fn default() -> Self {
        Self {
            style: Style::Strict,
            removed: BTreeMap::new(),
            added: BTreeMap::new(),
            uncovered: BTreeMap::new(),
            trimmed: Vec::new(),
            retired: Vec::new(),
            metered: Vec::new(),
            prepared: Vec::new(),
        }
    }
}

impl Planner {
    fn flows(&mut self, owner: Owner, old: &Section, new: &Section, tree: Option<TreeVersion>) {
        let gentle = self.style == Style::Gentle;
        let changed = changed_returns(old, new);
        let changes = |key: &FlowKey| returns(key).is_some_and(|port| changed.contains(&port));
        let staying = &senders(old) & &senders(new);
        let stays =
            |key: &FlowKey, flow: &Flow| sender(key, flow).is_some_and(|port| gentle && staying.contains(&port));
        for (key, flow) in &old.flows {
            let wanted = new.flows.get(key);
            let flooded = wanted.filter(|_| gentle && key.table == FLOOD);
            if let Some(common) = flooded.and_then(|wanted| common_groups(flow, wanted)) {
                if common != *flow {
                    let change = Change { owner, edit: Edit::SetFlow(key.clone(), common) };
                    self.removed.entry(REMOVE).or_default().push(change);
                }
                continue;
            }
            let change = || Change { owner, edit: Edit::RemoveFlow(key.clone()) };
            if wanted.is_none()
                && let Some(below) = beneath(key).filter(|_| gentle)
            {
                // Before what it leads to leads back here.
                let phase = new.flows.get(&below).map_or(FLIP, |flow| ADD.saturating_add(flow.hops).min(FLIP - 1));
                self.uncovered.entry(phase).or_default().push(change());
                continue;
            }
            let phase = match wanted {
                _ if changes(key) => REMOVE,
                Some(wanted) if wanted == flow || replaces(key) => continue,
                Some(wanted) if gentle && (flips(key, flow) || (is_way(key, flow) && wanted.hops > 0)) => continue,
                Some(wanted) if gentle && key.table == FORWARD && same_exit(flow, wanted) => continue,
                Some(wanted) if tree.is_some() && moves_on(flow, wanted) => continue,
                // What stops frames outlives what it is there for.
                None if stops(key, flow) => CLEAN_UP,
                // Floods that follow the old tree go on to its end; what no frame follows any more goes first.
                None if gentle && floods(key, flow).is_some() => {
                    let stays = |tree| floods(key, flow) != Some(tree) || key.table != FLOOD;
                    if tree.is_some_and(stays) { CLEAN_UP } else { REMOVE }
                }
                None if gentle && (is_way(key, flow) || is_step(key)) => CLEAN_UP,
                None if gentle && is_return(key, flow) => CLEAN_UP,
                None if stays(key, flow) => CLEAN_UP,
                _ => REMOVE,
            };
            self.removed.entry(phase).or_default().push(change());
        }
        for (key, flow) in new.flows.iter().filter(|(key, flow)| old.flows.get(key) != Some(flow) || changes(key)) {
            let flooded = old.flows.get(key).filter(|_| gentle && key.table == FLOOD);
            if flooded.and_then(|old| common_groups(old, flow)).is_some_and(|common| common == *flow) {
                continue;
            }
            let phase = match self.style {
                // What stops frames is there before what it is there for, on all bridges: a mark that frames are taken in by
                // mustn't be forged at a bridge that doesn't know it yet, and where a marked frame arrives before the mark is
                // known, it ends instead of being taken for a frame with a tag of its sender's.
                _ if stops(key, flow) => STOP,
                // Who may send from a port that stays the tenant's: by the old policy or the new one until all is done.
                _ if stays(key, flow) => STOP,
                Style::Strict => ADD,
                Style::Gentle if flips(key, flow) && old.flows.contains_key(key) => FLIP,
                _ if tree.is_some() && old.flows.get(key).is_some_and(|old| moves_on(old, flow)) => FLIP,
                Style::Gentle if changes(key) || (begins(key) && !old.flows.contains_key(key)) => GO_ON,
                Style::Gentle => ADD.saturating_add(flow.hops).min(FLIP - 1),
            };
            let change = Change { owner, edit: Edit::SetFlow(key.clone(), flow.clone()) };
            self.added.entry(phase).or_default().push(change);
        }
    }

    fn groups(&mut self, owner: Owner, old: &Section, new: &Section, tree: Option<TreeVersion>) {
        let change = |edit| Change { owner, edit };
        for (id, group) in &old.groups {
            match new.groups.get(id) {
                None => {
                    // Of an old tree, ports that aren't wanted any more go first all the same.
                    let wanted = new.groups.get(&other_version(*id)).map(|group| group.buckets.as_slice());
                    let stays =
                        |bucket: &Bucket| bucket.actions.len() > 1 || wanted.unwrap_or_default().contains(bucket);
                    if tree.is_some_and(|tree| group_version(*id) != tree) && !group.buckets.iter().all(stays) {
                        let mut common = group.clone();
                        common.buckets.retain(stays);
                        self.trimmed.push(change(Edit::ModifyGroup(*id, common)));
                    }
                    self.retired.push(change(Edit::RemoveGroup(*id)));
                }
                Some(wanted) if wanted != group => {
                    let mut common = wanted.clone();
                    common.buckets.retain(|bucket| group.buckets.contains(bucket));
                    if common != *group {
                        self.trimmed.push(change(Edit::ModifyGroup(*id, common.clone())));
                    }
                    if common != *wanted {
                        self.prepared.push(change(Edit::ModifyGroup(*id, wanted.clone())));
                    }
                }
                Some(_) => {}
            }
        }
        for (id, group) in new.groups.iter().filter(|(id, _)| !old.groups.contains_key(id)) {
            self.prepared.push(change(Edit::AddGroup(*id, group.clone())));
        }
    }

    fn meters(&mut self, owner: Owner, old: &Section, new: &Section) {
        let change = |edit| Change { owner, edit };
        for (id, meter) in &old.meters {
            match new.meters.get(id) {
                None => self.retired.push(change(Edit::RemoveMeter(*id))),
                Some(wanted) if wanted != meter => self.prepared.push(change(Edit::ModifyMeter(*id, wanted.clone()))),
                Some(_) => {}
            }
        }
        for (id, meter) in new.meters.iter().filter(|(id, _)| !old.meters.contains_key(id)) {
            self.metered.push(change(Edit::AddMeter(*id, meter.clone())));
        }
    }

    fn finish(mut self) -> Plan {
        let place = |change: &Change| change.edit.flow_key().map(|key| (key.table, key.priority));
        // What another owner gets can't wait for the end.
        let added = self.added.values().flatten();
        let coming: BTreeSet<&FlowKey> = added.filter_map(|change| change.edit.flow_key()).collect();
        let comes = |change: &Change| change.edit.flow_key().is_some_and(|key| coming.contains(key));
        if let Some(late) = self.removed.remove(&CLEAN_UP) {
            let (now, late): (Vec<_>, Vec<_>) = late.into_iter().partition(comes);
            self.removed.entry(REMOVE).or_default().extend(now);
            self.removed.insert(CLEAN_UP, late);
        }
        // Ways in are closed first and opened last; among entries of a table, those that others rely on go last, come first.
        self.removed.values_mut().for_each(|changes| changes.sort_by_key(place));
        self.added.values_mut().for_each(|changes| changes.sort_by_key(|change| std::cmp::Reverse(place(change))));
        let mut plan = self.removed;
        plan.entry(REMOVE).or_default().extend(self.trimmed);
        plan.entry(RETIRE).or_default().extend(self.retired);
        // What stops frames may show them to the controller, by a meter.
        let first = self.added.keys().next().copied().unwrap_or(ADD).min(ADD);
        plan.entry(first).or_default().extend(self.metered);
        plan.entry(ADD).or_default().extend(self.prepared);
        for (phase, changes) in self.added.into_iter().chain(self.uncovered) {
            plan.entry(phase).or_default().extend(changes);
        }
        plan.retain(|_, changes| !changes.is_empty());
        plan
    }
}

/// Does the bridge hold exactly this for the owners that the two know? Meters and groups included.
pub fn same(installed: &BridgeState, desired: &BridgeState) -> bool {
    installed.len() == desired.len()
        && installed.iter().zip(desired).all(|((a, old), (b, new))| a == b && (Arc::ptr_eq(old, new) || old == new))
}

#[cfg(test)]
mod tests {
    use openflow::action::Action;
    use openflow::instruction::Instruction;
    use openflow::oxm::Oxm;
    use openflow::types::{MacAddr, PortNo};

    use super::*;
    use crate::desired::SectionBuilder;
    use crate::links::tagged;
    use crate::marks::{Mode, flood_group, metadata, tunnel_key};
    use crate::pipeline::{ADMIT, GUARD, STEER};
    use crate::tenants::onward;

    /// What is read back doesn't say how far it leads, and still nothing is lost when the way changes or goes.
    #[test]
    fn ways_that_were_read_back_are_replaced_where_they_stand_and_go_last() {
        let section = |hosts: &[(u8, u32)], hops| {
            let mut builder = SectionBuilder::new(Owner(100));
            for (host, port) in hosts {
                let out = vec![Instruction::ApplyActions(vec![Action::output(PortNo(*port))])];
                builder.flow(FORWARD, 10, [Oxm::EthDst(MacAddr([2, 0, 0, 0, 0, *host]), None)], out).hops = hops;
            }
            BridgeState::from([(Owner(100), Arc::new(builder.build()))])
        };
        let mut installed = section(&[(1, 7), (2, 7), (3, 4), (4, 7)], 0);
        let desired = section(&[(1, 8), (3, 8), (4, 7)], 3);
        let phases = |installed: &BridgeState| {
            let changes =
                plan(installed, &desired, &BTreeSet::from([Owner(100)]), Style::Gentle, &BTreeMap::new()).into_iter();
            let edits =
                changes.flat_map(|(phase, changes)| changes.into_iter().map(move |change| (phase, change.edit)));
            let told = edits.map(|(phase, edit)| {
                let host = edit.flow_key().map(|key| key.matching.to_string());
                (phase, matches!(edit, Edit::SetFlow(..)), host.and_then(|text| text.chars().last()))
            });
            told.collect::<Vec<_>>()
        };
        assert_eq!(phases(&installed).iter().filter(|(phase, ..)| *phase == REMOVE).count(), 3, "nobody knows better");
        recognise_ways(&mut installed, |port| port.0 >= 7);
        let [one, two, three] = ['1', '2', '3'].map(Some);
        let expected = [(REMOVE, false, three), (ADD + 3, true, one), (ADD + 3, true, three), (CLEAN_UP, false, two)];
        let mut told = phases(&installed);
        told.sort();
        assert_eq!(told, expected);
    }

    /// What enters at a bridge takes the way of all others when that is the new one, before what its own way led to leads back.
    #[test]
    fn a_way_for_what_enters_goes_when_the_one_beneath_it_is_there() {
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let section = |port, entering: bool| {
            let mut builder = SectionBuilder::new(Owner(100));
            let out = || vec![Instruction::ApplyActions(vec![Action::output(PortNo(port))])];
            let way = onward(100, mac);
            builder.flow(FORWARD, way.priority, way.matching.fields().iter().cloned(), out()).hops = 3;
            if entering {
                let edge = Oxm::Metadata(metadata::edge(100), Some(metadata::TENANT | metadata::EDGE));
                builder.flow(FORWARD, 12, [edge, Oxm::EthDst(mac, None)], out()).hops = 3;
            }
            BridgeState::from([(Owner(100), Arc::new(builder.build()))])
        };
        let phases = |old: &BridgeState, new: &BridgeState| {
            let goes = |change: &Change| matches!(change.edit, Edit::RemoveFlow(_));
            let plan = plan(old, new, &BTreeSet::from([Owner(100)]), Style::Gentle, &BTreeMap::new()).into_iter();
            plan.map(|(phase, changes)| (phase, changes.iter().map(goes).collect::<Vec<_>>())).collect::<Vec<_>>()
        };
        assert_eq!(phases(&section(7, true), &section(8, false)), [(ADD + 3, vec![false, true])]);
        assert_eq!(phases(&section(7, true), &section(8, true)), [(ADD + 3, vec![false, false])]);
        let gone = [(FLIP, vec![true]), (CLEAN_UP, vec![true])];
        assert_eq!(phases(&section(7, true), &BridgeState::new()), gone, "the host is gone");
    }

    /// Floods to local ports and over one link, by one version of the tree.
    fn flooding(version: TreeVersion, ports: &[u32], link: u32) -> BridgeState {
        let mut builder = SectionBuilder::new(Owner(100));
        let (group, mask) = (flood_group(100, PortNo(1), version), metadata::TENANT | metadata::EDGE);
        let copy = || vec![Instruction::ApplyActions(vec![Action::Group { group }])];
        builder.flow(FLOOD, 10, [Oxm::Metadata(metadata::edge(100), Some(mask))], copy());
        let came = Oxm::Metadata(metadata::flooded(100, version), Some(mask | metadata::TREE));
        builder.flow(FLOOD, 10, [came, Oxm::InPort(PortNo(link), None)], copy());
        let mark = Action::SetField(Oxm::TunnelId(tunnel_key(100, Mode::Flood(version)).into(), None));
        let local = ports.iter().map(|port| Bucket::new(vec![Action::output(PortNo(*port))]));
        builder.group(group, local.chain([Bucket::new(vec![mark, Action::output(PortNo(link))])]).collect());
        BridgeState::from([(Owner(100), Arc::new(builder.build()))])
    }

    /// A port that the tenant loses goes first all the same, and everything at a bridge that took no part in what happened before.
    #[test]
    fn a_tree_moves_beside_the_old_one_where_all_bridges_take_part() {
        let (old, new) = (flooding(TreeVersion::Even, &[1, 2], 7), flooding(TreeVersion::Odd, &[1], 8));
        let told = |trees: &[(Owner, TreeVersion)]| {
            let trees = trees.iter().copied().collect();
            let plan = plan(&old, &new, &BTreeSet::from([Owner(100)]), Style::Gentle, &trees).into_iter();
            let link = |key: &FlowKey| key.matching.in_port().map_or(0, |port| port.0);
            let what = |change: Change| match change.edit {
                Edit::SetFlow(key, _) => format!("set {}", link(&key)),
                Edit::RemoveFlow(key) => format!("remove {}", link(&key)),
                Edit::ModifyGroup(_, group) => format!("leave {} buckets", group.buckets.len()),
                Edit::AddGroup(..) => "add group".to_owned(),
                Edit::RemoveGroup(_) => "remove group".to_owned(),
                other => format!("{other:?}"),
            };
            plan.map(|(phase, changes)| (phase, changes.into_iter().map(what).collect::<Vec<_>>().join(", ")))
                .collect::<Vec<_>>()
        };
        let expected = |phases: &[(u16, &str)]| -> Vec<(u16, String)> {
            phases.iter().map(|(phase, what)| (*phase, (*what).to_owned())).collect()
        };
        let moves = [
            (REMOVE, "leave 2 buckets"),
            (ADD, "add group, set 8"),
            (FLIP, "set 0"),
            (CLEAN_UP, "remove 7"),
            (RETIRE, "remove group"),
        ];
        assert_eq!(told(&[(Owner(100), TreeVersion::Odd)]), expected(&moves));
        let stands = [(REMOVE, "remove 7, remove 0"), (ADD, "add group, set 8, set 0"), (RETIRE, "remove group")];
        let mut found = told(&[]);
        // Which of two entries of a table and a priority goes first is no matter.
        found.iter_mut().for_each(|(_, what)| *what = what.replace("remove 0, remove 7", "remove 7, remove 0"));
        found.iter_mut().for_each(|(_, what)| *what = what.replace("set 0, set 8", "set 8, set 0"));
        assert_eq!(found, expected(&stands));
    }

    /// A host's frames with a tag that becomes a mark are stopped everywhere before any bridge takes them for marked ones.
    #[test]
    fn what_stops_frames_comes_in_the_first_phase() {
        let mut builder = SectionBuilder::new(Owner(100));
        let vlan = || Oxm::VlanVid(tagged(2045), None);
        builder.flow(GUARD, 100, [vlan()], Vec::new());
        builder.flow(ADMIT, 12, [Oxm::InPort(PortNo(1), None), vlan()], vec![Instruction::GotoTable(STEER)]);
        let desired = BridgeState::from([(Owner(100), Arc::new(builder.build()))]);
        for style in [Style::Gentle, Style::Strict] {
            let plan = plan(&BridgeState::new(), &desired, &BTreeSet::from([Owner(100)]), style, &BTreeMap::new());
            let tables = plan.values().map(|changes| {
                changes.iter().filter_map(|change| change.edit.flow_key()).map(|key| key.table).collect::<Vec<_>>()
            });
            assert_eq!(tables.collect::<Vec<_>>(), [vec![GUARD], vec![ADMIT]], "{style:?}");
        }
    }
}
