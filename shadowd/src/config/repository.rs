//! Where versions of profiles are kept beside the members, after validation.

use std::path::PathBuf;
use std::time::Duration;

/// The central repository of profiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositorySettings {
    /// Where it is.
    pub place: RepositoryPlace,
    /// What is there is listed this often: 10 s to 24 h.
    pub every: Duration,
}

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepositoryPlace {
    /// A directory.
    Directory {
        /// Which.
        path: PathBuf,
        /// It is shadowd's own, in its state directory, and made when it is missing.
        own: bool,
    },
    /// A bucket of a store that speaks S3.
    S3(S3Settings),
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Settings {
    /// Its name.
    pub bucket: String,
    /// What all keys begin with, without `/` at both ends; may be empty.
    pub prefix: String,
    /// Scheme, host and port of the store; none: the one of AWS in `region`.
    pub endpoint: Option<String>,
    /// What requests are signed for.
    pub region: String,
    /// The file with the keys; none: the environment has them.
    pub credentials: Option<PathBuf>,
}

impl RepositoryPlace {
    /// As it is written in the configuration. Holds no secret: none is allowed there.
    pub fn url(&self) -> String {
        match self {
            Self::Directory { path, .. } => format!("file://{}", path.display()),
            Self::S3(s3) => match s3.prefix.is_empty() {
                true => format!("s3://{}", s3.bucket),
                false => format!("s3://{}/{}", s3.bucket, s3.prefix),
            },
        }
    }
}
