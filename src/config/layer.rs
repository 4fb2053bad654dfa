//! Settings as they stand in files and on the command line, each with the place it came from.
//!
//! A [`Layer`] is one file or the list of `--set` arguments, flattened to dotted keys. Layers are laid over each other
//! and read by a [`Reader`], which remembers every value it handed out and in the end refuses what nobody asked for.
//! It knows no key by name: those stand in [`super`] and in `profile`. Start at [`Reader::take`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::value::Value;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    BuiltIn,
    /// A line, counted from 1, of a file; 0 means the file as a whole.
    File { path: Arc<Path>, line: usize },
    /// `--set` on the command line.
    CommandLine,
}

impl Origin {
    /// The folder relative paths are relative to: that of the file, or the working directory.
    pub fn folder(&self) -> &Path {
        match self {
            Self::File { path, .. } => path.parent().unwrap_or(Path::new("")),
            Self::BuiltIn | Self::CommandLine => Path::new(""),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::CommandLine => f.write_str("--set"),
        }
    }
}

/// Wrong configuration, as one line: file, line, key, what is wrong, what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub origin: Origin,
    /// The dotted key; empty where the file as a whole is meant.
    pub key: String,
    pub wrong: String,
    /// What would be right; empty where nothing more can be said.
    pub right: String,
}

impl ConfigError {
    /// An error at a place.
    pub fn new(
        origin: &Origin,
        key: impl Into<String>,
        wrong: impl Into<String>,
        right: impl Into<String>,
    ) -> Self {
        Self { origin: origin.clone(), key: key.into(), wrong: wrong.into(), right: right.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = format!("{}: ", self.origin);
        if !self.key.is_empty() {
            line.push_str(&format!("{}: ", self.key));
        }
        line.push_str(&self.wrong);
        if !self.right.is_empty() {
            line.push_str(&format!("; {}", self.right));
        }
        // Whatever stood in the file: the message stays one line.
        for part in line.split(['\n', '\r']).filter(|part| !part.is_empty()).enumerate() {
            write!(f, "{}{}", if part.0 == 0 { "" } else { " " }, part.1)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Looks up an environment variable; an argument so that tests need not change the process.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A value as TOML knows it.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    Text(String),
    Integer(i64),
    Float(f64),
    Switch(bool),
    List(Vec<Raw>),
    /// Only as an element of a list; tables elsewhere are taken apart into keys.
    Table,
}

impl Raw {
    /// The value for an error message.
    pub fn describe(&self) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Switch(on) => on.to_string(),
            Self::List(_) => "a list".into(),
            Self::Table => "a table".into(),
        }
    }
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub value: Raw,
    pub origin: Origin,
    /// The environment variables it names.
    pub variables: Vec<String>,
}

/// The values of one source by dotted key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layer {
    pub items: BTreeMap<String, Item>,
}

