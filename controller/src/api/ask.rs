//! What calls with a body have in common: the body, and what is asked of the hub. What it gives is made when somebody asks,
//! because it is much and rarely needed; what follows from it is found on a thread that nobody waits for.

use std::sync::Arc;

use apps::trace::Situation;
use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Api;
use super::problem::Problem;
use crate::hub::Input;

impl Api {
    /// The body of a request, in the time that it may take.
    pub(super) async fn body(&self, body: Body, max: usize) -> Result<Vec<u8>, Problem> {
        let body = timeout(self.patience, to_bytes(body, max)).await.map_err(|_| {
            Problem::new(StatusCode::REQUEST_TIMEOUT, format!("the body isn't complete after {:?}", self.patience))
        })?;
        let body = body.map_err(|error| {
            let detail = format!("the body can't be read: {error}; it has {max} bytes at most");
            Problem::new(StatusCode::BAD_REQUEST, detail)
        })?;
        Ok(body.into())
    }

    /// The fabric and what it should be, as of now.
    pub(super) async fn situation(&self) -> Result<Arc<Situation>, Problem> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.inputs.send(Input::Situation(answer)).await.ok()?;
            answered.await.ok()
        };
        let situation = timeout(self.patience, asked).await.ok().flatten();
        let situation = situation.ok_or_else(|| unavailable("the controller has too much to do, or stops"))?;
        situation.ok_or_else(|| unavailable("no policy is in force yet"))
    }
}

/// It may be otherwise in a moment.
pub(super) fn unavailable(why: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{why}; try again in a moment"))
}

/// Computes something, while others are served.
pub(super) async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|fault| {
        let detail = format!("the computation failed, which is a fault of this program: {fault}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    })
}
