//! What may be typed. Parsing, `--help` and the examples in it come from these types.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{PARAMETERS, Support};
use crate::net::log::LogFormat;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed while running
  2  wrong usage or configuration
  3  store damaged, nothing changed
  4  the store belongs to another live server, or its file system is not safe for sharing
  5  fenced: ownership of the store was lost, or a write of the store failed (a restart is safe)";

const EXAMPLES: &str = "\
Examples:
  steadfast demo                 the product in one minute
  steadfast serve                a standalone server on 127.0.0.1:5672
  steadfast serve --help         how to run a fault-tolerant pair";

/// A fault-tolerant AMQP 1.0 message broker.
#[derive(Clone, Debug, Parser)]
#[command(name = "steadfast", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run a server, alone or as one of a fault-tolerant pair.
    Serve(ServeArgs),
    /// See a pair of servers survive a kill -9, in one minute and with nothing else installed.
    Demo(DemoArgs),
    /// Administer a server: one command, a script, or a shell.
    #[command(after_help = ADMIN_EXAMPLES)]
    Admin(AdminArgs),
    /// Check a configuration file without starting a server.
    CheckConfig(CheckConfigArgs),
    /// Turn a password from standard input into the form in which users.conf should keep it.
    #[command(after_help = "Examples:\n  \
        steadfast hash-password < password.txt\n  \
        printf %s \"$PASSWORD\" | steadfast hash-password\n\n\
        Write what it prints between the first and the second colon of the user's line:\n  \
        bob:$argon2id$...:\"description\"")]
    HashPassword,
    /// Look into a store; read-only and safe beside a running server.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Measure recovery, or any AMQP 1.0 broker's throughput and latency.
    #[command(subcommand)]
    Bench(Box<BenchCommand>),
}

const ADMIN_EXAMPLES: &str = "\
Examples:
  steadfast admin                                    a shell; help shows all commands
  steadfast admin show queues
  steadfast admin --server tcp://host:7222 --user admin --password-file pw --json show server
  steadfast admin --server tcp://a:7222,tcp://b:7222 --user admin show queues
      the active server of a pair; the password is asked for
  steadfast admin --server ssl://host:7243 --ssl-trusted ca.pem --ssl-identity ann.pem whoami
      with TLS, and a certificate as the login
  steadfast admin --script setup.txt --ignore
  steadfast admin --yes delete queue orders
  steadfast admin create queue orders maxmsgs=1000
docs/ADMIN.md has all commands.";

/// Options of `admin`.
#[derive(Clone, Debug, Args)]
pub struct AdminArgs {
    /// The server, or several with commas between them: the active one is found. tcp:// or amqp://, with TLS ssl:// or
    /// amqps://. tcp://127.0.0.1:5672 when left out.
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// User who connects. On a terminal the tool asks for the password. With a certificate (--ssl-identity) leave the
    /// user out: the certificate says who you are.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// File whose first line is the user's password.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Print one JSON document for each command.
    #[arg(long)]
    pub json: bool,
    /// Carry out the lines of a file; - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    pub script: Option<PathBuf>,
    /// Go on with the script when a command fails; the exit code still tells that one did.
    #[arg(long)]
    pub ignore: bool,
    /// Print the page of all commands.
    #[arg(long, hide = true)]
    pub reference: bool,
    /// Do not ask whether commands that delete, purge or stop something are meant.
    #[arg(short, long)]
    pub yes: bool,
    /// The command.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub command: Vec<String>,
    /// How to speak TLS.
    #[command(flatten)]
    pub tls: TlsArgs,
}

const SERVE_EXAMPLES: &str = "\
Examples:
  steadfast serve
      a standalone server: data in ./steadfast-data, tcp://127.0.0.1:5672,
      monitor on http://127.0.0.1:8161
  steadfast serve --data /shared/s --listen tcp://127.0.0.1:5672 \\
      --set ft_active=tcp://127.0.0.1:5673
  steadfast serve --data /shared/s --listen tcp://127.0.0.1:5673 \\
      --set ft_active=tcp://127.0.0.1:5672 --set monitor_listen=http://127.0.0.1:8162
      a fault-tolerant pair on one host: kill either, the other serves
  steadfast serve --config /etc/steadfast/a.conf --log-format json";

