//! Layer 3: the admin port.
//!
//! Knows a handful of pages over HTTP/1. It must not know gRPC, nor change anything: whoever reaches it can read
//! numbers and no more. It runs beside the serving threads with bounds of its own, so that nobody who asks for
//! metrics, slowly or often, keeps a lookup waiting.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::exposition;
use crate::service::Door;
use crate::status_page;

/// Open connections: a scraper or two, a load balancer and a person.
const MAX_CONNECTIONS: usize = 64;
/// Longest time for the headers of a request, and between two requests of a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest life of a connection: a scraper opens another one.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of a request's headers at most; hyper's own least.
const HEADER_BYTES: usize = 8 << 10;
/// What OpenMetrics calls itself.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone)]
struct Pages {
    door: Arc<Door>,
    registry: Arc<Registry>,
}

/// Serves as long as it is polled.
pub(crate) async fn serve(listener: TcpListener, door: &Arc<Door>) {
    let listener = listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "there is no admin port"),
    };
    let service = TowerToHyperService::new(router(door));
    let mut server = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new()).http1_only();
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEADER_BYTES);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(_) => {
                door.metrics.accept_errors_total.up();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (server, service) = (server.clone(), service.clone());
        connections.spawn(async move {
            // A peer that breaks off is its own business.
            let _ = timeout(CONNECTION_TIMEOUT, server.serve_connection(TokioIo::new(socket), service)).await;
            drop(place);
        });
    }
}

fn router(door: &Arc<Door>) -> Router {
    let pages = Pages { door: Arc::clone(door), registry: Arc::new(exposition::registry(door)) };
    Router::new()
        .route("/", get(status))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        // Nothing is listened on before everything is open, so whoever gets an answer gets this one.
        .route("/startupz", get(|| async { "started\n" }))
        .fallback(no_such_page)
        .method_not_allowed_fallback(no_such_method)
        .with_state(pages)
}

async fn status(State(pages): State<Pages>) -> Html<String> {
    Html(status_page::html(&pages.door))
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &pages.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be rendered; please report it"),
    }
}

/// Whether work should be sent here. The origin is no part of it: what is cached is served without one.
async fn readyz(State(pages): State<Pages>) -> Response {
    match pages.door.is_ready() {
        true => "ready\n".into_response(),
        false => problem(StatusCode::SERVICE_UNAVAILABLE, "the worker is draining: ask another one"),
    }
}

async fn no_such_page(uri: Uri) -> Response {
    let known = "/, /metrics, /healthz, /readyz, /startupz";
    problem(StatusCode::NOT_FOUND, &format!("no page {}: there are {known}", uri.path()))
}

async fn no_such_method(method: Method) -> Response {
    problem(StatusCode::METHOD_NOT_ALLOWED, &format!("pages are read with GET, not {method}"))
}

/// An error as RFC 9457 has it.
fn problem(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("error");
    let body = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], format!("{body}\n")).into_response()
}
