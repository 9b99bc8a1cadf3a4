//! `/v1/policy`: the policy in force, as text, and a new one. Several files are one text as
//! [`policy_files::join`] makes it.

use apps::policy::Source;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::{Semaphore, oneshot};

use super::ask::{compute, unavailable};
use super::problem::Problem;
use super::{Api, json};
use crate::policy_commands::{self, Answer, Ask, Command, Digests, Refusal};
use crate::policy_files::{self, BadPolicy};
use crate::policy_watch::PolicyError;

/// Longest body that is read.
const BODY_MAX: usize = Source::BYTES_MAX;

/// Policies are compiled one at a time, so that whoever asks for many plans leaves the machine to others.
static PLANS: Semaphore = Semaphore::const_new(1);

/// What a file without a name is called.
const UNNAMED: &str = "policy.toml";

pub(super) async fn get(State(api): State<Api>) -> Response {
    let kept = api.texts.borrow().clone();
    let text = policy_files::join(&kept.sources);
    let headers =
        [(header::CONTENT_TYPE, "application/toml".to_owned()), (header::ETAG, format!("\"{}\"", kept.digest))];
    (headers, text).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Put {
    confirm_within: Option<String>,
}

type Asked<T> = Result<Query<T>, axum::extract::rejection::QueryRejection>;

/// Its body is TOML, whatever its header says.
pub(super) async fn put(
    State(api): State<Api>,
    query: Asked<Put>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Query(Put { confirm_within }) = query?;
    let confirm_within = confirm_within.as_deref().map(policy_commands::time).transpose();
    let confirm_within =
        confirm_within.map_err(|why| Problem::new(StatusCode::BAD_REQUEST, format!("confirm_within: {why}")))?;
    // Several such headers are one list; what is no text is no digest.
    let tags: Vec<_> = headers.get_all(header::IF_MATCH).iter().map(|tag| tag.to_str().unwrap_or_default()).collect();
    let only_if = (!tags.is_empty()).then(|| Digests::read(&tags.join(",")));
    let sources = api.sources(body).await?;
    api.command(Command::Apply { sources, only_if, confirm_within }).await
}

pub(super) async fn confirm(State(api): State<Api>) -> Result<Response, Problem> {
    api.command(Command::Confirm).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Back {
    #[serde(default)]
    empty: bool,
}

pub(super) async fn undo(State(api): State<Api>, query: Asked<Back>) -> Result<Response, Problem> {
    let Query(Back { empty }) = query?;
    api.command(Command::Undo { empty }).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Show {
    #[serde(default)]
    flows: bool,
}

/// What a policy would change. Changes nothing, whatever the policy's source is.
pub(super) async fn plan(State(api): State<Api>, query: Asked<Show>, body: Body) -> Result<Response, Problem> {
    let Query(Show { flows }) = query?;
    let sources = api.sources(body).await?;
    let _turn = PLANS.acquire().await;
    let (policy, warnings) = compute(move || policy_files::load(&sources, false)).await?.map_err(bad)?;
    let situation = api.situation().await?;
    compute(move || {
        let mut plan = situation.plan(&policy, flows);
        plan.warnings = warnings;
        json(&plan)
    })
    .await
}

impl Api {
    /// The files in a body.
    async fn sources(&self, body: Body) -> Result<Vec<Source>, Problem> {
        let body = self.body(body, BODY_MAX).await?;
        let text = String::from_utf8(body).map_err(|error| {
            Problem::new(StatusCode::BAD_REQUEST, format!("the body is no policy: it isn't UTF-8 text: {error}"))
        })?;
        Ok(policy_files::split(UNNAMED, &text))
    }

    async fn command(&self, command: Command) -> Result<Response, Problem> {
        let (answer, answered) = oneshot::channel();
        let full = |_| unavailable("the controller has other policies to look at, or stops");
        self.asks.try_send(Ask { command, answer }).map_err(full)?;
        // Whether it is done or not mustn't be left open, so there is no end to this wait but the controller's.
        let answer: Answer = answered.await.map_err(|_| unavailable("the controller stops"))??;
        let tag = format!("\"{}\"", answer.digest);
        Ok(([(header::ETAG, tag)], json(&answer)).into_response())
    }
}

fn bad(BadPolicy(text): BadPolicy) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text)
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::Policy(PolicyError::Bad(text)) => return bad(text),
            Refusal::Changed(_) => StatusCode::PRECONDITION_FAILED,
            Refusal::Policy(PolicyError::Store(_)) => StatusCode::INSUFFICIENT_STORAGE,
            Refusal::Policy(PolicyError::Stopping) => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Policy(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::CONFLICT,
        };
        let unchanged =
            if status == StatusCode::INSUFFICIENT_STORAGE { "; the policy in force is unchanged" } else { "" };
        Self::new(status, format!("{refusal}{unchanged}"))
    }
}
