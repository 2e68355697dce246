//! A file of entries that can be changed one at a time.

use std::fmt;
use std::path::Path;

use super::Companion;
use super::lines::{Comments, Document, LINE_CHARS_MAX};
use crate::config::file::first_word;
use crate::config::{Fault, Origin};

/// Faults and warnings of one reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// What is worth knowing.
    pub warnings: Vec<Fault>,
}

impl Report {
    pub(in crate::config) fn fault(&mut self, origin: Origin, name: &str, text: impl Into<String>) {
        self.faults.push(Fault {
            origin,
            parameter: name.to_owned(),
            text: text.into(),
        });
    }

    pub(in crate::config) fn warn(&mut self, origin: Origin, name: &str, text: impl Into<String>) {
        self.warnings.push(Fault {
            origin,
            parameter: name.to_owned(),
            text: text.into(),
        });
    }
}

/// One thing that a file describes, in one line or in a section.
pub trait Entry: Clone + PartialEq + Sized {
    /// Whether two entries with one key add up; otherwise the second is a fault.
    const ADD_UP: bool = false;

    /// What makes it one of its kind: no two entries of a file have the same.
    fn key(&self) -> String;

    /// Its line, or the first line of its section.
    fn header(&self) -> String;

    /// The other lines of its section, each with what makes it unique there.
    fn inner(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Reads all entries of a file.
    fn read(which: Companion, document: &Document, report: &mut Report) -> Vec<Item<Self>>;
}

/// An entry and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<E> {
    /// The entry.
    pub entry: E,
    /// Where it begins.
    pub origin: Origin,
    /// Index of its first line; in a section of a JSON file its place in the list.
    pub(super) index: usize,
    /// Keys and indexes of the other lines of its section.
    pub(super) inner: Vec<(String, usize)>,
}

/// A file: its text and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File<E> {
    which: Companion,
    document: Document,
    items: Vec<Item<E>>,
    /// Whether it is a section of a JSON file, whose text is not held here.
    is_section: bool,
}

/// The place of an entry that no list has yet.
pub(super) const NEW: usize = usize::MAX;

impl<E: Entry> File<E> {
    /// Reads a file; what cannot be understood is left out and told.
    pub fn parse(which: Companion, path: &Path, text: &str, report: &mut Report) -> Self {
        let document = Document::new(path, text, which.comments());
        for (index, content, _) in document.contents() {
            if content.len() > LINE_CHARS_MAX {
                let text = format!("the line is longer than {LINE_CHARS_MAX} characters");
                report.fault(document.origin(index), "", text);
            } else if content.ends_with(" \\") && which.comments() == Comments::Anywhere {
                let text = "a line cannot be continued in the next one; write it in one line";
                report.fault(document.origin(index), "", text);
            }
        }
        let broken = report.faults.clone();
        let items = E::read(which, &document, report);
        let is_known = |fault: &Fault| broken.iter().any(|known| known.origin == fault.origin);
        report
            .faults
            .retain(|fault| broken.contains(fault) || !is_known(fault));
        report_doubles(&items, report);
        Self {
            which,
            document,
            items,
            is_section: false,
        }
    }

    /// A file that is not there.
    #[must_use]
    pub fn empty(which: Companion, path: &Path) -> Self {
        Self {
            is_section: false,
            ..Self::section(which, path, Vec::new())
        }
    }

    /// A section of a JSON file.
    pub(in crate::config) fn section(which: Companion, path: &Path, items: Vec<Item<E>>) -> Self {
        Self {
            which,
            document: Document::new(path, "", which.comments()),
            items,
            is_section: true,
        }
    }

