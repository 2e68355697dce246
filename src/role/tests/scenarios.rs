//! One role, one history each. `words` shows log events with a star.

use super::{news, settings, words};
use crate::role::{
    Action, Failure, FailureKind, Input, LinkId, LockResult, PeerNews, RecoveryResult, Role, State,
};

const LINK: LinkId = LinkId(1);

fn connected(state: State) -> Input {
    Input::Connected {
        link: LINK,
        peer: Some(0),
        news: news("b", state, 4),
    }
}

fn heard(state: State) -> Input {
    Input::Heard {
        link: LINK,
        news: news("b", state, 4),
    }
}

fn unreachable() -> Input {
    Input::ConnectFailed {
        peer: 0,
        reason: "connection refused".to_owned(),
    }
}

fn lost() -> Input {
    Input::LinkLost {
        link: LINK,
        reason: "connection reset".to_owned(),
    }
}

fn busy() -> Input {
    Input::Lock(LockResult::Busy {
        reason: "held by b".to_owned(),
    })
}

fn owned() -> Input {
    Input::Lock(LockResult::Owned)
}

fn ready() -> Input {
    Input::Recovery(RecoveryResult::Ready { epoch: 5 })
}

fn failure(kind: FailureKind) -> Failure {
    Failure {
        kind,
        reason: "what happened".to_owned(),
    }
}

fn stop() -> Input {
    Input::Stop {
        reason: "SIGTERM".to_owned(),
    }
}

/// Passes inputs at time `now_ms`, returns the actions after the last of them.
fn after(role: &mut Role, now_ms: u64, inputs: Vec<Input>) -> String {
    let mut answer = String::new();
    for input in inputs {
        role.handle(now_ms, input);
        answer = words(role);
    }
    answer
}

/// A role of a pair that stands by for an active peer since time 0.
fn standby() -> Role {
    let mut role = Role::new(settings(1), 0);
    words(&mut role);
    let answer = after(&mut role, 0, vec![connected(State::Active)]);
    assert_eq!(answer, "*peer_connected, *standby, refuse");
    role
}

/// A role of a pair that is active since time 0, its peer never seen.
fn active() -> Role {
    let mut role = Role::new(settings(1), 0);
    let answer = after(&mut role, 0, vec![unreachable(), owned(), ready()]);
    assert_eq!(answer, "serve, *active");
    role
}

#[test]
fn a_server_whose_peer_is_active_stands_by() {
    let mut role = Role::new(settings(1), 0);
    assert_eq!(words(&mut role), "*starting, hold, connect 0");
    let answer = after(&mut role, 5, vec![connected(State::Active)]);
    assert_eq!(answer, "*peer_connected, *standby, refuse");
    assert_eq!(role.state(), State::Standby);
}

#[test]
fn a_server_whose_peer_recovers_stands_by() {
    let mut role = Role::new(settings(1), 0);
    after(&mut role, 5, vec![connected(State::Recovering)]);
    assert_eq!(role.state(), State::Standby);
}

#[test]
fn a_server_that_cannot_reach_its_peer_tries_for_the_store_at_once() {
    let mut role = Role::new(settings(1), 0);
    words(&mut role);
    assert_eq!(
        after(&mut role, 1, vec![unreachable()]),
        "*activating, hold, try"
    );
    assert_eq!(after(&mut role, 2, vec![owned()]), "recover, *recovering");
    assert_eq!(after(&mut role, 3, vec![ready()]), "serve, *active");
    assert_eq!((role.state(), role.epoch()), (State::Active, 5));
}

#[test]
fn a_peer_that_is_itself_starting_or_standing_by_is_not_active() {
    for state in [
        State::Starting,
        State::Standby,
        State::Activating,
        State::Stopping,
    ] {
        let mut role = Role::new(settings(1), 0);
        words(&mut role);
        let answer = after(&mut role, 1, vec![connected(state)]);
        assert_eq!(answer, "*peer_connected, *activating, hold, try", "{state}");
    }
}

