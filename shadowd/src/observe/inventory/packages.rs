//! Which package owns a program, and which version of a package is installed: dpkg and rpm, by their
//! own tools.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::facts::PackageFact;

/// How long a tool may take.
const WITHIN: Duration = Duration::from_secs(20);
/// More output (bytes) is none of what was asked for.
const OUTPUT_MAX: u64 = 4 << 20;
/// What is asked at once: a command line is bounded.
const AT_ONCE: usize = 256;
/// What changes when a package does.
const DPKG_STATUS: &str = "/var/lib/dpkg/status";
const RPM_DATABASES: [&str; 3] = [
    "/var/lib/rpm/rpmdb.sqlite",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite",
    "/var/lib/rpm/Packages",
];

/// Why packages are not known.
#[derive(Debug, Error)]
pub enum PackageError {
    /// There is no package manager whose tools are known.
    #[error("neither dpkg nor rpm has a database here")]
    None,
    /// Its tool cannot be run.
    #[error("{tool} cannot be run")]
    Run {
        /// Which.
        tool: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took too long, or said too much.
    #[error("{tool} did not answer within {} s", WITHIN.as_secs())]
    Late {
        /// Which.
        tool: &'static str,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manager {
    Dpkg,
    Rpm,
}

/// When the database changed last, and its length.
type Stamp = (i64, i64, u64);

/// What the package manager says, asked again only after its database changed.
#[derive(Debug, Default)]
pub struct Packages {
    stamp: Option<Stamp>,
    owners: BTreeMap<String, Option<String>>,
    versions: BTreeMap<String, Option<PackageFact>>,
}

impl Packages {
    /// The package that owns each of these files; none for those that none does.
    ///
    /// # Errors
    /// See [`PackageError`].
    pub fn owners(
        &mut self,
        paths: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, Option<String>>, PackageError> {
        let manager = self.renew()?;
        let unknown: Vec<&String> = paths
            .iter()
            .filter(|path| !self.owners.contains_key(*path))
            .collect();
        for some in unknown.chunks(AT_ONCE) {
            let found = match manager {
                Manager::Dpkg => dpkg_owners(some)?,
                Manager::Rpm => rpm_owners(some)?,
            };
            for path in some {
                let owner = found.get(path.as_str()).cloned();
                self.owners.insert((*path).clone(), owner);
            }
        }
        let known = paths.iter().map(|path| {
            let owner = self.owners.get(path).cloned().flatten();
            (path.clone(), owner)
        });
        Ok(known.collect())
    }

    /// The installed version of each of these packages that is installed.
    ///
    /// # Errors
    /// See [`PackageError`].
    pub fn versions(
        &mut self,
        names: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, PackageFact>, PackageError> {
        let manager = self.renew()?;
        let unknown: Vec<&String> = names
            .iter()
            .filter(|name| !self.versions.contains_key(*name))
            .collect();
        for some in unknown.chunks(AT_ONCE) {
            let found = match manager {
                Manager::Dpkg => dpkg_versions(some)?,
                Manager::Rpm => rpm_versions(some)?,
            };
            for name in some {
                let fact = found.get(name.as_str()).cloned();
                self.versions.insert((*name).clone(), fact);
            }
        }
        let known = names.iter().filter_map(|name| {
            let fact = self.versions.get(name)?.clone()?;
            Some((name.clone(), fact))
        });
        Ok(known.collect())
    }

    /// Which manager there is; forgets everything when its database is another than before.
    fn renew(&mut self) -> Result<Manager, PackageError> {
        let rpm = RPM_DATABASES.iter().map(|path| (Manager::Rpm, *path));
        let all = [(Manager::Dpkg, DPKG_STATUS)].into_iter().chain(rpm);
        let mut found = all.filter_map(|(manager, path)| Some((manager, stamp(path)?)));
        let (manager, stamp) = found.next().ok_or(PackageError::None)?;
        if self.stamp != Some(stamp) {
            self.owners.clear();
            self.versions.clear();
            self.stamp = Some(stamp);
        }
        Ok(manager)
    }
}

fn stamp(path: &str) -> Option<Stamp> {
    let meta = std::fs::metadata(Path::new(path)).ok()?;
    Some((meta.mtime(), meta.mtime_nsec(), meta.size()))
}

fn dpkg_owners(paths: &[&String]) -> Result<BTreeMap<String, String>, PackageError> {
    // With a merged /usr the database may have a program by either of its names (UsrMerge).
    let both = paths.iter().flat_map(|path| {
        let other = path.strip_prefix("/usr").map(str::to_owned);
        [Some((*path).clone()), other].into_iter().flatten()
    });
    let both: BTreeSet<String> = both.collect();
    let mut command = Command::new("dpkg-query");
    command.args(["--search", "--"]).args(&both);
    let text = output("dpkg-query", command)?;
    Ok(parse_dpkg_owners(&text, paths))
}

/// Lines as `nginx-core, other: /usr/sbin/nginx`, with `:amd64` after a name of several
/// architectures; those with `diversion by` are none.
fn parse_dpkg_owners(text: &str, paths: &[&String]) -> BTreeMap<String, String> {
    let mut owners = BTreeMap::new();
    for line in text
        .lines()
        .filter(|line| !line.starts_with("diversion by "))
    {
        let Some((packages, path)) = line.split_once(": ") else {
            continue;
        };
        let Some(first) = packages.split(", ").next() else {
            continue;
        };
        let name = first.split(':').next().unwrap_or(first).to_owned();
        for asked in paths {
            if asked.as_str() == path || asked.strip_prefix("/usr") == Some(path) {
                owners.insert((*asked).clone(), name.clone());
            }
        }
    }
    owners
}

fn dpkg_versions(names: &[&String]) -> Result<BTreeMap<String, PackageFact>, PackageError> {
    let format = "${Package}\\t${Version}\\t${Architecture}\\t${db:Status-Status}\\n";
    let mut command = Command::new("dpkg-query");
    command
        .args(["--show", "--showformat", format, "--"])
        .args(names);
    Ok(parse_versions(&output("dpkg-query", command)?))
}

fn rpm_owners(paths: &[&String]) -> Result<BTreeMap<String, String>, PackageError> {
    let mut owners = BTreeMap::new();
    for path in paths {
        let mut command = Command::new("rpm");
        command
            .args(["--query", "--queryformat", "%{NAME}\\n", "--file"])
            .arg(path);
        let text = output("rpm", command)?;
        // What no package owns is told in a sentence.
        if let Some(name) = text.lines().next().filter(|line| !line.contains(' ')) {
            owners.insert((*path).clone(), name.to_owned());
        }
    }
    Ok(owners)
}

fn rpm_versions(names: &[&String]) -> Result<BTreeMap<String, PackageFact>, PackageError> {
    let format = "%{NAME}\\t%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\\t%{ARCH}\\tinstalled\\n";
    let mut command = Command::new("rpm");
    command
        .args(["--query", "--queryformat", format, "--"])
        .args(names);
    Ok(parse_versions(&output("rpm", command)?))
}

/// Lines of name, version, architecture and state, with tabs between.
fn parse_versions(text: &str) -> BTreeMap<String, PackageFact> {
    let facts = text.lines().filter_map(|line| {
        let mut parts = line.split('\t');
        let (name, version) = (parts.next()?, parts.next()?);
        let (architecture, state) = (parts.next()?, parts.next()?);
        let fact = PackageFact {
            version: version.to_owned(),
            architecture: architecture.to_owned(),
        };
        (state == "installed").then(|| (name.to_owned(), fact))
    });
    facts.collect()
}

/// What the tool prints, whatever its exit code: it is not 0 when one of many is not known.
pub(super) fn output(tool: &'static str, mut command: Command) -> Result<String, PackageError> {
    let failed = |source| PackageError::Run { tool, source };
    command
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    let pipe = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(pipe) = pipe {
            let _ = pipe.take(OUTPUT_MAX).read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    let deadline = Instant::now() + WITHIN;
    while !reader.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    let late = !reader.is_finished();
    // A tool that said too much is ended as well: nobody reads on.
    let _ = child.kill();
    let _ = child.wait();
    let text = reader.join().unwrap_or_default();
    match late {
        true => Err(PackageError::Late { tool }),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn owners_are_found_by_either_name_of_a_merged_usr() {
        let paths = ["/usr/bin/bash", "/usr/sbin/nginx", "/opt/own"].map(str::to_owned);
        let text = "bash: /bin/bash\nnginx-light:amd64, nginx-core:amd64: /usr/sbin/nginx\n\
                    diversion by dash from: /bin/sh\n";
        let owners = parse_dpkg_owners(text, &paths.each_ref());
        assert_eq!(
            owners.get("/usr/bin/bash").map(String::as_str),
            Some("bash")
        );
        assert_eq!(
            owners.get("/usr/sbin/nginx").map(String::as_str),
            Some("nginx-light")
        );
        assert_eq!(owners.get("/opt/own"), None);
    }

    #[test]
    fn only_what_is_installed_has_a_version() {
        let text = "bash\t5.2\tamd64\tinstalled\ngone\t1\tall\tconfig-files\nhalf\t1\n";
        let versions = parse_versions(text);
        assert_eq!(versions.len(), 1);
        assert_eq!(versions["bash"].version, "5.2");
    }

    #[test]
    fn this_hosts_own_packages_are_told() {
        let mut packages = Packages::default();
        let owners = match packages.owners(&set(&["/usr/bin/env", "/no/such/program"])) {
            Ok(owners) => owners,
            // A host without a package manager is one as well.
            Err(PackageError::None) => return,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(owners["/no/such/program"], None);
        let owner = owners["/usr/bin/env"].clone().expect("a package owns it");
        let versions = packages
            .versions(&set(&[&owner, "no-such-package"]))
            .unwrap();
        assert_eq!(versions.len(), 1);
        assert!(!versions[&owner].version.is_empty());
    }
}
