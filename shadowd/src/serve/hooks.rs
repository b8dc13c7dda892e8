//! The paths of hooks and alerts: how they do, and a test.

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use axum::routing::{get, post};

use super::Answers;
use super::protocol::{self, Code, Hooks, Refusal};
use super::routes::{Caller, Shared, json};
use crate::facts::Name;

pub(super) fn router<A: Answers>() -> Router<Shared<A>> {
    Router::new()
        .route(protocol::HOOKS, get(hooks::<A>))
        .route(protocol::HOOK_TEST, post(test::<A>))
}

async fn hooks<A: Answers>(State(shared): State<Shared<A>>) -> Response {
    let receivers = shared.answers.status().receivers;
    json(&Hooks { receivers })
}

async fn test<A: Answers>(
    State(shared): State<Shared<A>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    if !caller.may_change() {
        return Err(caller.forbidden());
    }
    let bad = |message: String| {
        let remedy = "send an empty body to /v1/hooks/NAME/test";
        Refusal::new(Code::BadRequest, message, remedy)
    };
    let Path(name) = name.map_err(|error| bad(error.body_text()))?;
    let name: Name = name
        .parse()
        .map_err(|error| bad(format!("name: {error}")))?;
    let test = shared.answers.test_receiver(name);
    match tokio::time::timeout(protocol::TEST_TIMEOUT, test).await {
        Ok(result) => result.map(|last| json(&last)),
        Err(_) => Err(Refusal::new(
            Code::TimedOut,
            format!(
                "it had not ended after {} s",
                protocol::TEST_TIMEOUT.as_secs()
            ),
            "it goes on until its deadline: watch `shadowctl hooks`",
        )),
    }
}
