//! A host: a namespace with Open vSwitch of its own.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::netns::Netns;
use crate::process::{self, Daemon};
use crate::wait_until;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const PATIENCE: Duration = Duration::from_secs(20);

/// A host of the lab.
#[derive(Debug)]
pub struct Host {
    /// Its number, from 1.
    pub number: usize,
    /// Its namespace.
    pub netns: Netns,
    lab_dir: PathBuf,
    dir: PathBuf,
    daemons: Mutex<Daemons>,
}

#[derive(Debug, Default)]
struct Daemons {
    database: Option<Daemon>,
    switch: Option<Daemon>,
}

/// What went through a port of a bridge so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Packets OVS received from the port.
    pub received: u64,
    /// Bytes of these.
    pub received_bytes: u64,
    /// Packets OVS sent out of the port.
    pub sent: u64,
    /// Bytes of these.
    pub sent_bytes: u64,
}

/// Fails with what to do if Open vSwitch isn't there.
pub(crate) fn require_open_vswitch() -> Result<()> {
    ensure!(
        Path::new(SCHEMA).exists() && Command::new("ovs-vswitchd").arg("--version").output().is_ok(),
        "Open vSwitch isn't installed (ovs-vswitchd and {SCHEMA} are needed); run tests/install-tools as root"
    );
    ensure!(nix::unistd::geteuid().is_root(), "the lab makes network namespaces and needs root; run it with sudo");
    Ok(())
}

impl Host {
    /// The folder and database of a host, nothing running yet.
    pub(crate) fn prepare(lab_dir: &Path, number: usize, netns: Netns, empty_database: &Path) -> Result<Self> {
        let dir = lab_dir.join(format!("h{number}"));
        fs::create_dir_all(&dir).with_context(|| format!("making the folder {} failed", dir.display()))?;
        fs::copy(empty_database, dir.join("conf.db")).context("copying the empty OVS database failed")?;
        Ok(Self { number, netns, lab_dir: lab_dir.to_owned(), dir, daemons: Mutex::default() })
    }

    /// An empty OVS database, made once a lab because it takes longer than to copy it.
    pub(crate) fn make_database(lab_dir: &Path) -> Result<PathBuf> {
        let path = lab_dir.join("empty.db");
        process::output(Command::new("ovsdb-tool").arg("create").arg(&path).arg(SCHEMA))?;
        Ok(path)
    }

    fn daemons(&self) -> MutexGuard<'_, Daemons> {
        self.daemons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    fn socket(&self, file: &str) -> String {
        format!("unix:{}", self.path(file).display())
    }

