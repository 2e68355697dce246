//! Files of all kinds, what is wrong with them, and handshakes in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, LocalKeyId, PrivateKey, PrivateKeyChain};
use pkcs8::pkcs5::pbes2;
use pkcs8::{LineEnding, PrivateKeyInfoRef};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    ClientParameters, ClientTls, FileNames, LINK_NAMES, Renewals, ServerParameters, ServerUse,
    accept_failure, common_name, connect_failure, server_config,
};
use certificates::{Authority, Issued, Validity};

#[path = "../../tests/it/certificates.rs"]
mod certificates;

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

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("the directory can be written");
        path
    }

    fn issue(&self, name: &str) -> Issued {
        self.authority
            .issue(name, &["localhost", "127.0.0.1"], Validity::Now)
    }

    fn server(&self) -> ServerParameters {
        ServerParameters {
            files: FileNames {
                identity: Some(self.authority.local("server")),
                ..FileNames::default()
            },
            requires_certificate: false,
        }
    }

    fn client(&self) -> ClientParameters {
        ClientParameters {
            files: FileNames {
                trusted: vec![self.authority.file()],
                ..FileNames::default()
            },
            names: LINK_NAMES,
            verify_host: true,
            verify_hostname: true,
            expected_hostname: None,
        }
    }
}

fn encrypted(key: &Issued, password: &str) -> String {
    let der = key.key.serialize_der();
    let plain = PrivateKeyInfoRef::try_from(der.as_slice()).expect("it is PKCS#8");
    let parameters = pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(1000, &[1; 16], [2; 16]);
    let parameters = parameters.expect("the parameters are right");
    let document = plain
        .encrypt_with_params(parameters, password)
        .expect("it is encrypted");
    document
        .to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF)
        .expect("it is PEM")
        .to_string()
}

fn pkcs12(issued: &Issued, password: &str) -> Vec<u8> {
    let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes());
    let certificate = Certificate::from_der(&certificate.expect("it is PEM")).expect("it is one");
    let key = PrivateKey::from_der(&issued.key.serialize_der()).expect("it is a key");
    let chain = PrivateKeyChain::new(LocalKeyId(vec![1]), key, [certificate]);
    let mut store = KeyStore::new();
    store.add_entry("server", KeyStoreEntry::PrivateKeyChain(chain));
    store.writer(password).write().expect("it is written")
}

fn fault(parameters: &ServerParameters) -> String {
    server_config(parameters, ServerUse::Clients)
        .expect_err("it cannot be used")
        .to_string()
}

#[test]
fn an_identity_is_read_in_every_form() {
    let place = Place::new();
    let issued = place.issue("server");
    let separate = place.file("separate.pem", &issued.certificate);
    let key = place.file("plain.key", issued.key.serialize_pem());
    let der_key = place.file("der.key", issued.key.serialize_der());
    let secret_key = place.file("secret.key", encrypted(&issued, "sesame"));
    let together = issued.certificate.clone() + &encrypted(&issued, "sesame");
    let together = place.file("together.pem", together);
    let store = place.file("server.p12", pkcs12(&issued, "sesame"));
    let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("it is PEM");
    let der = place.file("server.der", &der);
    for (identity, key, password) in [
        (&separate, Some(&key), None),
        (&separate, Some(&der_key), None),
        (&der, Some(&key), None),
        (&separate, Some(&secret_key), Some("sesame")),
        (&together, None, Some("sesame")),
        (&store, None, Some("sesame")),
        (&separate, Some(&store), Some("sesame")),
    ] {
        let parameters = ServerParameters {
            files: FileNames {
                identity: Some(identity.clone()),
                key: key.cloned(),
                password: password.map(String::from),
                ..FileNames::default()
            },
            requires_certificate: false,
        };
        let made = server_config(&parameters, ServerUse::Clients);
        assert!(made.is_ok(), "{parameters:?}: {:?}", made.err());
        assert!(!format!("{parameters:?}").contains("sesame"));
    }
}

