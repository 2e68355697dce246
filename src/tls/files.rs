//! Certificates and keys from files: PEM, DER and PKCS#12, told apart by what is in them.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use p12_keystore::{KeyStore, Pkcs12ImportPolicy};
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use super::parameters::{FileNames, Names};
use super::{Fault, certificate};

/// No certificate or key is as large as this.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How EMS writes a password that is only hidden from a glance.
const MANGLED: &str = "$man$";

type Certificates = Vec<CertificateDer<'static>>;

/// The own certificate with its chain and key; `None` when no identity is named.
pub(super) fn identity(
    names: &Names,
    files: &FileNames,
    provider: &CryptoProvider,
) -> Result<Option<Arc<CertifiedKey>>, Fault> {
    let Some(path) = &files.identity else {
        if files.key.is_some() {
            let text = format!("there is a key but no certificate; set {}", names.identity);
            return Err(Fault::new(names.key, text));
        }
        return Ok(None);
    };
    let password = Password::new(names, files)?;
    let bytes = read(names.identity, path)?;
    let content = parse(names.identity, path, &bytes, &password)?;
    let mut chain = content.certificates;
    let Some(own) = chain.first().cloned() else {
        let text = format!("{}: there is no certificate in it", path.display());
        return Err(Fault::new(names.identity, text));
    };
    let in_file = |text: String| Fault::new(names.identity, format!("{}: {text}", path.display()));
    certificate::out_of_fashion(&own).map_err(in_file)?;
    certificate::out_of_date(&own).map_err(in_file)?;
    for issuer in certificates(names.issuer, &files.issuer)? {
        // Who trusts a root has it; who does not is not convinced by it.
        if !chain.contains(&issuer) && !certificate::is_self_issued(&issuer) {
            chain.push(issuer);
        }
    }
    let (key, key_place, parameter) = match (&files.key, content.key) {
        (Some(path), _) => (key(names, path, &password)?, path, names.key),
        (None, Some(key)) => (key, path, names.identity),
        (None, None) => {
            let text = format!(
                "not set, and there is no key in {} ({})",
                path.display(),
                names.identity
            );
            return Err(Fault::new(names.key, text));
        }
    };
    match CertifiedKey::from_der(chain, key, provider) {
        Ok(pair) => Ok(Some(Arc::new(pair))),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let text = format!(
                "{}: the key does not belong to the certificate in {} ({})",
                key_place.display(),
                path.display(),
                names.identity
            );
            Err(Fault::new(parameter, text))
        }
        Err(error) => {
            let text = format!("{}: it cannot be used: {error}", key_place.display());
            Err(Fault::new(parameter, text))
        }
    }
}

/// Whom to trust. Issuers of the own certificate are not among them: whoever issues certificates to
/// everybody must not thereby let everybody in.
pub(super) fn roots(names: &Names, files: &FileNames) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    for path in &files.trusted {
        for trusted in certificates(names.trusted, std::slice::from_ref(path))? {
            roots.add(trusted).map_err(|error| {
                let text = format!(
                    "{}: a certificate in it cannot be used: {error}",
                    path.display()
                );
                Fault::new(names.trusted, text)
            })?;
        }
    }
    Ok(roots)
}

/// All certificates of some files, at least one of each.
fn certificates(parameter: &'static str, paths: &[PathBuf]) -> Result<Certificates, Fault> {
    let mut all = Vec::new();
    for path in paths {
        let bytes = read(parameter, path)?;
        let content = parse(parameter, path, &bytes, &Password::none())?;
        if content.certificates.is_empty() {
            let text = format!("{}: there is no certificate in it", path.display());
            return Err(Fault::new(parameter, text));
        }
        all.extend(content.certificates);
    }
    Ok(all)
}

/// What a file holds.
#[derive(Default)]
struct Content {
    certificates: Certificates,
    key: Option<PrivateKeyDer<'static>>,
}

