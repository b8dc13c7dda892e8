//! The paths of profiles. Anybody who may ask for the status may read them.

use std::future::Future;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Extension, Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Serialize;

use super::Answers;
use super::protocol::{
    self, ActOrder, Code, DiffQuery, ExportedVersion, GoldenRestore, PROFILE_TIMEOUT,
    ProfileAccuracy, ProfileActs, ProfileDiff, ProfileOrder, ProfileOrderDone, ProfileQuery,
    ProfileRepository, ProfileVersions, Refusal, RestoreRequest, ShownProfile,
};
use super::routes::{Caller, Shared, json, request_of};
use crate::facts::{Name, Signed};

/// What is asked about the profile of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProfileQuestion {
    /// A version, and what is expected.
    Show(ProfileQuery),
    /// All versions.
    Versions,
    /// How often it was right.
    Accuracy,
    /// How the central repository does.
    Repository,
    /// What was done on this host.
    Acts,
    /// Something is to be done about that.
    ActOrder(ActOrder),
    /// What differs between two versions.
    Diff(DiffQuery),
    /// A version as it was signed.
    Export(ProfileQuery),
    /// Something is to be done.
    Order(ProfileOrder),
    /// A version from a file.
    Import(Signed),
    /// This host is to be brought back to the golden version.
    Restore(RestoreRequest),
    /// How that stands.
    Restored,
}

/// The answer to a [`ProfileQuestion`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ProfileAnswer {
    /// To [`ProfileQuestion::Show`].
    Show(Box<ShownProfile>),
    /// To [`ProfileQuestion::Versions`].
    Versions(ProfileVersions),
    /// To [`ProfileQuestion::Accuracy`].
    Accuracy(Box<ProfileAccuracy>),
    /// To [`ProfileQuestion::Repository`].
    Repository(Box<ProfileRepository>),
    /// To [`ProfileQuestion::Acts`] and [`ProfileQuestion::ActOrder`].
    Acts(ProfileActs),
    /// To [`ProfileQuestion::Diff`].
    Diff(Box<ProfileDiff>),
    /// To [`ProfileQuestion::Export`].
    Export(ExportedVersion),
    /// To [`ProfileQuestion::Order`] and [`ProfileQuestion::Import`].
    Done(Box<ProfileOrderDone>),
    /// To [`ProfileQuestion::Restore`] and [`ProfileQuestion::Restored`].
    Restore(Box<GoldenRestore>),
}

type Group = Result<Path<String>, PathRejection>;
type Body = Result<Bytes, BytesRejection>;

pub(super) fn router<A: Answers>() -> Router<Shared<A>> {
    let import = post(import::<A>).layer(DefaultBodyLimit::max(protocol::MAX_IMPORT_BYTES));
    Router::new()
        .route(protocol::READY, get(ready::<A>))
        .route(protocol::PROFILE, get(show::<A>))
        .route(protocol::PROFILE_VERSIONS, get(versions::<A>))
        .route(protocol::PROFILE_ACCURACY, get(accuracy::<A>))
        .route(protocol::PROFILE_REPOSITORY, get(repository::<A>))
        .route(protocol::PROFILE_ACTS, get(acts::<A>).post(order_acts::<A>))
        .route(protocol::PROFILE_DIFF, get(diff::<A>))
        .route(protocol::PROFILE_EXPORT, get(export::<A>))
        .route(protocol::PROFILE_ORDER, post(order::<A>))
        .route(protocol::PROFILE_IMPORT, import)
        .route(
            protocol::PROFILE_RESTORE,
            get(restored::<A>).post(restore::<A>),
        )
}

async fn ready<A: Answers>(State(shared): State<Shared<A>>) -> Response {
    json(&shared.answers.ready())
}

async fn show<A: Answers>(
    State(shared): State<Shared<A>>,
    group: Group,
    query: Result<Query<ProfileQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let query = query_of(
        query,
        "send version= and at= (ms since 1970), or leave them out",
    )?;
    ask(&shared, group_of(group)?, ProfileQuestion::Show(query)).await
}

async fn versions<A: Answers>(
    State(shared): State<Shared<A>>,
    group: Group,
) -> Result<Response, Refusal> {
    ask(&shared, group_of(group)?, ProfileQuestion::Versions).await
}

async fn accuracy<A: Answers>(
    State(shared): State<Shared<A>>,
    group: Group,
) -> Result<Response, Refusal> {
    ask(&shared, group_of(group)?, ProfileQuestion::Accuracy).await
}

async fn repository<A: Answers>(
    State(shared): State<Shared<A>>,
    group: Group,
) -> Result<Response, Refusal> {
    ask(&shared, group_of(group)?, ProfileQuestion::Repository).await
}