#[test]
fn what_cannot_be_used_is_named_with_parameter_and_file() {
    let place = Place::new();
    let good = place.issue("server");
    let other = place.issue("other");
    let cert = place.file("cert.pem", &good.certificate);
    let other_key = place.file("other.key", other.key.serialize_pem());
    let secret_key = place.file("secret.key", encrypted(&good, "sesame"));
    let store = place.file("server.p12", pkcs12(&good, "sesame"));
    let old_key = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: DES-EDE3-CBC,00\n\
                   \nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let old_key = place.file("old.key", old_key);
    let dated = |name: &str, validity| {
        let issued = place.authority.issue("server", &["localhost"], validity);
        place.authority.write(name, &issued)
    };
    let expired = dated("expired.pem", Validity::Expired);
    let early = dated("early.pem", Validity::NotYet);
    let empty = place.file("empty.pem", "");
    let noise = place.file("noise.pem", "this is no certificate");
    let torn = place.file("torn.pem", &good.certificate[..good.certificate.len() / 2]);
    let none = |identity: &Path| FileNames {
        identity: Some(identity.to_owned()),
        ..FileNames::default()
    };
    let keyed = |identity: &Path, key: &Path, password: Option<&str>| FileNames {
        key: Some(key.to_owned()),
        password: password.map(String::from),
        ..none(identity)
    };
    let missing = place.path("missing.pem");
    for (files, parts) in [
        (FileNames::default(), ["ssl_server_identity: not set", ""]),
        (
            none(&missing),
            [
                "ssl_server_identity: ",
                "missing.pem: the file cannot be opened",
            ],
        ),
        (
            none(place.directory.path()),
            ["ssl_server_identity: ", "this is no ordinary file"],
        ),
        (
            none(&empty),
            ["ssl_server_identity: ", "empty.pem: the file is empty"],
        ),
        (
            none(&noise),
            [
                "ssl_server_identity: ",
                "noise.pem: this is neither PEM nor",
            ],
        ),
        (none(&torn), ["ssl_server_identity: ", "torn.pem: "]),
        (
            none(&expired),
            [
                "ssl_server_identity: ",
                "expired.pem: the certificate expired on 2002",
            ],
        ),
        (
            none(&early),
            [
                "ssl_server_identity: ",
                "early.pem: the certificate is not valid before 2088",
            ],
        ),
        (none(&cert), ["ssl_server_key: not set", "no key in"]),
        (
            keyed(&cert, &missing, None),
            ["ssl_server_key: ", "missing.pem: the file cannot be opened"],
        ),
        (
            keyed(&cert, &cert, None),
            ["ssl_server_key: ", "there is no private key in it"],
        ),
        (
            keyed(&cert, &other_key, None),
            ["ssl_server_key: ", "does not belong to the certificate"],
        ),
        (
            keyed(&cert, &old_key, Some("x")),
            ["ssl_server_key: ", "openssl pkcs8"],
        ),
        (
            keyed(&cert, &secret_key, None),
            ["ssl_password: not set", "needs a password"],
        ),
        (
            keyed(&cert, &secret_key, Some("wrong")),
            ["ssl_password: ", "does not open"],
        ),
        (
            keyed(&cert, &secret_key, Some("$man$x")),
            ["ssl_password: ", "mangled"],
        ),
        (
            FileNames {
                password: Some(String::from("wrong")),
                ..none(&store)
            },
            ["ssl_password: the password does not open", "server.p12"],
        ),
        (
            FileNames {
                ciphers: Some(String::from("ECDHE-RSA-AES256-GCM-SHA384:RC4-MD5")),
                ..none(&cert)
            },
            [
                "ssl_server_ciphers: `RC4-MD5` is not known",
                "TLS_AES_256_GCM_SHA384",
            ],
        ),
        (
            FileNames {
                trusted: vec![noise.clone()],
                ..place.server().files
            },
            ["ssl_server_trusted: ", "noise.pem: this is neither"],
        ),
        (
            FileNames {
                issuer: vec![empty.clone()],
                ..place.server().files
            },
            ["ssl_server_issuer: ", "empty.pem: the file is empty"],
        ),
    ] {
        let text = fault(&ServerParameters {
            files,
            requires_certificate: false,
        });
        for part in parts {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
        assert!(!text.contains("wrong"), "{text}");
    }
    let wants = ServerParameters {
        requires_certificate: true,
        ..place.server()
    };
    let text = fault(&wants);
    assert!(text.starts_with("ssl_server_trusted: not set"), "{text}");
}

/// A handshake and one byte each way. What both sides say; the server also whom it saw.
async fn meet(
    server: &ServerParameters,
    client: &ClientParameters,
    host: &str,
) -> (Result<Option<String>, String>, Result<(), String>) {
    let config = server_config(server, ServerUse::Clients).expect("the server's files are right");
    let client = ClientTls::new(client).expect("the client's files are right");
    let name = client.server_name(host).expect("the host is a name");
    let (near, far) = duplex(1 << 16);
    let listening = async {
        let mut stream = TlsAcceptor::from(Arc::new(config)).accept(far).await?;
        stream.read_u8().await?;
        stream.write_u8(2).await?;
        stream.flush().await?;
        let chain = stream.get_ref().1.peer_certificates();
        Ok(chain.and_then(|chain| chain.first()).and_then(common_name))
    };
    let calling = async {
        let connector = TlsConnector::from(Arc::clone(&client.config));
        let mut stream = connector.connect(name.clone(), near).await?;
        stream.write_u8(1).await?;
        stream.flush().await?;
        stream.read_u8().await.map(drop)
    };
    let (server, caller): (std::io::Result<_>, std::io::Result<_>) =
        tokio::join!(listening, calling);
    (
        server.map_err(|error| accept_failure(&error)),
        caller.map_err(|error| connect_failure(&error, &client.names, &name.to_str())),
    )
}

#[tokio::test]
async fn each_refused_handshake_says_which_parameter_to_mend() {
    let place = Place::new();
    let stranger = Authority::new(place.directory.path(), "stranger");
    let server = place.server();
    let client = place.client();
    let trusting = ServerParameters {
        files: FileNames {
            trusted: vec![place.authority.file()],
            ..server.files.clone()
        },
        requires_certificate: true,
    };
    let known = |identity: PathBuf| ClientParameters {
        files: FileNames {
            identity: Some(identity),
            ..client.files.clone()
        },
        ..client.clone()
    };

    let (seen, said) = meet(&server, &client, "localhost").await;
    assert_eq!((seen, said), (Ok(None), Ok(())));
    let (seen, said) = meet(
        &trusting,
        &known(place.authority.local("carol")),
        "127.0.0.1",
    )
    .await;
    assert_eq!((seen, said), (Ok(Some(String::from("carol"))), Ok(())));

    let wrong_trust = ClientParameters {
        files: FileNames {
            trusted: vec![stranger.file()],
            ..FileNames::default()
        },
        ..client.clone()
    };
    let (seen, said) = meet(&server, &wrong_trust, "localhost").await;
    assert!(seen.expect_err("refused").contains("(ssl_server_identity)"));
    assert!(
        said.expect_err("refused")
            .starts_with("ft_ssl_trusted: the issuer")
    );

    let (_, said) = meet(&server, &client, "elsewhere.example").await;
    let said = said.expect_err("refused");
    assert!(said.starts_with("ft_ssl_expected_hostname: "), "{said}");
    assert!(said.contains("not for elsewhere.example but for"), "{said}");

    let (seen, said) = meet(&trusting, &client, "localhost").await;
    assert!(
        seen.expect_err("refused")
            .contains("ssl_require_client_cert is enabled")
    );
    assert!(
        said.expect_err("refused")
            .starts_with("ft_ssl_identity: not set")
    );

    let (seen, said) = meet(&trusting, &known(stranger.local("mallory")), "localhost").await;
    assert!(
        seen.expect_err("refused")
            .contains("not in ssl_server_trusted")
    );
    let said = said.expect_err("refused");
    assert!(
        said.starts_with("ft_ssl_identity: the server refuses"),
        "{said}"
    );
}

#[tokio::test]
async fn checks_can_be_switched_off_and_the_common_name_counts_where_there_is_no_other() {
    let place = Place::new();
    let client = place.client();
    let nameless = place.authority.issue("old.example", &[], Validity::Now);
    let server = ServerParameters {
        files: FileNames {
            identity: Some(place.authority.write("nameless.pem", &nameless)),
            ..FileNames::default()
        },
        requires_certificate: false,
    };
    let (_, said) = meet(&server, &client, "old.example").await;
    assert_eq!(said, Ok(()));
    let (_, said) = meet(&server, &client, "localhost").await;
    assert!(said.is_err());
    let expecting = ClientParameters {
        expected_hostname: Some(String::from("old.example")),
        ..client.clone()
    };
    assert_eq!(meet(&server, &expecting, "localhost").await.1, Ok(()));
    let any_name = ClientParameters {
        verify_hostname: false,
        ..client.clone()
    };
    assert_eq!(meet(&server, &any_name, "localhost").await.1, Ok(()));
    let anybody = ClientParameters {
        files: FileNames::default(),
        verify_host: false,
        ..any_name
    };
    assert_eq!(meet(&server, &anybody, "localhost").await.1, Ok(()));
    let careless = ClientParameters {
        verify_host: true,
        ..anybody
    };
    let text = ClientTls::new(&careless).expect_err("nobody is trusted");
    assert!(text.to_string().starts_with("ft_ssl_trusted: not set"));
}

#[tokio::test]
async fn only_the_ciphers_that_are_named_are_used() {
    let place = Place::new();
    let with = |ciphers: &str| ServerParameters {
        files: FileNames {
            ciphers: Some(String::from(ciphers)),
            ..place.server().files
        },
        requires_certificate: false,
    };
    let client = |ciphers: &str| ClientParameters {
        files: FileNames {
            ciphers: Some(String::from(ciphers)),
            ..place.client().files
        },
        ..place.client()
    };
    let both = [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    ];
    for name in both {
        let (_, said) = meet(&with(name), &client(both[0]), "localhost").await;
        assert_eq!(said, Ok(()), "{name}");
    }
    let (seen, said) = meet(
        &with(both[0]),
        &client("TLS_AES_128_GCM_SHA256"),
        "localhost",
    )
    .await;
    assert!(seen.expect_err("refused").contains("ssl_server_ciphers"));
    assert!(said.expect_err("refused").contains("ft_ssl_ciphers"));
}

#[test]
fn renewed_files_are_taken_when_they_are_whole_and_broken_ones_change_nothing() {
    let place = Place::new();
    let parameters = place.server();
    let identity = parameters.files.identity.clone().expect("it is set");
    let mut renewals = Renewals::default();
    let files = parameters.files.clone();
    let live = renewals
        .add(&files, move || {
            server_config(&parameters, ServerUse::Clients)
        })
        .expect("the files are right");
    let first = live.get();
    assert_eq!(renewals.look(), (0, Vec::new()));

    fs::write(&identity, "half a certif").expect("the file can be written");
    assert_eq!(renewals.look(), (0, Vec::new()), "it may not be whole yet");
    let (renewed, faults) = renewals.look();
    assert_eq!((renewed, faults.len()), (0, 1));
    assert_eq!(faults[0].parameter, "ssl_server_identity");
    assert_eq!(renewals.look(), (0, Vec::new()), "it is said once");
    assert!(Arc::ptr_eq(&first, &live.get()));

    place.authority.local("server");
    assert_eq!(renewals.look(), (0, Vec::new()));
    assert_eq!(renewals.look(), (1, Vec::new()));
    assert!(!Arc::ptr_eq(&first, &live.get()));
    fs::remove_file(&identity).expect("the file can be removed");
    renewals.look();
    assert_eq!(renewals.look().1.len(), 1);
}
