//! The operators' door: HTTP on `ops.listen`.
//!
//! A request is matched against the table of [`route`], then checked in this order: path (404), method (405), token
//! (401), and for everything that changes something Host and `X-Pagecast` (403), so that no other web page can do it.
//! Connections, heads, bodies and time are bounded. Message bodies never leave by this door. Start at [`serve`].

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::board::{Board, MOST_PAGES, PageState, Query};
use super::metrics::Metrics;
use super::{Control, log};
use crate::engine::ids::PageId;
use crate::flow::{Flow, Flows, pcapng, svg};

/// What the door needs to know of the configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// `ops.token`
    pub token: Option<String>,
    /// Host names besides `localhost` and the address itself that are ours.
    pub names: Vec<String>,
    /// `ops.max_connections`; more wait in the backlog.
    pub max_connections: usize,
}

/// The door and what stands behind it.
pub struct Door {
    settings: Settings,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
    flows: Arc<Flows>,
    control: Arc<dyn Control>,
}

impl Door {
    /// Puts the door in front of what it shows.
    pub fn new(
        settings: Settings,
        metrics: Arc<Metrics>,
        board: Arc<Board>,
        flows: Arc<Flows>,
        control: Arc<dyn Control>,
    ) -> Self {
        Self { settings, metrics, board, flows, control }
    }
}

/// From the first octet of a request's head to its end, and of its body.
const PATIENCE: Duration = Duration::from_secs(10);
/// A whole connection; clients open a new one.
const LONGEST: Duration = Duration::from_secs(600);
/// Most octets of a request's body.
const BODY: usize = 16 << 10;

