//! Promotion with a cold unit that is slow to start: from the owner's crash to the first right answer,
//! with a shadow that lacks something, one that was made ready, and one that also has in memory what
//! the unit reads.

mod service;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::{Metric, Outcome};
use crate::build;
use crate::command::spawn;
use crate::lab::{CONFIG, DAEMON, Fault, GROUP, Lab, Options, VIP_V4, target};
use crate::setup::{self, Part};

/// How long anything may take on a busy machine.
const LONG: Duration = Duration::from_secs(120);
/// One answer may take as long as a start.
const ANSWER: Duration = Duration::from_secs(90);
const PROFILE: &str = "\n[group.profile]\nsettle = \"4s\"\n\
    replicate = [\"/etc/heavy/*\", \"/opt/heavy/*\"]\n\
    [group.profile.provision]\nfiles = \"apply\"\ncache = \"apply\"\n";

/// How a shadow is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    /// Configuration and code are missing, and come from a backup on the host when the unit has failed.
    Lacking,
    /// shadowd has copied them; nothing of it is in memory.
    Cold,
    /// shadowd has also read what the active keeps in memory.
    Warm,
}

impl Case {
    const ALL: [Self; 3] = [Self::Lacking, Self::Cold, Self::Warm];

    const fn name(self) -> &'static str {
        match self {
            Self::Lacking => "lacking",
            Self::Cold => "provisioned",
            Self::Warm => "provisioned, warmed",
        }
    }
}

/// What one run came to.
struct Run {
    case: Case,
    milliseconds: f64,
    /// The share of the data that was in memory before, 0 to 1.
    warmth: f64,
}

/// Measures: `runs` of each case, with so many MiB of data.
///
/// # Errors
/// The lab does not start, or leaves something behind. What stopped the measurement is part of the
/// outcome.
pub fn run(runs: u32, mebibytes: u32, no_build: bool) -> Result<Outcome> {
    setup::ensure(&[Part::Build, Part::Hosts])?;
    if !no_build {
        build::run(build::Args { release: true })?;
    }
    let lab = Lab::up(&Options {
        binaries: Some(target().join("release")),
        ..Options::witnessed()?
    })?;
    println!(
        "lab {} is up: {runs} runs of each case, {mebibytes} MiB of data",
        lab.state().id
    );
    let mut done = Vec::new();
    let measured = measure(&lab, runs, mebibytes, &mut done);
    let cost = thread_cost(&lab);
    let down = lab.down();
    println!("\n{}", table(&done));
    match &cost {
        Ok(cost) => println!("the daemons' threads of profiles: {cost}"),
        Err(error) => {
            println!("what the daemons' threads of profiles took is not known: {error:#}")
        }
    }
    let ended = down.and_then(|left| match left.is_empty() {
        true => Ok(()),
        false => bail!("left behind: {}", left.join(", ")),
    });
    let each =
        |run: &Run| json!({"case": run.case.name(), "ms": run.milliseconds, "warmth": run.warmth});
    Ok(Outcome {
        metrics: metrics(&done),
        details: json!({
            "data_mib": mebibytes,
            "profile_threads": cost.ok(),
            "runs": done.iter().map(each).collect::<Vec<Value>>(),
        }),
        stopped: ended.err().or(measured.err()),
    })
}

/// What the thread of the profiles took of a processor on each member since its daemon started, which
/// `ps` tells in whole seconds, and the daemon's memory.
fn thread_cost(lab: &Lab) -> Result<String> {
    let mut told = Vec::new();
    for host in lab.state().members() {
        let script = "pid=$(systemctl show -P MainPID shadowd); tick=$(getconf CLK_TCK); \
            for task in /proc/$pid/task/*; do \
                [ $(cat $task/comm) = profile ] && cut -d' ' -f14,15 $task/stat; done; \
            ps -o etimes=,rss= -p $pid; echo $tick";
        let said = lab.run(&host.name, &["sh", "-c", script])?;
        let numbers: Vec<f64> = said
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [user, system, seconds, kibibytes, tick] = numbers[..] else {
            bail!("host {} says {said:?}", host.name);
        };
        let share = (user + system) / tick / seconds.max(1.0) * 100.0;
        told.push(format!(
            "{} {share:.2} % of a processor in {seconds:.0} s, {:.0} MiB in all",
            host.name,
            kibibytes / 1_024.0
        ));
    }
    Ok(told.join("; "))
}

