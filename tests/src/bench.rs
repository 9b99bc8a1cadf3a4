//! `lab bench-repair`: how long traffic stops when something breaks, for Espalier and for the trees that bridges grow
//! by themselves, on the same lab in the same run.

pub(crate) mod table;
pub(crate) mod traffic;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, value_parser};
use lab::{Carrier, Container, ContinuousPing, Controller, ControllerSpec, Lab, Layout, Spec, Switching, TenantSpec};

use crate::interrupt::Interrupt;
use table::{Failure, Measured, Table, Way};
use traffic::{Usage, noticed_after, stopped_for, usage, way_out};

const TENANT: &str = "green";
/// How long a repair may take: STP with its usual timers takes 50 s at most.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pings are sent so often.
const INTERVAL: Duration = Duration::from_millis(2);
/// The network counts as repaired once pings were answered for that long.
const STEADY: Duration = Duration::from_secs(2);
const BFD_MS: u32 = 100;

/// What to measure.
#[derive(Args, Clone, Debug)]
pub(crate) struct Bench {
    /// How often each is measured
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u8).range(1..))]
    runs: u8,
    /// Who repairs
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "espalier,espalier-bfd,espalier-bfd-alone,rstp-bfd,rstp,stp"
    )]
    ways: Vec<Way>,
    /// What breaks
    #[arg(long, value_enum, value_delimiter = ',', default_value = "cut,tunnel,carrier,host,control")]
    failures: Vec<Failure>,
    /// How many hosts
    #[arg(long, value_delimiter = ',', default_value = "3,5", value_parser = value_parser!(u8).range(3..=30))]
    hosts: Vec<u8>,
    /// The controller's policy
    #[arg(long, default_value = "examples/green-orange.toml", value_name = "FILE")]
    policy: PathBuf,
    /// The file to renew; what isn't measured now stays in it
    #[arg(long, default_value = "tests/data/repair.toml", value_name = "FILE")]
    table: PathBuf,
}

/// Measures, and renews the table with each result.
pub(crate) fn run(arguments: &Bench) -> Result<ExitCode> {
    let interrupt = Interrupt::catch()?;
    match measure(arguments, &interrupt) {
        Ok(table) => {
            println!("\n{}", table.markdown());
            Ok(ExitCode::SUCCESS)
        }
        Err(_) if interrupt.came() => Ok(ExitCode::from(130)),
        Err(error) => Err(error),
    }
}

fn measure(arguments: &Bench, interrupt: &Interrupt) -> Result<Table> {
    lab::clean().context("removing what an earlier lab left behind failed")?;
    let path = &arguments.table;
    let mut table = if path.exists() { Table::read(path)? } else { Table::default() };
    let file = &arguments.policy;
    let policy = std::fs::read_to_string(file).with_context(|| format!("reading {} failed", file.display()))?;
    let (date, open_vswitch) = (today()?, open_vswitch()?);
    let mut subjects = Vec::new();
    for hosts in &arguments.hosts {
        for failure in &arguments.failures {
            let measurable = |way: &&Way| match failure {
                // The cables of that lab have no BFD, nor would they need it.
                Failure::Carrier => !matches!(way, Way::EspalierBfd | Way::EspalierBfdAlone | Way::RstpBfd),
                Failure::Control => matches!(way, Way::Espalier | Way::EspalierBfd | Way::EspalierBfdAlone),
                _ => true,
            };
            subjects.extend(arguments.ways.iter().filter(measurable).map(|way| (*hosts, *failure, *way)));
        }
    }
    for (hosts, failure, way) in subjects {
        let mut result = Measured {
            way,
            failure,
            hosts: usize::from(hosts),
            date: date.clone(),
            open_vswitch: open_vswitch.clone(),
            outages_ms: Vec::new(),
            noticed_ms: Vec::new(),
            unrecovered: 0,
            patience_s: PATIENCE.as_secs(),
            first_ping_ms: Vec::new(),
            idle_percent: 0.0,
            mean_path: 0.0,
        };
        for number in 1..=arguments.runs {
            let run = Subject::start(way, failure, result.hosts, &policy)
                .and_then(|subject| subject.measure(interrupt, failure))
                .with_context(|| format!("{}, {failure:?}, run {number}", way.label()))?;
            let what = format!("{failure:?}").to_lowercase();
            println!("{:<33}{what:<10}{hosts} hosts, run {number}: {run}", way.label());
            result.first_ping_ms.push(millis(run.first_ping));
            match run.outage {
                Some(outage) => {
                    result.outages_ms.push(millis(outage));
                    result.noticed_ms.extend(run.noticed.map(millis));
                }
                None => result.unrecovered += 1,
            }
            (result.idle_percent, result.mean_path) =
                (round(run.usage.idle_percent, 1.0), round(run.usage.mean_path, 100.0));
        }
        table.put(result);
        table.write(path)?;
    }
    Ok(table)
}