#[test]
fn reaching_the_peer_takes_at_most_one_heartbeat() {
    let mut role = Role::new(settings(1), 0);
    words(&mut role);
    assert_eq!(role.poll_timeout(), Some(3_000));
    assert_eq!(after(&mut role, 2_999, vec![Input::Tick]), "");
    assert_eq!(
        after(&mut role, 3_000, vec![Input::Tick]),
        "*activating, hold, try"
    );
}

#[test]
fn with_two_peers_both_are_asked_before_trying() {
    let mut role = Role::new(settings(2), 0);
    assert_eq!(words(&mut role), "*starting, hold, connect 0, connect 1");
    assert_eq!(after(&mut role, 1, vec![unreachable()]), "");
    let second = Input::Connected {
        link: LINK,
        peer: Some(1),
        news: news("c", State::Active, 2),
    };
    assert_eq!(
        after(&mut role, 2, vec![second]),
        "*peer_connected, *standby, refuse"
    );
}

#[test]
fn an_active_peer_that_calls_first_is_enough_to_stand_by() {
    let mut role = Role::new(settings(1), 0);
    words(&mut role);
    let call = Input::Connected {
        link: LINK,
        peer: None,
        news: news("b", State::Active, 4),
    };
    assert_eq!(
        after(&mut role, 1, vec![call]),
        "*peer_connected, *standby, refuse"
    );
}

#[test]
fn a_standby_polls_for_the_lock_at_randomised_times() {
    let mut role = standby();
    let mut now_ms = 0;
    let mut pauses = Vec::new();
    for _ in 0..50 {
        let at_ms = role.poll_timeout().expect("a standby has a timer");
        if after(&mut role, at_ms, vec![Input::Tick]).contains("try") {
            assert!(
                (75..=126).contains(&(at_ms - now_ms)),
                "pause of {}",
                at_ms - now_ms
            );
            pauses.push(at_ms - now_ms);
            now_ms = at_ms;
            assert_eq!(
                after(&mut role, now_ms, vec![busy()]),
                "",
                "refusals are not news"
            );
        }
        after(&mut role, at_ms, vec![heard(State::Active)]);
    }
    pauses.dedup();
    assert!(pauses.len() > 10, "poll times vary: {pauses:?}");
}

#[test]
fn a_standby_takes_a_free_store_even_without_any_news() {
    let mut role = standby();
    assert_eq!(after(&mut role, 130, vec![Input::Tick]), "try");
    assert_eq!(
        after(&mut role, 131, vec![owned()]),
        "*activating, hold, recover, *recovering"
    );
}

#[test]
fn a_standby_tries_at_once_when_the_connection_to_the_active_breaks() {
    let mut role = standby();
    assert_eq!(
        after(&mut role, 20, vec![lost()]),
        "*peer_lost, *activating, hold, try"
    );
    assert_eq!(after(&mut role, 21, vec![owned()]), "recover, *recovering");
}

#[test]
fn an_answer_from_before_the_break_is_asked_for_again() {
    let mut role = standby();
    assert_eq!(after(&mut role, 130, vec![Input::Tick]), "try");
    assert_eq!(
        after(&mut role, 131, vec![lost()]),
        "*peer_lost, *activating, hold"
    );
    assert_eq!(after(&mut role, 132, vec![busy()]), "try");
}

#[test]
fn a_refused_standby_says_so_once_and_goes_on_trying() {
    let mut role = standby();
    after(&mut role, 20, vec![lost()]);
    let mut log = Vec::new();
    let mut tries = 0;
    let mut now_ms = 20;
    while now_ms < 5_000 {
        let said = after(&mut role, now_ms, vec![busy()]);
        log.extend((!said.is_empty()).then_some(said));
        now_ms = role.poll_timeout().expect("it goes on");
        let said = after(&mut role, now_ms, vec![Input::Tick, unreachable()]);
        tries += usize::from(said.contains("try"));
        assert!(!said.contains('*'), "{said}");
    }
    let events: Vec<_> = log.iter().filter(|said| said.contains('*')).collect();
    assert_eq!(events, ["*lock_refused, *standby, refuse"]);
    assert!(role.state() == State::Standby && tries < 200);
}

