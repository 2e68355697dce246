//! Answers for people and for programs.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde_json::{Map, Value, json};

use crate::admin::{Answer, Body, COMMANDS, Command, Item, find, title};
use crate::cli::tool::{bytes_text, grouped};
use crate::config::companions::property_help;

/// What a terminal shows.
pub(super) fn text(command: &Command, answer: &Answer) -> String {
    match &answer.body {
        Body::Nothing => visible(&answer.text),
        Body::Record(fields) => {
            let mut table = Table::new();
            table.load_style(NOTHING);
            for (name, item) in fields {
                let label = title(name.trim_end_matches("_ms").trim_end_matches("_bytes"));
                let label = if name.ends_with("_bytes") {
                    format!("{label} Size")
                } else {
                    label
                };
                table.add_row(vec![format!("{label}:"), shown(name, item)]);
            }
            lines_of(&table)
        }
        Body::Table(content) => {
            let mut table = Table::new();
            table.load_style(NOTHING);
            let titles = content.attributes.iter().map(|name| {
                let columns = command.columns.iter();
                let known = columns.clone().find(|(_, own)| own == name);
                known.map_or_else(|| title(name), |(title, _)| (*title).to_owned())
            });
            table.set_header(titles.collect::<Vec<_>>());
            for row in &content.rows {
                let cells = row.iter().zip(&content.attributes);
                let cells = cells.map(|(item, name)| shown(name, item));
                table.add_row(cells.collect::<Vec<_>>());
            }
            for index in 0..content.attributes.len() {
                let mut cells = content.rows.iter().filter_map(|row| row.get(index));
                let is_number = cells.any(|item| matches!(item, Item::Number(_)));
                if let Some(column) = table.column_mut(index).filter(|_| is_number) {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
            let count = grouped(content.rows.len() as u64);
            let table = lines_of(&table);
            match answer.text.as_str() {
                "" => format!("{table}\n{count} in all"),
                text => format!("{table}\n{count} shown; {}", visible_lines(text)),
            }
        }
    }
}

fn shown(name: &str, item: &Item) -> String {
    match item {
        Item::Nothing => "-".to_owned(),
        Item::Text(text) if text.is_empty() => "-".to_owned(),
        Item::Text(text) => visible(text),
        Item::Number(number) if name == "bytes" || name.ends_with("_bytes") => {
            bytes_text(*number as f64)
        }
        Item::Number(number) if name.ends_with("_ms") => duration(*number),
        Item::Number(number) if name.contains("id") || name == "connection" => number.to_string(),
        Item::Number(number) => grouped(*number),
        Item::Decimal(number) => format!("{number:.1}"),
        Item::Flag(true) => "yes".to_owned(),
        Item::Flag(false) => "no".to_owned(),
        Item::List(texts) if texts.is_empty() => "-".to_owned(),
        Item::List(texts) => visible(&texts.join(", ")),
    }
}

/// A table without the blanks that fill its lines up to the longest.
fn lines_of(table: &Table) -> String {
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// A text without what would change the terminal: much of it comes from clients.
pub(super) fn visible(text: &str) -> String {
    let letters = text.chars().flat_map(|letter| {
        let is_shown = !letter.is_control();
        let escaped = (!is_shown).then(|| letter.escape_default());
        is_shown
            .then_some(letter)
            .into_iter()
            .chain(escaped.into_iter().flatten())
    });
    letters.collect()
}

/// The same for a text of several lines.
pub(super) fn visible_lines(text: &str) -> String {
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n")
}

/// Time in the two largest units that it has.
fn duration(number_ms: u64) -> String {
    let seconds = number_ms / 1_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if number_ms < 10_000 => format!("{number_ms} ms"),
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// One document.
pub(super) fn json(answer: &Answer) -> Value {
    if !answer.is_success() {
        return json!({"status": answer.status, "error": answer.text});
    }
    match &answer.body {
        Body::Nothing => json!({"status": answer.status, "message": answer.text}),
        Body::Record(fields) => {
            let fields = fields
                .iter()
                .map(|(name, item)| (name.clone(), value(item)));
            Value::Object(fields.collect())
        }
        Body::Table(table) => {
            let rows = table.rows.iter().map(|row| {
                let cells = table.attributes.iter().zip(row);
                let cells = cells.map(|(name, item)| (name.clone(), value(item)));
                Value::Object(cells.collect::<Map<_, _>>())
            });
            Value::Array(rows.collect())
        }
    }
}

fn value(item: &Item) -> Value {
    match item {
        Item::Nothing => Value::Null,
        Item::Text(text) => Value::from(text.as_str()),
        Item::Number(number) => Value::from(*number),
        Item::Decimal(number) => Value::from(*number),
        Item::Flag(flag) => Value::from(*flag),
        Item::List(texts) => Value::from(texts.clone()),
    }
}

/// Help for a command, or for all.
pub(super) fn help(names: &[String]) -> String {
    let words = names.iter().map(String::as_str);
    if let Some((command, _)) = find(words.clone()).filter(|_| !names.is_empty()) {
        let text = format!("{}\n  {}", command.usage(), command.help);
        return text + &properties_of(command);
    }
    let first = names.first().map(|name| name.to_ascii_lowercase());
    let is_meant = |command: &&Command| {
        let begin = command.words.split(' ').next();
        first.as_deref().is_none_or(|first| begin == Some(first))
    };
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    for command in COMMANDS.iter().filter(is_meant) {
        table.add_row(vec![command.usage(), command.help.to_owned()]);
    }
    if table.is_empty() {
        return "there is no such command; help shows all".to_owned();
    }
    lines_of(&table)
}

/// The properties that a command for queues or topics takes.
fn properties_of(command: &Command) -> String {
    let kind = command.object.destination();
    let Some(kind) = kind.filter(|_| command.takes_properties()) else {
        return String::new();
    };
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    for (example, help, is_applied) in property_help(kind) {
        let note = if is_applied {
            ""
        } else {
            " (no effect in this version)"
        };
        table.add_row(vec![format!("  {example}"), format!("{help}{note}")]);
    }
    format!(
        "\n\nProperties, with commas between them:\n{}",
        lines_of(&table)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_for_people_and_exactly_for_programs() {
        assert_eq!(shown("bytes", &Item::Number(2048)), "2.0 KiB");
        assert_eq!(shown("messages", &Item::Number(12_345)), "12,345");
        assert_eq!(shown("name", &"a\u{1b}[2Jb\n".into()), "a\\u{1b}[2Jb\\n");
        assert_eq!(visible_lines("a\u{9b}2J\nb\r"), "a\\u{9b}2J\nb\\r");
        assert_eq!(duration(999), "999 ms");
        assert_eq!(duration(61_000), "1 min 1 s");
        assert_eq!(duration(90_061_000), "1 d 1 h");
        let columns = [("Queue Name", "name"), ("Size", "bytes")];
        let rows = vec![vec!["a".into(), Item::Number(2048)]];
        let answer = Answer::table(&columns, rows);
        assert_eq!(json(&answer), json!([{"name": "a", "bytes": 2048}]));
        let command = COMMANDS.iter().find(|it| it.words == "show queues");
        let text = text(command.expect("it is in the table"), &answer);
        assert!(text.contains("Queue Name"), "{text}");
        assert!(text.contains("2.0 KiB"), "{text}");
    }

    #[test]
    fn lines_end_where_their_text_ends() {
        let queue = ["create", "queue"].map(str::to_owned);
        for text in [help(&[]), help(&queue)] {
            assert!(text.lines().count() > 10, "{text}");
            assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
        }
    }
}
