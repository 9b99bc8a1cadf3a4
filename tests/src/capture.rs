//! Sending frames as they are, and recording the frames that arrive.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, recvfrom, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::container::Container;
use crate::frame::{Frame, Marker};
use crate::netns::Netns;
use crate::{Host, wait_until};

/// What fits in while the reading thread waits for its turn, storms included.
const BUFFER_BYTES: usize = 64 << 20;
/// How long a stopped capture goes on reading, if frames keep coming.
const LINGER: Duration = Duration::from_millis(200);
/// Frames that are kept whole; more are counted only, so that a storm doesn't fill the memory.
const KEPT: usize = 50_000;

/// The address of an interface in the calling thread's namespace, as packet sockets want it.
fn link_address(interface: &str) -> Result<LinkAddr> {
    let interfaces = getifaddrs().context("listing interfaces failed")?;
    let mut found = interfaces.filter(|i| i.interface_name == interface).filter_map(|i| i.address);
    found
        .find_map(|address| address.as_link_addr().copied())
        .with_context(|| format!("there is no interface {interface}"))
}

fn packet_socket(protocol: Option<SockProtocol>) -> Result<OwnedFd> {
    socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
        .context("opening a packet socket failed; the lab needs root")
}

/// Sends frames from a container exactly as given.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
}

impl Sender {
    /// A sender at a container's interface; gone with the interface when the container moves.
    pub fn new(from: &Container) -> Result<Self> {
        Self::inside(&from.netns, &from.interface)
    }

    /// A sender at an interface of a namespace.
    pub(crate) fn inside(netns: &Netns, interface: &str) -> Result<Self> {
        netns.run(|| {
            let socket = packet_socket(None)?;
            bind(socket.as_raw_fd(), &link_address(interface)?).context("binding a packet socket failed")?;
            Ok(Self { socket })
        })
    }

    /// Sends one frame.
    pub fn send(&self, frame: &Frame) -> Result<()> {
        self.send_bytes(&frame.bytes)
    }

    /// Sends any bytes as a frame.
    pub fn send_bytes(&self, bytes: &[u8]) -> Result<()> {
        send(self.socket.as_raw_fd(), bytes, MsgFlags::empty()).context("sending a frame failed").map(drop)
    }
}

impl Container {
    /// Sends one frame from the container.
    pub fn send(&self, frame: &Frame) -> Result<()> {
        Sender::new(self)?.send(frame)
    }
}

/// Which frames a capture records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those that arrive at the interface.
    Received,
    /// Those that leave by it.
    Sent,
}

/// What was recorded so far.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    /// How many frames in all.
    pub total: u64,
    /// How often each marker was seen.
    pub markers: BTreeMap<Marker, u64>,
    /// The first frames, whole, with the time since the capture began.
    pub frames: Vec<(Duration, Vec<u8>)>,
    /// How many frames the kernel counted at the interface meanwhile; more than `total` means some were missed.
    pub kernel_total: u64,
}

impl Captured {
    /// How many copies of a frame came.
    pub fn copies(&self, frame: &Frame) -> u64 {
        self.markers.get(&frame.marker).copied().unwrap_or(0)
    }

    /// How many kept frames a test holds for.
    pub fn count(&self, holds: impl Fn(&[u8]) -> bool) -> usize {
        self.frames.iter().filter(|(_, bytes)| holds(bytes)).count()
    }
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<u64>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    captured: Mutex<Captured>,
}

