//! The event loop: simulated time, the network between the hosts, and what actions do.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shadowd::decide::cluster::Done;
use shadowd::facts::{BootTime, GroupMessage, Name, PolicyOrder};

use super::broken::{self, Broken};
use super::check::{Checker, Violation};
use super::daemon::Input;
use super::faults::Plan;
use super::host::{Host, SUSPECT_AFTER, group, name};
use super::queue::Queue;
use super::restart::Written;
use super::service::Service;

/// What a run came to, beside its violations.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Events handled, each followed by a check of every invariant.
    pub steps: u64,
    /// Ownerships taken.
    pub claims: u64,
    /// How long, at most, two hosts answered at once: zero within the bound on clocks.
    pub both: Duration,
    /// How long, at most, nobody answered while a majority was well and nobody else disturbed it.
    pub dark: Duration,
    /// As `dark`, but others may disturb.
    pub dark_disturbed: Duration,
    /// Owners that ended to be restarted, and kept the group.
    pub pauses: u64,
    /// Ownerships taken by spares.
    pub spare_claims: u64,
}

#[derive(Debug)]
pub(super) enum Event {
    Deliver {
        to: usize,
        from: usize,
        /// The run of the sender's daemon.
        run: u32,
        sent: BootTime,
        heard: Option<BootTime>,
        message: GroupMessage,
    },
    Timer {
        host: usize,
        incarnation: u32,
    },
    Done {
        host: usize,
        incarnation: u32,
        done: Done,
    },
    Job {
        host: usize,
        boots: u32,
        incarnation: u32,
        done: Done,
    },
    Kept(usize, Written),
    KernelSays {
        host: usize,
        incarnation: u32,
        word: Input,
    },
    Order(usize, PolicyOrder),
    Begin(usize),
    End(usize),
    Look,
    Settle,
}

/// A cluster in the middle of a run.
pub struct World {
    pub(super) now: Duration,
    pub(super) hosts: Vec<Host>,
    /// How many cuts lie on the way from one host to another.
    pub(super) cuts: Vec<Vec<u32>>,
    pub(super) loss: u8,
    pub(super) late: u8,
    pub(super) plan: Plan,
    pub(super) rng: ChaCha8Rng,
    queue: Queue<Event>,
    pub(super) group: Name,
    /// Hosts to which something happened in this step.
    pub(super) touched: u32,
    pub(super) outcome: Outcome,
    trace: Option<Vec<String>>,
    /// A suspicion that what has arrived would have cleared.
    pub(super) unjust: Option<String>,
}

/// When runs begin, so that hosts can have booted before.
pub(super) const START: Duration = Duration::from_secs(100);
/// Steps of a run with leases as long as usual; one without storms takes some thousands.
const STEPS_MAX: u64 = 60_000;
/// Between two looks at a healed cluster.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// One that is well at so many looks in a row needs no more time.
const LOOKS: u32 = 4;
/// Time to settle after the last fault, at most: then the end state is judged.
pub const SETTLE: Duration = Duration::from_millis(2_000);

impl World {
    /// Runs the plan of `seed` to its end. The error names the broken invariant.
    pub fn run(seed: u64, traced: bool) -> Result<Outcome, Violation> {
        Self::run_with(seed, traced, |_| {})
    }