/// Options of `serve`.
#[derive(Clone, Debug, Default, Args)]
#[command(
    after_help = format!("{SERVE_EXAMPLES}\n\n`--help` lists the parameters of the configuration."),
    after_long_help = format!("{SERVE_EXAMPLES}\n\n{}", parameters_help())
)]
pub struct ServeArgs {
    /// Main configuration file: `name = value` lines, or JSON if its name ends in .json.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the store (the parameter `store`); shared by both servers of a pair.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where clients and peers connect, such as tcp://127.0.0.1:5672; may be repeated.
    #[arg(long, value_name = "URL")]
    pub listen: Vec<String>,
    /// Any parameter of the configuration; wins over the file; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Be the second of the two servers that a JSON file describes.
    #[arg(long)]
    pub secondary: bool,
    /// Form of the log lines.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormatArg::Text)]
    pub log_format: LogFormatArg,
    /// Have the kernel kill this server when the process that started it dies.
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

/// Values of `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormatArg {
    /// One line an event, for people.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

impl From<LogFormatArg> for LogFormat {
    fn from(argument: LogFormatArg) -> Self {
        match argument {
            LogFormatArg::Text => Self::Text,
            LogFormatArg::Json => Self::Json,
        }
    }
}

/// Options of `demo`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  steadfast demo
  steadfast demo --json | jq .lost

Exit code 0 only if nothing that was confirmed was lost.")]
pub struct DemoArgs {
    /// Messages to send in all.
    #[arg(long, value_name = "N", default_value_t = 40_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    pub messages: u64,
    /// Print one JSON document instead of a story.
    #[arg(long)]
    pub json: bool,
}

/// Options of `check-config`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  steadfast check-config /etc/steadfast/a.conf
  steadfast check-config a.conf --peer b.conf     also what must match between the two
  steadfast check-config pair.json --peer pair.json
      both servers that a JSON file describes
  steadfast check-config --reference              every parameter, as a page")]
pub struct CheckConfigArgs {
    /// The main configuration file; those that it names are checked with it.
    #[arg(value_name = "FILE", required_unless_present = "reference")]
    pub file: Option<PathBuf>,
    /// The other server's file; if it is the same JSON file, the second server in it.
    #[arg(long, value_name = "FILE")]
    pub peer: Option<PathBuf>,
    /// Print the reference page of all parameters instead.
    #[arg(long)]
    pub reference: bool,
}

/// Commands of `store`.
#[derive(Clone, Debug, Subcommand)]
pub enum StoreCommand {
    /// Show segments, batches and records in order.
    #[command(
        after_help = "Examples:\n  steadfast store inspect ./steadfast-data\n  \
                            steadfast store inspect --json /shared/s | jq ."
    )]
    Inspect(InspectArgs),
    /// Check every byte; reports all faults that it finds.
    #[command(
        after_help = "Examples:\n  steadfast store verify ./steadfast-data\n  \
                            steadfast store verify /shared/s && echo whole"
    )]
    Verify(StoreArgs),
    /// Show sizes and counts.
    #[command(after_help = "Examples:\n  steadfast store stats ./steadfast-data\n  \
                            steadfast store stats --json /shared/s")]
    Stats(StoreArgs),
    /// Make a damaged store usable again; without its flag it only says what that would cost.
    #[command(
        after_help = "Examples:\n  steadfast store repair ./steadfast-data\n  \
                            steadfast store repair --accept-data-loss ./steadfast-data\n\n\
                            It works on a store that no server owns. Before anything is changed, the files\n\
                            that will go are kept in a folder of the store (repair-0001, then 0002, ...) with\n\
                            a list of what was dropped. A store that is whole is left as it is."
    )]
    Repair(RepairArgs),
}

/// Options of `store repair`.
#[derive(Clone, Debug, Args)]
pub struct RepairArgs {
    /// Directory, output.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Drop what cannot be read, after keeping a copy of it.
    #[arg(long)]
    pub accept_data_loss: bool,
    /// Work on a file system whose locks the project has not verified.
    #[arg(long)]
    pub allow_unverified_locking: bool,
}

/// Options of `store inspect`.
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// Directory, output.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Only this segment.
    #[arg(long, value_name = "N")]
    pub segment: Option<u64>,
    /// Only batches that end behind this offset of a segment.
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    pub from: u64,
    /// Batches shown of each segment at most.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub batches: usize,
}