impl Shared {
    fn captured(&self) -> MutexGuard<'_, Captured> {
        self.captured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Capture {
    /// Records what a container receives. It sees every interface the container has or gets, so it goes on when the
    /// container moves. The kernel takes the outermost VLAN tag off before: see [`Capture::at_port`] for tags.
    pub fn start(container: &Container) -> Result<Self> {
        Self::open(&container.netns, &container.interface, false, Direction::Received)
    }

    /// Records at a port of a host. With [`Direction::Sent`] it sees what OVS puts out of the port, tags and all;
    /// with [`Direction::Received`] what comes from the far end of the cable, the outermost tag taken off.
    pub fn at_port(host: &Host, port: &str, direction: Direction) -> Result<Self> {
        Self::inside(&host.netns, port, direction)
    }

    /// Records at an interface of a namespace.
    pub(crate) fn inside(netns: &Netns, interface: &str, direction: Direction) -> Result<Self> {
        Self::open(netns, interface, true, direction)
    }

    fn open(netns: &Netns, interface: &str, alone: bool, direction: Direction) -> Result<Self> {
        let interface = interface.to_owned();
        let shared = Arc::<Shared>::default();
        let (ready, is_ready) = mpsc::channel();
        let sharing = Arc::clone(&shared);
        let thread = netns.spawn("capture", move || {
            let socket = packet_socket(Some(SockProtocol::EthAll))?;
            if alone {
                bind(socket.as_raw_fd(), &link_address(&interface)?).context("binding a packet socket failed")?;
            }
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).context("enlarging a receive buffer failed")?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 10_000))
                .context("setting a timeout failed")?;
            let before = kernel_count(&interface, direction).unwrap_or(0);
            let _ = ready.send(());
            record(&socket, direction, &sharing)?;
            Ok(kernel_count(&interface, direction).unwrap_or(0).saturating_sub(before))
        })?;
        let mut capture = Self { shared, thread: Some(thread) };
        // The thread drops its sender without a word if it fails; its error says why.
        if is_ready.recv().is_err() {
            capture.finish()?;
        }
        Ok(capture)
    }

    /// What was recorded so far.
    pub fn so_far(&self) -> Captured {
        self.shared.captured().clone()
    }

    /// How many copies of a frame came so far.
    pub fn copies(&self, frame: &Frame) -> u64 {
        self.shared.captured().copies(frame)
    }

    /// Waits until a frame has come.
    pub fn wait_for(&self, frame: &Frame, timeout: Duration) -> Result<Duration> {
        wait_until("a test frame at its receiver", timeout, || Ok(self.copies(frame) > 0))
    }

    /// Stops and gives what was recorded.
    pub fn stop(mut self) -> Result<Captured> {
        self.finish()?;
        Ok(std::mem::take(&mut *self.shared.captured()))
    }

    fn finish(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let counted = thread.join().map_err(|_| anyhow!("the capturing thread panicked"))??;
            self.shared.captured().kernel_total = counted;
        }
        Ok(())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// `PACKET_OUTGOING` in the kernel's if_packet.h.
const OUTGOING: u8 = 4;

fn record(socket: &OwnedFd, direction: Direction, shared: &Shared) -> Result<()> {
    let start = Instant::now();
    let mut buffer = vec![0; 1 << 16];
    let mut stopped: Option<Instant> = None;
    loop {
        if shared.stop.load(Ordering::Relaxed) {
            // What arrived before is read; what goes on arriving is not waited for.
            let since = *stopped.get_or_insert_with(Instant::now);
            if since.elapsed() > LINGER {
                return Ok(());
            }
        }
        let (count, from) = match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok(received) => received,
            // Only an empty buffer ends a capture: what had arrived when it was stopped is counted.
            Err(Errno::EAGAIN) if shared.stop.load(Ordering::Relaxed) => return Ok(()),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => continue,
            Err(error) => return Err(error).context("receiving frames failed"),
        };
        let wanted = from.is_some_and(|from| {
            // Loopback has the hardware type 772; it is nobody's traffic.
            from.family() == Some(AddressFamily::Packet)
                && from.hatype() == 1
                && (from.pkttype() == OUTGOING) == (direction == Direction::Sent)
        });
        if !wanted {
            continue;
        }
        let bytes = &buffer[..count];
        let mut captured = shared.captured();
        captured.total += 1;
        if let Some(marker) = Marker::find(bytes) {
            *captured.markers.entry(marker).or_default() += 1;
        }
        if captured.frames.len() < KEPT {
            captured.frames.push((start.elapsed(), bytes.to_vec()));
        }
    }
}

/// Sends frames back by the interface that they came in by, until it is dropped.
#[derive(Debug)]
pub struct Reflector {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Reflector {
    pub(crate) fn start(netns: &Netns, interface: &str) -> Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let (ended, interface) = (Arc::clone(&stop), interface.to_owned());
        let socket = netns.run(|| {
            let socket = packet_socket(Some(SockProtocol::EthAll))?;
            bind(socket.as_raw_fd(), &link_address(&interface)?).context("binding a packet socket failed")?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 10_000))
                .context("setting a timeout failed")?;
            Ok(socket)
        })?;
        let thread = netns.spawn("reflector", move || {
            let mut buffer = vec![0; 1 << 16];
            while !ended.load(Ordering::Relaxed) {
                let Ok((count, from)) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) else { continue };
                if from.is_some_and(|from| from.pkttype() != OUTGOING) {
                    send(socket.as_raw_fd(), &buffer[..count], MsgFlags::empty()).context("sending a frame failed")?;
                }
            }
            Ok(())
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// The kernel's count of frames at an interface of the calling thread's namespace.
fn kernel_count(interface: &str, direction: Direction) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").ok()?;
    let line = table.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))?;
    let column = if direction == Direction::Received { 1 } else { 9 };
    line.split_whitespace().nth(column)?.parse().ok()
}
