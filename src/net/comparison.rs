//! What two servers that meet tell each other about their configurations, and what they find.
//!
//! Entries of files and certificates cross the link as digests, made with a nonce of whoever sends
//! them: equal ones show as equal to a server that has them too, and to nobody before.

use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::auth::nonce;
use crate::config::{Digests, Facts, Met, Parameters, differences_met};

/// Entries of one message, in bytes of their names and digests.
const PART_BYTES: usize = 24 * 1024;
/// Entries that are taken from a peer. No server of ours sends more.
const ENTRIES_MAX: usize = 40_000;
/// Longest name of an entry, in bytes.
const KEY_BYTES_MAX: usize = 2_048;
/// Differences that are told one by one.
const LINES_MAX: usize = 200;
/// Bytes of a digest that are sent: nobody gains by making two equal ones.
const DIGEST_BYTES: usize = 12;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// In the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    begin: Option<Begin>,
    entries: Vec<(String, String)>,
    is_last: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begin {
    nonce: String,
    parameters: Parameters,
}

/// What a server says.
pub(crate) fn parts(facts: &Facts) -> Vec<Part> {
    let nonce = nonce();
    let mut parts = vec![Part {
        begin: Some(Begin {
            nonce: nonce.clone(),
            parameters: facts.parameters.clone(),
        }),
        entries: Vec::new(),
        is_last: false,
    }];
    let mut bytes = 0;
    for (key, digest) in digests(facts, &nonce) {
        bytes += key.len() + digest.len();
        if let Some(part) = parts.last_mut() {
            part.entries.push((key, digest));
        }
        if bytes > PART_BYTES {
            bytes = 0;
            parts.push(Part {
                begin: None,
                entries: Vec::new(),
                is_last: false,
            });
        }
    }
    if let Some(part) = parts.last_mut() {
        part.is_last = true;
    }
    parts
}

fn digests(facts: &Facts, nonce: &str) -> Digests {
    let key = hmac::Key::new(hmac::HMAC_SHA256, nonce.as_bytes());
    let entries = facts.entries.iter().map(|(name, value)| {
        let mut context = hmac::Context::with_key(&key);
        context.update(name.as_bytes());
        context.update(&[0]);
        context.update(value);
        let tag = context.sign();
        let bytes = tag.as_ref().get(..DIGEST_BYTES).unwrap_or_default();
        (name.clone(), super::opener::hexadecimal(bytes))
    });
    entries.collect()
}

/// What a peer has said so far.
#[derive(Debug)]
pub(crate) struct Told {
    begin: Begin,
    digests: Digests,
}

/// Takes messages until they are whole.
#[derive(Debug, Default)]
pub(crate) struct Incoming(Option<Told>);

impl Incoming {
    /// All that the peer says, when this message was the last one.
    ///
    /// # Errors
    /// The message is out of place, or there is too much of it.
    pub(crate) fn take(&mut self, part: Part) -> Result<Option<Told>, &'static str> {
        if let Some(begin) = part.begin {
            self.0 = Some(Told {
                begin,
                digests: Digests::new(),
            });
        }
        let Some(told) = &mut self.0 else {
            return Err("its configuration has no beginning");
        };
        let is_long = part
            .entries
            .iter()
            .any(|(key, _)| key.len() > KEY_BYTES_MAX);
        if is_long || told.digests.len() + part.entries.len() > ENTRIES_MAX {
            return Err("its configuration is too long");
        }
        told.digests.extend(part.entries);
        Ok(if part.is_last { self.0.take() } else { None })
    }
}

