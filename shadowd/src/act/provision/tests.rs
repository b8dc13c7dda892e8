//! Acts on real files: done, refused, undone, cut off.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;
use crate::facts::{FileFact, FileKind};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("shadowd-provision-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join("dir")).unwrap();
        fs::create_dir_all(path.join("etc")).unwrap();
        Self(path)
    }

    fn dir(&self) -> PathBuf {
        self.0.join("dir")
    }

    fn etc(&self, name: &str) -> String {
        self.0.join("etc").join(name).to_string_lossy().into_owned()
    }

    /// Plans and provisions.
    fn provision(&self, acts: &[Act]) -> Vec<Entry> {
        fs::write(self.dir().join(PLAN), serde_json::to_vec(acts).unwrap()).unwrap();
        provision(&self.dir()).unwrap();
        journal(&self.dir()).unwrap()
    }

    /// An act that gives a path this content, which is in the folder of the plan.
    fn copy(&self, name: &str, content: &[u8], mode: u32) -> Act {
        let hash = ValueHash::from(blake3::hash(content));
        fs::write(content_file(&self.dir(), &hash), content).unwrap();
        let kind = FileKind::Regular {
            hash,
            size: content.len() as u64,
            replicated: true,
        };
        self.fact(name, kind, mode)
    }

    fn fact(&self, name: &str, kind: FileKind, mode: u32) -> Act {
        let meta = fs::metadata(&self.0).unwrap();
        Act::Copy {
            path: self.etc(name),
            fact: FileFact {
                kind,
                owner: meta.uid().to_string(),
                group: meta.gid().to_string(),
                mode,
            },
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn failures(entries: &[Entry]) -> Vec<String> {
    let failed = entries.iter().filter_map(|entry| match entry {
        Entry::End { failed, .. } | Entry::Undone { failed, .. } => failed.clone(),
        Entry::Begin { .. } => None,
    });
    failed.collect()
}

#[test]
fn files_links_and_directories_come_and_go_again() {
    let folder = Folder::new("files");
    let (old, link) = (folder.etc("old"), folder.etc("link"));
    fs::write(&old, "as it was").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("before", &link).unwrap();
    let target = FileKind::Link {
        target: "after".into(),
    };
    let acts = [
        folder.fact("sub", FileKind::Directory, 0o750),
        folder.copy("old", b"new content", 0o600),
        folder.copy("sub/fresh", b"fresh", 0o444),
        folder.fact("link", target, 0o777),
        Act::Mode {
            path: folder.etc("sub"),
            mode: 0o700,
        },
    ];
    let entries = folder.provision(&acts);
    assert_eq!((entries.len(), failures(&entries)), (10, Vec::new()));
    let mode = |path: &str| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(fs::read(&old).unwrap(), b"new content");
    assert_eq!((mode(&old), mode(&folder.etc("sub/fresh"))), (0o600, 0o444));
    assert_eq!(mode(&folder.etc("sub")), 0o700);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("after"));
    undo(&folder.dir()).unwrap();
    assert_eq!(
        failures(&journal(&folder.dir()).unwrap()),
        Vec::<String>::new()
    );
    assert_eq!(fs::read(&old).unwrap(), b"as it was");
    assert_eq!(mode(&old), 0o640);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("before"));
    assert!(!Path::new(&folder.etc("sub")).exists());
    // What was undone is not undone again.
    let before = journal(&folder.dir()).unwrap().len();
    undo(&folder.dir()).unwrap();
    assert_eq!(journal(&folder.dir()).unwrap().len(), before);
}

#[test]
fn what_fails_is_told_and_the_others_are_done() {
    let folder = Folder::new("fails");
    let Act::Copy { path, mut fact } = folder.copy("spoiled", b"right", 0o644) else {
        panic!("it copies");
    };
    if let FileKind::Regular { hash, .. } = &fact.kind {
        fs::write(content_file(&folder.dir(), hash), "wrong").unwrap();
    }
    let spoiled = Act::Copy {
        path: path.clone(),
        fact: fact.clone(),
    };
    fact.owner = "no-such-account".into();
    let stranger = Act::Copy { path, fact };
    let missing = Act::Mode {
        path: folder.etc("missing"),
        mode: 0o600,
    };
    let good = folder.copy("good", b"good", 0o644);
    let entries = folder.provision(&[spoiled, stranger, missing, good]);
    let failures = failures(&entries);
    assert_eq!(failures.len(), 3, "{failures:?}");
    assert!(
        failures[0].contains("not the one of the active"),
        "{failures:?}"
    );
    assert!(
        failures[1].contains("no account no-such-account"),
        "{failures:?}"
    );
    assert!(failures[2].contains("missing"), "{failures:?}");
    assert_eq!(fs::read(folder.etc("good")).unwrap(), b"good");
    assert!(!Path::new(&folder.etc("spoiled")).exists());
    let left = fs::read_dir(folder.0.join("etc")).unwrap().count();
    assert_eq!(left, 1, "nothing half made stays");
}

