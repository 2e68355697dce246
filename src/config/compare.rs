//! What must be the same on the two servers of a pair, and is not.
//!
//! Each difference is one line. No password, no key of a password and nothing of a certificate is
//! ever in it.

use std::collections::BTreeMap;
use std::path::Path;

use super::companions::{Companions, Destination, Entry, File, FileReader, Item, Section, User};
use super::facts::{CERTIFICATES, Parameters};
use super::url::is_loopback;
use super::value::show_seconds;
use super::{Config, PeerUrl, parameter};
use crate::model::{DestinationKind, StoredPassword};

/// One of the two servers.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Its main file and options.
    pub config: &'a Config,
    /// Its other files.
    pub companions: &'a Companions,
}

/// Names each difference between two servers.
///
/// With `ft_active` on either side they are a pair that shares its state, otherwise one without
/// shared state: then names and stores are their own affair, and what clients meet must be the
/// same.
#[must_use]
pub fn differences(own: Side<'_>, peer: Side<'_>, reader: FileReader<'_>) -> Vec<String> {
    let mut found = Differences::new("in the peer's file");
    let is_shared = !own.config.peers.is_empty() || !peer.config.peers.is_empty();
    let (ours, theirs) = (Parameters::from(own.config), Parameters::from(peer.config));
    if is_shared {
        let advice = "write the same name in both files";
        found.same("server", &ours.server, &theirs.server, advice);
        let store = |parameters: &Parameters| parameters.store.display().to_string();
        let advice = "both servers share one directory";
        found.same("store", &store(&ours), &store(&theirs), advice);
        found.shared_state(&ours, &theirs);
        found.addresses(&ours, &theirs);
        let advice = "each server logs in to the other with it";
        let passwords = (&own.config.password, &peer.config.password);
        found.hidden("password", passwords.0, passwords.1, advice);
    } else {
        found.unshared_state(&ours, &theirs);
    }
    found.parameters(&ours, &theirs);
    found.certificates(own.config, peer.config, reader);
    found.files(own.companions, peer.companions);
    found.lines
}

/// Digests by what names an entry in messages.
pub type Digests = BTreeMap<String, String>;

/// What one of two running servers knows.
#[derive(Clone, Copy, Debug)]
pub struct Met<'a> {
    /// Of its main file.
    pub parameters: &'a Parameters,
    /// Of its other files, all made with one key.
    pub digests: &'a Digests,
}

/// Names each difference between two servers that run and have told each other about themselves.
#[must_use]
pub fn differences_met(own: Met<'_>, peer: Met<'_>, is_shared: bool) -> Vec<String> {
    let mut found = Differences::new("at the peer");
    if is_shared {
        found.shared_state(own.parameters, peer.parameters);
    } else {
        found.unshared_state(own.parameters, peer.parameters);
    }
    found.parameters(own.parameters, peer.parameters);
    found.digests(own.digests, peer.digests);
    found.lines
}

/// Host, or all interfaces, and port.
type Place<'a> = (Option<&'a str>, u16);

struct Differences {
    lines: Vec<String>,
    /// Where the other one's value stands.
    there: &'static str,
}

impl Differences {
    const fn new(there: &'static str) -> Self {
        Self {
            lines: Vec::new(),
            there,
        }
    }

    fn digests(&mut self, own: &Digests, peer: &Digests) {
        let is_file = |key: &str| CERTIFICATES.contains(&key);
        for (key, digest) in own {
            let text = match peer.get(key) {
                Some(other) if other == digest => continue,
                Some(_) if is_file(key) => "its files have not the same content on both servers",
                None if is_file(key) => "not set at the peer",
                Some(_) => "not the same on both servers; `check-config --peer` shows how",
                None => "missing at the peer",
            };
            self.lines.push(format!("{key}: {text}"));
        }
        for key in peer.keys().filter(|key| !own.contains_key(*key)) {
            let text = if is_file(key) { "not set" } else { "missing" };
            self.lines.push(format!("{key}: {text} here"));
        }
    }

    fn same(&mut self, name: &str, ours: &str, theirs: &str, advice: &str) {
        if ours != theirs {
            self.lines.push(format!(
                "{name}: {ours} here, {theirs} {}; {advice}",
                self.there
            ));
        }
    }

    fn hidden<T: PartialEq>(&mut self, what: &str, ours: &T, theirs: &T, advice: &str) {
        if ours != theirs {
            self.lines
                .push(format!("{what}: not the same in both files; {advice}"));
        }
    }

    /// Both have to know of each other, or neither.
    fn unshared_state(&mut self, own: &Parameters, peer: &Parameters) {
        for (name, one, other) in [("", own, peer), ("the peer's ", peer, own)] {
            let urls = &one.unshared_peers;
            if !urls.is_empty() && !urls.iter().any(|url| is_listener(url, other)) {
                self.lines.push(format!(
                    "{name}unshared_peer: {} is none of the other server's listeners; write one of {}",
                    join(urls),
                    join(&other.listens)
                ));
            }
        }
    }

