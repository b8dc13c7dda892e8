//! Shadows that are gone come back: the old primary by itself, a spare that waits, a spare that a
//! provider creates. The lab has a spare `s` for these.

use xtask::lab::state::{Host, SPARE};

use super::*;

/// Members have no time to come back, and spares are released at once.
const QUICK: &str = r#"
[group.redundancy]
rejoin_within = "4s"
release_after = "2s"
"#;
/// A provider on the active, with the active's own files as the golden image.
const PROVIDER: &str = r#"
[group.redundancy.provider]
command = ["/usr/bin/shadowctl", "provider", "nspawn", "--image", "/run/golden",
           "--files", "/run/prepared", "--machines", "/run/machines", "--link", "br0"]
deadline = "100s"
ready_within = "120s"
retry = "2s"
"#;
/// How long a machine may take to be copied, to boot and to be heard.
const BOOTS: Duration = Duration::from_secs(150);

/// The lab with another configuration on every host; has the first again when dropped.
struct Redundant {
    pair: Pair,
    before: Vec<(String, String)>,
}

impl Redundant {
    fn take(more: &str) -> Result<Self> {
        let pair = Pair::take()?;
        let hosts = pair.lab.state().hosts.iter();
        let spare = hosts.clone().find(|host| host.spare);
        spare.context("the lab has no spare: `cargo xtask lab up --witness --spare`")?;
        let read = |host: &Host| {
            let text = pair.lab.run(&host.name, &["cat", CONFIG])?;
            Ok((host.name.clone(), text))
        };
        let before = hosts.map(read).collect::<Result<_>>()?;
        let redundant = Self { pair, before };
        redundant.configure(|text| format!("{text}{more}"))?;
        Ok(redundant)
    }

    fn configure(&self, change: impl Fn(&str) -> String) -> Result<()> {
        let lab = &self.pair.lab;
        for (host, text) in &self.before {
            lab.write_file(host, CONFIG, &change(text))?;
            lab.run(host, &["systemctl", "restart", DAEMON])?;
        }
        lab.converge(LONG)?;
        // Nobody knows the spare before it was heard.
        lab.wait(LONG, "the spare to be heard", || {
            let waits = member(&self.group(&self.pair.active)?, SPARE)?;
            Ok(waits["reason"] == "spare" && waits["suspected"] == false)
        })
    }

    fn group(&self, host: &str) -> Result<Value> {
        group(&self.pair.lab, host)
    }

    /// What the owner says of redundancy, once it is as wanted.
    fn until(
        &self,
        owner: &str,
        within: Duration,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        let waited = self.pair.lab.wait(within, what, || {
            last = self.group(owner)?["redundancy"].clone();
            Ok(wanted(&last))
        });
        waited.with_context(|| format!("host {owner} says {last}"))?;
        Ok(last)
    }

    /// The group is a member's again, and all are well.
    fn give_back(&self, from: &str, to: &str) -> Result<()> {
        let handover = ["shadowctl", "failover", "handover", GROUP, "--to", to];
        self.pair
            .lab
            .wait(LONG, "the group to be handed back", || {
                Ok(self.pair.lab.exec(from, &handover)?.status.success())
            })?;
        self.pair.lab.converge(LONG).map(drop)
    }
}

impl Drop for Redundant {
    fn drop(&mut self) {
        if let Err(error) = self.configure(str::to_owned) {
            eprintln!("the hosts have not their configuration: {error:#}");
        }
    }
}

fn group(lab: &Lab, host: &str) -> Result<Value> {
    let status = lab.ask(host, &["status"])?;
    let groups = status["groups"].as_array();
    let group = groups.and_then(|groups| groups.iter().find(|it| it["group"] == GROUP));
    group.cloned().context("the host does not know the group")
}

fn member(group: &Value, host: &str) -> Result<Value> {
    let members = group["members"].as_array();
    let member = members.and_then(|members| members.iter().find(|it| it["host"] == host));
    member.cloned().context("no such member")
}

