//! Running the controller inside the lab, and asking it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::netns::Netns;
use crate::process::Daemon;
use crate::relay::Relay;
use crate::topology::Lab;
use crate::wait_until;

const REST_PORT: u16 = 8653;
const PATIENCE: Duration = Duration::from_secs(15);

/// How to run the controller.
#[derive(Clone, Debug, Default)]
pub struct ControllerSpec {
    /// The policy file's text; without one the controller gets no `--policy`.
    pub policy: Option<String>,
    /// Further arguments of `espalier serve`.
    pub args: Vec<String>,
    /// Further environment variables, such as `RUST_LOG`.
    pub env: Vec<(String, String)>,
}

impl ControllerSpec {
    /// The controller with a policy.
    pub fn policy(text: impl Into<String>) -> Self {
        Self { policy: Some(text.into()), ..Self::default() }
    }
}

/// The controller of a lab; killed when dropped. Unless it was stopped in order before, the end of its log is printed
/// then, so that a failing test shows it.
#[derive(Debug)]
pub struct Controller {
    netns: Netns,
    lab_dir: PathBuf,
    dir: PathBuf,
    binary: PathBuf,
    openflow: String,
    rest: u16,
    spec: ControllerSpec,
    daemon: Option<Daemon>,
}

/// An answer from the REST interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The entity tag, if there was one.
    pub etag: Option<String>,
    /// The body.
    pub body: String,
}

impl Response {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON (status {}): {}", self.status, self.body))
    }
}

/// Where the controller's binary is: `$ESPALIER_BIN`, else beside the program or test that runs.
fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ESPALIER_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "ESPALIER_BIN is {}, which is no file", path.display());
        return Ok(path);
    }
    let own = std::env::current_exe().context("asking for our own path failed")?;
    // Tests lie in target/<profile>/deps, programs one up.
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join("espalier")).find(|path| path.is_file());
    found.with_context(|| {
        format!("no `espalier` lies beside {}; run `cargo build` first or set ESPALIER_BIN", own.display())
    })
}

impl Lab {
    /// Starts the controller in its namespace and waits until its REST interface answers.
    pub fn start_controller(&self, spec: &ControllerSpec) -> Result<Controller> {
        self.start_further_controller(spec, 0)
    }

    /// The same beside others, each with another number: it listens at ports that are higher by that, and has state of its own.
    pub fn start_further_controller(&self, spec: &ControllerSpec, number: u16) -> Result<Controller> {
        let dir = self.dir.join(if number == 0 { "controller".to_owned() } else { format!("controller-{number}") });
        fs::create_dir_all(&dir).with_context(|| format!("making the folder {} failed", dir.display()))?;
        let mut controller = Controller {
            netns: self.controller_netns.clone(),
            lab_dir: self.dir.clone(),
            binary: binary()?,
            openflow: self.further_address(number),
            rest: REST_PORT + number,
            spec: spec.clone(),
            daemon: None,
            dir,
        };
        if let Some(policy) = &spec.policy {
            controller.write_policy(policy)?;
        }
        controller.start()?;
        Ok(controller)
    }
}

impl Controller {
    /// Starts it again after it was killed or stopped, with the same policy file and state.
    pub fn start(&mut self) -> Result<()> {
        self.spawn()?;
        wait_until("the controller's REST interface", PATIENCE, || {
            ensure!(
                self.daemon.as_mut().is_some_and(Daemon::alive),
                "the controller ended; its log:\n{}",
                self.tail(40)
            );
            self.request("GET", "/healthz", None).map(|response| response.status == 200)
        })?;
        Ok(())
    }

    /// Starts it without waiting for anything, for tests of what it refuses.
    pub fn spawn(&mut self) -> Result<()> {
        ensure!(self.daemon.is_none(), "the controller runs already");
        let mut command = Command::new(&self.binary);
        command.arg("serve");
        if self.spec.policy.is_some() {
            command.arg("--policy").arg(self.policy_file());
        }
        command.args(["--openflow", &self.openflow, "--rest", &format!("127.0.0.1:{}", self.rest)]);
        command.arg("--state").arg(self.dir.join("state")).args(&self.spec.args);
        command.envs(self.spec.env.iter().map(|(name, value)| (name, value)));
        let log = self.log_file();
        self.daemon = Some(self.netns.run(|| Daemon::spawn(&self.lab_dir, &log, &mut command))?);
        Ok(())
    }

    /// Ends it as a crash would.
    pub fn kill9(&mut self) {
        self.daemon = None;
    }

