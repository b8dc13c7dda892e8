//! `ready` and `profile`: what should be running, and whether this host could take over.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use super::client::{CallError, Client};
use super::decisions::group_of;
use super::failover::duration;
use super::restore::restore;
use super::time::{Moment, moment};
use super::{Failure, Screen, repeat, show};
use crate::facts::{Name, Readiness, Verdict};
use crate::serve::protocol::{
    self, ActOrder, Code, ExportedVersion, GroupReady, MAX_IMPORT_BYTES, PROFILE, PROFILE_ACCURACY,
    PROFILE_ACTS, PROFILE_DIFF, PROFILE_EXPORT, PROFILE_IMPORT, PROFILE_ORDER, PROFILE_REPOSITORY,
    PROFILE_VERSIONS, ProfileAccuracy, ProfileActs, ProfileDiff, ProfileOrder, ProfileOrderDone,
    ProfileRepository, ProfileVersions, READY, Ready, Refusal, ShownProfile, group_path,
    profile_path,
};

/// Arguments of `ready`.
#[derive(Clone, Debug, Args)]
pub struct ReadyArguments {
    /// The group; all groups of this host if left out
    pub group: Option<Name>,
    /// Every item, not only those that are not ready
    #[arg(long)]
    pub all: bool,
    /// Repetition.
    #[command(flatten)]
    pub watch: super::args::Watch,
}

/// A group that may be left out.
#[derive(Clone, Debug, Args)]
pub struct Of {
    /// The group; may be left out where this host is in one only
    #[arg(long, short, value_name = "GROUP")]
    pub group: Option<Name>,
}

/// The commands of `profile`.
#[derive(Clone, Debug, Subcommand)]
pub enum ProfileCommand {
    /// What should be running: units, packages, files, dependencies, needs
    #[command(after_help = "\
Without --version it is the version in use, and what is expected now by what was learned since. With a
time that is over it is the version that was in use then.

Examples:
  shadowctl profile show
  shadowctl profile show --at 03:00          what is expected at that time
  shadowctl profile show --at '2 days ago'   what was in use then
  shadowctl --json profile show | jq '.content.packages'")]
    Show {
        /// The group.
        #[command(flatten)]
        of: Of,
        /// Which version: its number, the first letters of its identity, `current`, `golden`
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
        /// What is expected at this time, and what was in use if it is over
        #[arg(long, value_name = "TIME", value_parser = moment)]
        at: Option<Moment>,
    },
    /// The versions that this host has, oldest first: who made them, when and why
    #[command(after_help = "\
Example:
  shadowctl profile history")]
    History(Of),
    /// What differs between two versions
    #[command(after_help = "\
Examples:
  shadowctl profile diff 3 current
  shadowctl profile diff golden current --group web")]
    Diff {
        /// From
        a: String,
        /// To
        b: String,
        /// The group.
        #[command(flatten)]
        of: Of,
    },
    /// How often the profile was right: precision, recall, coverage, errors
    #[command(after_help = "\
MASE is the error of the forecasts a day ahead by that of the reading a day before: below 1 is
better than that.

Example:
  shadowctl profile accuracy")]
    Accuracy(Of),
    /// Go back to what an earlier version had; on the active, as root
    #[command(after_help = "\
That is a new version with the content of the earlier one, and it is pinned: learning makes no other
until `profile unpin`.

Example:
  sudo shadowctl profile rollback 3")]
    Rollback {
        /// To which version
        version: String,
        /// The group.
        #[command(flatten)]
        of: Of,
    },
    /// Let learning make no other version; on the active, as root
    #[command(after_help = "\
Example:
  sudo shadowctl profile pin")]
    Pin(Of),
    /// Let learning go on; on the active, as root
    #[command(after_help = "\
Example:
  sudo shadowctl profile unpin")]
    Unpin(Of),
    /// Write a version to a file, as its author signed it
    #[command(after_help = "\
Example:
  shadowctl profile export --output web.profile")]
    Export {
        /// Which version
        #[arg(default_value = "current")]
        version: String,
        /// Into this file instead of the output
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The group.
        #[command(flatten)]
        of: Of,
    },
    /// Use the content of a version from a file; on the active, as root
    #[command(after_help = "\
The file has to be of this group and signed by one of its members.

Example:
  sudo shadowctl profile import web.profile")]
    Import {
        /// The file, `-` for standard input
        file: PathBuf,
        /// The group.
        #[command(flatten)]
        of: Of,
    },
    /// The version that shadows are brought back to
    #[command(subcommand)]
    Golden(GoldenCommand),
    /// How this host does with the central repository: reached or not, what waits, what was refused
    #[command(after_help = "\
Example:
  shadowctl profile repository")]
    Repository(Of),
    /// What shadowd did on this host to make it ready
    #[command(subcommand)]
    Provision(ProvisionCommand),
}

