//! A learner beside a host that goes on, changes and changes back.

use super::*;
use crate::facts::{FileKind, Port, Protocol, Scope, UnitDigest, ValueHash};

const RULES: Rules = Rules {
    settle: 60,
    forget: 8 * 24 * 3_600,
};
/// Local time of the first digest: the begin of an hour.
pub(super) const BEGIN: u64 = 1_764_000_000 / 3_600 * 3_600;
pub(super) const UNIT: &str = "app.service";
const CONF: &str = "/etc/app.conf";

/// A learner, and the host that it learns from.
pub(super) struct Bench {
    pub learner: Learner,
    pub now: u64,
    pub digest: UnitDigest,
    pub here: Content,
    pub told: Vec<Output>,
}

fn database() -> Dependency {
    Dependency {
        protocol: Protocol::Tcp,
        remote: "db.example".into(),
        port: 5_432,
    }
}

fn conf(byte: u8) -> FileFact {
    FileFact {
        kind: FileKind::Regular {
            hash: ValueHash::from_bytes([byte; 32]),
            size: 1,
            replicated: true,
        },
        owner: "root".into(),
        group: "root".into(),
        mode: 0o644,
    }
}

fn package(version: &str) -> PackageFact {
    PackageFact {
        version: version.into(),
        architecture: "amd64".into(),
    }
}

impl Bench {
    pub fn new() -> Self {
        let program = "/usr/bin/app".to_owned();
        let port = Port {
            protocol: Protocol::Tcp,
            port: 80,
            scope: Scope::All,
        };
        let digest = UnitDigest {
            uses: [(ResourceKind::Cpu, 0.5)].into(),
            programs: [program.clone()].into(),
            ports: [port].into(),
            dependencies: [(database(), 1.0)].into(),
            reads: [CONF.to_owned()].into(),
        };
        let unit = UnitProfile {
            enabled: "enabled".into(),
            programs: [(program, Some("app".to_owned()))].into(),
            ..UnitProfile::default()
        };
        let here = Content {
            units: [(UNIT.to_owned(), unit)].into(),
            packages: [("app".to_owned(), package("1.0"))].into(),
            files: [(CONF.to_owned(), conf(1))].into(),
            parameters: BTreeMap::new(),
        };
        Self {
            learner: Learner::new(RULES),
            now: BEGIN,
            digest,
            here,
            told: Vec::new(),
        }
    }

    /// Ten seconds each go by.
    pub fn pass(&mut self, seconds: u64) {
        self.pass_by(seconds, 10);
    }

    pub fn pass_by(&mut self, seconds: u64, each: u32) {
        let end = self.now + seconds;
        while self.now < end {
            self.now += u64::from(each);
            let digest = Digest {
                local_second: self.now,
                seconds: each,
                units: [(UNIT.to_owned(), self.digest.clone())].into(),
            };
            self.learner.on_digest(&digest);
            self.learner.on_inventory(&self.here);
            self.told
                .extend(std::iter::from_fn(|| self.learner.poll_output()));
        }
    }

    pub fn versions(&mut self) -> Vec<Option<String>> {
        let told = std::mem::take(&mut self.told).into_iter();
        told.filter_map(|output| match output {
            Output::Version(reason) => Some(reason),
            _ => None,
        })
        .collect()
    }

    pub fn begun() -> Self {
        let mut bench = Self::new();
        bench.pass(600);
        assert_eq!(bench.versions(), [None]);
        bench
    }
}

#[test]
fn the_first_version_has_all_that_was_seen_and_found() {
    let bench = Bench::begun();
    let content = &bench.learner.profile().content;
    let unit = &content.units[UNIT];
    assert_eq!(unit.enabled, "enabled");
    assert_eq!(unit.programs["/usr/bin/app"], Some("app".to_owned()));
    assert_eq!((unit.ports.len(), unit.dependencies.len()), (1, 1));
    assert_eq!(content.packages["app"], package("1.0"));
    assert_eq!(content.files[CONF], conf(1));
}

#[test]
fn a_change_that_lasts_makes_a_version_and_one_that_passes_is_told() {
    let mut bench = Bench::begun();
    bench.here.files.insert(CONF.into(), conf(2));
    bench.pass(30);
    bench.here.files.insert(CONF.into(), conf(1));
    bench.pass(300);
    assert!(
        bench
            .told
            .iter()
            .any(|one| matches!(one, Output::Passed(what) if what.contains(CONF)))
    );
    assert!(bench.versions().is_empty());
    bench.here.files.insert(CONF.into(), conf(3));
    bench.here.packages.insert("app".into(), package("2.0"));
    bench.pass(300);
    let versions = bench.versions();
    let [Some(reason)] = &versions[..] else {
        panic!("{versions:?}");
    };
    assert!(
        reason.contains("package app was 1.0 (amd64), is 2.0 (amd64)"),
        "{reason}"
    );
    assert!(reason.contains("/etc/app.conf: content"), "{reason}");
    assert_eq!(bench.learner.profile().content.files[CONF], conf(3));
}

