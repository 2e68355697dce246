use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::config::Secret;
use crate::config::companions::{Companion, Companions, Entry, File, Report};
use crate::model::{Action, StoredPassword};

fn parse(line: &str) -> Request {
    parse_line(line).unwrap_or_else(|failure| panic!("{line}: {}", failure.text))
}

/// A line for each command, with all that it takes.
fn example(command: &Command) -> String {
    let mut line = command.words.to_owned();
    for name in command.needed.iter().chain(command.optional) {
        line.push_str(&format!(" {name}"));
    }
    match command.rest {
        Rest::Nothing => {}
        Rest::Names => line.push_str(" one two"),
        Rest::Settings => line.push_str(" user=ann a=b"),
    }
    line
}

#[test]
fn every_command_is_parsed_to_itself_with_all_that_it_takes() {
    for command in COMMANDS {
        let request = parse(&example(command));
        assert_eq!(request.command.words, command.words);
        let names = command.needed.len() + command.optional.len();
        let more = if command.rest == Rest::Names { 2 } else { 0 };
        assert_eq!(
            request.arguments.names.len(),
            names + more,
            "{}",
            command.words
        );
        let settings = if command.rest == Rest::Settings { 2 } else { 0 };
        assert_eq!(
            request.arguments.settings.len(),
            settings,
            "{}",
            command.words
        );
        let upper =
            parse(&example(command).replacen(command.words, &command.words.to_uppercase(), 1));
        assert_eq!(upper.command.words, command.words);
    }
}

#[test]
fn what_is_needed_and_missing_is_told_with_how_it_is_written() {
    for command in COMMANDS.iter().filter(|command| !command.needed.is_empty()) {
        let failure = parse_line(command.words).expect_err(command.words);
        assert_eq!(failure.status, 400);
        assert!(failure.text.contains(&command.usage()), "{}", failure.text);
    }
    let failure = parse_line("create").expect_err("it is not complete");
    assert!(failure.text.contains("create queue, "), "{}", failure.text);
    let failure = parse_line("shutdown now").expect_err("one too many");
    assert!(
        failure.text.contains("`now` is one too many"),
        "{}",
        failure.text
    );
    for line in ["", "  ", "make tea", "\"open"] {
        assert!(parse_line(line).is_err(), "{line:?}");
    }
}

#[test]
fn no_fault_shows_a_password() {
    for line in [
        "password=sesame",
        "create user password=sesame",
        "show state password=sesame",
        "user password=sesame",
    ] {
        if let Err(failure) = parse_line(line) {
            assert!(!failure.text.contains("sesame"), "{}", failure.text);
        }
    }
}

#[test]
fn quotes_keep_words_together() {
    let request = parse("create user bob \"The = man\" password=\"a b,c\"");
    assert_eq!(request.arguments.names, ["bob", "The = man"]);
    assert_eq!(request.arguments.setting("PASSWORD"), Some("a b,c"));
    let request = parse("create user bob password=x");
    assert_eq!(request.arguments.names, ["bob"]);
    let request = parse("create queue q secure,maxbytes=1MB exclusive");
    let names: Vec<&str> = request.arguments.bare().collect();
    assert_eq!(names, ["secure", "exclusive"]);
    assert_eq!(split("a \"b c\" d\"\"").expect("words"), ["a", "b c", "d"]);
}

#[test]
fn every_command_of_a_server_can_be_asked_for_by_a_map() {
    for command in COMMANDS.iter().filter(|command| !command.is_local()) {
        let mut attributes = Vec::new();
        for name in command.needed.iter().chain(command.optional).skip(1) {
            attributes.push(((*name).to_owned(), vec![Some("x".to_owned())]));
        }
        let request = parse_map(
            command.verb.operation(),
            command.object.word(),
            if command.needed.is_empty() && command.optional.is_empty() {
                ""
            } else {
                "name"
            },
            attributes,
        );
        let request =
            request.unwrap_or_else(|failure| panic!("{}: {}", command.words, failure.text));
        assert_eq!(
            (request.command.verb, request.command.object),
            (command.verb, command.object)
        );
    }
    let flag = vec![("secure".to_owned(), vec![None])];
    let request = parse_map("CREATE", "queue", "q", flag).expect("a request");
    assert_eq!(request.arguments.settings, [("secure".to_owned(), None)]);
    let user = vec![("user".to_owned(), vec![Some("ann".to_owned())])];
    let request = parse_map("READ", "durable", "d", user).expect("a request");
    assert_eq!(request.arguments.names, ["d", "", "ann"]);
    let request = parse_map("READ", "durable", "d", Vec::new()).expect("a request");
    assert_eq!(request.arguments.names, ["d"]);
    let old = vec![("old".to_owned(), vec![Some("secret".to_owned())])];
    let failure = parse_map("UPDATE", "password", "ann", old).expect_err("no");
    assert!(
        failure.text.contains("`password` is missing"),
        "{}",
        failure.text
    );
    assert_eq!(
        parse_map("FLY", "queue", "q", Vec::new())
            .expect_err("no")
            .status,
        501
    );
    assert_eq!(
        parse_map("CREATE", "queue", "", Vec::new())
            .expect_err("no")
            .status,
        400
    );
}

