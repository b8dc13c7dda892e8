//! Messages over HTTP: one connection, one `POST`, one answer, all within a deadline.
//!
//! `https://` is TLS 1.3 with the host's own roots, the same library that the links use. Redirects
//! are not followed: a message goes where the configuration says. Addresses and headers may hold
//! secrets and appear in no error. This module decides neither what is sent nor when.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::secret::{self, SecretError};
use crate::config::settings::WebhookSettings;

/// Why a message did not arrive.
#[derive(Debug, Error)]
pub enum WebhookError {
    /// The server cannot be reached or does not speak HTTP.
    #[error("the server was not reached")]
    Unreached(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The deadline passed.
    #[error("the server did not answer in time")]
    Late,
    /// The server refused, or answered with something else than success.
    #[error("the server answered {0}")]
    Answer(StatusCode),
    /// The header file is not read.
    #[error(transparent)]
    HeaderFile(#[from] SecretError),
    /// The header file holds something else than one header line.
    #[error("{} does not hold one line `Name: value`", .path.display())]
    NotAHeader {
        /// The file.
        path: PathBuf,
    },
    /// TLS cannot be set up on this host.
    #[error("this host has no usable root certificates: install ca-certificates")]
    NoRoots,
}

impl WebhookError {
    /// Whether another try may help: the server, the network or the operator may be quick to mend it.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Answer(status) => {
                status.is_server_error()
                    || *status == StatusCode::REQUEST_TIMEOUT
                    || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Unreached(_)
            | Self::Late
            | Self::HeaderFile(_)
            | Self::NotAHeader { .. }
            | Self::NoRoots => true,
        }
    }
}

/// Sends `body`, which is JSON; gives the status of success.
///
/// # Errors
/// [`WebhookError`]: it is not known to have arrived.
pub async fn post(to: &WebhookSettings, body: Vec<u8>) -> Result<StatusCode, WebhookError> {
    let header = to.header_file.as_deref().map(secret_header).transpose()?;
    let status = tokio::time::timeout(to.deadline, exchange(to, header, body))
        .await
        .map_err(|_| WebhookError::Late)??;
    if status.is_success() {
        Ok(status)
    } else {
        Err(WebhookError::Answer(status))
    }
}

type Header = (HeaderName, HeaderValue);

async fn exchange(
    to: &WebhookSettings,
    header: Option<Header>,
    body: Vec<u8>,
) -> Result<StatusCode, WebhookError> {
    let stream = TcpStream::connect((to.host.as_str(), to.port))
        .await
        .map_err(unreached)?;
    if !to.tls {
        return request(stream, to, header, body).await;
    }
    let name = ServerName::try_from(to.host.clone()).map_err(unreached)?;
    let stream = TlsConnector::from(client()?)
        .connect(name, stream)
        .await
        .map_err(unreached)?;
    request(stream, to, header, body).await
}

async fn request<S>(
    stream: S,
    to: &WebhookSettings,
    header: Option<Header>,
    body: Vec<u8>,
) -> Result<StatusCode, WebhookError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut request = Request::post(&to.path)
        .header(HOST, &to.authority)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("shadowd/", env!("CARGO_PKG_VERSION")));
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let request = request
        .body(Full::new(Bytes::from(body)))
        .map_err(unreached)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(unreached)?;
    // The status is all that is read; what else the server says ends with the connection.
    let answer = async {
        let answer = sender.send_request(request).await.map_err(unreached)?;
        Ok(answer.status())
    };
    tokio::select! {
        answer = answer => answer,
        Err(error) = connection => Err(unreached(error)),
    }
}

/// The roots are read each time: they change, and messages are rare.
fn client() -> Result<Arc<rustls::ClientConfig>, WebhookError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(WebhookError::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unreached)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn secret_header(path: &Path) -> Result<Header, WebhookError> {
    header(&secret::read(path)?).ok_or_else(|| WebhookError::NotAHeader {
        path: path.to_owned(),
    })
}

fn header(text: &str) -> Option<Header> {
    let (name, value) = text.trim_end().split_once(':')?;
    let name: HeaderName = name.trim().parse().ok()?;
    let mut value: HeaderValue = value.trim().parse().ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

fn unreached(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> WebhookError {
    WebhookError::Unreached(error.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn webhook(port: u16) -> WebhookSettings {
        WebhookSettings {
            tls: false,
            host: "127.0.0.1".to_owned(),
            port,
            authority: format!("127.0.0.1:{port}"),
            path: "/in?x=1".to_owned(),
            header_file: None,
            deadline: Duration::from_secs(5),
        }
    }

    /// Answers one request with `answer`; gives what was asked.
    async fn serve(listener: TcpListener, answer: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"{}") {
            let mut part = [0; 1024];
            let length = stream.read(&mut part).await.unwrap();
            asked.extend_from_slice(&part[..length]);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(asked).unwrap()
    }

    #[tokio::test]
    async fn a_message_is_one_post_and_the_answer_decides() {
        for (line, transient) in [
            ("204 No Content", None),
            ("500 Oops", Some(true)),
            ("429 Slowly", Some(true)),
            ("404 Not Found", Some(false)),
            ("302 Found", Some(false)),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let to = webhook(listener.local_addr().unwrap().port());
            let answer = format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n");
            let (asked, result) = tokio::join!(serve(listener, &answer), post(&to, b"{}".to_vec()));
            assert!(asked.starts_with("POST /in?x=1 HTTP/1.1\r\n"), "{asked}");
            assert!(
                asked.contains("content-type: application/json\r\n"),
                "{asked}"
            );
            assert_eq!(
                result.err().map(|error| error.is_transient()),
                transient,
                "{line}"
            );
        }
    }

    #[tokio::test]
    async fn a_dead_or_a_silent_server_is_tried_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut to = webhook(listener.local_addr().unwrap().port());
        to.deadline = Duration::from_millis(50);
        let late = post(&to, b"{}".to_vec()).await.unwrap_err();
        assert!(matches!(late, WebhookError::Late), "{late}");
        drop(listener);
        let refused = post(&to, b"{}".to_vec()).await.unwrap_err();
        assert!(matches!(refused, WebhookError::Unreached(_)) && refused.is_transient());
    }

    #[test]
    fn a_header_is_read_from_a_file_and_shown_by_nothing() {
        let path = std::env::temp_dir().join(format!("shadowd-header-{}", std::process::id()));
        std::fs::write(&path, "Authorization: Bearer sesame\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let open = secret_header(&path).unwrap_err();
        assert!(matches!(open, WebhookError::HeaderFile(_)), "{open}");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let (name, value) = secret_header(&path).unwrap();
        assert_eq!(
            (name.as_str(), value.to_str().unwrap()),
            ("authorization", "Bearer sesame")
        );
        assert!(!format!("{value:?}").contains("sesame"));
        std::fs::write(&path, "sesame").unwrap();
        let odd = secret_header(&path).unwrap_err();
        assert!(
            matches!(odd, WebhookError::NotAHeader { .. }) && !odd.to_string().contains("sesame")
        );
        std::fs::remove_file(&path).unwrap();
    }
}
