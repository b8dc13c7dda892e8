//! Runs many seeds of the simulated cluster: `simulate SEEDS [FIRST]`.
//!
//! Ends with a line as test runners write it, and fails if a seed broke an invariant. One seed is
//! told step by step by `simulate --seed N`.

use std::process::ExitCode;
use std::time::Instant;

use shadowd_tests::sim::{World, many};

const USAGE: &str = "usage: simulate SEEDS [FIRST] | simulate --seed N";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |text: &str| text.parse::<u64>().ok();
    let (seeds, first) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--seed", seed] => match number(seed) {
            Some(seed) => return tell(seed),
            None => (None, None),
        },
        [seeds] => (number(seeds), Some(0)),
        [seeds, first] => (number(seeds), number(first)),
        _ => (None, None),
    };
    let (Some(seeds), Some(first)) = (seeds, first) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let began = Instant::now();
    let sum = many::run(first, seeds, |_| {}, |line| println!("{line}"));
    println!(
        "simulated {} runs ({} with a lease), {} steps, {} ownerships, {} pauses in {:.1} s, {} broken",
        sum.runs,
        sum.leased,
        sum.steps,
        sum.claims,
        sum.pauses,
        began.elapsed().as_secs_f64(),
        sum.broken
    );
    for violation in &sum.violations {
        println!("{violation}");
    }
    let failed = u8::from(sum.broken > 0 || sum.runs != seeds || sum.claims < sum.runs);
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {failed} failed; 0 ignored",
        1 - failed
    );
    ExitCode::from(failed)
}

fn tell(seed: u64) -> ExitCode {
    match World::run(seed, true) {
        Ok(outcome) => {
            println!("seed {seed}: {outcome:?}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("seed {seed}: {violation}");
            ExitCode::FAILURE
        }
    }
}
