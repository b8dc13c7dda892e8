//! What is begun, what is not, and what is kept. Nothing here is handed to systemd.

use std::fs;

use super::super::batches::{KEPT, KEPT_PASSING};
use super::*;
use crate::act::provision::Undo;
use crate::config::settings::{Provision, ProvisionSettings};
use crate::facts::{FileFact, FileKind, HotFile, Item, ItemKind, Verdict};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("shadowd-provisioner-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn provisioner(&self) -> Provisioner {
        Provisioner::new("web".parse().unwrap(), &self.0, BootTime::default())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn warm() -> Act {
    let hot = HotFile { size: 1, pieces: 1 };
    Act::Warm {
        unit: "app.service".into(),
        files: [("/srv/data".to_owned(), hot)].into(),
    }
}

fn copy() -> Act {
    let kind = FileKind::Regular {
        hash: ValueHash::from_bytes([7; 32]),
        size: 1,
        replicated: true,
    };
    Act::Copy {
        path: "/etc/app.conf".into(),
        fact: FileFact {
            kind,
            owner: "root".into(),
            group: "root".into(),
            mode: 0o644,
        },
    }
}

fn lacking(act: Act) -> Readiness {
    Readiness {
        group: "web".parse().unwrap(),
        items: vec![Item {
            kind: ItemKind::File,
            subject: String::new(),
            verdict: Verdict::NotReady,
            cause: String::new(),
            remedy: None,
            act: Some(act),
        }],
    }
}

fn rules() -> ProfileSettings {
    ProfileSettings {
        replicate: vec!["/etc/*".parse().unwrap()],
        provision: ProvisionSettings {
            files: Provision::Apply,
            cache: Provision::Apply,
            ..ProvisionSettings::default()
        },
        ..ProfileSettings::default()
    }
}

#[tokio::test]
async fn what_waits_for_contents_is_not_begun_on_a_host_that_was_promoted() {
    let folder = Folder::new("promoted");
    let mut provisioner = folder.provisioner();
    let (rules, now) = (rules(), BootTime::from_nanos(1));
    let policy: (_, &dyn Fn(&str) -> bool) = (&rules, &|_| true);
    let step = provisioner
        .on_turn(Some(&lacking(copy())), policy, now)
        .await;
    assert!(matches!(step, Step::Ask(wanted, _) if wanted.len() == 1));
    assert!(provisioner.gathering.is_some());
    let late = now.after(CONTENTS_WITHIN);
    let step = provisioner.on_turn(None, policy, late).await;
    assert!(matches!(step, Step::Wait));
    assert!(provisioner.gathering.is_none() && provisioner.running.is_none());
}

#[tokio::test]
async fn files_are_not_read_again_before_it_is_time() {
    let folder = Folder::new("pace");
    let mut provisioner = folder.provisioner();
    let (rules, now) = (rules(), BootTime::from_nanos(1));
    let policy: (_, &dyn Fn(&str) -> bool) = (&rules, &|_| true);
    provisioner.pace.read(now);
    let soon = now.after(Duration::from_secs(59));
    let step = provisioner
        .on_turn(Some(&lacking(warm())), policy, soon)
        .await;
    assert!(matches!(step, Step::Wait));
    assert!(provisioner.running.is_none() && provisioner.batches.numbers().unwrap().is_empty());
}

#[test]
fn batches_that_only_read_do_not_take_the_room_of_others() {
    let folder = Folder::new("kept");
    let provisioner = folder.provisioner();
    let batch = |act: &Act| {
        let dir = provisioner
            .batches
            .write(
                std::slice::from_ref(act),
                &allowed(&rules()),
                &BTreeMap::new(),
            )
            .unwrap();
        let begin = Entry::Begin {
            number: 0,
            act: act.clone(),
            undo: None,
        };
        let line = serde_json::to_string(&begin).unwrap();
        fs::write(dir.join("journal.json"), line + "\n").unwrap();
    };
    batch(&copy());
    for _ in 0..2 * KEPT {
        batch(&warm());
    }
    let kept = provisioner.batches.numbers().unwrap();
    assert_eq!(kept.first(), Some(&1), "{kept:?}");
    assert_eq!(kept.len(), 1 + KEPT_PASSING);
    for _ in 0..2 * KEPT {
        batch(&copy());
    }
    let kept = provisioner.batches.numbers().unwrap();
    assert_eq!(kept.len(), KEPT);
    assert_eq!(kept.last(), Some(&(1 + 4 * KEPT as u64)));
}

#[test]
fn taking_back_what_was_only_read_says_that_there_is_nothing() {
    let begin = |number, act, undo| Entry::Begin { number, act, undo };
    let undone = |number| Entry::Undone {
        number,
        failed: None,
    };
    let path = "/etc/app.conf".to_owned();
    let entries = [
        begin(0, copy(), Some(Undo::Remove { path })),
        begin(1, warm(), Some(Undo::Nothing)),
        undone(1),
        undone(0),
    ];
    let said = told(&entries, 2);
    assert!(said[0].starts_with("nothing to take back: "), "{said:?}");
    assert!(said[1].starts_with("undone: "), "{said:?}");
}
