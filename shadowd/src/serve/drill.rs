//! The paths of drills.

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use axum::routing::{get, post};

use super::Answers;
use super::protocol::{self, DrillRequest, Drills, Refusal};
use super::routes::{Caller, Shared, json, request_of};

pub(super) fn router<A: Answers>() -> Router<Shared<A>> {
    Router::new()
        .route(protocol::DRILL, post(begin::<A>))
        .route(protocol::DRILLS, get(drills::<A>))
}

async fn begin<A: Answers>(
    State(shared): State<Shared<A>>,
    Extension(caller): Extension<Caller>,
    group: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let expected = "send {} to /v1/groups/GROUP/drill";
    let (group, DrillRequest {}) = request_of(caller, group, body, expected)?;
    shared.answers.drill(group).map(|report| json(&report))
}

async fn drills<A: Answers>(State(shared): State<Shared<A>>) -> Response {
    let drills = shared.answers.status().drills;
    json(&Drills { drills })
}
