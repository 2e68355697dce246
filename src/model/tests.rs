//! Names, inheritance and permissions, case by case and against a slow definition.

use proptest::prelude::*;

use super::DestinationKind::{Queue, Topic};
use super::*;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

#[test]
fn names_have_limits_and_each_fault_says_which() {
    let element = "e".repeat(127);
    let long = format!("{element}.{}", "e".repeat(121));
    assert_eq!(long.len(), 249);
    for right in [
        "a",
        "a.b",
        "*",
        ">",
        "a.*.c",
        "*.>",
        "$sys.meta",
        "$TMP$.A.1",
        &long,
        &element,
    ] {
        assert_eq!(pattern(right).as_str(), right);
    }
    let many = vec!["e"; 65].join(".");
    for (wrong, words) in [
        ("", "a name is missing"),
        (
            "a..b",
            "`a..b` has an empty element; write one dot between two elements",
        ),
        (".a", "has an empty element"),
        ("a.", "has an empty element"),
        (">.a", "`>.a`: `>` can only be the last element"),
        (
            "a*.b",
            "`a*.b`: `*` and `>` stand for whole elements, as in `a.*.c` and `a.>`",
        ),
        ("a b", "`a b`: a name has no blanks"),
        ("a\u{7}", "a name has no blanks"),
        (
            &format!("{long}e"),
            "a name has at most 249 bytes, this one has 250",
        ),
        (&"e".repeat(128), "has at most 127 bytes"),
        (&many, "a name has at most 64 elements, this one has 65"),
    ] {
        let fault = Pattern::parse(wrong).expect_err(wrong);
        assert!(fault.contains(words), "{wrong}: {fault}");
    }
    assert_eq!(pattern(&vec!["e"; 64].join(".")).as_str().len(), 127);
}

#[test]
fn wildcards_stand_for_what_they_should() {
    for (text, yes, no) in [
        ("a.b", vec!["a.b"], vec!["a", "a.b.c", "A.b"]),
        ("a.*", vec!["a.b", "a.c"], vec!["a", "a.b.c", "b.a"]),
        ("*", vec!["a"], vec!["a.b"]),
        ("a.>", vec!["a.b", "a.b.c"], vec!["a", "b.a"]),
        (">", vec!["a", "a.b.c"], vec![]),
        ("*.*.c", vec!["a.b.c"], vec!["a.c", "a.b.d"]),
    ] {
        for name in yes {
            assert!(pattern(text).matches(name), "{text} stands for {name}");
        }
        for name in no {
            assert!(
                !pattern(text).matches(name),
                "{text} does not stand for {name}"
            );
        }
    }
}

/// All names of up to three elements out of two letters.
fn small_names() -> Vec<String> {
    let letters = ["a", "b"];
    let mut names: Vec<String> = letters.map(str::to_owned).to_vec();
    for _ in 0..2 {
        let longer = names
            .clone()
            .into_iter()
            .flat_map(|name| letters.map(|letter| format!("{name}.{letter}")));
        names.extend(longer.collect::<Vec<_>>());
    }
    names.sort();
    names.dedup();
    names
}

/// Patterns of up to two elements: what they do shows in names of three.
fn small_pattern() -> impl Strategy<Value = Pattern> {
    let element = prop_oneof![Just("a"), Just("b"), Just("*")];
    let last = prop_oneof![Just("a"), Just("b"), Just("*"), Just(">")];
    (prop::option::of(element), last).prop_map(|(first, last)| match first {
        Some(first) => pattern(&format!("{first}.{last}")),
        None => pattern(last),
    })
}

proptest! {
    #[test]
    fn covers_and_overlaps_mean_what_they_say(one in small_pattern(), other in small_pattern()) {
        let names = small_names();
        let both = names.iter().any(|name| one.matches(name) && other.matches(name));
        let all = names.iter().all(|name| !other.matches(name) || one.matches(name));
        prop_assert_eq!(one.overlaps(&other), both, "{} {}", &one, &other);
        prop_assert_eq!(one.covers(&other), all, "{} {}", &one, &other);
    }

    #[test]
    fn a_subscription_never_reaches_a_secure_topic_without_the_right(
        grants in prop::collection::vec(small_pattern(), 0..4),
        secure in prop::collection::vec(small_pattern(), 0..3),
        wanted in small_pattern(),
    ) {
        let mut access = Access { secure_topics: secure, ..Access::default() };
        access.grants = grants.into_iter().map(|name| grant(Topic, name, "bob", &[Action::Subscribe])).collect();
        if access.allowed("bob", &[], Action::Subscribe, Topic, &wanted) {
            for name in small_names().iter().filter(|name| wanted.matches(name)) {
                prop_assert!(access.allowed("bob", &[], Action::Subscribe, Topic, &pattern(name)), "{}", name);
            }
        }
    }

    #[test]
    fn no_text_makes_a_name_panic(text in "[a-c.*>é ]{0,300}") {
        if let Ok(pattern) = Pattern::parse(&text) {
            prop_assert!(pattern.covers(&pattern) && pattern.overlaps(&pattern));
            prop_assert!(text.len() <= NAME_BYTES_MAX);
        }
    }
}

