//! A shadow on which everything that a profile knows can be broken, and mended again.

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use xtask::prove::ready::files::{APP, APP_PORT, JOBS, PROGRAMS, SERVICES};
use xtask::prove::ready::scene::{RESOLVER, fetch, place_all, resolver};
use xtask::prove::ready::upstream::{NAME, Upstream};

use super::breaks::{BREAKS, Break};
use super::*;

/// What breaks is told within this.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
/// Beside nginx: the small service, its job, and where it is.
const MORE: &str = "\n[[group.unit]]\nname = \"lab-app.service\"\nmode = \"cold\"\n\n\
    [[group.unit]]\nname = \"lab-jobs.service\"\nmode = \"cold\"\n\n\
    [group.profile]\nsettle = \"4s\"\nunits = [\"lab-job.service\"]\n";
/// Packages, a small disk, an account, a link, an environment behind a link.
const PREPARE: &str = "cp /etc/resolv.conf /run/resolv.conf; apt-get update --quiet; apt-get install --yes --quiet socat
mkdir -p /opt/lab-app /etc/systemd/system/nginx.service.d
mountpoint -q /opt/lab-app || mount -t tmpfs -o size=32m,nr_inodes=64 tmpfs /opt/lab-app
id lab-owner 2> /dev/null || useradd --system lab-owner
echo LINKED=1 > /etc/default/profile-one; cp /etc/default/profile-one /etc/default/profile-two
ln -sfn profile-one /etc/default/profile-link
printf '[Service]\\nEnvironmentFile=/etc/default/profile-link\\n' > \
    /etc/systemd/system/nginx.service.d/profile-link.conf
cp -p /etc/nginx/nginx.conf /run/nginx.conf
sed -i 's,listen 80 .*,&\\n        listen 8443 ssl;\\n        ssl_certificate lab.crt;\\n        \
    ssl_certificate_key lab.key;,' /etc/nginx/nginx.conf";
/// After the files are there.
const BEGIN: &str = "chown lab-owner /etc/lab-job.conf; systemctl daemon-reload
systemctl enable --quiet lab-job.timer; systemctl restart nginx.service";
const UNDO: &str = "systemctl disable --quiet --now lab-app.service lab-jobs.service lab-job.timer
systemctl stop lab-thief.service; nft delete table inet cut; umount /opt/lab-app
cp -p /run/nginx.conf /etc/nginx/nginx.conf
rm -rf /etc/nginx/lab.* /etc/systemd/system/nginx.service.d /etc/default/profile-* \
    /etc/systemd/system/lab-job* /etc/systemd/system/lab-app* /etc/lab-job.conf /etc/default/lab-app
cp /run/resolv.conf /etc/resolv.conf; userdel lab-owner; systemctl daemon-reload; systemctl restart nginx.service";

/// A pair with more that can break.
struct Workshop {
    learned: Learned,
    // Dropped after the hosts have their configuration again.
    _undo: Undo,
    _upstream: Upstream,
}

/// Takes everything away again when dropped.
struct Undo(Vec<String>);

impl Drop for Undo {
    fn drop(&mut self) {
        let Ok(lab) = Lab::attach() else { return };
        for host in &self.0 {
            let _ = lab.exec(host, &["sh", "-c", UNDO]);
        }
    }
}

impl Workshop {
    fn new() -> Result<Self> {
        let pair = Pair::take()?;
        let lab = &pair.lab;
        let upstream = Upstream::start(lab.client()?)?;
        let hosts = [&pair.active, &pair.shadow].map(Clone::clone);
        let undo = Undo(hosts.to_vec());
        let (good, expired) = (certificate(2040)?, certificate(2020)?);
        for host in &hosts {
            run(lab.command(host, &["sh", "-ec", PREPARE])?, None, LONG)?;
            lab.write_file(host, RESOLVER, &resolver())?;
            place_all(lab, host, SERVICES)?;
            lab.write_file(host, "/etc/nginx/lab.crt", &good.0)?;
            lab.write_file(host, "/etc/nginx/lab.key", &good.1)?;
            lab.write_file(host, "/run/expired.crt", &expired.0)?;
            lab.run(host, &["sh", "-ec", BEGIN])?;
        }
        lab.converge(LONG)?;
        Ok(Self {
            learned: Learned::on(pair, MORE)?,
            _undo: undo,
            _upstream: upstream,
        })
    }

