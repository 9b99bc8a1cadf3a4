//! Actions (OpenFlow 1.3.5 §7.2.5) and those of Open vSwitch that Espalier uses (`ovs-actions(7)`).

use bytes::{BufMut, BytesMut};

use crate::oxm::Oxm;
use crate::types::{GroupId, MeterId, PortNo};
use crate::wire::{Fixed, LengthGuard, Parsed, Wire, all, element, pad, refuse};

/// The vendor number of Nicira, under which Open vSwitch numbers its own actions.
pub const NICIRA: u32 = 0x0000_2320;

/// `max_len` of an output to the controller that asks for whole packets (`OFPCML_NO_BUFFER`).
pub const WHOLE_PACKET: u16 = 0xffff;

const SET_FIELD: u16 = 25;
const EXPERIMENTER: u16 = 0xffff;
const NX_CONTROLLER2: u16 = 37;

/// One row per action whose body is fixed: number, fields, padding behind them.
macro_rules! actions {
    ($($(#[$meta:meta])* $variant:ident = $kind:literal { $($field:ident: $ty:ty),* } pad $pad:literal;)+) => {
        /// What is done to a packet.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Action {
            $($(#[$meta])* $variant { $(#[doc = concat!("`", stringify!($field), "`.")] $field: $ty),* },)+
            /// Gives a field a value; the field has no mask.
            SetField(Oxm),
            /// A copy to the controller, metered by itself (Open vSwitch's `controller(meter_id=…)`).
            Controller {
                /// Meter of the copies.
                meter: MeterId,
            },
            /// An action that has no name here.
            Unknown {
                /// Its number.
                kind: u16,
                /// What follows its length.
                body: Vec<u8>,
            },
        }

        impl Wire for Action {
            fn parse(input: &[u8]) -> Parsed<'_, Self> {
                let (rest, (kind, body)) = element(input, 8)?;
                if (input.len() - rest.len()) % 8 != 0 {
                    return refuse(input, "is an action whose length isn't a multiple of 8");
                }
                let action = match kind {
                    $($kind => {
                        if body.len() != 0 $(+ <$ty as Fixed>::LEN)* + $pad {
                            return refuse(input, "is an action of a length that isn't its type's");
                        }
                        $(let (body, $field) = <$ty as Wire>::parse(body)?;)*
                        let _ = body;
                        Self::$variant { $($field),* }
                    })+
                    SET_FIELD => {
                        let (left, oxm) = Oxm::parse(body)?;
                        if left.len() >= 8 {
                            return refuse(left, "follows the field of a set-field action");
                        }
                        Self::SetField(oxm)
                    }
                    EXPERIMENTER => controller2(body)
                        .map_or_else(|| Self::Unknown { kind, body: body.to_vec() }, |meter| Self::Controller { meter }),
                    _ => Self::Unknown { kind, body: body.to_vec() },
                };
                Ok((rest, action))
            }

            fn put(&self, out: &mut BytesMut) {
                let start = out.len();
                match self {
                    $(Self::$variant { $($field),* } => {
                        out.put_u16($kind);
                        out.put_u16((4 $(+ <$ty as Fixed>::LEN)* + $pad) as u16);
                        $($field.put(out);)*
                        out.put_bytes(0, $pad);
                    })+
                    Self::SetField(oxm) => {
                        out.put_u16(SET_FIELD);
                        let length = LengthGuard::new(out, start);
                        oxm.put(out);
                        length.finish_padded(out);
                    }
                    Self::Controller { meter } => {
                        out.put_u16(EXPERIMENTER);
                        let length = LengthGuard::new(out, start);
                        out.put_u32(NICIRA);
                        out.put_u16(NX_CONTROLLER2);
                        out.put_bytes(0, 6);
                        out.put_u16(NXAC2PT_METER_ID);
                        out.put_u16(8);
                        meter.put(out);
                        length.finish_padded(out);
                    }
                    Self::Unknown { kind, body } => {
                        out.put_u16(*kind);
                        out.put_u16((4 + body.len()) as u16);
                        out.put_slice(body);
                    }
                }
            }
        }
    };
}

actions! {
    /// Send it out of a port.
    Output = 0 { port: PortNo, max_len: u16 } pad 6;
    /// Copy the TTL outwards.
    CopyTtlOut = 11 {} pad 4;
    /// Copy the TTL inwards.
    CopyTtlIn = 12 {} pad 4;
    /// Set the MPLS TTL.
    SetMplsTtl = 15 { ttl: u8 } pad 3;
    /// Decrement the MPLS TTL.
    DecMplsTtl = 16 {} pad 4;
    /// Put on a VLAN tag of the given Ethernet type.
    PushVlan = 17 { ethertype: u16 } pad 2;
    /// Take off the outer VLAN tag.
    PopVlan = 18 {} pad 4;
    /// Put on an MPLS label.
    PushMpls = 19 { ethertype: u16 } pad 2;
    /// Take off the outer MPLS label.
    PopMpls = 20 { ethertype: u16 } pad 2;
    /// Choose the queue of the output port.
    SetQueue = 21 { queue: u32 } pad 0;
    /// Hand it to a group.
    Group = 22 { group: GroupId } pad 0;
    /// Set the IP TTL.
    SetNwTtl = 23 { ttl: u8 } pad 3;
    /// Decrement the IP TTL.
    DecNwTtl = 24 {} pad 4;
    /// Put on a PBB service tag.
    PushPbb = 26 { ethertype: u16 } pad 2;
    /// Take off the PBB service tag.
    PopPbb = 27 {} pad 4;
}

const NXAC2PT_METER_ID: u16 = 5;

/// Reads the body of `controller2` if it says nothing but a meter, which is all that we write.
fn controller2(body: &[u8]) -> Option<MeterId> {
    let rest = body.strip_prefix(&NICIRA.to_be_bytes())?.strip_prefix(&NX_CONTROLLER2.to_be_bytes())?;
    let (property, ()) = pad(rest, 6).ok()?;
    let meter = property.strip_prefix(&NXAC2PT_METER_ID.to_be_bytes())?.strip_prefix(&8u16.to_be_bytes())?;
    <[u8; 4]>::try_from(meter).ok().map(|id| MeterId(u32::from_be_bytes(id)))
}

impl Action {
    /// Sends the packet out of `port`.
    pub const fn output(port: PortNo) -> Self {
        Self::Output { port, max_len: WHOLE_PACKET }
    }

    /// Actions until the end of `input`.
    pub(crate) fn list(input: &[u8]) -> Parsed<'_, Vec<Self>> {
        all(input, Self::parse)
    }

    /// Writes actions one behind the other.
    pub(crate) fn put_list(actions: &[Self], out: &mut BytesMut) {
        for action in actions {
            action.put(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that `ovs-ofctl -O OpenFlow13 add-flow` 3.1.0 sends for `controller(meter_id=7)`, without the length guard's
    /// own view of them.
    #[test]
    fn a_metered_copy_to_the_controller_has_open_vswitchs_wire_form() {
        let raw = [0xff, 0xff, 0, 24, 0, 0, 0x23, 0x20, 0, 37, 0, 0, 0, 0, 0, 0, 0, 5, 0, 8, 0, 0, 0, 7];
        let mut out = BytesMut::new();
        Action::Controller { meter: MeterId(7) }.put(&mut out);
        assert_eq!(&out[..], raw);
        assert_eq!(Action::parse(&raw).unwrap().1, Action::Controller { meter: MeterId(7) });
    }

    #[test]
    fn actions_of_a_wrong_length_are_refused() {
        assert!(Action::parse(&[0, 0, 0, 8, 0, 0, 0, 1]).is_err(), "output has 16 octets");
        assert!(Action::parse(&[0, 18, 0, 4]).is_err(), "below 8");
        assert!(Action::parse(&[0, 18, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0]).is_err(), "not a multiple of 8");
        assert!(Action::parse(&[0, 18, 0, 16, 0, 0, 0, 0]).is_err(), "beyond the input");
    }
}
