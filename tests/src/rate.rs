//! Rates: what gets through between two containers, measured by iperf3.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::container::Container;
use crate::netns::Netns;
use crate::process::Daemon;
use crate::topology::Lab;
use crate::wait_until;

/// What a receiver got.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Throughput {
    /// The rate at the receiver, in Mbit/s.
    pub mbit: f64,
    /// How many percent of UDP's packets were lost.
    pub lost_percent: f64,
    /// How many segments of TCP were sent again.
    pub retransmits: u64,
}

impl Throughput {
    /// A rate of UDP in Mbit/s of frames, as meters count: 1,200 octets of payload come with 42 of headers.
    pub fn of_frames(&self) -> f64 {
        self.mbit * 1242.0 / 1200.0
    }
}

impl Lab {
    /// Sends UDP at a rate for some seconds. The userspace datapath carries 100 Mbit/s without loss.
    pub fn udp(&self, from: &Container, to: &Container, mbit: u32, seconds: u32) -> Result<Throughput> {
        self.iperf(from, to, &["-u", "-l", "1200", "-b", &format!("{mbit}M")], seconds)
    }

    /// Sends TCP as fast as it goes for some seconds.
    pub fn tcp(&self, from: &Container, to: &Container, seconds: u32) -> Result<Throughput> {
        self.iperf(from, to, &[], seconds)
    }

    /// Sends TCP at a rate for some seconds, in small pieces.
    pub fn tcp_at(&self, from: &Container, to: &Container, mbit: u32, seconds: u32) -> Result<Throughput> {
        self.iperf(from, to, &["-l", "1200", "-b", &format!("{mbit}M")], seconds)
    }

    fn iperf(&self, from: &Container, to: &Container, args: &[&str], seconds: u32) -> Result<Throughput> {
        let mut server = Command::new("iperf3");
        server.args(["-s", "-1"]);
        let _server = to.netns.run(|| Daemon::spawn(&self.dir, &self.dir.join("iperf3.log"), &mut server))?;
        listening(&to.netns)?;
        let (address, seconds) = (to.ipv4.to_string(), seconds.to_string());
        let report = from.netns.run(|| {
            let mut client = Command::new("iperf3");
            client.args(["-c", &address, "-t", &seconds, "-J", "--connect-timeout", "5000"]).args(args);
            let output =
                client.stdin(Stdio::null()).output().context("iperf3 could not be started; is it installed?")?;
            serde_json::from_slice::<Value>(&output.stdout).context("iperf3's report isn't JSON")
        })?;
        if let Some(error) = report["error"].as_str() {
            bail!("iperf3 from {} to {address} failed: {error}", from.port);
        }
        let end = &report["end"];
        let sum = if end["sum_received"].is_object() { &end["sum_received"] } else { &end["sum"] };
        let lost_percent = end["sum"]["lost_percent"].as_f64().unwrap_or(0.0);
        let bits = sum["bits_per_second"].as_f64().context("iperf3's report has no rate")?;
        // In older reports a UDP rate is the sender's.
        let received = if end["sum_received"].is_object() { 1.0 } else { 1.0 - lost_percent / 100.0 };
        let retransmits = end["sum_sent"]["retransmits"].as_u64().unwrap_or(0);
        Ok(Throughput { mbit: bits * received / 1e6, lost_percent, retransmits })
    }
}

/// Waits until iperf3's port is open, without connecting: the server takes one client only.
fn listening(netns: &Netns) -> Result<()> {
    let open = || {
        let open = |table: &str| {
            let text = std::fs::read_to_string(table).unwrap_or_default();
            // Port 5201, state LISTEN.
            text.lines().any(|line| line.contains(":1451 ") && line.contains(" 0A "))
        };
        Ok(open("/proc/thread-self/net/tcp") || open("/proc/thread-self/net/tcp6"))
    };
    netns.run(|| wait_until("iperf3's port", Duration::from_secs(5), open).map(drop))
}
