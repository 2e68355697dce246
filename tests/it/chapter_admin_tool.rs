//! The administration tool: at a terminal, in scripts, before a pair.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};
use serde_json::json;

use super::chapter_admin::{Told, admin, command, configured, fill, run, settled, start, url_of};
use super::support::{PATIENCE, PROGRAM, Server, serve, two_ports};

/// The tool at a terminal.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    shown: String,
    home: tempfile::TempDir,
}

impl Terminal {
    fn new(arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let pair = openpty(None, None).expect("the system has terminals");
        let (keyboard, line) = (File::from(pair.master), File::from(pair.slave));
        let side = || Stdio::from(line.try_clone().expect("it can be shared"));
        let child = Command::new(PROGRAM)
            .arg("admin")
            .args(arguments)
            .env("HOME", home.path())
            .env("TERM", "dumb")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("the program starts");
        let mut reader = keyboard.try_clone().expect("it can be shared");
        let (sender, screen) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of the child is an error of the terminal.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            keyboard,
            screen,
            shown: String::new(),
            home,
        }
    }

    /// Waits until the screen shows a text, and forgets what was shown up to it.
    fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown.find(text) {
                self.shown.drain(..at + text.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("`{text}` is not shown: {}", self.shown)
                }
            }
        }
    }

    fn enter(&mut self, line: &str) {
        writeln!(self.keyboard, "{line}").expect("the terminal takes it");
    }

    /// Ctrl-C, without the end of a line.
    fn give_up(&mut self) {
        self.keyboard
            .write_all(b"\x03")
            .expect("the terminal takes it");
    }

    /// Exit code, and what was shown since the last expectation.
    fn end(mut self) -> (i32, String) {
        let status = self.child.wait().expect("the process is ours");
        // Nobody else has the terminal: its end comes after all that was written.
        for bytes in self.screen.iter() {
            self.shown.push_str(&String::from_utf8_lossy(&bytes));
        }
        (status.code().unwrap_or(-1), std::mem::take(&mut self.shown))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server with a main file.
fn single(directory: &Path, main: &str) -> (Server, String, PathBuf) {
    let config = configured(
        directory,
        "a",
        &format!("listen = tcp://127.0.0.1:0\n{main}"),
    );
    let mut server = start(&directory.join("store"), &config);
    server.wait("active");
    let url = url_of(&server);
    (server, url, config)
}

#[test]
fn of_several_servers_the_active_one_is_used_and_a_standby_is_told() {
    let mut pair = settled();
    let [active, standby] = pair.urls.clone();
    let list = format!("{standby},{active}");
    let told = admin(&list, &["show", "queues"]);
    assert!(!told.err.contains("standby"), "{}", told.err);
    told.done();
    // What changes the store goes to the active one as well.
    command(&list, "create queue orders").done();
    command(&active, "show queue orders").done();

    let list = format!("tcp://127.0.0.1:1,{standby}");
    let told = admin(&list, &["--json", "show", "state"]);
    assert!(told.err.contains("is a standby"), "{}", told.err);
    assert!(told.err.contains("amqp://127.0.0.1:1: "), "{}", told.err);
    let place = active.replace("tcp://", "amqp://");
    assert!(
        told.err.contains(&format!("the active server is {place}")),
        "{}",
        told.err
    );
    assert_eq!(told.json()["state"], "standby");
    // Alone it is what was asked for.
    let told = command(&standby, "show state");
    assert_eq!(told.err, "");
    told.done();
    pair.servers[0].kill();
    pair.servers[1].wait("active");
    command(&format!("{active},{standby}"), "show queue orders").done();
}

#[test]
fn passwords_are_asked_for_at_a_terminal_and_never_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_server, url, config) = single(directory.path(), "");
    let users = config.with_file_name("users.conf");
    let text = || fs::read_to_string(&users).unwrap_or_default();

    let mut terminal = Terminal::new(&["--server", &url, "create", "user", "ann", "of sales"]);
    terminal.expect("New password of the user ann: ");
    terminal.enter("sesame");
    terminal.expect("Once more: ");
    terminal.enter("sesame");
    let (code, shown) = terminal.end();
    assert_eq!(code, 0, "{shown}");
    assert!(!shown.contains("sesame"), "{shown}");
    assert!(text().contains("ann:$argon2") || text().contains("ann:\"$argon2"));
    assert!(text().contains("of sales"), "{}", text());

    command(&url, "set server authorization=enabled").done();
    let as_ann = ["--server", &url, "--user", "ann"];
    let mut terminal = Terminal::new(&[&as_ann[..], &["set", "password", "ann"]].concat());
    terminal.expect("Old password of the user ann: ");
    terminal.enter("sesame");
    terminal.expect("New password of the user ann: ");
    terminal.enter("open it");
    terminal.expect("Once more: ");
    terminal.enter("open it");
    terminal.expect("Password of ann: ");
    terminal.enter("sesame");
    let (code, shown) = terminal.end();
    assert_eq!(code, 0, "{shown}");
    let mut terminal = Terminal::new(&[&as_ann[..], &["whoami"]].concat());
    terminal.expect("Password of ann: ");
    terminal.enter("open it");
    let (code, shown) = terminal.end();
    assert_eq!(code, 0, "{shown}");
    assert!(
        shown.contains("ann") && !shown.contains("open it"),
        "{shown}"
    );
}

