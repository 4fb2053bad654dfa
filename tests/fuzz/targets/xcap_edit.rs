//! Any change of any node: no panic, the outcome is well-formed, what was put is what is read, and what was removed is gone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagecast::content::xml;
use pagecast::xdms::edit::{Edit, apply};
use pagecast::xdms::groups::BOUNDS;
use pagecast::xdms::selector::{Bindings, End, Selected, Selector};
use roxmltree::{Document, Node};

fuzz_target!(|data: &[u8]| {
    // Lines: selector, query, body; the rest is the document. A body of one dash is a DELETE.
    let mut parts = data.splitn(4, |b| *b == b'\n');
    let mut text = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
    let (Some(selector), Some(query), Some(body), Some(document)) =
        (text(), text(), text(), text())
    else {
        return;
    };
    let Ok(selector) = Selector::parse(selector, &Bindings::parse(query), Some("urn:d")) else {
        return;
    };
    if xml::check(document, &BOUNDS).is_err() || Document::parse(document).is_err() {
        return;
    }
    let edit = if body == "-" { Edit::Delete } else { Edit::Put(body) };
    let order =
        |_: Node<'_, '_>, new: (Option<&str>, &str), there: (Option<&str>, &str)| new.1 < there.1;
    let Ok(edited) = apply(document, &selector, edit, &order, &BOUNDS) else { return };
    let tree = Document::parse(&edited.text).expect("well-formed");
    let read = selector.select(&edited.text, &tree);
    match (edit, &selector.end) {
        (Edit::Delete, _) => {
            assert_eq!(read, None);
            assert!(edited.text.len() < document.len());
        }
        (Edit::Put(body), End::Element) => {
            let sent = body.trim_matches([' ', '\t', '\r', '\n']);
            assert_eq!(read, Some(Selected::Element(sent.to_owned())));
        }
        (Edit::Put(body), _) => {
            let Some(Selected::Attribute(value)) = read else { panic!("{read:?}") };
            assert!(value == body || value == body.replace('"', "&quot;"));
        }
    }
});
