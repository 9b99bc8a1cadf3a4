//! Flow monitors as Open vSwitch has them (ONF extension 187; `ofmonitor_report` in its `ofproto/connmgr.c`): what becomes
//! of flow entries is told at once. Of what the controller itself asked for by a flow-mod it only hears that it was done.

use std::collections::BTreeSet;

use openflow::error::NiciraFailed;
use openflow::experimenter::{ExperimenterReply, FlowEvent, FlowMonitorRequest, FlowUpdate};
use openflow::flow::FlowRemovedReason;
use openflow::message::Message;
use openflow::multipart::{MultipartReply, Part};
use openflow::types::Xid;

use crate::tables::Changed;

/// The monitors of one connection, by their numbers; they go with it.
#[derive(Default)]
pub(crate) struct Monitors(BTreeSet<u32>);

fn reply(updates: Vec<FlowUpdate>) -> Message {
    Message::MultipartReply(Part::whole(MultipartReply::Experimenter(ExperimenterReply::FlowMonitor(updates))))
}

impl Monitors {
    /// Begins monitors. Those of us that ask for one want to be told all that happens, but not what is there already.
    pub(crate) fn begin(&mut self, requests: &[FlowMonitorRequest]) -> Result<Message, NiciraFailed> {
        if requests.iter().any(|request| !self.0.insert(request.monitor)) {
            return Err(NiciraFailed::MofcMonitorExists);
        }
        Ok(reply(Vec::new()))
    }

    /// What is told of changes. `asked`: the transaction id of the controller's message that led to them.
    pub(crate) fn tell(&self, changed: &[Changed], asked: Option<Xid>) -> Vec<Message> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let is_own = |change: &&Changed| matches!(change.gone, None | Some(FlowRemovedReason::Delete));
        // Told once, however many entries a message was about.
        let own = asked.filter(|_| changed.iter().any(|change| is_own(&change))).map(FlowUpdate::Own);
        let full = changed.iter().filter(|change| asked.is_none() || !is_own(change)).map(|change| FlowUpdate::Full {
            event: if change.gone.is_some() { FlowEvent::Deleted } else { FlowEvent::Added },
            reason: change.gone.map_or(0, |reason| u8::from(reason).into()),
            priority: change.key.priority,
            idle_timeout: change.flow.idle_timeout,
            hard_timeout: 0,
            table: change.key.table,
            cookie: change.flow.cookie,
            matching: change.key.matching.clone(),
            instructions: change.flow.instructions.clone(),
        });
        let updates: Vec<FlowUpdate> = own.into_iter().chain(full).collect();
        updates.chunks(50).map(|updates| reply(updates.to_vec())).collect()
    }
}
