//! From text to a checked [`Config`]: layers, table, rules between parameters.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::companions::{Companion, Companions, Report};
use super::file::{self, Entry};
use super::table::{FAMILIES, Kind, PARAMETERS, Parameter, Support, parameter};
use super::url::{ListenUrl, MonitorUrl, PeerUrl};
use super::value::{self, Value, show_seconds};
use super::{
    AbortList, CompanionFile, CompanionSource, Config, Fault, Faults, FenceDeadline, NamedFile,
    Origin, Secret, TlsFiles, Values, hidden, json, suggest,
};

/// The main file, read by the caller.
#[derive(Clone, Debug)]
pub struct MainFile {
    /// Its name, for messages and for relative names in it; `.json` means the JSON form.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

impl MainFile {
    /// Whether it has the JSON form.
    #[must_use]
    pub fn is_json(&self) -> bool {
        let end = self.path.extension();
        end.is_some_and(|end| end.eq_ignore_ascii_case("json"))
    }
}

/// All that a configuration is made of.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `--config`.
    pub file: Option<MainFile>,
    /// `--data`: the `store` parameter.
    pub data: Option<PathBuf>,
    /// `--listen`, each time.
    pub listen: Vec<String>,
    /// `--set NAME=VALUE`, each time.
    pub set: Vec<String>,
    /// `--secondary`.
    pub is_secondary: bool,
}

/// Checks everything and returns all faults at once.
///
/// # Errors
/// Any value that cannot be used, any unknown name, any contradiction between parameters.
pub fn load(given: &Given) -> Result<Config, Faults> {
    let (config, faults) = load_anyway(given);
    if faults.is_empty() {
        return Ok(config);
    }
    Err(Faults {
        faults,
        warnings: config.warnings,
    })
}

/// The configuration as far as it can be understood, and every fault: for those who want to tell
/// more about it than that it cannot be used.
#[must_use]
pub fn load_anyway(given: &Given) -> (Config, Vec<Fault>) {
    let mut loader = Loader::default();
    loader.read_file(given);
    loader.read_options(given);
    let mut config = loader.build();
    loader.check(&config);
    config.companions = loader.find_companions(given);
    config.main_file = given.file.as_ref().map(|file| file.path.clone());
    config.warnings = loader.report.warnings;
    (config, loader.report.faults)
}

/// A value that somebody gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenValue {
    /// The parameter.
    pub parameter: &'static str,
    /// As it counts; `None` for what is secret.
    pub value: Option<String>,
    /// Where it was given.
    pub origin: Origin,
}

/// The parameters that were given, in the order of their names.
#[must_use]
pub fn given_values(given: &Given) -> Vec<GivenValue> {
    let mut loader = Loader::default();
    loader.read_file(given);
    loader.read_options(given);
    let values = loader.values.into_iter().flat_map(|(parameter, values)| {
        let kind = self::parameter(parameter).map_or(Kind::Text, |row| row.kind);
        values.into_iter().map(move |(origin, value)| GivenValue {
            parameter,
            value: (kind != Kind::Secret).then(|| value::show(kind, &value)),
            origin,
        })
    });
    values.collect()
}

#[derive(Default)]
struct Loader {
    values: BTreeMap<&'static str, Vec<(Origin, Value)>>,
    /// The sections of a JSON file.
    sections: Option<(Companions, Report)>,
    report: Report,
}

impl Loader {
    // Layers

    fn read_file(&mut self, given: &Given) {
        let Some(file) = &given.file else {
            if given.is_secondary {
                self.fault_secondary(Origin::Option("--secondary"));
            }
            return;
        };
        let is_json = file.is_json();
        let entries = if is_json {
            let report = &mut self.report;
            let json = json::parse(&file.path, &file.text, given.is_secondary, report);
            self.sections = json.companions;
            json.entries
        } else {
            file::parse(&file.path, &file.text, &mut self.report.faults)
        };
        if given.is_secondary && !is_json {
            self.fault_secondary(Origin::File {
                path: file.path.clone(),
                line: 0,
            });
        }
        self.take_layer(entries);
    }

    fn fault_secondary(&mut self, origin: Origin) {
        let text = "only a JSON file describes two servers; with a plain file each server of the \
                    pair has a file of its own, and `--secondary` is left out";
        self.fault(origin, "--secondary", text.to_owned());
    }

