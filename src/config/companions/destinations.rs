//! `queues.conf` and `topics.conf`.

use super::Companion;
use super::file::{Entry, Item, NamedFault, Report, read_lines};
use super::lines::Document;
use super::words::{Word, first, properties, quote, unquote};
use crate::config::suggest;
use crate::config::table::Kind;
use crate::config::value::{self, Value};
use crate::model::{
    Catalogue, DestinationKind, OverflowPolicy, Pattern, Prefetch, Properties, Trace,
};

/// What `flowControl` without a size means, as in EMS.
const FLOW_CONTROL_BYTES: u64 = 256 << 10;
const MINUTE_MS: u64 = 60_000;

/// A line of `queues.conf` or `topics.conf`: `name property,property=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Which of the two.
    pub kind: DestinationKind,
    /// The name, or a pattern.
    pub name: Pattern,
    /// The properties that the line itself names.
    pub properties: Properties,
}

/// Names of properties, and whether queues and topics have them.
const PROPERTIES: [(&str, bool, bool); 20] = [
    ("secure", true, true),
    ("global", true, true),
    ("exclusive", true, false),
    ("sender_name", true, true),
    ("sender_name_enforced", true, true),
    ("maxbytes", true, true),
    ("maxmsgs", true, true),
    ("overflowPolicy", true, true),
    ("flowControl", true, true),
    ("prefetch", true, true),
    ("maxRedelivery", true, false),
    ("redeliveryDelay", true, false),
    ("expiration", true, true),
    ("store", true, true),
    ("trace", true, true),
    ("import", true, true),
    ("export", false, true),
    ("channel", false, true),
    ("release_unsettled", true, false),
    ("failsafe", true, true),
];

/// For help: an example of each property, and what it does with its unit.
const EXAMPLES: [(&str, &str); 20] = [
    (
        "secure",
        "permissions (grant) are checked; without it everybody may use it",
    ),
    ("global", "known to routes"),
    ("exclusive", "one receiver at a time gets messages"),
    (
        "sender_name",
        "messages carry the name of their sender, if he does not object",
    ),
    (
        "sender_name_enforced",
        "messages carry the name of their sender",
    ),
    (
        "maxbytes=64MB",
        "most bytes that wait: a number, or one with KB, MB or GB; 0: no limit",
    ),
    ("maxmsgs=1000", "most messages that wait; 0: no limit"),
    (
        "overflowPolicy=rejectIncoming",
        "beyond these: default, discardOld (the oldest message goes), rejectIncoming (the sender gets an error)",
    ),
    (
        "flowControl=256KB",
        "senders are slowed down when so many bytes wait; without a value 256 KB",
    ),
    (
        "prefetch=5",
        "messages that a receiver gets ahead; none: one when it asks",
    ),
    (
        "maxRedelivery=5",
        "most deliveries of a message, 2 to 255; 0: no limit",
    ),
    (
        "redeliveryDelay=30sec",
        "pause before a message is delivered again, 15sec to 8hour: a number with msec, sec, min, hour or day; 0: none",
    ),
    (
        "expiration=2day",
        "life of a message, in place of what its sender said: seconds, or a number with msec, sec, min, hour or day",
    ),
    ("store=$sys.failsafe", "name of its store"),
    (
        "trace",
        "tells that messages pass; trace=body: their bodies as well",
    ),
    ("import=A", "transports that messages come from"),
    ("export=A", "transports that messages go to"),
    ("channel=A", "multicast channel"),
    (
        "release_unsettled",
        "after a takeover, what clients had not settled goes to others at once",
    ),
    ("failsafe", "as store=$sys.failsafe"),
];

/// What can be written behind the name of a queue or topic: an example of each property, what it
/// does with its unit, and whether this version applies it.
#[must_use]
pub fn property_help(kind: DestinationKind) -> Vec<(&'static str, &'static str, bool)> {
    let rows = EXAMPLES.iter().filter_map(|(example, help)| {
        let word = super::words::property(example).ok()?;
        let (entry, warnings) = Destination::new(kind, "x", &[word]).ok()?;
        let mut catalogue = Catalogue::default();
        catalogue.insert(entry.name, entry.properties);
        let is_applied = warnings.is_empty() && catalogue.not_applied().is_empty();
        Some((*example, *help, is_applied))
    });
    rows.collect()
}

impl Destination {
    fn parse(kind: DestinationKind, line: &str) -> Result<(Self, Vec<String>), NamedFault> {
        let (name, rest) = first(line);
        let unnamed = |text| (String::new(), text);
        let name = unquote(name).map_err(unnamed)?;
        let words = properties(rest).map_err(|text| (name.clone(), text))?;
        Self::new(kind, &name, &words).map_err(|text| (name, text))
    }

