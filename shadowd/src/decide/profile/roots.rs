//! Which paths of a version that comes from a file are none of a group's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::provision::admits;
use crate::config::settings::ProfileSettings;
use crate::facts::{FileKind, Profile};

/// So many paths are named.
const NAMED_MAX: usize = 3;

/// Why a version from a file is not taken in: contents that this host does not let in, or files that are
/// neither below a configuration root nor what one of its units runs or is defined by. None: all its
/// paths are within.
pub fn refusal(profile: &Profile, rules: &ProfileSettings, roots: &[PathBuf]) -> Option<String> {
    let content = &profile.content;
    let files = content.files.iter();
    let kept_out = files.filter(|(path, fact)| {
        let replicated = matches!(
            fact.kind,
            FileKind::Regular {
                replicated: true,
                ..
            }
        );
        replicated && !admits(rules, path)
    });
    let kept_out: Vec<&String> = kept_out.map(|(path, _)| path).collect();
    if !kept_out.is_empty() {
        let named = names(&kept_out);
        return Some(format!(
            "it has contents for {named}, which `replicate` of this host does not let in"
        ));
    }
    let units = content.units.values();
    let own: BTreeSet<&String> = units
        .flat_map(|unit| unit.programs.keys().chain(&unit.defined_by))
        .collect();
    let inside = |path: &str| roots.iter().any(|root| Path::new(path).starts_with(root));
    let outside = content.files.keys();
    let outside = outside.filter(|path| !own.contains(path) && !inside(path));
    let outside: Vec<&String> = outside.collect();
    (!outside.is_empty()).then(|| {
        let named = names(&outside);
        format!(
            "it names {named}, which is below no configuration root (`paths` of [capture]) and no \
             program or definition of its units"
        )
    })
}

fn names(paths: &[&String]) -> String {
    let named = paths.iter().take(NAMED_MAX).map(|path| format!("{path:?}"));
    let named: Vec<String> = named.collect();
    match paths.len().saturating_sub(named.len()) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{FileFact, UnitProfile, ValueHash};

    fn profile(files: &[(&str, bool)]) -> Profile {
        let fact = |replicated: bool| FileFact {
            kind: FileKind::Regular {
                hash: ValueHash::from_bytes([1; 32]),
                size: 1,
                replicated,
            },
            owner: "root".into(),
            group: "root".into(),
            mode: 0o644,
        };
        let unit = UnitProfile {
            programs: [("/usr/local/bin/app".to_owned(), None)].into(),
            defined_by: ["/run/app.env".to_owned()].into(),
            ..UnitProfile::default()
        };
        let mut profile = Profile::default();
        profile.content.units.insert("app.service".into(), unit);
        let files = files
            .iter()
            .map(|(path, replicated)| ((*path).to_owned(), fact(*replicated)));
        profile.content.files = files.collect();
        profile
    }

    #[test]
    fn paths_outside_of_the_roots_are_named_and_contents_that_are_not_let_in() {
        let rules = ProfileSettings {
            replicate: vec!["/etc/app/*".parse().unwrap()],
            ..ProfileSettings::default()
        };
        let roots = [PathBuf::from("/etc"), PathBuf::from("/opt")];
        let refused = |files: &[(&str, bool)]| refusal(&profile(files), &rules, &roots);
        let good = [
            ("/etc/app/a.conf", true),
            ("/etc/other", false),
            ("/opt/x", false),
            ("/usr/local/bin/app", false),
            ("/run/app.env", false),
        ];
        assert_eq!(refused(&good), None);
        for (path, replicated, part) in [
            ("/srv/.ssh/authorized_keys", false, "no configuration root"),
            ("/etcetera/x", false, "no configuration root"),
            ("/srv/.ssh/authorized_keys", true, "does not let in"),
            ("/etc/other", true, "does not let in"),
            ("/etc/app/tls.key", true, "does not let in"),
            ("/usr/local/bin/app", true, "does not let in"),
        ] {
            let why = refused(&[("/etc/app/a.conf", true), (path, replicated)]).expect(path);
            assert!(why.contains(part) && why.contains(path), "{why}");
            assert!(!why.contains("a.conf"), "{why}");
        }
        let many: Vec<String> = (0..9).map(|at| format!("/var/{at}")).collect();
        let many: Vec<(&str, bool)> = many.iter().map(|path| (path.as_str(), false)).collect();
        assert!(refused(&many).is_some_and(|why| why.contains("and 6 more")));
    }
}
