//! Who hears whom: pings, copies of broadcasts, and that nothing crosses from tenant to tenant.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use lab::{Capture, Captured, Container, Frame, Lab, Sender};

use super::Stage;
use crate::interrupt::Interrupt;

const PATIENCE: Duration = Duration::from_secs(5);
/// How long to listen on after the last frame, for copies that come late or go round.
const ECHO: Duration = Duration::from_millis(600);
/// Frames of each kind that each container sends.
const FRAMES: usize = 20;

/// Everybody pings everybody in each tenant.
pub(super) fn matrix(stage: &mut Stage<'_>) -> Result<()> {
    let mut blocks = Vec::new();
    let mut results = Vec::new();
    for tenant in stage.tenants() {
        stage.interrupt.check()?;
        let matrix = stage.lab.ping_matrix(&tenant, PATIENCE)?;
        let containers = stage.lab.tenant(&tenant);
        let head = containers.iter().fold(format!("{tenant:<12}"), |head, to| head + &format!("→ h{:<4}", to.host));
        let mut block = vec![head];
        for from in &containers {
            let cells = containers.iter().map(|to| {
                let silent =
                    |address: String| matrix.silent.contains(&format!("h{}/{} → {address}", from.host, from.port));
                let ok = !silent(to.ipv4.to_string()) && !silent(to.ipv6.to_string());
                let mark = if from.netns == to.netns {
                    "·"
                } else if ok {
                    "✓"
                } else {
                    "✗"
                };
                format!("  {mark:<5}")
            });
            let row = format!("{:<12}", format!("from h{}", from.host));
            block.push(cells.fold(row, |row, cell| row + &cell));
        }
        blocks.push(block);
        let (answered, all) = (matrix.answered.len(), matrix.answered.len() + matrix.silent.len());
        results.push((matrix.is_full(), format!("{tenant}: {answered} of {all} pings answered (IPv4 and IPv6)")));
    }
    stage.screen.columns(&blocks);
    for (holds, text) in results {
        stage.screen.check(holds, text);
    }
    Ok(())
}

/// Captures at all containers while something is sent.
fn watch(lab: &Lab, interrupt: &Interrupt, sends: impl FnOnce() -> Result<()>) -> Result<Vec<(Container, Captured)>> {
    let containers = lab.containers();
    let captures = containers.iter().map(Capture::start).collect::<Result<Vec<_>>>()?;
    sends()?;
    interrupt.sleep(ECHO)?;
    containers.into_iter().zip(captures).map(|(container, capture)| Ok((container, capture.stop()?))).collect()
}

/// Sends frames from a container, slowly enough for the lab's datapath to carry them without loss.
fn send(interrupt: &Interrupt, from: &Container, frames: &[Frame]) -> Result<()> {
    let sender = Sender::new(from)?;
    for frame in frames {
        sender.send(frame)?;
        interrupt.sleep(Duration::from_millis(2))?;
    }
    Ok(())
}

/// A broadcast arrives exactly once at each other container of its tenant.
pub(super) fn broadcasts(stage: &mut Stage<'_>) -> Result<()> {
    for tenant in stage.tenants() {
        let senders = stage.lab.tenant(&tenant);
        let sent: Vec<(&Container, Vec<Frame>)> =
            senders.iter().map(|from| (from, (0..FRAMES).map(|_| Frame::broadcast(from.mac)).collect())).collect();
        let seen = watch(stage.lab, stage.interrupt, || {
            sent.iter().try_for_each(|(from, frames)| send(stage.interrupt, from, frames))
        })?;
        let mut copies: BTreeMap<u64, usize> = BTreeMap::new();
        let mut back = 0;
        for (from, frames) in &sent {
            for (at, captured) in seen.iter().filter(|(at, _)| at.tenant == from.tenant) {
                for frame in frames {
                    match captured.copies(frame) {
                        number if at.netns == from.netns => back += number,
                        number => *copies.entry(number).or_default() += 1,
                    }
                }
            }
        }
        let all: usize = copies.values().sum();
        let once = copies.get(&1).copied().unwrap_or(0);
        let others: Vec<String> = copies
            .iter()
            .filter(|(number, _)| **number != 1)
            .map(|(number, times)| format!("{number} copies {times} times"))
            .collect();
        let others = if others.is_empty() { "none lost or doubled".to_owned() } else { others.join(", ") };
        stage.screen.check(
            all > 0 && once == all && back == 0,
            format!(
                "{tenant}: {} broadcasts to {} others: {once} of {all} came exactly once, {others}, {back} came back",
                sent.len() * FRAMES,
                senders.len().saturating_sub(1),
            ),
        );
    }
    Ok(())
}

