//! Rules about single files: size, header, names, unsafe code, paths of one machine.

use super::Finding;
use super::source::SourceFile;
use super::tokens::{Kind, closing};

/// A file aims at this many lines.
const AIM_LINES: usize = 300;
/// A file with more lines than this must be split.
const MOST_LINES: usize = 500;
/// A function fits a screen.
const MOST_FUNCTION_LINES: usize = 70;

/// Where unsafe code may stand: the kernel side, the shared types, one syscall module a room.
const UNSAFE_PLACES: &[&str] = &[
    "shadowd-ebpf/",
    "shadowd-common/",
    "shadowd/src/observe/sys/mod.rs",
    "shadowd/src/observe/sys/maps.rs",
    "shadowd/src/observe/sys/programs.rs",
    "shadowd/src/observe/sys/resident.rs",
    "shadowd/src/act/sys.rs",
    "tests/src/load/sys.rs",
];

/// All rules for one Rust file.
pub fn check(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(size(file));
    findings.extend(header(file));
    findings.extend(name(file));
    findings.extend(functions(file));
    findings.extend(unsafe_code(file));
    findings
}

fn size(file: &SourceFile) -> Option<Finding> {
    let lines = file.text.lines().count();
    if lines <= AIM_LINES {
        return None;
    }
    let is_warning = lines <= MOST_LINES;
    let limit = if is_warning { AIM_LINES } else { MOST_LINES };
    let what = format!(
        "{lines} lines, {} is {limit}",
        if is_warning { "the aim" } else { "the most" }
    );
    Some(Finding {
        is_warning,
        ..file.finding(0, what)
    })
}

fn header(file: &SourceFile) -> Option<Finding> {
    // Attributes of the crate, such as no_std, stand before its documentation.
    let first = file
        .text
        .lines()
        .find(|line| !line.starts_with("#![") && !line.trim().is_empty());
    let missing = !first.is_some_and(|line| line.starts_with("//!"));
    missing.then(|| {
        file.finding(
            1,
            "does not start with `//!`: say what it does and why".to_owned(),
        )
    })
}

fn name(file: &SourceFile) -> Option<Finding> {
    let vague = file
        .path
        .split('/')
        .map(|part| part.trim_end_matches(".rs"))
        .find(|part| ["util", "utils", "helper", "helpers", "misc"].contains(part))?;
    Some(file.finding(
        0,
        format!("`{vague}` says nothing; name it after what it is about"),
    ))
}

fn functions(file: &SourceFile) -> Vec<Finding> {
    let tokens = &file.tokens;
    let mut findings = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let Some(name) = tokens.get(index + 1).and_then(|next| next.word()) else {
            continue;
        };
        if !token.is_word("fn") || file.in_test(index) {
            continue;
        }
        let Some(open) = body(file, index + 2) else {
            continue;
        };
        let close = closing(tokens, open).min(tokens.len() - 1);
        let lines = tokens[close].line - token.line + 1;
        if lines > MOST_FUNCTION_LINES {
            let what = format!("fn {name} has {lines} lines, the most is {MOST_FUNCTION_LINES}");
            findings.push(file.finding(token.line, what));
        }
    }
    findings
}

/// The brace that opens the body of the function whose parameters start at `index` or later;
/// `None` for a declaration without a body.
fn body(file: &SourceFile, index: usize) -> Option<usize> {
    let tokens = &file.tokens;
    let mut at = index;
    while let Some(token) = tokens.get(at) {
        match token.kind {
            Kind::Mark('{') => return Some(at),
            Kind::Mark(';') => return None,
            Kind::Mark('(' | '[') => at = closing(tokens, at),
            Kind::Word(_) | Kind::Joint | Kind::Mark(_) => {}
        }
        at += 1;
    }
    None
}

fn unsafe_code(file: &SourceFile) -> Vec<Finding> {
    if UNSAFE_PLACES
        .iter()
        .any(|place| file.path.starts_with(place))
    {
        return Vec::new();
    }
    file.tokens
        .iter()
        .filter(|token| token.is_word("unsafe"))
        .map(|token| {
            let what = format!("unsafe code belongs into {}", UNSAFE_PLACES.join(", "));
            file.finding(token.line, what)
        })
        .collect()
}

