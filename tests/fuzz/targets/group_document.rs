//! Any group document, and any selector on it: no panic, and what is accepted twice says the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagecast::xdms::groups::Group;
use pagecast::xdms::path::Resource;
use pagecast::xdms::selector::{self, Bindings, Selected};

fuzz_target!(|data: &[u8]| {
    // The first line is a path with a selector, the rest the document.
    let at = data.iter().position(|b| *b == b'\n').unwrap_or(0);
    let (path, document) = data.split_at(at);
    if let Ok(group) = Group::parse(document) {
        assert_eq!(Group::parse(document), Ok(group));
    }
    let Ok(path) = std::str::from_utf8(path) else { return };
    let Ok(resource) = Resource::below_root(path) else { return };
    let named = Resource::below_root(&resource.document.to_string()).expect("ours reads back");
    assert_eq!(named.document, resource.document);
    let bindings = Bindings::parse("xmlns(cp=urn:ietf:params:xml:ns:common-policy)");
    if let Ok(Some(Selected::Element(text))) =
        selector::select(document, resource.selector.as_deref().unwrap_or(""), &bindings)
    {
        assert!(text.starts_with('<') && text.ends_with('>'));
    }
});
