//! `cargo xtask build`: the daemon, the client and, through the daemon's build script, the kernel
//! side.

use anyhow::Result;

use crate::command::{cargo, run as run_command};
use crate::setup::{self, Part};

/// What `cargo xtask build` accepts.
#[derive(clap::Args, Debug, Clone, Copy)]
pub struct Args {
    /// Optimised, as the lab and the packages install it
    #[arg(long)]
    pub release: bool,
}

/// Installs what the build needs, then builds every library and program of the workspace.
///
/// # Errors
/// A need cannot be met, or the compiler refuses.
pub fn run(args: Args) -> Result<()> {
    setup::ensure(&[Part::Build])?;
    let mut command = cargo();
    // The whole workspace at once: a choice of packages would resolve other features and build
    // every dependency a second time.
    command.args(["build", "--workspace", "--lib", "--bins"]);
    if args.release {
        command.arg("--release");
    }
    run_command(&mut command)?;
    let profile = if args.release { "release" } else { "debug" };
    println!("built: target/{profile}/shadowd, target/{profile}/shadowctl");
    Ok(())
}
