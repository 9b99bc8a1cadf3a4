//! Tables on their way to us: flow entries, groups and meters, each told in parts.

use std::time::Instant;

use apps::desired::{BridgeState, Flow, FlowKey, Group, Meter};
use apps::reconcile;
use openflow::experimenter::FlowUpdate;
use openflow::flow::{FlowStats, FlowStatsRequest};
use openflow::group::GroupDesc;
use openflow::instruction::Instruction;
use openflow::message::Message;
use openflow::meter::{MeterConfig, MeterRequest};
use openflow::multipart::{MultipartReply, MultipartRequest, Part};
use openflow::types::Xid;
use openflow::wire::Nothing;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) asked: Instant,
    flows: Option<Xid>,
    groups: Option<Xid>,
    meters: Option<Xid>,
    got_flows: Vec<FlowStats>,
    got_groups: Vec<GroupDesc>,
    got_meters: Vec<MeterConfig>,
    /// Changes that somebody else made meanwhile.
    pub(crate) changed: Vec<FlowUpdate>,
}

impl Reading {
    /// Asks for groups and meters, and if wanted for flow entries, under the next of these transaction ids.
    pub(crate) fn start(now: Instant, flows: bool, xids: [Xid; 3]) -> (Self, Vec<(Xid, Message)>) {
        let mut questions = Vec::with_capacity(xids.len());
        let mut xids = xids.into_iter();
        let mut ask = |request| {
            let xid = xids.next()?;
            questions.push((xid, Message::MultipartRequest(Part::whole(request))));
            Some(xid)
        };
        let reading = Self {
            asked: now,
            flows: if flows { ask(MultipartRequest::Flow(FlowStatsRequest::all())) } else { None },
            groups: ask(MultipartRequest::GroupDesc(Nothing)),
            meters: ask(MultipartRequest::MeterConfig(MeterRequest::all())),
            got_flows: Vec::new(),
            got_groups: Vec::new(),
            got_meters: Vec::new(),
            changed: Vec::new(),
        };
        (reading, questions)
    }

    /// Is an answer with this transaction id waited for?
    pub(crate) fn waits_for(&self, xid: Xid) -> bool {
        [self.flows, self.groups, self.meters].contains(&Some(xid))
    }

    /// Takes in a part of an answer. `true`: that was the last one of all.
    pub(crate) fn took(&mut self, xid: Xid, part: Part<MultipartReply>) -> bool {
        let more = part.more();
        let waits = match part.body {
            MultipartReply::Flow(flows) if self.flows == Some(xid) => {
                if self.got_flows.is_empty() {
                    // What was told before is in it, and may be outdated: changes of ours may have been made since.
                    self.changed.clear();
                }
                self.got_flows.extend(flows);
                &mut self.flows
            }
            MultipartReply::GroupDesc(groups) if self.groups == Some(xid) => {
                self.got_groups.extend(groups);
                &mut self.groups
            }
            MultipartReply::MeterConfig(meters) if self.meters == Some(xid) => {
                self.got_meters.extend(meters);
                &mut self.meters
            }
            _ => return false,
        };
        if !more {
            *waits = None;
        }
        self.flows.is_none() && self.groups.is_none() && self.meters.is_none()
    }

    /// What the tables hold, once all is told.
    pub(crate) fn state(self) -> BridgeState {
        let flows = self.got_flows.into_iter().map(|told| {
            let key = FlowKey { table: told.table, priority: told.priority, matching: told.matching };
            let mut instructions = told.instructions;
            instructions.sort_by_key(Instruction::order);
            // An entry with a lifetime isn't ours, whatever its cookie says.
            let cookie = if told.hard_timeout == 0 { told.cookie } else { openflow::types::Cookie(0) };
            (
                key,
                Flow {
                    cookie,
                    idle_timeout: told.idle_timeout,
                    flags: told.flags,
                    instructions,
                    hops: 0,
                    origin: None,
                },
            )
        });
        let groups =
            self.got_groups.into_iter().map(|told| (told.group, Group { kind: told.kind, buckets: told.buckets }));
        let meters =
            self.got_meters.into_iter().map(|told| (told.meter, Meter { flags: told.flags, bands: told.bands }));
        reconcile::read_back(flows, groups, meters)
    }
}
