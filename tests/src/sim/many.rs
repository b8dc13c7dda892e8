//! Many seeds on all processors.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::faults::Plan;
use super::world::World;

/// How far apart two lines of progress are.
const PROGRESS: Duration = Duration::from_secs(10);
/// Broken seeds that are kept; more say nothing new.
const KEPT: usize = 20;

/// What many runs came to.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// Runs.
    pub runs: u64,
    /// Runs in which a lease protected the group.
    pub leased: u64,
    /// Events handled.
    pub steps: u64,
    /// Ownerships taken.
    pub claims: u64,
    /// Runs in which two hosts answered at once.
    pub both: u64,
    /// For how long at most, and in which seed.
    pub longest_both: (Duration, u64),
    /// How long at most nobody answered while a majority was well, and in which seed: with nobody
    /// else who disturbs it, and with somebody.
    pub longest_dark: [(Duration, u64); 2],
    /// Owners that were restarted and kept the group.
    pub pauses: u64,
    /// Ownerships taken by spares.
    pub spare_claims: u64,
    /// Runs that broke an invariant.
    pub broken: u64,
    /// The first of them, with what they broke.
    pub violations: Vec<String>,
}

/// Runs the seeds from `first` on, each plan changed by `change`; `say` hears how far it is.
pub fn run(
    first: u64,
    seeds: u64,
    change: impl Fn(&mut Plan) + Sync,
    say: impl Fn(&str) + Sync,
) -> Sum {
    let next = AtomicU64::new(first);
    let end = first.saturating_add(seeds);
    let sum = Mutex::new(Sum::default());
    let began = Instant::now();
    let said = Mutex::new(began);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if let Some(violation) = one(seed, &change, &sum) {
                        say(&violation);
                    }
                    let mut said = said.lock().expect("no thread panics while it holds this");
                    if said.elapsed() >= PROGRESS {
                        *said = Instant::now();
                        say(&progress(&sum, seeds, began));
                    }
                }
            });
        }
    });
    sum.into_inner()
        .expect("no thread panics while it holds this")
}

/// Runs one seed; returns what it broke.
fn one(seed: u64, change: &(impl Fn(&mut Plan) + Sync), sum: &Mutex<Sum>) -> Option<String> {
    let leased = std::cell::Cell::new(false);
    let outcome = World::run_with(seed, false, |plan| {
        change(plan);
        leased.set(plan.is_leased());
    });
    let mut sum = sum.lock().expect("no thread panics while it holds this");
    sum.runs += 1;
    sum.leased += u64::from(leased.get());
    match outcome {
        Ok(outcome) => {
            sum.steps += outcome.steps;
            sum.claims += outcome.claims;
            sum.both += u64::from(!outcome.both.is_zero());
            sum.longest_both = sum.longest_both.max((outcome.both, seed));
            sum.pauses += outcome.pauses;
            sum.spare_claims += outcome.spare_claims;
            let dark = [outcome.dark, outcome.dark_disturbed];
            for (longest, dark) in sum.longest_dark.iter_mut().zip(dark) {
                *longest = (dark, seed).max(*longest);
            }
        }
        Err(violation) => {
            let violation = format!("seed {seed}: {violation}");
            sum.broken += 1;
            if sum.violations.len() < KEPT {
                sum.violations.push(violation.clone());
            }
            return Some(violation);
        }
    }
    None
}

fn progress(sum: &Mutex<Sum>, seeds: u64, began: Instant) -> String {
    let sum = sum.lock().expect("no thread panics while it holds this");
    let spent = began.elapsed().as_secs_f64();
    let rate = sum.runs as f64 / spent;
    let left = seeds.saturating_sub(sum.runs) as f64 / rate;
    format!(
        "{} of {seeds} seeds, {rate:.0} a second, {left:.0} s left, {} broken",
        sum.runs, sum.broken
    )
}
