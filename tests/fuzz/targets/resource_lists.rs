//! Any list: read without a panic, and the history made of it is itself a list that shows no more than it may.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagecast::content::resource_lists::{BccMode, Copy, Limits, history, merge, parse};

fuzz_target!(|data: &[u8]| {
    for strict in [true, false] {
        let limits = Limits { strict, ..Limits::default() };
        let Ok(entries) = parse(data, &limits) else { continue };
        let merged = merge(entries, str::to_owned);
        let Some(text) = history(&merged, BccMode::Remove, None) else { continue };
        let unbound = Limits { max_bytes: usize::MAX, strict: true };
        let shown = parse(text.as_bytes(), &unbound).expect("ours is well formed");
        for entry in &shown {
            assert_ne!(entry.copy, Copy::Bcc);
        }
        assert!(shown.len() <= merged.len());
    }
});
