//! Properties of destinations, and how they are inherited.

use std::collections::BTreeMap;

use super::name::Pattern;

/// What happens to a message that would exceed `maxbytes` or `maxmsgs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum OverflowPolicy {
    /// A queue rejects it; a subscription of a topic that is full does not get it.
    #[default]
    Default,
    /// The oldest message makes room.
    DiscardOld,
    /// The sender gets an error.
    RejectIncoming,
}

/// How many messages a receiver gets ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefetch {
    /// None: one when it asks.
    OnDemand,
    /// So many, at least 1.
    Messages(u32),
}

/// What is traced when a message passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trace {
    /// That it passed.
    Passage,
    /// That, and its body.
    Body,
}

/// The properties of a queue, a topic, or all that match a pattern. 0 and `None` mean: not said
/// here, inherited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Permissions are checked.
    pub secure: bool,
    /// Known to routes.
    pub global: bool,
    /// One receiver at a time gets messages. Queues only.
    pub exclusive: bool,
    /// Messages carry the name of their sender, if he does not object.
    pub sender_name: bool,
    /// Messages carry the name of their sender in any case.
    pub sender_name_enforced: bool,
    /// Most bytes that wait.
    pub bytes_max: u64,
    /// Most messages that wait.
    pub messages_max: u64,
    /// What happens beyond these.
    pub overflow_policy: OverflowPolicy,
    /// Senders are slowed down when so many bytes wait.
    pub flow_control_bytes: u64,
    /// Messages that a receiver gets ahead.
    pub prefetch: Option<Prefetch>,
    /// Most deliveries of a message, 2 to 255. Queues only.
    pub redelivery_max: u8,
    /// Pause before a message is delivered again. Queues only.
    pub redelivery_delay_ms: u64,
    /// Life of a message, in place of what its sender said.
    pub expiration_ms: u64,
    /// Name of its store.
    pub store: Option<String>,
    /// What is traced.
    pub trace: Option<Trace>,
    /// Transports that messages come from.
    pub import: Vec<String>,
    /// Transports that messages go to. Topics only.
    pub export: Vec<String>,
    /// Multicast channel. Topics only.
    pub channel: Option<String>,
    /// After a takeover, unsettled messages of clients that have not come back go to others at
    /// once. Queues only.
    pub release_unsettled: bool,
}

impl Properties {
    /// These properties and what is inherited from `parents`.
    ///
    /// Marks (`secure` and its like) of a parent cannot be taken back. A value of one's own wins
    /// over those of parents. Of several parents the largest number counts, the strictest
    /// overflow policy, and the store and channel of the pattern that says most about the name.
    #[must_use]
    pub fn inherit(&self, parents: &[(&Pattern, &Self)]) -> Self {
        let any = |own: bool, mark: fn(&Self) -> bool| {
            own || parents.iter().any(|(_, parent)| mark(parent))
        };
        let most = |own: u64, value: fn(&Self) -> u64| {
            let inherited = parents.iter().map(|(_, parent)| value(parent)).max();
            if own > 0 { own } else { inherited.unwrap_or(0) }
        };
        let mut nearest: Vec<_> = parents.to_vec();
        nearest.sort_by(|(one, _), (other, _)| {
            (other.literals(), other.as_str()).cmp(&(one.literals(), one.as_str()))
        });
        let text = |own: &Option<String>, value: fn(&Self) -> &Option<String>| {
            let inherited = || nearest.iter().find_map(|(_, parent)| value(parent).clone());
            own.clone().or_else(inherited)
        };
        let list = |value: fn(&Self) -> &Vec<String>| {
            let inherited = nearest.iter().flat_map(|(_, parent)| value(parent));
            let mut all: Vec<String> = value(self).iter().chain(inherited).cloned().collect();
            let mut seen = std::collections::BTreeSet::new();
            all.retain(|name| seen.insert(name.clone()));
            all
        };
        let policies = parents.iter().map(|(_, parent)| parent.overflow_policy);
        Self {
            secure: any(self.secure, |parent| parent.secure),
            global: any(self.global, |parent| parent.global),
            exclusive: any(self.exclusive, |parent| parent.exclusive),
            sender_name: any(self.sender_name, |parent| parent.sender_name),
            sender_name_enforced: any(self.sender_name_enforced, |parent| {
                parent.sender_name_enforced
            }),
            bytes_max: most(self.bytes_max, |parent| parent.bytes_max),
            messages_max: most(self.messages_max, |parent| parent.messages_max),
            overflow_policy: match self.overflow_policy {
                OverflowPolicy::Default => policies.max().unwrap_or_default(),
                own => own,
            },
            flow_control_bytes: most(self.flow_control_bytes, |parent| parent.flow_control_bytes),
            prefetch: self.prefetch.or_else(|| inherited_prefetch(parents)),
            redelivery_max: if self.redelivery_max > 0 {
                self.redelivery_max
            } else {
                let inherited = parents.iter().map(|(_, parent)| parent.redelivery_max);
                inherited.max().unwrap_or(0)
            },
            redelivery_delay_ms: most(self.redelivery_delay_ms, |parent| {
                parent.redelivery_delay_ms
            }),
            expiration_ms: most(self.expiration_ms, |parent| parent.expiration_ms),
            store: text(&self.store, |parent| &parent.store),
            trace: self
                .trace
                .max(parents.iter().filter_map(|(_, parent)| parent.trace).max()),
            import: list(|properties| &properties.import),
            export: list(|properties| &properties.export),
            channel: text(&self.channel, |parent| &parent.channel),
            release_unsettled: any(self.release_unsettled, |parent| parent.release_unsettled),
        }
    }
}

