//! Every break of a host is told as what it is, and nothing else is.

use super::*;
use crate::facts::{
    FilterChain, Hot, HotFile, Need, PackageFact, Passage, Port, Protocol, Scope, UnitProfile,
    ValueHash,
};

const UNIT: &str = "app.service";
const DATA: &str = "/srv/app/data";

fn port() -> Port {
    Port {
        protocol: Protocol::Tcp,
        port: 8080,
        scope: Scope::All,
    }
}

fn database() -> Dependency {
    Dependency {
        protocol: Protocol::Tcp,
        remote: "db.example".into(),
        port: 5432,
    }
}

fn regular(byte: u8, replicated: bool) -> FileFact {
    FileFact {
        kind: FileKind::Regular {
            hash: ValueHash::from_bytes([byte; 32]),
            size: 10,
            replicated,
        },
        owner: "root".into(),
        group: "app".into(),
        mode: 0o640,
    }
}

/// A profile that uses everything there is.
fn profile() -> Profile {
    let mut profile = Profile::default();
    let unit = UnitProfile {
        enabled: "enabled".into(),
        environment: [("MODE".to_owned(), ValueHash::from_bytes([1; 32]))].into(),
        ports: [port()].into(),
        dependencies: [database()].into(),
        limits: [("LimitNOFILE".to_owned(), "4096".to_owned())].into(),
        ..UnitProfile::default()
    };
    let content = &mut profile.content;
    content.units.insert(UNIT.into(), unit);
    let package = PackageFact {
        version: "2.0-1".into(),
        architecture: "amd64".into(),
    };
    content.packages.insert("app".into(), package);
    content
        .files
        .insert("/etc/app/app.conf".into(), regular(1, true));
    content
        .files
        .insert("/etc/app/secret".into(), regular(2, false));
    content
        .parameters
        .insert("net.core.somaxconn".into(), "4096".into());
    let need = |median: f64, peak: f64| Need {
        median,
        peak,
        cold: false,
    };
    let needs = &mut profile.needs;
    needs.insert((UNIT.into(), ResourceKind::Memory), need(1e8, 4e8));
    needs.insert((UNIT.into(), ResourceKind::Cpu), need(0.5, 1.0));
    profile
}

/// A host on which all is as it is wanted.
fn like(profile: &Profile) -> Inventory {
    let disk = DiskInventory {
        free: 50 << 30,
        size: 100 << 30,
        files_free: 0.9,
        read_only: false,
    };
    let mut here = Inventory {
        content: profile.content.clone(),
        reach: [(database(), Ok(()))].into(),
        expiry: [("/etc/app/tls.pem".to_owned(), 90 * 24 * 3_600)].into(),
        passages: [(port(), Passage::Open)].into(),
        resident: [(DATA.to_owned(), u64::MAX)].into(),
        ..Inventory::default()
    };
    here.host.processors = 4.0;
    here.host.busy = Some(1.0);
    here.host.memory = 8 << 30;
    here.host.memory_available = 6 << 30;
    here.host.disks.insert("/".into(), disk);
    here.host.clock_error_ns = Some(1_000_000);
    here
}

/// What the active has open, and in memory.
fn beside() -> Beside {
    let hot = HotFile {
        size: 64 << 20,
        pieces: u64::MAX,
    };
    Beside {
        hot: Hot {
            units: [(UNIT.to_owned(), [DATA.to_owned()].into())].into(),
            files: [(DATA.to_owned(), hot)].into(),
        },
        open: [port()].into(),
    }
}

fn compared(profile: &Profile, here: &Inventory, mode: UnitMode) -> Readiness {
    let group = "web".parse().unwrap();
    let modes = [(UNIT.parse().unwrap(), mode)].into();
    let wanted = Wanted {
        group: &group,
        profile,
        modes: &modes,
        owner: false,
        beside: &beside(),
    };
    compare(&wanted, here)
}

#[test]
fn a_host_that_is_alike_is_ready() {
    let profile = profile();
    let readiness = compared(&profile, &like(&profile), UnitMode::Cold);
    assert_eq!(
        readiness.verdict(),
        Verdict::Ready,
        "{:?}",
        readiness.items.first()
    );
    assert_eq!(readiness.score(), 1.0);
    let kinds: std::collections::BTreeSet<ItemKind> =
        readiness.items.iter().map(|item| item.kind).collect();
    assert_eq!(kinds.len(), 15, "each kind of item is compared");
}

#[test]
fn what_is_unknown_proves_nothing() {
    let profile = profile();
    let readiness = compared(&profile, &Inventory::default(), UnitMode::Cold);
    assert_eq!(readiness.count(Verdict::Ready), 0, "{:?}", readiness.items);
}

/// A break of an otherwise alike host: how, what it is of, and what the cause says.
type Break = (fn(&mut Inventory), ItemKind, &'static str, &'static str);

fn unit(here: &mut Inventory) -> &mut UnitProfile {
    here.content.units.get_mut(UNIT).unwrap()
}

