//! The configuration: one table of parameters, two file forms, and the checks before start.
//!
//! [`load()`] gets the text of the main file and the command line's values, and returns a [`Config`]
//! that is complete and consistent, or every fault that it found. [`companions::read`] does the
//! same for the files that the main file names. Nothing here reads files: the caller does.
//!
//! A later layer replaces what an earlier one gave: table defaults, main file, `--data` and
//! `--listen`, `--set`. Each value remembers where it came from, so that a fault can say so.

pub mod companions;
mod compare;
mod facts;
mod file;
mod hidden;
mod json;
mod json_edit;
mod json_parameters;
mod load;
mod main_file;
mod reference;
mod suggest;
mod table;
mod tree;
mod url;
mod value;

use std::fmt;
use std::path::PathBuf;

pub use crate::model::Secret;
use companions::{Companion, Companions, Report};
pub use compare::{Digests, Met, Side, differences, differences_met};
pub use facts::{Facts, Parameters};
pub use hidden::hide;
pub use json_parameters::set_json_parameters;
pub use load::{Given, GivenValue, MainFile, given_values, load, load_anyway};
pub use main_file::set_parameters;
pub use reference::reference;
pub(crate) use suggest::nearest;
pub use table::{FAMILIES, Kind, PARAMETERS, Parameter, Support, parameter};
pub use url::{ListenUrl, MonitorUrl, PeerUrl};

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `server`: the name that both servers of a pair share.
    pub server: String,
    /// `listen`: where clients and peers connect; never empty.
    pub listens: Vec<ListenUrl>,
    /// `monitor_listen`; `None` when switched off.
    pub monitor_listen: Option<MonitorUrl>,
    /// `authorization`.
    pub authorization: bool,
    /// `startup_abort_list`.
    pub abort_list: AbortList,
    /// The main file; `None` when there is none.
    pub main_file: Option<PathBuf>,
    /// Where users, groups, permissions, destinations and the rest are described.
    pub companions: CompanionSource,
    /// The files of TLS that were named.
    pub tls_files: Vec<NamedFile>,
    /// `password`: with which this server logs in to its peer.
    pub password: Option<Secret>,
    /// `ssl_server_*` and `ssl_*`: what listeners with TLS use.
    pub tls: TlsFiles,
    /// `ft_ssl_*`: what the connection to a peer uses when this server opens it.
    pub ft_tls: TlsFiles,
    /// `store`: the directory of the store.
    pub store: PathBuf,
    /// `ft_active`: the other servers; empty for a standalone server.
    pub peers: Vec<PeerUrl>,
    /// `unshared_peer`: servers for the same clients, each with a store of its own.
    pub unshared_peers: Vec<PeerUrl>,
    /// `ft_heartbeat`.
    pub heartbeat_ms: u64,
    /// `ft_activation`; at least twice the heartbeat.
    pub activation_ms: u64,
    /// `ft_reconnect_timeout`.
    pub reconnect_timeout_ms: u64,
    /// `logfile`; `None` for standard error.
    pub logfile: Option<PathBuf>,
    /// `logfile_max_size`; 0: no limit.
    pub logfile_bytes_max: u64,
    /// `logfile_max_count`; 0: no limit.
    pub logfile_count_max: u64,
    /// `max_connections`; `None` when only the process limit on open files counts.
    pub max_connections: Option<u64>,
    /// `max_message_bytes`.
    pub max_message_bytes: u64,
    /// `auto_create_queues`.
    pub auto_create_queues: bool,
    /// `idle_timeout_ms`; `None` when connections never time out.
    pub idle_timeout_ms: Option<u64>,
    /// `store_segment_bytes`.
    pub store_segment_bytes: u64,
    /// `store_checkpoint_bytes`; `None` leaves the choice to the store.
    pub store_checkpoint_bytes: Option<u64>,
    /// `store_lock_poll_ms`.
    pub store_lock_poll_ms: u64,
    /// `store_fence_deadline_ms`.
    pub store_fence_deadline: FenceDeadline,
    /// `store_warm_standby`.
    pub store_warm_standby: bool,
    /// `store_allow_unverified_locking`.
    pub store_allow_unverified_locking: bool,
    /// What is worth knowing and stops nothing.
    pub warnings: Vec<Fault>,
    /// All values as they were given.
    values: Values,
}

/// The values of every parameter; not shown, passwords are among them.
#[derive(Clone, Default, PartialEq, Eq)]
struct Values(Vec<(&'static Parameter, Vec<value::Value>)>);

impl fmt::Debug for Values {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Values")
    }
}

impl Config {
    /// The parameters that have other values than `before`.
    #[must_use]
    pub fn changes(&self, before: &Self) -> Vec<&'static Parameter> {
        let rows = self.values.0.iter().zip(&before.values.0);
        let changed = rows.filter(|(now, before)| now.1 != before.1);
        changed.map(|((row, _), _)| *row).collect()
    }

    /// The values of a parameter as they count, the default where nothing was given; `None` for what is
    /// secret.
    #[must_use]
    pub fn shown(&self, row: &Parameter) -> Option<String> {
        let mut rows = self.values.0.iter();
        let (row, values) = rows.find(|(own, _)| own.name == row.name)?;
        let values = values.iter().map(|value| value::show(row.kind, value));
        (row.kind != Kind::Secret).then(|| values.collect::<Vec<_>>().join(", "))
    }
}

