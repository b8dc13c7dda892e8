//! A group that needs more than a base has: packages, accounts, files, a timer, an upstream service.
//!
//! One host has all of it, made by hand. The other can be made bare: then shadowd alone can make it
//! ready. Nothing of it outlives [`Scene::end`].

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::files::{
    APP, APP_PORT, DATABASE, JOBS, PAGE, PAGE_PORT, PROGRAMS, Placed, RAN, SERVICES, SETTINGS,
    VARIABLES,
};
use super::upstream::{self, Upstream};
use crate::lab::command::run;
use crate::lab::{CLIENT_V4, CONFIG, DAEMON, Lab, VIP_V4, WARM};
use crate::prove::wire::place;

/// How long packages may take to come or go, on a busy machine.
const PACKAGES_WITHIN: Duration = Duration::from_secs(300);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long a group may take to begin.
const BEGIN_WITHIN: Duration = Duration::from_secs(60);
const NGINX: &str = "/etc/nginx/nginx.conf";

/// Where a host learns who knows names.
pub const RESOLVER: &str = "/etc/resolv.conf";

/// Names are known where the upstream service is.
pub fn resolver() -> String {
    format!("nameserver {CLIENT_V4}\noptions timeout:1 attempts:2\n")
}

/// Packages of the scene, as they are installed by hand.
const INSTALL: &str = "export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet
apt-get install --yes --quiet --no-install-recommends -o Dpkg::Options::=--force-unsafe-io \
    postgresql-15 socat
pg_lsclusters -h | grep -q . || pg_createcluster 15 main
systemctl stop postgresql@15-main.service
mkdir -p /etc/postgresql/15/main/conf.d /etc/nginx/conf.d
grep -q 192.0.2 /etc/postgresql/15/main/pg_hba.conf ||
    echo 'host all all 192.0.2.0/24 trust' >> /etc/postgresql/15/main/pg_hba.conf
grep -q conf.d /etc/nginx/nginx.conf ||
    sed -i '$ s,},    include /etc/nginx/conf.d/*.conf;\\n},' /etc/nginx/nginx.conf";

/// Nothing of the scene, and no nginx: as if the host had been made from an image without them.
const STRIP: &str = "export DEBIAN_FRONTEND=noninteractive
names=$(dpkg-query -W -f '${db:Status-Status} ${Package}\\n' 'postgresql*' 'nginx*' 'libnginx*' \
    socat ssl-cert 2> /dev/null | sed -n 's/^installed //p; s/^config-files //p')
