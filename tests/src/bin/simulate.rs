//! Runs many seeds of the simulated cluster: `simulate SEEDS [FIRST] [MODE]`.
//!
//! Ends with a line as test runners write it, and fails if a seed broke an invariant. One seed is
//! told step by step by `simulate --seed N [MODE]`. `--beyond drift`, `--beyond pause` exceed the bound on clocks, and
//! the longest time that two hosts answered is measured. `simulate --broken RULE|all SEEDS` counts the
//! seeds that find a rule that is broken on purpose.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use shadowd_tests::sim::{Beyond, Broken, Plan, World, many};

const USAGE: &str = "usage: simulate SEEDS [FIRST] [--beyond drift|pause] [--direct]
       simulate --seed N [--beyond drift|pause] [--broken RULE] [--direct]
       simulate --broken RULE|all SEEDS";
/// Clocks that are off by up to 8 %.
const TIMES: u32 = 80;

#[derive(Default)]
struct Arguments {
    numbers: Vec<u64>,
    seed: Option<u64>,
    beyond: Option<Beyond>,
    broken: Vec<Broken>,
    direct: bool,
}

impl Arguments {
    fn read() -> Option<Self> {
        let mut arguments = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--seed" => arguments.seed = Some(words.next()?.parse().ok()?),
                "--direct" => arguments.direct = true,
                "--beyond" => {
                    arguments.beyond = Some(match words.next()?.as_str() {
                        "drift" => Beyond::Drift(TIMES),
                        "pause" => Beyond::Pause,
                        _ => return None,
                    });
                }
                "--broken" => {
                    let rule = words.next()?;
                    let wanted = |broken: &Broken| rule == "all" || rule == broken.name();
                    arguments.broken = Broken::ALL.into_iter().filter(wanted).collect();
                    if arguments.broken.is_empty() {
                        return None;
                    }
                }
                number => arguments.numbers.push(number.parse().ok()?),
            }
        }
        Some(arguments)
    }

    fn change(&self, plan: &mut Plan) {
        if let Some(beyond) = self.beyond {
            plan.exceed(beyond);
        }
        plan.broken = self.broken.first().copied();
        if let (Some(broken), true) = (plan.broken, self.direct) {
            broken.direct(plan);
        }
    }
}

fn main() -> ExitCode {
    let Some(arguments) = Arguments::read() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match (arguments.seed, &arguments.numbers[..]) {
        (Some(seed), []) => tell(seed, &arguments),
        (None, [seeds]) if !arguments.broken.is_empty() => table(*seeds, &arguments.broken),
        (None, [seeds]) => many(*seeds, 0, &arguments),
        (None, [seeds, first]) => many(*seeds, *first, &arguments),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn many(seeds: u64, first: u64, arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let change = |plan: &mut Plan| arguments.change(plan);
    let sum = many::run(first, seeds, change, |line| println!("{line}"));
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
    let millis = |span: Duration| span.as_secs_f64() * 1e3;
    let (both, seed) = sum.longest_both;
    println!(
        "two hosts answered at once in {} runs, for {:.3} ms at most (seed {seed})",
        sum.both,
        millis(both)
    );
    for ((dark, seed), who) in sum
        .longest_dark
        .iter()
        .zip(["nobody else disturbed it", "others could disturb it"])
    {
        println!(
            "nobody answered for {:.1} ms at most (seed {seed}) while a majority was well and {who}",
            millis(*dark)
        );
    }
    for violation in &sum.violations {
        println!("{violation}");
    }
    closing(sum.broken == 0 && sum.runs == seeds && sum.claims >= sum.runs)
}

/// How many seeds find each broken rule: of random plans, and of plans in which it matters.
fn table(seeds: u64, rules: &[Broken]) -> ExitCode {
    println!(
        "{:<20} {:>22} {:>22}",
        "broken rule", "found by, of random", "of directed plans"
    );
    let mut found_all = true;
    for broken in rules {
        let random = many::run(0, seeds, |plan| plan.broken = Some(*broken), |_| {});
        let directed = many::run(0, seeds / 10, |plan| broken.direct(plan), |_| {});
        println!(
            "{:<20} {:>10} of {seeds:>8} {:>10} of {:>8}   {}",
            broken.name(),
            random.broken,
            directed.broken,
            seeds / 10,
            random
                .violations
                .first()
                .or(directed.violations.first())
                .map_or("", String::as_str)
        );
        found_all &= !broken.can_be_found() || random.broken + directed.broken > 0;
    }
    closing(found_all)
}

fn closing(good: bool) -> ExitCode {
    let failed = u8::from(!good);
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {failed} failed; 0 ignored",
        1 - failed
    );
    ExitCode::from(failed)
}

fn tell(seed: u64, arguments: &Arguments) -> ExitCode {
    match World::run_with(seed, true, |plan| {
        arguments.change(plan);
        println!("{plan:?}");
    }) {
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
