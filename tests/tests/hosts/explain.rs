//! Why a takeover happened, whether it would happen again, and what a death would lead to.

use super::*;

fn ctl(pair: &Pair, host: &str, line: &[&str]) -> Result<String> {
    let line = [&["shadowctl", "failover"], line].concat();
    pair.lab.run(host, &line)
}

#[test]
fn a_takeover_explains_itself_and_replays_to_the_same() -> Result<()> {
    let pair = Pair::take()?;
    let before = pair.epoch()?;
    let said = ctl(&pair, &pair.shadow, &["simulate", &pair.active])?;
    let wanted = format!("if {} died now, {} would own", pair.active, pair.shadow);
    ensure!(said.starts_with(&wanted), "{said}");
    pair.lab.fault(&pair.active, &Fault::Crash)?;
    pair.wait_takeover()?;
    // A decision is kept half a second after it was taken.
    pair.lab.wait(LONG, "the decision to be kept", || {
        Ok(ctl(&pair, &pair.shadow, &["explain"])
            .is_ok_and(|told| told.contains(" claimed epoch ")))
    })?;
    let epoch = pair.lab.view(&pair.shadow)?.epoch;
    ensure!(epoch > before, "epoch {epoch} after {before}");
    let told = ctl(
        &pair,
        &pair.shadow,
        &["explain", "--epoch", &epoch.to_string()],
    )?;
    println!("{told}");
    for wanted in [
        format!("{} claimed epoch", pair.shadow),
        "because of silence".to_owned(),
        format!("{} owned the group in epoch {before}", pair.active),
        format!("the last word of {} before the decision", pair.active),
        "announced: ".to_owned(),
    ] {
        ensure!(told.contains(&wanted), "no {wanted:?} in {told}");
    }
    let replayed = ctl(&pair, &pair.shadow, &["replay", "--all"])?;
    println!("{replayed}");
    let same = |line: &str| line.starts_with("decision ") && line.contains(": same (");
    ensure!(
        replayed.lines().all(same) && !replayed.is_empty(),
        "{replayed}"
    );
    pair.wait_return()
}
