//! Brings policies into force: at the start, and whenever their files change. A policy is first kept, then it counts;
//! one that has errors changes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use apps::policy::Source;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::core::Event;
use crate::hub::Input;
use crate::metrics::{Metrics, Reload};
use crate::policy_files::{self, BadPolicy};
use crate::problems::{Problems, utc};
use crate::snapshot::PolicyStatus;
use crate::store::{Kept, Store, StoreError};

/// From the first sign of a change until the files are read: saving takes several steps.
const SETTLE: Duration = Duration::from_millis(200);

/// Why a policy can't come into force.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It has errors.
    #[error(transparent)]
    Bad(#[from] BadPolicy),
    /// The one that was kept is of no use to this version.
    #[error("the policy kept in the state folder can't be used; name policy files with --policy instead:\n{0}")]
    Kept(BadPolicy),
    /// It can't be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread died.
    #[error("reading the policy failed, which is a fault of this program: {0}")]
    Thread(#[from] tokio::task::JoinError),
    /// The hub is gone.
    #[error("the controller is stopping")]
    Stopping,
}

/// Where policies come from, and which one is in force.
pub struct Policies {
    paths: Vec<PathBuf>,
    store: Arc<dyn Store>,
    hub: mpsc::Sender<Input>,
    problems: Arc<Problems>,
    metrics: Arc<Metrics>,
    status: watch::Sender<PolicyStatus>,
    in_force: Kept,
    /// Texts that were refused, so that the same aren't reported again.
    refused: Option<Result<Vec<Source>, BadPolicy>>,
}

impl Policies {
    /// Brings the first policy into force: that of the files if there are any named, else the store's.
    ///
    /// # Errors
    /// [`PolicyError`], for which the daemon should not start.
    pub async fn start(
        paths: Vec<PathBuf>,
        store: Arc<dyn Store>,
        hub: mpsc::Sender<Input>,
        problems: Arc<Problems>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, PolicyError> {
        let reader = Arc::clone(&store);
        let kept = tokio::task::spawn_blocking(move || reader.policy()).await??;
        let (files, known) = (!paths.is_empty(), kept.is_some());
        let in_force = kept.unwrap_or_default();
        let sources = in_force.sources.clone();
        let status = watch::Sender::new(PolicyStatus::default());
        let mut policies = Self { paths, store, hub, problems, metrics, status, in_force, refused: None };
        if files {
            let sources = policies.read().await?;
            policies.adopt(sources).await?;
        } else {
            if !known {
                warn!("there is no policy yet, so no port belongs to anybody; name policy files with --policy");
            }
            policies.adopt(sources).await.map_err(|error| match error {
                PolicyError::Bad(bad) => PolicyError::Kept(bad),
                other => other,
            })?;
        }
        Ok(policies)
    }

    /// The policy in force, as it changes.
    pub fn status(&self) -> watch::Receiver<PolicyStatus> {
        self.status.subscribe()
    }

    /// Watches the files, and looks at them when `reload` says so, until `stop` changes.
    pub async fn run(mut self, mut reload: mpsc::Receiver<()>, mut stop: watch::Receiver<bool>) {
        let (sign, mut signs) = mpsc::channel(1);
        let mut watcher = watcher(sign);
        self.watch(watcher.as_mut());
        loop {
            tokio::select! {
                _ = stop.changed() => return,
                Some(()) = signs.recv() => {
                    tokio::time::sleep(SETTLE).await;
                    while signs.try_recv().is_ok() {}
                }
                Some(()) = reload.recv() => info!("looking at the policy files again, as asked"),
            }
            // Folders may have been replaced, and links may lead elsewhere.
            self.watch(watcher.as_mut());
            if !self.paths.is_empty() {
                self.reload().await;
            }
        }
    }

    fn watch(&self, watcher: Option<&mut RecommendedWatcher>) {
        let Some(watcher) = watcher else { return };
        for folder in folders(&self.paths) {
            // One that isn't there shows up in its own parent; one that can't be watched is reported by reading it.
            let _ = watcher.watch(&folder, RecursiveMode::NonRecursive);
        }
    }

    async fn reload(&mut self) {
        let read = self.read().await;
        let attempt = match &read {
            Ok(sources) => Some(Ok(sources.clone())),
            Err(PolicyError::Bad(bad)) => Some(Err(bad.clone())),
            Err(_) => None,
        };
        if attempt.is_some() && attempt == self.refused {
            self.metrics.reload(Reload::Refused).inc();
            return;
        }
        let done = match read {
            Ok(sources) => self.adopt(sources).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => {
                self.refused = None;
                self.problems.set("policy", None);
            }
            Err(PolicyError::Stopping) => {}
            Err(refusal) => {
                self.metrics.reload(Reload::Refused).inc();
                self.refused = attempt.filter(|_| matches!(refusal, PolicyError::Bad(_)));
                let text = refusal.to_string();
                error!("the policy files can't be used, the last good policy stays in force:\n{text}");
                // What, and where.
                let first = text.lines().take(2).map(str::trim).collect::<Vec<_>>().join(" ");
                let since = utc(SystemTime::now());
                self.problems.set(
                    "policy",
                    Some(format!(
                        "policy files have errors since {since}; the last good policy stays in force: {first}"
                    )),
                );
            }
        }
    }

    async fn read(&self) -> Result<Vec<Source>, PolicyError> {
        let paths = self.paths.clone();
        Ok(tokio::task::spawn_blocking(move || policy_files::read(&paths)).await??)
    }

    async fn adopt(&mut self, sources: Vec<Source>) -> Result<(), PolicyError> {
        let first = self.status.borrow().source.is_empty();
        if !first && sources == self.in_force.sources {
            self.metrics.reload(Reload::Unchanged).inc();
            return Ok(());
        }
        let digest = policy_files::digest(&sources);
        let step = u64::from(digest != self.in_force.digest && !(self.paths.is_empty() && sources.is_empty()));
        let kept = Kept { generation: self.in_force.generation + step, digest, sources };
        let (store, keep) = (Arc::clone(&self.store), kept != self.in_force && !kept.sources.is_empty());
        let (policy, warnings, kept) = tokio::task::spawn_blocking(move || {
            let (policy, warnings) = policy_files::load(&kept.sources, false)?;
            if keep {
                store.keep_policy(&kept)?;
            }
            Ok::<_, PolicyError>((policy, warnings, kept))
        })
        .await??;
        for warning in warnings {
            warn!("{warning}");
        }
        let source = if self.paths.is_empty() { "store" } else { "files" };
        let status =
            PolicyStatus { generation: kept.generation, digest: kept.digest.clone(), source: source.to_owned() };
        let event = Event::Policy(Arc::new(policy), status.clone());
        self.hub.send(Input::Event(event, None)).await.map_err(|_| PolicyError::Stopping)?;
        info!("policy generation {} is in force, from the {source}", kept.generation);
        self.metrics.reload(Reload::Applied).inc();
        self.in_force = kept;
        self.status.send_replace(status);
        Ok(())
    }
}

fn watcher(sign: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let told = move |event: notify::Result<notify::Event>| {
        // Our own reading is no change. A full queue holds a sign already.
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            let _ = sign.try_send(());
        }
    };
    match notify::recommended_watcher(told) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            warn!("policy files can't be watched ({error}); after a change send SIGHUP to this process");
            None
        }
    }
}

/// The folders in which a change of these files shows: their own and, where they are symbolic links, those they lead to.
fn folders(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    let mut add = |path: &Path| {
        for path in [Some(path.to_owned()), path.canonicalize().ok()].into_iter().flatten() {
            match path.parent() {
                Some(parent) if parent.as_os_str().is_empty() => _ = all.insert(PathBuf::from(".")),
                Some(parent) => _ = all.insert(parent.to_owned()),
                None => {}
            }
        }
    };
    for path in paths {
        add(path);
        if path.is_dir() {
            add(&path.join("any"));
            for file in policy_files::folder(path).unwrap_or_default() {
                add(&file);
            }
        }
    }
    all
}
