//! Mininet on a host of the lab: its switches are bridges of the host's Open vSwitch, its hosts become containers of the lab.
//!
//! It runs in a process namespace of its own, so all that it starts ends with it, and it can't end anything else: Mininet
//! itself ends programs by their names. It finds the host's Open vSwitch by `OVS_RUNDIR`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv6Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::container::Container;
use crate::netns::Netns;
use crate::process::{self, Daemon};
use crate::topology::{CONTROLLER, Lab, OPENFLOW_PORT};
use crate::wait_until;

/// What is run inside; it says how to talk to it.
const PROGRAM: &str = include_str!("../data/mininet_net.py");
/// The one whose packages are the machine's; `mininet` is one of them.
const PYTHON: &str = "/usr/bin/python3";
const PATIENCE: Duration = Duration::from_secs(20);

/// A network of Mininet that runs; dropping it ends it. Its bridges stay in the host's database.
#[derive(Debug)]
pub struct Mininet {
    connection: BufReader<UnixStream>,
    daemon: Daemon,
}

/// A host, as the program inside tells of it.
#[derive(Debug, Deserialize)]
struct Described {
    name: String,
    pid: u32,
    ip: String,
    mac: String,
    interface: String,
    bridge: String,
    port: String,
}

impl Lab {
    /// Starts Mininet on a host with `["tree", DEPTH, FANOUT]` or `["ring", SWITCHES]`; its switches call the lab's
    /// controller. Its hosts (`h1`, …) are given to tenants by their names.
    pub fn start_mininet(&self, host: usize, shape: &[&str], whose: impl Fn(&str) -> Option<&str>) -> Result<Mininet> {
        ensure!(
            Path::new("/usr/bin/mnexec").exists(),
            "Mininet isn't installed (its mnexec is needed); run tests/install-tools as root"
        );
        let on = self.host(host)?;
        let (program, socket) = (self.dir.join("mininet_net.py"), self.dir.join("mininet.sock"));
        let log = self.dir.join("mininet.log");
        fs::write(&program, PROGRAM).context("writing Mininet's program failed")?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child", PYTHON]).arg(&program);
        command.args(shape).args([CONTROLLER, &OPENFLOW_PORT.to_string()]).arg(&socket);
        on.name_open_vswitch(&mut command);
        let mut daemon = on.netns.run(|| Daemon::spawn(&self.dir, &log, &mut command))?;
        let told = || fs::read_to_string(&log).unwrap_or_default();
        let mut connected = None;
        wait_until("Mininet's network", PATIENCE, || {
            connected = UnixStream::connect(&socket).ok();
            Ok(connected.is_some() || !daemon.alive())
        })
        .with_context(|| format!("Mininet said: {}", told()))?;
        let connection = connected.with_context(|| format!("Mininet ended: {}", told()))?;
        connection.set_read_timeout(Some(PATIENCE)).context("setting a timeout failed")?;
        let mut mininet = Mininet { connection: BufReader::new(connection), daemon };
        let hosts: Vec<Described> = serde_json::from_str(&mininet.line()?).context("Mininet's hosts can't be read")?;
        for (number, described) in (1_u16..).zip(hosts) {
            let container = self.adopt(&mininet, host, number, &described, whose(&described.name))?;
            self.containers_mut().push(container);
        }
        Ok(mininet)
    }

    /// Gives a host of Mininet what the lab's containers have: a namespace with a name, an IPv6 address that is known.
    fn adopt(
        &self,
        mininet: &Mininet,
        host: usize,
        number: u16,
        described: &Described,
        tenant: Option<&str>,
    ) -> Result<Container> {
        let netns = Netns::named(format!("{}-mn-{}", self.id, described.name));
        let pid = mininet.outside(described.pid)?.to_string();
        process::output(Command::new("ip").args(["netns", "attach", netns.name(), &pid]))?;
        let ipv6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number);
        netns.ip_batch(&format!("addr add {ipv6}/64 dev {} nodad\n", described.interface))?;
        Ok(Container {
            netns,
            interface: described.interface.clone(),
            host,
            bridge: described.bridge.clone(),
            port: described.port.clone(),
            tenant: tenant.map(str::to_owned),
            mac: described.mac.parse()?,
            ipv4: described.ip.parse().with_context(|| format!("`{}` is no IPv4 address", described.ip))?,
            ipv6,
        })
    }
}

impl Mininet {
    /// Evaluates a Python expression about `net`, such as `net.configLinkStatus('s1', 's2', 'down')`; gives its value as Python
    /// writes it.
    pub fn call(&mut self, expression: &str) -> Result<String> {
        writeln!(self.connection.get_mut(), "{expression}").context("Mininet doesn't listen any more")?;
        let answer: Value = serde_json::from_str(&self.line()?).context("Mininet's answer can't be read")?;
        match answer["value"].as_str() {
            Some(value) => Ok(value.to_owned()),
            None => bail!("{expression}: {answer}"),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.connection.read_line(&mut line).context("Mininet doesn't answer")?;
        Ok(line)
    }

    /// The process id that one inside has for everybody else.
    fn outside(&self, inside: u32) -> Result<u32> {
        let space = |link: String| fs::read_link(link).ok();
        let own = space(format!("/proc/{}/ns/pid_for_children", self.daemon.pid()));
        for entry in fs::read_dir("/proc").context("listing processes failed")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            let innermost = ids.split_whitespace().last().and_then(|id| id.parse().ok());
            if innermost == Some(inside) && own.is_some() && space(format!("/proc/{pid}/ns/pid")) == own {
                return Ok(pid);
            }
        }
        bail!("Mininet has no process {inside} any more")
    }
}
