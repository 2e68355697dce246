//! Changing the configuration files. Everything here blocks.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::admin::{self, Answer, Failure, Item, Object, Request, Verb};
use crate::auth::hash_password;
use crate::config::companions::{Companion, Companions, read_anyway};
use crate::config::{
    CompanionSource, Config, Fault, Given, MainFile, Origin, Parameter, Support, given_values,
    hide, load_anyway, parameter, set_parameters,
};

type Result<T> = std::result::Result<T, Failure>;

/// Status of a change for which no file is configured.
pub(super) const NO_FILE: u16 = 424;
/// Status of a change for which there is only a JSON file.
const JSON: u16 = 501;

/// What the server was started with.
#[derive(Debug)]
pub(crate) struct Setup {
    given: Given,
}

/// The configuration with which the server works: what it was started with, and what it has taken since.
#[derive(Clone, Debug)]
pub(super) struct InEffect {
    pub(super) started: Config,
    pub(super) taken: Config,
}

impl InEffect {
    /// Parameters that the server has with other values than these, and its values in words.
    fn others(&self, now: &Config) -> BTreeMap<&'static str, String> {
        let of_start = now.changes(&self.started).into_iter();
        let of_start = of_start.filter(|row| !row.is_taken());
        let taken = now.changes(&self.taken).into_iter();
        let taken = taken.filter(|row| row.is_taken());
        let words = |row: &Parameter, own: &Config| match own.shown(row) {
            None => "(another secret)".to_owned(),
            Some(text) if text.is_empty() => "none".to_owned(),
            Some(text) => text,
        };
        let of_start = of_start.map(|row| (row.name, words(row, &self.started)));
        of_start
            .chain(taken.map(|row| (row.name, words(row, &self.taken))))
            .collect()
    }
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
        let file = self.given.file.as_ref();
        let end = file.and_then(|file| file.path.extension());
        end.is_some_and(|end| end.eq_ignore_ascii_case("json"))
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

    /// The parameters that were given, and those with which the server works where these are others.
    pub(super) fn show_config(&self, in_effect: &InEffect) -> Result<Answer> {
        let given = self.fresh_given()?;
        let mut others = in_effect.others(&load_anyway(&given).0);
        let shown = |value: Option<String>| value.unwrap_or_else(|| "(secret)".to_owned());
        let mut rows = Vec::new();
        for it in given_values(&given) {
            rows.push(vec![
                Item::from(it.parameter),
                shown(it.value).into(),
                it.origin.to_string().into(),
                // Once for a parameter that has several values.
                others.remove(it.parameter).into(),
            ]);
        }
        for (parameter, other) in others {
            let value = Item::Nothing;
            rows.push(vec![
                parameter.into(),
                value,
                "default".into(),
                other.into(),
            ]);
        }
        let columns = [
            ("", "parameter"),
            ("", "value"),
            ("", "origin"),
            ("", "in_effect"),
        ];
        Ok(Answer::table(&columns, rows))
    }

    /// Carries out a command of a user that changes companion files.
    pub(super) fn change(&self, request: &Request, user: Option<&str>) -> Result<Changed> {
        self.check_writable()?;
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
        let texts = edited.files.iter().map(|which| {
            let (path, text) = file_of(&companions, *which);
            Rewrite {
                path: place(&before.config, *which).unwrap_or(path),
                before: file_of(&before.companions, *which).1,
                text,
            }
        });
        let texts: Vec<Rewrite> = texts.collect();
        check_together(&before.config, &texts)?;
        replace(&texts)?;
        Ok(Changed {
            text: edited.text,
            companions,
            config: before.config,
        })
    }

    /// Sets parameters in the main file.
    pub(super) fn set_parameters(
        &self,
        settings: &[(String, Option<String>)],
        seed: u64,
    ) -> Result<Changed> {
        self.check_writable()?;
        let before = self.fresh()?;
        let Some(file) = before.given.file.clone() else {
            return Err(no_file());
        };
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
        let text = set_parameters(&file.path, &file.text, &values).map_err(Failure::usage)?;
        let given = Given {
            file: Some(MainFile {
                path: file.path.clone(),
                text: text.clone(),
            }),
            ..before.given
        };
        let (config, faults) = load_anyway(&given);
        refuse(&faults, "not changed")?;
        let (companions, report) = read_anyway(&config, &|path| fs::read(path));
        refuse(&report.faults, "not changed")?;
        replace(&[Rewrite {
            path: file.path.clone(),
            before: file.text,
            text,
        }])?;
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

    fn check_writable(&self) -> Result<()> {
        match &self.given.file {
            Some(file) if self.is_json() => Err(Failure::new(
                JSON,
                format!(
                    "nothing was changed: {} has the JSON form, which the server reads and does \
                     not write. Edit that file, look at it with `steadfast check-config FILE`, \
                     then have the servers read it again (SIGHUP; the log names what needs a \
                     restart). Or start them with a file of the form NAME = VALUE: to that this \
                     command writes",
                    file.path.display()
                ),
            )),
            Some(_) => Ok(()),
            None => Err(no_file()),
        }
    }
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

/// A file that gets another text.
struct Rewrite {
    path: PathBuf,
    /// What the change was made of; empty for a file that is made.
    before: String,
    text: String,
}

/// A new text that is on the disk, beside the file whose place it takes.
struct Prepared<'a> {
    temporary: PathBuf,
    path: PathBuf,
    rewrite: &'a Rewrite,
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        // It is gone once it has taken the place.
        let _absent = fs::remove_file(&self.temporary);
    }
}