/// The largest number of the parents; on demand when that is all that they say.
fn inherited_prefetch(parents: &[(&Pattern, &Properties)]) -> Option<Prefetch> {
    let said = parents.iter().filter_map(|(_, parent)| parent.prefetch);
    said.max_by_key(|prefetch| match prefetch {
        Prefetch::OnDemand => 0,
        Prefetch::Messages(number) => *number,
    })
}

/// All queues or all topics that the configuration names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    entries: BTreeMap<Pattern, Properties>,
}

impl Catalogue {
    /// Adds a name or a pattern, or replaces its properties.
    pub fn insert(&mut self, name: Pattern, properties: Properties) {
        self.entries.insert(name, properties);
    }

    /// Every name and pattern with its own properties, sorted.
    pub fn entries(&self) -> impl Iterator<Item = (&Pattern, &Properties)> {
        self.entries.iter()
    }

    /// Whether the configuration names exactly this destination.
    #[must_use]
    pub fn is_static(&self, name: &Pattern) -> bool {
        !name.is_wildcard() && self.entries.contains_key(name)
    }

    /// The properties of a destination, inherited ones included. `None` when nothing in the
    /// configuration matches: such a destination may not be created on use.
    #[must_use]
    pub fn effective(&self, name: &str) -> Option<Properties> {
        let matching = self
            .entries
            .iter()
            .filter(|(pattern, _)| pattern.matches(name));
        let (own, parents): (Vec<_>, Vec<_>) =
            matching.partition(|(pattern, _)| pattern.as_str() == name);
        if own.is_empty() && parents.is_empty() {
            return None;
        }
        let nothing = Properties::default();
        let own = own.first().map_or(&nothing, |(_, properties)| *properties);
        Some(own.inherit(&parents))
    }

    /// Properties that entries set and that this version does not apply, by their names in the
    /// configuration files, sorted. Those that concern other servers and gateways are told apart.
    #[must_use]
    pub fn not_applied(&self) -> Vec<&'static str> {
        let mut names = std::collections::BTreeSet::new();
        for own in self.entries.values() {
            let set = [
                ("flowControl", own.flow_control_bytes > 0),
                ("maxRedelivery", own.redelivery_max > 0),
                ("prefetch", own.prefetch.is_some()),
                ("redeliveryDelay", own.redelivery_delay_ms > 0),
                ("sender_name", own.sender_name),
                ("sender_name_enforced", own.sender_name_enforced),
                ("store", own.store.is_some()),
                ("trace", own.trace.is_some()),
            ];
            names.extend(set.iter().filter(|(_, set)| *set).map(|(name, _)| *name));
        }
        names.into_iter().collect()
    }

    /// The names and patterns whose destinations are `secure`.
    pub fn secure(&self) -> impl Iterator<Item = &Pattern> {
        let is_secure = |(_, properties): &(&Pattern, &Properties)| properties.secure;
        let secure = self.entries.iter().filter(is_secure);
        secure.map(|(pattern, _)| pattern)
    }
}
