//! The paths of decisions. Anybody who may ask for the status may ask for them.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;

use super::Answers;
use super::protocol::{self, Code, Refusal};
use super::routes::{Shared, json};
use crate::facts::Name;

pub(super) fn router<A: Answers>() -> Router<Shared<A>> {
    Router::new()
        .route(protocol::DECISIONS, get(decisions::<A>))
        .route(protocol::DECISION, get(decision::<A>))
        .route(protocol::CORE, get(core::<A>))
}

fn bad(message: String) -> Refusal {
    let remedy = "ask for /v1/groups/GROUP/decisions, or one of them by its number";
    Refusal::new(Code::BadRequest, message, remedy)
}

fn group_of(text: &str) -> Result<Name, Refusal> {
    text.parse().map_err(|error| bad(format!("group: {error}")))
}

async fn decisions<A: Answers>(
    State(shared): State<Shared<A>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(group) = path.map_err(|error| bad(error.body_text()))?;
    let group = group_of(&group)?;
    read(shared, move |answers| answers.decisions(&group)).await
}

async fn decision<A: Answers>(
    State(shared): State<Shared<A>>,
    path: Result<Path<(String, u64)>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path((group, number)) = path.map_err(|error| bad(error.body_text()))?;
    let group = group_of(&group)?;
    read(shared, move |answers| answers.decision(&group, number)).await
}

async fn core<A: Answers>(
    State(shared): State<Shared<A>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(group) = path.map_err(|error| bad(error.body_text()))?;
    let core = shared.answers.core(group_of(&group)?);
    match tokio::time::timeout(protocol::CORE_TIMEOUT, core).await {
        Ok(core) => core.map(|core| json(&core)),
        Err(_) => Err(Refusal::new(
            Code::TimedOut,
            "the failover loop did not answer in time",
            "see `journalctl -u shadowd`",
        )),
    }
}

/// Lets `ask` read the disk, on a thread that may wait for it.
async fn read<A: Answers, T: Serialize + Send + 'static>(
    shared: Shared<A>,
    ask: impl FnOnce(&A) -> Result<T, Refusal> + Send + 'static,
) -> Result<Response, Refusal> {
    let answers = Arc::clone(&shared.answers);
    let read = tokio::task::spawn_blocking(move || ask(&answers).map(|answer| json(&answer)));
    read.await.map_err(|_| {
        let message = "reading the decisions failed";
        Refusal::new(Code::Failed, message, "see `journalctl -u shadowd`")
    })?
}