    /// Asks it to end (SIGTERM); an error if it had to be killed.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        ensure!(daemon.terminate(PATIENCE)?, "the controller didn't end within {PATIENCE:?} of SIGTERM and was killed");
        Ok(())
    }

    /// Stops it in order and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// Whether it runs.
    pub fn alive(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(Daemon::alive)
    }

    /// The process id, to read its memory and CPU time.
    pub fn pid(&self) -> Option<i32> {
        self.daemon.as_ref().map(Daemon::pid)
    }

    /// Freezes it: its sockets stay open, nothing answers.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Tells it to read its policy again.
    pub fn sighup(&mut self) -> Result<()> {
        self.signal(Signal::SIGHUP)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        self.daemon.as_mut().context("the controller doesn't run")?.signal(signal)
    }

    /// The policy file.
    pub fn policy_file(&self) -> PathBuf {
        self.dir.join("policy.toml")
    }

    /// Replaces the policy file at once, as editors and configuration managers do: by a new file of the same name.
    pub fn write_policy(&self, text: &str) -> Result<()> {
        let (file, new) = (self.policy_file(), self.dir.join(".policy.toml.new"));
        fs::write(&new, text).with_context(|| format!("writing {} failed", new.display()))?;
        fs::rename(&new, &file).with_context(|| format!("replacing {} failed", file.display()))
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Replaces the policy file and waits until the new policy is adopted, which isn't yet in force on all bridges.
    pub fn apply_policy(&self, text: &str) -> Result<()> {
        let generation = || -> Result<u64> {
            self.get("/v1/status")?["policy"]["generation"].as_u64().context("the status has no policy's generation")
        };
        let before = generation()?;
        self.write_policy(text)?;
        wait_until("the new policy", PATIENCE, || Ok(generation()? > before)).map(drop)
    }

    /// All it has printed, over all its starts.
    pub fn log(&self) -> String {
        read_lossy(&self.log_file())
    }

    fn tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<_> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Calls the REST interface from inside the controller's namespace. A status of 400 or more is no error here.
    pub fn request(&self, method: &str, path: &str, body: Option<(&str, &str)>) -> Result<Response> {
        self.request_with(method, path, body, &[])
    }

    /// The same with further headers.
    pub fn request_with(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, &str)>,
        headers: &[(&str, &str)],
    ) -> Result<Response> {
        self.netns.run(|| {
            let config = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(PATIENCE))
                .proxy(None)
                .build();
            let url = format!("http://{}:{}{path}", Ipv4Addr::LOCALHOST, self.rest);
            let mut request = ureq::http::Request::builder().method(method).uri(&url);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some((content_type, _)) = body {
                request = request.header("content-type", content_type);
            }
            let body = body.map(|(_, text)| text.to_owned()).unwrap_or_default();
            let request = request.body(body).with_context(|| format!("{method} {path} is no request"))?;
            let mut answer =
                ureq::Agent::new_with_config(config).run(request).with_context(|| format!("{method} {url} failed"))?;
            Ok(Response {
                status: answer.status().as_u16(),
                etag: answer.headers().get("etag").and_then(|tag| tag.to_str().ok()).map(str::to_owned),
                body: answer.body_mut().read_to_string().with_context(|| format!("{method} {url}: reading failed"))?,
            })
        })
    }

    /// GET of JSON; any status but 200 is an error.
    pub fn get(&self, path: &str) -> Result<Value> {
        let response = self.request("GET", path, None)?;
        ensure!(response.status == 200, "GET {path} answered {}: {}", response.status, response.body);
        response.json()
    }

    /// Waits until a condition on the controller's answers holds.
    pub fn wait_until(
        &self,
        what: &str,
        timeout: Duration,
        mut holds: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<Duration> {
        wait_until(what, timeout, || holds(self))
    }

    /// Waits until so many bridges are connected and have acknowledged exactly what is desired.
    pub fn wait_converged(&self, bridges: u64, timeout: Duration) -> Result<Duration> {
        let mut last = Value::Null;
        let waited = wait_until("the controller's convergence", timeout, || {
            last = self.get("/v1/status")?;
            Ok(last["bridges"]["connected"] == bridges && last["converged"] == true)
        });
        waited.with_context(|| format!("{bridges} bridges should be connected and converged; the last status: {last}"))
    }

    /// Waits until so many links are up (and no fewer bridges than before matter).
    pub fn wait_links(&self, up: u64, timeout: Duration) -> Result<Duration> {
        let mut last = Value::Null;
        let waited = wait_until("the controller's links", timeout, || {
            last = self.get("/v1/status")?;
            Ok(last["links"]["up"] == up)
        });
        waited.with_context(|| format!("{up} links should be up; the last status: {last}"))
    }

    /// Runs a client command of the binary inside the controller's namespace.
    pub fn cli(&self, args: &[&str]) -> Result<Output> {
        self.netns.run(|| {
            Command::new(&self.binary).args(args).output().with_context(|| format!("running espalier {args:?} failed"))
        })
    }

    /// Makes the REST interface reachable from outside the lab, at a loopback port (0: any free one).
    pub fn relay(&self, port: u16) -> Result<Relay> {
        Relay::start(port, &self.netns, self.rest)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // A test that ends by an error doesn't panic here, so this can't tell it from one that passed; libtest can, and
        // shows only the former's output.
        if std::thread::panicking() || self.daemon.is_some() {
            eprintln!("--- the end of the controller's log ---\n{}\n---", self.tail(40));
        }
    }
}

fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
