//! The parameters as the main file has them and as the server works with them.

use std::collections::BTreeMap;

use super::{Result, Setup};
use crate::admin::{Answer, Item};
use crate::config::{Config, Parameter, given_values, load_anyway};

/// The configuration with which the server works: what it was started with, and what it has taken since.
#[derive(Clone, Debug)]
pub(in crate::net::admin) struct InEffect {
    pub(in crate::net::admin) started: Config,
    pub(in crate::net::admin) taken: Config,
}

impl InEffect {
    /// Parameters that the server has with other values than these, and its values in words.
    fn others(&self, now: &Config) -> BTreeMap<&'static str, String> {
        let of_start = now.changes(&self.started).into_iter();
        let of_start = of_start.filter(|row| !row.is_taken());
        let taken = now.changes(&self.taken).into_iter();
        let taken = taken.filter(|row| row.is_taken());
        let words = |row: &Parameter, own: &Config| match own.shown(row) {
            None => "(another secret)".to_owned(),
            Some(text) if text.is_empty() => "none".to_owned(),
            Some(text) => text,
        };
        let of_start = of_start.map(|row| (row.name, words(row, &self.started)));
        of_start
            .chain(taken.map(|row| (row.name, words(row, &self.taken))))
            .collect()
    }
}

impl Setup {
    /// The parameters that were given, and those with which the server works where these are others.
    pub(in crate::net::admin) fn show_config(&self, in_effect: &InEffect) -> Result<Answer> {
        let given = self.fresh_given()?;
        let mut others = in_effect.others(&load_anyway(&given).0);
        let shown = |value: Option<String>| value.unwrap_or_else(|| "(secret)".to_owned());
        let mut rows = Vec::new();
        for it in given_values(&given) {
            rows.push(vec![
                Item::from(it.parameter),
                shown(it.value).into(),
                it.origin.to_string().into(),
                // Once for a parameter that has several values.
                others.remove(it.parameter).into(),
            ]);
        }
        for (parameter, other) in others {
            let value = Item::Nothing;
            rows.push(vec![
                parameter.into(),
                value,
                "default".into(),
                other.into(),
            ]);
        }
        let columns = [
            ("", "parameter"),
            ("", "value"),
            ("", "origin"),
            ("", "in_effect"),
        ];
        Ok(Answer::table(&columns, rows))
    }
}
