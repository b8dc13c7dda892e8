//! Profiles on real hosts: the shadow learns what the active needs, and says what it lacks itself.

mod breaks;
mod workshop;

use super::configured::Configured;
use super::*;

const LEARN: &str = "[group.profile]\nsettle = \"4s\"\n";
const NGINX: &str = "/etc/nginx/nginx.conf";
/// A drop-in with an environment, and the file that it names.
const DROP_IN: &str = "/etc/systemd/system/nginx.service.d/profile-test.conf";
const VARIABLES: &str = "/etc/default/profile-test";

/// A pair that learns quickly.
struct Learned {
    configured: Configured,
}

impl Learned {
    fn new() -> Result<Self> {
        Self::with(LEARN)
    }

    /// With this table of the group.
    fn with(table: &str) -> Result<Self> {
        Self::on(Pair::take()?, table)
    }

    /// The same of a pair that was taken already.
    fn on(pair: Pair, table: &str) -> Result<Self> {
        let configured = Configured::patient_on(pair, |text| format!("{text}\n{table}"))?;
        let learned = Self { configured };
        learned.prepare()?;
        Ok(learned)
    }

    fn pair(&self) -> &Pair {
        &self.configured.pair
    }

    /// All hosts that may own the group.
    fn members(&self) -> Vec<String> {
        let hosts = self.pair().lab.state().hosts.iter();
        let members = hosts.filter(|host| !host.witness);
        members.map(|host| host.name.clone()).collect()
    }

    /// The same environment on both, in use on both.
    fn prepare(&self) -> Result<()> {
        let lab = &self.pair().lab;
        for host in self.members() {
            let host = &host;
            lab.write_file(host, VARIABLES, "MODE=one\n")?;
            lab.write_file(
                host,
                DROP_IN,
                "[Service]\nEnvironmentFile=/etc/default/profile-test\n",
            )?;
            lab.run(host, &["systemctl", "daemon-reload"])?;
            lab.run(host, &["systemctl", "restart", WARM])?;
        }
        Ok(())
    }

    fn ready(&self) -> Result<Value> {
        let pair = self.pair();
        let output = pair
            .lab
            .exec(&pair.shadow, &["shadowctl", "--json", "ready"])?;
        let answer: Value = serde_json::from_slice(&output.stdout).context("no JSON")?;
        Ok(answer["groups"][0].clone())
    }

    /// Kind, subject and cause of what is not ready.
    fn lacks(&self) -> Result<Vec<(String, String, String)>> {
        let ready = self.ready()?;
        let items = ready["readiness"]["items"].as_array().cloned();
        let items = items.unwrap_or_default().into_iter();
        let lacking = items.filter(|item| item["verdict"] == "not_ready");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(lacking
            .map(|item| {
                (
                    text(&item["kind"]),
                    text(&item["subject"]),
                    text(&item["cause"]),
                )
            })
            .collect())
    }

    /// Nothing is lacking, of a version that has what the tests break.
    fn wait_ready(&self) -> Result<()> {
        let pair = self.pair();
        let known = |content: &Value| {
            content["files"][NGINX].is_object()
                && content["units"][WARM]["environment"]["MODE"].is_string()
                && content["packages"]["nginx"].is_object()
        };
        self.wait_ready_of(known, || {
            let reload = ["systemctl", "reload", WARM];
            pair.lab.run(&pair.active, &reload).map(drop)
        })
    }

    /// The same of a version that is `known`; until it is, the active's units are stirred: they may
    /// have read their files before capture began.
    fn wait_ready_of(
        &self,
        known: impl Fn(&Value) -> bool,
        stir: impl Fn() -> Result<()>,
    ) -> Result<()> {
        let pair = self.pair();
        let mut last = Vec::new();
        let waited = pair.lab.wait(LONG, "the shadow to be ready", || {
            let shown = pair.lab.ask(&pair.shadow, &["profile", "show"])?;
            let known = known(&shown["content"]);
            if !known {
                stir()?;
            }
            last = self.lacks()?;
            Ok(known && last.is_empty() && self.ready()?["readiness"].is_object())
        });
        waited.with_context(|| format!("it lacks {last:?}"))
    }
}

