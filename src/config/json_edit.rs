//! Changing a JSON text: single values; everything else stays as it was written.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstArray, CstInputValue, CstNode, CstObject, CstObjectProp, CstRootNode};

/// A value to write.
pub(super) type Value = CstInputValue;

/// What the reader of the file takes, and no more.
const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// Takes a text apart; the root must live as long as anything of it. Its `Display` is the text.
pub(super) fn parse(text: &str) -> Result<(CstRootNode, CstObject), String> {
    let root = CstRootNode::parse(text, &STRICT);
    let root = root.map_err(|error| format!("not valid JSON: {error}"))?;
    let object = root.object_value().ok_or("the file is not an object")?;
    Ok((root, object))
}

/// The member with a name, whose letters may be large or small.
pub(super) fn find(object: &CstObject, name: &str) -> Option<CstObjectProp> {
    let is_meant = |member: &CstObjectProp| {
        let own = member.decoded_name();
        own.is_some_and(|own| own.eq_ignore_ascii_case(name))
    };
    object.properties().into_iter().find(is_meant)
}

/// The member for a setting; those of TLS may stand in an object `ssl`, there also without the
/// beginning of their names.
pub(super) fn find_setting(object: &CstObject, name: &str) -> Option<CstObjectProp> {
    find(object, name).or_else(|| {
        let short = name.strip_prefix("ssl_")?;
        let inner = object.object_value("ssl")?;
        find(&inner, name).or_else(|| find(&inner, short))
    })
}

/// Sets a setting where it stands, or adds it to the object, as [`append_member`] does.
pub(super) fn set(object: &CstObject, name: &str, value: &Value) {
    match find_setting(object, name) {
        Some(member) => replace(&member, value),
        None => append_member(object, name, value.clone()),
    }
}

/// Removes a setting, if it is there.
pub(super) fn remove(object: &CstObject, name: &str) {
    if let Some(member) = find_setting(object, name) {
        member.remove();
    }
}

fn replace(member: &CstObjectProp, value: &Value) {
    let before = member.value();
    if let (Some(list), Value::Array(wanted)) = (member.array_value(), value) {
        return merge(&list, wanted);
    }
    match value {
        // Somebody has written it as a text.
        Value::Number(number) if before.is_some_and(|node| node.as_string_lit().is_some()) => {
            member.set_value(Value::String(number.clone()));
        }
        value => member.set_value(value.clone()),
    }
}

/// Makes a list have these items; those that it has already stay as they were written.
fn merge(list: &CstArray, wanted: &[Value]) {
    let word_of = |node: &CstNode| value_of(node).map(|value| meaning(&value));
    let words: Vec<String> = wanted.iter().map(meaning).collect();
    let before = list.elements();
    let known: Vec<String> = before.iter().filter_map(word_of).collect();
    for (value, word) in wanted.iter().zip(&words) {
        if !known.contains(word) {
            append_item(list, value.clone());
        }
    }
    for node in before {
        if !word_of(&node).is_some_and(|word| words.contains(&word)) {
            remove_item(list, node);
        }
    }
}

/// What an item of a list says, however it is written: a text, or an object with a `name` and more.
fn meaning(value: &Value) -> String {
    let Value::Object(members) = value else {
        return compact(value);
    };
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => compact(other),
    };
    let said = |(_, value): &&(String, Value)| !text(value).is_empty();
    let mut words: Vec<(&str, String)> = members
        .iter()
        .filter(said)
        .map(|(name, value)| match name.as_str() {
            "type" => ("type", text(value).to_ascii_lowercase()),
            name => (name, text(value)),
        })
        .collect();
    words.sort();
    match words.as_slice() {
        [("name", name)] => compact(&Value::String(name.clone())),
        words => format!("{words:?}"),
    }
}

fn value_of(node: &CstNode) -> Option<Value> {
    if let Some(text) = node.as_string_lit() {
        return text.decoded_value().ok().map(Value::String);
    }
    if let Some(object) = node.as_object() {
        let members = object.properties().into_iter().map(|member| {
            let value = value_of(&member.value()?)?;
            Some((member.decoded_name()?, value))
        });
        return members.collect::<Option<Vec<_>>>().map(Value::Object);
    }
    // Never equal to what is wanted.
    Some(Value::Number(node.to_string()))
}

/// Adds a member, in the line of the others where they stand in one. After that the object's last member is no more
/// to be changed.
pub(super) fn append_member(object: &CstObject, name: &str, value: Value) {
    let has_line = object.children().iter().any(CstNode::is_newline);
    let last = object.properties().pop().filter(|_| !has_line);
    let Some((last, before)) = last.and_then(|last| Some((last.clone(), last.value()?))) else {
        object.append(name, value);
        return;
    };
    // The library gives every member a line of its own; of a text it writes the letters that it is given.
    let name = compact(&Value::from(name));
    let both = format!("{before}, {name}: {}", compact(&value));
    last.set_value(Value::String(String::new()));
    if let Some(text) = last.value().and_then(|node| node.as_string_lit()) {
        text.set_raw_value(both);
    }
}

/// Adds an item to a list; an object in one line where the one before it stands in one.
pub(super) fn append_item(list: &CstArray, value: Value) {
    let last = list.elements().pop().map(|last| last.to_string());
    let is_one_line = last.is_some_and(|last| last.starts_with('{') && !last.contains('\n'));
    if !is_one_line || !matches!(value, Value::Object(_)) {
        list.append(value);
        return;
    }
    // As with members.
    let node = list.append(Value::String(String::new()));
    if let Some(text) = node.as_string_lit() {
        text.set_raw_value(compact(&value));
    }
}

/// Removes an item of a list; the next one takes its place in the line.
pub(super) fn remove_item(list: &CstArray, node: CstNode) {
    let begins_with_blank = || {
        let first = list.child_at_index(1);
        first.and_then(|node| node.as_whitespace())
    };
    let had_blank = begins_with_blank().is_some();
    node.remove();
    if let Some(blank) = begins_with_blank().filter(|_| !had_blank) {
        blank.remove();
    }
}

/// A value in one line.
pub(super) fn compact(value: &Value) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.clone(),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(compact).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(members) => {
            let members = members.iter();
            let members =
                members.map(|(name, value)| format!("{}: {}", quoted(name), compact(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
    }
}
