use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use base64ct::{Base64, Encoding};

use super::*;
use crate::model::{Secret, StoredPassword};

const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";

/// The dialogue of RFC 7677, section 3; for SHA-512 with proofs that Python's `hashlib` computed.
fn example(hash: Hash, proof: &str, signature: &str) {
    let salt = Base64::decode_vec(SALT).expect("it is Base64");
    let rounds = NonZeroU32::new(4096).expect("it is not zero");
    let keys = ScramKeys::derive_with(hash, "pencil", &salt, rounds);
    let mut client = ClientExchange::new(hash, "user", "pencil", CLIENT_NONCE);
    let first = client.first();
    assert_eq!(first, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    let first = ClientFirst::parse(first.as_bytes()).expect("it is well-formed");
    assert_eq!(first.user, "user");
    let (server, challenge) = ServerExchange::begin(first, keys.clone(), SERVER_NONCE);
    assert_eq!(
        challenge,
        format!("r={CLIENT_NONCE}{SERVER_NONCE},s={SALT},i=4096")
    );
    let last = client.answer(challenge.as_bytes()).expect("it is right");
    assert_eq!(
        last,
        format!("c=biws,r={CLIENT_NONCE}{SERVER_NONCE},p={proof}")
    );
    let answer = server.finish(last.as_bytes(), None);
    assert_eq!(answer.as_deref(), Some(&*format!("v={signature}")));
    let end = client.answer(answer.unwrap_or_default().as_bytes());
    assert_eq!(end.as_deref(), Ok(""));
    assert!(client.answer(b"v=AAAA").is_err());
    assert_eq!(ScramKeys::parse(&keys.to_text()), Some(keys));
}

#[test]
fn the_dialogue_is_that_of_the_rfc() {
    example(
        Hash::Sha256,
        "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    );
    example(
        Hash::Sha512,
        "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==",
        "ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==",
    );
}

#[test]
fn malformed_messages_of_a_client_are_refused() {
    for message in [
        "",
        "n",
        "n,,",
        "n,,n=user",
        "n,,n=user,x=1",
        "n,,n=,r=abc",
        "n,,n=user,r=",
        "n,,n=user,r=a b",
        "n,a=root,n=user,r=abc",
        "n,,n=us=er,r=abc",
        "n,,n=us=2,r=abc",
        "p=tls-unique,,n=user,r=abc",
        "n,,m=1,n=user,r=abc",
        "q,,n=user,r=abc",
        "n,,n=us\0er,r=abc",
    ] {
        assert_eq!(ClientFirst::parse(message.as_bytes()), None, "{message:?}");
    }
    assert_eq!(ClientFirst::parse(b"n,,n=\xff,r=abc"), None);
    let long = format!("n,,n={},r=abc", "x".repeat(4000));
    assert_eq!(ClientFirst::parse(long.as_bytes()), None);
    let first = ClientFirst::parse("y,a=a=2Cb=3D\u{2168},n=a=2Cb=3D\u{2168},r=abc".as_bytes());
    // SASLprep makes the Roman nine two letters.
    assert_eq!(first.map(|it| it.user).as_deref(), Some("a,b=IX"));
}

#[test]
fn a_client_notices_a_wrong_server() {
    let client = || ClientExchange::new(Hash::Sha256, "user", "pencil", "abc");
    for (challenge, reason) in [
        ("", "malformed"),
        ("r=abcd,s=####,i=4096", "malformed"),
        ("r=abcd,s=AAAA,i=0", "malformed"),
        ("r=xyz,s=AAAA,i=4096", "another SCRAM dialogue"),
        ("r=abc,s=AAAA,i=4096", "another SCRAM dialogue"),
        ("r=abcd,s=AAAA,i=4095", "not sensible"),
        ("r=abcd,s=AAAA,i=99999999", "not sensible"),
    ] {
        let error = client().answer(challenge.as_bytes()).expect_err(challenge);
        assert!(error.contains(reason), "{challenge}: {error}");
    }
    let mut client = client();
    assert!(client.answer(b"r=abcd,s=AAAA,i=4096").is_ok());
    let error = client.answer(b"v=AAAA").expect_err("it proves nothing");
    assert!(error.contains("impostor"), "{error}");
}

fn users(list: &[(&str, StoredPassword)]) -> Arc<Users> {
    let list = list.iter().cloned();
    let list: BTreeMap<_, _> = list.map(|(name, it)| (name.to_owned(), it)).collect();
    Arc::new(Users::new(&list))
}

fn plain(text: &str) -> StoredPassword {
    StoredPassword::Plain(Secret::new(text.to_owned()))
}

fn step(users: &Arc<Users>, dialogue: Dialogue, response: &[u8]) -> (Dialogue, Verdict) {
    LoginTask::new(dialogue, Arc::clone(users), response.to_vec()).run()
}

fn address(is_local: bool) -> IpAddr {
    IpAddr::from(if is_local {
        [127, 0, 0, 1]
    } else {
        [192, 0, 2, 1]
    })
}

/// A whole login; the name of the user if it is let in.
fn login(
    users: &Arc<Users>,
    mechanism: &str,
    (user, password): (&str, &str),
    is_local: bool,
) -> Option<String> {
    let dialogue =
        Dialogue::new(mechanism, Some(address(is_local))).expect("the mechanism is known");
    let Some(hash) = Hash::of_mechanism(mechanism) else {
        let response = format!("\0{user}\0{password}");
        return match step(users, dialogue, response.as_bytes()).1 {
            Verdict::Welcome { user, .. } => Some(user),
            _ => None,
        };
    };
    let mut client = ClientExchange::new(hash, user, password, &nonce());
    let (dialogue, verdict) = step(users, dialogue, client.first().as_bytes());
    let Verdict::Challenge(challenge) = verdict else {
        panic!("{verdict:?} to the first message");
    };
    assert_eq!(dialogue.claimed(), Some(&*prepared(user)));
    let proof = client.answer(&challenge).expect("the server is right");
    match step(users, dialogue, proof.as_bytes()).1 {
        Verdict::Welcome { user, last_word } => {
            let last_word = last_word.expect("the server proves itself, too");
            assert_eq!(client.answer(&last_word).as_deref(), Ok(""));
            Some(user)
        }
        Verdict::Refused => None,
        verdict => panic!("{verdict:?}: one challenge is enough"),
    }
}

const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

#[test]
fn the_right_password_lets_in_and_no_other() {
    let hashed = hash_password("p\u{e9},s=s");
    assert!(matches!(hashed, StoredPassword::Keys(_)));
    assert!(is_password(&hashed, "p\u{e9},s=s") && !is_password(&hashed, "pes"));
    let users = users(&[
        ("ann", hashed),
        ("bob, jr.", plain("secret")),
        (
            "eve",
            StoredPassword::Foreign(Secret::new("$1$x$y".to_owned())),
        ),
        ("fay", StoredPassword::Empty),
    ]);
    for mechanism in MECHANISMS {
        let login = |user, password| login(&users, mechanism, (user, password), true);
        // Twice: the second time what the first made is used.
        for _ in 0..2 {
            assert_eq!(login("ann", "p\u{e9},s=s").as_deref(), Some("ann"));
            // The letter and its accent are two characters here.
            assert_eq!(login("ann", "pe\u{301},s=s").as_deref(), Some("ann"));
            assert_eq!(login("ann", "secret"), None);
            assert_eq!(login("ann", ""), None);
            assert_eq!(login("bob, jr.", "secret").as_deref(), Some("bob, jr."));
            assert_eq!(login("bob, jr.", "wrong"), None);
            assert_eq!(login("eve", "$1$x$y"), None);
            assert_eq!(login("fay", ""), None);
            assert_eq!(login("nobody", "secret"), None);
            assert_eq!(login("nobody", ""), None);
        }
    }
}

#[test]
fn admin_without_a_password_comes_in_from_this_host_only() {
    for users in [users(&[]), users(&[("admin", StoredPassword::Empty)])] {
        for mechanism in MECHANISMS {
            let login =
                |password, is_local| login(&users, mechanism, ("admin", password), is_local);
            assert_eq!(login("", true).as_deref(), Some("admin"), "{mechanism}");
            assert_eq!(login("", false), None, "{mechanism}");
            assert_eq!(login("x", true), None, "{mechanism}");
        }
    }
    let users = users(&[("admin", plain("secret"))]);
    for mechanism in MECHANISMS {
        assert_eq!(login(&users, mechanism, ("admin", ""), true), None);
    }
}

/// What the first message of SCRAM is answered with: salt and rounds.
fn salt(users: &Arc<Users>, user: &str) -> String {
    let dialogue = Dialogue::new("SCRAM-SHA-256", None).expect("the mechanism is known");
    let first = ClientExchange::new(Hash::Sha256, user, "", "abc").first();
    let (_, verdict) = step(users, dialogue, first.as_bytes());
    let Verdict::Challenge(challenge) = verdict else {
        panic!("{verdict:?} to the first message");
    };
    let text = String::from_utf8(challenge).expect("it is text");
    text.split_once(",s=")
        .expect("there is a salt")
        .1
        .to_owned()
}

#[test]
fn users_that_do_not_exist_look_like_others() {
    let ann = hash_password("secret");
    let before = users(&[("ann", ann.clone()), ("bob", plain("secret"))]);
    // The other server of the pair, or this one after a restart; with more users.
    let after = users(&[("ann", ann), ("bob", plain("other")), ("cat", plain("x"))]);
    let salts = ["ann", "bob", "cat", "nobody", "admin"].map(|user| {
        assert_eq!(salt(&before, user), salt(&after, user), "{user}");
        salt(&before, user)
    });
    let mut different = salts.to_vec();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), salts.len());
    for salt in &salts {
        assert_eq!(salt.len(), salts[0].len(), "{salt}");
        assert!(salt.ends_with("==,i=16384"), "{salt}");
    }
}