impl Drop for Learned {
    fn drop(&mut self) {
        // What was learned here is nothing that others should have to be like: it is forgotten by all at
        // once, or who forgets it last tells the others.
        let undo = format!(
            "rm -rf {DROP_IN} {VARIABLES}; systemctl daemon-reload; systemctl restart {WARM}"
        );
        let forget = format!("systemctl stop {DAEMON}; rm -rf /var/lib/shadowd/pro*; {undo}");
        let start = format!("systemctl start {DAEMON}");
        for command in [forget, start] {
            for host in self.members() {
                let _ = self.pair().lab.run(&host, &["sh", "-c", &command]);
            }
        }
    }
}

/// Both members have the same versions, of the active alone; an operator's orders reach the shadow,
/// and are refused there.
#[test]
fn versions_are_the_same_on_both_members() -> Result<()> {
    let learned = Learned::new()?;
    learned.wait_ready()?;
    let pair = learned.pair();
    let in_use = |host: &str| -> Result<Value> {
        let history = pair.lab.ask(host, &["profile", "history"])?;
        let versions = history["versions"].as_array().cloned().unwrap_or_default();
        let current = versions.into_iter().find(|line| line["current"] == true);
        current.context("no version is in use")
    };
    let same = |what: &str| -> Result<Value> {
        let mut seen = Value::Null;
        pair.lab.wait(LONG, what, || {
            let (here, there) = (in_use(&pair.active)?, in_use(&pair.shadow)?);
            seen = here.clone();
            Ok(here["id"] == there["id"])
        })?;
        Ok(seen)
    };
    let first = same("the same version on both")?;
    ensure!(first["author_name"] == pair.active.as_str(), "{first}");
    let refused = pair
        .lab
        .exec(&pair.shadow, &["shadowctl", "profile", "pin"])?;
    ensure!(!refused.status.success(), "a shadow pinned a version");
    pair.lab
        .run(&pair.active, &["shadowctl", "profile", "pin"])?;
    pair.lab.wait(LONG, "the pin to reach the shadow", || {
        Ok(in_use(&pair.shadow)?["pinned"] == true)
    })?;
    let exported = [
        "shadowctl",
        "profile",
        "export",
        "--output",
        "/run/exported",
    ];
    pair.lab.run(&pair.active, &exported)?;
    pair.lab
        .run(&pair.active, &["shadowctl", "profile", "unpin"])?;
    pair.lab.run(
        &pair.active,
        &["shadowctl", "profile", "import", "/run/exported"],
    )?;
    let imported = same("the imported version on both")?;
    let reason = imported["reason"].as_str().unwrap_or_default();
    ensure!(reason.starts_with("imported: "), "{imported}");
    let spoil = "sed -i 's/\"signature\": \"..../\"signature\": \"AAAA/' /run/exported";
    pair.lab.run(&pair.active, &["sh", "-c", spoil])?;
    let import = ["shadowctl", "profile", "import", "/run/exported"];
    let refused = pair.lab.exec(&pair.active, &import)?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        !refused.status.success() && said.contains("signature"),
        "{said}"
    );
    for host in [&pair.active, &pair.shadow] {
        let all = |shown: &Value| {
            let repository = &shown["repository"];
            let there = repository["there"].as_u64().unwrap_or(0);
            there >= 4 && repository["to_put"] == 0 && repository["silent_since"].is_null()
        };
        pair.lab
            .wait(LONG, "its repository to have all versions", || {
                Ok(all(&pair.lab.ask(host, &["profile", "repository"])?))
            })?;
    }
    Ok(())
}

/// What a policy lets shadowd do.
const APPLY: &str = "[group.profile]\nsettle = \"4s\"\n\
    replicate = [\"/etc/nginx/*\", \"/etc/default/*\", \"/etc/systemd/system/*\"]\n\
    [group.profile.provision]\nfiles = \"apply\"\nunits = \"apply\"\nparameters = \"apply\"\n";
/// Breaks what it may mend.
const SPOIL: &str = "echo '# other' >> /etc/nginx/nginx.conf; \
    echo MODE=two > /etc/default/profile-test; chmod 0600 /etc/default/profile-test; \
    systemctl stop nginx.service; systemctl mask --quiet nginx.service";

