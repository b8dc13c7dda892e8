//! Commands of the operator, each in a transient unit of its own (org.freedesktop.systemd1(5)).
//!
//! systemd starts the command, so it has nothing of the daemon's: no capability, no sandbox, no
//! descriptor. It has a control group of its own, so the deadline ends it with everything it
//! started, and it goes on when the daemon ends. What it prints is in the journal under its unit.
//! The unit's name is the same each time: a second one cannot run beside the first, whoever started
//! that. This module decides neither what runs nor when.

use std::time::Duration;

use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedVariant, Variant};
use zbus_systemd::systemd1::{ManagerProxy, ServiceProxy, UnitProxy};

use crate::config::settings::CommandSettings;

/// How long one D-Bus call may take.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// Between SIGTERM and SIGKILL.
const KILL_AFTER: Duration = Duration::from_secs(2);
/// systemd has so much longer than the deadline to end a unit and to say so.
const GRACE: Duration = Duration::from_secs(15);
/// Between two looks at a unit: from the first, doubling, to the second.
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// A command to run.
#[derive(Debug)]
pub struct Run<'a> {
    /// The unit's name, with `.service`.
    pub unit: String,
    /// What people read about it.
    pub description: String,
    /// Program, arguments, user and deadline.
    pub command: &'a CommandSettings,
    /// `NAME=value` each.
    pub environment: Vec<String>,
    /// Its standard input; none: nothing. Any user of the host may read it while it runs.
    pub input: Option<String>,
    /// More properties of the unit: none of those that every command has.
    pub more: Vec<(&'static str, Variant<'static>)>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal that was not the deadline's.
    Killed(i32),
    /// At its deadline, with everything it had started.
    TimedOut,
    /// It was never started: systemd's code for why (systemd.exec(5), process exit codes).
    NotStarted(i32),
    /// It ran, and nobody knows how it ended: the bus was away.
    Unknown,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit {code}"),
            Self::Killed(signal) => write!(f, "ended by signal {signal}"),
            Self::TimedOut => f.write_str("killed at its deadline"),
            Self::NotStarted(203) => {
                f.write_str("not started: the program cannot be executed (203)")
            }
            Self::NotStarted(217) => f.write_str("not started: there is no such user (217)"),
            Self::NotStarted(code) => {
                write!(f, "not started: systemd's code {code} (systemd.exec(5))")
            }
            Self::Unknown => f.write_str("ended, and nobody saw how"),
        }
    }
}

/// Why a command was not run.
#[derive(Debug, Error)]
pub enum RunError {
    /// systemd cannot be reached, refused, or did not answer.
    #[error("systemd did not take {unit}")]
    Request {
        /// The unit.
        unit: String,
        /// Why.
        #[source]
        source: zbus::Error,
    },
    /// An earlier run has not ended.
    #[error("an earlier {unit} still runs")]
    Busy {
        /// The unit.
        unit: String,
    },
}

/// Runs commands through systemd.
#[derive(Debug, Default)]
pub struct Hooks {
    connection: Mutex<Option<Connection>>,
}

impl Hooks {
    /// Runs one command and waits for its end, which is at most some seconds after its deadline.
    ///
    /// One that an earlier daemon started under the same name is awaited first.
    ///
    /// # Errors
    /// [`RunError`]: the command was not run.
    pub async fn run(&self, run: &Run<'_>) -> Result<End, RunError> {
        let refused = |source| RunError::Request {
            unit: run.unit.clone(),
            source,
        };
        let patience = Instant::now() + run.command.deadline + KILL_AFTER + GRACE;
        loop {
            match self.start(run).await {
                Ok(()) => break,
                Err(error) if is_there(&error) && Instant::now() < patience => sleep(LOOK.1).await,
                Err(error) if is_there(&error) => {
                    let unit = run.unit.clone();
                    return Err(RunError::Busy { unit });
                }
                Err(error) => return Err(refused(error)),
            }
        }
        Ok(self.wait(run).await)
    }

    async fn start(&self, run: &Run<'_>) -> zbus::Result<()> {
        let manager = self.manager().await?;
        let properties = properties(run)?;
        let mode = "fail".to_owned();
        manager
            .start_transient_unit(run.unit.clone(), mode, properties, Vec::new())
            .await
            .map(drop)
    }

    /// Looks at the unit until it has ended. It was started: whatever fails here is no reason to
    /// start it again.
    async fn wait(&self, run: &Run<'_>) -> End {
        let patience = Instant::now() + run.command.deadline + KILL_AFTER + GRACE;
        let mut look = LOOK.0;
        while Instant::now() < patience {
            sleep(look).await;
            look = (look * 2).min(LOOK.1);
            if let Ok(Some(end)) = self.look(&run.unit).await {
                return end;
            }
        }
        // Not even systemd could end it: what is left of it is killed once more.
        if let Ok(manager) = self.manager().await {
            let all = "all".to_owned();
            let _ = manager.kill_unit(run.unit.clone(), all, 9).await;
            let _ = manager.unref_unit(run.unit.clone()).await;
        }
        End::TimedOut
    }

    /// How it ended, if it has.
    async fn look(&self, name: &str) -> zbus::Result<Option<End>> {
        let manager = self.manager().await?;
        let path = manager.load_unit(name.to_owned()).await?;
        let connection = self.connected().await?;
        let unit = UnitProxy::builder(&connection)
            .path(path.clone())
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        // The job first: a unit whose start has not begun is inactive as well.
        let is_starting = unit.job().await?.0 != 0;
        let state = unit.active_state().await?;
        if is_starting || !matches!(state.as_str(), "inactive" | "failed") {
            return Ok(None);
        }
        if unit.load_state().await? == "not-found" {
            return Ok(Some(End::Unknown));
        }
        let service = ServiceProxy::builder(&connection)
            .path(path)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        let result = service.result().await?;
        let (code, status) = (
            service.exec_main_code().await?,
            service.exec_main_status().await?,
        );
        // The reference has kept its properties until now.
        let _ = manager.unref_unit(name.to_owned()).await;
        Ok(Some(end(&result, code, status)))
    }

