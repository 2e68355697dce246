//! Texts that nobody has written.

use proptest::prelude::*;

use super::*;

/// Lines that look like those of the files, and some that do not.
fn text() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "[ \t]{0,2}[a-c$.>*]{1,4}([:= ,]\"?[a-c>*]{0,3}\"?){0,4}[ ]{0,2}(#.{0,5})?",
        "(QUEUE|TOPIC|USER|PERM|ADMIN)=?[a-c.>]{0,3} (USER|GROUP)=\"?[ab]{0,2}\"? PERM=[a-z,-]{0,9}",
        "[a-c.]{1,3} (secure|maxbytes=1KB|prefetch=3|import=\"a,b\"|,| ){0,5}",
        "\\[(queue:|topic:)?[a-c.>]{0,4}\\]?",
        "(queue|topic|url|type|mode|file)[ =]{0,3}(a|b|tcp://h:1|sync|generic)?",
        ".{0,12}",
    ];
    let end = prop_oneof![Just("\n"), Just("\r\n"), Just(""), Just("\n\n")];
    prop::collection::vec((line, end), 0..12).prop_map(|lines| {
        let lines = lines.into_iter().map(|(line, end)| format!("{line}{end}"));
        lines.collect()
    })
}

/// Reads a text, writes it, changes it, and reads it again.
fn exercise<E: Entry + std::fmt::Debug>(which: Companion, text: &str) {
    let mut report = Report::default();
    let file: File<E> = File::parse(which, Path::new("f"), text, &mut report);
    assert_eq!(file.to_string(), text, "{which:?}");
    for fault in report.faults.iter().chain(&report.warnings) {
        assert!(!fault.text.is_empty());
    }
    let keys: Vec<String> = file.entries().map(Entry::key).collect();
    for entry in file.entries() {
        let is_single = keys.iter().filter(|key| **key == entry.key()).count() == 1;
        let mut changed = file.clone();
        if is_single {
            changed.set(entry).expect("what was read can be written");
            assert_eq!(changed.to_string(), text, "{which:?}: nothing differs");
        }
        let mut fresh: File<E> = File::empty(which, Path::new("f"));
        if fresh.set(entry).is_ok() {
            assert_eq!(fresh.get(&entry.key()), Some(entry), "{which:?}");
            assert_eq!(fresh.items().len(), 1);
        }
        assert!(changed.remove(&entry.key()));
        let left = changed.entries().map(Entry::key);
        assert!(
            left.eq(keys.iter().filter(|key| **key != entry.key()).cloned()),
            "{which:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text_is_written_as_it_was_read(text in text()) {
        exercise::<User>(Companion::Users, &text);
        exercise::<Group>(Companion::Groups, &text);
        exercise::<AclEntry>(Companion::Acl, &text);
        exercise::<Destination>(Companion::Queues, &text);
        exercise::<Destination>(Companion::Topics, &text);
        exercise::<Durable>(Companion::Durables, &text);
        exercise::<Bridge>(Companion::Bridges, &text);
        exercise::<Section>(Companion::Factories, &text);
        exercise::<Section>(Companion::Stores, &text);
        exercise::<Section>(Companion::Routes, &text);
    }
}