impl Layer {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, or names an environment variable that is not set.
    pub fn from_file(path: &Path, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            origin: Origin::File { path: path.into(), line: 0 },
            key: String::new(),
            wrong: format!("cannot be read: {error}"),
            right: "name a readable TOML file".into(),
        })?;
        Self::from_text(&text, path, environment)
    }

    /// Reads TOML text as if it stood in the file `path`.
    ///
    /// # Errors
    /// As [`Layer::from_file`].
    pub fn from_text(
        text: &str,
        path: &Path,
        environment: Environment<'_>,
    ) -> Result<Self, ConfigError> {
        let path: Arc<Path> = path.into();
        let at = |offset: usize| Origin::File {
            path: path.clone(),
            line: 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count(),
        };
        let table = DeTable::parse(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            ConfigError::new(&at(offset), "", error.message().trim(), "write TOML")
        })?;
        let mut layer = Self::default();
        layer.flatten("", table.get_ref(), &at, environment)?;
        Ok(layer)
    }

    /// Reads the arguments of `--set`, each `key=VALUE`; later ones win.
    ///
    /// VALUE is TOML; what is no TOML is a string.
    ///
    /// # Errors
    /// An argument has no `=` or no key.
    pub fn from_arguments(
        arguments: &[String],
        environment: Environment<'_>,
    ) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        for argument in arguments {
            let Some((key, value)) =
                argument.split_once('=').filter(|(key, _)| !key.trim().is_empty())
            else {
                return Err(ConfigError::new(
                    &Origin::CommandLine,
                    argument.clone(),
                    "has no value",
                    "write --set section.key=VALUE",
                ));
            };
            let key = key.trim();
            match DeValue::parse(value) {
                Ok(parsed) => {
                    layer.put(key, parsed.get_ref(), &|_| Origin::CommandLine, 0, environment)?;
                }
                Err(_) => {
                    let origin = Origin::CommandLine;
                    let variables = variables(value).map(str::to_owned).collect();
                    let value = Raw::Text(substitute(value, key, &origin, environment)?);
                    layer.items.insert(key.into(), Item { value, origin, variables });
                }
            }
        }
        Ok(layer)
    }

    /// Lays `upper` over this layer.
    #[must_use]
    pub fn under(mut self, upper: Self) -> Self {
        self.items.extend(upper.items);
        self
    }

    /// Takes the keys below `prefix.` out, without the prefix.
    #[must_use]
    pub fn split_off_section(&mut self, prefix: &str) -> Self {
        let dotted = format!("{prefix}.");
        let (inside, outside) = std::mem::take(&mut self.items)
            .into_iter()
            .partition(|(key, _)| key.starts_with(&dotted));
        self.items = outside;
        let inside: BTreeMap<String, Item> = inside;
        Self {
            items: inside
                .into_iter()
                .map(|(key, item)| (key[dotted.len()..].to_owned(), item))
                .collect(),
        }
    }

    fn flatten(
        &mut self,
        prefix: &str,
        table: &DeTable<'_>,
        at: &dyn Fn(usize) -> Origin,
        environment: Environment<'_>,
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = if prefix.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{prefix}.{}", name.get_ref())
            };
            self.put(&key, value.get_ref(), at, name.span().start, environment)?;
        }
        Ok(())
    }

    fn put(
        &mut self,
        key: &str,
        value: &DeValue<'_>,
        at: &dyn Fn(usize) -> Origin,
        offset: usize,
        environment: Environment<'_>,
    ) -> Result<(), ConfigError> {
        if let DeValue::Table(table) = value {
            return self.flatten(key, table, at, environment);
        }
        let origin = at(offset);
        let mut names = Vec::new();
        named_in(value, &mut names);
        let value = raw(value, key, &origin, environment)?;
        self.items.insert(key.into(), Item { value, origin, variables: names });
        Ok(())
    }
}

fn raw(
    value: &DeValue<'_>,
    key: &str,
    origin: &Origin,
    environment: Environment<'_>,
) -> Result<Raw, ConfigError> {
    Ok(match value {
        DeValue::String(text) => Raw::Text(substitute(text, key, origin, environment)?),
        DeValue::Integer(number) => Raw::Integer(
            i64::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| ConfigError::new(origin, key, format!("{number} is too large"), ""))?,
        ),
        DeValue::Float(number) => Raw::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(on) => Raw::Switch(*on),
        DeValue::Datetime(when) => Raw::Text(when.to_string()),
        DeValue::Array(elements) => Raw::List(
            elements
                .iter()
                .map(|element| raw(element.get_ref(), key, origin, environment))
                .collect::<Result<_, _>>()?,
        ),
        DeValue::Table(_) => Raw::Table,
    })
}

/// The names in `${NAME}`.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split("${").skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name)
}

fn named_in(value: &DeValue<'_>, names: &mut Vec<String>) {
    match value {
        DeValue::String(text) => names.extend(variables(text).map(str::to_owned)),
        DeValue::Array(elements) => {
            elements.iter().for_each(|element| named_in(element.get_ref(), names));
        }
        _ => {}
    }
}