async fn acts<A: Answers>(
    State(shared): State<Shared<A>>,
    group: Group,
) -> Result<Response, Refusal> {
    ask(&shared, group_of(group)?, ProfileQuestion::Acts).await
}

async fn order_acts<A: Answers>(
    State(shared): State<Shared<A>>,
    Extension(caller): Extension<Caller>,
    group: Group,
    body: Body,
) -> Result<Response, Refusal> {
    let expected = r#"send {"order": "undo", "batch": 3} or {"order": "resume"}"#;
    let (group, order): (Name, ActOrder) = request_of(caller, group, body, expected)?;
    ask(&shared, group, ProfileQuestion::ActOrder(order)).await
}

async fn diff<A: Answers>(
    State(shared): State<Shared<A>>,
    group: Group,
    query: Result<Query<DiffQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let query = query_of(query, "send a= and b=, a version each")?;
    ask(&shared, group_of(group)?, ProfileQuestion::Diff(query)).await
}

async fn export<A: Answers>(
    State(shared): State<Shared<A>>,
    group: Group,
    query: Result<Query<ProfileQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let query = query_of(query, "send version=, or leave it out")?;
    ask(&shared, group_of(group)?, ProfileQuestion::Export(query)).await
}

async fn order<A: Answers>(
    State(shared): State<Shared<A>>,
    Extension(caller): Extension<Caller>,
    group: Group,
    body: Body,
) -> Result<Response, Refusal> {
    let expected = r#"send {"order": "rollback", "version": "..."}, {"order": "pin"} or another"#;
    let (group, order): (Name, ProfileOrder) = request_of(caller, group, body, expected)?;
    ask(&shared, group, ProfileQuestion::Order(order)).await
}

async fn import<A: Answers>(
    State(shared): State<Shared<A>>,
    Extension(caller): Extension<Caller>,
    group: Group,
    body: Body,
) -> Result<Response, Refusal> {
    let expected = "send a file that `shadowctl profile export` wrote";
    let (group, file): (Name, ExportedVersion) = request_of(caller, group, body, expected)?;
    let signed = file.signed().ok_or_else(|| {
        let message = "what is in it is not base64";
        Refusal::new(Code::BadRequest, message, expected)
    })?;
    ask(&shared, group, ProfileQuestion::Import(signed)).await
}

async fn restored<A: Answers>(
    State(shared): State<Shared<A>>,
    group: Group,
) -> Result<Response, Refusal> {
    ask(&shared, group_of(group)?, ProfileQuestion::Restored).await
}

async fn restore<A: Answers>(
    State(shared): State<Shared<A>>,
    Extension(caller): Extension<Caller>,
    group: Group,
    body: Body,
) -> Result<Response, Refusal> {
    let (least, most) = (protocol::MIN_RESTORE, protocol::MAX_RESTORE);
    let expected = r#"send {"within_s": 600} or {}"#;
    let (group, request): (Name, RestoreRequest) = request_of(caller, group, body, expected)?;
    let allowed = least.as_secs()..=most.as_secs();
    if request.within_s.is_some_and(|s| !allowed.contains(&s)) {
        let message = format!("within_s is from {} to {}", allowed.start(), allowed.end());
        return Err(Refusal::new(Code::BadRequest, message, expected));
    }
    ask(&shared, group, ProfileQuestion::Restore(request)).await
}

fn query_of<T>(query: Result<Query<T>, QueryRejection>, expected: &str) -> Result<T, Refusal> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(error) => Err(Refusal::new(Code::BadRequest, error.body_text(), expected)),
    }
}

fn group_of(path: Group) -> Result<Name, Refusal> {
    let bad = |message: String| {
        let remedy = "name a group, as in /v1/groups/GROUP/profile";
        Refusal::new(Code::BadRequest, message, remedy)
    };
    let Path(group) = path.map_err(|error| bad(error.body_text()))?;
    group
        .parse()
        .map_err(|error| bad(format!("group: {error}")))
}

async fn ask<A: Answers>(
    shared: &Shared<A>,
    group: Name,
    question: ProfileQuestion,
) -> Result<Response, Refusal> {
    in_time(shared.answers.profile(group, question)).await
}

async fn in_time(
    answer: impl Future<Output = Result<ProfileAnswer, Refusal>>,
) -> Result<Response, Refusal> {
    match tokio::time::timeout(PROFILE_TIMEOUT, answer).await {
        Ok(answer) => answer.map(|answer| json(&answer)),
        Err(_) => Err(Refusal::new(
            Code::TimedOut,
            format!("no answer within {} s", PROFILE_TIMEOUT.as_secs()),
            "the daemon looks at this host; try again, and see `journalctl -u shadowd`",
        )),
    }
}
