//! What a bridge has, held against itself. Whose its ports are say the entries that admit their frames, so neither the policy nor any
//! link has to be known, and what a former policy wanted is no contradiction.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use openflow::matching::Match;
use openflow::types::{PortNo, TableId};

use super::entry_name;
use super::look::{Act, Changed, Does, Seen, act};
use crate::desired::{BridgeState, Flow, FlowKey, Section};
use crate::marks::{Owner, cookie, metadata};
use crate::pipeline::{ADMIT, GUARD};
use crate::policy::Tenant;

/// Bit of a tunnel key that says: flooded (docs/pipeline.md).
const FLOODED: u64 = 1 << 23;

/// The tenants that a port's frames are called.
type Claims = BTreeMap<PortNo, BTreeSet<u64>>;

/// Entries that a bridge can't have of this controller, in any state of any policy, and what they do. `name` is what a tenant is
/// called. A bridge that has no entry of ours isn't ours yet, and may have what it likes.
pub fn contradictions(state: &BridgeState, name: impl Fn(Owner) -> String) -> Vec<String> {
    let flows = || state.iter().flat_map(|(owner, section)| section.flows.iter().map(move |it| (*owner, section, it)));
    let ours = |flow: &Flow| cookie::owner(flow.cookie).is_some();
    if !flows().any(|(_, _, (_, flow))| ours(flow)) {
        return Vec::new();
    }
    let mut claims = Claims::new();
    for section in state.values() {
        for (key, flow) in section.flows.range(table(ADMIT)).filter(|(_, flow)| ours(flow)) {
            if let Some((port, whose)) = claim(key, flow) {
                claims.entry(port).or_default().insert(whose);
            }
        }
    }
    let mut found = Vec::new();
    for (owner, section, (key, flow)) in flows() {
        let does = Does::of(&flow.instructions);
        if does.ends() {
            continue;
        }
        let who = |key: u64| name(Owner(key as u32));
        let mut whats = leaving(owner, section, &does, &claims, &who);
        if !ours(flow) {
            whats.insert(0, "isn't this controller's, but does something with frames".to_owned());
        } else if let Some((port, whose)) = claim(key, flow) {
            if whose != u64::from(owner.0) {
                whats.push(format!("lets in frames of {} as those of {}", name(owner), who(whose)));
            }
            let others = claims.get(&port).into_iter().flatten().filter(|it| **it != whose);
            whats.extend(
                others.map(|other| format!("lets in by port {port} as {}'s what is {}'s", who(whose), who(*other))),
            );
        }
        if !whats.is_empty() {
            found.push(format!("{}: {}", entry_name(key), whats.join(", and ")));
        }
    }
    found
}

/// Whose the frames of a host's or a function's port are, by an entry that admits them.
fn claim(key: &FlowKey, flow: &Flow) -> Option<(PortNo, u64)> {
    let (seen, does) = (Seen::of(&key.matching), Does::of(&flow.instructions));
    let (value, _) = does.write.filter(|_| key.table == ADMIT && does.goto == Some(GUARD))?;
    Some((seen.in_port?, value & metadata::TENANT))
}

/// What is wrong with where frames leave.
fn leaving(
    owner: Owner,
    section: &Section,
    does: &Does<'_>,
    claims: &Claims,
    who: &impl Fn(u64) -> String,
) -> Vec<String> {
    let mut outs: Vec<(PortNo, Changed)> = Vec::new();
    let mut groups = Vec::new();
    act(does.actions, Changed::default(), |act| match act {
        Act::Out(port, changed) => outs.push((port, changed)),
        Act::Group(group, changed) => groups.push((group, changed)),
        _ => {}
    });
    for (group, changed) in groups {
        for bucket in section.groups.get(&group).into_iter().flat_map(|group| &group.buckets) {
            act(&bucket.actions, changed, |act| {
                if let Act::Out(port, changed) = act {
                    outs.push((port, changed));
                }
            });
        }
    }
    let own = u64::from(owner.0);
    let mut whats: Vec<String> = Vec::new();
    for (port, changed) in outs {
        let whose = |key: u64| if key & FLOODED == 0 { key } else { key & metadata::TENANT };
        let what = match changed.tunnel.map(whose) {
            _ if port.0 > PortNo::MAX.0 && ![PortNo::LOCAL, PortNo::IN_PORT].contains(&port) => {
                "hands frames to the bridge's own switching".to_owned()
            }
            Some(key) if key != own && key <= Tenant::KEY_MAX.into() => {
                format!("sends frames of {} on as those of {}", who(own), who(key))
            }
            None => match claims.get(&port) {
                Some(whose) if !whose.contains(&own) => {
                    let whose = whose.iter().copied().map(who).collect::<Vec<_>>();
                    format!("sends frames of {} out of port {port}, which is {}'s", who(own), whose.join(" and "))
                }
                _ => continue,
            },
            Some(_) => continue,
        };
        if !whats.contains(&what) {
            whats.push(what);
        }
    }
    whats
}

fn table(table: TableId) -> Range<FlowKey> {
    let lowest = |table| FlowKey { table, priority: 0, matching: Match::default() };
    lowest(table)..lowest(TableId(table.0 + 1))
}
