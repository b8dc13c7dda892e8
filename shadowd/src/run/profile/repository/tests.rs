//! Two members that never hear each other, and a repository that both reach: in a directory, and in
//! a bucket of a real server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Report, start};
use crate::config::settings::{RepositoryPlace, S3Settings};
use crate::decide::profile::codec;
use crate::facts::{
    BootTime, EventKind, HostId, Name, Place, Profile, Reason, RepositoryStatus, Signed, Version,
    VersionId,
};
use crate::link::signature::sign;
use crate::link::{Identity, Post};
use crate::run::profile::keeper::{Common, Keeper};
use crate::run::record::Recorder;
use crate::store::Store;
use crate::store::profiles::{FILE, ProfileStore};
use crate::store::repository::RepositoryStore;
use crate::store::repository::server::{Folder, Server};

/// A report is waited for so long.
const DEADLINE: Duration = Duration::from_secs(20);

fn web() -> Name {
    "web".parse().unwrap()
}

/// A member with its own disk; its clock runs by itself.
struct Host {
    keeper: Keeper,
    reports: mpsc::Receiver<Report>,
    recorder: (Recorder, JoinHandle<()>),
    now: BootTime,
}

fn identity(dir: &Path) -> Identity {
    std::fs::create_dir_all(dir).unwrap();
    Identity::load_or_create(dir).unwrap()
}

impl Host {
    fn new(name: &str, dir: &Path, peer: (&str, HostId), repository: &str) -> Self {
        let identity = identity(dir);
        let (other, id) = peer;
        let text = format!(
            "[host]\nname = \"{name}\"\nlisten = \"192.0.2.1:7373\"\nstate_dir = \"{}\"\n\
             [[peer]]\nname = \"{other}\"\nid = \"{id}\"\naddress = \"192.0.2.2:7373\"\n\
             [[group]]\nname = \"web\"\nmembers = [\"a\", \"b\"]\nprotection = \"none\"\n\
             interface = \"eth0\"\nvips = [\"192.0.2.10/24\"]\n[repository]\n{repository}\n",
            dir.display()
        );
        let settings = crate::config::parse(&text, Path::new("shadowd.toml")).unwrap();
        let (jobs, reports) = start(settings.repository.as_ref().unwrap()).unwrap();
        let store = Store::open(dir).unwrap();
        let recorder = Recorder::start(store, "boot".to_owned(), Box::new(|_, _| {}));
        let recorder = recorder.unwrap();
        let (post, _) = Post::new([other.parse().unwrap()]);
        let (inputs, _) = mpsc::channel(1);
        let common = Common::new(
            settings,
            identity,
            recorder.0.clone(),
            (Arc::new(post), inputs),
            Some(jobs),
            ProfileStore::open(dir).unwrap(),
        );
        let now = BootTime::from_nanos(1_000_000_000);
        Self {
            keeper: Keeper::new(Arc::new(common), 0, now),
            reports,
            recorder,
            now,
        }
    }

    fn status(&self) -> RepositoryStatus {
        self.keeper.view().repository.unwrap()
    }

    fn head(&self) -> Option<VersionId> {
        self.keeper.current().map(|(id, _)| *id)
    }

    fn make(&mut self) -> VersionId {
        let profile = Profile::default();
        let made = self.keeper.make_version(Reason::First, profile, self.now);
        made.unwrap()
    }

    /// A second passes, and what is begun in it ends.
    async fn step(&mut self) {
        self.now = self.now.after(Duration::from_secs(1));
        self.keeper.sync(self.now);
        while self.keeper.repository.as_ref().unwrap().is_busy() {
            let report = tokio::time::timeout(DEADLINE, self.reports.recv()).await;
            let report = report.expect("the thread reports").expect("it runs");
            self.keeper.on_report(report, self.now);
        }
    }

