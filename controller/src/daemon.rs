//! Puts the tasks together: store, policy, hub, listener, REST.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info};

use crate::api::{self, Api};
use crate::core::{BRIDGES_MAX, Memory, Settings};
use crate::hub;
use crate::listen::{self, Limits, Shared};
use crate::metrics::Exposition;
use crate::policy_commands;
use crate::policy_watch::{Policies, PolicyError};
use crate::problems::Problems;
use crate::snapshot::PolicyStatus;
use crate::store::{FileStore, Store, StoreError};

/// What a daemon is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Policy files and folders; none: the policy is the store's.
    pub policy: Vec<PathBuf>,
    /// Where bridges connect to.
    pub openflow: SocketAddr,
    /// Where REST is served.
    pub rest: SocketAddr,
    /// Folder of the store.
    pub state: PathBuf,
    /// How long bridges may take.
    pub limits: Limits,
}

/// Why a daemon can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The first policy can't come into force.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// An address can't be listened at.
    #[error(
        "can't listen at {address}: {error}; if another program has that port, stop it or choose another with {flag}"
    )]
    Listen {
        /// The flag that gave it.
        flag: &'static str,
        /// Which.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// REST would be open to the network.
    #[error(
        "REST can't be served at {0}: it has no authentication, so only loopback addresses are allowed; \
         use --rest 127.0.0.1:{port} and reach it over SSH", port = .0.port()
    )]
    Exposed(SocketAddr),
    /// A thread died.
    #[error("starting failed, which is a fault of this program: {0}")]
    Thread(#[from] tokio::task::JoinError),
    /// The system gives no random numbers.
    #[error("can't make a key for probes: the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// Signals can't be received.
    #[error("can't receive signals: {0}")]
    Signals(io::Error),
}

/// A running daemon.
#[derive(Debug)]
pub struct Handle {
    /// Where bridges connect to.
    pub openflow_addr: SocketAddr,
    /// Where REST is served.
    pub rest_addr: SocketAddr,
    /// What its sessions share.
    pub shared: Arc<Shared>,
    /// The policy in force.
    pub policy: watch::Receiver<PolicyStatus>,
    reload: mpsc::Sender<()>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<&'static str>,
}

/// Starts a daemon.
///
/// # Errors
/// [`StartError`]; nothing runs then.
pub async fn start(options: Options) -> Result<Handle, StartError> {
    let started = Instant::now();
    if !options.rest.ip().is_loopback() {
        return Err(StartError::Exposed(options.rest));
    }
    let openflow = bind("--openflow", options.openflow).await?;
    let rest = bind("--rest", options.rest).await?;
    let opened = tokio::task::spawn_blocking(move || {
        let store = FileStore::open(&options.state)?;
        let memory = store.memory()?;
        Ok::<_, StoreError>((store, memory))
    });
    let (store, memory) = opened.await??;
    let mut probe_key = [0; 32];
    getrandom::fill(&mut probe_key).map_err(StartError::Random)?;
    let settings = Settings { probe_key, memory, bridges_max: BRIDGES_MAX };
    let store: Arc<dyn Store> = Arc::new(store);

    let problems = Arc::new(Problems::default());
    let (stop, stopped) = watch::channel(false);
    let (inputs, queue) = mpsc::channel(hub::QUEUE);
    let (publish, published) = watch::channel(None);
    let (save, saved) = watch::channel(settings.memory.clone());
    let (reload, reloads) = mpsc::channel(1);
    let shared = Arc::new(Shared::new(inputs.clone(), options.limits, Arc::clone(&problems)));
    let exposition = Arc::new(Exposition::new(&shared, published.clone(), Arc::clone(&problems)));
    let (asks, asked) = mpsc::channel(policy_commands::QUEUE);
    let (policy, keeper) = (options.policy, Arc::clone(&store));
    let policies =
        Policies::start(policy, keeper, inputs.clone(), Arc::clone(&problems), Arc::clone(&shared.metrics)).await?;
    let texts = policies.texts();
    let mut handle = Handle {
        openflow_addr: openflow.1,
        rest_addr: rest.1,
        shared: Arc::clone(&shared),
        policy: policies.status(),
        reload,
        stop,
        tasks: JoinSet::new(),
    };
    handle.spawn("hub", hub::run(settings, queue, publish, save, stopped.clone()));
    handle.spawn("store", keep(store, saved, Arc::clone(&problems)));
    handle.spawn("policy watcher", policies.run(reloads, asked, stopped.clone()));
    handle.spawn("listener", listen::serve(openflow.0, shared, stopped.clone()));
    let patience = options.limits.request;
    // Whoever reads the first document reads of the policy in force.
    let _ = published.clone().changed().await;
    let router = Api { published, inputs, asks, texts, patience, problems, started, exposition }.router();
    handle.spawn("REST server", api::serve(rest.0, router, patience, stopped));
    info!("bridges may connect to {}, REST is served at http://{}", handle.openflow_addr, handle.rest_addr);
    Ok(handle)
}

impl Handle {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }

    /// Looks at the policy files again.
    pub fn reload(&self) {
        // A full queue holds the same wish already.
        let _ = self.reload.try_send(());
    }

    /// Waits until a task ends that should not.
    pub async fn failed(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Ok(name)) => format!("the {name} ended"),
            Some(Err(fault)) => fault.to_string(),
            None => "nothing runs".into(),
        }
    }

    /// Stops everything: listeners and sessions close, bridges keep their entries, and what is to be kept is written.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(fault) = ended {
                error!("a task failed while stopping: {fault}");
            }
        }
    }
}

/// Runs a daemon until it is told to end. Gives whether that was in order.
///
/// # Errors
/// [`StartError`].
pub async fn serve(options: Options) -> Result<bool, StartError> {
    let receive = |kind| signal(kind).map_err(StartError::Signals);
    let mut hangup = receive(SignalKind::hangup())?;
    let mut terminate = receive(SignalKind::terminate())?;
    let mut interrupt = receive(SignalKind::interrupt())?;
    let mut handle = start(options).await?;
    let in_order = loop {
        tokio::select! {
            _ = hangup.recv() => handle.reload(),
            _ = terminate.recv() => break true,
            _ = interrupt.recv() => break true,
            failure = handle.failed() => {
                error!("stopping, because of a fault of this program: {failure}; bridges keep what they have");
                break false;
            }
        }
    };
    info!("stopping; bridges keep what they have");
    handle.stop().await;
    Ok(in_order)
}

/// How often it is tried again to keep what couldn't be kept.
const AGAIN: Duration = Duration::from_secs(5);

async fn bind(flag: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let listen = |error| StartError::Listen { flag, address, error };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    Ok((listener, bound))
}

/// Keeps the newest of what the core remembers, until the hub has ended and all is written.
/// What can't be kept is tried again.
async fn keep(store: Arc<dyn Store>, mut saved: watch::Receiver<Memory>, problems: Arc<Problems>) {
    let mut failed = false;
    loop {
        tokio::select! {
            changed = saved.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN), if failed => {}
        }
        let memory = saved.borrow_and_update().clone();
        let writer = Arc::clone(&store);
        let written = tokio::task::spawn_blocking(move || writer.keep_memory(&memory)).await;
        let failure = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(fault) => Some(fault.to_string()),
        };
        if let Some(failure) = failure.as_ref().filter(|_| !failed) {
            error!("numbers given to tenants aren't kept, they may differ after a restart: {failure}");
        }
        failed = failure.is_some();
        problems.set("store", failure.map(|text| format!("numbers given to tenants aren't kept: {text}")));
    }
}
