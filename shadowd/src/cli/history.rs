//! Looking back: `--at`, `--since` and `replay`.

use std::io;
use std::pin::pin;
use std::time::Duration;

use super::args::ReplayArguments;
use super::client::{CallError, Client};
use super::time::{Moment, local};
use super::{Failure, Screen, show};
use crate::facts::Observation;
use crate::serve::protocol::{
    self, Code, Record, Recorded, RecordedSum, Records, Refusal, StatusAnswer,
};

/// Records of one request of a replay.
const PAGE: u32 = 200;
/// No pause of a replay is longer: the daemon may have been off for days.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What was observed at `at`, and the line that says so.
pub(super) async fn at(
    client: &Client,
    Moment(wall_ms): Moment,
) -> Result<(Observation, String), Failure> {
    let path = format!("{}?wall_ms={wall_ms}", protocol::HISTORY_AT);
    let asked = format!("at {}", local(wall_ms));
    let answer: Recorded = explained(client, client.get(&path).await, &asked).await?;
    let headline = format!("recorded until {}; ", local(answer.observation.wall_ms));
    Ok((answer.observation, headline))
}

/// The sum of what was observed between two moments, and the line that says so. What passed on a
/// flow in that time is its total.
pub(super) async fn between(
    client: &Client,
    Moment(from): Moment,
    Moment(to): Moment,
) -> Result<(Observation, String), Failure> {
    let path = format!("{}?from_ms={from}&to_ms={to}", protocol::HISTORY_SUM);
    let asked = format!("from {} to {}", local(from), local(to));
    let answer: RecordedSum = explained(client, client.get(&path).await, &asked).await?;
    let mut observation = answer.observation;
    for flow in &mut observation.flows {
        flow.total = flow.interval;
    }
    let mut headline = format!(
        "{} records from {} to {}\n",
        answer.records,
        local(answer.from_ms),
        local(observation.wall_ms)
    );
    if answer.cut {
        headline.push_str("the rest is older and would take too long: ask for a shorter time\n");
    }
    if observation.flows_left_out > 0 {
        headline.push_str(&format!(
            "{} flows are left out\n",
            observation.flows_left_out
        ));
    }
    Ok((observation, headline))
}

/// Shows record after record, a line each; ends without an error when it is interrupted.
pub(super) async fn replay(
    client: &Client,
    screen: &mut Screen<'_>,
    wanted: ReplayArguments,
) -> Result<(), Failure> {
    let (Moment(from), Moment(to)) = (wanted.from, wanted.to);
    let asked = format!("from {} to {}", local(from), local(to));
    let mut interrupted = pin!(interrupted());
    let mut after = 0;
    let mut last_ms = None;
    loop {
        let path = format!(
            "{}?from_ms={from}&to_ms={to}&after={after}&limit={PAGE}",
            protocol::HISTORY_RECORDS
        );
        let page = tokio::select! {
            () = &mut interrupted => return Ok(()),
            page = client.get(&path) => page,
        };
        let page: Records = explained(client, page, &asked).await?;
        for record in page.records {
            let pause = pause(last_ms, record.observation.wall_ms, wanted.speed);
            tokio::select! {
                biased;
                () = &mut interrupted => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            line(screen, &record, last_ms.is_none())?;
            after = record.number;
            last_ms = Some(record.observation.wall_ms);
        }
        if !page.more {
            return Ok(());
        }
    }
}

fn line(screen: &mut Screen<'_>, record: &Record, first: bool) -> Result<(), Failure> {
    if screen.json {
        serde_json::to_writer(&mut *screen.out, record).map_err(io::Error::from)?;
        writeln!(screen.out)?;
    } else {
        let at = local(record.observation.wall_ms);
        screen
            .out
            .write_all(show::replayed(&record.observation, &at, first).as_bytes())?;
    }
    Ok(screen.out.flush()?)
}

/// How long to wait before the record that ended at `now_ms` is shown.
fn pause(last_ms: Option<i64>, now_ms: i64, speed: Option<f64>) -> Duration {
    let (Some(last), Some(speed)) = (last_ms, speed) else {
        return Duration::ZERO;
    };
    let between = now_ms.saturating_sub(last).max(0) as f64 / 1_000.0 / speed;
    Duration::try_from_secs_f64(between).map_or(LONGEST_PAUSE, |pause| pause.min(LONGEST_PAUSE))
}

/// Ends on SIGINT; never, when that cannot be waited for: then it ends the process, as usual.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A refusal for want of records names what was asked for and what is recorded, in local time.
async fn explained<T>(
    client: &Client,
    answer: Result<T, CallError>,
    asked: &str,
) -> Result<T, Failure> {
    let refusal = match answer {
        Err(CallError::Refused(refusal)) if refusal.code == Code::NothingRecorded => refusal,
        other => return Ok(other?),
    };
    let status: Result<StatusAnswer, CallError> = client.get(protocol::STATUS).await;
    let history = status.ok().map(|answer| answer.status.capture.history);
    let range = history.and_then(|history| Some((history.oldest_ms?, history.newest_ms?)));
    Err(Failure::Call(CallError::Refused(match range {
        Some((oldest, newest)) => Refusal::new(
            Code::NothingRecorded,
            format!("nothing is recorded {asked}"),
            format!(
                "ask for a time between {} and {}",
                local(oldest),
                local(newest)
            ),
        ),
        None => refusal,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_pauses_as_its_speed_says() {
        let ms = Duration::from_millis;
        assert_eq!(pause(None, 5_000, Some(1.0)), ms(0));
        assert_eq!(pause(Some(4_000), 5_000, None), ms(0));
        assert_eq!(pause(Some(4_000), 5_000, Some(1.0)), ms(1_000));
        assert_eq!(pause(Some(4_000), 5_000, Some(10.0)), ms(100));
        assert_eq!(
            pause(Some(5_000), 4_000, Some(1.0)),
            ms(0),
            "the clock was set back"
        );
        assert_eq!(pause(Some(0), i64::MAX, Some(1e-9)), LONGEST_PAUSE);
    }
}
