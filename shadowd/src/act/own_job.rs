//! What systemd is doing with this daemon's own unit: whether it will be started again at once.

use std::time::Duration;

use tokio::time::timeout;
use zbus::proxy::CacheProperties;
use zbus_systemd::systemd1::{JobProxy, ManagerProxy, UnitProxy};

/// Whether the job of this daemon's unit is a restart (`systemctl restart`, `try-restart`), by
/// systemd's own word. No answer within `within`, no systemd and no unit all mean no.
pub async fn is_restart(within: Duration) -> bool {
    let job = timeout(within, own_job()).await;
    matches!(job, Ok(Ok(Some(job))) if job == "restart" || job == "try-restart")
}

/// The type of the job under way (org.freedesktop.systemd1(5)).
async fn own_job() -> zbus::Result<Option<String>> {
    let connection = zbus::Connection::system().await?;
    let manager = ManagerProxy::builder(&connection)
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    // 0: whoever asks.
    let unit = UnitProxy::builder(&connection)
        .path(manager.get_unit_by_pid(0).await?)
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    let (number, path) = unit.job().await?;
    if number == 0 {
        return Ok(None);
    }
    let job = JobProxy::builder(&connection)
        .path(path)
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    Ok(Some(job.job_type().await?))
}
