//! Any frame decodes or is refused, and what decodes is encoded to the same message, in one form.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use openflow::frame::HEADER;
use openflow::message::Message;
use openflow::types::Xid;

fn encoded(xid: Xid, message: &Message) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(xid, &mut out).unwrap();
    out.freeze()
}

fuzz_target!(|input: &[u8]| {
    let Ok(length) = u16::try_from(input.len()) else { return };
    if input.len() < HEADER {
        return;
    }
    // Framing gives only messages whose length is right, so the fuzzer needn't find that out.
    let mut frame = input.to_vec();
    frame[2..4].copy_from_slice(&length.to_be_bytes());
    let frame = Bytes::from(frame);
    match Message::decode(&frame) {
        Ok((xid, message)) => {
            let once = encoded(xid, &message);
            assert_eq!(Message::decode(&once), Ok((xid, message)), "decoded from {frame:02x?}");
            let (xid, message) = Message::decode(&once).expect("just now it could be");
            assert_eq!(encoded(xid, &message), once);
        }
        Err(error) => assert!(error.offset <= frame.len() && !error.to_string().is_empty(), "{error}"),
    }
});