fn read(parameter: &'static str, path: &Path) -> Result<Vec<u8>, Fault> {
    let fault = |text: String| Fault::new(parameter, format!("{}: {text}", path.display()));
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| fault(format!("the file cannot be opened: {error}")))?;
    // Reading a pipe would wait for somebody who writes.
    if !file.metadata().is_ok_and(|data| data.is_file()) {
        return Err(fault("this is no ordinary file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| fault(format!("the file cannot be read: {error}")))?;
    if bytes.is_empty() {
        return Err(fault("the file is empty".to_owned()));
    }
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fault("the file is too large for a certificate".to_owned()));
    }
    Ok(bytes)
}

fn parse(
    parameter: &'static str,
    path: &Path,
    bytes: &[u8],
    password: &Password<'_>,
) -> Result<Content, Fault> {
    let fault = |text: String| Fault::new(parameter, format!("{}: {text}", path.display()));
    if is_pem(bytes) {
        return parse_pem(parameter, path, bytes, password);
    }
    if bytes.first() != Some(&0x30) {
        let text = "this is neither PEM nor DER nor PKCS#12";
        return Err(fault(text.to_owned()));
    }
    if !is_pkcs12(bytes) {
        let single = CertificateDer::from(bytes.to_vec());
        rustls::server::ParsedCertificate::try_from(&single)
            .map_err(|error| fault(format!("this is no certificate: {error}")))?;
        return Ok(Content {
            certificates: vec![single],
            key: None,
        });
    }
    let secret = password.text.unwrap_or("");
    let store = KeyStore::from_pkcs12(bytes, secret, Pkcs12ImportPolicy::Relaxed);
    let store = store.map_err(|error| password.fault(parameter, path, &error.to_string()))?;
    let mut content = Content::default();
    if let Some((_, chain)) = store.private_key_chain() {
        let owned = |certificate: &p12_keystore::Certificate| {
            CertificateDer::from(certificate.as_der().to_vec())
        };
        content.certificates = chain.certs().iter().map(owned).collect();
        let key = PrivatePkcs8KeyDer::from(chain.key().as_der().to_vec());
        content.key = Some(key.into());
    }
    for (_, entry) in store.entries() {
        if let p12_keystore::KeyStoreEntry::Certificate(trusted) = entry {
            let trusted = CertificateDer::from(trusted.as_der().to_vec());
            if !content.certificates.contains(&trusted) {
                content.certificates.push(trusted);
            }
        }
    }
    Ok(content)
}

fn is_pem(bytes: &[u8]) -> bool {
    contains(bytes, b"-----BEGIN ")
}

/// PKCS#12 is the only one of these forms whose first field is the number 3.
fn is_pkcs12(bytes: &[u8]) -> bool {
    contains(bytes.get(..8).unwrap_or_default(), &[2, 1, 3])
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Certificates and the first key of a PEM file, in any order.
fn parse_pem(
    parameter: &'static str,
    path: &Path,
    bytes: &[u8],
    password: &Password<'_>,
) -> Result<Content, Fault> {
    let mut content = Content::default();
    let old_form = b"Proc-Type: 4,ENCRYPTED";
    if contains(bytes, old_form) {
        let text = format!(
            "{}: the key is encrypted in an old form; write it anew: openssl pkcs8 -topk8 -in OLD \
             -out NEW",
            path.display()
        );
        return Err(Fault::new(parameter, text));
    }
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        let (kind, der) = section.map_err(|error| {
            let text = format!("{}: it is no whole PEM file: {error}", path.display());
            Fault::new(parameter, text)
        })?;
        match kind {
            SectionKind::Certificate => content.certificates.push(der.into()),
            _ if content.key.is_some() => {}
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                content.key = PrivateKeyDer::from_pem(kind, der);
            }
            _ => {}
        }
    }
    if content.key.is_none() && password.is_wanted {
        content.key = encrypted_pem(parameter, path, bytes, password)?;
    }
    Ok(content)
}