/// Options of the `store` commands.
#[derive(Clone, Debug, Args)]
pub struct StoreArgs {
    /// Directory of the store.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Commands of `bench`.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Fill a store through a real server, kill it, and time the recovery of the next one.
    #[command(after_help = "Examples:\n  \
        steadfast bench recovery --messages 1000000 --size 1024\n  \
        steadfast bench recovery --messages 10000000 --dir /mnt/disk --json\n  \
        steadfast bench recovery --warm --messages 100000000 --size 64 --queues 1000 --store filled")]
    Recovery(RecoveryArgs),
    /// Messages per second through senders and receivers.
    #[command(after_help = "Examples:\n  \
        steadfast bench throughput --senders 16 --receivers 16 --size 1024\n  \
        steadfast bench throughput --server amqp://broker:5672 --seconds 30 --json\n  \
        steadfast bench throughput --server amqps://broker --ssl-trusted ca.pem")]
    Throughput(ThroughputArgs),
    /// Time from sending a message to its confirm, one in flight.
    #[command(after_help = "Examples:\n  steadfast bench latency --size 1024\n  \
        steadfast bench latency --server amqp://broker:5672 --json")]
    Latency(LatencyArgs),
    /// Send messages and leave them in their queues.
    #[command(after_help = "Examples:\n  \
        steadfast bench fill --messages 1000000 --queues 100\n  \
        steadfast bench fill --server amqp://broker:5672 --messages 1000 --size 64")]
    Fill(FillArgs),
    /// Durable appends through the store alone, without a broker, in turn with the disk alone.
    #[command(after_help = "Examples:\n  \
        steadfast bench append --writers 16 --size 1024\n  \
        steadfast bench append --window 8 --no-zeros --dir /mnt/disk --json")]
    Append(AppendArgs),
    /// Keep one message in a thousand for ever while many times the disk's budget flows through the store, and
    /// check that its size stays within bounds.
    #[command(after_help = "Examples:\n  \
        steadfast bench space\n  \
        steadfast bench space --budget-mib 4096 --dir /mnt/disk --json\n\n\
        Exit code 0 only if the store's size stayed within 4 times what is kept plus four segments, and if it\n\
        wrote at most a third beside its log.")]
    Space(SpaceArgs),
}