#[test]
fn a_lock_that_is_freed_just_after_the_connections_is_still_taken_within_the_grace_period() {
    let mut role = standby();
    after(&mut role, 20, vec![lost()]);
    assert_eq!(after(&mut role, 21, vec![busy()]), "");
    let retry_ms = role.poll_timeout().expect("a quick retry is planned");
    assert!(retry_ms <= 34, "retry at {retry_ms}");
    assert_eq!(after(&mut role, retry_ms, vec![Input::Tick]), "try");
    assert_eq!(
        after(&mut role, retry_ms, vec![owned()]),
        "recover, *recovering"
    );
}

#[test]
fn the_loser_of_a_simultaneous_start_stands_by_without_complaint() {
    let mut role = Role::new(settings(1), 0);
    after(&mut role, 1, vec![connected(State::Starting)]);
    assert_eq!(after(&mut role, 2, vec![heard(State::Recovering)]), "");
    assert_eq!(after(&mut role, 3, vec![busy()]), "*standby, refuse");
}

#[test]
fn news_of_an_owner_between_two_tries_ends_activating() {
    let mut role = Role::new(settings(1), 0);
    after(&mut role, 1, vec![connected(State::Starting), busy()]);
    assert_eq!(role.state(), State::Activating);
    assert_eq!(
        after(&mut role, 3, vec![heard(State::Active)]),
        "*standby, refuse"
    );
}

#[test]
fn a_silent_peer_is_lost_after_ft_activation_and_not_before() {
    let mut role = standby();
    after(&mut role, 2_000, vec![heard(State::Active)]);
    let quiet = after(&mut role, 11_999, vec![Input::Tick, busy()]);
    assert_eq!((quiet.as_str(), role.state()), ("", State::Standby));
    let answer = after(&mut role, 12_000, vec![Input::Tick]);
    assert!(
        answer.starts_with("drop 1, *peer_lost, *activating, hold, try"),
        "{answer}"
    );
}

#[test]
fn a_peer_that_returns_is_reported_as_back() {
    let mut role = standby();
    after(&mut role, 20, vec![lost(), owned(), ready()]);
    let again = Input::Connected {
        link: LinkId(2),
        peer: None,
        news: news("b2", State::Starting, 0),
    };
    assert_eq!(after(&mut role, 500, vec![again]), "*peer_back");
    assert_eq!(role.state(), State::Active, "no failback");
}

#[test]
fn one_of_two_links_may_break_without_the_peer_being_lost() {
    let mut role = standby();
    let second = Input::Connected {
        link: LinkId(2),
        peer: None,
        news: news("b", State::Active, 4),
    };
    assert_eq!(after(&mut role, 1, vec![second]), "");
    assert_eq!(
        after(&mut role, 2, vec![lost()]),
        "try",
        "trying costs nothing"
    );
    assert_eq!(role.state(), State::Standby);
}

#[test]
fn what_a_second_link_says_late_does_not_count() {
    let mut role = Role::new(settings(1), 0);
    words(&mut role);
    let at = |state, beat| PeerNews {
        beat,
        ..news("b", state, 4)
    };
    let first = Input::Connected {
        link: LINK,
        peer: Some(0),
        news: at(State::Active, 3),
    };
    assert_eq!(
        after(&mut role, 1, vec![first]),
        "*peer_connected, *standby, refuse"
    );
    let late = Input::Connected {
        link: LinkId(2),
        peer: None,
        news: at(State::Starting, 1),
    };
    assert_eq!(after(&mut role, 2, vec![late]), "");
    let late = Input::Heard {
        link: LinkId(2),
        news: at(State::Activating, 2),
    };
    assert_eq!(after(&mut role, 3, vec![late]), "");
    assert_eq!(role.state(), State::Standby);
    let newer = Input::Heard {
        link: LinkId(2),
        news: at(State::Stopping, 4),
    };
    assert_eq!(after(&mut role, 4, vec![newer]), "*activating, hold, try");
}

