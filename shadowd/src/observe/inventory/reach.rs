//! Whether what units connect to can be reached from here: a name that resolves, a TCP connection
//! that is accepted. Nothing is sent over it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::facts::{Dependency, Protocol};

/// How long one try may take: a segment that is lost is sent again after a second (RFC 6298).
const WITHIN: Duration = Duration::from_secs(2);
/// Tries at once.
const AT_ONCE: usize = 8;
/// What was reached is tried again after this, what was not at each look.
const AGAIN: Duration = Duration::from_secs(3);
/// More dependencies are not tried.
const TRIED_MAX: usize = 256;

/// What came of the last tries of each.
#[derive(Debug, Default)]
pub struct Reach {
    tried: BTreeMap<Dependency, Tried>,
}

#[derive(Debug)]
struct Tried {
    at: Instant,
    believed: Result<(), String>,
    /// The last try failed, also when that is not believed yet.
    failed: bool,
}

impl Reach {
    /// Tries what is due of `wanted`, and gives what is known of all.
    pub async fn look<'a>(
        &mut self,
        wanted: impl IntoIterator<Item = &'a Dependency>,
    ) -> BTreeMap<Dependency, Result<(), String>> {
        let wanted: Vec<&Dependency> = wanted.into_iter().take(TRIED_MAX).collect();
        self.tried
            .retain(|dependency, _| wanted.contains(&dependency));
        let due = wanted.iter().copied().filter(|dependency| {
            let tried = self.tried.get(*dependency);
            tried.is_none_or(|tried| tried.failed || tried.at.elapsed() >= AGAIN)
        });
        let due: Vec<Dependency> = due.cloned().collect();
        let tries = stream::iter(due).map(|dependency| async move {
            let result = attempt(&dependency).await;
            (dependency, result)
        });
        let results: Vec<_> = tries.buffer_unordered(AT_ONCE).collect().await;
        for (dependency, result) in results {
            self.note(dependency, result);
        }
        let known = self.tried.iter();
        known
            .map(|(dependency, tried)| (dependency.clone(), tried.believed.clone()))
            .collect()
    }

    /// Whether something that is believed to be reached was not at the last try: the next one decides,
    /// and should not wait.
    pub fn is_in_doubt(&self) -> bool {
        self.tried
            .values()
            .any(|tried| tried.failed && tried.believed.is_ok())
    }

    /// One lost packet is no news: what was reached is believed to be until it fails twice.
    fn note(&mut self, dependency: Dependency, result: Result<(), String>) {
        let (at, failed) = (Instant::now(), result.is_err());
        let first_failure = |known: &Tried| failed && !known.failed && known.believed.is_ok();
        let believed = match self.tried.get(&dependency) {
            Some(known) if first_failure(known) => Ok(()),
            _ => result,
        };
        let tried = Tried {
            at,
            believed,
            failed,
        };
        self.tried.insert(dependency, tried);
    }
}

async fn attempt(dependency: &Dependency) -> Result<(), String> {
    let place = format!("{}:{}", dependency.remote, dependency.port);
    let place = match dependency.remote.contains(':') {
        true => format!("[{}]:{}", dependency.remote, dependency.port),
        false => place,
    };
    let tried = async {
        let addresses: Vec<SocketAddr> = lookup_host(&place).await.map_err(unresolved)?.collect();
        if dependency.protocol == Protocol::Udp {
            // Nobody says that a datagram arrived.
            return Ok(());
        }
        let mut failed = io::Error::other("the name has no address");
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(_) => return Ok(()),
                Err(error) => failed = error,
            }
        }
        Err(format!("it cannot be reached from here: {failed}"))
    };
    let late = || Err(format!("no answer within {} s", WITHIN.as_secs()));
    timeout(WITHIN, tried).await.unwrap_or_else(|_| late())
}

fn unresolved(error: io::Error) -> String {
    format!("the name does not resolve here: {error}")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn local(port: u16) -> Dependency {
        Dependency {
            protocol: Protocol::Tcp,
            remote: "127.0.0.1".into(),
            port,
        }
    }

    #[tokio::test]
    async fn what_listens_is_reached_and_what_does_not_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = local(listener.local_addr().unwrap().port());
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            local(listener.local_addr().unwrap().port())
        };
        let mut reach = Reach::default();
        let found = reach.look([&open, &closed]).await;
        assert_eq!(found[&open], Ok(()));
        assert!(
            found[&closed]
                .as_ref()
                .is_err_and(|why| why.contains("refused"))
        );
        // What is not wanted any more is forgotten.
        assert_eq!(reach.look([&open]).await.len(), 1);
    }

    #[tokio::test]
    async fn what_was_reached_is_in_doubt_once_and_then_not_reached() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = local(listener.local_addr().unwrap().port());
        let mut reach = Reach::default();
        assert_eq!(reach.look([&service]).await[&service], Ok(()));
        assert!(!reach.is_in_doubt());
        drop(listener);
        reach.note(service.clone(), Err("it is gone".into()));
        assert!(reach.is_in_doubt());
        assert_eq!(reach.tried[&service].believed, Ok(()));
        assert!(reach.look([&service]).await[&service].is_err());
        assert!(!reach.is_in_doubt());
    }
}
