//! `users.conf` and `groups.conf`.

use super::*;
use crate::model::StoredPassword;

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
fn each_fault_of_users_and_groups_names_its_line_and_what_to_write() {
    check_faults(&[
        (
            Companion::Users,
            "bob secret",
            "1: `bob`: write name:password:\"description\"",
        ),
        (Companion::Users, ":x:", "1: the name of a user is missing"),
        (
            Companion::Users,
            "a:\"x:y",
            "1: a: the closing quote of the password is missing",
        ),
        (
            Companion::Users,
            "a:\"x\"y:",
            "1: a: write `:` behind the password",
        ),
        (
            Companion::Users,
            "a:x:\"y",
            "1: a: the description has a quote too many or too few",
        ),
        (
            Companion::Users,
            "a:x:\n#\na:y:",
            "3: a: it is there already, at f.conf:1; remove one of the two",
        ),
        (
            Companion::Groups,
            "  bob",
            "1: an indented line is a member of the group above it, and there is none; write \
             name:\"description\" at the start of a line",
        ),
        (
            Companion::Groups,
            "all:\n  bob",
            "1: every user belongs to the group `all` without being named; remove it",
        ),
        (
            Companion::Groups,
            "eng:\n  ops:\"Operators\"",
            "2: eng: a quote inside of `ops:\"Operators\"`; remove it",
        ),
        (
            Companion::Groups,
            "eng:\n  bob\n  bob",
            "3: eng: `bob` is a member twice; remove one line",
        ),
    ]);
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
