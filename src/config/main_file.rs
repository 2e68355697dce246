//! Changing the main file: single lines, everything else stays byte for byte.

use std::path::Path;

use super::companions::{Comments, Document};
use super::file;

/// Text of the main file with parameters set; an empty value means "not set". Of a parameter that
/// stands there more than once the last line counts, so it is the one that changes.
///
/// # Errors
/// A value that cannot be written so that it is read back as it is.
pub fn set_parameters(
    path: &Path,
    text: &str,
    values: &[(String, String)],
) -> Result<String, String> {
    let mut document = Document::new(path, text, Comments::Anywhere);
    for (name, value) in values {
        let written = write_value(value).map_err(|fault| format!("{name}: {fault}"))?;
        let is_named = |content: &str| {
            let before = content.split_once('=').map(|(before, _)| before.trim());
            before == Some(name.as_str())
        };
        let lines = document.contents();
        let found = lines
            .filter(|(_, content, _)| is_named(content))
            .map(|(index, content, _)| (index, content.to_owned()))
            .last();
        match found {
            Some((index, content)) => {
                let kept = content.split_once('=').map_or("", |(before, _)| before);
                let blank =
                    if content.contains("= ") || !content.contains(" =") && kept.ends_with(' ') {
                        " "
                    } else {
                        ""
                    };
                let line = format!("{kept}={blank}{written}");
                document.replace(index, line.trim_end());
            }
            None => document.insert(document.len(), "", format!("{name} = {written}").trim_end()),
        }
    }
    let changed = document.to_string();
    check(path, text, &changed, values)?;
    Ok(changed)
}

fn write_value(value: &str) -> Result<String, String> {
    if value.contains('"') || value.contains(char::is_control) {
        return Err("a value has neither double quotes nor control characters".to_owned());
    }
    let is_plain = !value.contains(char::is_whitespace) && !value.starts_with(['#', ';']);
    Ok(if is_plain {
        value.to_owned()
    } else {
        format!("\"{value}\"")
    })
}

/// The new text says what it should, and of everything else what the old one said.
fn check(
    path: &Path,
    before: &str,
    after: &str,
    values: &[(String, String)],
) -> Result<(), String> {
    let read = |text: &str| file::parse(path, text, &mut Vec::new());
    let (before, after) = (read(before), read(after));
    let others = |entries: &[file::Entry]| -> Vec<(String, String)> {
        let is_other = |entry: &&file::Entry| values.iter().all(|(name, _)| *name != entry.name);
        let others = entries.iter().filter(is_other);
        others
            .map(|it| (it.name.clone(), it.value.clone()))
            .collect()
    };
    let last = |name: &str| after.iter().rev().find(|entry| entry.name == name);
    let mut set = values.iter();
    let is_set = set.all(|(name, value)| last(name).is_some_and(|entry| entry.value == *value));
    if is_set && others(&before) == others(&after) {
        return Ok(());
    }
    Err("it would be read back as something else; change the file by hand".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str, name: &str, value: &str) -> String {
        let values = [(name.to_owned(), value.to_owned())];
        set_parameters(Path::new("a.conf"), text, &values).expect("it can be written")
    }

    #[test]
    fn one_line_changes_and_the_rest_stays() {
        let text =
            "\u{feff}# mine\r\nserver = A   # the name\r\n\r\n  authorization=disabled ; off\r\n";
        assert_eq!(
            set(text, "server", "B"),
            text.replace("server = A", "server = B")
        );
        assert_eq!(
            set(text, "authorization", "enabled"),
            text.replace("=disabled", "=enabled")
        );
        assert_eq!(
            set(text, "password", "a # b"),
            format!("{text}password = \"a # b\"\r\n")
        );
        assert_eq!(
            set("server = A", "password", "x"),
            "server = A\npassword = x\n"
        );
        assert_eq!(set("", "password", ""), "password =\n");
    }

    #[test]
    fn the_last_of_several_lines_counts() {
        assert_eq!(
            set("server = A\nserver = B\n", "server", "C"),
            "server = A\nserver = C\n"
        );
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        for value in ["a\"b", "a\nb", "a\rserver = x"] {
            let values = [("password".to_owned(), value.to_owned())];
            assert!(
                set_parameters(Path::new("a.conf"), "", &values).is_err(),
                "{value:?}"
            );
        }
    }
}
