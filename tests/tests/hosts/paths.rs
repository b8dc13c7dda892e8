//! Several paths between the hosts: what they say goes on while one of them carries it.

use super::*;

/// Hosts whose daemons use both links of the lab, for as long as this lives.
struct TwoPaths {
    pair: Pair,
    /// What the configuration of each host was.
    before: Vec<(String, String)>,
}

impl TwoPaths {
    fn take() -> Result<Self> {
        let pair = Pair::take()?;
        let mut two = Self {
            pair,
            before: Vec::new(),
        };
        let hosts = two.pair.lab.state().hosts.clone();
        for host in &hosts {
            let before = two.pair.lab.run(&host.name, &["cat", CONFIG])?;
            let mut text = before.clone();
            for other in &hosts {
                let (first, second) = (other.v4, other.second);
                text = text.replace(
                    &format!("\"{first}:7373\""),
                    &format!("[\"{first}:7373\", \"{second}:7373\"]"),
                );
            }
            two.before.push((host.name.clone(), before));
            two.configure(&host.name, &text)?;
        }
        let members = [two.pair.active.clone(), two.pair.shadow.clone()];
        for (host, peer) in [(0, 1), (1, 0)].map(|(a, b)| (&members[a], &members[b])) {
            two.wait_states(host, peer, ["up", "up"])?;
        }
        two.pair.lab.converge(LONG)?;
        Ok(two)
    }

    fn configure(&self, host: &str, text: &str) -> Result<()> {
        let lab = &self.pair.lab;
        let pid = ["systemctl", "show", "-P", "MainPID", DAEMON];
        let before = lab.run(host, &pid)?;
        lab.write_file(host, CONFIG, text)?;
        lab.run(host, &["systemctl", "reload", DAEMON])?;
        lab.wait(LONG, "the daemon to be back", || {
            let back = lab.unit_state(host, DAEMON)? == "active" && lab.run(host, &pid)? != before;
            Ok(back && lab.ask(host, &["status"]).is_ok())
        })
    }

    /// The state of each path from `host` to `peer`.
    fn states(&self, host: &str, peer: &str) -> Result<Vec<Value>> {
        let answer = self.pair.lab.ask(host, &["peers"])?;
        let peers = answer["peers"].as_array().context("peers")?;
        let peer = peers.iter().find(|one| one["host"] == peer);
        let paths = peer.context("the peer")?["paths"].as_array();
        Ok(paths.context("paths")?.clone())
    }

    fn wait_states(&self, host: &str, peer: &str, wanted: [&str; 2]) -> Result<()> {
        let what = format!("the paths from {host} to {peer} to be {wanted:?}");
        self.pair.lab.wait(LONG, &what, || {
            let paths = self.states(host, peer)?;
            Ok(paths.len() == 2
                && paths
                    .iter()
                    .zip(wanted)
                    .all(|(path, state)| path["state"] == state))
        })
    }

    fn events(&self, host: &str, since: u64, kind: &str) -> Result<Vec<Value>> {
        let events = self.pair.lab.events(host, since)?;
        Ok(events
            .into_iter()
            .filter(|event| event["kind"] == kind)
            .collect())
    }
}

impl Drop for TwoPaths {
    fn drop(&mut self) {
        for (host, before) in std::mem::take(&mut self.before) {
            if let Err(error) = self.pair.lab.lift(&host) {
                eprintln!("host {host}: {error:#}");
            }
            if let Err(error) = self.configure(&host, &before) {
                eprintln!("host {host} keeps its two paths: {error:#}");
            }
        }
    }
}

#[test]
fn a_path_that_is_cut_moves_nothing_and_is_told_and_comes_back() -> Result<()> {
    let two = TwoPaths::take()?;
    let pair = &two.pair;
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
    let pair = &two.pair;
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
    let pair = &two.pair;
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