/// What differs. Takes some milliseconds for thousands of entries.
pub(crate) fn compare(own: &Facts, theirs: &Told, is_shared: bool) -> Vec<String> {
    let digests = digests(own, &theirs.begin.nonce);
    let own = Met {
        parameters: &own.parameters,
        digests: &digests,
    };
    let theirs = Met {
        parameters: &theirs.begin.parameters,
        digests: &theirs.digests,
    };
    let mut lines = differences_met(own, theirs, is_shared);
    if lines.len() > LINES_MAX {
        let more = lines.len() - LINES_MAX;
        lines.truncate(LINES_MAX);
        lines.push(format!("and {more} more; `check-config --peer` names all"));
    }
    for line in &mut lines {
        // A name in it may be the peer's.
        line.retain(|letter| !letter.is_control());
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::config::companions::read_anyway;
    use crate::config::{Given, MainFile, load_anyway};

    fn facts(main: &str, files: &[(&str, &str)]) -> Facts {
        let (config, faults) = load_anyway(&Given {
            file: Some(MainFile {
                path: PathBuf::from("a.conf"),
                text: main.to_owned(),
            }),
            ..Given::default()
        });
        assert_eq!(faults, []);
        let reader = |path: &Path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            let text = file.map(|(_, text)| text.as_bytes().to_vec());
            text.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        };
        let (companions, _) = read_anyway(&config, &reader);
        Facts::new(&config, &config.listens, &companions, &reader)
    }

    /// What `own` finds when `peer` tells it everything.
    fn met(own: &Facts, peer: &Facts) -> Vec<String> {
        let mut incoming = Incoming::default();
        let mut whole = None;
        for part in parts(peer) {
            let line = serde_json::to_string(&part).expect("it is JSON");
            assert!(line.len() < 60_000, "{}", line.len());
            assert!(!line.contains("hunter2"), "{line}");
            let part = serde_json::from_str(&line).expect("it is what was written");
            assert!(whole.is_none());
            whole = incoming.take(part).expect("it is right");
        }
        compare(own, &whole.expect("there was a last part"), false)
    }

    #[test]
    fn servers_that_are_alike_find_nothing_and_each_difference_is_a_line() {
        let files = [
            ("users.conf", "bob:hunter2:\n"),
            ("queues.conf", "orders.> secure\nold\n"),
            (
                "routes.conf",
                "[NORTH]\n  url = tcp://n:7222\n  zone_type = 1hop\n",
            ),
            ("acl.conf", "QUEUE=orders.> USER=bob PERM=receive\n"),
        ];
        let main = "server = EAST\nlisten = tcp://127.0.0.1:1\n";
        let one = facts(main, &files);
        assert_eq!(met(&one, &one), Vec::<String>::new());
        let files = [
            ("users.conf", "bob:hunter2:\nann:hunter2:\n"),
            ("queues.conf", "orders.>\n"),
            (
                "routes.conf",
                "[NORTH]\n  url = tcp://n:7223\n  zone_type = 1hop\n",
            ),
            ("acl.conf", "QUEUE=orders.> USER=bob PERM=receive,send\n"),
        ];
        let main = "server = WEST\nlisten = tcp://127.0.0.1:2\nmax_message_bytes = 1MB\n";
        let two = facts(main, &files);
        let found = met(&one, &two);
        let wanted = [
            "max_message_bytes: 16777216 here, 1048576 at the peer; ",
            "permission QUEUE=orders.> USER=bob: not the same on both servers; ",
            "queue old: missing at the peer",
            "queue orders.>: not the same on both servers; ",
            "route NORTH: not the same on both servers; ",
            "user ann: missing here",
        ];
        assert_eq!(found.len(), wanted.len(), "{found:#?}");
        for (line, wanted) in found.iter().zip(wanted) {
            assert!(line.starts_with(wanted), "`{wanted}` is not {line}");
        }
    }

    #[test]
    fn a_large_configuration_is_told_in_parts_and_its_differences_are_counted() {
        let queues = |prefix: &str| -> String {
            let names = (0..1_500).map(|number| format!("{prefix}.{number}\n"));
            names.collect()
        };
        let main = "listen = tcp://127.0.0.1:1\n";
        let one = facts(main, &[("queues.conf", &queues("a"))]);
        let two = facts(main, &[("queues.conf", &queues("b"))]);
        assert!(parts(&one).len() > 1);
        let found = met(&one, &two);
        assert_eq!(found.len(), LINES_MAX + 1);
        assert!(
            found
                .last()
                .is_some_and(|line| line.starts_with("and 2800 more"))
        );
    }

    #[test]
    fn a_peer_that_says_too_much_is_stopped() {
        let facts = facts("listen = tcp://127.0.0.1:1\n", &[]);
        let [first] = &parts(&facts)[..] else {
            panic!("it fits in one message");
        };
        let more = |count: usize, key: &str| Part {
            begin: None,
            entries: (0..count)
                .map(|number| (format!("{key}{number}"), String::new()))
                .collect(),
            is_last: false,
        };
        let mut incoming = Incoming::default();
        assert!(incoming.take(more(1, "x")).is_err(), "it has no beginning");
        let mut first = first.clone();
        first.is_last = false;
        assert!(matches!(incoming.take(first), Ok(None)));
        assert!(incoming.take(more(1, &"x".repeat(KEY_BYTES_MAX))).is_err());
        assert!(incoming.take(more(ENTRIES_MAX + 1, "x")).is_err());
    }
}
