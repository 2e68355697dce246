//! From the names of the files to what they say.

use std::io;
use std::path::Path;

use super::file::{Entry, File, Report};
use super::{Companion, Companions, check};
use crate::config::{
    AbortList, CompanionFile, CompanionSource, Config, Fault, Faults, NamedFile, Origin, Support,
    parameter,
};
use crate::model::DestinationKind;

/// Gives the bytes of a file; the caller decides how.
pub type FileReader<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// Reads all files of a configuration and checks what they say together.
///
/// # Errors
/// Every fault that `startup_abort_list` does not let pass; those that it does are warnings.
pub fn read(config: &Config, reader: FileReader<'_>) -> Result<(Companions, Vec<Fault>), Faults> {
    let (companions, Report { faults, warnings }) = read_anyway(config, reader);
    if faults.is_empty() {
        Ok((companions, warnings))
    } else {
        Err(Faults { faults, warnings })
    }
}

/// What the files say as far as they can be understood, and what is wrong: for those who want to
/// tell more about them than that they cannot be used.
#[must_use]
pub fn read_anyway(config: &Config, reader: FileReader<'_>) -> (Companions, Report) {
    let mut reading = Reading {
        reader,
        list: &config.abort_list,
        is_authorizing: config.authorization,
        report: Report::default(),
    };
    let companions = match &config.companions {
        CompanionSource::Json(companions, report) => {
            reading.take(report.clone(), None);
            (**companions).clone()
        }
        CompanionSource::Files(files) => Companions {
            users: reading.file(files, Companion::Users),
            groups: reading.file(files, Companion::Groups),
            acl: reading.file(files, Companion::Acl),
            queues: reading.file(files, Companion::Queues),
            topics: reading.file(files, Companion::Topics),
            durables: reading.file(files, Companion::Durables),
            bridges: reading.file(files, Companion::Bridges),
            factories: reading.file(files, Companion::Factories),
            stores: reading.file(files, Companion::Stores),
            routes: reading.file(files, Companion::Routes),
        },
    };
    let unused = |file: &&NamedFile| !is_used(config, file);
    for file in config.tls_files.iter().filter(unused) {
        if let Err(error) = reader(&file.path) {
            let mut report = Report::default();
            let text = unreadable(&file.path, &error);
            report.fault(file.origin.clone(), file.parameter, text);
            reading.let_pass("SSL", None, report);
        }
    }
    for (which, path, count) in companions.counts() {
        let support = parameter(which.parameter()).map(|row| row.support);
        if let (Some(Support::Checked(instead)), 1..) = (support, count) {
            let text = format!("read and checked, but without effect in this version: {instead}");
            let path = path.to_owned();
            let origin = Origin::File { path, line: 0 };
            reading.report.warn(origin, which.parameter(), text);
        }
    }
    reading.tell_not_applied(&companions);
    let mut together = Report::default();
    check::together(config, &companions, &mut together);
    reading.take(together, None);
    (companions, reading.report)
}

/// Whether a URL calls for a file of TLS: then whoever makes the configuration of TLS reads it, and
/// says more about it than that it is there.
fn is_used(config: &Config, file: &NamedFile) -> bool {
    if file.parameter.starts_with("ft_") {
        let mut peers = config.peers.iter().chain(&config.unshared_peers);
        return peers.any(|peer| peer.is_tls);
    }
    let is_monitor = config.monitor_listen.as_ref().is_some_and(|url| url.is_tls);
    is_monitor || config.listens.iter().any(|listen| listen.is_tls)
}

struct Reading<'a> {
    reader: FileReader<'a>,
    list: &'a AbortList,
    is_authorizing: bool,
    report: Report,
}

impl Reading<'_> {
    /// Names the properties of destinations that are set and that nothing is done with.
    fn tell_not_applied(&mut self, companions: &Companions) {
        for (kind, which) in [
            (DestinationKind::Queue, Companion::Queues),
            (DestinationKind::Topic, Companion::Topics),
        ] {
            let names = companions.catalogue(kind).not_applied();
            if names.is_empty() {
                continue;
            }
            let names = names.join(", ");
            let text = format!(
                "read and checked, but without effect in this version: the properties {names}"
            );
            let path = companions.destinations(kind).path().to_owned();
            let origin = Origin::File { path, line: 0 };
            self.report.warn(origin, which.parameter(), text);
        }
    }

    fn file<E: Entry>(&mut self, files: &[CompanionFile], which: Companion) -> File<E> {
        let Some(file) = files.iter().find(|file| file.which == which) else {
            return File::empty(which, Path::new(which.parameter()));
        };
        let mut report = Report::default();
        match text_of(self.reader, &file.path) {
            Ok(text) => {
                let parsed: File<E> = File::parse(which, &file.path, &text, &mut report);
                self.take(report, Some(which));
                return parsed;
            }
            // A file that nobody named need not be there.
            Err(ReadFault::Missing(_)) if !file.is_named => {}
            Err(ReadFault::Missing(text) | ReadFault::Unreadable(text)) => {
                let origin = file.origin.clone();
                report.fault(origin, which.parameter(), text);
                self.let_pass("CONFIG_FILES", Some(which), report);
            }
            Err(ReadFault::NoText(line)) => {
                let path = file.path.clone();
                let origin = Origin::File { path, line };
                report.fault(origin, which.parameter(), "not UTF-8 text");
                self.let_pass("CONFIG_FILES", Some(which), report);
            }
        }
        File::empty(which, &file.path)
    }

    fn take(&mut self, report: Report, which: Option<Companion>) {
        self.let_pass("CONFIG_ERRORS", which, report);
    }

    /// Turns faults into warnings where the list says so, but none that could let somebody in.
    fn let_pass(&mut self, word: &str, which: Option<Companion>, report: Report) {
        self.report.warnings.extend(report.warnings);
        let is_strict = self.is_authorizing && which.is_none_or(Companion::is_about_access);
        if is_strict || self.list.stops_at(word) {
            self.report.faults.extend(report.faults);
            return;
        }
        let passed = report.faults.into_iter().map(|fault| Fault {
            text: format!(
                "{} (startup_abort_list does not name {word}: it is left out)",
                fault.text
            ),
            ..fault
        });
        self.report.warnings.extend(passed);
    }
}

/// Why a file gives no text.
enum ReadFault {
    Missing(String),
    Unreadable(String),
    /// The line that is no text.
    NoText(usize),
}

/// The text of a file.
fn text_of(reader: FileReader<'_>, path: &Path) -> Result<String, ReadFault> {
    let bytes = reader(path).map_err(|error| {
        let text = unreadable(path, &error);
        match error.kind() {
            io::ErrorKind::NotFound => ReadFault::Missing(text),
            _ => ReadFault::Unreadable(text),
        }
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..valid).unwrap_or_default();
        ReadFault::NoText(before.iter().filter(|byte| **byte == b'\n').count() + 1)
    })
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "; write the name of a file that is there",
        io::ErrorKind::PermissionDenied => "; let the user of the server read it",
        _ => "",
    };
    format!("{} cannot be read: {error}{advice}", path.display())
}