#[test]
fn a_journal_that_was_cut_off_is_read_as_far_as_it_goes() {
    let folder = Folder::new("cut");
    let entries = folder.provision(&[folder.copy("one", b"1", 0o644)]);
    assert_eq!(entries.len(), 2);
    let path = folder.dir().join(JOURNAL);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() - 3]).unwrap();
    let entries = journal(&folder.dir()).unwrap();
    assert_eq!(entries.len(), 1);
    // The act began: it is undone.
    undo(&folder.dir()).unwrap();
    assert!(!Path::new(&folder.etc("one")).exists());
    let entries = journal(&folder.dir()).unwrap();
    assert!(
        matches!(
            entries[1],
            Entry::Undone {
                number: 0,
                failed: None
            }
        ),
        "{entries:?}"
    );
}

#[test]
fn a_link_that_one_act_makes_is_no_way_out_for_the_next() {
    let folder = Folder::new("escape");
    let outside = folder.0.join("outside");
    fs::create_dir(&outside).unwrap();
    let target = outside.to_str().unwrap().to_owned();
    let link = folder.fact("link", FileKind::Link { target }, 0o777);
    let through = folder.copy("link/authorized_keys", b"mine", 0o600);
    let entries = folder.provision(&[link, through]);
    let failed = |entry: &Entry| match entry {
        Entry::End { failed, .. } => failed.clone(),
        _ => None,
    };
    let said: Vec<String> = entries.iter().filter_map(failed).collect();
    assert_eq!(said.len(), 1, "{entries:?}");
    assert!(said[0].contains("is behind a link"), "{said:?}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn nothing_is_put_where_a_package_that_failed_may_belong() {
    let folder = Folder::new("lacking");
    let package = "no-such-package".to_owned();
    let (inside, beside) = ("new/app.conf", "app.conf");
    let copy = |name: &str| folder.copy(name, b"1", 0o644);
    let refused = before_package(&copy(inside), Some(&package)).unwrap_err();
    assert!(refused.to_string().contains("no-such-package"), "{refused}");
    assert!(before_package(&copy(beside), Some(&package)).is_ok());
    assert!(before_package(&copy(inside), None).is_ok());
}

/// A version may make a link, and the next one say that a directory is there: what the link leads to
/// stays as it is.
#[test]
fn no_mode_is_set_through_a_link() {
    let folder = Folder::new("through");
    let outside = folder.0.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o700)).unwrap();
    let link = folder.etc("link");
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    let (path, mode) = (link.clone(), 0o777);
    let acts = [
        folder.fact("link", FileKind::Directory, mode),
        Act::Mode { path, mode },
    ];
    let said = failures(&folder.provision(&acts));
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said.iter().all(|why| why.contains("it is a link")),
        "{said:?}"
    );
    // Nor does a file get the mode of a directory.
    fs::write(folder.etc("file"), "1").unwrap();
    let file = folder.fact("file", FileKind::Directory, 0o2777);
    let said = failures(&Folder::new("file").provision(&[file]));
    assert!(said[0].contains("not a directory"), "{said:?}");
    assert_eq!(fs::metadata(&outside).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::read_link(&link).unwrap(), outside);
}

/// A member that was taken over would else have a shell of root here.
#[test]
fn no_other_host_brings_a_program_that_runs_as_its_owner() {
    let folder = Folder::new("privilege");
    let plain = folder.etc("plain");
    fs::write(&plain, "1").unwrap();
    let mode = |path: &str, mode| Act::Mode {
        path: path.to_owned(),
        mode,
    };
    let own = |path: &str| Act::Own {
        path: path.to_owned(),
        owner: nix::unistd::getuid().to_string(),
        group: nix::unistd::getgid().to_string(),
    };
    let acts = [
        folder.copy("suid", b"1", 0o4755),
        folder.copy("sgid", b"1", 0o2755),
        mode(&plain, 0o4755),
    ];
    let said = failures(&folder.provision(&acts));
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(
        said.iter().all(|why| why.contains("set-user-id")),
        "{said:?}"
    );
    assert!(!Path::new(&folder.etc("suid")).exists());
    // One that has it keeps it, but gets no other owner by it.
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o4755)).unwrap();
    let said = failures(&Folder::new("kept").provision(&[mode(&plain, 0o4711), own(&plain)]));
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(fs::metadata(&plain).unwrap().mode() & 0o7777, 0o4711);
    // Directories may hand their group on.
    let shared = folder.fact("shared", FileKind::Directory, 0o2775);
    assert_eq!(failures(&Folder::new("dirs").provision(&[shared])), [""; 0]);
}

/// Packages, their policy of starts and kernel parameters are the host's, not a group's.
#[test]
fn a_run_waits_for_the_one_of_another_group() {
    let root = Folder::new("alone");
    let [one, other] = ["web/1", "db/1"].map(|name| root.0.join(name));
    for dir in [&one, &other] {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join(PLAN), "[]").unwrap();
    }
    let held = alone(&one).unwrap();
    let run = std::thread::spawn(move || provision(&other).map(|()| other));
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_millis(100) {
        assert!(!run.is_finished(), "it did not wait");
        std::thread::yield_now();
    }
    drop(held);
    let other = run.join().unwrap().unwrap();
    assert!(journal(&other).unwrap().is_empty());
}
