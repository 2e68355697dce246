//! `steadfast-fuzz <target> [seed]`, `smoke`, `list`.
#![allow(
    clippy::disallowed_methods,
    reason = "a run is bounded by real time, and a fresh seed comes from outside"
)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use clap::Parser;
use steadfast_fuzz::sweep::sweep;
use steadfast_fuzz::{Target, crash_points, replay, run, targets, trace_on, warm_takeovers};

/// Feeds hostile input to Steadfast.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  steadfast-fuzz smoke\n  steadfast-fuzz recover --seconds 3600\n  steadfast-fuzz recover 4711"
)]
struct Arguments {
    /// A target's name, `smoke` for a brief run of all, `sweep` to change every byte of a small store
    /// and cut every file at every length, or `list`.
    target: String,
    /// Repeats one input; without it a fresh seed is chosen and printed. For `sweep`: try each so many
    /// of the damages only.
    seed: Option<u64>,
    /// How long to go on, in seconds, when no seed is given.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Prints what happens in a life of `stack`, and where anything panics, to explain a failure that is
    /// repeated from its seed.
    #[arg(long)]
    trace: bool,
    /// For `sweep`: the number of the damage to begin with, as progress tells it.
    #[arg(long, default_value_t = 0)]
    first: u64,
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

/// Feeds fresh inputs on all cores until the time is over or one breaks the promise.
fn go_on(target: &Target, seconds: u64) -> bool {
    let seed = fastrand::u64(..1 << 48);
    println!("{}: {}; first seed {seed}", target.name, target.about);
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    let (next, is_good) = (AtomicU64::new(seed), AtomicBool::new(true));
    let work = || {
        while Instant::now() < end && is_good.load(Ordering::Relaxed) {
            let one = next.fetch_add(1, Ordering::Relaxed);
            if !report(target, run(target, one, 1)) {
                is_good.store(false, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    println!("{} inputs{}", next.into_inner() - seed, rate(begun));
    is_good.into_inner()
}

fn replayed() -> bool {
    match replay() {
        Ok(count) => println!("{:<16} {count} inputs, ok", "corpus"),
        Err((file, text)) => {
            eprintln!("corpus/{file} FAILED: {text}");
            return false;
        }
    }
    true
}

/// The brief run tries each so many of the damages of a sweep.
const SMOKE_STRIDE: u64 = 997;

fn swept(first: u64, stride: u64) -> bool {
    let begun = Instant::now();
    let counts = sweep(first, stride);
    println!(
        "sweep            {} unaffected, {} reported, {} set aside, {} refused, silent {}; {} repaired ({:.0} s)",
        counts.unaffected,
        counts.reported,
        counts.set_aside,
        counts.refused,
        counts.silent.len(),
        counts.repaired,
        begun.elapsed().as_secs_f64()
    );
    for silent in counts.silent.iter().take(10) {
        println!("  {silent}");
    }
    counts.silent.is_empty()
}

/// Crash points, where the target has such.
fn rate(begun: Instant) -> String {
    let points = crash_points();
    if points == 0 {
        return String::new();
    }
    let seconds = begun.elapsed().as_secs_f64();
    format!(
        ", {points} crash points, {:.0} a second, {} takeovers by a warm standby",
        points as f64 / seconds,
        warm_takeovers()
    )
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let all = targets();
    if arguments.trace {
        trace_on();
    } else {
        std::panic::set_hook(Box::new(|_| ()));
    }
    let good = match arguments.target.as_str() {
        "list" => {
            for target in &all {
                println!("{:<16} {}", target.name, target.about);
            }
            true
        }
        "smoke" => replayed() && smoke(&all) && swept(0, SMOKE_STRIDE),
        "sweep" => swept(arguments.first, arguments.seed.unwrap_or(1).max(1)),
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
