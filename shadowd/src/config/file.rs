//! The configuration file as written. Unknown keys are refused; nothing is judged here.

use serde::Deserialize;
use toml::Spanned;

use super::several::Several;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// `[host]`: this host.
    pub host: Host,
    /// `[[peer]]`: each other host.
    #[serde(default)]
    pub peer: Vec<Peer>,
    /// `[[group]]`: each group this host is a member of.
    #[serde(default)]
    pub group: Vec<Group>,
    /// `[capture]`: how the host is observed.
    #[serde(default)]
    pub capture: Capture,
    /// `[metrics]`: what Prometheus may read.
    #[serde(default)]
    pub metrics: Metrics,
    /// `[history]`: what of it is recorded.
    #[serde(default)]
    pub history: History,
    /// `[repository]`: where versions of profiles are kept beside the members.
    #[serde(default)]
    pub repository: Repository,
    /// `[[hook]]`: each command that is told what happens.
    #[serde(default)]
    pub hook: Vec<Hook>,
    /// `[[alert]]`: each way to tell people and other systems.
    #[serde(default)]
    pub alert: Vec<Alert>,
}

/// `[host]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// This host's name; its peers use the same.
    pub name: Spanned<String>,
    /// Address and port for datagrams (UDP) and streams (TCP); a list of up to 4, one for each link
    /// to the other hosts.
    pub listen: Several,
    /// Where identity and store live. Default `/var/lib/shadowd`.
    pub state_dir: Option<Spanned<String>>,
    /// The query socket. Default `/run/shadowd/shadowd.sock`.
    pub socket: Option<Spanned<String>>,
}

/// `[[peer]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its name.
    pub name: Spanned<String>,
    /// Its identity, as `shadowctl id` prints it there.
    pub id: Spanned<String>,
    /// Address and port its daemon listens on; a list where it listens on several links, in the
    /// order of this host's `listen`.
    pub address: Several,
}

/// `[[group]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: Spanned<String>,
    /// Names of all members that vote; this host is one of them, a witness or a spare.
    pub members: Spanned<Vec<Spanned<String>>>,
    /// Names of hosts that do not vote, and own the group only while too few members are ready, at
    /// most 4. Default none.
    pub spares: Option<Spanned<Vec<Spanned<String>>>>,
    /// 1 to 255, higher is preferred. Default 100.
    pub priority: Option<Spanned<i64>>,
    /// Names of hosts that vote and never own the group, at most 5. Default none.
    pub witnesses: Option<Spanned<Vec<Spanned<String>>>>,
    /// What keeps the group from having two owners: `"lease"`, which takes three voters, or
    /// `"none"`; must be written.
    pub protection: Option<Spanned<String>>,
    /// How long an owner goes on without the answers of a majority while all is well, 3 heartbeats
    /// to 10min. Default `suspect_after`.
    pub lease: Option<Spanned<String>>,
    /// Between heartbeats, 5ms to 10s. Default `100ms`.
    pub heartbeat: Option<Spanned<String>>,
    /// Silence that makes suspect, 2 heartbeats to 10min. Default 3 heartbeats.
    pub suspect_after: Option<Spanned<String>>,
    /// How long a starting member listens before it may claim, up to 10min. Default 3s, or 10
    /// suspicion times if that is longer.
    pub join_wait: Option<Spanned<String>>,
    /// Whether the kernel silences the virtual IPs when the lease runs out. Default true.
    pub guard: Option<Spanned<bool>>,
    /// How long the old owner goes on serving the connections that it has after a planned handover,
    /// `0s` (not at all) to `1h`. It takes a guard. Default `60s`.
    pub drain: Option<Spanned<String>>,
    /// An owner one of whose units leaves all clients that wait without an answer for so long gives
    /// the group up, if another member is ready, 1s to 10min. Default: that is not looked at.
    pub unanswered_after: Option<Spanned<String>>,
    /// `"never"`, or for how long a member with a better priority has to be ready before it gets the
    /// group back, 1s to 24h. Default `never`.
    pub failback: Option<Spanned<String>>,
    /// The part of the day in which it may get it back, local time, such as `"02:00-04:00"`. Default
    /// any time.
    pub failback_window: Option<Spanned<String>>,
    /// `[group.flap]`: how failovers away from this member hold it back.
    #[serde(default)]
    pub flap: Flap,
    /// The interface of the virtual IPs. A witness needs none.
    pub interface: Option<Spanned<String>>,
    /// The virtual IPs with prefix lengths, 1 to 32 of them. A witness needs none.
    pub vips: Option<Spanned<Vec<Spanned<String>>>>,
    /// `[[group.unit]]`: the units, in start order, at most 64.
    #[serde(default)]
    pub unit: Vec<Unit>,
    /// `[[group.check]]`: what a drill demands of the units, at most 32.
    #[serde(default)]
    pub check: Vec<Check>,
    /// `[group.drill]`: how takeovers are rehearsed.
    #[serde(default)]
    pub drill: Drill,
    /// `[group.redundancy]`: how many shadows it wants, and how it gets them back.
    #[serde(default)]
    pub redundancy: Redundancy,
    /// `[group.profile]`: what is learned of it, and what is done about shadows that are not ready.
    #[serde(default)]
    pub profile: Profile,
}