#[test]
fn passwords_that_differ_change_nothing_and_stay_out_of_the_history() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_server, url, config) = single(directory.path(), "");
    let users = config.with_file_name("users.conf");
    command(&url, "create user ann password=sesame").done();
    let before = fs::read_to_string(&users).expect("it is there");
    let mut shell = Terminal::new(&["--server", &url]);
    shell.expect("> ");
    shell.enter("set password ann");
    shell.expect("New password of the user ann: ");
    shell.enter("sesame");
    shell.expect("Once more: ");
    shell.enter("seseme");
    shell.expect("not the same; nothing was changed");
    shell.enter("set password ann");
    shell.expect("New password of the user ann: ");
    shell.enter("");
    shell.expect("Once more: ");
    shell.enter("");
    shell.expect("no password was typed; nothing was changed");
    shell.expect("> ");
    shell.enter("create user bob password=sesame");
    shell.expect("user bob created");
    shell.expect("> ");
    shell.enter("show users");
    shell.expect("2 in all");
    shell.expect("> ");
    shell.enter("exit");
    let status = shell.child.wait().expect("the process is ours");
    assert!(status.success());
    let history = fs::read_to_string(shell.home.path().join(".steadfast_history"));
    let history = history.expect("it was kept");
    assert!(history.contains("show users"), "{history}");
    assert!(!history.contains("password"), "{history}");
    let after = fs::read_to_string(&users).expect("it is there");
    assert!(after.starts_with(&before), "ann has the password she had");
}

#[test]
fn a_password_that_is_given_up_leaves_the_terminal_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_server, url, config) = single(directory.path(), "");
    let as_ann = ["--server", &url, "--user", "ann", "whoami"];
    let mut terminal = Terminal::new(&as_ann);
    let settings = |keyboard: &File| tcgetattr(keyboard).expect("it is a terminal");
    let usual = LocalFlags::ECHO | LocalFlags::ISIG | LocalFlags::ICANON;
    terminal.expect("Password of ann: ");
    let silent = settings(&terminal.keyboard);
    assert!(!silent.local_flags.contains(LocalFlags::ECHO), "{silent:?}");
    write!(terminal.keyboard, "ses").expect("the terminal takes it");
    terminal.give_up();
    let keyboard = terminal.keyboard.try_clone().expect("it can be shared");
    terminal.expect("no password was typed; nothing was done");
    let (code, shown) = terminal.end();
    assert_eq!(code, 1, "{shown}");
    let after = settings(&keyboard);
    assert!(after.local_flags.contains(usual), "{after:?}");
    assert_ne!(after.control_chars, silent.control_chars);

    // The shell goes on.
    let mut shell = Terminal::new(&["--server", &url]);
    shell.expect("> ");
    shell.enter("create user ann");
    shell.expect("New password of the user ann: ");
    shell.enter("sesame");
    shell.expect("Once more: ");
    shell.give_up();
    shell.expect("no password was typed; nothing was done");
    shell.expect("> ");
    shell.enter("show users");
    shell.expect("0 in all");
    shell.expect("> ");
    shell.enter("exit");
    assert_eq!(shell.end().0, 0);
    assert!(!config.with_file_name("users.conf").exists());
}

