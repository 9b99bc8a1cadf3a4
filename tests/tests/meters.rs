//! Goal: a bridge that has no room for a tenant's meters costs that tenant its new limit there, and nobody a packet. On real
//! Open vSwitch.

mod network;

use std::io::{Read, Write};
use std::thread::sleep;

use anyhow::{Context, Result, ensure};
use bytes::BytesMut;
use lab::{ContinuousPing, Host, Layout};
use openflow::error::{ErrorCode, MeterModFailed};
use openflow::frame::next_frame;
use openflow::message::Message;
use openflow::meter::{Band, MeterFlags, MeterMod, MeterModCommand};
use openflow::switch::Hello;
use openflow::types::{MeterId, Xid};
use openflow::wire::Nothing;

use network::{MS, Network, green_and_orange, nothing_lost, spec};

/// Gives a bridge meters until its datapath has no room for more: how many they were.
fn fill_with_meters(host: &Host, bridge: &str) -> Result<u32> {
    let mut stream = host.openflow(bridge)?;
    stream.set_read_timeout(Some(MS(20_000)))?;
    let (mut out, mut received) = (BytesMut::new(), BytesMut::new());
    Message::Hello(Hello::with_versions(None)).encode(Xid(0), &mut out)?;
    for batch in 0.. {
        for meter in batch * 1000 + 1..=(batch + 1) * 1000 {
            let bands = vec![Band::Drop { rate: 1000, burst: 100 }];
            let meter =
                MeterMod { command: MeterModCommand::Add, flags: MeterFlags::KBPS, meter: MeterId(meter), bands };
            Message::MeterMod(meter).encode(Xid(1), &mut out)?;
        }
        Message::BarrierRequest(Nothing).encode(Xid(2), &mut out)?;
        stream.write_all(&out.split())?;
        let mut refused = 0;
        'batch: loop {
            while let Some(frame) = next_frame(&mut received)? {
                match Message::decode(&frame)? {
                    (_, Message::Error(error)) => {
                        let full = error.code == ErrorCode::MeterModFailed(MeterModFailed::OutOfMeters);
                        ensure!(full, "{}", error.code);
                        refused += 1;
                    }
                    (_, Message::BarrierReply(_)) => break 'batch,
                    _ => {}
                }
            }
            let mut chunk = [0; 65_536];
            let count = stream.read(&mut chunk)?;
            ensure!(count > 0, "the bridge hung up");
            received.extend_from_slice(&chunk[..count]);
        }
        if refused > 0 {
            return Ok((batch + 1) * 1000 - refused);
        }
    }
    unreachable!("a bridge has room for less than 4 billion meters")
}

/// All bridges of a host share the meters of their datapath; here somebody else's bridge has all that are left.
#[test]
fn a_datapath_without_room_for_meters_costs_a_tenant_its_new_limit_and_nobody_else_anything() -> Result<()> {
    let network = Network::with_policy(&spec(Layout::Shared), &green_and_orange("", ""))?;
    network.meet("green")?;
    network.meet("orange")?;
    let host = network.lab.host(1)?;
    host.vsctl(&["add-br", "other", "--", "set", "bridge", "other", "datapath_type=netdev", "fail_mode=secure"])?;
    let meters = fill_with_meters(host, "other")?;
    ensure!(meters > 1000, "only {meters} meters");
    let limited = green_and_orange("", "rate_limit = \"800 Mbit/s\"");
    let pings = [("green", 1, 2), ("green", 3, 1), ("orange", 1, 3)].map(|(tenant, from, to)| {
        let at = |host: usize| network.lab.container(host, &format!("{tenant}-1"));
        Ok((format!("{tenant} {from} to {to}"), ContinuousPing::start(&at(from)?, at(to)?.ipv4)?))
    });
    let pings = pings.into_iter().collect::<Result<Vec<_>>>()?;
    network.controller.apply_policy(&limited)?;
    network.wait_problem("bridge h1 refused meter")?;
    let problems = network.problems()?;
    let refused = problems.into_iter().find(|text| text.contains("refused")).context("it is still told")?;
    sleep(MS(1500));
    pings.into_iter().try_for_each(|(what, ping)| nothing_lost(&ping.stop()?, &what))?;
    for part in
        ["policy.toml:", "OFPMMFC_OUT_OF_METERS", "tenant green gets along without this bridge", "fewer rate limits"]
    {
        ensure!(refused.contains(part), "no `{part}` in {refused}");
    }
    // Open vSwitch stands still while it removes them.
    host.vsctl(&["del-br", "other"])?;
    network.settle()?;
    ensure!(!network.problems()?.iter().any(|problem| problem.contains("refused")), "{:?}", network.problems()?);
    let limits = network.controller.get("/v1/limits")?.to_string();
    ensure!(limits.contains("800000"), "{limits}");
    Ok(())
}