fn measure(lab: &Lab, runs: u32, mebibytes: u32, done: &mut Vec<Run>) -> Result<()> {
    let bench = Bench { lab };
    bench.prepare(mebibytes)?;
    // Each host is made ready once before: shadowd has then something that can be held.
    for _ in 0..2 {
        bench.once(Case::Warm)?;
    }
    for round in 0..runs as usize {
        for turn in 0..Case::ALL.len() {
            let case = Case::ALL[(round + turn) % Case::ALL.len()];
            let run = bench.once(case)?;
            println!(
                "{:>3}  {:<20} {:>8.0} ms   {:>3.0} % in memory before",
                round + 1,
                case.name(),
                run.milliseconds,
                run.warmth * 100.0
            );
            done.push(run);
        }
    }
    Ok(())
}

struct Bench<'a> {
    lab: &'a Lab,
}

impl Bench<'_> {
    /// The service on both members, in use on the active, and shadowd told to make shadows ready.
    fn prepare(&self, mebibytes: u32) -> Result<()> {
        let lab = self.lab;
        let members: Vec<String> = lab
            .state()
            .members()
            .map(|host| host.name.clone())
            .collect();
        for host in &members {
            service::install(lab, host, mebibytes)?;
        }
        let hosts: Vec<String> = lab
            .state()
            .hosts
            .iter()
            .map(|host| host.name.clone())
            .collect();
        for host in &hosts {
            let text = lab.run(host, &["cat", CONFIG])?;
            let slower = "heartbeat = \"20ms\"\nsuspect_after = \"100ms\"";
            let text = text.replace("heartbeat = \"10ms\"\nsuspect_after = \"27ms\"", slower);
            lab.write_file(host, CONFIG, &format!("{text}{PROFILE}"))?;
            lab.run(host, &["systemctl", "restart", DAEMON])?;
        }
        lab.converge(LONG)?;
        // The owner's unit runs as it was: where the group goes it starts as it is now.
        let active = self.settled()?;
        let shadow = self.shadow_of(&active)?;
        let hand_over = ["shadowctl", "failover", "handover", GROUP, "--to", &shadow];
        lab.run(&active, &hand_over)?;
        lab.converge(LONG).map(drop)
    }

    fn shadow_of(&self, active: &str) -> Result<String> {
        let mut members = self.lab.state().members().map(|host| host.name.clone());
        let shadow = members.find(|host| host != active);
        shadow.context("a lab of one host")
    }

    /// One crash of the owner.
    fn once(&self, case: Case) -> Result<Run> {
        let lab = self.lab;
        let active = self.settled()?;
        let shadow = self.shadow_of(&active)?;
        let right = service::answer(lab, &active)?;
        self.make(case, &shadow)
            .with_context(|| format!("{case:?} on host {shadow}"))?;
        let warmth = service::warmth(lab, &shadow)?;
        match case {
            Case::Lacking | Case::Cold => ensure!(warmth < 0.05, "{warmth} of it is in memory"),
            Case::Warm => ensure!(warmth > 0.9, "only {warmth} of it is in memory"),
        }
        let mut client = Client::start(lab)?;
        client.wait(&format!("{active} {right}"))?;
        let before = SystemTime::now().duration_since(UNIX_EPOCH)?;
        lab.fault(&active, &Fault::Crash)?;
        let after = client.wait(&format!("{shadow} {right}"))?;
        drop(client);
        lab.heal(&active)?;
        Ok(Run {
            case,
            milliseconds: after.saturating_sub(before).as_secs_f64() * 1e3,
            warmth,
        })
    }

    /// The active, once all is well and the promises that outlast a restart have ended.
    fn settled(&self) -> Result<String> {
        let lab = self.lab;
        let mut active = String::new();
        lab.wait(LONG, "short promises", || {
            let Ok(well) = lab.well() else {
                return Ok(false);
            };
            let status = lab.ask(&well, &["status"])?;
            let group = &status["groups"][0];
            let soon = status["now"].as_u64().context("a time")? + 1_000_000_000;
            let soon = soon + group["lease"]["length_ns"].as_u64().unwrap_or_default();
            active = well;
            Ok(group["deadline"]
                .as_u64()
                .is_some_and(|deadline| deadline < soon))
        })?;
        Ok(active)
    }

    fn make(&self, case: Case, shadow: &str) -> Result<()> {
        let lab = self.lab;
        let provision = |words: &[&str]| {
            let all = [&["shadowctl", "profile", "provision"], words].concat();
            lab.run(shadow, &all)
        };
        service::cool(lab, shadow)?;
        if case == Case::Warm {
            // What is evicted again and again is read more and more rarely; a daemon that starts
            // knows nothing of that.
            lab.run(shadow, &["systemctl", "restart", DAEMON])?;
            self.settled()?;
        }
        provision(&["resume"])?;
        if case == Case::Warm {
            return lab.wait(LONG, "the shadow to have it in memory", || {
                Ok(service::warmth(lab, shadow)? > 0.9 && self.lacks(shadow)?.is_empty())
            });
        }
        let mut lacks = Vec::new();
        let ready = lab.wait(LONG, "the shadow to be made ready", || {
            lacks = self.lacks(shadow)?;
            Ok(lacks.is_empty())
        });
        ready.with_context(|| format!("it lacks {lacks:?}"))?;
        let read = self.reading_batch(shadow)?;
        provision(&["undo", &read])?;
        if case == Case::Lacking {
            lab.run(
                shadow,
                &["sh", "-c", &format!("rm -rf {}", service::LACKING)],
            )?;
            lab.wait(LONG, "what is lacking to be told", || {
                Ok(!self.lacks(shadow)?.is_empty())
            })?;
        }
        service::cool(lab, shadow)
    }

    /// What a shadow says it lacks; something as long as nothing was compared.
    fn lacks(&self, shadow: &str) -> Result<Vec<String>> {
        let output = self.lab.exec(shadow, &["shadowctl", "--json", "ready"])?;
        let answer: Value = serde_json::from_slice(&output.stdout).context("no JSON")?;
        let Some(items) = answer["groups"][0]["readiness"]["items"].as_array() else {
            return Ok(vec!["it was not compared".to_owned()]);
        };
        let known = items
            .iter()
            .any(|item| item["subject"] == "/etc/heavy/heavy.conf");
        let lacking = items.iter().filter(|item| item["verdict"] == "not_ready");
        let mut lacking: Vec<String> = lacking.map(|item| item["subject"].to_string()).collect();
        if !known {
            lacking.push("the unit's configuration is not learned".to_owned());
        }
        Ok(lacking)
    }

    /// A batch that only read files: to take it back changes nothing, and holds what shadowd would do.
    fn reading_batch(&self, shadow: &str) -> Result<String> {
        let acts = self.lab.ask(shadow, &["profile", "provision", "list"])?;
        let batches = acts["batches"].as_array().cloned().unwrap_or_default();
        let reads = |batch: &&Value| {
            let acts = batch["acts"].as_array();
            acts.is_some_and(|acts| {
                let reads = |act: &Value| {
                    act["act"]
                        .as_str()
                        .is_some_and(|act| act.starts_with("cat "))
                };
                !acts.is_empty() && acts.iter().all(reads)
            })
        };
        let batch = batches.iter().rev().find(reads);
        let batch = batch.with_context(|| format!("no batch that only reads: {acts}"))?;
        Ok(batch["number"].to_string())
    }
}

