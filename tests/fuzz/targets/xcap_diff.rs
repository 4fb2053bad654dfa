//! Any body that tells of changed documents: read without a panic, within its bounds, in one spelling, and written back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagecast::content::xcap_diff::{self, Fate, MAX_CHANGES, bare_tag, normal};

fuzz_target!(|data: &[u8]| {
    let Ok(diff) = xcap_diff::parse(data) else { return };
    assert!(diff.changes.len() + diff.nodes.len() <= MAX_CHANGES);
    for document in diff.changes.iter().map(|change| &change.document) {
        assert_eq!(normal(document).as_ref(), Some(document), "one spelling");
    }
    let told = diff.changes.iter().map(|change| (change.document.as_str(), &change.fate));
    let text = xcap_diff::write(&diff.root, told);
    // A root of slashes alone is none, and long texts are refused: what is written from the rest reads back.
    let Ok(back) = xcap_diff::parse(text.as_bytes()) else { return };
    assert_eq!(back.changes.len(), diff.changes.len());
    for (old, new) in diff.changes.iter().zip(&back.changes) {
        assert_eq!(old.document, new.document);
        if let (Fate::Removed { previous: old }, Fate::Removed { previous: new }) =
            (&old.fate, &new.fate)
        {
            assert_eq!(bare_tag(old), new);
        }
    }
});