    /// Time passes until something holds; at most an hour of it.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..3_600 {
            self.step().await;
            if holds(self) {
                return;
            }
        }
        panic!("{what}: {:?}", self.status());
    }

    async fn settle(&mut self) {
        let done = |host: &Self| {
            let status = host.status();
            status.listed.is_some() && (status.to_put, status.to_get) == (0, 0)
        };
        self.until("all is put and fetched", done).await;
    }
}

/// Two members and what they share.
struct Pair {
    folder: Folder,
    table: String,
}

impl Pair {
    fn new(name: &str, table: impl FnOnce(&Path) -> String) -> Self {
        let folder = Folder::new(name);
        let table = table(&folder.0);
        Self { folder, table }
    }

    fn directory(name: &str) -> Self {
        Self::new(name, |folder| {
            let shared = folder.join("shared");
            std::fs::create_dir(&shared).unwrap();
            format!("url = \"file://{}\"\nevery = \"10s\"", shared.display())
        })
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }

    fn host(&self, name: &str) -> Host {
        let other = if name == "a" { "b" } else { "a" };
        let id = identity(&self.dir(other)).id();
        Host::new(name, &self.dir(name), (other, id), &self.table)
    }

    fn versions(&self) -> PathBuf {
        self.dir("shared").join("web/versions")
    }
}

#[tokio::test]
async fn a_member_that_hears_nobody_has_all_versions_from_the_directory() {
    let pair = Pair::directory("pair");
    let (mut a, mut b) = (pair.host("a"), pair.host("b"));
    let made = [a.make(), a.make(), a.make()];
    a.settle().await;
    b.settle().await;
    assert_eq!(b.head(), Some(made[2]));
    assert_eq!(b.status().got, 3);
    assert!(made.iter().all(|id| b.keeper.stored(id).is_some()));
    let next = b.make();
    b.settle().await;
    let follows = |host: &Host| host.head() == Some(next);
    a.until("what b made is used here", follows).await;
}

#[tokio::test]
async fn who_lost_its_versions_has_them_back() {
    let pair = Pair::directory("lost");
    let mut a = pair.host("a");
    let made = [a.make(), a.make(), a.make()];
    a.settle().await;
    drop(a);
    // One of them is damaged.
    let connection = rusqlite::Connection::open(pair.dir("a").join(FILE)).unwrap();
    let spoil = "UPDATE versions SET packed = zeroblob(9) WHERE id = ?1";
    assert_eq!(connection.execute(spoil, [made[1].as_bytes()]).unwrap(), 1);
    drop(connection);
    let mut a = pair.host("a");
    assert!(a.keeper.stored(&made[1]).is_none());
    a.settle().await;
    assert!(a.keeper.stored(&made[1]).is_some());
    drop(a);
    // All of them are gone.
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(pair.dir("a").join(format!("{FILE}{end}")));
    }
    let mut a = pair.host("a");
    assert_eq!(a.head(), None);
    a.settle().await;
    assert_eq!(a.head(), Some(made[2]));
    assert!(made.iter().all(|id| a.keeper.stored(id).is_some()));
}

fn version(author: HostId, group: &str, number: u64) -> Version {
    Version {
        group: group.parse().unwrap(),
        number,
        parent: None,
        author,
        wall_ms: 0,
        reason: Reason::First,
        pinned: false,
        golden: None,
        profile: Profile::default(),
    }
}

