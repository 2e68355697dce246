//! Whole sets of configuration files: those of the tests, and those of the documentation.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use steadfast::config::companions::{Companions, read_anyway};
use steadfast::config::{Config, Given, MainFile, Side, differences, load_anyway, reference};

use super::support::PROGRAM;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Exit code, answers, complaints.
fn check(arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(PROGRAM)
        .arg("check-config")
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code().unwrap_or(-1), text(&stdout), text(&stderr))
}

#[test]
fn a_whole_set_of_ems_files_loads_with_warnings_only() {
    let (code, answer, complaints) = check(&["tests/ems/tibemsd.conf"]);
    assert_eq!(code, 0, "{complaints}");
    assert_eq!(answer, "tests/ems/tibemsd.conf: no faults\n");
    for line in complaints.lines() {
        assert!(line.starts_with("steadfast: warning: tests/ems/"), "{line}");
    }
    for wanted in [
        "tibemsd.conf:31: max_msg_memory: this EMS parameter has no effect in this version: ",
        "tests/ems/acl.conf:4: there is no user `visitor`; create it or remove the line",
        "tests/ems/users.conf:6: eve: the password is kept in a form of another server",
        "tests/ems/queues.conf:8: far: `global` has no effect in this version",
        "tests/ems/queues.conf: queues: read and checked, but without effect in this version",
    ] {
        assert!(complaints.contains(wanted), "{wanted} in\n{complaints}");
    }
    assert!(
        !complaints.contains("mySecret") && !complaints.contains("$1$"),
        "{complaints}"
    );
}

