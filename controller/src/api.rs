//! REST: the documents of the newest snapshot, as JSON, and metrics. Reading them never disturbs the hub.

mod ask;
mod policy;
mod problem;
mod serve;
mod trace;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use openflow::types::DatapathId;
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use crate::history::Kept;
use crate::hub::{Input, Published};
use crate::metrics::Exposition;
use crate::policy_commands::Ask;
use crate::problems::Problems;
use crate::snapshot::{Chain, Snapshot};

use problem::Problem;
pub use serve::serve;

/// What REST serves from.
#[derive(Clone, Debug)]
pub struct Api {
    /// The newest snapshot.
    pub published: watch::Receiver<Published>,
    /// The hub's queue, for what is asked of it.
    pub inputs: mpsc::Sender<Input>,
    /// Where the policy is changed.
    pub asks: mpsc::Sender<Ask>,
    /// The policy in force.
    pub texts: watch::Receiver<Arc<Kept>>,
    /// How long a client may take for the body of its request, and the hub for an answer.
    pub patience: Duration,
    /// What is wrong with the daemon itself.
    pub problems: Arc<Problems>,
    /// When it was started.
    pub started: Instant,
    /// What `/metrics` tells.
    pub exposition: Arc<Exposition>,
}

type Name = Result<Path<String>, PathRejection>;

impl Api {
    /// All calls.
    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .route("/v1/status", get(status))
            .route("/v1/bridges", get(bridges))
            .route("/v1/bridges/{bridge}", get(bridge))
            .route("/v1/links", get(links))
            .route("/v1/tenants", get(tenants))
            .route("/v1/tenants/{tenant}", get(tenant))
            .route("/v1/hosts", get(hosts))
            .route("/v1/limits", get(limits))
            .route("/v1/chains", get(chains))
            .route("/v1/chains/{tenant}/{chain}", get(chain))
            .route("/v1/policy", get(policy::get).put(policy::put))
            .route("/v1/policy/plan", post(policy::plan))
            .route("/v1/policy/confirm", post(policy::confirm))
            .route("/v1/policy/undo", post(policy::undo))
            .route("/v1/trace", post(trace::trace))
            .fallback(unknown)
            .method_not_allowed_fallback(wrong_method)
            .layer(from_fn(guard))
            .with_state(self)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.published.borrow().as_ref().map(|(_, snapshot)| Arc::clone(snapshot)).unwrap_or_default()
    }
}

async fn ready(State(api): State<Api>) -> Result<&'static str, Problem> {
    if api.published.borrow().is_some() {
        return Ok("ok\n");
    }
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no policy is in force yet; try again in a moment".into()))
}

async fn metrics(State(api): State<Api>) -> Result<Response, Problem> {
    let text = api.exposition.text().map_err(|_| {
        let detail = "the metrics can't be written, which is a fault of this program";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail.into())
    })?;
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, format)], text).into_response())
}

async fn status(State(api): State<Api>) -> Response {
    let mut status = api.snapshot().status.clone();
    env!("CARGO_PKG_VERSION").clone_into(&mut status.version);
    status.uptime_seconds = api.started.elapsed().as_secs();
    status.problems.extend(api.problems.list());
    json(&status)
}

async fn bridges(State(api): State<Api>) -> Response {
    json(&api.snapshot().bridges)
}

async fn bridge(State(api): State<Api>, name: Name) -> Result<Response, Problem> {
    let Path(name) = name?;
    let snapshot = api.snapshot();
    let named = snapshot.bridges.iter().find(|bridge| bridge.name.eq_ignore_ascii_case(&name));
    let dpid = name.parse::<DatapathId>().ok().map(|dpid| dpid.to_string());
    let found = named.or_else(|| snapshot.bridges.iter().find(|bridge| Some(&bridge.dpid) == dpid.as_ref()));
    found.map(json).ok_or_else(|| Problem::not_found(&format!("bridge with the name or datapath id \"{name}\"")))
}

async fn links(State(api): State<Api>) -> Response {
    json(&api.snapshot().links)
}

async fn tenants(State(api): State<Api>) -> Response {
    json(&api.snapshot().tenants)
}

async fn tenant(State(api): State<Api>, name: Name) -> Result<Response, Problem> {
    let Path(name) = name?;
    let snapshot = api.snapshot();
    let found = snapshot.tenants.iter().find(|tenant| tenant.name.eq_ignore_ascii_case(&name));
    found.map(json).ok_or_else(|| Problem::not_found(&format!("tenant with the name \"{name}\"")))
}

async fn hosts(State(api): State<Api>) -> Response {
    // A snapshot stays as it is while nothing happens, but hosts grow older.
    let published = api.published.borrow().clone();
    let Some((taken, snapshot)) = published else { return json(&Vec::<u8>::new()) };
    let mut hosts = snapshot.hosts.clone();
    let age = taken.elapsed().as_secs();
    for host in &mut hosts {
        host.seen_seconds = host.seen_seconds.map(|seen| seen + age);
    }
    json(&hosts)
}

async fn limits(State(api): State<Api>) -> Response {
    json(&api.snapshot().limits)
}

async fn chains(State(api): State<Api>) -> Response {
    json(&api.snapshot().chains)
}

async fn chain(
    State(api): State<Api>,
    names: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let Path((tenant, name)) = names?;
    let snapshot = api.snapshot();
    let is = |chain: &&Chain| chain.tenant.eq_ignore_ascii_case(&tenant) && chain.name.eq_ignore_ascii_case(&name);
    let found = snapshot.chains.iter().find(is);
    found.map(json).ok_or_else(|| Problem::not_found(&format!("chain \"{name}\" of a tenant \"{tenant}\"")))
}

async fn unknown(uri: Uri) -> Problem {
    Problem::not_found(&format!("call {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} can't be done with {}", uri.path()))
}

/// What holds for every call.
async fn guard(request: Request, next: Next) -> Response {
    // A page of the web that has its own name point here must not read what only this machine may.
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let mut response = match host {
        Some(host) if !is_local(host) => {
            let detail = "this server answers to localhost and loopback addresses only, not to the host that was named";
            Problem::new(StatusCode::MISDIRECTED_REQUEST, detail.into()).into_response()
        }
        _ if is_foreign(&request) => {
            let detail = "this server does nothing for pages of other servers";
            Problem::new(StatusCode::FORBIDDEN, detail.into()).into_response()
        }
        _ => next.run(request).await,
    };
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Does a page of the web ask that comes from elsewhere? Browsers say so of all that can change something (RFC 6454 §7).
fn is_foreign(request: &Request) -> bool {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return false };
    let from = origin.as_bytes().strip_prefix(b"http://");
    from.is_none() || from != request.headers().get(header::HOST).map(HeaderValue::as_bytes)
}

fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn json(document: &(impl Serialize + ?Sized)) -> Response {
    match serde_json::to_vec(document) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
