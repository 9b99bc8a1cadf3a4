//! Echo requests from inside containers: reachability, a full matrix, and a continuous stream that times outages.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, recv, sendto, setsockopt,
    socket, sockopt,
};

use crate::container::Container;
use crate::topology::Lab;

const RESEND: Duration = Duration::from_millis(200);

/// An ICMP socket that sends echo requests with its own identifier and sees only the replies to them.
struct Echo {
    socket: OwnedFd,
    v6: bool,
    identifier: u16,
}

impl Echo {
    /// In the calling thread's namespace.
    fn open(v6: bool) -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let (family, protocol) = match v6 {
            false => (AddressFamily::Inet, SockProtocol::Icmp),
            true => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol)
            .context("opening a raw ICMP socket failed; the lab needs root")?;
        setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20)).context("enlarging a receive buffer failed")?;
        Ok(Self { socket, v6, identifier: NEXT.fetch_add(1, Ordering::Relaxed) })
    }

    /// Sends a request. A network that is down or congested is what tests are about, so a failure counts as sent.
    fn send(&self, to: IpAddr, sequence: u64) {
        let mut packet = [0_u8; 16];
        packet[0] = if self.v6 { 128 } else { 8 };
        packet[4..6].copy_from_slice(&self.identifier.to_be_bytes());
        packet[6..8].copy_from_slice(&sequence.to_be_bytes()[6..]);
        packet[8..].copy_from_slice(&sequence.to_be_bytes());
        let fd = self.socket.as_raw_fd();
        // The kernel fills in ICMPv6 checksums only.
        let sent = match to {
            IpAddr::V4(ip) => {
                let sum = checksum(&packet);
                packet[2..4].copy_from_slice(&sum.to_be_bytes());
                sendto(fd, &packet, &SockaddrIn::from(SocketAddrV4::new(ip, 0)), MsgFlags::empty())
            }
            IpAddr::V6(ip) => {
                sendto(fd, &packet, &SockaddrIn6::from(SocketAddrV6::new(ip, 0, 0, 0)), MsgFlags::empty())
            }
        };
        let _ = sent;
    }

    /// The sequence number of the next reply that is waiting, if any.
    fn reply(&self) -> Result<Option<u64>> {
        let mut buffer = [0; 2048];
        loop {
            let count = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(count) => count,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR | Errno::ENETDOWN | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => continue,
                Err(error) => return Err(error).context("receiving echo replies failed"),
            };
            // Raw IPv4 sockets deliver the IP header too.
            let header = if self.v6 { 0 } else { usize::from(buffer[0] & 15) * 4 };
            let Some(packet) = buffer[..count].get(header..) else { continue };
            let reply = if self.v6 { 129 } else { 0 };
            if packet.len() >= 16 && packet[0] == reply && packet[4..6] == self.identifier.to_be_bytes() {
                let mut sequence = [0; 8];
                sequence.copy_from_slice(&packet[8..16]);
                return Ok(Some(u64::from_be_bytes(sequence)));
            }
        }
    }
}