/// Replaces each `${NAME}` by the environment variable NAME.
fn substitute(
    text: &str,
    key: &str,
    origin: &Origin,
    environment: Environment<'_>,
) -> Result<String, ConfigError> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let Some(end) = rest[start..].find('}') else { break };
        let name = &rest[start + 2..start + end];
        let value = environment(name).ok_or_else(|| {
            ConfigError::new(
                origin,
                key,
                format!("the environment variable {name:?} is not set"),
                format!("set it or write the value instead of ${{{name}}}"),
            )
        })?;
        result.push_str(&rest[..start]);
        result.push_str(&value);
        rest = &rest[start + end + 1..];
    }
    result.push_str(rest);
    Ok(result)
}

/// One effective setting, for `check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub key: String,
    /// As TOML would write it; secrets are replaced.
    pub value: String,
    pub origin: Origin,
    /// The environment variables the value was made of.
    pub variables: Vec<String>,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}  # {}", self.key, self.value, self.origin)?;
        for (n, name) in self.variables.iter().enumerate() {
            write!(f, "{}${{{name}}}", if n == 0 { " with " } else { ", " })?;
        }
        Ok(())
    }
}

/// Hands out values by key and remembers what it handed out.
///
/// Contract: take every key that exists, then call [`Reader::finish`], which refuses the keys nobody took.
#[derive(Debug)]
pub struct Reader {
    items: BTreeMap<String, Item>,
    origins: BTreeMap<String, Origin>,
    variables: BTreeMap<String, Vec<String>>,
    settings: Vec<Setting>,
    /// Put before keys in messages: `profile.` where the key came by `--set`.
    pub prefix: &'static str,
}

impl Reader {
    /// Reads from the merged layers.
    pub fn new(layer: Layer) -> Self {
        Self {
            items: layer.items,
            origins: BTreeMap::new(),
            variables: BTreeMap::new(),
            settings: Vec::new(),
            prefix: "",
        }
    }

    /// The value of `key`, or `default`.
    ///
    /// # Errors
    /// The value is not of the right form.
    pub fn take<T: Value>(&mut self, key: &str, default: T) -> Result<T, ConfigError> {
        let value = self.read(key)?;
        let value = value.unwrap_or(default);
        self.tell(key, value.show());
        Ok(value)
    }

    /// The value of `key` if somebody set it.
    ///
    /// # Errors
    /// The value is not of the right form.
    pub fn take_if_set<T: Value>(&mut self, key: &str) -> Result<Option<T>, ConfigError> {
        let value: Option<T> = self.read(key)?;
        let shown = value.as_ref().map_or_else(|| "(unset)".into(), Value::show);
        self.tell(key, shown);
        Ok(value)
    }

    /// Says what a key that was taken amounts to where it is not set.
    pub fn amounts_to(&mut self, key: &str, value: String) {
        if let Some(setting) = self.settings.iter_mut().find(|setting| setting.key == key) {
            setting.value = value;
        }
    }

    /// A value that must not be shown: `check` only tells that it is set.
    ///
    /// # Errors
    /// The value is no text.
    pub fn take_secret(&mut self, key: &str) -> Result<Option<String>, ConfigError> {
        let value: Option<String> = self.read(key)?;
        self.tell(key, if value.is_some() { "(secret)" } else { "(unset)" }.into());
        Ok(value)
    }

    fn tell(&mut self, key: &str, value: String) {
        let origin = self.origin(key);
        let variables = self.variables.remove(key).unwrap_or_default();
        self.settings.push(Setting { key: key.into(), value, origin, variables });
    }

