//! Grammar, table, layers and rules; each fault with the message that the operator reads.

use std::path::{Path, PathBuf};

use super::table::{Support, parameter};
use super::{
    Config, Faults, FenceDeadline, Given, MainFile, PARAMETERS, Secret, load, news, value,
};

fn file(name: &str, text: &str) -> Given {
    let file = MainFile {
        path: PathBuf::from(name),
        text: text.to_owned(),
    };
    Given {
        file: Some(file),
        ..Given::default()
    }
}

fn conf(text: &str) -> Result<Config, Faults> {
    load(&file("/etc/pair/a.conf", text))
}

fn json(text: &str) -> Result<Config, Faults> {
    load(&file("/etc/pair/a.json", text))
}

fn set(values: &[&str]) -> Result<Config, Faults> {
    let set = values.iter().map(|text| (*text).to_owned()).collect();
    load(&Given {
        set,
        ..Given::default()
    })
}

fn good(result: Result<Config, Faults>) -> Config {
    result.unwrap_or_else(|faults| panic!("{faults}"))
}

fn faults(result: Result<Config, Faults>) -> String {
    result.expect_err("the configuration is wrong").to_string()
}

fn warnings(config: &Config) -> Vec<String> {
    config.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn without_anything_a_standalone_server_on_loopback_results() {
    let config = good(load(&Given::default()));
    assert_eq!(config.server, "EMS-SERVER");
    assert_eq!(config.listens[0].to_string(), "tcp://127.0.0.1:5672");
    let monitor = config.monitor_listen.as_ref().expect("on by default");
    assert_eq!(monitor.to_string(), "http://127.0.0.1:8161");
    assert_eq!(config.store, PathBuf::from("steadfast-data"));
    assert!(config.peers.is_empty() && config.auto_create_queues);
    assert_eq!((config.heartbeat_ms, config.activation_ms), (3_000, 10_000));
    assert_eq!(config.reconnect_timeout_ms, 60_000);
    assert_eq!(config.max_message_bytes, 16 << 20);
    assert_eq!(config.store_fence_deadline, FenceDeadline::Automatic);
    assert_eq!(warnings(&config), Vec::<String>::new());
}

#[test]
fn the_files_of_tls_stand_beside_the_main_file_and_no_password_is_shown() {
    let config = good(conf(
        "ssl_server_identity = server.p12\nssl_password = hidden-1\nssl_server_trusted = ca1.pem\n\
         ssl_server_trusted = /ca2.pem\nssl_require_client_cert = yes\nft_ssl_identity = me.pem\n\
         ft_ssl_private_key = me.key\nft_ssl_trusted = ca1.pem\nft_ssl_verify_hostname = no\n\
         ft_ssl_expected_hostname = b\npassword = hidden-2\n",
    ));
    let path = |name: &str| Some(PathBuf::from(name));
    assert_eq!(config.tls.identity, path("/etc/pair/server.p12"));
    let trusted = ["/etc/pair/ca1.pem", "/ca2.pem"].map(PathBuf::from);
    assert_eq!(config.tls.trusted, trusted);
    assert!(config.tls.require_client_cert && !config.tls.use_cert_username);
    assert_eq!(
        config.tls.cert_user_specname.as_deref(),
        Some("CERTIFICATE_USER")
    );
    assert_eq!(config.ft_tls.key, path("/etc/pair/me.key"));
    assert_eq!(config.ft_tls.expected_hostname.as_deref(), Some("b"));
    assert!(config.ft_tls.verify_host && !config.ft_tls.verify_hostname);
    let passwords = [&config.password, &config.tls.password];
    let exposed = passwords.map(|secret| secret.as_ref().map(Secret::expose));
    assert_eq!(exposed, [Some("hidden-2"), Some("hidden-1")]);
    assert!(!format!("{config:?}").contains("hidden"));
    assert_eq!(config.ft_tls.password, None);
}

#[test]
fn every_default_of_the_table_is_a_value_of_its_kind() {
    for row in PARAMETERS {
        let parsed = value::parse(row.kind, row.default);
        assert!(
            row.default.is_empty() || parsed.is_ok(),
            "{}: {parsed:?}",
            row.name
        );
        assert!(!row.help.is_empty(), "{}", row.name);
        let rows = PARAMETERS.iter().filter(|other| other.name == row.name);
        assert_eq!(rows.count(), 1, "{} stands in the table once", row.name);
    }
}

#[test]
fn the_main_file_of_an_ems_pair_is_read_as_ems_reads_it() {
    let config = good(conf(
        "\u{feff}# server 1 of the pair\r\n\
         server = EMS-SERVER\r\n\
         password =\r\n\
         listen = tcp://7222\r\n\
         listen=amqp://[::1]:7223 ; another\r\n\
         \r\n\
         ; the partner\r\n\
         ft_active = tcp://host2:7224\r\n\
         ft_heartbeat = 3\r\n\
         ft_activation = 10\r\n\
         ft_reconnect_timeout = 30 # shorter\r\n\
         authorization = disabled\r\n\
         store = \"data # 1\"\r\n\
         logfile = /var/log/a.log\r\n",
    ));
    let listens: Vec<String> = config.listens.iter().map(ToString::to_string).collect();
    assert_eq!(listens, ["tcp://*:7222", "tcp://[::1]:7223"]);
    assert_eq!(config.peers[0].to_string(), "tcp://host2:7224");
    assert_eq!(config.reconnect_timeout_ms, 30_000);
    assert_eq!(
        config.store,
        Path::new("/etc/pair/data # 1"),
        "relative to the file"
    );
    assert_eq!(config.logfile.as_deref(), Some(Path::new("/var/log/a.log")));
}

#[test]
fn values_are_read_in_all_their_spellings() {
    for (text, wanted) in [
        ("enable", true),
        ("YES", true),
        ("on", true),
        ("off", false),
    ] {
        assert_eq!(
            good(set(&[&format!("auto_create_queues={text}")])).auto_create_queues,
            wanted
        );
    }
    for (text, wanted) in [
        ("4096", 4096),
        ("64KB", 64 << 10),
        ("1 MB", 1 << 20),
        ("1mib", 1 << 20),
    ] {
        let config = good(set(&[&format!("max_message_bytes = {text}")]));
        assert_eq!(config.max_message_bytes, wanted, "{text}");
    }
    for (text, wanted) in [("1", 1_000), ("0.5", 500), ("0.125", 125), ("2.50", 2_500)] {
        assert_eq!(
            good(set(&[&format!("ft_heartbeat={text}")])).heartbeat_ms,
            wanted,
            "{text}"
        );
    }
    assert_eq!(good(set(&["idle_timeout_ms=0"])).idle_timeout_ms, None);
    assert_eq!(good(set(&["max_connections=5"])).max_connections, Some(5));
    assert_eq!(good(set(&["monitor_listen="])).monitor_listen, None);
    let deadline = good(set(&["store_fence_deadline_ms=0"])).store_fence_deadline;
    assert_eq!(deadline, FenceDeadline::Off);
    let deadline = good(set(&["store_fence_deadline_ms=4000"])).store_fence_deadline;
    assert_eq!(deadline, FenceDeadline::After(4_000));
}

#[test]
fn set_wins_over_data_and_listen_which_win_over_the_file() {
    let mut given = file(
        "a.conf",
        "store = a\nlisten = tcp://127.0.0.1:1\nserver = A\n",
    );
    given.data = Some(PathBuf::from("b"));
    given.listen = vec![
        "tcp://127.0.0.1:2".to_owned(),
        "tcp://127.0.0.1:3".to_owned(),
    ];
    let config = good(load(&given));
    assert_eq!(
        (config.store.as_path(), config.server.as_str()),
        (Path::new("b"), "A")
    );
    assert_eq!(config.listens.len(), 2);
    given.set = vec!["listen=tcp://127.0.0.1:4".to_owned(), "store=c".to_owned()];
    let config = good(load(&given));
    assert_eq!(
        (config.store.as_path(), config.listens[0].port),
        (Path::new("c"), 4)
    );
    assert_eq!(config.listens.len(), 1);
}

#[test]
fn several_peers_and_listeners_may_stand_in_one_value() {
    let config = good(set(&[
        "ft_active=tcp://b:1, tcp://c:2",
        "listen=tcp://127.0.0.1:0",
    ]));
    assert_eq!(config.peers.len(), 2);
    let config = good(set(&[
        "listen=tcp://127.0.0.1:0",
        "listen=tcp://localhost:0",
    ]));
    assert_eq!(config.listens.len(), 2, "port 0 may be asked for twice");
}

#[test]
fn each_fault_names_its_place_and_what_to_write() {
    let cases = [
        (
            "ft_hartbeat = 3",
            "1: ft_hartbeat: unknown parameter; did you mean `ft_heartbeat`?",
        ),
        (
            "FT-Active = x",
            "1: FT-Active: unknown parameter; did you mean `ft_active`?",
        ),
        (
            "colour = red",
            "1: colour: unknown parameter; `steadfast serve --help` lists all of them",
        ),
        (
            "\n\nft_heartbeat 3",
            "3: `ft_heartbeat`: `=` is missing; write name = value",
        ),
        (
            "[main]",
            "1: `[main]`: the main file has no sections; remove the line",
        ),
        (
            "a b = 3",
            "1: `a`: what stands before `=` is not a parameter name; write name = value",
        ),
        ("server = \"x", "1: server: the closing quote is missing"),
        (
            "ft_heartbeat = soon",
            "1: ft_heartbeat: `soon` is not a number of seconds; write for example 3 or 0.5",
        ),
        (
            "ft_heartbeat = 0",
            "1: ft_heartbeat: 0 s is too small; write 0.01 s or more",
        ),
        (
            "max_message_bytes = 3XB",
            "1: max_message_bytes: `3XB` is not a size; write for example 512KB, 16MB or 1GB",
        ),
        (
            "max_message_bytes = 1",
            "1: max_message_bytes: 1 bytes is too small; write 1KB or more",
        ),
        (
            "max_message_bytes = 99999999999999999999GB",
            "1: max_message_bytes: `99999999999999999999GB` is not a size; write for example \
             512KB, 16MB or 1GB",
        ),
        (
            "auto_create_queues = maybe",
            "1: auto_create_queues: `maybe` is neither yes nor no; write enabled or disabled",
        ),
        (
            "max_connections = -1",
            "1: max_connections: `-1` is not a whole number; write digits only",
        ),
        (
            "listen = localhost:5672",
            "1: listen: a URL needs a scheme; write for example tcp://127.0.0.1:5672",
        ),
        (
            "listen = http://localhost",
            "1: listen: http:// is not known (tcp, amqp, ssl, amqps are); write for example \
             tcp://127.0.0.1:5672",
        ),
        (
            "listen = tcp://localhost:99999",
            "1: listen: `99999` is not a port (0 to 65535); write for example \
             tcp://127.0.0.1:5672",
        ),
        (
            "listen = tcp://::1:5672",
            "1: listen: an IPv6 address stands in brackets: [::1:5672]; write for example \
             tcp://127.0.0.1:5672",
        ),
        (
            "ft_active = tcp://b:0",
            "1: ft_active: port 0 cannot be connected to; write for example tcp://host2:5672",
        ),
        (
            "ft_active = tcp://b:1,tcp://b:1",
            "1: ft_active: tcp://b:1 is named twice; remove one",
        ),
        (
            "ft_active = tcp://localhost:5672",
            "1: ft_active: tcp://localhost:5672 is this server itself (listen = \
             tcp://127.0.0.1:5672); write the URL of the other server of the pair",
        ),
        (
            "listen = tcp://127.0.0.1:8000\nmonitor_listen = http://127.0.0.1:8000",
            "2: monitor_listen: http://127.0.0.1:8000 is the same place as listen = \
             tcp://127.0.0.1:8000; write another port for one of them",
        ),
        (
            "listen = tcp://127.0.0.1:1,tcp://127.0.0.1:8161",
            "1: monitor_listen: http://127.0.0.1:8161 is the same place as listen = \
             tcp://127.0.0.1:8161; write another port for one of them",
        ),
        (
            "monitor_listen = 127.0.0.1:8161",
            "1: monitor_listen: it must begin with http:// or https://; write for example \
             http://127.0.0.1:8161",
        ),
        (
            "ft_heartbeat = 3\nft_activation = 5",
            "2: ft_activation: ft_activation (5 s) must be at least twice ft_heartbeat (3 s); \
             write ft_activation = 6 or more",
        ),
        (
            "ft_heartbeat = 6",
            "1: ft_heartbeat: ft_activation (10 s) must be at least twice ft_heartbeat (6 s); \
             write ft_activation = 12 or more",
        ),
        (
            "listen = tcp://127.0.0.1:1\nlisten = tcp://1",
            "2: listen: tcp://*:1 and tcp://127.0.0.1:1 are the same place; remove one",
        ),
        (
            "store_segment_bytes = 1MB",
            "1: store_segment_bytes: max_message_bytes (16MB) may be at most half of \
             store_segment_bytes (1MB); write max_message_bytes = 512KB or less, or a larger \
             store_segment_bytes",
        ),
        (
            "startup_abort_list = SSL,DISKS",
            "1: startup_abort_list: `DISKS` is not one of SSL, TRANSPORTS, CONFIG_FILES, \
             CONFIG_ERRORS, DB_FILES",
        ),
        (
            "log_trace = -MSG,+CONECT",
            "1: log_trace: `CONECT` is not known; did you mean `CONNECT`?",
        ),
        (
            "server_timeout_client_connection = 30",
            "1: server_timeout_client_connection: client_heartbeat_server (0 s) must be set and at \
             most a third of server_timeout_client_connection (30 s); write \
             client_heartbeat_server = 10 or less, or remove both",
        ),
        (
            "client_heartbeat_server = 11\nserver_timeout_client_connection = 30",
            "2: server_timeout_client_connection: client_heartbeat_server (11 s) must be set and \
             at most a third of server_timeout_client_connection (30 s); write \
             client_heartbeat_server = 10 or less, or remove both",
        ),
        (
            "server = \"a\tb\"",
            "1: server: a name has at most 255 characters and no control characters or quotes",
        ),
    ];
    for (text, wanted) in cases {
        assert_eq!(
            faults(conf(text)),
            format!("/etc/pair/a.conf:{wanted}"),
            "{text}"
        );
    }
}

#[test]
fn a_mistyped_password_is_not_shown() {
    for line in [
        "password hidden",
        "password:hidden",
        "ssl password hidden = x",
        "password hid=den",
        "password = \"hidden",
        "[password hidden",
    ] {
        let (file, option) = (faults(conf(line)), faults(set(&[line])));
        for text in [file, option] {
            assert!(
                text.contains("password") || text.contains("`ssl`"),
                "{text}"
            );
            assert!(!text.contains("hid"), "{line}: {text}");
        }
    }
}

#[test]
fn all_faults_are_named_at_once() {
    let text = faults(conf("ft_hartbeat = 3\nlisten = x\nmax_connections = y\n"));
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn a_fault_of_the_command_line_names_the_option() {
    let text = faults(set(&["ft_heartbeat=x"]));
    assert!(
        text.starts_with("--set: ft_heartbeat: `x` is not a number"),
        "{text}"
    );
    let text = faults(set(&["ft_heartbeat"]));
    assert_eq!(
        text,
        "--set: `ft_heartbeat`: `=` is missing; write name = value"
    );
    let given = Given {
        listen: vec!["nowhere".to_owned()],
        ..Given::default()
    };
    assert!(faults(load(&given)).starts_with("--listen: a URL needs a scheme"));
}

#[test]
fn a_parameter_of_ems_that_has_no_effect_is_a_warning() {
    let config = good(conf(
        "routing = enabled\nldap_url = ldap://x\nmax_msg_memory =\nlog_trace = -MSG,+CONNECT\n",
    ));
    assert_eq!(
        warnings(&config),
        [
            "/etc/pair/a.conf:1: routing: this EMS parameter has no effect in this version: \
             servers do not forward messages to each other",
            "/etc/pair/a.conf:2: ldap_url: this EMS parameter has no effect in this version: \
             users are those of users.conf",
            "/etc/pair/a.conf:4: log_trace: read and checked, but without effect in this version: \
             all events are logged",
        ]
    );
}

#[test]
fn a_listener_that_is_open_to_the_network_is_a_warning() {
    let config = good(conf("listen = tcp://0.0.0.0:5672\n"));
    let text = warnings(&config).join("\n");
    assert!(
        text.contains("a.conf:1: listen: tcp://*:5672 is open to the network"),
        "{text}"
    );
}

#[test]
fn a_parameter_given_twice_is_a_warning_and_the_last_counts() {
    let config = good(conf("server = A\nserver = B\n"));
    assert_eq!(config.server, "B");
    assert_eq!(
        warnings(&config),
        ["/etc/pair/a.conf:2: server: given more than once; the last value counts"]
    );
}

#[test]
fn every_parameter_of_the_surface_is_known() {
    let names = "server password authorization listen store stores users groups acl_list queues \
                 topics durables bridges routes factories ft_active ft_heartbeat ft_activation \
                 ft_reconnect_timeout ft_ssl_identity logfile log_trace monitor_listen \
                 max_connections max_msg_memory startup_abort_list store_segment_bytes \
                 store_allow_unverified_locking store_checkpoint_bytes max_message_bytes";
    for name in names.split_whitespace() {
        let row = parameter(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        assert!(row.support == Support::Full || !row.is_reloadable);
    }
}

#[test]
fn json_takes_a_flat_object_of_parameters() {
    let config = good(json(
        "{\n \"server\": \"A\",\n \"ft_heartbeat\": 0.5,\n \"auto_create_queues\": false,\n \
         \"listen\": [\"tcp://127.0.0.1:1\", \"tcp://127.0.0.1:2\"], \"store\": \"data\" }",
    ));
    assert_eq!((config.server.as_str(), config.heartbeat_ms), ("A", 500));
    assert!(!config.auto_create_queues && config.listens.len() == 2);
    assert_eq!(config.store, Path::new("/etc/pair/data"));
}

#[test]
fn the_json_form_of_ems_describes_both_servers() {
    let text = r#"{
      "model_version": "1.0",
      "queues": [{"name": ">"}],
      "tibemsd": {
        "server": "EMS-SERVER",
        "primary_listens": [{"url": "tcp://127.0.0.1:7222", "ft_active": "tcp://127.0.0.1:7224"}],
        "secondary_listens": [{"url": "tcp://127.0.0.1:7224", "ft_active": "tcp://127.0.0.1:7222"}]
      }
    }"#;
    let primary = good(json(text));
    assert_eq!(
        (primary.listens[0].port, primary.peers[0].port),
        (7222, 7224)
    );
    let given = Given {
        is_secondary: true,
        ..file("a.json", text)
    };
    let secondary = good(load(&given));
    assert_eq!(
        (secondary.listens[0].port, secondary.peers[0].port),
        (7224, 7222)
    );
}

#[test]
fn the_listener_that_is_marked_is_the_one_that_the_other_server_connects_to() {
    let text = |marks: [bool; 2]| {
        format!(
            r#"{{"tibemsd": {{
            "primary_listens": [{{"url": "tcp://127.0.0.1:1"}}, {{"url": "tcp://127.0.0.1:2", "ft_active": {}}}],
            "secondary_listens": [{{"url": "tcp://127.0.0.1:3", "ft_active": {}}}]}}}}"#,
            marks[0], marks[1]
        )
    };
    let secondary = |text: &str| {
        load(&Given {
            is_secondary: true,
            ..file("a.json", text)
        })
    };
    let primary = good(json(&text([true, true])));
    assert_eq!((primary.listens.len(), primary.peers[0].port), (2, 3));
    assert_eq!(primary.peers.len(), 1);
    let other = good(secondary(&text([true, true])));
    assert_eq!((other.listens[0].port, other.peers[0].port), (3, 2));
    assert_eq!(
        faults(secondary(&text([false, true]))),
        "a.json:2: primary_listens: no URL is marked for the other server of the pair; write \
         \"ft_active\": true beside one \"url\""
    );
    let alone = good(json(
        r#"{"tibemsd": {"primary_listens": [{"url": "tcp://127.0.0.1:1"}]}}"#,
    ));
    assert!(alone.peers.is_empty());
}

