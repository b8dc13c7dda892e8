//! Drills on real hosts: units and checks in a network that leads nowhere, and nothing of it stays.

use xtask::prove::wire::place::{inside, receiver};

use super::configured::Configured;
use super::*;

/// What is demanded of the virtual IPs.
pub const CHECKS: &str = r#"
[[group.check]]
name = "http"
http = "http://192.0.2.10/"

[[group.check]]
name = "six"
tcp = "[2001:db8::10]:80"
"#;
const FAILS: &str = r#"
[[group.check]]
name = "no"
command = ["/bin/sh", "-c", "echo it says no; exit 3"]
"#;
const HANGS: &str = r#"
[[group.check]]
name = "hangs"
command = ["/bin/sleep", "300"]
deadline = "5min"
"#;

/// A hook that writes down which drill failed.
const TOLD: &str = r#"
[[hook]]
name = "tell"
command = ["/bin/sh", "-c", "printf %s \"$SHADOWD_EVENT_JSON\" > /run/told"]
events = ["drill-failed"]
"#;
/// It goes on for long enough to find it.
const SCHEDULED: &str = r#"
[[group.check]]
name = "slow"
command = ["/bin/sleep", "3"]

[group.drill]
every = "1day"
"#;

fn report(drilled: &Configured) -> Result<Value> {
    let status = drilled.pair.lab.ask(&drilled.pair.shadow, &["status"])?;
    Ok(status["drills"][0].clone())
}

/// No unit, no process, no directory of a drill, and the warm unit still runs.
fn nothing_is_left(drilled: &Configured) -> Result<()> {
    let (lab, shadow) = (&drilled.pair.lab, drilled.pair.shadow.as_str());
    let script = "systemctl list-units --plain --no-legend --state=active,activating,deactivating \
                  'shadowd-drill-*'; ls -d /run/shadowd-drill-* 2>/dev/null; true";
    let left = lab.run(shadow, &["sh", "-c", script])?;
    ensure!(left.trim().is_empty(), "left: {left}");
    ensure!(lab.unit_state(shadow, WARM)? == "active", "{WARM} is down");
    Ok(())
}

#[test]
fn a_drill_passes_and_production_sees_no_frame_of_it() -> Result<()> {
    let drilled = Configured::shadow_with(CHECKS)?;
    let (lab, shadow) = (&drilled.pair.lab, drilled.pair.shadow.clone());
    let epoch = drilled.pair.epoch()?;
    let link = "ip -o link show eth0 | grep -o 'ether [0-9a-f:]*' | cut -d' ' -f2";
    let mac = lab.run(&shadow, &["sh", "-c", link])?;
    let mac: Vec<u8> = mac
        .trim()
        .split(':')
        .map(|part| u8::from_str_radix(part, 16))
        .collect::<Result<_, _>>()?;
    ensure!(mac.len() == 6, "no address: {mac:?}");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let (ready, is_ready) = std::sync::mpsc::channel::<()>();
    let switch = lab.state().switch.clone();
    let listening = {
        inside(&switch, move || -> Result<[u64; 2]> {
            let mut socket = receiver()?;
            socket.set_nonblocking(false)?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            ready.send(())?;
            let [mut frames, mut foreign] = [0, 0];
            let mut frame = [0_u8; 2048];
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                let Ok(length) = socket.read(&mut frame) else {
                    continue;
                };
                frames += u64::from(frame[6..12] == mac);
                foreign += u64::from(speaks_for_vip(&frame[..length], &mac));
            }
            Ok([frames, foreign])
        })?
    };
    is_ready.recv_timeout(LONG)?;
    let report = lab.ask(&shadow, &["failover", "drill", GROUP])?;
    let _ = stop.send(());
    let [frames, foreign] = listening
        .join()
        .map_err(|_| anyhow::anyhow!("the listener died"))??;
    ensure!(report["state"] == "passed", "{report}");
    ensure!(frames > 0 && foreign == 0, "{foreign} of {frames} frames");
    nothing_is_left(&drilled)?;
    let refused = lab.exec(
        &drilled.pair.active,
        &["shadowctl", "failover", "drill", GROUP],
    )?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        !refused.status.success() && said.contains("run it on a shadow"),
        "{said}"
    );
    drilled.pair.unmoved(epoch)
}

