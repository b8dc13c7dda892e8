//! What is different between two profiles, for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that is different, by the names that people use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// What it is of: `unit nginx.service`, `package nginx`, `/etc/nginx/nginx.conf`.
    pub subject: String,
    /// What of it: `port tcp 80`, `mode`, `version`; empty for all of it.
    pub part: String,
    /// As it was; none when it was not there.
    pub before: Option<String>,
    /// As it is; none when it is gone.
    pub after: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject)?;
        if !self.part.is_empty() {
            write!(f, ": {}", self.part)?;
        }
        match (&self.before, &self.after) {
            (None, None) => Ok(()),
            (None, Some(after)) if after.is_empty() => f.write_str(" is new"),
            (None, Some(after)) => write!(f, " is new: {after}"),
            (Some(_), None) => f.write_str(" is gone"),
            (Some(before), Some(after)) => write!(f, " was {before}, is {after}"),
        }
    }
}