    fn read_options(&mut self, given: &Given) {
        let entry = |option, name: &str, value: String| Entry {
            origin: Origin::Option(option),
            name: name.to_owned(),
            value,
        };
        let data = given
            .data
            .iter()
            .map(|path| path.to_string_lossy().into_owned());
        let mut layer: Vec<Entry> = data.map(|path| entry("--data", "store", path)).collect();
        layer.extend(
            given
                .listen
                .iter()
                .map(|url| entry("--listen", "listen", url.clone())),
        );
        self.take_layer(layer);

        let mut layer = Vec::new();
        for text in &given.set {
            match file::parse_assignment(text) {
                Ok((name, value)) => layer.push(entry("--set", &name, value)),
                Err((name, fault)) => self.fault(Origin::Option("--set"), &name, fault),
            }
        }
        self.take_layer(layer);
    }

    /// Values of this layer replace those of the layers before it.
    fn take_layer(&mut self, entries: Vec<Entry>) {
        let mut layer: BTreeMap<&'static str, Vec<(Origin, Value)>> = BTreeMap::new();
        for entry in entries {
            let Some(row) = parameter(&entry.name) else {
                let is_family = |(begin, _): &&(&str, &str)| entry.name.starts_with(begin);
                match FAMILIES.iter().find(is_family) {
                    Some((_, advice)) => self.warn_foreign(&entry, advice),
                    None => self.fault(entry.origin, &entry.name, unknown(&entry.name)),
                }
                continue;
            };
            match row.support {
                Support::None(advice) => {
                    self.warn_foreign(&entry, advice);
                    if row.kind == Kind::Text {
                        continue;
                    }
                }
                // What a companion file says is told when it is read.
                Support::Checked(instead) if row.kind != Kind::File => {
                    self.warn_checked(&entry, instead);
                }
                Support::Checked(_) | Support::Full => {}
            }
            let values = layer.entry(row.name).or_default();
            if entry.value.is_empty() {
                // EMS: an empty value means "not set".
                values.clear();
                continue;
            }
            if !row.is_list && !values.is_empty() {
                values.clear();
                let text = "given more than once; the last value counts".to_owned();
                self.report.warn(entry.origin.clone(), row.name, text);
            }
            for part in split(row, &entry.value) {
                match value::parse(row.kind, part) {
                    Ok(value) => values.push((entry.origin.clone(), value)),
                    Err(text) => self.report.fault(entry.origin.clone(), row.name, text),
                }
            }
        }
        self.values.extend(layer);
    }

    fn warn_foreign(&mut self, entry: &Entry, advice: &str) {
        if !entry.value.is_empty() {
            let text = format!("this EMS parameter has no effect in this version: {advice}");
            self.report.warn(entry.origin.clone(), &entry.name, text);
        }
    }

    fn warn_checked(&mut self, entry: &Entry, instead: &str) {
        if !entry.value.is_empty() {
            let text = format!("read and checked, but without effect in this version: {instead}");
            self.report.warn(entry.origin.clone(), &entry.name, text);
        }
    }

    // Typed access

    /// The values of a parameter: given ones, or the default.
    fn all(&self, name: &'static str) -> Vec<Value> {
        let row = parameter(name);
        let counts = |values: &&Vec<_>| !values.is_empty() || row.is_some_and(is_clearable);
        if let Some(values) = self.values.get(name).filter(counts) {
            return values.iter().map(|(_, value)| value.clone()).collect();
        }
        let with_default = row.filter(|row| !row.default.is_empty());
        let default = with_default.and_then(|row| value::parse(row.kind, row.default).ok());
        default.into_iter().collect()
    }

    fn number(&self, name: &'static str) -> Option<u64> {
        self.all(name).into_iter().find_map(|value| match value {
            Value::Number(number) => Some(number),
            _ => None,
        })
    }

    fn flag(&self, name: &'static str) -> bool {
        self.all(name).contains(&Value::Flag(true))
    }

    fn text(&self, name: &'static str) -> Option<String> {
        self.all(name).into_iter().find_map(|value| match value {
            Value::Text(text) => Some(text),
            _ => None,
        })
    }

    fn secret(&self, name: &'static str) -> Option<Secret> {
        self.text(name).map(Secret::new)
    }

    fn path(&self, name: &'static str) -> Option<PathBuf> {
        self.paths(name).into_iter().next()
    }

