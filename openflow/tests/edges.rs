//! Values at the edge of what can be told: none makes the codec panic, and none is taken for another.

use bytes::{Bytes, BytesMut};
use openflow::action::{Action, Conntrack, ConntrackFlags, Nested};
use openflow::error::ErrorCode;
use openflow::message::Message;
use openflow::oxm::FieldId;
use openflow::switch::{Hello, HelloElement};
use openflow::types::{TableId, Xid};

#[test]
fn what_is_shorter_than_a_header_is_malformed() {
    for length in 0..8 {
        let error = Message::decode(&Bytes::from(vec![4; length])).unwrap_err();
        assert_eq!(error.offset, length);
    }
    assert!(Message::decode(&Bytes::from_static(&[4, 2, 0, 8, 0, 0, 0, 1])).is_ok());
}

#[test]
fn bits_beyond_any_field_can_be_shown() {
    let field = FieldId::named("reg0").expect("reg0 has a name");
    let all = Action::RegMove { n_bits: 65_535, src_offset: 65_535, dst_offset: 0, src: field, dst: field };
    assert_eq!(all.to_string(), "move:reg0[65535..131069]->reg0[0..65534]");
}

#[test]
fn a_zone_that_a_field_holds_is_shown() {
    let ct = |zone_source, zone| {
        let actions = Nested::default();
        let flags = ConntrackFlags::empty();
        Action::Ct(Conntrack { flags, zone_source, zone, table: TableId(1), helper: 0, actions }).to_string()
    };
    assert_eq!(ct(0, 7), "ct(table=1,zone=7)");
    assert_ne!(ct(0x0001_0004, 15), ct(0x0001_0204, 15), "zone of reg0 and of reg1");
}

#[test]
fn a_bundle_holds_messages_of_its_own_version_only() {
    let bundle = |version| {
        let head = [4, 4, 0, 32, 0, 0, 0, 1, 0x4f, 0x4e, 0x46, 0, 0, 0, 0x08, 0xfd, 0, 0, 0, 1, 0, 0, 0, 1];
        Message::decode(&Bytes::from([&head[..], &[version, 20, 0, 8, 0, 0, 0, 1]].concat()))
    };
    let (xid, message) = bundle(4).unwrap();
    let mut out = BytesMut::new();
    message.encode(xid, &mut out).unwrap();
    assert_eq!(out[24..], [4, 20, 0, 8, 0, 0, 0, 1]);
    assert_eq!(bundle(5).unwrap_err().offset, 24);
}

#[test]
fn errors_have_the_names_that_open_vswitch_gives_them() {
    const ONF: u32 = 0x4f4e_4600;
    const NICIRA: u32 = 0x2320;
    for (owner, code, name) in [
        (NICIRA, 2, "NXBRC_NXM_INVALID"),
        (NICIRA, 6, "OFPMOFC_MONITOR_EXISTS"),
        (NICIRA, 20, "NXTTMFC_ALREADY_MAPPED"),
        (NICIRA, 35, "NXR_STALE"),
        (NICIRA, 36, "NXST_NOT_CONFIGURED"),
        (NICIRA, 38, "NXTTMFC_INVALID_TLV_DEL"),
        (ONF, 2360, "OFPFMFC_BAD_PRIORITY"),
        (ONF, 4445, "OFPBPC_BAD_EXPERIMENTER"),
    ] {
        assert_eq!(ErrorCode::from_numbers(owner, 0xffff, code).name(), Some(name));
    }
}

fn hello(version: u8, body: &[u8]) -> Hello {
    let frame = [&[version, 0, 0, 8 + body.len() as u8, 0, 0, 0, 1][..], body].concat();
    match Message::decode(&Bytes::from(frame)) {
        Ok((Xid(1), Message::Hello(hello))) => hello,
        other => panic!("{body:02x?}: {other:?}"),
    }
}

#[test]
fn a_hello_without_elements_to_be_read_counts_by_its_header() {
    for (what, body) in [
        ("nothing", &b""[..]),
        ("a text", b"Open vSwitch, at your service"),
        ("half a header", &[0, 1]),
        ("an element of length 0", &[0, 1, 0, 0, 0, 0, 0, 0x10]),
        ("an element of length 3", &[0, 1, 0, 3, 0, 0, 0, 0x10]),
        ("an element beyond the message", &[0, 1, 0, 60, 0, 0, 0, 0x10]),
        ("half a word", &[0, 1, 0, 6, 0, 2, 0, 0]),
        ("a word and a half", &[0, 1, 0, 10, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("elements of other kinds", &[0, 2, 0, 8, 0, 0, 0, 2, 0, 3, 0, 4]),
        ("zeros", &[0; 64]),
        ("ones", &[0xff; 64]),
    ] {
        for (version, speaks) in [(1, false), (3, false), (4, true), (5, true), (255, true)] {
            assert_eq!(hello(version, body).speaks_v13(version), speaks, "{what}, version {version}");
        }
    }
}

#[test]
fn a_bitmap_of_a_hello_counts_whatever_stands_around_it() {
    let one = [0, 1, 0, 8, 0, 0, 0, 0x10];
    let other = [0, 1, 0, 8, 0, 0, 0, 0x02];
    let long = [0, 1, 0, 16, 0, 0, 0, 0x10, 0, 0, 0, 7, 0x80, 0, 0, 0];
    let unknown = [0, 9, 0, 5, 1, 0, 0, 0];
    for (what, body, speaks) in [
        ("alone", vec![&one[..]], true),
        ("words for later versions", vec![&long], true),
        ("behind others", vec![&unknown, &[0, 1, 0, 6, 0, 2, 0, 0], &one], true),
        ("before octets that are no element", vec![&one, &[0, 0, 0]], true),
        ("before a text", vec![&other, b"no element"], false),
        ("the first of two", vec![&other, &one], false),
        ("only in its second word", vec![&[0, 1, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0x10]], false),
    ] {
        // Whatever the header says.
        for version in [1, 4, 6] {
            assert_eq!(hello(version, &body.concat()).speaks_v13(version), speaks, "{what}, version {version}");
        }
    }
    let words = hello(4, &long).elements;
    assert_eq!(words, [HelloElement::VersionBitmap(vec![0x10, 7, 0x8000_0000])]);
}
