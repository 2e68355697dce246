//! Wrong usage and wrong configuration: exit codes and messages.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};

use super::support::{ANY_PORT, PATIENCE, PROGRAM, serve};

fn run(arguments: &[&str]) -> (i32, String) {
    let Output { status, stderr, .. } = Command::new(PROGRAM)
        .args(arguments)
        .output()
        .expect("the program starts");
    (
        status.code().unwrap_or(-1),
        String::from_utf8_lossy(&stderr).into_owned(),
    )
}

#[test]
fn wrong_usage_exits_with_code_2() {
    let (code, text) = run(&["serve", "--dta", "x"]);
    assert_eq!(code, 2);
    assert!(text.contains("'--data'"), "{text}");
    let (code, text) = run(&["serve", "--set", "ft_hartbeat=3"]);
    assert_eq!(code, 2);
    assert!(
        text.contains("--set: ft_hartbeat: unknown parameter; did you mean"),
        "{text}"
    );
    let (code, text) = run(&["serve", "--set", "ft_activation=5"]);
    assert_eq!(code, 2);
    assert!(text.contains("at least twice ft_heartbeat"), "{text}");
    let (code, text) = run(&["serve", "--config", "/no/such/file.conf"]);
    assert_eq!(code, 2);
    assert!(text.contains("/no/such/file.conf"), "{text}");
}

#[test]
fn a_port_that_is_taken_is_named_with_its_parameter() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it is bound").port();
    let directory = tempfile::tempdir().expect("a directory");

    let mut server = serve(
        directory.path(),
        &["--listen", &format!("tcp://127.0.0.1:{port}")],
    );
    assert_eq!(server.exit_code(), 1);
    let end = server.log.last().expect("it says why").clone();
    let wanted = format!("listen: tcp://127.0.0.1:{port}: Address already in use");
    assert!(
        end["message"]
            .as_str()
            .is_some_and(|text| text.starts_with(&wanted)),
        "{end}"
    );

    let monitor = format!("monitor_listen=http://127.0.0.1:{port}");
    let mut server = serve(
        directory.path(),
        &[ANY_PORT[0], ANY_PORT[1], "--set", &monitor],
    );
    assert_eq!(server.exit_code(), 1);
    let end = server.log.last().expect("it says why").clone();
    assert!(
        end["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("monitor_listen: "))
    );
}

#[test]
fn a_server_whose_ft_active_is_itself_under_another_name_exits_with_code_2() {
    let directory = tempfile::tempdir().expect("a directory");
    let port = super::support::two_ports().0;
    let listen = format!("tcp://127.0.0.1:{port}");
    // A spelling of 127.0.0.1 that only the resolver knows.
    let peer = format!("ft_active=tcp://127.1:{port}");
    let mut server = serve(directory.path(), &["--listen", &listen, "--set", &peer]);
    assert_eq!(server.exit_code(), 2);
    let end = server.log.last().expect("it says why").clone();
    assert!(
        end["message"]
            .as_str()
            .is_some_and(|text| text.contains("this server itself"))
    );
}

#[test]
fn a_store_that_cannot_be_opened_is_named_and_exits_with_code_1() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "no directory").expect("a file");
    let mut server = serve(&file, &ANY_PORT);
    assert_eq!(server.exit_code(), 1);
    let end = server.log.last().expect("it says why").clone();
    let message = end["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with("store: ") && message.contains("file"),
        "{message}"
    );
}

#[test]
fn more_clients_than_max_connections_are_closed_and_the_others_stay() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = serve(
        directory.path(),
        &[ANY_PORT[0], ANY_PORT[1], "--set", "max_connections=2"],
    );
    let active = server.wait("active");
    let url = active["listens"].as_str().expect("the listener is named");
    let address = url
        .strip_prefix("tcp://")
        .expect("it is a plain listener")
        .to_owned();
    let connect = || {
        let mut stream = TcpStream::connect(&address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        // A closed connection may refuse the bytes at once.
        let _ = stream.write_all(b"AMQP\x03\x01\x00\x00");
        stream
    };
    let answered = |stream: &mut TcpStream| {
        let mut header = [0; 8];
        stream.read_exact(&mut header).is_ok() && header.starts_with(b"AMQP")
    };
    let (mut first, mut second) = (connect(), connect());
    assert!(answered(&mut first) && answered(&mut second));
    assert!(!answered(&mut connect()), "the third is closed");
    server.wait("connections_full");

    drop(second);
    server.wait_state("one connection", |state| {
        state["clients"]["connections"] == 1
    });
    assert!(answered(&mut connect()), "there is room again");
}
