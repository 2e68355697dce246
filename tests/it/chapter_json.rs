//! A pair with one JSON file: what an administrator changes is in that file, and holds on both servers.

use std::fs;

use serde_json::{Value, json};

use super::chapter_admin::{Told, admin, command, url_of};
use super::support::{Server, serve, two_ports};

/// As somebody wrote it by hand.
fn pair_file(a: u16, b: u16) -> String {
    format!(
        r#"{{
   "model_version" : "1.0",
   "channels": [ {{"name":"kept"}} ],
   "queues": [{{"name": ">"}},  {{"name": "old", "maxmsgs": 3}}],
   "tibemsd": {{
      "ft_heartbeat": 0.2,  "ft_activation": 0.6,
      "server": "EMS-SERVER",
      "primary_listens":   [{{"url": "tcp://127.0.0.1:{a}", "ft_active": true}}],
      "secondary_listens": [{{"url": "tcp://127.0.0.1:{b}", "ft_active": true}}]
   }}
}}
"#
    )
}

fn shown(url: &str, words: &[&str]) -> Value {
    let mut options = vec!["--json", "show"];
    options.extend(words);
    admin(url, &options).json()
}

/// What the commands below have made.
fn check(url: &str, properties: &Value) {
    assert_eq!(shown(url, &["queue", "orders"])["properties"], *properties);
    let users = shown(url, &["users"]).to_string();
    assert!(
        users.contains("ann") && users.contains("EMS-SERVER"),
        "{users}"
    );
    let group = shown(url, &["group", "eng"]).to_string();
    assert!(group.contains("ann"), "{group}");
    let config = shown(url, &["config"]);
    let rows = config.as_array().expect("rows").iter();
    let password = rows.clone().find(|row| row["parameter"] == "password");
    assert!(password.is_some(), "{config}");
    let others: Vec<&Value> = rows.filter(|row| !row["in_effect"].is_null()).collect();
    assert!(
        others.is_empty(),
        "the server works with what the file says: {others:?}"
    );
}

#[test]
fn c08_what_is_changed_on_the_active_of_a_json_pair_holds_after_a_takeover_and_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let (a, b) = two_ports();
    let path = directory.path().join("pair.json");
    let by_hand = pair_file(a, b);
    fs::write(&path, &by_hand).expect("the directory is ours");
    let store = directory.path().join("store");
    let config = path.display().to_string();
    let start = |is_second: bool| -> Server {
        let options = ["--config", &config, "--secondary"];
        serve(&store, &options[..if is_second { 3 } else { 2 }])
    };
    let mut first = start(false);
    first.wait("active");
    let mut second = start(true);
    second.wait("standby");
    first.wait_state("seen by its peer", |state| {
        state["peer"]["role"] == "standby"
    });
    let (active, standby) = (url_of(&first), url_of(&second));

    for line in [
        "create queue orders maxmsgs=5",
        "create user ann password=sesame",
        "create user EMS-SERVER password=mySecret",
        "create group eng",
        "add member eng ann",
        "grant queue orders group=eng receive,send",
        "set server password=mySecret",
        "delete queue old",
    ] {
        command(&active, line).done();
    }
    let told = command(&standby, "create queue other").refused();
    assert!(told.contains("JSON"), "{told}");
    let text = fs::read_to_string(&path).expect("it is there");
    let kept = by_hand
        .lines()
        .filter(|line| !line.contains("old") && !line.contains("secondary"));
    let missing: Vec<&str> = kept
        .filter(|line| !text.contains(line.trim_end_matches('}')))
        .collect();
    assert!(missing.is_empty(), "{missing:?} went from\n{text}");
    assert!(
        text.contains("\"queues\": [{\"name\": \">\"}, {\"name\": \"orders\", \"maxmsgs\": 5}]"),
        "{text}"
    );
    assert!(
        text.contains("\"password\": \"$hidden$") && text.contains("\"$argon2"),
        "{text}"
    );
    assert!(!text.contains("sesame") && !text.contains("mySecret"));
    check(&active, &json!(["maxmsgs=5"]));

    first.kill();
    second.wait("active");
    check(&standby, &json!(["maxmsgs=5"]));
    // What cannot be read is told, and neither written nor worked with.
    let good = fs::read_to_string(&path).expect("it is there");
    fs::write(&path, good.replacen(':', "", 1)).expect("it is ours");
    let told: Told = command(&standby, "addprop queue orders secure");
    let told = told.refused();
    assert!(told.contains("pair.json:2: not valid JSON"), "{told}");
    fs::write(&path, good).expect("it is ours");
    command(&standby, "addprop queue orders secure").done();

    let mut first = start(false);
    first.wait("standby");
    second.wait_state("seen by its peer", |state| {
        state["peer"]["role"] == "standby"
    });
    second.kill();
    first.wait("active");
    check(&active, &json!(["secure", "maxmsgs=5"]));
    assert_eq!(first.count("config_difference"), 0);
}
