//! Profiles on real hosts: the shadow learns what the active needs, and says what it lacks itself.

use std::time::Instant;

use super::configured::Configured;
use super::*;

/// What breaks is told within this.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
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
        let configured = Configured::patient(|text| format!("{text}\n{table}"))?;
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

    /// Nothing is lacking, of a version that has all of `wanted` among its files and units.
    fn wait_ready(&self) -> Result<()> {
        let pair = self.pair();
        let mut last = Vec::new();
        let waited = pair.lab.wait(LONG, "the shadow to be ready", || {
            let shown = pair.lab.ask(&pair.shadow, &["profile", "show"])?;
            let content = &shown["content"];
            let known = content["files"][NGINX].is_object()
                && content["units"][WARM]["environment"]["MODE"].is_string()
                && content["packages"]["nginx"].is_object();
            if !known {
                // It may have read its files before capture began.
                pair.lab.run(&pair.active, &["systemctl", "reload", WARM])?;
            }
            last = self.lacks()?;
            Ok(known && last.is_empty() && self.ready()?["readiness"].is_object())
        });
        waited.with_context(|| format!("it lacks {last:?}"))
    }

    /// `item` is told, with `cause`, in time.
    fn wait_told(&self, what: &str, item: (&str, &str), cause: &str) -> Result<()> {
        let began = Instant::now();
        let mut lacks = Vec::new();
        while began.elapsed() < LONG {
            lacks = self.lacks()?;
            let told = lacks
                .iter()
                .find(|(kind, subject, _)| (kind.as_str(), subject.as_str()) == item);
            if let Some((_, _, why)) = told {
                ensure!(
                    why.contains(cause),
                    "{what}: told as {why:?}, not {cause:?}"
                );
                let took = began.elapsed();
                ensure!(took <= TOLD_WITHIN, "{what}: told after {took:?} only");
                return Ok(());
            }
            std::thread::yield_now();
        }
        bail!("{what} was not told; it lacks {lacks:?}")
    }
}

