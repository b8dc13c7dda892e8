//! What programs of this host send to the socket, for the fuzzer. HTTP itself is read by hyper.

use axum::extract::Query;
use axum::http::Uri;
use serde::de::DeserializeOwned;

use super::protocol::{
    ActOrder, AtQuery, DiffQuery, EventsQuery, ExportedVersion, FreezeRequest, HandoverRequest,
    MaintenanceRequest, ProfileOrder, ProfileQuery, RecordsQuery, RestoreRequest, SumQuery,
    UnfreezeRequest,
};

/// The body of each request.
pub(crate) fn body(bytes: &[u8]) {
    let _ = serde_json::from_slice::<HandoverRequest>(bytes);
    let _ = serde_json::from_slice::<MaintenanceRequest>(bytes);
    let _ = serde_json::from_slice::<FreezeRequest>(bytes);
    let _ = serde_json::from_slice::<UnfreezeRequest>(bytes);
    let _ = serde_json::from_slice::<ProfileOrder>(bytes);
    let _ = serde_json::from_slice::<ActOrder>(bytes);
    let _ = serde_json::from_slice::<RestoreRequest>(bytes);
    let file = serde_json::from_slice::<ExportedVersion>(bytes);
    let _ = file.map(|file| file.signed());
}

/// One of each.
pub(crate) fn bodies() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"to": "b"}"#,
        r#"{"on": true, "for_s": 2592000, "reason": "disk", "force": false}"#,
        r#"{"for_s": null, "reason": "\ud83d\ude00"}"#,
        "{}",
        r#"{"order": "rollback", "version": "3"}"#,
        r#"{"order": "undo", "batch": 3}"#,
        r#"{"within_s": 600}"#,
        r#"{"bytes": "U0hQVg==", "key": "", "signature": "AA=="}"#,
    ];
    texts.map(Into::into).into()
}

/// The query of each request.
pub(crate) fn query(bytes: &[u8]) {
    fn read<T: DeserializeOwned>(uri: &Uri) {
        let _ = Query::<T>::try_from_uri(uri);
    }
    if let Ok(uri) = Uri::try_from(bytes) {
        read::<EventsQuery>(&uri);
        read::<AtQuery>(&uri);
        read::<RecordsQuery>(&uri);
        read::<SumQuery>(&uri);
        read::<ProfileQuery>(&uri);
        read::<DiffQuery>(&uri);
    }
}

/// One of each.
pub(crate) fn queries() -> Vec<Vec<u8>> {
    let texts = [
        "/v1/events?since=18446744073709551615&limit=10000",
        "/v1/history/at?wall_ms=-1",
        "/v1/history/records?from_ms=0&to_ms=%39&after=7&limit=1",
        "/v1/groups/web/profile?version=golden&at=-1",
        "/v1/groups/web/profile/diff?a=3&b=current",
    ];
    texts.map(Into::into).into()
}