/// Whether the host `mac` says something in the name of the virtual IPs, or anybody unknown does.
fn speaks_for_vip(frame: &[u8], mac: &[u8]) -> bool {
    let Some((header, body)) = frame.split_at_checked(14) else {
        return false;
    };
    let source = match (&header[12..], body.len()) {
        ([0x08, 0x06], 28..) => &body[14..18],
        ([0x08, 0x00], 20..) => &body[12..16],
        ([0x86, 0xdd], 40..) => &body[8..24],
        _ => return false,
    };
    let own = source == VIP_V4.octets() || source == VIP_V6.octets();
    own && &header[6..12] == mac
}

#[test]
fn a_check_that_fails_fails_the_drill_and_nothing_stays() -> Result<()> {
    let drilled = Configured::shadow_with(&format!("{FAILS}{CHECKS}{TOLD}"))?;
    let (lab, shadow) = (&drilled.pair.lab, drilled.pair.shadow.as_str());
    let ended = lab.exec(shadow, &["shadowctl", "failover", "drill", GROUP])?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.code() == Some(1), "{ended:?}");
    ensure!(said.contains("check no: exit 3: it says no"), "{said}");
    let report = report(&drilled)?;
    ensure!(report["state"] == "failed", "{report}");
    // The other checks are made all the same.
    let steps = report["steps"].as_array().context("no steps")?;
    let passed = |what: &str| {
        steps
            .iter()
            .any(|step| step["what"] == what && step["ok"] == true)
    };
    ensure!(passed("check http") && passed("teardown"), "{report}");
    drilled.says(shadow, "/run/told", |text| {
        let told: Value = serde_json::from_str(text).unwrap_or_default();
        let detail = told["detail"].as_str().unwrap_or_default();
        told["event"] == "drill-failed" && detail.contains("it says no")
    })?;
    nothing_is_left(&drilled)
}

#[test]
fn a_daemon_that_is_killed_during_a_drill_leaves_nothing_to_its_successor() -> Result<()> {
    let drilled = Configured::shadow_with(HANGS)?;
    let (lab, shadow) = (&drilled.pair.lab, drilled.pair.shadow.as_str());
    let begin = "shadowctl failover drill web >/dev/null 2>&1 &";
    lab.run(shadow, &["sh", "-c", begin])?;
    let check = format!("shadowd-drill-{GROUP}:check:hangs.service");
    lab.wait(LONG, "the check to hang", || {
        Ok(lab.unit_state(shadow, &check)? == "active")
    })?;
    lab.fault(shadow, &Fault::DaemonKill)?;
    lab.wait(LONG, "nothing to be left", || {
        Ok(nothing_is_left(&drilled).is_ok())
    })?;
    lab.wait(LONG, "the report to say so", || {
        Ok(report(&drilled).is_ok_and(|report| report["state"] == "aborted"))
    })?;
    lab.heal(shadow)?;
    nothing_is_left(&drilled)
}

#[test]
fn the_schedule_begins_one_drill_on_the_shadow_and_none_on_the_active() -> Result<()> {
    let drilled = Configured::with(SCHEDULED)?;
    let (lab, pair) = (&drilled.pair.lab, &drilled.pair);
    let is = |wanted: &str| {
        let report = report(&drilled)?;
        Ok(report["state"] == wanted && report["scheduled"] == true)
    };
    lab.wait(LONG, "the schedule to begin one", || is("running"))?;
    let second = lab.exec(&pair.shadow, &["shadowctl", "failover", "drill", GROUP])?;
    let said = String::from_utf8_lossy(&second.stderr);
    ensure!(!second.status.success(), "two at a time");
    ensure!(said.contains("another drill goes on"), "{said}");
    lab.wait(LONG, "it to pass", || is("passed"))?;
    // The daemon that comes next knows that it was made, and looks at its schedule at once.
    lab.run(&pair.shadow, &["systemctl", "restart", DAEMON])?;
    lab.converge(LONG)?;
    let all = lab.ask(&pair.shadow, &["failover", "drills"])?;
    ensure!(all["drills"][0]["scheduled"] == true, "{all}");
    ensure!(all["earlier"] == serde_json::json!([]), "{all}");
    let all = lab.ask(&pair.active, &["failover", "drills"])?;
    ensure!(all["drills"] == serde_json::json!([]), "{all}");
    nothing_is_left(&drilled)
}
