//! Changes that are written into a main file of the JSON form.

use std::fs;
use std::path::PathBuf;

use super::{Changed, Result, Setup, replace};
use crate::admin;
use crate::config::{Given, MainFile};

/// All that such a file may have, in the ways in which people write it.
const PAIR: &str = r#"{
    "model_version": "1.0",
    "channels": [ {"name" : "x"} ],
    "tibemsd": {
        "server":"EMS",   "authorization" : false,
        "max_connections": 5,
        "ft_heartbeat": "3",
        "module_path": "/opt/\u0065ms",
        "ssl": {"server_ciphers": "TLS13_AES_256_GCM_SHA384"},
        "primary_listens":   [{"url": "tcp://127.0.0.1:7222", "ft_active": true}],
        "secondary_listens": [{"url": "tcp://127.0.0.1:7224", "ft_active": true}]
    },

    "users":  [{"name": "admin", "password": "change-me", "description": "The \"boss\""},
               {"name": "EMS", "password": null}],
    "groups": [
        {
            "name": "eng",
            "members": ["admin", {"name": "ann"}]
        },
        {"name": "ops", "members": []}
    ],
    "acls": [{"queue": "orders.>", "group": "eng", "permissions": ["receive", "send"]}],
    "queues": [
        {"name": ">"},
        {"name": "orders.>", "secure": true, "MaxBytes": "1GB", "maxmsgs": "100"},
        {
            "name": "slow",
            "failsafe": true
        }
    ],
    "topics": [{"name": "px.>"}],
    "durables": [{"topic": "px.ibm", "name": "d1", "clientid": "c1"}],
    "bridges": [{"source": {"type": "topic", "name": "px.>"},
                 "targets": [{"type": "Queue", "name": "orders.a", "selector": ""}]}],
    "factories": [{"name": "F", "type": "generic", "url": "tcp://127.0.0.1:7222", "jndinames": ["f"],
                   "ssl": {"verify_host": "true"}}],
    "stores": []
}
"#;

struct Place {
    _directory: tempfile::TempDir,
    path: PathBuf,
    setup: Setup,
}

fn place(text: &str, is_secondary: bool) -> Place {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("pair.json");
    fs::write(&path, text).expect("it is ours");
    let setup = Setup::new(Given {
        file: Some(MainFile {
            path: path.clone(),
            text: text.to_owned(),
        }),
        is_secondary,
        ..Given::default()
    });
    Place {
        _directory: directory,
        path,
        setup,
    }
}

impl Place {
    fn text(&self) -> String {
        fs::read_to_string(&self.path).expect("it is there")
    }

    fn try_line(&self, line: &str) -> Result<Changed> {
        match line.strip_prefix("set server ") {
            Some(setting) => {
                let (name, value) = setting.split_once('=').expect("a setting");
                let settings = [(name.to_owned(), Some(value.to_owned()))];
                self.setup.set_parameters(&settings, 7)
            }
            None => {
                let request = admin::parse_line(line).expect("a command");
                self.setup.change(&request, Some("ann"))
            }
        }
    }

