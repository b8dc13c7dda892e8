//! Hooks and alerts on real hosts: told what happens, killed with all they started, and told the
//! last state whatever happens to the daemon meanwhile.

use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};
use xtask::lab::CLIENT_V4;

use super::configured::Configured;
use super::*;

/// Retries of a webhook are up to a minute apart.
const RETRIED: Duration = Duration::from_secs(120);
const PORT: u16 = 8099;
const AT: SocketAddrV4 = SocketAddrV4::new(CLIENT_V4, PORT);

fn receiver(told: &Configured, host: &str, name: &str) -> Result<Value> {
    let mut answer = told.pair.lab.ask(host, &["hooks"])?;
    let all = answer["receivers"].as_array_mut();
    let found = all.and_then(|all| all.iter_mut().find(|it| it["name"] == name));
    Ok(found.with_context(|| format!("no {name}"))?.take())
}

#[test]
fn a_hook_is_told_who_is_active_and_why() -> Result<()> {
    let told = Configured::with(
        r#"[[hook]]
name = "tell"
command = ["/bin/sh", "-c", 'env > /run/told.new; mv /run/told.new /run/told.$SHADOWD_EVENT']"#,
    )?;
    let pair = &told.pair;
    told.says(&pair.active, "/run/told.active", |text| !text.is_empty())?;
    told.says(&pair.shadow, "/run/told.shadow", |text| !text.is_empty())?;
    let forget = ["rm", "-f", "/run/told.active", "/run/told.shadow"];
    pair.lab.run(&pair.active, &forget)?;
    pair.lab.fault(&pair.active, &Fault::DaemonKill)?;
    pair.wait_takeover()?;
    let said = told.says(&pair.shadow, "/run/told.active", |text| {
        text.contains("SHADOWD_EVENT=active")
    })?;
    let epoch = pair.lab.view(&pair.shadow)?.epoch;
    for line in [
        "SHADOWD_GROUP=web".to_owned(),
        "SHADOWD_ROLE=active".to_owned(),
        format!("SHADOWD_ACTIVE={}", pair.shadow),
        format!("SHADOWD_HOST={}", pair.shadow),
        format!("SHADOWD_EPOCH={epoch}"),
    ] {
        ensure!(said.lines().any(|known| known == line), "{line}: {said}");
    }
    let cause = said.lines().find(|line| line.starts_with("SHADOWD_CAUSE="));
    ensure!(cause.is_some_and(|line| line.len() > 14), "{said}");
    // It was killed as the owner and knows, when it is back, what it has told last.
    told.says(&pair.active, "/run/told.shadow", |text| {
        text.contains("SHADOWD_EVENT=shadow")
    })?;
    let counts = receiver(&told, &pair.shadow, "tell")?["counts"].take();
    ensure!(counts["delivered"].as_u64() >= Some(2), "{counts}");
    pair.wait_return()
}