    /// Everything that is about to be broken, where a version has it.
    fn needs() -> Vec<Needed> {
        let programs = ["answer", "job"].map(|name| format!("{PROGRAMS}/{name}"));
        let files = [
            NGINX,
            "/etc/nginx/lab.crt",
            "/etc/lab-job.conf",
            "/etc/default/profile-link",
            &programs[0],
            &programs[1],
        ];
        let files = files.map(|path| format!("/files/{}", escaped(path)));
        let units = [WARM, APP, JOBS, "lab-job.timer"].map(|name| format!("/units/{name}"));
        let packages = ["nginx", "socat"].map(|name| format!("/packages/{name}"));
        let whole = files.into_iter().chain(units).chain(packages);
        let parts = [
            (format!("/units/{WARM}/environment/MODE"), ""),
            (format!("/units/{APP}/ports/0"), ""),
            (format!("/units/{APP}/dependencies"), NAME),
        ];
        whole.map(|at| (at, "")).chain(parts).collect()
    }

    fn wait_ready(&self) -> Result<()> {
        let pair = self.learned.pair();
        self.learned.wait_ready_of(&Self::needs(), || {
            let stir = "systemctl reload nginx.service; systemctl start lab-job.service";
            pair.lab.exec(&pair.active, &["sh", "-c", stir])?;
            // It may not answer yet.
            drop(fetch(&pair.lab, APP_PORT, ""));
            Ok(())
        })
    }
}

impl Learned {
    /// The item of a break is told, with its cause, in time.
    fn wait_told(&self, one: &Break) -> Result<()> {
        let (what, began) = (one.what, Instant::now());
        let mut lacks = Vec::new();
        while began.elapsed() < TOLD_WITHIN * 2 {
            lacks = self.lacks()?;
            let told = lacks
                .iter()
                .find(|(kind, subject, _)| (kind.as_str(), subject.as_str()) == one.item);
            if let Some((_, _, why)) = told {
                ensure!(
                    why.contains(one.cause),
                    "{what}: told as {why:?}, not {:?}",
                    one.cause
                );
                let took = began.elapsed();
                ensure!(took <= TOLD_WITHIN, "{what}: told after {took:?} only");
                println!("{what}: told after {:.1} s: {why}", took.as_secs_f64());
                return Ok(());
            }
            std::thread::yield_now();
        }
        bail!("{what} was not told; it lacks {lacks:?}")
    }
}

/// A certificate that signs itself, good until the begin of a year, and its key.
fn certificate(until: i32) -> Result<(String, String)> {
    let mut params = CertificateParams::new(vec!["app.lab.test".to_owned()])?;
    params.not_after = date_time_ymd(until, 1, 1);
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Each of these breaks of the shadow is told within ten seconds, with its cause; what is mended is ready
/// again. One that is not told hides no other.
fn tell(learned: &Learned, breaks: &[Break], ready: &dyn Fn() -> Result<()>) -> Result<()> {
    ready()?;
    let pair = learned.pair();
    let mut untold = Vec::new();
    for one in breaks {
        pair.lab.run(&pair.shadow, &["sh", "-c", one.does])?;
        let told = learned.wait_told(one);
        pair.lab.run(&pair.shadow, &["sh", "-c", one.undoes])?;
        untold.extend(told.err().map(|error| error.to_string()));
        ready().with_context(|| format!("after {}; not told: {untold:?}", one.what))?;
    }
    ensure!(untold.is_empty(), "{}", untold.join("\n"));
    Ok(())
}

#[test]
fn a_shadow_tells_what_it_lacks() -> Result<()> {
    let workshop = Workshop::new()?;
    ensure!(BREAKS.len() >= 25, "{} breaks", BREAKS.len());
    tell(&workshop.learned, BREAKS, &|| workshop.wait_ready())
}
