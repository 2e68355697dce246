//! What one server tells the other about its configuration, so that both can say what differs.
//!
//! Parameters are told as they are. Of the files' entries and of certificates only names are, with digests
//! made by whoever sends them. Passwords are not in it, nor are the values of settings that are
//! passwords: only whether there is one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::companions::{Companions, Destination, Entry, File, FileReader, Section};
use super::{Config, ListenUrl, MonitorUrl, PeerUrl};
use crate::model::{DestinationKind, StoredPassword};

/// Files with more entries are compared as a whole.
const ENTRIES_MAX: usize = 4_000;
/// The files of TLS that two servers have in common.
pub(super) const CERTIFICATES: [&str; 5] = [
    "ssl_server_identity",
    "ssl_server_key",
    "ssl_server_issuer",
    "ssl_server_trusted",
    "ft_ssl_trusted",
];

/// Parameters of the main file that have to fit between two servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    pub(super) server: String,
    /// Where a host has mounted it is its own affair.
    #[serde(skip)]
    pub(super) store: PathBuf,
    pub(super) listens: Vec<ListenUrl>,
    #[serde(skip)]
    pub(super) monitor_listen: Option<MonitorUrl>,
    pub(super) peers: Vec<PeerUrl>,
    pub(super) unshared_peers: Vec<PeerUrl>,
    pub(super) heartbeat_ms: u64,
    pub(super) activation_ms: u64,
    pub(super) reconnect_timeout_ms: u64,
    pub(super) authorization: bool,
    pub(super) max_message_bytes: u64,
    pub(super) auto_create_queues: bool,
    pub(super) require_client_cert: bool,
    pub(super) use_cert_username: bool,
    pub(super) ciphers: Option<String>,
}

impl From<&Config> for Parameters {
    fn from(config: &Config) -> Self {
        Self {
            server: config.server.clone(),
            store: config.store.clone(),
            listens: config.listens.clone(),
            monitor_listen: config.monitor_listen.clone(),
            peers: config.peers.clone(),
            unshared_peers: config.unshared_peers.clone(),
            heartbeat_ms: config.heartbeat_ms,
            activation_ms: config.activation_ms,
            reconnect_timeout_ms: config.reconnect_timeout_ms,
            authorization: config.authorization,
            max_message_bytes: config.max_message_bytes,
            auto_create_queues: config.auto_create_queues,
            require_client_cert: config.tls.require_client_cert,
            use_cert_username: config.tls.use_cert_username,
            ciphers: config.tls.ciphers.clone(),
        }
    }
}

/// What a server knows of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Facts {
    /// Of the main file.
    pub parameters: Parameters,
    /// What stands in the other files and in certificates, by what names it in messages. Not to be
    /// sent as it is.
    pub entries: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for Facts {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Facts")
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}

impl Facts {
    /// Gathers them. `listens`: where the server really listens. Reads the files of certificates.
    #[must_use]
    pub fn new(
        config: &Config,
        listens: &[ListenUrl],
        companions: &Companions,
        reader: FileReader<'_>,
    ) -> Self {
        let mut entries = BTreeMap::new();
        files(companions, &mut entries);
        for name in CERTIFICATES {
            if let Some(content) = certificates(config, name, reader) {
                entries.insert(name.to_owned(), content);
            }
        }
        Self {
            parameters: Parameters {
                listens: listens.to_vec(),
                ..Parameters::from(config)
            },
            entries,
        }
    }
}

/// What the files of a parameter hold; `None` when it is not set.
fn certificates(config: &Config, name: &str, reader: FileReader<'_>) -> Option<Vec<u8>> {
    let files = config.tls_files.iter();
    let mut contents: Vec<Vec<u8>> = files
        .filter(|file| file.parameter == name)
        .map(|file| reader(&file.path).unwrap_or_default())
        .collect();
    contents.sort();
    (!contents.is_empty()).then(|| contents.join(&0))
}

fn files(companions: &Companions, entries: &mut BTreeMap<String, Vec<u8>>) {
    let mut add = |what: &str, list: Vec<(String, String)>| {
        if list.len() > ENTRIES_MAX {
            let text: Vec<String> = list
                .into_iter()
                .map(|(key, value)| format!("{key}\0{value}"))
                .collect();
            entries.insert(
                format!("{what}: all {}", text.len()),
                text.join("\n").into(),
            );
            return;
        }
        let named = list
            .into_iter()
            .map(|(key, value)| (format!("{what} {key}"), value.into_bytes()));
        entries.extend(named);
    };
    add(
        "user",
        list(&companions.users, |user| {
            let kind = match user.password {
                StoredPassword::Empty => "none",
                StoredPassword::Foreign(_) => "foreign",
                StoredPassword::Plain(_) | StoredPassword::Keys(_) => "known",
            };
            kind.to_owned()
        }),
    );
    add(
        "group",
        list(&companions.groups, |group| {
            let members: Vec<&str> = group.members.iter().map(String::as_str).collect();
            members.join("\n")
        }),
    );
    add(
        "permission",
        list(&companions.acl, |entry| entry.permissions().join(",")),
    );
    for kind in [DestinationKind::Queue, DestinationKind::Topic] {
        let file = companions.destinations(kind);
        add(
            kind.word(),
            list(file, |entry: &Destination| entry.words().join(",")),
        );
    }
    add("durable", list(&companions.durables, Entry::header));
    add(
        "bridge",
        list(&companions.bridges, |bridge| {
            let mut lines: Vec<String> = bridge.inner().into_iter().map(|(key, _)| key).collect();
            lines.sort();
            lines.join("\n")
        }),
    );
    add("route", list(&companions.routes, settings));
    add("store", list(&companions.stores, settings));
}

fn list<E: Entry>(file: &File<E>, value: impl Fn(&E) -> String) -> Vec<(String, String)> {
    let entries = file.entries();
    entries.map(|entry| (entry.key(), value(entry))).collect()
}

fn settings(section: &Section) -> String {
    let settings = section.settings.iter().map(|(name, value)| {
        let is_secret = name.contains("password") || name.contains("secret");
        let value = if is_secret { "" } else { value.expose() };
        format!("{name}={value}\n")
    });
    settings.collect()
}
