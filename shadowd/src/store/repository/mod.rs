//! The central repository of versions: a directory, or a bucket of a store that speaks S3.
//!
//! A version lies under `GROUP/versions/NUMBER-IDENTITY`, in the form in which this host keeps it
//! ([`super::profiles::packed`]). Nothing is ever deleted, and nothing is believed: what comes back
//! is bounded in length and has to have the identity that it is called by; whose signature it bears
//! is for others to check. Each operation ends within [`WITHIN`]. This module tries nothing twice
//! and decides neither what is written nor when.

mod credentials;
mod http;
#[cfg(test)]
pub(crate) mod server;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectMeta, ObjectStore, PutMode, RetryConfig};

use super::profiles::{self, Source};
use crate::config::settings::{RepositoryPlace, S3Settings};
use crate::facts::{Listing, Name, Place, Signed, StoredObject, Version, VersionId};

pub use credentials::CredentialsError;

/// An operation takes no longer.
pub const WITHIN: Duration = Duration::from_secs(60);
/// A longer object (bytes) is no version: zstd makes what it cannot pack a little longer.
const OBJECT_MAX: u64 = Version::BYTES_MAX as u64 + 128 * 1_024;
/// So many names of one listing are read.
const NAMES_MAX: usize = 65_536;
/// Digits of the largest number.
const DIGITS: usize = 20;

/// Why an operation did not end well. Says nothing that is secret.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The directory is not there.
    #[error(
        "{} cannot be used: make the directory, and let the unit write to it (ReadWritePaths=)",
        .path.display()
    )]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Source,
    },
    /// The keys are not to be had.
    #[error(transparent)]
    Credentials(CredentialsError),
    /// Nobody answered, or something else than S3 did.
    #[error("the repository was not reached")]
    Unreached(#[source] Source),
    /// There was no end in time.
    #[error("the repository did not answer in time")]
    Late,
    /// It answers, and does not do it.
    #[error("the repository refuses")]
    Refused(#[source] Source),
}

impl RepositoryError {
    /// Whether it may be that nothing at all works at the moment.
    pub fn is_silence(&self) -> bool {
        match self {
            Self::Directory { .. } | Self::Credentials(_) | Self::Unreached(_) | Self::Late => true,
            Self::Refused(_) => false,
        }
    }
}

/// What an object was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// Bytes with the identity that it is called by.
    Signed(Signed),
    /// Something else; why.
    Bad(&'static str),
    /// It is not there.
    Gone,
}

/// The repository.
#[derive(Debug)]
pub struct RepositoryStore {
    place: RepositoryPlace,
    opened: Option<Arc<dyn ObjectStore>>,
}

impl RepositoryStore {
    /// The one at `place`; nothing is touched yet.
    pub const fn new(place: RepositoryPlace) -> Self {
        Self {
            place,
            opened: None,
        }
    }

    /// A view for one operation.
    ///
    /// # Errors
    /// The directory is not there, or nothing can be made of the settings.
    pub fn open(&mut self) -> Result<Opened, RepositoryError> {
        let (opened, prefix) = match &self.place {
            RepositoryPlace::Directory { path, own } => {
                let unusable = |source: Source| RepositoryError::Directory {
                    path: path.clone(),
                    source,
                };
                if *own {
                    own_directory(path).map_err(|error| unusable(error.into()))?;
                }
                // Each time: what was mounted there may be gone.
                let files = LocalFileSystem::new_with_prefix(path);
                let files = files.map_err(|error| unusable(error.into()))?;
                let files: Arc<dyn ObjectStore> = Arc::new(files.with_fsync(true));
                (files, Path::default())
            }
            RepositoryPlace::S3(s3) => {
                let opened = match &self.opened {
                    Some(opened) => Arc::clone(opened),
                    None => bucket(s3)?,
                };
                self.opened = Some(Arc::clone(&opened));
                (opened, Path::from(s3.prefix.as_str()))
            }
        };
        Ok(Opened {
            store: opened,
            prefix,
            is_directory: matches!(self.place, RepositoryPlace::Directory { .. }),
        })
    }
}

/// The repository, for one operation.
#[derive(Clone, Debug)]
pub struct Opened {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    is_directory: bool,
}

impl Opened {
    /// What is there of a group: of the numbers from `from` on the newest [`Listing::MAX`].
    ///
    /// # Errors
    /// See [`RepositoryError`].
    pub async fn list(&self, group: &Name, from: u64) -> Result<Listing, RepositoryError> {
        let folder = self.folder(group);
        // Less than every name with this number, and more than every one with a lower number.
        let before = folder.clone().join(format!("{from:0DIGITS$}"));
        let listed = async {
            let mut found = Listing {
                from,
                ..Listing::default()
            };
            let names = self.store.list_with_offset(Some(&folder), &before);
            let mut names = names.take(NAMES_MAX);
            while let Some(object) = names.next().await {
                match named(&folder, &object?) {
                    Some(object) => found.objects.push(object),
                    None => found.foreign += 1,
                }
                if found.objects.len() >= 2 * Listing::MAX {
                    newest(&mut found.objects);
                }
            }
            newest(&mut found.objects);
            Ok(found)
        };
        let listed = tokio::time::timeout(WITHIN, listed).await;
        let listed: Result<Listing, Error> = listed.map_err(|_| RepositoryError::Late)?;
        // A directory in which nothing was put yet has none of the group's.
        match listed {
            Err(Error::NotFound { .. }) if self.is_directory => Ok(Listing {
                from,
                ..Listing::default()
            }),
            listed => listed.map_err(|error| self.explain(error, true)),
        }
    }

    /// Writes a version. One that is there is left as it is, unless `replace`.
    ///
    /// # Errors
    /// See [`RepositoryError`]; what was there is whole, or the new one is.
    pub async fn put(
        &self,
        group: &Name,
        place: Place,
        signed: &Signed,
        replace: bool,
    ) -> Result<(), RepositoryError> {
        let packed = profiles::packed(signed).map_err(RepositoryError::Refused)?;
        let key = self.key(group, place);
        let put = |mode: PutMode| {
            self.store
                .put_opts(&key, packed.clone().into(), mode.into())
        };
        let put = async {
            if replace {
                return put(PutMode::Overwrite).await.map(drop);
            }
            match put(PutMode::Create).await {
                Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(()),
                // A store without conditional writes; whoever writes this name writes the same.
                Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                    put(PutMode::Overwrite).await.map(drop)
                }
                Err(error) => Err(error),
            }
        };
        let put = tokio::time::timeout(WITHIN, put).await;
        put.map_err(|_| RepositoryError::Late)?
            .map_err(|error| self.explain(error, false))
    }

    /// Reads what is called so.
    ///
    /// # Errors
    /// See [`RepositoryError`].
    pub async fn get(&self, group: &Name, place: Place) -> Result<Object, RepositoryError> {
        let key = self.key(group, place);
        let read = async {
            let got = self.store.get_opts(&key, GetOptions::default()).await?;
            if got.meta.size > OBJECT_MAX {
                return Ok(None);
            }
            got.bytes().await.map(Some)
        };
        let read = tokio::time::timeout(WITHIN, read).await;
        match read.map_err(|_| RepositoryError::Late)? {
            Ok(None) => Ok(Object::Bad("it is too long")),
            Ok(Some(bytes)) => Ok(match profiles::unpacked(&bytes, &place.id) {
                Some(signed) => Object::Signed(signed),
                None => Object::Bad("it is damaged"),
            }),
            Err(Error::NotFound { .. }) => Ok(Object::Gone),
            Err(error) => Err(self.explain(error, false)),
        }
    }

    fn folder(&self, group: &Name) -> Path {
        self.prefix.clone().join(group.as_str()).join("versions")
    }

    fn key(&self, group: &Name, place: Place) -> Path {
        self.folder(group).join(file_name(place))
    }

    /// Of a directory that is there, what fails for one file fails for that file.
    fn explain(&self, error: Error, is_list: bool) -> RepositoryError {
        if let Some(refused) = CredentialsError::within(&error) {
            return RepositoryError::Credentials(refused);
        }
        match error {
            Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::NotFound { .. }
            | Error::Precondition { .. }
            | Error::NotSupported { .. }
            | Error::NotImplemented { .. }
            | Error::InvalidPath { .. } => RepositoryError::Refused(error.into()),
            error if self.is_directory && !is_list => RepositoryError::Refused(error.into()),
            error => RepositoryError::Unreached(error.into()),
        }
    }
}

