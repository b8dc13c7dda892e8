//! Asks the daemon over its Unix socket: one connection, one request, one answer.
//!
//! Everything the daemon sends is bounded in time and size. Each way to fail has a sentence that
//! says what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::serve::protocol::{ErrorAnswer, Refusal};

/// A request that takes longer is given up.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// A longer answer (bytes) is refused.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens.
    #[error(
        "shadowd is not running ({finding} {}): start it with `systemctl start shadowd`",
        .path.display()
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What was found.
        finding: &'static str,
    },
    /// The socket's mode does not let this user in.
    #[error("no permission to open {}: join the group shadowd or use sudo", .path.display())]
    NoPermission {
        /// The socket.
        path: PathBuf,
    },
    /// The socket cannot be used.
    #[error("cannot use the socket {}", .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection ended before the answer did.
    #[error(
        "shadowd at {} closed the connection: it is stopping, or serves too many clients; try again",
        .path.display()
    )]
    Closed {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The daemon took too long.
    #[error(
        "shadowd at {} did not answer within {} s: see `systemctl status shadowd`",
        .path.display(),
        TIMEOUT.as_secs()
    )]
    TimedOut {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon said no.
    #[error(transparent)]
    Refused(Refusal),
    /// The answer is not what this version expects.
    #[error(
        "the answer to {request} was not understood ({finding}): use shadowctl and shadowd of the \
         same version"
    )]
    NotUnderstood {
        /// The request's path.
        request: String,
        /// What was wrong.
        finding: String,
    },
}

/// The daemon, as a client sees it.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the daemon that listens at `socket`. Nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Reads `path`, which may carry a query.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.call(Method::GET, path, Vec::new()).await
    }

    /// Sends `body` to `path`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, CallError> {
        let body = serde_json::to_vec(body).map_err(|error| not_understood(path, error))?;
        self.call(Method::POST, path, body).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, CallError> {
        let exchange = self.exchange(method, path, body);
        let (status, body) = tokio::time::timeout(TIMEOUT, exchange)
            .await
            .map_err(|_| CallError::TimedOut {
                path: self.socket.clone(),
            })??;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| not_understood(path, error));
        }
        match serde_json::from_slice::<ErrorAnswer>(&body) {
            Ok(answer) => Err(CallError::Refused(answer.error)),
            Err(_) => Err(not_understood(path, format!("status {status}"))),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "shadowd")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| not_understood(path, error))?;
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|e| self.unreachable(e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.broken(path, e))?;
        // The request ends when the connection does; its error reaches the sender too.
        let connection = tokio::spawn(connection);
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| self.broken(path, e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await;
        connection.abort();
        match body {
            Ok(body) => Ok((status, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(not_understood(
                path,
                format!("more than {MAX_ANSWER_BYTES} bytes"),
            )),
            Err(error) => match error.downcast::<hyper::Error>() {
                Ok(error) => Err(self.broken(path, *error)),
                Err(error) => Err(not_understood(path, error)),
            },
        }
    }

    fn unreachable(&self, source: io::Error) -> CallError {
        let path = self.socket.clone();
        match source.kind() {
            io::ErrorKind::NotFound => CallError::NotRunning {
                path,
                finding: "no socket at",
            },
            io::ErrorKind::ConnectionRefused => CallError::NotRunning {
                path,
                finding: "nobody answers at",
            },
            io::ErrorKind::PermissionDenied => CallError::NoPermission { path },
            _ => CallError::Socket { path, source },
        }
    }

    fn broken(&self, request: &str, source: hyper::Error) -> CallError {
        if source.is_parse() {
            return not_understood(request, source);
        }
        CallError::Closed {
            path: self.socket.clone(),
            source,
        }
    }
}

fn not_understood(request: &str, finding: impl std::fmt::Display) -> CallError {
    CallError::NotUnderstood {
        request: request.to_owned(),
        finding: finding.to_string(),
    }
}