/// A variable of the unit has this value, or is not there.
fn set(here: &mut Inventory, name: &str, value: Option<u8>) {
    let variables = &mut unit(here).environment;
    variables.remove(name);
    variables.extend(value.map(|byte| (name.to_owned(), ValueHash::from_bytes([byte; 32]))));
}

/// The certificate expires in so many seconds.
fn expires(here: &mut Inventory, left: i64) {
    here.expiry.insert("/etc/app/tls.pem".into(), left);
}

fn file<'a>(here: &'a mut Inventory, path: &str) -> &'a mut FileFact {
    here.content.files.get_mut(path).unwrap()
}

fn disk(here: &mut Inventory) -> &mut DiskInventory {
    here.host.disks.get_mut("/").unwrap()
}

const CONF: &str = "/etc/app/app.conf";
const SECRET: &str = "/etc/app/secret";
const OTHER_COMMAND: &str = "/etc/systemd/system/app.service.d/other.conf";

#[test]
fn a_dependency_that_nobody_tried_is_not_known_to_be_reached() {
    let profile = profile();
    let mut here = like(&profile);
    here.reach.clear();
    let readiness = compared(&profile, &here, UnitMode::Cold);
    let item = &readiness.items[0];
    let told = (readiness.verdict(), item.kind);
    assert_eq!(
        told,
        (Verdict::CannotTell, ItemKind::Dependency),
        "{item:?}"
    );
}

#[test]
fn what_capture_tells_no_more_is_not_known() {
    let profile = profile();
    let mut here = like(&profile);
    here.host.busy = None;
    let kinds = |here: &Inventory| {
        let readiness = compared(&profile, here, UnitMode::Cold);
        let items = readiness.items.into_iter();
        let unknown = items.filter(|item| item.verdict == Verdict::CannotTell);
        unknown.map(|item| item.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&here), [ItemKind::Cpu], "not idle");
    here.host.memory = 0;
    let why = "capture has told nothing".to_owned();
    here.unknown.insert(Inventory::CAPTURE.into(), why);
    let all = [ItemKind::Port, ItemKind::Memory, ItemKind::Cpu];
    assert_eq!(kinds(&here), all);
}

#[test]
fn a_little_of_a_processor_is_always_there() {
    let mut profile = profile();
    let need = |peak: f64| Need {
        median: peak / 2.0,
        peak,
        cold: false,
    };
    for (peak, verdict) in [(0.04, Verdict::Ready), (0.06, Verdict::NotReady)] {
        let key = (UNIT.into(), ResourceKind::Cpu);
        profile.needs.insert(key, need(peak));
        let mut here = like(&profile);
        here.host.busy = Some(here.host.processors);
        let readiness = compared(&profile, &here, UnitMode::Cold);
        assert_eq!(readiness.verdict(), verdict, "{peak}");
    }
}

#[test]
fn what_commands_wrote_for_a_unit_is_compared_by_its_effect_alone() {
    let profile = profile();
    let mut here = like(&profile);
    unit(&mut here).defined_by.extend([
        "/etc/systemd/system.control/app.service.d/50-MemoryMax.conf".to_owned(),
        "/etc/systemd/system/app.service.d/zz-shadowd-limits.conf".to_owned(),
    ]);
    let readiness = compared(&profile, &here, UnitMode::Cold);
    assert_eq!(readiness.verdict(), Verdict::Ready);
}