    /// Lets a program's environment say that the host's Open vSwitch is meant, not the machine's own.
    pub(crate) fn name_open_vswitch(&self, command: &mut Command) {
        for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(name, &self.dir);
        }
    }

    fn spawn(&self, program: &str, args: &[String]) -> Result<Daemon> {
        let mut command = Command::new(program);
        command.args(args).args(["--no-chdir", "-vconsole:off", "-vsyslog:off", "-vfile:info"]);
        command.arg(format!("--log-file={}", self.path(&format!("{program}.log")).display()));
        command.arg(format!("--pidfile={}", self.path(&format!("{program}.pid")).display()));
        self.name_open_vswitch(&mut command);
        let output = self.path(&format!("{program}.out"));
        self.netns.run(|| Daemon::spawn(&self.lab_dir, &output, &mut command))
    }

    /// Starts the database and the switch.
    pub(crate) fn start(&self) -> Result<()> {
        self.start_database()?;
        self.start_switch()
    }

    fn start_database(&self) -> Result<()> {
        let mut daemons = self.daemons();
        ensure!(daemons.database.is_none(), "h{}: ovsdb-server runs already", self.number);
        let socket = self.path("db.sock");
        drop(fs::remove_file(&socket));
        let args = [
            self.path("conf.db").display().to_string(),
            format!("--remote=punix:{}", socket.display()),
            format!("--unixctl={}", self.path("ovsdb.ctl").display()),
        ];
        let database = daemons.database.insert(self.spawn("ovsdb-server", &args)?);
        wait_until("ovsdb-server's socket", PATIENCE, || {
            ensure!(database.alive(), "ovsdb-server ended; see {}", self.dir.display());
            Ok(UnixStream::connect(&socket).is_ok())
        })?;
        Ok(())
    }

    /// Starts ovs-vswitchd. Its ports come back from the database; flows, groups and meters don't.
    pub(crate) fn start_switch(&self) -> Result<()> {
        let mut daemons = self.daemons();
        ensure!(daemons.switch.is_none(), "h{}: ovs-vswitchd runs already", self.number);
        drop(fs::remove_file(self.path("vswitchd.ctl")));
        let args = [
            self.socket("db.sock"),
            // Never the host machine's own datapath.
            "--disable-system".to_owned(),
            format!("--unixctl={}", self.path("vswitchd.ctl").display()),
        ];
        daemons.switch = Some(self.spawn("ovs-vswitchd", &args)?);
        Ok(())
    }

    /// Ends ovs-vswitchd as a crash would. Its internal interfaces vanish, so does all forwarding.
    pub(crate) fn kill_switch(&self) {
        self.daemons().switch = None;
    }

    /// Ends everything that runs on the host as a power cut would.
    pub(crate) fn kill(&self) {
        *self.daemons() = Daemons::default();
    }

    /// Whether both daemons run.
    pub fn alive(&self) -> bool {
        let daemons = &mut *self.daemons();
        daemons.database.as_mut().is_some_and(Daemon::alive) && daemons.switch.as_mut().is_some_and(Daemon::alive)
    }

    /// The process id of the host's ovs-vswitchd, to read its memory and CPU time.
    pub fn switch_pid(&self) -> Option<i32> {
        self.daemons().switch.as_ref().map(Daemon::pid)
    }

    /// Runs `ovs-vsctl` on the host's database; returns once ovs-vswitchd has done it.
    pub fn vsctl<S: AsRef<str>>(&self, args: &[S]) -> Result<String> {
        let mut command = Command::new("ovs-vsctl");
        command.args(["--timeout=20", &format!("--db={}", self.socket("db.sock"))]);
        process::output(command.args(args.iter().map(AsRef::as_ref)))
            .with_context(|| format!("configuring OVS on h{} failed", self.number))
    }

    /// The same without waiting for ovs-vswitchd, which may not run.
    pub fn vsctl_no_wait<S: AsRef<str>>(&self, args: &[S]) -> Result<String> {
        let mut all = vec!["--no-wait"];
        all.extend(args.iter().map(AsRef::as_ref));
        self.vsctl(&all)
    }

    /// Runs a line as an operator does who sits at the host: in its namespace, with its Open vSwitch.
    pub fn shell(&self, line: &str) -> Result<String> {
        let mut command = Command::new("sh");
        command.args(["-ec", line]);
        self.name_open_vswitch(&mut command);
        self.netns.run(|| process::output(&mut command))
    }

    /// Runs `ovs-ofctl -O OpenFlow13 VERB BRIDGE ARGS…` beside the controller's channel.
    pub fn ofctl(&self, verb: &str, bridge: &str, args: &[&str]) -> Result<String> {
        let mut command = Command::new("ovs-ofctl");
        command.args(["-O", "OpenFlow13", "--timeout=20", verb, &self.socket(&format!("{bridge}.mgmt"))]);
        process::output(command.args(args)).with_context(|| format!("bridge {bridge} on h{}", self.number))
    }

    /// A connection of its own to a bridge, for OpenFlow that `ovs-ofctl` doesn't speak, or not so fast.
    pub fn openflow(&self, bridge: &str) -> Result<UnixStream> {
        let path = self.path(&format!("{bridge}.mgmt"));
        UnixStream::connect(&path).with_context(|| format!("h{}: no connection to {}", self.number, path.display()))
    }

    /// What `ovs-appctl` does, without a process: a command to ovs-vswitchd itself.
    pub fn appctl(&self, command: &str, params: &[&str]) -> Result<String> {
        let mut stream = UnixStream::connect(self.path("vswitchd.ctl"))
            .with_context(|| format!("h{}: ovs-vswitchd's control socket doesn't answer; does it run?", self.number))?;
        stream.set_read_timeout(Some(PATIENCE)).context("setting a timeout failed")?;
        let request = json!({"id": 0, "method": command, "params": params}).to_string();
        stream.write_all(request.as_bytes()).context("writing to ovs-vswitchd's control socket failed")?;
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let count = stream.read(&mut chunk).with_context(|| format!("h{}: no answer to {command}", self.number))?;
            ensure!(count > 0, "h{}: ovs-vswitchd hung up instead of answering {command}", self.number);
            answer.extend(&chunk[..count]);
            if let Ok(answer) = serde_json::from_slice::<Value>(&answer) {
                if let Some(error) = answer["error"].as_str() {
                    bail!("h{}: {command} failed: {}", self.number, error.trim());
                }
                return Ok(answer["result"].as_str().unwrap_or_default().to_owned());
            }
        }
    }

    /// The flows of a bridge, one a line, without the header.
    pub fn flows(&self, bridge: &str) -> Result<Vec<String>> {
        let text = self.ofctl("dump-flows", bridge, &["--no-stats"])?;
        Ok(text.lines().map(str::trim).filter(|line| line.contains("actions=")).map(str::to_owned).collect())
    }

    /// The counters of a port, up to date (those in the database are 5 s old).
    pub fn counters(&self, bridge: &str, port: &str) -> Result<PortCounters> {
        let text = self.ofctl("dump-ports", bridge, &[port])?;
        let numbers = |direction: &str| {
            let (_, rest) = text.split_once(direction)?;
            let number = |key: &str| {
                let (_, after) = rest.split_once(key)?;
                after.split([',', '\n']).next()?.trim().parse::<u64>().ok()
            };
            Some((number("pkts=")?, number("bytes=")?))
        };
        let (Some((received, received_bytes)), Some((sent, sent_bytes))) = (numbers("rx "), numbers("tx ")) else {
            bail!("the counters of {port} on h{} can't be read from: {text}", self.number);
        };
        Ok(PortCounters { received, received_bytes, sent, sent_bytes })
    }
}
