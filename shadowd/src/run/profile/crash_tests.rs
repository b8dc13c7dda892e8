//! A process that keeps versions and is killed at any moment: what it acknowledged is there, whole.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::bench::{Folder, NOW, fact, hash, profile, signed};
use super::keeper::{found, whole};
use super::*;
use crate::decide::profile::replica::Replica;
use crate::facts::{Place, Reason};
use crate::link::signature::verify;

const CHILD_DIR: &str = "SHADOWD_TEST_PROFILE_DIR";

fn web() -> Name {
    "web".parse().unwrap()
}

fn content(number: u64) -> Vec<u8> {
    format!("content {number} ").repeat(300).into_bytes()
}

/// What a store has of the group.
fn replica(store: &ProfileStore) -> Replica {
    let mut replica = Replica::new(Vec::new(), [], NOW);
    for (id, whole) in found(store, &web()) {
        match whole {
            Some(kept) => replica.on_version(kept.place, kept.parent, NOW),
            None => replica.on_damage(id, NOW),
        }
    }
    replica
}

/// Runs only as the child of the test below: keeps versions, what they name and what was learned, one
/// after the other, until it is killed.
#[test]
#[ignore = "the child process of a_killed_process_loses_no_acknowledged_version"]
fn child_keeps_versions_until_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let dir = Path::new(&dir);
    let identity = Identity::load_or_create(dir).unwrap();
    let mut store = ProfileStore::open(dir).unwrap();
    loop {
        let head = replica(&store).head();
        let before = head.map(|place| (place, whole(&store, &web(), &place.id).unwrap().1));
        let before = before.as_ref().map(|(place, version)| (*place, version));
        let number = head.map_or(1, |place: Place| place.number + 1);
        let file = ("/etc/app.conf".to_owned(), fact(&content(number)));
        let reason = Reason::Deviation(format!("change {number}"));
        let (signed, _) = signed(&identity, before, reason, profile([file]));
        store
            .keep_content(&web(), &content(number), &BTreeSet::new())
            .unwrap();
        store.keep_learned(&web(), &content(number)).unwrap();
        store.keep_version(&web(), &signed, &[]).unwrap();
        println!("acked {number}");
        std::io::stdout().flush().unwrap();
    }
}

/// Lets it keep some versions and kills it; the last number that it acknowledged.
fn acknowledged(folder: &Folder, versions: u64, spins: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "run::profile::crash_tests::child_keeps_versions_until_killed",
        ])
        .args(["--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, folder.0.join("a"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut last, mut seen) = (0, 0);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines.map_while(Result::ok) {
        // The first line can follow the harness's own "test ... " without a line break.
        let Some((_, number)) = line.split_once("acked ") else {
            continue;
        };
        last = number.parse().unwrap();
        seen += 1;
        if seen == versions {
            // Somewhere within the next version.
            for _ in 0..spins {
                std::hint::spin_loop();
            }
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(seen >= versions, "the child ended early");
    last
}

#[test]
fn a_killed_process_loses_no_acknowledged_version() {
    let folder = Folder::new();
    let identity = folder.identity("a");
    let seed = RandomState::new().hash_one("a killed process");
    let mut acked = 0;
    for round in 0..12_u64 {
        let dice = RandomState::new().hash_one(seed ^ round);
        acked = acknowledged(&folder, 1 + dice % 9, dice % 2_000_000);
        let store = ProfileStore::open(&folder.0.join("a")).unwrap();
        let replica = replica(&store);
        let head = replica.head().expect("versions are there");
        assert!(
            head.number >= acked,
            "{} in use, {acked} acknowledged",
            head.number
        );
        assert_eq!(replica.awaited(), 0, "none is damaged");
        // The whole line is there, each signed by its author, with what it names.
        let mut at = Some(head.id);
        let mut number = head.number;
        while let Some(id) = at {
            let (signed, version) = whole(&store, &web(), &id).expect("it is whole");
            verify(&signed, identity.id()).unwrap();
            assert_eq!(version.number, number);
            let kept = store.content(&web(), &hash(&content(number))).unwrap();
            assert_eq!(kept, Some(content(number)), "content {number}");
            number -= 1;
            at = version.parent;
        }
        assert_eq!(number, 0);
        let learned = store
            .learned(&web())
            .unwrap()
            .expect("something was learned");
        assert!([content(head.number), content(head.number + 1)].contains(&learned));
    }
    assert!(acked >= 12);
}
