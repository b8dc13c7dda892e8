//! Keepers: what they take in, what they keep, what they refuse.

use std::fs;

use super::bench::{Bench, NOW, fact, hash, profile, signed};
use super::letter::Body;
use crate::decide::profile::codec;
use crate::facts::{
    FileFact, ItemKind, Name, Observation, Place, Profile, Reason, Signed, Version, VersionId,
};
use crate::link::signature::sign;
use crate::observe::inventory::HashRules;
use crate::serve::protocol::{ActOrder, Code, ProfileQuery, Refusal, RestoreRequest, RestoreState};
use crate::serve::{ProfileAnswer, ProfileQuestion};

fn b() -> Name {
    "b".parse().unwrap()
}

/// `b` says it: the keeper takes it or not.
fn hears(bench: &mut Bench, body: Body) -> Result<(), String> {
    bench.keeper.on_letter(&b(), body, NOW)
}

/// A version of `b` after what is in use here.
fn version_of_b(bench: &Bench, reason: Reason, profile: Profile) -> Signed {
    let current = bench.keeper.current().cloned();
    let before = current.as_ref().map(|(id, version)| {
        let place = Place {
            number: version.number,
            id: *id,
        };
        (place, version.as_ref())
    });
    signed(&bench.folder.identity("b"), before, reason, profile).0
}

fn use_version(bench: &mut Bench, reason: Reason, profile: Profile) -> VersionId {
    let signed = version_of_b(bench, reason, profile);
    let id = VersionId::of(&signed.bytes);
    hears(bench, Body::Version(signed)).unwrap();
    assert_eq!(bench.keeper.current().map(|(id, _)| *id), Some(id));
    id
}

fn import(bench: &mut Bench, signed: Signed) -> Result<ProfileAnswer, Refusal> {
    bench.keeper.answer(ProfileQuestion::Import(signed), NOW)
}

fn refused(bench: &mut Bench, signed: Signed) -> String {
    let before = bench.keeper.current().map(|(id, _)| *id);
    let refusal = import(bench, signed).expect_err("it is refused");
    assert_eq!(refusal.code, Code::BadRequest, "{refusal}");
    assert_eq!(bench.keeper.current().map(|(id, _)| *id), before);
    refusal.message
}

#[test]
fn an_import_is_a_version_if_it_is_a_members_and_whole() {
    let mut bench = Bench::owning();
    let file = bench.write("app.conf", "one");
    let own = bench.keeper.common.identity.clone();
    bench
        .keeper
        .make_version(Reason::First, profile([file.clone()]), NOW)
        .unwrap();
    let other = bench.folder.identity("b");
    let stranger = bench.folder.identity("stranger");
    let good = |identity| signed(identity, None, Reason::First, profile([file.clone()])).0;
    for identity in [&own, &other] {
        let signed = good(identity);
        let id = VersionId::of(&signed.bytes);
        import(&mut bench, signed).unwrap();
        let (_, version) = bench.keeper.current().unwrap();
        assert_eq!(version.reason, Reason::Import(id));
        assert_eq!(version.author, own.id(), "it is a version of its own");
    }
    let mut unsigned = good(&own);
    unsigned.signature.clear();
    assert!(refused(&mut bench, unsigned).contains("its signature is wrong"));
    assert!(refused(&mut bench, good(&stranger)).contains("no member of the group"));
    let mut forged = good(&own);
    forged.key = good(&stranger).key;
    assert!(refused(&mut bench, forged).contains("signed by another host"));
    let mut cut = good(&own);
    cut.bytes.truncate(cut.bytes.len() - 3);
    assert!(refused(&mut bench, cut).contains("damaged or cut off"));
    let mut newer = good(&own);
    newer.bytes[5] = 77;
    assert!(refused(&mut bench, newer).contains("format 77 is newer"));
    let foreign = Signed {
        bytes: b"PK\x03\x04".to_vec(),
        ..good(&own)
    };
    assert!(refused(&mut bench, foreign).contains("no version of a profile"));
    let (_, mut strange) = signed(&own, None, Reason::First, profile([file.clone()]));
    strange.group = "db".parse().unwrap();
    let strange = sign(&own, codec::encode(&strange).unwrap()).unwrap();
    assert!(refused(&mut bench, strange).contains("of the group db"));
}

