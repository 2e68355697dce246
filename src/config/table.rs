//! The table of parameters. Parsing, checks, help and documentation come from it.

/// What a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Text that is never shown.
    Secret,
    /// enabled, true, yes, on or their opposites.
    Flag,
    /// A whole number.
    Count {
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// A size: bytes, or with KB, MB or GB.
    Bytes {
        /// Smallest value in bytes.
        min: u64,
        /// Largest value in bytes.
        max: u64,
    },
    /// Seconds, with up to three decimals.
    Seconds {
        /// Smallest value in milliseconds.
        min_ms: u64,
        /// Largest value in milliseconds.
        max_ms: u64,
    },
    /// Whole milliseconds.
    Milliseconds {
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// A file or directory; relative to the file that names it.
    File,
    /// URL to listen on.
    Listen,
    /// URL of another server.
    Peer,
    /// URL of the monitor.
    Monitor,
    /// A list of these words with commas between them.
    Words(&'static [&'static str]),
    /// Names of events to log: a list of these words, each with `+` to add it or `-` to leave it
    /// out, or alone.
    Trace(&'static [&'static str]),
}

impl Kind {
    /// Type and unit in words, for help texts.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Secret => "secret text",
            Self::Flag => "enabled or disabled",
            Self::Count { .. } => "number",
            Self::Bytes { .. } => "size (bytes, KB, MB, GB)",
            Self::Seconds { .. } => "seconds",
            Self::Milliseconds { .. } => "milliseconds",
            Self::File => "path",
            Self::Listen | Self::Peer | Self::Monitor => "URL",
            Self::Words(_) | Self::Trace(_) => "list of words",
        }
    }
}

/// What this version does with a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It has its effect.
    Full,
    /// It is read and checked, but this version does not do what it asks for: a warning that ends
    /// with what happens instead.
    Checked(&'static str),
    /// EMS has it, this version does not: a warning that ends with this advice.
    None(&'static str),
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The name in files and in `--set`.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// The default as it would be written; empty for none.
    pub default: &'static str,
    /// Whether it may be given several times, or several values with commas between them.
    pub is_list: bool,
    /// Whether a running server can take a new value.
    pub is_reloadable: bool,
    /// What this version does with it.
    pub support: Support,
    /// What it is for.
    pub help: &'static str,
}

impl Parameter {
    /// Whether a running server takes a new value: it is reloadable, or names a file that is read again.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        let mut files = super::companions::Companion::ALL.into_iter();
        self.is_reloadable || files.any(|file| file.parameter() == self.name)
    }
}

/// The row of a name.
#[must_use]
pub fn parameter(name: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|row| row.name == name)
}

/// Parameters of EMS without effect here, by how their names begin, and advice.
pub const FAMILIES: &[(&str, &str)] = &[
    ("ft_oauth2_", LOCAL),
    ("ft_ssl_renegotiate_", TLS),
    ("ftl_", OTHER),
    ("health_check_", "use `monitor_listen`"),
    ("jaas_", LOCAL),
    ("jre_", LOCAL),
    ("jvm_", LOCAL),
    ("ldap_", LOCAL),
    ("license", OTHER),
    ("multicast_", GATEWAYS),
    ("oauth2_", LOCAL),
    ("ssl_renegotiate_", TLS),
    ("ssl_rand_", TLS),
    ("tibrv_", GATEWAYS),
    ("tibss_", GATEWAYS),
];

const KB: u64 = 1 << 10;
const MB: u64 = 1 << 20;
const GB: u64 = 1 << 30;
const DAY_MS: u64 = 86_400_000;
const SECONDS: Kind = Kind::Seconds {
    min_ms: 0,
    max_ms: DAY_MS,
};