/// The commands of `profile provision`.
#[derive(Clone, Debug, Subcommand)]
pub enum ProvisionCommand {
    /// Show it, batch by batch
    #[command(after_help = "\
Example:
  shadowctl profile provision list")]
    List(Of),
    /// Take a batch back, the last act first; as root
    #[command(after_help = "\
It goes on by itself; `list` and `shadowctl events` show how it ends. Nothing more is done on this host
until `resume`.

Example:
  sudo shadowctl profile provision undo 3")]
    Undo {
        /// Number of the batch
        batch: u64,
        /// The group.
        #[command(flatten)]
        of: Of,
    },
    /// Go on making this host ready; as root
    #[command(after_help = "\
Example:
  sudo shadowctl profile provision resume")]
    Resume(Of),
}

/// The commands of `profile golden`.
#[derive(Clone, Debug, Subcommand)]
pub enum GoldenCommand {
    /// Choose the golden version; on the active, as root
    Set {
        /// Which version
        #[arg(default_value = "current")]
        version: String,
        /// The group.
        #[command(flatten)]
        of: Of,
    },
    /// Show it
    Show(Of),
    /// Make its content the one in use, and pin it; on the active, as root
    Apply(Of),
    /// Bring this shadow back to it, whatever its policy is, and compare; as root
    #[command(after_help = "\
Files, packages, units and kernel parameters are made what the golden version has, files only where
`replicate` of this host lets their contents in. Each act is shown as it ends, is on record in `profile
provision list` and can be undone. Ends with 0 if the host was then found to be as the version has it,
else with 1 and what is lacking. It goes on when this command is interrupted.

Where the version in use has another content, shadowd does nothing more on this host by itself until
`profile provision resume`.

Examples:
  sudo shadowctl profile golden restore
  sudo shadowctl profile golden restore --group web --within 30m")]
    Restore {
        /// The group.
        #[command(flatten)]
        of: Of,
        /// It ends after this, 10s to 1day
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        within: Option<Duration>,
    },
}

/// Whether this host could take over. Ends with 1 unless everything is ready.
pub(super) async fn ready(
    client: &Client,
    screen: &mut Screen<'_>,
    wanted: &ReadyArguments,
) -> Result<(), Failure> {
    let paint = screen.paint;
    if wanted.watch.watch.is_some() {
        return repeat(screen, wanted.watch.watch, async || {
            let answer = chosen(client, wanted).await?;
            let text = show::ready(&answer, wanted.all, paint);
            Ok((answer, text))
        })
        .await;
    }
    let answer = chosen(client, wanted).await?;
    let text = show::ready(&answer, wanted.all, paint);
    screen.show(&answer, text)?;
    let unproven = answer.groups.iter().find(|group| !is_ready(group));
    match unproven {
        None => Ok(()),
        Some(group) => Err(Failure::NotReady {
            group: group.group.clone(),
        }),
    }
}

/// What owns a group needs no proof.
fn is_ready(group: &GroupReady) -> bool {
    let verdict = group.readiness.as_ref().map(Readiness::verdict);
    group.owned_here || verdict == Some(Verdict::Ready)
}

async fn chosen(client: &Client, wanted: &ReadyArguments) -> Result<Ready, CallError> {
    let mut answer: Ready = client.get(READY).await?;
    if let Some(name) = &wanted.group {
        answer.groups.retain(|group| group.group == *name);
        if answer.groups.is_empty() {
            let message = format!("this host is no member of group {name}");
            let remedy = "see `shadowctl status` for its groups";
            return Err(CallError::Refused(Refusal::new(
                Code::UnknownGroup,
                message,
                remedy,
            )));
        }
    }
    Ok(answer)
}

/// Runs a command of `profile`.
pub(super) async fn run(
    client: &Client,
    screen: &mut Screen<'_>,
    command: ProfileCommand,
) -> Result<(), Failure> {
    match command {
        ProfileCommand::Show { of, version, at } => {
            shown(client, screen, &of, version.as_deref(), at).await
        }
        ProfileCommand::History(of) => {
            let path = group_path(
                PROFILE_VERSIONS,
                &group_of(client, of.group.as_ref()).await?,
            );
            let answer: ProfileVersions = client.get(&path).await?;
            let text = show::versions(&answer, screen.paint);
            screen.show(&answer, text)
        }
        ProfileCommand::Diff { a, b, of } => {
            let path = group_path(PROFILE_DIFF, &group_of(client, of.group.as_ref()).await?);
            let query = protocol::query(&[("a", &a), ("b", &b)]);
            let answer: ProfileDiff = client.get(&format!("{path}?{query}")).await?;
            let text = show::diff(&answer, screen.paint);
            screen.show(&answer, text)
        }
        ProfileCommand::Accuracy(of) => {
            let path = group_path(
                PROFILE_ACCURACY,
                &group_of(client, of.group.as_ref()).await?,
            );
            let answer: ProfileAccuracy = client.get(&path).await?;
            let text = show::accuracy(&answer, screen.paint);
            screen.show(&answer, text)
        }
        ProfileCommand::Repository(of) => {
            let path = group_path(
                PROFILE_REPOSITORY,
                &group_of(client, of.group.as_ref()).await?,
            );
            let answer: ProfileRepository = client.get(&path).await?;
            let text = show::repository(&answer, screen.paint);
            screen.show(&answer, text)
        }
        ProfileCommand::Export {
            version,
            output,
            of,
        } => export(client, screen, &of, &version, output.as_deref()).await,
        ProfileCommand::Import { file, of } => import(client, screen, &of, &file).await,
        ProfileCommand::Rollback { version, of } => {
            order(client, screen, &of, &ProfileOrder::Rollback { version }).await
        }
        ProfileCommand::Pin(of) => order(client, screen, &of, &ProfileOrder::Pin).await,
        ProfileCommand::Unpin(of) => order(client, screen, &of, &ProfileOrder::Unpin).await,
        ProfileCommand::Provision(command) => provision(client, screen, command).await,
        ProfileCommand::Golden(GoldenCommand::Set { version, of }) => {
            order(client, screen, &of, &ProfileOrder::GoldenSet { version }).await
        }
        ProfileCommand::Golden(GoldenCommand::Show(of)) => {
            shown(client, screen, &of, Some("golden"), None).await
        }
        ProfileCommand::Golden(GoldenCommand::Apply(of)) => {
            order(client, screen, &of, &ProfileOrder::GoldenApply).await
        }
        ProfileCommand::Golden(GoldenCommand::Restore { of, within }) => {
            restore(client, screen, &of, within).await
        }
    }
}

