//! `profile golden restore`: begins it, shows each act as it ends, and ends with what came of it.

use std::time::Duration;

use super::client::Client;
use super::decisions::group_of;
use super::human::clean;
use super::profile::Of;
use super::{Failure, Screen, show};
use crate::serve::protocol::{
    GoldenRestore, PROFILE_RESTORE, RestoreRequest, RestoreState, group_path,
};

/// How often the daemon is asked.
const ASK_EVERY: Duration = Duration::from_millis(500);

pub(super) async fn restore(
    client: &Client,
    screen: &mut Screen<'_>,
    of: &Of,
    within: Option<Duration>,
) -> Result<(), Failure> {
    let path = group_path(PROFILE_RESTORE, &group_of(client, of.group.as_ref()).await?);
    let request = RestoreRequest {
        within_s: within.map(|within| within.as_secs()),
    };
    let mut report: GoldenRestore = client.post(&path, &request).await?;
    let mut seen = Seen::default();
    loop {
        if !screen.json {
            screen.out.write_all(seen.news(&report).as_bytes())?;
            screen.out.flush()?;
        }
        if report.state != RestoreState::Running {
            break;
        }
        tokio::time::sleep(ASK_EVERY).await;
        report = client.get(&path).await?;
    }
    let text = show::restored(&report, screen.paint);
    screen.show(&report, text)?;
    match report.state {
        RestoreState::Restored => Ok(()),
        RestoreState::Running | RestoreState::Incomplete | RestoreState::Abandoned => {
            Err(Failure::NotRestored {
                group: report.group,
                why: report.why,
            })
        }
    }
}

/// What was shown of a restore.
#[derive(Debug, Default)]
struct Seen {
    sentences: usize,
    progress: Option<(usize, usize)>,
}

impl Seen {
    /// The sentences that are new, and how far it is if that has changed.
    fn news(&mut self, report: &GoldenRestore) -> String {
        let mut text = String::new();
        for sentence in report.done.iter().skip(self.sentences) {
            text.push_str(&format!("  {}\n", clean(sentence)));
        }
        self.sentences = report.done.len();
        let progress = Some((report.ready, report.items));
        if report.items > 0 && self.progress != progress {
            let (ready, items) = (report.ready, report.items);
            text.push_str(&format!(
                "{ready} of {items} items are as the version has them\n"
            ));
        }
        self.progress = progress;
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::VersionId;

    #[test]
    fn each_act_is_shown_once_and_progress_when_it_changes() {
        let mut report = GoldenRestore {
            group: "web".parse().unwrap(),
            number: 3,
            id: VersionId::from_bytes([3; 32]),
            began_ms: 0,
            state: RestoreState::Running,
            why: String::new(),
            done: Vec::new(),
            ready: 0,
            items: 0,
            left: Vec::new(),
            held: false,
        };
        let mut seen = Seen::default();
        assert_eq!(seen.news(&report), "");
        (report.ready, report.items) = (2, 5);
        report.done = vec!["done: a".into(), "failed: b\u{1b}".into()];
        let text = seen.news(&report);
        assert!(
            text.contains("  done: a\n") && text.contains("2 of 5 items"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
        assert_eq!(seen.news(&report), "");
        report.done.push("done: a".into());
        assert_eq!(seen.news(&report), "  done: a\n");
    }
}
