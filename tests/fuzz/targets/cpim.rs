//! Any envelope, in pieces: the same answer however it is cut, and the content starts inside the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagecast::content::cpim::{parse, write};

fuzz_target!(|data: &[u8]| {
    let whole = parse(data);
    if let Ok(Some(head)) = &whole {
        assert!(head.content_at <= data.len());
        // Everything that is needed is in front of the content.
        assert_eq!(parse(&data[..head.content_at]), whole);
        let subject = head.subject.as_deref().unwrap_or("");
        let again = write(&[("From", "<sip:a@h>"), ("Subject", subject)], "a/b", b"x");
        let again = parse(&again).expect("ours is well formed").expect("and complete");
        assert_eq!(again.subject.as_deref(), Some(subject));
        assert!(again.to.is_empty());
    }
    if whole == Ok(None) {
        for cut in [data.len() / 2, data.len().saturating_sub(1)] {
            assert_eq!(parse(&data[..cut]), Ok(None), "more octets only ever add");
        }
    }
});
