//! Which links carry traffic, by the ports' own counters, and how long an echo stream stopped.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use lab::{Container, ContinuousPing, Lab, LinkEnd, PingReport};

use crate::interrupt::Interrupt;

/// OVS adds what went through its fast path to a port's counters up to so much later.
const COUNTED: Duration = Duration::from_millis(1600);

/// One direction of a link.
#[derive(Clone, Debug)]
struct Lane<'a> {
    from: &'a LinkEnd,
    to: &'a LinkEnd,
}

/// Both directions of each link that carries a tenant's traffic.
fn lanes<'a>(lab: &'a Lab, tenant: &str) -> Result<Vec<Lane<'a>>> {
    let bridge = lab.spec().bridge_of(tenant)?;
    let links = lab.links().iter().filter(|link| link.a.bridge == bridge);
    Ok(links.flat_map(|link| [Lane { from: &link.a, to: &link.b }, Lane { from: &link.b, to: &link.a }]).collect())
}

/// What arrived over each lane so far. What was sent would be the wrong thing to ask for: tunnel ports of OVS's
/// userspace datapath count each packet twice as they send it.
fn arrived(lab: &Lab, lanes: &[Lane<'_>]) -> Result<Vec<u64>> {
    let counters = |lane: &Lane<'_>| lab.host(lane.to.host)?.counters(&lane.to.bridge, &lane.to.port);
    lanes.iter().map(|lane| Ok(counters(lane)?.received)).collect()
}

/// How much each lane has carried in between.
fn between(before: &[u64], after: &[u64]) -> Vec<u64> {
    before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before)).collect()
}

/// Where a container's traffic leaves its host.
#[derive(Clone, Debug)]
pub(crate) struct WayOut {
    /// The port it takes.
    pub(crate) end: LinkEnd,
    /// The host at the far end.
    pub(crate) peer: usize,
    /// Packets that came to the far end while the echo requests were sent.
    pub(crate) packets: u64,
    /// Echo requests sent.
    pub(crate) requests: u64,
}

/// Sends echo requests for a moment and finds the port of the host that they leave by. While bridges still learn, they
/// flood, and traffic takes several ways at once: then it is tried again.
pub(crate) fn way_out(lab: &Lab, interrupt: &Interrupt, from: &Container, to: &Container) -> Result<WayOut> {
    const TRIES: usize = 20;
    let tenant = from.tenant.as_deref().context("the container belongs to no tenant")?;
    let lanes: Vec<_> = lanes(lab, tenant)?.into_iter().filter(|lane| lane.from.host == from.host).collect();
    let mut seen = String::new();
    for _ in 0..TRIES {
        interrupt.sleep(COUNTED / 2)?;
        let before = arrived(lab, &lanes)?;
        // Long enough that probes, 25 a second at each port, are few beside it.
        let ping = ContinuousPing::start(from, to.ipv4)?;
        interrupt.sleep(Duration::from_millis(1500))?;
        let requests = ping.stop()?.sent;
        interrupt.sleep(COUNTED / 2)?;
        let carried = between(&before, &arrived(lab, &lanes)?);
        let busy: Vec<_> = lanes.iter().zip(&carried).filter(|(_, packets)| **packets >= requests / 2).collect();
        match busy[..] {
            [(lane, packets)] if packets * 10 >= requests * 9 => {
                return Ok(WayOut { end: lane.from.clone(), peer: lane.to.host, packets: *packets, requests });
            }
            _ => {
                let each = lanes.iter().zip(&carried).map(|(lane, packets)| format!("{} {packets}", lane.from.port));
                seen = format!("{requests} requests, packets by port: {}", each.collect::<Vec<_>>().join(", "));
            }
        }
    }
    bail!("what h{} sends to h{} takes no single way: {seen}", from.host, to.host)
}

/// How links are used when all containers of a tenant talk to all others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Links that carried next to nothing, in percent of all.
    pub(crate) idle_percent: f64,
    /// How many links a packet passes, on average.
    pub(crate) mean_path: f64,
}