#[test]
fn a_key_of_a_json_file_that_is_not_known_is_a_fault_with_a_suggestion() {
    for (text, wanted) in [
        (
            "{\"tibemsd\": {},\n \"queus\": []}",
            "2: queus: unknown section; did you mean `queues`?",
        ),
        (
            "{\"tibemsd\": {\n \"ft_hartbeat\": 3}}",
            "2: ft_hartbeat: unknown parameter; did you mean `ft_heartbeat`?",
        ),
        (
            "{\"tibemsd\": {\"primary_listens\": [\n{\"url\": \"tcp://127.0.0.1:1\",\n\"ft_activ\": true}]}}",
            "3: primary_listens: unknown key `ft_activ`; did you mean `ft_active`?",
        ),
        (
            "{\"tibemsd\": {\"ssl\": {\n\"server_identiti\": \"x\"}}}",
            "2: ssl_server_identiti: unknown parameter; did you mean `ssl_server_identity`?",
        ),
        (
            "{\"server\": \"A\",\n \"server\": \"B\"}",
            "2: server: it stands there twice; remove one",
        ),
        (
            "{\"tibemsd\": 3}",
            "1: tibemsd: it must be an object of parameters",
        ),
    ] {
        assert_eq!(
            faults(json(text)),
            format!("/etc/pair/a.json:{wanted}"),
            "{text}"
        );
    }
}