#[test]
fn an_old_primary_that_comes_back_restores_redundancy_and_the_time_is_told() -> Result<()> {
    let pair = Pair::take()?;
    let (lab, old, new) = (&pair.lab, pair.active.as_str(), pair.shadow.as_str());
    let since = lab.newest_event(new)?;
    lab.fault(old, &Fault::Crash)?;
    pair.wait_takeover()?;
    let redundancy = || Ok::<_, anyhow::Error>(group(lab, new)?["redundancy"].clone());
    let events = || -> Result<Vec<String>> {
        let events = lab.events(new, since)?;
        let events = events.iter().filter(|event| event["kind"] == "redundancy");
        let details = events.map(|event| event["detail"].as_str().unwrap_or_default().to_owned());
        Ok(details.collect())
    };
    lab.wait(LONG, "the loss to be told", || {
        Ok(events()?
            .iter()
            .any(|detail| detail.starts_with("lost: 0 of 1")))
    })?;
    let lost = redundancy()?;
    let rejoin = lost["step"]["step"] == "rejoin";
    let why = lost["why"].as_str().unwrap_or_default();
    ensure!(
        lost["full"] == false && rejoin && why.contains(old),
        "{lost}"
    );
    pair.wait_return()?;
    let full = redundancy()?;
    ensure!(full["full"] == true, "{full}");
    let last = &full["last"];
    ensure!(last["by"] == "rejoined" && last["host"] == old, "{last}");
    let took_ns = last["took_ns"].as_u64().unwrap_or_default();
    ensure!((3_000_000_000..60_000_000_000).contains(&took_ns), "{last}");
    let text = lab.run(new, &["shadowctl", "status"])?;
    ensure!(
        text.contains("redundancy full") && text.contains("(rejoined)"),
        "{text}"
    );
    ensure!(
        events()?
            .iter()
            .any(|detail| detail.starts_with("restored after"))
    );
    let metrics = ["curl", "-s", "--unix-socket", SOCKET, "http://d/metrics"];
    let metrics = lab.exec(new, &metrics)?;
    let metrics = String::from_utf8_lossy(&metrics.stdout);
    let shown = metrics.contains("shadowd_group_redundancy_restored_after_seconds{group=\"web\"}");
    ensure!(shown || metrics.is_empty(), "{metrics}");
    Ok(())
}

#[test]
fn a_spare_is_enlisted_and_takes_over_when_the_second_active_dies() -> Result<()> {
    let lab = Redundant::take(QUICK)?;
    let (first, second) = (lab.pair.active.clone(), lab.pair.shadow.clone());
    // The service of the first is dead, and stays so.
    lab.pair.lab.fault(&first, &Fault::UnitStop(WARM.into()))?;
    lab.pair.wait_takeover()?;
    let full = lab.until(&second, LONG, "the spare to be enlisted", |it| {
        it["full"] == true && it["last"]["by"] == "spare"
    })?;
    ensure!(full["enlisted"] == serde_json::json!([SPARE]), "{full}");
    // Of the five, two are left that vote, and the spare does not.
    lab.pair.lab.fault(&second, &Fault::Crash)?;
    lab.pair.lab.wait(TAKEOVER, "the spare to take over", || {
        let view = lab.pair.lab.view(SPARE)?;
        let cold = lab.pair.lab.unit_state(SPARE, COLD)?;
        Ok(view.role == "active" && lab.pair.holds_vips(SPARE)? && cold == "active")
    })?;
    // Members that come back are shadows, and get the group when an operator hands it over.
    lab.pair.lab.heal(&second)?;
    lab.pair.lab.heal(&first)?;
    lab.until(SPARE, LONG, "the members to be back", |it| {
        it["full"] == true && it["ready"].as_u64() >= Some(2)
    })?;
    lab.give_back(SPARE, &first)?;
    lab.until(&first, LONG, "the spare to be released", |it| {
        it["full"] == true && it["enlisted"] == serde_json::json!([])
    })?;
    let spare = member(&lab.group(SPARE)?, SPARE)?;
    ensure!(
        spare["eligible"] == false && spare["reason"] == "spare",
        "{spare}"
    );
    Ok(())
}

/// The spare's host is gone; what was prepared for it is on the next active, which has a bridge.
struct Provided {
    redundant: Redundant,
    on: String,
}

impl Provided {
    fn take() -> Result<Self> {
        let redundant = Redundant::take(QUICK)?;
        let provided = Self {
            on: redundant.pair.shadow.clone(),
            redundant,
        };
        provided.prepare()?;
        Ok(provided)
    }

    fn sh(&self, script: &str) -> Result<String> {
        self.redundant
            .pair
            .lab
            .run(&self.on, &["sh", "-ec", script])
    }

