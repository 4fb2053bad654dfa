//! Any body with any Content-Type: split without a panic, parts never larger than the whole, and what we write reads back.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pagecast::content::{message_body, multipart, request_body};

fuzz_target!(|data: &[u8]| {
    // The first line is the Content-Type, the second the Content-Disposition.
    let mut lines = data.splitn(3, |b| *b == b'\n');
    let mut line = || lines.next().and_then(|l| std::str::from_utf8(l).ok());
    let (Some(content_type), Some(disposition)) = (line(), line()) else { return };
    let body = Bytes::copy_from_slice(lines.next().unwrap_or_default());
    for strict in [true, false] {
        let _ = request_body::read(content_type, Some(disposition), &body, strict);
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let fields = vec![
            field("Content-Type", content_type),
            field("Content-Disposition", disposition),
        ];
        if let Ok(message) = message_body::read(fields, &body, strict) {
            let (fields, _) = message_body::write(&message.pieces, Some("<list/>"));
            assert!(fields[0].1.starts_with("multipart/mixed"));
        }
    }
    if let Ok(parts) = multipart::flatten(content_type, &body) {
        assert!(parts.len() <= multipart::MAX_PARTS);
        assert!(parts.iter().map(|part| part.body.len()).sum::<usize>() <= body.len());
        let headers = [("Content-Type", "a/b")];
        let out: Vec<multipart::Outgoing<'_>> =
            parts.iter().map(|part| (&headers[..], &part.body[..])).collect();
        let (content_type, written) = multipart::write(&out);
        let again = multipart::parse(&content_type, &written).expect("ours is well formed");
        assert!(again.iter().map(|p| &p.body).eq(parts.iter().map(|p| &p.body)));
    }
});
