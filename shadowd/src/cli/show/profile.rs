//! `ready` and `profile`.

use std::time::Duration;

use super::super::human::{bytes, clean, share, span};
use super::super::table::{Cell, Paint, Table, Tone};
use super::super::time::local;
use super::status::section;
use crate::facts::{
    BootTime, FileKind, Item, ProfileStatus, Readiness, ResourceKind, UnitProfile, Verdict,
};
use crate::serve::protocol::{
    ActState, Expected, GoldenRestore, GroupReady, ProfileAccuracy, ProfileActs, ProfileDiff,
    ProfileVersions, Ready, RestoreState, ShownProfile, VersionLine,
};

/// How likely something has to be to be expected.
const EXPECTED: f64 = 0.5;

/// The line of `status`.
pub(super) fn line(profile: &ProfileStatus, paint: Paint) -> String {
    let version = match profile.version {
        Some((number, id)) => format!("version {number} ({})", id.short()),
        None => "none yet".to_owned(),
    };
    let Some(readiness) = &profile.readiness else {
        return format!("  profile {version}\n");
    };
    let (tone, word) = match (readiness.not_ready, readiness.unknown) {
        (0, 0) => (Tone::Good, "ready".to_owned()),
        (0, unknown) => (
            Tone::Warning,
            format!("not proven ready: {unknown} unknown"),
        ),
        (1, _) => (Tone::Bad, "not ready: 1 item".to_owned()),
        (not_ready, _) => (Tone::Bad, format!("not ready: {not_ready} items")),
    };
    let first = readiness.worst.first().map_or_else(String::new, |item| {
        format!(
            ": {} {}: {}",
            item.kind,
            clean(&item.subject),
            clean(&item.cause)
        )
    });
    let word = paint.apply(tone, &word);
    let (ready, all) = (
        readiness.ready,
        readiness.ready + readiness.not_ready + readiness.unknown,
    );
    format!("  profile {version}, {word} ({ready} of {all} ready){first}\n")
}

/// The answer of `ready`.
pub(in super::super) fn ready(answer: &Ready, all: bool, paint: Paint) -> String {
    if answer.groups.is_empty() {
        return "this host is a member of no group\n".to_owned();
    }
    let groups = answer.groups.iter();
    let texts = groups.map(|group| one_group(group, answer.now, all, paint));
    texts.collect::<Vec<String>>().join("\n")
}

fn one_group(group: &GroupReady, now: BootTime, all: bool, paint: Paint) -> String {
    let name = paint.apply(Tone::Heading, group.group.as_str());
    if group.owned_here {
        return format!("{name}: this host owns it: there is nothing to compare\n");
    }
    let Some((number, id)) = group.version else {
        let from = match &group.owner {
            Some(owner) => format!("{owner} learns what is needed"),
            None => "nobody owns it".to_owned(),
        };
        let word = paint.apply(Tone::Warning, "cannot tell");
        return format!("{name}: {word}: there is no profile yet; {from}\n");
    };
    let version = format!("version {number} ({})", id.short());
    let (Some(readiness), Some(at)) = (&group.readiness, group.at) else {
        let word = paint.apply(Tone::Warning, "cannot tell");
        return format!("{name}: {word}: not compared with {version} yet\n");
    };
    let (tone, word) = match readiness.verdict() {
        Verdict::Ready => (Tone::Good, "ready"),
        Verdict::CannotTell => (Tone::Warning, "cannot tell"),
        Verdict::NotReady => (Tone::Bad, "not ready"),
    };
    let ago = span(now.since(at).max(Duration::from_millis(1)));
    let mut text = format!(
        "{name}: {}: {} of {} items ({}), {version}, looked at {ago} ago\n",
        paint.apply(tone, word),
        readiness.count(Verdict::Ready),
        readiness.items.len(),
        share(readiness.score()),
    );
    text.push_str(&items(readiness, all, paint));
    text
}

fn items(readiness: &Readiness, all: bool, paint: Paint) -> String {
    let mut table = Table::new(2, ["STATE", "KIND", "WHAT", "CAUSE", "REMEDY"]);
    let shown = readiness.items.iter();
    for item in shown.filter(|item| all || item.verdict != Verdict::Ready) {
        table.row(row(item));
    }
    table.render(paint)
}