    /// The file's name.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.document.path()
    }

    /// Each entry and where it stands, in the order of the file.
    #[must_use]
    pub fn items(&self) -> &[Item<E>] {
        &self.items
    }

    /// Each entry, in the order of the file.
    pub fn entries(&self) -> impl Iterator<Item = &E> {
        self.items.iter().map(|item| &item.entry)
    }

    /// The entry with a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&E> {
        self.entries().find(|entry| entry.key() == key)
    }

    /// Adds an entry, or changes the one with its key. Lines that say what they should are not
    /// touched, nor is anything else in the file.
    ///
    /// # Errors
    /// When the entry cannot be written so that it is read back as it is; nothing is changed.
    pub fn set(&mut self, entry: &E) -> Result<(), String> {
        if self.is_section {
            self.set_item(entry);
            return Ok(());
        }
        let mut document = self.document.clone();
        let key = entry.key();
        let (same, mut wanted): (Vec<_>, Vec<_>) =
            self.items.iter().partition(|item| item.entry.key() == key);
        match same.split_first() {
            Some((first, doubles)) => {
                // They stand below the first, whose indexes stay.
                remove_lines(&mut document, doubles);
                change(&mut document, first, entry);
            }
            None => append(&mut document, entry),
        }
        // As the file will be read, whatever letters the entry has.
        let document = Document::new(self.path(), &document.to_string(), self.which.comments());
        let mut report = Report::default();
        let items = E::read(self.which, &document, &mut report);
        let (written, others): (Vec<_>, Vec<_>) =
            items.iter().partition(|item| item.entry.key() == key);
        let is_right = written.iter().map(|item| &item.entry).eq([entry])
            && others
                .into_iter()
                .map(|item| &item.entry)
                .eq(wanted.drain(..).map(|item| &item.entry));
        if !is_right {
            let reason = report.faults.first().map_or_else(
                || "it would be read back as something else".to_owned(),
                |fault| fault.text.clone(),
            );
            return Err(format!(
                "`{}` cannot be written to {}: {reason}",
                entry.key(),
                self.path().display()
            ));
        }
        self.document = document;
        self.items = items;
        Ok(())
    }

    /// Whoever writes the JSON file looks whether it is read back as it is.
    fn set_item(&mut self, entry: &E) {
        let key = entry.key();
        let mut is_there = false;
        self.items.retain_mut(|item| {
            if item.entry.key() != key {
                return true;
            }
            item.entry = entry.clone();
            !std::mem::replace(&mut is_there, true)
        });
        if !is_there {
            self.items.push(Item {
                entry: entry.clone(),
                origin: Origin::File {
                    path: self.path().to_owned(),
                    line: 0,
                },
                index: NEW,
                inner: Vec::new(),
            });
        }
    }

    /// Removes the entries with a key; gives whether there were any. Comments stay.
    pub fn remove(&mut self, key: &str) -> bool {
        if self.is_section {
            let before = self.items.len();
            self.items.retain(|item| item.entry.key() != key);
            return self.items.len() < before;
        }
        let is_gone = |item: &&Item<E>| item.entry.key() == key;
        let gone: Vec<_> = self.items.iter().filter(is_gone).collect();
        let is_there = !gone.is_empty();
        remove_lines(&mut self.document, &gone);
        self.items = E::read(self.which, &self.document, &mut Report::default());
        is_there
    }
}

/// The text to write to the file; nothing for a section of a JSON file.
impl<E> fmt::Display for File<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.document.fmt(formatter)
    }
}

fn remove_lines<E>(document: &mut Document, items: &[&Item<E>]) {
    let lines = items.iter().flat_map(|item| {
        let inner = item.inner.iter().map(|(_, index)| *index);
        inner.chain([item.index])
    });
    let mut indexes: Vec<usize> = lines.collect();
    indexes.sort_unstable();
    for index in indexes.iter().rev() {
        document.remove(*index);
    }
}

fn append<E: Entry>(document: &mut Document, entry: &E) {
    document.insert(document.len(), "", &entry.header());
    for (_, content) in entry.inner() {
        document.insert(document.len(), "  ", &content);
    }
}

