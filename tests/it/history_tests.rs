//! The checker must be able to fail: a hand-made history for each violation.

use super::{Event, Kind, Report, check};

/// Events in any order; times in milliseconds.
#[derive(Default)]
struct Story {
    events: Vec<Event>,
}

impl Story {
    /// Sender `s` and receivers `r`, `q`, each connected once.
    fn new() -> Self {
        Self::default()
            .connect(0, "s", 1)
            .connect(0, "r", 1)
            .connect(0, "q", 1)
    }

    fn add(
        mut self,
        time_ms: u64,
        kind: Kind,
        client: &str,
        change: impl FnOnce(&mut Event),
    ) -> Self {
        let mut event = Event {
            time_ns: time_ms * 1_000_000,
            kind,
            client: client.to_owned(),
            connection: 1,
            sender: "s".to_owned(),
            seq: 0,
            attempt: 1,
            delivery_count: 0,
            text: String::new(),
        };
        change(&mut event);
        self.events.push(event);
        self
    }

    fn connect(self, time_ms: u64, client: &str, connection: u32) -> Self {
        self.add(time_ms, Kind::Connect, client, |event| {
            event.connection = connection
        })
    }

    fn lose(self, time_ms: u64, client: &str, connection: u32) -> Self {
        self.add(time_ms, Kind::Disconnect, client, |event| {
            event.connection = connection
        })
    }

    fn publish(self, time_ms: u64, seq: u64, attempt: u32) -> Self {
        self.add(time_ms, Kind::Publish, "s", |event| {
            (event.seq, event.attempt) = (seq, attempt)
        })
    }

    fn confirm(self, time_ms: u64, seq: u64, attempt: u32) -> Self {
        self.add(time_ms, Kind::Confirm, "s", |event| {
            (event.seq, event.attempt) = (seq, attempt)
        })
    }

    /// Published and confirmed.
    fn sent(self, seq: u64) -> Self {
        self.publish(10 + seq, seq, 1).confirm(20 + seq, seq, 1)
    }

    fn deliver(self, time_ms: u64, to: (&str, u32), seq: u64, count: u32) -> Self {
        self.add(time_ms, Kind::Deliver, to.0, |event| {
            (event.connection, event.seq, event.delivery_count) = (to.1, seq, count);
        })
    }

    fn settle(self, time_ms: u64, client: &str, seq: u64) -> Self {
        self.add(time_ms, Kind::Settle, client, |event| event.seq = seq)
    }

    fn check(self, outages_ms: &[u64]) -> Report {
        let outages: Vec<u64> = outages_ms.iter().map(|time| time * 1_000_000).collect();
        check(self.events, &outages)
    }
}

#[test]
fn a_run_without_faults_has_no_violations() {
    let report = Story::new()
        .sent(0)
        .sent(1)
        .deliver(30, ("r", 1), 0, 0)
        .deliver(31, ("q", 1), 1, 0)
        .settle(32, "r", 0)
        .settle(33, "q", 1)
        .check(&[]);
    assert_eq!(
        (report.violations(), report.delivered, report.confirmed),
        (0, 2, 2),
        "{report}"
    );
}

#[test]
fn a_confirmed_message_that_never_comes_is_lost() {
    let report = Story::new()
        .sent(0)
        .sent(1)
        .deliver(30, ("r", 1), 1, 0)
        .check(&[]);
    assert_eq!((report.lost, report.violations()), (1, 1), "{report}");
}

#[test]
fn an_unconfirmed_message_that_never_comes_is_not_lost() {
    let report = Story::new().publish(10, 0, 1).check(&[]);
    assert_eq!(report.violations(), 0, "{report}");
}

#[test]
fn a_confirmed_copy_is_lost_even_if_another_copy_came() {
    let story = Story::new()
        .publish(10, 0, 1)
        .publish(120, 0, 2)
        .confirm(130, 0, 2);
    let report = story.deliver(140, ("r", 1), 0, 0).check(&[100]);
    assert_eq!((report.lost, report.violations()), (1, 1), "{report}");
}

#[test]
fn a_message_that_nobody_published_is_a_phantom() {
    let report = Story::new()
        .sent(0)
        .deliver(30, ("r", 1), 0, 0)
        .deliver(31, ("r", 1), 7, 0)
        .check(&[]);
    assert_eq!((report.phantoms, report.violations()), (1, 1), "{report}");
}

#[test]
fn a_message_cannot_come_before_it_is_published() {
    let report = Story::new()
        .deliver(5, ("r", 1), 0, 0)
        .publish(10, 0, 1)
        .check(&[]);
    assert_eq!((report.phantoms, report.violations()), (1, 1), "{report}");
}

