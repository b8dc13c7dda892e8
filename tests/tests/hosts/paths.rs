//! Several paths between the hosts: what they say goes on while one of them carries it.

use super::configured::Configured;
use super::*;

/// Hosts whose daemons use both links of the lab. A busy machine takes them for silent less easily
/// than usual: what moves here moves for another reason.
struct TwoPaths {
    all: Configured,
}

impl TwoPaths {
    fn take() -> Result<Self> {
        let all = Configured::everywhere(|text, hosts| {
            let patient = text.replace("suspect_after = \"27ms\"", "suspect_after = \"600ms\"");
            hosts.iter().fold(patient, |text, host| {
                let (first, second) = (host.v4, host.second);
                text.replace(
                    &format!("\"{first}:7373\""),
                    &format!("[\"{first}:7373\", \"{second}:7373\"]"),
                )
            })
        })?;
        let two = Self { all };
        let (active, shadow) = (&two.all.pair.active, &two.all.pair.shadow);
        for (host, peer) in [(active, shadow), (shadow, active)] {
            two.wait_states(host, peer, ["up", "up"])?;
        }
        Ok(two)
    }

    /// The state of each path from `host` to `peer`.
    fn states(&self, host: &str, peer: &str) -> Result<Vec<Value>> {
        let answer = self.all.pair.lab.ask(host, &["peers"])?;
        let peers = answer["peers"].as_array().context("peers")?;
        let peer = peers.iter().find(|one| one["host"] == peer);
        let paths = peer.context("the peer")?["paths"].as_array();
        Ok(paths.context("paths")?.clone())
    }

    fn wait_states(&self, host: &str, peer: &str, wanted: [&str; 2]) -> Result<()> {
        let what = format!("the paths from {host} to {peer} to be {wanted:?}");
        self.all.pair.lab.wait(LONG, &what, || {
            let paths = self.states(host, peer)?;
            Ok(paths.len() == 2
                && paths
                    .iter()
                    .zip(wanted)
                    .all(|(path, state)| path["state"] == state))
        })
    }

    fn events(&self, host: &str, since: u64, kind: &str) -> Result<Vec<Value>> {
        let events = self.all.pair.lab.events(host, since)?;
        Ok(events
            .into_iter()
            .filter(|event| event["kind"] == kind)
            .collect())
    }
}

#[test]
fn a_path_that_is_cut_moves_nothing_and_is_told_and_comes_back() -> Result<()> {
    let two = TwoPaths::take()?;
    let pair = &two.all.pair;
    let (active, shadow) = (pair.active.clone(), pair.shadow.clone());
    let epoch = pair.epoch()?;
    let seen = [
        pair.lab.newest_event(&active)?,
        pair.lab.newest_event(&shadow)?,
    ];
    pair.lab.fault(&active, &Fault::Cut(shadow.clone()))?;
    for (host, peer) in [(&active, &shadow), (&shadow, &active)] {
        two.wait_states(host, peer, ["lost", "up"])?;
    }
    // All the while they hear each other, over the second.
    let heard = |host: &str, peer: &str| -> Result<u64> {
        let paths = two.states(host, peer)?;
        Ok(paths[1]["arrived"].as_u64().unwrap_or_default())
    };
    let before = heard(&shadow, &active)?;
    pair.lab
        .wait(LONG, "300 heartbeats over the second path", || {
            let view = pair.lab.view(&active)?;
            ensure!(
                view.role == "active" && view.epoch == epoch,
                "it moved: {view:?}"
            );
            Ok(heard(&shadow, &active)? >= before + 300)
        })?;
    let shown = pair.lab.run(&shadow, &["shadowctl", "status"])?;
    ensure!(shown.contains("lost"), "status does not show it: {shown}");
    pair.lab.heal(&active)?;
    for (host, peer) in [(&active, &shadow), (&shadow, &active)] {
        two.wait_states(host, peer, ["up", "up"])?;
    }
    for (host, seen) in [&active, &shadow].into_iter().zip(seen) {
        let lost = two.events(host, seen, "path_lost")?;
        let told = |event: &Value| {
            let detail = event["detail"].as_str().unwrap_or_default();
            event["cause"] == "silence" && detail.starts_with("path 1 to ")
        };
        ensure!(
            !lost.is_empty() && lost.iter().all(told),
            "{host}: {lost:?}"
        );
        ensure!(!two.events(host, seen, "path_back")?.is_empty(), "{host}");
        let moved = two.events(host, seen, "peer_suspected")?;
        let other = if *host == active { &shadow } else { &active };
        let suspected = |event: &Value| {
            event["detail"]
                .as_str()
                .unwrap_or_default()
                .starts_with(other.as_str())
        };
        ensure!(!moved.iter().any(suspected), "{host}: {moved:?}");
    }
    pair.unmoved(epoch)
}

#[test]
fn a_peer_that_is_silent_on_all_paths_is_suspected_and_the_witness_keeps_the_owner() -> Result<()> {
    let two = TwoPaths::take()?;
    let pair = &two.all.pair;
    let epoch = pair.epoch()?;
    let seen = pair.lab.newest_event(&pair.shadow)?;
    pair.lab
        .fault(&pair.active, &Fault::Cut(pair.shadow.clone()))?;
    pair.lab
        .fault(&pair.active, &Fault::CutSecond(pair.shadow.clone()))?;
    // As with one path: the shadow asks, the witness hears the owner and keeps it.
    pair.lab.wait(TAKEOVER, "the shadow to suspect", || {
        let suspected = two.events(&pair.shadow, seen, "peer_suspected")?;
        Ok(!suspected.is_empty())
    })?;
    two.wait_states(&pair.shadow, &pair.active, ["silent", "silent"])?;
    ensure!(pair.lab.view(&pair.active)?.role == "active");
    pair.lab.heal(&pair.active)?;
    pair.unmoved_owner(epoch)?;
    two.wait_states(&pair.shadow, &pair.active, ["up", "up"])
}

#[test]
fn a_lost_link_of_the_active_is_told_over_the_other_and_moves_the_group() -> Result<()> {
    let two = TwoPaths::take()?;
    let pair = &two.all.pair;
    let seen = pair.lab.newest_event(&pair.shadow)?;
    let at = pair.lab.fault(&pair.active, &Fault::LinkDown)?;
    pair.wait_takeover()?;
    let claimed = two.events(&pair.shadow, seen, "claimed")?;
    let claim = claimed.first().context("no claim was recorded")?;
    ensure!(claim["cause"] == "link_lost", "{claim}");
    let took = claim["boot_ns"]
        .as_u64()
        .unwrap_or_default()
        .saturating_sub(at);
    println!(
        "claimed {:.1} ms after the link was lost",
        took as f64 / 1e6
    );
    // The old active has its carrier's word, and knows which path it lost.
    let lost = two.events(&pair.active, 0, "path_lost")?;
    ensure!(
        lost.iter().any(|event| event["cause"] == "link_lost"),
        "{lost:?}"
    );
    pair.wait_return()?;
    pair.lab.run(
        &pair.shadow,
        &[
            "shadowctl",
            "failover",
            "handover",
            GROUP,
            "--to",
            &pair.active,
        ],
    )?;
    pair.lab.converge(LONG).map(drop)
}