/// Lets all containers of a tenant ping all others for a second and reads the links' counters; what the links carry
/// anyway (probes, BPDUs, BFD) is measured before, for as long, and taken off.
pub(crate) fn usage(lab: &Lab, interrupt: &Interrupt, tenant: &str) -> Result<Usage> {
    const SPAN: Duration = Duration::from_secs(1);
    let lanes = lanes(lab, tenant)?;
    let containers = lab.tenant(tenant);
    let before = arrived(lab, &lanes)?;
    // As long as the pings take: they linger for their last answers.
    interrupt.sleep(SPAN + Duration::from_millis(300) + COUNTED)?;
    let quiet = arrived(lab, &lanes)?;
    let mut pings = Vec::new();
    for from in &containers {
        for to in containers.iter().filter(|to| to.netns != from.netns) {
            // Every 10 ms, so that even many pairs don't come near what the datapath can do.
            pings.push(ContinuousPing::every(Duration::from_millis(10), from, to.ipv4)?);
        }
    }
    interrupt.sleep(SPAN)?;
    // All at once, so that each pair counts the same.
    let reports = thread::scope(|scope| {
        let stopping: Vec<_> = pings.into_iter().map(|ping| scope.spawn(|| ping.stop())).collect();
        let joined = stopping.into_iter().map(|t| t.join().map_err(|_| anyhow!("a thread panicked"))?);
        joined.collect::<Result<Vec<_>>>()
    })?;
    interrupt.sleep(COUNTED)?;
    let last = arrived(lab, &lanes)?;
    // A request that is answered passes the links there and back.
    let packets: u64 = reports.iter().map(|report| report.sent + report.received).sum();
    let (noise, all) = (between(&before, &quiet), between(&quiet, &last));
    let carried: Vec<u64> = all.iter().zip(&noise).map(|(all, noise)| all.saturating_sub(*noise)).collect();
    let total: u64 = carried.iter().sum();
    // The two lanes of a link stand beside each other. A quarter of one pair's packets is noise still: BFD isn't even.
    let least = packets / reports.len().max(1) as u64 / 4;
    let idle = carried.chunks(2).filter(|link| link.iter().sum::<u64>() < least).count();
    Ok(Usage {
        idle_percent: 100.0 * idle as f64 / carried.chunks(2).len().max(1) as f64,
        mean_path: total as f64 / packets.max(1) as f64,
    })
}

/// How long a stream went unanswered, all its outages together.
pub(crate) fn stopped_for(report: &PingReport) -> Duration {
    report.outages.iter().map(|(_, length)| *length).sum()
}

/// From a moment on, until the controller's log tells that a port or link is down.
pub(crate) fn noticed_after(log: &str, moment: SystemTime) -> Option<Duration> {
    let moment = moment.duration_since(UNIX_EPOCH).ok()?.as_micros() % DAY_MICROS;
    let down = log.lines().filter(|line| line.ends_with(" is down") || line.ends_with(" is gone"));
    let since = down.filter_map(|line| Some((time_of_day(line)? + DAY_MICROS - moment) % DAY_MICROS));
    // What was before lies nearly a day ahead.
    let micros = since.filter(|micros| *micros < DAY_MICROS / 2).min()?;
    u64::try_from(micros).ok().map(Duration::from_micros)
}

const DAY_MICROS: u128 = 86_400_000_000;

/// The time that a line of a log begins with, `2025-01-31T12:00:00.000000Z`, in microseconds of its day.
fn time_of_day(line: &str) -> Option<u128> {
    let time = line.split_once('T')?.1.split_once('Z')?.0;
    let (seconds, micros) = time.split_once('.')?;
    let parts: Vec<u128> = seconds.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hours, minutes, seconds] = parts[..] else { return None };
    let micros = micros.get(..6)?.parse::<u128>().ok()?;
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_when_something_went_down() {
        let log = "2025-01-31T23:59:59.500000Z  INFO port h1/tun2 is down\n\
                   2025-01-31T23:59:59.999000Z  INFO port h1/tun2 is up\n\
                   2025-02-01T00:00:00.250000Z  WARN link h1/tun2 – h2/tun1 (tunnel) is down\n\
                   2025-02-01T00:00:00.750000Z  INFO port h1/tun2 is gone\nrubbish is down\n";
        let day = Duration::from_micros(DAY_MICROS as u64);
        let at = |before_midnight| UNIX_EPOCH + day - Duration::from_millis(before_midnight);
        assert_eq!(noticed_after(log, at(600)), Some(Duration::from_millis(100)));
        assert_eq!(noticed_after(log, at(400)), Some(Duration::from_millis(650)));
        assert_eq!(noticed_after(log, UNIX_EPOCH + day + Duration::from_secs(1)), None);
    }
}
