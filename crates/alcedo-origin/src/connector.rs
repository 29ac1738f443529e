//! The HTTP client under the stores. Knows redirects, TLS and time limits of connections; must not know stores or
//! credentials. `object_store`'s own connector follows redirects, through which a bucket could make a worker call any
//! address, and keeps the bodies of refusals, which may quote signatures.

use crate::error::{Refused, is_error_code};
use crate::limits::OriginLimits;
use async_trait::async_trait;
use futures::StreamExt;
use http::{Method, Uri};
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::{ClientOptions, Result};
use std::time::Duration;

/// Bytes of a refusal's body that are read in search of its error code.
const MAX_REFUSAL_BYTES: usize = 8 << 10;

/// Idle connections are dropped after this long: shorter than the idle limits of stores and of NAT gateways (60 s and
/// more), so that a request seldom meets a connection that the other side has just closed.
const POOL_IDLE: Duration = Duration::from_secs(45);

/// TCP keepalive: a half-open connection is noticed after this long, even without a request.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// Makes the clients of one mount: one for its store, and some for the services that give credentials.
#[derive(Debug)]
pub(crate) struct Connector {
    connect_timeout: Duration,
    idle_connections: usize,
    store: Option<Host>,
}

impl Connector {
    /// A connector with the mount's limits, for a store at that base URL.
    pub(crate) fn new(limits: &OriginLimits, store: &str) -> Self {
        Self {
            connect_timeout: limits.connect_timeout,
            idle_connections: limits.concurrent_gets,
            store: store.parse().ok().and_then(|uri| Host::of(&uri)),
        }
    }
}

/// Host and port of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    name: String,
    port: u16,
}

impl Host {
    fn of(uri: &Uri) -> Option<Self> {
        let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        Some(Self { name: uri.host()?.to_ascii_lowercase(), port: uri.port_u16().unwrap_or(default) })
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        let allow_http = options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|text| text == "true");
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .https_only(!allow_http)
            // One connection per request under way: HTTP/2 would put all of them behind one congestion window.
            .http1_only()
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .connect_timeout(self.connect_timeout)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(self.idle_connections)
            .tcp_keepalive(TCP_KEEPALIVE)
            .tcp_nodelay(true)
            .user_agent(concat!("alcedo/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| object_store::Error::Generic { store: "HTTP client", source: Box::new(e.without_url()) })?;
        Ok(HttpClient::new(Careful { inner: HttpClient::new(client), store: self.store.clone() }))
    }
}

/// A client whose refusals carry a status and an error code, and nothing else of the body.
#[derive(Debug)]
struct Careful {
    inner: HttpClient,
    store: Option<Host>,
}

#[async_trait]
impl HttpService for Careful {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // What a metadata or token service answers says nothing about a file: only the store's answers are sorted by
        // us.
        let is_for_store = matches!(*request.method(), Method::GET | Method::HEAD)
            && self.store.is_some()
            && Host::of(request.uri()) == self.store;
        let response = self.inner.execute(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let code = error_code(body).await;
        if is_for_store {
            return Err(HttpError::new(HttpErrorKind::Unknown, Refused { status, code }));
        }
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(code.unwrap_or_default())))
    }
}

/// The text of the `Code` element that S3, GCS and Azure put into the XML body of a refusal.
async fn error_code(body: HttpResponseBody) -> Option<String> {
    let mut stream = body.bytes_stream();
    let mut read: Vec<u8> = Vec::new();
    while let Some(Ok(chunk)) = stream.next().await {
        let room = MAX_REFUSAL_BYTES - read.len();
        read.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if read.len() >= MAX_REFUSAL_BYTES {
            break;
        }
    }
    find_code(&String::from_utf8_lossy(&read))
}