#[test]
fn the_two_files_of_a_pair_fit_together_and_a_change_of_one_is_named() {
    let (one, two) = ("tests/ems/tibemsdft-1.conf", "tests/ems/tibemsdft-2.conf");
    let (code, answer, complaints) = check(&[one, "--peer", two]);
    assert_eq!(code, 0, "{complaints}");
    assert!(
        answer.ends_with("the two servers fit together\n"),
        "{answer}"
    );

    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join("b.conf");
    let text = fs::read_to_string(root().join(two)).expect("it is there");
    fs::write(&copy, text.replace("= EMS-SERVER", "= OTHER")).expect("a file");
    let (code, _, complaints) = check(&[one, "--peer", &copy.display().to_string()]);
    assert_eq!(code, 2);
    for wanted in [
        "tibemsdft-1.conf:2: server: EMS-SERVER here, OTHER in the peer's file; write the same name in both files",
        "user bob: missing in ",
        "queue orders.>: missing in ",
        "permission ADMIN USER=bob: missing in ",
        "bridge topic:px.>: missing in ",
        "route EMS-NORTH: missing in ",
        "store archive: missing in ",
    ] {
        assert!(complaints.contains(wanted), "{wanted} in\n{complaints}");
    }
    assert!(
        !complaints.contains("mySecret") && !complaints.contains("$1$"),
        "{complaints}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_refused_with_its_parameter() {
    let directory = tempfile::tempdir().expect("a directory");
    let main = directory.path().join("a.conf");
    fs::write(&main, "server = A\nusers = people.conf\n").expect("a file");
    let (code, _, complaints) = check(&[&main.display().to_string()]);
    assert_eq!(code, 2);
    assert!(complaints.contains("a.conf:2: users: "), "{complaints}");
    assert!(
        complaints.contains("people.conf cannot be read: "),
        "{complaints}"
    );
    let Output { status, stderr, .. } = Command::new(PROGRAM)
        .args(["serve", "--config"])
        .arg(&main)
        .output()
        .expect("the program starts");
    assert_eq!(status.code(), Some(2));
    let text = String::from_utf8_lossy(&stderr).into_owned();
    assert!(text.contains("a.conf:2: users: "), "{text}");
}

#[test]
fn the_reference_page_is_what_the_table_gives() {
    let page = fs::read_to_string(root().join("docs/PARAMETERS.md")).expect("it is there");
    assert!(
        page == reference(),
        "run `steadfast check-config --reference > docs/PARAMETERS.md`"
    );
    let (code, answer, _) = check(&["--reference"]);
    assert_eq!((code, answer), (0, page));
}

/// Blocks of a page by section and name: a fence with a kind and the name of a file.
fn blocks(page: &str) -> Vec<(String, BTreeMap<PathBuf, String>)> {
    let mut sections = vec![(String::new(), BTreeMap::new())];
    let mut open: Option<(PathBuf, String)> = None;
    for line in page.lines() {
        if let Some((name, text)) = &mut open {
            if line == "```" {
                let files = &mut sections.last_mut().expect("there is one").1;
                assert!(!files.contains_key(name), "{} twice", name.display());
                files.insert(name.clone(), std::mem::take(text));
                open = None;
            } else {
                text.push_str(line);
                text.push('\n');
            }
        } else if let Some(fence) = line.strip_prefix("```") {
            let (_, name) = fence
                .split_once(' ')
                .expect("a block has the name of a file");
            open = Some((PathBuf::from(name), String::new()));
        } else if let Some(title) = line.strip_prefix("## ") {
            sections.push((title.to_owned(), BTreeMap::new()));
        }
    }
    assert!(open.is_none(), "a block is not closed");
    sections
}

fn load(files: &BTreeMap<PathBuf, String>, name: &str, is_secondary: bool) -> (Config, Companions) {
    let path = PathBuf::from(name);
    let (config, mut faults) = load_anyway(&Given {
        file: Some(MainFile {
            text: files[&path].clone(),
            path,
        }),
        is_secondary,
        ..Given::default()
    });
    let (companions, report) = read_anyway(&config, &|path| reader(files, path));
    faults.extend(report.faults);
    assert_eq!(faults, [], "{name}");
    (config, companions)
}

fn reader(files: &BTreeMap<PathBuf, String>, path: &Path) -> io::Result<Vec<u8>> {
    if path.starts_with("certs") {
        return Ok(b"a certificate".to_vec());
    }
    let file = files.get(path).map(|text| text.clone().into_bytes());
    file.ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[test]
fn every_block_of_the_documentation_is_right_and_its_servers_fit_together() {
    let page = fs::read_to_string(root().join("docs/CONFIGURATION.md")).expect("it is there");
    let mut pairs = 0;
    for (title, files) in blocks(&page) {
        if files.is_empty() {
            continue;
        }
        let is_json = files.contains_key(Path::new("pair.json"));
        let (one, two) = if is_json {
            (
                load(&files, "pair.json", false),
                load(&files, "pair.json", true),
            )
        } else {
            (load(&files, "a.conf", false), load(&files, "b.conf", false))
        };
        let found = differences(
            Side {
                config: &one.0,
                companions: &one.1,
            },
            Side {
                config: &two.0,
                companions: &two.1,
            },
            &|path| reader(&files, path),
        );
        assert_eq!(found, Vec::<String>::new(), "{title}");
        pairs += 1;
    }
    assert_eq!(pairs, 7, "the blocks are found");
}

#[test]
fn one_directory_by_two_ways_is_one_and_what_is_shared_is_told_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let real = directory.path().join("real");
    fs::create_dir(&real).expect("the directory is ours");
    std::os::unix::fs::symlink(&real, directory.path().join("link")).expect("it is ours");
    let main = |name: &str, own: u16, other: u16| {
        let text = format!(
            "listen = tcp://127.0.0.1:{own}\nft_active = tcp://127.0.0.1:{other}\nmonitor_listen =\n"
        );
        fs::write(real.join(name), text).expect("the directory is ours");
    };
    main("a.conf", 1, 2);
    main("b.conf", 2, 1);
    fs::write(real.join("queues.conf"), "far global\n").expect("the directory is ours");
    let a = real.join("a.conf").display().to_string();
    let b = directory.path().join("link/b.conf").display().to_string();
    let (code, answer, complaints) = check(&[&a, "--peer", &b]);
    assert_eq!(code, 0, "{complaints}");
    assert!(
        answer.ends_with("the two servers fit together\n"),
        "{answer}"
    );
    let warnings = complaints.matches("queues.conf:1").count();
    assert_eq!(warnings, 1, "once: {complaints}");

    let link = directory.path().join("link/a.conf").display().to_string();
    let (code, _, complaints) = check(&[&a, "--peer", &link]);
    assert_eq!(code, 2);
    assert!(
        complaints.contains("a server is not its own peer"),
        "{complaints}"
    );
}

#[test]
fn a_certificate_that_is_not_there_is_told_with_the_line_that_names_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.conf");
    let text = "server = A\nlisten = ssl://127.0.0.1:7222\nssl_server_identity = nowhere.pem\n";
    fs::write(&path, text).expect("a file");
    let (code, _, complaints) = check(&[&path.display().to_string()]);
    assert_eq!(code, 2);
    assert!(
        complaints.contains("a.conf:3: ssl_server_identity: "),
        "{complaints}"
    );
    assert!(complaints.contains("nowhere.pem"), "{complaints}");
}
