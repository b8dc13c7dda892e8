//! Reads the closing lines of test runners: "test result: ok. 3 passed; 0 failed; 1 ignored; ...".

/// How many tests ended which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
    /// Left out, with a reason.
    pub ignored: u64,
}

impl Tally {
    /// Adds the counts of another runner.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// The counts of a closing line; `None` for any other line.
pub fn parse(line: &str) -> Option<Tally> {
    let (_, rest) = line.trim().strip_prefix("test result:")?.split_once(". ")?;
    let count = |word: &str| {
        rest.split(';')
            .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
    };
    Some(Tally {
        passed: count("passed")?,
        failed: count("failed")?,
        ignored: count("ignored").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_read() {
        let line = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; \
                    finished in 0.01s";
        assert_eq!(
            parse(line),
            Some(Tally {
                passed: 12,
                failed: 0,
                ignored: 1
            })
        );
        let failed = "test result: FAILED. 1 passed; 2 failed\r";
        assert_eq!(
            parse(failed),
            Some(Tally {
                passed: 1,
                failed: 2,
                ignored: 0
            })
        );
    }

    #[test]
    fn other_lines_are_not() {
        for line in [
            "",
            "test a ... ok",
            "test result:",
            "test result: ok. many passed; 0 failed",
            "12 passed; 0 failed",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
