//! Several groups on the same hosts: actives that are spread, and a group that a host has no more.

use super::configured::Configured;
use super::*;

const MAIL: &str = "mail";
const MAIL_VIP: &str = "192.0.2.20";

/// Every host has a second group, with the same members and witness, addresses of its own and no
/// unit, which can be in one group only.
fn two_groups() -> Result<Configured> {
    Configured::everywhere(|text, _| {
        let (from, to) = (text.find("[[group]]"), text.find("[[group.unit]]"));
        let web = &text[from.unwrap_or(text.len())..to.unwrap_or(text.len())];
        let mail = web
            .replace("\"web\"", "\"mail\"")
            .replace("192.0.2.10/24", "192.0.2.20/24")
            .replace("2001:db8::10/64", "2001:db8::20/64");
        format!("{text}\n{mail}")
    })
}

/// The second group, as a host tells it.
fn mail(pair: &Pair, host: &str) -> Result<Value> {
    let mut status = pair.lab.ask(host, &["status"])?;
    let groups = status["groups"].as_array_mut().context("groups")?;
    let found = groups.iter_mut().find(|group| group["group"] == MAIL);
    Ok(found.context("the second group")?.take())
}

fn has_mail(pair: &Pair, host: &str) -> Result<bool> {
    Ok(pair.lab.holders(MAIL_VIP.parse()?)? == [host])
}

/// The second group is at `host`, and the other member could take it over.
fn wait_mail_at(pair: &Pair, host: &str) -> Result<()> {
    let what = format!("{host} to own the second group");
    pair.lab.wait(LONG, &what, || {
        let seen = mail(pair, host)?;
        let members = seen["members"].as_array().context("members")?;
        let voters = members.iter().filter(|member| member["spare"] != true);
        let well = |member: &Value| member["eligible"] == true && member["suspected"] == false;
        Ok(seen["role"] == "active" && voters.clone().all(well) && has_mail(pair, host)?)
    })
}

/// The second group is at the shadow of the first.
fn spread(groups: &Configured) -> Result<()> {
    let pair = &groups.pair;
    pair.lab.wait(LONG, "an owner of the second group", || {
        Ok(has_mail(pair, &pair.active)? || has_mail(pair, &pair.shadow)?)
    })?;
    if has_mail(pair, &pair.active)? {
        wait_mail_at(pair, &pair.active)?;
        groups.wait_for_short_promises()?;
        let line = ["shadowctl", "failover", "handover", MAIL];
        pair.lab.run(&pair.active, &line)?;
    }
    wait_mail_at(pair, &pair.shadow)
}

#[test]
fn actives_are_spread_and_the_host_that_is_left_carries_both() -> Result<()> {
    let groups = two_groups()?;
    spread(&groups)?;
    groups.wait_for_short_promises()?;
    let pair = &groups.pair;
    let epoch = pair.epoch()?;
    pair.lab.fault(&pair.shadow, &Fault::Crash)?;
    pair.lab.wait(TAKEOVER, "the active to own both", || {
        let first = pair.lab.view(&pair.active)?;
        ensure!(first.role == "active", "the first group moved: {first:?}");
        Ok(mail(pair, &pair.active)?["role"] == "active")
    })?;
    pair.lab.heal(&pair.shadow)?;
    pair.unmoved(epoch)?;
    wait_mail_at(pair, &pair.active)
}

/// The owner of the second group gets a configuration without it, which no daemon has read yet.
fn forget_mail(pair: &Pair) -> Result<()> {
    let both = pair.lab.run(&pair.shadow, &["cat", CONFIG])?;
    let second = both.find("name = \"mail\"").context("a second group")?;
    let end = both[..second].rfind("[[group]]").context("a table")?;
    pair.lab.write_file(&pair.shadow, CONFIG, &both[..end])
}

/// The other member has the second group, and it alone has the address.
fn wait_moved(pair: &Pair) -> Result<()> {
    pair.lab.wait(TAKEOVER, "the other to have it alone", || {
        Ok(mail(pair, &pair.active)?["role"] == "active" && has_mail(pair, &pair.active)?)
    })
}

/// What nobody watches any more must not answer beside the next owner.
#[test]
fn a_group_that_its_owner_has_no_more_is_given_up_before_it_is_forgotten() -> Result<()> {
    let groups = two_groups()?;
    spread(&groups)?;
    let pair = &groups.pair;
    forget_mail(pair)?;
    let seen = pair.lab.newest_event(&pair.active)?;
    pair.lab
        .run(&pair.shadow, &["systemctl", "reload", DAEMON])?;
    wait_moved(pair)?;
    let events = pair.lab.events(&pair.active, seen)?;
    let claimed = |event: &&Value| event["kind"] == "claimed" && event["group"] == MAIL;
    let claimed = events.iter().find(claimed).context("a claim")?;
    ensure!(claimed["cause"] == "daemon_stopped", "{claimed}");
    pair.lab.converge(LONG)?;
    ensure!(has_mail(pair, &pair.active)?, "held twice");
    Ok(())
}

#[test]
fn a_daemon_that_was_killed_leaves_no_address_of_a_group_that_it_has_no_more() -> Result<()> {
    let groups = two_groups()?;
    spread(&groups)?;
    let pair = &groups.pair;
    forget_mail(pair)?;
    pair.lab.fault(&pair.shadow, &Fault::DaemonKill)?;
    pair.lab.heal_with(&pair.shadow, &[DAEMON])?;
    wait_moved(pair)?;
    let journal = ["journalctl", "--no-pager", "-n", "60", "-u", DAEMON];
    let said = pair.lab.run(&pair.shadow, &journal)?;
    ensure!(said.contains("not configured any more"), "{said}");
    pair.lab.converge(LONG).map(drop)
}