/// The error code in a refusal's text, if it looks like one.
fn find_code(text: &str) -> Option<String> {
    let (code, _) = text.split_once("<Code>")?.1.split_once("</Code>")?;
    is_error_code(code).then(|| code.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};
    use crate::fake::CANARY;
    use crate::mount::{Mount, MountConfig};
    use crate::resolve::Mounts;
    use object_store::path::Path;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    /// Answers one connection after another with these texts, and gives back the heads of the requests.
    async fn serve(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let mut heads = Vec::new();
            for answer in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await.unwrap());
                }
                heads.push(String::from_utf8(head).unwrap().to_ascii_lowercase());
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
            heads
        });
        (endpoint, task)
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n{body}")
    }

    /// A mount of each kind of origin, with credentials, at that endpoint.
    fn mounts(endpoint: &str, dir: &std::path::Path) -> Vec<Arc<Mount>> {
        let file = dir.join("credentials");
        let lines =
            format!("aws_access_key_id = AK\naws_secret_access_key = {CANARY}\naccount = acc\nkey = Q0FOQVJZ\n");
        std::fs::write(&file, lines).unwrap();
        let config = |name: &str, url: &str| MountConfig {
            endpoint: Some(endpoint.to_owned()),
            allow_http: true,
            credentials_file: (name != "gcs").then(|| file.clone()),
            anonymous: name == "gcs",
            ..MountConfig::new(name, url)
        };
        let configs = [config("s3", "s3://b/p"), config("gcs", "gs://b/p"), config("azure", "az://c/p")];
        // A busy machine must not make these tests fail: they are about answers, not about time.
        let (attempt_timeout, connect_timeout) = (Duration::from_secs(60), Duration::from_secs(60));
        let limits = OriginLimits { attempt_timeout, connect_timeout, ..OriginLimits::default() };
        Mounts::open(&configs, limits).unwrap().iter().cloned().collect()
    }

    async fn list(mount: &Mount) -> Result<u64, Error> {
        let deadline = Instant::now() + Duration::from_secs(120);
        mount.list(&Path::ROOT, true, 10, deadline).await.map(|listing| listing.entries.len() as u64)
    }

    const REFUSAL: &str = "<Error><Code>SomeCode</Code><StringToSign>CANARY</StringToSign></Error>";

    #[tokio::test]
    async fn refusals_name_their_status_and_code_only() {
        for (status, kind, sent) in [
            ("403 Forbidden", ErrorKind::Denied, 1),
            ("401 Unauthorized", ErrorKind::Denied, 1),
            ("400 Bad Request", ErrorKind::Config, 1),
            ("503 Service Unavailable", ErrorKind::Unavailable, 2),
            ("429 Too Many Requests", ErrorKind::Unavailable, 2),
        ] {
            let refusal = answer(status, &format!("content-length: {}\r\n", REFUSAL.len()), REFUSAL);
            let dir = tempfile::tempdir().unwrap();
            for at in 0..3 {
                let (endpoint, server) = serve(vec![refusal.clone(); sent]).await;
                let mount = &mounts(&endpoint, dir.path())[at];
                let error = list(mount).await.unwrap_err();
                assert_eq!(error.kind(), kind, "{} {error}", mount.name());
                let text = error.to_string();
                assert!(text.contains(&format!("the origin answered {status} (SomeCode)")), "{text}");
                assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
                assert_eq!(server.await.unwrap().len(), sent);
            }
        }
    }

    #[tokio::test]
    async fn redirects_are_not_followed() {
        let (elsewhere, trap) = serve(vec![answer("200 OK", "content-length: 0\r\n", "")]).await;
        let headers = format!("location: {elsewhere}/x\r\ncontent-length: 0\r\n");
        let redirect = answer("307 Temporary Redirect", &headers, "");
        let dir = tempfile::tempdir().unwrap();
        for at in 0..3 {
            let (endpoint, server) = serve(vec![redirect.clone()]).await;
            let error = list(&mounts(&endpoint, dir.path())[at]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("redirects are not followed"), "{error}");
            assert_eq!(server.await.unwrap().len(), 1);
        }
        assert!(!trap.is_finished());
    }

    #[tokio::test]
    async fn a_range_is_asked_for_with_its_version() {
        let headers = "etag: \"v1\"\r\nlast-modified: Fri, 21 Nov 2025 00:00:00 GMT\r\n";
        let head = answer("200 OK", &format!("{headers}content-length: 10\r\n"), "");
        let part = |range: &str, body: &str, length: usize| {
            answer(
                "206 Partial Content",
                &format!("{headers}content-range: bytes {range}/10\r\ncontent-length: {length}\r\n"),
                body,
            )
        };
        let dir = tempfile::tempdir().unwrap();
        // A body that breaks off, then one that does not.
        let answers = vec![head, part("2-4", "cd", 3), part("2-4", "cde", 3)];
        for at in 0..3 {
            let (endpoint, server) = serve(answers.clone()).await;
            let mount = &mounts(&endpoint, dir.path())[at];
            let deadline = Instant::now() + Duration::from_secs(120);
            let key = Path::parse("a b%20c").unwrap();
            let stat = mount.stat(&key, deadline).await.unwrap();
            assert_eq!((stat.size, stat.version.as_str()), (10, "e:\"v1\""));
            assert_eq!(mount.read_range(&key, &stat, 2..5, deadline).await.unwrap(), &b"cde"[..]);
            let heads = server.await.unwrap();
            assert!(heads[0].starts_with("head ") && heads[0].contains("a%20b%2520c"), "{}", heads[0]);
            assert!(heads[2].contains("if-match: \"v1\"") && heads[2].contains("range: bytes=2-4"), "{}", heads[2]);
            assert_eq!((mount.counts().gets, mount.counts().retries), (2, 1));
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_unavailable() {
        // Taken, so that nobody comes to listen there meanwhile.
        let place = tokio::net::TcpSocket::new_v4().unwrap();
        place.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let endpoint = format!("http://{}", place.local_addr().unwrap());
        let dir = tempfile::tempdir().unwrap();
        for mount in mounts(&endpoint, dir.path()) {
            let error = list(&mount).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.to_string().contains("could not connect: Connection refused"), "{error}");
        }
    }

    #[test]
    fn only_a_code_is_taken_from_a_refusal() {
        assert_eq!(find_code("<Error><Code>SlowDown</Code><Message>m</Message></Error>").as_deref(), Some("SlowDown"));
        assert_eq!(find_code("<Error><Code>a b</Code></Error>"), None);
        assert_eq!(find_code("<Code></Code>"), None);
        assert_eq!(find_code("<Code>"), None);
        assert_eq!(find_code(&format!("<Code>{}</Code>", "A".repeat(65))), None);
        assert_eq!(find_code("<StringToSign>CANARY</StringToSign>"), None);
    }
}
