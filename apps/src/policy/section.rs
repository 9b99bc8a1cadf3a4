//! A table of a policy file: its keys held against the schema, its values by type.

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::diagnostic::Code;
use super::report::{At, Draft, Place, Report};
use super::schema::{FILE, Schema};
use super::text::{nearest, quote};

/// One table.
pub(super) struct Section<'t> {
    table: &'t DeTable<'t>,
    /// Where it begins.
    pub(super) place: Place,
    /// What it is, as messages name it: "tenant `green`".
    pub(super) object: String,
    schema: &'static Schema,
}

impl<'t> Section<'t> {
    /// Reports the keys that no such table has.
    pub(super) fn new(
        table: &'t DeTable<'t>,
        place: Place,
        object: String,
        schema: &'static Schema,
        report: &mut Report,
    ) -> Self {
        for key in table.keys().filter(|key| !schema.names().any(|known| known == key.get_ref().as_ref())) {
            let name: &str = key.get_ref();
            let help = if let Some(meant) = nearest(name, schema.names()) {
                format!("did you mean {}? It is written like: {}", quote(meant), schema.example(meant))
            } else if let Some(other) = Schema::elsewhere(name) {
                format!("{} is a key of {}", quote(name), other.header)
            } else {
                format!("known here: {}", schema.names().collect::<Vec<_>>().join(", "))
            };
            report.push(
                Draft::error(format!("unknown key {} in {object}", quote(name)))
                    .code(Code::UnknownKey)
                    .at(Place::new(place.file, key.span()), "unknown")
                    .help(help),
            );
        }
        Self { table, place, object, schema }
    }

    /// The whole file.
    pub(super) fn file(table: &'t DeTable<'t>, file: usize, report: &mut Report) -> Self {
        Self::new(table, Place::start(file), "the policy file".into(), &FILE, report)
    }

    pub(super) fn get(&self, key: &str) -> Option<(&'t DeValue<'t>, Place)> {
        self.table.get(key).map(|value| (value.get_ref(), self.place_of(value)))
    }

    fn place_of(&self, value: &Spanned<DeValue<'_>>) -> Place {
        Place::new(self.place.file, value.span())
    }

    /// Is a list empty or not there at all?
    pub(super) fn is_empty(&self, key: &str) -> bool {
        self.get(key).is_none_or(|(value, _)| value.as_array().is_some_and(|list| list.is_empty()))
    }

    /// Where the value of a key is; without it, where the table begins.
    pub(super) fn place_of_key(&self, key: &str) -> Place {
        self.get(key).map_or_else(|| self.place.clone(), |(_, place)| place)
    }

    /// A mistake in the value of a key, with an example as help.
    pub(super) fn wrong(&self, key: &str, place: Place, expected: &str, found: &str) -> Draft {
        Draft::error(format!("{} of {} must be {expected}, not {found}", quote(key), self.object))
            .code(Code::WrongType)
            .at(place, format!("this is {found}"))
            .help(format!("write it like: {}", self.schema.example(key)))
    }

    /// A key that must be there isn't.
    pub(super) fn missing(&self, key: &str) -> Draft {
        Draft::error(format!("{} has no {}", self.object, quote(key)))
            .code(Code::MissingKey)
            .at(self.place.clone(), format!("{} is missing here", quote(key)))
            .help(format!("add: {}", self.schema.example(key)))
    }

