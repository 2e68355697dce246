//! Messages between foreign clients, through one server: large ones in many frames, small ones in few.

use std::path::Path;

use super::foreign::{Library, start};
use super::history::{Kind, check};
use super::support::{ANY_PORT, PATIENCE, serve};

/// Messages until an exchange ends.
const MESSAGES: usize = 300;

/// Each third message is larger than the frames that these clients and the server take.
fn exchange(senders: Library, receivers: Library) {
    let data = tempfile::tempdir().expect("a directory");
    let mut server = serve(data.path(), &ANY_PORT);
    let active = server.wait("active");
    let listens = active["listens"]
        .as_str()
        .expect("it says where it listens");
    let url = listens.replace("tcp://", "amqp://");
    let client = |library, mode: &str, name: &str| {
        let file = format!("exchange-{senders:?}-{receivers:?}-{mode}.jsonl");
        let history = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
        let options = ["--servers", &url, "--queues", "exchange", "--count", "1"];
        let sizes = [
            "--large-every",
            "3",
            "--large-size",
            "500000",
            "--max-frame-size",
            "30000",
        ];
        start(
            library,
            name,
            &[&[mode], &options[..], &sizes].concat(),
            &history,
        )
    };
    let receiver = client(receivers, "receive", "r");
    let mut sender = client(senders, "send", "s");
    sender.wait(Kind::Confirm, MESSAGES, PATIENCE);
    sender.ask_to_finish();
    sender.wait(Kind::Done, 1, PATIENCE);
    let mut events = sender.finish(PATIENCE);
    server.wait_state("empty", |state| state["store"]["messages"] == 0);
    events.extend(receiver.finish(PATIENCE));
    let report = check(events, &[]);
    assert_eq!(report.violations(), 0, "{report}");
    assert_eq!(
        (report.delivered, report.published),
        (report.confirmed, report.confirmed)
    );
}

#[test]
fn proton_rhea_and_jms_exchange_messages_of_many_frames() {
    for senders in [Library::Proton, Library::Rhea, Library::Jms] {
        for receivers in [Library::Proton, Library::Rhea, Library::Jms] {
            exchange(senders, receivers);
        }
    }
}