/// The hook and two processes it starts ignore SIGTERM; one of them has left its session.
#[test]
fn a_hook_that_hangs_is_killed_with_all_it_started_and_delays_nothing() -> Result<()> {
    let told = Configured::with(
        r#"[[hook]]
name = "hang"
command = ["/bin/sh", "-c", "trap '' TERM; sleep 98765 & setsid sleep 98765 & sleep 98765; sleep 98765"]
events = ["active"]
deadline = "10s""#,
    )?;
    let pair = &told.pair;
    let lab = &pair.lab;
    let sleepers = || -> Result<Vec<String>> {
        let one = r#"[ "$(tr '\0' ' ' < $p/cmdline)" = 'sleep 98765 ' ] && echo $p"#;
        let line = format!("for p in /proc/[0-9]*; do {one}; done 2>/dev/null; true");
        let said = lab.run(&pair.shadow, &["sh", "-c", &line])?;
        Ok(said.lines().map(str::to_owned).collect())
    };
    // It hangs already where the group moved away for the new configuration.
    let mut before = 0;
    lab.wait(LONG, "the shadow's hook to rest", || {
        let hook = receiver(&told, &pair.shadow, "hang")?;
        before = hook["counts"]["timed_out"].as_u64().context("a count")?;
        Ok(hook["running"].is_null() && hook["waiting"] == 0)
    })?;
    let since = lab.events(&pair.shadow, 0)?;
    let since = since.last().and_then(|event| event["seq"].as_u64());
    lab.fault(&pair.active, &Fault::DaemonKill)?;
    let mut hung = Vec::new();
    lab.wait(LONG, "the hook to hang", || {
        hung = sleepers()?;
        Ok(hung.len() == 3)
    })?;
    pair.wait_takeover()?;
    let mut events = Vec::new();
    lab.wait(LONG, "the hook to be killed", || {
        events = lab.events(&pair.shadow, since.unwrap_or_default())?;
        Ok(events.iter().any(|event| event["kind"] == "notice_failed"))
    })?;
    let find = |kind: &str| {
        let found = events.iter().find(|event| event["kind"] == kind);
        found.with_context(|| format!("no {kind}: {events:?}"))
    };
    let detail = find("notice_failed")?["detail"]
        .as_str()
        .unwrap_or_default();
    ensure!(detail.contains("killed at its deadline"), "{detail}");
    // It runs anew where the group lapsed meanwhile and came back in another epoch.
    let now = sleepers()?;
    let left: Vec<_> = hung.iter().filter(|it| now.contains(it)).collect();
    ensure!(
        left.is_empty(),
        "of {hung:?}, {left:?} are left: {events:?}"
    );
    lab.wait(LONG, "the hook's unit to end", || {
        Ok(lab.unit_state(&pair.shadow, "shadowd-hook-hang.service")? == "inactive")
    })?;
    let at = |kind: &str| Ok::<_, anyhow::Error>(find(kind)?["boot_ns"].as_u64().unwrap_or(0));
    let took = Duration::from_nanos(at("announced")?.saturating_sub(at("claimed")?));
    ensure!(took < Duration::from_secs(1), "announced after {took:?}");
    let counts = receiver(&told, &pair.shadow, "hang")?["counts"].take();
    ensure!(counts["timed_out"].as_u64() > Some(before), "{counts}");
    pair.wait_return()
}

#[test]
fn a_daemon_that_is_killed_during_a_hook_still_tells_the_last_state() -> Result<()> {
    let told = Configured::with(
        r#"[[hook]]
name = "slow"
command = ["/bin/sh", "-c", "echo $SHADOWD_EVENT >> /run/told.begun; sleep 8; echo $SHADOWD_EVENT >> /run/told"]"#,
    )?;
    let pair = &told.pair;
    let ends = |word: &'static str| move |text: &str| text.trim_end().ends_with(word);
    told.says(&pair.active, "/run/told", ends("active"))?;
    told.says(&pair.shadow, "/run/told", ends("shadow"))?;
    pair.lab
        .run(&pair.active, &["shadowctl", "failover", "handover", GROUP])?;
    // The new owner's daemon dies while its hook is being told so: the group goes back.
    told.says(&pair.shadow, "/run/told.begun", ends("active"))?;
    pair.lab.fault(&pair.shadow, &Fault::DaemonKill)?;
    pair.lab.wait(LONG, "the group to go back", || {
        Ok(pair.lab.view(&pair.active)?.role == "active")
    })?;
    let all = told.says(&pair.shadow, "/run/told", ends("active\nshadow"))?;
    ensure!(all == "shadow\nactive\nshadow\n", "it was told {all:?}");
    told.says(&pair.active, "/run/told", ends("active"))?;
    pair.lab.heal(&pair.shadow)?;
    pair.lab.converge(LONG).map(drop)
}

/// A server at the client's that takes every message; what it took is its end.
struct Server {
    netns: String,
    thread: JoinHandle<Result<Vec<Value>>>,
}

