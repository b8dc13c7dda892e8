//! Bad input to a real daemon, what it may not do, and what capture says of real requests.

use super::configured::Configured;
use super::*;

/// Starts the daemon by hand with this configuration; it must refuse. Gives what it said.
fn refused(pair: &Pair, text: &str, arguments: &[&str]) -> Result<String> {
    let path = "/tmp/wrong.toml";
    pair.lab.write_file(&pair.shadow, path, text)?;
    let start = ["timeout", "10", "/usr/sbin/shadowd", "--config", path];
    let output = pair.lab.exec(&pair.shadow, &[&start, arguments].concat())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => bail!("accepted:\n{text}"),
        Some(124) => bail!("started and ran on:\n{text}"),
        Some(_) => Ok(said),
        None => bail!("ended by a signal: {said}"),
    }
}

#[test]
fn a_wrong_configuration_is_refused_by_file_line_and_key() -> Result<()> {
    let pair = Pair::take()?;
    let epoch = pair.epoch()?;
    let good = pair.lab.run(&pair.shadow, &["cat", CONFIG])?;
    for (key, right, wrong) in [
        ("heartbeat", "heartbeat = \"10ms\"", "heartbeat = \"1ms\""),
        (
            "suspect_after",
            "suspect_after = \"27ms\"",
            "suspect_after = \"11ms\"",
        ),
        ("hartbeat", "heartbeat = \"10ms\"", "hartbeat = \"10ms\""),
        ("vips", "\"192.0.2.10/24\"", "\"192.0.2.10/33\""),
        ("protection", "protection = \"lease\"\n", ""),
        ("protection", "witnesses = [\"w\"]\n", ""),
        ("witnesses", "witnesses = [\"w\"]", "witnesses = [\"a\"]"),
        (
            "lease",
            "protection = \"lease\"",
            "protection = \"lease\"\nlease = \"29ms\"",
        ),
        ("drain", "interface = ", "drain = \"2h\"\ninterface = "),
    ] {
        let text = good.replace(right, wrong);
        ensure!(text != good, "the lab's configuration has no {right}");
        let said = refused(&pair, &text, &["--check"])?;
        ensure!(
            said.contains("/tmp/wrong.toml") && said.contains(key),
            "{key}: {said}"
        );
        // The missing key has no line of its own.
        if let Some(line) = text
            .lines()
            .position(|line| !wrong.is_empty() && line.contains(wrong))
        {
            let line = (line + 1).to_string();
            let numbers = said.split(|c: char| !c.is_ascii_digit());
            ensure!(
                numbers.into_iter().any(|number| number == line),
                "line {line} of {key}: {said}"
            );
        }
    }
    pair.unmoved(epoch)
}

#[test]
fn what_this_host_does_not_have_is_refused() -> Result<()> {
    let pair = Pair::take()?;
    let epoch = pair.epoch()?;
    let good = pair.lab.run(&pair.shadow, &["cat", CONFIG])?;
    let listen = format!(
        "listen = \"{}:7373\"",
        pair.lab.state().host(&pair.shadow)?.v4
    );
    pair.lab.run(&pair.shadow, &["systemctl", "stop", DAEMON])?;
    for (right, wrong, named) in [
        ("\"eth0\"", "\"eth9\"", "eth9"),
        ("\"nginx.service\"", "\"nobody.service\"", "nobody.service"),
        (
            listen.as_str(),
            "listen = \"192.0.2.77:7373\"",
            "192.0.2.77",
        ),
        (
            "members = [\"a\"",
            "members = [\"stranger\", \"a\"",
            "stranger",
        ),
    ] {
        let text = good.replace(right, wrong);
        ensure!(text != good, "the lab's configuration has no {right}");
        for arguments in [&[][..], &["--check"]] {
            let said = refused(&pair, &text, arguments)?;
            ensure!(said.contains(named), "{named} is not named: {said}");
        }
    }
    let text = good.replace("\"192.0.2.10/24\"", "\"198.51.100.10/24\"");
    let said = refused(&pair, &text, &["--check"])?;
    ensure!(said.contains("198.51.100.10/24"), "{said}");
    pair.lab.heal(&pair.shadow)?;
    pair.unmoved(epoch)
}

