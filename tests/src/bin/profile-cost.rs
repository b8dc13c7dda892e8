//! What learning, comparing and keeping a profile of so many units cost, as JSON: `profile-cost UNITS`,
//! one process for each, whose memory is then that of one learner. The learner and the comparison are those of the daemon; what they are given is
//! made up, as much of it as a busy service has.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use shadowd::decide::profile::codec;
use shadowd::decide::profile::learn::{Learner, Rules};
use shadowd::decide::profile::ready::{Wanted, compare};
use shadowd::facts::{
    Beside, Content, Dependency, Digest, FileFact, FileKind, HostId, Inventory, PackageFact, Port,
    Protocol, Reason, ResourceKind, Scope, UnitDigest, UnitProfile, ValueHash, Version,
};

/// Digests that each learner is given before it is measured: a day of them.
const DIGESTS: u64 = 8_640;
/// Seconds of one digest, and between two looks at a host.
const DIGEST_S: u32 = 10;
const LOOK_S: f64 = 4.0;
/// Calls of which the mean is told.
const CALLS: u32 = 200;
/// What each unit reads, listens on, and connects to.
const READS: usize = 20;
const PORTS: u16 = 2;
const REMOTES: usize = 8;

fn main() -> Result<()> {
    let units = std::env::args()
        .nth(1)
        .context("usage: profile-cost UNITS")?;
    println!("{}", measure(units.parse().context("a number of units")?)?);
    Ok(())
}

fn measure(units: usize) -> Result<Value> {
    let before = resident()?;
    let mut learner = fresh();
    let here = content(units);
    let mut second = 1_700_000_000;
    for number in 0..DIGESTS {
        second += u64::from(DIGEST_S);
        learner.on_digest(&digest(units, second, number));
        if number % 60 == 0 {
            learner.on_inventory(&here);
            while learner.poll_output().is_some() {}
        }
    }
    let memory = resident()?.saturating_sub(before);
    let digests: Vec<Digest> = (0..u64::from(CALLS))
        .map(|number| digest(units, second + (number + 1) * u64::from(DIGEST_S), number))
        .collect();
    let mut digests = digests.iter();
    let digest_us = each(|| {
        if let Some(digest) = digests.next() {
            learner.on_digest(digest);
        }
    });
    let inventory_us = each(|| learner.on_inventory(&here));
    let profile = learner.profile().clone();
    let (group, modes) = ("web".parse()?, BTreeMap::new());
    let beside = Beside::default();
    let wanted = Wanted {
        group: &group,
        profile: &profile,
        modes: &modes,
        owner: false,
        beside: &beside,
    };
    let shadow = Inventory {
        content: here.clone(),
        ..Inventory::default()
    };
    let compare_us = each(|| drop(black_box(compare(&wanted, &shadow))));
    let version = Version {
        group: group.clone(),
        number: 1,
        parent: None,
        author: HostId::from_bytes([1; 32]),
        wall_ms: 0,
        reason: Reason::First,
        pinned: false,
        golden: None,
        profile: profile.clone(),
    };
    let bytes = codec::encode(&version)?;
    let decode_us = each(|| drop(black_box(codec::decode(&bytes))));
    let per_second = digest_us / f64::from(DIGEST_S);
    Ok(json!({
        "units": units,
        "followed": profile.content.units.len(),
        "files": profile.content.files.len(),
        "digest_us": digest_us,
        "inventory_us": inventory_us,
        "compare_us": compare_us,
        "decode_us": decode_us,
        "owner_us_per_s": per_second + inventory_us / LOOK_S,
        "shadow_us_per_s": per_second + compare_us / LOOK_S,
        "memory_bytes": memory,
        "version_bytes": bytes.len(),
        "learned_bytes": learned_bytes(&learner),
        "refused": learner.refused(),
    }))
}

/// A learner by the usual rules.
fn fresh() -> Learner {
    Learner::new(Rules {
        settle: 600,
        forget: 8 * 24 * 3_600,
    })
}

/// What the store keeps of a learner.
fn learned_bytes(learner: &Learner) -> usize {
    postcard::to_stdvec(learner).map_or(0, |bytes| bytes.len())
}

