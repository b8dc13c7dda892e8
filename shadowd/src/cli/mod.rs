//! `shadowctl`: asks the daemon and shows the answer, to people or to programs.
//!
//! The tool decides nothing and keeps nothing; all it knows comes from the socket, but for the
//! identity, which can be read from the state directory while no daemon runs.

pub mod args;
mod choose;
pub mod client;
mod decisions;
mod drill;
mod failover;
mod failure;
#[cfg(test)]
pub(crate) mod fuzz;
mod history;
mod hooks;
mod human;
mod map;
mod profile;
mod provider;
mod restore;
mod show;
mod table;
pub mod time;
mod tui;

use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::time::Duration;

use clap::CommandFactory;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::decide::map::{self as graph, MapLimits};
use crate::facts::{HostId, Observation};
use crate::serve::protocol::{self, Events, Flows, Id, MAX_EVENTS, Top, Units};
use args::{
    Arguments, Command, EventsArguments, FlowsArguments, MapArguments, Sort, TopArguments,
    UnitsArguments, Watch,
};
use client::{CallError, Client};
use table::Paint;

pub use failure::Failure;

/// How often `events --follow` asks.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// How often the live view of `top` asks at first.
const LIVE_EVERY: Duration = Duration::from_secs(1);

/// Rows of each table of `top` unless told otherwise.
const TOP_ROWS: u32 = 20;

/// A longer identity file (bytes) is not one.
const MAX_ID_BYTES: u64 = 1024;

/// Where and how to show things.
struct Screen<'a> {
    out: &'a mut dyn Write,
    json: bool,
    terminal: bool,
    paint: Paint,
}

impl Screen<'_> {
    /// One answer.
    fn show<T: Serialize>(&mut self, value: &T, text: String) -> Result<(), Failure> {
        if self.json {
            serde_json::to_writer_pretty(&mut *self.out, value).map_err(io::Error::from)?;
            writeln!(self.out)?;
        } else {
            self.out.write_all(text.as_bytes())?;
        }
        Ok(self.out.flush()?)
    }

    /// One of many answers: a line of JSON, or a fresh screen.
    fn redraw<T: Serialize>(&mut self, value: &T, text: &str) -> Result<(), Failure> {
        if self.json {
            serde_json::to_writer(&mut *self.out, value).map_err(io::Error::from)?;
            writeln!(self.out)?;
        } else if self.terminal {
            // Home, the text, then clear what was below: no flicker (ECMA-48 CUP, EL, ED).
            let text = text.replace('\n', "\x1b[K\n");
            write!(self.out, "\x1b[H{text}\x1b[J")?;
        } else {
            writeln!(self.out, "{text}")?;
        }
        Ok(self.out.flush()?)
    }
}

/// Runs one command. `terminal` says whether `out` is one.
///
/// # Errors
/// See [`Failure`]; its exit code is the process's.
pub async fn run(arguments: Arguments, out: &mut dyn Write, terminal: bool) -> Result<(), Failure> {
    let client = Client::new(arguments.socket_path());
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let paint = Paint(terminal && !arguments.json && !no_colour);
    let screen = &mut Screen {
        out,
        json: arguments.json,
        terminal,
        paint,
    };
    match arguments.command {
        Command::Status(watch) => {
            view(&client, screen, watch, protocol::STATUS, show::status).await
        }
        Command::Probes(watch) => {
            view(&client, screen, watch, protocol::PROBES, show::probes).await
        }
        Command::Peers(watch) => view(&client, screen, watch, protocol::PEERS, show::peers).await,
        Command::Units(wanted) => units(&client, screen, wanted).await,
        Command::Top(wanted) if is_live(screen, wanted) => {
            tui::run(&client, live(wanted, paint)).await
        }
        Command::Top(wanted) => top(&client, screen, wanted).await,
        Command::Flows(wanted) => flows(&client, screen, wanted).await,
        Command::Replay(wanted) => history::replay(&client, screen, wanted).await,
        Command::Map(wanted) => draw_map(&client, screen, &wanted).await,
        Command::Syscalls(wanted) => {
            repeat(screen, wanted.watch.watch, async || {
                let answer = choose::syscalls(client.get(protocol::TOP).await?, &wanted);
                let text = show::syscalls(&answer, paint);
                Ok((answer, text))
            })
            .await
        }
        Command::Hooks(wanted) => hooks::hooks(&client, screen, wanted).await,
        Command::Events(wanted) => events(&client, screen, wanted).await,
        Command::Id(wanted) => {
            let answer = identity(&client, &wanted.state_dir).await?;
            let text = format!("{}\n", answer.id);
            screen.show(&answer, text)
        }
        Command::Ready(wanted) => profile::ready(&client, screen, &wanted).await,
        Command::Profile(wanted) => profile::run(&client, screen, wanted).await,
        Command::Failover(wanted) => failover::run(&client, screen, wanted).await,
        Command::Provider(wanted) => provider::run(&wanted, screen),
        Command::Completion { shell } => {
            // Into memory first: the generator panics when its output is closed.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "shadowctl", &mut script);
            Ok(screen.out.write_all(&script)?)
        }
    }
}

