//! Compiles the kernel side (`shadowd-ebpf`) and hands its objects to `observe` through OUT_DIR.
//!
//! The kernel side has a target of its own, so it needs a compiler that carries `core` for it:
//! Debian's `rustc-web` with `libstd-rust-web-dev-bpf`, or a rustup nightly with `rust-src`.
//! Whichever is there is taken; this script installs nothing.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TARGET: &str = "bpfel-unknown-none";
const OBJECTS: [&str; 9] = [
    "block",
    "files",
    "guard",
    "lifecycle",
    "locate",
    "opens",
    "sockets",
    "syscalls",
    "syscalls_hash",
];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// Edition 2024.
const OLDEST_MINOR: u32 = 85;

/// What the outer cargo sets for its own compiler and must not reach the inner one.
const INHERITED: [&str; 9] = [
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("cargo::error={reason}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("run by cargo only")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("run by cargo only")?);
    let root = here.parent().ok_or("the crate has no parent directory")?;
    let kernel_side = root.join("shadowd-ebpf");
    for watched in ["src", "Cargo.toml", "Cargo.lock"] {
        println!(
            "cargo::rerun-if-changed={}",
            kernel_side.join(watched).display()
        );
    }
    println!(
        "cargo::rerun-if-changed={}",
        root.join("shadowd-common/src").display()
    );

    let target = target_directory(&out);
    let path = search_path();
    let mut command = compiler(&path)?;
    let status = command
        .args([
            "--locked",
            "--release",
            "--target",
            TARGET,
            "--manifest-path",
        ])
        .arg(kernel_side.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .current_dir(&kernel_side)
        .status()
        .map_err(|error| format!("the kernel side's cargo does not start: {error}"))?;
    if !status.success() {
        return Err("the kernel side does not compile; see the messages above".to_owned());
    }
    for object in OBJECTS {
        let built = target.join(TARGET).join("release").join(object);
        fs::copy(&built, out.join(format!("{object}.bpf.o")))
            .map_err(|error| format!("{} cannot be copied: {error}", built.display()))?;
    }
    Ok(())
}

/// `target/bpf`, shared by all profiles, when OUT_DIR is `target/PROFILE/build/PACKAGE/out`.
fn target_directory(out: &Path) -> PathBuf {
    match out.ancestors().nth(4) {
        Some(target) if target.join("CACHEDIR.TAG").exists() => target.join("bpf"),
        _ => out.join("bpf"),
    }
}

/// PATH with cargo's own binaries, where `cargo install` puts `bpf-linker`.
fn search_path() -> OsString {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let inherited = env::var_os("PATH").unwrap_or_default();
    let extended = env::split_paths(&inherited).chain(cargo_home.map(|home| home.join("bin")));
    env::join_paths(extended).unwrap_or(inherited)
}

/// The inner `cargo build`, with whichever compiler is there.
fn compiler(path: &OsString) -> Result<Command, String> {
    let found = env::split_paths(path).any(|folder| folder.join("bpf-linker").exists());
    if !found {
        return Err("bpf-linker is missing: run `cargo xtask setup`".to_owned());
    }
    let mut command;
    if debian_carries_core() {
        command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        clean(&mut command);
        command
            .env("RUSTC", DEBIAN_RUSTC)
            .env("RUSTC_BOOTSTRAP", "1")
            .arg("build");
    } else if nightly_carries_source() {
        command = Command::new("rustup");
        clean(&mut command);
        command.args(["run", "nightly", "cargo", "build", "-Z", "build-std=core"]);
    } else {
        return Err(
            "no compiler for the kernel side (Debian's rustc-web with libstd-rust-web-dev-bpf, or \
             a rustup nightly with rust-src): run `cargo xtask setup`"
                .to_owned(),
        );
    }
    command.env("PATH", path).env(
        "RUSTFLAGS",
        "-C linker=bpf-linker -C link-arg=--btf -C debuginfo=2",
    );
    Ok(command)
}

fn clean(command: &mut Command) {
    for name in INHERITED {
        command.env_remove(name);
    }
}

fn debian_carries_core() -> bool {
    let minor = text_of(Command::new(DEBIAN_RUSTC).arg("--version"))
        .and_then(|version| version.split('.').nth(1)?.parse::<u32>().ok());
    minor.is_some_and(|minor| minor >= OLDEST_MINOR)
        && Path::new("/usr/lib/rustlib").join(TARGET).is_dir()
}

fn nightly_carries_source() -> bool {
    let mut command = Command::new("rustup");
    clean(&mut command);
    text_of(command.args(["run", "nightly", "rustc", "--print", "sysroot"])).is_some_and(|root| {
        Path::new(root.trim())
            .join("lib/rustlib/src/rust/library/core")
            .is_dir()
    })
}

/// What a command prints, if it succeeds.
fn text_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