/// What one tenant sends at the other.
const KINDS: [&str; 5] = ["broadcasts", "multicasts", "to MACs nobody has", "to MACs both use", "VLAN-tagged"];

/// Frames of a kind from a container.
fn frames(kind: usize, from: &Container, lab: &Lab) -> Vec<Frame> {
    let others: Vec<_> =
        lab.containers().into_iter().filter(|c| c.tenant != from.tenant && c.mac != from.mac).map(|c| c.mac).collect();
    (0..FRAMES)
        .filter_map(|number| match kind {
            0 => Some(Frame::broadcast(from.mac)),
            1 => Some(Frame::multicast(from.mac)),
            2 => Some(Frame::unknown_unicast(from.mac)),
            3 => others.get(number % others.len().max(1)).map(|mac| Frame::new(from.mac, *mac)),
            // Both kinds of tags, with numbers that could be taken for marks between bridges.
            _ => {
                let protocol = if number % 2 == 0 { 0x8100 } else { 0x88a8 };
                let tag = u16::try_from(number + 1).unwrap_or(1);
                Some(Frame::tagged(from.mac, lab::BROADCAST, &[(protocol, tag)]))
            }
        })
        .collect()
}

/// Whether a frame is an IPv4 echo request.
fn is_echo_request(bytes: &[u8]) -> bool {
    bytes.get(12..14) == Some(&[8, 0]) && bytes.get(23) == Some(&1) && bytes.get(34) == Some(&8)
}

/// Each tenant in turn sends all it can; what it sent is looked for at every container of every tenant.
pub(super) fn isolation(stage: &mut Stage<'_>) -> Result<()> {
    // Heard in the tenant itself, and by others.
    let mut heard: Vec<(u64, u64)> = vec![(0, 0); KINDS.len()];
    let mut pings = (0, 0);
    for tenant in stage.tenants() {
        let senders = stage.lab.tenant(&tenant);
        let mut sent: Vec<Vec<Frame>> = vec![Vec::new(); KINDS.len()];
        let seen = watch(stage.lab, stage.interrupt, || {
            for from in &senders {
                for (kind, sent) in sent.iter_mut().enumerate() {
                    let frames = frames(kind, from, stage.lab);
                    send(stage.interrupt, from, &frames)?;
                    sent.extend(frames);
                }
            }
            Ok(())
        })?;
        for (at, captured) in &seen {
            let own = at.tenant.as_deref() == Some(tenant.as_str());
            for (heard, sent) in heard.iter_mut().zip(&sent) {
                let copies: u64 = sent.iter().map(|frame| captured.copies(frame)).sum();
                *(if own { &mut heard.0 } else { &mut heard.1 }) += copies;
            }
        }
        // Only this tenant pings now, so an echo request at a container of another one is foreign.
        let seen = watch(stage.lab, stage.interrupt, || stage.lab.ping_matrix(&tenant, PATIENCE).map(drop))?;
        for (at, captured) in &seen {
            let own = at.tenant.as_deref() == Some(tenant.as_str());
            *(if own { &mut pings.0 } else { &mut pings.1 }) += captured.count(is_echo_request) as u64;
        }
    }
    stage.screen.aside(format!("{:<24}{:>16}{:>20}", "frames sent", "heard by its own", "heard by the other"));
    for (kind, (own, foreign)) in KINDS.iter().zip(&heard).chain([(&"pings", &pings)]) {
        stage.screen.say(format!("{kind:<24}{own:>16}{foreign:>20}"));
    }
    let foreign: u64 = heard.iter().map(|(_, foreign)| foreign).sum::<u64>() + pings.1;
    let own: u64 = heard.iter().map(|(own, _)| own).sum::<u64>() + pings.0;
    // A zero means nothing unless the same frames were heard where they belong.
    let meaningful = heard.iter().chain([&pings]).all(|(own, _)| *own > 0);
    stage.screen.check(
        foreign == 0,
        format!(
            "{foreign} foreign frames, {own} frames within the tenants, at {} containers",
            stage.lab.containers().len()
        ),
    );
    if !meaningful {
        stage.screen.check(false, "some kind of frame was heard by nobody, so that its 0 means nothing");
    }
    Ok(())
}
