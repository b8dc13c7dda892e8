//! Systemd hosts on this machine: boots them, puts shadowd into them, breaks and heals them.
//!
//! Each host is a container with a systemd of its own, in a network namespace of its own. What a
//! lab makes is named in `target/lab/state.json` before it is made, and is removed by the end of
//! the lab, by `lab down`, or by the next lab after a crash. It never touches an interface, mount
//! or control group that it did not make.

pub mod command;
pub mod interrupt;

mod cgroup;
mod fault;
mod group;
mod host;
mod install;
mod leftovers;
mod network;
pub mod rootfs;
pub mod state;
mod supervise;
mod tool;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub use fault::{COLD, DAEMON, Fault, PEER, WARM, boot_ns};
pub use group::View;
pub use install::{CONFIG, GROUP};
pub use leftovers::leftovers;
pub use network::port_name;
pub use state::{CLIENT_V4, CLIENT_V6, Host, State, VIP_V4, VIP_V6, target, workspace};
pub use tool::{Args, run};

/// How a lab shall be made.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many hosts, 1 to 8.
    pub hosts: usize,
    /// Whether there is a witness, so that a lease protects the group.
    pub witness: bool,
    /// Whether there is a spare.
    pub spare: bool,
    /// Whether there is a client on the bridge.
    pub client: bool,
    /// Whether the lab ends with the process that makes it, however that ends.
    pub tied: bool,
    /// Whether the kernel shall not guard the virtual IPs: two hosts then answer, which shows that
    /// who looks for it finds it.
    pub unguarded: bool,
    /// Where the binaries of shadowd are; without them the hosts run nginx only.
    pub binaries: Option<PathBuf>,
}

impl Options {
    /// Two hosts and a client, with the newest binaries, tied to this process.
    ///
    /// # Errors
    /// shadowd is not built.
    pub fn pair() -> Result<Self> {
        Ok(Self {
            hosts: 2,
            witness: false,
            spare: false,
            client: true,
            tied: true,
            unguarded: false,
            binaries: Some(install::binaries()?),
        })
    }

    /// As [`Options::pair`], with a witness.
    ///
    /// # Errors
    /// shadowd is not built.
    pub fn witnessed() -> Result<Self> {
        Ok(Self {
            witness: true,
            ..Self::pair()?
        })
    }
}

/// A lab that is up. Ends when dropped, if this process made it and it is tied.
#[derive(Debug)]
pub struct Lab {
    state: State,
    supervisor: Option<Child>,
    /// Hosts to which this process did something that it did not heal.
    unhealed: Mutex<BTreeSet<String>>,
}

impl Lab {
    /// Boots a lab, and installs shadowd in it.
    ///
    /// # Errors
    /// A lab is up already, a step fails, or the user interrupts: then what was made is removed.
    pub fn up(options: &Options) -> Result<Self> {
        interrupt::install()?;
        if let Some(old) = State::load()? {
            if cgroup::populated(&old.supervisor_cgroup()) {
                bail!("lab {} is up: `cargo xtask lab down` ends it", old.id);
            }
            println!("removing what is left of lab {}", old.id);
            remove_all(&old)?;
        }
        let base = rootfs::base()?;
        let mut state = State::plan(
            options.hosts,
            options.witness,
            options.client,
            options.tied,
            base,
        )?;
        if options.spare {
            state.add_spare();
        }
        state.made_netns_mount = !network::named_mounted();
        state.installed = options.binaries.is_some();
        state.unguarded = options.unguarded;
        state.save()?;
        // From here on an error, an interrupt or a panic removes what was made.
        let mut lab = Self {
            state: State {
                tied: true,
                ..state.clone()
            },
            supervisor: None,
            unhealed: Mutex::default(),
        };
        lab.boot(options, &state)?;
        if !options.tied {
            lab.supervisor.as_mut().map_or(Ok(()), supervise::stay)?;
            lab.state.tied = false;
        }
        Ok(lab)
    }

