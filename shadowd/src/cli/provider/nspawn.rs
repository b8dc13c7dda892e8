//! A systemd-nspawn machine from a golden image.
//!
//! Everything is made beside and moved into its place at the end, so that a run that is killed
//! leaves something that the next one recognises and removes. The machine runs in a transient unit
//! of its own: it outlives whoever asked for it. bpffs is mounted for it alone, so that what it pins
//! goes when it does.

use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;

use crate::cli::read_identity;
use crate::facts::{Name, ProviderAnswer, ProviderRequest, ProviderState};

/// What a host's name may be here: a label of DNS (RFC 1123), which is a path and a unit as well.
const NAME_MAX: usize = 63;
/// Where the state of the daemon is in a machine.
const STATE: &str = "var/lib/shadowd";
/// bpffs for the machine alone, then the machine.
const START: &str = "mount -t bpf -o mode=700 bpf /sys/fs/bpf && exec systemd-nspawn \"$@\"";

/// Arguments of `provider nspawn`.
#[derive(Clone, Debug, Args)]
pub struct Nspawn {
    /// The golden image: a directory, or a tar archive
    #[arg(long, value_name = "PATH", required_unless_present = "remove")]
    image: Option<PathBuf>,
    /// What was prepared for each spare: FILES/HOST is copied over the image
    #[arg(long, value_name = "FILES", required_unless_present = "remove")]
    files: Option<PathBuf>,
    /// The bridge that the machine is put on, or the interface that it gets a macvlan of
    #[arg(long, value_name = "LINK", required_unless_present = "remove")]
    link: Option<String>,
    /// Where machines are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/machines")]
    machines: PathBuf,
    /// Stop the machine of this name and remove its files, instead of making one
    #[arg(long, value_name = "HOST")]
    remove: Option<Name>,
}

impl Nspawn {
    pub(super) fn remove(&self) -> Option<&Name> {
        self.remove.as_ref()
    }
}

type Answer = Result<ProviderAnswer, String>;

fn says(state: ProviderState, detail: impl Into<String>) -> ProviderAnswer {
    let detail = detail.into();
    ProviderAnswer { state, detail }
}

/// Where a machine is.
struct Machine {
    host: String,
    unit: String,
    root: PathBuf,
    /// Where it is while it is made.
    half: PathBuf,
    lock: PathBuf,
}

impl Machine {
    fn new(machines: &Path, host: &Name) -> Result<Self, String> {
        let text = host.as_str();
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text.len() > NAME_MAX || !text.bytes().all(legal) || text.starts_with('-') {
            return Err(format!(
                "{host} cannot be a machine: its name is no label of DNS in small letters"
            ));
        }
        Ok(Self {
            host: text.to_owned(),
            unit: format!("shadowd-machine-{text}.service"),
            root: machines.join(text),
            half: machines.join(format!(".{text}.half")),
            lock: machines.join(format!(".{text}.lock")),
        })
    }

