//! What has to outlive the daemon: what the core remembers, and the last good policy. Each commit is
//! atomic and on the disk when it returns.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use apps::policy::Source;
use redb::{Database, DatabaseError, ReadableDatabase, TableDefinition, TableError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::core::Memory;

/// The policy in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Rises by one with each policy.
    pub generation: u64,
    /// SHA-256 of the texts, in hex.
    pub digest: String,
    /// The files.
    pub sources: Vec<Source>,
}

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
    /// The file can't be used.
    #[error("can't use the state file {}: {error}; restore it from a copy, or move it away to start with none", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: Box<dyn std::error::Error + Send + Sync>,
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
    /// The last good policy, if there was one.
    ///
    /// # Errors
    /// [`StoreError`].
    fn policy(&self) -> Result<Option<Kept>, StoreError>;
    /// Keeps the last good policy.
    ///
    /// # Errors
    /// [`StoreError`]; the old one is still kept.
    fn keep_policy(&self, kept: &Kept) -> Result<(), StoreError>;
}

const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("espalier");
const MEMORY: &str = "memory";
const POLICY: &str = "policy";

/// A store in one file.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    database: Database,
}

impl FileStore {
    /// Opens `espalier.redb` in a folder, and makes both if they aren't there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let unusable = |error| StoreError::Folder { path: folder.to_owned(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
        let path = folder.join("espalier.redb");
        OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(unusable)?;
        let opened = Database::builder().set_cache_size(4 << 20).create(&path);
        match opened {
            Ok(database) => Ok(Self { path, database }),
            Err(DatabaseError::DatabaseAlreadyOpen) => Err(StoreError::InUse(folder.to_owned())),
            Err(error) => Err(StoreError::File { path, error: error.into() }),
        }
    }

    fn fail(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        StoreError::File { path: self.path.clone(), error: error.into() }
    }

    fn read(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let transaction = self.database.begin_read().map_err(|error| self.fail(error))?;
        let table = match transaction.open_table(TABLE) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(self.fail(error)),
        };
        let value = table.get(key).map_err(|error| self.fail(error))?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn write(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            transaction.open_table(TABLE)?.insert(key, value)?;
            transaction.commit()?;
            Ok(())
        };
        write().map_err(|error| self.fail(error))
    }

    fn read_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StoreError> {
        let octets = self.read(key)?;
        octets.map(|octets| serde_json::from_slice(&octets).map_err(|error| self.fail(error))).transpose()
    }

    fn write_json(&self, key: &str, value: &impl Serialize) -> Result<(), StoreError> {
        let octets = serde_json::to_vec(value).map_err(|error| self.fail(error))?;
        self.write(key, &octets)
    }
}

impl Store for FileStore {
    fn memory(&self) -> Result<Memory, StoreError> {
        Ok(self.read_json(MEMORY)?.unwrap_or_default())
    }

    fn keep_memory(&self, memory: &Memory) -> Result<(), StoreError> {
        self.write_json(MEMORY, memory)
    }

    fn policy(&self) -> Result<Option<Kept>, StoreError> {
        self.read_json(POLICY)
    }

    fn keep_policy(&self, kept: &Kept) -> Result<(), StoreError> {
        self.write_json(POLICY, kept)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_kept_is_there_after_a_restart_and_only_its_owner_may_read_it() {
        let top = std::env::temp_dir().join(format!("espalier-store-{}", std::process::id()));
        let folder = top.join("new");
        let kept = Kept {
            generation: 7,
            digest: "d".into(),
            sources: vec![Source { name: "a.toml".into(), text: "version = 1".into() }],
        };
        let memory = Memory { bridges: [7].into(), ..Memory::default() };
        {
            let store = FileStore::open(&folder).unwrap();
            assert_eq!(store.policy().unwrap(), None);
            assert!(matches!(FileStore::open(&folder), Err(StoreError::InUse(_))));
            store.keep_policy(&kept).unwrap();
            store.keep_memory(&memory).unwrap();
        }
        let store = FileStore::open(&folder).unwrap();
        assert_eq!(store.policy().unwrap(), Some(kept));
        assert_eq!(store.memory().unwrap(), memory);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("espalier.redb"))), (0o700, 0o600));
        drop(store);

        std::fs::write(folder.join("espalier.redb"), "not a database").unwrap();
        let error = FileStore::open(&folder).unwrap_err().to_string();
        assert!(error.contains("espalier.redb") && error.contains("move it away"), "{error}");
        let error = FileStore::open(&folder.join("espalier.redb")).unwrap_err().to_string();
        assert!(error.contains("--state"), "{error}");
        std::fs::remove_dir_all(top).unwrap();
    }
}