#[test]
fn names_of_certificates_are_taken_letter_by_letter() {
    let users = users(&[("ann", plain("x"))]);
    assert!(users.has("ann") && users.has("admin"));
    assert!(!users.has("\u{ff41}nn") && !users.has("Ann"));
    assert_eq!(
        login(&users, "PLAIN", ("\u{ff41}nn", "x"), false).as_deref(),
        Some("ann")
    );
}

#[test]
fn nothing_shows_a_password_or_a_key() {
    let stored = hash_password("sesame");
    let keys = stored.expose().to_owned();
    let users = users(&[("ann", stored.clone()), ("bob", plain("sesame"))]);
    let dialogue = Dialogue::new("PLAIN", None).expect("the mechanism is known");
    let task = LoginTask::new(dialogue, Arc::clone(&users), b"\0ann\0sesame".to_vec());
    assert_eq!(task.claimed().as_deref(), Some("ann"));
    assert!(task.is_slow());
    let client = ClientExchange::new(Hash::Sha256, "ann", "sesame", "abc");
    let scram = ScramKeys::parse(keys.split('|').nth(1).expect("three parts"));
    let shown = format!("{stored:?} {users:?} {task:?} {client:?} {scram:?}");
    assert!(shown.contains("ScramKeys"), "{shown}");
    assert!(!shown.contains("sesame"), "{shown}");
    for part in keys.split(['|', '$']).filter(|part| part.len() > 20) {
        assert!(!shown.contains(part), "{shown}");
    }
    assert!(matches!(task.run().1, Verdict::Welcome { .. }));
}

