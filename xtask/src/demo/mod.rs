//! p
use anyhow::Result;
/// a
#[derive(Debug, clap::Args)]
pub struct Args {}
/// r
pub fn run(_: Args) -> Result<()> {
    Ok(())
}
