//! `lab`: brings a lab up to look around in, shows and measures what Espalier does on one, and removes what dead labs
//! left behind.

mod bench;
mod demo;
mod interrupt;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use lab::{Carrier, ControllerSpec, Lab, Layout, Shape, Spec, StopSignals, Switching, TenantSpec};

/// Hosts with real Open vSwitch in network namespaces.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Bring a lab up; Ctrl-C takes it down
    Up(Up),
    /// Show what Espalier does, with real packets
    Demo(demo::Demo),
    /// Measure how long traffic stops when something breaks, beside spanning trees
    BenchRepair(bench::Bench),
    /// Remove what labs left behind whose maker is dead
    Clean,
}

#[derive(Args)]
struct Up {
    /// How many hosts
    #[arg(long, default_value_t = 3)]
    hosts: usize,
    /// Which bridges a host has
    #[arg(long, value_enum, default_value_t = Layout::Shared)]
    layout: Layout,
    /// What joins bridges on different hosts
    #[arg(long, value_enum, default_value_t = Carrier::Vxlan)]
    carrier: Carrier,
    /// Which hosts are joined: mesh, ring, line, or pairs such as 1-2,2-3
    #[arg(long, default_value = "mesh")]
    shape: Shape,
    /// A tenant and its tunnel key, NAME=KEY; may be repeated
    #[arg(long = "tenant", value_name = "NAME=KEY", default_values = ["green=100", "orange=200"], value_parser = tenant)]
    tenants: Vec<TenantSpec>,
    /// Containers of a tenant on each host
    #[arg(long, default_value_t = 1)]
    containers: usize,
    /// Who decides where frames go
    #[arg(long, value_enum, default_value_t = Switching::Controller)]
    switching: Switching,
    /// Interval of BFD on tunnels, in milliseconds
    #[arg(long, value_name = "MS")]
    bfd: Option<u32>,
    /// Start the controller too, with this policy
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The loopback port that leads to the controller's REST interface
    #[arg(long, default_value_t = 8653, value_name = "PORT")]
    rest: u16,
}

fn tenant(text: &str) -> Result<TenantSpec> {
    let Some((name, Ok(key))) = text.split_once('=').map(|(name, key)| (name, key.parse())) else {
        bail!("a tenant is given as NAME=KEY, such as green=100");
    };
    Ok(TenantSpec::new(name, key))
}

fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Verb::Up(arguments) => up(arguments).map(|()| ExitCode::SUCCESS),
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::BenchRepair(arguments) => bench::run(&arguments),
        Verb::Clean => {
            let removed = lab::clean()?;
            for id in &removed {
                println!("removed {id}");
            }
            if removed.is_empty() {
                println!("nothing to remove");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn up(arguments: Up) -> Result<()> {
    let mut stop = StopSignals::catch()?;
    let lab = Lab::start(&Spec {
        hosts: arguments.hosts,
        layout: arguments.layout,
        carrier: arguments.carrier,
        shape: arguments.shape,
        tenants: arguments.tenants,
        containers: arguments.containers,
        switching: arguments.switching,
        bfd_ms: arguments.bfd,
        ..Spec::default()
    })?;
    let controller = match arguments.policy {
        Some(file) => {
            let text = std::fs::read_to_string(&file).with_context(|| format!("reading {} failed", file.display()))?;
            Some(lab.start_controller(&ControllerSpec::policy(text))?)
        }
        None => None,
    };
    look_around(&lab);
    let mut relay = None;
    if let Some(controller) = &controller {
        let relay = relay.insert(controller.relay(arguments.rest)?);
        println!("The controller runs: http://{}/v1/status", relay.address());
        println!("Its policy, which may be edited: {}", controller.policy_file().display());
    }
    println!("\nCtrl-C takes it all down.");
    let signal = stop.wait();
    println!("{signal}: taking the lab down");
    controller.map_or(Ok(()), |mut controller| controller.stop())
}

fn look_around(lab: &Lab) {
    println!("Lab {} is up: {} hosts, {} bridges.", lab.id, lab.hosts().len(), lab.bridges().len());
    println!("Bridges connect to tcp:{} in namespace {}.", lab.controller_address(), lab.controller_netns().name());
    println!("\nContainers:");
    for container in lab.containers() {
        let (netns, bridge, port) = (container.netns.name(), &container.bridge, &container.port);
        println!("  ip netns exec {netns} bash   # h{} {bridge} {port}: {}", container.host, container.ipv4);
    }
    println!("\nSwitches:");
    for host in lab.hosts() {
        let dir = lab.dir().join(format!("h{}", host.number));
        println!("  ovs-vsctl --db=unix:{}/db.sock show", dir.display());
        for bridge in lab.spec().bridges(host.number) {
            println!("  ovs-ofctl -O OpenFlow13 dump-flows unix:{}/{}.mgmt", dir.display(), bridge.name);
        }
    }
}
