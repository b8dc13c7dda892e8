//! How a version is written, and what of foreign bytes is believed.
//!
//! The canonical bytes are a magic, the number of the format and the version in postcard, whose maps
//! and sets are in order: one version has one encoding, and its hash is its identity.

use crate::facts::{FileFact, FileKind, Need, PackageFact, Profile, UnitProfile, Version, is_word};

/// What every version begins with.
const MAGIC: &[u8; 4] = b"SHPV";
/// The format that is written.
const FORMAT: u16 = 1;
/// Names, paths and values are no longer (bytes): `PATH_MAX`.
const TEXT_MAX: usize = 4_096;

/// Why bytes are no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableVersion {
    /// They are too many.
    #[error("{0} bytes are more than a version has")]
    TooLong(usize),
    /// They begin with something else.
    #[error("this is no version of a profile")]
    Foreign,
    /// A newer shadowd wrote them.
    #[error("format {0} is newer than this shadowd, which reads up to {FORMAT}: update it")]
    Newer(u16),
    /// They do not decode, or not all of them.
    #[error("the version is damaged or cut off")]
    Damaged,
    /// Written otherwise the same version would have another identity.
    #[error("the version is not written in the one way there is")]
    NotCanonical,
    /// A path is not absolute, or leads elsewhere.
    #[error("the path {0:?} is not a plain absolute one")]
    Path(String),
    /// A program would take the name of a unit or a package, or a version, for something else.
    #[error("{0:?} is neither a unit nor a package nor a version")]
    Name(String),
    /// A limit or a kernel parameter is written as none is.
    #[error("{0:?} is no setting")]
    Setting(String),
    /// A text is too long.
    #[error("a text of {0} bytes is longer than {TEXT_MAX}")]
    Text(usize),
    /// A number is none.
    #[error("a need of {0} is no number")]
    Number(String),
    /// No line has a version of this number.
    #[error("{0} is no number of a version: they begin with 1")]
    Place(u64),
    /// Permission bits that there are not.
    #[error("{path} has the mode {mode:o}")]
    Mode {
        /// Of what.
        path: String,
        /// Which.
        mode: u32,
    },
}

/// The canonical bytes.
///
/// # Errors
/// None but for a version that is too long.
pub fn encode(version: &Version) -> Result<Vec<u8>, UnreadableVersion> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&FORMAT.to_be_bytes());
    let bytes = postcard::to_extend(version, head).map_err(|_| UnreadableVersion::Damaged)?;
    match bytes.len() <= Version::BYTES_MAX {
        true => Ok(bytes),
        false => Err(UnreadableVersion::TooLong(bytes.len())),
    }
}

/// The version in `bytes`, which may come from anybody.
///
/// # Errors
/// See [`UnreadableVersion`].
pub fn decode(bytes: &[u8]) -> Result<Version, UnreadableVersion> {
    if bytes.len() > Version::BYTES_MAX {
        return Err(UnreadableVersion::TooLong(bytes.len()));
    }
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or(UnreadableVersion::Foreign)?;
    let (format, rest) = rest.split_first_chunk().ok_or(UnreadableVersion::Damaged)?;
    let format = u16::from_be_bytes(*format);
    if format > FORMAT {
        return Err(UnreadableVersion::Newer(format));
    }
    let (version, rest): (Version, _) =
        postcard::take_from_bytes(rest).map_err(|_| UnreadableVersion::Damaged)?;
    if format != FORMAT || !rest.is_empty() {
        return Err(UnreadableVersion::Damaged);
    }
    if encode(&version)? != bytes {
        return Err(UnreadableVersion::NotCanonical);
    }
    if !(1..=Version::NUMBER_MAX).contains(&version.number) {
        return Err(UnreadableVersion::Place(version.number));
    }
    sound(&version.profile)?;
    Ok(version)
}

/// Whether what is said of paths, texts and numbers can be.
fn sound(profile: &Profile) -> Result<(), UnreadableVersion> {
    let content = &profile.content;
    for (path, fact) in &content.files {
        file(path, fact)?;
    }
    for (name, one) in &content.units {
        unit(name, one)?;
    }
    for (name, one) in &content.packages {
        package(name, one)?;
    }
    for (name, value) in &content.parameters {
        parameter(name, value)?;
    }
    for ((unit, kind), need) in &profile.needs {
        if !is_number(need) {
            return Err(UnreadableVersion::Number(format!("{unit}, {kind:?}")));
        }
    }
    Ok(())
}

