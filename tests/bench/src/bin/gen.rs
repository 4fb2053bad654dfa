//! Sends 1,204-byte IMS MESSAGEs in a closed loop: a new one for every 200 that comes back.
//!
//! Prints one line: messages answered, messages sent, seconds.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

/// Octets of each MESSAGE.
const SIZE: usize = 1204;

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    Udp,
    Tcp,
}

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    to: SocketAddr,
    #[arg(long, value_enum, default_value = "udp")]
    protocol: Protocol,
    /// Ends after this time.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Ends after so many answers.
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
    /// Requests that wait for an answer at any time, on each connection.
    #[arg(long, default_value_t = 64)]
    window: u64,
    /// TCP connections.
    #[arg(long, default_value_t = 4)]
    connections: u64,
}

/// One MESSAGE whose branch, tag and Call-ID change with every use.
struct Template {
    bytes: Vec<u8>,
    places: Vec<usize>,
    serial: u64,
}

impl Template {
    fn new(protocol: &str, local: SocketAddr, serial: u64) -> Self {
        const MARK: &str = "0000000000000000";
        let head = format!(
            "MESSAGE sip:im-exploder@im.home1.example SIP/2.0\r\n\
             Via: SIP/2.0/{protocol} {local};branch=z9hG4bK{MARK};rport\r\n\
             Via: SIP/2.0/UDP pcscf1.visited1.example:5060;branch=z9hG4bK240f34.1\r\n\
             Via: SIP/2.0/UDP [5555::aaa:bbb:ccc:ddd]:1357;comp=sigcomp;branch=z9hG4bKnashds7\r\n\
             Max-Forwards: 67\r\n\
             Route: <sip:127.0.0.1:5090;lr>, <sip:cb03a0s09a2sdfglkj490333@scscf1.home1.example;lr>\r\n\
             Record-Route: <sip:scscf1.home1.example;lr>\r\n\
             P-Asserted-Identity: \"John Doe\" <sip:user1_public1@home1.example>\r\n\
             P-Asserted-Identity: <tel:+1-212-555-1111>\r\n\
             P-Charging-Vector: icid-value=\"AyretyU0dm+6O2IrT5tAFrbHLso=023551024\"; orig-ioi=home1.example\r\n\
             P-Served-User: <sip:user1_public1@home1.example>;sescase=orig;regstate=reg\r\n\
             P-Access-Network-Info: 3GPP-UTRAN-TDD; utran-cell-id-3gpp=234151D0FCE11\r\n\
             Privacy: none\r\n\
             From: <sip:user1_public1@home1.example>;tag={MARK}\r\n\
             To: <sip:im-exploder@im.home1.example>\r\n\
             Call-ID: {MARK}@scscf1.home1.example\r\n\
             CSeq: 666 MESSAGE\r\n\
             Accept-Contact: *;+g.oma.sip-im\r\n\
             Content-Type: text/plain; charset=UTF-8\r\n\
             Content-Length: "
        );
        // What is missing up to SIZE is the text.
        let mut body = SIZE - head.len() - 5;
        body -= body.to_string().len() - 1;
        let text = "Hello, this is a page for everybody on the list. ".repeat(SIZE / 40);
        let mut bytes = format!("{head}{body}\r\n\r\n").into_bytes();
        bytes.extend_from_slice(&text.as_bytes()[..body]);
        assert_eq!(bytes.len(), SIZE);
        let places = memchr::memmem::find_iter(&bytes, MARK).collect();
        Self { bytes, places, serial }
    }

    fn next(&mut self) -> &[u8] {
        self.serial += 1;
        let mut digits = [0; 16];
        for (at, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(self.serial >> (60 - 4 * at) & 15) as usize];
        }
        for place in &self.places {
            self.bytes[*place..*place + 16].copy_from_slice(&digits);
        }
        &self.bytes
    }
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(arguments.seconds);
    let start = getrandom::u64().map_err(std::io::Error::other)?;
    let (answered, sent) = match arguments.protocol {
        Protocol::Udp => udp(&arguments, start, end)?,
        Protocol::Tcp => tcp(&arguments, start, end)?,
    };
    println!("{answered} {sent} {:.3}", begin.elapsed().as_secs_f64());
    Ok(())
}

fn udp(arguments: &Arguments, start: u64, end: Instant) -> std::io::Result<(u64, u64)> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(arguments.to)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut template = Template::new("UDP", socket.local_addr()?, start);
    let mut buffer = vec![0; 65536];
    let (mut answered, mut sent) = (0, 0);
    let fill = |template: &mut Template, sent: &mut u64| {
        for _ in 0..arguments.window {
            socket.send(template.next())?;
            *sent += 1;
        }
        Ok::<(), std::io::Error>(())
    };
    fill(&mut template, &mut sent)?;
    while answered < arguments.count && (answered % 64 != 0 || Instant::now() < end) {
        match socket.recv(&mut buffer) {
            Ok(octets) if buffer[..octets].starts_with(b"SIP/2.0 200") => {
                answered += 1;
                socket.send(template.next())?;
                sent += 1;
            }
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                if Instant::now() >= end {
                    break;
                }
                eprintln!("lost: starting again after {answered}");
                fill(&mut template, &mut sent)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok((answered, sent))
}

fn tcp(arguments: &Arguments, start: u64, end: Instant) -> std::io::Result<(u64, u64)> {
    let threads = (0..arguments.connections).map(|one| {
        let (to, window, count) =
            (arguments.to, arguments.window, arguments.count / arguments.connections.max(1));
        std::thread::spawn(move || connection(to, window, count, start ^ (one << 56), end))
    });
    let threads: Vec<_> = threads.collect();
    let mut total = (0, 0);
    for thread in threads {
        let (answered, sent) =
            thread.join().map_err(|_| std::io::Error::other("a thread ended early"))??;
        total = (total.0 + answered, total.1 + sent);
    }
    Ok(total)
}

fn connection(
    to: SocketAddr,
    window: u64,
    count: u64,
    start: u64,
    end: Instant,
) -> std::io::Result<(u64, u64)> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut template = Template::new("TCP", stream.local_addr()?, start);
    let mut buffer = vec![0; 256 * 1024];
    let mut batch = Vec::new();
    let (mut answered, mut sent, mut kept) = (0, 0, 0);
    let mut owed = window;
    while answered < count && Instant::now() < end {
        batch.clear();
        for _ in 0..owed {
            batch.extend_from_slice(template.next());
        }
        sent += owed;
        stream.write_all(&batch)?;
        let octets = stream.read(&mut buffer[kept..])?;
        if octets == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        // Answers have no body, so each ends with its empty line.
        let filled = kept + octets;
        let (mut seen, mut after) = (0, 0);
        for at in memchr::memmem::find_iter(&buffer[..filled], b"\r\n\r\n") {
            seen += 1;
            after = at + 4;
        }
        buffer.copy_within(after..filled, 0);
        kept = filled - after;
        answered += seen;
        owed = seen;
    }
    Ok((answered, sent))
}