    pub(super) fn new(
        kind: DestinationKind,
        name: &str,
        words: &[Word],
    ) -> Result<(Self, Vec<String>), String> {
        let mut destination = Self {
            kind,
            name: Pattern::parse(name)?,
            properties: Properties::default(),
        };
        let mut warnings = Vec::new();
        let mut seen = Vec::new();
        for word in words {
            let name = known(kind, &word.name)?;
            if seen.contains(&name) {
                return Err(format!("`{name}` stands there twice; remove one"));
            }
            seen.push(name);
            // As everywhere, an empty value means "not set".
            if word.value.as_deref() != Some("") {
                destination.read(name, word.value.as_deref())?;
                warnings.extend(destination.warning(name));
            }
        }
        Ok((destination, warnings))
    }

    fn read(&mut self, name: &'static str, text: Option<&str>) -> Result<(), String> {
        let kind = self.kind;
        let own = &mut self.properties;
        let needed = || text.filter(|text| !text.is_empty());
        let value =
            || needed().ok_or_else(|| format!("`{name}` needs a value; write {name}=VALUE"));
        let mark = || -> Result<bool, String> {
            let parsed = text
                .map(|text| value::parse(Kind::Flag, text))
                .transpose()?;
            Ok(parsed != Some(Value::Flag(false)))
        };
        match name {
            "secure" => own.secure = mark()?,
            "global" => own.global = mark()?,
            "exclusive" => own.exclusive = mark()?,
            "sender_name" => own.sender_name = mark()?,
            "sender_name_enforced" => own.sender_name_enforced = mark()?,
            "release_unsettled" => own.release_unsettled = mark()?,
            "maxbytes" => own.bytes_max = value::parse_bytes(value()?)?,
            "maxmsgs" => own.messages_max = count(name, value()?, 0, u64::MAX)?,
            "overflowPolicy" => own.overflow_policy = read_policy(value()?)?,
            "flowControl" => {
                own.flow_control_bytes = match needed() {
                    Some(text) => value::parse_bytes(text)?,
                    None => FLOW_CONTROL_BYTES,
                }
            }
            "prefetch" => own.prefetch = read_prefetch(kind, value()?)?,
            "maxRedelivery" => {
                let number = count(name, value()?, 0, 255)?;
                if number == 1 {
                    return Err("`maxRedelivery` is 2 to 255, or 0 for no limit".to_owned());
                }
                own.redelivery_max = u8::try_from(number).unwrap_or(u8::MAX);
            }
            "redeliveryDelay" => {
                let delay_ms = value::parse_duration(value()?)?;
                if delay_ms != 0 && !(15_000..=480 * MINUTE_MS).contains(&delay_ms) {
                    return Err("`redeliveryDelay` is 15sec to 8hour, or 0 for none".to_owned());
                }
                own.redelivery_delay_ms = delay_ms;
            }
            "expiration" => own.expiration_ms = value::parse_duration(value()?)?,
            "store" => own.store = Some(value()?.to_owned()),
            "failsafe" => own.store = Some("$sys.failsafe".to_owned()),
            "trace" => {
                own.trace = match text {
                    None => Some(Trace::Passage),
                    Some("body") => Some(Trace::Body),
                    Some(other) => {
                        return Err(format!("`trace={other}`: write trace or trace=body"));
                    }
                }
            }
            "import" => own.import = names(value()?),
            "export" => own.export = names(value()?),
            _ => own.channel = Some(value()?.to_owned()),
        }
        Ok(())
    }

    fn warning(&self, name: &str) -> Option<String> {
        let text = match name {
            "global" if !self.properties.global => return None,
            "global" => "servers do not forward messages to each other",
            "import" | "export" => "there are no gateways to other systems",
            "channel" => "there is no multicast",
            "failsafe" => "it means store=$sys.failsafe; write that",
            _ => return None,
        };
        Some(format!("`{name}` has no effect in this version: {text}")).map(|full| {
            if name == "failsafe" {
                format!("`failsafe`: {text}")
            } else {
                full
            }
        })
    }

