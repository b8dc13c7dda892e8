//! One notice on its way to one receiver: as environment, as JSON, as mail.

use std::time::Duration;

use tracing::debug;

use crate::act::hooks::{End, Hooks, Run};
use crate::act::webhook;
use crate::config::settings::{
    AlertSettings, AlertWay, CommandSettings, HookSettings, NotifySettings,
};
use crate::decide::notify::{Outcome, Receiver};
use crate::facts::{Name, Notice, ReceiverKind, Topic};

/// Somebody to be told.
#[derive(Clone, Debug)]
pub enum Target {
    /// A hook.
    Hook(HookSettings),
    /// An alert.
    Alert(AlertSettings),
}

/// What came of a notice.
#[derive(Debug)]
pub struct Attempt {
    /// For the core.
    pub outcome: Outcome,
    /// For people.
    pub result: String,
}

impl Target {
    /// Everybody in the configuration.
    pub fn all(settings: &NotifySettings) -> Vec<Self> {
        let hooks = settings.hooks.iter().cloned().map(Self::Hook);
        let alerts = settings.alerts.iter().cloned().map(Self::Alert);
        hooks.chain(alerts).collect()
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        match self {
            Self::Hook(hook) => &hook.name,
            Self::Alert(alert) => &alert.name,
        }
    }

    /// What it is.
    pub fn kind(&self) -> ReceiverKind {
        match self {
            Self::Hook(_) => ReceiverKind::Hook,
            Self::Alert(alert) => match alert.way {
                AlertWay::Webhook(_) => ReceiverKind::Webhook,
                AlertWay::Mail { .. } => ReceiverKind::Mail,
            },
        }
    }

    /// The groups it is told about.
    pub fn groups(&self) -> &[Name] {
        match self {
            Self::Hook(hook) => &hook.groups,
            Self::Alert(alert) => &alert.groups,
        }
    }

    /// What it is told.
    pub fn events(&self) -> &[Topic] {
        match self {
            Self::Hook(hook) => &hook.events,
            Self::Alert(alert) => &alert.events,
        }
    }

    /// Kind and name, as the store knows it.
    pub fn id(&self) -> String {
        format!("{}/{}", self.kind(), self.name())
    }

    /// What decisions about it need.
    pub fn receiver(&self) -> Receiver {
        let (retry_for, repeat_after, rate) = match self {
            // systemd comes back: a hook waits for it as long as it takes.
            Self::Hook(_) => (None, Duration::ZERO, None),
            Self::Alert(alert) => (
                Some(alert.retry_for),
                alert.repeat_after,
                Some((alert.burst, alert.one_more_after)),
            ),
        };
        Receiver {
            id: self.id(),
            events: self.events().to_vec(),
            groups: self.groups().to_vec(),
            retry_for,
            repeat_after,
            rate,
        }
    }

    /// Tells it; takes as long as its deadline and some seconds more.
    pub async fn tell(&self, hooks: &Hooks, notice: &Notice) -> Attempt {
        match self {
            Self::Hook(hook) => run(hooks, self, &hook.run, notice, None).await,
            Self::Alert(alert) => match &alert.way {
                AlertWay::Mail { run: command, to } => {
                    run(hooks, self, command, notice, Some(mail(notice, to))).await
                }
                AlertWay::Webhook(to) => {
                    let body = serde_json::to_vec(notice).unwrap_or_default();
                    match webhook::post(to, body).await {
                        Ok(status) => Attempt {
                            outcome: Outcome::Delivered,
                            result: format!("the server answered {status}"),
                        },
                        Err(error) => Attempt {
                            outcome: if error.is_transient() {
                                Outcome::Unreached
                            } else {
                                Outcome::Refused
                            },
                            result: format!("{:#}", anyhow::Error::from(error)),
                        },
                    }
                }
            },
        }
    }
}

async fn run(
    hooks: &Hooks,
    target: &Target,
    command: &CommandSettings,
    notice: &Notice,
    input: Option<String>,
) -> Attempt {
    let (kind, name) = (target.kind(), target.name());
    let run = Run {
        unit: format!("shadowd-{kind}-{name}.service"),
        description: format!("shadowd: {kind} {name}: {}", title(notice)),
        command,
        environment: environment(notice),
        input,
        more: Vec::new(),
    };
    debug!(unit = run.unit, event = %notice.event, "told");
    let ended = hooks.run(&run).await;
    let (outcome, result) = match ended {
        Ok(end) => {
            let outcome = match end {
                End::Exited(0) => Outcome::Delivered,
                End::TimedOut => Outcome::TimedOut,
                End::Exited(_) | End::Killed(_) | End::NotStarted(_) | End::Unknown => {
                    Outcome::Failed
                }
            };
            (outcome, end.to_string())
        }
        Err(error) => (
            Outcome::Unreached,
            format!("{:#}", anyhow::Error::from(error)),
        ),
    };
    // A mail that was not taken is still to be sent; a hook that failed has run.
    let outcome = match outcome {
        Outcome::Failed | Outcome::TimedOut if kind == ReceiverKind::Mail => Outcome::Unreached,
        other => other,
    };
    Attempt { outcome, result }
}