    /// Held until it is dropped; none while somebody else makes the machine.
    fn lock(&self) -> Result<Option<File>, String> {
        let file = File::create(&self.lock).map_err(|error| at(&self.lock, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(at(&self.lock, &error)),
        }
    }

    /// systemd's ActiveState of its unit.
    fn state(&self) -> Result<String, String> {
        let said = run(Command::new("systemctl")
            .args(["show", "--property=ActiveState", "--value"])
            .arg(&self.unit))?;
        Ok(said.trim().to_owned())
    }
}

/// Makes the machine that is asked for, or says how far it is.
pub(super) fn provide(wanted: &Nspawn, request: &ProviderRequest) -> Answer {
    let (Some(image), Some(files), Some(link)) = (&wanted.image, &wanted.files, &wanted.link)
    else {
        return Err("--image, --files and --link are needed".to_owned());
    };
    let machine = Machine::new(&wanted.machines, &request.host)?;
    match machine.state()?.as_str() {
        "active" => return Ok(says(ProviderState::Ready, "it runs")),
        "activating" | "reloading" => return Ok(says(ProviderState::Creating, "it boots")),
        "deactivating" => return Ok(says(ProviderState::Creating, "it is being stopped")),
        _ => {}
    }
    fs::create_dir_all(&wanted.machines).map_err(|error| at(&wanted.machines, &error))?;
    let Some(_lock) = machine.lock()? else {
        let detail = "another run is making it";
        return Ok(says(ProviderState::Creating, detail));
    };
    let prepared = files.join(&machine.host);
    is_prepared(&prepared, request)?;
    // What did not become a shadow the first time is not tried again as it is.
    if request.attempt > 1 {
        discard(&machine.root)?;
    }
    let made = if machine.root.exists() {
        "was there"
    } else {
        make(&machine, image, &prepared)?;
        "was made"
    };
    start(&machine, link)?;
    Ok(says(
        ProviderState::Creating,
        format!("it {made}, and boots"),
    ))
}

/// Ends a machine and removes what it was.
pub(super) fn remove(wanted: &Nspawn, host: &Name) -> Answer {
    let machine = Machine::new(&wanted.machines, host)?;
    if machine.state()? != "inactive" {
        run(Command::new("systemctl").arg("stop").arg(&machine.unit))?;
        // One that had failed is still known; one that had not is not any more.
        let _ = run(Command::new("systemctl")
            .arg("reset-failed")
            .arg(&machine.unit));
    }
    discard(&machine.half)?;
    discard(&machine.root)?;
    let _ = fs::remove_file(&machine.lock);
    Ok(says(ProviderState::Ready, "it is gone"))
}

/// The group knows the spare by its identity: another one would never be heard.
fn is_prepared(prepared: &Path, request: &ProviderRequest) -> Result<(), String> {
    let file = prepared.join(STATE).join("id");
    let id = read_identity(&file).map_err(|why| {
        format!(
            "nothing is prepared for {}: {}: {why}",
            request.host,
            file.display()
        )
    })?;
    if id != request.id {
        return Err(format!(
            "what is prepared for {} has another identity than the group expects: {}",
            request.host,
            file.display()
        ));
    }
    Ok(())
}

fn make(machine: &Machine, image: &Path, prepared: &Path) -> Result<(), String> {
    let half = &machine.half;
    discard(half)?;
    if image.is_dir() {
        run(Command::new("cp")
            .args(["--archive", "--reflink=auto", "--no-target-directory"])
            .args([image, half.as_path()]))?;
    } else {
        fs::create_dir(half).map_err(|error| at(half, &error))?;
        run(Command::new("tar")
            .args(["--extract", "--numeric-owner", "--xattrs", "--acls"])
            .arg("--file")
            .arg(image)
            .arg("--directory")
            .arg(half))?;
    }
    // An identity in the image would be that of every machine.
    discard(&half.join(STATE))?;
    let name = format!("{}\n", machine.host);
    put(&half.join("etc/hostname"), &name)?;
    put(&half.join("etc/machine-id"), "uninitialized\n")?;
    run(Command::new("cp")
        .args(["--archive", "--no-target-directory"])
        .args([prepared, half.as_path()]))?;
    enable_daemon(half)?;
    fs::rename(half, &machine.root).map_err(|error| at(&machine.root, &error))
}

/// The daemon starts with the machine, whatever the image says.
fn enable_daemon(root: &Path) -> Result<(), String> {
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).map_err(|error| at(&wants, &error))?;
    let link = wants.join("shadowd.service");
    if link.symlink_metadata().is_ok() {
        return Ok(());
    }
    let places = [
        "etc/systemd/system",
        "usr/lib/systemd/system",
        "lib/systemd/system",
    ];
    let unit = places
        .iter()
        .map(|place| format!("{place}/shadowd.service"));
    let mut unit = unit.filter(|unit| root.join(unit).exists());
    let unit = unit.next().ok_or("the image has no shadowd.service")?;
    symlink(format!("/{unit}"), &link).map_err(|error| at(&link, &error))
}

fn start(machine: &Machine, link: &str) -> Result<(), String> {
    // Not by sysfs: in a container it may show the interfaces of another network.
    let shown = run(Command::new("ip").args(["-details", "link", "show", "dev", link]))?;
    let network = if shown
        .lines()
        .any(|line| line.trim_start().starts_with("bridge "))
    {
        format!("--network-bridge={link}")
    } else {
        format!("--network-macvlan={link}")
    };
    // A unit that failed before would be in the way.
    let _ = run(Command::new("systemctl")
        .arg("reset-failed")
        .arg(&machine.unit));
    run(Command::new("systemd-run")
        .args(["--quiet", "--no-block", "--collect"])
        .arg(format!("--unit={}", machine.unit))
        .arg(format!("--description=shadowd: the spare {}", machine.host))
        .args(["--property=Type=notify", "--property=NotifyAccess=all"])
        .args(["--property=Delegate=yes", "--property=KillMode=mixed"])
        .args([
            "--property=PrivateMounts=yes",
            "--property=TimeoutStopSec=30",
        ])
        .args(["/bin/sh", "-c", START, "systemd-nspawn"])
        .args(["--quiet", "--register=no", "--keep-unit", "--boot"])
        .args(["--notify-ready=yes", "--kill-signal=RTMIN+3"])
        .args(["--link-journal=no", "--console=read-only"])
        // What the daemon in it needs: programs, their maps, and their pins.
        .arg("--capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN,CAP_SYS_ADMIN")
        .arg("--system-call-filter=bpf perf_event_open")
        .arg("--bind=/sys/fs/bpf")
        .arg(format!("--machine={}", machine.host))
        .arg("--directory")
        .arg(&machine.root)
        .arg(network))
    .map(drop)
}

