//! `factories.conf`, `routes.conf` and `stores.conf`: sections of `name = value` lines.

use std::collections::BTreeMap;

use super::Companion;
use super::file::{Entry, Item, Report, sections};
use super::lines::Document;
use super::words::{quote, unquote};
use crate::config::file::first_word;
use crate::config::table::Kind;
use crate::config::{PeerUrl, Secret, suggest, value};

/// A setting that a section may have.
struct Setting {
    name: &'static str,
    takes: Takes,
}

/// What it takes.
#[derive(Clone, Copy)]
enum Takes {
    /// A value of a kind that the main file has, too.
    Kind(Kind),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// URLs with `,`, `|` or `+` between them.
    Urls,
}

const TEXT: Takes = Takes::Kind(Kind::Text);
const FLAG: Takes = Takes::Kind(Kind::Flag);
const NUMBER: Takes = Takes::Kind(Kind::Count {
    min: 0,
    max: u32::MAX as u64,
});
const SIZE: Takes = Takes::Kind(Kind::Bytes {
    min: 0,
    max: 1 << 50,
});

const fn setting(name: &'static str, takes: Takes) -> Setting {
    Setting { name, takes }
}

const FACTORY: &[Setting] = &[
    setting(
        "type",
        Takes::OneOf(&[
            "generic",
            "xageneric",
            "topic",
            "queue",
            "xatopic",
            "xaqueue",
        ]),
    ),
    setting("url", Takes::Urls),
    setting("metric", Takes::OneOf(&["connections", "byte_rate"])),
    setting("clientID", TEXT),
    setting("connect_attempt_count", NUMBER),
    setting("connect_attempt_delay", NUMBER),
    setting("connect_attempt_timeout", NUMBER),
    setting("reconnect_attempt_count", NUMBER),
    setting("reconnect_attempt_delay", NUMBER),
    setting("reconnect_attempt_timeout", NUMBER),
];
const ROUTE: &[Setting] = &[
    setting("url", Takes::Urls),
    setting("zone_name", TEXT),
    setting("zone_type", Takes::OneOf(&["mhop", "1hop"])),
    setting("incoming_topic", TEXT),
    setting("outgoing_topic", TEXT),
    setting("topic_prefetch", NUMBER),
];
const STORE: &[Setting] = &[
    setting(
        "type",
        Takes::OneOf(&["file", "mstore", "dbstore", "as", "grid", "ftl"]),
    ),
    setting("file", TEXT),
    setting("mode", Takes::OneOf(&["async", "sync"])),
    setting("file_crc", FLAG),
    setting("file_minimum", SIZE),
    setting("file_truncate", FLAG),
    setting("file_destination_defrag", NUMBER),
    setting("processor_id", TEXT),
    setting("scan_iter_interval", TEXT),
    setting("scan_target_interval", TEXT),
    setting("mstore_truncate", FLAG),
];

/// Settings beyond the list, known by how they begin.
fn families(which: Companion) -> &'static [&'static str] {
    match which {
        Companion::Factories => &["ssl_", "multicast_"],
        Companion::Routes => &["ssl_"],
        _ => &["dbstore_"],
    }
}

fn settings(which: Companion) -> &'static [Setting] {
    match which {
        Companion::Factories => FACTORY,
        Companion::Routes => ROUTE,
        _ => STORE,
    }
}

/// A factory, a route or a store: a `[name]` line and settings below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Unique.
    pub name: String,
    /// Values by the names of the settings; not shown, passwords are among them.
    pub settings: BTreeMap<String, Secret>,
}

