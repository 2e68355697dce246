//! Rules of the source that the compiler does not know.

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer with the layers of ours that it may name. `src/lib.rs` gives the reasons.
const LAYERS: [(&str, &[&str]); 8] = [
    ("proto", &[]),
    ("broker", &[]),
    ("role", &[]),
    ("config", &[]),
    ("monitor", &[]),
    ("node", &["proto", "broker"]),
    ("net", &["node", "role", "config", "proto", "monitor"]),
    (
        "cli",
        &[
            "net", "node", "role", "config", "proto", "monitor", "broker",
        ],
    ),
];

/// Layers that get time, randomness and bytes as arguments.
const DETERMINISTIC: [&str; 5] = ["proto", "broker", "role", "config", "node"];

/// What those may not name: clocks, sockets, files, threads, runtimes, the operating system.
const WORLD: [&str; 9] = [
    "std::net::Tcp",
    "std::net::Udp",
    "std::fs",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio::",
    "nix::",
    "fastrand::",
];

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

/// Longer functions that exist, by file. This list may only shrink.
const LONG_FUNCTIONS: [(&str, usize); 2] =
    [("storage/src/inspect.rs", 2), ("storage/src/open.rs", 1)];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("the tree can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn is_test(path: &Path) -> bool {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let is_named = name == "tests" || name.ends_with("_tests");
    is_named || path.components().any(|part| part.as_os_str() == "tests")
}

/// The lines of a file with their numbers, without comments and without the tests at its end.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).expect("sources are text");
    let lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line));
    lines
        .take_while(|(_, line)| *line != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number, line.to_owned()))
        .collect()
}

#[test]
fn layers_name_only_what_they_stand_on() {
    let mut faults = Vec::new();
    for (layer, allowed) in LAYERS {
        for path in sources(&root().join("src").join(layer)) {
            for (number, line) in code(&path) {
                let named = line.match_indices("crate::").map(|(at, found)| {
                    let rest = &line[at + found.len()..];
                    rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
                        .next()
                        .unwrap_or_default()
                });
                let is_layer = |name: &&str| LAYERS.iter().any(|(layer, _)| layer == name);
                for name in named.filter(is_layer) {
                    if name != layer && !allowed.contains(&name) {
                        let path = path.display();
                        faults.push(format!("{path}:{number}: `{layer}` may not name `{name}`"));
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn deterministic_layers_do_not_touch_the_world() {
    let mut faults = Vec::new();
    for layer in DETERMINISTIC {
        let files = sources(&root().join("src").join(layer));
        for path in files.into_iter().filter(|path| !is_test(path)) {
            for (number, line) in code(&path) {
                for name in WORLD.iter().filter(|name| line.contains(**name)) {
                    faults.push(format!(
                        "{}:{number}: `{layer}` uses {name}",
                        path.display()
                    ));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn storage_knows_nothing_of_messages_protocols() {
    let mut faults = Vec::new();
    for path in sources(&root().join("storage/src")) {
        for (number, line) in code(&path) {
            let lower = line.to_lowercase();
            if lower.contains("amqp") || lower.contains("steadfast::") {
                faults.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_and_functions_stay_short() {
    let mut faults = Vec::new();
    for folder in ["src", "storage/src"] {
        for path in sources(&root().join(folder))
            .iter()
            .filter(|path| !is_test(path))
        {
            let lines = code(path);
            if lines.len() > FILE_LINES_MAX {
                faults.push(format!("{}: {} lines of code", path.display(), lines.len()));
            }
            let long = long_functions(&lines);
            let known = LONG_FUNCTIONS.iter().find(|(file, _)| path.ends_with(file));
            if long.len() != known.map_or(0, |(_, count)| *count) {
                faults.extend(long.iter().map(|long| format!("{}:{long}", path.display())));
                faults.push(format!("{}: {} long functions", path.display(), long.len()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Functions that are too long; relies on the formatter: a body ends at its own indentation.
fn long_functions(lines: &[(usize, String)]) -> Vec<String> {
    let mut long = Vec::new();
    let mut open: Option<(usize, usize, String)> = None;
    for (index, (number, line)) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let indent = &line[..line.len() - trimmed.len()];
        let starts = ["fn ", "pub fn ", "async fn ", "pub async fn "];
        let is_start = starts.iter().any(|start| trimmed.starts_with(start))
            || (trimmed.starts_with("pub(") && trimmed.contains(" fn "));
        if is_start && open.is_none() && !trimmed.ends_with([';', '}']) {
            open = Some((index, *number, format!("{indent}}}")));
        }
        if let Some((first, number, _)) = open.take_if(|(_, _, end)| line == end) {
            let length = index - first + 1;
            if length > FUNCTION_LINES_MAX {
                long.push(format!("{number}: a function of {length} lines"));
            }
        }
    }
    long
}
