//! The Unix socket that `shadowctl` and other programs of this host talk to.
//!
//! [`protocol`] is what it says, [`Socket`] says it. The room answers from what the daemon hands
//! it through [`Answers`]; it reads no probe, sends no packet and changes no state itself.

mod decisions;
mod drill;
#[cfg(test)]
pub(crate) mod fuzz;
mod history;
mod hooks;
mod metrics;
mod policy;
mod profile;
pub mod protocol;
mod routes;
mod socket;

use std::future::Future;
use std::sync::Arc;

use crate::facts::{DrillReport, Event, LastNotice, Name, Observation, PolicyOrder, Status};
use protocol::{
    AtQuery, CoreNow, Decisions, Drills, HandoverDone, LiveRequest, OrderDone, Ready, Recorded,
    RecordedDecision, RecordedSum, Records, RecordsQuery, Refusal, SumQuery,
};

pub use metrics::{Metrics, MetricsBindError, MetricsListener};
pub use profile::{ProfileAnswer, ProfileQuestion};
pub use socket::{BindError, Counters, MAX_CONNECTIONS, REQUEST_TIMEOUT, Socket};

/// What the daemon knows and does, as the socket asks for it.
pub trait Answers: Send + Sync + 'static {
    /// The state now. Called on an async worker: must return at once.
    fn status(&self) -> Status;

    /// The newest observation; empty before the first. Called on an async worker: must return at
    /// once.
    fn observation(&self) -> Arc<Observation>;

    /// The newest `limit` (1 to 10,000) events with a number above `since`, oldest first. Called on
    /// a blocking thread: may read the disk.
    ///
    /// # Errors
    /// Why the record cannot be read, in words.
    fn events(&self, since: u64, limit: u32) -> Result<Vec<Event>, String>;

    /// What was observed at a moment. Called on a blocking thread: may read the disk.
    ///
    /// # Errors
    /// [`protocol::Code::NothingRecorded`], or why the history cannot be read.
    fn recorded_at(&self, query: AtQuery) -> Result<Recorded, Refusal>;

    /// Records between two moments, oldest first. Called on a blocking thread: may read the disk.
    ///
    /// # Errors
    /// [`protocol::Code::NothingRecorded`], or why the history cannot be read.
    fn records(&self, query: RecordsQuery) -> Result<Records, Refusal>;

    /// The sum of what was observed between two moments. Called on a blocking thread: may read the
    /// disk, for less than [`REQUEST_TIMEOUT`].
    ///
    /// # Errors
    /// [`protocol::Code::NothingRecorded`], or why the history cannot be read.
    fn recorded_sum(&self, query: SumQuery) -> Result<RecordedSum, Refusal>;

    /// The decisions of `group` that are kept. Called on a blocking thread: may read the disk.
    ///
    /// # Errors
    /// Why they cannot be read.
    fn decisions(&self, group: &Name) -> Result<Decisions, Refusal>;

    /// One of them with what led to it. Called on a blocking thread: may read the disk.
    ///
    /// # Errors
    /// [`protocol::Code::NothingRecorded`], or why it cannot be read.
    fn decision(&self, group: &Name, number: u64) -> Result<RecordedDecision, Refusal>;

    /// The core of `group` as it is now. The caller waits at most [`protocol::CORE_TIMEOUT`].
    ///
    /// # Errors
    /// [`protocol::Code::UnknownGroup`], or that the daemon is busy or stopping.
    fn core(&self, group: Name) -> impl Future<Output = Result<CoreNow, Refusal>> + Send;

    /// Tells the hook or the alert `receiver` a test; returns what came of it. The caller waits at
    /// most [`protocol::TEST_TIMEOUT`] and then drops the future; the test goes on.
    ///
    /// # Errors
    /// A refusal: why, and what to do.
    fn test_receiver(
        &self,
        receiver: Name,
    ) -> impl Future<Output = Result<LastNotice, Refusal>> + Send;

    /// Gives `group` to `to`, or to the best member when that is none; returns when the new owner
    /// is known.
    ///
    /// The caller waits at most [`protocol::HANDOVER_TIMEOUT`] and then drops the future, so what
    /// was begun must be able to end without it.
    ///
    /// # Errors
    /// A refusal: why, and what to do.
    fn handover(
        &self,
        group: Name,
        to: Option<Name>,
    ) -> impl Future<Output = Result<HandoverDone, Refusal>> + Send;

    /// Begins a drill of `group` on this host, isolated unless `live` says more; it goes on by
    /// itself.
    ///
    /// # Errors
    /// A refusal: why, and what to do.
    fn drill(
        &self,
        group: Name,
        live: Option<LiveRequest>,
    ) -> impl Future<Output = Result<DrillReport, Refusal>> + Send;

    /// Ends a live drill of `group`; returns when what it began has ended, as [`Self::handover`]
    /// does.
    ///
    /// # Errors
    /// A refusal: why, and what to do.
    fn end_drill(&self, group: Name) -> impl Future<Output = Result<OrderDone, Refusal>> + Send;

    /// What came of drills. Called on an async worker: must return at once.
    fn drills(&self) -> Drills;

    /// Whether this host could take its groups over. Called on an async worker: must return at once.
    fn ready(&self) -> Ready;

    /// What is known of the profile of `group`, or what an operator wants of it. The caller waits at
    /// most [`protocol::PROFILE_TIMEOUT`] and then drops the future.
    ///
    /// # Errors
    /// A refusal: why, and what to do.
    fn profile(
        &self,
        group: Name,
        question: ProfileQuestion,
    ) -> impl Future<Output = Result<ProfileAnswer, Refusal>> + Send;

    /// Takes an operator's order for `group`; returns when what it began has ended, as
    /// [`Self::handover`] does.
    ///
    /// # Errors
    /// A refusal: why, and what to do.
    fn order(
        &self,
        group: Name,
        order: PolicyOrder,
    ) -> impl Future<Output = Result<OrderDone, Refusal>> + Send;
}