/// Microseconds of a call, the mean of many.
fn each(mut call: impl FnMut()) -> f64 {
    let begin = Instant::now();
    for _ in 0..CALLS {
        call();
    }
    begin.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS)
}

fn name(number: usize) -> String {
    format!("app{number}.service")
}

fn ports(number: usize) -> BTreeSet<Port> {
    let first = 1_024 + u16::try_from(number).unwrap_or(0) * PORTS;
    let ports = (0..PORTS).map(|more| Port {
        protocol: Protocol::Tcp,
        port: first + more,
        scope: Scope::All,
    });
    ports.collect()
}

fn dependencies(number: usize) -> Vec<Dependency> {
    let remotes = (0..REMOTES).map(|remote| Dependency {
        protocol: Protocol::Tcp,
        remote: format!("db{remote}.app{number}.example"),
        port: 5_432,
    });
    remotes.collect()
}

fn reads(number: usize) -> BTreeSet<String> {
    let paths = (0..READS).map(|file| format!("/etc/app{number}/conf.d/{file}.conf"));
    paths.collect()
}

/// A day has its busy hours, and no two readings are the same.
fn digest(units: usize, local_second: u64, number: u64) -> Digest {
    let hour = (local_second / 3_600 % 24) as f64;
    let all = (0..units).map(|unit| {
        let noise = ((number * 2_654_435_761 + unit as u64 * 40_503) % 1_000) as f64 / 1e4;
        let level = 1.0 + (hour / 24.0 * std::f64::consts::TAU).sin() / 2.0 + noise;
        let uses = ResourceKind::ALL.map(|kind| (kind, level * 1e6));
        let rates = dependencies(unit).into_iter().map(|one| (one, level));
        let one = UnitDigest {
            uses: uses.into(),
            programs: [format!("/usr/bin/app{unit}")].into(),
            ports: ports(unit),
            dependencies: rates.collect(),
            // They are read when the unit starts.
            reads: if number == 0 {
                reads(unit)
            } else {
                BTreeSet::new()
            },
        };
        (name(unit), one)
    });
    Digest {
        local_second,
        seconds: DIGEST_S,
        units: all.collect(),
    }
}

fn content(units: usize) -> Content {
    let mut content = Content::default();
    for unit in 0..units {
        let hidden = |number: usize| {
            let hash = blake_like(unit * 100 + number);
            (format!("VARIABLE_{number}"), hash)
        };
        let program = (format!("/usr/bin/app{unit}"), Some(format!("app{unit}")));
        let limit = |name: &&str| ((*name).to_owned(), "65536".to_owned());
        let one = UnitProfile {
            enabled: "enabled".into(),
            programs: [program].into(),
            environment: (0..10).map(hidden).collect(),
            limits: UnitProfile::LIMITS.iter().map(limit).collect(),
            defined_by: [format!("/etc/systemd/system/app{unit}.service")].into(),
            ..UnitProfile::default()
        };
        content.units.insert(name(unit), one);
        let package = PackageFact {
            version: "1:2.3-4+deb12u1".into(),
            architecture: "amd64".into(),
        };
        content.packages.insert(format!("app{unit}"), package);
        let paths = reads(unit).into_iter();
        let paths = paths.chain([format!("/etc/systemd/system/app{unit}.service")]);
        for (number, path) in paths.enumerate() {
            let fact = FileFact {
                kind: FileKind::Regular {
                    hash: blake_like(unit * 1_000 + number),
                    size: 1_000,
                    replicated: true,
                },
                owner: "root".into(),
                group: "root".into(),
                mode: 0o644,
            };
            content.files.insert(path, fact);
        }
    }
    content
}

/// Bytes that do not compress.
fn blake_like(seed: usize) -> ValueHash {
    let mut state = seed as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let bytes = [(); 32].map(|()| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    });
    ValueHash::from_bytes(bytes)
}

/// Memory of this process, bytes (proc_pid_statm(5)).
fn resident() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages = text.split_whitespace().nth(1).context("statm is odd")?;
    Ok(pages.parse::<u64>()? * 4_096)
}
