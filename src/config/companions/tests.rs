//! Each grammar with its faults, edits that change one line, and what the files say together.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::{Config, Given, MainFile, load, load_anyway};
use crate::model::{Action, OverflowPolicy, Prefetch, StoredPassword, Trace};

fn parse<E: Entry>(which: Companion, text: &str) -> (File<E>, Report) {
    let mut report = Report::default();
    let file = File::parse(which, Path::new("f.conf"), text, &mut report);
    (file, report)
}

fn good<E: Entry>(which: Companion, text: &str) -> File<E> {
    let (file, report) = parse(which, text);
    assert_eq!(report, Report::default(), "{text}");
    file
}

/// Faults, then warnings, one a line.
fn said(which: Companion, text: &str) -> String {
    let report = match which {
        Companion::Users => parse::<User>(which, text).1,
        Companion::Groups => parse::<Group>(which, text).1,
        Companion::Acl => parse::<AclEntry>(which, text).1,
        Companion::Queues | Companion::Topics => parse::<Destination>(which, text).1,
        Companion::Durables => parse::<Durable>(which, text).1,
        Companion::Bridges => parse::<Bridge>(which, text).1,
        Companion::Factories | Companion::Stores | Companion::Routes => {
            parse::<Section>(which, text).1
        }
    };
    let all = report.faults.iter().chain(&report.warnings);
    let lines: Vec<String> = all.map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn users_have_a_name_a_password_and_a_description() {
    let text = "\u{feff}# users\r\nadmin::\"The # administrator\"\r\n\r\n  bob:p;w#1:\r\n\
                eve:\"a:b c\": unquoted words\r\nplain\u{e9}:x\r\n\
                old:$1$Ab$cdef:\"from elsewhere\"\r\nkeys:$argon2id$v=19$m=1,t=1,p=1$c2FsdA$aGFzaA:\r\n";
    let (users, report) = parse::<User>(Companion::Users, text);
    assert!(report.faults.is_empty(), "{report:?}");
    let secret = |text: &str| crate::config::Secret::new(text.to_owned());
    for (name, password, description) in [
        ("admin", StoredPassword::Empty, "The # administrator"),
        ("bob", StoredPassword::Plain(secret("p;w#1")), ""),
        (
            "eve",
            StoredPassword::Plain(secret("a:b c")),
            "unquoted words",
        ),
        ("plain\u{e9}", StoredPassword::Plain(secret("x")), ""),
        (
            "old",
            StoredPassword::Foreign(secret("$1$Ab$cdef")),
            "from elsewhere",
        ),
        (
            "keys",
            StoredPassword::Keys(secret("$argon2id$v=19$m=1,t=1,p=1$c2FsdA$aGFzaA")),
            "",
        ),
    ] {
        let user = users.get(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(
            (&user.password, user.description.as_str()),
            (&password, description)
        );
    }
    assert_eq!(
        said(Companion::Users, text),
        "f.conf:7: old: the password is kept in a form of another server, which cannot be checked \
         here; nobody can log in as this user until a new password is set"
    );
    let shown = format!("{users:?}");
    let items = shown.split("items:").nth(1).expect("there are items");
    assert!(
        !items.contains("p;w#1") && !items.contains("c2FsdA"),
        "{items}"
    );
}

#[test]
fn groups_have_members_below_them() {
    let groups: File<Group> = good(
        Companion::Groups,
        "$admin:\"Administrators\"\n\tadmin # the first\n\n  ; nobody else\neng\n  bob\n  \"eve\"\n",
    );
    let members = |name: &str| -> Vec<String> {
        let group = groups.get(name).unwrap_or_else(|| panic!("{name}"));
        group.members.iter().cloned().collect()
    };
    assert_eq!(members("$admin"), ["admin"]);
    assert_eq!(members("eng"), ["bob", "eve"]);
    assert_eq!(
        groups.get("$admin").map(|group| group.description.as_str()),
        Some("Administrators")
    );
}

#[test]
fn permissions_are_read_in_all_their_spellings() {
    let acl: File<AclEntry> = good(
        Companion::Acl,
        "QUEUE=orders.> GROUP=eng PERM=receive,browse\n\
         topic=px.* user=bob perm=ALL # everything\n\
         USER=\"John Smith\" QUEUE=a PERM=send, purge\n\
         ADMIN USER=eve PERM=view-all,change-user\n",
    );
    let words: Vec<(String, Vec<&str>)> = acl
        .entries()
        .map(|entry| (entry.key(), entry.permissions()))
        .collect();
    assert_eq!(
        words[0],
        (
            "QUEUE=orders.> GROUP=eng".to_owned(),
            vec!["receive", "browse"]
        )
    );
    assert_eq!(
        words[1].1,
        ["subscribe", "publish", "durable", "use_durable"]
    );
    assert_eq!(
        words[2],
        (
            "QUEUE=a USER=\"John Smith\"".to_owned(),
            vec!["send", "purge"]
        )
    );
    assert_eq!(words[3].1, ["view-all", "change-user"]);
}

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
fn subscriptions_bridges_and_sections_are_read() {
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
    let factories: File<Section> = good(
        Companion::Factories,
        "[FTConnectionFactory]\n  type = generic\n  url = tcp://h1:7222,tcp://h2:7224\n  \
         clientid = \"my id\"\n  ssl_verify_host = disabled\n",
    );
    let factory = factories.get("FTConnectionFactory").expect("it is there");
    assert_eq!(factory.get("clientID"), Some("my id"));
    let routes: File<Section> = good(
        Companion::Routes,
        "[B]\nurl = tcp://b:7222\nzone_name=\nzone_type = mhop\n",
    );
    assert_eq!(
        routes.get("B").and_then(|route| route.get("zone_name")),
        None
    );
    let stores: File<Section> = good(
        Companion::Stores,
        "[$sys.meta]\n type = file\n file = meta.db\n mode=async\n file_minimum = 8MB\n",
    );
    assert_eq!(
        stores.get("$sys.meta").and_then(|store| store.get("file")),
        Some("meta.db")
    );
}

const SELECTOR: &str = "selectors are not supported by this version, and without its selector it \
                        would get messages that it must not get; remove the entry or the selector";

#[test]
fn each_fault_names_its_line_and_what_to_write() {
    use Companion::*;
    for (which, text, wanted) in [
        (
            Users,
            "bob secret",
            "1: `bob`: write name:password:\"description\"",
        ),
        (Users, ":x:", "1: the name of a user is missing"),
        (
            Users,
            "a:\"x:y",
            "1: a: the closing quote of the password is missing",
        ),
        (Users, "a:\"x\"y:", "1: a: write `:` behind the password"),
        (
            Users,
            "a:x:\"y",
            "1: a: the description has a quote too many or too few",
        ),
        (
            Users,
            "a:x:\n#\na:y:",
            "3: a: it is there already, at f.conf:1; remove one of the two",
        ),
        (
            Groups,
            "  bob",
            "1: an indented line is a member of the group above it, and there is none; write \
             name:\"description\" at the start of a line",
        ),
        (
            Groups,
            "all:\n  bob",
            "1: every user belongs to the group `all` without being named; remove it",
        ),
        (
            Groups,
            "eng:\n  ops:\"Operators\"",
            "2: eng: a quote inside of `ops:\"Operators\"`; remove it",
        ),
        (
            Groups,
            "eng:\n  bob\n  bob",
            "3: eng: `bob` is a member twice; remove one line",
        ),
        (
            Acl,
            "QUEUE=a USER=b",
            "1: PERM= is missing; write QUEUE=name or TOPIC=name or ADMIN, then USER=name or \
             GROUP=name, then PERM=a,b",
        ),
        (
            Acl,
            "QUEUE=a USER=b PERM=recieve",
            "1: unknown permission `recieve`; did you mean `receive`?",
        ),
        (
            Acl,
            "TOPIC=a USER=b PERM=receive",
            "1: `receive` cannot be done to a topic; write some of subscribe, publish, durable, \
             use_durable, view, create, delete, modify, purge, all",
        ),
        (
            Acl,
            "QUEUE=a USER=b PERM=",
            "1: no permission is named; write PERM=a,b",
        ),
        (
            Acl,
            "ADMIN USER=b PERM=change-usr",
            "1: unknown administrative permission `change-usr`; did you mean `change-user`?",
        ),
        (
            Acl,
            "QUEUE=a..b USER=b PERM=send",
            "1: `a..b` has an empty element; write one dot between two elements",
        ),
        (
            Acl,
            "QUEUE=a USER=b PERM=send\nQUEUE=a USER=b PERM=browse",
            "2: QUEUE=a USER=b: it is there already, at f.conf:1; both count",
        ),
        (
            Queues,
            "a maxbyte=1",
            "1: a: unknown property `maxbyte`; did you mean `maxbytes`?",
        ),
        (
            Queues,
            "a secure,secure",
            "1: a: `secure` stands there twice; remove one",
        ),
        (
            Queues,
            "a export=x",
            "1: a: `export` is no property of a queue; remove it",
        ),
        (
            Topics,
            "a exclusive",
            "1: a: `exclusive` is no property of a topic; remove it",
        ),
        (
            Topics,
            "a prefetch=none",
            "1: a: `prefetch=none` is for queues; write a number of messages",
        ),
        (
            Queues,
            "a maxbytes=1XB",
            "1: a: `1XB` is not a size; write for example 512KB, 16MB or 1GB",
        ),
        (
            Queues,
            "a expiration=5weeks",
            "1: a: `5weeks` is not a time; write for example 30sec, 5min or 1hour",
        ),
        (
            Queues,
            "a maxRedelivery=1",
            "1: a: `maxRedelivery` is 2 to 255, or 0 for no limit",
        ),
        (
            Queues,
            "a redeliveryDelay=1sec",
            "1: a: `redeliveryDelay` is 15sec to 8hour, or 0 for none",
        ),
        (
            Queues,
            "a maxbytes",
            "1: a: `maxbytes` needs a value; write maxbytes=VALUE",
        ),
        (
            Queues,
            "a secure global",
            "1: a: `secure global` is not a property; write name=value, with commas between \
             properties",
        ),
        (
            Queues,
            "a global",
            "1: a: `global` has no effect in this version: servers do not forward messages to \
             each other",
        ),
        (
            Queues,
            "a failsafe",
            "1: a: `failsafe`: it means store=$sys.failsafe; write that",
        ),
        (
            Queues,
            "a secure, \\\nb",
            "1: a line cannot be continued in the next one; write it in one line",
        ),
        (
            Durables,
            "px",
            "1: `px`: write the topic, the name of the subscription, then its properties",
        ),
        (
            Durables,
            "px d selector=\"a = 1\"",
            &format!("1: px d: {SELECTOR}"),
        ),
        (
            Durables,
            "px d route,nolocal",
            "1: px d: with `route` no other property is allowed; remove the others",
        ),
        (
            Durables,
            "px d client=c",
            "1: px d: unknown property `client`; did you mean `clientid`?",
        ),
        (
            Durables,
            "px d\npy d",
            "2: d: it is there already, at f.conf:1; remove one of the two",
        ),
        (
            Bridges,
            "[px]\nqueue=a",
            "1: px: write [queue:name] or [topic:name]",
        ),
        (
            Bridges,
            "[topic:px]\nqueue=a.*",
            "2: topic:px: queue=a.*: a target is one destination; write its name without `*` and \
             `>`",
        ),
        (
            Bridges,
            "[topic:px]\nqueue=a selector=\"x > 1\"",
            &format!("2: topic:px: queue=a: {SELECTOR}"),
        ),
        (
            Bridges,
            "[topic:px]\ntopic=px",
            "2: topic:px: topic=px: a bridge cannot lead to its own source",
        ),
        (
            Bridges,
            "[topic:px]\nqueue=a\nqueue=a",
            "3: topic:px: queue=a is a target twice; remove one line",
        ),
        (
            Bridges,
            "[file:px]",
            "1: file:px: `file` is neither queue nor topic; write one of them",
        ),
        (
            Bridges,
            "queue=a",
            "1: `queue`: a line before the first [name]",
        ),
        (Stores, "[x", "1: `[x`: write a section as [name]"),
        (
            Stores,
            "[x]\nmode = safe",
            "2: x: mode: `safe` is not known; write one of async, sync",
        ),
        (
            Stores,
            "[x]\nfil = a",
            "2: x: unknown setting `fil`; did you mean `file`?",
        ),
        (
            Stores,
            "[x]\nfile = a\nfile = b",
            "3: x: `file` stands there twice; remove one",
        ),
        (
            Stores,
            "[x]\ntype = dbstore\ndbstore_driver_password = hidden",
            "1: x: type=dbstore is not supported by this version: its messages are in the one \
             store that the parameter `store` names",
        ),
        (
            Factories,
            "[x]\nurl = tcp://h:1",
            "1: x: `type` is missing; write type = ...",
        ),
        (
            Factories,
            "[x]\ntype = generic\nurl = h:1",
            "3: x: url: a URL needs a scheme; write for example tcp://host2:5672",
        ),
        (
            Routes,
            "[x]\nzone_type = 2hop",
            "2: x: zone_type: `2hop` is not known; did you mean `1hop`?",
        ),
        (Routes, "[x]", "1: x: `url` is missing; write url = ..."),
    ] {
        let wanted = format!("f.conf:{wanted}");
        assert_eq!(said(which, text), wanted, "{which:?}: {text}");
    }
}

#[test]
fn a_line_that_is_not_understood_does_not_show_what_may_be_a_password() {
    for (which, text) in [
        (Companion::Users, "bob=hidden"),
        (Companion::Users, "bob:\"hidden"),
        (Companion::Users, "b\u{7}b:hidden:"),
        (Companion::Factories, "[x]\nssl_password hidden"),
        (Companion::Factories, "ssl_password = hidden"),
        (Companion::Stores, "[x]\ndbstore_driver_pasword=hidden\n"),
        (
            Companion::Routes,
            "[x]\nurl = tcp://b:1\nssl_password=\"hidden",
        ),
    ] {
        assert!(!said(which, text).contains("hidden"), "{which:?}: {text}");
    }
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

#[test]
fn a_change_of_a_section_touches_only_the_lines_that_differ() {
    let text =
        "eng:\"Engineers\"  # ours\n   bob   # since May\n   # dan was here\n   eve\n\nops:\n  x\n";
    let mut groups: File<Group> = good(Companion::Groups, text);
    let mut eng = groups.get("eng").expect("it is there").clone();
    eng.members.remove("eve");
    eng.members.insert("zoe".to_owned());
    groups.set(&eng).expect("it can be written");
    let wanted = text
        .replace("   eve\n", "")
        .replace("since May\n", "since May\n   zoe\n");
    assert_eq!(groups.to_string(), wanted);
    eng.members.remove("zoe");
    groups.set(&eng).expect("it can be written");
    assert_eq!(groups.to_string(), text.replace("   eve\n", ""));
    assert!(groups.remove("eng"));
    assert_eq!(groups.to_string(), "   # dan was here\n\nops:\n  x\n");

    let text = "[B] # west\n url   = tcp://b:7222\n\n[C]\n url=tcp://c:7222\n";
    let mut routes: File<Section> = good(Companion::Routes, text);
    let mut b = routes.get("B").expect("it is there").clone();
    let secret = |text: &str| crate::config::Secret::new(text.to_owned());
    b.settings.insert("zone_name".to_owned(), secret("z 1"));
    routes.set(&b).expect("it can be written");
    assert_eq!(
        routes.to_string(),
        text.replace("b:7222\n", "b:7222\n zone_name = \"z 1\"\n")
    );
    assert_eq!(routes.get("B"), Some(&b));
}

#[test]
fn setting_a_permission_that_stands_in_two_lines_leaves_one() {
    let text = "QUEUE=a USER=b PERM=send\n# why\nQUEUE=a USER=b PERM=browse\n";
    let (mut acl, _) = parse::<AclEntry>(Companion::Acl, text);
    let mut entry = acl.get("QUEUE=a USER=b").expect("it is there").clone();
    if let AclEntry::Destination(grant) = &mut entry {
        grant.actions = [Action::Receive].into_iter().collect();
    }
    acl.set(&entry).expect("it can be written");
    assert_eq!(acl.to_string(), "QUEUE=a USER=b PERM=receive\n# why\n");
}

#[test]
fn what_would_be_read_back_as_something_else_is_not_written() {
    let mut users: File<User> = good(Companion::Users, "a::\n");
    let user = |name: &str, password: &str, description: &str| User {
        name: name.to_owned(),
        password: StoredPassword::parse(password),
        description: description.to_owned(),
    };
    for wrong in [
        user("a:b", "", ""),
        user("a\nb", "x", ""),
        user("#a", "", ""),
        user("b", "x\ny::", ""),
        user("b", "x:\"y", ""),
        user("b", "", "a \" quote"),
        user("", "", ""),
    ] {
        let fault = users.set(&wrong).expect_err("it cannot be written");
        assert!(fault.contains("cannot be written to f.conf: "), "{fault}");
        assert_eq!(users.to_string(), "a::\n");
    }
    for right in [
        user("b", " x:y ", "d"),
        user("c", "#;", ""),
        user("a", "\"", ""),
    ] {
        match users.set(&right) {
            Ok(()) => assert_eq!(users.get(&right.name), Some(&right)),
            Err(_) => assert_eq!(right.name, "a", "a lone quote has no spelling"),
        }
    }
}

// What the files say together

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(list: &[(&str, &str)]) -> Files {
    let file =
        |(name, text): &(&str, &str)| (Path::new("/etc/pair").join(name), text.as_bytes().to_vec());
    list.iter().map(file).collect()
}

fn given(main: &str) -> Given {
    let path = if main.starts_with('{') {
        "a.json"
    } else {
        "a.conf"
    };
    Given {
        file: Some(MainFile {
            path: Path::new("/etc/pair").join(path),
            text: main.to_owned(),
        }),
        ..Given::default()
    }
}

/// The configuration even where this version refuses to run it.
fn config(main: &str) -> Config {
    load_anyway(&given(main)).0
}

/// Faults and warnings of reading the companions.
fn together(main: &str, list: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let there = files(list);
    let reader = |path: &Path| {
        there
            .get(path)
            .cloned()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    let lines = |faults: Vec<crate::config::Fault>| -> Vec<String> {
        let lines = faults.iter().map(ToString::to_string);
        let told = |line: &String| !line.contains("without effect in this version");
        lines.filter(told).collect()
    };
    match read(&config(main), &reader) {
        Ok((_, warnings)) => (Vec::new(), lines(warnings)),
        Err(faults) => (lines(faults.faults), lines(faults.warnings)),
    }
}

fn at(lines: &[&str]) -> Vec<String> {
    lines
        .iter()
        .map(|line| format!("/etc/pair/{line}"))
        .collect()
}

#[test]
fn files_beside_the_main_file_are_read_and_need_not_be_there() {
    assert_eq!(together("server = A", &[]), (vec![], vec![]));
    let list = [("users.conf", "bob::x\n"), ("queues.conf", "a maxbyte=1\n")];
    let (faults, _) = together("server = A", &list);
    let wanted = at(&["queues.conf:1: a: unknown property `maxbyte`; did you mean `maxbytes`?"]);
    assert_eq!(faults, wanted);
    let (faults, warnings) = together("queues =", &list);
    assert_eq!(
        (faults, warnings),
        (vec![], vec![]),
        "an empty value: not read"
    );
    let (faults, _) = together("users = people.conf", &[]);
    assert_eq!(
        faults,
        at(&[
            "a.conf:1: users: /etc/pair/people.conf cannot be read: entity not found; write the \
              name of a file that is there"
        ])
    );
}

#[test]
fn what_has_no_effect_yet_is_told_once_for_each_file() {
    let there = files(&[(
        "queues.conf",
        "> maxmsgs=9\na secure,trace\nb maxRedelivery=5,trace\n",
    )]);
    let reader = |path: &Path| {
        there
            .get(path)
            .cloned()
            .ok_or(io::ErrorKind::NotFound.into())
    };
    let (companions, warnings) = read(&config(""), &reader).expect("it is right");
    let lines: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        at(&[
            "queues.conf: queues: read and checked, but without effect in this version: \
              the properties maxRedelivery, trace"
        ])
    );
    let queues = companions.catalogue(DestinationKind::Queue);
    assert!(
        queues
            .effective("a")
            .is_some_and(|properties| properties.secure)
    );
    assert_eq!(companions.access().secure_queues.len(), 1);
}

#[test]
fn names_that_lead_nowhere_are_found() {
    let list = [
        ("users.conf", "bob::\n"),
        ("groups.conf", "$admin:\n  admin\n  root\neng:\n  bob\n"),
        (
            "acl.conf",
            "QUEUE=a USER=eve PERM=send\nQUEUE=a GROUP=ops PERM=send\nQUEUE=a GROUP=all PERM=send\n\
             ADMIN USER=admin PERM=all\nQUEUE=a GROUP=eng PERM=browse\n",
        ),
        (
            "queues.conf",
            "a store=fast\nb store=$sys.failsafe\nc store=slow\n",
        ),
        ("stores.conf", "[slow]\ntype = file\n"),
        ("topics.conf", "px.*\n"),
        ("durables.conf", "px.ibm d1\nnews d2\n"),
        (
            "bridges.conf",
            "[topic:px.>]\nqueue=a\nqueue=z\n[topic:other]\nqueue=b\n[queue:c]\n",
        ),
        ("routes.conf", "[A]\nurl = tcp://h:1\n"),
    ];
    let (faults, warnings) = together("server = A", &list);
    assert_eq!(
        faults,
        at(&[
            "queues.conf:1: a: there is no store `fast`; write [fast] in /etc/pair/stores.conf or \
             the name of another one",
            "durables.conf:2: d2: no line of /etc/pair/topics.conf allows the topic `news`; add one",
            "bridges.conf:1: topic:px.>: no line of /etc/pair/queues.conf allows the queue `z`; add \
             one",
            "bridges.conf:4: topic:other: no line of /etc/pair/topics.conf allows the topic \
             `other`; add one",
            "routes.conf:1: A: a route is named as the server at its other end, and this is the \
             name of this server",
        ])
    );
    assert_eq!(
        warnings,
        at(&[
            "groups.conf:1: $admin: its member `root` is not among the users of \
             /etc/pair/users.conf; create the user or remove the member",
            "acl.conf:1: there is no user `eve`; create it or remove the line",
            "acl.conf:2: there is no group `ops`; create it or remove the line",
            "bridges.conf:6: queue:c: the bridge has no target; write queue=name or topic=name \
             below it",
        ])
    );
}

#[test]
fn with_authorization_a_pair_needs_its_user_and_its_password() {
    let pair = "server = A\nft_active = tcp://b:1\nauthorization = enabled\n";
    let with_password = format!("{pair}password = hidden\n");
    let admin = "admin:$argon2id$x$y:\n";
    let of = |main: &str, users: &str| {
        let (faults, warnings) = together(main, &[("users.conf", &format!("{admin}{users}"))]);
        let others = warnings
            .into_iter()
            .filter(|it| !it.contains("1 password is readable"));
        let others: Vec<String> = others
            .filter(|it| !it.contains("the user has no password, and can only"))
            .collect();
        assert_eq!(others, Vec::<String>::new());
        faults
    };
    assert_eq!(
        of(pair, "A:hidden:\n"),
        at(&[
            "a.conf: password: with authorization and ft_active each server logs in to the \
              other: write the same password = ... on both"
        ])
    );
    assert_eq!(
        of(&with_password, ""),
        at(&[
            "users.conf: users: there is no user `A`, as which the other server logs in; create \
              it with the password that the parameter `password` has on both servers"
        ])
    );
    assert_eq!(
        of(&with_password, "A:other:\n"),
        at(&[
            "users.conf: users: the user `A` has another password than the parameter `password`; \
              write the same in both places, on both servers"
        ])
    );
    assert_eq!(
        of(&with_password, "A::\n"),
        at(&[
            "users.conf: users: the user `A` has no password; give it that of the parameter \
              `password`"
        ])
    );
    assert_eq!(of(&with_password, "A:hidden:\n"), Vec::<String>::new());
    assert_eq!(
        of(&with_password, "A:$argon2id$x$y:\n"),
        Vec::<String>::new()
    );
    let users = "bob:x:\neve::\ncat:y:\n";
    let (faults, warnings) = together("authorization = enabled", &[("users.conf", users)]);
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(
        warnings,
        at(&[
            "users.conf: users: the user `admin` has no password: everybody on this host may do \
             everything; set one",
            "users.conf:2: eve: the user has no password, and can only log in with a certificate",
            "users.conf:1: bob: 2 passwords are readable in this file; write what `steadfast \
             hash-password` makes of a password instead",
        ])
    );
}

#[test]
fn startup_abort_list_says_which_faults_stop_the_start() {
    let list = [("queues.conf", "a maxbyte=1\nb\n")];
    let of = |main: &str| {
        let (faults, warnings) = together(main, &list);
        (faults.len(), warnings.len())
    };
    assert_eq!(of(""), (1, 0), "without the list every fault does");
    assert_eq!(of("startup_abort_list = CONFIG_ERRORS,SSL"), (1, 0));
    assert_eq!(of("startup_abort_list = SSL"), (0, 1));
    let missing = "users = x.conf\nqueues =\nssl_server_identity = y.pem\n";
    assert_eq!(of(missing), (2, 0));
    assert_eq!(
        of(&format!("{missing}startup_abort_list = CONFIG_FILES")),
        (1, 1)
    );
    assert_eq!(of(&format!("{missing}startup_abort_list = SSL")), (1, 1));
    for used in [
        "listen = ssl://127.0.0.1:0",
        "monitor_listen = https://127.0.0.1:0",
    ] {
        let used = format!("{missing}{used}\nstartup_abort_list = SSL\n");
        assert_eq!(of(&used), (0, 1), "who uses a certificate reads it");
    }
    let secure = format!("{missing}startup_abort_list = SSL\nauthorization = enabled");
    let (faults, _) = together(&secure, &list);
    assert_eq!(
        faults.len(),
        2,
        "what could let somebody in always does: {faults:?}"
    );
    let (_, warnings) = together("startup_abort_list = SSL", &list);
    assert_eq!(
        warnings,
        at(&[
            "queues.conf:1: a: unknown property `maxbyte`; did you mean `maxbytes`? \
              (startup_abort_list does not name CONFIG_ERRORS: it is left out)"
        ])
    );
}

#[test]
fn a_file_that_is_no_text_is_named_with_its_line() {
    let there: Files = [(PathBuf::from("/etc/pair/users.conf"), b"a::\n\xff".to_vec())].into();
    let reader = |path: &Path| {
        there
            .get(path)
            .cloned()
            .ok_or(io::ErrorKind::NotFound.into())
    };
    let faults = read(&config(""), &reader).expect_err("it is no text");
    assert_eq!(
        faults.to_string(),
        "/etc/pair/users.conf:2: users: not UTF-8 text"
    );
    let denied = |_: &Path| Err(io::ErrorKind::PermissionDenied.into());
    let faults = read(&config(""), &denied).expect_err("nothing can be read");
    assert_eq!(faults.faults.len(), Companion::ALL.len());
    assert!(
        faults
            .to_string()
            .contains("let the user of the server read it"),
        "{faults}"
    );
}

const JSON: &str = r#"{
  "model_version": "1.0",
  "users": [{"name": "admin", "password": null, "description": "Administrator"}, {"name": "bob", "password": "x"}],
  "groups": [{"name": "$admin", "description": "", "members": [{"name": "admin"}]}, {"name": "eng", "members": ["bob"]}],
  "acls": [{"queue": "orders.>", "group": "eng", "permissions": ["receive", "browse"]},
           {"topic": "px.*", "user": "bob", "permissions": "publish,subscribe"},
           {"admin": true, "user": "bob", "permissions": ["view-all"]}],
  "queues": [{"name": ">"}, {"name": "orders.>", "secure": true, "global": false, "maxbytes": "1MB", "maxRedelivery": 5}],
  "topics": [{"name": "px.>", "prefetch": 10}],
  "durables": [{"topic": "px.ibm", "name": "d1", "clientid": "c1", "nolocal": true, "selector": null}],
  "bridges": [{"source": {"type": "topic", "name": "px.>"}, "targets": [{"type": "queue", "name": "px.archive"}]}],
  "factories": [{"name": "F", "type": "generic", "url": "tcp://h1:1,tcp://h2:2", "jndinames": [], "ssl": {"verify_host": false}}],
  "stores": [{"name": "$sys.meta", "type": "file", "file": "meta.db", "mode": "async", "file_crc": true}],
  "routes": [{"name": "B", "url": "tcp://b:1", "zone_type": "mhop"}],
  "tibemsd": {"server": "A"}
}"#;

#[test]
fn the_sections_of_a_json_file_say_what_the_files_say() {
    let (faults, warnings) = together(JSON, &[]);
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(warnings, Vec::<String>::new());
    let reader = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let (json, _) = read(&config(JSON), &reader).expect("it is right");
    let text = [
        ("users.conf", "admin::\"Administrator\"\nbob:x:\n"),
        ("groups.conf", "$admin:\n admin\neng:\n bob\n"),
        (
            "acl.conf",
            "QUEUE=orders.> GROUP=eng PERM=receive,browse\nTOPIC=px.* USER=bob \
             PERM=publish,subscribe\nADMIN USER=bob PERM=view-all\n",
        ),
        (
            "queues.conf",
            ">\norders.> secure,maxbytes=1MB,maxRedelivery=5\n",
        ),
        ("topics.conf", "px.> prefetch=10\n"),
        ("durables.conf", "px.ibm d1 clientid=c1,nolocal\n"),
        ("bridges.conf", "[topic:px.>]\nqueue=px.archive\n"),
        (
            "factories.conf",
            "[F]\ntype=generic\nurl=tcp://h1:1,tcp://h2:2\nssl_verify_host=false\n",
        ),
        (
            "stores.conf",
            "[$sys.meta]\ntype=file\nfile=meta.db\nmode=async\nfile_crc=true\n",
        ),
        ("routes.conf", "[B]\nurl=tcp://b:1\nzone_type=mhop\n"),
    ];
    let there = files(&text);
    let reader = |path: &Path| {
        there
            .get(path)
            .cloned()
            .ok_or(io::ErrorKind::NotFound.into())
    };
    let (conf, _) = read(&config("server = A"), &reader).expect("it is right");
    fn same<E: Entry + std::fmt::Debug>(one: &File<E>, other: &File<E>) {
        assert!(one.items().len() == other.items().len() && !one.items().is_empty());
        for (one, other) in one.entries().zip(other.entries()) {
            assert_eq!(one, other);
        }
    }
    same(&json.users, &conf.users);
    same(&json.groups, &conf.groups);
    same(&json.acl, &conf.acl);
    same(&json.queues, &conf.queues);
    same(&json.topics, &conf.topics);
    same(&json.durables, &conf.durables);
    same(&json.bridges, &conf.bridges);
    same(&json.factories, &conf.factories);
    same(&json.stores, &conf.stores);
    same(&json.routes, &conf.routes);
}

#[test]
fn keys_of_sections_that_are_not_known_are_faults() {
    for (section, wanted) in [
        (
            r#""users": [{"name": "a", "pasword": "hidden"}]"#,
            "users: unknown key `pasword`; did you mean `password`?",
        ),
        (
            r#""users": [{}]"#,
            "users: `name` is missing; write \"name\": \"...\"",
        ),
        (
            r#""users": {}"#,
            "users: write a list of objects: \"users\": [{...}, ...]",
        ),
        (r#""users": ["a"]"#, "users: each item is an object: {...}"),
        (
            r#""queues": [{"name": "a", "secur": false}]"#,
            "queues: unknown property `secur`; did you mean `secure`?",
        ),
        (
            r#""queues": [{"name": "a", "store": {}}]"#,
            "queues: `store`: write a text, a number or true/false",
        ),
        (
            r#""groups": [{"name": "a", "members": [{"nam": "b"}]}]"#,
            "groups: `name` is missing; write \"name\": \"...\"",
        ),
        (
            r#""acls": [{"queue": "a", "topic": "b", "user": "c", "permissions": ["send"]}]"#,
            "acls: write \"queue\" or \"topic\" or \"admin\": true, then \"user\" or \"group\", \
             then \"permissions\": [\"...\"]",
        ),
        (
            r#""durables": [{"topic": "a", "name": "b", "selector": "x = 1"}]"#,
            &format!("durables: {SELECTOR}"),
        ),
        (
            r#""bridges": [{"source": {"type": "topic", "name": "a"}, "targets": [{"type": "queue", "name": ">"}]}]"#,
            "bridges: queue=>: a target is one destination; write its name without `*` and `>`",
        ),
        (
            r#""factories": [{"name": "F", "type": "generic"}]"#,
            "factories: F: `url` is missing; write url = ...",
        ),
        (
            r#""stores": [{"name": "s", "fil": "x"}]"#,
            "stores: unknown setting `fil`; did you mean `file`?",
        ),
        (
            r#""queues": [{"name": "a"}, {"name": "a"}]"#,
            "a: it is there already, at /etc/pair/a.json:2; remove one of the two",
        ),
    ] {
        let text = format!("{{\"tibemsd\": {{}},\n {section}}}");
        let (faults, _) = together(&text, &[]);
        assert_eq!(faults, at(&[&format!("a.json:2: {wanted}")]), "{section}");
    }
}

#[test]
fn a_json_file_wins_over_names_of_files() {
    let config = load(&given("{\"tibemsd\": {\"users\": \"users.conf\"}}")).expect("it is right");
    let text = config.warnings[0].to_string();
    assert!(text.contains("a JSON file has its own sections"), "{text}");
}

mod generated {
    use proptest::prelude::*;

    use super::super::*;

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