#[test]
fn an_import_with_paths_outside_of_the_roots_is_refused_and_names_them() {
    let mut bench = Bench::owning();
    bench
        .keeper
        .make_version(Reason::First, Profile::default(), NOW)
        .unwrap();
    let own = bench.keeper.common.identity.clone();
    let with = |path: &str, fact: FileFact| {
        signed(
            &own,
            None,
            Reason::First,
            profile([(path.to_owned(), fact)]),
        )
        .0
    };
    let hidden = || {
        let mut fact = fact(b"x");
        if let crate::facts::FileKind::Regular { replicated, .. } = &mut fact.kind {
            *replicated = false;
        }
        fact
    };
    for path in ["etc/relative", "/etc/../srv/.ssh/x"] {
        let why = refused(&mut bench, with(path, fact(b"x")));
        assert!(
            why.contains("not a plain absolute one") && why.contains(path),
            "{why}"
        );
    }
    let path = "/srv/.ssh/authorized_keys";
    let why = refused(&mut bench, with(path, fact(b"x")));
    assert!(
        why.contains("does not let in") && why.contains(path),
        "{why}"
    );
    let why = refused(&mut bench, with(path, hidden()));
    assert!(
        why.contains("no configuration root") && why.contains(path),
        "{why}"
    );
    let inside = bench.folder.etc("app.conf");
    import(&mut bench, with(&inside, fact(b"x"))).unwrap();
}

/// All that is due, until nothing is.
fn keep_all(bench: &mut Bench) {
    for seconds in 0..20 {
        let now = NOW.after(std::time::Duration::from_secs(seconds));
        bench.keeper.keep_contents(now);
    }
}

#[test]
fn contents_that_versions_name_outlast_the_files_and_are_for_members_alone() {
    let mut bench = Bench::with("replicate = [\"{etc}/*\"]\nsecret = [\"*.key\"]");
    let (first, second) = (bench.write("app.conf", "one"), bench.write("other", "x"));
    let secret = bench.write("tls.key", "secret");
    let golden = use_version(
        &mut bench,
        Reason::First,
        profile([first.clone(), second.clone(), secret.clone()]),
    );
    use_version(
        &mut bench,
        Reason::GoldenSet(golden),
        profile([first.clone()]),
    );
    keep_all(&mut bench);
    // The file changes, and another version follows.
    let changed = bench.write("app.conf", "two");
    use_version(
        &mut bench,
        Reason::Deviation("x".into()),
        profile([changed.clone()]),
    );
    keep_all(&mut bench);
    let keeper = &mut bench.keeper;
    let asked = |keeper: &mut super::keeper::Keeper, path: &str, content: &[u8]| {
        keeper.content_for(path, &hash(content), NOW)
    };
    assert_eq!(asked(keeper, &first.0, b"two").unwrap(), b"two", "in use");
    assert_eq!(asked(keeper, &first.0, b"one").unwrap(), b"one", "golden");
    assert!(asked(keeper, &secret.0, b"secret").is_err(), "a secret");
    assert!(asked(keeper, "/etc/shadow", b"one").is_err(), "not named");
    assert!(
        asked(keeper, &second.0, b"one").is_err(),
        "not of this path"
    );
    let kept = keeper
        .common
        .store()
        .contents(&"web".parse().unwrap())
        .unwrap();
    assert!(!kept.contains(&hash(b"secret")) && kept.len() == 3);
    // It comes back after a restart of the daemon, whatever became of the disk.
    fs::remove_file(&first.0).unwrap();
    assert_eq!(asked(keeper, &first.0, b"one").unwrap(), b"one");
}

#[test]
fn a_content_that_is_not_on_this_disk_is_asked_for_and_only_what_was_asked_for_is_kept() {
    let mut bench = Bench::new();
    let path = bench.folder.etc("app.conf");
    use_version(
        &mut bench,
        Reason::First,
        profile([(path.clone(), fact(b"one"))]),
    );
    keep_all(&mut bench);
    assert!(bench.keeper.archive.is_lacking(&hash(b"one")));
    for bytes in [&b"other"[..], b"one"] {
        hears(&mut bench, Body::File(bytes.to_vec())).unwrap();
    }
    let group: Name = "web".parse().unwrap();
    let kept = bench.keeper.common.store().contents(&group).unwrap();
    assert_eq!(kept.into_iter().collect::<Vec<_>>(), [hash(b"one")]);
    assert!(!bench.keeper.archive.is_lacking(&hash(b"one")));
    assert_eq!(
        bench.keeper.kept_content(&hash(b"one"), NOW),
        Some(b"one".to_vec())
    );
}