#[test]
fn the_table_is_sound() {
    let words: BTreeSet<&str> = COMMANDS.iter().map(|command| command.words).collect();
    assert_eq!(words.len(), COMMANDS.len(), "each command once");
    for command in COMMANDS {
        assert!(command.help.ends_with('.'), "{}", command.words);
        assert_eq!(
            command.verb == Verb::List,
            !command.columns.is_empty(),
            "{}: tables have columns",
            command.words
        );
        if let Need::Destination(action) = command.need {
            assert!(Action::is_administrative(action) && !command.needed.is_empty());
        }
        // What anybody may do changes nothing but one's own password.
        if command.need == Need::Nothing && command.is_change() {
            assert_eq!(command.words, "set password");
        }
    }
    let always: Vec<&str> = COMMANDS
        .iter()
        .filter(|command| command.standby == OnStandby::Always && !command.is_local())
        .map(|command| command.words)
        .collect();
    assert_eq!(
        always,
        ["show state", "shutdown", "rotatelog", "show connections"]
    );
}

fn hash(password: &str) -> StoredPassword {
    StoredPassword::parse(&format!("$argon2-{}", password.len()))
}

fn file<E: Entry>(which: Companion, text: &str) -> File<E> {
    let mut report = Report::default();
    let file = File::parse(which, Path::new(which.parameter()), text, &mut report);
    assert_eq!(report.faults, []);
    file
}

/// Each file with a comment and an entry.
fn files() -> Companions {
    Companions {
        users: file(Companion::Users, "# people\nann:$argon2-1:\"Ann\"\nbob::\n"),
        groups: file(Companion::Groups, "# groups\neng:\"Engineers\"\n  ann\n"),
        acl: file(
            Companion::Acl,
            "# rights\nQUEUE=a USER=ann PERM=send # hers\nADMIN USER=ann PERM=shutdown\n",
        ),
        queues: file(
            Companion::Queues,
            "# queues\na secure,maxbytes=1MB # first\nb.>\n",
        ),
        topics: file(Companion::Topics, "# topics\nt\n"),
        durables: file(Companion::Durables, "# durables\nt d clientid=c\n"),
        bridges: file(Companion::Bridges, "# bridges\n[topic:t]\n  queue=a\n"),
        factories: file(
            Companion::Factories,
            "# factories\n[F]\n  type = generic # kind\n  url = tcp://a:1\n",
        ),
        ..Companions::of_sections(Path::new("pair.json"))
    }
}

fn text_of(files: &Companions, which: Companion) -> String {
    match which {
        Companion::Users => files.users.to_string(),
        Companion::Groups => files.groups.to_string(),
        Companion::Acl => files.acl.to_string(),
        Companion::Queues => files.queues.to_string(),
        Companion::Topics => files.topics.to_string(),
        Companion::Durables => files.durables.to_string(),
        Companion::Bridges => files.bridges.to_string(),
        Companion::Factories => files.factories.to_string(),
        Companion::Stores | Companion::Routes => String::new(),
    }
}

