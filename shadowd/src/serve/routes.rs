//! From a request to its answer: paths, who may do what, and errors as JSON.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Extension, Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::metrics::{CONTENT_TYPE, OwnUse};
use super::protocol::{
    self, Code, ErrorAnswer, Events, EventsQuery, Flows, HandoverRequest, Id, Peers, Probes,
    Refusal, StatusAnswer, Top, Units,
};
use super::{Answers, Counters, Metrics, decisions, drill, history, hooks, policy, profile};
use crate::facts::Name;

/// Who is at the other end of a connection, as the kernel says (SO_PEERCRED, unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// User id.
    pub(super) uid: u32,
    /// The daemon's own user id.
    pub(super) daemon_uid: u32,
}

impl Caller {
    /// Whether the caller may change state: root, or the user the daemon runs as.
    pub(super) const fn may_change(self) -> bool {
        self.uid == 0 || self.uid == self.daemon_uid
    }

    /// The answer to whoever may not.
    pub(super) fn forbidden(self) -> Refusal {
        Refusal::new(
            Code::Forbidden,
            format!("user {} may read but not change", self.uid),
            "ask as root, such as with sudo",
        )
    }
}

/// What handlers share.
pub(super) struct Shared<A> {
    pub(super) answers: Arc<A>,
    counters: Arc<Counters>,
    metrics: Arc<Metrics>,
}

impl<A> Clone for Shared<A> {
    fn clone(&self) -> Self {
        Self {
            answers: Arc::clone(&self.answers),
            counters: Arc::clone(&self.counters),
            metrics: Arc::clone(&self.metrics),
        }
    }
}

/// Every path of `/v1`, and the metrics. Expects a [`Caller`] in the request's extensions.
pub(super) fn router<A: Answers>(
    answers: Arc<A>,
    counters: Arc<Counters>,
    metrics: Arc<Metrics>,
) -> Router {
    Router::new()
        .route(protocol::STATUS, get(status::<A>))
        .route(protocol::TOP, get(top::<A>))
        .route(protocol::FLOWS, get(flows::<A>))
        .route(protocol::UNITS, get(units::<A>))
        .route(protocol::OBSERVATION, get(observation::<A>))
        .route(protocol::METRICS, get(metrics_text::<A>))
        .route(protocol::PROBES, get(probes::<A>))
        .route(protocol::PEERS, get(peers::<A>))
        .route(protocol::EVENTS, get(events::<A>))
        .route(protocol::ID, get(id::<A>))
        .route(protocol::HANDOVER, post(handover::<A>))
        .merge(decisions::router::<A>())
        .merge(drill::router::<A>())
        .merge(history::router::<A>())
        .merge(hooks::router::<A>())
        .merge(policy::router::<A>())
        .merge(profile::router::<A>())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(protocol::MAX_REQUEST_BYTES))
        .with_state(Shared {
            answers,
            counters,
            metrics,
        })
}

async fn status<A: Answers>(State(shared): State<Shared<A>>) -> Response {
    let socket = shared.counters.read();
    json(&StatusAnswer {
        status: shared.answers.status(),
        socket,
    })
}

async fn top<A: Answers>(State(shared): State<Shared<A>>) -> Response {
    json(&Top::from(&*shared.answers.observation()))
}

async fn flows<A: Answers>(State(shared): State<Shared<A>>) -> Response {
    json(&Flows::from(&*shared.answers.observation()))
}

async fn units<A: Answers>(State(shared): State<Shared<A>>) -> Response {
    json(&Units::from(&*shared.answers.observation()))
}

async fn observation<A: Answers>(State(shared): State<Shared<A>>) -> Response {
    json(&*shared.answers.observation())
}

async fn metrics_text<A: Answers>(State(shared): State<Shared<A>>) -> Response {
    scrape(&shared.metrics, &*shared.answers).await
}

