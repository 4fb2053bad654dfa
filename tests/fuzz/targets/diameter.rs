//! Any octets as Diameter: one message, then a stream of them in pieces.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pagecast::sh::codec::{Avp, DecodeError, Framer, Message};

/// Everything that can be asked of a message, and none of it may fail but by saying so.
fn ask(message: &Message) {
    let _ = message.outcome();
    let _ = message.unknown_mandatory().map(|fault| fault.failed_avp());
    for avp in &message.avps {
        look(avp);
        if let Ok(members) = avp.as_group() {
            members.iter().for_each(look);
            let again = Avp { data: group(&members), ..avp.clone() };
            assert_eq!(again.as_group().as_ref(), Ok(&members));
        }
    }
}

fn group(members: &[Avp]) -> Bytes {
    let def = &pagecast::sh::dictionary::USER_IDENTITY;
    Avp::grouped(def, members).data
}

fn look(avp: &Avp) {
    let _ = (avp.as_u32(), avp.as_u64(), avp.as_time(), avp.as_address());
    let _ = (avp.as_text().is_ok(), avp.as_identity());
}

/// The messages of a stream that comes in pieces of this size, and whether it broke.
fn cut(data: &[u8], size: usize) -> (Vec<Bytes>, bool) {
    let mut framer = Framer::new(64 * 1024);
    let mut messages = Vec::new();
    for piece in data.chunks(size) {
        framer.push(piece);
        loop {
            match framer.next() {
                Ok(Some(octets)) => messages.push(octets),
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
        }
    }
    (messages, false)
}

fuzz_target!(|data: &[u8]| {
    let mut whole = data.to_vec();
    // Most inputs say a length that is not theirs; one that is right gets further.
    if let Some(length) = whole.get(..4).and(u32::try_from(whole.len()).ok()) {
        whole[..4].copy_from_slice(&((1 << 24) | (length & 0x00ff_ffff)).to_be_bytes());
    }
    for octets in [Bytes::copy_from_slice(data), whole.into()] {
        match Message::decode(octets.clone()) {
            Ok(message) => {
                let again = message.encode();
                assert_eq!(again.len(), message.size());
                assert_eq!(Message::decode(again), Ok(message.clone()));
                ask(&message);
            }
            Err(DecodeError::Avp { read, fault }) => {
                assert_eq!(fault.result_code(), 5014);
                let mut answer = read.answer(read.avps.clone());
                answer.avps.push(fault.failed_avp());
                assert_eq!(Message::decode(answer.encode()), Ok(answer));
                ask(&read);
            }
            Err(DecodeError::Frame(_)) => {}
        }
    }
    let at_once = cut(data, data.len().max(1));
    for size in [1, 3, 20, 21] {
        assert_eq!(cut(data, size), at_once, "in pieces of {size}");
    }
});
