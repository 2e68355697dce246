//! TLS of a server: from its configuration to what listeners, the link to a peer and the monitor use.

use rustls::ServerConfig;

use crate::config::{self, Config, Origin, TlsFiles};
use crate::tls::{
    ClientParameters, ClientTls, Fault, FileNames, LINK_NAMES, Live, Renewals, SERVER_NAMES,
    ServerParameters, ServerUse, Watch, server_config,
};

/// What a server's sides of TLS use.
#[derive(Debug)]
pub(crate) struct ServerTls {
    /// For listeners; `None` when none speaks TLS.
    pub(crate) clients: Option<Live<ServerConfig>>,
    /// For the monitor, when it speaks TLS.
    pub(crate) monitor: Option<Live<ServerConfig>>,
    /// For links that this server opens, when a peer's URL wants TLS.
    pub(crate) link: Option<Live<ClientTls>>,
    /// Keeps them fresh until it is dropped.
    _watch: Watch,
}

impl ServerTls {
    /// Reads all certificates and keys that the URLs of the configuration call for, and begins to
    /// watch their files.
    ///
    /// # Errors
    /// A message that names the parameter and the file.
    pub(crate) fn prepare(config: &Config) -> Result<Self, String> {
        let mut renewals = Renewals::default();
        let (clients, monitor, link) =
            read(config, &mut renewals).map_err(|fault| fault.to_string())?;
        if config.tls.require_client_cert && config.listens.iter().any(|listen| !listen.is_tls) {
            let parameter = SERVER_NAMES.verify;
            tracing::warn!(
                event = "config_warning",
                parameter,
                "{parameter}: it is enabled, but there are listeners without TLS, where nobody is \
                 asked for a certificate; remove them or listen on 127.0.0.1 there"
            );
        }
        let watch = renewals
            .watch()
            .map_err(|error| format!("no thread to watch certificates: {error}"))?;
        Ok(Self {
            clients,
            monitor,
            link,
            _watch: watch,
        })
    }
}

/// Whether everything that TLS needs is there and fits together.
///
/// # Errors
/// What is wrong with which file, and where that was named.
pub fn check(config: &Config) -> Result<(), config::Fault> {
    let checked = read(config, &mut Renewals::default());
    checked.map(drop).map_err(|fault| config::Fault {
        origin: origin(config, &fault),
        parameter: fault.parameter.to_owned(),
        text: fault.text,
    })
}

/// Where the file was named that a fault is about; of several that of which it speaks.
fn origin(config: &Config, fault: &Fault) -> Origin {
    let files = config.tls_files.iter();
    let named = files
        .filter(|file| file.parameter == fault.parameter)
        .max_by_key(|file| fault.text.contains(&*file.path.to_string_lossy()));
    let main_file = config.main_file.clone();
    let whole = main_file.map_or(Origin::Default, |path| Origin::File { path, line: 0 });
    named.map_or(whole, |file| file.origin.clone())
}

type Sides = (
    Option<Live<ServerConfig>>,
    Option<Live<ServerConfig>>,
    Option<Live<ClientTls>>,
);

fn read(config: &Config, renewals: &mut Renewals) -> Result<Sides, Fault> {
    let server = server_parameters(&config.tls);
    let mut listener = |is_wanted: bool, who: ServerUse| {
        if !is_wanted {
            return Ok(None);
        }
        let parameters = server.clone();
        let make = move || server_config(&parameters, who);
        renewals.add(&server.files, make).map(Some)
    };
    let has_listener = config.listens.iter().any(|listen| listen.is_tls);
    let has_monitor = config.monitor_listen.as_ref().is_some_and(|url| url.is_tls);
    let clients = listener(has_listener, ServerUse::Clients)?;
    let monitor = listener(has_monitor, ServerUse::Monitor)?;
    let takes_names = config.tls.use_cert_username && clients.is_some();
    if takes_names && config.tls.trusted.is_empty() {
        let text = "not set, but ssl_use_cert_username is enabled; name the certificates of those \
                    who issue client certificates";
        return Err(Fault {
            parameter: SERVER_NAMES.trusted,
            text: text.to_owned(),
        });
    }
    let mut peers = config.peers.iter().chain(&config.unshared_peers);
    let link = if peers.any(|peer| peer.is_tls) {
        let parameters = link_parameters(&config.ft_tls);
        let files = parameters.files.clone();
        Some(renewals.add(&files, move || ClientTls::new(&parameters))?)
    } else {
        None
    };
    Ok((clients, monitor, link))
}

fn server_parameters(files: &TlsFiles) -> ServerParameters {
    ServerParameters {
        files: file_names(files),
        requires_certificate: files.require_client_cert,
    }
}

fn link_parameters(files: &TlsFiles) -> ClientParameters {
    ClientParameters {
        files: file_names(files),
        names: LINK_NAMES,
        verify_host: files.verify_host,
        verify_hostname: files.verify_hostname,
        expected_hostname: files.expected_hostname.clone(),
    }
}

fn file_names(files: &TlsFiles) -> FileNames {
    FileNames {
        identity: files.identity.clone(),
        key: files.key.clone(),
        password: files
            .password
            .as_ref()
            .map(|password| password.expose().to_owned()),
        issuer: files.issuers.clone(),
        trusted: files.trusted.clone(),
        ciphers: files.ciphers.clone(),
    }
}
