//! The JSON form of the main file.
//!
//! Either one object of parameters, or EMS's form with an object `tibemsd` beside those of the
//! companion files. `primary_listens` and `secondary_listens` are lists of `{url, ft_active}`;
//! `--secondary` chooses the second.

use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::file::Entry;
use super::{Fault, Origin};

/// An object that keeps double keys, so that none is lost silently.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Members;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object of parameters: {\"server\": ..., ...}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    entries: Vec<Entry>,
    faults: &'a mut Vec<Fault>,
    warnings: &'a mut Vec<Fault>,
}

pub(super) fn parse(
    path: &Path,
    text: &str,
    is_secondary: bool,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<Fault>,
) -> Vec<Entry> {
    let mut reader = Reader {
        path,
        text,
        entries: Vec::new(),
        faults,
        warnings,
    };
    match serde_json::from_str::<Members>(text) {
        Ok(Members(members)) => reader.read_top(members, is_secondary),
        Err(error) => {
            let origin = Origin::File {
                path: path.to_owned(),
                line: error.line(),
            };
            let text = format!("not valid JSON: {error}");
            reader.faults.push(Fault {
                origin,
                parameter: String::new(),
                text,
            });
        }
    }
    reader.entries
}

impl Reader<'_> {
    fn read_top(&mut self, members: Vec<(String, Value)>, is_secondary: bool) {
        let is_ems = members.iter().any(|(name, _)| name == "tibemsd");
        if !is_ems {
            return self.read_parameters(members, is_secondary);
        }
        for (name, value) in members {
            match value {
                Value::Object(inner) if name == "tibemsd" => {
                    self.read_parameters(inner.into_iter().collect(), is_secondary);
                }
                _ if name == "tibemsd" => {
                    self.fault(&name, "it must be an object of parameters");
                }
                _ if name == "model_version" || is_empty(&value) => {}
                _ => {
                    let origin = self.origin(&name);
                    let text = "this part is not read by this version".to_owned();
                    self.warnings.push(Fault {
                        origin,
                        parameter: name,
                        text,
                    });
                }
            }
        }
    }

    fn read_parameters(&mut self, members: Vec<(String, Value)>, is_secondary: bool) {
        let chosen = if is_secondary {
            "secondary_listens"
        } else {
            "primary_listens"
        };
        let has_listens = members.iter().any(|(name, _)| name == chosen);
        if is_secondary && !has_listens {
            self.fault(chosen, "it is missing, and `--secondary` was given");
        }
        for (name, value) in members {
            match (name.as_str(), value) {
                ("primary_listens" | "secondary_listens", value) => {
                    if name == chosen {
                        self.read_listens(&name, value);
                    }
                }
                ("ssl", Value::Object(inner)) => {
                    for (inner_name, value) in inner {
                        let is_full = inner_name.starts_with("ssl_");
                        let prefix = if is_full { "" } else { "ssl_" };
                        self.read_value(&inner_name, format!("{prefix}{inner_name}"), value);
                    }
                }
                (_, value) => self.read_value(&name, name.clone(), value),
            }
        }
    }

    /// `[{"url": ..., "ft_active": ...}, ...]`
    fn read_listens(&mut self, name: &str, value: Value) {
        let Value::Array(items) = value else {
            return self.fault(name, "write a list: [{\"url\": \"tcp://host:port\"}]");
        };
        let mut peers = Vec::new();
        for item in items {
            let text = |key: &str| item.get(key).and_then(Value::as_str).map(str::to_owned);
            let Some(url) = text("url") else {
                self.fault(name, "each item needs an \"url\": \"tcp://host:port\"");
                continue;
            };
            let origin = self.origin(name);
            self.entries.push(Entry {
                origin,
                name: "listen".to_owned(),
                value: url,
            });
            peers.extend(text("ft_active").filter(|url| !url.is_empty()));
        }
        peers.dedup();
        for value in peers {
            let origin = self.origin("ft_active");
            self.entries.push(Entry {
                origin,
                name: "ft_active".to_owned(),
                value,
            });
        }
    }

    fn read_value(&mut self, key: &str, name: String, value: Value) {
        let origin = self.origin(key);
        let values = match value {
            Value::Array(items) => items,
            single => vec![single],
        };
        for value in values {
            let value = match value {
                Value::Null => String::new(),
                Value::Bool(flag) => flag.to_string(),
                Value::Number(number) => number.to_string(),
                Value::String(text) => text,
                Value::Array(_) | Value::Object(_) => {
                    self.fault(key, "write a text, a number or true/false");
                    continue;
                }
            };
            self.entries.push(Entry {
                origin: origin.clone(),
                name: name.clone(),
                value,
            });
        }
    }

    fn fault(&mut self, name: &str, text: &str) {
        let fault = Fault {
            origin: self.origin(name),
            parameter: name.to_owned(),
            text: text.to_owned(),
        };
        self.faults.push(fault);
    }

    /// The line of the first `"name":`; serde_json does not keep positions.
    fn origin(&self, name: &str) -> Origin {
        let quoted = format!("\"{name}\"");
        let key = self.text.match_indices(&quoted).find(|(at, _)| {
            let rest = self.text.get(at + quoted.len()..).unwrap_or_default();
            rest.trim_start().starts_with(':')
        });
        let before = key.and_then(|(at, _)| self.text.get(..at));
        let line = before.map_or(0, |before| before.matches('\n').count() + 1);
        Origin::File {
            path: self.path.to_owned(),
            line,
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