/// `[group.profile]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Whether anything is learned. Default true.
    pub learn: Option<bool>,
    /// Patterns of units that belong to the group beside its own: jobs, timers, databases. `*` stands
    /// for any run of characters. Default none.
    pub units: Option<Spanned<Vec<Spanned<String>>>>,
    /// How long something has to last before it is believed, 1s to 24h. Default `10min`.
    pub settle: Option<Spanned<String>>,
    /// What was not seen for so long is gone, up to 28days. Default `8days`.
    pub forget: Option<Spanned<String>>,
    /// Patterns of files whose content may leave the host. Default none.
    pub replicate: Option<Spanned<Vec<Spanned<String>>>>,
    /// Patterns of files whose content may not, whatever `replicate` says. Default: keys,
    /// certificates and what is named after secrets.
    pub secret: Option<Spanned<Vec<Spanned<String>>>>,
    /// Patterns of files that differ from host to host and are not learned. Default: names, accounts,
    /// resolver, keys of the host.
    pub ignore: Option<Spanned<Vec<Spanned<String>>>>,
    /// Kernel parameters that are compared. Default: eight that services depend on.
    pub parameters: Option<Spanned<Vec<Spanned<String>>>>,
    /// `[group.profile.provision]`: what shadowd may do.
    #[serde(default)]
    pub provision: Provision,
    /// Whether a member that is not ready may own the group when no other can. Default true.
    pub promote_unready: Option<bool>,
}

/// `[group.profile.provision]`: `"observe"`, `"suggest"` or `"apply"` each. Default `suggest`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provision {
    /// Configuration files.
    pub files: Option<Spanned<String>>,
    /// Packages.
    pub packages: Option<Spanned<String>>,
    /// Units and their limits.
    pub units: Option<Spanned<String>>,
    /// Kernel parameters.
    pub parameters: Option<Spanned<String>>,
    /// Files that units keep in memory on the active: reading them here.
    pub cache: Option<Spanned<String>>,
    /// The packet filter: opening ports that are open on the active.
    pub firewall: Option<Spanned<String>>,
}

/// `[group.redundancy]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redundancy {
    /// How many ready shadows the group wants, from 1. Default: all members but the active one.
    pub shadows: Option<Spanned<i64>>,
    /// How long members have to come back before a spare is enlisted, 1s to 24h. Default `2min`.
    pub rejoin_within: Option<Spanned<String>>,
    /// A spare is released when there were enough shadows without it for so long, 1s to 24h. Default
    /// `1min`.
    pub release_after: Option<Spanned<String>>,
    /// `[group.redundancy.provider]`: what creates a spare that is not there.
    pub provider: Option<Provider>,
}

/// `[group.redundancy.provider]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// The program, by its absolute path, and its arguments: it reads a request as JSON and answers
    /// with JSON.
    pub command: Spanned<Vec<Spanned<String>>>,
    /// The user it runs as. Default root.
    pub user: Option<Spanned<String>>,
    /// When one run of it is killed with all it started, 1s to 1h. Default `2min`.
    pub deadline: Option<Spanned<String>>,
    /// The host has to be heard so long after it was asked for, 1s to 24h. Default `5min`.
    pub ready_within: Option<Spanned<String>>,
    /// How long until the second attempt, 1s to 1h; doubled for each further one. Default `30s`.
    pub retry: Option<Spanned<String>>,
    /// How often it is tried for each spare, 1 to 100. Default 5.
    pub attempts: Option<Spanned<i64>>,
}

/// `[[group.check]]`: one of `command`, `tcp` and `http`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Its name, 1 to 32 letters, digits, `-` and `_`.
    pub name: Spanned<String>,
    /// A program, by its absolute path, and its arguments, that ends with 0.
    pub command: Option<Spanned<Vec<Spanned<String>>>>,
    /// An address and port that takes connections.
    pub tcp: Option<Spanned<String>>,
    /// `http://ADDRESS[:PORT]/PATH` that answers.
    pub http: Option<Spanned<String>>,
    /// The status that `http` answers with, 100 to 599. Default 200.
    pub status: Option<Spanned<i64>>,
    /// The user that `command` runs as. Default root.
    pub user: Option<Spanned<String>>,
    /// When it has failed, 1s to 1h. Default `10s`.
    pub deadline: Option<Spanned<String>>,
    /// Whether a live drill makes it too, on the host that lent the group. Default true for `tcp`
    /// and `http` at a virtual IP of the group, else false.
    pub live: Option<Spanned<bool>>,
}

