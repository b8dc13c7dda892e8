//! `GET /metrics` over TCP, for a Prometheus that cannot open a Unix socket.
//!
//! It answers this one path and nothing else, without a word on who asks: hence loopback unless the
//! configuration says otherwise. Connections, time and sizes are bounded.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Metrics;
use crate::serve::Answers;
use crate::serve::protocol::METRICS;
use crate::serve::routes::scrape;

/// Scrapes served at once.
const MAX_CONNECTIONS: usize = 8;
/// How long a caller may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is closed after this, whatever it does.
const LIFETIME: Duration = Duration::from_secs(15);
/// Request line and headers, bytes and number.
const MAX_HEADER_BYTES: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;

/// Why nobody can listen there.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (TCP) for metrics: change metrics.listen or free the port")]
pub struct MetricsBindError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// The listener, bound.
#[derive(Debug)]
pub struct MetricsListener {
    listener: StdListener,
    metrics: Arc<Metrics>,
}

impl MetricsListener {
    /// Listens on `address`.
    ///
    /// # Errors
    /// When the address is not this host's or the port is taken.
    pub fn bind(address: SocketAddr, metrics: Arc<Metrics>) -> Result<Self, MetricsBindError> {
        let bound = || {
            let listener = StdListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = bound().map_err(|source| MetricsBindError { address, source })?;
        Ok(Self { listener, metrics })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers scrapes until `stop` turns true or its sender is gone.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket. An accept that fails is tried again.
    pub async fn serve<A: Answers>(
        self,
        answers: Arc<A>,
        mut stop: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) if open.len() < MAX_CONNECTIONS => {
                        open.spawn(converse(stream, Arc::clone(&answers), Arc::clone(&self.metrics)));
                    }
                    Ok(_) => tracing::warn!("a scrape was turned away: {MAX_CONNECTIONS} are open"),
                    Err(error) => {
                        tracing::warn!(%error, "the listener of the metrics cannot accept");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = open.join_next() => {}
            }
        }
        open.shutdown().await;
        Ok(())
    }
}

/// Returns when `stop` is true or can no longer become so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// One connection: one request, one answer.
async fn converse<A: Answers>(stream: TcpStream, answers: Arc<A>, metrics: Arc<Metrics>) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (answers, metrics) = (Arc::clone(&answers), Arc::clone(&metrics));
        async move { Ok::<_, std::convert::Infallible>(answer(&request, &*answers, &metrics).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Whether the caller was slow, wrong or gone: there is nobody to tell.
    let _ = tokio::time::timeout(LIFETIME, connection).await;
}

async fn answer<A: Answers>(
    request: &Request<Incoming>,
    answers: &A,
    metrics: &Arc<Metrics>,
) -> Response<Body> {
    if request.uri().path() != METRICS {
        return (StatusCode::NOT_FOUND, "only /metrics is answered here\n").into_response();
    }
    if request.method() != Method::GET {
        let allow = [(header::ALLOW, "GET")];
        return (StatusCode::METHOD_NOT_ALLOWED, allow, "GET reads\n").into_response();
    }
    scrape(metrics, answers).await
}
