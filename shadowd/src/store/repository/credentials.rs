//! The keys of an S3 store: from a file of root's, or from the daemon's environment.
//!
//! They are read anew for each request, so that they can be changed without a restart. They reach
//! no log, no error and no other place. Nobody else is asked for keys: no metadata service, no
//! profile of the AWS tools.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

use crate::config::secret::{self, SecretError};

/// Why there are no keys.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file is not read.
    #[error(transparent)]
    File(#[from] SecretError),
    /// The file holds something else.
    #[error(
        "{} does not hold the lines `access_key_id = ...` and `secret_access_key = ...`",
        .path.display()
    )]
    Unfit {
        /// The file.
        path: PathBuf,
    },
    /// Nobody named a file, and the environment has none.
    #[error(
        "no credentials: write repository.credentials, or AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY into an EnvironmentFile= of the unit"
    )]
    Absent,
}

impl CredentialsError {
    /// The one that `error` was made from.
    pub(super) fn within(error: &object_store::Error) -> Option<Self> {
        let first: &(dyn std::error::Error + 'static) = error;
        let mut sources = std::iter::successors(Some(first), |error| error.source());
        sources.find_map(|error| error.downcast_ref().cloned())
    }
}

/// Where the keys are.
#[derive(Debug)]
pub(super) struct Credentials {
    file: Option<PathBuf>,
}

impl Credentials {
    pub(super) const fn new(file: Option<PathBuf>) -> Self {
        Self { file }
    }

    fn read(&self) -> Result<AwsCredential, CredentialsError> {
        match &self.file {
            Some(path) => from_file(path),
            None => {
                let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
                Ok(AwsCredential {
                    key_id: variable("AWS_ACCESS_KEY_ID").ok_or(CredentialsError::Absent)?,
                    secret_key: variable("AWS_SECRET_ACCESS_KEY")
                        .ok_or(CredentialsError::Absent)?,
                    token: variable("AWS_SESSION_TOKEN"),
                })
            }
        }
    }
}

#[async_trait::async_trait]
impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let read = self.read().map_err(|error| object_store::Error::Generic {
            store: "S3",
            source: Box::new(error),
        })?;
        Ok(Arc::new(read))
    }
}

fn from_file(path: &Path) -> Result<AwsCredential, CredentialsError> {
    let text = secret::read(path)?;
    parse(&text).ok_or_else(|| CredentialsError::Unfit {
        path: path.to_owned(),
    })
}

/// Lines `key = value`; `aws_` before a key, comments and sections are as the AWS tools have them.
fn parse(text: &str) -> Option<AwsCredential> {
    let value = |wanted: &str| {
        let lines = text.lines().map(str::trim);
        let mut lines = lines.filter(|line| !line.starts_with(['#', ';', '[']));
        lines.find_map(|line| {
            let (key, value) = line.split_once('=')?;
            let key = key.trim().trim_start_matches("aws_");
            let value = value.trim().trim_matches('"');
            (key == wanted && !value.is_empty()).then(|| value.to_owned())
        })
    };
    Some(AwsCredential {
        key_id: value("access_key_id")?,
        secret_key: value("secret_access_key")?,
        token: value("session_token"),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_read_from_lines_and_shown_by_nothing() {
        let text = "# of the bucket\n[default]\naws_access_key_id = AKIA\n\
                    secret_access_key=\"sesame\"\n";
        let read = parse(text).expect("it has both");
        assert_eq!(
            (read.key_id.as_str(), read.secret_key.as_str()),
            ("AKIA", "sesame")
        );
        assert_eq!(read.token, None);
        assert!(!format!("{read:?}").contains("sesame"));
        assert!(parse("access_key_id = AKIA\nsecret_access_key =\n").is_none());
        assert!(parse("sesame").is_none());
    }

    #[test]
    fn a_file_without_keys_is_told_without_what_it_says() {
        let name = format!("shadowd-s3-credentials-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, "access_key_id = AKIA\nsecret_access_key = sesame\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(from_file(&path).unwrap().key_id, "AKIA");
        std::fs::write(&path, "sesame").unwrap();
        let unfit = from_file(&path).unwrap_err().to_string();
        assert!(unfit.contains("access_key_id") && !unfit.contains("sesame"));
        std::fs::remove_file(&path).unwrap();
        let gone = from_file(&path).unwrap_err();
        assert!(matches!(gone, CredentialsError::File(_)), "{gone}");
    }
}
