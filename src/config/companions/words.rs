//! The small grammar inside of a line: quotes, lists, `name=value` pairs.

/// A property as it was written: its name and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) name: String,
    pub(super) value: Option<String>,
}

/// The parts between separators that stand outside of double quotes; quotes stay.
pub(super) fn split(text: &str, is_separator: impl Fn(char) -> bool) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    let (mut start, mut is_quoted) = (0, false);
    for (at, letter) in text.char_indices() {
        if letter == '"' {
            is_quoted = !is_quoted;
        } else if !is_quoted && is_separator(letter) {
            parts.push(text.get(start..at).unwrap_or_default());
            start = at + letter.len_utf8();
        }
    }
    if is_quoted {
        return Err("the closing quote is missing".to_owned());
    }
    parts.push(text.get(start..).unwrap_or_default());
    Ok(parts)
}

/// The part before the first blank, and the rest.
pub(super) fn first(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (first, rest) = text.split_at(end);
    (first, rest.trim())
}

/// Removes quotes around a text.
pub(super) fn unquote(text: &str) -> Result<String, String> {
    let text = text.trim();
    let inner = match text.strip_prefix('"') {
        Some(rest) => rest
            .strip_suffix('"')
            .ok_or("the closing quote is missing")?,
        None => text,
    };
    if inner.contains('"') {
        return Err(format!("a quote inside of `{inner}`; remove it"));
    }
    Ok(inner.to_owned())
}

/// A text as it is written: in quotes if it would be read as something else without.
pub(super) fn quote(text: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "$_-.*>/:@+=|".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("\"{text}\"")
}

/// `name`, `name=value`, with commas between them.
pub(super) fn properties(text: &str) -> Result<Vec<Word>, String> {
    let parts = split(text, |letter| letter == ',')?;
    let mut words = Vec::new();
    for part in parts
        .into_iter()
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        words.push(property(part)?);
    }
    Ok(words)
}

/// One `name` or `name=value`.
pub(super) fn property(text: &str) -> Result<Word, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name.trim(), Some(unquote(value)?)),
        None => (text.trim(), None),
    };
    if name.is_empty() || name.contains(|letter: char| letter.is_whitespace() || letter == '"') {
        return Err(format!(
            "`{name}` is not a property; write name=value, with commas between properties"
        ));
    }
    Ok(Word {
        name: name.to_owned(),
        value,
    })
}
