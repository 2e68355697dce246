//! The `store` commands on real stores, beside a running server and after it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::support::{ANY_PORT, PROGRAM, serve};
use super::wire::{DISPOSITION, FLOW, Raw, attach, message, transfer};

fn store(arguments: &[&str], directory: &Path) -> (i32, String, String) {
    let output = Command::new(PROGRAM)
        .arg("store")
        .args(arguments)
        .arg(directory)
        .output()
        .expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn a_store_can_be_looked_at_beside_its_server_and_afterwards() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = serve(directory.path(), &ANY_PORT);
    server.wait("active");
    for arguments in [["inspect"], ["verify"], ["stats"]] {
        let (code, text, fault) = store(&arguments, directory.path());
        assert!(
            code == 0 && !text.is_empty(),
            "{arguments:?}: {code}\n{text}\n{fault}"
        );
    }
    assert_eq!(server.state()["role"], "active");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);

    let (code, text, _) = store(&["verify", "--json"], directory.path());
    let report: Value = serde_json::from_str(&text).expect("one JSON document");
    assert_eq!((code, &report["damaged"]), (0, &Value::Bool(false)));
    assert!(
        report["segments"]
            .as_array()
            .is_some_and(|segments| !segments.is_empty())
    );
    for arguments in [["inspect", "--json"], ["stats", "--json"]] {
        let (code, text, _) = store(&arguments, directory.path());
        let report: Value = serde_json::from_str(&text).expect("one JSON document");
        assert!(code == 0 && report["segments"].is_array(), "{report}");
    }
}

#[test]
fn damage_is_named_and_exits_with_code_3() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = serve(directory.path(), &ANY_PORT);
    server.wait("active");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);
    let segment = std::fs::read_dir(directory.path())
        .expect("it can be listed")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|end| end == "seg"))
        .expect("there is a segment");
    let mut bytes = std::fs::read(&segment).expect("it can be read");
    bytes[..64].fill(0xee);
    std::fs::write(&segment, bytes).expect("it can be written");
    let (code, text, _) = store(&["verify"], directory.path());
    assert_eq!(code, 3, "{text}");
    assert!(
        text.contains("DAMAGE: ") && text.contains("the store is damaged"),
        "{text}"
    );
}

/// Content and time of change of each file.
fn files(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let entries = std::fs::read_dir(directory).expect("it can be listed");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let files = paths.filter(|path| path.is_file()).map(|path| {
        let changed = path.metadata().and_then(|meta| meta.modified());
        let bytes = std::fs::read(&path).expect("it can be read");
        (path, (bytes, changed.expect("there are times")))
    });
    files.collect()
}

#[test]
fn looking_changes_neither_content_nor_times_and_repair_needs_its_flag() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = serve(directory.path(), &ANY_PORT);
    server.wait("active");
    let (code, _, fault) = store(&["repair", "--accept-data-loss"], directory.path());
    assert!(
        code == 4 && fault.contains("another live server"),
        "{fault}"
    );
    server.signal(Signal::SIGKILL);
    server.exit_code();
    let looks = |directory: &Path, expected: i32| {
        let before = files(directory);
        for arguments in [
            &["inspect"][..],
            &["verify"],
            &["stats"],
            &["repair"],
            &["repair", "--json"],
        ] {
            let (code, text, _) = store(arguments, directory);
            let looks_on = matches!(arguments[0], "inspect" | "stats");
            assert_eq!(
                code,
                if looks_on { 0 } else { expected },
                "{arguments:?}: {text}"
            );
        }
        assert!(files(directory) == before, "a look changed something");
    };
    looks(directory.path(), 0);
    let (code, text, _) = store(&["repair", "--accept-data-loss"], directory.path());
    assert!(code == 0 && text.contains("nothing was changed"), "{text}");
    looks(directory.path(), 0);
    // Without checkpoint and header nobody could tell whose batches those are.
    for (path, (mut bytes, _)) in files(directory.path()) {
        match path.extension().and_then(|end| end.to_str()) {
            Some("redb") => std::fs::remove_file(&path).expect("it can be removed"),
            Some("seg") => {
                bytes[..128].fill(0xee);
                std::fs::write(&path, bytes).expect("it can be written");
            }
            _ => {}
        }
    }
    looks(directory.path(), 3);
    let (code, text, fault) = store(&["repair", "--accept-data-loss"], directory.path());
    assert!(
        code == 0 && text.contains("the store is repaired"),
        "{text}\n{fault}"
    );
    let list = std::fs::read_to_string(directory.path().join("repair-0001/dropped.txt"));
    assert!(
        list.expect("there is a list")
            .contains("Dropped from the store")
    );
    looks(directory.path(), 0);
    let mut server = serve(directory.path(), &ANY_PORT);
    server.wait("active");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn queues_are_named_where_their_rows_can_be_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = serve(directory.path(), &ANY_PORT);
    let active = server.wait("active");
    let listens = active["listens"]
        .as_str()
        .expect("it says where it listens");
    let port = listens.rsplit(':').next().expect("a URL has a port");
    let mut raw = Raw::session(port.parse().expect("a port is a number"));
    raw.send(&attach(0, "sender", false, "orders"));
    raw.expect(FLOW);
    for delivery in 0..3 {
        raw.send(&transfer(0, delivery, false, &message(300)));
        raw.expect(DISPOSITION);
    }
    // Its row stands in no checkpoint yet.
    let (code, text, _) = store(&["inspect"], directory.path());
    assert!(code == 0 && text.contains("message to [orders ("), "{text}");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);
    let (_, text, _) = store(&["stats", "--json"], directory.path());
    let stats: Value = serde_json::from_str(&text).expect("one JSON document");
    let queues = stats["checkpoints"][0]["queues"]
        .as_array()
        .expect("a list");
    let orders = queues.iter().find(|queue| queue["queue_name"] == "orders");
    let number = orders.expect("it is there")["queue"].clone();
    assert!(number.is_u64(), "{stats}");

    for (path, (mut bytes, _)) in files(directory.path()) {
        if let Some(at) = bytes.windows(300).position(|part| part == [b'x'; 300]) {
            bytes[at] = b'y';
            std::fs::write(&path, bytes).expect("it can be written");
        }
    }
    let (code, text, _) = store(&["repair"], directory.path());
    let queue = format!("queue orders ({number}), 1 messages: ");
    assert!(code == 3 && text.contains(&queue), "{text}");
    let arguments = ["repair", "--json", "--accept-data-loss"];
    let (code, text, _) = store(&arguments, directory.path());
    let report: Value = serde_json::from_str(&text).expect("one JSON document");
    let dropped = report["dropped"].as_array().expect("a list");
    let is_named = |it: &Value| it["queue_name"] == "orders" && it["queue"] == number;
    assert!(code == 0 && dropped.iter().any(is_named), "{report}");
}

#[test]
fn a_directory_without_a_store_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let (code, _, fault) = store(&["verify"], directory.path());
    assert!(code == 1 && fault.contains("holds no store"), "{fault}");
    let (code, _, fault) = store(&["stats"], &directory.path().join("nothing"));
    assert!(code == 1 && fault.contains("cannot be read"), "{fault}");
    assert!(
        !directory.path().join("nothing").exists(),
        "looking creates nothing"
    );
}