/// Where its policy lets it, shadowd mends all of it by itself; each act is on record, can be taken
/// back, and then stays so until it is told to go on.
#[test]
fn a_shadow_is_made_ready_by_policy_and_what_was_done_can_be_undone() -> Result<()> {
    let learned = Learned::with(APPLY)?;
    learned.wait_ready()?;
    let pair = learned.pair();
    let read = |host: &str, path: &str| pair.lab.run(host, &["cat", path]);
    let spoiled = format!("{}# other\n", read(&pair.shadow, NGINX)?);
    pair.lab.run(&pair.shadow, &["sh", "-c", SPOIL])?;
    let mended = || -> Result<bool> {
        let same = [NGINX, VARIABLES].iter().all(|path| {
            let both = [&pair.active, &pair.shadow].map(|host| read(host, path).ok());
            both[0].is_some() && both[0] == both[1]
        });
        let runs = pair.lab.unit_state(&pair.shadow, WARM)? == "active";
        Ok(same && runs && learned.lacks()?.is_empty())
    };
    let waited = pair.lab.wait(LONG, "the shadow to be mended", mended);
    waited.with_context(|| format!("it lacks {:?}", learned.lacks()))?;
    let mode = pair
        .lab
        .run(&pair.shadow, &["stat", "-c", "%a", VARIABLES])?;
    ensure!(mode.trim() == "644", "the mode is {mode}");
    let acts = pair
        .lab
        .ask(&pair.shadow, &["profile", "provision", "list"])?;
    let batches = acts["batches"].as_array().cloned().unwrap_or_default();
    let has = |text: &str| {
        batches
            .iter()
            .find(|batch| batch.to_string().contains(text))
            .map(|batch| batch["number"].clone())
    };
    let copied = has("copy /etc/nginx/nginx.conf from the active").context("it was not copied")?;
    for act in [
        "systemctl unmask nginx.service",
        "systemctl start nginx.service",
    ] {
        ensure!(has(act).is_some(), "{act} is not on record: {acts}");
    }
    let undo = [
        "shadowctl",
        "profile",
        "provision",
        "undo",
        &copied.to_string(),
    ];
    pair.lab.run(&pair.shadow, &undo)?;
    pair.lab.wait(LONG, "the batch to be undone", || {
        Ok(read(&pair.shadow, NGINX)?.trim_end() == spoiled.trim_end()
            && !learned.lacks()?.is_empty())
    })?;
    let acts = pair
        .lab
        .ask(&pair.shadow, &["profile", "provision", "list"])?;
    ensure!(acts["held"] == true, "it goes on by itself: {acts}");
    pair.lab.run(
        &pair.shadow,
        &["shadowctl", "profile", "provision", "resume"],
    )?;
    pair.lab.wait(LONG, "the shadow to be mended again", mended)
}

/// What both let out and in, without a policy that mends by itself.
const REPLICATE: &str = "[group.profile]\nsettle = \"4s\"\n\
    replicate = [\"/etc/nginx/*\", \"/etc/default/*\", \"/etc/systemd/system/*\"]\n";
/// Wrecks a shadow: a content, a mode, a unit, a file that is gone.
const WRECK: &str = "echo '# wrecked' > /etc/nginx/nginx.conf; chmod 0600 /etc/nginx/nginx.conf; \
    rm /etc/default/profile-test; systemctl stop nginx.service; \
    systemctl mask --quiet nginx.service";
const RESTORE: &str = "profile golden restore --within 50s";
const EDIT: &str = "echo '# second' >> /etc/nginx/nginx.conf; systemctl reload nginx.service";

/// A wrecked shadow comes back to the golden version byte for byte, also where the active has another
/// content by now: it was kept. So it is after a rollback, and what cannot be done is told.
#[test]
fn a_shadow_is_restored_to_the_golden_version() -> Result<()> {
    let learned = Learned::with(REPLICATE)?;
    learned.wait_ready()?;
    let pair = learned.pair();
    let golden = pair.lab.run(&pair.active, &["cat", NGINX])?;
    let restored = learned.is_restored(&golden);
    for host in learned.members() {
        pair.lab.write_file(&host, NGINX, &golden)?;
        pair.lab
            .run(&host, &["systemctl", "unmask", "--quiet", WARM])?;
        pair.lab
            .run(&host, &["systemctl", "reload-or-restart", WARM])?;
    }
    restored
}

