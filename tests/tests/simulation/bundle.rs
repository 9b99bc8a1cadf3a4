//! Bundles as Open vSwitch has them (ONF extension 230; its `ofproto/bundles.c`): begun, filled, and committed as a whole
//! or not at all. Meters can't be changed in one.

use std::collections::BTreeMap;

use openflow::error::{BundleFailed, ErrorCode, ErrorMsg};
use openflow::experimenter::{BundleAdd, BundleControl, BundleControlType, BundleFlags, Experimenter};
use openflow::message::Message;
use openflow::types::Xid;
use openflow::wire::Payload;

use super::tables::Tables;

struct Bundle {
    flags: BundleFlags,
    closed: bool,
    messages: Vec<(Xid, Message)>,
}

/// The bundles of one connection; they go with it.
#[derive(Default)]
pub(crate) struct Bundles(BTreeMap<u32, Bundle>);

pub(crate) fn error(code: impl Into<ErrorCode>) -> Message {
    Message::Error(ErrorMsg { code: code.into(), data: Payload::default() })
}

impl Bundles {
    /// Does what a message about bundles asks for. Gives the answers, and how many changes were tried.
    pub(crate) fn handle(
        &mut self,
        xid: Xid,
        message: Experimenter,
        tables: &mut Tables,
    ) -> (Vec<(Xid, Message)>, usize) {
        let answer = match message {
            Experimenter::BundleAdd(add) => self.add(xid, add).map(|()| None),
            Experimenter::BundleControl(control) if control.kind == BundleControlType::CommitRequest => {
                return self.commit(xid, control, tables);
            }
            Experimenter::BundleControl(control) => self.control(control).map(Some),
            other => panic!("{other:?} isn't sent"),
        };
        let answers = match answer {
            Ok(None) => Vec::new(),
            Ok(Some(reply)) => vec![(xid, Message::Experimenter(Experimenter::BundleControl(reply)))],
            Err(code) => vec![(xid, error(code))],
        };
        (answers, 0)
    }

    fn control(&mut self, control: BundleControl) -> Result<BundleControl, BundleFailed> {
        let BundleControl { bundle: id, kind, flags, .. } = control;
        let kind = match kind {
            BundleControlType::OpenRequest => {
                // One that is there is dropped, and the new one not begun.
                if self.0.remove(&id).is_some() {
                    return Err(BundleFailed::BadId);
                }
                self.0.insert(id, Bundle { flags, closed: false, messages: Vec::new() });
                BundleControlType::OpenReply
            }
            BundleControlType::CloseRequest => {
                let bundle = self.0.get_mut(&id).ok_or(BundleFailed::BadId)?;
                if bundle.closed || bundle.flags != flags {
                    let code = if bundle.closed { BundleFailed::BundleClosed } else { BundleFailed::BadFlags };
                    self.0.remove(&id);
                    return Err(code);
                }
                bundle.closed = true;
                BundleControlType::CloseReply
            }
            BundleControlType::DiscardRequest => {
                self.0.remove(&id).ok_or(BundleFailed::BadId)?;
                BundleControlType::DiscardReply
            }
            _ => return Err(BundleFailed::BadType),
        };
        Ok(BundleControl { kind, ..control })
    }

    fn add(&mut self, xid: Xid, add: BundleAdd) -> Result<(), BundleFailed> {
        if add.xid != xid {
            return Err(BundleFailed::MsgBadXid);
        }
        if !matches!(*add.message, Message::FlowMod(_) | Message::GroupMod(_)) {
            return Err(BundleFailed::MsgUnsup);
        }
        // One that isn't there is begun by what is put into it.
        let new = || Bundle { flags: add.flags, closed: false, messages: Vec::new() };
        let bundle = self.0.entry(add.bundle).or_insert_with(new);
        let code = match bundle {
            Bundle { closed: true, .. } => BundleFailed::BundleClosed,
            Bundle { flags, .. } if *flags != add.flags => BundleFailed::BadFlags,
            Bundle { messages, .. } => {
                messages.push((xid, *add.message));
                return Ok(());
            }
        };
        self.0.remove(&add.bundle);
        Err(code)
    }

    fn commit(&mut self, xid: Xid, control: BundleControl, tables: &mut Tables) -> (Vec<(Xid, Message)>, usize) {
        let bundle = self.0.remove(&control.bundle);
        let Some(bundle) = bundle.filter(|bundle| bundle.flags == control.flags) else {
            return (vec![(xid, error(BundleFailed::BadId))], 0);
        };
        let before = tables.clone();
        for (own, message) in &bundle.messages {
            if let Err(code) = tables.change(message) {
                *tables = before;
                let answers = vec![(*own, error(code)), (xid, error(BundleFailed::MsgFailed))];
                return (answers, bundle.messages.len());
            }
        }
        let reply = BundleControl { kind: BundleControlType::CommitReply, ..control };
        (vec![(xid, Message::Experimenter(Experimenter::BundleControl(reply)))], bundle.messages.len())
    }
}