#[test]
fn faults_of_a_json_file_name_the_line() {
    let text = faults(json("{\n \"server\": \"A\",\n \"ft_hartbeat\": 3\n}"));
    assert!(
        text.starts_with("/etc/pair/a.json:3: ft_hartbeat: unknown parameter"),
        "{text}"
    );
    let text = faults(json("{\n \"server\": \"A\",\n}"));
    assert!(
        text.starts_with("/etc/pair/a.json:3: not valid JSON: "),
        "{text}"
    );
    let text = faults(json("{\"server\": {\"a\": 1}}"));
    assert!(
        text.ends_with("write a text, a number or true/false"),
        "{text}"
    );
    let text = faults(json("[]"));
    assert!(text.contains("expected an object of parameters"), "{text}");
}

#[test]
fn secondary_needs_a_json_file_with_listens_for_it() {
    let wanted = "only a JSON file describes two servers";
    assert!(
        faults(load(&Given {
            is_secondary: true,
            ..Given::default()
        }))
        .contains(wanted)
    );
    let given = Given {
        is_secondary: true,
        ..file("a.conf", "")
    };
    assert!(faults(load(&given)).contains(wanted));
    let given = Given {
        is_secondary: true,
        ..file("a.json", "{\"server\": \"A\"}")
    };
    assert!(faults(load(&given)).contains("secondary_listens: it is missing"));
}

