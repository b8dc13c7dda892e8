//! The root file system that every host starts from: made once, cached, never written to again.
//!
//! It carries a source of packages of its own, for hosts without a network that are to be made ready:
//! what is not installed in the base waits there.
//!
//! It is made in a temporary directory and renamed, so a cache entry is complete or absent. Its
//! name carries a hash of what went into it; another list of packages makes another entry.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::command::{command, run};

const SUITE: &str = "bookworm";
/// keepalived is what `bench failover` measures beside shadowd; it runs nowhere else.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,nginx-light,curl,nftables,procps,\
    libsystemd0,keepalived";
/// Fills `/var/lib/lab-packages` with what hosts can install, and makes it the only source. Of socat there
/// is an older version, to go back to. `dpkg-scanpackages` is not needed for so little.
const FILL: &str = r#"set -e
pool="$1"/var/lib/lab-packages
mkdir -p "$pool"
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
apt-get --yes --download-only --no-install-recommends install postgresql-15 socat
mv "$1"/var/cache/apt/archives/*.deb "$pool"
cd "$pool"
apt-get download nginx nginx-common
dpkg-deb -R socat_*.deb older
sed -i 's/^Version: .*/Version: 1.7.4.3-1/' older/DEBIAN/control
dpkg-deb --root-owner-group -b older socat_older.deb
rm -r older
for deb in *.deb; do
    dpkg-deb -f "$deb"
    printf 'Filename: ./%s
Size: %s
SHA256: %s

' "$deb" "$(stat -c %s "$deb")" "$(sha256sum < "$deb" | cut -c -64)"
done > Packages
chmod 644 *.deb Packages
rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/var/lib/lab-packages ./' > "$1"/etc/apt/sources.list
"#;
/// What is removed: nobody reads it in a test host, and keepalived starts when it is asked to.
const TRIM: &str = "rm -rf \"$1\"/var/cache/apt \"$1\"/var/lib/apt/lists/* \"$1\"/usr/share/doc/* \
    \"$1\"/etc/systemd/system/*.wants/keepalived.service";

/// The cached root file system, made first if it is missing.
///
/// # Errors
/// `mmdebstrap` fails, or the cache cannot be written.
pub fn base() -> Result<PathBuf> {
    let cache = cache()?;
    let path = cache.join(format!(
        "{SUITE}-{:016x}",
        fingerprint(&[SUITE, PACKAGES, FILL, TRIM])
    ));
    if path.is_dir() {
        return Ok(path);
    }
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let begin = Instant::now();
    println!("making the root file system of the test hosts (once)");
    let temporary = cache.join(format!("new-{}", std::process::id()));
    let made = make(&temporary).and_then(|()| publish(&temporary, &path));
    if made.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    made?;
    println!(
        "made {} in {:.0} s",
        path.display(),
        begin.elapsed().as_secs_f64()
    );
    Ok(path)
}

fn make(target: &Path) -> Result<()> {
    let target = target.to_str().context("the cache's path is not UTF-8")?;
    let include = format!("--include={PACKAGES}");
    let hooks = [FILL, TRIM].map(|hook| format!("--customize-hook={hook}"));
    let arguments = [
        "--quiet",
        "--variant=minbase",
        &include,
        &hooks[0],
        &hooks[1],
        SUITE,
        target,
    ];
    run(
        command("mmdebstrap", &arguments),
        None,
        Duration::from_secs(600),
    )
    .map(drop)
    .context("cannot make the root file system (`cargo xtask setup` installs mmdebstrap)")
}

/// Renames into place; whoever was faster wins.
fn publish(temporary: &Path, path: &Path) -> Result<()> {
    match fs::rename(temporary, path) {
        Err(_) if path.is_dir() => fs::remove_dir_all(temporary).context("cannot remove a copy"),
        result => result.with_context(|| format!("cannot rename to {}", path.display())),
    }
}

fn cache() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let parent = variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(parent.join("shadowd-lab"))
}

/// FNV-1a, 64 bit: tells lists apart; nothing trusts it.
fn fingerprint(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_list_of_packages_is_another_entry() {
        assert_ne!(fingerprint(&["a", "b"]), fingerprint(&["ab"]));
        assert_ne!(fingerprint(&["a"]), fingerprint(&["b"]));
        assert_eq!(fingerprint(&["a"]), fingerprint(&["a"]));
    }
}