/// Answers on `listener` until dropped.
pub async fn serve(listener: TcpListener, door: Arc<Door>) {
    let places = Arc::new(Semaphore::new(door.settings.max_connections.max(1)));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: others have to close something first.
                tracing::warn!(%error, "the operators' door cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let door = door.clone();
        tokio::spawn(async move {
            connection(stream, door).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, door: Arc<Door>) {
    let Ok(local) = stream.local_addr() else { return };
    let service = service_fn(move |request: Request<Incoming>| {
        let door = door.clone();
        async move { Ok::<_, Infallible>(door.answer(request, local).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service);
    // Whatever ends a connection is the client's affair.
    match tokio::time::timeout(LONGEST, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection of the operators' door ended"),
        Err(_) => tracing::debug!("a connection of the operators' door was open too long"),
    }
}

/// What a path means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Route {
    Console(&'static str, &'static str),
    Live,
    Ready,
    Metrics,
    Status,
    Pages,
    Page(PageId),
    Flow(PageId),
    FlowSvg(PageId),
    FlowPcapng(PageId),
    Drain,
    Reload,
    EndPage(PageId),
    Barred(String),
    Log,
}

/// The table of paths.
fn route(path: &str) -> Option<Route> {
    let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let id = |text: &str| text.parse::<PageId>().ok();
    Some(match parts[..] {
        [""] => Route::Console("text/html; charset=utf-8", include_str!("console/index.html")),
        ["console.js"] => {
            Route::Console("text/javascript; charset=utf-8", include_str!("console/console.js"))
        }
        ["console.css"] => {
            Route::Console("text/css; charset=utf-8", include_str!("console/console.css"))
        }
        ["live"] => Route::Live,
        ["ready"] => Route::Ready,
        ["metrics"] => Route::Metrics,
        ["api", "status"] => Route::Status,
        ["api", "pages"] => Route::Pages,
        ["api", "pages", page] => Route::Page(id(page)?),
        ["api", "pages", page, "flow"] => Route::Flow(id(page)?),
        ["api", "pages", page, "flow.svg"] => Route::FlowSvg(id(page)?),
        ["api", "pages", page, "flow.pcapng"] => Route::FlowPcapng(id(page)?),
        ["admin", "drain"] => Route::Drain,
        ["admin", "reload"] => Route::Reload,
        ["admin", "pages", page, "end"] => Route::EndPage(id(page)?),
        ["admin", "log"] => Route::Log,
        ["admin", "barred", ..] => {
            let uri = decode(path.strip_prefix("/admin/barred/")?)?;
            if uri.is_empty() || uri.contains(char::is_control) {
                return None;
            }
            Route::Barred(uri)
        }
        _ => return None,
    })
}

impl Route {
    fn methods(&self) -> &'static [Method] {
        match self {
            Self::Drain | Self::Reload | Self::EndPage(_) => &[Method::POST],
            Self::Barred(_) => &[Method::PUT, Method::DELETE],
            Self::Log => &[Method::PUT],
            _ => &[Method::GET, Method::HEAD],
        }
    }

    fn needs_token(&self) -> bool {
        !matches!(self, Self::Console(..) | Self::Live | Self::Ready | Self::Metrics)
    }
}

type Answer = Response<Full<Bytes>>;

impl Door {
    async fn answer<B>(&self, request: Request<B>, local: SocketAddr) -> Answer
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut answer = self.respond(request, local).await;
        let headers = answer.headers_mut();
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            (
                "content-security-policy",
                "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                 img-src 'self' blob:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
            ),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        answer
    }

    async fn respond<B>(&self, request: Request<B>, local: SocketAddr) -> Answer
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(route) = route(request.uri().path()) else {
            return error(StatusCode::NOT_FOUND, "no such path");
        };
        let method = request.method().clone();
        let methods = route.methods();
        if !methods.contains(&method) {
            let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "no such method here");
            let allow = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
            if let Ok(allow) = HeaderValue::from_str(&allow) {
                answer.headers_mut().insert(header::ALLOW, allow);
            }
            return answer;
        }
        if route.needs_token() && !self.knows(request.headers()) {
            let mut answer = error(StatusCode::UNAUTHORIZED, "a bearer token is needed");
            let challenge = HeaderValue::from_static("Bearer realm=\"pagecast\"");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            return answer;
        }
        if !matches!(method, Method::GET | Method::HEAD)
            && let Err(why) = self.is_meant(request.headers(), local)
        {
            return error(StatusCode::FORBIDDEN, why);
        }
        match route {
            Route::Console(media, text) => plain(StatusCode::OK, media, text),
            Route::Live => json_answer(StatusCode::OK, &json!({"live": true})),
            Route::Ready => self.ready(),
            Route::Metrics => self.scrape(request.headers()),
            Route::Status => json_answer(StatusCode::OK, &self.control.status().to_json()),
            Route::Pages => match query(request.uri().query().unwrap_or_default()) {
                Ok(query) => json_answer(StatusCode::OK, &self.board.list(&query)),
                Err(wrong) => error(StatusCode::BAD_REQUEST, &wrong),
            },
            Route::Page(page) => match self.board.page(page) {
                Some(page) => json_answer(StatusCode::OK, &page),
                None => no_such_page(),
            },
            Route::Flow(page) => match self.flow(page) {
                Some(flow) => json_answer(StatusCode::OK, &flow.to_json()),
                None => no_such_page(),
            },
            Route::FlowSvg(page) => match self.flow(page) {
                Some(flow) => plain(StatusCode::OK, "image/svg+xml", svg::draw(&flow.to_json())),
                None => no_such_page(),
            },
            Route::FlowPcapng(page) => match self.flow(page) {
                Some(flow) => capture(page, pcapng::write(&flow)),
                None => no_such_page(),
            },
            Route::Drain => {
                tracing::info!("drain asked for at the operators' door");
                self.control.drain().await;
                json_answer(StatusCode::ACCEPTED, &json!({"draining": true}))
            }
            Route::Reload => {
                tracing::info!("reload asked for at the operators' door");
                match self.control.reload().await {
                    Ok(()) => json_answer(StatusCode::OK, &json!({"reloaded": true})),
                    Err(wrong) => error(StatusCode::UNPROCESSABLE_ENTITY, &wrong),
                }
            }
            Route::EndPage(page) => self.end_page(page).await,
            Route::Barred(uri) => {
                let barred = method == Method::PUT;
                match self.control.bar(&uri, barred).await {
                    Ok(()) => json_answer(StatusCode::OK, &json!({"uri": uri, "barred": barred})),
                    Err(wrong) => error(StatusCode::UNPROCESSABLE_ENTITY, &wrong),
                }
            }
            Route::Log => self.log(request).await,
        }
    }

    /// The token is the one that was set; compared by digest, so that time tells nothing.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.settings.token else { return true };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, given) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| given.trim())
        });
        given.is_some_and(|given| Sha256::digest(given) == Sha256::digest(token))
    }

    /// A request that changes something names us as Host and carries `X-Pagecast: 1`, which no foreign page can do.
    fn is_meant(&self, headers: &HeaderMap, local: SocketAddr) -> Result<(), &'static str> {
        if headers.get("x-pagecast").map(HeaderValue::as_bytes) != Some(b"1") {
            return Err("the header X-Pagecast: 1 is needed");
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err("one Host header is needed");
        };
        let host = host.to_str().unwrap_or_default();
        if self.is_ours(host, local) { Ok(()) } else { Err("Host names somebody else") }
    }

    fn is_ours(&self, host: &str, local: SocketAddr) -> bool {
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        let (name, port) = match host.rsplit_once(':') {
            // The colons of an IPv6 address stand inside the brackets.
            Some((name, port)) if !port.ends_with(']') => match port.parse::<u16>() {
                Ok(port) => (name, port),
                Err(_) => return false,
            },
            _ => (host, 80),
        };
        if port != local.port() {
            return false;
        }
        let literal = name.trim_start_matches('[').trim_end_matches(']');
        literal.parse() == Ok(local.ip())
            || (local.ip().is_loopback() && name.eq_ignore_ascii_case("localhost"))
            || self.settings.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    fn ready(&self) -> Answer {
        let reasons = self.control.not_ready();
        if reasons.is_empty() {
            json_answer(StatusCode::OK, &json!({"ready": true}))
        } else {
            let body = json!({"ready": false, "reasons": reasons});
            json_answer(StatusCode::SERVICE_UNAVAILABLE, &body)
        }
    }

    fn scrape(&self, headers: &HeaderMap) -> Answer {
        self.control.measure(&self.metrics);
        let open = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.contains("application/openmetrics-text"));
        if open {
            let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            plain(StatusCode::OK, media, self.metrics.open_metrics())
        } else {
            plain(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.metrics.text())
        }
    }

    /// The flow of a page; empty and truncated if the page is known and its flow has left.
    fn flow(&self, page: PageId) -> Option<Flow> {
        self.flows.get(page.as_u64()).or_else(|| {
            self.board.state(page)?;
            Some(Flow { page: page.as_u64(), truncated: true, entries: Vec::new() })
        })
    }

    async fn end_page(&self, page: PageId) -> Answer {
        match self.board.state(page) {
            None => return no_such_page(),
            Some(PageState::Done | PageState::Refused) => {
                return error(StatusCode::CONFLICT, "the page is over");
            }
            Some(_) => {}
        }
        tracing::info!(%page, "end of a page asked for at the operators' door");
        if self.control.end_page(page).await {
            json_answer(StatusCode::OK, &json!({"ended": page.to_string()}))
        } else {
            error(StatusCode::CONFLICT, "the page is over")
        }
    }

    async fn log<B>(&self, request: Request<B>) -> Answer
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let body = Limited::new(request.into_body(), BODY).collect();
        let body = match tokio::time::timeout(PATIENCE, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => return error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
            Err(_) => return error(StatusCode::REQUEST_TIMEOUT, "the body did not come"),
        };
        // {"level":"debug"}, "debug" or the bare word.
        let word = match serde_json::from_slice::<serde_json::Value>(&body) {
            Ok(value) => value["level"].as_str().or(value.as_str()).map(str::to_owned),
            Err(_) => std::str::from_utf8(&body).ok().map(|word| word.trim().to_owned()),
        };
        let level = match word.unwrap_or_default().parse::<log::Level>() {
            Ok(level) => level,
            Err(wrong) => return error(StatusCode::UNPROCESSABLE_ENTITY, &wrong.to_string()),
        };
        match self.control.set_log_level(level) {
            Ok(()) => {
                tracing::info!(level = level.as_str(), "the log level was changed");
                json_answer(StatusCode::OK, &json!({"level": level.as_str()}))
            }
            Err(wrong) => error(StatusCode::INTERNAL_SERVER_ERROR, &wrong),
        }
    }
}