impl Learned {
    /// Whether a command ended well, and what it said.
    fn told(&self, host: &str, line: &str) -> Result<(bool, String)> {
        let words: Vec<&str> = ["shadowctl"].into_iter().chain(line.split(' ')).collect();
        let command = self.pair().lab.command(host, &words)?;
        let output = xtask::lab::command::output(command, None, LONG)?;
        let said = [output.stdout, output.stderr];
        let said = said.map(|text| String::from_utf8_lossy(&text).into_owned());
        Ok((output.status.success(), said.concat()))
    }

    /// What the version in use says of a file.
    fn says(&self, host: &str, path: &str) -> Result<Value> {
        let shown = self.pair().lab.ask(host, &["profile", "show"])?;
        Ok(shown["content"]["files"][path].clone())
    }

    fn is_restored(&self, golden: &str) -> Result<()> {
        let (lab, active, shadow) = (&self.pair().lab, &self.pair().active, &self.pair().shadow);
        let (restored, said) = self.told(shadow, RESTORE)?;
        ensure!(!restored && said.contains("no version is golden"), "{said}");
        lab.run(active, &["shadowctl", "profile", "golden", "set"])?;
        lab.wait(LONG, "the golden version to reach the shadow", || {
            Ok(self.told(shadow, "profile golden show")?.0)
        })?;
        let (restored, said) = self.told(active, RESTORE)?;
        ensure!(!restored && said.contains("owns group"), "{said}");
        // The file changes on both, and another version follows.
        let before = self.says(shadow, NGINX)?;
        for host in [active, shadow] {
            lab.run(host, &["sh", "-c", EDIT])?;
        }
        lab.wait(LONG, "a version with the changed file", || {
            let (here, there) = (self.says(shadow, NGINX)?, self.says(active, NGINX)?);
            Ok(here != before && here == there)
        })?;
        lab.run(shadow, &["sh", "-c", WRECK])?;
        self.comes_back(golden)?;
        let acts = lab.ask(shadow, &["profile", "provision", "list"])?;
        let recorded = acts["held"] == true && acts.to_string().contains(NGINX);
        ensure!(recorded, "{acts}");
        // The old content is in use again; the active's disk has it no more: it is as it was kept.
        ensure!(
            lab.run(active, &["cat", NGINX])? != golden,
            "the active went back"
        );
        lab.run(active, &["shadowctl", "profile", "golden", "apply"])?;
        lab.wait(LONG, "the old content to be in use on the shadow", || {
            Ok(self.says(shadow, NGINX)? == before)
        })?;
        lab.run(shadow, &["sh", "-c", WRECK])?;
        self.comes_back(golden)?;
        lab.wait(LONG, "the shadow to be ready", || {
            Ok(self.lacks()?.is_empty())
        })?;
        let (_, resumed) = self.told(shadow, "profile provision resume")?;
        ensure!(!resumed.contains("held"), "{resumed}");
        Ok(())
    }

    /// The wrecked shadow is restored, and is what the golden version says.
    fn comes_back(&self, golden: &str) -> Result<()> {
        let (lab, shadow) = (&self.pair().lab, &self.pair().shadow);
        let (restored, said) = self.told(shadow, RESTORE)?;
        ensure!(restored, "not restored: {said}");
        for part in [
            "done: copy /etc/nginx/nginx.conf",
            "done: systemctl unmask nginx.service",
            "restored: as the golden version has it",
            "held: nothing is done by itself",
        ] {
            ensure!(said.contains(part), "{part}: {said}");
        }
        ensure!(
            lab.run(shadow, &["cat", NGINX])? == golden,
            "another content"
        );
        let variables = lab.run(shadow, &["cat", VARIABLES])?;
        ensure!(variables == "MODE=one\n", "{variables}");
        let modes = lab.run(shadow, &["stat", "-c", "%a %U:%G", NGINX, VARIABLES])?;
        ensure!(modes == "644 root:root\n644 root:root\n", "{modes}");
        ensure!(lab.unit_state(shadow, WARM)? == "active", "it does not run");
        Ok(())
    }
}
