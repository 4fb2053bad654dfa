//! What the MSRP benchmarks share: a reader of MSRP that is not pagecast's, and the words between generator and switch.

use memchr::memmem;

/// Path URI of the peer that sends page `page`.
pub fn originator(page: u64) -> String {
    format!("msrp://127.0.0.1:9/o{page};tcp")
}

/// Path URI of recipient `n` of page `page`.
pub fn recipient(page: u64, n: usize) -> String {
    format!("msrp://127.0.0.1:9/r{page}x{n};tcp")
}

/// What a stream holds next.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    Head(&'a Head),
    Body(&'a [u8]),
    /// The flag of the end-line.
    End(&'a Head, u8),
}

/// Start line and paths of one message.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Head {
    pub id: String,
    /// `SEND`, `REPORT`, or a code.
    pub what: String,
    pub to: String,
    pub from: String,
}

impl Head {
    /// Appends the 200 to this SEND.
    pub fn answer(&self, out: &mut Vec<u8>) {
        let hop = self.from.split(' ').next().unwrap_or("");
        for part in [
            "MSRP ",
            &self.id,
            " 200 OK\r\nTo-Path: ",
            hop,
            "\r\nFrom-Path: ",
            &self.to,
            "\r\n-------",
            &self.id,
            "$\r\n",
        ] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

/// Reads MSRP in reads of any size. Panics on what is none.
pub struct Reader {
    pub buffer: Vec<u8>,
    head: Head,
    /// Inside a body that ends with this, a flag and CRLF.
    body: Option<Vec<u8>>,
}

impl Reader {
    pub fn new() -> Self {
        Self { buffer: Vec::new(), head: Head::default(), body: None }
    }

    /// Takes what the buffer holds; keeps what is not complete.
    pub fn read(&mut self, mut on: impl FnMut(Part<'_>)) {
        let mut at = 0;
        loop {
            let rest = &self.buffer[at..];
            if let Some(pattern) = &self.body {
                let Some(end) = memmem::find(rest, pattern) else {
                    let sure = rest.len().saturating_sub(pattern.len() - 1);
                    if sure > 0 {
                        on(Part::Body(&rest[..sure]));
                    }
                    at += sure;
                    break;
                };
                if end > 0 {
                    on(Part::Body(&rest[..end]));
                }
                at += end;
                let behind = end + pattern.len();
                if rest.len() < behind + 3 {
                    break;
                }
                assert_eq!(&rest[behind + 1..behind + 3], b"\r\n", "an end-line");
                on(Part::End(&self.head, rest[behind]));
                at += pattern.len() + 3;
                self.body = None;
                continue;
            }
            // A head ends with an empty line, or with the end-line where no body follows.
            let Some(taken) = head(rest, &mut self.head) else { break };
            on(Part::Head(&self.head));
            at += taken.0;
            match taken.1 {
                Some(flag) => on(Part::End(&self.head, flag)),
                None => {
                    let mut pattern = b"\r\n-------".to_vec();
                    pattern.extend_from_slice(self.head.id.as_bytes());
                    self.body = Some(pattern);
                }
            }
        }
        self.buffer.drain(..at);
    }
}

/// Octets of the head and the flag of an end-line that follows it at once.
fn head(octets: &[u8], head: &mut Head) -> Option<(usize, Option<u8>)> {
    let mut at = 0;
    loop {
        let end = memmem::find(&octets[at..], b"\r\n")?;
        let line = std::str::from_utf8(&octets[at..at + end]).expect("a head is text");
        let first = at == 0;
        at += end + 2;
        if first {
            let mut words = line.split(' ');
            assert_eq!(words.next(), Some("MSRP"), "a start line: {line}");
            head.id = words.next().expect("a transact-id").into();
            head.what = words.next().expect("a method or code").into();
        } else if line.is_empty() {
            return Some((at, None));
        } else if let Some(end) = line.strip_prefix("-------") {
            let flag = end.strip_prefix(head.id.as_str()).expect("its own end-line");
            return Some((at, Some(flag.as_bytes()[0])));
        } else if let Some(path) = line.strip_prefix("To-Path: ") {
            head.to = path.into();
        } else if let Some(path) = line.strip_prefix("From-Path: ") {
            head.from = path.into();
        }
    }
}