    fn shared_state(&mut self, own: &Parameters, peer: &Parameters) {
        for (name, one, other) in [("", own, peer), ("the peer's ", peer, own)] {
            if one.peers.is_empty() {
                self.lines.push(format!(
                    "{name}ft_active: not set; write the URL of the other server"
                ));
            } else if !one.peers.iter().any(|url| is_listener(url, other)) {
                self.lines.push(format!(
                    "{name}ft_active: {} is none of the other server's listeners; write one of {}",
                    join(&one.peers),
                    join(&other.listens)
                ));
            }
            if one.activation_ms < other.heartbeat_ms.saturating_mul(2) {
                self.lines.push(format!(
                    "{name}ft_activation: {} is less than two heartbeats of the other server \
                     (ft_heartbeat = {}); write the same values in both files",
                    show_seconds(one.activation_ms),
                    show_seconds(other.heartbeat_ms)
                ));
            }
        }
        let timeout = |one: &Parameters| show_seconds(one.reconnect_timeout_ms);
        let advice = "clients have the time of the server that takes over";
        self.same(
            "ft_reconnect_timeout",
            &timeout(own),
            &timeout(peer),
            advice,
        );
    }

    /// Two servers on one host cannot listen in one place. Hosts may have several names, so only
    /// equal ones count, and what nobody chose does not.
    fn addresses(&mut self, own: &Parameters, peer: &Parameters) {
        let mut urls = own.peers.iter().chain(&peer.peers);
        let on_one_host = urls.any(|url| is_loopback(&url.host));
        // A name or an address in a network belongs to one host.
        let is_one_place = |ours: Place<'_>, theirs: Place<'_>| {
            let is_named = ours.0.is_some_and(|host| !is_loopback(host));
            ours == theirs && ours.1 != 0 && (is_named || on_one_host)
        };
        for listen in &own.listens {
            let place = (listen.host.as_deref(), listen.port);
            let mut others = peer.listens.iter();
            if others.any(|other| is_one_place(place, (other.host.as_deref(), other.port))) {
                self.one_place("listen", &listen.to_string(), "another port or host");
            }
        }
        if let (Some(ours), Some(theirs)) = (&own.monitor_listen, &peer.monitor_listen) {
            let place = (ours.host.as_deref(), ours.port);
            if is_one_place(place, (theirs.host.as_deref(), theirs.port)) {
                self.one_place("monitor_listen", &ours.to_string(), "another port");
            }
        }
    }

    fn one_place(&mut self, name: &str, url: &str, change: &str) {
        if parameter(name).is_none_or(|row| row.default != url) {
            self.lines.push(format!(
                "{name}: {url} is an address of both servers; write {change} for one of them"
            ));
        }
    }

    fn parameters(&mut self, own: &Parameters, peer: &Parameters) {
        let flag = |flag: bool| if flag { "enabled" } else { "disabled" };
        let advice = "whoever may use one must be able to use the other";
        self.same(
            "authorization",
            flag(own.authorization),
            flag(peer.authorization),
            advice,
        );
        let sizes = |one: &Parameters| one.max_message_bytes.to_string();
        let advice = "a message that one takes the other must be able to deliver";
        self.same("max_message_bytes", &sizes(own), &sizes(peer), advice);
        let advice = "clients that create a queue on one must be able to on the other";
        self.same(
            "auto_create_queues",
            flag(own.auto_create_queues),
            flag(peer.auto_create_queues),
            advice,
        );
        let (ours, theirs) = (own, peer);
        let advice = "a client that one accepts the other must accept";
        for (name, ours, theirs) in [
            (
                "ssl_require_client_cert",
                ours.require_client_cert,
                theirs.require_client_cert,
            ),
            (
                "ssl_use_cert_username",
                ours.use_cert_username,
                theirs.use_cert_username,
            ),
        ] {
            self.same(name, flag(ours), flag(theirs), advice);
        }
        let ciphers = |text: &Option<String>| text.clone().unwrap_or_else(|| "not set".to_owned());
        self.same(
            "ssl_server_ciphers",
            &ciphers(&ours.ciphers),
            &ciphers(&theirs.ciphers),
            advice,
        );
    }

    /// By what is in the files, wherever they are.
    fn certificates(&mut self, own: &Config, peer: &Config, reader: FileReader<'_>) {
        let contents = |config: &Config, name: &str| {
            let files = config
                .tls_files
                .iter()
                .filter(|file| file.parameter == name);
            let mut contents: Vec<_> = files.map(|file| reader(&file.path).ok()).collect();
            contents.sort();
            contents
        };
        for name in CERTIFICATES {
            let (ours, theirs) = (contents(own, name), contents(peer, name));
            let is_unread = ours.iter().chain(&theirs).any(Option::is_none);
            let text = match (ours.is_empty(), theirs.is_empty()) {
                (true, false) => "only set in the peer's file",
                (false, true) => "not set in the peer's file",
                _ if is_unread => {
                    self.lines.push(format!(
                        "{name}: not compared, its files cannot all be read here; copy the peer's \
                         files with its configuration"
                    ));
                    continue;
                }
                _ if ours != theirs => "its files have not the same content on both servers",
                _ => continue,
            };
            self.lines.push(format!(
                "{name}: {text}; use the same certificates on both servers"
            ));
        }
    }

