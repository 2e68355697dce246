//! The endpoints over loopback, as a script or a load balancer asks them.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::Value;

use super::{Board, Counts, Peer, Recovery, Status, Store, spawn};

fn active() -> Status {
    let peer = Peer {
        name: "tcp://b:5672".to_owned(),
        role: "standby",
        ..Peer::default()
    };
    Status {
        server: "EMS-SERVER".to_owned(),
        version: "0.1.0",
        role: "active",
        epoch: 7,
        listens: vec!["tcp://127.0.0.1:5672".to_owned()],
        peer: Some(peer.clone()),
        peers: vec![peer],
        recovery: Recovery {
            lock_to_ready_ms: Some(31.5),
            tail_bytes: 4096,
            ..Recovery::default()
        },
        store: Some(Store {
            messages: 12,
            batch_bytes: 512,
            ..Store::default()
        }),
        ..Status::default()
    }
}

fn start(status: Status) -> (String, Board) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let board = Board::new(status);
    spawn(listener, board.clone(), None).expect("the monitor starts");
    (url, board)
}

fn get(url: &str) -> (u16, String) {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)));
    let mut response = ureq::Agent::from(config.build())
        .get(url)
        .call()
        .expect("the monitor answers");
    let code = response.status().as_u16();
    (
        code,
        response
            .body_mut()
            .read_to_string()
            .expect("the answer is text"),
    )
}

#[test]
fn ready_means_active() {
    let (url, board) = start(active());
    assert_eq!(get(&format!("{url}/isReady")), (200, "active\n".to_owned()));
    for role in [
        "starting",
        "standby",
        "activating",
        "recovering",
        "fenced",
        "stopping",
    ] {
        board.post(Status { role, ..active() });
        assert_eq!(get(&format!("{url}/isReady")), (400, format!("{role}\n")));
        assert_eq!(get(&format!("{url}/isLive")).0, 200);
    }
}

#[test]
fn state_is_the_promised_document() {
    let (url, _board) = start(active());
    let (code, body) = get(&format!("{url}/state"));
    let state: Value = serde_json::from_str(&body).expect("it is JSON");
    assert_eq!(code, 200);
    assert_eq!(state["server"], "EMS-SERVER");
    assert_eq!(state["role"], "active");
    assert_eq!(state["epoch"], 7);
    assert_eq!(state["peer"]["role"], "standby");
    assert_eq!(state["listens"][0], "tcp://127.0.0.1:5672");
    for key in ["lock_to_ready_ms", "tail_bytes", "messages", "progress"] {
        assert!(state["recovery"].get(key).is_some(), "recovery.{key}");
    }
    for key in ["expected", "returned", "expired", "deadline_ms"] {
        assert!(state["reconnect"].get(key).is_some(), "reconnect.{key}");
    }
    assert_eq!(state["store"]["messages"], 12);
}

#[test]
fn metrics_are_prometheus_text_with_units() {
    let (url, _board) = start(active());
    let (code, body) = get(&format!("{url}/metrics"));
    assert_eq!(code, 200);
    for line in [
        "steadfast_role{role=\"active\"} 1",
        "steadfast_role{role=\"standby\"} 0",
        "steadfast_epoch 7",
        "steadfast_recovery_seconds 0.0315",
        "steadfast_pending_messages 12",
        "steadfast_store_written_bytes_total 512",
        "tibco_ems_server_pending_messages 12",
        "tibco_ems_server_inbound_message_rate 0.0",
        "# EOF",
    ] {
        assert!(
            body.lines().any(|found| found == line),
            "{line} is missing in\n{body}"
        );
    }
}

#[test]
fn rates_are_what_counts_grew_by_in_the_time_between() {
    let before = Counts([10, 5, 1_000]);
    let rates = before.rates(Counts([30, 5, 3_000]), Duration::from_secs(2));
    assert_eq!(
        (rates.messages_in, rates.messages_out, rates.written_bytes),
        (10.0, 0.0, 1_000.0)
    );
}

#[test]
fn another_path_is_not_found() {
    let (url, _board) = start(active());
    assert_eq!(get(&format!("{url}/admin")).0, 404);
    assert_eq!(get(&url).0, 404);
}

#[test]
fn a_board_shared_with_a_thread_that_panicked_still_answers() {
    let board = Board::new(active());
    let other = board.clone();
    let result = std::thread::Builder::new().spawn(move || {
        let _guard = other.inner.lock();
        panic!("on purpose");
    });
    assert!(result.expect("a thread starts").join().is_err());
    assert_eq!(board.read().1.role, "active");
}