[ -z \"$names\" ] || apt-get purge --yes --quiet $names
rm -rf /etc/nginx /etc/postgresql /etc/postgresql-common /var/lib/postgresql /var/lib/apt/lists/*";

/// What a host was told to be before, and the upstream service.
pub struct Scene<'a> {
    lab: &'a Lab,
    nginx: String,
    resolver: String,
    before: Vec<(String, String)>,
    _upstream: Upstream,
}

/// What the group answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// nginx, from its configuration.
    pub page: String,
    /// The small service, from its environment and from upstream.
    pub app: String,
    /// PostgreSQL, from its configuration.
    pub database: String,
    /// The job, from its configuration.
    pub job: String,
}

/// An item of the readiness of a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// `file`, `unit`, ...
    pub kind: String,
    /// What it is of.
    pub subject: String,
    /// `ready`, `not_ready` or `cannot_tell`.
    pub verdict: String,
    /// Why it is not ready.
    pub cause: String,
}

impl Item {
    /// Whether it is ready, or says of a machine without a time server that nobody sets its clock.
    pub fn is_well(&self) -> bool {
        self.verdict == "ready" || (self.kind == "clock" && self.verdict == "cannot_tell")
    }
}

impl<'a> Scene<'a> {
    /// The upstream service runs and is known to all hosts; `host` has all that the group needs.
    ///
    /// # Errors
    /// A step fails.
    pub fn begin(lab: &'a Lab, host: &str) -> Result<Self> {
        let scene = Self {
            nginx: lab.run(host, &["cat", NGINX])?,
            resolver: lab.run(host, &["cat", RESOLVER])?,
            before: Vec::new(),
            _upstream: Upstream::start(lab.client()?)?,
            lab,
        };
        for other in &lab.state().hosts {
            lab.write_file(&other.name, RESOLVER, &resolver())?;
        }
        scene.packages(host, INSTALL)?;
        for placed in [SERVICES, PAGE, SETTINGS] {
            place_all(lab, host, placed)?;
        }
        let begin = format!(
            "systemctl daemon-reload; systemctl enable --quiet --now {APP}; systemctl restart {WARM}"
        );
        lab.run(host, &["sh", "-ec", &begin])?;
        Ok(scene)
    }

    /// Takes everything that the group needs away from `host`, and what its daemon knows of profiles.
    ///
    /// # Errors
    /// A step fails.
    pub fn strip(&self, host: &str) -> Result<()> {
        self.lab.run(host, &["systemctl", "stop", DAEMON])?;
        self.clear(host)?;
        self.packages(host, STRIP)?;
        self.lab.run(host, &["systemctl", "daemon-reload"])?;
        let there = format!(
            "ls -d {NGINX} {VARIABLES} {PROGRAMS} /usr/sbin/nginx /usr/lib/postgresql /usr/bin/socat \
             2> /dev/null; systemctl list-unit-files --no-legend 'nginx*' 'postgresql*' 'lab-app*'"
        );
        let left = self.lab.exec(host, &["sh", "-c", &there])?;
        let left = String::from_utf8_lossy(&left.stdout).trim().to_owned();
        ensure!(left.is_empty(), "host {host} is not bare: {left}");
        Ok(())
    }

    /// All daemons begin anew with another configuration; `active` owns the group at the end.
    ///
    /// # Errors
    /// A step fails, or the group does not begin.
    pub fn configure(&mut self, active: &str, change: impl Fn(&str) -> String) -> Result<()> {
        let lab = self.lab;
        // A spare keeps what it has: it would be made ready as well.
        let hosts = lab.state().hosts.iter().filter(|host| !host.spare);
        let hosts: Vec<String> = hosts.map(|host| host.name.clone()).collect();
        for host in &hosts {
            let text = lab.run(host, &["cat", CONFIG])?;
            lab.write_file(host, CONFIG, &change(&text))?;
            self.before.push((host.clone(), text));
        }
        forget(lab)?;
        for host in &lab.state().hosts {
            lab.run(&host.name, &["systemctl", "start", DAEMON])
                .with_context(|| journal(lab, &host.name))?;
        }
        lab.wait(BEGIN_WITHIN, "the group to begin", || {
            Ok(lab.view(active).is_ok_and(|view| view.role == "active"))
        })
    }

    fn packages(&self, host: &str, script: &str) -> Result<()> {
        let command = self.lab.command(host, &["sh", "-ec", script])?;
        run(command, None, PACKAGES_WITHIN).map(drop)
    }

    /// Removes the scene's own files and stops its units. What is not there is no error.
    fn clear(&self, host: &str) -> Result<()> {
        let placed = [SERVICES, PAGE].concat();
        let paths: Vec<&str> = placed.iter().map(|(path, _, _)| *path).collect();
        let stop = format!(
            "systemctl disable --quiet --now {APP} {JOBS} lab-job.timer {DATABASE} 2> /dev/null; \
             pg_dropcluster --stop 15 main 2> /dev/null; rm -rf {PROGRAMS} {RAN} {}; \
             systemctl daemon-reload; systemctl reset-failed",
            paths.join(" ")
        );
        self.lab.exec(host, &["sh", "-c", &stop]).map(drop)
    }

    /// The content of the version that `host` uses lacks these.
    ///
    /// # Errors
    /// The host does not answer.
    pub fn unknown(&self, host: &str) -> Result<Vec<String>> {
        let shown = self
            .lab
            .exec(host, &["shadowctl", "--json", "profile", "show"])?;
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
        Ok(unknown(&shown["content"]))
    }

    /// Lets the units of `host` read their files and use their upstream, so that it is seen.
    ///
    /// # Errors
    /// The host cannot be reached.
    pub fn stir(&self, host: &str) -> Result<()> {
        let stir = format!("systemctl reload {WARM} {DATABASE}; systemctl start lab-job.service");
        self.lab.exec(host, &["sh", "-c", &stir])?;
        for _ in 0..3 {
            let _ = fetch(self.lab, APP_PORT, "");
        }
        Ok(())
    }

    /// What the group answers at its virtual IP; `owner` runs the job.
    ///
    /// # Errors
    /// Something does not answer.
    pub fn answers(&self, owner: &str) -> Result<Answers> {
        let page = fetch(self.lab, PAGE_PORT, "GET / HTTP/1.0\r\n\r\n")?;
        let page = page.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        Ok(Answers {
            page: page.context("no page")?,
            app: fetch(self.lab, APP_PORT, "")?,
            database: self.ask_database(owner)?,
            job: self.lab.run(owner, &["cat", RAN])?,
        })
    }

    /// What PostgreSQL answers at the virtual IP, asked from `owner`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn ask_database(&self, owner: &str) -> Result<String> {
        let question =
            "SELECT current_setting('lab.answer') || ', ' || current_setting('work_mem')";
        let vip = VIP_V4.to_string();
        let psql = ["psql", "-h", &vip, "-U", "postgres", "-Atc", question];
        self.lab.run(owner, &psql)
    }

    /// Everything is as it was before: configurations, nginx, no unit of the scene, no profile.
    ///
    /// # Errors
    /// A step fails; the others are done.
    pub fn end(mut self) -> Result<()> {
        let lab = self.lab;
        for host in &lab.state().hosts {
            lab.lift(&host.name)?;
        }
        let mut failed = Ok(());
        let mut note = |done: Result<()>| {
            if failed.is_ok() {
                failed = done;
            }
        };
        note(forget(lab));
        for (host, text) in std::mem::take(&mut self.before) {
            note(lab.write_file(&host, CONFIG, &text));
        }
        for host in lab.state().members() {
            note(self.clear(&host.name));
            let install = "test -x /usr/sbin/nginx || { apt-get update --quiet && \
                           apt-get install --yes --quiet --no-install-recommends nginx; }";
            note(self.packages(&host.name, install));
            note(lab.write_file(&host.name, NGINX, &self.nginx));
            let restart = ["systemctl", "restart", WARM];
            note(lab.run(&host.name, &restart).map(drop));
        }
        for host in &lab.state().hosts {
            note(lab.write_file(&host.name, RESOLVER, &self.resolver));
            note(
                lab.run(&host.name, &["systemctl", "start", DAEMON])
                    .map(drop),
            );
        }
        failed
    }
}

/// What the daemon of a host said last.
fn journal(lab: &Lab, host: &str) -> String {
    let journal = ["journalctl", "--no-pager", "-n", "20", "-u", DAEMON];
    lab.run(host, &journal).unwrap_or_default()
}

/// What a host's daemon says of the profile, and said before.
pub fn said(lab: &Lab, host: &str) -> String {
    let ask = "for what in 'profile show' 'profile history' 'profile provision list' status; do \
               echo \"\\$ shadowctl $what\"; shadowctl $what 2>&1 | tail -n 20; done";
    let answers = lab.run(host, &["sh", "-c", ask]).unwrap_or_default();
    format!("host {host}:\n{answers}{}\n", journal(lab, host))
}

/// Stops every daemon and takes away what it knows of profiles and of what it did for them: who forgets
/// last would tell the others.
fn forget(lab: &Lab) -> Result<()> {
    let forget = format!(
        "systemctl stop {DAEMON}; rm -rf /var/lib/shadowd/pro* /var/lib/shadowd/repository"
    );
    for host in &lab.state().hosts {
        lab.run(&host.name, &["sh", "-c", &forget])?;
    }
    Ok(())
}

/// Writes files of the scene, with their permission bits.
///
/// # Errors
/// The host refuses.
pub fn place_all(lab: &Lab, host: &str, placed: &[Placed]) -> Result<()> {
    for (path, mode, text) in placed {
        lab.write_file(host, path, text)?;
        lab.run(host, &["chmod", &format!("{mode:o}"), path])?;
    }
    Ok(())
}

/// The readiness of a host as it tells it: who owns the group, and the items if it has judged itself.
///
/// # Errors
/// The host's daemon does not answer.
pub fn readiness(lab: &Lab, host: &str) -> Result<(Option<String>, Option<Vec<Item>>)> {
    // What is not ready makes it end with another code than 0.
    let output = lab.exec(host, &["shadowctl", "--json", "ready"])?;
    let answer: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("host {host} says nothing of its readiness"))?;
    let group = &answer["groups"][0];
    Ok((group["owner"].as_str().map(str::to_owned), items(group)))
}

fn items(group: &Value) -> Option<Vec<Item>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = group["readiness"]["items"].as_array()?.iter();
    let items = items.map(|item| Item {
        kind: text(&item["kind"]),
        subject: text(&item["subject"]),
        verdict: text(&item["verdict"]),
        cause: text(&item["cause"]),
    });
    Some(items.collect())
}

/// What a version has to have before it says what the group needs.
fn unknown(content: &Value) -> Vec<String> {
    let files = [SERVICES, PAGE, SETTINGS].concat();
    let files = files.iter().map(|(path, _, _)| *path);
    let more = [NGINX, "/etc/postgresql/15/main/postgresql.conf"];
    let files = files
        .chain(more)
        .filter(|path| content["files"][*path].is_null());
    let packages = ["nginx", "postgresql-15", "socat"].into_iter();
    let packages = packages.filter(|name| content["packages"][*name].is_null());
    let units = [
        APP,
        JOBS,
        DATABASE,
        WARM,
        "lab-job.service",
        "lab-job.timer",
    ]
    .into_iter();
    let units = units.filter(|name| content["units"][*name].is_null());
    let upstream = content["units"][APP]["dependencies"].to_string();
    let upstream = Some(upstream::NAME).filter(|name| !upstream.contains(*name));
    let all = files.chain(packages).chain(units).chain(upstream);
    all.map(str::to_owned).collect()
}

/// Says something at a port of the virtual IP, from the client; gives what is answered.
///
/// # Errors
/// Nobody answers.
pub fn fetch(lab: &Lab, port: u16, question: &'static str) -> Result<String> {
    let asked = place::inside(lab.client()?, move || answer(port, question))?;
    asked.join().ok().context("the client panicked")?
}

fn answer(port: u16, question: &str) -> Result<String> {
    let address = SocketAddr::from((VIP_V4, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(question.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_version_lacks_is_named() {
        let none = unknown(&Value::Null);
        for name in [NGINX, "socat", "lab-job.timer", upstream::NAME] {
            assert!(none.iter().any(|one| one == name), "{name}: {none:?}");
        }
        let mut content = serde_json::json!({"packages": {"socat": {}}});
        assert!(!unknown(&content).contains(&"socat".to_owned()));
        content["units"][APP]["dependencies"] = serde_json::json!([{"remote": upstream::NAME}]);
        assert!(!unknown(&content).contains(&upstream::NAME.to_owned()));
    }

    #[test]
    fn an_answer_without_a_judgement_has_no_items() {
        let item =
            serde_json::json!({"kind": "clock", "subject": "clock", "verdict": "cannot_tell"});
        let group = serde_json::json!({"readiness": {"items": [item]}});
        assert!(items(&group).is_some_and(|items| items.len() == 1 && items[0].is_well()));
        assert_eq!(items(&serde_json::json!({"readiness": null})), None);
    }
}
