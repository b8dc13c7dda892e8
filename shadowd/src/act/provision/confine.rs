//! Keeps acts on files where this host lets them: a link on the way to a path leads elsewhere.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ActError, Undo, files};
use crate::config::pattern::Glob;
use crate::facts::Act;

/// Name of the file in a batch's folder that has them; without it nothing behind a link is touched.
pub const ALLOWED: &str = "allowed.json";

/// The patterns of paths that files may come to, and of those that they may not, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// Where they may.
    pub replicate: Vec<String>,
    /// Where they may not all the same.
    pub secret: Vec<String>,
}

impl Allowed {
    /// Those of the batch in `dir`.
    pub(super) fn of(dir: &Path) -> io::Result<Self> {
        let path = dir.join(ALLOWED);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let path = path.display();
                let remedy = "write the patterns there that files may come to, as configured";
                io::Error::other(format!("{path} is damaged ({error}): {remedy}"))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn admits(&self, path: &str) -> bool {
        let matches = |patterns: &[String]| {
            let mut globs = patterns.iter().filter_map(|text| text.parse::<Glob>().ok());
            globs.any(|glob| glob.matches(path))
        };
        matches(&self.replicate) && !matches(&self.secret)
    }

    /// [`Self::check`] of the path that an act changes, if it changes one.
    pub(super) fn check_act(&self, act: &Act) -> Result<(), ActError> {
        act.path().map_or(Ok(()), |path| self.check(path))
    }

    /// The same of the path that is brought back.
    pub(super) fn check_undo(&self, undo: &Undo) -> Result<(), ActError> {
        undo.path().map_or(Ok(()), |path| self.check(path))
    }

    /// Whether an act on `path` stays where the plan was allowed to act: either no folder on the way is a
    /// link, or what is behind the link is allowed itself. A member that was taken over could else put a
    /// link into an allowed place first, and write through it next.
    fn check(&self, path: &str) -> Result<(), ActError> {
        let at = Path::new(path);
        let real = real(at).map_err(|source| files::failed(at, source))?;
        let inside = real == at || real.to_str().is_some_and(|real| self.admits(real));
        match inside {
            true => Ok(()),
            false => Err(ActError::Elsewhere {
                path: path.to_owned(),
                real,
            }),
        }
    }
}

/// Where `path` is when all links on the way to it are followed, but for the last name. Folders that are
/// not there yet are made as they are named.
fn real(path: &Path) -> io::Result<PathBuf> {
    let mut names = Vec::new();
    let mut at = path;
    while let Some(parent) = at.parent() {
        names.push(at.file_name().unwrap_or_default());
        match fs::canonicalize(parent) {
            Ok(parent) => {
                let names = names.iter().rev();
                return Ok(names.fold(parent, |folder, name| folder.join(name)));
            }
            // A link that leads nowhere is there all the same.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && fs::symlink_metadata(parent).is_err() =>
            {
                at = parent;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("shadowd-confine-{name}-{}", std::process::id());
            let path = std::env::temp_dir().canonicalize().unwrap().join(name);
            fs::create_dir_all(path.join("in")).unwrap();
            fs::create_dir_all(path.join("out")).unwrap();
            Self(path)
        }

        fn path(&self, name: &str) -> String {
            self.0.join(name).to_str().unwrap().to_owned()
        }

        fn allowed(&self) -> Allowed {
            Allowed {
                replicate: vec![self.path("in/*")],
                secret: vec!["*.key".to_owned()],
            }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn no_link_leads_out_of_what_is_allowed() {
        let folder = Folder::new("out");
        let allowed = folder.allowed();
        symlink(folder.path("out"), folder.path("in/link")).unwrap();
        symlink("link", folder.path("in/again")).unwrap();
        for name in ["in/link/x", "in/again/x", "in/link/new/x"] {
            let refused = allowed.check(&folder.path(name));
            assert!(
                matches!(refused, Err(ActError::Elsewhere { .. })),
                "{name}: {refused:?}"
            );
        }
        // The link itself may be replaced.
        assert!(allowed.check(&folder.path("in/link")).is_ok());
    }

    #[test]
    fn folders_and_links_within_are_no_matter() {
        let folder = Folder::new("in");
        let allowed = folder.allowed();
        fs::create_dir(folder.0.join("in/real")).unwrap();
        symlink(folder.path("in/real"), folder.path("in/link")).unwrap();
        for name in ["in/x", "in/new/x", "in/real/x", "in/link/x"] {
            assert!(allowed.check(&folder.path(name)).is_ok(), "{name}");
        }
        let secret = allowed.check(&folder.path("in/link/a.key"));
        assert!(matches!(secret, Err(ActError::Elsewhere { .. })));
        assert!(Allowed::default().check(&folder.path("in/real/x")).is_ok());
    }

    #[test]
    fn a_link_that_leads_nowhere_is_no_way() {
        let folder = Folder::new("nowhere");
        symlink(folder.path("gone"), folder.path("in/link")).unwrap();
        let refused = folder.allowed().check(&folder.path("in/link/x"));
        assert!(refused.is_err(), "{refused:?}");
    }
}
