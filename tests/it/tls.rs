//! TLS of real servers: who is refused and what they read, renewal, the link of a pair, the monitor.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;
use steadfast::tls::{ClientParameters, ClientTls, FileNames, TOOL_NAMES};

use super::certificates::{Authority, Validity};
use super::support::{PATIENCE, PROGRAM, Server, serve, two_ports};

/// A directory with an authority.
struct Place {
    directory: tempfile::TempDir,
    authority: Authority,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let authority = Authority::new(directory.path(), "ca");
        Self {
            directory,
            authority,
        }
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// Starts a server with a listener with TLS on any port, and further values.
    fn serve(&self, values: &[String]) -> Server {
        let mut server = start(&self.store(), "ssl://127.0.0.1:0", values);
        server.wait("active");
        server
    }

    fn client(&self, identity: Option<PathBuf>) -> ClientTls {
        let parameters = ClientParameters {
            files: FileNames {
                identity,
                trusted: vec![self.authority.file()],
                ..FileNames::default()
            },
            names: TOOL_NAMES,
            verify_host: true,
            verify_hostname: true,
            expected_hostname: None,
        };
        ClientTls::new(&parameters).expect("the files are right")
    }
}

fn start(store: &Path, listen: &str, values: &[String]) -> Server {
    let mut options = vec!["--listen", listen];
    for value in values {
        options.extend(["--set", value]);
    }
    serve(store, &options)
}