fn row(item: &Item) -> [Cell; 5] {
    let (tone, word) = match item.verdict {
        Verdict::Ready => (Tone::Good, "ready"),
        Verdict::CannotTell => (Tone::Warning, "cannot tell"),
        Verdict::NotReady => (Tone::Bad, "not ready"),
    };
    let remedy = match (&item.remedy, item.act.is_some()) {
        (Some(remedy), true) => format!("{remedy} (shadowd can)"),
        (Some(remedy), false) => remedy.clone(),
        (None, _) => String::new(),
    };
    [
        Cell::new(word, tone),
        item.kind.to_string().into(),
        (&item.subject).into(),
        (&item.cause).into(),
        remedy.into(),
    ]
}

/// The answer of `profile history`.
pub(in super::super) fn versions(answer: &ProfileVersions, paint: Paint) -> String {
    let mut table = Table::new(0, [">NUMBER", "VERSION", "MADE", "BY", "MARKS", "WHY"]);
    for line in &answer.versions {
        table.row([
            line.number.to_string().into(),
            line.id.short().into(),
            local(line.wall_ms).into(),
            author(line).into(),
            marks(line).into(),
            (&line.reason).into(),
        ]);
    }
    let mut text = table.render(paint);
    if answer.versions.is_empty() {
        text.push_str("no version yet: the first follows when enough was seen\n");
    }
    if answer.awaited > 0 {
        text.push_str(&format!(
            "{} versions of other members are on their way\n",
            answer.awaited
        ));
    }
    text
}

fn author(line: &VersionLine) -> String {
    match &line.author_name {
        Some(name) => name.to_string(),
        None => line.author.to_string().chars().take(10).collect(),
    }
}

fn marks(line: &VersionLine) -> String {
    let marks = [
        (line.current, "in use"),
        (line.golden, "golden"),
        (line.pinned, "pinned"),
    ];
    let marks = marks.into_iter().filter(|(holds, _)| *holds);
    marks.map(|(_, mark)| mark).collect::<Vec<_>>().join(", ")
}

/// The marks of a version that is shown, and when it was in use.
fn then(line: &VersionLine, in_use_at: Option<i64>) -> String {
    let marks = marks(line);
    let mut text = in_use_at.map_or_else(String::new, |at| format!(", in use at {}", local(at)));
    if !marks.is_empty() {
        text.push_str(&format!(", {marks}"));
    }
    text
}

/// What an order came to.
pub(in super::super) fn made(version: &VersionLine) -> String {
    let pinned = match version.pinned {
        true => "; it is pinned: learning makes no other until `profile unpin`",
        false => "",
    };
    let (number, id, reason) = (version.number, version.id.short(), clean(&version.reason));
    format!("version {number} ({id}): {reason}{pinned}\n")
}

/// The answer of `profile diff`.
pub(in super::super) fn diff(answer: &ProfileDiff, paint: Paint) -> String {
    let head = |line: &VersionLine| format!("version {} ({})", line.number, line.id.short());
    let mut text = format!("from {} to {}\n", head(&answer.a), head(&answer.b));
    for change in &answer.changes {
        let (tone, sign) = match (&change.before, &change.after) {
            (None, _) => (Tone::Good, '+'),
            (_, None) => (Tone::Bad, '-'),
            _ => (Tone::Warning, '~'),
        };
        let line = format!("{sign} {}", clean(&change.to_string()));
        text.push_str(&paint.apply(tone, &line));
        text.push('\n');
    }
    if answer.changes.is_empty() {
        text.push_str("nothing differs\n");
    }
    text
}

/// The answer of `profile provision`.
pub(in super::super) fn acts(answer: &ProfileActs, paint: Paint) -> String {
    let mut table = Table::new(0, [">BATCH", "STATE", "ACT", "WHY"]);
    for batch in &answer.batches {
        for line in &batch.acts {
            let (tone, word) = match line.state {
                ActState::Begun => (Tone::Warning, "begun"),
                ActState::Done => (Tone::Good, "done"),
                ActState::Failed => (Tone::Bad, "failed"),
                ActState::Undone => (Tone::Plain, "undone"),
                ActState::NotUndone => (Tone::Bad, "not undone"),
            };
            table.row([
                batch.number.to_string().into(),
                Cell::new(word, tone),
                (&line.act).into(),
                line.why.as_deref().unwrap_or_default().into(),
            ]);
        }
    }
    let mut text = match answer.held {
        true => "held: nothing is done until `shadowctl profile provision resume`\n".to_owned(),
        false => String::new(),
    };
    match answer.batches.is_empty() {
        true => text.push_str("nothing was done on this host\n"),
        false => text.push_str(&table.render(paint)),
    }
    text
}

