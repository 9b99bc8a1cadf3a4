//! Options of the daemon: flags, and a file with the same names; flags win.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::daemon::Options;
use crate::listen::Limits;

/// The file that is read if none is named, if it is there.
pub const DEFAULT_FILE: &str = "/etc/espalier/espalier.toml";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What flags or the file say; `None`: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Policy file, or folder whose *.toml files are read; may be given several times. Without it the policy is the
    /// one kept in the state folder
    #[arg(long, value_name = "FILE|DIR")]
    pub policy: Vec<PathBuf>,
    /// Where bridges connect to [default: 0.0.0.0:6653]
    #[arg(long, value_name = "ADDR:PORT")]
    pub openflow: Option<SocketAddr>,
    /// Where REST is served; a loopback address [default: 127.0.0.1:8653]
    #[arg(long, value_name = "ADDR:PORT")]
    pub rest: Option<SocketAddr>,
    /// Folder for what outlives the daemon [default: /var/lib/espalier]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// How log lines look [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// The file of options is of no use.
#[derive(Debug, thiserror::Error)]
#[error("can't use the configuration file {}: {reason}", path.display())]
pub struct ConfigError {
    path: PathBuf,
    reason: String,
}

impl Settings {
    /// Reads a file; the default one may be absent.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(file: Option<&Path>) -> Result<Self, ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let fail = |reason: String| ConfigError { path: path.to_owned(), reason };
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| fail(error.to_string())),
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(fail(error.to_string())),
        }
    }

    /// What is said here, else there.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            policy: if self.policy.is_empty() { other.policy } else { self.policy },
            openflow: self.openflow.or(other.openflow),
            rest: self.rest.or(other.rest),
            state: self.state.or(other.state),
            log_format: self.log_format.or(other.log_format),
        }
    }

    /// With defaults for all that isn't said.
    pub fn options(self) -> Options {
        Options {
            policy: self.policy,
            openflow: self.openflow.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 6653))),
            rest: self.rest.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8653))),
            state: self.state.unwrap_or_else(|| "/var/lib/espalier".into()),
            limits: Limits::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_unknown_keys_are_errors() {
        let file: Settings = toml::from_str("policy = ['a']\nrest = '127.0.0.1:1'\nlog_format = 'json'").unwrap();
        let flags = Settings { rest: Some("127.0.0.1:2".parse().unwrap()), ..Settings::default() };
        let all = flags.or(file);
        assert_eq!((all.policy.len(), all.log_format), (1, Some(LogFormat::Json)));
        assert_eq!(all.options().rest.port(), 2);

        let error = toml::from_str::<Settings>("listen = '0.0.0.0:1'").unwrap_err().to_string();
        assert!(error.contains("unknown field `listen`") && error.contains("line 1"), "{error}");
        assert!(toml::from_str::<Settings>("openflow = '6653'").is_err());
        assert!(Settings::read(Some(Path::new("/nowhere/x.toml"))).is_err());
    }
}
