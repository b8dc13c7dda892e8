//! What can break on a shadow, and how it has to be told.

use super::NGINX;

/// What the small service connects to.
const UPSTREAM: &str = "tcp upstream.lab.test:9000";

/// A packet filter that drops what is not let in.
pub const SHUT: &str = "nft add table inet shut; nft add chain inet shut input \
    '{ type filter hook input priority 10; policy accept; }'; \
    nft add rule inet shut input iifname lo accept; \
    nft add rule inet shut input tcp dport '{ 80, 443 }' drop";

/// A break of the shadow: what is done, what undoes it, what is told.
pub struct Break {
    pub what: &'static str,
    pub does: &'static str,
    pub undoes: &'static str,
    pub item: (&'static str, &'static str),
    pub cause: &'static str,
}

const fn broken(
    what: &'static str,
    does: &'static str,
    undoes: &'static str,
    item: (&'static str, &'static str),
    cause: &'static str,
) -> Break {
    Break {
        what,
        does,
        undoes,
        item,
        cause,
    }
}

pub const BREAKS: &[Break] = &[
    broken(
        "an edited file",
        "cp -p /etc/nginx/nginx.conf /run/kept; echo '# other' >> /etc/nginx/nginx.conf",
        "cp -p /run/kept /etc/nginx/nginx.conf",
        ("file", NGINX),
        "on the active",
    ),
    broken(
        "a missing file",
        "mv /etc/nginx/nginx.conf /run/kept",
        "mv /run/kept /etc/nginx/nginx.conf",
        ("file", NGINX),
        "it is not here",
    ),
    broken(
        "another mode",
        "chmod 0600 /etc/nginx/nginx.conf",
        "chmod 0644 /etc/nginx/nginx.conf",
        ("file", NGINX),
        "mode 0600 here, 0644 on the active",
    ),
    broken(
        "another owner",
        "chown www-data:www-data /etc/nginx/nginx.conf",
        "chown root:root /etc/nginx/nginx.conf",
        ("file", NGINX),
        "it belongs to www-data:www-data here",
    ),
    broken(
        "a link in place of a file",
        "mv /etc/nginx/nginx.conf /run/kept; ln -s /run/kept /etc/nginx/nginx.conf",
        "mv /run/kept /etc/nginx/nginx.conf",
        ("file", NGINX),
        "a link to /run/kept",
    ),
    broken(
        "another variable",
        "echo MODE=two > /etc/default/profile-test",
        "echo MODE=one > /etc/default/profile-test",
        ("environment", "nginx.service: MODE"),
        "it has another value",
    ),
    broken(
        "a missing variable",
        "echo OTHER=1 > /etc/default/profile-test",
        "echo MODE=one > /etc/default/profile-test",
        ("environment", "nginx.service: MODE"),
        "it is not set here",
    ),
    broken(
        "a masked unit",
        "systemctl mask --quiet nginx.service",
        "systemctl unmask --quiet nginx.service",
        ("unit", "nginx.service"),
        "it is masked",
    ),
    broken(
        "a missing unit",
        "mv /etc/systemd/system/lab-cold.service /run/kept; systemctl daemon-reload",
        "mv /run/kept /etc/systemd/system/lab-cold.service; systemctl daemon-reload",
        ("unit", "lab-cold.service"),
        "there is no such unit here",
    ),
    broken(
        "a stopped warm unit",
        "systemctl stop nginx.service",
        "systemctl start nginx.service",
        ("unit", "nginx.service"),
        "it is warm and does not run",
    ),
    broken(
        "a disabled unit",
        "systemctl disable --quiet nginx.service",
        "systemctl enable --quiet nginx.service",
        ("unit", "nginx.service"),
        "disabled here, enabled on the active",
    ),
    broken(
        "another limit",
        "mkdir -p /run/systemd/system/nginx.service.d; printf '[Service]\\nLimitNOFILE=77\\n' > \
         /run/systemd/system/nginx.service.d/limit.conf; systemctl daemon-reload",
        "rm /run/systemd/system/nginx.service.d/limit.conf; systemctl daemon-reload",
        ("limit", "nginx.service: LimitNOFILE"),
        "77 here",
    ),
    broken(
        "a package of another version",
        "cp /var/lib/dpkg/status /run/kept; sed -i '/^Package: nginx$/,/^$/s/^Version: .*/\
         Version: 1.0-1/' /var/lib/dpkg/status",
        "cp /run/kept /var/lib/dpkg/status",
        ("package", "nginx"),
        "1.0-1 here",
    ),
    // After some others: which ports are open on the active is told each half minute.
    broken(
        "a closed port",
        SHUT,
        "nft delete table inet shut",
        ("firewall", "nginx.service: tcp 80"),
        "chain input of table inet shut drops it",
    ),
    broken(
        "another group",
        "chgrp adm /etc/nginx/nginx.conf",
        "chgrp root /etc/nginx/nginx.conf",
        ("file", NGINX),
        "it belongs to root:adm here",
    ),
    broken(
        "a directory in place of a file",
        "mv /etc/nginx/nginx.conf /run/kept; mkdir /etc/nginx/nginx.conf",
        "rmdir /etc/nginx/nginx.conf; mv /run/kept /etc/nginx/nginx.conf",
        ("file", NGINX),
        "a directory here",
    ),
    broken(
        "an empty file",
        "cp -p /etc/nginx/nginx.conf /run/kept; : > /etc/nginx/nginx.conf",
        "cp -p /run/kept /etc/nginx/nginx.conf",
        ("file", NGINX),
        "0 bytes",
    ),
    broken(
        "a program that cannot be run",
        "chmod 0644 /opt/lab-app/answer",
        "chmod 0755 /opt/lab-app/answer",
        ("file", "/opt/lab-app/answer"),
        "mode 0644 here, 0755 on the active",
    ),
    broken(
        "an owner that is no account any more",
        "userdel lab-owner",
        "useradd --system lab-owner; chown lab-owner /etc/lab-job.conf",
        ("file", "/etc/lab-job.conf"),
        "to lab-owner:root on the active",
    ),
    broken(
        "a link to elsewhere",
        "ln -sfn profile-two /etc/default/profile-link",
        "ln -sfn profile-one /etc/default/profile-link",
        ("file", "/etc/default/profile-link"),
        "a link to profile-two here",
    ),
    broken(
        "one more variable",
        "printf 'MODE=one\\nEXTRA=1\\n' > /etc/default/profile-test",
        "echo MODE=one > /etc/default/profile-test",
        ("environment", "nginx.service: EXTRA"),
        "it is set here and not on the active",
    ),
    broken(
        "a missing environment file",
        "mv /etc/default/profile-test /run/kept",
        "mv /run/kept /etc/default/profile-test",
        ("file", "/etc/default/profile-test"),
        "it is not here",
    ),
    broken(
        "a disabled timer",
        "systemctl disable --quiet lab-job.timer",
        "systemctl enable --quiet lab-job.timer",
        ("unit", "lab-job.timer"),
        "disabled here, enabled on the active",
    ),
    broken(
        "a masked timer",
        "mv /etc/systemd/system/lab-job.timer /run/kept; \
         ln -s /dev/null /etc/systemd/system/lab-job.timer; systemctl daemon-reload",
        "mv /run/kept /etc/systemd/system/lab-job.timer; systemctl daemon-reload",
        ("unit", "lab-job.timer"),
        "it is masked",
    ),
    broken(
        "a masked cold unit",
        "mv /etc/systemd/system/lab-app.service /run/kept; \
         ln -s /dev/null /etc/systemd/system/lab-app.service; systemctl daemon-reload",
        "mv /run/kept /etc/systemd/system/lab-app.service; systemctl daemon-reload",
        ("unit", "lab-app.service"),
        "it is masked",
    ),
    broken(
        "a drop-in with another command",
        "mkdir -p /etc/systemd/system/lab-app.service.d; \
         printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' > \
         /etc/systemd/system/lab-app.service.d/other.conf; systemctl daemon-reload",
        "rm -r /etc/systemd/system/lab-app.service.d; systemctl daemon-reload",
        ("file", "/etc/systemd/system/lab-app.service.d/other.conf"),
        "it changes lab-app.service here",
    ),
    broken(
        "an edited unit file",
        "cp -p /etc/systemd/system/lab-app.service /run/kept; \
         sed -i s,/answer,/other, /etc/systemd/system/lab-app.service; systemctl daemon-reload",
        "cp -p /run/kept /etc/systemd/system/lab-app.service; systemctl daemon-reload",
        ("file", "/etc/systemd/system/lab-app.service"),
        "on the active",
    ),
    broken(
        "a port that another process took",
        "systemd-run --quiet --collect --unit=lab-thief socat TCP-LISTEN:8080,fork -",
        "systemctl stop lab-thief.service",
        ("port", "lab-app.service: tcp 8080"),
        "it is taken by lab-thief.service",
    ),
    broken(
        "a full disk",
        "head -c 40M /dev/zero > /opt/lab-app/fill; true",
        "rm /opt/lab-app/fill",
        ("disk", "/opt/lab-app"),
        "0 MiB free",
    ),
    broken(
        "no room for another file",
        "for n in $(seq 80); do touch /opt/lab-app/fill$n 2> /dev/null; done; true",
        "rm /opt/lab-app/fill*",
        ("disk", "/opt/lab-app"),
        "of the inodes free",
    ),
    broken(
        "a disk that nobody can write to",
        "mount -o remount,ro /opt/lab-app",
        "mount -o remount,rw /opt/lab-app",
        ("disk", "/opt/lab-app"),
        "it is mounted read-only",
    ),
    broken(
        "a dependency whose packets are lost",
        "nft 'table inet cut { chain out { type filter hook output priority 0; \
         ip daddr 192.0.2.100 tcp dport 9000 drop; }; }'",
        "nft delete table inet cut",
        ("dependency", UPSTREAM),
        "no answer within 2 s",
    ),
    broken(
        "a dependency that refuses",
        "nft 'table inet cut { chain out { type filter hook output priority 0; \
         ip daddr 192.0.2.100 tcp dport 9000 reject with tcp reset; }; }'",
        "nft delete table inet cut",
        ("dependency", UPSTREAM),
        "refused",
    ),
    broken(
        "a dependency whose name nobody knows",
        "echo 'nameserver 127.0.0.1' > /etc/resolv.conf",
        "echo 'nameserver 192.0.2.100' > /etc/resolv.conf",
        ("dependency", UPSTREAM),
        "the name does not resolve here",
    ),
    broken(
        "another kernel parameter",
        // The usual one cannot be written in a container.
        "mkdir /run/proc; mount -t proc proc /run/proc; echo 77 > /run/proc/sys/net/core/somaxconn",
        "echo 4096 > /run/proc/sys/net/core/somaxconn; umount /run/proc; rmdir /run/proc",
        ("parameter", "net.core.somaxconn"),
        "77 here, 4096 on the active",
    ),
    broken(
        "an expired certificate",
        "cp -p /etc/nginx/lab.crt /run/kept; cp /run/expired.crt /etc/nginx/lab.crt",
        "cp -p /run/kept /etc/nginx/lab.crt",
        ("certificate", "/etc/nginx/lab.crt"),
        "it expired",
    ),
    broken(
        "an older package",
        "apt-get install --yes --quiet --allow-downgrades socat=1.7.4.3-1",
        "apt-get install --yes --quiet socat",
        ("package", "socat"),
        "1.7.4.3-1 here",
    ),
    broken(
        "a package that was removed",
        "apt-get remove --yes --quiet socat",
        "apt-get install --yes --quiet socat",
        ("package", "socat"),
        "it is not installed",
    ),
];
