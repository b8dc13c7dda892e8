//! The listening socket: who may open it, how many at once, how long a request may take.
//!
//! One request a connection. Everything a caller can make the daemon hold is bounded: connections,
//! header and body size, time. Whoever goes beyond is closed and counted; nobody is queued.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::protocol::{Code, HANDOVER_TIMEOUT, Refusal, SOCKET_GROUP, SocketCounters};
use super::routes::{self, Caller};
use super::{Answers, Metrics};

/// Connections served at once.
pub const MAX_CONNECTIONS: usize = 64;

/// How long a caller may take to send a request's head, and how long body and answer may take; a
/// change has [`HANDOVER_TIMEOUT`] on top.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection is closed after this, whatever it does: sending, a handover, and reading.
const CONNECTION_LIFETIME: Duration =
    Duration::from_secs(2 * REQUEST_TIMEOUT.as_secs() + HANDOVER_TIMEOUT.as_secs());

/// What open requests get to end in when the daemon stops.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Request line and headers, in bytes and in number.
const MAX_HEADER_BYTES: usize = 8 * 1024;
const MAX_HEADERS: usize = 32;

/// Connections the kernel may hold until they are accepted.
const BACKLOG: i32 = 64;

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there.
    #[error("another shadowd answers at {}: stop it first", .path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else lies at the path.
    #[error("{} is not a socket and was left as it is: move it away or set host.socket", .path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A step failed.
    #[error("cannot {step} {}", .path.display())]
    Step {
        /// The step, as a verb.
        step: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Counters of the socket; shared with whoever shows them.
#[derive(Debug, Default)]
pub struct Counters {
    connections: AtomicU64,
    rejected: AtomicU64,
    requests: AtomicU64,
    malformed: AtomicU64,
    forbidden: AtomicU64,
    timed_out: AtomicU64,
}

impl Counters {
    /// Their values now.
    pub fn read(&self) -> SocketCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SocketCounters {
            connections: get(&self.connections),
            rejected: get(&self.rejected),
            requests: get(&self.requests),
            malformed: get(&self.malformed),
            forbidden: get(&self.forbidden),
            timed_out: get(&self.timed_out),
        }
    }

    fn count_answer(&self, code: Option<Code>) {
        add(&self.requests);
        match code {
            Some(Code::BadRequest | Code::UnknownPath | Code::WrongMethod | Code::TooLarge) => {
                add(&self.malformed);
            }
            Some(Code::Forbidden) => add(&self.forbidden),
            Some(Code::TimedOut) => add(&self.timed_out),
            _ => {}
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The socket, listening. Dropping it removes its file.
#[derive(Debug)]
pub struct Socket {
    listener: StdListener,
    path: PathBuf,
    /// The file's device and inode: another daemon's file at the path is not ours to remove.
    file: (u64, u64),
    warning: Option<String>,
    counters: Arc<Counters>,
    metrics: Arc<Metrics>,
}

impl Socket {
    /// Listens at `path`: mode 0660, group [`SOCKET_GROUP`] if there is such a group.
    ///
    /// The directory is made (0755) when it is missing. A socket that nobody answers on is
    /// replaced. The file gets its name last, so nobody connects before its mode is right.
    ///
    /// # Errors
    /// See [`BindError`]; what lies at `path` is then as it was.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let step = |step, source| BindError::Step {
            step,
            path: path.to_owned(),
            source,
        };
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(dir)
                .map_err(|source| step("create the directory of", source))?;
        }
        refuse_unless_stale(path)?;
        let fresh = path.with_added_extension("new");
        match fs::remove_file(&fresh) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(step("remove what was left beside", source));
            }
            _ => {}
        }
        let listener = bound(&fresh).map_err(|source| step("bind", source))?;
        let prepared = give_to_group(&fresh).and_then(|warning| {
            fs::set_permissions(&fresh, Permissions::from_mode(0o660))?;
            let meta = fs::symlink_metadata(&fresh)?;
            listener.listen(BACKLOG)?;
            fs::rename(&fresh, path)?;
            Ok((warning, (meta.dev(), meta.ino())))
        });
        match prepared {
            Ok((warning, file)) => Ok(Self {
                listener: listener.into(),
                path: path.to_owned(),
                file,
                warning,
                counters: Arc::default(),
                metrics: Arc::default(),
            }),
            Err(source) => {
                let _ = fs::remove_file(&fresh);
                Err(step("listen at", source))
            }
        }
    }

    /// A sentence for the operator when the socket is less open than meant.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Answers `GET /metrics` by `metrics`, which a [`super::MetricsListener`] may share.
    pub fn with_metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// The socket's counters.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Answers requests until `stop` turns true or its sender is gone; open requests get 2 s to
    /// end. Removes the socket's file.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket. An accept that fails is tried again.
    pub async fn serve<A: Answers>(
        self,
        answers: Arc<A>,
        mut stop: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        let router = routes::router(
            answers,
            Arc::clone(&self.counters),
            Arc::clone(&self.metrics),
        );
        let daemon_uid = nix::unistd::geteuid().as_raw();
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.admit(stream, &mut open, &router, daemon_uid),
                    // Out of descriptors or memory: the caller stays in the backlog meanwhile.
                    Err(error) => {
                        tracing::warn!(%error, "the socket cannot accept");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = open.join_next() => {}
            }
        }
        // Whoever comes now shall read that no daemon runs, not wait for one that is leaving.
        self.remove_file();
        drop(listener);
        let drained = async { while open.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(STOP_GRACE, drained).await;
        open.shutdown().await;
        Ok(())
    }

    fn admit(&self, stream: UnixStream, open: &mut JoinSet<()>, router: &Router, daemon_uid: u32) {
        add(&self.counters.connections);
        // Those that have ended but were not collected yet do not count.
        while open.try_join_next().is_some() {}
        if open.len() >= MAX_CONNECTIONS {
            add(&self.counters.rejected);
            return;
        }
        let Ok(credentials) = stream.peer_cred() else {
            add(&self.counters.rejected);
            return;
        };
        let caller = Caller {
            uid: credentials.uid(),
            daemon_uid,
        };
        open.spawn(converse(
            stream,
            caller,
            router.clone(),
            Arc::clone(&self.counters),
        ));
    }

    /// Removes the socket's file, unless another file lies there now.
    fn remove_file(&self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.remove_file();
    }
}

