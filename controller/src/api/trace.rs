//! `POST /v1/trace`: the way of one frame. What it depends on is made when somebody asks, because it is much and rarely
//! needed; the way itself is found on a thread that nobody waits for.

use apps::trace::{Refusal, Request};
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::problem::Problem;
use super::{Api, json};
use crate::hub::Input;

/// Longest body that is read.
const BODY_MAX: usize = 64 << 10;

/// Its body is JSON, whatever its header says.
pub(super) async fn trace(State(api): State<Api>, body: Body) -> Result<Response, Problem> {
    let body = timeout(api.patience, to_bytes(body, BODY_MAX)).await.map_err(|_| {
        Problem::new(StatusCode::REQUEST_TIMEOUT, format!("the body isn't complete after {:?}", api.patience))
    })?;
    let body = body.map_err(|error| {
        let detail = format!("the body can't be read: {error}; it has {BODY_MAX} bytes at most");
        Problem::new(StatusCode::BAD_REQUEST, detail)
    })?;
    let request: Request = serde_json::from_slice(&body).map_err(|error| {
        let example =
            r#"{"tenant": "green", "from": "host1/green-1", "to": "10.0.0.2", "protocol": "tcp", "port": 80}"#;
        Problem::new(StatusCode::BAD_REQUEST, format!("the body is no request for a trace: {error}; one is {example}"))
    })?;
    let (answer, answered) = oneshot::channel();
    let asked = async {
        api.inputs.send(Input::Situation(answer)).await.ok()?;
        answered.await.ok()
    };
    let unavailable =
        |why: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{why}; try again in a moment"));
    let situation = timeout(api.patience, asked).await.ok().flatten();
    let situation = situation.ok_or_else(|| unavailable("the controller has too much to do, or stops"))?;
    let situation = situation.ok_or_else(|| unavailable("no policy is in force yet"))?;
    let traced = tokio::task::spawn_blocking(move || situation.trace(&request).map(|trace| json(&trace))).await;
    match traced {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(Refusal::NotFound(detail))) => Err(Problem::new(StatusCode::NOT_FOUND, detail)),
        Ok(Err(Refusal::Invalid(detail))) => Err(Problem::new(StatusCode::BAD_REQUEST, detail)),
        Err(fault) => {
            let detail = format!("the trace failed, which is a fault of this program: {fault}");
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail))
        }
    }
}
