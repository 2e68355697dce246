//! Certificates made on the fly, in temporary directories.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// Somebody who issues certificates, and the directory where files are written.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
    name: String,
}

/// When a certificate is valid.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validity {
    Now,
    Expired,
    NotYet,
}

/// A certificate and its key, both PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: KeyPair,
}

impl Authority {
    /// A new one, whose certificate is `NAME.pem` in the directory.
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key is made");
        let issuer = CertifiedIssuer::self_signed(parameters, key).expect("it certifies itself");
        std::fs::write(directory.join(format!("{name}.pem")), issuer.pem())
            .expect("the directory can be written");
        Self {
            issuer,
            directory: directory.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The file of its certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.join(format!("{}.pem", self.name))
    }

    /// A certificate with a common name, for hosts.
    pub(crate) fn issue(&self, name: &str, hosts: &[&str], validity: Validity) -> Issued {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut parameters = CertificateParams::new(hosts).expect("the hosts are names");
        parameters.distinguished_name.push(DnType::CommonName, name);
        let (from, until) = match validity {
            Validity::Now => (2020, 2090),
            Validity::Expired => (2001, 2002),
            Validity::NotYet => (2088, 2090),
        };
        parameters.not_before = date_time_ymd(from, 1, 1);
        parameters.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key is made");
        let certificate = parameters.signed_by(&key, &self.issuer);
        Issued {
            certificate: certificate.expect("it is certified").pem(),
            key,
        }
    }

    /// A certificate with its key in one file of this name.
    pub(crate) fn write(&self, file: &str, issued: &Issued) -> PathBuf {
        let path = self.directory.join(file);
        let text = issued.certificate.clone() + &issued.key.serialize_pem();
        std::fs::write(&path, text).expect("the directory can be written");
        path
    }

    /// A valid certificate with its key in `NAME.pem`, for `localhost` and 127.0.0.1.
    pub(crate) fn local(&self, name: &str) -> PathBuf {
        let issued = self.issue(name, &["localhost", "127.0.0.1"], Validity::Now);
        self.write(&format!("{name}.pem"), &issued)
    }
}
