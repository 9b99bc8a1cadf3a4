//! Any bytes, in whatever pieces they come, give the same messages.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use openflow::frame::{BadLength, next_frame};

/// The messages that the pieces of a stream give, and how it ends: with what is left over, or an error.
fn cut(pieces: &[&[u8]]) -> (Vec<Bytes>, Result<Bytes, BadLength>) {
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match next_frame(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(bad) => return (frames, Err(bad)),
            }
        }
    }
    (frames, Ok(buffer.freeze()))
}

/// Cuts the stream into pieces as long as its own octets say, from the last one on: so a plain stream is an input.
fn pieces(stream: &[u8]) -> Vec<&[u8]> {
    let (mut left, mut pieces) = (stream, Vec::new());
    for &length in stream.iter().rev() {
        let (piece, rest) = left.split_at(usize::from(length).max(1).min(left.len()));
        pieces.push(piece);
        left = rest;
    }
    pieces
}

fuzz_target!(|stream: &[u8]| {
    let (frames, end) = cut(&[stream]);
    assert_eq!(cut(&pieces(stream)), (frames.clone(), end.clone()));
    let whole = [frames.concat(), end.as_deref().unwrap_or_default().to_vec()].concat();
    assert!(stream.starts_with(&whole), "what comes out went in, in this order");
    assert!(end.is_err() || stream.len() == whole.len(), "nothing is lost");
});
