//! Brings policies into force: at the start, whenever their files change, and, where the store is their source, when
//! somebody asks for it or doesn't confirm in time. A policy is first kept, then it counts; one that has errors changes
//! nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use apps::policy::{Policy, Source};
use apps::problems::Changes;
use apps::trace::Situation;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;
use tracing::{error, info, warn};

use crate::history::{Confirmation, History, Kept};
use crate::hub::Input;
use crate::metrics::{Metrics, Reload};
use crate::policy_commands::{Answer, Ask, Command, Refusal, Returned};
use crate::policy_files::{self, BadPolicy};
use crate::problems::{Problems, utc};
use crate::snapshot::PolicyStatus;
use crate::store::{Store, StoreError};

/// From the first sign of a change until the files are read: saving takes several steps.
const SETTLE: Duration = Duration::from_millis(200);

/// How often it is tried again to keep what couldn't be kept.
const AGAIN: Duration = Duration::from_secs(5);

/// New problems of a policy, as far as the log tells; whoever brought it into force is told all.
const PROBLEMS_TOLD: usize = 20;

/// What is to be told of a policy that came into force.
#[derive(Debug, Default)]
struct Brought {
    /// What looks odd about it.
    warnings: Vec<String>,
    /// Problems that come and end with it.
    problems: Changes,
}

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
    texts: watch::Sender<Arc<Kept>>,
    history: History,
    /// Is the history kept?
    kept: bool,
    /// Until when the policy in force has to be confirmed.
    deadline: Option<Instant>,
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
        let files = !paths.is_empty();
        let history = match tokio::task::spawn_blocking(move || reader.policies()).await? {
            // The files tell all that matters.
            Err(lost @ StoreError::Lost { .. }) if files => {
                warn!("{lost}; the policy files are used");
                History::default()
            }
            read => read?,
        };
        let (status, texts) = (watch::Sender::new(PolicyStatus::default()), watch::Sender::default());
        let (kept, deadline, refused) = (true, None, None);
        let mut policies =
            Self { paths, store, hub, problems, metrics, status, texts, history, kept, deadline, refused };
        if files {
            if policies.history.confirmation.is_some() {
                warn!("a policy waited to be confirmed; the policy files replace it");
            }
            let sources = policies.read().await?;
            let next = policies.history.confirmed().applied(sources, None);
            policies.bring(next, true).await?;
            return Ok(policies);
        }
        let now = SystemTime::now();
        let overdue = policies.history.confirmation.is_some_and(|confirmation| confirmation.left(now).is_zero());
        let first = match policies.history.undone().filter(|_| overdue) {
            Some(undone) => {
                warn!("nobody confirmed policy generation {} in time", policies.history.in_force.generation);
                undone
            }
            None => policies.history.applied(policies.history.in_force.sources.clone(), None),
        };
        if first.in_force.sources.is_empty() {
            warn!(
                "there is no policy yet, so no port belongs to anybody; bring one into force with `espalier apply`, or \
                 name policy files with --policy"
            );
        }
        // What is only to be noted down must not keep a controller from starting.
        policies.bring(first, false).await.map_err(|error| match error {
            PolicyError::Bad(bad) => PolicyError::Kept(bad),
            other => other,
        })?;
        Ok(policies)
    }

    /// The policy in force, as it changes.
    pub fn status(&self) -> watch::Receiver<PolicyStatus> {
        self.status.subscribe()
    }

    /// Its texts.
    pub fn texts(&self) -> watch::Receiver<Arc<Kept>> {
        self.texts.subscribe()
    }

    /// Watches the files, looks at them when `reload` says so, and does what is asked for, until `stop` changes.
    pub async fn run(
        mut self,
        mut reload: mpsc::Receiver<()>,
        mut asks: mpsc::Receiver<Ask>,
        mut stop: watch::Receiver<bool>,
    ) {
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
                Some(ask) = asks.recv() => {
                    // Whoever asked may be gone.
                    let _ = ask.answer.send(self.command(ask.command).await);
                    continue;
                }
                () = sleep_until(self.deadline.unwrap_or_else(Instant::now).into()), if self.deadline.is_some() => {
                    self.time_is_up().await;
                    continue;
                }
                () = tokio::time::sleep(AGAIN), if !self.kept => {
                    self.keep().await;
                    continue;
                }
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
            Ok(sources) => self.bring(self.history.applied(sources, None), true).await.map(drop),
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

    /// Somebody wants something of the policy.
    async fn command(&mut self, command: Command) -> Result<Answer, Refusal> {
        if !self.paths.is_empty() {
            return Err(Refusal::Files(self.paths.clone()));
        }
        let generation = self.history.in_force.generation;
        let (mut brought, mut returned) = (Brought::default(), None);
        match command {
            Command::Apply { sources, only_if, confirm_within } => {
                if only_if.is_some_and(|digests| !digests.allow(&self.history.in_force.digest)) {
                    return Err(Refusal::Changed(self.history.in_force.digest.clone()));
                }
                if let Some(confirmation) = self.history.confirmation {
                    return Err(Refusal::Waiting { generation, until: confirmation.end() });
                }
                let confirmation = confirm_within.map(|time| Confirmation::within(SystemTime::now(), time));
                let next = self.history.applied(sources, confirmation);
                brought = self.bring(next, true).await.inspect_err(|_| {
                    self.metrics.reload(Reload::Refused).inc();
                })?;
            }
            Command::Confirm => {
                if self.history.confirmation.is_none() {
                    return Err(Refusal::NothingToConfirm(generation));
                }
                let next = self.history.confirmed();
                let (store, kept) = (Arc::clone(&self.store), next.clone());
                tokio::task::spawn_blocking(move || store.keep_policies(&kept)).await.map_err(PolicyError::from)??;
                info!("policy generation {generation} is confirmed");
                (self.history, self.kept) = (next, true);
                self.await_confirmation();
            }
            Command::Undo { empty } => {
                let next = self.history.undone().ok_or(Refusal::NothingToUndo)?;
                let former = self.history.former.last().map_or(0, |former| former.generation);
                let sources = next.in_force.sources.clone();
                let files = sources.iter().map(|source| source.name.clone()).collect();
                let (policy, _) = load(sources).await?;
                if policy.tenants.is_empty() && !empty {
                    return Err(Refusal::Empty(former));
                }
                info!("policy generation {generation} is undone, as asked: generation {former} returns");
                brought = self.bring(next, true).await?;
                let tenants = policy.tenants.iter().map(|tenant| tenant.name.clone()).collect();
                returned = Some(Returned { generation: former, files, tenants });
            }
        }
        let in_force = &self.history.in_force;
        Ok(Answer {
            generation: in_force.generation,
            digest: in_force.digest.clone(),
            changed: in_force.generation != generation,
            confirm_until: self.history.confirmation.map(|confirmation| utc(confirmation.end())),
            returned,
            problems: brought.problems,
            warnings: brought.warnings,
        })
    }

    /// Nobody has confirmed the policy in force, so the one before it returns.
    async fn time_is_up(&mut self) {
        self.deadline = None;
        let generation = self.history.in_force.generation;
        warn!("nobody confirmed policy generation {generation} in time, so the one before it returns");
        let Some(next) = self.history.undone() else { return };
        if let Err(error) = self.bring(next, false).await {
            error!("the policy before generation {generation} can't return: {error}");
            self.problems.set(
                "confirmation",
                Some(format!(
                    "policy generation {generation} wasn't confirmed in time, but the one before it can't return: {error}"
                )),
            );
        }
    }

    /// Brings the policy of a history into force, unless it is. If the history can't be kept, that is an error where it
    /// must be kept, else a problem. When this returns, the documents are of this policy, unless it is the first one.
    async fn bring(&mut self, next: History, must_keep: bool) -> Result<Brought, PolicyError> {
        let first = self.status.borrow().source.is_empty();
        if !first && next == self.history {
            self.metrics.reload(Reload::Unchanged).inc();
            return Ok(Brought::default());
        }
        let (policy, mut warnings) = load(next.in_force.sources.clone()).await?;
        // Before the first one there is no hub.
        let problems = if first { Changes::default() } else { self.outlook(&policy, &mut warnings).await? };
        let (store, keep) = (Arc::clone(&self.store), next != self.history);
        let (unkept, next) = tokio::task::spawn_blocking(move || {
            let unkept = if keep { store.keep_policies(&next).err() } else { None };
            match unkept {
                Some(error) if must_keep => Err(PolicyError::Store(error)),
                unkept => Ok((unkept, next)),
            }
        })
        .await??;
        for warning in &warnings {
            warn!("{warning}");
        }
        let in_force = &next.in_force;
        let source = if self.paths.is_empty() { "store" } else { "files" };
        let status = PolicyStatus {
            generation: in_force.generation,
            digest: in_force.digest.clone(),
            source: source.to_owned(),
        };
        let (done, shown) = oneshot::channel();
        let input = Input::Policy(policy, status.clone(), done);
        self.hub.send(input).await.map_err(|_| PolicyError::Stopping)?;
        if !first {
            shown.await.map_err(|_| PolicyError::Stopping)?;
        }
        info!("policy generation {} is in force, from the {source}", in_force.generation);
        for problem in problems.new.iter().take(PROBLEMS_TOLD) {
            warn!("new with policy generation {}: {problem}", in_force.generation);
        }
        self.metrics.reload(Reload::Applied).inc();
        self.texts.send_replace(Arc::new(in_force.clone()));
        self.status.send_replace(status);
        self.history = next;
        self.told_kept(unkept.as_ref());
        self.await_confirmation();
        Ok(Brought { warnings, problems })
    }

    /// The problems that come and end with a policy.
    async fn outlook(&self, policy: &Arc<Policy>, warnings: &mut Vec<String>) -> Result<Changes, PolicyError> {
        let (answer, answered) = oneshot::channel();
        self.hub.send(Input::Situation(answer)).await.map_err(|_| PolicyError::Stopping)?;
        let Some(situation) = answered.await.map_err(|_| PolicyError::Stopping)? else { return Ok(Changes::default()) };
        warnings.extend(situation.settling.then(|| Situation::UNSETTLED.to_owned()));
        let policy = Arc::clone(policy);
        let found = tokio::task::spawn_blocking(move || situation.problems(&policy));
        // Whatever is wrong with looking for them mustn't keep a policy from returning.
        Ok(found.await.unwrap_or_else(|fault| {
            error!("new problems can't be looked for, which is a fault of this program: {fault}");
            Changes::default()
        }))
    }

    /// Tries again to keep what couldn't be kept.
    async fn keep(&mut self) {
        let (store, history) = (Arc::clone(&self.store), self.history.clone());
        if let Ok(kept) = tokio::task::spawn_blocking(move || store.keep_policies(&history)).await {
            self.told_kept(kept.err().as_ref());
        }
    }

    fn told_kept(&mut self, unkept: Option<&StoreError>) {
        self.kept = unkept.is_none();
        let say = |error| format!("the policy in force isn't kept, another one may return after a restart: {error}");
        self.problems.set("kept policy", unkept.map(say));
    }

    /// How the history says how long the policy in force may still be confirmed.
    fn await_confirmation(&mut self) {
        let now = SystemTime::now();
        let confirmation = self.history.confirmation;
        self.deadline = confirmation.map(|confirmation| Instant::now() + confirmation.left(now));
        let generation = self.history.in_force.generation;
        let say = |confirmation: Confirmation| {
            let end = utc(confirmation.end());
            format!("policy generation {generation} waits for `espalier confirm`; at {end} the one before it returns")
        };
        self.problems.set("confirmation", confirmation.map(say));
    }
}

/// A policy, and what looks odd about it.
async fn load(sources: Vec<Source>) -> Result<(Arc<Policy>, Vec<String>), PolicyError> {
    let loaded = tokio::task::spawn_blocking(move || policy_files::load(&sources, false)).await?;
    let (policy, warnings) = loaded?;
    Ok((Arc::new(policy), warnings))
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
