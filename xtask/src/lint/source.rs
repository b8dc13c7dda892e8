//! One tracked file as the checks see it, and what they report about it.

use std::fmt;
use std::ops::Range;

use super::tokens::{Token, test_ranges, tokens};

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub path: String,
    /// Counted from 1; 0 when the finding is about the file as a whole.
    pub line: usize,
    pub what: String,
    /// Warnings are shown and do not fail the command.
    pub is_warning: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_warning { "warning" } else { "error" };
        match self.line {
            0 => write!(f, "{kind}: {}: {}", self.path, self.what),
            line => write!(f, "{kind}: {}:{line}: {}", self.path, self.what),
        }
    }
}

/// A Rust file, cut into tokens once for all checks.
pub struct SourceFile {
    /// Relative to the workspace, with forward slashes.
    pub path: String,
    pub text: String,
    pub tokens: Vec<Token>,
    tests: Vec<Range<usize>>,
}

impl SourceFile {
    pub fn new(path: &str, text: &str) -> Self {
        let tokens = tokens(text);
        let tests = test_ranges(&tokens);
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            tokens,
            tests,
        }
    }

    pub fn finding(&self, line: usize, what: String) -> Finding {
        Finding {
            path: self.path.clone(),
            line,
            what,
            is_warning: false,
        }
    }

    /// Whether the token is compiled only for tests.
    pub fn in_test(&self, index: usize) -> bool {
        let whole_file = self.path.contains("/tests/") || self.path.ends_with("/tests.rs");
        whole_file || self.tests.iter().any(|range| range.contains(&index))
    }

    /// The module path below `shadowd/src`; empty for lib.rs, `None` outside of it.
    pub fn module(&self) -> Option<Vec<String>> {
        let inside = self
            .path
            .strip_prefix("shadowd/src/")?
            .strip_suffix(".rs")?;
        let mut module: Vec<String> = inside.split('/').map(str::to_owned).collect();
        if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
            module.pop();
        }
        Some(module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_module() {
        let module = |path: &str| {
            SourceFile::new(path, "")
                .module()
                .map(|path| path.join("::"))
        };
        assert_eq!(
            module("shadowd/src/act/vip.rs").as_deref(),
            Some("act::vip")
        );
        assert_eq!(module("shadowd/src/act/mod.rs").as_deref(), Some("act"));
        assert_eq!(module("shadowd/src/lib.rs").as_deref(), Some(""));
        assert_eq!(module("xtask/src/lib.rs"), None);
    }

    #[test]
    fn a_finding_can_be_clicked() {
        let finding = SourceFile::new("a/b.rs", "").finding(7, "why".to_owned());
        assert_eq!(finding.to_string(), "error: a/b.rs:7: why");
    }
}
