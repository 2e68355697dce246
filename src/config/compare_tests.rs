//! Differences between two servers: each one alone, and nothing secret in any.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::companions::read_anyway;
use super::{Given, MainFile, Side, differences, load_anyway};

const ONE: &str =
    "listen = tcp://127.0.0.1:1\nft_active = tcp://127.0.0.1:2\nstore = /s\nmonitor_listen =\n";
const TWO: &str =
    "listen = tcp://127.0.0.1:2\nft_active = tcp://127.0.0.1:1\nstore = /s\nmonitor_listen =\n";

/// What differs between two servers with files in `/one` and `/two`.
fn compare(one: &str, two: &str, list: &[(&str, &str)]) -> Vec<String> {
    let files: BTreeMap<PathBuf, Vec<u8>> = list
        .iter()
        .map(|(name, text)| (PathBuf::from(name), text.as_bytes().to_vec()))
        .collect();
    let reader = |path: &Path| {
        files
            .get(path)
            .cloned()
            .ok_or(io::ErrorKind::NotFound.into())
    };
    let load = |path: &str, text: &str| {
        let (config, _) = load_anyway(&Given {
            file: Some(MainFile {
                path: PathBuf::from(path),
                text: text.to_owned(),
            }),
            ..Given::default()
        });
        let (companions, _) = read_anyway(&config, &reader);
        (config, companions)
    };
    let (one, two) = (load("/one/a.conf", one), load("/two/b.conf", two));
    differences(
        Side {
            config: &one.0,
            companions: &one.1,
        },
        Side {
            config: &two.0,
            companions: &two.1,
        },
        &reader,
    )
}

#[test]
fn a_right_pair_has_no_differences() {
    assert_eq!(compare(ONE, TWO, &[]), Vec::<String>::new());
}

#[test]
fn each_parameter_that_matters_is_one_line() {
    for (one, two, wanted) in [
        (
            "server = A",
            "server = B",
            "server: A here, B in the peer's file; write the same name in both files",
        ),
        (
            "store = /t",
            "",
            "store: /t here, /s in the peer's file; both servers share one directory",
        ),
        (
            "password = hidden1",
            "password = hidden2",
            "password: not the same in both files; each server logs in to the other with it",
        ),
        (
            "password = hidden1",
            "",
            "password: not the same in both files; each server logs in to the other with it",
        ),
        (
            "authorization = enabled",
            "",
            "authorization: enabled here, disabled in the peer's file; whoever may use one must be able to use the other",
        ),
        (
            "ft_reconnect_timeout = 30",
            "",
            "ft_reconnect_timeout: 30 s here, 60 s in the peer's file; clients have the time of the server that takes over",
        ),
        (
            "ft_active =\nft_active = tcp://127.0.0.1:9",
            "",
            "ft_active: tcp://127.0.0.1:9 is none of the other server's listeners; write one of tcp://127.0.0.1:2",
        ),
        (
            "",
            "ft_active =",
            "the peer's ft_active: not set; write the URL of the other server",
        ),
        (
            "ft_active =\nft_active = ssl://127.0.0.1:2",
            "",
            "ft_active: ssl://127.0.0.1:2 is none of the other server's listeners; write one of tcp://127.0.0.1:2",
        ),
        (
            "",
            "ft_heartbeat = 8\nft_activation = 20",
            "ft_activation: 10 s is less than two heartbeats of the other server (ft_heartbeat = 8 s); write the same values in both files",
        ),
        (
            "listen = tcp://127.0.0.1:2",
            "",
            "listen: tcp://127.0.0.1:2 is an address of both servers; write another port or host for one of them",
        ),
        (
            "monitor_listen = http://127.0.0.1:5",
            "monitor_listen = http://127.0.0.1:5",
            "monitor_listen: http://127.0.0.1:5 is an address of both servers; write another port for one of them",
        ),
        (
            "max_message_bytes = 1MB",
            "",
            "max_message_bytes: 1048576 here, 16777216 in the peer's file; a message that one takes the other must be able to deliver",
        ),
        (
            "auto_create_queues = no",
            "",
            "auto_create_queues: disabled here, enabled in the peer's file; clients that create a queue on one must be able to on the other",
        ),
        (
            "ssl_require_client_cert = yes",
            "",
            "ssl_require_client_cert: enabled here, disabled in the peer's file; a client that one accepts the other must accept",
        ),
        (
            "ssl_server_identity = x.pem",
            "",
            "ssl_server_identity: not set in the peer's file; use the same certificates on both servers",
        ),
        (
            "ssl_server_identity = x.pem",
            "ssl_server_identity = x.pem",
            "ssl_server_identity: its files have not the same content on both servers; use the same certificates on both servers",
        ),
        (
            "ssl_server_identity = x.pem",
            "ssl_server_identity = missing.pem",
            "ssl_server_identity: not compared, its files cannot all be read here; copy the peer's files with its configuration",
        ),
    ] {
        let certificates = [("/one/x.pem", "hidden1"), ("/two/x.pem", "hidden2")];
        let found = compare(
            &format!("{ONE}{one}\n"),
            &format!("{TWO}{two}\n"),
            &certificates,
        );
        assert_eq!(found, [wanted], "{one} | {two}");
    }
    let same = [("/one/x.pem", "c"), ("/two/y.pem", "c")];
    let one = format!("{ONE}ssl_server_trusted = x.pem\n");
    let two = format!("{TWO}ssl_server_trusted = y.pem\n");
    assert_eq!(
        compare(&one, &two, &same),
        Vec::<String>::new(),
        "the content counts"
    );
}

