//! Changing parameters in a JSON file.

use jsonc_parser::cst::{CstArray, CstNode, CstObject};

use super::companions::Report;
use super::json_edit::{self, Value};
use super::load::{Given, MainFile};
use super::table::{Kind, parameter};
use super::{json, value};

/// Text of the main file, which has the JSON form, with parameters set; an empty value means "not
/// set". `listen` is what this server listens on in `primary_listens` or `secondary_listens`, and
/// `ft_active` chooses among the URLs of the other one.
///
/// # Errors
/// A value that cannot be written so that it is read back as it is.
pub fn set_json_parameters(
    given: &Given,
    file: &MainFile,
    values: &[(String, String)],
) -> Result<String, String> {
    let mut changed = file.text.clone();
    for (name, value) in values {
        changed = set_one(&changed, given.is_secondary, name, value)?;
    }
    check(given, file, &changed, values)?;
    Ok(changed)
}

fn set_one(file: &str, is_secondary: bool, name: &str, value: &str) -> Result<String, String> {
    let (root, top) = json_edit::parse(file)?;
    let parameters = top.object_value("tibemsd").unwrap_or(top);
    let lists = Lists::new(&parameters, is_secondary);
    let urls: Vec<&str> = value.split(',').map(str::trim).collect();
    match (name, &lists) {
        ("listen", Some(lists)) => lists.set_listens(&urls)?,
        ("ft_active", Some(lists)) => lists.set_peers(&urls)?,
        _ => set(&parameters, name, value),
    }
    Ok(root.to_string())
}

fn set(parameters: &CstObject, name: &str, text: &str) {
    let kind = parameter(name).map_or(Kind::Text, |row| row.kind);
    let before = json_edit::find_setting(parameters, name).and_then(|member| member.value());
    let is_text = before.is_some_and(|node| node.as_string_lit().is_some());
    let written = match (kind, value::parse(kind, text)) {
        (Kind::Flag, Ok(value::Value::Flag(flag))) if !is_text => Value::Bool(flag),
        (
            Kind::Count { .. }
            | Kind::Bytes { .. }
            | Kind::Seconds { .. }
            | Kind::Milliseconds { .. },
            Ok(_),
        ) if !is_text && is_number(text) => Value::Number(text.to_owned()),
        _ => Value::String(text.to_owned()),
    };
    json_edit::set(parameters, name, &written);
}

/// Whether JSON has it as a number with these digits.
pub(super) fn is_number(text: &str) -> bool {
    text.parse::<u64>()
        .is_ok_and(|number| number.to_string() == text)
}

/// `primary_listens` and `secondary_listens`.
struct Lists {
    own: CstArray,
    other: Option<CstArray>,
    other_name: &'static str,
}

impl Lists {
    /// `None` when the file has no list for this server.
    fn new(parameters: &CstObject, is_secondary: bool) -> Option<Self> {
        let names = ["primary_listens", "secondary_listens"];
        let [own, other] = if is_secondary {
            [names[1], names[0]]
        } else {
            names
        };
        Some(Self {
            own: parameters.array_value(own)?,
            other: parameters.array_value(other),
            other_name: other,
        })
    }

    /// As many URLs as before take their places one by one. Otherwise those that stay keep theirs, and one of them
    /// stays marked for the other server.
    fn set_listens(&self, urls: &[&str]) -> Result<(), String> {
        if urls.iter().any(|url| url.is_empty()) {
            return Err("listen: a server of a pair needs an URL to listen on".to_owned());
        }
        let items = items(&self.own);
        if items.len() == urls.len() {
            for (item, url) in items.iter().zip(urls) {
                set_text(item, "url", url);
            }
            return Ok(());
        }
        let stays = |item: &CstObject| url_of(item).is_some_and(|url| urls.contains(&url.as_str()));
        let mut needs_mark = items.iter().any(is_marked);
        let (kept, gone): (Vec<CstObject>, Vec<CstObject>) = items.into_iter().partition(stays);
        needs_mark &= !kept.iter().any(is_marked);
        if needs_mark && let Some(first) = kept.first() {
            json_edit::set(first, "ft_active", &Value::Bool(true));
            needs_mark = false;
        }
        let known: Vec<String> = kept.iter().filter_map(url_of).collect();
        for url in urls
            .iter()
            .filter(|url| !known.iter().any(|own| own == *url))
        {
            let mut item = vec![("url".to_owned(), Value::from(*url))];
            if std::mem::take(&mut needs_mark) {
                item.push(("ft_active".to_owned(), Value::Bool(true)));
            }
            json_edit::append_item(&self.own, Value::Object(item));
        }
        for item in gone {
            json_edit::remove_item(&self.own, item.into());
        }
        Ok(())
    }

