//! The reference page of commands, made from the table.

use super::command::{Command, Need, OnStandby};
use super::table::COMMANDS;
use crate::config::companions::property_help;
use crate::model::{Action, DestinationKind};

/// The text of `docs/ADMIN.md`.
#[must_use]
pub fn reference() -> String {
    let mut text = HEAD.to_owned();
    for command in COMMANDS.iter().filter(|command| !command.is_local()) {
        text.push_str(&format!(
            "| `{}` | {} | {} | {} | `{} {}` |\n",
            cell(&command.usage()),
            cell(command.help),
            right(command),
            standby(command),
            command.verb.operation(),
            command.object.word(),
        ));
    }
    text.push_str(PROPERTIES);
    for kind in [DestinationKind::Queue, DestinationKind::Topic] {
        for (example, help, is_applied) in property_help(kind) {
            let is_told = kind == DestinationKind::Topic && takes(DestinationKind::Queue, example);
            if is_told {
                continue;
            }
            let of = match (kind, takes(DestinationKind::Topic, example)) {
                (DestinationKind::Queue, true) => "both",
                (DestinationKind::Queue, false) => "queues",
                (DestinationKind::Topic, _) => "topics",
            };
            let applied = if is_applied {
                "yes"
            } else {
                "not in this version"
            };
            text.push_str(&format!("| `{example}` | {of} | {help} | {applied} |\n"));
        }
    }
    text.push_str(LOCAL);
    for command in COMMANDS.iter().filter(|command| command.is_local()) {
        text.push_str(&format!(
            "| `{}` | {} |\n",
            cell(&command.usage()),
            cell(command.help)
        ));
    }
    text
}

fn takes(kind: DestinationKind, example: &str) -> bool {
    property_help(kind).iter().any(|(own, ..)| *own == example)
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn right(command: &Command) -> String {
    match command.need {
        Need::Nothing => "every user".to_owned(),
        Need::Right(right) => right.word().to_owned(),
        Need::Destination(action) => {
            let all = action.right().map_or("", |right| right.word());
            format!("{all}, or {} for it", Action::word(action))
        }
    }
}

const fn standby(command: &Command) -> &'static str {
    match command.standby {
        OnStandby::No => "no",
        OnStandby::WithFiles => "yes",
        OnStandby::Always => "yes, also with JSON",
    }
}

const HEAD: &str = "\
# Administration

This page is made by `steadfast admin --reference`.

```
steadfast admin [--server URL] [--user NAME] [--password-file FILE] [--json] [--script FILE [--ignore]] [--yes] [COMMAND...]
```

With a command it is carried out and the tool ends; with `--script` each line of a file (`-`: of standard input) is, up
to the first that fails (`--ignore`: all); otherwise the tool asks for commands, with history and completion. In a
script or the shell `#` begins a comment line, and double quotes keep blanks together. `--json` prints one JSON document
for each command. Options stand before the command. Exit codes: 0 done, 1 a command failed (also with `--ignore`) or the
server cannot be reached, 2 wrong usage. What goes wrong in a script is told with its file and line.

`--server` takes both servers of a pair with a comma between them, and finds the active one; a standby is used only
if no active server answers, and that is said. On a terminal the tool asks for the password of `--user`, for new passwords that
a command leaves out, and whether commands that delete, purge or stop something are meant (`--yes`: not). Without a
terminal it asks nothing: a password that is missing is an error. Lines that may hold passwords do not get into the history.
With TLS: `--server ssl://host:7243 --ssl-trusted ca.pem`, and with a certificate as the login `--ssl-identity ann.pem`
(with its key, or `--ssl-key`) and no `--user`; [CONFIGURATION.md](CONFIGURATION.md) tells how to make certificates.

The tool speaks AMQP: any client can do the same. A request is a message to `$management` with the application
properties `operation`, `type` and `name` of the last column, and a map of the other arguments as its body; or with
the operation `COMMAND` and the text of a command (or a list of its words) as its body. `GET-TYPES`, `GET-OPERATIONS`,
`GET-ATTRIBUTES` and `GET-MGMT-NODES` answer what AMQP management says. The reply goes where `reply-to` says: the
target address of a link whose source is `$management`, or a dynamic address; it carries `statusCode`,
`statusDescription`, and as its body a map (`READ`) or `attributeNames` and `results` (`QUERY`). A server that stands by
sends clients away; an administrator's client asks it for the capability `steadfast:management` when it opens.

## Who may, and where

Without `authorization` only connections from the same host may administer. With it each command needs the right
that its row names (`grant admin`), or the user `admin`, or a member of `$admin`. What concerns `admin` itself or the
group `$admin` takes all rights.

A change is written to the configuration file that it is about: comments and everything else in the file stay, and the
file is replaced in one step. The file is read again before, so that what somebody changed by hand is kept, and a
file that cannot be understood is not touched. A file that no parameter names is made beside the main file under its
usual name. With the JSON form the change goes into the main file: the order of keys, the way in which they are written
and what the command is not about stay. Without a main file (`serve`
without `--config`) they are refused, too, but a queue without properties can be created and deleted all the same; what
is deleted then may be made again by a client. A parameter that was given with `--set` wins over the file, so changing it is refused. Passwords of users are kept as keys; `set server password=...`
is kept in a form that does not meet the eye (`$hidden$`), which is no protection against somebody who may read the
file.

Each command that changes something is logged as `administration`: the user, the command, what it is about, its other
names and settings (`arguments`; passwords and what may be one as `***`), the status and, when it failed or the user has
not the right, the reason. Of denied commands at most 20 a second are logged; the next line counts the others
(`not_logged`).

A server that stands by carries out what concerns its files; it reads them again when it becomes active. Two servers
that share files need a change once. A standby that was started with a JSON file allows only `show state`, `show
connections`, `shutdown` and `rotatelog`: change the active server, and where each server has a copy of the file, copy it. The connection to a standby ends when it becomes active.

## Commands

| command | | right | on a standby | AMQP |
|---|---|---|---|---|
";

const PROPERTIES: &str = "
## Properties of queues and topics

For `create`, `addprop`, `setprop` and `removeprop`, and in `queues.conf` and `topics.conf`; several with commas
between them. `help create queue` shows them, too.

| property | of | | applied |
|---|---|---|---|
";

const LOCAL: &str = "
## What the tool does by itself

| command | |
|---|---|
";
