//! Asks a running controller.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use ureq::http::{Method, Request, Response};
use ureq::{Agent, Body};

use super::{CONFLICT, NO, UNREACHABLE, USAGE, fail};

/// How long an answer may take.
const SOON: Duration = Duration::from_secs(10);
/// The same where a large policy is read, compiled or written to a slow disk.
const LATER: Duration = Duration::from_secs(120);

/// Which controller.
#[derive(Debug, Args)]
pub(super) struct Server {
    /// Where the controller serves REST
    #[arg(long = "server", env = "ESPALIER_SERVER", default_value = "http://127.0.0.1:8653", value_name = "URL")]
    url: String,
}

/// Why there is no document.
pub(super) enum Failure {
    /// Nobody answers, or not as the controller does.
    Unreachable(String),
    /// What was asked for isn't there.
    NotFound(String),
    /// The question makes no sense, or the policy has errors.
    Refused(String),
    /// It can't be done as things are.
    Conflict(String),
    /// The controller wanted to, but couldn't.
    Unable(String),
}

impl Failure {
    /// Tells it, and gives the exit code that all commands have for it.
    pub(super) fn tell(self) -> ExitCode {
        match self {
            Self::Unreachable(text) => fail(UNREACHABLE, &text),
            Self::NotFound(text) | Self::Unable(text) => fail(NO, &text),
            Self::Refused(text) => fail(USAGE, &text),
            Self::Conflict(text) => fail(CONFLICT, &text),
        }
    }
}

impl Server {
    /// A document.
    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(SOON, path, |agent, url| agent.get(url).call())
    }

    /// What is answered to a document.
    pub(super) fn post(&self, path: &str, document: &Value) -> Result<Value, Failure> {
        self.ask(SOON, path, |agent, url| agent.post(url).send_json(document))
    }

    /// What is answered to a policy.
    pub(super) fn send(
        &self,
        method: Method,
        path: &str,
        if_match: Option<&str>,
        text: &str,
    ) -> Result<Value, Failure> {
        self.ask(LATER, path, |agent, url| {
            let mut request = Request::builder().method(method).uri(url).header("content-type", "application/toml");
            if let Some(digest) = if_match {
                request = request.header("if-match", format!("\"{digest}\""));
            }
            agent.run(request.body(text)?)
        })
    }

    /// The answer is JSON, but not what this version knows.
    pub(super) fn strange(&self, error: &dyn Display) -> String {
        format!("{} doesn't answer like this version does: {error}", self.url)
    }

    fn ask(
        &self,
        patience: Duration,
        path: &str,
        call: impl FnOnce(&Agent, &str) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Value, Failure> {
        let url = format!("{}/v1/{path}", self.url.trim_end_matches('/'));
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(patience));
        let agent = Agent::from(config.build());
        let unreachable = |error: &dyn Display| {
            let hint = "is `espalier serve` running? name its REST address with --server or ESPALIER_SERVER";
            Failure::Unreachable(format!("the controller can't be reached at {url}: {error}; {hint}"))
        };
        let mut answer = call(&agent, &url).map_err(|error| unreachable(&error))?;
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(1 << 30).read_to_vec().map_err(|error| unreachable(&error))?;
        let document: Value = serde_json::from_slice(&body)
            .map_err(|_| unreachable(&format!("it answered {status}, not as Espalier does")))?;
        let detail = document["detail"].as_str().unwrap_or("no more is known").to_owned();
        match status.as_u16() {
            200 => Ok(document),
            400 | 422 => Err(Failure::Refused(detail)),
            404 => Err(Failure::NotFound(detail)),
            409 | 412 => Err(Failure::Conflict(detail)),
            507 => Err(Failure::Unable(detail)),
            _ => Err(unreachable(&format!("it answered {status}: {detail}"))),
        }
    }
}
