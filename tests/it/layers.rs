//! The layers of the source, and the sizes of its files and functions.
//!
//! The table is the one in `src/lib.rs`. A path is found wherever it stands, in a `use` or in code,
//! relative or absolute, alone or in a group. Code for tests may use what it likes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each module of the package may use of the package's other modules, and whether it may use the store.
const LAYERS: [(&str, &[&str], bool); 12] = [
    ("proto", &[], false),
    ("broker", &[], false),
    ("role", &[], false),
    ("model", &[], false),
    ("auth", &["model"], false),
    ("config", &["model"], false),
    ("admin", &["config", "model"], false),
    ("tls", &[], false),
    ("monitor", &["tls"], false),
    ("node", &["proto", "broker", "model", "auth"], true),
    (
        "net",
        &[
            "node", "role", "admin", "config", "model", "auth", "proto", "monitor", "tls",
        ],
        true,
    ),
    (
        "cli",
        &[
            "proto", "broker", "role", "admin", "config", "model", "auth", "monitor", "node",
            "net", "tls",
        ],
        true,
    ),
];

/// Names of the operating system: sockets, threads, clocks, files, processes.
const SYSTEM: [&str; 7] = [
    "std::net",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::fs",
    "std::process",
    "tokio",
];

/// Plain values among them.
const VALUES: [&str; 4] = [
    "std::thread::panicking",
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
];

/// Files that may name it: everything below these.
const SYSTEM_PLACES: [&str; 7] = [
    "src/net/",
    "src/tls/",
    "src/cli/",
    "src/monitor/",
    "src/main.rs",
    "storage/src/disk/file.rs",
    "storage/src/disk/mount.rs",
];

/// Lines of a file before its tests.
const FILE_LINES: usize = 800;
/// Lines of a function.
const FUNCTION_LINES: usize = 80;

/// What is longer, and how long it is. This list may only shrink, and its numbers may only fall.
const LONGER: &[(&str, usize)] = &[
    ("storage/src/inspect.rs: verify_segment", 91),
    ("storage/src/open.rs: begin", 129),
];

