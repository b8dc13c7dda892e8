//! A run that is killed at any moment: what the journal says is what happened.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use super::*;
use crate::facts::{FileFact, FileKind};

const CHILD_DIR: &str = "SHADOWD_TEST_PROVISION_DIR";
const ACTS: usize = 120;

/// Runs only as the child of the tests below: does or undoes what is planned until it is killed.
#[test]
#[ignore = "the child process of a_killed_run_leaves_a_journal_that_is_true"]
fn child_provisions_until_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    match Path::new(&dir).join("undo").exists() {
        true => undo(Path::new(&dir)).unwrap(),
        false => provision(Path::new(&dir)).unwrap(),
    }
}

struct Bench {
    root: PathBuf,
    seed: u64,
}

impl Bench {
    fn new() -> Self {
        let seed = RandomState::new().hash_one(std::process::id());
        let root = std::env::temp_dir().join(format!("shadowd-crash-{seed:x}"));
        fs::create_dir_all(root.join("dir")).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        Self { root, seed }
    }

    fn dir(&self) -> PathBuf {
        self.root.join("dir")
    }

    fn etc(&self, number: usize) -> PathBuf {
        self.root.join("etc").join(number.to_string())
    }

    /// Every third file is not there before.
    fn before(number: usize) -> Option<Vec<u8>> {
        (!number.is_multiple_of(3)).then(|| format!("old {number}").repeat(999).into_bytes())
    }

    fn after(number: usize) -> Vec<u8> {
        format!("new {number}").repeat(999).into_bytes()
    }

    fn plan(&self) {
        let meta = fs::metadata(&self.root).unwrap();
        let act = |number: usize| {
            if let Some(old) = Self::before(number) {
                fs::write(self.etc(number), old).unwrap();
            }
            let bytes = Self::after(number);
            let hash = ValueHash::from(blake3::hash(&bytes));
            fs::write(content_file(&self.dir(), &hash), &bytes).unwrap();
            Act::Copy {
                path: self.etc(number).to_string_lossy().into_owned(),
                fact: FileFact {
                    kind: FileKind::Regular {
                        hash,
                        size: bytes.len() as u64,
                        replicated: true,
                    },
                    owner: meta.uid().to_string(),
                    group: meta.gid().to_string(),
                    mode: 0o640,
                },
            }
        };
        let acts: Vec<Act> = (0..ACTS).map(act).collect();
        fs::write(self.dir().join(PLAN), serde_json::to_vec(&acts).unwrap()).unwrap();
    }

    /// Runs it and kills it once the journal has so many more bytes; whether it was killed in time.
    fn killed_after(&self, more: u64) -> bool {
        let length = || fs::metadata(self.dir().join(JOURNAL)).map_or(0, |meta| meta.len());
        let enough = length() + more;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "act::provision::crash_tests::child_provisions_until_killed",
            ])
            .args(["--ignored", "--test-threads=1"])
            .env(CHILD_DIR, self.dir())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let ended = loop {
            if length() >= enough {
                break false;
            }
            if child.try_wait().unwrap().is_some() {
                break true;
            }
            std::thread::yield_now();
        };
        let _ = child.kill();
        child.wait().unwrap();
        !ended
    }

    fn on_disk(&self, number: usize) -> Option<Vec<u8>> {
        fs::read(self.etc(number)).ok()
    }

    /// What is told of each act: begun, and how it ended.
    fn told(&self) -> BTreeMap<usize, Option<bool>> {
        let mut told = BTreeMap::new();
        for entry in journal(&self.dir()).unwrap() {
            match entry {
                Entry::Begin { number, .. } => drop(told.insert(number, None)),
                Entry::End { number, failed } => drop(told.insert(number, Some(failed.is_none()))),
                Entry::Undone { .. } => {}
            }
        }
        told
    }

    fn check_done(&self) {
        let told = self.told();
        for number in 0..ACTS {
            let (here, seed) = (self.on_disk(number), self.seed);
            let (old, new) = (Self::before(number), Some(Self::after(number)));
            match told.get(&number) {
                Some(Some(true)) => assert_eq!(here, new, "{number} of {seed:x}: told as done"),
                Some(Some(false)) => panic!("{number} of {seed:x} failed"),
                None => assert_eq!(here, old, "{number} of {seed:x}: it was not begun"),
                Some(None) => assert!(
                    here == old || here == new,
                    "{number} of {seed:x} is neither old nor new"
                ),
            }
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

#[test]
fn a_killed_run_leaves_a_journal_that_is_true() {
    for round in 0..6_u64 {
        let bench = Bench::new();
        bench.plan();
        let killed = bench.killed_after(1 + (bench.seed ^ round) % 20_000);
        bench.check_done();
        assert!(killed || bench.told().len() == ACTS);
        // And so does an undo, which is gone on with until it is over.
        fs::write(bench.dir().join("undo"), "").unwrap();
        let mut more = 1 + bench.seed % 3_000;
        while bench.killed_after(more) {
            more *= 2;
        }
        for number in 0..ACTS {
            let seed = bench.seed;
            assert_eq!(
                bench.on_disk(number),
                Bench::before(number),
                "{number} of {seed:x}"
            );
        }
        let hidden = fs::read_dir(bench.root.join("etc")).unwrap();
        let left = hidden.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let left: Vec<String> = left.filter(|name| name.contains("shadowd")).collect();
        assert_eq!(left, [""; 0], "nothing half made stays");
    }
}

#[test]
fn a_policy_that_a_killed_run_left_goes_and_another_one_stays() {
    let bench = Bench::new();
    let policy = bench.root.join("policy-rc.d");
    fs::write(&policy, tools::NO_STARTS).unwrap();
    tools::clear(&policy).unwrap();
    assert!(!policy.exists());
    fs::write(&policy, "#!/bin/sh\nexit 0\n").unwrap();
    tools::clear(&policy).unwrap();
    assert!(policy.exists());
    fs::remove_file(&policy).unwrap();
    tools::clear(&policy).unwrap();
}
