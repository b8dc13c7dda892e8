//! The central repository of profiles: where it is, and how it is reached.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use hyper::Uri;
use toml::Spanned;

use super::{Checked, Source};
use crate::config::error::{ConfigError, line_of};
use crate::config::file;
use crate::config::repository::{RepositoryPlace, RepositorySettings, S3Settings};

/// The directory below the state directory, unless another place is written.
const OWN: &str = "repository";
/// A longer prefix leaves too little of the 1,024 bytes of a key.
const MAX_PREFIX: usize = 256;
const SECOND: Duration = Duration::from_secs(1);
const FORMS: &str = "\"file:///DIRECTORY\" or \"s3://BUCKET/PREFIX\", without user, password and query; \
                     sync = false switches it off";

impl Source<'_> {
    /// What `[repository]` says; none when it is off.
    pub(super) fn repository(
        &self,
        table: &file::Repository,
        state_dir: &Path,
    ) -> Checked<Option<RepositorySettings>> {
        let every = self.duration(
            "repository.every",
            table.every.as_ref(),
            60 * SECOND,
            10 * SECOND..=24 * 3_600 * SECOND,
        )?;
        let place = self.place(table, state_dir)?;
        if let RepositoryPlace::Directory { .. } = place {
            self.no_key_of_s3(table)?;
        }
        let settings = RepositorySettings { place, every };
        Ok(table.sync.unwrap_or(true).then_some(settings))
    }

    fn place(&self, table: &file::Repository, state_dir: &Path) -> Checked<RepositoryPlace> {
        let Some(url) = &table.url else {
            return Ok(RepositoryPlace::Directory {
                path: state_dir.join(OWN),
                own: true,
            });
        };
        let text = url.get_ref().as_str();
        if let Some(path) = text.strip_prefix("file://") {
            return Ok(RepositoryPlace::Directory {
                path: self.directory(url, path)?,
                own: false,
            });
        }
        let rest = text
            .strip_prefix("s3://")
            .ok_or_else(|| self.not_shown(url))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        let named =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(named) {
            return Err(self.not_shown(url));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        let empty = |part: &str| matches!(part, "" | "." | "..");
        let bad = !prefix.bytes().all(plain) || prefix.split('/').any(empty);
        if prefix.len() > MAX_PREFIX || (!prefix.is_empty() && bad) {
            return Err(self.not_shown(url));
        }
        Ok(RepositoryPlace::S3(S3Settings {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: self.endpoint(table)?,
            region: self.region(table)?,
            credentials: self.credentials(table)?,
        }))
    }

    /// Somebody may have written a key into it, so a refusal does not quote it.
    fn not_shown(&self, url: &Spanned<String>) -> ConfigError {
        ConfigError::Value {
            path: self.path.to_owned(),
            line: line_of(self.text, &url.span()),
            key: "repository.url",
            value: "(not shown)".to_owned(),
            allowed: FORMS.to_owned(),
        }
    }

    fn directory(&self, url: &Spanned<String>, path: &str) -> Checked<PathBuf> {
        let parts = Path::new(path).components();
        let plain = parts
            .skip(1)
            .all(|part| matches!(part, Component::Normal(_)));
        let odd = |letter: char| letter.is_control() || "%?#".contains(letter);
        if !path.starts_with('/') || path.len() < 2 || !plain || path.contains(odd) {
            let allowed = "file:// and an absolute path without `..`, %, ? and #, such as \
                           \"file:///srv/shadowd\"";
            return Err(self.refuse("repository.url", url, allowed));
        }
        Ok(PathBuf::from(path))
    }

    fn endpoint(&self, table: &file::Repository) -> Checked<Option<String>> {
        let Some(written) = &table.endpoint else {
            return Ok(None);
        };
        let forms = "http://HOST[:PORT] or https://..., without user, password, path and query";
        let refusal = || ConfigError::Value {
            path: self.path.to_owned(),
            line: line_of(self.text, &written.span()),
            key: "repository.endpoint",
            value: "(not shown)".to_owned(),
            allowed: forms.to_owned(),
        };
        let uri: Uri = written.get_ref().parse().map_err(|_| refusal())?;
        let authority = uri.authority().ok_or_else(refusal)?;
        let rest = uri.path_and_query().map_or("/", |rest| rest.as_str());
        if authority.as_str().contains('@') || authority.host().is_empty() || rest != "/" {
            return Err(refusal());
        }
        let allowed = match (uri.scheme_str(), table.allow_http.unwrap_or(false)) {
            (Some("https"), _) => None,
            (Some("http"), false) => Some(
                "https://..., or allow_http = true beside it: over http whoever is on the way reads \
                 profiles",
            ),
            (Some("http"), true) if !is_near(authority.host()) => {
                Some("https://...; http only to localhost and to addresses of private networks")
            }
            (Some("http"), true) => None,
            _ => return Err(refusal()),
        };
        match allowed {
            Some(allowed) => Err(self.refuse("repository.endpoint", written, allowed)),
            None => Ok(Some(format!(
                "{}://{authority}",
                uri.scheme_str().unwrap_or("https")
            ))),
        }
    }

    fn region(&self, table: &file::Repository) -> Checked<String> {
        let Some(written) = &table.region else {
            return Ok("us-east-1".to_owned());
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let text = written.get_ref();
        match (1..=64).contains(&text.len()) && text.bytes().all(plain) {
            true => Ok(text.clone()),
            false => {
                let allowed = "a region, such as \"eu-central-1\"; most stores that are not AWS \
                               take \"us-east-1\"";
                Err(self.refuse("repository.region", written, allowed))
            }
        }
    }

    fn credentials(&self, table: &file::Repository) -> Checked<Option<PathBuf>> {
        match &table.credentials {
            None => Ok(None),
            written => Ok(Some(self.absolute(
                "repository.credentials",
                written.as_ref(),
                "",
            )?)),
        }
    }

    /// What a directory has no use for was meant for something else.
    fn no_key_of_s3(&self, table: &file::Repository) -> Checked<()> {
        let allowed = "only with url = \"s3://BUCKET/PREFIX\"";
        let texts = [
            ("repository.endpoint", &table.endpoint),
            ("repository.region", &table.region),
            ("repository.credentials", &table.credentials),
        ];
        for (key, written) in texts {
            if let Some(written) = written {
                return Err(self.refuse(key, written, allowed));
            }
        }
        Ok(())
    }
}

/// Whether only this host, or a network that its operator owns, lies on the way.
fn is_near(host: &str) -> bool {
    if host == "localhost" {
        return true;
    }
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(address)) => {
            address.is_loopback() || address.is_private() || address.is_link_local()
        }
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn read(table: &str) -> Result<Option<RepositorySettings>, String> {
        let example = include_str!("../../../../packaging/shadowd.toml");
        let text = format!("{example}\n[repository]\n{table}\n");
        parse(&text, Path::new("x"))
            .map(|settings| settings.repository)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_word_it_is_a_directory_of_shadowds_own() {
        let settings = read("").unwrap().unwrap();
        let place = RepositoryPlace::Directory {
            path: "/var/lib/shadowd/repository".into(),
            own: true,
        };
        assert_eq!(settings.place, place);
        assert_eq!(settings.every, 60 * SECOND);
        assert_eq!(read("sync = false").unwrap(), None);
    }

    #[test]
    fn a_place_is_taken_apart() {
        let place = |table: &str| read(table).unwrap().unwrap().place;
        let srv = place("url = \"file:///srv/shadowd profiles\"");
        assert_eq!(srv.url(), "file:///srv/shadowd profiles");
        let s3 = place(
            "url = \"s3://profiles/eu/web/\"\nendpoint = \"http://127.0.0.1:9000\"\n\
             allow_http = true\nregion = \"garage\"\ncredentials = \"/etc/shadowd/s3\"",
        );
        let RepositoryPlace::S3(settings) = &s3 else {
            panic!("{s3:?}")
        };
        assert_eq!(
            (settings.bucket.as_str(), settings.prefix.as_str()),
            ("profiles", "eu/web")
        );
        assert_eq!(settings.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!(settings.credentials, Some("/etc/shadowd/s3".into()));
        assert_eq!(s3.url(), "s3://profiles/eu/web");
        assert_eq!(place("url = \"s3://profiles\"").url(), "s3://profiles");
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_quoted() {
        for (table, named) in [
            ("every = \"1s\"", "repository.every"),
            ("url = \"\"", "repository.url"),
            ("url = \"file://srv\"", "repository.url"),
            ("url = \"file:///\"", "repository.url"),
            ("url = \"file:///srv/../etc\"", "repository.url"),
            ("url = \"http://x/y\"", "repository.url"),
            ("url = \"s3://x\"", "repository.url"),
            ("url = \"s3://bucket/a/../b\"", "repository.url"),
            ("url = \"s3://sesame:sesame@bucket\"", "repository.url"),
            ("url = \"s3://bucket/x?secret=sesame\"", "repository.url"),
            ("region = \"x\"", "repository.region"),
            (
                "url = \"s3://bucket\"\nregion = \"a b\"",
                "repository.region",
            ),
            (
                "url = \"s3://bucket\"\ncredentials = \"s3\"",
                "repository.credentials",
            ),
            (
                "url = \"s3://bucket\"\nendpoint = \"x\"",
                "repository.endpoint",
            ),
            (
                "url = \"s3://bucket\"\nendpoint = \"https://sesame@x\"",
                "repository.endpoint",
            ),
            (
                "url = \"s3://bucket\"\nendpoint = \"https://x/?sesame\"",
                "repository.endpoint",
            ),
            (
                "url = \"s3://bucket\"\nendpoint = \"http://127.0.0.1:1\"",
                "allow_http = true",
            ),
            (
                "url = \"s3://bucket\"\nendpoint = \"http://192.0.2.1:1\"\nallow_http = true",
                "private networks",
            ),
            ("secret = \"x\"", "unknown field"),
        ] {
            let error = read(table).err().unwrap_or_default();
            assert!(error.contains(named), "{table}: {error}");
            assert!(!error.contains("sesame"), "{error}");
        }
    }
}
