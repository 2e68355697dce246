//! Everything that invents input. Each target takes bytes that nobody vouches for; a target that
//! panics, hangs or breaks its promise has found a fault. Any failure is repeated from its seed.

mod crash;
mod damage;
mod hosts;
mod login;
mod stack;
mod store;
pub mod sweep;
mod wire;
mod workload;

/// Inputs that once broke something: target, what it was, the bytes. Those of `repair` are seeds.
const CORPUS: &[(&str, &str, &[u8])] = &[
    (
        "repair",
        "an-index-names-a-damaged-message",
        include_bytes!("../corpus/repair/an-index-names-a-damaged-message"),
    ),
    (
        "repair",
        "a-segment-is-cut-short-below-a-checkpoint",
        include_bytes!("../corpus/repair/a-segment-is-cut-short-below-a-checkpoint"),
    ),
    (
        "repair",
        "a-checkpoint-proves-more-than-a-quiet-tail",
        include_bytes!("../corpus/repair/a-checkpoint-proves-more-than-a-quiet-tail"),
    ),
];

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it feeds and what must hold.
    pub about: &'static str,
    /// Makes one input from a source of randomness: often a valid one, then damaged.
    pub sample: fn(&mut fastrand::Rng) -> Vec<u8>,
    /// Feeds one input; panics when the promise is broken.
    pub feed: fn(&[u8]),
    /// How many inputs the brief run of the gate feeds.
    pub brief: u32,
}

impl Target {
    pub(crate) fn new(
        name: &'static str,
        about: &'static str,
        sample: fn(&mut fastrand::Rng) -> Vec<u8>,
        feed: fn(&[u8]),
        brief: u32,
    ) -> Self {
        Self {
            name,
            about,
            sample,
            feed,
            brief,
        }
    }
}

/// All targets. `canary` fails on purpose, so that a run that cannot fail is noticed.
#[must_use]
pub fn targets() -> Vec<Target> {
    let mut targets = store::targets();
    targets.extend(crash::targets());
    targets.extend(hosts::targets());
    targets.extend(stack::targets());
    targets.extend(wire::targets());
    targets.extend(login::targets());
    targets.push(Target {
        name: "canary",
        about: "fails on the byte 0x2a: shows that failures are seen",
        sample: |random| vec![random.u8(..)],
        feed: |bytes| assert!(!bytes.contains(&0x2a), "the canary sings"),
        brief: 10_000,
    });
    targets
}

/// Prints what happens in the lives of the target `stack` from now on.
pub fn trace_on() {
    stack::trace_on();
}

/// Feeds the inputs that once broke a promise: `corpus/<target>/<what it broke>`. Gives how many there were.
///
/// # Errors
/// The file and the panic's message.
pub fn replay() -> Result<u32, (String, String)> {
    let mut count = 0;
    for (name, what, input) in CORPUS {
        let all = targets();
        let target = all.iter().find(|target| target.name == *name);
        let file = format!("{name}/{what}");
        let Some(target) = target else {
            return Err((file, "there is no such target".to_owned()));
        };
        std::panic::catch_unwind(|| (target.feed)(input))
            .map_err(|panic| (file, text_of(&*panic)))?;
        count += 1;
    }
    Ok(count)
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| Some((*panic.downcast_ref::<&str>()?).to_owned()));
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}

/// Crash points that the targets `crashes`, `hosts` and `stack` have checked in this process.
#[must_use]
pub fn crash_points() -> u64 {
    crash::points()
}

/// Recoveries of this process that used what a standby had kept of the log.
#[must_use]
pub fn warm_takeovers() -> u64 {
    crash::warm_points()
}

/// Feeds `count` inputs made from `seed`; gives the number of the input that broke the promise.
///
/// # Errors
/// The seed of the failing input and the panic's message.
pub fn run(target: &Target, seed: u64, count: u32) -> Result<(), (u64, String)> {
    for number in 0..u64::from(count) {
        let one = seed.wrapping_add(number);
        let input = (target.sample)(&mut fastrand::Rng::with_seed(one));
        let outcome = std::panic::catch_unwind(|| (target.feed)(&input));
        if let Err(panic) = outcome {
            return Err((one, text_of(&*panic)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canary_is_heard() {
        let targets = targets();
        let canary = targets
            .iter()
            .find(|target| target.name == "canary")
            .unwrap();
        assert!(run(canary, 1, canary.brief).is_err());
    }

    #[test]
    fn a_few_inputs_of_every_target_keep_their_promise() {
        for target in targets().iter().filter(|target| target.name != "canary") {
            let count = (target.brief / 50).max(5);
            if let Err((seed, text)) = run(target, 7, count) {
                panic!("{} with seed {seed}: {text}", target.name);
            }
        }
    }

    #[test]
    fn what_once_broke_a_promise_breaks_it_no_more() {
        assert_eq!(replay(), Ok(CORPUS.len() as u32));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = targets().iter().map(|target| target.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), targets().len());
    }
}
