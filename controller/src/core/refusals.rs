//! What bridges refuse. The tenant whose entry it was gets along without the bridge until it is tried again, all others
//! get what they should have; a bridge that refuses what all tenants rely on rests as a whole.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use apps::desired::BridgeState;
use apps::limits::{self, Metered};
use apps::marks::{Owner, TreeVersion};
use apps::reconcile::{self, Change, Edit, Plan, Style};
use apps::view::{Held, View};
use openflow::error::{
    BadRequest, ErrorCode, ErrorMsg, FlowModFailed, GroupModFailed, MeterModFailed, RoleRequestFailed,
};
use openflow::instruction::Instruction;
use openflow::types::{DatapathId, MeterId, Xid};

use super::bridge::Bridge;
use super::bundles::InFlight;
use super::{Core, Level};

/// How long something that was refused isn't tried again: doubled each time, up to the second.
pub(super) const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long to wait after so many failures.
pub(super) fn pause(failures: u32) -> Duration {
    (REST.0 * 2u32.saturating_pow(failures)).min(REST.1)
}

/// A bridge refused changes for an owner.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// How often in a row.
    failures: u32,
    /// When it is tried again; `None`: it is being tried.
    until: Option<Instant>,
    /// What it was, for the operator.
    pub(crate) text: String,
    /// Meters that it refused. They stand among the fabric's, whosever they are.
    pub(super) meters: BTreeSet<MeterId>,
}

/// Does a bridge say that another controller is its master by now: `OFPBRC_IS_SLAVE`, `OFPRRFC_STALE`?
fn is_role_loss(error: ErrorCode) -> bool {
    matches!(error, ErrorCode::BadRequest(BadRequest::IsSlave) | ErrorCode::RoleRequestFailed(RoleRequestFailed::Stale))
}

/// What the operator can do about an error.
fn advice(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::FlowModFailed(FlowModFailed::TableFull) => {
            "its table is full: raise its limit (flow_limit in table Flow_Table of ovs-vsctl), or have fewer ports, rules or \
             chains there"
        }
        ErrorCode::GroupModFailed(GroupModFailed::OutOfGroups | GroupModFailed::OutOfBuckets) => {
            "it has room for no more groups or buckets: have fewer ports of the tenant there"
        }
        ErrorCode::MeterModFailed(MeterModFailed::OutOfMeters | MeterModFailed::OutOfBands) => {
            "it has room for no more meters: have fewer rate limits there"
        }
        _ => "look into the bridge's log (ovs-vswitchd.log)",
    }
}

impl Bridge {
    /// The changes that turn what it holds into what is desired, for those of `owners` that it doesn't refuse. These keep
    /// what they have there, unless somebody else gets something of it: then they lose all, as nothing is desired for them
    /// here.
    pub(crate) fn plan(
        &mut self,
        desired: &BridgeState,
        owners: &BTreeSet<Owner>,
        style: Style,
        trees: &BTreeMap<Owner, TreeVersion>,
    ) -> Plan {
        reconcile::adopt(&mut self.installed, desired);
        let refused: BTreeSet<Owner> = self.refused().collect();
        if refused.is_empty() {
            return reconcile::plan(&self.installed, desired, owners, style, trees);
        }
        let planned = if style == Style::Strict { owners.clone() } else { owners - &refused };
        let mut plan = reconcile::plan(&self.installed, desired, &planned, style, trees);
        // With a meter, a bridge would remove the entries that use it, also of those who keep what they have.
        let kept = if style == Style::Strict { BTreeSet::new() } else { self.meters_of(&refused) };
        let refusals = || self.refusals.values().filter(|refusal| refusal.until.is_some());
        let goes = |change: &Change| match &change.edit {
            Edit::AddMeter(id, _) | Edit::ModifyMeter(id, _) => !refusals().any(|it| it.meters.contains(id)),
            Edit::RemoveMeter(id) => !kept.contains(id),
            _ => true,
        };
        plan.values_mut().for_each(|changes| changes.retain(goes));
        plan.retain(|_, changes| !changes.is_empty());
        plan
    }

    /// The meters that entries of these owners send frames through.
    fn meters_of(&self, owners: &BTreeSet<Owner>) -> BTreeSet<MeterId> {
        let sections = owners.iter().filter_map(|owner| self.installed.get(owner));
        let instructions = sections.flat_map(|section| section.flows.values()).flat_map(|flow| &flow.instructions);
        instructions.filter_map(|it| if let Instruction::Meter(id) = it { Some(*id) } else { None }).collect()
    }

    /// The owners who get along without it.
    fn refused(&self) -> impl Iterator<Item = Owner> {
        self.refusals.iter().filter(|(_, refusal)| refusal.until.is_some()).map(|(owner, _)| *owner)
    }

