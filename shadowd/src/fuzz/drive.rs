//! Runs the targets: a few inputs each as a test of every day, or one for as long as is asked.
//!
//! `cargo xtask fuzz` sets the environment that [`Wish::of_environment`] reads. An input that fails
//! is written to `target/fuzz` and told with the command that runs it again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::mutate::Dice;
use super::{TARGETS, Target};

/// Inputs of each target in a run of every day.
const INPUTS: u64 = 3_000;
/// An input that takes longer is a finding: far more than a busy machine adds to microseconds.
const LONGEST: Duration = Duration::from_secs(5);
/// Memory that may be added to the process by one target.
const MEMORY_KIB: u64 = 512 * 1024;

/// What was asked for.
struct Wish {
    target: Option<String>,
    seconds: Option<u64>,
    seed: u64,
    input: Option<PathBuf>,
}

impl Wish {
    fn of_environment() -> Self {
        let read = |name: &str| std::env::var(format!("SHADOWD_FUZZ_{name}")).ok();
        let number = |name| read(name).map(|text| text.parse().expect("a number"));
        Self {
            target: read("TARGET"),
            seconds: number("SECONDS"),
            seed: number("SEED").unwrap_or(1),
            input: read("INPUT").map(PathBuf::from),
        }
    }
}

#[test]
fn every_decoder_takes_any_bytes() {
    let wish = Wish::of_environment();
    let asked = |target: &&Target| {
        wish.target
            .as_deref()
            .is_none_or(|name| name == target.name)
    };
    let targets: Vec<_> = TARGETS.iter().filter(asked).collect();
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    assert!(!targets.is_empty(), "the targets are {}", names.join(", "));
    let failed: Vec<_> = targets
        .into_iter()
        .filter_map(|target| run(target, &wish).err())
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Runs one target; the finding in words when there is one.
fn run(target: &Target, wish: &Wish) -> Result<(), String> {
    if let Some(path) = &wish.input {
        let bytes = std::fs::read(path).expect("the input can be read");
        return attempt(target, &bytes);
    }
    let seeds = (target.seeds)();
    for seed in &seeds {
        attempt(target, seed)?;
    }
    if wish.seconds.is_some() {
        // Told first: a stack that overflows leaves nothing else behind.
        println!("{}: seed {}", target.name, wish.seed);
    }
    let mut dice = Dice(wish.seed);
    let (began, before, mut inputs) = (Instant::now(), peak_kib(), 0_u64);
    let is_over = |inputs: u64| match wish.seconds {
        Some(seconds) => began.elapsed() >= Duration::from_secs(seconds),
        None => inputs >= INPUTS,
    };
    while !is_over(inputs) {
        attempt(target, &dice.input(&seeds))?;
        inputs += 1;
    }
    let grown = peak_kib().saturating_sub(before);
    if wish.seconds.is_some() {
        println!("{}: {inputs} inputs, {grown} KiB more memory", target.name);
        // Only alone: other tests run beside a run of every day.
        if grown > MEMORY_KIB {
            return Err(format!("{}: {grown} KiB of memory", target.name));
        }
    }
    Ok(())
}

fn attempt(target: &Target, bytes: &[u8]) -> Result<(), String> {
    let began = Instant::now();
    let answered = catch_unwind(AssertUnwindSafe(|| (target.decode)(bytes)));
    let what = match answered {
        Err(_) => "panics",
        Ok(()) if began.elapsed() > LONGEST => "takes seconds",
        Ok(()) => return Ok(()),
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz");
    let number = blake3::hash(bytes).to_hex();
    let path = folder.join(format!("{}-{}", target.name, &number[..16]));
    let kept = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, bytes));
    kept.expect("the target folder can be written");
    Err(format!(
        "{name} {what}: cargo xtask fuzz {name} --input {}",
        path.display(),
        name = target.name
    ))
}

/// The most memory that this process ever had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[test]
fn a_decoder_that_panics_is_found_and_its_input_kept() {
    const BAD: Target = super::target(
        "bad",
        |bytes| assert_ne!(bytes.len(), 7),
        || vec![vec![1; 9]],
    );
    let wish = Wish {
        target: None,
        seconds: None,
        seed: 1,
        input: None,
    };
    let finding = run(&BAD, &wish).expect_err("a length of 7 is found");
    let path = finding.rsplit(' ').next().expect("a path");
    assert_eq!(std::fs::read(path).expect("it was kept").len(), 7);
    let again = Wish {
        input: Some(path.into()),
        ..wish
    };
    assert!(run(&BAD, &again).is_err());
    std::fs::remove_file(path).expect("it is there");
}
