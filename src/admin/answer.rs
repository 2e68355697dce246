//! What is answered: words, a record, or a table.

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// Nothing to say.
    Nothing,
    /// Words.
    Text(String),
    /// A whole number.
    Number(u64),
    /// A number with a fraction.
    Decimal(f64),
    /// Yes or no.
    Flag(bool),
    /// Several texts.
    List(Vec<String>),
}

impl From<&str> for Item {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Item {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Item {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Item {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

impl From<bool> for Item {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl<T: Into<Self>> From<Option<T>> for Item {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Nothing, Into::into)
    }
}

/// Rows with the same attributes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Names of the attributes.
    pub attributes: Vec<String>,
    /// One value for each attribute.
    pub rows: Vec<Vec<Item>>,
}

/// The content of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Nothing beyond the description.
    Nothing,
    /// Attributes of one thing, in order.
    Record(Vec<(String, Item)>),
    /// Many things.
    Table(Table),
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// As of HTTP.
    pub status: u16,
    /// What happened, in words.
    pub text: String,
    /// The content.
    pub body: Body,
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// As of HTTP: 400 not understood, 403 not permitted, 404 not there, 409 does not fit to the
    /// state of the server, 500 failed, 501 not in this version.
    pub status: u16,
    /// What is wrong and what to do.
    pub text: String,
}

impl Failure {
    /// Not understood.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(400, text)
    }

    /// Not there.
    pub fn missing(text: impl Into<String>) -> Self {
        Self::new(404, text)
    }

    /// Does not fit to how things are.
    pub fn conflict(text: impl Into<String>) -> Self {
        Self::new(409, text)
    }

    /// With any status.
    pub fn new(status: u16, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
        }
    }
}

impl From<Failure> for Answer {
    fn from(failure: Failure) -> Self {
        Self {
            status: failure.status,
            text: failure.text,
            body: Body::Nothing,
        }
    }
}

impl Answer {
    /// Something was done.
    pub fn done(text: impl Into<String>) -> Self {
        Self {
            status: 200,
            text: text.into(),
            body: Body::Nothing,
        }
    }

    /// Attributes of one thing.
    #[must_use]
    pub fn record(fields: Vec<(&str, Item)>) -> Self {
        let fields = fields.into_iter();
        Self {
            status: 200,
            text: String::new(),
            body: Body::Record(fields.map(|(name, item)| (name.to_owned(), item)).collect()),
        }
    }

    /// Many things.
    #[must_use]
    pub fn table(attributes: &[(&str, &str)], rows: Vec<Vec<Item>>) -> Self {
        let attributes = attributes.iter().map(|(_, name)| (*name).to_owned());
        Self {
            status: 200,
            text: String::new(),
            body: Body::Table(Table {
                attributes: attributes.collect(),
                rows,
            }),
        }
    }

    /// Whether the command was carried out.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        self.status < 300
    }
}

/// The words for an attribute: `pending_messages` becomes `Pending Messages`.
#[must_use]
pub fn title(attribute: &str) -> String {
    let mut title = String::with_capacity(attribute.len());
    let mut is_first = true;
    for letter in attribute.chars() {
        if letter == '_' {
            title.push(' ');
            is_first = true;
        } else if is_first {
            title.extend(letter.to_uppercase());
            is_first = false;
        } else {
            title.push(letter);
        }
    }
    title
}