#[test]
fn a_lost_peer_is_looked_for_again_every_second() {
    let mut role = active();
    assert_eq!(after(&mut role, 999, vec![Input::Tick]), "");
    assert_eq!(after(&mut role, 1_000, vec![Input::Tick]), "connect 0");
    after(&mut role, 1_500, vec![connected(State::Standby), lost()]);
    assert_eq!(after(&mut role, 2_500, vec![Input::Tick]), "connect 0");
}

#[test]
fn a_stopping_active_is_followed_as_soon_as_its_lock_is_free() {
    let mut role = standby();
    assert_eq!(
        after(&mut role, 10, vec![heard(State::Stopping)]),
        "*activating, hold, try"
    );
    let mut now_ms = 10;
    while now_ms < 2_000 {
        assert_eq!(after(&mut role, now_ms, vec![busy()]), "");
        now_ms = role.poll_timeout().expect("quick polls");
        assert_eq!(after(&mut role, now_ms, vec![Input::Tick]), "try");
    }
    assert_eq!(
        after(&mut role, now_ms, vec![owned()]),
        "recover, *recovering"
    );
}

#[test]
fn a_claim_of_another_active_is_reported_once_and_verified_in_the_store() {
    let mut role = active();
    let answer = after(&mut role, 1, vec![connected(State::Active)]);
    assert_eq!(answer, "*peer_connected, *dual_active, verify");
    assert_eq!(after(&mut role, 2, vec![heard(State::Active)]), "");
    let newer = Input::Heard {
        link: LINK,
        news: news("b", State::Active, 9),
    };
    assert_eq!(after(&mut role, 3, vec![newer]), "*dual_active, verify");
    assert_eq!(role.state(), State::Active, "a claim is only a hint");
}

#[test]
fn a_link_whose_peer_changes_its_identity_is_dropped() {
    let mut role = standby();
    let other = Input::Heard {
        link: LINK,
        news: news("x", State::Standby, 0),
    };
    let answer = after(&mut role, 1, vec![other]);
    assert_eq!(answer, "drop 1, *peer_lost, *activating, hold, try");
}

#[test]
fn a_standalone_server_serves_without_asking_anybody() {
    let mut role = Role::new(settings(0), 0);
    assert_eq!(words(&mut role), "*starting, hold, *activating, hold, try");
    assert_eq!(after(&mut role, 1, vec![owned()]), "recover, *recovering");
    assert_eq!(after(&mut role, 2, vec![ready()]), "serve, *active");
}

#[test]
fn a_standalone_server_that_finds_the_store_locked_exits_with_code_4() {
    let mut role = Role::new(settings(0), 0);
    words(&mut role);
    let mut now_ms = 0;
    let end = loop {
        let said = after(&mut role, now_ms, vec![busy()]);
        if !said.is_empty() {
            break said;
        }
        now_ms = role.poll_timeout().expect("it tries for a moment");
        after(&mut role, now_ms, vec![Input::Tick]);
    };
    assert_eq!(end, "exit 4");
    assert!((250..400).contains(&now_ms), "ended at {now_ms}");
}

#[test]
fn a_standalone_server_does_not_stand_by_for_a_peer_that_calls_it() {
    let mut role = Role::new(settings(0), 0);
    words(&mut role);
    let call = Input::Connected {
        link: LINK,
        peer: None,
        news: news("b", State::Active, 4),
    };
    after(&mut role, 1, vec![call, busy()]);
    assert_eq!(role.state(), State::Activating);
    after(&mut role, 300, vec![Input::Tick]);
    assert_eq!(after(&mut role, 301, vec![busy()]), "exit 4");
}

#[test]
fn each_kind_of_store_failure_has_its_exit_code() {
    let kinds = [
        (FailureKind::Io, "exit 1"),
        (FailureKind::Damaged, "exit 3"),
        (FailureKind::UnsafeFileSystem, "exit 4"),
    ];
    for (kind, exit) in kinds {
        let mut role = Role::new(settings(1), 0);
        after(&mut role, 1, vec![unreachable(), owned()]);
        let result = Input::Recovery(RecoveryResult::Failed(failure(kind)));
        assert_eq!(after(&mut role, 2, vec![result]), exit);

        let mut role = Role::new(settings(1), 0);
        after(&mut role, 1, vec![unreachable()]);
        assert_eq!(
            after(
                &mut role,
                2,
                vec![Input::Lock(LockResult::Failed(failure(kind)))]
            ),
            exit
        );
    }
}