    fn boot(&mut self, options: &Options, state: &State) -> Result<()> {
        cgroup::make(state)?;
        network::make(state)?;
        for host in &state.hosts {
            host::prepare(state, host)?;
            if let Some(binaries) = &options.binaries {
                install::place(host, binaries)?;
            }
        }
        interrupt::check()?;
        self.supervisor = Some(supervise::start(state)?);
        for host in &state.hosts {
            self.wait_booted(&host.name, Duration::from_secs(60))?;
        }
        if options.binaries.is_some() {
            install::configure(self)?;
        }
        Ok(())
    }

    /// The lab that is up. Dropping it does not end it.
    ///
    /// # Errors
    /// No lab is up.
    pub fn attach() -> Result<Self> {
        let state = State::load()?.context("no lab is up: `cargo xtask lab up` makes one")?;
        if !cgroup::populated(&state.supervisor_cgroup()) {
            bail!(
                "lab {} is not up any more: `cargo xtask lab down` removes the rest",
                state.id
            );
        }
        Ok(Self {
            state: State {
                tied: false,
                ..state
            },
            supervisor: None,
            unhealed: Mutex::default(),
        })
    }

    /// What it is made of.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Ends the lab and removes all of it. Gives what could not be removed.
    ///
    /// # Errors
    /// A step fails.
    pub fn down(mut self) -> Result<Vec<String>> {
        self.state.tied = false;
        self.end()?;
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let left = leftovers(&self.state);
            // A process that was killed takes a moment to end, more on a busy machine.
            if left.is_empty() || Instant::now() > end {
                return Ok(left);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn end(&mut self) -> Result<()> {
        // The supervisor would begin the same work when its pipe closes: it is ended first.
        if let Some(mut child) = self.supervisor.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        remove_all(&self.state)
    }

    /// Runs a command in a host; gives its output, whatever the exit status.
    ///
    /// # Errors
    /// The host is not up, the command cannot be started, or takes longer than 20 seconds.
    pub fn exec(&self, host: &str, arguments: &[&str]) -> Result<Output> {
        command::output(self.command(host, arguments)?, None, command::SHORT)
    }

    /// Runs a command in a host, expects success, gives its standard output.
    ///
    /// # Errors
    /// As [`Lab::exec`], or an exit status other than 0, with what the command wrote.
    pub fn run(&self, host: &str, arguments: &[&str]) -> Result<String> {
        let output = self.exec(host, arguments)?;
        command::checked(&arguments.join(" "), output).with_context(|| format!("on host {host}"))
    }

    /// The command that runs `arguments` in a host.
    ///
    /// # Errors
    /// The host is not up.
    pub fn command(&self, host: &str, arguments: &[&str]) -> Result<Command> {
        let target = self.state.host(host)?;
        let init = host::init(target).with_context(|| format!("host {host} is not up"))?;
        let mut command = Command::new("nsenter");
        command
            .args(["-a", "-t", &init.to_string(), "--"])
            .args(arguments);
        command.env_clear();
        command.env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        command.env("TERM", "dumb").env("LC_ALL", "C.UTF-8");
        Ok(command)
    }

    /// The command that runs `arguments` where the client is.
    ///
    /// # Errors
    /// The lab has no client.
    pub fn client_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", self.client()?])
            .args(arguments);
        Ok(command)
    }

    /// The client's network namespace.
    ///
    /// # Errors
    /// The lab has no client.
    pub fn client(&self) -> Result<&str> {
        self.state
            .client
            .as_deref()
            .context("this lab has no client: `lab up --client` makes one")
    }

    /// Writes a file in a host.
    ///
    /// # Errors
    /// The host refuses.
    pub fn write_file(&self, host: &str, path: &str, text: &str) -> Result<()> {
        let line = "mkdir -p \"$(dirname \"$0\")\" && cat > \"$0\"";
        let command = self.command(host, &["sh", "-c", line, path])?;
        command::run(command, Some(text.as_bytes()), command::SHORT).map(drop)
    }

    /// Where a file of a host is seen from this machine, as the host sees it now.
    ///
    /// # Errors
    /// The host is not up.
    pub fn path_in(&self, host: &str, path: &str) -> Result<PathBuf> {
        let init = host::init(self.state.host(host)?);
        let init = init.with_context(|| format!("host {host} is not up"))?;
        Ok(PathBuf::from(format!("/proc/{init}/root{path}")))
    }

    /// systemd's ActiveState of a unit in a host.
    ///
    /// # Errors
    /// The host does not answer.
    pub fn unit_state(&self, host: &str, unit: &str) -> Result<String> {
        let said = self.run(host, &["systemctl", "show", "-P", "ActiveState", unit])?;
        Ok(said.trim().to_owned())
    }

    /// Breaks something; gives the moment just before, on `CLOCK_BOOTTIME` in nanoseconds.
    ///
    /// # Errors
    /// What shall break is not there, or a step fails.
    pub fn fault(&self, host: &str, fault: &Fault) -> Result<u64> {
        self.unhealed().insert(host.to_owned());
        fault::inject(self, host, fault)
    }

    /// Whether something was done to a host by this process and not healed.
    pub fn is_unhealed(&self, host: &str) -> bool {
        self.unhealed().contains(host)
    }

    fn unhealed(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.unhealed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Undoes what keeps a host from running or being heard, and starts nothing.
    ///
    /// # Errors
    /// A step fails.
    pub fn lift(&self, host: &str) -> Result<()> {
        fault::lift(self, host)
    }

    /// Undoes every fault of a host and waits until its units run again.
    ///
    /// # Errors
    /// A step fails, or a unit does not start within 30 seconds.
    pub fn heal(&self, host: &str) -> Result<()> {
        let units: &[&str] = if self.state.installed {
            &[WARM, DAEMON]
        } else {
            &[WARM]
        };
        self.heal_with(host, units)
    }

    /// Undoes every fault of a host and waits until these units run.
    ///
    /// # Errors
    /// A step fails, or a unit does not start within 30 seconds.
    pub fn heal_with(&self, host: &str, units: &[&str]) -> Result<()> {
        fault::heal(self, host, units)?;
        self.unhealed().remove(host);
        for unit in units {
            self.wait(
                Duration::from_secs(30),
                &format!("{unit} on host {host}"),
                || Ok(self.unit_state(host, unit)? == "active"),
            )?;
        }
        Ok(())
    }

    /// Waits until a host's systemd says that it has started everything.
    ///
    /// # Errors
    /// It does not within `deadline`; the message quotes its console.
    pub fn wait_booted(&self, name: &str, deadline: Duration) -> Result<()> {
        let target = self.state.host(name)?;
        let waited = self.wait(deadline, "the host to boot", || {
            if host::init(target).is_none() {
                return Ok(false);
            }
            let Ok(output) = self.exec(name, &["systemctl", "is-system-running"]) else {
                return Ok(false);
            };
            let said = String::from_utf8_lossy(&output.stdout);
            Ok(matches!(said.trim(), "running" | "degraded"))
        });
        // Who interrupts knows why; otherwise the console tells.
        if interrupt::requested() {
            return waited;
        }
        waited.with_context(|| format!("host {name}; its console:\n{}", host::console_tail(target)))
    }

    /// Waits until a condition holds, looking at it ten times a second.
    ///
    /// # Errors
    /// It does not hold within `deadline`, cannot be looked at, or the user interrupts.
    pub fn wait(
        &self,
        deadline: Duration,
        what: &str,
        mut holds: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let end = Instant::now() + deadline;
        loop {
            interrupt::check()?;
            if holds()? {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("waited {deadline:?} in vain for {what}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.state.tied
            && let Err(error) = self.end()
        {
            eprintln!("cannot remove lab {}: {error:#}", self.state.id);
        }
    }
}

/// Ends everything a lab made and removes it. What is gone already is no error.
fn remove_all(state: &State) -> Result<()> {
    cgroup::remove(state)?;
    network::remove(state)?;
    if state.directory.exists() {
        fs::remove_dir_all(&state.directory)
            .with_context(|| format!("cannot remove {}", state.directory.display()))?;
    }
    State::forget()
}