/// Options of `bench space`.
#[derive(Clone, Debug, Args)]
pub struct SpaceArgs {
    /// Where the store is made; a temporary directory if not given.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Size of the disk that the store believes to have; a segment is a sixteenth of it.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u64).range(64..=32_768))]
    pub budget_mib: u64,
    /// How many times the budget flows through, in bytes of bodies.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub times: u64,
    /// Size of a message's body.
    #[arg(long, value_name = "BYTES", default_value_t = 1_024, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub size: u64,
    /// One message in so many is kept.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(2..))]
    pub keep_one_in: u64,
    /// Write no zeros ahead, as on a network file system.
    #[arg(long)]
    pub no_zeros: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Options of `bench append`.
#[derive(Clone, Debug, Args)]
pub struct AppendArgs {
    /// Where the store and the file for the disk alone are made; a temporary directory if not given.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Size of a message's body.
    #[arg(long, value_name = "BYTES", default_value_t = 1_024)]
    pub size: usize,
    /// Writers that append and wait.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub writers: usize,
    /// Threads that the writers live on; the server has one for all its clients.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
    /// Messages that each of them appends before it waits until they are durable.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub window: usize,
    /// Duration of the store's turns; the disk alone takes about as long.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub seconds: u64,
    /// Size of a full-grown segment.
    #[arg(long, value_name = "BYTES", default_value_t = 128 << 20, value_parser = clap::value_parser!(u64).range(1 << 20..1 << 32))]
    pub segment_bytes: u64,
    /// Write no zeros ahead, as on a network file system.
    #[arg(long)]
    pub no_zeros: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Options of `bench recovery`.
#[derive(Clone, Debug, Args)]
pub struct RecoveryArgs {
    /// Directory for the store; a temporary one if not given.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// A store that is kept: it is filled when the directory is empty, and used as it is otherwise.
    #[arg(long, value_name = "DIR", conflicts_with = "dir")]
    pub store: Option<PathBuf>,
    /// Measure the takeover by a standby too.
    #[arg(long)]
    pub warm: bool,
    /// Messages to fill the store with.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub messages: u64,
    /// Size of a message's body.
    #[arg(long, value_name = "BYTES", default_value_t = 1_024)]
    pub size: usize,
    /// Queues that the messages are spread over.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub queues: usize,
    /// Share of the messages that are received and settled before the kill, at random.
    #[arg(long, value_name = "P", default_value_t = 30, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub acked_percent: u8,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// How a tool calls a server by TLS: for amqps:// URLs.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// Certificates that issued the server's certificate, PEM or DER; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub ssl_trusted: Vec<PathBuf>,
    /// Certificate of the client: PEM, DER or PKCS#12.
    #[arg(long, value_name = "FILE")]
    pub ssl_identity: Option<PathBuf>,
    /// Private key of the client, if it is not in the identity's file.
    #[arg(long, value_name = "FILE", requires = "ssl_identity")]
    pub ssl_key: Option<PathBuf>,
    /// Certificates between the client's and its root; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub ssl_issuer: Vec<PathBuf>,
    /// File whose first line is the password of the key or of the PKCS#12 file.
    #[arg(long, value_name = "FILE")]
    pub ssl_password_file: Option<PathBuf>,
    /// Name that the server's certificate must have, if not the host of the URL.
    #[arg(long, value_name = "NAME")]
    pub ssl_hostname: Option<String>,
    /// Cipher suites that may be used, with `:` between them.
    #[arg(long, value_name = "LIST")]
    pub ssl_ciphers: Option<String>,
    /// Believe any certificate: for tests only.
    #[arg(long)]
    pub ssl_noverifyhost: bool,
    /// Do not compare the name in the server's certificate.
    #[arg(long)]
    pub ssl_noverifyhostname: bool,
}

/// Who a tool is to a server.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Login")]
pub struct LoginArgs {
    /// The user, if the URL does not name it; anonymous if neither does.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// File whose first line is the user's password.
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
}

/// Options that every client benchmark has.
#[derive(Clone, Debug, Args)]
pub struct ClientArgs {
    /// The broker to measure; a server of our own in a temporary directory if not given.
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// Directory for the own server's store and the raw file that the disk is measured with.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Size of a message's body.
    #[arg(long, value_name = "BYTES", default_value_t = 1_024)]
    pub size: usize,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
    /// Who we are.
    #[command(flatten)]
    pub login: LoginArgs,
    /// How to call an amqps:// server.
    #[command(flatten)]
    pub tls: TlsArgs,
}

/// Options of `bench throughput`.
#[derive(Clone, Debug, Args)]
pub struct ThroughputArgs {
    /// Broker, directory, size, output.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Connections that send.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub senders: usize,
    /// Connections that receive.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub receivers: usize,
    /// Queues that the connections are spread over.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub queues: usize,
    /// Messages that each sender has in flight; 1: each waits for its confirm before the next.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub window: usize,
    /// Duration of the measurement.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub seconds: u64,
    /// Stop after so many messages instead.
    #[arg(long, value_name = "N")]
    pub messages: Option<u64>,
}

/// Options of `bench latency`.
#[derive(Clone, Debug, Args)]
pub struct LatencyArgs {
    /// Broker, directory, size, output.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Duration of the measurement.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub seconds: u64,
    /// Stop after so many messages instead.
    #[arg(long, value_name = "N")]
    pub messages: Option<u64>,
}

/// Options of `bench fill`.
#[derive(Clone, Debug, Args)]
pub struct FillArgs {
    /// Broker, directory, size, output.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Messages to send.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub messages: u64,
    /// Queues that the messages are spread over.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub queues: usize,
    /// Connections that send.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub senders: usize,
    /// Messages that each connection has in flight.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub window: usize,
}

/// The parameters that have an effect, for the long help of `serve`.
fn parameters_help() -> String {
    let mut text = "Parameters (in the configuration file, or --set NAME=VALUE):".to_owned();
    for row in PARAMETERS.iter().filter(|row| row.support == Support::Full) {
        let default = if row.default.is_empty() {
            "none"
        } else {
            row.default
        };
        let kind = row.kind.describe();
        text.push_str(&format!("\n  {} ({kind}; default {default})", row.name));
        text.push_str(&wrapped(row.help));
    }
    text
}

/// A paragraph of lines of at most 80 columns, indented.
fn wrapped(text: &str) -> String {
    let mut paragraph = String::new();
    let mut column = usize::MAX;
    for word in text.split_whitespace() {
        if column.saturating_add(word.len() + 1) > 80 {
            paragraph.push_str("\n     ");
            column = 5;
        }
        paragraph.push(' ');
        paragraph.push_str(word);
        column += word.len() + 1;
    }
    paragraph
}
