//! The command line as it is typed.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use clap::{CommandFactory, Parser};

use super::args::{BenchCommand, Cli, Command, LogFormatArg, ServeArgs, StoreCommand};
use super::{run, serve};
use crate::role::Exit;

fn parse(line: &str) -> Result<Command, clap::Error> {
    let words = std::iter::once("steadfast").chain(line.split_whitespace());
    Cli::try_parse_from(words).map(|cli| cli.command)
}

fn code(line: &str) -> u8 {
    let words = std::iter::once("steadfast").chain(line.split_whitespace());
    run(words.map(OsString::from)).code()
}

fn serve_args(line: &str) -> ServeArgs {
    match parse(line).expect("the line is right") {
        Command::Serve(arguments) => arguments,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_of_the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_usage_exits_with_code_2() {
    for line in [
        "",
        "dance",
        "serve --dta x",
        "store inspect",
        "check-config",
        "bench",
        "bench recovery --messages 0",
        "bench fill --messages 0",
        "bench append --writers 0",
        "serve x",
    ] {
        assert_eq!(code(line), 2, "{line}");
    }
}

#[test]
fn a_bench_makes_no_directory_that_it_was_given() {
    let parent = tempfile::tempdir().expect("a directory");
    let missing = parent.path().join("missing/store");
    for bench in ["append", "space", "latency", "recovery"] {
        let line = format!("bench {bench} --dir {}", missing.display());
        assert_eq!(code(&line), 2, "{line}");
        assert!(!parent.path().join("missing").exists(), "{line}");
    }
}

#[test]
fn help_and_version_exit_with_code_0() {
    for line in ["--help", "--version", "serve --help", "bench recovery -h"] {
        assert_eq!(code(line), 0, "{line}");
    }
}

#[test]
fn every_command_has_help_with_examples() {
    fn visit(command: &mut clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        let is_group = command.has_subcommands() && path.contains(' ') && path != " steadfast";
        let help = command.render_long_help().to_string();
        assert!(is_group || help.contains("Examples:"), "{path}:\n{help}");
        assert!(command.get_about().is_some(), "{path}");
        for inner in command.get_subcommands_mut() {
            if inner.get_name() != "help" {
                visit(inner, &path);
            }
        }
    }
    visit(&mut Cli::command(), "");
}

#[test]
fn the_long_help_of_serve_lists_the_parameters_with_an_effect() {
    let mut command = Cli::command();
    let serve = command
        .find_subcommand_mut("serve")
        .expect("there is serve");
    let help = serve.render_long_help().to_string();
    for name in [
        "ft_active (URL; default none)",
        "ft_heartbeat (seconds; default 3)",
        "store_lock_poll_ms",
    ] {
        assert!(help.contains(name), "{name} in\n{help}");
    }
    assert!(
        !help.contains("msg_swapping"),
        "what has no effect is not offered"
    );
}

#[test]
fn serve_takes_what_the_surface_promises() {
    let arguments = serve_args(
        "serve --config a.conf --data d --listen tcp://127.0.0.1:1 --listen tcp://127.0.0.1:2 \
         --set ft_heartbeat=1 --set server=A --secondary --log-format json",
    );
    assert_eq!(arguments.config.as_deref(), Some(Path::new("a.conf")));
    assert_eq!(arguments.data.as_deref(), Some(Path::new("d")));
    assert_eq!((arguments.listen.len(), arguments.set.len()), (2, 2));
    assert!(arguments.secondary && arguments.log_format == LogFormatArg::Json);
}

#[test]
fn store_and_bench_take_what_the_surface_promises() {
    let Ok(Command::Store(StoreCommand::Inspect(arguments))) = parse("store inspect d --json")
    else {
        panic!("store inspect");
    };
    assert!(arguments.store.json && arguments.segment.is_none());
    let line = "bench recovery --dir d --messages 5 --size 6 --queues 7 --acked-percent 8 --json";
    let Ok(Command::Bench(command)) = parse(line) else {
        panic!("it is a bench command");
    };
    let BenchCommand::Recovery(arguments) = *command else {
        panic!("bench recovery");
    };
    assert_eq!(
        (arguments.messages, arguments.size, arguments.queues),
        (5, 6, 7)
    );
    assert_eq!(arguments.acked_percent, 8);
    assert!(parse("bench recovery --acked-percent 101").is_err());
    let line = "bench throughput --server amqp://h:1 --senders 1 --receivers 2 --seconds 3";
    let Ok(Command::Bench(command)) = parse(line) else {
        panic!("it is a bench command");
    };
    let BenchCommand::Throughput(arguments) = *command else {
        panic!("bench throughput");
    };
    assert_eq!(
        (arguments.senders, arguments.receivers, arguments.seconds),
        (1, 2, 3)
    );
    assert!(parse("bench latency --dir d").is_ok() && parse("bench fill --messages 1").is_ok());
}

#[test]
fn a_configuration_that_cannot_be_read_is_wrong_usage_and_names_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = directory.path().join("a.conf");
    let fault = serve::configure(&serve_args(&format!(
        "serve --config {}",
        missing.display()
    )))
    .expect_err("there is no file");
    assert!(
        fault.starts_with(&format!("configuration file {}: ", missing.display())),
        "{fault}"
    );

    fs::write(&missing, b"server = A\nlogfile = \xff\n").expect("a file");
    let fault = serve::configure(&serve_args(&format!(
        "serve --config {}",
        missing.display()
    )))
    .expect_err("it is no text");
    assert_eq!(fault, format!("{}:2: not UTF-8 text", missing.display()));
    assert_eq!(
        code(&format!("serve --config {}", missing.display())),
        Exit::Usage.code()
    );
}

#[test]
fn check_config_tells_right_from_wrong() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let a = file(
        "a.conf",
        "listen = tcp://127.0.0.1:1\nft_active = tcp://127.0.0.1:2\n",
    );
    let b = file(
        "b.conf",
        "listen = tcp://127.0.0.1:2\nft_active = tcp://127.0.0.1:1\n",
    );
    let other = file("c.conf", "server = C\nlisten = tcp://127.0.0.1:2\n");
    let wrong = file("d.conf", "ft_hartbeat = 3\n");
    assert_eq!(code(&format!("check-config {a}")), 0);
    assert_eq!(code(&format!("check-config {a} --peer {b}")), 0);
    assert_eq!(code(&format!("check-config {a} --peer {other}")), 2);
    assert_eq!(code(&format!("check-config {wrong}")), 2);
    assert_eq!(code(&format!("check-config {a} --peer {wrong}")), 2);
}