    fn files(&mut self, own: &Companions, peer: &Companions) {
        self.entries("user", &own.users, &peer.users, user_difference);
        self.entries("group", &own.groups, &peer.groups, |one, other| {
            let show = |members: &std::collections::BTreeSet<String>| {
                members.iter().cloned().collect::<Vec<_>>().join(",")
            };
            (one.members != other.members).then(|| {
                format!(
                    "members {} here, {} there",
                    show(&one.members),
                    show(&other.members)
                )
            })
        });
        self.entries("permission", &own.acl, &peer.acl, |one, other| {
            let (ours, theirs) = (one.permissions(), other.permissions());
            (ours != theirs).then(|| format!("{} here, {} there", ours.join(","), theirs.join(",")))
        });
        for kind in [DestinationKind::Queue, DestinationKind::Topic] {
            let files = (own.destinations(kind), peer.destinations(kind));
            self.entries(kind.word(), files.0, files.1, destination_difference);
        }
        self.entries("durable", &own.durables, &peer.durables, header_difference);
        self.entries("bridge", &own.bridges, &peer.bridges, |one, other| {
            let lines = |inner: Vec<(String, String)>| {
                let mut lines: Vec<String> = inner.into_iter().map(|(key, _)| key).collect();
                lines.sort();
                lines.join(",")
            };
            let (ours, theirs) = (lines(one.inner()), lines(other.inner()));
            (ours != theirs).then(|| format!("{ours} here, {theirs} there"))
        });
        self.entries("route", &own.routes, &peer.routes, section_difference);
        self.entries("store", &own.stores, &peer.stores, section_difference);
    }

    fn entries<E: Entry>(
        &mut self,
        what: &str,
        own: &File<E>,
        peer: &File<E>,
        differ: impl Fn(&E, &E) -> Option<String>,
    ) {
        let collect = |file: &File<E>| -> BTreeMap<String, Item<E>> {
            let items = file.items().iter();
            items.map(|item| (item.entry.key(), item.clone())).collect()
        };
        let (ours, theirs) = (collect(own), collect(peer));
        let named = |key: &str| match what != "permission" && key.contains(char::is_whitespace) {
            true => format!("{what} \"{key}\""),
            false => format!("{what} {key}"),
        };
        let missing = |key: &str, item: &Item<E>, path: &Path| {
            let (name, origin, place) = (named(key), &item.origin, path.display());
            format!("{name}: missing in {place}; add it as it is at {origin}")
        };
        for (key, item) in &ours {
            match theirs.get(key) {
                None => self.lines.push(missing(key, item, peer.path())),
                Some(other) => {
                    if let Some(text) = differ(&item.entry, &other.entry) {
                        self.lines.push(format!(
                            "{}: {text}; write the same at {} and {}",
                            named(key),
                            item.origin,
                            other.origin
                        ));
                    }
                }
            }
        }
        for (key, item) in theirs.iter().filter(|(key, _)| !ours.contains_key(*key)) {
            self.lines.push(missing(key, item, own.path()));
        }
    }
}

/// Keys of one password are different on two servers; only what can be compared is.
fn user_difference(one: &User, other: &User) -> Option<String> {
    use StoredPassword::{Empty, Foreign, Keys, Plain};
    let text = match (&one.password, &other.password) {
        (Plain(ours), Plain(theirs)) if ours != theirs => "another password on each server",
        (Empty, Plain(_) | Keys(_)) | (Plain(_) | Keys(_), Empty) => {
            "a password on one server only"
        }
        (Foreign(_), Plain(_) | Keys(_)) | (Plain(_) | Keys(_), Foreign(_)) => {
            "a password that can be checked on one server only"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

fn destination_difference(one: &Destination, other: &Destination) -> Option<String> {
    let show = |words: Vec<String>| match words.join(",") {
        empty if empty.is_empty() => "no properties".to_owned(),
        words => words,
    };
    let (ours, theirs) = (show(one.words()), show(other.words()));
    (ours != theirs).then(|| format!("{ours} here, {theirs} there"))
}

fn header_difference<E: Entry>(one: &E, other: &E) -> Option<String> {
    let (ours, theirs) = (one.header(), other.header());
    (ours != theirs).then(|| format!("`{ours}` here, `{theirs}` there"))
}

/// The names of settings whose values differ; the values may be passwords.
fn section_difference(one: &Section, other: &Section) -> Option<String> {
    let names = one.settings.keys().chain(other.settings.keys());
    let mut differing: Vec<&str> = names
        .filter(|name| one.get(name) != other.get(name))
        .map(String::as_str)
        .collect();
    differing.sort_unstable();
    differing.dedup();
    (!differing.is_empty())
        .then(|| format!("{} not the same on both servers", differing.join(", ")))
}

/// Hosts may have several names; the port is what can be compared.
fn is_listener(url: &PeerUrl, server: &Parameters) -> bool {
    let mut listens = server.listens.iter();
    listens.any(|listen| listen.port == url.port && listen.is_tls == url.is_tls)
}

fn join<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}