/// How a restore ended.
pub(in super::super) fn restored(report: &GoldenRestore, paint: Paint) -> String {
    let version = format!("version {} ({})", report.number, report.id.short());
    let group = paint.apply(Tone::Heading, report.group.as_str());
    let (tone, word) = match report.state {
        RestoreState::Running => (Tone::Warning, "under way"),
        RestoreState::Restored => (Tone::Good, "restored"),
        RestoreState::Incomplete => (Tone::Bad, "not restored"),
        RestoreState::Abandoned => (Tone::Bad, "given up"),
    };
    let word = paint.apply(tone, word);
    let why = clean(&report.why);
    let mut text = format!("{group}: {word}: {why}, golden {version}\n");
    let mut table = Table::new(2, ["STATE", "KIND", "WHAT", "CAUSE", "REMEDY"]);
    for item in &report.left {
        table.row(row(item));
    }
    text.push_str(&table.render(paint));
    if report.held {
        text.push_str(
            "held: nothing is done by itself until `shadowctl profile provision resume`, which goes \
             on to the version in use\n",
        );
    }
    text
}

/// The answer of `profile accuracy`.
pub(in super::super) fn accuracy(answer: &ProfileAccuracy, paint: Paint) -> String {
    let percent = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), share);
    let number =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |one| format!("{one:.2}"));
    let heads = [
        "WHAT",
        ">TRUE +",
        ">FALSE +",
        ">FALSE -",
        ">TRUE -",
        ">PRECISION",
        ">RECALL",
    ];
    let mut sets = Table::new(0, heads);
    let shares = [
        (
            "units",
            answer.units,
            answer.unit_precision,
            answer.unit_recall,
        ),
        (
            "dependencies",
            answer.dependencies,
            answer.dependency_precision,
            answer.dependency_recall,
        ),
    ];
    for (what, confusion, precision, recall) in shares {
        sets.row([
            what.into(),
            confusion.true_positives.to_string().into(),
            confusion.false_positives.to_string().into(),
            confusion.false_negatives.to_string().into(),
            confusion.true_negatives.to_string().into(),
            percent(precision).into(),
            percent(recall).into(),
        ]);
    }
    let mut resources = Table::new(
        0,
        [
            "RESOURCE",
            ">FORECASTS",
            ">MASE",
            ">PINBALL",
            ">IN 80 %",
            ">IN 95 %",
        ],
    );
    for (kind, one) in &answer.resources {
        resources.row([
            kind.to_string().into(),
            one.count.to_string().into(),
            number(one.mase).into(),
            number(one.pinball).into(),
            percent(one.within_80).into(),
            percent(one.within_95).into(),
        ]);
    }
    let mut text = sets.render(paint);
    section(&mut text, &resources.render(paint));
    text
}

/// The answer of `profile show`.
pub(in super::super) fn profile(answer: &ShownProfile, paint: Paint) -> String {
    let mut text = match &answer.version {
        Some(line) => format!(
            "{} version {} ({}), by {} at {}{}\n  why: {}\n",
            paint.apply(Tone::Heading, answer.group.as_str()),
            line.number,
            line.id.short(),
            author(line),
            local(line.wall_ms),
            then(line, answer.in_use_at),
            clean(&line.reason),
        ),
        None => format!(
            "{}: no version yet: the first follows when enough was seen\n",
            paint.apply(Tone::Heading, answer.group.as_str())
        ),
    };
    if !answer.learning.is_empty() {
        let learning = clean(&answer.learning.join(", "));
        text.push_str(&format!("  learning: {learning}\n"));
    }
    let content = &answer.content;
    for (name, unit) in &content.units {
        section(&mut text, &one_unit(name, unit, answer, paint));
    }
    let mut packages = Table::new(0, ["PACKAGE", "VERSION", "ARCH"]);
    for (name, fact) in &content.packages {
        packages.row([
            name.into(),
            (&fact.version).into(),
            (&fact.architecture).into(),
        ]);
    }
    section(&mut text, &packages.render(paint));
    let mut files = Table::new(0, ["FILE", "OWNER", "MODE", "WHAT", "CONTENT"]);
    for (path, fact) in &content.files {
        let replicated = match &fact.kind {
            FileKind::Regular {
                replicated: true, ..
            } => "replicated",
            FileKind::Regular { .. } => "stays on its host",
            _ => "",
        };
        files.row([
            path.into(),
            format!("{}:{}", fact.owner, fact.group).into(),
            format!("{:04o}", fact.mode).into(),
            fact.kind.to_string().into(),
            replicated.into(),
        ]);
    }
    section(&mut text, &files.render(paint));
    let mut parameters = Table::new(0, ["PARAMETER", "VALUE"]);
    for (name, value) in &content.parameters {
        parameters.row([name.into(), value.into()]);
    }
    section(&mut text, &parameters.render(paint));
    section(&mut text, &expected(&answer.expected, paint));
    text
}