fn put(path: &Path, text: &str) -> Result<(), String> {
    // The image may have a link there, which must not lead out of it.
    let _ = fs::remove_file(path);
    let written = File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| at(path, &error))
}

fn discard(path: &Path) -> Result<(), String> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(path, &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What it printed, or what it complained of.
fn run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run {program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().last().unwrap_or_default();
    Err(format!("{program} ended with {}: {said}", output.status))
}

fn at(path: &Path, error: &dyn std::error::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::HostId;

    fn request(host: &str, id: u8) -> ProviderRequest {
        ProviderRequest {
            version: 1,
            group: "web".parse().expect("a name"),
            epoch: 7,
            reason: None,
            from: "b".parse().expect("a name"),
            host: host.parse().expect("a name"),
            id: HostId::from_bytes([id; 32]),
            address: "192.0.2.3:7373".to_owned(),
            attempt: 1,
            deadline_s: 120,
        }
    }

    #[test]
    fn a_name_that_is_no_label_reaches_no_path_and_no_unit() {
        let machines = Path::new("/var/lib/machines");
        for bad in ["..", "a/b", "A", "c.service", "-c", "c%n"] {
            let Ok(name) = bad.parse::<Name>() else {
                continue;
            };
            assert!(Machine::new(machines, &name).is_err(), "{bad}");
        }
        let name = "spare-1".parse().expect("a name");
        let machine = Machine::new(machines, &name).expect("a label");
        assert_eq!(machine.root, machines.join("spare-1"));
        assert_eq!(machine.unit, "shadowd-machine-spare-1.service");
    }

    #[test]
    fn only_what_was_prepared_for_this_identity_becomes_a_machine() {
        let name = format!("shadowd-nspawn-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let (image, prepared) = (dir.join("image"), dir.join("files/c"));
        for made in [
            image.join("etc"),
            image.join("usr/lib/systemd/system"),
            image.join(STATE),
            prepared.join(STATE),
        ] {
            fs::create_dir_all(made).expect("a directory");
        }
        let unit = image.join("usr/lib/systemd/system/shadowd.service");
        fs::write(unit, "").expect("a file");
        fs::write(image.join(STATE).join("key"), "of the image").expect("a file");
        symlink("/etc/hostname", image.join("etc/hostname")).expect("a link");
        let id = prepared.join(STATE).join("id");
        assert!(
            is_prepared(&prepared, &request("c", 1)).is_err(),
            "nothing there"
        );
        fs::write(&id, HostId::from_bytes([1; 32]).to_string()).expect("a file");
        assert!(
            is_prepared(&prepared, &request("c", 2)).is_err(),
            "another one's"
        );
        assert_eq!(is_prepared(&prepared, &request("c", 1)), Ok(()));

        let machines = dir.join("machines");
        let name = "c".parse().expect("a name");
        let machine = Machine::new(&machines, &name).expect("a label");
        // What a run that was killed has left is gone.
        fs::create_dir_all(machine.half.join("left")).expect("a directory");
        make(&machine, &image, &prepared).expect("it is made");
        let root = &machine.root;
        let text = |path: &str| fs::read_to_string(root.join(path)).expect("a file");
        assert_eq!(text("etc/hostname"), "c\n");
        assert!(!root.join("left").exists() && !machine.half.exists());
        assert!(
            !root.join(STATE).join("key").exists(),
            "the image's identity"
        );
        assert_eq!(
            text("var/lib/shadowd/id"),
            HostId::from_bytes([1; 32]).to_string()
        );
        let wants = root.join("etc/systemd/system/multi-user.target.wants/shadowd.service");
        assert!(wants.symlink_metadata().is_ok());
        let first = machine.lock().expect("a lock").expect("free");
        assert!(machine.lock().expect("a lock").is_none(), "one at a time");
        drop(first);
        fs::remove_dir_all(&dir).expect("it goes");
    }
}
