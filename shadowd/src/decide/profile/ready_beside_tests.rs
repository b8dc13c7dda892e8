//! What is compared with what the active does now: what its units know, keep open and have in memory.

use super::*;

#[test]
fn a_warm_unit_that_knows_an_older_content_is_told_to_read_it_again() {
    let mut profile = profile();
    let defined_by = "/etc/systemd/system/app.service";
    let unit = profile.content.units.get_mut(UNIT).unwrap();
    unit.defined_by.insert(defined_by.into());
    profile
        .content
        .files
        .insert(defined_by.into(), regular(5, true));
    let judged = |change: fn(&mut Inventory), mode: UnitMode| {
        let mut here = like(&profile);
        here.host.active.insert(UNIT.into());
        let outdated = here.outdated.entry(UNIT.into()).or_default();
        outdated.insert(CONF.into());
        change(&mut here);
        let items = compared(&profile, &here, mode).items.into_iter();
        let mut units = items.filter(|item| item.kind == ItemKind::Unit && item.act.is_some());
        units.next()
    };
    let (unit, warm) = (|| UNIT.to_owned(), UnitMode::Warm);
    let told = judged(|_| (), warm).expect("it is told");
    assert_eq!(told.cause, format!("it runs with what {CONF} said before"));
    assert_eq!(told.act, Some(Act::Reload { unit: unit() }));
    let defined = |here: &mut Inventory| {
        let outdated = here.outdated.get_mut(UNIT).unwrap();
        outdated.insert("/etc/systemd/system/app.service".into());
    };
    let told = judged(defined, warm).expect("it is told");
    assert_eq!(told.act, Some(Act::Restart { unit: unit() }));
    assert_eq!(judged(|_| (), UnitMode::Cold), None);
    // First the file has to be the active's.
    assert_eq!(
        judged(|here| *file(here, CONF) = regular(9, true), warm),
        None
    );
}

#[test]
fn a_port_that_the_active_does_not_open_to_everybody_may_be_closed() {
    let profile = profile();
    let mut here = like(&profile);
    here.passages.insert(port(), closed());
    let modes = BTreeMap::new();
    let told = Beside {
        open: [].into(),
        ..beside()
    };
    let wanted = Wanted {
        group: &"web".parse().unwrap(),
        profile: &profile,
        modes: &modes,
        owner: false,
        beside: &told,
    };
    assert_eq!(compare(&wanted, &here).verdict(), Verdict::Ready);
    // One that is open there and not for sure here proves nothing.
    let unclear = Passage::Unclear("it depends".into());
    here.passages.insert(port(), unclear);
    let readiness = compared(&profile, &here, UnitMode::Cold);
    assert_eq!(readiness.verdict(), Verdict::CannotTell);
    assert_eq!(readiness.items[0].kind, ItemKind::Firewall);
}

#[test]
fn what_is_cold_is_told_and_read_if_there_is_room_and_keeps_nobody_back() {
    let profile = profile();
    let mut here = like(&profile);
    here.resident.insert(DATA.into(), 1);
    let item = |here: &Inventory| {
        let readiness = compared(&profile, here, UnitMode::Cold);
        assert_eq!(readiness.verdict(), Verdict::Ready);
        let mut items = readiness.items.into_iter();
        items.rfind(|item| item.kind == ItemKind::Cache)
    };
    let cold = item(&here).unwrap();
    assert!(cold.cause.starts_with("1 MiB of 64 MiB"), "{}", cold.cause);
    let Some(Act::Warm { unit, files }) = cold.act else {
        panic!("{:?}", cold.act);
    };
    assert_eq!((unit.as_str(), files[DATA].pieces), (UNIT, u64::MAX << 1));
    // A quarter of 8 GiB stays available, and 4e8 bytes for the peak.
    here.host.memory_available = (2 << 30) + 400_000_000 + (62 << 20);
    let full = item(&here).unwrap();
    assert!(
        full.act.is_none() && full.cause.ends_with("no more would fit"),
        "{full:?}"
    );
    here.host.memory_available += 2 << 20;
    assert!(item(&here).unwrap().act.is_some());
    here.resident.clear();
    assert_eq!(item(&here), None, "a file that is not here is told as such");
}

#[test]
fn a_warm_unit_has_to_run_and_then_needs_no_room() {
    let profile = profile();
    let mut here = like(&profile);
    let readiness = compared(&profile, &here, UnitMode::Warm);
    assert_eq!(readiness.verdict(), Verdict::NotReady);
    assert!(
        readiness.items[0].cause.contains("does not run"),
        "{:?}",
        readiness.items[0]
    );
    here.host.active.insert(UNIT.into());
    here.host.memory_available = 1 << 20;
    here.host.busy = Some(4.0);
    here.taken.insert(port(), "app.service".into());
    let readiness = compared(&profile, &here, UnitMode::Warm);
    assert_eq!(
        readiness.verdict(),
        Verdict::Ready,
        "{:?}",
        readiness.items[0]
    );
}
