//! What opening takes, what it finds and what it refuses.

use std::path::Path;

use aya::maps::MapData;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use shadowd::act::guard::{Attachment, Guard, GuardError, Reading};
use shadowd::facts::Vip;

use super::namespaces::{LINK, Pair, ip};
use super::{HOUR, PINS, assert_silent, guarded, now, open, serve, vips};

#[test]
fn addresses_follow_the_configuration_and_unknown_ones_are_named() {
    let pair = Pair::new();
    guarded(&pair, || {
        let mut guard = open(Attachment::Tcx);
        let until = now().after(HOUR);
        guard.set_deadline(&vips(), Some(until)).expect("guarded");
        let other: Vip = "192.0.2.11/24".parse().expect("a vip");
        let unknown = guard.set_deadline(&[other, vips()[0]], None);
        assert!(matches!(unknown, Err(GuardError::NotWatched { vip, .. }) if vip == other));
        assert_eq!(guard.readings()[0].deadline, None, "the others were set");

        guard.watch(&[vips()[1], other]).expect("there is room");
        let deadlines = |guard: &Guard| -> Vec<_> {
            let one = |reading: &Reading| (reading.vip, reading.deadline);
            guard.readings().iter().map(one).collect()
        };
        let expected = [(other, None), (vips()[1], Some(until))];
        assert_eq!(deadlines(&guard), expected);
        drop(guard);
        let both = Guard::open(LINK, Path::new(PINS), &[vips()[1], other]).expect("it is left");
        assert_eq!(deadlines(&both), expected);
        drop(both);
        let back = open(Attachment::Tcx);
        assert_eq!(
            deadlines(&back),
            [(vips()[0], None), (vips()[1], Some(until))]
        );
    });
}

#[test]
fn maps_of_another_layout_are_replaced_by_closed_ones() {
    let pair = Pair::new();
    let far = pair.far.clone();
    guarded(&pair, move || {
        let _listeners = serve();
        let guard = open(Attachment::Tcx);
        guard
            .set_deadline(&vips(), Some(now().after(HOUR)))
            .expect("guarded");
        let (slots, vips) = (
            Path::new(PINS).join(LINK).join("slots"),
            Path::new(PINS).join(LINK).join("vips"),
        );
        std::fs::remove_file(&slots).expect("it is pinned");
        // Any map of another shape: that of the addresses.
        let other = MapData::from_pin(vips).expect("it is pinned");
        other.pin(&slots).expect("the place is free");
        drop(guard);
        let guard = open(Attachment::Tcx);
        assert!(!guard.is_kept());
        assert_silent(&far);
        let now_there = MapData::from_pin(&slots).expect("it is pinned");
        let info = now_there.info().expect("a map");
        assert_eq!((info.value_size(), info.max_entries()), (80, 1_024));
    });
}

#[test]
fn opening_takes_two_capabilities_and_a_deadline_none() {
    let pair = Pair::new();
    let keep = |kept| {
        let sets = CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, sets).expect("giving up is allowed");
    };
    let near = pair.near.clone();
    guarded(&pair, move || {
        keep(CapabilitySet::BPF | CapabilitySet::NET_ADMIN);
        let mut guard = open(Attachment::Tcx);
        // Programs run by this thread are root's and have all again.
        keep(CapabilitySet::NET_ADMIN);
        ip(&format!("-n {near} link del {LINK}"));
        ip(&format!("-n {near} link add {LINK} type veth peer name v2"));
        guard.reattach().expect("it is there again");
        let pins = std::fs::read_dir(Path::new(PINS).join(LINK)).expect("a folder");
        assert_eq!(pins.count(), 4);
        keep(CapabilitySet::empty());
        guard
            .set_deadline(&vips(), Some(now().after(HOUR)))
            .expect("guarded");
        assert!(guard.readings().iter().all(|one| one.deadline.is_some()));
        let refused = Guard::open(LINK, Path::new(PINS), &vips());
        assert!(
            matches!(
                refused,
                Err(GuardError::Load { .. }
                    | GuardError::Program { .. }
                    | GuardError::Folder { .. })
            ),
            "{refused:?}"
        );
    });
}

#[test]
fn what_cannot_be_guarded_is_said_and_leaves_nothing() {
    let pair = Pair::new();
    guarded(&pair, || {
        let absent = Guard::open("absent", Path::new(PINS), &vips());
        assert!(
            matches!(absent, Err(GuardError::NoInterface { .. })),
            "{absent:?}"
        );
        ip("tuntap add tun0 mode tun");
        let tunnel = Guard::open("tun0", Path::new(PINS), &vips());
        assert!(
            matches!(tunnel, Err(GuardError::NotEthernet(_))),
            "{tunnel:?}"
        );
        let plain = Guard::open(LINK, Path::new("/proc/shadowd"), &vips());
        assert!(matches!(plain, Err(GuardError::NoBpfFs(_))), "{plain:?}");
        let many: Vec<Vip> = (0..=1_024_u32)
            .map(|n| format!("2001:db8:1::{n:x}/64").parse().expect("a vip"))
            .collect();
        let many = Guard::open(LINK, Path::new(PINS), &many);
        assert!(matches!(many, Err(GuardError::TooMany(_))), "{many:?}");
        assert!(!Path::new(PINS).join(LINK).exists());
    });
}