    /// Paths; a relative one of a file is relative to that file.
    fn paths(&self, name: &'static str) -> Vec<PathBuf> {
        let resolve = |(index, value)| match (value, self.origin_at(name, index)) {
            (Value::Text(text), Origin::File { path, .. }) => {
                Some(path.parent().unwrap_or(Path::new("")).join(text))
            }
            (Value::Text(text), Origin::Default | Origin::Option(_)) => Some(PathBuf::from(text)),
            _ => None,
        };
        let values = self.all(name).into_iter().enumerate();
        values.filter_map(resolve).collect()
    }

    fn origin(&self, name: &str) -> Origin {
        let first = self.values.get(name).and_then(|values| values.first());
        first.map_or(Origin::Default, |(origin, _)| origin.clone())
    }

    fn build(&self) -> Config {
        let listens = self
            .all("listen")
            .into_iter()
            .filter_map(|value| match value {
                Value::Listen(url) => Some(url),
                _ => None,
            });
        let monitor: Option<MonitorUrl> =
            self.all("monitor_listen")
                .into_iter()
                .find_map(|value| match value {
                    Value::Monitor(url) => Some(url),
                    _ => None,
                });
        let number = |name| self.number(name).unwrap_or(0);
        let nonzero = |name| self.number(name).filter(|number| *number > 0);
        Config {
            server: self.text("server").unwrap_or_default(),
            listens: listens.collect(),
            monitor_listen: monitor,
            authorization: self.flag("authorization"),
            abort_list: AbortList {
                words: self.text("startup_abort_list").map(|list| {
                    let words = list.split(',').map(str::trim);
                    words.map(str::to_owned).collect()
                }),
            },
            main_file: None,
            companions: CompanionSource::Files(Vec::new()),
            tls_files: self.tls_files(),
            password: self
                .text("password")
                .map(|text| Secret::new(hidden::reveal(&text))),
            tls: self.build_tls(),
            ft_tls: self.build_ft_tls(),
            store: self.path("store").unwrap_or_default(),
            peers: self.peer_urls("ft_active"),
            unshared_peers: self.peer_urls("unshared_peer"),
            heartbeat_ms: number("ft_heartbeat"),
            activation_ms: number("ft_activation"),
            reconnect_timeout_ms: number("ft_reconnect_timeout"),
            logfile: self.path("logfile"),
            logfile_bytes_max: number("logfile_max_size"),
            logfile_count_max: number("logfile_max_count"),
            max_connections: nonzero("max_connections"),
            max_message_bytes: number("max_message_bytes"),
            auto_create_queues: self.flag("auto_create_queues"),
            idle_timeout_ms: nonzero("idle_timeout_ms"),
            store_segment_bytes: number("store_segment_bytes"),
            store_checkpoint_bytes: self.number("store_checkpoint_bytes"),
            store_lock_poll_ms: number("store_lock_poll_ms"),
            store_fence_deadline: match self.number("store_fence_deadline_ms") {
                None => FenceDeadline::Automatic,
                Some(0) => FenceDeadline::Off,
                Some(after_ms) => FenceDeadline::After(after_ms),
            },
            store_warm_standby: self.flag("store_warm_standby"),
            store_allow_unverified_locking: self.flag("store_allow_unverified_locking"),
            warnings: Vec::new(),
            values: Values(
                PARAMETERS
                    .iter()
                    .map(|row| (row, self.all(row.name)))
                    .collect(),
            ),
        }
    }

    fn peer_urls(&self, name: &'static str) -> Vec<PeerUrl> {
        let urls = self.all(name).into_iter().filter_map(|value| match value {
            Value::Peer(url) => Some(url),
            _ => None,
        });
        urls.collect()
    }

    fn build_tls(&self) -> TlsFiles {
        TlsFiles {
            identity: self.path("ssl_server_identity"),
            key: self.path("ssl_server_key"),
            issuers: self.paths("ssl_server_issuer"),
            trusted: self.paths("ssl_server_trusted"),
            password: self.secret("ssl_password"),
            ciphers: self.text("ssl_server_ciphers"),
            require_client_cert: self.flag("ssl_require_client_cert"),
            use_cert_username: self.flag("ssl_use_cert_username"),
            cert_user_specname: self.text("ssl_cert_user_specname"),
            ..TlsFiles::default()
        }
    }

    fn build_ft_tls(&self) -> TlsFiles {
        TlsFiles {
            identity: self.path("ft_ssl_identity"),
            key: self.path("ft_ssl_private_key"),
            issuers: self.paths("ft_ssl_issuer"),
            trusted: self.paths("ft_ssl_trusted"),
            password: self.secret("ft_ssl_password"),
            ciphers: self.text("ft_ssl_ciphers"),
            verify_host: self.flag("ft_ssl_verify_host"),
            verify_hostname: self.flag("ft_ssl_verify_hostname"),
            expected_hostname: self.text("ft_ssl_expected_hostname"),
            ..TlsFiles::default()
        }
    }

