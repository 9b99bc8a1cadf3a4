//! What `bench-repair` measured: the file it is kept in, and the table people read.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

const HEAD: &str =
    "# How long traffic stops when something breaks, measured on the lab by `make bench-repair`; don't edit.
# Outages are the times in which a ping, sent every 2 ms, went unanswered, one entry a run (every 5 ms before
# 2026-11-29); `noticed_ms`: when the controller knew, from their begin on; `unrecovered` counts runs in
# which it wasn't answered again within the time allowed. A cut is silent: all between two hosts vanishes, no carrier is
# lost.
";

/// Who repairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// Espalier.
    Espalier,
    /// Espalier, with BFD on the tunnels.
    EspalierBfd,
    /// Espalier, with BFD on the tunnels, and probes too rare to find anything before.
    EspalierBfdAlone,
    /// Rapid spanning trees, with BFD on the tunnels.
    RstpBfd,
    /// Rapid spanning trees.
    Rstp,
    /// Spanning trees, with the timers that are the default.
    Stp,
}

impl Way {
    /// All, as they are listed.
    pub(crate) const ALL: [Self; 6] =
        [Self::Espalier, Self::EspalierBfd, Self::EspalierBfdAlone, Self::RstpBfd, Self::Rstp, Self::Stp];

    /// What a reader knows it as.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Espalier => "Espalier",
            Self::EspalierBfd => "Espalier with BFD 100 ms",
            Self::EspalierBfdAlone => "Espalier with BFD 100 ms alone",
            Self::RstpBfd => "RSTP with BFD 100 ms",
            Self::Rstp => "RSTP",
            Self::Stp => "STP",
        }
    }
}

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Failure {
    /// The path that carries the ping is cut, silently
    Cut,
    /// The tunnel that carries the ping is deleted at one end
    Tunnel,
    /// The cable that carries the ping loses its carrier
    Carrier,
    /// The host at the tree's root dies; the ping is between two others
    Host,
    /// The controller's channel to the sender's bridge is cut; trees without a controller have none
    Control,
}

impl Failure {
    const ALL: [Self; 5] = [Self::Cut, Self::Tunnel, Self::Carrier, Self::Host, Self::Control];

    fn label(self) -> &'static str {
        match self {
            Self::Cut => "path cut silently",
            Self::Tunnel => "tunnel deleted",
            Self::Carrier => "carrier lost",
            Self::Host => "root's host killed",
            Self::Control => "control channel lost",
        }
    }
}

/// What some runs of one way and one failure gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Who repaired.
    pub(crate) way: Way,
    /// What broke.
    pub(crate) failure: Failure,
    /// How many hosts the lab had.
    pub(crate) hosts: usize,
    /// The day, as in 2025-01-31.
    pub(crate) date: String,
    /// The version of Open vSwitch.
    pub(crate) open_vswitch: String,
    /// How long traffic stopped, a run each, in milliseconds.
    pub(crate) outages_ms: Vec<u64>,
    /// How much of that had passed when the controller was told, or found out, that something is down; none where there is no
    /// controller, or nothing was lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) noticed_ms: Vec<u64>,
    /// Runs in which it didn't go on again.
    pub(crate) unrecovered: usize,
    /// How long was waited for that, in seconds.
    pub(crate) patience_s: u64,
    /// From the bridges' making (and the controller's start) to the first answered ping, a run each.
    pub(crate) first_ping_ms: Vec<u64>,
    /// Links that carry nothing while everybody pings everybody.
    pub(crate) idle_percent: f64,
    /// How many links a packet passes on average then.
    pub(crate) mean_path: f64,
}

impl Measured {
    /// How many runs.
    pub(crate) fn runs(&self) -> usize {
        self.outages_ms.len() + self.unrecovered
    }

    /// The middle of all runs; of an even number the worse one.
    pub(crate) fn median(&self) -> String {
        self.nth(self.runs() / 2)
    }

    /// The worst of all runs.
    pub(crate) fn worst(&self) -> String {
        self.nth(self.runs().saturating_sub(1))
    }