/// The answer to a scrape.
pub(super) async fn scrape<A: Answers>(metrics: &Arc<Metrics>, answers: &A) -> Response {
    let (status, observation) = (answers.status(), answers.observation());
    let metrics = Arc::clone(metrics);
    let text = move || metrics.text(status, observation, OwnUse::read());
    match tokio::task::spawn_blocking(text).await {
        Ok(text) => {
            let kind = HeaderValue::from_static(CONTENT_TYPE);
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => Refusal::new(
            Code::Failed,
            "writing the metrics failed",
            "see `journalctl -u shadowd`",
        )
        .into_response(),
    }
}

async fn probes<A: Answers>(State(shared): State<Shared<A>>) -> Response {
    let capture = shared.answers.status().capture;
    json(&Probes { capture })
}

async fn peers<A: Answers>(State(shared): State<Shared<A>>) -> Response {
    let status = shared.answers.status();
    json(&Peers {
        now: status.now,
        peers: status.peers,
    })
}

async fn id<A: Answers>(State(shared): State<Shared<A>>) -> Response {
    let status = shared.answers.status();
    json(&Id {
        host: Some(status.host),
        id: status.id,
    })
}

async fn events<A: Answers>(
    State(shared): State<Shared<A>>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let expected = format!(
        "send since= (a number) and limit= (1 to {}), or leave them out",
        protocol::MAX_EVENTS
    );
    let Query(query) = query
        .map_err(|error| Refusal::new(Code::BadRequest, error.body_text(), expected.as_str()))?;
    if !(1..=protocol::MAX_EVENTS).contains(&query.limit) {
        let message = format!("limit={} is out of range", query.limit);
        return Err(Refusal::new(Code::BadRequest, message, expected));
    }
    let answers = Arc::clone(&shared.answers);
    let read = tokio::task::spawn_blocking(move || answers.events(query.since, query.limit)).await;
    match read {
        Ok(Ok(events)) => Ok(json(&Events { events })),
        Ok(Err(why)) => Err(Refusal::new(
            Code::Failed,
            format!("the record of events cannot be read: {why}"),
            "see `journalctl -u shadowd`",
        )),
        Err(_) => Err(Refusal::new(
            Code::Failed,
            "reading the record of events failed",
            "see `journalctl -u shadowd`",
        )),
    }
}

async fn handover<A: Answers>(
    State(shared): State<Shared<A>>,
    Extension(caller): Extension<Caller>,
    group: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let expected = r#"send {"to": "HOST"} or {"to": null} to /v1/groups/GROUP/handover"#;
    let (group, request): (Name, HandoverRequest) = request_of(caller, group, body, expected)?;
    let done = tokio::time::timeout(
        protocol::HANDOVER_TIMEOUT,
        shared.answers.handover(group, request.to),
    );
    match done.await {
        Ok(result) => result.map(|done| json(&done)),
        Err(_) => Err(Refusal::new(
            Code::TimedOut,
            format!(
                "no new owner within {} s",
                protocol::HANDOVER_TIMEOUT.as_secs()
            ),
            "the handover may still happen: watch `shadowctl status` and `shadowctl events`",
        )),
    }
}

/// The group and the request of a change, if the caller may ask for one.
pub(super) fn request_of<T: DeserializeOwned>(
    caller: Caller,
    group: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
    expected: &str,
) -> Result<(Name, T), Refusal> {
    if !caller.may_change() {
        return Err(Refusal::new(
            Code::Forbidden,
            format!("user {} may read but not change", caller.uid),
            "ask as root, such as with sudo",
        ));
    }
    let bad = |message: String| Refusal::new(Code::BadRequest, message, expected);
    let Path(group) = group.map_err(|error| bad(error.body_text()))?;
    let group: Name = group
        .parse()
        .map_err(|error| bad(format!("group: {error}")))?;
    let body = body.map_err(|error| {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let message = "the body is too long";
            Refusal::new(Code::TooLarge, message, "send a shorter body")
        } else {
            bad(error.body_text())
        }
    })?;
    let request = serde_json::from_slice(&body).map_err(|error| bad(format!("body: {error}")))?;
    Ok((group, request))
}

async fn unknown_path() -> Refusal {
    Refusal::new(
        Code::UnknownPath,
        "this shadowd has no such path",
        "use shadowctl and shadowd of the same version; docs/shadowctl.md lists the paths",
    )
}

async fn wrong_method() -> Refusal {
    Refusal::new(
        Code::WrongMethod,
        "the path wants another method",
        "GET reads, POST changes; docs/shadowctl.md lists the paths",
    )
}

/// `value` as an answer. Facts always encode: their keys are text and their numbers JSON's.
pub(super) fn json<T: Serialize>(value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => with_type(StatusCode::OK, body),
        Err(error) => Refusal::new(
            Code::Failed,
            format!("the answer cannot be encoded: {error}"),
            "report this with the output of `shadowd --version`",
        )
        .into_response(),
    }
}

fn with_type(status: StatusCode, body: Vec<u8>) -> Response {
    let json = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, json)], body).into_response()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let code = self.code;
        // An ErrorAnswer is three strings: encoding it cannot fail, and an empty body would still
        // carry the status.
        let body = serde_json::to_vec(&ErrorAnswer { error: self }).unwrap_or_default();
        let mut response = with_type(status, body);
        response.extensions_mut().insert(code);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_daemons_own_user_may_change_state() {
        let table = [
            (0, 0, true),
            (0, 990, true),
            (990, 990, true),
            (1000, 990, false),
        ];
        for (uid, daemon_uid, may) in table {
            assert_eq!(
                Caller { uid, daemon_uid }.may_change(),
                may,
                "{uid} {daemon_uid}"
            );
        }
        assert!(
            !Caller {
                uid: 65534,
                daemon_uid: 0
            }
            .may_change()
        );
    }
}
