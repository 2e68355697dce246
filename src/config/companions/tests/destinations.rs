//! `queues.conf` and `topics.conf`.

use super::*;
use crate::model::{OverflowPolicy, Prefetch, Trace};

#[test]
fn properties_of_destinations_are_read_with_their_units() {
    let queues: File<Destination> = good(
        Companion::Queues,
        ">\n\
         orders.> secure, store=$sys.failsafe, maxRedelivery=5\n\
         a maxbytes=2MB,MAXMSGS=10,overflowpolicy=rejectIncoming,flowControl,prefetch=none ; b\n\
         b redeliveryDelay=15sec,expiration=2day,trace=body,exclusive=false,release_unsettled\n\
         c prefetch=7,flowControl=1KB,expiration=90min,sender_name,sender_name_enforced,trace\n",
    );
    let of = |name: &str| {
        &queues
            .get(name)
            .unwrap_or_else(|| panic!("{name}"))
            .properties
    };
    assert!(of("orders.>").secure && of("orders.>").redelivery_max == 5);
    assert_eq!(of("orders.>").store.as_deref(), Some("$sys.failsafe"));
    let a = of("a");
    assert_eq!(
        (a.bytes_max, a.messages_max, a.flow_control_bytes),
        (2 << 20, 10, 256 << 10)
    );
    assert_eq!(a.overflow_policy, OverflowPolicy::RejectIncoming);
    assert_eq!(a.prefetch, Some(Prefetch::OnDemand));
    let b = of("b");
    assert_eq!(
        (b.redelivery_delay_ms, b.expiration_ms),
        (15_000, 172_800_000)
    );
    assert_eq!(
        (b.trace, b.exclusive, b.release_unsettled),
        (Some(Trace::Body), false, true)
    );
    assert_eq!(of("c").prefetch, Some(Prefetch::Messages(7)));
    assert_eq!(of("c").expiration_ms, 5_400_000);
    for entry in queues.entries() {
        let again: File<Destination> = good(Companion::Queues, &entry.header());
        assert_eq!(again.get(&entry.key()), Some(entry), "{}", entry.header());
    }
}

#[test]
fn each_property_has_help_with_an_example_that_can_be_written() {
    use crate::model::DestinationKind::{Queue, Topic};
    let names = |kind| -> Vec<&str> {
        let rows = property_help(kind).into_iter();
        rows.map(|(example, ..)| example.split('=').next().unwrap_or(""))
            .collect()
    };
    assert_eq!(names(Queue).len(), 18);
    assert_eq!(names(Topic).len(), 16);
    for (example, _, is_applied) in property_help(Queue) {
        let is_known = ["secure", "maxbytes=64MB", "maxmsgs=1000"].contains(&example);
        assert!(is_applied || !is_known, "{example}");
    }
}

#[test]
fn each_fault_of_destinations_names_its_line_and_what_to_write() {
    check_faults(&[
        (
            Companion::Queues,
            "a maxbyte=1",
            "1: a: unknown property `maxbyte`; did you mean `maxbytes`?",
        ),
        (
            Companion::Queues,
            "a secure,secure",
            "1: a: `secure` stands there twice; remove one",
        ),
        (
            Companion::Queues,
            "a export=x",
            "1: a: `export` is no property of a queue; remove it",
        ),
        (
            Companion::Queues,
            "a maxbytes=1XB",
            "1: a: `1XB` is not a size; write for example 512KB, 16MB or 1GB",
        ),
        (
            Companion::Queues,
            "a expiration=5weeks",
            "1: a: `5weeks` is not a time; write for example 30sec, 5min or 1hour",
        ),
        (
            Companion::Queues,
            "a maxRedelivery=1",
            "1: a: `maxRedelivery` is 2 to 255, or 0 for no limit",
        ),
        (
            Companion::Queues,
            "a redeliveryDelay=1sec",
            "1: a: `redeliveryDelay` is 15sec to 8hour, or 0 for none",
        ),
        (
            Companion::Queues,
            "a maxbytes",
            "1: a: `maxbytes` needs a value; write maxbytes=VALUE",
        ),
        (
            Companion::Queues,
            "a secure global",
            "1: a: `secure global` is not a property; write name=value, with commas between \
             properties",
        ),
        (
            Companion::Queues,
            "a global",
            "1: a: `global` has no effect in this version: servers do not forward messages to \
             each other",
        ),
        (
            Companion::Queues,
            "a failsafe",
            "1: a: `failsafe`: it means store=$sys.failsafe; write that",
        ),
        (
            Companion::Queues,
            "a secure, \\\nb",
            "1: a line cannot be continued in the next one; write it in one line",
        ),
        (
            Companion::Topics,
            "a exclusive",
            "1: a: `exclusive` is no property of a topic; remove it",
        ),
        (
            Companion::Topics,
            "a prefetch=none",
            "1: a: `prefetch=none` is for queues; write a number of messages",
        ),
    ]);
}

const QUEUES: &str = "\u{feff}# our queues\r\n\r\n  >   \t# anything\r\norders.>  secure ,  \
                      maxbytes = 1MB  ; limited\r\n;b secure\r\nb";

#[test]
fn a_change_rewrites_its_line_and_no_other_byte() {
    let mut queues: File<Destination> = good(Companion::Queues, QUEUES);
    assert_eq!(queues.to_string(), QUEUES);
    let mut orders = queues.get("orders.>").expect("it is there").clone();
    queues.set(&orders).expect("nothing changes");
    assert_eq!(queues.to_string(), QUEUES, "what is right is not rewritten");

    orders.properties.exclusive = true;
    queues.set(&orders).expect("it can be written");
    let wanted = QUEUES.replace(
        "orders.>  secure ,  maxbytes = 1MB",
        "orders.> secure,exclusive,maxbytes=1MB",
    );
    assert_eq!(queues.to_string(), wanted);
    assert_eq!(queues.get("orders.>"), Some(&orders));

    let new = Destination {
        name: Pattern::parse("c").expect("a name"),
        ..orders
    };
    queues.set(&new).expect("it can be written");
    let wanted = format!("{wanted}\r\nc secure,exclusive,maxbytes=1MB\r\n");
    assert_eq!(queues.to_string(), wanted, "the last line is ended first");

    assert!(queues.remove(">") && !queues.remove(">"));
    let wanted = wanted.replace("  >   \t# anything\r\n", "");
    assert_eq!(queues.to_string(), wanted);
    assert_eq!(queues.items().len(), 3);
}