#[test]
fn each_break_is_found_alone_and_with_its_cause() {
    use ItemKind as K;
    let breaks: Vec<Break> = vec![
        (
            |h| drop(h.content.units.remove(UNIT)),
            K::Unit,
            UNIT,
            "no such unit",
        ),
        (
            |h| unit(h).enabled = "masked".into(),
            K::Unit,
            UNIT,
            "masked",
        ),
        (
            |h| unit(h).enabled = "disabled".into(),
            K::Unit,
            UNIT,
            "disabled here",
        ),
        (
            |h| set(h, "MODE", Some(2)),
            K::Environment,
            "app.service: MODE",
            "another value",
        ),
        (
            |h| set(h, "MODE", None),
            K::Environment,
            "app.service: MODE",
            "not set here",
        ),
        (
            |h| set(h, "DEBUG", Some(3)),
            K::Environment,
            "app.service: DEBUG",
            "not on the active",
        ),
        (
            |h| drop(unit(h).limits.insert("LimitNOFILE".into(), "1024".into())),
            K::Limit,
            "app.service: LimitNOFILE",
            "1024 here, 4096",
        ),
        (
            |h| drop(h.taken.insert(port(), "other.service".into())),
            K::Port,
            "app.service: tcp 8080",
            "taken by other.service",
        ),
        (
            |h| drop(h.passages.insert(port(), closed())),
            K::Firewall,
            "app.service: tcp 8080",
            "chain input drops it",
        ),
        (
            |h| drop(h.content.packages.remove("app")),
            K::Package,
            "app",
            "not installed",
        ),
        (
            |h| h.content.packages.get_mut("app").unwrap().version = "1.9-1".into(),
            K::Package,
            "app",
            "1.9-1 here, 2.0-1",
        ),
        (
            |h| drop(h.content.files.remove(CONF)),
            K::File,
            CONF,
            "not here",
        ),
        (
            |h| *file(h, CONF) = regular(9, true),
            K::File,
            CONF,
            "on the active",
        ),
        (
            |h| file(h, CONF).mode = 0o600,
            K::File,
            CONF,
            "mode 0600 here, 0640",
        ),
        (
            |h| file(h, CONF).owner = "app".into(),
            K::File,
            CONF,
            "belongs to app:app",
        ),
        (
            |h| file(h, CONF).group = "root".into(),
            K::File,
            CONF,
            "belongs to root:root",
        ),
        (
            |h| file(h, CONF).kind = FileKind::Directory,
            K::File,
            CONF,
            "a directory here",
        ),
        (
            |h| unit(h).defined_by.extend([OTHER_COMMAND.into()]),
            K::File,
            OTHER_COMMAND,
            "it changes app.service here",
        ),
        (
            |h| *file(h, SECRET) = regular(9, false),
            K::File,
            SECRET,
            "on the active",
        ),
        (
            |h| {
                drop(
                    h.content
                        .parameters
                        .insert("net.core.somaxconn".into(), "128".into()),
                )
            },
            K::Parameter,
            "net.core.somaxconn",
            "128 here, 4096",
        ),
        (
            |h| drop(h.reach.insert(database(), Err("connection refused".into()))),
            K::Dependency,
            "tcp db.example:5432",
            "refused",
        ),
        (
            |h| expires(h, -7_200),
            K::Certificate,
            "/etc/app/tls.pem",
            "expired 2 h ago",
        ),
        (
            |h| expires(h, 3_600),
            K::Certificate,
            "/etc/app/tls.pem",
            "expires in 1 h",
        ),
        (|h| disk(h).free = 100 << 20, K::Disk, "/", "100 MiB free"),
        (|h| disk(h).read_only = true, K::Disk, "/", "read-only"),
        (|h| disk(h).files_free = 0.001, K::Disk, "/", "inodes"),
        (
            |h| h.host.memory_available = 100 << 20,
            K::Memory,
            "memory",
            "expected at the peak",
        ),
        (
            |h| h.host.busy = Some(3.9),
            K::Cpu,
            "cpu",
            "expected at the peak",
        ),
        (
            |h| h.host.clock_error_ns = Some(9_000_000_000),
            K::Clock,
            "clock",
            "9.0 s",
        ),
    ];
    let profile = profile();
    for (number, (how, kind, subject, cause)) in breaks.into_iter().enumerate() {
        let mut here = like(&profile);
        how(&mut here);
        let readiness = compared(&profile, &here, UnitMode::Cold);
        let not: Vec<&Item> = readiness
            .items
            .iter()
            .filter(|item| item.verdict != Verdict::Ready && item.kind == kind)
            .collect();
        let [item] = not[..] else {
            panic!("break {number}: {not:?}");
        };
        assert_eq!(item.subject, subject, "break {number}");
        assert!(item.cause.contains(cause), "break {number}: {}", item.cause);
        assert_eq!(item.verdict, Verdict::NotReady, "break {number}");
        assert!(item.remedy.is_some(), "break {number} has a remedy");
        assert_eq!(
            readiness.items[0].verdict,
            Verdict::NotReady,
            "the worst first"
        );
    }
}

#[test]
fn a_secret_is_not_copied_and_a_plain_file_is() {
    let profile = profile();
    let mut here = like(&profile);
    here.content.files.clear();
    let readiness = compared(&profile, &here, UnitMode::Cold);
    let item = |path: &str| {
        readiness
            .items
            .iter()
            .find(|item| item.subject == path)
            .unwrap()
    };
    assert!(item(CONF).act.is_some());
    assert!(item(SECRET).act.is_none());
}

fn closed() -> Passage {
    Passage::Closed {
        by: "chain input drops it".into(),
        chain: Some(FilterChain {
            family: "inet".into(),
            table: "filter".into(),
            chain: "input".into(),
        }),
        remedy: String::new(),
    }
}

#[test]
fn little_experience_cannot_tell_between_the_usual_and_the_peak() {
    let mut profile = profile();
    for need in profile.needs.values_mut() {
        need.cold = true;
    }
    let mut here = like(&profile);
    here.host.memory_available = 200_000_000;
    let verdict = |here: &Inventory| {
        let readiness = compared(&profile, here, UnitMode::Cold);
        let items = readiness.items.iter();
        items
            .filter(|item| item.kind == ItemKind::Memory)
            .map(|item| item.verdict)
            .next()
    };
    assert_eq!(verdict(&here), Some(Verdict::CannotTell));
    here.host.memory_available = 10_000_000;
    assert_eq!(verdict(&here), Some(Verdict::NotReady));
    here.host.memory_available = 500_000_000;
    assert_eq!(verdict(&here), Some(Verdict::Ready));
}

#[path = "ready_beside_tests.rs"]
mod beside_tests;
