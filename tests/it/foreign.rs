//! Client programs that nobody here wrote a library for: `tests/interop` on python-qpid-proton, rhea and
//! Qpid JMS.
//!
//! Their libraries are installed once, from PyPI, npm and Maven Central, into cargo's directory for tests.
//! A machine that cannot do that fails the tests with the reason: nothing is skipped.

use std::fs;
use std::io::{BufRead, BufReader, BufWriter, Write, stderr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::history::{Event, Kind};

/// Where cargo lets tests keep files.
const CACHE: &str = env!("CARGO_TARGET_TMPDIR");

/// A foreign AMQP 1.0 client library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    /// python-qpid-proton.
    Proton,
    /// rhea, for node.js.
    Rhea,
    /// Apache Qpid JMS, for Java.
    Jms,
}

/// The sources of the programs on Qpid JMS.
const JMS_SOURCES: [&str; 4] = [
    "jms/pom.xml",
    "jms/Options.java",
    "jms/Client.java",
    "jms/Features.java",
];

impl Library {
    /// A command that runs the client program of this library, with the library installed.
    pub(crate) fn command(self) -> Command {
        static PROTON: OnceLock<PathBuf> = OnceLock::new();
        static RHEA: OnceLock<PathBuf> = OnceLock::new();
        match self {
            Self::Proton => {
                let home = PROTON.get_or_init(|| install("proton", &["requirements.txt"], proton));
                let mut command = Command::new(home.join("bin/python"));
                command.arg("-u").arg(source("proton_client.py"));
                command
            }
            Self::Rhea => {
                let files = ["package.json", "package-lock.json"];
                let home = RHEA.get_or_init(|| install("rhea", &files, rhea));
                let mut command = Command::new("node");
                command.env("NODE_PATH", home.join("node_modules"));
                command.arg(source("rhea_client.js"));
                command
            }
            Self::Jms => jakarta("Client"),
        }
    }
}

/// A command that runs a program of `tests/interop/jms`.
pub(crate) fn jakarta(program: &str) -> Command {
    static JMS: OnceLock<PathBuf> = OnceLock::new();
    let home = JMS.get_or_init(|| install("jms", &JMS_SOURCES, jms));
    let classes = [home.join("classes"), home.join("lib/*")];
    let classes = std::env::join_paths(classes).expect("the test directory has no colon");
    let mut command = Command::new("java");
    // Small and soon there: several of them run beside the servers.
    command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    command.arg("-cp").arg(classes).arg(program);
    command
}

/// A command that runs another script with python-qpid-proton.
pub(crate) fn python(script: &str) -> Command {
    // Installs the library, unless it is there.
    let known = Library::Proton.command();
    let mut command = Command::new(known.get_program());
    command.arg("-u").arg(source(script));
    command
}

fn source(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/interop").join(name)
}

/// Whether Proton was built with Cyrus SASL, which brings it SCRAM. Says so if not.
pub(crate) fn has_scram() -> bool {
    let output = Library::Proton.command().arg("--has-scram").output();
    let output = output.expect("the client program starts");
    let has_scram = output.stdout.starts_with(b"yes");
    if !has_scram {
        // Past the test harness, which keeps the output of tests that pass to itself.
        let _ = writeln!(
            stderr(),
            "Proton has no SCRAM here: it was built without Cyrus SASL; install its headers and modules \
             (Debian: libsasl2-dev, libsasl2-modules). It uses PLAIN instead"
        );
    }
    has_scram
}

/// Whether Proton would be built with Cyrus SASL.
fn has_cyrus() -> bool {
    let looked = Command::new("pkg-config")
        .args(["--exists", "libsasl2"])
        .status();
    looked.is_ok_and(|status| status.success())
}

/// Installs a library unless that was done for the same versions before.
fn install(name: &str, versions: &[&str], run: fn(&Path)) -> PathBuf {
    let home = Path::new(CACHE).join(name);
    let stamp = home.join("installed");
    let mut wanted: String = versions.iter().map(|file| read(&source(file))).collect();
    if name == "proton" && has_cyrus() {
        wanted.push_str("with Cyrus SASL\n");
    }
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return home;
    }
    // Remains of an installation that was interrupted, or of other versions.
    let _ = fs::remove_dir_all(&home);
    fs::create_dir_all(&home).expect("the test directory is writable");
    run(&home);
    fs::write(stamp, wanted).expect("the test directory is writable");
    home
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn proton(home: &Path) {
    let python = |program: &Path| Command::new(program);
    let why = "needs python3 with venv (Debian: python3-venv)";
    must(
        python(Path::new("python3")).args(["-m", "venv"]).arg(home),
        why,
    );
    let why = "needs PyPI, a C compiler and the headers of Python (Debian: gcc, python3-dev)";
    let pip = [
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        // What was built before the headers of Cyrus SASL were there has no SCRAM.
        "--no-cache-dir",
        "-q",
        "-r",
    ];
    must(
        python(&home.join("bin/python"))
            .args(pip)
            .arg(source("requirements.txt")),
        why,
    );
}

