//! Changing the configuration files. Everything here blocks.

mod replace;
mod shown;

use std::fs;
use std::path::{Path, PathBuf};

use replace::{Rewrite, replace};
pub(super) use shown::InEffect;

use crate::admin::{self, Failure, Object, Request, Verb};
use crate::auth::hash_password;
use crate::config::companions::{Companion, Companions, read_anyway, write_sections};
use crate::config::{
    CompanionSource, Config, Fault, Given, MainFile, Origin, Support, given_values, hide,
    load_anyway, parameter, set_json_parameters, set_parameters,
};

type Result<T> = std::result::Result<T, Failure>;

/// Status of a change for which no file is configured.
pub(super) const NO_FILE: u16 = 424;

/// What the server was started with.
#[derive(Debug)]
pub(crate) struct Setup {
    given: Given,
}

/// A change that was written.
pub(super) struct Changed {
    pub(super) text: String,
    /// What the files say now.
    pub(super) companions: Companions,
    /// What the main file says now.
    pub(super) config: Config,
}

/// The configuration as the files are now.
struct Fresh {
    given: Given,
    config: Config,
    companions: Companions,
}

impl Setup {
    pub(super) fn new(given: Given) -> Self {
        Self { given }
    }

    /// Whether the main file has the JSON form.
    pub(super) fn is_json(&self) -> bool {
        self.given.file.as_ref().is_some_and(MainFile::is_json)
    }

    /// Reads the main file again.
    fn fresh_given(&self) -> Result<Given> {
        let mut given = self.given.clone();
        if let Some(file) = &mut given.file {
            file.text = read_text(&file.path)?;
        }
        Ok(given)
    }

    fn fresh(&self) -> Result<Fresh> {
        let given = self.fresh_given()?;
        let (config, faults) = load_anyway(&given);
        refuse(&faults, "the configuration has faults")?;
        let (companions, report) = read_anyway(&config, &|path| fs::read(path));
        refuse(&report.faults, "the configuration files have faults")?;
        Ok(Fresh {
            given,
            config,
            companions,
        })
    }

    /// Carries out a command of a user that changes companion files.
    pub(super) fn change(&self, request: &Request, user: Option<&str>) -> Result<Changed> {
        self.check_file()?;
        let before = self.fresh()?;
        let mut companions = before.companions.clone();
        let edited = match request.command.verb {
            Verb::DeleteAll => {
                // Without these the pair, or whoever asks, could not log in again.
                let kept: Vec<&str> = user.into_iter().chain([&*before.config.server]).collect();
                admin::delete_all(request, &mut companions, &kept)?
            }
            _ => {
                check_pair_user(request, &before.config)?;
                admin::change(request, &mut companions, &hash_password)?
            }
        };
        let opened = opened(&before, &companions);
        let (config, companions) = match (&before.config.companions, &before.given.file) {
            (CompanionSource::Json(..), Some(file)) if !edited.files.is_empty() => {
                let text = write_sections(&before.given, file, &companions, &edited.files);
                rewrite_main(&before.given, file, text.map_err(Failure::usage)?)?
            }
            _ => {
                let texts = rewrites(&before, &companions, &edited.files);
                check_together(&before.config, &texts)?;
                replace(&texts)?;
                (before.config, companions)
            }
        };
        Ok(Changed {
            text: edited.text + opened,
            companions,
            config,
        })
    }

    /// Sets parameters in the main file.
    pub(super) fn set_parameters(
        &self,
        settings: &[(String, Option<String>)],
        seed: u64,
    ) -> Result<Changed> {
        self.check_file()?;
        let Fresh { given, .. } = self.fresh()?;
        let file = given.file.as_ref().ok_or_else(no_file)?;
        let mut values = Vec::new();
        for (name, value) in settings {
            let Some(value) = value.clone() else {
                return Err(Failure::usage(format!(
                    "the value is missing; write set server {name}=VALUE, with nothing behind the \
                     = to unset it"
                )));
            };
            values.push((name.clone(), self.check_parameter(name, value, seed)?));
        }
        if values.is_empty() {
            return Err(Failure::usage("write set server PARAMETER=VALUE"));
        }
        let text = match file.is_json() {
            true => set_json_parameters(&given, file, &values),
            false => set_parameters(&file.path, &file.text, &values),
        };
        let (config, companions) = rewrite_main(&given, file, text.map_err(Failure::usage)?)?;
        Ok(Changed {
            text: told(&values, &file.path),
            companions,
            config,
        })
    }

    /// The value to write.
    fn check_parameter(&self, name: &str, value: String, seed: u64) -> Result<String> {
        let row = parameter(name).filter(|row| !matches!(row.support, Support::None(_)));
        if row.is_none() {
            let text = format!("`{name}` is not a parameter; docs/PARAMETERS.md has all");
            return Err(Failure::usage(text));
        }
        let given = given_values(&self.given);
        let option = given
            .iter()
            .find(|it| it.parameter == name && matches!(it.origin, Origin::Option(_)));
        if let Some(it) = option {
            return Err(Failure::conflict(format!(
                "{name} was given by {} when the server was started, which wins over the file: \
                 start it without",
                it.origin
            )));
        }
        if name == "password" && !value.is_empty() {
            return Ok(hide(&value, seed));
        }
        Ok(value)
    }

    fn check_file(&self) -> Result<()> {
        self.given.file.as_ref().map(drop).ok_or_else(no_file)
    }
}

