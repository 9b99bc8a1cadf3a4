//! Connections of REST clients: bounded in number, and closed if they don't get on with their request.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::debug;

/// Most connections at a time; further ones wait.
const CONNECTIONS_MAX: usize = 512;

/// Serves until `stop` changes. A client has `head` for the head of a request, and for the pause between two.
pub async fn serve(listener: TcpListener, router: Router, head: Duration, mut stop: watch::Receiver<bool>) {
    let gate = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            let permit = Arc::clone(&gate).acquire_owned().await.map_err(std::io::Error::other)?;
            listener.accept().await.map(|(stream, _)| (stream, permit))
        };
        let accepted = tokio::select! {
            accepted = accept => accepted,
            Some(_) = connections.join_next() => continue,
            _ = stop.changed() => return,
        };
        let Ok((stream, permit)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let _permit = permit;
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(head);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                debug!("a REST connection failed: {error}");
            }
        });
    }
}
