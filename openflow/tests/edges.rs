//! Values at the edge of what can be told: none makes the codec panic, and none is taken for another.

use bytes::{Bytes, BytesMut};
use openflow::action::{Action, Conntrack, ConntrackFlags, Nested};
use openflow::error::ErrorCode;
use openflow::message::Message;
use openflow::oxm::FieldId;
use openflow::types::TableId;

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
