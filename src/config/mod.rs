//! Layers of configuration, and where each value comes from.
//!
//! Later layers win: the built-in defaults, `/etc/dsgd/dsgd.toml`, `~/.config/dsgd/dsgd.toml`,
//! `./dsgd.toml` (or instead of these three the files given with `--config`), then variables
//! `DSGD_SET_<SECTION>__<NAME>` of the environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::base::{Fault, Faulty};
use crate::site::Settings;

/// The lowest layer, as a commented file.
pub const DEFAULTS: &str = include_str!("../../dsgd.default.toml");

const ENVIRONMENT_PREFIX: &str = "DSGD_SET_";

/// A configuration put together from its layers.
#[derive(Clone, Default)]
pub struct Config {
    values: Table,
    /// Layer of every value, by its dotted name.
    origins: BTreeMap<String, String>,
    /// Folder that relative paths are relative to: that of the last file.
    folder: PathBuf,
}

impl Config {
    /// Reads the layers.
    ///
    /// Errors: [`Error::Unreadable`] and [`Error::Syntax`], with the file.
    pub fn load(files: &[PathBuf]) -> Result<Self, Error> {
        let mut config = Self { folder: PathBuf::from("."), ..Self::default() };
        config.add_text(DEFAULTS, "default", Path::new("built-in defaults"))?;
        if files.is_empty() {
            for path in standard_files().into_iter().filter(|path| path.exists()) {
                config.add_file(&path)?;
            }
        }
        for path in files {
            config.add_file(path)?;
        }
        config.add_environment(std::env::vars());
        Ok(config)
    }

    fn add_file(&mut self, path: &Path) -> Result<(), Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Unreadable { path: path.into(), source })?;
        self.add_text(&text, &path.display().to_string(), path)?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            self.folder = folder.into();
        }
        Ok(())
    }

    fn add_text(&mut self, text: &str, origin: &str, path: &Path) -> Result<(), Error> {
        let table: Table = text
            .parse()
            .map_err(|source| Error::Syntax { path: path.into(), source: Box::new(source) })?;
        merge(&mut self.values, table, "", origin, &mut self.origins);
        Ok(())
    }

    fn add_environment(&mut self, variables: impl Iterator<Item = (String, String)>) {
        for (name, text) in variables {
            let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let path: Vec<_> =
                rest.split("__").map(|part| part.to_lowercase().replace('_', "-")).collect();
            let value = text.parse::<i64>().map(Value::Integer);
            let value = value.or_else(|_| text.parse::<bool>().map(Value::Boolean));
            let mut value = value.unwrap_or(Value::String(text));
            for part in path.iter().rev() {
                value = Value::Table(Table::from_iter([(part.clone(), value)]));
            }
            if let Value::Table(table) = value {
                merge(&mut self.values, table, "", &name, &mut self.origins);
            }
        }
    }

    /// The settings of this site, checked.
    ///
    /// Errors: [`Error::Invalid`] names the value, the layer it came from, and the nearest name.
    pub fn settings(&self) -> Result<Settings, Error> {
        let mut settings: Settings = self
            .values
            .clone()
            .try_into()
            .map_err(|source| Error::Invalid { layers: self.layers(), source: Box::new(source) })?;
        settings.relative_to(&self.folder);
        Ok(settings)
    }

    fn layers(&self) -> String {
        let mut layers: Vec<_> = self.origins.values().cloned().collect();
        layers.sort();
        layers.dedup();
        layers.join(", ")
    }

    /// Every value as `name = value`, with its layer.
    pub fn list(&self) -> Vec<(String, String, String)> {
        let mut list = Vec::new();
        flatten(&self.values, "", &mut |name, value| {
            let origin = self.origins.get(&name).cloned().unwrap_or_default();
            list.push((name, value.to_string(), origin));
        });
        list
    }
}

fn standard_files() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    vec!["/etc/dsgd/dsgd.toml".into(), home.join(".config/dsgd/dsgd.toml"), "dsgd.toml".into()]
}

