//! `lab demo`: what Espalier does, shown with real packets on real Open vSwitch, step by step.

mod cut;
mod delivery;
mod fabric;
mod picture;
mod screen;
mod services;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use lab::{Carrier, Controller, ControllerSpec, Lab, Layout, Relay, Spec};

use crate::bench::table::time;
use crate::interrupt::Interrupt;
use screen::Screen;

/// Where the controller serves REST unless told otherwise; client commands look there.
const REST_PORT: u16 = 8653;

/// How to show it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Demo {
    /// Which bridges a host has
    #[arg(long, value_enum, default_value_t = Layout::PerTenant)]
    layout: Layout,
    /// What joins bridges on different hosts
    #[arg(long, value_enum, default_value_t = Carrier::Vxlan)]
    carrier: Carrier,
    /// How many hosts; with fewer than three there is no way round a cut
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=30))]
    hosts: u8,
    /// Exit after the last step
    #[arg(long)]
    once: bool,
    /// The policy, with the tenants green and orange
    #[arg(long, default_value = "examples/green-orange.toml", value_name = "FILE")]
    policy: PathBuf,
    /// The policy with a chain and a rate limit, which comes into force later
    #[arg(long, default_value = "examples/chain.toml", value_name = "FILE")]
    services: PathBuf,
    /// What `bench-repair` recorded
    #[arg(long, default_value = "tests/data/repair.toml", value_name = "FILE")]
    table: PathBuf,
}

/// What all steps work with.
struct Stage<'a> {
    arguments: &'a Demo,
    lab: &'a Lab,
    controller: &'a Controller,
    /// When the controller was started.
    started: Instant,
    screen: &'a mut Screen,
    interrupt: &'a Interrupt,
}

impl Stage<'_> {
    fn tenants(&self) -> Vec<String> {
        self.lab.spec().tenants.iter().map(|tenant| tenant.name.clone()).collect()
    }
}

type Step = fn(&mut Stage<'_>) -> Result<()>;
const STEPS: [(&str, Step); 8] = [
    ("The bridges connect", fabric::bridges),
    ("Each tenant's tree", fabric::trees),
    ("Everybody pings everybody, within the tenant", delivery::matrix),
    ("A broadcast arrives exactly once, although the mesh is full of loops", delivery::broadcasts),
    ("Nothing crosses from tenant to tenant", delivery::isolation),
    ("A link is cut, without any port noticing", cut::cut),
    ("Chosen traffic goes through a firewall, both ways, and nothing else does", services::chain),
    ("A rate limit holds, and costs nobody else", services::limit),
];

/// Shows it. Exit code 0: all was as it should be; 1: something was wrong; 130: interrupted before the end.
pub(crate) fn run(arguments: &Demo) -> Result<ExitCode> {
    let interrupt = Interrupt::catch()?;
    let mut screen = Screen::new();
    for id in lab::clean().context("removing what an earlier lab left behind failed")? {
        screen.aside(format!("removed {id}, whose maker is dead"));
    }
    match show(arguments, &interrupt, &mut screen) {
        Ok(()) if screen.failures() == 0 => Ok(ExitCode::SUCCESS),
        Err(_) if interrupt.came() => Ok(ExitCode::from(130)),
        Ok(()) => Ok(ExitCode::FAILURE),
        Err(error) => {
            screen.check(false, format!("{error:#}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn show(arguments: &Demo, interrupt: &Interrupt, screen: &mut Screen) -> Result<()> {
    let policy = &arguments.policy;
    let text = std::fs::read_to_string(policy).with_context(|| format!("reading {} failed", policy.display()))?;
    screen.step("The lab");
    let begun = Instant::now();
    let lab = Lab::start(&Spec {
        hosts: usize::from(arguments.hosts),
        layout: arguments.layout,
        carrier: arguments.carrier,
        ..Spec::default()
    })?;
    let took = begun.elapsed();
    interrupt.check()?;
    screen.say(picture::draw(&lab));
    fabric::built(screen, &lab, took);

    let started = Instant::now();
    let mut controller = lab.start_controller(&ControllerSpec::policy(text))?;
    let stage = Stage { arguments, lab: &lab, controller: &controller, started, screen, interrupt };
    let result = perform(stage);
    // Asked to end, the controller keeps its log to itself; after a failure its end is worth reading.
    if result.is_ok() || interrupt.came() {
        controller.stop()?;
    }
    result
}

fn perform(mut stage: Stage<'_>) -> Result<()> {
    stage.screen.aside(format!("espalier serve --policy {}", stage.arguments.policy.display()));
    for (title, step) in STEPS {
        stage.interrupt.check()?;
        stage.screen.step(title);
        if let Err(error) = step(&mut stage) {
            stage.interrupt.check()?;
            stage.screen.check(false, format!("{error:#}"));
        }
    }
    verdict(&stage);
    if stage.arguments.once {
        return Ok(());
    }
    let relay = open_door(&stage)?;
    hints(&stage, &relay);
    stage.interrupt.wait_for();
    Ok(())
}

fn verdict(stage: &Stage<'_>) {
    let took = time(stage.started.elapsed());
    match stage.screen.failures() {
        0 => stage.screen.heading(&format!("All as it should be ({took}).")),
        number => stage.screen.heading(&format!("{} failed: see the ✗ above.", screen::count(number, "check"))),
    }
}

/// Leads the usual REST address into the lab, or another one if that is taken.
fn open_door(stage: &Stage<'_>) -> Result<Relay> {
    stage.controller.relay(REST_PORT).or_else(|_| {
        stage.screen.say(format!("Port {REST_PORT} is taken here, so the controller answers at another one."));
        stage.controller.relay(0)
    })
}

fn hints(stage: &Stage<'_>, relay: &Relay) {
    let (lab, screen) = (stage.lab, &stage.screen);
    let address = relay.address();
    screen.heading("It stays up to look around in. The controller answers at:");
    screen.say(format!("http://{address}/v1/status"));
    screen.heading("Try, in another terminal:");
    let espalier = beside_us("espalier");
    let server = if address.port() == REST_PORT { String::new() } else { format!(" --server http://{address}") };
    for what in ["status", "bridges", "links", "hosts", "tree", "chains", "limits"] {
        screen.say(format!("{espalier} get {what}{server}"));
    }
    screen.say(format!("curl -s http://{address}/v1/tenants/green"));
    if let [from, to, ..] = &lab.tenant("green")[..] {
        screen.say(format!("ip netns exec {} ping {}", from.netns.name(), to.ipv4));
    }
    if let Some(bridge) = lab.bridges().first() {
        let dir = lab.dir().join(format!("h{}", bridge.host));
        let dir = dir.display();
        screen.say(format!("ovs-vsctl --db=unix:{dir}/db.sock show"));
        screen.say(format!("ovs-ofctl -O OpenFlow13 dump-flows unix:{dir}/{}.mgmt", bridge.name));
    }
    screen.say(format!(
        "$EDITOR {}   # the policy: each change comes into force at once",
        stage.controller.policy_file().display()
    ));
    screen.heading("Ctrl-C takes it all down.");
}

/// A program of the same build, as one would type it here.
fn beside_us(program: &str) -> String {
    let path = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join(program)));
    let here = std::env::current_dir().ok();
    let shown = path.map(|path| match here.as_ref().and_then(|here| path.strip_prefix(here).ok()) {
        Some(short) => short.to_owned(),
        None => path,
    });
    shown.as_deref().map_or(Path::new(program), |path| path).display().to_string()
}
