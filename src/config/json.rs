//! The JSON form of the main file.
//!
//! Either one object of parameters, or EMS's form with an object `tibemsd` beside those of the
//! companion files. `primary_listens` and `secondary_listens` are lists of `{url, ft_active}`;
//! `ft_active` marks the URL that the other server connects to. `--secondary` chooses the second.

use std::path::Path;

use super::companions::{Companion, Companions, Report, read_section};
use super::file::Entry;
use super::tree::{self, Json, Node};
use super::{Origin, suggest};

/// Sections of EMS that have no effect here.
const FOREIGN: [&str; 3] = ["channels", "tibrvcm", "transports"];

/// What a JSON file says.
pub(super) struct JsonFile {
    /// Its parameters.
    pub(super) entries: Vec<Entry>,
    /// The other sections, with their own faults; `None` in the form without them.
    pub(super) companions: Option<(Companions, Report)>,
}

struct Reader<'a> {
    path: &'a Path,
    is_secondary: bool,
    entries: Vec<Entry>,
    report: &'a mut Report,
}

pub(super) fn parse(path: &Path, text: &str, is_secondary: bool, report: &mut Report) -> JsonFile {
    let mut reader = Reader {
        path,
        is_secondary,
        entries: Vec::new(),
        report,
    };
    let companions = match tree::parse(text) {
        Ok(members) => reader.read_top(members),
        Err((line, text)) => {
            reader.fault(line, "", &text);
            None
        }
    };
    JsonFile {
        entries: reader.entries,
        companions,
    }
}

