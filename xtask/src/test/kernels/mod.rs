//! The part with kernels: runs the test program on this machine's own, and boots each other one
//! under QEMU with the program as its first process.
//!
//! `package` fetches a kernel, `initramfs` packs the program, `qemu` boots the two and listens to
//! the serial console.

mod initramfs;
mod package;
mod qemu;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::closing::{self, Tally};
use crate::build;
use crate::command::{cache_dir, run_watching, target};
use crate::lab::interrupt;
use package::{Archive, Source};

/// A kernel series that the tests know.
struct Series {
    name: &'static str,
    source: Source,
    why: &'static str,
}

const SERIES: &[Series] = &[
    Series {
        name: "5.10",
        source: security("bullseye-security", "linux-image-cloud-amd64"),
        why: "Debian 11; the oldest that a daemon with fewer probes should still start on",
    },
    Series {
        name: "6.1",
        source: security("bookworm-security", "linux-image-cloud-amd64"),
        why: "Debian 12; before sock_send_length and block_io_start",
    },
    Series {
        name: "6.12",
        source: security("bookworm-security", "linux-image-6.12-cloud-amd64"),
        why: "Debian 13, and Debian 12 with the newer kernel",
    },
    Series {
        name: "7.2",
        source: Source {
            archive: Archive::Main,
            suite: "sid",
            package: "linux-image-cloud-amd64",
            image: "linux-binary-",
        },
        why: "Debian unstable; tracepoints that can be preempted",
    },
];

const fn security(suite: &'static str, package: &'static str) -> Source {
    Source {
        archive: Archive::Security,
        suite,
        package,
        image: "linux-image-",
    }
}

/// The program that runs every probe as the first process of a kernel.
const PROGRAM: &str = "kernel-check";

/// The kernel of this machine, not booted but used: real speed, and checks that need its tools.
const HOST: &str = "host";

/// The table of series, for people.
pub fn known() -> String {
    let mut lines = vec![
        format!("{:<8} why", "series"),
        format!("{HOST:<8} the kernel that runs here, at its real speed"),
    ];
    for series in SERIES {
        lines.push(format!("{:<8} {}", series.name, series.why));
    }
    lines.join("\n")
}

/// Refuses unknown names before anything long has started.
///
/// # Errors
/// A name is not in the table.
pub fn validate(names: &[String]) -> Result<()> {
    for name in names {
        if name != HOST && !SERIES.iter().any(|series| series.name == name) {
            bail!("unknown kernel series `{name}`; known are:\n{}", known());
        }
    }
    Ok(())
}

/// Boots every chosen kernel; one that fails does not stop the next.
///
/// # Errors
/// The program cannot be built or packed, or a kernel failed.
pub fn run(names: &[String], tally: &mut Tally) -> Result<()> {
    build::run(build::Args { release: true })?;
    let program = target().join("release").join(PROGRAM);
    let here = if names.is_empty() || names.iter().any(|name| name == HOST) {
        on_host(&program, tally)
    } else {
        Ok(())
    };
    let booted = check(&program, names, tally);
    match (here, booted) {
        (Err(here), Err(booted)) => bail!("{here:#}; {booted:#}"),
        (here, booted) => here.and(booted),
    }
}

/// Runs the program on this machine's own kernel.
fn on_host(program: &Path, tally: &mut Tally) -> Result<()> {
    println!("-- kernel {HOST}");
    let mut closed = Tally::default();
    let ran = run_watching(&mut Command::new(program), |line| {
        if let Some(found) = closing::parse(line) {
            closed.add(found);
        }
    });
    if closed == Tally::default() {
        closed.failed = 1;
    }
    tally.add(closed);
    ran.context("this machine's own kernel")
}

fn check(program: &Path, names: &[String], tally: &mut Tally) -> Result<()> {
    if !SERIES.iter().any(|series| is_chosen(series, names)) {
        return Ok(());
    }
    let scratch = target().join("kernels");
    std::fs::create_dir_all(&scratch)
        .with_context(|| format!("cannot create {}", scratch.display()))?;
    let initramfs = scratch.join("initramfs.cpio");
    initramfs::pack(program, &scratch.join("initramfs"), &initramfs)?;
    let cache = cache_dir("shadowd-kernels");
    let mut failed = Vec::new();
    for series in SERIES.iter().filter(|series| is_chosen(series, names)) {
        interrupt::check()?;
        println!("-- kernel {}", series.name);
        let tested = package::fetch(&cache, series.name, &series.source).and_then(|kernel| {
            let log = scratch.join(format!("{}.log", series.name));
            let own = scratch.join(format!("{}.cpio", series.name));
            let modules = scratch.join(format!("modules-{}", series.name));
            initramfs::with_modules(&initramfs, &cache.join(series.name), &modules, &own)?;
            qemu::boot(&kernel, &own, &log)
        });
        match tested {
            Ok(result) => {
                tally.add(result);
                if result.failed > 0 || result.passed == 0 {
                    failed.push(series.name);
                }
            }
            Err(error) => {
                eprintln!("error: kernel {}: {error:#}", series.name);
                tally.failed += 1;
                failed.push(series.name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("kernels that failed: {}", failed.join(", "));
    }
    Ok(())
}

fn is_chosen(series: &Series, names: &[String]) -> bool {
    names.is_empty() || names.iter().any(|name| name == series.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_kernels_are_those_that_the_project_promises() {
        let chosen = |names: &[&str]| -> Vec<&str> {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            SERIES
                .iter()
                .filter(|series| is_chosen(series, &names))
                .map(|series| series.name)
                .collect()
        };
        assert_eq!(chosen(&[]), ["5.10", "6.1", "6.12", "7.2"]);
        assert_eq!(chosen(&["5.10"]), ["5.10"]);
    }

    #[test]
    fn an_unknown_series_is_refused_with_the_known_ones() {
        assert!(validate(&["6.12".to_owned(), HOST.to_owned()]).is_ok());
        let error = validate(&["2.6".to_owned()]).expect_err("2.6 is not known");
        assert!(error.to_string().contains("6.12"), "{error}");
    }
}
