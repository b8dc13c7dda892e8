//! The paths of drills.

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use axum::routing::{get, post};

use super::Answers;
use super::protocol::{
    self, Code, DrillEndRequest, DrillRequest, HANDOVER_TIMEOUT, MAX_LIVE, MIN_LIVE, Refusal,
};
use super::routes::{Caller, Shared, json, request_of};

pub(super) fn router<A: Answers>() -> Router<Shared<A>> {
    Router::new()
        .route(protocol::DRILL, post(begin::<A>))
        .route(protocol::DRILL_END, post(end::<A>))
        .route(protocol::DRILLS, get(drills::<A>))
}

async fn begin<A: Answers>(
    State(shared): State<Shared<A>>,
    Extension(caller): Extension<Caller>,
    group: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let expected = r#"send {} or {"live": {"for_s": 600, "to": "HOST"}} to /v1/groups/GROUP/drill"#;
    let (group, DrillRequest { live }) = request_of(caller, group, body, expected)?;
    if let Some(live) = &live {
        let range = MIN_LIVE.as_secs()..=MAX_LIVE.as_secs();
        if !range.contains(&live.for_s) {
            let message = format!("for_s = {} is out of range", live.for_s);
            let remedy = format!("{} to {} seconds (1 day)", range.start(), range.end());
            return Err(Refusal::new(Code::BadRequest, message, remedy));
        }
    }
    within(shared.answers.drill(group, live)).await
}

async fn end<A: Answers>(
    State(shared): State<Shared<A>>,
    Extension(caller): Extension<Caller>,
    group: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let expected = "send {} to /v1/groups/GROUP/drill/end";
    let (group, DrillEndRequest {}) = request_of(caller, group, body, expected)?;
    within(shared.answers.end_drill(group)).await
}

async fn within<T: serde::Serialize>(
    done: impl Future<Output = Result<T, Refusal>>,
) -> Result<Response, Refusal> {
    match tokio::time::timeout(HANDOVER_TIMEOUT, done).await {
        Ok(result) => result.map(|done| json(&done)),
        Err(_) => Err(Refusal::new(
            Code::TimedOut,
            format!("not done within {} s", HANDOVER_TIMEOUT.as_secs()),
            "it may still happen: watch `shadowctl failover drills`",
        )),
    }
}

async fn drills<A: Answers>(State(shared): State<Shared<A>>) -> Response {
    json(&shared.answers.drills())
}
