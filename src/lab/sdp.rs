//! SDP as a phone reads and writes it: one MSRP line, read strictly, without the server's own reader.

use std::net::SocketAddr;

/// What one side said about its MSRP session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    /// The path as it stands.
    pub(super) path: String,
    pub(super) port: u16,
    pub(super) setup: Option<String>,
    /// `sendonly`, `recvonly`, `sendrecv` or `inactive`.
    pub(super) direction: String,
    pub(super) accept_types: Vec<String>,
    pub(super) accept_wrapped: Vec<String>,
    pub(super) max_size: Option<u64>,
    /// It is one over TLS.
    pub(super) secure: bool,
    pub(super) fingerprints: Vec<String>,
}

/// What we write about ours.
pub(super) struct Own<'a> {
    pub(super) address: SocketAddr,
    pub(super) path: &'a str,
    pub(super) setup: &'a str,
    pub(super) direction: &'a str,
    pub(super) accept_types: &'a str,
    pub(super) accept_wrapped: &'a str,
    /// `a=fingerprint`, over TLS.
    pub(super) fingerprint: Option<&'a str>,
    /// Further lines, each with its CRLF.
    pub(super) more: &'a str,
}

/// An offer or an answer. An active side has no port to name but 9 (RFC 4145 §4.1).
pub(super) fn write(own: &Own) -> String {
    let Own { address, path, setup, direction, accept_types, accept_wrapped, fingerprint, more } =
        own;
    let protocol = if fingerprint.is_some() { "TCP/TLS/MSRP" } else { "TCP/MSRP" };
    let print = fingerprint.map(|print| format!("a=fingerprint:{print}\r\n")).unwrap_or_default();
    let ip = address.ip();
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    let port = if *setup == "active" { 9 } else { address.port() };
    format!(
        "v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
         m=message {port} {protocol} *\r\na=path:{path}\r\na=setup:{setup}\r\n{print}\
         a=accept-types:{accept_types}\r\na=accept-wrapped-types:{accept_wrapped}\r\n\
         {more}a={direction}\r\n"
    )
}

/// Reads a description with one media line; says what is wrong with any other.
pub(super) fn read(body: &[u8]) -> Result<Session, String> {
    let text = std::str::from_utf8(body).map_err(|_| "SDP that is no UTF-8")?;
    let text = text.strip_suffix("\r\n").ok_or("SDP that does not end in CR LF")?;
    let lines: Vec<_> = text.split("\r\n").collect();
    let order: String = lines.iter().filter_map(|line| line.chars().next()).collect();
    let plain = order.trim_end_matches('a');
    let media = plain.strip_prefix("vos").ok_or("SDP that does not begin with v, o, s")?;
    if !matches!(media, "ctm" | "tm" | "ctam" | "tmc" | "ctmc") {
        return Err(format!("SDP with lines {order}: not one media line in its order"));
    }
    let at = lines.iter().position(|line| line.starts_with("m=")).ok_or("no m line")?;
    let fields: Vec<_> = lines[at][2..].split(' ').collect();
    let (port, secure) = match fields[..] {
        ["message", port, "TCP/MSRP", "*"] => (port, false),
        ["message", port, "TCP/TLS/MSRP", "*"] => (port, true),
        _ => return Err(format!("{}: no MSRP media line", lines[at])),
    };
    let of_media = &lines[at + 1..];
    let one = |name: &str| -> Result<Option<&str>, String> {
        let mut found = of_media
            .iter()
            .filter_map(|line| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':'));
        let first = found.next();
        match found.next() {
            Some(_) => Err(format!("SDP with two a={name}")),
            None => Ok(first),
        }
    };
    let list = |value: Option<&str>| -> Vec<String> {
        value.unwrap_or("").split(' ').filter(|t| !t.is_empty()).map(str::to_owned).collect()
    };
    let path = one("path")?.ok_or("SDP without a path")?;
    if path.starts_with("msrps:") != secure {
        return Err(format!("{} with the path {path}", lines[at]));
    }
    let fingerprints: Vec<_> =
        of_media.iter().filter_map(|line| line.strip_prefix("a=fingerprint:")).collect();
    if fingerprints.is_empty() == secure {
        return Err(format!("{} with {} fingerprints", lines[at], fingerprints.len()));
    }
    let directions: Vec<_> = of_media
        .iter()
        .filter_map(|line| line.strip_prefix("a="))
        .filter(|value| matches!(*value, "sendonly" | "recvonly" | "sendrecv" | "inactive"))
        .collect();
    if directions.len() > 1 {
        return Err("SDP with two directions".to_owned());
    }
    let session = Session {
        path: path.to_owned(),
        port: port.parse().map_err(|_| "SDP with a port that is no number")?,
        setup: one("setup")?.map(str::to_owned),
        direction: directions.first().unwrap_or(&"sendrecv").to_string(),
        accept_types: list(one("accept-types")?),
        accept_wrapped: list(one("accept-wrapped-types")?),
        secure,
        fingerprints: fingerprints.into_iter().map(str::to_owned).collect(),
        max_size: one("max-size")?.map(str::parse).transpose().map_err(|_| "max-size")?,
    };
    if session.accept_types.is_empty() {
        return Err("SDP without accept-types".to_owned());
    }
    Ok(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let own = Own {
            address: SocketAddr::from(([127, 0, 0, 1], 2855)),
            path: "msrp://127.0.0.1:2855/abc;tcp",
            setup: "passive",
            direction: "recvonly",
            accept_types: "message/cpim",
            accept_wrapped: "text/plain image/png",
            fingerprint: None,
            more: "a=max-size:1000\r\n",
        };
        let read = read(write(&own).as_bytes()).expect("our own");
        assert_eq!((read.port, read.path.as_str()), (2855, own.path));
        assert_eq!(read.accept_wrapped, ["text/plain", "image/png"]);
        assert_eq!((read.max_size, read.direction.as_str()), (Some(1000), "recvonly"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
            m=message 9 TCP/MSRP *\r\na=path:msrp://h:1/a;tcp\r\na=accept-types:*\r\n";
        assert!(read(good.as_bytes()).is_ok());
        for (from, to) in [
            ("TCP/MSRP", "TCP/TLS/MSRP"),
            ("msrp:", "msrps:"),
            ("accept-types:*\r\n", "accept-types:*\r\na=fingerprint:sha-256 AA\r\n"),
            ("a=path:msrp://h:1/a;tcp\r\n", ""),
            ("a=accept-types:*\r\n", ""),
            ("v=0\r\n", ""),
            ("t=0 0\r\n", ""),
            ("message 9", "message x"),
            ("accept-types:*\r\n", "accept-types:*\r\na=path:msrp://h:1/b;tcp\r\n"),
            ("accept-types:*\r\n", "accept-types:*\r\na=sendonly\r\na=recvonly\r\n"),
            ("accept-types:*\r\n", "accept-types:*\r\nm=audio 9 RTP/AVP 0\r\n"),
        ] {
            assert!(read(good.replace(from, to).as_bytes()).is_err(), "{from} -> {to}");
        }
    }
}
