//! `steadfast check-config`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::args::CheckConfigArgs;
use super::serve::read;
use super::{complain, say};
use crate::config::companions::{Companions, Report, read_anyway};
use crate::config::{
    Config, Fault, Given, Origin, Side, differences, given_values, load_anyway, parameter,
    reference,
};
use crate::net::tls;
use crate::role::Exit;

/// Names every fault; with a peer's file also what does not fit between the two.
pub(super) fn run(arguments: &CheckConfigArgs) -> Exit {
    let Some(file) = arguments.file.as_deref().filter(|_| !arguments.reference) else {
        say(reference().trim_end());
        return Exit::Done;
    };
    let mut said = Said::default();
    let own = Checked::new(file, false, &mut said, tls::check);
    let Some(peer) = arguments.peer.as_deref() else {
        return own.map_or(Exit::Usage, |own| own.exit());
    };
    let is_same = real(file) == real(peer);
    let is_json = peer
        .extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("json"));
    if is_same && !is_json {
        complain(&format!(
            "{}: --peer names the same file, and a server is not its own peer; name the file of the \
             other server",
            peer.display()
        ));
        return Exit::Usage;
    }
    // Whether the peer can use its certificates is for its own host to say.
    let peer = Checked::new(peer, is_same, &mut said, |_| Ok(()));
    let (Some(mut own), Some(mut peer)) = (own, peer) else {
        return Exit::Usage;
    };
    for side in [&mut own, &mut peer] {
        // One directory may have several names.
        side.config.store = real(&side.config.store);
    }
    let found = differences(own.side(), peer.side(), &|path| fs::read(path));
    for difference in &found {
        complain(&located(difference, &own, &peer));
    }
    if !found.is_empty() || own.has_faults || peer.has_faults {
        return Exit::Usage;
    }
    say("the two servers fit together");
    Exit::Done
}

/// A difference with the places in the main files of the parameter that it is about.
fn located(difference: &str, own: &Checked, peer: &Checked) -> String {
    let (side, rest) = match difference.strip_prefix("the peer's ") {
        Some(rest) => (peer, rest),
        None => (own, difference),
    };
    let name = rest.split_once(':').map_or("", |(name, _)| name);
    if parameter(name).is_none() {
        return difference.to_owned();
    }
    let path = side.config.main_file.clone().unwrap_or_default();
    let place = side.place(name).unwrap_or(Origin::File { path, line: 0 });
    let other = peer.place(name).filter(|_| std::ptr::eq(side, own));
    let other = other.map_or_else(String::new, |other| format!(" ({other})"));
    format!("{place}: {difference}{other}")
}

/// A path without links and detours; what is not there yet stays as it is written.
fn real(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    let parent = path
        .parent()
        .map(|parent| match parent.as_os_str().is_empty() {
            true => Path::new("."),
            false => parent,
        });
    match (parent, path.file_name()) {
        (Some(parent), Some(name)) => real(parent).join(name),
        _ => path.to_owned(),
    }
}

/// What was said already: two servers may share files.
#[derive(Default)]
struct Said(BTreeSet<String>);

impl Said {
    /// Whether a fault or warning is a new one, however its file is called.
    fn is_new(&mut self, fault: &Fault) -> bool {
        let origin = match &fault.origin {
            Origin::File { path, line } => format!("{}:{line}", real(path).display()),
            other => other.to_string(),
        };
        self.0
            .insert(format!("{origin}: {}: {}", fault.parameter, fault.text))
    }
}

/// A configuration that was looked at, as far as it can be understood.
struct Checked {
    given: Given,
    config: Config,
    companions: Companions,
    has_faults: bool,
}

impl Checked {
    /// Reads a main file and those that it names, and tells what is wrong; `None` when the main
    /// file cannot be read. Certificates are for `check_files`, once the rest is right.
    fn new(
        path: &Path,
        is_secondary: bool,
        said: &mut Said,
        check_files: impl Fn(&Config) -> Result<(), Fault>,
    ) -> Option<Self> {
        let file = match read(path) {
            Ok(file) => file,
            Err(text) => {
                complain(&text);
                return None;
            }
        };
        let given = Given {
            file: Some(file),
            is_secondary,
            ..Given::default()
        };
        let (config, mut faults) = load_anyway(&given);
        let (
            companions,
            Report {
                faults: more,
                warnings,
            },
        ) = read_anyway(&config, &|path| fs::read(path));
        faults.extend(more);
        for warning in config.warnings.iter().chain(&warnings) {
            if said.is_new(warning) {
                complain(&format!("warning: {warning}"));
            }
        }
        let mut has_faults = !faults.is_empty();
        for fault in &faults {
            if said.is_new(fault) {
                complain(&fault.to_string());
            }
        }
        if !has_faults && let Err(fault) = check_files(&config) {
            has_faults = true;
            if said.is_new(&fault) {
                complain(&fault.to_string());
            }
        }
        if !has_faults {
            let second = if is_secondary {
                " as the second server"
            } else {
                ""
            };
            say(&format!("{}{second}: no faults", path.display()));
        }
        Some(Self {
            given,
            config,
            companions,
            has_faults,
        })
    }

    /// Where a parameter was given.
    fn place(&self, name: &str) -> Option<Origin> {
        let mut given = given_values(&self.given).into_iter();
        let found = given.find(|it| it.parameter == name);
        found.map(|it| it.origin)
    }

    fn side(&self) -> Side<'_> {
        Side {
            config: &self.config,
            companions: &self.companions,
        }
    }

    fn exit(&self) -> Exit {
        if self.has_faults {
            Exit::Usage
        } else {
            Exit::Done
        }
    }
}