/// Without a line that names a queue or topic clients may create every one: who deletes the last line hears it.
fn opened(before: &Fresh, after: &Companions) -> &'static str {
    let names_none = |files: &Companions| {
        files.queues.entries().next().is_none() && files.topics.entries().next().is_none()
    };
    let is_opened = names_none(after) && !names_none(&before.companions);
    match is_opened && before.config.auto_create_queues {
        true => {
            "; no line names a queue or topic any more, so clients may now create every queue and \
             topic by using it: create a queue or topic to end that, or set server \
             auto_create_queues=no"
        }
        false => "",
    }
}

/// Gives the main file another text, with which it must be without fault.
fn rewrite_main(given: &Given, file: &MainFile, text: String) -> Result<(Config, Companions)> {
    let given = Given {
        file: Some(MainFile {
            path: file.path.clone(),
            text: text.clone(),
        }),
        ..given.clone()
    };
    let (config, faults) = load_anyway(&given);
    refuse(&faults, "not changed")?;
    let (companions, report) = read_anyway(&config, &|path| fs::read(path));
    refuse(&report.faults, "not changed")?;
    replace(&[Rewrite {
        path: file.path.clone(),
        before: file.text.clone(),
        text,
    }])?;
    Ok((config, companions))
}

fn no_file() -> Failure {
    Failure::new(
        NO_FILE,
        "the server was started without a configuration file, so there is nowhere to write this \
         to: start it with --config FILE",
    )
}

/// The user with which the other server of a pair logs in stays.
fn check_pair_user(request: &Request, config: &Config) -> Result<()> {
    let is_meant = request.command.verb == Verb::Delete && request.command.object == Object::User;
    let has_peer = !config.peers.is_empty() || !config.unshared_peers.is_empty();
    if !is_meant || !has_peer || request.arguments.name(0) != config.server {
        return Ok(());
    }
    Err(Failure::conflict(format!(
        "nothing was changed: as the user {} the other server of the pair logs in here \
         (`server` and `password` of its main file), without it the two would not find each other \
         once `authorization` is enabled. If the pair is no more, take ft_active (unshared_peer) \
         out of the main file first",
        config.server
    )))
}

/// What was set, and when it counts.
fn told(values: &[(String, String)], path: &Path) -> String {
    let is_live = |name: &str| parameter(name).is_some_and(|row| row.is_reloadable);
    let names = |wanted: bool| -> Vec<&str> {
        let names = values.iter().map(|(name, _)| name.as_str());
        names.filter(|name| is_live(name) == wanted).collect()
    };
    let mut text = format!("written to {}", path.display());
    let (now, later) = (names(true), names(false));
    if !now.is_empty() {
        text.push_str(&format!("; {} set", now.join(", ")));
    }
    if !later.is_empty() {
        text.push_str(&format!(
            "; {} will count when the server starts again",
            later.join(", ")
        ));
    }
    text
}

fn refuse(faults: &[Fault], what: &str) -> Result<()> {
    if faults.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = faults.iter().take(5).map(ToString::to_string).collect();
    Err(Failure::conflict(format!("{what}: {}", texts.join("; "))))
}

fn read_text(path: &Path) -> Result<String> {
    let failed =
        |text: String| Failure::new(500, format!("{} cannot be read: {text}", path.display()));
    let bytes = fs::read(path).map_err(|error| failed(error.to_string()))?;
    String::from_utf8(bytes).map_err(|_| failed("not UTF-8 text".to_owned()))
}

/// Where a file is, or is to be made.
fn place(config: &Config, which: Companion) -> Option<PathBuf> {
    match &config.companions {
        CompanionSource::Files(files) => {
            let mut files = files.iter();
            files
                .find(|file| file.which == which)
                .map(|file| file.path.clone())
        }
        CompanionSource::Json(..) => None,
    }
}

/// New texts of files that have changed.
fn rewrites(before: &Fresh, companions: &Companions, files: &[Companion]) -> Vec<Rewrite> {
    let files = files.iter().map(|which| {
        let (path, text) = file_of(companions, *which);
        Rewrite {
            path: place(&before.config, *which).unwrap_or(path),
            before: file_of(&before.companions, *which).1,
            text,
        }
    });
    files.collect()
}

fn file_of(files: &Companions, which: Companion) -> (PathBuf, String) {
    let path = |path: &Path| path.to_owned();
    match which {
        Companion::Users => (path(files.users.path()), files.users.to_string()),
        Companion::Groups => (path(files.groups.path()), files.groups.to_string()),
        Companion::Acl => (path(files.acl.path()), files.acl.to_string()),
        Companion::Queues => (path(files.queues.path()), files.queues.to_string()),
        Companion::Topics => (path(files.topics.path()), files.topics.to_string()),
        Companion::Durables => (path(files.durables.path()), files.durables.to_string()),
        Companion::Bridges => (path(files.bridges.path()), files.bridges.to_string()),
        Companion::Factories => (path(files.factories.path()), files.factories.to_string()),
        Companion::Stores => (path(files.stores.path()), files.stores.to_string()),
        Companion::Routes => (path(files.routes.path()), files.routes.to_string()),
    }
}

/// All files together, as they will be, must be without fault.
fn check_together(config: &Config, texts: &[Rewrite]) -> Result<()> {
    let read = |path: &Path| {
        let mut texts = texts.iter();
        match texts.find(|changed| changed.path == path) {
            Some(changed) => Ok(changed.text.clone().into_bytes()),
            None => fs::read(path),
        }
    };
    let (_, report) = read_anyway(config, &read);
    refuse(&report.faults, "not changed")
}

#[cfg(test)]
mod json_tests;
#[cfg(test)]
mod tests;