impl Server {
    fn start(netns: &str) -> Result<Self> {
        let listener = within(netns, || Ok(TcpListener::bind(AT)?))?;
        let thread = std::thread::spawn(move || {
            let mut taken = Vec::new();
            loop {
                let (stream, _) = listener.accept()?;
                match take_one(stream)? {
                    Some(message) => taken.push(message),
                    None => return Ok(taken),
                }
            }
        });
        let netns = netns.to_owned();
        Ok(Self { netns, thread })
    }

    /// A connection that says nothing is the end.
    fn end(self) -> Result<Vec<Value>> {
        within(&self.netns, || Ok(TcpStream::connect(AT)?))?;
        self.thread.join().map_err(|_| anyhow::anyhow!("it died"))?
    }
}

/// Does it in another network namespace: a socket stays in the one that it was made in.
fn within<T: Send>(netns: &str, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = format!("/run/netns/{netns}");
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(std::fs::File::open(path)?, CloneFlags::CLONE_NEWNET)?;
            act()
        });
        thread.join().map_err(|_| anyhow::anyhow!("it died"))?
    })
}

/// One message; none from a connection that ends without a word.
fn take_one(mut stream: TcpStream) -> Result<Option<Value>> {
    stream.set_read_timeout(Some(SHORT))?;
    let mut text = Vec::new();
    loop {
        let mut part = [0; 4096];
        let length = stream.read(&mut part)?;
        if length == 0 && text.is_empty() {
            return Ok(None);
        }
        ensure!(length > 0, "the message ends too early");
        text.extend_from_slice(&part[..length]);
        let body = text.windows(4).position(|four| four == b"\r\n\r\n");
        let body = body.map(|at| &text[at + 4..]).unwrap_or_default();
        if let Ok(value) = serde_json::from_slice(body) {
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
            return Ok(Some(value));
        }
    }
}

#[test]
fn a_webhook_that_was_down_is_told_the_last_state_and_nothing_before_it() -> Result<()> {
    let told = Configured::with(&format!(
        "[[alert]]\nname = \"ops\"\nwebhook = \"http://{CLIENT_V4}:{PORT}/in\"\nseverity = \"info\""
    ))?;
    let pair = &told.pair;
    for (from, to) in [(&pair.active, &pair.shadow), (&pair.shadow, &pair.active)] {
        pair.lab.run(
            from,
            &["shadowctl", "failover", "handover", GROUP, "--to", to],
        )?;
        pair.lab.converge(LONG)?;
    }
    for host in [&pair.active, &pair.shadow] {
        pair.lab.wait(LONG, "a try in vain", || {
            Ok(receiver(&told, host, "ops")?["counts"]["retried"].as_u64() > Some(0))
        })?;
    }
    let epoch = pair.epoch()?;
    let server = Server::start(pair.lab.client()?)?;
    for host in [&pair.active, &pair.shadow] {
        pair.lab.wait(RETRIED, "all to be told", || {
            let ops = receiver(&told, host, "ops")?;
            let quiet = ops["waiting"] == 0 && ops["running"].is_null();
            Ok(quiet && ops["last"]["ok"] == true)
        })?;
    }
    let taken = server.end()?;
    let roles = |host: &str| -> Vec<Value> {
        let key = format!("{host}/{GROUP}/role");
        let of = taken.iter().filter(|one| one["key"] == key.as_str());
        of.cloned().collect()
    };
    let (active, shadow) = (roles(&pair.active), roles(&pair.shadow));
    ensure!(active.len() == 1 && shadow.len() == 1, "{taken:?}");
    ensure!(
        active[0]["event"] == "active" && active[0]["epoch"] == epoch,
        "{taken:?}"
    );
    ensure!(active[0]["skipped"].as_u64() > Some(0), "{taken:?}");
    ensure!(shadow[0]["event"] == "shadow", "{taken:?}");
    Ok(())
}