#[test]
fn a_new_dependency_belongs_after_a_while_and_a_single_visit_does_not() {
    let mut bench = Bench::begun();
    let other = Dependency {
        port: 6_379,
        ..database()
    };
    bench.digest.dependencies.insert(other.clone(), 1.0);
    bench.pass(10);
    bench.digest.dependencies.remove(&other);
    bench.pass(600);
    assert!(bench.versions().is_empty());
    bench.digest.dependencies.insert(other, 1.0);
    bench.pass(600);
    let versions = bench.versions();
    assert_eq!(versions.len(), 1, "{versions:?}");
    assert!(
        versions[0]
            .as_ref()
            .is_some_and(|why| why.contains("db.example:6379 is new"))
    );
}

#[test]
fn what_is_not_used_for_long_is_gone() {
    let mut bench = Bench::begun();
    bench.digest.dependencies.clear();
    // Nobody looked for a month, which says nothing.
    bench.now += 30 * 24 * 3_600;
    bench.pass(600);
    assert!(bench.versions().is_empty());
    bench.pass_by(RULES.forget + 7_200, 3_600);
    let versions = bench.versions();
    assert!(
        versions
            .iter()
            .flatten()
            .any(|why| why.contains("db.example:5432 is gone")),
        "{versions:?}"
    );
}

#[test]
fn a_file_that_never_rests_is_left_out_and_told_once() {
    let mut bench = Bench::begun();
    for byte in 0..60 {
        bench.here.files.insert(CONF.into(), conf(byte + 10));
        bench.pass(10);
    }
    let restless = |one: &&Output| matches!(one, Output::Restless(_));
    assert_eq!(bench.told.iter().filter(restless).count(), 1);
    assert!(bench.versions().is_empty());
}

#[test]
fn a_version_of_another_is_gone_on_from() {
    let bench = Bench::begun();
    let profile = bench.learner.profile().clone();
    let mut successor = Bench::new();
    successor.learner.believe(profile);
    successor.pass(600);
    assert!(successor.versions().is_empty(), "nothing has changed");
}

#[test]
fn hours_are_judged_by_what_was_expected_of_them() {
    let mut bench = Bench::begun();
    bench.pass_by(10 * 24 * 3_600, 1_800);
    let accuracy = bench.learner.accuracy();
    assert_eq!(accuracy.units.precision(), Some(1.0));
    assert!(
        accuracy.units.recall().is_some_and(|recall| recall > 0.98),
        "{accuracy:?}"
    );
    assert_eq!(accuracy.dependencies.precision(), Some(1.0));
    bench.told.clear();
    bench.digest.dependencies.clear();
    bench.pass_by(3 * 3_600, 1_800);
    let missing =
        |one: &Output| matches!(one, Output::Missing(what) if what.contains("db.example"));
    assert!(bench.told.iter().any(missing), "{:?}", bench.told);
}

#[test]
fn it_comes_back_from_its_bytes() {
    let bench = Bench::begun();
    let bytes = postcard::to_stdvec(&bench.learner).expect("it is written");
    let mut again: Learner = postcard::from_bytes(&bytes).expect("it is read");
    assert_eq!(again.profile(), bench.learner.profile());
    assert_eq!(again.poll_output(), None);
}

#[test]
fn a_timer_belongs_though_it_has_no_process() {
    let mut bench = Bench::new();
    let timer = UnitProfile {
        enabled: "enabled".into(),
        defined_by: ["/etc/systemd/system/app.timer".to_owned()].into(),
        ..UnitProfile::default()
    };
    bench.here.units.insert("app.timer".into(), timer);
    let path = "/etc/systemd/system/app.timer".to_owned();
    bench.here.files.insert(path.clone(), conf(3));
    bench.pass(600);
    assert_eq!(bench.versions(), [None]);
    let content = &bench.learner.profile().content;
    assert_eq!(content.units["app.timer"].enabled, "enabled");
    assert!(content.files.contains_key(&path));
    assert!(bench.learner.asked().units.contains("app.timer"));
}