    /// Marks these URLs of the other server and no others.
    fn set_peers(&self, urls: &[&str]) -> Result<(), String> {
        let named: Vec<CstObject> = items(&self.own)
            .into_iter()
            .filter(|item| item.get("ft_active").is_some_and(|it| is_text(it.value())))
            .collect();
        if let ([item], [url]) = (named.as_slice(), urls) {
            set_text(item, "ft_active", url);
            return Ok(());
        }
        let others: Vec<CstObject> = self.other.iter().flat_map(items).collect();
        for url in urls {
            if !others
                .iter()
                .any(|item| url_of(item).as_deref() == Some(url))
            {
                return Err(format!(
                    "ft_active: `{url}` is none of the URLs in `{}`, where the other server of the \
                     pair listens; write it there by hand",
                    self.other_name
                ));
            }
        }
        for item in &others {
            let is_meant = url_of(item).is_some_and(|url| urls.contains(&url.as_str()));
            if is_meant != is_marked(item) {
                json_edit::set(item, "ft_active", &Value::Bool(is_meant));
            }
        }
        Ok(())
    }
}

fn items(list: &CstArray) -> Vec<CstObject> {
    let nodes = list.elements().into_iter();
    nodes.filter_map(|node| node.as_object()).collect()
}

fn is_text(node: Option<CstNode>) -> bool {
    node.is_some_and(|node| node.as_string_lit().is_some())
}

fn url_of(item: &CstObject) -> Option<String> {
    let text = item.get("url")?.value()?.as_string_lit()?;
    text.decoded_value().ok()
}

fn is_marked(item: &CstObject) -> bool {
    let value = item.get("ft_active").and_then(|member| member.value());
    let flag = value.and_then(|node| node.as_boolean_lit());
    flag.is_some_and(|flag| flag.value())
}

fn set_text(item: &CstObject, name: &str, text: &str) {
    json_edit::set(item, name, &Value::from(text));
}

/// The new text says what it should, and of everything else what the old one said.
fn check(
    given: &Given,
    file: &MainFile,
    after: &str,
    values: &[(String, String)],
) -> Result<(), String> {
    let read = |text: &str| {
        let mut report = Report::default();
        json::parse(&file.path, text, given.is_secondary, &mut report)
    };
    let (before, after) = (read(&file.text), read(after));
    let others = |file: &json::JsonFile| -> Vec<(String, String)> {
        let entries = file.entries.iter();
        let others = entries.filter(|entry| values.iter().all(|(name, _)| *name != entry.name));
        others
            .map(|it| (it.name.clone(), it.value.clone()))
            .collect()
    };
    let is_set = values.iter().all(|(name, value)| {
        let kind = parameter(name).map_or(Kind::Text, |row| row.kind);
        let parse = |text: &str| value::parse(kind, text.trim());
        let wanted: Vec<_> = value.split(',').map(parse).collect();
        let own = after.entries.iter().filter(|entry| entry.name == *name);
        let own: Vec<_> = own.flat_map(|it| it.value.split(',').map(parse)).collect();
        own.len() == wanted.len() && wanted.iter().all(|it| own.contains(it))
    });
    if is_set && others(&before) == others(&after) && same_sections(&before, &after) {
        return Ok(());
    }
    Err("it would be read back as something else; change the file by hand".to_owned())
}

fn same_sections(one: &json::JsonFile, other: &json::JsonFile) -> bool {
    match (&one.companions, &other.companions) {
        (Some((one, _)), Some((other, _))) => one.says_the_same(other),
        (one, other) => one.is_none() && other.is_none(),
    }
}