    /// A run in order of outages; those that never ended are the longest.
    fn nth(&self, place: usize) -> String {
        let mut outages = self.outages_ms.clone();
        outages.sort_unstable();
        outages.get(place).map_or_else(|| format!("> {} s", self.patience_s), |ms| time(Duration::from_millis(*ms)))
    }

    /// The middle of the first pings.
    fn first_ping(&self) -> Option<Duration> {
        let mut all = self.first_ping_ms.clone();
        all.sort_unstable();
        all.get(all.len() / 2).copied().map(Duration::from_millis)
    }
}

/// A time as people read it.
pub(crate) fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1000.0),
        seconds if seconds < 10.0 => format!("{seconds:.2} s"),
        seconds => format!("{seconds:.1} s"),
    }
}

/// All that is recorded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Table {
    /// One entry per way, failure and number of hosts.
    #[serde(default, rename = "result")]
    pub(crate) results: Vec<Measured>,
}

impl Table {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {} failed", path.display()))?;
        toml::from_str(&text).with_context(|| {
            format!("{} isn't what `make bench-repair` writes; delete it and run that", path.display())
        })
    }

    /// Writes the file.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = toml::to_string(self).context("writing TOML failed")?;
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("making the folder {} failed", dir.display()))?;
        }
        fs::write(path, format!("{HEAD}\n{text}")).with_context(|| format!("writing {} failed", path.display()))
    }

    /// Puts a result in the place of an older one.
    pub(crate) fn put(&mut self, result: Measured) {
        let key = |result: &Measured| (result.hosts, result.failure, result.way);
        self.results.retain(|old| key(old) != key(&result));
        self.results.push(result);
        self.results.sort_by_key(key);
    }

    /// A table for people, for each number of hosts.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        let sizes: BTreeSet<_> = self.results.iter().map(|result| result.hosts).collect();
        for hosts in sizes {
            let _ = write!(text, "| {hosts} hosts | first ping |");
            for failure in Failure::ALL {
                let _ = write!(text, " {} |", failure.label());
            }
            text += " links idle | mean path |\n|---|---|";
            text += &"---|".repeat(Failure::ALL.len());
            text += "---|---|\n";
            for way in Way::ALL {
                let of_way = || self.results.iter().filter(|result| result.hosts == hosts && result.way == way);
                let Some(one) = of_way().next() else { continue };
                let first = one.first_ping().map_or("–".to_owned(), time);
                let _ = write!(text, "| {} | {first} |", way.label());
                for failure in Failure::ALL {
                    let cell = of_way().find(|result| result.failure == failure);
                    let cell = cell.map_or("–".to_owned(), |r| format!("{} (worst {})", r.median(), r.worst()));
                    let _ = write!(text, " {cell} |");
                }
                let _ = writeln!(text, " {:.0} % | {:.2} |", one.idle_percent, one.mean_path);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(outages_ms: Vec<u64>, unrecovered: usize) -> Measured {
        Measured {
            way: Way::RstpBfd,
            failure: Failure::Cut,
            hosts: 3,
            date: "2025-01-31".into(),
            open_vswitch: "3".into(),
            outages_ms,
            noticed_ms: vec![],
            unrecovered,
            patience_s: 60,
            first_ping_ms: vec![1],
            idle_percent: 0.0,
            mean_path: 1.0,
        }
    }

    #[test]
    fn a_run_that_never_ends_is_the_longest() {
        let some = measured(vec![5000, 40], 1);
        assert_eq!((some.median(), some.worst()), ("5.00 s".into(), "> 60 s".into()));
        assert_eq!(measured(vec![], 1).median(), "> 60 s");
    }

    #[test]
    fn what_is_written_is_read_and_replaced() -> Result<()> {
        let mut table = Table::default();
        table.put(measured(vec![1], 0));
        table.put(measured(vec![2], 0));
        assert_eq!(table.results.len(), 1);
        assert_eq!(toml::from_str::<Table>(&toml::to_string(&table)?)?, table);
        Ok(())
    }

    #[test]
    fn the_recorded_table_is_readable() -> Result<()> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/repair.toml");
        assert!(Table::read(&path)?.results.iter().all(|result| result.runs() > 0));
        Ok(())
    }
}
