//! Profiles and readiness, through the socket and `shadowctl`.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use shadowd::facts::{
    Content, HostId, Item, ItemKind, PackageFact, ProfileAccuracy, ProfileStatus, Readiness,
    ReadinessSummary, RepositoryStatus, ResourceKind, Signed, UnitProfile, Verdict, VersionId,
};
use shadowd::serve::protocol::{
    ActBatch, ActLine, ActOrder, ActState, Code, Expected, ExpectedResource, ExpectedUnit,
    ExportedVersion, GoldenRestore, GroupReady, ProfileActs, ProfileDiff, ProfileOrder,
    ProfileOrderDone, ProfileQuery, ProfileRepository, ProfileVersions, Ready, Refusal,
    ResourceAccuracy, RestoreState, ShownNeed, ShownProfile, VersionLine,
};
use shadowd::serve::{ProfileAnswer, ProfileQuestion};

use super::daemon::{Daemon, name};
use super::scratch::Scratch;
use super::shadowctl::{code, command, parsed, shown};

fn id(byte: u8) -> VersionId {
    VersionId::from_bytes([byte; 32])
}

fn item(kind: ItemKind, subject: &str, verdict: Verdict, cause: &str) -> Item {
    Item {
        kind,
        subject: subject.into(),
        verdict,
        cause: cause.into(),
        remedy: (verdict == Verdict::NotReady).then(|| "apt-get install nginx=1.22.1-9".into()),
        act: (verdict == Verdict::NotReady).then(|| shadowd::facts::Act::Install {
            package: "nginx".into(),
            version: "1.22.1-9".into(),
        }),
    }
}

fn items() -> Vec<Item> {
    let cause = "1.18.0 here, 1.22.1-9 on the active";
    vec![
        item(ItemKind::Package, "nginx", Verdict::NotReady, cause),
        item(
            ItemKind::Clock,
            "clock",
            Verdict::CannotTell,
            "not synchronised",
        ),
        item(ItemKind::Unit, "nginx.service", Verdict::Ready, ""),
    ]
}

/// The state in short.
pub fn status() -> Vec<ProfileStatus> {
    vec![ProfileStatus {
        group: name("web"),
        version: Some((3, id(3))),
        readiness: Some(ReadinessSummary {
            at: shadowd::facts::BootTime::from_nanos(224_000_000_000),
            score: 1.0 / 3.0,
            ready: 1,
            not_ready: 1,
            unknown: 1,
            worst: items().into_iter().take(2).collect(),
        }),
        repository: Some(repository()),
        accuracy: ProfileAccuracy::default(),
    }]
}

fn repository() -> RepositoryStatus {
    let at = |seconds: u64| {
        Some(shadowd::facts::BootTime::from_nanos(
            seconds * 1_000_000_000,
        ))
    };
    RepositoryStatus {
        url: "s3://profiles/eu".into(),
        reached: at(100),
        silent_since: at(105),
        error: Some("nobody listens\x1b[31m".into()),
        listed: at(45),
        there: 34,
        to_put: 2,
        bad: 1,
        refused: 3,
        mended: 2,
        ..RepositoryStatus::default()
    }
}

/// Whether the host is ready.
pub fn ready() -> Ready {
    let group = |name: &str, owned_here: bool| GroupReady {
        group: name.parse().unwrap(),
        owner: Some("a".parse().unwrap()),
        owned_here,
        version: Some((3, id(3))),
        at: None,
        score: 0.0,
        readiness: None,
    };
    let now = shadowd::facts::BootTime::from_nanos(225_000_000_000);
    let mut web = group("web", false);
    web.at = Some(shadowd::facts::BootTime::from_nanos(224_000_000_000));
    web.readiness = Some(Readiness {
        group: name("web"),
        items: items(),
    });
    web.score = 1.0 / 3.0;
    Ready {
        now,
        groups: vec![web, group("own", true)],
    }
}

fn line(number: u64, reason: &str) -> VersionLine {
    VersionLine {
        number,
        id: id(number as u8),
        parent: None,
        author: HostId::from_bytes([1; 32]),
        author_name: Some(name("a")),
        wall_ms: 1_700_000_000_000,
        reason: reason.into(),
        pinned: number == 4,
        current: number == 3,
        golden: number == 1,
    }
}