async fn draw_map(
    client: &Client,
    screen: &mut Screen<'_>,
    wanted: &MapArguments,
) -> Result<(), Failure> {
    let seen: Observation = client.get(protocol::OBSERVATION).await?;
    let bound = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let limits = MapLimits {
        nodes: bound(wanted.nodes),
        edges: bound(wanted.edges),
    };
    let drawn = graph::map(&seen, limits);
    let mut written = Vec::new();
    if wanted.svg {
        let id: Id = client.get(protocol::ID).await?;
        let host = id.host.map_or_else(String::new, |host| host.to_string());
        written = map::svg(&drawn, &host, seen.wall_ms).into_bytes();
    } else if wanted.dot {
        written = map::dot(&drawn).into_bytes();
    } else {
        let paint = Paint(screen.paint.0 && wanted.output.is_none());
        let mut inner = Screen {
            out: &mut written,
            paint,
            ..*screen
        };
        inner.show(&drawn, map::text(&drawn, paint))?;
    }
    match &wanted.output {
        Some(path) => fs::write(path, &written).map_err(|source| Failure::File {
            path: path.clone(),
            source,
        }),
        None => Ok(screen.out.write_all(&written)?),
    }
}

/// Whether `top` has a person and a terminal that can do it in front of it.
fn is_live(screen: &Screen<'_>, wanted: TopArguments) -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    screen.terminal && !screen.json && !wanted.once && io::stdin().is_terminal() && !dumb
}

fn live(wanted: TopArguments, paint: Paint) -> tui::Start {
    tui::Start {
        interval: wanted.watch.watch.map_or(LIVE_EVERY, Duration::from_secs),
        sort: match wanted.sort {
            Sort::Cpu => "CPU%",
            Sort::Mem => "MEMORY",
            Sort::Syscalls => "CALLS/s",
        },
        colour: paint.0,
    }
}

async fn units(
    client: &Client,
    screen: &mut Screen<'_>,
    wanted: UnitsArguments,
) -> Result<(), Failure> {
    let paint = screen.paint;
    if let Some(at) = wanted.at {
        let (observation, headline) = history::at(client, at).await?;
        let answer = Units::from(&observation);
        let text = headline + &show::units(&answer, wanted.wide, paint);
        return screen.show(&answer, text);
    }
    repeat(screen, wanted.watch.watch, async || {
        let answer: Units = client.get(protocol::UNITS).await?;
        let text = show::units(&answer, wanted.wide, paint);
        Ok((answer, text))
    })
    .await
}

async fn top(
    client: &Client,
    screen: &mut Screen<'_>,
    wanted: TopArguments,
) -> Result<(), Failure> {
    let paint = screen.paint;
    let limit = wanted.limit.or((!screen.json).then_some(TOP_ROWS));
    if let Some(at) = wanted.at {
        let (observation, headline) = history::at(client, at).await?;
        let answer = choose::top(Top::from(&observation), wanted, limit);
        let text = headline + &show::top(&answer, wanted.wide, paint);
        return screen.show(&answer, text);
    }
    repeat(screen, wanted.watch.watch, async || {
        let answer = choose::top(client.get(protocol::TOP).await?, wanted, limit);
        let text = show::top(&answer, wanted.wide, paint);
        Ok((answer, text))
    })
    .await
}

