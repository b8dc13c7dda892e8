//! Packs the test program, its shared libraries and empty mount points as an initramfs, and for each
//! kernel the modules of its own that the program uses.
//!
//! The kernel's built-in archive brings /dev/console; the program mounts the rest itself.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Folders that the program mounts on or writes to.
const FOLDERS: &[&str] = &["proc", "sys", "dev", "run", "tmp", "etc", "var"];

/// Modules that the test program uses, none of which needs another: clsact and its filters.
const MODULES: &[&str] = &["sch_ingress", "cls_bpf"];
/// Where the program looks for them.
const MODULES_FOLDER: &str = "lib/modules";

/// Writes the archive `to`, built in `folder`, which is emptied first.
///
/// # Errors
/// The program is not there, a library of it is not found, or cpio fails.
pub fn pack(program: &Path, folder: &Path, to: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    for name in FOLDERS {
        fs::create_dir_all(folder.join(name))?;
    }
    place(program, &folder.join("init"))?;
    for library in libraries(program)? {
        let inside = library.strip_prefix("/").unwrap_or(&library);
        place(&library, &folder.join(inside))?;
    }
    archive(folder, to)
}

/// Writes `to`: the archive `base`, and after it one of a kernel's modules, as far as its unpacked
/// package has them; the kernel unpacks both. It is built in `folder`, which is emptied first.
///
/// # Errors
/// A file cannot be read or written, or cpio or xz fails.
pub fn with_modules(base: &Path, unpacked: &Path, folder: &Path, to: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder.join(MODULES_FOLDER))?;
    for module in MODULES {
        let Some(found) = find(unpacked, module)? else {
            continue;
        };
        let inside = folder.join(MODULES_FOLDER).join(format!("{module}.ko"));
        if found.extension().is_some_and(|extension| extension == "xz") {
            let plain = fs::File::create(&inside)?;
            let mut xz = Command::new("xz");
            xz.args(["--decompress", "--stdout"]).arg(&found);
            let status = xz.stdout(plain).status().context("cannot start xz")?;
            if !status.success() {
                bail!("xz {} ended with {status}", found.display());
            }
        } else {
            place(&found, &inside)?;
        }
    }
    let modules = folder.with_extension("cpio");
    archive(folder, &modules)?;
    let mut whole = fs::read(base).with_context(|| format!("cannot read {}", base.display()))?;
    whole.extend(fs::read(&modules)?);
    fs::write(to, whole).with_context(|| format!("cannot write {}", to.display()))
}

/// A module anywhere below `folder`, compressed or not.
fn find(folder: &Path, module: &str) -> Result<Option<PathBuf>> {
    let wanted = [format!("{module}.ko"), format!("{module}.ko.xz")];
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&entry.path(), module)? {
                return Ok(Some(found));
            }
        } else if wanted.iter().any(|name| entry.file_name() == name.as_str()) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

fn place(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    // A copy follows symbolic links, so the archive needs none.
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} into the archive", from.display()))?;
    Ok(())
}

fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .stdin(Stdio::null())
        .output()
        .context("cannot start ldd")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && !complaint.contains("not a dynamic executable") {
        bail!("ldd {}: {}", program.display(), complaint.trim());
    }
    parse_ldd(&String::from_utf8_lossy(&output.stdout))
}

/// Paths from lines such as "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f...)".
fn parse_ldd(text: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.ends_with("not found") {
            bail!("a library is missing: {line}");
        }
        let path = line.rsplit_once("=> ").map_or(line, |(_, path)| path);
        let path = path.split(" (0x").next().unwrap_or(path);
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

fn archive(folder: &Path, to: &Path) -> Result<()> {
    let mut names = Vec::new();
    list(folder, folder, &mut names)?;
    names.sort_unstable();
    let file = fs::File::create(to).with_context(|| format!("cannot create {}", to.display()))?;
    let mut cpio = Command::new("cpio")
        .args(["--create", "--format=newc", "--quiet", "--owner=0:0"])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(file)
        .spawn()
        .context("cannot start cpio")?;
    let mut input = cpio.stdin.take().context("cpio has no input")?;
    let written = names.iter().try_for_each(|name| writeln!(input, "{name}"));
    drop(input);
    let status = cpio.wait().context("cannot wait for cpio")?;
    written.context("cannot tell cpio what to pack")?;
    if !status.success() {
        bail!("cpio ended with {status}");
    }
    Ok(())
}

/// Paths relative to `root`; sorted, a folder stands before what it holds.
fn list(root: &Path, folder: &Path, names: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.strip_prefix(root).unwrap_or(&path);
        names.push(
            name.to_str()
                .context("a path in the archive is no text")?
                .to_owned(),
        );
        if path.is_dir() {
            list(root, &path, names)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_below_a_folder() {
        let folder = std::env::temp_dir().join(format!("shadowd-modules-{}", std::process::id()));
        let inner = folder.join("lib/modules/6.1/net");
        fs::create_dir_all(&inner).expect("a folder");
        fs::write(inner.join("cls_bpf.ko.xz"), "").expect("a file");
        let found = ["cls_bpf", "sch_ingress"].map(|module| find(&folder, module));
        fs::remove_dir_all(&folder).expect("it was made here");
        let [Ok(Some(there)), Ok(None)] = found else {
            panic!("{found:?}");
        };
        assert_eq!(there, inner.join("cls_bpf.ko.xz"));
    }

    #[test]
    fn libraries_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse_ldd(text).expect("all are found"), expected);
        assert_eq!(
            parse_ldd("\tstatically linked\n").expect("none"),
            Vec::<PathBuf>::new()
        );
        assert!(parse_ldd("\tlibx.so.1 => not found\n").is_err());
    }
}
