//! A window as bytes, and the same decisions once more from it.
//!
//! Bytes are not trusted: what does not decode, or could not have been a core, is an error.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::group::{Active, Group, State, Then, View};
use super::journal::{Entry, Window};
use crate::facts::{BootTime, Decision};

/// A longer window (bytes) is none.
pub const WINDOW_BYTES_MAX: usize = 4 << 20;
/// No group has more members, or more witnesses.
const MEMBERS_MAX: usize = 256;
/// No time of the settings is longer.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);
/// More actions than that wait in no core.
const WAITING_MAX: usize = 16_384;
/// Which shape the bytes have: to be raised when the state of the core changes its own.
const LAYOUT: u32 = 3;

/// Why bytes are no window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableWindow {
    /// They are too many.
    #[error("the recorded decision is too long")]
    TooLong,
    /// Another version wrote them.
    #[error("the decision was recorded by shadowd {version}, and this one cannot read it")]
    OtherVersion {
        /// Which.
        version: String,
    },
    /// They do not decode.
    #[error("the recorded decision is damaged")]
    Malformed(#[source] postcard::Error),
    /// No core was ever like that.
    #[error("the recorded decision is damaged: its state contradicts itself")]
    Unsound,
}

#[derive(Serialize, Deserialize)]
struct Head<'a> {
    layout: u32,
    version: Cow<'a, str>,
}

impl Window {
    /// As bytes.
    ///
    /// # Errors
    /// It cannot be encoded, which data alone can.
    pub fn to_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        let version = Cow::Borrowed(env!("CARGO_PKG_VERSION"));
        let layout = LAYOUT;
        let bytes = postcard::to_stdvec(&Head { layout, version })?;
        let mut bytes = postcard::to_extend(&self.checkpoint, bytes)?;
        bytes.extend_from_slice(&self.log);
        Ok(bytes)
    }

    /// The window of `decision` from its bytes.
    ///
    /// # Errors
    /// See [`UnreadableWindow`].
    pub fn from_bytes(decision: Decision, bytes: &[u8]) -> Result<Self, UnreadableWindow> {
        if bytes.len() > WINDOW_BYTES_MAX {
            return Err(UnreadableWindow::TooLong);
        }
        let (head, rest) =
            postcard::take_from_bytes::<Head<'_>>(bytes).map_err(UnreadableWindow::Malformed)?;
        if head.layout != LAYOUT || head.version != env!("CARGO_PKG_VERSION") {
            let version = head.version.chars().filter(|c| c.is_ascii_graphic());
            let version = version.take(32).collect();
            return Err(UnreadableWindow::OtherVersion { version });
        }
        let (checkpoint, log) =
            postcard::take_from_bytes::<Box<Group>>(rest).map_err(UnreadableWindow::Malformed)?;
        if !checkpoint.is_sound() {
            return Err(UnreadableWindow::Unsound);
        }
        let log = log.to_vec();
        Ok(Self {
            decision,
            checkpoint,
            log,
        })
    }

    /// What followed the checkpoint, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry<'static>, UnreadableWindow>> {
        let mut rest = self.log.as_slice();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            match postcard::take_from_bytes(rest) {
                Ok((entry, after)) => {
                    rest = after;
                    Some(Ok(entry))
                }
                Err(error) => {
                    rest = &[];
                    Some(Err(UnreadableWindow::Malformed(error)))
                }
            }
        })
    }
}

impl Group {
    /// Whether a core can be like this: every number that is used as an index is one, and no time
    /// is so long that reckoning with it would fail.
    pub(super) fn is_sound(&self) -> bool {
        let is_member = |index: usize| index < self.members.len();
        let state = match &self.state {
            State::Shadow(View::Follows { member, .. }) => is_member(*member),
            State::Active(Active {
                offer: Some(offer), ..
            }) => is_member(offer.to),
            State::Leaving {
                then: Then::Transfer { to, .. },
                ..
            } => is_member(*to),
            State::Joining { .. }
            | State::Shadow(View::Vacant { .. } | View::Asking(_))
            | State::Active(_)
            | State::Leaving { .. }
            | State::Stopped => true,
        };
        let settings = &self.settings;
        let times = [settings.heartbeat, settings.suspect_after, settings.lease];
        let lease = self.lease.as_ref().is_none_or(|lease| {
            let members = self.members.iter();
            let ballots = lease.ballots.len();
            lease.length.wanted() <= LONGEST
                && ballots <= 2 * MEMBERS_MAX
                && lease.has_majority()
                && ballots >= self.members.len()
                && members
                    .zip(&lease.ballots)
                    .all(|(one, two)| one.id == two.id)
        });
        state
            && lease
            && self.members.len() <= MEMBERS_MAX
            && times.iter().all(|time| *time <= LONGEST)
            && self.last_words.as_ref().is_none_or(|words| words.left > 0)
            && self.policy.changes < u64::MAX / 2
            && self.actions.len() <= WAITING_MAX
    }
}

/// What came of a replay.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Replayed {
    /// Inputs that were handed in again.
    pub inputs: u64,
    /// Actions that were the same.
    pub actions: u64,
    /// The decision itself was among them: a storm of messages may have pushed it out.
    pub decided: bool,
    /// The first thing that was not.
    pub difference: Option<Difference>,
}

/// Where a replay left what was recorded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// When: the time of the last input before.
    pub at: BootTime,
    /// What was recorded, if anything.
    pub recorded: Option<Action>,
    /// What the core wants now, if anything.
    pub replayed: Option<Action>,
}

/// Hands everything to the core again and compares what it wants, one by one, up to the first
/// difference.
///
/// # Errors
/// An entry does not decode.
pub fn replay(window: &Window) -> Result<Replayed, UnreadableWindow> {
    let mut core = window.checkpoint.clone();
    let mut replayed = Replayed::default();
    let mut at = BootTime::default();
    for entry in window.entries() {
        match entry? {
            Entry::Input(now, input) => {
                at = now;
                core.hear(input, now);
                replayed.inputs += 1;
                if core.actions.len() > WAITING_MAX {
                    break;
                }
            }
            Entry::Action(recorded) => {
                let wanted = core.poll_action();
                if wanted.as_ref() != Some(&*recorded) {
                    replayed.difference = Some(Difference {
                        at,
                        recorded: Some(recorded.into_owned()),
                        replayed: wanted,
                    });
                    return Ok(replayed);
                }
                replayed.actions += 1;
                if let Action::Record(record) = &*recorded {
                    let decision = &window.decision;
                    let same = record.at == decision.at && record.kind == decision.kind;
                    replayed.decided |= same;
                }
            }
        }
    }
    replayed.difference = core.poll_action().map(|wanted| Difference {
        at,
        recorded: None,
        replayed: Some(wanted),
    });
    Ok(replayed)
}
