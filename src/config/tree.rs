//! JSON with the line of every value and with every key, double ones too.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Deepest nesting; the deepest that means something is 4.
const DEPTH_MAX: usize = 16;

/// A value and the line on which it begins.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Json,
}

#[derive(Clone, Debug)]
pub(super) enum Json {
    Null,
    Flag(bool),
    /// As it was written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// What is wrong, and in which line.
type Wrong = (usize, String);

/// Reads a whole file, which must be an object.
pub(super) fn parse(text: &str) -> Result<Vec<(String, Node)>, Wrong> {
    let wrong = |error: &serde_json::Error| (error.line(), format!("not valid JSON: {error}"));
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| wrong(&error))?;
    members(text, raw, 0)
}

fn node(text: &str, raw: &RawValue, depth: usize) -> Result<Node, Wrong> {
    let line = line_of(text, raw);
    if depth > DEPTH_MAX {
        return Err((line, format!("nested deeper than {DEPTH_MAX} levels")));
    }
    let wrong = |error: serde_json::Error| {
        let line = line + error.line().saturating_sub(1);
        (line, format!("not valid JSON: {error}"))
    };
    let own = raw.get();
    let value = match own.as_bytes().first() {
        Some(b'{') => Json::Object(members(text, raw, depth)?),
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(own).map_err(wrong)?;
            let items = items.into_iter().map(|item| node(text, item, depth + 1));
            Json::List(items.collect::<Result<_, _>>()?)
        }
        Some(b'"') => Json::Text(serde_json::from_str(own).map_err(wrong)?),
        Some(b't') => Json::Flag(true),
        Some(b'f') => Json::Flag(false),
        Some(b'n') => Json::Null,
        _ => Json::Number(own.to_owned()),
    };
    Ok(Node { line, value })
}

fn members(text: &str, raw: &RawValue, depth: usize) -> Result<Vec<(String, Node)>, Wrong> {
    let Members(members) = serde_json::from_str(raw.get()).map_err(|error| {
        let line = line_of(text, raw) + error.line().saturating_sub(1);
        (line, format!("not valid JSON: {error}"))
    })?;
    let read = |(name, raw): (String, &RawValue)| Ok((name, node(text, raw, depth + 1)?));
    members.into_iter().map(read).collect()
}

/// The value is a part of the text: how far it is from the beginning tells the line.
fn line_of(text: &str, raw: &RawValue) -> usize {
    let offset = raw.get().as_ptr().addr() - text.as_ptr().addr();
    let before = text.get(..offset).unwrap_or_default();
    before.bytes().filter(|byte| *byte == b'\n').count() + 1
}

/// An object that keeps double keys, so that none is lost silently.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of parameters: {\"server\": ..., ...}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
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

impl Json {
    /// The text of a plain value: what a file of lines would have; `None` for lists and objects.
    pub(super) fn plain(&self) -> Option<String> {
        match self {
            Self::Null => Some(String::new()),
            Self::Flag(flag) => Some(flag.to_string()),
            Self::Number(text) | Self::Text(text) => Some(text.clone()),
            Self::List(_) | Self::Object(_) => None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Null => true,
            Self::List(items) => items.is_empty(),
            Self::Object(members) => members.is_empty(),
            Self::Flag(_) | Self::Number(_) | Self::Text(_) => false,
        }
    }
}