    /// Lines that went and lines that came, after a check that the file says what the server works with.
    fn diff(&self, line: &str) -> String {
        let before = self.text();
        let changed = self
            .try_line(line)
            .unwrap_or_else(|failure| panic!("{line}: {failure:?}"));
        let fresh = self.setup.fresh().expect("it can be read again");
        assert_eq!(fresh.companions, changed.companions, "{line}");
        assert!(fresh.config.changes(&changed.config).is_empty(), "{line}");
        let after = self.text();
        let (before, after): (Vec<&str>, Vec<&str>) =
            (before.lines().collect(), after.lines().collect());
        let same = before
            .iter()
            .zip(&after)
            .take_while(|(one, other)| one == other);
        let same = same.count();
        let (before, after) = (&before[same..], &after[same..]);
        let rest = before.iter().rev().zip(after.iter().rev());
        let rest = rest.take_while(|(one, other)| one == other).count();
        let gone = before[..before.len() - rest]
            .iter()
            .map(|line| format!("-{}", line.trim()));
        let come = after[..after.len() - rest]
            .iter()
            .map(|line| format!("+{}", line.trim()));
        gone.chain(come).collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn each_change_touches_only_what_it_is_about() {
    let place = place(PAIR, false);
    for (line, wanted) in [
        (
            "create queue a secure,maxmsgs=7",
            "+},|+{|+\"name\": \"a\",|+\"secure\": true,|+\"maxmsgs\": 7",
        ),
        (
            "setprop queue orders.> maxbytes=2GB,maxmsgs=5,exclusive",
            "-{\"name\": \"orders.>\", \"secure\": true, \"MaxBytes\": \"1GB\", \"maxmsgs\": \"100\"},\
             |+{\"name\": \"orders.>\", \"MaxBytes\": \"2GB\", \"maxmsgs\": \"5\", \"exclusive\": true},",
        ),
        (
            "addprop queue > secure",
            "-{\"name\": \">\"},|+{\"name\": \">\", \"secure\": true},",
        ),
        (
            "removeprop queue slow store",
            "-\"name\": \"slow\",|-\"failsafe\": true|+\"name\": \"slow\"",
        ),
        (
            "addprop queue slow expiration=5",
            "-\"name\": \"slow\"|+\"name\": \"slow\",|+\"expiration\": \"5sec\"",
        ),
        (
            "delete queue a",
            "-},|-{|-\"name\": \"a\",|-\"secure\": true,|-\"maxmsgs\": 7",
        ),
        (
            "create topic t",
            "-\"topics\": [{\"name\": \"px.>\"}],|+\"topics\": [{\"name\": \"px.>\"}, {\"name\": \"t\"}],",
        ),
        (
            "create user ann",
            "-{\"name\": \"EMS\", \"password\": null}],|+{\"name\": \"EMS\", \"password\": null},\
             |+{\"name\": \"ann\", \"password\": \"\"}],",
        ),
        (
            "create group new \"a \\ group\"",
            "-{\"name\": \"ops\", \"members\": []}|+{\"name\": \"ops\", \"members\": []},\
             |+{\"name\": \"new\", \"description\": \"a \\\\ group\", \"members\": []}",
        ),
        (
            "add member eng EMS",
            "-\"members\": [\"admin\", {\"name\": \"ann\"}]\
             |+\"members\": [\"admin\", {\"name\": \"ann\"}, \"EMS\"]",
        ),
        (
            "remove member eng admin",
            "-\"members\": [\"admin\", {\"name\": \"ann\"}, \"EMS\"]\
             |+\"members\": [{\"name\": \"ann\"}, \"EMS\"]",
        ),
        (
            "add member ops ann",
            "-{\"name\": \"ops\", \"members\": []},|+{\"name\": \"ops\", \"members\": [\"ann\"]},",
        ),
        (
            "grant queue orders.> group=eng browse",
            "-\"acls\": [{\"queue\": \"orders.>\", \"group\": \"eng\", \"permissions\": [\"receive\", \"send\"]}],\
             |+\"acls\": [{\"queue\": \"orders.>\", \"group\": \"eng\", \"permissions\": [\"receive\", \"send\", \"browse\"]}],",
        ),
        (
            "revoke queue orders.> group=eng receive",
            "-\"acls\": [{\"queue\": \"orders.>\", \"group\": \"eng\", \"permissions\": [\"receive\", \"send\", \"browse\"]}],\
             |+\"acls\": [{\"queue\": \"orders.>\", \"group\": \"eng\", \"permissions\": [\"send\", \"browse\"]}],",
        ),
        (
            "grant admin group=ops view-all",
            "-\"acls\": [{\"queue\": \"orders.>\", \"group\": \"eng\", \"permissions\": [\"send\", \"browse\"]}],\
             |+\"acls\": [{\"queue\": \"orders.>\", \"group\": \"eng\", \"permissions\": [\"send\", \"browse\"]}, \
             {\"admin\": true, \"group\": \"ops\", \"permissions\": [\"view-all\"]}],",
        ),
        (
            "delete group eng",
            "-{|-\"name\": \"eng\",|-\"members\": [{\"name\": \"ann\"}, \"EMS\"]|-},\
             |-{\"name\": \"ops\", \"members\": [\"ann\"]},\
             |-{\"name\": \"new\", \"description\": \"a \\\\ group\", \"members\": []}|-],\
             |-\"acls\": [{\"queue\": \"orders.>\", \"group\": \"eng\", \"permissions\": [\"send\", \"browse\"]}, \
             {\"admin\": true, \"group\": \"ops\", \"permissions\": [\"view-all\"]}],\
             |+{\"name\": \"ops\", \"members\": [\"ann\"]},\
             |+{\"name\": \"new\", \"description\": \"a \\\\ group\", \"members\": []}|+],\
             |+\"acls\": [{\"admin\": true, \"group\": \"ops\", \"permissions\": [\"view-all\"]}],",
        ),
        (
            "create durable t d2 clientid=c2,nolocal",
            "-\"durables\": [{\"topic\": \"px.ibm\", \"name\": \"d1\", \"clientid\": \"c1\"}],\
             |+\"durables\": [{\"topic\": \"px.ibm\", \"name\": \"d1\", \"clientid\": \"c1\"}, \
             {\"topic\": \"t\", \"name\": \"d2\", \"clientid\": \"c2\", \"nolocal\": true}],",
        ),
        (
            "delete durable d1 c1",
            "-\"durables\": [{\"topic\": \"px.ibm\", \"name\": \"d1\", \"clientid\": \"c1\"}, \
             {\"topic\": \"t\", \"name\": \"d2\", \"clientid\": \"c2\", \"nolocal\": true}],\
             |+\"durables\": [{\"topic\": \"t\", \"name\": \"d2\", \"clientid\": \"c2\", \"nolocal\": true}],",
        ),
        (
            "create bridge source=topic:px.> target=queue:orders.b",
            "-\"targets\": [{\"type\": \"Queue\", \"name\": \"orders.a\", \"selector\": \"\"}]}],\
             |+\"targets\": [{\"type\": \"Queue\", \"name\": \"orders.a\", \"selector\": \"\"}, \
             {\"type\": \"queue\", \"name\": \"orders.b\"}]}],",
        ),
        (
            "delete bridge source=topic:px.> target=queue:orders.a",
            "-\"targets\": [{\"type\": \"Queue\", \"name\": \"orders.a\", \"selector\": \"\"}, \
             {\"type\": \"queue\", \"name\": \"orders.b\"}]}],\
             |+\"targets\": [{\"type\": \"queue\", \"name\": \"orders.b\"}]}],",
        ),
        (
            "addprop factory F ssl_verify_host=false",
            "-\"ssl\": {\"verify_host\": \"true\"}}],|+\"ssl\": {\"verify_host\": \"false\"}}],",
        ),
        (
            "create factory G generic url=tcp://127.0.0.1:1",
            "-\"ssl\": {\"verify_host\": \"false\"}}],|+\"ssl\": {\"verify_host\": \"false\"}},\
             |+{|+\"name\": \"G\",|+\"type\": \"generic\",|+\"url\": \"tcp://127.0.0.1:1\"|+}],",
        ),
        (
            "delete all durables",
            "-\"durables\": [{\"topic\": \"t\", \"name\": \"d2\", \"clientid\": \"c2\", \"nolocal\": true}],|+\"durables\": [],",
        ),
    ] {
        assert_eq!(place.diff(line), wanted.replace('|', "\n"), "{line}");
    }
}

#[test]
fn a_parameter_is_set_where_it_stands_and_in_the_way_in_which_it_is_written() {
    let place = place(PAIR, false);
    for (line, wanted) in [
        (
            "max_connections=9",
            "-\"max_connections\": 5,|+\"max_connections\": 9,",
        ),
        (
            "ft_heartbeat=0.5",
            "-\"ft_heartbeat\": \"3\",|+\"ft_heartbeat\": \"0.5\",",
        ),
        (
            "ssl_server_ciphers=TLS13_CHACHA20_POLY1305_SHA256",
            "-\"ssl\": {\"server_ciphers\": \"TLS13_AES_256_GCM_SHA384\"},\
             |+\"ssl\": {\"server_ciphers\": \"TLS13_CHACHA20_POLY1305_SHA256\"},",
        ),
        (
            "ft_reconnect_timeout=5",
            "-\"secondary_listens\": [{\"url\": \"tcp://127.0.0.1:7224\", \"ft_active\": true}]\
             |+\"secondary_listens\": [{\"url\": \"tcp://127.0.0.1:7224\", \"ft_active\": true}],\
             |+\"ft_reconnect_timeout\": 5",
        ),
        (
            "monitor_listen=",
            "-\"ft_reconnect_timeout\": 5|+\"ft_reconnect_timeout\": 5,|+\"monitor_listen\": \"\"",
        ),
        (
            "listen=tcp://127.0.0.1:7000",
            "-\"primary_listens\":   [{\"url\": \"tcp://127.0.0.1:7222\", \"ft_active\": true}],\
             |+\"primary_listens\":   [{\"url\": \"tcp://127.0.0.1:7000\", \"ft_active\": true}],",
        ),
        (
            "listen=tcp://127.0.0.1:7001,tcp://127.0.0.1:7002",
            "-\"primary_listens\":   [{\"url\": \"tcp://127.0.0.1:7000\", \"ft_active\": true}],\
             |+\"primary_listens\":   [{\"url\": \"tcp://127.0.0.1:7001\", \"ft_active\": true}, \
             {\"url\": \"tcp://127.0.0.1:7002\"}],",
        ),
        ("ft_active=tcp://127.0.0.1:7224", ""),
    ] {
        assert_eq!(
            place.diff(&format!("set server {line}")),
            wanted.replace('|', "\n"),
            "{line}"
        );
    }
    let refused = |line: &str| {
        let before = place.text();
        let failure = place.try_line(&format!("set server {line}")).err();
        let failure = failure.unwrap_or_else(|| panic!("{line} is written"));
        assert_eq!(place.text(), before, "{line}");
        failure.text
    };
    let told = refused("ft_active=tcp://127.0.0.1:9");
    assert!(
        told.contains("none of the URLs in `secondary_listens`"),
        "{told}"
    );
    let told = refused("authorization=enabled");
    assert!(told.contains("password"), "{told}");
    let told = refused("ft_heartbeat=soon");
    assert!(told.contains("pair.json:7: ft_heartbeat"), "{told}");

    place.diff("set server password=sesame");
    let text = place.text();
    assert!(text.contains("\"password\": \"$hidden$"), "{text}");
    assert!(!text.contains("sesame"));
    let config = place.setup.fresh().expect("it can be read").config;
    assert_eq!(
        config.password.map(|it| it.expose().to_owned()).as_deref(),
        Some("sesame")
    );

    place.diff("set password EMS secret");
    place.diff("set server authorization=enabled");
    let text = place.text();
    assert!(text.contains("\"authorization\" : true,"), "{text}");
    assert!(
        text.contains("{\"name\": \"EMS\", \"password\": \"$argon2id$"),
        "{text}"
    );
    assert!(!text.contains("secret"));
}

#[test]
fn the_second_server_changes_what_is_its_own() {
    let place = place(PAIR, true);
    let told = place.diff("set server listen=tcp://127.0.0.1:7300");
    assert_eq!(
        told,
        "-\"secondary_listens\": [{\"url\": \"tcp://127.0.0.1:7224\", \"ft_active\": true}]\n\
         +\"secondary_listens\": [{\"url\": \"tcp://127.0.0.1:7300\", \"ft_active\": true}]"
    );
    let config = place.setup.fresh().expect("it can be read").config;
    assert_eq!(config.peers.len(), 1);
}

#[test]
fn a_file_of_one_line_stays_one_and_sections_that_are_missing_are_made() {
    let place = place("{\"tibemsd\":{\"server\":\"A\"}}", false);
    place.diff("set server max_connections=5");
    assert_eq!(
        place.text(),
        "{\"tibemsd\":{\"server\":\"A\", \"max_connections\": 5}}"
    );
    place.diff("create queue a");
    assert_eq!(
        place.text(),
        "{\"tibemsd\":{\"server\":\"A\", \"max_connections\": 5}, \"queues\": [{\"name\": \"a\"}]}"
    );
}

#[test]
fn in_the_form_without_sections_parameters_are_written_and_files_stand_beside() {
    let place = place("{\r\n\t\"server\": \"A\"\r\n}\r\n", false);
    place.diff("set server max_connections=5");
    assert_eq!(
        place.text(),
        "{\r\n\t\"server\": \"A\",\r\n\t\"max_connections\": 5\r\n}\r\n"
    );
    place.try_line("create queue a").expect("it is written");
    let queues = place.path.with_file_name("queues.conf");
    assert_eq!(fs::read_to_string(queues).expect("it was made"), "a\n");
}

#[test]
fn what_somebody_changed_by_hand_counts_and_what_is_broken_is_not_touched() {
    let place = place(PAIR, false);
    place.diff("create queue a");
    let by_hand = place
        .text()
        .replace("\"px.>\"}]", "\"px.>\"}, {\"name\": \"hand\"}]");
    fs::write(&place.path, &by_hand).expect("it is ours");
    place.diff("create queue b");
    let fresh = place.setup.fresh().expect("it can be read").companions;
    assert!(fresh.topics.get("hand").is_some() && fresh.queues.get("b").is_some());

    for (broken, told) in [
        (
            place.text().replacen('{', "", 1),
            "pair.json:2: not valid JSON",
        ),
        (
            place.text().replace("\"members\"", "\"member\""),
            "unknown key `member`",
        ),
    ] {
        fs::write(&place.path, &broken).expect("it is ours");
        for line in ["create queue c", "set server max_connections=3"] {
            let failure = place.try_line(line).err().expect("it cannot be read");
            assert_eq!(failure.status, 409, "{}", failure.text);
            assert!(failure.text.contains(told), "{}", failure.text);
        }
        assert_eq!(place.text(), broken);
    }
    fs::remove_file(&place.path).expect("it is ours");
    let failure = place.try_line("create queue c").err().expect("it is gone");
    assert!(failure.text.contains("cannot be read"), "{}", failure.text);
}

#[test]
fn a_file_that_cannot_be_written_stays_as_it_was() {
    let place = place(PAIR, false);
    // A directory in the way stands for a disk that is full or a place that is read-only.
    let way = replace::temporary_of(&place.path);
    fs::create_dir_all(way.join("x")).expect("it is ours");
    let before = place.setup.fresh().expect("it can be read").companions;
    for line in ["create queue c", "set server max_connections=3"] {
        let failure = place.try_line(line).err().expect("it is in the way");
        assert_eq!(failure.status, 500);
        assert!(
            failure.text.contains("nothing was changed"),
            "{}",
            failure.text
        );
    }
    assert_eq!(place.text(), PAIR);
    let after = place.setup.fresh().expect("it can be read").companions;
    assert_eq!(before, after);
}