fn shown_profile(query: &ProfileQuery) -> ShownProfile {
    let unit = UnitProfile {
        enabled: "enabled".into(),
        programs: [("/usr/sbin/nginx".to_owned(), Some("nginx".to_owned()))].into(),
        ..UnitProfile::default()
    };
    let package = PackageFact {
        version: "1.22.1-9".into(),
        architecture: "amd64".into(),
    };
    ShownProfile {
        group: name("web"),
        version: Some(line(3, "package nginx was 1.18.0, is 1.22.1-9")),
        content: Content {
            units: [("nginx.service".to_owned(), unit)].into(),
            packages: [("nginx".to_owned(), package)].into(),
            ..Content::default()
        },
        in_use_at: query.at.filter(|_| query.version.is_none()),
        needs: vec![ShownNeed {
            unit: "nginx.service".into(),
            resource: ResourceKind::Memory,
            median: 1048576.0,
            peak: 2097152.0,
            cold: true,
        }],
        expected: Expected {
            wall_ms: query.at.unwrap_or(1_700_000_000_000),
            units: vec![ExpectedUnit {
                unit: "backup.service".into(),
                likely: 0.0,
            }],
            dependencies: Vec::new(),
            resources: vec![ExpectedResource {
                unit: "nginx.service".into(),
                resource: ResourceKind::Cpu,
                median: 0.5,
                within_80: [-0.1, 0.7],
                within_95: [0.2, 0.9],
                cold: false,
            }],
        },
        learning: vec!["new.service".into()],
        refused: 0,
    }
}

/// The answer to a question.
pub fn answer(question: ProfileQuestion) -> Result<ProfileAnswer, Refusal> {
    Ok(match question {
        ProfileQuestion::Show(query) => ProfileAnswer::Show(Box::new(shown_profile(&query))),
        ProfileQuestion::Versions => ProfileAnswer::Versions(ProfileVersions {
            versions: vec![line(1, "the first"), line(3, "unit x is new\x1b[31m")],
            awaited: 2,
        }),
        ProfileQuestion::Accuracy => ProfileAnswer::Accuracy(Box::new(ProfileAccuracy {
            unit_precision: Some(0.75),
            unit_recall: None,
            resources: BTreeMap::from([(
                ResourceKind::Cpu,
                ResourceAccuracy {
                    count: 12,
                    mase: Some(0.84),
                    ..ResourceAccuracy::default()
                },
            )]),
            ..ProfileAccuracy::default()
        })),
        ProfileQuestion::Repository => ProfileAnswer::Repository(Box::new(ProfileRepository {
            now: shadowd::facts::BootTime::from_nanos(225_000_000_000),
            repository: Some(repository()),
        })),
        ProfileQuestion::Acts => ProfileAnswer::Acts(acts(false)),
        ProfileQuestion::ActOrder(order) => {
            ProfileAnswer::Acts(acts(matches!(order, ActOrder::Undo { batch: 1 })))
        }
        ProfileQuestion::Diff(query) if query.a == "9" => {
            let message = "there is no version 9";
            return Err(Refusal::new(
                Code::UnknownVersion,
                message,
                "see the history",
            ));
        }
        ProfileQuestion::Diff(_) => ProfileAnswer::Diff(Box::new(ProfileDiff {
            a: line(1, ""),
            b: line(3, ""),
            changes: shadowd::decide::profile::changes::changes(
                &Content::default(),
                &shown_profile(&ProfileQuery::default()).content,
            ),
        })),
        ProfileQuestion::Export(_) => ProfileAnswer::Export(ExportedVersion::from(&Signed {
            bytes: b"version".to_vec(),
            key: vec![1],
            signature: vec![2],
        })),
        ProfileQuestion::Order(ProfileOrder::Rollback { version }) => done(&version),
        ProfileQuestion::Order(order) => done(&format!("{order:?}")),
        ProfileQuestion::Import(signed) => done(&String::from_utf8_lossy(&signed.bytes)),
        ProfileQuestion::Restore(request) => restore(request.within_s == Some(77), true),
        ProfileQuestion::Restored => restore(RESTORES.load(Ordering::Relaxed), false),
    })
}

/// Whether the restore that was begun last does not end well.
static RESTORES: AtomicBool = AtomicBool::new(false);

