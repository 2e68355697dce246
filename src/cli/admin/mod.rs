//! `steadfast admin`: one command, a script, or a shell.

mod ask;
mod render;
mod script;
mod servers;
mod session;
mod shell;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use super::args::AdminArgs;
use super::say;
use super::tool::ToolError;
use crate::admin::{Answer, COMMANDS, Request, find, parse_line, parse_words, reference};
use crate::role::Exit;

use servers::Servers;
use session::{Session, Words};

/// How long an answer may take when nobody says it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Does what the options say.
pub(super) fn run(arguments: &AdminArgs) -> Exit {
    if arguments.reference {
        say(reference().trim_end());
        return Exit::Done;
    }
    begin(arguments).unwrap_or_else(|error| {
        complain(&error.to_string());
        match error {
            ToolError::Usage(_) => Exit::Usage,
            _ => Exit::Failed,
        }
    })
}

fn begin(arguments: &AdminArgs) -> Result<Exit, ToolError> {
    let mut tool = Tool::new(arguments)?;
    if !arguments.command.is_empty() {
        let words = arguments.command.clone();
        refuse_options(&words).map_err(ToolError::Usage)?;
        let request = parse_words(words.clone());
        let request = request.map_err(|failure| ToolError::Usage(failure.text))?;
        return Ok(match tool.perform(&request, Words::List(words))? {
            Next::Failed => Exit::Failed,
            Next::Go | Next::Exit => Exit::Done,
        });
    }
    if let Some(path) = &arguments.script {
        return script::run_file(&mut tool, path, arguments.ignore);
    }
    if !io::stdin().is_terminal() {
        return Ok(script::run_input(&mut tool, arguments.ignore));
    }
    tool.connect_quietly();
    shell::run(&mut tool)
}

/// Whether a word of the command line looks like an option of the tool. All words from the first of the command on
/// are the command's: an option among them would be taken for a name, and what it says would be passed over.
///
/// # Errors
/// There is one, and where it belongs. What may be a password is no option, whatever it begins with.
fn refuse_options(words: &[String]) -> Result<(), String> {
    let is_option = |word: &String| word.starts_with("--") || word == "-y";
    // A word may hold a password behind its `=`.
    let shown = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
    if let Some(first) = words.first().filter(|word| word.starts_with('-')) {
        return Err(format!(
            "`{}` is not an option of steadfast admin; --help lists them",
            shown(first)
        ));
    }
    let Some((command, own)) = find(words.iter().map(String::as_str)) else {
        // Without its options it may be one.
        return Ok(());
    };
    let mut names = command.needed.iter().chain(command.optional);
    let checked = names.position(|name| *name == "password");
    let mut arguments = words.iter().skip(own).take(checked.unwrap_or(usize::MAX));
    match arguments.find(|word| is_option(word)) {
        Some(option) => Err(format!(
            "`{option}` stands behind the command: options stand before it, as in steadfast admin \
             {option} {command}; a name that begins so can be written in the shell or in a script",
            option = shown(option),
            command = command.words,
        )),
        None => Ok(()),
    }
}

/// Says what went wrong; much of it is in the words of a server, or of its clients.
fn complain(text: &str) {
    super::complain(&render::visible_lines(text));
}

/// What comes after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Go,
    Failed,
    Exit,
}

/// The tool between two commands.
struct Tool<'a> {
    arguments: &'a AdminArgs,
    servers: Servers,
    session: Option<Session>,
    /// Nobody wants a connection: it was ended, or could not be made.
    is_parted: bool,
    timeout: Duration,
    is_echoing: bool,
    is_timing: bool,
    /// The line of the script that is carried out.
    place: Option<String>,
}

impl<'a> Tool<'a> {
    fn new(arguments: &'a AdminArgs) -> Result<Self, ToolError> {
        Ok(Self {
            arguments,
            servers: Servers::of_options(arguments)?,
            session: None,
            is_parted: false,
            timeout: TIMEOUT,
            is_echoing: false,
            is_timing: false,
            place: None,
        })
    }

