//! Putting new texts in the place of files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::admin::Failure;

/// A file that gets another text.
pub(super) struct Rewrite {
    pub(super) path: PathBuf,
    /// What the change was made of; empty for a file that is made.
    pub(super) before: String,
    pub(super) text: String,
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
pub(super) fn replace(rewrites: &[Rewrite]) -> Result<(), Failure> {
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
    let temporary = temporary_of(&path);
    // One that is there is somebody else's, and stays.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)?;
    let prepared = Prepared {
        temporary,
        path,
        rewrite,
    };
    write_new(file, &prepared.path, &rewrite.text)?;
    Ok(prepared)
}

/// Where a new text waits. A server on another host may change the same file at this moment, and may have our
/// process number: in containers many have 1.
pub(super) fn temporary_of(path: &Path) -> PathBuf {
    static OWN: LazyLock<u64> = LazyLock::new(|| fastrand::u64(..));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    directory_of(path).join(format!(".{name}.{:016x}.new", *OWN))
}

fn take_place(prepared: &Prepared<'_>) -> io::Result<()> {
    fs::rename(&prepared.temporary, &prepared.path)?;
    File::open(directory_of(&prepared.path))?.sync_all()
}

fn write_new(mut file: File, path: &Path, text: &str) -> io::Result<()> {
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

    #[test]
    fn what_somebody_else_is_about_to_put_in_the_place_of_a_file_stays_his() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("users.conf");
        fs::write(&path, "before").expect("a file");
        let rewrite = |text: &str| Rewrite {
            path: path.clone(),
            before: "before".to_owned(),
            text: text.to_owned(),
        };
        let (one, other) = (rewrite("one"), rewrite("other"));
        let of_one = prepare(&one).expect("it is written");
        let failure = replace(&[other]).expect_err("it is in the way");
        assert!(failure.text.contains("nothing was changed"), "{failure:?}");
        take_place(&of_one).expect("it is there");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "one");
        let names = fs::read_dir(directory.path()).expect("it is there").count();
        assert_eq!(names, 1, "nothing is left behind");
    }
}
