//! Thousands of seeded runs of the real decision core under loss, delay, duplication, partitions,
//! crashes, stalls and restarts. Invariants are checked after every step.
//!
//! `SHADOWD_SIM_SEEDS=20000` runs more seeds, `SHADOWD_SIM_SEED=7` replays one and tells its story.

use std::time::Instant;

use shadowd_tests::sim::World;

/// Runs of a default test.
const SEEDS: u64 = 5_200;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
    )
}

#[test]
fn no_seed_breaks_an_invariant() {
    if let Some(seed) = number("SHADOWD_SIM_SEED") {
        let outcome =
            World::run(seed, true).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        println!("seed {seed}: {outcome:?}");
        return;
    }
    let seeds = number("SHADOWD_SIM_SEEDS").unwrap_or(SEEDS);
    let (mut steps, mut claims) = (0, 0);
    let mut broken = Vec::new();
    let began = Instant::now();
    for seed in 0..seeds {
        match World::run(seed, false) {
            Ok(outcome) => {
                steps += outcome.steps;
                claims += outcome.claims;
            }
            Err(violation) => broken.push(format!("seed {seed}: {violation}")),
        }
    }
    println!(
        "simulated {seeds} runs, {steps} steps, {claims} ownerships in {:.1} s, {} broken",
        began.elapsed().as_secs_f64(),
        broken.len()
    );
    assert!(
        claims > seeds,
        "the runs must contain failovers, not only first claims"
    );
    assert!(
        broken.is_empty(),
        "{} of {seeds} runs broke an invariant; replay one with SHADOWD_SIM_SEED:\n{}",
        broken.len(),
        broken[..broken.len().min(10)].join("\n")
    );
}

/// The checks are worth something: a witness that grants before what it promised ran out makes two
/// owners, and one of the first seeds shows it.
#[test]
fn a_broken_rule_is_found() {
    const WITHIN: u64 = 10_000;
    let found = (0..WITHIN).find_map(|seed| {
        let broken = World::run_with(seed, false, |plan| plan.broken = true);
        broken.err().map(|violation| (seed, violation))
    });
    let (seed, violation) = found.expect("a witness that breaks its promise is found");
    println!("found by seed {seed}: {violation}");
    assert!(
        violation.what.contains("answer for the addresses"),
        "{violation}"
    );
}
