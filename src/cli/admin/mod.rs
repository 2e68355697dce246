//! `steadfast admin`: one command, a script, or a shell.

mod render;
mod session;
mod shell;

use std::fs;
use std::io::{self, BufRead, IsTerminal};
use std::time::{Duration, Instant};

use super::args::AdminArgs;
use super::tool::ToolError;
use super::{complain, say};
use crate::admin::{Answer, COMMANDS, Request, parse_line, parse_words, reference};
use crate::net::client::{ClientOptions, Credentials, ServerUrl};
use crate::role::Exit;

use session::{Session, Words};

/// Where to connect when nobody says it.
const SERVER: &str = "tcp://127.0.0.1:5672";
/// How long an answer may take when nobody says it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Does what the options say.
pub(super) fn run(arguments: &AdminArgs) -> Exit {
    if arguments.reference {
        say(reference().trim_end());
        return Exit::Done;
    }
    match begin(arguments) {
        Ok(exit) => exit,
        Err(error) => {
            complain(&error.to_string());
            match error {
                ToolError::Usage(_) => Exit::Usage,
                _ => Exit::Failed,
            }
        }
    }
}

fn begin(arguments: &AdminArgs) -> Result<Exit, ToolError> {
    let mut tool = Tool::new(arguments)?;
    if !arguments.command.is_empty() {
        let words = arguments.command.clone();
        let request = parse_words(words.clone());
        let request = request.map_err(|failure| ToolError::Usage(failure.text))?;
        let end = tool.perform(&request, Words::List(words));
        return Ok(match end {
            Ok(Next::Failed) => Exit::Failed,
            Ok(_) => Exit::Done,
            Err(error) => {
                complain(&error.to_string());
                Exit::Failed
            }
        });
    }
    if let Some(path) = &arguments.script {
        let text = fs::read_to_string(path).map_err(ToolError::file("reading the script", path))?;
        let name = path.display().to_string();
        let lines = text.lines().map(|line| Ok(line.to_owned()));
        return Ok(tool.script(&name, lines, arguments.ignore));
    }
    if !io::stdin().is_terminal() {
        let lines = io::stdin().lock().lines();
        return Ok(tool.script("standard input", lines, arguments.ignore));
    }
    tool.connect_quietly();
    shell::run(&mut tool)
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
    servers: Vec<ServerUrl>,
    session: Option<Session>,
    timeout: Duration,
    is_echoing: bool,
    is_timing: bool,
}

impl<'a> Tool<'a> {
    fn new(arguments: &'a AdminArgs) -> Result<Self, ToolError> {
        let list = arguments.server.as_deref().unwrap_or(SERVER);
        let mut tool = Self {
            arguments,
            servers: Vec::new(),
            session: None,
            timeout: TIMEOUT,
            is_echoing: false,
            is_timing: false,
        };
        let password = match &arguments.password_file {
            Some(path) => {
                let text = fs::read_to_string(path)
                    .map_err(ToolError::file("reading the password from", path))?;
                text.lines().next().unwrap_or("").to_owned()
            }
            None => String::new(),
        };
        if arguments.password_file.is_some() && arguments.user.is_none() {
            let text = "--password-file needs --user";
            return Err(ToolError::Usage(text.to_owned()));
        }
        let user = arguments.user.as_deref();
        tool.servers = read_servers(list, user.map(|user| (user, password.as_str())))?;
        Ok(tool)
    }

    /// Connects to the first server of the list that answers.
    fn connect(&mut self) -> Result<(), ToolError> {
        self.session = None;
        let mut last = None;
        for url in &self.servers {
            let options = ClientOptions {
                answer_timeout: self.timeout,
                tls: self.arguments.tls.client(url)?,
                desired_capabilities: vec![crate::node::MANAGEMENT_CAPABILITY.to_owned()],
                ..ClientOptions::named("steadfast-admin")
            };
            match Session::open(url.clone(), options) {
                Ok(session) => {
                    self.session = Some(session);
                    return Ok(());
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| ToolError::Usage("no server was named".to_owned())))
    }

    /// A shell is of use without a server, too.
    fn connect_quietly(&mut self) {
        match self.connect() {
            Ok(()) => self.say_connected(),
            Err(error) => complain(&error.to_string()),
        }
    }

    fn say_connected(&self) {
        if let Some(session) = &self.session {
            say(&format!("connected to {}", session.url()));
        }
    }

    /// The prompt of the shell.
    fn prompt(&self) -> String {
        match &self.session {
            Some(session) => format!("{}> ", session.url()),
            None => "> ".to_owned(),
        }
    }

    /// Carries out the lines of a script, up to the first that fails.
    fn script(
        &mut self,
        name: &str,
        lines: impl Iterator<Item = io::Result<String>>,
        is_going_on: bool,
    ) -> Exit {
        let mut exit = Exit::Done;
        for (index, line) in lines.enumerate() {
            let line = match line {
                Ok(line) => line,
                Err(error) => {
                    complain(&format!("{name}: {error}"));
                    return Exit::Failed;
                }
            };
            if self.is_echoing {
                say(&line);
            }
            match self.line(&line) {
                Next::Go => {}
                Next::Exit => break,
                Next::Failed => {
                    exit = Exit::Failed;
                    if !is_going_on {
                        complain(&format!("{name}:{}: stopped here", index + 1));
                        break;
                    }
                }
            }
        }
        // What went wrong was told; whoever ignores it wants no other sign.
        if is_going_on { Exit::Done } else { exit }
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
            complain(&error.to_string());
            Next::Failed
        })
    }

    fn perform(&mut self, request: &Request, words: Words) -> Result<Next, ToolError> {
        if request.command.is_local() {
            return self.perform_here(request);
        }
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
        if !self.arguments.json {
            complain(&answer.text);
        }
        Ok(Next::Failed)
    }

    /// What needs no server.
    fn perform_here(&mut self, request: &Request) -> Result<Next, ToolError> {
        let arguments = &request.arguments;
        match request.command.words {
            "exit" | "quit" => return Ok(Next::Exit),
            "help" => say(&render::help(&arguments.names)),
            "disconnect" => self.session = None,
            "connect" => {
                if let Some(url) = arguments.names.first() {
                    let user = arguments.names.get(1).map(String::as_str);
                    let user = user.map(|user| (user, arguments.name(2)));
                    self.servers = read_servers(url, user)?;
                }
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

/// A list of URLs with commas between them, and who connects.
fn read_servers(list: &str, user: Option<(&str, &str)>) -> Result<Vec<ServerUrl>, ToolError> {
    let mut servers = Vec::new();
    for text in list.split(',') {
        let mut url = ServerUrl::parse(text.trim())?;
        if let Some((user, password)) = user {
            url.credentials = Some(Credentials {
                user: user.to_owned(),
                password: password.to_owned(),
            });
        }
        servers.push(url);
    }
    Ok(servers)
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
    use super::words_after;

    #[test]
    fn words_are_completed_from_the_table() {
        assert!(words_after(&[]).contains(&"show"));
        assert_eq!(words_after(&["ADDPROP"]), ["factory", "queue", "topic"]);
        assert_eq!(words_after(&["show", "queues"]), Vec::<&str>::new());
        assert_eq!(words_after(&["tea"]), Vec::<&str>::new());
    }
}
