//! Is this mount fit for a store that two hosts share? Decided from the kernel's own tables.
#![allow(
    clippy::disallowed_methods,
    reason = "reads the kernel's mount tables, which are no files of the store"
)]

use std::fs;
use std::path::Path;

use super::FileSystem;

/// Local file systems: a lock is lost only with its process (amendment 25 of the design).
const LOCAL: [&str; 8] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "overlay", "f2fs", "zfs",
];

/// One line of `/proc/self/mountinfo`, as far as it matters.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mount {
    point: String,
    kind: String,
    options: String,
}

/// Finds out what a directory lies on.
pub(super) fn detect(path: &Path) -> FileSystem {
    let Ok(table) = fs::read_to_string("/proc/self/mountinfo") else {
        return FileSystem::Unknown("unknown (no /proc/self/mountinfo)".to_owned());
    };
    let path = path.to_string_lossy();
    let Some(mount) = covering(&table, &path) else {
        return FileSystem::Unknown("unknown (no mount found)".to_owned());
    };
    let recovers = fs::read_to_string("/sys/module/nfs/parameters/recover_lost_locks")
        .is_ok_and(|value| value.trim() == "Y");
    let lease_s = fs::read_to_string("/proc/self/mountstats")
        .ok()
        .and_then(|stats| lease(&stats, &mount.point));
    judge(&mount, recovers, lease_s)
}

/// The mount with the longest point that is a prefix of the path; of equals the last.
fn covering(table: &str, path: &str) -> Option<Mount> {
    let mut best: Option<Mount> = None;
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let Some(point) = left.split(' ').nth(4) else {
            continue;
        };
        let point = point.replace("\\040", " ");
        let covers = point == "/"
            || path == point
            || path
                .strip_prefix(point.as_str())
                .is_some_and(|rest| rest.starts_with('/'));
        if covers
            && best
                .as_ref()
                .is_none_or(|best| point.len() >= best.point.len())
        {
            let mut fields = right.split(' ');
            let kind = fields.next().unwrap_or_default().to_owned();
            let options = fields.nth(1).unwrap_or_default().to_owned();
            best = Some(Mount {
                point,
                kind,
                options,
            });
        }
    }
    best
}

fn judge(mount: &Mount, recovers_lost_locks: bool, lease_s: Option<u64>) -> FileSystem {
    let kind = mount.kind.as_str();
    if LOCAL.contains(&kind) {
        return FileSystem::Local {
            name: kind.to_owned(),
            volatile: false,
        };
    }
    match kind {
        "tmpfs" => FileSystem::Local {
            name: kind.to_owned(),
            volatile: true,
        },
        "nfs4" | "nfs" => judge_nfs(mount, recovers_lost_locks, lease_s),
        "cifs" | "smb3" => FileSystem::Unsafe(format!(
            "{kind} at {} does not keep the locks that a shared store needs: use NFS 4.1 or later, \
             or a cluster file system",
            mount.point
        )),
        other => FileSystem::Unknown(other.to_owned()),
    }
}

fn judge_nfs(mount: &Mount, recovers_lost_locks: bool, lease_s: Option<u64>) -> FileSystem {
    let option = |name: &str| {
        mount
            .options
            .split(',')
            .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
    };
    let refuse = |why: &str, mend: &str| {
        FileSystem::Unsafe(format!("the NFS mount at {} {why}: {mend}", mount.point))
    };
    let version = option("vers").unwrap_or("3");
    let recent = version
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?)))
        .is_some_and(|version| version >= (4, 1));
    if !recent {
        let why = format!("has version {version}, whose locks outlive or leave their owner");
        return refuse(&why, "mount it with vers=4.1 or later");
    }
    if mount.options.split(',').any(|part| part == "nolock")
        || option("local_lock").is_some_and(|value| value != "none")
    {
        return refuse(
            "keeps locks on this host only",
            "mount it with local_lock=none",
        );
    }
    if recovers_lost_locks {
        return refuse(
            "takes lost locks back in silence",
            "set the kernel parameter nfs.recover_lost_locks to 0",
        );
    }
    FileSystem::Nfs { lease_s }
}

/// The lease of the mount at `point`, from the text of `/proc/self/mountstats`.
fn lease(stats: &str, point: &str) -> Option<u64> {
    let mut ours = false;
    for line in stats.lines() {
        if let Some(rest) = line.strip_prefix("device ") {
            let mounted = rest.split(" mounted on ").nth(1);
            ours = mounted.and_then(|rest| rest.split(" with ").next()) == Some(point);
        } else if ours && let Some(at) = line.find("lease_time=") {
            let digits: String = line[at + 11..]
                .chars()
                .take_while(char::is_ascii_digit)
                .collect();
            return digits.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 21 0:25 / /mnt rw - tmpfs tmpfs rw
40 21 0:40 / /mnt/shared rw,relatime shared:9 - nfs4 srv:/ rw,vers=4.2,hard,local_lock=none
41 21 0:41 / /mnt/old rw - nfs srv:/old rw,vers=3,local_lock=none
42 21 0:42 / /mnt/own rw - nfs4 srv:/own rw,vers=4.1,local_lock=all
43 21 0:43 / /mnt/win rw - cifs //srv/x rw
44 21 0:44 / /mnt/odd rw - fuse.odd odd rw";

    fn of(path: &str) -> FileSystem {
        judge(&covering(TABLE, path).unwrap(), false, Some(15))
    }

    #[test]
    fn the_longest_mount_point_decides() {
        let local = FileSystem::Local {
            name: "ext4".to_owned(),
            volatile: false,
        };
        assert_eq!(of("/srv/store"), local);
        assert_eq!(of("/mntx"), local, "a prefix of the name is not a parent");
        assert_eq!(
            of("/mnt/a"),
            FileSystem::Local {
                name: "tmpfs".to_owned(),
                volatile: true
            }
        );
        assert_eq!(of("/mnt/shared/a/b"), FileSystem::Nfs { lease_s: Some(15) });
    }

    #[test]
    fn mounts_that_cannot_fence_are_refused_with_the_mend() {
        for (path, mend) in [
            ("/mnt/old", "vers=4.1"),
            ("/mnt/own", "local_lock=none"),
            ("/mnt/win", "NFS 4.1"),
        ] {
            let FileSystem::Unsafe(text) = of(path) else {
                panic!("{path} must be refused")
            };
            assert!(text.contains(mend), "{text}");
        }
        assert_eq!(of("/mnt/odd/x"), FileSystem::Unknown("fuse.odd".to_owned()));
        let shared = covering(TABLE, "/mnt/shared").unwrap();
        assert!(matches!(judge(&shared, true, None), FileSystem::Unsafe(_)));
    }

    #[test]
    fn the_lease_is_read_for_the_right_mount() {
        let stats = "device a mounted on /x with fstype ext4\n\
                     device s:/ mounted on /mnt/shared with fstype nfs4 statvers=1.1\n\
                     \tnfsv4:\tbm0=0xfd,acl=0x3,sessions,lease_time=15,lease_expired=0\n";
        assert_eq!(lease(stats, "/mnt/shared"), Some(15));
        assert_eq!(lease(stats, "/x"), None);
    }
}