async fn flows(
    client: &Client,
    screen: &mut Screen<'_>,
    wanted: FlowsArguments,
) -> Result<(), Failure> {
    let paint = screen.paint;
    if let (Some(since), Some(until)) = (wanted.since, wanted.until) {
        let (observation, headline) = history::between(client, since, until).await?;
        let answer = choose::flows(Flows::from(&observation), &wanted);
        let text = headline + &show::flows(&answer, wanted.wide, paint);
        return screen.show(&answer, text);
    }
    repeat(screen, wanted.watch.watch, async || {
        let answer = choose::flows(client.get(protocol::FLOWS).await?, &wanted);
        let text = show::flows(&answer, wanted.wide, paint);
        Ok((answer, text))
    })
    .await
}

/// Shows the answer to one request as `text` words it.
async fn view<T: Serialize + DeserializeOwned>(
    client: &Client,
    screen: &mut Screen<'_>,
    watch: Watch,
    path: &str,
    text: fn(&T, Paint) -> String,
) -> Result<(), Failure> {
    let paint = screen.paint;
    repeat(screen, watch.watch, async || {
        let answer = client.get(path).await?;
        let text = text(&answer, paint);
        Ok((answer, text))
    })
    .await
}

/// Shows what `ask` gives, once or each `every` seconds.
async fn repeat<T: Serialize>(
    screen: &mut Screen<'_>,
    every: Option<u64>,
    ask: impl AsyncFn() -> Result<(T, String), CallError>,
) -> Result<(), Failure> {
    let Some(every) = every else {
        let (value, text) = ask().await?;
        return screen.show(&value, text);
    };
    if screen.terminal && !screen.json {
        screen.out.write_all(b"\x1b[2J")?;
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(every));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (value, text) = ask().await?;
        screen.redraw(&value, &text)?;
    }
}

async fn events(
    client: &Client,
    screen: &mut Screen<'_>,
    wanted: EventsArguments,
) -> Result<(), Failure> {
    let ask = async |since: u64, limit: u32| -> Result<Events, CallError> {
        client
            .get(&format!("{}?since={since}&limit={limit}", protocol::EVENTS))
            .await
    };
    let first = ask(wanted.since, wanted.limit).await?;
    if !wanted.follow {
        let text = show::events(&first.events, screen.paint);
        return screen.show(&first, text);
    }
    let mut newest = wanted.since;
    let mut batch = first;
    loop {
        if let Some(last) = batch.events.last() {
            newest = last.seq;
        }
        if screen.json {
            for event in &batch.events {
                serde_json::to_writer(&mut *screen.out, event).map_err(io::Error::from)?;
                writeln!(screen.out)?;
            }
        } else {
            screen
                .out
                .write_all(show::events(&batch.events, screen.paint).as_bytes())?;
        }
        screen.out.flush()?;
        tokio::time::sleep(FOLLOW_EVERY).await;
        batch = ask(newest, MAX_EVENTS).await?;
        let expected = newest.saturating_add(1);
        let skipped = batch
            .events
            .first()
            .map_or(0, |event| event.seq.saturating_sub(expected));
        if skipped > 0 && !screen.json {
            writeln!(screen.out, "({skipped} events were not shown)")?;
        }
    }
}

/// The daemon's word, or the state directory's when there is no daemon to ask.
async fn identity(client: &Client, state_dir: &Path) -> Result<Id, Failure> {
    let no_daemon = match client.get(protocol::ID).await {
        Ok(id) => return Ok(id),
        Err(error @ (CallError::NotRunning { .. } | CallError::NoPermission { .. })) => error,
        Err(error) => return Err(error.into()),
    };
    let file = state_dir.join("id");
    match read_identity(&file) {
        Ok(id) => Ok(Id { host: None, id }),
        // The file does not help either: what keeps the user from the daemon is the better word.
        Err(_) if matches!(no_daemon, CallError::NoPermission { .. }) => Err(no_daemon.into()),
        Err(finding) => Err(Failure::NoIdentity {
            socket: client.socket().to_owned(),
            file,
            finding,
        }),
    }
}

fn read_identity(file: &Path) -> Result<HostId, String> {
    let mut text = String::new();
    fs::File::open(file)
        .and_then(|file| file.take(MAX_ID_BYTES).read_to_string(&mut text))
        .map_err(|error| error.to_string())?;
    text.trim()
        .parse()
        .map_err(|error: crate::facts::HostIdError| error.to_string())
}
