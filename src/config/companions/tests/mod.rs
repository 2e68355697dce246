//! Each grammar with its faults, edits that change one line, and what the files say together.

mod acl;
mod destinations;
mod generated;
mod json;
mod people;
mod sections;
mod subscriptions;
mod together;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::{Config, Given, MainFile, load_anyway};

fn parse<E: Entry>(which: Companion, text: &str) -> (File<E>, Report) {
    let mut report = Report::default();
    let file = File::parse(which, Path::new("f.conf"), text, &mut report);
    (file, report)
}

fn good<E: Entry>(which: Companion, text: &str) -> File<E> {
    let (file, report) = parse(which, text);
    assert_eq!(report, Report::default(), "{text}");
    file
}

/// Faults, then warnings, one a line.
fn said(which: Companion, text: &str) -> String {
    let report = match which {
        Companion::Users => parse::<User>(which, text).1,
        Companion::Groups => parse::<Group>(which, text).1,
        Companion::Acl => parse::<AclEntry>(which, text).1,
        Companion::Queues | Companion::Topics => parse::<Destination>(which, text).1,
        Companion::Durables => parse::<Durable>(which, text).1,
        Companion::Bridges => parse::<Bridge>(which, text).1,
        Companion::Factories | Companion::Stores | Companion::Routes => {
            parse::<Section>(which, text).1
        }
    };
    let all = report.faults.iter().chain(&report.warnings);
    let lines: Vec<String> = all.map(ToString::to_string).collect();
    lines.join("\n")
}

const SELECTOR: &str = "selectors are not supported by this version, and without its selector it \
                        would get messages that it must not get; remove the entry or the selector";

/// Each text has the fault that is told.
fn check_faults(rows: &[(Companion, &str, &str)]) {
    for (which, text, wanted) in rows {
        let wanted = format!("f.conf:{wanted}");
        assert_eq!(said(*which, text), wanted, "{which:?}: {text}");
    }
}

// What the files say together

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(list: &[(&str, &str)]) -> Files {
    let file =
        |(name, text): &(&str, &str)| (Path::new("/etc/pair").join(name), text.as_bytes().to_vec());
    list.iter().map(file).collect()
}

fn given(main: &str) -> Given {
    let path = if main.starts_with('{') {
        "a.json"
    } else {
        "a.conf"
    };
    Given {
        file: Some(MainFile {
            path: Path::new("/etc/pair").join(path),
            text: main.to_owned(),
        }),
        ..Given::default()
    }
}

/// The configuration even where this version refuses to run it.
fn config(main: &str) -> Config {
    load_anyway(&given(main)).0
}

/// Faults and warnings of reading the companions.
fn together(main: &str, list: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let there = files(list);
    let reader = |path: &Path| {
        there
            .get(path)
            .cloned()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    let lines = |faults: Vec<crate::config::Fault>| -> Vec<String> {
        let lines = faults.iter().map(ToString::to_string);
        let told = |line: &String| !line.contains("without effect in this version");
        lines.filter(told).collect()
    };
    match read(&config(main), &reader) {
        Ok((_, warnings)) => (Vec::new(), lines(warnings)),
        Err(faults) => (lines(faults.faults), lines(faults.warnings)),
    }
}

fn at(lines: &[&str]) -> Vec<String> {
    lines
        .iter()
        .map(|line| format!("/etc/pair/{line}"))
        .collect()
}