#[cfg(test)]
mod tests {
    use openflow::action::Action;
    use openflow::error::BadAction;
    use openflow::flow::{FlowMod, FlowModCommand};
    use openflow::group::{GroupMod, GroupModCommand, GroupType};
    use openflow::instruction::Instruction;
    use openflow::matching::Match;
    use openflow::meter::{MeterFlags, MeterMod, MeterModCommand};
    use openflow::types::{GroupId, MeterId, TableId};
    use openflow::wire::Octets;

    use super::*;

    const FLAGS: BundleFlags = BundleFlags::ATOMIC;

    fn flow(priority: u16, group: Option<u32>) -> Message {
        let actions = group.map(|group| Action::Group { group: GroupId(group) }).into_iter().collect();
        let add = FlowMod::new(FlowModCommand::Add, TableId(0), priority, Match::default());
        Message::FlowMod(FlowMod { instructions: vec![Instruction::ApplyActions(actions)], ..add })
    }

    fn group(id: u32) -> Message {
        let (command, kind) = (GroupModCommand::Add, GroupType::All);
        Message::GroupMod(GroupMod { command, kind, group: GroupId(id), buckets: Vec::new() })
    }

    struct Connection(Bundles, Tables);

    impl Connection {
        /// Sends a message about bundle 1; gives the answers as (transaction id, error or kind of reply).
        fn send(&mut self, xid: u32, message: Experimenter) -> Vec<(u32, Result<BundleControlType, ErrorCode>)> {
            let (answers, _) = self.0.handle(Xid(xid), message, &mut self.1);
            let told = answers.into_iter().map(|(xid, message)| match message {
                Message::Error(error) => (xid.0, Err(error.code)),
                Message::Experimenter(Experimenter::BundleControl(reply)) => (xid.0, Ok(reply.kind)),
                other => panic!("{other:?}"),
            });
            told.collect()
        }
        fn control(&mut self, xid: u32, kind: BundleControlType) -> Vec<(u32, Result<BundleControlType, ErrorCode>)> {
            let properties = Octets::default();
            self.send(xid, Experimenter::BundleControl(BundleControl { bundle: 1, kind, flags: FLAGS, properties }))
        }
        fn add(&mut self, xid: u32, message: Message) -> Vec<(u32, Result<BundleControlType, ErrorCode>)> {
            let message = Box::new(message);
            let add = BundleAdd { bundle: 1, flags: FLAGS, xid: Xid(xid), message, properties: Payload::default() };
            self.send(xid, Experimenter::BundleAdd(add))
        }
    }

    #[test]
    fn a_bundle_is_done_as_a_whole_or_not_at_all() {
        use BundleControlType::{CommitReply, CommitRequest, DiscardReply, DiscardRequest, OpenReply, OpenRequest};
        let mut it = Connection(Bundles::default(), Tables::new());
        assert_eq!(it.control(1, OpenRequest), [(1, Ok(OpenReply))]);
        assert_eq!(it.add(2, group(7)), []);
        assert_eq!(it.add(3, flow(1, Some(7))), [], "its group is in the same bundle");
        assert!(it.1.flows().is_empty(), "nothing is done before it is committed");
        assert_eq!(it.control(4, CommitRequest), [(4, Ok(CommitReply))]);
        assert_eq!((it.1.flows().len(), it.1.section.groups.len()), (1, 1));

        it.control(5, OpenRequest);
        it.add(6, flow(2, None));
        it.add(7, flow(3, Some(99)));
        let refused = [(7, Err(BadAction::BadOutGroup.into())), (8, Err(BundleFailed::MsgFailed.into()))];
        assert_eq!(it.control(8, CommitRequest), refused);
        assert_eq!(it.1.flows().len(), 1, "nothing of it is left");
        assert_eq!(it.control(9, CommitRequest), [(9, Err(BundleFailed::BadId.into()))], "it is gone");

        it.control(10, OpenRequest);
        let meter = MeterMod {
            command: MeterModCommand::Add,
            flags: MeterFlags::empty(),
            meter: MeterId(1),
            bands: Vec::new(),
        };
        assert_eq!(it.add(11, Message::MeterMod(meter)), [(11, Err(BundleFailed::MsgUnsup.into()))]);
        it.add(12, flow(4, None));
        assert_eq!(it.control(13, DiscardRequest), [(13, Ok(DiscardReply))]);
        assert_eq!(it.1.flows().len(), 1);
        it.control(14, OpenRequest);
        assert_eq!(it.control(15, OpenRequest), [(15, Err(BundleFailed::BadId.into()))], "there is one already");
    }
}
