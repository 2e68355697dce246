//! The table of commands. Parsing, help, completion, permissions and the reference come from it.

use super::command::{Command, Need, Object, OnStandby, Rest, Verb};
use crate::model::{Action, AdminRight};

use AdminRight as R;
use Need::{Destination, Nothing, Right};
use OnStandby::{Always, No, WithFiles};

const PROPERTIES: &str = "[PROPERTY[=VALUE],...]";
const PRINCIPAL: &str = "user=NAME|group=NAME PERMISSION,...";

/// A command that takes nothing more.
const fn row(
    words: &'static str,
    (verb, object): (Verb, Object),
    need: Need,
    standby: OnStandby,
    help: &'static str,
) -> Command {
    Command {
        words,
        needed: &[],
        optional: &[],
        rest: Rest::Nothing,
        rest_help: "",
        verb,
        object,
        need,
        standby,
        help,
        columns: &[],
    }
}

const fn needs(needed: &'static [&'static str], command: Command) -> Command {
    Command { needed, ..command }
}

const fn may(optional: &'static [&'static str], command: Command) -> Command {
    Command {
        optional,
        ..command
    }
}

const fn settings(rest_help: &'static str, command: Command) -> Command {
    Command {
        rest: Rest::Settings,
        rest_help,
        ..command
    }
}

const fn names(rest_help: &'static str, command: Command) -> Command {
    Command {
        rest: Rest::Names,
        rest_help,
        ..command
    }
}

const fn columns(columns: &'static [(&'static str, &'static str)], command: Command) -> Command {
    Command { columns, ..command }
}

const fn local(words: &'static str, help: &'static str) -> Command {
    row(words, (Verb::Local, Object::Server), Nothing, Always, help)
}

const fn list(object: Object) -> (Verb, Object) {
    (Verb::List, object)
}

const fn show(object: Object) -> (Verb, Object) {
    (Verb::Show, object)
}

const fn create(object: Object) -> (Verb, Object) {
    (Verb::Create, object)
}

const fn delete(object: Object) -> (Verb, Object) {
    (Verb::Delete, object)
}

const fn delete_all(object: Object) -> (Verb, Object) {
    (Verb::DeleteAll, object)
}

const ACL_COLUMNS: &[(&str, &str)] = &[
    ("Destination", "destination"),
    ("Principal", "principal"),
    ("Permissions", "permissions"),
];

const MESSAGE_COLUMNS: &[(&str, &str)] = &[
    ("ID", "id"),
    ("Message-ID", "message_id"),
    ("State", "state"),
    ("ClientID", "client_id"),
    ("Pri", "priority"),
    ("Durable", "is_durable"),
    ("Delivered", "delivery_count"),
    ("Size", "bytes"),
    ("Age", "age_ms"),
];