const fn row(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> Parameter {
    Parameter {
        name,
        kind,
        default,
        is_list: false,
        is_reloadable: false,
        support: Support::Full,
        help,
    }
}

const fn list(row: Parameter) -> Parameter {
    Parameter {
        is_list: true,
        ..row
    }
}

const fn reloadable(row: Parameter) -> Parameter {
    Parameter {
        is_reloadable: true,
        ..row
    }
}

const fn checked(row: Parameter, instead: &'static str) -> Parameter {
    Parameter {
        support: Support::Checked(instead),
        ..row
    }
}

/// A parameter of EMS that only has to fit to others of its kind.
const fn unused(row: Parameter, advice: &'static str) -> Parameter {
    Parameter {
        support: Support::None(advice),
        ..row
    }
}

/// A parameter of EMS without effect here.
const fn foreign(name: &'static str, advice: &'static str) -> Parameter {
    Parameter {
        is_list: true,
        support: Support::None(advice),
        ..row(
            name,
            Kind::Text,
            "",
            "an EMS parameter without effect in this version",
        )
    }
}

/// What EMS calls kinds of events.
const TRACE_ITEMS: &[&str] = &[
    "ACL",
    "ADMIN",
    "AUTH",
    "CONFIG",
    "CONNECT",
    "CONNECT_ERROR",
    "DBSTORE",
    "DEFAULT",
    "DEST",
    "FLOW",
    "FTL",
    "INFO",
    "JAAS",
    "JVM",
    "JVMERR",
    "LDAP_DEBUG",
    "LIMITS",
    "LOAD",
    "MEMORY",
    "MSG",
    "MULTICAST",
    "PRODCONS",
    "ROUTE",
    "ROUTE_DEBUG",
    "RVADV",
    "SS",
    "SSL",
    "SSL_DEBUG",
    "TX",
    "WARNING",
];

const ABORT_WORDS: &[&str] = &[
    "SSL",
    "TRANSPORTS",
    "CONFIG_FILES",
    "CONFIG_ERRORS",
    "DB_FILES",
];

const LOCAL: &str = "users are those of users.conf";
const GATEWAYS: &str = "there are no gateways and no multicast";
const STORES: &str = "everything is in one store, the `store` directory, and every confirmed \
                      durable message is synced";
const TLS: &str = "TLS 1.2 and 1.3 need no such setting";
const CRL: &str = "revocation lists are not read; replace the authority in `ssl_server_trusted`";
const LOGS: &str = "all events are logged";
const MEMORY: &str = "messages wait on disk, memory is bounded by itself";
const HEARTBEATS: &str = "AMQP connections use `idle_timeout_ms`";
const ROUTES: &str = "servers do not forward messages to each other";
const OTHER: &str = "remove it";

/// Every parameter: ours and EMS's, those of EMS without effect at the end.
pub const PARAMETERS: &[Parameter] = &[
    row(
        "server",
        Kind::Text,
        "EMS-SERVER",
        "Name of the server; the same on both servers of a pair.",
    ),
    list(row(
        "listen",
        Kind::Listen,
        "tcp://127.0.0.1:5672",
        "Where clients and peers connect: tcp://host:port or amqp://host:port, with TLS \
         ssl://host:port or amqps://host:port; a port alone means all interfaces. May be given \
         several times.",
    )),
    row(
        "store",
        Kind::File,
        "steadfast-data",
        "Directory of the store; shared by both servers of a pair.",
    ),
    list(row(
        "ft_active",
        Kind::Peer,
        "",
        "URL of the other server of the pair. Empty: a standalone server. Several URLs, with \
         commas between them, for several standbys.",
    )),
    list(row(
        "unshared_peer",
        Kind::Peer,
        "",
        "URL of a server for the same clients that has a store of its own. The two compare their \
         destinations, routes, users, permissions and certificates, and tell each difference; neither \
         waits for the other. Several URLs with commas between them.",
    )),
    row(
        "ft_heartbeat",
        Kind::Seconds {
            min_ms: 10,
            max_ms: DAY_MS,
        },
        "3",
        "Time between heartbeats to a peer; also the longest time that reaching it may take.",
    ),
    row(
        "ft_activation",
        Kind::Seconds {
            min_ms: 20,
            max_ms: DAY_MS,
        },
        "10",
        "A peer that is silent for so long is lost; at least twice ft_heartbeat.",
    ),
    row(
        "ft_reconnect_timeout",
        Kind::Seconds {
            min_ms: 0,
            max_ms: 365 * DAY_MS,
        },
        "60",
        "How long a new active server keeps the state of clients that do not reconnect, counted \
         from the end of recovery.",
    ),
    reloadable(row(
        "authorization",
        Kind::Flag,
        "disabled",
        "Whether clients have to be users with a password or a certificate, and need permissions for \
         destinations with the property `secure`. Disabled: everybody is welcome and may do everything.",
    )),
    reloadable(row(
        "password",
        Kind::Secret,
        "",
        "Password with which the server logs in to its peer when authorization is enabled.",
    )),
    row(
        "monitor_listen",
        Kind::Monitor,
        "http://127.0.0.1:8161",
        "Where /isLive, /isReady, /state and /metrics answer; https:// shows ssl_server_identity. \
         Empty: switched off.",
    ),
    row(
        "max_connections",
        Kind::Count {
            min: 0,
            max: 1_000_000,
        },
        "0",
        "Most client connections at a time; 0: as many as the process may open files.",
    ),
    row(
        "max_message_bytes",
        Kind::Bytes {
            min: KB,
            max: 128 * MB,
        },
        "16MB",
        "Largest message that is accepted; told to clients when they attach.",
    ),
    row(
        "auto_create_queues",
        Kind::Flag,
        "enabled",
        "Whether a queue is created when a client first uses its name.",
    ),
    row(
        "idle_timeout_ms",
        Kind::Milliseconds {
            min: 0,
            max: DAY_MS,
        },
        "60000",
        "A client connection silent for so long is closed; 0: never.",
    ),
    row(
        "store_segment_bytes",
        Kind::Bytes {
            min: MB,
            max: 4 * GB,
        },
        "128MB",
        "Size at which a log segment is sealed and the next one begun.",
    ),
    row(
        "store_checkpoint_bytes",
        Kind::Bytes {
            min: 64 * KB,
            max: GB,
        },
        "",
        "Log written between two checkpoints: what a recovery reads at most. Empty: 12MB on a \
         local file system, 4MB on NFS.",
    ),
    row(
        "store_lock_poll_ms",
        Kind::Milliseconds {
            min: 1,
            max: 60_000,
        },
        "100",
        "How often a standby tries for the store's lock, a quarter more or less.",
    ),
    row(
        "store_warm_standby",
        Kind::Flag,
        "enabled",
        "A standby reads the log of the active server as it grows and keeps its state in memory, so \
         that a takeover reads only what is new. Costs the standby about the memory of an active \
         server and the reading of what is written.",
    ),
    row(
        "store_fence_deadline_ms",
        Kind::Milliseconds {
            min: 0,
            max: DAY_MS,
        },
        "",
        "Confirms and deliveries are suspended when the last durable write is older. Empty: off \
         on a local file system, derived from the lease on NFS; 0: off.",
    ),
    row(
        "store_allow_unverified_locking",
        Kind::Flag,
        "disabled",
        "Use a file system whose locks are not known to work between hosts.",
    ),
    row(
        "logfile",
        Kind::File,
        "",
        "File that log events are appended to. Empty: standard error.",
    ),
    row(
        "logfile_max_size",
        Kind::Bytes {
            min: 0,
            max: 1 << 50,
        },
        "0",
        "Size at which the log file is rotated: the file so far gets a number behind its name. 0: only \
         by the command rotatelog.",
    ),
    row(
        "logfile_max_count",
        Kind::Count {
            min: 0,
            max: 1_000_000,
        },
        "0",
        "Log files that are kept, the present one included; 0: all.",
    ),
    row(
        "startup_abort_list",
        Kind::Words(ABORT_WORDS),
        "",
        "Faults that stop the start. Without it all do. With it, faults in the companion files \
         only do if CONFIG_ERRORS is in it, a companion file that cannot be read if CONFIG_FILES \
         is, a certificate that no URL calls for if SSL is; what is wrong is left out then, and told. \
         Faults in the main file, in certificates that are used, and with authorization those that \
         could let somebody in, always stop the start.",
    ),
    row(
        "ssl_server_identity",
        Kind::File,
        "",
        "Certificate that listeners with TLS show: PEM, or PKCS#12 with its key.",
    ),
    row(
        "ssl_server_key",
        Kind::File,
        "",
        "Private key of ssl_server_identity, PEM. Empty: it is in the same file.",
    ),
    row(
        "ssl_password",
        Kind::Secret,
        "",
        "Password of the private key or of the PKCS#12 file.",
    ),
    list(row(
        "ssl_server_issuer",
        Kind::File,
        "",
        "Certificates between ssl_server_identity and its root, PEM. May be given several times.",
    )),
    list(row(
        "ssl_server_trusted",
        Kind::File,
        "",
        "Authorities whose client certificates are accepted, PEM; also for a peer that connects. May be given several times.",
    )),
    row(
        "ssl_server_ciphers",
        Kind::Text,
        "",
        "Cipher suites that listeners with TLS accept, best first, `:` between them. Empty: the library's choice.",
    ),
    row(
        "ssl_require_client_cert",
        Kind::Flag,
        "disabled",
        "Whether a client without a certificate is refused.",
    ),
    row(
        "ssl_use_cert_username",
        Kind::Flag,
        "disabled",
        "Whether the user of a connection is the common name of its client certificate.",
    ),
    row(
        "ssl_cert_user_specname",
        Kind::Text,
        "CERTIFICATE_USER",
        "User name with which a client asks for the name in its certificate.",
    ),
    row(
        "ft_ssl_identity",
        Kind::File,
        "",
        "Certificate that this server shows when it connects to its peer: PEM, or PKCS#12 with its key.",
    ),
    row(
        "ft_ssl_private_key",
        Kind::File,
        "",
        "Private key of ft_ssl_identity, PEM. Empty: it is in the same file.",
    ),
    row(
        "ft_ssl_password",
        Kind::Secret,
        "",
        "Password of that private key or of the PKCS#12 file.",
    ),
    list(row(
        "ft_ssl_issuer",
        Kind::File,
        "",
        "Certificates between ft_ssl_identity and its root, PEM. May be given several times.",
    )),
    list(row(
        "ft_ssl_trusted",
        Kind::File,
        "",
        "Authorities whose certificates are accepted from the peer, PEM. May be given several times.",
    )),
    row(
        "ft_ssl_ciphers",
        Kind::Text,
        "",
        "Cipher suites for the connection to the peer, best first, `:` between them. Empty: the library's choice.",
    ),
    row(
        "ft_ssl_verify_host",
        Kind::Flag,
        "enabled",
        "Whether the peer's certificate must come from an authority in ft_ssl_trusted.",
    ),
    row(
        "ft_ssl_verify_hostname",
        Kind::Flag,
        "enabled",
        "Whether the peer's certificate must carry the host name of ft_active, or ft_ssl_expected_hostname.",
    ),
    row(
        "ft_ssl_expected_hostname",
        Kind::Text,
        "",
        "Name that the peer's certificate must carry. Empty: the host in ft_active.",
    ),
    row(
        "users",
        Kind::File,
        "users.conf",
        "Users and their passwords. With a main file, a file of this name beside it is read if it is there.",
    ),
    row(
        "groups",
        Kind::File,
        "groups.conf",
        "Groups of users. With a main file, a file of this name beside it is read if it is there.",
    ),
    row(
        "acl_list",
        Kind::File,
        "acl.conf",
        "Who may do what with secure destinations, and who may administer what. With a main file, a file of this name beside it is read if it is there.",
    ),
    row(
        "queues",
        Kind::File,
        "queues.conf",
        "Queues and their properties. With a main file, a file of this name beside it is read if it is there.",
    ),
    row(
        "topics",
        Kind::File,
        "topics.conf",
        "Topics and their properties. With a main file, a file of this name beside it is read if it is there.",
    ),
    row(
        "durables",
        Kind::File,
        "durables.conf",
        "Durable subscriptions. With a main file, a file of this name beside it is read if it is there.",
    ),
    row(
        "bridges",
        Kind::File,
        "bridges.conf",
        "Destinations whose messages are copied to others. With a main file, a file of this name beside it is read if it is there.",
    ),
    checked(
        row(
            "factories",
            Kind::File,
            "factories.conf",
            "Connection factories of JNDI clients. With a main file, a file of this name beside it is read if it is there.",
        ),
        "there is no directory of names; clients have a URL",
    ),
    checked(
        row(
            "stores",
            Kind::File,
            "stores.conf",
            "Names of stores for the property `store` of destinations. With a main file, a file of this name beside it is read if it is there.",
        ),
        STORES,
    ),
    checked(
        row(
            "routes",
            Kind::File,
            "routes.conf",
            "Other servers that messages are forwarded to. With a main file, a file of this name beside it is read if it is there.",
        ),
        ROUTES,
    ),
    checked(
        row(
            "log_trace",
            Kind::Trace(TRACE_ITEMS),
            "DEFAULT",
            "Kinds of events that the log file gets: names replace the list, +NAME adds to it, \
             -NAME takes away.",
        ),
        LOGS,
    ),
    checked(
        row(
            "console_trace",
            Kind::Trace(TRACE_ITEMS),
            "DEFAULT",
            "The same for standard error.",
        ),
        LOGS,
    ),
    foreign("user_auth", LOCAL),
    foreign("channels", GATEWAYS),
    foreign("transports", GATEWAYS),
    foreign("tibrvcm", GATEWAYS),
    foreign("routing", ROUTES),
    foreign("always_exit_on_disk_error", STORES),
    foreign("store_crc", STORES),
    foreign("client_trace", LOGS),
    unused(
        row(
            "max_msg_memory",
            Kind::Bytes {
                min: 0,
                max: 1 << 50,
            },
            "",
            "Most memory for messages; 0: no limit.",
        ),
        MEMORY,
    ),
    foreign("msg_swapping", MEMORY),
    foreign("destination_backlog_swapout", MEMORY),
    foreign("reserve_memory", MEMORY),
    foreign("large_destination_memory", MEMORY),
    foreign("large_destination_count", MEMORY),
    foreign("max_stat_memory", MEMORY),
    foreign("max_client_msg_size", "use `max_message_bytes`"),
    foreign("max_msg_print_size", OTHER),
    unused(
        row(
            "server_heartbeat_client",
            SECONDS,
            "5",
            "Time between heartbeats to a client.",
        ),
        HEARTBEATS,
    ),
    unused(
        row(
            "client_timeout_server_connection",
            SECONDS,
            "0",
            "A client gives up a server that is silent for so long; 0: never.",
        ),
        HEARTBEATS,
    ),
    unused(
        row(
            "client_heartbeat_server",
            SECONDS,
            "0",
            "Time between heartbeats from a client; at most a third of server_timeout_client_connection.",
        ),
        HEARTBEATS,
    ),
    unused(
        row(
            "server_timeout_client_connection",
            SECONDS,
            "0",
            "A server gives up a client that is silent for so long; 0: never.",
        ),
        HEARTBEATS,
    ),
    unused(
        row(
            "server_heartbeat_server",
            SECONDS,
            "5",
            "Time between heartbeats to another server.",
        ),
        "use `ft_heartbeat`",
    ),
    unused(
        row(
            "server_timeout_server_connection",
            SECONDS,
            "0",
            "A server gives up another one that is silent for so long; 0: never.",
        ),
        "use `ft_activation`",
    ),
    foreign("handshake_timeout", HEARTBEATS),
    foreign("flow_control", "AMQP links have credit"),
    foreign(
        "flow_control_only_with_active_consumer",
        "AMQP links have credit",
    ),
    foreign(
        "npsend_check_mode",
        "AMQP senders choose settlement themselves",
    ),
    foreign("multicast", OTHER),
    foreign("disconnect_non_acking_consumers", OTHER),
    foreign("compliant_queue_ack", OTHER),
    foreign("network_thread_count", OTHER),
    foreign("clock_sync_interval", OTHER),
    foreign("statistics", "/metrics is always on"),
    foreign("detailed_statistics", "/metrics is always on"),
    foreign("statistics_cleanup_interval", "/metrics is always on"),
    foreign("rate_interval", "/metrics is always on"),
    foreign("server_rate_interval", "/metrics is always on"),
    foreign("track_message_ids", OTHER),
    foreign("track_correlation_ids", OTHER),
    foreign("health_check_listen", "use `monitor_listen`"),
    foreign("secondary_health_check_listen", "use `monitor_listen`"),
    foreign(
        "secondary_monitor_listen",
        "each server has its own `monitor_listen`",
    ),
    foreign("module_path", OTHER),
    foreign("ssl_dh_size", TLS),
    foreign("ssl_require_route_cert_only", ROUTES),
    foreign("ssl_crl_path", CRL),
    foreign("ssl_crl_update_interval", CRL),
    foreign("ft_ssl_rand_egd", TLS),
];
