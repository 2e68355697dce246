//! The one form in which all configuration files are held: lines that keep every byte.
//!
//! A line is its indentation, its content, and a tail: blanks and a comment. An edit replaces,
//! adds or removes the content of single lines; everything else is written as it was read.

use std::fmt;

use crate::config::Origin;
use std::path::{Path, PathBuf};

/// As long as EMS allows.
pub(in crate::config) const LINE_CHARS_MAX: usize = 256_000;

/// Where comments may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comments {
    /// In lines of their own: for files whose values may have any letters.
    OwnLines,
    /// There, and behind a value after a blank.
    Anywhere,
}

/// A text file, line by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    path: PathBuf,
    comments: Comments,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    indent: String,
    content: String,
    tail: String,
    end: &'static str,
}

impl Document {
    /// Takes a text apart; there is no text that it refuses.
    #[must_use]
    pub fn new(path: &Path, text: &str, comments: Comments) -> Self {
        let lines = text.split_inclusive('\n');
        Self {
            path: path.to_owned(),
            comments,
            lines: lines.map(|line| Line::new(line, comments)).collect(),
        }
    }

    /// The file's name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The place of a line, counted from 0, for messages.
    pub(super) fn origin(&self, index: usize) -> Origin {
        Origin::File {
            path: self.path.clone(),
            line: index + 1,
        }
    }

    /// Index, content and whether it is indented, of each line that has content.
    pub(in crate::config) fn contents(&self) -> impl Iterator<Item = (usize, &str, bool)> {
        let lines = self.lines.iter().enumerate();
        lines
            .filter(|(_, line)| !line.content.is_empty())
            .map(|(index, line)| (index, line.content.as_str(), line.is_indented()))
    }

    /// Replaces the content of a line; its indentation and its comment stay.
    pub(in crate::config) fn replace(&mut self, index: usize, content: &str) {
        if let Some(line) = self.lines.get_mut(index) {
            content.clone_into(&mut line.content);
        }
    }

    /// Adds a line before `index`, with the line ending of the file.
    pub(in crate::config) fn insert(&mut self, index: usize, indent: &str, content: &str) {
        let index = index.min(self.lines.len());
        let end = self.lines.first().map_or("\n", |line| line.end);
        let end = if end.is_empty() { "\n" } else { end };
        if let Some(before) = index.checked_sub(1).and_then(|at| self.lines.get_mut(at))
            && before.end.is_empty()
        {
            before.end = end;
        }
        let line = Line {
            indent: indent.to_owned(),
            content: content.to_owned(),
            tail: String::new(),
            end,
        };
        self.lines.insert(index, line);
    }

    pub(super) fn remove(&mut self, index: usize) {
        if index < self.lines.len() {
            self.lines.remove(index);
        }
    }

    /// The indentation of a line; two blanks when there is no such line.
    pub(super) fn indent(&self, index: Option<usize>) -> String {
        let line = index.and_then(|index| self.lines.get(index));
        line.map_or_else(|| "  ".to_owned(), |line| line.indent.clone())
    }

    /// How many lines there are.
    pub(in crate::config) fn len(&self) -> usize {
        self.lines.len()
    }
}

impl Line {
    fn new(line: &str, comments: Comments) -> Self {
        let (body, end) = match (line.strip_suffix("\r\n"), line.strip_suffix('\n')) {
            (Some(body), _) => (body, "\r\n"),
            (None, Some(body)) => (body, "\n"),
            (None, None) => (line, ""),
        };
        let is_blank = |letter: char| letter.is_whitespace() || letter == '\u{feff}';
        let start = body.find(|letter| !is_blank(letter)).unwrap_or(body.len());
        let (indent, rest) = body.split_at(start);
        let (content, tail) = rest.split_at(content_len(rest, comments));
        Self {
            indent: indent.to_owned(),
            content: content.to_owned(),
            tail: tail.to_owned(),
            end,
        }
    }

    fn is_indented(&self) -> bool {
        self.indent.contains(char::is_whitespace)
    }
}

/// Bytes before the comment and the blanks in front of it.
fn content_len(text: &str, comments: Comments) -> usize {
    if text.starts_with(['#', ';']) {
        return 0;
    }
    let mut kept = 0;
    let (mut is_quoted, mut after_blank) = (false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            '"' => is_quoted = !is_quoted,
            '#' | ';' if after_blank && !is_quoted && comments == Comments::Anywhere => break,
            _ => {}
        }
        after_blank = letter.is_whitespace();
        if !after_blank {
            kept = at + letter.len_utf8();
        }
    }
    kept
}

impl fmt::Display for Document {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            for part in [&line.indent, &line.content, &line.tail] {
                formatter.write_str(part)?;
            }
            formatter.write_str(line.end)?;
        }
        Ok(())
    }
}
