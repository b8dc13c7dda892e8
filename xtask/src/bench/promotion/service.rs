//! The service of the bench: it reads its configuration, its code and all of its data before it
//! answers, as a search index or a language model does. Made for this bench, and no real program.
//!
//! The hosts of a lab share one kernel, and files of their common base are in memory for all of them.
//! So everything that the service reads, the interpreter too, is a copy that the host has alone.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::lab::command::run;
use crate::lab::{COLD, Lab};

/// Where it listens.
pub const PORT: u16 = 8080;
/// What the host lacks in the case of a shadow that nobody made ready.
pub const LACKING: &str = "/etc/heavy /opt/heavy/lib";
const DATA: &str = "/var/lib/heavy/data";
/// Modules, and the size of each in KiB.
const MODULES: (u32, u32) = (8, 256);

const DROP_IN: &str = "\
[Unit]
OnFailure=heavy-restore.service
[Service]
Type=notify
ExecStart=
ExecStart=/opt/heavy/bin/perl /opt/heavy/bin/serve
";
/// What an installation without shadowd may have: what is lacking comes from a backup on the host itself.
const RESTORE: &str = "\
[Service]
Type=oneshot
ExecStart=/bin/cp -a /var/backups/heavy/etc/heavy /etc/
ExecStart=/bin/cp -a /var/backups/heavy/lib /opt/heavy/
";
const CONF: &str = "data=/var/lib/heavy/data\nlib=/opt/heavy/lib\n";
const SERVE: &str = r#"
use strict; use Socket;
my %conf;
open(my $conf, '<', '/etc/heavy/heavy.conf') or die "no configuration: $!";
while (<$conf>) { $conf{$1} = $2 if /^(\w+)=(.*)$/ }
my @modules = sort glob "$conf{lib}/*.pl";
die "no modules" unless @modules;
for (@modules) { do $_ or die "$_: $@ $!" }
open(my $data, '<:raw', $conf{data}) or die "no data: $!";
my ($bytes, $sum) = (0, 0);
while (my $read = sysread($data, my $block, 1 << 20)) {
    $bytes += $read;
    $sum = ($sum + unpack('%32N*', substr($block, 0, 4096))) & 0xffffffff;
}
chomp(my $host = `uname -n`);
socket(my $listen, PF_INET, SOCK_STREAM, getprotobyname('tcp') || 6) or die $!;
setsockopt($listen, SOL_SOCKET, SO_REUSEADDR, pack('l', 1));
bind($listen, sockaddr_in(8080, INADDR_ANY)) or die $!;
listen($listen, 128) or die $!;
if (my $path = $ENV{NOTIFY_SOCKET}) {
    $path =~ s/^@/\0/;
    socket(my $notify, PF_UNIX, SOCK_DGRAM, 0) or die $!;
    send($notify, 'READY=1', 0, pack_sockaddr_un($path)) or die $!;
}
$SIG{PIPE} = 'IGNORE';
while (accept(my $client, $listen)) {
    sysread($client, my $request, 4096);
    my $text = "$host $bytes $sum\n";
    syswrite($client, "HTTP/1.0 200 OK\r\nContent-Length: " . length($text) . "\r\n\r\n$text");
    close($client);
}
"#;

/// Puts the service into a host, with so many MiB of data, the same on each.
///
/// # Errors
/// A step fails.
pub fn install(lab: &Lab, host: &str, mebibytes: u32) -> Result<()> {
    lab.write_file(host, "/opt/heavy/bin/serve", SERVE)?;
    lab.write_file(host, "/etc/heavy/heavy.conf", CONF)?;
    let folder = format!("/etc/systemd/system/{COLD}.d");
    lab.write_file(host, &format!("{folder}/heavy.conf"), DROP_IN)?;
    lab.write_file(host, "/etc/systemd/system/heavy-restore.service", RESTORE)?;
    let (modules, size) = MODULES;
    // The same on each host without being sent: a cipher of zeros. Data that compress are no data.
    let random = "openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 </dev/zero 2>/dev/null";
    let fallback =
        "perl -e 'srand 7; my $b = pack q(N*), map { int rand 2**32 } 1..262144; print $b while 1'";
    let script = format!(
        "set -e; cp /usr/bin/perl /opt/heavy/bin/perl; mkdir -p /opt/heavy/lib /var/lib/heavy
         for n in $(seq {modules}); do
             {{ head -c {size}K /dev/zero | tr '\\0' '#'; echo; echo 1\\;; }} > /opt/heavy/lib/$n.pl
         done
         ({{ command -v openssl >/dev/null && {random} || {fallback} 2>/dev/null; }} | \
             head -c {mebibytes}M) > {DATA}
         mkdir -p /var/backups/heavy/etc
         cp -a /etc/heavy /var/backups/heavy/etc/; cp -a /opt/heavy/lib /var/backups/heavy/
         chmod -R go-w /etc/heavy /opt/heavy; sync; systemctl daemon-reload"
    );
    let command = lab.command(host, &["bash", "-c", &script])?;
    run(command, None, Duration::from_secs(120)).map(drop)
}

/// The files that it reads.
fn files() -> &'static str {
    "/opt/heavy/bin/perl /opt/heavy/bin/serve /opt/heavy/lib/*.pl /etc/heavy/heavy.conf \
     /var/backups/heavy/lib/*.pl /var/lib/heavy/data"
}

/// Drops these files, and nothing else, from the memory of the machine (posix_fadvise(2), DONTNEED).
///
/// # Errors
/// The host refuses.
pub fn cool(lab: &Lab, host: &str) -> Result<()> {
    let script = format!(
        "sync; for file in {}; do [ ! -e $file ] || dd if=$file iflag=nocache count=0 status=none; done",
        files()
    );
    lab.run(host, &["sh", "-c", &script]).map(drop)
}

/// Which share of a file's pages is in memory (mincore(2)): the hosts have no program that tells.
const SHARE: &str = r#"
my ($mmap, $mincore) = `uname -m` =~ /^(aarch64|riscv64)/ ? (222, 232) : (9, 27);
open(my $file, '<', $ARGV[0]) or die $!;
my $length = -s $file or die 'empty';
my $at = syscall($mmap, 0, $length, 0, 1, fileno($file), 0);
my $pages = "\2" x int(($length + 4095) / 4096);
die $! if $at == -1 or syscall($mincore, $at, $length, $pages) == -1;
print +($pages =~ tr/\1//) / length($pages);
"#;

/// The share of its data that is in memory, 0 to 1.
///
/// # Errors
/// The host does not tell.
pub fn warmth(lab: &Lab, host: &str) -> Result<f64> {
    let told = lab.run(host, &["perl", "-e", SHARE, DATA])?;
    told.trim()
        .parse()
        .with_context(|| format!("host {host} says {told:?}"))
}

/// What the active answers but for its name: right is who answers the same.
///
/// # Errors
/// It does not answer.
pub fn answer(lab: &Lab, host: &str) -> Result<String> {
    let url = format!("http://127.0.0.1:{PORT}/");
    let said = lab.run(host, &["curl", "-s", "-m", "5", &url])?;
    let (_, rest) = said.trim().split_once(' ').context("an odd answer")?;
    Ok(rest.to_owned())
}