#[test]
fn without_a_terminal_a_missing_password_is_an_error_that_says_how_to_give_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_server, url, config) = single(directory.path(), "");
    let told = admin(&url, &["--user", "ann", "whoami"]);
    assert_eq!(told.code, 2);
    assert!(told.err.contains("--password-file FILE"), "{}", told.err);
    command(&url, "create user ann password=sesame").done();
    let users = config.with_file_name("users.conf");
    let before = fs::read_to_string(&users).expect("it is there");
    for (line, wanted) in [
        ("set password ann", "write set password USER PASSWORD"),
        ("create user bob", "write password=PASSWORD"),
        ("set server password", "write password=PASSWORD"),
    ] {
        let told = command(&url, line);
        assert_eq!(told.code, 2, "{line}: {}", told.err);
        assert!(told.err.contains(wanted), "{line}: {}", told.err);
    }
    assert_eq!(fs::read_to_string(&users).expect("it is there"), before);
    assert!(
        !fs::read_to_string(&config)
            .expect("it is there")
            .contains("password")
    );
}

#[test]
fn who_deletes_at_a_terminal_is_asked_first_and_told_what_went() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_server, url, _) = single(directory.path(), "");
    let delete = ["--server", &url, "delete", "queue", "orders"];
    run(fill(&url, "orders", 3));
    for answer in ["n", ""] {
        let mut terminal = Terminal::new(&delete);
        terminal.expect("delete queue orders: Are you sure? [y/N] ");
        terminal.enter(answer);
        let (code, shown) = terminal.end();
        assert_eq!(code, 1, "{shown}");
        assert!(shown.contains("not done"), "{shown}");
    }
    let queue = admin(&url, &["--json", "show", "queue", "orders"]).json();
    assert_eq!(queue["pending_messages"], 3, "{queue}");
    let mut terminal = Terminal::new(&["--server", &url, "purge", "queue", "orders"]);
    terminal.expect("purge queue orders: Are you sure? [y/N] ");
    terminal.enter("yes");
    let (code, shown) = terminal.end();
    assert_eq!(code, 0, "{shown}");
    assert!(
        shown.contains("1 queue purged: 3 messages dropped"),
        "{shown}"
    );
    run(fill(&url, "orders", 2));
    // Nobody is asked who says so before, or who is no person.
    let (code, shown) = Terminal::new(&[&["--yes"], &delete[..]].concat()).end();
    assert_eq!(code, 0, "{shown}");
    assert!(
        !shown.contains("Are you sure")
            && shown.contains("1 queue deleted from the store, with 2 messages"),
        "{shown}"
    );
    run(fill(&url, "orders", 1));
    let told = command(&url, "delete queue orders").done();
    assert!(told.contains("with 1 message"), "{told}");
}

#[test]
fn a_shell_that_could_not_connect_says_so_until_it_can() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = serve(directory.path(), &["--listen", "tcp://127.0.0.1:0"]);
    server.wait("active");
    let url = url_of(&server);
    let mut shell = Terminal::new(&["--server", &url]);
    shell.expect("connected to amqp://");
    shell.expect("> ");
    shell.enter("connect tcp://127.0.0.1:1");
    shell.expect("tcp://127.0.0.1:1");
    shell.expect("no connection");
    shell.expect("not connected> ");
    shell.enter("show state");
    shell.expect("not connected; write connect");
    shell.expect("not connected> ");
    shell.enter("connect");
    shell.expect("connected to amqp://");
    shell.expect("> ");
    shell.enter("disconnect");
    shell.expect("not connected> ");
    shell.enter("whoami");
    shell.expect("not connected; write connect");
    shell.enter("exit");
    assert_eq!(shell.end().0, 0);
}

