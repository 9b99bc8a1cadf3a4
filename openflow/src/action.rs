//! Actions (OpenFlow 1.3.5 §7.2.5) and those of Open vSwitch (`ovs-actions(7)`).

mod bundle;
mod display;
mod learn;
mod nicira;
mod table;

pub use bundle::{BundleAlgorithm, BundleLoad, Members};
pub use learn::{Learn, LearnFlags, LearnResult, LearnSource, LearnSpec, LearnSpecs, LearnTarget, LimitedLearn};
pub use nicira::{
    BitRange, Conntrack, ConntrackFlags, ControllerProperty, HashFields, Multipath, MultipathAlgorithm, Nested,
    StackField,
};
pub use table::Action;

use crate::oxm::Oxm;
use crate::types::{MeterId, PortNo, TableId};

/// The vendor number of Nicira, under which Open vSwitch numbers its own actions.
pub const NICIRA: u32 = 0x0000_2320;

/// `max_len` of an output to the controller that asks for whole packets (`OFPCML_NO_BUFFER`).
pub const WHOLE_PACKET: u16 = 0xffff;

impl Action {
    /// `in_port` of a [`Action::Resubmit`] that says: the one that the packet has (`OFPP_IN_PORT` of OpenFlow 1.0).
    pub const SAME_PORT: u16 = 0xfff8;

    /// Goes on in another table as the packet is, then comes back.
    pub const fn resubmit(table: TableId) -> Self {
        Self::Resubmit { in_port: Self::SAME_PORT, table }
    }

    /// Sends the packet out of `port`.
    pub const fn output(port: PortNo) -> Self {
        Self::Output { port, max_len: WHOLE_PACKET }
    }

    /// Sends a copy to the controller that `meter` limits; the packet itself is never dropped by it.
    pub fn metered_copy(meter: MeterId) -> Self {
        Self::Controller2(vec![ControllerProperty::Meter(meter)])
    }

    /// The meter of a copy to the controller, if that is what this is.
    pub fn copy_meter(&self) -> Option<MeterId> {
        let Self::Controller2(properties) = self else { return None };
        properties.iter().find_map(|property| match property {
            ControllerProperty::Meter(meter) => Some(*meter),
            _ => None,
        })
    }

    /// Gives a field a value; `None` if a mask goes with it, which this action can't have (§7.2.5).
    pub fn set_field(oxm: Oxm) -> Option<Self> {
        if oxm.is_masked() { None } else { Some(Self::SetField(oxm)) }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::wire::Wire;

    /// Bytes that `ovs-ofctl -O OpenFlow13 add-flow` 3.1.0 sends for `controller(meter_id=7)`.
    #[test]
    fn a_metered_copy_to_the_controller_has_open_vswitchs_wire_form() {
        let raw = [0xff, 0xff, 0, 24, 0, 0, 0x23, 0x20, 0, 37, 0, 0, 0, 0, 0, 0, 0, 5, 0, 8, 0, 0, 0, 7];
        let mut out = BytesMut::new();
        Action::metered_copy(MeterId(7)).put(&mut out);
        assert_eq!(&out[..], raw);
        assert_eq!(Action::parse(&raw).unwrap().1, Action::metered_copy(MeterId(7)));
    }

    #[test]
    fn actions_of_a_wrong_length_are_refused() {
        assert!(Action::parse(&[0, 0, 0, 8, 0, 0, 0, 1]).is_err(), "output has 16 octets");
        assert!(Action::parse(&[0, 18, 0, 4]).is_err(), "below 8");
        assert!(Action::parse(&[0, 18, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0]).is_err(), "not a multiple of 8");
        assert!(Action::parse(&[0, 18, 0, 16, 0, 0, 0, 0]).is_err(), "beyond the input");
        assert!(Action::parse(&[0, 18, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err(), "pop_vlan has 8 octets");
    }

    #[test]
    fn actions_nest_once_and_what_is_deeper_is_kept_as_it_came() {
        let around = |inner: Vec<u8>| {
            let head = [0xff, 0xff, 0, 0, 0, 0, 0x23, 0x20, 0, 42, 0, 0, 0, 0, 0, 0];
            let mut clone = [&head[..], &inner].concat();
            let length = clone.len() as u16;
            clone[2..4].copy_from_slice(&length.to_be_bytes());
            clone
        };
        let mut deep = around(around(around(vec![0, 18, 0, 8, 0, 0, 0, 0])));
        loop {
            let (_, action) = Action::parse(&deep).unwrap();
            let mut out = BytesMut::new();
            action.put(&mut out);
            assert_eq!(&out[..], deep);
            let Action::Clone(Nested(inner)) = action else { panic!("a clone") };
            assert!(matches!(&inner[..], [Action::Unknown { kind: 0xffff, .. }]), "{inner:?}");
            if deep.len() > 65_000 {
                // Deep enough to exhaust the stack, if each level took its share of it.
                break;
            }
            for _ in 0..(65_535 - deep.len()) / 16 {
                deep = around(deep);
            }
        }
    }
}
