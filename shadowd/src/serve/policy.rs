//! The paths of an operator's orders: maintenance and freeze.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use axum::routing::post;

use super::Answers;
use super::protocol::{
    self, Code, FreezeRequest, HANDOVER_TIMEOUT, MAX_ORDER, MAX_REASON, MaintenanceRequest,
    Refusal, UnfreezeRequest,
};
use super::routes::{Caller, Shared, json, request_of};
use crate::facts::PolicyOrder;

type Group = Result<Path<String>, PathRejection>;
type Body = Result<Bytes, BytesRejection>;

pub(super) fn router<A: Answers>() -> Router<Shared<A>> {
    Router::new()
        .route(protocol::MAINTENANCE, post(maintenance::<A>))
        .route(protocol::FREEZE, post(freeze::<A>))
        .route(protocol::UNFREEZE, post(unfreeze::<A>))
}

async fn maintenance<A: Answers>(
    State(shared): State<Shared<A>>,
    Extension(caller): Extension<Caller>,
    group: Group,
    body: Body,
) -> Result<Response, Refusal> {
    let expected = r#"send {"on": true, "for_s": 1800, "reason": "TEXT"} or {"on": false}"#;
    order(
        &shared,
        caller,
        group,
        body,
        expected,
        |ask: MaintenanceRequest| {
            if !ask.on {
                return Ok(PolicyOrder::MaintenanceOff);
            }
            Ok(PolicyOrder::MaintenanceOn {
                span: ask.for_s.map(span).transpose()?,
                reason: reason(ask.reason)?,
                force: ask.force,
            })
        },
    )
    .await
}

async fn freeze<A: Answers>(
    State(shared): State<Shared<A>>,
    Extension(caller): Extension<Caller>,
    group: Group,
    body: Body,
) -> Result<Response, Refusal> {
    let expected = r#"send {"for_s": 1800, "reason": "TEXT"} or {}"#;
    order(
        &shared,
        caller,
        group,
        body,
        expected,
        |ask: FreezeRequest| {
            let span = ask.for_s.map(span).transpose()?;
            Ok(PolicyOrder::Freeze {
                span: span.unwrap_or(protocol::DEFAULT_FREEZE),
                reason: reason(ask.reason)?,
            })
        },
    )
    .await
}

async fn unfreeze<A: Answers>(
    State(shared): State<Shared<A>>,
    Extension(caller): Extension<Caller>,
    group: Group,
    body: Body,
) -> Result<Response, Refusal> {
    order(
        &shared,
        caller,
        group,
        body,
        "send {}",
        |_: UnfreezeRequest| Ok(PolicyOrder::Unfreeze),
    )
    .await
}

async fn order<A: Answers, T: serde::de::DeserializeOwned>(
    shared: &Shared<A>,
    caller: Caller,
    group: Group,
    body: Body,
    expected: &str,
    means: impl FnOnce(T) -> Result<PolicyOrder, Refusal>,
) -> Result<Response, Refusal> {
    let (group, ask) = request_of(caller, group, body, expected)?;
    let done = shared.answers.order(group, means(ask)?);
    match tokio::time::timeout(HANDOVER_TIMEOUT, done).await {
        Ok(result) => result.map(|done| json(&done)),
        Err(_) => Err(Refusal::new(
            Code::TimedOut,
            format!("not done within {} s", HANDOVER_TIMEOUT.as_secs()),
            "it may still happen: watch `shadowctl status` and `shadowctl events`",
        )),
    }
}

fn span(seconds: u64) -> Result<Duration, Refusal> {
    let span = Duration::from_secs(seconds);
    if seconds == 0 || span > MAX_ORDER {
        let message = format!("for_s = {seconds} is out of range");
        let remedy = format!("1 to {} seconds (30 days)", MAX_ORDER.as_secs());
        return Err(Refusal::new(Code::BadRequest, message, remedy));
    }
    Ok(span)
}

fn reason(text: String) -> Result<String, Refusal> {
    if text.chars().count() > MAX_REASON || text.chars().any(char::is_control) {
        let remedy = format!("at most {MAX_REASON} characters in one line");
        return Err(Refusal::new(
            Code::BadRequest,
            "the reason is too long, or is no line of text",
            remedy,
        ));
    }
    Ok(text)
}