fn set(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

/// Host and port of the first listener.
fn address(server: &Server) -> String {
    let starting = server.log.iter().find(|event| event["event"] == "starting");
    let listens = starting.expect("it has started")["listens"].as_str();
    let first = listens.and_then(|list| list.split(',').next());
    let (_, address) = first.and_then(|url| url.split_once("://")).expect("a URL");
    address.to_owned()
}

type Secure = StreamOwned<ClientConnection, TcpStream>;

fn connect(client: &ClientTls, address: &str) -> Secure {
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let connection = ClientConnection::new(Arc::clone(&client.config), name);
    let socket = TcpStream::connect(address).expect("the server listens");
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("the time is right");
    StreamOwned::new(connection.expect("the configuration is right"), socket)
}

/// The SASL mechanisms that a server offers.
fn mechanisms(stream: &mut Secure) -> String {
    stream
        .write_all(b"AMQP\x03\x01\x00\x00")
        .expect("the server takes it");
    let mut header = [0; 8];
    stream.read_exact(&mut header).expect("the server answers");
    assert_eq!(&header, b"AMQP\x03\x01\x00\x00");
    String::from_utf8_lossy(&frame(stream)).into_owned()
}

fn frame(stream: &mut Secure) -> Vec<u8> {
    let mut size = [0; 4];
    stream.read_exact(&mut size).expect("a frame comes");
    let size = usize::try_from(u32::from_be_bytes(size)).expect("a small number");
    let mut rest = vec![0; size - 4];
    stream.read_exact(&mut rest).expect("the frame is whole");
    rest
}

fn bench(arguments: &[&str]) -> Output {
    let output = Command::new(PROGRAM).arg("bench").args(arguments).output();
    output.expect("the program starts")
}

#[test]
fn clients_with_a_certificate_may_say_no_more_and_others_are_not_offered_that() {
    let place = Place::new();
    let server = place.serve(&[
        set("ssl_server_identity", &place.authority.local("server")),
        set("ssl_server_trusted", &place.authority.file()),
    ]);
    let address = address(&server);
    let mut stranger = connect(&place.client(None), &address);
    let offered = mechanisms(&mut stranger);
    assert!(
        offered.contains("PLAIN") && !offered.contains("EXTERNAL"),
        "{offered:?}"
    );

    let mut carol = connect(
        &place.client(Some(place.authority.local("carol"))),
        &address,
    );
    assert!(mechanisms(&mut carol).contains("EXTERNAL"));
    let init = b"\x00\x00\x00\x1a\x02\x01\x00\x00\x00\x53\x41\xc0\x0d\x02\xa3\x08EXTERNAL\xa0\x00";
    carol.write_all(init).expect("the server takes it");
    let outcome = frame(&mut carol);
    assert_eq!(&outcome[4..7], b"\x00\x53\x44", "{outcome:?}");
    assert!(outcome.ends_with(&[0x50, 0]), "{outcome:?}");
}

#[test]
fn what_is_wrong_with_files_stops_the_start_and_names_the_parameter() {
    let place = Place::new();
    let server = place.authority.local("server");
    let expired = place
        .authority
        .issue("old", &["localhost"], Validity::Expired);
    let expired = place.authority.write("expired.pem", &expired);
    let early = place
        .authority
        .issue("new", &["localhost"], Validity::NotYet);
    let early = place.authority.write("early.pem", &early);
    let other = place
        .authority
        .issue("other", &["localhost"], Validity::Now);
    let other_key = place.directory.path().join("other.key");
    fs::write(&other_key, other.key.serialize_pem()).expect("the directory can be written");
    let empty = place.directory.path().join("empty.pem");
    fs::write(&empty, "").expect("the directory can be written");
    let missing = place.directory.path().join("missing.pem");
    let identity = |path: &Path| set("ssl_server_identity", path);
    let tls = "ssl://127.0.0.1:0";
    let link = "ft_active=ssl://127.0.0.1:9".to_owned();
    for (listen, values, wanted) in [
        (tls, vec![], "ssl_server_identity: not set"),
        (
            tls,
            vec![identity(&missing)],
            "missing.pem: the file cannot be opened",
        ),
        (tls, vec![identity(&empty)], "empty.pem: the file is empty"),
        (
            tls,
            vec![identity(&expired)],
            "expired.pem: the certificate expired on",
        ),
        (
            tls,
            vec![identity(&early)],
            "early.pem: the certificate is not valid before",
        ),
        (
            tls,
            vec![identity(&server), set("ssl_server_key", &other_key)],
            "ssl_server_key: ",
        ),
        (
            tls,
            vec![identity(&server), "ssl_require_client_cert=yes".to_owned()],
            "ssl_server_trusted: not set",
        ),
        (
            "tcp://127.0.0.1:0",
            vec![
                "monitor_listen=https://127.0.0.1:0".to_owned(),
                identity(&missing),
            ],
            "ssl_server_identity: ",
        ),
        (
            "tcp://127.0.0.1:0",
            vec![link.clone()],
            "ft_ssl_trusted: not set",
        ),
        (
            "tcp://127.0.0.1:0",
            vec![link, set("ft_ssl_trusted", &missing)],
            "ft_ssl_trusted: ",
        ),
    ] {
        let mut server = start(&place.store(), listen, &values);
        assert_eq!(server.exit_code(), 2, "{values:?}");
        let said = server.said();
        assert!(said.contains(wanted), "`{wanted}` is not in: {said}");
        assert_eq!(server.count("starting"), 0, "nothing was half started");
    }
    assert!(!place.store().exists());
}

#[test]
fn check_config_opens_the_certificates_of_its_own_file_and_compares_those_of_the_peer() {
    let place = Place::new();
    place.authority.local("server");
    place.authority.local("other");
    let expired = place.authority.issue("old", &[], Validity::Expired);
    place.authority.write("expired.pem", &expired);
    let file = |name: &str, own: u16, peer: u16, identity: &str, link: &str| {
        let path = place.directory.path().join(name);
        let text = format!(
            "listen = ssl://127.0.0.1:{own}\nft_active = ssl://127.0.0.1:{peer}\n\
             ssl_server_identity = {identity}\nft_ssl_identity = {link}\nft_ssl_trusted = ca.pem\n"
        );
        fs::write(&path, text).expect("the directory can be written");
        path
    };
    let a = file("a.conf", 1, 2, "server.pem", "server.pem");
    let b = file("b.conf", 2, 1, "server.pem", "expired.pem");
    let c = file("c.conf", 2, 1, "other.pem", "server.pem");
    let d = file("d.conf", 2, 1, "missing.pem", "server.pem");
    for (paths, code, wanted) in [
        (vec![&a], 0, "a.conf: no faults"),
        (vec![&b], 2, "ft_ssl_identity: "),
        (vec![&d], 2, "missing.pem: the file cannot be opened"),
        (vec![&a, &b], 0, "the two servers fit together"),
        (vec![&b, &a], 2, "expired.pem: the certificate expired on"),
        (
            vec![&a, &c],
            2,
            "ssl_server_identity: its files have not the same content on both servers",
        ),
        (vec![&a, &d], 2, "ssl_server_identity: not compared"),
    ] {
        let mut command = Command::new(PROGRAM);
        command.arg("check-config").arg(paths[0]);
        if let Some(peer) = paths.get(1) {
            command.arg("--peer").arg(peer);
        }
        let output = command.output().expect("the program starts");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(output.status.code(), Some(code), "{paths:?}: {said}");
        assert!(said.contains(wanted), "`{wanted}` is not in: {said}");
    }
}

#[test]
fn our_own_client_speaks_tls_and_says_what_is_wrong() {
    let place = Place::new();
    let stranger = Authority::new(place.directory.path(), "stranger");
    let server = place.serve(&[
        set("ssl_server_identity", &place.authority.local("server")),
        set("ssl_server_trusted", &place.authority.file()),
        "ssl_require_client_cert=yes".to_owned(),
    ]);
    let url = format!("amqps://{}", address(&server));
    let text = |path: PathBuf| path.display().to_string();
    let (trusted, wrong) = (text(place.authority.file()), text(stranger.file()));
    let identity = text(place.authority.local("carol"));
    let foreign = text(stranger.local("mallory"));
    let base = [
        "fill",
        "--messages",
        "200",
        "--queues",
        "2",
        "--size",
        "100000",
        "--server",
        &url,
        "--json",
    ];
    let run = |more: &[&str]| {
        let output = bench(&[&base[..], more].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let good = run(&["--ssl-trusted", &trusted, "--ssl-identity", &identity]);
    assert_eq!(good.0, Some(0), "{}", good.1);
    server.wait_state("filled", |state| state["store"]["messages"] == 200);
    for (more, code, wanted) in [
        (vec![], 2, "--ssl-trusted: not set"),
        (
            vec!["--ssl-trusted", "/nowhere.pem"],
            2,
            "--ssl-trusted: /nowhere.pem",
        ),
        (
            vec!["--ssl-trusted", &wrong],
            1,
            "--ssl-trusted: the issuer",
        ),
        (
            vec!["--ssl-trusted", &trusted],
            1,
            "--ssl-identity: not set",
        ),
        (
            vec!["--ssl-trusted", &trusted, "--ssl-hostname", "elsewhere"],
            1,
            "--ssl-hostname: the server's certificate is not for elsewhere",
        ),
        (
            vec!["--ssl-trusted", &trusted, "--ssl-identity", &foreign],
            1,
            "--ssl-identity: the server refuses our certificate",
        ),
    ] {
        let (status, said) = run(&more);
        assert_eq!(status, Some(code), "{said}");
        assert!(said.contains(wanted), "`{wanted}` is not in: {said}");
    }
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart_and_a_broken_one_is_not() {
    let place = Place::new();
    let identity = place.authority.local("server");
    let mut server = place.serve(&[set("ssl_server_identity", &identity)]);
    let address = address(&server);
    let shown = || {
        let mut stream = connect(&place.client(None), &address);
        mechanisms(&mut stream);
        let chain = stream.conn.peer_certificates().expect("it has one");
        chain[0].to_vec()
    };
    let first = shown();
    assert_eq!(first, shown());
    place.authority.local("server");
    server.wait("tls_renewed");
    let second = shown();
    assert!(first != second, "the new certificate is shown");

    fs::write(&identity, "half a certificate").expect("the file can be written");
    let failed = server.wait("tls_renewal_failed");
    assert_eq!(failed["parameter"], "ssl_server_identity");
    assert_eq!(second, shown());
    assert_eq!(server.count("tls_renewal_failed"), 1);
}

#[test]
fn handshakes_that_never_end_keep_nobody_out() {
    let place = Place::new();
    let mut server = place.serve(&[set("ssl_server_identity", &place.authority.local("server"))]);
    let address = address(&server);
    let dawdler = || {
        let mut socket = TcpStream::connect(&address).expect("the server listens");
        // The beginning of a record that never comes.
        socket.write_all(b"\x16\x03\x01\x02").expect("it is sent");
        socket
    };
    let dawdlers: Vec<TcpStream> = (0..400).map(|_| dawdler()).collect();
    let offered = mechanisms(&mut connect(&place.client(None), &address));
    assert!(offered.contains("PLAIN"), "{offered:?}");
    assert_eq!(dawdlers.len(), 400);

    // Those who speak something else are told nothing, and the log says so.
    let mut plain = TcpStream::connect(&address).expect("the server listens");
    plain
        .write_all(b"AMQP\x00\x01\x00\x00")
        .expect("it is sent");
    let mut sink = Vec::new();
    // A reset is as good an end.
    let _ = plain.read_to_end(&mut sink);
    assert!(sink.is_empty());
    let refused = server.wait("tls_refused");
    let reason = refused["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("does not speak TLS"), "{reason}");
}

#[test]
fn the_monitor_answers_over_https() {
    let place = Place::new();
    let mut server = start(
        &place.store(),
        "tcp://127.0.0.1:0",
        &[
            "monitor_listen=https://127.0.0.1:0".to_owned(),
            set("ssl_server_identity", &place.authority.local("server")),
        ],
    );
    server.wait("active");
    let starting = server.log.iter().find(|event| event["event"] == "starting");
    let monitor = starting.and_then(|event| event["monitor"].as_str());
    let address = monitor.and_then(|url| url.strip_prefix("https://"));
    let address = address.expect("the URL says https").to_owned();
    // One that never shakes hands stands in nobody's way.
    let _dawdler = TcpStream::connect(&address).expect("the monitor listens");
    let mut stream = connect(&place.client(None), &address);
    let request = "GET /state HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("\"role\""), "{answer}");
}

/// The parameters of one side of a pair.
struct Side {
    listen: String,
    values: Vec<String>,
}

impl Side {
    fn new(scheme: (&str, &str), own: u16, other: u16, values: &[String]) -> Self {
        let mut all = vec![
            format!("ft_active={}://127.0.0.1:{other}", scheme.1),
            "ft_heartbeat=0.2".to_owned(),
            "ft_activation=0.6".to_owned(),
        ];
        all.extend_from_slice(values);
        Self {
            listen: format!("{}://127.0.0.1:{own}", scheme.0),
            values: all,
        }
    }

    fn start(&self, store: &Path) -> Server {
        start(store, &self.listen, &self.values)
    }
}

#[test]
fn c13_c14_c15_c16_check06_the_opener_uses_ft_ssl_and_the_listener_its_own_parameters() {
    let place = Place::new();
    let trusted = place.authority.file();
    let link = place.authority.local("link");
    let values = [
        set("ssl_server_identity", &place.authority.local("server")),
        set("ssl_server_trusted", &trusted),
        "ssl_require_client_cert=yes".to_owned(),
        set("ft_ssl_identity", &link),
        set("ft_ssl_trusted", &trusted),
        "ft_ssl_expected_hostname=localhost".to_owned(),
    ];
    let (a, b) = two_ports();
    let sides = [
        Side::new(("ssl", "ssl"), a, b, &values),
        Side::new(("ssl", "ssl"), b, a, &values),
    ];
    let mut first = sides[0].start(&place.store());
    first.wait("active");
    let mut second = sides[1].start(&place.store());
    second.wait("standby");
    let is_connected = |state: &Value| state["peer"]["role"] == "active";
    second.wait_state("connected to its peer", is_connected);
    first.kill();
    second.wait("active");
    let mut first = sides[0].start(&place.store());
    first.wait("standby");
    assert_eq!(first.count("peer_refused") + second.count("tls_refused"), 0);
}

#[test]
fn check06_each_refused_link_says_on_both_sides_which_parameter_to_mend() {
    let place = Place::new();
    let stranger = Authority::new(place.directory.path(), "stranger");
    let trusted = place.authority.file();
    let identity = set("ssl_server_identity", &place.authority.local("server"));
    let trust = set("ft_ssl_trusted", &trusted);
    let elsewhere = place.authority.issue("else", &["elsewhere"], Validity::Now);
    let elsewhere = place.authority.write("elsewhere.pem", &elsewhere);
    let wants = [
        identity.clone(),
        set("ssl_server_trusted", &trusted),
        "ssl_require_client_cert=yes".to_owned(),
    ];
    let tls = ("ssl", "ssl");
    struct Case {
        schemes: (&'static str, &'static str),
        listener: Vec<String>,
        opener: Vec<String>,
        there: &'static str,
        here: &'static str,
    }
    let cases = [
        Case {
            schemes: tls,
            listener: vec![identity.clone()],
            opener: vec![set("ft_ssl_trusted", &stranger.file())],
            there: "refuses our certificate (ssl_server_identity)",
            here: "ft_ssl_trusted: the issuer",
        },
        Case {
            schemes: tls,
            listener: vec![set("ssl_server_identity", &elsewhere)],
            opener: vec![trust.clone()],
            there: "refuses our certificate (ssl_server_identity)",
            here: "ft_ssl_expected_hostname: ",
        },
        Case {
            schemes: tls,
            listener: wants.to_vec(),
            opener: vec![trust.clone()],
            there: "ssl_require_client_cert",
            here: "ft_ssl_identity: not set",
        },
        Case {
            schemes: tls,
            listener: wants.to_vec(),
            opener: vec![
                trust.clone(),
                set("ft_ssl_identity", &stranger.local("mallory")),
            ],
            there: "not in ssl_server_trusted",
            here: "ft_ssl_identity: the server refuses",
        },
        Case {
            schemes: ("tcp", "ssl"),
            listener: vec![],
            opener: vec![trust.clone()],
            there: "at a listener without TLS",
            here: "it does not speak TLS there",
        },
        Case {
            schemes: ("ssl", "tcp"),
            listener: vec![identity.clone()],
            opener: vec![],
            there: "a peer calls without TLS",
            here: "write ft_active = ssl://",
        },
    ];
    for case in cases {
        let store = tempfile::tempdir().expect("a directory");
        let (a, b) = two_ports();
        // The listener calls its peer, too: nobody answers before that one runs.
        let mut listener = start(
            store.path(),
            &format!("{}://127.0.0.1:{a}", case.schemes.0),
            &case.listener,
        );
        listener.wait("active");
        let opener = Side::new(("tcp", case.schemes.1), b, a, &case.opener);
        let mut opener = opener.start(store.path());
        let here = opener.wait("peer_refused")["reason"].to_string();
        assert!(
            here.contains(case.here),
            "`{}` is not in: {here}",
            case.here
        );
        let there = listener.wait("tls_refused")["reason"].to_string();
        assert!(
            there.contains(case.there),
            "`{}` is not in: {there}",
            case.there
        );
        assert_eq!(listener.count("standby") + opener.count("active"), 0);
    }
}

/// The tool, with a server's URL.
fn admin(url: &str, options: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(PROGRAM)
        .args(["admin", "--server", url])
        .args(options)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("the program starts");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn a_certificate_alone_is_a_login_for_the_tool() {
    let place = Place::new();
    let text = |path: PathBuf| path.display().to_string();
    let users = place.directory.path().join("users.conf");
    fs::write(&users, "carol::\n").expect("the directory can be written");
    let config = place.directory.path().join("a.conf");
    let main =
        "authorization = enabled\nssl_server_identity = server.pem\nssl_server_trusted = ca.pem\n";
    fs::write(&config, main).expect("the directory can be written");
    place.authority.local("server");
    let options = ["--config", &text(config), "--listen", "ssl://127.0.0.1:0"];
    let mut server = serve(&place.store(), &options);
    server.wait("active");
    let url = format!("ssl://{}", address(&server));
    let trusted = text(place.authority.file());
    let with = |name: &str| {
        let identity = text(place.authority.local(name));
        admin(
            &url,
            &[
                "--ssl-trusted",
                &trusted,
                "--ssl-identity",
                &identity,
                "whoami",
            ],
        )
    };
    let (code, said) = with("carol");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("carol"), "{said}");
    let (code, said) = with("mallory");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("the certificate as a login")
            && said.contains("--ssl-identity")
            && !said.contains("password"),
        "{said}"
    );
    let refused = server.wait("login_refused");
    assert_eq!(refused["mechanism"], "EXTERNAL", "{refused}");
    assert_eq!(refused["user"], "mallory", "{refused}");
    server.wait_state("a refused login", |state| {
        state["clients"]["refused_logins"] == 1
    });
}

#[test]
fn the_wrong_kind_of_url_is_told_in_both_directions() {
    let place = Place::new();
    let identity = set("ssl_server_identity", &place.authority.local("server"));
    let secure = place.serve(&[identity]);
    let (code, said) = admin(&format!("tcp://{}", address(&secure)), &["whoami"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("speaks TLS there: write ssl://"), "{said}");
    drop(secure);
    let mut plain = start(&place.store(), "tcp://127.0.0.1:0", &[]);
    plain.wait("active");
    let trusted = place.authority.file().display().to_string();
    let url = format!("ssl://{}", address(&plain));
    let (code, said) = admin(&url, &["--ssl-trusted", &trusted, "whoami"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("does not speak TLS there; write tcp://"),
        "{said}"
    );
}

/// A certificate as `openssl x509 -req` makes it without extensions, with its key.
const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBGDCBvwIUdeDkC3unuvxZ5k1o6prMxIV5ZWcwCgYIKoZIzj0EAwIwDjEMMAoG
A1UEAwwDb2xkMCAXDTI2MTEyMjIyMzAwMloYDzIxMjYxMDI5MjIzMDAyWjAOMQww
CgYDVQQDDANvbGQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQ4g+/qXauKLTHS
NRJNmWn3V/1ER6sKaWBQmo3nzpG3TyzxEJ4UlUqccfyFWmpyX2GUE0HG/ofVPW06
3SrQh/MzMAoGCCqGSM49BAMCA0gAMEUCIQCleF3j/peNJY1NvhJ4jyd5m2VkIqBC
OEOcFgqQc3LpdQIgMaTC+CYYtGObEGYQuTqIqZ0AiPkK0Vbx7nMfRy9FjvI=
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg/OQfdARAHThyPf6Z
QG6oHeng2uH0+8+97NAfdyAOxXihRANCAAQ4g+/qXauKLTHSNRJNmWn3V/1ER6sK
aWBQmo3nzpG3TyzxEJ4UlUqccfyFWmpyX2GUE0HG/ofVPW063SrQh/Mz
-----END PRIVATE KEY-----
";

#[test]
fn a_certificate_of_version_1_is_refused_with_the_reason() {
    let place = Place::new();
    let server = place.serve(&[set("ssl_server_identity", &place.authority.local("server"))]);
    let old = place.directory.path().join("old.pem");
    fs::write(&old, VERSION_1).expect("the directory can be written");
    let (old, trusted) = (old.display().to_string(), place.authority.file());
    let (code, said) = admin(
        &format!("ssl://{}", address(&server)),
        &[
            "--ssl-trusted",
            &trusted.display().to_string(),
            "--ssl-identity",
            &old,
            "whoami",
        ],
    );
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("X.509 version 1") && said.contains("-extfile"),
        "{said}"
    );
}

#[test]
fn the_commands_of_the_documentation_make_certificates_that_work() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("there is no openssl here: the commands of docs/CONFIGURATION.md were not tried");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/CONFIGURATION.md")).expect("it is there");
    let script = page
        .split("```sh certificates.sh\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let place = Place::new();
    let made = Command::new("sh")
        .args(["-e", "-c", script.expect("it is in the page")])
        .current_dir(place.directory.path())
        .output()
        .expect("a shell starts");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let file = |name: &str| place.directory.path().join(name);
    let server = place.serve(&[
        set("ssl_server_identity", &file("server.pem")),
        set("ssl_server_key", &file("server.key.pem")),
        set("ssl_server_trusted", &file("ca.pem")),
    ]);
    let url = format!("ssl://{}", address(&server)).replace("127.0.0.1", "localhost");
    let text = |name: &str| file(name).display().to_string();
    let (ca, ann, key) = (text("ca.pem"), text("ann.pem"), text("ann.key.pem"));
    let options = [
        "--ssl-trusted",
        &ca,
        "--ssl-identity",
        &ann,
        "--ssl-key",
        &key,
        "whoami",
    ];
    let (code, said) = admin(&url, &options);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("ann"), "{said}");
}