/// Changes as few lines as possible.
fn change<E: Entry>(document: &mut Document, item: &Item<E>, entry: &E) {
    let header = entry.header();
    if header != item.entry.header() {
        document.replace(item.index, &header);
    }
    let (before, after) = (item.entry.inner(), entry.inner());
    let find = |lines: &[(String, String)], key: &str| {
        let line = lines.iter().find(|(other, _)| other == key);
        line.map(|(_, content)| content.clone())
    };
    let mut last = item.index;
    let indent = document.indent(item.inner.last().map(|(_, index)| *index));
    let mut gone = Vec::new();
    for (key, index) in &item.inner {
        match find(&after, key) {
            Some(content) => {
                if find(&before, key).as_ref() != Some(&content) {
                    document.replace(*index, &content);
                }
                last = last.max(*index);
            }
            // A line that says nothing may stay.
            None if find(&before, key).is_none() => {}
            None => gone.push(*index),
        }
    }
    let is_there = |key: &String| item.inner.iter().any(|(other, _)| other == key);
    for (at, (_, content)) in after.iter().filter(|(key, _)| !is_there(key)).enumerate() {
        document.insert(last + 1 + at, &indent, content);
        for index in gone.iter_mut().filter(|index| **index > last) {
            *index += 1;
        }
    }
    gone.sort_unstable();
    for index in gone.iter().rev() {
        document.remove(*index);
    }
}

pub(super) fn report_doubles<E: Entry>(items: &[Item<E>], report: &mut Report) {
    let mut seen = std::collections::BTreeMap::new();
    for item in items {
        let key = item.entry.key();
        if let Some(first) = seen.get(&key) {
            if E::ADD_UP {
                let text = format!("it is there already, at {first}; both count");
                report.warn(item.origin.clone(), &key, text);
            } else {
                let text = format!("it is there already, at {first}; remove one of the two");
                report.fault(item.origin.clone(), &key, text);
            }
        } else {
            seen.insert(key, item.origin.clone());
        }
    }
}

/// Entries that each stand in one line.
pub(super) fn read_lines<E: Entry>(
    document: &Document,
    report: &mut Report,
    mut read: impl FnMut(&str) -> Result<(E, Vec<String>), NamedFault>,
) -> Vec<Item<E>> {
    let mut items = Vec::new();
    for (index, content, _) in document.contents() {
        let origin = document.origin(index);
        match read(content) {
            Ok((entry, warnings)) => {
                for text in warnings {
                    report.warn(origin.clone(), &entry.key(), text);
                }
                items.push(Item {
                    entry,
                    origin,
                    index,
                    inner: Vec::new(),
                });
            }
            Err((name, text)) => report.fault(origin, &name, text),
        }
    }
    items
}

/// What is wrong and the name that it is about.
pub(super) type NamedFault = (String, String);

/// A `[name]` line and the lines below it.
pub(super) struct Section<'a> {
    pub(super) name: &'a str,
    pub(super) index: usize,
    pub(super) lines: Vec<(usize, &'a str)>,
}

/// Takes a file with `[name]` lines apart.
pub(super) fn sections<'a>(document: &'a Document, report: &mut Report) -> Vec<Section<'a>> {
    let mut sections: Vec<Section<'a>> = Vec::new();
    let mut is_lost = false;
    for (index, content, _) in document.contents() {
        if let Some(rest) = content.strip_prefix('[') {
            let name = rest.strip_suffix(']').map(str::trim);
            is_lost = name.is_none_or(str::is_empty);
            match name.filter(|name| !name.is_empty()) {
                Some(name) => sections.push(Section {
                    name,
                    index,
                    lines: Vec::new(),
                }),
                None => {
                    let text = format!("`{content}`: write a section as [name]");
                    report.fault(document.origin(index), "", text);
                }
            }
        } else if let Some(section) = sections.last_mut().filter(|_| !is_lost) {
            section.lines.push((index, content));
        } else if !is_lost {
            let text = format!("`{}`: a line before the first [name]", first_word(content));
            report.fault(document.origin(index), "", text);
        }
    }
    sections
}
