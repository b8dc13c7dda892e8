//! Whether what units connect to can be reached from here: a name that resolves, a TCP connection
//! that is accepted. Nothing is sent over it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::facts::{Dependency, Protocol};

/// How long one try may take: a segment that is lost is sent again after a second (RFC 6298).
const WITHIN: Duration = Duration::from_secs(2);
/// How long all tries of a look may take together, whatever is silent.
const LOOK_WITHIN: Duration = Duration::from_millis(2_500);
/// Tries at once, the most of one look: of more, those go first that were tried the longest ago.
const AT_ONCE: usize = 256;
/// Names that are looked up at once. Each takes a thread, which goes on when nobody waits for it any more:
/// resolvers that are silent take all of these, and no more.
const LOOKUPS: usize = 16;
/// What was reached is tried again after this, what was not at each look.
const AGAIN: Duration = Duration::from_secs(3);
/// What was not tried for so long is not known.
const KNOWN_FOR: Duration = Duration::from_secs(30);

/// What came of the last tries of each.
#[derive(Debug)]
pub struct Reach {
    tried: BTreeMap<Dependency, Tried>,
    lookups: Arc<Semaphore>,
}

impl Default for Reach {
    fn default() -> Self {
        Self {
            tried: BTreeMap::new(),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
        }
    }
}

#[derive(Debug)]
struct Tried {
    at: Instant,
    believed: Result<(), String>,
    /// The last try failed, also when that is not believed yet.
    failed: bool,
}

impl Reach {
    /// Tries what is due of `wanted`, and gives what is known of each; nothing of what was not tried lately.
    pub async fn look<'a>(
        &mut self,
        wanted: impl IntoIterator<Item = &'a Dependency>,
    ) -> BTreeMap<Dependency, Result<(), String>> {
        let wanted: BTreeSet<&Dependency> = wanted.into_iter().collect();
        self.tried
            .retain(|dependency, _| wanted.contains(dependency));
        let over_at = Instant::now() + LOOK_WITHIN;
        let tries = stream::iter(self.due(wanted)).map(|dependency| {
            let lookups = Arc::clone(&self.lookups);
            async move {
                // Waiting for others' lookups is no try of this one.
                let lookup = permit(&dependency, lookups).await;
                let result = attempt(&dependency, lookup).await;
                (dependency, result)
            }
        });
        let mut results = Vec::new();
        {
            let mut tries = pin!(tries.buffer_unordered(AT_ONCE));
            while let Ok(Some(result)) = timeout_at(over_at, tries.next()).await {
                results.push(result);
            }
        }
        for (dependency, result) in results {
            self.note(dependency, result);
        }
        let known = self.tried.iter();
        known
            .filter(|(_, tried)| tried.at.elapsed() < KNOWN_FOR)
            .map(|(dependency, tried)| (dependency.clone(), tried.believed.clone()))
            .collect()
    }

    /// What a look tries, those first that were never tried, or the longest ago.
    fn due(&self, wanted: BTreeSet<&Dependency>) -> Vec<Dependency> {
        let tried_at = |dependency: &Dependency| self.tried.get(dependency).map(|tried| tried.at);
        let mut due: Vec<&Dependency> = wanted.into_iter().collect();
        due.retain(|dependency| {
            let tried = self.tried.get(*dependency);
            tried.is_none_or(|tried| tried.failed || tried.at.elapsed() >= AGAIN)
        });
        due.sort_by_key(|dependency| tried_at(dependency));
        due.into_iter().take(AT_ONCE).cloned().collect()
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

/// The right to look a name up; none is needed for an address.
async fn permit(dependency: &Dependency, lookups: Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    match dependency.remote.parse::<IpAddr>() {
        Ok(_) => None,
        Err(_) => lookups.acquire_owned().await.ok(),
    }
}

async fn attempt(
    dependency: &Dependency,
    lookup: Option<OwnedSemaphorePermit>,
) -> Result<(), String> {
    let tried = async {
        let addresses = addresses(dependency, lookup).await.map_err(unresolved)?;
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

/// Where something is. The permit is held until the lookup has ended, also when nobody waits for it.
async fn addresses(
    dependency: &Dependency,
    lookup: Option<OwnedSemaphorePermit>,
) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = dependency.remote.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, dependency.port)]);
    }
    let place = (dependency.remote.clone(), dependency.port);
    let found = tokio::spawn(async move {
        let found = lookup_host(place).await.map(Iterator::collect);
        drop(lookup);
        found
    });
    found.await.map_err(io::Error::other)?
}

fn unresolved(error: io::Error) -> String {
    format!("the name does not resolve here: {error}")
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

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

    /// A port of every loopback address that answers nothing: nobody takes what waits there.
    async fn silent() -> (TcpListener, Vec<TcpStream>, u16) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut waiting = Vec::new();
        let soon = Duration::from_millis(300);
        while let Ok(stream) = timeout(soon, TcpStream::connect(("127.0.0.1", port))).await {
            waiting.push(stream.unwrap());
        }
        (listener, waiting, port)
    }

    #[tokio::test]
    async fn a_look_ends_in_time_whatever_is_silent_and_the_next_tries_what_it_left() {
        let (_listener, _waiting, port) = silent().await;
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = local(open.local_addr().unwrap().port());
        let silent = |n: usize| Dependency {
            remote: format!("127.1.{}.{}", n / 200, n % 200 + 1),
            ..local(port)
        };
        let mut wanted: Vec<Dependency> = (0..AT_ONCE + 40).map(silent).collect();
        wanted.push(open.clone());
        let mut reach = Reach::default();
        let began = Instant::now();
        let found = reach.look(&wanted).await;
        assert!(began.elapsed() < Duration::from_secs(3));
        assert_eq!(found.len(), AT_ONCE);
        assert_eq!(found[&open], Ok(()));
        let found = reach.look(&wanted).await;
        assert_eq!(found.len(), wanted.len());
        let failed = found.values().filter(|result| result.is_err());
        assert_eq!(failed.count(), wanted.len() - 1);
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_looked_up_in_time_is_not_known_and_holds_up_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = local(listener.local_addr().unwrap().port());
        let name = Dependency {
            remote: "localhost".into(),
            ..open.clone()
        };
        let mut reach = Reach::default();
        let lookups = Arc::clone(&reach.lookups);
        let hanging = lookups.acquire_many(LOOKUPS as u32).await.unwrap();
        let found = reach.look([&name, &open]).await;
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [(open, Ok(()))]);
        drop(hanging);
        assert_eq!(reach.look([&name]).await[&name], Ok(()));
        reach.tried.get_mut(&name).unwrap().at -= KNOWN_FOR;
        let hanging = lookups.acquire_many(LOOKUPS as u32).await.unwrap();
        assert!(
            reach.look([&name]).await.is_empty(),
            "it was known too long ago"
        );
        drop(hanging);
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
