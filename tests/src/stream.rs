//! A stream of numbered UDP datagrams from one container to others, which tells exactly what came, how often, and what didn't.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use crate::container::Container;

/// How long receivers wait for what is under way when the sender has stopped.
const LINGER: Duration = Duration::from_secs(1);
/// What fits in while a receiving thread waits for its turn.
const BUFFER_BYTES: usize = 8 << 20;
/// Octets in a datagram.
const LENGTH: usize = 200;

/// A stream that runs until it is stopped.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<Result<u64>>>,
    receivers: Vec<JoinHandle<Result<BTreeMap<u64, u64>>>>,
}

/// What one receiver got of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamReport {
    /// Datagrams that were sent.
    pub sent: u64,
    /// How many of them came.
    pub received: u64,
    /// Copies beyond the first.
    pub duplicates: u64,
    /// Runs of them that never came: where each began, and how many.
    pub gaps: Vec<(u64, u64)>,
}

impl StreamReport {
    /// How many never came.
    pub fn lost(&self) -> u64 {
        self.sent - self.received
    }
}

impl Stream {
    /// To one container.
    pub fn unicast(from: &Container, to: &Container, interval: Duration) -> Result<Self> {
        Self::start(from, to.ipv4, std::slice::from_ref(to), interval)
    }

    /// To everybody in the containers' network, of whom these are watched.
    pub fn broadcast(from: &Container, to: &[Container], interval: Duration) -> Result<Self> {
        let [a, b, c, _] = from.ipv4.octets();
        Self::start(from, Ipv4Addr::new(a, b, c, 255), to, interval)
    }

    fn start(from: &Container, address: Ipv4Addr, to: &[Container], interval: Duration) -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(20_000);
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        let stop = Arc::<AtomicBool>::default();
        let mut stream = Self { stop: Arc::clone(&stop), sender: None, receivers: Vec::new() };
        for container in to {
            let socket = container.netns.run(|| {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).context("binding a UDP socket failed")?;
                setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES)
                    .context("enlarging a receive buffer failed")?;
                socket.set_read_timeout(Some(Duration::from_millis(10))).context("setting a timeout failed")?;
                Ok(socket)
            })?;
            let stop = Arc::clone(&stop);
            stream.receivers.push(container.netns.spawn("stream-receiver", move || receive(&socket, &stop))?);
        }
        stream.sender = Some(from.netns.spawn("stream-sender", move || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("binding a UDP socket failed")?;
            socket.set_broadcast(true).context("asking for broadcasts failed")?;
            send(&socket, (address, port), interval, &stop)
        })?);
        Ok(stream)
    }

    /// Stops all of these at once, and tells what each receiver got, in the order in which they were given.
    pub fn stop_all(streams: Vec<Self>) -> Result<Vec<StreamReport>> {
        streams.iter().for_each(|stream| stream.stop.store(true, Ordering::Relaxed));
        Ok(streams.into_iter().map(Self::stop).collect::<Result<Vec<_>>>()?.concat())
    }

    /// Stops, and tells what each receiver got.
    pub fn stop(mut self) -> Result<Vec<StreamReport>> {
        self.stop.store(true, Ordering::Relaxed);
        let sender = self.sender.take().context("the stream was stopped before")?;
        let sent = sender.join().map_err(|_| anyhow!("the sending thread panicked"))??;
        ensure!(sent > 0, "nothing was sent");
        let receivers = std::mem::take(&mut self.receivers).into_iter();
        receivers
            .map(|receiver| Ok(report(sent, &receiver.join().map_err(|_| anyhow!("a receiving thread panicked"))??)))
            .collect()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn send(socket: &UdpSocket, to: (Ipv4Addr, u16), interval: Duration, stop: &AtomicBool) -> Result<u64> {
    let mut datagram = [0; LENGTH];
    let (mut number, mut next) = (0_u64, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now < next {
            thread::sleep((next - now).min(Duration::from_millis(1)));
            continue;
        }
        // A pause of this machine isn't made up for by a burst.
        next = if now > next + interval * 4 { now + interval } else { next + interval };
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        socket.send_to(&datagram, to).context("sending a datagram failed")?;
        number += 1;
    }
    Ok(number)
}

/// How often each number came.
fn receive(socket: &UdpSocket, stop: &AtomicBool) -> Result<BTreeMap<u64, u64>> {
    let mut seen = BTreeMap::new();
    let mut buffer = [0; LENGTH + 1];
    let mut end = None;
    loop {
        if stop.load(Ordering::Relaxed) && Instant::now() > *end.get_or_insert_with(|| Instant::now() + LINGER) {
            return Ok(seen);
        }
        match socket.recv(&mut buffer) {
            Ok(LENGTH) => {
                let mut number = [0; 8];
                number.copy_from_slice(&buffer[..8]);
                *seen.entry(u64::from_be_bytes(number)).or_default() += 1;
            }
            Ok(length) => return Err(anyhow!("a datagram of {length} octets came, which nobody sent")),
            // Linux ends a wait that has a timeout also when the process was stopped for a while (signal(7)).
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error).context("receiving a datagram failed"),
        }
    }
}

fn report(sent: u64, seen: &BTreeMap<u64, u64>) -> StreamReport {
    let mut report = StreamReport { sent, received: seen.len() as u64, ..StreamReport::default() };
    report.duplicates = seen.values().map(|copies| copies - 1).sum();
    let ends = seen.keys().copied().chain([sent]);
    let mut expected = 0;
    for number in ends {
        if number > expected {
            report.gaps.push((expected, number - expected));
        }
        expected = number + 1;
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_and_what_came_twice_is_counted() {
        let report = |numbers: &[u64]| {
            let mut seen = BTreeMap::new();
            numbers.iter().for_each(|number| *seen.entry(*number).or_default() += 1);
            let StreamReport { received, duplicates, gaps, .. } = report(6, &seen);
            (received, duplicates, gaps)
        };
        assert_eq!(report(&[0, 1, 2, 3, 4, 5]), (6, 0, vec![]));
        assert_eq!(report(&[1, 1, 2, 1]), (2, 2, vec![(0, 1), (3, 3)]));
        assert_eq!(report(&[0, 3, 5]), (3, 0, vec![(1, 2), (4, 1)]));
        assert_eq!(report(&[]), (0, 0, vec![(0, 6)]));
    }
}