/// A client on the bridge that asks without a pause and tells each answer with its moment.
struct Client {
    child: Child,
    lines: Receiver<String>,
}

impl Client {
    fn start(lab: &Lab) -> Result<Self> {
        let url = format!("http://{VIP_V4}:{}/", service::PORT);
        // Who does not answer at once is asked again soon: a frame to the dead owner's MAC is lost.
        let script = format!(
            "while :; do text=$(curl -s --connect-timeout 0.05 -m 2 {url}) && \
             echo \"$(date +%s%N) $text\" || sleep 0.005; done"
        );
        let mut command = lab.client_command(&["bash", "-c", &script])?;
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = spawn(&mut command)?;
        let output = child.stdout.take().context("no output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// The moment of the first answer that says so; wrong answers are none.
    fn wait(&mut self, wanted: &str) -> Result<Duration> {
        let mut last = String::new();
        let end = std::time::Instant::now() + ANSWER;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                bail!("no answer {wanted:?} within {ANSWER:?}; the last was {last:?}");
            };
            let (at, said) = line.split_once(' ').context("an odd line")?;
            if said == wanted {
                return Ok(Duration::from_nanos(at.parse().context("an odd time")?));
            }
            last = said.to_owned();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sorted(runs: &[Run], case: Case) -> Vec<f64> {
    let runs = runs.iter().filter(|run| run.case == case);
    let mut times: Vec<f64> = runs.map(|run| run.milliseconds).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// The value at this share of the ranks, 0 to 1; none of none.
fn rank(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((share * last as f64).round() as usize).copied()
}

fn metrics(runs: &[Run]) -> Vec<Metric> {
    let warm = rank(&sorted(runs, Case::Warm), 0.5);
    let names = ["lacking_ms", "provisioned_ms", "warmed_ms"];
    let each = Case::ALL.iter().zip(names).filter_map(|(case, name)| {
        let times = sorted(runs, *case);
        let (median, warm) = (rank(&times, 0.5)?, warm?);
        Some(Metric {
            name,
            value: median,
            unit: "ms",
            peer: "provisioned and warmed",
            ratio: median / warm,
            spread: (rank(&times, 0.75)? - rank(&times, 0.25)?) / median,
        })
    });
    each.collect()
}

fn table(runs: &[Run]) -> String {
    let mut text = format!(
        "{:<20} {:>5} {:>10} {:>10} {:>10}  from the crash to the first right answer",
        "shadow", "runs", "median ms", "least", "most"
    );
    for case in Case::ALL {
        let times = sorted(runs, case);
        if let (Some(median), Some(least), Some(most)) =
            (rank(&times, 0.5), times.first(), times.last())
        {
            text.push_str(&format!(
                "\n{:<20} {:>5} {median:>10.0} {least:>10.0} {most:>10.0}",
                case.name(),
                times.len()
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_compared_with_the_warmed_shadow() {
        let run = |case, milliseconds| Run {
            case,
            milliseconds,
            warmth: 0.0,
        };
        let runs = [
            run(Case::Warm, 300.0),
            run(Case::Cold, 900.0),
            run(Case::Warm, 100.0),
            run(Case::Warm, 200.0),
        ];
        let metrics = metrics(&runs);
        assert_eq!(metrics.len(), 2);
        assert_eq!((metrics[0].name, metrics[0].ratio), ("provisioned_ms", 4.5));
        assert_eq!((metrics[1].value, metrics[1].ratio), (200.0, 1.0));
        assert!(super::metrics(&runs[1..2]).is_empty(), "a peer is needed");
        assert_eq!(table(&runs).lines().count(), 3);
    }
}
