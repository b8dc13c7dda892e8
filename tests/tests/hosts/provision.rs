//! A bare host becomes ready by its policy alone, takes over, and serves what the active served.

use xtask::prove::ready::files::RAN;
use xtask::prove::ready::scene::{Scene, readiness};
use xtask::prove::ready::{patient, wait_ready};

use super::*;

/// Acts that make the bare host ready, as they are on record.
const ACTS: &[&str] = &[
    "apt-get install nginx=",
    "apt-get install postgresql-15=",
    "apt-get install socat=",
    "copy /etc/default/lab-app from the active",
    "copy /etc/nginx/nginx.conf from the active",
    "copy /etc/postgresql/15/main/pg_hba.conf from the active",
    "copy /etc/systemd/system/lab-job.timer from the active",
    "copy /opt/lab-app/answer from the active",
    "systemctl enable lab-app.service",
    "systemctl start lab-app.service",
    "systemctl start nginx.service",
];

#[test]
fn a_bare_shadow_is_made_ready_by_policy_and_serves_the_same_answers() -> Result<()> {
    let pair = Pair::take()?;
    let mut scene = Scene::begin(&pair.lab, &pair.active)?;
    let shown = promoted(&pair, &mut scene);
    let ended = scene.end();
    shown?;
    ended?;
    pair.lab.converge(LONG).map(drop)
}

fn promoted(pair: &Pair, scene: &mut Scene<'_>) -> Result<()> {
    let (lab, active, shadow) = (&pair.lab, &pair.active, &pair.shadow);
    scene.strip(shadow)?;
    scene.configure(active, |text| patient(text, "apply"))?;
    // A spare that took over meanwhile would learn by rules of its own, and nothing of the scene.
    let rest = |order: &str| -> Result<()> {
        let words = ["shadowctl", "failover", "maintenance", "--all"];
        let words: Vec<&str> = words.into_iter().chain(order.split(' ')).collect();
        let mut spares = lab.state().hosts.iter().filter(|host| host.spare);
        spares.try_for_each(|spare| lab.run(&spare.name, &words).map(drop))
    };
    rest("on --for 30m")?;
    let took = wait_ready(lab, scene, (active, shadow));
    rest("off")?;
    let took = took?;
    println!("ready after {:.0} s", took.as_secs_f64());
    let done = batches(lab, shadow)?;
    for act in ACTS {
        ensure!(done.contains(act), "{act:?} is not on record: {done}");
    }
    // What is cold did not start when it was installed, and what the active has for itself stays there.
    for unit in [
        "postgresql@15-main.service",
        "lab-jobs.service",
        "lab-job.timer",
    ] {
        let state = lab.unit_state(shadow, unit)?;
        ensure!(state == "inactive", "{unit} is {state} on the shadow");
    }
    lab.wait(LONG, "the job to run on the active", || {
        Ok(lab.exec(active, &["test", "-s", RAN])?.status.success())
    })?;
    let before = scene.answers(active)?;
    lab.fault(active, &Fault::Crash)?;
    lab.wait(TAKEOVER, "the shadow to take over", || {
        Ok(lab.view(shadow)?.role == "active" && pair.holds_vips(shadow)?)
    })?;
    let mut after = None;
    let same = lab.wait(LONG, "the same answers", || {
        after = scene.answers(shadow).ok();
        Ok(after.as_ref() == Some(&before))
    });
    same.with_context(|| format!("{before:?} before, {after:?} after"))?;
    // Nothing was left to be done.
    let more = batches(lab, shadow)?;
    ensure!(more == done, "acts at the promotion: {more}");
    pair.wait_return()?;
    lab.wait(LONG, "the old active to be ready as a shadow", || {
        let items = readiness(lab, active)?.1.unwrap_or_default();
        Ok(!items.is_empty() && items.iter().all(|item| item.is_well()))
    })
}

fn batches(lab: &Lab, host: &str) -> Result<String> {
    let acts = lab.ask(host, &["profile", "provision", "list"])?;
    Ok(acts["batches"].to_string())
}
