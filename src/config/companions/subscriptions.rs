//! `durables.conf` and `bridges.conf`.

use super::Companion;
use super::file::{Entry, Item, NamedFault, Report, read_lines, sections};
use super::lines::Document;
use super::words::{Word, first, properties, quote, unquote};
use crate::config::suggest;
use crate::model::{Bridge, DestinationKind, Durable, Pattern};

const SELECTOR: &str = "selectors are not supported by this version, and without its selector it \
                        would get messages that it must not get; remove the entry or the selector";

impl Durable {
    fn parse(line: &str) -> Result<(Self, Vec<String>), NamedFault> {
        let unnamed = |text| (String::new(), text);
        let (topic, rest) = first(line);
        let (name, rest) = first(rest);
        let name = unquote(name).map_err(unnamed)?;
        if name.is_empty() {
            return Err(unnamed(format!(
                "`{topic}`: write the topic, the name of the subscription, then its properties"
            )));
        }
        let named = |text| (format!("{topic} {name}"), text);
        let words = properties(rest).map_err(named)?;
        Self::new(topic, &name, &words).map_err(named)
    }

    pub(super) fn new(
        topic: &str,
        name: &str,
        words: &[Word],
    ) -> Result<(Self, Vec<String>), String> {
        let mut durable = Self {
            topic: Pattern::parse(&unquote(topic)?)?,
            name: name.to_owned(),
            client_id: String::new(),
            no_local: false,
            is_route: false,
        };
        let mut warnings = Vec::new();
        for word in words {
            let is_on = word.value.as_deref().is_none_or(|text| text == "true");
            match (word.name.to_ascii_lowercase().as_str(), &word.value) {
                ("route", _) => durable.is_route = is_on,
                ("nolocal", _) => durable.no_local = is_on,
                ("clientid", Some(id)) => durable.client_id.clone_from(id),
                ("clientid", None) => return Err("write clientid=ID".to_owned()),
                ("selector", Some(text)) if text.is_empty() => {}
                ("selector", _) => return Err(SELECTOR.to_owned()),
                ("shared", _) => {
                    return Err(
                        "shared subscriptions are not supported by this version; remove \
                                the entry"
                            .to_owned(),
                    );
                }
                _ => {
                    let hint = suggest::hint(&word.name, &["clientid", "nolocal", "route"]);
                    return Err(format!("unknown property `{}`{hint}", word.name));
                }
            }
        }
        if durable.is_route {
            if durable.no_local || !durable.client_id.is_empty() {
                return Err(
                    "with `route` no other property is allowed; remove the others".to_owned(),
                );
            }
            warnings.push(
                "it has no effect in this version: servers do not forward messages to each other"
                    .to_owned(),
            );
        }
        Ok((durable, warnings))
    }
}

impl Entry for Durable {
    /// A client's subscriptions have names of their own.
    fn key(&self) -> String {
        if self.client_id.is_empty() {
            return self.name.clone();
        }
        format!("{} clientid={}", self.name, self.client_id)
    }

    fn header(&self) -> String {
        let mut words = Vec::new();
        if self.is_route {
            words.push("route".to_owned());
        }
        if !self.client_id.is_empty() {
            words.push(format!("clientid={}", quote(&self.client_id)));
        }
        if self.no_local {
            words.push("nolocal".to_owned());
        }
        let line = format!("{} {} {}", self.topic, self.name, words.join(","));
        line.trim_end().to_owned()
    }

    fn read(_: Companion, document: &Document, report: &mut Report) -> Vec<Item<Self>> {
        read_lines(document, report, Self::parse)
    }
}

impl Bridge {
    pub(super) fn new(kind: &str, name: &str) -> Result<Self, String> {
        Ok(Self {
            source: (read_kind(kind)?, Pattern::parse(name.trim())?),
            targets: Vec::new(),
        })
    }

    /// Adds a target; gives its key.
    pub(super) fn add(
        &mut self,
        kind: &str,
        name: &str,
        has_selector: bool,
    ) -> Result<String, String> {
        let target = (read_kind(kind)?, Pattern::parse(name)?);
        let key = show_target(&target);
        if has_selector {
            return Err(format!("{key}: {SELECTOR}"));
        }
        if target.1.is_wildcard() {
            return Err(format!(
                "{key}: a target is one destination; write its name without `*` and `>`"
            ));
        }
        if target == self.source {
            return Err(format!("{key}: a bridge cannot lead to its own source"));
        }
        if self.targets.contains(&target) {
            return Err(format!("{key} is a target twice; remove one line"));
        }
        self.targets.push(target);
        Ok(key)
    }

    fn read_target(&mut self, line: &str) -> Result<String, String> {
        let (word, rest) = first(line);
        // `queue = name` is one word, too.
        let joined;
        let (word, rest) = if word.contains('=') && !word.ends_with('=') {
            (word, rest)
        } else {
            let (name, after) = first(rest.trim_start_matches('='));
            joined = format!("{}={name}", word.trim_end_matches('='));
            (joined.as_str(), after)
        };
        let Some((kind, name)) = word.split_once('=') else {
            return Err(format!("`{word}`: write queue=name or topic=name"));
        };
        let mut has_selector = false;
        for word in properties(rest)? {
            if !word.name.eq_ignore_ascii_case("selector") {
                let hint = suggest::hint(&word.name, &["selector"]);
                return Err(format!("unknown property `{}`{hint}", word.name));
            }
            has_selector = true;
        }
        self.add(kind.trim(), &unquote(name)?, has_selector)
    }
}

fn read_kind(word: &str) -> Result<DestinationKind, String> {
    match word.trim().to_ascii_lowercase().as_str() {
        "queue" => Ok(DestinationKind::Queue),
        "topic" => Ok(DestinationKind::Topic),
        other => Err(format!(
            "`{other}` is neither queue nor topic; write one of them"
        )),
    }
}

fn show_target((kind, name): &(DestinationKind, Pattern)) -> String {
    format!("{kind}={name}")
}

impl Entry for Bridge {
    fn key(&self) -> String {
        format!("{}:{}", self.source.0, self.source.1)
    }

    fn header(&self) -> String {
        format!("[{}]", self.key())
    }

    fn inner(&self) -> Vec<(String, String)> {
        let targets = self.targets.iter().map(show_target);
        targets.map(|line| (line.clone(), line)).collect()
    }

    fn read(_: Companion, document: &Document, report: &mut Report) -> Vec<Item<Self>> {
        let mut items = Vec::new();
        for section in sections(document, report) {
            let origin = document.origin(section.index);
            let bridge = section
                .name
                .split_once(':')
                .ok_or_else(|| "write [queue:name] or [topic:name]".to_owned())
                .and_then(|(kind, name)| Self::new(kind, name));
            let mut bridge = match bridge {
                Ok(bridge) => bridge,
                Err(text) => {
                    report.fault(origin, section.name, text);
                    continue;
                }
            };
            let mut inner = Vec::new();
            for (index, line) in section.lines {
                match bridge.read_target(line) {
                    Ok(key) => inner.push((key, index)),
                    Err(text) => report.fault(document.origin(index), section.name, text),
                }
            }
            items.push(Item {
                entry: bridge,
                origin,
                index: section.index,
                inner,
            });
        }
        items
    }
}