/// Paths that exist on one machine only. Any tracked text file may be asked.
pub fn machine_paths(path: &str, text: &str) -> Vec<Finding> {
    // Put together here, so that this file does not contain them itself.
    let foreign = ["work", "root"].map(|folder| format!("/{folder}/"));
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for start in &foreign {
            // Inside a longer path, as in cgroup's own trees, the folder is not the machine's.
            let inside = |at: usize| {
                line[..at]
                    .chars()
                    .next_back()
                    .is_some_and(|before| before.is_alphanumeric() || "_-.}*~".contains(before))
            };
            if line
                .match_indices(start.as_str())
                .any(|(at, _)| !inside(at))
            {
                findings.push(Finding {
                    path: path.to_owned(),
                    line: number + 1,
                    what: format!("`{start}` is a path of one machine"),
                    is_warning: false,
                });
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<Finding> {
        check(&SourceFile::new(path, text))
    }

    #[test]
    fn long_files_are_warned_about_and_then_refused() {
        let file = |lines: usize| format!("//! Why.\n{}", "\n".repeat(lines - 1));
        assert_eq!(findings("a.rs", &file(300)), []);
        assert!(matches!(&findings("a.rs", &file(301))[..], [one] if one.is_warning));
        assert!(matches!(&findings("a.rs", &file(500))[..], [one] if one.is_warning));
        assert!(matches!(&findings("a.rs", &file(501))[..], [one] if !one.is_warning));
    }

    #[test]
    fn long_functions_are_found_but_not_in_tests() {
        let function =
            |lines: usize| format!("fn long(x: [u8; 2]) {{{}}}\n", "\n".repeat(lines - 1));
        let text = |lines| format!("//! Why.\n{}", function(lines));
        assert_eq!(findings("a.rs", &text(70)), []);
        let found = findings("a.rs", &text(71));
        assert!(matches!(&found[..], [one] if one.line == 2 && one.what.contains("fn long")));
        let in_tests = format!("//! Why.\n#[cfg(test)]\nmod tests {{\n{}}}\n", function(90));
        assert_eq!(findings("a.rs", &in_tests), []);
        // Neither a declaration nor a function pointer has a body.
        assert_eq!(
            findings(
                "a.rs",
                "//! Why.\ntrait T { fn f(&self); }\ntype F = fn(u8);\n"
            ),
            []
        );
    }

    #[test]
    fn headers_and_names_are_asked_for() {
        assert_eq!(findings("a.rs", "use std::fs;\n").len(), 1);
        assert_eq!(findings("a.rs", "").len(), 1);
        assert_eq!(findings("lib.rs", "#![no_std]\n//! Why.\n"), []);
        assert_eq!(findings("shadowd/src/utils.rs", "//! Why.\n").len(), 1);
        assert_eq!(
            findings("shadowd/src/helpers/mod.rs", "//! Why.\n").len(),
            1
        );
        assert_eq!(
            findings("shadowd/src/utilities_of_state.rs", "//! Why.\n"),
            []
        );
    }

    #[test]
    fn unsafe_stands_only_where_it_may() {
        let text = "//! Not unsafe.\nfn f() { unsafe { g() } }\n";
        assert_eq!(findings("shadowd/src/act/vip.rs", text).len(), 1);
        assert_eq!(findings("xtask/src/main.rs", text).len(), 1);
        assert_eq!(findings("shadowd/src/observe/sys/mod.rs", text), []);
        assert_eq!(findings("shadowd-ebpf/src/main.rs", text), []);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let root = format!("/{}/", "root");
        assert_eq!(
            machine_paths("a.md", &format!("see {root}x and `{root}y`")).len(),
            1
        );
        assert_eq!(
            machine_paths("a.md", &format!("ok\n{root}"))
                .first()
                .map(|one| one.line),
            Some(2)
        );
        assert_eq!(
            machine_paths("a.md", &format!("/sys/fs/cgroup{root}x, $HOME/root")),
            []
        );
    }
}