#[tokio::test]
async fn what_no_member_signed_is_never_taken() {
    let pair = Pair::directory("forged");
    let mut b = pair.host("b");
    let (a, stranger) = (identity(&pair.dir("a")), identity(&pair.dir("stranger")));
    let signed =
        |by: &Identity, version: &Version| sign(by, codec::encode(version).unwrap()).unwrap();
    let good = signed(&a, &version(a.id(), "web", 1));
    let mut unsigned = signed(&a, &version(a.id(), "web", 10));
    unsigned.signature = vec![0; 64];
    let mut other_key = signed(&stranger, &version(a.id(), "web", 11));
    other_key.key = good.key.clone();
    let noise = Signed {
        bytes: b"no version".to_vec(),
        ..good.clone()
    };
    let place = RepositoryPlace::Directory {
        path: pair.dir("shared"),
        own: false,
    };
    let store = RepositoryStore::new(place).open().unwrap();
    for (number, signed) in [
        (1, &good),
        (10, &unsigned),
        (11, &other_key),
        (12, &signed(&stranger, &version(a.id(), "web", 12))),
        (13, &signed(&stranger, &version(stranger.id(), "web", 13))),
        (14, &signed(&a, &version(a.id(), "db", 14))),
        (15, &signed(&a, &version(a.id(), "web", 5))),
        (16, &noise),
    ] {
        let id = VersionId::of(&signed.bytes);
        let place = Place { number, id };
        store.put(&web(), place, signed, false).await.unwrap();
    }
    b.settle().await;
    let status = b.status();
    assert_eq!((status.got, status.refused, status.bad), (1, 7, 7));
    assert_eq!(b.head(), Some(VersionId::of(&good.bytes)));
    let (recorder, thread) = b.recorder;
    recorder.stop();
    thread.join().unwrap();
    let events = recorder.events(0, 100).unwrap();
    let of = events
        .iter()
        .filter(|event| event.kind == EventKind::Repository);
    let told: Vec<&str> = of.map(|event| event.detail.as_str()).collect();
    let refused = told.iter().filter(|detail| detail.contains("is refused"));
    assert_eq!(refused.count(), 7, "{told:#?}");
    for why in [
        "no member of the group",
        "its signature is wrong",
        "of the group db",
        "version 5",
    ] {
        assert!(
            told.iter().any(|detail| detail.contains(why)),
            "{why}: {told:#?}"
        );
    }
}

#[tokio::test]
async fn versions_of_a_member_that_was_replaced_are_kept_and_not_taken_anew() {
    let pair = Pair::directory("replaced");
    let (mut a, mut b) = (pair.host("a"), pair.host("b"));
    a.make();
    a.settle().await;
    b.settle().await;
    drop((a, b));
    // The host called a has another identity from now on.
    for file in ["key.pem", "id"] {
        let _ = std::fs::remove_file(pair.dir("a").join(file));
    }
    std::fs::remove_file(pair.dir("a").join(FILE)).unwrap();
    let mut b = pair.host("b");
    let all_read = |host: &Host| host.now > BootTime::from_nanos(600_000_000_000);
    b.until("all is read", all_read).await;
    let status = b.status();
    assert_eq!((status.there, status.refused, status.put), (1, 0, 0));
    let mut a = pair.host("a");
    a.settle().await;
    let status = a.status();
    assert_eq!((a.head(), status.got, status.bad), (None, 0, 1));
}

#[tokio::test]
async fn a_directory_that_goes_and_comes_back_is_caught_up_with() {
    let pair = Pair::directory("away");
    let mut a = pair.host("a");
    a.settle().await;
    std::fs::rename(pair.dir("shared"), pair.dir("away")).unwrap();
    let made = a.make();
    assert_eq!(a.head(), Some(made), "nothing waits for it");
    let silent = |host: &Host| host.status().silent_since.is_some();
    a.until("it is not reached", silent).await;
    let error = a.status().error.unwrap();
    assert!(error.contains("cannot be used"), "{error}");
    std::fs::rename(pair.dir("away"), pair.dir("shared")).unwrap();
    a.settle().await;
    a.until("it is reached", |host| !silent(host)).await;
    assert_eq!(a.status().there, 1);
}

#[tokio::test]
async fn a_damaged_file_is_written_again_by_who_has_the_version() {
    let pair = Pair::directory("damaged");
    let mut a = pair.host("a");
    a.make();
    a.settle().await;
    spoil_and_mend(&mut a, &pair.versions()).await;
}

