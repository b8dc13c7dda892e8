//! HTTP for `object_store`, with the libraries that shadowd has anyway: hyper, and rustls over ring.
//!
//! One connection for each request: there are some in a minute. `https://` is TLS 1.3 with the
//! host's own roots. Redirects are not followed. An answer is read to its end within [`ANSWER_MAX`];
//! of one that refuses nothing is passed on but the code that S3 gives it, because stores repeat
//! what they were sent.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, USER_AGENT};
use hyper::http::uri::{Parts, Scheme, Uri};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpService,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{OBJECT_MAX, Source};

/// A longer answer (bytes) is none. A page of a listing has some 500 KiB.
const ANSWER_MAX: usize = OBJECT_MAX as usize;
/// Letters of a code that are passed on.
const CODE_MAX: usize = 64;

/// Makes clients.
#[derive(Debug)]
pub(super) struct Connector;

impl Connector {
    pub(super) const fn new() -> Self {
        Self
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Client))
    }
}

#[derive(Debug)]
struct Client;

#[async_trait::async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let uri = request.uri().clone();
        let authority = uri
            .authority()
            .ok_or_else(|| no("the address has no host"))?;
        let is_tls = uri.scheme() != Some(&Scheme::HTTP);
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority
            .port_u16()
            .unwrap_or(if is_tls { 443 } else { 80 });
        let request = addressed(request, authority.as_str())?;
        let connect = TcpStream::connect((host.as_str(), port));
        let stream = connect
            .await
            .map_err(|error| failed(HttpErrorKind::Connect, error))?;
        if !is_tls {
            return exchange(stream, request).await;
        }
        let name = ServerName::try_from(host);
        let name = name.map_err(|error| failed(HttpErrorKind::Connect, error))?;
        let connector = TlsConnector::from(roots()?);
        let stream = connector.connect(name, stream).await;
        exchange(
            stream.map_err(|error| failed(HttpErrorKind::Connect, error))?,
            request,
        )
        .await
    }
}

/// As HTTP/1.1 has it: the path in the first line, the host in a header (RFC 9112 section 3.2).
fn addressed(mut request: HttpRequest, authority: &str) -> Result<HttpRequest, HttpError> {
    let host = HeaderValue::from_str(authority);
    let host = host.map_err(|error| failed(HttpErrorKind::Request, error))?;
    let agent = HeaderValue::from_static(concat!("shadowd/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(USER_AGENT, agent);
    let mut parts = Parts::default();
    parts.path_and_query = request.uri().path_and_query().cloned();
    let uri = Uri::from_parts(parts).map_err(|error| failed(HttpErrorKind::Request, error))?;
    *request.uri_mut() = uri;
    Ok(request)
}

async fn exchange<S>(stream: S, request: HttpRequest) -> Result<HttpResponse, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request: Request<HttpRequestBody> = request;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(HttpErrorKind::Connect, error))?;
    let broken = |error| failed(HttpErrorKind::Interrupted, error);
    let answered = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        read(answer).await
    };
    tokio::pin!(answered, connection);
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        // The last of an answer may come with the end of the connection.
        ended = &mut connection => match ended {
            Ok(()) => answered.await,
            Err(error) => Err(broken(error)),
        },
    }
}

async fn read(answer: Response<Incoming>) -> Result<HttpResponse, HttpError> {
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_MAX).collect().await;
    let body = body.map_err(|error| HttpError::new_boxed(HttpErrorKind::Interrupted, error))?;
    let mut bytes = body.to_bytes();
    if !parts.status.is_success() {
        bytes = Bytes::from(code(&bytes));
    }
    Ok(HttpResponse::from_parts(parts, bytes.into()))
}

/// What S3 calls the reason, such as `NoSuchBucket`; nothing else of a refusal is passed on.
fn code(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let code = text.split_once("<Code>").map_or("", |(_, rest)| rest);
    let letters = code.chars().take_while(char::is_ascii_alphanumeric);
    letters.take(CODE_MAX).collect()
}

/// The roots are read each time: they change, and requests are rare.
fn roots() -> Result<Arc<rustls::ClientConfig>, HttpError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(no(
            "this host has no usable root certificates: install ca-certificates",
        ));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| failed(HttpErrorKind::Connect, error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn no(why: &'static str) -> HttpError {
    HttpError::new_boxed(HttpErrorKind::Connect, Source::from(why))
}

fn failed<E: std::error::Error + Send + Sync + 'static>(kind: HttpErrorKind, why: E) -> HttpError {
    HttpError::new(kind, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_refusal_only_the_code_is_passed_on() {
        let body = b"<?xml?><Error><Code>SignatureDoesNotMatch</Code><StringToSign>sesame";
        assert_eq!(code(body), "SignatureDoesNotMatch");
        assert_eq!(code(b"<Code>a\nb</Code>"), "a");
        assert_eq!(code(b"sesame"), "");
        assert_eq!(
            code(&[b"<Code>", &[b'x'; 999][..]].concat()).len(),
            CODE_MAX
        );
    }
}