impl Drop for Learned {
    fn drop(&mut self) {
        // What was learned here is nothing that others should have to be like: it is forgotten by all at
        // once, or who forgets it last tells the others.
        let undo = format!(
            "rm -rf {DROP_IN} {VARIABLES} /run/systemd/system/nginx.service.d \
             /etc/systemd/system/nginx.service.d/zz-shadowd-limits.conf; \
             nft delete table inet shut 2>/dev/null; \
             systemctl daemon-reload; systemctl restart {WARM}"
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

/// A break of the shadow: what is done, what undoes it, what is told.
struct Break {
    what: &'static str,
    does: &'static str,
    undoes: &'static str,
    item: (&'static str, &'static str),
    cause: &'static str,
}

const fn broken(
    what: &'static str,
    does: &'static str,
    undoes: &'static str,
    item: (&'static str, &'static str),
    cause: &'static str,
) -> Break {
    Break {
        what,
        does,
        undoes,
        item,
        cause,
    }
}

const BREAKS: &[Break] = &[
    broken(
        "an edited file",
        "cp -p /etc/nginx/nginx.conf /run/kept; echo '# other' >> /etc/nginx/nginx.conf",
        "cp -p /run/kept /etc/nginx/nginx.conf",
        ("file", NGINX),
        "on the active",
    ),
    broken(
        "a missing file",
        "mv /etc/nginx/nginx.conf /run/kept",
        "mv /run/kept /etc/nginx/nginx.conf",
        ("file", NGINX),
        "it is not here",
    ),
    broken(
        "another mode",
        "chmod 0600 /etc/nginx/nginx.conf",
        "chmod 0644 /etc/nginx/nginx.conf",
        ("file", NGINX),
        "mode 0600 here, 0644 on the active",
    ),
    broken(
        "another owner",
        "chown www-data:www-data /etc/nginx/nginx.conf",
        "chown root:root /etc/nginx/nginx.conf",
        ("file", NGINX),
        "it belongs to www-data:www-data here",
    ),
    broken(
        "a link in place of a file",
        "mv /etc/nginx/nginx.conf /run/kept; ln -s /run/kept /etc/nginx/nginx.conf",
        "mv /run/kept /etc/nginx/nginx.conf",
        ("file", NGINX),
        "a link to /run/kept",
    ),
    broken(
        "another variable",
        "echo MODE=two > /etc/default/profile-test",
        "echo MODE=one > /etc/default/profile-test",
        ("environment", "nginx.service: MODE"),
        "it has another value",
    ),
    broken(
        "a missing variable",
        "echo OTHER=1 > /etc/default/profile-test",
        "echo MODE=one > /etc/default/profile-test",
        ("environment", "nginx.service: MODE"),
        "it is not set here",
    ),
    broken(
        "a masked unit",
        "systemctl mask --quiet nginx.service",
        "systemctl unmask --quiet nginx.service",
        ("unit", "nginx.service"),
        "it is masked",
    ),
    broken(
        "a missing unit",
        "mv /etc/systemd/system/lab-cold.service /run/kept; systemctl daemon-reload",
        "mv /run/kept /etc/systemd/system/lab-cold.service; systemctl daemon-reload",
        ("unit", "lab-cold.service"),
        "there is no such unit here",
    ),
    broken(
        "a stopped warm unit",
        "systemctl stop nginx.service",
        "systemctl start nginx.service",
        ("unit", "nginx.service"),
        "it is warm and does not run",
    ),
    broken(
        "a disabled unit",
        "systemctl disable --quiet nginx.service",
        "systemctl enable --quiet nginx.service",
        ("unit", "nginx.service"),
        "disabled here, enabled on the active",
    ),
    broken(
        "another limit",
        "mkdir -p /run/systemd/system/nginx.service.d; printf '[Service]\\nLimitNOFILE=77\\n' > \
         /run/systemd/system/nginx.service.d/limit.conf; systemctl daemon-reload",
        "rm /run/systemd/system/nginx.service.d/limit.conf; systemctl daemon-reload",
        ("limit", "nginx.service: LimitNOFILE"),
        "77 here",
    ),
    broken(
        "a package of another version",
        "cp /var/lib/dpkg/status /run/kept; sed -i '/^Package: nginx$/,/^$/s/^Version: .*/\
         Version: 1.0-1/' /var/lib/dpkg/status",
        "cp /run/kept /var/lib/dpkg/status",
        ("package", "nginx"),
        "1.0-1 here",
    ),
    // The last: what is open on the active is told each half minute.
    broken(
        "a closed port",
        SHUT,
        "nft delete table inet shut",
        ("firewall", "nginx.service: tcp 80"),
        "chain input of table inet shut drops it",
    ),
];

/// A packet filter that drops what is not let in.
const SHUT: &str = "nft add table inet shut; nft add chain inet shut input \
    '{ type filter hook input priority 10; policy accept; }'; \
    nft add rule inet shut input iifname lo accept; \
    nft add rule inet shut input tcp dport '{ 80, 443 }' drop";

/// Each break of the shadow is told within ten seconds, with its cause; what is mended is ready again.
#[test]
fn a_shadow_tells_what_it_lacks() -> Result<()> {
    let learned = Learned::new()?;
    learned.wait_ready()?;
    let pair = learned.pair();
    for one in BREAKS {
        pair.lab.run(&pair.shadow, &["sh", "-c", one.does])?;
        let told = learned.wait_told(one.what, one.item, one.cause);
        pair.lab.run(&pair.shadow, &["sh", "-c", one.undoes])?;
        told?;
        learned
            .wait_ready()
            .with_context(|| format!("after {}", one.what))?;
    }
    Ok(())
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
    systemctl stop nginx.service; systemctl mask --quiet nginx.service; \
    mkdir -p /run/systemd/system/nginx.service.d; printf '[Service]\\nLimitNOFILE=77\\n' > \
    /run/systemd/system/nginx.service.d/limit.conf; systemctl daemon-reload";
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
        "systemctl edit nginx.service, with LimitNOFILE=",
    ] {
        ensure!(has(act).is_some(), "{act} is not on record: {acts}");
    }
    let limit = |host: &str| {
        let show = ["systemctl", "show", "-P", "LimitNOFILE", WARM];
        pair.lab.run(host, &show)
    };
    ensure!(
        limit(&pair.shadow)? == limit(&pair.active)?,
        "another limit"
    );
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
    pair.lab
        .wait(LONG, "the shadow to be mended again", mended)?;
    opened_and_closed_again(pair)
}

/// A port that the packet filter drops is opened by one rule, which goes again when it is undone.
fn opened_and_closed_again(pair: &Pair) -> Result<()> {
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
    let undo = [
        "shadowctl",
        "profile",
        "provision",
        "undo",
        &number.to_string(),
    ];
    pair.lab.run(&pair.shadow, &undo)?;
    pair.lab
        .wait(LONG, "the rules to be as before", || Ok(rules()? == before))
}