impl Section {
    /// The value of a setting.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(Secret::expose)
    }

    pub(super) fn new(name: &str) -> Result<Self, String> {
        if name.is_empty() || name.chars().count() > 255 || name.contains(char::is_control) {
            return Err("a name has 1 to 255 characters and no control characters".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            settings: BTreeMap::new(),
        })
    }

    /// Takes a setting; gives its name as the table spells it.
    pub(super) fn add(
        &mut self,
        which: Companion,
        name: &str,
        text: &str,
    ) -> Result<String, String> {
        let row = settings(which)
            .iter()
            .find(|row| row.name.eq_ignore_ascii_case(name));
        let lower = name.to_ascii_lowercase();
        let is_family = families(which)
            .iter()
            .any(|family| lower.starts_with(family));
        let name = match row {
            Some(row) => row.name.to_owned(),
            None if is_family => lower,
            None => {
                let names: Vec<&str> = settings(which).iter().map(|row| row.name).collect();
                let hint = suggest::hint(name, &names);
                return Err(format!("unknown setting `{name}`{hint}"));
            }
        };
        if let Some(row) = row.filter(|_| !text.is_empty()) {
            check(row.takes, text).map_err(|fault| format!("{name}: {fault}"))?;
        }
        if self.settings.contains_key(&name) {
            return Err(format!("`{name}` stands there twice; remove one"));
        }
        if !text.is_empty() {
            let value = Secret::new(text.to_owned());
            self.settings.insert(name.clone(), value);
        }
        Ok(name)
    }

    /// What is missing in the whole section.
    pub(super) fn missing(&self, which: Companion) -> Option<String> {
        let needed: &[&str] = match which {
            Companion::Factories => &["type", "url"],
            Companion::Routes => &["url"],
            _ => &[],
        };
        let missing = needed.iter().find(|name| self.get(name).is_none())?;
        Some(format!("`{missing}` is missing; write {missing} = ..."))
    }

    pub(super) fn warning(&self, which: Companion) -> Option<String> {
        let kind = self.get("type").filter(|_| which == Companion::Stores)?;
        (!kind.eq_ignore_ascii_case("file")).then(|| {
            format!(
                "type={kind} is not supported by this version: its messages are in the one store \
                 that the parameter `store` names"
            )
        })
    }
}

fn check(takes: Takes, text: &str) -> Result<(), String> {
    match takes {
        Takes::Kind(kind) => value::parse(kind, text).map(|_| ()),
        Takes::OneOf(words) => {
            let is_known = words.iter().any(|word| word.eq_ignore_ascii_case(text));
            let hint = || format!("`{text}` is not known{}", suggest::hint(text, words));
            is_known.then_some(()).ok_or_else(hint)
        }
        Takes::Urls => text
            .split([',', '|', '+'])
            .map(str::trim)
            .try_for_each(|url| PeerUrl::parse(url).map(|_| ())),
    }
}

impl Entry for Section {
    fn key(&self) -> String {
        self.name.clone()
    }

    fn header(&self) -> String {
        format!("[{}]", self.name)
    }

    fn inner(&self) -> Vec<(String, String)> {
        let line = |(name, value): (&String, &Secret)| {
            (name.clone(), format!("{name} = {}", quote(value.expose())))
        };
        self.settings.iter().map(line).collect()
    }

    fn read(which: Companion, document: &Document, report: &mut Report) -> Vec<Item<Self>> {
        let mut items = Vec::new();
        for found in sections(document, report) {
            let origin = document.origin(found.index);
            let mut section = match Self::new(found.name) {
                Ok(section) => section,
                Err(text) => {
                    report.fault(origin, found.name, text);
                    continue;
                }
            };
            let mut inner = Vec::new();
            let before = report.faults.len();
            for (index, line) in found.lines {
                let added = match line.split_once('=') {
                    Some((name, text)) => {
                        unquote(text).and_then(|text| section.add(which, name.trim(), &text))
                    }
                    None => Err(format!(
                        "`{}`: `=` is missing; write name = value",
                        first_word(line)
                    )),
                };
                match added {
                    Ok(name) => inner.push((name, index)),
                    Err(text) => report.fault(document.origin(index), found.name, text),
                }
            }
            if report.faults.len() == before
                && let Some(text) = section.missing(which)
            {
                report.fault(origin.clone(), found.name, text);
            }
            if let Some(text) = section.warning(which) {
                report.warn(origin.clone(), found.name, text);
            }
            items.push(Item {
                entry: section,
                origin,
                index: found.index,
                inner,
            });
        }
        items
    }
}
