//! `steadfast serve`.

use std::backtrace::Backtrace;
use std::path::Path;
use std::sync::Arc;
use std::{fs, panic, process};

use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::args::ServeArgs;
use super::complain;
use crate::config::companions::{self, Companions};
use crate::config::{Config, Given, MainFile, load};
use crate::net::server::Reload;
use crate::net::{log, server};
use crate::role::Exit;

/// Checks everything, then runs the server until it ends.
pub(super) fn run(arguments: &ServeArgs) -> Exit {
    if arguments.exit_with_parent {
        // `demo` and `bench` kill their servers themselves; this is for when they are killed.
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    }
    let (given, config, companions) = match configure(arguments) {
        Ok(all) => all,
        Err(text) => {
            complain(&text);
            return Exit::Usage;
        }
    };
    let logfile = config.logfile.clone().map(|path| log::LogFileOptions {
        path,
        bytes_max: config.logfile_bytes_max,
        count_max: config.logfile_count_max,
    });
    if let Err(error) = log::init(arguments.log_format.into(), logfile) {
        let path = config
            .logfile
            .as_deref()
            .unwrap_or_else(|| Path::new("standard error"));
        complain(&format!(
            "logfile: {} cannot be opened: {error}",
            path.display()
        ));
        return Exit::Usage;
    }
    for warning in &config.warnings {
        server::log_warning(warning);
    }
    end_on_panic();
    let has_logfile = config.logfile.is_some();
    let again = arguments.clone();
    let reload: Reload =
        Arc::new(move || configure(&again).map(|(_, config, companions)| (config, companions)));
    let (exit, reason) = server::run(given, config, companions, reload);
    if exit == Exit::Done {
        tracing::info!(
            event = "stopped",
            exit_code = exit.code(),
            "stopped in order"
        );
    } else {
        tracing::error!(event = "ended", exit_code = exit.code(), "{reason}");
        if has_logfile {
            // Whoever started the server looks at its terminal first.
            complain(&reason);
        }
    }
    exit
}

/// A bug in any thread ends the process: its standby takes over, and nothing goes on half alive.
fn end_on_panic() {
    panic::set_hook(Box::new(|info| {
        let backtrace = Backtrace::force_capture();
        tracing::error!(event = "panicked", "{info}; {backtrace}");
        process::exit(i32::from(Exit::Failed.code()));
    }));
}

/// The configuration that the options describe.
pub(super) fn configure(arguments: &ServeArgs) -> Result<(Given, Config, Companions), String> {
    let file = arguments.config.as_deref().map(read).transpose()?;
    let given = Given {
        file,
        data: arguments.data.clone(),
        listen: arguments.listen.clone(),
        set: arguments.set.clone(),
        is_secondary: arguments.secondary,
    };
    let mut config = load(&given).map_err(|faults| faults.to_string())?;
    let read = companions::read(&config, &|path| fs::read(path));
    let (companions, warnings) = read.map_err(|faults| faults.to_string())?;
    config.warnings.extend(warnings);
    Ok((given, config, companions))
}

/// Reads a configuration file.
pub(super) fn read(path: &Path) -> Result<MainFile, String> {
    let bytes = fs::read(path)
        .map_err(|error| format!("configuration file {}: {error}", path.display()))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = error
            .as_bytes()
            .get(..error.utf8_error().valid_up_to())
            .unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("{}:{line}: not UTF-8 text", path.display())
    })?;
    Ok(MainFile {
        path: path.to_owned(),
        text,
    })
}
