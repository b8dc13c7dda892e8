//! Compares two pieces of code turn by turn, so that whatever the machine does meets both.
//!
//! Order alternates within a round, the medians of all rounds are compared, and the spread is
//! reported with them.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::report::Metric;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Pairs of turns; the median needs at least 3.
    pub rounds: usize,
    /// Calls within a turn, so that reading the clock does not count.
    pub calls: u32,
}

/// One of the two that are compared.
pub struct Side<'a> {
    /// The name for tables, such as "ring".
    pub name: &'static str,
    /// One call of what is measured.
    pub call: &'a mut dyn FnMut() -> Result<()>,
}

/// Measures both and gives `ours` as time per call, with its ratio to `peer`.
///
/// # Errors
/// A call fails, or the plan is too small to mean anything.
pub fn compare(name: &'static str, plan: Plan, ours: Side, peer: Side) -> Result<Metric> {
    if plan.rounds < 3 || plan.calls == 0 {
        bail!("{name}: at least 3 rounds of at least 1 call are needed");
    }
    // The first turn of each fills caches and is thrown away.
    turn(plan.calls, ours.call)?;
    turn(plan.calls, peer.call)?;
    let mut our_turns = Vec::with_capacity(plan.rounds);
    let mut peer_turns = Vec::with_capacity(plan.rounds);
    for round in 0..plan.rounds {
        if round % 2 == 0 {
            our_turns.push(turn(plan.calls, ours.call)?);
            peer_turns.push(turn(plan.calls, peer.call)?);
        } else {
            peer_turns.push(turn(plan.calls, peer.call)?);
            our_turns.push(turn(plan.calls, ours.call)?);
        }
    }
    Ok(metric(
        name,
        peer.name,
        plan.calls,
        &mut our_turns,
        &mut peer_turns,
    ))
}

fn turn(calls: u32, call: &mut dyn FnMut() -> Result<()>) -> Result<Duration> {
    let started = Instant::now();
    for _ in 0..calls {
        call()?;
    }
    Ok(started.elapsed())
}

fn metric(
    name: &'static str,
    peer: &'static str,
    calls: u32,
    ours: &mut [Duration],
    theirs: &mut [Duration],
) -> Metric {
    let per_call = |turn: Duration| turn.as_nanos() as f64 / f64::from(calls);
    let (our_median, peer_median) = (per_call(median(ours)), per_call(median(theirs)));
    Metric {
        name,
        value: our_median,
        unit: "ns/call",
        peer,
        // A peer too quick for the clock would give a ratio of infinity, which JSON cannot hold.
        ratio: our_median / peer_median.max(f64::MIN_POSITIVE),
        spread: per_call(spread(ours)) / our_median.max(f64::MIN_POSITIVE),
    }
}

fn median(turns: &mut [Duration]) -> Duration {
    turns.sort_unstable();
    turns[turns.len() / 2]
}

/// The distance between the quartiles of sorted turns.
fn spread(turns: &[Duration]) -> Duration {
    turns[turns.len() * 3 / 4] - turns[turns.len() / 4]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_compared_per_call() {
        let millis = |values: [u64; 5]| values.map(Duration::from_millis);
        let mut ours = millis([40, 20, 2_000, 30, 10]);
        let mut peer = millis([15, 15, 900, 15, 15]);
        let metric = metric("seal", "ring", 1_000, &mut ours, &mut peer);
        assert!((metric.value - 30_000.0).abs() < 1e-6, "{metric:?}");
        assert!((metric.ratio - 2.0).abs() < 1e-9, "{metric:?}");
    }

    #[test]
    fn both_sides_are_called_equally_often_and_in_turn() {
        let (order, plan) = (
            std::cell::RefCell::new(String::new()),
            Plan {
                rounds: 3,
                calls: 2,
            },
        );
        let mut ours = || {
            order.borrow_mut().push('o');
            Ok(())
        };
        let mut peer = || {
            order.borrow_mut().push('p');
            Ok(())
        };
        let sides = (
            Side {
                name: "ours",
                call: &mut ours,
            },
            Side {
                name: "peer",
                call: &mut peer,
            },
        );
        compare("order", plan, sides.0, sides.1).expect("nothing fails");
        assert_eq!(
            order.into_inner(),
            "oopp".to_owned() + "oopp" + "ppoo" + "oopp"
        );
    }

    #[test]
    fn a_failing_call_and_a_tiny_plan_are_errors() {
        let run = |rounds| {
            let mut fails = || bail!("no key");
            let mut works = || Ok(());
            let ours = Side {
                name: "ours",
                call: &mut fails,
            };
            compare(
                "x",
                Plan { rounds, calls: 1 },
                ours,
                Side {
                    name: "peer",
                    call: &mut works,
                },
            )
        };
        assert!(run(2).is_err_and(|error| error.to_string().contains("3 rounds")));
        assert!(run(3).is_err_and(|error| error.to_string().contains("no key")));
    }
}
