//! The scene's files: a small service with an environment file and an upstream, a job with its timer,
//! a page of nginx, settings of PostgreSQL.

/// A file of the scene: where, its permission bits, what is in it.
pub type Placed = (&'static str, u32, &'static str);

/// The small service.
pub const APP: &str = "lab-app.service";
/// What starts and stops the timer of the job.
pub const JOBS: &str = "lab-jobs.service";
/// PostgreSQL's cluster.
pub const DATABASE: &str = "postgresql@15-main.service";
/// The environment of the small service.
pub const VARIABLES: &str = "/etc/default/lab-app";
/// Where the small service answers, as text without a protocol.
pub const APP_PORT: u16 = 8080;
/// Where nginx answers from its configuration alone.
pub const PAGE_PORT: u16 = 8081;
/// Written by the job each time.
pub const RAN: &str = "/run/lab-job-ran";
/// The folder of the programs.
pub const PROGRAMS: &str = "/opt/lab-app";

/// The small service and the job.
pub const SERVICES: &[Placed] = &[
    (VARIABLES, 0o640, "GREETING=good-morning\n"),
    (
        "/etc/systemd/system/lab-app.service",
        0o644,
        "[Unit]\nDescription=Small service of the lab's group\n\n[Service]\n\
         EnvironmentFile=/etc/default/lab-app\n\
         ExecStart=/usr/bin/socat TCP-LISTEN:8080,fork,reuseaddr EXEC:/opt/lab-app/answer\n\n\
         [Install]\nWantedBy=multi-user.target\n",
    ),
    (
        "/opt/lab-app/answer",
        0o755,
        "#!/bin/sh\n# A word of its own, and what is said elsewhere.\n\
         said=$(socat -u -T2 TCP:upstream.lab.test:9000 STDOUT)\n\
         printf '%s %s\\n' \"$GREETING\" \"$said\"\n",
    ),
    (
        "/etc/systemd/system/lab-job.service",
        0o644,
        "[Unit]\nDescription=Job of the lab's group\n\n[Service]\nType=oneshot\n\
         ExecStart=/opt/lab-app/job\n",
    ),
    (
        "/etc/systemd/system/lab-job.timer",
        0o644,
        "[Unit]\nDescription=Timer of the job\nPartOf=lab-jobs.service\n\n[Timer]\n\
         OnCalendar=*:*:0/10\nAccuracySec=1s\n\n[Install]\nWantedBy=lab-jobs.service\n",
    ),
    (
        "/etc/systemd/system/lab-jobs.service",
        0o644,
        "[Unit]\nDescription=Jobs of the lab's group\nWants=lab-job.timer\n\n[Service]\n\
         Type=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
    ),
    (
        "/opt/lab-app/job",
        0o755,
        "#!/bin/sh\n. /etc/lab-job.conf\nprintf '%s\\n' \"$MESSAGE\" > /run/lab-job-ran\n",
    ),
    ("/etc/lab-job.conf", 0o644, "MESSAGE='done by the job'\n"),
];

/// A page that is nowhere but in nginx's configuration.
pub const PAGE: &[Placed] = &[(
    "/etc/nginx/conf.d/lab.conf",
    0o644,
    "server {\n    listen 8081;\n    default_type text/plain;\n    \
     location / { return 200 \"a page of the configuration\\n\"; }\n}\n",
)];

/// Settings of PostgreSQL, of which one is nothing but an answer.
pub const SETTINGS: &[Placed] = &[
    (
        "/etc/postgresql/15/main/conf.d/lab.conf",
        0o644,
        "listen_addresses = '*'\nwork_mem = '7MB'\nlab.answer = 'an answer of the configuration'\n",
    ),
    ("/etc/postgresql/15/main/start.conf", 0o644, "manual\n"),
];

/// What members of the group have beside what the lab writes, with what shadowd may do about it.
pub fn tables(policy: &str) -> String {
    format!(
        "[[group.unit]]\nname = \"{APP}\"\nmode = \"warm\"\n\n\
         [[group.unit]]\nname = \"{JOBS}\"\nmode = \"cold\"\n\n\
         [[group.unit]]\nname = \"{DATABASE}\"\nmode = \"cold\"\n\n\
         [group.profile]\nsettle = \"20s\"\nunits = [\"lab-job.service\"]\n\
         replicate = [\"/etc/*\", \"/opt/*\"]\n\n\
         [group.profile.provision]\nfiles = \"{policy}\"\npackages = \"{policy}\"\n\
         units = \"{policy}\"\nparameters = \"{policy}\"\n"
    )
}