fn grant(kind: DestinationKind, name: Pattern, user: &str, actions: &[Action]) -> Grant {
    Grant {
        kind,
        name,
        principal: Principal::User(user.to_owned()),
        actions: actions.iter().copied().collect(),
    }
}

#[test]
fn a_destination_inherits_from_every_pattern_that_matches() {
    let mut queues = Catalogue::default();
    let number = |bytes_max| Properties {
        bytes_max,
        ..Properties::default()
    };
    queues.insert(
        pattern(">"),
        Properties {
            prefetch: Some(Prefetch::OnDemand),
            store: Some("far".to_owned()),
            ..number(10)
        },
    );
    queues.insert(
        pattern("orders.>"),
        Properties {
            secure: true,
            overflow_policy: OverflowPolicy::DiscardOld,
            store: Some("near".to_owned()),
            trace: Some(Trace::Body),
            import: vec!["x".to_owned()],
            ..number(30)
        },
    );
    queues.insert(
        pattern("*.eu"),
        Properties {
            overflow_policy: OverflowPolicy::RejectIncoming,
            prefetch: Some(Prefetch::Messages(7)),
            redelivery_max: 4,
            import: vec!["x".to_owned(), "y".to_owned()],
            ..number(20)
        },
    );
    queues.insert(
        pattern("orders.eu"),
        Properties {
            exclusive: true,
            ..number(5)
        },
    );
    queues.insert(pattern("orders.us"), Properties::default());

    let eu = queues.effective("orders.eu").expect("it is named");
    assert!(
        eu.secure && eu.exclusive,
        "marks of parents cannot be taken back"
    );
    assert_eq!(eu.bytes_max, 5, "a value of its own wins");
    assert_eq!(
        eu.overflow_policy,
        OverflowPolicy::RejectIncoming,
        "the strictest"
    );
    assert_eq!(
        eu.prefetch,
        Some(Prefetch::Messages(7)),
        "a number wins over none"
    );
    assert_eq!(
        eu.store.as_deref(),
        Some("near"),
        "of the pattern that says most"
    );
    assert_eq!((eu.redelivery_max, eu.trace), (4, Some(Trace::Body)));
    assert_eq!(eu.import, ["x", "y"]);

    let us = queues.effective("orders.us").expect("it is named");
    assert_eq!((us.bytes_max, us.prefetch), (30, Some(Prefetch::OnDemand)));
    assert_eq!(us.overflow_policy, OverflowPolicy::DiscardOld);

    let other = queues.effective("else").expect("`>` matches");
    assert!(!other.secure && !queues.is_static(&pattern("else")));
    assert_eq!(other.store.as_deref(), Some("far"));
    assert!(queues.is_static(&pattern("orders.us")) && !queues.is_static(&pattern(">")));
    let secure: Vec<&Pattern> = queues.secure().collect();
    assert_eq!(secure, [&pattern("orders.>")]);
}

#[test]
fn what_no_entry_matches_may_not_be_created() {
    let mut queues = Catalogue::default();
    queues.insert(pattern("orders.>"), Properties::default());
    assert_eq!(queues.effective("orders"), None);
    assert_eq!(queues.effective("orders.eu"), Some(Properties::default()));
}

fn sample() -> Access {
    let members = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Access {
        groups: [
            ("$admin".to_owned(), members(&["root"])),
            ("eng".to_owned(), members(&["bob", "eve"])),
        ]
        .into(),
        grants: vec![
            grant(Queue, pattern("orders.>"), "bob", &[Action::Receive]),
            Grant {
                principal: Principal::Group("eng".to_owned()),
                ..grant(
                    Queue,
                    pattern("orders.eu"),
                    "",
                    &[Action::Send, Action::Purge],
                )
            },
            Grant {
                principal: Principal::Group(ALL_GROUP.to_owned()),
                ..grant(Queue, pattern("orders.public"), "", &[Action::Browse])
            },
            grant(
                Topic,
                pattern("px.*"),
                "bob",
                &[Action::Subscribe, Action::Durable],
            ),
            grant(Topic, pattern("px.ibm"), "eve", &[Action::UseDurable]),
        ],
        admin_grants: vec![AdminGrant {
            principal: Principal::User("eve".to_owned()),
            rights: [AdminRight::ChangeUser, AdminRight::ViewDestination]
                .into_iter()
                .collect(),
        }],
        secure_queues: vec![pattern("orders.>")],
        secure_topics: vec![pattern("px.*")],
    }
}

