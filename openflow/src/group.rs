//! Groups (OpenFlow 1.3.5 §5.6, §7.3.4.3).

use bytes::{BufMut, BytesMut};
use nom::bytes::complete::take;
use nom::number::complete::be_u16;

use crate::action::Action;
use crate::types::{GroupId, PortNo};
use crate::wire::{LengthGuard, Parsed, Wire, all, pad, refuse};

wire_enum! {
    /// `ofp_group_mod_command`.
    pub enum GroupModCommand: u16 {
        /// A new group.
        Add = 0,
        /// Other buckets for a group that exists.
        Modify = 1,
        /// Remove the group.
        Delete = 2,
    }
}

wire_enum! {
    /// `ofp_group_type`.
    pub enum GroupType: u8 {
        /// A copy for each bucket.
        All = 0,
        /// One bucket, chosen by the bridge.
        Select = 1,
        /// The one bucket there is.
        Indirect = 2,
        /// The first bucket that is alive.
        FastFailover = 3,
    }
}

/// One branch of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its share, in a select group; 0 elsewhere.
    pub weight: u16,
    /// The port that tells whether it is alive; [`PortNo::ANY`]: none.
    pub watch_port: PortNo,
    /// The group that tells whether it is alive; [`GroupId::ANY`]: none.
    pub watch_group: GroupId,
    /// What it does.
    pub actions: Vec<Action>,
}

impl Bucket {
    /// A bucket that does `actions`, whatever port is up.
    pub const fn new(actions: Vec<Action>) -> Self {
        Self { weight: 0, watch_port: PortNo::ANY, watch_group: GroupId::ANY, actions }
    }
}

impl Wire for Bucket {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (_, length) = be_u16(input)?;
        if length < 16 || usize::from(length) > input.len() {
            return refuse(input, "is a bucket with a length below 16 or beyond its group");
        }
        let (rest, i) = take(length)(input)?;
        let (i, ()) = pad(i, 2)?;
        let (i, weight) = u16::parse(i)?;
        let (i, watch_port) = PortNo::parse(i)?;
        let (i, watch_group) = GroupId::parse(i)?;
        let (i, ()) = pad(i, 4)?;
        let (_, actions) = Action::list(i)?;
        Ok((rest, Self { weight, watch_port, watch_group, actions }))
    }

    fn put(&self, out: &mut BytesMut) {
        let length = LengthGuard::new(out, out.len());
        out.put_u16(self.weight);
        self.watch_port.put(out);
        self.watch_group.put(out);
        out.put_u32(0);
        Action::put_list(&self.actions, out);
        length.finish(out);
    }
}

/// `ofp_group_mod`: adds, changes or removes a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMod {
    /// What to do.
    pub command: GroupModCommand,
    /// How the group chooses among its buckets.
    pub kind: GroupType,
    /// Which group.
    pub group: GroupId,
    /// Its buckets, in order.
    pub buckets: Vec<Bucket>,
}

impl Wire for GroupMod {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (i, command) = GroupModCommand::parse(input)?;
        let (i, kind) = GroupType::parse(i)?;
        let (i, ()) = pad(i, 1)?;
        let (i, group) = GroupId::parse(i)?;
        let (i, buckets) = all(i, Bucket::parse)?;
        Ok((i, Self { command, kind, group, buckets }))
    }

    fn put(&self, out: &mut BytesMut) {
        self.command.put(out);
        self.kind.put(out);
        out.put_u8(0);
        self.group.put(out);
        for bucket in &self.buckets {
            bucket.put(out);
        }
    }
}

/// `ofp_group_desc`: a group as the bridge has it (§7.3.5.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDesc {
    /// How the group chooses among its buckets.
    pub kind: GroupType,
    /// Which group.
    pub group: GroupId,
    /// Its buckets, in order.
    pub buckets: Vec<Bucket>,
}

impl Wire for GroupDesc {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (_, length) = be_u16(input)?;
        if length < 8 || usize::from(length) > input.len() {
            return refuse(input, "is a group description with a length below 8 or beyond the message");
        }
        let (rest, i) = take(length)(input)?;
        let (i, ()) = pad(i, 2)?;
        let (i, kind) = GroupType::parse(i)?;
        let (i, ()) = pad(i, 1)?;
        let (i, group) = GroupId::parse(i)?;
        let (_, buckets) = all(i, Bucket::parse)?;
        Ok((rest, Self { kind, group, buckets }))
    }

    fn put(&self, out: &mut BytesMut) {
        let length = LengthGuard::new(out, out.len());
        self.kind.put(out);
        out.put_u8(0);
        self.group.put(out);
        for bucket in &self.buckets {
            bucket.put(out);
        }
        length.finish(out);
    }
}