    /// The properties as they are written.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let own = &self.properties;
        let mut words = Vec::new();
        for (is_set, name) in [
            (own.secure, "secure"),
            (own.global, "global"),
            (own.exclusive, "exclusive"),
            (own.sender_name, "sender_name"),
            (own.sender_name_enforced, "sender_name_enforced"),
            (own.release_unsettled, "release_unsettled"),
        ] {
            words.extend(is_set.then(|| name.to_owned()));
        }
        let mut add = |name: &str, value: Option<String>| {
            words.extend(value.map(|value| format!("{name}={value}")));
        };
        let nonzero = |number: u64| (number > 0).then_some(number);
        add("maxbytes", nonzero(own.bytes_max).map(value::write_bytes));
        add(
            "maxmsgs",
            nonzero(own.messages_max).map(|number| number.to_string()),
        );
        add(
            "overflowPolicy",
            match own.overflow_policy {
                OverflowPolicy::Default => None,
                OverflowPolicy::DiscardOld => Some("discardOld".to_owned()),
                OverflowPolicy::RejectIncoming => Some("rejectIncoming".to_owned()),
            },
        );
        add(
            "flowControl",
            nonzero(own.flow_control_bytes).map(value::write_bytes),
        );
        add(
            "prefetch",
            own.prefetch.map(|prefetch| match prefetch {
                Prefetch::OnDemand => "none".to_owned(),
                Prefetch::Messages(number) => number.to_string(),
            }),
        );
        add(
            "maxRedelivery",
            nonzero(own.redelivery_max.into()).map(|number| number.to_string()),
        );
        add(
            "redeliveryDelay",
            nonzero(own.redelivery_delay_ms).map(value::write_duration),
        );
        add(
            "expiration",
            nonzero(own.expiration_ms).map(value::write_duration),
        );
        add("store", own.store.as_deref().map(quote));
        let list = |names: &[String]| (!names.is_empty()).then(|| quote(&names.join(",")));
        add("import", list(&own.import));
        add("export", list(&own.export));
        add("channel", own.channel.as_deref().map(quote));
        words.extend(own.trace.map(|trace| match trace {
            Trace::Passage => "trace".to_owned(),
            Trace::Body => "trace=body".to_owned(),
        }));
        words
    }
}

/// The property as the table spells it.
fn known(kind: DestinationKind, word: &str) -> Result<&'static str, String> {
    let row = PROPERTIES
        .iter()
        .find(|(name, ..)| name.eq_ignore_ascii_case(word));
    let has = |(_, queue, topic): &(&str, bool, bool)| match kind {
        DestinationKind::Queue => *queue,
        DestinationKind::Topic => *topic,
    };
    match row {
        Some(row) if has(row) => Ok(row.0),
        Some((name, ..)) => Err(format!("`{name}` is no property of a {kind}; remove it")),
        None => {
            let names: Vec<&str> = PROPERTIES
                .iter()
                .filter(|row| has(row))
                .map(|(name, ..)| *name)
                .collect();
            let hint = suggest::hint(word, &names);
            Err(format!("unknown property `{word}`{hint}"))
        }
    }
}

pub(super) fn count(name: &str, text: &str, min: u64, max: u64) -> Result<u64, String> {
    match value::parse(Kind::Count { min, max }, text) {
        Ok(Value::Number(number)) => Ok(number),
        Ok(_) => Ok(0),
        Err(fault) => Err(format!("{name}: {fault}")),
    }
}

fn read_policy(text: &str) -> Result<OverflowPolicy, String> {
    match text.to_ascii_lowercase().as_str() {
        "default" => Ok(OverflowPolicy::Default),
        "discardold" => Ok(OverflowPolicy::DiscardOld),
        "rejectincoming" => Ok(OverflowPolicy::RejectIncoming),
        _ => Err(format!(
            "`overflowPolicy={text}`: write default, discardOld or rejectIncoming"
        )),
    }
}

fn read_prefetch(kind: DestinationKind, text: &str) -> Result<Option<Prefetch>, String> {
    if text.eq_ignore_ascii_case("none") {
        return match kind {
            DestinationKind::Queue => Ok(Some(Prefetch::OnDemand)),
            DestinationKind::Topic => {
                Err("`prefetch=none` is for queues; write a number of messages".to_owned())
            }
        };
    }
    let number = count("prefetch", text, 0, u32::MAX.into())?;
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    Ok((number > 0).then_some(Prefetch::Messages(number)))
}

fn names(text: &str) -> Vec<String> {
    let names = text.split(',').map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

impl Entry for Destination {
    fn key(&self) -> String {
        self.name.to_string()
    }

    fn header(&self) -> String {
        let words = self.words().join(",");
        format!("{} {words}", self.name).trim_end().to_owned()
    }

    fn read(which: Companion, document: &Document, report: &mut Report) -> Vec<Item<Self>> {
        let kind = match which {
            Companion::Topics => DestinationKind::Topic,
            _ => DestinationKind::Queue,
        };
        read_lines(document, report, |line| Self::parse(kind, line))
    }
}