#[test]
fn permissions_of_a_user_and_of_his_groups_add_up() {
    let access = sample();
    let may = |user: &str, action, kind, name: &str| {
        let groups = access.groups_of(user);
        access.allowed(user, &groups, action, kind, &pattern(name))
    };
    for (user, action, kind, name, wanted) in [
        ("bob", Action::Receive, Queue, "orders.eu", true),
        ("bob", Action::Receive, Queue, "orders.us.west", true),
        ("bob", Action::Send, Queue, "orders.eu", true),
        ("bob", Action::Send, Queue, "orders.us", false),
        ("bob", Action::Browse, Queue, "orders.eu", false),
        ("mallory", Action::Browse, Queue, "orders.public", true),
        ("mallory", Action::Receive, Queue, "orders.public", false),
        ("", Action::Receive, Queue, "orders.eu", false),
        // The destination is not secure: clients need nothing, administrators do.
        ("mallory", Action::Receive, Queue, "free", true),
        ("mallory", Action::Purge, Queue, "free", false),
        ("mallory", Action::View, Queue, "free", false),
        // Permissions for queues say nothing about topics.
        ("bob", Action::Publish, Topic, "px.ibm", false),
        ("bob", Action::Subscribe, Topic, "px.ibm", true),
        ("bob", Action::UseDurable, Topic, "px.ibm", true),
        ("eve", Action::UseDurable, Topic, "px.ibm", true),
        ("eve", Action::Durable, Topic, "px.ibm", false),
        ("bob", Action::Purge, Queue, "orders.eu", true),
        ("bob", Action::View, Queue, "orders.eu", true),
        ("bob", Action::View, Queue, "orders.us", false),
        ("eve", Action::View, Topic, "anything", true),
        ("eve", Action::Delete, Topic, "anything", false),
        ("root", Action::Delete, Topic, "anything", true),
        ("root", Action::Receive, Queue, "orders.eu", true),
        ("admin", Action::Receive, Queue, "orders.eu", true),
    ] {
        assert_eq!(
            may(user, action, kind, name),
            wanted,
            "{user} {action:?} {kind} {name}"
        );
    }
}

#[test]
fn a_subscription_to_a_pattern_needs_the_right_for_every_secure_topic_in_it() {
    let access = sample();
    let may = |user: &str, name: &str| {
        access.allowed(user, &[ALL_GROUP], Action::Subscribe, Topic, &pattern(name))
    };
    assert!(may("bob", "px.*"), "all of it is permitted");
    assert!(may("bob", "px.>"), "the rest is not secure");
    assert!(may("bob", ">"));
    assert!(!may("eve", ">") && !may("eve", "*.ibm"), "`px.*` is in it");
    assert!(may("eve", "news.>"), "nothing of it is secure");
    assert!(access.is_secure(Topic, &pattern(">")) && !access.is_secure(Topic, &pattern("a.>")));
}

#[test]
fn the_rights_of_an_administrator_are_his_and_those_they_include() {
    let access = sample();
    let has = |user: &str, right| access.has_right(user, &access.groups_of(user), right);
    assert!(has("eve", AdminRight::ChangeUser) && has("eve", AdminRight::ViewUser));
    assert!(!has("eve", AdminRight::ChangeGroup) && !has("eve", AdminRight::Shutdown));
    assert!(!has("bob", AdminRight::ViewUser));
    for right in AdminRight::all() {
        assert!(has("admin", right) && has("root", right), "{right:?}");
        assert!(AdminRights::all().contains(right), "{right:?}");
        assert_eq!(
            AdminRights::view_all().contains(right),
            right.word().starts_with("view-")
        );
    }
    assert_eq!(access.groups_of("root"), ["$admin", "all"]);
}

#[test]
fn all_is_what_clients_do() {
    let words = |kind| {
        Actions::all(kind)
            .named()
            .map(Action::word)
            .collect::<Vec<_>>()
    };
    assert_eq!(words(Queue), ["receive", "send", "browse"]);
    assert_eq!(
        words(Topic),
        ["subscribe", "publish", "durable", "use_durable"]
    );
    let set: Actions = [Action::Send, Action::Receive].into_iter().collect();
    assert!(set.without(set).is_empty() && !set.is_empty());
    assert_eq!(
        set.without([Action::Send].into_iter().collect())
            .named()
            .collect::<Vec<_>>(),
        [Action::Receive]
    );
}
