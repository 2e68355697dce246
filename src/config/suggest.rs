//! What somebody may have meant.

/// The candidate that is spelled most like `wanted`, if any is near.
pub(crate) fn nearest<'a>(
    wanted: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let wanted = wanted.to_ascii_lowercase().replace('-', "_");
    if wanted.len() > 100 {
        return None;
    }
    let steps =
        |candidate: &str| distance(&wanted, &candidate.to_ascii_lowercase().replace('-', "_"));
    let best = candidates
        .into_iter()
        .map(|candidate| (steps(candidate), candidate))
        .min();
    best.filter(|(steps, _)| *steps <= (wanted.len() / 3).max(2))
        .map(|(_, candidate)| candidate)
}

/// `; did you mean ...?`, or all candidates.
pub(super) fn hint(wanted: &str, candidates: &[&str]) -> String {
    match nearest(wanted, candidates.iter().copied()) {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None => format!("; write one of {}", candidates.join(", ")),
    }
}

/// Levenshtein distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, letter) in left.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let replaced = previous[column] + usize::from(letter != *other);
            current.push(
                replaced
                    .min(previous[column + 1] + 1)
                    .min(current[column] + 1),
            );
        }
        previous = current;
    }
    previous.last().copied().unwrap_or(0)
}
