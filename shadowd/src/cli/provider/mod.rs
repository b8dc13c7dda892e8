//! `provider`: what a group's owner runs to have a spare created. It asks no daemon: the request
//! comes on standard input, the answer goes to standard output.

mod nspawn;

use std::io::Read;

use clap::Subcommand;

use super::{Failure, Screen};
use crate::facts::{ProviderAnswer, ProviderRequest, ProviderState};

/// A longer request (bytes) is none.
const REQUEST_MAX: u64 = 64 * 1024;

/// The providers.
#[derive(Clone, Debug, Subcommand)]
pub enum Provider {
    /// Make a spare as a systemd-nspawn machine from a golden image
    #[command(after_help = "\
It reads a request as shadowd writes it ([group.redundancy.provider] of the configuration), and
answers one line: {\"state\":\"ready\"|\"creating\"|\"failed\",\"detail\":\"...\"}. It may be asked
again and again for the same host: one that runs is not touched, one that is half made is made anew.

The image is a directory or a tar archive with systemd, shadowd and the group's services, and no
identity. What makes the machine this very spare has been put into FILES/HOST before, as it is to lie
below /: etc/shadowd/shadowd.toml, var/lib/shadowd (made by `shadowd --create-identity`), and the
address of its interface, such as etc/systemd/network/10-host0.network.

The machine runs in the unit shadowd-machine-HOST.service. Its interface is host0 where --link is a
bridge, else mv-LINK, a macvlan, which this host itself does not reach.

Examples:
  command = [\"/usr/bin/shadowctl\", \"provider\", \"nspawn\", \"--image\", \"/srv/golden\",
             \"--files\", \"/etc/shadowd/spares\", \"--link\", \"br0\"]
  command = [\"/usr/bin/ssh\", \"hypervisor\", \"shadowctl\", \"provider\", \"nspawn\", ...]
  shadowctl provider nspawn --remove c       stops it and removes its files")]
    Nspawn(nspawn::Nspawn),
}

pub(super) fn run(provider: &Provider, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let Provider::Nspawn(wanted) = provider;
    let answer = match wanted.remove() {
        Some(host) => nspawn::remove(wanted, host),
        None => request().and_then(|request| nspawn::provide(wanted, &request)),
    };
    let answer = answer.unwrap_or_else(|detail| ProviderAnswer {
        state: ProviderState::Failed,
        detail,
    });
    // Whoever asks wants JSON, however it was asked.
    serde_json::to_writer(&mut *screen.out, &answer).map_err(std::io::Error::from)?;
    writeln!(screen.out)?;
    Ok(screen.out.flush()?)
}

fn request() -> Result<ProviderRequest, String> {
    let mut bytes = Vec::new();
    let mut input = std::io::stdin().lock().take(REQUEST_MAX);
    let read = input.read_to_end(&mut bytes);
    read.map_err(|error| format!("no request on standard input: {error}"))?;
    decode(&bytes)
}

pub(super) fn decode(bytes: &[u8]) -> Result<ProviderRequest, String> {
    let request: Result<ProviderRequest, _> = serde_json::from_slice(bytes);
    let request = request.map_err(|error| format!("the request is not understood: {error}"))?;
    if request.version != ProviderRequest::VERSION {
        let (version, known) = (request.version, ProviderRequest::VERSION);
        return Err(format!(
            "the request has version {version}, known is {known}"
        ));
    }
    Ok(request)
}