#[test]
fn a_restore_is_refused_without_a_golden_version_on_the_owner_and_beside_another() {
    let mut bench = Bench::new();
    let refused = |bench: &mut Bench| {
        let question = ProfileQuestion::Restore(RestoreRequest::default());
        bench
            .keeper
            .answer(question, NOW)
            .expect_err("it is refused")
    };
    assert_eq!(refused(&mut bench).code, Code::UnknownVersion);
    let file = bench.write("app.conf", "one");
    let golden = use_version(&mut bench, Reason::First, profile([file.clone()]));
    assert!(refused(&mut bench).message.contains("no version is golden"));
    use_version(
        &mut bench,
        Reason::GoldenSet(golden),
        profile([file.clone()]),
    );
    bench.keeper.keep_contents(NOW);
    bench.keeper.on_owner(Some("a".parse().unwrap()));
    assert!(refused(&mut bench).message.contains("owns group web"));
    bench.keeper.on_owner(Some(b()));
    let question = ProfileQuestion::Restore(RestoreRequest::default());
    let begun = bench.keeper.answer(question, NOW).unwrap();
    let ProfileAnswer::Restore(report) = begun else {
        panic!("{begun:?}");
    };
    assert_eq!((report.number, report.id), (1, golden));
    assert!(!report.held, "the version in use has the same content");
    assert_eq!(refused(&mut bench).code, Code::Busy);
}

/// What the owner has is what clients get: there nothing is changed under them.
#[test]
fn nothing_is_taken_back_on_the_owner() {
    let mut bench = Bench::new();
    let mut refused = |owner: &str| {
        bench.keeper.on_owner(Some(owner.parse().unwrap()));
        let question = ProfileQuestion::ActOrder(ActOrder::Undo { batch: 1 });
        let answer = bench.keeper.answer(question, NOW);
        answer.expect_err("it is refused").message
    };
    assert!(refused("a").contains("owns group web"));
    assert!(refused("b").contains("no batch 1"));
}

#[test]
fn a_restore_to_another_content_than_the_one_in_use_holds_what_would_undo_it() {
    let mut bench = Bench::new();
    let file = bench.write("app.conf", "one");
    let golden = use_version(&mut bench, Reason::First, profile([file.clone()]));
    use_version(&mut bench, Reason::GoldenSet(golden), Profile::default());
    bench.keeper.keep_contents(NOW);
    let question = ProfileQuestion::Restore(RestoreRequest::default());
    let begun = bench.keeper.answer(question, NOW).unwrap();
    let ProfileAnswer::Restore(report) = begun else {
        panic!("{begun:?}");
    };
    assert!(report.held);
    assert_eq!(report.id, golden);
}

#[test]
fn a_time_that_is_over_shows_what_was_in_use_then() {
    let mut bench = Bench::owning();
    let names = ["one", "two"];
    let mut made = Vec::new();
    for name in names {
        let file = bench.write("app.conf", name);
        let reason = Reason::Deviation(name.into());
        let id = bench
            .keeper
            .make_version(reason, profile([file]), NOW)
            .unwrap();
        let (_, version) = bench.keeper.stored(&id).unwrap();
        made.push((id, version.wall_ms));
        // The next one is of a later millisecond.
        let began = std::time::Instant::now();
        while began.elapsed() < std::time::Duration::from_millis(5) {
            std::thread::yield_now();
        }
    }
    let shown = |bench: &mut Bench, version: Option<&str>, at: Option<i64>| {
        let query = ProfileQuery {
            version: version.map(str::to_owned),
            at,
        };
        match bench.keeper.answer(ProfileQuestion::Show(query), NOW)? {
            ProfileAnswer::Show(shown) => Ok((shown.version.map(|line| line.id), shown.in_use_at)),
            other => panic!("{other:?}"),
        }
    };
    for (id, wall_ms) in &made {
        let found: Result<_, Refusal> = shown(&mut bench, None, Some(*wall_ms));
        assert_eq!(found.unwrap(), (Some(*id), Some(*wall_ms)));
    }
    let (newest, _) = made[1];
    let now = shown(&mut bench, None, None).unwrap();
    assert_eq!(now, (Some(newest), None));
    // One that is named is that one, whatever the time.
    let named = shown(&mut bench, Some("1"), Some(made[1].1)).unwrap();
    assert_eq!(named, (Some(made[0].0), None));
    let tomorrow = made[1].1 + 24 * 3_600_000;
    assert_eq!(
        shown(&mut bench, None, Some(tomorrow)).unwrap(),
        (Some(newest), None)
    );
    let early = shown(&mut bench, None, Some(made[0].1 - 1)).unwrap_err();
    assert!(
        early.message.contains("no version was in use then"),
        "{early}"
    );
}