#[test]
fn what_no_version_may_name_is_not_learned_wherever_it_comes_from() {
    let mut bench = Bench::new();
    let unit = UnitProfile::default();
    // A trigger, a unit of the configuration, and one that runs.
    for name in ["_x.timer", "-x.service", "~x.service"] {
        bench.here.units.insert(name.into(), unit.clone());
    }
    bench.learner.configure(RULES, ["-x.service".to_owned()]);
    let digest = Digest {
        local_second: bench.now,
        seconds: 10,
        units: [("~x.service".to_owned(), bench.digest.clone())].into(),
    };
    bench.learner.on_digest(&digest);
    let parameters = &mut bench.here.parameters;
    parameters.insert("net.ipv4.conf.br:0".into(), "1".into());
    parameters.insert("vm.swappiness".into(), "60".into());
    bench.here.packages.insert("app".into(), package("1.0 x"));
    bench.pass(600);
    assert_eq!(bench.versions(), [None]);
    let content = &bench.learner.profile().content;
    let names: Vec<&String> = content.units.keys().collect();
    assert_eq!(names, [UNIT]);
    let parameters: Vec<&String> = content.parameters.keys().collect();
    assert_eq!(parameters, ["vm.swappiness"]);
    assert!(content.packages.is_empty());
}

#[test]
fn what_no_version_may_have_costs_its_unit_nothing_else_and_is_told_once() {
    let mut bench = Bench::new();
    let long = "X".repeat(5_000);
    let unit = bench.here.units.get_mut(UNIT).expect("it is here");
    unit.environment = [long, "HOME".to_owned()]
        .map(|name| (name, ValueHash::from_bytes([1; 32])))
        .into();
    unit.limits = [("LimitCORE", "1\n2"), ("LimitNOFILE", "1024")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    unit.defined_by = ["/etc/../app.service".to_owned()].into();
    unit.programs.insert("app".into(), None);
    bench.digest.programs.insert("app".into());
    bench.digest.reads.insert("/etc//app.d".into());
    let mut foreign = database();
    foreign.remote = "y".repeat(5_000);
    bench.digest.dependencies.insert(foreign, 1.0);
    bench.pass(600);
    let told = std::mem::take(&mut bench.told).into_iter();
    let told = told.filter_map(|output| match output {
        Output::LeftOut(what) => Some(what),
        _ => None,
    });
    let told: Vec<String> = told.collect();
    assert_eq!(told.len(), 5, "two texts are said as one: {told:?}");
    let unit = &bench.learner.profile().content.units[UNIT];
    let names = |names: Vec<&String>| names.into_iter().cloned().collect::<Vec<String>>();
    assert_eq!(names(unit.environment.keys().collect()), ["HOME"]);
    assert_eq!(names(unit.limits.keys().collect()), ["LimitNOFILE"]);
    assert_eq!(names(unit.programs.keys().collect()), ["/usr/bin/app"]);
    assert_eq!(names(unit.reads.iter().collect()), [CONF]);
    assert!(unit.defined_by.is_empty() && unit.dependencies.len() == 1);
    // It went and comes back: that is told again.
    let limits = |bench: &mut Bench, core: Option<&str>| {
        let unit = bench.here.units.get_mut(UNIT).expect("it is here");
        unit.limits.remove("LimitCORE");
        let core = core.map(|core| ("LimitCORE".to_owned(), core.to_owned()));
        unit.limits.extend(core);
        bench.pass(60);
    };
    limits(&mut bench, None);
    assert_eq!(bench.told, []);
    limits(&mut bench, Some("1\n2"));
    assert!(matches!(&bench.told[..], [Output::LeftOut(what)] if what.contains("setting")));
}

#[test]
fn a_version_that_could_not_be_kept_is_due_again_also_after_a_restart() {
    let mut bench = Bench::new();
    bench.pass(600);
    assert_eq!(bench.versions(), [None]);
    bench.learner.on_unkept(None, None);
    bench.pass(60);
    assert_eq!(bench.versions(), [None], "the first");
    let in_use = bench.learner.profile().content.clone();
    bench.here.files.insert(CONF.into(), conf(2));
    bench.pass(300);
    let reasons = bench.versions();
    assert_eq!(reasons.len(), 1);
    bench.learner.on_unkept(reasons[0].clone(), Some(&in_use));
    let bytes = postcard::to_stdvec(&bench.learner).expect("it is written");
    bench.pass(60);
    assert_eq!(bench.versions(), reasons);
    bench.learner = postcard::from_bytes(&bytes).expect("it is read");
    bench.pass(60);
    assert_eq!(bench.versions(), reasons);
    // Of what units need the content says nothing.
    let in_use = bench.learner.profile().content.clone();
    let needs = Some("cpu of app.service".to_owned());
    bench.learner.on_unkept(needs.clone(), Some(&in_use));
    bench.pass(600);
    assert_eq!(bench.versions(), [needs]);
}