/// Puts `layer` over `values`: tables are merged, everything else is replaced.
fn merge(
    values: &mut Table,
    layer: Table,
    prefix: &str,
    origin: &str,
    origins: &mut BTreeMap<String, String>,
) {
    for (key, value) in layer {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match (values.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => {
                merge(below, above, &name, origin, origins);
            }
            (_, Value::Table(above)) => {
                let mut below = Table::new();
                merge(&mut below, above, &name, origin, origins);
                values.insert(key, Value::Table(below));
            }
            (_, value) => {
                origins.insert(name, origin.to_owned());
                values.insert(key, value);
            }
        }
    }
}

fn flatten(table: &Table, prefix: &str, each: &mut impl FnMut(String, &Value)) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => flatten(inner, &name, each),
            value => each(name, value),
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not TOML.
    #[error("configuration file {}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A value is missing, unknown or out of its range.
    #[error("configuration from {layers}")]
    Invalid {
        /// The layers it was put together from.
        layers: String,
        /// Which value, and what is expected.
        source: Box<toml::de::Error>,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        Fault::Config
    }

    fn hint(&self) -> Option<String> {
        let Error::Invalid { source, .. } = self else { return None };
        let message = source.message();
        if let Some(nearest) = nearest_name(message) {
            return Some(format!("did you mean '{nearest}'?"));
        }
        message.starts_with("missing field").then(|| {
            "name the site's file with --config; dsgd.default.toml lists every setting".to_owned()
        })
    }
}

/// The expected name nearest to the unknown one in serde's message "unknown field `x`, expected …".
fn nearest_name(message: &str) -> Option<String> {
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown").then(|| names.next()).flatten()?;
    names.map(|name| (distance(unknown, name), name)).min().map(|(_, name)| name.to_owned())
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layered(text: &str) -> Config {
        let mut config = Config::default();
        config.add_text(DEFAULTS, "default", Path::new("defaults")).unwrap();
        config.add_text(text, "test", Path::new("test.toml")).unwrap();
        config
    }

    const SITE: &str = "site = 'tommo'\nstate = 'state'\n";

    #[test]
    fn the_defaults_and_a_name_are_enough() {
        let settings = layered(SITE).settings().unwrap();
        assert_eq!(settings.owner().as_str(), "tommo");
        assert_eq!(settings.io.chunk.0, 1 << 20);
    }

    #[test]
    fn later_layers_win_and_say_where_they_are() {
        let mut config = layered(&format!("{SITE}[io]\nread-ahead = 3\n"));
        let variable = ("DSGD_SET_NET__KEY_WAIT_SECONDS".to_owned(), "5".to_owned());
        config.add_environment([variable].into_iter());
        let settings = config.settings().unwrap();
        assert_eq!((settings.io.read_ahead, settings.net.key_wait_seconds), (3, 5));
        let origin = |wanted: &str| {
            config.list().into_iter().find(|(name, ..)| name == wanted).map(|(.., origin)| origin)
        };
        assert_eq!(origin("io.read-ahead").as_deref(), Some("test"));
        assert_eq!(origin("io.direct").as_deref(), Some("default"));
        assert_eq!(
            origin("net.key-wait-seconds").as_deref(),
            Some("DSGD_SET_NET__KEY_WAIT_SECONDS")
        );
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_one() {
        let error = layered(&format!("{SITE}[io]\nread-ahed = 3\n")).settings().unwrap_err();
        assert_eq!(error.fault(), Fault::Config);
        assert_eq!(error.hint().as_deref(), Some("did you mean 'read-ahead'?"));
    }

    #[test]
    fn a_missing_key_is_named() {
        let error = layered("site = 'tommo'\n").settings().unwrap_err();
        let Error::Invalid { source, .. } = error else { panic!("{error}") };
        assert!(source.message().contains("state"));
    }
}