#[test]
fn a_warning_is_told_once_wherever_its_line_moves() {
    let known = "server = A\nlog_trace = DEFAULT\n";
    let before = good(conf(known)).warnings;
    assert_eq!(before.len(), 1);
    let moved = good(conf(&format!("# two\n# lines\n{known}"))).warnings;
    assert_ne!(before, moved);
    assert!(news(before.clone(), &moved).is_empty());
    let twice = good(conf(&format!("{known}console_trace = DEFAULT\n"))).warnings;
    let new: Vec<_> = news(before.clone(), &twice)
        .iter()
        .map(|fault| fault.parameter.as_str())
        .collect();
    assert_eq!(new, ["console_trace"]);
    assert_eq!(news(before, &[moved, twice].concat()).len(), 2);
}

mod generated {
    use proptest::prelude::*;

    use super::{conf, json};

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "(?s).{0,200}") {
            let _ = conf(&text);
            let _ = json(&text);
        }

        #[test]
        fn no_value_makes_the_parsers_panic(
            name in "listen|ft_active|monitor_listen|ft_heartbeat|max_message_bytes",
            value in "(tcp://|http://)?[\\[\\]:a-z0-9.*/@é ]{0,24}",
        ) {
            let _ = conf(&format!("{name} = {value}"));
        }
    }
}