    /// Whether there is somebody to ask.
    fn is_attended(&self) -> bool {
        self.place.is_none() && ask::is_possible()
    }

    /// Says what went wrong, in a script also where.
    fn complain(&self, text: &str) {
        match &self.place {
            Some(place) => complain(&format!("{place}: {text}")),
            None => complain(text),
        }
    }

    fn connect(&mut self) -> Result<(), ToolError> {
        self.session = None;
        match self.servers.connect(self.arguments, self.timeout) {
            Ok(session) => {
                self.session = Some(session);
                self.is_parted = false;
                Ok(())
            }
            Err(error) => {
                self.servers.forget_password();
                Err(error)
            }
        }
    }

    /// A shell is of use without a server, too.
    fn connect_quietly(&mut self) {
        match self.connect() {
            Ok(()) => self.say_connected(),
            Err(error) => {
                self.is_parted = true;
                complain(&error.to_string());
            }
        }
    }

    fn say_connected(&self) {
        if let Some(session) = &self.session {
            let place = session.place();
            let what = match place.is_standby {
                true => format!(", a standby{}", place.where_active()),
                false => String::new(),
            };
            let text = format!("connected to {}{what}", session.url());
            say(&render::visible_lines(&text));
        }
    }

    /// The prompt of the shell.
    fn prompt(&self) -> String {
        match self.session.as_ref().filter(|session| !session.is_over()) {
            Some(session) => format!("{}> ", session.url()),
            None => "not connected> ".to_owned(),
        }
    }

    /// Carries out a line; says what went wrong.
    fn line(&mut self, line: &str) -> Next {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Next::Go;
        }
        let result = match parse_line(line) {
            Ok(request) => self.perform(&request, Words::Line(line.to_owned())),
            Err(failure) => Err(ToolError::Usage(failure.text)),
        };
        result.unwrap_or_else(|error| {
            self.complain(&error.to_string());
            Next::Failed
        })
    }

    fn perform(&mut self, request: &Request, words: Words) -> Result<Next, ToolError> {
        if request.command.is_local() {
            return self.perform_here(request);
        }
        if self.is_parted {
            let text = "not connected; write connect for the server that the tool was started \
                        with, or connect URL [USER]";
            return Err(ToolError::Other(text.to_owned()));
        }
        let is_attended = self.is_attended();
        if request.command.is_destructive() && is_attended && !self.arguments.yes {
            let what = shown(request);
            if !ask::is_sure(&what, request.command.help)? {
                self.complain(&format!("{what}: not done"));
                return Ok(Next::Failed);
            }
        }
        let words = ask::complete(request, words, is_attended, self.servers.user())?;
        if self.session.as_ref().is_none_or(Session::is_over) {
            self.connect()?;
        }
        let started = Instant::now();
        let mut answer = self.ask(words.clone());
        if self.session.is_none() && !request.command.is_change() && answer.is_err() {
            // The server ended the connection meanwhile; what changes nothing may be asked twice.
            self.connect()?;
            answer = self.ask(words);
        }
        let next = self.show(request, &answer?)?;
        if self.is_timing {
            say(&format!("{} ms", started.elapsed().as_millis()));
        }
        Ok(next)
    }

    /// Asks on the connection there is; without it when it has ended.
    fn ask(&mut self, words: Words) -> Result<Answer, ToolError> {
        let none = || ToolError::Other("there is no connection".to_owned());
        let session = self.session.as_ref().ok_or_else(none)?;
        let answer = session.ask(words, self.timeout);
        if session.is_over() {
            self.session = None;
        }
        answer
    }

    fn show(&self, request: &Request, answer: &Answer) -> Result<Next, ToolError> {
        if self.arguments.json {
            super::tool::say_json(&render::json(answer))?;
        } else if answer.is_success() {
            say(&render::text(request.command, answer));
        }
        if answer.is_success() {
            return Ok(Next::Go);
        }
        if !self.arguments.json || self.place.is_some() {
            self.complain(&render::visible(&answer.text));
        }
        Ok(Next::Failed)
    }

    /// What needs no server.
    fn perform_here(&mut self, request: &Request) -> Result<Next, ToolError> {
        let arguments = &request.arguments;
        match request.command.words {
            "exit" | "quit" => return Ok(Next::Exit),
            "help" => say(&render::help(&arguments.names)),
            "disconnect" => {
                self.session = None;
                self.is_parted = true;
            }
            "connect" => {
                self.session = None;
                self.is_parted = true;
                self.servers = match arguments.names.first() {
                    Some(url) => {
                        let (user, password) = (arguments.names.get(1), arguments.names.get(2));
                        Servers::read(url, user.cloned(), password.cloned())?
                    }
                    None => Servers::of_options(self.arguments)?,
                };
                self.connect()?;
                self.say_connected();
            }
            "timeout" => {
                if let Some(text) = arguments.names.first() {
                    let seconds = text.parse().ok().filter(|seconds| *seconds > 0);
                    let fault = || ToolError::Usage(format!("`{text}` is not a number of seconds"));
                    self.timeout = Duration::from_secs(seconds.ok_or_else(fault)?);
                }
                say(&format!("timeout is {} s", self.timeout.as_secs()));
            }
            "echo" => self.is_echoing = read_switch(arguments.name(0), self.is_echoing)?,
            "time" => self.is_timing = read_switch(arguments.name(0), self.is_timing)?,
            other => return Err(ToolError::Usage(format!("`{other}` is not known"))),
        }
        Ok(Next::Go)
    }
}

