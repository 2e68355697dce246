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
    // Two letters changed of four are a slip, such as two that were swapped; two of three are another word.
    let steps_max = (wanted.len() / 3).max((wanted.len() / 2).min(2));
    best.filter(|(steps, _)| *steps <= steps_max)
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

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn only_what_shares_most_of_its_letters_may_have_been_meant() {
        let words = ["all", "send", "receive", "maxbytes"];
        let near = |wanted| nearest(wanted, words);
        for (wanted, meant) in [
            ("fly", None),
            ("x", None),
            ("al", Some("all")),
            ("alll", Some("all")),
            ("sedn", Some("send")),
            ("recieve", Some("receive")),
            ("max-byte", Some("maxbytes")),
        ] {
            assert_eq!(near(wanted), meant, "{wanted}");
        }
    }
}