#[test]
fn an_unknown_group_or_member_is_refused_and_changes_nothing() -> Result<()> {
    let pair = Pair::take()?;
    let epoch = pair.epoch()?;
    for arguments in [
        ["failover", "handover", "nobodys", "--to", &pair.shadow],
        ["failover", "handover", GROUP, "--to", "stranger"],
    ] {
        let output = pair
            .lab
            .exec(&pair.active, &[&["shadowctl"], &arguments[..]].concat())?;
        ensure!(output.status.code() == Some(1), "{arguments:?}: {output:?}");
    }
    pair.unmoved(epoch)
}

const NO_BPF: &str = "/etc/systemd/system/shadowd.service.d/no-bpf.conf";

/// A pair whose shadow may not use eBPF after its next start, until this is dropped.
struct Unprivileged(Configured);

impl Unprivileged {
    /// Without a guard an owner gives the group up at the first lapse of its lease, and a machine
    /// that is shared with others makes those: hence the patience.
    fn shadow() -> Result<Self> {
        let this = Self(Configured::patient(str::to_owned)?);
        let Pair { lab, shadow, .. } = &this.0.pair;
        let text = "[Service]\nCapabilityBoundingSet=~CAP_BPF CAP_PERFMON CAP_SYS_ADMIN\n";
        lab.run(
            shadow,
            &["mkdir", "-p", "/etc/systemd/system/shadowd.service.d"],
        )?;
        lab.write_file(shadow, NO_BPF, text)?;
        lab.run(shadow, &["systemctl", "daemon-reload"])?;
        Ok(this)
    }
}

impl Drop for Unprivileged {
    fn drop(&mut self) {
        let Pair { lab, shadow, .. } = &self.0.pair;
        let undo = format!("rm -f {NO_BPF} && systemctl daemon-reload");
        if let Err(error) = lab.run(shadow, &["sh", "-c", &undo]) {
            eprintln!("host {shadow} still refuses eBPF: {error:#}");
        }
    }
}

