//! `acl.conf`.

use super::*;
use crate::model::Action;

#[test]
fn permissions_are_read_in_all_their_spellings() {
    let acl: File<AclEntry> = good(
        Companion::Acl,
        "QUEUE=orders.> GROUP=eng PERM=receive,browse\n\
         topic=px.* user=bob perm=ALL # everything\n\
         USER=\"John Smith\" QUEUE=a PERM=send, purge\n\
         ADMIN USER=eve PERM=view-all,change-user\n",
    );
    let words: Vec<(String, Vec<&str>)> = acl
        .entries()
        .map(|entry| (entry.key(), entry.permissions()))
        .collect();
    assert_eq!(
        words[0],
        (
            "QUEUE=orders.> GROUP=eng".to_owned(),
            vec!["receive", "browse"]
        )
    );
    assert_eq!(
        words[1].1,
        ["subscribe", "publish", "durable", "use_durable"]
    );
    assert_eq!(
        words[2],
        (
            "QUEUE=a USER=\"John Smith\"".to_owned(),
            vec!["send", "purge"]
        )
    );
    assert_eq!(words[3].1, ["view-all", "change-user"]);
}

#[test]
fn setting_a_permission_that_stands_in_two_lines_leaves_one() {
    let text = "QUEUE=a USER=b PERM=send\n# why\nQUEUE=a USER=b PERM=browse\n";
    let (mut acl, _) = parse::<AclEntry>(Companion::Acl, text);
    let mut entry = acl.get("QUEUE=a USER=b").expect("it is there").clone();
    if let AclEntry::Destination(grant) = &mut entry {
        grant.actions = [Action::Receive].into_iter().collect();
    }
    acl.set(&entry).expect("it can be written");
    assert_eq!(acl.to_string(), "QUEUE=a USER=b PERM=receive\n# why\n");
}

#[test]
fn each_fault_of_permissions_names_its_line_and_what_to_write() {
    check_faults(&[
        (
            Companion::Acl,
            "QUEUE=a USER=b",
            "1: PERM= is missing; write QUEUE=name or TOPIC=name or ADMIN, then USER=name or \
             GROUP=name, then PERM=a,b",
        ),
        (
            Companion::Acl,
            "QUEUE=a USER=b PERM=recieve",
            "1: unknown permission `recieve`; did you mean `receive`?",
        ),
        (
            Companion::Acl,
            "TOPIC=a USER=b PERM=receive",
            "1: `receive` cannot be done to a topic; write some of subscribe, publish, durable, \
             use_durable, view, create, delete, modify, purge, all",
        ),
        (
            Companion::Acl,
            "QUEUE=a USER=b PERM=",
            "1: no permission is named; write PERM=a,b",
        ),
        (
            Companion::Acl,
            "ADMIN USER=b PERM=change-usr",
            "1: unknown administrative permission `change-usr`; did you mean `change-user`?",
        ),
        (
            Companion::Acl,
            "QUEUE=a..b USER=b PERM=send",
            "1: `a..b` has an empty element; write one dot between two elements",
        ),
        (
            Companion::Acl,
            "QUEUE=a USER=b PERM=send\nQUEUE=a USER=b PERM=browse",
            "2: QUEUE=a USER=b: it is there already, at f.conf:1; both count",
        ),
    ]);
}