/// `[group.drill]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drill {
    /// When a drill that goes on is ended, 5s to 1h. Default `2min`.
    pub deadline: Option<Spanned<String>>,
    /// The units of the group that it brings up. Default all.
    pub units: Option<Spanned<Vec<Spanned<String>>>>,
    /// Directories that the units find empty and may write to, at most 16. Default none.
    pub scratch: Option<Spanned<Vec<Spanned<String>>>>,
    /// How often a drill begins by itself, 1h to 365days. Default never.
    pub every: Option<Spanned<String>>,
    /// The part of the day in which it may, local time, such as `"02:00-04:00"`. Default any time.
    pub window: Option<Spanned<String>>,
    /// For how long a live drill asks for the group after its time, 10s to 24h. Default `10min`.
    pub return_within: Option<Spanned<String>>,
}

/// `[[group.unit]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// Its name, such as `nginx.service`.
    pub name: Spanned<String>,
    /// `"warm"` runs on every member, `"cold"` on the active only.
    pub mode: Spanned<String>,
}

/// `[group.flap]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flap {
    /// The penalty is halved in this time, 1s to 24h. Default `15m`.
    pub half_life: Option<Spanned<String>>,
    /// Above it this member is held back, 1000 to 100000, or 0: never; each failover away from it
    /// adds 1000. Default 2500.
    pub suppress: Option<Spanned<i64>>,
    /// Below it this member is not held back any more, from 100, less than `suppress`. Default 1000.
    pub reuse: Option<Spanned<i64>>,
}

/// `[capture]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    /// Between two drains, 100ms to 1min. Default `1s`.
    pub tick: Option<Spanned<String>>,
    /// Whether eBPF may be used. Default true.
    pub ebpf: Option<bool>,
    /// When the cost of programs is measured: `"start"`, `"always"` or `"off"`. Default `start`.
    pub cost: Option<Spanned<String>>,
    /// Features to switch off, by name. Default none.
    pub probes_off: Option<Spanned<Vec<Spanned<String>>>>,
    /// Configuration roots: files opened below them are told. Default `/etc`, `/usr/local/etc`,
    /// `/opt`, `/srv`.
    pub paths: Option<Spanned<Vec<Spanned<String>>>>,
    /// `[capture.units]`: patterns of units.
    #[serde(default)]
    pub units: Choice<String>,
    /// `[capture.ports]`: ports of either end of a flow.
    #[serde(default)]
    pub ports: Choice<i64>,
    /// `[capture.networks]`: networks of the remote end of a flow.
    #[serde(default)]
    pub networks: Choice<String>,
    /// `[capture.redact]`: what is made unreadable.
    #[serde(default)]
    pub redact: Redact,
    /// `[capture.limits]`: how much tables hold.
    #[serde(default)]
    pub limits: Limits,
}

/// What is captured, of one kind: all that `include` names, or all if it names nothing, but
/// nothing that `exclude` names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Choice<T> {
    /// Only these. Default all.
    pub include: Option<Spanned<Vec<Spanned<T>>>>,
    /// Not these. Default none.
    pub exclude: Option<Spanned<Vec<Spanned<T>>>>,
}

impl<T> Default for Choice<T> {
    fn default() -> Self {
        Self {
            include: None,
            exclude: None,
        }
    }
}

/// `[capture.redact]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redact {
    /// Patterns of short names of processes.
    pub commands: Option<Spanned<Vec<Spanned<String>>>>,
    /// Patterns of paths of files.
    pub paths: Option<Spanned<Vec<Spanned<String>>>>,
    /// Patterns of names from DNS answers.
    pub names: Option<Spanned<Vec<Spanned<String>>>>,
    /// `"mark"` writes `[redacted]` instead, `"hash"` a keyed hash that tells equal from different
    /// until the daemon ends. Default `mark`.
    pub with: Option<Spanned<String>>,
}

/// `[capture.limits]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Records of system calls in the kernel, 16 to 1048576. Default 32768.
    pub syscalls: Option<Spanned<i64>>,
    /// Bytes of the buffer of process events, a power of two from 4096 to 67108864. Default 262144.
    pub events_bytes: Option<Spanned<i64>>,
    /// Flows that the kernel side holds, 16 to 1048576. Default 131072.
    pub kernel_flows: Option<Spanned<i64>>,
    /// Live TCP sockets that are followed, 16 to 1048576. Default 131072.
    pub sockets: Option<Spanned<i64>>,
    /// Listening sockets that are followed, 16 to 1048576. Default 4096.
    pub listeners: Option<Spanned<i64>>,
    /// Flows remembered, 16 to 1048576. Default 16384.
    pub flows: Option<Spanned<i64>>,
    /// Processes remembered, 16 to 1048576. Default 65536.
    pub processes: Option<Spanned<i64>>,
}