impl Reader<'_> {
    fn read_top(&mut self, members: Vec<(String, Node)>) -> Option<(Companions, Report)> {
        self.find_doubles(&members);
        let is_ems = members.iter().any(|(name, _)| name == "tibemsd");
        if !is_ems {
            self.read_parameters(members);
            return None;
        }
        let (mut companions, mut report) = (Companions::of_sections(self.path), Report::default());
        for (name, node) in members {
            let companion = Companion::ALL
                .into_iter()
                .find(|which| which.section() == name);
            match node.value {
                Json::Object(inner) if name == "tibemsd" => {
                    self.find_doubles(&inner);
                    self.read_parameters(inner);
                }
                _ if name == "tibemsd" => {
                    self.fault(node.line, &name, "it must be an object of parameters");
                }
                _ if name == "model_version" => {}
                _ if FOREIGN.contains(&name.as_str()) => {
                    if !node.value.is_empty() {
                        let origin = self.origin(node.line);
                        let text = "this section of EMS has no effect in this version; remove it";
                        self.report.warn(origin, &name, text);
                    }
                }
                _ => match companion {
                    Some(which) => {
                        read_section(&mut companions, which, self.path, &node, &mut report);
                    }
                    None => {
                        let known = Companion::ALL.map(Companion::section);
                        let known: Vec<&str> = known
                            .into_iter()
                            .chain(FOREIGN)
                            .chain(["model_version", "tibemsd"])
                            .collect();
                        let text = format!("unknown section{}", suggest::hint(&name, &known));
                        self.fault(node.line, &name, &text);
                    }
                },
            }
        }
        Some((companions, report))
    }

    fn find_doubles(&mut self, members: &[(String, Node)]) {
        for (index, (name, node)) in members.iter().enumerate() {
            if members.iter().take(index).any(|(other, _)| other == name) {
                self.fault(node.line, name, "it stands there twice; remove one");
            }
        }
    }

    fn read_parameters(&mut self, members: Vec<(String, Node)>) {
        let find = |name: &str| {
            let member = members.iter().find(|(other, _)| other == name);
            member.map(|(_, node)| node.clone())
        };
        let (own, other) = if self.is_secondary {
            ("secondary_listens", "primary_listens")
        } else {
            ("primary_listens", "secondary_listens")
        };
        match (find(own), find(other)) {
            (None, _) if self.is_secondary => {
                self.fault(0, own, "it is missing, and `--secondary` was given");
            }
            (None, Some(node)) => {
                let text = format!("without `{own}` this server has no listeners of its own");
                self.fault(node.line, other, &text);
            }
            (own_node, other_node) => {
                self.read_listens((own, own_node), (other, other_node));
            }
        }
        for (name, node) in members {
            match (name.as_str(), node.value) {
                ("primary_listens" | "secondary_listens", _) => {}
                ("ssl", Json::Object(inner)) => {
                    for (inner_name, node) in inner {
                        let is_full = inner_name.starts_with("ssl_");
                        let prefix = if is_full { "" } else { "ssl_" };
                        self.read_value(format!("{prefix}{inner_name}"), node);
                    }
                }
                (_, value) => {
                    let line = node.line;
                    self.read_value(name, Node { line, value });
                }
            }
        }
    }

    /// Our listeners, and the URLs of the other server that are marked for us.
    fn read_listens(&mut self, own: (&str, Option<Node>), other: (&str, Option<Node>)) {
        let ours = own.1.map(|node| self.listens(own.0, node));
        let theirs = other.1.map(|node| (node.line, self.listens(other.0, node)));
        let mut peers: Vec<(usize, String)> = Vec::new();
        for listen in ours.into_iter().flatten() {
            self.push(listen.line, "listen", listen.url);
            peers.extend(listen.peer.map(|url| (listen.line, url)));
        }
        if peers.is_empty()
            && let Some((line, listens)) = theirs
        {
            let is_empty = listens.is_empty();
            let marked = listens.into_iter().filter(|listen| listen.is_marked);
            peers.extend(marked.map(|listen| (listen.line, listen.url)));
            if peers.is_empty() && !is_empty {
                let text = "no URL is marked for the other server of the pair; write \
                                \"ft_active\": true beside one \"url\"";
                self.fault(line, other.0, text);
            }
        }
        peers.dedup_by(|(_, one), (_, other)| one == other);
        for (line, url) in peers {
            self.push(line, "ft_active", url);
        }
    }

    /// `[{"url": ..., "ft_active": ...}, ...]`
    fn listens(&mut self, name: &str, node: Node) -> Vec<Listen> {
        let Json::List(items) = node.value else {
            self.fault(
                node.line,
                name,
                "write a list: [{\"url\": \"tcp://host:port\"}]",
            );
            return Vec::new();
        };
        let mut listens = Vec::new();
        for item in items {
            let Json::Object(members) = item.value else {
                self.fault(
                    item.line,
                    name,
                    "each item is an object: {\"url\": \"tcp://host:port\"}",
                );
                continue;
            };
            let mut listen = Listen {
                line: item.line,
                url: String::new(),
                is_marked: false,
                peer: None,
            };
            for (key, node) in members {
                match (key.as_str(), node.value) {
                    ("url", Json::Text(url)) => listen.url = url,
                    ("ft_active", Json::Flag(flag)) => listen.is_marked = flag,
                    ("ft_active", Json::Text(url)) => {
                        listen.peer = Some(url).filter(|url| !url.is_empty());
                    }
                    ("ft_active", Json::Null) => {}
                    ("url" | "ft_active", _) => {
                        let text = format!("`{key}`: write \"url\": \"...\", \"ft_active\": true");
                        self.fault(node.line, name, &text);
                    }
                    _ => {
                        let hint = suggest::hint(&key, &["url", "ft_active"]);
                        self.fault(node.line, name, &format!("unknown key `{key}`{hint}"));
                    }
                }
            }
            if listen.url.is_empty() {
                self.fault(
                    listen.line,
                    name,
                    "each item needs an \"url\": \"tcp://host:port\"",
                );
            } else {
                listens.push(listen);
            }
        }
        listens
    }

    fn read_value(&mut self, name: String, node: Node) {
        let line = node.line;
        let values = match node.value {
            Json::List(items) => items,
            value => vec![Node { line, value }],
        };
        for node in values {
            match node.value.plain() {
                Some(value) => self.push(node.line, &name, value),
                None => self.fault(node.line, &name, "write a text, a number or true/false"),
            }
        }
    }

    fn push(&mut self, line: usize, name: &str, value: String) {
        let origin = self.origin(line);
        self.entries.push(Entry {
            origin,
            name: name.to_owned(),
            value,
        });
    }

    fn fault(&mut self, line: usize, name: &str, text: &str) {
        let origin = self.origin(line);
        self.report.fault(origin, name, text);
    }

    fn origin(&self, line: usize) -> Origin {
        Origin::File {
            path: self.path.to_owned(),
            line,
        }
    }
}

/// One item of `primary_listens` or `secondary_listens`.
struct Listen {
    line: usize,
    url: String,
    /// The other server connects to it.
    is_marked: bool,
    /// The URL of the other server, in a file that names it here.
    peer: Option<String>,
}