    fn prepare(&self) -> Result<()> {
        let lab = &self.redundant.pair.lab;
        let config = lab.run(SPARE, &["cat", CONFIG])?;
        let state = [
            "tar",
            "-C",
            "/var/lib/shadowd",
            "-cf",
            "/run/state.tar",
            ".",
        ];
        lab.run(SPARE, &["systemctl", "stop", DAEMON])?;
        lab.run(SPARE, &state)?;
        let state = lab.run(SPARE, &["base64", "-w0", "/run/state.tar"])?;
        let spare = lab.state().host(SPARE)?;
        let network = format!(
            "[Match]\nName=host0\n[Network]\nAddress={}/24\nAddress={}/64\nLinkLocalAddressing=no\n\
             IPv6AcceptRA=no\nDHCP=no\n",
            spare.v4, spare.v6
        );
        let link = self.redundant.pair.lab.state().host(&self.on)?;
        lab.fault(SPARE, &Fault::Crash)?;
        self.sh(
            "umount /run/golden 2>/dev/null || true; mkdir -p /run/golden \
                 /run/prepared/s/etc/shadowd /run/prepared/s/etc/systemd/network \
                 /run/prepared/s/var/lib/shadowd /run/machines; mount --bind / /run/golden",
        )?;
        let write = |path: &str, text: &str| lab.write_file(&self.on, path, text);
        let prepared = |path: &str| format!("/run/prepared/s/{path}");
        write("/run/state.b64", &state)?;
        self.sh(
            "base64 -d /run/state.b64 | tar -C /run/prepared/s/var/lib/shadowd -xf -; \
                 rm -f /run/prepared/s/var/lib/shadowd/*.sqlite*; rm /run/state.b64",
        )?;
        let inside = config.replace("\"eth0\"", "\"host0\"");
        write(&prepared("etc/shadowd/shadowd.toml"), &inside)?;
        write(&prepared("etc/systemd/network/10-host0.network"), &network)?;
        // The bridge takes the place of the interface.
        self.sh(&format!(
            "systemctl stop {DAEMON}; ip link add br0 address $(cat /sys/class/net/eth0/address) \
             type bridge; ip link set br0 up; ip addr flush dev eth0; ip link set eth0 master br0; \
             ip addr add {}/24 dev br0; ip addr add {}/64 dev br0 nodad",
            link.v4, link.v6
        ))?;
        let own = lab.run(&self.on, &["cat", CONFIG])?;
        let own = format!("{}{PROVIDER}", own.replace("\"eth0\"", "\"br0\""));
        write(CONFIG, &own)?;
        self.sh(&format!("systemctl start {DAEMON}"))?;
        let active = &self.redundant.pair.active;
        lab.wait(LONG, "the shadow to be back", || {
            let shadow = member(&self.redundant.group(active)?, &self.on)?;
            Ok(shadow["eligible"] == true && shadow["suspected"] == false)
        })
    }

    /// Nothing of the machine is left, and the hosts are as they were.
    fn undo(&self) -> Result<()> {
        let lab = &self.redundant.pair.lab;
        let link = lab.state().host(&self.on)?;
        let gone = "shadowctl provider nspawn --remove s --machines /run/machines";
        let gone = self.sh(gone);
        let left = self.sh(
            "systemctl list-units --all --plain --no-legend 'shadowd-machine-*' \
             'shadowd-provider-*'; ls -A /run/machines; ip -br link | grep vb- || true",
        );
        self.sh(&format!(
            "systemctl stop {DAEMON}; ip link del br0; ip addr add {}/24 dev eth0; \
             ip addr add {}/64 dev eth0 nodad; umount /run/golden; rm -rf /run/prepared; \
             rmdir /run/golden /run/machines",
            link.v4, link.v6
        ))?;
        lab.heal(&self.redundant.pair.active)?;
        lab.heal(SPARE)?;
        let (gone, left) = (gone?, left?);
        ensure!(
            gone.contains("\"ready\"") && left.trim().is_empty(),
            "{gone} left: {left}"
        );
        Ok(())
    }
}

impl Drop for Provided {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            eprintln!("the machine is not gone: {error:#}");
        }
    }
}

#[test]
fn a_provider_makes_a_machine_which_becomes_a_ready_shadow() -> Result<()> {
    let lab = Provided::take()?;
    let owner = lab.on.clone();
    lab.redundant
        .pair
        .lab
        .fault(&lab.redundant.pair.active, &Fault::Crash)?;
    let full = lab
        .redundant
        .until(&owner, BOOTS, "the machine to be a ready shadow", |it| {
            it["full"] == true && it["last"]["by"] == "provided"
        })?;
    ensure!(full["enlisted"] == serde_json::json!([SPARE]), "{full}");
    let status = lab
        .redundant
        .pair
        .lab
        .run(&owner, &["shadowctl", "status"])?;
    println!("{status}");
    // It is a machine of its own, with its own systemd, daemon and service.
    let unit = lab.sh("systemctl show -P ActiveState shadowd-machine-s.service")?;
    ensure!(unit.trim() == "active", "{unit}");
    let shadow = member(&lab.redundant.group(&owner)?, SPARE)?;
    ensure!(
        shadow["role"] == "shadow" && shadow["eligible"] == true,
        "{shadow}"
    );
    // What the daemon asks for once more is answered by what runs.
    let asked = r#"{"version":1,"group":"web","epoch":1,"reason":null,"from":"a","host":"s","id":"ID",
                    "address":"192.0.2.4:7373","attempt":2,"deadline_s":60}"#;
    let asked = asked.replace("ID", shadow_id(&lab)?.as_str());
    let again = lab.sh(&format!(
        "echo '{asked}' | shadowctl provider nspawn --image /run/golden --files /run/prepared \
         --machines /run/machines --link br0"
    ))?;
    ensure!(again.contains("\"ready\""), "{again}");
    Ok(())
}

fn shadow_id(lab: &Provided) -> Result<String> {
    let id = lab.sh("cat /run/prepared/s/var/lib/shadowd/id")?;
    Ok(id.trim().to_owned())
}
