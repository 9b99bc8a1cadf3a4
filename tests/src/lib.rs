//! The lab: hosts with real Open vSwitch in network namespaces, containers of several tenants, faults, and tools that
//! send, count and time real packets.
//!
//! ```text
//!   controller ── control bridge ──┬── host h1: ovsdb-server, ovs-vswitchd ── br-phy ──┐
//!                                  │            bridges ── containers                  │
//!                                  ├── host h2: …                       ── br-phy ──┤ hub (the underlay)
//!                                  └── host h3: …                       ── br-phy ──┘
//! ```
//!
//! Every box is a namespace of its own. All names carry the lab's id (`esp-<pid>-<n>-…`), so labs of parallel tests
//! don't meet, and what a killed test left behind can be told from what is in use. A [`Lab`] takes everything down
//! again when it is dropped, also when a test panics.
//!
//! Hosts are counted from 1, as in their names.

mod cable;
mod capture;
mod container;
mod controller;
mod fault;
mod frame;
mod function;
mod host;
mod leftovers;
mod link;
mod mininet;
mod netns;
mod ping;
mod process;
mod rate;
mod relay;
mod segment;
mod signals;
mod spec;
mod stream;
mod topology;

pub use cable::SECOND_UPLINK;
pub use capture::{Capture, Captured, Direction, Reflector, Sender};
pub use container::Container;
pub use controller::{Controller, ControllerSpec, Response};
pub use frame::{BROADCAST, Frame, Mac, Marker};
pub use function::Function;
pub use host::{Host, PortCounters};
pub use leftovers::clean;
pub use link::{Link, LinkEnd};
pub use mininet::Mininet;
pub use netns::Netns;
pub use ping::{ContinuousPing, Matrix, PingReport};
pub use rate::Throughput;
pub use relay::Relay;
pub use signals::StopSignals;
pub use spec::{Bridge, Carrier, Layout, Shape, Spec, Switching, TenantSpec};
pub use stream::{Stream, StreamReport};
pub use topology::Lab;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Waits until a condition holds, asking every few milliseconds; an error names what was waited for.
pub fn wait_until(what: &str, timeout: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let start = Instant::now();
    loop {
        let last = holds();
        if matches!(last, Ok(true)) {
            return Ok(start.elapsed());
        }
        if start.elapsed() > timeout {
            match last {
                Err(error) => return Err(error.context(format!("waited {timeout:?} in vain: {what}"))),
                Ok(_) => bail!("waited {timeout:?} in vain: {what}"),
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