async fn provision(
    client: &Client,
    screen: &mut Screen<'_>,
    command: ProvisionCommand,
) -> Result<(), Failure> {
    let (of, order) = match command {
        ProvisionCommand::List(of) => (of, None),
        ProvisionCommand::Undo { batch, of } => (of, Some(ActOrder::Undo { batch })),
        ProvisionCommand::Resume(of) => (of, Some(ActOrder::Resume)),
    };
    let path = group_path(PROFILE_ACTS, &group_of(client, of.group.as_ref()).await?);
    let acts: ProfileActs = match order {
        None => client.get(&path).await?,
        Some(order) => client.post(&path, &order).await?,
    };
    let text = show::acts(&acts, screen.paint);
    screen.show(&acts, text)
}

async fn shown(
    client: &Client,
    screen: &mut Screen<'_>,
    of: &Of,
    version: Option<&str>,
    at: Option<Moment>,
) -> Result<(), Failure> {
    let group = group_of(client, of.group.as_ref()).await?;
    let at = at.map(|Moment(at)| at.to_string());
    let named = version.map(|version| ("version", version));
    let mut query: Vec<(&str, &str)> = named.into_iter().collect();
    query.extend(at.as_deref().map(|at| ("at", at)));
    let path = format!(
        "{}?{}",
        group_path(PROFILE, &group),
        protocol::query(&query)
    );
    let answer: ShownProfile = client.get(&path).await?;
    let text = show::profile(&answer, screen.paint);
    screen.show(&answer, text)
}

async fn order(
    client: &Client,
    screen: &mut Screen<'_>,
    of: &Of,
    order: &ProfileOrder,
) -> Result<(), Failure> {
    let path = group_path(PROFILE_ORDER, &group_of(client, of.group.as_ref()).await?);
    let done: ProfileOrderDone = client.post(&path, order).await?;
    let text = show::made(&done.version);
    screen.show(&done, text)
}

async fn export(
    client: &Client,
    screen: &mut Screen<'_>,
    of: &Of,
    version: &str,
    output: Option<&Path>,
) -> Result<(), Failure> {
    let group = group_of(client, of.group.as_ref()).await?;
    let path = profile_path(PROFILE_EXPORT, &group, version);
    let file: ExportedVersion = client.get(&path).await?;
    let mut text = serde_json::to_vec_pretty(&file).map_err(std::io::Error::from)?;
    text.push(b'\n');
    match output {
        Some(path) => fs::write(path, &text).map_err(|source| Failure::File {
            path: path.to_owned(),
            source,
        }),
        None => Ok(screen.out.write_all(&text)?),
    }
}

async fn import(
    client: &Client,
    screen: &mut Screen<'_>,
    of: &Of,
    file: &Path,
) -> Result<(), Failure> {
    let group = group_of(client, of.group.as_ref()).await?;
    let unreadable = |source| Failure::Unreadable {
        path: file.to_owned(),
        source,
    };
    let exported = read(file).map_err(unreadable)?;
    let exported: ExportedVersion = serde_json::from_slice(&exported)
        .map_err(|error| unreadable(std::io::Error::other(error)))?;
    let done: ProfileOrderDone = client
        .post(&group_path(PROFILE_IMPORT, &group), &exported)
        .await?;
    let text = show::made(&done.version);
    screen.show(&done, text)
}

/// At most as much as the daemon takes, and a byte, so that it says that it is too long.
fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = MAX_IMPORT_BYTES as u64 + 1;
    match file == Path::new("-") {
        true => std::io::stdin().take(most).read_to_end(&mut bytes)?,
        false => fs::File::open(file)?.take(most).read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}