    /// When the next of what it refused is to be tried again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.refusals.values().filter_map(|refusal| refusal.until).min()
    }

    /// The owners whose changes are to be tried again now; the fabric is among them where meters are.
    pub(super) fn retries(&mut self, now: Instant) -> BTreeSet<Owner> {
        let mut owners = BTreeSet::new();
        for (owner, refusal) in &mut self.refusals {
            if refusal.until.take_if(|until| *until <= now).is_some() {
                owners.insert(*owner);
                owners.extend((!refusal.meters.is_empty()).then_some(Owner::FABRIC));
            }
        }
        owners
    }
}

impl Core {
    /// A bridge says that it can't do something.
    pub(super) fn refused(&mut self, now: Instant, dpid: DatapathId, xid: Xid, error: &ErrorMsg) {
        let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
        // What else it says isn't looked at until it has rested.
        let resting = bridge.rests_until.is_some();
        let reads = bridge.reads(xid);
        let Some(connection) = bridge.connection.as_mut().filter(|_| !resting) else { return };
        connection.polling.refused(xid);
        let flight = connection.in_flight.values_mut().find(|flight| flight.concerns(xid));
        if flight.is_none() && !reads {
            // About something that is over, or that it needn't know.
            return;
        }
        if is_role_loss(error.code) {
            // Resting and trying again would be writing beside the one that may.
            self.only_reads(now, dpid);
            self.lost(now, dpid);
            self.refresh_due = true;
            // It may be one that leads all bridges.
            self.ask_role(dpid);
        } else if let Some(flight) = flight {
            // The barrier behind it tells what became of the rest.
            flight.refused.insert(xid, error.code);
        } else {
            self.trouble(now, dpid, format!("to tell what its tables hold: {}", error.code));
        }
    }

    /// A bridge as a whole is in trouble.
    fn trouble(&mut self, now: Instant, dpid: DatapathId, what: String) {
        let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
        let text = format!("bridge {} refused {what}", bridge.name);
        bridge.trouble = Some(text.clone());
        self.notice_of(now, dpid, Level::Warning, &text);
        self.rest(now, dpid);
    }

    /// A bridge has dealt with changes, but not made all of them.
    pub(super) fn refused_changes(&mut self, now: Instant, dpid: DatapathId, flight: &InFlight) {
        let at_once = self.rounds.is_at_once(flight.round);
        if let Some(bridge) = self.bridges.get_mut(&dpid) {
            // What is no longer wanted has to go even if what is new is refused: phase by phase from now on.
            bridge.cautious = true;
            if at_once {
                return;
            }
        }
        let named = flight.refused.iter().filter_map(|(xid, code)| Some((flight.changes.get(xid)?, *code)));
        let mut told: BTreeMap<Owner, (&Change, ErrorCode)> = BTreeMap::new();
        let mut meters: BTreeMap<Owner, BTreeSet<MeterId>> = BTreeMap::new();
        for (change, code) in named {
            let owner = self.blamed(dpid, change);
            told.entry(owner).or_insert((change, code));
            if let Edit::AddMeter(id, _) | Edit::ModifyMeter(id, _) = change.edit {
                meters.entry(owner).or_default().insert(id);
            }
        }
        let told: Vec<(Owner, String)> = told
            .into_iter()
            .map(|(owner, (change, code))| {
                (owner, format!("{}: {code}; {}", self.describe(dpid, change), advice(code)))
            })
            .collect();
        // Whoever it was left without already was only to lose what somebody else gets.
        let keeps: BTreeSet<Owner> = self.bridges.get(&dpid).into_iter().flat_map(Bridge::refused).collect();
        match told.iter().find(|(owner, _)| *owner == Owner::FABRIC || keeps.contains(owner)) {
            Some((_, what)) => return self.trouble(now, dpid, what.clone()),
            None if told.is_empty() => {
                let code = flight.refused.values().next();
                let why = code.map_or_else(|| "it didn't say why".to_owned(), ToString::to_string);
                return self.trouble(now, dpid, format!("{} changes together: {why}", flight.changes.len()));
            }
            None => {}
        }
        for (owner, what) in told {
            let whose = self.whose(owner);
            let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
            let failures = bridge.refusals.get(&owner).map_or(0, |refusal| refusal.failures);
            let again = pause(failures);
            let text = format!(
                "bridge {} refused {what}; {whose} gets along without this bridge as far as it can, which is tried again \
                 in {} s",
                bridge.name,
                again.as_secs()
            );
            let meters = meters.remove(&owner).unwrap_or_default();
            let refusal = Refusal { failures: failures + 1, until: Some(now + again), text: text.clone(), meters };
            bridge.refusals.insert(owner, refusal);
            self.rounds.dirty.insert(owner);
            self.notice_of(now, dpid, Level::Warning, &text);
        }
    }

