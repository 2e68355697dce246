//! What the files say together, and which faults stop the start.

use super::*;

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