    /// A value between two bounds, both allowed.
    ///
    /// # Errors
    /// The value is not of the right form or out of bounds.
    pub fn take_within<T: Value + PartialOrd>(
        &mut self,
        key: &str,
        default: T,
        least: T,
        most: T,
    ) -> Result<T, ConfigError> {
        let (low, high) = (least.show(), most.show());
        let value = self.take(key, default)?;
        if value < least || value > most {
            let wrong = format!("{} is out of bounds", value.show());
            return Err(self.wrong(key, wrong, format!("write {low} to {high}")));
        }
        Ok(value)
    }

    /// Whether a file or the command line set `key`. Only before it is taken.
    pub fn is_set(&self, key: &str) -> bool {
        self.items.contains_key(key)
    }

    /// Whether a key that was taken had been set.
    pub fn is_known(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }

    /// An error about a key that was taken, or is still there, at its place.
    pub fn wrong(
        &self,
        key: &str,
        wrong: impl Into<String>,
        right: impl Into<String>,
    ) -> ConfigError {
        ConfigError::new(&self.origin(key), self.named(key), wrong, right)
    }

    /// Refuses the keys nobody took and gives the list of settings in the order they were taken.
    ///
    /// # Errors
    /// There is a key that means nothing here. `later` names keys and sections (ending in a dot) of the interface that
    /// this version does not obey, each with the reason.
    pub fn finish(self, later: &[(&str, &str)]) -> Result<Vec<Setting>, ConfigError> {
        let Some((key, item)) = self.items.iter().next() else { return Ok(self.settings) };
        if let Some((_, why)) = later
            .iter()
            .find(|(name, _)| key == name || (name.ends_with('.') && key.starts_with(name)))
        {
            return Err(ConfigError::new(
                &item.origin,
                self.named(key),
                format!("is not supported by this version ({why})"),
                "remove it",
            ));
        }
        let near = self
            .settings
            .iter()
            .map(|setting| (distance(&setting.key, key), &setting.key))
            .min()
            .filter(|(steps, _)| *steps <= 2 + key.len() / 8)
            .map_or_else(
                || "remove it".to_owned(),
                |(_, near)| {
                    let prefix = match item.origin {
                        Origin::CommandLine => self.prefix,
                        Origin::BuiltIn | Origin::File { .. } => "",
                    };
                    format!("did you mean {prefix}{near}?")
                },
            );
        Err(ConfigError::new(&item.origin, self.named(key), "no such key", near))
    }

    fn named(&self, key: &str) -> String {
        match self.origin(key) {
            Origin::CommandLine => format!("{}{key}", self.prefix),
            Origin::BuiltIn | Origin::File { .. } => key.to_owned(),
        }
    }

    fn origin(&self, key: &str) -> Origin {
        self.items
            .get(key)
            .map(|item| &item.origin)
            .or_else(|| self.origins.get(key))
            .cloned()
            .unwrap_or(Origin::BuiltIn)
    }

    fn read<T: Value>(&mut self, key: &str) -> Result<Option<T>, ConfigError> {
        let Some(item) = self.items.remove(key) else { return Ok(None) };
        self.origins.insert(key.to_owned(), item.origin.clone());
        self.variables.insert(key.to_owned(), item.variables);
        match T::read(&item.value, &item.origin) {
            Ok(value) => Ok(Some(value)),
            Err(wrong) => Err(self.wrong(key, wrong, T::right())),
        }
    }
}

/// Steps (insert, remove, change) between two keys, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let change = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Makes `path` absolute or relative to the working directory, seen from the place that names it.
pub fn resolve(path: &str, origin: &Origin) -> PathBuf {
    let mut resolved = PathBuf::new();
    for part in origin.folder().join(path).components() {
        match part {
            // `config/../var` reads better as `var`; a leading `..` has to stay.
            std::path::Component::ParentDir
                if matches!(
                    resolved.components().next_back(),
                    Some(std::path::Component::Normal(_))
                ) =>
            {
                resolved.pop();
            }
            std::path::Component::CurDir => {}
            part => resolved.push(part),
        }
    }
    resolved
}
