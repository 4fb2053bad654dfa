//! Any selector on any document: no panic, what is named stands in the document, and how the server writes a selector
//! reads back as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagecast::xdms::path::Resource;
use pagecast::xdms::selector::{Bindings, Selected, Selector};

fuzz_target!(|data: &[u8]| {
    // The first line is what follows the root in a request, the second the query, the rest the document.
    let mut parts = data.splitn(3, |b| *b == b'\n');
    let mut text = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
    let (Some(path), Some(query), Some(document)) = (text(), text(), text()) else { return };
    let Ok(Resource { selector: Some(selector), .. }) = Resource::below_root(path) else { return };
    let bindings = Bindings::parse(query);
    let Ok(selector) = Selector::parse(&selector, &bindings, Some("urn:d")) else { return };
    let (written, _) = selector.written(selector.steps.len());
    let Ok(Resource { selector: Some(again), .. }) =
        Resource::below_root(&format!("a/global/b/~~/{written}"))
    else {
        panic!("{written}");
    };
    let again = Selector::parse(&again, &bindings, Some("urn:d")).expect("ours reads back");
    assert_eq!(again.steps, selector.steps);
    if pagecast::content::xml::check(document, &pagecast::xdms::groups::BOUNDS).is_err() {
        return;
    }
    let Ok(tree) = roxmltree::Document::parse(document) else { return };
    match selector.select(document, &tree) {
        Some(Selected::Element(text)) => {
            assert!(text.starts_with('<') && text.ends_with('>') && document.contains(&text));
        }
        Some(Selected::Attribute(value)) => assert!(document.contains(&value)),
        Some(Selected::Namespaces(text)) => {
            drop(roxmltree::Document::parse(&text).expect("an element"))
        }
        None => {}
    }
});
