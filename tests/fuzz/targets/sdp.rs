//! Any session description as offer and as answer: no panic, and what we make of it is well formed and ours.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagecast::content::fingerprint::Terms;
use pagecast::content::msrp_uri::MsrpUri;
use pagecast::content::sdp::{
    AcceptTypes, Change, Families, Own, Session, Tls, Wants, choose, compare, read_answer,
};

const TERMS: Terms = Terms { names: true, sha1: true };

fuzz_target!(|data: &[u8]| {
    let Ok(session) = Session::parse(data) else { return };
    assert_eq!(compare(&session, &session), Change::None);
    let _ = (read_answer(&session, None, true), read_answer(&session, Some(TERMS), false));
    let path = MsrpUri::own(false, "192.0.2.1", 2855, "0123456789abcdef").expect("a good URI");
    let own = Own {
        path: &path,
        session_id: 1,
        version: 1,
        max_size: 1000,
        fingerprints: &[],
        cema: true,
    };
    for attributed in [true, false] {
        let accept = AcceptTypes::default();
        let wants = Wants {
            accept: &accept,
            attributed,
            max_size: 1000,
            tls: Some(Tls { terms: TERMS, families: Families::default() }),
            families: Families::default(),
            cema: true,
        };
        let Ok(chosen) = choose(&session, &wants) else { continue };
        let answer = Session::parse(&chosen.answer(&own)).expect("ours is well formed");
        assert_eq!(answer.lines(), session.lines());
        let offer = Session::parse(&chosen.offer(&own)).expect("ours is well formed");
        assert_eq!(offer.lines(), 1);
        let text = chosen.offer(&own);
        let paths = text.split(|b| *b == b'\n').filter(|l| l.starts_with(b"a=path:")).count();
        assert_eq!(paths, 1);
    }
});
