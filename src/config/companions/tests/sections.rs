//! `factories.conf`, `routes.conf` and `stores.conf`.

use super::*;

#[test]
fn sections_are_read() {
    let factories: File<Section> = good(
        Companion::Factories,
        "[FTConnectionFactory]\n  type = generic\n  url = tcp://h1:7222,tcp://h2:7224\n  \
         clientid = \"my id\"\n  ssl_verify_host = disabled\n",
    );
    let factory = factories.get("FTConnectionFactory").expect("it is there");
    assert_eq!(factory.get("clientID"), Some("my id"));
    let routes: File<Section> = good(
        Companion::Routes,
        "[B]\nurl = tcp://b:7222\nzone_name=\nzone_type = mhop\n",
    );
    assert_eq!(
        routes.get("B").and_then(|route| route.get("zone_name")),
        None
    );
    let stores: File<Section> = good(
        Companion::Stores,
        "[$sys.meta]\n type = file\n file = meta.db\n mode=async\n file_minimum = 8MB\n",
    );
    assert_eq!(
        stores.get("$sys.meta").and_then(|store| store.get("file")),
        Some("meta.db")
    );
}

#[test]
fn each_fault_of_sections_names_its_line_and_what_to_write() {
    check_faults(&[
        (
            Companion::Factories,
            "[x]\nurl = tcp://h:1",
            "1: x: `type` is missing; write type = ...",
        ),
        (
            Companion::Factories,
            "[x]\ntype = generic\nurl = h:1",
            "3: x: url: a URL needs a scheme; write for example tcp://host2:5672",
        ),
        (
            Companion::Stores,
            "[x",
            "1: `[x`: write a section as [name]",
        ),
        (
            Companion::Stores,
            "[x]\nmode = safe",
            "2: x: mode: `safe` is not known; write one of async, sync",
        ),
        (
            Companion::Stores,
            "[x]\nfil = a",
            "2: x: unknown setting `fil`; did you mean `file`?",
        ),
        (
            Companion::Stores,
            "[x]\nfile = a\nfile = b",
            "3: x: `file` stands there twice; remove one",
        ),
        (
            Companion::Stores,
            "[x]\ntype = dbstore\ndbstore_driver_password = hidden",
            "1: x: type=dbstore is not supported by this version: its messages are in the one \
             store that the parameter `store` names",
        ),
        (
            Companion::Routes,
            "[x]\nzone_type = 2hop",
            "2: x: zone_type: `2hop` is not known; did you mean `1hop`?",
        ),
        (
            Companion::Routes,
            "[x]",
            "1: x: `url` is missing; write url = ...",
        ),
    ]);
}

#[test]
fn a_change_of_a_section_touches_only_the_lines_that_differ() {
    let text =
        "eng:\"Engineers\"  # ours\n   bob   # since May\n   # dan was here\n   eve\n\nops:\n  x\n";
    let mut groups: File<Group> = good(Companion::Groups, text);
    let mut eng = groups.get("eng").expect("it is there").clone();
    eng.members.remove("eve");
    eng.members.insert("zoe".to_owned());
    groups.set(&eng).expect("it can be written");
    let wanted = text
        .replace("   eve\n", "")
        .replace("since May\n", "since May\n   zoe\n");
    assert_eq!(groups.to_string(), wanted);
    eng.members.remove("zoe");
    groups.set(&eng).expect("it can be written");
    assert_eq!(groups.to_string(), text.replace("   eve\n", ""));
    assert!(groups.remove("eng"));
    assert_eq!(groups.to_string(), "   # dan was here\n\nops:\n  x\n");

    let text = "[B] # west\n url   = tcp://b:7222\n\n[C]\n url=tcp://c:7222\n";
    let mut routes: File<Section> = good(Companion::Routes, text);
    let mut b = routes.get("B").expect("it is there").clone();
    let secret = |text: &str| crate::config::Secret::new(text.to_owned());
    b.settings.insert("zone_name".to_owned(), secret("z 1"));
    routes.set(&b).expect("it can be written");
    assert_eq!(
        routes.to_string(),
        text.replace("b:7222\n", "b:7222\n zone_name = \"z 1\"\n")
    );
    assert_eq!(routes.get("B"), Some(&b));
}