/// `on`, `off`, or the other way round.
fn read_switch(word: &str, is_on: bool) -> Result<bool, ToolError> {
    match word.to_ascii_lowercase().as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        "" => Ok(!is_on),
        _ => Err(ToolError::Usage(format!("`{word}`: write on or off"))),
    }
}

/// A command for the question whether it is meant: its words and names, no settings.
fn shown(request: &Request) -> String {
    let names = request.arguments.names.iter().map(String::as_str);
    let words = std::iter::once(request.command.words).chain(names);
    words.collect::<Vec<_>>().join(" ")
}

/// First words of all commands, for completion.
fn words_after(before: &[&str]) -> Vec<&'static str> {
    let mut found: Vec<&'static str> = COMMANDS
        .iter()
        .filter_map(|command| {
            let mut own = command.words.split(' ');
            let fits = before
                .iter()
                .all(|word| own.next().is_some_and(|own| own.eq_ignore_ascii_case(word)));
            fits.then(|| own.next()).flatten()
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::{refuse_options, words_after};

    #[test]
    fn an_option_behind_the_command_is_no_name() {
        let refused = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            refuse_options(&words).err()
        };
        for (line, text) in [
            (
                "show queues --json",
                "as in steadfast admin --json show queues;",
            ),
            ("show queues --server tcp://a:1", "`--server` stands behind"),
            (
                "show queue --server=tcp://a:1 q",
                "`--server` stands behind",
            ),
            ("delete queue q -y", "`-y` stands behind"),
            (
                "create user eve --password=sesame",
                "`--password` stands behind",
            ),
            ("set password --yes eve new", "`--yes` stands behind"),
            ("--bogus show queues", "`--bogus` is not an option"),
            ("-x=sesame", "`-x` is not an option"),
        ] {
            let refusal = refused(line).unwrap_or_default();
            assert!(refusal.contains(text), "{line}: {refusal}");
            assert!(!refusal.contains("sesame"), "{line}: {refusal}");
        }
        for line in [
            "show queues -x",
            "show queues a--b",
            "set password eve --new --old",
            "make tea",
        ] {
            assert_eq!(refused(line), None, "{line}");
        }
    }

    #[test]
    fn words_are_completed_from_the_table() {
        assert!(words_after(&[]).contains(&"show"));
        assert_eq!(words_after(&["ADDPROP"]), ["factory", "queue", "topic"]);
        assert_eq!(words_after(&["show", "queues"]), Vec::<&str>::new());
        assert_eq!(words_after(&["tea"]), Vec::<&str>::new());
    }
}
