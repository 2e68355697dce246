//! Changes of files: what is written, what is refused, what stays.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::admin::Item;

fn setup(directory: &Path, main: &str) -> Setup {
    let path = directory.join("a.conf");
    fs::write(&path, main).expect("a file");
    Setup::new(Given {
        file: Some(MainFile {
            path,
            text: main.to_owned(),
        }),
        ..Given::default()
    })
}

fn change(setup: &Setup, line: &str) -> Result<Changed> {
    setup.change(&admin::parse_line(line).expect("a command"), Some("ann"))
}

#[test]
fn a_change_is_written_beside_what_somebody_changed_by_hand() {
    let directory = tempfile::tempdir().expect("a directory");
    let setup = setup(directory.path(), "queues = q.conf\n");
    let path = directory.path().join("q.conf");
    fs::write(&path, "# mine\na\n").expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("it is ours");
    change(&setup, "create queue b secure").expect("it is written");
    fs::write(&path, "# by hand\nc\nb secure\n").expect("a file");
    let changed = change(&setup, "addprop queue b exclusive").expect("it is written");
    let text = fs::read_to_string(&path).expect("it is there");
    assert_eq!(text, "# by hand\nc\nb secure,exclusive\n");
    assert_eq!(changed.companions.queues.items().len(), 2);
    let mode = fs::metadata(&path)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    let names = fs::read_dir(directory.path()).expect("it is there").count();
    assert_eq!(names, 2, "nothing is left behind");
}

#[test]
fn who_deletes_the_last_destination_hears_that_clients_may_create_all() {
    let directory = tempfile::tempdir().expect("a directory");
    let queues = directory.path().join("q.conf");
    for (more, is_told) in [("", true), ("auto_create_queues = no\n", false)] {
        let setup = setup(directory.path(), &format!("queues = q.conf\n{more}"));
        let told = |line: &str| {
            let changed = change(&setup, line);
            let text = changed.map_or_else(|failure| failure.text, |changed| changed.text);
            text.contains("clients may now create every queue")
        };
        for last in ["delete queue b", "delete all queues"] {
            fs::write(&queues, "a\nb\n").expect("a file");
            assert!(!told("delete queue a"));
            assert_eq!(told(last), is_told, "{more}{last}");
        }
        assert!(!told("delete all queues"), "nothing has changed");
    }
}

#[test]
fn a_file_that_nobody_named_is_made_and_one_with_faults_is_not_touched() {
    let directory = tempfile::tempdir().expect("a directory");
    let setup = setup(directory.path(), "server = A\n");
    change(&setup, "create user ann password=sesame").expect("it is written");
    let path = directory.path().join("users.conf");
    let text = fs::read_to_string(&path).expect("it was made");
    assert!(
        text.starts_with("ann:$argon2") || text.starts_with("ann:\"$argon2"),
        "{text}"
    );
    assert!(!text.contains("sesame"));
    let mode = fs::metadata(&path)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    fs::write(&path, "what is this\n").expect("a file");
    let failure = change(&setup, "create user bob")
        .err()
        .expect("it has a fault");
    assert!(failure.text.contains("users.conf:1"), "{}", failure.text);
    assert_eq!(
        fs::read_to_string(&path).expect("it is there"),
        "what is this\n"
    );
}

#[test]
fn what_the_server_works_with_is_told_where_the_file_says_something_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let main = "server = A\nmax_connections = 5\npassword = sesame\nft_heartbeat = 2\n";
    let setup = setup(directory.path(), main);
    let started = load_anyway(&setup.given).0;
    let mut in_effect = InEffect {
        taken: started.clone(),
        started,
    };
    let told = |in_effect: &InEffect| {
        let answer = setup.show_config(in_effect).expect("it can be read");
        let admin::Body::Table(table) = answer.body else {
            panic!("a table");
        };
        let rows = table.rows.into_iter();
        let rows = rows.filter(|row| row[3] != Item::Nothing);
        rows.map(|row| format!("{:?} {:?}", row[0], row[3]))
            .collect::<Vec<_>>()
            .join(", ")
    };
    assert_eq!(told(&in_effect), "");
    // By hand: one value is another, one is gone, and the server has not read it yet.
    let main = "server = A\nmax_connections = 9\npassword = other\n";
    fs::write(directory.path().join("a.conf"), main).expect("it is ours");
    let restart = "Text(\"max_connections\") Text(\"5\")";
    let secret = "Text(\"password\") Text(\"(another secret)\")";
    let gone = "Text(\"ft_heartbeat\") Text(\"2 s\")";
    assert_eq!(told(&in_effect), format!("{restart}, {secret}, {gone}"));
    // The password is taken when it is read; the others wait for a restart.
    in_effect.taken = load_anyway(&setup.fresh_given().expect("it is there")).0;
    assert_eq!(told(&in_effect), format!("{restart}, {gone}"));
}

#[test]
fn whoever_asks_and_the_user_of_the_pair_stay_when_all_users_go() {
    let directory = tempfile::tempdir().expect("a directory");
    let setup = setup(directory.path(), "server = A\n");
    for name in ["A", "ann", "bob", "admin"] {
        change(&setup, &format!("create user {name}")).expect("it is written");
    }
    let changed = change(&setup, "delete all users").expect("it is written");
    assert_eq!(
        changed.text,
        "1 user deleted from the file; A, ann, admin stay"
    );
    let text = fs::read_to_string(directory.path().join("users.conf")).expect("it is there");
    assert!(!text.contains("bob") && text.contains("ann"), "{text}");
}

