//! What the frames on the bridge show: a short run of `cargo xtask prove wire`.

use xtask::lab::boot_ns;
use xtask::prove::wire;

use super::*;

/// Stops, kills and freezes of the active among them.
const FAULTS: usize = 12;

#[test]
fn no_two_hosts_answer_for_an_address_at_the_same_instant() -> Result<()> {
    let pair = Pair::take()?;
    // A failure names the seed, and `cargo xtask prove wire --seed` repeats it.
    let report = wire::on(&pair.lab, boot_ns()?, FAULTS)?;
    println!("{}", report.text());
    wire::conclude(&report)
}