fn checksum(packet: &[u8]) -> u16 {
    let mut sum: u32 =
        packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// Which of the targets answer within the time; asks again every 200 ms.
fn reachable(from: &Container, targets: &[IpAddr], timeout: Duration) -> Result<Vec<bool>> {
    from.netns.run(|| {
        let echoes = [Echo::open(false)?, Echo::open(true)?];
        let mut answered = vec![false; targets.len()];
        let start = Instant::now();
        let mut next = start;
        while answered.contains(&false) && start.elapsed() < timeout {
            if Instant::now() >= next {
                next += RESEND;
                for (index, target) in targets.iter().enumerate().filter(|(index, _)| !answered[*index]) {
                    echoes[usize::from(target.is_ipv6())].send(*target, index as u64);
                }
            }
            for echo in &echoes {
                while let Some(index) = echo.reply()? {
                    if let Some(answer) = usize::try_from(index).ok().and_then(|index| answered.get_mut(index)) {
                        *answer = true;
                    }
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(answered)
    })
}

/// Who reaches whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matrix {
    /// Pairs that got an answer: `h1/green-1 → 10.0.0.2`.
    pub answered: Vec<String>,
    /// Pairs that got none.
    pub silent: Vec<String>,
}

impl Matrix {
    /// Whether every pair got an answer, and there were some.
    pub fn is_full(&self) -> bool {
        self.silent.is_empty() && !self.answered.is_empty()
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} pairs reach each other", self.answered.len(), self.answered.len() + self.silent.len())?;
        for pair in &self.silent {
            write!(f, "\n  silent: {pair}")?;
        }
        Ok(())
    }
}

impl Lab {
    /// Whether an address answers within a second.
    pub fn ping(&self, from: &Container, to: impl Into<IpAddr>) -> Result<bool> {
        self.ping_within(from, to, Duration::from_secs(1))
    }

    /// Whether an address answers within a time.
    pub fn ping_within(&self, from: &Container, to: impl Into<IpAddr>, timeout: Duration) -> Result<bool> {
        Ok(reachable(from, &[to.into()], timeout)? == [true])
    }

    /// All containers of a tenant to all others at once, over IPv4 and IPv6.
    pub fn ping_matrix(&self, tenant: &str, timeout: Duration) -> Result<Matrix> {
        let containers = self.tenant(tenant);
        let mut matrix = Matrix::default();
        let results = thread::scope(|scope| {
            let asking: Vec<_> = containers
                .iter()
                .map(|from| {
                    let others = containers.iter().filter(|to| to.netns != from.netns);
                    let targets: Vec<IpAddr> = others.flat_map(|to| [to.ipv4.into(), to.ipv6.into()]).collect();
                    scope.spawn(move || reachable(from, &targets, timeout).map(|answers| (from, targets, answers)))
                })
                .collect();
            asking
                .into_iter()
                .map(|t| t.join().map_err(|_| anyhow!("a pinging thread panicked"))?)
                .collect::<Result<Vec<_>>>()
        })?;
        for (from, targets, answers) in results {
            for (target, answer) in targets.iter().zip(answers) {
                let pair = format!("h{}/{} → {target}", from.host, from.port);
                if answer { matrix.answered.push(pair) } else { matrix.silent.push(pair) }
            }
        }
        Ok(matrix)
    }
}

/// A stream of echo requests, one every 5 ms, that runs until it is stopped.
#[derive(Debug)]
pub struct ContinuousPing {
    started: SystemTime,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<PingReport>>>,
}

/// What became of a stream of echo requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered.
    pub received: u64,
    /// Answers beyond the first.
    pub duplicates: u64,
    /// The longest time from the first unanswered request to the next answered one (or to the end).
    pub longest_outage: Duration,
    /// All outages: when they began, counted from the start, and how long they were.
    pub outages: Vec<(Duration, Duration)>,
    /// The longest time from a request to its answer.
    pub slowest: Duration,
}

impl ContinuousPing {
    /// The usual interval.
    pub const INTERVAL: Duration = Duration::from_millis(5);
    /// How long answers are waited for after the last request.
    const LINGER: Duration = Duration::from_millis(300);

    /// Starts pinging an address from a container, every 5 ms.
    pub fn start(from: &Container, to: impl Into<IpAddr>) -> Result<Self> {
        Self::every(Self::INTERVAL, from, to)
    }

    /// The same with another interval.
    pub fn every(interval: Duration, from: &Container, to: impl Into<IpAddr>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, to) = (Arc::clone(&stop), to.into());
        let (started, start) = (SystemTime::now(), Instant::now());
        let thread = from.netns.spawn("continuous-ping", move || stream(interval, to, start, &stopped))?;
        Ok(Self { started, stop, thread: Some(thread) })
    }

    /// When it was started, by the clock that logs go by.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// Stops and reports.
    pub fn stop(mut self) -> Result<PingReport> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the ping was stopped before")?;
        thread.join().map_err(|_| anyhow!("the pinging thread panicked"))?
    }
}

impl Drop for ContinuousPing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn stream(interval: Duration, to: IpAddr, start: Instant, stop: &AtomicBool) -> Result<PingReport> {
    let echo = Echo::open(to.is_ipv6())?;
    let mut sent: Vec<Duration> = Vec::new();
    let mut answered: BTreeMap<u64, Duration> = BTreeMap::new();
    let mut report = PingReport::default();
    let mut next = start;
    let mut end: Option<Instant> = None;
    loop {
        let now = Instant::now();
        if end.is_some_and(|end| now >= end) {
            break;
        }
        if end.is_none() && stop.load(Ordering::Relaxed) {
            end = Some(now + ContinuousPing::LINGER);
        }
        if end.is_none() && now >= next {
            // A pause of this machine isn't made up for by a burst.
            next = if now > next + interval * 4 { now + interval } else { next + interval };
            sent.push(start.elapsed());
            echo.send(to, sent.len() as u64 - 1);
        }
        while let Some(sequence) = echo.reply()? {
            let at = start.elapsed();
            let Some(asked) = usize::try_from(sequence).ok().and_then(|index| sent.get(index)) else { continue };
            report.slowest = report.slowest.max(at.saturating_sub(*asked));
            if answered.insert(sequence, at).is_some() {
                report.duplicates += 1;
            }
        }
        thread::sleep(Duration::from_micros(500));
    }
    report.sent = sent.len() as u64;
    report.received = answered.len() as u64;
    report.outages = outages(&sent, |sequence| answered.contains_key(&sequence));
    report.longest_outage = report.outages.iter().map(|(_, length)| *length).max().unwrap_or_default();
    Ok(report)
}

/// Runs of unanswered requests: when each began, and how long until the next answered request was sent.
fn outages(sent: &[Duration], answered: impl Fn(u64) -> bool) -> Vec<(Duration, Duration)> {
    let mut outages = Vec::new();
    let mut began = None;
    for (sequence, at) in (0..).zip(sent) {
        match (answered(sequence), began) {
            (false, None) => began = Some(*at),
            (true, Some(first)) => {
                outages.push((first, *at - first));
                began = None;
            }
            _ => {}
        }
    }
    if let (Some(first), Some(last)) = (began, sent.last()) {
        outages.push((first, *last - first));
    }
    outages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_runs_from_the_first_unanswered_to_the_next_answered() {
        let sent: Vec<_> = (0..10).map(|n| Duration::from_millis(n * 5)).collect();
        let ms = Duration::from_millis;
        let lost = |lost: &'static [u64]| outages(&sent, move |sequence| !lost.contains(&sequence));
        assert_eq!(lost(&[]), []);
        assert_eq!(lost(&[2, 3, 6]), [(ms(10), ms(10)), (ms(30), ms(5))]);
        assert_eq!(lost(&[8, 9]), [(ms(40), ms(5))]);
    }
}
