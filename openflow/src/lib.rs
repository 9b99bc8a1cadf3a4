//! The OpenFlow 1.3 wire protocol, whole: messages, match fields, actions, framing, and the channel to a bridge as a state
//! machine. No I/O, no clock, no logging, and no input makes it panic or work longer than it is long.
//!
//! The text to follow is the OpenFlow Switch Specification 1.3.5; section numbers are its own. Messages, fields, actions,
//! errors and the rest are rows of tables: a row gives the type, the parser, the encoder and the name. What Open vSwitch
//! adds to 1.3 and controllers use most is there too: registers, tunnel and connection fields, actions, bundles and flow monitors.
//!
//! - What has no name here (types, fields, enumerations, flags, experimenters) is kept, and encoded as it came.
//! - What can't be legal can't be built: numbers have the bits of their fields ([`narrow`]), flags and identifiers are types
//!   of their own, [`matching::Match::checked`] refuses a field without what it presupposes.
//! - A malformed message gives the octet where it fails, and why ([`message::DecodeError`]): a match with a field twice, say, or
//!   with a value that its mask doesn't cover, as a switch refuses it. A hello is never malformed: what it says beside its
//!   version may be of times to come.
//! - Payloads are slices of the message they came in.
//!
//! With the feature `serde`, which is on by default, messages can be written as JSON and the like. Two that differ are written
//! differently.
//!
//! Where Open vSwitch differs from the specification: it takes masks on ports and neighbour discovery fields
//! ([`oxm::Masking::OpenVswitch`]), writes bundles and flow monitors as the Open Networking Foundation's extensions, offers
//! only the drop band, and gives reasons of later versions where it is asked for them.
//!
//! ```
//! use bytes::BytesMut;
//! use openflow::frame::next_frame;
//! use openflow::message::Message;
//! use openflow::types::Xid;
//!
//! let mut stream = BytesMut::new();
//! Message::EchoRequest("still there?".into()).encode(Xid(7), &mut stream)?;
//! let frame = next_frame(&mut stream)?.expect("one whole message");
//! assert_eq!(Message::decode(&frame)?, (Xid(7), Message::EchoRequest("still there?".into())));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A flow entry, as a controller adds it and as `ovs-ofctl` writes it:
//!
//! ```
//! use openflow::action::Action;
//! use openflow::flow::{FlowMod, FlowModCommand, FlowModFlags};
//! use openflow::instruction::Instruction;
//! use openflow::matching::Match;
//! use openflow::oxm::Oxm;
//! use openflow::types::{PortNo, TableId};
//!
//! let web = Match::checked([Oxm::EthType(0x0800, None), Oxm::IpProto(6, None), Oxm::TcpDst(80, None)])?;
//! assert_eq!(web.to_string(), "eth_type=0x800,ip_proto=6,tcp_dst=80");
//! assert!(Match::checked([Oxm::TcpDst(80, None)]).is_err(), "a port needs a protocol");
//!
//! let mut entry = FlowMod::new(FlowModCommand::Add, TableId(0), 100, web);
//! entry.flags = FlowModFlags::SEND_FLOW_REM;
//! entry.instructions = vec![Instruction::ApplyActions(vec![Action::output(PortNo(2))])];
//! assert_eq!(entry.instructions[0].to_string(), "output:2");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[macro_use]
mod macros;

pub mod action;
pub mod error;
pub mod experimenter;
pub mod flow;
pub mod frame;
pub mod group;
pub mod instruction;
pub mod matching;
pub mod message;
pub mod meter;
pub mod multipart;
pub mod narrow;
pub mod oxm;
pub mod packet;
pub mod peer;
pub mod port;
#[cfg(feature = "serde")]
mod serialize;
pub mod switch;
pub mod table;
pub mod types;
pub mod wire;
