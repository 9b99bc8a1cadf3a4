//! The table of actions.

use bytes::{BufMut, BytesMut};

use super::{
    BitRange, BundleLoad, Conntrack, ControllerProperty, Learn, LimitedLearn, Members, Multipath, NICIRA, Nested,
    StackField,
};
use crate::oxm::{FieldId, Oxm};
use crate::packet::PacketInReason;
use crate::types::{GroupId, PortNo, QueueId, TableId};
use crate::wire::{LengthGuard, Octets, Parsed, Wire, element, pad, refuse};

const EXPERIMENTER: u16 = 0xffff;

/// One row an action: its number, its fields or its one value, octets of padding behind them. Behind `nicira` the number is
/// that of the vendor's subtype, and the two numbers say how much padding comes before and after the fields.
/// What is left behind the padding has to be less than 8 zeros, to which actions are padded.
macro_rules! actions {
    (standard { $($(#[$meta:meta])* $variant:ident = $kind:literal $shape:tt pad $pad:literal;)+ }
     nicira { $($(#[$nmeta:meta])* $nvariant:ident = $subtype:literal $nshape:tt pad $before:literal, $after:literal;)+ }) => {
        /// What is done to a packet.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
        pub enum Action {
            $($(#[$meta])* $variant $shape,)+
            $($(#[$nmeta])* $nvariant $nshape,)+
            /// An action that has no name here. Whoever builds one answers for its form.
            Unknown {
                /// Its number.
                kind: u16,
                /// What follows its length.
                body: Octets,
            },
        }

        impl Action {
            /// The names of all actions: those of the specification, then Open vSwitch's.
            pub const KINDS: &'static [&'static str] = &[$(stringify!($variant),)+ $(stringify!($nvariant)),+];
        }

        impl Wire for Action {
            fn parse(input: &[u8]) -> Parsed<'_, Self> {
                let (rest, (kind, body)) = element(input, 8)?;
                if !(input.len() - rest.len()).is_multiple_of(8) {
                    return refuse(input, "is an action whose length isn't a multiple of 8");
                }
                let (left, action) = match kind {
                    $($kind => {
                        let (left, action) = wire_elements!(@parse body, $variant $shape);
                        (pad(left, $pad)?.0, action)
                    })+
                    EXPERIMENTER => Self::parse_experimenter(body)?,
                    _ => (&body[body.len()..], Self::Unknown { kind, body: Octets(body.to_vec()) }),
                };
                if left.len() >= 8 {
                    return refuse(left, "is more than its action may have");
                }
                Ok((rest, action))
            }

            fn put(&self, out: &mut BytesMut) {
                let start = out.len();
                out.put_u16(match self {
                    $(Self::$variant { .. } => $kind,)+
                    $(Self::$nvariant { .. } => EXPERIMENTER,)+
                    Self::Unknown { kind, .. } => *kind,
                });
                let length = LengthGuard::new(out, start);
                match self {
                    $(Self::$variant { .. } => {
                        wire_elements!(@put self, out, $variant $shape);
                        out.put_bytes(0, $pad);
                    })+
                    $(Self::$nvariant { .. } => {
                        out.put_u32(NICIRA);
                        out.put_u16($subtype);
                        out.put_bytes(0, $before);
                        wire_elements!(@put self, out, $nvariant $nshape);
                        out.put_bytes(0, $after);
                    })+
                    Self::Unknown { body, .. } => body.put(out),
                }
                length.finish_padded(out);
            }
        }

        impl Action {
            fn parse_experimenter(body: &[u8]) -> Parsed<'_, Self> {
                let kept = || Self::Unknown { kind: EXPERIMENTER, body: Octets(body.to_vec()) };
                let (left, vendor) = u32::parse(body)?;
                if vendor != NICIRA {
                    return Ok((&body[body.len()..], kept()));
                }
                let (left, subtype) = u16::parse(left)?;
                match subtype {
                    $($subtype => {
                        let (left, ()) = pad(left, $before)?;
                        let (left, action) = wire_elements!(@parse left, $nvariant $nshape);
                        Ok((pad(left, $after)?.0, action))
                    })+
                    _ => Ok((&body[body.len()..], kept())),
                }
            }
        }
    };
}

actions! {
    standard {
        /// Send it out of a port.
        Output = 0 {
            /// The port.
            port: PortNo,
            /// How much of it goes to the controller, octets.
            max_len: u16,
        } pad 6;
        /// Copy the TTL outwards.
        CopyTtlOut = 11 {} pad 4;
        /// Copy the TTL inwards.
        CopyTtlIn = 12 {} pad 4;
        /// Set the MPLS TTL.
        SetMplsTtl = 15 {
            /// The TTL.
            ttl: u8,
        } pad 3;
        /// Decrement the MPLS TTL.
        DecMplsTtl = 16 {} pad 4;
        /// Put on a VLAN tag.
        PushVlan = 17 {
            /// Its Ethernet type.
            ethertype: u16,
        } pad 2;
        /// Take off the outer VLAN tag.
        PopVlan = 18 {} pad 4;
        /// Put on an MPLS label.
        PushMpls = 19 {
            /// Its Ethernet type.
            ethertype: u16,
        } pad 2;
        /// Take off the outer MPLS label.
        PopMpls = 20 {
            /// The Ethernet type of what is left.
            ethertype: u16,
        } pad 2;
        /// Choose the queue of the output port.
        SetQueue = 21 {
            /// The queue.
            queue: QueueId,
        } pad 0;
        /// Hand it to a group.
        Group = 22 {
            /// The group.
            group: GroupId,
        } pad 0;
        /// Set the IP TTL.
        SetNwTtl = 23 {
            /// The TTL.
            ttl: u8,
        } pad 3;
        /// Decrement the IP TTL.
        DecNwTtl = 24 {} pad 4;
        /// Give a field a value; no mask goes with it ([`Action::set_field`] sees to that).
        SetField = 25 (Oxm) pad 0;
        /// Put on a PBB service tag.
        PushPbb = 26 {
            /// Its Ethernet type.
            ethertype: u16,
        } pad 2;
        /// Take off the PBB service tag.
        PopPbb = 27 {} pad 4;
    }
    nicira {
        /// Look it up once more in the table it is in, as if it came in by another port.
        ResubmitPort = 1 {
            /// The port, in OpenFlow 1.0's 16 bits; 0xfff8: the one it came in by.
            in_port: u16,
        } pad 0, 4;
        /// Set the low 32 bits of the tunnel key.
        SetTunnel = 2 {
            /// The key.
            key: u32,
        } pad 2, 0;
        /// Choose the queue that the port has without [`Action::SetQueue`].
        PopQueue = 5 {} pad 0, 6;
        /// Copy bits from field to field.
        RegMove = 6 {
            /// How many bits.
            n_bits: u16,
            /// From which on in the source.
            src_offset: u16,
            /// From which on in the destination.
            dst_offset: u16,
            /// The source.
            src: FieldId,
            /// The destination.
            dst: FieldId,
        } pad 0, 0;
        /// Give bits of a field a value.
        RegLoad = 7 {
            /// Which bits.
            range: BitRange,
            /// The field.
            dst: FieldId,
            /// Their value.
            value: u64,
        } pad 0, 0;
        /// A note for whoever reads the entry. Zeros are added until the action is a multiple of 8 octets long.
        Note = 8 (Octets) pad 0, 0;
        /// Set the tunnel key.
        SetTunnel64 = 9 {
            /// The key.
            key: u64,
        } pad 6, 0;
        /// Choose one of several links by a hash of the packet, and write its number into a field.
        Multipath = 10 (Multipath) pad 0, 0;
        /// Send it out of one of several ports.
        Bundle = 12 (Members) pad 0, 0;
        /// Choose one of several ports, and write its number into a field.
        BundleLoad = 13 (BundleLoad) pad 0, 0;
        /// Go on in another table, then come back.
        Resubmit = 14 {
            /// As which port, in OpenFlow 1.0's 16 bits; 0xfff8: the one it came in by.
            in_port: u16,
            /// The table; 255: the one it is in.
            table: TableId,
        } pad 0, 3;
        /// Send it out of the port whose number a field holds.
        OutputReg = 15 {
            /// Which bits of the field.
            range: BitRange,
            /// The field.
            src: FieldId,
            /// How much of it goes to the controller, octets.
            max_len: u16,
        } pad 0, 6;
        /// Add a flow entry made from the packet.
        Learn = 16 (Learn) pad 0, 0;
        /// Do no more.
        Exit = 17 {} pad 0, 6;
        /// Shorten the entry's timeouts when a TCP connection ends.
        FinTimeout = 19 {
            /// Idle timeout then, seconds; 0: as it was.
            idle_timeout: u16,
            /// Hard timeout then, seconds; 0: as it was.
            hard_timeout: u16,
        } pad 0, 2;
        /// A copy to the controller.
        Controller = 20 {
            /// How much of it, octets.
            max_len: u16,
            /// To which controller.
            controller: u16,
            /// The reason to give.
            reason: PacketInReason,
        } pad 0, 1;
        /// Push bits of a field on the packet's stack.
        StackPush = 27 (StackField) pad 0, 0;
        /// Pop bits of a field off the packet's stack.
        StackPop = 28 (StackField) pad 0, 0;
        /// Give bits of a field a value: those of the mask, if there is one.
        RegLoad2 = 33 (Oxm) pad 0, 0;
        /// One clause of a conjunctive match.
        Conjunction = 34 {
            /// Which clause, from 0 on.
            clause: u8,
            /// How many there are.
            n_clauses: u8,
            /// The conjunction.
            id: u32,
        } pad 0, 0;
        /// Send it through connection tracking.
        Ct = 35 (Conntrack) pad 0, 0;
        /// Translate addresses, within [`Action::Ct`].
        Nat = 36 {
            /// How.
            flags: u16,
            /// Which bounds follow.
            present: u16,
            /// The bounds.
            bounds: Octets,
        } pad 2, 0;
        /// A copy to the controller; what about it isn't as usual.
        Controller2 = 37 (Vec<ControllerProperty>) pad 6, 0;
        /// Send the front of it out of a port.
        OutputTrunc = 39 {
            /// The port, in OpenFlow 1.0's 16 bits.
            port: u16,
            /// How much of it, octets.
            max_len: u32,
        } pad 0, 0;
        /// Do these without lasting effect on the packet.
        Clone = 42 (Nested) pad 6, 0;
        /// Forget what connection tracking said.
        CtClear = 43 {} pad 0, 6;
        /// As [`Action::Resubmit`], with the original addresses of the connection.
        ResubmitCt = 44 {
            /// As which port, in OpenFlow 1.0's 16 bits; 0xfff8: the one it came in by.
            in_port: u16,
            /// The table; 255: the one it is in.
            table: TableId,
        } pad 0, 3;
        /// As [`Action::Learn`], with a bound.
        LimitedLearn = 45 (LimitedLearn) pad 0, 0;
    }
}