fn rhea(home: &Path) {
    for file in ["package.json", "package-lock.json"] {
        fs::copy(source(file), home.join(file)).expect("the test directory is writable");
    }
    let why = "needs node and npm (Debian: nodejs, npm) and the npm registry";
    must(
        Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(home),
        why,
    );
}

fn jms(home: &Path) {
    let why = "needs a JDK (17 or later) and Maven (Debian: default-jdk-headless, maven) and Maven Central";
    let quietly = ["-B", "-q", "dependency:copy-dependencies"];
    let mut maven = Command::new("mvn");
    maven.args(quietly).arg("-f").arg(source("jms/pom.xml"));
    maven.arg(format!("-DoutputDirectory={}", home.join("lib").display()));
    must(&mut maven, why);
    let mut compiler = Command::new("javac");
    compiler.arg("-Xlint:all").arg("-Werror");
    compiler.arg("-d").arg(home.join("classes"));
    compiler.arg("-cp").arg(home.join("lib/*"));
    compiler.args(JMS_SOURCES[1..].iter().map(|file| source(file)));
    must(&mut compiler, why);
}

fn must(command: &mut Command, why: &str) {
    let text = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{text}: {error}; this test {why}"));
    assert!(
        output.status.success(),
        "{text}: {}; this test {why}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A running client program and what it told so far.
pub(crate) struct Clients {
    child: Child,
    commands: Option<ChildStdin>,
    told: Arc<Told>,
    reader: Option<JoinHandle<()>>,
    /// Where its standard error went.
    complaints: PathBuf,
    name: String,
}

#[derive(Default)]
struct Told {
    events: Mutex<Vec<Event>>,
    changed: Condvar,
}

impl Told {
    fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().expect("no reader panics")
    }
}

/// Starts a client program; its history is kept in the file, too, and what it complains of beside it.
pub(crate) fn start(library: Library, name: &str, arguments: &[&str], history: &Path) -> Clients {
    let complaints = history.with_extension("err");
    let errors = fs::File::create(&complaints).expect("the history's directory is writable");
    let mut child = library
        .command()
        .args(arguments)
        .args(["--name", name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .unwrap_or_else(|error| panic!("{library:?}: {error}"));
    let output = child.stdout.take().expect("standard output is a pipe");
    let file = fs::File::create(history).expect("the history's directory is writable");
    let told = Arc::new(Told::default());
    let reader = {
        let told = Arc::clone(&told);
        thread::spawn(move || {
            let mut file = BufWriter::new(file);
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let event = serde_json::from_str::<Event>(&line)
                    .unwrap_or_else(|error| panic!("a client wrote {line:?}: {error}"));
                // Kept for people; the check does not read it.
                let _ = writeln!(file, "{line}");
                told.events().push(event);
                told.changed.notify_all();
            }
        })
    };
    Clients {
        commands: child.stdin.take(),
        child,
        told,
        reader: Some(reader),
        complaints,
        name: name.to_owned(),
    }
}

impl Clients {
    /// How many events of a kind came.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        count(&self.told.events(), kind)
    }

    /// Waits until so many events of a kind came.
    pub(crate) fn wait(&self, kind: Kind, wanted: usize, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut events = self.told.events();
        // Counts what is new only: histories grow long.
        let (mut seen, mut found) = (0, 0);
        loop {
            found += count(&events[seen..], kind);
            seen = events.len();
            if found >= wanted {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{}: {found} of {wanted} {kind:?} within {patience:?}; the last events: {:#?}",
                self.name,
                &events[events.len().saturating_sub(8)..]
            );
            let waited = self.told.changed.wait_timeout(events, left);
            events = waited.expect("no reader panics").0;
        }
    }

    /// Asks the clients to come to an end.
    pub(crate) fn ask_to_finish(&mut self) {
        // Closing standard input says it as well.
        self.commands = None;
    }

    /// Waits until the program ended well; returns its history.
    pub(crate) fn finish(mut self, patience: Duration) -> Vec<Event> {
        self.ask_to_finish();
        let deadline = Instant::now() + patience;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the process is ours") {
                break status;
            }
            if Instant::now() >= deadline {
                let events = self.told.events();
                let last = events[events.len().saturating_sub(8)..].to_vec();
                panic!(
                    "{} does not finish within {patience:?}; the last events: {last:#?}",
                    self.name
                );
            }
            thread::park_timeout(Duration::from_millis(5));
        };
        let reader = self.reader.take().expect("it is joined once");
        reader.join().expect("the history is well-formed");
        let complaints = read(&self.complaints);
        assert!(status.success(), "{}: {status}\n{complaints}", self.name);
        std::mem::take(&mut *self.told.events())
    }
}

fn count(events: &[Event], kind: Kind) -> usize {
    events.iter().filter(|event| event.kind == kind).count()
}

impl Drop for Clients {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
