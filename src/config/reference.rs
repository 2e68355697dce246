//! The reference page of parameters, made from the table.

use super::table::{FAMILIES, Kind, PARAMETERS, Parameter, Support};
use super::value::{show_bytes, show_seconds};

/// The text of `docs/PARAMETERS.md`.
#[must_use]
pub fn reference() -> String {
    let mut text = "\
# Parameters

This page is made by `steadfast check-config --reference`. Each parameter stands in the main file as
`name = value`, in a JSON file as `\"name\": value`, and on the command line as `--set name=value`. A
size is in bytes or with KB, MB or GB (powers of 1024); seconds may have three decimals; a flag is
`enabled` or `disabled` (or true, yes, on, false, no, off). A relative name of a file is relative to
the file that names it.

*list*: may be given several times. *running*: meant to be changed in a running server; all others
need a restart.

## With an effect
"
    .to_owned();
    let section = |text: &mut String, wanted: fn(&Support) -> bool| {
        text.push_str("\n| parameter | takes | default | |\n|---|---|---|---|\n");
        for row in PARAMETERS.iter().filter(|row| wanted(&row.support)) {
            text.push_str(&line(row));
        }
    };
    section(&mut text, |support| *support == Support::Full);
    text.push_str(
        "\n## Read and checked, without effect in this version\n\nGiving one is a warning that says \
         what happens instead.\n",
    );
    section(&mut text, |support| matches!(support, Support::Checked(_)));
    text.push_str(
        "\n## Parameters of EMS that have no effect\n\nGiving one is a warning, so that a file of EMS \
         can be used as it is.\n\n| parameter | instead |\n|---|---|\n",
    );
    for row in PARAMETERS {
        if let Support::None(advice) = row.support {
            text.push_str(&format!("| `{}` | {} |\n", row.name, cell(advice)));
        }
    }
    for (begin, advice) in FAMILIES {
        text.push_str(&format!("| `{begin}*` | {} |\n", cell(advice)));
    }
    text
}

fn line(row: &Parameter) -> String {
    let default = match (row.kind, row.default) {
        (_, "") => String::new(),
        (_, default) => format!("`{default}`"),
    };
    let mut notes = Vec::new();
    notes.extend(row.is_list.then_some("list"));
    notes.extend(row.is_reloadable.then_some("running"));
    let notes = match notes.join(", ") {
        empty if empty.is_empty() => empty,
        notes => format!(" *{notes}*"),
    };
    let instead = match row.support {
        Support::Checked(instead) => format!(" Now: {instead}."),
        Support::Full | Support::None(_) => String::new(),
    };
    format!(
        "| `{}` | {} | {default} | {}{instead}{notes} |\n",
        row.name,
        cell(&takes(row.kind)),
        cell(row.help)
    )
}

/// Type, unit and range.
fn takes(kind: Kind) -> String {
    let range = match kind {
        Kind::Count { min, max } => format!(", {min} to {max}"),
        Kind::Bytes { min, max } => format!(", {} to {}", show_bytes(min), show_bytes(max)),
        Kind::Seconds { min_ms, max_ms } => {
            format!(", {} to {}", show_seconds(min_ms), show_seconds(max_ms))
        }
        Kind::Milliseconds { min, max } => format!(", {min} to {max}"),
        Kind::Words(words) | Kind::Trace(words) => format!(": {}", words.join(", ")),
        _ => String::new(),
    };
    format!("{}{range}", kind.describe())
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
