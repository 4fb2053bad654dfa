//! A flow as a pcapng capture that Wireshark opens: real addresses, real ports, correct checksums.
//!
//! Each message is one IP packet (link type RAW), longer ones on TCP several segments; TCP sequence numbers run on per
//! connection and direction. Bodies are those that were kept; where one was reduced, Content-Length (SIP) and the
//! Byte-Range (MSRP) tell the length that is there, so that nothing is malformed. Steps inside the process have no
//! addresses and are left out.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use super::{Entry, Flow, Proto, Transport, reduce};

/// Most octets of TCP payload in one packet.
const SEGMENT: usize = 60_000;

/// Writes the capture.
pub fn write(flow: &Flow) -> Vec<u8> {
    let mut file = Vec::new();
    // Section header: byte order magic, version 1.0, length unknown, a comment.
    let comment = format!("pagecast page {:016x}", flow.page);
    let mut section = Vec::new();
    section.extend_from_slice(&0x1A2B_3C4D_u32.to_le_bytes());
    section.extend_from_slice(&1u16.to_le_bytes());
    section.extend_from_slice(&0u16.to_le_bytes());
    section.extend_from_slice(&u64::MAX.to_le_bytes());
    option(&mut section, 1, comment.as_bytes());
    option(&mut section, 0, &[]);
    block(&mut file, 0x0A0D_0D0A, &section);
    // Interface description: link type RAW (101), no snap length; time in microseconds is the default.
    let mut interface = Vec::new();
    interface.extend_from_slice(&101u16.to_le_bytes());
    interface.extend_from_slice(&0u16.to_le_bytes());
    interface.extend_from_slice(&0u32.to_le_bytes());
    option(&mut interface, 2, b"pagecast");
    option(&mut interface, 0, &[]);
    block(&mut file, 1, &interface);
    let mut sequences: HashMap<(SocketAddr, SocketAddr), u32> = HashMap::new();
    for entry in &flow.entries {
        let crossing = &entry.crossing;
        let (Some(local), Some(remote)) = (crossing.local, crossing.remote) else { continue };
        let (from, to) = if crossing.sent { (local, remote) } else { (remote, local) };
        let (from, to) = (canonical(from), canonical(to));
        if from.is_ipv4() != to.is_ipv4() {
            continue;
        }
        let message = message(entry);
        match crossing.transport {
            Transport::Inside => {}
            Transport::Udp => {
                // What was one datagram fits into one again: stand-ins are never longer than 64 KiB allow.
                let message = &message[..message.len().min(65_000)];
                packet(&mut file, crossing.time, &ip(from, to, 17, &udp(from, to, message)));
            }
            Transport::Tcp => {
                for piece in message.chunks(SEGMENT) {
                    let acknowledged = sequences.get(&(to, from)).copied().unwrap_or(1);
                    let sequence = sequences.entry((from, to)).or_insert(1);
                    let segment = tcp(from, to, *sequence, acknowledged, piece);
                    *sequence = sequence.wrapping_add(piece.len() as u32);
                    packet(&mut file, crossing.time, &ip(from, to, 6, &segment));
                }
            }
        }
    }
    file
}

/// The whole message again, with the body that was kept and lengths that fit.
fn message(entry: &Entry) -> Vec<u8> {
    match entry.proto {
        Proto::Msrp => msrp(entry),
        _ => {
            let reduced = entry.body.len() as u64 != entry.octets;
            let mut message = if reduced {
                reduce::with_content_length(&entry.head, entry.body.len(), true)
            } else {
                entry.head.to_vec()
            };
            message.extend_from_slice(b"\r\n");
            message.extend_from_slice(&entry.body);
            message
        }
    }
}

/// An MSRP message: Byte-Range tells the stand-in's length, the end-line closes it.
fn msrp(entry: &Entry) -> Vec<u8> {
    let line = entry.line();
    let transaction = line.split_ascii_whitespace().nth(1).unwrap_or_default().to_owned();
    let mut message = Vec::with_capacity(entry.head.len() + 64);
    for line in entry.head.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let is_range = line.get(..11).is_some_and(|n| n.eq_ignore_ascii_case(b"byte-range:"));
        if is_range && !entry.body.is_empty() {
            let text = String::from_utf8_lossy(&line[11..]);
            let start: u64 = text
                .trim()
                .split(['-', '/'])
                .next()
                .and_then(|start| start.parse().ok())
                .unwrap_or(1);
            let end = start.saturating_add(entry.body.len() as u64).saturating_sub(1);
            let total = text.rsplit('/').next().unwrap_or("*").trim();
            let total = match (total.parse::<u64>(), entry.flag) {
                (Ok(_), Some(b'$')) => end.to_string(),
                (Ok(total), _) => total.max(end).to_string(),
                (Err(_), _) => "*".to_owned(),
            };
            message.extend_from_slice(format!("Byte-Range: {start}-{end}/{total}").as_bytes());
        } else {
            message.extend_from_slice(line);
        }
        message.extend_from_slice(b"\r\n");
    }
    if !entry.body.is_empty() {
        message.extend_from_slice(b"\r\n");
        message.extend_from_slice(&entry.body);
        message.extend_from_slice(b"\r\n");
    }
    let flag = char::from(entry.flag.unwrap_or(b'$'));
    message.extend_from_slice(format!("-------{transaction}{flag}\r\n").as_bytes());
    message
}