/// Delivered, settled at `settle_ms`, killed at 2000, delivered again.
fn settled_before_the_kill(settle_ms: u64) -> Report {
    Story::new()
        .sent(0)
        .deliver(30, ("r", 1), 0, 0)
        .settle(settle_ms, "r", 0)
        .lose(2001, "r", 1)
        .connect(2050, "r", 2)
        .deliver(2060, ("r", 2), 0, 1)
        .check(&[2000])
}

#[test]
fn what_was_settled_half_a_second_before_the_kill_must_not_come_again() {
    let report = settled_before_the_kill(1500);
    assert_eq!(
        (report.settled_came_again, report.violations()),
        (1, 1),
        "{report}"
    );
}

#[test]
fn what_was_settled_just_before_or_after_the_kill_may_come_again() {
    for settle_ms in [1501, 1999, 2000] {
        let report = settled_before_the_kill(settle_ms);
        assert_eq!(
            (report.duplicates_settling, report.violations()),
            (1, 0),
            "{report}"
        );
    }
}

#[test]
fn what_was_settled_must_not_come_again_without_a_kill() {
    let story = Story::new()
        .sent(0)
        .deliver(30, ("r", 1), 0, 0)
        .settle(31, "r", 0);
    let report = story.deliver(40, ("q", 1), 0, 1).check(&[]);
    assert_eq!(
        (report.settled_came_again, report.violations()),
        (1, 1),
        "{report}"
    );
}

#[test]
fn what_came_again_is_judged_by_its_last_settlement() {
    // The first settlement is lost with the first kill; the second one is old at the second kill.
    let story = Story::new()
        .sent(0)
        .deliver(30, ("r", 1), 0, 0)
        .settle(900, "r", 0)
        .connect(1100, "r", 2)
        .deliver(1110, ("r", 2), 0, 1)
        .settle(1120, "r", 0)
        .connect(5100, "r", 3)
        .deliver(5110, ("r", 3), 0, 1);
    let report = story.check(&[1000, 5000]);
    assert_eq!(
        (
            report.duplicates_settling,
            report.settled_came_again,
            report.violations()
        ),
        (1, 1, 1),
        "{report}"
    );
}

#[test]
fn what_was_not_settled_comes_again_after_a_kill_and_must_be_marked() {
    for (count, unmarked) in [(1, 0), (0, 1)] {
        let report = Story::new()
            .sent(0)
            .deliver(30, ("r", 1), 0, 0)
            .connect(150, "q", 2)
            .deliver(160, ("q", 2), 0, count)
            .check(&[100]);
        assert_eq!(report.duplicates_unsettled, 1, "{report}");
        assert_eq!(
            (report.unmarked, report.violations()),
            (unmarked, unmarked),
            "{report}"
        );
    }
}

#[test]
fn what_is_read_from_a_dead_servers_socket_may_come_again() {
    let report = Story::new()
        .sent(0)
        .deliver(101, ("r", 1), 0, 0)
        .connect(150, "q", 2)
        .deliver(160, ("q", 2), 0, 1)
        .lose(170, "r", 1)
        .check(&[100]);
    assert_eq!(
        (report.duplicates_unsettled, report.violations()),
        (1, 0),
        "{report}"
    );
}

#[test]
fn nothing_comes_again_without_a_reason() {
    let story = || Story::new().sent(0).deliver(30, ("r", 1), 0, 0);
    let report = story().deliver(40, ("q", 1), 0, 1).check(&[]);
    assert_eq!(
        (report.unexplained, report.violations()),
        (1, 1),
        "{report}"
    );
    let report = story()
        .lose(35, "r", 1)
        .deliver(40, ("q", 1), 0, 1)
        .check(&[]);
    assert_eq!(
        (report.duplicates_unsettled, report.violations()),
        (1, 0),
        "{report}"
    );
}

#[test]
fn a_connection_sees_first_deliveries_in_the_senders_order() {
    let report = Story::new()
        .sent(0)
        .sent(1)
        .deliver(30, ("r", 1), 1, 0)
        .deliver(31, ("r", 1), 0, 1)
        .check(&[]);
    assert_eq!(
        (report.out_of_order, report.violations()),
        (1, 1),
        "{report}"
    );
}

#[test]
fn marked_messages_come_in_order_on_a_connection_unless_another_one_was_lost() {
    let story = || {
        let story = Story::new().sent(0).sent(1).sent(2);
        story
            .deliver(30, ("q", 1), 2, 0)
            .deliver(31, ("r", 1), 1, 0)
    };
    let report = story().deliver(50, ("r", 1), 0, 1).check(&[]);
    assert_eq!(
        (report.out_of_order, report.violations()),
        (1, 1),
        "{report}"
    );
    // It was on its way to the other receiver, which never read it.
    let lost = story().lose(40, "q", 1).deliver(50, ("r", 1), 0, 1);
    assert_eq!(lost.check(&[]).violations(), 0);
}

