//! The program itself, as an operator starts it: a process with ports of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Folder, PATIENCE};

/// The program with these arguments, and nothing of the environment's that changes what it does.
pub(crate) fn espalier(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_espalier"));
    command.args(arguments).env_remove("ESPALIER_SERVER").env_remove("ESPALIER_LOG");
    command
}

/// `espalier serve`; killed when dropped.
pub(crate) struct Program {
    pub(crate) child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// How much of the log [`Program::line`] has gone through.
    read: usize,
    pub(crate) openflow: SocketAddr,
    pub(crate) rest: SocketAddr,
    _folder: Option<Folder>,
}

impl Program {
    /// Starts it with these arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = espalier(&["serve", "--openflow", "127.0.0.1:0", "--rest", "127.0.0.1:0"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, to) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        std::thread::spawn(move || lines.lines().map_while(Result::ok).for_each(|line| to.lock().unwrap().push(line)));
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut program = Self { child, log, read: 0, openflow: nowhere, rest: nowhere, _folder: None };
        let line = program.line("REST is served at ");
        let address = |before: &str| {
            let text = line.split_once(before).unwrap().1;
            let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(text.len());
            text[..end].parse().unwrap()
        };
        (program.openflow, program.rest) = (address("connect to "), address("http://"));
        program
    }

    /// Starts it with a policy, and state of its own.
    pub(crate) fn with_policy(text: &str) -> Self {
        let folder = Folder::new();
        let (policy, state) = (folder.write("policy.toml", text), folder.0.join("state"));
        let mut program = Self::start(&["--policy", policy.to_str().unwrap(), "--state", state.to_str().unwrap()]);
        program._folder = Some(folder);
        program
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The next line of the log that has this in it.
    pub(crate) fn line(&mut self, what: &str) -> String {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let next = self.log.lock().unwrap().get(self.read).cloned();
            match next {
                Some(line) => {
                    self.read += 1;
                    if line.contains(what) {
                        return line;
                    }
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        panic!("no line has \"{what}\": {:#?}", self.log());
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Status, head and body of a call.
    pub(crate) async fn call(&self, path: &str) -> (u16, String, String) {
        self.send("GET", path, "", "").await
    }

    /// The same with further lines of the head, and a body.
    pub(crate) async fn send(&self, method: &str, path: &str, head: &str, body: &str) -> (u16, String, String) {
        self.try_send(method, path, head, body).await.expect("it answers")
    }

    /// The same; `None`: it doesn't answer.
    pub(crate) async fn try_send(
        &self,
        method: &str,
        path: &str,
        head: &str,
        body: &str,
    ) -> Option<(u16, String, String)> {
        let mut stream = TcpStream::connect(self.rest).await.ok()?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {length}\r\n{head}\r\n{body}",
            self.rest
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, head.to_lowercase(), body.to_owned()))
    }

    /// A document.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, _, body) = self.call(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// All documents, but for what changes by itself.
    pub(crate) async fn documents(&self) -> Vec<Value> {
        let mut documents = Vec::new();
        for path in ["status", "bridges", "links", "tenants", "hosts"] {
            documents.push(self.get(&format!("/v1/{path}")).await);
        }
        documents[0]["uptime_seconds"].take();
        for host in documents[4].as_array_mut().unwrap() {
            host["seen_seconds"].take();
        }
        documents
    }

    /// Waits until a document is as wanted.
    pub(crate) async fn wait(&self, what: &str, path: &str, so: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            // What isn't there yet is a problem's text.
            let document = serde_json::from_str(&self.call(path).await.2).unwrap();
            if so(&document) {
                return document;
            }
            assert!(start.elapsed() < PATIENCE, "{what}: not so after {PATIENCE:?}: {document}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The sum of a metric over all rows that begin so.
    pub(crate) async fn metric(&self, row: &str) -> u64 {
        let (status, _, text) = self.call("/metrics").await;
        assert_eq!(status, 200, "{text}");
        let rows = text.lines().filter(|line| line.starts_with(row));
        rows.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// How often input was refused for this reason.
    pub(crate) async fn refused(&self, reason: &str) -> u64 {
        self.metric(&format!("espalier_input_refused_total{{reason=\"{reason}\"}}")).await
    }

    /// Waits until a metric is at least so much.
    pub(crate) async fn wait_metric(&self, row: &str, least: u64) {
        let start = Instant::now();
        while self.metric(row).await < least {
            assert!(start.elapsed() < PATIENCE, "{row} isn't {least} after {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    /// Its resident memory, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// How many files it has open.
    pub(crate) fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Hundredths of a second of CPU time that it has used.
    pub(crate) fn cpu(&self) -> u64 {
        let stat = self.proc("stat");
        // Behind the name, which may have spaces: the 12th and 13th are the times in user and kernel mode.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