#[test]
fn a_version_of_a_number_that_ends_all_lines_is_not_believed() {
    let mut bench = Bench::new();
    let (_, mut last) = signed(
        &bench.folder.identity("b"),
        None,
        Reason::First,
        Profile::default(),
    );
    for number in [0, Version::NUMBER_MAX + 1, u64::MAX] {
        last.number = number;
        let bytes = codec::encode(&last).unwrap();
        let signed = sign(&bench.folder.identity("b"), bytes).unwrap();
        let why = hears(&mut bench, Body::Version(signed)).unwrap_err();
        assert!(why.contains("no number of a version"), "{why}");
    }
    assert!(bench.keeper.current().is_none());
}

#[test]
fn what_was_learned_comes_back_and_what_is_written_otherwise_is_learned_anew() {
    let mut bench = Bench::new();
    let file = bench.write("app.conf", "one");
    use_version(&mut bench, Reason::First, profile([file.clone()]));
    bench.keeper.save();
    let again = super::keeper::restored(
        &bench.keeper.common,
        &bench.keeper.group,
        &bench.keeper.rules,
    );
    assert_eq!(again.profile().content.files.len(), 1);
    let group: Name = "web".parse().unwrap();
    let older = postcard::to_stdvec(&bench.keeper.learner).unwrap();
    bench
        .keeper
        .common
        .store()
        .keep_learned(&group, &older)
        .unwrap();
    let anew = super::keeper::restored(
        &bench.keeper.common,
        &bench.keeper.group,
        &bench.keeper.rules,
    );
    assert!(anew.profile().content.files.is_empty());
}

/// What a version would say of a file as it is.
fn as_it_is(bench: &mut Bench, name: &str, content: &str) -> (String, FileFact) {
    let (path, _) = bench.write(name, content);
    let here = crate::observe::inventory::FileReader::new(HashRules {
        replicated: Vec::new(),
        secret: Vec::new(),
        key: [0; 32],
    })
    .read_as(&path, Some(true));
    (path, here.unwrap().unwrap())
}

/// The contents come from what was kept, the acts are those of a real plan; systemd, which would run
/// them, is not here.
#[tokio::test]
async fn a_wrecked_host_comes_back_from_what_was_kept() {
    let mut bench = Bench::new();
    let (edited, gone) = (
        as_it_is(&mut bench, "app.conf", "golden"),
        as_it_is(&mut bench, "other.conf", "other"),
    );
    let files = profile([edited.clone(), gone.clone()]);
    let golden = use_version(&mut bench, Reason::First, files);
    use_version(&mut bench, Reason::GoldenSet(golden), Profile::default());
    keep_all(&mut bench);
    fs::write(&edited.0, "wrecked").unwrap();
    fs::remove_file(&gone.0).unwrap();
    let question = ProfileQuestion::Restore(RestoreRequest::default());
    bench.keeper.answer(question, NOW).unwrap();
    let observation = Observation::default();
    let dir = bench.folder.0.join("a/provision/web/1");
    let mut seconds = 0;
    let report = |bench: &Bench| bench.keeper.restored().unwrap();
    let lacks_files = |bench: &Bench| {
        let report = report(bench);
        let files = report.left.iter();
        files.filter(|item| item.kind == ItemKind::File).count()
    };
    while !dir.join(crate::act::provision::PLAN).exists() {
        let now = NOW.after(std::time::Duration::from_secs(seconds));
        bench.keeper.restore_turn(&observation, now).await;
        bench.keeper.provision(now).await;
        seconds += 1;
        assert!(seconds < 10, "no batch was written: {:?}", report(&bench));
    }
    assert_eq!(lacks_files(&bench), 2);
    crate::act::provision::provision(&dir).unwrap();
    assert_eq!(fs::read(&edited.0).unwrap(), b"golden");
    assert_eq!(fs::read(&gone.0).unwrap(), b"other");
    while lacks_files(&bench) > 0 {
        let now = NOW.after(std::time::Duration::from_secs(seconds));
        bench.keeper.restore_turn(&observation, now).await;
        bench.keeper.provision(now).await;
        seconds += 1;
        tokio::task::yield_now().await;
        assert!(
            seconds < 100_000,
            "it is still lacking: {:?}",
            report(&bench)
        );
    }
    // A host that owns the group is restored no more.
    if report(&bench).state == RestoreState::Running {
        bench.keeper.on_owner(Some("a".parse().unwrap()));
        bench.keeper.restore_turn(&observation, NOW).await;
        assert_eq!(report(&bench).state, RestoreState::Abandoned);
    }
}
