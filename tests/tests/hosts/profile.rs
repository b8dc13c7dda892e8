//! Profiles on real hosts: the shadow learns what the active needs, and says what it lacks itself.

mod breaks;
mod workshop;

use std::time::Instant;

use xtask::prove::ready::STIR_EVERY;

use self::breaks::SHUT;
use super::configured::Configured;
use super::*;

/// What is needed is learned within this: three digests of 10 s, a version, and one more for what was
/// read late, on a busy machine.
const LEARNED: Duration = Duration::from_secs(150);
const LEARN: &str = "[group.profile]\nsettle = \"4s\"\n";
pub(super) const NGINX: &str = "/etc/nginx/nginx.conf";
/// A drop-in with an environment, and the file that it names.
const DROP_IN: &str = "/etc/systemd/system/nginx.service.d/profile-test.conf";
pub(super) const VARIABLES: &str = "/etc/default/profile-test";

/// A JSON pointer (RFC 6901) into the content of a version, and a part of what has to be there.
type Needed = (String, &'static str);

/// A pair that learns quickly.
pub(super) struct Learned {
    configured: Configured,
    /// What nginx has, for when it is over.
    nginx: String,
}

impl Learned {
    fn new() -> Result<Self> {
        Self::with(LEARN)
    }

    /// With this table of the group.
    pub(super) fn with(table: &str) -> Result<Self> {
        Self::on(Pair::take()?, table)
    }

    /// The same of a pair that was taken already.
    fn on(pair: Pair, table: &str) -> Result<Self> {
        let configured = Configured::patient_on(pair, |text| format!("{text}\n{table}"))?;
        let pair = &configured.pair;
        let nginx = pair.lab.run(&pair.active, &["cat", NGINX])?;
        let mut learned = Self { configured, nginx };
        learned.prepare()?;
        // A unit of the active that is restarted moves the group.
        learned.configured.settle()?;
        Ok(learned)
    }

    pub(super) fn pair(&self) -> &Pair {
        &self.configured.pair
    }

    /// All hosts that may own the group.
    pub(super) fn members(&self) -> Vec<String> {
        let hosts = self.pair().lab.state().hosts.iter();
        let members = hosts.filter(|host| !host.witness);
        members.map(|host| host.name.clone()).collect()
    }

    /// The same environment on both, in use on both.
    fn prepare(&self) -> Result<()> {
        let (lab, active) = (&self.pair().lab, &self.pair().active);
        let mut members = self.members();
        // The group goes to where the unit was restarted before, and not on from there to a spare, which
        // learns by rules of its own.
        members.sort_by_key(|host| host == active);
        for host in &members {
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
    pub(super) fn lacks(&self) -> Result<Vec<(String, String, String)>> {
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
    pub(super) fn wait_ready(&self) -> Result<()> {
        let pair = self.pair();
        let needs = [
            (format!("/files/{}", escaped(NGINX)), ""),
            (format!("/units/{WARM}/environment/MODE"), ""),
            ("/packages/nginx".to_owned(), ""),
        ];
        self.wait_ready_of(&needs, || {
            let reload = ["systemctl", "reload", WARM];
            pair.lab.run(&pair.active, &reload).map(drop)
        })
    }

    /// The same of a version that has all of `needs`; until it does, the active's units are stirred now and
    /// then: they may have read their files before capture began.
    fn wait_ready_of(&self, needs: &[Needed], stir: impl Fn() -> Result<()>) -> Result<()> {
        let pair = self.pair();
        let (mut unknown, mut last) = (Vec::new(), Value::Null);
        let mut stirred: Option<Instant> = None;
        let waited = pair.lab.wait(LEARNED, "the shadow to be ready", || {
            let shown = pair.lab.ask(&pair.shadow, &["profile", "show"])?;
            let lacks = |(at, part): &&Needed| {
                let there = shown["content"].pointer(at);
                !there.is_some_and(|value| value.to_string().contains(part))
            };
            unknown = needs.iter().filter(lacks).collect();
            let calm = stirred.is_none_or(|at| at.elapsed() >= STIR_EVERY);
            if !unknown.is_empty() && calm {
                stir()?;
                stirred = Some(Instant::now());
            }
            last = self.ready()?;
            Ok(unknown.is_empty() && last["readiness"].is_object() && self.lacks()?.is_empty())
        });
        waited.with_context(|| format!("it does not know {unknown:?}, and says {last}"))
    }
}

/// A name as a part of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

impl Drop for Learned {
    fn drop(&mut self) {
        // What was learned here is nothing that others should have to be like: it is forgotten by all at
        // once, or who forgets it last tells the others.
        let undo = format!(
            "rm -rf {DROP_IN} {VARIABLES} /etc/systemd/system.control/nginx.service.d \
             /etc/systemd/system/nginx.service.d/zz-shadowd-limits.conf; \
             nft delete table inet shut 2>/dev/null; \
             systemctl daemon-reload; systemctl restart {WARM}"
        );
        let forget = format!(
            "systemctl stop {DAEMON}; rm -rf /var/lib/shadowd/pro* /var/lib/shadowd/repository; {undo}"
        );
        // A spare has its own: a test may have told the pair more.
        for host in [&self.pair().active, &self.pair().shadow] {
            let _ = self.pair().lab.write_file(host, NGINX, &self.nginx);
        }
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
    [group.profile.provision]\nfiles = \"apply\"\nunits = \"apply\"\nparameters = \"apply\"\n\
    firewall = \"apply\"\ncache = \"apply\"\n";
/// Breaks what it may mend.
const SPOIL: &str = "echo '# other' >> /etc/nginx/nginx.conf; \
    echo MODE=two > /etc/default/profile-test; chmod 0600 /etc/default/profile-test; \
    systemctl set-property nginx.service TasksMax=77; \
    systemctl stop nginx.service; systemctl mask --quiet nginx.service";
/// The rule by which it opens a port.
const OPENED: &str = "nft insert rule inet shut input tcp dport 80 accept";

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
    let copied = learned.batch_with("copy /etc/nginx/nginx.conf from the active")?;
    for act in [
        "systemctl unmask nginx.service",
        "systemctl start nginx.service",
        "systemctl edit nginx.service, with TasksMax=",
    ] {
        learned.batch_with(act)?;
    }
    let limit = |host: &str| {
        let show = ["systemctl", "show", "-P", "TasksMax", WARM];
        pair.lab.run(host, &show)
    };
    ensure!(
        limit(&pair.shadow)? == limit(&pair.active)?,
        "another limit"
    );
    learned.undo(&copied)?;
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
    pair.lab
        .wait(LONG, "the shadow to be mended again", mended)?;
    learned.hears_later()?;
    opened_and_closed_again(&learned)
}

/// The active's nginx is told something more.
const TELL: &str = "sed -i 's/add_header X-Host/add_header X-Told later; &/' /etc/nginx/nginx.conf; \
    systemctl reload nginx.service";

impl Learned {
    /// What the active's unit is told later, the one that runs on the shadow knows as well.
    fn hears_later(&self) -> Result<()> {
        let (lab, active) = (&self.pair().lab, &self.pair().active);
        let before = lab.run(active, &["cat", NGINX])?;
        let known = self.is_known_later();
        lab.write_file(active, NGINX, &before)?;
        lab.run(active, &["systemctl", "reload", WARM])?;
        known?;
        lab.wait(LEARNED, "the shadow to be as before", || {
            let shadow = &self.pair().shadow;
            Ok(lab.run(shadow, &["cat", NGINX])? == before && self.lacks()?.is_empty())
        })
    }

    /// Takes a batch back, once nothing is under way.
    fn undo(&self, batch: &Value) -> Result<()> {
        let command = format!("shadowctl profile provision undo {batch}");
        let (lab, shadow) = (&self.pair().lab, &self.pair().shadow);
        lab.wait(LONG, "the batch to be taken back", || {
            let output = lab.exec(shadow, &["sh", "-c", &command])?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(
                output.status.success() || said.contains("under way"),
                "{said}"
            );
            Ok(output.status.success())
        })
    }

    fn is_known_later(&self) -> Result<()> {
        let (lab, shadow) = (&self.pair().lab, &self.pair().shadow);
        let began = lab.run(shadow, &["systemctl", "show", "-P", "MainPID", WARM])?;
        lab.run(&self.pair().active, &["sh", "-c", TELL])?;
        lab.wait(LEARNED, "the shadow's unit to know it", || {
            let said = lab.exec(shadow, &["curl", "-sI", "http://127.0.0.1/stats"])?;
            let knows = String::from_utf8_lossy(&said.stdout).contains("X-Told: later");
            Ok(knows && self.lacks()?.is_empty())
        })?;
        // Files back first, and the unit reads them again: as it was.
        let told = self.batch_with("systemctl reload-or-restart nginx.service")?;
        self.undo(&self.batch_with("copy /etc/nginx/nginx.conf from the active")?)?;
        self.undo(&told)?;
        lab.wait(LONG, "the shadow's unit to know it no more", || {
            let said = lab.exec(shadow, &["curl", "-sI", "http://127.0.0.1/stats"])?;
            Ok(said.status.success() && !String::from_utf8_lossy(&said.stdout).contains("X-Told"))
        })?;
        lab.run(shadow, &["shadowctl", "profile", "provision", "resume"])?;
        let runs = lab.run(shadow, &["systemctl", "show", "-P", "MainPID", WARM])?;
        ensure!(runs == began, "it was not reloaded but started anew");
        Ok(())
    }

    /// The number of the newest batch on the shadow that is on record with this act.
    fn batch_with(&self, act: &str) -> Result<Value> {
        let (lab, shadow) = (&self.pair().lab, &self.pair().shadow);
        let acts = lab.ask(shadow, &["profile", "provision", "list"])?;
        let mut batches = acts["batches"].as_array().into_iter().flatten().rev();
        let found = batches.find(|batch| batch.to_string().contains(act));
        let number = found.map(|batch| batch["number"].clone());
        number.with_context(|| format!("{act} is not on record: {acts}"))
    }
}

/// A port that the packet filter drops is opened by one rule, which goes again when it is undone.
fn opened_and_closed_again(learned: &Learned) -> Result<()> {
    let pair = learned.pair();
    let rules = || {
        let list = ["nft", "list", "table", "inet", "shut"];
        pair.lab.run(&pair.shadow, &list)
    };
    pair.lab.run(&pair.shadow, &["sh", "-c", SHUT])?;
    let before = rules()?;
    let mut number = Value::Null;
    pair.lab.wait(LONG, "the port to be opened", || {
        let list = ["profile", "provision", "list"];
        let acts = pair.lab.ask(&pair.shadow, &list)?;
        let batches = acts["batches"].as_array().cloned().unwrap_or_default();
        let batch = batches
            .iter()
            .find(|batch| batch.to_string().contains(OPENED));
        number = batch
            .map(|batch| batch["number"].clone())
            .unwrap_or_default();
        Ok(rules()?.matches("shadowd-tcp-80").count() == 1 && number.is_u64())
    })?;
    learned.undo(&number)?;
    pair.lab
        .wait(LONG, "the rules to be as before", || Ok(rules()? == before))
}