#[test]
fn of_several_files_none_is_changed_when_one_cannot_be() {
    let directory = tempfile::tempdir().expect("a directory");
    let setup = setup(directory.path(), "server = A\n");
    change(&setup, "create user ann").expect("it is written");
    change(&setup, "create group eng").expect("it is written");
    change(&setup, "add member eng ann").expect("it is written");
    change(&setup, "grant admin user=ann all").expect("it is written");
    let users = directory.path().join("users.conf");
    let before = fs::read_to_string(&users).expect("it is there");
    // A directory in the way stands for a disk that is full.
    let way = replace::temporary_of(&directory.path().join("acl.conf"));
    fs::create_dir_all(way.join("x")).expect("it is ours");
    let failure = change(&setup, "delete user ann").err().expect("no room");
    assert!(failure.text.contains("nothing was changed"), "{failure:?}");
    assert_eq!(fs::read_to_string(&users).expect("it is there"), before);
    fs::remove_dir_all(&way).expect("it is ours");
    change(&setup, "delete user ann").expect("it is written");
    let names = fs::read_dir(directory.path()).expect("it is there").count();
    assert_eq!(names, 4, "nothing is left behind");
}

#[test]
fn a_file_that_changed_meanwhile_and_a_link_to_nowhere_are_not_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("q.conf");
    let rewrite = |before: &str| {
        replace(&[Rewrite {
            path: path.clone(),
            before: before.to_owned(),
            text: "mine\n".to_owned(),
        }])
        .err()
        .map(|failure| failure.status)
    };
    fs::write(&path, "theirs\n").expect("it is ours");
    for before in ["old\n", ""] {
        assert_eq!(rewrite(before), Some(409));
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "theirs\n");
    }
    assert_eq!(rewrite("theirs\n"), None);
    fs::remove_file(&path).expect("it is ours");
    std::os::unix::fs::symlink("elsewhere", &path).expect("it is ours");
    assert_eq!(rewrite(""), Some(500));
    let link = fs::symlink_metadata(&path).expect("it is there");
    assert!(link.file_type().is_symlink());
}

#[test]
fn a_double_member_does_not_move_into_the_group_above() {
    let directory = tempfile::tempdir().expect("a directory");
    let setup = setup(directory.path(), "server = A\n");
    let path = directory.path().join("groups.conf");
    let admins = "$admin:\"\"\n  root\n";
    fs::write(&path, format!("{admins}ops:\"\"\n  ann\n  ann\n")).expect("it is ours");
    change(&setup, "delete group ops").expect("it is written");
    assert_eq!(fs::read_to_string(&path).expect("it is there"), admins);
}

#[test]
fn what_would_not_fit_together_is_not_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let setup = setup(directory.path(), "server = A\n");
    change(&setup, "create queue a").expect("it is written");
    change(&setup, "create queue b").expect("it is written");
    change(&setup, "create topic t").expect("it is written");
    change(&setup, "create bridge source=topic:t target=queue:a").expect("it is written");
    let failure = change(&setup, "delete queue a")
        .err()
        .expect("it is a target");
    assert_eq!(failure.status, 409, "{}", failure.text);
    let text = fs::read_to_string(directory.path().join("queues.conf")).expect("it is there");
    assert_eq!(text, "a\nb\n");
}

#[test]
fn parameters_are_written_and_a_password_does_not_meet_the_eye() {
    let directory = tempfile::tempdir().expect("a directory");
    let setup = setup(directory.path(), "server = A # name\n");
    let set = |name: &str, value: &str| {
        setup.set_parameters(&[(name.to_owned(), Some(value.to_owned()))], 7)
    };
    let changed = set("password", "sesame").expect("it is written");
    assert!(changed.text.contains("password set"), "{}", changed.text);
    let path = directory.path().join("a.conf");
    let text = fs::read_to_string(&path).expect("it is there");
    assert!(
        text.starts_with("server = A # name\npassword = $hidden$"),
        "{text}"
    );
    assert!(!text.contains("sesame"));
    let given = setup.fresh_given().expect("it can be read");
    let (config, _) = load_anyway(&given);
    let password = config.password.expect("it is set");
    assert_eq!(password.expose(), "sesame");

    let later = set("max_connections", "5").expect("it is written");
    assert!(
        later.text.contains("max_connections will count"),
        "{}",
        later.text
    );
    assert_eq!(set("colour", "red").err().map(|it| it.status), Some(400));
    assert_eq!(
        set("ft_heartbeat", "soon").err().map(|it| it.status),
        Some(409)
    );
    let text = fs::read_to_string(&path).expect("it is there");
    assert!(!text.contains("ft_heartbeat"), "{text}");
    let nowhere = Setup::new(Given::default());
    let failure = nowhere
        .set_parameters(&[("password".to_owned(), None)], 1)
        .err();
    assert_eq!(failure.map(|it| it.status), Some(NO_FILE));
}