/// Whether a need is one.
pub fn is_number(need: &Need) -> bool {
    need.median.is_finite() && need.peak.is_finite()
}

/// A file as a version may have it.
///
/// # Errors
/// No version with it would be believed.
pub fn file(path: &str, fact: &FileFact) -> Result<(), UnreadableVersion> {
    plain(path)?;
    if fact.mode > 0o7777 {
        let (path, mode) = (path.to_owned(), fact.mode);
        return Err(UnreadableVersion::Mode { path, mode });
    }
    match &fact.kind {
        FileKind::Link { target: text } | FileKind::Unreadable { why: text } => short(text)?,
        FileKind::Regular { .. } | FileKind::Directory => {}
    }
    short(&fact.owner)?;
    short(&fact.group)
}

/// A unit as a version may have it.
///
/// # Errors
/// No version with it would be believed.
pub fn unit(name: &str, unit: &UnitProfile) -> Result<(), UnreadableVersion> {
    named(name)?;
    short(&unit.enabled)?;
    let paths = unit.programs.keys().chain(&unit.reads);
    for path in paths.chain(&unit.defined_by) {
        plain(path)?;
    }
    for dependency in &unit.dependencies {
        short(&dependency.remote)?;
    }
    for (name, value) in &unit.limits {
        limit(name, value)?;
    }
    for name in unit.environment.keys() {
        short(name)?;
    }
    Ok(())
}

/// A limit of a unit as a version may have it.
///
/// # Errors
/// It is more than one line of a file.
pub fn limit(name: &str, value: &str) -> Result<(), UnreadableVersion> {
    one_line(name)?;
    one_line(value)
}

/// A package as a version may have it.
///
/// # Errors
/// No version with it would be believed.
pub fn package(name: &str, package: &PackageFact) -> Result<(), UnreadableVersion> {
    named(name)?;
    named(&package.version)?;
    short(&package.architecture)
}

/// A kernel parameter as a version may have it, written with dots or with slashes (sysctl(8)).
///
/// # Errors
/// No version with it would be believed.
pub fn parameter(name: &str, value: &str) -> Result<(), UnreadableVersion> {
    short(name)?;
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let begins = |c: char| c.is_ascii_alphanumeric();
    match name.starts_with(begins) && name.chars().all(legal) && !name.contains("..") {
        true => one_line(value),
        false => Err(UnreadableVersion::Setting(name.to_owned())),
    }
}

/// Whether a path leads where it says.
pub fn is_plain(path: &str) -> bool {
    plain(path).is_ok()
}

/// A path that leads where it says: absolute, and no part of it goes back or is empty.
///
/// # Errors
/// It is another, or too long.
pub fn plain(path: &str) -> Result<(), UnreadableVersion> {
    short(path)?;
    let bad = || UnreadableVersion::Path(path.to_owned());
    let rest = path.strip_prefix('/').ok_or_else(bad)?;
    let goes_astray = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
    match rest.split('/').any(goes_astray) {
        true => Err(bad()),
        false => Ok(()),
    }
}

/// What programs are told as an argument.
fn named(text: &str) -> Result<(), UnreadableVersion> {
    short(text)?;
    match is_word(text) {
        true => Ok(()),
        false => Err(UnreadableVersion::Name(text.to_owned())),
    }
}

/// What is written into a line of a file: a second line would be another setting.
fn one_line(text: &str) -> Result<(), UnreadableVersion> {
    short(text)?;
    match text.chars().any(char::is_control) {
        true => Err(UnreadableVersion::Setting(text.to_owned())),
        false => Ok(()),
    }
}

/// A text that nothing is made of.
///
/// # Errors
/// It is too long.
pub fn short(text: &str) -> Result<(), UnreadableVersion> {
    match text.len() <= TEXT_MAX {
        true => Ok(()),
        false => Err(UnreadableVersion::Text(text.len())),
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
pub(super) mod tests;