/// The first encrypted key of a PEM file.
fn encrypted_pem(
    parameter: &'static str,
    path: &Path,
    bytes: &[u8],
    password: &Password<'_>,
) -> Result<Option<PrivateKeyDer<'static>>, Fault> {
    let text = String::from_utf8_lossy(bytes);
    let mark = "ENCRYPTED PRIVATE KEY-----";
    let Some(body) = text
        .split_once(&format!("-----BEGIN {mark}"))
        .and_then(|(_, rest)| rest.split_once(&format!("-----END {mark}")))
        .map(|(body, _)| body)
    else {
        return Ok(None);
    };
    // The PEM reader knows no kind for it: any kind serves to have it decoded.
    let label = "PRIVATE KEY-----";
    let relabelled = format!("-----BEGIN {label}{body}-----END {label}\n");
    let der = PrivatePkcs8KeyDer::from_pem_slice(relabelled.as_bytes()).map_err(|error| {
        let text = format!("{}: the key is no whole PEM: {error}", path.display());
        Fault::new(parameter, text)
    })?;
    decrypt(parameter, path, der.secret_pkcs8_der(), password).map(Some)
}

fn decrypt(
    parameter: &'static str,
    path: &Path,
    der: &[u8],
    password: &Password<'_>,
) -> Result<PrivateKeyDer<'static>, Fault> {
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|error| {
        let text = format!(
            "{}: the encrypted key cannot be read: {error}",
            path.display()
        );
        Fault::new(parameter, text)
    })?;
    let Some(secret) = password.text else {
        return Err(password.fault(parameter, path, ""));
    };
    let plain = encrypted
        .decrypt(secret)
        .map_err(|error| password.fault(parameter, path, &error.to_string()))?;
    Ok(PrivatePkcs8KeyDer::from(plain.as_bytes().to_vec()).into())
}

/// The key of a file of its own.
fn key(
    names: &Names,
    path: &Path,
    password: &Password<'_>,
) -> Result<PrivateKeyDer<'static>, Fault> {
    let bytes = read(names.key, path)?;
    let none = || {
        let text = format!("{}: there is no private key in it", path.display());
        Fault::new(names.key, text)
    };
    if !is_pem(&bytes) && !is_pkcs12(&bytes) {
        if EncryptedPrivateKeyInfoRef::try_from(bytes.as_slice()).is_ok() {
            return decrypt(names.key, path, &bytes, password);
        }
        let key = PrivateKeyDer::try_from(bytes.as_slice());
        return key.map(|key| key.clone_key()).map_err(|_| none());
    }
    parse(names.key, path, &bytes, password)?
        .key
        .ok_or_else(none)
}

/// The password for what is encrypted.
struct Password<'a> {
    parameter: &'static str,
    text: Option<&'a str>,
    is_wanted: bool,
}

impl<'a> Password<'a> {
    fn new(names: &Names, files: &'a FileNames) -> Result<Self, Fault> {
        let text = files.password.as_deref();
        if text.is_some_and(|text| text.starts_with(MANGLED)) {
            let text = "a mangled password ($man$...) cannot be read; write the password itself and \
                        let nobody else read the file";
            return Err(Fault::new(names.password, text));
        }
        Ok(Self {
            parameter: names.password,
            text,
            is_wanted: true,
        })
    }

    /// For files that hold no secret.
    fn none() -> Self {
        Self {
            parameter: "",
            text: None,
            is_wanted: false,
        }
    }

    /// What is encrypted cannot be opened.
    fn fault(&self, parameter: &'static str, path: &Path, reason: &str) -> Fault {
        let path = path.display();
        match self.text {
            _ if !self.is_wanted => {
                let text = format!("{path}: this is no certificate in PEM or DER: {reason}");
                Fault::new(parameter, text)
            }
            None => {
                let text = format!("not set, and {path} ({parameter}) needs a password");
                Fault::new(self.parameter, text)
            }
            Some(_) => {
                let text = format!(
                    "the password does not open {path} ({parameter}), or that file is damaged: \
                     {reason}"
                );
                Fault::new(self.parameter, text)
            }
        }
    }
}
