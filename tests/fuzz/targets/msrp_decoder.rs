//! Any MSRP stream, however it is cut: the same pieces, and no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagecast::msrp::codec::{Decoder, Flag, Limits, Piece};

/// Heads by their transact-id, bodies joined, flags; whether the framing got lost.
fn decode(data: &[u8], cut: usize) -> (Vec<(Vec<u8>, Vec<u8>, Option<Flag>)>, bool) {
    let mut decoder = Decoder::new(Limits::default());
    let mut got: Vec<(Vec<u8>, Vec<u8>, Option<Flag>)> = Vec::new();
    for part in data.chunks(cut.max(1)) {
        decoder.buffer().extend_from_slice(part);
        loop {
            match decoder.next() {
                Ok(Some(Piece::Head(head))) => got.push((head.id.to_vec(), Vec::new(), None)),
                Ok(Some(Piece::Body(octets))) => {
                    got.last_mut().expect("a head first").1.extend_from_slice(&octets);
                }
                Ok(Some(Piece::End(flag))) => got.last_mut().expect("a head first").2 = Some(flag),
                Ok(None) => break,
                Err(_) => return (got, true),
            }
        }
    }
    (got, false)
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, stream)) = data.split_first() else { return };
    let (whole, lost) = decode(stream, usize::MAX);
    let (parts, parts_lost) = decode(stream, usize::from(*cut));
    // A message that is still running may show more or less of its body.
    let ended = |got: Vec<(Vec<u8>, Vec<u8>, Option<Flag>)>| {
        got.into_iter().filter(|message| message.2.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(lost, parts_lost);
    assert_eq!(ended(whole), ended(parts));
});
