//! Who sends a frame, as the frame says.

use std::net::IpAddr;

/// The sender's IP address, as far as the beginning of a frame tells: ARP (RFC 826), IPv4, IPv6.
pub(super) fn sender(frame: &[u8]) -> Option<IpAddr> {
    let mut at = 12;
    let ethertype = loop {
        let kind = u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?);
        at += 2;
        match kind {
            // A tag: two octets, then the next type.
            0x8100 | 0x88a8 => at += 2,
            kind => break kind,
        }
    };
    let octets = |from: usize, n: usize| frame.get(at + from..at + from + n);
    // What a header says of itself has to be right: addresses of other kinds or lengths are elsewhere.
    let ip = match (ethertype, octets(0, 6)?) {
        (0x0806, [0, 1, 8, 0, 6, 4]) => IpAddr::from(<[u8; 4]>::try_from(octets(14, 4)?).ok()?),
        (0x0800, [0x45..=0x4f, ..]) => IpAddr::from(<[u8; 4]>::try_from(octets(12, 4)?).ok()?),
        (0x86dd, [0x60..=0x6f, ..]) => IpAddr::from(<[u8; 16]>::try_from(octets(8, 16)?).ok()?),
        _ => return None,
    };
    (!ip.is_unspecified() && !ip.is_multicast()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sender_is_read_from_arp_ip_and_behind_tags_and_never_beyond_the_end() {
        let mut arp = vec![0u8; 12];
        arp.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 7]);
        assert_eq!(sender(&arp), Some(IpAddr::from([10, 0, 0, 7])));
        let mut tagged = arp.clone();
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        assert_eq!(sender(&tagged), Some(IpAddr::from([10, 0, 0, 7])));
        for end in 0..tagged.len() {
            assert_eq!(sender(&tagged[..end]), None);
        }
        assert_eq!(sender(&[0x81; 100]), None);
    }

    #[test]
    fn frames_that_lie_about_themselves_tell_no_sender() {
        let frame = |kind: [u8; 2], body: &[u8]| [&[2; 12][..], &kind, body].concat();
        let ip = |first: u8| [&[first][..], &[0; 11], &[10, 0, 0, 1], &[0; 200]].concat();
        assert_eq!(sender(&frame([8, 0], &ip(0x45))), Some(IpAddr::from([10, 0, 0, 1])));
        assert_eq!(sender(&frame([8, 0], &ip(0x4f))), Some(IpAddr::from([10, 0, 0, 1])), "with options");
        for first in [0x40, 0x44, 0x35, 0x65, 0xff, 0] {
            assert_eq!(sender(&frame([8, 0], &ip(first))), None, "first octet {first:#04x}");
        }
        assert_eq!(sender(&frame([0x86, 0xdd], &ip(0x45))), None);
        for lengths in [[255, 255], [0, 0], [8, 4], [6, 16]] {
            let arp = [&[0, 1, 8, 0][..], &lengths, &[0, 1], &[9; 600]].concat();
            assert_eq!(sender(&frame([8, 6], &arp)), None, "{lengths:?}");
        }
        // Tags and labels without end.
        assert_eq!(sender(&frame([0x81, 0], &[0, 1, 0x88, 0xa8].repeat(200))), None);
        assert_eq!(sender(&frame([0x88, 0x47], &[0, 0, 0x10, 64].repeat(300))), None);
        let tagged = [&[0, 1, 0x81, 0].repeat(199)[..], &[0, 1, 8, 0], &ip(0x45)].concat();
        assert_eq!(sender(&frame([0x81, 0], &tagged)), Some(IpAddr::from([10, 0, 0, 1])));
    }
}