/// IPv4 addresses that a dual-stack socket shows as IPv6 are IPv4 on the wire.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn block(file: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let padded = body.len().next_multiple_of(4);
    let total = (12 + padded) as u32;
    file.extend_from_slice(&kind.to_le_bytes());
    file.extend_from_slice(&total.to_le_bytes());
    file.extend_from_slice(body);
    file.extend(std::iter::repeat_n(0, padded - body.len()));
    file.extend_from_slice(&total.to_le_bytes());
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(&(value.len() as u16).to_le_bytes());
    body.extend_from_slice(value);
    body.extend(std::iter::repeat_n(0, value.len().next_multiple_of(4) - value.len()));
}

/// An enhanced packet block.
fn packet(file: &mut Vec<u8>, time: SystemTime, packet: &[u8]) {
    let micros = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
    let length = packet.len() as u32;
    let mut body = Vec::with_capacity(packet.len() + 20);
    body.extend_from_slice(&0u32.to_le_bytes());
    body.extend_from_slice(&((micros >> 32) as u32).to_le_bytes());
    body.extend_from_slice(&(micros as u32).to_le_bytes());
    body.extend_from_slice(&length.to_le_bytes());
    body.extend_from_slice(&length.to_le_bytes());
    body.extend_from_slice(packet);
    block(file, 6, &body);
}

fn ip(from: SocketAddr, to: SocketAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(payload.len() + 40);
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            packet.extend_from_slice(&[0x45, 0]);
            packet.extend_from_slice(&((payload.len() + 20) as u16).to_be_bytes());
            packet.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
            packet.extend_from_slice(&from.octets());
            packet.extend_from_slice(&to.octets());
            let checksum = fold(sum(0, &packet));
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        (from, to) => {
            packet.extend_from_slice(&[0x60, 0, 0, 0]);
            packet.extend_from_slice(&(payload.len() as u16).to_be_bytes());
            packet.extend_from_slice(&[protocol, 64]);
            packet.extend_from_slice(&octets(from));
            packet.extend_from_slice(&octets(to));
        }
    }
    packet.extend_from_slice(payload);
    packet
}

fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(payload.len() + 8);
    datagram.extend_from_slice(&from.port().to_be_bytes());
    datagram.extend_from_slice(&to.port().to_be_bytes());
    datagram.extend_from_slice(&((payload.len() + 8) as u16).to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(payload);
    let checksum = match transport_checksum(from, to, 17, &datagram) {
        0 => 0xffff,
        checksum => checksum,
    };
    datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    datagram
}

fn tcp(
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    acknowledged: u32,
    payload: &[u8],
) -> Vec<u8> {
    let mut segment = Vec::with_capacity(payload.len() + 20);
    segment.extend_from_slice(&from.port().to_be_bytes());
    segment.extend_from_slice(&to.port().to_be_bytes());
    segment.extend_from_slice(&sequence.to_be_bytes());
    segment.extend_from_slice(&acknowledged.to_be_bytes());
    // Header of five words, flags PSH and ACK, a full window.
    segment.extend_from_slice(&[0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend_from_slice(payload);
    let checksum = transport_checksum(from, to, 6, &segment);
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    segment
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The Internet checksum over pseudo header and segment.
fn transport_checksum(from: SocketAddr, to: SocketAddr, protocol: u8, segment: &[u8]) -> u16 {
    let mut total = sum(0, &octets(from.ip()));
    total = sum(total, &octets(to.ip()));
    total = sum(total, &(segment.len() as u32).to_be_bytes());
    total = sum(total, &[0, protocol]);
    fold(sum(total, segment))
}

fn sum(start: u64, octets: &[u8]) -> u64 {
    octets.chunks(2).fold(start, |total, pair| {
        total + (u64::from(pair[0]) << 8) + pair.get(1).map_or(0, |low| u64::from(*low))
    })
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    !(total as u16)
}
