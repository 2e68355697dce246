//! What strangers say before they are let in.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use steadfast::auth::{ClientExchange, Dialogue, Hash, LoginTask, Users, Verdict};
use steadfast::model::{Secret, StoredPassword};

use crate::Target;
use crate::damage::damage;

const PASSWORD: &str = "sesame";

/// Made once: the keys of a password take a while.
static USERS: LazyLock<Arc<Users>> = LazyLock::new(|| {
    let password = StoredPassword::Plain(Secret::new(PASSWORD.to_owned()));
    let list = BTreeMap::from([(String::from("ann"), password)]);
    Arc::new(Users::new(&list))
});

/// Two responses of one login, or a server's two messages; each in a line.
fn sample(random: &mut fastrand::Rng) -> Vec<u8> {
    let (first, second): (&[u8], &[u8]) = match random.u8(0..4) {
        0 => (b"\0ann\0sesame", b""),
        1 => (
            b"n,,n=ann,r=abc",
            b"c=biws,r=abc,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        ),
        2 => (
            b"y,a=a=2Cn,n=a=2Cn,r=abc",
            b"c=eSwsYT1hPTJDbiw=,r=abc,p=AAAA",
        ),
        _ => (
            b"r=abcdef,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            b"v=6rriTRBi23WpRR/wtup+mMhUZUn=",
        ),
    };
    let mut bytes = [first, b"\n", second].concat();
    if random.u8(0..8) > 0 {
        damage(&mut bytes, random);
    }
    bytes
}

/// No mechanism lets anybody in who does not know the password, and no client believes a server that does not.
fn login(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let (first, second) = (parts.next().unwrap_or(b""), parts.next().unwrap_or(b""));
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let mut dialogue = Dialogue::new(mechanism, None).expect("the mechanism is known");
        for response in [first, second, first] {
            let task = LoginTask::new(dialogue, Arc::clone(&USERS), response.to_vec());
            let (_slow, _claimed) = (task.is_slow(), task.claimed().map(|user| user.len()));
            let (next, verdict) = task.run();
            if let Verdict::Welcome { user, .. } = verdict {
                let said = String::from_utf8_lossy(response).into_owned();
                let ascii: String = said.chars().filter(char::is_ascii_graphic).collect();
                let knows = ascii.contains("ann") && ascii.contains(PASSWORD);
                assert!(mechanism == "PLAIN" && user == "ann" && knows, "{said:?}");
            }
            dialogue = next;
        }
    }
    for hash in Hash::ALL {
        let mut client = ClientExchange::new(hash, "ann", PASSWORD, "abc");
        let proof = client.answer(first);
        assert!(proof.as_deref() != Ok(""), "nothing was proved");
        let end = client.answer(second);
        assert!(end.as_deref() != Ok(""), "nothing was proved");
    }
}

pub(crate) fn targets() -> Vec<Target> {
    vec![Target::new(
        "login",
        "the responses of a login and a server's challenges, damaged: nobody gets in, and no server is believed",
        sample,
        login,
        300,
    )]
}
