//! Any stream: the same frames however it is split. The first octet says how.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pagecast::sip::message::{Frame, Framer, Limits, Message};

fuzz_target!(|data: &[u8]| {
    let Some((step, stream)) = data.split_first() else { return };
    let step = usize::from(*step).max(1);
    assert_eq!(frames(stream, step), frames(stream, stream.len().max(1)));
});

/// The frames of a stream read in pieces of `step` octets; the last line says why it was given up, if it was.
fn frames(stream: &[u8], step: usize) -> Vec<String> {
    let limits = Limits { max_message: 8192, ..Limits::default() };
    let (mut framer, mut buffer, mut seen) = (Framer::new(&limits), BytesMut::new(), Vec::new());
    for piece in stream.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match framer.feed(&mut buffer) {
                Ok(Some(frame)) => {
                    seen.push(format!("{frame:?}"));
                    if let Frame::Message(bytes) = frame {
                        let _ = Message::parse(bytes, &limits);
                    }
                }
                Ok(None) => break,
                Err(lost) => {
                    seen.push(lost.to_string());
                    return seen;
                }
            }
        }
    }
    seen
}
