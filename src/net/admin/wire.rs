//! Between AMQP messages and requests and answers.

use crate::admin::{self, Answer, Attributes, Body, COMMANDS, Failure, Item, Request};
use crate::node::ManagementReply;
use crate::proto::message::ValueMessage;
use crate::proto::{Symbol, Value};

/// What a message asks for.
pub(super) enum Asked {
    /// To carry a command out.
    Command(Request),
    /// What can be asked for; the answer.
    Description(Value),
}

/// Reads a request.
pub(super) fn request(message: &ValueMessage) -> Result<Asked, Failure> {
    let Some(operation) = message.text("operation") else {
        return Err(Failure::usage(
            "the application property `operation` is missing",
        ));
    };
    let kind = message
        .text("type")
        .or_else(|| message.text("entityType"))
        .unwrap_or("");
    let name = message
        .text("name")
        .or_else(|| message.text("identity"))
        .unwrap_or("");
    let request = match operation {
        "COMMAND" => command(&message.body)?,
        "GET-TYPES" | "GET-OPERATIONS" | "GET-ATTRIBUTES" | "GET-MGMT-NODES" => {
            return Ok(Asked::Description(describe(operation, kind)));
        }
        operation => admin::parse_map(operation, kind, name, attributes(&message.body)?)?,
    };
    Ok(Asked::Command(request))
}

/// A line, or a list of its words.
fn command(body: &Value) -> Result<Request, Failure> {
    let request = match body {
        Value::String(line) => admin::parse_line(line)?,
        Value::List(words) => {
            let words: Option<Vec<String>> = words.iter().map(text).collect();
            let words = words.ok_or_else(|| Failure::usage("the words of a command are texts"))?;
            admin::parse_words(words)?
        }
        _ => {
            return Err(Failure::usage(
                "the body of a COMMAND is its text, or a list of its words",
            ));
        }
    };
    if request.command.is_local() {
        let text = format!("`{}` is a command of the tool", request.command.words);
        return Err(Failure::usage(text));
    }
    Ok(request)
}

fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) | Value::Symbol(Symbol(text)) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Ubyte(number) => number.to_string(),
        Value::Ushort(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Ulong(number) => number.to_string(),
        Value::Byte(number) => number.to_string(),
        Value::Short(number) => number.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Long(number) => number.to_string(),
        _ => return None,
    })
}

/// A map of texts, numbers, flags (true alone: a mark) and lists of texts; nothing is an empty map.
fn attributes(body: &Value) -> Result<Attributes, Failure> {
    let map = match body {
        Value::Null => return Ok(Vec::new()),
        Value::Map(map) => map,
        _ => return Err(Failure::usage("the body of a request is a map")),
    };
    let mut attributes = Vec::new();
    for (key, value) in map {
        let key = text(key).ok_or_else(|| Failure::usage("the keys of the map are texts"))?;
        let wrong = || {
            Failure::usage(format!(
                "`{key}`: write a text, a number, a flag, or a list of texts"
            ))
        };
        let values = match value {
            Value::Null => continue,
            Value::Bool(true) => vec![None],
            Value::List(items) => {
                let texts = items.iter().map(|item| text(item).map(Some));
                texts.collect::<Option<Vec<_>>>().ok_or_else(wrong)?
            }
            other => vec![Some(text(other).ok_or_else(wrong)?)],
        };
        attributes.push((key, values));
    }
    Ok(attributes)
}

/// What AMQP management calls types, operations and attributes.
fn describe(operation: &str, kind: &str) -> Value {
    let own = COMMANDS.iter().filter(|command| !command.is_local());
    let own = own.filter(|command| kind.is_empty() || command.object.word() == kind);
    let mut types: Vec<(&str, Vec<String>)> = Vec::new();
    for command in own {
        let word = command.object.word();
        let at = types.iter().position(|(known, _)| *known == word);
        let at = at.unwrap_or_else(|| {
            types.push((word, Vec::new()));
            types.len() - 1
        });
        let values: Vec<&str> = match operation {
            "GET-OPERATIONS" => vec![command.verb.operation()],
            "GET-ATTRIBUTES" => command.columns.iter().map(|(_, name)| *name).collect(),
            _ => Vec::new(),
        };
        if let Some((_, known)) = types.get_mut(at) {
            for value in values {
                if !known.iter().any(|own| own == value) {
                    known.push(value.to_owned());
                }
            }
        }
    }
    if operation == "GET-MGMT-NODES" {
        return Value::List(Vec::new());
    }
    let map = types.into_iter().map(|(word, values)| {
        let values = values.into_iter().map(Value::String);
        (
            Value::String(word.to_owned()),
            Value::List(values.collect()),
        )
    });
    Value::Map(map.collect())
}

