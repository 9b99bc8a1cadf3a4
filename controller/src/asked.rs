//! What a bridge was asked, as the octets on their way to it tell, and which answers are due: others are never decoded.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openflow::frame::{HEADER, header};
use openflow::peer::XID_MAX;
use openflow::types::Xid;

use crate::metrics::{Direction, Traffic};

// Types of messages (OpenFlow 1.3.5 §7.1).
const ERROR: u8 = 1;
const EXPERIMENTER_MESSAGE: u8 = 4;
const MULTIPART_REQUEST: u8 = 18;
const MULTIPART_REPLY: u8 = 19;
const BARRIER_REQUEST: u8 = 20;
const BARRIER_REPLY: u8 = 21;

const ROLE_REQUEST: u8 = 24;
const ROLE_REPLY: u8 = 25;

/// Answers to what the hub never asks: configuration, queues, asynchronous configuration.
const NEVER_ASKED: [u8; 3] = [8, 23, 27];

/// The beginning of a message about a bundle that is answered (`onf_bundle_ctrl_msg`, ONF extension 230).
const BUNDLE_CONTROL: [u8; 8] = [0x4f, 0x4e, 0x46, 0, 0, 0, 0x08, 0xfc];

/// The beginning of one that puts another message into a bundle (`onf_bundle_add_msg`), and where that has its type.
const BUNDLE_ADD: [u8; 8] = [0x4f, 0x4e, 0x46, 0, 0, 0, 0x08, 0xfd];
const ADDED_TYPE: usize = HEADER + 17;

/// Most octets in which a bridge may tell of its tables at a time. Open vSwitch needs some 150 for an entry.
pub(crate) const TABLES_MAX: usize = 8 << 20;

/// A part counts as at least so many, lest there be too many of them.
const PART_MIN: usize = 1 << 10;

/// What becomes of a message that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is due, or needn't be asked for.
    Due,
    /// Nobody asked for it.
    Unasked,
    /// It is due, but too long together with those before it.
    TooLong,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Barriers that are waited for.
    barriers: BTreeSet<Xid>,
    /// Words about bundles that are waited for.
    bundles: BTreeSet<Xid>,
    /// Roles that are waited for.
    roles: BTreeSet<Xid>,
    /// Multipart replies that are waited for, with their kinds.
    tables: BTreeMap<Xid, [u8; 2]>,
    /// Octets of them since nothing was waited for.
    told: usize,
    /// Was it asked to tell changes of its tables from now on? Open vSwitch does so under transaction id 0.
    monitored: bool,
}

/// The kind of multipart messages of extensions (`OFPMP_EXPERIMENTER`): flow monitors.
const EXPERIMENTER: [u8; 2] = [0xff, 0xff];

impl Asked {
    /// A run of whole messages goes to the bridge.
    pub(crate) fn sent(&mut self, batch: &[u8], traffic: &Traffic) {
        let mut left = batch;
        while let Some((head, _)) = left.split_first_chunk::<HEADER>() {
            let [_, kind, long, short, xid @ ..] = *head;
            traffic.count(Direction::Sent, kind);
            let xid = Xid(u32::from_be_bytes(xid));
            match (kind, left.get(HEADER..HEADER + 2)) {
                // The channel's own questions are its own business.
                _ if xid > XID_MAX => {}
                (BARRIER_REQUEST, _) => _ = self.barriers.insert(xid),
                (ROLE_REQUEST, _) => _ = self.roles.insert(xid),
                (EXPERIMENTER_MESSAGE, _) if left[HEADER..].starts_with(&BUNDLE_CONTROL) => {
                    self.bundles.insert(xid);
                }
                // Whoever counts changes counts those in bundles.
                (EXPERIMENTER_MESSAGE, _) if left[HEADER..].starts_with(&BUNDLE_ADD) => {
                    left.get(ADDED_TYPE).into_iter().for_each(|kind| traffic.count(Direction::Sent, *kind));
                }
                (MULTIPART_REQUEST, Some(kind)) if kind == EXPERIMENTER => self.monitored = true,
                (MULTIPART_REQUEST, Some(&[high, low])) => _ = self.tables.insert(xid, [high, low]),
                _ => {}
            }
            left = left.get(usize::from(u16::from_be_bytes([long, short])).max(HEADER)..).unwrap_or_default();
        }
    }