    /// As [`Self::run`], with a plan that was changed.
    pub fn run_with(
        seed: u64,
        traced: bool,
        change: impl FnOnce(&mut Plan),
    ) -> Result<Outcome, Violation> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut plan = Plan::random(&mut rng);
        change(&mut plan);
        let mut world = Self::new(plan, rng, traced);
        let mut checker = Checker::new(&world.plan);
        let mut service = Service::new(&world);
        let mut result = Ok(());
        let mut well = 0;
        while let Some(event) = world.next() {
            let last = matches!(event, Event::Settle);
            let look = matches!(event, Event::Look);
            world.outcome.steps += 1;
            world.handle(event);
            result = checker.step(&world).and_then(|()| world.quiet_enough());
            if world.plan.is_leased() && result.is_ok() {
                result = service.step(&world);
            }
            if result.is_ok() && (look || last) {
                let end = checker.end(&world);
                well = if end.is_ok() { well + 1 } else { 0 };
                if last {
                    result = end;
                }
            }
            if last || well == LOOKS || result.is_err() {
                break;
            }
        }
        result = result.and_then(|()| world.replay_all());
        for line in world.trace.iter().flatten() {
            println!("{line}");
        }
        service.note(&mut world.outcome);
        result.map(|()| world.outcome)
    }

    fn new(plan: Plan, rng: ChaCha8Rng, traced: bool) -> Self {
        let hosts = (0..plan.hosts()).map(|index| Host::new(index, &plan));
        let mut world = Self {
            now: START,
            hosts: hosts.collect(),
            cuts: vec![vec![0; plan.hosts()]; plan.hosts()],
            loss: 0,
            late: 0,
            rng,
            queue: Queue::new(),
            group: group(),
            touched: 0,
            outcome: Outcome::default(),
            trace: traced.then(Vec::new),
            unjust: None,
            plan,
        };
        let start = world.now;
        for index in 0..world.plan.hosts() {
            let uptime = Duration::from_millis(world.rng.random_range(0..90_000));
            world.hosts[index].booted = start - uptime;
            world.hosts[index].start_daemon(start);
            world.turn(index);
        }
        for (index, (begin, length, _)) in world.plan.faults.clone().into_iter().enumerate() {
            world.at(start + begin, Event::Begin(index));
            world.at(start + begin + length, Event::End(index));
        }
        let healed = start + world.plan.healed_at;
        let mut look = LOOK_EVERY;
        while look < SETTLE {
            world.at(healed + look, Event::Look);
            look += LOOK_EVERY;
        }
        world.at(healed + SETTLE, Event::Settle);
        world
    }

    pub(super) fn at(&mut self, time: Duration, event: Event) {
        self.queue.push(time, event);
    }

    fn next(&mut self) -> Option<Event> {
        let (time, event) = self.queue.pop()?;
        self.now = time;
        self.touched = 0;
        Some(event)
    }

    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!(
                "{:>10.3} ms  {}",
                self.now.as_secs_f64() * 1e3,
                line()
            ));
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver {
                to,
                from,
                run,
                sent,
                heard,
                message,
            } => {
                let linked = self.hosts[to].link && self.hosts[from].link;
                if linked && self.hosts[to].paused.is_none() && self.has_keys(to, from, run) {
                    self.note_heard(to, from, sent);
                    self.hand_in(to, from, (sent, heard), message);
                    self.refuse(to, from);
                }
            }
            Event::Timer { host, incarnation } => {
                // One that was armed anew for earlier is void.
                let here = &self.hosts[host];
                if here.incarnation == incarnation && here.timer == Some(self.now) {
                    self.hosts[host].timer = None;
                    self.turn(host);
                }
            }
            Event::Done {
                host,
                incarnation,
                done,
            } => self.done(host, incarnation, done),
            Event::Job {
                host,
                boots,
                incarnation,
                done,
            } => self.job(host, boots, incarnation, done),
            Event::Kept(host, written) => self.kept(host, written),
            Event::KernelSays {
                host,
                incarnation,
                word,
            } => {
                if self.hosts[host].incarnation == incarnation {
                    self.input(host, word);
                }
            }
            Event::Order(host, order) => self.order(host, order),
            Event::Begin(index) => self.begin(index),
            Event::End(index) => self.end(index),
            Event::Look | Event::Settle => {}
        }
    }

    /// Messages never answer each other without end.
    fn quiet_enough(&self) -> Result<(), Violation> {
        let usual = self.plan.lease.as_nanos() / SUSPECT_AFTER.as_nanos();
        let most = STEPS_MAX * u64::try_from(usual).unwrap_or(1);
        if self.outcome.steps <= most {
            return Ok(());
        }
        Err(Violation {
            at: self.now,
            what: format!("{most} steps and no end"),
        })
    }

    /// An address action took effect, and its daemon is told.
    fn done(&mut self, host: usize, incarnation: u32, done: Done) {
        let here = &mut self.hosts[host];
        if here.incarnation != incarnation {
            return;
        }
        match &done {
            Done::VipsTaken { .. } => here.vips = true,
            Done::VipsDropped { .. } => here.vips = false,
            // No action on addresses: nothing waits for it.
            Done::Provided { .. } => return self.input(host, Input::Done(done)),
            Done::UnitsStarted { .. }
            | Done::UnitsStopped { .. }
            | Done::PromiseKept(_)
            | Done::Failed { .. } => {}
        }
        here.busy = false;
        here.inbox.push_front(Input::Done(done));
        self.turn(host);
    }

    /// A unit job ended. Its report and the reading of the unit's state come in either order.
    fn job(&mut self, host: usize, boots: u32, incarnation: u32, done: Done) {
        if !self.hosts[host].powered || self.hosts[host].boots != boots {
            return;
        }
        match &done {
            Done::UnitsStarted { .. } => self.hosts[host].cold = true,
            Done::UnitsStopped { .. } => self.hosts[host].cold = false,
            Done::VipsTaken { .. }
            | Done::VipsDropped { .. }
            | Done::PromiseKept(_)
            | Done::Provided { .. }
            | Done::Failed { .. } => {}
        }
        let up = self.hosts[host].cold;
        let reading = Input::Unit {
            unit: name("cold.service"),
            up,
        };
        let same_daemon = self.hosts[host].incarnation == incarnation;
        let report_first = self.rng.random_bool(0.5);
        let mut inputs = vec![reading];
        if same_daemon {
            inputs.insert(usize::from(!report_first), Input::Done(done));
        }
        for input in inputs {
            self.input(host, input);
        }
    }

    pub(super) fn input(&mut self, host: usize, input: Input) {
        if self.hosts[host].core.is_some() && self.hosts[host].inbox.len() < 4096 {
            self.hosts[host].inbox.push_back(input);
            self.turn(host);
        }
    }

    /// Gives a daemon its turn: all waiting input, then what is due, then what it wants done.
    pub(super) fn turn(&mut self, index: usize) {
        self.touched |= 1 << index;
        let clock = self.hosts[index].clock(self.now);
        let grants_early = self.plan.broken == Some(Broken::EarlyGrant);
        self.carry_out(index);
        while self.hosts[index].responsive() && !self.hosts[index].busy {
            let host = &mut self.hosts[index];
            let Some(input) = host.inbox.pop_front() else {
                break;
            };
            let Some(core) = &mut host.core else { break };
            if grants_early {
                broken::grant_early(core, &input, clock);
            }
            core.input(input, clock);
            host.set_guard();
            self.carry_out(index);
        }
        let host = &mut self.hosts[index];
        if host.responsive() && !host.busy {
            // As in the daemon, whose timer rings beside what arrives.
            if let Some(core) = &mut host.core
                && core.next_deadline() <= clock
            {
                core.on_timer(clock);
            }
            host.set_guard();
            self.carry_out(index);
        }
        self.end_if_paused(index);
        self.arm(index);
    }

    fn arm(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if let Some(core) = &host.core {
            host.stored = host.stored.max(core.newest_epoch());
        }
        let Some(core) = &host.core else { return };
        if !host.responsive() || host.busy {
            return;
        }
        let wait = core
            .next_deadline()
            .since(host.clock(self.now))
            .max(Duration::from_micros(50));
        let at = self.now + wait;
        // Clocks that drift make the same time a little earlier with every look.
        if host
            .timer
            .is_none_or(|armed| armed > at + Duration::from_micros(20))
        {
            let incarnation = host.incarnation;
            self.hosts[index].timer = Some(at);
            self.at(
                at,
                Event::Timer {
                    host: index,
                    incarnation,
                },
            );
        }
    }
}