#[test]
fn all_of_a_kind_are_deleted_but_what_nobody_can_do_without() {
    let all = |files: &mut Companions, what: &str| {
        let request = parse(&format!("delete all {what}"));
        delete_all(&request, files, &["bob"]).unwrap_or_else(|it| panic!("{}", it.text))
    };
    let mut files = files();
    files.queues = file(Companion::Queues, "# mine\na\n$sys.undelivered\nb.>\n");
    files.groups = file(Companion::Groups, "$admin:\"\"\n  ann\n  bob\neng:\"\"\n");
    files.acl = file(
        Companion::Acl,
        "QUEUE=a GROUP=eng PERM=send\nADMIN USER=ann PERM=shutdown\n",
    );
    let edited = all(&mut files, "queues");
    assert_eq!(edited.files, [Companion::Queues]);
    assert!(edited.text.contains("$sys.undelivered stays"), "{edited:?}");
    assert_eq!(files.queues.to_string(), "# mine\n$sys.undelivered\n");
    all(&mut files, "topics");
    all(&mut files, "durables");
    assert_eq!(files.topics.items().len() + files.durables.items().len(), 0);

    let edited = all(&mut files, "users");
    let touched = [Companion::Users, Companion::Groups, Companion::Acl];
    assert_eq!(edited.files, touched);
    let left: Vec<_> = files.users.entries().map(|it| it.name.clone()).collect();
    assert_eq!(left, ["bob"]);
    all(&mut files, "groups");
    assert_eq!(files.acl.items().len(), 0);
    let left: Vec<_> = files.groups.entries().cloned().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(
        left.iter()
            .all(|it| it.name == "$admin" && it.members.len() == 1)
    );

    let again = all(&mut files, "groups");
    assert_eq!(again.files, [], "nothing to delete is no failure");
}

fn edit(files: &mut Companions, line: &str) -> Result<Edited, Failure> {
    change(&parse(line), files, &hash)
}

#[test]
fn each_change_rewrites_its_lines_and_keeps_the_others() {
    for (line, which, text) in [
        (
            "create queue c exclusive",
            Companion::Queues,
            "# queues\na secure,maxbytes=1MB # first\nb.>\nc exclusive\n",
        ),
        (
            "addprop queue a maxmsgs=5,maxbytes=2MB",
            Companion::Queues,
            "# queues\na secure,maxbytes=2MB,maxmsgs=5 # first\nb.>\n",
        ),
        (
            "setprop queue a exclusive",
            Companion::Queues,
            "# queues\na exclusive # first\nb.>\n",
        ),
        (
            "removeprop queue a maxbytes",
            Companion::Queues,
            "# queues\na secure # first\nb.>\n",
        ),
        (
            "delete queue b.>",
            Companion::Queues,
            "# queues\na secure,maxbytes=1MB # first\n",
        ),
        ("create topic u", Companion::Topics, "# topics\nt\nu\n"),
        (
            "create user eve \"E\" password=secret",
            Companion::Users,
            "# people\nann:$argon2-1:\"Ann\"\nbob::\neve:$argon2-6:\"E\"\n",
        ),
        (
            "set password bob 12",
            Companion::Users,
            "# people\nann:$argon2-1:\"Ann\"\nbob:$argon2-2:\n",
        ),
        (
            "set user ann \"Anna\"",
            Companion::Users,
            "# people\nann:$argon2-1:\"Anna\"\nbob::\n",
        ),
        (
            "create group ops",
            Companion::Groups,
            "# groups\neng:\"Engineers\"\n  ann\nops:\"\"\n",
        ),
        (
            "add member eng bob",
            Companion::Groups,
            "# groups\neng:\"Engineers\"\n  ann\n  bob\n",
        ),
        (
            "remove member eng ann",
            Companion::Groups,
            "# groups\neng:\"Engineers\"\n",
        ),
        (
            "grant queue a user=ann receive,browse",
            Companion::Acl,
            "# rights\nQUEUE=a USER=ann PERM=receive,send,browse # hers\nADMIN USER=ann PERM=shutdown\n",
        ),
        (
            "revoke queue a user=ann *",
            Companion::Acl,
            "# rights\nADMIN USER=ann PERM=shutdown\n",
        ),
        (
            "grant admin group=eng view-server",
            Companion::Acl,
            "# rights\nQUEUE=a USER=ann PERM=send # hers\nADMIN USER=ann PERM=shutdown\nADMIN GROUP=eng PERM=view-server\n",
        ),
        (
            "revoke admin user=ann shutdown",
            Companion::Acl,
            "# rights\nQUEUE=a USER=ann PERM=send # hers\n",
        ),
        (
            "create durable t e nolocal",
            Companion::Durables,
            "# durables\nt d clientid=c\nt e nolocal\n",
        ),
        ("delete durable d c", Companion::Durables, "# durables\n"),
        (
            "create bridge source=topic:t target=queue:b",
            Companion::Bridges,
            "# bridges\n[topic:t]\n  queue=a\n  queue=b\n",
        ),
        (
            "delete bridge source=topic:t target=queue:a",
            Companion::Bridges,
            "# bridges\n",
        ),
        (
            "addprop factory F url=tcp://b:2",
            Companion::Factories,
            "# factories\n[F]\n  type = generic # kind\n  url = tcp://b:2\n",
        ),
        ("delete factory F", Companion::Factories, "# factories\n"),
    ] {
        let mut files = files();
        let edited =
            edit(&mut files, line).unwrap_or_else(|failure| panic!("{line}: {}", failure.text));
        assert_eq!(edited.files, [which], "{line}");
        assert_eq!(text_of(&files, which), text, "{line}");
    }
}