    /// A message came from a bridge that is known.
    pub(crate) fn came(&mut self, frame: &Bytes) -> Verdict {
        let (_, kind, xid) = header(frame);
        let xid = Xid(xid);
        match kind {
            BARRIER_REPLY if !self.barriers.remove(&xid) => Verdict::Unasked,
            ROLE_REPLY if !self.roles.remove(&xid) => Verdict::Unasked,
            EXPERIMENTER_MESSAGE if !self.bundles.remove(&xid) => Verdict::Unasked,
            MULTIPART_REPLY => {
                // Kind, then flags, of which the lowest says that more follows.
                let Some(&[high, low, _, flags]) = frame.get(HEADER..HEADER + 4) else { return Verdict::Due };
                if self.monitored && [high, low] == EXPERIMENTER {
                    return Verdict::Due;
                }
                if self.tables.get(&xid) != Some(&[high, low]) {
                    return Verdict::Unasked;
                }
                self.told += frame.len().max(PART_MIN);
                if self.told > TABLES_MAX {
                    return Verdict::TooLong;
                }
                if flags & 1 == 0 {
                    self.done(xid);
                }
                Verdict::Due
            }
            ERROR => {
                // A refusal is an answer, too.
                self.barriers.remove(&xid);
                self.bundles.remove(&xid);
                self.roles.remove(&xid);
                self.done(xid);
                Verdict::Due
            }
            kind if NEVER_ASKED.contains(&kind) => Verdict::Unasked,
            _ => Verdict::Due,
        }
    }