fn one_unit(name: &str, unit: &UnitProfile, answer: &ShownProfile, paint: Paint) -> String {
    let mut text = format!(
        "{} {}\n",
        paint.apply(Tone::Heading, &clean(name)),
        clean(&unit.enabled)
    );
    let mut line = |what: &str, of: Vec<String>| {
        if !of.is_empty() {
            text.push_str(&format!("  {what:<12} {}\n", clean(&of.join(", "))));
        }
    };
    line("runs", unit.programs.keys().cloned().collect());
    let ports = unit
        .ports
        .iter()
        .map(|port| format!("{} {}", port.protocol, port.port));
    line("listens on", ports.collect());
    let to = unit.dependencies.iter();
    line(
        "connects to",
        to.map(|to| format!("{}:{}", to.remote, to.port)).collect(),
    );
    line("reads", unit.reads.iter().cloned().collect());
    line("environment", unit.environment.keys().cloned().collect());
    let limits = unit
        .limits
        .iter()
        .map(|(limit, value)| format!("{limit}={value}"));
    line("limits", limits.collect());
    let needs = answer.needs.iter().filter(|need| need.unit == name);
    let needs = needs.map(|need| {
        let (median, peak) = (
            amount(need.resource, need.median),
            amount(need.resource, need.peak),
        );
        let cold = if need.cold { ", not sure yet" } else { "" };
        format!("{} {median}, peak {peak}{cold}", need.resource)
    });
    for need in needs.collect::<Vec<_>>() {
        line("needs", vec![need]);
    }
    text
}

fn expected(expected: &Expected, paint: Paint) -> String {
    let mut text = format!("expected at {}\n", local(expected.wall_ms));
    let names = |likely: bool| -> String {
        let units = expected.units.iter();
        let chosen = units.filter(|unit| (unit.likely >= EXPECTED) == likely);
        let names: Vec<&str> = chosen.map(|unit| unit.unit.as_str()).collect();
        clean(&names.join(", "))
    };
    for (what, names) in [("runs", names(true)), ("does not run", names(false))] {
        if !names.is_empty() {
            text.push_str(&format!("  {what:<12} {names}\n"));
        }
    }
    let heads = [
        "UNIT",
        "RESOURCE",
        ">MEDIAN",
        ">80 % FROM",
        ">TO",
        ">95 % FROM",
        ">TO",
        "",
    ];
    let mut table = Table::new(2, heads);
    for one in &expected.resources {
        let amount = |value: f64| Cell::from(amount(one.resource, value));
        table.row([
            (&one.unit).into(),
            one.resource.to_string().into(),
            amount(one.median),
            amount(one.within_80[0]),
            amount(one.within_80[1]),
            amount(one.within_95[0]),
            amount(one.within_95[1]),
            if one.cold { "not sure yet" } else { "" }.into(),
        ]);
    }
    text.push_str(&table.render(paint));
    text
}

/// No resource is below 0, whatever an interval says.
fn amount(kind: ResourceKind, value: f64) -> String {
    let value = value.max(0.0);
    match kind {
        ResourceKind::Cpu => share(value),
        ResourceKind::Memory => bytes(value as u64),
        _ => format!("{}/s", bytes(value as u64)),
    }
}