/// Returns when `stop` is true or can no longer become so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Whether `path` is free, or holds a socket that nobody answers on.
fn refuse_unless_stale(path: &Path) -> Result<(), BindError> {
    let path_buf = || path.to_owned();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(BindError::Step {
                step: "look at",
                path: path_buf(),
                source,
            });
        }
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path_buf() });
        }
        Ok(_) => {}
    }
    match asked(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A full backlog (EAGAIN) is an answer too: somebody listens.
        Ok(_) => Err(BindError::InUse { path: path_buf() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(BindError::InUse { path: path_buf() })
        }
        Err(source) => Err(BindError::Step {
            step: "ask who listens at",
            path: path_buf(),
            source,
        }),
    }
}

/// Asks whether somebody listens at `path`, without waiting: a hung daemon's backlog may be full.
fn asked(path: &Path) -> io::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&socket2::SockAddr::unix(path)?)
}

/// A socket bound to `path` that does not listen yet.
fn bound(path: &Path) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    Ok(socket)
}

/// Gives the file to [`SOCKET_GROUP`]; a sentence when it cannot be.
fn give_to_group(path: &Path) -> io::Result<Option<String>> {
    match nix::unistd::Group::from_name(SOCKET_GROUP) {
        Ok(Some(group)) => match chown(path, None, Some(group.gid.as_raw())) {
            Ok(()) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Some(format!(
                "the socket stays with the daemon's own group: giving it to {SOCKET_GROUP} is not \
                 permitted"
            ))),
            Err(error) => Err(error),
        },
        Ok(None) => Ok(Some(format!(
            "there is no group {SOCKET_GROUP}, so only root can use the socket: `groupadd --system \
             {SOCKET_GROUP}`, then restart shadowd"
        ))),
        Err(errno) => Ok(Some(format!(
            "the group {SOCKET_GROUP} cannot be looked up ({errno}), so only root can use the \
             socket"
        ))),
    }
}

/// One connection: one request, one answer.
async fn converse(stream: UnixStream, caller: Caller, router: Router, counters: Arc<Counters>) {
    let for_requests = Arc::clone(&counters);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(caller);
        let (router, counters) = (router.clone(), Arc::clone(&for_requests));
        async move { Ok::<_, std::convert::Infallible>(answer(request, router, &counters).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEADER_BYTES)
        .keep_alive(false)
        // A caller that leaves does not cut a handover in two.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_LIFETIME, connection).await {
        Err(_) => add(&counters.timed_out),
        Ok(Err(error)) if error.is_timeout() => add(&counters.timed_out),
        // hyper has answered 400 or 431 itself: there is no request to route.
        Ok(Err(error)) if error.is_parse() => add(&counters.malformed),
        // The caller went away, before or after its request.
        Ok(_) => {}
    }
}

async fn answer(
    request: hyper::Request<Incoming>,
    router: Router,
    counters: &Counters,
) -> Response<Body> {
    // A handover has its own, longer bound inside; this one adds the time for its body.
    let allowed = if request.method() == hyper::Method::POST {
        REQUEST_TIMEOUT + HANDOVER_TIMEOUT
    } else {
        REQUEST_TIMEOUT
    };
    let response = match tokio::time::timeout(allowed, router.oneshot(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => Refusal::new(
            Code::TimedOut,
            format!("no answer within {} s", allowed.as_secs()),
            "see `journalctl -u shadowd`: the host may be starved",
        )
        .into_response(),
    };
    counters.count_answer(response.extensions().get::<Code>().copied());
    response
}
