//! Values: text to numbers, flags and URLs, each refusal with what to write instead.

use super::suggest;
use super::table::Kind;
use super::url::{ListenUrl, MonitorUrl, PeerUrl};

/// A parsed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
    /// Bytes, milliseconds or a plain count, as the kind says.
    Number(u64),
    Listen(ListenUrl),
    Peer(PeerUrl),
    Monitor(MonitorUrl),
}

/// A value with its unit.
pub(super) fn show(kind: Kind, value: &Value) -> String {
    match (kind, value) {
        (_, Value::Text(text)) => text.clone(),
        (_, Value::Flag(true)) => "enabled".to_owned(),
        (_, Value::Flag(false)) => "disabled".to_owned(),
        (Kind::Bytes { .. }, Value::Number(number)) => show_bytes(*number),
        (Kind::Seconds { .. }, Value::Number(number)) => show_seconds(*number),
        (_, Value::Number(number)) => number.to_string(),
        (_, Value::Listen(url)) => url.to_string(),
        (_, Value::Peer(url)) => url.to_string(),
        (_, Value::Monitor(url)) => url.to_string(),
    }
}

pub(super) fn parse(kind: Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Text | Kind::Secret | Kind::File => Ok(Value::Text(text.to_owned())),
        Kind::Flag => parse_flag(text).map(Value::Flag),
        Kind::Count { min, max } => {
            let number = parse_whole(text, "a whole number")?;
            in_range(number, min, max, |number| number.to_string()).map(Value::Number)
        }
        Kind::Bytes { min, max } => {
            in_range(parse_bytes(text)?, min, max, show_bytes).map(Value::Number)
        }
        Kind::Seconds { min_ms, max_ms } => {
            in_range(parse_seconds(text)?, min_ms, max_ms, show_seconds).map(Value::Number)
        }
        Kind::Milliseconds { min, max } => {
            let number = parse_whole(text, "a number of milliseconds")?;
            in_range(number, min, max, |number| format!("{number} ms")).map(Value::Number)
        }
        Kind::Listen => ListenUrl::parse(text).map(Value::Listen),
        Kind::Peer => PeerUrl::parse(text).map(Value::Peer),
        Kind::Monitor => MonitorUrl::parse(text).map(Value::Monitor),
        Kind::Words(allowed) => parse_words(text, allowed).map(Value::Text),
        Kind::Trace(allowed) => parse_trace(text, allowed).map(Value::Text),
    }
}

fn parse_flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "enable" | "enabled" | "true" | "yes" | "on" => Ok(true),
        "disable" | "disabled" | "false" | "no" | "off" => Ok(false),
        _ => Err(format!(
            "`{text}` is neither yes nor no; write enabled or disabled"
        )),
    }
}

fn parse_whole(text: &str, what: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.ok_or_else(|| format!("`{text}` is not {what}; write digits only"))
}

/// Digits and an optional unit; all units are powers of 1024, as in EMS.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let fault = || format!("`{text}` is not a size; write for example 512KB, 16MB or 1GB");
    let split = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let shift = match unit.trim().to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "KB" | "KIB" => 10,
        "MB" | "MIB" => 20,
        "GB" | "GIB" => 30,
        _ => return Err(fault()),
    };
    let number: u64 = digits.parse().map_err(|_| fault())?;
    number.checked_mul(1 << shift).ok_or_else(fault)
}

/// Seconds with up to three decimals, as milliseconds.
fn parse_seconds(text: &str) -> Result<u64, String> {
    let fault = || format!("`{text}` is not a number of seconds; write for example 3 or 0.5");
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 3 {
        return Err(fault());
    }
    let whole: u64 = whole.parse().map_err(|_| fault())?;
    let thousandths: u64 = format!("{decimals:0<3}").parse().map_err(|_| fault())?;
    let whole_ms = whole.checked_mul(1_000).ok_or_else(fault)?;
    whole_ms.checked_add(thousandths).ok_or_else(fault)
}

fn parse_words(text: &str, allowed: &[&str]) -> Result<String, String> {
    for word in text.split(',') {
        if !allowed.contains(&word.trim()) {
            return Err(format!(
                "`{}` is not one of {}",
                word.trim(),
                allowed.join(", ")
            ));
        }
    }
    Ok(text.to_owned())
}

fn parse_trace(text: &str, allowed: &[&str]) -> Result<String, String> {
    for item in text.split(',').map(str::trim) {
        let name = item.strip_prefix(['+', '-']).unwrap_or(item);
        if !allowed.iter().any(|word| word.eq_ignore_ascii_case(name)) {
            let hint = suggest::hint(name, allowed);
            return Err(format!("`{name}` is not known{hint}"));
        }
    }
    Ok(text.to_owned())
}

/// Digits and a unit of time, seconds without one; in milliseconds.
pub(super) fn parse_duration(text: &str) -> Result<u64, String> {
    let fault = || format!("`{text}` is not a time; write for example 30sec, 5min or 1hour");
    let split = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let unit = unit.trim().to_ascii_lowercase();
    let (_, unit_ms) = DURATIONS
        .into_iter()
        .find(|(name, _)| *name == unit || (unit.is_empty() && *name == "sec"))
        .ok_or_else(fault)?;
    let number: u64 = digits.parse().map_err(|_| fault())?;
    number.checked_mul(unit_ms).ok_or_else(fault)
}

/// The largest unit that divides the time.
pub(super) fn write_duration(number_ms: u64) -> String {
    let fits = |(_, unit_ms): &(&str, u64)| number_ms.is_multiple_of(*unit_ms);
    let (name, unit_ms) = DURATIONS.into_iter().find(fits).unwrap_or(("msec", 1));
    format!("{}{name}", number_ms / unit_ms)
}

const DURATIONS: [(&str, u64); 5] = [
    ("day", 86_400_000),
    ("hour", 3_600_000),
    ("min", 60_000),
    ("sec", 1_000),
    ("msec", 1),
];

fn in_range(number: u64, min: u64, max: u64, show: impl Fn(u64) -> String) -> Result<u64, String> {
    if number < min {
        return Err(format!(
            "{} is too small; write {} or more",
            show(number),
            show(min)
        ));
    }
    if number > max {
        return Err(format!(
            "{} is too large; write {} or less",
            show(number),
            show(max)
        ));
    }
    Ok(number)
}

/// A size as it is written in a file.
pub(super) fn write_bytes(number: u64) -> String {
    show_bytes(number).trim_end_matches(" bytes").to_owned()
}

/// The largest unit that divides the number.
pub(super) fn show_bytes(number: u64) -> String {
    for (shift, unit) in [(30, "GB"), (20, "MB"), (10, "KB")] {
        if number >= 1 << shift && number.is_multiple_of(1 << shift) {
            return format!("{}{unit}", number >> shift);
        }
    }
    format!("{number} bytes")
}

pub(super) fn show_seconds(number_ms: u64) -> String {
    if number_ms.is_multiple_of(1_000) {
        return format!("{} s", number_ms / 1_000);
    }
    let text = format!("{}.{:03}", number_ms / 1_000, number_ms % 1_000);
    format!("{} s", text.trim_end_matches('0'))
}