    pub(super) async fn manager(&self) -> zbus::Result<ManagerProxy<'static>> {
        ManagerProxy::builder(&self.connected().await?)
            .cache_properties(CacheProperties::No)
            .build()
            .await
    }

    /// One connection for all: what it refers to is let go of when it ends.
    pub(super) async fn connected(&self) -> zbus::Result<Connection> {
        let mut connection = self.connection.lock().await;
        if let Some(open) = connection.as_ref().filter(|open| !open.is_closed()) {
            return Ok(open.clone());
        }
        let open = zbus::connection::Builder::system()
            .method_timeout(CALL_WITHIN)
            .build()
            .await?;
        *connection = Some(open.clone());
        Ok(open)
    }
}

/// The properties of the unit, as systemd.service(5), systemd.exec(5) and systemd.kill(5) name them.
fn properties(run: &Run<'_>) -> zbus::Result<Vec<(String, OwnedVariant)>> {
    let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    // systemd replaces variables in arguments; the configuration says what it says.
    let words: Vec<String> = run
        .command
        .command
        .iter()
        .map(|word| literal(word))
        .collect();
    let program = words.first().cloned().unwrap_or_default();
    let mut properties = vec![
        ("Description", Variant::new(run.description.clone())),
        ("Type", Variant::new("exec")),
        ("ExecStart", Variant::new(vec![(program, words, false)])),
        ("Environment", Variant::new(run.environment.clone())),
        ("RuntimeMaxUSec", Variant::new(micros(run.command.deadline))),
        ("TimeoutStopUSec", Variant::new(micros(KILL_AFTER))),
        ("KillMode", Variant::new("control-group")),
        // Nothing is left of it but for whoever still refers to it: this daemon.
        ("CollectMode", Variant::new("inactive-or-failed")),
        ("AddRef", Variant::new(true)),
    ];
    if let Some(user) = &run.command.user {
        properties.push(("User", Variant::new(user.clone())));
    }
    if let Some(input) = &run.input {
        properties.push(("StandardInput", Variant::new("data")));
        let bytes = input.clone().into_bytes();
        properties.push(("StandardInputData", Variant::new(bytes)));
    }
    let more = run.more.iter();
    properties.extend(more.map(|(name, value)| (*name, value.clone())));
    let owned = properties.into_iter();
    owned
        .map(|(name, value)| Ok((name.to_owned(), value.try_into_owned()?)))
        .collect()
}

fn literal(word: &str) -> String {
    word.replace('$', "$$")
}

/// `code` is waitid(2)'s si_code: 1 exited, 2 killed, 3 dumped; 0 when nothing ran.
fn end(result: &str, code: i32, status: i32) -> End {
    match (result, code) {
        ("timeout" | "watchdog", _) => End::TimedOut,
        // What systemd itself reports before the program runs (src/shared/exit-status.h).
        (_, 1) if (200..=245).contains(&status) && result != "success" => End::NotStarted(status),
        (_, 1) => End::Exited(status),
        (_, 2 | 3) => End::Killed(status),
        _ => End::Unknown,
    }
}

fn is_there(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, _, _)
        if name.as_str() == "org.freedesktop.systemd1.UnitExists")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemds_words_become_ends() {
        for (result, code, status, expected) in [
            ("success", 1, 0, End::Exited(0)),
            ("exit-code", 1, 3, End::Exited(3)),
            ("exit-code", 1, 203, End::NotStarted(203)),
            ("signal", 2, 9, End::Killed(9)),
            ("core-dump", 3, 6, End::Killed(6)),
            ("timeout", 2, 15, End::TimedOut),
            ("timeout", 1, 0, End::TimedOut),
            ("resources", 0, 0, End::Unknown),
        ] {
            assert_eq!(end(result, code, status), expected, "{result} {code}");
        }
    }

    #[test]
    fn arguments_reach_the_program_as_they_are_written() {
        assert_eq!(literal("$HOME ${X}"), "$$HOME $${X}");
    }

    #[test]
    fn a_unit_has_a_deadline_and_nothing_of_it_stays() {
        let command = CommandSettings {
            command: vec!["/bin/cat".to_owned()],
            user: Some("nobody".to_owned()),
            deadline: Duration::from_secs(3),
        };
        let run = Run {
            unit: "x.service".to_owned(),
            description: String::new(),
            command: &command,
            environment: vec!["A=b".to_owned()],
            input: Some("text".to_owned()),
            more: Vec::new(),
        };
        let properties = properties(&run).expect("they are plain values");
        let value = |name: &str| {
            let found = properties.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| Variant::try_from(value).expect("a plain value"))
        };
        assert_eq!(value("RuntimeMaxUSec"), Some(Variant::new(3_000_000_u64)));
        assert_eq!(value("KillMode"), Some(Variant::new("control-group")));
        assert_eq!(value("User"), Some(Variant::new("nobody")));
        assert_eq!(
            value("ExecStart").map(|value| value.value_signature().to_string()),
            Some("a(sasb)".to_owned())
        );
        assert_eq!(
            value("StandardInputData").map(|value| value.value_signature().to_string()),
            Some("ay".to_owned())
        );
    }
}
