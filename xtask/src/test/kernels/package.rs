//! Fetches a Debian kernel without touching the machine's own package lists.
//!
//! apt runs with its own list of sources and its own folders, with Debian's keyring checking the
//! signatures. What was fetched stays in the cache, so a second run needs no network.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{capture, run as run_command, with_retries};

/// Where a kernel comes from.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// A folder of the mirror.
    pub archive: Archive,
    /// A suite of it, as bookworm-security.
    pub suite: &'static str,
    /// The package that always depends on the newest kernel of its series.
    pub package: &'static str,
    /// The packages that hold the kernel itself are named so, with series and version behind.
    pub image: &'static str,
}

/// Where Debian keeps its suites.
#[derive(Clone, Copy, Debug)]
pub enum Archive {
    /// Security suites: small package lists, and what users really run.
    Security,
    /// The suites of the releases, and unstable.
    Main,
}

impl Archive {
    const fn url(self) -> &'static str {
        match self {
            Self::Security => "http://deb.debian.org/debian-security",
            Self::Main => "http://deb.debian.org/debian",
        }
    }
}

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The kernel image of a series: from the cache, or downloaded, checked and unpacked.
///
/// # Errors
/// There is no apt here, the mirror cannot be reached, or the package holds no kernel.
pub fn fetch(cache: &Path, series: &str, source: &Source) -> Result<PathBuf> {
    let folder = cache.join(series);
    if let Some(kernel) = kernel_in(&folder.join("boot"), series) {
        return Ok(kernel);
    }
    let apt = Apt::new(&cache.join("apt").join(source.suite), source)?;
    with_retries("package lists for the kernel", || {
        run_command(apt.get().arg("update"))
    })?;
    let depends = |package: &str| capture(apt.cache().args(["depends", "--important", package]));
    let leading = "linux-image-";
    let mut image = image_package(&depends(source.package)?, leading, series).with_context(|| {
        format!(
            "{} of {} names no {series} kernel any more: give the series its present name in the \
             table of kernels",
            source.package, source.suite
        )
    })?;
    if source.image != leading {
        // Newer suites split the package: the one that is depended on depends on the kernel.
        image = image_package(&depends(&image)?, source.image, series)
            .with_context(|| format!("{image} names no {}{series}", source.image))?;
    }
    let downloads = apt.folder.join("download");
    recreate(&downloads)?;
    with_retries("the kernel's download", || {
        run_command(apt.get().current_dir(&downloads).args(["download", &image]))
    })?;
    // Unpacked beside its place and moved there, so that a half unpacked kernel is never used.
    let unpacked = cache.join(format!("{series}.new"));
    recreate(&unpacked)?;
    let package = std::fs::read_dir(&downloads)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package")?;
    run_command(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(&package)
            .arg(&unpacked),
    )?;
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::rename(&unpacked, &folder)?;
    std::fs::remove_dir_all(&downloads)?;
    kernel_in(&folder.join("boot"), series)
        .with_context(|| format!("{image} holds no boot/vmlinuz-{series}*"))
}

fn recreate(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

fn kernel_in(boot: &Path, series: &str) -> Option<PathBuf> {
    let start = format!("vmlinuz-{series}.");
    let entries = std::fs::read_dir(boot).ok()?;
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&start))
        })
}

/// The kernel that `apt-cache depends` of the leading package names.
fn image_package(depends: &str, leading: &str, series: &str) -> Option<String> {
    let start = format!("{leading}{series}.");
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(&start))
        .map(str::to_owned)
}

/// apt with folders of its own.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn new(folder: &Path, source: &Source) -> Result<Self> {
        if !Path::new(KEYRING).is_file() {
            bail!("{KEYRING} is missing: install debian-archive-keyring");
        }
        for inside in ["lists/partial", "cache/archives/partial"] {
            let path = folder.join(inside);
            std::fs::create_dir_all(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        let sources = folder.join("sources.list");
        let line = format!(
            "deb [arch=amd64 signed-by={KEYRING}] {} {} main\n",
            source.archive.url(),
            source.suite
        );
        std::fs::write(&sources, line)
            .and_then(|()| std::fs::write(folder.join("apt.conf"), settings(folder)))
            .with_context(|| format!("cannot write into {}", folder.display()))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    fn get(&self) -> Command {
        self.command("apt-get")
    }

    fn cache(&self) -> Command {
        self.command("apt-cache")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // Read after the machine's own settings, so that a proxy stays and the folders do not.
        command
            .arg("--config-file")
            .arg(self.folder.join("apt.conf"));
        command
    }
}

fn settings(folder: &Path) -> String {
    let folder = folder.display();
    [
        format!("Dir::Etc::sourcelist \"{folder}/sources.list\";"),
        "Dir::Etc::sourceparts \"-\";".to_owned(),
        format!("Dir::State::lists \"{folder}/lists\";"),
        format!("Dir::Cache \"{folder}/cache\";"),
        // The kernel is unpacked, never installed: what is installed here is of no concern.
        "Dir::State::status \"/dev/null\";".to_owned(),
        // apt's own user may not enter a cache in somebody's home.
        "APT::Sandbox::User \"root\";".to_owned(),
        "Acquire::Languages \"none\";".to_owned(),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_the_one_the_leading_package_depends_on() {
        let depends =
            "linux-image-6.12-cloud-amd64\n  Depends: linux-image-6.12.117+deb12-cloud-amd64\n";
        let found = image_package(depends, "linux-image-", "6.12");
        assert_eq!(
            found.as_deref(),
            Some("linux-image-6.12.117+deb12-cloud-amd64")
        );
        assert_eq!(image_package(depends, "linux-image-", "6.1"), None);
        let none = "linux-image-cloud-amd64\n";
        assert_eq!(image_package(none, "linux-image-", "6.1"), None);
        let split = "linux-image-7.2.13+deb14-cloud-amd64\n  Depends: linux-base\n  \
                     Depends: linux-binary-7.2.13+deb14-cloud-amd64\n";
        let found = image_package(split, "linux-binary-", "7.2");
        assert_eq!(
            found.as_deref(),
            Some("linux-binary-7.2.13+deb14-cloud-amd64")
        );
    }

    #[test]
    fn apt_keeps_to_folders_of_its_own() {
        let text = settings(Path::new("/cache/apt"));
        for key in ["Dir::Etc::sourcelist", "Dir::State::lists", "Dir::Cache"] {
            let own = format!("{key} \"/cache/apt/");
            assert!(
                text.lines()
                    .any(|line| line.starts_with(&own) && line.ends_with("\";")),
                "{key}"
            );
        }
    }

    #[test]
    fn a_folder_without_a_kernel_has_none() {
        assert_eq!(kernel_in(Path::new("/nonexistent"), "6.1"), None);
    }
}
