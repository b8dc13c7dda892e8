//! `profile repository`.

use super::super::human::{clean, count, span};
use super::super::table::{Paint, Tone};
use crate::facts::{BootTime, RepositoryStatus};
use crate::serve::protocol::ProfileRepository;

/// How this host does with the central repository.
pub(in super::super) fn repository(answer: &ProfileRepository, paint: Paint) -> String {
    let Some(repository) = &answer.repository else {
        return "there is no repository: sync = false in [repository]\n".to_owned();
    };
    let url = paint.apply(Tone::Heading, &clean(&repository.url));
    let mut text = format!("{url}  {}\n", reached(repository, answer.now, paint));
    if let Some(error) = &repository.error {
        let line = format!("  last error: {}", clean(error));
        text.push_str(&paint.apply(Tone::Warning, &line));
        text.push('\n');
    }
    let listed = match repository.listed {
        Some(at) => format!("listed {} ago", span(answer.now.since(at))),
        None => "never listed".to_owned(),
    };
    text.push_str(&format!(
        "  {} versions there, {} wait to be put, {} to be fetched; {listed}\n",
        repository.there, repository.to_put, repository.to_get,
    ));
    text.push_str(&format!(
        "  since the daemon started: {} put, {} fetched, {} refused, {} of those written again\n",
        count(repository.put),
        count(repository.got),
        count(repository.refused),
        count(repository.mended),
    ));
    if repository.bad > 0 {
        let line = format!(
            "  {} objects there are not what they are called: see `shadowctl events`",
            repository.bad
        );
        text.push_str(&paint.apply(Tone::Warning, &line));
        text.push('\n');
    }
    if repository.foreign > 0 {
        let line = format!(
            "  {} objects of others, left alone\n",
            count(repository.foreign)
        );
        text.push_str(&line);
    }
    text
}

fn reached(repository: &RepositoryStatus, now: BootTime, paint: Paint) -> String {
    match (repository.silent_since, repository.reached) {
        (None, Some(at)) => {
            let line = format!("reached {} ago", span(now.since(at)));
            paint.apply(Tone::Good, &line)
        }
        (Some(since), Some(_)) => {
            let line = format!("not reached for {}", span(now.since(since)));
            paint.apply(Tone::Bad, &line)
        }
        (_, None) => paint.apply(Tone::Bad, "not reached yet"),
    }
}