/// A lab whose network repairs itself in some way.
struct Subject {
    controller: Option<Controller>,
    lab: Lab,
    born: Instant,
}

/// What one run gave.
struct Run {
    first_ping: Duration,
    usage: Usage,
    /// None: traffic didn't go on.
    outage: Option<Duration>,
    /// How much of it had passed when the controller was told, or found out, that something is down.
    noticed: Option<Duration>,
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Usage { idle_percent, mean_path } = self.usage;
        let outage = self.outage.map_or("didn't go on".to_owned(), |outage| format!("{outage:.3?}"));
        write!(f, "outage {outage}")?;
        if let (Some(outage), Some(noticed)) = (self.outage, self.noticed) {
            write!(f, " (noticed after {noticed:.3?}, traffic {:.3?} later)", outage.saturating_sub(noticed))?;
        }
        write!(f, ", first ping {:.3?}, idle {idle_percent:.0} %, path {mean_path:.2}", self.first_ping)
    }
}

impl Subject {
    fn start(way: Way, failure: Failure, hosts: usize, policy: &str) -> Result<Self> {
        let (switching, bfd_ms) = match way {
            Way::Espalier => (Switching::Controller, None),
            Way::EspalierBfd | Way::EspalierBfdAlone => (Switching::Controller, Some(BFD_MS)),
            Way::RstpBfd => (Switching::Rstp, Some(BFD_MS)),
            Way::Rstp => (Switching::Rstp, None),
            Way::Stp => (Switching::Stp, None),
        };
        // A tunnel has no carrier to lose.
        let carrier = if failure == Failure::Carrier { Carrier::Veth } else { Carrier::Vxlan };
        let tenants = vec![TenantSpec::new(TENANT, 100)];
        let layout = Layout::PerTenant;
        let lab = Lab::start(&Spec { hosts, layout, carrier, tenants, switching, bfd_ms, ..Spec::default() })?;
        let born = Instant::now();
        let policy = match way {
            Way::EspalierBfdAlone => rarely_probed(policy)?,
            _ => policy.to_owned(),
        };
        let controller = match switching {
            Switching::Controller => Some(lab.start_controller(&ControllerSpec::policy(policy))?),
            _ => None,
        };
        // The network is measured, not when a container asks for a neighbour again.
        lab.pin_neighbours()?;
        Ok(Self { controller, lab, born })
    }

    fn measure(mut self, interrupt: &Interrupt, failure: Failure) -> Result<Run> {
        let run = self.try_measure(interrupt, failure);
        if let Some(controller) = self.controller.as_mut().filter(|_| run.is_ok() || interrupt.came()) {
            controller.stop()?;
        }
        run
    }

