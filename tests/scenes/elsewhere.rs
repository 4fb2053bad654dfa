//! An XDMS elsewhere, at the far end of connections that are none: what it holds, what it was asked, and how it does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pagecast::xdms::ut::link::{Connect, Connecting, Link};
use pagecast::xdms::ut::url::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    #[default]
    Well,
    /// Nobody takes the connection.
    Away,
    /// It listens and says nothing.
    Silent,
    /// 503.
    Busy,
}

#[derive(Default)]
struct State {
    /// Type and text by authority and path.
    documents: HashMap<String, (&'static str, String)>,
    mood: Mood,
    heads: Vec<String>,
}

#[derive(Clone, Default)]
pub struct Elsewhere(Arc<Mutex<State>>);

impl Elsewhere {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A group document at that place.
    pub fn holds_group(&self, place: &str, text: &str) {
        let document = ("application/vnd.oma.poc.groups+xml", text.to_owned());
        self.state().documents.insert(place.to_owned(), document);
    }

    /// A document of lists at that place.
    pub fn holds_lists(&self, place: &str, text: &str) {
        let document = ("application/resource-lists+xml", text.to_owned());
        self.state().documents.insert(place.to_owned(), document);
    }

    pub fn is(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// Heads of the requests so far.
    pub fn heard(&self) -> Vec<String> {
        self.state().heads.clone()
    }

    fn answers(&self, authority: &str, head: String) -> String {
        let mut state = self.state();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let known = head.to_ascii_lowercase().contains("if-none-match: \"1\"");
        state.heads.push(head);
        if state.mood == Mood::Busy {
            return "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned();
        }
        match state.documents.get(&format!("{authority}{path}")) {
            None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
            Some(_) if known => "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n".to_owned(),
            Some((kind, text)) => format!(
                "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            ),
        }
    }
}

impl Connect for Elsewhere {
    fn connect<'a>(&'a self, to: &'a Url, _: bool) -> Connecting<'a> {
        Box::pin(async move {
            if self.state().mood == Mood::Away {
                std::future::pending::<()>().await;
            }
            let (near, far) = tokio::io::duplex(64 * 1024);
            tokio::spawn(serve(far, self.clone(), to.authority()));
            let remote = "127.0.0.1:8080".parse().ok();
            Ok(Link { stream: Box::new(near), local: None, remote, mutual: false })
        })
    }
}

async fn serve(mut stream: DuplexStream, xdms: Elsewhere, authority: String) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read_buf(&mut buffer).await {
                Ok(1..) => {}
                _ => return,
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end);
        if xdms.state().mood == Mood::Silent {
            // Until the other side has had enough.
            while let Ok(1..) = stream.read_buf(&mut buffer).await {}
            return;
        }
        let answer = xdms.answers(&authority, head);
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
