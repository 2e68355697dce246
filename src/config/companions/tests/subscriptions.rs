//! `durables.conf` and `bridges.conf`.

use super::*;

#[test]
fn subscriptions_and_bridges_are_read() {
    let durables: File<Durable> = good(
        Companion::Durables,
        "px.ibm d1 clientid=c1\npx.* d2 nolocal, clientid=c1 # two\npx.> d3\n",
    );
    let d2 = durables.get("d2 clientid=c1").expect("it is there");
    assert!(d2.no_local && d2.topic.as_str() == "px.*");
    let bridges: File<Bridge> = good(
        Companion::Bridges,
        "[topic:px.>]\n  queue=px.archive\n  topic = copy\n\n[queue:a]\nqueue=b\n",
    );
    let bridge = bridges.get("topic:px.>").expect("it is there");
    let targets: Vec<String> = bridge.inner().into_iter().map(|(key, _)| key).collect();
    assert_eq!(targets, ["queue=px.archive", "topic=copy"]);
}

#[test]
fn each_fault_of_subscriptions_and_bridges_names_its_line_and_what_to_write() {
    check_faults(&[
        (
            Companion::Durables,
            "px",
            "1: `px`: write the topic, the name of the subscription, then its properties",
        ),
        (
            Companion::Durables,
            "px d selector=\"a = 1\"",
            &format!("1: px d: {SELECTOR}"),
        ),
        (
            Companion::Durables,
            "px d route,nolocal",
            "1: px d: with `route` no other property is allowed; remove the others",
        ),
        (
            Companion::Durables,
            "px d client=c",
            "1: px d: unknown property `client`; did you mean `clientid`?",
        ),
        (
            Companion::Durables,
            "px d\npy d",
            "2: d: it is there already, at f.conf:1; remove one of the two",
        ),
        (
            Companion::Bridges,
            "[px]\nqueue=a",
            "1: px: write [queue:name] or [topic:name]",
        ),
        (
            Companion::Bridges,
            "[topic:px]\nqueue=a.*",
            "2: topic:px: queue=a.*: a target is one destination; write its name without `*` and \
             `>`",
        ),
        (
            Companion::Bridges,
            "[topic:px]\nqueue=a selector=\"x > 1\"",
            &format!("2: topic:px: queue=a: {SELECTOR}"),
        ),
        (
            Companion::Bridges,
            "[topic:px]\ntopic=px",
            "2: topic:px: topic=px: a bridge cannot lead to its own source",
        ),
        (
            Companion::Bridges,
            "[topic:px]\nqueue=a\nqueue=a",
            "3: topic:px: queue=a is a target twice; remove one line",
        ),
        (
            Companion::Bridges,
            "[file:px]",
            "1: file:px: `file` is neither queue nor topic; write one of them",
        ),
        (
            Companion::Bridges,
            "queue=a",
            "1: `queue`: a line before the first [name]",
        ),
    ]);
}