#[test]
fn a_standby_outlives_an_error_of_the_lock_and_reports_it_once() {
    let mut role = standby();
    let failed = || Input::Lock(LockResult::Failed(failure(FailureKind::Io)));
    after(&mut role, 130, vec![Input::Tick]);
    assert_eq!(after(&mut role, 131, vec![failed()]), "*lock_refused");
    after(&mut role, 300, vec![Input::Tick]);
    assert_eq!(after(&mut role, 301, vec![failed()]), "");
    assert_eq!(role.state(), State::Standby);
}

#[test]
fn a_segment_that_is_locked_after_all_sends_the_server_back_to_standby() {
    let mut role = standby();
    after(&mut role, 20, vec![lost(), owned()]);
    let result = Input::Recovery(RecoveryResult::Busy {
        reason: "segment 4 is locked".to_owned(),
    });
    assert_eq!(
        after(&mut role, 30, vec![result]),
        "*lock_refused, *standby, refuse"
    );
    assert_eq!(after(&mut role, 160, vec![Input::Tick]), "try");
}

#[test]
fn a_failed_write_fences_the_server_and_tells_the_peers_before_it_ends() {
    let mut role = active();
    role.handle(
        9,
        Input::StoreFailed {
            reason: "EIO".to_owned(),
        },
    );
    let fenced = Action::Beat {
        state: State::Fenced,
        epoch: 5,
    };
    let mut told = false;
    while let Some(action) = role.poll_action() {
        told |= action == fenced;
        if let Action::Exit { exit, reason } = action {
            assert_eq!((exit.code(), reason.as_str()), (5, "EIO"));
        }
    }
    assert!(told);
    assert_eq!(role.poll_timeout(), None);
}

#[test]
fn an_orderly_stop_seals_the_store_and_exits_with_code_0() {
    let mut role = active();
    assert_eq!(after(&mut role, 9, vec![stop()]), "*stopping, stop engine");
    assert_eq!(after(&mut role, 10, vec![stop()]), "", "asked twice");
    assert_eq!(after(&mut role, 20, vec![Input::Stopped]), "exit 0");
}

#[test]
fn a_write_that_fails_while_stopping_is_not_an_orderly_end() {
    let mut role = active();
    after(&mut role, 9, vec![stop()]);
    let failed = Input::StoreFailed {
        reason: "EIO".to_owned(),
    };
    assert_eq!(after(&mut role, 10, vec![failed]), "*fenced, exit 5");
}

#[test]
fn a_server_that_stops_takes_no_lock_any_more() {
    let mut role = standby();
    after(&mut role, 130, vec![Input::Tick]);
    assert_eq!(
        after(&mut role, 131, vec![stop()]),
        "*stopping, stop engine"
    );
    assert_eq!(after(&mut role, 132, vec![owned()]), "");
    assert_eq!(after(&mut role, 400, vec![Input::Tick]), "");
}

#[test]
fn heartbeats_go_out_each_ft_heartbeat_and_at_each_change() {
    let mut role = Role::new(settings(1), 0);
    let beats = |role: &mut Role| {
        let actions = std::iter::from_fn(|| role.poll_action());
        actions
            .filter(|action| matches!(action, Action::Beat { .. }))
            .count()
    };
    assert_eq!(beats(&mut role), 1);
    role.handle(1, unreachable());
    assert_eq!(beats(&mut role), 1, "activating");
    role.handle(3_000, Input::Tick);
    assert_eq!(beats(&mut role), 1);
    role.handle(3_001, Input::Tick);
    assert_eq!(beats(&mut role), 0);
    role.handle(6_000, Input::Tick);
    assert_eq!(beats(&mut role), 1);
}
