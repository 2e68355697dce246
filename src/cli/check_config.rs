//! `steadfast check-config`.

use std::fs;
use std::path::Path;

use super::args::CheckConfigArgs;
use super::serve::read;
use super::{complain, say};
use crate::config::companions::{Companions, Report, read_anyway};
use crate::config::{Config, Fault, Given, Side, differences, load_anyway, reference};
use crate::net::tls;
use crate::role::Exit;

/// Names every fault; with a peer's file also what does not fit between the two.
pub(super) fn run(arguments: &CheckConfigArgs) -> Exit {
    let Some(file) = arguments.file.as_deref().filter(|_| !arguments.reference) else {
        say(reference().trim_end());
        return Exit::Done;
    };
    let own = Checked::new(file, false, tls::check);
    // Whether the peer can use its certificates is for its own host to say.
    let peer = arguments
        .peer
        .as_deref()
        .map(|peer| Checked::new(peer, peer == file, |_| Ok(())));
    let (own, peer) = match (own, peer) {
        (None, _) | (_, Some(None)) => return Exit::Usage,
        (Some(own), None) => return own.exit(),
        (Some(own), Some(Some(peer))) => (own, peer),
    };
    let found = differences(own.side(), peer.side(), &|path| fs::read(path));
    for difference in &found {
        complain(difference);
    }
    if !found.is_empty() || own.has_faults || peer.has_faults {
        return Exit::Usage;
    }
    say("the two servers fit together");
    Exit::Done
}

/// A configuration that was looked at, as far as it can be understood.
struct Checked {
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
        check_files: impl Fn(&Config) -> Result<(), String>,
    ) -> Option<Self> {
        let file = match read(path) {
            Ok(file) => file,
            Err(text) => {
                complain(&text);
                return None;
            }
        };
        let (config, mut faults) = load_anyway(&Given {
            file: Some(file),
            is_secondary,
            ..Given::default()
        });
        let (
            companions,
            Report {
                faults: more,
                warnings,
            },
        ) = read_anyway(&config, &|path| fs::read(path));
        faults.extend(more);
        for warning in config.warnings.iter().chain(&warnings) {
            complain(&format!("warning: {warning}"));
        }
        let mut faults: Vec<String> = faults.iter().map(Fault::to_string).collect();
        if faults.is_empty() {
            faults.extend(check_files(&config).err());
        }
        faults.iter().for_each(|fault| complain(fault));
        if faults.is_empty() {
            say(&format!("{}: no faults", path.display()));
        }
        Some(Self {
            config,
            companions,
            has_faults: !faults.is_empty(),
        })
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