/// `[metrics]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Address and port of an HTTP listener. Default: none, the query socket alone answers.
    pub listen: Option<Spanned<String>>,
    /// Whether `listen` may be an address that other hosts reach. Default false.
    pub allow_remote: Option<bool>,
    /// Units with series of their own, 1 to 10000. Default 200.
    pub units: Option<Spanned<i64>>,
    /// Remotes with series of their own, 0 to 10000. Default 0.
    pub remotes: Option<Spanned<i64>>,
}

/// `[history]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Whether observations are recorded. Default true.
    pub record: Option<bool>,
    /// Bytes on the disk at most, 16MiB to 1TiB. Default `256MiB`.
    pub max_size: Option<Spanned<String>>,
    /// How long records are kept, 1h to 10years. Default `7days`.
    pub max_age: Option<Spanned<String>>,
    /// How long each interval is kept as it was, 10min to `max_age`; older ones are merged into
    /// minutes. Default `2h`, or `max_age` if that is shorter.
    pub full_resolution: Option<Spanned<String>>,
}

/// `[repository]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// Whether versions are kept there. Default true.
    pub sync: Option<bool>,
    /// `"file:///DIRECTORY"`, which is there, or `"s3://BUCKET/PREFIX"`. Default: the directory
    /// `repository` in `host.state_dir`.
    pub url: Option<Spanned<String>>,
    /// How often what is there is listed, 10s to 24h. Default `1min`.
    pub every: Option<Spanned<String>>,
    /// S3: scheme, host and port of the store. Default: the one of AWS in `region`.
    pub endpoint: Option<Spanned<String>>,
    /// S3: what requests are signed for. Default `us-east-1`.
    pub region: Option<Spanned<String>>,
    /// S3: a file of root's that nobody else may read, with `access_key_id = ...`,
    /// `secret_access_key = ...` and maybe `session_token = ...`. Default: the variables
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN` of the daemon.
    pub credentials: Option<Spanned<String>>,
    /// S3: whether `endpoint` may be `http://`, on this host or in a private network. Default false.
    pub allow_http: Option<bool>,
}

/// `[[hook]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Its name, 1 to 32 letters, digits, `-` and `_`.
    pub name: Spanned<String>,
    /// The program, by its absolute path, and its arguments.
    pub command: Spanned<Vec<Spanned<String>>>,
    /// The groups it is told about. Default all.
    pub groups: Option<Spanned<Vec<Spanned<String>>>>,
    /// What it is told. Default `active`, `shadow`, `stopped`.
    pub events: Option<Spanned<Vec<Spanned<String>>>>,
    /// When it is killed with all it started, 1s to 1h. Default `30s`.
    pub deadline: Option<Spanned<String>>,
    /// The user it runs as. Default root.
    pub user: Option<Spanned<String>>,
}

/// `[[alert]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    /// Its name, 1 to 32 letters, digits, `-` and `_`.
    pub name: Spanned<String>,
    /// Where JSON is sent by `POST`: `http://` or `https://`.
    pub webhook: Option<Spanned<String>>,
    /// A file that only root may read, with one header line to send along. Default none.
    pub header_file: Option<Spanned<String>>,
    /// A mail instead of a webhook.
    pub mail: Option<Mail>,
    /// The groups it is told about. Default all.
    pub groups: Option<Spanned<Vec<Spanned<String>>>>,
    /// The least that it is told: `"info"`, `"warning"` or `"critical"`. Default `warning`.
    pub severity: Option<Spanned<String>>,
    /// How long one try may take, 1s to 1min. Default `10s`.
    pub deadline: Option<Spanned<String>>,
    /// How long it is tried again, up to 1day. Default `1h`.
    pub retry_for: Option<Spanned<String>>,
    /// When the same is told again at the earliest, up to 1day. Default `5min`.
    pub repeat_after: Option<Spanned<String>>,
    /// How many may go at once, 1 to 1000. Default 10.
    pub burst: Option<Spanned<i64>>,
    /// How long until one more may go, 1s to 1day. Default `1min`.
    pub one_more_after: Option<Spanned<String>>,
}

/// `mail` of `[[alert]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// What takes the message on its standard input, such as `["/usr/sbin/sendmail", "-t"]`.
    pub command: Spanned<Vec<Spanned<String>>>,
    /// Whom it is for.
    pub to: Spanned<String>,
}
