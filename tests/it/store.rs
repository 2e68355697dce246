//! The `store` commands on real stores, beside a running server and after it.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::support::{ANY_PORT, PROGRAM, serve};

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
