//! Cutting a byte stream into messages (OpenFlow 1.3.5 §7.1).

use bytes::{Buf, Bytes, BytesMut};

/// The version number of OpenFlow 1.3 on the wire.
pub const VERSION: u8 = 0x04;

/// Octets of the header that each message begins with: version, type, 16-bit length, 32-bit transaction id.
pub const HEADER: usize = 8;

/// The stream can't be cut any further: its next message claims a length shorter than its own header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message claims a length of {0} octets, less than its header of 8")]
pub struct BadLength(pub u16);

/// Takes the next whole message off the front of `buffer`. `Ok(None)`: more bytes are needed.
///
/// # Errors
/// [`BadLength`]: from here on nothing in the stream can be trusted.
pub fn next_frame(buffer: &mut BytesMut) -> Result<Option<Bytes>, BadLength> {
    if buffer.len() < HEADER {
        return Ok(None);
    }
    let length = u16::from_be_bytes([buffer[2], buffer[3]]);
    if usize::from(length) < HEADER {
        return Err(BadLength(length));
    }
    Ok((buffer.len() >= usize::from(length)).then(|| buffer.split_to(usize::from(length)).freeze()))
}

/// Version, type number and transaction id of a message that [`next_frame`] gave.
///
/// # Panics
/// If `frame` is shorter than [`HEADER`], which those aren't.
pub fn header(frame: &Bytes) -> (u8, u8, u32) {
    let mut octets = &frame[..HEADER];
    let (version, kind) = (octets.get_u8(), octets.get_u8());
    octets.advance(2);
    (version, kind, octets.get_u32())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_answers_more_a_frame_or_malformed() {
        assert_eq!(next_frame(&mut BytesMut::from(&[4u8, 0, 0][..])), Ok(None));
        assert_eq!(next_frame(&mut BytesMut::from(&[4u8, 0, 0, 9, 0, 0, 0, 0][..])), Ok(None));
        for bad in [0u8, 3, 7] {
            let mut buffer = BytesMut::from(&[4u8, 0, 0, bad, 0, 0, 0, 0][..]);
            assert_eq!(next_frame(&mut buffer), Err(BadLength(u16::from(bad))));
        }
        let mut two = BytesMut::from(&[4u8, 0, 0, 8, 0, 0, 0, 1, 4, 2, 0, 8, 0, 0, 0, 2][..]);
        assert_eq!(header(&next_frame(&mut two).unwrap().unwrap()), (4, 0, 1));
        assert_eq!(header(&next_frame(&mut two).unwrap().unwrap()), (4, 2, 2));
        assert_eq!(next_frame(&mut two), Ok(None));
    }
}
