//! Shows what capture sees of real traffic, and holds it against what the client counted.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::lab::command::{SHORT, run};
use crate::lab::{CLIENT_V4, Lab, VIP_V4, WARM};

/// Payload bytes of connections that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Connections.
    pub closed: u64,
    /// Received by the server.
    pub rx: u64,
    /// Sent by the server.
    pub tx: u64,
}

/// Runs `wrk` and `curl` and shows `top` and `flows` of the active.
///
/// # Errors
/// A program fails, or flows and client disagree.
pub fn show(lab: &Lab) -> Result<()> {
    let active = lab.converge(Duration::from_secs(30))?;
    println!("\n# capture: three seconds of wrk from {CLIENT_V4} to {VIP_V4}, on host {active}");
    let url = format!("http://{VIP_V4}/");
    let wrk = lab.client_command(&[
        "wrk",
        "-t1",
        "-c8",
        "-d3s",
        "--header",
        "Connection: close",
        &url,
    ])?;
    println!(
        "{}",
        run(wrk, None, SHORT)
            .context("wrk (`cargo xtask setup` installs it)")?
            .trim()
    );
    println!(
        "\n$ shadowctl top --limit 8\n{}",
        lab.run(&active, &["shadowctl", "top", "--limit", "8"])?
    );
    let client = CLIENT_V4.to_string();
    let shown = lab.run(
        &active,
        &["shadowctl", "flows", "--unit", WARM, "--remote", &client],
    )?;
    println!("$ shadowctl flows --unit {WARM} --remote {client}\n{shown}");
    compare(lab, &active, &url)
}

/// One request by `curl`: what it counted, what nginx logged and what flows say must be the same.
///
/// # Errors
/// They are not, or a program fails.
pub fn compare(lab: &Lab, active: &str, url: &str) -> Result<()> {
    let before = settled(lab, active)?;
    let told = curl(lab, url)?;
    let mut after = before;
    lab.wait(Duration::from_secs(10), "flows to show the request", || {
        after = flows(lab, active)?;
        Ok(after.closed > before.closed)
    })?;
    let seen = Bytes {
        closed: after.closed - before.closed,
        rx: after.rx.saturating_sub(before.rx),
        tx: after.tx.saturating_sub(before.tx),
    };
    let logged = logged(lab, active)?;
    println!("one request, bytes (received, sent by the server):");
    println!(
        "  curl {} {}  nginx {} {}  shadowctl flows {} {}",
        told.rx, told.tx, logged.rx, logged.tx, seen.rx, seen.tx
    );
    if seen != told || logged != told {
        bail!("curl counted {told:?}, nginx {logged:?}, flows {seen:?}");
    }
    Ok(())
}

/// The flows of the warm unit with the client, once two looks in a row agree.
fn settled(lab: &Lab, active: &str) -> Result<Bytes> {
    let mut last = None;
    let mut steady = 0;
    lab.wait(Duration::from_secs(20), "flows to settle", || {
        let at = lab.ask(active, &["flows"])?["at"].as_u64();
        let now = Some((at, flows(lab, active)?));
        // Only a newer interval says something.
        if now.map(|(at, _)| at) != last.map(|(at, _)| at) {
            let same = now.map(|(_, bytes)| bytes) == last.map(|(_, bytes)| bytes);
            steady = if same { steady + 1 } else { 0 };
            last = now;
        }
        Ok(steady >= 2)
    })?;
    Ok(last.map(|(_, bytes)| bytes).unwrap_or_default())
}

fn flows(lab: &Lab, active: &str) -> Result<Bytes> {
    let client = CLIENT_V4.to_string();
    let answer = lab.ask(active, &["flows", "--unit", WARM, "--remote", &client])?;
    let flows = answer["flows"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let inbound = flows.iter().filter(|flow| flow["direction"] == "inbound");
    let count = |flow: &Value, field: &str| flow[field].as_u64().unwrap_or_default();
    Ok(inbound.fold(Bytes::default(), |sum, flow| Bytes {
        closed: sum.closed + count(&flow["total"], "closed"),
        rx: sum.rx + count(&flow["total"], "rx_bytes"),
        tx: sum.tx + count(&flow["total"], "tx_bytes"),
    }))
}

fn curl(lab: &Lab, url: &str) -> Result<Bytes> {
    let format = "%{size_request} %{size_header} %{size_download}";
    let arguments = [
        "curl",
        "-s",
        "-m",
        "5",
        "-o",
        "/dev/null",
        "-w",
        format,
        url,
    ];
    let said = run(lab.client_command(&arguments)?, None, SHORT)?;
    let [request, header, body] = numbers(&said)?;
    Ok(Bytes {
        closed: 1,
        rx: request,
        tx: header + body,
    })
}

/// The last line of nginx's log of accesses: request length and bytes sent are its third and
/// fourth word.
fn logged(lab: &Lab, active: &str) -> Result<Bytes> {
    let line = lab.run(active, &["tail", "-n", "1", "/var/log/nginx/access.log"])?;
    let words: Vec<&str> = line.split_whitespace().skip(2).collect();
    let [rx, tx, _] = numbers(&words.join(" "))?;
    Ok(Bytes { closed: 1, rx, tx })
}

fn numbers(text: &str) -> Result<[u64; 3]> {
    let numbers: Vec<u64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    numbers
        .try_into()
        .map_err(|_| anyhow::anyhow!("expected three numbers, got {text:?}"))
}