#[test]
fn each_failure_costs_more_up_to_a_bound_until_a_success() {
    let mut failures = Failures::default();
    let here = Some(address(true));
    let delays: Vec<u64> = (0..8).map(|_| failures.failed(0, "ann", here)).collect();
    assert_eq!(delays, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
    assert_eq!(failures.failed(0, "bob", here), 250);
    assert_eq!(failures.failed(0, "ann", None), 250);
    failures.succeeded("ann", here);
    assert_eq!(failures.failed(0, "ann", here), 250);
    assert_eq!(failures.failed(1, "ann", here), 500);
    // Time heals.
    assert_eq!(failures.failed(600_001, "ann", here), 250);
    // However many there are, the last ones are known.
    for user in 0..10_000 {
        failures.failed(700_000 + user, &format!("user {user}"), here);
    }
    assert_eq!(failures.failed(710_000, "user 9999", here), 500);
    assert_eq!(failures.failed(710_000, "user 0", here), 250);
}

#[test]
fn all_ways_to_write_a_name_claim_to_be_the_same_user() {
    let users = users(&[("ann", plain("secret"))]);
    for name in ["ann", "\u{ff41}nn", "a\u{ad}nn", "an\u{ad}\u{ad}n"] {
        for mechanism in MECHANISMS {
            let response = match Hash::of_mechanism(mechanism) {
                None => format!("\0{name}\0wrong"),
                Some(_) => format!("n,,n={name},r=abc"),
            };
            let dialogue = Dialogue::new(mechanism, None).expect("the mechanism is known");
            let task = LoginTask::new(dialogue, Arc::clone(&users), response.into_bytes());
            assert_eq!(task.claimed().as_deref(), Some("ann"), "{mechanism}");
            assert_eq!(task.run().0.claimed(), Some("ann"), "{mechanism}");
        }
    }
}
