//! What happens on healthy hosts: logs are rotated, systemd and the daemon read their files again, the
//! daemon is restarted, the group is handed over and back.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::scene::Scene;
use crate::lab::{DAEMON, GROUP, Lab, WARM};

/// Something of it comes this often.
pub const EVERY: Duration = Duration::from_secs(20);
/// All is well again after so long.
const WELL_WITHIN: Duration = Duration::from_secs(60);

/// Which of both members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// Who owns the group.
    Active,
    /// The other one.
    Shadow,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// nginx's log is moved away, and nginx opens another one.
    RotateLogs(Member),
    /// systemd reads all units again.
    ReloadUnits(Member),
    /// nginx reads its configuration again.
    ReloadService(Member),
    /// shadowd reads its configuration again.
    ReloadDaemon(Member),
    /// shadowd is restarted.
    RestartDaemon(Member),
    /// The group is handed over.
    HandOver,
    /// PostgreSQL is asked.
    Query,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, member) = match self {
            Self::RotateLogs(member) => ("a rotation of logs", Some(member)),
            Self::ReloadUnits(member) => ("a daemon-reload", Some(member)),
            Self::ReloadService(member) => ("a reload of nginx", Some(member)),
            Self::ReloadDaemon(member) => ("a reload of shadowd", Some(member)),
            Self::RestartDaemon(member) => ("a restart of shadowd", Some(member)),
            Self::HandOver => ("a handover", None),
            Self::Query => ("a query", None),
        };
        match member {
            Some(Member::Active) => write!(f, "{what} on the active"),
            Some(Member::Shadow) => write!(f, "{what} on the shadow"),
            None => f.write_str(what),
        }
    }
}

/// The acts of a round, in turn.
pub const ROUND: [Act; 14] = [
    Act::Query,
    Act::RotateLogs(Member::Active),
    Act::ReloadUnits(Member::Shadow),
    Act::ReloadDaemon(Member::Active),
    Act::RotateLogs(Member::Shadow),
    Act::RestartDaemon(Member::Shadow),
    Act::HandOver,
    Act::Query,
    Act::ReloadUnits(Member::Active),
    Act::ReloadService(Member::Shadow),
    Act::ReloadDaemon(Member::Shadow),
    Act::RestartDaemon(Member::Active),
    Act::ReloadService(Member::Active),
    Act::HandOver,
];

/// Does it on a pair that is well; waits until it is so again. Gives the active afterwards.
///
/// # Errors
/// A step is refused, or the pair does not get well.
pub fn perform(act: Act, scene: &Scene<'_>, lab: &Lab) -> Result<String> {
    let active = lab.converge(WELL_WITHIN)?;
    let mut members = lab.state().members().map(|host| host.name.clone());
    let shadow = members.find(|name| *name != active);
    let shadow = shadow.context("the lab has one host only")?;
    let on = |member: Member| match member {
        Member::Active => active.as_str(),
        Member::Shadow => shadow.as_str(),
    };
    let told = |host: &str, line: &str| lab.run(host, &["sh", "-ec", line]).map(drop);
    match act {
        Act::RotateLogs(member) => {
            let rotate = format!(
                "mv -f /var/log/nginx/access.log /var/log/nginx/access.log.1; \
                 systemctl kill --kill-whom=main -s USR1 {WARM}"
            );
            told(on(member), &rotate)?;
        }
        Act::ReloadUnits(member) => told(on(member), "systemctl daemon-reload")?,
        Act::ReloadService(member) => told(on(member), &format!("systemctl reload {WARM}"))?,
        Act::ReloadDaemon(member) => told(on(member), &format!("systemctl reload {DAEMON}"))?,
        Act::RestartDaemon(member) => told(on(member), &format!("systemctl restart {DAEMON}"))?,
        Act::HandOver => {
            let order = ["shadowctl", "failover", "handover", GROUP, "--to", &shadow];
            lab.run(&active, &order)?;
        }
        Act::Query => drop(scene.ask_database(&active)?),
    }
    lab.converge(WELL_WITHIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_ends_where_it_began_and_has_everything() {
        let handovers = ROUND.iter().filter(|act| **act == Act::HandOver).count();
        assert_eq!(handovers % 2, 0);
        for act in [Act::ReloadUnits, Act::RestartDaemon, Act::RotateLogs] {
            for member in [Member::Active, Member::Shadow] {
                assert!(ROUND.contains(&act(member)), "{}", act(member));
            }
        }
    }
}
