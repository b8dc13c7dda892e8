//! The environment that systemd gives a unit: from its settings and its environment files, as
//! systemd.exec(5) has it. Values are hashed at once; nobody gets to see them.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// A longer environment file (bytes) is refused.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// More variables than that are cut.
const VARIABLES_MAX: usize = 1_024;

/// The variables of `settings` (`NAME=value` each), then those of the files in their order; a later
/// one wins. A file that is optional may be missing.
///
/// # Errors
/// A file cannot be read: its path and why.
pub fn environment(
    settings: &[String],
    files: &[(String, bool)],
) -> Result<BTreeMap<String, Vec<u8>>, (String, io::Error)> {
    let mut variables = BTreeMap::new();
    let mut set = |name: &str, value: Vec<u8>| {
        if variables.len() < VARIABLES_MAX || variables.contains_key(name) {
            variables.insert(name.to_owned(), value);
        }
    };
    for setting in settings {
        if let Some((name, value)) = setting.split_once('=') {
            set(name, value.as_bytes().to_vec());
        }
    }
    for (path, optional) in files {
        match read(Path::new(path)) {
            Ok(text) => {
                for (name, value) in parse(&text) {
                    set(&name, value.into_bytes());
                }
            }
            Err(error) if *optional && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err((path.clone(), error)),
        }
    }
    Ok(variables)
}

fn read(path: &Path) -> io::Result<String> {
    // Some devices do something when they are opened.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("no regular file of at most 1 MiB"));
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("no regular file of at most 1 MiB"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The assignments of an environment file. Lines that are none are left out, as systemd does.
pub(super) fn parse(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut characters = text.chars().peekable();
    while characters.peek().is_some() {
        let line_name = name(&mut characters);
        let Some(name) = line_name else {
            continue;
        };
        let value = value(&mut characters);
        found.push((name, value));
    }
    found
}

type Characters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// The name before `=`; none for a comment or a line without one, which is skipped.
fn name(characters: &mut Characters<'_>) -> Option<String> {
    let mut name = String::new();
    for next in characters.by_ref() {
        match next {
            '=' => {
                let name = name.trim();
                let legal = |c: char| c == '_' || c.is_ascii_alphanumeric();
                let begins = name.chars().next().is_some_and(|c| !c.is_ascii_digit());
                return match begins && name.chars().all(legal) {
                    true => Some(name.to_owned()),
                    false => {
                        value(characters);
                        None
                    }
                };
            }
            '\n' => return None,
            '#' | ';' if name.trim().is_empty() => {
                comment(characters);
                return None;
            }
            other => name.push(other),
        }
    }
    None
}

/// A comment goes on on the next line after a backslash.
fn comment(characters: &mut Characters<'_>) {
    let mut escaped = false;
    for next in characters.by_ref() {
        if next == '\n' && !escaped {
            return;
        }
        escaped = next == '\\' && !escaped;
    }
}

/// The value up to the end of the line: quotes are taken off, an escaped end of line is none.
fn value(characters: &mut Characters<'_>) -> String {
    let mut value = String::new();
    // Blanks at the end count only when something follows.
    let mut blanks = String::new();
    let mut begun = false;
    while let Some(next) = characters.next() {
        match next {
            '\n' => break,
            ' ' | '\t' | '\r' if begun => blanks.push(next),
            ' ' | '\t' | '\r' => {}
            '\\' => match characters.next() {
                Some('\n') | None => {}
                Some(escaped) => add(&mut value, &mut blanks, &mut begun, escaped),
            },
            '\'' | '"' => {
                value.push_str(&std::mem::take(&mut blanks));
                begun = true;
                quoted(characters, next, &mut value);
            }
            other => add(&mut value, &mut blanks, &mut begun, other),
        }
    }
    value
}

fn add(value: &mut String, blanks: &mut String, begun: &mut bool, next: char) {
    value.push_str(&std::mem::take(blanks));
    value.push(next);
    *begun = true;
}

/// What stands between quotes; in double ones a backslash escapes some characters.
fn quoted(characters: &mut Characters<'_>, quote: char, value: &mut String) {
    while let Some(next) = characters.next() {
        match next {
            _ if next == quote => return,
            '\\' if quote == '"' => match characters.next() {
                Some('\n') | None => {}
                Some(escaped @ ('"' | '\\' | '`' | '$')) => value.push(escaped),
                Some(other) => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        parse(text)
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn assignments_are_read_as_systemd_does() {
        let text = "# a comment \\\nthat goes on=1\n; another\nA=1\n  B = two words  \n\
                    C=\"quoted \\\"x\\\" \\n\"\nD='single $x \\'\nE=long \\\nline\nno assignment\n\
                    1F=bad\nG=\nH=a'b'\"c\"\n";
        assert_eq!(
            parsed(text),
            [
                pair("A", "1"),
                pair("B", "two words"),
                pair("C", "quoted \"x\" \\n"),
                pair("D", "single $x \\"),
                pair("E", "long line"),
                pair("G", ""),
                pair("H", "abc"),
            ]
        );
    }

    #[test]
    fn files_win_over_settings_and_an_optional_one_may_be_missing() {
        let path = std::env::temp_dir().join(format!("shadowd-env-{}", std::process::id()));
        std::fs::write(&path, "A=file\nB=2\n").unwrap();
        let file = path.to_string_lossy().into_owned();
        let settings = ["A=setting".to_owned(), "C=3".to_owned()];
        let missing = "/no/such/file".to_owned();
        let files = [(missing.clone(), true), (file, false)];
        let found = environment(&settings, &files).unwrap();
        let values: Vec<&[u8]> = found.values().map(Vec::as_slice).collect();
        assert_eq!(values, [b"file".as_slice(), b"2", b"3"]);
        let refused = environment(&settings, &[(missing.clone(), false)]).unwrap_err();
        assert_eq!(refused.0, missing);
        for odd in ["/dev/zero", "/"] {
            let refused = environment(&[], &[(odd.to_owned(), true)]).unwrap_err();
            assert!(refused.1.to_string().contains("no regular file"), "{odd}");
        }
        let _ = std::fs::remove_file(&path);
    }

    proptest! {
        #[test]
        fn any_text_ends(text in ".{0,400}") {
            for (name, _) in parse(&text) {
                prop_assert!(!name.is_empty());
            }
        }
    }
}