/// Puts new texts in the place of files: readers find the old one or the new one, also after a loss of power. Mode
/// and owner stay. All texts are on the disk before the first file changes, and each file must still say what the
/// change was made of: people and other servers write there too.
fn replace(rewrites: &[Rewrite]) -> Result<()> {
    let mut prepared = Vec::new();
    for rewrite in rewrites {
        prepared.push(prepare(rewrite).map_err(|error| {
            let path = rewrite.path.display();
            let text = format!("{path} cannot be written: {error}; nothing was changed");
            Failure::new(500, text)
        })?);
    }
    for Prepared { path, rewrite, .. } in &prepared {
        let is_same = match fs::read(path) {
            Ok(text) => text == rewrite.before.as_bytes(),
            Err(error) => rewrite.before.is_empty() && error.kind() == io::ErrorKind::NotFound,
        };
        if !is_same {
            return Err(Failure::conflict(format!(
                "{} was changed by somebody else at this moment; nothing was changed, try again",
                path.display()
            )));
        }
    }
    // Permissions and members go before their user: what a loss of power leaves permits nobody anything.
    for one in prepared.iter().rev() {
        take_place(one).map_err(|error| {
            let path = one.path.display();
            let text = format!("{path} cannot be written: {error}; other files may be changed");
            Failure::new(500, text)
        })?;
    }
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn prepare(rewrite: &Rewrite) -> io::Result<Prepared<'_>> {
    // A link leads to the file that is meant.
    let path = match fs::canonicalize(&rewrite.path) {
        Ok(path) => path,
        Err(_) if fs::symlink_metadata(&rewrite.path).is_err() => rewrite.path.clone(),
        Err(error) => return Err(error),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory_of(&path).join(format!(".{name}.{}.new", std::process::id()));
    // One that an earlier process of this number left.
    let _absent = fs::remove_file(&temporary);
    let prepared = Prepared {
        temporary,
        path,
        rewrite,
    };
    write_new(&prepared.temporary, &prepared.path, &rewrite.text)?;
    Ok(prepared)
}

fn take_place(prepared: &Prepared<'_>) -> io::Result<()> {
    fs::rename(&prepared.temporary, &prepared.path)?;
    File::open(directory_of(&prepared.path))?.sync_all()
}

fn write_new(temporary: &Path, path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(temporary)?;
    match fs::metadata(path) {
        Ok(known) => {
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (known.uid(), known.gid()) {
                fchown(&file, Some(known.uid()), Some(known.gid()))?;
            }
            file.set_permissions(known.permissions())?;
        }
        // It may get passwords.
        Err(_) => file.set_permissions(fs::Permissions::from_mode(0o600))?,
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(directory: &Path, main: &str) -> Setup {
        let path = directory.join("a.conf");
        fs::write(&path, main).expect("a file");
        Setup::new(Given {
            file: Some(MainFile {
                path,
                text: main.to_owned(),
            }),
            ..Given::default()
        })
    }

    fn change(setup: &Setup, line: &str) -> Result<Changed> {
        setup.change(&admin::parse_line(line).expect("a command"), Some("ann"))
    }

    #[test]
    fn a_change_is_written_beside_what_somebody_changed_by_hand() {
        let directory = tempfile::tempdir().expect("a directory");
        let setup = setup(directory.path(), "queues = q.conf\n");
        let path = directory.path().join("q.conf");
        fs::write(&path, "# mine\na\n").expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("it is ours");
        change(&setup, "create queue b secure").expect("it is written");
        fs::write(&path, "# by hand\nc\nb secure\n").expect("a file");
        let changed = change(&setup, "addprop queue b exclusive").expect("it is written");
        let text = fs::read_to_string(&path).expect("it is there");
        assert_eq!(text, "# by hand\nc\nb secure,exclusive\n");
        assert_eq!(changed.companions.queues.items().len(), 2);
        let mode = fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640);
        let names = fs::read_dir(directory.path()).expect("it is there").count();
        assert_eq!(names, 2, "nothing is left behind");
    }

    #[test]
    fn a_file_that_nobody_named_is_made_and_one_with_faults_is_not_touched() {
        let directory = tempfile::tempdir().expect("a directory");
        let setup = setup(directory.path(), "server = A\n");
        change(&setup, "create user ann password=sesame").expect("it is written");
        let path = directory.path().join("users.conf");
        let text = fs::read_to_string(&path).expect("it was made");
        assert!(
            text.starts_with("ann:$argon2") || text.starts_with("ann:\"$argon2"),
            "{text}"
        );
        assert!(!text.contains("sesame"));
        let mode = fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);

        fs::write(&path, "what is this\n").expect("a file");
        let failure = change(&setup, "create user bob")
            .err()
            .expect("it has a fault");
        assert!(failure.text.contains("users.conf:1"), "{}", failure.text);
        assert_eq!(
            fs::read_to_string(&path).expect("it is there"),
            "what is this\n"
        );
    }

    #[test]
    fn what_the_server_works_with_is_told_where_the_file_says_something_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let main = "server = A\nmax_connections = 5\npassword = sesame\nft_heartbeat = 2\n";
        let setup = setup(directory.path(), main);
        let started = load_anyway(&setup.given).0;
        let mut in_effect = InEffect {
            taken: started.clone(),
            started,
        };
        let told = |in_effect: &InEffect| {
            let answer = setup.show_config(in_effect).expect("it can be read");
            let admin::Body::Table(table) = answer.body else {
                panic!("a table");
            };
            let rows = table.rows.into_iter();
            let rows = rows.filter(|row| row[3] != Item::Nothing);
            rows.map(|row| format!("{:?} {:?}", row[0], row[3]))
                .collect::<Vec<_>>()
                .join(", ")
        };
        assert_eq!(told(&in_effect), "");
        // By hand: one value is another, one is gone, and the server has not read it yet.
        let main = "server = A\nmax_connections = 9\npassword = other\n";
        fs::write(directory.path().join("a.conf"), main).expect("it is ours");
        let restart = "Text(\"max_connections\") Text(\"5\")";
        let secret = "Text(\"password\") Text(\"(another secret)\")";
        let gone = "Text(\"ft_heartbeat\") Text(\"2 s\")";
        assert_eq!(told(&in_effect), format!("{restart}, {secret}, {gone}"));
        // The password is taken when it is read; the others wait for a restart.
        in_effect.taken = load_anyway(&setup.fresh_given().expect("it is there")).0;
        assert_eq!(told(&in_effect), format!("{restart}, {gone}"));
    }

    #[test]
    fn a_json_file_is_not_written_and_it_is_said_what_to_do_instead() {
        let setup = Setup::new(Given {
            file: Some(MainFile {
                path: PathBuf::from("/etc/steadfast/pair.json"),
                text: String::from("{}"),
            }),
            ..Given::default()
        });
        let set = setup.set_parameters(&[("password".to_owned(), None)], 1);
        for failure in [set.err(), change(&setup, "delete all users").err()] {
            let failure = failure.expect("it is refused");
            assert_eq!(failure.status, JSON);
            for part in ["pair.json", "check-config", "restart"] {
                assert!(failure.text.contains(part), "{}", failure.text);
            }
        }
    }

    #[test]
    fn whoever_asks_and_the_user_of_the_pair_stay_when_all_users_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let setup = setup(directory.path(), "server = A\n");
        for name in ["A", "ann", "bob", "admin"] {
            change(&setup, &format!("create user {name}")).expect("it is written");
        }
        let changed = change(&setup, "delete all users").expect("it is written");
        assert_eq!(
            changed.text,
            "1 user deleted from the file; A, ann, admin stay"
        );
        let text = fs::read_to_string(directory.path().join("users.conf")).expect("it is there");
        assert!(!text.contains("bob") && text.contains("ann"), "{text}");
    }

    #[test]
    fn of_several_files_none_is_changed_when_one_cannot_be() {
        let directory = tempfile::tempdir().expect("a directory");
        let setup = setup(directory.path(), "server = A\n");
        change(&setup, "create user ann").expect("it is written");
        change(&setup, "create group eng").expect("it is written");
        change(&setup, "add member eng ann").expect("it is written");
        change(&setup, "grant admin user=ann all").expect("it is written");
        let users = directory.path().join("users.conf");
        let before = fs::read_to_string(&users).expect("it is there");
        // A directory in the way stands for a disk that is full.
        let way = format!(".acl.conf.{}.new", std::process::id());
        fs::create_dir_all(directory.path().join(&way).join("x")).expect("it is ours");
        let failure = change(&setup, "delete user ann").err().expect("no room");
        assert!(failure.text.contains("nothing was changed"), "{failure:?}");
        assert_eq!(fs::read_to_string(&users).expect("it is there"), before);
        fs::remove_dir_all(directory.path().join(&way)).expect("it is ours");
        change(&setup, "delete user ann").expect("it is written");
        let names = fs::read_dir(directory.path()).expect("it is there").count();
        assert_eq!(names, 4, "nothing is left behind");
    }

    #[test]
    fn a_file_that_changed_meanwhile_and_a_link_to_nowhere_are_not_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("q.conf");
        let rewrite = |before: &str| {
            replace(&[Rewrite {
                path: path.clone(),
                before: before.to_owned(),
                text: "mine\n".to_owned(),
            }])
            .err()
            .map(|failure| failure.status)
        };
        fs::write(&path, "theirs\n").expect("it is ours");
        for before in ["old\n", ""] {
            assert_eq!(rewrite(before), Some(409));
            assert_eq!(fs::read_to_string(&path).expect("it is there"), "theirs\n");
        }
        assert_eq!(rewrite("theirs\n"), None);
        fs::remove_file(&path).expect("it is ours");
        std::os::unix::fs::symlink("elsewhere", &path).expect("it is ours");
        assert_eq!(rewrite(""), Some(500));
        let link = fs::symlink_metadata(&path).expect("it is there");
        assert!(link.file_type().is_symlink());
    }

    #[test]
    fn a_double_member_does_not_move_into_the_group_above() {
        let directory = tempfile::tempdir().expect("a directory");
        let setup = setup(directory.path(), "server = A\n");
        let path = directory.path().join("groups.conf");
        let admins = "$admin:\"\"\n  root\n";
        fs::write(&path, format!("{admins}ops:\"\"\n  ann\n  ann\n")).expect("it is ours");
        change(&setup, "delete group ops").expect("it is written");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), admins);
    }

    #[test]
    fn what_would_not_fit_together_is_not_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let setup = setup(directory.path(), "server = A\n");
        change(&setup, "create queue a").expect("it is written");
        change(&setup, "create queue b").expect("it is written");
        change(&setup, "create topic t").expect("it is written");
        change(&setup, "create bridge source=topic:t target=queue:a").expect("it is written");
        let failure = change(&setup, "delete queue a")
            .err()
            .expect("it is a target");
        assert_eq!(failure.status, 409, "{}", failure.text);
        let text = fs::read_to_string(directory.path().join("queues.conf")).expect("it is there");
        assert_eq!(text, "a\nb\n");
    }

    #[test]
    fn parameters_are_written_and_a_password_does_not_meet_the_eye() {
        let directory = tempfile::tempdir().expect("a directory");
        let setup = setup(directory.path(), "server = A # name\n");
        let set = |name: &str, value: &str| {
            setup.set_parameters(&[(name.to_owned(), Some(value.to_owned()))], 7)
        };
        let changed = set("password", "sesame").expect("it is written");
        assert!(changed.text.contains("password set"), "{}", changed.text);
        let path = directory.path().join("a.conf");
        let text = fs::read_to_string(&path).expect("it is there");
        assert!(
            text.starts_with("server = A # name\npassword = $hidden$"),
            "{text}"
        );
        assert!(!text.contains("sesame"));
        let given = setup.fresh_given().expect("it can be read");
        let (config, _) = load_anyway(&given);
        let password = config.password.expect("it is set");
        assert_eq!(password.expose(), "sesame");

        let later = set("max_connections", "5").expect("it is written");
        assert!(
            later.text.contains("max_connections will count"),
            "{}",
            later.text
        );
        assert_eq!(set("colour", "red").err().map(|it| it.status), Some(400));
        assert_eq!(
            set("ft_heartbeat", "soon").err().map(|it| it.status),
            Some(409)
        );
        let text = fs::read_to_string(&path).expect("it is there");
        assert!(!text.contains("ft_heartbeat"), "{text}");
        let nowhere = Setup::new(Given::default());
        let failure = nowhere
            .set_parameters(&[("password".to_owned(), None)], 1)
            .err();
        assert_eq!(failure.map(|it| it.status), Some(NO_FILE));
    }
}