#[test]
fn who_is_deleted_is_nowhere_any_more() {
    let mut files = files();
    let edited = edit(&mut files, "delete user ann").expect("it is done");
    assert_eq!(
        edited.files,
        [Companion::Users, Companion::Groups, Companion::Acl]
    );
    assert_eq!(files.users.to_string(), "# people\nbob::\n");
    assert_eq!(files.groups.to_string(), "# groups\neng:\"Engineers\"\n");
    assert_eq!(files.acl.to_string(), "# rights\n");
}

#[test]
fn what_cannot_be_done_is_refused_with_a_status() {
    for (line, status) in [
        ("create queue a", 409),
        ("create queue .", 400),
        ("create queue c maxbytes=much", 400),
        ("delete queue nowhere", 404),
        ("addprop queue nowhere secure", 404),
        ("removeprop queue a colour", 400),
        ("create user ann", 409),
        ("create user x:y", 400),
        ("set password nobody x", 404),
        ("delete user admin", 409),
        ("create group all", 400),
        ("add member eng nobody", 404),
        ("add member eng ann", 409),
        ("grant queue a user=nobody send", 404),
        ("grant queue a user=ann fly", 400),
        ("grant queue a user=ann", 400),
        ("revoke queue b user=ann send", 404),
        ("create bridge source=t target=queue:a", 400),
        ("create factory F generic url=tcp://a:1", 409),
    ] {
        let before = files();
        let mut changed = before.clone();
        let failure = edit(&mut changed, line).expect_err(line);
        assert_eq!(failure.status, status, "{line}: {}", failure.text);
        assert_eq!(changed, before, "{line}");
    }
}

#[test]
fn a_queue_of_a_bridge_stays_and_an_answer_counts_what_still_names_the_deleted() {
    let mut files = files();
    for line in ["delete queue a", "delete queue >"] {
        let failure = edit(&mut files, line).expect_err(line);
        assert_eq!(failure.status, 409, "{line}");
        let remedy = "first: delete bridge source=topic:t target=queue:a";
        assert!(failure.text.ends_with(remedy), "{}", failure.text);
    }
    let told = |files: &mut Companions, line: &str| {
        let edited = edit(files, line);
        edited.map_or_else(|failure| failure.text, |edited| edited.text)
    };
    let answer = told(&mut files.clone(), "delete topic t");
    assert_eq!(
        answer,
        "topic t deleted; still named by 1 durable, 1 bridge"
    );
    let all = delete_all(&parse("delete all queues"), &mut files.clone(), &[]);
    let text = all.map_or_else(|failure| failure.text, |edited| edited.text);
    assert_eq!(
        text,
        "2 queues deleted from the file; bridges make again: a; still named by 1 permission"
    );
    told(&mut files, "delete bridge source=topic:t target=queue:a");
    told(&mut files, "create bridge source=queue:a target=topic:t");
    let failure = edit(&mut files, "delete queue a").expect_err("it is a source");
    let remedy = "first: delete bridge source=queue:a";
    assert!(failure.text.ends_with(remedy), "{}", failure.text);
    told(&mut files, "delete bridge source=queue:a");
    let answer = told(&mut files, "delete queue a");
    assert_eq!(answer, "queue a deleted; still named by 1 permission");
}

#[test]
fn a_password_is_never_shown() {
    let mut files = files();
    let secret = StoredPassword::Plain(Secret::new("sesame".to_owned()));
    let user = crate::config::companions::compose::user("zoe", secret, "").expect("a user");
    files.users.set(&user).expect("it can be written");
    for line in [
        "show users",
        "show user zoe",
        "showacl",
        "show groups",
        "show group eng",
        "show factories",
    ] {
        let request = parse(line);
        let answer = list_files(&request, &files).or_else(|| show_files(&request, &files));
        let answer = answer.expect("it is about files").expect("there is one");
        assert!(!format!("{answer:?}").contains("sesame"), "{line}");
    }
}