/// A restore as it begins, and as it ended.
fn restore(fails: bool, begins: bool) -> ProfileAnswer {
    RESTORES.store(fails, Ordering::Relaxed);
    let state = match (begins, fails) {
        (true, _) => RestoreState::Running,
        (false, true) => RestoreState::Incomplete,
        (false, false) => RestoreState::Restored,
    };
    let done = [
        "done: copy /etc/app.conf from the active",
        "failed: x\x1b: y",
    ];
    ProfileAnswer::Restore(Box::new(GoldenRestore {
        group: name("web"),
        number: 1,
        id: id(1),
        began_ms: 1_700_000_000_000,
        state,
        why: if fails { "the time is over" } else { "" }.into(),
        done: done
            .iter()
            .take(2 - usize::from(begins))
            .map(|one| (*one).to_owned())
            .collect(),
        ready: 1,
        items: 3,
        left: if fails {
            items().into_iter().take(2).collect()
        } else {
            Vec::new()
        },
        held: !begins,
    }))
}

fn acts(held: bool) -> ProfileActs {
    let line = |act: &str, state, why: Option<&str>| ActLine {
        act: act.into(),
        state,
        why: why.map(str::to_owned),
    };
    let acts = vec![
        line("chmod 0600 /etc/app.conf", ActState::Done, None),
        line(
            "systemctl start app.service",
            ActState::Failed,
            Some("no such unit"),
        ),
    ];
    ProfileActs {
        held,
        batches: vec![ActBatch { number: 1, acts }],
    }
}

fn done(what: &str) -> ProfileAnswer {
    let version = line(4, what);
    ProfileAnswer::Done(Box::new(ProfileOrderDone { version }))
}

#[test]
fn ready_shows_what_is_not_and_ends_with_1() {
    let daemon = Daemon::start();
    let output = command(&daemon.socket, "ready web").output().unwrap();
    assert_eq!(code(&output), 1);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "web: not ready: 1 of 3 items (33.3 %), version 3",
        "looked at 1.0 s ago",
        "1.18.0 here, 1.22.1-9 on the active",
        "apt-get install nginx=1.22.1-9 (shadowd can)",
        "not synchronised",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(
        !text.contains("nginx.service"),
        "what is ready is left out: {text}"
    );
    let all = command(&daemon.socket, "ready --all").output().unwrap();
    let text = String::from_utf8(all.stdout).unwrap();
    assert!(
        text.contains("nginx.service") && text.contains("own: this host owns it"),
        "{text}"
    );
    let own = command(&daemon.socket, "ready own").output().unwrap();
    assert_eq!(code(&own), 0);
    let none = command(&daemon.socket, "ready none").output().unwrap();
    assert_eq!(code(&none), 1);
    assert!(shown(&daemon, "status").contains("not ready: 1 item (1 of 3 ready): package nginx"));
}

#[test]
fn a_profile_is_told_in_words() {
    let daemon = Daemon::start();
    let text = shown(&daemon, "profile show --at @1700003600");
    for part in [
        "web version 3",
        "why: package nginx was 1.18.0",
        "learning: new.service",
        "/usr/sbin/nginx",
        "memory 1.00 MiB, peak 2.00 MiB, not sure yet",
        "does not run backup.service",
        "expected at 2023-11-14",
        "in use at 2023-11-14",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("-10.0 %"), "nothing is below 0: {text}");
    let named = shown(&daemon, "profile show --version 3 --at @1700003600");
    assert!(!named.contains("in use at"), "{named}");
    let history = shown(&daemon, "profile history");
    for part in [
        "in use",
        "golden",
        "the first",
        "2 versions of other members",
    ] {
        assert!(history.contains(part), "{part}: {history}");
    }
    assert!(!history.contains('\x1b'));
    let diff = shown(&daemon, "profile diff 1 current");
    assert!(
        diff.contains("+ package nginx is new: 1.22.1-9 (amd64)"),
        "{diff}"
    );
    let accuracy = shown(&daemon, "profile accuracy");
    assert!(
        accuracy.contains("75.0 %") && accuracy.contains("0.84"),
        "{accuracy}"
    );
    let unknown = command(&daemon.socket, "profile diff 9 current")
        .output()
        .unwrap();
    assert_eq!(code(&unknown), 1);
}