/// A kernel, or a service manager, that refuses eBPF costs the probes and nothing else.
#[test]
fn without_ebpf_the_probes_say_why_and_failover_goes_on() -> Result<()> {
    let unprivileged = Unprivileged::shadow()?;
    let pair = &unprivileged.0.pair;
    let restart = ["systemctl", "restart", DAEMON];
    // Without the kernel's guard a lease is kept by the daemon alone, which has to be said.
    let refused = pair.lab.run(&pair.shadow, &restart);
    ensure!(refused.is_err(), "no guard, and the daemon starts");
    let journal = ["journalctl", "--no-pager", "-n", "30", "-u", DAEMON];
    let said = pair.lab.run(&pair.shadow, &journal)?;
    ensure!(said.contains("guard = false"), "{said}");
    let guarded = pair.lab.run(&pair.shadow, &["cat", CONFIG])?;
    let alone = guarded.replace(
        "protection = \"lease\"",
        "protection = \"lease\"\nguard = false",
    );
    pair.lab.write_file(&pair.shadow, CONFIG, &alone)?;
    pair.lab.run(&pair.shadow, &restart)?;
    pair.lab.wait(
        LONG,
        "every kernel probe to be off, with the reason",
        || {
            let status = pair.lab.ask(&pair.shadow, &["status"])?;
            let probes = status["capture"]["probes"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let others = ["procfs", "dns"];
            let kernel = probes.iter();
            let kernel = kernel.filter(|probe| !others.iter().any(|name| probe["name"] == *name));
            // What sock_diag and procfs can feed they feed; no program runs, and each says why.
            let off = |probe: &Value| {
                let hook = probe["hook"].as_str().unwrap_or_default();
                let program = [
                    "raw_tp ", "tp_btf ", "fentry ", "fexit ", "iter ", "cgroup ",
                ];
                !program.iter().any(|kind| hook.contains(kind)) && probe["degraded"].is_string()
            };
            let procfs = probes
                .iter()
                .any(|probe| probe["name"] == "procfs" && !probe["hook"].is_null());
            Ok(procfs && probes.len() > 5 && kernel.into_iter().all(off))
        },
    )?;
    ensure!(
        pair.lab.converge(LONG)? == pair.active,
        "the restart of a shadow moved the group"
    );
    pair.lab
        .fault(&pair.active, &Fault::UnitKill(WARM.to_owned()))?;
    pair.wait_takeover()?;
    pair.wait_return()
}

#[test]
fn garbage_datagrams_are_counted_and_change_nothing() -> Result<()> {
    let pair = Pair::take()?;
    let epoch = pair.epoch()?;
    let refused = || -> Result<u64> {
        let status = pair.lab.ask(&pair.active, &["status"])?;
        let counted = |part: &Value| sum(part, "malformed") + sum(part, "forged");
        Ok(counted(&status["strangers"]) + counted(&status["peers"]))
    };
    let before = refused()?;
    let target = pair.lab.state().host(&pair.active)?.v4;
    let line = format!(
        "for n in $(seq 50); do head -c $((n * 20)) /dev/urandom > /dev/udp/{target}/7373; done"
    );
    // From the client, a stranger; and from the peer's own address.
    let stranger = pair.lab.client_command(&["bash", "-c", &line])?;
    run(stranger, None, SHORT)?;
    pair.lab.run(&pair.shadow, &["bash", "-c", &line])?;
    pair.lab.wait(TAKEOVER, "100 datagrams to be counted", || {
        Ok(refused()? >= before + 100)
    })?;
    pair.unmoved(epoch)
}

/// Says something to the daemon's socket; gives what it answers before it closes.
fn say(pair: &Pair, words: &[u8]) -> Result<String> {
    let mut socket = UnixStream::connect(pair.lab.path_in(&pair.active, SOCKET)?)?;
    socket.set_read_timeout(Some(SHORT))?;
    // The daemon may close before it has read all of it.
    let _ = socket.write_all(words);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = socket.take(1 << 20).read_to_end(&mut answer);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn malformed_requests_get_an_error_and_change_nothing() -> Result<()> {
    let pair = Pair::take()?;
    let epoch = pair.epoch()?;
    let path = format!("/v1/groups/{GROUP}/handover");
    let post = |body: &str| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    };
    let long = post(&format!("{{\"to\":\"{}\"}}", "x".repeat(1 << 17)));
    for (words, status) in [
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00".as_slice(), "400"),
        (b"GET / HTTP/9.9\r\n\r\n", "400"),
        (
            b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "404",
        ),
        (post("{").as_bytes(), "400"),
        (post("{\"to\":\"nobody\"}").as_bytes(), "404"),
        (post("{\"too\":\"b\"}").as_bytes(), "400"),
        (long.as_bytes(), "413"),
    ] {
        let answer = say(&pair, words)?;
        let line = answer.lines().next().unwrap_or_default();
        let asked = String::from_utf8_lossy(&words[..words.len().min(60)]).into_owned();
        // Garbage may be answered by closing; a request must be answered.
        let closed = answer.is_empty() && status == "400" && !words.starts_with(b"POST");
        ensure!(
            closed || line.contains(status),
            "{asked:?}: {answer:?}, expected {status}"
        );
    }
    pair.unmoved(epoch)
}

#[test]
fn who_may_not_change_anything_is_told_so() -> Result<()> {
    let pair = Pair::take()?;
    let epoch = pair.epoch()?;
    let handover = ["shadowctl", "failover", "handover", GROUP];
    let reader = [
        "setpriv",
        "--reuid=65534",
        "--regid=shadowd",
        "--clear-groups",
        "--",
    ];
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
    ];
    let code = |arguments: &[&str]| -> Result<Option<i32>> {
        Ok(pair.lab.exec(&pair.active, arguments)?.status.code())
    };
    ensure!(code(&[&reader[..], &["shadowctl", "status"]].concat())? == Some(0));
    ensure!(code(&[&reader[..], &handover].concat())? == Some(4));
    ensure!(code(&[&nobody[..], &["shadowctl", "status"]].concat())? == Some(4));
    ensure!(code(&[&nobody[..], &handover].concat())? == Some(4));
    pair.unmoved(epoch)
}

#[test]
fn flows_count_the_bytes_that_curl_counts() -> Result<()> {
    let pair = Pair::take()?;
    for url in [
        format!("http://{VIP_V4}/"),
        format!("http://{VIP_V4}/not-there"),
    ] {
        xtask::demo::compare(&pair.lab, &pair.active, &url)?;
    }
    Ok(())
}
