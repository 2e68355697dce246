//! What else in the configuration names a queue or topic that is deleted.

use super::answer::Failure;
use crate::config::companions::{AclEntry, Companions, Entry};
use crate::model::{Bridge, DestinationKind, Pattern};

/// Whether a destination is among those that are deleted.
type IsMeant<'a> = &'a dyn Fn(&Pattern) -> bool;

/// A bridge would make its target again as soon as it is deleted, and one without its source would do nothing, so
/// neither goes while the bridge is there.
///
/// # Errors
/// There are such bridges, and the commands that remove them.
pub(super) fn check_bridges(files: &Companions, is_meant: IsMeant<'_>) -> Result<(), Failure> {
    let mut named = Vec::new();
    let mut commands = Vec::new();
    for bridge in files.bridges.entries() {
        let key = bridge.key();
        let (kind, source) = &bridge.source;
        if *kind == DestinationKind::Queue && !source.is_wildcard() && is_meant(source) {
            named.push(format!("queue {source} is the source of the bridge {key}"));
            commands.push(format!("delete bridge source={key}"));
            continue;
        }
        for target in targets(bridge, is_meant) {
            named.push(format!(
                "queue {target} is a target of the bridge {key}, which would make it again at once"
            ));
            commands.push(format!("delete bridge source={key} target=queue:{target}"));
        }
    }
    if named.is_empty() {
        return Ok(());
    }
    Err(Failure::conflict(format!(
        "{}; first: {}",
        named.join("; "),
        commands.join(", then ")
    )))
}

/// The queues that a bridge makes.
fn targets<'a>(bridge: &'a Bridge, is_meant: IsMeant<'a>) -> impl Iterator<Item = &'a Pattern> {
    let targets = bridge.targets.iter();
    let queues = targets.filter(|(kind, _)| *kind == DestinationKind::Queue);
    queues.map(|(_, name)| name).filter(move |it| is_meant(it))
}

/// The queues that bridges make again, for an answer; empty for none.
pub(super) fn made_again(files: &Companions, is_meant: IsMeant<'_>) -> String {
    let mut names: Vec<&str> = Vec::new();
    for bridge in files.bridges.entries() {
        names.extend(targets(bridge, is_meant).map(Pattern::as_str));
    }
    names.sort_unstable();
    names.dedup();
    match names.as_slice() {
        [] => String::new(),
        names => format!("; bridges make again: {}", names.join(", ")),
    }
}

/// How much still names what was deleted, for an answer; empty for nothing.
pub(super) fn still_named(
    files: &Companions,
    kind: DestinationKind,
    is_meant: IsMeant<'_>,
) -> String {
    let permissions = files.acl.entries().filter(|entry| match entry {
        AclEntry::Destination(grant) => grant.kind == kind && is_meant(&grant.name),
        AclEntry::Admin(_) => false,
    });
    let mut counts = vec![(permissions.count(), "permission")];
    if kind == DestinationKind::Topic {
        let durables = files.durables.entries();
        let durables = durables.filter(|durable| is_meant(&durable.topic));
        counts.push((durables.count(), "durable"));
        let names = |end: &(DestinationKind, Pattern)| end.0 == kind && is_meant(&end.1);
        let bridges = files.bridges.entries();
        let bridges =
            bridges.filter(|bridge| names(&bridge.source) || bridge.targets.iter().any(names));
        counts.push((bridges.count(), "bridge"));
    }
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts
        .map(|(count, what)| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        })
        .collect();
    match counts.as_slice() {
        [] => String::new(),
        counts => format!("; still named by {}", counts.join(", ")),
    }
}