/// Every command. A row is a line.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    // What the tool does by itself.
    may(&["url", "user", "password"], local("connect", "Connects to a server, or to the active one of several with commas between them; without a URL to that of --server. A password that is left out is asked for.")),
    local("disconnect", "Ends the connection; connect makes one again."),
    local("exit", "Ends the tool; so do quit and the end of input."),
    local("quit", "As exit."),
    may(&["on|off"], local("echo", "Whether the commands of a script are shown.")),
    may(&["on|off"], local("time", "Whether it is shown how long each command took.")),
    may(&["seconds"], local("timeout", "How long an answer may take.")),
    names("[COMMAND]", local("help", "What can be typed.")),
    row("whoami", (Verb::WhoAmI, Object::User), Nothing, WithFiles, "The user of this connection."),
    // The server.
    row("info", show(Object::Server), Right(R::ViewServer), WithFiles, "As show server."),
    row("show server", show(Object::Server), Right(R::ViewServer), WithFiles, "Figures of the server."),
    row("show state", show(Object::State), Right(R::ViewServer), Always, "Name, role and peers of the server."),
    columns(&[("Parameter", "parameter"), ("Value", "value"), ("From", "origin"), ("In Effect", "in_effect")], row("show config", list(Object::Config), Right(R::ViewServer), WithFiles, "Parameters that were given, and where; In Effect: the value with which the server works where that is another one. Passwords are not shown.")),
    row("show db", show(Object::Database), Right(R::ViewServer), No, "Figures of the store's files."),
    columns(&[("Total", "total"), ("Count", "count")], row("show stat", list(Object::Statistics), Right(R::ViewServer), No, "Messages since the server became active.")),
    settings("PARAMETER=VALUE ...", row("set server", (Verb::Set, Object::Server), Right(R::ChangeServer), WithFiles, "Changes parameters in the main file; says which take effect at once.")),
    row("shutdown", (Verb::Shutdown, Object::Server), Right(R::Shutdown), Always, "Stops the server in order. A standby takes over."),
    row("switchover", (Verb::Switchover, Object::Server), Right(R::Shutdown), No, "Hands over to the standby: this server stops in order, the standby takes over, and this one comes back as a standby."),
    row("rotatelog", (Verb::RotateLog, Object::Server), Right(R::ChangeServer), Always, "Begins a new log file; the old one is kept beside it."),
    may(&["store", "seconds"], row("compact", (Verb::Compact, Object::Store), Right(R::ChangeServer), No, "The store compacts itself; says what there is to gain.")),
    // Stores.
    columns(&[("Store Name", "name"), ("Type", "type"), ("Dests", "destinations"), ("Messages", "messages"), ("Size", "bytes")], row("show stores", list(Object::Store), Right(R::ViewServer), No, "All stores, with what waits in the queues and subscriptions that belong to each; on the disk all are one log.")),
    needs(&["name"], row("show store", show(Object::Store), Right(R::ViewServer), No, "Figures of a store.")),
    // Destinations.
    columns(&[("Queue Name", "name"), ("SNFGXIBCT", "flags"), ("Pre", "prefetch"), ("Rcvrs", "receivers"), ("Msgs", "messages"), ("Size", "bytes"), ("Held", "held")], may(&["pattern"], row("show queues", list(Object::Queue), Right(R::ViewDestination), No, "Queues; the pattern may have wildcards. A * before a name: not in queues.conf. Held: messages among them that are kept for clients that had them before a takeover."))),
    needs(&["name"], row("show queue", show(Object::Queue), Destination(Action::View), No, "One queue: its properties and figures.")),
    columns(&[("Topic Name", "name"), ("SNFGEIBCTM", "flags"), ("Subs", "subscriptions"), ("Durs", "durables"), ("Msgs", "messages"), ("Size", "bytes")], may(&["pattern"], row("show topics", list(Object::Topic), Right(R::ViewDestination), No, "Topics; the pattern may have wildcards. A * before a name: not in topics.conf."))),
    needs(&["name"], row("show topic", show(Object::Topic), Destination(Action::View), No, "One topic: its properties and figures.")),
    needs(&["name"], settings(PROPERTIES, row("create queue", create(Object::Queue), Destination(Action::Create), WithFiles, "Adds a queue to queues.conf."))),
    needs(&["name"], settings(PROPERTIES, row("create topic", create(Object::Topic), Destination(Action::Create), WithFiles, "Adds a topic to topics.conf."))),
    needs(&["pattern"], row("delete queue", delete(Object::Queue), Destination(Action::Delete), WithFiles, "Removes queues from queues.conf and the server, with their messages.")),
    needs(&["pattern"], row("delete topic", delete(Object::Topic), Destination(Action::Delete), WithFiles, "Removes topics from topics.conf.")),
    row("delete all queues", delete_all(Object::Queue), Right(R::DeleteDestination), WithFiles, "Removes all queues from queues.conf and the server, with their messages; those whose names begin with $ stay."),
    row("delete all topics", delete_all(Object::Topic), Right(R::DeleteDestination), WithFiles, "Removes all topics from topics.conf; those whose names begin with $ stay."),
    needs(&["pattern"], row("purge queue", (Verb::Purge, Object::Queue), Destination(Action::Purge), No, "Drops the messages of queues, except those that receivers have, and those that are kept for the clients that had them before a takeover.")),
    needs(&["pattern"], row("purge topic", (Verb::Purge, Object::Topic), Destination(Action::Purge), No, "Drops what waits for the subscriptions of topics, except what receivers have, and what is kept for the clients that had it before a takeover.")),
    needs(&["name"], may(&["clientid", "user"], row("purge durable", (Verb::Purge, Object::Durable), Right(R::PurgeDurable), No, "Drops what waits for a durable subscription, except what its receiver has, and what is kept for the client that had it before a takeover."))),
    needs(&["name"], settings(PROPERTIES, row("addprop queue", (Verb::AddProperties, Object::Queue), Destination(Action::Modify), WithFiles, "Adds or changes properties of a queue."))),
    needs(&["name"], settings(PROPERTIES, row("addprop topic", (Verb::AddProperties, Object::Topic), Destination(Action::Modify), WithFiles, "Adds or changes properties of a topic."))),
    needs(&["name"], settings(PROPERTIES, row("addprop factory", (Verb::AddProperties, Object::Factory), Right(R::ChangeFactory), WithFiles, "Adds or changes settings of a factory."))),
    needs(&["name"], settings(PROPERTIES, row("setprop queue", (Verb::SetProperties, Object::Queue), Destination(Action::Modify), WithFiles, "Replaces all properties of a queue."))),
    needs(&["name"], settings(PROPERTIES, row("setprop topic", (Verb::SetProperties, Object::Topic), Destination(Action::Modify), WithFiles, "Replaces all properties of a topic."))),
    needs(&["name"], settings(PROPERTIES, row("setprop factory", (Verb::SetProperties, Object::Factory), Right(R::ChangeFactory), WithFiles, "Replaces all settings of a factory."))),
    needs(&["name"], settings("PROPERTY,...", row("removeprop queue", (Verb::RemoveProperties, Object::Queue), Destination(Action::Modify), WithFiles, "Removes properties of a queue."))),
    needs(&["name"], settings("PROPERTY,...", row("removeprop topic", (Verb::RemoveProperties, Object::Topic), Destination(Action::Modify), WithFiles, "Removes properties of a topic."))),
    needs(&["name"], settings("PROPERTY,...", row("removeprop factory", (Verb::RemoveProperties, Object::Factory), Right(R::ChangeFactory), WithFiles, "Removes settings of a factory."))),
    // Messages.
    needs(&["queue"], columns(MESSAGE_COLUMNS, settings("[limit=N] [after=ID] [message_id=TEXT]", row("show messages", list(Object::Message), Right(R::ViewMessage), No, "Messages of a queue, the oldest first: 100 of them or `limit` (at most 1000, and no more than 64 MiB of messages are read), those behind the message `after`; those alone whose sender gave them the id `message_id` (256 MiB are searched at a time). State: waiting, delivered (a client has it and has not settled it), kept (for a client that had it before a takeover), expired.")))),
    needs(&["name"], may(&["clientid", "user"], columns(MESSAGE_COLUMNS, settings("[limit=N] [after=ID] [message_id=TEXT]", row("show messages durable", list(Object::Message), Right(R::ViewMessage), No, "The same for a durable subscription."))))),
    needs(&["id"], row("show message", show(Object::Message), Right(R::ViewMessage), No, "One message: who has it, its properties and the size of its body; not the body. The id is that of show messages.")),
    needs(&["id"], row("delete message", delete(Object::Message), Right(R::ChangeMessage), No, "Deletes a message that waits. One that a client has, or that is kept for a client, is not deleted.")),
    // Subscriptions.
    columns(&[("Topic Name", "topic"), ("Durable", "name"), ("ClientID", "client_id"), ("User", "user"), ("Active", "is_active"), ("Msgs", "messages"), ("Size", "bytes")], may(&["pattern"], row("show durables", list(Object::Durable), Right(R::ViewDurable), WithFiles, "Durable subscriptions."))),
    needs(&["name"], may(&["clientid", "user"], row("show durable", show(Object::Durable), Right(R::ViewDurable), WithFiles, "One durable subscription."))),
    needs(&["topic", "name"], settings("[clientid=ID,nolocal]", row("create durable", create(Object::Durable), Right(R::ChangeDurable), WithFiles, "Adds a durable subscription to durables.conf."))),
    needs(&["name"], may(&["clientid", "user"], row("delete durable", delete(Object::Durable), Right(R::ChangeDurable), WithFiles, "Removes a durable subscription."))),
    row("delete all durables", delete_all(Object::Durable), Right(R::ChangeDurable), WithFiles, "Removes all durable subscriptions with what waits for them; those that clients read now stay on the server."),
    // Clients.
    columns(&[("ID", "id"), ("T", "type"), ("Host", "host"), ("User", "user"), ("ClientID", "client_id"), ("Prod", "producers"), ("Cons", "consumers"), ("Uptime", "uptime_ms")], row("show connections", list(Object::Connection), Right(R::ViewConnection), Always, "Connections of clients (T: C) and administrators (A).")),
    needs(&["id"], row("delete connection", delete(Object::Connection), Right(R::ChangeConnection), No, "Closes a connection; its client may come back.")),
    columns(&[("ID", "id"), ("Conn", "connection"), ("User", "user"), ("T", "type"), ("Destination", "destination"), ("Active", "is_active")], settings("[queue=NAME] [user=NAME] [connection=ID]", row("show consumers", list(Object::Consumer), Right(R::ViewConnection), No, "Links on which clients consume. Active: not those that wait because another one gets all of an exclusive queue."))),
    needs(&["id"], row("show consumer", show(Object::Consumer), Right(R::ViewConnection), No, "One of them.")),
    // People.
    columns(&[("Topic Name", "topic"), ("Subscription", "name"), ("ClientID", "client_id"), ("T", "type"), ("Active", "is_active"), ("Msgs", "messages"), ("Size", "bytes")], row("show subscriptions", list(Object::Subscription), Right(R::ViewConnection), No, "Subscriptions of topics (T: D durable, N not).")),
    columns(&[("User Name", "name"), ("Description", "description"), ("Password", "password")], row("show users", list(Object::User), Right(R::ViewUser), WithFiles, "Users. Password: none, kept (as keys), plain (in the file) or foreign.")),
    needs(&["name"], row("show user", show(Object::User), Right(R::ViewUser), WithFiles, "A user and its groups.")),
    needs(&["name"], may(&["description"], settings("[password=PASSWORD]", row("create user", create(Object::User), Right(R::ChangeUser), WithFiles, "Adds a user to users.conf; the password is kept as keys. Without password= the tool asks for it.")))),
    needs(&["name"], may(&["description"], settings("[password=PASSWORD]", row("set user", (Verb::Set, Object::User), Right(R::ChangeUser), WithFiles, "Changes description or password.")))),
    needs(&["user"], may(&["password", "old"], row("set password", (Verb::Set, Object::Password), Nothing, WithFiles, "Changes a password; without one the tool asks for it. Users may change their own; without the right change-user they give the OLD one, too."))),
    needs(&["name"], row("delete user", delete(Object::User), Right(R::ChangeUser), WithFiles, "Removes a user, also from groups and permissions.")),
    row("delete all users", delete_all(Object::User), Right(R::ChangeUser), WithFiles, "Removes all users, also from groups and permissions; admin, the user of this connection and the one with which the servers of a pair log in stay."),
    columns(&[("Group Name", "name"), ("Description", "description"), ("Members", "members")], row("show groups", list(Object::Group), Right(R::ViewGroup), WithFiles, "Groups.")),
    needs(&["name"], row("show group", show(Object::Group), Right(R::ViewGroup), WithFiles, "One group.")),
    needs(&["group"], columns(&[("User Name", "name")], row("show members", list(Object::Member), Right(R::ViewGroup), WithFiles, "The members of a group."))),
    needs(&["name"], may(&["description"], row("create group", create(Object::Group), Right(R::ChangeGroup), WithFiles, "Adds a group to groups.conf."))),
    needs(&["name"], row("delete group", delete(Object::Group), Right(R::ChangeGroup), WithFiles, "Removes a group, also from permissions.")),
    row("delete all groups", delete_all(Object::Group), Right(R::ChangeGroup), WithFiles, "Removes all groups, also from permissions; $admin stays."),
    needs(&["group"], names("USER ...", row("add member", (Verb::Add, Object::Member), Right(R::ChangeGroup), WithFiles, "Adds users to a group."))),
    needs(&["group"], names("USER ...", row("remove member", (Verb::Remove, Object::Member), Right(R::ChangeGroup), WithFiles, "Removes users from a group."))),
    // Permissions.
    columns(ACL_COLUMNS, may(&["queue|topic|user|group", "name"], row("showacl", list(Object::Acl), Right(R::ViewAcl), WithFiles, "Permissions for destinations."))),
    columns(ACL_COLUMNS, may(&["queue|topic|user|group", "name"], row("show acl", list(Object::Acl), Right(R::ViewAcl), WithFiles, "As showacl."))),
    columns(ACL_COLUMNS, row("showacl admin", list(Object::AdminAcl), Right(R::ViewAdminAcl), WithFiles, "Permissions of administrators.")),
    needs(&["name"], settings(PRINCIPAL, row("grant queue", (Verb::Grant, Object::Queue), Right(R::ChangeAcl), WithFiles, "Permits something for queues: receive, send, browse, all; view, create, delete, modify, purge."))),
    needs(&["name"], settings(PRINCIPAL, row("grant topic", (Verb::Grant, Object::Topic), Right(R::ChangeAcl), WithFiles, "Permits something for topics: subscribe, publish, durable, use_durable, all; view, create, delete, modify, purge."))),
    settings(PRINCIPAL, row("grant admin", (Verb::Grant, Object::AdminAcl), Right(R::ChangeAdminAcl), WithFiles, "Gives rights of administrators: all, view-all or single ones.")),
    needs(&["name"], settings("user=NAME|group=NAME PERMISSION,...|*", row("revoke queue", (Verb::Revoke, Object::Queue), Right(R::ChangeAcl), WithFiles, "Takes permissions for queues back."))),
    needs(&["name"], settings("user=NAME|group=NAME PERMISSION,...|*", row("revoke topic", (Verb::Revoke, Object::Topic), Right(R::ChangeAcl), WithFiles, "Takes permissions for topics back."))),
    settings("user=NAME|group=NAME RIGHT,...|*", row("revoke admin", (Verb::Revoke, Object::AdminAcl), Right(R::ChangeAdminAcl), WithFiles, "Takes rights of administrators back.")),
    // Bridges, routes, factories.
    columns(&[("Source", "source"), ("Targets", "targets")], row("show bridges", list(Object::Bridge), Right(R::ViewBridge), WithFiles, "Bridges.")),
    needs(&["source"], row("show bridge", show(Object::Bridge), Right(R::ViewBridge), WithFiles, "The bridge of a source, written queue:NAME or topic:NAME.")),
    settings("source=queue:NAME|topic:NAME target=queue:NAME|topic:NAME", row("create bridge", create(Object::Bridge), Right(R::ChangeBridge), WithFiles, "Adds a target to the bridge of a source.")),
    settings("source=queue:NAME|topic:NAME target=queue:NAME|topic:NAME", row("delete bridge", delete(Object::Bridge), Right(R::ChangeBridge), WithFiles, "Removes a target from the bridge of a source; without target= the whole bridge.")),
    columns(&[("Route", "name"), ("URL", "url"), ("Zone", "zone_name"), ("Type", "zone_type")], row("show routes", list(Object::Route), Right(R::ViewRoute), WithFiles, "Routes of routes.conf; servers do not forward messages yet.")),
    columns(&[("Factory", "name"), ("Type", "type"), ("URL", "url")], row("show factories", list(Object::Factory), Right(R::ViewFactory), WithFiles, "Connection factories.")),
    needs(&["name"], row("show factory", show(Object::Factory), Right(R::ViewFactory), WithFiles, "Settings of a factory.")),
    needs(&["name", "type"], settings("url=URL [SETTING=VALUE] ...", row("create factory", create(Object::Factory), Right(R::ChangeFactory), WithFiles, "Adds a connection factory to factories.conf."))),
    needs(&["name"], row("delete factory", delete(Object::Factory), Right(R::ChangeFactory), WithFiles, "Removes a connection factory.")),
];
