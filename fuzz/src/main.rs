//! `steadfast-fuzz <target> [seed]`, `smoke`, `list`.
#![allow(
    clippy::disallowed_methods,
    reason = "a run is bounded by real time, and a fresh seed comes from outside"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use steadfast_fuzz::{Target, run, targets};

/// Feeds hostile input to Steadfast.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  steadfast-fuzz smoke\n  steadfast-fuzz recover --seconds 3600\n  steadfast-fuzz recover 4711"
)]
struct Arguments {
    /// A target's name, `smoke` for a brief run of all, or `list`.
    target: String,
    /// Repeats one input; without it a fresh seed is chosen and printed.
    seed: Option<u64>,
    /// How long to go on, in seconds, when no seed is given.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

fn report(target: &Target, outcome: Result<(), (u64, String)>) -> bool {
    match outcome {
        Ok(()) => true,
        Err((seed, text)) => {
            eprintln!("{} FAILED: {text}", target.name);
            eprintln!(
                "repeat it with: cargo run --release -p steadfast-fuzz -- {} {seed}",
                target.name
            );
            false
        }
    }
}

fn smoke(all: &[Target]) -> bool {
    let mut good = true;
    let fresh = fastrand::u64(..1 << 48);
    println!("fresh seed: {fresh}");
    for target in all {
        let fixed = run(target, 1, target.brief);
        let outcome = fixed.and_then(|()| run(target, fresh, target.brief / 2));
        if target.name == "canary" {
            let heard = outcome.is_err();
            println!(
                "{:<16} {}",
                target.name,
                if heard {
                    "fails, as it must"
                } else {
                    "IS SILENT"
                }
            );
            good &= heard;
        } else {
            let fine = report(target, outcome);
            println!(
                "{:<16} {} inputs, {}",
                target.name,
                target.brief * 3 / 2,
                if fine { "ok" } else { "FAILED" }
            );
            good &= fine;
        }
    }
    good
}

fn go_on(target: &Target, seconds: u64) -> bool {
    let seed = fastrand::u64(..1 << 48);
    println!("{}: {}; first seed {seed}", target.name, target.about);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut next, mut inputs) = (seed, 0_u64);
    while Instant::now() < end {
        if !report(target, run(target, next, 100)) {
            return false;
        }
        next += 100;
        inputs += 100;
    }
    println!("{inputs} inputs, no failure");
    true
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let all = targets();
    std::panic::set_hook(Box::new(|_| ()));
    let good = match arguments.target.as_str() {
        "list" => {
            for target in &all {
                println!("{:<16} {}", target.name, target.about);
            }
            true
        }
        "smoke" => smoke(&all),
        name => match (
            all.iter().find(|target| target.name == name),
            arguments.seed,
        ) {
            (None, _) => {
                eprintln!("there is no target {name}: see `steadfast-fuzz list`");
                return ExitCode::from(2);
            }
            (Some(target), Some(seed)) => report(target, run(target, seed, 1)),
            (Some(target), None) => go_on(target, arguments.seconds),
        },
    };
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
