//! Hooks and alerts: names, commands, addresses, and who is told what.

use std::collections::BTreeSet;
use std::time::Duration;

use hyper::Uri;
use toml::Spanned;

use super::{Checked, Source};
use crate::config::error::{ConfigError, line_of};
use crate::config::file;
use crate::config::notify::{
    AlertSettings, AlertWay, CommandSettings, HookSettings, NotifySettings, WebhookSettings,
};
use crate::facts::{Name, Severity, Topic};

const MAX_RECEIVERS: usize = 32;
const MAX_ARGUMENTS: usize = 64;
/// Bytes of one argument, as many as a line of people.
const MAX_ARGUMENT: usize = 4096;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

impl Source<'_> {
    /// All hooks and alerts; `groups` are the ones this host is a member of.
    pub(super) fn notify(&self, file: &file::File, groups: &[Name]) -> Checked<NotifySettings> {
        let mut settings = NotifySettings::default();
        let mut names = BTreeSet::new();
        for written in &file.hook {
            let name = self.receiver("hook.name", &written.name, &mut names)?;
            settings.hooks.push(self.hook(name, written, groups)?);
        }
        for written in &file.alert {
            let name = self.receiver("alert.name", &written.name, &mut names)?;
            settings.alerts.push(self.alert(name, written, groups)?);
        }
        Ok(settings)
    }

    fn hook(&self, name: Name, written: &file::Hook, groups: &[Name]) -> Checked<HookSettings> {
        let user = written.user.as_ref();
        Ok(HookSettings {
            name,
            run: CommandSettings {
                command: self.command("hook.command", &written.command)?,
                user: user.map(|user| self.user("hook.user", user)).transpose()?,
                deadline: self.duration(
                    "hook.deadline",
                    written.deadline.as_ref(),
                    SECOND * 30,
                    SECOND..=HOUR,
                )?,
            },
            groups: self.told_groups("hook.groups", written.groups.as_ref(), groups)?,
            events: self.events(written.events.as_ref())?,
        })
    }

    fn alert(&self, name: Name, written: &file::Alert, groups: &[Name]) -> Checked<AlertSettings> {
        let deadline = self.duration(
            "alert.deadline",
            written.deadline.as_ref(),
            SECOND * 10,
            SECOND..=SECOND * 60,
        )?;
        let way = match (&written.webhook, &written.mail) {
            (Some(url), None) => {
                let mut webhook = self.webhook(url, deadline)?;
                let file = written.header_file.as_ref();
                webhook.header_file = file
                    .map(|file| self.absolute("alert.header_file", Some(file), ""))
                    .transpose()?;
                AlertWay::Webhook(webhook)
            }
            (None, Some(mail)) => {
                if let Some(file) = &written.header_file {
                    return Err(self.refuse("alert.header_file", file, "only with webhook"));
                }
                self.mail(mail, deadline)?
            }
            _ => {
                let allowed = "an alert has one way: webhook = \"http://...\", or \
                               mail = { command = [...], to = \"...\" }";
                return Err(self.refuse("alert.name", &written.name, allowed));
            }
        };
        let least = self.severity(written.severity.as_ref())?;
        let events = Topic::ALL.into_iter();
        Ok(AlertSettings {
            name,
            way,
            groups: self.told_groups("alert.groups", written.groups.as_ref(), groups)?,
            events: events.filter(|topic| topic.severity() >= least).collect(),
            retry_for: self.duration(
                "alert.retry_for",
                written.retry_for.as_ref(),
                HOUR,
                Duration::ZERO..=DAY,
            )?,
            repeat_after: self.duration(
                "alert.repeat_after",
                written.repeat_after.as_ref(),
                SECOND * 300,
                Duration::ZERO..=DAY,
            )?,
            burst: self.burst(written.burst.as_ref())?,
            one_more_after: self.duration(
                "alert.one_more_after",
                written.one_more_after.as_ref(),
                SECOND * 60,
                SECOND..=DAY,
            )?,
        })
    }

    /// A name is part of a unit's name and of a path, so it is shorter and plainer than others.
    fn receiver(
        &self,
        key: &'static str,
        written: &Spanned<String>,
        seen: &mut BTreeSet<String>,
    ) -> Checked<Name> {
        let text = written.get_ref();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > 32 || !text.bytes().all(plain) {
            let allowed = "1 to 32 letters, digits, - and _";
            return Err(self.refuse(key, written, allowed));
        }
        if !seen.insert(text.clone()) {
            return Err(self.refuse(key, written, "each hook and alert has a name of its own"));
        }
        if seen.len() > MAX_RECEIVERS {
            return Err(self.refuse(key, written, "at most 32 of them"));
        }
        self.parsed(key, written)
    }

    pub(super) fn command(
        &self,
        key: &'static str,
        written: &Spanned<Vec<Spanned<String>>>,
    ) -> Checked<Vec<String>> {
        let words = written.get_ref();
        let allowed =
            "the absolute path of a program, then at most 63 arguments; no shell reads it";
        let program = words.first().map(|word| word.get_ref().as_str());
        if !program.is_some_and(|program| program.starts_with('/') && program.len() > 1)
            || words.len() > MAX_ARGUMENTS
        {
            return Err(self.refuse(key, written, allowed));
        }
        let legal = |word: &Spanned<String>| {
            word.get_ref().len() <= MAX_ARGUMENT && !word.get_ref().contains('\0')
        };
        if let Some(bad) = words.iter().find(|word| !legal(word)) {
            return Err(self.refuse(key, bad, "at most 4096 bytes without a zero byte"));
        }
        Ok(words.iter().map(|word| word.get_ref().clone()).collect())
    }

    /// As systemd takes them (systemd.io/USER_NAMES), in the strict form.
    pub(super) fn user(&self, key: &'static str, written: &Spanned<String>) -> Checked<String> {
        let text = written.get_ref();
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > 31 || !text.bytes().all(legal) || text.starts_with('-') {
            let allowed = "a user's name of at most 31 letters, digits, - and _, or its number";
            return Err(self.refuse(key, written, allowed));
        }
        Ok(text.clone())
    }

    fn told_groups(
        &self,
        key: &'static str,
        written: Option<&Spanned<Vec<Spanned<String>>>>,
        groups: &[Name],
    ) -> Checked<Vec<Name>> {
        let Some(written) = written else {
            return Ok(groups.to_vec());
        };
        if written.get_ref().is_empty() {
            let allowed = "at least one group; leave the key out for all groups";
            return Err(self.refuse(key, written, allowed));
        }
        let mut told = BTreeSet::new();
        for name in written.get_ref() {
            let group: Name = self.parsed(key, name)?;
            if !groups.contains(&group) {
                let allowed = "names of [[group]] tables that this host is a member of";
                return Err(self.refuse(key, name, allowed));
            }
            told.insert(group);
        }
        Ok(told.into_iter().collect())
    }

    fn events(&self, written: Option<&Spanned<Vec<Spanned<String>>>>) -> Checked<Vec<Topic>> {
        let Some(written) = written else {
            return Ok(vec![Topic::Active, Topic::Shadow, Topic::Stopped]);
        };
        if written.get_ref().is_empty() {
            let allowed = "at least one event; leave the key out for active, shadow and stopped";
            return Err(self.refuse("hook.events", written, allowed));
        }
        let mut events = BTreeSet::new();
        for word in written.get_ref() {
            events.insert(self.parsed::<Topic>("hook.events", word)?);
        }
        Ok(events.into_iter().collect())
    }

    fn severity(&self, written: Option<&Spanned<String>>) -> Checked<Severity> {
        let Some(written) = written else {
            return Ok(Severity::Warning);
        };
        match written.get_ref().as_str() {
            "info" => Ok(Severity::Info),
            "warning" => Ok(Severity::Warning),
            "critical" => Ok(Severity::Critical),
            _ => {
                let allowed = "\"info\", \"warning\" or \"critical\"";
                Err(self.refuse("alert.severity", written, allowed))
            }
        }
    }

    fn burst(&self, written: Option<&Spanned<i64>>) -> Checked<u32> {
        let Some(written) = written else {
            return Ok(10);
        };
        let value = u32::try_from(*written.get_ref()).ok();
        value
            .filter(|value| (1..=1000).contains(value))
            .ok_or_else(|| self.refuse("alert.burst", written, "from 1 to 1000"))
    }

    fn mail(&self, written: &file::Mail, deadline: Duration) -> Checked<AlertWay> {
        let to = written.to.get_ref();
        let plain = |letter: char| !letter.is_control();
        if !to.contains('@') || to.len() > 254 || !to.chars().all(plain) {
            let allowed = "a mail address, such as ops@example.com";
            return Err(self.refuse("alert.mail.to", &written.to, allowed));
        }
        Ok(AlertWay::Mail {
            run: CommandSettings {
                command: self.command("alert.mail.command", &written.command)?,
                user: None,
                deadline,
            },
            to: to.clone(),
        })
    }

    /// The address may hold a secret, so a refusal does not quote it.
    fn webhook(&self, url: &Spanned<String>, deadline: Duration) -> Checked<WebhookSettings> {
        let refusal = || ConfigError::Value {
            path: self.path.to_owned(),
            line: line_of(self.text, &url.span()),
            key: "alert.webhook",
            value: "(not shown)".to_owned(),
            allowed: "http://HOST[:PORT]/PATH or https://..., without user and password: those \
                      go into header_file"
                .to_owned(),
        };
        let uri: Uri = url.get_ref().parse().map_err(|_| refusal())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refusal()),
        };
        let authority = uri.authority().ok_or_else(refusal)?;
        let host = authority.host();
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() != host => return Err(refusal()),
            None if tls => 443,
            None => 80,
        };
        if authority.as_str().contains('@') || host.is_empty() || port == 0 {
            return Err(refusal());
        }
        let path = uri.path_and_query();
        Ok(WebhookSettings {
            tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            authority: authority.to_string(),
            path: path.map_or_else(|| "/".to_owned(), ToString::to_string),
            header_file: None,
            deadline,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    fn read(table: &str) -> Result<NotifySettings, String> {
        let text = format!(
            "{}\n{table}\n",
            include_str!("../../../../packaging/shadowd.toml")
        );
        parse(&text, Path::new("x"))
            .map(|settings| settings.notify)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_hook_means_what_it_says_and_the_rest_has_defaults() {
        let read = read("[[hook]]\nname = \"dns\"\ncommand = [\"/bin/true\", \"a b\"]").unwrap();
        let hook = &read.hooks[0];
        assert_eq!(hook.run.command, ["/bin/true", "a b"]);
        assert_eq!(hook.run.deadline, SECOND * 30);
        assert_eq!(hook.events, [Topic::Active, Topic::Shadow, Topic::Stopped]);
        assert_eq!(hook.groups, ["web".parse().unwrap()]);
    }

    #[test]
    fn a_webhook_is_taken_apart_and_keeps_its_secrets() {
        let url = |url: &str| {
            let table = format!("[[alert]]\nname = \"ops\"\nwebhook = \"{url}\"");
            let alert = read(&table)?.alerts.remove(0);
            match alert.way {
                AlertWay::Webhook(webhook) => Ok((webhook, alert.events)),
                AlertWay::Mail { .. } => Err("a mail".to_owned()),
            }
        };
        let (webhook, events) = url("https://hooks.example.com/T0/secret?x=1").unwrap();
        assert_eq!((webhook.tls, webhook.port), (true, 443));
        assert_eq!(webhook.path, "/T0/secret?x=1");
        assert!(!format!("{webhook:?}").contains("secret"));
        assert!(events.contains(&Topic::RedundancyLost) && !events.contains(&Topic::Active));
        let (webhook, _) = url("http://[2001:db8::7]:8080/").unwrap();
        assert_eq!((webhook.host.as_str(), webhook.port), ("2001:db8::7", 8080));
        for bad in [
            "ftp://x/secret",
            "/secret",
            "http://u:secret@x/",
            "http://x:0/secret",
            "http://x:99999/secret",
        ] {
            let refusal = url(bad).expect_err(bad);
            assert!(refusal.contains("alert.webhook = (not shown)"), "{refusal}");
            assert!(!refusal.contains("secret"), "{refusal}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_refused_with_key_and_remedy() {
        let hook = "[[hook]]\nname = \"dns\"\ncommand = [\"/bin/true\"]\n";
        let alert = "[[alert]]\nname = \"ops\"\nwebhook = \"http://x/\"\n";
        for (table, key, remedy) in [
            (
                format!("{hook}deadline = \"2h\""),
                "hook.deadline",
                "from 1s to 1h",
            ),
            (
                format!("{hook}events = [\"up\"]"),
                "hook.events",
                "\"redundancy-lost\"",
            ),
            (
                format!("{hook}events = []"),
                "hook.events",
                "leave the key out",
            ),
            (
                format!("{hook}groups = [\"db\"]"),
                "hook.groups",
                "[[group]]",
            ),
            (format!("{hook}user = \"a b\""), "hook.user", "letters"),
            (format!("{hook}{hook}"), "hook.name", "of its own"),
            (hook.replace("dns", "d/s"), "hook.name", "letters"),
            (
                hook.replace("/bin/true", "true"),
                "hook.command",
                "absolute",
            ),
            (
                format!("{alert}severity = \"high\""),
                "alert.severity",
                "critical",
            ),
            (format!("{alert}burst = 0"), "alert.burst", "1 to 1000"),
            (
                format!("{alert}header_file = \"token\""),
                "alert.header_file",
                "absolute",
            ),
            (
                "[[alert]]\nname = \"ops\"".to_owned(),
                "alert.name",
                "one way",
            ),
            (
                format!("{alert}mail = {{ command = [\"/bin/cat\"], to = \"a@b\" }}"),
                "alert.name",
                "one way",
            ),
            (
                "[[alert]]\nname = \"m\"\nmail = { command = [\"/bin/cat\"], to = \"a\" }"
                    .to_owned(),
                "alert.mail.to",
                "address",
            ),
        ] {
            let refusal = read(&table).expect_err(&table);
            assert!(
                refusal.contains(key) && refusal.contains(remedy),
                "{table}: {refusal}"
            );
        }
    }
}
