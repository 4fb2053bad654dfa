//! Any REGISTER body and any reginfo: read without a panic; what is kept of it reads back, and a sequence stays in bounds.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pagecast::content::reginfo::{self, MAX_CONTACTS, MAX_REGISTRATIONS, Sequence, Taken};
use pagecast::isc::reachable::{self, MAX_CONTACTS as KEPT, MAX_IDENTITIES, Registration};
use pagecast::sip::message::{Limits, Message};

/// A REGISTER whose Content-Type, P-Associated-URI and body are whatever comes.
fn register(data: &[u8]) -> Option<Message> {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let (kind, associated) = (lines.next()?, lines.next()?);
    let body = lines.next()?;
    let mut text =
        b"REGISTER sip:as SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:s>;tag=1\r\n\
        To: <sip:a@h>\r\nCall-ID: 1\r\nCSeq: 1 REGISTER\r\nContact: <sip:s>;expires=60\r\n"
            .to_vec();
    for (name, value) in [("Content-Type", kind), ("P-Associated-URI", associated)] {
        if !value.is_empty() {
            text.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
    }
    text.extend(b"\r\n");
    text.extend(body);
    Message::parse(Bytes::from(text), &Limits::default()).ok()
}

fuzz_target!(|data: &[u8]| {
    if let Some(message) = register(data) {
        let read = reachable::read(&message, None);
        let registration = read.registration;
        assert!(registration.contacts.len() <= KEPT);
        assert!(registration.associated.len() <= MAX_IDENTITIES);
        let kept = serde_json::to_vec(&registration).expect("texts and numbers");
        let back: Registration = serde_json::from_slice(&kept).expect("ours reads back");
        assert_eq!(back, registration);
    }
    let mut sequence = Sequence::default();
    // Documents one after the other.
    for document in data.split(|byte| *byte == 0) {
        let Ok(document) = reginfo::parse(document) else { continue };
        let before = sequence.version();
        let taken = sequence.take(document);
        assert_eq!(taken == Taken::Yes, sequence.version() != before);
        assert!(sequence.registrations().count() <= MAX_REGISTRATIONS);
        assert!(sequence.registrations().all(|one| one.contacts.len() <= MAX_CONTACTS));
    }
});