/// Writes an answer.
pub(super) fn reply(answer: Answer) -> ManagementReply {
    let text = |text: &str| Value::String(text.to_owned());
    let body = match answer.body {
        Body::Nothing => Value::Map(std::iter::empty().collect()),
        Body::Record(fields) => {
            let fields = fields.into_iter();
            let fields = fields.map(|(name, item)| (Value::String(name), value(item)));
            Value::Map(fields.collect())
        }
        Body::Table(table) => {
            let names = table.attributes.into_iter().map(Value::String);
            let rows = table.rows.into_iter();
            let rows = rows.map(|row| Value::List(row.into_iter().map(value).collect()));
            let entries = [
                (text("attributeNames"), Value::List(names.collect())),
                (text("results"), Value::List(rows.collect())),
            ];
            Value::Map(entries.into_iter().collect())
        }
    };
    ManagementReply {
        status: answer.status,
        description: answer.text,
        body,
    }
}

fn value(item: Item) -> Value {
    match item {
        Item::Nothing => Value::Null,
        Item::Text(text) => Value::String(text),
        Item::Number(number) => Value::Ulong(number),
        Item::Decimal(number) => Value::Double(number.into()),
        Item::Flag(flag) => Value::Bool(flag),
        Item::List(texts) => Value::List(texts.into_iter().map(Value::String).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(operation: &str, kind: &str, body: Value) -> ValueMessage {
        let property = |name: &str, text: &str| (name.to_owned(), Value::String(text.to_owned()));
        ValueMessage {
            properties: vec![property("operation", operation), property("type", kind)],
            body,
            ..ValueMessage::default()
        }
    }

    fn asked(message: &ValueMessage) -> Result<&'static str, u16> {
        match request(message) {
            Ok(Asked::Command(request)) => Ok(request.command.words),
            Ok(Asked::Description(_)) => Ok("description"),
            Err(failure) => Err(failure.status),
        }
    }

    #[test]
    fn requests_are_understood_or_refused_with_a_status() {
        let line = |line: &str| Value::String(line.to_owned());
        let map = |entries: Vec<(Value, Value)>| Value::Map(entries.into_iter().collect());
        let command = |body| asked(&message("COMMAND", "", body));
        assert_eq!(command(line("show queues")), Ok("show queues"));
        let words = Value::List(vec![line("show"), line("state")]);
        assert_eq!(command(words), Ok("show state"));
        assert_eq!(command(line("exit")), Err(400));
        assert_eq!(command(Value::Int(3)), Err(400));
        assert_eq!(command(Value::List(vec![Value::Null])), Err(400));
        assert_eq!(command(line(&"x ".repeat(60_000))), Err(400));
        assert_eq!(
            asked(&message("QUERY", "queue", Value::Null)),
            Ok("show queues")
        );
        assert_eq!(asked(&message("QUERY", "moon", Value::Null)), Err(501));
        assert_eq!(asked(&message("READ", "server", Value::Int(1))), Err(400));
        let odd = map(vec![(Value::Null, Value::Int(1))]);
        assert_eq!(asked(&message("CREATE", "queue", odd)), Err(400));
        let nested = map(vec![(line("a"), map(Vec::new()))]);
        assert_eq!(asked(&message("CREATE", "queue", nested)), Err(400));
        assert_eq!(
            asked(&message("GET-TYPES", "", Value::Null)),
            Ok("description")
        );
        assert_eq!(asked(&ValueMessage::default()), Err(400));
    }
}
