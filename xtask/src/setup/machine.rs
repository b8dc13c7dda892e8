//! What `setup` asks of the machine before it changes anything.
//!
//! A trait, so that detection is tested against machines nobody has at hand. Read only.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Read-only questions to a machine.
pub trait Machine {
    /// The full path of a program on the path or in the system's sbin folders.
    fn program(&self, name: &str) -> Option<String>;
    /// Whether the file or folder exists.
    fn exists(&self, path: &str) -> bool;
    /// Standard output of a program that exits with 0.
    fn output(&self, program: &str, arguments: &[&str]) -> Option<String>;
}

/// The machine this runs on.
pub struct Here;

impl Machine for Here {
    fn program(&self, name: &str) -> Option<String> {
        search_path()
            .into_iter()
            .map(|folder| folder.join(name))
            .find(|path| is_executable(path))
            .map(|path| path.display().to_string())
    }

    fn exists(&self, path: &str) -> bool {
        Path::new(path).exists()
    }

    fn output(&self, program: &str, arguments: &[&str]) -> Option<String> {
        let output = Command::new(program)
            .args(arguments)
            // cargo pins its own toolchain here, which would hide nightly from rustup.
            .env_remove("RUSTUP_TOOLCHAIN")
            .env("RUSTUP_AUTO_INSTALL", "0")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }
}

fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // `cargo install` writes here, and ordinary users often lack the sbin folders.
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        folders.push(Path::new(&home).join("bin"));
    }
    if let Some(home) = std::env::var_os("HOME") {
        folders.push(Path::new(&home).join(".cargo/bin"));
    }
    folders.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    folders
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
pub(super) mod fake {
    //! A machine made of answers.

    use std::collections::{BTreeMap, BTreeSet};

    use super::Machine;

    #[derive(Clone, Default)]
    pub struct Fake {
        paths: BTreeSet<String>,
        answers: BTreeMap<String, String>,
    }

    impl Fake {
        pub fn path(mut self, path: &str) -> Self {
            self.paths.insert(path.to_owned());
            self
        }

        pub fn answer(mut self, program: &str, arguments: &[&str], answer: &str) -> Self {
            self.answers
                .insert(line(program, arguments), answer.to_owned());
            self
        }
    }

    impl Machine for Fake {
        fn program(&self, name: &str) -> Option<String> {
            let path = format!("/bin/{name}");
            self.paths.contains(&path).then_some(path)
        }

        fn exists(&self, path: &str) -> bool {
            self.paths.contains(path)
        }

        fn output(&self, program: &str, arguments: &[&str]) -> Option<String> {
            self.answers.get(&line(program, arguments)).cloned()
        }
    }

    fn line(program: &str, arguments: &[&str]) -> String {
        format!("{program} {}", arguments.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_executable_files_are_programs() {
        assert!(Here.program("sh").is_some_and(|path| path.ends_with("/sh")));
        assert_eq!(Here.program("no-such-program-here"), None);
        // A folder on the path is executable too, but no program.
        assert!(!is_executable(Path::new("/usr/bin")));
    }

    #[test]
    fn a_failing_program_gives_no_answer() {
        assert_eq!(
            Here.output("sh", &["-c", "echo yes"]).as_deref(),
            Some("yes\n")
        );
        assert_eq!(Here.output("sh", &["-c", "echo yes; exit 1"]), None);
    }
}
