//! The same messages with the crate rovs-openflow, as far as it knows them.

use anyhow::{Result, ensure};
use bytes::{Bytes, BytesMut};
use rovs_openflow::{
    ActionList, Flow, FlowFlags, FlowStatsEntry, Header, InstructionList, Match, Message, MessageType, PacketIn,
    Version,
};

/// What a case does in one direction, once.
pub(crate) type Work = Box<dyn FnMut()>;

fn body(frame: &Bytes) -> Bytes {
    let mut octets = frame.clone();
    Header::decode(&mut octets).expect("a header");
    octets
}

/// The entries of an answer with their instructions, which rovs-openflow decodes apart from them.
fn flow_stats(frame: &Bytes) -> Result<Vec<(InstructionList, FlowStatsEntry)>> {
    let octets = body(frame);
    let (mut left, mut entries) = (&octets[8..], Vec::new());
    while !left.is_empty() {
        let (entry, length) = FlowStatsEntry::decode(left)?;
        entries.push((entry.decoded_instructions()?, entry));
        left = &left[length..];
    }
    Ok(entries)
}

/// Decodes the messages of a case; `None` if it has no decoder for them.
pub(crate) fn decoder(case: &str, frames: &[Bytes]) -> Result<Option<Work>> {
    let frames = frames.to_vec();
    Ok(Some(match case.split(' ').next().unwrap_or_default() {
        "packet-in" => {
            let told = PacketIn::parse(body(&frames[0]))?;
            ensure!(told.in_port() == 3 && told.data.len() == 100, "{told:?}");
            Box::new(move || {
                for frame in &frames {
                    std::hint::black_box(PacketIn::parse(body(frame))).ok();
                }
            })
        }
        "flow-stats" => {
            ensure!(flow_stats(&frames[0])?[0].0.len() == 3);
            Box::new(move || {
                for frame in &frames {
                    std::hint::black_box(flow_stats(frame)).ok();
                }
            })
        }
        "echo" => Box::new(move || {
            for frame in &frames {
                std::hint::black_box(body(frame));
            }
        }),
        _ => return Ok(None),
    }))
}

/// Encodes the messages of a case; `None` if it has no encoder for them.
pub(crate) fn encoder(case: &str, frames: &[Bytes]) -> Result<Option<Work>> {
    let encode: Box<dyn Fn() -> BytesMut> = match case.split(' ').next().unwrap_or_default() {
        "flow-mod" => {
            let flow = flow();
            Box::new(move || flow.to_message(Version::Of13, 7).encode())
        }
        "echo" => Box::new(|| Message::new(Version::Of13, MessageType::EchoRequest, 7, Bytes::new()).encode()),
        _ => return Ok(None),
    };
    // It says the same in another order, and the tunnel id by Nicira's older field, which takes as many octets.
    ensure!(encode().len() == frames[0].len(), "rovs-openflow encodes another {case}");
    Ok(Some(Box::new(move || {
        std::hint::black_box(encode());
    })))
}

/// The case's flow-mod.
fn flow() -> Flow {
    let mut matching = Match::new()
        .in_port(3)
        .eth_dst([2, 0, 0x32, 0, 0, 1])
        .eth_src([2, 0, 0x32, 0, 0, 2])
        .ipv4_src([10, 0, 0, 0].into(), 8)
        .ipv4_dst([10, 1, 2, 0].into(), 24)
        .tcp_dst(443)
        .tunnel_id(100);
    (matching.metadata, matching.metadata_mask) = (Some(0x100_0064), Some(0x13f_ffff));
    let actions = ActionList::new().set_eth_dst([2, 0, 0x32, 0, 0, 9]).group(9).output(4);
    let mut flow = Flow::add().table(4).priority(10).cookie(0xe5 << 56).match_fields(matching).idle_timeout(300);
    flow.flags = FlowFlags { send_flow_rem: true, ..FlowFlags::default() };
    flow.instructions(InstructionList::new().apply_actions(actions))
}