    /// A text.
    pub(super) fn string(&self, key: &str, report: &mut Report) -> Option<At<&'t str>> {
        let (value, place) = self.get(key)?;
        if let DeValue::String(text) = value {
            return Some(At { value: text, place });
        }
        report.push(self.wrong(key, place, "a text in quotes", kind(value)));
        None
    }

    /// Is there a text, or anything else that isn't a table?
    pub(super) fn is_text(&self, key: &str) -> bool {
        self.get(key).is_some_and(|(value, _)| value.as_table().is_none())
    }

    /// A text that must be there.
    pub(super) fn required(&self, key: &str, report: &mut Report) -> Option<At<&'t str>> {
        if self.get(key).is_none() {
            report.push(self.missing(key));
        }
        self.string(key, report)
    }

    /// A whole number. What is too large for any key here becomes the largest number.
    pub(super) fn integer(&self, key: &str, report: &mut Report) -> Option<At<i64>> {
        let (value, place) = self.get(key)?;
        if let Some(Scalar::Number(value)) = scalar(value) {
            return Some(At { value, place });
        }
        report.push(self.wrong(key, place, "a whole number", kind(value)));
        None
    }

    /// A whole number between bounds.
    pub(super) fn bounded(&self, key: &str, [least, most]: [u16; 2], report: &mut Report) -> Option<u16> {
        let number = self.integer(key, report)?;
        let within = u16::try_from(number.value).ok().filter(|value| (least..=most).contains(value));
        if within.is_none() {
            report.push(
                Draft::error(format!("{} of {} is out of range", quote(key), self.object))
                    .at(number.place, "out of range")
                    .help(format!("write a number from {least} to {most}")),
            );
        }
        within
    }

    /// Yes or no.
    pub(super) fn boolean(&self, key: &str, report: &mut Report) -> Option<bool> {
        let (value, place) = self.get(key)?;
        let told = value.as_bool();
        if told.is_none() {
            report.push(self.wrong(key, place, "true or false, without quotes", kind(value)));
        }
        told
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)], report: &mut Report) -> Option<T> {
        let text = self.string(key, report)?;
        let chosen = choices.iter().find(|(word, _)| *word == text.value).map(|(_, value)| *value);
        if chosen.is_none() {
            let words: Vec<String> = choices.iter().map(|(word, _)| format!("{key} = \"{word}\"")).collect();
            report.push(
                Draft::error(format!("{} can't be the `{key}` of {}", quote(text.value), self.object))
                    .at(text.place, "not one of its values")
                    .help(format!("write {}", words.join(" or "))),
            );
        }
        chosen
    }

    /// A text or a whole number.
    pub(super) fn scalar(&self, key: &str, report: &mut Report) -> Option<At<Scalar<'t>>> {
        let (value, place) = self.get(key)?;
        if let Some(value) = scalar(value) {
            return Some(At { value, place });
        }
        report.push(self.wrong(key, place, "a text in quotes or a whole number", kind(value)));
        None
    }

    /// One text or whole number, or a list of them that isn't empty; without those items that are neither, and whether
    /// there were none of these.
    pub(super) fn scalars(&self, key: &str, report: &mut Report) -> Option<(Vec<At<Scalar<'t>>>, bool)> {
        let (value, place) = self.get(key)?;
        let DeValue::Array(list) = value else { return self.scalar(key, report).map(|one| (vec![one], true)) };
        if list.is_empty() {
            report.push(
                Draft::error(format!("{} of {} is empty", quote(key), self.object))
                    .at(place, "nothing is in it")
                    .help(format!("write it like: {}; or remove it if anything will do", self.schema.example(key))),
            );
            return None;
        }
        let mut scalars = Vec::new();
        for item in list.iter() {
            match scalar(item.get_ref()) {
                Some(value) => scalars.push(At { value, place: self.place_of(item) }),
                None => {
                    let found = kind(item.get_ref());
                    report.push(self.wrong(key, self.place_of(item), "texts in quotes or whole numbers", found));
                }
            }
        }
        let whole = scalars.len() == list.len();
        Some((scalars, whole))
    }

    /// Is the key there?
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// A list.
    pub(super) fn list(&self, key: &str, report: &mut Report) -> Option<At<&'t DeArray<'t>>> {
        let (value, place) = self.get(key)?;
        if let DeValue::Array(list) = value {
            return Some(At { value: list, place });
        }
        report.push(self.wrong(key, place, "a list", kind(value)));
        None
    }

    /// A list of texts, without those items that aren't.
    pub(super) fn strings(&self, key: &str, report: &mut Report) -> Option<At<Vec<At<&'t str>>>> {
        let list = self.list(key, report)?;
        let mut texts = Vec::new();
        for item in list.value.iter() {
            match item.get_ref() {
                DeValue::String(text) => texts.push(At { value: text.as_ref(), place: self.place_of(item) }),
                other => report.push(self.wrong(key, self.place_of(item), "a list of texts in quotes", kind(other))),
            }
        }
        Some(At { value: texts, place: list.place })
    }

    /// A list of tables, without those items that aren't; nothing if the key isn't there.
    pub(super) fn tables(&self, key: &str, report: &mut Report) -> Vec<At<&'t DeTable<'t>>> {
        let Some((value, place)) = self.get(key) else { return Vec::new() };
        let DeValue::Array(list) = value else {
            report.push(self.wrong(key, place, "a list of tables", kind(value)));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in list.iter() {
            match item.get_ref() {
                DeValue::Table(table) => tables.push(At { value: table, place: self.place_of(item) }),
                other => report.push(self.wrong(key, self.place_of(item), "a list of tables", kind(other))),
            }
        }
        tables
    }

    /// One table, or a list of tables; one at least, or that is reported.
    pub(super) fn tables_or_one(&self, key: &str, report: &mut Report) -> Vec<At<&'t DeTable<'t>>> {
        match self.get(key) {
            Some((DeValue::Table(table), place)) => vec![At { value: table, place }],
            Some((DeValue::Array(list), place)) if list.is_empty() => {
                report.push(
                    Draft::error(format!("{} of {} is empty", quote(key), self.object))
                        .at(place, "nothing is in it")
                        .help(format!("write one table at least, like: {}", self.schema.example(key))),
                );
                Vec::new()
            }
            Some(_) => self.tables(key, report),
            None => {
                report.push(self.missing(key));
                Vec::new()
            }
        }
    }

    /// One table.
    pub(super) fn table(&self, key: &str, report: &mut Report) -> Option<At<&'t DeTable<'t>>> {
        let (value, place) = self.get(key)?;
        if let DeValue::Table(table) = value {
            return Some(At { value: table, place });
        }
        let found = if self.is_repeated(value) { "a list of tables" } else { kind(value) };
        report.push(self.wrong(key, place, "one table", found));
        None
    }

    fn is_repeated(&self, value: &DeValue<'_>) -> bool {
        value.as_array().is_some_and(|list| list.iter().all(|item| item.get_ref().is_table()))
    }
}

/// How messages name an object: by its name, if it has one.
pub(super) fn object(kind: &str, key: &str, table: &DeTable<'_>, of: &str) -> String {
    let article = if kind.starts_with('i') { "an" } else { "a" };
    match table.get(key).and_then(|name| name.get_ref().as_str()).filter(|name| !name.is_empty()) {
        Some(name) => format!("{kind} {}{of}", quote(name)),
        None => format!("{article} {kind}{of}"),
    }
}

/// A value that may be a text or a number.
#[derive(Clone, Copy)]
pub(super) enum Scalar<'t> {
    Text(&'t str),
    Number(i64),
}

fn scalar<'t>(value: &'t DeValue<'t>) -> Option<Scalar<'t>> {
    match value {
        DeValue::String(text) => Some(Scalar::Text(text)),
        DeValue::Integer(number) => {
            let beyond = if number.as_str().starts_with('-') { i64::MIN } else { i64::MAX };
            Some(Scalar::Number(i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(beyond)))
        }
        _ => None,
    }
}

/// What a value is, as messages name it.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