#[test]
fn no_layer_reaches_beyond_what_it_may_use() {
    let found: Vec<String> = sources()
        .iter()
        .flat_map(|source| source.violations())
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn files_and_functions_stay_short() {
    let mut found = Vec::new();
    let mut excused = BTreeSet::new();
    for source in sources() {
        for (what, lines, limit) in source.lengths() {
            match LONGER.iter().find(|(name, _)| *name == what) {
                Some((_, known)) => {
                    excused.insert(what.clone());
                    if *known != lines {
                        found.push(format!("{what}: {lines} lines, {known} in the list"));
                    }
                }
                None if lines > limit => {
                    found.push(format!("{what}: {lines} lines, more than {limit}"));
                }
                None => {}
            }
        }
    }
    for (name, _) in LONGER {
        if !excused.contains(*name) {
            found.push(format!("{name}: in the list of long ones, and gone"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// One source file.
struct Source {
    /// From the root of the repository.
    name: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    walk(&root.join("src"), &mut files);
    walk(&root.join("storage/src"), &mut files);
    assert!(
        files.len() > 50,
        "the sources are where they are looked for"
    );
    files.sort();
    let source = |file: &PathBuf| Source {
        name: file
            .strip_prefix(root)
            .expect("it was found below the root")
            .to_string_lossy()
            .into_owned(),
        text: fs::read_to_string(file).expect("sources are text"),
    };
    files.iter().map(source).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

impl Source {
    fn new(name: &str, text: &str) -> Self {
        Self {
            name: name.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Whether the whole file is for tests.
    fn is_for_tests(&self) -> bool {
        let is_test =
            |part: &str| part == "tests" || part == "tests.rs" || part.ends_with("_tests.rs");
        self.name.split('/').any(is_test)
    }

    /// The module path of the file, from the crate's root.
    fn module(&self) -> Vec<String> {
        let inside = self.name.trim_start_matches("storage/");
        let inside = inside.trim_start_matches("src/").trim_end_matches(".rs");
        let mut parts: Vec<String> = inside.split('/').map(str::to_owned).collect();
        if parts
            .last()
            .is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main"))
        {
            parts.pop();
        }
        parts
    }

    /// Tokens of what is not for tests.
    fn tokens(&self) -> Vec<Token> {
        without_tests(tokens(&self.text))
    }

    fn violations(&self) -> Vec<String> {
        if self.is_for_tests() {
            return Vec::new();
        }
        let module = self.module();
        let in_storage = self.name.starts_with("storage/");
        let layer = LAYERS
            .iter()
            .find(|(name, ..)| module.first().is_some_and(|own| own == name));
        let may_system = SYSTEM_PLACES
            .iter()
            .any(|place| self.name.starts_with(place));
        let mut found = Vec::new();
        if !in_storage && layer.is_none() && !module.is_empty() {
            found.push(format!(
                "{}:1: a module that is not in the table of layers",
                self.name
            ));
        }
        for (line, path) in paths(&self.tokens(), &module) {
            let text = path.join("::");
            let mut fault =
                |why: &str| found.push(format!("{}:{line}: `{text}`: {why}", self.name));
            if !may_system && SYSTEM.iter().any(|banned| reaches(&text, banned)) {
                fault("only the places for it may use the operating system");
            }
            let first = path.first().map_or("", String::as_str);
            if in_storage {
                if first == "steadfast" {
                    fault("the store knows nothing of its users");
                }
                continue;
            }
            let Some((own, others, store)) = layer else {
                continue;
            };
            if first == "steadfast_storage" && !store {
                fault("this layer knows nothing of the store");
            }
            if first == "crate" {
                let other = path.get(1).map_or("", String::as_str);
                let is_layer = other == "*" || LAYERS.iter().any(|(name, ..)| *name == other);
                if is_layer && other != *own && !others.contains(&other) {
                    fault("this layer may not use that one");
                }
            }
        }
        found
    }

    /// Name, length and limit of the file and of each function in it.
    fn lengths(&self) -> Vec<(String, usize, usize)> {
        if self.is_for_tests() {
            return Vec::new();
        }
        let tokens = self.tokens();
        let last = tokens.last().map_or(0, |token| token.line);
        let mut lengths = vec![(self.name.clone(), last, FILE_LINES)];
        for (name, lines) in functions(&tokens) {
            lengths.push((format!("{}: {name}", self.name), lines, FUNCTION_LINES));
        }
        lengths
    }
}

/// Whether a path names what is banned, something in it, or a module through which it can be reached.
fn reaches(path: &str, banned: &str) -> bool {
    let is_within = |inner: &str, outer: &str| {
        inner == outer
            || inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.starts_with("::"))
    };
    let module = path.strip_suffix("::*").or(path.strip_suffix("::self"));
    !VALUES.contains(&path)
        && (is_within(path, banned) || is_within(banned, module.unwrap_or(path)))
}

#[derive(Clone, Debug)]
struct Token {
    line: usize,
    /// A name, a number, `::`, or one other character; literals of text are `""`.
    text: String,
}

/// Names and marks of Rust source, without comments and without the insides of literals.
fn tokens(text: &str) -> Vec<Token> {
    let mut rest = text;
    let mut line = 1;
    let mut tokens = Vec::new();
    while let Some(first) = rest.chars().next() {
        let (length, token) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), None)
        } else if rest.starts_with("/*") {
            (block_comment(rest), None)
        } else if let Some(length) = text_literal(rest) {
            (length, Some("\"\"".to_owned()))
        } else if first.is_alphanumeric() || first == '_' {
            let is_name = |character: char| character.is_alphanumeric() || character == '_';
            let length = rest
                .find(|character| !is_name(character))
                .unwrap_or(rest.len());
            (length, Some(rest[..length].to_owned()))
        } else if rest.starts_with("::") {
            (2, Some("::".to_owned()))
        } else if first.is_whitespace() {
            (first.len_utf8(), None)
        } else {
            (first.len_utf8(), Some(first.to_string()))
        };
        if let Some(text) = token {
            tokens.push(Token { line, text });
        }
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    tokens
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length of a string, raw string, byte string or character at the beginning; `None` for a lifetime.
fn text_literal(text: &str) -> Option<usize> {
    let body = text.strip_prefix('b').unwrap_or(text);
    let prefix = text.len() - body.len();
    if let Some(raw) = body.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = prefix + 1 + hashes + 1;
            let length = text[start..]
                .find(&end)
                .map_or(text.len() - start, |at| at + end.len());
            return Some(start + length);
        }
        return None;
    }
    let quote = body
        .chars()
        .next()
        .filter(|quote| matches!(quote, '"' | '\''))?;
    let mut characters = body.char_indices().skip(1);
    if quote == '\'' {
        // A lifetime has no closing quote after one character.
        let inside: Vec<char> = body.chars().skip(1).take(2).collect();
        if inside.first() != Some(&'\\') && inside.get(1) != Some(&'\'') {
            return None;
        }
    }
    while let Some((at, character)) = characters.next() {
        if character == '\\' {
            characters.next();
        } else if character == quote {
            return Some(prefix + at + 1);
        }
    }
    Some(text.len())
}

/// Leaves out items that are marked with `#[cfg(test)]`.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut rest = tokens.as_slice();
    while let Some((first, others)) = rest.split_first() {
        let window = rest
            .iter()
            .take(MARK.len())
            .map(|token| token.text.as_str());
        if !window.eq(MARK) {
            kept.push(first.clone());
            rest = others;
            continue;
        }
        rest = &rest[MARK.len()..];
        let (mut depth, mut length) = (0_usize, 0);
        for token in rest {
            length += 1;
            match token.text.as_str() {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 && token.text == "}" {
                        break;
                    }
                }
                ";" if depth == 0 => break,
                _ => {}
            }
        }
        rest = &rest[length..];
    }
    kept
}

/// All paths of more than one part, with groups taken apart and made absolute.
fn paths(tokens: &[Token], module: &[String]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut at = 0;
    // Inline modules that the place is in, with the depth of braces before each.
    let (mut inline, mut depth) = (Vec::new(), 0_usize);
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" => {
                let named = at >= 2 && tokens[at - 2].text == "mod";
                if named {
                    inline.push((depth, tokens[at - 1].text.clone()));
                }
                depth += 1;
            }
            "}" => {
                depth = depth.saturating_sub(1);
                inline.retain(|(outer, _)| *outer < depth);
            }
            _ => {}
        }
        let starts = is_name(&tokens[at].text)
            && tokens.get(at + 1).is_some_and(|next| next.text == "::")
            && (at == 0 || tokens[at - 1].text != "::");
        if starts {
            let mut place: Vec<String> = module.to_vec();
            place.extend(inline.iter().map(|(_, name)| name.clone()));
            let mut collected = Vec::new();
            tree(tokens, &mut at, &[], &mut collected);
            let absolute = collected
                .into_iter()
                .map(|(line, path)| (line, absolute(path, &place)));
            found.extend(absolute);
        } else {
            at += 1;
        }
    }
    found
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// One path with its groups, from `at` on.
fn tree(
    tokens: &[Token],
    at: &mut usize,
    before: &[String],
    found: &mut Vec<(usize, Vec<String>)>,
) {
    let mut path = before.to_vec();
    let line = tokens.get(*at).map_or(0, |token| token.line);
    while let Some(token) = tokens.get(*at) {
        if token.text == "{" && (path.len() > before.len() || before.is_empty()) {
            *at += 1;
            while let Some(token) = tokens.get(*at) {
                match token.text.as_str() {
                    "}" => {
                        *at += 1;
                        return;
                    }
                    "," => *at += 1,
                    _ => tree(tokens, at, &path, found),
                }
            }
            return;
        }
        if !is_name(&token.text) && token.text != "*" {
            // Generic arguments and the like: not a path that names a layer.
            *at += 1;
            break;
        }
        path.push(token.text.clone());
        *at += 1;
        if tokens.get(*at).is_none_or(|next| next.text != "::") {
            break;
        }
        *at += 1;
    }
    if tokens.get(*at).is_some_and(|next| next.text == "as") && !before.is_empty() {
        *at += 2;
    }
    found.push((line, path));
}

/// `self::` and `super::` resolved.
fn absolute(path: Vec<String>, module: &[String]) -> Vec<String> {
    let supers = path
        .iter()
        .take_while(|part| *part == "super" || *part == "self")
        .count();
    if supers == 0 {
        return path;
    }
    let up = path
        .iter()
        .take(supers)
        .filter(|part| *part == "super")
        .count();
    let mut absolute = vec!["crate".to_owned()];
    absolute.extend(module.iter().take(module.len().saturating_sub(up)).cloned());
    absolute.extend(path.into_iter().skip(supers));
    absolute
}

/// Names and lengths of functions with a body.
fn functions(tokens: &[Token]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (start, window) in tokens.windows(2).enumerate() {
        let [keyword, name] = window else { continue };
        if keyword.text != "fn" || !is_name(&name.text) {
            continue;
        }
        let (mut depth, mut brackets) = (0_usize, 0_usize);
        for token in &tokens[start..] {
            match token.text.as_str() {
                "(" | "[" => brackets += 1,
                ")" | "]" => brackets = brackets.saturating_sub(1),
                // A declaration without a body.
                ";" if depth == 0 && brackets == 0 => break,
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if depth == 0 {
                        found.push((name.text.clone(), token.line - keyword.line + 1));
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    found
}

/// Violations in a file of this name with this text, as lines.
fn lines_of(name: &str, text: &str) -> Vec<usize> {
    let line = |found: String| -> usize {
        let number = found.split(':').nth(1).expect("file:line: what");
        number.parse().expect("a line is a number")
    };
    Source::new(name, text)
        .violations()
        .into_iter()
        .map(line)
        .collect()
}

#[test]
fn a_planted_violation_is_found_with_its_line() {
    let planted = [
        ("src/broker/queue.rs", "use crate::proto::Symbol;"),
        ("src/broker/queue.rs", "use super::super::node;"),
        ("src/proto/wire.rs", "fn f() { crate::node::go(); }"),
        ("src/node/mod.rs", "use crate::{proto::Value, net::engine};"),
        ("src/net/pump.rs", "use crate::broker::Queue;"),
        ("src/role/machine.rs", "use crate::*;"),
        ("src/role/machine.rs", "use steadfast_storage::Store;"),
        ("src/config/load.rs", "use std::{fmt, fs::File};"),
        ("src/node/mod.rs", "use std::time::{Duration, Instant};"),
        ("src/node/mod.rs", "use std::time;"),
        ("src/node/mod.rs", "use std::time::{self, Duration};"),
        ("src/proto/mod.rs", "use tokio::sync::mpsc;"),
        ("src/proto/mod.rs", "use std::*;"),
        (
            "storage/src/store.rs",
            "fn now() { std::time::SystemTime::now(); }",
        ),
        ("storage/src/disk/sim.rs", "use std::fs;"),
        ("storage/src/store.rs", "use steadfast::broker;"),
        ("src/lib.rs", "use std::process::Command;"),
        ("src/helper/mod.rs", ""),
    ];
    for (name, text) in planted {
        assert_eq!(lines_of(name, text), [1], "{name}: {text}");
        let later = format!("//! std::net\n/* std::fs */ const A: &str = \"std::fs\";\n{text}");
        let line = if text.is_empty() { 1 } else { 3 };
        assert_eq!(lines_of(name, &later), [line], "{name}: {later}");
    }
}

#[test]
fn what_is_allowed_is_not_found() {
    let allowed = [
        (
            "src/broker/queue.rs",
            "use crate::broker::Window; use super::effect::Effect;",
        ),
        (
            "src/node/mod.rs",
            "use crate::{broker, proto::{self, Value}}; use steadfast_storage::Store;",
        ),
        (
            "src/net/pump.rs",
            "use std::net::TcpStream; use tokio::net; use crate::node::Node;",
        ),
        ("src/cli/mod.rs", "use crate::net; use std::fs;"),
        (
            "src/proto/timers.rs",
            "use std::time::Duration; fn f<'a>(x: &'a str) -> char { '\"' }",
        ),
        ("src/proto/tests/pair.rs", "use std::time::Instant;"),
        (
            "src/proto/fast.rs",
            "fn f() {}\n#[cfg(test)]\nmod tests { use std::fs; }\nfn g() {}",
        ),
        (
            "src/role/peers.rs",
            "mod inner { use super::super::types::X; use super::Y; }",
        ),
        ("storage/src/disk/file.rs", "use std::fs; use std::thread;"),
    ];
    for (name, text) in allowed {
        let found = Source::new(name, text).violations();
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn lengths_are_measured_without_tests() {
    let body = "    let x = 1;\n".repeat(10);
    let text = format!(
        "fn short() {{}}\nfn long(a: [u8; 3])\n{{\n{body}}}\n#[cfg(test)]\nmod tests {{\n{body}}}\n"
    );
    let lengths = Source::new("src/broker/x.rs", &text).lengths();
    let wanted = [
        ("src/broker/x.rs".to_owned(), 14, FILE_LINES),
        ("src/broker/x.rs: short".to_owned(), 1, FUNCTION_LINES),
        ("src/broker/x.rs: long".to_owned(), 13, FUNCTION_LINES),
    ];
    assert_eq!(lengths, wanted);
}
