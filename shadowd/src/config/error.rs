//! Why a configuration is refused: each error names file, line, key, value and what is allowed.

use std::ops::Range;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is longer than any configuration.
    #[error("{} has {length} bytes: at most {limit} are read", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Not TOML, a key that does not exist, a missing key, or a value of another type.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What the parser says, with the offending line.
        message: String,
    },
    /// A value out of range, or one that contradicts another.
    #[error("{}:{line}: {key} = {value}: {allowed}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key with its table, such as `group.heartbeat`.
        key: &'static str,
        /// The value as written.
        value: String,
        /// What is allowed.
        allowed: String,
    },
}

impl ConfigError {
    pub(super) fn syntax(error: &toml::de::Error, text: &str, path: &Path) -> Self {
        let span = error.span().unwrap_or(0..0);
        let line = line_of(text, &span);
        let shown = text.lines().nth(line - 1).unwrap_or_default().trim();
        let message = format!("{} (in `{shown}`)", error.message());
        Self::Syntax {
            path: path.to_owned(),
            line,
            message,
        }
    }
}

/// The line, from 1, at which `span` begins.
pub(super) fn line_of(text: &str, span: &Range<usize>) -> usize {
    let before = text.get(..span.start).unwrap_or(text);
    1 + before.bytes().filter(|byte| *byte == b'\n').count()
}
