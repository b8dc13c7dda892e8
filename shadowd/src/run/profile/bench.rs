//! A keeper without a daemon, for tests: its store, its key and its disk are real.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::keeper::{Common, Keeper};
use super::*;
use crate::decide::profile::codec;
use crate::decide::profile::lineage::{Made, next};
use crate::facts::{
    FileFact, FileKind, HostId, Place, Profile, Reason, Signed, ValueHash, Version,
};
use crate::link::signature::sign;
use crate::store::Store;

pub(super) const NOW: BootTime = BootTime::from_nanos(1_000_000_000);

/// A folder of its own, with an `etc` in it.
pub(super) struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("shadowd-keeper-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join("etc")).unwrap();
        Self(path)
    }

    /// The identity that is kept in a folder of this name.
    pub fn identity(&self, name: &str) -> Identity {
        Identity::load_or_create(&self.0.join(name)).unwrap()
    }

    pub fn etc(&self, name: &str) -> String {
        self.0.join("etc").join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Host `a` of the group `web`; `b` is the other member, and owns it unless told otherwise.
pub(super) struct Bench {
    pub keeper: Keeper,
    pub folder: Folder,
    _inputs: mpsc::Receiver<Input>,
    _letters: mpsc::Receiver<Received>,
}

impl Bench {
    pub fn new() -> Self {
        Self::with("replicate = [\"{etc}/*\"]")
    }

    /// With these lines of `[group.profile]`; `{etc}` is the folder of configuration.
    pub fn with(lines: &str) -> Self {
        let folder = Folder::new();
        let (identity, other) = (folder.identity("a"), folder.identity("b"));
        let etc = folder.0.join("etc").to_string_lossy().into_owned();
        let text = configuration(other.id(), &lines.replace("{etc}", &etc), &etc);
        let mut settings = crate::config::parse(&text, Path::new("shadowd.toml")).unwrap();
        settings.host.state_dir = folder.0.join("a");
        let store = Store::open(&folder.0.join("a")).unwrap();
        let (recorder, _) = Recorder::start(store, "boot".into(), Box::new(|_, _| {})).unwrap();
        let (post, letters) = Post::new(["b".parse().unwrap()]);
        let (inputs, taken) = mpsc::channel(64);
        let profiles = ProfileStore::open(&folder.0.join("a")).unwrap();
        let post = (Arc::new(post), inputs);
        let common = Common::new(settings, identity, recorder, post, None, profiles);
        let mut keeper = Keeper::new(Arc::new(common), 0, NOW);
        keeper.on_owner(Some("b".parse().unwrap()));
        Self {
            keeper,
            folder,
            _inputs: taken,
            _letters: letters,
        }
    }

    /// This host owns the group.
    pub fn owning() -> Self {
        let mut bench = Self::new();
        bench.keeper.on_owner(Some("a".parse().unwrap()));
        bench
    }

    /// A file of a profile, with this content on the disk.
    pub fn write(&self, name: &str, content: &str) -> (String, FileFact) {
        fs::write(self.folder.etc(name), content).unwrap();
        (self.folder.etc(name), fact(content.as_bytes()))
    }
}

/// What a version says of a file with this content, which may leave its host.
pub(super) fn fact(content: &[u8]) -> FileFact {
    FileFact {
        kind: FileKind::Regular {
            hash: hash(content),
            size: content.len() as u64,
            replicated: true,
        },
        owner: "root".into(),
        group: "root".into(),
        mode: 0o644,
    }
}

pub(super) fn hash(content: &[u8]) -> ValueHash {
    blake3::hash(content).into()
}

pub(super) fn profile(files: impl IntoIterator<Item = (String, FileFact)>) -> Profile {
    let mut profile = Profile::default();
    profile.content.files.extend(files);
    profile
}

/// A version after `before`, signed.
pub(super) fn signed(
    identity: &Identity,
    before: Option<(Place, &Version)>,
    reason: Reason,
    profile: Profile,
) -> (Signed, Version) {
    let made = Made {
        group: "web".parse().unwrap(),
        author: identity.id(),
        wall_ms: 1_700_000_000_000,
        reason,
        profile,
    };
    let version = next(before, made);
    let bytes = codec::encode(&version).unwrap();
    (sign(identity, bytes).unwrap(), version)
}

fn configuration(other: HostId, lines: &str, etc: &str) -> String {
    format!(
        r#"[host]
name = "a"
listen = "192.0.2.1:7373"

[[peer]]
name = "b"
id = "{other}"
address = "192.0.2.2:7373"

[capture]
paths = ["{etc}"]

[[group]]
name = "web"
members = ["a", "b"]
priority = 100
protection = "none"
heartbeat = "10ms"
suspect_after = "30ms"
interface = "eth0"
vips = ["192.0.2.10/24"]

[[group.unit]]
name = "nginx.service"
mode = "warm"

[group.profile]
{lines}
"#
    )
}
