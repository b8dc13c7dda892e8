//! The paths of recorded observations. Reading takes time and memory, so only few read at once.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::Answers;
use super::protocol::{self, AtQuery, Code, RecordsQuery, Refusal, SumQuery};
use super::routes::{Shared, json};

/// So many read at once; the others wait for their turn.
static READS: Semaphore = Semaphore::const_new(2);

pub(super) fn router<A: Answers>() -> Router<Shared<A>> {
    Router::new()
        .route(protocol::HISTORY_AT, get(at::<A>))
        .route(protocol::HISTORY_RECORDS, get(records::<A>))
        .route(protocol::HISTORY_SUM, get(sum::<A>))
}

async fn at<A: Answers>(
    State(shared): State<Shared<A>>,
    query: Result<Query<AtQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let query = understood(query, "send wall_ms= (ms since 1970)")?;
    read(shared, move |answers| answers.recorded_at(query)).await
}

async fn records<A: Answers>(
    State(shared): State<Shared<A>>,
    query: Result<Query<RecordsQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let expected = "send from_ms= and to_ms= (ms since 1970), after= and limit= (1 to 1000)";
    let query = understood(query, expected)?;
    if !(1..=protocol::MAX_RECORDS).contains(&query.limit) {
        let message = format!("limit={} is out of range", query.limit);
        return Err(Refusal::new(Code::BadRequest, message, expected));
    }
    read(shared, move |answers| answers.records(query)).await
}

async fn sum<A: Answers>(
    State(shared): State<Shared<A>>,
    query: Result<Query<SumQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let query = understood(query, "send from_ms= and to_ms= (ms since 1970)")?;
    read(shared, move |answers| answers.recorded_sum(query)).await
}

fn understood<T>(query: Result<Query<T>, QueryRejection>, expected: &str) -> Result<T, Refusal> {
    let refused =
        |error: QueryRejection| Refusal::new(Code::BadRequest, error.body_text(), expected);
    query.map(|Query(query)| query).map_err(refused)
}

/// Lets `ask` read the disk, on a thread that may wait for it.
async fn read<A: Answers, T: Serialize + Send + 'static>(
    shared: Shared<A>,
    ask: impl FnOnce(&A) -> Result<T, Refusal> + Send + 'static,
) -> Result<Response, Refusal> {
    let failed = || {
        Refusal::new(
            Code::Failed,
            "reading the history failed",
            "see `journalctl -u shadowd`",
        )
    };
    let turn = READS.acquire().await.map_err(|_| failed())?;
    let answers = Arc::clone(&shared.answers);
    let answer = tokio::task::spawn_blocking(move || {
        let _turn = turn; // also when the caller has gone meanwhile
        ask(&answers).map(|answer| json(&answer))
    });
    answer.await.map_err(|_| failed())?
}
