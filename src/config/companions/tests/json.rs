//! The files as sections of the JSON form.

use super::*;
use crate::config::load;

const JSON: &str = r#"{
  "model_version": "1.0",
  "users": [{"name": "admin", "password": null, "description": "Administrator"}, {"name": "bob", "password": "x"}],
  "groups": [{"name": "$admin", "description": "", "members": [{"name": "admin"}]}, {"name": "eng", "members": ["bob"]}],
  "acls": [{"queue": "orders.>", "group": "eng", "permissions": ["receive", "browse"]},
           {"topic": "px.*", "user": "bob", "permissions": "publish,subscribe"},
           {"admin": true, "user": "bob", "permissions": ["view-all"]}],
  "queues": [{"name": ">"}, {"name": "orders.>", "secure": true, "global": false, "maxbytes": "1MB", "maxRedelivery": 5}],
  "topics": [{"name": "px.>", "prefetch": 10}],
  "durables": [{"topic": "px.ibm", "name": "d1", "clientid": "c1", "nolocal": true, "selector": null}],
  "bridges": [{"source": {"type": "topic", "name": "px.>"}, "targets": [{"type": "queue", "name": "px.archive"}]}],
  "factories": [{"name": "F", "type": "generic", "url": "tcp://h1:1,tcp://h2:2", "jndinames": [], "ssl": {"verify_host": false}}],
  "stores": [{"name": "$sys.meta", "type": "file", "file": "meta.db", "mode": "async", "file_crc": true}],
  "routes": [{"name": "B", "url": "tcp://b:1", "zone_type": "mhop"}],
  "tibemsd": {"server": "A"}
}"#;

#[test]
fn the_sections_of_a_json_file_say_what_the_files_say() {
    let (faults, warnings) = together(JSON, &[]);
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(warnings, Vec::<String>::new());
    let reader = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let (json, _) = read(&config(JSON), &reader).expect("it is right");
    let text = [
        ("users.conf", "admin::\"Administrator\"\nbob:x:\n"),
        ("groups.conf", "$admin:\n admin\neng:\n bob\n"),
        (
            "acl.conf",
            "QUEUE=orders.> GROUP=eng PERM=receive,browse\nTOPIC=px.* USER=bob \
             PERM=publish,subscribe\nADMIN USER=bob PERM=view-all\n",
        ),
        (
            "queues.conf",
            ">\norders.> secure,maxbytes=1MB,maxRedelivery=5\n",
        ),
        ("topics.conf", "px.> prefetch=10\n"),
        ("durables.conf", "px.ibm d1 clientid=c1,nolocal\n"),
        ("bridges.conf", "[topic:px.>]\nqueue=px.archive\n"),
        (
            "factories.conf",
            "[F]\ntype=generic\nurl=tcp://h1:1,tcp://h2:2\nssl_verify_host=false\n",
        ),
        (
            "stores.conf",
            "[$sys.meta]\ntype=file\nfile=meta.db\nmode=async\nfile_crc=true\n",
        ),
        ("routes.conf", "[B]\nurl=tcp://b:1\nzone_type=mhop\n"),
    ];
    let there = files(&text);
    let reader = |path: &Path| {
        there
            .get(path)
            .cloned()
            .ok_or(io::ErrorKind::NotFound.into())
    };
    let (conf, _) = read(&config("server = A"), &reader).expect("it is right");
    fn same<E: Entry + std::fmt::Debug>(one: &File<E>, other: &File<E>) {
        assert!(one.items().len() == other.items().len() && !one.items().is_empty());
        for (one, other) in one.entries().zip(other.entries()) {
            assert_eq!(one, other);
        }
    }
    same(&json.users, &conf.users);
    same(&json.groups, &conf.groups);
    same(&json.acl, &conf.acl);
    same(&json.queues, &conf.queues);
    same(&json.topics, &conf.topics);
    same(&json.durables, &conf.durables);
    same(&json.bridges, &conf.bridges);
    same(&json.factories, &conf.factories);
    same(&json.stores, &conf.stores);
    same(&json.routes, &conf.routes);
}

#[test]
fn keys_of_sections_that_are_not_known_are_faults() {
    for (section, wanted) in [
        (
            r#""users": [{"name": "a", "pasword": "hidden"}]"#,
            "users: unknown key `pasword`; did you mean `password`?",
        ),
        (
            r#""users": [{}]"#,
            "users: `name` is missing; write \"name\": \"...\"",
        ),
        (
            r#""users": {}"#,
            "users: write a list of objects: \"users\": [{...}, ...]",
        ),
        (r#""users": ["a"]"#, "users: each item is an object: {...}"),
        (
            r#""queues": [{"name": "a", "secur": false}]"#,
            "queues: unknown property `secur`; did you mean `secure`?",
        ),
        (
            r#""queues": [{"name": "a", "store": {}}]"#,
            "queues: `store`: write a text, a number or true/false",
        ),
        (
            r#""groups": [{"name": "a", "members": [{"nam": "b"}]}]"#,
            "groups: `name` is missing; write \"name\": \"...\"",
        ),
        (
            r#""acls": [{"queue": "a", "topic": "b", "user": "c", "permissions": ["send"]}]"#,
            "acls: write \"queue\" or \"topic\" or \"admin\": true, then \"user\" or \"group\", \
             then \"permissions\": [\"...\"]",
        ),
        (
            r#""durables": [{"topic": "a", "name": "b", "selector": "x = 1"}]"#,
            &format!("durables: {SELECTOR}"),
        ),
        (
            r#""bridges": [{"source": {"type": "topic", "name": "a"}, "targets": [{"type": "queue", "name": ">"}]}]"#,
            "bridges: queue=>: a target is one destination; write its name without `*` and `>`",
        ),
        (
            r#""factories": [{"name": "F", "type": "generic"}]"#,
            "factories: F: `url` is missing; write url = ...",
        ),
        (
            r#""stores": [{"name": "s", "fil": "x"}]"#,
            "stores: unknown setting `fil`; did you mean `file`?",
        ),
        (
            r#""queues": [{"name": "a"}, {"name": "a"}]"#,
            "a: it is there already, at /etc/pair/a.json:2; remove one of the two",
        ),
    ] {
        let text = format!("{{\"tibemsd\": {{}},\n {section}}}");
        let (faults, _) = together(&text, &[]);
        assert_eq!(faults, at(&[&format!("a.json:2: {wanted}")]), "{section}");
    }
}

#[test]
fn a_json_file_wins_over_names_of_files() {
    let config = load(&given("{\"tibemsd\": {\"users\": \"users.conf\"}}")).expect("it is right");
    let text = config.warnings[0].to_string();
    assert!(text.contains("a JSON file has its own sections"), "{text}");
}
