//! `steadfast check-config`.

use std::path::Path;

use super::args::CheckConfigArgs;
use super::serve::read;
use super::{complain, say};
use crate::config::{Config, Given, PeerUrl, load};
use crate::net::tls;
use crate::role::Exit;

/// Names every fault; with a peer's file also what does not fit between the two.
pub(super) fn run(arguments: &CheckConfigArgs) -> Exit {
    let own = check(&arguments.file, tls::check);
    // The files that a peer's configuration names are on another host.
    let peer = arguments.peer.as_deref();
    let peer = peer.map(|peer| check(peer, |_| Ok(())));
    let (own, peer) = match (own, peer) {
        (None, _) | (_, Some(None)) => return Exit::Usage,
        (Some(_), None) => return Exit::Done,
        (Some(own), Some(Some(peer))) => (own, peer),
    };
    let differences = compare(&own, &peer);
    if differences.is_empty() {
        say("the two servers fit together");
        return Exit::Done;
    }
    for difference in &differences {
        complain(difference);
    }
    Exit::Usage
}

/// The configuration of a file; `None` when it has faults, which are told.
fn check(path: &Path, check_files: impl Fn(&Config) -> Result<(), String>) -> Option<Config> {
    let file = match read(path) {
        Ok(file) => file,
        Err(text) => {
            complain(&text);
            return None;
        }
    };
    let result = load(&Given {
        file: Some(file),
        ..Given::default()
    });
    let warnings = match &result {
        Ok(config) => &config.warnings,
        Err(faults) => &faults.warnings,
    };
    for warning in warnings {
        complain(&format!("warning: {warning}"));
    }
    let checked = result
        .map_err(|faults| faults.to_string())
        .and_then(|config| check_files(&config).map(|()| config));
    match checked {
        Ok(config) => {
            say(&format!("{}: no faults", path.display()));
            Some(config)
        }
        Err(text) => {
            complain(&text);
            None
        }
    }
}

/// What must match between the two servers of a pair and does not.
fn compare(own: &Config, peer: &Config) -> Vec<String> {
    let mut differences = Vec::new();
    let mut same = |name: &str, ours: String, theirs: String, advice: &str| {
        if ours != theirs {
            differences.push(format!(
                "{name}: {ours} here, {theirs} in the peer's file; {advice}"
            ));
        }
    };
    same(
        "server",
        own.server.clone(),
        peer.server.clone(),
        "write the same name in both files",
    );
    let store = |config: &Config| config.store.display().to_string();
    same(
        "store",
        store(own),
        store(peer),
        "both servers share one directory",
    );
    let sizes = |config: &Config| config.max_message_bytes.to_string();
    let advice = "a message that one takes the other must be able to deliver";
    same("max_message_bytes", sizes(own), sizes(peer), advice);
    for (name, one, other) in [("", own, peer), ("the peer's ", peer, own)] {
        if one.peers.is_empty() {
            differences.push(format!(
                "{name}ft_active: not set; write the URL of the other server"
            ));
        } else if !one.peers.iter().any(|url| is_listener(url, other)) {
            differences.push(format!(
                "{name}ft_active: {} is none of the other server's listeners; write one of {}",
                join(&one.peers),
                join(&other.listens)
            ));
        }
    }
    differences
}

/// Hosts may have several names; the port is what can be compared.
fn is_listener(url: &PeerUrl, server: &Config) -> bool {
    server.listens.iter().any(|listen| listen.port == url.port)
}

fn join<T: ToString>(items: &[T]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
