//! What has to outlive the daemon: what the core remembers, and the policies that are and were in force. Each is a file
//! that is replaced as a whole, under a checksum. After whatever happens to the daemon or the disk there is the old one or
//! the new one; a file that is damaged or gone is an error, never an empty policy.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::core::Memory;
use crate::history::History;

/// Everything that the store can't do, for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder can't be made or used.
    #[error("can't use the state folder {}: {error}; name another one with --state, or make it writable for this user", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another daemon has it.
    #[error("another espalier is running with the state folder {}; stop it, or name another folder with --state", .0.display())]
    InUse(PathBuf),
    /// A file can't be read.
    #[error("can't read the state file {}: {error}; make it readable for this user", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file can't be replaced. What it held before, it still holds.
    #[error("can't write the state file {}: {error}; make room, or make its folder writable for this user", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file isn't as it was written.
    #[error("the state file {} {why}. Bridges go on as they were told. Restore it from a copy; {remedy}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to do if there is no copy.
        remedy: &'static str,
    },
    /// A file is gone that was there.
    #[error("the state file {} is gone. Bridges go on as they were told. Restore it from a copy; {remedy}", path.display())]
    Lost {
        /// Which.
        path: PathBuf,
        /// What to do if there is no copy.
        remedy: &'static str,
    },
}

/// Where things are kept. All methods block.
pub trait Store: Send + Sync {
    /// What the core remembers.
    ///
    /// # Errors
    /// [`StoreError`].
    fn memory(&self) -> Result<Memory, StoreError>;
    /// Keeps what the core remembers.
    ///
    /// # Errors
    /// [`StoreError`]; the old is still kept.
    fn keep_memory(&self, memory: &Memory) -> Result<(), StoreError>;
    /// The policies that are and were in force.
    ///
    /// # Errors
    /// [`StoreError`].
    fn policies(&self) -> Result<History, StoreError>;
    /// Keeps them.
    ///
    /// # Errors
    /// [`StoreError`]; the old ones are still kept.
    fn keep_policies(&self, history: &History) -> Result<(), StoreError>;
}

/// A file of the store.
struct Record {
    name: &'static str,
    remedy: &'static str,
}

const POLICIES: Record = Record {
    name: "policy",
    remedy: "if there is none, move it away and start once with --policy and the policy's files",
};
const MEMORY: Record = Record {
    name: "memory",
    remedy: "if there is none, move the whole folder away: tenants whose policy names no key may then get another, which \
             interrupts them",
};

/// The file that only one daemon may hold. It has content as soon as the others are there, and tells a first start from
/// a store that lost something.
const LOCK: &str = "lock";

/// How a record's first line begins; the checksum of what follows it comes next.
const HEAD: &str = "espalier state 1 sha256:";

/// A store in a folder.
#[derive(Debug)]
pub struct FileStore {
    folder: PathBuf,
    _lock: File,
}

impl FileStore {
    /// Opens a folder, and makes it and its files if this is the first time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let unusable = |error| StoreError::Folder { path: folder.to_owned(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
        let mut options = OpenOptions::new();
        let mut lock = options.create(true).append(true).mode(0o600).open(folder.join(LOCK)).map_err(unusable)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StoreError::InUse(folder.to_owned()),
            TryLockError::Error(error) => unusable(error),
        })?;
        let begun = lock.metadata().map_err(unusable)?.len() > 0;
        let store = Self { folder: folder.to_owned(), _lock: lock.try_clone().map_err(unusable)? };
        if !begun {
            // Killed in between, this goes on where it was: what is there is only added to, in this order.
            let there = |record: &Record| store.path(record).try_exists().map_err(unusable);
            match (there(&POLICIES)?, there(&MEMORY)?) {
                (true, true) => {}
                (true, false) => store.keep_memory(&Memory::default())?,
                (false, false) => {
                    store.keep_policies(&History::default())?;
                    store.keep_memory(&Memory::default())?;
                }
                (false, true) => return Err(store.lost(&POLICIES)),
            }
            lock.write_all(b"begun\n").and_then(|()| lock.sync_all()).map_err(unusable)?;
        }
        Ok(store)
    }

    fn path(&self, record: &Record) -> PathBuf {
        self.folder.join(record.name)
    }

    fn lost(&self, record: &Record) -> StoreError {
        StoreError::Lost { path: self.path(record), remedy: record.remedy }
    }

    fn read<T: DeserializeOwned>(&self, record: &Record) -> Result<T, StoreError> {
        let path = self.path(record);
        let mut octets = Vec::new();
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut octets)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(self.lost(record)),
            Err(error) => return Err(StoreError::Read { path, error }),
        }
        let damaged = |why| StoreError::Damaged { path: path.clone(), why, remedy: record.remedy };
        let end = octets.iter().position(|octet| *octet == b'\n').unwrap_or(octets.len());
        let (head, content) = octets.split_at(end);
        let content = content.get(1..).unwrap_or_default();
        if head != self::head(content).as_bytes() {
            return Err(damaged("isn't as it was written: its checksum is wrong".into()));
        }
        serde_json::from_slice(content).map_err(|error| damaged(format!("is of another version of espalier: {error}")))
    }

    fn write(&self, record: &Record, value: &impl Serialize) -> Result<(), StoreError> {
        let (path, new) = (self.path(record), self.folder.join(format!("{}.new", record.name)));
        let write = || {
            let content = serde_json::to_vec(value)?;
            let mut options = OpenOptions::new();
            let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(format!("{}\n", head(&content)).as_bytes())?;
            file.write_all(&content)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            // The name is on the disk, too, and that of the folder.
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error| {
            // A part of a file only takes room.
            let _ = std::fs::remove_file(&new);
            StoreError::Write { path: path.clone(), error }
        })
    }
}

/// The first line of a record.
fn head(content: &[u8]) -> String {
    let mut head = HEAD.to_owned();
    for octet in Sha256::digest(content) {
        let _ = write!(head, "{octet:02x}");
    }
    head
}

impl Store for FileStore {
    fn memory(&self) -> Result<Memory, StoreError> {
        self.read(&MEMORY)
    }

    fn keep_memory(&self, memory: &Memory) -> Result<(), StoreError> {
        self.write(&MEMORY, memory)
    }

    fn policies(&self) -> Result<History, StoreError> {
        self.read(&POLICIES)
    }

    fn keep_policies(&self, history: &History) -> Result<(), StoreError> {
        self.write(&POLICIES, history)
    }
}
