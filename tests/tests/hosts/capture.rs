//! Capture on real hosts: what a daemon counts goes on when it is started again.

use super::*;

/// Requests while nobody reads the counts.
const REQUESTS: usize = 20;

/// Connections of the warm unit since capture began, as the daemon of `host` says.
fn opened(pair: &Pair, host: &str) -> Result<u64> {
    let units = pair.lab.ask(host, &["units"])?;
    let of_unit = units["units"].as_array().into_iter().flatten();
    let warm = of_unit.into_iter().find(|unit| unit["unit"] == WARM);
    Ok(warm.map_or(0, |unit| sum(&unit["total"]["network"], "opened")))
}

fn visit(pair: &Pair, url: &str) -> Result<()> {
    let mut arguments = vec!["curl", "-s", "-m", "5", "-H", "Connection: close"];
    for _ in 0..REQUESTS {
        arguments.extend(["-o", "/dev/null", url]);
    }
    run(pair.lab.client_command(&arguments)?, None, SHORT).map(drop)
}

/// A daemon that hangs until its watchdog ends it, one that is killed and one that is restarted:
/// each connection that comes meanwhile is counted once, by its successor.
#[test]
fn counts_go_on_when_the_daemon_does() -> Result<()> {
    let pair = Pair::take()?;
    let host = pair.shadow.clone();
    let hosts = &pair.lab.state().hosts;
    let known = hosts.iter().find(|known| known.name == host);
    let url = format!("http://{}/", known.context("the lab has the host")?.v4);
    visit(&pair, &url)?;
    let mut expected = 0;
    pair.lab
        .wait(LONG, "the first connections to be counted", || {
            expected = opened(&pair, &host)?;
            Ok(expected >= REQUESTS as u64)
        })?;
    for end in [
        ["systemctl", "kill", "--signal=STOP", DAEMON],
        ["systemctl", "kill", "--signal=KILL", DAEMON],
        ["systemctl", "restart", "--no-block", DAEMON],
    ] {
        let pid = |lab: &Lab| lab.run(&host, &["systemctl", "show", "-P", "MainPID", DAEMON]);
        let old = pid(&pair.lab)?;
        pair.lab.run(&host, &end)?;
        visit(&pair, &url)?;
        expected += REQUESTS as u64;
        pair.lab.wait(LONG, "another daemon to answer", || {
            Ok(pid(&pair.lab)? != old && opened(&pair, &host).is_ok_and(|seen| seen >= expected))
        })?;
        let seen = opened(&pair, &host)?;
        ensure!(
            seen == expected,
            "{end:?}: {seen} connections, made {expected}"
        );
    }
    pair.lab.converge(LONG).map(drop)
}