#[test]
fn the_repository_is_told_in_words_and_in_json() {
    let daemon = Daemon::start();
    let text = shown(&daemon, "profile repository");
    for part in [
        "s3://profiles/eu  not reached for 2m 00s",
        "last error: nobody listens",
        "34 versions there, 2 wait to be put, 0 to be fetched; listed 3m 00s ago",
        "3 refused, 2 of those written again",
        "1 objects there are not what they are called",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
    let json = shown(&daemon, "--json profile repository");
    let read: ProfileRepository = serde_json::from_str(&json).unwrap();
    assert_eq!(read.repository, Some(repository()));
}

#[test]
fn orders_make_versions_and_files_come_back() {
    let daemon = Daemon::start();
    let text = shown(&daemon, "profile rollback 2");
    assert!(
        text.contains("version 4") && text.contains(": 2; it is pinned"),
        "{text}"
    );
    for (line, order) in [
        ("profile pin", "Pin"),
        ("profile unpin", "Unpin"),
        ("profile golden set", "GoldenSet"),
        ("profile golden apply", "GoldenApply"),
    ] {
        let text = shown(&daemon, line);
        assert!(text.contains(order), "{line}: {text}");
    }
    let list = shown(&daemon, "profile provision list");
    assert!(
        list.contains("chmod 0600") && list.contains("no such unit"),
        "{list}"
    );
    assert!(!list.contains("held"), "{list}");
    assert!(shown(&daemon, "profile provision undo 1").contains("held: nothing is done"));
    assert!(!shown(&daemon, "profile provision resume").contains("held"));
    let scratch = Scratch::new();
    let file = scratch.0.join("web.profile");
    let path = file.to_str().unwrap();
    shown(&daemon, &format!("profile export --output {path}"));
    let text = shown(&daemon, &format!("profile import {path}"));
    assert!(text.contains(": version;"), "{text}");
    fs::write(
        &file,
        "{\"bytes\": \"%\", \"key\": \"\", \"signature\": \"\"}",
    )
    .unwrap();
    let line = format!("profile import {path}");
    let refused = command(&daemon.socket, &line).output().unwrap();
    assert_eq!(code(&refused), 1);
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("base64"), "{text}");
    for (cut, why) in [
        ("{\"bytes\": \"U0hQ", "EOF while parsing"),
        ("", "EOF"),
        ("PK", "expected value"),
    ] {
        fs::write(&file, cut).unwrap();
        let refused = command(&daemon.socket, &line).output().unwrap();
        assert_eq!(code(&refused), 1);
        let text = String::from_utf8(refused.stderr).unwrap();
        assert!(text.contains("cannot read") && text.contains(why), "{text}");
    }
}

/// One after the other: the fixed daemon knows of the last one only.
#[test]
fn a_restore_shows_what_it_does_and_ends_with_what_came_of_it() {
    let daemon = Daemon::start();
    let text = shown(&daemon, "profile golden restore --group web");
    for part in [
        "  done: copy /etc/app.conf from the active\n",
        "1 of 3 items are as the version has them",
        "web: restored",
        "golden version 1",
        "held: nothing is done by itself",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(
        text.matches("done: copy").count(),
        1,
        "each act once: {text}"
    );
    assert!(!text.contains('\x1b'), "{text}");
    let report: GoldenRestore = parsed(&daemon, "profile golden restore --group web");
    assert_eq!(
        (report.state, report.done.len()),
        (RestoreState::Restored, 2)
    );
    let line = "profile golden restore --group web --within 77s";
    let failed = command(&daemon.socket, line).output().unwrap();
    assert_eq!(code(&failed), 1);
    let text = String::from_utf8(failed.stdout).unwrap();
    for part in [
        "not restored: the time is over",
        "1.18.0 here, 1.22.1-9 on the active",
        "not synchronised",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let said = String::from_utf8(failed.stderr).unwrap();
    assert!(said.contains("not as the golden version of web"), "{said}");
    let path = "/v1/groups/web/profile/restore";
    assert_eq!(daemon.post(path, r#"{"within_s": 1}"#).0, 400);
    assert_eq!(daemon.post(path, r#"{"within_s": 60, "x": 1}"#).0, 400);
    assert_eq!(daemon.get(path).0, 200);
}
