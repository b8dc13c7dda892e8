//! What the core of a group cannot see or do for its policy: wall time, the store, the socket.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::failover::Input;
use super::handovers::OrderReply;
use super::record::{Recorder, wall_ms};
use crate::config::settings::Settings;
use crate::decide::cluster::{Group, Refusal as CoreRefusal};
use crate::facts::{BootTime, Name, PolicyOrder};
use crate::serve::protocol::{Code, HANDOVER_TIMEOUT, OrderDone, Refusal};

/// How often the loop is told the time of the day.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// An order that was taken.
#[derive(Debug)]
pub struct OrderAnswer {
    /// This host owns the group.
    pub owner: bool,
    /// To whom it hands the group.
    pub to: Option<Name>,
    /// How that ends.
    pub handover: Option<OrderReply>,
}

/// Tells the loop the time of the day, which is for windows of failback alone.
pub fn watch_the_day(settings: &Settings, inputs: &mpsc::Sender<Input>) {
    let mut groups = settings.groups.iter();
    if groups.all(|group| group.policy.failback_window.is_none()) {
        return;
    }
    let inputs = inputs.clone();
    tokio::spawn(async move {
        loop {
            let now = jiff::Zoned::now();
            let minute = u16::from(now.hour().unsigned_abs()) * 60;
            let minute = minute + u16::from(now.minute().unsigned_abs());
            if inputs.send(Input::Minute(minute)).await.is_err() {
                return;
            }
            tokio::time::sleep(TELL_EVERY).await;
        }
    });
}

/// Gives the core what an earlier daemon remembered.
pub fn restore(core: &mut Group, recorder: &Recorder, now: BootTime) -> anyhow::Result<()> {
    if let Some((then, memory)) = recorder.policy(&core.settings().name)? {
        // The boot clock may have begun anew, so only the wall clock tells how long ago it was. One
        // that was set makes an order longer or shorter, and never longer than it was given.
        let elapsed = Duration::from_millis(wall_ms().saturating_sub(then));
        core.restore(memory, elapsed, now);
    }
    Ok(())
}

/// Carries an order out; returns when the group has moved, if it has to.
pub async fn order(
    inputs: &mpsc::Sender<Input>,
    group: Name,
    order: PolicyOrder,
) -> Result<OrderDone, Refusal> {
    let maintenance = matches!(order, PolicyOrder::MaintenanceOn { .. });
    let (reply, answer) = oneshot::channel();
    let input = Input::Order {
        group: group.clone(),
        order,
        reply,
    };
    let busy = |_| {
        let message = "the failover loop is busy";
        Refusal::new(Code::Busy, message, "try again in a second")
    };
    inputs.try_send(input).map_err(busy)?;
    let stopping = |_| {
        let message = "the daemon is stopping";
        Refusal::new(Code::Stopping, message, "try again when it runs")
    };
    let OrderAnswer {
        owner,
        to: _,
        handover,
    } = answer.await.map_err(stopping)??;
    let Some(handover) = handover else {
        return Ok(OrderDone {
            group,
            handed_to: None,
            kept: maintenance && owner,
        });
    };
    let unfinished = |why: String| {
        let message = format!("this host is in maintenance, but still owns {group}: {why}");
        let remedy = "it tries again by itself: see `shadowctl status` and `shadowctl events`";
        Refusal::new(Code::TimedOut, message, remedy)
    };
    match tokio::time::timeout(HANDOVER_TIMEOUT, handover).await {
        Ok(Ok(Ok(done))) => Ok(OrderDone {
            group,
            handed_to: Some(done.to),
            kept: false,
        }),
        Ok(Ok(Err(refusal))) => Err(unfinished(refusal.message)),
        Ok(Err(_)) => Err(unfinished("the daemon is stopping".to_owned())),
        Err(_) => Err(unfinished("the handover did not end in time".to_owned())),
    }
}

/// Why maintenance was refused that is not forced.
pub fn unforced(refusal: &CoreRefusal) -> Refusal {
    let remedy = "see `shadowctl status` for what is down on the other members, or say --force: this \
                  host then keeps the group until one of them can own it";
    Refusal::new(Code::NotEligible, refusal.to_string(), remedy)
}

/// Why a handover, or another order, was refused.
pub fn refused(refusal: &CoreRefusal) -> Refusal {
    let (code, remedy) = match refusal {
        CoreRefusal::NotActive {
            active: Some(active),
        } => (Code::NotActive, format!("run the command on {active}")),
        CoreRefusal::NotActive { active: None } => (
            Code::NotActive,
            "see `shadowctl status` for why nobody is".to_owned(),
        ),
        CoreRefusal::Busy => (Code::Busy, "wait until it has ended".to_owned()),
        CoreRefusal::NoSuchMember(_) => (
            Code::UnknownMember,
            "see `shadowctl status` for the members".to_owned(),
        ),
        CoreRefusal::NotReady(_) | CoreRefusal::NobodyReady => (
            Code::NotEligible,
            "see `shadowctl status` for what is down".to_owned(),
        ),
        CoreRefusal::Ordered => (
            Code::NotEligible,
            "wait until that is over: see `shadowctl status`".to_owned(),
        ),
        CoreRefusal::Borrowed(_) => (
            Code::Busy,
            "end it with `shadowctl failover drill GROUP --end`".to_owned(),
        ),
        CoreRefusal::NoDrill => (
            Code::NotActive,
            "run it on the host that began the drill, or on the active: see `shadowctl status`"
                .to_owned(),
        ),
    };
    Refusal::new(code, refusal.to_string(), remedy)
}