    fn tls_files(&self) -> Vec<NamedFile> {
        let is_tls = |row: &&Parameter| row.kind == Kind::File && row.name.contains("ssl_");
        let named = |row: &'static Parameter| {
            let paths = self.paths(row.name).into_iter().enumerate();
            paths.map(|(index, path)| NamedFile {
                parameter: row.name,
                path,
                origin: self.origin_at(row.name, index),
            })
        };
        PARAMETERS.iter().filter(is_tls).flat_map(named).collect()
    }

    /// The companion files: named ones, and those beside the main file that have their usual
    /// name. A JSON file has sections instead.
    fn find_companions(&mut self, given: &Given) -> CompanionSource {
        let is_given = |name| {
            self.values
                .get(name)
                .is_some_and(|values| !values.is_empty())
        };
        if let Some((companions, report)) = self.sections.take() {
            for which in Companion::ALL {
                let name = which.parameter();
                if is_given(name) {
                    let text = "a JSON file has its own sections; remove the parameter";
                    let origin = self.origin(name);
                    self.report.warn(origin, name, text);
                }
            }
            return CompanionSource::Json(Box::new(companions), report);
        }
        let main = given.file.as_ref().map(|file| file.path.as_path());
        let beside = main.map(|main| main.parent().unwrap_or(Path::new("")));
        let mut files = Vec::new();
        for which in Companion::ALL {
            let name = which.parameter();
            let named = self.path(name).filter(|_| is_given(name));
            let is_named = named.is_some();
            let is_unset = self.values.contains_key(name) && !is_named;
            let usual = parameter(name).map(|row| row.default);
            let path = named.or_else(|| Some(beside?.join(usual?)).filter(|_| !is_unset));
            if let Some(path) = path {
                files.push(CompanionFile {
                    which,
                    path,
                    is_named,
                    origin: self.origin(name),
                });
            }
        }
        CompanionSource::Files(files)
    }

    // Rules between parameters

    fn check(&mut self, config: &Config) {
        self.check_heartbeats(config);
        self.check_client_heartbeats();
        self.check_listens(&config.listens, config.monitor_listen.as_ref());
        self.check_peers(config);
        self.check_sizes(config);
        let name_ok = |letter: char| !letter.is_control() && letter != '"';
        if config.server.chars().count() > 255 || !config.server.chars().all(name_ok) {
            let text = "a name has at most 255 characters and no control characters or quotes";
            self.fault(self.origin("server"), "server", text.to_owned());
        }
    }

    fn check_sizes(&mut self, config: &Config) {
        let most = config.store_segment_bytes / 2;
        if config.max_message_bytes <= most {
            return;
        }
        let is_given = self.values.contains_key("max_message_bytes");
        let name = if is_given {
            "max_message_bytes"
        } else {
            "store_segment_bytes"
        };
        let text = format!(
            "max_message_bytes ({}) may be at most half of store_segment_bytes ({}); write \
             max_message_bytes = {} or less, or a larger store_segment_bytes",
            value::show_bytes(config.max_message_bytes),
            value::show_bytes(config.store_segment_bytes),
            value::show_bytes(most).trim_end_matches(" bytes"),
        );
        self.fault(self.origin(name), name, text);
    }

    fn check_heartbeats(&mut self, config: &Config) {
        let least_ms = config.heartbeat_ms.saturating_mul(2);
        if config.activation_ms >= least_ms {
            return;
        }
        let is_given = self
            .values
            .get("ft_activation")
            .is_some_and(|values| !values.is_empty());
        let name = if is_given {
            "ft_activation"
        } else {
            "ft_heartbeat"
        };
        let text = format!(
            "ft_activation ({}) must be at least twice ft_heartbeat ({}); write ft_activation = \
             {} or more",
            show_seconds(config.activation_ms),
            show_seconds(config.heartbeat_ms),
            show_seconds(least_ms).trim_end_matches(" s"),
        );
        self.fault(self.origin(name), name, text);
    }

    /// They have no effect here, but a file that EMS refuses is not right.
    fn check_client_heartbeats(&mut self) {
        let timeout_ms = self.number("server_timeout_client_connection").unwrap_or(0);
        let heartbeat_ms = self.number("client_heartbeat_server").unwrap_or(0);
        if timeout_ms == 0 || (heartbeat_ms > 0 && heartbeat_ms.saturating_mul(3) <= timeout_ms) {
            return;
        }
        let name = "server_timeout_client_connection";
        let text = format!(
            "client_heartbeat_server ({}) must be set and at most a third of \
             server_timeout_client_connection ({}); write client_heartbeat_server = {} or less, \
             or remove both",
            show_seconds(heartbeat_ms),
            show_seconds(timeout_ms),
            show_seconds(timeout_ms / 3).trim_end_matches(" s"),
        );
        self.fault(self.origin(name), name, text);
    }

    fn check_listens(&mut self, listens: &[ListenUrl], monitor: Option<&MonitorUrl>) {
        for (index, listen) in listens.iter().enumerate() {
            let origin = self.origin_at("listen", index);
            let is_same_place = |host: &Option<String>, port: u16| {
                let same_host = *host == listen.host || host.is_none() || listen.host.is_none();
                listen.port != 0 && port == listen.port && same_host
            };
            let is_twice = |other: &&ListenUrl| is_same_place(&other.host, other.port);
            if let Some(monitor) = monitor.filter(|it| is_same_place(&it.host, it.port)) {
                let text = format!(
                    "{monitor} is the same place as listen = {listen}; write another port for one \
                     of them"
                );
                let own = self.origin("monitor_listen");
                let is_default = matches!(own, Origin::Default);
                let place = if is_default { origin.clone() } else { own };
                self.fault(place, "monitor_listen", text);
            }
            if let Some(other) = listens.iter().take(index).find(is_twice) {
                let text = format!("{listen} and {other} are the same place; remove one");
                self.fault(origin.clone(), "listen", text);
            }
            if !listen.is_loopback() && !self.flag("authorization") {
                let text = format!(
                    "{listen} is open to the network and authorization is disabled: everybody who \
                     can connect can read and write every message; listen on 127.0.0.1, or \
                     protect the network"
                );
                self.report.warn(origin, "listen", text);
            }
        }
    }

    fn check_peers(&mut self, config: &Config) {
        self.check_peer_urls("ft_active", &config.peers, config);
        self.check_peer_urls("unshared_peer", &config.unshared_peers, config);
        for (index, peer) in config.unshared_peers.iter().enumerate() {
            if config.peers.contains(peer) {
                let text = format!(
                    "{peer} is in ft_active too; a server either shares its store with this one or \
                     does not: remove it from one of them"
                );
                self.fault(
                    self.origin_at("unshared_peer", index),
                    "unshared_peer",
                    text,
                );
            }
        }
    }

    fn check_peer_urls(&mut self, name: &'static str, peers: &[PeerUrl], config: &Config) {
        for (index, peer) in peers.iter().enumerate() {
            let origin = self.origin_at(name, index);
            if let Some(listen) = config.listens.iter().find(|listen| peer.names(listen)) {
                let text = format!(
                    "{peer} is this server itself (listen = {listen}); write the URL of the other \
                     server of the pair"
                );
                self.fault(origin.clone(), name, text);
            }
            if peers
                .iter()
                .take(index)
                .any(|other: &PeerUrl| other == peer)
            {
                self.fault(origin, name, format!("{peer} is named twice; remove one"));
            }
        }
    }

    fn origin_at(&self, name: &str, index: usize) -> Origin {
        let value = self.values.get(name).and_then(|values| values.get(index));
        value.map_or(Origin::Default, |(origin, _)| origin.clone())
    }

    fn fault(&mut self, origin: Origin, parameter: &str, text: String) {
        self.report.fault(origin, parameter, text);
    }
}

/// Parameters for which "not set" is a value of its own.
fn is_clearable(row: &Parameter) -> bool {
    row.name == "monitor_listen"
}

/// The parts of a value: URLs may stand in one line with commas between them.
fn split<'a>(row: &Parameter, value: &'a str) -> Vec<&'a str> {
    if row.is_list && matches!(row.kind, Kind::Listen | Kind::Peer) {
        return value
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .collect();
    }
    vec![value]
}

fn unknown(name: &str) -> String {
    match suggest::nearest(name, PARAMETERS.iter().map(|row| row.name)) {
        Some(nearest) => format!("unknown parameter; did you mean `{nearest}`?"),
        None => "unknown parameter; `steadfast serve --help` lists all of them".to_owned(),
    }
}
