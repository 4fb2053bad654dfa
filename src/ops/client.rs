//! The other end of the operators' door: fetches a page's flow over HTTP and draws it, for the command `flow`.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::engine::ids::PageId;
use crate::flow::ladder;

/// Why there is no flow to show.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0:?} is no URL of a server; write http://host:port")]
    Url(String),
    #[error("{0} does not answer: {1}")]
    Unreachable(String, String),
    /// The page is not known there.
    #[error("no such page: {0}")]
    Unknown(PageId),
    #[error("the server wants its token: set --token or PAGECAST_OPS_TOKEN")]
    Token,
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("the server's answer is no call flow: {0}")]
    Answer(String),
}

/// Longest wait for the whole exchange.
const PATIENCE: Duration = Duration::from_secs(20);
/// Largest answer, in octets.
const ANSWER: usize = 256 << 20;

/// The call flow of `page` as a ladder, from the server whose `ops.listen` is at `ops` (`http://host:port`).
///
/// # Errors
/// What went wrong, in one line.
pub async fn flow(ops: &str, page: PageId, token: Option<&str>) -> Result<String, ClientError> {
    let authority = ops
        .strip_prefix("http://")
        .map(|rest| rest.trim_end_matches('/'))
        .filter(|rest| !rest.is_empty() && !rest.contains(['/', '@', '?', '#', ' ']))
        .ok_or_else(|| ClientError::Url(ops.to_owned()))?;
    let address = if authority.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()) {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let unreachable =
        |error: &dyn std::fmt::Display| ClientError::Unreachable(ops.to_owned(), error.to_string());
    let exchange = async {
        let stream = TcpStream::connect(&address).await.map_err(|error| unreachable(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
        tokio::spawn(connection);
        let mut request = Request::get(format!("/api/pages/{page}/flow"))
            .header(header::HOST, authority)
            .header(header::ACCEPT, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request =
            request.body(Empty::<Bytes>::new()).map_err(|_| ClientError::Url(ops.to_owned()))?;
        let answer = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(ClientError::Unknown(page)),
            StatusCode::UNAUTHORIZED => return Err(ClientError::Token),
            other => return Err(ClientError::Status(other)),
        }
        let body = Limited::new(answer.into_body(), ANSWER)
            .collect()
            .await
            .map_err(|error| ClientError::Answer(error.to_string()))?
            .to_bytes();
        let flow: serde_json::Value = serde_json::from_slice(&body)
            .map_err(|error| ClientError::Answer(error.to_string()))?;
        Ok(ladder::text(&flow))
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(result) => result,
        Err(_) => Err(unreachable(&"no answer in time")),
    }
}