/// Spoils the one file in `folder` and waits until it is whole again.
async fn spoil_and_mend(host: &mut Host, folder: &Path) {
    let all = std::fs::read_dir(folder).unwrap();
    let file = all.map(|entry| entry.unwrap().path()).next().unwrap();
    let whole = std::fs::read(&file).unwrap();
    let mut spoiled = whole.clone();
    spoiled[whole.len() / 2] ^= 1;
    std::fs::write(&file, &spoiled).unwrap();
    let mended = |host: &Host| host.status().mended == 1;
    host.until("it is written again", mended).await;
    assert_eq!(std::fs::read(&file).unwrap(), whole);
    assert_eq!(host.status().refused, 1);
}

fn bucket(name: &str) -> (Pair, Server) {
    let mut server = None;
    let pair = Pair::new(name, |folder| {
        let started = Server::start(&folder.join("s3"));
        let credentials = started.credentials(folder);
        let table = format!(
            "url = \"s3://{}/eu/profiles\"\nendpoint = \"{}\"\nallow_http = true\n\
             credentials = \"{}\"\nevery = \"10s\"",
            Server::BUCKET,
            started.endpoint(),
            credentials.display()
        );
        server = Some(started);
        table
    });
    (pair, server.unwrap())
}

#[tokio::test]
async fn a_bucket_is_shared_and_one_that_was_away_is_caught_up_with() {
    let (pair, mut server) = bucket("bucket");
    let (mut a, mut b) = (pair.host("a"), pair.host("b"));
    a.make();
    a.settle().await;
    b.settle().await;
    assert_eq!((b.head(), b.status().got), (a.head(), 1));
    server.stop();
    for _ in 0..3 {
        let made = a.make();
        assert_eq!(a.head(), Some(made), "nothing waits for it");
    }
    let silent = |host: &Host| host.status().silent_since.is_some() && host.status().to_put == 3;
    a.until("it is not reached", silent).await;
    for _ in 0..30 {
        a.step().await;
        b.step().await;
    }
    assert_ne!(a.head(), b.head());
    server.start_again();
    a.settle().await;
    let head = a.head();
    b.until("b follows", |host| host.head() == head).await;
    b.settle().await;
    assert_eq!((b.status().got, b.status().silent_since), (4, None));
}

#[tokio::test]
async fn a_damaged_object_of_a_bucket_is_written_again() {
    let (pair, server) = bucket("spoiled");
    let mut a = pair.host("a");
    a.make();
    a.settle().await;
    let folder = server.bucket().join("eu/profiles/web/versions");
    spoil_and_mend(&mut a, &folder).await;
}

#[tokio::test]
async fn wrong_keys_are_told_without_a_secret_and_right_ones_are_used_at_once() {
    let (pair, server) = bucket("keys");
    let right = std::fs::read_to_string(server.credentials(&pair.folder.0)).unwrap();
    let wrong = right.replace(Server::SECRET, "sesame-open-sesame");
    let file = server.credentials(&pair.folder.0);
    std::fs::write(&file, wrong).unwrap();
    let mut a = pair.host("a");
    a.make();
    a.until("it is told", |host| host.status().error.is_some())
        .await;
    let error = a.status().error.unwrap();
    assert!(error.contains("SignatureDoesNotMatch"), "{error}");
    assert!(
        !error.contains("sesame") && !error.contains(Server::KEY),
        "{error}"
    );
    std::fs::remove_file(&file).unwrap();
    let absent = |host: &Host| {
        let error = host.status().error;
        error.is_some_and(|error| error.contains("cannot read ") && error.contains(".credentials"))
    };
    a.until("it is told", absent).await;
    server.credentials(&pair.folder.0);
    a.settle().await;
    assert_eq!(a.status().there, 1);
}

/// The type is named here so that a change of its fields is seen by who reads this.
#[test]
fn a_bucket_is_shown_without_its_keys() {
    let place = RepositoryPlace::S3(S3Settings {
        bucket: "profiles".to_owned(),
        prefix: "eu".to_owned(),
        endpoint: None,
        region: "us-east-1".to_owned(),
        credentials: Some("/etc/shadowd/s3".into()),
    });
    assert_eq!(place.url(), "s3://profiles/eu");
}
