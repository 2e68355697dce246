//! Names of destinations, and patterns that stand for many of them.

use std::fmt;

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 249;
/// Most elements of a name.
const ELEMENTS_MAX: usize = 64;
/// Longest element, in bytes.
const ELEMENT_BYTES_MAX: usize = 127;

/// Queue or topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DestinationKind {
    /// Each message goes to one receiver.
    Queue,
    /// Each message goes to every subscription.
    Topic,
}

impl DestinationKind {
    /// The word of the configuration files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Topic => "topic",
        }
    }
}

impl fmt::Display for DestinationKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

/// The name of a destination, or a pattern: elements with dots between them, where the element
/// `*` stands for any one element and a last element `>` for one or more.
///
/// Names are compared letter by letter; case counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Reads a name or a pattern.
    ///
    /// # Errors
    /// What is wrong with it: an empty element, a limit, a wildcard inside of an element, `>`
    /// before the end, a blank or a control character.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a name is missing".to_owned());
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(format!(
                "a name has at most {NAME_BYTES_MAX} bytes, this one has {}",
                text.len()
            ));
        }
        let count = text.split('.').count();
        if count > ELEMENTS_MAX {
            return Err(format!(
                "a name has at most {ELEMENTS_MAX} elements, this one has {count}"
            ));
        }
        for (index, element) in text.split('.').enumerate() {
            check_element(text, element, index + 1 == count)?;
        }
        Ok(Self(text.into()))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it can stand for more than one name.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.elements().any(|element| matches!(element, "*" | ">"))
    }

    /// Whether it stands for this name. A `*` or `>` in `name` is a letter like others.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.covers_elements(name, false)
    }

    /// Whether every name that `other` stands for is one that this stands for.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.covers_elements(&other.0, true)
    }

    fn covers_elements(&self, other: &str, other_is_pattern: bool) -> bool {
        let mut others = other.split('.');
        for element in self.elements() {
            let Some(other) = others.next() else {
                return false;
            };
            match element {
                // `>` takes what is left, and there is at least one element.
                ">" => return true,
                "*" if other_is_pattern && other == ">" => return false,
                "*" => {}
                literal if literal == other => {}
                _ => return false,
            }
        }
        others.next().is_none()
    }

    /// Whether there is a name that both stand for.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.elements(), other.elements());
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) | (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
                (Some(one), Some(two)) if one == "*" || two == "*" || one == two => {}
                _ => return false,
            }
        }
    }

    /// Elements that are no wildcards; the larger, the more is said about the name.
    pub(super) fn literals(&self) -> usize {
        let is_literal = |element: &&str| !matches!(*element, "*" | ">");
        self.elements().filter(is_literal).count()
    }

    fn elements(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

fn check_element(name: &str, element: &str, is_last: bool) -> Result<(), String> {
    if element.is_empty() {
        return Err(format!(
            "`{name}` has an empty element; write one dot between two elements"
        ));
    }
    if element.len() > ELEMENT_BYTES_MAX {
        return Err(format!(
            "an element of a name has at most {ELEMENT_BYTES_MAX} bytes, one of `{name}` has {}",
            element.len()
        ));
    }
    if element == ">" && !is_last {
        return Err(format!("`{name}`: `>` can only be the last element"));
    }
    if element.len() > 1 && element.contains(['*', '>']) {
        return Err(format!(
            "`{name}`: `*` and `>` stand for whole elements, as in `a.*.c` and `a.>`"
        ));
    }
    if element.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        return Err(format!("`{name}`: a name has no blanks"));
    }
    Ok(())
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
