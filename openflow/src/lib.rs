//! The OpenFlow 1.3 wire protocol: messages, match fields, actions, framing, and the channel to a bridge as a state
//! machine. No I/O, no clock, no logging, and no input makes it panic.
//!
//! The text to follow is the OpenFlow Switch Specification 1.3.5; section numbers are its own. Messages, fields and
//! actions are rows of tables ([`message`], [`oxm`], [`action`], [`multipart`]): a row gives the type, the parser, the
//! encoder and the name. Values without a name survive decoding and encoding.
//!
//! ```
//! use bytes::BytesMut;
//! use openflow::frame::next_frame;
//! use openflow::message::Message;
//! use openflow::types::Xid;
//!
//! let mut stream = BytesMut::new();
//! Message::EchoRequest("still there?".into()).encode(Xid(7), &mut stream);
//! let frame = next_frame(&mut stream)?.expect("one whole message");
//! assert_eq!(Message::decode(&frame)?, (Xid(7), Message::EchoRequest("still there?".into())));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[macro_use]
mod macros;

pub mod action;
pub mod flow;
pub mod frame;
pub mod group;
pub mod instruction;
pub mod matching;
pub mod message;
pub mod meter;
pub mod multipart;
pub mod oxm;
pub mod packet;
pub mod peer;
pub mod port;
pub mod switch;
pub mod types;
pub mod wire;
