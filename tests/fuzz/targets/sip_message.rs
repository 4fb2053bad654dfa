//! Any datagram: read without a panic, every view callable, and an answer to what was accepted is itself accepted.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pagecast::sip::message::{Limits, Message, Name, NameAddr, Writer};
use pagecast::sip::uri::Uri;

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    match Message::parse(Bytes::copy_from_slice(data), &limits) {
        Ok(message) => {
            look(&message);
            if message.is_request() {
                let answer = Writer::response(&message, 200, "OK", Some("tag")).finish(None);
                let again = Message::parse(answer, &limits)
                    .expect("an answer to an accepted request is well formed");
                assert_eq!(again.call_id(), message.call_id());
                assert_eq!(again.cseq(), message.cseq());
                assert_eq!(again.via(), message.via());
            }
        }
        Err(malformed) => {
            if let Some(request) = malformed.answer {
                look(&request);
                drop(Writer::response(&request, malformed.status, "No", Some("tag")).finish(None));
            }
        }
    }
});

fn look(message: &Message) {
    let _ = (
        message.uri(),
        message.reason(),
        message.from_tag(),
        message.to_tag(),
        message.body_bytes(),
    );
    let _ = (message.from(), message.to(), message.contact(), message.content_type());
    for (name, value) in message.all_headers() {
        let _ = (Name::known(name), NameAddr::parse(value).map(|address| address.params().count()));
    }
    for element in message.values(Name::Route) {
        if let Some(address) = NameAddr::parse(element)
            && let Ok(uri) = Uri::parse(address.uri)
        {
            let kept = uri.without_headers_and_method();
            assert!(uri.equals(&uri) && kept.headers().next().is_none(), "{uri}");
            assert_eq!(uri.canonical(), uri.clone().canonical());
        }
    }
}
