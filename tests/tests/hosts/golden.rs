//! A shadow that is brought back to the golden version.

use super::profile::{Learned, NGINX, VARIABLES};
use super::*;

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