#[test]
fn one_address_for_both_servers_is_a_difference_where_they_would_meet() {
    let pair = |own: &str, peer: &str, both: &str| {
        let main = |listen: &str, peer: &str| {
            format!("listen = {listen}\nft_active = {peer}\nstore = /s\nmonitor_listen =\n{both}\n")
        };
        compare(&main(own, peer), &main(peer, own), &[])
    };
    let on_one_host = |both: &str| pair("tcp://localhost:1", "tcp://localhost:2", both);
    let on_two = |both: &str| pair("tcp://a:1", "tcp://b:1", both);
    let listen = |url: &str| {
        format!(
            "listen: {url} is an address of both servers; write another port or host for one of them"
        )
    };
    let monitor = |url: &str| {
        format!(
            "monitor_listen: {url} is an address of both servers; write another port for one of them"
        )
    };
    for url in ["tcp://127.0.0.1:7", "ssl://*:7", "tcp://[::1]:7"] {
        let both = format!("listen = {url}");
        assert_eq!(on_one_host(&both), [listen(url)]);
        assert_eq!(on_two(&both), Vec::<String>::new(), "each host has its own");
    }
    for url in ["http://127.0.0.1:7", "https://*:7"] {
        let both = format!("monitor_listen = {url}");
        assert_eq!(on_one_host(&both), [monitor(url)]);
        assert_eq!(on_two(&both), Vec::<String>::new(), "each host has its own");
    }
    assert_eq!(on_two("listen = tcp://c:7"), [listen("tcp://c:7")]);
    assert_eq!(
        on_two("monitor_listen = http://c:7"),
        [monitor("http://c:7")]
    );
    for nobody_chose in [
        "listen = tcp://127.0.0.1:5672",
        "listen = tcp://localhost:0",
        "monitor_listen = http://127.0.0.1:8161",
        "monitor_listen = http://127.0.0.1:0",
    ] {
        assert_eq!(on_one_host(nobody_chose), Vec::<String>::new());
    }
    let one = format!("{ONE}listen = tcp://*:7\nlisten = tcp://127.0.0.1:8\n");
    let two = format!("{TWO}listen = tcp://127.0.0.1:7\nlisten = tcp://localhost:8\n");
    assert_eq!(compare(&one, &two, &[]), Vec::<String>::new(), "not equal");
}

#[test]
fn each_entry_that_differs_is_one_line() {
    for (file, one, two, wanted) in [
        (
            "users.conf",
            "bob:hidden1:\n",
            "bob:hidden2:\n",
            "user bob: another password on each server; write the same at /one/{file}:1 and /two/{file}:1",
        ),
        (
            "users.conf",
            "bob:hidden1:\n",
            "bob::\n",
            "user bob: a password on one server only; write the same at /one/{file}:1 and /two/{file}:1",
        ),
        (
            "users.conf",
            "bob:hidden1:\n",
            "",
            "user bob: missing in /two/users.conf; add it as it is at /one/{file}:1",
        ),
        (
            "users.conf",
            "",
            "bob:hidden1:\n",
            "user bob: missing in /one/users.conf; add it as it is at /two/{file}:1",
        ),
        (
            "groups.conf",
            "g:\n a\n",
            "g:\n a\n b\n",
            "group g: members a here, a,b there; write the same at /one/{file}:1 and /two/{file}:1",
        ),
        (
            "acl.conf",
            "QUEUE=a USER=b PERM=send\n",
            "QUEUE=a USER=b PERM=browse\n",
            "permission QUEUE=a USER=b: send here, browse there; write the same at /one/{file}:1 and /two/{file}:1",
        ),
        (
            "queues.conf",
            "a secure\n",
            "a\n",
            "queue a: secure here, no properties there; write the same at /one/{file}:1 and /two/{file}:1",
        ),
        (
            "topics.conf",
            "a\n",
            "",
            "topic a: missing in /two/topics.conf; add it as it is at /one/{file}:1",
        ),
        (
            "durables.conf",
            "t d\n",
            "t d nolocal\n",
            "durable d: `t d` here, `t d nolocal` there; write the same at /one/{file}:1 and /two/{file}:1",
        ),
        (
            "bridges.conf",
            "[topic:a]\nqueue=b\n",
            "[topic:a]\nqueue=c\n",
            "bridge topic:a: queue=b here, queue=c there; write the same at /one/{file}:1 and /two/{file}:1",
        ),
        (
            "routes.conf",
            "[R]\nurl=tcp://r:1\nssl_password=hidden1\n",
            "[R]\nurl=tcp://r:1\nssl_password=hidden2\n",
            "route R: ssl_password not the same on both servers; write the same at /one/{file}:1 and /two/{file}:1",
        ),
        (
            "stores.conf",
            "[s]\nmode=sync\n",
            "[s]\nmode=async\n",
            "store s: mode not the same on both servers; write the same at /one/{file}:1 and /two/{file}:1",
        ),
    ] {
        let wanted = wanted.replace("{file}", file);
        let (first, second) = (format!("/one/{file}"), format!("/two/{file}"));
        let files = [(first.as_str(), one), (second.as_str(), two)];
        let found = compare(ONE, TWO, &files);
        assert_eq!(found, [wanted.as_str()], "{file}: {one} | {two}");
        let main = "monitor_listen =\nstore = x\nserver =";
        let found = compare(&format!("{main} A\n"), &format!("{main} B\n"), &files);
        assert_eq!(found, [wanted], "without shared state, too");
    }
    let keys = |salt| format!("bob:$argon2id$v=19$m=1,t=1,p=1${salt}$x:\n");
    let (one, two) = (keys("a"), keys("b"));
    let files = [
        ("/one/users.conf", one.as_str()),
        ("/two/users.conf", two.as_str()),
    ];
    assert_eq!(
        compare(ONE, TWO, &files),
        Vec::<String>::new(),
        "keys of one password differ"
    );
}