#[test]
fn a_script_may_come_from_standard_input_and_each_error_names_its_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = serve(directory.path(), &["--listen", "tcp://127.0.0.1:0"]);
    server.wait("active");
    let url = url_of(&server);
    let script = |options: &[&str], text: &str| {
        let mut tool = Command::new(PROGRAM)
            .args(["admin", "--server", &url, "--script", "-"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut input = tool.stdin.take().expect("it is a pipe");
        input.write_all(text.as_bytes()).expect("it listens");
        drop(input);
        Told::of(&tool.wait_with_output().expect("it ends"))
    };
    let text =
        "create queue a\n\nmake tea\ndelete queue nowhere\nset password ann\ncreate queue b\n";
    let told = script(&["--ignore"], text);
    assert_eq!(told.code, 1, "{}", told.err);
    for wanted in [
        "standard input:3: `make` is not a command",
        "standard input:4: there is no queue `nowhere`",
        "standard input:5: set password: the password is missing",
        "standard input: 3 commands have failed",
    ] {
        assert!(told.err.contains(wanted), "`{wanted}` in {}", told.err);
    }
    let queues = admin(&url, &["--json", "show", "queues"]).json();
    assert_eq!(queues.as_array().map(Vec::len), Some(2), "{queues}");
    // Nobody is asked in a script.
    assert_eq!(script(&[], "delete queue a\ndelete queue b\n").code, 0);
    let queues = admin(&url, &["--json", "show", "queues"]).json();
    assert_eq!(queues, json!([]));
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_reason() {
    let pair = settled();
    let url = &pair.urls[0];
    command(url, "create user EMS-SERVER password=x").done();
    command(url, "create user ann password=x").done();
    let complaint = command(url, "delete user EMS-SERVER").refused();
    assert!(
        complaint.contains("the other server of the pair logs in"),
        "{complaint}"
    );
    command(url, "grant admin user=ann view-all").done();
    let shown = admin(url, &["--json", "showacl", "admin"]).json();
    assert_eq!(shown[0]["permissions"], json!(["view-all"]), "{shown}");
    let told = command(url, "delete user ann").done();
    assert!(told.contains("with 1 permission"), "{told}");
    let bridge = "create bridge source=topic:t target=queue:q";
    command(url, "create topic t").done();
    command(url, "create queue q").done();
    command(url, bridge).done();
    let complaint = command(url, bridge).refused();
    assert!(
        complaint.contains("from topic:t to queue:q is there already"),
        "{complaint}"
    );
}

#[test]
fn help_says_what_can_be_written() {
    let help = command("tcp://127.0.0.1:1", "help create queue").done();
    for wanted in [
        "maxbytes=64MB",
        "expiration=2day",
        "number with msec, sec",
        "release_unsettled",
    ] {
        assert!(help.contains(wanted), "`{wanted}` in {help}");
    }
    assert!(!help.contains("channel="), "topics only: {help}");
    let output = Command::new(PROGRAM).args(["admin", "--help"]).output();
    let help = Told::of(&output.expect("the program starts")).done();
    let (before, tls) = help.split_once("\nTLS:").expect("it has a part of its own");
    assert!(before.contains("[COMMAND]...\n"), "{help}");
    assert!(!tls.contains("[COMMAND]"), "{help}");
    let late = command("tcp://127.0.0.1:1", "delete queue q --yes");
    assert!(late.err.contains("options stand before"), "{}", late.err);
}

#[test]
fn a_change_of_a_file_that_both_servers_share_is_no_difference() {
    let directory = tempfile::tempdir().expect("a directory");
    let (a, b) = two_ports();
    let main = |name: &str, own: u16, other: u16| {
        let path = directory.path().join(name);
        let text = format!(
            "listen = tcp://127.0.0.1:{own}\nft_active = tcp://127.0.0.1:{other}\n\
             ft_heartbeat = 0.2\nft_activation = 0.6\n"
        );
        fs::write(&path, text).expect("the directory is ours");
        path
    };
    let store = directory.path().join("store");
    let mut first = start(&store, &main("a.conf", a, b));
    first.wait("active");
    let mut second = start(&store, &main("b.conf", b, a));
    second.wait("standby");
    let is_alike = |state: &serde_json::Value| state["peer"]["differences"] == json!([]);
    first.wait_state("alike", is_alike);
    second.wait_state("alike", is_alike);
    command(&url_of(&first), "create user ann password=sesame").done();
    second.wait("config_reread");
    command(&url_of(&second), "show user ann").done();
    for server in [&mut first, &mut second] {
        server.wait_state("alike", is_alike);
        assert_eq!(server.count("config_difference"), 0, "{}", server.said());
    }
}