/// How a version is called.
pub(super) fn file_name(Place { number, id }: Place) -> String {
    format!("{number:0DIGITS$}-{id}")
}

/// The version that somebody called so; none for what is no such name.
pub(super) fn place_of(name: &str) -> Option<Place> {
    let (number, id) = name.split_once('-')?;
    let number = number.parse().ok()?;
    let id: VersionId = id.parse().ok()?;
    let place = Place { number, id };
    (file_name(place) == name).then_some(place)
}

fn named(folder: &Path, object: &ObjectMeta) -> Option<StoredObject> {
    let mut parts = object.location.prefix_match(folder)?;
    let (name, rest) = (parts.next()?, parts.next());
    let place = place_of(name.as_ref()).filter(|_| rest.is_none())?;
    Some(StoredObject {
        place,
        stamp: stamp(object),
        fits: object.size <= OBJECT_MAX,
    })
}

/// One number of all that tells one content from another.
fn stamp(object: &ObjectMeta) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&object.size.to_le_bytes());
    hasher.update(&object.last_modified.timestamp_micros().to_le_bytes());
    hasher.update(object.e_tag.as_deref().unwrap_or_default().as_bytes());
    let mut stamp = [0; 8];
    hasher.finalize_xof().fill(&mut stamp);
    u64::from_le_bytes(stamp)
}

/// Keeps those with the highest numbers, in order.
fn newest(objects: &mut Vec<StoredObject>) {
    objects.sort_by_key(|object| object.place);
    let too_many = objects.len().saturating_sub(Listing::MAX);
    objects.drain(..too_many);
}

/// Profiles say much of a host: nobody else looks in.
fn own_directory(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = std::fs::DirBuilder::new();
    match builder.mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn bucket(s3: &S3Settings) -> Result<Arc<dyn ObjectStore>, RepositoryError> {
    let once = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&s3.bucket)
        .with_region(&s3.region)
        .with_retry(once)
        .with_http_connector(http::Connector::new())
        .with_credentials(Arc::new(credentials::Credentials::new(
            s3.credentials.clone(),
        )));
    if let Some(endpoint) = &s3.endpoint {
        builder = builder
            .with_endpoint(endpoint)
            .with_allow_http(endpoint.starts_with("http://"));
    }
    let bucket = builder.build();
    Ok(Arc::new(bucket.map_err(|error| {
        RepositoryError::Unreached(error.into())
    })?))
}

#[cfg(test)]
mod tests;