#[test]
fn unmarked_messages_come_in_order_over_several_connections() {
    let story = |count| {
        Story::new()
            .sent(0)
            .sent(1)
            .sent(2)
            .deliver(30, ("r", 1), 1, 0)
            .deliver(31, ("q", 1), 2, 0)
            .connect(150, "r", 2)
            .deliver(160, ("r", 2), 0, count)
            .check(&[100])
    };
    let report = story(0);
    assert_eq!(
        (report.out_of_order, report.violations()),
        (1, 1),
        "{report}"
    );
    // Marked: it was on its way to the other receiver, which never read it.
    assert_eq!(story(1).violations(), 0);
}

#[test]
fn a_sole_receiver_sees_every_first_delivery_in_order() {
    let report = Story::new()
        .sent(0)
        .sent(1)
        .deliver(30, ("r", 1), 1, 0)
        .connect(150, "r", 2)
        .deliver(160, ("r", 2), 0, 1)
        .check(&[100]);
    assert_eq!(
        (report.out_of_order, report.violations()),
        (1, 1),
        "{report}"
    );
}

#[test]
fn messages_sent_again_are_copies_with_an_order_of_their_own() {
    // 0 and 1 were stored but not confirmed when the active was killed, then sent again.
    let report = Story::new()
        .publish(10, 0, 1)
        .publish(11, 1, 1)
        .connect(150, "s", 2)
        .publish(151, 0, 2)
        .publish(152, 1, 2)
        .confirm(160, 0, 2)
        .confirm(161, 1, 2)
        .deliver(170, ("r", 1), 0, 0)
        .deliver(171, ("r", 1), 1, 0)
        .add(172, Kind::Deliver, "r", |event| event.attempt = 2)
        .add(173, Kind::Deliver, "r", |event| {
            (event.seq, event.attempt) = (1, 2)
        })
        .check(&[100]);
    assert_eq!(
        (report.duplicates_unconfirmed, report.violations()),
        (2, 0),
        "{report}"
    );
}

#[test]
fn refusals_and_wrong_bodies_are_counted() {
    let refuse = |event: &mut Event| event.text = "rejected".to_owned();
    let report = Story::new()
        .sent(0)
        .deliver(30, ("r", 1), 0, 0)
        .add(40, Kind::Refuse, "s", refuse)
        .add(41, Kind::Error, "r", |_| {})
        .add(42, Kind::Corrupt, "r", |_| {})
        .check(&[]);
    assert_eq!(
        (report.refused, report.corrupt, report.violations()),
        (2, 1, 3),
        "{report}"
    );
    assert!(report.examples[0].contains("rejected"), "{report}");
}

#[test]
fn faults_of_a_client_program_are_counted() {
    let report = Story::new()
        .sent(0)
        .deliver(30, ("r", 1), 0, 0)
        .publish(40, 0, 2)
        .confirm(41, 5, 1)
        .check(&[]);
    assert_eq!(
        (report.client_faults, report.violations()),
        (2, 2),
        "{report}"
    );
}

#[test]
fn an_outage_lasts_until_the_first_confirm_over_a_new_connection() {
    let report = Story::new()
        .publish(10, 0, 1)
        .publish(11, 1, 1)
        .publish(12, 2, 1)
        // Read from the socket of the killed server.
        .confirm(101, 0, 1)
        .connect(150, "s", 2)
        .publish(151, 1, 2)
        .add(180, Kind::Confirm, "s", |event| {
            (event.connection, event.seq, event.attempt) = (2, 1, 2);
        })
        .check(&[100, 300]);
    let milliseconds = |time: Option<u64>| time.map(|time| time / 1_000_000);
    assert_eq!(milliseconds(report.outages[0].first_confirm_ns), Some(80));
    assert_eq!(milliseconds(report.outages[0].all_confirm_ns), Some(80));
    assert_eq!(report.outages[1].first_confirm_ns, None);
}

#[test]
fn the_lines_of_the_clients_are_understood() {
    let lines = [
        r#"{"time_ns":5,"event":"connect","client":"r0","connection":1,"server":"a"}"#,
        r#"{"sender":"s3","seq":6,"attempt":1,"time_ns":7,"event":"settle","client":"r1"}"#,
        r#"{"time_ns":9,"event":"done","client":"r0"}"#,
    ];
    let events = lines.map(|line| serde_json::from_str::<Event>(line).expect("a line of a client"));
    assert_eq!(events[1].kind, Kind::Settle);
    assert_eq!(
        (events[1].sender.as_str(), events[1].seq, events[1].attempt),
        ("s3", 6, 1)
    );
}
