//! Totals: across evictions, and across a restart of the daemon.

use super::*;
use crate::decide::aggregate::caught_up;
use crate::facts::{AggregateState, Flow, UnitTotals};

/// Flows of several units, some more than the tables hold.
fn busy(second: u64, ends: &[(u8, u64)]) -> Sample {
    let mut sample = at(second);
    for (end, bytes) in ends {
        let mut flow = delta(*end, second).1;
        flow.cgroup = u64::from(end % 7) + 1;
        flow.counts.rx_bytes = *bytes;
        sample.flows.push(flow);
        let path = format!("/system.slice/u{}.service", flow.cgroup);
        sample.cgroups.push((flow.cgroup, path));
    }
    sample
}

fn received(state: &AggregateState) -> (u64, u64) {
    let units = state
        .units
        .values()
        .map(|total| total.network.rx_bytes)
        .sum();
    let flows = state.flows.iter().map(|flow| flow.total.rx_bytes).sum();
    (units, flows)
}

#[test]
fn a_forgotten_unit_leaves_its_totals() {
    let mut aggregator = Aggregator::new(AggregateLimits {
        units: 2,
        ..Default::default()
    });
    for end in 0..6 {
        aggregator.absorb(busy(u64::from(end), &[(end, 10)]));
    }
    let seen = aggregator.absorb(at(9));
    let names: Vec<(&str, u64)> = seen
        .units
        .iter()
        .map(|unit| (unit.unit.as_str(), unit.total.network.rx_bytes))
        .collect();
    assert_eq!(
        names,
        [(FORGOTTEN, 40), ("u5.service", 10), ("u6.service", 10)]
    );
    let state = aggregator.export();
    let mut next = Aggregator::new(AggregateLimits {
        units: 2,
        ..Default::default()
    });
    next.restore(state);
    assert_eq!(next.absorb(at(10)).units, seen.units);
}

proptest! {
    /// A daemon that is killed between two samples goes on where the record ends: from the last
    /// saved state and the intervals recorded after it, totals are as if it had never stopped.
    #[test]
    fn totals_go_on_after_a_restart(
        rounds in prop::collection::vec(
            prop::collection::vec((0_u8..40, 1_u64..1_000), 0..20), 2..12),
        saved in 0_usize..6,
        killed in 0_usize..12,
    ) {
        let killed = killed.clamp(1, rounds.len());
        let mut whole = Aggregator::default();
        let mut before = Aggregator::default();
        let mut state = AggregateState::default();
        let mut recorded = Vec::new();
        for (second, ends) in rounds[..killed].iter().enumerate() {
            whole.absorb(busy(second as u64, ends));
            recorded.push(before.absorb(busy(second as u64, ends)));
            if second == saved {
                state = before.export();
                recorded.clear();
            }
        }
        let state = caught_up(state, &recorded);
        prop_assert_eq!(&state.units, &before.export().units);
        prop_assert_eq!(sorted(&state.flows), sorted(&before.export().flows));

        let mut after = Aggregator::default();
        after.restore(state);
        let mut last: BTreeMap<String, UnitTotals> = before.export().units;
        for (second, ends) in rounds.iter().enumerate().skip(killed) {
            whole.absorb(busy(second as u64, ends));
            let seen = after.absorb(busy(second as u64, ends));
            for unit in seen.units {
                let was = last.insert(unit.unit.clone(), unit.total.clone()).unwrap_or_default();
                prop_assert!(was.network.rx_bytes <= unit.total.network.rx_bytes);
            }
        }
        prop_assert_eq!(after.export().units, whole.export().units);
        prop_assert_eq!(received(&after.export()), received(&whole.export()));
    }
}

fn sorted(flows: &[Flow]) -> Vec<(String, IpAddr, u64, BootTime, BootTime)> {
    let mut flows: Vec<_> = flows
        .iter()
        .map(|flow| {
            let bytes = flow.total.rx_bytes;
            (
                flow.unit.clone(),
                flow.remote,
                bytes,
                flow.first_seen,
                flow.last_seen,
            )
        })
        .collect();
    flows.sort();
    flows
}