    fn done(&mut self, xid: Xid) {
        self.tables.remove(&xid);
        if self.tables.is_empty() {
            self.told = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use openflow::error::{BadRequest, ErrorMsg};
    use openflow::flow::FlowStatsRequest;
    use openflow::message::Message;
    use openflow::multipart::Part;
    use openflow::multipart::{MultipartReply, MultipartRequest};
    use openflow::wire::Nothing;

    use super::*;

    fn encoded(messages: &[(u32, Message)]) -> Bytes {
        let mut out = BytesMut::new();
        for (xid, message) in messages {
            message.encode(Xid(*xid), &mut out).unwrap();
        }
        out.freeze()
    }

    fn flows(xid: u32) -> (u32, Message) {
        let body = MultipartRequest::Flow(FlowStatsRequest::all());
        (xid, Message::MultipartRequest(Part::whole(body)))
    }

    fn told(xid: u32, more: bool, body: MultipartReply) -> Bytes {
        encoded(&[(xid, Message::MultipartReply(if more { Part::begun(body) } else { Part::whole(body) }))])
    }

    fn none() -> MultipartReply {
        MultipartReply::Flow(Vec::new())
    }

    #[test]
    fn an_answer_is_due_once_and_only_of_the_kind_that_was_asked() {
        let (mut asked, traffic) = (Asked::default(), Traffic::default());
        let barrier = |xid| encoded(&[(xid, Message::BarrierReply(Nothing))]);
        assert_eq!(
            (asked.came(&barrier(1)), asked.came(&told(2, false, none()))),
            (Verdict::Unasked, Verdict::Unasked)
        );
        asked.sent(&encoded(&[(1, Message::BarrierRequest(Nothing)), flows(2), flows(XID_MAX.0 + 1)]), &traffic);
        assert_eq!(traffic.counts(Direction::Sent).values().sum::<u64>(), 3);
        assert_eq!(asked.came(&told(1, false, none())), Verdict::Unasked, "a barrier is no table");
        assert_eq!(asked.came(&told(XID_MAX.0 + 1, false, none())), Verdict::Unasked, "the channel's own");
        assert_eq!(asked.came(&told(2, false, MultipartReply::GroupDesc(Vec::new()))), Verdict::Unasked);
        for more in [true, true, false] {
            assert_eq!(asked.came(&told(2, more, none())), Verdict::Due);
        }
        assert_eq!((asked.came(&barrier(1)), asked.came(&barrier(1))), (Verdict::Due, Verdict::Unasked));
        assert_eq!(asked.came(&told(2, false, none())), Verdict::Unasked, "it was the last part");
        asked.sent(&encoded(&[flows(3)]), &traffic);
        assert_eq!(
            asked.came(&encoded(&[(3, Message::Error(ErrorMsg::about(BadRequest::BadVersion, &Bytes::new())))])),
            Verdict::Due
        );
        assert_eq!(asked.came(&told(3, false, none())), Verdict::Unasked, "it was refused");
        for kind in NEVER_ASKED {
            assert_eq!(
                asked.came(&encoded(&[(9, Message::Unknown { kind, data: Bytes::new().into() })])),
                Verdict::Unasked
            );
        }
    }

    #[test]
    fn words_about_bundles_are_due_once_and_none_about_what_is_put_in() {
        use openflow::experimenter::{BundleAdd, BundleControl, BundleControlType, BundleFlags, Experimenter};
        let (mut asked, traffic) = (Asked::default(), Traffic::default());
        let control = |xid, kind| {
            let control = BundleControl {
                bundle: 1,
                kind,
                flags: BundleFlags::ATOMIC,
                properties: openflow::wire::Octets::default(),
            };
            (xid, Message::Experimenter(Experimenter::BundleControl(control)))
        };
        let message = Box::new(Message::BarrierRequest(Nothing));
        let add = BundleAdd {
            bundle: 1,
            flags: BundleFlags::ATOMIC,
            xid: Xid(2),
            message,
            properties: openflow::wire::Payload::default(),
        };
        let add = (2, Message::Experimenter(Experimenter::BundleAdd(add)));
        let reply = |xid| encoded(&[control(xid, BundleControlType::OpenReply)]);
        assert_eq!(asked.came(&reply(1)), Verdict::Unasked);
        asked.sent(&encoded(&[control(1, BundleControlType::OpenRequest), add]), &traffic);
        assert_eq!((asked.came(&reply(1)), asked.came(&reply(1))), (Verdict::Due, Verdict::Unasked));
        assert_eq!(asked.came(&reply(2)), Verdict::Unasked);
        let counts = traffic.counts(Direction::Sent);
        assert_eq!(counts, [("BarrierRequest", 1), ("Experimenter", 2)].into(), "what is put in counts, too");
        asked.sent(&encoded(&[control(3, BundleControlType::CommitRequest)]), &traffic);
        let error = Message::Error(ErrorMsg::about(BadRequest::BadVersion, &Bytes::new()));
        assert_eq!((asked.came(&encoded(&[(3, error)])), asked.came(&reply(3))), (Verdict::Due, Verdict::Unasked));
    }

    #[test]
    fn tables_are_bounded_over_all_questions_together_and_anew_for_the_next_ones() {
        let (mut asked, traffic) = (Asked::default(), Traffic::default());
        let long = |xid, more| {
            let body = Bytes::from([&[0, 1, 0, u8::from(more)][..], &[0; 65_000]].concat());
            encoded(&[(xid, Message::Unknown { kind: MULTIPART_REPLY, data: body.into() })])
        };
        let parts = TABLES_MAX / long(1, true).len();
        for _ in 0..3 {
            asked.sent(&encoded(&[flows(1), flows(2)]), &traffic);
            for part in 0..parts - 1 {
                assert_eq!(asked.came(&long(1 + part as u32 % 2, true)), Verdict::Due);
            }
            assert_eq!(asked.came(&long(1, false)), Verdict::Due);
            assert_eq!(asked.came(&told(2, false, none())), Verdict::Due);
        }
        asked.sent(&encoded(&[flows(1), flows(2)]), &traffic);
        let verdicts: Vec<_> = (0..=parts).map(|part| asked.came(&long(1 + part as u32 % 2, true))).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::TooLong).count(), 1);

        let mut asked = Asked::default();
        asked.sent(&encoded(&[flows(1)]), &traffic);
        let short = (0..).take_while(|_| asked.came(&told(1, true, none())) == Verdict::Due).take(1 << 20).count();
        assert_eq!(short, TABLES_MAX / PART_MIN, "short parts are bounded in number");
    }
}