fn environment(notice: &Notice) -> Vec<String> {
    let text = |name: Option<&Name>| name.map_or_else(String::new, ToString::to_string);
    let cause = notice
        .cause
        .map_or_else(String::new, |cause| cause.to_string());
    let json = serde_json::to_string(notice).unwrap_or_default();
    [
        ("SHADOWD_EVENT", notice.event.to_string()),
        ("SHADOWD_HOST", notice.host.to_string()),
        ("SHADOWD_GROUP", text(notice.group.as_ref())),
        ("SHADOWD_ROLE", notice.role.clone()),
        ("SHADOWD_EPOCH", notice.epoch.to_string()),
        ("SHADOWD_ACTIVE", text(notice.active.as_ref())),
        ("SHADOWD_CAUSE", cause),
        ("SHADOWD_SEVERITY", notice.severity.to_string()),
        ("SHADOWD_SKIPPED", notice.skipped.to_string()),
        ("SHADOWD_EVENT_JSON", json),
    ]
    .map(|(name, value)| format!("{name}={value}"))
    .to_vec()
}

fn title(notice: &Notice) -> String {
    let group = notice.group.as_ref();
    group.map_or_else(
        || notice.event.to_string(),
        |group| format!("group {group}: {}", notice.event),
    )
}

/// A message as sendmail(8) takes it with `-t`. Names are printable ASCII, so no header can be
/// made from them.
fn mail(notice: &Notice, to: &str) -> String {
    let severity = if notice.resolved {
        "resolved".to_owned()
    } else {
        notice.severity.to_string()
    };
    let mut text = format!(
        "To: {to}\nSubject: [shadowd] {severity}: {}: {}\nAuto-Submitted: auto-generated\n\
         MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n",
        notice.host,
        title(notice)
    );
    let none = || "-".to_owned();
    let active = notice.active.as_ref().map_or_else(none, Name::to_string);
    let cause = notice.cause.map_or_else(none, |cause| cause.to_string());
    for (name, value) in [
        ("event", notice.event.to_string()),
        ("host", notice.host.to_string()),
        ("role", notice.role.clone()),
        ("epoch", notice.epoch.to_string()),
        ("active", active),
        ("cause", cause),
        ("detail", notice.detail.clone()),
        ("skipped", notice.skipped.to_string()),
    ] {
        text.push_str(&format!("{name:<8} {}\n", value.replace('\n', " ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{BootTime, Cause, Severity};

    fn notice() -> Notice {
        Notice {
            host: "a".parse().unwrap(),
            group: "web".parse().ok(),
            event: Topic::RedundancyRestored,
            severity: Severity::Warning,
            resolved: true,
            key: "a/web/redundancy".to_owned(),
            role: "active".to_owned(),
            epoch: 7,
            active: "a".parse().ok(),
            cause: Some(Cause::Silence),
            detail: "two\nlines".to_owned(),
            skipped: 3,
            boot_ns: BootTime::default(),
            wall_ms: 0,
        }
    }

    #[test]
    fn a_hook_finds_all_of_it_in_its_environment() {
        let environment = environment(&notice());
        for expected in [
            "SHADOWD_EVENT=redundancy-restored",
            "SHADOWD_GROUP=web",
            "SHADOWD_ROLE=active",
            "SHADOWD_EPOCH=7",
            "SHADOWD_CAUSE=silence",
            "SHADOWD_SKIPPED=3",
        ] {
            assert!(
                environment.iter().any(|known| known == expected),
                "{expected}"
            );
        }
        let json = environment
            .iter()
            .find_map(|known| known.strip_prefix("SHADOWD_EVENT_JSON="));
        let read: Notice = serde_json::from_str(json.unwrap()).unwrap();
        assert_eq!(read, notice());
    }

    #[test]
    fn a_mail_says_in_its_subject_that_it_is_over() {
        let mail = mail(&notice(), "ops@example.com");
        let subject = "Subject: [shadowd] resolved: a: group web: redundancy-restored\n";
        assert!(mail.starts_with("To: ops@example.com\n") && mail.contains(subject));
        assert!(
            mail.contains("\n\nevent    redundancy-restored\n"),
            "{mail}"
        );
        assert!(mail.contains("detail   two lines\n"), "{mail}");
    }
}