    fn try_measure(&self, interrupt: &Interrupt, failure: Failure) -> Result<Run> {
        let lab = &self.lab;
        let answers = |from: &Container, to: &Container| lab.ping_within(from, to.ipv4, Duration::from_millis(50));
        // The lowest bridge becomes the root of a spanning tree, so between these two lies the way over the root.
        let (two, three) = (self.container(2)?, self.container(3)?);
        let first = interrupt.wait(PATIENCE, || answers(&two, &three))?;
        if first.is_none() {
            bail!("no ping was answered within {PATIENCE:?}");
        }
        let first_ping = self.born.elapsed();
        let all = interrupt.wait(PATIENCE, || Ok(lab.ping_matrix(TENANT, Duration::from_secs(1))?.is_full()))?;
        if all.is_none() {
            bail!("not everybody reached everybody within {PATIENCE:?}");
        }
        interrupt.sleep(Duration::from_secs(1))?;
        let usage = usage(lab, interrupt, TENANT)?;

        let root = self.root()?;
        let others: Vec<_> = (1..=lab.hosts().len()).filter(|host| *host != root).collect();
        let (from, to) = match (&others[..], failure) {
            ([a, b, ..], Failure::Host) => (self.container(*a)?, self.container(*b)?),
            _ => (two, three),
        };
        let way = way_out(lab, interrupt, &from, &to)?;
        let ping = ContinuousPing::every(INTERVAL, &from, to.ipv4)?;
        let started = ping.started();
        interrupt.sleep(Duration::from_millis(500))?;
        match failure {
            Failure::Cut => lab.cut(from.host, way.peer)?,
            Failure::Tunnel => lab.delete_port(&way.end)?,
            Failure::Carrier => lab.set_interface(way.end.host, &way.end.port, false)?,
            Failure::Host => lab.kill_host(root)?,
            Failure::Control => lab.cut_control(from.host)?,
        }
        let mut good_since = None;
        let repaired = interrupt.wait(PATIENCE + STEADY, || {
            if lab.ping_within(&from, to.ipv4, Duration::from_millis(300))? {
                Ok(good_since.get_or_insert_with(Instant::now).elapsed() > STEADY)
            } else {
                good_since = None;
                Ok(false)
            }
        })?;
        let report = ping.stop()?;
        let log = self.controller.as_ref().map(Controller::log).unwrap_or_default();
        let noticed = report.outages.first().and_then(|(begin, _)| noticed_after(&log, started + *begin));
        Ok(Run { first_ping, usage, outage: repaired.map(|_| stopped_for(&report)), noticed })
    }

    fn container(&self, host: usize) -> Result<Container> {
        self.lab.container(host, &format!("{TENANT}-1"))
    }

    /// The host at the root of the tree.
    fn root(&self) -> Result<usize> {
        let bridges = self.lab.bridges();
        let Some(controller) = &self.controller else {
            // Priorities are equal, and the lab gives the lowest address to the first host's bridge.
            return bridges.iter().min_by_key(|b| b.dpid).map(|b| b.host).context("the lab has no bridges");
        };
        let tenant = controller.get(&format!("/v1/tenants/{TENANT}"))?;
        let root = tenant["tree"]["root"].as_str().context("the tenant has no tree")?;
        let found = bridges.iter().find(|bridge| bridge.description == root).map(|bridge| bridge.host);
        found.with_context(|| format!("the tree's root is {root}, which is no bridge of the lab"))
    }
}

/// A policy by which probes are too rare to find anything.
fn rarely_probed(policy: &str) -> Result<String> {
    const INTERVAL: &str = "probe_interval = \"auto\"";
    ensure!(policy.contains(INTERVAL), "the policy has no line `{INTERVAL}` to replace");
    Ok(policy.replacen(INTERVAL, "probe_interval = \"5s\"", 1))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn round(number: f64, steps: f64) -> f64 {
    (number * steps).round() / steps
}

fn printed(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("running {program} failed"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn today() -> Result<String> {
    printed("date", &["-u", "+%F"]).map(|text| text.trim().to_owned())
}

fn open_vswitch() -> Result<String> {
    let text = printed("ovs-vswitchd", &["--version"])?;
    let first = text.lines().next().and_then(|line| line.split_whitespace().last());
    first.map(str::to_owned).context("ovs-vswitchd doesn't say its version")
}