/// The parameters of `/api/pages`.
fn query(text: &str) -> Result<Query, String> {
    let mut query = Query { limit: 50, ..Query::default() };
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(&value.replace('+', "%20"))
            .ok_or_else(|| format!("{name}: broken percent-encoding"))?;
        match name {
            _ if value.is_empty() => {}
            "state" => {
                let state = PageState::from_word(&value);
                query.state = Some(state.ok_or_else(|| format!("state: no state {value:?}"))?);
            }
            "user" => query.user = Some(value),
            "limit" => {
                let limit: usize =
                    value.parse().map_err(|_| format!("limit: {value:?} is no number"))?;
                query.limit = limit.clamp(1, MOST_PAGES);
            }
            "before" => {
                query.before = Some(value.parse().map_err(|wrong| format!("before: {wrong}"))?);
            }
            _ => return Err(format!("no such parameter: {name:?}")),
        }
    }
    Ok(query)
}

/// Percent-decoding; `None` where it is broken or no UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            octets.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            octets.push(*first);
            rest = after;
        }
    }
    String::from_utf8(octets).ok()
}

fn plain(status: StatusCode, media: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    answer
}

fn json_answer(status: StatusCode, body: &serde_json::Value) -> Answer {
    plain(status, "application/json", body.to_string())
}

fn error(status: StatusCode, text: &str) -> Answer {
    json_answer(status, &json!({"error": text}))
}

fn no_such_page() -> Answer {
    error(StatusCode::NOT_FOUND, "no such page")
}

fn capture(page: PageId, body: Vec<u8>) -> Answer {
    let mut answer = plain(StatusCode::OK, "application/x-pcapng", body);
    let name = format!("attachment; filename=\"page-{page}.pcapng\"");
    if let Ok(name) = HeaderValue::from_str(&name) {
        answer.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    }
    answer
}

#[cfg(test)]
mod tests;