/// Which faults stop the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AbortList {
    /// `startup_abort_list`; `None` when it is not set: then every fault does.
    words: Option<Vec<String>>,
}

impl AbortList {
    /// Whether faults of this kind stop the start.
    #[must_use]
    pub fn stops_at(&self, word: &str) -> bool {
        let words = self.words.as_ref();
        words.is_none_or(|words| words.iter().any(|own| own == word))
    }
}

/// Where the companion files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompanionSource {
    /// Files of their own.
    Files(Vec<CompanionFile>),
    /// Sections of a JSON file, already read, with what was found wrong in them.
    Json(Box<Companions>, Report),
}

/// The name of a companion file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompanionFile {
    /// Which one.
    pub which: Companion,
    /// Where it is.
    pub path: PathBuf,
    /// Whether somebody named it; otherwise it need not be there.
    pub is_named: bool,
    /// Where it was named.
    pub origin: Origin,
}

/// A file that a parameter names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// The parameter.
    pub parameter: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Where it was named.
    pub origin: Origin,
}

/// The TLS parameters of one side of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// `ssl_server_identity`, `ft_ssl_identity`: our certificate; PEM, or PKCS#12 with its key.
    pub identity: Option<PathBuf>,
    /// `ssl_server_key`, `ft_ssl_private_key`; `None` when the key is in the identity's file.
    pub key: Option<PathBuf>,
    /// `ssl_server_issuer`, `ft_ssl_issuer`: certificates between ours and its root.
    pub issuers: Vec<PathBuf>,
    /// `ssl_server_trusted`, `ft_ssl_trusted`: authorities that the other side's certificate may
    /// come from.
    pub trusted: Vec<PathBuf>,
    /// `ssl_password`, `ft_ssl_password`: of the key or of the PKCS#12 file.
    pub password: Option<Secret>,
    /// `ssl_server_ciphers`, `ft_ssl_ciphers`, as written.
    pub ciphers: Option<String>,
    /// `ft_ssl_verify_host`: the peer's certificate comes from a trusted authority. Unused by
    /// listeners.
    pub verify_host: bool,
    /// `ft_ssl_verify_hostname`: the peer's certificate carries the expected host name. Unused by
    /// listeners.
    pub verify_hostname: bool,
    /// `ft_ssl_expected_hostname`; `None` for the host that was connected to. Unused by listeners.
    pub expected_hostname: Option<String>,
    /// `ssl_require_client_cert`. Listeners only.
    pub require_client_cert: bool,
    /// `ssl_use_cert_username`: the certificate's common name is the user. Listeners only.
    pub use_cert_username: bool,
    /// `ssl_cert_user_specname`: the user name that asks for the certificate's. Listeners only.
    pub cert_user_specname: Option<String>,
}

/// How old the last durable write may be before confirms and deliveries are suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceDeadline {
    /// Off on a local file system, from the lease on a network one.
    Automatic,
    /// Never.
    Off,
    /// After so many milliseconds.
    After(u64),
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table.
    Default,
    /// A line of a file; line 0 means the file as a whole.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// An option of the command line, with its dashes.
    Option(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File { path, line: 0 } => write!(formatter, "{}", path.display()),
            Self::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Self::Option(option) => formatter.write_str(option),
        }
    }
}

/// Something wrong, or worth a warning, about one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it was written.
    pub origin: Origin,
    /// The parameter; empty when a line names none.
    pub parameter: String,
    /// What is wrong and what to write instead.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_said = self.origin.to_string() == format!("--{}", self.parameter);
        if self.parameter.is_empty() || is_said {
            return write!(formatter, "{}: {}", self.origin, self.text);
        }
        write!(
            formatter,
            "{}: {}: {}",
            self.origin, self.parameter, self.text
        )
    }
}

/// Those of `found` that were not among the ones told before; lines may have moved.
pub(crate) fn news(mut told: Vec<Fault>, found: &[Fault]) -> Vec<&Fault> {
    let file = |fault: &Fault| match &fault.origin {
        Origin::File { path, .. } => Some(path.clone()),
        Origin::Default | Origin::Option(_) => None,
    };
    let mut is_new = |fault: &&Fault| {
        let before = told.iter().position(|other| {
            (&other.parameter, &other.text) == (&fault.parameter, &fault.text)
                && file(other) == file(fault)
        });
        before.map(|at| told.swap_remove(at)).is_none()
    };
    found.iter().filter(|fault| is_new(fault)).collect()
}

/// Why a configuration cannot be used: every fault that was found, one line each.
#[derive(Debug)]
pub struct Faults {
    /// At least one.
    pub faults: Vec<Fault>,
    /// What would only have been warnings.
    pub warnings: Vec<Fault>,
}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                writeln!(formatter)?;
            }
            write!(formatter, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod compare_tests;
#[cfg(test)]
mod tests;
