//! `POST /v1/trace`: the way of one frame.

use apps::trace::{Refusal, Request};
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::ask::compute;
use super::problem::Problem;
use super::{Api, json};

/// Longest body that is read.
const BODY_MAX: usize = 64 << 10;

/// Its body is JSON, whatever its header says.
pub(super) async fn trace(State(api): State<Api>, body: Body) -> Result<Response, Problem> {
    let body = api.body(body, BODY_MAX).await?;
    let request: Request = serde_json::from_slice(&body).map_err(|error| {
        let example =
            r#"{"tenant": "green", "from": "host1/green-1", "to": "10.0.0.2", "protocol": "tcp", "port": 80}"#;
        Problem::new(StatusCode::BAD_REQUEST, format!("the body is no request for a trace: {error}; one is {example}"))
    })?;
    let situation = api.situation().await?;
    match compute(move || situation.trace(&request).map(|trace| json(&trace))).await? {
        Ok(response) => Ok(response),
        Err(Refusal::NotFound(detail)) => Err(Problem::new(StatusCode::NOT_FOUND, detail)),
        Err(Refusal::Invalid(detail)) => Err(Problem::new(StatusCode::BAD_REQUEST, detail)),
    }
}