    /// A round for these owners, or for all, has come to its end: nothing that was tried was refused.
    pub(super) fn forgive(&mut self, owners: &BTreeSet<Owner>, whole: bool) {
        for bridge in self.bridges.values_mut() {
            let before = bridge.refusals.len();
            // Who has nothing anywhere any more isn't among the owners of a round for all.
            bridge.refusals.retain(|owner, refusal| refusal.until.is_some() || !(whole || owners.contains(owner)));
            if bridge.refusals.len() < before {
                // Meters that had to stay may go now.
                self.rounds.dirty.insert(Owner::FABRIC);
            }
        }
    }

    /// Owners who get along without some bridge.
    pub(super) fn refused_owners(&self) -> BTreeSet<Owner> {
        self.bridges.values().flat_map(Bridge::refused).collect()
    }

    /// The fabric as it is for one tenant: a bridge that refuses its entries is to it as one that doesn't answer.
    pub(super) fn view_of(&self, owner: Owner) -> Cow<'_, View> {
        let refusing = |bridge: &&Bridge| bridge.refused().any(|refused| refused == owner);
        if !self.bridges.values().any(|bridge| refusing(&bridge)) {
            return Cow::Borrowed(&self.view);
        }
        let mut view = self.view.clone();
        for (dpid, bridge) in self.bridges.iter().filter(|(_, bridge)| refusing(bridge)) {
            if let Some(seen) = view.bridges.get_mut(dpid) {
                seen.responsive = false;
            }
            view.kept.entry(*dpid).or_insert_with(|| bridge.kept());
            let floods = bridge.floods();
            let (gone, left) = view.links.iter().partition(|link| link.at(*dpid).is_some());
            view.links = left;
            let gone: Vec<apps::view::Link> = gone;
            view.held.extend(gone.into_iter().filter_map(|link| {
                let (here, _) = link.at(*dpid)?;
                Some(Held { link, trees: floods.get(&here.port).cloned().unwrap_or_default(), up: true })
            }));
        }
        view.held.sort();
        Cow::Owned(view)
    }

    pub(super) fn whose(&self, owner: Owner) -> String {
        match self.tenant_of(owner) {
            Some(tenant) => format!("tenant {tenant}"),
            None if owner == Owner::FABRIC => "the fabric".to_owned(),
            None => format!("the former tenant with key {}", owner.0),
        }
    }

    /// Who has to get along without a change. Meters count as the fabric's, because bridges don't tell whose they are, but
    /// most of them are for one tenant.
    fn blamed(&self, dpid: DatapathId, change: &Change) -> Owner {
        let metered = self.metered(dpid, &change.edit);
        let key = metered.and_then(|metered| self.memory.allocations.of(metered.tenant));
        key.map_or(change.owner, |numbers| Owner(numbers.key))
    }

    /// What a meter that is to come or to change is for, if it is for a tenant.
    fn metered(&self, dpid: DatapathId, edit: &Edit) -> Option<Metered<'_>> {
        let (Edit::AddMeter(id, _) | Edit::ModifyMeter(id, _)) = edit else { return None };
        let (allocations, attachments) = (&self.memory.allocations, &self.attachments);
        limits::metered(*id, dpid, &self.policy, allocations, attachments, &self.view)
    }

    /// What a change is about, for the operator.
    fn describe(&self, dpid: DatapathId, change: &Change) -> String {
        let whose = self.whose(change.owner);
        let place =
            |origin: Option<&apps::policy::Origin>| origin.map(|origin| format!(", {origin}")).unwrap_or_default();
        let tenant = self.policy.tenants.iter().find(|tenant| self.tenant_of(change.owner) == Some(&tenant.name));
        let declared = place(tenant.map(|tenant| &tenant.origin));
        match &change.edit {
            Edit::SetFlow(key, flow) => {
                let origin = flow.origin.as_ref().map_or(declared, |origin| place(Some(origin)));
                format!("an entry of {whose} (table {}, {}{origin})", key.table.0, key.matching)
            }
            Edit::RemoveFlow(key) => format!("to remove an entry of {whose} (table {}, {})", key.table.0, key.matching),
            Edit::AddGroup(id, _) | Edit::ModifyGroup(id, _) => format!("group {} of {whose}{declared}", id.0),
            Edit::RemoveGroup(id) => format!("to remove group {} of {whose}", id.0),
            Edit::AddMeter(id, _) | Edit::ModifyMeter(id, _) => match self.metered(dpid, &change.edit) {
                Some(Metered { tenant, what, origin }) => {
                    format!("meter {} of tenant {tenant} ({what}, {origin})", id.0)
                }
                None => format!("meter {} of {whose}{declared}", id.0),
            },
            Edit::RemoveMeter(id) => format!("to remove meter {} of {whose}", id.0),
        }
    }
}
